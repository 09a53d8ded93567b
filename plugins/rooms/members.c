#include "rooms.h"

#include <errno.h>

/*
 * The members of one room, at its home: a list in the order of joining, so that it can be read in
 * pieces ("those after serial n"), and above a few members a hash table from connection to place.
 *
 * Who leaves leaves a hole, since moving 10,000 members for each of 10,000 who leave would take
 * seconds; when there are more holes than members the list is closed up. Nothing of that needs
 * memory, so leaving never fails.
 */

enum { FEW = 8 };
#define SERIAL_MASK ((UINT64_C(1) << 55) - 1)

static uint32_t hash_of(roda_conn_id conn)
{
    return (uint32_t)((conn * UINT64_C(0x9e3779b97f4a7c15)) >> 32);
}

static uint32_t *chain_find(const struct members *members, roda_conn_id conn)
{
    uint32_t mask = members->n_chains - 1, i = hash_of(conn) & mask;

    while (members->chains[i] && members->list[members->chains[i] - 1].conn != conn)
        i = (i + 1) & mask;
    return &members->chains[i];
}

struct home_member *members_find(const struct members *members, roda_conn_id conn)
{
    if (!conn)
        return NULL;
    if (members->chains) {
        uint32_t place = *chain_find(members, conn);
        return place ? &members->list[place - 1] : NULL;
    }
    for (uint32_t i = 0; i < members->used; i++)
        if (members->list[i].conn == conn)
            return &members->list[i];
    return NULL;
}

static void chains_fill(struct members *members)
{
    for (uint32_t i = 0; i < members->n_chains; i++)
        members->chains[i] = 0;
    for (uint32_t i = 0; i < members->used; i++)
        if (members->list[i].conn)
            *chain_find(members, members->list[i].conn) = i + 1;
}

static void close_up(struct members *members)
{
    uint32_t to = 0;

    for (uint32_t from = 0; from < members->used; from++)
        if (members->list[from].conn)
            members->list[to++] = members->list[from];
    members->used = to;
    if (members->chains)
        chains_fill(members);
}

static int chains_reserve(struct roda_ctx *x, struct members *members)
{
    uint32_t n = members->n_chains ? members->n_chains : 32, *chains;

    if (members->n < FEW)
        return 0;
    while (n / 4 * 3 <= members->n + 1)
        n *= 2;
    if (n == members->n_chains)
        return 0;
    chains = roda_alloc(x, n * sizeof(*chains));
    if (!chains)
        return -ENOMEM;
    roda_free(x, members->chains);
    members->chains = chains;
    members->n_chains = n;
    chains_fill(members);
    return 0;
}

static int list_reserve(struct roda_ctx *x, struct members *members)
{
    uint32_t capacity = members->capacity + members->capacity / 4 + 2;
    struct home_member *list;

    if (members->used < members->capacity)
        return 0;
    if (members->n < members->used - members->used / 4) {
        close_up(members);
        return 0;
    }
    list = roda_realloc(x, members->list, capacity * sizeof(*list));
    if (!list)
        return -ENOMEM;
    members->list = list;
    members->capacity = capacity;
    return 0;
}

int members_add(struct roda_ctx *x, struct members *members, roda_conn_id conn,
                const struct roda_person *person, uint32_t rank)
{
    if (list_reserve(x, members) || chains_reserve(x, members))
        return -ENOMEM;
    members->list[members->used] = (struct home_member){.conn = conn,
                                                        .person = roda_person_ref(person),
                                                        .serial = ++members->serial & SERIAL_MASK,
                                                        .rank = rank & 0xff};
    members->used++;
    members->n++;
    if (members->chains)
        *chain_find(members, conn) = members->used;
    return 0;
}

/* The chain's rest moves up, as far as it may. */
static void chain_remove(struct members *members, uint32_t hole)
{
    uint32_t mask = members->n_chains - 1, i = hole;

    for (;;) {
        uint32_t wanted;
        i = (i + 1) & mask;
        if (!members->chains[i])
            break;
        wanted = hash_of(members->list[members->chains[i] - 1].conn);
        if (((i - wanted) & mask) < ((i - hole) & mask))
            continue;
        members->chains[hole] = members->chains[i];
        hole = i;
    }
    members->chains[hole] = 0;
}

void members_remove(struct members *members, struct home_member *member)
{
    if (members->chains)
        chain_remove(members, (uint32_t)(chain_find(members, member->conn) - members->chains));
    roda_person_unref(member->person);
    member->conn = 0;
    member->person = NULL;
    members->n--;
    if (!members->n)
        members->used = 0;
    else if (members->used > 2 * members->n + FEW)
        close_up(members);
}

struct home_member *members_after(const struct members *members, uint64_t serial)
{
    uint32_t low = 0, high = members->used;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (members->list[middle].serial <= serial)
            low = middle + 1;
        else
            high = middle;
    }
    while (low < members->used && !members->list[low].conn)
        low++;
    return low < members->used ? &members->list[low] : NULL;
}

void members_clear(struct roda_ctx *x, struct members *members)
{
    for (uint32_t i = 0; i < members->used; i++)
        roda_person_unref(members->list[i].person);
    roda_free(x, members->list);
    roda_free(x, members->chains);
    *members = (struct members){.list = NULL};
}
