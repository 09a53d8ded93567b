#ifndef RODA_LINE_H
#define RODA_LINE_H
/* What the files of the plugin "line" share. The model stands in line.c. */
#include <roda/history.h>
#include <roda/plugin.h>
#include <roda/rooms.h>

#include "grammar.h"
#include "show.h"

struct line_conf {
    int welcome;
    const char *motd;
    int64_t replay_on_join; /* messages */
};

#define LINE_NAME_CHAINS 256u

struct telling;

struct line_name { /* of a room that is somebody's current one here; see current.c */
    struct line_name *next;
    uint32_t users;
    uint32_t len;
    char text[];
};

struct line_state { /* per worker */
    struct line_name *names[LINE_NAME_CHAINS];
    const struct roda_rooms *rooms;
    struct roda_ctx *rooms_ctx;
    const struct roda_history *history; /* NULL: nobody keeps one */
    struct roda_ctx *history_ctx;
    struct telling *waiting, *waiting_newest; /* see history.c; so far nobody was asked for them */
    struct roda_timer *retry;
    uint32_t reads; /* questions that wait for an answer */
};

/* struct line_conn.flags */
enum {
    LINE_DATAGRAM = 1 << 0,       /* a session, not a stream */
    LINE_SPOKE = 1 << 1,          /* the first unit was seen */
    LINE_SUBNEGOTIATION = 1 << 2, /* inside a telnet subnegotiation that held a line end */
    LINE_LEAVING = 1 << 3,        /* /quit was said: nothing more is read */
    LINE_RENAMING = 1 << 4,       /* a /nick is under way */
    LINE_WELCOME_DUE = 1 << 5,    /* of a datagram session */
};

struct line_conn {          /* counts against the memory of an idle connection: keep it small */
    struct line_name *room; /* the current one; NULL: in no room */
    uint8_t flags;
    uint8_t moves;       /* JOIN and PART under way: the current room is not settled */
    uint8_t joins_shown; /* rooms of which it is being shown what was said before */
};

#define LINE_TOKEN 1u /* of messages that this plugin submits; 0: the join at connect, by rooms */

/* metrics */
enum {
    LINE_UNITS_REFUSED,
    LINE_ALIENS,
    LINE_KNOCKS_ANSWERED,
    LINE_KNOCKS_SILENT,
};

static inline struct line_conn *line_conn(struct roda_ctx *x, const struct roda_conn *c)
{
    return roda_conn_data(x, c);
}

static inline struct roda_str line_room(const struct line_conn *data)
{
    return data->room ? (struct roda_str){data->room->text, data->room->len} : RODA_STR("");
}

/* current.c: sets the current room; an empty name is none. Out of memory: none, and it is told. */
void line_set_room(struct roda_ctx *x, struct roda_conn *c, struct roda_str name);

/* command.c */
int line_decode(struct roda_ctx *x, struct roda_conn *c, struct roda_str unit);

/* reply.c: what one connection alone is told. */
void line_say(struct roda_conn *c, const char *fmt, ...) RODA_PRINTF(2, 3);    /* "* ..." */
void line_refuse(struct roda_conn *c, const char *fmt, ...) RODA_PRINTF(2, 3); /* "! ..." */
/* Why a line that somebody sent is not taken; error is of roda_text_check or roda_msg_make. */
void line_refuse_unit(struct roda_ctx *x, struct roda_conn *c, struct roda_str unit, int error);
void line_oversize(struct roda_ctx *x, struct roda_conn *c, size_t bytes);
void line_answer(struct roda_ctx *x, struct roda_conn *c, const struct roda_answer *answer);
void line_closing(struct roda_ctx *x, struct roda_conn *c, const char *reason);
/* The welcome of a datagram session, unless it was said or /nick is under way. */
void line_welcome_if_due(struct roda_ctx *x, struct roda_conn *c);
void line_topic(struct roda_conn *c, struct roda_str room, struct roda_str topic);

/* lists.c: /who and /rooms. */
void line_list_members(struct roda_ctx *x, struct roda_conn *c, struct roda_str room);
void line_list_rooms(struct roda_ctx *x, struct roda_conn *c);

/* history.c. A room that the connection is in; the command is a valid /history. */
void line_history(struct roda_ctx *x, struct roda_conn *c, const struct roda_room *room,
                  const struct line_command *command);
/* To who joined: that the room is logged, if they are to be told ... */
void line_announce(struct roda_ctx *x, struct roda_conn *c, struct roda_str room);
/* ... and what was said up to that number, ahead of everything that is shown from now on. */
void line_show_before_join(struct roda_ctx *x, struct roda_conn *c, struct roda_str room,
                           uint64_t number);
void line_history_stop(struct roda_ctx *x);

/* help.c; an empty topic: all commands. */
void line_help(struct roda_conn *c, struct roda_str topic);

/* telnet.c: removes telnet's commands; to has room for unit.len bytes; *inside says whether the
 * unit begins, and then whether it ended, inside a subnegotiation. Returns the length. */
size_t line_strip_telnet(struct roda_str unit, char *to, int *inside);
/* The name of another protocol, if a connection begins like this; or NULL. */
const char *line_alien(struct roda_str unit);
int line_close_alien(struct roda_ctx *x, struct roda_conn *c, const char *alien); /* RODA_BAD */
int line_first(struct roda_ctx *x, struct roda_conn *c, struct roda_str bytes);

/* datagram.c */
int line_knock(struct roda_ctx *x, const struct roda_peer *peer, struct roda_str in,
               struct roda_out *out, struct roda_str *ret_rest);
/* Without the cookie at its front, if there is one. */
struct roda_str line_strip_cookie(struct roda_str unit);

#endif
