#include "inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/hash.h"
#include "base/text.h"

/*
 * The fake core. A host has workers, and an instance per plugin with a context per worker, as the
 * broker has; but one thread, which gives each worker a turn when the test says so. A turn of a
 * worker is that of the broker:
 *
 *   mailbox -> completions (offloads, files) -> input, connection by connection -> timers
 *   -> reports (answers, ready, charged, closing) -> places, sends, closed
 *   -> posts go out, then the posts "after"
 *
 * Starts go on side by side: those of a worker one after the other, in turns of all workers.
 *
 * No report runs inside a roda_*() call; it is remembered and made at the end of the turn.
 * progress counts whatever was done, so that testhost_run() knows when nothing is left.
 *
 * A rule of the header that a plugin breaks is a complaint, named by plugin and hook; the host goes
 * on as well as it can. testhost_stop() counts complaints and what is still alive.
 */

#define TURNS_MAX       100000u
#define START_STEPS_MAX 10000u
#define START_STEP_MS   10u

struct testhost *host_current;

/* ---- telling ---------------------------------------------------------------------------- */

static void list_text(char ***list, size_t *n, char *text)
{
    char **more = get((*n + 1) * sizeof *more);

    if (*n)
        memcpy(more, *list, *n * sizeof *more);
    free(*list);
    *list = more;
    more[(*n)++] = text;
}

void complain(struct testhost *h, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    char *what = formatted(fmt, args);
    va_end(args);
    const char *who = h->hook_instance ? h->hook_instance->plugin.name : "test";
    const char *hook = h->hook ? h->hook : "";
    size_t size = strlen(who) + strlen(hook) + strlen(what) + 4;
    char *text = get(size);
    (void)snprintf(text, size, "%s%s%s: %s", who, *hook ? " " : "", hook, what);
    free(what);
    pthread_mutex_lock(&h->lock);
    list_text(&h->complaints, &h->n_complaints, text);
    pthread_mutex_unlock(&h->lock);
}

void set_error(struct testhost *h, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    free(h->error);
    h->error = formatted(fmt, args);
    va_end(args);
}

const char *testhost_error(const struct testhost *h)
{
    return h->error ? h->error : "";
}

size_t testhost_complaints(const struct testhost *h)
{
    return h->n_complaints;
}

const char *testhost_complaint(const struct testhost *h, size_t index)
{
    return index < h->n_complaints ? h->complaints[index] : NULL;
}

static void free_texts(char ***list, size_t *n)
{
    for (size_t i = 0; i < *n; i++)
        free((*list)[i]);
    free(*list);
    *list = NULL;
    *n = 0;
}

void testhost_forgive(struct testhost *h)
{
    free_texts(&h->complaints, &h->n_complaints);
}

void roda_log(struct roda_ctx *x, uint32_t level, const char *fmt, ...)
{
    static const char *const names[] = {"error", "warning", "notice", "info", "debug"};
    struct testhost *h = host_of(x);
    const char *who = context_of(x)->instance->plugin.name;
    const char *name =
        level >= RODA_LOG_ERROR && level <= RODA_LOG_DEBUG ? names[level - RODA_LOG_ERROR] : "?";
    va_list args;

    va_start(args, fmt);
    char *what = formatted(fmt, args);
    va_end(args);
    size_t size = strlen(name) + strlen(who) + strlen(what) + 4;
    char *text = get(size);
    (void)snprintf(text, size, "%s %s: %s", name, who, what);
    free(what);
    pthread_mutex_lock(&h->lock);
    list_text(&h->log, &h->n_log, text);
    pthread_mutex_unlock(&h->lock);
}

size_t testhost_log_lines(const struct testhost *h)
{
    return h->n_log;
}

const char *testhost_log_line(const struct testhost *h, size_t index)
{
    return index < h->n_log ? h->log[index] : NULL;
}

bool testhost_logged(const struct testhost *h, const char *part)
{
    for (size_t i = 0; i < h->n_log; i++)
        if (strstr(h->log[i], part))
            return true;
    return false;
}

struct hook_before hook_enter(struct testhost *h, struct instance *instance, const char *hook)
{
    struct hook_before before = {h->hook_instance, h->hook};

    h->hook_instance = instance;
    h->hook = hook;
    return before;
}

void hook_leave(struct testhost *h, struct hook_before before)
{
    h->hook_instance = before.instance;
    h->hook = before.hook;
    if (!before.hook)
        h->out = NULL;
}

struct roda_conf_errors {
    struct testhost *host;
    const struct instance *instance;
};

