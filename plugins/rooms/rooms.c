#include "rooms.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

/*
 * The owner of rooms and people, for all protocols.
 *
 *   rooms.c      the descriptor, options, hooks; what a message asks, on its sender's worker
 *   directory.c  who and what is called how: the one thing that workers share
 *   ids.c        dense ids with generations
 *   arrive.c     what comes to a room's home: may it be?
 *   home.c       a room at its home, where all is ordered and carried out
 *   members.c    who is in a room, at its home
 *   modes.c      what operators change there
 *   local.c      a room on a worker with members: whom to fan out to
 *   people.c     guests, nick, away, quit, closed
 *   event.c      what happens to a person, in all its rooms at once
 *   direct.c     private messages
 *   service.c    rooms/1, for looking
 *
 * A room's home follows from its name: stable hash -> slot -> log partition -> worker, as
 * <roda/history.h> says. So all rooms of a partition live on one worker, the files of a log have
 * one writer each, and where a room's numbers begin is asked without leaving its home. With more
 * workers than partitions (16) the others are home to none.
 *
 * What may be refused without asking the home is refused here, but only when nothing of the
 * connection is under way: a JOIN that is may make true what is not yet, and answers come in the
 * order of the messages.
 */

/* ---- what a message asks --------------------------------------------------------------------- */

int ask_wait(const struct ask *ask)
{
    ask->data->waited = 1;
    return RODA_LATER;
}

int ask_refuse(const struct ask *ask, uint32_t code, const char *text)
{
    if (!ask->settled)
        return ask_wait(ask);
    roda_count(ask->x, ROOMS_REFUSED, 1);
    roda_refuse(ask->x, ask->ev, code, "%s", text);
    return RODA_HANDLED;
}

/* This worker holds the only reference, and the form differs by the case of letters alone. */
void ask_show_name(const struct ask *ask, struct roda_str name)
{
    struct roda_str to = ask->msg->to;

    if (to.len == name.len && memcmp(to.ptr, name.ptr, name.len) != 0)
        memcpy((char *)(uintptr_t)to.ptr, name.ptr, name.len);
}

static int route_by_name(const struct ask *ask)
{
    struct room *room = directory_room(directory_of(ask->x), ask->msg->to);
    int r;

    if (!room)
        return ask_refuse(ask, RODA_E_NO_ROOM, "");
    if (ask->c) {
        r = ask_refuse(ask, RODA_E_NOT_MEMBER, "");
    } else { /* a plugin speaks: it need not be a member */
        ask_show_name(ask, room_name(room));
        r = roda_route(ask->x, ask->ev, room->home, room->id);
    }
    room_unref(ask->x, room);
    return r;
}

static int to_room(const struct ask *ask)
{
    const struct local *local = ask->c ? local_of(ask->data, ask->msg->to) : NULL;

    if (!local)
        return route_by_name(ask);
    ask_show_name(ask, room_name(local->room));
    return roda_route(ask->x, ask->ev, local->room->home, local->room->id);
}

static int join_room(const struct ask *ask, struct room *room)
{
    int r;

    ask_show_name(ask, room_name(room));
    r = roda_route(ask->x, ask->ev, room->home, room->id);
    if (r == RODA_LATER)
        directory_joined(ask->x, directory_of(ask->x), room);
    else
        ask->data->joining = 1;
    room_unref(ask->x, room);
    return r;
}

static int join(const struct ask *ask)
{
    const struct rooms_conf *conf = conf_of(ask->x);
    int create = !conf->create || ask->msg->flags & RODA_MSG_FORCED;
    struct room *room;

    if (!ask->c || !ask->msg->sender)
        return ask_refuse(ask, RODA_E_AUTH, "you have no name yet");
    if (roda_text_check(ask->msg->to, RODA_TEXT_ROOM))
        return ask_refuse(ask, RODA_E_NAME, "");
    if (local_of(ask->data, ask->msg->to))
        return ask_refuse(ask, RODA_E_ALREADY, "you are in that room already");
    if (ask->data->n >= (uint64_t)conf->rooms_per_connection)
        return ask_refuse(ask, RODA_E_FULL, "you are in as many rooms as you may be");
    if (local_reserve(ask->x, ask->data))
        return ask_refuse(ask, RODA_E_MEMORY, "");
    switch (directory_join(ask->x, directory_of(ask->x), ask->msg->to, create, &room)) {
    case 0:
        return join_room(ask, room);
    case -ENOENT:
        return ask_refuse(ask, RODA_E_NO_ROOM, "there is no such room, and nobody may make one");
    case -ENFILE:
        return ask_refuse(ask, RODA_E_FULL, "there are as many rooms as there may be");
    case -EINVAL:
        return ask_refuse(ask, RODA_E_NAME, "");
    default:
        return ask_refuse(ask, RODA_E_MEMORY, "");
    }
}

