#include "ratelimit.h"

#include <string.h>

/*
 * Who may connect. An address prefix may be banned, may connect too fast, or have too many open
 * connections; all of this stands in the shared tables under the prefix's key. A ban is a bucket
 * like any other, which is full until the ban is over: as the fullest of its set it stays.
 *
 * Connections are counted when they are opened, and not when they are accepted: a filter behind
 * this one may refuse them still, and nobody would tell. So accept only looks, which spares most of
 * the others the way to there, and opened decides.
 */

static const struct gcra one = {.cost = 1, .limit = UINT64_C(1) << 32};

static int exempt(const struct ratelimit *shared, const struct network *address)
{
    for (size_t i = 0; i < shared->n_exempt; i++)
        if (network_contains(&shared->exempt[i], address))
            return 1;
    return 0;
}

/* 0: not counted by address. */
static uint64_t prefix_of(struct roda_ctx *x, const struct roda_conn *c)
{
    const struct ratelimit_conf *conf = x->conf;
    const struct sockaddr *peer = roda_conn_peer(c);
    struct network address, prefix;

    if (!network_of(peer, 32, 128, &address) || exempt(shared_of(x), &address))
        return 0;
    (void)network_of(peer, (uint32_t)conf->prefix_ipv4, (uint32_t)conf->prefix_ipv6, &prefix);
    return network_key(&prefix);
}

static int is_datagram(const struct roda_conn *c)
{
    struct roda_str transport = roda_conn_transport(c);

    return transport.len == 3 && !memcmp(transport.ptr, "udp", 3);
}

static uint64_t count_key(const struct client *client)
{
    return key_for(client->prefix, BUCKET_ADDRESS_CONNECTIONS);
}

static struct gcra count_up_to(const struct ratelimit_conf *conf)
{
    struct gcra g = one;

    if (conf->address_connections)
        g.limit = (uint64_t)conf->address_connections;
    return g;
}

static int connects_too_fast(struct roda_ctx *x, const struct ratelimit_conf *conf,
                             const struct client *client)
{
    const struct roda_rate *rate = &conf->address_connects;
    struct gcra g;

    if (!rate->count || roda_now_ms(x) - state_of(x)->started_ms < (uint64_t)conf->start_grace_ms)
        return 0;
    g = gcra_of(rate, 1, GCRA_SHARED_TICKS);
    return table_take(shared_of(x)->buckets,
                      key_for_rate(client->prefix, BUCKET_ADDRESS_CONNECTS, rate), now_us(x), &g,
                      GCRA_SHARED_TICKS - 1) >= GCRA_SHARED_TICKS;
}

roda_verdict door_accept(struct roda_ctx *x, struct roda_event *ev)
{
    const struct ratelimit_conf *conf = conf_for(x, ev->conn);
    struct client *client = roda_conn_data(x, ev->conn);
    struct gcra count = count_up_to(conf);
    char where[WHERE_BYTES];
    uint64_t banned_us;

    if (is_datagram(ev->conn))
        client->flags |= CLIENT_DATAGRAM;
    client->prefix = prefix_of(x, ev->conn);
    if (!client->prefix)
        return RODA_PASS;
    banned_us = table_ahead(shared_of(x)->buckets, key_for(client->prefix, BUCKET_BAN), now_us(x));
    if (banned_us) {
        excess_tell(x, ev->conn, BUCKET_BAN);
        return roda_reject(ev, RODA_E_BANNED,
                           "your address is banned for %llu s more: too many refusals, %s",
                           (unsigned long long)((banned_us + 999999) / 1000000),
                           where_text(x, ev->conn, BUCKET_BAN, where));
    }
    if (gcra_wait(&count, table_ahead(shared_of(x)->counts, count_key(client), 0))) {
        excess_tell(x, ev->conn, BUCKET_ADDRESS_CONNECTIONS);
        return roda_reject(ev, RODA_E_FULL, "too many connections from your address: %s",
                           where_text(x, ev->conn, BUCKET_ADDRESS_CONNECTIONS, where));
    }
    if (connects_too_fast(x, conf, client)) {
        excess_tell(x, ev->conn, BUCKET_ADDRESS_CONNECTS);
        return roda_reject(ev, RODA_E_RATE, "your address connects too fast: %s",
                           where_text(x, ev->conn, BUCKET_ADDRESS_CONNECTS, where));
    }
    return RODA_PASS;
}

void door_opened(struct roda_ctx *x, struct roda_conn *c)
{
    struct client *client = roda_conn_data(x, c);
    struct gcra count = count_up_to(conf_for(x, c));
    char where[WHERE_BYTES];

    if (!client->prefix)
        return;
    if (!table_take(shared_of(x)->counts, count_key(client), 0, &count, 0)) {
        client->flags |= CLIENT_COUNTED;
        return;
    }
    excess_tell(x, c, BUCKET_ADDRESS_CONNECTIONS);
    roda_conn_close(c, "too many connections from your address: %s",
                    where_text(x, c, BUCKET_ADDRESS_CONNECTIONS, where));
}

void door_closed(struct roda_ctx *x, struct roda_conn *c, const char *reason, int shutdown)
{
    struct client *client = roda_conn_data(x, c);

    (void)reason;
    (void)shutdown;
    if (client->flags & CLIENT_COUNTED)
        table_give(shared_of(x)->counts, count_key(client), 0, one.cost);
}
