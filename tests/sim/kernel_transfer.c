#include <errno.h>
#include <stdlib.h>

#include "kernel_stream.h"

/*
 * Requests on stream sockets: accept, receive, send. Each function here is one attempt, made when
 * the request is fresh and whenever something woke it; it ends the request, or leaves it waiting.
 */

#define RETRY_MAX 32u /* rounds of one multishot before others get a turn */

static int accepted(struct sim_kernel *k, struct held *listener, struct pair *p)
{
    struct held *h = held_new(k, HELD_SOCKET);

    h->socket.family = listener->socket.family;
    h->socket.type = SOCK_STREAM;
    h->socket.local = p->side[1].address;
    h->socket.linger = listener->socket.linger;
    h->socket.send_limit = listener->socket.send_limit;
    h->socket.receive_limit = listener->socket.receive_limit;
    socket_attach(h, p, 1);
    return descriptor_new(k, h);
}

static int accept_fault(struct request *q)
{
    struct sim_kernel *k = q->held->kernel;

    if (fault(k, k->faults.accept_emfile))
        return -EMFILE;
    if (fault(k, k->faults.accept_enobufs))
        return -ENOBUFS;
    if (!fault(k, k->faults.accept_aborted))
        return 0;
    pair_refuse(stream_accept(q->held));
    return -ECONNABORTED;
}

void accept_try(struct request *q)
{
    struct held *listener = q->held;
    struct sim_kernel *k = listener->kernel;

    for (;;) {
        if (listener->socket.type != SOCK_STREAM) {
            request_end(q, -EOPNOTSUPP, 0);
            return;
        }
        if (!descriptor_available(k, q->descriptors_limit)) { /* the descriptor is taken first,
                                                                 client or not */
            request_end(q, -EMFILE, 0);
            return;
        }
        bool local = listener->socket.family == AF_UNIX;
        if (!listener->socket.listening || (listener->socket.shut && !local)) {
            request_end(q, -EINVAL, 0);
            return;
        }
        if (list_empty(&listener->socket.waiting))
            return; /* for ever, if it is local and shut down: only a cancel ends it */
        int result = accept_fault(q);
        if (result < 0) {
            request_end(q, result, 0);
            return;
        }
        int fd = accepted(k, listener, stream_accept(listener));
        if (!q->multishot || fault(k, k->faults.accept_ends) || !request_more(q, fd, 0)) {
            request_end(q, fd, 0);
            return;
        }
    }
}

bool stream_readable(const struct held *h)
{
    return !h->socket.pair || side_readable(h->socket.pair, h->socket.side);
}

bool stream_writable(const struct held *h)
{
    return !h->socket.pair || side_writable(h->socket.pair, h->socket.side);
}

/* One receive of bytes that are there, or of the end. false: the request is gone. */
static bool receive_once(struct request *q, struct pair *p, unsigned side)
{
    struct sim_kernel *k = p->kernel;
    uint32_t flags = 0;
    size_t size = q->sqe.len;
    char *to = (char *)(uintptr_t)q->sqe.addr;

    if (!side_available(p, side)) {
        request_end(q, side_read(p, side, NULL, 0), 0);
        return false;
    }
    if (request_selects(q))
        to = request_buffer(q, &size, &flags);
    if (size > side_available(p, side))
        size = side_available(p, side);
    if (size > 1 && fault(k, k->faults.split_receive))
        size = 1 + draw(k, size - 1);
    int result = side_read(p, side, to, size);
    if ((side_available(p, side) > 0) != fault(k, k->faults.nonempty_lies))
        flags |= IORING_CQE_F_SOCK_NONEMPTY;
    if (q->multishot && !fault(k, k->faults.receive_ends) && request_more(q, result, flags))
        return true;
    request_end(q, result, flags);
    return false;
}

void receive_try(struct request *q)
{
    struct sim_kernel *k = q->held->kernel;
    struct pair *p = q->held->socket.pair;
    unsigned side = q->held->socket.side;

    if (!p) {
        request_end(q, -ENOTCONN, 0);
        return;
    }
    if (side_readable(p, side) && fault(k, k->faults.reset))
        pair_break(p, side);
    for (unsigned round = 0; round < RETRY_MAX; round++) {
        bool lacks = request_selects(q) && request_buffers_empty(q);
        if (lacks || (side_available(p, side) && fault(k, k->faults.receive_enobufs))) {
            request_end(q, -ENOBUFS, 0);
            return;
        }
        if (!side_readable(p, side)) {
            if (q->sqe.msg_flags & MSG_DONTWAIT)
                request_end(q, -EAGAIN, 0);
            return;
        }
        if (!receive_once(q, p, side))
            return;
        if (!side_readable(p, side))
            return;
    }
    request_again(q);
}

static int send_fault(struct sim_kernel *k, struct pair *p, unsigned side)
{
    if (fault(k, k->faults.reset))
        pair_break(p, side);
    if (fault(k, k->faults.send_eagain))
        return -EAGAIN;
    if (fault(k, k->faults.send_enobufs))
        return -ENOBUFS;
    return 0;
}

static void send_end(struct request *q, int result)
{
    request_check_payload(q);
    request_end(q, q->done ? (int)q->done : result, 0);
}

void send_try(struct request *q)
{
    struct sim_kernel *k = q->held->kernel;
    struct pair *p = q->held->socket.pair;
    unsigned side = q->held->socket.side;

    if (!p) {
        request_end(q, q->held->socket.family == AF_UNIX ? -ENOTCONN : -EPIPE, 0);
        return;
    }
    int result = q->done ? 0 : send_fault(k, p, side);
    if (result >= 0)
        result = side_room(p, side);
    if (result < 0) {
        send_end(q, result);
        return;
    }
    size_t n = q->payload - q->done;
    if (n > (size_t)result)
        n = (size_t)result;
    bool cut = n > 1 && fault(k, k->faults.short_send);
    if (cut)
        n = 1 + draw(k, n - 1);
    if (n) {
        char *part = must_alloc(n);
        request_copy(q, q->done, part, n);
        q->done += n;
        side_write(p, side, part, n);
        free(part);
    }
    if (cut || q->done == q->payload || (q->done && !(q->sqe.msg_flags & MSG_WAITALL)))
        send_end(q, 0);
    else if (q->sqe.msg_flags & MSG_DONTWAIT)
        send_end(q, -EAGAIN);
}
