#include "kernel_state.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(at, n)   __asan_poison_memory_region((at), (n))
#define UNPOISON(at, n) __asan_unpoison_memory_region((at), (n))
#else
#define POISON(at, n)   ((void)(at), (void)(n))
#define UNPOISON(at, n) ((void)(at), (void)(n))
#endif

/*
 * The ring as the engine meets it: two queues in shared memory and one call.
 *
 * A request is made from an SQE and belongs to its ring; it keeps the file it works on alive. It
 * is tried at once; if it cannot go on, it stays on its file's list. What changes the file wakes
 * the requests on that list: they become tasks, and tasks run only inside an enter of their ring
 * (that is DEFER_TASKRUN), which is where they are tried again and where completions are posted.
 * A delay fault puts an event between the wake and the task. So a request is in one of these
 * places at any time: waiting on its file; waiting for its event; in the task list; being tried.
 *
 * Order: within one request completions are in order, as one task stands for all it has to say.
 * Tasks of different requests are run in random order when the shuffle fault strikes, and then
 * fresh SQEs become tasks too instead of being tried in their order.
 *
 * Provided buffers: the engine's ring is read from where it was read last up to its tail, each
 * entry once; that is when a buffer changes from lent to free and is filled with 0xDD.
 */

#define GROUPS_MAX     8u
#define BUFFERS_MAX    65536u
#define TASK_ROUNDS    4u
#define SQ_ENTRIES_MAX 32768u
#define CQ_ENTRIES_MAX 65536u

enum buffer_state { BUFFER_UNKNOWN, BUFFER_FREE, BUFFER_LENT };

struct group {                      /* of provided buffers */
    struct io_uring_buf_ring *ring; /* NULL: this place is free */
    uint16_t id, head, seen;
    unsigned entries;
    uint8_t *states;            /* per buffer id */
    struct io_uring_buf *known; /* per buffer id, as it was given last */
};

struct sim_ring {
    struct list link;
    struct sim_kernel *kernel;
    struct ring *ring;
    struct held *held;
    bool enabled, dead, sleeping, shuffling;
    uint64_t wake_at;
    unsigned *words; /* the heads, tails and flags */
    struct list requests, tasks;
    struct io_uring_cqe *backlog; /* completions that found no room */
    size_t backlog_n, backlog_capacity;
    struct group groups[GROUPS_MAX];
};

static struct sim_ring *sim_of(const struct ring *r)
{
    return r->backend;
}

static void flag(struct sim_ring *s, unsigned bit, bool on)
{
    if (on)
        *s->ring->sq_flags |= bit;
    else
        *s->ring->sq_flags &= ~bit;
}

/* ---- completions ---- */

static bool cq_full(const struct sim_ring *s)
{
    return *s->ring->cq_tail - *s->ring->cq_head >= s->ring->cq_entries;
}

static void cq_put(struct sim_ring *s, const struct io_uring_cqe *cqe)
{
    s->ring->cqes[*s->ring->cq_tail & (s->ring->cq_entries - 1)] = *cqe;
    ++*s->ring->cq_tail;
}

static void backlog_flush(struct sim_ring *s)
{
    size_t n = 0;

    while (n < s->backlog_n && !cq_full(s))
        cq_put(s, &s->backlog[n++]);
    s->backlog_n -= n;
    if (n)
        memmove(s->backlog, s->backlog + n, s->backlog_n * sizeof *s->backlog);
    flag(s, IORING_SQ_CQ_OVERFLOW, s->backlog_n);
}

static void post(struct sim_ring *s, uint64_t user_data, int32_t result, uint32_t flags)
{
    struct io_uring_cqe cqe = {.user_data = user_data, .res = result, .flags = flags};

    if (!s->backlog_n && !cq_full(s)) {
        cq_put(s, &cqe);
        return;
    }
    if (s->backlog_n == s->backlog_capacity) {
        s->backlog_capacity = s->backlog_capacity ? 2 * s->backlog_capacity : 64;
        s->backlog = must_realloc(s->backlog, s->backlog_capacity * sizeof *s->backlog);
    }
    s->backlog[s->backlog_n++] = cqe;
    flag(s, IORING_SQ_CQ_OVERFLOW, true);
}

