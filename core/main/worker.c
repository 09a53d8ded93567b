#include "main/worker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "bus/current.h"
#include "main/broker.h"

/*
 * The order inside a turn is what causality rests on:
 *
 *   enter; read the clock; mark the tail of the completion queue
 *   take the whole mailbox            what was pushed before our clients' input came, comes first
 *   completions up to the mark        new input is never older than the mailbox taken
 *   timers, resumed input, answers
 *   push to the other mailboxes       before any reply leaves
 *   submit sends
 *
 * If the mailbox could not be finished (too many deliveries), completions are handled, but input
 * is only stashed.
 */

#define COMPLETIONS_PER_TURN 4096u
#define ROUNDS_PER_TURN      8
#define BUDGET_NS            UINT64_C(50000000)
#define TIMED_TURNS          64u

/* Whatever another thread changes before it wakes this one must be looked at here. */
static bool nothing_new(void *arg)
{
    struct worker *w = arg;

    return mailbox_quiet(&w->bus) && broker_phase_known(w->broker, w);
}

static int sleep_or_look(struct worker *w, bool may_wait)
{
    uint64_t wait_ms = wheel_wait_ms(&w->wheel);
    bool sleeps = may_wait && !w->busy && wait_ms && ring_sleep_begin(&w->ring, nothing_new, w);
    int r;

    if (!sleeps)
        return ring_enter(&w->ring, false, 0);
    r = ring_enter(&w->ring, true, wait_ms > UINT64_MAX / 1000000 ? UINT64_MAX : wait_ms * 1000000);
    ring_sleep_end(&w->ring);
    return r;
}

static void read_clock(struct worker *w)
{
    const struct system *system = w->ring.system;
    uint64_t now_ms;

    w->clock_ns = system->monotonic_ns(system->kernel);
    now_ms = w->clock_ns / 1000000;
    w->net.now_ms = w->bus.now_ms = now_ms ? now_ms : 1;
    w->bus.time_ns = system->realtime_ns(system->kernel);
}

/* What this turn's completions, timers and items let go on; until nothing more comes of it. */
static void settle(struct worker *w)
{
    for (int round = 0; round < ROUNDS_PER_TURN; round++) {
        net_resume_inputs(&w->net);
        inputs_go_on(&w->bus);
        net_places(&w->net);
        answers_give(&w->bus);
        if (!mailbox_flush(&w->bus) && list_empty(&w->net.resume) && !w->bus.answers_oldest)
            return;
    }
}

static bool over_own_budget(const struct worker *w)
{
    const struct conf *conf = w->broker->conf;
    uint64_t budget_ms = 1;

    if (!w->bus.slowest_ns)
        return false;
    for (size_t i = 0; i < conf->n_plugins; i++)
        if (!strcmp(conf->plugins[i].name, w->bus.slowest.plugin))
            budget_ms = (uint64_t)conf->plugins[i].budget_ms;
    return budget_ms && w->bus.slowest_ns >= budget_ms * 1000000;
}

/* A turn over budget is told at most every ten seconds; who is to blame is known from the second
 * one on, when hooks are timed. */
static void watch_budget(struct worker *w)
{
    struct bus *bus = &w->bus;
    uint64_t spent_ns = bus_clock_ns(bus) - w->clock_ns;
    bool timed = bus->timed_turns;

    if (timed)
        bus->timed_turns--;
    if (spent_ns >= BUDGET_NS) {
        BUS_COUNT(bus, turns_over_budget);
        bus->timed_turns = TIMED_TURNS;
        if (timed && over_own_budget(w) && w->net.now_ms >= w->told_ms + 10000) {
            w->told_ms = w->net.now_ms;
            log_write(RODA_LOG_WARNING, "main",
                      "worker %u: a turn took %llu ms; plugin %s, hook %s: %llu ms of it", w->index,
                      (unsigned long long)(spent_ns / 1000000), bus->slowest.plugin,
                      bus->slowest.stage, (unsigned long long)(bus->slowest_ns / 1000000));
        }
    }
    bus->slowest_ns = 0;
}

