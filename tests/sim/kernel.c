#include "kernel.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_state.h"

/*
 * The middle of the fake kernel: the clock, chance, the descriptor table, eventfds and the pool.
 *
 * Everything that happens later is an event in one heap, ordered by time and, within a time, by
 * when it was scheduled. Nothing depends on addresses or on the real clock, so a seed replays.
 * Events run only in sim_advance_to() (and in an enter of a ring that may block), never below a
 * call of the engine: what a call causes shows later, as in life.
 *
 * Chance for the world and chance for the engine (system->random) come from two generators, so
 * that an engine that asks once more does not change the weather.
 */

#define DESCRIPTOR_FIRST 3u /* as if 0 to 2 were open */
#define POOL_JOBS_MAX    256u
#define START_NS         1000000000u
#define REALTIME_BASE_NS 1750000000000000000

void *must_alloc(size_t size)
{
    void *ptr = calloc(1, size ? size : 1);

    if (!ptr)
        abort();
    return ptr;
}

void *must_realloc(void *ptr, size_t size)
{
    ptr = realloc(ptr, size ? size : 1);
    if (!ptr)
        abort();
    return ptr;
}

/* ---- chance ----------------------------------------------------------------------------- */

static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t draw(struct sim_kernel *k, uint64_t bound)
{
    return bound ? next(&k->chance) % bound : 0;
}

uint64_t draw_between(struct sim_kernel *k, uint64_t low, uint64_t high)
{
    return high > low ? low + draw(k, high - low + 1) : low;
}

uint64_t sim_random(struct sim_kernel *k, uint64_t bound)
{
    return draw(k, bound);
}

void violation(struct sim_kernel *k, const char *format, ...)
{
    va_list arguments;

    if (k->violation[0])
        return;
    va_start(arguments, format);
    vsnprintf(k->violation, sizeof k->violation, format, arguments);
    va_end(arguments);
}

const char *sim_violation(const struct sim_kernel *k)
{
    return k->violation[0] ? k->violation : NULL;
}

/* ---- events ----------------------------------------------------------------------------- */

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->sequence < b->sequence;
}

static void heap_set(struct sim_kernel *k, size_t i, struct event *e)
{
    k->heap[i] = e;
    e->place = i + 1;
}

static void heap_up(struct sim_kernel *k, size_t i, struct event *e)
{
    for (; i && earlier(e, k->heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap_set(k, i, k->heap[(i - 1) / 2]);
    heap_set(k, i, e);
}

static void heap_down(struct sim_kernel *k, size_t i, struct event *e)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < k->heap_n && earlier(k->heap[child + 1], k->heap[child]))
            child++;
        if (child >= k->heap_n || !earlier(k->heap[child], e))
            break;
        heap_set(k, i, k->heap[child]);
        i = child;
    }
    heap_set(k, i, e);
}

void event_at(struct sim_kernel *k, struct event *e, uint64_t at,
              void (*fn)(struct sim_kernel *k, struct event *event))
{
    event_cancel(k, e);
    if (k->heap_n == k->heap_capacity) {
        k->heap_capacity = k->heap_capacity ? 2 * k->heap_capacity : 64;
        k->heap = must_realloc(k->heap, k->heap_capacity * sizeof *k->heap);
    }
    e->at = at < k->now ? k->now : at;
    e->sequence = k->sequence++;
    e->fn = fn;
    heap_up(k, k->heap_n++, e);
}

void event_cancel(struct sim_kernel *k, struct event *e)
{
    if (!e->place)
        return;
    size_t i = e->place - 1;
    struct event *last = k->heap[--k->heap_n];
    e->place = 0;
    if (last == e)
        return;
    if (i && earlier(last, k->heap[(i - 1) / 2]))
        heap_up(k, i, last);
    else
        heap_down(k, i, last);
}

uint64_t sim_now_ns(const struct sim_kernel *k)
{
    return k->now;
}

bool sim_advance_to(struct sim_kernel *k, uint64_t ns)
{
    if (ns == UINT64_MAX)
        return false;
    while (k->heap_n && k->heap[0]->at <= (ns > k->now ? ns : k->now)) {
        struct event *e = k->heap[0];
        event_cancel(k, e);
        if (e->at > k->now)
            k->now = e->at;
        e->fn(k, e);
    }
    if (ns > k->now)
        k->now = ns;
    return true;
}

/* ---- descriptors ------------------------------------------------------------------------ */

struct held *held_new(struct sim_kernel *k, enum held_kind kind)
{
    struct held *h = must_alloc(sizeof *h);