/* ---- requests ---- */

static void request_free(struct request *q)
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
    if (q->ring->backlog_n || cq_full(q->ring))
        return false;
    post(q->ring, q->sqe.user_data, result, flags | IORING_CQE_F_MORE);
    return true;
}

void request_end(struct request *q, int32_t result, uint32_t flags)
{
    if (result < 0 || !(q->sqe.flags & IOSQE_CQE_SKIP_SUCCESS))
        post(q->ring, q->sqe.user_data, result, flags);
    request_free(q);
}

void request_again(struct request *q)
{
    if (list_linked(&q->task))
        return;
    list_append(&q->ring->tasks, &q->task);
    if (!q->ring->dead)
        flag(q->ring, IORING_SQ_TASKRUN, true);
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

/* ---- provided buffers ---- */

static void *address(uint64_t value)
{
    return (void *)(uintptr_t)value;
}

/* Takes note of what the engine gave back since the last time. */
static void group_look(struct sim_kernel *k, struct group *g)
{
    uint16_t tail = __atomic_load_n(&g->ring->tail, __ATOMIC_ACQUIRE);

    if ((uint16_t)(tail - g->head) > g->entries)
        violation(k, "buffer group %u: %u buffers in a ring of %u", g->id,
                  (uint16_t)(tail - g->head), g->entries);
    for (; g->seen != tail; g->seen++) {
        const struct io_uring_buf *buf = &g->ring->bufs[g->seen & (g->entries - 1)];
        if (g->states[buf->bid] == BUFFER_FREE) {
            violation(k, "buffer %u of group %u was given back twice", buf->bid, g->id);
            continue;
        }
        g->states[buf->bid] = BUFFER_FREE;
        g->known[buf->bid] = *buf;
        memset(address(buf->addr), 0xDD, buf->len);
        POISON(address(buf->addr), buf->len);
    }
}

static void group_free(struct group *g)
{
    for (unsigned id = 0; id < BUFFERS_MAX; id++)
        if (g->states[id] == BUFFER_FREE)
            UNPOISON(address(g->known[id].addr), g->known[id].len);
    free(g->states);
    free(g->known);
    memset(g, 0, sizeof *g);
}

static struct group *group_find(struct sim_ring *s, uint16_t id)
{
    for (unsigned i = 0; i < GROUPS_MAX; i++)
        if (s->groups[i].ring && s->groups[i].id == id)
            return &s->groups[i];
    return NULL;
}

static int group_register(struct sim_ring *s, const struct io_uring_buf_reg *reg)
{
    struct group *g = NULL;

    if (!reg->ring_addr || reg->ring_addr & 4095)
        return reg->ring_addr ? -EINVAL : -EFAULT;
    if (!reg->ring_entries || reg->ring_entries & (reg->ring_entries - 1) ||
        reg->ring_entries >= BUFFERS_MAX)
        return -EINVAL;
    if (group_find(s, reg->bgid))
        return -EEXIST;
    for (unsigned i = 0; i < GROUPS_MAX && !g; i++)
        if (!s->groups[i].ring)
            g = &s->groups[i];
    if (!g)
        return -ENOMEM;
    g->ring = address(reg->ring_addr);
    g->id = reg->bgid;
    g->entries = reg->ring_entries;
    g->states = must_alloc(BUFFERS_MAX);
    g->known = must_alloc(BUFFERS_MAX * sizeof *g->known);
    return 0;
}

bool request_selects(const struct request *q)
{
    return q->sqe.flags & IOSQE_BUFFER_SELECT;
}

bool request_buffers_empty(struct request *q)
{
    struct group *g = group_find(q->ring, q->sqe.buf_group);

    if (!g)
        return true;
    group_look(q->ring->kernel, g);
    return g->head == g->seen;
}

char *request_buffer(struct request *q, size_t *ret_size, uint32_t *ret_flags)
{
    struct group *g = group_find(q->ring, q->sqe.buf_group);
    const struct io_uring_buf *buf = &g->ring->bufs[g->head++ & (g->entries - 1)];

    g->states[buf->bid] = BUFFER_LENT;
    UNPOISON(address(buf->addr), buf->len);
    *ret_size = buf->len;
    if (q->sqe.opcode == IORING_OP_RECV && q->sqe.len && q->sqe.len < buf->len)
        *ret_size = q->sqe.len;
    *ret_flags = IORING_CQE_F_BUFFER | (uint32_t)buf->bid << IORING_CQE_BUFFER_SHIFT;
    return address(buf->addr);
}

bool sim_buffers(struct sim_kernel *k, const struct ring *r, uint16_t group, unsigned *ret_free,
                 unsigned *ret_lent)
{
    struct group *g = sim_of(r) ? group_find(sim_of(r), group) : NULL;
    unsigned counts[3] = {0};

    if (!g)
        return false;
    group_look(k, g);
    for (unsigned id = 0; id < BUFFERS_MAX; id++)
        counts[g->states[id]]++;
    *ret_free = counts[BUFFER_FREE];
    *ret_lent = counts[BUFFER_LENT];
    return true;
}

/* ---- from SQE to request ---- */

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
static void try(struct request *q)
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

/* ---- cancel ---- */

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
            try(target);
        else
            request_again(target);
        n++;
        if (!all)
            return 0;
    }
    return all ? n : -ENOENT;
}

