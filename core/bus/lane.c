#include "bus/bus.h"

#include <errno.h>
#include <string.h>

#include "base/memory.h"

/*
 * A lane orders what happens in one destination, at its home.
 *
 * An event passes: admit filters (may still refuse), its number and time, then the publish
 * filters, which are entered in order without waiting and left in order: event i may enter hook k
 * once event i-1 has entered it, and leave it once event i-1 has left it. So a log writes whole
 * batches while every reader still sees one order. hook is where the event is, entered says
 * whether that hook has been asked, passed whether it let go.
 *
 * Without publish filters nothing is allocated and the lane is always empty.
 *
 * Only one call at a time moves events of a lane: busy. Hooks and the lane's function may call back
 * (publish more, resume); such a call leaves its mark in again, and the outer one walks once more.
 */

#define LANE_UNROUTED_MAX 4096u

struct lane_event {
    struct lane_event *next;
    struct lane_event *next_deferred; /* in the FIFO of the instance that deferred it */
    struct roda_lane *lane;
    struct roda_msg *msg;
    uint32_t hook;
    int result;
    bool entered, passed;
};

struct roda_lane {
    struct context *owner;
    roda_lane_fn *fn;
    void *arg;
    uint64_t epoch, number;
    uint64_t shown;    /* the last number that was distributed: what follows it is `prev` */
    uint64_t expected; /* that number once all that is inside has left; unless storage fails */
    int64_t time_ns;
    struct lane_event *oldest, *newest;
    struct lane_event own; /* the first one in an empty lane needs no memory; lane NULL: unused */
    size_t length;
    uint32_t unrouted; /* of them, not bounded by a connection's window */
    struct list resumed_link;
    bool busy;  /* some call moves its events, or fn runs */
    bool again; /* meanwhile something came or was let go */
    bool freed; /* meanwhile: gone when that call returns */
};

int roda_lane_new(struct roda_ctx *x, roda_lane_fn *fn, void *arg, struct roda_lane **ret_lane)
{
    struct bus *bus = context_of(x)->bus;
    struct roda_lane *lane = slab_heap_get(&bus->heap, sizeof *lane);

    if (!lane)
        return -ENOMEM;
    *lane = (struct roda_lane){.owner = context_of(x), .fn = fn, .arg = arg};
    *ret_lane = lane;
    return 0;
}

static void event_free(struct bus *bus, struct roda_lane *lane, struct lane_event *e)
{
    if (e == &lane->own)
        e->lane = NULL;
    else
        slab_heap_put(&bus->heap, &bus->batch, e);
}

/* Nobody will let go what is still inside: it is not in the FIFOs any more. */
static void forget_deferred(struct bus *bus, const struct roda_lane *lane)
{
    for (uint32_t i = 0; i < bus->n_contexts; i++) {
        struct context *by = bus->contexts[i];
        struct lane_event **link = &by->deferred_oldest, *e;
        by->deferred_newest = NULL;
        while ((e = *link)) {
            if (e->lane == lane) {
                *link = e->next_deferred;
            } else {
                by->deferred_newest = e;
                link = &e->next_deferred;
            }
        }
    }
}

/* Empty, unless a publish filter still holds events when the broker stops (a disk that hangs):
 * their senders are told as far as that is possible. */
static void lane_end(struct roda_lane *lane)
{
    struct bus *bus = lane->owner->bus;

    list_remove(&lane->resumed_link);
    if (lane->oldest)
        forget_deferred(bus, lane);
    for (struct lane_event *e; (e = lane->oldest);) {
        lane->oldest = e->next;
        lane_answer(bus, e->msg, lane->owner->instance, RODA_E_SHUTDOWN, RODA_STR(""));
        if (message_of(e->msg)->flags & MESSAGE_ROUTED)
            bus_receipt(bus, e->msg);
        roda_msg_unref(e->msg);
        ring_add(&bus->counters.lanes_length, (uint64_t)-1);
        event_free(bus, lane, e);
    }
    slab_heap_put(&bus->heap, &bus->batch, lane);
}

void roda_lane_free(struct roda_lane *lane)
{
    if (lane && lane->busy)
        lane->freed = true;
    else if (lane)
        lane_end(lane);
}

void roda_lane_set(struct roda_lane *lane, uint64_t epoch, uint64_t number, int64_t time_ns)
{
    lane->epoch = epoch;
    if (lane->time_ns < time_ns)
        lane->time_ns = time_ns;
    lane->number = lane->shown = lane->expected = number;
}

