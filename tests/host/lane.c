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
 * Lanes: publish filters are entered at once for each event, and the event leaves when it is the
 * oldest of its lane and all that deferred it let it go. A lane function does not run inside
 * itself: what it publishes to its own lane waits until it has returned.
 */

/* ---- posts ----------------------------------------------------------------------------------- */

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

/* ---- parcels: the core's own items ----------------------------------------------------------- */

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

/* ---- mailboxes ------------------------------------------------------------------------------- */

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

void mailbox_run(struct worker *w)
{
    struct roda_item *item = w->mailbox;

    w->mailbox = NULL;
    w->mailbox_end = &w->mailbox;
    while (item) {
        struct roda_item *next = item->next; /* its memory is the plugin's again when it runs */
        w->host->progress++;
        item_run(w, item);
        item = next;
    }
}

/* ---- lanes ----------------------------------------------------------------------------------- */

struct lane_event {
    struct link link;
    struct roda_lane *lane;
    struct message *msg;
    uint32_t pending; /* publish filters that deferred it */
    int result;
    bool resolved; /* distributed or refused */
};

struct deferral {
    struct link link; /* in context.deferred */
    struct lane_event *event;
};

#define LANE_EVENTS_MAX 1024u
#define LANE_BYTES_MAX  (1u << 20)

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
            struct lane_event *e =
                container_of(list_first(&lane->events), struct lane_event, link);
            list_remove(&e->link);
            message_unref(e->msg);
            free(e);
        }
        list_remove(&lane->link);
        free(lane);
    }
}

void roda_lane_set(struct roda_lane *lane, uint64_t epoch, uint64_t number)
{
    lane->epoch = epoch;
    lane->number = number;
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

/* Lets the oldest events go. */
static void lane_run(struct roda_lane *lane)
{
    struct testhost *h = lane->context->instance->host;

    if (lane->running)
        return;
    lane->running = true;
    while (!list_empty(&lane->events)) {
        struct lane_event *e = container_of(list_first(&lane->events), struct lane_event, link);
        if (e->pending)
            break;
        list_remove(&e->link);
        lane->length--;
        lane->bytes -= e->msg->bytes;
        h->progress++;
        struct lane_event *outer = h->lane_event;
        h->lane_event = e;
        struct hook_before before = hook_enter(h, lane->context->instance, "lane function");
        lane->fn(&lane->context->x, lane->arg, &e->msg->msg, e->result);
        if (e->msg->owed) {
            complain(h, "returned without roda_distribute() or roda_lane_refuse()");
            parcel_refuse(lane->context->worker, e->msg, RODA_E_DROPPED, "");
        }
        hook_leave(h, before);
        h->lane_event = outer;
        message_unref(e->msg);
        free(e);
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
        if (!i->plugin.admit)
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
    m->msg.prev = lane->number;
    m->msg.number = RODA_KIND_NUMBERED(m->msg.kind) ? ++lane->number : 0;
    m->msg.epoch = lane->epoch;
    if (lane->time_ns < h->time_ns)
        lane->time_ns = h->time_ns;
    m->msg.time_ns = lane->time_ns;
}

static void enter_publish_filters(struct worker *w, struct lane_event *event)
{
    struct testhost *h = w->host;

    event->pending = 1; /* so that a filter that resumes at once does not let it go too early */
    for (uint32_t n = 0; n < h->n_instances; n++) {
        struct instance *i = h->instances[n];
        struct event e;
        if (!i->plugin.publish)
            continue;
        struct deferral *d = get(sizeof *d);
        d->event = event;
        event_enter(h, &e, i, TESTHOST_PUBLISH, NULL, event->msg, event->msg->msg.text.len);
        if (filter_run(h, &e, i->plugin.publish, w) == RODA_DEFER) {
            event->pending++;
            list_append(&i->contexts[w->index].deferred, &d->link);
        } else {
            free(d);
        }
        event_leave(h, &e);
    }
    event->pending--;
}

/* The message that arrived and the one that is published instead of it have one answer. */
static void move_debt(struct testhost *h, struct message *to)
{
    struct event *e = h->event;
    struct message *from;

    if (!e || e->stage != STAGE_ARRIVE || e->ev.msg == &to->msg)
        return;
    from = message_of(e->ev.msg);
    if (from->owed && from->msg.from == to->msg.from && from->msg.token == to->msg.token) {
        from->owed = false;
        to->owed = true;
        /* The receipt gives back what the route took. */
        to->bytes = from->bytes;
    }
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
    move_debt(h, m);
    if (lane->length >= LANE_EVENTS_MAX || lane->bytes + m->bytes > LANE_BYTES_MAX) {
        parcel_refuse(w, m, RODA_E_RATE, "too much is waiting here");
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
    list_append(&lane->events, &e->link);
    lane->length++;
    lane->bytes += m->bytes;
    enter_publish_filters(w, e);
    lane_run(lane);
    return 0;
}

size_t roda_resume_oldest(struct roda_ctx *x, size_t n, int result)
{
    struct context *context = context_of(x);
    size_t done = 0;

    while (done < n && !list_empty(&context->deferred)) {
        struct deferral *d = container_of(list_first(&context->deferred), struct deferral, link);
        struct lane_event *e = d->event;
        list_remove(&d->link);
        free(d);
        done++;
        e->pending--;
        if (result < 0)
            e->result = result;
        lane_run(e->lane);
    }
    return done;
}

static void check_lane_event(struct testhost *h, const struct roda_msg *msg, const char *function)
{
    if (!h->lane_event || &h->lane_event->msg->msg != msg)
        complain(h, "%s() is for the lane's function and its message", function);
}

void roda_distribute(struct roda_ctx *x, struct roda_msg *msg, const struct roda_workers *workers,
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
}

void roda_lane_refuse(struct roda_ctx *x, struct roda_msg *msg, uint32_t code,
                      struct roda_str text)
{
    char *copy = copy_text(text);

    check_lane_event(host_of(x), msg, "roda_lane_refuse");
    parcel_refuse(worker_of(x), message_of(msg), code, copy);
    free(copy);
}
