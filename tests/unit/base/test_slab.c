#include "base/slab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/memory.h"

#if defined(__SANITIZE_ADDRESS__)
#define POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISONS 1
#endif
#endif
#ifdef POISONS
#include <sanitizer/asan_interface.h>
#endif

enum { BLOCK_BYTES = 64 * 1024 };

/* ---- one size --------------------------------------------------------------------------- */

static void test_size_is_rounded(void **state)
{
    (void)state;
    static const size_t sizes[][2] = {{0, 16}, {1, 16}, {16, 16}, {17, 32}, {100, 112}};
    for (size_t i = 0; i < 5; i++) {
        struct slab s;
        slab_init(&s, sizes[i][0]);
        assert_int_equal(s.object_size, sizes[i][1]);
        slab_deinit(&s);
    }
}

static void test_fresh_objects_are_zero_aligned_and_apart(void **state)
{
    (void)state;
    enum { N = 3000 };
    static unsigned char *objects[N];
    struct slab s;
    slab_init(&s, 72);
    for (int i = 0; i < N; i++) {
        objects[i] = slab_get(&s);
        assert_non_null(objects[i]);
        assert_int_equal((uintptr_t)objects[i] % 16, 0);
        for (int k = 0; k < 80; k++)
            assert_int_equal(objects[i][k], 0);
        memset(objects[i], i % 251 + 1, 80);
    }
    assert_int_equal(s.in_use, N);
    assert_int_equal(s.bytes % BLOCK_BYTES, 0);
    assert_in_range(s.bytes, N * 80, N * 80 + BLOCK_BYTES);
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < 80; k++)
            assert_int_equal(objects[i][k], i % 251 + 1);
        slab_put(&s, objects[i]);
    }
    slab_put(&s, NULL);
    assert_int_equal(s.in_use, 0);
    slab_deinit(&s);
    assert_int_equal(s.bytes, 0);
}

static void test_reuses_before_it_grows(void **state)
{
    (void)state;
    struct slab s;
    slab_init(&s, 64);
    void *first = slab_get(&s);
    void *second = slab_get(&s);
    uint64_t before = memory_allocations();
    for (int i = 0; i < 10000; i++) {
        slab_put(&s, first);
        assert_ptr_equal(slab_get(&s), first);
    }
    assert_int_equal(memory_allocations(), before);
    assert_int_equal(s.bytes, BLOCK_BYTES);
    slab_put(&s, first);
    slab_put(&s, second);
    slab_deinit(&s);
}

static void test_objects_larger_than_a_block(void **state)
{
    (void)state;
    struct slab s;
    slab_init(&s, 200000);
    char *objects[3];
    for (int i = 0; i < 3; i++) {
        objects[i] = slab_get(&s);
        assert_non_null(objects[i]);
        memset(objects[i], i, 200000);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(objects[i][199999], i);
        slab_put(&s, objects[i]);
    }
    slab_deinit(&s);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct slab s;
    slab_init(&s, 32 * 1024);
    memory_fail_at(1, 1);
    assert_null(slab_get(&s));
    assert_null(slab_get(&s));
    assert_int_equal(s.in_use, 0);
    memory_fail_at(0, 0);
    void *object = slab_get(&s);
    assert_non_null(object);
    memory_fail_at(1, 0);
    assert_null(slab_get(&s));
    slab_put(&s, object);
    assert_ptr_equal(slab_get(&s), object);
    slab_put(&s, object);
    slab_deinit(&s);
}

static void test_returned_are_collected_when_needed(void **state)
{
    (void)state;
    struct slab s;
    slab_init(&s, 64);
    struct slab_object *objects[4];
    for (int i = 0; i < 4; i++)
        objects[i] = slab_get(&s);
    void *own = slab_get(&s);
    slab_put(&s, own);
    objects[0]->next = objects[1];
    objects[1]->next = objects[2];
    slab_return(&s, objects[0], objects[2]);
    slab_return(&s, objects[3], objects[3]);
    /* They count until the owner needs one. */
    assert_int_equal(s.in_use, 4);
    assert_ptr_equal(slab_get(&s), own);
    assert_int_equal(s.in_use, 5);
    char *fresh = s.fresh;
    void *again[4];
    for (int i = 0; i < 4; i++) {
        again[i] = slab_get(&s);
        assert_int_equal(s.in_use, 2 + i);
        assert_true(again[i] == objects[0] || again[i] == objects[1] || again[i] == objects[2] ||
                    again[i] == objects[3]);
        for (int k = 0; k < i; k++)
            assert_ptr_not_equal(again[i], again[k]);
    }
    assert_ptr_equal(s.fresh, fresh);
    for (int i = 0; i < 4; i++)
        slab_put(&s, again[i]);
    slab_return(&s, own, own);
    slab_deinit(&s);
}

