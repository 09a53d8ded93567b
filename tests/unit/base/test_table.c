#include "base/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "base/memory.h"

enum { VALUES = 3000 };

struct value {
    uint64_t hash;
    uint32_t number;
    bool inside;
};

static struct value values[VALUES];

/* How hashes are spread. The worst are all equal, or all have the same home at the end. */
enum spread { WELL, COUNTER, FEW, ONE, SPREADS };

static uint64_t mixed(uint64_t x)
{
    x = (x ^ (x >> 31)) * UINT64_C(0x7fb5d329728ea185);
    x = (x ^ (x >> 27)) * UINT64_C(0x81dadef4bc2dd44d);
    return x ^ (x >> 33);
}

static void prepare(enum spread spread)
{
    for (uint32_t i = 0; i < VALUES; i++) {
        uint64_t hash = spread == WELL      ? mixed(i + 1)
                        : spread == COUNTER ? i
                        : spread == FEW     ? mixed(i % 5)
                                            : UINT64_MAX;
        values[i] = (struct value){hash, i, false};
    }
}

static bool equal_number(const void *value, const void *key)
{
    return ((const struct value *)value)->number == *(const uint32_t *)key;
}

static void check_all(const struct table *t, uint32_t n)
{
    size_t inside = 0, seen = 0, position = 0;
    for (uint32_t i = 0; i < n; i++) {
        void *found = table_find(t, values[i].hash, equal_number, &i);
        assert_ptr_equal(found, values[i].inside ? &values[i] : NULL);
        inside += values[i].inside;
    }
    assert_int_equal(t->count, inside);
    for (struct value *v; (v = table_next(t, &position)); seen++)
        assert_true(v->inside);
    assert_int_equal(seen, inside);
    assert_null(table_next(t, &position));
}

static void insert(struct table *t, uint32_t i)
{
    assert_int_equal(table_insert(t, values[i].hash, &values[i]), 0);
    values[i].inside = true;
}

static void take_out(struct table *t, uint32_t i)
{
    assert_int_equal(table_remove(t, values[i].hash, &values[i]), values[i].inside);
    values[i].inside = false;
}

static void test_entry_is_16_bytes(void **state)
{
    (void)state;
    assert_int_equal(sizeof(struct table_entry), 16);
}

static void test_empty(void **state)
{
    (void)state;
    struct table t;
    uint32_t key = 0;
    prepare(WELL);
    assert_int_equal(table_init(&t, 0), 0);
    check_all(&t, 10);
    assert_null(table_find(&t, 0, equal_number, &key));
    assert_false(table_remove(&t, 0, &values[0]));
    table_deinit(&t);
    table_deinit(&t);
}

/* Random insertions and removals, first more of those, then more of these, against the flags. */
static void test_against_model(void **state)
{
    (void)state;
    for (enum spread spread = WELL; spread < SPREADS; spread++) {
        struct table t;
        uint32_t n = spread == FEW || spread == ONE ? 60 : VALUES;
        uint64_t random = 1;
        prepare(spread);
        assert_int_equal(table_init(&t, 4), 0);
        for (uint32_t step = 0; step < 8 * n; step++) {
            random = mixed(random + step);
            uint32_t i = (uint32_t)(random % n);
            bool growing = step < 4 * n;
            if (!values[i].inside && (growing || random >> 40 & 1))
                insert(&t, i);
            else if (!growing || (random >> 41 & 3) == 0)
                take_out(&t, i);
            if (step % (n / 4) == 0)
                check_all(&t, n);
        }
        for (uint32_t i = 0; i < n; i++)
            take_out(&t, i);
        check_all(&t, n);
        table_deinit(&t);
    }
}

/* Every cyclic shape of eight places: a removal at each place of each filling. */
static void test_backward_shift(void **state)
{
    (void)state;
    for (uint32_t seed = 0; seed < 300; seed++) {
        for (uint32_t out = 0; out < 6; out++) {
            struct table t;
            assert_int_equal(table_init(&t, 6), 0);
            assert_int_equal(t.bits, 3);
            for (uint32_t i = 0; i < 6; i++) {
                values[i] = (struct value){mixed(seed * 6 + i + 7), i, false};
                insert(&t, i);
            }
            take_out(&t, out);
            check_all(&t, 6);
            insert(&t, out);
            check_all(&t, 6);
            table_deinit(&t);
        }
    }
}

static void test_grows_at_three_quarters_and_shrinks_at_an_eighth(void **state)
{
    (void)state;
    struct table t;
    prepare(WELL);
    assert_int_equal(table_init(&t, 24), 0);
    assert_int_equal(t.bits, 5);
    for (uint32_t i = 0; i < 24; i++)
        insert(&t, i);
    assert_int_equal(t.bits, 5);
    insert(&t, 24);
    assert_int_equal(t.bits, 6);
    for (uint32_t i = 25; i < 400; i++)
        insert(&t, i);
    assert_int_equal(t.bits, 10);
    for (uint32_t i = 399; i >= 128; i--)
        take_out(&t, i);
    assert_int_equal(t.bits, 10);
    take_out(&t, 127);
    assert_int_equal(t.bits, 9);
    /* What comes and goes at the border resizes nothing. */
    uint64_t before = memory_allocations();
    for (uint32_t i = 0; i < 100; i++) {
        insert(&t, 127);
        take_out(&t, 127);
    }
    assert_int_equal(memory_allocations(), before);
    for (uint32_t i = 0; i < 127; i++)
        take_out(&t, i);
    assert_int_equal(t.bits, 5);
    check_all(&t, 400);
    table_deinit(&t);
}

static void test_same_hash(void **state)
{
    (void)state;
    struct table t;
    prepare(ONE);
    assert_int_equal(table_init(&t, 0), 0);
    for (uint32_t i = 0; i < 40; i++)
        insert(&t, i);
    for (uint32_t i = 0; i < 40; i += 2)
        take_out(&t, i);
    check_all(&t, 40);
    assert_false(table_remove(&t, values[0].hash, &values[0]));
    table_deinit(&t);
}

static void test_every_allocation_fails(void **state)
{
    (void)state;
    struct table t;
    prepare(WELL);
    memory_fail_at(1, 0);
    assert_int_equal(table_init(&t, 10), -ENOMEM);
    assert_int_equal(table_init(&t, SIZE_MAX), -ENOMEM);
    assert_int_equal(table_init(&t, 0), 0);
    for (uint32_t i = 0; i < 400; i++) {
        memory_fail_at(1, 1);
        int error = table_insert(&t, values[i].hash, &values[i]);
        memory_fail_at(0, 0);
        if (error) {
            assert_int_equal(error, -ENOMEM);
            check_all(&t, i + 1);
            insert(&t, i);
        }
        values[i].inside = true;
    }
    check_all(&t, 400);
    /* Shrinking that fails is not noticed. */
    uint32_t bits = t.bits;
    memory_fail_at(1, 1);
    for (uint32_t i = 0; i < 400; i++)
        take_out(&t, i);
    memory_fail_at(0, 0);
    assert_int_equal(t.bits, bits);
    check_all(&t, 400);
    table_deinit(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entry_is_16_bytes),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_backward_shift),
        cmocka_unit_test(test_grows_at_three_quarters_and_shrinks_at_an_eighth),
        cmocka_unit_test(test_same_hash),
        cmocka_unit_test(test_every_allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
