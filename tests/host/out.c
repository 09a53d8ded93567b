#include "inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Send queues. A queue is a list of entries: bytes, or a place with the piece that was written
 * before it. What is in front of the first unfinished place is taken by the client at the end of
 * each turn, unless it has stopped reading. A place's more() runs at the end of a turn when its
 * last piece is taken and less than half of send_queue waits before it.
 */

#define DATAGRAM_BYTES 1200u

void out_begin(struct roda_out *out, struct bytes *to, const struct listener *l, bool datagram,
               struct roda_conn *c)
{
    *out = (struct roda_out){.to = to,
                             .unit_start = to->n_ends ? to->ends[to->n_ends - 1] : 0,
                             .limit = datagram ? DATAGRAM_BYTES - 1 : SIZE_MAX,
                             .framing = l->protocol->framing,
                             .conn = c};
}

static bool out_may(struct roda_out *out)
{
    struct testhost *h = host_current;

    if (out->conn && out != h->out)
        complain(h, "writes to an out that is no longer valid");
    if (out->failed)
        return false;
    h->allocations++;
    if (!h->fail_at || --h->fail_at)
        return true;
    out->failed = true;
    if (out->conn)
        conn_close(out->conn, "out of memory", false);
    return false;
}

void roda_out_put(struct roda_out *out, struct roda_str bytes)
{
    if (bytes.len && out_may(out))
        bytes_put(out->to, bytes.ptr, bytes.len);
}

void roda_out_printf(struct roda_out *out, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    char *text = formatted(fmt, args);
    va_end(args);
    roda_out_put(out, (struct roda_str){text, strlen(text)});
    free(text);
}

void roda_out_unit(struct roda_out *out)
{
    size_t start = out->to->n_ends ? out->to->ends[out->to->n_ends - 1] : 0;

    if (out->failed)
        return;
    if (out->to->len - start > out->limit) {
        size_t len = out->limit;
        while (len && ((unsigned char)out->to->data[start + len] & 0xc0) == 0x80)
            len--;
        out->to->len = start + len;
    }
    if (out->framing == RODA_LINES) {
        if (memchr(out->to->data ? out->to->data + start : "", '\n', out->to->len - start))
            complain(host_current, "a line end inside a unit");
        bytes_put(out->to, "\n", 1);
    }
    bytes_end_unit(out->to);
}

size_t roda_out_limit(const struct roda_out *out)
{
    return out->limit;
}

/* ---- the queue of a connection ---------------------------------------------------------- */

static struct entry *entry_new(struct roda_conn *c, struct roda_place *place)
{
    struct entry *e = get(sizeof *e);

    e->place = place;
    list_append(&c->queue, &e->link);
    return e;
}

/* Bytes go to the last entry, unless that is a place. */
static struct bytes *tail_of(struct roda_conn *c)
{
    struct entry *last =
        list_empty(&c->queue) ? NULL : container_of(c->queue.prev, struct entry, link);

    if (!last || last->place)
        last = entry_new(c, NULL);
    return &last->bytes;
}

/* Whether the bytes end with a whole unit, where the protocol makes units. */
static bool whole(const struct bytes *b, const struct roda_conn *c)
{
    return c->listener->protocol->framing != RODA_LINES || !b->len ||
           (b->n_ends && b->ends[b->n_ends - 1] == b->len);
}

static void bytes_append(struct bytes *to, const struct bytes *from)
{
    size_t base = to->len;

    bytes_put(to, from->data, from->len);
    for (size_t i = 0; i < from->n_ends; i++) {
        to->ends = grown(to->ends, to->n_ends, &to->room_ends, sizeof *to->ends);
        to->ends[to->n_ends++] = base + from->ends[i];
    }
}

void queue_bytes(struct roda_conn *c, const struct bytes *bytes)
{
    struct bytes *tail;

    if (!bytes->len || c->no_words)
        return;
    tail = tail_of(c);
    if (!whole(tail, c))
        complain(c->host, "a message is queued behind a reply whose unit has not ended");
    bytes_append(tail, bytes);
}

struct roda_out *roda_conn_out(struct roda_conn *c)
{
    static struct bytes nowhere;

    if (c->no_words) { /* nobody will read it */
        bytes_clear(&nowhere);
        out_begin(&c->out, &nowhere, c->listener, c->datagram, NULL);
        c->out.failed = true;
    } else {
        out_begin(&c->out, tail_of(c), c->listener, c->datagram, c);
    }
    c->host->out = &c->out;
    return &c->out;
}

