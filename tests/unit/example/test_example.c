/* example on the fake core: no sockets, no threads, no waiting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "testhost.h"

extern const struct roda_plugin example_plugin;

/* Nobody carries messages out here, so what passes the filter is answered "unknown" (2). */
#define PASSED "answer|2|TEXT|1|0|nobody carries out this kind of message"

static struct testhost *start(const char *conf)
{
    struct testhost *h = testhost_new(1);

    assert_int_equal(testhost_load(h, &example_plugin, conf), 0);
    testhost_listener(h, "strict", "plain", "tcp", "example.words = 1\n");
    assert_int_equal(testhost_start(h), 0);
    return h;
}

static void stop(struct testhost *h)
{
    assert_int_equal(testhost_stop(h), 0); /* no leak, no rule broken */
    testhost_free(h);
}

static const char *answer_to(struct testhost *h, struct testhost_conn *c, const char *line)
{
    testhost_input(c, line);
    testhost_run(h);
    return testhost_unit(c);
}

static void few_words_pass(void **state)
{
    struct testhost *h = start("words = 3\n");
    struct testhost_conn *c = testhost_connect(h, 0, "plain", "tcp");

    (void)state;
    assert_string_equal(answer_to(h, c, "TEXT|lobby||one  two three \n"), PASSED);
    assert_int_equal(testhost_metric(h, "example", "example_refused_total"), 0);
    stop(h);
}

static void many_words_are_refused(void **state)
{
    struct testhost *h = start("words = 3\n");
    struct testhost_conn *c = testhost_connect(h, 0, "plain", "tcp");

    (void)state;
    assert_string_equal(answer_to(h, c, "TEXT|lobby||one two three four\n"),
                        "answer|20|TEXT|1|0|at most 3 words");
    assert_int_equal(testhost_metric(h, "example", "example_refused_total"), 1);
    stop(h);
}

static void other_kinds_pass(void **state)
{
    struct testhost *h = start("words = 1\n");
    struct testhost_conn *c = testhost_connect(h, 0, "plain", "tcp");

    (void)state;
    assert_string_equal(answer_to(h, c, "TOPIC|lobby||one two\n"),
                        "answer|2|TOPIC|1|0|nobody carries out this kind of message");
    stop(h);
}

static void a_listener_may_be_stricter(void **state)
{
    struct testhost *h = start(NULL);
    struct testhost_conn *c = testhost_connect_listener(h, 0, "strict");

    (void)state;
    assert_string_equal(answer_to(h, c, "TEXT|lobby||one two\n"),
                        "answer|20|TEXT|1|0|at most 1 words");
    stop(h);
}

static void wrong_conf_is_told(void **state)
{
    struct testhost *h = testhost_new(1);

    (void)state;
    assert_int_not_equal(testhost_load(h, &example_plugin, "words = 0\n"), 0);
    assert_string_not_equal(testhost_error(h), "");
    stop(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_words_pass),     cmocka_unit_test(many_words_are_refused),
        cmocka_unit_test(other_kinds_pass),   cmocka_unit_test(a_listener_may_be_stricter),
        cmocka_unit_test(wrong_conf_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
