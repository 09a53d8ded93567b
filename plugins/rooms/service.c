#include "rooms.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

/*
 * The service "rooms/1": looking, for protocols and other plugins. What a connection's own rooms
 * are like, its worker knows (local.c). For members and lists a query travels: an item with room
 * for the whole piece goes to the home, or from home to home, and back to the caller's worker,
 * which calls back. So a query needs memory once, before it starts, and answers once.
 */

enum { PIECE_MAX = 256 };

static struct roda_room describe(const struct local *local)
{
    return (struct roda_room){
        .id = local->room->id,
        .name = room_name(local->room),
        .topic = local->topic ? local->topic->text : RODA_STR(""),
        .epoch = local->epoch,
        .number = local->number,
        .members = local->members,
        .modes = local->modes,
    };
}

static size_t joined(struct roda_ctx *x, const struct roda_conn *c, struct roda_room *ret,
                     size_t max)
{
    struct rooms_conn *data = conn_of(x, c);

    for (uint16_t i = 0; data && i < data->n && i < max; i++)
        ret[i] = describe(rooms_of(data)[i].local);
    return data ? data->n : 0;
}

static int find(struct roda_ctx *x, const struct roda_conn *c, struct roda_str name,
                struct roda_room *ret)
{
    struct rooms_conn *data = conn_of(x, c);
    const struct local *local = data ? local_of(data, name) : NULL;

    if (!local)
        return -ENOENT;
    *ret = describe(local);
    return 0;
}

static struct roda_person *person(struct roda_ctx *x, struct roda_str nick, roda_conn_id *ret_conn)
{
    return directory_person(directory_of(x), nick, ret_conn);
}

static uint32_t piece(uint32_t max)
{
    return max && max < PIECE_MAX ? max : PIECE_MAX;
}

/* ---- the members of a room ------------------------------------------------------------------- */

struct members_query {
    struct roda_item item;
    struct room *room; /* a reference */
    roda_members_fn *fn;
    void *arg;
    uint64_t after, next;
    uint32_t worker, max, n;
    int result;
    struct roda_member list[];
};

static void members_answer(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct members_query *query = (struct members_query *)(void *)item;

    if (result < 0)
        query->fn(query->arg, NULL, 0, 0, -ECANCELED);
    else if (query->result < 0)
        query->fn(query->arg, NULL, 0, 0, query->result);
    else
        query->fn(query->arg, query->list, query->n, query->next, 0);
    for (uint32_t i = 0; i < query->n; i++)
        roda_person_unref(query->list[i].person);
    room_unref(x, query->room);
    roda_free(x, query);
}

static void members_collect(struct members_query *query, const struct home *home)
{
    const struct home_member *member = members_after(&home->members, query->after);
    const struct home_member *end = home->members.list + home->members.used;
    uint64_t last = 0;

    for (; member && member < end; member++) {
        if (!member->conn)
            continue;
        if (query->n == query->max) {
            query->next = last;
            return;
        }
        query->list[query->n++] = (struct roda_member){.person = roda_person_ref(member->person),
                                                       .rank = member->rank,
                                                       .conn = member->conn};
        last = member->serial;
    }
}

static void members_at_home(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct members_query *query = (struct members_query *)(void *)item;
    const struct home *home = result < 0 ? NULL : home_find(x, query->room->id);

    if (result < 0) {
        members_answer(x, item, result);
        return;
    }
    if (home)
        members_collect(query, home);
    else
        query->result = -ENOENT;
    query->item = (struct roda_item){.run = members_answer};
    roda_post(x, query->worker, &query->item);
}

static int members(struct roda_ctx *x, struct roda_str name, uint64_t after, uint32_t max,
                   roda_members_fn *fn, void *arg)
{
    struct room *room = directory_room(directory_of(x), name);
    struct members_query *query;

    if (!room)
        return -ENOENT;
    max = piece(max);
    query = roda_alloc(x, sizeof(*query) + max * sizeof(*query->list));
    if (!query) {
        room_unref(x, room);
        return -ENOMEM;
    }
    query->item.run = members_at_home;
    query->room = room;
    query->fn = fn;
    query->arg = arg;
    query->after = after;
    query->max = max;
    query->worker = x->worker;
    roda_post(x, room->home, &query->item);
    return 0;
}

