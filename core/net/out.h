#ifndef RODA_NET_OUT_H
#define RODA_NET_OUT_H
/* The byte builder behind struct roda_out. Three uses: a message is encoded into an encoding's
 * chunk; a reply is built at the end of a connection's queue; a piece is built before a place. */
#include "net/connection.h"
#include "net/queue.h"

struct roda_out {
    struct net *net;
    struct chunk **chunk;     /* where bytes go; replaced by a fresh one when full */
    uint32_t start;           /* encode: where the message began in the chunk */
    uint32_t unit_start;      /* where the unit began */
    struct roda_conn *conn;   /* reply: appended to its queue as it grows; else NULL */
    struct roda_place *place; /* piece: inserted before it; else NULL */
    uint32_t framing;
    bool datagram;
    bool failed;
    size_t limit;
    char *fixed; /* an answer to a knock: fixed memory of fixed_size bytes */
    size_t fixed_size, fixed_len;
};

/* Bytes a unit may have in a datagram. */
#define OUT_DATAGRAM_BYTES 1200u

/* Encode: begins at the end of *chunk (which may be NULL). */
void out_begin(struct roda_out *out, struct net *net, struct chunk **chunk, bool datagram,
               uint32_t framing);
/* The bytes of all units: false: nothing was written, or it failed. */
bool out_end(struct roda_out *out, struct chunk **ret_chunk, uint32_t *ret_offset,
             uint32_t *ret_length);
void out_fixed(struct roda_out *out, char *memory, size_t size);

#endif
