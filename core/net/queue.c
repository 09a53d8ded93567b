#include "net/queue.h"

#include <errno.h>

#include "base/memory.h"
#include "net/out.h"

/*
 * The queue in order: oldest .. last_older (a list), then the newest entry in the connection
 * itself. A send in flight covers the first sending_bytes of it; entries may grow behind that,
 * since bytes once written to a chunk never move. A place is an entry without bytes; nothing
 * behind it is sent before it is gone, and pieces are inserted in front of it.
 */

void queue_mark_dirty(struct roda_conn *c)
{
    c->flags |= CONN_DIRTY;
    c->next_dirty = c->net->dirty;
    c->net->dirty = c;
}

void queue_mark_over(struct roda_conn *c)
{
    if (c->flags & CONN_OVER || c->state >= CONNECTION_CLOSING)
        return; /* when it is closed already, its link is in the list that ends it */
    c->flags |= CONN_OVER;
    list_remove(&c->link); /* whatever it waited for, this comes first */
    list_append(&c->net->over, &c->link);
}

static void fail(struct roda_conn *c)
{
    c->flags |= CONN_FAILED;
    queue_mark_over(c);
}

static void link_before(struct roda_conn *c, struct send_entry *next, struct send_entry *entry)
{
    struct send_entry *prev = next ? next->prev : c->last_older;

    entry->prev = prev;
    entry->next = next;
    if (prev)
        prev->next = entry;
    else
        c->oldest = entry;
    if (next)
        next->prev = entry;
    else
        c->last_older = entry;
}

static void unlink_entry(struct roda_conn *c, struct send_entry *entry)
{
    if (entry->prev)
        entry->prev->next = entry->next;
    else
        c->oldest = entry->next;
    if (entry->next)
        entry->next->prev = entry->prev;
    else
        c->last_older = entry->prev;
    chunk_unref(&c->net->chunks, entry->chunk);
    slab_put(&c->net->entries, entry);
}

static struct send_entry *entry_new(struct roda_conn *c, struct send_entry *before)
{
    struct send_entry *entry = slab_get(&c->net->entries);

    if (!entry)
        return NULL;
    *entry = (struct send_entry){0};
    link_before(c, before, entry);
    return entry;
}

/* Moves the newest entry to the list. */
static int retire_newest(struct roda_conn *c)
{
    if (!c->chunk)
        return 0;
    struct send_entry *entry = entry_new(c, NULL);
    if (!entry)
        return -ENOMEM;
    entry->chunk = c->chunk;
    entry->offset = c->offset;
    entry->length = c->length;
    c->chunk = NULL;
    c->offset = c->length = 0;
    return 0;
}

void queue_append_slow(struct roda_conn *c, struct chunk *chunk, uint32_t offset, uint32_t length)
{
    if (retire_newest(c)) {
        c->queued_bytes -= length; /* the caller counts it */
        fail(c);
        return;
    }
    c->chunk = chunk_ref(chunk);
    c->offset = offset;
    c->length = length;
}

unsigned queue_gather(const struct roda_conn *c, struct iovec pieces[SEND_PIECES],
                      uint32_t *ret_bytes)
{
    unsigned n = 0;
    uint32_t bytes = 0;

    for (const struct send_entry *entry = c->oldest;; entry = entry->next) {
        const struct chunk *chunk = entry ? entry->chunk : c->chunk;
        uint32_t offset = entry ? entry->offset : c->offset;
        uint32_t length = entry ? entry->length : c->length;
        if (!chunk || n == SEND_PIECES || bytes >= SEND_BYTES_MAX)
            break;
        if (length > SEND_BYTES_MAX - bytes)
            length = SEND_BYTES_MAX - bytes;
        pieces[n].iov_base = (char *)(uintptr_t)chunk->data + offset;
        pieces[n].iov_len = length;
        bytes += length;
        n++;
        if (!entry)
            break;
    }
    *ret_bytes = bytes;
    return n;
}

bool queue_sendable(const struct roda_conn *c)
{
    return c->oldest ? c->oldest->chunk != NULL : c->length > 0;
}

static void place_due(struct roda_place *place)
{
    if (!place->waiting && !list_linked(&place->link))
        list_append(&place->net->places, &place->link);
}

void queue_consume(struct roda_conn *c, uint32_t bytes)
{
    c->queued_bytes -= bytes;
    while (bytes && c->oldest) {
        struct send_entry *entry = c->oldest;
        uint32_t taken = bytes < entry->length ? bytes : entry->length;
        entry->offset += taken;
        entry->length -= taken;
        bytes -= taken;
        if (!entry->length)
            unlink_entry(c, entry);
    }
    if (bytes) {
        c->offset += bytes;
        c->length -= bytes;
    }
    if (!c->length && c->chunk) {
        chunk_unref(&c->net->chunks, c->chunk);
        c->chunk = NULL;
        c->offset = 0;
    }
    if (c->oldest && c->oldest->place)
        place_due(c->oldest->place);
}

