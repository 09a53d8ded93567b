/* Chunks: counting, accounting, the free list, the index of units. */
#include "unit/net/fixture.h"

static void counted_and_accounted(void **state)
{
    (void)state;
    _Atomic uint64_t total = 0;
    struct chunk_pool pool;

    chunk_pool_init(&pool, &total);
    struct chunk *small = chunk_get(&pool, 1), *large = chunk_get(&pool, CHUNK_BYTES + 1);
    assert_int_equal(small->capacity, CHUNK_BYTES);
    assert_int_equal(large->capacity, CHUNK_BYTES + 1);
    assert_int_equal(chunk_space(small), CHUNK_BYTES);
    uint64_t both = small->capacity + large->capacity + 2 * sizeof(struct chunk);
    assert_int_equal(pool.pinned_bytes, both);
    assert_int_equal(total, both);
    assert_ptr_equal(chunk_ref(small), small);
    chunk_unref(&pool, small);
    assert_int_equal(total, both);
    chunk_unref(&pool, small);
    chunk_unref(&pool, large);
    chunk_unref(&pool, NULL);
    assert_int_equal(total, 0);
    assert_int_equal(pool.pinned_bytes, 0);
    assert_int_equal(pool.n_free, 1); /* only the ordinary one is kept */
    chunk_pool_deinit(&pool);
}

static void a_reused_chunk_is_fresh(void **state)
{
    (void)state;
    _Atomic uint64_t total = 0;
    struct chunk_pool pool;

    chunk_pool_init(&pool, &total);
    struct chunk *chunk = chunk_get(&pool, CHUNK_BYTES);
    chunk->used = 100;
    chunk->counts_units = true;
    chunk->compacted = true;
    assert_int_equal(chunk_end_unit(chunk), 0);
    chunk_unref(&pool, chunk);
    struct chunk *again = chunk_get(&pool, 1);
    assert_ptr_equal(again, chunk);
    assert_int_equal(again->used, 0);
    assert_int_equal(again->n_units, 0);
    assert_int_equal(again->references, 1);
    assert_false(again->counts_units);
    assert_false(again->compacted);
    chunk_unref(&pool, again);
    chunk_pool_deinit(&pool);
}

static void the_free_list_is_short(void **state)
{
    (void)state;
    enum { MANY = 40 };
    _Atomic uint64_t total = 0;
    struct chunk_pool pool;
    struct chunk *chunks[MANY];

    chunk_pool_init(&pool, &total);
    for (unsigned i = 0; i < MANY; i++)
        chunks[i] = chunk_get(&pool, 1);
    for (unsigned i = 0; i < MANY; i++)
        chunk_unref(&pool, chunks[i]);
    assert_in_range(pool.n_free, 1, MANY / 2);
    assert_int_equal(total, 0);
    chunk_pool_deinit(&pool);
    assert_null(pool.free);
}

static void units_are_found(void **state)
{
    (void)state;
    _Atomic uint64_t total = 0;
    struct chunk_pool pool;

    chunk_pool_init(&pool, &total);
    struct chunk *chunk = chunk_get(&pool, 1);
    assert_int_equal(chunk_units_within(chunk, 0, 1000), 0);
    for (unsigned i = 1; i <= 200; i++) { /* ends at 10, 20 ... 2000 */
        chunk->used = i * 10;
        assert_int_equal(chunk_end_unit(chunk), 0);
    }
    assert_int_equal(chunk_units_within(chunk, 0, 9), 0);
    assert_int_equal(chunk_units_within(chunk, 0, 10), 10);
    assert_int_equal(chunk_units_within(chunk, 0, 19), 10);
    assert_int_equal(chunk_units_within(chunk, 10, 19), 0);
    assert_int_equal(chunk_units_within(chunk, 10, 20), 20);
    assert_int_equal(chunk_units_within(chunk, 700, 1899), 1890);
    assert_int_equal(chunk_units_within(chunk, 1990, 5000), 2000);
    assert_int_equal(chunk_units_within(chunk, 2000, 5000), 0);
    chunk_unref(&pool, chunk);
    chunk_pool_deinit(&pool);
}

static void memory_runs_out(void **state)
{
    (void)state;
    _Atomic uint64_t total = 0;
    struct chunk_pool pool;

    chunk_pool_init(&pool, &total);
    memory_fail_at(1, 0);
    assert_null(chunk_get(&pool, 1));
    memory_fail_at(0, 0);
    assert_null(chunk_get(&pool, SIZE_MAX));
    assert_int_equal(total, 0);
    struct chunk *chunk = chunk_get(&pool, 1);
    chunk->used = 7;
    memory_fail_at(1, 0);
    assert_int_equal(chunk_end_unit(chunk), -ENOMEM);
    memory_fail_at(0, 0);
    assert_int_equal(chunk->n_units, 0);
    assert_int_equal(chunk_end_unit(chunk), 0);
    assert_int_equal(chunk_units_within(chunk, 0, 7), 7);
    chunk_unref(&pool, chunk);
    chunk_pool_deinit(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counted_and_accounted),  cmocka_unit_test(a_reused_chunk_is_fresh),
        cmocka_unit_test(the_free_list_is_short), cmocka_unit_test(units_are_found),
        cmocka_unit_test(memory_runs_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
