#include "power_cut.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "whole_broker.h"

#include "base/hash.h"
#include "base/log.h"

/*
 * The log under power cuts: the whole broker with rooms, line and log on the fake kernel, several
 * lives of it on one fake disk, one seed.
 *
 *   power-cut --seed S                one run, told in detail with SIM_LOUD; SIM_LOG_COPY names a
 *                                     directory to which a failed one's segments are copied
 *   power-cut --runs N [--first S]    N seeds from S on; a failing one can be replayed
 *             [--scenario NAME]       power, kill, mixed, faults or flip for all of them
 *
 * A life of the broker: it starts; the reader asks for the history of every room, and the segments
 * are read beside it; a crowd talks; then it ends, at any step:
 *
 *   power   the power fails: what was not synced is there, or torn, or not
 *   kill    the process is killed: the page cache stays
 *   mixed   one or the other, or an end in order
 *           (of these two, some come while it is ending in order, people still talking)
 *   faults  in the middle the disk fails (EIO, fsync, full) and is well again later, without a
 *           restart: then durable rooms must take messages again
 *   flip    while the broker is down, bits turn over: the rest must be readable
 *
 * What must hold is in power_cut_book.c (what people are shown) and power_cut_files.c (what is
 * written). The configuration (workers, sync) is drawn anew for each life.
 *
 * A broker that was killed leaves its memory behind, so each seed is run by a child of its own.
 */

#define STEPS_TO_START UINT64_C(200000)
#define STEPS_TO_READ  UINT64_C(2000000)
#define STEPS_AFTER    UINT64_C(1000000)
#define SEED_SECONDS   120u
#define HEAL_NS        UINT64_C(30000000000)
#define SLOW_DISK_NS   UINT64_C(5000000000)
#define PAUSE_NS_MAX   UINT64_C(5000000)

static const char *const scenario_names[SCENARIOS] = {"power", "kill", "mixed", "faults", "flip"};

enum end { END_POWER, END_KILL, END_ORDER };

void fail(struct world *w, const char *fmt, ...)
{
    va_list args;

    if (w->failed)
        return;
    w->failed = true;
    fprintf(stderr, "seed %llu (%s), turn %llu, %.6f s: ", (unsigned long long)w->seed,
            scenario_names[w->scenario], (unsigned long long)w->turns,
            (double)sim_now_ns(w->kernel) / 1e9);
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
    w->turns++;
    violation = sim_violation(w->kernel);
    if (violation)
        fail(w, "worker %u: %s", worker->index, violation);
    (void)sim_advance_to(w->kernel, sim_now_ns(w->kernel) + 1000 + sim_random(w->kernel, 5000));
}

/* To what happens next, but not far: clients talk all the time. */
static bool let_time_pass(struct world *w)
{
    uint64_t next = sim_next_event_ns(w->kernel);
    uint64_t soon = sim_now_ns(w->kernel) + sim_random(w->kernel, PAUSE_NS_MAX);

    return sim_advance_to(w->kernel, next < soon ? next : soon);
}

/* One step: a worker with something to do, a client, or time. False: nothing can happen. */
static bool step(struct world *w)
{
    uint32_t ready[WHOLE_BROKER_WORKERS_MAX];
    uint32_t n = whole_broker_ready(w->kernel, w->broker, ready);

    if (n && sim_random(w->kernel, 3)) {
        worker_step(w, &w->broker->workers[ready[sim_random(w->kernel, n)]]);
        return true;
    }
    if (w->reader.end)
        client_step(w, &w->reader);
    if (w->n_clients && sim_random(w->kernel, 4))
        client_step(w, &w->clients[sim_random(w->kernel, w->n_clients)]);
    if (n)
        return true;
    return let_time_pass(w);
}

static bool run_until(struct world *w, bool (*done)(struct world *w), uint64_t steps,
                      const char *what)
{
    while (steps-- && !w->failed) {
        if (done(w))
            return true;
        if (!step(w))
            break;
    }
    if (!w->failed && !done(w)) {
        fail(w, "never: %s", what);
        sim_describe(w->kernel, stderr);
    }
    return !w->failed;
}

static bool is_running(struct world *w)
{
    return broker_running(w->broker);
}

static bool is_calm(struct world *w)
{
    return crowd_calm(w);
}

static bool is_read(struct world *w)
{
    return w->reader.done;
}

static bool has_ended(struct world *w)
{
    return whole_broker_ended(w->broker);
}

/* ---- the broker ------------------------------------------------------------------------- */

