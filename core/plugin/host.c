#include "plugin/host.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

/*
 * Made in the main thread: load, conf, checks, order, init. The workers then start and stop their
 * own instances. Nothing here changes while workers run, so they read it without locks; what a
 * worker notes about its own starts (begun[], context.start_result) is read by no other.
 *
 * A start() that returns RODA_LATER holds up the plugins behind it on this worker until
 * roda_started(). stop() follows every start() that did not fail at once, whether it has ended or
 * not; a roda_started() that comes after that finds start_result 0 and does nothing.
 */

struct host_plugin *host_find(struct host *host, const char *name)
{
    for (uint32_t i = 0; i < host->n_plugins; i++)
        if (!strcmp(host->plugins[i].loaded.name, name))
            return &host->plugins[i];
    return NULL;
}

/* ---- loading ---------------------------------------------------------------------------- */

static int load_one(struct host *host, const char *name, const char *path, char *problem,
                    size_t size)
{
    struct host_plugin *plugin = &host->plugins[host->n_plugins];
    int r;

    if (host->n_plugins == HOST_PLUGINS_MAX) {
        (void)snprintf(problem, size, "more than %u plugins", HOST_PLUGINS_MAX);
        return -E2BIG;
    }
    r = plugin_load(name, path, host->conf->core.plugin_dir, &plugin->loaded, problem, size);
    if (r)
        return r;
    plugin->instance = ++host->n_plugins;
    return 0;
}

static void load_sections(struct host *host, struct roda_conf_errors *errors)
{
    char problem[512], section[80];

    for (size_t i = 0; i < host->conf->n_plugins; i++) {
        const struct conf_plugin *p = &host->conf->plugins[i];
        if (!p->enabled || !load_one(host, p->name, p->path, problem, sizeof problem))
            continue;
        (void)snprintf(section, sizeof section, "plugin %s", p->name);
        (void)conf_error_at(errors, host->conf, section, p->path[0] ? "path" : NULL, "%s", problem);
    }
}

const struct roda_protocol *host_protocol(const struct host *host, const char *name,
                                          uint32_t *ret_instance)
{
    for (uint32_t i = 0; i < host->n_plugins; i++) {
        const struct roda_plugin *p = &host->plugins[i].loaded.plugin;
        const struct roda_protocol *protocol;
        for (size_t j = 0; (protocol = plugin_table_entry(p->protocols, p->protocol_size, j)); j++)
            if (!strcmp(protocol->name, name)) {
                *ret_instance = i + 1;
                return protocol;
            }
    }
    return NULL;
}

/* A protocol that no section's plugin offers: the plugin of the same name may. */
static void load_protocols(struct host *host, struct roda_conf_errors *errors)
{
    const char *offered[HOST_PLUGINS_MAX];
    char problem[512], section[80], all[256] = "";
    size_t n = 0;
    uint32_t instance;

    for (size_t i = 0; i < host->conf->n_listeners; i++) {
        const char *name = host->conf->listeners[i].protocol;
        if (name && name[0] && !host_protocol(host, name, &instance) && !host_find(host, name))
            (void)load_one(host, name, "", problem, sizeof problem);
    }
    for (uint32_t i = 0; i < host->n_plugins; i++) {
        const struct roda_plugin *p = &host->plugins[i].loaded.plugin;
        const struct roda_protocol *protocol;
        for (size_t j = 0; (protocol = plugin_table_entry(p->protocols, p->protocol_size, j)) &&
                           n < HOST_PLUGINS_MAX;
             j++) {
            size_t used = strlen(all);
            (void)snprintf(all + used, sizeof all - used, "%s%s", n ? ", " : "", protocol->name);
            offered[n++] = protocol->name;
        }
    }
    for (size_t i = 0; i < host->conf->n_listeners; i++) {
        const struct conf_listener *l = &host->conf->listeners[i];
        if (!l->protocol || !l->protocol[0] || host_protocol(host, l->protocol, &instance))
            continue;
        (void)snprintf(section, sizeof section, "listener %s", l->name);
        (void)conf_error_near(errors, host->conf, section, "protocol", offered, n,
                              "no loaded plugin offers it (offered: %s)", n ? all : "none");
    }
}

