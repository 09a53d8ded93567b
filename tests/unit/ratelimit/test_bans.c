#include "flood.h"

#include <inttypes.h>

#include "plugins/ratelimit/ratelimit.h"

/* The file of bans. */

#define CONF      "messages = 1/s burst 1\non_excess = refuse\nkill_after = 1\n"
#define FILE_NAME "ratelimit.bans"
static const int64_t start_s = 1767225600; /* 2026-01-01: where the clock of a host begins */

static void flood_until_banned(struct testhost *h, uint32_t worker, const char *address)
{
    struct testhost_conn *c = flood_client(h, worker, address, 1000);

    flood_send(c, "PING\n", 2);
    assert_true(testhost_run(h));
    assert_true(testhost_closed(c));
}

static int banned(struct testhost *h, const char *address)
{
    struct testhost_conn *c = flood_client(h, 0, address, 2000);

    return testhost_closed(c) && strstr(testhost_close_reason(c), "banned") != NULL;
}

static const char *file_of(struct testhost *h)
{
    size_t len;

    return testhost_file_get(h, FILE_NAME, &len);
}

/* A host whose disk has this file. */
static struct testhost *start_with(uint32_t n_workers, const char *text)
{
    struct testhost *h = flood_new(n_workers, CONF);

    testhost_file_put(h, FILE_NAME, text, strlen(text));
    assert_int_equal(testhost_start(h), 0);
    assert_true(testhost_run(h));
    return h;
}

static const char *line(char *buf, size_t size, const char *network, int64_t in_s)
{
    (void)snprintf(buf, size, "%s %" PRId64 "\n", network, start_s + in_s);
    return buf;
}

static void without_a_ban_there_is_no_file(void **state)
{
    struct testhost *h = flood_start(2, CONF);

    (void)state;
    assert_true(testhost_run(h));
    assert_null(file_of(h));
    flood_stop(h);
}

static void bans_survive_a_restart(void **state)
{
    char copy[512], wanted[512], a[64], b[64], c[64];

    (void)state;
    for (uint32_t n = 1; n <= 4; n += 3) {
        struct testhost *h = flood_start(n, CONF);
        flood_until_banned(h, n - 1, "192.0.2.1");
        flood_until_banned(h, 0, "2001:db8:1:2::7");
        flood_until_banned(h, n - 1, "::ffff:198.51.100.4");
        (void)snprintf(wanted, sizeof(wanted), "%s%s%s", line(a, sizeof(a), "192.0.2.1/32", 300),
                       line(b, sizeof(b), "2001:db8:1:2::/64", 300),
                       line(c, sizeof(c), "198.51.100.4/32", 300));
        assert_string_equal(file_of(h), wanted);
        (void)snprintf(copy, sizeof(copy), "%s", file_of(h));
        flood_stop(h);

        h = start_with(n, copy);
        assert_true(testhost_logged(h, "bans still in force: 3"));
        assert_true(banned(h, "192.0.2.1"));
        assert_true(banned(h, "::ffff:192.0.2.1"));
        assert_true(banned(h, "2001:db8:1:2:3::7"));
        assert_true(banned(h, "198.51.100.4"));
        assert_false(banned(h, "192.0.2.2"));
        assert_string_equal(file_of(h), copy); /* as it was */
        flood_until_banned(h, 0, "203.0.113.5");
        assert_non_null(strstr(file_of(h), "203.0.113.5/32 "));
        testhost_advance_ms(h, 299999);
        assert_true(banned(h, "192.0.2.1"));
        testhost_advance_ms(h, 1);
        assert_false(banned(h, "192.0.2.1"));
        flood_stop(h);
    }
}

static void what_is_over_or_torn_is_left_out(void **state)
{
    char text[1024], kept[64], over[64], other[64];
    struct testhost *h;

    (void)state;
    (void)
        snprintf(text, sizeof(text), "%s%s%s%s%s", line(over, sizeof(over), "192.0.2.1/32", -1),
                 "# a comment\n192.0.2.3/32\n192.0.2.3/32 x\n\n192.0.2.3/32 99999999999999999999\n"
                 "192.0.2.3/32 -5\n192.0.2.3/32 1 1\n192.0.2.3/32 -99999999999999999999\n",
                 line(kept, sizeof(kept), "192.0.2.2/32", 60),
                 line(other, sizeof(other), "192.0.2.0/24", 60), "192.0.2.3/32 17672259");
    h = start_with(2, text);
    assert_true(testhost_logged(h, FILE_NAME ": lines left out since they are no ban, or not of a "
                                             "prefix as long as prefix_ipv4 and prefix_ipv6 have "
                                             "it: 9;"));
    assert_true(banned(h, "192.0.2.2"));
    assert_false(banned(h, "192.0.2.1"));
    assert_false(banned(h, "192.0.2.3"));
    assert_string_equal(file_of(h), kept);
    assert_null(testhost_file_get(h, FILE_NAME ".new", &(size_t){0}));
    flood_stop(h);
}

