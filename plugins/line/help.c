#include "line.h"

#include <string.h>

/*
 * /help: every command in one line each, or all there is to know about one. Besides the commands
 * there are two topics: how lines look, and what refusals mean, so that every line the broker
 * sends is explained by the broker itself.
 */

static const char *const about_lines[] = {
    "ROOM NICK: TEXT - somebody says something in a room",
    "ROOM * NICK TEXT - somebody says what they do (/me)",
    "ROOM -NICK- TEXT - a program says something; programs do not answer it",
    "@ NICK: TEXT - somebody says something to you alone",
    "NUMBER ROOM NICK: TEXT - the same with /numbers on: the place of the message in its room",
    "* NUMBER ROOM - your own message was published and has this number (/numbers on)",
    "TIME ... - one of these lines again, said at that time (/history, or when you join)",
    "* NICK joined|left|quit|is|set|put|renamed|invited ... - what happened",
    "* @NICK ... - the same; their name is a word that answers to you begin with",
    "* history ROOM FROM-TO: ... - of these numbers: how many messages came, or why not",
    "* notice to ROOM: TEXT - the broker says something",
    "* ... - anything else: an answer to you",
    "! ... - refused, and why: /help refusals",
    "... (1834 bytes) at the end of a line: the text is longer, and that is its full length",
};

static const char *const about_refusals[] = {
    "! unknown command /X - no command has that name; //X says /X",
    "! usage: /X ... - too few or too many arguments",
    "! that line was not sent: ... - not UTF-8, a control character, or too long",
    "! you are in no room - /join one first, or name the room",
    "! you are not in ROOM - /join it first",
    "! ROOM: not stored: ... - the log could not write it, so nobody was sent it",
    "! history ROOM: ... - why it is not shown, or not all of it",
    "! too fast - wait a little and send it again",
    "! closed: ... - why the broker closes this connection",
    "! REASON: DETAILS - anything else: the line was not carried out, for that reason",
};

static void say_help(struct roda_conn *c, const char *front, const char *text, size_t len)
{
    line_say(c, "help: %s%.*s", front, (int)len, text);
}

static void help_all(struct roda_conn *c)
{
    static const char first[] = "a line is said in the current room; a line that begins with / is "
                                "a command; // says a /";
    static const char last[] = "lines, refusals: how lines look (/help lines), what refusals mean";

    say_help(c, "", first, strlen(first));
    for (const struct line_syntax *syntax = line_syntaxes; syntax->word; syntax++)
        line_say(c, "help: /%s%s%s - %s", syntax->word, *syntax->usage ? " " : "", syntax->usage,
                 syntax->help);
    say_help(c, "", last, strlen(last));
}

static void help_one(struct roda_conn *c, const struct line_syntax *syntax)
{
    const char *more = syntax->more, *end;

    line_say(c, "help: /%s%s%s - %s", syntax->word, *syntax->usage ? " " : "", syntax->usage,
             syntax->help);
    for (; (end = strchr(more, '\n')) != NULL; more = end + 1)
        say_help(c, "  ", more, (size_t)(end - more));
}

static void help_topic(struct roda_conn *c, const char *const *lines, size_t n)
{
    for (size_t i = 0; i < n; i++)
        say_help(c, "", lines[i], strlen(lines[i]));
}

static int is_topic(struct roda_str topic, const char *name)
{
    return topic.len == strlen(name) && !memcmp(topic.ptr, name, topic.len);
}

void line_help(struct roda_conn *c, struct roda_str topic)
{
    const struct line_syntax *syntax;

    if (!topic.len) {
        help_all(c);
        return;
    }
    if (is_topic(topic, "lines")) {
        help_topic(c, about_lines, sizeof(about_lines) / sizeof(*about_lines));
        return;
    }
    if (is_topic(topic, "refusals")) {
        help_topic(c, about_refusals, sizeof(about_refusals) / sizeof(*about_refusals));
        return;
    }
    if (*topic.ptr == '/') {
        topic.ptr++;
        topic.len--;
    }
    syntax = line_syntax_find(topic);
    if (syntax)
        help_one(c, syntax);
    else
        line_refuse(c, "no help about that: /help lists the commands");
}
