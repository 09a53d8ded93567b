#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>

/* What AddressSanitizer would report as an error by itself. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static void test_alloc_is_zeroed(void **state)
{
    (void)state;
    for (size_t size = 0; size < 4096; size = size * 2 + 1) {
        unsigned char *bytes = memory_alloc(size);
        assert_non_null(bytes);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(bytes[i], 0);
        memset(bytes, 0xff, size);
        memory_free(bytes);
    }
    memory_free(NULL);
}

static void test_realloc_keeps_bytes(void **state)
{
    (void)state;
    char *bytes = memory_realloc(NULL, 4);
    assert_non_null(bytes);
    memcpy(bytes, "abc", 4);
    bytes = memory_realloc(bytes, 100000);
    assert_non_null(bytes);
    assert_string_equal(bytes, "abc");
    memory_fail_at(1, 0);
    assert_null(memory_realloc(bytes, 200000));
    assert_string_equal(bytes, "abc");
    bytes = memory_realloc(bytes, 0);
    assert_non_null(bytes);
    memory_free(bytes);
}

static void test_copy_ends_with_nul(void **state)
{
    (void)state;
    char *copy = memory_copy("abcdef", 3);
    assert_non_null(copy);
    assert_memory_equal(copy, "abc", 4);
    memory_free(copy);
    copy = memory_copy(NULL, 0);
    assert_non_null(copy);
    assert_string_equal(copy, "");
    memory_free(copy);
    assert_null(memory_copy("", SIZE_MAX));
}

static void test_map_is_aligned_and_zeroed(void **state)
{
    (void)state;
    for (size_t size = 1; size <= 200001; size += 50000) {
        unsigned char *pages = memory_map(size);
        assert_non_null(pages);
        assert_int_equal((uintptr_t)pages % 4096, 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(pages[i], 0);
        pages[size - 1] = 1;
        memory_unmap(pages, size);
    }
    memory_unmap(NULL, 4096);
}

static void test_too_much_is_null(void **state)
{
    (void)state;
    assert_null(memory_map(SIZE_MAX / 2));
#ifndef SANITIZED
    volatile size_t size = SIZE_MAX / 2;
    assert_null(memory_alloc(size));
    assert_null(memory_realloc(NULL, size));
#endif
}

/* Makes an allocation of each kind in turn; true: it worked. */
static int allocate_kind(int kind)
{
    void *ptr = kind == 0   ? memory_alloc(8)
                : kind == 1 ? memory_realloc(NULL, 8)
                : kind == 2 ? memory_copy("x", 1)
                            : memory_map(8);
    if (!ptr)
        return 0;
    if (kind == 3)
        memory_unmap(ptr, 8);
    else
        memory_free(ptr);
    return 1;
}

static void test_fails_at_nth(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 12; n++) {
        memory_fail_at(n, 0);
        for (uint64_t i = 1; i <= 30; i++)
            assert_int_equal(allocate_kind((int)(i % 4)), i != n);
    }
    for (uint64_t every = 1; every <= 5; every++) {
        memory_fail_at(3, every);
        for (uint64_t i = 1; i <= 30; i++)
            assert_int_equal(allocate_kind((int)(i % 4)), i < 3 || (i - 3) % every);
    }
    memory_fail_at(0, 7);
    for (int i = 0; i < 30; i++)
        assert_true(allocate_kind(i % 4));
}

static void test_counts_attempts(void **state)
{
    (void)state;
    uint64_t before = memory_allocations();
    for (int i = 0; i < 8; i++)
        assert_true(allocate_kind(i % 4));
    memory_fail_at(1, 0);
    assert_false(allocate_kind(0));
    assert_int_equal(memory_allocations() - before, 9);
}

enum { THREADS = 4, ALLOCATIONS = 1000 };

static void *allocate_many(void *arg)
{
    uint64_t *failed = arg;
    for (int i = 0; i < ALLOCATIONS; i++)
        *failed += !allocate_kind(i % 3);
    return NULL;
}

static void test_counts_the_whole_process(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    uint64_t failed[THREADS] = {0}, sum = 0;
    uint64_t before = memory_allocations();
    memory_fail_at(10, 10);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, allocate_many, &failed[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        sum += failed[i];
    }
    memory_fail_at(0, 0);
    assert_int_equal(memory_allocations() - before, THREADS * ALLOCATIONS);
    assert_int_equal(sum, THREADS * ALLOCATIONS / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc_is_zeroed),    cmocka_unit_test(test_realloc_keeps_bytes),
        cmocka_unit_test(test_copy_ends_with_nul), cmocka_unit_test(test_map_is_aligned_and_zeroed),
        cmocka_unit_test(test_too_much_is_null),   cmocka_unit_test(test_fails_at_nth),
        cmocka_unit_test(test_counts_attempts),    cmocka_unit_test(test_counts_the_whole_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
