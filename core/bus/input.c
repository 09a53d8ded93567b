#include "bus/bus.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

/*
 * A connection's input is a lane: units and the messages they become pass in order, and nothing
 * overtakes, neither PING nor the end of file. Input waits (roda_conn.waits) while
 *
 *   - a message is held: delayed or deferred by a submit filter, or waiting until nothing is under
 *     way to another destination, or for the window to its home;
 *   - a unit said RODA_AGAIN, or one was not taken: until nothing is under way (a barrier);
 *   - 64 messages or 64 kB are under way;
 *   - an accept or input filter delays.
 *
 * A message is under way from roda_route() until its receipt. Only input ever waits; receipts and
 * items are handled at once, so waiting always ends.
 *
 * Held messages of a connection stand in a FIFO; the head is what is waited for. The core keeps
 * the message, not the unit, so filters with a memory (rate limits) see each message once.
 */

enum why {
    WHY_BEHIND,  /* another one is before it */
    WHY_DELAY,   /* a filter: until the timer */
    WHY_DEFER,   /* a filter: until roda_resume() */
    WHY_SETTLED, /* the owner: until nothing is under way */
    WHY_WINDOW,  /* roda_route(): until the window opens */
    WHY_TURN,    /* refused, and this is told when nothing before it is under way */
};

struct held {
    struct held *next;
    struct roda_msg *msg;
    uint32_t index; /* of the submit filter that goes on */
    enum why why;
    uint64_t since_ms;
    bool decided; /* a filter, or time, said no */
    uint32_t code;
    uint32_t text_len;
    char text[200];
};

struct waiting {
    struct roda_conn *conn;
    struct bus *bus;
    struct held *oldest, *newest;
    struct list link; /* in bus->go_on or bus->window_waits */
    struct list ticket_link;
    uint64_t ticket;
    struct wheel_timer timer; /* of the head */
    /* An accept or input filter that delays. */
    struct wheel_timer filter_timer;
    enum stage stage;
    uint32_t index;
    uint64_t since_ms;
    bool again;    /* that filter is to be asked again */
    bool oversize; /* the unit that it delays is gone, and had so many bytes */
    size_t oversize_bytes;
    bool late; /* a unit was not taken: what to say about it waits until nothing is under way */
    size_t late_bytes;
    struct decision decision; /* of the input filters */
    bool trying;              /* the head is being tried: it does not wait for itself */
};

static void on_timer(struct wheel_timer *timer);
static void settled(struct roda_conn *c);
static void tell_late(struct roda_conn *c);
static void on_filter_timer(struct wheel_timer *timer);
static void on_oversize(void *owner, struct roda_conn *c, size_t bytes);

static struct waiting *waiting_of(struct roda_conn *c)
{
    return c->waiting;
}

static struct waiting *waiting_get(struct bus *bus, struct roda_conn *c)
{
    struct waiting *w = c->waiting;

    if (!w && (w = memory_alloc(sizeof *w))) {
        w->conn = c;
        w->bus = bus;
        c->waiting = w;
    }
    return w;
}

static void waiting_free(struct bus *bus, struct roda_conn *c)
{
    struct waiting *w = c->waiting;

    if (!w)
        return;
    wheel_disarm(bus->wheel, &w->timer);
    wheel_disarm(bus->wheel, &w->filter_timer);
    list_remove(&w->link);
    list_remove(&w->ticket_link);
    for (struct held *held; (held = w->oldest);) {
        w->oldest = held->next;
        roda_msg_unref(held->msg);
        memory_free(held);
    }
    memory_free(w);
    c->waiting = NULL;
}

/* When to ask again: after the filter's delay, but not after since_ms + max_delay. */
static uint64_t due_ms(const struct waiting *w, uint64_t since_ms, uint64_t delay_ms)
{
    uint64_t at_ms = since_ms + w->conn->settings->max_delay_ms, now_ms = w->bus->now_ms;

    return now_ms < at_ms && delay_ms < at_ms - now_ms ? now_ms + delay_ms : at_ms;
}

