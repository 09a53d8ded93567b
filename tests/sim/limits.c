#include "limits.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"

/*
 * The limits of the plugin ratelimit, on the simulator's clock: the whole broker with ratelimit,
 * rooms and line, with one worker and with four, one limit on and all others off.
 *
 *   limits --seed S              one seed, told in detail with SIM_LOUD
 *   limits --runs N [--first S]  N seeds from S on
 *          [--limit NAME]        only this limit
 *
 * Everybody is quiet until all buckets are empty. Then a crowd begins to flood, for as long as a
 * full bucket takes to run empty sixteen times. Of each stream, which is what shares one bucket,
 * must hold:
 *
 *   burst   exactly the burst passes at once, which is before the next could
 *   rate    over three windows of five bursts each as much as the rate says, to a percent
 *   time    each single unit passes when the bucket has room for it, and not later
 *   whole   what is delayed comes completely and in order; what is refused is told the limit
 *   fair    connections that share an address pass the same number
 *   others  a talker from the same address, or from another one if addresses are what is limited,
 *           is answered without waiting
 *
 * address_connections is a level and no rate: there, never more than that are open, and exactly so
 * many after more than that came, also while others leave.
 *
 * Networks, of which two flood at once, are /24 of which the addresses are drawn. With several
 * workers each has some of a network's connections, or the test fails.
 *
 * Then the same load comes with the limit off, and everything must pass, more of it at once than
 * the burst: so a limit that is not held would be seen.
 *
 * registered_messages is not here: it needs accounts, which no protocol has yet. Its buckets are
 * those of address_messages under another key; tests/unit/ratelimit/test_flow.c looks at them.
 */

#define FLOOD_BURSTS     (1 + WINDOWS * WINDOW_BURSTS)
#define QUIET_NS         UINT64_C(10000000000)
#define SETTLE_NS        UINT64_C(200000000)
#define SOON_NS          UINT64_C(1000000000) /* in which all passes that is not limited */
#define FLOODERS         6u                   /* of a network, at least */
#define SHARING_FLOODERS 12u
#define LEVEL_ROUNDS     20u
#define STEPS_MAX        UINT64_C(50000000)

static const struct limit limits[] = {
    {"messages", "off", 20, 40, 1, LOAD_LINES, false},
    {"bytes", "off", 4096, 8192, 64, LOAD_LINES, false},
    {"address_messages", "off", 20, 40, 1, LOAD_LINES, true},
    {"room_messages", "off", 20, 40, 1, LOAD_ROOMS, false},
    {"joins", "off", 20, 40, 1, LOAD_JOINS, false},
    {"address_connects", "off", 20, 40, 1, LOAD_CONNECTS, true},
    {"address_connections", "0", 0, 24, 1, LOAD_OPEN, true},
};
#define LIMITS (sizeof limits / sizeof limits[0])

void limit_text(const struct limit *limit, char *buf, size_t size)
{
    if (limit->rate)
        (void)snprintf(buf, size, "%s = %u/s burst %u", limit->name, limit->rate, limit->burst);
    else
        (void)snprintf(buf, size, "%s = %u", limit->name, limit->burst);
}

