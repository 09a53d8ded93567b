#include "inside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/*
 * A connection: ACCEPTING (the accept filters decide) -> OPEN -> CLOSING -> closed() was reported
 * and it is freed. Its client is the test's, and stays.
 *
 * Input is taken unit by unit, and only while nothing holds it: no message in the source's queue,
 * no roda_conn_hold(), fewer than 64 messages and 64 kB under way, no filter that delays. A unit
 * answered with RODA_AGAIN stays until nothing is under way.
 *
 * CLOSING waits for two things: that the client took what is queued (10 s at most), and that
 * nothing is under way. What a filter delays or defers is dropped, what the owner puts off is
 * still carried out.
 */

#define UNDER_WAY_MAX       64u
#define UNDER_WAY_BYTES_MAX 65536u
#define LINE_BYTES          4096u
#define CLOSE_MS            10000u

struct roda_conn *conn_find(const struct worker *w, roda_conn_id id)
{
    uint32_t slot = (uint32_t)(id >> 32) & 0xffffffu;

    if (RODA_CONN_WORKER(id) != w->index || slot >= w->n_slots || !w->slots[slot].conn ||
        w->slots[slot].conn->id != id)
        return NULL;
    return w->slots[slot].conn;
}

bool instance_serves(const struct instance *i, const struct listener *l)
{
    const struct roda_plugin *p = &i->plugin;

    return l->owner == i || p->accept || p->input || p->submit || p->admit || p->publish ||
           p->deliver || p->opened || p->ready || p->closed || p->charged;
}

struct listener *listener_find(struct testhost *h, const char *name)
{
    for (struct listener *l = h->listeners; l; l = l->next)
        if (!strcmp(l->name, name))
            return l;
    return NULL;
}

/* ---- being made ------------------------------------------------------------------------- */

static roda_conn_id slot_take(struct worker *w, struct roda_conn *c)
{
    uint32_t slot = 0;

    while (slot < w->n_slots && w->slots[slot].conn)
        slot++;
    if (slot == w->n_slots) {
        struct slot *more = get((w->n_slots + 1) * sizeof *more);
        if (w->n_slots)
            memcpy(more, w->slots, w->n_slots * sizeof *more);
        free(w->slots);
        w->slots = more;
        w->n_slots++;
    }
    w->slots[slot].conn = c;
    w->slots[slot].generation++;
    return (uint64_t)w->index << 56 | (uint64_t)slot << 32 | w->slots[slot].generation;
}

static void conn_free(struct roda_conn *c)
{
    for (uint32_t i = 0; c->data && i < c->host->n_instances; i++)
        free(c->data[i]);
    free(c->data);
    roda_person_unref(c->person);
    bytes_clear(&c->client->input);
    source_clear(&c->source);
    free(c->unit);
    free(c->charges);
    free(c->reason);
    free(c);
}

static struct roda_conn *conn_new(struct testhost_conn *client, struct listener *l)
{
    struct testhost *h = client->host;
    struct roda_conn *c = may_get(h, sizeof *c);
    bool failed = !c;

    if (!c)
        return NULL;
    c->client = client;
    c->host = h;
    c->worker = client->worker;
    c->listener = l;
    c->datagram = !strcmp(l->transport, "udp");
    source_init(&c->source, c, c->worker);
    list_init(&c->queue);
    c->data = get(h->n_instances * sizeof *c->data);
    for (uint32_t i = 0; i < h->n_instances && !failed; i++) {
        const struct instance *instance = h->instances[i];
        if (instance->plugin.conn_size && instance_serves(instance, l))
            failed = !(c->data[i] = may_get(h, instance->plugin.conn_size));
    }
    if (failed) {
        conn_free(c);
        return NULL;
    }
    c->id = slot_take(c->worker, c);
    h->core_metrics[CORE_CONNECTIONS]++;
    return c;
}

static struct testhost_conn *connect_to(struct testhost *h, uint32_t worker, struct listener *l)
{
    static uint16_t port = 40000;
    struct testhost_conn *client = get(sizeof *client);

