/* Offers counter/1. */
#include "counter.h"

struct offers_state {
    uint64_t count;
};

static uint64_t next(struct roda_ctx *x)
{
    struct offers_state *state = x->state;

    return ++state->count;
}

static int offers_start(struct roda_ctx *x)
{
    roda_log(x, RODA_LOG_INFO, "offers: started on worker %u", x->worker);
    return 0;
}

static void offers_stop(struct roda_ctx *x)
{
    roda_log(x, RODA_LOG_INFO, "offers: stopped on worker %u", x->worker);
}

static const struct counter counter = {sizeof counter, next};
static const struct roda_service_table services[] = {{COUNTER_ID, &counter}, {NULL, NULL}};

RODA_PLUGIN(.name = "offers", .summary = "counts for others", .version = "1",
            .state_size = sizeof(struct offers_state), .services = services, .start = offers_start,
            .stop = offers_stop);
