#include "ratelimit.h"

#include <string.h>

/*
 * How much may come.
 *
 * A unit of input fills up to three buckets at once, before it is decoded, so that what is no
 * message (lists, pings, nonsense) counts as well: the connection's or, when logged in, the
 * account's messages; the connection's bytes; the address prefix's messages. Further messages that
 * one unit makes (one text to several rooms) and dear commands are paid for afterwards, as a debt.
 *
 * All are asked before any is filled. What goes beyond a limit by no more than WAIT_MAX_MS is paid
 * for at once and passes when the slowest bucket has room for it: input waits, in order, and the
 * client feels the back-pressure of TCP. Paying first gives every connection of an address its own
 * time to go on, in the order of asking; nobody tries again and again, and nobody starves. Where
 * nothing can be held back (datagrams, on_excess), and for a longer wait, the unit is refused, and
 * nothing is paid.
 *
 * The core asks again when a unit's time has come, or a last time when it may wait no longer
 * (max_delay): then it is refused by name, and what was paid for is there for the next one.
 *
 * A join fills a bucket of its own, in submit, and waits there in the same way. Slow mode counts a
 * member's messages at the room's home, and refuses, since nothing may wait there.
 */

/* One bucket that something fills: a connection's own, or one in the shared table. */
struct charge {
    enum bucket bucket;
    uint64_t *own_ns; /* NULL: shared */
    uint64_t key;
    struct gcra g;
};

struct charges {
    struct charge list[3];
    size_t n;
};

/* ---- which buckets ---------------------------------------------------------------------- */

static void charge_own(struct charges *charges, enum bucket bucket, const struct roda_rate *rate,
                       uint64_t *own_ns, uint64_t amount)
{
    if (rate->count)
        charges->list[charges->n++] = (struct charge){.bucket = bucket,
                                                      .own_ns = own_ns,
                                                      .g = gcra_of(rate, amount, GCRA_OWN_TICKS)};
}

static void charge_shared(struct charges *charges, enum bucket bucket, const struct roda_rate *rate,
                          uint64_t owner, uint64_t amount)
{
    if (rate->count)
        charges->list[charges->n++] =
            (struct charge){.bucket = bucket,
                            .key = key_for_rate(owner, bucket, rate),
                            .g = gcra_of(rate, amount, GCRA_SHARED_TICKS)};
}

static void charge_messages(struct roda_ctx *x, const struct roda_conn *c, struct client *client,
                            uint64_t amount, struct charges *charges)
{
    const struct ratelimit_conf *conf = conf_for(x, c);
    const struct roda_person *person = roda_conn_person(c);
    struct roda_str account =
        person ? roda_person_get(person, RODA_PERSON_ACCOUNT) : (struct roda_str){"", 0};

    if (account.len)
        charge_shared(charges, BUCKET_REGISTERED_MESSAGES, &conf->registered_messages,
                      roda_hash(account), amount);
    else
        charge_own(charges, BUCKET_MESSAGES, &conf->messages, &client->messages_ns, amount);
    if (client->prefix)
        charge_shared(charges, BUCKET_ADDRESS_MESSAGES, &conf->address_messages, client->prefix,
                      amount);
}

/* ---- filling them ----------------------------------------------------------------------- */

static uint64_t own_ahead(const struct charge *charge, uint64_t now_ms)
{
    uint64_t now_ns = now_ms * GCRA_OWN_TICKS;

    return *charge->own_ns > now_ns ? *charge->own_ns - now_ns : 0;
}

/* What is due within this millisecond is due, since the clock shows no less. If it waited for the
 * next one, a bucket that is empty before that would lose the rest of each millisecond: more than
 * half of "5000/s burst 1". */
static uint64_t to_ms(uint64_t ticks, uint64_t ticks_per_ms)
{
    return ticks / ticks_per_ms;
}

static uint64_t wait_ms(struct roda_ctx *x, const struct charge *charge, uint64_t now_ms)
{
    if (charge->own_ns)
        return to_ms(gcra_wait(&charge->g, own_ahead(charge, now_ms)), GCRA_OWN_TICKS);
    return to_ms(gcra_wait(&charge->g, table_ahead(shared_of(x)->buckets, charge->key,
                                                   now_ms * GCRA_SHARED_TICKS)),
                 GCRA_SHARED_TICKS);
}