    h->kernel = k;
    h->references = 1;
    h->kind = kind;
    list_init(&h->requests);
    list_init(&h->socket.waiting);
    list_init(&h->socket.datagrams);
    list_append(&k->held, &h->link);
    return h;
}

void held_release(struct held *h)
{
    if (!h || --h->references)
        return;
    switch (h->kind) {
    case HELD_SOCKET:
        socket_gone(h);
        break;
    case HELD_FILE:
        file_gone(h);
        break;
    case HELD_RING:
    case HELD_EVENTFD:
    case HELD_DIRECTORY:
        break;
    }
    list_remove(&h->link);
    free(h);
}

unsigned descriptor_limit(const struct sim_kernel *k)
{
    return k->faults.descriptors ? k->faults.descriptors : 65536;
}

static unsigned lowest(const struct sim_kernel *k)
{
    unsigned fd = DESCRIPTOR_FIRST;

    while (fd < k->table_n && k->table[fd])
        fd++;
    return fd;
}

bool descriptor_available(const struct sim_kernel *k, unsigned limit)
{
    unsigned fd = lowest(k);

    return fd < limit && fd < descriptor_limit(k);
}

int descriptor_new(struct sim_kernel *k, struct held *h)
{
    unsigned fd = lowest(k);

    if (fd >= descriptor_limit(k))
        return -EMFILE;
    if (fd >= k->table_n) {
        unsigned n = k->table_n ? 2 * k->table_n : 64;
        k->table = must_realloc(k->table, n * sizeof *k->table);
        memset(k->table + k->table_n, 0, (n - k->table_n) * sizeof *k->table);
        k->table_n = n;
    }
    k->table[fd] = h;
    return (int)fd;
}

struct held *descriptor_get(const struct sim_kernel *k, int fd)
{
    return fd >= 0 && (unsigned)fd < k->table_n ? k->table[fd] : NULL;
}

struct held *socket_get(const struct sim_kernel *k, int fd, int *ret_error)
{
    struct held *h = descriptor_get(k, fd);

    if (!h)
        *ret_error = -EBADF;
    else if (h->kind != HELD_SOCKET)
        *ret_error = -ENOTSOCK;
    return h && h->kind == HELD_SOCKET ? h : NULL;
}

int descriptor_close(struct sim_kernel *k, int fd)
{
    struct held *h = descriptor_get(k, fd);

    if (!h)
        return -EBADF;
    k->table[fd] = NULL;
    held_release(h);
    return 0;
}

static int sim_close(void *kernel, int fd)
{
    int result = descriptor_close(kernel, fd);

    if (result < 0)
        violation(kernel, "close of descriptor %d, which is not open", fd);
    return result;
}

unsigned sim_descriptors(const struct sim_kernel *k)
{
    unsigned n = 0;

    for (unsigned fd = 0; fd < k->table_n; fd++)
        n += k->table[fd] != NULL;
    return n;
}

bool sim_descriptor_open(const struct sim_kernel *k, int fd)
{
    return descriptor_get(k, fd);
}

unsigned sim_files_held(const struct sim_kernel *k)
{
    unsigned n = 0;

    for (const struct list *at = k->held.next; at != &k->held; at = at->next)
        n++;
    return n;
}

/* ---- eventfds --------------------------------------------------------------------------- */

struct wake {
    struct event event;
    struct list link;
    struct held *held;
};

static void wake_arrives(struct sim_kernel *k, struct event *e)
{
    struct wake *wake = container_of(e, struct wake, event);

    (void)k;
    wake->held->counter++;
    held_wake(wake->held, WAKE_IN);
    list_remove(&wake->link);
    held_release(wake->held);
    free(wake);
}

static int sim_eventfd(void *kernel)
{
    struct held *h = held_new(kernel, HELD_EVENTFD);
    int fd = descriptor_new(kernel, h);

    if (fd < 0)
        held_release(h);
    return fd;
}

static void sim_eventfd_wake(void *kernel, int fd)
{
    struct sim_kernel *k = kernel;
    struct held *h = descriptor_get(k, fd);

    if (!h || h->kind != HELD_EVENTFD) {
        violation(k, "wake of descriptor %d, which is not an eventfd", fd);
        return;
    }
    if (!fault(k, k->faults.wake_delay)) {
        h->counter++;
        held_wake(h, WAKE_IN);
        return;
    }
    struct wake *wake = must_alloc(sizeof *wake);
    wake->held = held_keep(h);
    list_append(&k->wakes, &wake->link);
    event_at(k, &wake->event,
             k->now + draw_between(k, k->faults.delay_min_ns, k->faults.delay_max_ns),
             wake_arrives);
}

/* ---- time, chance, pool ----------------------------------------------------------------- */