static void hear_log(void *arg, uint32_t level, const char *source, const char *text)
{
    struct world *w = arg;

    if (w->loud)
        fprintf(stderr, "  [%s] %s\n", source, text);
    w->warnings += level <= RODA_LOG_WARNING && strstr(source, "log");
}

static size_t draw_conf(struct world *w, char *text, size_t size)
{
    static const char *const modes[] = {"never", "interval", "always"};
    uint64_t dice = sim_random(w->kernel, 4);

    if (!w->same_sync || !w->lives) {
        w->sync = (uint32_t)sim_random(w->kernel, 3);
        w->sync_some = sim_random(w->kernel, 2);
    }
    return (
        size_t)snprintf(text, size,
                        "[core]\nworkers = %u\n[limits]\nmax_connections = 64\nsend_queue = 1M\n"
                        "[listener tcp]\nport = 3000\naddress = 127.0.0.1\nprotocol = line\n"
                        "[plugin log]\ndirectory = %s\nsegment_bytes = 1M\nsegment_age = %s\n"
                        "sync = %s\nsync_interval = 100ms\n%s[plugin rooms]\n[plugin line]\n",
                        (unsigned)(1 + sim_random(w->kernel, 3)), LOG_DIRECTORY,
                        dice == 0   ? "30ms"
                        : dice == 1 ? "300ms"
                                    : "1d",
                        modes[w->sync], w->sync_some ? "sync_rooms = always: ops, audit\n" : "");
}

static bool start_broker(struct world *w)
{
    char text[1024];
    size_t n = draw_conf(w, text, sizeof text);

    if (w->loud)
        fprintf(stderr, "%s", text);
    w->broker = NULL;
    w->warnings = 0;
    if (!whole_broker_new(w->kernel, text, n, &w->broker)) {
        fail(w, "the broker does not start");
        return false;
    }
    return run_until(w, is_running, STEPS_TO_START, "the broker is ready");
}

static void stop_in_order(struct world *w)
{
    w->quiet = true;
    if (!run_until(w, is_calm, STEPS_AFTER, "everybody has every answer"))
        return;
    broker_stop(w->broker, false);
    if (!run_until(w, has_ended, STEPS_AFTER, "the broker has stopped"))
        return;
    crowd_lost(w);
    whole_broker_free(w->broker);
    book_stopped(w);
    files_check(w, true);
}

/* It is told to stop, and does not get to the end of it, or just so. */
static void begin_to_stop(struct world *w)
{
    if (w->loud)
        fprintf(stderr, "  ---- told to stop\n");
    broker_stop(w->broker, false);
    for (uint64_t n = sim_random(w->kernel, 1 + sim_random(w->kernel, 3000)); n; n--) {
        if (w->failed || has_ended(w))
            break;
        (void)step(w);
    }
    if (has_ended(w)) {
        if (w->loud)
            fprintf(stderr, "  ---- stopped\n");
        crowd_lost(w);
        whole_broker_free(w->broker);
    }
}

/* A room that is durable and was heard again has its partition healed. */
static void mark_cache_only(struct world *w, enum end end)
{
    for (uint32_t i = 0; i < ROOMS; i++) {
        bool doubt = w->failed_storage && !(w->healed && is_durable(w, i));
        w->cache_only[i] = end != END_POWER && (w->cache_only[i] || doubt);
    }
}

static void end_life(struct world *w, enum end end)
{
    struct sim_faults none = sim_faults_none();

    mark_cache_only(w, end);
    sim_set_faults(w->kernel, &none);
    if (end != END_ORDER && !sim_random(w->kernel, 4))
        begin_to_stop(w);
    if (w->loud)
        fprintf(stderr, "  ---- %s\n",
                end == END_POWER  ? "power cut"
                : end == END_KILL ? "kill -9"
                                  : "end in order");
    if (end == END_ORDER) {
        stop_in_order(w);
        return;
    }
    w->power_failed = w->power_failed || end == END_POWER;
    if (end == END_POWER)
        sim_power_cut(w->kernel);
    else
        sim_process_kill(w->kernel);
    crowd_lost(w);
}

/* ---- a disk that fails ------------------------------------------------------------------ */

/* One kind of trouble, sometimes two: a run with everything at once shows little. */
static struct sim_faults draw_trouble(struct world *w)
{
    static const double rates[] = {1, 0.5, 0.1, 0.02};
    struct sim_faults f = sim_faults_none();