void fail(struct world *w, const char *fmt, ...)
{
    va_list args;

    if (w->failed)
        return;
    w->failed = true;
    fprintf(stderr, "seed %" PRIu64 ", %u workers, %s %s, %.6f s: ", w->seed, w->n_workers,
            w->limit->name, w->on ? "on" : "off", (double)sim_now_ns(w->kernel) / 1e9);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

/* ---- driving ---------------------------------------------------------------------------- */

static void worker_step(struct world *w, struct worker *worker)
{
    const char *violation;

    whole_broker_turn(w->kernel, worker);
    violation = sim_violation(w->kernel);
    if (violation)
        fail(w, "worker %u: %s", worker->index, violation);
    (void)sim_advance_to(w->kernel, sim_now_ns(w->kernel) + 1000 + sim_random(w->kernel, 5000));
}

/* A worker that has something to do, some client, or, when no worker has, all clients and time. */
static void step(struct world *w, uint64_t until_ns)
{
    uint32_t ready[WHOLE_BROKER_WORKERS_MAX];
    uint32_t n = whole_broker_ready(w->kernel, w->broker, ready);
    uint64_t next_ns;

    if (n && sim_random(w->kernel, 4)) {
        worker_step(w, &w->broker->workers[ready[sim_random(w->kernel, n)]]);
    } else if (n) {
        if (w->n_clients)
            client_step(&w->clients[sim_random(w->kernel, w->n_clients)]);
    } else {
        crowd_step(w);
        next_ns = crowd_next_ns(w);
        if (sim_next_event_ns(w->kernel) < next_ns)
            next_ns = sim_next_event_ns(w->kernel);
        (void)sim_advance_to(w->kernel, next_ns < until_ns ? next_ns : until_ns);
    }
}

static void run_for(struct world *w, uint64_t ns)
{
    uint64_t until_ns = sim_now_ns(w->kernel) + ns;

    while (!w->failed && sim_now_ns(w->kernel) < until_ns)
        step(w, until_ns);
}

static bool run_until(struct world *w, bool (*done)(const struct world *w), const char *what)
{
    uint64_t steps = STEPS_MAX;

    while (!w->failed && !done(w)) {
        if (!steps--)
            fail(w, "never: %s", what);
        step(w, UINT64_MAX);
    }
    return !w->failed;
}

static bool is_running(const struct world *w)
{
    return broker_running(w->broker);
}

static bool has_ended(const struct world *w)
{
    return whole_broker_ended(w->broker);
}

/* ---- loads ------------------------------------------------------------------------------ */

static bool all_ready(const struct world *w)
{
    for (uint32_t i = 0; i < w->n_clients; i++)
        if (!w->clients[i].ready)
            return false;
    return true;
}

static bool everywhere(const struct world *w, uint32_t network)
{
    for (uint32_t i = 0; i < w->n_workers; i++)
        if (!w->on_worker[network][i])
            return false;
    return true;
}

/* At least n flooders of the network, and so many that each worker has some. */
static void gather(struct world *w, uint32_t network, uint32_t n)
{
    bool by_room = w->limit->load == LOAD_ROOMS;

    for (uint32_t i = 0; !w->failed && (i < n || !everywhere(w, network)); i++) {
        struct stream *stream = &w->streams[w->n_streams];
        if (w->n_streams + 2 > STREAMS_MAX) {
            fail(w, "of so many connections none is on some worker");
            return;
        }
        if (w->limit->by_address)
            stream = &w->streams[network];
        else
            w->n_streams += by_room ? 2 : 1;
        (void)client_connect(w, ROLE_FLOODER, network, stream);
        (void)run_until(w, all_ready, "a flooder is ready");
    }
}

/* How much of a flooder's input passes at once, and how many lines of it make a load. */
static void plan_lines(struct world *w, struct client *c, uint32_t n_sharing)
{
    const struct limit *limit = w->limit;
    uint64_t amount = 0, whole = (uint64_t)(FLOOD_BURSTS + 2) * limit->burst;

    if (limit->by_address) { /* whoever gets most of the burst has enough to go on, too */
        c->to_say = limit->burst + (uint32_t)whole / n_sharing;
        c->stream->burst = limit->burst;
        return;
    }
    for (c->to_say = 0; amount < whole; c->to_say++) {
        amount += line_amount(c, c->to_say);
        if (amount <= limit->burst)
            c->stream->burst = amount;
    }
}

static uint32_t count_flooders(const struct world *w, uint32_t network)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < w->n_clients; i++)
        n += w->clients[i].role == ROLE_FLOODER && w->clients[i].network == network;
    return n;
}

