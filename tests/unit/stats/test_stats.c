#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testhost.h"

/* The protocol "stats", and a plugin whose metrics it shows. */

extern const struct roda_plugin stats_plugin;

enum { MANY = 1500 };
static struct roda_metric metrics[MANY + 3] = {
    {"counted_lines_total", RODA_COUNTER, "lines that were counted"},
    {"depth", RODA_GAUGE, "how deep it is"},
};
static char names[MANY][40];
static int ready_calls;

static int start_counting(struct roda_ctx *x)
{
    roda_count(x, 0, 10 + x->worker);
    roda_count(x, 1, -3);
    return 0;
}

static void see_ready(struct roda_ctx *x, struct roda_conn *c)
{
    (void)x;
    (void)c;
    ready_calls++;
}

static struct roda_plugin counted;

static struct testhost *start(uint32_t n_workers, size_t n_metrics)
{
    struct testhost *h = testhost_new(n_workers);

    for (size_t i = 0; i < n_metrics; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "counted_extra_%04zu", i);
        metrics[2 + i] = (struct roda_metric){names[i], RODA_COUNTER, "one of many"};
    }
    metrics[2 + n_metrics] = (struct roda_metric){.name = NULL};
    counted = (struct roda_plugin){.abi = RODA_ABI,
                                   .size = sizeof(counted),
                                   .name = "counted",
                                   .summary = "has metrics",
                                   .version = "0",
                                   .option_size = sizeof(struct roda_option),
                                   .metric_size = sizeof(struct roda_metric),
                                   .protocol_size = sizeof(struct roda_protocol),
                                   .service_size = sizeof(struct roda_service_table),
                                   .metrics = metrics,
                                   .start = start_counting,
                                   .ready = see_ready};
    ready_calls = 0;
    assert_int_equal(testhost_load(h, &counted, NULL), 0);
    assert_int_equal(testhost_load(h, &stats_plugin, NULL), 0);
    assert_int_equal(testhost_start(h), 0);
    return h;
}

static void stop(struct testhost *h)
{
    assert_int_equal(testhost_stop(h), 0);
    testhost_free(h);
}

static void hears(struct testhost_conn *c, const char *wanted)
{
    const char *got = testhost_unit(c);

    if (!got)
        fail_msg("nothing came, wanted \"%s\"", wanted);
    else
        assert_string_equal(got, wanted);
}

static struct testhost_conn *ask(struct testhost *h, const char *line)
{
    struct testhost_conn *c = testhost_connect(h, 0, "stats", "unix");

    testhost_input(c, line);
    assert_true(testhost_run(h));
    return c;
}

static void values_per_worker_follow_the_total(void **state)
{
    struct testhost *h = start(2, 0);
    struct testhost_conn *c = ask(h, "counted_lines_total\n");

    (void)state;
    hears(c, "counted_lines_total 21");
    hears(c, "counted_lines_total.0 10");
    hears(c, "counted_lines_total.1 11");
    hears(c, "");
    assert_null(testhost_unit(c));
    stop(h);
}

static void a_plugins_name_stands_in_front(void **state)
{
    struct testhost *h = start(1, 0);
    struct testhost_conn *c = ask(h, "counted_de\n");

    (void)state;
    hears(c, "counted_depth -3");
    hears(c, "counted_depth.0 -3");
    hears(c, "");
    assert_null(testhost_unit(c));
    stop(h);
}

static size_t count_lines(struct testhost_conn *c, const char *part, size_t *ret_found)
{
    const char *line;
    size_t n = 0, found = 0;

    while ((line = testhost_unit(c)) != NULL && *line) {
        n++;
        found += strstr(line, part) != NULL;
    }
    assert_non_null(line); /* an empty line ends it */
    *ret_found = found;
    return n;
}

static void an_empty_line_and_all_ask_for_everything(void **state)
{
    struct testhost *h = start(1, 0);
    size_t found, n = count_lines(ask(h, "\n"), "counted_", &found);

    (void)state;
    assert_int_equal(found, 4);
    assert_true(n > 4); /* the core's own, too */
    assert_int_equal(count_lines(ask(h, "all\n"), "counted_", &found), n);
    assert_int_equal(count_lines(ask(h, "nothing_of_the_kind\n"), "", &found), 0);
    stop(h);
}

