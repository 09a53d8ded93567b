#include "net/net.h"

#include <errno.h>
#include <string.h>

#include "base/memory.h"
#include "net/connection.h"
#include "net/datagram.h"
#include "net/out.h"
#include "net/queue.h"

/*
 * The per-worker whole: the slot table, the receive buffers, and the parts of a turn that go over
 * connections. Lists decouple what happens inside a completion or a plugin's call from what is
 * reported about it: farewell, over, ended, places, resume, rearm.
 */

#define BUFFER_GROUP 1

static size_t slots_bytes(const struct net *net)
{
    return net->n_slots * sizeof *net->slots;
}

int net_init(struct net *net, struct ring *ring, struct wheel *wheel,
             const struct net_limits *limits, const struct net_hooks *hooks, void *owner,
             uint32_t worker, struct net_totals *totals)
{
    *net = (struct net){.ring = ring,
                        .wheel = wheel,
                        .system = ring->system,
                        .limits = limits,
                        .hooks = hooks,
                        .owner = owner,
                        .worker = worker,
                        .totals = totals,
                        .now_ms = 1,
                        .n_slots = limits->max_connections + NET_SPARE,
                        .free_slot = UINT32_MAX};
    net->slots = memory_map(slots_bytes(net)); /* pages come as slots are used */
    net->reply = memory_alloc(sizeof *net->reply);
    if (!net->slots || !net->reply) {
        net_deinit(net);
        return -ENOMEM;
    }
    chunk_pool_init(&net->chunks, &totals->pinned_bytes);
    slab_init(&net->entries, sizeof(struct send_entry));
    slab_init(&net->requests, sizeof(struct send_request));
    list_init(&net->resume);
    list_init(&net->rearm);
    list_init(&net->ended);
    list_init(&net->farewell);
    list_init(&net->places);
    list_init(&net->over);
    ring_on(ring, RING_RECV, connection_on_recv, net);
    ring_on(ring, RING_SEND, connection_on_send, net);
    ring_on(ring, RING_CANCEL, connection_on_cancel, net);
    ring_on(ring, RING_DATAGRAM_RECV, datagram_on_recv, net);
    ring_on(ring, RING_DATAGRAM_SEND, datagram_on_send, net);
    return 0;
}

void net_deinit(struct net *net)
{
    for (uint32_t i = 0; i < net->n_listeners; i++)
        datagram_free(&net->listeners[i]);
    memory_free(net->listeners);
    if (net->system) {
        chunk_unref(&net->chunks, net->replies);
        chunk_unref(&net->chunks, net->compact);
    }
    if (net->entries.object_size) {
        chunk_pool_deinit(&net->chunks);
        slab_deinit(&net->entries);
        slab_deinit(&net->requests);
    }
    if (net->slots)
        memory_unmap(net->slots, slots_bytes(net));
    if (net->buffer_ring)
        memory_unmap(net->buffer_ring, net->limits->receive_buffers * sizeof(struct io_uring_buf));
    if (net->buffer_memory)
        memory_unmap(net->buffer_memory,
                     (size_t)net->limits->receive_buffers * net->limits->receive_buffer_bytes);
    memory_free(net->reply);
    *net = (struct net){0};
}

/* ---- receive buffers -------------------------------------------------------------------- */

static void offer_buffer(struct net *net, uint16_t id)
{
    uint32_t mask = net->limits->receive_buffers - 1, size = net->limits->receive_buffer_bytes;
    struct io_uring_buf *buffer = &net->buffer_ring->bufs[net->buffer_tail & mask];

    buffer->addr = (uint64_t)(uintptr_t)(net->buffer_memory + (size_t)id * size);
    buffer->len = size;
    buffer->bid = id;
    net->buffer_tail++;
}

static void publish_buffers(struct net *net)
{
    __atomic_store_n(&net->buffer_ring->tail, net->buffer_tail, __ATOMIC_RELEASE);
}

