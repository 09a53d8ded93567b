#include "line.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/*
 * From a unit to what is done with it:
 *
 *   unit -> telnet's commands off -> cookie off (datagrams) -> line_parse() -> a message submitted
 *                                                                           -> or a reply
 *
 * A message is submitted at once; its answer comes through line_answer(). Everything that is
 * answered here, refusals included, first waits until nothing of the connection is under way, so
 * that answers come in the order of the lines and /ping is a barrier. A line that needs the
 * current room waits likewise while a join or part is under way, since those change it: of
 * "/join ops" and "hello" sent together, hello goes to ops.
 *
 * Waiting is returning RODA_AGAIN: the same unit comes again, so nothing may have been changed by
 * then. The state of telnet's subnegotiation is therefore kept only when the unit was taken.
 */

#define JOIN_COST 1u /* besides the one of every message */

struct task { /* one unit being carried out */
    struct roda_ctx *x;
    struct roda_conn *c;
    struct line_conn *data;
    struct roda_str unit; /* as the client typed it */
    struct line_command command;
};

static const struct line_state *state_of(const struct task *task)
{
    return task->x->state;
}

/* ---- messages --------------------------------------------------------------------------- */

/* The room that was named, or the current one; empty: there is none, or (RODA_AGAIN) it is not
 * known yet which it is. */
static int target_room(const struct task *task, struct roda_str *ret_room)
{
    if (task->command.room.len) {
        *ret_room = task->command.room;
        return RODA_TAKEN;
    }
    if ((task->data->moves || !task->data->room) && !roda_settled(task->c))
        return RODA_AGAIN;
    *ret_room = line_room(task->data);
    return RODA_TAKEN;
}

static int refuse_later_or_now(const struct task *task, int error)
{
    if (!roda_settled(task->c))
        return RODA_AGAIN;
    line_refuse_unit(task->x, task->c, task->unit, error);
    return RODA_TAKEN;
}

static void remember(const struct task *task, uint32_t kind)
{
    if (kind == RODA_JOIN || kind == RODA_PART)
        task->data->moves++;
    if (kind == RODA_NICK)
        task->data->flags |= LINE_RENAMING;
    if (kind == RODA_QUIT)
        task->data->flags |= LINE_LEAVING;
}

/* An argument that was not given. */
static void fill_up(struct roda_str *text)
{
    if (!text->ptr)
        *text = RODA_STR("");
}

static int submit(const struct task *task, struct roda_msg_init *init)
{
    struct roda_msg *msg;
    int error = 0;

    fill_up(&init->to);
    fill_up(&init->subject);
    fill_up(&init->text);
    init->size = sizeof(*init);
    init->from = roda_conn_getid(task->c);
    init->token = LINE_TOKEN;
    init->sender = roda_conn_person(task->c);
    if (!init->sender) {
        if (!roda_settled(task->c))
            return RODA_AGAIN;
        line_refuse(task->c, "that line was not sent: you have no name yet, try again");
        return RODA_TAKEN;
    }
    if ((init->kind == RODA_JOIN || init->kind == RODA_PART) && task->data->moves == UINT8_MAX)
        return RODA_AGAIN;
    msg = roda_msg_make(task->x, init, &error);
    if (!msg)
        return refuse_later_or_now(task, error);
    remember(task, init->kind);
    if (init->kind == RODA_JOIN)
        roda_charge(task->x, task->c, JOIN_COST);
    roda_submit(task->x, task->c, msg);
    return RODA_TAKEN;
}

/* To a room: init->to is filled in. */
static int submit_to_room(const struct task *task, struct roda_msg_init *init)
{
    if (target_room(task, &init->to) == RODA_AGAIN)
        return RODA_AGAIN;
    if (init->to.len)
        return submit(task, init);
    if (!roda_settled(task->c))
        return RODA_AGAIN;
    line_refuse(task->c, "you are in no room: /join ROOM");
    return RODA_TAKEN;
}

static int talk(const struct task *task, uint32_t flags)
{
    struct roda_msg_init init = {.kind = RODA_TEXT, .flags = flags, .text = task->command.text};

    return submit_to_room(task, &init);
}

