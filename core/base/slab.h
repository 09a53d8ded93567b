#ifndef RODA_BASE_SLAB_H
#define RODA_BASE_SLAB_H
/*
 * Objects of one size, owned by one worker. Taking and giving back on the owner's thread is a
 * pop and a push. Other threads give back a whole chain at once with slab_return(): one
 * compare-and-swap for a batch; the owner collects it when its own list is empty.
 *
 * Memory comes in blocks of 64 kB and stays until slab_deinit(). Objects are not zeroed by
 * slab_get() except the first time.
 */
#include <stddef.h>
#include <stdint.h>

struct slab_object { /* what a free object looks like */
    struct slab_object *next;
};

struct slab {
    size_t object_size; /* rounded up to 16 */
    struct slab_object *free;
    _Atomic(struct slab_object *) returned;
    void *blocks;
    char *fresh, *fresh_end; /* never handed out yet */
    uint64_t in_use;         /* owner's view: returned ones count until they are collected */
    uint64_t bytes;          /* of all blocks */
};

void slab_init(struct slab *s, size_t object_size);
/* All objects must be back. */
void slab_deinit(struct slab *s);
void *slab_get(struct slab *s);           /* NULL: out of memory */
void slab_put(struct slab *s, void *ptr); /* owner only */
/* Any thread: a chain of n objects from first to last, linked by slab_object.next. */
void slab_return(struct slab *s, struct slab_object *first, struct slab_object *last);

/* Objects of many sizes: powers of two and the steps between (64, 96, 128, 192 ... 8192), larger
 * ones from memory_alloc(). Every object remembers its slab, so any thread can give it back. */
#define SLAB_CLASSES 15
struct slab_heap {
    struct slab classes[SLAB_CLASSES];
    _Atomic(uint64_t) large_bytes; /* of objects that are too large for a class */
};
/* The batch of one worker of objects that belong to other owners; flushed once per turn. Zero is
 * an empty one. */
#define SLAB_BATCH_OWNERS 16
struct slab_batch {
    struct {
        struct slab *slab;
        struct slab_object *first, *last;
    } chains[SLAB_BATCH_OWNERS];
};
void slab_heap_init(struct slab_heap *h);
void slab_heap_deinit(struct slab_heap *h);
void *slab_heap_get(struct slab_heap *h, size_t size); /* 16-aligned; NULL: out of memory */
/* owner: the heap of the thread that calls; batch collects objects of other heaps. Either may be
 * NULL (then a foreign object goes back by itself at once). */
void slab_heap_put(struct slab_heap *owner, struct slab_batch *batch, void *ptr);
void slab_batch_flush(struct slab_batch *batch);
uint64_t slab_heap_bytes(const struct slab_heap *h); /* of blocks and of large objects */

#endif
