#include "fake_rooms.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/*
 * Messages go through one lane on the first worker, as the real owner's do, so that answers come
 * later, in order, and with numbers. Connections are on that worker, too.
 */

struct fake_rooms fake_rooms;

enum { CONNS_MAX = 32, ROOMS_MAX = 8, DESTINATION = 7 };

struct state {
    struct roda_lane *lane;
    struct roda_conn *conns[CONNS_MAX];
    size_t n_conns;
    uint32_t guests;
};

struct member {
    uint8_t n_rooms;
    char rooms[ROOMS_MAX][72];
};

struct asked { /* a list that was asked for; answered in the next turn */
    struct roda_item item;
    char room[72];
    uint64_t after;
    uint32_t max;
    roda_members_fn *members;
    roda_room_list_fn *rooms;
    void *arg;
};

void fake_rooms_reset(void)
{
    memset(&fake_rooms, 0, sizeof(fake_rooms));
    fake_rooms.topic = "";
    fake_rooms.refuse_text = "";
    fake_rooms.n_listed = 2;
}

static struct roda_str str(const char *text)
{
    return (struct roda_str){text, strlen(text)};
}

static void write_down(const struct roda_msg *msg)
{
    size_t len = strlen(fake_rooms.seen), size = sizeof(fake_rooms.seen);

    (void)snprintf(fake_rooms.seen + len, size - len, "%u+%u %.*s|%.*s|%.*s\n", msg->kind,
                   msg->flags, (int)msg->to.len, msg->to.ptr, (int)msg->subject.len,
                   msg->subject.ptr, (int)msg->text.len, msg->text.ptr);
}

/* ---- what rooms/1 tells ----------------------------------------------------------------- */

static void fill(struct roda_ctx *x, struct roda_str name, struct roda_room *ret)
{
    struct state *state = x->state;

    *ret = (struct roda_room){.id = 1,
                              .name = name,
                              .topic = str(fake_rooms.topic),
                              .epoch = 1,
                              .number = roda_lane_number(state->lane),
                              .members = (uint32_t)state->n_conns,
                              .modes = fake_rooms.modes};
}

static size_t joined(struct roda_ctx *x, const struct roda_conn *c, struct roda_room *ret,
                     size_t max)
{
    struct member *member = roda_conn_data(x, c);

    for (size_t i = 0; i < member->n_rooms && i < max; i++)
        fill(x, str(member->rooms[i]), &ret[i]);
    return member->n_rooms;
}

static int find(struct roda_ctx *x, const struct roda_conn *c, struct roda_str name,
                struct roda_room *ret)
{
    struct member *member = roda_conn_data(x, c);

    for (size_t i = 0; i < member->n_rooms; i++) {
        if (strlen(member->rooms[i]) != name.len || memcmp(member->rooms[i], name.ptr, name.len))
            continue;
        fill(x, str(member->rooms[i]), ret);
        return 0;
    }
    return -ENOENT;
}

static struct roda_person *make_person(struct roda_ctx *x, const char *nick, const char *away)
{
    struct roda_str fields[RODA_PERSON_FIELDS] = {
        [RODA_PERSON_NICK] = str(nick),   [RODA_PERSON_ACCOUNT] = str(""),
        [RODA_PERSON_HOST] = str("host"), [RODA_PERSON_NAME] = str(""),
        [RODA_PERSON_AWAY] = str(away),   [RODA_PERSON_DOOR] = str("line"),
    };

    return roda_person_make(x, 0, fields);
}

static void give_members(struct roda_ctx *x, const struct asked *asked, size_t n, uint64_t next,
                         int error)
{
    struct roda_member members[256] = {{0}};
    size_t made = 0;

    for (; made < n; made++) {
        char nick[32];
        (void)snprintf(nick, sizeof(nick), "m%u", (unsigned)(asked->after + made));
        members[made] =
            (struct roda_member){.person = make_person(x, nick, made % 2 ? "lunch" : ""),
                                 .rank = (uint32_t)((asked->after + made) % 4)};
        if (!members[made].person)
            break;
    }
    if (made < n)
        asked->members(asked->arg, members, 0, 0, -ENOMEM);
    else
        asked->members(asked->arg, members, n, next, error);
    while (made)
        roda_person_unref(members[--made].person);
}

