#include "merge.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/*
 * Each partition's messages come in the order in which they were written; a heap of readers, each
 * standing on its next message, puts them in one order by time (and by partition, where times are
 * equal, so that the same files always give the same stream). Within a partition the order stays as
 * it is even if a clock was put back.
 */

/* ---- the heap --------------------------------------------------------------------------- */

static int is_before(const struct reader *a, const struct reader *b)
{
    int64_t left = a->record.message.time_ns, right = b->record.message.time_ns;

    return left != right ? left < right : a->partition < b->partition;
}

static void swap(struct merge *m, size_t i, size_t j)
{
    struct reader *reader = m->heap[i];

    m->heap[i] = m->heap[j];
    m->heap[j] = reader;
}

static void sift_down(struct merge *m, size_t i)
{
    for (;;) {
        size_t least = i;

        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < m->n_heap; child++)
            if (is_before(m->heap[child], m->heap[least]))
                least = child;
        if (least == i)
            return;
        swap(m, i, least);
        i = least;
    }
}

static void push(struct merge *m, struct reader *reader)
{
    size_t i = m->n_heap++;

    for (m->heap[i] = reader; i && is_before(m->heap[i], m->heap[(i - 1) / 2]); i = (i - 1) / 2)
        swap(m, i, (i - 1) / 2);
}

/* ---- readers ---------------------------------------------------------------------------- */

/* The next message that is wanted. 0: there is none. */
static int advance(struct merge *m, struct reader *r)
{
    enum reader_step step;

    while ((step = reader_next(r)) != READER_END) {
        if (step == READER_RECORD) {
            if (r->record.type == LOG_MESSAGE && !r->refused &&
                filter_takes(&m->task->filter, r->room, &r->record.message))
                return 1;
        } else if (step == READER_DAMAGE) {
            tell("%s: damaged at offset %" PRIu64 ", %" PRIu64 " bytes: %s", r->file,
                 r->damage_from, r->damage_to - r->damage_from, r->damage);
            if (m->task->status < STATUS_DAMAGED)
                m->task->status = STATUS_DAMAGED;
        } else if (step == READER_FAILED) {
            task_failed(m->task, "%s/%s: %s", m->task->directory, r->file, reader_error(r->error));
        }
    }
    return 0;
}

static struct reader *reader_of(struct merge *m, const struct segment *first, size_t n)
{
    struct reader *r;

    for (size_t i = 0; i < m->n_readers; i++)
        if (m->readers[i]->partition == first->partition)
            return m->readers[i];
    r = memory_get(sizeof(*r));
    reader_init(r, m->task->directory, first, n);
    r->follow = m->task->follow;
    if (m->task->filter.since_ns != INT64_MIN)
        reader_since(r, m->task->filter.since_ns);
    m->total_bytes += reader_bytes(r);
    m->readers = memory_resize(m->readers, (m->n_readers + 1) * sizeof(struct reader *));
    m->heap = memory_resize(m->heap, (m->n_readers + 1) * sizeof(struct reader *));
    m->readers[m->n_readers++] = r;
    return r;
}

void merge_update(struct merge *m)
{
    const struct folder *folder = &m->task->folder;

    for (size_t i = 0, n; i < folder->n; i += n) {
        n = folder_partition(folder, i);
        reader_update(reader_of(m, &folder->segments[i], n), &folder->segments[i], n);
    }
    m->is_begun = 0;
}

void merge_init(struct merge *m, struct task *task)
{
    *m = (struct merge){.task = task};
    for (size_t i = 0, n; i < task->folder.n; i += n) {
        n = folder_partition(&task->folder, i);
        (void)reader_of(m, &task->folder.segments[i], n);
    }
}

void merge_free(struct merge *m)
{
    for (size_t i = 0; i < m->n_readers; i++) {
        reader_free(m->readers[i]);
        free(m->readers[i]);
    }
    free(m->readers);
    free(m->heap);
}

struct reader *merge_next(struct merge *m)
{
    if (!m->is_begun) { /* nobody stands on a message */
        m->is_begun = 1;
        for (size_t i = 0; i < m->n_readers; i++)
            if (advance(m, m->readers[i]))
                push(m, m->readers[i]);
    } else if (m->n_heap) {
        if (!advance(m, m->heap[0]))
            m->heap[0] = m->heap[--m->n_heap];
        sift_down(m, 0);
    }
    if (!m->n_heap)
        return NULL;
    m->messages++;
    return m->heap[0];
}

uint64_t merge_bytes_read(const struct merge *m)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < m->n_readers; i++)
        bytes += m->readers[i]->bytes_read;
    return bytes;
}
