#include "base/table.h"

#include <assert.h>
#include <errno.h>

#include "base/memory.h"

/*
 * Open addressing with linear probing over a power of two of places. A value lies at its home,
 * the place its hash names, or behind it with no empty place between (cyclic): that is the
 * invariant, and why a search may stop at the first empty place. Removal keeps it by shifting
 * back what lies behind, so there are no tombstones and a table that lived long is as fast as a
 * new one.
 *
 * It doubles when more than 3/4 would be taken and halves when less than 1/8 are, but not below
 * its first size; after either it is 3/8 to 1/4 full, so a value that comes and goes does not
 * resize it each time. Growing may fail and is then the insertion's failure; shrinking may fail
 * and nobody notices.
 *
 * The home is the top bits of hash times the golden ratio: hashes that are counters or ids, and
 * not as well mixed as SipHash, still spread.
 */
enum { BITS_LEAST = 3, BITS_MOST = 48 };

static size_t places(const struct table *t)
{
    return (size_t)1 << t->bits;
}

static size_t home(uint32_t bits, uint64_t hash)
{
    return (size_t)(hash * UINT64_C(0x9e3779b97f4a7c15) >> (64 - bits));
}

static struct table_entry *allocate(uint32_t bits)
{
    return bits > BITS_MOST ? NULL : memory_alloc(sizeof(struct table_entry) << bits);
}

int table_init(struct table *t, size_t n)
{
    uint32_t bits = BITS_LEAST;
    while (bits <= BITS_MOST && ((size_t)1 << bits) / 4 * 3 < n)
        bits++;
    struct table_entry *entries = allocate(bits);
    if (!entries)
        return -ENOMEM;
    *t = (struct table){.entries = entries, .bits = bits, .bits_initial = bits};
    return 0;
}

void table_deinit(struct table *t)
{
    memory_free(t->entries);
    *t = (struct table){0};
}

void *table_find(const struct table *t, uint64_t hash, table_equal_fn *equal, const void *key)
{
    size_t mask = places(t) - 1;
    for (size_t i = home(t->bits, hash); t->entries[i].value; i = (i + 1) & mask) {
        if (t->entries[i].hash == hash && equal(t->entries[i].value, key))
            return t->entries[i].value;
    }
    return NULL;
}

static void place(struct table_entry *entries, uint32_t bits, struct table_entry entry)
{
    size_t mask = ((size_t)1 << bits) - 1;
    size_t i = home(bits, entry.hash);
    while (entries[i].value)
        i = (i + 1) & mask;
    entries[i] = entry;
}

static int resize(struct table *t, uint32_t bits)
{
    struct table_entry *entries = allocate(bits);
    if (!entries)
        return -ENOMEM;
    for (size_t i = 0; i < places(t); i++) {
        if (t->entries[i].value)
            place(entries, bits, t->entries[i]);
    }
    memory_free(t->entries);
    t->entries = entries;
    t->bits = bits;
    return 0;
}

int table_insert(struct table *t, uint64_t hash, void *value)
{
    assert(value);
    if (t->count + 1 > places(t) / 4 * 3) {
        int error = resize(t, t->bits + 1);
        if (error)
            return error;
    }
    place(t->entries, t->bits, (struct table_entry){hash, value});
    t->count++;
    return 0;
}

/* Fills the hole with the next value that may lie there, and so on until an empty place. */
static void close_hole(struct table *t, size_t hole)
{
    size_t mask = places(t) - 1;
    for (size_t i = (hole + 1) & mask; t->entries[i].value; i = (i + 1) & mask) {
        size_t from_home = (i - home(t->bits, t->entries[i].hash)) & mask;
        size_t from_hole = (i - hole) & mask;
        if (from_home < from_hole)
            continue;
        t->entries[hole] = t->entries[i];
        hole = i;
    }
    t->entries[hole] = (struct table_entry){0};
}

bool table_remove(struct table *t, uint64_t hash, const void *value)
{
    size_t mask = places(t) - 1;
    size_t i = home(t->bits, hash);
    while (t->entries[i].value && t->entries[i].value != value)
        i = (i + 1) & mask;
    if (!t->entries[i].value)
        return false;
    close_hole(t, i);
    t->count--;
    if (t->bits > t->bits_initial && t->count < places(t) / 8)
        (void)resize(t, t->bits - 1);
    return true;
}

void *table_next(const struct table *t, size_t *position)
{
    while (*position < places(t)) {
        void *value = t->entries[(*position)++].value;
        if (value)
            return value;
    }
    return NULL;
}