/* ---- all rooms ------------------------------------------------------------------------------- */

struct listed {
    struct room *room;      /* a reference */
    struct roda_msg *topic; /* a reference; NULL: none */
    uint64_t epoch, number;
    uint32_t modes;
    int asked;
};

struct list_query { /* visits the homes of its rooms, one after the other */
    struct roda_item item;
    roda_room_list_fn *fn;
    void *arg;
    uint32_t worker, next;
    size_t n;
    struct roda_room *rooms; /* behind the list */
    struct listed list[];
};

static void list_free(struct roda_ctx *x, struct list_query *query)
{
    for (size_t i = 0; i < query->n; i++) {
        room_unref(x, query->list[i].room);
        roda_msg_unref(query->list[i].topic);
    }
    roda_free(x, query);
}

static void list_answer(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct list_query *query = (struct list_query *)(void *)item;
    size_t n = 0;

    for (size_t i = 0; i < query->n && result >= 0; i++) {
        const struct listed *listed = &query->list[i];
        if (!listed->epoch)
            continue; /* it has gone since */
        query->rooms[n++] = (struct roda_room){
            .id = listed->room->id,
            .name = room_name(listed->room),
            .topic = listed->topic ? listed->topic->text : RODA_STR(""),
            .epoch = listed->epoch,
            .number = listed->number,
            .members = atomic_load_explicit(&listed->room->members, memory_order_relaxed),
            .modes = listed->modes,
        };
    }
    if (result < 0)
        query->fn(query->arg, NULL, 0, 0, -ECANCELED);
    else
        query->fn(query->arg, query->rooms, n, query->next, 0);
    list_free(x, query);
}

static void list_at_home(struct roda_ctx *x, struct roda_item *item, int result);

static void list_go_on(struct roda_ctx *x, struct list_query *query)
{
    size_t i = 0;

    while (i < query->n && query->list[i].asked)
        i++;
    query->item = (struct roda_item){.run = i < query->n ? list_at_home : list_answer};
    roda_post(x, i < query->n ? query->list[i].room->home : query->worker, &query->item);
}

static void list_at_home(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct list_query *query = (struct list_query *)(void *)item;

    if (result < 0) {
        list_answer(x, item, result);
        return;
    }
    for (size_t i = 0; i < query->n; i++) {
        struct listed *listed = &query->list[i];
        const struct home *home = home_find(x, listed->room->id);
        if (listed->room->home != x->worker)
            continue;
        listed->asked = 1;
        if (!home)
            continue;
        listed->topic = home->topic ? roda_msg_ref(home->topic) : NULL;
        listed->epoch = roda_lane_epoch(home->lane);
        listed->number = roda_lane_number(home->lane);
        listed->modes = home->modes;
    }
    list_go_on(x, query);
}

static int list(struct roda_ctx *x, uint64_t after, uint32_t max, roda_room_list_fn *fn, void *arg)
{
    struct room *rooms[PIECE_MAX];
    struct list_query *query;
    uint32_t next;
    size_t n;

    if (after > UINT32_MAX)
        return -EINVAL;
    n = directory_list(directory_of(x), (uint32_t)after, rooms, piece(max), &next);
    query = roda_alloc(x, sizeof(*query) + n * (sizeof(*query->list) + sizeof(*query->rooms)));
    for (size_t i = 0; !query && i < n; i++)
        room_unref(x, rooms[i]);
    if (!query)
        return -ENOMEM;
    query->fn = fn;
    query->arg = arg;
    query->worker = x->worker;
    query->next = next;
    query->n = n;
    query->rooms = (struct roda_room *)(void *)&query->list[n];
    for (size_t i = 0; i < n; i++)
        query->list[i].room = rooms[i];
    list_go_on(x, query);
    return 0;
}

const struct roda_rooms rooms_service = {
    .size = sizeof(struct roda_rooms),
    .joined = joined,
    .find = find,
    .members = members,
    .list = list,
    .person = person,
};
