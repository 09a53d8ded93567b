#include "rooms.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

/*
 * A room at its home. All that happens in it comes here and leaves in one order:
 *
 *   arrive.c: decide (member? rank? ban? key? full?) --refused--> the sender is told
 *     |
 *     v
 *   lane: admit filters, number, publish filters (a log may hold it until it is on disk)
 *     |
 *     v
 *   home_event: carry it out here, then tell the workers that have members
 *
 * Who is a member, how the room is and which workers have members changes when an event leaves the
 * lane, never before: so every worker sees what was decided at the same place in the order. Events
 * without a number (join, part) are looked at again then, since another may have come between.
 *
 * A worker gets a copy of the room (local.c) just ahead of its first member's JOIN.
 *
 * Above presence_up_to members, coming and going is carried out where it must be and shown to
 * nobody.
 *
 * A room without members is given up, in an item of its own: its lane must be empty and may not be
 * freed by its own function. The item is posted "after", so that whoever finds the name or the id
 * free posts behind what this room has still sent.
 */

enum { INVITED_MAX = 100 };

static void home_event(struct roda_ctx *x, void *arg, struct roda_msg *msg, int result);

/* ---- coming and going of the room ------------------------------------------------------------ */

static int is_first_room(const struct roda_ctx *x, const struct room *room)
{
    const char *first = conf_of(x)->first_room;
    struct roda_str own = room_folded(room);
    struct name name;

    return *first && !name_fold((struct roda_str){first, strlen(first)}, &name) &&
           name.len == own.len && !memcmp(name.text, own.ptr, own.len);
}

/* Where the room's numbers begin: behind what was kept of it, which only the log knows. If nothing
 * is kept, nobody can ask for a number of before, and the epoch is a new one. */
static int set_start(struct roda_ctx *x, struct roda_lane *lane, const struct room *room)
{
    const struct rooms_state *state = state_of(x);
    struct roda_history_start start = {.epoch = 0};
    int r = -ENOENT;

    if (state->history)
        r = state->history->start(state->history_ctx, room_name(room), &start);
    if (r && r != -ENOENT)
        return r; /* it is kept, so any other start could use numbers twice */
    if (r)
        start = (struct roda_history_start){.epoch = 0};
    while (!start.epoch)
        roda_random(x, &start.epoch, sizeof(start.epoch));
    roda_lane_set(lane, start.epoch, start.number, start.time_ns);
    return 0;
}

uint32_t home_new(struct roda_ctx *x, struct room *room, struct home **ret_home)
{
    struct home *home = roda_alloc(x, sizeof(*home) + x->n_workers * sizeof(*home->on_worker));
    int r;

    if (!home)
        return RODA_E_MEMORY;
    if (roda_lane_new(x, home_event, home, &home->lane)) {
        roda_free(x, home);
        return RODA_E_MEMORY;
    }
    r = set_start(x, home->lane, room);
    if (r) {
        roda_lane_free(home->lane);
        roda_free(x, home);
        return r == -ENOMEM ? RODA_E_MEMORY : RODA_E_STORAGE;
    }
    home->room = room_ref(room);
    directory_open(directory_of(x), room);
    state_of(x)->homes[id_index(room->id)] = home;
    roda_count(x, ROOMS_OPEN, 1);
    *ret_home = home;
    return 0;
}

static void home_free(struct roda_ctx *x, struct home *home)
{
    roda_lane_free(home->lane);
    members_clear(x, &home->members);
    roda_msg_unref(home->topic);
    roda_msg_unref(home->key);
    for (uint32_t i = 0; i < home->n_bans; i++)
        roda_msg_unref(home->bans[i]);
    roda_free(x, home->bans);
    roda_free(x, home->invited);
    room_unref(x, home->room);
    roda_free(x, home);
}

struct home *home_find(const struct roda_ctx *x, uint64_t room_id)
{
    const struct rooms_state *state = state_of(x);
    struct home *home;

    if (id_index(room_id) >= state->n_indexes)
        return NULL;
    home = state->homes[id_index(room_id)];
    return home && home->room->id == room_id ? home : NULL;
}

void home_stop(struct roda_ctx *x)
{
    struct rooms_state *state = state_of(x);

    for (uint32_t i = 0; i < state->n_indexes && state->homes; i++)
        if (state->homes[i])
            home_free(x, state->homes[i]);
    roda_free(x, state->homes);
    state->homes = NULL;
}

