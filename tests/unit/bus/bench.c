#include "unit/bus/bench.h"

#include <arpa/inet.h>

#include "base/hash.h"
#include "bus/current.h"

/*
 * What core/main/broker.c makes of a configuration is made here by hand, of memory the broker
 * gives back in its end. Each worker has a TCP port of its own, so that a test chooses where its
 * clients are.
 */

#define PORT       3000u
#define HORIZON_NS UINT64_C(5000000)
#define STEPS_MAX  400000u

struct bench *bench;

/* ---- the protocol ----------------------------------------------------------------------- */

static struct bench_conn *data_of(const struct roda_conn *c)
{
    return (struct bench_conn *)(uintptr_t)c->data;
}

static void submit(struct roda_ctx *x, struct roda_conn *c, uint32_t kind, const char *to,
                   const char *text)
{
    struct roda_msg_init init = {.size = sizeof init,
                                 .kind = kind,
                                 .from = roda_conn_getid(c),
                                 .token = ++data_of(c)->token,
                                 .to = {to, strlen(to)},
                                 .text = {text, strlen(text)}};
    struct roda_msg *msg = roda_msg_make(x, &init, NULL);

    if (msg)
        roda_submit(x, c, msg);
    else /* as a protocol does that has no memory left: it tells its client by closing */
        roda_conn_close(c, "no message");
}

static int decode(struct roda_ctx *x, struct roda_conn *c, struct roda_str unit)
{
    char line[8192], to[16];
    unsigned kind = RODA_TEXT, variant;
    int at = 0;

    bench->decodes++;
    memcpy(line, unit.ptr, unit.len);
    line[unit.len] = '\0';
    if (!strcmp(line, "ping")) {
        if (!roda_settled(c))
            return RODA_AGAIN;
        roda_out_put(roda_conn_out(c), RODA_STR("pong"));
        roda_out_unit(roda_conn_out(c));
    } else if (sscanf(line, "variant %u", &variant) == 1) {
        roda_conn_set_variant(c, variant);
    } else if (sscanf(line, "say %15s %n", to, &at) == 1 && at) {
        submit(x, c, kind, to, line + at);
    } else if (sscanf(line, "do %u %15s %n", &kind, to, &at) == 2 && at) {
        submit(x, c, kind, to, line + at);
    } else {
        return RODA_BAD;
    }
    return RODA_TAKEN;
}

static void encode(struct roda_ctx *x, const struct roda_msg *msg, uint32_t variant,
                   struct roda_out *out)
{
    (void)x;
    bench->encodes++;
    roda_out_printf(out, "%.*s #%llu <%llu %.*s", (int)msg->to.len, msg->to.ptr,
                    (unsigned long long)msg->number, (unsigned long long)msg->prev,
                    (int)msg->text.len, msg->text.ptr);
    if (variant)
        roda_out_printf(out, " v%u", variant);
    roda_out_unit(out);
}

static void answer(struct roda_ctx *x, struct roda_conn *c, const struct roda_answer *a)
{
    struct roda_out *out = roda_conn_out(c);

    (void)x;
    bench->answers++;
    if (a->kind == RODA_NONE)
        roda_out_printf(out, "!%u %.*s", a->code, (int)a->text.len, a->text.ptr);
    else
        roda_out_printf(out, "=%llu %u #%llu%s%.*s", (unsigned long long)a->token, a->code,
                        (unsigned long long)a->msg->number, a->code ? " " : "",
                        a->code ? (int)a->text.len : 0, a->text.ptr);
    roda_out_unit(out);
}

static void let_in(struct roda_ctx *x, struct roda_conn *c)
{
    (void)x;
    roda_conn_ready(c);
}

/* ---- the owner -------------------------------------------------------------------------- */

struct bench_worker *bench_state(uint32_t w)
{
    return bench_ctx(w, OWNER)->state;
}

struct roda_lane *bench_lane(uint32_t w, char d)
{
    return bench_state(w)->lanes[d - 'a'];
}

