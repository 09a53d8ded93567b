#include "flood.h"

#include "plugins/ratelimit/ratelimit.h"

/* What happens to who goes beyond: answers, the broker's messages, disconnects, bans; and what is
 * wrong in the conf. */

static const uint32_t worker_numbers[] = {1, 4};

#define REFUSING "messages = 1/s burst 5\non_excess = refuse\n"

static size_t logged(const struct testhost *h, const char *part)
{
    size_t n = 0;

    for (size_t i = 0; i < testhost_log_lines(h); i++)
        n += strstr(testhost_log_line(h, i), part) != NULL;
    return n;
}

static void the_last_refusal_ends_it_and_bans_the_prefix(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const uint32_t n = worker_numbers[k];
        struct testhost *h = flood_start(n, REFUSING "kill_after = 20\nban_time = 5m\n");
        struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000), *again;
        flood_send(c, "PING\n", 24);
        assert_true(testhost_run(h));
        assert_false(testhost_closed(c));
        assert_int_equal(flood_heard(c, "answer|15|"), 19);
        flood_send(c, "PING\n", 3);
        assert_true(testhost_run(h));
        assert_true(testhost_closed(c));
        flood_hears(c, "answer|15|0|0|0|too fast: [plugin ratelimit] messages = 1/s burst 5");
        flood_hears(c, "closing|20 refusals within a minute: [plugin ratelimit] kill_after = 20");
        assert_null(testhost_unit(c));
        assert_true(
            testhost_logged(h, "ratelimit: disconnected 192.0.2.1 refusals=20 listener=plain"));
        assert_true(testhost_logged(h, "ratelimit: banned 192.0.2.1 seconds=300 listener=plain"));
        assert_int_equal(testhost_metric(h, "ratelimit", "ratelimit_bans_total"), 1);
        assert_int_equal(testhost_metric(h, "ratelimit", "ratelimit_disconnected_total"), 1);
        /* It is banned at every worker, and nobody else is. */
        testhost_advance_ms(h, 100000);
        for (uint32_t w = 0; w < n; w++) {
            again = flood_client(h, w, "192.0.2.1", 1001);
            assert_true(testhost_closed(again));
            assert_string_equal(testhost_close_reason(again),
                                "your address is banned for 200 s more: too many refusals, "
                                "[plugin ratelimit] ban_time = 300s");
            assert_false(testhost_closed(flood_client(h, w, "192.0.2.2", 1002)));
        }
        assert_int_equal(testhost_metric(h, "ratelimit", "ratelimit_refused_banned_total"), n);
        testhost_advance_ms(h, 199999);
        assert_true(testhost_closed(flood_client(h, 0, "192.0.2.1", 1003)));
        testhost_advance_ms(h, 1);
        assert_false(testhost_closed(flood_client(h, n - 1, "192.0.2.1", 1004)));
        flood_stop(h);
    }
}

static void a_ban_holds_for_the_prefix_and_its_mapped_form(void **state)
{
    struct testhost *h = flood_start(1, REFUSING "kill_after = 1\n");

    (void)state;
    flood_send(flood_client(h, 0, "2001:db8:1:2::7", 1000), "PING\n", 6);
    flood_send(flood_client(h, 0, "192.0.2.1", 1000), "PING\n", 6);
    assert_true(testhost_run(h));
    assert_true(testhost_closed(flood_client(h, 0, "2001:db8:1:2:ffff::1", 1001)));
    assert_false(testhost_closed(flood_client(h, 0, "2001:db8:1:3::7", 1001)));
    assert_true(testhost_closed(flood_client(h, 0, "::ffff:192.0.2.1", 1001)));
    flood_stop(h);
}

static void refusals_of_more_than_a_minute_do_not_add_up(void **state)
{
    struct testhost *h = flood_start(1, REFUSING "kill_after = 20\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    for (int round = 0; round < 5; round++) {
        flood_send(c, "PING\n", 24); /* 19 refusals */
        assert_true(testhost_run(h));
        testhost_advance_ms(h, 60000);
    }
    assert_false(testhost_closed(c));
    flood_send(c, "PING\n", 25);
    assert_true(testhost_run(h));
    assert_true(testhost_closed(c));
    flood_stop(h);
}