/* ---- enter ---- */

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
        try(q);
}

static void submit_one(struct sim_ring *s, const struct io_uring_sqe *sqe)
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

static unsigned submit(struct sim_ring *s, unsigned n)
{
    struct ring *r = s->ring;
    unsigned offered = *r->sq_tail - *r->sq_head;

    if (offered > r->sq_entries)
        violation(s->kernel, "%u SQEs in a queue of %u", offered, r->sq_entries);
    if (n > offered)
        n = offered;
    if (n && fault(s->kernel, s->kernel->faults.fewer_sqes))
        n = (unsigned)draw(s->kernel, n);
    for (unsigned i = 0; i < n; i++) {
        struct io_uring_sqe sqe = r->sqes[*r->sq_head & (r->sq_entries - 1)];
        ++*r->sq_head;
        submit_one(s, &sqe);
    }
    return n;
}

static void tasks_shuffle(struct sim_kernel *k, struct list *tasks)
{
    struct list **all = NULL, *link;
    size_t n = 0, capacity = 0;

    while ((link = list_pop(tasks))) {
        if (n == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            all = must_realloc(all, capacity * sizeof(struct list *));
        }
        all[n++] = link;
    }
    while (n) {
        size_t i = draw(k, n);
        list_append(tasks, all[i]);
        all[i] = all[--n];
    }
    free(all);
}

static void tasks_run(struct sim_ring *s)
{
    for (unsigned round = 0; round < TASK_ROUNDS && !list_empty(&s->tasks); round++) {
        struct list tasks, *link;
        list_init(&tasks);
        list_take(&tasks, &s->tasks);
        if (s->shuffling)
            tasks_shuffle(s->kernel, &tasks);
        while ((link = list_pop(&tasks)))
            try(container_of(link, struct request, task));
    }
    flag(s, IORING_SQ_TASKRUN, !list_empty(&s->tasks));
}

static bool cq_empty(const struct sim_ring *s)
{
    return *s->ring->cq_tail == *s->ring->cq_head;
}

/* One ring alone: time passes here. */
static void wait_here(struct sim_ring *s, uint64_t until)
{
    struct sim_kernel *k = s->kernel;

    while (cq_empty(s) && k->now < until && k->heap_n) {
        uint64_t at = k->heap[0]->at;
        sim_advance_to(k, at < until ? at : until);
        tasks_run(s);
    }
    if (cq_empty(s) && until != UINT64_MAX)
        sim_advance_to(k, until);
}

