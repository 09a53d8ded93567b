#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_ring.h"

/*
 * A request is made from an SQE and belongs to its ring; it keeps the file it works on alive. It
 * is tried at once; if it cannot go on, it stays on its file's list. What changes the file wakes
 * the requests on that list: they become tasks, and tasks run only inside an enter of their ring
 * (that is DEFER_TASKRUN), which is where they are tried again and where completions are posted.
 * A delay fault puts an event between the wake and the task. So a request is in one of these
 * places at any time: waiting on its file; waiting for its event; in the task list; being tried.
 *
 * What the kernel copies at submission is copied here (the SQE, msghdr, iovec, name); what it
 * reads later is read later (payload, control data), and a hash taken at submission tells whether
 * the engine kept its hands off.
 */

static void *address(uint64_t value)
{
    return (void *)(uintptr_t)value;
}

/* ---- life ------------------------------------------------------------------------------- */

void request_free(struct request *q)
{
    struct sim_kernel *k = q->ring->kernel;

    event_cancel(k, &q->event);
    list_remove(&q->of_ring);
    list_remove(&q->of_held);
    list_remove(&q->task);
    held_release(q->held);
    snapshot_free(q->snapshot);
    if (q->vector != &q->one)
        free(q->vector);
    free(q);
}

bool request_more(struct request *q, int32_t result, uint32_t flags)
{
    if (ring_full(q->ring))
        return false;
    ring_post(q->ring, q->sqe.user_data, result, flags | IORING_CQE_F_MORE);
    return true;
}

void request_end(struct request *q, int32_t result, uint32_t flags)
{
    if (result < 0 || !(q->sqe.flags & IOSQE_CQE_SKIP_SUCCESS))
        ring_post(q->ring, q->sqe.user_data, result, flags);
    request_free(q);
}

void request_again(struct request *q)
{
    if (!list_linked(&q->task))
        ring_task(q->ring, &q->task);
}

static void request_due(struct sim_kernel *k, struct event *e)
{
    (void)k;
    request_again(container_of(e, struct request, event));
}

void request_after(struct request *q, uint64_t ns, void (*fn)(struct sim_kernel *, struct event *))
{
    struct sim_kernel *k = q->ring->kernel;

    q->begun = true;
    event_at(k, &q->event, k->now + ns, fn ? fn : request_due);
}

static unsigned waits_for(const struct request *q)
{
    switch (q->sqe.opcode) {
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
        return WAKE_OUT;
    case IORING_OP_FSYNC:
    case IORING_OP_WRITE:
        return 0;
    default:
        return WAKE_IN;
    }
}

static void request_wake(struct request *q)
{
    struct sim_kernel *k = q->ring->kernel;

    if (list_linked(&q->task) || event_scheduled(&q->event))
        return;
    uint64_t delay = fault_delay(k);
    if (delay)
        event_at(k, &q->event, k->now + delay, request_due);
    else
        request_again(q);
}

void held_wake(struct held *h, unsigned what)
{
    for (struct list *at = h->requests.next; at != &h->requests; at = at->next) {
        struct request *q = container_of(at, struct request, of_held);
        if (waits_for(q) & what)
            request_wake(q);
    }
}

static uint64_t payload_hash(const struct request *q)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t i = 0; i < q->message.msg_iovlen; i++) {
        const unsigned char *at = q->vector[i].iov_base;
        for (size_t n = q->vector[i].iov_len; n; n--)
            hash = (hash ^ *at++) * 0x100000001b3u;
    }
    return hash;
}

void request_check_payload(struct request *q)
{
    if (payload_hash(q) != q->payload_hash)
        violation(q->ring->kernel, "request %#llx: its payload changed while the kernel had it",
                  (unsigned long long)q->sqe.user_data);
}

