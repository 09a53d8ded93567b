#ifndef RODA_TESTS_SIM_KERNEL_RING_H
#define RODA_TESTS_SIM_KERNEL_RING_H
/*
 * A ring and its provided buffers, for kernel_ring.c (queues, entering, life), kernel_request.c
 * (from SQE to completion), kernel_buffer.c and kernel_look.c (for the scheduler and the test).
 */
#include "kernel_state.h"

#define GROUPS_MAX 8u

struct group {                      /* of provided buffers */
    struct io_uring_buf_ring *ring; /* NULL: this place is free */
    uint16_t id, head, seen;
    unsigned entries, n_free, n_lent;
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

static inline struct sim_ring *sim_of(const struct ring *r)
{
    return r->backend;
}

static inline bool cq_empty(const struct sim_ring *s)
{
    return *s->ring->cq_tail == *s->ring->cq_head;
}

/* kernel_buffer.c */
void groups_look(struct sim_ring *s); /* what the engine gave back since the last time */
void groups_free(struct sim_ring *s);
int group_register(struct sim_ring *s, const struct io_uring_buf_reg *reg);
int group_unregister(struct sim_ring *s, const struct io_uring_buf_reg *reg);

/* kernel_request.c */
void request_submit(struct sim_ring *s, const struct io_uring_sqe *sqe);
void request_try(struct request *q); /* one attempt; it may end the request */
void request_free(struct request *q);

/* kernel_ring.c */
void ring_post(struct sim_ring *s, uint64_t user_data, int32_t result, uint32_t flags);
bool ring_full(const struct sim_ring *s); /* a completion would have to wait for room */
void ring_task(struct sim_ring *s, struct list *task);

#endif
