#include "line.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/*
 * What one connection alone is told. Each line that a client sends and that is not a message is
 * answered at once, each message when the core reports what became of it, at its place in the
 * room's order; and because a line that is answered at once waits until nothing before it is under
 * way (command.c), answers come in the order of the lines.
 *
 * A message that went well is not answered, since silence is what people expect of their own
 * words; with numbers on it is: "* NUMBER ROOM", so that a script, or a datagram session, learns
 * that it arrived and which number it has.
 */

static void say(struct roda_conn *c, const char *front, const char *fmt, va_list args)
    RODA_PRINTF(3, 0);
static void say(struct roda_conn *c, const char *front, const char *fmt, va_list args)
{
    char line[1024];
    struct show s = show_begin(roda_conn_out(c));
    int n = vsnprintf(line, sizeof(line), fmt, args);

    if (n < 0)
        return;
    show_word(&s, front);
    show_text(&s, (struct roda_str){line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1},
              0);
    show_end(&s);
}

void line_say(struct roda_conn *c, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    say(c, "* ", fmt, args);
    va_end(args);
}

void line_refuse(struct roda_conn *c, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    say(c, "! ", fmt, args);
    va_end(args);
}

void line_topic(struct roda_conn *c, struct roda_str room, struct roda_str topic)
{
    struct show s = show_begin(roda_conn_out(c));

    show_word(&s, "* topic of ");
    show_name(&s, room);
    show_word(&s, ": ");
    show_text(&s, topic, 0);
    show_end(&s);
}

/* ---- lines that are not taken ----------------------------------------------------------- */

static int is_forbidden(unsigned char byte)
{
    if (!byte) /* strchr() would find it */
        return 1;
    return byte == 0x7f ||
           (byte < 0x20 && byte != '\t' && !strchr("\x02\x03\x0f\x11\x16\x1d\x1e\x1f", byte));
}

void line_refuse_unit(struct roda_ctx *x, struct roda_conn *c, struct roda_str unit, int error)
{
    roda_count(x, LINE_UNITS_REFUSED, 1);
    switch (error) {
    case -EILSEQ:
        line_refuse(c, "that line was not sent: not UTF-8");
        return;
    case -E2BIG:
        line_refuse(c, "that line was not sent: longer than 64 kB");
        return;
    case -ENOMEM:
        line_refuse(c, "that line was not sent: the broker is out of memory");
        return;
    default:
        break;
    }
    for (size_t i = 0; i < unit.len; i++) {
        if (is_forbidden((unsigned char)unit.ptr[i])) {
            line_refuse(c, "that line was not sent: control character %02X at byte %zu",
                        (unsigned)(unsigned char)unit.ptr[i], i + 1);
            return;
        }
    }
    line_refuse(c, "that line was not sent: control character above U+007F");
}

void line_oversize(struct roda_ctx *x, struct roda_conn *c, size_t bytes)
{
    roda_count(x, LINE_UNITS_REFUSED, 1);
    line_refuse(c, "that line was not sent: too long (%zu bytes)", bytes);
}

void line_closing(struct roda_ctx *x, struct roda_conn *c, const char *reason)
{
    if (line_conn(x, c)->flags & LINE_LEAVING)
        line_say(c, "goodbye");
    else
        line_refuse(c, "closed: %s", reason);
}

/* ---- answers ---------------------------------------------------------------------------- */

static void refuse(struct roda_conn *c, const struct roda_answer *answer)
{
    struct show s;

    if (answer->code == RODA_E_DROPPED) /* without a word: that is what a filter wants by it */
        return;
    s = show_begin(roda_conn_out(c));
    show_word(&s, "! ");
    if (answer->code == RODA_E_STORAGE && answer->msg) { /* which room's, for who is in several */
        show_name(&s, answer->msg->flags & RODA_MSG_DIRECT ? RODA_STR("@") : RODA_STR(""));
        show_name(&s, answer->msg->to);
        show_word(&s, ": ");
    }
    show_text(&s, answer->text.len ? answer->text : RODA_STR("refused"), 0);
    show_end(&s);
}

static struct roda_str my_nick(const struct roda_conn *c)
{
    const struct roda_person *person = roda_conn_person(c);

    return person ? roda_person_get(person, RODA_PERSON_NICK) : RODA_STR("");
}

static struct roda_room find_room(struct roda_ctx *x, const struct roda_conn *c,
                                  struct roda_str name, uint64_t number)
{
    const struct line_state *state = x->state;
    struct roda_room room = {.name = name, .number = number, .members = 1, .topic = RODA_STR("")};

    (void)state->rooms->find(state->rooms_ctx, c, name, &room);
    return room;
}

/* A datagram session is greeted by the name that its first line asks for, if that is /nick: so the
 * welcome waits until the line was read, and /nick answered. */
void line_welcome_if_due(struct roda_ctx *x, struct roda_conn *c)
{
    struct line_conn *data = line_conn(x, c);
    struct roda_str nick = my_nick(c);
    struct roda_room room;

    if ((data->flags & (LINE_WELCOME_DUE | LINE_RENAMING)) != LINE_WELCOME_DUE)
        return;
    data->flags &= (uint8_t)~LINE_WELCOME_DUE;
    room = find_room(x, c, line_room(data), 0);
    line_say(c, "%.*s, %.*s, %" PRIu64 ", ping 25s", (int)nick.len, nick.ptr, (int)room.name.len,
             room.name.ptr, room.number);
    if (room.topic.len)
        line_topic(c, room.name, room.topic);
    line_announce(x, c, room.name);
}