int roda_conf_error(struct roda_conf_errors *errors, const char *option, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    char *what = formatted(fmt, args);
    va_end(args);
    set_error(errors->host, "[plugin %s]%s%s: %s", errors->instance->plugin.name, option ? "." : "",
              option ? option : "", what);
    free(what);
    return -EINVAL;
}

/* ---- text and hashes: the broker's own rules -------------------------------------------- */

int roda_text_check(struct roda_str text, uint32_t rule)
{
    return text_check(text, rule);
}

int roda_text_fold(struct roda_str name, char *buf, size_t size)
{
    return text_fold(name, buf, size);
}

uint64_t roda_hash(struct roda_str bytes)
{
    return hash_keyed(host_current->hash_key, bytes.ptr, bytes.len);
}

uint64_t roda_hash_stable(struct roda_str bytes)
{
    return hash_stable(bytes.ptr, bytes.len);
}

void roda_cookie(struct roda_ctx *x, const struct roda_peer *peer, uint64_t ret[2])
{
    struct testhost *h = host_of(x);
    struct {
        char address[28]; /* struct sockaddr_in6 is the longest */
        char listener[28];
        uint64_t slot;
    } in = {.slot = h->now_ms / 16000};
    /* 16 bytes are what IPv4 and IPv6 have in common; the rest is an IPv6 address. */
    bool v6 = peer->address->sa_family == AF_INET6;

    memcpy(in.address, peer->address, v6 ? 28 : 16);
    memcpy(in.listener, peer->listener.ptr,
           peer->listener.len < sizeof in.listener ? peer->listener.len : sizeof in.listener);
    ret[0] = hash_keyed(h->hash_key, &in, sizeof in);
    in.slot--;
    ret[1] = hash_keyed(h->hash_key, &in, sizeof in);
}

/* ---- plugins ---------------------------------------------------------------------------- */

_Noreturn static void test_error(const char *what, const char *name)
{
    (void)fprintf(stderr, "testhost: %s: %s\n", what, name);
    exit(1);
}

struct instance *host_find(const struct testhost *h, const char *plugin)
{
    for (uint32_t i = 0; i < h->n_instances; i++)
        if (!strcmp(h->instances[i]->plugin.name, plugin))
            return h->instances[i];
    return NULL;
}

struct worker *worker_of(const struct roda_ctx *x)
{
    struct context *context = context_of(x);

    if (context->worker)
        return context->worker;
    complain(context->instance->host, "a [worker] function is called in [main]");
    return &context->instance->host->workers[0];
}

static void context_init(struct testhost *h, struct context *c, struct instance *i,
                         struct worker *w)
{
    c->instance = i;
    c->worker = w;
    c->x.n_workers = h->n_workers;
    c->x.worker = w ? w->index : 0;
    list_init(&c->deferred);
    source_init(&c->source, NULL, w);
    if (i)
        c->x.conf = i->conf;
    if (i && w) {
        c->x.state = get(i->plugin.state_size);
        c->metrics = get(i->n_metrics * sizeof *c->metrics);
    }
}

struct testhost *testhost_new(uint32_t n_workers)
{
    struct testhost *h = get(sizeof *h);

    if (!n_workers || n_workers > 256)
        test_error("a host has 1 to 256 workers", "testhost_new");
    h->n_workers = n_workers;
    h->workers = get(n_workers * sizeof *h->workers);
    h->full_windows = get((size_t)n_workers * n_workers * sizeof *h->full_windows);
    h->now_ms = 1000000;
    h->time_ns = INT64_C(1767225600) * 1000000000; /* 2026-01-01 */
    h->max_delay_ms = 10000;
    h->send_queue_bytes = 256u << 10;
    h->random = 1;
    memcpy(h->hash_key, "roda's test host", sizeof h->hash_key);
    pthread_mutex_init(&h->lock, NULL);
    list_init(&h->messages);
    list_init(&h->persons);
    list_init(&h->memory);
    for (uint32_t i = 0; i < n_workers; i++) {
        struct worker *w = &h->workers[i];
        w->host = h;
        w->index = i;
        w->mailbox_end = &w->mailbox;
        w->early_end = &w->early;
        list_init(&w->answers);
        list_init(&w->timers);
        list_init(&w->jobs);
        list_init(&w->lanes);
        list_init(&w->places);
        list_init(&w->files);
        context_init(h, &w->core, NULL, w);
    }
    host_current = h;
    return h;
}