uint64_t roda_lane_epoch(const struct roda_lane *lane)
{
    return lane->epoch;
}

uint64_t roda_lane_number(const struct roda_lane *lane)
{
    return lane->number;
}

size_t roda_lane_length(const struct roda_lane *lane)
{
    return lane->length;
}

/* ---- leaving ---------------------------------------------------------------------------- */

/* The lane is busy. Nobody writes to a message that publish filters have seen, but for the number
 * before it, where that was lost meanwhile. */
static void leave(struct roda_lane *lane, struct roda_msg *msg, int result)
{
    struct bus *bus = lane->owner->bus;
    struct message *message = message_of(msg);

    if (msg->prev != lane->shown)
        msg->prev = lane->shown; /* the last number that members know */
    bus_enter(bus, lane->owner->name, "lane");
    lane->fn(&lane->owner->public, lane->arg, msg, result);
    bus_leave(bus);
    if (msg->number && message->flags & MESSAGE_SHOWN)
        lane->shown = msg->number;
    if (!lane->oldest)
        lane->expected = lane->shown;
    BUS_COUNT(bus, messages_published);
    if (!(message->flags & (MESSAGE_ANSWERED | MESSAGE_FAILED)))
        lane_answer(bus, msg, lane->owner->instance, RODA_E_DROPPED, RODA_STR(""));
    if (message->flags & MESSAGE_ROUTED)
        bus_receipt(bus, msg);
    roda_msg_unref(msg);
}

/* ---- publish filters -------------------------------------------------------------------- */

static void enter(struct bus *bus, struct lane_event *e)
{
    const struct hook *hook = &bus->stages[STAGE_PUBLISH].hooks[e->hook];
    struct context *by = hook->context;
    struct event event;

    event_begin(&event, bus, NULL, e->msg, e->msg->text.len);
    event.home = true;
    e->entered = true;
    filter_run(bus, hook, "publish", &event);
    e->passed = event.decision.verdict != RODA_DEFER;
    if (e->passed)
        return;
    e->next_deferred = NULL;
    if (by->deferred_newest)
        by->deferred_newest->next_deferred = e;
    else
        by->deferred_oldest = e;
    by->deferred_newest = e;
}

/* Takes one event as far as the one before it allows. True: it is through. */
static bool advance_one(struct bus *bus, struct lane_event *e, const struct lane_event *before)
{
    uint32_t n = bus->stages[STAGE_PUBLISH].n;

    while (e->hook < n) {
        if (!e->entered) {
            if (before && before->hook <= e->hook && !(before->hook == e->hook && before->entered))
                return false;
            enter(bus, e);
        }
        if (!e->passed || (before && before->hook <= e->hook))
            return false;
        e->hook++;
        e->entered = e->passed = false;
    }
    return !before;
}

/* The oldest event is through all filters. */
static void pop(struct roda_lane *lane)
{
    struct bus *bus = lane->owner->bus;
    struct lane_event *e = lane->oldest;
    struct roda_msg *msg = e->msg;
    int result = e->result;

    lane->oldest = e->next;
    if (!lane->oldest)
        lane->newest = NULL;
    lane->length--;
    if (!(message_of(msg)->flags & MESSAGE_ROUTED))
        lane->unrouted--;
    ring_add(&bus->counters.lanes_length, (uint64_t)-1);
    event_free(bus, lane, e);
    leave(lane, msg, result);
}

static void walk(struct roda_lane *lane)
{
    struct bus *bus = lane->owner->bus;
    struct lane_event *e = lane->oldest, *before = NULL;

    while (e && !lane->freed) {
        if (advance_one(bus, e, before)) {
            pop(lane);
            e = lane->oldest;
            before = NULL;
        } else {
            before = e;
            e = e->next;
        }
    }
}

/* Ends what began with busy: walks the lane as long as something has changed. */
static void settle(struct roda_lane *lane)
{
    while (lane->again && !lane->freed) {
        lane->again = false;
        walk(lane);
    }
    lane->busy = false;
    if (lane->freed)
        lane_end(lane);
}

static void advance(struct roda_lane *lane)
{
    lane->again = true;
    if (lane->busy)
        return; /* the outer call goes on */
    lane->busy = true;
    settle(lane);
}

