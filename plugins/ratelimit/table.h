#ifndef RATELIMIT_TABLE_H
#define RATELIMIT_TABLE_H
/* Buckets of whom nobody knows in advance, in memory of a fixed size; see table.c. Shared by all
 * workers without a lock. Times are in ticks of the caller's, and run round after 2^44. */
#include <stddef.h>
#include <stdint.h>

#include "gcra.h"

struct table;

/* The largest distance between two times that is told from its opposite. */
#define TABLE_AHEAD_MAX ((UINT64_C(1) << 43) - 1)

/* n_buckets is rounded up to a power of two. NULL: memory is out. All memory is touched here. */
struct table *table_new(struct roda_ctx *x, size_t n_buckets);
void table_free(struct roda_ctx *x, struct table *table); /* NULL is a no-op */
size_t table_buckets(const struct table *table);
/* Live buckets that had to go for others, so far. */
uint64_t table_replaced(const struct table *table);

/* Fills the key's bucket by g->cost if it need not wait longer than wait_max for that. Returns how
 * long it has to wait; more than wait_max: nothing was done. Keys are hashes with a secret. */
uint64_t table_take(struct table *table, uint64_t key, uint64_t now, const struct gcra *g,
                    uint64_t wait_max);
/* How long the key's bucket needs until it is empty. */
uint64_t table_ahead(const struct table *table, uint64_t key, uint64_t now);
/* It needs at least so long from now on. */
void table_raise(struct table *table, uint64_t key, uint64_t now, uint64_t ahead);
/* Takes so much out of the bucket again. */
void table_give(struct table *table, uint64_t key, uint64_t now, uint64_t amount);
/* Frees what is empty in one of n_parts parts; returns how many are in use there. */
size_t table_sweep(struct table *table, uint64_t now, size_t part, size_t n_parts);

#endif