static void sweep(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct home *home = (struct home *)(void *)((char *)item - offsetof(struct home, sweep));

    home->sweeping = 0;
    if (result < 0 || home->members.n || roda_lane_length(home->lane))
        return;
    if (!directory_close(x, directory_of(x), home->room))
        return; /* a join is on its way here, and asks again when it has been decided */
    state_of(x)->homes[id_index(home->room->id)] = NULL;
    roda_count(x, ROOMS_OPEN, -1);
    home_free(x, home);
}

void home_sweep(struct roda_ctx *x, struct home *home)
{
    if (home->members.n || home->sweeping || is_first_room(x, home->room))
        return;
    home->sweeping = 1;
    home->sweep.run = sweep;
    roda_post_after(x, x->worker, &home->sweep);
}

/* ---- members --------------------------------------------------------------------------------- */

struct roda_workers workers_only(uint32_t worker)
{
    struct roda_workers workers = {.bits = {0}};

    RODA_WORKERS_ADD(&workers, worker);
    return workers;
}

int home_quiet(const struct roda_ctx *x, const struct home *home)
{
    return home->members.n > (uint64_t)conf_of(x)->presence_up_to;
}

static void tell_directory(struct home *home)
{
    atomic_store_explicit(&home->room->members, home->members.n, memory_order_relaxed);
}

static int home_add(struct roda_ctx *x, struct home *home, const struct roda_msg *msg,
                    uint32_t rank)
{
    uint32_t worker = RODA_CONN_WORKER(msg->from);

    if (members_add(x, &home->members, msg->from, msg->sender, rank))
        return -ENOMEM;
    home->on_worker[worker]++;
    RODA_WORKERS_ADD(&home->workers, worker);
    tell_directory(home);
    roda_count(x, ROOMS_MEMBERS, 1);
    roda_count(x, ROOMS_JOINS, 1);
    return 0;
}

void home_remove(struct roda_ctx *x, struct home *home, struct home_member *member)
{
    uint32_t worker = RODA_CONN_WORKER(member->conn);

    members_remove(&home->members, member);
    if (!--home->on_worker[worker])
        home->workers.bits[worker >> 6] &= ~(UINT64_C(1) << (worker & 63));
    tell_directory(home);
    roda_count(x, ROOMS_MEMBERS, -1);
    roda_count(x, ROOMS_PARTS, 1);
}

/* ---- invitations ----------------------------------------------------------------------------- */

roda_conn_id *home_invitation(const struct home *home, roda_conn_id conn)
{
    for (uint32_t i = 0; i < home->n_invited; i++)
        if (home->invited[i] == conn)
            return &home->invited[i];
    return NULL;
}

/* Of more than INVITED_MAX the oldest is forgotten. */
static int invite(struct roda_ctx *x, struct home *home, roda_conn_id conn)
{
    if (home_invitation(home, conn))
        return 0;
    if (!home->invited) {
        home->invited = roda_alloc(x, INVITED_MAX * sizeof(*home->invited));
        if (!home->invited)
            return -ENOMEM;
    }
    home->invited[home->next_invited] = conn;
    home->next_invited = (home->next_invited + 1) % INVITED_MAX;
    if (home->n_invited < INVITED_MAX)
        home->n_invited++;
    return 0;
}

/* ---- the lane -------------------------------------------------------------------------------- */

int home_publish(struct roda_ctx *x, struct home *home, struct roda_msg *msg)
{
    uint64_t before = home->left + roda_lane_length(home->lane);
    uint32_t guards = RODA_ROOM_INVITE_ONLY | RODA_ROOM_KEY;
    int r;

    if (msg->kind == RODA_MODE && mode_bits(0, msg) & guards)
        home->closing = before + 1; /* what comes behind it is said behind it */
    if (RODA_KIND_NUMBERED(msg->kind) && (home->modes & guards || home->closing > home->left))
        msg->flags |= RODA_MSG_CLOSED;
    r = roda_lane_publish(x, home->lane, msg);
    return !r && home->left + roda_lane_length(home->lane) == before + 1;
}

/* Who is about to leave by this. */
struct home_member *home_leaver(struct roda_ctx *x, const struct home *home,
                                const struct roda_msg *msg, int when)
{
    if (msg->kind == RODA_PART)
        return members_find(&home->members, msg->from);
    return msg->kind == RODA_KICK ? mode_target(x, home, msg->subject, when) : NULL;
}