bool worker_turn(struct worker *w, bool may_wait)
{
    unsigned mark, left;
    bool phase_busy;
    int r;

    bus_set_current(&w->bus);
    r = sleep_or_look(w, may_wait);
    if (r < 0) {
        broker_break(w->broker, "worker %u: the ring failed: %s", w->index, strerror(-r));
        return false;
    }
    read_clock(w);
    mark = ring_mark(&w->ring);
    w->net.input_stopped = !mailbox_drain(&w->bus);
    left = ring_dispatch(&w->ring, mark, COMPLETIONS_PER_TURN);
    (void)ring_jobs_run(&w->ring);
    (void)wheel_advance(&w->wheel, w->net.now_ms);
    settle(w);
    net_pressure(&w->net);
    (void)mailbox_flush(&w->bus); /* last words were said; nothing may leave before its cause */
    net_flush(&w->net);
    net_report_ended(&w->net);
    fanout_end_turn(&w->bus);
    phase_busy = broker_phase_turn(w->broker, w);
    (void)mailbox_flush(&w->bus);
    files_step(w->files);
    net_rearm(&w->net);
    ring_wake_arm(&w->ring);
    net_gauges(&w->net);
    BUS_COUNT(&w->bus, turns);
    watch_budget(w);
    w->busy = left || phase_busy || net_busy(&w->net) || !mailbox_idle(&w->bus) ||
              ring_jobs_waiting(&w->ring) || inputs_may_go_on(&w->bus) || w->bus.answers_oldest;
    return !w->ended;
}

int worker_init(struct worker *w, struct broker *broker, uint32_t index, char *problem, size_t size)
{
    struct bus_options options = {.worker = index,
                                  .n_workers = broker->n_workers,
                                  .net = &w->net,
                                  .ring = &w->ring,
                                  .wheel = &w->wheel,
                                  .mailboxes = broker->mailboxes};
    const struct system *system = broker->system;
    int r;

    memset(w, 0, sizeof *w);
    w->broker = broker;
    w->index = index;
    w->phase = PHASE_START;
    w->start_result = RODA_LATER;
    w->busy = true;
    r = ring_init(&w->ring, system, broker->sq_entries, broker->cq_entries);
    if (r) {
        (void)snprintf(problem, size, "worker %u: no ring: %s", index, strerror(-r));
        return r;
    }
    wheel_init(&w->wheel, system->monotonic_ns(system->kernel) / 1000000);
    r = net_init(&w->net, &w->ring, &w->wheel, &broker->limits, &bus_net_hooks, &w->bus, index,
                 &broker->totals);
    if (!r)
        r = files_new(&w->ring, &w->wheel, &w->files);
    options.files = w->files;
    if (!r)
        r = bus_init(&w->bus, &options);
    if (!r)
        r = host_attach(broker->host, &w->bus);
    w->made = true;
    broker->mailboxes[index].ring = &w->ring;
    if (r)
        (void)snprintf(problem, size, "worker %u: %s", index, strerror(-r));
    return r;
}

void worker_deinit(struct worker *w)
{
    if (!w->made)
        return;
    bus_set_current(&w->bus);
    ring_deinit(&w->ring);
    bus_deinit(&w->bus);
    bus_set_current(NULL);
    files_free(w->files);
    net_deinit(&w->net);
    w->made = false;
}

int worker_enable(struct worker *w, char *problem, size_t size)
{
    int r = ring_enable(&w->ring);

    if (!r)
        r = net_start(&w->net);
    if (r)
        (void)snprintf(problem, size, "worker %u: its ring does not start: %s", w->index,
                       strerror(-r));
    return r;
}

/* ---- connections that arrive at the wrong worker ---------------------------------------- */

struct hand_over {
    struct roda_item item;
    uint32_t listener;
    int fd;
    bool full;
};

static void hand_over_run(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct hand_over *h = (struct hand_over *)(void *)item;
    struct net *net = context_of(x)->bus->net;

    if (result < 0 || net->stopping || h->listener >= net->n_listeners)
        connection_dismiss(net, h->fd);
    else
        (void)connection_open(net, &net->listeners[h->listener], h->fd, h->full);
    memory_free(h);
}

bool worker_hand_over(void *owner, struct listener *l, int fd, bool full)
{
    struct bus *bus = owner;
    struct worker *w = container_of(bus, struct worker, bus);
    uint32_t to = __atomic_fetch_add((uint32_t *)&w->broker->next_hand_over, 1, __ATOMIC_RELAXED) %
                  bus->n_workers;
    struct hand_over *h = to == bus->worker ? NULL : memory_alloc(sizeof *h);

    if (!h)
        return false;
    h->item.run = hand_over_run;
    h->listener = l->index;
    h->fd = fd;
    h->full = full;
    bus_post(bus, to, 0, &h->item, false);
    return true;
}

void *worker_main(void *arg)
{
    struct worker *w = arg;
    char problem[256];

    if (worker_enable(w, problem, sizeof problem)) {
        broker_break(w->broker, "%s", problem);
        return NULL;
    }
    while (worker_turn(w, true)) {
    }
    return NULL;
}
