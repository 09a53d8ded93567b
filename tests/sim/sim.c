#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "whole_broker.h"

#include "base/hash.h"
#include "base/log.h"

/*
 * The whole broker on the fake kernel: real workers, real plugins, a crowd of clients, one seed.
 *
 *   sim --seed S            one run, told in detail
 *   sim --runs N [--first S]  N seeds from S on; a failing one is printed and can be replayed
 *
 * Each step draws whose turn it is: a worker that has something to do, a client, or time. After
 * each worker's turn the engine's books are compared with the fake kernel's; clients check what
 * they receive against what the documents promise:
 *
 *   - in the lobby a client sees every number from its first one on, without a gap, its own
 *     messages' numbers among them; every number means the same message to everybody
 *   - one sender's messages come in the order they were sent
 *   - every message is answered exactly once, and /ping only after all before it
 *
 * In the end faults stop, everybody reads what is left, leaves, and the broker stops: nothing may
 * be left over.
 */

#define CLIENTS_MAX       12u
#define MESSAGES_MAX      20000u
#define ROOMS             3u
#define STEPS_WITH_FAULTS 12000u
#define STEPS_AFTER       400000u

static const char *const room_names[ROOMS] = {"lobby", "red", "blue"};

struct seen { /* what a number of the lobby means */
    uint32_t client, sequence;
};

struct client {
    struct world *world;
    struct sim_client *end; /* NULL: not connected */
    uint32_t id;            /* of this life; a client that comes back is another one */
    bool welcomed, numbered, leaving, sluggish;
    char in[65536];
    size_t in_len;
    char out[8192];
    size_t out_len;
    uint32_t said, answered; /* messages sent, answers received */
    uint32_t pinged_at;      /* said when /ping was sent; ping_pending */
    bool ping_pending;
    uint64_t number;     /* last of the lobby */
    uint64_t must_know;  /* world.known when /ping was sent */
    uint64_t own_number; /* the last of its own in the lobby */
    bool in_room[ROOMS];
    uint32_t last_from[256]; /* per life of a sender: its last sequence seen in the lobby */
};

struct world {
    uint64_t seed;
    struct sim_kernel *kernel;
    struct broker *broker;
    struct client clients[CLIENTS_MAX];
    uint32_t n_clients, lives;
    bool faults, ending;
    struct seen lobby[MESSAGES_MAX];
    uint64_t lobby_max;
    /* The highest number whose sender has had a later /ping answered: whoever asks /ping from now
     * on has it before the answer. */
    uint64_t known;
    uint64_t turns, messages;
    bool failed;
    bool loud;
};

static void fail(struct world *w, const char *fmt, ...)
{
    va_list args;

    if (w->failed)
        return;
    w->failed = true;
    fprintf(stderr, "seed %llu, turn %llu, %.6f s: ", (unsigned long long)w->seed,
            (unsigned long long)w->turns, (double)sim_now_ns(w->kernel) / 1e9);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

/* ---- clients ---------------------------------------------------------------------------- */

static void client_send(struct client *c, const char *fmt, ...)
{
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(c->out + c->out_len, sizeof c->out - c->out_len, fmt, args);
    va_end(args);
    if (n > 0 && (size_t)n < sizeof c->out - c->out_len)
        c->out_len += (size_t)n;
}

static void client_connect(struct world *w, struct client *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(3000)};

    memset(c, 0, sizeof *c);
    c->world = w;
    if (w->lives == 256)
        return;
    c->id = w->lives++;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->end = sim_connect(w->kernel, (struct sockaddr *)&to, sizeof to, NULL, 0, 1000);
}

static void client_gone(struct client *c)
{
    sim_client_close(c->end);
    c->end = NULL;
}

