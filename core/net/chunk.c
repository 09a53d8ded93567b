#include "net/chunk.h"

#include <errno.h>

#include "base/memory.h"

/*
 * An ordinary chunk goes back to a short free list, since a busy worker turns over thousands of
 * them; an oversized one (one very long reply) goes back to the allocator.
 */
#define CHUNKS_KEPT 16u

static size_t chunk_footprint(const struct chunk *chunk)
{
    return sizeof *chunk + chunk->capacity;
}

static void account(struct chunk_pool *pool, const struct chunk *chunk, bool pinned)
{
    uint64_t bytes = chunk_footprint(chunk);

    if (pinned) {
        pool->pinned_bytes += bytes;
        __atomic_fetch_add((uint64_t *)pool->total_pinned, bytes, __ATOMIC_RELAXED);
    } else {
        pool->pinned_bytes -= bytes;
        __atomic_fetch_sub((uint64_t *)pool->total_pinned, bytes, __ATOMIC_RELAXED);
    }
}

static void chunk_destroy(struct chunk *chunk)
{
    memory_free(chunk->units);
    memory_free(chunk);
}

void chunk_pool_init(struct chunk_pool *pool, _Atomic uint64_t *total_pinned)
{
    *pool = (struct chunk_pool){.total_pinned = total_pinned};
}

void chunk_pool_deinit(struct chunk_pool *pool)
{
    while (pool->free) {
        struct chunk *chunk = pool->free;
        pool->free = chunk->next;
        chunk_destroy(chunk);
    }
    pool->n_free = 0;
}

struct chunk *chunk_get(struct chunk_pool *pool, size_t size)
{
    struct chunk *chunk;

    if (size <= CHUNK_BYTES && pool->free) {
        chunk = pool->free;
        pool->free = chunk->next;
        pool->n_free--;
    } else {
        size_t capacity = size <= CHUNK_BYTES ? CHUNK_BYTES : size;
        if (capacity > UINT32_MAX / 2)
            return NULL;
        chunk = memory_alloc(sizeof *chunk + capacity);
        if (!chunk)
            return NULL;
        chunk->capacity = (uint32_t)capacity;
    }
    chunk->next = NULL;
    chunk->references = 1;
    chunk->used = 0;
    chunk->n_units = 0;
    chunk->counts_units = chunk->compacted = false;
    account(pool, chunk, true);
    return chunk;
}

void chunk_unref(struct chunk_pool *pool, struct chunk *chunk)
{
    if (!chunk || --chunk->references)
        return;
    account(pool, chunk, false);
    if (chunk->capacity == CHUNK_BYTES && pool->n_free < CHUNKS_KEPT) {
        chunk->next = pool->free;
        pool->free = chunk;
        pool->n_free++;
    } else {
        chunk_destroy(chunk);
    }
}

int chunk_end_unit(struct chunk *chunk)
{
    if (chunk->n_units == chunk->units_capacity) {
        uint32_t capacity = chunk->units_capacity ? chunk->units_capacity * 2 : 64;
        uint32_t *units = memory_realloc(chunk->units, capacity * sizeof *units);
        if (!units)
            return -ENOMEM;
        chunk->units = units;
        chunk->units_capacity = capacity;
    }
    chunk->units[chunk->n_units++] = chunk->used;
    return 0;
}

uint32_t chunk_units_within(const struct chunk *chunk, uint32_t offset, uint32_t limit)
{
    uint32_t low = 0, high = chunk->n_units;

    while (low < high) { /* first end beyond limit */
        uint32_t middle = low + (high - low) / 2;
        if (chunk->units[middle] <= limit)
            low = middle + 1;
        else
            high = middle;
    }
    return low && chunk->units[low - 1] > offset ? chunk->units[low - 1] : 0;
}