    for (uint64_t n = 1 + sim_random(w->kernel, 2); n; n--) {
        double rate = rates[sim_random(w->kernel, 4)];
        switch (sim_random(w->kernel, 5)) {
        case 0:
            f.write_eio = rate;
            break;
        case 1:
            f.sync_eio = rate;
            break;
        case 2:
            f.open_eio = rate;
            break;
        case 3:
            f.short_write = f.short_read = rate;
            break;
        default:
            f.disk_bytes = files_bytes(w) + sim_random(w->kernel, 20000);
            break;
        }
    }
    return f;
}

static bool all_accepted(struct world *w)
{
    for (uint32_t i = 0; i < ROOMS; i++)
        if (!w->accepted[i])
            return false;
    return true;
}

/* Others may still be told what was accepted before; this one has been told all of that. */
static void probe(struct world *w, struct client *c)
{
    w->prober = c->id;
    for (uint32_t i = 0; i < ROOMS; i++)
        if (!w->accepted[i])
            client_say(c, i);
}

/* The disk is well again: so must be the log, by itself and soon. */
static void heal(struct world *w)
{
    struct sim_faults none = sim_faults_none();
    uint64_t deadline;

    sim_set_faults(w->kernel, &none);
    deadline = sim_now_ns(w->kernel) + HEAL_NS;
    if (w->loud)
        fprintf(stderr, "  ---- the disk is well again\n");
    w->quiet = true;
    memset(w->accepted, 0, sizeof w->accepted);
    w->prober = LIVES_MAX;
    w->flood = false;
    while (!w->failed && !all_accepted(w)) {
        struct client *c = &w->clients[0];
        if (c->end && c->said > MESSAGES_MAX / 2)
            client_gone(c);
        if (!c->end)
            client_connect(w, c);
        else if (c->entered && c->answered == c->said)
            probe(w, c);
        if (!step(w) || sim_now_ns(w->kernel) > deadline)
            fail(w,
                 "the disk is well again, and the log is not (%d %d %d %d %d): client %u has said "
                 "%u and is answered %u",
                 w->accepted[0], w->accepted[1], w->accepted[2], w->accepted[3], w->accepted[4],
                 c->id, c->said, c->answered);
    }
    book_healed(w);
    w->healed = true;
    w->quiet = false;
}

static void trouble(struct world *w)
{
    struct sim_faults faults = draw_trouble(w);

    if (w->loud)
        fprintf(stderr, "  ---- the disk fails: write %g, sync %g, open %g, short %g, bytes %llu\n",
                faults.write_eio, faults.sync_eio, faults.open_eio, faults.short_write,
                (unsigned long long)faults.disk_bytes);
    w->failed_storage = w->ever_failed = true;
    sim_set_faults(w->kernel, &faults);
    for (uint64_t n = 200 + sim_random(w->kernel, 4000); n && !w->failed; n--)
        (void)step(w);
    if (!sim_random(w->kernel, 4)) { /* it ends before that */
        end_life(w, sim_random(w->kernel, 2) ? END_POWER : END_KILL);
        w->broker = NULL;
        return;
    }
    heal(w);
    for (uint64_t n = sim_random(w->kernel, 2000); n && !w->failed; n--)
        (void)step(w);
}

/* ---- a run ------------------------------------------------------------------------------ */

static void crowd_talks(struct world *w)
{
    struct sim_faults mild = sim_faults_none();

    mild.short_write = sim_random(w->kernel, 2) ? 0.3 : 0;
    mild.short_read = sim_random(w->kernel, 2) ? 0.3 : 0;
    w->quiet = false;
    w->heavy = !sim_random(w->kernel, 4);
    w->flood = !w->heavy && !sim_random(w->kernel, 24);
    w->flooded = w->flooded || w->flood;
    if (w->flood) /* more is said than may be shown before it is synced */
        mild.disk_max_ns = SLOW_DISK_NS;
    sim_set_faults(w->kernel, &mild);
    w->n_clients = 2 + (uint32_t)sim_random(w->kernel, CLIENTS_MAX - 1);
    for (uint64_t n = sim_random(w->kernel, w->flood ? 60000 : 6000); n && !w->failed; n--)
        (void)step(w);
}

static enum end draw_end(struct world *w)
{
    switch (w->scenario) {
    case SCENARIO_POWER:
        return END_POWER;
    case SCENARIO_KILL:
        return END_KILL;
    default:
        return (enum end)sim_random(w->kernel, 3);
    }
}

