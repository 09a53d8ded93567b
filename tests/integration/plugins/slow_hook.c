/* Keeps its worker busy for `busy` when a text begins with "slow". */
#include <time.h>

#include "text.h"

struct slow_hook_conf {
    int64_t busy_ms;
};

static const struct roda_option options[] = {
    {.name = "busy",
     .type = RODA_T_MS,
     .offset = offsetof(struct slow_hook_conf, busy_ms),
     .initial = "50ms",
     .max = 10000,
     .help = "how long"},
    {.name = NULL},
};

static int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static roda_verdict slow_hook_submit(struct roda_ctx *x, struct roda_event *ev)
{
    const struct slow_hook_conf *conf = x->conf;

    if (text_begins(ev->msg, "slow"))
        for (int64_t end_ms = now_ms() + conf->busy_ms; now_ms() < end_ms;)
            ;
    return RODA_PASS;
}

RODA_PLUGIN(.name = "slow_hook", .summary = "spends too much time", .version = "1",
            .conf_size = sizeof(struct slow_hook_conf), .options = options,
            .submit = slow_hook_submit);
