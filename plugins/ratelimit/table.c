#include "table.h"

#include <stdatomic.h>

/*
 * An array of words, eight of them, a cache line, make a set. A key's hash chooses the set, and
 * another part of it, the fingerprint, tells the set's buckets from each other:
 *
 *     fingerprint : 20 | time at which the bucket is empty : 44          0: free
 *
 * A bucket is that one word, and every change of it one compare-and-swap. So limits hold over all
 * workers together, nobody waits for anybody, and no address is stored anywhere.
 *
 * When a new key finds its set full, the emptiest bucket goes (for most: one that time has emptied
 * long ago). However many keys come, memory stays what it was; who is forgotten was using little,
 * and begins anew with an empty bucket, while those that are full, floods and bans, stay. An
 * attacker cannot aim at somebody's set, since the hash has a secret. Two keys share a bucket when
 * set and fingerprint are the same by chance: one in sixteen thousand, if the set is full and
 * both are of one kind (key_for() in excess.c).
 *
 * A new key takes its place in two steps: an empty bucket under its fingerprint, then a look at the
 * rest of the set. If another worker has just made one for the same key, this one goes again; both
 * may give up and try anew, but never do both stay. Only then something is filled in. All accesses
 * are sequentially consistent, on which this rests.
 *
 * Times are compared modulo 2^44. A bucket that nobody asks for during half of that (100 days of
 * microseconds) would seem full one day; table_sweep() frees it before.
 *
 * The idea of a fixed, set-associative table with fingerprints in which the least loaded goes is
 * that of Knot DNS's KRU (module rrl), after Metwally, Agrawal, El Abbadi: Efficient computation of
 * frequent and top-k elements in data streams (ICDT 2005). There a newcomer inherits the load of
 * the bucket it replaces, and loads decay by halves; here it begins empty, so that no innocent is
 * refused for others, and time is exact.
 */

enum { WAYS = 8, VALUE_BITS = 44, LINE_BYTES = 64, TRIES = 1000 };
#define VALUE_MASK ((UINT64_C(1) << VALUE_BITS) - 1)

struct table {
    _Atomic uint64_t *words;
    size_t n_sets; /* a power of two */
    void *memory;
    _Atomic uint64_t replaced;
};

struct table *table_new(struct roda_ctx *x, size_t n_buckets)
{
    struct table *table = roda_alloc(x, sizeof(*table));
    size_t n_sets = 1;

