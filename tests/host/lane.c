#include "inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * What goes between workers, and the lanes at the home.
 *
 * Posts: a worker collects what it posts in two lists. At the end of its turn the first is pushed
 * to the mailboxes, then the second ("after"): so a receipt, which is posted after, reaches its
 * worker when all that was published has been pushed. A mailbox is run in the order of pushes, as
 * far as it was filled when the turn began.
 *
 * Lanes: an event enters a publish filter once the event before it has entered it, and leaves it
 * once the event before it has left it: filters are entered in order without waiting, and left in
 * order. prev is the last number that was shown, so a number lost to storage leaves no gap. A lane
 * function does not run inside
 * itself: what it publishes to its own lane waits until it has returned.
 */

/* ---- posts ------------------------------------------------------------------------------ */

void post(struct posts *posts, struct worker *to, struct roda_item *item)
{
    posts->list = grown(posts->list, posts->n, &posts->room, sizeof *posts->list);
    posts->list[posts->n++] = (struct post){to, item};
}

void posts_push(struct testhost *h, struct posts *posts)
{
    for (size_t i = 0; i < posts->n; i++) {
        struct worker *to = posts->list[i].to;
        struct roda_item *item = posts->list[i].item;
        item->next = NULL;
        *to->mailbox_end = item;
        to->mailbox_end = &item->next;
        h->progress++;
    }
    posts->n = 0;
}

static void post_of(struct roda_ctx *x, uint32_t worker, struct roda_item *item, bool after)
{
    struct testhost *h = host_of(x);
    struct worker *w = worker_of(x);

    if (worker >= h->n_workers) {
        complain(h, "posts to worker %u of %u", worker, h->n_workers);
        worker = 0;
    }
    item->instance = context_of(x)->instance->index;
    post(after ? &w->after : &w->out, &h->workers[worker], item);
}

void roda_post(struct roda_ctx *x, uint32_t worker, struct roda_item *item)
{
    post_of(x, worker, item, false);
}

void roda_post_after(struct roda_ctx *x, uint32_t worker, struct roda_item *item)
{
    post_of(x, worker, item, true);
}

int roda_inject(struct roda_ctx *x, struct roda_item *item)
{
    struct testhost *h = host_of(x);
    int result = 0;

    pthread_mutex_lock(&h->lock);
    if (h->cancelling || h->stopped) {
        result = -ESHUTDOWN;
    } else {
        item->instance = context_of(x)->instance->index;
        post(&h->injected, worker_of(x), item);
    }
    pthread_mutex_unlock(&h->lock);
    return result;
}

/* ---- parcels: the core's own items ------------------------------------------------------ */

static struct roda_conn *sender_of(struct worker *w, const struct message *m)
{
    return m->msg.from ? conn_find(w, m->msg.from) : NULL;
}

static void run_share(struct worker *w, struct parcel *p)
{
    struct testhost *h = w->host;

    if (p->distribute && p->owner->plugin.distributed) {
        struct hook_before before = hook_enter(h, p->owner, "distributed");
        p->owner->plugin.distributed(ctx_on(p->owner, w), &p->msg->msg, p->destination);
        hook_leave(h, before);
    }
    struct roda_conn *c = p->answer ? sender_of(w, p->msg) : NULL;
    if (c)
        conn_protocol_answer(c, &(struct roda_answer){.code = p->code,
                                                      .kind = p->msg->msg.kind,
                                                      .token = p->msg->msg.token,
                                                      .text = {p->text, strlen(p->text)},
                                                      .msg = &p->msg->msg});
}

static void run_arrive(struct worker *w, struct parcel *p)
{
    struct testhost *h = w->host;
    struct event e;

    event_enter(h, &e, p->owner, STAGE_ARRIVE, NULL, p->msg, p->msg->msg.text.len);
    struct hook_before before = hook_enter(h, p->owner, "arrive");
    if (p->owner->plugin.arrive)
        p->owner->plugin.arrive(ctx_on(p->owner, w), &e.ev, p->destination);
    else
        complain(h, "a message was routed, and there is no arrive()");
    if (p->msg->owed && !p->msg->published) {
        complain(h, "returned without roda_lane_publish() or roda_refuse()");
        parcel_refuse(w, p->msg, RODA_E_UNKNOWN, "");
    }
    hook_leave(h, before);
    event_leave(h, &e);
}

static void run_receipt(struct worker *w, struct parcel *p)
{
    struct roda_conn *c = conn_find(w, p->conn);

    if (c) {
        c->source.under_way--;
        c->source.routed--;
        c->source.under_way_bytes -= p->bytes;
    }
}

