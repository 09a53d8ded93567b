#include "net/connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "net/datagram.h"
#include "net/queue.h"

/*
 * See the header for the states. Who may do what:
 *
 *   - Completion handlers and the owner's calls change the state; nothing here calls the owner
 *     from inside one of the owner's calls, except decode itself: closing, ended-after-resume and
 *     gone are collected on lists and reported by the parts of the turn (net.c).
 *   - A receive is armed at most once, a send is in flight at most once.
 *   - Input that may not be decoded now is stashed. When more than receive_queue waits, the
 *     receive is cancelled; what the kernel had already handed over is still taken.
 */

#define CANCEL_RETRY_MS 1000u

static void on_timer(struct wheel_timer *timer);

static uint32_t now_s(const struct net *net)
{
    return (uint32_t)(net->now_ms / 1000);
}

static void set_reason(struct roda_conn *c, const char *reason)
{
    if (!c->reason && reason)
        c->reason = memory_copy(reason, strlen(reason)); /* NULL is shown as "closed" */
}

/* ---- opening ---------------------------------------------------------------------------- */

static struct roda_conn *take_slot(struct net *net, struct listener *l, int fd)
{
    const struct listener_settings *settings = l->address->settings;
    struct net_slot *slot;
    struct roda_conn *c;
    uint32_t index;

    if (net->free_slot == UINT32_MAX && net->used_slots == net->n_slots)
        return NULL;
    c = memory_alloc(sizeof *c + settings->conn_data_bytes);
    if (!c)
        return NULL;
    if (net->free_slot != UINT32_MAX) {
        index = net->free_slot;
        net->free_slot = net->slots[index].next_free;
    } else {
        index = net->used_slots++;
    }
    slot = &net->slots[index];
    slot->conn = c;
    if (!++slot->generation)
        slot->generation = 1;
    c->id = (uint64_t)net->worker << 56 | (uint64_t)index << 32 | slot->generation;
    c->net = net;
    c->settings = settings;
    c->fd = fd;
    c->limit_bytes = settings->send_queue_bytes;
    c->active_s = now_s(net);
    net->open++;
    ring_add(&net->counters.connections, 1);
    return c;
}

