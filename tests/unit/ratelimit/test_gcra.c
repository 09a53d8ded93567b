#include "flood.h"

#include "plugins/ratelimit/gcra.h"

/* What a rate means for a bucket. */

static const struct roda_rate two_a_second = {.count = 2, .per_ms = 1000, .burst = 10};

static void a_burst_fits_exactly(void **state)
{
    static const int64_t counts[] = {1, 2, 3, 7, 30, 999, 10000};

    (void)state;
    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++)
        for (int64_t burst = 1; burst < 100; burst += 7) {
            struct roda_rate rate = {.count = counts[i], .per_ms = 1000, .burst = burst};
            struct gcra g = gcra_of(&rate, 1, GCRA_SHARED_TICKS);
            uint64_t ahead = 0;
            for (int64_t n = 0; n < burst; n++, ahead += g.cost)
                assert_int_equal(gcra_wait(&g, ahead), 0);
            assert_int_not_equal(gcra_wait(&g, ahead), 0);
        }
}

static void the_cost_is_exact_to_a_percent(void **state)
{
    static const int64_t per[] = {1000, 60000, 3600000};

    (void)state;
    for (int64_t count = 1; count <= 10000; count += 13)
        for (size_t i = 0; i < 3; i++) {
            struct roda_rate rate = {.count = count, .per_ms = per[i], .burst = 1};
            double exact = (double)per[i] * GCRA_SHARED_TICKS / (double)count;
            double is = (double)gcra_of(&rate, 1, GCRA_SHARED_TICKS).cost;
            assert_true(is > exact * 0.99 && is < exact * 1.01);
        }
}

static void bytes_are_not_rounded_one_by_one(void **state)
{
    struct roda_rate rate = {.count = 3 << 20, .per_ms = 1000, .burst = 1 << 20};
    struct gcra g = gcra_of(&rate, 3 << 20, GCRA_OWN_TICKS);

    (void)state;
    assert_int_equal(g.cost, UINT64_C(1000000000));
}

static void what_is_dearer_than_the_limit_waits_for_the_empty_bucket(void **state)
{
    struct gcra g = gcra_of(&two_a_second, 100, GCRA_OWN_TICKS);

    (void)state;
    assert_int_equal(gcra_wait(&g, 0), 0);
    assert_int_equal(gcra_wait(&g, 1), 1);
    assert_int_equal(gcra_wait(&g, g.cost), g.cost);
}

static void a_rate_reads_as_in_the_conf(void **state)
{
    struct roda_rate bytes = {.count = 4096, .per_ms = 1000, .burst = 16384};
    struct roda_rate slow = {.count = 30, .per_ms = 60000, .burst = 1};
    struct roda_rate slower = {.count = 5 << 20, .per_ms = 3600000, .burst = 1025};
    char buf[64];

    (void)state;
    assert_string_equal(gcra_text(&two_a_second, buf, sizeof(buf)), "2/s burst 10");
    assert_string_equal(gcra_text(&bytes, buf, sizeof(buf)), "4k/s burst 16k");
    assert_string_equal(gcra_text(&slow, buf, sizeof(buf)), "30/m burst 1");
    assert_string_equal(gcra_text(&slower, buf, sizeof(buf)), "5M/h burst 1025");
}

static void the_limit_in_time(void **state)
{
    struct roda_rate huge = {.count = 1, .per_ms = 3600000, .burst = INT64_MAX};

    (void)state;
    assert_int_equal(gcra_limit_ms(&two_a_second), 5000);
    assert_int_equal(gcra_limit_ms(&huge), UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_burst_fits_exactly),
        cmocka_unit_test(the_cost_is_exact_to_a_percent),
        cmocka_unit_test(bytes_are_not_rounded_one_by_one),
        cmocka_unit_test(what_is_dearer_than_the_limit_waits_for_the_empty_bucket),
        cmocka_unit_test(a_rate_reads_as_in_the_conf),
        cmocka_unit_test(the_limit_in_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
