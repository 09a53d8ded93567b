#include "show.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/*
 * Nothing that anybody sends can look like a line of the broker's own, because no line begins with
 * anything that somebody chose freely:
 *
 *   "* ..."                        the broker's own: what happened, and answers
 *   "! ..."                        the broker's own: why something was refused
 *   "=xxxxxxxx"                    the broker's own: a cookie (datagrams only)
 *   "[NUMBER ]PLACE NICK: TEXT"    a message; PLACE is a room, or "@": for you alone
 *   "[NUMBER ]PLACE * NICK TEXT"   an action (/me)
 *   "[NUMBER ]PLACE -NICK- TEXT"   a notice, from a program
 *   "TIME ..."                     any of these or of "* NICK ...", said before; see history.c
 *
 * Names hold no spaces and none of ":*!@", and nicks begin with no digit and no dash; so the word
 * behind PLACE always tells who speaks and how, and text begins only behind it. A text of several
 * lines repeats the front on each. TIME is one word with colons in it (RFC 3339, in UTC), which no
 * number and no name is; so what follows it is exactly the line that was shown live, and yet none
 * can be taken for the other.
 *
 * Among the broker's own lines, those about people begin with a nick, and those that answer begin
 * with a number, a word with a colon or comma, or one of reply_words. Somebody who calls himself
 * by such a word is shown with "@" in front of it in the lines about people: "* pong joined 413"
 * can be nobody's joining.
 *
 * The encoder knows no connection: its lines are made once for all readers of a variant. The one
 * bit of the variant is "numbers on"; in presence, which has no number, it does not matter.
 */

const uint32_t line_variant_masks[RODA_KIND_MAX + 1] = {
    [RODA_TEXT] = LINE_VARIANT_NUMBERS,  [RODA_NOTICE] = LINE_VARIANT_NUMBERS,
    [RODA_TOPIC] = LINE_VARIANT_NUMBERS, [RODA_KICK] = LINE_VARIANT_NUMBERS,
    [RODA_MODE] = LINE_VARIANT_NUMBERS,  [RODA_RENAME] = LINE_VARIANT_NUMBERS,
};

static const char *const reply_words[] = {
    "you",  "pong", "who",     "room", "rooms",  "topic",   "mode",
    "help", "the",  "numbers", "no",   "notice", "goodbye", "history",
};

/* ---- one line --------------------------------------------------------------------------- */

struct past { /* what stands in front of each line of one message; nothing, if it is live */
    char time[24];
};

struct show show_begin(struct roda_out *out)
{
    return (struct show){.out = out, .left_bytes = roda_out_limit(out)};
}

void show_put(struct show *s, struct roda_str bytes)
{
    s->left_bytes -= bytes.len < s->left_bytes ? bytes.len : s->left_bytes;
    roda_out_put(s->out, bytes);
}

void show_word(struct show *s, const char *word)
{
    show_put(s, (struct roda_str){word, strlen(word)});
}

void show_number(struct show *s, uint64_t number)
{
    char digits[24];
    int n = snprintf(digits, sizeof(digits), "%" PRIu64, number);

    show_put(s, (struct roda_str){digits, (size_t)n});
}

void show_end(struct show *s)
{
    roda_out_unit(s->out);
}

/* Length of the control sequence at text, 0 if there is none. Control characters that IRC uses
 * for colours and the like are text for other protocols and mean something else to a terminal;
 * 03 is followed by colours in digits. Others never come here: roda_msg_make() refuses them. */
static size_t control_length(const char *text, size_t len)
{
    size_t n = 1;

    if ((unsigned char)text[0] >= 0x20 || text[0] == '\t' || text[0] == '\n')
        return 0;
    if (text[0] != 0x03)
        return 1;
    while (n < len && n < 3 && text[n] >= '0' && text[n] <= '9')
        n++;
    if (n > 1 && n + 1 < len && text[n] == ',' && text[n + 1] >= '0' && text[n + 1] <= '9') {
        n += 2;
        if (n < len && text[n] >= '0' && text[n] <= '9')
            n++;
    }
    return n;
}

/* Length of what is shown as it stands, up to the next control character or LF. */
static size_t plain_length(const char *text, size_t len)
{
    size_t n = 0;

    while (n < len && ((unsigned char)text[n] >= 0x20 || text[n] == '\t'))
        n++;
    return n;
}

/* What is shown of the next piece of *text, which is cut off it; empty for control characters. */
static struct roda_str take_piece(struct roda_str *text)
{
    struct roda_str piece = {text->ptr, plain_length(text->ptr, text->len)};
    size_t used = piece.len;

    if (!piece.len) {
        used = control_length(text->ptr, text->len);
        if (!used) {
            piece = RODA_STR(" "); /* in place of LF */
            used = 1;
        }
    }
    text->ptr += used;
    text->len -= used;
    return piece;
}