    client->host = h;
    client->worker = &h->workers[worker];
    list_init(&client->packets);
    client->conn = conn_new(client, l);
    if (!client->conn) {
        free(client);
        return NULL;
    }
    client->id = client->conn->id;
    testhost_set_peer(client, "192.0.2.1", port++);
    struct testhost_conn **end = &h->clients;
    while (*end)
        end = &(*end)->next;
    *end = client;
    h->progress++;
    return client;
}

_Noreturn static void test_error(const char *what, const char *name)
{
    (void)fprintf(stderr, "testhost: %s: %s\n", what, name);
    exit(1);
}

static void check_started(const struct testhost *h, uint32_t worker)
{
    if (!h->started || h->stopping || worker >= h->n_workers)
        test_error("no connections before testhost_start(), or on that worker", "connect");
}

struct testhost_conn *testhost_connect_listener(struct testhost *h, uint32_t worker,
                                                const char *listener)
{
    struct listener *l = listener_find(h, listener);

    check_started(h, worker);
    if (!l)
        test_error("no such listener", listener);
    return connect_to(h, worker, l);
}

static struct listener *listener_for(struct testhost *h, const char *protocol,
                                     const char *transport)
{
    for (struct listener *l = h->listeners; l; l = l->next)
        if (!strcmp(l->protocol->name, protocol) && !strcmp(l->transport, transport) &&
            !strcmp(l->name, protocol))
            return l;
    if (testhost_listener(h, protocol, protocol, transport, NULL))
        test_error(testhost_error(h), protocol);
    return listener_for(h, protocol, transport);
}

struct testhost_conn *testhost_connect(struct testhost *h, uint32_t worker, const char *protocol,
                                       const char *transport)
{
    check_started(h, worker);
    return connect_to(h, worker, listener_for(h, protocol, transport));
}

void testhost_set_peer(struct testhost_conn *c, const char *address, uint16_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_un local = {.sun_family = AF_UNIX};

    memset(&c->peer, 0, sizeof c->peer);
    if (c->conn && !strcmp(c->conn->listener->transport, "unix")) {
        memcpy(&c->peer, &local, sizeof local);
        (void)snprintf(c->peer_text, sizeof c->peer_text, "unix uid %u", port);
        return;
    }
    if (inet_pton(AF_INET, address, &v4.sin_addr) == 1)
        memcpy(&c->peer, &v4, sizeof v4);
    else if (inet_pton(AF_INET6, address, &v6.sin6_addr) == 1)
        memcpy(&c->peer, &v6, sizeof v6);
    else
        test_error("no address", address);
    (void)snprintf(c->peer_text, sizeof c->peer_text, "%.60s port %u", address, port);
}

/* ---- filters before there is a message -------------------------------------------------- */

enum filtered { FILTERED_WAIT, FILTERED_PASS, FILTERED_DROP, FILTERED_REFUSE };

/* Goes on with the accept or input filters. *ret_code, *ret_text: why it is refused. */
static enum filtered filter_conn(struct roda_conn *c, int stage, size_t bytes, uint32_t *ret_code,
                                 char **ret_text)
{
    struct testhost *h = c->host;

    bool late = c->since_ms && h->now_ms >= c->since_ms + h->max_delay_ms;

    if (!late && h->now_ms < c->until_ms)
        return FILTERED_WAIT;
    for (; c->at < h->n_instances; c->at++) {
        struct instance *i = h->instances[c->at];
        roda_filter_fn *fn = stage == TESTHOST_ACCEPT ? i->plugin.accept : i->plugin.input;
        enum filtered result = FILTERED_PASS;
        struct event e;
        bool off = stage == TESTHOST_INPUT && i->contexts[c->worker->index].off & RODA_FILTER_INPUT;
        if (!fn || off)
            continue;
        event_enter(h, &e, i, stage, c, NULL, bytes);
        switch (filter_run(h, &e, fn, c->worker)) {
        case RODA_DROP:
            result = FILTERED_DROP;
            break;
        case RODA_REJECT:
            result = FILTERED_REFUSE;
            *ret_code = e.code;
            *ret_text = e.text;
            e.text = NULL;
            break;
        case RODA_DELAY:
            if (late) { /* it was asked a last time */
                result = FILTERED_REFUSE;
                *ret_code = RODA_E_TIMEOUT;
                *ret_text = copy_text(RODA_STR("held back for too long"));
                break;
            }
            result = FILTERED_WAIT;
            c->until_ms = h->now_ms + e.delay_ms;
            if (!c->since_ms)
                c->since_ms = h->now_ms;
            break;
        default:
            break;
        }
        event_leave(h, &e);
        if (result != FILTERED_PASS)
            return result;
    }
    return FILTERED_PASS;
}