/* Nothing waits any more. */
static void waiting_free_if_idle(struct bus *bus, struct roda_conn *c)
{
    const struct waiting *w = c->waiting;

    if (w && !w->oldest && !w->again && !w->late)
        waiting_free(bus, c);
}

static void go_on_soon(struct waiting *w)
{
    list_remove(&w->link);
    list_append(&w->bus->go_on, &w->link);
}

/* ---- one message through submit and handle ---------------------------------------------- */

static void refuse_here(struct bus *bus, const struct event *event, uint32_t code, const char *text,
                        size_t len)
{
    if (event->public.msg->from)
        answer_queue(bus, event->public.msg->from, code, (struct roda_str){text, len},
                     event->public.msg);
}

/* Answers come in the order of the messages: as long as others are under way, it waits. */
static bool refuse_in_turn(struct bus *bus, struct event *event, uint32_t code, enum why *why)
{
    struct decision *decision = &event->decision;

    decision->code = code;
    if (code == RODA_E_DROPPED || code == RODA_E_UNKNOWN)
        decision->text[0] = '\0';
    if (event->public.conn && event->public.conn->under_way) {
        *why = WHY_TURN;
        return false;
    }
    refuse_here(bus, event, code, decision->text, strlen(decision->text));
    return true;
}

/* True: done with; false: *why says what it waits for, *index where it goes on. */
static bool process(struct bus *bus, struct event *event, uint32_t *index, enum why *why)
{
    struct decision *decision = &event->decision;
    struct context *owner;
    int r;

    for (;;) {
        event->replaceable = true;
        filters_run(bus, STAGE_SUBMIT, index, event);
        event->replaceable = false;
        if (event->public.conn ||
            (decision->verdict != RODA_DELAY && decision->verdict != RODA_DEFER))
            break;
        ++*index; /* a plugin's own message cannot wait: as if passed */
    }
    switch (decision->verdict) {
    case RODA_PASS:
        break;
    case RODA_DROP:
        return refuse_in_turn(bus, event, RODA_E_DROPPED, why);
    case RODA_REJECT:
        return refuse_in_turn(bus, event, decision->code, why);
    case RODA_DELAY:
        *why = WHY_DELAY;
        return false;
    default:
        ++*index;
        *why = WHY_DEFER;
        return false;
    }
    owner = event->public.msg->kind <= RODA_KIND_MAX ? bus->owners[event->public.msg->kind] : NULL;
    if (!owner)
        return refuse_in_turn(bus, event, RODA_E_UNKNOWN, why);
    message_of(event->public.msg)->instance = owner->instance;
    bus_enter(bus, owner->name, "handle");
    r = owner->plugin->handle(&owner->public, &event->public);
    bus_leave(bus);
    if (r != RODA_LATER || event->settled || !event->public.conn)
        return true;
    *why = event->window ? WHY_WINDOW : WHY_SETTLED;
    BUS_COUNT(bus, inputs_waited_route);
    return false;
}

static void wait_for(struct waiting *w, struct held *held, const struct decision *decision)
{
    struct bus *bus = w->bus;

    list_remove(&w->link);
    switch (held->why) {
    case WHY_DELAY:
        wheel_arm(bus->wheel, &w->timer, due_ms(w, held->since_ms, decision->delay_ms), on_timer);
        break;
    case WHY_DEFER:
        w->ticket = decision->ticket;
        list_remove(&w->ticket_link);
        list_append(&bus->tickets, &w->ticket_link);
        wheel_arm(bus->wheel, &w->timer, due_ms(w, held->since_ms, UINT64_MAX), on_timer);
        break;
    case WHY_WINDOW:
        list_append(&bus->window_waits, &w->link);
        break;
    case WHY_SETTLED:
    case WHY_TURN:
        if (!w->conn->under_way)
            go_on_soon(w); /* the owner waits for something else: next turn */
        break;
    default:
        break;
    }
}

