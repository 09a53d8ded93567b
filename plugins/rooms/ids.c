#include "ids.h"

#include <errno.h>

/* Free slots are a list through the table; an index is used again at once, under the next
 * generation. */

#define GENERATIONS 0xffffu

static int grow(struct roda_ctx *x, struct ids *ids, uint32_t max)
{
    uint32_t capacity = ids->capacity < 16 ? 16 : ids->capacity * 2;
    struct id_slot *slots;

    if (capacity > max)
        capacity = max;
    slots = roda_realloc(x, ids->slots, capacity * sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    ids->slots = slots;
    ids->capacity = capacity;
    return 0;
}

int ids_add(struct roda_ctx *x, struct ids *ids, uint32_t max, void *value, uint64_t *ret_id)
{
    uint32_t index;

    if (ids->free) {
        index = ids->free - 1;
        ids->free = ids->slots[index].next;
    } else {
        if (ids->used >= max)
            return -ENFILE;
        if (ids->used == ids->capacity && grow(x, ids, max))
            return -ENOMEM;
        index = ids->used++;
        ids->slots[index].generation = 1;
    }
    ids->slots[index].value = value;
    *ret_id = (uint64_t)ids->slots[index].generation << IDS_INDEX_BITS | index;
    return 0;
}

static struct id_slot *find(const struct ids *ids, uint64_t id)
{
    uint32_t index = id_index(id);

    if (index >= ids->used ||
        ids->slots[index].generation != (uint32_t)((id & IDS_MASK) >> IDS_INDEX_BITS))
        return NULL;
    return &ids->slots[index];
}

void *ids_find(const struct ids *ids, uint64_t id)
{
    const struct id_slot *slot = find(ids, id);

    return slot ? slot->value : NULL;
}

void ids_remove(struct ids *ids, uint64_t id)
{
    struct id_slot *slot = find(ids, id);

    if (!slot)
        return;
    slot->value = NULL;
    slot->generation = slot->generation == GENERATIONS ? 1 : slot->generation + 1;
    slot->next = ids->free;
    ids->free = id_index(id) + 1;
}

void ids_clear(struct roda_ctx *x, struct ids *ids)
{
    roda_free(x, ids->slots);
    *ids = (struct ids){.slots = NULL};
}