static void filters_over(struct roda_conn *c)
{
    c->at = 0;
    c->until_ms = c->since_ms = 0;
}

static void conn_accept(struct roda_conn *c)
{
    struct testhost *h = c->host;
    uint32_t code = 0;
    char *text = NULL;
    enum filtered result = filter_conn(c, TESTHOST_ACCEPT, 0, &code, &text);

    if (result == FILTERED_WAIT)
        return;
    h->progress++;
    filters_over(c);
    if (result != FILTERED_PASS) {
        conn_close(c, text ? text : "refused", result == FILTERED_REFUSE);
        free(text);
        return;
    }
    c->stage = CONN_OPEN;
    c->opened = true;
    for (uint32_t i = 0; i < h->n_instances; i++) {
        const struct roda_plugin *p = &h->instances[i]->plugin;
        if (!p->opened)
            continue;
        struct hook_before before = hook_enter(h, h->instances[i], "opened");
        p->opened(ctx_on(h->instances[i], c->worker), c);
        hook_leave(h, before);
    }
    if (c->listener->protocol->opened) {
        struct hook_before before = hook_enter(h, c->listener->owner, "protocol opened");
        c->listener->protocol->opened(ctx_on(c->listener->owner, c->worker), c);
        hook_leave(h, before);
    }
}

/* ---- units ------------------------------------------------------------------------------ */

static size_t unit_max(const struct roda_conn *c)
{
    uint32_t max = c->listener->protocol->unit_max_bytes;

    return max ? max : LINE_BYTES;
}

static void unit_set(struct roda_conn *c, const char *bytes, size_t len)
{
    c->unit = copy_text((struct roda_str){bytes, len});
    c->unit_len = len;
}

/* Moves what the client sent into the input; for raw protocols at most one packet. */
static void take_packets(struct roda_conn *c)
{
    struct testhost_conn *client = c->client;
    bool raw = c->listener->protocol->framing == RODA_RAW;

    while (!list_empty(&client->packets) && !(raw && client->input.len)) {
        struct packet *p = container_of(list_first(&client->packets), struct packet, link);
        bytes_put(&client->input, p->data, p->len);
        if (c->datagram && !raw && p->len && p->data[p->len - 1] != '\n')
            bytes_put(&client->input, "\n", 1);
        list_remove(&p->link);
        free(p);
    }
}

/* The first bytes of a stream. false: they are of another protocol. */
static bool first_bytes(struct roda_conn *c)
{
    const struct roda_protocol *p = c->listener->protocol;
    const struct bytes *in = &c->client->input;
    int result = RODA_TAKEN;

    if (c->first_seen || c->datagram)
        return true;
    c->first_seen = true;
    if (p->first) {
        struct hook_before before = hook_enter(c->host, c->listener->owner, "protocol first");
        result = p->first(ctx_on(c->listener->owner, c->worker), c,
                          (struct roda_str){in->data, in->len});
        hook_leave(c->host, before);
    }
    if (result == RODA_BAD && c->stage == CONN_OPEN)
        conn_close(c, "not this protocol", true);
    return result != RODA_BAD;
}

/* Takes the next unit, if there is a whole one. */
static bool next_unit(struct roda_conn *c)
{
    struct bytes *in = &c->client->input;

    take_packets(c);
    if (!in->len || !first_bytes(c))
        return false;
    if (c->listener->protocol->framing == RODA_RAW) {
        unit_set(c, in->data, in->len);
        bytes_take(in, in->len);
        return true;
    }
    char *end = memchr(in->data, '\n', in->len);
    size_t len = end ? (size_t)(end - in->data) : in->len;
    size_t text_len = end && len && in->data[len - 1] == '\r' ? len - 1 : len;
    if (!c->skipped && end && text_len <= unit_max(c)) {
        unit_set(c, in->data, text_len);
        bytes_take(in, len + 1);
        return true;
    }
    if (!c->skipped && !end && len <= unit_max(c) + 1) /* a CR may be the last one */
        return false;
    c->skipped += text_len;
    bytes_take(in, end ? len + 1 : len);
    c->close_after_unit = !end && c->skipped > 4 * unit_max(c);
    if (!end && !c->close_after_unit)
        return false;
    unit_set(c, "", 0);
    c->unit_len = c->skipped;
    c->unit_oversize = true;
    c->skipped = 0;
    return true;
}

