/* Delays texts that begin with "delay" once, by `delay`; "delay for ever" each time it is asked. */
#include "text.h"

struct delay_conf {
    int64_t delay_ms;
};

static const struct roda_option options[] = {
    {.name = "delay",
     .type = RODA_T_MS,
     .offset = offsetof(struct delay_conf, delay_ms),
     .initial = "50ms",
     .max = 60000,
     .help = "how long"},
    {.name = NULL},
};

enum { ASKED };
static const struct roda_metric metrics[] = {
    [ASKED] = {"delay_submit_asked_total", RODA_COUNTER, "times it was asked about such a text"},
    {.name = NULL},
};

struct delay_conn {
    uint64_t until_ms; /* of the text that waits; 0: none does */
};

static roda_verdict delay_submit(struct roda_ctx *x, struct roda_event *ev)
{
    const struct delay_conf *conf = x->conf;
    struct delay_conn *data;

    if (!text_begins(ev->msg, "delay") || !ev->conn)
        return RODA_PASS;
    roda_count(x, ASKED, 1);
    data = roda_conn_data(x, ev->conn);
    if (!data->until_ms)
        data->until_ms = roda_now_ms(x) + (uint64_t)conf->delay_ms;
    else if (roda_now_ms(x) >= data->until_ms && !text_is(ev->msg, "delay for ever")) {
        data->until_ms = 0;
        return RODA_PASS;
    }
    return roda_delay(ev, (uint64_t)conf->delay_ms);
}

RODA_PLUGIN(.name = "delay_submit", .summary = "makes some wait", .version = "1",
            .conf_size = sizeof(struct delay_conf), .conn_size = sizeof(struct delay_conn),
            .options = options, .metrics = metrics, .submit = delay_submit);
