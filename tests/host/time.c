#include "inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Clock, chance, timers and work for later. The clock stands still unless the test moves it. Jobs
 * (offloaded work, file requests) are taken in the completions part of a turn, those that were
 * there when it began.
 */

uint64_t roda_now_ms(struct roda_ctx *x)
{
    return host_of(x)->now_ms;
}

int64_t roda_time_ns(struct roda_ctx *x)
{
    return host_of(x)->time_ns;
}

/* SplitMix64 (Steele, Lea, Flood 2014): the same in each run. */
void roda_random(struct roda_ctx *x, void *buf, size_t size)
{
    struct testhost *h = host_of(x);
    unsigned char *to = buf;

    while (size) {
        uint64_t z = h->random += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
        size_t n = size < sizeof z ? size : sizeof z;
        memcpy(to, &z, n);
        to += n;
        size -= n;
    }
}

struct roda_timer *roda_timer_start(struct roda_ctx *x, uint64_t delay_ms, uint64_t period_ms,
                                    roda_done_fn *fn, void *arg)
{
    struct testhost *h = host_of(x);
    struct worker *w = worker_of(x);
    struct roda_timer *t = may_get(h, sizeof *t);

    if (!t)
        return NULL;
    t->context = context_of(x);
    t->at_ms = h->now_ms + delay_ms;
    t->period_ms = period_ms;
    t->serial = ++h->serial;
    t->fn = fn;
    t->arg = arg;
    list_append(&w->timers, &t->link);
    return t;
}

void roda_timer_stop(struct roda_timer *timer)
{
    if (!timer)
        return;
    if (timer->running) { /* in its own function */
        timer->stopped = true;
        return;
    }
    list_remove(&timer->link);
    free(timer);
}

static struct roda_timer *timer_first(const struct worker *w)
{
    struct roda_timer *first = NULL;

    for (struct link *l = w->timers.next; l != &w->timers; l = l->next) {
        struct roda_timer *t = container_of(l, struct roda_timer, link);
        if (!first || t->at_ms < first->at_ms ||
            (t->at_ms == first->at_ms && t->serial < first->serial))
            first = t;
    }
    return first;
}

uint64_t timers_wake_ms(const struct worker *w)
{
    const struct roda_timer *t = timer_first(w);

    return t ? t->at_ms : UINT64_MAX;
}

void timers_run(struct worker *w)
{
    struct testhost *h = w->host;
    uint64_t serial = h->serial; /* what is started meanwhile waits for the next turn */
    struct roda_timer *t;

    while ((t = timer_first(w)) && t->at_ms <= h->now_ms && t->serial <= serial) {
        h->progress++;
        t->serial = ++h->serial;
        t->at_ms = h->now_ms + t->period_ms;
        t->running = true;
        struct hook_before before = hook_enter(h, t->context->instance, "timer");
        t->fn(&t->context->x, t->arg, 0);
        hook_leave(h, before);
        t->running = false;
        if (!t->period_ms || t->stopped)
            roda_timer_stop(t);
    }
}

/* ---- jobs ------------------------------------------------------------------------------- */

void job_add(struct context *context, struct job *job)
{
    job->context = context;
    list_append(&context->worker->jobs, &job->link);
}

void jobs_run(struct worker *w)
{
    struct testhost *h = w->host;
    struct link mine;
    struct link *last = w->jobs.prev;
    bool more = !list_empty(&w->jobs);

    list_init(&mine);
    while (more) {
        struct link *first = list_first(&w->jobs);
        more = first != last;
        list_remove(first);
        list_append(&mine, first);
    }
    while (!list_empty(&mine)) {
        struct job *job = container_of(list_first(&mine), struct job, link);
        list_remove(&job->link);
        if (!h->cancelling && (job->is_file ? file_is_held(h, job) : h->hold_offloads)) {
            list_append(&w->jobs, &job->link);
            continue;
        }
        h->progress++;
        job->run(job, h->cancelling && !job->is_file ? -ECANCELED : 0);
    }
}

struct offload {
    struct job job;
    void (*work)(void *arg);
    roda_done_fn *done;
    void *arg;
};

static void offload_run(struct job *job, int result)
{
    struct offload *o = container_of(job, struct offload, job);
    struct context *context = job->context;

    o->work(o->arg); /* also at shutdown: the broker waits for it */
    context->instance->offloads--;
    struct hook_before before = hook_enter(context->instance->host, context->instance, "done");
    o->done(&context->x, o->arg, result);
    hook_leave(context->instance->host, before);
    free(o);
}

int roda_offload(struct roda_ctx *x, void (*work)(void *arg), roda_done_fn *done, void *arg)
{
    struct instance *instance = context_of(x)->instance;
    struct offload *o;

    (void)worker_of(x);
    if (instance->offloads >= 64)
        return -EAGAIN;
    if (!(o = may_get(host_of(x), sizeof *o)))
        return -ENOMEM;
    o->job.run = offload_run;
    o->work = work;
    o->done = done;
    o->arg = arg;
    instance->offloads++;
    job_add(context_of(x), &o->job);
    return 0;
}
