#ifndef RATELIMIT_RATELIMIT_H
#define RATELIMIT_RATELIMIT_H
/*
 * Shared by the files of the plugin:
 *
 *   gcra.c        what a rate means for a bucket
 *   table.c       buckets of addresses, accounts, members: shared by all workers, of a fixed size
 *   address.c     address prefixes
 *   door.c        who may connect: bans, connects, open connections
 *   flow.c        how much may come: units, bytes, joins, slow mode, dear commands
 *   excess.c      what happens to who goes beyond: answer, message, disconnect, ban
 *   bans.c        bans in a file, so that they survive a restart
 *   ratelimit.c   options, metrics, life
 */
#include <roda/plugin.h>

#include "address.h"
#include "gcra.h"
#include "table.h"

enum on_excess { EXCESS_DELAY, EXCESS_REFUSE, EXCESS_DISCONNECT };

struct ratelimit_conf {
    struct roda_rate messages, registered_messages, bytes, address_messages, room_messages, joins;
    struct roda_rate address_connects;
    int64_t address_connections, prefix_ipv4, prefix_ipv6, start_grace_ms;
    int64_t on_excess, kill_after, ban_time_ms, address_table;
    struct roda_list exempt;
    const char *ban_file;
};

/* What somebody can be refused for. Each is named like its option. */
enum bucket {
    BUCKET_MESSAGES,
    BUCKET_REGISTERED_MESSAGES,
    BUCKET_BYTES,
    BUCKET_ADDRESS_MESSAGES,
    BUCKET_ROOM_MESSAGES,
    BUCKET_JOINS,
    BUCKET_ADDRESS_CONNECTIONS,
    BUCKET_ADDRESS_CONNECTS,
    BUCKET_BAN,
    BUCKETS
};

/* The index in the metrics; the first are those of the buckets, what they refused. */
enum {
    METRIC_DELAYED = BUCKETS,
    METRIC_DELAYED_MS,
    METRIC_DISCONNECTED,
    METRIC_BANS,
    METRIC_BANS_LOST,
    METRIC_TABLE_SIZE,
    METRIC_TABLE_USED,
    METRIC_TABLE_REPLACED,
    METRICS
};

enum {
    /* Who would have to wait longer is refused at once: the default of limits.max_delay, at which
     * the core would do it. */
    WAIT_MAX_MS = 10000,
    /* How far roda_charge() can go beyond a limit. */
    DEBT_MAX_MS = 600000,
    /* A bucket takes no longer than this to be empty. */
    LIMIT_MAX_MS = 864000000,
    /* Messages a second, above which microseconds are too coarse for a percent. */
    SHARED_RATE_MAX = 10000,
    SWEEP_PARTS = 64,
    SWEEP_MS = 5000
};

/* Of all workers. */
struct ratelimit {
    struct table *buckets; /* times in us of the monotonic clock */
    struct table *counts;  /* open connections; there is no time, `now` is 0 */
    struct network *exempt;
    size_t n_exempt;
};

struct bans;

/* Of one worker. */
struct ratelimit_state {
    uint64_t started_ms;
    struct bans *bans; /* worker 0 */
    struct roda_timer *sweep;
    uint32_t next_part;
    size_t used[SWEEP_PARTS];
    uint64_t replaced;
};

enum {
    CLIENT_DATAGRAM = 1,        /* nothing holds it back: refused instead of delayed */
    CLIENT_COUNTED = 2,         /* stands in counts */
    CLIENT_WAITING = 4,         /* a unit is paid for and may pass at until_ms */
    CLIENT_LEFT_OVER = 8,       /* ... and it was refused before: the next may have its place */
    CLIENT_JOIN_WAITING = 16,   /* the same for a join */
    CLIENT_JOIN_LEFT_OVER = 32, /* the same for a join */
    CLIENT_PAID = 64,           /* the unit at hand is paid for, and no message came of it so far */
};

/* Of one connection. Buckets are full until these times, in ns of the monotonic clock; the other
 * times are its milliseconds, modulo 2^32. */
struct client {
    uint64_t prefix; /* key of its address prefix; 0: it is not counted by address */
    uint64_t messages_ns, bytes_ns, joins_ns;
    uint32_t until_ms;
    uint32_t minute_ms; /* when the minute began in which refusals are counted */
    uint16_t refusals;
    uint8_t flags;
    uint8_t waits_for; /* enum bucket: the one that the unit waits for */
};
_Static_assert(sizeof(struct client) <= 48, "an idle connection has little memory");

static inline const struct ratelimit_conf *conf_for(struct roda_ctx *x, const struct roda_conn *c)
{
    return roda_conn_conf(x, c);
}

static inline struct ratelimit_state *state_of(struct roda_ctx *x)
{
    return x->state;
}

static inline struct ratelimit *shared_of(struct roda_ctx *x)
{
    return x->shared;
}

static inline uint64_t now_us(struct roda_ctx *x)
{
    return roda_now_ms(x) * 1000;
}

/* What a key of the shared table is for; other numbers are those of enum bucket. */
enum { KEY_SAID = BUCKETS };
/* Another key of the same owner. */
uint64_t key_for(uint64_t owner, uint32_t what);
/* For a rate. Listeners with other rates have buckets of their own. */
uint64_t key_for_rate(uint64_t owner, uint32_t what, const struct roda_rate *rate);

/* ---- door.c ------------------------------------------------------------------------------ */

roda_verdict door_accept(struct roda_ctx *x, struct roda_event *ev);
void door_opened(struct roda_ctx *x, struct roda_conn *c);
void door_closed(struct roda_ctx *x, struct roda_conn *c, const char *reason, int shutdown);

/* ---- flow.c ------------------------------------------------------------------------------ */

roda_verdict flow_input(struct roda_ctx *x, struct roda_event *ev);
roda_verdict flow_submit(struct roda_ctx *x, struct roda_event *ev);
roda_verdict flow_admit(struct roda_ctx *x, struct roda_event *ev);
void flow_charged(struct roda_ctx *x, struct roda_conn *c, uint32_t cost);

/* ---- excess.c ---------------------------------------------------------------------------- */

extern const char *const bucket_names[BUCKETS];

enum { WHERE_BYTES = 160 };
/* Where the limit stands and what it is: "[plugin ratelimit] messages = 2/s burst 10", or the line
 * of the listener. c: NULL at a home. */
const char *where_text(struct roda_ctx *x, const struct roda_conn *c, enum bucket bucket,
                       char buf[WHERE_BYTES]);
/* Counts a refusal, and says it in the broker's messages if it was not said lately. */
void excess_tell(struct roda_ctx *x, struct roda_conn *c, enum bucket bucket);
/* One more refusal; the last one allowed ends the connection and bans its prefix. */
void excess_strike(struct roda_ctx *x, struct roda_conn *c, enum bucket bucket);
/* The same for a connection of another worker, soon. */
void excess_strike_far(struct roda_ctx *x, roda_conn_id conn, enum bucket bucket);
/* What a filter returns to refuse what came from ev->conn. */
roda_verdict excess_refuse(struct roda_ctx *x, struct roda_event *ev, enum bucket bucket);

/* ---- bans.c ------------------------------------------------------------------------------ */

/* Worker 0. RODA_LATER: roda_started() follows. */
int bans_start(struct roda_ctx *x);
void bans_stop(struct roda_ctx *x);
/* Any worker: this network is banned from now on for so long; goes to the file. */
void bans_add(struct roda_ctx *x, const struct network *network, uint64_t ban_ms);

#endif
