#ifndef RODA_BASE_TABLE_H
#define RODA_BASE_TABLE_H
/*
 * From a 64-bit hash to a pointer. The table stores hashes, not keys: what the caller keeps in
 * it holds its own key, and two things may have the same hash. 16 bytes per place; finding
 * touches one or two cache lines beside the thing found. One thread at a time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table_entry {
    uint64_t hash;
    void *value; /* NULL: empty */
};

struct table {
    struct table_entry *entries;
    uint32_t bits, bits_initial; /* 1 << bits places */
    size_t count;
};

typedef bool table_equal_fn(const void *value, const void *key);

/* Room for n things before it grows for the first time. 0 or -ENOMEM. */
int table_init(struct table *t, size_t n);
/* The values are the caller's. A table that is zero is left alone; no other call takes one. */
void table_deinit(struct table *t);

/* The first value of this hash for which equal says yes. NULL: none. */
void *table_find(const struct table *t, uint64_t hash, table_equal_fn *equal, const void *key);
/* value is not NULL, and not in the table yet: nobody looks. 0, or -ENOMEM and no effect. */
int table_insert(struct table *t, uint64_t hash, void *value);
/* False: it was not there. Cannot fail otherwise. */
bool table_remove(struct table *t, uint64_t hash, const void *value);

/* Every value once, in no order: start with *position = 0; NULL is the end. Inserting or removing
 * moves values, so after either an iteration may miss values or show them twice: to remove while
 * walking, begin again at 0 after each removal, or collect first. */
void *table_next(const struct table *t, size_t *position);

#endif