void request_copy(const struct request *q, size_t offset, char *to, size_t n)
{
    for (size_t i = 0; n && i < q->message.msg_iovlen; i++) {
        size_t len = q->vector[i].iov_len;
        if (offset >= len) {
            offset -= len;
            continue;
        }
        size_t part = len - offset < n ? len - offset : n;
        memcpy(to, (const char *)q->vector[i].iov_base + offset, part);
        to += part;
        n -= part;
        offset = 0;
    }
}

/* ---- from SQE to request ---------------------------------------------------------------- */

static int prepare_message(struct request *q)
{
    const struct msghdr *from = address(q->sqe.addr);

    if (!from)
        return -EFAULT;
    q->message = *from;
    if (q->message.msg_iovlen > 1024)
        return -EMSGSIZE;
    if (q->sqe.opcode == IORING_OP_RECVMSG) { /* the vector only says how long a buffer may be */
        if (q->message.msg_iovlen == 1)
            q->one = *from->msg_iov;
        return q->message.msg_iovlen > 1 ? -EINVAL : 0;
    }
    if (q->message.msg_name) {
        int result = place_from(q->message.msg_name, q->message.msg_namelen, &q->to);
        if (result < 0)
            return result;
    }
    if (q->message.msg_iovlen > 1)
        q->vector = must_alloc(q->message.msg_iovlen * sizeof *q->vector);
    memcpy(q->vector, from->msg_iov, q->message.msg_iovlen * sizeof *q->vector);
    return 0;
}

static int prepare_transfer(struct request *q)
{
    const struct io_uring_sqe *sqe = &q->sqe;
    bool receives = sqe->opcode == IORING_OP_RECV || sqe->opcode == IORING_OP_RECVMSG;
    int result = 0;

    if (sqe->off || sqe->file_index)
        return -EINVAL;
    if (sqe->ioprio & ~(IORING_RECVSEND_POLL_FIRST | (receives ? IORING_RECV_MULTISHOT : 0u)))
        return -EINVAL;
    if (!receives && request_selects(q))
        return -EINVAL;
    q->multishot = sqe->ioprio & IORING_RECV_MULTISHOT;
    if (q->multishot && (!request_selects(q) || sqe->msg_flags & MSG_WAITALL))
        return -EINVAL;
    if (q->multishot && sqe->opcode == IORING_OP_RECV && sqe->len)
        return -EINVAL; /* the oldest kernel that we serve */
    if (sqe->opcode == IORING_OP_RECVMSG && !q->multishot)
        return -EINVAL; /* nobody uses it */
    if (sqe->opcode == IORING_OP_SENDMSG || sqe->opcode == IORING_OP_RECVMSG) {
        result = prepare_message(q);
    } else {
        q->one.iov_base = address(sqe->addr);
        q->one.iov_len = sqe->len;
        q->message.msg_iovlen = 1;
    }
    if (result < 0 || receives)
        return result;
    for (size_t i = 0; i < q->message.msg_iovlen; i++)
        q->payload += q->vector[i].iov_len;
    q->payload_hash = payload_hash(q);
    return 0;
}