static void welcome(struct roda_conn *c, const struct roda_room *room, int at_connect)
{
    struct roda_str nick = my_nick(c);

    line_say(c, "you are %.*s in %.*s: %" PRIu32 " %s, last message %" PRIu64 "%s", (int)nick.len,
             nick.ptr, (int)room->name.len, room->name.ptr, room->members,
             room->members == 1 ? "person" : "people", room->number,
             at_connect ? "; type to talk, /nick NAME to be called so, /help for help" : "");
    if (room->topic.len)
        line_topic(c, room->name, room->topic);
}

static void joined(struct roda_ctx *x, struct roda_conn *c, const struct roda_answer *answer)
{
    const struct line_conf *conf = roda_conn_conf(x, c);
    struct line_conn *data = line_conn(x, c);
    int at_connect = answer->token != LINE_TOKEN;
    uint64_t number = answer->msg->number ? answer->msg->number : answer->msg->prev;
    struct roda_room room = find_room(x, c, answer->msg->to, number);

    line_set_room(x, c, answer->msg->to);
    if (at_connect && conf->welcome && data->flags & LINE_DATAGRAM) {
        data->flags |= LINE_WELCOME_DUE;
        if (data->flags & LINE_SPOKE)
            line_welcome_if_due(x, c);
        return;
    }
    if (!at_connect || conf->welcome)
        welcome(c, &room, at_connect);
    line_announce(x, c, room.name);
    line_show_before_join(x, c, room.name, answer->msg->prev);
}

/* After the current room was left, the one joined last is current. */
static void left(struct roda_ctx *x, struct roda_conn *c, const struct roda_msg *msg)
{
    const struct line_state *state = x->state;
    struct line_conn *data = line_conn(x, c);
    struct roda_room rooms[256];
    struct roda_str current = line_room(data);
    size_t n;

    if (current.len != msg->to.len || memcmp(current.ptr, msg->to.ptr, current.len) != 0)
        return;
    line_set_room(x, c, RODA_STR(""));
    n = state->rooms->joined(state->rooms_ctx, c, rooms, sizeof(rooms) / sizeof(*rooms));
    if (n > sizeof(rooms) / sizeof(*rooms))
        n = sizeof(rooms) / sizeof(*rooms);
    if (!n)
        return;
    line_set_room(x, c, rooms[n - 1].name);
    line_say(c, "you talk in %.*s", (int)rooms[n - 1].name.len, rooms[n - 1].name.ptr);
}

/* "* NUMBER ROOM", the end of the line left open. */
static struct show begin_done(struct roda_conn *c, const struct roda_msg *msg)
{
    struct show s = show_begin(roda_conn_out(c));

    show_word(&s, "* ");
    if (RODA_KIND_NUMBERED(msg->kind) && roda_conn_variant(c) & LINE_VARIANT_NUMBERS) {
        show_number(&s, msg->number);
        show_word(&s, msg->flags & RODA_MSG_DIRECT ? " @" : " ");
        show_name(&s, msg->to);
    }
    return s;
}

static void done(struct roda_ctx *x, struct roda_conn *c, const struct roda_answer *answer)
{
    const struct roda_msg *msg = answer->msg;
    struct show s;

    if (msg->kind == RODA_JOIN) {
        joined(x, c, answer);
        return;
    }
    if (msg->kind == RODA_NICK && line_conn(x, c)->flags & LINE_WELCOME_DUE)
        return; /* the welcome says it */
    if (msg->kind == RODA_QUIT)
        return; /* so does the goodbye */
    if (msg->kind == RODA_TEXT || msg->kind == RODA_NOTICE) {
        if (!(roda_conn_variant(c) & LINE_VARIANT_NUMBERS))
            return;
        s = begin_done(c, msg);
        show_end(&s);
        return;
    }
    s = begin_done(c, msg);
    if (RODA_KIND_NUMBERED(msg->kind) && roda_conn_variant(c) & LINE_VARIANT_NUMBERS)
        show_word(&s, " ");
    if (!show_event(&s, msg, "you"))
        show_word(&s, "you did that");
    show_end(&s);
    if (msg->kind == RODA_PART)
        left(x, c, msg);
}

void line_answer(struct roda_ctx *x, struct roda_conn *c, const struct roda_answer *answer)
{
    struct line_conn *data = line_conn(x, c);

    if (answer->code == RODA_OK)
        done(x, c, answer);
    else
        refuse(c, answer);
    if (answer->kind == RODA_NICK) {
        data->flags &= (uint8_t)~LINE_RENAMING;
        line_welcome_if_due(x, c);
    }
    if ((answer->kind == RODA_JOIN || answer->kind == RODA_PART) && answer->token == LINE_TOKEN &&
        data->moves)
        data->moves--;
    if (answer->kind == RODA_QUIT && data->flags & LINE_LEAVING)
        roda_conn_close(c, "quit");
}
