#include "ratelimit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/*
 * Limits for clients, so that a flood hurts only who makes it. Options, metrics, life; the model of
 * each part stands in its file (see ratelimit.h), the whole in docs/ratelimit.md.
 *
 * All of it is small and of a fixed size: 48 bytes per connection, two tables made at the start.
 * Worker 0 sweeps them, a part at a time, and owns the file of bans.
 */

/* ---- is the conf usable? ---------------------------------------------------------------- */

static int check_rate(struct roda_conf_errors *errors, const char *option,
                      const struct roda_rate *rate, int shared)
{
    if (rate->count && gcra_limit_ms(rate) > LIMIT_MAX_MS)
        return roda_conf_error(errors, option,
                               "that burst would take more than 10 days at that rate; make it "
                               "smaller, or the rate larger");
    if (shared && (double)rate->count * 1000 / (double)rate->per_ms > SHARED_RATE_MAX)
        return roda_conf_error(errors, option, "at most %d/s; or off", SHARED_RATE_MAX);
    return 0;
}

static int check_exempt(struct roda_conf_errors *errors, const struct roda_list *exempt)
{
    struct network network;

    for (size_t i = 0; i < exempt->n; i++) {
        const char *wrong = network_parse(exempt->items[i], &network);
        if (wrong)
            return roda_conf_error(errors, "exempt", "%.*s: %s", (int)exempt->items[i].len,
                                   exempt->items[i].ptr, wrong);
    }
    return 0;
}

static int check(const void *arg, struct roda_conf_errors *errors)
{
    const struct ratelimit_conf *conf = arg;
    const struct {
        const char *name;
        const struct roda_rate *rate;
        int shared;
    } rates[] = {
        {"messages", &conf->messages, 0},
        {"registered_messages", &conf->registered_messages, 1},
        {"bytes", &conf->bytes, 0},
        {"address_messages", &conf->address_messages, 1},
        {"room_messages", &conf->room_messages, 1},
        {"joins", &conf->joins, 0},
        {"address_connects", &conf->address_connects, 1},
    };
    int result = check_exempt(errors, &conf->exempt);

    for (size_t i = 0; i < sizeof(rates) / sizeof(*rates); i++) {
        int wrong = check_rate(errors, rates[i].name, rates[i].rate, rates[i].shared);
        result = result ? result : wrong;
    }
    return result;
}

/* ---- life ------------------------------------------------------------------------------- */

static void fini(struct roda_ctx *x)
{
    struct ratelimit *shared = x->shared;

    if (!shared)
        return;
    table_free(x, shared->buckets);
    table_free(x, shared->counts);
    roda_free(x, shared->exempt);
    roda_free(x, shared);
    x->shared = NULL;
}

static int init(struct roda_ctx *x)
{
    const struct ratelimit_conf *conf = x->conf;
    struct ratelimit *shared = roda_alloc(x, sizeof(*shared));

    if (!shared)
        return -ENOMEM;
    x->shared = shared;
    shared->buckets = table_new(x, (size_t)conf->address_table);
    shared->counts = table_new(x, (size_t)conf->address_table);
    shared->exempt = roda_alloc(x, (conf->exempt.n + 1) * sizeof(*shared->exempt));
    if (!shared->buckets || !shared->counts || !shared->exempt) {
        fini(x);
        return -ENOMEM;
    }
    shared->n_exempt = conf->exempt.n;
    for (size_t i = 0; i < conf->exempt.n; i++)
        (void)network_parse(conf->exempt.items[i], &shared->exempt[i]); /* check() has seen them */
    return 0;
}

static void sweep(struct roda_ctx *x, void *arg, int result)
{
    struct ratelimit_state *state = state_of(x);
    struct table *buckets = shared_of(x)->buckets;
    uint32_t part = state->next_part;
    uint64_t replaced = table_replaced(buckets);
    size_t used = table_sweep(buckets, now_us(x), part, SWEEP_PARTS);

    (void)arg;
    (void)result;
    roda_count(x, METRIC_TABLE_USED, (int64_t)used - (int64_t)state->used[part]);
    roda_count(x, METRIC_TABLE_REPLACED, (int64_t)(replaced - state->replaced));
    state->used[part] = used;
    state->replaced = replaced;
    state->next_part = (part + 1) % SWEEP_PARTS;
}