/* ---- options and checks ----------------------------------------------------------------- */

static int fill_and_check(struct host *host, struct roda_conf_errors *errors)
{
    for (uint32_t i = 0; i < host->n_plugins; i++) {
        struct host_plugin *p = &host->plugins[i];
        const struct roda_plugin *d = &p->loaded.plugin;
        size_t before = conf_errors_count(errors, CONF_ERROR);
        int r = conf_plugin_fill(host->conf, p->loaded.name, d->options, d->option_size,
                                 d->conf_size, errors, &p->conf);
        if (r)
            return r;
        /* Not on values that are wrong by themselves; others' errors are no reason. */
        if (d->check && conf_errors_count(errors, CONF_ERROR) == before) {
            conf_errors_context(errors, host->conf, p->loaded.name, NULL);
            (void)d->check(p->conf, errors);
            conf_errors_context(errors, NULL, NULL, NULL);
        }
    }
    return 0;
}

/* ---- order ------------------------------------------------------------------------------ */

static struct host_plugin *offers(struct host *host, const char *id, size_t len)
{
    for (uint32_t i = 0; i < host->n_plugins; i++) {
        const struct roda_plugin *p = &host->plugins[i].loaded.plugin;
        const struct roda_service_table *service;
        for (size_t j = 0; (service = plugin_table_entry(p->services, p->service_size, j)); j++)
            if (strlen(service->id) == len && !memcmp(service->id, id, len))
                return &host->plugins[i];
    }
    return NULL;
}

enum mark { MARK_NEW, MARK_OPEN, MARK_DONE };

static int visit(struct host *host, uint32_t i, enum mark *marks, uint32_t *n,
                 struct roda_conf_errors *errors)
{
    struct host_plugin *p = &host->plugins[i];
    char section[80];

    if (marks[i] == MARK_DONE)
        return 0;
    (void)snprintf(section, sizeof section, "plugin %s", p->loaded.name);
    if (marks[i] == MARK_OPEN)
        return conf_error_at(errors, host->conf, section, NULL,
                             "needs a service that, in the end, needs this plugin itself");
    marks[i] = MARK_OPEN;
    for (const char *const *need = p->loaded.plugin.needs; need && *need; need++) {
        size_t len = strlen(*need);
        bool optional = len && (*need)[len - 1] == '?';
        struct host_plugin *other = offers(host, *need, len - optional);
        if (!other && !optional)
            (void)conf_error_at(errors, host->conf, section, NULL,
                                "needs the service \"%s\", which no loaded plugin offers; add the "
                                "[plugin] section of one that does",
                                *need);
        if (other && visit(host, other->instance - 1, marks, n, errors))
            return -EINVAL;
    }
    marks[i] = MARK_DONE;
    host->start_order[(*n)++] = i;
    return 0;
}

static int order(struct host *host, struct roda_conf_errors *errors)
{
    enum mark marks[HOST_PLUGINS_MAX] = {0};
    uint64_t owned[RODA_KIND_MAX + 1] = {0};
    uint32_t n = 0;
    char section[80];

    host->start_order = memory_alloc((host->n_plugins + 1) * sizeof *host->start_order);
    if (!host->start_order)
        return -ENOMEM;
    for (uint32_t i = 0; i < host->n_plugins; i++) {
        (void)visit(host, i, marks, &n, errors);
        for (uint32_t kind = 1; kind <= RODA_KIND_MAX; kind++) {
            if (!(host->plugins[i].loaded.plugin.kinds & RODA_KIND_BIT(kind)))
                continue;
            if (owned[kind]) {
                (void)snprintf(section, sizeof section, "plugin %s", host->plugins[i].loaded.name);
                (void)conf_error_at(errors, host->conf, section, NULL,
                                    "owns messages of kind %u, as plugin %s does; remove one", kind,
                                    host->plugins[owned[kind] - 1].loaded.name);
            }
            owned[kind] = i + 1;
        }
    }
    return 0;
}

