#include "line.h"

#include <errno.h>
#include <string.h>

/*
 * The protocol for people: nc, telnet, nc -u, and scripts. docs/line-protocol.md is its document.
 *
 *   line.c      the descriptor, options, and what happens when a connection opens
 *   telnet.c    telnet's commands inside lines; who came to the wrong door (HTTP, TLS)
 *   grammar.c   a line to a command; syntax.c the table of commands
 *   command.c   a command to a message, or to a reply
 *   reply.c     answers and refusals
 *   lists.c     replies that are long: /who, /rooms
 *   history.c   what was said before: /history, and what who joins is shown
 *   help.c      /help
 *   show.c      messages to lines
 *   current.c   which room bare lines go to
 *   datagram.c  datagrams that have no session yet
 *
 * A connection has one current room, to which bare lines go. It is set by the answers to joins
 * (the first is made by the owner of rooms when the connection is ready), by the answer to a part
 * and by /room. It is a name only: whether one may talk there the room's home decides each time,
 * so being put out of a room needs no report here.
 */

static int check(const void *conf, struct roda_conf_errors *errors)
{
    const struct line_conf *line = conf;
    struct roda_str motd = {line->motd, strlen(line->motd)};

    if (motd.len && roda_text_check(motd, RODA_TEXT_LINE))
        return roda_conf_error(errors, "motd", "must be UTF-8 without control characters");
    return 0;
}

static int start(struct roda_ctx *x)
{
    struct line_state *state = x->state;

    state->rooms = roda_service(x, RODA_ROOMS_ID, &state->rooms_ctx);
    state->history = roda_service(x, RODA_HISTORY_ID, &state->history_ctx);
    if (state->rooms)
        return 0;
    roda_log(x, RODA_LOG_ERROR, "line: nobody offers %s; add [plugin rooms]", RODA_ROOMS_ID);
    return -ENOENT;
}

/* The owner of people names a connection and lets it into its first room in ready(), later in the
 * turn in which it opens. What a client sends at once must not be read before: input is held until
 * the next turn. */
struct turn {
    struct roda_item item;
    roda_conn_id conn;
};

static void next_turn(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct turn *turn = (struct turn *)(void *)item;
    struct roda_conn *c = roda_conn_find(x, turn->conn);

    (void)result;
    if (c)
        roda_conn_release(c);
    roda_free(x, turn);
}

static void hold_for_a_turn(struct roda_ctx *x, struct roda_conn *c)
{
    struct turn *turn = roda_alloc(x, sizeof(*turn));

    if (!turn)
        return; /* the first line may be refused, for want of a name */
    turn->item.run = next_turn;
    turn->conn = roda_conn_getid(c);
    roda_conn_hold(c);
    roda_post(x, x->worker, &turn->item);
}

static void opened(struct roda_ctx *x, struct roda_conn *c)
{
    const struct line_conf *conf = roda_conn_conf(x, c);
    struct line_conn *data = line_conn(x, c);
    struct roda_str transport = roda_conn_transport(c);

    if (transport.len == 3 && !memcmp(transport.ptr, "udp", 3)) {
        data->flags |= LINE_DATAGRAM;
        roda_conn_set_variant(c, LINE_VARIANT_NUMBERS);
    } else if (*conf->motd) {
        line_say(c, "motd: %s", conf->motd);
    }
    roda_conn_ready(c);
    hold_for_a_turn(x, c);
}

static void closed(struct roda_ctx *x, struct roda_conn *c, const char *reason, int shutdown)
{
    (void)reason;
    (void)shutdown;
    if (line_conn(x, c))
        line_set_room(x, c, RODA_STR(""));
}

static const struct roda_option options[] = {
    {.name = "welcome",
     .type = RODA_T_BOOL,
     .offset = offsetof(struct line_conf, welcome),
     .initial = "yes",
     .flags = RODA_OPTION_LISTENER | RODA_OPTION_NEW,
     .help = "tell who connects their name and room, and how to get help"},
    {.name = "motd",
     .type = RODA_T_STRING,
     .offset = offsetof(struct line_conf, motd),
     .initial = "",
     .min = 0,
     .max = 390,
     .flags = RODA_OPTION_LISTENER | RODA_OPTION_NEW,
     .help = "one line shown to who connects, before the welcome; not to datagram sessions"},
    {.name = "replay_on_join",
     .type = RODA_T_INT,
     .offset = offsetof(struct line_conf, replay_on_join),
     .initial = "20",
     .min = 0,
     .max = 100,
     .flags = RODA_OPTION_LISTENER | RODA_OPTION_NEW,
     .help = "messages said before that who joins a room is shown; not in datagram sessions"},
    {.name = NULL},
};

static const struct roda_metric metrics[] = {
    [LINE_UNITS_REFUSED] = {"line_units_refused_total", RODA_COUNTER,
                            "lines refused because of what they are made of"},
    [LINE_ALIENS] = {"line_aliens_total", RODA_COUNTER,
                     "connections closed that spoke HTTP or TLS"},
    [LINE_KNOCKS_ANSWERED] = {"line_knocks_answered_total", RODA_COUNTER,
                              "datagrams without session that got a cookie"},
    [LINE_KNOCKS_SILENT] = {"line_knocks_silent_total", RODA_COUNTER,
                            "datagrams without session that got silence"},
    {.name = NULL},
};

static const struct roda_protocol protocols[] = {
    {.name = "line",
     .framing = RODA_LINES,
     .variant_masks = line_variant_masks,
     .opened = opened,
     .first = line_first,
     .decode = line_decode,
     .oversize = line_oversize,
     .encode = show_encode,
     .answer = line_answer,
     .closing = line_closing,
     .knock = line_knock},
    {.name = NULL},
};

static const char *const needs[] = {RODA_ROOMS_ID, RODA_HISTORY_ID "?", NULL};

RODA_PLUGIN(.name = "line", .summary = "the protocol for people with nc, telnet and nc -u",
            .version = "0.1.0", .conf_size = sizeof(struct line_conf),
            .state_size = sizeof(struct line_state), .conn_size = sizeof(struct line_conn),
            .options = options, .metrics = metrics, .protocols = protocols, .needs = needs,
            .check = check, .start = start, .stop = line_history_stop, .closed = closed);
