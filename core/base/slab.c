#include "base/slab.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/memory.h"

/*
 * An object is in one of four places, and moves only along the arrows:
 *
 *     fresh ──get──▶ in use ──put (owner)──▶ free ──get──▶ in use
 *                       └──return (any thread)──▶ returned ──collect (owner)──▶ free
 *
 * Only `returned` is shared. It is pushed with release and taken whole with acquire, so the
 * owner sees all that a thread wrote to an object before it gave it back. Since the owner takes
 * everything and nobody else takes, a head that was swapped away and came back (the ABA problem)
 * does no harm. `in_use` is counted when the owner collects: a count by others would be one more
 * contended word.
 *
 * A block begins with a pointer to the block before it; the rest are objects. It is never given
 * back before slab_deinit(): a slab is as large as its worker's busiest moment.
 *
 * A heap puts 16 bytes before each object, so that any thread can find where it belongs. They
 * are the slab's object's first bytes and hold the chain's link while the object is free.
 *
 * Under AddressSanitizer everything that is not in use is poisoned. Objects that lie in a chain
 * of returned ones keep their link readable, as another thread may have to write it.
 */
#if defined(__SANITIZE_ADDRESS__)
#define SLAB_POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLAB_POISONS 1
#endif
#endif

#ifdef SLAB_POISONS
#include <sanitizer/asan_interface.h>
#define POISON(ptr, size)   ASAN_POISON_MEMORY_REGION((ptr), (size))
#define UNPOISON(ptr, size) ASAN_UNPOISON_MEMORY_REGION((ptr), (size))
#else
#define POISON(ptr, size)   ((void)(ptr), (void)(size))
#define UNPOISON(ptr, size) ((void)(ptr), (void)(size))
#endif

enum { SLAB_ALIGN = 16, SLAB_BLOCK_BYTES = 64 * 1024 };

struct block {
    _Alignas(SLAB_ALIGN) struct block *before;
};

static size_t block_bytes(const struct slab *s)
{
    size_t least = sizeof(struct block) + s->object_size;
    return least > SLAB_BLOCK_BYTES ? least : SLAB_BLOCK_BYTES;
}

void slab_init(struct slab *s, size_t object_size)
{
    assert(object_size <= SIZE_MAX / 2);
    *s = (struct slab){.object_size = object_size
                                          ? (object_size + SLAB_ALIGN - 1) / SLAB_ALIGN * SLAB_ALIGN
                                          : SLAB_ALIGN};
}

/* Moves what other threads gave back to the free list. */
static void collect(struct slab *s)
{
    struct slab_object *object = atomic_exchange_explicit(&s->returned, NULL, memory_order_acquire);
    while (object) {
        struct slab_object *next = object->next;
        object->next = s->free;
        s->free = object;
        s->in_use--;
        POISON(object, s->object_size);
        object = next;
    }
}

void slab_deinit(struct slab *s)
{
    collect(s);
    assert(s->in_use == 0);
    struct block *block = s->blocks;
    while (block) {
        struct block *before = block->before;
        /* The addresses will be somebody else's. */
        UNPOISON(block, block_bytes(s));
        memory_unmap(block, block_bytes(s));
        block = before;
    }
    slab_init(s, s->object_size);
}

static bool grow(struct slab *s)
{
    size_t size = block_bytes(s);
    struct block *block = memory_map(size);
    if (!block)
        return false;
    block->before = s->blocks;
    s->blocks = block;
    s->fresh = (char *)(block + 1);
    s->fresh_end = (char *)block + size;
    s->bytes += size;
    POISON(s->fresh, (size_t)(s->fresh_end - s->fresh));
    return true;
}

static void *take_fresh(struct slab *s)
{
    if ((size_t)(s->fresh_end - s->fresh) < s->object_size && !grow(s))
        return NULL;
    void *object = s->fresh;
    s->fresh += s->object_size;
    UNPOISON(object, s->object_size);
    return object;
}

void *slab_get(struct slab *s)
{
    if (!s->free && atomic_load_explicit(&s->returned, memory_order_relaxed))
        collect(s);
    struct slab_object *object = s->free;
    if (object) {
        UNPOISON(object, s->object_size);
        s->free = object->next;
    } else {
        object = take_fresh(s);
    }
    if (object)
        s->in_use++;
    return object;
}

void slab_put(struct slab *s, void *ptr)
{
    if (!ptr)
        return;
    struct slab_object *object = ptr;
    object->next = s->free;
    s->free = object;
    s->in_use--;
    POISON(object, s->object_size);
}

/* Poisons all but the link. */
static void poison_linked(const struct slab *s, struct slab_object *object)
{
    POISON((char *)object + SLAB_ALIGN, s->object_size - SLAB_ALIGN);
}

