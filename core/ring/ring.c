#include "ring/ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

/*
 * Two shared queues and one rule for each. SQEs are filled at sqe_tail, which is ours; the kernel
 * sees them when *sq_tail is stored, in ring_enter(). How far it came is what *sq_head says and
 * nothing else: an enter that was interrupted, timed out or was refused may have taken some SQEs
 * or none, and those it left stay queued for the next. Completions are read up to a mark and the
 * head is moved on in batches, so that a turn handles nothing newer than its mailbox.
 *
 * With DEFER_TASKRUN completions are made only inside an enter that asks for events, so every
 * enter does; and since wake-ups of a waiting ring are counted lazily, no enter waits for more
 * than one.
 *
 * Wake-ups. `sleeping` is changed by read-modify-write only, by every thread. All changes of one
 * word have one order, and each of these reads the one before it: either a waker's exchange comes
 * after the worker's (it reads 1 and writes the eventfd), or before it, and then the worker's
 * exchange acquires what the waker released, so empty() sees what was pushed. No fence is needed,
 * which a thread sanitizer would not understand. The eventfd's READ is armed before the worker may
 * sleep. It carries no data: what a thread hands over travels under its own acquire and release,
 * the kernel is no synchronisation.
 *
 * Errors that end the worker may show in an enter made by ring_sqe(), whose caller cannot act on
 * them; they are kept in `failed` for the next ring_enter().
 */

#define DISPATCH_BATCH 64u

static void wake_completed(void *owner, const struct ring_completion *done)
{
    struct ring *r = owner;

    r->wake_armed = false;
    if (done->result > 0)
        ring_add(&r->counters.wakes_received, 1);
}

int ring_init(struct ring *r, const struct system *system, unsigned sq_entries, unsigned cq_entries)
{
    memset(r, 0, sizeof *r);
    r->fd = -1;
    int result = system->ring_setup(system->kernel, r, sq_entries, cq_entries);
    if (result < 0) {
        memset(r, 0, sizeof *r);
        return result;
    }
    r->system = system;
    r->sqe_tail = *r->sq_tail;
    r->wake_fd = -1;
    ring_on(r, RING_WAKE, wake_completed, r);
    return 0;
}

int ring_enable(struct ring *r)
{
    const struct system *system = r->system;
    int fd = system->eventfd(system->kernel);

    if (fd < 0)
        return fd;
    int result = system->ring_enable(system->kernel, r);
    if (result < 0) {
        system->close(system->kernel, fd);
        return result;
    }
    r->wake_fd = fd;
    ring_wake_arm(r);
    return 0;
}

void ring_deinit(struct ring *r)
{
    const struct system *system = r->system;

    if (!system)
        return;
    system->ring_teardown(system->kernel, r);
    if (r->wake_fd >= 0)
        system->close(system->kernel, r->wake_fd);
    r->wake_fd = -1;
    r->wake_armed = false;
    r->fd = -1;
    r->system = NULL;
}

void ring_on(struct ring *r, enum ring_kind kind, ring_handler_fn *fn, void *owner)
{
    r->handlers[kind].fn = fn;
    r->handlers[kind].owner = owner;
}

static unsigned sq_head(const struct ring *r)
{
    return __atomic_load_n(r->sq_head, __ATOMIC_ACQUIRE);
}

static unsigned sq_flags(const struct ring *r)
{
    return __atomic_load_n(r->sq_flags, __ATOMIC_ACQUIRE);
}

/* One enter. 0, or what ends the worker. */
static int enter_once(struct ring *r, unsigned wait, uint64_t timeout_ns)
{
    unsigned head = sq_head(r);

    __atomic_store_n(r->sq_tail, r->sqe_tail, __ATOMIC_RELEASE);
    int result = r->system->ring_enter(r->system->kernel, r, r->sqe_tail - head, wait, timeout_ns);
    ring_add(&r->counters.enters, 1);
    ring_add(&r->counters.waits, wait);
    ring_add(&r->counters.sqes, sq_head(r) - head);
    if (result >= 0)
        return 0;
    switch (result) {
    case -ETIME:
        ring_add(&r->counters.timeouts, 1);
        return 0;
    case -EINTR:
        ring_add(&r->counters.interrupted, 1);
        return 0;
    case -EBUSY: /* completions wait to be reaped */
    case -EAGAIN:
    case -ENOMEM:
        ring_add(&r->counters.busy, 1);
        return 0;
    default:
        return result;
    }
}

struct io_uring_sqe *ring_sqe(struct ring *r, uint64_t user_data)
{
    if (!ring_space(r)) {
        ring_add(&r->counters.sq_full, 1);
        if (r->failed)
            return NULL;
        r->failed = enter_once(r, 0, 0);
        if (!ring_space(r))
            return NULL;
    }
    struct io_uring_sqe *sqe = &r->sqes[r->sqe_tail & (r->sq_entries - 1)];
    memset(sqe, 0, sizeof *sqe);
    sqe->user_data = user_data;
    r->sqe_tail++;
    return sqe;
}