static void stop(struct roda_ctx *x)
{
    struct ratelimit_state *state = state_of(x);

    roda_timer_stop(state->sweep);
    state->sweep = NULL;
    bans_stop(x);
}

static int start(struct roda_ctx *x)
{
    struct ratelimit_state *state = state_of(x);
    int result = 0;

    state->started_ms = roda_now_ms(x);
    if (x->worker)
        return 0;
    roda_count(x, METRIC_TABLE_SIZE, (int64_t)table_buckets(shared_of(x)->buckets));
    state->sweep = roda_timer_start(x, SWEEP_MS, SWEEP_MS, sweep, NULL);
    if (state->sweep)
        result = bans_start(x);
    if (!state->sweep || result < 0) {
        stop(x);
        return -ENOMEM;
    }
    return result;
}

/* ---- tables ----------------------------------------------------------------------------- */

#define RATE(field, initial_text, its_flags, its_help)                                             \
    {                                                                                              \
        .name = #field, .type = RODA_T_RATE, .offset = offsetof(struct ratelimit_conf, field),     \
        .initial = (initial_text), .flags = (its_flags), .help = (its_help)                        \
    }

static const struct roda_option options[] = {
    RATE(messages, "2/s burst 10", RODA_OPTION_LISTENER,
         "lines, commands or messages of a connection, of whatever kind"),
    RATE(registered_messages, "5/s burst 20", RODA_OPTION_LISTENER,
         "the same for all connections of an account together, instead of messages"),
    RATE(bytes, "4k/s burst 16k", RODA_OPTION_LISTENER, "input of a connection"),
    RATE(address_messages, "10/s burst 40", RODA_OPTION_LISTENER,
         "lines, commands or messages of all connections of an address prefix together"),
    RATE(room_messages, "off", 0,
         "slow mode: messages of one member in one room; 6/m burst 1 is one in ten seconds"),
    RATE(joins, "1/s burst 10", RODA_OPTION_LISTENER, "joins of a connection"),
    {.name = "address_connections",
     .type = RODA_T_INT,
     .offset = offsetof(struct ratelimit_conf, address_connections),
     .initial = "32",
     .min = 0,
     .max = 10000000,
     .flags = RODA_OPTION_LISTENER,
     .help = "open connections of an address prefix; 0: any number"},
    RATE(address_connects, "1/s burst 32", RODA_OPTION_LISTENER,
         "new connections of an address prefix"),
    {.name = "prefix_ipv4",
     .type = RODA_T_INT,
     .offset = offsetof(struct ratelimit_conf, prefix_ipv4),
     .initial = "32",
     .min = 8,
     .max = 32,
     .flags = RODA_OPTION_RESTART,
     .help = "leading bits of an IPv4 address that make one client"},
    {.name = "prefix_ipv6",
     .type = RODA_T_INT,
     .offset = offsetof(struct ratelimit_conf, prefix_ipv6),
     .initial = "64",
     .min = 16,
     .max = 128,
     .flags = RODA_OPTION_RESTART,
     .help = "leading bits of an IPv6 address that make one client"},
    {.name = "exempt",
     .type = RODA_T_LIST,
     .offset = offsetof(struct ratelimit_conf, exempt),
     .initial = "127.0.0.0/8, ::1",
     .min = 0,
     .max = 1000,
     .flags = RODA_OPTION_RESTART,
     .help = "networks whose clients are not counted by address, nor banned"},
    {.name = "start_grace",
     .type = RODA_T_MS,
     .offset = offsetof(struct ratelimit_conf, start_grace_ms),
     .initial = "2m",
     .min = 0,
     .max = 86400000,
     .help = "address_connects does not hold so long after the start, when all come back"},
    {.name = "on_excess",
     .type = RODA_T_CHOICE,
     .offset = offsetof(struct ratelimit_conf, on_excess),
     .initial = "delay",
     .choices = "delay|refuse|disconnect",
     .flags = RODA_OPTION_LISTENER,
     .help = "what happens to input that comes too fast; datagrams are never delayed"},
    {.name = "kill_after",
     .type = RODA_T_INT,
     .offset = offsetof(struct ratelimit_conf, kill_after),
     .initial = "20",
     .min = 0,
     .max = 60000,
     .flags = RODA_OPTION_LISTENER,
     .help = "refusals within a minute that end a connection and ban its prefix; 0: never"},
    {.name = "ban_time",
     .type = RODA_T_MS,
     .offset = offsetof(struct ratelimit_conf, ban_time_ms),
     .initial = "5m",
     .min = 0,
     .max = LIMIT_MAX_MS,
     .flags = RODA_OPTION_LISTENER,
     .help = "how long an address prefix is banned; 0: not at all"},
    {.name = "ban_file",
     .type = RODA_T_PATH,
     .offset = offsetof(struct ratelimit_conf, ban_file),
     .initial = "ratelimit.bans",
     .flags = RODA_OPTION_RESTART,
     .help = "where bans are kept for a restart; empty: nowhere"},
    {.name = "address_table",
     .type = RODA_T_INT,
     .offset = offsetof(struct ratelimit_conf, address_table),
     .initial = "65536",
     .min = 1024,
     .max = 16777216,
     .flags = RODA_OPTION_RESTART,
     .help = "buckets for addresses, accounts and slow mode, 16 bytes each, whatever comes"},
    {.name = NULL},
};