static struct instance *instance_add(struct testhost *h, const struct roda_plugin *plugin)
{
    struct instance *i = get(sizeof *i);
    struct instance **more = get((h->n_instances + 1) * sizeof(void *));
    size_t size = plugin->size < sizeof i->plugin ? plugin->size : sizeof i->plugin;

    memcpy(&i->plugin, plugin, size);
    i->host = h;
    i->index = h->n_instances;
    if (h->n_instances)
        memcpy(more, h->instances, h->n_instances * sizeof(void *));
    free(h->instances);
    h->instances = more;
    h->instances[h->n_instances++] = i;
    return i;
}

static const struct roda_metric *metric_at(const struct instance *i, size_t n)
{
    const char *table = (const char *)i->plugin.metrics;
    const struct roda_metric *m =
        table ? (const struct roda_metric *)(const void *)(table + n * i->plugin.metric_size)
              : NULL;

    return m && m->name ? m : NULL;
}

static int check_conf(struct testhost *h, struct instance *i, const void *conf)
{
    struct roda_conf_errors errors = {h, i};

    if (!i->plugin.check)
        return 0;
    int result = i->plugin.check(conf, &errors);
    if (result && !h->error)
        set_error(h, "[plugin %s]: check() says %d without a reason", i->plugin.name, result);
    return result;
}

int testhost_load(struct testhost *h, const struct roda_plugin *plugin, const char *conf)
{
    int result;

    if (h->started || host_find(h, plugin->name))
        test_error("loaded twice, or after testhost_start()", plugin->name);
    if (plugin->abi >> 16 != RODA_ABI_MAJOR || (plugin->abi & 0xffff) > RODA_ABI_MINOR ||
        plugin->size > sizeof *plugin)
        test_error("made for another ABI", plugin->name);
    struct instance *i = instance_add(h, plugin);
    while (metric_at(i, i->n_metrics))
        i->n_metrics++;
    i->conf = i->plugin.conf_size ? get(i->plugin.conf_size) : NULL;
    if (!i->conf && conf && *conf) {
        set_error(h, "[plugin %s]: it has no options", plugin->name);
        return -EINVAL;
    }
    result = i->conf ? options_fill(h, i, i->conf, conf, NULL, true) : 0;
    if (!result)
        result = check_conf(h, i, i->conf);
    context_init(h, &i->main, i, NULL);
    i->contexts = get(h->n_workers * sizeof *i->contexts);
    for (uint32_t w = 0; w < h->n_workers; w++)
        context_init(h, &i->contexts[w], i, &h->workers[w]);
    return result;
}

void testhost_load_filter(struct testhost *h, testhost_filter_fn *fn, void *arg)
{
    static const char *const names[] = {"script", "script2", "script3", "script4"};
    struct roda_plugin plugin = testhost_script;
    struct script *script = get(sizeof *script);
    size_t n = 0;

    while (n < sizeof names / sizeof *names && host_find(h, names[n]))
        n++;
    if (n == sizeof names / sizeof *names)
        test_error("at most four", "testhost_load_filter");
    plugin.name = names[n];
    *script = (struct script){fn, arg};
    (void)testhost_load(h, &plugin, NULL);
    host_find(h, names[n])->main.x.shared = script;
}

static bool is_script(const struct instance *i)
{
    return i->plugin.accept == testhost_script.accept;
}

struct roda_ctx *testhost_filter_ctx(struct testhost *h, uint32_t worker)
{
    for (uint32_t i = h->n_instances; i--;)
        if (is_script(h->instances[i]))
            return &h->instances[i]->contexts[worker].x;
    test_error("none is loaded", "testhost_filter_ctx");
}

struct roda_ctx *testhost_ctx(struct testhost *h, const char *plugin, uint32_t worker)
{
    struct instance *i = host_find(h, plugin);

    if (!i || worker >= h->n_workers)
        test_error("no such plugin or worker", plugin);
    return &i->contexts[worker].x;
}

static const struct roda_protocol *protocol_find(const struct instance *i, const char *name)
{
    const char *at = (const char *)i->plugin.protocols;

    for (; at; at += i->plugin.protocol_size) {
        const struct roda_protocol *p = (const struct roda_protocol *)(const void *)at;
        if (!p->name)
            return NULL;
        if (!strcmp(p->name, name))
            return p;
    }
    return NULL;
}