void slab_return(struct slab *s, struct slab_object *first, struct slab_object *last)
{
#ifdef SLAB_POISONS
    for (struct slab_object *object = first; object != last; object = object->next)
        poison_linked(s, object);
    poison_linked(s, last);
#endif
    struct slab_object *old = atomic_load_explicit(&s->returned, memory_order_relaxed);
    do {
        last->next = old;
    } while (!atomic_compare_exchange_weak_explicit(&s->returned, &old, first, memory_order_release,
                                                    memory_order_relaxed));
}

/* ---- objects of many sizes -------------------------------------------------------------- */

struct header {
    _Alignas(SLAB_ALIGN) void *owner; /* the slab, or of a large object the heap */
    size_t large_bytes;               /* 0: an object of a slab */
};
_Static_assert(sizeof(struct header) == SLAB_ALIGN, "objects follow headers and are aligned");

enum { HEAP_SMALLEST_BYTES = 64, HEAP_LARGEST_BYTES = 8192 };

/* 64, 96, 128, 192, 256 ...: index 2n is 64 << n, index 2n + 1 is 96 << n. */
static size_t class_bytes(uint32_t index)
{
    return (size_t)(index % 2 ? 96 : 64) << (index / 2);
}

static uint32_t class_of(size_t bytes)
{
    if (bytes <= HEAP_SMALLEST_BYTES)
        return 0;
    uint32_t most = (uint32_t)bytes - 1;
    uint32_t log2 = 31u - (uint32_t)__builtin_clz(most);
    bool upper_half = most >> (log2 - 1) & 1;
    return 2 * (log2 - 6) + 1 + upper_half;
}

void slab_heap_init(struct slab_heap *h)
{
    for (uint32_t i = 0; i < SLAB_CLASSES; i++)
        slab_init(&h->classes[i], class_bytes(i));
    atomic_init(&h->large_bytes, 0);
}

void slab_heap_deinit(struct slab_heap *h)
{
    for (uint32_t i = 0; i < SLAB_CLASSES; i++)
        slab_deinit(&h->classes[i]);
    assert(atomic_load(&h->large_bytes) == 0);
}

static void *get_large(struct slab_heap *h, size_t bytes)
{
    struct header *header = memory_alloc(bytes);
    if (!header)
        return NULL;
    header->owner = h;
    header->large_bytes = bytes;
    atomic_fetch_add_explicit(&h->large_bytes, bytes, memory_order_relaxed);
    return header + 1;
}

void *slab_heap_get(struct slab_heap *h, size_t size)
{
    if (size > SIZE_MAX / 2)
        return NULL;
    size_t bytes = sizeof(struct header) + size;
    if (bytes > HEAP_LARGEST_BYTES)
        return get_large(h, bytes);
    struct slab *s = &h->classes[class_of(bytes)];
    struct header *header = slab_get(s);
    if (!header)
        return NULL;
    header->owner = s;
    header->large_bytes = 0;
    POISON((char *)header + bytes, s->object_size - bytes);
    return header + 1;
}

static void batch_add(struct slab_batch *batch, struct slab *s, struct slab_object *object)
{
    uint32_t i = 0;
    while (i < SLAB_BATCH_OWNERS && batch->chains[i].slab && batch->chains[i].slab != s)
        i++;
    if (i == SLAB_BATCH_OWNERS) {
        slab_batch_flush(batch);
        i = 0;
    }
    if (!batch->chains[i].slab) {
        batch->chains[i].slab = s;
        batch->chains[i].last = object;
    }
    object->next = batch->chains[i].first;
    batch->chains[i].first = object;
    poison_linked(s, object);
}

void slab_batch_flush(struct slab_batch *batch)
{
    for (uint32_t i = 0; i < SLAB_BATCH_OWNERS && batch->chains[i].slab; i++)
        slab_return(batch->chains[i].slab, batch->chains[i].first, batch->chains[i].last);
    *batch = (struct slab_batch){0};
}

static bool heap_owns(const struct slab_heap *h, const struct slab *s)
{
    uintptr_t offset = (uintptr_t)s - (uintptr_t)h->classes;
    return offset < sizeof(h->classes);
}

void slab_heap_put(struct slab_heap *owner, struct slab_batch *batch, void *ptr)
{
    if (!ptr)
        return;
    struct header *header = (struct header *)ptr - 1;
    if (header->large_bytes) {
        struct slab_heap *h = header->owner;
        atomic_fetch_sub_explicit(&h->large_bytes, header->large_bytes, memory_order_relaxed);
        memory_free(header);
        return;
    }
    struct slab *s = header->owner;
    struct slab_object *object = (struct slab_object *)(void *)header;
    if (owner && heap_owns(owner, s))
        slab_put(s, object);
    else if (batch)
        batch_add(batch, s, object);
    else
        slab_return(s, object, object);
}

uint64_t slab_heap_bytes(const struct slab_heap *h)
{
    uint64_t bytes = atomic_load_explicit(&h->large_bytes, memory_order_relaxed);
    for (uint32_t i = 0; i < SLAB_CLASSES; i++)
        bytes += h->classes[i].bytes;
    return bytes;
}
