#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_ring.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(at, n)   __asan_poison_memory_region((at), (n))
#define UNPOISON(at, n) __asan_unpoison_memory_region((at), (n))
#else
#define POISON(at, n)   ((void)(at), (void)(n))
#define UNPOISON(at, n) ((void)(at), (void)(n))
#endif

/*
 * Provided buffers. The engine's ring of them is read from where it was read last up to its tail,
 * each entry once; that is when a buffer changes from lent to free and is filled with 0xDD. From
 * then until it is handed out it is nobody's to touch but the kernel's, and under ASan it is
 * poisoned: an engine that looks at a buffer it gave back is caught at once.
 */

#define BUFFERS_MAX 65536u

enum buffer_state { BUFFER_UNKNOWN, BUFFER_FREE, BUFFER_LENT };

static void *address(uint64_t value)
{
    return (void *)(uintptr_t)value;
}

/* Takes note of what the engine gave back since the last time. */
static void group_look(struct sim_kernel *k, struct group *g)
{
    uint16_t tail = __atomic_load_n(&g->ring->tail, __ATOMIC_ACQUIRE);

    if ((uint16_t)(tail - g->head) > g->entries)
        violation(k, "buffer group %u: %u buffers in a ring of %u", g->id,
                  (uint16_t)(tail - g->head), g->entries);
    for (; g->seen != tail; g->seen++) {
        const struct io_uring_buf *buf = &g->ring->bufs[g->seen & (g->entries - 1)];
        if (g->states[buf->bid] == BUFFER_FREE) {
            violation(k, "buffer %u of group %u was given back twice", buf->bid, g->id);
            continue;
        }
        g->n_lent -= g->states[buf->bid] == BUFFER_LENT;
        g->n_free++;
        g->states[buf->bid] = BUFFER_FREE;
        g->known[buf->bid] = *buf;
        memset(address(buf->addr), 0xDD, buf->len);
        POISON(address(buf->addr), buf->len);
    }
}

void groups_look(struct sim_ring *s)
{
    for (unsigned i = 0; i < GROUPS_MAX; i++)
        if (s->groups[i].ring)
            group_look(s->kernel, &s->groups[i]);
}

static void group_free(struct group *g)
{
    for (unsigned id = 0; id < BUFFERS_MAX; id++)
        if (g->states[id] == BUFFER_FREE)
            UNPOISON(address(g->known[id].addr), g->known[id].len);
    free(g->states);
    free(g->known);
    memset(g, 0, sizeof *g);
}

static struct group *group_find(struct sim_ring *s, uint16_t id)
{
    for (unsigned i = 0; i < GROUPS_MAX; i++)
        if (s->groups[i].ring && s->groups[i].id == id)
            return &s->groups[i];
    return NULL;
}

int group_register(struct sim_ring *s, const struct io_uring_buf_reg *reg)
{
    struct group *g = NULL;

    if (!reg->ring_addr || reg->ring_addr & 4095)
        return reg->ring_addr ? -EINVAL : -EFAULT;
    if (!reg->ring_entries || reg->ring_entries & (reg->ring_entries - 1) ||
        reg->ring_entries >= BUFFERS_MAX)
        return -EINVAL;
    if (group_find(s, reg->bgid))
        return -EEXIST;
    for (unsigned i = 0; i < GROUPS_MAX && !g; i++)
        if (!s->groups[i].ring)
            g = &s->groups[i];
    if (!g)
        return -ENOMEM;
    g->ring = address(reg->ring_addr);
    g->id = reg->bgid;
    g->entries = reg->ring_entries;
    g->states = must_alloc(BUFFERS_MAX);
    g->known = must_alloc(BUFFERS_MAX * sizeof *g->known);
    return 0;
}

int group_unregister(struct sim_ring *s, const struct io_uring_buf_reg *reg)
{
    struct group *g = group_find(s, reg->bgid);

    if (!g)
        return -ENOENT;
    group_free(g);
    return 0;
}

void groups_free(struct sim_ring *s)
{
    for (unsigned i = 0; i < GROUPS_MAX; i++)
        if (s->groups[i].ring)
            group_free(&s->groups[i]);
}

bool request_selects(const struct request *q)
{
    return q->sqe.flags & IOSQE_BUFFER_SELECT;
}

bool request_buffers_empty(struct request *q)
{
    struct group *g = group_find(q->ring, q->sqe.buf_group);

    if (!g)
        return true;
    group_look(q->ring->kernel, g);
    return g->head == g->seen;
}

size_t request_buffer_size(const struct request *q)
{
    const struct group *g = group_find(q->ring, q->sqe.buf_group);

    return g->ring->bufs[g->head & (g->entries - 1)].len;
}

char *request_buffer(struct request *q, size_t *ret_size, uint32_t *ret_flags)
{
    struct group *g = group_find(q->ring, q->sqe.buf_group);
    const struct io_uring_buf *buf = &g->ring->bufs[g->head++ & (g->entries - 1)];

    g->states[buf->bid] = BUFFER_LENT;
    g->n_free--;
    g->n_lent++;
    UNPOISON(address(buf->addr), buf->len);
    *ret_size = buf->len;
    if (q->sqe.opcode == IORING_OP_RECV && q->sqe.len && q->sqe.len < buf->len)
        *ret_size = q->sqe.len;
    *ret_flags = IORING_CQE_F_BUFFER | (uint32_t)buf->bid << IORING_CQE_BUFFER_SHIFT;
    return address(buf->addr);
}

bool sim_buffers(struct sim_kernel *k, const struct ring *r, uint16_t group, unsigned *ret_free,
                 unsigned *ret_lent)
{
    struct group *g = sim_of(r) ? group_find(sim_of(r), group) : NULL;

    if (!g)
        return false;
    group_look(k, g);
    *ret_free = g->n_free;
    *ret_lent = g->n_lent;
    return true;
}