static int talk(const struct ask *ask)
{
    if (!ask->msg->text.len && ask->msg->kind != RODA_TYPING)
        return ask_refuse(ask, RODA_E_ARGUMENT, "there is no text to say");
    return ask->msg->flags & RODA_MSG_DIRECT ? direct_handle(ask) : to_room(ask);
}

/* Only a connection can be somewhere. */
static int as_member(const struct ask *ask, int (*fn)(const struct ask *ask))
{
    if (!ask->c)
        return ask_refuse(ask, RODA_E_ARGUMENT, "only a connection can do that");
    if (ask->msg->text.len > TEXT_BYTES_MAX)
        return ask_refuse(ask, RODA_E_TEXT, "longer than 390 bytes");
    return fn(ask);
}

static int to_room_limited(const struct ask *ask)
{
    if (ask->msg->text.len > TEXT_BYTES_MAX || ask->msg->subject.len > TEXT_BYTES_MAX)
        return ask_refuse(ask, RODA_E_TEXT, "longer than 390 bytes");
    return to_room(ask);
}

static int handle_ask(const struct ask *ask)
{
    switch (ask->msg->kind) {
    case RODA_TEXT:
    case RODA_NOTICE:
    case RODA_TYPING:
        return talk(ask);
    case RODA_TOPIC:
    case RODA_KICK:
    case RODA_MODE:
    case RODA_INVITE:
        return to_room_limited(ask);
    case RODA_PART:
        return as_member(ask, to_room);
    case RODA_JOIN:
        return join(ask);
    case RODA_NICK:
        return as_member(ask, people_nick);
    case RODA_AWAY:
        return as_member(ask, people_away);
    default: /* QUIT */
        return as_member(ask, people_quit);
    }
}

static int handle(struct roda_ctx *x, struct roda_event *ev)
{
    struct ask ask = {.x = x, .ev = ev, .msg = ev->msg, .c = ev->conn, .settled = 1};

    if (ask.c) {
        ask.data = conn_of(x, ask.c);
        if (ask.data->event)
            return RODA_LATER; /* this person is being changed */
        /* The core calls again when nothing is under way, so once is enough to wait. */
        ask.settled = ask.data->waited || roda_settled(ask.c);
        ask.data->waited = 0;
        if (ask.data->left)
            return ask_refuse(&ask, RODA_E_ARGUMENT, "you have quit");
    }
    return handle_ask(&ask);
}

static void arrive(struct roda_ctx *x, struct roda_event *ev, uint64_t destination)
{
    if (destination & DESTINATION_DIRECT)
        direct_arrive(x, ev, destination);
    else
        home_arrive(x, ev, destination & IDS_MASK);
}

static void distributed(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination)
{
    if (destination & DESTINATION_DIRECT)
        direct_distributed(x, msg, destination);
    else
        local_distributed(x, msg, destination);
}

/* ---- life ------------------------------------------------------------------------------------ */

static int check(const void *conf, struct roda_conf_errors *errors)
{
    const struct rooms_conf *rooms = conf;
    struct roda_str first = {rooms->first_room, strlen(rooms->first_room)};

    if (first.len && roda_text_check(first, RODA_TEXT_ROOM))
        return roda_conf_error(errors, "first_room",
                               "not the name of a room: at most 64 bytes of letters, digits and "
                               "_ - . / and the like, without the '#'");
    return 0;
}

static int init(struct roda_ctx *x)
{
    struct directory *directory;
    int r = directory_new(x, (uint32_t)conf_of(x)->max_rooms, &directory);

    if (!r)
        x->shared = directory;
    return r;
}

static void stop(struct roda_ctx *x)
{
    event_stop(x);
    direct_stop(x);
    home_stop(x);
    local_stop(x);
}

static int start(struct roda_ctx *x)
{
    struct rooms_state *state = state_of(x);
    uint32_t n = (uint32_t)conf_of(x)->max_rooms;

    state->history = roda_service(x, RODA_HISTORY_ID, &state->history_ctx);
    state->n_indexes = n;
    state->homes = roda_alloc(x, n * sizeof(struct home *));
    state->locals = roda_alloc(x, n * sizeof(struct local *));
    state->sightings = roda_alloc(x, SIGHTING_CHAINS * sizeof(struct sighting *));
    if (state->homes && state->locals && state->sightings)
        return 0;
    stop(x);
    return -ENOMEM;
}

