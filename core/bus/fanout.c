#include "bus/bus.h"

#include <errno.h>

#include "base/memory.h"

/*
 * The fan-out: a message is encoded once per (protocol, variant) on each worker with members, at
 * the end of that encoding's chunk; a member's queue gets (chunk, offset, length), which usually
 * continues what it has. Per member that is a few loads and stores in one cache line of the
 * connection: no allocation, lock, hash, format, clock or system call.
 *
 * A connection points to the encoding of its full variant. Only some bits of a variant matter to
 * a kind of message (the protocol's masks), so several encodings may stand for the same bytes:
 * then one of them encodes and the others borrow its result. An encoding that is only borrowed from
 * has no users; it goes with the next one that loses its last user.
 *
 * At most 16 encodings own a chunk; the rest share one. Otherwise clients with many odd variants
 * would pin a chunk each.
 */

#define CHUNKS_OWNED_MAX 16u
#define VARIANT_DATAGRAM (1u << 24) /* the upper 8 bits are the core's */
#define VARIANT_PLUGIN   0xffffffu

struct encoding {
    struct list link;
    const struct roda_protocol *protocol;
    struct context *context; /* of the protocol */
    uint32_t variant;
    uint32_t users;      /* connections */
    struct chunk *chunk; /* its own, if it owns one */
    bool owns;
    /* The current message's bytes, if serial is the bus's. */
    uint64_t serial;
    struct chunk *at;
    uint32_t offset, length;
    bool failed; /* no memory: whoever should get it is closed, since nothing is lost in silence */
};

static struct encoding *find(struct bus *bus, const struct roda_protocol *protocol,
                             uint32_t instance, uint32_t variant)
{
    struct encoding *e;

    for (struct list *node = bus->encodings.next; node != &bus->encodings; node = node->next) {
        e = container_of(node, struct encoding, link);
        if (e->protocol == protocol && e->variant == variant)
            return e;
    }
    e = memory_alloc(sizeof *e);
    if (!e)
        return NULL;
    e->protocol = protocol;
    e->context = bus->contexts[instance];
    e->variant = variant;
    if (bus->chunks_owned < CHUNKS_OWNED_MAX) {
        bus->chunks_owned++;
        e->owns = true;
    }
    list_append(&bus->encodings, &e->link);
    return e;
}

static void sweep(struct bus *bus)
{
    for (struct list *node = bus->encodings.next, *next; node != &bus->encodings; node = next) {
        struct encoding *e = container_of(node, struct encoding, link);
        next = node->next;
        if (e->users)
            continue;
        if (e->owns)
            bus->chunks_owned--;
        chunk_unref(&bus->net->chunks, e->chunk);
        list_remove(&e->link);
        memory_free(e);
    }
    bus->encode_serial++; /* what was borrowed may be gone */
}

static void release(struct bus *bus, struct encoding *e)
{
    if (!--e->users)
        sweep(bus);
}

static int attach(struct bus *bus, struct roda_conn *c, uint32_t variant)
{
    struct encoding *e;

    if (c->flags & CONN_DATAGRAM)
        variant |= VARIANT_DATAGRAM;
    e = find(bus, c->settings->protocol, c->settings->protocol_instance, variant);
    if (!e)
        return -ENOMEM;
    e->users++;
    fanout_detach(bus, c);
    c->encoding = e;
    return 0;
}

int fanout_attach(struct bus *bus, struct roda_conn *c)
{
    return attach(bus, c, 0);
}

void fanout_detach(struct bus *bus, struct roda_conn *c)
{
    if (c->encoding)
        release(bus, c->encoding);
    c->encoding = NULL;
}

void fanout_end_turn(struct bus *bus)
{
    roda_msg_unref(bus->encoded);
    bus->encoded = NULL;
}

void fanout_deinit(struct bus *bus)
{
    fanout_end_turn(bus);
    for (struct list *node = bus->encodings.next; node != &bus->encodings; node = node->next)
        container_of(node, struct encoding, link)->users = 0;
    sweep(bus);
    chunk_unref(&bus->net->chunks, bus->shared_chunk);
    bus->shared_chunk = NULL;
}

uint32_t roda_conn_variant(const struct roda_conn *c)
{
    return ((const struct encoding *)c->encoding)->variant & VARIANT_PLUGIN;
}

void roda_conn_set_variant(struct roda_conn *c, uint32_t variant)
{
    variant &= VARIANT_PLUGIN;
    if (variant != roda_conn_variant(c) && attach(c->net->owner, c, variant))
        connection_abort(c, "out of memory");
}

