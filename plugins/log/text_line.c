#include "text_line.h"

#include <stdio.h>
#include <string.h>

#include "text_name.h"

/*
 * A line is NUMBER TIME ROOM NICK DOOR KIND SUBJECT TEXT, one space behind each field but the last.
 * What users have written is escaped, so that a line ends where the message ends and a field where
 * the field ends: no text can look like a field, and none like a line. What is written depends on
 * the message alone: a line made from a segment's record is the one that was made when the message
 * was shown, byte for byte, which is how text_repair.c compares them.
 */

struct writer {
    char *to;
    size_t size, len; /* len may be beyond size */
};

static void put(struct writer *w, const char *bytes, size_t len)
{
    if (w->len < w->size && len <= w->size - w->len)
        memcpy(w->to + w->len, bytes, len);
    w->len += len;
}

static void put_escaped(struct writer *w, unsigned char byte)
{
    static const char digits[] = "0123456789abcdef";
    char hex[4] = {'\\', 'x', digits[byte >> 4], digits[byte & 15]};

    if (byte == '\\')
        put(w, "\\\\", 2);
    else if (byte == '\n')
        put(w, "\\n", 2);
    else
        put(w, hex, 4);
}

/* U+0080 to U+009F, U+2028 to U+202E, U+2066 to U+2069: controls, line ends, and what turns the
 * direction of the text around it. The core lets none through; a file is read by more than the
 * core. */
static size_t control_bytes(const unsigned char *p, size_t left)
{
    if (left >= 2 && p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
        return 2;
    if (left >= 3 && p[0] == 0xe2 &&
        ((p[1] == 0x80 && p[2] >= 0xa8 && p[2] <= 0xae) ||
         (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9)))
        return 3;
    return 0;
}

static void put_text(struct writer *w, struct roda_str text, unsigned char also)
{
    const unsigned char *p = (const unsigned char *)text.ptr;
    size_t plain = 0; /* from here on nothing is escaped */

    for (size_t i = 0; i < text.len;) {
        size_t n = control_bytes(p + i, text.len - i);
        if (!n && (p[i] < 0x20 || p[i] == 0x7f || p[i] == '\\' || p[i] == also))
            n = 1;
        if (!n) {
            i++;
            continue;
        }
        put(w, text.ptr + plain, i - plain);
        for (size_t end = i + n; i < end; i++)
            put_escaped(w, p[i]);
        plain = i;
    }
    put(w, text.ptr + plain, text.len - plain);
}

/* A field that is empty is "-", so one that is "-" is something else. */
static void put_field(struct writer *w, struct roda_str text)
{
    if (!text.len)
        put(w, "-", 1);
    else if (text.len == 1 && text.ptr[0] == '-')
        put_escaped(w, '-');
    else
        put_text(w, text, ' ');
    put(w, " ", 1);
}

static void put_number_and_time(struct writer *w, uint64_t number, int64_t time_ns)
{
    int64_t day = text_day(time_ns);
    uint64_t ms = (uint64_t)(time_ns - text_day_start_ns(day)) / 1000000;
    unsigned second = (unsigned)(ms / 1000);
    char date[TEXT_DAY_SIZE], front[80];

    text_day_name(day, date);
    int n =
        snprintf(front, sizeof front, "%llu %sT%02u:%02u:%02u.%03uZ ", (unsigned long long)number,
                 date, second / 3600, second / 60 % 60, second % 60, (unsigned)(ms % 1000));
    put(w, front, (size_t)n);
}

static void put_kind(struct writer *w, uint32_t kind, uint32_t flags)
{
    static const char *const names[] = {
        [RODA_TEXT] = "text", [RODA_NOTICE] = "notice", [RODA_TOPIC] = "topic",
        [RODA_KICK] = "kick", [RODA_MODE] = "mode",     [RODA_RENAME] = "rename",
    };
    const char *name = kind < sizeof names / sizeof *names ? names[kind] : NULL;
    char other[24];

    if (kind == RODA_TEXT && flags & RODA_MSG_ACTION)
        name = "action";
    if (!name) {
        (void)snprintf(other, sizeof other, "kind%u", (unsigned)kind);
        name = other;
    }
    put(w, name, strlen(name));
    put(w, " ", 1);
}

size_t text_line_write(const struct text_line *line, char *to, size_t size)
{
    struct writer w = {to, size, 0};

    put_number_and_time(&w, line->number, line->time_ns);
    put_field(&w, line->room);
    put_field(&w, line->nick);
    put_field(&w, line->door);
    put_kind(&w, line->kind, line->flags);
    put_field(&w, line->subject);
    put_text(&w, line->text, '\n');
    put(&w, "\n", 1);
    return w.len;
}

static struct roda_str person_field(const struct roda_person *person, uint32_t field)
{
    return person ? roda_person_get(person, field) : RODA_STR("");
}

void text_line_of_message(const struct roda_msg *msg, struct roda_str folded,
                          struct text_line *ret_line)
{
    *ret_line = (struct text_line){
        .number = msg->number,
        .time_ns = msg->time_ns,
        .kind = msg->kind,
        .flags = msg->flags,
        .room = msg->flags & RODA_MSG_DIRECT ? folded : msg->to,
        .nick = person_field(msg->sender, RODA_PERSON_NICK),
        .door = person_field(msg->sender, RODA_PERSON_DOOR),
        .subject = msg->subject,
        .text = msg->text,
    };
}

void text_line_of_record(const struct log_message *record, struct roda_str folded,
                         struct text_line *ret_line)
{
    *ret_line = (struct text_line){
        .number = record->number,
        .time_ns = record->time_ns,
        .kind = record->kind,
        .flags = record->flags,
        .room = record->flags & RODA_MSG_DIRECT ? folded : record->to,
        .nick = record->sender[RODA_PERSON_NICK],
        .door = record->sender[RODA_PERSON_DOOR],
        .subject = record->subject,
        .text = record->text,
    };
}

uint64_t text_line_number(struct roda_str line)
{
    uint64_t number = 0;
    size_t i = 0;

    while (i < line.len && line.ptr[i] >= '0' && line.ptr[i] <= '9') {
        uint64_t digit = (uint64_t)(line.ptr[i++] - '0');
        if (number > (UINT64_MAX - digit) / 10)
            return 0;
        number = number * 10 + digit;
    }
    if (!i || i == line.len || line.ptr[i] != ' ' || line.ptr[line.len - 1] != '\n')
        return 0;
    return number;
}