    if (!table)
        return NULL;
    while (n_sets * WAYS < n_buckets)
        n_sets *= 2;
    table->memory = roda_alloc(x, n_sets * WAYS * sizeof(uint64_t) + LINE_BYTES);
    if (!table->memory) {
        roda_free(x, table);
        return NULL;
    }
    table->n_sets = n_sets;
    table->words =
        (_Atomic uint64_t *)(((uintptr_t)table->memory + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES);
    /* Zero already, but not there yet: the machine gives pages when they are written. */
    for (size_t i = 0; i < n_sets * WAYS; i++)
        atomic_init(&table->words[i], 0);
    return table;
}

void table_free(struct roda_ctx *x, struct table *table)
{
    if (!table)
        return;
    roda_free(x, table->memory);
    roda_free(x, table);
}

size_t table_buckets(const struct table *table)
{
    return table->n_sets * WAYS;
}

uint64_t table_replaced(const struct table *table)
{
    return atomic_load(&table->replaced);
}

/* ---- one set ---------------------------------------------------------------------------- */

static _Atomic uint64_t *set_of(const struct table *table, uint64_t key)
{
    return table->words + (key & (table->n_sets - 1)) * WAYS;
}

/* Never 0: that is no bucket. */
static uint64_t fingerprint_of(uint64_t key)
{
    uint64_t print = key >> VALUE_BITS;

    return (print ? print : 1) << VALUE_BITS;
}

static uint64_t ahead_of(uint64_t word, uint64_t now)
{
    uint64_t ahead = (word - now) & VALUE_MASK;

    return ahead > TABLE_AHEAD_MAX ? 0 : ahead;
}

static uint64_t word_of(uint64_t fingerprint, uint64_t time)
{
    return fingerprint | (time & VALUE_MASK);
}

/* NULL: no such bucket. */
static _Atomic uint64_t *find(_Atomic uint64_t *set, uint64_t fingerprint, uint64_t *ret_word)
{
    for (size_t i = 0; i < WAYS; i++) {
        *ret_word = atomic_load(&set[i]);
        if ((*ret_word & ~VALUE_MASK) == fingerprint)
            return &set[i];
    }
    return NULL;
}

/* The first free place, or that of the emptiest bucket. */
static _Atomic uint64_t *emptiest(_Atomic uint64_t *set, uint64_t now, uint64_t *ret_word)
{
    _Atomic uint64_t *best = set;
    uint64_t best_ahead = UINT64_MAX;

    for (size_t i = 0; i < WAYS; i++) {
        uint64_t word = atomic_load(&set[i]);
        if (word && ahead_of(word, now) >= best_ahead)
            continue;
        best = &set[i];
        best_ahead = ahead_of(word, now);
        *ret_word = word;
        if (!word)
            break;
    }
    return best;
}

/* Tries to make an empty bucket; whether there is one now, the next find() says. */
static void claim(struct table *table, _Atomic uint64_t *set, uint64_t fingerprint, uint64_t now)
{
    uint64_t word = 0, mine = word_of(fingerprint, now);
    _Atomic uint64_t *place = emptiest(set, now, &word);
    int live = word && ahead_of(word, now);

    if (!atomic_compare_exchange_strong(place, &word, mine))
        return;
    for (size_t i = 0; i < WAYS; i++) {
        if (&set[i] == place || (atomic_load(&set[i]) & ~VALUE_MASK) != fingerprint)
            continue;
        (void)atomic_compare_exchange_strong(place, &mine, 0);
        return;
    }
    if (live)
        atomic_fetch_add(&table->replaced, 1);
}

/* The key's bucket, made if there is none. NULL: others are always faster. */
static _Atomic uint64_t *get(struct table *table, uint64_t key, uint64_t now, uint64_t *ret_word)
{
    _Atomic uint64_t *set = set_of(table, key), *place = NULL;

    for (int i = 0; i < TRIES; i++) {
        place = find(set, fingerprint_of(key), ret_word);
        if (place)
            break;
        claim(table, set, fingerprint_of(key), now);
    }
    return place;
}

/* ---- what is done with a bucket --------------------------------------------------------- */

uint64_t table_take(struct table *table, uint64_t key, uint64_t now, const struct gcra *g,
                    uint64_t wait_max)
{
    for (int i = 0; i < TRIES; i++) {
        uint64_t word, ahead, wait;
        _Atomic uint64_t *place = get(table, key, now, &word);
        if (!place)
            break;
        ahead = ahead_of(word, now);
        wait = gcra_wait(g, ahead);
        if (wait > wait_max ||
            atomic_compare_exchange_strong(place, &word,
                                           word_of(fingerprint_of(key), now + ahead + g->cost)))
            return wait;
    }
    return 0; /* a thousand times in a row another one was faster: let it pass */
}

uint64_t table_ahead(const struct table *table, uint64_t key, uint64_t now)
{
    uint64_t word;

    return find(set_of(table, key), fingerprint_of(key), &word) ? ahead_of(word, now) : 0;
}

void table_raise(struct table *table, uint64_t key, uint64_t now, uint64_t ahead)
{
    for (int i = 0; i < TRIES; i++) {
        uint64_t word;
        _Atomic uint64_t *place = get(table, key, now, &word);
        if (!place || ahead_of(word, now) >= ahead ||
            atomic_compare_exchange_strong(place, &word, word_of(fingerprint_of(key), now + ahead)))
            return;
    }
}

void table_give(struct table *table, uint64_t key, uint64_t now, uint64_t amount)
{
    for (int i = 0; i < TRIES; i++) {
        uint64_t word, ahead;
        _Atomic uint64_t *place = find(set_of(table, key), fingerprint_of(key), &word);
        if (!place)
            return; /* it had to go for another one */
        ahead = ahead_of(word, now);
        if (atomic_compare_exchange_strong(place, &word,
                                           ahead > amount
                                               ? word_of(fingerprint_of(key), now + ahead - amount)
                                               : 0))
            return;
    }
}

size_t table_sweep(struct table *table, uint64_t now, size_t part, size_t n_parts)
{
    size_t n = table_buckets(table), used = 0;

    for (size_t i = n / n_parts * part; i < (part + 1 == n_parts ? n : n / n_parts * (part + 1));
         i++) {
        uint64_t word = atomic_load(&table->words[i]);
        if (!word)
            continue;
        if (ahead_of(word, now) || !atomic_compare_exchange_strong(&table->words[i], &word, 0))
            used++;
    }
    return used;
}
