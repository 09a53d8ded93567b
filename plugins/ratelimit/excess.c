#include "ratelimit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/*
 * Who goes beyond a limit is refused with an answer that names the bucket and its line in the conf.
 * The broker's messages have a line of a fixed form for it, once in SAID_MS per address prefix and
 * bucket, in front of which fail2ban finds the address (conf/fail2ban):
 *
 *     refused ADDRESS bucket=NAME listener=NAME
 *     disconnected ADDRESS refusals=N listener=NAME
 *     banned ADDRESS seconds=N listener=NAME
 *
 * Who sends datagrams has shown once that he gets what is sent to his address, but anybody may
 * write it on the next one. So nobody's address is banned for them, neither here nor by fail2ban:
 *
 *     refused datagrams of ADDRESS bucket=NAME listener=NAME
 *
 * Refusals are counted per connection; kill_after of them within a minute from the first end it,
 * and its address prefix is banned. Delays are not counted: who waits does no harm. With
 * on_excess = disconnect the first one ends it, without a ban; but the slow mode of a room is
 * something that people run into without harm, and always has kill_after.
 */

enum { SAID_MS = 10000, MINUTE_MS = 60000, ADDRESS_BYTES = 80, SECTION_BYTES = 64 };

const char *const bucket_names[BUCKETS] = {
    [BUCKET_MESSAGES] = "messages",
    [BUCKET_REGISTERED_MESSAGES] = "registered_messages",
    [BUCKET_BYTES] = "bytes",
    [BUCKET_ADDRESS_MESSAGES] = "address_messages",
    [BUCKET_ROOM_MESSAGES] = "room_messages",
    [BUCKET_JOINS] = "joins",
    [BUCKET_ADDRESS_CONNECTIONS] = "address_connections",
    [BUCKET_ADDRESS_CONNECTS] = "address_connects",
    [BUCKET_BAN] = "ban_time",
};

/* ---- keys ------------------------------------------------------------------------------- */

/* The finalizer of MurmurHash3, by Austin Appleby: every bit of the key depends on every other. */
static uint64_t mix(uint64_t key)
{
    key ^= key >> 33;
    key *= UINT64_C(0xff51afd7ed558ccd);
    key ^= key >> 33;
    key *= UINT64_C(0xc4ceb9fe1a85ec53);
    return key ^ key >> 33;
}

/* The table tells buckets of one set apart by the upper bits of their keys: there, chance may make
 * one bucket of two strangers, but never of two kinds. A slow rate's bucket is full for an hour,
 * and would refuse whoever shares it as messages a second. A connection's messages and bytes are in
 * no table: those two kinds are what a ban and what was said have. */
uint64_t key_for(uint64_t owner, uint32_t what)
{
    uint64_t key = mix(owner + (what + 1) * UINT64_C(0x9e3779b97f4a7c15));
    uint64_t kind = what < KEY_SAID ? what & 7 : BUCKET_BYTES;

    return key >> 3 | kind << 61;
}

uint64_t key_for_rate(uint64_t owner, uint32_t what, const struct roda_rate *rate)
{
    uint64_t of_rate = mix((uint64_t)rate->count) ^ mix((uint64_t)rate->per_ms << 32) ^
                       mix(~(uint64_t)rate->burst);

    return key_for(owner ^ of_rate, what);
}

/* ---- words for it ----------------------------------------------------------------------- */

static const struct roda_rate *rate_in(const struct ratelimit_conf *conf, enum bucket bucket)
{
    switch (bucket) {
    case BUCKET_MESSAGES:
        return &conf->messages;
    case BUCKET_REGISTERED_MESSAGES:
        return &conf->registered_messages;
    case BUCKET_BYTES:
        return &conf->bytes;
    case BUCKET_ADDRESS_MESSAGES:
        return &conf->address_messages;
    case BUCKET_ROOM_MESSAGES:
        return &conf->room_messages;
    case BUCKET_JOINS:
        return &conf->joins;
    default:
        return &conf->address_connects;
    }
}