int host_load(struct conf *conf, struct roda_conf_errors *errors, struct host **ret_host)
{
    struct host *host = memory_alloc(sizeof *host);
    int r;

    if (!host)
        return -ENOMEM;
    host->conf = conf;
    host->plugins = memory_alloc(HOST_PLUGINS_MAX * sizeof *host->plugins);
    if (!host->plugins) {
        memory_free(host);
        return -ENOMEM;
    }
    load_sections(host, errors);
    load_protocols(host, errors);
    r = fill_and_check(host, errors);
    if (!r)
        r = order(host, errors);
    if (r) {
        host_free(host);
        return r;
    }
    *ret_host = host;
    return 0;
}

/* ---- life ------------------------------------------------------------------------------- */

static int make_contexts(struct host *host, struct host_plugin *p)
{
    const struct roda_plugin *d = &p->loaded.plugin;

    while (plugin_table_entry(d->metrics, d->metric_size, p->n_metrics))
        p->n_metrics++;
    p->contexts = memory_alloc(host->n_workers * sizeof *p->contexts);
    p->metrics = memory_alloc((size_t)host->n_workers * (p->n_metrics + 1) * sizeof *p->metrics);
    if (!p->contexts || !p->metrics)
        return -ENOMEM;
    for (uint32_t w = 0; w < host->n_workers; w++) {
        struct context *context = &p->contexts[w];
        context->public.conf = p->conf;
        context->public.worker = w;
        context->public.n_workers = host->n_workers;
        context->plugin = d;
        context->name = p->loaded.name;
        context->instance = p->instance;
        context->metrics = p->metrics + (size_t)w * (p->n_metrics + 1);
        context->host = host;
        list_init(&context->timers);
        if (d->state_size && !(context->public.state = memory_alloc(d->state_size)))
            return -ENOMEM;
    }
    return 0;
}

int host_init(struct host *host, uint32_t n_workers, char *problem, size_t size)
{
    host->n_workers = n_workers;
    host->buses = memory_alloc(n_workers * sizeof *host->buses);
    host->begun = memory_alloc(n_workers * sizeof *host->begun);
    if (!host->buses || !host->begun) {
        (void)snprintf(problem, size, "out of memory");
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < host->n_plugins; i++)
        if (make_contexts(host, &host->plugins[i])) {
            (void)snprintf(problem, size, "out of memory");
            return -ENOMEM;
        }
    for (uint32_t i = 0; i < host->n_plugins; i++) {
        struct host_plugin *p = &host->plugins[host->start_order[i]];
        struct context main_context = p->contexts[0];
        int r = 0;
        main_context.public.state = NULL;
        if (p->loaded.plugin.init)
            r = p->loaded.plugin.init(&main_context.public);
        if (r) {
            (void)snprintf(problem, size, "plugin %s: its init failed: %s", p->loaded.name,
                           strerror(-r));
            return r;
        }
        p->initialised = true;
        p->shared = main_context.public.shared;
        for (uint32_t w = 0; w < n_workers; w++)
            p->contexts[w].public.shared = p->shared;
    }
    return 0;
}