/* False: already reset. What it sent before that could still be read. */
static bool learn_peer(struct roda_conn *c)
{
    const struct system *system = c->net->system;

    if (c->settings->transport == TRANSPORT_UNIX) {
        struct ucred peer = {0};
        socklen_t len = sizeof peer;
        int r = system->getsockopt(system->kernel, c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
        c->uid = peer.uid;
        return r >= 0;
    }
    union address peer = {0};
    socklen_t len = sizeof peer;
    if (system->getpeername(system->kernel, c->fd, &peer.any, &len) < 0)
        return false;
    if (peer.any.sa_family == AF_INET6) {
        c->peer_address = peer.v6.sin6_addr;
        c->peer_port = peer.v6.sin6_port;
    } else {
        c->peer_address.s6_addr[10] = c->peer_address.s6_addr[11] = 0xff;
        memcpy(&c->peer_address.s6_addr[12], &peer.v4.sin_addr, 4);
        c->peer_port = peer.v4.sin_port;
    }
    return true;
}

static void begin_watching(struct roda_conn *c)
{
    uint32_t first_ms = 0;

    if (c->settings->handshake_timeout_ms)
        first_ms = c->settings->handshake_timeout_ms;
    if (c->settings->idle_ping_ms && (!first_ms || c->settings->idle_ping_ms < first_ms))
        first_ms = c->settings->idle_ping_ms;
    if (first_ms)
        wheel_arm(c->net->wheel, &c->timer, c->net->now_ms + first_ms, on_timer);
}

bool connection_admit(struct net *net, int fd, bool *ret_full)
{
    uint32_t total = __atomic_add_fetch((uint32_t *)&net->totals->connections, 1, __ATOMIC_RELAXED);

    *ret_full = total > net->limits->max_connections;
    if (total <= net->limits->max_connections + NET_SPARE)
        return true;
    connection_dismiss(net, fd);
    NET_COUNT(net, connections_refused_full);
    return false;
}

void connection_dismiss(struct net *net, int fd)
{
    (void)net->system->close(net->system->kernel, fd);
    __atomic_sub_fetch((uint32_t *)&net->totals->connections, 1, __ATOMIC_RELAXED);
}

struct roda_conn *connection_open(struct net *net, struct listener *l, int fd, bool full)
{
    struct roda_conn *c = take_slot(net, l, fd);

    if (!c) {
        connection_dismiss(net, fd);
        NET_COUNT(net, connections_refused_full);
        return NULL;
    }
    NET_COUNT(net, connections_accepted);
    if (!learn_peer(c)) { /* nobody could tell a banned one from others */
        c->flags |= CONN_BROKE;
        connection_abort(c, "gone before its address was known");
        return NULL;
    }
    begin_watching(c);
    connection_arm_recv(c);
    if (full) { /* closing already when it is told of: nobody lets it in */
        NET_COUNT(net, connections_refused_full);
        connection_close(c, "the broker is full");
    }
    net->hooks->opened(net->owner, c);
    return c;
}

struct roda_conn *connection_open_session(struct net *net, struct listener *l,
                                          const union address *peer, void *session)
{
    struct roda_conn *c = take_slot(net, l, -1);

    if (!c)
        return NULL;
    __atomic_add_fetch((uint32_t *)&net->totals->connections, 1, __ATOMIC_RELAXED);
    c->flags |= CONN_DATAGRAM;
    c->session = session;
    if (peer->any.sa_family == AF_INET6) {
        c->peer_address = peer->v6.sin6_addr;
        c->peer_port = peer->v6.sin6_port;
    } else {
        c->peer_address.s6_addr[10] = c->peer_address.s6_addr[11] = 0xff;
        memcpy(&c->peer_address.s6_addr[12], &peer->v4.sin_addr, 4);
        c->peer_port = peer->v4.sin_port;
    }
    net->hooks->opened(net->owner, c);
    return c;
}

void connection_peer(const struct roda_conn *c, union address *ret, socklen_t *ret_len)
{
    memset(ret, 0, sizeof *ret);
    if (c->settings->transport == TRANSPORT_UNIX) {
        ret->any.sa_family = AF_UNIX;
        *ret_len = sizeof ret->any.sa_family;
    } else if (IN6_IS_ADDR_V4MAPPED(&c->peer_address)) {
        ret->v4.sin_family = AF_INET;
        ret->v4.sin_port = c->peer_port;
        memcpy(&ret->v4.sin_addr, &c->peer_address.s6_addr[12], 4);
        *ret_len = sizeof ret->v4;
    } else {
        ret->v6.sin6_family = AF_INET6;
        ret->v6.sin6_port = c->peer_port;
        ret->v6.sin6_addr = c->peer_address;
        *ret_len = sizeof ret->v6;
    }
}

const char *roda_conn_peer_text(const struct roda_conn *c, char *buf, size_t size)
{
    union address peer;
    socklen_t len;
    char host[INET6_ADDRSTRLEN];

    connection_peer(c, &peer, &len);
    if (c->settings->transport == TRANSPORT_UNIX)
        (void)snprintf(buf, size, "unix uid %u", c->uid);
    else if (IN6_IS_ADDR_UNSPECIFIED(&c->peer_address))
        (void)snprintf(buf, size, "unknown");
    else if (c->net->limits->mask_addresses)
        (void)snprintf(buf, size, "masked %08x",
                       (uint32_t)hash_bytes(&c->peer_address, sizeof c->peer_address));
    else if (peer.any.sa_family == AF_INET)
        (void)snprintf(buf, size, "%s port %u",
                       inet_ntop(AF_INET, &peer.v4.sin_addr, host, sizeof host),
                       ntohs(peer.v4.sin_port));
    else
        (void)snprintf(buf, size, "%s port %u",
                       inet_ntop(AF_INET6, &peer.v6.sin6_addr, host, sizeof host),
                       ntohs(peer.v6.sin6_port));
    return buf;
}

/* ---- receiving -------------------------------------------------------------------------- */

void connection_arm_recv(struct roda_conn *c)
{
    struct io_uring_sqe *sqe;

    if ((c->flags & (CONN_RECEIVING | CONN_EOF)) || c->state >= CONNECTION_CLOSING)
        return;
    sqe = ring_sqe(c->net->ring,
                   RING_USER_DATA(RING_RECV, c->id & RING_GENERATION_MASK, connection_slot(c)));
    if (!sqe) {
        if (!list_linked(&c->link))
            list_append(&c->net->rearm, &c->link);
        return;
    }
    /* Before Linux 7.0 a multishot receive can miss the end of an AF_UNIX stream that comes
     * together with data (axboe/liburing issue 1549; seen on 6.18): there, one receive at a time.
     */
    if (c->settings->transport == TRANSPORT_UNIX)
        io_uring_prep_recv(sqe, c->fd, NULL, c->net->limits->receive_buffer_bytes, 0);
    else
        io_uring_prep_recv_multishot(sqe, c->fd, NULL, 0, 0);
    sqe->user_data = RING_USER_DATA(RING_RECV, c->id & RING_GENERATION_MASK, connection_slot(c));
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = 1;
    if (c->settings->transport != TRANSPORT_UNIX || !(c->flags & CONN_BEGUN))
        sqe->ioprio |= IORING_RECVSEND_POLL_FIRST; /* nothing is there; no buffer is needed yet */
    c->flags |= CONN_RECEIVING;
    c->in_flight++;
}

static size_t stash_length(const struct roda_conn *c)
{
    return c->stash ? c->stash->end - c->stash->start : 0;
}

static void stash_free(struct roda_conn *c)
{
    if (c->stash)
        memory_free(c->stash->bytes);
    memory_free(c->stash);
    c->stash = NULL;
}

static bool stash_put(struct roda_conn *c, const char *bytes, size_t len)
{
    struct stash *s = c->stash;

    if (!s) {
        s = memory_alloc(sizeof *s);
        if (!s)
            return false;
        c->stash = s;
    }
    if (s->start && s->end + len > s->capacity) {
        memmove(s->bytes, s->bytes + s->start, s->end - s->start);
        s->end -= s->start;
        s->start = 0;
    }
    if (s->end + len > s->capacity) {
        size_t capacity = s->capacity ? s->capacity : 256;
        while (capacity < s->end + len)
            capacity *= 2;
        char *grown = memory_realloc(s->bytes, capacity);
        if (!grown)
            return false;
        s->bytes = grown;
        s->capacity = (uint32_t)capacity;
    }
    memcpy(s->bytes + s->end, bytes, len);
    s->end += (uint32_t)len;
    return true;
}

bool connection_may_decode(const struct roda_conn *c)
{
    return c->state == CONNECTION_OPEN && !c->holds && !c->waits && !c->net->input_stopped;
}

/* A unit that is too long: what was seen of it is counted and thrown away. Returns what to skip. */
static size_t skip_long_unit(struct roda_conn *c, const char *bytes, size_t len)
{
    const char *end = memchr(bytes, '\n', len);
    size_t skipped = end ? (size_t)(end - bytes) + 1 : len;

    c->skipped_bytes += (uint32_t)skipped;
    if (end) {
        c->flags &= ~(uint32_t)CONN_SKIPPING;
        NET_COUNT(c->net, units_oversize);
        c->net->hooks->oversize(c->net->owner, c, c->skipped_bytes - 1);
        c->skipped_bytes = 0;
    } else if (c->skipped_bytes / 4 >= c->settings->unit_max_bytes) {
        NET_COUNT(c->net, units_oversize);
        NET_COUNT(c->net, connections_closed_oversize);
        c->net->hooks->oversize(c->net->owner, c, c->skipped_bytes);
        connection_close(c, "no line end within four times the longest line");
    }
    return skipped;
}

static bool show_unit(struct roda_conn *c, const char *bytes, size_t len)
{
    struct net *net = c->net;
    bool again = c->flags & CONN_KEPT;

    if (!again)
        NET_COUNT(net, units_received);
    if (net->hooks->unit(net->owner, c, (struct roda_str){bytes, len}, again) == NET_UNIT_KEEP) {
        c->flags |= CONN_KEPT;
        return false;
    }
    c->flags &= ~(uint32_t)CONN_KEPT;
    return true;
}

/* All that is there is a unit. One that was kept does not grow by what came meanwhile: filters have
 * judged it, and would not see the rest. */
static size_t raw_unit(struct roda_conn *c, size_t len)
{
    if (!(c->flags & CONN_KEPT))
        c->raw_bytes = (uint32_t)len;
    return c->raw_bytes;
}

/* Shows whole units as long as that is allowed; returns how many bytes are done with. last: the
 * peer has ended, what is left is a unit, too. */
static size_t decode(struct roda_conn *c, const char *bytes, size_t len, bool last)
{
    size_t done = 0;

    while (done < len && connection_may_decode(c)) {
        const char *at = bytes + done, *end;
        size_t left = len - done, unit;

        if (c->settings->protocol->framing == RODA_RAW) {
            unit = raw_unit(c, left);
            if (!show_unit(c, at, unit))
                break;
            done += unit;
            continue;
        }
        if (c->flags & CONN_SKIPPING) {
            done += skip_long_unit(c, at, left);
            continue;
        }
        end = memchr(at, '\n', left);
        unit = end ? (size_t)(end - at) : left;
        if (unit > c->settings->unit_max_bytes + 1u) { /* 1: a CR that may follow */
            c->flags |= CONN_SKIPPING;
            continue;
        }
        if (!end && !last)
            break;
        size_t whole = unit + (end ? 1 : 0);
        if (unit && at[unit - 1] == '\r')
            unit--;
        if (unit > c->settings->unit_max_bytes) {
            c->flags |= CONN_SKIPPING;
            if (!end) {
                c->flags &= ~(uint32_t)CONN_SKIPPING;
                c->net->hooks->oversize(c->net->owner, c, unit);
                done += whole;
            }
            continue;
        }
        if (!show_unit(c, at, unit))
            break;
        done += whole;
    }
    return done;
}

static void pause_recv(struct roda_conn *c)
{
    struct io_uring_sqe *sqe;

    if (!(c->flags & CONN_RECEIVING) || (c->flags & (CONN_CANCELLED | CONN_DATAGRAM)))
        return;
    sqe = ring_sqe(c->net->ring,
                   RING_USER_DATA(RING_CANCEL, c->id & RING_GENERATION_MASK, connection_slot(c)));
    if (!sqe)
        return; /* more input will ask again */
    io_uring_prep_cancel64(sqe,
                           RING_USER_DATA(RING_RECV, c->id & RING_GENERATION_MASK,
                                          connection_slot(c)),
                           0);
    sqe->user_data = RING_USER_DATA(RING_CANCEL, c->id & RING_GENERATION_MASK, connection_slot(c));
    c->flags |= CONN_CANCELLED;
    c->in_flight++;
    NET_COUNT(c->net, receives_paused);
}

static void after_decode(struct roda_conn *c)
{
    if (c->state != CONNECTION_OPEN) {
        stash_free(c);
        return;
    }
    if (!stash_length(c))
        stash_free(c);
    if (stash_length(c) > c->settings->receive_queue_bytes && !connection_may_decode(c))
        pause_recv(c);
    else if (!(c->flags & (CONN_RECEIVING | CONN_EOF | CONN_DATAGRAM)) && !list_linked(&c->link))
        list_append(&c->net->rearm, &c->link);
    if ((c->flags & (CONN_EOF | CONN_ENDED)) == CONN_EOF && !c->stash && connection_may_decode(c)) {
        c->flags |= CONN_ENDED;
        c->net->hooks->ended(c->net->owner, c);
    }
}

static void decode_stash(struct roda_conn *c)
{
    struct stash *s = c->stash;

    if (s) {
        c->flags |= CONN_DECODING;
        s->start +=
            (uint32_t)decode(c, s->bytes + s->start, s->end - s->start, c->flags & CONN_EOF);
        c->flags &= ~(uint32_t)CONN_DECODING;
    }
    after_decode(c);
}

void connection_input(struct roda_conn *c, const char *bytes, size_t len)
{
    struct net *net = c->net;

    NET_ADD(net, received_bytes, len);
    c->active_s = now_s(net);
    c->flags &= ~(uint32_t)CONN_IDLE_ASKED;
    if (c->state != CONNECTION_OPEN || !len)
        return;
    if (!(c->flags & CONN_BEGUN)) {
        c->flags |= CONN_BEGUN;
        if (!net->hooks->first(net->owner, c, (struct roda_str){bytes, len})) {
            connection_close(c, "not this protocol");
            return;
        }
    }
    if (!c->stash && connection_may_decode(c)) {
        c->flags |= CONN_DECODING;
        size_t done = decode(c, bytes, len, false);
        c->flags &= ~(uint32_t)CONN_DECODING;
        bytes += done;
        len -= done;
    }
    if (len && c->state == CONNECTION_OPEN && !stash_put(c, bytes, len)) {
        NET_COUNT(net, connections_closed_memory);
        connection_abort(c, "out of memory");
        return;
    }
    if (c->stash)
        decode_stash(c);
    else
        after_decode(c);
    if (c->stash && !connection_may_decode(c) && net->input_stopped)
        connection_resume(c);
}

void connection_input_end(struct roda_conn *c)
{
    c->flags |= CONN_EOF;
    if (c->state == CONNECTION_OPEN) {
        if (connection_may_decode(c))
            decode_stash(c);
        else if (c->net->input_stopped)
            connection_resume(c);
    } else if (c->state == CONNECTION_LINGERING) {
        connection_step(c);
    }
}

void connection_hold(struct roda_conn *c)
{
    c->holds++;
}

void connection_release(struct roda_conn *c)
{
    if (c->holds && !--c->holds)
        connection_resume(c);
}

void connection_resume(struct roda_conn *c)
{
    if (c->state != CONNECTION_OPEN || c->flags & CONN_OVER)
        return;
    list_remove(&c->link); /* it may wait for its receive: decoding comes first */
    list_append(&c->net->resume, &c->link);
}

void net_resume_inputs(struct net *net)
{
    struct list todo;

    if (net->input_stopped)
        return;
    list_init(&todo);
    list_take(&todo, &net->resume);
    for (struct list *node; (node = list_pop(&todo));) {
        struct roda_conn *c = container_of(node, struct roda_conn, link);
        decode_stash(c);
    }
}

/* ---- completions ------------------------------------------------------------------------ */

static struct roda_conn *completed(struct net *net, const struct ring_completion *done)
{
    struct roda_conn *c = done->slot < net->n_slots ? net->slots[done->slot].conn : NULL;

    if (!c || (c->id & RING_GENERATION_MASK) != done->generation) {
        ring_add(&net->ring->counters.stale, 1);
        return NULL;
    }
    if (!(done->flags & IORING_CQE_F_MORE))
        c->in_flight--;
    return c;
}

static void finish(struct roda_conn *c);

static void broke(struct roda_conn *c, int error)
{
    char reason[96];

    c->flags |= CONN_BROKE;
    (void)snprintf(reason, sizeof reason, "the connection broke: %s", strerror(error));
    connection_abort(c, reason);
}

static void recv_failed(struct roda_conn *c, int error)
{
    switch (error) {
    case ENOBUFS: /* no receive buffer was free: armed again once some are */
        NET_COUNT(c->net, receive_buffers_empty);
        break;
    case ECANCELED:
    case EINTR:
    case EAGAIN:
        break;
    default:
        broke(c, error);
        break;
    }
}

void connection_on_recv(void *owner, const struct ring_completion *done)
{
    struct net *net = owner;
    struct roda_conn *c = completed(net, done);
    bool more = done->flags & IORING_CQE_F_MORE;

    if (c && !more)
        c->flags &= ~(uint32_t)(CONN_RECEIVING | CONN_CANCELLED);
    if (done->flags & IORING_CQE_F_BUFFER) {
        if (c && done->result > 0 && c->state == CONNECTION_OPEN)
            connection_input(c, net_buffer(net, done->flags), (size_t)done->result);
        net_buffer_back(net, done->flags);
    }
    if (!c)
        return;
    if (done->result == 0)
        connection_input_end(c);
    else if (done->result < 0 && c->state < CONNECTION_CLOSING)
        recv_failed(c, -done->result);
    if (c->state == CONNECTION_CLOSING) {
        finish(c);
    } else if (!more && !(c->flags & (CONN_EOF | CONN_RECEIVING)) && !list_linked(&c->link) &&
               (stash_length(c) <= c->settings->receive_queue_bytes || connection_may_decode(c) ||
                c->state != CONNECTION_OPEN)) {
        NET_COUNT(net, receives_rearmed);
        list_append(&net->rearm, &c->link);
    }
}

void connection_on_cancel(void *owner, const struct ring_completion *done)
{
    struct roda_conn *c = done->slot == UINT32_MAX ? NULL : completed(owner, done);

    if (!c) /* a listener's */
        return;
    if (c->flags & CONN_RECEIVING) /* it may have missed: more input asks for another one */
        c->flags &= ~(uint32_t)CONN_CANCELLED;
    if (c->state == CONNECTION_CLOSING)
        finish(c);
}

void connection_on_send(void *owner, const struct ring_completion *done)
{
    struct net *net = owner;
    struct roda_conn *c = completed(net, done);

    if (!c)
        return;
    if (c->request)
        slab_put(&net->requests, c->request);
    c->request = NULL;
    c->flags &= ~(uint32_t)(CONN_SENDING | CONN_SHORT);
    if (done->result > 0) {
        NET_ADD(net, sent_bytes, (uint64_t)done->result);
        if ((uint32_t)done->result < c->sending_bytes) {
            NET_COUNT(net, sends_short);
            c->flags |= CONN_SHORT;
        }
        queue_consume(c, (uint32_t)done->result);
    }
    c->sending_bytes = 0;
    if (c->state == CONNECTION_CLOSING) {
        queue_clear(c, 0);
        finish(c);
        return;
    }
    switch (done->result < 0 ? -done->result : 0) {
    case 0:
    case EAGAIN:
    case EINTR:
    case ENOBUFS:
    case ENOMEM:
    case ECANCELED:
        break;
    default:
        broke(c, -done->result);
        return;
    }
    if (queue_sendable(c)) {
        if (!(c->flags & CONN_DIRTY))
            queue_mark_dirty(c);
    } else if (c->state == CONNECTION_FLUSHING) {
        connection_step(c);
    }
}

/* ---- closing ---------------------------------------------------------------------------- */

void connection_close(struct roda_conn *c, const char *reason)
{
    if (c->state != CONNECTION_OPEN)
        return;
    set_reason(c, reason);
    c->state = CONNECTION_FLUSHING;
    c->flags |= CONN_NO_DELIVERY;
    if (!(c->flags & CONN_DECODING))
        stash_free(c);
    if (c->flags & CONN_OVER)
        return; /* closed without a farewell, in a moment */
    list_remove(&c->link);
    list_append(&c->net->farewell, &c->link);
}

/* Bytes in our kernel: a reset would lose them. 0: none, or it does not tell. */
static uint32_t untaken_bytes(const struct roda_conn *c)
{
    const struct system *system = c->net->system;
    int r = system->untaken(system->kernel, c->fd);

    return r < 0 ? 0 : (uint32_t)r;
}

static uint32_t write_timeout_ms(const struct roda_conn *c)
{
    return c->settings->write_timeout_ms ? c->settings->write_timeout_ms : 10000;
}

static void begin_lingering(struct roda_conn *c)
{
    struct net *net = c->net;

    (void)net->system->shutdown(net->system->kernel, c->fd, SHUT_WR);
    c->progress_ms = (uint32_t)net->now_ms;
    wheel_arm(net->wheel, &c->timer, net->now_ms + net->limits->linger_ms, on_timer);
    if (!(c->flags & CONN_RECEIVING) && !list_linked(&c->link))
        list_append(&net->rearm, &c->link);
}

/* How long the peer has taken nothing, or has been told goodbye. */
static uint32_t waited_ms(const struct roda_conn *c)
{
    return (uint32_t)c->net->now_ms - c->progress_ms;
}

/* What lies in our kernel may be taken for as long as being told goodbye may take. Whether the peer
 * is reading does not show: a window that was shut opens in large steps. Who was never let in is
 * not waited for: else one who takes nothing, refused again and again, would hold many
 * descriptors. Nor is one byte waited for: it is the end itself. */
static bool has_untaken(const struct roda_conn *c)
{
    return c->flags & CONN_READY && untaken_bytes(c) > 1 && waited_ms(c) < write_timeout_ms(c);
}

void connection_step(struct roda_conn *c)
{
    struct net *net = c->net;
    const struct system *system = net->system;

    if (c->state == CONNECTION_FLUSHING && c->flags & CONN_TOLD && queue_empty(c) &&
        !(c->flags & CONN_SENDING)) {
        c->state = CONNECTION_LINGERING;
        if (c->flags & CONN_DATAGRAM) {
            c->state = CONNECTION_CLOSING;
        } else if (!(c->flags & CONN_EOF)) {
            begin_lingering(c);
        }
    }
    if (c->state == CONNECTION_LINGERING && (c->flags & CONN_EOF))
        c->state = CONNECTION_CLOSING;
    if (c->state == CONNECTION_CLOSING) {
        list_remove(&c->link);
        if (c->fd >= 0)
            (void)system->shutdown(system->kernel, c->fd, SHUT_RDWR);
        finish(c);
    }
}

void connection_linger(struct roda_conn *c)
{
    wheel_arm(c->net->wheel, &c->timer, c->net->now_ms + write_timeout_ms(c), on_timer);
}

void connection_abort(struct roda_conn *c, const char *reason)
{
    if (c->state >= CONNECTION_CLOSING)
        return;
    set_reason(c, reason);
    c->state = CONNECTION_CLOSING;
    c->flags |= CONN_NO_DELIVERY | CONN_ABORT;
    if (!(c->flags & CONN_DECODING))
        stash_free(c);
    queue_clear(c, c->sending_bytes);
    connection_step(c);
}

static void tell_closed(const struct roda_conn *c)
{
    char peer[96];
    uint32_t level = c->flags & CONN_BROKE   ? RODA_LOG_INFO
                     : c->flags & CONN_ABORT ? RODA_LOG_NOTICE
                                             : RODA_LOG_DEBUG;

    log_write(level, "net", "[listener %s] %s closed: %s", c->settings->name,
              roda_conn_peer_text(c, peer, sizeof peer), c->reason ? c->reason : "no reason kept");
}

/* CLOSING: once nothing is in flight, the descriptor goes. */
static void finish(struct roda_conn *c)
{
    struct net *net = c->net;
    const struct system *system = net->system;
    int fd = c->fd;

    if (c->in_flight) {
        if (!wheel_armed(&c->timer) || c->timer.at_ms > net->now_ms + CANCEL_RETRY_MS)
            wheel_arm(net->wheel, &c->timer, net->now_ms + CANCEL_RETRY_MS, on_timer);
        return;
    }
    wheel_disarm(net->wheel, &c->timer);
    queue_clear(c, 0);
    if (!(c->flags & CONN_DECODING))
        stash_free(c);
    list_remove(&c->link);
    c->state = CONNECTION_GONE;
    c->fd = -1;
    if (fd >= 0) {
        if (c->flags & (CONN_ABORT |
                        CONN_RESET)) { /* what the kernel still holds would only wait for nobody */
            struct linger reset = {.l_onoff = 1, .l_linger = 0};
            (void)system->setsockopt(system->kernel, fd, SOL_SOCKET, SO_LINGER, &reset,
                                     sizeof reset);
        }
        (void)system->close(system->kernel, fd);
    } else if (c->flags & CONN_DATAGRAM) {
        datagram_session_end(c);
    }
    tell_closed(c);
    net->open--;
    __atomic_sub_fetch((uint32_t *)&net->totals->connections, 1, __ATOMIC_RELAXED);
    NET_COUNT(net, connections_closed);
    ring_add(&net->counters.connections, (uint64_t)-1);
    list_append(&net->ended, &c->link);
    if (net->accept_waits)
        listener_retry(net);
}

static void retry_cancel(struct roda_conn *c)
{
    struct io_uring_sqe *sqe =
        ring_sqe(c->net->ring,
                 RING_USER_DATA(RING_CANCEL, c->id & RING_GENERATION_MASK, connection_slot(c)));

    if (sqe) {
        uint64_t user_data = sqe->user_data;
        io_uring_prep_cancel_fd(sqe, c->fd, IORING_ASYNC_CANCEL_ALL);
        sqe->user_data = user_data;
        c->in_flight++;
        NET_COUNT(c->net, cancel_retries);
    }
    wheel_arm(c->net->wheel, &c->timer, c->net->now_ms + CANCEL_RETRY_MS, on_timer);
}

/* Arms the timer for at_ms or keeps what comes earlier. */
static void watch(struct roda_conn *c, uint64_t at_ms)
{
    if (!wheel_armed(&c->timer) || c->timer.at_ms > at_ms)
        wheel_arm(c->net->wheel, &c->timer, at_ms, on_timer);
}

/* A send completes when a third of the kernel's buffer is free, for which a slow reader may take
 * longer than write_timeout. So what lies in that buffer is looked at four times in write_timeout:
 * less than before is progress. What was taken before the first look is not known, and counts. */
static void look_at_send(struct roda_conn *c)
{
    uint32_t timeout_ms = c->settings->write_timeout_ms, untaken = untaken_bytes(c), left_ms;

    if (untaken < c->untaken)
        c->progress_ms = (uint32_t)c->net->now_ms;
    c->untaken = untaken;
    if (waited_ms(c) >= timeout_ms) {
        NET_COUNT(c->net, connections_closed_slow);
        connection_abort(c, "reads too slowly: nothing was taken for write_timeout");
        return;
    }
    left_ms = timeout_ms - waited_ms(c);
    if (left_ms > timeout_ms / 4 + 1)
        left_ms = timeout_ms / 4 + 1;
    watch(c, c->net->now_ms + left_ms);
}

static void on_open_timer(struct roda_conn *c)
{
    const struct listener_settings *s = c->settings;
    struct net *net = c->net;
    bool held = c->holds || c->waits; /* held back counts as alive */

    if ((c->flags & CONN_SENDING) && s->write_timeout_ms) {
        look_at_send(c);
        if (c->state != CONNECTION_OPEN)
            return;
    }
    if (s->handshake_timeout_ms && !(c->flags & CONN_READY)) {
        if (!held && ((uint64_t)c->active_s * 1000 + s->handshake_timeout_ms) <= net->now_ms) {
            connection_close(c, "no handshake within handshake_timeout");
            return;
        }
        watch(c, net->now_ms + 1000);
    }
    if (s->idle_ping_ms) {
        uint64_t quiet_ms = net->now_ms - (uint64_t)c->active_s * 1000;
        if (held)
            quiet_ms = 0;
        if ((c->flags & CONN_IDLE_ASKED) && s->ping_timeout_ms &&
            quiet_ms >= (uint64_t)s->idle_ping_ms + s->ping_timeout_ms) {
            connection_close(c, "no sign of life within ping_timeout");
            return;
        }
        if (!(c->flags & CONN_IDLE_ASKED) && quiet_ms >= s->idle_ping_ms) {
            c->flags |= CONN_IDLE_ASKED;
            net->hooks->idle(net->owner, c);
        }
        if (!(c->flags & CONN_IDLE_ASKED))
            watch(c, net->now_ms + s->idle_ping_ms - quiet_ms);
        else /* without a limit, too: it may answer and be quiet again */
            watch(c, net->now_ms + (s->ping_timeout_ms ? s->ping_timeout_ms : s->idle_ping_ms));
    }
}

static void on_timer(struct wheel_timer *timer)
{
    struct roda_conn *c = container_of(timer, struct roda_conn, timer);

    switch (c->state) {
    case CONNECTION_OPEN:
        on_open_timer(c);
        break;
    case CONNECTION_FLUSHING:
        if (!(c->flags & CONN_TOLD)) {
            c->flags |= CONN_TOLD;
            net_farewell(c);
            break;
        }
        NET_COUNT(c->net, connections_closed_slow);
        connection_abort(c, "reads too slowly to be told goodbye");
        break;
    case CONNECTION_LINGERING:
        if (has_untaken(c)) {
            wheel_arm(c->net->wheel, &c->timer, c->net->now_ms + c->net->limits->linger_ms,
                      on_timer);
            break;
        }
        /* It may go on sending for ever, into a window that is shut: a reset ends that. */
        c->flags |= CONN_EOF | CONN_RESET;
        connection_step(c);
        break;
    case CONNECTION_CLOSING:
        retry_cancel(c);
        break;
    default:
        break;
    }
}

/* ---- sending ---------------------------------------------------------------------------- */

static bool send_now(struct roda_conn *c)
{
    struct net *net = c->net;
    struct iovec pieces[SEND_PIECES];
    uint32_t bytes;
    unsigned n = queue_gather(c, pieces, &bytes);
    uint64_t user_data =
        RING_USER_DATA(RING_SEND, c->id & RING_GENERATION_MASK, connection_slot(c));
    struct send_request *request = NULL;
    struct io_uring_sqe *sqe;

    if (n > 1) {
        request = slab_get(&net->requests);
        if (!request) { /* one piece at a time needs no memory */
            n = 1;
            bytes = (uint32_t)pieces[0].iov_len;
        }
    }
    sqe = ring_sqe(net->ring, user_data);
    if (!sqe) {
        if (request)
            slab_put(&net->requests, request);
        return false;
    }
    if (request) {
        memset(&request->header, 0, sizeof request->header);
        memcpy(request->pieces, pieces, n * sizeof *pieces);
        request->header.msg_iov = request->pieces;
        request->header.msg_iovlen = n;
        io_uring_prep_sendmsg(sqe, c->fd, &request->header, MSG_NOSIGNAL);
    } else {
        io_uring_prep_send(sqe, c->fd, pieces[0].iov_base, pieces[0].iov_len, MSG_NOSIGNAL);
    }
    sqe->user_data = user_data;
    if (c->flags & CONN_SHORT)
        sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    c->request = request;
    c->sending_bytes = bytes;
    c->progress_ms = (uint32_t)net->now_ms;
    c->untaken = UINT32_MAX;
    c->flags |= CONN_SENDING;
    c->in_flight++;
    NET_COUNT(net, sends);
    if (c->settings->write_timeout_ms)
        watch(c, net->now_ms + c->settings->write_timeout_ms / 4 + 1);
    return true;
}

void net_flush(struct net *net)
{
    struct roda_conn *c = net->dirty, *kept = NULL;

    net->dirty = NULL;
    while (c) {
        struct roda_conn *next = c->next_dirty;
        bool done = true;
        c->flags &= ~(uint32_t)CONN_DIRTY;
        c->next_dirty = NULL;
        if (c->state < CONNECTION_LINGERING && !(c->flags & CONN_SENDING)) {
            if (queue_sendable(c))
                done = c->flags & CONN_DATAGRAM ? datagram_flush(c) : send_now(c);
            if (done && !(c->flags & CONN_SENDING) && c->state == CONNECTION_FLUSHING)
                connection_step(c);
        }
        if (!done) { /* the submission queue is full: next turn */
            c->flags |= CONN_DIRTY;
            c->next_dirty = kept;
            kept = c;
        }
        c = next;
    }
    net->dirty = kept;
}