static void fini(struct roda_ctx *x)
{
    directory_free(x, x->shared);
    x->shared = NULL;
}

static const struct roda_option options[] = {
    {.name = "first_room",
     .type = RODA_T_STRING,
     .offset = offsetof(struct rooms_conf, first_room),
     .initial = "lobby",
     .min = 0,
     .max = 64,
     .flags = RODA_OPTION_LISTENER | RODA_OPTION_NEW,
     .help = "room that everybody enters at once; empty: none"},
    {.name = "create",
     .type = RODA_T_CHOICE,
     .offset = offsetof(struct rooms_conf, create),
     .initial = "anyone",
     .choices = "anyone|nobody",
     .help = "who may make a room by joining it"},
    {.name = "max_rooms",
     .type = RODA_T_INT,
     .offset = offsetof(struct rooms_conf, max_rooms),
     .initial = "10000",
     .min = 1,
     .max = 10000000,
     .flags = RODA_OPTION_RESTART,
     .help = "how many rooms there may be"},
    {.name = "max_members",
     .type = RODA_T_INT,
     .offset = offsetof(struct rooms_conf, max_members),
     .initial = "0",
     .min = 0,
     .max = 10000000,
     .help = "how many may be in one room; 0: any number"},
    {.name = "rooms_per_connection",
     .type = RODA_T_INT,
     .offset = offsetof(struct rooms_conf, rooms_per_connection),
     .initial = "50",
     .min = 1,
     .max = 10000,
     .help = "how many rooms one connection may be in"},
    {.name = "presence_up_to",
     .type = RODA_T_INT,
     .offset = offsetof(struct rooms_conf, presence_up_to),
     .initial = "200",
     .min = 0,
     .max = 10000000,
     .help = "rooms with more members show nobody who comes, goes or changes name"},
    {.name = "max_pairs",
     .type = RODA_T_INT,
     .offset = offsetof(struct rooms_conf, max_pairs),
     .initial = "10000",
     .min = 16,
     .max = 10000000,
     .help = "how many pairs of people writing to each other a worker remembers"},
    {.name = NULL},
};

static const struct roda_metric metrics[] = {
    [ROOMS_OPEN] = {"rooms_open", RODA_GAUGE, "rooms there are"},
    [ROOMS_MEMBERS] = {"rooms_members", RODA_GAUGE, "members of all rooms"},
    [ROOMS_JOINS] = {"rooms_joins_total", RODA_COUNTER, "members who came into a room"},
    [ROOMS_PARTS] = {"rooms_parts_total", RODA_COUNTER, "members who left a room, or were put out"},
    [ROOMS_MESSAGES] = {"rooms_messages_total", RODA_COUNTER, "texts and notices said in rooms"},
    [ROOMS_DIRECT] = {"rooms_direct_total", RODA_COUNTER, "messages to one person"},
    [ROOMS_REFUSED] = {"rooms_refused_total", RODA_COUNTER, "messages that this plugin refused"},
    [ROOMS_NICK_CHANGES] = {"rooms_nick_changes_total", RODA_COUNTER,
                            "people who took another nick"},
    {.name = NULL},
};

static const struct roda_service_table services[] = {
    {.id = RODA_ROOMS_ID, .interface = &rooms_service},
    {.id = NULL},
};

static const char *const needs[] = {RODA_HISTORY_ID "?", NULL};

RODA_PLUGIN(.name = "rooms", .summary = "rooms and people, for all protocols", .version = "0.1.0",
            .conf_size = sizeof(struct rooms_conf), .state_size = sizeof(struct rooms_state),
            .conn_size = sizeof(struct rooms_conn), .options = options, .metrics = metrics,
            .services = services, .needs = needs,
            .kinds = RODA_KIND_BIT(RODA_TEXT) | RODA_KIND_BIT(RODA_NOTICE) |
                     RODA_KIND_BIT(RODA_TOPIC) | RODA_KIND_BIT(RODA_KICK) |
                     RODA_KIND_BIT(RODA_MODE) | RODA_KIND_BIT(RODA_JOIN) |
                     RODA_KIND_BIT(RODA_PART) | RODA_KIND_BIT(RODA_QUIT) |
                     RODA_KIND_BIT(RODA_NICK) | RODA_KIND_BIT(RODA_AWAY) |
                     RODA_KIND_BIT(RODA_TYPING) | RODA_KIND_BIT(RODA_INVITE),
            .check = check, .init = init, .start = start, .stop = stop, .fini = fini,
            .handle = handle, .arrive = arrive, .distributed = distributed, .ready = people_ready,
            .closed = people_closed);
