#ifndef RODA_RING_RING_H
#define RODA_RING_RING_H
/*
 * One io_uring, owned by one worker. The memory shared with the kernel is read and written here
 * and nowhere else; entering the kernel goes through struct system.
 *
 * user_data is kind:8 | generation:24 | slot:32; it never holds a pointer. The kind selects the
 * handler. Handlers run from ring_dispatch() only and may prepare SQEs; they never enter.
 */
#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/system.h"

/* 0 is never valid */
enum ring_kind {
    RING_ACCEPT = 1,
    RING_RECV,
    RING_SEND,
    RING_CANCEL,
    RING_DATAGRAM_RECV,
    RING_DATAGRAM_SEND,
    RING_WAKE,
    RING_FILE_READ,
    RING_FILE_WRITE,
    RING_FILE_SYNC,
    RING_KINDS
};

#define RING_GENERATION_MASK 0xffffffu
#define RING_USER_DATA(kind, generation, slot)                                                     \
    ((uint64_t)(kind) << 56 | (uint64_t)((generation)&RING_GENERATION_MASK) << 32 |                \
     (uint32_t)(slot))

struct ring_completion { /* a copy: the CQ slot is free when the handler runs */
    uint32_t slot;
    uint32_t generation;
    int32_t result;
    uint32_t flags; /* IORING_CQE_F_* */
};
typedef void ring_handler_fn(void *owner, const struct ring_completion *done);

struct ring_counters { /* relaxed atomics: other threads read them */
    _Atomic uint64_t enters, waits, sqes, cqes, timeouts, interrupted, busy, overflows, sq_full,
        stale, wakes_sent, wakes_received;
};

struct ring {
    /* Filled by system->ring_setup. */
    unsigned *sq_head, *sq_tail, *sq_flags, *cq_head, *cq_tail;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    unsigned sq_entries, cq_entries; /* powers of two */
    uint32_t features;               /* params.features */
    int fd;
    void *backend; /* the system's own */

    const struct system *system;
    unsigned sqe_tail; /* ours; published to *sq_tail by ring_enter() */
    int failed;        /* what an enter made by ring_sqe() met; ring_enter() returns it */
    struct {
        ring_handler_fn *fn;
        void *owner;
    } handlers[RING_KINDS];
    struct ring_counters counters;

    /* Wake-ups from other threads: an eventfd with one READ armed. */
    int wake_fd;
    bool wake_armed;
    uint64_t wake_value;
    _Atomic uint32_t sleeping;

    _Atomic(struct system_job *) finished; /* pool jobs that came back; see ring_job() */
};

/* Leaves *r all zero on failure. Sizes are clamped to what the kernel allows. [any thread] */
int ring_init(struct ring *r, const struct system *system, unsigned sq_entries,
              unsigned cq_entries);
/* By the thread that will run the ring: restricts, enables, makes the eventfd. */
int ring_enable(struct ring *r);
/* When no other thread may still be in ring_wake(): workers are quiet, the pool has stopped. */
void ring_deinit(struct ring *r);

void ring_on(struct ring *r, enum ring_kind kind, ring_handler_fn *fn, void *owner);

/* A zeroed SQE with user_data set, or NULL: the queue is full even after one non-waiting enter,
 * so put the object back on its list and come again next turn. */
struct io_uring_sqe *ring_sqe(struct ring *r, uint64_t user_data);
/* How many SQEs can be had without entering. */
unsigned ring_space(const struct ring *r);
/* Keep this many for close, cancel, re-arm and wake when flushing sends in bulk. */
#define RING_RESERVE 64u

/* Publishes SQEs, enters. wait: sleep until a completion, a wake-up or the deadline. Returns 0
 * or a negative errno that ends the worker (-EBADR, -EBADFD, -EEXIST, -EFAULT). Enters also
 * when there is nothing to submit if wait is set or task work or overflow is flagged; else it
 * makes no system call. */
int ring_enter(struct ring *r, bool wait, uint64_t timeout_ns);
/* The CQ tail now: completions up to here are older than whatever is taken after this call. */
unsigned ring_mark(const struct ring *r);
/* Runs handlers for completions up to mark, at most budget. Returns how many are left before
 * mark. */
unsigned ring_dispatch(struct ring *r, unsigned mark, unsigned budget);
bool ring_overflowed(const struct ring *r);

/* From any thread: the worker sees what was pushed before this call. No system call if the
 * worker is awake. Order: push; ring_wake() does the fence and the exchange. */
void ring_wake(struct ring *r);
/* The worker, before it may sleep: true: sleep now (nothing was pushed, says empty()). */
bool ring_sleep_begin(struct ring *r, bool (*empty)(void *arg), void *arg);
void ring_sleep_end(struct ring *r);
/* Re-arms the eventfd read when it has fired; once per turn. */
void ring_wake_arm(struct ring *r);

/* Hands a job to the pool; job->work runs there, and done(job) here, on this ring's thread, from
 * ring_jobs_run(). -EAGAIN: too many wait. job->finished is set by this call. */
struct ring_job {
    struct system_job job; /* work is the caller's to set */
    struct ring *ring;
    void (*done)(struct ring_job *job);
};
int ring_job(struct ring *r, struct ring_job *job);
/* By the ring's thread: done(job) from the next ring_jobs_run(), without the pool. Cannot fail;
 * the ring does not sleep before it ran. */
void ring_job_defer(struct ring *r, struct ring_job *job);
/* Runs done() of the jobs that came back; once per turn. Returns how many. */
unsigned ring_jobs_run(struct ring *r);
bool ring_jobs_waiting(const struct ring *r);

static inline void ring_add(_Atomic uint64_t *counter, uint64_t n)
{
    /* One writer: a relaxed load and store, no locked instruction. */
    __atomic_store_n((uint64_t *)counter,
                     __atomic_load_n((uint64_t *)counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

#endif