/* Numbers of the lobby, one's own and others', must follow each other. */
static void see_number(struct client *c, uint64_t number, uint32_t from, uint32_t sequence)
{
    struct world *w = c->world;

    if (c->number && number != c->number + 1)
        fail(w, "client %u: number %llu of the lobby comes after %llu", c->id,
             (unsigned long long)number, (unsigned long long)c->number);
    c->number = number;
    if (number >= MESSAGES_MAX)
        return;
    if (number > w->lobby_max)
        w->lobby_max = number;
    if (!w->lobby[number].sequence)
        w->lobby[number] = (struct seen){from, sequence};
    else if (w->lobby[number].client != from || w->lobby[number].sequence != sequence)
        fail(w, "client %u: number %llu is %u/%u for it and %u/%u for another", c->id,
             (unsigned long long)number, from, sequence, w->lobby[number].client,
             w->lobby[number].sequence);
}

/* An answer to the oldest message that has none. Its text is known by its place. */
static void see_answer(struct client *c, const char *line)
{
    unsigned long long number;
    char room[80];

    c->answered++;
    if (c->answered > c->said)
        fail(c->world, "client %u: more answers than messages: %s", c->id, line);
    if (sscanf(line, "* %llu %79s", &number, room) == 2 && !strcmp(room, "lobby"))
        see_number(c, number, c->id, c->answered);
    c->own_number = c->number;
}

static void see_line(struct client *c, const char *line)
{
    struct world *w = c->world;
    unsigned long long number;
    unsigned from, sequence;
    char room[80], nick[80];

    if (w->loud)
        fprintf(stderr, "  %u< %s\n", c->id, line);
    if (sscanf(line, "%llu %79s %79s m%u/%u", &number, room, nick, &from, &sequence) == 5) {
        w->messages++;
        if (from >= 256 || strcmp(room, "lobby"))
            return;
        if (c->numbered)
            see_number(c, number, from, sequence);
        if (sequence <= c->last_from[from])
            fail(w, "client %u: %u/%u after %u of the same sender", c->id, from, sequence,
                 c->last_from[from]);
        c->last_from[from] = sequence;
    } else if (!strncmp(line, "* you are guest", 15)) {
        c->welcomed = true;
        c->in_room[0] = true;
        client_send(c, "/numbers on\n");
    } else if (!strcmp(line, "* numbers are on")) {
        c->numbered = true;
    } else if (!strncmp(line, "* pong", 6)) {
        if (!c->ping_pending)
            fail(w, "client %u: a pong nobody asked for", c->id);
        if (c->answered < c->pinged_at)
            fail(w, "client %u: pong after %u answers, but %u messages went before it", c->id,
                 c->answered, c->pinged_at);
        if (c->number && c->number < c->must_know)
            fail(w, "client %u: pong at number %llu, but %llu was known before /ping", c->id,
                 (unsigned long long)c->number, (unsigned long long)c->must_know);
        if (c->own_number > w->known)
            w->known = c->own_number;
        c->ping_pending = false;
    } else if (sscanf(line, "* %llu %79s", &number, room) == 2) {
        see_answer(c, line);
    }
}

static void client_read(struct client *c)
{
    int n;

    while (c->end && (n = sim_client_read(c->end, c->in + c->in_len,
                                          sizeof c->in - 1 - c->in_len)) != -EAGAIN) {
        char *line = c->in, *end;
        if (n <= 0) {
            client_gone(c);
            return;
        }
        c->in_len += (size_t)n;
        c->in[c->in_len] = '\0';
        for (; (end = memchr(line, '\n', c->in_len - (size_t)(line - c->in))); line = end + 1) {
            *end = '\0';
            see_line(c, line);
        }
        c->in_len -= (size_t)(line - c->in);
        memmove(c->in, line, c->in_len);
        if (c->sluggish)
            return;
    }
}

static void client_write(struct client *c)
{
    int n;

    if (!c->end || !c->out_len || sim_client_state(c->end) != SIM_CONNECTED)
        return;
    n = sim_client_write(c->end, c->out, c->out_len);
    if (n <= 0)
        return;
    c->out_len -= (size_t)n;
    memmove(c->out, c->out + n, c->out_len);
}