/* The limit as the conf has it. */
static const char *limit_text(const struct ratelimit_conf *conf, enum bucket bucket, char *buf,
                              size_t size)
{
    if (bucket == BUCKET_BAN)
        (void)snprintf(buf, size, "%" PRId64 "s", (conf->ban_time_ms + 999) / 1000);
    else if (bucket == BUCKET_ADDRESS_CONNECTIONS)
        (void)snprintf(buf, size, "%" PRId64, conf->address_connections);
    else
        (void)gcra_text(rate_in(conf, bucket), buf, size);
    return buf;
}

/* Where an option stands: "[plugin ratelimit] ", or that of the listener if it has its own. */
static const char *section_text(const struct roda_conn *c, int own, char buf[SECTION_BYTES])
{
    struct roda_str listener = c ? roda_conn_listener(c) : (struct roda_str){"", 0};

    if (own)
        (void)snprintf(buf, SECTION_BYTES, "[listener %.*s] ratelimit.",
                       (int)(listener.len < 40 ? listener.len : 40), listener.ptr);
    else
        (void)snprintf(buf, SECTION_BYTES, "[plugin ratelimit] ");
    return buf;
}

const char *where_text(struct roda_ctx *x, const struct roda_conn *c, enum bucket bucket,
                       char buf[WHERE_BYTES])
{
    const struct ratelimit_conf *conf = c ? conf_for(x, c) : x->conf;
    char limit[64], general[64], section[SECTION_BYTES];

    (void)limit_text(conf, bucket, limit, sizeof(limit));
    (void)limit_text(x->conf, bucket, general, sizeof(general));
    (void)snprintf(buf, WHERE_BYTES, "%s%s = %s",
                   section_text(c, strcmp(limit, general) != 0, section), bucket_names[bucket],
                   limit);
    return buf;
}

/* One word: the address without the port, or what stands for it. */
static const char *address_text(const struct roda_conn *c, char buf[ADDRESS_BYTES])
{
    char *port;

    (void)roda_conn_peer_text(c, buf, ADDRESS_BYTES);
    port = strstr(buf, " port ");
    if (port)
        *port = '\0';
    for (char *at = buf; *at; at++)
        if (*at == ' ')
            *at = '-';
    return buf;
}

/* Whose lines in the messages are counted together. Who is exempt has no prefix, and must not flood
 * them by coming again either. */
static uint64_t told_as(const struct roda_conn *c, const struct client *client)
{
    char address[ADDRESS_BYTES];
    const char *text;

    if (client->prefix)
        return client->prefix;
    text = address_text(c, address);
    return key_for(roda_hash((struct roda_str){text, strlen(text)}), KEY_SAID);
}

void excess_tell(struct roda_ctx *x, struct roda_conn *c, enum bucket bucket)
{
    const struct client *client = roda_conn_data(x, c);
    char address[ADDRESS_BYTES];
    struct gcra once = {.cost = SAID_MS * GCRA_SHARED_TICKS, .limit = SAID_MS * GCRA_SHARED_TICKS};
    struct roda_str listener = roda_conn_listener(c);
    int datagrams = client->flags & CLIENT_DATAGRAM;
    uint32_t what = KEY_SAID + 1 + (uint32_t)bucket + (datagrams ? BUCKETS : 0);

    roda_count(x, (uint32_t)bucket, 1);
    if (table_take(shared_of(x)->buckets, key_for(told_as(c, client), what), now_us(x), &once, 0))
        return;
    roda_log(x, RODA_LOG_NOTICE, "refused %s%s bucket=%s listener=%.*s",
             datagrams ? "datagrams of " : "", address_text(c, address), bucket_names[bucket],
             (int)listener.len, listener.ptr);
}

/* ---- the end of patience ---------------------------------------------------------------- */

