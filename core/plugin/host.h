#ifndef RODA_PLUGIN_HOST_H
#define RODA_PLUGIN_HOST_H
/*
 * All plugins of a broker: which are loaded, in which order they filter, start and stop, what they
 * offer each other, and their instance on every worker.
 *
 * Instance numbers: 0 is the core, then the [plugin] sections in their order, then what listeners
 * ask for without a section. Filters run by number; start follows the declared needs.
 */
#include <stdbool.h>

#include "bus/bus.h"
#include "conf/conf.h"
#include "plugin/load.h"

#define HOST_PLUGINS_MAX 200u
#define HOST_WORKERS_MAX 256u

struct host_plugin {
    struct loaded loaded;
    const void *conf;
    void *shared; /* what init() left in x->shared */
    uint32_t instance;
    bool initialised;
    struct context *contexts; /* one per worker, once workers are known */
    _Atomic int64_t *metrics; /* n_metrics per worker */
    uint32_t n_metrics;
};

struct host {
    struct conf *conf;
    struct host_plugin *plugins; /* by instance - 1 */
    uint32_t n_plugins;
    uint32_t *start_order; /* indices into plugins */
    uint32_t n_workers;
    struct bus **buses; /* per worker, for metrics; set by host_attach() */
    uint32_t *begun;    /* per worker: so many, in start order, have to be stopped */
};

/* Loads every enabled section's plugin and those that listeners need, fills their conf, runs
 * their checks, orders them. Errors go to errors; the host is usable if there were none. */
int host_load(struct conf *conf, struct roda_conf_errors *errors, struct host **ret_host);
/* [main]: contexts for n workers, then every init(), in start order. On failure: the sentence. */
int host_init(struct host *host, uint32_t n_workers, char *problem, size_t size);
/* [main]: gives bus its contexts, hooks and owners. */
int host_attach(struct host *host, struct bus *bus);
/* On the worker: every start(), in start order. RODA_LATER: one of them goes on; call this again
 * when host_start_ready() says so. On failure those that were begun are stopped. */
int host_start(struct host *host, struct bus *bus, char *problem, size_t size);
bool host_start_ready(const struct host *host, const struct bus *bus);
/* Reverse; ends timers. Whatever start() returned 0 or RODA_LATER is stopped. */
void host_stop(struct host *host, struct bus *bus);
void host_reopen(struct host *host, struct bus *bus); /* every reopen(), in start order */
/* [main]: every fini() in reverse, then the end of everything. NULL is a no-op. */
void host_free(struct host *host);

/* The protocol of that name and the instance that offers it; NULL: nobody. */
const struct roda_protocol *host_protocol(const struct host *host, const char *name,
                                          uint32_t *ret_instance);
/* For a listener: offsets of each instance's connection data (UINT32_MAX: none) and its conf.
 * Both arrays have n_plugins + 1 entries and are the caller's (memory_free). */
int host_layout(struct host *host, const struct conf_listener *listener,
                const struct roda_protocol *protocol, struct roda_conf_errors *errors,
                uint32_t **ret_offsets, const void ***ret_confs, uint32_t *ret_bytes);
struct host_plugin *host_find(struct host *host, const char *name);

/* metrics.c: every metric of core and plugins, from any thread. */
void host_metrics(struct host *host, roda_metric_fn *fn, void *arg);
/* timer.c */
void timers_end(struct context *context);

#endif