static void decide(struct held *held, uint32_t code, const char *text, size_t len)
{
    held->decided = true;
    held->code = code;
    held->text_len = len < sizeof held->text ? (uint32_t)len : sizeof held->text;
    if (len)
        memcpy(held->text, text, held->text_len);
}

static struct held *hold(struct bus *bus, struct roda_conn *c, struct roda_msg *msg, uint32_t index,
                         enum why why)
{
    struct waiting *w = waiting_get(bus, c);
    struct held *held = w ? memory_alloc(sizeof *held) : NULL;

    if (!held)
        return NULL;
    held->msg = msg;
    held->index = index;
    held->why = why;
    held->since_ms = bus->now_ms;
    if (w->newest)
        w->newest->next = held;
    else
        w->oldest = held;
    w->newest = held;
    c->waits |= WAIT_EVENT;
    return held;
}

void roda_submit(struct roda_ctx *x, struct roda_conn *c, struct roda_msg *msg)
{
    struct bus *bus = context_of(x)->bus;
    struct waiting *w = c ? waiting_of(c) : NULL;
    struct event event;
    uint32_t index = 0;
    enum why why = WHY_BEHIND;

    event_begin(&event, bus, c, msg, msg->text.len);
    BUS_COUNT(bus, messages_submitted);
    if (c && c->state == CONNECTION_GONE) {
        roda_msg_unref(msg);
        return;
    }
    if (w && w->oldest) {
        if (hold(bus, c, msg, 0, WHY_BEHIND))
            return;
    } else {
        if (process(bus, &event, &index, &why) || !c) {
            roda_msg_unref(event.public.msg);
            return;
        }
        struct held *held = hold(bus, c, event.public.msg, index, why);
        if (held) {
            if (why == WHY_TURN)
                decide(held, event.decision.code, event.decision.text, strlen(event.decision.text));
            wait_for(c->waiting, held, &event.decision);
            return;
        }
    }
    answer_queue(bus, c->id, RODA_E_MEMORY, RODA_STR(""), event.public.msg);
    roda_msg_unref(event.public.msg);
}

/* Tries the head again, and what is behind it, as far as it goes. */
static void go_on(struct waiting *w)
{
    struct bus *bus = w->bus;
    struct roda_conn *c = w->conn;

    wheel_disarm(bus->wheel, &w->timer);
    while (w->oldest) {
        struct held *held = w->oldest;
        struct event event;
        bool filtering = held->why == WHY_DELAY || held->why == WHY_DEFER;
        bool late = filtering && bus->now_ms >= held->since_ms + c->settings->max_delay_ms;
        bool done = false;
        event_begin(&event, bus, c, held->msg, held->msg->text.len);
        if (late && held->why == WHY_DEFER && !held->decided) {
            list_remove(&w->ticket_link);
            decide(held, RODA_E_TIMEOUT, "", 0);
        }
        if (!held->decided) {
            if (held->why == WHY_BEHIND)
                held->since_ms = bus->now_ms;
            if (held->why == WHY_SETTLED || held->why == WHY_WINDOW)
                held->index = bus->stages[STAGE_SUBMIT].n; /* filters were passed */
            w->trying = true;
            done = process(bus, &event, &held->index, &held->why);
            w->trying = false;
            held->msg = event.public.msg;
            if (!done && held->why == WHY_TURN)
                decide(held, event.decision.code, event.decision.text, strlen(event.decision.text));
            if (!done && held->why == WHY_DELAY && late)
                decide(held, RODA_E_TIMEOUT, "", 0);
        }
        if (held->decided) {
            done = !c->under_way;
            held->why = WHY_TURN;
            if (done)
                refuse_here(bus, &event, held->code, held->text, held->text_len);
        }
        if (!done) {
            wait_for(w, held, &event.decision);
            return;
        }
        w->oldest = held->next;
        if (!w->oldest)
            w->newest = NULL;
        roda_msg_unref(held->msg);
        memory_free(held);
    }
    c->waits &= (uint8_t)~WAIT_EVENT;
    settled(c);
    waiting_free_if_idle(bus, c);
    if (!c->waits)
        connection_resume(c);
}

