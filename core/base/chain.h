#ifndef RODA_BASE_CHAIN_H
#define RODA_BASE_CHAIN_H
/*
 * A list that many threads push to and one takes from: one word. Push is a compare-and-swap of a
 * whole chain, take is an exchange and a reversal, so everything pushed before is seen, in the
 * order of the pushes: if push A happened before push B, A comes out first. It cannot fail and
 * has no capacity; the memory is the nodes'.
 */
#include <stdbool.h>
#include <stddef.h>

struct chain_node {
    struct chain_node *next;
};

struct chain {
    _Atomic(struct chain_node *) head;
};

/* newest .. oldest, linked by next from newest to oldest. Returns true if the chain was empty. */
static inline bool chain_push(struct chain *c, struct chain_node *newest, struct chain_node *oldest)
{
    struct chain_node *old = __atomic_load_n((struct chain_node **)&c->head, __ATOMIC_RELAXED);
    do {
        oldest->next = old;
    } while (!__atomic_compare_exchange_n((struct chain_node **)&c->head, &old, newest, true,
                                          __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    return !old;
}

/* All of it, oldest first. NULL: empty. */
static inline struct chain_node *chain_take(struct chain *c)
{
    if (!__atomic_load_n((struct chain_node **)&c->head, __ATOMIC_RELAXED))
        return NULL;
    struct chain_node *newest =
        __atomic_exchange_n((struct chain_node **)&c->head, NULL, __ATOMIC_ACQUIRE);
    struct chain_node *oldest = NULL;
    while (newest) {
        struct chain_node *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

static inline bool chain_empty(const struct chain *c)
{
    return !__atomic_load_n((struct chain_node *const *)&c->head, __ATOMIC_ACQUIRE);
}

#endif
