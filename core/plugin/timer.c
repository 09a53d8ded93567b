#include "plugin/host.h"

#include "base/memory.h"

/* Timers of plugins: a node of the worker's wheel each, ended with the instance. */

struct roda_timer {
    struct wheel_timer node;
    struct list link; /* in the context's timers */
    struct context *context;
    uint64_t period_ms;
    roda_done_fn *fn;
    void *arg;
    bool running, stopped;
};

static void timer_free(struct roda_timer *timer)
{
    wheel_disarm(timer->context->bus->wheel, &timer->node);
    list_remove(&timer->link);
    memory_free(timer);
}

static void fire(struct wheel_timer *node);

static void arm(struct roda_timer *timer, uint64_t delay_ms)
{
    const struct bus *bus = timer->context->bus;
    uint64_t most_ms = UINT64_MAX - bus->now_ms; /* "never" is a delay, too */

    wheel_arm(bus->wheel, &timer->node, bus->now_ms + (delay_ms < most_ms ? delay_ms : most_ms),
              fire);
}

static void fire(struct wheel_timer *node)
{
    struct roda_timer *timer = container_of(node, struct roda_timer, node);
    struct bus *bus = timer->context->bus;

    bus_enter(bus, timer->context->name, "timer");
    timer->running = true;
    timer->fn(&timer->context->public, timer->arg, 0);
    timer->running = false;
    bus_leave(bus);
    if (timer->stopped || !timer->period_ms)
        timer_free(timer);
    else
        arm(timer, timer->period_ms);
}

struct roda_timer *roda_timer_start(struct roda_ctx *x, uint64_t delay_ms, uint64_t period_ms,
                                    roda_done_fn *fn, void *arg)
{
    struct context *context = context_of(x);
    struct roda_timer *timer = memory_alloc(sizeof *timer);

    if (!timer)
        return NULL;
    timer->context = context;
    timer->period_ms = period_ms;
    timer->fn = fn;
    timer->arg = arg;
    list_append(&context->timers, &timer->link);
    arm(timer, delay_ms);
    return timer;
}

void roda_timer_stop(struct roda_timer *timer)
{
    if (!timer)
        return;
    if (timer->running)
        timer->stopped = true;
    else
        timer_free(timer);
}

void timers_end(struct context *context)
{
    for (struct list *node; (node = list_first(&context->timers));)
        timer_free(container_of(node, struct roda_timer, link));
}