static int listener_confs(struct testhost *h, struct listener *l, const char *conf)
{
    for (uint32_t n = 0; n < h->n_instances; n++) {
        struct instance *i = h->instances[n];
        if (!i->conf || !conf || !instance_serves(i, l))
            continue;
        l->confs[n] = get(i->plugin.conf_size);
        memcpy(l->confs[n], i->conf, i->plugin.conf_size);
        int result = options_fill(h, i, l->confs[n], conf, i->plugin.name, false);
        if (!result)
            result = check_conf(h, i, l->confs[n]);
        if (result)
            return result;
    }
    return 0;
}

static void load_plain(struct testhost *h)
{
    if (!host_find(h, "plain"))
        (void)testhost_load(h, &testhost_plain, NULL);
}

int testhost_listener(struct testhost *h, const char *name, const char *protocol,
                      const char *transport, const char *conf)
{
    struct listener *l = get(sizeof *l);

    if (!h->started)
        load_plain(h);
    for (uint32_t i = 0; i < h->n_instances && !l->protocol; i++) {
        l->protocol = protocol_find(h->instances[i], protocol);
        l->owner = h->instances[i];
    }
    if (!l->protocol)
        test_error("no loaded plugin offers this protocol", protocol);
    l->name = copy_text((struct roda_str){name, strlen(name)});
    l->transport = copy_text((struct roda_str){transport, strlen(transport)});
    l->confs = get((h->n_instances + 1) * sizeof *l->confs);
    /* Plugins that are loaded later have no overrides here: listeners come last. */
    l->next = h->listeners;
    h->listeners = l;
    return listener_confs(h, l, conf);
}

/* ---- start ------------------------------------------------------------------------------ */

static struct instance *provider_of(const struct testhost *h, const char *id, size_t len,
                                    const void **ret_interface)
{
    for (uint32_t n = 0; n < h->n_instances; n++) {
        const struct instance *i = h->instances[n];
        const char *at = (const char *)i->plugin.services;
        for (; at; at += i->plugin.service_size) {
            const struct roda_service_table *s =
                (const struct roda_service_table *)(const void *)at;
            if (!s->id)
                break;
            if (strlen(s->id) == len && !memcmp(s->id, id, len)) {
                if (ret_interface)
                    *ret_interface = s->interface;
                return h->instances[n];
            }
        }
    }
    return NULL;
}

static size_t need_len(const char *need, bool *ret_optional)
{
    size_t len = strlen(need);

    *ret_optional = len && need[len - 1] == '?';
    return len - *ret_optional;
}

/* 0: not seen, 1: being placed, 2: placed */
static int place_in_order(struct testhost *h, struct instance *i, uint8_t *marks, uint32_t *n)
{
    if (marks[i->index] == 2)
        return 0;
    if (marks[i->index] == 1) {
        set_error(h, "%s: the needs go in a circle", i->plugin.name);
        return -ELOOP;
    }
    marks[i->index] = 1;
    for (const char *const *need = i->plugin.needs; need && *need; need++) {
        bool optional;
        size_t len = need_len(*need, &optional);
        struct instance *provider = provider_of(h, *need, len, NULL);
        if (!provider && !optional) {
            set_error(h, "%s needs the service %s, which no loaded plugin offers", i->plugin.name,
                      *need);
            return -ENOENT;
        }
        int result = provider && provider != i ? place_in_order(h, provider, marks, n) : 0;
        if (result)
            return result;
    }
    marks[i->index] = 2;
    h->order[(*n)++] = i->index;
    return 0;
}

static int check_owners(struct testhost *h)
{
    uint64_t kinds = 0;

    for (uint32_t i = 0; i < h->n_instances; i++) {
        if (h->instances[i]->plugin.kinds & kinds) {
            set_error(h, "%s: another plugin owns one of its kinds", h->instances[i]->plugin.name);
            return -EEXIST;
        }
        kinds |= h->instances[i]->plugin.kinds;
    }
    return 0;
}

static int init_all(struct testhost *h)
{
    for (uint32_t n = 0; n < h->n_instances; n++) {
        struct instance *i = h->instances[h->order[n]];
        struct hook_before before = hook_enter(h, i, "init");
        int result = i->plugin.init ? i->plugin.init(&i->main.x) : 0;
        hook_leave(h, before);
        if (result) {
            set_error(h, "%s: init: %s", i->plugin.name, strerror(-result));
            return result;
        }
        i->initialised = true;
        for (uint32_t w = 0; w < h->n_workers; w++)
            i->contexts[w].x.shared = i->main.x.shared;
    }
    return 0;
}

