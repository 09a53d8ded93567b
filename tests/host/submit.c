#include "inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * A submitted message waits in the queue of its source (its connection, or the plugin that made
 * it) until the submit filters and handle() are through with it; what is behind it waits too.
 *
 *   FRESH -> filters -> handle() -> routed | handled | answered
 *     DELAYED   a filter wants to be asked again at a time
 *     DEFERRED  a filter decides by roda_resume(); RESUMED: it did
 *     LATER     the owner waits until nothing of the source is under way
 *
 * under_way counts what left the queue and whose answer or receipt has not come: routed messages
 * until their receipt, handled ones until roda_answer(), refused ones until answer() ran.
 */

const char *const stage_names[] = {"accept",  "input",   "submit", "admit",
                                   "publish", "deliver", "handle", "arrive"};

/* ---- events and verdicts ---------------------------------------------------------------- */

void event_enter(struct testhost *h, struct event *e, struct instance *instance, int stage,
                 struct roda_conn *c, struct message *m, size_t bytes)
{
    *e = (struct event){.ev = {.conn = c, .msg = m ? &m->msg : NULL, .bytes = bytes},
                        .outer = h->event,
                        .instance = instance,
                        .stage = stage};
    h->event = e;
}

void event_leave(struct testhost *h, struct event *e)
{
    h->event = e->outer;
    free(e->text);
    message_unref(e->replaced);
}

static bool allowed(int stage, roda_verdict verdict)
{
    static const uint32_t sets[TESTHOST_STAGES] = {
        [TESTHOST_ACCEPT] = 1 << RODA_PASS | 1 << RODA_DROP | 1 << RODA_REJECT | 1 << RODA_DELAY,
        [TESTHOST_INPUT] = 1 << RODA_PASS | 1 << RODA_DROP | 1 << RODA_REJECT | 1 << RODA_DELAY,
        [TESTHOST_SUBMIT] =
            1 << RODA_PASS | 1 << RODA_DROP | 1 << RODA_REJECT | 1 << RODA_DELAY | 1 << RODA_DEFER,
        [TESTHOST_ADMIT] = 1 << RODA_PASS | 1 << RODA_DROP | 1 << RODA_REJECT,
        [TESTHOST_PUBLISH] = 1 << RODA_PASS | 1 << RODA_DEFER,
        [TESTHOST_DELIVER] = 1 << RODA_PASS | 1 << RODA_DROP,
    };

    return verdict <= RODA_DEFER && sets[stage] >> verdict & 1;
}

roda_verdict filter_run(struct testhost *h, struct event *e, roda_filter_fn *fn, struct worker *w)
{
    struct hook_before before = hook_enter(h, e->instance, stage_names[e->stage]);
    roda_verdict verdict = fn(ctx_on(e->instance, w), &e->ev);

    if (!allowed(e->stage, verdict)) {
        complain(h, "the verdict %u is not for this stage; taken as PASS", verdict);
        verdict = RODA_PASS;
    } else if ((verdict == RODA_REJECT && !e->rejected) || (verdict == RODA_DELAY && !e->delayed) ||
               (verdict == RODA_DEFER && !e->deferred && e->stage == TESTHOST_SUBMIT)) {
        complain(h, "the verdict %u needs its function; taken as PASS", verdict);
        verdict = RODA_PASS;
    } else if ((e->rejected && verdict != RODA_REJECT) || (e->delayed && verdict != RODA_DELAY) ||
               (e->deferred && verdict != RODA_DEFER)) {
        complain(h, "called a verdict's function and returned %u", verdict);
    }
    hook_leave(h, before);
    return verdict;
}

/* The core's view of ev, if it is the one whose filter runs. */
static struct event *running(struct roda_event *ev, const char *function)
{
    struct testhost *h = host_current;

    if (h->event && &h->event->ev == ev && h->event->stage < TESTHOST_STAGES)
        return h->event;
    complain(h, "%s() is for the filter that was given the event", function);
    return NULL;
}