int bench_route(struct roda_ctx *x, struct roda_event *ev)
{
    struct roda_str to = ev->msg->to;

    if (to.len < 2)
        return RODA_HANDLED;
    return roda_route(x, ev, (uint32_t)(to.ptr[0] - '0'), (uint64_t)(to.ptr[1] - 'a'));
}

static int handle(struct roda_ctx *x, struct roda_event *ev)
{
    return bench->handle ? bench->handle(x, ev) : bench_route(x, ev);
}

int bench_distribute(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination)
{
    struct roda_workers all = {{0}};

    for (uint32_t w = 0; w < x->n_workers; w++)
        RODA_WORKERS_ADD(&all, w);
    return roda_distribute(x, msg, &all, destination);
}

static void lane(struct roda_ctx *x, void *arg, struct roda_msg *msg, int result)
{
    bench->leaves++;
    if (bench->lane)
        bench->lane(x, arg, msg, result);
    else if (result < 0)
        roda_lane_refuse(x, msg, RODA_E_STORAGE, RODA_STR("disk"));
    else
        (void)bench_distribute(x, msg, (uint64_t)(uintptr_t)arg);
}

static void arrive(struct roda_ctx *x, struct roda_event *ev, uint64_t destination)
{
    struct bench_worker *state = x->state;

    if (!state->lanes[destination] &&
        roda_lane_new(x, lane, (void *)(uintptr_t)destination, &state->lanes[destination])) {
        roda_refuse(x, ev, RODA_E_MEMORY, "no lane");
        return;
    }
    if (ev->msg->text.len == 6 && !memcmp(ev->msg->text.ptr, "refuse", 6))
        roda_refuse(x, ev, RODA_E_BANNED, "banned");
    else if (ev->msg->text.len != 6 || memcmp(ev->msg->text.ptr, "forget", 6))
        (void)roda_lane_publish(x, state->lanes[destination], roda_msg_ref(ev->msg));
}

static void distributed(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination)
{
    struct bench_worker *state = x->state;

    if (bench->distributed)
        bench->distributed(x, msg, destination);
    else
        roda_fanout(x, msg, state->conns, state->n_conns);
}

static void opened(struct roda_ctx *x, struct roda_conn *c)
{
    struct bench_worker *state = x->state;

    assert_true(state->n_conns < BENCH_CONNECTIONS);
    state->conns[state->n_conns++] = c;
}

static void closed(struct roda_ctx *x, struct roda_conn *c, const char *reason, int shutdown)
{
    struct bench_worker *state = x->state;

    (void)reason;
    (void)shutdown;
    bench->closed++;
    bench->last_closed = c;
    for (uint32_t i = 0; i < state->n_conns; i++)
        if (state->conns[i] == c)
            state->conns[i] = state->conns[--state->n_conns];
}

static void stop(struct roda_ctx *x)
{
    struct bench_worker *state = x->state;

    for (unsigned i = 0; i < BENCH_DESTINATIONS; i++) {
        roda_lane_free(state->lanes[i]);
        state->lanes[i] = NULL;
    }
}

/* ---- making and ending ------------------------------------------------------------------ */

static void *must_alloc(size_t size)
{
    void *memory = memory_alloc(size);

    assert_non_null(memory);
    return memory;
}