static void flood(struct world *w)
{
    const struct limit *limit = w->limit;
    bool lines = limit->load == LOAD_LINES || limit->load == LOAD_JOINS;

    run_for(w, QUIET_NS);
    w->flood_ns = w->talk_ns = sim_now_ns(w->kernel);
    for (uint32_t i = 0; i < w->n_streams; i++)
        w->streams[i].burst = limit->burst;
    for (uint32_t i = 0; i < w->n_clients && lines; i++)
        if (w->clients[i].role == ROLE_FLOODER)
            plan_lines(w, &w->clients[i], count_flooders(w, w->clients[i].network));
    if (!lines) {
        w->offer_ns = w->flood_ns;
        w->offer_until_ns = w->flood_ns + FLOOD_BURSTS * burst_ns(limit);
    }
    run_for(w, lines && !w->on ? SOON_NS : (FLOOD_BURSTS + 1) * burst_ns(limit));
    w->talk_ns = UINT64_MAX;
    if (lines && !w->on) {
        run_for(w, SETTLE_NS);
        if (!crowd_calm(w))
            fail(w, "not all passed within a second");
    }
    (void)run_until(w, crowd_calm, "all passed or was refused");
}

static void visit(struct world *w, uint32_t network, uint32_t n)
{
    w->streams[network].offered += n;
    while (n-- && !w->failed)
        if (!client_connect(w, ROLE_VISITOR, network, &w->streams[network]))
            fail(w, "too many visitors");
}

static void leave(struct world *w, uint32_t network)
{
    uint64_t n = sim_random(w->kernel, w->streams[network].open + 1);

    for (uint32_t i = 0; i < w->n_clients && n; i++) {
        struct client *c = &w->clients[i];
        if (!c->end || c->role != ROLE_VISITOR || c->network != network || c->leaving)
            continue;
        client_leave(c);
        n--;
    }
}

/* A level: so many are let in at once; then some leave while others come, which is never too many,
 * and it fills up again. */
static void fill(struct world *w)
{
    uint32_t level = w->limit->burst;

    w->flood_ns = w->talk_ns = sim_now_ns(w->kernel);
    for (uint32_t round = 0; round < LEVEL_ROUNDS && !w->failed; round++) {
        for (uint32_t network = 0; network < NETWORKS && round; network++) {
            leave(w, network);
            visit(w, network, (uint32_t)sim_random(w->kernel, level));
        }
        run_for(w, SETTLE_NS);
        for (uint32_t network = 0; network < NETWORKS; network++)
            visit(w, network, round ? level : 3 * level);
        run_for(w, SETTLE_NS);
        judge_level(w);
    }
    w->talk_ns = UINT64_MAX;
    (void)run_until(w, crowd_calm, "all are in or refused");
}

/* ---- a run ------------------------------------------------------------------------------ */

static void show_log(void *arg, uint32_t level, const char *source, const char *text)
{
    (void)arg;
    (void)level;
    fprintf(stderr, "  [%s] %s\n", source, text);
}

static size_t write_conf(const struct world *w, char *text, size_t size)
{
    char line[64];
    int n = snprintf(text, size,
                     "[core]\nworkers = %u\n[limits]\nmax_connections = 1000\nsend_queue = 8M\n"
                     "[listener tcp]\nport = 3000\naddress = 192.0.2.1\nprotocol = line\n"
                     "[plugin ratelimit]\nexempt =\nprefix_ipv4 = 24\nstart_grace = 0\n"
                     "kill_after = 0\nban_file =\nregistered_messages = off\n",
                     w->n_workers);

    limit_text(w->limit, line, sizeof line);
    for (size_t i = 0; i < LIMITS; i++)
        if (w->on && w->limit == &limits[i])
            n += snprintf(text + n, size - (size_t)n, "%s\n", line);
        else
            n += snprintf(text + n, size - (size_t)n, "%s = %s\n", limits[i].name, limits[i].off);
    n += snprintf(text + n, size - (size_t)n, "[plugin rooms]\n[plugin line]\n");
    return (size_t)n;
}

static void load(struct world *w, char *text, size_t size)
{
    const struct limit *limit = w->limit;
    bool visitors = limit->load == LOAD_CONNECTS || limit->load == LOAD_OPEN;

    w->talker = client_connect(w, ROLE_TALKER, limit->by_address ? NETWORKS : 0, NULL);
    if (!run_until(w, all_ready, "the talker is ready"))
        return;
    if (limit->by_address)
        w->n_streams = NETWORKS;
    for (uint32_t network = 0; network < (limit->by_address ? NETWORKS : 1) && !visitors; network++)
        gather(w, network, limit->by_address ? SHARING_FLOODERS : FLOODERS);
    for (uint32_t i = 0; i < STREAMS_MAX; i++)
        w->streams[i].earliest_ns = INT64_MAX;
    if (limit->load == LOAD_OPEN)
        fill(w);
    else
        flood(w);
    judge(w, text, size);
}

