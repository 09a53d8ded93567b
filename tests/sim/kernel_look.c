#include <stdatomic.h>

#include "kernel_ring.h"

/*
 * What the test may ask: whose turn could be next, and what the engine has under way. Nothing here
 * changes anything but the look of sleeping (see kernel.h).
 */

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

/* ---- looking inside --------------------------------------------------------------------- */

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
