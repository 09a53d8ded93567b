#ifndef RODA_MAIN_WORKER_H
#define RODA_MAIN_WORKER_H
/*
 * A worker: one thread, one ring, and everything that belongs to them. worker_turn() runs one turn
 * of its loop, so that a simulator can call it as well as the thread does.
 */
#include <pthread.h>

#include "bus/bus.h"
#include "net/net.h"
#include "ring/ring.h"
#include "ring/wheel.h"

struct broker;

struct worker {
    struct broker *broker;
    uint32_t index;
    struct ring ring;
    struct wheel wheel;
    struct net net;
    struct bus bus;
    struct files *files;
    pthread_t thread;
    uint32_t phase; /* the last one, if entered */
    bool entered;
    bool arrived;        /* at the barrier that ends it */
    int start_result;    /* of the plugins; RODA_LATER: not all have started */
    uint32_t reopened;   /* so many of the broker's reopens were done */
    bool made, threaded; /* what there is to undo */
    bool ended;
    bool busy;                   /* something is left: the next turn must not sleep */
    uint64_t clock_ns;           /* at the beginning of this turn */
    uint64_t told_ms;            /* about a turn over budget */
    uint64_t files_deadline_ms;  /* for what stop() left under way */
    struct wheel_timer deadline; /* of the shutdown */
};

/* [main]: everything that needs no running ring. */
int worker_init(struct worker *w, struct broker *broker, uint32_t index, char *problem,
                size_t size);
void worker_deinit(struct worker *w);
/* On its thread, before the first turn. */
int worker_enable(struct worker *w, char *problem, size_t size);
/* One turn. may_wait: sleep if there is nothing to do. False: the worker has ended. */
bool worker_turn(struct worker *w, bool may_wait);
void *worker_main(void *arg); /* the thread; arg: struct worker */
/* net->hand_over: spreads UNIX connections over the workers. */
bool worker_hand_over(void *bus, struct listener *l, int fd, bool full);

#endif