static bool hook_of(const struct roda_plugin *p, enum stage stage, struct hook *hook)
{
    switch (stage) {
    case STAGE_ACCEPT:
        return (hook->filter = p->accept);
    case STAGE_INPUT:
        return (hook->filter = p->input);
    case STAGE_SUBMIT:
        return (hook->filter = p->submit);
    case STAGE_ADMIT:
        return (hook->filter = p->admit);
    case STAGE_PUBLISH:
        return (hook->filter = p->publish);
    case STAGE_DELIVER:
        return (hook->filter = p->deliver);
    case STAGE_OPENED:
        return (hook->report = p->opened);
    case STAGE_READY:
        return (hook->report = p->ready);
    case STAGE_CLOSED:
        return (hook->closed = p->closed);
    case STAGE_CHARGED:
        return (hook->charged = p->charged);
    default:
        return false;
    }
}

int host_attach(struct host *host, struct bus *bus)
{
    bus->contexts = memory_alloc((host->n_plugins + 1) * sizeof *bus->contexts);
    if (!bus->contexts)
        return -ENOMEM;
    bus->contexts[0] = &bus->core;
    bus->n_contexts = host->n_plugins + 1;
    bus->core.host = host;
    host->buses[bus->worker] = bus;
    for (uint32_t i = 0; i < host->n_plugins; i++) {
        struct context *context = &host->plugins[i].contexts[bus->worker];
        context->bus = bus;
        context->unstarted = true;
        bus->contexts[i + 1] = context;
        for (uint32_t kind = 1; kind <= RODA_KIND_MAX; kind++)
            if (host->plugins[i].loaded.plugin.kinds & RODA_KIND_BIT(kind))
                bus->owners[kind] = context;
    }
    for (int stage = 0; stage < STAGES; stage++) {
        struct hooks *hooks = &bus->stages[stage];
        hooks->hooks = memory_alloc((host->n_plugins + 1) * sizeof *hooks->hooks);
        if (!hooks->hooks)
            return -ENOMEM;
        for (uint32_t i = 0; i < host->n_plugins; i++) {
            struct hook hook = {.context = bus->contexts[i + 1]};
            if (hook_of(&host->plugins[i].loaded.plugin, (enum stage)stage, &hook))
                hooks->hooks[hooks->n++] = hook;
        }
        hooks->on = hooks->n;
    }
    return 0;
}

static struct context *in_order(const struct host *host, const struct bus *bus, uint32_t n)
{
    return &host->plugins[host->start_order[n]].contexts[bus->worker];
}

static int start_one(struct bus *bus, struct context *context)
{
    int r = 0;

    context->start_result = RODA_LATER;
    bus_enter(bus, context->name, "start");
    if (context->plugin->start)
        r = context->plugin->start(&context->public);
    bus_leave(bus);
    if (r != RODA_LATER)
        context->start_result = 0;
    return r;
}

int host_start(struct host *host, struct bus *bus, char *problem, size_t size)
{
    uint32_t *begun = &host->begun[bus->worker];
    struct context *context = NULL;
    int r = 0;

    if (*begun) {
        context = in_order(host, bus, *begun - 1);
        r = context->start_result;
    }
    while (!r && *begun < host->n_plugins) {
        context = in_order(host, bus, *begun);
        r = start_one(bus, context);
        if (r && r != RODA_LATER)
            break;
        ++*begun;
        context->unstarted = false;
        mailbox_run_early(bus, context);
        r = context->start_result;
    }
    if (!r || r == RODA_LATER)
        return r;
    (void)snprintf(problem, size, "plugin %s: its start failed: %s", context->name, strerror(-r));
    host_stop(host, bus);
    return r;
}

bool host_start_ready(const struct host *host, const struct bus *bus)
{
    uint32_t begun = host->begun[bus->worker];

    return !begun || in_order(host, bus, begun - 1)->start_result != RODA_LATER;
}

void roda_started(struct roda_ctx *x, int result)
{
    struct context *context = context_of(x);

    if (context->start_result == RODA_LATER)
        context->start_result = result < 0 ? result : 0;
}

