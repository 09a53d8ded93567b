#include "base/number.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#define N(array) (sizeof(array) / sizeof((array)[0]))

typedef int parse_fn(const char *text, int64_t *ret_value);
typedef int format_fn(int64_t value, char *buf, size_t size);

struct parse_case {
    const char *text;
    int64_t value; /* or the error, if it is one of ours */
    int result;
};

static void check_parse(parse_fn *parse, const struct parse_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int64_t value = -77;
        int result = parse(cases[i].text, &value);
        if (result != cases[i].result)
            print_error("\"%s\": %d\n", cases[i].text, result);
        assert_int_equal(result, cases[i].result);
        /* Untouched on failure. */
        assert_true(value == (result ? -77 : cases[i].value));
    }
}

/* What was parsed, written again, is parsed as the same; in every size of buffer. */
static void check_format(format_fn *format, parse_fn *parse, int64_t value, const char *expected)
{
    char buf[NUMBER_TEXT_BYTES];
    size_t len = strlen(expected);
    int64_t again = -77;
    assert_int_equal(format(value, buf, sizeof(buf)), len);
    assert_string_equal(buf, expected);
    assert_int_equal(parse(buf, &again), 0);
    assert_true(again == value);
    assert_int_equal(format(value, buf, len + 1), len);
    for (size_t size = 0; size <= len; size++)
        assert_int_equal(format(value, buf, size), -ENOBUFS);
}

static void test_int(void **state)
{
    (void)state;
    static const struct parse_case cases[] = {
        {"0", 0, 0},
        {"12", 12, 0},
        {"-3", -3, 0},
        {"007", 7, 0},
        {"9223372036854775807", INT64_MAX, 0},
        {"-9223372036854775808", INT64_MIN, 0},
        {"9223372036854775808", 0, -ERANGE},
        {"-9223372036854775809", 0, -ERANGE},
        {"99999999999999999999999", 0, -ERANGE},
        {"", 0, -EINVAL},
        {"-", 0, -EINVAL},
        {"--1", 0, -EINVAL},
        {"+1", 0, -EINVAL},
        {" 1", 0, -EINVAL},
        {"1 ", 0, -EINVAL},
        {"1k", 0, -EINVAL},
        {"0x10", 0, -EINVAL},
        {"1.5", 0, -EINVAL},
        {"99999999999999999999999x", 0, -EINVAL},
    };
    check_parse(number_parse_int, cases, N(cases));
    check_format(number_format_int, number_parse_int, 0, "0");
    check_format(number_format_int, number_parse_int, -12, "-12");
    check_format(number_format_int, number_parse_int, INT64_MIN, "-9223372036854775808");
}

static void test_bytes(void **state)
{
    (void)state;
    static const struct parse_case cases[] = {
        {"0", 0, 0},
        {"512", 512, 0},
        {"64k", 65536, 0},
        {"64K", 65536, 0},
        {"1M", 1048576, 0},
        {"10G", INT64_C(10737418240), 0},
        {"8589934591G", INT64_C(8589934591) << 30, 0},
        {"8589934592G", 0, -ERANGE},
        {"9223372036854775807", INT64_MAX, 0},
        {"9223372036854775808", 0, -ERANGE},
        {"9223372036854775808k", 0, -ERANGE},
        {"18446744073709551617", 0, -ERANGE},
        {"", 0, -EINVAL},
        {"k", 0, -EINVAL},
        {"-1", 0, -EINVAL},
        {"1.5M", 0, -EINVAL},
        {"1 M", 0, -EINVAL},
        {"1kB", 0, -EINVAL},
        {"1m", 0, -EINVAL},
        {"1T", 0, -EINVAL},
        {"64k ", 0, -EINVAL},
        {"99999999999999999999x", 0, -EINVAL},
    };
    check_parse(number_parse_bytes, cases, N(cases));
    check_format(number_format_bytes, number_parse_bytes, 0, "0");
    check_format(number_format_bytes, number_parse_bytes, 512, "512");
    check_format(number_format_bytes, number_parse_bytes, 65536, "64k");
    check_format(number_format_bytes, number_parse_bytes, 65537, "65537");
    check_format(number_format_bytes, number_parse_bytes, 1536 * 1024, "1536k");
    check_format(number_format_bytes, number_parse_bytes, 1 << 30, "1G");
    check_format(number_format_bytes, number_parse_bytes, INT64_MAX, "9223372036854775807");
    char buf[NUMBER_TEXT_BYTES];
    assert_int_equal(number_format_bytes(-1, buf, sizeof(buf)), -EINVAL);
}