static void on_timer(struct wheel_timer *timer)
{
    go_on_soon(container_of(timer, struct waiting, timer));
}

static void on_filter_timer(struct wheel_timer *timer)
{
    struct waiting *w = container_of(timer, struct waiting, filter_timer);
    struct roda_conn *c = w->conn;

    if (w->stage == STAGE_ACCEPT) { /* no unit is shown before its verdict */
        go_on_soon(w);
        return;
    }
    c->waits &= (uint8_t)~WAIT_FILTER;
    if (w->oversize && c->state == CONNECTION_OPEN) {
        w->oversize = false;
        on_oversize(w->bus, c, w->oversize_bytes);
    }
    if (!c->waits)
        connection_resume(c);
}

int roda_resume(struct roda_ctx *x, uint64_t ticket, roda_verdict verdict, uint32_t code,
                struct roda_str text)
{
    struct bus *bus = context_of(x)->bus;

    for (struct list *node = bus->tickets.next; node != &bus->tickets; node = node->next) {
        struct waiting *w = container_of(node, struct waiting, ticket_link);
        struct held *held = w->oldest;
        if (w->ticket != ticket)
            continue;
        list_remove(&w->ticket_link);
        if (verdict != RODA_PASS)
            decide(held, verdict == RODA_DROP || !code ? RODA_E_DROPPED : code, text.ptr, text.len);
        go_on_soon(w);
        return 0;
    }
    return -ESTALE;
}

/* ---- routes and receipts ---------------------------------------------------------------- */

struct route {
    struct roda_item item;
    struct roda_msg *msg;
    uint64_t destination;
};

static void route_run(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct route *route = (struct route *)(void *)item;
    struct context *context = context_of(x);
    struct bus *bus = context->bus;
    struct roda_msg *msg = route->msg;
    struct event event;
    uint64_t destination = route->destination;

    event_begin(&event, bus, NULL, msg, msg->text.len);
    event.home = true;
    slab_heap_put(&bus->heap, &bus->batch, route);
    if (result >= 0) {
        bus->arriving = msg;
        bus_enter(bus, context->name, "arrive");
        context->plugin->arrive(x, &event.public, destination);
        bus_leave(bus);
        if (bus->arriving)
            roda_refuse(x, &event.public, RODA_E_UNKNOWN, "%s", "");
        bus->arriving = NULL;
    }
    roda_msg_unref(msg);
}

/* Its input waits at this bound; a protocol that makes several messages of a unit, or a plugin that
 * submits for the connection, meets it here. */
static bool has_no_credit(const struct roda_conn *c)
{
    return c->under_way >= BUS_UNDER_WAY_MAX || c->under_way_bytes >= BUS_UNDER_WAY_BYTES_MAX;
}

int roda_route(struct roda_ctx *x, struct roda_event *ev, uint32_t worker, uint64_t destination)
{
    struct event *event = (struct event *)(void *)ev;
    struct context *context = context_of(x);
    struct bus *bus = context->bus;
    struct roda_conn *c = ev->conn;
    struct message *message = message_of(ev->msg);
    struct outbox *box = &bus->outboxes[worker];
    struct route *route;

    if (c && c->under_way && (c->destination != destination || c->home != worker))
        return RODA_LATER;
    if (c && has_no_credit(c))
        return RODA_LATER;
    if (c && box->routed_bytes + message->bytes > BUS_WINDOW_BYTES) {
        event->window = true;
        return RODA_LATER;
    }
    route = slab_heap_get(&bus->heap, sizeof *route);
    if (!route && c && c->under_way)
        return RODA_LATER; /* memory is out: perhaps not for long, and answers keep their order */
    event->settled = true;
    if (!route) {
        refuse_here(bus, event, RODA_E_MEMORY, "", 0);
        return RODA_HANDLED;
    }
    *route = (struct route){.item = {.run = route_run, .bytes = message->bytes},
                            .msg = roda_msg_ref(ev->msg),
                            .destination = destination};
    if (c) {
        message->flags |= MESSAGE_ROUTED;
        c->destination = destination;
        c->home = (uint8_t)worker;
        c->under_way++;
        c->under_way_bytes += message->bytes;
        box->routed_bytes += message->bytes;
        ring_add(&bus->counters.under_way, 1);
        if (has_no_credit(c)) {
            c->waits |= WAIT_CREDIT;
            BUS_COUNT(bus, inputs_waited_credit);
        }
    }
    bus_post(bus, worker, context->instance, &route->item, false);
    return RODA_HANDLED;
}