/* ---- many sizes ------------------------------------------------------------------------- */

static void test_heap_classes(void **state)
{
    (void)state;
    static const size_t classes[SLAB_CLASSES] = {64,   96,   128,  192,  256,  384,  512, 768,
                                                 1024, 1536, 2048, 3072, 4096, 6144, 8192};
    struct slab_heap h;
    slab_heap_init(&h);
    for (uint32_t i = 0; i < SLAB_CLASSES; i++)
        assert_int_equal(h.classes[i].object_size, classes[i]);
    uint32_t expected = 0;
    for (size_t size = 0; size <= 8192 - 16; size++) {
        if (size + 16 > classes[expected])
            expected++;
        unsigned char *object = slab_heap_get(&h, size);
        assert_non_null(object);
        assert_int_equal((uintptr_t)object % 16, 0);
        assert_int_equal(h.classes[expected].in_use, 1);
        memset(object, 0xaa, size);
        slab_heap_put(&h, NULL, object);
        assert_int_equal(h.classes[expected].in_use, 0);
    }
    assert_int_equal(expected, SLAB_CLASSES - 1);
    assert_int_equal(slab_heap_bytes(&h), SLAB_CLASSES * BLOCK_BYTES);
    slab_heap_put(&h, NULL, NULL);
    slab_heap_deinit(&h);
    assert_int_equal(slab_heap_bytes(&h), 0);
}

static void test_heap_large_objects(void **state)
{
    (void)state;
    struct slab_heap h, other;
    struct slab_batch batch = {0};
    slab_heap_init(&h);
    slab_heap_init(&other);
    void *first = slab_heap_get(&h, 8192 - 16 + 1);
    void *second = slab_heap_get(&h, 100000);
    assert_non_null(first);
    assert_non_null(second);
    assert_int_equal((uintptr_t)second % 16, 0);
    memset(second, 0xaa, 100000);
    assert_int_equal(slab_heap_bytes(&h), 8193 + 100016);
    slab_heap_put(&other, &batch, second);
    assert_int_equal(slab_heap_bytes(&h), 8193);
    slab_heap_put(NULL, NULL, first);
    assert_int_equal(slab_heap_bytes(&h), 0);
    assert_null(slab_heap_get(&h, SIZE_MAX));
    assert_null(slab_heap_get(&h, SIZE_MAX - 15));
    slab_heap_deinit(&h);
    slab_heap_deinit(&other);
}

static void test_heap_every_allocation_fails(void **state)
{
    (void)state;
    struct slab_heap h;
    slab_heap_init(&h);
    memory_fail_at(1, 1);
    for (size_t size = 0; size < 20000; size += 500)
        assert_null(slab_heap_get(&h, size));
    memory_fail_at(0, 0);
    assert_int_equal(slab_heap_bytes(&h), 0);
    slab_heap_deinit(&h);
}

static void test_batch_goes_back_at_flush(void **state)
{
    (void)state;
    enum { N = 50 };
    struct slab_heap h, mine;
    struct slab_batch batch = {0};
    void *objects[N];
    slab_heap_init(&h);
    slab_heap_init(&mine);
    for (int i = 0; i < N; i++)
        objects[i] = slab_heap_get(&h, 40);
    for (int i = 0; i < N; i++)
        slab_heap_put(&mine, &batch, objects[i]);
    assert_null(atomic_load(&h.classes[0].returned));
    slab_batch_flush(&batch);
    assert_non_null(atomic_load(&h.classes[0].returned));
    assert_int_equal(h.classes[0].in_use, N);
    slab_batch_flush(&batch);
    void *again = slab_heap_get(&h, 40);
    assert_int_equal(h.classes[0].in_use, 1);
    slab_heap_put(NULL, NULL, again);
    slab_heap_deinit(&h);
    slab_heap_deinit(&mine);
}

