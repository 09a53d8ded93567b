#ifndef RODA_NET_CHUNK_H
#define RODA_NET_CHUNK_H
/*
 * Chunks: large counted blocks that encoded bytes are written to once and that any number of send
 * queues point into. One worker's alone, so counts are plain. A chunk is pinned as long as one
 * reader is behind; pinned bytes are what send_queues_total bounds.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHUNK_BYTES 65536u /* of data, for an ordinary chunk */

struct chunk {
    struct chunk *next; /* in the pool's free list */
    uint32_t references;
    uint32_t used, capacity;
    bool counts_units; /* datagrams: ends of units are kept, since they must not be split */
    bool compacted;    /* laggards' bytes were copied here: they are not copied again */
    uint32_t n_units, units_capacity;
    uint32_t *units; /* ascending offsets at which units end */
    char data[];
};

struct chunk_pool { /* one per worker */
    struct chunk *free;
    unsigned n_free;
    uint64_t pinned_bytes;          /* of all chunks that are not free */
    _Atomic uint64_t *total_pinned; /* of all workers */
};

void chunk_pool_init(struct chunk_pool *pool, _Atomic uint64_t *total_pinned);
void chunk_pool_deinit(struct chunk_pool *pool);
/* A chunk with room for size bytes and one reference; NULL: out of memory. */
struct chunk *chunk_get(struct chunk_pool *pool, size_t size);
void chunk_unref(struct chunk_pool *pool, struct chunk *chunk); /* NULL is a no-op */
static inline struct chunk *chunk_ref(struct chunk *chunk)
{
    chunk->references++;
    return chunk;
}
static inline size_t chunk_space(const struct chunk *chunk)
{
    return chunk->capacity - chunk->used;
}
/* Notes that a unit ends at used. -ENOMEM. Only if counts_units. */
int chunk_end_unit(struct chunk *chunk);
/* The largest unit end <= limit and > offset; 0: none. Only if counts_units. */
uint32_t chunk_units_within(const struct chunk *chunk, uint32_t offset, uint32_t limit);

#endif