roda_verdict roda_reject(struct roda_event *ev, uint32_t code, const char *fmt, ...)
{
    struct event *e = running(ev, "roda_reject");
    va_list args;

    if (e) {
        va_start(args, fmt);
        free(e->text);
        e->text = formatted(fmt, args);
        e->code = code;
        e->rejected = true;
        va_end(args);
    }
    return RODA_REJECT;
}

roda_verdict roda_delay(struct roda_event *ev, uint64_t delay_ms)
{
    struct event *e = running(ev, "roda_delay");

    if (e) {
        e->delay_ms = delay_ms;
        e->delayed = true;
    }
    return RODA_DELAY;
}

roda_verdict roda_defer(struct roda_event *ev, uint64_t *ret_ticket)
{
    struct event *e = running(ev, "roda_defer");

    if (e && e->stage != TESTHOST_SUBMIT) {
        complain(host_current, "roda_defer() is for submit; publish returns RODA_DEFER");
    } else if (e) {
        e->ticket = ++host_current->serial;
        e->deferred = true;
        *ret_ticket = e->ticket;
    }
    return RODA_DEFER;
}

void roda_filter_use(struct roda_ctx *x, uint32_t filters, int on)
{
    struct context *context = context_of(x);

    if (!context->worker)
        complain(host_current, "roda_filter_use() is for workers");
    if (on)
        context->off &= ~filters;
    else
        context->off |= filters;
}

roda_verdict roda_replace(struct roda_event *ev, struct roda_msg *msg)
{
    struct event *e = running(ev, "roda_replace");

    if (!e || e->stage != TESTHOST_SUBMIT) {
        if (e)
            complain(host_current, "roda_replace() is for submit");
        roda_msg_unref(msg);
        return RODA_PASS;
    }
    if (msg->from != ev->msg->from || msg->token != ev->msg->token)
        complain(host_current, "the replacement has another from or token than the message");
    if (e->replaced) /* twice in one filter */
        message_unref(message_of(ev->msg));
    else
        e->replaced = message_of(ev->msg);
    ev->msg = msg;
    e->held->msg = message_of(msg);
    return RODA_PASS;
}

/* ---- answers ---------------------------------------------------------------------------- */

void answer_later(struct roda_conn *c, uint32_t code, const char *text, struct message *m)
{
    struct answer *a = get(sizeof *a);

    a->conn = c->id;
    a->code = code;
    a->text = copy_text((struct roda_str){text, strlen(text)});
    if (m) {
        a->kind = m->msg.kind;
        a->token = m->msg.token;
        a->msg = message_ref(m);
        a->bytes = m->bytes;
    }
    c->source.under_way++;
    c->source.under_way_bytes += a->bytes;
    list_append(&c->worker->answers, &a->link);
}

static void answer_free(struct answer *a)
{
    message_unref(a->msg);
    free(a->text);
    free(a);
}

void answers_run(struct worker *w)
{
    while (!list_empty(&w->answers)) {
        struct answer *a = container_of(list_first(&w->answers), struct answer, link);
        struct roda_conn *c = conn_find(w, a->conn);
        list_remove(&a->link);
        w->host->progress++;
        if (c) {
            conn_protocol_answer(c, &(struct roda_answer){.code = a->code,
                                                          .kind = a->kind,
                                                          .token = a->token,
                                                          .text = {a->text, strlen(a->text)},
                                                          .msg = a->msg ? &a->msg->msg : NULL});
            c->source.under_way--;
            c->source.under_way_bytes -= a->bytes;
        }
        answer_free(a);
    }
}

void answers_clear(struct worker *w)
{
    while (!list_empty(&w->answers)) {
        struct answer *a = container_of(list_first(&w->answers), struct answer, link);
        list_remove(&a->link);
        answer_free(a);
    }
}

static void source_answer(struct source *s, uint32_t code, const char *text, struct message *m)
{
    if (s->conn)
        answer_later(s->conn, code, text ? text : "", m);
}

void roda_answer(struct roda_ctx *x, struct roda_conn *c, uint32_t code, struct roda_str text,
                 struct roda_msg *msg)
{
    struct testhost *h = host_of(x);
    struct message *m = message_of(msg);
    struct event *e = h->event;
    char *copy = copy_text(text);