static void ban(struct roda_ctx *x, struct roda_conn *c, const struct client *client)
{
    const struct ratelimit_conf *conf = conf_for(x, c), *general = x->conf;
    struct roda_str listener = roda_conn_listener(c);
    struct network prefix;
    char address[ADDRESS_BYTES];

    if (!client->prefix || !conf->ban_time_ms || client->flags & CLIENT_DATAGRAM ||
        !network_of(roda_conn_peer(c), (uint32_t)general->prefix_ipv4,
                    (uint32_t)general->prefix_ipv6, &prefix))
        return;
    roda_log(x, RODA_LOG_NOTICE, "banned %s seconds=%" PRId64 " listener=%.*s",
             address_text(c, address), (conf->ban_time_ms + 999) / 1000, (int)listener.len,
             listener.ptr);
    bans_add(x, &prefix, (uint64_t)conf->ban_time_ms);
}

static void disconnect(struct roda_ctx *x, struct roda_conn *c, const struct client *client,
                       enum bucket bucket, int at_once)
{
    const struct ratelimit_conf *conf = conf_for(x, c), *general = x->conf;
    struct roda_str listener = roda_conn_listener(c);
    char address[ADDRESS_BYTES], section[SECTION_BYTES], where[WHERE_BYTES];

    roda_count(x, METRIC_DISCONNECTED, 1);
    roda_log(x, RODA_LOG_NOTICE, "disconnected %s refusals=%u listener=%.*s",
             address_text(c, address), client->refusals, (int)listener.len, listener.ptr);
    if (at_once)
        roda_conn_close(c, "too fast: %s; %son_excess = disconnect",
                        where_text(x, c, bucket, where),
                        section_text(c, conf->on_excess != general->on_excess, section));
    else
        roda_conn_close(c, "%u refusals within a minute: %skill_after = %" PRId64, client->refusals,
                        section_text(c, conf->kill_after != general->kill_after, section),
                        conf->kill_after);
    if (client->refusals == conf->kill_after)
        ban(x, c, client);
}

void excess_strike(struct roda_ctx *x, struct roda_conn *c, enum bucket bucket)
{
    const struct ratelimit_conf *conf = conf_for(x, c);
    struct client *client = roda_conn_data(x, c);
    uint32_t now_ms = (uint32_t)roda_now_ms(x);
    int at_once = conf->on_excess == EXCESS_DISCONNECT && bucket != BUCKET_ROOM_MESSAGES;

    if (!client->refusals || now_ms - client->minute_ms >= MINUTE_MS) {
        client->refusals = 0;
        client->minute_ms = now_ms;
    }
    if (client->refusals < UINT16_MAX)
        client->refusals++;
    if (at_once || client->refusals == conf->kill_after)
        disconnect(x, c, client, bucket, at_once);
}

roda_verdict excess_refuse(struct roda_ctx *x, struct roda_event *ev, enum bucket bucket)
{
    char where[WHERE_BYTES];

    excess_tell(x, ev->conn, bucket);
    excess_strike(x, ev->conn, bucket);
    return roda_reject(ev, RODA_E_RATE, "too fast: %s", where_text(x, ev->conn, bucket, where));
}

/* ---- from a room's home ----------------------------------------------------------------- */

struct strike {
    struct roda_item item;
    roda_conn_id conn;
    enum bucket bucket;
};

static void strike_run(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct strike *strike = (struct strike *)(void *)item;
    struct roda_conn *c = result < 0 ? NULL : roda_conn_find(x, strike->conn);

    if (c) {
        excess_tell(x, c, strike->bucket);
        excess_strike(x, c, strike->bucket);
    }
    roda_free(x, strike);
}

void excess_strike_far(struct roda_ctx *x, roda_conn_id conn, enum bucket bucket)
{
    struct strike *strike = roda_alloc(x, sizeof(*strike));

    if (!strike)
        return; /* it was refused all the same */
    strike->item.run = strike_run;
    strike->conn = conn;
    strike->bucket = bucket;
    roda_post(x, RODA_CONN_WORKER(conn), &strike->item);
}