/* ---- encoding --------------------------------------------------------------------------- */

static void encode(struct bus *bus, struct encoding *e, const struct roda_msg *msg)
{
    struct chunk **chunk = e->owns ? &e->chunk : &bus->shared_chunk;
    bool datagram = e->variant & VARIANT_DATAGRAM;
    struct roda_out out;

    if (e->owns && *chunk && (*chunk)->references == 1) {
        (*chunk)->used = 0; /* no reader is behind: use the warm start again */
        (*chunk)->n_units = 0;
    }
    e->serial = bus->encode_serial;
    e->length = 0;
    e->failed = false;
    if (!e->owns && !*chunk) {
        *chunk = chunk_get(&bus->net->chunks, 1);
        if (!*chunk) {
            e->failed = true;
            return;
        }
        (*chunk)->counts_units = true; /* streams and datagrams share it */
    }
    out_begin(&out, bus->net, chunk, datagram, e->protocol->framing);
    bus_enter(bus, e->context->name, "encode");
    e->protocol->encode(&e->context->public, msg, e->variant & VARIANT_PLUGIN, &out);
    bus_leave(bus);
    BUS_COUNT(bus, encodes);
    (void)out_end(&out, &e->at, &e->offset, &e->length);
    e->failed = out.failed;
}

static void resolve(struct bus *bus, struct encoding *e, const struct roda_msg *msg)
{
    const uint32_t *masks = e->protocol->variant_masks;
    uint32_t mask = masks && msg->kind <= RODA_KIND_MAX ? masks[msg->kind] : VARIANT_PLUGIN;
    uint32_t variant = e->variant & (mask | ~VARIANT_PLUGIN);
    struct encoding *same = e;

    if (variant != e->variant) {
        same = find(bus, e->protocol, e->context->instance, variant);
        if (!same)
            same = e;
    }
    if (same->serial != bus->encode_serial)
        encode(bus, same, msg);
    if (same != e) {
        e->at = same->at;
        e->offset = same->offset;
        e->length = same->length;
        e->failed = same->failed;
        e->serial = same->serial;
    }
}

static void begin(struct bus *bus, struct roda_msg *msg)
{
    if (bus->encoded == msg)
        return; /* the same message again: its bytes are there */
    roda_msg_unref(bus->encoded);
    bus->encoded = roda_msg_ref(msg);
    bus->encode_serial++;
}

static bool deliver_passes(struct bus *bus, struct roda_conn *c, struct roda_msg *msg)
{
    struct event event;
    uint32_t index = 0;

    event_begin(&event, bus, c, msg, msg->text.len);
    filters_run(bus, STAGE_DELIVER, &index, &event);
    return event.decision.verdict == RODA_PASS;
}

/* Not for c, or nothing to send. */
static bool undelivered(struct roda_conn *c, const struct encoding *e)
{
    if (e->failed) {
        c->flags |= CONN_FAILED;
        queue_mark_over(c);
    }
    return false;
}

static inline bool deliver(struct bus *bus, struct roda_conn *c, struct roda_msg *msg)
{
    struct encoding *e;

    if (c->flags & (CONN_NO_DELIVERY | CONN_ASKS_DELIVER)) {
        if (c->flags & CONN_NO_DELIVERY || !deliver_passes(bus, c, msg))
            return false;
        begin(bus, msg); /* a filter may have sent something else */
    }
    e = c->encoding;
    if (e->serial != bus->encode_serial)
        resolve(bus, e, msg);
    if (!e->length)
        return undelivered(c, e);
    queue_append(c, e->at, e->offset, e->length);
    return true;
}

void roda_fanout(struct roda_ctx *x, struct roda_msg *msg, struct roda_conn *const *conns, size_t n)
{
    struct bus *bus = context_of(x)->bus;
    struct roda_conn *sender = msg->from ? net_find(bus->net, msg->from) : NULL;
    uint64_t delivered = 0;

    begin(bus, msg);
    for (size_t i = 0; i < n; i++)
        if (conns[i] != sender)
            delivered += deliver(bus, conns[i], msg);
    BUS_ADD(bus, deliveries, delivered);
    bus->appended += (uint32_t)n + 1;
}

void roda_send(struct roda_ctx *x, struct roda_conn *c, struct roda_msg *msg)
{
    struct bus *bus = context_of(x)->bus;

    begin(bus, msg);
    if (deliver(bus, c, msg))
        BUS_COUNT(bus, deliveries);
    bus->appended++;
}
