#include "plugin/host.h"

#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/text.h"
#include "net/datagram.h"

/* What a plugin finds around it: time, chance, memory, text rules, the broker's messages, other
 * plugins' services. */

uint64_t roda_now_ms(struct roda_ctx *x)
{
    return context_of(x)->bus->now_ms;
}

int64_t roda_time_ns(struct roda_ctx *x)
{
    return context_of(x)->bus->time_ns;
}

void roda_random(struct roda_ctx *x, void *buf, size_t size)
{
    const struct system *system = context_of(x)->bus->ring->system;

    system->random(system->kernel, buf, size);
}

uint64_t roda_hash(struct roda_str bytes)
{
    return hash_bytes(bytes.ptr, bytes.len);
}

uint64_t roda_hash_stable(struct roda_str bytes)
{
    return hash_stable(bytes.ptr, bytes.len);
}

void *roda_alloc(struct roda_ctx *x, size_t size)
{
    (void)x;
    return memory_alloc(size);
}

void *roda_realloc(struct roda_ctx *x, void *ptr, size_t size)
{
    (void)x;
    return memory_realloc(ptr, size);
}

void roda_free(struct roda_ctx *x, void *ptr)
{
    (void)x;
    memory_free(ptr);
}

int roda_text_check(struct roda_str text, uint32_t rule)
{
    return text_check(text, rule);
}

int roda_text_fold(struct roda_str name, char *buf, size_t size)
{
    return text_fold(name, buf, size);
}

void roda_log(struct roda_ctx *x, uint32_t level, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    log_write_list(level, context_of(x)->name, fmt, args);
    va_end(args);
}

void roda_cookie(struct roda_ctx *x, const struct roda_peer *peer, uint64_t ret[2])
{
    datagram_cookie(context_of(x)->bus->net, peer, ret);
}

static bool declared(const struct roda_plugin *plugin, const char *id)
{
    size_t len = strlen(id);

    for (const char *const *need = plugin->needs; need && *need; need++)
        if (!strncmp(*need, id, len) && (!(*need)[len] || !strcmp(*need + len, "?")))
            return true;
    return false;
}

const void *roda_service(struct roda_ctx *x, const char *id, struct roda_ctx **ret_ctx)
{
    struct context *context = context_of(x);
    struct host *host = context->host;

    if (!context->bus || !declared(context->plugin, id))
        return NULL;
    for (uint32_t i = 0; i < host->n_plugins; i++) {
        struct host_plugin *p = &host->plugins[i];
        const struct roda_plugin *d = &p->loaded.plugin;
        const struct roda_service_table *service;
        for (size_t j = 0; (service = plugin_table_entry(d->services, d->service_size, j)); j++)
            if (!strcmp(service->id, id)) {
                if (ret_ctx)
                    *ret_ctx = &p->contexts[x->worker].public;
                return service->interface;
            }
    }
    return NULL;
}
