#include "show.h"

#include <inttypes.h>
#include <string.h>

#include <utf8proc.h>

#include "filter.h"
#include "moment.h"

/*
 * A line is TIME ROOM NUMBER WHO TEXT. WHO is one word that says who and how, with marks that no
 * nick has in these places: "bia:" says, "bia*" does (/me), "-bia-" is a notice, "bia!" changed
 * something about the room. Only the text is free, and it is last; what could end a line, move a
 * cursor or turn the direction of what stands around it is escaped, and so is the backslash, so
 * that a line can be read back.
 *
 * The JSON is written here and not by a library: one flat object with texts and numbers, of which
 * two (epoch, person) use all 64 bits. Many readers of JSON keep 53, so these two are texts of 16
 * hexadecimal digits; libraries that Debian has (jansson, json-c) would build a tree per message
 * for that.
 */

/* ---- characters ------------------------------------------------------------------------- */

/* The length of the UTF-8 sequence at text, or 0: it is none. */
static size_t character(struct roda_str text, utf8proc_int32_t *ret_code)
{
    utf8proc_ssize_t len =
        utf8proc_iterate((const utf8proc_uint8_t *)text.ptr,
                         text.len < 4 ? (utf8proc_ssize_t)text.len : 4, ret_code);

    return len > 0 ? (size_t)len : 0;
}

/* Controls, line ends, and what turns the direction of the text. */
static int is_plain(utf8proc_int32_t code)
{
    return !(code < 0x20 || (code >= 0x7f && code <= 0x9f) || (code >= 0x2028 && code <= 0x202e) ||
             (code >= 0x2066 && code <= 0x2069));
}

/* How many bytes at the front of a text are ASCII that is the same everywhere; from is ' ', or '!'
 * where a blank is not. */
static size_t easy(struct roda_str text, char from)
{
    size_t n = 0;

    while (n < text.len && text.ptr[n] >= from && text.ptr[n] < 0x7f && text.ptr[n] != '"' &&
           text.ptr[n] != '\\')
        n++;
    return n;
}

static void put_bytes(FILE *to, struct roda_str *text, size_t n)
{
    if (n)
        (void)fwrite(text->ptr, 1, n, to);
    text->ptr += n;
    text->len -= n;
}

static void put_escaped(FILE *to, struct roda_str *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        (void)fprintf(to, "\\x%02x", (unsigned)(unsigned char)text->ptr[i]);
    text->ptr += n;
    text->len -= n;
}

void show_text(FILE *to, struct roda_str text, int is_field)
{
    char from = is_field ? '!' : ' ';

    for (put_bytes(to, &text, easy(text, from)); text.len; put_bytes(to, &text, easy(text, from))) {
        utf8proc_int32_t code = 0;
        size_t len = character(text, &code);

        if (len && code == '\n') {
            (void)fputs("\\n", to);
            text.ptr++;
            text.len--;
        } else if (!len || !is_plain(code) || (is_field && code == ' ')) {
            put_escaped(to, &text, len ? len : 1);
        } else {
            if (code == '\\')
                (void)fputc('\\', to);
            put_bytes(to, &text, len);
        }
    }
}

struct roda_str show_room(const struct room *room, const struct log_message *message)
{
    if (filter_is_private(room, message))
        return room && room->folded.len ? room->folded : RODA_STR("@");
    return message->to;
}

/* ---- lines ------------------------------------------------------------------------------ */

static const char *const kinds[] = {
    [RODA_TEXT] = "text", [RODA_NOTICE] = "notice", [RODA_TOPIC] = "topic",
    [RODA_KICK] = "kick", [RODA_MODE] = "mode",     [RODA_RENAME] = "rename",
};

static void put_kind(FILE *to, uint32_t kind)
{
    if (kind < sizeof(kinds) / sizeof(*kinds) && kinds[kind])
        (void)fputs(kinds[kind], to);
    else
        (void)fprintf(to, "kind%" PRIu32, kind);
}

static void put_sender(FILE *to, const struct log_message *m, const char *before,
                       const char *behind)
{
    struct roda_str nick = m->sender[RODA_PERSON_NICK];

    (void)fputs(before, to);
    show_text(to, nick.len ? nick : RODA_STR("*"), 1);
    (void)fputs(behind, to);
}

/* "bia! kick bob: reason" */
static void put_change(FILE *to, const struct log_message *m)
{
    put_sender(to, m, "", "! ");
    put_kind(to, m->kind);
    if (m->kind == RODA_MODE) { /* what is changed, then for whom */
        (void)fputc(' ', to);
        show_text(to, m->text, 0);
        if (m->subject.len)
            (void)fputc(' ', to);
        show_text(to, m->subject, 0);
        return;
    }
    if (m->subject.len) {
        (void)fputc(' ', to);
        show_text(to, m->subject, 1);
    }
    (void)fputs(": ", to);
    show_text(to, m->text, 0);
}

void show_line(FILE *to, const struct reader *r)
{
    const struct log_message *m = &r->record.message;
    char time[MOMENT_BYTES];

    (void)fprintf(to, "%s ", moment_write(m->time_ns, 3, time));
    show_text(to, show_room(r->room, m), 1);
    (void)fprintf(to, " %" PRIu64 " ", m->number);
    if (m->kind != RODA_TEXT && m->kind != RODA_NOTICE) {
        put_change(to, m);
    } else {
        if (m->kind == RODA_NOTICE)
            put_sender(to, m, "-", "- ");
        else
            put_sender(to, m, "", m->flags & RODA_MSG_ACTION ? "* " : ": ");
        show_text(to, m->text, 0);
    }
    (void)fputc('\n', to);
}