static int msg(const struct task *task)
{
    struct roda_msg_init init = {.kind = RODA_TEXT,
                                 .flags = RODA_MSG_DIRECT,
                                 .to = task->command.name,
                                 .text = task->command.text};

    return task->command.room.len ? talk(task, 0) : submit(task, &init);
}

static int set_topic(const struct task *task)
{
    struct roda_str text = task->command.text;
    struct roda_msg_init init = {.kind = RODA_TOPIC, .text = text};

    if (text.len == 1 && *text.ptr == '-')
        init.text = RODA_STR("");
    return submit_to_room(task, &init);
}

static int change(const struct task *task, const char *mode)
{
    struct roda_msg_init init = {.kind = RODA_MODE,
                                 .subject = task->command.name,
                                 .text = {mode, strlen(mode)}};

    return submit_to_room(task, &init);
}

/* /mode +k KEY: the change is the name, what it is about the text. */
static int change_mode(const struct task *task)
{
    struct roda_msg_init init = {.kind = RODA_MODE,
                                 .subject = task->command.text,
                                 .text = task->command.name};

    return submit_to_room(task, &init);
}

static int submit_command(const struct task *task)
{
    const struct line_command *command = &task->command;
    struct roda_msg_init init = {.text = command->text};

    switch (command->verb) {
    case LINE_NICK:
        init.kind = RODA_NICK;
        init.text = command->name;
        return submit(task, &init);
    case LINE_JOIN:
        init.kind = RODA_JOIN;
        init.to = command->room;
        init.subject = command->name;
        return submit(task, &init);
    case LINE_PART:
        init.kind = RODA_PART;
        return submit_to_room(task, &init);
    case LINE_KICK:
        init.kind = RODA_KICK;
        init.subject = command->name;
        return submit_to_room(task, &init);
    case LINE_INVITE:
        init.kind = RODA_INVITE;
        init.subject = command->name;
        return submit_to_room(task, &init);
    case LINE_AWAY:
        init.kind = RODA_AWAY;
        return submit(task, &init);
    default: /* QUIT */
        init.kind = RODA_QUIT;
        return submit(task, &init);
    }
}

/* ---- replies ---------------------------------------------------------------------------- */

/* The current or named room, if the connection is in it; else it is told, and 0 returned. */
static int find_own_room(const struct task *task, struct roda_room *ret_room)
{
    const struct line_state *state = state_of(task);
    struct roda_str name = task->command.room.len ? task->command.room : line_room(task->data);

    if (!name.len) {
        line_refuse(task->c, "you are in no room: /join ROOM");
        return 0;
    }
    if (state->rooms->find(state->rooms_ctx, task->c, name, ret_room)) {
        line_refuse(task->c, "you are not in %.*s: /join %.*s", (int)name.len, name.ptr,
                    (int)name.len, name.ptr);
        return 0;
    }
    return 1;
}

static void show_rooms_of_mine(const struct task *task)
{
    const struct line_state *state = state_of(task);
    struct roda_room rooms[256];
    struct roda_str current = line_room(task->data);
    struct show s = show_begin(roda_conn_out(task->c));
    size_t max = sizeof(rooms) / sizeof(*rooms);
    size_t n = state->rooms->joined(state->rooms_ctx, task->c, rooms, max);

    if (!n) {
        show_word(&s, "* you are in no room");
        show_end(&s);
        return;
    }
    show_word(&s, "* you are in ");
    show_name(&s, current);
    for (size_t i = 0; i < n && i < max; i++) {
        struct roda_str name = rooms[i].name;
        if (name.len == current.len && !memcmp(name.ptr, current.ptr, name.len))
            continue;
        show_word(&s, ", ");
        show_name(&s, name);
    }
    show_end(&s);
}

static void choose_room(const struct task *task)
{
    struct roda_room room;

    if (!task->command.room.len) {
        show_rooms_of_mine(task);
        return;
    }
    if (!find_own_room(task, &room))
        return;
    line_set_room(task->x, task->c, room.name);
    line_say(task->c, "you talk in %.*s", (int)room.name.len, room.name.ptr);
}