size_t roda_resume_oldest(struct roda_ctx *x, size_t n, int result)
{
    struct context *context = context_of(x);
    struct bus *bus = context->bus;
    size_t done = 0;

    for (struct lane_event *e; done < n && (e = context->deferred_oldest); done++) {
        context->deferred_oldest = e->next_deferred;
        if (!e->next_deferred)
            context->deferred_newest = NULL;
        e->passed = true;
        if (result < 0)
            e->result = result;
        if (!list_linked(&e->lane->resumed_link))
            list_append(&bus->lanes_resumed, &e->lane->resumed_link);
    }
    for (struct list *node; (node = list_pop(&bus->lanes_resumed));)
        advance(container_of(node, struct roda_lane, resumed_link));
    return done;
}

/* ---- entering --------------------------------------------------------------------------- */

static void stamp(struct roda_lane *lane, struct roda_msg *msg)
{
    struct bus *bus = lane->owner->bus;

    if (bus->time_ns > lane->time_ns)
        lane->time_ns = bus->time_ns;
    msg->time_ns = lane->time_ns;
    msg->epoch = lane->epoch;
    msg->prev = lane->expected;
    if (RODA_KIND_NUMBERED(msg->kind)) {
        msg->number = lane->expected = ++lane->number;
        BUS_COUNT(bus, messages_numbered);
    }
}

static bool admitted(struct bus *bus, struct roda_lane *lane, struct roda_msg *msg)
{
    struct event event;
    uint32_t index = 0, code;

    if (!bus->stages[STAGE_ADMIT].on)
        return true;
    event_begin(&event, bus, NULL, msg, msg->text.len);
    event.home = true;
    filters_run(bus, STAGE_ADMIT, &index, &event);
    if (event.decision.verdict == RODA_PASS)
        return true;
    code = event.decision.verdict == RODA_DROP ? RODA_E_DROPPED : event.decision.code;
    if (event.decision.verdict == RODA_DROP)
        event.decision.text[0] = '\0';
    lane_answer(bus, msg, lane->owner->instance, code,
                (struct roda_str){event.decision.text, strlen(event.decision.text)});
    if (message_of(msg)->flags & MESSAGE_ROUTED)
        bus_receipt(bus, msg);
    roda_msg_unref(msg);
    return false;
}

static bool enqueue(struct roda_lane *lane, struct roda_msg *msg, struct lane_event **ret_event)
{
    struct bus *bus = lane->owner->bus;
    struct lane_event *e = lane->own.lane ? slab_heap_get(&bus->heap, sizeof *e) : &lane->own;

    if (!e)
        return false;
    *e = (struct lane_event){.lane = lane, .msg = msg};
    if (lane->newest)
        lane->newest->next = e;
    else
        lane->oldest = e;
    lane->newest = e;
    lane->length++;
    if (!(message_of(msg)->flags & MESSAGE_ROUTED))
        lane->unrouted++;
    ring_add(&bus->counters.lanes_length, 1);
    *ret_event = e;
    return true;
}

int roda_lane_publish(struct roda_ctx *x, struct roda_lane *lane, struct roda_msg *msg)
{
    struct bus *bus = context_of(x)->bus;
    struct lane_event *before, *e;
    bool routed = message_of(msg)->flags & MESSAGE_ROUTED;

    if (bus->arriving == msg)
        bus->arriving = NULL;
    if (!routed && lane->unrouted >= LANE_UNROUTED_MAX) {
        roda_msg_unref(msg);
        return -ENOBUFS;
    }
    if (!admitted(bus, lane, msg))
        return 0;
    stamp(lane, msg);
    if (!lane->oldest && !lane->busy && !bus->stages[STAGE_PUBLISH].n) {
        lane->busy = true;
        lane->again = false;
        leave(lane, msg, 0);
        settle(lane);
        return 0;
    }
    before = lane->newest;
    if (!enqueue(lane, msg, &e)) {
        /* The number is not shown to anybody: prev of the next one says so. */
        lane->number -= RODA_KIND_NUMBERED(msg->kind);
        lane->expected = msg->prev;
        message_of(msg)->flags |= MESSAGE_FAILED;
        if (routed)
            bus_receipt(bus, msg);
        roda_msg_unref(msg);
        return routed ? 0 : -ENOMEM;
    }
    if (!before || lane->busy) {
        advance(lane);
        return 0;
    }
    lane->busy = true; /* it is the newest: no other one can move because of it */
    lane->again = false;
    (void)advance_one(bus, e, before);
    settle(lane);
    return 0;
}

