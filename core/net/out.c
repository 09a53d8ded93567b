#include "net/out.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

/*
 * Bytes go to the end of a chunk and never move once a queue points to them. A reply is appended
 * to its connection's queue as it grows (streams) or unit by unit (datagrams, which must not be
 * split); an encoding is moved to a fresh chunk when the current one is too full for it, which is
 * safe as long as it was not handed out.
 */

void out_begin(struct roda_out *out, struct net *net, struct chunk **chunk, bool datagram,
               uint32_t framing)
{
    uint32_t at = *chunk ? (*chunk)->used : 0;

    *out = (struct roda_out){.net = net,
                             .chunk = chunk,
                             .start = at,
                             .unit_start = at,
                             .framing = framing,
                             .datagram = datagram,
                             .limit = datagram ? OUT_DATAGRAM_BYTES - 1 : SIZE_MAX};
}

bool out_end(struct roda_out *out, struct chunk **ret_chunk, uint32_t *ret_offset,
             uint32_t *ret_length)
{
    struct chunk *chunk = *out->chunk;

    if (out->failed && chunk) {
        chunk->used = out->start;
        while (chunk->n_units && chunk->units[chunk->n_units - 1] > chunk->used)
            chunk->n_units--;
    }
    if (out->failed || !chunk || chunk->used == out->start)
        return false;
    *ret_chunk = chunk;
    *ret_offset = out->start;
    *ret_length = chunk->used - out->start;
    return true;
}

void out_fixed(struct roda_out *out, char *memory, size_t size)
{
    *out = (struct roda_out){.fixed = memory, .fixed_size = size, .limit = size};
}

/* From here on bytes may not move: streams' replies are queued as they come. */
static uint32_t movable_from(const struct roda_out *out)
{
    if (!out->conn)
        return out->start;
    return out->datagram ? out->unit_start : (*out->chunk)->used;
}

static bool ensure(struct roda_out *out, size_t n)
{
    struct chunk *old = *out->chunk, *fresh;
    uint32_t from, moved;

    if (out->failed)
        return false;
    if (old && chunk_space(old) >= n)
        return true;
    from = old ? movable_from(out) : 0;
    moved = old ? old->used - from : 0;
    fresh = n > UINT32_MAX / 4 ? NULL : chunk_get(&out->net->chunks, moved + n);
    if (!fresh) {
        out->failed = true;
        if (out->conn) {
            out->conn->flags |= CONN_FAILED;
            queue_mark_over(out->conn);
        }
        return false;
    }
    fresh->counts_units = old ? old->counts_units : out->datagram;
    if (old) {
        memcpy(fresh->data, old->data + from, moved);
        if (fresh->counts_units) /* units inside what moves: only encodings have them */
            for (uint32_t i = 0; i < old->n_units; i++)
                if (old->units[i] > from) {
                    fresh->used = old->units[i] - from;
                    if (chunk_end_unit(fresh))
                        out->failed = true;
                }
        while (old->n_units && old->units[old->n_units - 1] > from)
            old->n_units--;
        old->used = from;
    }
    fresh->used = moved;
    out->unit_start = out->unit_start >= from ? out->unit_start - from : 0;
    out->start = 0;
    chunk_unref(&out->net->chunks, old);
    *out->chunk = fresh;
    return !out->failed;
}

static void queue_piece(struct roda_out *out, uint32_t offset, uint32_t length)
{
    struct roda_conn *c = out->conn;
    struct chunk *chunk = *out->chunk;

    if (!out->place) {
        queue_append(c, chunk, offset, length);
        return;
    }
    struct send_entry *place = out->place->entry, *last = place->prev;
    if (last && last->chunk == chunk && last->offset + last->length == offset) {
        last->length += length;
    } else {
        struct send_entry *entry = slab_get(&out->net->entries);
        if (!entry) {
            out->failed = true;
            c->flags |= CONN_FAILED;
            queue_mark_over(c);
            return;
        }
        *entry = (struct send_entry){.prev = last,
                                     .next = place,
                                     .chunk = chunk_ref(chunk),
                                     .offset = offset,
                                     .length = length};
        place->prev = entry;
        if (last)
            last->next = entry;
        else
            c->oldest = entry;
    }
    c->queued_bytes += length;
    if (!(c->flags & (CONN_DIRTY | CONN_SENDING)))
        queue_mark_dirty(c);
}