static void client_act(struct world *w, struct client *c)
{
    uint64_t what = sim_random(w->kernel, 100);

    if (!c->numbered || c->leaving || c->out_len > 4096)
        return;
    if (what < 55) {
        unsigned burst = 1 + (unsigned)sim_random(w->kernel, 12);
        while (burst--)
            client_send(c, "m%u/%u\n", c->id, ++c->said);
    } else if (what < 67) {
        if (!c->ping_pending) {
            c->ping_pending = true;
            c->pinged_at = c->said;
            c->must_know = w->known;
            client_send(c, "/ping\n");
        }
    } else if (what < 75) {
        client_send(c, "/nick n%u%c\n", c->id, 'a' + (int)sim_random(w->kernel, 26));
    } else if (what < 82) {
        client_send(c, "/join %s\n/room lobby\n", room_names[1 + sim_random(w->kernel, 2)]);
    } else if (what < 86) {
        client_send(c, "/part %s\n", room_names[1 + sim_random(w->kernel, 2)]);
    } else if (what < 90) {
        client_send(c, "/who lobby\n");
    } else if (what < 93) {
        client_send(c, "/away %s\n", sim_random(w->kernel, 2) ? "tea" : "");
    } else if (what < 95) {
        c->sluggish = !c->sluggish;
    } else if (what < 96) {
        client_send(c, "no text \xc3\x28\n");
    } else if (what < 97) {
        sim_client_shutdown(c->end);
        c->leaving = true;
    } else if (what < 98) {
        sim_client_reset(c->end);
        c->end = NULL;
    } else if (what < 99) {
        client_gone(c);
    } else {
        client_send(c, "/quit bye\n");
        c->leaving = true;
    }
}

static void client_step(struct world *w, struct client *c)
{
    if (!c->end) {
        if (!w->ending && !sim_random(w->kernel, 20))
            client_connect(w, c);
        return;
    }
    if (sim_client_state(c->end) == SIM_REFUSED) {
        client_gone(c);
        return;
    }
    if (!c->sluggish || !sim_random(w->kernel, 30))
        client_read(c);
    if (c->end && !w->ending && !sim_random(w->kernel, 4))
        client_act(w, c);
    if (c->end)
        client_write(c);
}

/* ---- invariants ------------------------------------------------------------------------- */

struct count {
    struct worker *worker;
    uint32_t in_flight[1024];
};

static void count_request(void *arg, const struct sim_request *request)
{
    struct count *count = arg;
    unsigned kind = (unsigned)(request->user_data >> 56);
    uint32_t slot = (uint32_t)request->user_data;

    if (request->ring != &count->worker->ring || slot >= 1024)
        return;
    if (kind == RING_RECV || kind == RING_SEND || kind == RING_CANCEL)
        count->in_flight[slot]++;
}

static void check_worker(struct world *w, struct worker *worker)
{
    static struct count count;
    struct net *net = &worker->net;
    const char *violation = sim_violation(w->kernel);
    unsigned free_buffers, lent;

    if (violation)
        fail(w, "worker %u: %s", worker->index, violation);
    memset(&count, 0, sizeof count);
    count.worker = worker;
    sim_each_request(w->kernel, count_request, &count);
    for (uint32_t i = 0; i < net->used_slots && i < 1024; i++) {
        const struct roda_conn *c = net->slots[i].conn;
        uint32_t in_flight = c ? c->in_flight : 0;
        if (in_flight != count.in_flight[i])
            fail(w, "worker %u, slot %u: in_flight is %u, the kernel knows %u", worker->index, i,
                 in_flight, count.in_flight[i]);
        if (!c)
            continue;
        if (c->state == CONNECTION_GONE && c->in_flight)
            fail(w, "worker %u, slot %u: gone with requests in flight", worker->index, i);
        if (c->queued_bytes > c->limit_bytes + 65536 && c->state == CONNECTION_OPEN)
            fail(w, "worker %u, slot %u: %u bytes queued, limit %u", worker->index, i,
                 c->queued_bytes, c->limit_bytes);
        if (c->under_way > BUS_UNDER_WAY_MAX)
            fail(w, "worker %u, slot %u: %u messages under way", worker->index, i, c->under_way);
    }
    if (sim_buffers(w->kernel, &worker->ring, 1, &free_buffers, &lent) &&
        free_buffers + lent != net->limits->receive_buffers)
        fail(w, "worker %u: %u buffers free and %u lent of %u", worker->index, free_buffers, lent,
             net->limits->receive_buffers);
    if (worker->ring.counters.stale)
        fail(w, "worker %u: a stale completion", worker->index);
}

