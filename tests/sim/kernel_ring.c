#include "kernel_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * The ring as the engine meets it: two queues in shared memory and one call.
 *
 * An enter takes SQEs, runs the tasks of requests that something woke, and then waits, or rather
 * notes that it would (see kernel.h). Completions are posted in an enter only. One that finds no
 * room waits in the overflow list, with the flag set, and goes in front of all later ones.
 *
 * Order: within one request completions are in order, as one task stands for all it has to say.
 * Tasks of different requests are run in random order when the shuffle fault strikes, and then
 * fresh SQEs become tasks too instead of being tried in their order.
 */

#define TASK_ROUNDS    4u
#define SQ_ENTRIES_MAX 32768u
#define CQ_ENTRIES_MAX 65536u

static void flag(struct sim_ring *s, unsigned bit, bool on)
{
    if (on)
        *s->ring->sq_flags |= bit;
    else
        *s->ring->sq_flags &= ~bit;
}

/* ---- completions ------------------------------------------------------------------------ */

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

void ring_post(struct sim_ring *s, uint64_t user_data, int32_t result, uint32_t flags)
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

bool ring_full(const struct sim_ring *s)
{
    return s->backlog_n || cq_full(s);
}

void ring_task(struct sim_ring *s, struct list *task)
{
    list_append(&s->tasks, task);
    if (!s->dead)
        flag(s, IORING_SQ_TASKRUN, true);
}

/* ---- enter ------------------------------------------------------------------------------ */

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
        request_submit(s, &sqe);
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
            request_try(container_of(link, struct request, task));
    }
    flag(s, IORING_SQ_TASKRUN, !list_empty(&s->tasks));
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
    groups_look(s);
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

/* ---- setup, registration, end ----------------------------------------------------------- */

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
    case IORING_UNREGISTER_PBUF_RING:
        return group_unregister(s, reg);
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
    groups_free(s);
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