void bench_new(uint32_t n_workers)
{
    static const char *const names[BENCH_PLUGINS] = {"owner", "first", "second"};
    static const uint8_t key[HASH_KEY_BYTES] = {1};
    struct sim_faults none = sim_faults_none();
    struct bench *b = calloc(1, sizeof *b);

    assert_non_null(b);
    memory_fail_at(0, 0);
    hash_set_key(key);
    bench = b;
    b->kernel = sim_kernel_new(1, &none);
    b->conf.core.shutdown_grace_ms = 2000;
    b->protocols[0] = (struct roda_protocol){.name = "test",
                                             .framing = RODA_LINES,
                                             .variant_masks = b->masks,
                                             .opened = let_in,
                                             .decode = decode,
                                             .encode = encode,
                                             .answer = answer};
    memset(b->masks, 0xff, sizeof b->masks);
    for (unsigned i = 0; i < BENCH_PLUGINS; i++)
        b->plugins[i] = (struct roda_plugin){.abi = RODA_ABI,
                                             .size = sizeof(struct roda_plugin),
                                             .name = names[i],
                                             .protocol_size = sizeof(struct roda_protocol),
                                             .metric_size = sizeof(struct roda_metric),
                                             .service_size = sizeof(struct roda_service_table)};
    b->plugins[OWNER].state_size = sizeof(struct bench_worker);
    b->plugins[OWNER].conn_size = sizeof(struct bench_conn);
    b->plugins[OWNER].protocols = b->protocols;
    b->plugins[OWNER].kinds = ~UINT64_C(1);
    b->plugins[OWNER].handle = handle;
    b->plugins[OWNER].arrive = arrive;
    b->plugins[OWNER].distributed = distributed;
    b->plugins[OWNER].opened = opened;
    b->plugins[OWNER].closed = closed;
    b->plugins[OWNER].stop = stop;
    b->broker = must_alloc(sizeof *b->broker);
    b->broker->system = sim_system(b->kernel);
    b->broker->conf = &b->conf;
    b->broker->n_workers = n_workers;
    b->broker->sq_entries = 256;
    b->broker->cq_entries = 1024;
    b->broker->limits = (struct net_limits){.max_connections = BENCH_CONNECTIONS,
                                            .send_queues_bytes = 64u << 20,
                                            .send_queues_share = 64u << 20,
                                            .linger_ms = 100,
                                            .receive_buffers = 64,
                                            .receive_buffer_bytes = 2048};
    b->settings = b->broker->settings = must_alloc(sizeof *b->settings);
    b->broker->n_settings = 1;
    *b->settings = (struct listener_settings){.name = "test",
                                              .transport = TRANSPORT_TCP,
                                              .protocol = &b->protocols[0],
                                              .protocol_instance = 1 + OWNER,
                                              .unit_max_bytes = 8000,
                                              .send_queue_bytes = 4u << 20,
                                              .receive_queue_bytes = 4096,
                                              .max_delay_ms = 10000};
}

static void make_host(void)
{
    struct broker *b = bench->broker;
    struct host *host = must_alloc(sizeof *host);
    char problem[256];

    host->plugins = must_alloc(BENCH_PLUGINS * sizeof *host->plugins);
    host->start_order = must_alloc(BENCH_PLUGINS * sizeof *host->start_order);
    host->n_plugins = BENCH_PLUGINS;
    for (uint32_t i = 0; i < BENCH_PLUGINS; i++) {
        host->plugins[i].loaded.plugin = bench->plugins[i];
        host->plugins[i].loaded.name = bench->plugins[i].name;
        host->plugins[i].instance = i + 1;
        host->start_order[i] = i;
    }
    b->host = host;
    assert_int_equal(host_init(host, b->n_workers, problem, sizeof problem), 0);
}

static void make_settings(void)
{
    uint32_t *offsets = must_alloc((BENCH_PLUGINS + 1) * sizeof *offsets), bytes = 0;

    offsets[0] = UINT32_MAX;
    for (unsigned i = 0; i < BENCH_PLUGINS; i++) {
        offsets[i + 1] = bench->plugins[i].conn_size ? bytes : UINT32_MAX;
        bytes += (bench->plugins[i].conn_size + 7u) & ~7u;
    }
    bench->settings->conn_data_bytes = bytes;
    bench->settings->data_offsets = offsets;
    bench->settings->confs = must_alloc((BENCH_PLUGINS + 1) * sizeof(void *));
}

static void make_listeners(void)
{
    struct broker *b = bench->broker;
    char problem[256];

    b->addresses = must_alloc(b->n_workers * sizeof *b->addresses);
    b->n_addresses = b->n_workers;
    for (uint32_t w = 0; w < b->n_workers; w++) {
        struct listener_address *a = &b->addresses[w];
        int fd;
        a->settings = bench->settings;
        a->address.v4.sin_family = AF_INET;
        a->address.v4.sin_port = htons((uint16_t)(PORT + w));
        a->address.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        a->address_len = sizeof a->address.v4;
        a->fds = must_alloc(b->n_workers * sizeof *a->fds);
        assert_int_equal(listener_bind(b->system, a, 1, problem, sizeof problem), 0);
        fd = a->fds[0];
        for (uint32_t i = 0; i < b->n_workers; i++)
            a->fds[i] = -1;
        a->fds[w] = fd; /* only that worker listens there */
    }
}

