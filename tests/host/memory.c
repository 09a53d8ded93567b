#include "inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Two kinds of memory. What the host needs for itself comes from get(), which ends the program if
 * there is none: a test on a machine without memory proves nothing. What the header says may fail
 * comes from may_get(), which fails when the test asked for it.
 */

void *get(size_t size)
{
    void *ptr = calloc(1, size ? size : 1);

    if (!ptr) {
        fputs("testhost: out of memory\n", stderr);
        exit(1);
    }
    return ptr;
}

void *may_get(struct testhost *h, size_t size)
{
    h->allocations++;
    if (h->fail_at && !--h->fail_at)
        return NULL;
    return get(size);
}

void *grown(void *list, size_t n, size_t *room, size_t size)
{
    if (n < *room)
        return list;
    size_t more = *room ? *room * 2 : 8;
    while (more <= n)
        more *= 2;
    void *larger = get(more * size);
    if (list)
        memcpy(larger, list, *room * size);
    free(list);
    *room = more;
    return larger;
}

char *copy_text(struct roda_str text)
{
    char *copy = get(text.len + 1);

    if (text.len)
        memcpy(copy, text.ptr, text.len);
    return copy;
}

char *formatted(const char *fmt, va_list args)
{
    va_list again;
    int n;

    va_copy(again, args);
    n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    char *text = get((size_t)(n < 0 ? 0 : n) + 1);
    if (n > 0)
        (void)vsnprintf(text, (size_t)n + 1, fmt, args);
    return text;
}

void bytes_put(struct bytes *b, const void *data, size_t len)
{
    b->data = grown(b->data, b->len + len + 1, &b->room, 1);
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void bytes_end_unit(struct bytes *b)
{
    b->ends = grown(b->ends, b->n_ends, &b->room_ends, sizeof *b->ends);
    b->ends[b->n_ends++] = b->len;
}

void bytes_take(struct bytes *b, size_t len)
{
    size_t kept = 0;

    memmove(b->data, b->data + len, b->len - len);
    b->len -= len;
    b->data[b->len] = '\0';
    for (size_t i = 0; i < b->n_ends; i++)
        if (b->ends[i] > len)
            b->ends[kept++] = b->ends[i] - len;
    b->n_ends = kept;
}

void bytes_clear(struct bytes *b)
{
    free(b->data);
    free(b->ends);
    *b = (struct bytes){0};
}

void list_init(struct link *head)
{
    head->next = head->prev = head;
}

void list_append(struct link *head, struct link *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

void list_remove(struct link *node)
{
    if (!node->next)
        return;
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = NULL;
}

/* ---- what plugins allocate -------------------------------------------------------------- */

static void memory_link(struct testhost *h, struct memory *m)
{
    pthread_mutex_lock(&h->lock);
    list_append(&h->memory, &m->link);
    m->instance->allocations++;
    pthread_mutex_unlock(&h->lock);
}

static void memory_unlink(struct testhost *h, struct memory *m)
{
    pthread_mutex_lock(&h->lock);
    list_remove(&m->link);
    m->instance->allocations--;
    pthread_mutex_unlock(&h->lock);
}

void *roda_alloc(struct roda_ctx *x, size_t size)
{
    struct testhost *h = host_of(x);
    struct memory *m = may_get(h, sizeof *m + size);

    if (!m)
        return NULL;
    m->instance = context_of(x)->instance;
    m->size = size;
    memory_link(h, m);
    return m->data;
}

void *roda_realloc(struct roda_ctx *x, void *ptr, size_t size)
{
    if (!ptr)
        return roda_alloc(x, size);
    /* Always to another address, so that whoever keeps the old one is found out. */
    struct memory *old = container_of(ptr, struct memory, data);
    void *fresh = roda_alloc(x, size);
    if (!fresh)
        return NULL;
    memcpy(fresh, ptr, old->size < size ? old->size : size);
    roda_free(x, ptr);
    return fresh;
}

void roda_free(struct roda_ctx *x, void *ptr)
{
    if (!ptr)
        return;
    struct memory *m = container_of(ptr, struct memory, data);
    struct testhost *h = host_of(x);
    if (m->instance != context_of(x)->instance)
        complain(h, "frees memory of the plugin %s", m->instance->plugin.name);
    memory_unlink(h, m);
    free(m);
}
