#include "grammar.h"

#include <string.h>
#include <strings.h>

/*
 * A line is text, or a command if it begins with one slash; "//" stands for text that begins with
 * a slash. A command's arguments are words parted by spaces; the last may be text, which is the
 * rest of the line, spaces and all. The table in syntax.c says which arguments a command takes;
 * one loop here reads them, so that every command counts them alike.
 *
 * Names are not judged here: the owner of rooms and people does that, for all protocols.
 */

static struct roda_str without_spaces_in_front(struct roda_str rest)
{
    while (rest.len && *rest.ptr == ' ') {
        rest.ptr++;
        rest.len--;
    }
    return rest;
}

/* Cuts the first word off *rest; empty at the end of the line. */
static struct roda_str take_word(struct roda_str *rest)
{
    struct roda_str word = without_spaces_in_front(*rest);
    const char *space = word.len ? memchr(word.ptr, ' ', word.len) : NULL;

    *rest = word;
    if (space)
        word.len = (size_t)(space - word.ptr);
    rest->ptr += word.len;
    rest->len -= word.len;
    return word;
}

static struct roda_str peek_word(struct roda_str rest)
{
    return take_word(&rest);
}

static struct roda_str without_mark(struct roda_str room)
{
    if (room.len && *room.ptr == '#') {
        room.ptr++;
        room.len--;
    }
    return room;
}

static int is_marked(struct roda_str word)
{
    return word.len && *word.ptr == '#';
}

/* 0, or -1: too few arguments, too many, or a lone '#' for a room. */
static int take_arguments(struct line_command *command, struct roda_str rest)
{
    const struct line_syntax *syntax = command->syntax;

    for (uint32_t i = 0; syntax->arguments[i] != LINE_ARGUMENT_END; i++) {
        enum line_argument argument = syntax->arguments[i];
        struct roda_str next = peek_word(rest);

        if (argument == LINE_ARGUMENT_MARKED && !is_marked(next))
            continue;
        if (!next.len) {
            if (syntax->required >> i & 1)
                return -1;
            continue;
        }
        if (argument == LINE_ARGUMENT_TEXT) {
            command->text = without_spaces_in_front(rest);
            return 0;
        }
        next = take_word(&rest);
        if (argument == LINE_ARGUMENT_NAME) {
            command->name = next;
            continue;
        }
        command->room = without_mark(next);
        if (!command->room.len)
            return -1;
    }
    return without_spaces_in_front(rest).len ? -1 : 0;
}

/* Decimal digits only, at most 18 of them, so that nothing overflows. */
static int read_number(struct roda_str digits, uint64_t *ret_number)
{
    uint64_t number = 0;

    if (!digits.len || digits.len > 18)
        return -1;
    for (size_t i = 0; i < digits.len; i++) {
        if (digits.ptr[i] < '0' || digits.ptr[i] > '9')
            return -1;
        number = number * 10 + (uint64_t)(digits.ptr[i] - '0');
    }
    *ret_number = number;
    return 0;
}

static int is_word(struct roda_str word, const char *wanted)
{
    return word.len == strlen(wanted) && !strncasecmp(word.ptr, wanted, word.len);
}

/* "20", "410-411" or "since 412". */
static int read_range(struct line_command *command, struct roda_str rest)
{
    struct roda_str first = take_word(&rest), second = take_word(&rest);
    const char *dash = first.len ? memchr(first.ptr, '-', first.len) : NULL;

    if (take_word(&rest).len)
        return -1;
    if (is_word(first, "since")) {
        command->range = LINE_RANGE_SINCE;
        return read_number(second, &command->from);
    }
    if (second.len)
        return -1;
    if (!dash) {
        command->range = LINE_RANGE_LAST;
        return read_number(first, &command->to) || !command->to || command->to > LINE_HISTORY_MAX
                   ? -1
                   : 0;
    }
    size_t before = (size_t)(dash - first.ptr);
    struct roda_str from = {first.ptr, before}, to = {dash + 1, first.len - before - 1};
    command->range = LINE_RANGE_FROM_TO;
    if (read_number(from, &command->from) || read_number(to, &command->to))
        return -1;
    return command->from && command->from <= command->to ? 0 : -1;
}

/* A room, a range, both or none. What can be a range is none of a room, unless it has the mark. */
static int read_history(struct line_command *command)
{
    struct roda_str rest = command->text, first = take_word(&rest);

    if (!read_range(command, command->text))
        return 0;
    command->room = without_mark(first);
    if (without_spaces_in_front(rest).len)
        return command->room.len ? read_range(command, rest) : -1;
    if (first.len &&
        (!command->room.len || is_word(first, "since") || (*first.ptr >= '0' && *first.ptr <= '9')))
        return -1;
    command->range = LINE_RANGE_LAST;
    command->to = LINE_HISTORY_UNASKED;
    return 0;
}

/* What the table cannot say. */
static int check(struct line_command *command)
{
    switch (command->verb) {
    case LINE_MSG:
        if (is_marked(command->name)) {
            command->room = without_mark(command->name);
            command->name = RODA_STR("");
            return command->room.len ? 0 : -1;
        }
        return 0;
    case LINE_HISTORY:
        return read_history(command);
    case LINE_NUMBERS:
        return is_word(command->name, "on") || is_word(command->name, "off") ? 0 : -1;
    case LINE_MODE:
        return !command->name.len ||
                       (command->name.len > 1 && strchr("+-", *command->name.ptr) != NULL)
                   ? 0
                   : -1;
    default:
        return 0;
    }
}

static int is_blank(struct roda_str line)
{
    for (size_t i = 0; i < line.len; i++)
        if (line.ptr[i] != ' ' && line.ptr[i] != '\t')
            return 0;
    return 1;
}

struct line_command line_parse(struct roda_str line)
{
    struct line_command command = {.verb = LINE_TALK,
                                   .room = RODA_STR(""),
                                   .name = RODA_STR(""),
                                   .text = line};
    struct roda_str rest = line;

    if (is_blank(line)) {
        command.verb = LINE_NOTHING;
        return command;
    }
    if (*line.ptr != '/')
        return command;
    rest.ptr++;
    rest.len--;
    if (rest.len && *rest.ptr == '/') {
        command.text = rest;
        return command;
    }
    command.text = RODA_STR("");
    if (rest.len && *rest.ptr != ' ')
        command.name = take_word(&rest);
    command.syntax = line_syntax_find(command.name);
    if (!command.syntax) {
        command.verb = LINE_UNKNOWN;
        return command;
    }
    command.name = RODA_STR("");
    command.verb = command.syntax->verb;
    if (take_arguments(&command, rest) || check(&command))
        command.verb = LINE_USAGE;
    return command;
}
