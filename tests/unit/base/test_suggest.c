#include "base/suggest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#define N(array) (sizeof(array) / sizeof((array)[0]))

static const char *const keys[] = {"port",           "protocol",
                                   "address",        "path",
                                   "mode",           "max_connections",
                                   "send_queue",     "send_queues_total",
                                   "write",          "idle_ping",
                                   "presence_up_to", "tls"};

static void test_nearest(void **state)
{
    (void)state;
    static const struct {
        const char *typed, *expected; /* NULL: nothing is near */
    } cases[] = {
        {"prot", "port"},                        /* a swap is one fault, not two */
        {"max_conections", "max_connections"},   /* left out */
        {"max_connnections", "max_connections"}, /* too many */
        {"protocal", "protocol"},                /* replaced */
        {"MAX_Connections", "max_connections"},  /* capitals */
        {"send_queu", "send_queue"},             /* the nearer of two */
        {"send_queues_totl", "send_queues_total"},
        {"mode", "mode"},
        {"tlss", "tls"},
        {"pot", "port"},
        {"pors", "port"},           /* four letters: one fault */
        {"posrt", "port"},          /* one too many in the middle */
        {"prto", NULL},             /* two faults of four letters */
        {"idel_pnig", "idle_ping"}, /* two swaps, nine letters: three faults allowed */
        {"connections", NULL},
        {"x", NULL},
        {"", NULL},
        {"completely_else", NULL},
    };
    for (size_t i = 0; i < N(cases); i++) {
        const char *best = suggest_name(cases[i].typed, keys, N(keys));
        if (!cases[i].expected)
            assert_null(best);
        else {
            assert_non_null(best);
            assert_string_equal(best, cases[i].expected);
        }
    }
}

static void test_first_of_equals(void **state)
{
    (void)state;
    static const char *const names[] = {"cat", "bat", "hat"};
    assert_ptr_equal(suggest_name("rat", names, 3), names[0]);
    assert_ptr_equal(suggest_name("hat", names, 3), names[2]);
    assert_null(suggest_name("rat", names, 0));
}

static void test_limit_grows_with_length(void **state)
{
    (void)state;
    /* Six letters, two faults; five letters, one. */
    static const char *const names[] = {"abcdef"};
    assert_non_null(suggest_name("abcdxy", names, 1));
    assert_null(suggest_name("abcxyz", names, 1));
    static const char *const five[] = {"abcde"};
    assert_non_null(suggest_name("abcdx", five, 1));
    assert_null(suggest_name("abcxy", five, 1));
}

static void test_long_names(void **state)
{
    (void)state;
    char typed[SUGGEST_BYTES_MAX + 2], name[SUGGEST_BYTES_MAX + 2];
    memset(typed, 'a', sizeof(typed));
    memset(name, 'a', sizeof(name));
    typed[SUGGEST_BYTES_MAX] = name[SUGGEST_BYTES_MAX] = '\0';
    name[10] = 'b';
    const char *const names[] = {name};
    assert_ptr_equal(suggest_name(typed, names, 1), name);
    typed[SUGGEST_BYTES_MAX] = 'a';
    typed[SUGGEST_BYTES_MAX + 1] = '\0';
    assert_null(suggest_name(typed, names, 1));
    typed[SUGGEST_BYTES_MAX] = '\0';
    name[SUGGEST_BYTES_MAX] = 'a';
    name[SUGGEST_BYTES_MAX + 1] = '\0';
    assert_null(suggest_name(typed, names, 1));
}

static void test_offered_one_by_one(void **state)
{
    (void)state;
    struct suggest s = suggest_for("send_queue_total");
    suggest_offer(&s, "port");
    assert_null(s.best);
    suggest_offer(&s, "send_queues_total");
    assert_string_equal(s.best, "send_queues_total");
    suggest_offer(&s, "send_queues_totals");
    assert_string_equal(s.best, "send_queues_total");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_first_of_equals),
        cmocka_unit_test(test_limit_grows_with_length),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_offered_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