/* More owners than a batch has places for. */
static void test_batch_of_many_owners(void **state)
{
    (void)state;
    enum { HEAPS = 3, ROUNDS = 4, N = HEAPS * SLAB_CLASSES * ROUNDS };
    struct slab_heap heaps[HEAPS], mine;
    struct slab_batch batch = {0};
    void *objects[N];
    int n = 0;
    slab_heap_init(&mine);
    for (int h = 0; h < HEAPS; h++)
        slab_heap_init(&heaps[h]);
    for (int round = 0; round < ROUNDS; round++) {
        for (int h = 0; h < HEAPS; h++) {
            for (uint32_t c = 0; c < SLAB_CLASSES; c++) {
                objects[n] = slab_heap_get(&heaps[h], heaps[h].classes[c].object_size - 16);
                assert_non_null(objects[n++]);
            }
        }
    }
    for (int i = 0; i < N; i++)
        slab_heap_put(&mine, &batch, objects[i]);
    slab_batch_flush(&batch);
    /* Asserts that all came back, each to its own slab. */
    for (int h = 0; h < HEAPS; h++) {
        for (uint32_t c = 0; c < SLAB_CLASSES; c++) {
            struct slab *s = &heaps[h].classes[c];
            int returned = 0;
            for (struct slab_object *o = atomic_load(&s->returned); o; o = o->next)
                returned++;
            assert_int_equal(returned, ROUNDS);
        }
        slab_heap_deinit(&heaps[h]);
    }
    slab_heap_deinit(&mine);
}

/* ---- threads ---------------------------------------------------------------------------- */

/* Two owners take objects, write them, and hand them over; each gives back what the other took,
 * one by one or in batches. A mark inside finds objects that two have at a time. */
enum { WORKERS = 2, HANDED = 20000, SLOTS = 64, MARK = 0x5a5a5a5a };

struct worker {
    struct slab_heap heap;
    struct slab_batch batch;
    _Atomic(uint32_t *) slots[SLOTS]; /* for the peer */
    struct worker *peer;
    pthread_t thread;
    int faults;
};

/* Empties one of the peer's slots; 1 if something was in it. */
static int give_back(struct worker *w, int slot)
{
    uint32_t *object = atomic_exchange_explicit(&w->peer->slots[slot], NULL, memory_order_acquire);
    if (!object)
        return 0;
    w->faults += object[0] != MARK || object[1] != (uint32_t)slot;
    object[0] = 0;
    slab_heap_put(&w->heap, slot % 3 ? &w->batch : NULL, object);
    return 1;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    int handed = 0, taken = 0;
    for (int turn = 0; handed < HANDED || taken < HANDED; turn++) {
        int slot = turn % SLOTS;
        if (handed < HANDED && !atomic_load_explicit(&w->slots[slot], memory_order_relaxed)) {
            uint32_t *object = slab_heap_get(&w->heap, (size_t)(8 + handed % 700 * 13));
            w->faults += !object || object[0] == MARK;
            object[0] = MARK;
            object[1] = (uint32_t)slot;
            atomic_store_explicit(&w->slots[slot], object, memory_order_release);
            handed++;
        }
        taken += give_back(w, (turn * 7) % SLOTS);
        if (turn % SLOTS == 0) {
            slab_batch_flush(&w->batch);
            sched_yield();
        }
    }
    slab_batch_flush(&w->batch);
    return NULL;
}

static void test_threads_give_back(void **state)
{
    (void)state;
    static struct worker workers[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        slab_heap_init(&workers[i].heap);
        workers[i].peer = &workers[(i + 1) % WORKERS];
    }
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
    for (int i = 0; i < WORKERS; i++) {
        assert_int_equal(workers[i].faults, 0);
        /* At most 2 * SLOTS are outside at a time, in slots and in the peer's batch; of each class
         * that is under 5 MB in all, where 90 MB were handed over. */
        assert_in_range(slab_heap_bytes(&workers[i].heap), 1, 10000000);
        slab_heap_deinit(&workers[i].heap); /* asserts that nothing is missing */
    }
}