void roda_refuse(struct roda_ctx *x, struct roda_event *ev, uint32_t code, const char *fmt, ...)
{
    struct event *event = (struct event *)(void *)ev;
    struct bus *bus = context_of(x)->bus;
    char text[200];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (event->settled)
        return;
    event->settled = true;
    if (!event->home) {
        refuse_here(bus, event, code, text, strlen(text));
        return;
    }
    bus->arriving = NULL;
    lane_answer(bus, ev->msg, context_of(x)->instance, code, (struct roda_str){text, strlen(text)});
    if (message_of(ev->msg)->flags & MESSAGE_ROUTED)
        bus_receipt(bus, ev->msg);
}

static void report_closed(struct bus *bus, struct roda_conn *c);

void input_receipts(struct bus *bus, roda_conn_id id, uint32_t count, uint32_t bytes)
{
    struct roda_conn *c = net_find(bus->net, id);

    if (!c || c->under_way < count)
        return;
    c->under_way = (uint16_t)(c->under_way - count);
    c->under_way_bytes -= bytes;
    bus->outboxes[c->home].routed_bytes -= bytes;
    bus->window_opened = true;
    ring_add(&bus->counters.under_way, -(uint64_t)count);
    if (c->waits & WAIT_CREDIT && c->under_way <= BUS_UNDER_WAY_MAX / 2 &&
        c->under_way_bytes <= BUS_UNDER_WAY_BYTES_MAX / 2) {
        c->waits &= (uint8_t)~WAIT_CREDIT;
        if (!c->waits)
            connection_resume(c);
    }
    if (c->under_way)
        return;
    if (c->flags & CONN_LEFT) {
        report_closed(bus, c);
        return;
    }
    if (waiting_of(c) && waiting_of(c)->oldest &&
        (waiting_of(c)->oldest->why == WHY_SETTLED || waiting_of(c)->oldest->why == WHY_TURN))
        go_on_soon(c->waiting);
    input_settled(c);
}

void inputs_go_on(struct bus *bus)
{
    struct list todo;

    list_init(&todo);
    if (bus->window_opened)
        list_take(&todo, &bus->window_waits); /* round robin: who fails again goes to the end */
    for (struct list *node; (node = list_pop(&todo));) {
        struct waiting *w = container_of(node, struct waiting, link);
        go_on(w);
    }
    bus->window_opened = false;
    list_take(&todo, &bus->go_on);
    for (struct list *node; (node = list_pop(&todo));) {
        struct waiting *w = container_of(node, struct waiting, link);
        if (w->again && w->stage == STAGE_ACCEPT && !wheel_armed(&w->filter_timer)) {
            w->conn->waits &= (uint8_t)~WAIT_FILTER;
            input_accept(bus, w->conn);
        } else {
            go_on(w);
        }
    }
}

bool inputs_may_go_on(const struct bus *bus)
{
    return !list_empty(&bus->go_on) || (bus->window_opened && !list_empty(&bus->window_waits));
}

int roda_settled(const struct roda_conn *c)
{
    const struct waiting *w = c->waiting;

    return !c->under_way && !c->answers && !(w && w->oldest && !w->trying);
}

/* What was taken from it is still to be answered; what is held for other reasons may never be. */
static bool has_answers_to_come(const struct roda_conn *c)
{
    const struct waiting *w = c->waiting;

    return c->under_way || c->answers || (w && w->oldest && w->oldest->why == WHY_TURN);
}