static void a_connection_may_ask_again(void **state)
{
    struct testhost *h = start(1, 0);
    struct testhost_conn *c = ask(h, "counted_lines\ncounted_depth\n");

    (void)state;
    hears(c, "counted_lines_total 10");
    hears(c, "counted_lines_total.0 10");
    hears(c, "");
    hears(c, "counted_depth -3");
    hears(c, "counted_depth.0 -3");
    hears(c, "");
    stop(h);
}

static void help_tells_what_is_counted(void **state)
{
    struct testhost *h = start(1, 0);
    struct testhost_conn *c = ask(h, "help\n");
    const char *line;
    int found = 0;

    (void)state;
    while ((line = testhost_unit(c)) != NULL)
        found += !strcmp(line, "counted_depth how deep it is");
    assert_int_equal(found, 1);
    stop(h);
}

/* `echo | nc -U -N`: the end comes with the question; the answer still goes out. */
static void the_end_of_input_waits_for_the_report(void **state)
{
    struct testhost *h = start(2, MANY);
    struct testhost_conn *c = testhost_connect(h, 0, "stats", "unix");
    size_t found;

    (void)state;
    testhost_input(c, "\n");
    testhost_end_input(c);
    assert_true(testhost_run(h));
    (void)count_lines(c, "counted_extra_", &found);
    assert_int_equal(found, 3 * MANY);
    assert_true(testhost_closed(c));
    stop(h);
}

static void a_reader_may_go_in_the_middle(void **state)
{
    (void)state;
    for (int turns = 0; turns < 8; turns++) {
        struct testhost *h = start(2, MANY);
        struct testhost_conn *c = testhost_connect(h, 0, "stats", "unix");

        testhost_read(c, false);
        testhost_input(c, "\n\n");
        for (int i = 0; i < turns; i++)
            (void)testhost_turn(h);
        testhost_reset(c);
        assert_true(testhost_run(h));
        stop(h);
    }
}

static void other_lines_are_refused(void **state)
{
    static const char *const lines[] = {"a b\n", "x;y\n", "ol\xc3\xa1\n", "\x1b\n"};
    struct testhost *h = start(1, 0);
    struct testhost_conn *c = testhost_connect(h, 0, "stats", "unix");
    char longest[400];

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        testhost_input(c, lines[i]);
        testhost_run(h);
        hears(c, "! no metric has such a name: send an empty line for all of them");
    }
    memset(longest, 'x', sizeof(longest));
    longest[398] = '\n';
    longest[399] = '\0';
    testhost_input(c, longest);
    testhost_run(h);
    hears(c, "! no metric has such a name: send an empty line for all of them");
    testhost_input_bytes(c, "a\0b\n", 4);
    testhost_run(h);
    hears(c, "! no metric has such a name: send an empty line for all of them");
    stop(h);
}

static void nobody_is_told_of_these_connections(void **state)
{
    struct testhost *h = start(1, 0);

    (void)state;
    (void)ask(h, "\n");
    assert_int_equal(ready_calls, 0);
    stop(h);
}

static void memory_may_be_out(void **state)
{
    uint64_t n = 1;

    (void)state;
    for (;; n++) {
        struct testhost *h = start(1, 50);
        uint64_t before = testhost_allocations(h), after;
        struct testhost_conn *c;

        testhost_fail_allocation(h, n);
        c = testhost_connect(h, 0, "stats", "unix");
        if (c) {
            testhost_input(c, "\nhelp\n");
            assert_true(testhost_run(h));
        }
        after = testhost_allocations(h);
        stop(h);
        if (after - before < n)
            break;
        assert_true(n < 1000);
    }
    assert_true(n > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_per_worker_follow_the_total),
        cmocka_unit_test(a_plugins_name_stands_in_front),
        cmocka_unit_test(an_empty_line_and_all_ask_for_everything),
        cmocka_unit_test(a_connection_may_ask_again),
        cmocka_unit_test(help_tells_what_is_counted),
        cmocka_unit_test(the_end_of_input_waits_for_the_report),
        cmocka_unit_test(a_reader_may_go_in_the_middle),
        cmocka_unit_test(other_lines_are_refused),
        cmocka_unit_test(nobody_is_told_of_these_connections),
        cmocka_unit_test(memory_may_be_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
