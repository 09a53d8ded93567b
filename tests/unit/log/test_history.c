/* "history/1" as others call it: every kind of query against what was seen to be published, and
 * how many records had to be read for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testhost.h"
#include <roda/history.h>

extern const struct roda_plugin log_plugin, rooms_plugin;

static const char *const visitor_needs[] = {RODA_HISTORY_ID, NULL};
static const struct roda_plugin visitor = {
    .abi = RODA_ABI,
    .size = sizeof(struct roda_plugin),
    .name = "visitor",
    .summary = "asks",
    .version = "1",
    .needs = visitor_needs,
};

enum { MESSAGES_MAX = 3000 };
static struct said {
    uint64_t number, prev;
    int64_t time_ns;
} said[MESSAGES_MAX];
static size_t n_said;
static struct testhost *host;
static uint64_t seed;

static uint64_t chance(uint64_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % below;
}

/* What is published in the lobby. */
static roda_verdict watch(void *arg, enum testhost_stage stage, struct roda_ctx *x,
                          struct roda_event *ev)
{
    (void)arg;
    (void)x;
    if (stage == TESTHOST_PUBLISH && ev->msg->number && ev->msg->to.len == 5 &&
        !memcmp(ev->msg->to.ptr, "lobby", 5) && n_said < MESSAGES_MAX)
        said[n_said++] = (struct said){ev->msg->number, ev->msg->prev, ev->msg->time_ns};
    return RODA_PASS;
}

static struct {
    int calls, result;
    uint32_t n, more;
    uint64_t before, first, last, number;
    uint64_t numbers[64], prevs[64];
    int64_t times_ns[64];
} page;

static void on_page(void *arg, const struct roda_history_page *got, int result)
{
    assert_ptr_equal(arg, &page);
    page.calls++;
    page.result = result;
    page.n = 0;
    if (!got)
        return;
    assert_in_range(got->n, 0, 64);
    page.n = (uint32_t)got->n;
    page.more = got->more;
    page.before = got->before;
    page.first = got->first;
    page.last = got->last;
    page.number = got->number;
    for (size_t i = 0; i < got->n; i++) {
        const struct roda_msg *msg = got->messages[i];
        page.numbers[i] = msg->number;
        page.prevs[i] = msg->prev;
        page.times_ns[i] = msg->time_ns;
        assert_int_equal(msg->kind, RODA_TEXT);
        assert_non_null(msg->sender);
    }
}

static int ask(uint32_t worker, struct roda_history_query query)
{
    struct roda_ctx *x;
    const struct roda_history *history =
        roda_service(testhost_ctx(host, "visitor", worker), RODA_HISTORY_ID, &x);
    int r;

    assert_non_null(history);
    memset(&page, 0, sizeof(page));
    query.size = sizeof(query);
    if (!query.room.ptr)
        query.room = RODA_STR("Lobby"); /* any spelling */
    r = history->read(x, &query, on_page, &page);
    assert_int_equal(page.calls, 0); /* never inside the call */
    if (r)
        return r;
    assert_true(testhost_run(host));
    assert_int_equal(page.calls, 1);
    return page.result;
}

static int begin(void **state)
{
    (void)state;
    host = NULL;
    n_said = 0;
    seed = 1;
    memset(said, 0, sizeof(said));
    return 0;
}

static struct testhost_conn *start(uint32_t workers, const char *conf)
{
    struct testhost_conn *c;