/* Starts, and looks at what is there. */
static bool begin_life(struct world *w, bool hit_newest)
{
    w->failed_storage = w->healed = false;
    w->n_clients = 0;
    if (!start_broker(w))
        return false;
    if (hit_newest && !w->warnings)
        fail(w, "a newest segment was damaged, and the start says nothing");
    book_life(w);
    w->quiet = true;
    reader_begin(w);
    if (!run_until(w, is_read, STEPS_TO_READ, "all history is read"))
        return false;
    client_gone(&w->reader);
    files_check(w, false);
    return !w->failed;
}

static void run_lives(struct world *w)
{
    bool hit_newest = false;

    for (uint64_t lives = 2 + sim_random(w->kernel, 4); lives; lives--) {
        if (!begin_life(w, hit_newest))
            return;
        hit_newest = false;
        crowd_talks(w);
        if (w->scenario == SCENARIO_FAULTS && !w->failed)
            trouble(w);
        if (w->failed)
            return;
        if (w->broker)
            end_life(w, draw_end(w));
        if (w->scenario == SCENARIO_FLIP && !w->failed && sim_random(w->kernel, 2))
            hit_newest = files_spoil(w);
    }
    if (begin_life(w, hit_newest))
        end_life(w, END_ORDER);
}

static bool run(uint64_t seed, int scenario, bool loud)
{
    static struct world world;
    struct world *w = &world;
    struct sim_faults none = sim_faults_none();
    uint8_t key[HASH_KEY_BYTES] = {(uint8_t)seed, (uint8_t)(seed >> 8)};

    w->seed = seed;
    w->loud = loud;
    hash_set_key(key);
    w->kernel = sim_kernel_new(seed, &none);
    w->scenario =
        scenario >= 0 ? (enum scenario)scenario : (enum scenario)sim_random(w->kernel, SCENARIOS);
    w->same_sync = sim_random(w->kernel, 2);
    log_set_sink(hear_log, w, loud ? RODA_LOG_DEBUG : RODA_LOG_WARNING);
    run_lives(w);
    if (w->failed && getenv("SIM_LOG_COPY"))
        files_copy(w, getenv("SIM_LOG_COPY"));
    if (loud)
        fprintf(stderr, "seed %llu: %llu turns, %llu seen, %llu refused\n",
                (unsigned long long)seed, (unsigned long long)w->turns,
                (unsigned long long)w->book.seen, (unsigned long long)w->book.refused);
    return !w->failed;
}

static bool run_apart(uint64_t seed, int scenario)
{
    int status;
    pid_t child;

    fflush(NULL);
    child = fork();
    if (child < 0)
        return false;
    if (!child) {
        (void)alarm(SEED_SECONDS);
        _exit(run(seed, scenario, false) ? 0 : 1);
    }
    if (waitpid(child, &status, 0) != child)
        return false;
    if (WIFSIGNALED(status))
        fprintf(stderr, "seed %llu: ended by signal %d\n", (unsigned long long)seed,
                WTERMSIG(status));
    return WIFEXITED(status) && !WEXITSTATUS(status);
}

static int scenario_of(const char *name)
{
    for (int i = 0; i < (int)SCENARIOS; i++)
        if (!strcmp(name, scenario_names[i]))
            return i;
    fprintf(stderr, "no such scenario: %s\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    uint64_t seed = 0, first = 1, runs = 1;
    unsigned failures = 0;
    int scenario = -1;
    bool one = false;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seed")) {
            seed = strtoull(argv[i + 1], NULL, 0);
            one = true;
        } else if (!strcmp(argv[i], "--runs")) {
            runs = strtoull(argv[i + 1], NULL, 0);
        } else if (!strcmp(argv[i], "--first")) {
            first = strtoull(argv[i + 1], NULL, 0);
        } else if (!strcmp(argv[i], "--scenario")) {
            scenario = scenario_of(argv[i + 1]);
        }
    }
    if (one)
        _exit(run(seed, scenario, getenv("SIM_LOUD") != NULL) ? 0 : 1);
    for (uint64_t s = first; s < first + runs && failures < 3; s++)
        if (!run_apart(s, scenario)) {
            failures++;
            fprintf(stderr, "replay: power-cut --seed %llu%s%s\n", (unsigned long long)s,
                    scenario < 0 ? "" : " --scenario ",
                    scenario < 0 ? "" : scenario_names[scenario]);
        }
    fprintf(stderr, "%llu seeds from %llu, %u failed\n", (unsigned long long)runs,
            (unsigned long long)first, failures);
    return failures ? 1 : 0;
}
