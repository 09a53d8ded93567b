#ifndef RODA_LOG_MERGE_H
#define RODA_LOG_MERGE_H
/* The messages of all partitions that a filter takes, as one stream in the order of their times. */
#include <stddef.h>
#include <stdint.h>

#include "program.h"
#include "reader.h"

struct merge {
    struct task *task;
    struct reader **readers; /* all, by partition */
    size_t n_readers;
    struct reader **heap; /* those that hold a message; the oldest is the first */
    size_t n_heap;
    int is_begun;
    uint64_t total_bytes, messages;
};

void merge_init(struct merge *m, struct task *task);
void merge_free(struct merge *m);
/* The reader whose record is the next message, until the next call; NULL: that was all. What is
 * damaged is told on the way. */
struct reader *merge_next(struct merge *m);
/* The directory was read again (task->folder); merge_next() may find more. */
void merge_update(struct merge *m);
uint64_t merge_bytes_read(const struct merge *m);

#endif
