#include "kernel_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Stream connections, TCP and UNIX.
 *
 * TCP: what a side writes goes into its send buffer; an event carries some of it to the other
 * side's receive buffer, as far as that has room, and comes again while there is more. FIN follows
 * the last byte. So order within a direction holds by itself, and everything that has to do with
 * buffers (short sends, waiting for room, a reader that stops) follows from two limits.
 *
 * Ends, as TCP does them. A side that is closed with unread data, or with linger 0, sends a reset.
 * Data that arrives for a side that is closed, or shut down both ways, is answered by a reset. A
 * reset throws away what is under way in both directions, but not what has arrived: that is read
 * first, then the error shows once (to a read or a write), then EOF and EPIPE.
 *
 * UNIX: no event; bytes are in the reader's buffer at once and count against the writer's limit
 * until they are read. Closing tells the peer at once.
 */

#define SEGMENT_MAX 16384u

/* ---- bytes ------------------------------------------------------------------------------ */

static void bytes_put(struct bytes *b, const char *from, size_t n)
{
    if (b->head + b->len + n > b->capacity) {
        if (b->len)
            memmove(b->data, b->data + b->head, b->len);
        b->head = 0;
        if (b->len + n > b->capacity) {
            b->capacity = 2 * (b->len + n);
            b->data = must_realloc(b->data, b->capacity);
        }
    }
    if (n)
        memcpy(b->data + b->head + b->len, from, n);
    b->len += n;
}

static void bytes_drop(struct bytes *b, size_t n)
{
    b->head += n;
    b->len -= n;
}

static void bytes_clear(struct bytes *b)
{
    b->head = b->len = 0;
}

/* ---- carrying --------------------------------------------------------------------------- */

static void wake(const struct pair *p, unsigned side, unsigned what)
{
    if (p->side[side].held)
        held_wake(p->side[side].held, what);
}

static void reset_here(struct pair *p, unsigned side)
{
    struct side *s = &p->side[side];

    if (s->reset)
        return;
    s->reset = true;
    s->error = p->pipe[1 - side].fin_arrived ? EPIPE : ECONNRESET;
    for (unsigned i = 0; i < 2; i++) {
        bytes_clear(&p->pipe[i].sent);
        event_cancel(p->kernel, &p->pipe[i].carry);
        event_cancel(p->kernel, &p->pipe[i].fin);
    }
    wake(p, side, WAKE_IN | WAKE_OUT);
}

static void reset_arrives(struct pair *p, unsigned side)
{
    if (p->paused)
        event_at(p->kernel, &p->side[side].reset_arrives, p->kernel->now + 1000000,
                 p->side[side].reset_arrives.fn);
    else if (p->side[side].attached)
        reset_here(p, side);
}

static void reset_arrives_0(struct sim_kernel *k, struct event *e)
{
    (void)k;
    reset_arrives(container_of(e, struct pair, side[0].reset_arrives), 0);
}

static void reset_arrives_1(struct sim_kernel *k, struct event *e)
{
    (void)k;
    reset_arrives(container_of(e, struct pair, side[1].reset_arrives), 1);
}

static void reset_toward(struct pair *p, unsigned side)
{
    struct side *s = &p->side[side];

    if (!s->attached || s->reset || event_scheduled(&s->reset_arrives))
        return;
    if (p->local)
        reset_here(p, side);
    else
        event_at(p->kernel, &s->reset_arrives, p->kernel->now + net_delay(p->kernel),
                 side ? reset_arrives_1 : reset_arrives_0);
}

void pair_break(struct pair *p, unsigned here)
{
    reset_here(p, here);
    reset_toward(p, 1 - here);
}

static size_t pipe_window(const struct pipe *pipe)
{
    return pipe->received.len < pipe->receive_limit ? pipe->receive_limit - pipe->received.len : 0;
}

static void carry_event(struct sim_kernel *k, struct event *e);

static void fin_event(struct sim_kernel *k, struct event *e)
{
    struct pipe *pipe = container_of(e, struct pipe, fin);

    (void)k;
    if (pipe->pair->paused)
        return;
    pipe->fin_arrived = true;
    wake(pipe->pair, 1 - pipe->from, WAKE_IN);
}

/* Sees to it that what can be carried will be. */
static void pipe_go(struct pipe *pipe)
{
    struct sim_kernel *k = pipe->pair->kernel;

    if (pipe->pair->paused || event_scheduled(&pipe->carry))
        return;
    if (pipe->sent.len) {
        /* A closed reader has no window, and answers. */
        if (pipe_window(pipe) || !pipe->pair->side[1 - pipe->from].attached)
            event_at(k, &pipe->carry, k->now + net_delay(k), carry_event);
    } else if (pipe->fin_queued && !pipe->fin_arrived && !event_scheduled(&pipe->fin)) {
        event_at(k, &pipe->fin, k->now + net_delay(k), fin_event);
    }
}