static void unit_over(struct roda_conn *c)
{
    bool close = c->close_after_unit;

    free(c->unit);
    c->unit = NULL;
    c->unit_len = 0;
    c->unit_oversize = c->unit_passed = c->unit_again = c->close_after_unit = false;
    filters_over(c);
    if (close)
        conn_close(c, "no line end within the limit", true);
}

static void unit_decode(struct roda_conn *c)
{
    struct testhost *h = c->host;
    const struct roda_protocol *p = c->listener->protocol;
    struct roda_ctx *x = ctx_on(c->listener->owner, c->worker);
    int result = RODA_TAKEN;
    struct hook_before before = hook_enter(h, c->listener->owner, "decode");

    if (c->unit_oversize && p->oversize)
        p->oversize(x, c, c->unit_len);
    else if (!c->unit_oversize)
        result = p->decode(x, c, (struct roda_str){c->unit, c->unit_len});
    if (result == RODA_AGAIN && source_settled(&c->source)) {
        complain(h, "RODA_AGAIN, and nothing is under way");
        result = RODA_TAKEN;
    }
    hook_leave(h, before);
    if (result == RODA_AGAIN) {
        c->unit_again = true;
        return;
    }
    if (result != RODA_TAKEN && c->stage != CONN_CLOSING)
        conn_close(c, "protocol error", true);
    unit_over(c);
}

static bool input_may(const struct roda_conn *c)
{
    return c->stage == CONN_OPEN && !c->holds && list_empty(&c->source.queue) &&
           c->source.under_way < UNDER_WAY_MAX && c->source.under_way_bytes < UNDER_WAY_BYTES_MAX &&
           !(c->unit_again && c->source.under_way);
}

/* The unit at hand goes through the filters, then it is decoded. false: it waits. */
static bool unit_step(struct roda_conn *c)
{
    uint32_t code = 0;
    char *text = NULL;

    if (!c->unit_passed) {
        switch (filter_conn(c, TESTHOST_INPUT, c->unit_len, &code, &text)) {
        case FILTERED_WAIT:
            return false;
        case FILTERED_REFUSE:
            answer_later(c, code, text, NULL);
            free(text);
            unit_over(c);
            return true;
        case FILTERED_DROP:
            unit_over(c);
            return true;
        default:
            c->unit_passed = true;
        }
    }
    c->unit_again = false;
    unit_decode(c);
    return !c->unit_again;
}

static void discard_input(struct roda_conn *c)
{
    while (!list_empty(&c->client->packets)) {
        struct packet *p = container_of(list_first(&c->client->packets), struct packet, link);
        list_remove(&p->link);
        free(p);
    }
    bytes_clear(&c->client->input);
}

void conn_input(struct roda_conn *c)
{
    struct testhost *h = c->host;

    if (c->client->reset && c->stage != CONN_CLOSING) {
        conn_close(c, "connection reset by peer", false);
        queue_cancel(c);
    }
    if (c->stage == CONN_ACCEPTING)
        conn_accept(c);
    source_run(&c->source);
    while (input_may(c) && !h->stopping) {
        if (!c->unit) {
            if (!next_unit(c))
                break;
            h->core_metrics[CORE_UNITS]++;
            h->progress++;
        } else {
            h->progress += c->unit_passed;
        }
        if (!unit_step(c))
            break;
    }
    if (c->stage == CONN_CLOSING) {
        discard_input(c);
        return;
    }
    /* The end of input comes after all that was sent before it. */
    if (c->client->end_of_input && c->stage == CONN_OPEN && !c->unit && !c->holds &&
        list_empty(&c->client->packets) && source_settled(&c->source))
        conn_close(c, "left", true);
}

