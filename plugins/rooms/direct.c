#include "rooms.h"

#include <errno.h>
#include <string.h>

/*
 * Private messages. A pair of people is a hidden room: it has a home, a lane, an epoch and numbers,
 * so that what two people write to each other, by several doors, has one order. Its home follows
 * from a stable hash of both people's ids, and is a worker that may be home to rooms as well.
 *
 * The pairs of a home are bounded: when there are too many, the one that was idle longest is
 * forgotten, and begins a new epoch if its people write again.
 *
 * The target is looked up twice: at the sender's worker to find the home, and at the home, since
 * the nick may have changed hands on the way; then the pair is another one, and it is refused.
 */

struct pair {
    struct pair *next; /* in its chain */
    struct pair *newer, *older;
    uint64_t key;
    uint64_t people[2]; /* ascending */
    roda_conn_id conns[2];
    struct roda_lane *lane;
};

#define KEY_MASK ((UINT64_C(1) << 61) - 1)

static uint64_t key_of(const uint64_t people[2])
{
    char bytes[16];

    for (size_t i = 0; i < sizeof(bytes); i++) /* the same on every machine */
        bytes[i] = (char)(people[i / 8] >> (i % 8 * 8));
    return roda_hash_stable((struct roda_str){bytes, sizeof(bytes)}) & KEY_MASK;
}

static void order(uint64_t a, uint64_t b, uint64_t ret_people[2])
{
    ret_people[0] = a < b ? a : b;
    ret_people[1] = a < b ? b : a;
}

/* A worker that has rooms, and so a partition of a log: there are no more than partitions. */
static uint32_t home_of(const struct roda_ctx *x, uint64_t key)
{
    return roda_partition_worker((uint32_t)(key % RODA_PARTITIONS), x->n_workers);
}

static uint64_t sender_of(const struct roda_msg *msg)
{
    return msg->sender ? roda_person_id(msg->sender) : 0;
}

/* ---- on the sender's worker ------------------------------------------------------------------ */

int direct_handle(const struct ask *ask)
{
    struct roda_person *target = directory_person(directory_of(ask->x), ask->msg->to, NULL);
    uint64_t people[2], key;

    if (!target)
        return ask_refuse(ask, RODA_E_NO_PERSON, "");
    ask_show_name(ask, roda_person_get(target, RODA_PERSON_NICK));
    order(sender_of(ask->msg), roda_person_id(target), people);
    roda_person_unref(target);
    key = key_of(people);
    return roda_route(ask->x, ask->ev, home_of(ask->x, key), DESTINATION_DIRECT | key);
}

/* ---- pairs at their home --------------------------------------------------------------------- */

static void pair_event(struct roda_ctx *x, void *arg, struct roda_msg *msg, int result)
{
    const struct pair *pair = arg;
    /* Who writes to himself is both. */
    roda_conn_id target = pair->conns[pair->people[0] == sender_of(msg)];
    struct roda_workers workers = workers_only(RODA_CONN_WORKER(target));

    if (result < 0) {
        roda_count(x, ROOMS_REFUSED, 1);
        roda_lane_refuse(x, msg, RODA_E_STORAGE, storage_reason(result));
        return;
    }
    roda_count(x, ROOMS_DIRECT, 1);
    (void)roda_distribute(x, msg, &workers, destination_conn(target));
}

static struct pair **chain_of(const struct rooms_state *state, uint64_t key)
{
    return &state->pairs[key & (state->pair_chains - 1)];
}

static void unlink_use(struct rooms_state *state, struct pair *pair)
{
    if (pair->newer)
        pair->newer->older = pair->older;
    else
        state->pairs_newest = pair->older;
    if (pair->older)
        pair->older->newer = pair->newer;
    else
        state->pairs_oldest = pair->newer;
}

static void link_use(struct rooms_state *state, struct pair *pair)
{
    pair->newer = NULL;
    pair->older = state->pairs_newest;
    if (pair->older)
        pair->older->newer = pair;
    else
        state->pairs_oldest = pair;
    state->pairs_newest = pair;
}

static void pair_free(struct roda_ctx *x, struct pair *pair)
{
    struct rooms_state *state = state_of(x);
    struct pair **link = chain_of(state, pair->key);

    while (*link != pair)
        link = &(*link)->next;
    *link = pair->next;
    unlink_use(state, pair);
    roda_lane_free(pair->lane);
    roda_free(x, pair);
    state->n_pairs--;
}

