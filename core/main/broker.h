#ifndef RODA_MAIN_BROKER_H
#define RODA_MAIN_BROKER_H
/*
 * A whole broker, made from a checked configuration and run on a struct system: the real one, or a
 * fake one in tests.
 *
 * Its life is a row of phases with a barrier over all workers after each; the last worker to
 * arrive opens the next. Nobody outside has to drive them, so the simulator runs the same code.
 */
#include <stdbool.h>

#include "conf/conf.h"
#include "main/worker.h"
#include "net/listener.h"
#include "plugin/host.h"

enum phase {
    PHASE_START,       /* every plugin's start(), with what it does later */
    PHASE_OPEN,        /* listeners are opened */
    PHASE_RUN,         /* until somebody asks to stop */
    PHASE_STOP_ACCEPT, /* no new connections */
    PHASE_STOP_INPUT,  /* nothing more is read */
    PHASE_DRAIN,       /* mailboxes, lanes and messages under way */
    PHASE_DRAIN_AGAIN, /* what the last ones still caused */
    PHASE_SYNC,        /* files */
    PHASE_CLOSE,       /* what is queued is sent, connections are closed politely */
    PHASE_STOP,        /* what still is open is closed at once */
    PHASE_QUIET,       /* what was still posted is cancelled; every plugin's stop(), its files */
    PHASE_END,
};

struct broker {
    const struct system *system;
    struct conf *conf;
    struct host *host;
    struct net_limits limits;
    struct net_totals totals;
    uint32_t n_workers;
    struct worker *workers;
    struct mailbox *mailboxes;
    struct listener_settings *settings; /* per conf listener */
    struct listener_address *addresses;
    size_t n_settings, n_addresses;
    unsigned sq_entries, cq_entries;

    _Atomic uint32_t phase;
    _Atomic uint32_t arrived;
    _Atomic bool stop_asked, hurry, failed, telling;
    _Atomic bool broken; /* a worker is dead: no orderly end is possible any more */
    _Atomic uint64_t deadline_ms;
    _Atomic uint32_t reopens;        /* so many times reopen() was asked for */
    _Atomic uint32_t next_hand_over; /* UNIX connections: which worker gets the next */
    /* Told of PHASE_RUN, PHASE_END and failures, from any thread. NULL: nobody. */
    void (*changed)(void *arg);
    void *changed_arg;
    char problem[512]; /* why it failed; written once, by who set failed */
};

/* Fits the configuration to this machine and makes the plugins' instances (init()). No socket and
 * no ring yet. */
int broker_new(const struct system *system, struct conf *conf, struct host *host,
               struct roda_conf_errors *errors, struct broker **ret_broker, char *problem,
               size_t size);
/* Binds all addresses; tells each with its place. */
int broker_bind(struct broker *broker, struct roda_conf_errors *errors);
/* Makes the workers. After privileges were dropped. */
int broker_make_workers(struct broker *broker, char *problem, size_t size);
/* Starts their threads. */
int broker_run(struct broker *broker, char *problem, size_t size);
bool broker_running(const struct broker *broker);
bool broker_ended(const struct broker *broker);
/* A worker cannot go on. From its thread. */
void broker_break(struct broker *broker, const char *fmt, ...) RODA_PRINTF(2, 3);
/* From any thread. hurry: do not wait for what is politeness only. */
void broker_stop(struct broker *broker, bool hurry);
void broker_fail(struct broker *broker, const char *fmt, ...) RODA_PRINTF(2, 3);
/* From any thread: has every plugin's reopen() called on every worker, once they all run. */
void broker_reopen(struct broker *broker);
void broker_join(struct broker *broker);
void broker_free(struct broker *broker); /* not the conf, but the host; NULL is a no-op */

/* The worker has seen the phase, and whether it is to end. */
bool broker_phase_known(const struct broker *broker, const struct worker *w);
/* Called by each worker once per turn; true: it has work to do for the phase. */
bool broker_phase_turn(struct broker *broker, struct worker *w);

#endif