void roda_started(struct roda_ctx *x, int result)
{
    struct context *context = context_of(x);

    if (context->started && context->start_result != RODA_LATER)
        complain(host_of(x), "%s: roda_started(), but no start goes on",
                 context->instance->plugin.name);
    context->start_result = result < 0 ? result : 0;
}

static int start_one(struct testhost *h, struct worker *w, struct instance *i)
{
    struct context *context = &i->contexts[w->index];
    struct hook_before before = hook_enter(h, i, "start");

    context->started = true; /* its own calls of roda_service() work */
    context->start_result = RODA_LATER;
    int result = i->plugin.start ? i->plugin.start(&context->x) : 0;
    hook_leave(h, before);
    if (result != RODA_LATER)
        context->start_result = 0;
    if (result && result != RODA_LATER)
        context->started = false; /* it has undone it itself */
    return result;
}

/* As far as it goes: 0, RODA_LATER, or an error. */
static int start_worker(struct testhost *h, struct worker *w)
{
    struct instance *i = NULL;
    int result = 0;

    if (w->next_start) {
        i = h->instances[h->order[w->next_start - 1]];
        result = i->contexts[w->index].start_result;
    }
    while (!result && w->next_start < h->n_instances) {
        i = h->instances[h->order[w->next_start++]];
        result = start_one(h, w, i);
        if (!result || result == RODA_LATER)
            mailbox_run_early(w);
        if (result == RODA_LATER)
            result = i->contexts[w->index].start_result;
    }
    if (result && result != RODA_LATER)
        set_error(h, "%s: start on worker %u: %s", i->plugin.name, w->index, strerror(-result));
    return result;
}

/* All workers, until every start is over; time goes on when nothing else can happen. */
static int start_all(struct testhost *h)
{
    for (unsigned i = 0; i < START_STEPS_MAX; i++) {
        int result = 0;
        for (uint32_t w = 0; w < h->n_workers && (!result || result == RODA_LATER); w++) {
            int one = start_worker(h, &h->workers[w]);
            result = one ? one : result;
        }
        if (result != RODA_LATER)
            return result;
        if (!testhost_turn(h))
            testhost_advance_ms(h, START_STEP_MS);
    }
    set_error(h, "a start does not end");
    return -ETIMEDOUT;
}

int testhost_start(struct testhost *h)
{
    uint32_t n = 0;
    int result;

    load_plain(h);
    h->order = get(h->n_instances * sizeof *h->order);
    uint8_t *marks = get(h->n_instances);
    result = check_owners(h);
    for (uint32_t i = 0; i < h->n_instances && !result; i++)
        result = place_in_order(h, h->instances[i], marks, &n);
    free(marks);
    if (!result)
        result = init_all(h);
    if (!result)
        result = start_all(h);
    if (result) {
        int problems = testhost_stop(h);
        (void)problems; /* counted again by whoever stops it */
        return result;
    }
    h->started = true;
    return 0;
}

const void *roda_service(struct roda_ctx *x, const char *id, struct roda_ctx **ret_ctx)
{
    struct testhost *h = host_of(x);
    struct context *context = context_of(x);
    const void *interface = NULL;

    if (!context->worker || !context->started)
        return NULL;
    for (const char *const *need = context->instance->plugin.needs; need && *need; need++) {
        bool optional;
        size_t len = need_len(*need, &optional);
        if (len != strlen(id) || memcmp(*need, id, len))
            continue;
        struct instance *provider = provider_of(h, id, len, &interface);
        if (!provider || !provider->contexts[context->worker->index].started)
            return NULL;
        if (ret_ctx)
            *ret_ctx = &provider->contexts[context->worker->index].x;
        return interface;
    }
    return NULL;
}

/* ---- turns ------------------------------------------------------------------------------ */

static void take_injected(struct testhost *h)
{
    pthread_mutex_lock(&h->lock);
    posts_push(h, &h->injected);
    pthread_mutex_unlock(&h->lock);
}

static void turn_inputs(struct worker *w)
{
    for (uint32_t i = 0; i < w->host->n_instances; i++)
        source_run(&w->host->instances[i]->contexts[w->index].source);
    for (uint32_t i = 0; i < w->n_slots; i++)
        if (w->slots[i].conn)
            conn_input(w->slots[i].conn);
}

size_t testhost_turn_worker(struct testhost *h, uint32_t worker)
{
    struct worker *w = &h->workers[worker];
    size_t before = h->progress;

    host_current = h;
    take_injected(h);
    mailbox_run(w);
    jobs_run(w);
    turn_inputs(w);
    timers_run(w);
    conn_reports(w);
    conn_flush(w);
    if (!w->host->hold_writes)
        files_write(w);
    posts_push(h, &w->out);
    posts_push(h, &w->after);
    return h->progress - before;
}