static void kill_after_0_is_never(void **state)
{
    struct testhost *h = flood_start(1, REFUSING "kill_after = 0\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    flood_send(c, "PING\n", 1000);
    assert_true(testhost_run(h));
    assert_false(testhost_closed(c));
    assert_int_equal(flood_heard(c, "answer|15|"), 995);
    flood_stop(h);
}

static void ban_time_0_is_no_ban(void **state)
{
    struct testhost *h = flood_start(1, REFUSING "kill_after = 1\nban_time = 0\n");

    (void)state;
    flood_send(flood_client(h, 0, "192.0.2.1", 1000), "PING\n", 6);
    assert_true(testhost_run(h));
    assert_false(testhost_closed(flood_client(h, 0, "192.0.2.1", 1001)));
    assert_false(testhost_logged(h, "banned"));
    flood_stop(h);
}

static void exempt_and_unix_peers_are_not_banned(void **state)
{
    struct testhost *h = flood_start(1, REFUSING "kill_after = 1\n");
    struct testhost_conn *c = flood_client(h, 0, "127.0.0.1", 1000);
    struct testhost_conn *local = testhost_connect(h, 0, "plain", "unix");

    (void)state;
    testhost_set_peer(local, "", 1001);
    flood_send(c, "PING\n", 6);
    flood_send(local, "PING\n", 6);
    assert_true(testhost_run(h));
    assert_true(testhost_closed(c));
    assert_true(testhost_closed(local));
    assert_false(testhost_closed(flood_client(h, 0, "127.0.0.1", 1001)));
    assert_true(testhost_logged(h, "refused unix-uid-1001 bucket=messages listener=plain"));
    assert_false(testhost_logged(h, "banned"));
    flood_stop(h);
}

/* Anybody may write his address on a datagram. */
static void nobody_is_banned_for_datagrams(void **state)
{
    struct testhost *h = flood_start(1, "messages = 1/s burst 5\nkill_after = 3\n");
    struct testhost_conn *c = testhost_connect(h, 0, "plain", "udp");

    (void)state;
    testhost_set_peer(c, "192.0.2.1", 1000);
    flood_send(c, "PING\n", 8);
    assert_true(testhost_run(h));
    assert_true(testhost_closed(c));
    assert_false(testhost_closed(flood_client(h, 0, "192.0.2.1", 1001)));
    assert_false(testhost_logged(h, "banned"));
    assert_false(testhost_logged(h, "refused 192.0.2.1 "));
    assert_true(testhost_logged(h, "ratelimit: refused datagrams of 192.0.2.1 bucket=messages "
                                   "listener=plain"));
    flood_stop(h);
}

/* Which of them share a table: by chance they must never be one bucket. */
static void kinds_of_buckets_have_keys_of_their_own(void **state)
{
    static const uint32_t kinds[] = {
        BUCKET_REGISTERED_MESSAGES,
        BUCKET_ADDRESS_MESSAGES,
        BUCKET_ROOM_MESSAGES,
        BUCKET_ADDRESS_CONNECTS,
        BUCKET_BAN,
    };
    enum { N = sizeof(kinds) / sizeof(*kinds) };

    (void)state;
    for (size_t i = 0; i < N; i++) {
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(key_for(1, kinds[i]) >> 61, key_for(1, kinds[k]) >> 61);
        for (uint32_t said = KEY_SAID; said <= KEY_SAID + 2 * BUCKETS; said++)
            assert_int_not_equal(key_for(1, kinds[i]) >> 61, key_for(1, said) >> 61);
    }
}

static void on_excess_disconnect_ends_it_at_once(void **state)
{
    struct testhost *h = flood_start(1, "messages = 1/s burst 5\non_excess = disconnect\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    flood_send(c, "PING\n", 6);
    assert_true(testhost_run(h));
    assert_true(testhost_closed(c));
    assert_int_equal(flood_heard(c, "PONG"), 5);
    assert_string_equal(testhost_close_reason(c),
                        "too fast: [plugin ratelimit] messages = 1/s burst 5; "
                        "[plugin ratelimit] on_excess = disconnect");
    assert_false(testhost_closed(flood_client(h, 0, "192.0.2.1", 1001)));
    flood_stop(h);
}

static void the_strictest_bans_at_once(void **state)
{
    struct testhost *h =
        flood_start(1, "messages = 1/s burst 5\non_excess = disconnect\nkill_after = 1\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    flood_send(c, "PING\n", 6);
    assert_true(testhost_run(h));
    assert_true(testhost_closed(c));
    assert_true(testhost_closed(flood_client(h, 0, "192.0.2.1", 1001)));
    flood_stop(h);
}

/* They have no bucket by address, but the broker's messages are everybody's. */
static void who_is_exempt_is_told_of_once_too(void **state)
{
    struct testhost *h = flood_start(1, "messages = 1/s burst 5\non_excess = disconnect\n");
    size_t lines = 0;

    (void)state;
    for (uint16_t port = 1000; port < 1005; port++) {
        struct testhost_conn *c = flood_client(h, 0, "127.0.0.1", port);
        flood_send(c, "PING\n", 6);
        assert_true(testhost_run(h));
        assert_true(testhost_closed(c));
    }
    for (size_t i = 0; i < testhost_log_lines(h); i++)
        lines += strstr(testhost_log_line(h, i), "refused 127.0.0.1 ") != NULL;
    assert_int_equal(lines, 1);
    flood_stop(h);
}

static void a_listener_has_a_patience_of_its_own(void **state)
{
    struct testhost *h = flood_new(1, REFUSING "kill_after = 0\n");
    struct testhost_conn *c;

    (void)state;
    assert_int_equal(testhost_listener(h, "own", "plain", "tcp",
                                       "ratelimit.kill_after = 2\nratelimit.ban_time = 1h\n"),
                     0);
    assert_int_equal(testhost_start(h), 0);
    c = testhost_connect_listener(h, 0, "own");
    testhost_set_peer(c, "192.0.2.1", 1000);
    flood_send(c, "PING\n", 7);
    assert_true(testhost_run(h));
    assert_true(testhost_closed(c));
    assert_string_equal(testhost_close_reason(c), "2 refusals within a minute: [listener own] "
                                                  "ratelimit.kill_after = 2");
    testhost_advance_ms(h, 3599000);
    assert_true(testhost_closed(flood_client(h, 0, "192.0.2.1", 1001)));
    testhost_advance_ms(h, 1000);
    assert_false(testhost_closed(flood_client(h, 0, "192.0.2.1", 1001)));
    flood_stop(h);
}

static void delays_are_no_refusals(void **state)
{
    struct testhost *h = flood_start(1, "messages = 2/s burst 1\nkill_after = 3\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    flood_send(c, "PING\n", 100);
    testhost_advance_ms(h, 60000);
    assert_int_equal(flood_heard(c, "PONG"), 100);
    assert_int_equal(testhost_log_lines(h), logged(h, "none of these"));
    flood_stop(h);
}

static void slow_mode_counts_as_well_from_another_worker(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const uint32_t n = worker_numbers[k];
        struct testhost *h = flood_start(n, "room_messages = 1/m burst 1\nkill_after = 5\n");
        struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
        flood_send(c, "TEXT|hall||hi\n", 5);
        assert_true(testhost_run(h));
        assert_false(testhost_closed(c));
        flood_send(c, "TEXT|hall||hi\n", 1);
        assert_true(testhost_run(h));
        assert_true(testhost_closed(c));
        assert_true(testhost_logged(h, "refused 192.0.2.1 bucket=room_messages listener=plain"));
        assert_true(testhost_closed(flood_client(h, 0, "192.0.2.1", 1001)));
        flood_stop(h);
    }
}

static void memory_may_be_out_at_a_refusal(void **state)
{
    struct testhost *h = flood_start(1, "room_messages = 1/m burst 1\nkill_after = 5\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    flood_send(c, "TEXT|hall||hi\n", 2);
    for (uint64_t n = 1; n < 12; n++) {
        testhost_fail_allocation(h, n);
        assert_true(testhost_run(h));
    }
    testhost_fail_allocation(h, 0);
    assert_true(testhost_run(h));
    flood_stop(h);
}

static void the_brokers_messages_are_not_flooded(void **state)
{
    struct testhost *h = flood_start(2, REFUSING "kill_after = 0\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
    struct testhost_conn *twin = flood_client(h, 1, "192.0.2.1", 1001);
    struct testhost_conn *other = flood_client(h, 1, "192.0.2.2", 1000);

    (void)state;
    flood_send(c, "PING\n", 100);
    flood_send(twin, "PING\n", 100);
    assert_true(testhost_run(h));
    assert_int_equal(logged(h, "refused 192.0.2.1 bucket=messages listener=plain"), 1);
    flood_send(other, "PING\n", 100);
    assert_true(testhost_run(h));
    assert_int_equal(logged(h, "refused 192.0.2.2 "), 1);
    for (int i = 0; i < 100; i++) {
        flood_send(c, "PING\n", 10);
        testhost_advance_ms(h, 500);
    }
    assert_in_range(logged(h, "refused 192.0.2.1 "), 5, 6);
    flood_stop(h);
}

/* ---- the conf ----------------------------------------------------------------------------- */

static void refuses_conf(const char *conf, const char *part)
{
    struct testhost *h = testhost_new(1);

    assert_int_not_equal(testhost_load(h, &ratelimit_plugin, conf), 0);
    if (!strstr(testhost_error(h), part))
        fail_msg("\"%s\" has no \"%s\"", testhost_error(h), part);
    testhost_free(h);
}

static void what_cannot_be_is_said(void **state)
{
    (void)state;
    refuses_conf("exempt = 10.0.0.0/8, 10.0.0.1/8\n", "10.0.0.1/8: the address has bits");
    refuses_conf("exempt = localhost\n", "localhost: not a network");
    refuses_conf("messages = 1/h burst 1000\n", "more than 10 days");
    refuses_conf("address_messages = 20000/s\n", "at most 10000/s");
    refuses_conf("prefix_ipv4 = 33\n", "prefix_ipv4");
}

static void the_defaults_are_those_of_the_manual(void **state)
{
    struct testhost *h = flood_new(1, NULL);
    struct testhost_conn *c[33];

    (void)state;
    assert_int_equal(testhost_start(h), 0);
    for (uint16_t i = 0; i < 33; i++) {
        c[i] = flood_client(h, 0, "192.0.2.1", (uint16_t)(1000 + i));
        assert_int_equal(testhost_closed(c[i]), i == 32);
    }
    flood_send(c[0], "PING\n", 20);
    assert_true(testhost_run(h));
    assert_int_equal(flood_heard(c[0], "PONG"), 10);
    flood_stop(h);
}

static void memory_may_be_out_at_the_start(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 30; n++) {
        struct testhost *h = flood_new(2, "room_messages = 1/s burst 1\n");
        testhost_fail_allocation(h, n);
        (void)testhost_start(h);
        testhost_fail_allocation(h, 0);
        assert_int_equal(testhost_stop(h), 0);
        testhost_free(h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_refusal_ends_it_and_bans_the_prefix),
        cmocka_unit_test(a_ban_holds_for_the_prefix_and_its_mapped_form),
        cmocka_unit_test(refusals_of_more_than_a_minute_do_not_add_up),
        cmocka_unit_test(kill_after_0_is_never),
        cmocka_unit_test(ban_time_0_is_no_ban),
        cmocka_unit_test(exempt_and_unix_peers_are_not_banned),
        cmocka_unit_test(nobody_is_banned_for_datagrams),
        cmocka_unit_test(kinds_of_buckets_have_keys_of_their_own),
        cmocka_unit_test(on_excess_disconnect_ends_it_at_once),
        cmocka_unit_test(the_strictest_bans_at_once),
        cmocka_unit_test(who_is_exempt_is_told_of_once_too),
        cmocka_unit_test(a_listener_has_a_patience_of_its_own),
        cmocka_unit_test(delays_are_no_refusals),
        cmocka_unit_test(slow_mode_counts_as_well_from_another_worker),
        cmocka_unit_test(memory_may_be_out_at_a_refusal),
        cmocka_unit_test(the_brokers_messages_are_not_flooded),
        cmocka_unit_test(what_cannot_be_is_said),
        cmocka_unit_test(the_defaults_are_those_of_the_manual),
        cmocka_unit_test(memory_may_be_out_at_the_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
