#include "flood.h"

/* Input: each bucket's burst and its rate over several windows, with one worker and with four;
 * order and loss; what is no message; debts; slow mode. */

static const uint32_t worker_numbers[] = {1, 4};

static size_t pongs(struct testhost_conn *c)
{
    return flood_heard(c, "PONG");
}

static void messages_keep_burst_and_rate(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const uint32_t n = worker_numbers[k];
        struct testhost *h = flood_start(n, "messages = 2/s burst 10\n");
        struct testhost_conn *c = flood_client(h, n - 1, "192.0.2.1", 1000);
        size_t passed;
        flood_send(c, "PING\n", 100);
        assert_true(testhost_run(h));
        passed = pongs(c);
        assert_int_equal(passed, 10);
        testhost_advance_ms(h, 499);
        assert_int_equal(pongs(c), 0);
        testhost_advance_ms(h, 1);
        assert_int_equal(pongs(c), 1);
        /* The bucket's window is 5 s; over four of them: */
        testhost_advance_ms(h, 20000);
        assert_int_equal(pongs(c), 40);
        testhost_advance_ms(h, 1000000);
        assert_int_equal(pongs(c), 49); /* none is lost */
        assert_int_equal(testhost_metric(h, "ratelimit", "ratelimit_delayed_total"), 90);
        assert_int_equal(testhost_metric(h, "ratelimit", "ratelimit_refused_messages_total"), 0);
        /* And it is full again. */
        flood_send(c, "PING\n", 11);
        assert_true(testhost_run(h));
        assert_int_equal(pongs(c), 10);
        flood_stop(h);
    }
}

static void a_rate_beyond_the_clock_is_kept_whatever_the_burst(void **state)
{
    static const unsigned rates[] = {700, 1000, 1500, 3000, 5000, 10000};
    static const unsigned bursts[] = {1, 3, 50};
    static const char *const names[] = {"messages", "address_messages"};

    (void)state;
    for (size_t i = 0; i < 6 * 3 * 2; i++) {
        unsigned rate = rates[i % 6], burst = bursts[i / 6 % 3];
        size_t passed;
        char conf[64];
        (void)snprintf(conf, sizeof(conf), "%s = %u/s burst %u\n", names[i / 18], rate, burst);
        struct testhost *h = flood_start(1, conf);
        struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
        flood_send(c, "PING\n", 30000);
        assert_true(testhost_run(h));
        assert_in_range(pongs(c), burst, burst + (rate > 1000 ? rate / 1000 : 0));
        testhost_advance_ms(h, 2000);
        passed = pongs(c);
        assert_in_range(passed, 2 * rate * 99 / 100, 2 * rate * 101 / 100);
        flood_stop(h);
    }
}

static void where_nothing_may_wait_a_rate_beyond_the_clock_is_kept_too(void **state)
{
    static const unsigned rates[] = {700, 5000};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char conf[80];
        size_t passed = 0;
        (void)snprintf(conf, sizeof(conf),
                       "on_excess = refuse\nkill_after = 0\nmessages = %u/s burst 1\n", rates[i]);
        struct testhost *h = flood_start(1, conf);
        struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
        for (int ms = 0; ms < 2000; ms++) {
            flood_send(c, "PING\n", 10);
            assert_true(testhost_run(h));
            passed += pongs(c);
            testhost_advance_ms(h, 1);
        }
        assert_in_range(passed, 2 * rates[i] * 99 / 100, 2 * rates[i] * 101 / 100);
        flood_stop(h);
    }
}