int net_start(struct net *net)
{
    uint32_t n = net->limits->receive_buffers;
    struct io_uring_buf_reg registration = {.ring_entries = n, .bgid = BUFFER_GROUP};
    int r;

    net->buffer_ring = memory_map(n * sizeof(struct io_uring_buf));
    net->buffer_memory = memory_map((size_t)n * net->limits->receive_buffer_bytes);
    if (!net->buffer_ring || !net->buffer_memory)
        return -ENOMEM;
    registration.ring_addr = (uint64_t)(uintptr_t)net->buffer_ring;
    r = net->system->ring_register(net->system->kernel, net->ring, IORING_REGISTER_PBUF_RING,
                                   &registration, 1);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < n; i++)
        offer_buffer(net, (uint16_t)i);
    publish_buffers(net);
    return 0;
}

char *net_buffer(struct net *net, uint32_t flags)
{
    size_t id = flags >> IORING_CQE_BUFFER_SHIFT;

    return net->buffer_memory + id * net->limits->receive_buffer_bytes;
}

void net_buffer_back(struct net *net, uint32_t flags)
{
    offer_buffer(net, (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT));
}

/* ---- slots ------------------------------------------------------------------------------ */

struct roda_conn *net_find(struct net *net, roda_conn_id id)
{
    uint32_t index = (uint32_t)(id >> 32) & 0xffffffu;
    struct roda_conn *c;

    if (RODA_CONN_WORKER(id) != net->worker || index >= net->n_slots)
        return NULL;
    c = net->slots[index].conn;
    return c && c->id == id ? c : NULL;
}

static void remove_dirty(struct net *net, struct roda_conn *c)
{
    struct roda_conn **link = &net->dirty;

    while (*link && *link != c)
        link = &(*link)->next_dirty;
    if (*link)
        *link = c->next_dirty;
}

void net_free(struct net *net, struct roda_conn *c)
{
    uint32_t index = connection_slot(c);

    if (c->flags & CONN_DIRTY)
        remove_dirty(net, c);
    list_remove(&c->link);
    memory_free(c->reason);
    net->slots[index].conn = NULL;
    net->slots[index].next_free = net->free_slot;
    net->free_slot = index;
    memory_free(c);
}

/* ---- the parts of a turn ---------------------------------------------------------------- */

void net_places(struct net *net)
{
    struct list todo;

    list_init(&todo);
    list_take(&todo, &net->places);
    for (struct list *node; (node = list_first(&todo));)
        place_run(container_of(node, struct roda_place, link));
}

static void say_farewells(struct net *net)
{
    for (struct list *node; (node = list_pop(&net->farewell));) {
        struct roda_conn *c = container_of(node, struct roda_conn, link);
        bool said = net->hooks->closing(net->owner, c, c->reason ? c->reason : "closed",
                                        c->flags & CONN_TOLD);
        if (said)
            c->flags |= CONN_TOLD;
        if (c->state != CONNECTION_FLUSHING)
            continue;
        if (said && queue_empty(c))
            connection_step(c);
        else
            connection_linger(c);
    }
}

void net_farewell(struct roda_conn *c)
{
    if (c->state == CONNECTION_FLUSHING && !list_linked(&c->link))
        list_append(&c->net->farewell, &c->link);
}

/* It was over its limit and is not closed: back to what it waited for. */
static void spared(struct roda_conn *c)
{
    if (c->state == CONNECTION_OPEN)
        connection_resume(c);
    else if (c->state == CONNECTION_FLUSHING)
        list_append(&c->net->farewell, &c->link);
}

static void close_over_full(struct net *net)
{
    for (struct list *node; (node = list_pop(&net->over));) {
        struct roda_conn *c = container_of(node, struct roda_conn, link);
        c->flags &= ~(uint32_t)CONN_OVER;
        if (c->state >= CONNECTION_CLOSING)
            continue;
        if (c->flags & CONN_FAILED) {
            NET_COUNT(net, connections_closed_memory);
            connection_abort(c, "out of memory");
        } else if (c->queued_bytes > c->limit_bytes) {
            if (c->flags & CONN_DATAGRAM) {
                NET_COUNT(net, datagrams_dropped);
                queue_clear(c, 0);
                spared(c);
                continue;
            }
            NET_COUNT(net, connections_closed_slow);
            connection_abort(c, "reads too slowly: send_queue is full");
        } else {
            spared(c);
        }
    }
}

