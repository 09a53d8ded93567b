#include "net/datagram.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/table.h"
#include "net/out.h"
#include "net/queue.h"

/*
 * Two things live here: what strangers may cause, and sessions.
 *
 * A STRANGER is who has no session. His address may be forged, so nothing is remembered of him
 * and nearly nothing is sent to him; the bound holds whatever a protocol says:
 *   - at most one answer of at most ANSWER_BYTES per datagram;
 *   - per source prefix (/24, /56) what a GCRA word allows, and for all prefixes together another;
 *     words are found by a keyed hash, so that nobody can choose whom he shares one with;
 *   - a try that proves nothing costs as much as an answer, also where none is given: otherwise
 *     cookies could be guessed as fast as the network goes;
 *   - over it, and to ports of services that answer by themselves, silence.
 * What proves an address is datagram_cookie(): nothing that changes is shared by the workers, since
 * the key is drawn from the process's key and the hour. A slot belongs to one hour, so the key of
 * the hour before lives on in the first slot's predecessor.
 *
 * A SESSION is an ordinary connection without a descriptor, found by who sent to which of our
 * addresses: answers leave from the address that was asked. Its input is never partial: the end of
 * a datagram ends a line. One socket serves all, so it can never be stopped for one: what may not
 * be decoded now is stashed up to receive_queue, the rest is thrown away and counted. Its output
 * is never in flight: what is packed into a datagram leaves the queue at once, and what the kernel
 * does not take is lost. A transmit lives by itself, by value, so a session can end at any time.
 *
 * The multishot receive ends at every empty datagram, which anybody may send: armed again next
 * turn. shutdown(2) does not end it (unlike a stream's), a cancel does.
 *
 * All transmits being taken only means that this turn has much to say: the rest waits for the
 * next, bounded by send_queue.
 */

#define ANSWER_BYTES      10u
#define TRANSMITS         256u
#define PIECES            8u /* of one datagram */
#define PREFIXES          1024u
#define PREFIX_COST_NS    UINT64_C(250000000) /* 4 per second */
#define PREFIX_BURST      8u
#define TOTAL_COST_NS     UINT64_C(1000000) /* 1000 per second */
#define TOTAL_BURST       1000u
#define NS_PER_MS         UINT64_C(1000000)
#define BURST_NS_MAX      (UINT64_C(1) << 62)
#define COOKIE_SLOT_MS    16000u
#define COOKIE_HOUR_SLOTS 225u
#define RETRY_MS          100u
#define BUFFER_GROUP      1
#define CANCEL_SLOT       0x80000000u /* slots of RING_DATAGRAM_SEND that are cancels */
#define NAME_ROOM         32u         /* a sockaddr_in6, and control data stays aligned behind it */
#define CONTROL_ROOM                                                                               \
    (CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo)))

_Static_assert(NAME_ROOM >= sizeof(struct sockaddr_in6), "any UDP address fits");
_Static_assert((sizeof(struct io_uring_recvmsg_out) + NAME_ROOM) % _Alignof(struct cmsghdr) == 0,
               "control data is aligned");

struct flow {                   /* between whom; the key of a session, without padding */
    struct in6_addr peer, here; /* IPv4 is mapped; here may be unknown: all zero */
    uint32_t scope;             /* the interface of a link-local peer */
    uint32_t port;              /* the peer's, in network order */
};
_Static_assert(sizeof(struct flow) == 40, "compared and hashed as bytes");

struct datagram_session {
    struct flow flow;
    uint64_t hash;
    struct datagram_socket *socket;
    struct listener *listener;
    struct roda_conn *conn;
    uint64_t heard_ms;
    uint64_t full_at_ns; /* of settings->session_bytes */
    struct wheel_timer timer;
};

struct datagram_socket { /* one bound address */
    struct table sessions;
    bool cancelling;
    uint64_t byte_ns, burst_ns; /* settings->session_bytes; byte_ns 0: no limit */
};

struct transmit { /* one datagram on its way into the kernel */
    struct msghdr header;
    struct iovec pieces[PIECES];
    struct chunk *chunks[PIECES]; /* referenced until the completion */
    unsigned n_chunks;
    struct listener *listener; /* NULL: free */
    struct transmit *next_free;
    union {
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } to;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct in6_pktinfo))];
    char answer[ANSWER_BYTES];
};