static void carry_event(struct sim_kernel *k, struct event *e)
{
    struct pipe *pipe = container_of(e, struct pipe, carry);
    struct pair *p = pipe->pair;
    const struct side *to = &p->side[1 - pipe->from];

    if (p->paused)
        return;
    if (!to->attached || (to->shut_read && to->shut_write)) {
        bytes_clear(&pipe->sent);
        if (to->attached)
            reset_here(p, 1 - pipe->from);
        reset_toward(p, pipe->from);
        return;
    }
    size_t n = pipe->sent.len;
    if (n > pipe_window(pipe))
        n = pipe_window(pipe);
    if (n > SEGMENT_MAX)
        n = SEGMENT_MAX;
    if (n > 1 && fault(k, k->faults.split_receive))
        n = 1 + draw(k, n - 1);
    bytes_put(&pipe->received, pipe->sent.data + pipe->sent.head, n);
    bytes_drop(&pipe->sent, n);
    wake(p, 1 - pipe->from, WAKE_IN);
    if (side_writable(p, pipe->from))
        wake(p, pipe->from, WAKE_OUT);
    pipe_go(pipe);
}

void pair_pause(struct pair *p, bool paused)
{
    p->paused = paused;
    for (unsigned i = 0; i < 2; i++) {
        if (paused) {
            event_cancel(p->kernel, &p->pipe[i].carry);
            event_cancel(p->kernel, &p->pipe[i].fin);
        } else {
            pipe_go(&p->pipe[i]);
        }
    }
}

/* ---- sides ------------------------------------------------------------------------------ */

struct pair *pair_new(struct sim_kernel *k, bool local)
{
    struct pair *p = must_alloc(sizeof *p);

    p->kernel = k;
    p->local = local;
    for (unsigned i = 0; i < 2; i++) {
        p->pipe[i].pair = p;
        p->pipe[i].from = i;
        p->pipe[i].send_limit = p->pipe[i].receive_limit = 65536;
        p->side[i].attached = true;
    }
    list_append(&k->pairs, &p->link);
    return p;
}

void pair_free(struct pair *p)
{
    for (unsigned i = 0; i < 2; i++) {
        event_cancel(p->kernel, &p->pipe[i].carry);
        event_cancel(p->kernel, &p->pipe[i].fin);
        event_cancel(p->kernel, &p->side[i].reset_arrives);
        free(p->pipe[i].sent.data);
        free(p->pipe[i].received.data);
    }
    list_remove(&p->waiting);
    list_remove(&p->link);
    free(p);
}

/* Counts against the writer's limit. */
static size_t used(const struct pipe *pipe)
{
    return pipe->sent.len + (pipe->pair->local ? pipe->received.len : 0);
}

static size_t room(const struct pipe *pipe)
{
    return used(pipe) < pipe->send_limit ? pipe->send_limit - used(pipe) : 0;
}

size_t side_untaken(const struct pair *p, unsigned side)
{
    const struct pipe *pipe = &p->pipe[side];
    bool end = !p->local && pipe->fin_queued && !pipe->fin_arrived && !p->side[side].reset;

    return used(pipe) + end;
}

static bool broken_pipe(const struct pair *p, unsigned side)
{
    const struct side *s = &p->side[side], *other = &p->side[1 - side];

    if (s->reset || s->shut_write)
        return true;
    return p->local && (!other->attached || other->shut_read);
}

int side_room(struct pair *p, unsigned side)
{
    struct side *s = &p->side[side];

    if (s->error && !p->local) {
        int error = s->error;
        s->error = 0;
        return -error;
    }
    return broken_pipe(p, side) ? -EPIPE : (int)room(&p->pipe[side]);
}

bool side_writable(const struct pair *p, unsigned side)
{
    const struct pipe *pipe = &p->pipe[side];

    return p->side[side].error || broken_pipe(p, side) || room(pipe) >= (pipe->send_limit + 2) / 3;
}

void side_write(struct pair *p, unsigned side, const char *bytes, size_t n)
{
    struct pipe *pipe = &p->pipe[side];

    if (p->local) {
        bytes_put(&pipe->received, bytes, n);
        wake(p, 1 - side, WAKE_IN);
    } else {
        bytes_put(&pipe->sent, bytes, n);
        pipe_go(pipe);
    }
}

size_t side_available(const struct pair *p, unsigned side)
{
    return p->pipe[1 - side].received.len;
}