static struct roda_conn *fullest(struct net *net)
{
    struct roda_conn *most = NULL;

    for (uint32_t i = 0; i < net->used_slots; i++) {
        struct roda_conn *c = net->slots[i].conn;
        if (c && c->state < CONNECTION_CLOSING && (!most || c->queued_bytes > most->queued_bytes))
            most = c;
    }
    return most && most->queued_bytes ? most : NULL;
}

static bool over_total(const struct net *net)
{
    return net->chunks.pinned_bytes > net->limits->send_queues_share &&
           __atomic_load_n((uint64_t *)&net->totals->pinned_bytes, __ATOMIC_RELAXED) >
               net->limits->send_queues_bytes;
}

/* Connections whose oldest bytes have waited for a second or more pin chunks that everybody else
 * is done with: their bytes move together. */
static void compact_laggards(struct net *net)
{
    if (net->now_ms < net->compacted_ms + 100)
        return;
    net->compacted_ms = net->now_ms;
    for (uint32_t i = 0; i < net->used_slots; i++) {
        struct roda_conn *c = net->slots[i].conn;
        if (c && (c->flags & CONN_SENDING) && (uint32_t)net->now_ms - c->progress_ms >= 1000)
            queue_compact(c);
    }
}

void net_pressure(struct net *net)
{
    say_farewells(net);
    close_over_full(net);
    if (net->chunks.pinned_bytes <= net->limits->send_queues_share / 2)
        return;
    compact_laggards(net);
    for (unsigned closed = 0; over_total(net) && closed < 16; closed++) {
        struct roda_conn *c = fullest(net);
        if (!c)
            break;
        NET_COUNT(net, connections_closed_shed);
        connection_abort(c, "reads too slowly: all send queues together reached "
                            "send_queues_total, and this was the fullest");
    }
}

void net_report_ended(struct net *net)
{
    for (struct list *node; (node = list_pop(&net->ended));)
        net->hooks->gone(net->owner, container_of(node, struct roda_conn, link));
}

void net_rearm(struct net *net)
{
    struct list todo;
    uint32_t budget = net->limits->receive_buffers / 4;

    if (net->buffer_ring)
        publish_buffers(net);
    list_init(&todo);
    list_take(&todo, &net->rearm);
    for (struct list *node; budget && (node = list_pop(&todo)); budget--)
        connection_arm_recv(container_of(node, struct roda_conn, link));
    list_take(&net->rearm, &todo);
    for (uint32_t i = 0; i < net->n_listeners; i++)
        listener_arm(&net->listeners[i]);
}

bool net_busy(const struct net *net)
{
    return net->dirty || !list_empty(&net->resume) || !list_empty(&net->rearm) ||
           !list_empty(&net->places) || !list_empty(&net->over) || !list_empty(&net->farewell) ||
           !list_empty(&net->ended);
}

void net_gauges(struct net *net)
{
    __atomic_store_n((uint64_t *)&net->counters.pinned_bytes, net->chunks.pinned_bytes,
                     __ATOMIC_RELAXED);
}

/* ---- shutdown --------------------------------------------------------------------------- */

void net_stop_accept(struct net *net)
{
    for (uint32_t i = 0; i < net->n_listeners; i++)
        if (net->listeners[i].address->settings->transport != TRANSPORT_UDP)
            listener_close(&net->listeners[i]);
}

void net_stop_input(struct net *net)
{
    net->stopping = true;
    for (uint32_t i = 0; i < net->n_listeners; i++)
        listener_close(&net->listeners[i]);
    for (uint32_t i = 0; i < net->used_slots; i++) {
        struct roda_conn *c = net->slots[i].conn;
        if (c && c->state == CONNECTION_OPEN)
            connection_hold(c);
    }
}

void net_close_all(struct net *net, const char *reason)
{
    for (uint32_t i = 0; i < net->used_slots; i++)
        if (net->slots[i].conn)
            connection_close(net->slots[i].conn, reason);
}

void net_abort_all(struct net *net)
{
    for (uint32_t i = 0; i < net->used_slots; i++)
        if (net->slots[i].conn)
            connection_abort(net->slots[i].conn, "the broker stops");
}