size_t testhost_turn(struct testhost *h)
{
    size_t done = 0;

    for (uint32_t w = 0; w < h->n_workers; w++)
        done += testhost_turn_worker(h, w);
    return done;
}

bool testhost_run(struct testhost *h)
{
    for (unsigned i = 0; i < TURNS_MAX; i++)
        if (!testhost_turn(h))
            return true;
    complain(h, "no end in %u turns", TURNS_MAX);
    return false;
}

static uint64_t wake_ms(const struct testhost *h)
{
    uint64_t first = UINT64_MAX;

    for (uint32_t n = 0; n < h->n_workers; n++) {
        const struct worker *w = &h->workers[n];
        uint64_t at = timers_wake_ms(w);
        for (uint32_t i = 0; i < w->n_slots; i++)
            if (w->slots[i].conn && conn_wake_ms(w->slots[i].conn) < at)
                at = conn_wake_ms(w->slots[i].conn);
        for (uint32_t i = 0; i < h->n_instances; i++) {
            uint64_t own = source_wake_ms(&h->instances[i]->contexts[n].source);
            at = own < at ? own : at;
        }
        first = at < first ? at : first;
    }
    return first;
}

void testhost_advance_ms(struct testhost *h, uint64_t ms)
{
    uint64_t end = h->now_ms + ms;

    if (!testhost_run(h))
        return;
    while (h->now_ms < end) {
        uint64_t next = wake_ms(h);
        next = next > end ? end : next <= h->now_ms ? h->now_ms + 1 : next;
        h->time_ns += (int64_t)(next - h->now_ms) * 1000000;
        h->now_ms = next;
        if (!testhost_run(h))
            return;
    }
}

void testhost_set_time_ns(struct testhost *h, int64_t time_ns)
{
    h->time_ns = time_ns;
}

void testhost_reopen(struct testhost *h)
{
    for (uint32_t w = 0; w < h->n_workers && h->started; w++)
        for (uint32_t n = 0; n < h->n_instances; n++) {
            struct instance *i = h->instances[h->order[n]];
            if (!i->plugin.reopen || !i->contexts[w].started)
                continue;
            struct hook_before before = hook_enter(h, i, "reopen");
            i->plugin.reopen(&i->contexts[w].x);
            hook_leave(h, before);
        }
}

/* ---- faults and metrics ----------------------------------------------------------------- */

void testhost_fail_allocation(struct testhost *h, uint64_t n)
{
    h->fail_at = n;
}

uint64_t testhost_allocations(const struct testhost *h)
{
    return h->allocations;
}

void testhost_window(struct testhost *h, uint32_t from, uint32_t to, bool full)
{
    h->full_windows[from * h->n_workers + to] = full;
}

void testhost_max_delay_ms(struct testhost *h, uint64_t ms)
{
    h->max_delay_ms = ms;
}

void testhost_hold_offloads(struct testhost *h, bool on)
{
    h->hold_offloads = on;
}

static const struct roda_metric core_metrics[] = {
    [CORE_CONNECTIONS] = {"connections", RODA_GAUGE, "connections open now"},
    [CORE_MESSAGES] = {"messages_submitted_total", RODA_COUNTER, "messages submitted"},
    [CORE_ENCODES] = {"encodes_total", RODA_COUNTER, "messages encoded"},
    [CORE_SENDS] = {"sends_total", RODA_COUNTER, "sends"},
    [CORE_UNITS] = {"units_received_total", RODA_COUNTER, "units received"},
};
#define N_CORE_METRICS (sizeof core_metrics / sizeof *core_metrics)

void roda_count(struct roda_ctx *x, uint32_t index, int64_t n)
{
    struct context *context = context_of(x);

    (void)worker_of(x);
    if (context->worker && index < context->instance->n_metrics)
        context->metrics[index] += n;
    else
        complain(context->instance->host, "roda_count() of metric %u of %zu", index,
                 context->instance->n_metrics);
}

