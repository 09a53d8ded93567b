/*
 * Refuses where a filter may: "reject submit" and "drop submit", "reject admit" and "drop admit";
 * and at input, which sees no text, every unit of `unit` bytes.
 */
#include "text.h"

struct reject_conf {
    int64_t unit_bytes;
};

static const struct roda_option options[] = {
    {.name = "unit",
     .type = RODA_T_INT,
     .offset = offsetof(struct reject_conf, unit_bytes),
     .initial = "-1",
     .min = -1,
     .max = 65536,
     .help = "units of this length are refused; -1: none"},
    {.name = NULL},
};

static roda_verdict reject_input(struct roda_ctx *x, struct roda_event *ev)
{
    const struct reject_conf *conf = x->conf;

    if (conf->unit_bytes < 0 || ev->bytes != (size_t)conf->unit_bytes)
        return RODA_PASS;
    return roda_reject(ev, RODA_E_RATE, "not of this length");
}

static roda_verdict reject_submit(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    if (text_is(ev->msg, "reject submit"))
        return roda_reject(ev, RODA_E_RATE, "refused at submit");
    return text_is(ev->msg, "drop submit") ? RODA_DROP : RODA_PASS;
}

static roda_verdict reject_admit(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    if (text_is(ev->msg, "reject admit"))
        return roda_reject(ev, RODA_E_MODERATED, "refused at the home");
    return text_is(ev->msg, "drop admit") ? RODA_DROP : RODA_PASS;
}

RODA_PLUGIN(.name = "reject", .summary = "refuses", .version = "1",
            .conf_size = sizeof(struct reject_conf), .options = options, .input = reject_input,
            .submit = reject_submit, .admit = reject_admit);