void bench_begin(void)
{
    struct broker *b = bench->broker;
    char problem[256];

    make_host();
    make_settings();
    make_listeners();
    b->workers = must_alloc(b->n_workers * sizeof *b->workers);
    assert_int_equal(mailboxes_new(b->n_workers, &b->mailboxes), 0);
    assert_int_equal(broker_make_workers(b, problem, sizeof problem), 0);
    for (uint32_t w = 0; w < b->n_workers; w++) {
        sim_turn_begin(bench->kernel, &b->workers[w].ring);
        assert_int_equal(worker_enable(&b->workers[w], problem, sizeof problem), 0);
        sim_turn_end(bench->kernel, &b->workers[w].ring);
    }
}

void bench_start(void)
{
    bench_begin();
    bench_settle();
    assert_true(broker_running(bench->broker));
}

void bench_end(void)
{
    struct broker *b = bench->broker;

    memory_fail_at(0, 0);
    broker_stop(b, false);
    bench_settle();
    for (unsigned i = 0; i < 100 && !broker_ended(b); i++)
        bench_pass(100);
    assert_true(broker_ended(b));
    bench_settle();
    for (uint32_t w = 0; w < b->n_workers; w++) {
        assert_true(bench->ended[w]);
        assert_int_equal(b->workers[w].net.open, 0);
        assert_int_equal(b->workers[w].bus.counters.under_way, 0);
        assert_int_equal(b->workers[w].bus.counters.lanes_length, 0);
        for (uint32_t i = 0; i < b->workers[w].net.used_slots; i++)
            assert_null(b->workers[w].net.slots[i].conn);
    }
    broker_free(b); /* the slabs assert that all objects are back */
    bus_set_current(NULL);
    assert_int_equal(sim_descriptors(bench->kernel), 0);
    assert_null(sim_violation(bench->kernel));
    sim_kernel_free(bench->kernel);
    free(bench);
    bench = NULL;
}

struct worker *bench_worker(uint32_t w)
{
    return &bench->broker->workers[w];
}

struct bus *bench_bus(uint32_t w)
{
    return &bench->broker->workers[w].bus;
}

struct roda_ctx *bench_ctx(uint32_t w, unsigned plugin)
{
    return &bench_bus(w)->contexts[plugin + 1]->public;
}

/* ---- driving ---------------------------------------------------------------------------- */

void bench_turn(uint32_t w)
{
    struct worker *worker = bench_worker(w);

    sim_turn_begin(bench->kernel, &worker->ring);
    if (!worker_turn(worker, true))
        bench->ended[w] = true;
    sim_turn_end(bench->kernel, &worker->ring);
    if (sim_violation(bench->kernel))
        fail_msg("worker %u: %s", w, sim_violation(bench->kernel));
    (void)sim_advance_to(bench->kernel, sim_now_ns(bench->kernel) + 2000);
}

void bench_as(uint32_t w)
{
    bus_set_current(bench_bus(w));
}

void bench_done(uint32_t w)
{
    bench_turn(w);
    bench_settle();
}

static bool step(uint64_t until_ns)
{
    uint64_t next_ns;

    for (uint32_t w = 0; w < bench->broker->n_workers; w++)
        if (!bench->ended[w] && sim_ring_ready(bench->kernel, &bench_worker(w)->ring)) {
            bench_turn(w);
            return true;
        }
    next_ns = sim_next_event_ns(bench->kernel);
    return next_ns <= until_ns && sim_advance_to(bench->kernel, next_ns);
}

void bench_settle(void)
{
    for (unsigned i = 0; step(sim_now_ns(bench->kernel) + HORIZON_NS); i++)
        if (i == STEPS_MAX)
            fail_msg("somebody is busy without end");
}

