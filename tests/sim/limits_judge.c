#include "limits.h"

#include <inttypes.h>
#include <stdio.h>

/*
 * What passed and when, of each stream, and whether that is what the limit says. When the n-th unit
 * of a flood passes is known to the millisecond, since the bucket is empty at first and then never:
 * at once up to the burst, and from then on when the rate has made room.
 */

#define PERCENT 0.01
/* The plugin's clock has milliseconds: the first may have been counted one too early, and what is
 * due within one is due. */
#define EARLY_NS    INT64_C(2000000)
#define LATE_NS     INT64_C(4000000)
#define ANSWER_NS   UINT64_C(5000000)
#define ANSWERS_MIN 20u
#define FAIR_UNITS  2u

/* ---- what passed ------------------------------------------------------------------------ */

uint64_t burst_ns(const struct limit *limit)
{
    return UINT64_C(1000000000) * limit->burst / limit->rate;
}

static void see_time(struct stream *stream, const struct limit *limit, uint64_t since_ns)
{
    uint64_t beyond = stream->passed > limit->burst ? stream->passed - limit->burst : 0;
    int64_t late_ns = (int64_t)since_ns - (int64_t)(UINT64_C(1000000000) * beyond / limit->rate);

    if (late_ns < stream->earliest_ns)
        stream->earliest_ns = late_ns;
    if (beyond && late_ns > stream->latest_ns)
        stream->latest_ns = late_ns;
}

void stream_pass(struct world *w, struct stream *stream, struct client *c, uint32_t amount)
{
    const struct limit *limit = w->limit;
    uint64_t since_ns = sim_now_ns(w->kernel) - w->flood_ns;

    stream->passed += amount;
    if (!limit->rate) {
        w->most_open = stream->open > w->most_open ? stream->open : w->most_open;
        if (w->on && stream->open > limit->burst)
            fail(w, "%u are open", stream->open);
        return;
    }
    see_time(stream, limit, since_ns);
    if (since_ns < UINT64_C(500000000) * limit->unit / limit->rate)
        stream->at_once += amount;
    for (uint32_t i = 0; i < WINDOWS; i++) {
        uint64_t begin_ns = (1 + i * WINDOW_BURSTS) * burst_ns(limit);
        if (since_ns < begin_ns || since_ns >= begin_ns + WINDOW_BURSTS * burst_ns(limit))
            continue;
        stream->windows[i] += amount;
        c->in_windows++;
    }
}

/* ---- judgement -------------------------------------------------------------------------- */

struct range {
    double low, high;
};

static void widen(struct range *range, double value)
{
    range->low = value < range->low ? value : range->low;
    range->high = value > range->high ? value : range->high;
}

static void judge_rates(struct world *w, const struct stream *stream, struct range *rates)
{
    const struct limit *limit = w->limit;

    for (uint32_t i = 0; i < WINDOWS; i++) {
        double rate =
            (double)stream->windows[i] * 1e9 / ((double)burst_ns(limit) * (double)WINDOW_BURSTS);
        if (rate < limit->rate * (1 - PERCENT) || rate > limit->rate * (1 + PERCENT))
            fail(w, "stream %d: %.3f/s in window %u", (int)(stream - w->streams), rate, i);
        widen(rates, rate);
    }
}

/* How long a stream can be late because nobody offered anything. */
static int64_t offer_ns(const struct limit *limit)
{
    return limit->load == LOAD_ROOMS || limit->load == LOAD_CONNECTS ? 500000000 / limit->rate : 0;
}

/* Who shares an address passes as much as the others there. */
static void judge_fairness(struct world *w, struct range *shares)
{
    if (w->limit->load != LOAD_LINES || !w->limit->by_address)
        return;
    for (uint32_t network = 0; network < NETWORKS; network++) {
        *shares = (struct range){1e18, 0};
        for (uint32_t i = 0; i < w->n_clients; i++)
            if (w->clients[i].role == ROLE_FLOODER && w->clients[i].network == network)
                widen(shares, w->clients[i].in_windows);
        if (shares->high > shares->low + FAIR_UNITS)
            fail(w, "one flooder passed %g units in the windows, and another %g", shares->low,
                 shares->high);
    }
}