static int sim_ring_enter(void *kernel, struct ring *r, unsigned to_submit, unsigned wait,
                          uint64_t timeout_ns)
{
    struct sim_kernel *k = kernel;
    struct sim_ring *s = sim_of(r);

    if (!s || s->dead || !s->enabled)
        return -EBADFD;
    bool was_asleep = s->sleeping;
    s->sleeping = false;
    if (to_submit && fault(k, k->faults.enter_eagain))
        return -EAGAIN;
    if (to_submit && fault(k, k->faults.enter_ebusy))
        return -EBUSY;
    backlog_flush(s);
    for (unsigned i = 0; i < GROUPS_MAX; i++)
        if (s->groups[i].ring)
            group_look(k, &s->groups[i]);
    s->shuffling = fault(k, k->faults.shuffle);
    unsigned taken = submit(s, to_submit);
    tasks_run(s);
    if (taken < to_submit || !wait || !cq_empty(s))
        return (int)taken;
    if (fault(k, k->faults.enter_eintr))
        return taken ? (int)taken : -EINTR;
    uint64_t until = timeout_ns > UINT64_MAX - k->now ? UINT64_MAX : k->now + timeout_ns;
    if (k->blocking)
        wait_here(s, until);
    if (k->blocking || was_asleep || !timeout_ns)
        return taken || !cq_empty(s) ? (int)taken : -ETIME;
    s->sleeping = true;
    s->wake_at = until;
    return (int)taken;
}

/* ---- setup, registration, end ---- */

static unsigned power_of_two(unsigned n, unsigned most)
{
    unsigned size = 1;

    while (size < n && size < most)
        size *= 2;
    return size;
}

static int sim_ring_setup(void *kernel, struct ring *r, unsigned sq_entries, unsigned cq_entries)
{
    struct sim_kernel *k = kernel;

    if (!sq_entries || cq_entries < power_of_two(sq_entries, SQ_ENTRIES_MAX))
        return -EINVAL;
    struct held *h = held_new(k, HELD_RING);
    int fd = descriptor_new(k, h);
    if (fd < 0) {
        held_release(h);
        return fd;
    }
    struct sim_ring *s = must_alloc(sizeof *s);
    s->kernel = k;
    s->ring = r;
    s->held = h;
    list_init(&s->requests);
    list_init(&s->tasks);
    list_append(&k->rings, &s->link);
    s->words = must_alloc(5 * sizeof *s->words);
    r->sq_entries = power_of_two(sq_entries, SQ_ENTRIES_MAX);
    r->cq_entries = power_of_two(cq_entries, CQ_ENTRIES_MAX);
    r->sq_head = &s->words[0];
    r->sq_tail = &s->words[1];
    r->sq_flags = &s->words[2];
    r->cq_head = &s->words[3];
    r->cq_tail = &s->words[4];
    r->sqes = must_alloc(r->sq_entries * sizeof *r->sqes);
    r->cqes = must_alloc(r->cq_entries * sizeof *r->cqes);
    r->features = IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_FAST_POLL |
                  IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP;
    r->fd = fd;
    r->backend = s;
    /* Wrap-around of the heads is part of life: begin shortly before it. */
    *r->sq_head = *r->sq_tail = *r->cq_head = *r->cq_tail = -(unsigned)draw(k, 4096);
    return 0;
}

static int sim_ring_enable(void *kernel, struct ring *r)
{
    (void)kernel;
    struct sim_ring *s = sim_of(r);

    if (!s || s->dead || s->enabled)
        return -EBADFD;
    s->enabled = true;
    return 0;
}