/* Fills it if the wait is at most max_ms, and returns the wait. */
static uint64_t take(struct roda_ctx *x, const struct charge *charge, uint64_t now_ms,
                     uint64_t max_ms)
{
    uint64_t ms;

    if (!charge->own_ns)
        return to_ms(table_take(shared_of(x)->buckets, charge->key, now_ms * GCRA_SHARED_TICKS,
                                &charge->g, (max_ms + 1) * GCRA_SHARED_TICKS - 1),
                     GCRA_SHARED_TICKS);
    ms = wait_ms(x, charge, now_ms);
    if (ms <= max_ms)
        *charge->own_ns = now_ms * GCRA_OWN_TICKS + own_ahead(charge, now_ms) + charge->g.cost;
    return ms;
}

/* Fills all of them or, if one would have to wait longer than max_ms, none. Returns how long the
 * slowest has to wait; *ret_bucket is that one. */
static uint64_t take_all(struct roda_ctx *x, const struct charges *charges, uint64_t max_ms,
                         enum bucket *ret_bucket)
{
    uint64_t now_ms = roda_now_ms(x), longest_ms = 0, ms;

    for (size_t i = 0; i < charges->n; i++) {
        ms = wait_ms(x, &charges->list[i], now_ms);
        if (ms > max_ms) {
            *ret_bucket = charges->list[i].bucket;
            return ms;
        }
    }
    /* The shared ones first: another worker may have filled them meanwhile. */
    for (size_t i = charges->n; i-- > 0 && longest_ms <= max_ms;) {
        ms = take(x, &charges->list[i], now_ms, max_ms);
        if (ms > longest_ms) {
            *ret_bucket = charges->list[i].bucket;
            longest_ms = ms;
        }
    }
    return longest_ms;
}

static uint64_t most_wait_ms(const struct ratelimit_conf *conf, const struct client *client)
{
    return client->flags & CLIENT_DATAGRAM || conf->on_excess != EXCESS_DELAY ? 0 : WAIT_MAX_MS;
}

/* ---- units ------------------------------------------------------------------------------ */

static roda_verdict hold(struct roda_ctx *x, struct roda_event *ev, uint64_t ms)
{
    roda_count(x, METRIC_DELAYED, 1);
    roda_count(x, METRIC_DELAYED_MS, (int64_t)ms);
    return roda_delay(ev, ms);
}

/* Asked again before its time, a last time; or, if that was so before, for the next one. */
static roda_verdict wait_on(struct roda_ctx *x, struct roda_event *ev, struct client *client,
                            uint8_t left_over, enum bucket bucket, uint64_t ms)
{
    client->flags ^= left_over;
    return client->flags & left_over ? excess_refuse(x, ev, bucket) : roda_delay(ev, ms);
}

roda_verdict flow_input(struct roda_ctx *x, struct roda_event *ev)
{
    struct client *client = roda_conn_data(x, ev->conn);
    const struct ratelimit_conf *conf = conf_for(x, ev->conn);
    struct charges charges = {.n = 0};
    uint32_t now_ms = (uint32_t)roda_now_ms(x), left_ms = client->until_ms - now_ms;
    enum bucket bucket = BUCKET_MESSAGES;
    uint64_t ms, max_ms = most_wait_ms(conf, client);

    if (client->flags & CLIENT_WAITING) {
        if (left_ms && left_ms <= WAIT_MAX_MS) /* more: it is over, perhaps for weeks */
            return wait_on(x, ev, client, CLIENT_LEFT_OVER, client->waits_for, left_ms);
        client->flags &= (uint8_t) ~(CLIENT_WAITING | CLIENT_LEFT_OVER);
        client->flags |= CLIENT_PAID;
        return RODA_PASS;
    }
    charge_own(&charges, BUCKET_BYTES, &conf->bytes, &client->bytes_ns, ev->bytes);
    charge_messages(x, ev->conn, client, 1, &charges);
    ms = take_all(x, &charges, max_ms, &bucket);
    if (ms > max_ms)
        return excess_refuse(x, ev, bucket);
    if (!ms) {
        client->flags |= CLIENT_PAID;
        return RODA_PASS;
    }
    client->flags |= CLIENT_WAITING;
    client->waits_for = (uint8_t)bucket;
    client->until_ms = now_ms + (uint32_t)ms;
    return hold(x, ev, ms);
}

