#ifndef RODA_TESTHOST_H
#define RODA_TESTHOST_H
/*
 * A fake core for the tests of plugins: it offers every function of <roda/plugin.h>, without
 * sockets, threads or a clock, so that a test says what happens and when. Several workers take
 * turns on the calling thread; what the header promises about order holds here as well.
 *
 *     struct testhost *h = testhost_new(2);
 *     testhost_load(h, &greeter_plugin, "greeting = hello\n");
 *     testhost_start(h);
 *     struct testhost_conn *ana = testhost_connect(h, 0, "plain", "tcp");
 *     testhost_input(ana, "TEXT|lobby||hi\n");
 *     testhost_run(h);
 *     assert_string_equal(testhost_unit(ana), "...");
 *     assert_int_equal(testhost_stop(h), 0);
 *     testhost_free(h);
 *
 * The plugin's source is compiled into the test with its own -DRODA_PLUGIN_SYMBOL=greeter_plugin.
 * Names are C strings. Texts that are returned live until the next call for the same object. A
 * mistake of the test itself (no such plugin, no such listener) ends the program with a message.
 * One host at a time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <roda/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

struct testhost;
struct testhost_conn; /* a client; outlives its connection, until testhost_free() */

/* ---- life ------------------------------------------------------------------------------- */

struct testhost *testhost_new(uint32_t n_workers);
/* In the order of the [plugin] sections. conf: lines "key = value", or NULL. 0, or a negative
 * errno that testhost_error() explains: an option is wrong, or check() said so. */
int testhost_load(struct testhost *h, const struct roda_plugin *plugin, const char *conf);
/* A listener by name, with overrides of plugins' options ("ratelimit.messages = off") or NULL. */
int testhost_listener(struct testhost *h, const char *name, const char *protocol,
                      const char *transport, const char *conf);
/* Needs and owners are checked, then init, and start on every worker, in the order of needs. While
 * a start() that returned RODA_LATER goes on, all workers take turns, and time passes if nothing
 * else happens; -ETIMEDOUT if that takes more than 100 s. The first error is returned, after the
 * stop of what had started. */
int testhost_start(struct testhost *h);
const char *testhost_error(const struct testhost *h); /* "": none */
/* SIGUSR1: every reopen(), on every worker. */
void testhost_reopen(struct testhost *h);
/* The shutdown of the broker: input stops, lanes and mailboxes empty, connections are closed with
 * shutdown = 1, then stop and fini. Returns how many complaints and leaks there are, and prints
 * them on standard error. */
int testhost_stop(struct testhost *h);
void testhost_free(struct testhost *h); /* stops first; NULL is a no-op */

/* A plugin's context, to call roda_*() functions and services with. */
struct roda_ctx *testhost_ctx(struct testhost *h, const char *plugin, uint32_t worker);

/* What broke a rule of the header, "plugin hook: what". */
size_t testhost_complaints(const struct testhost *h);
const char *testhost_complaint(const struct testhost *h, size_t index); /* NULL: no more */
/* Forgets them: a test that provokes them on purpose says so. */
void testhost_forgive(struct testhost *h);

/* ---- turns and time --------------------------------------------------------------------- */

/* One turn of each worker, 0 upwards. Returns how much was done. */
size_t testhost_turn(struct testhost *h);
/* One turn: mailbox, completions (offloads, files), input, timers; then reports, places, sends and
 * closes; then what was posted goes out, and after it what was posted "after". */
size_t testhost_turn_worker(struct testhost *h, uint32_t worker);
/* Turns until nothing is left to do now. false: no end in 100,000 turns, which is a complaint. */
bool testhost_run(struct testhost *h);
/* The clock goes on by ms, from timer to timer, with testhost_run() at each. */
void testhost_advance_ms(struct testhost *h, uint64_t ms);
/* The clock starts at 1,000,000 ms and 2026-01-01 00:00:00 UTC. Sets the wall clock alone, so that
 * it can run backwards. */
void testhost_set_time_ns(struct testhost *h, int64_t time_ns);

/* ---- clients ---------------------------------------------------------------------------- */

/* transport: "tcp", "udp", "unix". The listener that the connection has is called like the
 * protocol. It is accepted in the worker's next turn. NULL: memory was out (see
 * testhost_fail_allocation). */
struct testhost_conn *testhost_connect(struct testhost *h, uint32_t worker, const char *protocol,
                                       const char *transport);
struct testhost_conn *testhost_connect_listener(struct testhost *h, uint32_t worker,
                                                const char *listener);