    host = testhost_new(workers);
    assert_int_equal(testhost_load(host, &rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(host, &log_plugin, conf), 0);
    assert_int_equal(testhost_load(host, &visitor, NULL), 0);
    testhost_load_filter(host, watch, NULL);
    assert_int_equal(testhost_start(host), 0);
    c = testhost_connect(host, workers - 1, "plain", "tcp");
    assert_true(testhost_run(host));
    testhost_input(c, "JOIN|other||\n");
    assert_true(testhost_run(host));
    return c;
}

static void stop(void)
{
    assert_int_equal(testhost_stop(host), 0);
    testhost_free(host);
}

static void talk(struct testhost_conn *c, size_t n)
{
    char line[512];

    for (size_t end = n_said + n; n_said < end;) {
        const char *room = chance(4) ? "lobby" : "other";
        int len = snprintf(line, sizeof(line), "TEXT|%s||", room);
        size_t more = chance(300);
        memset(line + len, 'x', more + 1);
        line[(size_t)len + more + 1] = '\n';
        line[(size_t)len + more + 2] = '\0';
        testhost_input(c, line);
        assert_true(testhost_run(host));
        if (!chance(3))
            testhost_advance_ms(host, 1 + chance(2000));
        while (testhost_unit(c)) {
        }
    }
}

/* ---- against what was seen --------------------------------------------------------------- */

/* How many of what was said have a key of at most this. */
static size_t upto(const struct roda_history_query *q, uint64_t key)
{
    size_t n = 0;

    while (n < n_said && (q->by_time ? (uint64_t)said[n].time_ns : said[n].number) <= key)
        n++;
    return n;
}

/* said[*low .. *high) is the whole answer. */
static void expected(const struct roda_history_query *q, size_t *low, size_t *high)
{
    size_t middle;

    *low = 0;
    *high = n_said;
    switch (q->what) {
    case RODA_HISTORY_LATEST:
        *high = q->to ? upto(q, q->to) : n_said;
        break;
    case RODA_HISTORY_BEFORE:
        *high = q->from ? upto(q, q->from - 1) : 0;
        break;
    case RODA_HISTORY_AFTER:
        *low = upto(q, q->from);
        break;
    case RODA_HISTORY_BETWEEN:
        *low = q->from ? upto(q, q->from - 1) : 0;
        *high = upto(q, q->to);
        break;
    default:
        middle = upto(q, q->from);
        *low = middle > (q->max + 1) / 2 ? middle - (q->max + 1) / 2 : 0;
        *high = middle + (q->max - (q->max + 1) / 2);
        if (*high > n_said)
            *high = n_said;
        return;
    }
    if (*high < *low)
        *high = *low;
    if (*high - *low <= q->max)
        return;
    if (q->what == RODA_HISTORY_AFTER || q->what == RODA_HISTORY_BETWEEN)
        *high = *low + q->max;
    else
        *low = *high - q->max;
}

static void check(uint32_t worker, const struct roda_history_query *q)
{
    size_t low, high, n;

    expected(q, &low, &high);
    assert_int_equal(ask(worker, *q), 0);
    n = high - low < 64 ? high - low : 64;
    if (page.n != n)
        fail_msg("what %u from %llu to %llu max %u time %u: %u messages, not %zu", q->what,
                 (unsigned long long)q->from, (unsigned long long)q->to, q->max, q->by_time, page.n,
                 n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(page.numbers[i], said[low + i].number);
        assert_int_equal(page.prevs[i], said[low + i].prev);
        assert_int_equal(page.times_ns[i], said[low + i].time_ns);
    }
    if (n)
        assert_int_equal(page.before, low ? said[low - 1].number : 0);
    if (high - low > n)
        assert_int_equal(page.more, 1);
    assert_int_equal(page.last, said[n_said - 1].number);
}

static uint64_t some_key(uint32_t by_time)
{
    uint64_t number = chance(n_said + 3);
    const struct said *s = &said[number < n_said ? number : n_said - 1];

    if (!by_time)
        return number;
    return (uint64_t)s->time_ns + chance(3) - 1;
}

static void every_query_gives_what_was_said(void **state)
{
    static const size_t sizes[] = {1, 2, 3, 7, 64, 65, 300, MESSAGES_MAX};
    struct testhost_conn *c = start(3, "directory = /log\nsync = never\n");

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        unsigned bits = 1;
        talk(c, sizes[i] - n_said);
        while (n_said >> bits)
            bits++;
        for (unsigned round = 0; round < 300; round++) {
            struct roda_history_query q = {.what = 1 + (uint32_t)chance(5),
                                           .by_time = (uint32_t)chance(2),
                                           .max = 1 + (uint32_t)chance(chance(2) ? 10 : 1000)};
            int64_t reads = testhost_metric(host, "log", "log_reads_total");
            q.from = some_key(q.by_time);
            q.to = chance(4) ? some_key(q.by_time) : q.what == RODA_HISTORY_LATEST ? 0 : UINT64_MAX;
            if (q.what == RODA_HISTORY_BETWEEN && q.from > q.to)
                q.to = q.from;
            check((uint32_t)chance(3), &q);
            reads = testhost_metric(host, "log", "log_reads_total") - reads;
            /* Three look-ups, and the page. */
            assert_in_range(reads, 0, 3 * 3 * bits + page.n + 1);
        }
    }
    stop();
}