static uint64_t sim_monotonic_ns(void *kernel)
{
    const struct sim_kernel *k = kernel;

    return k->now;
}

/* The caller sleeps and nobody else's turn can come: the world goes on around it. */
static void sim_pause(void *kernel, uint64_t until_ns)
{
    struct sim_kernel *k = kernel;

    if (until_ns > k->now)
        sim_advance_to(k, until_ns);
}

static int64_t sim_realtime_ns(void *kernel)
{
    const struct sim_kernel *k = kernel;

    return REALTIME_BASE_NS + (int64_t)k->now + k->realtime_offset;
}

void sim_step_realtime(struct sim_kernel *k, int64_t by_ns)
{
    k->realtime_offset += by_ns;
}

static void sim_random_bytes(void *kernel, void *buf, size_t size)
{
    struct sim_kernel *k = kernel;
    unsigned char *at = buf;

    while (size--)
        *at++ = (unsigned char)(next(&k->engine_chance) >> 56);
}

static void job_runs(struct sim_kernel *k, struct event *e)
{
    struct job *waiting = container_of(e, struct job, event);
    struct system_job *job = waiting->job;

    list_remove(&waiting->link);
    free(waiting);
    k->n_jobs--;
    job->work(job);
    job->finished(job);
}

static int sim_pool_submit(void *kernel, struct system_job *job)
{
    struct sim_kernel *k = kernel;

    if (k->n_jobs >= POOL_JOBS_MAX)
        return -EAGAIN;
    struct job *waiting = must_alloc(sizeof *waiting);
    job->next = NULL;
    waiting->job = job;
    list_append(&k->jobs, &waiting->link);
    k->n_jobs++;
    event_at(k, &waiting->event, k->now + disk_delay(k), job_runs);
    return 0;
}

unsigned sim_jobs_waiting(const struct sim_kernel *k)
{
    return k->n_jobs;
}

static void jobs_drop(struct sim_kernel *k)
{
    struct list *link;

    while ((link = list_pop(&k->jobs))) {
        struct job *waiting = container_of(link, struct job, link);
        event_cancel(k, &waiting->event);
        free(waiting);
    }
    k->n_jobs = 0;
}

static void wakes_drop(struct sim_kernel *k)
{
    struct list *link;

    while ((link = list_pop(&k->wakes))) {
        struct wake *wake = container_of(link, struct wake, link);
        event_cancel(k, &wake->event);
        held_release(wake->held);
        free(wake);
    }
}

/* ---- life ------------------------------------------------------------------------------- */

struct sim_kernel *sim_kernel_new(uint64_t seed, const struct sim_faults *faults)
{
    struct sim_kernel *k = must_alloc(sizeof *k);
    struct list *const lists[] = {&k->held,  &k->rings,   &k->pairs, &k->clients,
                                  &k->peers, &k->packets, &k->jobs,  &k->wakes};

    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        list_init(lists[i]);
    k->chance = seed;
    k->engine_chance = ~seed;
    k->now = START_NS;
    k->faults = faults ? *faults : sim_faults_none();
    k->system.kernel = k;
    k->system.close = sim_close;
    k->system.eventfd = sim_eventfd;
    k->system.eventfd_wake = sim_eventfd_wake;
    k->system.pause = sim_pause;
    k->system.monotonic_ns = sim_monotonic_ns;
    k->system.realtime_ns = sim_realtime_ns;
    k->system.random = sim_random_bytes;
    k->system.pool_submit = sim_pool_submit;
    rings_init(k);
    sockets_init(k);
    files_init(k);
    return k;
}

static void descriptors_drop(struct sim_kernel *k)
{
    for (unsigned fd = 0; fd < k->table_n; fd++)
        if (k->table[fd])
            descriptor_close(k, (int)fd);
}

void sim_process_kill(struct sim_kernel *k)
{
    jobs_drop(k);
    wakes_drop(k);
    streams_crash(k);
    rings_crash(k);
    descriptors_drop(k);
    datagrams_crash(k);
}

void sim_power_cut(struct sim_kernel *k)
{
    sim_process_kill(k);
    files_crash(k);
}

void sim_kernel_free(struct sim_kernel *k)
{
    if (!k)
        return;
    jobs_drop(k);
    wakes_drop(k);
    rings_free(k);
    descriptors_drop(k);
    clients_free(k);
    streams_free(k);
    datagrams_free(k);
    files_end(k);
    free(k->hosts);
    free(k->table);
    free(k->heap);
    free(k);
}

const struct system *sim_system(struct sim_kernel *k)
{
    return &k->system;
}

void sim_blocking_enter(struct sim_kernel *k, bool blocking)
{
    k->blocking = blocking;
}