    if (e && e->stage == STAGE_HANDLE && e->ev.msg == msg && !e->answered && !e->routed) {
        e->answered = true;
        if (e->source->conn)
            answer_later(e->source->conn, code, copy, m);
    } else if (m->awaiting) {
        m->awaiting = false;
        c->source.under_way--;
        c->source.under_way_bytes -= m->bytes;
        answer_later(c, code, copy, m);
    } else {
        complain(h, "roda_answer() for a message that is answered or routed");
    }
    free(copy);
}

void roda_refuse(struct roda_ctx *x, struct roda_event *ev, uint32_t code, const char *fmt, ...)
{
    struct testhost *h = host_of(x);
    struct message *m = message_of(ev->msg);
    struct event *e = h->event;
    va_list args;

    va_start(args, fmt);
    char *text = formatted(fmt, args);
    va_end(args);
    if (e && e->stage == STAGE_HANDLE && e->ev.msg == ev->msg && !e->answered && !e->routed) {
        e->answered = true;
        source_answer(e->source, code, text, m);
    } else if (m->awaiting && ev->conn) {
        roda_answer(x, ev->conn, code, (struct roda_str){text, strlen(text)}, ev->msg);
    } else if (m->owed) {
        parcel_refuse(context_of(x)->worker, m, code, text);
    } else if (m->msg.from) {
        complain(h, "roda_refuse() for a message that is answered or published");
    }
    free(text);
}

/* ---- the queue -------------------------------------------------------------------------- */

void source_init(struct source *s, struct roda_conn *c, struct worker *w)
{
    *s = (struct source){.conn = c, .worker = w};
    list_init(&s->queue);
}

bool source_settled(const struct source *s)
{
    /* While the oldest message is on its way through filters and handle(), it is not yet. */
    return !s->under_way && (s->running || list_empty(&s->queue));
}

int roda_settled(const struct roda_conn *c)
{
    return source_settled(&c->source);
}

static void held_free(struct held *held)
{
    list_remove(&held->link);
    message_unref(held->msg);
    free(held->text);
    free(held);
}

static bool hold(struct source *s, struct held *held, enum held_state state)
{
    held->state = state;
    if (!held->since_ms)
        held->since_ms = s->worker->host->now_ms;
    return false;
}

/* One filter's verdict on the oldest message. true: through with the filters or with it all. */
static bool verdict_apply(struct source *s, struct held *held, struct event *e,
                          roda_verdict verdict, bool *ret_done)
{
    *ret_done = true;
    switch (verdict) {
    case RODA_DROP:
        source_answer(s, RODA_E_DROPPED, "", held->msg);
        return true;
    case RODA_REJECT:
        source_answer(s, e->code, e->text, held->msg);
        return true;
    case RODA_DELAY:
        held->until_ms = s->worker->host->now_ms + e->delay_ms;
        return hold(s, held, HELD_DELAYED);
    case RODA_DEFER:
        held->ticket = e->ticket;
        return hold(s, held, HELD_DEFERRED);
    default:
        *ret_done = false;
        held->at++;
        return true;
    }
}

/* true: *ret_done: the message has its answer; else all filters passed it. false: it waits. */
static bool run_filters(struct source *s, struct held *held, bool *ret_done)
{
    struct testhost *h = s->worker->host;

    *ret_done = false;
    while (held->at < h->n_instances) {
        struct instance *i = h->instances[held->at];
        struct event e;
        if (!i->plugin.submit || i->contexts[s->worker->index].off & RODA_FILTER_SUBMIT) {
            held->at++;
            continue;
        }
        event_enter(h, &e, i, TESTHOST_SUBMIT, s->conn, held->msg, held->msg->msg.text.len);
        e.held = held;
        roda_verdict verdict = filter_run(h, &e, i->plugin.submit, s->worker);
        bool through = verdict_apply(s, held, &e, verdict, ret_done);
        event_leave(h, &e);
        if (!through || *ret_done)
            return through;
    }
    return true;
}