bool side_readable(const struct pair *p, unsigned side)
{
    const struct side *s = &p->side[side];
    const struct pipe *pipe = &p->pipe[1 - side];

    return pipe->received.len || s->error || s->reset || pipe->fin_arrived || s->shut_read;
}

int side_read(struct pair *p, unsigned side, char *to, size_t n)
{
    struct side *s = &p->side[side];
    struct pipe *pipe = &p->pipe[1 - side];

    if (pipe->received.len) {
        if (n > pipe->received.len)
            n = pipe->received.len;
        memcpy(to, pipe->received.data + pipe->received.head, n);
        bytes_drop(&pipe->received, n);
        pipe_go(pipe);
        if (p->local && side_writable(p, 1 - side))
            wake(p, 1 - side, WAKE_OUT);
        return (int)n;
    }
    if (pipe->fin_arrived && !p->local) /* after FIN no error is told to readers */
        return 0;
    if (s->error) {
        int error = s->error;
        s->error = 0;
        return -error;
    }
    return s->reset || pipe->fin_arrived || s->shut_read ? 0 : -EAGAIN;
}

static void fin(struct pair *p, unsigned side)
{
    struct pipe *pipe = &p->pipe[side];

    pipe->fin_queued = true;
    if (!p->local) {
        pipe_go(pipe);
        return;
    }
    pipe->fin_arrived = true;
    wake(p, 1 - side, WAKE_IN | WAKE_OUT);
}

/* TCP is done with it: a reset, or both sides ended and know it. */
bool side_over(const struct pair *p, unsigned side)
{
    if (p->local)
        return false;
    return p->side[side].reset || (p->pipe[0].fin_arrived && p->pipe[1].fin_arrived);
}

int side_shutdown(struct pair *p, unsigned side, int how)
{
    struct side *s = &p->side[side];

    if (side_over(p, side))
        return -ENOTCONN;
    if (how != SHUT_WR) {
        s->shut_read = true;
        if (p->local)
            wake(p, 1 - side, WAKE_OUT);
    }
    if (how != SHUT_RD && !s->shut_write) {
        s->shut_write = true;
        fin(p, side);
    }
    wake(p, side, WAKE_IN | WAKE_OUT);
    return 0;
}

void side_close(struct pair *p, unsigned side, bool abort)
{
    struct side *s = &p->side[side];
    bool unread = p->pipe[1 - side].received.len;

    s->attached = false;
    s->held = NULL;
    if (!p->side[1 - side].attached) {
        pair_free(p);
        return;
    }
    if (s->reset)
        return;
    if (unread || (abort && !p->local)) {
        bytes_clear(&p->pipe[side].sent);
        reset_toward(p, 1 - side);
    } else {
        s->shut_read = s->shut_write = true;
        fin(p, side);
        pipe_go(&p->pipe[1 - side]); /* to be answered by a reset */
    }
}

void pair_refuse(struct pair *p)
{
    p->side[1].attached = false;
    if (p->side[0].attached)
        reset_toward(p, 0);
    else
        pair_free(p);
}

/* ---- connecting ------------------------------------------------------------------------- */

int stream_connect(struct sim_kernel *k, const struct place *to, const struct place *from,
                   uint32_t uid, struct pair **ret_pair)
{
    struct held *listener = socket_serving(k, SOCK_STREAM, to, from);

    if (!listener)
        return -ECONNREFUSED;
    struct socket *l = &listener->socket;
    if (l->queued > l->backlog)
        return -EAGAIN;
    struct pair *p = pair_new(k, l->family == AF_UNIX);
    p->side[0].address = *from;
    p->side[0].uid = uid;
    p->side[1].address = *to;
    p->pipe[1].send_limit = l->send_limit;
    p->pipe[0].receive_limit = l->receive_limit;
    list_append(&l->waiting, &p->waiting);
    l->queued++;
    held_wake(listener, WAKE_IN);
    *ret_pair = p;
    return 0;
}

struct pair *stream_accept(struct held *listener)
{
    struct list *first = list_pop(&listener->socket.waiting);

    if (!first)
        return NULL;
    listener->socket.queued--;
    return container_of(first, struct pair, waiting);
}

/* ---- life ------------------------------------------------------------------------------- */

void streams_crash(struct sim_kernel *k)
{
    for (struct list *at = k->pairs.next; at != &k->pairs; at = at->next) {
        struct pair *p = container_of(at, struct pair, link);
        pair_break(p, 1);
    }
}

void streams_free(struct sim_kernel *k)
{
    struct list *link;

    while ((link = list_first(&k->pairs)))
        pair_free(container_of(link, struct pair, link));
}