void home_join_decided(struct roda_ctx *x, struct home *home, struct room *room)
{
    directory_joined(x, directory_of(x), room);
    if (home)
        home_sweep(x, home);
}

/* ---- leaving the lane: what is carried out --------------------------------------------------- */

static void lane_refuse(struct roda_ctx *x, struct roda_msg *msg, uint32_t code)
{
    roda_count(x, ROOMS_REFUSED, 1);
    roda_lane_refuse(x, msg, code, RODA_STR(""));
}

/* Negative: memory is out, and nobody was told but the sender: then nothing may change here. */
static int distribute(struct roda_ctx *x, struct home *home, struct roda_msg *msg, uint32_t leaving)
{
    return roda_distribute(x, msg, &home->workers,
                           destination_room(home->room, home->members.n - leaving));
}

/* To all workers with members; in a large room only to the one that must carry it out. */
static int distribute_presence(struct roda_ctx *x, struct home *home, struct roda_msg *msg,
                               uint32_t leaving)
{
    struct roda_workers own = workers_only(RODA_CONN_WORKER(msg->from));

    if (home_quiet(x, home))
        return roda_distribute(x, msg, &own,
                               destination_room(home->room, home->members.n - leaving) |
                                   DESTINATION_QUIET);
    return distribute(x, home, msg, leaving);
}

static struct local *copy_of(struct roda_ctx *x, const struct home *home,
                             const struct roda_msg *msg)
{
    struct local *local = local_new(x, home->room);

    if (!local)
        return NULL;
    local->epoch = msg->epoch;
    local->number = msg->prev;
    local->members = home->members.n;
    local->modes = home->modes;
    local->topic = home->topic ? roda_msg_ref(home->topic) : NULL;
    return local;
}

static uint32_t rank_at_join(const struct roda_ctx *x, const struct home *home,
                             const struct roda_msg *msg)
{
    if (home->members.n || msg->flags & RODA_MSG_FORCED || is_first_room(x, home->room))
        return RODA_RANK_NONE;
    return RODA_RANK_OWNER; /* who makes a room owns it */
}

static void leave_join(struct roda_ctx *x, struct home *home, struct roda_msg *msg)
{
    uint32_t worker = RODA_CONN_WORKER(msg->from);
    roda_conn_id *invitation = home_invitation(home, msg->from);
    struct local *local = NULL;

    if (members_find(&home->members, msg->from)) {
        lane_refuse(x, msg, RODA_E_ALREADY);
        return;
    }
    if (!home->on_worker[worker]) {
        local = copy_of(x, home, msg);
        if (!local) {
            lane_refuse(x, msg, RODA_E_MEMORY);
            return;
        }
    }
    if (home_add(x, home, msg, rank_at_join(x, home, msg))) {
        if (local)
            local->item.run(x, &local->item, -ECANCELED);
        lane_refuse(x, msg, RODA_E_MEMORY);
        return;
    }
    if (local)
        local_post(x, local, worker);
    if (distribute_presence(x, home, msg, 0))
        home_remove(x, home, members_find(&home->members, msg->from));
    else if (invitation)
        *invitation = 0;
}

static void leave_part(struct roda_ctx *x, struct home *home, struct roda_msg *msg)
{
    struct home_member *member = members_find(&home->members, msg->from);

    if (!member) {
        lane_refuse(x, msg, RODA_E_NOT_MEMBER);
        return;
    }
    if (!distribute_presence(x, home, msg, 1))
        home_remove(x, home, member);
}

struct removal { /* behind a KICK: takes the one who was put out from his worker's copy */
    struct roda_item item;
    uint64_t room_id;
    roda_conn_id conn;
};

static void removal_run(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct removal *removal = (struct removal *)(void *)item;
    struct local *local = result < 0 ? NULL : local_find(x, removal->room_id);

    if (local)
        local_left(x, local, removal->conn);
    roda_free(x, removal);
}

