#include "flood.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "plugins/ratelimit/table.h"

/* The shared table: alone, under attack, and from several threads at once. */

enum { SECOND = 1000000, THREADS = 4 };

static struct testhost *host;
static struct roda_ctx *x;

static int setup(void **state)
{
    (void)state;
    host = flood_start(1, "");
    x = testhost_ctx(host, "ratelimit", 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    flood_stop(host);
    return 0;
}

/* As good as a hash with a secret. */
static uint64_t key_of(uint64_t n)
{
    n += UINT64_C(0x9e3779b97f4a7c15);
    n = (n ^ n >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    n = (n ^ n >> 27) * UINT64_C(0x94d049bb133111eb);
    return n ^ n >> 31;
}

static struct gcra rate(int64_t count, int64_t burst)
{
    struct roda_rate r = {.count = count, .per_ms = 1000, .burst = burst};

    return gcra_of(&r, 1, GCRA_SHARED_TICKS);
}

static void burst_and_rate_are_exact(void **state)
{
    struct table *table = table_new(x, 1024);
    struct gcra g = rate(10, 40);
    uint64_t now = 5 * SECOND;
    int passed = 0;

    (void)state;
    for (int i = 0; i < 100; i++)
        passed += !table_take(table, key_of(1), now, &g, 0);
    assert_int_equal(passed, 40);
    for (uint64_t end = now + 12 * SECOND; now < end; now += 1000)
        passed += !table_take(table, key_of(1), now, &g, 0);
    assert_int_equal(passed, 40 + 119); /* the last one is due at the end */
    assert_int_equal(table_take(table, key_of(1), now, &g, 0), 0);
    assert_int_not_equal(table_take(table, key_of(1), now, &g, 0), 0);
    table_free(x, table);
}

static void what_waits_is_paid_for_in_order(void **state)
{
    struct table *table = table_new(x, 1024);
    struct gcra g = rate(10, 1);

    (void)state;
    for (uint64_t i = 0; i < 30; i++)
        assert_int_equal(table_take(table, key_of(1), SECOND, &g, 10 * SECOND), i * SECOND / 10);
    assert_int_equal(table_ahead(table, key_of(1), SECOND), 3 * SECOND);
    assert_true(table_take(table, key_of(1), SECOND, &g, SECOND) > SECOND);
    assert_int_equal(table_ahead(table, key_of(1), SECOND), 3 * SECOND); /* nothing was done */
    table_free(x, table);
}

static void a_bucket_is_raised_and_given_back(void **state)
{
    struct table *table = table_new(x, 1024);

    (void)state;
    assert_int_equal(table_ahead(table, key_of(1), 77), 0);
    table_raise(table, key_of(1), 77, 5000);
    table_raise(table, key_of(1), 77, 300);
    assert_int_equal(table_ahead(table, key_of(1), 77), 5000);
    assert_int_equal(table_ahead(table, key_of(1), 1077), 4000);
    table_give(table, key_of(1), 77, 1000);
    assert_int_equal(table_ahead(table, key_of(1), 77), 4000);
    table_give(table, key_of(1), 77, 9000);
    assert_int_equal(table_ahead(table, key_of(1), 77), 0);
    table_give(table, key_of(2), 77, 1); /* nobody's */
    table_free(x, table);
}

static void time_runs_round(void **state)
{
    struct table *table = table_new(x, 1024);
    uint64_t now = (UINT64_C(1) << 44) - SECOND;
    struct gcra g = rate(1, 3);

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(table_take(table, key_of(1), now, &g, 0), 0);
    assert_int_equal(table_ahead(table, key_of(1), now), 3 * SECOND);
    now += 2 * SECOND;
    assert_int_equal(table_ahead(table, key_of(1), now), SECOND);
    assert_int_equal(table_take(table, key_of(1), now, &g, 0), 0);
    /* Once it is over, it is over. */
    assert_int_equal(table_ahead(table, key_of(1), now + 2 * SECOND), 0);
    assert_int_equal(table_ahead(table, key_of(1), now + (UINT64_C(1) << 42)), 0);
    table_free(x, table);
}

static void sweeping_frees_what_is_empty(void **state)
{
    struct table *table = table_new(x, 1024);
    struct gcra g = rate(1, 3);
    size_t used = 0;

    (void)state;
    assert_int_equal(table_buckets(table), 1024);
    for (uint64_t i = 0; i < 100; i++)
        (void)table_take(table, key_of(i), 0, &g, 0);
    table_raise(table, key_of(1000), 0, 90 * SECOND);
    for (size_t part = 0; part < 64; part++)
        used += table_sweep(table, SECOND / 2, part, 64);
    assert_int_equal(used, 101);
    used = 0;
    for (size_t part = 0; part < 64; part++)
        used += table_sweep(table, 2 * SECOND, part, 64);
    assert_int_equal(used, 1);
    /* A quarter of a year later it is not full again. */
    assert_int_equal(table_ahead(table, key_of(5), (UINT64_C(1) << 44) - SECOND), 0);
    table_free(x, table);
}

static void a_million_keys_leave_floods_and_innocents_as_they_are(void **state)
{
    struct table *table = table_new(x, 65536);
    struct gcra g = rate(10, 40);
    uint64_t before = testhost_allocations(host), now = SECOND;
    size_t refused = 0, kept = 0;

    (void)state;
    for (uint64_t i = 0; i < 100; i++) { /* floods, and bans */
        while (!table_take(table, key_of(~i), now, &g, 0))
            ;
        table_raise(table, key_of(~i - 1000), now, 300 * (uint64_t)SECOND);
    }
    for (uint64_t i = 0; i < 1000000; i++)
        refused += table_take(table, key_of(i), now, &g, 0) != 0;
    assert_true(refused < 100); /* 8 in 2^20 of a million, by chance */
    assert_true(table_replaced(table) > 800000);
    for (uint64_t i = 0; i < 100; i++) {
        kept += table_take(table, key_of(~i), now, &g, 0) != 0;
        kept += table_ahead(table, key_of(~i - 1000), now) == 300 * (uint64_t)SECOND;
    }
    assert_true(kept >= 199); /* a key of the million may have the place by chance */
    assert_int_equal(testhost_allocations(host), before);
    table_free(x, table);
}

/* ---- threads ------------------------------------------------------------------------------ */

struct crowd {
    struct table *table;
    struct gcra g;
    _Atomic size_t passed, threads, met[2];
    uint64_t first_key, n_keys, rounds;
    pthread_barrier_t start;
};

static void *push(void *arg)
{
    struct crowd *crowd = arg;

    (void)pthread_barrier_wait(&crowd->start);
    for (uint64_t key = 0; key < crowd->n_keys; key++)
        for (uint64_t i = 0; i < crowd->rounds; i++)
            if (!table_take(crowd->table, key_of(crowd->first_key + key), SECOND, &crowd->g, 0))
                atomic_fetch_add(&crowd->passed, 1);
    return NULL;
}

static void *come_and_go(void *arg)
{
    struct crowd *crowd = arg;

    (void)pthread_barrier_wait(&crowd->start);
    for (uint64_t i = 0; i < crowd->rounds; i++)
        for (uint64_t key = 0; key < crowd->n_keys; key++)
            if (!table_take(crowd->table, key_of(key), 0, &crowd->g, 0)) {
                atomic_fetch_add(&crowd->passed, 1);
                table_give(crowd->table, key_of(key), 0, 1);
            }
    return NULL;
}

static void together(struct crowd *crowd, void *(*run)(void *), size_t n)
{
    pthread_t threads[THREADS];

    assert_int_equal(pthread_barrier_init(&crowd->start, NULL, (unsigned)n), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run, crowd), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    (void)pthread_barrier_destroy(&crowd->start);
}

static void a_limit_holds_over_all_threads(void **state)
{
    struct crowd crowd = {.table = table_new(x, 65536),
                          .g = rate(10, 40),
                          .n_keys = 500,
                          .rounds = 40};

    (void)state;
    together(&crowd, push, THREADS);
    assert_int_equal(crowd.passed, 500 * 40); /* 500 keys that were new, four times 40 tries each */
    table_free(x, crowd.table);
}

static void a_new_key_has_one_bucket_whoever_asks_first(void **state)
{
    struct crowd crowd = {.table = table_new(x, 65536),
                          .g = rate(1, 1),
                          .n_keys = 5000,
                          .rounds = 1};

    (void)state;
    together(&crowd, push, THREADS);
    assert_int_equal(crowd.passed, 5000);
    table_free(x, crowd.table);
}

/* Both begin as nearly at once as can be: who waits in the kernel wakes up too late. */
static void meet(_Atomic size_t *met, size_t round)
{
    atomic_fetch_add(met, 1);
    for (size_t spins = 0; atomic_load(met) < 2 * (round + 1); spins++)
        if (spins > 1000)
            (void)sched_yield();
}

/* Each round has a key that is new, of which one of two threads may have one. Another key leaves
 * the set just then, so that the two may see different places free. */
static void *push_as_another_leaves(void *arg)
{
    struct crowd *crowd = arg;
    size_t me = atomic_fetch_add(&crowd->threads, 1);

    for (size_t i = 0; i < crowd->rounds; i++) {
        if (!me)
            (void)table_take(crowd->table, key_of(0), 0, &crowd->g, 0);
        meet(&crowd->met[0], i);
        for (size_t pause = i % 37; me && pause; pause--)
            (void)atomic_load(&crowd->met[0]);
        if (!me)
            table_give(crowd->table, key_of(0), 0, 1);
        if (!table_take(crowd->table, key_of(1 + i), 0, &crowd->g, 0))
            atomic_fetch_add(&crowd->passed, 1);
        meet(&crowd->met[1], i);
        if (!me)
            while (table_ahead(crowd->table, key_of(1 + i), 0))
                table_give(crowd->table, key_of(1 + i), 0, 1);
    }
    return NULL;
}

static void a_new_key_has_one_bucket_while_another_leaves(void **state)
{
    struct crowd crowd = {.table = table_new(x, 8), .g = {.cost = 1, .limit = 1}, .rounds = 20000};

    (void)state;
    together(&crowd, push_as_another_leaves, 2);
    assert_int_equal(crowd.passed, crowd.rounds);
    table_free(x, crowd.table);
}

static void counts_end_where_they_began(void **state)
{
    struct crowd crowd = {.table = table_new(x, 65536),
                          .g = {.cost = 1, .limit = 3},
                          .n_keys = 50,
                          .rounds = 400};

    (void)state;
    together(&crowd, come_and_go, THREADS);
    assert_true(crowd.passed > 0);
    for (uint64_t key = 0; key < crowd.n_keys; key++)
        assert_int_equal(table_ahead(crowd.table, key_of(key), 0), 0);
    table_free(x, crowd.table);
}

static void a_table_that_is_too_small_is_still_safe(void **state)
{
    struct crowd crowd = {.table = table_new(x, 8), .g = rate(10, 3), .n_keys = 300, .rounds = 30};

    (void)state;
    together(&crowd, push, THREADS);
    assert_true(crowd.passed >= 300 * 3); /* who is forgotten begins anew */
    assert_true(table_replaced(crowd.table) > 200);
    table_free(x, crowd.table);
}

static void memory_may_be_out(void **state)
{
    (void)state;
    testhost_fail_allocation(host, 1);
    assert_null(table_new(x, 1024));
    testhost_fail_allocation(host, 2);
    assert_null(table_new(x, 1024));
    table_free(x, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(burst_and_rate_are_exact),
        cmocka_unit_test(what_waits_is_paid_for_in_order),
        cmocka_unit_test(a_bucket_is_raised_and_given_back),
        cmocka_unit_test(time_runs_round),
        cmocka_unit_test(sweeping_frees_what_is_empty),
        cmocka_unit_test(a_million_keys_leave_floods_and_innocents_as_they_are),
        cmocka_unit_test(a_limit_holds_over_all_threads),
        cmocka_unit_test(a_new_key_has_one_bucket_whoever_asks_first),
        cmocka_unit_test(a_new_key_has_one_bucket_while_another_leaves),
        cmocka_unit_test(counts_end_where_they_began),
        cmocka_unit_test(a_table_that_is_too_small_is_still_safe),
        cmocka_unit_test(memory_may_be_out),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