/* "192.0.2.7", 40112; before its first turn. A UNIX client has a uid instead of a port. */
void testhost_set_peer(struct testhost_conn *c, const char *address, uint16_t port);
/* Bytes of a stream; one datagram for "udp". Read in the next turn. */
void testhost_input(struct testhost_conn *c, const char *text);
void testhost_input_bytes(struct testhost_conn *c, const void *bytes, size_t len);
void testhost_end_input(struct testhost_conn *c); /* the client sends its end, and still reads */
void testhost_reset(struct testhost_conn *c);     /* the client is gone */
void testhost_read(struct testhost_conn *c, bool on); /* off: the client reads nothing */
void testhost_idle(struct testhost_conn *c);          /* nothing came for idle_ping */
/* What the client received and was not taken yet. */
const char *testhost_output(struct testhost_conn *c);
const char *testhost_output_bytes(struct testhost_conn *c, size_t *ret_len);
/* The next unit alone, without its line end. NULL: there is none. */
const char *testhost_unit(struct testhost_conn *c);
/* NULL: it has been closed, or not accepted. */
struct roda_conn *testhost_conn(const struct testhost_conn *c);
roda_conn_id testhost_conn_id(const struct testhost_conn *c); /* also of one that has gone */
bool testhost_closed(const struct testhost_conn *c);
const char *testhost_close_reason(const struct testhost_conn *c); /* "": open, or no reason */
/* A datagram without a session. 1: there is one now, *ret_conn. 0: answer (at most size - 1 bytes
 * and a NUL) is what was sent. Negative: silence. */
int testhost_knock(struct testhost *h, uint32_t worker, const char *protocol, const char *address,
                   uint16_t port, const char *datagram, char *answer, size_t size,
                   struct testhost_conn **ret_conn);

/*
 * The protocol "plain" is always there, so that filters and owners need no other plugin. A line is
 * KIND|to|subject|text, with flags as letters behind the kind ("TEXT+am|bob||hi": a ACTION,
 * d DIRECT, m MULTILINE, o DROPPABLE, f FORCED); the token counts lines from 1. "PING" is answered
 * "PONG" when nothing is under way, "QUIT" submits and closes. It is ready at once. What comes
 * back: "KIND|number|prev|nick|to|subject|text" (and "|nick" of the person after a change), and
 * per message "answer|code|KIND|token|number|text".
 */

/* ---- verdicts, faults, what was seen ---------------------------------------------------- */

enum testhost_stage {
    TESTHOST_ACCEPT,
    TESTHOST_INPUT,
    TESTHOST_SUBMIT,
    TESTHOST_ADMIT,
    TESTHOST_PUBLISH,
    TESTHOST_DELIVER,
    TESTHOST_STAGES
};
/* A filter of the test's own, at all stages, at this place among the plugins. */
typedef roda_verdict testhost_filter_fn(void *arg, enum testhost_stage stage, struct roda_ctx *x,
                                        struct roda_event *ev);
void testhost_load_filter(struct testhost *h, testhost_filter_fn *fn, void *arg);
/* What that filter needs for roda_resume() and roda_resume_oldest(): the ctx of the last one. */
struct roda_ctx *testhost_filter_ctx(struct testhost *h, uint32_t worker);

/* The n-th allocation from now fails, once (1: the next; 0: none): of roda_alloc(), messages,
 * persons, timers, lanes, places, files, offloads, sends and connections. */
void testhost_fail_allocation(struct testhost *h, uint64_t n);
uint64_t testhost_allocations(const struct testhost *h); /* since testhost_new() */
/* full: roda_route() from that worker to that one says RODA_LATER. */
void testhost_window(struct testhost *h, uint32_t from, uint32_t to, bool full);
/* How long a unit may be held; 10,000 at first. */
void testhost_max_delay_ms(struct testhost *h, uint64_t ms);
/* Offloaded work waits until it is turned off. */
void testhost_hold_offloads(struct testhost *h, bool on);

/* Files lie in memory, and folders are where files are. */
void testhost_file_put(struct testhost *h, const char *path, const void *bytes, size_t len);
const char *testhost_file_get(struct testhost *h, const char *path, size_t *ret_len); /* or NULL */
uint64_t testhost_file_reserved(struct testhost *h, const char *path); /* bytes; 0: no file */
void testhost_hold_files(struct testhost *h, bool on); /* syncs and other requests wait */
/* The same for files whose paths begin so; at most 63 bytes; empty: none. */
void testhost_hold_path(struct testhost *h, const char *prefix);
/* Files whose paths begin so cannot be removed: -EPERM; empty: none. */
void testhost_keep_path(struct testhost *h, const char *prefix);
/* What is appended waits until a sync: -ENOBUFS after 1 MB. Nor do other handles see it before,
 * even if its own is closed. */
void testhost_hold_writes(struct testhost *h, bool on);
/* Writes to files fail from now on, e.g. -ENOSPC; 0: no more. */
void testhost_fail_writes(struct testhost *h, int error);
/* What was not synced is lost, as when the power goes. Only with no file open. */
void testhost_power_cut(struct testhost *h);

/* The broker's messages, "level plugin: text", oldest first. */
size_t testhost_log_lines(const struct testhost *h);
const char *testhost_log_line(const struct testhost *h, size_t index); /* NULL: no more */
bool testhost_logged(const struct testhost *h, const char *part);
/* Of all workers. plugin "core": connections, messages_submitted_total, encodes_total, sends_total,
 * units_received_total. */
int64_t testhost_metric(const struct testhost *h, const char *plugin, const char *name);

#ifdef __cplusplus
}
#endif
#endif