static struct instance *owner_of(const struct testhost *h, uint32_t kind)
{
    for (uint32_t i = 0; i < h->n_instances; i++)
        if (h->instances[i]->plugin.kinds & RODA_KIND_BIT(kind))
            return h->instances[i];
    return NULL;
}

/* false: the owner wants to be called again. */
static bool run_handle(struct source *s, struct held *held)
{
    struct testhost *h = s->worker->host;
    struct instance *owner = owner_of(h, held->msg->msg.kind);
    struct message *m = message_ref(held->msg);
    struct event e;

    if (!owner || !owner->plugin.handle) {
        source_answer(s, RODA_E_UNKNOWN, "nobody carries out this kind of message", m);
        message_unref(m);
        return true;
    }
    event_enter(h, &e, owner, STAGE_HANDLE, s->conn, m, m->msg.text.len);
    e.source = s;
    e.held = held;
    held->window = NULL;
    struct hook_before before = hook_enter(h, owner, "handle");
    int result = owner->plugin.handle(ctx_on(owner, s->worker), &e.ev);
    bool done = result != RODA_LATER;
    if (result != RODA_HANDLED && result != RODA_LATER)
        complain(h, "returned %d, neither RODA_HANDLED nor RODA_LATER", result);
    if (!done && (e.answered || e.routed)) {
        complain(h, "returned RODA_LATER after an answer or a route");
        done = true;
    }
    if (!done && !held->window && source_settled(s))
        complain(h, "returned RODA_LATER, and nothing is under way");
    if (done && s->conn && !e.answered && !e.routed) {
        m->awaiting = true;
        s->under_way++;
        s->under_way_bytes += m->bytes;
    }
    hook_leave(h, before);
    event_leave(h, &e);
    message_unref(m);
    return done;
}

static bool held_waits(const struct source *s, struct held *held)
{
    const struct testhost *h = s->worker->host;

    switch (held->state) {
    case HELD_DELAYED:
        return h->now_ms < held->until_ms;
    case HELD_DEFERRED:
        return true;
    case HELD_LATER:
        if (held->window && h->full_windows[s->worker->index * h->n_workers + held->window->index])
            return true;
        return s->under_way != 0;
    default:
        return false;
    }
}

static bool refuse_late(struct source *s, struct held *held)
{
    source_answer(s, RODA_E_TIMEOUT, "held back for too long", held->msg);
    s->worker->host->progress++;
    return true;
}

/* true: the oldest message has left the queue's front for good. */
static bool step(struct source *s, struct held *held)
{
    struct testhost *h = s->worker->host;
    bool late = (held->state == HELD_DELAYED || held->state == HELD_DEFERRED) &&
                h->now_ms >= held->since_ms + h->max_delay_ms;
    bool done;

    if (late && held->state == HELD_DEFERRED)
        return refuse_late(s, held);
    if (!late && held_waits(s, held))
        return false;
    h->progress++;
    if (held->state == HELD_RESUMED) {
        struct event e = {.code = held->code, .text = held->text};
        held->state = HELD_FRESH;
        if (verdict_apply(s, held, &e, held->verdict, &done) && done)
            return true;
    }
    held->state = held->state == HELD_LATER ? HELD_LATER : HELD_FRESH;
    if (held->state != HELD_LATER) {
        if (!run_filters(s, held, &done)) /* a delayed one was asked a last time */
            return late && held->state == HELD_DELAYED && refuse_late(s, held);
        if (done)
            return true;
    }
    if (run_handle(s, held))
        return true;
    held->state = HELD_LATER;
    return false;
}

void source_run(struct source *s)
{
    if (s->running)
        return;
    s->running = true;
    while (!list_empty(&s->queue)) {
        struct held *held = container_of(list_first(&s->queue), struct held, link);
        if (!step(s, held))
            break;
        held_free(held);
    }
    s->running = false;
}

uint64_t source_wake_ms(const struct source *s)
{
    const struct held *held;

    if (list_empty(&s->queue))
        return UINT64_MAX;
    held = container_of(list_first(&s->queue), struct held, link);
    if (held->state != HELD_DELAYED && held->state != HELD_DEFERRED)
        return UINT64_MAX;
    uint64_t end_ms = held->since_ms + s->worker->host->max_delay_ms;
    return held->state == HELD_DELAYED && held->until_ms < end_ms ? held->until_ms : end_ms;
}