static void test_duration(void **state)
{
    (void)state;
    static const struct parse_case cases[] = {
        {"0", 0, 0},
        {"0s", 0, 0},
        {"000", 0, 0},
        {"250ms", 250, 0},
        {"30s", 30000, 0},
        {"5m", 300000, 0},
        {"12h", 43200000, 0},
        {"7d", 604800000, 0},
        {"30", 0, -ENOMSG},
        {"9223372036854775807ms", INT64_MAX, 0},
        {"9223372036854775807", 0, -ENOMSG},
        {"9223372036854775807s", 0, -ERANGE},
        {"9223372036854775808ms", 0, -ERANGE},
        {"99999999999999999999", 0, -ERANGE},
        {"106751991168d", 0, -ERANGE},
        {"", 0, -EINVAL},
        {"s", 0, -EINVAL},
        {"-1s", 0, -EINVAL},
        {"30 s", 0, -EINVAL},
        {"30S", 0, -EINVAL},
        {"30sec", 0, -EINVAL},
        {"1h30m", 0, -EINVAL},
        {"1.5h", 0, -EINVAL},
        {"1w", 0, -EINVAL},
        {"30x", 0, -EINVAL},
    };
    check_parse(number_parse_duration_ms, cases, N(cases));
    check_format(number_format_duration_ms, number_parse_duration_ms, 0, "0");
    check_format(number_format_duration_ms, number_parse_duration_ms, 250, "250ms");
    check_format(number_format_duration_ms, number_parse_duration_ms, 1500, "1500ms");
    check_format(number_format_duration_ms, number_parse_duration_ms, 30000, "30s");
    check_format(number_format_duration_ms, number_parse_duration_ms, 90000, "90s");
    check_format(number_format_duration_ms, number_parse_duration_ms, 300000, "5m");
    check_format(number_format_duration_ms, number_parse_duration_ms, 43200000, "12h");
    check_format(number_format_duration_ms, number_parse_duration_ms, 604800000, "7d");
    check_format(number_format_duration_ms, number_parse_duration_ms, INT64_MAX,
                 "9223372036854775807ms");
    char buf[NUMBER_TEXT_BYTES];
    assert_int_equal(number_format_duration_ms(-1, buf, sizeof(buf)), -EINVAL);
}