static void show_topic(const struct task *task)
{
    struct roda_room room;

    if (!find_own_room(task, &room))
        return;
    if (room.topic.len)
        line_topic(task->c, room.name, room.topic);
    else
        line_say(task->c, "topic of %.*s is not set", (int)room.name.len, room.name.ptr);
}

static void show_modes(const struct task *task)
{
    static const struct {
        uint32_t bit;
        const char *words;
    } modes[] = {
        {RODA_ROOM_MODERATED, "moderated"},
        {RODA_ROOM_INVITE_ONLY, "invite only"},
        {RODA_ROOM_KEY, "key"},
        {RODA_ROOM_TOPIC_LOCKED, "topic locked"},
        {RODA_ROOM_SECRET, "secret"},
    };
    struct roda_room room;
    const char *between = ": ";
    struct show s;

    if (!find_own_room(task, &room))
        return;
    s = show_begin(roda_conn_out(task->c));
    show_word(&s, "* mode of ");
    show_name(&s, room.name);
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        if (!(room.modes & modes[i].bit))
            continue;
        show_word(&s, between);
        show_word(&s, modes[i].words);
        between = ", ";
    }
    if (*between == ':')
        show_word(&s, ": open to all");
    show_end(&s);
}

static void pong(const struct task *task)
{
    const struct line_state *state = state_of(task);
    struct roda_str name = line_room(task->data), token = task->command.name;
    struct roda_room room = {.number = 0};
    struct show s = show_begin(roda_conn_out(task->c));

    if (name.len)
        (void)state->rooms->find(state->rooms_ctx, task->c, name, &room);
    show_word(&s, "* pong ");
    show_name(&s, name.len ? name : RODA_STR("-"));
    show_word(&s, " ");
    show_number(&s, room.number);
    if (token.len) {
        show_word(&s, " ");
        show_text(&s, token, 0);
    }
    show_end(&s);
}

static void switch_numbers(const struct task *task)
{
    int on = task->command.name.len == 2; /* the grammar let only "on" and "off" pass */
    uint32_t variant = roda_conn_variant(task->c) & 0x00ffffffu & ~LINE_VARIANT_NUMBERS;

    roda_conn_set_variant(task->c, on ? variant | LINE_VARIANT_NUMBERS : variant);
    line_say(task->c, "numbers are %s", on ? "on" : "off");
}

static void list(const struct task *task)
{
    struct roda_str room = task->command.room.len ? task->command.room : line_room(task->data);

    if (task->command.verb == LINE_ROOMS)
        line_list_rooms(task->x, task->c);
    else if (room.len)
        line_list_members(task->x, task->c, room);
    else
        line_refuse(task->c, "you are in no room: /who ROOM");
}

static void show_history(const struct task *task)
{
    struct roda_room room;

    if (!state_of(task)->history)
        line_refuse(task->c, "no history here");
    else if (find_own_room(task, &room))
        line_history(task->x, task->c, &room, &task->command);
}

static void refuse_command(const struct task *task)
{
    const struct line_syntax *syntax = task->command.syntax;
    struct roda_str word = task->command.name;

    if (task->command.verb == LINE_UNKNOWN) {
        size_t len = word.len < 32 ? word.len : 32;
        while (len < word.len && len && ((unsigned char)word.ptr[len] & 0xc0) == 0x80)
            len--;
        line_refuse(task->c, "unknown command /%.*s: /help lists them, //text says /text", (int)len,
                    word.ptr);
        return;
    }
    line_refuse(task->c, "usage: /%s%s%s", syntax->word, *syntax->usage ? " " : "", syntax->usage);
}