/* ---- driving ---------------------------------------------------------------------------- */

static void worker_step(struct world *w, struct worker *worker)
{
    whole_broker_turn(w->kernel, worker);
    w->turns++;
    check_worker(w, worker);
    (void)sim_advance_to(w->kernel, sim_now_ns(w->kernel) + 1000 + sim_random(w->kernel, 5000));
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
    if (w->n_clients && sim_random(w->kernel, 4)) {
        client_step(w, &w->clients[sim_random(w->kernel, w->n_clients)]);
        if (n)
            return true;
    }
    if (n)
        return true;
    return sim_advance_to(w->kernel, sim_next_event_ns(w->kernel)) || w->n_clients;
}

static void describe_broker(struct world *w)
{
    for (uint32_t i = 0; i < w->broker->n_workers; i++) {
        const struct net *net = &w->broker->workers[i].net;
        for (uint32_t s = 0; s < net->used_slots; s++) {
            const struct roda_conn *c = net->slots[s].conn;
            if (c)
                fprintf(stderr,
                        "  worker %u, slot %u: state %u, flags %x, waits %x, holds %u, answers %u, "
                        "under way %u, queued %u, in flight %u\n",
                        i, s, c->state, c->flags, c->waits, c->holds, c->answers, c->under_way,
                        c->queued_bytes, c->in_flight);
        }
    }
    for (uint32_t i = 0; i < w->n_clients; i++)
        if (w->clients[i].end)
            fprintf(stderr, "  client %u: said %u, answered %u, ping %d, number %llu of %llu\n",
                    w->clients[i].id, w->clients[i].said, w->clients[i].answered,
                    w->clients[i].ping_pending, (unsigned long long)w->clients[i].number,
                    (unsigned long long)w->lobby_max);
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
        describe_broker(w);
    }
    return false;
}

static bool is_running(struct world *w)
{
    return broker_running(w->broker);
}

/* Everybody who is still there has all answers and the last number of the lobby. */
static bool is_calm(struct world *w)
{
    for (uint32_t i = 0; i < w->n_clients; i++) {
        struct client *c = &w->clients[i];
        if (!c->end)
            continue;
        c->sluggish = false;
        if (c->out_len || c->answered != c->said || c->ping_pending ||
            (c->number && c->number != w->lobby_max) || (c->leaving))
            return false;
    }
    return true;
}

static bool is_empty(struct world *w)
{
    for (uint32_t i = 0; i < w->broker->n_workers; i++) {
        const struct worker *worker = &w->broker->workers[i];
        if (worker->net.open || worker->bus.counters.under_way || worker->bus.counters.lanes_length)
            return false;
        for (uint32_t s = 0; s < worker->net.used_slots; s++)
            if (worker->net.slots[s].conn)
                return false;
    }
    return true;
}

static bool has_ended(struct world *w)
{
    return whole_broker_ended(w->broker);
}

/* ---- a run ------------------------------------------------------------------------------ */

static void show_log(void *arg, uint32_t level, const char *source, const char *text)
{
    (void)arg;
    (void)level;
    fprintf(stderr, "  [%s] %s\n", source, text);
}