static size_t shown_length(struct roda_str text)
{
    size_t total = 0;

    while (text.len)
        total += take_piece(&text).len;
    return total;
}

/* The largest length up to max at which text, which is longer, can be cut without splitting a
 * character. */
static size_t cut_length(const char *text, size_t max)
{
    while (max && ((unsigned char)text[max] & 0xc0) == 0x80)
        max--;
    return max;
}

static void put_at_most(struct show *s, struct roda_str text, size_t max)
{
    while (text.len && max) {
        struct roda_str piece = take_piece(&text);

        if (piece.len > max) {
            piece.len = cut_length(piece.ptr, max);
            max = piece.len;
        }
        show_put(s, piece);
        max -= piece.len;
    }
}

void show_name(struct show *s, struct roda_str name)
{
    put_at_most(s, name, SIZE_MAX);
}

void show_text(struct show *s, struct roda_str text, size_t reserved_bytes)
{
    size_t left = s->left_bytes > reserved_bytes ? s->left_bytes - reserved_bytes : 0;
    char mark[40];
    int n;

    if (text.len <= left && plain_length(text.ptr, text.len) == text.len) {
        show_put(s, text);
        return;
    }
    if (shown_length(text) <= left) {
        put_at_most(s, text, SIZE_MAX);
        return;
    }
    n = snprintf(mark, sizeof(mark), "... (%zu bytes)", text.len);
    put_at_most(s, text, left > (size_t)n ? left - (size_t)n : 0);
    show_put(s, (struct roda_str){mark, (size_t)n});
}

/* ---- messages --------------------------------------------------------------------------- */

static struct show begin_message(struct roda_out *out, const struct past *past)
{
    struct show s = show_begin(out);

    show_word(&s, past->time);
    return s;
}

static struct roda_str nick_of(const struct roda_msg *msg)
{
    return msg->sender ? roda_person_get(msg->sender, RODA_PERSON_NICK) : RODA_STR("");
}

static void show_talk_line(struct show *s, const struct roda_msg *msg, struct roda_str line,
                           uint32_t variant)
{
    struct roda_str nick = nick_of(msg);

    if (variant & LINE_VARIANT_NUMBERS && msg->number) {
        show_number(s, msg->number);
        show_word(s, " ");
    }
    show_name(s, msg->flags & RODA_MSG_DIRECT ? RODA_STR("@") : msg->to);
    if (msg->kind == RODA_NOTICE) {
        show_word(s, " -");
        show_name(s, nick);
        show_word(s, "- ");
    } else if (msg->flags & RODA_MSG_ACTION) {
        show_word(s, " * ");
        show_name(s, nick);
        show_word(s, " ");
    } else {
        show_word(s, " ");
        show_name(s, nick);
        show_word(s, ": ");
    }
    show_text(s, line, 0);
    show_end(s);
}

/* What the broker itself says. */
static void show_announcement_line(struct show *s, const struct roda_msg *msg, struct roda_str line,
                                   uint32_t variant)
{
    show_word(s, "* ");
    if (variant & LINE_VARIANT_NUMBERS && msg->number && !(msg->flags & RODA_MSG_DIRECT)) {
        show_number(s, msg->number);
        show_word(s, " ");
        show_name(s, msg->to);
        show_word(s, " ");
    }
    show_word(s, "notice to ");
    show_name(s, msg->flags & RODA_MSG_DIRECT ? RODA_STR("you") : msg->to);
    show_word(s, ": ");
    show_text(s, line, 0);
    show_end(s);
}

static void show_talk(const struct roda_msg *msg, uint32_t variant, struct roda_out *out,
                      const struct past *past)
{
    struct roda_str rest = msg->text;

    for (;;) {
        const char *end =
            msg->flags & RODA_MSG_MULTILINE && rest.len ? memchr(rest.ptr, '\n', rest.len) : NULL;
        struct roda_str line = {rest.ptr, end ? (size_t)(end - rest.ptr) : rest.len};
        struct show s = begin_message(out, past);

        if (msg->sender)
            show_talk_line(&s, msg, line, variant);
        else
            show_announcement_line(&s, msg, line, variant);
        if (!end)
            return;
        rest.len -= line.len + 1;
        rest.ptr = end + 1;
    }
}

/* A nick where a line about people begins. */
static void show_nick(struct show *s, struct roda_str nick)
{
    for (size_t i = 0; i < sizeof(reply_words) / sizeof(*reply_words); i++)
        if (nick.len == strlen(reply_words[i]) && !strncasecmp(nick.ptr, reply_words[i], nick.len))
            show_word(s, "@");
    show_name(s, nick);
}

static void show_reason(struct show *s, struct roda_str reason)
{
    if (!reason.len)
        return;
    show_word(s, " (");
    show_text(s, reason, 1);
    show_word(s, ")");
}