uint64_t conn_wake_ms(const struct roda_conn *c)
{
    uint64_t wake_ms = source_wake_ms(&c->source);

    if (c->since_ms) {
        uint64_t end_ms = c->since_ms + c->host->max_delay_ms;
        uint64_t own_ms = c->until_ms < end_ms ? c->until_ms : end_ms;
        wake_ms = own_ms < wake_ms ? own_ms : wake_ms;
    }
    if (c->stage == CONN_CLOSING && !list_empty(&c->queue) &&
        c->closing_since_ms + CLOSE_MS < wake_ms)
        wake_ms = c->closing_since_ms + CLOSE_MS;
    return wake_ms;
}

/* ---- reports ---------------------------------------------------------------------------- */

void conn_protocol_answer(struct roda_conn *c, const struct roda_answer *answer)
{
    const struct roda_protocol *p = c->listener->protocol;

    if (!p->answer || !c->opened)
        return;
    struct hook_before before = hook_enter(c->host, c->listener->owner, "answer");
    p->answer(ctx_on(c->listener->owner, c->worker), c, answer);
    hook_leave(c->host, before);
}

static void report_ready(struct roda_conn *c)
{
    struct testhost *h = c->host;

    c->ready_due = false;
    h->progress++;
    for (uint32_t i = 0; i < h->n_instances; i++) {
        if (!h->instances[i]->plugin.ready)
            continue;
        struct hook_before before = hook_enter(h, h->instances[i], "ready");
        h->instances[i]->plugin.ready(ctx_on(h->instances[i], c->worker), c);
        hook_leave(h, before);
    }
}

static void report_charged(struct roda_conn *c)
{
    struct testhost *h = c->host;
    size_t n = c->n_charges;
    uint32_t *charges = c->charges;

    c->charges = NULL;
    c->n_charges = 0;
    h->progress++;
    for (size_t n_charge = 0; n_charge < n; n_charge++)
        for (uint32_t i = 0; i < h->n_instances; i++) {
            if (!h->instances[i]->plugin.charged)
                continue;
            struct hook_before before = hook_enter(h, h->instances[i], "charged");
            h->instances[i]->plugin.charged(ctx_on(h->instances[i], c->worker), c,
                                            charges[n_charge]);
            hook_leave(h, before);
        }
    free(charges);
}

static void report_closing(struct roda_conn *c)
{
    const struct roda_protocol *p = c->listener->protocol;

    c->closing_told = true;
    c->host->progress++;
    source_drop_held(&c->source);
    if (!p->closing || c->no_words || c->client->end_of_input)
        return;
    struct hook_before before = hook_enter(c->host, c->listener->owner, "protocol closing");
    p->closing(ctx_on(c->listener->owner, c->worker), c, c->reason);
    hook_leave(c->host, before);
}

static bool report_one(struct roda_conn *c)
{
    if (c->ready_due)
        report_ready(c);
    else if (c->n_charges)
        report_charged(c);
    else if (c->stage == CONN_CLOSING && !c->closing_told)
        report_closing(c);
    else
        return false;
    return true;
}

void conn_reports(struct worker *w)
{
    bool again = true;

    while (again) {
        again = false;
        answers_run(w);
        for (uint32_t i = 0; i < w->n_slots; i++)
            while (w->slots[i].conn && report_one(w->slots[i].conn))
                again = true;
        again |= !list_empty(&w->answers);
    }
}

/* ---- closing ---------------------------------------------------------------------------- */

void conn_close(struct roda_conn *c, const char *reason, bool words)
{
    if (c->stage == CONN_CLOSING)
        return;
    c->stage = CONN_CLOSING;
    c->reason = copy_text((struct roda_str){reason, strlen(reason)});
    c->closing_since_ms = c->host->now_ms;
    c->shutdown = c->host->stopping;
    c->host->progress++;
    if (!words)
        c->no_words = true;
}

void roda_conn_close(struct roda_conn *c, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    char *reason = formatted(fmt, args);
    va_end(args);
    conn_close(c, reason, true);
    free(reason);
}

static void report_closed(struct roda_conn *c)
{
    struct testhost *h = c->host;
    struct worker *w = c->worker;

    queue_cancel(c);
    for (uint32_t i = 0; c->opened && i < h->n_instances; i++) {
        if (!h->instances[i]->plugin.closed)
            continue;
        struct hook_before before = hook_enter(h, h->instances[i], "closed");
        h->instances[i]->plugin.closed(ctx_on(h->instances[i], w), c, c->reason, c->shutdown);
        hook_leave(h, before);
    }
    conn_destroy(c);
}

