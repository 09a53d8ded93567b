#include "plugin/host.h"

#include <stddef.h>

/* Counters have one writer each and any number of readers: relaxed loads and stores. */

struct core_metric {
    struct roda_metric metric;
    enum { OF_NET, OF_BUS, OF_RING } of;
    size_t offset;
};

#define RING_COUNTERS(X)                                                                           \
    X(enters, "system calls into the ring")                                                        \
    X(waits, "enters that may sleep")                                                              \
    X(sqes, "requests submitted")                                                                  \
    X(cqes, "completions taken")                                                                   \
    X(timeouts, "enters that ended by their timeout")                                              \
    X(interrupted, "enters that a signal ended")                                                   \
    X(busy, "enters the kernel could not serve at once")                                           \
    X(overflows, "turns with a completion queue that overflowed")                                  \
    X(sq_full, "times the submission queue was full")                                              \
    X(stale, "completions for what is gone: a bug if not 0")                                       \
    X(wakes_sent, "wake-ups sent to this worker")                                                  \
    X(wakes_received, "wake-ups taken")

static const struct core_metric core_metrics[] = {
#define X(field, text)                                                                             \
    {{#field "_total", RODA_COUNTER, text}, OF_NET, offsetof(struct net_counters, field)},
    NET_COUNTERS(X)
#undef X
        {{"connections", RODA_GAUGE, "connections open now"},
         OF_NET,
         offsetof(struct net_counters, connections)},
    {{"pinned_bytes", RODA_GAUGE, "memory that send queues keep"},
     OF_NET,
     offsetof(struct net_counters, pinned_bytes)},
#define X(field, text)                                                                             \
    {{#field "_total", RODA_COUNTER, text}, OF_BUS, offsetof(struct bus_counters, field)},
    BUS_COUNTERS(X)
#undef X
        {{"under_way", RODA_GAUGE, "messages under way to their home"},
         OF_BUS,
         offsetof(struct bus_counters, under_way)},
    {{"lanes_length", RODA_GAUGE, "events inside lanes"},
     OF_BUS,
     offsetof(struct bus_counters, lanes_length)},
#define X(field, text)                                                                             \
    {{"ring_" #field "_total", RODA_COUNTER, text}, OF_RING, offsetof(struct ring_counters, field)},
    RING_COUNTERS(X)
#undef X
};

static int64_t read_core(const struct core_metric *m, const struct bus *bus)
{
    const char *base = m->of == OF_NET   ? (const char *)&bus->net->counters
                       : m->of == OF_BUS ? (const char *)&bus->counters
                                         : (const char *)&bus->ring->counters;

    return (int64_t)__atomic_load_n((const uint64_t *)(const void *)(base + m->offset),
                                    __ATOMIC_RELAXED);
}

void host_metrics(struct host *host, roda_metric_fn *fn, void *arg)
{
    for (size_t i = 0; i < sizeof core_metrics / sizeof *core_metrics; i++)
        for (uint32_t w = 0; w < host->n_workers; w++)
            if (host->buses[w])
                fn(arg, &core_metrics[i].metric, "core", w,
                   read_core(&core_metrics[i], host->buses[w]));
    for (uint32_t i = 0; i < host->n_plugins; i++) {
        struct host_plugin *p = &host->plugins[i];
        const struct roda_plugin *d = &p->loaded.plugin;
        for (uint32_t m = 0; m < p->n_metrics; m++)
            for (uint32_t w = 0; w < host->n_workers; w++)
                fn(arg, plugin_table_entry(d->metrics, d->metric_size, m), p->loaded.name, w,
                   __atomic_load_n((int64_t *)&p->contexts[w].metrics[m], __ATOMIC_RELAXED));
    }
}

void roda_count(struct roda_ctx *x, uint32_t index, int64_t n)
{
    int64_t *value = (int64_t *)&context_of(x)->metrics[index];

    __atomic_store_n(value, __atomic_load_n(value, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

void roda_metrics_read(struct roda_ctx *x, roda_metric_fn *fn, void *arg)
{
    host_metrics(context_of(x)->host, fn, arg);
}
