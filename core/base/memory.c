#include "base/memory.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/*
 * Every allocation draws a number from one counter. Fault injection is a comparison with that
 * number, so a run that allocates in the same order fails in the same place, and it costs one
 * relaxed load while it is off. What is allocated for every message comes from slabs, which come
 * here once in 64 kB: the shared counter is not on the message path.
 *
 * fail_at is the number of the allocation that fails (0: none); fail_every is read only after
 * fail_at, with acquire, so a thread that sees the one sees the other.
 */
static _Atomic(uint64_t) allocations;
static _Atomic(uint64_t) fail_at;
static _Atomic(uint64_t) fail_every;

static bool must_fail(void)
{
    uint64_t number = atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed) + 1;
    uint64_t first = atomic_load_explicit(&fail_at, memory_order_acquire);
    if (!first || number < first)
        return false;
    uint64_t every = atomic_load_explicit(&fail_every, memory_order_relaxed);
    return number == first || (every && (number - first) % every == 0);
}

void memory_fail_at(uint64_t n, uint64_t every)
{
    atomic_store_explicit(&fail_at, 0, memory_order_relaxed);
    atomic_store_explicit(&fail_every, every, memory_order_relaxed);
    if (n)
        atomic_store_explicit(&fail_at, memory_allocations() + n, memory_order_release);
}

uint64_t memory_allocations(void)
{
    return atomic_load_explicit(&allocations, memory_order_relaxed);
}

void *memory_alloc(size_t size)
{
    return must_fail() ? NULL : calloc(1, size ? size : 1);
}

void *memory_realloc(void *ptr, size_t size)
{
    return must_fail() ? NULL : realloc(ptr, size ? size : 1);
}

void memory_free(void *ptr)
{
    free(ptr);
}

char *memory_copy(const char *bytes, size_t len)
{
    if (must_fail() || len == SIZE_MAX)
        return NULL;
    char *copy = malloc(len + 1);
    if (!copy)
        return NULL;
    if (len)
        memcpy(copy, bytes, len);
    copy[len] = '\0';
    return copy;
}

void *memory_map(size_t size)
{
    if (must_fail())
        return NULL;
    void *pages =
        mmap(NULL, size ? size : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

void memory_unmap(void *ptr, size_t size)
{
    if (ptr)
        (void)munmap(ptr, size ? size : 1);
}