void conn_destroy(struct roda_conn *c)
{
    struct testhost *h = c->host;

    h->progress++;
    h->core_metrics[CORE_CONNECTIONS]--;
    c->worker->slots[(uint32_t)(c->id >> 32) & 0xffffffu].conn = NULL;
    c->client->conn = NULL;
    c->client->closed = true;
    c->client->reason =
        copy_text((struct roda_str){c->reason ? c->reason : "", c->reason ? strlen(c->reason) : 0});
    conn_free(c);
}

static void flush_one(struct roda_conn *c)
{
    struct testhost *h = c->host;

    while (queue_places(c))
        queue_pump(c);
    queue_pump(c);
    if (c->stage != CONN_CLOSING && queue_length(c) > h->send_queue_bytes) {
        conn_close(c, "reads too slowly", false);
        queue_cancel(c);
        report_closing(c);
    }
    if (c->stage == CONN_CLOSING && !list_empty(&c->queue) &&
        (c->no_words || h->now_ms >= c->closing_since_ms + CLOSE_MS))
        queue_cancel(c);
    if (c->stage == CONN_CLOSING && c->closing_told && list_empty(&c->queue) &&
        source_settled(&c->source))
        report_closed(c);
}

void conn_flush(struct worker *w)
{
    for (uint32_t i = 0; i < w->n_slots; i++)
        if (w->slots[i].conn)
            flush_one(w->slots[i].conn);
}

/* ---- the plugin's view ------------------------------------------------------------------ */

roda_conn_id roda_conn_getid(const struct roda_conn *c)
{
    return c->id;
}

struct roda_conn *roda_conn_find(struct roda_ctx *x, roda_conn_id id)
{
    return conn_find(worker_of(x), id);
}

void *roda_conn_data(struct roda_ctx *x, const struct roda_conn *c)
{
    if (c->worker != context_of(x)->worker)
        complain(c->host, "roda_conn_data() of a connection of another worker");
    return c->data[context_of(x)->instance->index];
}

const void *roda_conn_conf(struct roda_ctx *x, const struct roda_conn *c)
{
    const void *own = c->listener->confs[context_of(x)->instance->index];

    return own ? own : x->conf;
}

const struct roda_person *roda_conn_person(const struct roda_conn *c)
{
    return c->person;
}

void roda_conn_set_person(struct roda_conn *c, struct roda_person *person)
{
    roda_person_unref(c->person);
    c->person = person;
}

const char *roda_conn_peer_text(const struct roda_conn *c, char *buf, size_t size)
{
    (void)snprintf(buf, size, "%s", c->client->peer_text);
    return buf;
}

const struct sockaddr *roda_conn_peer(const struct roda_conn *c)
{
    return (const struct sockaddr *)(const void *)&c->client->peer;
}

static struct roda_str text_of(const char *text)
{
    return (struct roda_str){text, strlen(text)};
}

struct roda_str roda_conn_listener(const struct roda_conn *c)
{
    return text_of(c->listener->name);
}

struct roda_str roda_conn_protocol(const struct roda_conn *c)
{
    return text_of(c->listener->protocol->name);
}

struct roda_str roda_conn_transport(const struct roda_conn *c)
{
    return text_of(c->listener->transport);
}

void roda_conn_set_variant(struct roda_conn *c, uint32_t variant)
{
    if (variant >> 24)
        complain(c->host, "the upper 8 bits of a variant are the core's");
    c->variant = variant & 0xffffffu;
}

uint32_t roda_conn_variant(const struct roda_conn *c)
{
    return c->variant;
}

void roda_conn_ask_deliver(struct roda_conn *c, int on)
{
    c->asks_deliver = on;
}

void roda_conn_ready(struct roda_conn *c)
{
    if (!c->ready)
        c->ready = c->ready_due = true;
}

void roda_conn_hold(struct roda_conn *c)
{
    if (++c->holds > 255)
        complain(c->host, "more than 255 holds");
}