static void a_flood_keeps_its_order_and_nobody_waits_for_it(void **state)
{
    struct testhost *h = flood_start(1, "messages = 2/s burst 10\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
    struct testhost_conn *witness = flood_client(h, 0, "192.0.2.1", 1001);
    char line[40], wanted[40];

    (void)state;
    for (int i = 0; i < 60; i++) {
        (void)snprintf(line, sizeof(line), "TEXT|hall||%d\n", i);
        testhost_input(c, line);
    }
    testhost_end_input(c); /* what was sent before the end still comes */
    for (int s = 0; s < 20; s++) {
        testhost_input(witness, "PING\n");
        assert_true(testhost_run(h));
        assert_int_equal(pongs(witness), 1);
        testhost_advance_ms(h, 1000);
    }
    testhost_advance_ms(h, 20000);
    for (int i = 0; i < 60; i++) {
        (void)snprintf(wanted, sizeof(wanted), "answer|0|TEXT|%d|%d|", i + 1, i + 1);
        flood_hears(c, wanted);
    }
    assert_true(testhost_closed(c));
    flood_stop(h);
}

static void what_is_no_message_counts_too(void **state)
{
    static const char *const lines[] = {"\n", "nonsense\n", "PING\n", "\x01\n", "AWAY|||\n"};
    struct testhost *h = flood_start(1, "messages = 1/s burst 5\non_excess = refuse\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
        testhost_input(c, lines[i]);
    assert_true(testhost_run(h));
    (void)flood_heard(c, "");
    testhost_input(c, "PING\n");
    assert_true(testhost_run(h));
    flood_hears(c, "answer|15|0|0|0|too fast: [plugin ratelimit] messages = 1/s burst 5");
    flood_stop(h);
}

static void bytes_keep_burst_and_rate(void **state)
{
    char line[1025];

    (void)state;
    memset(line, 'x', sizeof(line));
    memcpy(line, "NOTICE|hall||", 13);
    (void)snprintf(line + 1023, 2, "\n");
    for (size_t k = 0; k < 2; k++) {
        const uint32_t n = worker_numbers[k];
        struct testhost *h = flood_start(n, "bytes = 4k/s burst 16k\n");
        struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
        size_t passed, before;
        flood_send(c, line, 200); /* of 1023 bytes */
        assert_true(testhost_run(h));
        passed = flood_heard(c, "answer|0|");
        assert_int_equal(passed, 16);
        /* The window is 4 s. */
        before = passed;
        testhost_advance_ms(h, 16000);
        passed += flood_heard(c, "answer|0|");
        assert_in_range((passed - before) * 1023, 4096 * 16 * 99 / 100, 4096 * 16 * 101 / 100);
        testhost_advance_ms(h, 1000000);
        passed += flood_heard(c, "answer|0|");
        assert_int_equal(passed, 200);
        flood_stop(h);
    }
}

static void a_unit_beyond_the_whole_burst_waits_for_the_empty_bucket(void **state)
{
    struct testhost *h = flood_start(1, "bytes = 1k/s burst 1k\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
    char line[4002];

    (void)state;
    memset(line, 'x', sizeof(line));
    memcpy(line, "NOTICE|hall||", 13);
    (void)snprintf(line + 4000, 2, "\n");
    testhost_input(c, line);
    testhost_input(c, line);
    testhost_input(c, "PING\n");
    assert_true(testhost_run(h));
    assert_int_equal(flood_heard(c, "answer|0|"), 1);
    testhost_advance_ms(h, 3905); /* of 3906.25 */
    assert_int_equal(flood_heard(c, "answer|0|"), 0);
    testhost_advance_ms(h, 1);
    assert_int_equal(flood_heard(c, "answer|0|"), 1);
    testhost_advance_ms(h, 2900); /* of the second one, a burst may be left */
    assert_int_equal(pongs(c), 0);
    testhost_advance_ms(h, 100);
    assert_int_equal(pongs(c), 1);
    flood_stop(h);
}

static void an_address_has_one_rate_for_all_connections_and_workers(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const uint32_t n = worker_numbers[k];
        struct testhost *h = flood_start(n, "address_messages = 10/s burst 40\n");
        struct testhost_conn *c[8], *other = flood_client(h, 0, "192.0.2.2", 999);
        size_t passed = 0, least = SIZE_MAX, most = 0;
        for (uint16_t i = 0; i < 8; i++) {
            c[i] = flood_client(h, i % n, "192.0.2.1", (uint16_t)(1000 + i));
            flood_send(c[i], "PING\n", 100);
        }
        assert_true(testhost_run(h));
        for (size_t i = 0; i < 8; i++)
            passed += pongs(c[i]);
        assert_int_equal(passed, 40);
        testhost_input(other, "PING\n");
        passed = 0;
        testhost_advance_ms(h, 20000); /* five windows */
        assert_int_equal(pongs(other), 1);
        for (size_t i = 0; i < 8; i++) {
            size_t own = pongs(c[i]);
            passed += own;
            least = own < least ? own : least;
            most = own > most ? own : most;
        }
        assert_int_equal(passed, 200);
        assert_true(most - least <= 1); /* in turns */
        flood_stop(h);
    }
}

static void ipv6_is_counted_by_its_prefix(void **state)
{
    struct testhost *h = flood_start(2, "address_messages = 1/s burst 10\n");
    struct testhost_conn *a = flood_client(h, 0, "2001:db8:1:2::1", 1000);
    struct testhost_conn *b = flood_client(h, 1, "2001:db8:1:2:abcd::1", 1001);
    struct testhost_conn *other = flood_client(h, 1, "2001:db8:1:3::1", 1002);
    struct testhost_conn *ipv4 = flood_client(h, 0, "192.0.2.1", 1003);
    struct testhost_conn *mapped = flood_client(h, 1, "::ffff:192.0.2.1", 1004);

    (void)state;
    flood_send(a, "PING\n", 8);
    flood_send(ipv4, "PING\n", 8);
    assert_true(testhost_run(h));
    flood_send(b, "PING\n", 8);
    flood_send(other, "PING\n", 8);
    flood_send(mapped, "PING\n", 8);
    assert_true(testhost_run(h));
    assert_int_equal(pongs(a), 8);
    assert_int_equal(pongs(b), 2);
    assert_int_equal(pongs(other), 8);
    assert_int_equal(pongs(ipv4), 8);
    assert_int_equal(pongs(mapped), 2);
    flood_stop(h);
}

static void exempt_and_unix_peers_are_not_counted_by_address(void **state)
{
    static const char conf[] = "address_messages = 1/s burst 1\nexempt = 10.0.0.0/8, ::1\n";
    struct testhost *h = flood_start(1, conf);
    struct testhost_conn *net = flood_client(h, 0, "10.1.2.3", 1000);
    struct testhost_conn *one = flood_client(h, 0, "::1", 1001);
    struct testhost_conn *loop = flood_client(h, 0, "127.0.0.1", 1002); /* no longer */
    struct testhost_conn *local = testhost_connect(h, 0, "plain", "unix");

    (void)state;
    testhost_set_peer(local, "", 1003);
    assert_true(testhost_run(h));
    flood_send(net, "PING\n", 50);
    flood_send(one, "PING\n", 50);
    flood_send(loop, "PING\n", 50);
    flood_send(local, "PING\n", 50);
    assert_true(testhost_run(h));
    assert_int_equal(pongs(net), 50);
    assert_int_equal(pongs(one), 50);
    assert_int_equal(pongs(loop), 1);
    assert_int_equal(pongs(local), 50);
    flood_stop(h);
}

static void an_account_has_its_own_rate_for_all_its_connections(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const uint32_t n = worker_numbers[k];
        struct testhost *h =
            flood_start(n, "messages = 1/s burst 1\nregistered_messages = 5/s burst 20\n");
        struct testhost_conn *a = flood_client(h, 0, "192.0.2.1", 50001);
        struct testhost_conn *b = flood_client(h, n - 1, "192.0.2.2", 50002);
        struct testhost_conn *other = flood_client(h, n - 1, "192.0.2.2", 50100);
        flood_send(a, "PING\n", 200);
        flood_send(b, "PING\n", 200);
        flood_send(other, "PING\n", 15);
        assert_true(testhost_run(h));
        assert_int_equal(pongs(a) + pongs(b), 20);
        assert_int_equal(pongs(other), 15);
        testhost_advance_ms(h, 20000); /* five windows */
        assert_int_equal(pongs(a) + pongs(b), 100);
        flood_stop(h);
    }
}

static void joins_keep_burst_and_rate(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const uint32_t n = worker_numbers[k];
        struct testhost *h = flood_start(n, "joins = 1/s burst 10\n");
        struct testhost_conn *c = flood_client(h, n - 1, "192.0.2.1", 1000);
        flood_send(c, "TEXT|hall||not a join\n", 30);
        flood_send(c, "JOIN|hall||\n", 60);
        flood_send(c, "TEXT|hall||last\n", 1);
        assert_true(testhost_run(h));
        assert_int_equal(flood_heard(c, "answer|0|"), 30 + 10);
        testhost_advance_ms(h, 40000); /* four windows */
        assert_int_equal(flood_heard(c, "answer|0|JOIN"), 40);
        testhost_advance_ms(h, 10000);
        assert_int_equal(flood_heard(c, "answer|0|"), 10 + 1);
        flood_stop(h);
    }
}