static void leave_kick(struct roda_ctx *x, struct home *home, struct roda_msg *msg)
{
    struct home_member *target = mode_target(x, home, msg->subject, TARGET_NOW);
    struct removal *removal = target ? roda_alloc(x, sizeof(*removal)) : NULL;

    if (target && !removal) {
        lane_refuse(x, msg, RODA_E_MEMORY);
        return;
    }
    if (distribute(x, home, msg, target != NULL) || !target) {
        roda_free(x, removal); /* NULL if the target has left since it was decided */
        return;
    }
    removal->item.run = removal_run;
    removal->room_id = home->room->id;
    removal->conn = target->conn;
    roda_post(x, RODA_CONN_WORKER(target->conn), &removal->item);
    home_remove(x, home, target);
}

static void leave_topic(struct roda_ctx *x, struct home *home, struct roda_msg *msg)
{
    if (distribute(x, home, msg, 0))
        return;
    roda_msg_unref(home->topic);
    home->topic = msg->text.len ? roda_msg_ref(msg) : NULL;
}

static void leave_mode(struct roda_ctx *x, struct home *home, struct roda_msg *msg)
{
    uint32_t code = mode_apply(x, home, msg);

    if (code)
        lane_refuse(x, msg, code);
    else
        (void)distribute(x, home, msg, 0); /* out of memory: shown with the next copy of the room */
}

static void leave_invite(struct roda_ctx *x, struct home *home, struct roda_msg *msg)
{
    roda_conn_id conn = 0;
    struct roda_person *person = directory_person(directory_of(x), msg->subject, &conn);
    struct roda_workers workers;

    roda_person_unref(person);
    if (!person || invite(x, home, conn)) {
        lane_refuse(x, msg, person ? RODA_E_MEMORY : RODA_E_NO_PERSON);
        return;
    }
    workers = workers_only(RODA_CONN_WORKER(conn));
    (void)roda_distribute(x, msg, &workers, destination_conn(conn));
}

static void leave_typing(struct roda_ctx *x, struct home *home, struct roda_msg *msg)
{
    struct roda_workers nobody = {.bits = {0}};

    if (home_quiet(x, home))
        (void)roda_distribute(x, msg, &nobody, home->room->id);
    else
        (void)distribute(x, home, msg, 0);
}

static void carry_out(struct roda_ctx *x, struct home *home, struct roda_msg *msg)
{
    switch (msg->kind) {
    case RODA_JOIN:
        leave_join(x, home, msg);
        return;
    case RODA_PART:
        leave_part(x, home, msg);
        return;
    case RODA_KICK:
        leave_kick(x, home, msg);
        return;
    case RODA_TOPIC:
        leave_topic(x, home, msg);
        return;
    case RODA_MODE:
        leave_mode(x, home, msg);
        return;
    case RODA_INVITE:
        leave_invite(x, home, msg);
        return;
    case RODA_TYPING:
        leave_typing(x, home, msg);
        return;
    default: /* TEXT, NOTICE */
        roda_count(x, ROOMS_MESSAGES, 1);
        (void)distribute(x, home, msg, 0);
        return;
    }
}

struct roda_str storage_reason(int result)
{
    switch (result) {
    case -ENOSPC:
    case -EDQUOT:
        return RODA_STR("not stored: the disk is full; nothing was sent");
    case -ENOMEM:
        return RODA_STR("not stored: the broker is out of memory; nothing was sent");
    default:
        return RODA_STR("not stored: the disk does not work; nothing was sent");
    }
}

/* Nothing has changed yet, so nothing needs to be taken back but that somebody was about to leave.
 * The number is lost; `prev` of the next message says that nobody was shown it. */
static void not_stored(struct roda_ctx *x, struct home *home, struct roda_msg *msg, int result)
{
    struct home_member *member = home_leaver(x, home, msg, TARGET_NOW);

    if (member)
        member->leaving = 0;
    roda_count(x, ROOMS_REFUSED, 1);
    roda_lane_refuse(x, msg, RODA_E_STORAGE, storage_reason(result));
}

static void home_event(struct roda_ctx *x, void *arg, struct roda_msg *msg, int result)
{
    struct home *home = arg;

    home->left++;
    if (msg->kind == RODA_NICK || msg->kind == RODA_AWAY || msg->kind == RODA_QUIT)
        event_leave_lane(x, home, msg, result);
    else if (result < 0)
        not_stored(x, home, msg, result);
    else
        carry_out(x, home, msg);
    if (msg->kind == RODA_JOIN)
        home_join_decided(x, home, home->room);
    else if (!home->members.n)
        home_sweep(x, home);
}