/* ---- JSON ------------------------------------------------------------------------------- */

static void json_text(FILE *to, struct roda_str text)
{
    (void)fputc('"', to);
    for (put_bytes(to, &text, easy(text, ' ')); text.len; put_bytes(to, &text, easy(text, ' '))) {
        utf8proc_int32_t code = 0;
        size_t len = character(text, &code);

        if (len && is_plain(code)) {
            if (code == '"' || code == '\\')
                (void)fputc('\\', to);
            put_bytes(to, &text, len);
            continue;
        }
        if (len) /* none of these is beyond U+FFFF */
            (void)fprintf(to, "\\u%04x", (unsigned)code);
        else
            (void)fputs("\\ufffd", to);
        text.ptr += len ? len : 1;
        text.len -= len ? len : 1;
    }
    (void)fputc('"', to);
}

static void json_field(FILE *to, const char *key, struct roda_str text)
{
    (void)fprintf(to, ",\"%s\":", key);
    json_text(to, text);
}

static void json_number(FILE *to, const char *key, uint64_t value)
{
    (void)fprintf(to, ",\"%s\":%" PRIu64, key, value);
}

static void json_time(FILE *to, const char *key, int64_t time_ns)
{
    char time[MOMENT_BYTES];

    (void)fprintf(to, ",\"%s\":\"%s\"", key, moment_write(time_ns, 9, time));
}

static void json_flags(FILE *to, uint32_t flags)
{
    static const char *const names[] = {"droppable", "action", "direct",
                                        "multiline", "forced", "closed"};
    const char *comma = "";

    (void)fputs(",\"flags\":[", to);
    for (unsigned bit = 0; bit < 32; bit++) {
        if (!(flags >> bit & 1))
            continue;
        if (bit < sizeof(names) / sizeof(*names))
            (void)fprintf(to, "%s\"%s\"", comma, names[bit]);
        else
            (void)fprintf(to, "%s\"bit%u\"", comma, bit);
        comma = ",";
    }
    (void)fputc(']', to);
}

static void json_sender(FILE *to, const struct log_message *m)
{
    static const char *const names[RODA_PERSON_FIELDS] = {
        [RODA_PERSON_NICK] = "nick", [RODA_PERSON_ACCOUNT] = "account", [RODA_PERSON_HOST] = "host",
        [RODA_PERSON_NAME] = "name", [RODA_PERSON_AWAY] = "away",       [RODA_PERSON_DOOR] = "door",
    };
    int is_known = m->person != 0;

    for (unsigned i = 0; i < RODA_PERSON_FIELDS; i++)
        is_known = is_known || m->sender[i].len;
    if (!is_known) {
        (void)fputs(",\"sender\":null", to);
        return;
    }
    (void)fprintf(to, ",\"sender\":{\"person\":\"%016" PRIx64 "\"", m->person);
    for (unsigned i = 0; i < RODA_PERSON_FIELDS; i++)
        json_field(to, names[i], m->sender[i]);
    (void)fputc('}', to);
}

static void json_tags(FILE *to, const struct log_message *m)
{
    (void)fputs(",\"tags\":[", to);
    for (uint32_t i = 0; i < m->n_tags; i++) {
        (void)fputs(i ? ",[" : "[", to);
        json_text(to, m->tags[i].key);
        (void)fputc(',', to);
        json_text(to, m->tags[i].value);
        (void)fputc(']', to);
    }
    (void)fputc(']', to);
}

/* Where it stands in its partition, and its chain. */
static void json_place(FILE *to, const struct reader *r)
{
    const struct log_message *m = &r->record.message;

    json_number(to, "partition", r->partition);
    json_number(to, "position", r->position);
    json_number(to, "room_id", m->room);
    json_number(to, "count", m->count);
    json_number(to, "back", m->back);
    json_number(to, "jump", m->jump);
    json_number(to, "jump_number", m->jump_number);
    if (m->jump)
        json_time(to, "jump_time", m->jump_time_ns);
    else
        (void)fputs(",\"jump_time\":null", to);
}

void show_json(FILE *to, const struct reader *r)
{
    const struct log_message *m = &r->record.message;

    (void)fputs("{\"room\":", to);
    json_text(to, show_room(r->room, m));
    json_number(to, "number", m->number);
    json_time(to, "time", m->time_ns);
    (void)fputs(",\"kind\":\"", to);
    put_kind(to, m->kind);
    (void)fputc('"', to);
    json_flags(to, m->flags);
    json_sender(to, m);
    json_field(to, "to", m->to);
    json_field(to, "subject", m->subject);
    json_field(to, "text", m->text);
    json_tags(to, m);
    (void)fprintf(to, ",\"epoch\":\"%016" PRIx64 "\"", m->epoch);
    json_number(to, "prev", m->prev);
    (void)fprintf(to, ",\"durable\":%s", m->durable ? "true" : "false");
    json_place(to, r);
    (void)fputs("}\n", to);
}