static void settled(struct roda_conn *c)
{
    if (c->waits & WAIT_LAST && !has_answers_to_come(c)) {
        c->waits &= (uint8_t)~WAIT_LAST;
        net_farewell(c);
    }
    if (!(c->waits & (WAIT_SETTLED | WAIT_END)) || !roda_settled(c))
        return;
    tell_late(c);
    if (c->waits & WAIT_END)
        connection_close(c, "left");
    c->waits &= (uint8_t) ~(WAIT_SETTLED | WAIT_END);
    if (!c->waits)
        connection_resume(c);
}

void input_settled(struct roda_conn *c)
{
    settled(c);
    waiting_free_if_idle(c->net->owner, c);
}

/* ---- what net tells --------------------------------------------------------------------- */

static const struct roda_protocol *protocol_of(struct bus *bus, const struct roda_conn *c,
                                               struct roda_ctx **ret_ctx, const char *stage)
{
    struct context *context = bus->contexts[c->settings->protocol_instance];

    bus_enter(bus, context->name, stage);
    *ret_ctx = &context->public;
    return c->settings->protocol;
}

/* Delays at accept and input: one filter at a time, asked again when its delay is over. True: the
 * connection or unit may go on. */
static bool ask(struct bus *bus, struct roda_conn *c, enum stage stage, struct event *event)
{
    struct waiting *w = waiting_of(c);
    uint32_t index = 0;
    uint64_t since_ms = bus->now_ms;

    if (!bus->stages[stage].on && !(w && w->again))
        return true;
    if (w && w->again && w->stage == stage) {
        index = w->index;
        since_ms = w->since_ms;
        w->again = false;
    }
    filters_run(bus, stage, &index, event);
    w = waiting_of(c);
    if (event->decision.verdict == RODA_DELAY) {
        bool late = bus->now_ms >= since_ms + c->settings->max_delay_ms;
        if (!late)
            w = waiting_get(bus, c);
        if (late || !w) {
            event->decision.verdict = RODA_REJECT;
            event->decision.code = late ? RODA_E_TIMEOUT : RODA_E_MEMORY;
            event->decision.text[0] = '\0';
        }
    }
    if (event->decision.verdict != RODA_DELAY) { /* the caller looks at it */
        waiting_free_if_idle(bus, c);
        return true;
    }
    w->again = true;
    w->stage = stage;
    w->index = index;
    w->since_ms = since_ms;
    c->waits |= WAIT_FILTER;
    wheel_arm(bus->wheel, &w->filter_timer, due_ms(w, since_ms, event->decision.delay_ms),
              on_filter_timer);
    return false;
}

void input_accept(struct bus *bus, struct roda_conn *c)
{
    struct event event;
    const struct roda_protocol *protocol;
    struct roda_ctx *x;

    event_begin(&event, bus, c, NULL, 0);
    if (c->state != CONNECTION_OPEN || !ask(bus, c, STAGE_ACCEPT, &event))
        return;
    if (event.decision.verdict == RODA_DROP) {
        connection_abort(c, "dropped at accept");
        return;
    }
    if (event.decision.verdict == RODA_REJECT) {
        connection_close(c, event.decision.text[0] ? event.decision.text
                                                   : answer_sentence(event.decision.code));
        return;
    }
    c->flags |= CONN_OPENED;
    for (uint32_t i = 0; i < bus->stages[STAGE_OPENED].n; i++) {
        const struct hook *hook = &bus->stages[STAGE_OPENED].hooks[i];
        bus_enter(bus, hook->context->name, "opened");
        hook->report(&hook->context->public, c);
        bus_leave(bus);
    }
    protocol = protocol_of(bus, c, &x, "opened");
    if (protocol->opened)
        protocol->opened(x, c);
    bus_leave(bus);
    if (!c->waits)
        connection_resume(c);
}

