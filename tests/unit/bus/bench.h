#ifndef RODA_TESTS_UNIT_BUS_BENCH_H
#define RODA_TESTS_UNIT_BUS_BENCH_H
/*
 * A broker of one to three workers on the fake kernel, without files and shared objects: its three
 * plugins are descriptors that a test fills before bench_start(). Everything else is the real
 * thing, from the first phase to the last, so a test sees what a client or a plugin would.
 *
 * The protocol speaks lines. What a client says, and what it gets:
 *
 *   say 0a TEXT       a TEXT to destination a, whose home is worker 0
 *   do KIND 0a TEXT   a message of that kind
 *   ping              a barrier, answered "pong"
 *   variant N         the connection's variant from now on
 *   bad               a protocol error
 *   =TOKEN CODE #NUMBER TEXT    an answer; tokens are 1, 2, 3 ... per connection; the text only if
 *                               the code is not 0; "!CODE TEXT" for a unit an input filter refused
 *   0a #NUMBER <PREV TEXT       a message; " vVARIANT" behind it if the variant is not 0
 *
 * The plugin OWNER owns all kinds: it routes to the home, publishes to the destination's lane, and
 * shows everything to every connection of every worker.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "bus/bus.h"
#include "main/broker.h"
#include "sim/kernel.h"

enum { OWNER, FIRST, SECOND, BENCH_PLUGINS };

#define BENCH_WORKERS      3u
#define BENCH_CONNECTIONS  80u
#define BENCH_DESTINATIONS 4u
#define BENCH_LOG          4096u

struct bench_conn { /* the protocol's memory in a connection */
    uint64_t token;
};

struct bench_worker { /* the owner's state */
    struct roda_lane *lanes[BENCH_DESTINATIONS];
    struct roda_conn *conns[BENCH_CONNECTIONS];
    uint32_t n_conns;
};

struct bench {
    struct sim_kernel *kernel;
    struct broker *broker;
    struct conf conf;
    struct roda_plugin plugins[BENCH_PLUGINS];
    struct roda_protocol protocols[2]; /* the second ends the table */
    uint32_t masks[RODA_KIND_MAX + 1]; /* of the protocol; all bits at first */
    struct listener_settings *settings;

    /* What the owner does instead, if set. */
    int (*handle)(struct roda_ctx *x, struct roda_event *ev);
    roda_lane_fn *lane;
    void (*distributed)(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination);

    uint64_t answers, decodes, encodes, closed, leaves;
    struct roda_conn *last_closed;
    bool ended[BENCH_WORKERS];
};
extern struct bench *bench; /* the one there is */

struct bench_client {
    struct sim_client *end; /* NULL: closed by us */
    bool over;              /* closed by the broker */
    size_t len;
    char in[1u << 20]; /* what came and was not expected yet; NUL-terminated */
};

void bench_new(uint32_t n_workers);
void bench_start(void);
/* bench_start() without the first turn: the phases are the test's to watch. */
void bench_begin(void);
/* An orderly shutdown. Nothing may be left over. */
void bench_end(void);

struct worker *bench_worker(uint32_t w);
struct bus *bench_bus(uint32_t w);
struct roda_ctx *bench_ctx(uint32_t w, unsigned plugin);
struct bench_worker *bench_state(uint32_t w);
/* The lane of destination d ('a' ...) at worker w; NULL: not made yet. */
struct roda_lane *bench_lane(uint32_t w, char d);

/* Between the two the test may call roda_*() functions as a hook of worker w may. */
void bench_as(uint32_t w);
void bench_done(uint32_t w); /* and everybody settles */

void bench_turn(uint32_t w);
void bench_settle(void);      /* until nobody has anything to do for 5 ms */
void bench_pass(uint64_t ms); /* time goes by, and everybody works */
uint64_t bench_now_ms(void);

/* A client of worker w, known to the owner. */
struct bench_client *bench_connect(uint32_t w);
/* The same, and nobody has accepted it yet. */
struct bench_client *bench_connect_only(uint32_t w);
/* The youngest connection of worker w. */
struct roda_conn *bench_conn(uint32_t w);
void bench_say(struct bench_client *c, const char *fmt, ...) RODA_PRINTF(2, 3);
void bench_close(struct bench_client *c); /* the end; the handle stays till bench_forget() */
void bench_forget(struct bench_client *c);
/* Settles; then exactly this has come since the last call. */
void bench_expect(struct bench_client *c, const char *text);
/* Settles; how often this begins a line of what has come, and takes it all. */
unsigned bench_count(struct bench_client *c, const char *beginning);
/* The next line, taken, or NULL. Until the next call. */
char *bench_line(struct bench_client *c);
void bench_read(struct bench_client *c);

/* A message of the broker itself. */
struct roda_msg *bench_msg(uint32_t w, uint32_t kind, const char *to, const char *text);
/* The destination as the owner means it. */
int bench_route(struct roda_ctx *x, struct roda_event *ev);
/* Shows msg to everybody, everywhere. */
int bench_distribute(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination);
/* Sum over all workers of a counter of the bus. */
#define bench_counter(name)                                                                        \
    __extension__({                                                                                \
        uint64_t sum_ = 0;                                                                         \
        for (uint32_t w_ = 0; w_ < bench->broker->n_workers; w_++)                                 \
            sum_ += bench_bus(w_)->counters.name;                                                  \
        sum_;                                                                                      \
    })

#endif