static void parcel_run(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct parcel *p = container_of(item, struct parcel, item);
    struct worker *w = context_of(x)->worker;

    if (p->kind == PARCEL_RECEIPT)
        run_receipt(w, p);
    else if (result >= 0 && p->kind == PARCEL_ARRIVE)
        run_arrive(w, p);
    else if (result >= 0)
        run_share(w, p);
    message_unref(p->msg);
    free(p->text);
    free(p);
}

static struct parcel *parcel_new(enum parcel_kind kind, struct instance *owner, struct message *m,
                                 uint64_t destination)
{
    struct parcel *p = get(sizeof *p);

    p->item.run = parcel_run;
    p->item.instance = INSTANCE_CORE;
    p->kind = kind;
    p->owner = owner;
    p->msg = m ? message_ref(m) : NULL;
    p->destination = destination;
    p->text = get(1);
    return p;
}

void parcel_arrive(struct worker *from, struct worker *to, struct instance *owner,
                   struct message *m, uint64_t destination)
{
    post(&from->out, to, &parcel_new(PARCEL_ARRIVE, owner, m, destination)->item);
}

static struct worker *home_of_sender(struct testhost *h, const struct message *m)
{
    return &h->workers[RODA_CONN_WORKER(m->msg.from) % h->n_workers];
}

static void parcel_receipt(struct worker *from, struct message *m)
{
    struct parcel *p = parcel_new(PARCEL_RECEIPT, NULL, NULL, 0);

    p->conn = m->msg.from;
    p->bytes = m->bytes;
    m->owed = false;
    post(&from->after, home_of_sender(from->host, m), &p->item);
}

void parcel_refuse(struct worker *from, struct message *m, uint32_t code, const char *text)
{
    struct parcel *p;

    if (!m->owed)
        return;
    p = parcel_new(PARCEL_SHARE, NULL, m, 0);
    p->answer = true;
    p->code = code;
    free(p->text);
    p->text = copy_text((struct roda_str){text, strlen(text)});
    post(&from->out, home_of_sender(from->host, m), &p->item);
    parcel_receipt(from, m);
}

/* ---- mailboxes -------------------------------------------------------------------------- */

static void item_run(struct worker *w, struct roda_item *item)
{
    struct testhost *h = w->host;
    int result = h->cancelling ? -ECANCELED : 0;

    if (item->instance == INSTANCE_CORE) {
        item->run(&w->core.x, item, result);
        return;
    }
    struct instance *instance = h->instances[item->instance];
    struct hook_before before = hook_enter(h, instance, "run");
    item->run(ctx_on(instance, w), item, result);
    hook_leave(h, before);
}

/* Another worker may be further: what it posts waits for the start of the plugin here. */
static bool is_early(const struct worker *w, const struct roda_item *item)
{
    const struct testhost *h = w->host;

    return item->instance != INSTANCE_CORE && !h->started && !h->cancelling &&
           !h->instances[item->instance]->contexts[w->index].started;
}

static void items_run(struct worker *w, struct roda_item *item)
{
    while (item) {
        struct roda_item *next = item->next; /* its memory is the plugin's again when it runs */
        w->host->progress++;
        if (is_early(w, item)) {
            item->next = NULL;
            *w->early_end = item;
            w->early_end = &item->next;
        } else {
            item_run(w, item);
        }
        item = next;
    }
}

void mailbox_run(struct worker *w)
{
    struct roda_item *item = w->mailbox;

    w->mailbox = NULL;
    w->mailbox_end = &w->mailbox;
    items_run(w, item);
}

void mailbox_run_early(struct worker *w)
{
    struct roda_item *item = w->early;

    w->early = NULL;
    w->early_end = &w->early;
    items_run(w, item);
}

/* ---- lanes ------------------------------------------------------------------------------ */

struct lane_event {
    struct link link;
    struct roda_lane *lane;
    struct message *msg;
    uint32_t at; /* the instance whose publish filter it is in, or before */
    bool entered, deferred;
    int result;
    bool routed;
};

struct deferral {
    struct link link; /* in context.deferred */
    struct lane_event *event;
};

#define LANE_UNROUTED_MAX 4096u

int roda_lane_new(struct roda_ctx *x, roda_lane_fn *fn, void *arg, struct roda_lane **ret_lane)
{
    struct testhost *h = host_of(x);
    struct worker *w = worker_of(x);
    struct roda_lane *lane = may_get(h, sizeof *lane);

    if (!lane)
        return -ENOMEM;
    lane->context = context_of(x);
    lane->fn = fn;
    lane->arg = arg;
    list_init(&lane->events);
    list_append(&w->lanes, &lane->link);
    *ret_lane = lane;
    return 0;
}

