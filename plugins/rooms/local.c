#include "rooms.h"

#include <errno.h>
#include <string.h>

/*
 * A room on a worker that has members of it: a dense array of their connections, to fan out over,
 * and a copy of what people ask about the room.
 *
 *   the home posts a struct local --> linked --> JOIN, TEXT, TOPIC ... as the room's order brings
 *   them --> the last member of this worker has left --> freed
 *
 * The home sends it ahead of the first JOIN of this worker's, by the same way, so that it is there
 * when that comes. present is how many members the home counts here, and changes only by ordered
 * events; so both sides agree when the last one has left. The array changes likewise, but for one
 * case: a connection that is being freed is taken out at once. attached counts what still points
 * here, which may be more than present for a moment (somebody was put out while closing).
 *
 * A connection keeps its first room in itself and several in a block of exactly their number; a
 * place is reserved before a JOIN is sent, so that carrying one out needs memory for the array
 * alone. If that is out, the connection is closed: it must not believe that it hears the room.
 *
 * A room is haunted when somebody may be counted present who cannot say that he leaves: he was
 * closing when his JOIN came, or there was no memory to tell. Whoever leaves next and might be
 * that one tells all haunted rooms; their homes know who is a member.
 */

/* ---- coming and going of the room ------------------------------------------------------------ */

static void local_free(struct roda_ctx *x, struct local *local)
{
    roda_msg_unref(local->topic);
    room_unref(x, local->room);
    roda_free(x, local->conns);
    roda_free(x, local);
}

static void unlink_local(struct roda_ctx *x, struct local *local)
{
    state_of(x)->locals[id_index(local->room->id)] = NULL;
    local->linked = 0;
}

static void free_if_unused(struct roda_ctx *x, struct local *local)
{
    if (local->attached || (local->linked && local->present))
        return;
    if (local->linked)
        unlink_local(x, local);
    local_free(x, local);
}

/* What the home says replaces what is known here; members that are here stay. */
static void refresh(struct roda_ctx *x, struct local *local, struct local *with)
{
    struct roda_msg *topic = local->topic;

    local->topic = with->topic;
    with->topic = topic;
    local->epoch = with->epoch;
    local->number = with->number;
    local->modes = with->modes;
    local->members = with->members;
    local->present = 0;
    local_free(x, with);
}

static void local_arrived(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct local *local = (struct local *)(void *)item;
    struct local **place = &state_of(x)->locals[id_index(local->room->id)];

    if (result < 0) {
        local_free(x, local);
        return;
    }
    if (*place && (*place)->room == local->room) {
        refresh(x, *place, local);
        return;
    }
    if (*place) {
        struct local *old = *place;
        unlink_local(x, old);
        free_if_unused(x, old);
    }
    *place = local;
    local->linked = 1;
}

struct local *local_new(struct roda_ctx *x, struct room *room)
{
    struct local *local = roda_alloc(x, sizeof(*local));

    if (!local)
        return NULL;
    local->item.run = local_arrived;
    local->room = room_ref(room);
    return local;
}

void local_post(struct roda_ctx *x, struct local *local, uint32_t worker)
{
    roda_post(x, worker, &local->item);
}

struct local *local_find(struct roda_ctx *x, uint64_t room_id)
{
    struct rooms_state *state = state_of(x);
    struct local *local;

    if (id_index(room_id) >= state->n_indexes)
        return NULL;
    local = state->locals[id_index(room_id)];
    return local && local->room->id == room_id ? local : NULL;
}

void local_stop(struct roda_ctx *x)
{
    struct rooms_state *state = state_of(x);

    for (uint32_t i = 0; i < state->n_indexes && state->locals; i++)
        if (state->locals[i])
            local_free(x, state->locals[i]);
    roda_free(x, state->locals);
    state->locals = NULL;
}

/* ---- a connection's rooms -------------------------------------------------------------------- */

static int same(struct roda_str a, struct roda_str b)
{
    return a.len == b.len && !memcmp(a.ptr, b.ptr, a.len);
}

struct local *local_of(struct rooms_conn *data, struct roda_str name)
{
    const struct membership *rooms = rooms_of(data);
    struct name folded;

    if (!data->n)
        return NULL;
    /* People talk in one room for a while, by the name that it has: this is the hot path. */
    if (data->last < data->n && same(room_name(rooms[data->last].local->room), name))
        return rooms[data->last].local;
    for (uint16_t i = 0; i < data->n; i++) {
        if (same(room_name(rooms[i].local->room), name)) {
            data->last = i;
            return rooms[i].local;
        }
    }
    if (name_fold(name, &folded))
        return NULL;
    for (uint16_t i = 0; i < data->n; i++) {
        if (same(room_folded(rooms[i].local->room), (struct roda_str){folded.text, folded.len}))
            return rooms[i].local;
    }
    return NULL;
}

int local_reserve(struct roda_ctx *x, struct rooms_conn *data)
{
    struct membership *block;

    if (data->n < (data->block ? data->capacity : 1))
        return 0;
    block = roda_realloc(x, data->block, (data->n + 1u) * sizeof(*block));
    if (!block)
        return -ENOMEM;
    if (!data->block)
        block[0] = data->first;
    data->block = block;
    data->capacity = (uint16_t)(data->n + 1);
    return 0;
}