static void however_far_the_end_is_it_is_a_ban(void **state)
{
    static const char text[] = "192.0.2.1/32 9223372036854775807\n"
                               "192.0.2.2/32 18446745840935152\n"; /* 2^64 milliseconds on */
    struct testhost *h = start_with(1, text);

    (void)state;
    testhost_advance_ms(h, 60000);
    assert_true(banned(h, "192.0.2.1"));
    assert_true(banned(h, "192.0.2.2"));
    assert_string_equal(file_of(h), text);
    flood_stop(h);
}

static void rubbish_of_a_crash_is_replaced(void **state)
{
    char over[64], kept[64], text[128];
    struct testhost *h = flood_new(1, CONF);

    (void)state;
    (void)snprintf(text, sizeof(text), "%s%s", line(over, sizeof(over), "192.0.2.1/32", -1),
                   line(kept, sizeof(kept), "192.0.2.2/32", 60));
    testhost_file_put(h, FILE_NAME, text, strlen(text));
    testhost_file_put(h, FILE_NAME ".new", "192.0.2.9/32 99", 15);
    assert_int_equal(testhost_start(h), 0);
    assert_true(testhost_run(h));
    assert_string_equal(file_of(h), kept);
    flood_stop(h);
}

static void a_large_file_is_written_anew(void **state)
{
    enum { LINES = 50000 };
    char *text = malloc(LINES * 40), network[40];
    size_t len = 0;
    struct testhost *h;

    (void)state;
    assert_non_null(text);
    for (int i = 0; i < LINES; i++) { /* 1.5 MB, all in force */
        (void)snprintf(network, sizeof(network), "10.%d.%d.%d/32", 1 + i / 65536, i / 256 % 256,
                       i % 256);
        (void)line(text + len, 40, network, 100);
        len += strlen(text + len);
    }
    text[len] = '\0';
    h = start_with(1, text);
    assert_true(strlen(file_of(h)) <= 1 << 19);
    assert_int_equal(strncmp(file_of(h), "10.1.", 5), 0);
    assert_true(banned(h, "10.1.195.79")); /* the last one */
    flood_until_banned(h, 0, "192.0.2.1");
    assert_non_null(strstr(file_of(h), "\n192.0.2.1/32 "));
    flood_stop(h);
    free(text);
}

static void the_file_does_not_grow_for_ever(void **state)
{
    struct testhost *h = flood_start(2, CONF);
    size_t longest = 0, writes = 0, last = 0;

    (void)state;
    for (uint32_t i = 0; i < 50000; i++) {
        struct network network = {.address = {[10] = 0xff, 0xff, 10}, .bits = 128};
        size_t len;
        network.address[14] = (unsigned char)(i >> 8);
        network.address[15] = (unsigned char)i;
        bans_add(testhost_ctx(h, "ratelimit", i % 2), &network, 1000);
        if (i % 100)
            continue;
        testhost_advance_ms(h, 1000);
        len = strlen(file_of(h));
        writes += len < last;
        last = len;
        longest = len > longest ? len : longest;
    }
    assert_int_equal(writes, 1);
    assert_in_range(longest, 1000000, 1100000);
    assert_int_equal(testhost_metric(h, "ratelimit", "ratelimit_bans_not_kept_total"), 0);
    flood_stop(h);
}

static void ban_one(struct testhost *h, uint32_t i)
{
    struct network network = {.address = {[10] = 0xff, 0xff, 10}, .bits = 128};

    network.address[13] = (unsigned char)(i >> 16);
    network.address[14] = (unsigned char)(i >> 8);
    network.address[15] = (unsigned char)i;
    bans_add(testhost_ctx(h, "ratelimit", 0), &network, 100000000);
}

/* A file of bans in force that is nearly as large as it may be. Returns how many. */
static uint32_t grow_file(struct testhost *h)
{
    uint32_t n = 0;

    do {
        for (int i = 0; i < 100; i++)
            ban_one(h, n++);
        assert_true(testhost_run(h));
    } while (strlen(file_of(h)) < (1 << 20) - 100 * 30);
    return n;
}

static void the_youngest_bans_are_kept_when_the_file_is_written_anew(void **state)
{
    struct testhost *h = flood_start(1, CONF);
    uint32_t n = grow_file(h), first = n;
    char youngest[64];

    (void)state;
    testhost_hold_writes(h, true); /* the disk is slow */
    do {
        ban_one(h, n++);
        assert_true(testhost_run(h));
    } while (strlen(file_of(h)) > 1 << 19);
    for (int i = 0; i < 3; i++)
        ban_one(h, n++);
    assert_true(testhost_run(h));
    testhost_hold_writes(h, false);
    assert_true(testhost_run(h));
    for (uint32_t i = first; i < n; i++) {
        (void)snprintf(youngest, sizeof(youngest), "\n10.%u.%u.%u/32 ", i >> 16, i >> 8 & 255,
                       i & 255);
        assert_non_null(strstr(file_of(h), youngest));
    }
    assert_int_equal(testhost_metric(h, "ratelimit", "ratelimit_bans_not_kept_total"), 0);
    flood_stop(h);
}