/* Several threads push to one slab at once while its owner takes. */
enum { RETURNERS = 3, OBJECTS = 300, RETURNS = 20000 };

struct returner {
    struct slab *slab;
    _Atomic(struct slab_object *) inbox; /* one at a time */
    pthread_t thread;
};

static void *return_all(void *arg)
{
    struct returner *r = arg;
    for (int n = 0; n < RETURNS;) {
        struct slab_object *object = atomic_exchange(&r->inbox, NULL);
        if (!object) {
            sched_yield();
            continue;
        }
        slab_return(r->slab, object, object);
        n++;
    }
    return NULL;
}

static void test_threads_return_to_one(void **state)
{
    (void)state;
    struct slab s;
    struct returner returners[RETURNERS] = {0};
    int given[RETURNERS] = {0}, left = RETURNERS * RETURNS;
    slab_init(&s, 48);
    for (int i = 0; i < RETURNERS; i++) {
        returners[i].slab = &s;
        assert_int_equal(pthread_create(&returners[i].thread, NULL, return_all, &returners[i]), 0);
    }
    while (left) {
        int before = left;
        for (int i = 0; i < RETURNERS; i++) {
            if (given[i] == RETURNS || atomic_load(&returners[i].inbox))
                continue;
            atomic_store(&returners[i].inbox, slab_get(&s));
            given[i]++;
            left--;
        }
        if (left == before)
            sched_yield();
    }
    for (int i = 0; i < RETURNERS; i++)
        assert_int_equal(pthread_join(returners[i].thread, NULL), 0);
    /* All were given back, so the few objects of the first block went round. */
    assert_int_equal(s.bytes, BLOCK_BYTES);
    slab_deinit(&s);
}

/* ---- under AddressSanitizer ------------------------------------------------------------- */

static void test_free_objects_are_poisoned(void **state)
{
    (void)state;
#ifdef POISONS
    struct slab s;
    slab_init(&s, 64);
    char *object = slab_get(&s);
    assert_null(__asan_region_is_poisoned(object, 64));
    assert_true(__asan_address_is_poisoned(object + 64)); /* not handed out yet */
    slab_put(&s, object);
    assert_true(__asan_address_is_poisoned(object));
    assert_true(__asan_address_is_poisoned(object + 63));
    assert_ptr_equal(slab_get(&s), object);
    assert_null(__asan_region_is_poisoned(object, 64));
    slab_return(&s, (struct slab_object *)(void *)object, (struct slab_object *)(void *)object);
    assert_true(__asan_address_is_poisoned(object + 16));
    slab_deinit(&s);

    struct slab_heap h;
    struct slab_batch batch = {0};
    slab_heap_init(&h);
    object = slab_heap_get(&h, 70);
    assert_null(__asan_region_is_poisoned(object, 70));
    assert_true(__asan_address_is_poisoned(object + 70));
    slab_heap_put(NULL, &batch, object);
    assert_true(__asan_address_is_poisoned(object));
    slab_batch_flush(&batch);
    char *block = h.classes[1].blocks;
    slab_heap_deinit(&h);
    assert_null(__asan_region_is_poisoned(block, BLOCK_BYTES));
#else
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_size_is_rounded),
        cmocka_unit_test(test_fresh_objects_are_zero_aligned_and_apart),
        cmocka_unit_test(test_reuses_before_it_grows),
        cmocka_unit_test(test_objects_larger_than_a_block),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_returned_are_collected_when_needed),
        cmocka_unit_test(test_heap_classes),
        cmocka_unit_test(test_heap_large_objects),
        cmocka_unit_test(test_heap_every_allocation_fails),
        cmocka_unit_test(test_batch_goes_back_at_flush),
        cmocka_unit_test(test_batch_of_many_owners),
        cmocka_unit_test(test_threads_give_back),
        cmocka_unit_test(test_threads_return_to_one),
        cmocka_unit_test(test_free_objects_are_poisoned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