#define REFUSED(bucket, name_of)                                                                   \
    [bucket] = {"ratelimit_refused_" name_of "_total", RODA_COUNTER, "refused for " name_of}

static const struct roda_metric metrics[] = {
    REFUSED(BUCKET_MESSAGES, "messages"),
    REFUSED(BUCKET_REGISTERED_MESSAGES, "registered_messages"),
    REFUSED(BUCKET_BYTES, "bytes"),
    REFUSED(BUCKET_ADDRESS_MESSAGES, "address_messages"),
    REFUSED(BUCKET_ROOM_MESSAGES, "room_messages"),
    REFUSED(BUCKET_JOINS, "joins"),
    REFUSED(BUCKET_ADDRESS_CONNECTIONS, "address_connections"),
    REFUSED(BUCKET_ADDRESS_CONNECTS, "address_connects"),
    [BUCKET_BAN] = {"ratelimit_refused_banned_total", RODA_COUNTER,
                    "connections refused because their address is banned"},
    [METRIC_DELAYED] = {"ratelimit_delayed_total", RODA_COUNTER, "units that had to wait"},
    [METRIC_DELAYED_MS] = {"ratelimit_delayed_ms_total", RODA_COUNTER,
                           "milliseconds they were told to wait"},
    [METRIC_DISCONNECTED] = {"ratelimit_disconnected_total", RODA_COUNTER,
                             "connections ended after too many refusals"},
    [METRIC_BANS] = {"ratelimit_bans_total", RODA_COUNTER, "address prefixes that were banned"},
    [METRIC_BANS_LOST] = {"ratelimit_bans_not_kept_total", RODA_COUNTER,
                          "bans that could not be written to ban_file"},
    [METRIC_TABLE_SIZE] = {"ratelimit_table_buckets", RODA_GAUGE,
                           "buckets there are for addresses, accounts and slow mode"},
    [METRIC_TABLE_USED] = {"ratelimit_table_used", RODA_GAUGE,
                           "those that are not empty, as of the last minutes"},
    [METRIC_TABLE_REPLACED] = {"ratelimit_table_replaced_total", RODA_COUNTER,
                               "buckets that were not empty and had to go for others"},
    [METRICS] = {.name = NULL},
};

RODA_PLUGIN(.name = "ratelimit", .summary = "limits per connection, address, account and room",
            .version = "0.1.0", .conf_size = sizeof(struct ratelimit_conf),
            .state_size = sizeof(struct ratelimit_state), .conn_size = sizeof(struct client),
            .options = options, .metrics = metrics, .check = check, .init = init, .start = start,
            .stop = stop, .fini = fini, .accept = door_accept, .input = flow_input,
            .submit = flow_submit, .admit = flow_admit, .opened = door_opened,
            .closed = door_closed, .charged = flow_charged);