static void on_opened(void *owner, struct roda_conn *c)
{
    struct bus *bus = owner;

    if (fanout_attach(bus, c)) {
        connection_abort(c, "out of memory");
        return;
    }
    input_accept(bus, c);
}

static bool on_first(void *owner, struct roda_conn *c, struct roda_str bytes)
{
    struct bus *bus = owner;
    struct roda_ctx *x;
    const struct roda_protocol *protocol = protocol_of(bus, c, &x, "first");
    bool ours = !protocol->first || protocol->first(x, c, bytes) != RODA_BAD;

    bus_leave(bus);
    return ours;
}

/* A unit that an input filter refused has no message; its answer has none, either. */
static void refuse_unit(struct bus *bus, struct roda_conn *c, const struct decision *decision)
{
    struct roda_ctx *x;
    const struct roda_protocol *protocol = protocol_of(bus, c, &x, "answer");
    const char *text = decision->text[0] ? decision->text : answer_sentence(decision->code);
    struct roda_answer answer = {.code = decision->code,
                                 .kind = RODA_NONE,
                                 .text = {text, strlen(text)}};

    BUS_COUNT(bus, messages_refused);
    if (protocol->answer)
        protocol->answer(x, c, &answer);
    bus_leave(bus);
}

/* A unit that is gone: refused by a filter, or passed by all and too long. */
static void tell_about_unit(struct bus *bus, struct roda_conn *c, size_t bytes,
                            const struct decision *decision)
{
    const struct roda_protocol *protocol;
    struct roda_ctx *x;

    if (decision->verdict == RODA_REJECT) {
        refuse_unit(bus, c, decision);
        return;
    }
    protocol = protocol_of(bus, c, &x, "oversize");
    if (protocol->oversize)
        protocol->oversize(x, c, bytes);
    bus_leave(bus);
}

/* Answers come in the order of the units; without memory to wait, this one comes early. */
static void tell_in_turn(struct bus *bus, struct roda_conn *c, size_t bytes,
                         const struct decision *decision)
{
    struct waiting *w = roda_settled(c) ? NULL : waiting_get(bus, c);

    if (!w) {
        tell_about_unit(bus, c, bytes, decision);
        return;
    }
    w->late = true;
    w->late_bytes = bytes;
    w->decision = *decision;
    c->waits |= WAIT_SETTLED;
}

static void tell_late(struct roda_conn *c)
{
    struct waiting *w = waiting_of(c);

    if (!w || !w->late)
        return;
    w->late = false;
    tell_about_unit(w->bus, c, w->late_bytes, &w->decision);
}

static enum net_unit on_unit(void *owner, struct roda_conn *c, struct roda_str unit, bool again)
{
    struct bus *bus = owner;
    struct waiting *w = waiting_of(c);
    const struct roda_protocol *protocol;
    struct roda_ctx *x;
    int r;

    if (!again || (w && w->again)) {
        struct event event;
        event_begin(&event, bus, c, NULL, unit.len);
        if (!ask(bus, c, STAGE_INPUT, &event))
            return NET_UNIT_KEEP;
        if (event.decision.verdict == RODA_REJECT)
            tell_in_turn(bus, c, unit.len, &event.decision);
        if (event.decision.verdict != RODA_PASS)
            return NET_UNIT_TAKEN;
    }
    protocol = protocol_of(bus, c, &x, "decode");
    r = protocol->decode(x, c, unit);
    bus_leave(bus);
    if (r == RODA_BAD)
        connection_close(c, "protocol error");
    if (r != RODA_AGAIN)
        return NET_UNIT_TAKEN;
    BUS_COUNT(bus, inputs_waited_settled);
    if (roda_settled(c))
        connection_resume(c);
    else
        c->waits |= WAIT_SETTLED;
    return NET_UNIT_KEEP;
}

/* Filters see it like any other unit, and what comes after it waits as long as they want. Datagrams
 * cannot be held back: there, a delay counts as passed. */