size_t queue_length(const struct roda_conn *c)
{
    size_t length = 0;

    for (struct link *l = c->queue.next; l != &c->queue; l = l->next)
        length += container_of(l, struct entry, link)->bytes.len;
    return length;
}

static void entry_free(struct entry *e)
{
    list_remove(&e->link);
    bytes_clear(&e->bytes);
    free(e);
}

static void place_free(struct roda_place *place)
{
    list_remove(&place->link);
    free(place);
}

void queue_pump(struct roda_conn *c)
{
    if (c->client->stopped_reading)
        return;
    while (!list_empty(&c->queue)) {
        struct entry *e = container_of(list_first(&c->queue), struct entry, link);
        if (e->bytes.len) {
            c->host->progress++;
            c->host->core_metrics[CORE_SENDS]++;
            bytes_append(&c->client->received, &e->bytes);
            bytes_clear(&e->bytes);
        }
        if (e->place && !e->place->ended)
            break;
        if (e->place)
            place_free(e->place);
        entry_free(e);
    }
}

/* ---- places ----------------------------------------------------------------------------- */

int roda_place_new(struct roda_ctx *x, struct roda_conn *c, roda_done_fn *more, void *arg,
                   struct roda_place **ret_place)
{
    struct testhost *h = host_of(x);
    struct worker *w = worker_of(x);

    if (c->worker != w)
        complain(h, "roda_place_new() for a connection of another worker");
    if (c->no_words || c->stage == CONN_CLOSING)
        return -EPIPE;
    struct roda_place *place = may_get(h, sizeof *place);
    if (!place)
        return -ENOMEM;
    place->conn = c;
    place->context = context_of(x);
    place->more = more;
    place->arg = arg;
    if (!list_empty(&c->queue) &&
        !whole(&container_of(c->queue.prev, struct entry, link)->bytes, c))
        complain(h, "a place behind a reply whose unit has not ended");
    place->entry = entry_new(c, place);
    list_append(&w->places, &place->link);
    *ret_place = place;
    return 0;
}

struct roda_out *roda_place_out(struct roda_place *place)
{
    out_begin(&place->out, &place->entry->bytes, place->conn->listener, place->conn->datagram,
              place->conn);
    place->conn->host->out = &place->out;
    return &place->out;
}

void roda_place_wait(struct roda_place *place)
{
    place->waiting = true;
}

void roda_place_wake(struct roda_place *place)
{
    place->waiting = false;
}

void roda_place_end(struct roda_place *place)
{
    if (place->ended)
        complain(place->conn->host, "roda_place_end() twice");
    if (!place->conn->no_words && !whole(&place->entry->bytes, place->conn))
        complain(place->conn->host, "a place ends inside a unit");
    place->ended = true;
}

/* Runs more() of one place. */
static void place_more(struct roda_place *place)
{
    struct testhost *h = place->conn->host;

    h->progress++;
    struct hook_before before = hook_enter(h, place->context->instance, "more (of a place)");
    place->more(&place->context->x, place->arg, 0);
    if (!place->ended && !place->waiting && !place->entry->bytes.len) {
        complain(h, "wrote nothing, and neither waits nor ends");
        place->waiting = true;
    }
    hook_leave(h, before);
}

bool queue_places(struct roda_conn *c)
{
    size_t before = 0;

    for (struct link *l = c->queue.next; l != &c->queue; l = l->next) {
        struct entry *e = container_of(l, struct entry, link);
        if (before >= c->host->send_queue_bytes / 2)
            return false;
        if (e->place && !e->place->ended && !e->place->waiting && !e->bytes.len) {
            place_more(e->place);
            return true; /* it may have changed the queue */
        }
        before += e->bytes.len;
    }
    return false;
}

void queue_cancel(struct roda_conn *c)
{
    c->no_words = true;
    while (!list_empty(&c->queue)) {
        struct entry *e = container_of(list_first(&c->queue), struct entry, link);
        struct roda_place *place = e->place;
        entry_free(e);
        if (!place)
            continue;
        struct roda_place gone = *place;
        place_free(place);
        if (gone.ended)
            continue;
        struct hook_before before =
            hook_enter(c->host, gone.context->instance, "more (of a place)");
        gone.more(&gone.context->x, gone.arg, -ECANCELED);
        hook_leave(c->host, before);
    }
}
