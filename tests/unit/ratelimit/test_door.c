#include "flood.h"

/* Who may connect: how fast, how many at once, from where; over all workers together. */

static const uint32_t worker_numbers[] = {1, 4};

static uint16_t next_port = 1000;

static struct testhost_conn *knock(struct testhost *h, uint32_t worker, const char *address)
{
    return flood_client(h, worker, address, next_port++);
}

/* Connects n times, and leaves at once. Returns how many were let in. */
static size_t come_and_go(struct testhost *h, uint32_t n_workers, const char *address, size_t n)
{
    size_t opened = 0;

    for (size_t i = 0; i < n; i++) {
        struct testhost_conn *c = knock(h, (uint32_t)i % n_workers, address);
        opened += !testhost_closed(c);
        testhost_reset(c);
        assert_true(testhost_run(h));
    }
    return opened;
}

static void connects_keep_burst_and_rate(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const uint32_t n = worker_numbers[k];
        struct testhost *h = flood_start(n, "address_connects = 1/s burst 32\nstart_grace = 0\n");
        size_t opened = 0;
        assert_int_equal(come_and_go(h, n, "192.0.2.1", 100), 32);
        assert_int_equal(come_and_go(h, n, "192.0.2.2", 10), 10);
        for (int i = 0; i < 1000; i++) { /* three windows, and a bit */
            testhost_advance_ms(h, 100);
            opened += come_and_go(h, n, "192.0.2.1", 1);
        }
        assert_int_equal(opened, 100);
        flood_stop(h);
    }
}

static void who_is_refused_is_told_why(void **state)
{
    struct testhost *h =
        flood_start(1,
                    "address_connects = 1/s burst 1\naddress_connections = 1\nstart_grace = 0\n");
    struct testhost_conn *first, *c;

    (void)state;
    first = knock(h, 0, "192.0.2.1");
    c = knock(h, 0, "192.0.2.1");
    assert_true(testhost_closed(c));
    assert_string_equal(testhost_close_reason(c), "too many connections from your address: [plugin "
                                                  "ratelimit] address_connections = 1");
    testhost_reset(first);
    assert_true(testhost_run(h));
    c = knock(h, 0, "192.0.2.1");
    assert_true(testhost_closed(c));
    assert_string_equal(testhost_close_reason(c),
                        "your address connects too fast: "
                        "[plugin ratelimit] address_connects = 1/s burst 1");
    assert_true(
        testhost_logged(h, "ratelimit: refused 192.0.2.1 bucket=address_connects listener=plain"));
    assert_true(
        testhost_logged(h,
                        "ratelimit: refused 192.0.2.1 bucket=address_connections listener=plain"));
    flood_stop(h);
}

static void after_the_start_all_may_come_back(void **state)
{
    struct testhost *h = flood_start(2, "address_connects = 1/s burst 2\nstart_grace = 2m\n");

    (void)state;
    assert_int_equal(come_and_go(h, 2, "192.0.2.1", 50), 50);
    testhost_advance_ms(h, 119999);
    assert_int_equal(come_and_go(h, 2, "192.0.2.1", 50), 50);
    testhost_advance_ms(h, 1);
    assert_int_equal(come_and_go(h, 2, "192.0.2.1", 50), 2);
    flood_stop(h);
}

static void open_connections_are_counted_over_all_workers(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const uint32_t n = worker_numbers[k];
        struct testhost *h = flood_start(n, "address_connections = 32\n");
        struct testhost_conn *c[40];
        for (uint32_t i = 0; i < 40; i++) {
            c[i] = knock(h, i % n, "192.0.2.1");
            assert_int_equal(testhost_closed(c[i]), i >= 32);
        }
        assert_false(testhost_closed(knock(h, 0, "192.0.2.2")));
        for (uint32_t i = 0; i < 5; i++)
            testhost_reset(c[i]);
        assert_true(testhost_run(h));
        for (uint32_t i = 0; i < 10; i++)
            assert_int_equal(testhost_closed(knock(h, n - 1, "192.0.2.1")), i >= 5);
        flood_stop(h);
    }
}

static roda_verdict let_all_wait(void *arg, enum testhost_stage stage, struct roda_ctx *x,
                                 struct roda_event *ev)
{
    const uint64_t *until_ms = arg;
    uint64_t now_ms = roda_now_ms(x);

    if (stage != TESTHOST_ACCEPT || now_ms >= *until_ms)
        return RODA_PASS;
    return roda_delay(ev, *until_ms - now_ms);
}