static void show_mode(struct show *s, const struct roda_msg *msg)
{
    int is_key = msg->text.len == 2 && !memcmp(msg->text.ptr, "+k", 2);

    show_word(s, " set ");
    show_name(s, msg->text);
    if (msg->subject.len && !is_key) {
        show_word(s, " ");
        show_name(s, msg->subject);
    }
    show_word(s, " in ");
    show_name(s, msg->to);
}

static void show_away(struct show *s, const struct roda_msg *msg, const char *who)
{
    show_word(s, who ? " are " : " is ");
    if (!msg->text.len) {
        show_word(s, "back");
        return;
    }
    show_word(s, "away: ");
    show_text(s, msg->text, 0);
}

static void show_topic_change(struct show *s, const struct roda_msg *msg)
{
    show_word(s, msg->text.len ? " set the topic of " : " took away the topic of ");
    show_name(s, msg->to);
    if (msg->text.len) {
        show_word(s, ": ");
        show_text(s, msg->text, 0);
    }
}

static void show_rest_of_event(struct show *s, const struct roda_msg *msg, const char *who)
{
    switch (msg->kind) {
    case RODA_TOPIC:
        show_topic_change(s, msg);
        return;
    case RODA_KICK:
        show_word(s, " put ");
        show_name(s, msg->subject);
        show_word(s, " out of ");
        show_name(s, msg->to);
        show_reason(s, msg->text);
        return;
    case RODA_MODE:
        show_mode(s, msg);
        return;
    case RODA_RENAME:
        show_word(s, " renamed ");
        show_name(s, msg->to);
        show_word(s, " to ");
        show_name(s, msg->text);
        return;
    case RODA_JOIN:
        show_word(s, " joined ");
        show_name(s, msg->to);
        return;
    case RODA_PART:
        show_word(s, " left ");
        show_name(s, msg->to);
        show_reason(s, msg->text);
        return;
    case RODA_QUIT:
        show_word(s, " quit");
        show_reason(s, msg->text);
        return;
    case RODA_NICK:
        show_word(s, who ? " are " : " is now ");
        show_name(s, msg->after ? roda_person_get(msg->after, RODA_PERSON_NICK) : msg->text);
        if (who)
            show_word(s, " now");
        return;
    case RODA_AWAY:
        show_away(s, msg, who);
        return;
    default: /* INVITE */
        show_word(s, " invited ");
        show_name(s, msg->subject);
        show_word(s, " to ");
        show_name(s, msg->to);
        return;
    }
}

int show_event(struct show *s, const struct roda_msg *msg, const char *who)
{
    switch (msg->kind) {
    case RODA_TOPIC:
    case RODA_KICK:
    case RODA_MODE:
    case RODA_RENAME:
    case RODA_JOIN:
    case RODA_PART:
    case RODA_QUIT:
    case RODA_NICK:
    case RODA_AWAY:
    case RODA_INVITE:
        break;
    default:
        return 0;
    }
    if (who)
        show_word(s, who);
    else if (msg->sender)
        show_nick(s, nick_of(msg));
    else
        show_word(s, "the broker");
    show_rest_of_event(s, msg, who);
    return 1;
}

static int is_shown(uint32_t kind)
{
    return (kind >= RODA_TEXT && kind <= RODA_RENAME) || (kind >= RODA_JOIN && kind <= RODA_AWAY) ||
           kind == RODA_INVITE;
}

static void show_message(const struct roda_msg *msg, uint32_t variant, struct roda_out *out,
                         const struct past *past)
{
    struct show s;

    if (!is_shown(msg->kind))
        return;
    if (msg->kind == RODA_TEXT || msg->kind == RODA_NOTICE) {
        show_talk(msg, variant, out, past);
        return;
    }
    s = begin_message(out, past);
    show_word(&s, "* ");
    if (variant & LINE_VARIANT_NUMBERS && RODA_KIND_NUMBERED(msg->kind)) {
        show_number(&s, msg->number);
        show_word(&s, " ");
        show_name(&s, msg->to);
        show_word(&s, " ");
    }
    (void)show_event(&s, msg, NULL);
    show_end(&s);
}

void show_encode(struct roda_ctx *x, const struct roda_msg *msg, uint32_t variant,
                 struct roda_out *out)
{
    static const struct past live;

    (void)x;
    show_message(msg, variant, out, &live);
}

void show_past(const struct roda_msg *msg, uint32_t variant, struct roda_out *out)
{
    time_t seconds = (time_t)(msg->time_ns / 1000000000);
    struct past past;
    struct tm utc;

    /* The year has four digits for as long as 64 bits of nanoseconds last. */
    if (!gmtime_r(&seconds, &utc) ||
        !strftime(past.time, sizeof(past.time), "%Y-%m-%dT%H:%M:%SZ ", &utc))
        past.time[0] = '\0';
    show_message(msg, variant, out, &past);
}