static int prepare(struct request *q)
{
    const struct io_uring_sqe *sqe = &q->sqe;

    switch (sqe->opcode) {
    case IORING_OP_ACCEPT:
        if (sqe->len || sqe->buf_index || sqe->ioprio & ~IORING_ACCEPT_MULTISHOT ||
            sqe->accept_flags & ~(unsigned)(SOCK_CLOEXEC | SOCK_NONBLOCK) || sqe->file_index)
            return -EINVAL;
        q->multishot = sqe->ioprio & IORING_ACCEPT_MULTISHOT;
        if (sqe->addr || sqe->addr2)
            violation(q->ring->kernel, "accept with an address to fill in");
        return 0;
    case IORING_OP_RECV:
    case IORING_OP_RECVMSG:
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
        return prepare_transfer(q);
    case IORING_OP_ASYNC_CANCEL:
        if (request_selects(q) || sqe->off || sqe->splice_fd_in ||
            sqe->cancel_flags &
                ~(IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ANY))
            return -EINVAL;
        if (sqe->cancel_flags & IORING_ASYNC_CANCEL_FD &&
            sqe->cancel_flags & IORING_ASYNC_CANCEL_ANY)
            return -EINVAL;
        return 0;
    case IORING_OP_READ:
        return request_selects(q) || sqe->rw_flags ? -EINVAL : 0;
    case IORING_OP_WRITE:
        if (request_selects(q) || sqe->rw_flags)
            return -EINVAL;
        q->one.iov_base = address(sqe->addr);
        q->one.iov_len = q->payload = sqe->len;
        q->message.msg_iovlen = 1;
        q->payload_hash = payload_hash(q);
        return 0;
    case IORING_OP_FSYNC:
        if (sqe->addr || sqe->buf_index || sqe->splice_fd_in ||
            sqe->fsync_flags & ~IORING_FSYNC_DATASYNC)
            return -EINVAL;
        return 0;
    default:
        return sqe->opcode < IORING_OP_LAST ? -EACCES : -EINVAL;
    }
}

static bool sends(const struct request *q)
{
    return q->sqe.opcode == IORING_OP_SEND || q->sqe.opcode == IORING_OP_SENDMSG;
}

static bool receives(const struct request *q)
{
    return q->sqe.opcode == IORING_OP_RECV;
}

static void check_only_one(const struct request *q)
{
    const struct held *h = q->held;

    if (h->kind != HELD_SOCKET || h->socket.type != SOCK_STREAM)
        return;
    for (const struct list *at = h->requests.next; at != &h->requests; at = at->next) {
        const struct request *other = container_of(at, const struct request, of_held);
        if (other != q && ((sends(other) && sends(q)) || (receives(other) && receives(q))))
            violation(q->ring->kernel, "descriptor %d: two %s at once (%#llx, %#llx)", q->sqe.fd,
                      sends(q) ? "sends" : "receives", (unsigned long long)other->sqe.user_data,
                      (unsigned long long)q->sqe.user_data);
    }
}

static void eventfd_read_try(struct request *q)
{
    struct held *h = q->held;

    if (q->sqe.len < sizeof h->counter) {
        request_end(q, -EINVAL, 0);
    } else if (h->counter) {
        memcpy(address(q->sqe.addr), &h->counter, sizeof h->counter);
        h->counter = 0;
        request_end(q, sizeof h->counter, 0);
    }
}

/* One attempt; it may end the request. */
void request_try(struct request *q)
{
    enum held_kind kind = q->held->kind;

    if (q->cancelled) {
        request_end(q, q->done ? (int32_t)q->done : -ECANCELED, 0);
        return;
    }
    switch (q->sqe.opcode) {
    case IORING_OP_READ:
    case IORING_OP_WRITE:
    case IORING_OP_FSYNC:
        if (kind == HELD_EVENTFD && q->sqe.opcode == IORING_OP_READ)
            eventfd_read_try(q);
        else if (kind != HELD_FILE)
            request_end(q, -EINVAL, 0);
        else if (q->sqe.opcode == IORING_OP_READ)
            file_read_try(q);
        else if (q->sqe.opcode == IORING_OP_WRITE)
            file_write_try(q);
        else
            file_sync_try(q);
        return;
    default:
        break;
    }
    if (kind != HELD_SOCKET)
        request_end(q, -ENOTSOCK, 0);
    else if (q->sqe.opcode == IORING_OP_ACCEPT)
        accept_try(q);
    else if (q->held->socket.type == SOCK_DGRAM && sends(q))
        datagram_send_try(q);
    else if (q->held->socket.type == SOCK_DGRAM)
        datagram_receive_try(q);
    else if (sends(q))
        send_try(q);
    else
        receive_try(q);
}

/* ---- cancel ----------------------------------------------------------------------------- */

