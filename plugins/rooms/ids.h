#ifndef RODA_ROOMS_IDS_H
#define RODA_ROOMS_IDS_H
/* Ids: a dense index in the lower 24 bits, a generation of 16 bits above it. A table finds what an
 * id names without a search, and an id that was given back names nothing. Never 0. The upper 24
 * bits are free for whoever needs them. */
#include <roda/plugin.h>

struct id_slot {
    void *value; /* NULL: free */
    uint32_t generation;
    uint32_t next; /* free: the next free index + 1; 0: none */
};

struct ids { /* zeroed: empty */
    struct id_slot *slots;
    uint32_t used, capacity, free;
};

#define IDS_INDEX_BITS 24u
#define IDS_BITS       40u
#define IDS_MAX        ((UINT32_C(1) << IDS_INDEX_BITS) - 1) /* so many at most */
#define IDS_MASK       ((UINT64_C(1) << IDS_BITS) - 1)

static inline uint32_t id_index(uint64_t id)
{
    return (uint32_t)id & IDS_MAX;
}

/* -ENFILE: max are in use; max is at most IDS_MAX. */
int ids_add(struct roda_ctx *x, struct ids *ids, uint32_t max, void *value, uint64_t *ret_id);
void *ids_find(const struct ids *ids, uint64_t id); /* NULL: none */
void ids_remove(struct ids *ids, uint64_t id);
void ids_clear(struct roda_ctx *x, struct ids *ids);

#endif