void source_drop_held(struct source *s)
{
    struct held *held;

    if (list_empty(&s->queue) || s->running)
        return;
    held = container_of(list_first(&s->queue), struct held, link);
    if (held->state != HELD_DELAYED && held->state != HELD_DEFERRED && held->state != HELD_RESUMED)
        return;
    source_answer(s, RODA_E_DROPPED, "", held->msg);
    held_free(held);
    source_run(s);
}

void source_clear(struct source *s)
{
    while (!list_empty(&s->queue))
        held_free(container_of(list_first(&s->queue), struct held, link));
}

void roda_submit(struct roda_ctx *x, struct roda_conn *c, struct roda_msg *msg)
{
    struct testhost *h = host_of(x);
    struct worker *w = worker_of(x);
    struct held *held = get(sizeof *held);
    struct source *s = c ? &c->source : &context_of(x)->source;

    held->msg = message_of(msg);
    if (c && (c->worker != w || msg->from != c->id))
        complain(h, "roda_submit() with a connection that is not msg->from's, or not here");
    if (!c && msg->from)
        complain(h, "roda_submit() without connection of a message that is from one");
    h->core_metrics[CORE_MESSAGES]++;
    list_append(&s->queue, &held->link);
    source_run(s);
}

static struct held *held_by_ticket(struct testhost *h, struct worker *w, uint64_t ticket)
{
    for (uint32_t i = 0; i < w->n_slots + h->n_instances; i++) {
        struct roda_conn *c = i < w->n_slots ? w->slots[i].conn : NULL;
        struct source *s = i >= w->n_slots
                               ? &h->instances[i - w->n_slots]->contexts[w->index].source
                               : (c ? &c->source : NULL);
        if (!s || list_empty(&s->queue))
            continue;
        struct held *held = container_of(list_first(&s->queue), struct held, link);
        if (held->state == HELD_DEFERRED && held->ticket == ticket)
            return held;
    }
    return NULL;
}

int roda_resume(struct roda_ctx *x, uint64_t ticket, roda_verdict verdict, uint32_t code,
                struct roda_str text)
{
    struct testhost *h = host_of(x);
    struct held *held = held_by_ticket(h, worker_of(x), ticket);

    if (!held)
        return -ESTALE;
    if (verdict != RODA_PASS && verdict != RODA_DROP && verdict != RODA_REJECT) {
        complain(h, "roda_resume() with the verdict %u; taken as PASS", verdict);
        verdict = RODA_PASS;
    }
    held->state = HELD_RESUMED; /* goes on in the input part of a turn: no hook runs in here */
    held->verdict = verdict;
    held->code = code;
    free(held->text);
    held->text = copy_text(text);
    return 0;
}

int roda_route(struct roda_ctx *x, struct roda_event *ev, uint32_t worker, uint64_t destination)
{
    struct testhost *h = host_of(x);
    struct event *e = h->event;
    struct worker *w = worker_of(x);

    if (!e || e->stage != STAGE_HANDLE || e->ev.msg != ev->msg || e->answered || e->routed ||
        worker >= h->n_workers) {
        complain(h, "roda_route() is for handle(), once, and to a worker there is");
        return RODA_HANDLED;
    }
    struct source *s = e->source;
    struct message *m = message_of(ev->msg);
    if (h->full_windows[w->index * h->n_workers + worker]) {
        e->held->window = &h->workers[worker];
        return RODA_LATER;
    }
    if (s->conn) {
        if (s->under_way && (!s->routed || s->home != worker || s->destination != destination ||
                             s->routed < s->under_way))
            return RODA_LATER;
        s->home = worker;
        s->destination = destination;
        s->routed++;
        s->under_way++;
        s->under_way_bytes += m->bytes;
        m->owed = true;
    }
    e->routed = true;
    parcel_arrive(w, &h->workers[worker], e->instance, m, destination);
    return RODA_HANDLED;
}