void bench_pass(uint64_t ms)
{
    uint64_t until_ns = sim_now_ns(bench->kernel) + ms * 1000000;

    for (unsigned i = 0; sim_now_ns(bench->kernel) < until_ns && step(until_ns); i++)
        if (i == STEPS_MAX)
            fail_msg("somebody is busy without end");
    (void)sim_advance_to(bench->kernel, until_ns);
    bench_settle();
}

uint64_t bench_now_ms(void)
{
    return sim_now_ns(bench->kernel) / 1000000;
}

/* ---- clients ---------------------------------------------------------------------------- */

struct bench_client *bench_connect_only(uint32_t w)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)(PORT + w)),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct bench_client *c = calloc(1, sizeof *c);

    assert_non_null(c);
    c->end = sim_connect(bench->kernel, (struct sockaddr *)&to, sizeof to, NULL, 0, 1000);
    return c;
}

struct bench_client *bench_connect(uint32_t w)
{
    struct bench_client *c = bench_connect_only(w);

    bench_settle();
    return c;
}

struct roda_conn *bench_conn(uint32_t w)
{
    struct bench_worker *state = bench_state(w);

    return state->n_conns ? state->conns[state->n_conns - 1] : NULL;
}

void bench_say(struct bench_client *c, const char *fmt, ...)
{
    static char line[1u << 20];
    va_list args;
    size_t len, done = 0;

    va_start(args, fmt);
    len = (size_t)vsnprintf(line, sizeof line - 1, fmt, args);
    va_end(args);
    assert_true(len < sizeof line - 1);
    line[len++] = '\n';
    while (done < len) {
        int n = sim_client_write(c->end, line + done, len - done);
        if (n < 0)
            return; /* the broker closed it */
        done += (size_t)n;
        if (done < len)
            bench_settle();
    }
}

void bench_read(struct bench_client *c)
{
    int n;

    while (c->end && !c->over &&
           (n = sim_client_read(c->end, c->in + c->len, sizeof c->in - 1 - c->len)) != -EAGAIN) {
        if (n <= 0)
            c->over = true;
        else
            c->len += (size_t)n;
        assert_true(c->len < sizeof c->in - 1);
    }
    c->in[c->len] = '\0';
}

/* All that is on its way: a reader that takes makes room for more. */
static void read_all(struct bench_client *c)
{
    size_t before;

    do {
        before = c->len;
        bench_settle();
        bench_read(c);
    } while (c->len > before);
}

void bench_expect(struct bench_client *c, const char *text)
{
    read_all(c);
    assert_string_equal(c->in, text);
    c->len = 0;
    c->in[0] = '\0';
}

unsigned bench_count(struct bench_client *c, const char *beginning)
{
    unsigned n = 0;

    read_all(c);
    for (char *line = c->in; line && *line;) {
        n += !strncmp(line, beginning, strlen(beginning));
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    c->len = 0;
    c->in[0] = '\0';
    return n;
}

char *bench_line(struct bench_client *c)
{
    static char line[16384];
    char *end;

    bench_read(c);
    end = memchr(c->in, '\n', c->len);
    if (!end)
        return NULL;
    *end++ = '\0';
    assert_true((size_t)(end - c->in) < sizeof line);
    memcpy(line, c->in, (size_t)(end - c->in));
    c->len -= (size_t)(end - c->in);
    memmove(c->in, end, c->len + 1);
    return line;
}

void bench_close(struct bench_client *c)
{
    if (c->end)
        sim_client_close(c->end);
    c->end = NULL;
}

void bench_forget(struct bench_client *c)
{
    bench_close(c);
    free(c);
}

struct roda_msg *bench_msg(uint32_t w, uint32_t kind, const char *to, const char *text)
{
    struct roda_msg_init init = {.size = sizeof init,
                                 .kind = kind,
                                 .to = {to, strlen(to)},
                                 .text = {text, strlen(text)}};

    return roda_msg_make(bench_ctx(w, OWNER), &init, NULL);
}