/* Room for one more: the one that was idle longest goes. */
static int make_room(struct roda_ctx *x)
{
    struct rooms_state *state = state_of(x);
    uint64_t max = (uint64_t)conf_of(x)->max_pairs;
    struct pair *pair = state->pairs_oldest;

    if (state->n_pairs < max)
        return 0;
    while (pair && roda_lane_length(pair->lane))
        pair = pair->newer;
    if (!pair)
        return -ENFILE;
    pair_free(x, pair);
    return 0;
}

static int chains_reserve(struct roda_ctx *x)
{
    struct rooms_state *state = state_of(x);
    uint32_t n = 64;

    if (state->pairs)
        return 0;
    while (n < (uint64_t)conf_of(x)->max_pairs && n < UINT32_C(1) << 20)
        n *= 2;
    state->pairs = roda_alloc(x, n * sizeof(struct pair *));
    state->pair_chains = n;
    return state->pairs ? 0 : -ENOMEM;
}

static int pair_new(struct roda_ctx *x, uint64_t key, const uint64_t people[2],
                    struct pair **ret_pair)
{
    struct rooms_state *state = state_of(x);
    uint64_t epoch = 0;
    struct pair *pair;
    int r = make_room(x);

    if (r)
        return r;
    pair = roda_alloc(x, sizeof(*pair));
    if (!pair || roda_lane_new(x, pair_event, pair, &pair->lane)) {
        roda_free(x, pair);
        return -ENOMEM;
    }
    while (!epoch)
        roda_random(x, &epoch, sizeof(epoch));
    roda_lane_set(pair->lane, epoch, 0, 0);
    pair->key = key;
    memcpy(pair->people, people, sizeof(pair->people));
    pair->next = *chain_of(state, key);
    *chain_of(state, key) = pair;
    link_use(state, pair);
    state->n_pairs++;
    *ret_pair = pair;
    return 0;
}

static int pair_get(struct roda_ctx *x, uint64_t key, const uint64_t people[2],
                    struct pair **ret_pair)
{
    struct rooms_state *state = state_of(x);
    struct pair *pair;

    if (chains_reserve(x))
        return -ENOMEM;
    for (pair = *chain_of(state, key); pair; pair = pair->next)
        if (!memcmp(pair->people, people, sizeof(pair->people)))
            break;
    if (!pair)
        return pair_new(x, key, people, ret_pair);
    unlink_use(state, pair);
    link_use(state, pair);
    *ret_pair = pair;
    return 0;
}

static void refuse(struct roda_ctx *x, struct roda_event *ev, uint32_t code, const char *text)
{
    roda_count(x, ROOMS_REFUSED, 1);
    roda_refuse(x, ev, code, "%s", text);
}

void direct_arrive(struct roda_ctx *x, struct roda_event *ev, uint64_t destination)
{
    roda_conn_id conn = 0;
    struct roda_person *target = directory_person(directory_of(x), ev->msg->to, &conn);
    uint64_t sender = sender_of(ev->msg), id = target ? roda_person_id(target) : 0;
    uint64_t people[2];
    struct pair *pair;
    int r;

    order(sender, id, people);
    roda_person_unref(target);
    if (!target || key_of(people) != (destination & KEY_MASK)) {
        refuse(x, ev, RODA_E_NO_PERSON, "");
        return;
    }
    r = pair_get(x, destination & KEY_MASK, people, &pair);
    if (r) {
        refuse(x, ev, r == -ENFILE ? RODA_E_FULL : RODA_E_MEMORY,
               r == -ENFILE ? "too many people write to each other now" : "");
        return;
    }
    pair->conns[people[0] == sender ? 0 : 1] = ev->msg->from;
    pair->conns[people[0] == sender ? 1 : 0] = conn;
    if (people[0] == people[1])
        pair->conns[0] = pair->conns[1] = conn;
    (void)roda_lane_publish(x, pair->lane, roda_msg_ref(ev->msg));
}

/* ---- at the target's worker ------------------------------------------------------------------ */

void direct_distributed(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination)
{
    roda_conn_id conn = (uint64_t)x->worker << 56 | (destination & DESTINATION_CONN_MASK);
    struct roda_conn *c = roda_conn_find(x, conn);

    if (c)
        roda_send(x, c, msg);
}

void direct_stop(struct roda_ctx *x)
{
    struct rooms_state *state = state_of(x);

    while (state->pairs_oldest)
        pair_free(x, state->pairs_oldest);
    roda_free(x, state->pairs);
    state->pairs = NULL;
}
