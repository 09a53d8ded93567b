#ifndef RODA_NET_QUEUE_H
#define RODA_NET_QUEUE_H
/*
 * Send queues. An entry is (chunk, offset, length) or a place that is filled later. The newest
 * entry lies in the connection itself and grows while bytes continue it; older ones are a list.
 */
#include "net/connection.h"

struct send_entry {
    struct send_entry *next, *prev;
    struct chunk *chunk;
    uint32_t offset, length;
    struct roda_place *place; /* then chunk is NULL */
};

#define SEND_PIECES    16u         /* of one gathering send */
#define SEND_BYTES_MAX (64u << 10) /* of one send */

struct send_request { /* lives until the completion of a gathering send */
    struct msghdr header;
    struct iovec pieces[SEND_PIECES];
};

void queue_mark_dirty(struct roda_conn *c);
void queue_append_slow(struct roda_conn *c, struct chunk *chunk, uint32_t offset, uint32_t length);
void queue_mark_over(struct roda_conn *c);

/* The delivery itself: no allocation, lock, hash or clock; one cache line of the connection. */
static inline void queue_append(struct roda_conn *c, struct chunk *chunk, uint32_t offset,
                                uint32_t length)
{
    if (c->chunk == chunk && c->offset + c->length == offset)
        c->length += length;
    else
        queue_append_slow(c, chunk, offset, length);
    c->queued_bytes += length;
    if (!(c->flags & (CONN_DIRTY | CONN_SENDING)))
        queue_mark_dirty(c);
    if (c->queued_bytes > c->limit_bytes)
        queue_mark_over(c);
}

/* What a send may take now, up to the first place: fills pieces, returns how many; *ret_bytes. */
unsigned queue_gather(const struct roda_conn *c, struct iovec pieces[SEND_PIECES],
                      uint32_t *ret_bytes);
/* The first bytes bytes were sent. */
void queue_consume(struct roda_conn *c, uint32_t bytes);
/* Everything but what is in flight goes; places are cancelled. keep_bytes: of the send in flight.
 */
void queue_clear(struct roda_conn *c, uint32_t keep_bytes);
/* Copies what is not in flight into the worker's compact chunk, so that old chunks come free. */
void queue_compact(struct roda_conn *c);
/* Bytes are queued that no place holds back. */
bool queue_sendable(const struct roda_conn *c);
static inline bool queue_empty(const struct roda_conn *c)
{
    return !c->oldest && !c->length;
}

/* Runs more() of a due place with result, called by net_places() and on cancel. */
struct roda_place {
    struct roda_conn *conn; /* NULL: cancelled */
    struct send_entry *entry;
    struct roda_ctx *ctx;
    roda_done_fn *more;
    void *arg;
    struct list link; /* in net->places when more() is due */
    bool waiting;     /* roda_place_wait() */
    bool ended;       /* inside more() */
    bool running;
    struct net *net;
};
void place_run(struct roda_place *place);

#endif
