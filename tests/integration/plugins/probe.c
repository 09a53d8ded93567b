/*
 * Says in the broker's messages which of its hooks run: "probe: STAGE". It is built as probe_a,
 * probe_b and probe_c, so that the order of several is seen. Only for texts that begin with
 * "probe", where there is a text.
 */
#include "text.h"

#ifndef PROBE_NAME
#define PROBE_NAME "probe_a"
#endif

static void say(struct roda_ctx *x, const char *stage)
{
    roda_log(x, RODA_LOG_INFO, PROBE_NAME ": %s", stage);
}

static roda_verdict stage(struct roda_ctx *x, const struct roda_event *ev, const char *name)
{
    if (!ev->msg || text_begins(ev->msg, "probe"))
        say(x, name);
    return RODA_PASS;
}

static roda_verdict probe_accept(struct roda_ctx *x, struct roda_event *ev)
{
    return stage(x, ev, "accept");
}

static roda_verdict probe_input(struct roda_ctx *x, struct roda_event *ev)
{
    return stage(x, ev, "input");
}

static roda_verdict probe_submit(struct roda_ctx *x, struct roda_event *ev)
{
    return stage(x, ev, "submit");
}

static roda_verdict probe_admit(struct roda_ctx *x, struct roda_event *ev)
{
    return stage(x, ev, "admit");
}

static roda_verdict probe_publish(struct roda_ctx *x, struct roda_event *ev)
{
    return stage(x, ev, "publish");
}

static roda_verdict probe_deliver(struct roda_ctx *x, struct roda_event *ev)
{
    return stage(x, ev, "deliver");
}

static int probe_init(struct roda_ctx *x)
{
    say(x, "init");
    return 0;
}

static int probe_start(struct roda_ctx *x)
{
    say(x, "start");
    return 0;
}

static void probe_stop(struct roda_ctx *x)
{
    say(x, "stop");
}

static void probe_fini(struct roda_ctx *x)
{
    say(x, "fini");
}

static void probe_opened(struct roda_ctx *x, struct roda_conn *c)
{
    roda_conn_ask_deliver(c, 1);
    say(x, "opened");
}

static void probe_ready(struct roda_ctx *x, struct roda_conn *c)
{
    (void)c;
    say(x, "ready");
}

static void probe_closed(struct roda_ctx *x, struct roda_conn *c, const char *reason, int shutdown)
{
    (void)c;
    (void)reason;
    say(x, shutdown ? "closed at shutdown" : "closed");
}

RODA_PLUGIN(.name = PROBE_NAME, .summary = "tells what runs", .version = "1", .init = probe_init,
            .start = probe_start, .stop = probe_stop, .fini = probe_fini, .accept = probe_accept,
            .input = probe_input, .submit = probe_submit, .admit = probe_admit,
            .publish = probe_publish, .deliver = probe_deliver, .opened = probe_opened,
            .ready = probe_ready, .closed = probe_closed);
