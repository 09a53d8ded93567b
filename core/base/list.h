#ifndef RODA_BASE_LIST_H
#define RODA_BASE_LIST_H
/* Intrusive doubly linked ring. An unlinked node points to itself or is zero. */
#include <stdbool.h>
#include <stddef.h>

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

static inline bool list_linked(const struct list *l)
{
    return l->next && l->next != l;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_append(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void list_remove(struct list *node)
{
    if (!node->next)
        return;
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = node;
}

static inline struct list *list_first(const struct list *head) /* NULL: empty */
{
    return head->next == head ? NULL : head->next;
}

static inline struct list *list_pop(struct list *head)
{
    struct list *first = list_first(head);
    if (first)
        list_remove(first);
    return first;
}

/* Moves all of from to the end of to. */
static inline void list_take(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#endif