unsigned ring_space(const struct ring *r)
{
    return r->sq_entries - (r->sqe_tail - sq_head(r));
}

int ring_enter(struct ring *r, bool wait, uint64_t timeout_ns)
{
    unsigned flags = sq_flags(r);

    if (r->failed)
        return r->failed;
    if (flags & IORING_SQ_CQ_OVERFLOW)
        ring_add(&r->counters.overflows, 1);
    if (!wait && r->sqe_tail == sq_head(r) &&
        !(flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)))
        return 0;
    return enter_once(r, wait, timeout_ns);
}

unsigned ring_mark(const struct ring *r)
{
    return __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE);
}

static void complete(struct ring *r, const struct io_uring_cqe *cqe)
{
    uint64_t kind = cqe->user_data >> 56;
    struct ring_completion done = {
        .slot = (uint32_t)cqe->user_data,
        .generation = (uint32_t)(cqe->user_data >> 32) & RING_GENERATION_MASK,
        .result = cqe->res,
        .flags = cqe->flags,
    };

    if (kind < RING_KINDS && r->handlers[kind].fn)
        r->handlers[kind].fn(r->handlers[kind].owner, &done);
    else
        ring_add(&r->counters.stale, 1);
}

unsigned ring_dispatch(struct ring *r, unsigned mark, unsigned budget)
{
    unsigned head = *r->cq_head;
    unsigned mask = r->cq_entries - 1;

    while (head != mark && budget) {
        unsigned batch = mark - head;
        if (batch > budget)
            batch = budget;
        if (batch > DISPATCH_BATCH)
            batch = DISPATCH_BATCH;
        for (unsigned i = 0; i < batch; i++)
            complete(r, &r->cqes[(head + i) & mask]);
        head += batch;
        budget -= batch;
        __atomic_store_n(r->cq_head, head, __ATOMIC_RELEASE);
        ring_add(&r->counters.cqes, batch);
    }
    return mark - head;
}

bool ring_overflowed(const struct ring *r)
{
    return sq_flags(r) & IORING_SQ_CQ_OVERFLOW;
}

void ring_wake(struct ring *r)
{
    if (!atomic_exchange_explicit(&r->sleeping, 0, memory_order_seq_cst))
        return;
    atomic_fetch_add_explicit(&r->counters.wakes_sent, 1, memory_order_relaxed);
    r->system->eventfd_wake(r->system->kernel, r->wake_fd);
}

bool ring_sleep_begin(struct ring *r, bool (*empty)(void *arg), void *arg)
{
    if (!r->wake_armed)
        return false;
    atomic_exchange_explicit(&r->sleeping, 1, memory_order_seq_cst);
    if (empty(arg) && !ring_jobs_waiting(r))
        return true;
    ring_sleep_end(r);
    return false;
}

void ring_sleep_end(struct ring *r)
{
    atomic_exchange_explicit(&r->sleeping, 0, memory_order_seq_cst);
}

void ring_wake_arm(struct ring *r)
{
    if (r->wake_armed)
        return;
    struct io_uring_sqe *sqe = ring_sqe(r, RING_USER_DATA(RING_WAKE, 0, 0));
    if (!sqe)
        return;
    io_uring_prep_rw(IORING_OP_READ, sqe, r->wake_fd, &r->wake_value, sizeof r->wake_value, 0);
    r->wake_armed = true;
}

/* On a thread of the pool. Once it is pushed the job may be gone at any time. */
static void job_finished(struct system_job *job)
{
    struct ring *r = ((struct ring_job *)(void *)job)->ring;
    struct system_job *head = atomic_load_explicit(&r->finished, memory_order_relaxed);

    do {
        job->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&r->finished, &head, job, memory_order_release,
                                                    memory_order_relaxed));
    ring_wake(r);
}

int ring_job(struct ring *r, struct ring_job *job)
{
    _Static_assert(offsetof(struct ring_job, job) == 0, "a system_job is the start of a ring_job");

    job->ring = r;
    job->job.next = NULL;
    job->job.finished = job_finished;
    return r->system->pool_submit(r->system->kernel, &job->job);
}

void ring_job_defer(struct ring *r, struct ring_job *job)
{
    job->ring = r;
    job_finished(&job->job);
}

unsigned ring_jobs_run(struct ring *r)
{
    unsigned ran = 0;

    if (!ring_jobs_waiting(r))
        return 0;
    struct system_job *newest = atomic_exchange_explicit(&r->finished, NULL, memory_order_acquire);
    struct system_job *oldest = NULL;
    while (newest) {
        struct system_job *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct ring_job *job = (struct ring_job *)(void *)oldest;
        oldest = oldest->next;
        job->done(job);
        ran++;
    }
    return ran;
}

bool ring_jobs_waiting(const struct ring *r)
{
    return atomic_load_explicit(&r->finished, memory_order_acquire);
}