void roda_lane_free(struct roda_lane *lane)
{
    if (!lane)
        return;
    if (lane->length)
        complain(lane->context->instance->host, "roda_lane_free() with %zu events inside",
                 lane->length);
    if (lane->running) { /* in its own function: when that has returned */
        lane->freed = true;
        return;
    }
    list_remove(&lane->link);
    list_remove(&lane->resumed);
    free(lane);
}

void lane_free_all(struct worker *w)
{
    for (uint32_t i = 0; i < w->host->n_instances; i++) {
        struct link *deferred = &w->host->instances[i]->contexts[w->index].deferred;
        while (!list_empty(deferred)) {
            struct deferral *d = container_of(list_first(deferred), struct deferral, link);
            list_remove(&d->link);
            free(d);
        }
    }
    while (!list_empty(&w->lanes)) {
        struct roda_lane *lane = container_of(list_first(&w->lanes), struct roda_lane, link);
        while (!list_empty(&lane->events)) {
            struct lane_event *e = container_of(list_first(&lane->events), struct lane_event, link);
            list_remove(&e->link);
            message_unref(e->msg);
            free(e);
        }
        list_remove(&lane->link);
        free(lane);
    }
}

void roda_lane_set(struct roda_lane *lane, uint64_t epoch, uint64_t number, int64_t time_ns)
{
    lane->epoch = epoch;
    if (lane->time_ns < time_ns)
        lane->time_ns = time_ns;
    lane->number = lane->shown = number;
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

static void event_free(struct lane_event *e)
{
    message_unref(e->msg);
    free(e);
}

/* Through all filters: the lane's function. */
static void lane_leave(struct roda_lane *lane, struct lane_event *e)
{
    struct testhost *h = lane->context->instance->host;
    struct lane_event *outer = h->lane_event;

    list_remove(&e->link);
    lane->length--;
    lane->unrouted -= !e->routed;
    h->progress++;
    h->lane_event = e;
    e->msg->msg.prev = lane->shown;
    struct hook_before before = hook_enter(h, lane->context->instance, "lane function");
    lane->fn(&lane->context->x, lane->arg, &e->msg->msg, e->result);
    if (e->msg->msg.number && e->result >= 0)
        lane->shown = e->msg->msg.number;
    if (e->msg->owed) {
        complain(h, "returned without roda_distribute() or roda_lane_refuse()");
        parcel_refuse(lane->context->worker, e->msg, RODA_E_DROPPED, "");
    }
    hook_leave(h, before);
    h->lane_event = outer;
    event_free(e);
}

static void publish_filter(struct lane_event *event, struct instance *i)
{
    struct testhost *h = i->host;
    struct worker *w = event->lane->context->worker;
    struct deferral *d = get(sizeof *d);
    struct event e;

    event->entered = event->deferred = true;
    d->event = event;
    /* In the list before it is asked: a filter may let it go inside the call. */
    list_append(&i->contexts[w->index].deferred, &d->link);
    event_enter(h, &e, i, TESTHOST_PUBLISH, NULL, event->msg, event->msg->msg.text.len);
    if (filter_run(h, &e, i->plugin.publish, w) != RODA_DEFER && event->deferred) {
        list_remove(&d->link);
        free(d);
        event->deferred = false;
    }
    event_leave(h, &e);
}

/* Takes one event as far as the one before it in the lane allows. true: it is through. */
static bool event_advance(struct testhost *h, struct lane_event *e, const struct lane_event *before)
{
    for (; e->at < h->n_instances; e->at++, e->entered = false) {
        struct instance *i = h->instances[e->at];
        if (!i->plugin.publish)
            continue;
        if (!e->entered && before &&
            (before->at < e->at || (before->at == e->at && !before->entered)))
            return false;
        if (!e->entered)
            publish_filter(e, i);
        if (e->deferred || (before && before->at <= e->at))
            return false;
    }
    return !before;
}

/* Lets go what may. */
static void lane_run(struct roda_lane *lane)
{
    struct testhost *h = lane->context->instance->host;
    struct lane_event *before = NULL;
    struct link *l;

    if (lane->running)
        return;
    lane->running = true;
    for (l = lane->events.next; l != &lane->events;) {
        struct lane_event *e = container_of(l, struct lane_event, link);
        if (event_advance(h, e, before)) {
            lane_leave(lane, e);
            l = lane->events.next; /* fn may have added events */
        } else {
            before = e;
            l = l->next;
        }
    }
    lane->running = false;
    if (lane->freed)
        roda_lane_free(lane);
}

/* false: refused, and answered. */
static bool admit(struct worker *w, struct message *m)
{
    struct testhost *h = w->host;

    for (uint32_t n = 0; n < h->n_instances; n++) {
        struct instance *i = h->instances[n];
        struct event e;
        if (!i->plugin.admit || i->contexts[w->index].off & RODA_FILTER_ADMIT)
            continue;
        event_enter(h, &e, i, TESTHOST_ADMIT, NULL, m, m->msg.text.len);
        roda_verdict verdict = filter_run(h, &e, i->plugin.admit, w);
        if (verdict != RODA_PASS)
            parcel_refuse(w, m, verdict == RODA_REJECT ? e.code : (uint32_t)RODA_E_DROPPED,
                          verdict == RODA_REJECT ? e.text : "");
        event_leave(h, &e);
        if (verdict != RODA_PASS)
            return false;
    }
    return true;
}

static void stamp(struct roda_lane *lane, struct message *m)
{
    struct testhost *h = lane->context->instance->host;

    m->published = true;
    m->msg.prev = lane->shown;
    m->msg.number = RODA_KIND_NUMBERED(m->msg.kind) ? ++lane->number : 0;
    m->msg.epoch = lane->epoch;
    if (lane->time_ns < h->time_ns)
        lane->time_ns = h->time_ns;
    m->msg.time_ns = lane->time_ns;
}

/* The message that arrived has the answer; another one in its place would leave two or none. */
static void check_same(struct testhost *h, const struct message *m)
{
    const struct event *e = h->event;

    if (e && e->stage == STAGE_ARRIVE && e->ev.msg != &m->msg && m->msg.from &&
        m->msg.from == e->ev.msg->from && m->msg.token == e->ev.msg->token)
        complain(h, "publishes another message in the place of the one that arrived");
}

int roda_lane_publish(struct roda_ctx *x, struct roda_lane *lane, struct roda_msg *msg)
{
    struct testhost *h = host_of(x);
    struct worker *w = worker_of(x);
    struct message *m = message_of(msg);

    if (lane->context != context_of(x))
        complain(h, "roda_lane_publish() from another plugin or worker than the lane's");
    if (m->published)
        complain(h, "roda_lane_publish() of a message that is published already");
    check_same(h, m);
    if (!m->owed && lane->unrouted >= LANE_UNROUTED_MAX) {
        message_unref(m);
        return -ENOBUFS;
    }
    if (!admit(w, m)) {
        message_unref(m);
        return 0;
    }
    stamp(lane, m);
    struct lane_event *e = get(sizeof *e);
    e->lane = lane;
    e->msg = m;
    e->routed = m->owed;
    list_append(&lane->events, &e->link);
    lane->length++;
    lane->unrouted += !e->routed;
    lane_run(lane);
    return 0;
}

size_t roda_resume_oldest(struct roda_ctx *x, size_t n, int result)
{
    struct context *context = context_of(x);
    struct link resumed;
    size_t done = 0;

    list_init(&resumed);
    for (; done < n && !list_empty(&context->deferred); done++) {
        struct deferral *d = container_of(list_first(&context->deferred), struct deferral, link);
        struct lane_event *e = d->event;
        list_remove(&d->link);
        free(d);
        e->deferred = false;
        if (!e->lane->resumed.next)
            list_append(&resumed, &e->lane->resumed);
        if (result < 0)
            e->result = result;
    }
    while (!list_empty(&resumed)) {
        struct roda_lane *lane = container_of(list_first(&resumed), struct roda_lane, resumed);
        list_remove(&lane->resumed);
        lane_run(lane);
    }
    return done;
}

static void check_lane_event(struct testhost *h, const struct roda_msg *msg, const char *function)
{
    if (!h->lane_event || &h->lane_event->msg->msg != msg)
        complain(h, "%s() is for the lane's function and its message", function);
}

int roda_distribute(struct roda_ctx *x, struct roda_msg *msg, const struct roda_workers *workers,
                    uint64_t destination)
{
    struct testhost *h = host_of(x);
    struct worker *w = worker_of(x);
    struct message *m = message_of(msg);
    struct worker *sender = m->owed ? home_of_sender(h, m) : NULL;

    check_lane_event(h, msg, "roda_distribute");
    for (uint32_t i = 0; i < h->n_workers; i++) {
        bool member = RODA_WORKERS_HAS(workers, i);
        bool answer = sender == &h->workers[i];
        if (!member && !answer)
            continue;
        struct parcel *p = parcel_new(PARCEL_SHARE, context_of(x)->instance, m, destination);
        p->distribute = member;
        p->answer = answer;
        post(&w->out, &h->workers[i], &p->item);
    }
    if (m->owed)
        parcel_receipt(w, m);
    return 0;
}

void roda_lane_refuse(struct roda_ctx *x, struct roda_msg *msg, uint32_t code, struct roda_str text)
{
    char *copy = copy_text(text);

    check_lane_event(host_of(x), msg, "roda_lane_refuse");
    parcel_refuse(worker_of(x), message_of(msg), code, copy);
    free(copy);
}