void roda_metrics_read(struct roda_ctx *x, roda_metric_fn *fn, void *arg)
{
    struct testhost *h = host_of(x);

    /* The host counts for all workers together: worker 0 has it all. */
    for (size_t m = 0; m < N_CORE_METRICS; m++)
        for (uint32_t w = 0; w < h->n_workers; w++)
            fn(arg, &core_metrics[m], "core", w, w ? 0 : h->core_metrics[m]);
    for (uint32_t i = 0; i < h->n_instances; i++)
        for (size_t m = 0; m < h->instances[i]->n_metrics; m++)
            for (uint32_t w = 0; w < h->n_workers; w++)
                fn(arg, metric_at(h->instances[i], m), h->instances[i]->plugin.name, w,
                   h->instances[i]->contexts[w].metrics[m]);
}

int64_t testhost_metric(const struct testhost *h, const char *plugin, const char *name)
{
    const struct instance *i = host_find(h, plugin);
    int64_t total = 0;

    for (size_t m = 0; !strcmp(plugin, "core") && m < N_CORE_METRICS; m++)
        if (!strcmp(core_metrics[m].name, name))
            return h->core_metrics[m];
    for (size_t m = 0; i && m < i->n_metrics; m++)
        if (!strcmp(metric_at(i, m)->name, name)) {
            for (uint32_t w = 0; w < h->n_workers; w++)
                total += i->contexts[w].metrics[m];
            return total;
        }
    test_error("no such metric", name);
}

/* ---- stop ------------------------------------------------------------------------------- */

static void close_all(struct testhost *h)
{
    for (uint32_t n = 0; n < h->n_workers; n++)
        for (uint32_t i = 0; i < h->workers[n].n_slots; i++) {
            struct roda_conn *c = h->workers[n].slots[i].conn;
            if (!c)
                continue;
            c->shutdown = true;
            conn_close(c, "shutting down", true);
            c->client->stopped_reading = false;
        }
}

/* What lanes hold goes, so that nobody waits for it: the filters that deferred it are gone. */
static void cancel_waiting(struct testhost *h)
{
    for (uint32_t n = 0; n < h->n_workers; n++) {
        for (uint32_t i = 0; i < h->workers[n].n_slots; i++) {
            struct roda_conn *c = h->workers[n].slots[i].conn;
            if (!c)
                continue;
            source_drop_held(&c->source);
            queue_cancel(c);
        }
    }
}

static void stop_worker(struct testhost *h, struct worker *w)
{
    for (uint32_t n = h->n_instances; n--;) {
        struct instance *i = h->instances[h->order[n]];
        if (!i->contexts[w->index].started)
            continue;
        struct hook_before before = hook_enter(h, i, "stop");
        if (i->plugin.stop)
            i->plugin.stop(ctx_on(i, w));
        i->contexts[w->index].started = false;
        hook_leave(h, before);
    }
}

static int leak(const char *what, const char *who, size_t n)
{
    if (n)
        (void)fprintf(stderr, "testhost: leaked: %zu %s%s%s\n", n, what, *who ? " of " : "", who);
    return n > 0;
}

static size_t count(const struct link *head)
{
    size_t n = 0;

    for (const struct link *l = head->next; l != head; l = l->next)
        n++;
    return n;
}

static int leaks(struct testhost *h)
{
    size_t timers = 0, lanes = 0, places = 0, files = 0;
    int found = 0;

    for (uint32_t w = 0; w < h->n_workers; w++) {
        timers += count(&h->workers[w].timers);
        lanes += count(&h->workers[w].lanes);
        places += count(&h->workers[w].places);
        files += count(&h->workers[w].files);
    }
    found += leak("timers", "", timers) + leak("lanes", "", lanes) + leak("places", "", places) +
             leak("open files", "", files);
    found += leak("messages", "", count(&h->messages)) + leak("persons", "", count(&h->persons));
    for (uint32_t i = 0; i < h->n_instances; i++)
        found += leak("allocations", h->instances[i]->plugin.name, h->instances[i]->allocations);
    return found;
}

static void drop_connections(struct testhost *h)
{
    for (uint32_t n = 0; n < h->n_workers; n++)
        for (uint32_t i = 0; i < h->workers[n].n_slots; i++)
            if (h->workers[n].slots[i].conn) {
                complain(h, "a connection cannot be closed: something of it is under way");
                queue_cancel(h->workers[n].slots[i].conn);
                conn_destroy(h->workers[n].slots[i].conn);
            }
}