void roda_conn_release(struct roda_conn *c)
{
    if (!c->holds)
        complain(c->host, "roda_conn_release() without a hold");
    else
        c->holds--;
}

void roda_charge(struct roda_ctx *x, struct roda_conn *c, uint32_t cost)
{
    uint32_t *more = get((c->n_charges + 1) * sizeof *more);

    (void)x;
    if (c->n_charges)
        memcpy(more, c->charges, c->n_charges * sizeof *more);
    free(c->charges);
    c->charges = more;
    c->charges[c->n_charges++] = cost;
}

/* ---- sending ---------------------------------------------------------------------------- */

struct encoding {
    const struct roda_protocol *protocol;
    uint32_t variant;
    bool datagram, failed;
    struct bytes bytes;
};

static bool deliver(struct roda_conn *c, struct roda_msg *msg)
{
    struct testhost *h = c->host;

    for (uint32_t n = 0; c->asks_deliver && n < h->n_instances; n++) {
        struct instance *i = h->instances[n];
        struct event e;
        if (!i->plugin.deliver)
            continue;
        event_enter(h, &e, i, TESTHOST_DELIVER, c, message_of(msg), msg->text.len);
        roda_verdict verdict = filter_run(h, &e, i->plugin.deliver, c->worker);
        event_leave(h, &e);
        if (verdict != RODA_PASS)
            return false;
    }
    return true;
}

static void encode(struct roda_conn *c, const struct roda_msg *msg, struct encoding *e)
{
    struct testhost *h = c->host;
    struct roda_out out;

    out_begin(&out, &e->bytes, c->listener, e->datagram, NULL);
    h->core_metrics[CORE_ENCODES]++;
    struct hook_before before = hook_enter(h, c->listener->owner, "encode");
    if (e->protocol->encode)
        e->protocol->encode(ctx_on(c->listener->owner, c->worker), msg, e->variant, &out);
    if (!out.failed && e->protocol->framing == RODA_LINES && e->bytes.len &&
        (!e->bytes.n_ends || e->bytes.ends[e->bytes.n_ends - 1] != e->bytes.len)) {
        complain(h, "an encoding that does not end with a unit");
        roda_out_unit(&out);
    }
    hook_leave(h, before);
    e->failed = out.failed;
}

static void send_one(struct roda_conn *c, struct roda_msg *msg, struct encoding *list, size_t *n)
{
    const struct roda_protocol *p = c->listener->protocol;
    uint32_t mask = p->variant_masks ? p->variant_masks[msg->kind] : UINT32_MAX;
    size_t i = 0;

    if (c->stage == CONN_CLOSING || !deliver(c, msg))
        return;
    while (i < *n && (list[i].protocol != p || list[i].variant != (c->variant & mask) ||
                      list[i].datagram != c->datagram))
        i++;
    if (i == *n) {
        list[i] =
            (struct encoding){.protocol = p, .variant = c->variant & mask, .datagram = c->datagram};
        (*n)++;
        encode(c, msg, &list[i]);
    }
    if (list[i].failed)
        conn_close(c, "out of memory", false);
    else
        queue_bytes(c, &list[i].bytes);
}

static void send_all(struct roda_ctx *x, struct roda_msg *msg, struct roda_conn *const *conns,
                     size_t n, bool all)
{
    struct testhost *h = host_of(x);
    struct encoding *list = get(n * sizeof *list);
    size_t n_list = 0;

    for (size_t i = 0; i < n; i++) {
        if (conns[i]->worker != context_of(x)->worker)
            complain(h, "sends to a connection of another worker");
        if (all || conns[i]->id != msg->from)
            send_one(conns[i], msg, list, &n_list);
    }
    for (size_t i = 0; i < n_list; i++)
        bytes_clear(&list[i].bytes);
    free(list);
}

void roda_send(struct roda_ctx *x, struct roda_conn *c, struct roda_msg *msg)
{
    send_all(x, msg, &c, 1, true);
}

void roda_fanout(struct roda_ctx *x, struct roda_msg *msg, struct roda_conn *const *conns, size_t n)
{
    send_all(x, msg, conns, n, false);
}

/* ---- the test's view -------------------------------------------------------------------- */