struct datagrams { /* what the UDP sockets of a worker share */
    unsigned users;
    struct msghdr received; /* the layout of what the multishot receive brings */
    uint64_t total_full_at_ns;
    uint64_t prefix_full_at_ns[PREFIXES];
    struct transmit *free;
    struct transmit transmits[TRANSMITS];
};

struct batch { /* whole units that fit one datagram */
    unsigned n;
    uint32_t bytes;
    struct {
        struct chunk *chunk;
        uint32_t offset, length;
    } pieces[PIECES];
};

/* ---- rates ------------------------------------------------------------------------------ */

/* GCRA: the word says when the bucket will be full again. A full bucket lets anything pass. */
static bool allow(uint64_t *full_at_ns, uint64_t now_ns, uint64_t cost_ns, uint64_t burst_ns)
{
    uint64_t at = *full_at_ns > now_ns ? *full_at_ns : now_ns;

    if (at != now_ns && at - now_ns + cost_ns > burst_ns)
        return false;
    *full_at_ns = at + cost_ns;
    return true;
}

static uint64_t *prefix_word(struct datagrams *all, const struct in6_addr *peer)
{
    size_t len = IN6_IS_ADDR_V4MAPPED(peer) ? 15 : 7;

    return &all->prefix_full_at_ns[hash_bytes(peer, len) % PREFIXES];
}

static void learn_rate(struct datagram_socket *socket, const struct roda_rate *rate)
{
    if (rate->count <= 0)
        return;
    socket->byte_ns = (uint64_t)rate->per_ms * NS_PER_MS / (uint64_t)rate->count;
    if (socket->byte_ns)
        socket->burst_ns = (uint64_t)rate->burst > BURST_NS_MAX / socket->byte_ns
                               ? BURST_NS_MAX
                               : (uint64_t)rate->burst * socket->byte_ns;
}

/* ---- opening and ending ----------------------------------------------------------------- */

static struct datagrams *shared_get(struct net *net)
{
    struct datagrams *all = net->datagrams;

    if (!all) {
        all = memory_alloc(sizeof *all);
        if (!all)
            return NULL;
        all->received.msg_namelen = NAME_ROOM;
        all->received.msg_controllen = CONTROL_ROOM;
        for (unsigned i = TRANSMITS; i-- > 0;) {
            all->transmits[i].next_free = all->free;
            all->free = &all->transmits[i];
        }
        net->datagrams = all;
    }
    all->users++;
    return all;
}

static void shared_put(struct net *net)
{
    if (--net->datagrams->users)
        return;
    memory_free(net->datagrams);
    net->datagrams = NULL;
}

int datagram_open(struct listener *l)
{
    struct datagram_socket *socket = memory_alloc(sizeof *socket);

    if (!socket)
        return -ENOMEM;
    if (table_init(&socket->sessions, 0)) {
        memory_free(socket);
        return -ENOMEM;
    }
    if (!shared_get(l->net)) {
        table_deinit(&socket->sessions);
        memory_free(socket);
        return -ENOMEM;
    }
    learn_rate(socket, &l->address->settings->session_bytes);
    l->datagram = socket;
    return 0;
}

void datagram_free(struct listener *l)
{
    if (!l->datagram)
        return;
    table_deinit(&l->datagram->sessions);
    memory_free(l->datagram);
    l->datagram = NULL;
    shared_put(l->net);
}

/* ---- receiving -------------------------------------------------------------------------- */

static uint64_t receive_user_data(const struct listener *l)
{
    return RING_USER_DATA(RING_DATAGRAM_RECV, l->generation, l->index);
}

static void on_pause_over(struct wheel_timer *timer)
{
    container_of(timer, struct listener, timer)->paused = false;
}

static void pause_receive(struct listener *l)
{
    l->paused = true;
    wheel_arm(l->net->wheel, &l->timer, l->net->now_ms + RETRY_MS, on_pause_over);
}

static void cancel_receive(struct listener *l)
{
    uint64_t user_data = RING_USER_DATA(RING_DATAGRAM_SEND, l->generation, CANCEL_SLOT | l->index);
    struct io_uring_sqe *sqe;

    if (l->datagram->cancelling || l->paused)
        return;
    sqe = ring_sqe(l->net->ring, user_data);
    if (!sqe)
        return;
    io_uring_prep_cancel64(sqe, receive_user_data(l), 0);
    sqe->user_data = user_data;
    l->datagram->cancelling = true;
    l->in_flight++;
}