static void judge_limited(struct world *w, char *text, size_t size)
{
    struct range rates = {1e18, 0}, shares = {0, 0};
    int64_t earliest_ns = INT64_MAX, latest_ns = 0;
    char share_text[64] = "";

    for (uint32_t i = 0; i < w->n_streams; i++) {
        const struct stream *stream = &w->streams[i];
        if (stream->at_once != stream->burst)
            fail(w, "stream %u: %" PRIu64 " passed at once, and %" PRIu64 " should", i,
                 stream->at_once, stream->burst);
        if (stream->earliest_ns < -EARLY_NS || stream->latest_ns > LATE_NS + offer_ns(w->limit))
            fail(w, "stream %u: %.3f ms early, %.3f ms late", i, (double)-stream->earliest_ns / 1e6,
                 (double)stream->latest_ns / 1e6);
        if (w->offer_until_ns && stream->passed + stream->refused != stream->offered)
            fail(w, "stream %u: %" PRIu64 " offered, %" PRIu64 " passed, %" PRIu64 " refused", i,
                 stream->offered, stream->passed, stream->refused);
        judge_rates(w, stream, &rates);
        earliest_ns = stream->earliest_ns < earliest_ns ? stream->earliest_ns : earliest_ns;
        latest_ns = stream->latest_ns > latest_ns ? stream->latest_ns : latest_ns;
    }
    judge_fairness(w, &shares);
    if (w->limit->by_address && w->limit->load == LOAD_LINES)
        (void)snprintf(share_text, sizeof share_text, ", %g to %g for each that shares", shares.low,
                       shares.high);
    (void)snprintf(text, size,
                   "%u streams, %" PRIu64 " at once, %.3f to %.3f/s, at most %.2f ms early and "
                   "%.2f ms late%s",
                   w->n_streams, w->streams[0].at_once, rates.low, rates.high,
                   earliest_ns < 0 ? (double)-earliest_ns / 1e6 : 0, (double)latest_ns / 1e6,
                   share_text);
}

static void judge_unlimited(struct world *w, char *text, size_t size)
{
    uint64_t least_at_once = UINT64_MAX;

    for (uint32_t i = 0; i < w->n_streams; i++) {
        const struct stream *stream = &w->streams[i];
        if (stream->at_once <= stream->burst)
            fail(w, "stream %u: only %" PRIu64 " passed at once", i, stream->at_once);
        if (w->offer_until_ns && stream->passed != stream->offered)
            fail(w, "stream %u: %" PRIu64 " of %" PRIu64 " passed", i, stream->passed,
                 stream->offered);
        least_at_once = stream->at_once < least_at_once ? stream->at_once : least_at_once;
    }
    (void)snprintf(text, size, "%u streams, at least %" PRIu64 " at once, all in time",
                   w->n_streams, least_at_once);
}

static void judge_talker(struct world *w)
{
    if (w->answers < ANSWERS_MIN)
        fail(w, "the talker has only %u answers", w->answers);
    if (w->slowest_answer_ns > ANSWER_NS)
        fail(w, "the talker waited %.3f ms", (double)w->slowest_answer_ns / 1e6);
}

static void judge_workers(struct world *w)
{
    for (uint32_t network = 0; network < (w->limit->by_address ? NETWORKS : 1); network++)
        for (uint32_t i = 0; i < w->n_workers; i++)
            if (!w->on_worker[network][i])
                fail(w, "no connection of network %u is on worker %u", network, i);
}

void judge_level(struct world *w)
{
    for (uint32_t network = 0; network < NETWORKS; network++) {
        const struct stream *stream = &w->streams[network];
        if (stream->passed + stream->refused != stream->offered)
            fail(w, "network %u: %" PRIu64 " came, %" PRIu64 " were let in, %" PRIu64 " refused",
                 network, stream->offered, stream->passed, stream->refused);
        if (w->on ? stream->open != w->limit->burst : stream->refused)
            fail(w, "network %u: %u are open, %" PRIu64 " were refused", network, stream->open,
                 stream->refused);
    }
}

static void tell_level(const struct world *w, char *text, size_t size)
{
    uint64_t passed = 0, refused = 0;

    for (uint32_t i = 0; i < w->n_streams; i++) {
        passed += w->streams[i].passed;
        refused += w->streams[i].refused;
    }
    (void)snprintf(text, size,
                   "%u streams, at most %u open, %" PRIu64 " let in, %" PRIu64 " refused",
                   w->n_streams, w->most_open, passed, refused);
}

void judge(struct world *w, char *text, size_t size)
{
    if (w->limit->load == LOAD_OPEN)
        tell_level(w, text, size);
    else if (w->on)
        judge_limited(w, text, size);
    else
        judge_unlimited(w, text, size);
    judge_workers(w);
    if (w->on)
        judge_talker(w);
}