static bool start_broker(struct world *w)
{
    char text[512];
    int n =
        snprintf(text, sizeof text,
                 "[core]\nworkers = %u\n[limits]\nmax_connections = 64\nsend_queue = %s\n"
                 "receive_queue = 4k\n[listener tcp]\nport = 3000\naddress = 127.0.0.1\n"
                 "protocol = line\n[plugin rooms]\npresence_up_to = %u\n[plugin line]\n",
                 (unsigned)(1 + sim_random(w->kernel, 3)), sim_random(w->kernel, 2) ? "256k" : "8k",
                 (unsigned)(sim_random(w->kernel, 2) ? 200 : 3));

    if (!whole_broker_new(w->kernel, text, (size_t)n, &w->broker))
        fail(w, "the broker does not start");
    return !w->failed;
}

static void leave_all(struct world *w)
{
    for (uint32_t i = 0; i < w->n_clients; i++)
        if (w->clients[i].end)
            client_gone(&w->clients[i]);
}

static bool run(uint64_t seed, bool loud)
{
    static struct world world;
    struct world *w = &world;
    struct sim_faults none = sim_faults_none(), faults = sim_faults_draw(seed);
    uint8_t key[HASH_KEY_BYTES] = {(uint8_t)seed, (uint8_t)(seed >> 8)};
    uint64_t done;

    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->loud = loud;
    hash_set_key(key);
    log_set_sink(loud ? show_log : NULL, NULL, RODA_LOG_DEBUG);
    w->kernel = sim_kernel_new(seed, &none);
    if (start_broker(w) && run_until(w, is_running, 10000, "the broker is ready")) {
        w->n_clients = 3 + (uint32_t)sim_random(w->kernel, CLIENTS_MAX - 2);
        sim_set_faults(w->kernel, &faults);
        w->faults = true;
        for (uint64_t i = 0; i < STEPS_WITH_FAULTS && !w->failed; i++)
            (void)step(w);
        w->ending = true;
        sim_faults_stop(w->kernel);
        sim_set_descriptors(w->kernel, 0);
        (void)run_until(w, is_calm, STEPS_AFTER, "everybody has read everything");
        leave_all(w);
        (void)run_until(w, is_empty, STEPS_AFTER, "nothing is left of clients that have gone");
        broker_stop(w->broker, false);
        (void)run_until(w, has_ended, STEPS_AFTER, "the broker has stopped");
    }
    done = sim_faults_done(w->kernel);
    if (!w->failed) {
        whole_broker_free(w->broker);
        if (sim_descriptors(w->kernel))
            fail(w, "%u descriptors are left open", sim_descriptors(w->kernel));
        if (sim_violation(w->kernel))
            fail(w, "%s", sim_violation(w->kernel));
        if (loud)
            fprintf(stderr, "seed %llu: %llu turns, %llu deliveries, %llu numbers, %llu faults\n",
                    (unsigned long long)seed, (unsigned long long)w->turns,
                    (unsigned long long)w->messages, (unsigned long long)w->lobby_max,
                    (unsigned long long)done);
        sim_kernel_free(w->kernel);
    }
    return !w->failed;
}

int main(int argc, char **argv)
{
    uint64_t seed = 0, first = 1, runs = 1;
    bool one = false;
    unsigned failures = 0;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seed")) {
            seed = strtoull(argv[i + 1], NULL, 0);
            one = true;
        } else if (!strcmp(argv[i], "--runs")) {
            runs = strtoull(argv[i + 1], NULL, 0);
        } else if (!strcmp(argv[i], "--first")) {
            first = strtoull(argv[i + 1], NULL, 0);
        }
    }
    if (one)
        return run(seed, getenv("SIM_LOUD") != NULL) ? 0 : 1;
    for (uint64_t s = first; s < first + runs && failures < 3; s++)
        if (!run(s, false)) {
            failures++;
            fprintf(stderr, "replay: sim --seed %llu\n", (unsigned long long)s);
        }
    fprintf(stderr, "%llu seeds from %llu, %u failed\n", (unsigned long long)runs,
            (unsigned long long)first, failures);
    return failures ? 1 : 0;
}