void datagram_arm(struct listener *l)
{
    struct io_uring_sqe *sqe;

    if (l->closed) {
        if (l->armed)
            cancel_receive(l);
        return;
    }
    if (l->armed || l->paused || l->fd < 0)
        return;
    sqe = ring_sqe(l->net->ring, receive_user_data(l));
    if (!sqe)
        return;
    io_uring_prep_recvmsg_multishot(sqe, l->fd, &l->net->datagrams->received, 0);
    sqe->user_data = receive_user_data(l);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST; /* an empty buffer ring would fail it at once */
    l->armed = true;
    l->in_flight++;
}

static void map_v4(struct in6_addr *to, const struct in_addr *from)
{
    memset(to, 0, sizeof *to);
    to->s6_addr[10] = to->s6_addr[11] = 0xff;
    memcpy(&to->s6_addr[12], from, sizeof *from);
}

static void learn_here(struct flow *flow, struct io_uring_recvmsg_out *out, struct msghdr *layout)
{
    for (struct cmsghdr *at = io_uring_recvmsg_cmsg_firsthdr(out, layout); at;
         at = io_uring_recvmsg_cmsg_nexthdr(out, layout, at)) {
        if (at->cmsg_level == IPPROTO_IPV6 && at->cmsg_type == IPV6_PKTINFO &&
            at->cmsg_len == CMSG_LEN(sizeof(struct in6_pktinfo))) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(at), sizeof info);
            flow->here = info.ipi6_addr;
        } else if (at->cmsg_level == IPPROTO_IP && at->cmsg_type == IP_PKTINFO &&
                   at->cmsg_len == CMSG_LEN(sizeof(struct in_pktinfo))) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(at), sizeof info);
            map_v4(&flow->here, &info.ipi_spec_dst); /* ours, also for a broadcast */
            return;
        }
    }
}

static bool learn_flow(struct flow *flow, struct io_uring_recvmsg_out *out, struct msghdr *layout)
{
    union address name;

    *flow = (struct flow){0};
    memset(&name, 0, sizeof name);
    memcpy(&name, io_uring_recvmsg_name(out), out->namelen < NAME_ROOM ? out->namelen : NAME_ROOM);
    if (out->namelen >= sizeof name.v6 && name.any.sa_family == AF_INET6) {
        flow->peer = name.v6.sin6_addr;
        flow->port = name.v6.sin6_port;
        flow->scope = name.v6.sin6_scope_id;
    } else if (out->namelen >= sizeof name.v4 && name.any.sa_family == AF_INET) {
        map_v4(&flow->peer, &name.v4.sin_addr);
        flow->port = name.v4.sin_port;
    } else {
        return false;
    }
    learn_here(flow, out, layout);
    return true;
}

static void peer_of(const struct flow *flow, union address *ret)
{
    memset(ret, 0, sizeof *ret);
    if (IN6_IS_ADDR_V4MAPPED(&flow->peer)) {
        ret->v4.sin_family = AF_INET;
        ret->v4.sin_port = (in_port_t)flow->port;
        memcpy(&ret->v4.sin_addr, &flow->peer.s6_addr[12], sizeof ret->v4.sin_addr);
    } else {
        ret->v6.sin6_family = AF_INET6;
        ret->v6.sin6_port = (in_port_t)flow->port;
        ret->v6.sin6_addr = flow->peer;
        ret->v6.sin6_scope_id = flow->scope;
    }
}

/* ---- sending ---------------------------------------------------------------------------- */

static struct transmit *transmit_get(struct datagrams *all)
{
    struct transmit *t = all->free;

    if (!t)
        return NULL;
    all->free = t->next_free;
    t->n_chunks = 0;
    return t;
}

static void transmit_put(struct net *net, struct transmit *t)
{
    for (unsigned i = 0; i < t->n_chunks; i++)
        chunk_unref(&net->chunks, t->chunks[i]);
    t->listener = NULL;
    t->next_free = net->datagrams->free;
    net->datagrams->free = t;
}

static void put_control(struct transmit *t, int level, int type, const void *info, size_t size)
{
    struct cmsghdr *control;

    memset(t->control, 0, sizeof t->control);
    t->header.msg_control = t->control;
    t->header.msg_controllen = CMSG_SPACE(size);
    control = CMSG_FIRSTHDR(&t->header);
    control->cmsg_level = level;
    control->cmsg_type = type;
    control->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(control), info, size);
}