static void reply(const struct task *task)
{
    switch (task->command.verb) {
    case LINE_ROOM:
        choose_room(task);
        return;
    case LINE_TOPIC:
        show_topic(task);
        return;
    case LINE_MODE:
        show_modes(task);
        return;
    case LINE_PING:
        pong(task);
        return;
    case LINE_NUMBERS:
        switch_numbers(task);
        return;
    case LINE_WHO:
    case LINE_ROOMS:
        list(task);
        return;
    case LINE_HISTORY:
        show_history(task);
        return;
    case LINE_HELP:
        line_help(task->c, task->command.name);
        return;
    default: /* UNKNOWN, USAGE */
        refuse_command(task);
        return;
    }
}

/* ---- units ------------------------------------------------------------------------------ */

static int carry_out_command(const struct task *task)
{
    int error = roda_text_check(task->unit, RODA_TEXT_LINE);

    if (error)
        return refuse_later_or_now(task, error);
    switch (task->command.verb) {
    case LINE_MSG:
        return msg(task);
    case LINE_ME:
        return talk(task, RODA_MSG_ACTION);
    case LINE_OP:
        return change(task, "+o");
    case LINE_DEOP:
        return change(task, "-o");
    case LINE_VOICE:
        return change(task, "+v");
    case LINE_DEVOICE:
        return change(task, "-v");
    case LINE_BAN:
        return change(task, "+b");
    case LINE_UNBAN:
        return change(task, "-b");
    case LINE_NICK:
    case LINE_JOIN:
    case LINE_PART:
    case LINE_KICK:
    case LINE_INVITE:
    case LINE_AWAY:
    case LINE_QUIT:
        return submit_command(task);
    default:
        break;
    }
    if (task->command.verb == LINE_TOPIC && task->command.text.len)
        return set_topic(task);
    if (task->command.verb == LINE_MODE && task->command.name.len)
        return change_mode(task);
    if (!roda_settled(task->c))
        return RODA_AGAIN;
    reply(task);
    return RODA_TAKEN;
}

static int carry_out(struct roda_ctx *x, struct roda_conn *c, struct roda_str unit)
{
    struct task task = {.x = x, .c = c, .data = line_conn(x, c), .unit = unit};
    int taken;

    if (task.data->flags & LINE_DATAGRAM)
        unit = line_strip_cookie(unit);
    task.command = line_parse(unit);
    if (task.command.verb != LINE_NICK)
        line_welcome_if_due(x, c);
    if (task.command.verb == LINE_NOTHING)
        return RODA_TAKEN;
    if (task.command.verb == LINE_TALK)
        return talk(&task, 0);
    taken = carry_out_command(&task);
    if (taken == RODA_TAKEN)
        line_welcome_if_due(x, c); /* a /nick that could not be sent */
    return taken;
}

static int carry_out_stripped(struct roda_ctx *x, struct roda_conn *c, struct roda_str unit)
{
    struct line_conn *data = line_conn(x, c);
    int inside = data->flags & LINE_SUBNEGOTIATION ? 1 : 0, taken;
    char *plain = roda_alloc(x, unit.len + 1);

    if (!plain) {
        line_refuse_unit(x, c, unit, -ENOMEM);
        return RODA_TAKEN;
    }
    unit.len = line_strip_telnet(unit, plain, &inside);
    unit.ptr = plain;
    taken = carry_out(x, c, unit);
    roda_free(x, plain);
    if (taken != RODA_TAKEN)
        return taken;
    data->flags &= (uint8_t)~LINE_SUBNEGOTIATION;
    if (inside)
        data->flags |= LINE_SUBNEGOTIATION;
    return RODA_TAKEN;
}

int line_decode(struct roda_ctx *x, struct roda_conn *c, struct roda_str unit)
{
    struct line_conn *data = line_conn(x, c);

    if (data->flags & LINE_LEAVING)
        return RODA_TAKEN;
    if (!(data->flags & (LINE_SPOKE | LINE_DATAGRAM))) {
        const char *alien = line_alien(unit);
        if (alien)
            return line_close_alien(x, c, alien);
    }
    data->flags |= LINE_SPOKE;
    if (data->flags & LINE_SUBNEGOTIATION || (unit.len && memchr(unit.ptr, 0xff, unit.len)))
        return carry_out_stripped(x, c, unit);
    return carry_out(x, c, unit);
}