void flow_charged(struct roda_ctx *x, struct roda_conn *c, uint32_t cost)
{
    struct client *client = roda_conn_data(x, c);
    struct charges charges = {.n = 0};

    charge_messages(x, c, client, cost, &charges);
    for (size_t i = 0; i < charges.n; i++) {
        struct charge *charge = &charges.list[i];
        uint64_t ticks_per_ms = charge->own_ns ? GCRA_OWN_TICKS : GCRA_SHARED_TICKS;
        uint64_t most = charge->g.limit + DEBT_MAX_MS * ticks_per_ms;
        if (charge->g.cost > most)
            charge->g.cost = most;
        (void)take(x, charge, roda_now_ms(x), DEBT_MAX_MS);
    }
}

/* ---- messages --------------------------------------------------------------------------- */

static roda_verdict join(struct roda_ctx *x, struct roda_event *ev, struct client *client)
{
    const struct ratelimit_conf *conf = conf_for(x, ev->conn);
    uint64_t now_ms = roda_now_ms(x), ms, max_ms = most_wait_ms(conf, client);
    struct charge charge = {.bucket = BUCKET_JOINS, .own_ns = &client->joins_ns};

    if (!conf->joins.count)
        return RODA_PASS;
    charge.g = gcra_of(&conf->joins, 1, GCRA_OWN_TICKS);
    if (client->flags & CLIENT_JOIN_WAITING) {
        uint64_t ahead = own_ahead(&charge, now_ms);
        ms = ahead > charge.g.limit ? to_ms(ahead - charge.g.limit, GCRA_OWN_TICKS) : 0;
        if (ms)
            return wait_on(x, ev, client, CLIENT_JOIN_LEFT_OVER, BUCKET_JOINS, ms);
        client->flags &= (uint8_t) ~(CLIENT_JOIN_WAITING | CLIENT_JOIN_LEFT_OVER);
        return RODA_PASS;
    }
    ms = take(x, &charge, now_ms, max_ms);
    if (ms > max_ms)
        return excess_refuse(x, ev, BUCKET_JOINS);
    if (!ms)
        return RODA_PASS;
    client->flags |= CLIENT_JOIN_WAITING;
    return hold(x, ev, ms);
}

roda_verdict flow_submit(struct roda_ctx *x, struct roda_event *ev)
{
    struct client *client;

    if (!ev->conn || ev->msg->flags & RODA_MSG_FORCED)
        return RODA_PASS;
    client = roda_conn_data(x, ev->conn);
    if (ev->msg->kind == RODA_JOIN)
        return join(x, ev, client);
    if (ev->msg->kind != RODA_TEXT && ev->msg->kind != RODA_NOTICE)
        return RODA_PASS;
    if (client->flags & CLIENT_PAID)
        client->flags &= (uint8_t)~CLIENT_PAID;
    else
        flow_charged(x, ev->conn, 1);
    return RODA_PASS;
}

/* ---- slow mode, at the room's home ------------------------------------------------------ */

/* Who reconnects with an account is still the same member. */
static uint64_t member_key(const struct roda_msg *msg)
{
    char folded[256]; /* "Lobby" is no other room than "lobby" */
    int len = roda_text_fold(msg->to, folded, sizeof(folded));
    struct roda_str room = len < 0 ? msg->to : (struct roda_str){folded, (size_t)len};
    struct roda_str account = roda_person_get(msg->sender, RODA_PERSON_ACCOUNT);
    uint64_t who[2] = {roda_hash(room),
                       account.len ? roda_hash(account) : roda_person_id(msg->sender)};
    char bytes[sizeof(who)];

    memcpy(bytes, who, sizeof(who));
    return roda_hash((struct roda_str){bytes, sizeof(bytes)});
}

roda_verdict flow_admit(struct roda_ctx *x, struct roda_event *ev)
{
    const struct ratelimit_conf *conf = x->conf;
    const struct roda_msg *msg = ev->msg;
    char where[WHERE_BYTES];
    struct charges charges = {.n = 0};
    uint64_t ms;

    if (!conf->room_messages.count || !msg->from || !msg->sender ||
        (msg->kind != RODA_TEXT && msg->kind != RODA_NOTICE) ||
        msg->flags & (RODA_MSG_DIRECT | RODA_MSG_FORCED))
        return RODA_PASS;
    charge_shared(&charges, BUCKET_ROOM_MESSAGES, &conf->room_messages, member_key(msg), 1);
    ms = take(x, charges.list, roda_now_ms(x), 0);
    if (!ms)
        return RODA_PASS;
    excess_strike_far(x, msg->from, BUCKET_ROOM_MESSAGES);
    return roda_reject(ev, RODA_E_RATE, "too fast for this room, wait %llu s: %s",
                       (unsigned long long)((ms + 999) / 1000),
                       where_text(x, NULL, BUCKET_ROOM_MESSAGES, where));
}
