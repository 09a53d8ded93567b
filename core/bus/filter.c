#include "bus/bus.h"

#include <stdio.h>

/*
 * Filters: dense arrays of hooks, one per stage, in the order of the [plugin] sections. A verdict
 * that carries more than itself (a reason, a delay, a ticket) leaves it in the event's decision
 * through roda_reject(), roda_delay() and roda_defer(), which return what the hook returns.
 *
 * Before a hook runs, the worker notes whose it is: the blame line of a fatal signal, and the
 * message about a turn over budget, name it.
 */

static struct event *event_of(struct roda_event *ev)
{
    return (struct event *)(void *)ev;
}

roda_verdict roda_reject(struct roda_event *ev, uint32_t code, const char *fmt, ...)
{
    struct decision *decision = &event_of(ev)->decision;
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(decision->text, sizeof decision->text, fmt, args);
    va_end(args);
    decision->code = code ? code : RODA_E_DROPPED;
    return RODA_REJECT;
}

roda_verdict roda_delay(struct roda_event *ev, uint64_t delay_ms)
{
    event_of(ev)->decision.delay_ms = delay_ms ? delay_ms : 1;
    return RODA_DELAY;
}

roda_verdict roda_defer(struct roda_event *ev, uint64_t *ret_ticket)
{
    struct event *event = event_of(ev);

    event->decision.ticket = event->bus->next_ticket++;
    *ret_ticket = event->decision.ticket;
    return RODA_DEFER;
}

roda_verdict roda_replace(struct roda_event *ev, struct roda_msg *msg)
{
    if (!event_of(ev)->replaceable) {
        roda_msg_unref(msg);
    } else if (msg) {
        msg->from = ev->msg->from; /* whoever made it, it is this sender's */
        msg->token = ev->msg->token;
        roda_msg_unref(ev->msg);
        ev->msg = msg;
        ev->bytes = msg->text.len;
    }
    return RODA_PASS;
}

void filter_run(struct bus *bus, const struct hook *hook, const char *stage, struct event *event)
{
    struct decision *decision = &event->decision;
    roda_verdict verdict;

    decision->code = 0;
    decision->text[0] = '\0';
    decision->delay_ms = decision->ticket = 0;
    bus_enter(bus, hook->context->name, stage);
    verdict = hook->filter(&hook->context->public, &event->public);
    bus_leave(bus);
    decision->verdict = verdict;
    if (verdict == RODA_REJECT && !decision->code)
        decision->code = RODA_E_DROPPED; /* without roda_reject(); RODA_OK is no reason */
}

static const char *const stage_names[STAGES] = {
    [STAGE_ACCEPT] = "accept",   [STAGE_INPUT] = "input",     [STAGE_SUBMIT] = "submit",
    [STAGE_ADMIT] = "admit",     [STAGE_PUBLISH] = "publish", [STAGE_DELIVER] = "deliver",
    [STAGE_OPENED] = "opened",   [STAGE_READY] = "ready",     [STAGE_CLOSED] = "closed",
    [STAGE_CHARGED] = "charged",
};

#define CAN(verdict) (1u << (verdict))
/* What else a filter says counts as passed, for that filter alone: no mistake of one may switch off
 * those behind it. Where a message would be shown, all but PASS hides it. */
static const uint32_t can[STAGES] = {
    [STAGE_ACCEPT] = CAN(RODA_DROP) | CAN(RODA_REJECT) | CAN(RODA_DELAY),
    [STAGE_INPUT] = CAN(RODA_DROP) | CAN(RODA_REJECT) | CAN(RODA_DELAY),
    [STAGE_SUBMIT] = CAN(RODA_DROP) | CAN(RODA_REJECT) | CAN(RODA_DELAY) | CAN(RODA_DEFER),
    [STAGE_ADMIT] = CAN(RODA_DROP) | CAN(RODA_REJECT),
    [STAGE_DELIVER] = CAN(RODA_DROP) | CAN(RODA_REJECT) | CAN(RODA_DELAY) | CAN(RODA_DEFER),
};

void filters_run(struct bus *bus, enum stage stage, uint32_t *index, struct event *event)
{
    const struct hooks *hooks = &bus->stages[stage];
    struct decision *decision = &event->decision;

    for (; *index < hooks->n; ++*index) {
        if (hooks->hooks[*index].off)
            continue;
        filter_run(bus, &hooks->hooks[*index], stage_names[stage], event);
        if (decision->verdict <= RODA_DEFER && can[stage] & CAN(decision->verdict))
            return;
    }
    decision->verdict = RODA_PASS;
}

void roda_filter_use(struct roda_ctx *x, uint32_t filters, int on)
{
    static const struct {
        uint32_t filter;
        enum stage stage;
    } stages[] = {{RODA_FILTER_INPUT, STAGE_INPUT},
                  {RODA_FILTER_SUBMIT, STAGE_SUBMIT},
                  {RODA_FILTER_ADMIT, STAGE_ADMIT}};
    struct context *context = context_of(x);

    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        struct hooks *hooks = &context->bus->stages[stages[i].stage];
        for (uint32_t j = 0; filters & stages[i].filter && j < hooks->n; j++) {
            struct hook *hook = &hooks->hooks[j];
            if (hook->context != context || hook->off == !on)
                continue;
            hook->off = !on;
            hooks->on += on ? 1 : UINT32_MAX;
        }
    }
}

void roda_charge(struct roda_ctx *x, struct roda_conn *c, uint32_t cost)
{
    struct bus *bus = context_of(x)->bus;

    for (uint32_t i = 0; i < bus->stages[STAGE_CHARGED].n; i++) {
        const struct hook *hook = &bus->stages[STAGE_CHARGED].hooks[i];
        bus_enter(bus, hook->context->name, stage_names[STAGE_CHARGED]);
        hook->charged(&hook->context->public, c, cost);
        bus_leave(bus);
    }
}