void roda_out_put(struct roda_out *out, struct roda_str bytes)
{
    struct chunk *chunk;

    if (out->fixed) {
        size_t n = out->fixed_size - out->fixed_len;
        n = bytes.len < n ? bytes.len : n;
        memcpy(out->fixed + out->fixed_len, bytes.ptr, n);
        out->fixed_len += n;
        return;
    }
    if (!out->chunk || !bytes.len || !ensure(out, bytes.len))
        return;
    chunk = *out->chunk;
    memcpy(chunk->data + chunk->used, bytes.ptr, bytes.len);
    chunk->used += (uint32_t)bytes.len;
    if (out->conn && !out->datagram)
        queue_piece(out, chunk->used - (uint32_t)bytes.len, (uint32_t)bytes.len);
}

void roda_out_printf(struct roda_out *out, const char *fmt, ...)
{
    char small[512];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(small, sizeof small, fmt, args);
    va_end(args);
    if (n < 0)
        return;
    if ((size_t)n < sizeof small || out->fixed) {
        size_t len = (size_t)n < sizeof small ? (size_t)n : sizeof small - 1;
        roda_out_put(out, (struct roda_str){small, len});
        return;
    }
    if (!out->chunk || !ensure(out, (size_t)n + 1))
        return;
    struct chunk *chunk = *out->chunk;
    va_start(args, fmt);
    (void)vsnprintf(chunk->data + chunk->used, (size_t)n + 1, fmt, args);
    va_end(args);
    chunk->used += (uint32_t)n;
    if (out->conn && !out->datagram)
        queue_piece(out, chunk->used - (uint32_t)n, (uint32_t)n);
}

void roda_out_unit(struct roda_out *out)
{
    struct chunk *chunk;

    if (out->datagram && !out->fixed && out->chunk && *out->chunk && !out->failed) {
        chunk = *out->chunk;
        size_t length = chunk->used - out->unit_start;
        if (length > out->limit) /* the protocol should have cut it, and said so */
            chunk->used =
                out->unit_start + (uint32_t)text_cut(chunk->data + out->unit_start, out->limit);
    }
    if (out->framing == RODA_LINES)
        roda_out_put(out, (struct roda_str){"\n", 1});
    if (out->fixed || out->failed || !out->chunk || !*out->chunk)
        return;
    chunk = *out->chunk;
    if (chunk->counts_units && chunk_end_unit(chunk)) {
        out->failed = true;
        if (out->conn) {
            out->conn->flags |= CONN_FAILED;
            queue_mark_over(out->conn);
        }
        return;
    }
    if (out->conn && out->datagram && chunk->used > out->unit_start)
        queue_piece(out, out->unit_start, chunk->used - out->unit_start);
    out->unit_start = chunk->used;
}

size_t roda_out_limit(const struct roda_out *out)
{
    return out->limit;
}

static struct roda_out *reply_to(struct roda_conn *c, struct roda_place *place)
{
    struct net *net = c->net;
    struct roda_out *out = net->reply;
    bool datagram = c->flags & CONN_DATAGRAM;

    if (net->replies && datagram && chunk_space(net->replies) < OUT_DATAGRAM_BYTES) {
        chunk_unref(&net->chunks, net->replies);
        net->replies = NULL;
    }
    if (!net->replies) {
        net->replies = chunk_get(&net->chunks, 1);
        if (net->replies)
            net->replies->counts_units = true; /* streams and datagrams share it */
    }
    out_begin(out, net, &net->replies, datagram, c->settings->protocol->framing);
    out->conn = c;
    out->place = place;
    if (!net->replies) {
        out->failed = true;
        c->flags |= CONN_FAILED;
        queue_mark_over(c);
    }
    if (c->state >= CONNECTION_LINGERING)
        out->failed = true; /* nobody will read it */
    return out;
}

struct roda_out *roda_conn_out(struct roda_conn *c)
{
    return reply_to(c, NULL);
}

struct roda_out *roda_place_out(struct roda_place *place)
{
    if (place->conn)
        return reply_to(place->conn, place);
    out_fixed(place->net->reply, NULL, 0);
    return place->net->reply;
}