static void give_rooms(struct roda_ctx *x, const struct asked *asked, size_t n, uint64_t next,
                       int error)
{
    struct roda_room rooms[256] = {{0}};
    char names[256][24];

    for (size_t i = 0; i < n; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "r%u", (unsigned)(asked->after + i));
        fill(x, str(names[i]), &rooms[i]);
    }
    asked->rooms(asked->arg, rooms, n, next, error);
}

static void give(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct asked *asked = (struct asked *)(void *)item;
    size_t left = fake_rooms.n_listed - asked->after;
    size_t n = left < asked->max ? left : asked->max;
    uint64_t next = n < left ? asked->after + n : 0;

    if (!result && asked->after && fake_rooms.list_error)
        result = fake_rooms.list_error;
    if (!result && !strcmp(asked->room, "nowhere"))
        result = -ENOENT;
    if (result)
        n = next = 0;
    if (asked->members)
        give_members(x, asked, n, next, result);
    else
        give_rooms(x, asked, n, next, result);
    roda_free(x, asked);
}

static int ask(struct roda_ctx *x, struct asked what)
{
    struct asked *asked = roda_alloc(x, sizeof(*asked));

    if (!asked)
        return -ENOMEM;
    *asked = what;
    asked->item.run = give;
    roda_post(x, x->worker, &asked->item);
    return 0;
}

static int members(struct roda_ctx *x, struct roda_str room, uint64_t after, uint32_t max,
                   roda_members_fn *fn, void *arg)
{
    struct asked asked = {.after = after, .max = max, .members = fn, .arg = arg};

    if (room.len >= sizeof(asked.room))
        return -ENOENT;
    memcpy(asked.room, room.ptr, room.len);
    return ask(x, asked);
}

static int list(struct roda_ctx *x, uint64_t after, uint32_t max, roda_room_list_fn *fn, void *arg)
{
    return ask(x, (struct asked){.after = after, .max = max, .rooms = fn, .arg = arg});
}

static struct roda_person *person(struct roda_ctx *x, struct roda_str nick, roda_conn_id *ret_conn)
{
    (void)x;
    (void)nick;
    (void)ret_conn;
    return NULL;
}

static const struct roda_rooms service = {.size = sizeof(service),
                                          .joined = joined,
                                          .find = find,
                                          .members = members,
                                          .list = list,
                                          .person = person};

/* ---- messages --------------------------------------------------------------------------- */

static void leave(struct member *member, struct roda_str name)
{
    for (size_t i = 0; i < member->n_rooms; i++) {
        if (strlen(member->rooms[i]) != name.len || memcmp(member->rooms[i], name.ptr, name.len))
            continue;
        member->n_rooms--;
        memmove(member->rooms[i], member->rooms[i + 1],
                (member->n_rooms - i) * sizeof(member->rooms[0]));
        return;
    }
}

/* What a message changes for its sender, before it is shown. */
static void apply(struct roda_ctx *x, struct roda_conn *c, const struct roda_msg *msg)
{
    struct member *member = roda_conn_data(x, c);
    char nick[600];

    if (msg->kind == RODA_PART)
        leave(member, msg->to);
    if (msg->kind == RODA_JOIN && member->n_rooms < ROOMS_MAX && msg->to.len < 72) {
        memcpy(member->rooms[member->n_rooms], msg->to.ptr, msg->to.len);
        member->rooms[member->n_rooms++][msg->to.len] = '\0';
    }
    if (msg->kind == RODA_NICK) {
        (void)snprintf(nick, sizeof(nick), "%.*s", (int)msg->text.len, msg->text.ptr);
        struct roda_person *after = make_person(x, nick, "");
        if (after)
            roda_conn_set_person(c, after);
    }
}

static int names_are_allowed(const struct roda_msg *msg)
{
    uint32_t rule = msg->flags & RODA_MSG_DIRECT ? RODA_TEXT_NICK : RODA_TEXT_ROOM;

    if (msg->kind == RODA_NICK)
        return !roda_text_check(msg->text, RODA_TEXT_NICK);
    return !msg->to.len || !roda_text_check(msg->to, rule);
}

