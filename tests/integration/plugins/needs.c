/* Needs counter/1, whatever the order of the sections: "count" is refused with the next number. */
#include <errno.h>

#include "counter.h"
#include "text.h"

struct needs_state {
    const struct counter *counter;
    struct roda_ctx *theirs;
};

static int needs_start(struct roda_ctx *x)
{
    struct needs_state *state = x->state;

    state->counter = roda_service(x, COUNTER_ID, &state->theirs);
    roda_log(x, RODA_LOG_INFO, "needs: started on worker %u", x->worker);
    return state->counter && state->theirs->worker == x->worker ? 0 : -ENOENT;
}

static void needs_stop(struct roda_ctx *x)
{
    struct needs_state *state = x->state;

    /* Stop is the reverse of start: what was needed is still there. */
    roda_log(x, RODA_LOG_INFO, "needs: stopped on worker %u with count %llu", x->worker,
             (unsigned long long)state->counter->next(state->theirs));
}

static roda_verdict needs_submit(struct roda_ctx *x, struct roda_event *ev)
{
    struct needs_state *state = x->state;

    if (!text_is(ev->msg, "count"))
        return RODA_PASS;
    return roda_reject(ev, RODA_E_ARGUMENT, "count %llu",
                       (unsigned long long)state->counter->next(state->theirs));
}

static const char *const needs[] = {COUNTER_ID, NULL};

RODA_PLUGIN(.name = "needs", .summary = "lets others count", .version = "1",
            .state_size = sizeof(struct needs_state), .needs = needs, .start = needs_start,
            .stop = needs_stop, .submit = needs_submit);