static void tell(const struct world *w, const char *text)
{
    char line[64];

    limit_text(w->limit, line, sizeof line);
    fprintf(stderr, "seed %" PRIu64 ", %u workers, %s: %s", w->seed, w->n_workers,
            w->on ? line : w->limit->name, w->on ? "" : "off, ");
    fprintf(stderr, "%s; another is answered within %.2f ms; connections by worker:", text,
            (double)w->slowest_answer_ns / 1e6);
    for (uint32_t i = 0; i < w->n_workers; i++)
        fprintf(stderr, " %u", w->on_worker[0][i] + w->on_worker[1][i]);
    fprintf(stderr, "\n");
}

static bool run_one(uint64_t seed, const struct limit *limit, uint32_t n_workers, bool on)
{
    static struct world world;
    struct world *w = &world;
    struct sim_faults none = sim_faults_none();
    uint8_t key[HASH_KEY_BYTES] = {(uint8_t)seed, (uint8_t)(seed >> 8)};
    char conf[1024], text[256] = "";

    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->limit = limit;
    w->n_workers = n_workers;
    w->on = on;
    w->loud = getenv("SIM_LOUD") != NULL;
    w->talk_ns = w->offer_ns = UINT64_MAX;
    hash_set_key(key);
    log_set_sink(w->loud ? show_log : NULL, NULL, RODA_LOG_DEBUG);
    w->kernel = sim_kernel_new(seed, &none);
    if (!whole_broker_new(w->kernel, conf, write_conf(w, conf, sizeof conf), &w->broker)) {
        fail(w, "the broker does not start");
        return false;
    }
    if (run_until(w, is_running, "the broker is ready"))
        load(w, text, sizeof text);
    w->ending = true;
    broker_stop(w->broker, false);
    if (!run_until(w, has_ended, "the broker has stopped"))
        return false;
    whole_broker_free(w->broker);
    if (sim_descriptors(w->kernel))
        fail(w, "%u descriptors are left open", sim_descriptors(w->kernel));
    tell(w, text);
    sim_kernel_free(w->kernel);
    return !w->failed;
}

static bool run(uint64_t seed, const char *name)
{
    static const uint32_t workers[] = {1, 4};
    bool ok = true;

    for (size_t i = 0; i < LIMITS; i++)
        for (size_t n = 0; n < 2 && (!name || !strcmp(name, limits[i].name)); n++)
            ok = run_one(seed, &limits[i], workers[n], true) &&
                 run_one(seed, &limits[i], workers[n], false) && ok;
    return ok;
}

static const char *limit_named(const char *name)
{
    for (size_t i = 0; i < LIMITS; i++)
        if (!strcmp(name, limits[i].name))
            return limits[i].name;
    fprintf(stderr, "no such limit: %s\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    uint64_t first = 1, runs = 1;
    const char *name = NULL;
    unsigned failures = 0;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seed"))
            first = strtoull(argv[i + 1], NULL, 0);
        else if (!strcmp(argv[i], "--runs"))
            runs = strtoull(argv[i + 1], NULL, 0);
        else if (!strcmp(argv[i], "--first"))
            first = strtoull(argv[i + 1], NULL, 0);
        else if (!strcmp(argv[i], "--limit"))
            name = limit_named(argv[i + 1]);
    }
    for (uint64_t s = first; s < first + runs && failures < 3; s++)
        if (!run(s, name)) {
            failures++;
            fprintf(stderr, "replay: limits --seed %" PRIu64 "\n", s);
        }
    fprintf(stderr, "%" PRIu64 " seeds from %" PRIu64 ", %u failed\n", runs, first, failures);
    return failures ? 1 : 0;
}