int testhost_stop(struct testhost *h)
{
    int found;

    if (h->stopped)
        return 0;
    host_current = h;
    testhost_hold_writes(h, false);
    h->hold_files = h->hold_offloads = false;
    h->hold_path[0] = '\0';
    memset(h->full_windows, 0, (size_t)h->n_workers * h->n_workers * sizeof *h->full_windows);
    if (h->started) {
        h->stopping = true;
        (void)testhost_run(h);
        close_all(h);
        (void)testhost_run(h);
        cancel_waiting(h);
        (void)testhost_run(h);
    }
    h->cancelling = true;
    for (uint32_t w = 0; w < h->n_workers; w++)
        mailbox_run_early(&h->workers[w]);
    (void)testhost_run(h);
    for (uint32_t w = h->n_workers; w-- && h->order;)
        stop_worker(h, &h->workers[w]);
    (void)testhost_run(h); /* what stop() posted comes back, and files are closed */
    for (uint32_t w = 0; w < h->n_workers; w++) {
        for (uint32_t i = 0; i < h->n_instances; i++)
            if (h->instances[i]->contexts)
                source_clear(&h->instances[i]->contexts[w].source);
    }
    drop_connections(h);
    for (uint32_t w = 0; w < h->n_workers; w++)
        answers_clear(&h->workers[w]);
    for (uint32_t n = h->n_instances; n-- && h->order;) {
        struct instance *i = h->instances[h->order[n]];
        struct hook_before before = hook_enter(h, i, "fini");
        if (i->initialised && i->plugin.fini)
            i->plugin.fini(&i->main.x);
        hook_leave(h, before);
    }
    h->stopped = true;
    found = leaks(h);
    for (size_t i = 0; i < h->n_complaints; i++)
        (void)fprintf(stderr, "testhost: %s\n", h->complaints[i]);
    return found + (int)h->n_complaints;
}

/* ---- the end ---------------------------------------------------------------------------- */

static void free_worker(struct worker *w)
{
    lane_free_all(w);
    while (!list_empty(&w->timers))
        roda_timer_stop(container_of(list_first(&w->timers), struct roda_timer, link));
    free(w->out.list);
    free(w->after.list);
    free(w->slots);
    roda_person_unref(NULL);
    free(w->core.x.state);
}

static void free_instance(struct testhost *h, struct instance *i)
{
    for (uint32_t w = 0; w < h->n_workers && i->contexts; w++) {
        free(i->contexts[w].x.state);
        free(i->contexts[w].metrics);
    }
    if (is_script(i))
        free(i->main.x.shared);
    options_free(i, i->conf, NULL);
    free(i->contexts);
    free(i);
}

static void free_client(struct testhost_conn *c)
{
    while (!list_empty(&c->packets)) {
        struct link *l = list_first(&c->packets);
        list_remove(l);
        free(container_of(l, struct packet, link));
    }
    bytes_clear(&c->input);
    bytes_clear(&c->received);
    free(c->taken);
    free(c->reason);
    free(c);
}

static void free_leaked(struct testhost *h)
{
    while (!list_empty(&h->messages)) {
        struct message *m = container_of(list_first(&h->messages), struct message, link);
        m->owed = m->awaiting = false;
        m->refs = 1;
        message_unref(m);
    }
    while (!list_empty(&h->persons)) {
        struct roda_person *p = container_of(list_first(&h->persons), struct roda_person, link);
        p->refs = 1;
        roda_person_unref(p);
    }
    while (!list_empty(&h->memory)) {
        struct memory *m = container_of(list_first(&h->memory), struct memory, link);
        list_remove(&m->link);
        free(m);
    }
}

void testhost_free(struct testhost *h)
{
    if (!h)
        return;
    (void)testhost_stop(h);
    for (uint32_t w = 0; w < h->n_workers; w++)
        free_worker(&h->workers[w]);
    files_free(h);
    free_leaked(h);
    while (h->listeners) {
        struct listener *l = h->listeners;
        h->listeners = l->next;
        for (uint32_t i = 0; i < h->n_instances; i++)
            if (l->confs[i])
                options_free(h->instances[i], l->confs[i], h->instances[i]->conf);
        free(l->confs);
        free(l->name);
        free(l->transport);
        free(l);
    }
    while (h->clients) {
        struct testhost_conn *c = h->clients;
        h->clients = c->next;
        free_client(c);
    }
    for (uint32_t i = 0; i < h->n_instances; i++)
        free_instance(h, h->instances[i]);
    free(h->injected.list);
    free_texts(&h->log, &h->n_log);
    free_texts(&h->complaints, &h->n_complaints);
    pthread_mutex_destroy(&h->lock);
    free(h->instances);
    free(h->order);
    free(h->workers);
    free(h->full_windows);
    free(h->error);
    free(h);
    host_current = NULL;
}