/* To the peer, from the address it asked. An IPv6 socket takes mapped addresses for both. */
static void address_it(struct transmit *t, const struct flow *flow, sa_family_t family)
{
    bool known = !IN6_IS_ADDR_UNSPECIFIED(&flow->here);

    memset(&t->to, 0, sizeof t->to);
    t->header.msg_name = &t->to;
    if (family == AF_INET) {
        struct in_pktinfo info = {0};
        t->to.v4.sin_family = AF_INET;
        t->to.v4.sin_port = (in_port_t)flow->port;
        memcpy(&t->to.v4.sin_addr, &flow->peer.s6_addr[12], sizeof t->to.v4.sin_addr);
        t->header.msg_namelen = sizeof t->to.v4;
        memcpy(&info.ipi_spec_dst, &flow->here.s6_addr[12], sizeof info.ipi_spec_dst);
        if (known)
            put_control(t, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    } else {
        struct in6_pktinfo info = {.ipi6_addr = flow->here, .ipi6_ifindex = flow->scope};
        t->to.v6.sin6_family = AF_INET6;
        t->to.v6.sin6_port = (in_port_t)flow->port;
        t->to.v6.sin6_addr = flow->peer;
        t->to.v6.sin6_scope_id = flow->scope;
        t->header.msg_namelen = sizeof t->to.v6;
        if (known)
            put_control(t, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
}

/* The pieces are filled in. False: no SQE; t is given back. */
static bool transmit(struct listener *l, struct transmit *t, const struct flow *flow, unsigned n)
{
    struct net *net = l->net;
    uint64_t user_data = RING_USER_DATA(RING_DATAGRAM_SEND, l->generation,
                                        (uint32_t)(t - net->datagrams->transmits));
    struct io_uring_sqe *sqe = ring_sqe(net->ring, user_data);

    if (!sqe) {
        transmit_put(net, t);
        return false;
    }
    memset(&t->header, 0, sizeof t->header);
    t->header.msg_iov = t->pieces;
    t->header.msg_iovlen = n;
    address_it(t, flow, l->address->address.any.sa_family);
    io_uring_prep_sendmsg(sqe, l->fd, &t->header, MSG_NOSIGNAL | MSG_DONTWAIT);
    sqe->user_data = user_data;
    t->listener = l;
    l->in_flight++;
    NET_COUNT(net, sends);
    return true;
}

static bool transmit_answer(struct listener *l, const struct flow *flow, const char *bytes,
                            size_t len)
{
    struct transmit *t = transmit_get(l->net->datagrams);

    if (!t)
        return false;
    memcpy(t->answer, bytes, len);
    t->pieces[0] = (struct iovec){.iov_base = t->answer, .iov_len = len};
    return transmit(l, t, flow, 1);
}

static bool transmit_batch(struct roda_conn *c, const struct batch *batch)
{
    const struct datagram_session *s = c->session;
    struct transmit *t = transmit_get(c->net->datagrams);

    if (!t)
        return false;
    for (unsigned i = 0; i < batch->n; i++) {
        t->pieces[i].iov_base = batch->pieces[i].chunk->data + batch->pieces[i].offset;
        t->pieces[i].iov_len = batch->pieces[i].length;
        t->chunks[i] = chunk_ref(batch->pieces[i].chunk);
    }
    t->n_chunks = batch->n;
    return transmit(s->listener, t, &s->flow, batch->n);
}

static void gather(const struct roda_conn *c, struct batch *batch)
{
    const struct send_entry *entry = c->oldest;
    bool full = false;

    batch->n = 0;
    batch->bytes = 0;
    do {
        struct chunk *chunk = entry ? entry->chunk : c->chunk;
        uint32_t offset = entry ? entry->offset : c->offset;
        uint32_t length = entry ? entry->length : c->length;
        uint32_t room = OUT_DATAGRAM_BYTES - batch->bytes;

        if (!chunk)
            break; /* a place, or nothing */
        if (length > room) {
            uint32_t end = chunk_units_within(chunk, offset, offset + room);
            length = end ? end - offset : 0;
            full = true;
        }
        if (length) {
            batch->pieces[batch->n].chunk = chunk;
            batch->pieces[batch->n].offset = offset;
            batch->pieces[batch->n].length = length;
            batch->bytes += length;
            batch->n++;
        }
        if (!entry)
            break;
        entry = entry->next;
    } while (!full && batch->n < PIECES);
}

bool datagram_flush(struct roda_conn *c)
{
    struct datagram_session *s = c->session;
    const struct datagram_socket *socket = s->socket;
    uint64_t now_ns = c->net->now_ms * NS_PER_MS;

    while (queue_sendable(c)) {
        uint64_t before = s->full_at_ns;
        struct batch batch;

        gather(c, &batch);
        if (!batch.n) { /* no unit fits: an encoder that ends none */
            NET_COUNT(c->net, datagrams_dropped);
            queue_consume(c, c->oldest ? c->oldest->length : c->length);
            continue;
        }
        if (!allow(&s->full_at_ns, now_ns, batch.bytes * socket->byte_ns, socket->burst_ns)) {
            NET_COUNT(c->net, datagrams_dropped);
        } else if (!transmit_batch(c, &batch)) {
            s->full_at_ns = before;
            return false;
        }
        queue_consume(c, batch.bytes);
    }
    return true;
}

static void on_cancelled(struct net *net, const struct ring_completion *done)
{
    uint32_t index = done->slot & ~CANCEL_SLOT;
    struct listener *l = index < net->n_listeners ? &net->listeners[index] : NULL;

    if (!l || !l->datagram || !l->datagram->cancelling) {
        ring_add(&net->ring->counters.stale, 1);
        return;
    }
    l->in_flight--;
    l->datagram->cancelling = false;
    if (l->armed) /* its last completion may be under way; if not, once more */
        pause_receive(l);
}

void datagram_on_send(void *owner, const struct ring_completion *done)
{
    struct net *net = owner;
    struct transmit *t;

    if (done->slot & CANCEL_SLOT) {
        on_cancelled(net, done);
        return;
    }
    t = net->datagrams && done->slot < TRANSMITS ? &net->datagrams->transmits[done->slot] : NULL;
    if (!t || !t->listener) {
        ring_add(&net->ring->counters.stale, 1);
        return;
    }
    if (done->result >= 0) {
        NET_COUNT(net, datagrams_sent);
        NET_ADD(net, sent_bytes, (uint64_t)done->result);
    } else {
        NET_COUNT(net, datagrams_dropped);
    }
    t->listener->in_flight--;
    transmit_put(net, t);
}

/* ---- strangers -------------------------------------------------------------------------- */

/* A slot's cookie; see the header of roda_cookie() for what it is good for. */
static uint64_t cookie_of(const struct roda_peer *peer, uint64_t slot)
{
    struct {
        char what[8];
        uint64_t hour, half;
    } name = {.what = "cookie", .hour = slot / COOKIE_HOUR_SLOTS};
    struct {
        uint64_t slot, listener;
        struct in6_addr address;
        uint32_t scope, port;
    } proof = {.slot = slot, .listener = hash_bytes(peer->listener.ptr, peer->listener.len)};
    uint64_t halves[2];
    uint8_t key[HASH_KEY_BYTES];
    union address address;

    memset(&address, 0, sizeof address);
    if (peer->address->sa_family == AF_INET6) {
        memcpy(&address.v6, peer->address, sizeof address.v6);
        proof.address = address.v6.sin6_addr;
        proof.port = address.v6.sin6_port;
        proof.scope = address.v6.sin6_scope_id;
    } else {
        memcpy(&address.v4, peer->address, sizeof address.v4);
        map_v4(&proof.address, &address.v4.sin_addr);
        proof.port = address.v4.sin_port;
    }
    for (name.half = 0; name.half < 2; name.half++)
        halves[name.half] = hash_bytes(&name, sizeof name);
    memcpy(key, halves, sizeof key);
    return hash_keyed(key, &proof, sizeof proof);
}

void datagram_cookie(struct net *net, const struct roda_peer *peer, uint64_t ret[2])
{
    uint64_t slot = net->now_ms / COOKIE_SLOT_MS;

    ret[0] = cookie_of(peer, slot);
    ret[1] = cookie_of(peer, slot - 1);
}

/* Services that answer whatever they get: a forged datagram from one of them would start a
 * conversation without end, or aim ours at theirs. */
static bool is_reflector(uint32_t port)
{
    switch (ntohs((in_port_t)port)) {
    case 0:
    case 19:    /* chargen */
    case 53:    /* DNS */
    case 123:   /* NTP */
    case 1900:  /* SSDP */
    case 11211: /* memcached */
        return true;
    default:
        return false;
    }
}

/* ---- sessions --------------------------------------------------------------------------- */

static bool session_equal(const void *value, const void *key)
{
    const struct datagram_session *s = value;

    return !memcmp(&s->flow, key, sizeof s->flow);
}

static void session_free(struct datagram_session *s, struct net *net)
{
    wheel_disarm(net->wheel, &s->timer);
    (void)table_remove(&s->socket->sessions, s->hash, s);
    __atomic_sub_fetch((uint32_t *)&net->totals->sessions, 1, __ATOMIC_RELAXED);
    memory_free(s);
}

void datagram_session_end(struct roda_conn *c)
{
    if (c->session)
        session_free(c->session, c->net);
    c->session = NULL;
}

static void on_silence(struct wheel_timer *timer)
{
    struct datagram_session *s = container_of(timer, struct datagram_session, timer);
    struct roda_conn *c = s->conn;
    uint64_t timeout_ms = c->settings->session_timeout_ms;
    char reason[64];

    if (c->state != CONNECTION_OPEN)
        return;
    if (c->holds || c->waits) /* held back counts as alive */
        s->heard_ms = c->net->now_ms;
    if (s->heard_ms + timeout_ms > c->net->now_ms) {
        wheel_arm(c->net->wheel, &s->timer, s->heard_ms + timeout_ms, on_silence);
        return;
    }
    NET_COUNT(c->net, datagram_sessions_expired);
    (void)snprintf(reason, sizeof reason, "silent for %u s", (unsigned)(timeout_ms / 1000));
    connection_close(c, reason);
}

/* bytes has room for one more. */
static void feed(struct roda_conn *c, char *bytes, size_t len)
{
    bool lines = c->settings->protocol->framing == RODA_LINES;
    size_t waiting = c->stash ? c->stash->end - c->stash->start : 0;

    if (!len)
        return;
    if (lines && bytes[len - 1] != '\n')
        bytes[len++] = '\n';
    /* Raw datagrams may not run together, so at most one of them waits. */
    if (waiting && (!lines || waiting + len > c->settings->receive_queue_bytes)) {
        NET_COUNT(c->net, datagrams_overrun);
        return;
    }
    connection_input(c, bytes, len);
}

static struct datagram_session *session_new(struct listener *l, const struct flow *flow,
                                            uint64_t hash)
{
    struct datagram_session *s = memory_alloc(sizeof *s);

    if (!s)
        return NULL;
    s->flow = *flow;
    s->hash = hash;
    s->socket = l->datagram;
    s->listener = l;
    s->heard_ms = l->net->now_ms;
    if (table_insert(&l->datagram->sessions, hash, s)) {
        memory_free(s);
        return NULL;
    }
    __atomic_add_fetch((uint32_t *)&l->net->totals->sessions, 1, __ATOMIC_RELAXED);
    return s;
}

static bool full(const struct net *net)
{
    return __atomic_load_n((uint32_t *)&net->totals->sessions, __ATOMIC_RELAXED) >=
               net->limits->datagram_sessions ||
           __atomic_load_n((uint32_t *)&net->totals->connections, __ATOMIC_RELAXED) >=
               net->limits->max_connections;
}

static void open_session(struct listener *l, const struct flow *flow, uint64_t hash, char *bytes,
                         size_t len)
{
    struct net *net = l->net;
    uint32_t timeout_ms = l->address->settings->session_timeout_ms;
    struct datagram_session *s = full(net) ? NULL : session_new(l, flow, hash);
    struct roda_conn *c = NULL;
    union address peer;

    peer_of(flow, &peer);
    if (s)
        c = connection_open_session(net, l, &peer, s);
    if (!c) {
        if (s)
            session_free(s, net);
        NET_COUNT(net, connections_refused_full);
        return;
    }
    NET_COUNT(net, datagram_sessions_opened);
    if (c->session != s)
        return; /* ended while it was opened */
    s->conn = c;
    c->flags |= CONN_BEGUN; /* "the first bytes" are a stream's */
    if (timeout_ms)
        wheel_arm(net->wheel, &s->timer, net->now_ms + timeout_ms, on_silence);
    feed(c, bytes, len);
}

/* Asks the protocol about a stranger's datagram. */
static void knock(struct listener *l, const struct flow *flow, uint64_t hash, char *bytes,
                  size_t len)
{
    struct net *net = l->net;
    uint64_t now_ns = net->now_ms * NS_PER_MS;
    uint64_t *prefix = prefix_word(net->datagrams, &flow->peer), before = *prefix;
    char answer[ANSWER_BYTES];
    struct roda_str rest = {bytes, 0};
    struct roda_peer peer = {
        .listener = {l->address->settings->name, strlen(l->address->settings->name)}};
    union address address;
    struct roda_out out;
    int r;

    if (!len || is_reflector(flow->port) ||
        !allow(prefix, now_ns, PREFIX_COST_NS, PREFIX_BURST * PREFIX_COST_NS)) {
        NET_COUNT(net, datagrams_refused);
        return;
    }
    peer_of(flow, &address);
    peer.address = &address.any;
    out_fixed(&out, answer, sizeof answer);
    r = net->hooks->knock(net->owner, l, &peer, (struct roda_str){bytes, len}, &out, &rest);
    if (r > 0) {
        *prefix = before;
        if (rest.ptr < bytes || rest.ptr > bytes + len ||
            rest.len > (size_t)(bytes + len - rest.ptr))
            rest = (struct roda_str){bytes, 0}; /* not a part of what came */
        open_session(l, flow, hash, bytes + (rest.ptr - bytes), rest.len);
        return;
    }
    if (r == 0 && out.fixed_len &&
        allow(&net->datagrams->total_full_at_ns, now_ns, TOTAL_COST_NS,
              TOTAL_BURST * TOTAL_COST_NS) &&
        transmit_answer(l, flow, answer, out.fixed_len))
        NET_COUNT(net, datagram_answers);
    else
        NET_COUNT(net, datagrams_refused);
}

static void received(struct listener *l, char *buffer, size_t len)
{
    struct net *net = l->net;
    struct msghdr *layout = &net->datagrams->received;
    struct io_uring_recvmsg_out *out = io_uring_recvmsg_validate(buffer, (int)len, layout);
    struct datagram_session *s;
    struct flow flow;
    char *bytes;

    if (!out || !learn_flow(&flow, out, layout))
        return;
    NET_COUNT(net, datagrams_received);
    bytes = io_uring_recvmsg_payload(out, layout);
    len -= (size_t)(bytes - buffer);
    uint64_t hash = hash_bytes(&flow, sizeof flow);
    s = table_find(&l->datagram->sessions, hash, session_equal, &flow);
    /* The last byte of a buffer is kept for the line end. */
    if (out->flags & MSG_TRUNC || bytes + len == buffer + net->limits->receive_buffer_bytes) {
        NET_COUNT(net, datagrams_truncated);
        /* Behind what waits there is no place for it: then it is lost without a word. */
        if (s && connection_may_decode(s->conn) && !s->conn->stash)
            net->hooks->oversize(net->owner, s->conn, len);
        return;
    }
    if (!s) {
        knock(l, &flow, hash, bytes, len);
        return;
    }
    s->heard_ms = net->now_ms;
    feed(s->conn, bytes, len);
}

static void receive_failed(struct listener *l, int error)
{
    switch (error) {
    case ENOBUFS: /* no receive buffer was free: they are back at the end of the turn */
        NET_COUNT(l->net, receive_buffers_empty);
        break;
    case ECONNREFUSED: /* news of something that was sent before */
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EMSGSIZE:
    case ECANCELED:
    case EINTR:
    case EAGAIN:
        break;
    default: /* armed again at once it might fail at once */
        pause_receive(l);
        break;
    }
}

void datagram_on_recv(void *owner, const struct ring_completion *done)
{
    struct net *net = owner;
    struct listener *l = done->slot < net->n_listeners ? &net->listeners[done->slot] : NULL;

    if (l && (!l->datagram || done->generation != (l->generation & RING_GENERATION_MASK)))
        l = NULL;
    if (l && !(done->flags & IORING_CQE_F_MORE)) {
        l->armed = false;
        l->in_flight--;
        if (!l->closed)
            NET_COUNT(net, receives_rearmed);
    }
    if (done->flags & IORING_CQE_F_BUFFER) {
        if (l && done->result > 0 && !l->closed)
            received(l, net_buffer(net, done->flags), (size_t)done->result);
        net_buffer_back(net, done->flags);
    }
    if (!l)
        ring_add(&net->ring->counters.stale, 1);
    else if (done->result < 0 && !l->closed)
        receive_failed(l, -done->result);
}