void host_stop(struct host *host, struct bus *bus)
{
    uint32_t *begun = &host->begun[bus->worker];

    while (*begun) {
        struct context *context = in_order(host, bus, --*begun);
        context->start_result = 0;
        bus_enter(bus, context->name, "stop");
        if (context->plugin->stop)
            context->plugin->stop(&context->public);
        bus_leave(bus);
        timers_end(context);
    }
}

void host_reopen(struct host *host, struct bus *bus)
{
    for (uint32_t i = 0; i < host->begun[bus->worker]; i++) {
        struct context *context = in_order(host, bus, i);
        if (!context->plugin->reopen)
            continue;
        bus_enter(bus, context->name, "reopen");
        context->plugin->reopen(&context->public);
        bus_leave(bus);
    }
}

static void plugin_fini(struct host_plugin *p)
{
    if (!p->initialised || !p->contexts)
        return;
    struct context main_context = p->contexts[0];
    main_context.public.state = NULL;
    if (p->loaded.plugin.fini)
        p->loaded.plugin.fini(&main_context.public);
    p->initialised = false;
}

static void plugin_end(struct host *host, struct host_plugin *p)
{
    for (uint32_t w = 0; p->contexts && w < host->n_workers; w++)
        memory_free(p->contexts[w].public.state);
    memory_free(p->contexts);
    memory_free(p->metrics);
}

void host_free(struct host *host)
{
    if (!host)
        return;
    for (uint32_t i = host->n_plugins; host->start_order && i--;)
        plugin_fini(&host->plugins[host->start_order[i]]);
    for (uint32_t i = 0; i < host->n_plugins; i++)
        plugin_end(host, &host->plugins[i]);
    for (uint32_t i = 0; i < host->n_plugins; i++)
        plugin_unload(&host->plugins[i].loaded);
    memory_free(host->plugins);
    memory_free(host->start_order);
    memory_free(host->buses);
    memory_free(host->begun);
    memory_free(host);
}

/* ---- listeners -------------------------------------------------------------------------- */

/* A plugin serves a listener if anything of it may see one of its connections. */
static bool serves(const struct roda_plugin *p, bool offers_the_protocol)
{
    return offers_the_protocol || p->kinds || p->accept || p->input || p->submit || p->deliver ||
           p->opened || p->ready || p->closed || p->charged;
}

int host_layout(struct host *host, const struct conf_listener *listener,
                const struct roda_protocol *protocol, struct roda_conf_errors *errors,
                uint32_t **ret_offsets, const void ***ret_confs, uint32_t *ret_bytes)
{
    uint32_t *offsets = memory_alloc((host->n_plugins + 1) * sizeof *offsets), bytes = 0;
    const void **confs = memory_alloc((host->n_plugins + 1) * sizeof *confs);
    uint32_t instance = 0; /* of the protocol */
    int r = offsets && confs ? 0 : -ENOMEM;

    (void)host_protocol(host, protocol->name, &instance);
    for (uint32_t i = 0; !r && i < host->n_plugins; i++) {
        struct host_plugin *p = &host->plugins[i];
        const struct roda_plugin *d = &p->loaded.plugin;
        offsets[i + 1] = UINT32_MAX;
        if (d->conn_size && serves(d, instance == i + 1)) {
            offsets[i + 1] = bytes;
            bytes += (d->conn_size + 7u) & ~7u;
        }
        r = conf_listener_fill(host->conf, listener->name, p->loaded.name, errors, &confs[i + 1]);
        if (!r && confs[i + 1] != p->conf && d->check && conf_errors_result(errors) == 0) {
            conf_errors_context(errors, host->conf, p->loaded.name, listener->name);
            (void)d->check(confs[i + 1], errors);
            conf_errors_context(errors, NULL, NULL, NULL);
            r = conf_errors_result(errors);
        }
    }
    if (r) {
        memory_free(offsets);
        memory_free(confs);
        return r;
    }
    offsets[0] = UINT32_MAX;
    *ret_offsets = offsets;
    *ret_confs = confs;
    *ret_bytes = bytes;
    return 0;
}
