/* Connections over the fake kernel, in a whole broker: how they begin and end, and who is taken for
 * a slow reader. */
#include "unit/bus/bench.h"

#include "net/connection.h"

static unsigned asked; /* filters */

static int begin(void **state)
{
    (void)state;
    asked = 0;
    return 0;
}

static struct net *net_of(uint32_t w)
{
    return &bench_worker(w)->net;
}

/* The network and the kernel go on, and no worker does. */
static void only_time_passes(uint64_t ms)
{
    (void)sim_advance_to(bench->kernel, sim_now_ns(bench->kernel) + ms * 1000000);
}

/* ---- beginning -------------------------------------------------------------------------- */

static roda_verdict passes(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    (void)ev;
    asked++;
    return RODA_PASS;
}

/* Nobody knows any more whether it was banned; what it sent lies there all the same. */
static void who_is_gone_before_its_address_is_known_says_nothing(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].accept = passes;
    bench_start();
    struct bench_client *listener = bench_connect(0);
    for (int i = 0; i < 3; i++) {
        struct bench_client *c = bench_connect_only(0);
        only_time_passes(1);
        bench_say(c, "say 0a heard");
        only_time_passes(1);
        sim_client_reset(c->end);
        c->end = NULL;
        only_time_passes(1);
        bench_settle();
        bench_forget(c);
    }
    bench_expect(listener, "");
    assert_int_equal(asked, 1);
    assert_int_equal(bench->decodes, 0);
    assert_int_equal(bench->closed, 0); /* nor was it opened */
    assert_int_equal(net_of(0)->open, 1);
    assert_int_equal(bench->broker->totals.connections, 1);
    assert_int_equal(net_of(0)->counters.connections, 1);
    assert_int_equal(net_of(0)->counters.connections_accepted, 4);
    assert_int_equal(net_of(0)->counters.connections_closed, 3);
    assert_null(net_of(0)->slots[1].conn);
    bench_forget(listener);
    bench_end();
}

static void says_why(struct roda_ctx *x, struct roda_conn *c, const char *reason)
{
    (void)x;
    roda_out_printf(roda_conn_out(c), "closed: %s", reason);
    roda_out_unit(roda_conn_out(c));
}

static uint64_t refused_full(void)
{
    return net_of(0)->counters.connections_refused_full +
           net_of(1)->counters.connections_refused_full;
}

static void no_more_are_told_that_it_is_full_than_there_is_room_for(void **state)
{
    enum { ALLOWED = 3, MORE = 70 };
    struct bench_client *in[ALLOWED], *out[2 * MORE];
    unsigned descriptors, told = 0;

    (void)state;
    bench_new(2);
    bench->broker->limits.max_connections = ALLOWED;
    bench->protocols[0].closing = says_why;
    bench->plugins[FIRST].accept = passes;
    bench_start();
    descriptors = sim_descriptors(bench->kernel);
    for (uint32_t i = 0; i < ALLOWED; i++)
        in[i] = bench_connect(i % 2);
    for (uint32_t i = 0; i < 2 * MORE; i++)
        out[i] = bench_connect_only(i % 2);
    bench_settle(); /* those who are told have a moment to go */
    assert_int_equal(bench->broker->totals.connections, ALLOWED + NET_SPARE);
    assert_int_equal(sim_descriptors(bench->kernel), descriptors + ALLOWED + NET_SPARE);
    assert_int_equal(refused_full(), 2 * MORE);
    bench_pass(300);
    assert_int_equal(bench->broker->totals.connections, ALLOWED);
    assert_int_equal(sim_descriptors(bench->kernel), descriptors + ALLOWED);
    /* They were not let in, only told. */
    assert_int_equal(asked, ALLOWED);
    assert_int_equal(bench->closed, 0);
    for (int i = 0; i < 2 * MORE; i++) {
        bench_read(out[i]);
        assert_true(out[i]->over);
        told += !strcmp(out[i]->in, "closed: the broker is full\n");
        bench_forget(out[i]);
    }
    assert_int_equal(told, NET_SPARE);
    for (int i = 0; i < ALLOWED; i++) {
        bench_say(in[i], "ping");
        bench_expect(in[i], "pong\n");
        bench_forget(in[i]);
    }
    bench_end();
}

/* ---- slow readers ----------------------------------------------------------------------- */

enum { TIMEOUT_MS = 1000, KILOBYTE = 1000 };

static struct bench_client *client_with_much_to_read(void)
{
    struct bench_client *c = bench_connect(0);

    bench_as(0);
    for (int i = 0; i < 1000; i++) {
        roda_out_printf(roda_conn_out(bench_conn(0)), "%0*d", KILOBYTE - 1, i);
        roda_out_unit(roda_conn_out(bench_conn(0)));
    }
    bench_done(0);
    return c;
}

static void take(struct bench_client *c, size_t kilobytes)
{
    static char bytes[64 * KILOBYTE];

    assert_int_equal(sim_client_read(c->end, bytes, kilobytes * KILOBYTE), kilobytes * KILOBYTE);
}

