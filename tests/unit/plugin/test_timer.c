/* Plugins' timers: once, again and again, stopped in every place, ended with their plugin. */
#include "unit/bus/bench.h"

static unsigned fired;
static struct roda_timer *other;
static uint64_t fired_ms;

static void fire(struct roda_ctx *x, void *arg, int result)
{
    assert_ptr_equal(x, bench_ctx(0, FIRST));
    assert_int_equal(result, 0);
    fired++;
    fired_ms = roda_now_ms(x);
    if (arg) { /* the timer itself, or another one */
        roda_timer_stop(*(struct roda_timer **)arg);
        *(struct roda_timer **)arg = NULL;
    }
}

static struct roda_timer *start(uint64_t delay_ms, uint64_t period_ms, void *arg)
{
    struct roda_timer *timer;

    bench_as(0);
    timer = roda_timer_start(bench_ctx(0, FIRST), delay_ms, period_ms, fire, arg);
    bench_done(0);
    return timer;
}

static int begin(void **state)
{
    (void)state;
    fired = 0;
    bench_new(1);
    bench_start();
    return 0;
}

static int end(void **state)
{
    (void)state;
    bench_end();
    return 0;
}

static void once(void **state)
{
    uint64_t at_ms = bench_now_ms();

    (void)state;
    assert_non_null(start(100, 0, NULL));
    bench_pass(90);
    assert_int_equal(fired, 0);
    bench_pass(20);
    assert_int_equal(fired, 1);
    assert_in_range(fired_ms, at_ms + 100, at_ms + 110);
    bench_pass(1000);
    assert_int_equal(fired, 1);
}

static void again_and_again_until_stopped(void **state)
{
    struct roda_timer *timer = start(50, 100, NULL);

    (void)state;
    bench_pass(500);
    assert_int_equal(fired, 5);
    bench_as(0);
    roda_timer_stop(timer);
    roda_timer_stop(NULL);
    bench_done(0);
    bench_pass(500);
    assert_int_equal(fired, 5);
}

static void a_timer_may_stop_itself_and_others(void **state)
{
    struct roda_timer *periodic = NULL;

    (void)state;
    periodic = start(10, 10, &periodic);
    bench_pass(100);
    assert_int_equal(fired, 1);
    assert_null(periodic);
    bench_as(0);
    other = roda_timer_start(bench_ctx(0, FIRST), 100, 100, fire, NULL);
    assert_non_null(roda_timer_start(bench_ctx(0, FIRST), 150, 0, fire, &other));
    bench_done(0);
    bench_pass(800);
    assert_int_equal(fired, 3);
}

static void never_is_never(void **state)
{
    (void)state;
    assert_non_null(start(UINT64_MAX, 0, NULL));
    assert_non_null(start(1, UINT64_MAX, NULL));
    bench_pass(100000);
    assert_int_equal(fired, 1);
}

static void no_memory_no_timer(void **state)
{
    (void)state;
    bench_as(0);
    memory_fail_at(1, 0);
    assert_null(roda_timer_start(bench_ctx(0, FIRST), 1, 0, fire, NULL));
    memory_fail_at(0, 0);
}

static void timers_end_with_their_plugin(void **state)
{
    (void)state;
    assert_non_null(start(5000, 10, NULL)); /* the shutdown takes less */
    assert_non_null(start(UINT64_C(100000000), 0, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        TEST(once),
        TEST(again_and_again_until_stopped),
        TEST(a_timer_may_stop_itself_and_others),
        TEST(never_is_never),
        TEST(no_memory_no_timer),
        TEST(timers_end_with_their_plugin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