static void test_rate(void **state)
{
    (void)state;
    static const struct {
        const char *text, *again; /* NULL: the same */
        struct roda_rate rate;
    } good[] = {
        {"2/s burst 10", NULL, {2, 1000, 10}},
        {"10/m burst 3", NULL, {10, 60000, 3}},
        {"4k/s burst 16k", NULL, {4096, 1000, 16384}},
        {"5/h burst 1", NULL, {5, 3600000, 1}},
        {"3/m", NULL, {3, 60000, 3}},
        {"3/m burst 3", "3/m", {3, 60000, 3}},
        {"2/s \t burst\t10", "2/s burst 10", {2, 1000, 10}},
        {"off", NULL, {0, 1000, 1}},
        {"9223372036854775807/s burst 9223372036854775807",
         "9223372036854775807/s",
         {INT64_MAX, 1000, INT64_MAX}},
        {"9223372036854775807/s burst 9223372036854775806", NULL, {INT64_MAX, 1000, INT64_MAX - 1}},
    };
    for (size_t i = 0; i < N(good); i++) {
        struct roda_rate rate = {-1, -1, -1};
        char buf[NUMBER_TEXT_BYTES];
        const char *again = good[i].again ? good[i].again : good[i].text;
        assert_int_equal(number_parse_rate(good[i].text, &rate), 0);
        assert_true(rate.count == good[i].rate.count);
        assert_true(rate.per_ms == good[i].rate.per_ms);
        assert_true(rate.burst == good[i].rate.burst);
        assert_int_equal(number_format_rate(&rate, buf, sizeof(buf)), strlen(again));
        assert_string_equal(buf, again);
        for (size_t size = 0; size <= strlen(again); size++)
            assert_int_equal(number_format_rate(&rate, buf, size), -ENOBUFS);
    }
    static const struct {
        const char *text;
        int error;
    } bad[] = {
        {"2", -ENOMSG},
        {"2 burst 10", -ENOMSG},
        {"2/", -ENOMSG},
        {"0/s", -ERANGE},
        {"0/s burst 5", -ERANGE},
        {"2/s burst 0", -ERANGE},
        {"99999999999999999999/s", -ERANGE},
        {"2/s burst 99999999999999999999", -ERANGE},
        {"", -EINVAL},
        {"/s", -EINVAL},
        {"Off", -EINVAL},
        {"off ", -EINVAL},
        {"2/d", -EINVAL},
        {"2/ms", -EINVAL},
        {"2/5s", -EINVAL},
        {"2 / s", -EINVAL},
        {"2/s ", -EINVAL},
        {"2/s 10", -EINVAL},
        {"2/s burst", -EINVAL},
        {"2/s burst10", -EINVAL},
        {"2/sburst 10", -EINVAL},
        {"2/s burst 10 ", -EINVAL},
        {"2/s burst 10 20", -EINVAL},
        {"2/s burst -1", -EINVAL},
        {"-2/s burst 1", -EINVAL},
        {"2x/s", -EINVAL},
    };
    for (size_t i = 0; i < N(bad); i++) {
        struct roda_rate rate = {-1, -2, -3};
        int error = number_parse_rate(bad[i].text, &rate);
        if (error != bad[i].error)
            print_error("\"%s\": %d\n", bad[i].text, error);
        assert_int_equal(error, bad[i].error);
        assert_true(rate.count == -1 && rate.per_ms == -2 && rate.burst == -3);
    }
    static const struct roda_rate none[] = {{1, 5, 1}, {1, 1000, 0}, {-1, 1000, 1}};
    for (size_t i = 0; i < N(none); i++) {
        char buf[NUMBER_TEXT_BYTES];
        assert_int_equal(number_format_rate(&none[i], buf, sizeof(buf)), -EINVAL);
    }
}

static void test_mode(void **state)
{
    (void)state;
    static const struct parse_case cases[] = {
        {"0660", 0660, 0},     {"660", 0660, 0},       {"0", 0, 0},
        {"7777", 07777, 0},    {"010000", 0, -ERANGE}, {"77777777777777777777777", 0, -ERANGE},
        {"", 0, -EINVAL},      {"0680", 0, -EINVAL},   {"rw-rw----", 0, -EINVAL},
        {"0660 ", 0, -EINVAL}, {"-1", 0, -EINVAL},     {"0o660", 0, -EINVAL},
    };
    check_parse(number_parse_mode, cases, N(cases));
    check_format(number_format_mode, number_parse_mode, 0660, "0660");
    check_format(number_format_mode, number_parse_mode, 0, "0000");
    check_format(number_format_mode, number_parse_mode, 07777, "7777");
    char buf[NUMBER_TEXT_BYTES];
    assert_int_equal(number_format_mode(-1, buf, sizeof(buf)), -EINVAL);
    assert_int_equal(number_format_mode(010000, buf, sizeof(buf)), -EINVAL);
}

/* Many values of every magnitude come back as they were. */
static void test_round_trips(void **state)
{
    (void)state;
    uint64_t random = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        char buf[NUMBER_TEXT_BYTES];
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        int64_t value = (int64_t)(random >> (1 + i % 62)), again = -1;
        if (i % 2 && value < INT64_MAX / 3600000)
            value *= i % 4 == 1 ? 1024 : 3600000;
        assert_true(number_format_bytes(value, buf, sizeof(buf)) > 0);
        assert_int_equal(number_parse_bytes(buf, &again), 0);
        assert_true(again == value);
        assert_true(number_format_duration_ms(value, buf, sizeof(buf)) > 0);
        assert_int_equal(number_parse_duration_ms(buf, &again), 0);
        assert_true(again == value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_int),      cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_duration), cmocka_unit_test(test_rate),
        cmocka_unit_test(test_mode),     cmocka_unit_test(test_round_trips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
