#include "bus/bus.h"

#include <stdio.h>
#include <string.h>

/* What plugins may ask of a connection, and tell it. */

roda_conn_id roda_conn_getid(const struct roda_conn *c)
{
    return c->id;
}

struct roda_conn *roda_conn_find(struct roda_ctx *x, roda_conn_id id)
{
    struct roda_conn *c = net_find(context_of(x)->bus->net, id);

    return c && c->state != CONNECTION_GONE ? c : NULL;
}

void *roda_conn_data(struct roda_ctx *x, const struct roda_conn *c)
{
    uint32_t offset = c->settings->data_offsets[context_of(x)->instance];

    return offset == UINT32_MAX ? NULL : (char *)(uintptr_t)c->data + offset;
}

const void *roda_conn_conf(struct roda_ctx *x, const struct roda_conn *c)
{
    return c->settings->confs[context_of(x)->instance];
}

const struct roda_person *roda_conn_person(const struct roda_conn *c)
{
    return c->person;
}

void roda_conn_set_person(struct roda_conn *c, struct roda_person *person)
{
    roda_person_unref(c->person);
    c->person = person;
}

const struct sockaddr *roda_conn_peer(const struct roda_conn *c)
{
    static _Thread_local union address peer;
    socklen_t len;

    connection_peer(c, &peer, &len);
    return &peer.any;
}

static struct roda_str str(const char *text)
{
    return (struct roda_str){text, strlen(text)};
}

struct roda_str roda_conn_listener(const struct roda_conn *c)
{
    return str(c->settings->name);
}

struct roda_str roda_conn_protocol(const struct roda_conn *c)
{
    return str(c->settings->protocol->name);
}

struct roda_str roda_conn_transport(const struct roda_conn *c)
{
    static const char *const names[] =
        {[TRANSPORT_TCP] = "tcp", [TRANSPORT_UDP] = "udp", [TRANSPORT_UNIX] = "unix"};

    return str(names[c->settings->transport]);
}

void roda_conn_ask_deliver(struct roda_conn *c, int on)
{
    if (on)
        c->flags |= CONN_ASKS_DELIVER;
    else
        c->flags &= ~(uint32_t)CONN_ASKS_DELIVER;
}

void roda_conn_hold(struct roda_conn *c)
{
    connection_hold(c);
}

void roda_conn_release(struct roda_conn *c)
{
    connection_release(c);
}

void roda_conn_close(struct roda_conn *c, const char *fmt, ...)
{
    char reason[200];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(reason, sizeof reason, fmt, args);
    va_end(args);
    connection_close(c, reason);
}

/* ---- ready ------------------------------------------------------------------------------ */

struct ready_item {
    struct roda_item item;
    roda_conn_id id;
};

static void ready_run(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct ready_item *ready = (struct ready_item *)(void *)item;
    struct bus *bus = context_of(x)->bus;
    struct roda_conn *c = net_find(bus->net, ready->id);

    slab_heap_put(&bus->heap, &bus->batch, ready);
    for (uint32_t i = 0; result >= 0 && c && i < bus->stages[STAGE_READY].n; i++) {
        const struct hook *hook = &bus->stages[STAGE_READY].hooks[i];
        if (c->state != CONNECTION_OPEN)
            break;
        bus_enter(bus, hook->context->name, "ready");
        hook->report(&hook->context->public, c);
        bus_leave(bus);
    }
}

void roda_conn_ready(struct roda_conn *c)
{
    struct bus *bus = c->net->owner;
    struct ready_item *ready;

    if (c->flags & CONN_READY)
        return;
    c->flags |= CONN_READY;
    ready = slab_heap_get(&bus->heap, sizeof *ready);
    if (!ready) {
        connection_abort(c, "out of memory");
        return;
    }
    *ready = (struct ready_item){.item = {.run = ready_run}, .id = c->id};
    bus_post(bus, bus->worker, 0, &ready->item, false);
}