static void those_who_come_at_the_same_moment_are_counted_too(void **state)
{
    struct testhost *h = testhost_new(4);
    size_t opened = 0;
    uint64_t until_ms;
    struct testhost_conn *c[12];

    (void)state;
    assert_int_equal(testhost_load(h, &ratelimit_plugin,
                                   "address_connections = 3\naddress_connects = off\n"),
                     0);
    testhost_load_filter(h, let_all_wait, &until_ms); /* behind the limit */
    assert_int_equal(testhost_start(h), 0);
    until_ms = roda_now_ms(testhost_ctx(h, "ratelimit", 0)) + 500;
    for (uint32_t i = 0; i < 12; i++) {
        c[i] = testhost_connect(h, i % 4, "plain", "tcp");
        testhost_set_peer(c[i], "192.0.2.1", (uint16_t)(1000 + i));
    }
    assert_true(testhost_run(h));
    for (uint32_t i = 0; i < 12; i++)
        assert_false(testhost_closed(c[i]));
    testhost_advance_ms(h, 500);
    for (uint32_t i = 0; i < 12; i++)
        opened += !testhost_closed(c[i]);
    assert_int_equal(opened, 3);
    flood_stop(h);
}

static roda_verdict refuse_half(void *arg, enum testhost_stage stage, struct roda_ctx *x,
                                struct roda_event *ev)
{
    int *calls = arg;

    (void)x;
    if (stage != TESTHOST_ACCEPT || ++*calls % 2)
        return RODA_PASS;
    return roda_reject(ev, RODA_E_BANNED, "not you");
}

static void who_another_filter_refuses_is_not_counted(void **state)
{
    struct testhost *h = testhost_new(1);
    size_t opened = 0;
    int calls = 0;

    (void)state;
    assert_int_equal(testhost_load(h, &ratelimit_plugin,
                                   "address_connections = 5\naddress_connects = off\n"),
                     0);
    testhost_load_filter(h, refuse_half, &calls);
    assert_int_equal(testhost_start(h), 0);
    for (int i = 0; i < 10; i++)
        opened += !testhost_closed(knock(h, 0, "192.0.2.1"));
    assert_int_equal(opened, 5);
    flood_stop(h);
}

static void prefixes_count_as_one(void **state)
{
    struct testhost *h =
        flood_start(2, "address_connections = 2\nprefix_ipv4 = 24\nprefix_ipv6 = 48\n");

    (void)state;
    assert_false(testhost_closed(knock(h, 0, "192.0.2.1")));
    assert_false(testhost_closed(knock(h, 1, "::ffff:192.0.2.99")));
    assert_true(testhost_closed(knock(h, 0, "192.0.2.200")));
    assert_false(testhost_closed(knock(h, 0, "192.0.3.1")));
    assert_false(testhost_closed(knock(h, 0, "2001:db8:1:1::1")));
    assert_false(testhost_closed(knock(h, 1, "2001:db8:1:2::1")));
    assert_true(testhost_closed(knock(h, 1, "2001:db8:1:3::1")));
    assert_false(testhost_closed(knock(h, 1, "2001:db8:2:3::1")));
    flood_stop(h);
}

static void exempt_and_unix_peers_may_always_come(void **state)
{
    struct testhost *h =
        flood_start(1,
                    "address_connections = 1\naddress_connects = 1/h burst 1\nstart_grace = 0\n");

    (void)state;
    for (int i = 0; i < 20; i++) {
        struct testhost_conn *local = testhost_connect(h, 0, "plain", "unix");
        testhost_set_peer(local, "", 1000);
        assert_false(testhost_closed(knock(h, 0, "127.0.0.1")));
        assert_false(testhost_closed(knock(h, 0, "::1")));
        assert_false(testhost_closed(knock(h, 0, "::ffff:127.1.2.3")));
        assert_false(testhost_closed(local));
    }
    flood_stop(h);
}