static int sim_ring_register(void *kernel, struct ring *r, unsigned op, void *arg, unsigned n)
{
    (void)kernel;
    struct sim_ring *s = sim_of(r);
    const struct io_uring_buf_reg *reg = arg;

    if (!s || s->dead)
        return -EBADFD;
    switch (op) {
    case IORING_REGISTER_PBUF_RING:
        return n == 1 ? group_register(s, reg) : -EINVAL;
    case IORING_UNREGISTER_PBUF_RING: {
        struct group *g = group_find(s, reg->bgid);
        if (!g)
            return -ENOENT;
        group_free(g);
        return 0;
    }
    case IORING_REGISTER_IOWQ_MAX_WORKERS:
    case IORING_REGISTER_RING_FDS:
    case IORING_UNREGISTER_RING_FDS:
        return 0;
    default:
        return s->enabled ? -EACCES : -EINVAL;
    }
}

static void requests_drop(struct sim_ring *s)
{
    struct list *link;

    while ((link = list_first(&s->requests)))
        request_free(container_of(link, struct request, of_ring));
    for (unsigned i = 0; i < GROUPS_MAX; i++)
        if (s->groups[i].ring)
            group_free(&s->groups[i]);
}

static void ring_free(struct sim_ring *s)
{
    requests_drop(s);
    list_remove(&s->link);
    free(s->words);
    free(s->ring->sqes);
    free(s->ring->cqes);
    free(s->backlog);
    s->ring->backend = NULL;
    free(s);
}

static void sim_ring_teardown(void *kernel, struct ring *r)
{
    struct sim_ring *s = sim_of(r);

    if (!s)
        return;
    if (!s->dead)
        descriptor_close(kernel, r->fd);
    ring_free(s);
}

void rings_crash(struct sim_kernel *k)
{
    for (struct list *at = k->rings.next; at != &k->rings; at = at->next) {
        struct sim_ring *s = container_of(at, struct sim_ring, link);
        s->dead = true;
        s->sleeping = false;
        requests_drop(s);
    }
}

void rings_free(struct sim_kernel *k)
{
    struct list *link;

    while ((link = list_first(&k->rings)))
        ring_free(container_of(link, struct sim_ring, link));
}

void rings_init(struct sim_kernel *k)
{
    k->system.ring_setup = sim_ring_setup;
    k->system.ring_enable = sim_ring_enable;
    k->system.ring_teardown = sim_ring_teardown;
    k->system.ring_enter = sim_ring_enter;
    k->system.ring_register = sim_ring_register;
}

/* ---- for the scheduler ---- */

bool sim_ring_sleeps(const struct sim_kernel *k, const struct ring *r)
{
    (void)k;
    return sim_of(r) && sim_of(r)->sleeping;
}

static bool ring_ready(const struct sim_ring *s)
{
    if (s->dead)
        return false;
    return !s->sleeping || s->kernel->now >= s->wake_at || !cq_empty(s) || !list_empty(&s->tasks) ||
           s->backlog_n || s->ring->sqe_tail != *s->ring->sq_head;
}

bool sim_ring_ready(const struct sim_kernel *k, const struct ring *r)
{
    (void)k;
    return sim_of(r) && ring_ready(sim_of(r));
}

void sim_turn_begin(struct sim_kernel *k, struct ring *r)
{
    (void)k;
    atomic_store(&r->sleeping, 0);
}

void sim_turn_end(struct sim_kernel *k, struct ring *r)
{
    if (sim_ring_sleeps(k, r))
        atomic_store(&r->sleeping, 1);
}

uint64_t sim_next_event_ns(const struct sim_kernel *k)
{
    uint64_t at = k->heap_n ? k->heap[0]->at : UINT64_MAX;

    for (const struct list *link = k->rings.next; link != &k->rings; link = link->next) {
        const struct sim_ring *s = container_of(link, const struct sim_ring, link);
        if (s->sleeping && s->wake_at < at)
            at = s->wake_at;
    }
    return at < k->now ? k->now : at;
}

/* ---- looking inside ---- */