/* ---- to the workers --------------------------------------------------------------------- */

struct delivery {
    struct roda_item item;
    struct roda_msg *msg;
    uint64_t destination;
    uint32_t code;
    uint16_t text_len;
    bool fan_out, answer;
    char text[];
};

static void delivery_run(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct delivery *d = (struct delivery *)(void *)item;
    struct context *context = context_of(x);
    struct bus *bus = context->bus;
    struct roda_conn *c;

    if (result >= 0 && d->fan_out) {
        bus_enter(bus, context->name, "distributed");
        context->plugin->distributed(x, d->msg, d->destination);
        bus_leave(bus);
    }
    if (result >= 0 && d->answer && (c = net_find(bus->net, d->msg->from)))
        answer_give(bus, c, d->code, (struct roda_str){d->text, d->text_len}, d->msg);
    roda_msg_unref(d->msg);
    slab_heap_put(&bus->heap, &bus->batch, d);
}

static struct delivery *delivery_new(struct bus *bus, struct roda_msg *msg, struct roda_str text)
{
    struct delivery *d = slab_heap_get(&bus->heap, sizeof *d + text.len);

    if (!d)
        return NULL;
    *d = (struct delivery){.item = {.run = delivery_run, .bytes = message_of(msg)->bytes},
                           .text_len = (uint16_t)text.len};
    if (text.len)
        memcpy(d->text, text.ptr, text.len);
    return d;
}

int roda_distribute(struct roda_ctx *x, struct roda_msg *msg, const struct roda_workers *workers,
                    uint64_t destination)
{
    struct bus *bus = context_of(x)->bus;
    struct message *message = message_of(msg);
    struct delivery *deliveries[256];
    /* Only what a connection submitted is answered. */
    bool asked = msg->from && message->flags & MESSAGE_ROUTED;
    uint32_t from = asked ? RODA_CONN_WORKER(msg->from) : UINT32_MAX, n = 0;

    if (message->flags & (MESSAGE_ANSWERED | MESSAGE_FAILED))
        return -EALREADY;
    /* All of it or nothing: memory first. */
    for (uint32_t w = 0; w < bus->n_workers; w++) {
        bool member = RODA_WORKERS_HAS(workers, w);
        if (!member && w != from)
            continue;
        struct delivery *d = delivery_new(bus, msg, RODA_STR(""));
        if (!d) {
            while (n)
                slab_heap_put(&bus->heap, &bus->batch, deliveries[--n]);
            message->flags |= MESSAGE_FAILED;
            return -ENOMEM;
        }
        d->item.instance = w; /* until it is posted */
        d->destination = destination;
        d->fan_out = member;
        d->answer = w == from;
        deliveries[n++] = d;
    }
    message->flags |= MESSAGE_ANSWERED | MESSAGE_SHOWN;
    for (uint32_t i = 0; i < n; i++) {
        deliveries[i]->msg = roda_msg_ref(msg);
        bus_post(bus, deliveries[i]->item.instance, context_of(x)->instance, &deliveries[i]->item,
                 false);
    }
    return 0;
}

void lane_answer(struct bus *bus, struct roda_msg *msg, uint32_t instance, uint32_t code,
                 struct roda_str text)
{
    struct message *message = message_of(msg);
    struct delivery *d;

    if (message->flags & (MESSAGE_ANSWERED | MESSAGE_FAILED))
        return;
    if (!msg->from || !(message->flags & MESSAGE_ROUTED)) {
        message->flags |= MESSAGE_ANSWERED;
        return;
    }
    d = delivery_new(bus, msg, text);
    if (!d) {
        message->flags |= MESSAGE_FAILED;
        return;
    }
    message->flags |= MESSAGE_ANSWERED;
    d->msg = roda_msg_ref(msg);
    d->code = code;
    d->answer = true;
    bus_post(bus, RODA_CONN_WORKER(msg->from), instance, &d->item, false);
}

void roda_lane_refuse(struct roda_ctx *x, struct roda_msg *msg, uint32_t code, struct roda_str text)
{
    lane_answer(context_of(x)->bus, msg, context_of(x)->instance, code,
                text.len > 200 ? (struct roda_str){text.ptr, 200} : text);
}
