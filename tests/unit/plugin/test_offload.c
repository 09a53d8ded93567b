/* Blocking work: done on the pool, told on the worker, bounded per plugin. */
#include "unit/bus/bench.h"

static unsigned worked, told, cancelled;

static void work(void *arg)
{
    (void)arg;
    worked++;
}

static void done(struct roda_ctx *x, void *arg, int result)
{
    assert_ptr_equal(x, bench_ctx(0, FIRST));
    assert_ptr_equal(arg, &told);
    assert_int_equal(worked >= told + 1, 1);
    told++;
    cancelled += result == -ECANCELED;
}

static int offload(unsigned plugin)
{
    return roda_offload(bench_ctx(0, plugin), work, done, &told);
}

static int begin(void **state)
{
    (void)state;
    worked = told = cancelled = 0;
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

static void settle_jobs(void)
{
    bench_done(0);
    for (unsigned i = 0; i < 100 && told < worked; i++)
        bench_pass(10);
}

static void work_is_done_elsewhere_and_told_here(void **state)
{
    (void)state;
    bench_as(0);
    assert_int_equal(offload(FIRST), 0);
    assert_int_equal(offload(FIRST), 0);
    assert_int_equal(told, 0); /* not inside the call */
    settle_jobs();
    bench_pass(100);
    assert_int_equal(worked, 2);
    assert_int_equal(told, 2);
    assert_int_equal(cancelled, 0);
}

static void a_plugin_has_64_at_once(void **state)
{
    (void)state;
    bench_as(0);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(offload(FIRST), 0);
    assert_int_equal(offload(FIRST), -EAGAIN);
    assert_int_equal(context_of(bench_ctx(0, FIRST))->offloads, 64);
    settle_jobs();
    bench_pass(1000);
    assert_int_equal(told, 64);
    assert_int_equal(context_of(bench_ctx(0, FIRST))->offloads, 0);
    bench_as(0);
    assert_int_equal(offload(FIRST), 0);
    settle_jobs();
    bench_pass(100);
    assert_int_equal(told, 65);
}

static void no_memory_nothing_offloaded(void **state)
{
    (void)state;
    bench_as(0);
    memory_fail_at(1, 0);
    assert_int_equal(offload(FIRST), -ENOMEM);
    memory_fail_at(0, 0);
    assert_int_equal(context_of(bench_ctx(0, FIRST))->offloads, 0);
    bench_done(0);
    bench_pass(100);
    assert_int_equal(worked + told, 0);
}

static void the_pool_may_be_full(void **state)
{
    unsigned taken[3] = {0};

    (void)state;
    bench_as(0);
    for (unsigned i = 0; i < 64; i++) /* the system takes 256 in all */
        taken[0] += !offload(FIRST);
    assert_int_equal(taken[0], 64);
    for (unsigned i = 0; i < 300; i++) {
        context_of(bench_ctx(0, FIRST))->offloads = 0; /* as if they were other plugins' */
        taken[1] += !offload(FIRST);
    }
    assert_in_range(taken[1], 192, 299);
    context_of(bench_ctx(0, FIRST))->offloads = taken[0] + taken[1];
    assert_int_equal(offload(FIRST), -EAGAIN);
    settle_jobs();
    bench_pass(2000);
    assert_int_equal(told, taken[0] + taken[1]);
    assert_int_equal(context_of(bench_ctx(0, FIRST))->offloads, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        TEST(work_is_done_elsewhere_and_told_here),
        TEST(a_plugin_has_64_at_once),
        TEST(no_memory_nothing_offloaded),
        TEST(the_pool_may_be_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