static int handle(struct roda_ctx *x, struct roda_event *ev)
{
    if (!names_are_allowed(ev->msg)) {
        roda_refuse(x, ev, RODA_E_NAME, "that name is not allowed");
        return RODA_HANDLED;
    }
    int routed = roda_route(x, ev, 0, DESTINATION);

    if (routed == RODA_LATER)
        return routed;
    write_down(ev->msg);
    if (ev->conn && !fake_rooms.refuse_code)
        apply(x, ev->conn, ev->msg);
    return routed;
}

static void arrive(struct roda_ctx *x, struct roda_event *ev, uint64_t destination)
{
    struct state *state = x->state;

    (void)destination;
    if (fake_rooms.refuse_code && ev->msg->from)
        roda_refuse(x, ev, fake_rooms.refuse_code, "%s", fake_rooms.refuse_text);
    else
        (void)roda_lane_publish(x, state->lane, roda_msg_ref(ev->msg));
}

static void let_out(struct roda_ctx *x, void *arg, struct roda_msg *msg, int result)
{
    struct roda_workers workers = {{0}};

    (void)arg;
    (void)result;
    RODA_WORKERS_ADD(&workers, 0);
    roda_distribute(x, msg, &workers, DESTINATION);
}

static void distributed(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination)
{
    struct state *state = x->state;

    (void)destination;
    roda_fanout(x, msg, state->conns, state->n_conns);
}

void fake_rooms_tell(struct roda_ctx *x, uint32_t kind, uint32_t flags, const char *nick,
                     const char *to, const char *subject, const char *text)
{
    struct state *state = x->state;
    struct roda_person *sender = nick ? make_person(x, nick, "") : NULL;
    struct roda_msg_init init = {.size = sizeof(init),
                                 .kind = kind,
                                 .flags = flags,
                                 .sender = sender,
                                 .to = str(to),
                                 .subject = str(subject),
                                 .text = str(text)};
    struct roda_msg *msg = roda_msg_make(x, &init, NULL);

    roda_person_unref(sender);
    if (msg)
        (void)roda_lane_publish(x, state->lane, msg);
}

/* ---- people ----------------------------------------------------------------------------- */

static void ready(struct roda_ctx *x, struct roda_conn *c)
{
    struct state *state = x->state;
    struct roda_msg_init init = {.size = sizeof(init),
                                 .kind = RODA_JOIN,
                                 .from = roda_conn_getid(c),
                                 .to = str("lobby"),
                                 .subject = str(""),
                                 .text = str("")};
    struct roda_person *guest;
    struct roda_msg *msg;
    char nick[32];

    if (fake_rooms.absent || state->n_conns == CONNS_MAX)
        return;
    (void)snprintf(nick, sizeof(nick), "guest%u", ++state->guests);
    guest = make_person(x, nick, "");
    if (!guest)
        return;
    roda_conn_set_person(c, guest);
    state->conns[state->n_conns++] = c;
    init.sender = guest;
    msg = roda_msg_make(x, &init, NULL);
    if (msg)
        roda_submit(x, c, msg);
}

static void closed(struct roda_ctx *x, struct roda_conn *c, const char *reason, int shutdown)
{
    struct state *state = x->state;

    (void)reason;
    (void)shutdown;
    for (size_t i = 0; i < state->n_conns; i++)
        if (state->conns[i] == c)
            state->conns[i] = state->conns[--state->n_conns];
}

static int start(struct roda_ctx *x)
{
    struct state *state = x->state;
    int error = roda_lane_new(x, let_out, NULL, &state->lane);

    if (!error)
        roda_lane_set(state->lane, 1, fake_rooms.number, 0);
    return error;
}

static void stop(struct roda_ctx *x)
{
    struct state *state = x->state;

    roda_lane_free(state->lane);
}

static const struct roda_service_table services[] = {{RODA_ROOMS_ID, &service}, {.id = NULL}};

RODA_PLUGIN(.name = "rooms", .summary = "rooms for tests", .version = "0",
            .state_size = sizeof(struct state), .conn_size = sizeof(struct member),
            .services = services, .kinds = ~(uint64_t)1, .start = start, .stop = stop,
            .handle = handle, .arrive = arrive, .distributed = distributed, .ready = ready,
            .closed = closed);
