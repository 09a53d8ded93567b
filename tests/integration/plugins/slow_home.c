/*
 * Makes the home of a room slow, as a disk would: defers its messages in publish, and lets `batch`
 * of them go each `period`.
 */
#include <errno.h>
#include <string.h>

#include <roda/plugin.h>

struct slow_home_conf {
    int64_t batch, period_ms;
    const char *room;
};

struct slow_home_state {
    struct roda_timer *timer;
};

static const struct roda_option options[] = {
    {.name = "batch",
     .type = RODA_T_INT,
     .offset = offsetof(struct slow_home_conf, batch),
     .initial = "10",
     .min = 1,
     .max = 1000000,
     .help = "events let go at once"},
    {.name = "period",
     .type = RODA_T_MS,
     .offset = offsetof(struct slow_home_conf, period_ms),
     .initial = "10ms",
     .min = 1,
     .max = 60000,
     .help = "how often"},
    {.name = "room",
     .type = RODA_T_STRING,
     .offset = offsetof(struct slow_home_conf, room),
     .initial = "",
     .help = "the one that is slow; empty: all"},
    {.name = NULL},
};

enum { DEFERRED, LET_GO };
static const struct roda_metric metrics[] = {
    [DEFERRED] = {"slow_home_deferred_total", RODA_COUNTER, "events deferred"},
    [LET_GO] = {"slow_home_let_go_total", RODA_COUNTER, "events let go"},
    {.name = NULL},
};

static void let_go(struct roda_ctx *x, void *arg, int result)
{
    const struct slow_home_conf *conf = x->conf;

    (void)arg;
    (void)result;
    roda_count(x, LET_GO, (int64_t)roda_resume_oldest(x, (size_t)conf->batch, 0));
}

static int slow_home_start(struct roda_ctx *x)
{
    const struct slow_home_conf *conf = x->conf;
    struct slow_home_state *state = x->state;
    uint64_t period_ms = (uint64_t)conf->period_ms;

    state->timer = roda_timer_start(x, period_ms, period_ms, let_go, NULL);
    return state->timer ? 0 : -ENOMEM;
}

static void slow_home_stop(struct roda_ctx *x)
{
    struct slow_home_state *state = x->state;

    roda_timer_stop(state->timer);
    (void)roda_resume_oldest(x, SIZE_MAX, 0);
}

static roda_verdict slow_home_publish(struct roda_ctx *x, struct roda_event *ev)
{
    const struct slow_home_conf *conf = x->conf;
    size_t len = strlen(conf->room);

    if (len && (ev->msg->to.len != len || memcmp(ev->msg->to.ptr, conf->room, len) != 0))
        return RODA_PASS;
    roda_count(x, DEFERRED, 1);
    return RODA_DEFER;
}

RODA_PLUGIN(.name = "slow_home", .summary = "publishes slowly", .version = "1",
            .conf_size = sizeof(struct slow_home_conf),
            .state_size = sizeof(struct slow_home_state), .options = options, .metrics = metrics,
            .start = slow_home_start, .stop = slow_home_stop, .publish = slow_home_publish);