static bool cancel_matches(const struct request *q, const struct request *target,
                           const struct held *held)
{
    if (target == q || target->cancelled)
        return false;
    if (q->sqe.cancel_flags & IORING_ASYNC_CANCEL_ANY)
        return true;
    if (q->sqe.cancel_flags & IORING_ASYNC_CANCEL_FD)
        return target->held == held;
    return target->sqe.user_data == q->sqe.addr;
}

static int cancel_lie(struct sim_kernel *k, bool all)
{
    switch (draw(k, 3)) {
    case 0:
        return -ENOENT;
    case 1:
        return all ? 1 : -EALREADY;
    default:
        return 0;
    }
}

static int cancel(struct request *q)
{
    struct sim_ring *s = q->ring;
    struct sim_kernel *k = s->kernel;
    bool all = q->sqe.cancel_flags & (IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY);
    struct held *held = descriptor_get(k, q->sqe.fd);
    int n = 0;

    if (q->sqe.cancel_flags & IORING_ASYNC_CANCEL_FD && !held)
        return -EBADF;
    if (fault(k, k->faults.cancel_lies))
        return cancel_lie(k, all);
    for (struct list *at = s->requests.next, *next; at != &s->requests; at = next) {
        struct request *target = container_of(at, struct request, of_ring);
        next = at->next;
        if (!cancel_matches(q, target, held))
            continue;
        if (target->begun && !waits_for(target)) /* a thread of the kernel is at it */
            return -EALREADY;
        target->cancelled = true;
        event_cancel(k, &target->event);
        if (s->shuffling && draw(k, 2))
            request_try(target);
        else
            request_again(target);
        n++;
        if (!all)
            return 0;
    }
    return all ? n : -ENOENT;
}

/* ---- submission ------------------------------------------------------------------------- */

static bool ready_now(const struct request *q)
{
    if (q->held->kind != HELD_SOCKET || q->held->socket.type != SOCK_STREAM)
        return true; /* tried for nothing, at worst */
    return sends(q) ? stream_writable(q->held) : stream_readable(q->held);
}

static void start(struct sim_ring *s, struct request *q)
{
    bool poll_first = q->sqe.opcode != IORING_OP_ACCEPT && waits_for(q) &&
                      q->held->kind == HELD_SOCKET && q->sqe.ioprio & IORING_RECVSEND_POLL_FIRST;

    list_append(&q->held->requests, &q->of_held);
    check_only_one(q);
    if (poll_first) {
        if (ready_now(q))
            request_wake(q);
        return;
    }
    uint64_t delay = fault_delay(s->kernel);
    if (delay)
        request_after(q, delay, NULL);
    else if (s->shuffling)
        request_again(q);
    else
        request_try(q);
}

void request_submit(struct sim_ring *s, const struct io_uring_sqe *sqe)
{
    struct sim_kernel *k = s->kernel;
    struct request *q = must_alloc(sizeof *q);

    q->ring = s;
    q->sqe = *sqe;
    q->vector = &q->one;
    q->descriptors_limit = descriptor_limit(k);
    list_append(&s->requests, &q->of_ring);
    int result = prepare(q);
    if (result >= 0 && sqe->flags & ~(unsigned)(IOSQE_BUFFER_SELECT | IOSQE_CQE_SKIP_SUCCESS))
        result = -EACCES;
    if (result < 0) {
        request_end(q, result, 0);
        return;
    }
    if (sqe->opcode == IORING_OP_ASYNC_CANCEL) {
        request_end(q, cancel(q), 0);
        return;
    }
    struct held *h = descriptor_get(k, sqe->fd);
    if (!h) {
        violation(k, "request %#llx on descriptor %d, which is not open",
                  (unsigned long long)sqe->user_data, sqe->fd);
        request_end(q, -EBADF, 0);
        return;
    }
    q->held = held_keep(h);
    start(s, q);
}