static void several_messages_of_one_unit_are_paid_for(void **state)
{
    struct testhost *h = flood_start(1, "messages = 2/s burst 10\n");
    struct testhost_conn *c = testhost_connect(h, 0, "many", "tcp");

    (void)state;
    assert_true(testhost_run(h));
    testhost_input(c, "20\n");
    testhost_input(c, "1\n");
    assert_true(testhost_run(h));
    assert_int_equal(flood_heard(c, "answer|0"), 20); /* one unit */
    testhost_advance_ms(h, 5400);
    assert_int_equal(flood_heard(c, "answer|0"), 0);
    testhost_advance_ms(h, 100); /* 10 beyond the burst, and its own one, at 2/s */
    assert_int_equal(flood_heard(c, "answer|0"), 1);
    flood_stop(h);
}

static void dear_commands_are_paid_for_afterwards(void **state)
{
    struct testhost *h =
        flood_start(2, "messages = 2/s burst 10\naddress_messages = 4/s burst 40\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
    struct testhost_conn *twin = flood_client(h, 1, "192.0.2.1", 1001);

    (void)state;
    testhost_input(c, "TOPIC|hall||19\n"); /* 20 in all */
    assert_true(testhost_run(h));
    flood_hears(c, "answer|0|TOPIC|1|0|");
    testhost_input(c, "PING\n");
    assert_true(testhost_run(h));
    testhost_advance_ms(h, 5499);
    assert_int_equal(pongs(c), 0);
    testhost_advance_ms(h, 1);
    assert_int_equal(pongs(c), 1);
    testhost_advance_ms(h, 60000);
    /* The address pays as well. */
    testhost_input(c, "TOPIC|hall||37\n");
    assert_true(testhost_run(h));
    flood_send(twin, "PING\n", 5);
    assert_true(testhost_run(h));
    assert_int_equal(pongs(twin), 2);
    flood_stop(h);
}

static void a_debt_has_an_end(void **state)
{
    struct testhost *h = flood_start(1, "messages = 2/s burst 10\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    for (int i = 0; i < 10; i++)
        testhost_input(c, "TOPIC|hall||1000\n");
    assert_true(testhost_run(h));
    testhost_advance_ms(h, 1120000);
    flood_send(c, "PING\n", 1);
    assert_true(testhost_run(h));
    assert_int_equal(pongs(c), 1);
    flood_stop(h);
}

static void a_debt_has_an_end_however_dear_it_was(void **state)
{
    struct testhost *h =
        flood_start(1, "messages = 1/m burst 10\naddress_messages = 1/m burst 10\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    testhost_input(c, "TOPIC|hall||2000000000\n");
    assert_true(testhost_run(h));
    flood_hears(c, "answer|0|TOPIC|1|0|");
    testhost_advance_ms(h, 700000); /* ten minutes beyond the limit, and one for itself twice */
    flood_send(c, "PING\n", 1);
    assert_true(testhost_run(h));
    assert_int_equal(flood_heard(c, "answer|15|"), 1);
    testhost_advance_ms(h, 20000);
    flood_send(c, "PING\n", 1);
    assert_true(testhost_run(h));
    assert_int_equal(pongs(c), 1);
    flood_stop(h);
}

static void datagrams_are_refused_at_once(void **state)
{
    struct testhost *h = flood_start(1, "messages = 2/s burst 10\nkill_after = 0\n");
    struct testhost_conn *c = testhost_connect(h, 0, "plain", "udp");

    (void)state;
    assert_true(testhost_run(h));
    flood_send(c, "PING\n", 30);
    assert_true(testhost_run(h));
    for (int i = 0; i < 10; i++)
        flood_hears(c, "PONG");
    for (int i = 0; i < 20; i++)
        flood_hears(c, "answer|15|0|0|0|too fast: [plugin ratelimit] messages = 2/s burst 10");
    assert_null(testhost_unit(c));
    /* What was refused cost nothing: over four windows it is the rate. */
    for (int i = 0; i < 200; i++) {
        flood_send(c, "PING\n", 1);
        testhost_advance_ms(h, 100);
    }
    assert_int_equal(pongs(c), 39);
    flood_stop(h);
}

static void what_is_refused_for_one_bucket_fills_no_other(void **state)
{
    struct testhost *h =
        flood_start(1, "messages = 1/h burst 5\naddress_messages = 1/h burst 5\n"
                       "bytes = 1k/s burst 1k\non_excess = refuse\nkill_after = 0\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
    char line[1001];

    (void)state;
    memset(line, 'x', sizeof(line));
    memcpy(line, "NOTICE|hall||", 13);
    (void)snprintf(line + 999, 2, "\n");
    flood_send(c, line, 11);
    assert_true(testhost_run(h));
    assert_int_equal(flood_heard(c, "answer|15|"), 10);
    testhost_advance_ms(h, 1000);
    flood_send(c, "PING\n", 10);
    assert_true(testhost_run(h));
    assert_int_equal(pongs(c), 4);
    flood_stop(h);
}

static void a_wait_that_nobody_would_wait_for_is_refused(void **state)
{
    struct testhost *h = flood_start(1, "messages = 3/m burst 2\nkill_after = 0\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
    size_t passed = 0;

    (void)state;
    flood_send(c, "PING\n", 3);
    assert_true(testhost_run(h));
    flood_hears(c, "PONG");
    flood_hears(c, "PONG");
    flood_hears(c, "answer|15|0|0|0|too fast: [plugin ratelimit] messages = 3/m burst 2");
    for (int s = 0; s < 200; s++) { /* five windows of 40 s */
        testhost_input(c, "PING\n");
        testhost_advance_ms(h, 1000);
        passed += pongs(c);
    }
    assert_in_range(passed, 9, 11); /* one every 20 s */
    flood_stop(h);
}

/* Whatever refuses it, the answer names the limit. */
static void what_max_delay_ends_is_there_for_the_next(void **state)
{
    struct testhost *h =
        flood_start(1, "messages = 12/m burst 1\njoins = 12/m burst 1\nkill_after = 0\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
    size_t passed = 0, refused = 0;
    const char *unit;

    (void)state;
    testhost_max_delay_ms(h, 1000);
    flood_send(c, "PING\n", 40);
    assert_true(testhost_run(h));
    assert_int_equal(pongs(c), 1);
    for (int s = 0; s < 30; s++) {
        testhost_advance_ms(h, 1000);
        while ((unit = testhost_unit(c))) {
            if (!strcmp(unit, "PONG"))
                passed++;
            else if (!strcmp(unit, "answer|15|0|0|0|too fast: [plugin ratelimit] messages = 12/m "
                                   "burst 1"))
                refused++;
            else
                fail_msg("%s", unit);
        }
    }
    assert_int_equal(passed, 6); /* one in 5 s, although nothing may wait longer than one */
    assert_in_range(refused, 23, 24);
    assert_int_equal(testhost_metric(h, "ratelimit", "ratelimit_refused_messages_total"), refused);
    flood_stop(h);
}

static void joins_that_max_delay_ends_are_there_for_the_next(void **state)
{
    struct testhost *h = flood_start(1, "joins = 12/m burst 1\nkill_after = 0\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
    size_t passed = 0, refused = 0;
    const char *unit;

    (void)state;
    testhost_max_delay_ms(h, 1000);
    flood_send(c, "JOIN|hall||\n", 40);
    assert_true(testhost_run(h));
    assert_int_equal(flood_heard(c, "answer|0|JOIN|"), 1);
    for (int s = 0; s < 30; s++) {
        testhost_advance_ms(h, 1000);
        while ((unit = testhost_unit(c))) {
            if (!strncmp(unit, "answer|0|JOIN|", 14))
                passed++;
            else if (!strncmp(unit, "answer|15|JOIN|", 15) &&
                     strstr(unit, "|too fast: [plugin ratelimit] joins = 12/m burst 1"))
                refused++;
            else
                fail_msg("%s", unit);
        }
    }
    assert_int_equal(passed, 6);
    assert_in_range(refused, 23, 24);
    flood_stop(h);
}

/* Times in milliseconds of 32 bits come round after weeks. */
static void what_was_left_over_is_not_found_after_weeks(void **state)
{
    struct testhost *h =
        flood_start(1, "messages = 6/m burst 1\nkill_after = 0\naddress_table = 1024\n");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    testhost_max_delay_ms(h, 1000);
    flood_send(c, "PING\n", 2);
    testhost_advance_ms(h, 2000);
    assert_int_equal(flood_heard(c, "answer|15|"), 1);
    testhost_advance_ms(h, UINT64_C(30) * 86400 * 1000);
    flood_send(c, "PING\n", 1);
    assert_true(testhost_run(h));
    assert_int_equal(pongs(c), 1);
    flood_stop(h);
}

/* What is too long is gone, but it takes its time, however slowly it comes. */
static void lines_that_are_too_long_keep_the_rate(void **state)
{
    static const uint64_t pauses_ms[] = {10, 60, 110, 310};
    char line[5001];

    (void)state;
    memset(line, 'x', sizeof(line));
    (void)snprintf(line + 4999, 2, "\n");
    for (size_t k = 0; k < sizeof(pauses_ms) / sizeof(*pauses_ms); k++) {
        struct testhost *h = flood_start(1, "messages = 2/s burst 10\n");
        struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
        size_t heard = 0;
        for (uint64_t ms = 0; ms < 20000; ms += pauses_ms[k]) { /* four windows */
            testhost_input(c, line);
            testhost_advance_ms(h, pauses_ms[k]);
            heard += flood_heard(c, "oversize|4999");
        }
        assert_in_range(heard, 49, 50);
        flood_stop(h);
    }
}

static void a_listener_may_have_its_own(void **state)
{
    struct testhost *h = flood_new(1, "messages = off\naddress_messages = 1/s burst 2\n");
    struct testhost_conn *bots, *plain;

    (void)state;
    assert_int_equal(testhost_listener(h, "bots", "plain", "tcp",
                                       "ratelimit.messages = 10/s burst 50\n"
                                       "ratelimit.address_messages = 20/s burst 100\n"
                                       "ratelimit.on_excess = refuse\n"),
                     0);
    assert_int_equal(testhost_start(h), 0);
    bots = testhost_connect_listener(h, 0, "bots");
    testhost_set_peer(bots, "192.0.2.1", 1000);
    plain = flood_client(h, 0, "192.0.2.1", 1001);
    flood_send(bots, "PING\n", 51);
    flood_send(plain, "PING\n", 5);
    assert_true(testhost_run(h));
    assert_int_equal(pongs(plain), 2);
    for (int i = 0; i < 50; i++)
        flood_hears(bots, "PONG");
    flood_hears(bots,
                "answer|15|0|0|0|too fast: [listener bots] ratelimit.messages = 10/s burst 50");
    flood_stop(h);
}

static void each_limit_may_be_a_listeners_own(void **state)
{
    static const struct {
        const char *limit, *line, *passed;
        uint16_t port;
    } cases[] = {
        {"messages = 1/s burst 3", "PING\n", "PONG", 1000},
        {"registered_messages = 1/s burst 3", "PING\n", "PONG", 50000},
        {"bytes = 4/s burst 12", "PING\n", "PONG", 1000},
        {"address_messages = 1/s burst 3", "PING\n", "PONG", 1000},
        {"joins = 1/s burst 3", "JOIN|hall||\n", "answer|0|JOIN|", 1000},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct testhost *h = flood_new(1, "messages = off\nregistered_messages = off\nbytes = off\n"
                                          "address_messages = off\njoins = off\nkill_after = 0\n");
        struct testhost_conn *own, *plain;
        char text[200];
        const char *unit;
        size_t passed = 0;
        (void)snprintf(text, sizeof(text), "ratelimit.%s\nratelimit.on_excess = refuse\n",
                       cases[i].limit);
        assert_int_equal(testhost_listener(h, "own", "plain", "tcp", text), 0);
        assert_int_equal(testhost_start(h), 0);
        own = testhost_connect_listener(h, 0, "own");
        testhost_set_peer(own, "192.0.2.1", cases[i].port);
        plain = flood_client(h, 0, "192.0.2.1", cases[i].port);
        flood_send(own, cases[i].line, 5);
        flood_send(plain, cases[i].line, 50);
        assert_true(testhost_run(h));
        assert_int_equal(flood_heard(plain, cases[i].passed), 50);
        (void)snprintf(text, sizeof(text), "|too fast: [listener own] ratelimit.%s",
                       cases[i].limit);
        while ((unit = testhost_unit(own)))
            if (!strncmp(unit, cases[i].passed, strlen(cases[i].passed)))
                passed++;
            else
                assert_non_null(strstr(unit, text));
        assert_int_equal(passed, 3);
        flood_stop(h);
    }
}

/* ---- slow mode ---------------------------------------------------------------------------- */

static void slow_mode_holds_per_member(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const uint32_t n = worker_numbers[k];
        struct testhost *h = flood_start(n, "room_messages = 6/m burst 2\nkill_after = 0\n");
        struct testhost_conn *a = flood_client(h, 0, "192.0.2.1", 1000);
        struct testhost_conn *b = flood_client(h, n - 1, "192.0.2.1", 1001);
        size_t passed = 0;
        flood_send(a, "TEXT|hall||hi\n", 3);
        flood_send(b, "TEXT|hall||hi\n", 2);
        assert_true(testhost_run(h));
        assert_int_equal(flood_heard(b, "answer|0|"), 2);
        (void)testhost_unit(a);
        (void)testhost_unit(a);
        flood_hears(a, "answer|15|TEXT|3|0|too fast for this room, wait 10 s: "
                       "[plugin ratelimit] room_messages = 6/m burst 2");
        /* Other rooms, and other kinds, have nothing to do with it. */
        flood_send(a, "TEXT|other||hi\n", 1);
        flood_send(a, "JOIN|hall||\n", 5);
        assert_true(testhost_run(h));
        assert_int_equal(flood_heard(a, "answer|0|"), 6);
        for (int i = 0; i < 400; i++) { /* five windows of 20 s */
            flood_send(a, "TEXT|hall||hi\n", 1);
            testhost_advance_ms(h, 250);
            passed += flood_heard(a, "answer|0|");
        }
        assert_in_range(passed, 9, 10); /* the first one 10 s after the last */
        assert_true(testhost_metric(h, "ratelimit", "ratelimit_refused_room_messages_total") > 300);
        flood_stop(h);
    }
}

static void slow_mode_keeps_burst_and_rate(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const uint32_t n = worker_numbers[k];
        struct testhost *h = flood_start(n, "room_messages = 60/m burst 20\nkill_after = 0\n");
        struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);
        size_t passed = 0;
        flood_send(c, "TEXT|hall||hi\n", 50);
        assert_true(testhost_run(h));
        assert_int_equal(flood_heard(c, "answer|0|"), 20);
        for (int i = 0; i < 1000; i++) { /* five windows of 20 s */
            flood_send(c, "TEXT|hall||hi\n", 1);
            testhost_advance_ms(h, 100);
            passed += flood_heard(c, "answer|0|");
        }
        assert_in_range(passed, 99, 100);
        flood_stop(h);
    }
}

static void slow_mode_holds_for_a_crowd(void **state)
{
    enum { MEMBERS = 4500 };
    struct testhost_conn **c = malloc(MEMBERS * sizeof(*c));
    struct testhost *h = flood_start(1, "room_messages = 1/h burst 1\nkill_after = 0\n");

    (void)state;
    assert_non_null(c);
    for (uint16_t i = 0; i < MEMBERS; i++) {
        c[i] = testhost_connect(h, 0, "plain", "tcp");
        testhost_set_peer(c[i], "192.0.2.1", (uint16_t)(1000 + i));
    }
    assert_true(testhost_run(h));
    for (size_t round = 0; round < 2; round++) {
        size_t passed = 0;
        for (size_t i = 0; i < MEMBERS; i++)
            flood_send(c[i], "TEXT|hall||hi\n", 1);
        assert_true(testhost_run(h));
        for (size_t i = 0; i < MEMBERS; i++)
            passed += flood_heard(c[i], "answer|0|");
        assert_int_equal(passed, round ? 0 : MEMBERS);
    }
    flood_stop(h);
    free(c);
}

static void slow_mode_forgets_who_was_quiet_for_months(void **state)
{
    struct testhost *h = flood_start(1, "room_messages = 6/m burst 1\naddress_table = 1024\n");
    struct testhost_conn *a = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    flood_send(a, "TEXT|hall||hi\n", 1);
    assert_true(testhost_run(h));
    assert_int_equal(flood_heard(a, "answer|0|"), 1);
    for (int day = 0; day < 120; day++)
        testhost_advance_ms(h, 86400 * 1000);
    flood_send(a, "TEXT|hall||hi\n", 1);
    assert_true(testhost_run(h));
    assert_int_equal(flood_heard(a, "answer|0|"), 1);
    flood_stop(h);
}

static void slow_mode_follows_an_account(void **state)
{
    struct testhost *h = flood_start(2, "room_messages = 6/m burst 1\n");
    struct testhost_conn *a = flood_client(h, 0, "192.0.2.1", 50000), *again;

    (void)state;
    flood_send(a, "TEXT|hall||hi\n", 1);
    assert_true(testhost_run(h));
    testhost_reset(a);
    again = flood_client(h, 1, "192.0.2.9", 50001);
    flood_send(again, "TEXT|hall||hi\n", 1);
    assert_true(testhost_run(h));
    assert_int_equal(flood_heard(again, "answer|15|"), 1);
    flood_stop(h);
}

static void slow_mode_knows_a_room_by_any_spelling(void **state)
{
    struct testhost *h = flood_start(1, "room_messages = 6/m burst 1\n");
    struct testhost_conn *a = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    flood_send(a, "TEXT|hall||hi\n", 1);
    flood_send(a, "TEXT|HALL||hi\n", 1);
    flood_send(a, "TEXT|Hall||hi\n", 1);
    assert_true(testhost_run(h));
    assert_int_equal(flood_heard(a, "answer|15|"), 2);
    flood_stop(h);
}

static void slow_mode_leaves_private_and_forced_messages_alone(void **state)
{
    struct testhost *h = flood_start(1, "room_messages = 6/m burst 1\n");
    struct testhost_conn *a = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    flood_send(a, "TEXT+d|hall||hi\n", 5);
    flood_send(a, "TEXT+f|hall||hi\n", 5);
    assert_true(testhost_run(h));
    assert_int_equal(flood_heard(a, "answer|0|"), 10);
    flood_stop(h);
}

static void everything_is_off_when_it_is_off(void **state)
{
    struct testhost *h = flood_start(1, "");
    struct testhost_conn *c = flood_client(h, 0, "192.0.2.1", 1000);

    (void)state;
    flood_send(c, "PING\n", 1000);
    assert_true(testhost_run(h));
    assert_int_equal(pongs(c), 1000);
    assert_int_equal(testhost_metric(h, "ratelimit", "ratelimit_delayed_total"), 0);
    flood_stop(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_keep_burst_and_rate),
        cmocka_unit_test(a_rate_beyond_the_clock_is_kept_whatever_the_burst),
        cmocka_unit_test(where_nothing_may_wait_a_rate_beyond_the_clock_is_kept_too),
        cmocka_unit_test(a_flood_keeps_its_order_and_nobody_waits_for_it),
        cmocka_unit_test(what_is_no_message_counts_too),
        cmocka_unit_test(bytes_keep_burst_and_rate),
        cmocka_unit_test(a_unit_beyond_the_whole_burst_waits_for_the_empty_bucket),
        cmocka_unit_test(an_address_has_one_rate_for_all_connections_and_workers),
        cmocka_unit_test(ipv6_is_counted_by_its_prefix),
        cmocka_unit_test(exempt_and_unix_peers_are_not_counted_by_address),
        cmocka_unit_test(an_account_has_its_own_rate_for_all_its_connections),
        cmocka_unit_test(joins_keep_burst_and_rate),
        cmocka_unit_test(several_messages_of_one_unit_are_paid_for),
        cmocka_unit_test(dear_commands_are_paid_for_afterwards),
        cmocka_unit_test(a_debt_has_an_end),
        cmocka_unit_test(a_debt_has_an_end_however_dear_it_was),
        cmocka_unit_test(datagrams_are_refused_at_once),
        cmocka_unit_test(what_is_refused_for_one_bucket_fills_no_other),
        cmocka_unit_test(a_wait_that_nobody_would_wait_for_is_refused),
        cmocka_unit_test(what_max_delay_ends_is_there_for_the_next),
        cmocka_unit_test(joins_that_max_delay_ends_are_there_for_the_next),
        cmocka_unit_test(what_was_left_over_is_not_found_after_weeks),
        cmocka_unit_test(lines_that_are_too_long_keep_the_rate),
        cmocka_unit_test(a_listener_may_have_its_own),
        cmocka_unit_test(each_limit_may_be_a_listeners_own),
        cmocka_unit_test(slow_mode_holds_per_member),
        cmocka_unit_test(slow_mode_keeps_burst_and_rate),
        cmocka_unit_test(slow_mode_holds_for_a_crowd),
        cmocka_unit_test(slow_mode_forgets_who_was_quiet_for_months),
        cmocka_unit_test(slow_mode_follows_an_account),
        cmocka_unit_test(slow_mode_knows_a_room_by_any_spelling),
        cmocka_unit_test(slow_mode_leaves_private_and_forced_messages_alone),
        cmocka_unit_test(everything_is_off_when_it_is_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
