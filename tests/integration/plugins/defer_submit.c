/*
 * Defers texts that begin with "defer" and decides `after` that: "defer drop" and "defer reject"
 * as they say, "defer never" not at all (so max_delay decides), others pass.
 */
#include "text.h"

struct defer_conf {
    int64_t after_ms;
};

static const struct roda_option options[] = {
    {.name = "after",
     .type = RODA_T_MS,
     .offset = offsetof(struct defer_conf, after_ms),
     .initial = "50ms",
     .max = 60000,
     .help = "when it decides"},
    {.name = NULL},
};

enum { RESUMED, STALE };
static const struct roda_metric metrics[] = {
    [RESUMED] = {"defer_submit_resumed_total", RODA_COUNTER, "decisions that were taken"},
    [STALE] = {"defer_submit_stale_total", RODA_COUNTER, "decisions that came too late"},
    {.name = NULL},
};

struct deferred {
    struct deferred *next, **link;
    struct roda_timer *timer;
    uint64_t ticket;
    roda_verdict verdict;
};

struct defer_state {
    struct deferred *first;
};

static void forget(struct roda_ctx *x, struct deferred *d)
{
    *d->link = d->next;
    if (d->next)
        d->next->link = d->link;
    roda_free(x, d);
}

static void decide(struct roda_ctx *x, void *arg, int result)
{
    struct deferred *d = arg;

    (void)result;
    result = roda_resume(x, d->ticket, d->verdict, RODA_E_ARGUMENT, RODA_STR("decided later"));
    roda_count(x, result ? STALE : RESUMED, 1);
    forget(x, d);
}

static roda_verdict defer_submit(struct roda_ctx *x, struct roda_event *ev)
{
    const struct defer_conf *conf = x->conf;
    struct defer_state *state = x->state;
    uint64_t ticket;

    if (!text_begins(ev->msg, "defer") || !ev->conn)
        return RODA_PASS;
    if (text_is(ev->msg, "defer never"))
        return roda_defer(ev, &ticket);
    struct deferred *d = roda_alloc(x, sizeof *d);
    if (d)
        d->timer = roda_timer_start(x, (uint64_t)conf->after_ms, 0, decide, d);
    if (!d || !d->timer) {
        roda_free(x, d);
        return roda_reject(ev, RODA_E_MEMORY, "out of memory");
    }
    d->verdict = text_is(ev->msg, "defer drop")     ? RODA_DROP
                 : text_is(ev->msg, "defer reject") ? RODA_REJECT
                                                    : RODA_PASS;
    d->next = state->first;
    d->link = &state->first;
    if (d->next)
        d->next->link = &d->next;
    state->first = d;
    return roda_defer(ev, &d->ticket);
}

static void defer_stop(struct roda_ctx *x)
{
    struct defer_state *state = x->state;

    while (state->first) {
        roda_timer_stop(state->first->timer);
        forget(x, state->first);
    }
}

RODA_PLUGIN(.name = "defer_submit", .summary = "decides later", .version = "1",
            .conf_size = sizeof(struct defer_conf), .state_size = sizeof(struct defer_state),
            .options = options, .metrics = metrics, .stop = defer_stop, .submit = defer_submit);