static void a_listener_may_let_in_more(void **state)
{
    struct testhost *h = flood_new(1, "address_connections = 2\n");
    struct testhost_conn *c;

    (void)state;
    assert_int_equal(testhost_listener(h, "school", "plain", "tcp",
                                       "ratelimit.address_connections = 4\n"),
                     0);
    assert_int_equal(testhost_start(h), 0);
    (void)knock(h, 0, "192.0.2.1");
    (void)knock(h, 0, "192.0.2.1");
    assert_true(testhost_closed(knock(h, 0, "192.0.2.1")));
    for (int i = 0; i < 3; i++) {
        c = testhost_connect_listener(h, 0, "school");
        testhost_set_peer(c, "192.0.2.1", (uint16_t)(2000 + i));
        assert_true(testhost_run(h));
        assert_int_equal(testhost_closed(c), i >= 2);
    }
    assert_string_equal(testhost_close_reason(c),
                        "too many connections from your address: [listener "
                        "school] ratelimit.address_connections = 4");
    flood_stop(h);
}

static void a_listener_may_be_slower(void **state)
{
    struct testhost *h = flood_new(1, "address_connects = off\nstart_grace = 0\n");
    size_t opened = 0;

    (void)state;
    assert_int_equal(testhost_listener(h, "own", "plain", "tcp",
                                       "ratelimit.address_connects = 1/s burst 2\n"),
                     0);
    assert_int_equal(testhost_start(h), 0);
    for (uint16_t i = 0; i < 5; i++) {
        struct testhost_conn *c = testhost_connect_listener(h, 0, "own");
        testhost_set_peer(c, "192.0.2.1", (uint16_t)(3000 + i));
        assert_true(testhost_run(h));
        opened += !testhost_closed(c);
        assert_false(testhost_closed(knock(h, 0, "192.0.2.1")));
    }
    assert_int_equal(opened, 2);
    flood_stop(h);
}

/* Who has as many connections as he may does not use up what others of his address need. */
static void who_may_not_come_does_not_count_as_come(void **state)
{
    struct testhost *h = flood_start(1, "address_connects = 1/h burst 4\naddress_connections = 2\n"
                                        "start_grace = 0\n");
    struct testhost_conn *c = knock(h, 0, "192.0.2.1");

    (void)state;
    (void)knock(h, 0, "192.0.2.1");
    for (int i = 0; i < 10; i++)
        assert_true(testhost_closed(knock(h, 0, "192.0.2.1")));
    testhost_reset(c);
    assert_true(testhost_run(h));
    assert_false(testhost_closed(knock(h, 0, "192.0.2.1")));
    flood_stop(h);
}

/* With the defaults, and an address a client. */
static void many_prefixes_leave_memory_as_it_is(void **state)
{
    struct testhost *h = flood_new(4, "exempt =\nstart_grace = 0\naddress_table = 1024\n");
    uint64_t first, later;
    char address[64];

    (void)state;
    assert_int_equal(testhost_start(h), 0);
    for (uint32_t round = 0; round < 2; round++) {
        later = testhost_allocations(h);
        for (uint32_t i = 0; i < 3000; i++) {
            struct testhost_conn *c;
            (void)snprintf(address, sizeof(address), "2001:db8:%x:%x::1", round, i);
            c = knock(h, i % 4, address);
            assert_false(testhost_closed(c));
            if (i % 100 == 0)
                testhost_input(c, "PING\n");
            testhost_reset(c);
            if (i % 100 == 0)
                assert_true(testhost_run(h));
        }
        assert_true(testhost_run(h));
        first = round ? first : testhost_allocations(h) - later;
        later = testhost_allocations(h) - later;
    }
    assert_int_equal(later, first); /* what connections need, and nothing else */
    testhost_advance_ms(h, 400000);
    assert_int_equal(testhost_metric(h, "ratelimit", "ratelimit_table_used"), 0);
    assert_int_equal(testhost_metric(h, "ratelimit", "ratelimit_table_buckets"), 1024);
    assert_true(testhost_metric(h, "ratelimit", "ratelimit_table_replaced_total") > 0);
    flood_stop(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connects_keep_burst_and_rate),
        cmocka_unit_test(who_is_refused_is_told_why),
        cmocka_unit_test(after_the_start_all_may_come_back),
        cmocka_unit_test(open_connections_are_counted_over_all_workers),
        cmocka_unit_test(those_who_come_at_the_same_moment_are_counted_too),
        cmocka_unit_test(who_another_filter_refuses_is_not_counted),
        cmocka_unit_test(prefixes_count_as_one),
        cmocka_unit_test(exempt_and_unix_peers_may_always_come),
        cmocka_unit_test(a_listener_may_let_in_more),
        cmocka_unit_test(a_listener_may_be_slower),
        cmocka_unit_test(who_may_not_come_does_not_count_as_come),
        cmocka_unit_test(many_prefixes_leave_memory_as_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