void testhost_input_bytes(struct testhost_conn *c, const void *bytes, size_t len)
{
    struct packet *p = get(sizeof *p + len + 1);

    if (c->closed || c->end_of_input || c->reset) {
        free(p);
        return;
    }
    p->len = len;
    if (len)
        memcpy(p->data, bytes, len);
    list_append(&c->packets, &p->link);
    c->host->progress++;
}

void testhost_input(struct testhost_conn *c, const char *text)
{
    testhost_input_bytes(c, text, strlen(text));
}

void testhost_end_input(struct testhost_conn *c)
{
    c->end_of_input = true;
}

void testhost_reset(struct testhost_conn *c)
{
    c->reset = true;
}

void testhost_read(struct testhost_conn *c, bool on)
{
    c->stopped_reading = !on;
}

void testhost_idle(struct testhost_conn *c)
{
    struct roda_conn *conn = c->conn;

    if (!conn || conn->stage != CONN_OPEN || !conn->listener->protocol->idle)
        return;
    struct hook_before before = hook_enter(c->host, conn->listener->owner, "protocol idle");
    conn->listener->protocol->idle(ctx_on(conn->listener->owner, c->worker), conn);
    hook_leave(c->host, before);
}

const char *testhost_output_bytes(struct testhost_conn *c, size_t *ret_len)
{
    free(c->taken);
    c->taken = copy_text((struct roda_str){c->received.data, c->received.len});
    if (ret_len)
        *ret_len = c->received.len;
    bytes_clear(&c->received);
    return c->taken;
}

const char *testhost_output(struct testhost_conn *c)
{
    return testhost_output_bytes(c, NULL);
}

const char *testhost_unit(struct testhost_conn *c)
{
    struct bytes *in = &c->received;

    if (!in->n_ends)
        return NULL;
    size_t end = in->ends[0], len = end;
    if (len && in->data[len - 1] == '\n')
        len--;
    free(c->taken);
    c->taken = copy_text((struct roda_str){in->data, len});
    bytes_take(in, end);
    return c->taken;
}

struct roda_conn *testhost_conn(const struct testhost_conn *c)
{
    return c->conn;
}

roda_conn_id testhost_conn_id(const struct testhost_conn *c)
{
    return c->id;
}

bool testhost_closed(const struct testhost_conn *c)
{
    return c->closed;
}

const char *testhost_close_reason(const struct testhost_conn *c)
{
    if (c->closed)
        return c->reason;
    return c->conn && c->conn->reason ? c->conn->reason : "";
}

int testhost_knock(struct testhost *h, uint32_t worker, const char *protocol, const char *address,
                   uint16_t port, const char *datagram, char *answer, size_t size,
                   struct testhost_conn **ret_conn)
{
    check_started(h, worker);
    struct listener *l = listener_for(h, protocol, "udp");
    struct testhost_conn peer_of = {.host = h};
    struct roda_str in = text_of(datagram), rest = RODA_STR("");
    struct bytes bytes = {0};
    struct roda_out out;

    testhost_set_peer(&peer_of, address, port);
    struct roda_peer peer = {.address = (const struct sockaddr *)(const void *)&peer_of.peer,
                             .listener = text_of(l->name)};
    if (!l->protocol->knock)
        return -ENOSYS;
    out_begin(&out, &bytes, l, true, NULL);
    struct hook_before before = hook_enter(h, l->owner, "knock");
    int result = l->protocol->knock(ctx_on(l->owner, &h->workers[worker]), &peer, in, &out, &rest);
    if (!result && bytes.len > 10)
        complain(h, "answers %zu bytes; at most 10 go out", bytes.len);
    if (result > 0 && (rest.ptr < in.ptr || rest.ptr + rest.len > in.ptr + in.len))
        complain(h, "ret_rest is no part of the datagram");
    hook_leave(h, before);
    if (answer && size)
        (void)snprintf(answer, size, "%.*s", !result ? (int)bytes.len : 0,
                       bytes.data ? bytes.data : "");
    bytes_clear(&bytes);
    if (result > 0) {
        struct testhost_conn *c = connect_to(h, worker, l);
        if (!c)
            return -ENOMEM;
        testhost_set_peer(c, address, port);
        testhost_input_bytes(c, rest.ptr, rest.len);
        *ret_conn = c;
    }
    return result;
}