static void each_of(const struct sim_ring *s,
                    void (*fn)(void *arg, const struct sim_request *request), void *arg)
{
    const struct ring *r = s->ring;
    struct sim_request out = {.ring = r, .state = SIM_QUEUED};

    for (unsigned i = *r->sq_head; i != r->sqe_tail; i++) {
        const struct io_uring_sqe *sqe = &r->sqes[i & (r->sq_entries - 1)];
        out.user_data = sqe->user_data;
        out.fd = sqe->fd;
        out.opcode = sqe->opcode;
        fn(arg, &out);
    }
    out.state = SIM_LIVE;
    for (const struct list *at = s->requests.next; at != &s->requests; at = at->next) {
        const struct request *q = container_of(at, const struct request, of_ring);
        out.user_data = q->sqe.user_data;
        out.fd = q->sqe.fd;
        out.opcode = q->sqe.opcode;
        out.multishot = q->multishot;
        fn(arg, &out);
    }
    out = (struct sim_request){.ring = r, .state = SIM_DONE, .fd = -1};
    for (unsigned i = *r->cq_head; i != *r->cq_tail; i++) {
        const struct io_uring_cqe *cqe = &r->cqes[i & (r->cq_entries - 1)];
        out.user_data = cqe->user_data;
        if (!(cqe->flags & IORING_CQE_F_MORE))
            fn(arg, &out);
    }
    for (size_t i = 0; i < s->backlog_n; i++) {
        out.user_data = s->backlog[i].user_data;
        fn(arg, &out);
    }
}

void sim_each_request(const struct sim_kernel *k,
                      void (*fn)(void *arg, const struct sim_request *request), void *arg)
{
    for (const struct list *at = k->rings.next; at != &k->rings; at = at->next) {
        const struct sim_ring *s = container_of(at, const struct sim_ring, link);
        if (!s->dead)
            each_of(s, fn, arg);
    }
}

unsigned sim_requests(const struct sim_kernel *k, int fd, int opcode)
{
    const struct held *h = descriptor_get(k, fd);
    unsigned n = 0;

    if (!h)
        return 0;
    for (const struct list *at = h->requests.next; at != &h->requests; at = at->next)
        n += opcode < 0 || container_of(at, const struct request, of_held)->sqe.opcode == opcode;
    return n;
}

static void count_live(void *arg, const struct sim_request *request)
{
    unsigned *n = arg;

    *n += request->state == SIM_LIVE;
}

unsigned sim_requests_live(const struct sim_kernel *k)
{
    unsigned n = 0;

    sim_each_request(k, count_live, &n);
    return n;
}

static void print_request(void *arg, const struct sim_request *request)
{
    static const char *const states[] = {"queued", "live", "done"};

    fprintf(arg, "  ring %d: %s %#llx opcode %u fd %d%s\n", request->ring->fd,
            states[request->state], (unsigned long long)request->user_data, request->opcode,
            request->fd, request->multishot ? " multishot" : "");
}

void sim_describe(const struct sim_kernel *k, FILE *out)
{
    static const char *const kinds[] = {"ring", "socket", "eventfd", "file", "directory"};

    fprintf(out, "at %llu ns, next event at %llu ns\n", (unsigned long long)k->now,
            (unsigned long long)sim_next_event_ns(k));
    for (unsigned fd = 0; fd < k->table_n; fd++)
        if (k->table[fd])
            fprintf(out, "  descriptor %u: %s%s%s, port %u\n", fd, kinds[k->table[fd]->kind],
                    k->table[fd]->socket.listening ? ", listening" : "",
                    k->table[fd]->socket.pair ? ", connected" : "",
                    k->table[fd]->socket.local.port);
    for (const struct list *at = k->rings.next; at != &k->rings; at = at->next) {
        const struct sim_ring *s = container_of(at, const struct sim_ring, link);
        fprintf(out, "  ring %d: %s, %s, overflow %zu\n", s->ring->fd,
                s->dead       ? "dead"
                : s->sleeping ? "asleep"
                              : "awake",
                ring_ready(s) ? "ready" : "not ready", s->backlog_n);
    }
    sim_each_request(k, print_request, out);
}