static struct membership *membership_of(struct rooms_conn *data, const struct local *local)
{
    struct membership *rooms = rooms_of(data);

    for (uint16_t i = 0; i < data->n; i++)
        if (rooms[i].local == local)
            return &rooms[i];
    return NULL;
}

/* ---- the array of connections ---------------------------------------------------------------- */

static int conns_add(struct roda_ctx *x, struct local *local, struct roda_conn *c,
                     uint32_t *ret_index)
{
    if (local->n == local->capacity) {
        uint32_t capacity = local->capacity + local->capacity / 4 + 1;
        struct roda_conn **conns =
            roda_realloc(x, local->conns, capacity * sizeof(struct roda_conn *));
        if (!conns)
            return -ENOMEM;
        local->conns = conns;
        local->capacity = capacity;
    }
    *ret_index = local->n;
    local->conns[local->n++] = c;
    return 0;
}

static void conns_remove(struct roda_ctx *x, struct local *local, uint32_t index)
{
    struct roda_conn *moved = local->conns[--local->n];

    if (index == local->n)
        return;
    local->conns[index] = moved;
    membership_of(conn_of(x, moved), local)->index = index;
}

static void attach(struct roda_ctx *x, struct local *local, struct roda_conn *c)
{
    struct rooms_conn *data = conn_of(x, c);
    struct membership *membership;

    data->joining = 0;
    /* The place was reserved when the JOIN was sent. */
    if (membership_of(data, local) || local_reserve(x, data))
        return;
    membership = &rooms_of(data)[data->n];
    membership->local = local;
    data->last = data->n++;
    local->attached++;
    if (conns_add(x, local, c, &membership->index)) {
        membership->index = NOT_SHOWN;
        roda_conn_close(c, "out of memory");
    }
}

static void detach(struct roda_ctx *x, struct local *local, struct roda_conn *c)
{
    struct rooms_conn *data = conn_of(x, c);
    struct membership *membership = membership_of(data, local);
    size_t behind;

    if (!membership)
        return;
    if (membership->index != NOT_SHOWN)
        conns_remove(x, local, membership->index);
    behind = data->n - (size_t)(membership - rooms_of(data)) - 1;
    memmove(membership, membership + 1, behind * sizeof(*membership));
    data->n--;
    local->attached--;
}

void local_hide(struct roda_ctx *x, struct rooms_conn *data)
{
    struct membership *rooms = rooms_of(data);

    for (uint16_t i = 0; i < data->n; i++) {
        if (rooms[i].index != NOT_SHOWN)
            conns_remove(x, rooms[i].local, rooms[i].index);
        rooms[i].index = NOT_SHOWN;
    }
}

void local_forget(struct roda_ctx *x, struct rooms_conn *data)
{
    struct membership *rooms = rooms_of(data);

    for (uint16_t i = 0; i < data->n; i++) {
        rooms[i].local->attached--;
        free_if_unused(x, rooms[i].local);
    }
    data->n = 0;
    roda_free(x, data->block);
    data->block = NULL;
}

struct local *local_haunted(struct roda_ctx *x, uint32_t *index)
{
    const struct rooms_state *state = state_of(x);

    while (*index < state->n_indexes) {
        struct local *local = state->locals[(*index)++];
        if (local && local->haunted)
            return local;
    }
    return NULL;
}

/* A connection that is closing is not found; its closed() takes it out. */
void local_left(struct roda_ctx *x, struct local *local, roda_conn_id id)
{
    struct roda_conn *c = roda_conn_find(x, id);

    if (c)
        detach(x, local, c);
    if (local->present)
        local->present--;
    free_if_unused(x, local);
}

/* ---- what the room's order brings ------------------------------------------------------------ */

static void joined(struct roda_ctx *x, struct local *local, struct roda_msg *msg)
{
    struct roda_conn *c;

    if (RODA_CONN_WORKER(msg->from) != x->worker)
        return;
    local->present++;
    c = roda_conn_find(x, msg->from);
    if (c)
        attach(x, local, c);
    else
        local->haunted = 1; /* it is closing, and its closed() tells this room */
}

static void set_topic(struct local *local, struct roda_msg *msg)
{
    roda_msg_unref(local->topic);
    local->topic = msg->text.len ? roda_msg_ref(msg) : NULL;
}

void local_distributed(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination)
{
    struct local *local = local_find(x, destination & IDS_MASK);

    if (!local)
        return;
    if (msg->number)
        local->number = msg->number;
    local->epoch = msg->epoch;
    local->members = destination_members(destination);
    switch (msg->kind) {
    case RODA_JOIN:
        joined(x, local, msg);
        break;
    case RODA_TOPIC:
        set_topic(local, msg);
        break;
    case RODA_MODE:
        local->modes = mode_bits(local->modes, msg);
        break;
    case RODA_NICK:
    case RODA_AWAY:
    case RODA_QUIT:
        event_distributed(x, local, msg, destination);
        return;
    default:
        break;
    }
    if (!(destination & DESTINATION_QUIET))
        roda_fanout(x, msg, local->conns, local->n);
    if (msg->kind == RODA_PART && RODA_CONN_WORKER(msg->from) == x->worker)
        local_left(x, local, msg->from);
}