static void what_is_not_kept_or_makes_no_sense_is_refused(void **state)
{
    struct testhost_conn *c =
        start(2, "directory = /log\nsync = never\nrooms = *, !other\nprivate = yes\n");

    (void)state;
    talk(c, 3);
    assert_int_equal(ask(0, (struct roda_history_query){.what = RODA_HISTORY_LATEST,
                                                        .max = 5,
                                                        .room = RODA_STR("other")}),
                     -ENOENT);
    assert_int_equal(ask(0, (struct roda_history_query){.what = RODA_HISTORY_LATEST,
                                                        .max = 5,
                                                        .room = RODA_STR("nowhere")}),
                     -ENOENT);
    assert_int_equal(ask(0, (struct roda_history_query){.what = RODA_HISTORY_LATEST,
                                                        .max = 5,
                                                        .room = RODA_STR("@a,b")}),
                     -ENOENT);
    assert_int_equal(ask(0, (struct roda_history_query){.what = 0, .max = 5}), -EINVAL);
    assert_int_equal(ask(0, (struct roda_history_query){.what = 9, .max = 5}), -EINVAL);
    assert_int_equal(ask(0, (struct roda_history_query){.what = RODA_HISTORY_LATEST}), -EINVAL);
    assert_int_equal(ask(0, (struct roda_history_query){.what = RODA_HISTORY_LATEST, .max = 1001}),
                     -EINVAL);
    stop();
}

/* What waits for the disk is nobody's yet. */
static void a_durable_message_is_not_read_before_it_is_on_disk(void **state)
{
    struct testhost_conn *c = start(1, "directory = /log\nsync = always\n");

    (void)state;
    talk(c, 3);
    testhost_hold_files(host, true);
    for (unsigned i = 0; i < 5; i++)
        testhost_input(c, "TEXT|lobby||held\n");
    (void)testhost_run(host);
    assert_int_equal(ask(0, (struct roda_history_query){.what = RODA_HISTORY_LATEST, .max = 50}),
                     0);
    assert_int_equal(page.n, 3);
    assert_int_equal(page.last, 3);
    testhost_hold_files(host, false);
    assert_true(testhost_run(host));
    testhost_advance_ms(host, 100);
    assert_int_equal(ask(0, (struct roda_history_query){.what = RODA_HISTORY_LATEST, .max = 50}),
                     0);
    assert_int_equal(page.n, 8);
    stop();
}

static void whoever_waits_at_the_end_is_told(void **state)
{
    struct testhost_conn *c = start(2, "directory = /log\nsync = never\n");
    struct roda_ctx *x;
    const struct roda_history *history;
    struct roda_history_query q = {.size = sizeof(q),
                                   .what = RODA_HISTORY_LATEST,
                                   .max = 1,
                                   .room = RODA_STR("lobby")};

    (void)state;
    talk(c, 3);
    history = roda_service(testhost_ctx(host, "visitor", 0), RODA_HISTORY_ID, &x);
    memset(&page, 0, sizeof(page));
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(history->read(x, &q, on_page, &page), 0);
    assert_int_equal(history->read(x, &q, on_page, &page), -EAGAIN);
    stop();
    assert_int_equal(page.calls, 64);
}

#define TEST(name) cmocka_unit_test_setup(name, begin)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_query_gives_what_was_said),
        TEST(what_is_not_kept_or_makes_no_sense_is_refused),
        TEST(a_durable_message_is_not_read_before_it_is_on_disk),
        TEST(whoever_waits_at_the_end_is_told),
    };

    return cmocka_run_group_tests_name("log/history", tests, NULL, NULL);
}