/* A kilobyte a tenth of a second: the kernel's buffer becomes writable about every four seconds. */
static void who_takes_a_little_all_the_time_is_not_closed(void **state)
{
    uint64_t sends;

    (void)state;
    bench_new(1);
    bench->settings->write_timeout_ms = TIMEOUT_MS;
    bench_start();
    struct bench_client *c = client_with_much_to_read();
    sends = net_of(0)->counters.sends;
    for (int i = 0; i < 30 * TIMEOUT_MS / 100; i++) {
        bench_pass(100);
        take(c, 1);
    }
    assert_in_range(net_of(0)->counters.sends - sends, 3, 10);
    assert_int_equal(net_of(0)->counters.connections_closed_slow, 0);
    bench_forget(c);
    bench_end();
}

/* Not before it, whatever the fraction of a second in which it began, and not much later. */
static void who_takes_nothing_for_write_timeout_is_closed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 16; i++) {
        uint64_t since_ms;
        bench_new(1);
        bench->settings->write_timeout_ms = TIMEOUT_MS;
        bench_start();
        bench_pass(i * 130);
        struct bench_client *c = client_with_much_to_read();
        since_ms = bench_now_ms();
        if (i % 4) {
            bench_pass(i % 4 * 300);
            take(c, 5);
            since_ms = bench_now_ms();
        }
        while (net_of(0)->open)
            bench_pass(1);
        assert_in_range(bench_now_ms() - since_ms, TIMEOUT_MS, TIMEOUT_MS * 5 / 4 + 10);
        assert_int_equal(net_of(0)->counters.connections_closed_slow, 1);
        bench_forget(c);
        bench_end();
    }
}

/* ---- silence ---------------------------------------------------------------------------- */

static void asks_for_a_sign(struct roda_ctx *x, struct roda_conn *c)
{
    (void)x;
    (void)c;
    asked++;
}

static void without_ping_timeout_silence_is_no_end(void **state)
{
    (void)state;
    for (int limited = 0; limited <= 1; limited++) {
        bench_new(1);
        bench->protocols[0].idle = asks_for_a_sign;
        bench->settings->idle_ping_ms = 3000;
        bench->settings->ping_timeout_ms = limited ? 2000 : 0;
        bench_start();
        asked = 0;
        struct bench_client *c = bench_connect(0);
        for (unsigned i = 1; i <= 3; i++) {
            bench_pass(3500);
            assert_int_equal(asked, i);
            bench_say(c, "ping");
            bench_expect(c, "pong\n");
        }
        bench_pass(20000);
        bench_read(c);
        assert_int_equal(c->over, limited);
        assert_int_equal(asked, 4); /* once for each silence */
        bench_forget(c);
        bench_end();
    }
}

/* ---- the end ---------------------------------------------------------------------------- */

static roda_verdict refuses(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    asked++;
    return roda_reject(ev, RODA_E_BANNED, "%s", "not you");
}

/* More than the peer's buffer has room for. */
static void says_much(struct roda_ctx *x, struct roda_conn *c, const char *reason)
{
    (void)x;
    for (int i = 0; i < 100; i++) {
        roda_out_printf(roda_conn_out(c), "%01000d closed: %s", i, reason);
        roda_out_unit(roda_conn_out(c));
    }
}

/* How long the descriptor of somebody who reads nothing is open. */
static uint64_t held_ms(void)
{
    struct bench_client *c = bench_connect(0);
    uint64_t begun_ms = bench_now_ms();

    assert_int_equal(net_of(0)->open, 1);
    if (bench_conn(0)) {
        bench_as(0);
        roda_conn_close(bench_conn(0), "%s", "bye");
        bench_done(0);
    }
    while (net_of(0)->open)
        bench_pass(10);
    bench_forget(c);
    return bench_now_ms() - begun_ms;
}

static void only_who_was_let_in_has_time_to_take_his_last_words(void **state)
{
    (void)state;
    bench_new(1);
    bench->settings->write_timeout_ms = 2000;
    bench->protocols[0].closing = says_much;
    bench->plugins[FIRST].accept = passes;
    bench_start();
    assert_in_range(held_ms(), 1000, 2500);
    bench_end();
    bench_new(1);
    bench->settings->write_timeout_ms = 2000;
    bench->protocols[0].closing = says_much;
    bench->plugins[FIRST].accept = refuses;
    bench_start();
    assert_in_range(held_ms(), 90, 300);
    assert_int_equal(asked, 2);
    bench_end();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, begin)
    const struct CMUnitTest tests[] = {
        TEST(who_is_gone_before_its_address_is_known_says_nothing),
        TEST(no_more_are_told_that_it_is_full_than_there_is_room_for),
        TEST(who_takes_a_little_all_the_time_is_not_closed),
        TEST(who_takes_nothing_for_write_timeout_is_closed),
        TEST(without_ping_timeout_silence_is_no_end),
        TEST(only_who_was_let_in_has_time_to_take_his_last_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
