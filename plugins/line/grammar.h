#ifndef RODA_LINE_GRAMMAR_H
#define RODA_LINE_GRAMMAR_H
/* The grammar of docs/line-protocol.md: one line to one command. No state, no side effects. */
#include <stdint.h>

#include <roda/plugin.h>

enum line_verb {
    LINE_NOTHING, /* an empty line */
    LINE_TALK,    /* text, to the current room */
    LINE_UNKNOWN, /* name: the word behind the slash */
    LINE_USAGE,   /* too few or too many arguments: syntax says of which command */

    LINE_NICK,
    LINE_JOIN,
    LINE_PART,
    LINE_ROOM,
    LINE_MSG,
    LINE_ME,
    LINE_WHO,
    LINE_ROOMS,
    LINE_TOPIC,
    LINE_HISTORY,
    LINE_NUMBERS,
    LINE_PING,
    LINE_AWAY,
    LINE_KICK,
    LINE_OP,
    LINE_DEOP,
    LINE_VOICE,
    LINE_DEVOICE,
    LINE_BAN,
    LINE_UNBAN,
    LINE_MODE,
    LINE_INVITE,
    LINE_QUIT,
    LINE_HELP,
};

enum line_argument {
    LINE_ARGUMENT_END = 0,
    LINE_ARGUMENT_ROOM,   /* one word; a '#' in front is dropped */
    LINE_ARGUMENT_MARKED, /* a room if the word begins with '#', else not there */
    LINE_ARGUMENT_NAME,   /* one word */
    LINE_ARGUMENT_TEXT,   /* the rest of the line */
};
#define LINE_ARGUMENTS_MAX 3

struct line_syntax { /* one command, as the parser and /help know it */
    const char *word;
    enum line_verb verb;
    uint32_t required; /* bit i: argument i must be there */
    enum line_argument arguments[LINE_ARGUMENTS_MAX + 1];
    const char *usage; /* "ROOM [KEY]" */
    const char *help;  /* one line */
    const char *more;  /* further lines, ended by LF; or "" */
};
extern const struct line_syntax line_syntaxes[]; /* word NULL ends it */
const struct line_syntax *line_syntax_find(struct roda_str word);

enum line_range { LINE_RANGE_LAST, LINE_RANGE_FROM_TO, LINE_RANGE_SINCE };

struct line_command { /* texts point into the line */
    enum line_verb verb;
    const struct line_syntax *syntax; /* NULL for TALK, NOTHING, UNKNOWN */
    struct roda_str room;             /* empty: the current one */
    struct roda_str name;
    struct roda_str text;
    enum line_range range; /* HISTORY */
    uint64_t from, to;     /* HISTORY: numbers; LAST: to is how many */
};
#define LINE_HISTORY_MAX     300 /* messages per /history */
#define LINE_HISTORY_UNASKED 20  /* where it is not said how many */

struct line_command line_parse(struct roda_str line);

#endif