static void on_oversize(void *owner, struct roda_conn *c, size_t bytes)
{
    struct bus *bus = owner;
    struct event event;

    event_begin(&event, bus, c, NULL, bytes);
    if (c->flags & CONN_DATAGRAM) {
        for (uint32_t index = 0;; index++) {
            filters_run(bus, STAGE_INPUT, &index, &event);
            if (event.decision.verdict != RODA_DELAY)
                break;
        }
    } else if (!ask(bus, c, STAGE_INPUT, &event)) {
        waiting_of(c)->oversize = true;
        waiting_of(c)->oversize_bytes = bytes;
        return;
    }
    if (event.decision.verdict != RODA_DROP)
        tell_in_turn(bus, c, bytes, &event.decision);
}

static void on_ended(void *owner, struct roda_conn *c)
{
    (void)owner;
    if (roda_settled(c))
        connection_close(c, "left");
    else
        c->waits |= WAIT_END;
}

static void on_idle(void *owner, struct roda_conn *c)
{
    struct bus *bus = owner;
    struct roda_ctx *x;
    const struct roda_protocol *protocol = protocol_of(bus, c, &x, "idle");

    if (protocol->idle)
        protocol->idle(x, c);
    bus_leave(bus);
}

static bool on_closing(void *owner, struct roda_conn *c, const char *reason, bool last)
{
    struct bus *bus = owner;
    const struct roda_protocol *protocol;
    struct roda_ctx *x;

    if (c->flags & CONN_EOF)
        return true; /* nobody reads it */
    if (!last && has_answers_to_come(c)) {
        c->waits |= WAIT_LAST;
        return false;
    }
    tell_late(c);
    protocol = protocol_of(bus, c, &x, "closing");
    if (protocol->closing)
        protocol->closing(x, c, reason);
    bus_leave(bus);
    return true;
}

static void report_closed(struct bus *bus, struct roda_conn *c)
{
    const char *reason = c->reason ? c->reason : "closed";

    for (uint32_t i = 0; c->flags & CONN_OPENED && i < bus->stages[STAGE_CLOSED].n; i++) {
        const struct hook *hook = &bus->stages[STAGE_CLOSED].hooks[i];
        bus_enter(bus, hook->context->name, "closed");
        hook->closed(&hook->context->public, c, reason, bus->reporting_shutdown);
        bus_leave(bus);
    }
    roda_person_unref(c->person);
    c->person = NULL;
    waiting_free(bus, c);
    fanout_detach(bus, c);
    net_free(bus->net, c);
}

/* The descriptor is closed. What was routed is still published; what was held is not. */
static void on_gone(void *owner, struct roda_conn *c)
{
    struct bus *bus = owner;

    waiting_free(bus, c);
    c->flags |= CONN_LEFT;
    if (!c->under_way)
        report_closed(bus, c);
}

/* At the end of the broker: their receipts will not come any more. */
void inputs_abandon(struct bus *bus)
{
    for (uint32_t i = 0; i < bus->net->used_slots; i++) {
        struct roda_conn *c = bus->net->slots[i].conn;
        if (!c || !(c->flags & CONN_LEFT))
            continue;
        ring_add(&bus->counters.under_way, -(uint64_t)c->under_way);
        report_closed(bus, c);
    }
}

static int on_knock(void *owner, const struct listener *l, const struct roda_peer *peer,
                    struct roda_str in, struct roda_out *out, struct roda_str *ret_rest)
{
    struct bus *bus = owner;
    const struct listener_settings *s = l->address->settings;
    struct context *context = bus->contexts[s->protocol_instance];
    int r = -1;

    bus_enter(bus, context->name, "knock");
    if (s->protocol->knock)
        r = s->protocol->knock(&context->public, peer, in, out, ret_rest);
    bus_leave(bus);
    return r;
}

const struct net_hooks bus_net_hooks = {
    .opened = on_opened,
    .first = on_first,
    .unit = on_unit,
    .oversize = on_oversize,
    .ended = on_ended,
    .idle = on_idle,
    .closing = on_closing,
    .gone = on_gone,
    .knock = on_knock,
};