/* At each point of that, and with a disk that refuses from there on. */
static void it_may_end_or_fail_while_the_file_is_written_anew(void **state)
{
    (void)state;
    for (int turns = 0; turns < 10; turns++) {
        for (int fails = 0; fails <= 1; fails++) {
            struct testhost *h = flood_start(1, CONF);
            uint32_t n = grow_file(h);
            for (int i = 0; i < 200; i++)
                ban_one(h, n++);
            for (int i = 0; i < turns; i++)
                (void)testhost_turn(h);
            if (fails) {
                testhost_fail_writes(h, -28);
                for (int i = 0; i < 3; i++) {
                    ban_one(h, n++);
                    assert_true(testhost_run(h));
                }
                testhost_fail_writes(h, 0);
                ban_one(h, n++);
                assert_true(testhost_run(h));
                ban_one(h, n);
                assert_true(testhost_run(h));
                assert_non_null(strstr(file_of(h), "\n10."));
            }
            flood_stop(h);
        }
    }
}

static void a_disk_that_refuses_ends_nothing(void **state)
{
    struct testhost *h = flood_start(1, CONF);

    (void)state;
    testhost_fail_writes(h, -28);
    for (int i = 1; i < 6; i++) {
        char address[32];
        (void)snprintf(address, sizeof(address), "192.0.2.%d", i);
        flood_until_banned(h, 0, address);
        assert_true(banned(h, address));
    }
    assert_true(testhost_logged(h, "warning ratelimit: " FILE_NAME ": cannot be written: "));
    testhost_fail_writes(h, 0);
    flood_until_banned(h, 0, "192.0.2.77");
    flood_until_banned(h, 0, "192.0.2.78");
    assert_non_null(strstr(file_of(h), "192.0.2.78/32"));
    flood_stop(h);
}

static void no_ban_file_is_no_file(void **state)
{
    struct testhost *h = flood_start(1, CONF "ban_file =\n");

    (void)state;
    flood_until_banned(h, 0, "192.0.2.1");
    assert_true(banned(h, "192.0.2.1"));
    assert_null(file_of(h));
    flood_stop(h);
}

/* At each point of its way. */
static void it_may_end_while_files_are_under_way(void **state)
{
    (void)state;
    for (int turns = 0; turns < 12; turns++) {
        struct testhost *h = flood_start(2, CONF);
        struct testhost_conn *c = flood_client(h, 1, "192.0.2.1", 1000);
        flood_send(c, "PING\n", 2);
        for (int i = 0; i < turns; i++)
            (void)testhost_turn(h);
        flood_stop(h);
    }
}

static void memory_may_be_out(void **state)
{
    char text[256], over[64], kept[64];

    (void)state;
    (void)snprintf(text, sizeof(text), "%s%s", line(over, sizeof(over), "192.0.2.1/32", -1),
                   line(kept, sizeof(kept), "192.0.2.2/32", 60));
    for (uint64_t n = 1; n < 40; n++) {
        struct testhost *h = flood_new(1, CONF);
        struct testhost_conn *c;
        testhost_file_put(h, FILE_NAME, text, strlen(text));
        testhost_fail_allocation(h, n);
        if (!testhost_start(h)) {
            (void)testhost_run(h);
            c = testhost_connect(h, 0, "plain", "tcp");
            if (c) {
                flood_send(c, "PING\n", 2);
                assert_true(testhost_run(h));
            }
        }
        testhost_fail_allocation(h, 0);
        assert_int_equal(testhost_stop(h), 0);
        testhost_free(h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_ban_there_is_no_file),
        cmocka_unit_test(bans_survive_a_restart),
        cmocka_unit_test(what_is_over_or_torn_is_left_out),
        cmocka_unit_test(however_far_the_end_is_it_is_a_ban),
        cmocka_unit_test(rubbish_of_a_crash_is_replaced),
        cmocka_unit_test(a_large_file_is_written_anew),
        cmocka_unit_test(the_file_does_not_grow_for_ever),
        cmocka_unit_test(the_youngest_bans_are_kept_when_the_file_is_written_anew),
        cmocka_unit_test(it_may_end_or_fail_while_the_file_is_written_anew),
        cmocka_unit_test(a_disk_that_refuses_ends_nothing),
        cmocka_unit_test(no_ban_file_is_no_file),
        cmocka_unit_test(it_may_end_while_files_are_under_way),
        cmocka_unit_test(memory_may_be_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