static void place_cancel(struct roda_conn *c, struct roda_place *place)
{
    struct send_entry *entry = place->entry;

    place->conn = NULL;
    place->entry = NULL;
    place->waiting = false;
    unlink_entry(c, entry);
    if (!place->ended)
        place_due(place);
}

void queue_clear(struct roda_conn *c, uint32_t keep_bytes)
{
    uint32_t kept = 0;

    for (struct send_entry *entry = c->oldest, *next; entry; entry = next) {
        next = entry->next;
        if (entry->place) {
            place_cancel(c, entry->place);
        } else if (kept >= keep_bytes) {
            c->queued_bytes -= entry->length;
            unlink_entry(c, entry);
        } else {
            kept += entry->length;
        }
    }
    if (c->chunk && kept >= keep_bytes) {
        c->queued_bytes -= c->length;
        chunk_unref(&c->net->chunks, c->chunk);
        c->chunk = NULL;
        c->offset = c->length = 0;
    }
}

static struct chunk *compact_chunk(struct net *net, uint32_t length)
{
    if (!net->compact || chunk_space(net->compact) < length) {
        struct chunk *chunk = chunk_get(&net->chunks, length);
        if (!chunk)
            return NULL;
        chunk_unref(&net->chunks, net->compact);
        chunk->compacted = true;
        net->compact = chunk;
    }
    return net->compact;
}

static void compact_range(struct roda_conn *c, struct chunk **chunk, uint32_t *offset,
                          uint32_t length)
{
    struct chunk *to;

    if ((*chunk)->compacted)
        return; /* once is enough: what pins it now are laggards alone */
    /* What many share is cheaper where it is: if each of them copied his part, all parts together
     * would take more than the chunk. */
    if ((uint64_t)length * (*chunk)->references > (*chunk)->capacity / 2)
        return;
    to = compact_chunk(c->net, length);
    if (!to)
        return; /* it was an attempt to save memory; the bytes stay where they are */
    __builtin_memcpy(to->data + to->used, (*chunk)->data + *offset, length);
    chunk_ref(to);
    chunk_unref(&c->net->chunks, *chunk);
    *chunk = to;
    *offset = to->used;
    to->used += length;
    NET_COUNT(c->net, chunk_copies);
}

void queue_compact(struct roda_conn *c)
{
    uint32_t seen = 0;

    for (struct send_entry *entry = c->oldest; entry; entry = entry->next) {
        if (entry->chunk && seen >= c->sending_bytes)
            compact_range(c, &entry->chunk, &entry->offset, entry->length);
        seen += entry->length;
    }
    if (c->chunk && c->length && seen >= c->sending_bytes)
        compact_range(c, &c->chunk, &c->offset, c->length);
}

/* ---- places ----------------------------------------------------------------------------- */

int roda_place_new(struct roda_ctx *x, struct roda_conn *c, roda_done_fn *more, void *arg,
                   struct roda_place **ret_place)
{
    struct roda_place *place;

    if (c->state != CONNECTION_OPEN)
        return -EPIPE;
    place = memory_alloc(sizeof *place);
    if (!place)
        return -ENOMEM;
    if (retire_newest(c) || !(place->entry = entry_new(c, NULL))) {
        memory_free(place);
        return -ENOMEM;
    }
    place->entry->place = place;
    place->net = c->net;
    place->conn = c;
    place->ctx = x;
    place->more = more;
    place->arg = arg;
    list_append(&c->net->places, &place->link);
    *ret_place = place;
    return 0;
}

void roda_place_wait(struct roda_place *place)
{
    place->waiting = true;
}

void roda_place_wake(struct roda_place *place)
{
    place->waiting = false;
    if (!place->conn || place->conn->oldest == place->entry)
        place_due(place);
}

static void place_finish(struct roda_place *place)
{
    struct roda_conn *c = place->conn;

    list_remove(&place->link);
    if (c) {
        unlink_entry(c, place->entry);
        if (c->oldest && c->oldest->place)
            place_due(c->oldest->place); /* it was behind this one and could not go on */
        if (!(c->flags & (CONN_DIRTY | CONN_SENDING)))
            queue_mark_dirty(c); /* what waited behind it, or a polite close */
    }
    memory_free(place);
}

void roda_place_end(struct roda_place *place)
{
    if (place->running)
        place->ended = true;
    else
        place_finish(place);
}

void place_run(struct roda_place *place)
{
    list_remove(&place->link);
    if (!place->conn) {
        place->more(place->ctx, place->arg, -ECANCELED);
        memory_free(place);
        return;
    }
    place->running = true;
    place->more(place->ctx, place->arg, 0);
    place->running = false;
    if (place->ended)
        place_finish(place);
    else if (place->conn && place->conn->oldest == place->entry && !place->waiting)
        place_due(place); /* it wrote nothing and did not say it waits: ask again */
}
