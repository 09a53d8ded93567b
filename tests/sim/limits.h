#ifndef RODA_TESTS_SIM_LIMITS_H
#define RODA_TESTS_SIM_LIMITS_H
/* What the files of limits share. The model stands in limits.c. */
#include "whole_broker.h"

#define CLIENTS_MAX   640u /* at a time */
#define STREAMS_MAX   64u
#define WINDOWS       3u
#define WINDOW_BURSTS 5u /* a window is as long as a full bucket takes to run empty so often */
#define NETWORKS      2u /* that flood; one more is the talker's */

enum load {
    LOAD_LINES,    /* flooders say lines, as fast as the broker takes them */
    LOAD_ROOMS,    /* flooders say lines to two rooms, at times of their own */
    LOAD_JOINS,    /* flooders enter and leave rooms, as fast as the broker takes that */
    LOAD_CONNECTS, /* visitors connect, and leave when they are welcome */
    LOAD_OPEN,     /* visitors connect and stay */
};

struct limit {
    const char *name; /* of the option */
    const char *off;
    uint32_t rate; /* per second; 0: a level, which burst is */
    uint32_t burst;
    uint32_t unit; /* the smallest amount that can pass */
    enum load load;
    bool by_address;
};

/* What shares one bucket: a connection, a member in a room, a network. Amounts are messages, bytes,
 * joins or connections. */
struct stream {
    uint64_t passed, at_once, windows[WINDOWS];
    uint64_t offered, refused;
    uint64_t burst; /* what is to pass at once: whole units */
    int64_t earliest_ns, latest_ns;
    uint32_t open;
};

enum role { ROLE_NONE, ROLE_TALKER, ROLE_FLOODER, ROLE_VISITOR };

struct client {
    struct world *world;
    struct sim_client *end; /* NULL: not connected, or gone */
    enum role role;
    uint32_t id, network;
    struct stream *stream; /* LOAD_ROOMS: the first of two */
    bool welcome, ready, leaving;
    char in[8192];
    size_t in_len;
    char out[8192];
    size_t out_len;
    uint32_t to_say, said, answered, parted;
    uint32_t in_windows; /* passed in all windows */
};

struct world {
    uint64_t seed;
    const struct limit *limit;
    bool on; /* the limit is */
    uint32_t n_workers;
    bool loud, failed, ending;
    struct sim_kernel *kernel;
    struct broker *broker;
    struct client clients[CLIENTS_MAX];
    uint32_t n_clients; /* slots that were ever used */
    uint16_t next_port;
    struct stream streams[STREAMS_MAX];
    uint32_t n_streams, most_open;
    /* Flooders and visitors that were let in, by network. */
    uint32_t on_worker[NETWORKS][WHOLE_BROKER_WORKERS_MAX];
    uint64_t flood_ns;                 /* when it began */
    uint64_t offer_ns, offer_until_ns; /* the next one, for loads that have their times */
    /* Who talks meanwhile. */
    struct client *talker;
    uint32_t heard[CLIENTS_MAX][2]; /* by flooder: its last line that the talker was shown */
    uint32_t heard_lines, passed_lines;
    uint64_t talk_ns, asked_ns; /* the next line; since when an answer is missing, or 0 */
    uint64_t slowest_answer_ns;
    uint32_t answers;
};

void fail(struct world *w, const char *fmt, ...) RODA_PRINTF(2, 3);

/* ---- limits.c ---------------------------------------------------------------------------- */

/* As the conf has it: "messages = 20/s burst 40". */
void limit_text(const struct limit *limit, char *buf, size_t size);

/* ---- limits_judge.c ---------------------------------------------------------------------- */

/* In which a full bucket runs empty. */
uint64_t burst_ns(const struct limit *limit);
/* So much of it passed now, said by c. */
void stream_pass(struct world *w, struct stream *stream, struct client *c, uint32_t amount);
/* All networks are as full as they may be. */
void judge_level(struct world *w);
/* Of a whole run; text is for people. */
void judge(struct world *w, char *text, size_t size);

/* ---- limits_crowd.c ---------------------------------------------------------------------- */

/* From one of the networks, NETWORKS being the talker's. NULL: there are too many. */
struct client *client_connect(struct world *w, enum role role, uint32_t network,
                              struct stream *stream);
void client_step(struct client *c);
/* In one of the ways in which people leave. */
void client_leave(struct client *c);
/* The amount of a flooder's line. */
uint32_t line_amount(const struct client *c, uint32_t sequence);
/* Everybody who has something to do by now does it; times are drawn. */
void crowd_step(struct world *w);
/* When somebody has something to do by himself. */
uint64_t crowd_next_ns(const struct world *w);
/* Nothing is under way: who connects, what was not answered or not heard. */
bool crowd_calm(const struct world *w);

#endif
