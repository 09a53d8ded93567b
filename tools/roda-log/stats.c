#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moment.h"
#include "program.h"
#include "progress.h"
#include "reader.h"
#include "show.h"

/*
 * What each room has in the log, by its name, and all of it. Private rooms are added up in one line
 * unless they are asked for; the filters hold here too, so "stats --since -1d" is the last day.
 * What was read is counted in the rooms of the partition's reader, which are kept until the end.
 */
struct counted {
    uint64_t messages, bytes, first, last;
    int64_t first_ns, last_ns;
};

struct row {
    const struct room *room;
    struct counted counted;
};

struct stats {
    struct row *rows;
    size_t n, room;
    struct counted in_private;
    size_t n_private;
    uint64_t messages, refused, read_bytes;
    size_t partitions;
};

static void count(struct counted *c, const struct log_message *message, uint64_t bytes)
{
    if (!c->messages || message->number < c->first)
        c->first = message->number;
    if (!c->messages || message->number > c->last)
        c->last = message->number;
    if (!c->messages || message->time_ns < c->first_ns)
        c->first_ns = message->time_ns;
    if (!c->messages || message->time_ns > c->last_ns)
        c->last_ns = message->time_ns;
    c->messages++;
    c->bytes += bytes;
}

static void count_record(struct task *task, struct stats *stats, struct reader *r)
{
    const struct log_message *message = &r->record.message;
    struct filter filter = task->filter;

    filter.is_private = 1;
    if (r->record.type != LOG_MESSAGE || !r->room || !filter_takes(&filter, r->room, message))
        return;
    if (r->refused) {
        stats->refused++;
        return;
    }
    if (!r->room->own)
        r->room->own = memory_get(sizeof(struct counted));
    count(r->room->own, message, r->record.length);
    stats->messages++;
}

static int is_private(const struct room *room)
{
    return room->folded.len && room->folded.ptr[0] == '@';
}

static void add_row(struct task *task, struct stats *stats, const struct room *room)
{
    const struct counted *counted = room->own;

    if (!task->filter.is_private && !task->filter.n_rooms && is_private(room)) {
        stats->in_private.messages += counted->messages;
        stats->in_private.bytes += counted->bytes;
        stats->n_private++;
        return;
    }
    if (stats->n == stats->room) {
        stats->room = stats->room ? stats->room * 2 : 64;
        stats->rows = memory_resize(stats->rows, stats->room * sizeof(*stats->rows));
    }
    stats->rows[stats->n++] = (struct row){room, *counted};
}

static void count_partition(struct task *task, struct stats *stats, struct reader *r,
                            struct progress *progress)
{
    enum reader_step step;

    while ((step = reader_next(r)) != READER_END) {
        if (step == READER_RECORD)
            count_record(task, stats, r);
        else if (step == READER_DAMAGE && task->status < STATUS_DAMAGED)
            task->status = STATUS_DAMAGED;
        else if (step == READER_FAILED)
            task_failed(task, "%s/%s: %s", task->directory, r->file, reader_error(r->error));
        progress_step(progress, stats->read_bytes + r->bytes_read, stats->messages);
    }
    stats->read_bytes += r->bytes_read;
    stats->partitions++;
    for (size_t i = 0; i < r->n_chains; i++)
        for (const struct room *room = r->chains[i]; room; room = room->next)
            if (room->own)
                add_row(task, stats, room);
}

static int by_name(const void *left, const void *right)
{
    const struct row *a = left, *b = right;
    struct roda_str x = a->room->folded, y = b->room->folded;
    int order = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);

    return order ? order : x.len < y.len ? -1 : x.len > y.len;
}

static void show_row(const struct row *row)
{
    const struct counted *c = &row->counted;
    char first[MOMENT_BYTES], last[MOMENT_BYTES];

    (void)printf("%10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %12" PRIu64 " %s %s ", c->messages,
                 c->first, c->last, c->bytes, moment_write(c->first_ns, 3, first),
                 moment_write(c->last_ns, 3, last));
    show_text(stdout, is_private(row->room) ? row->room->folded : row->room->name, 1);
    (void)printf("\n");
}

static void show_stats(const struct task *task, struct stats *stats)
{
    if (stats->n) {
        qsort(stats->rows, stats->n, sizeof(*stats->rows), by_name);
        (void)printf("%10s %10s %10s %12s %-24s %-24s %s\n", "messages", "from", "to", "bytes",
                     "first", "last", "room");
    }
    for (size_t i = 0; i < stats->n; i++)
        show_row(&stats->rows[i]);
    if (stats->n_private)
        (void)printf("%10" PRIu64 " %10s %10s %12" PRIu64 " %-24s %-24s (%zu private)\n",
                     stats->in_private.messages, "-", "-", stats->in_private.bytes, "-", "-",
                     stats->n_private);
    (void)printf("%" PRIu64 " messages in %zu rooms, %zu segments of %zu partitions, %" PRIu64
                 " bytes\n",
                 stats->messages, stats->n + stats->n_private, task->folder.n, stats->partitions,
                 task->folder.bytes);
    if (stats->refused)
        (void)printf("%" PRIu64 " messages were refused and are not counted\n", stats->refused);
    if (task->status == STATUS_DAMAGED)
        (void)printf("some records are damaged: see roda-log verify\n");
}

void run_stats(struct task *task)
{
    const struct folder *folder = &task->folder;
    struct reader *readers = memory_get((folder->n + 1) * sizeof(*readers));
    struct stats stats = {0};
    struct progress progress;
    size_t n_readers = 0;

    progress_begin(&progress, task->progress, 0, folder->bytes);
    for (size_t i = 0, n; i < folder->n; i += n) {
        struct reader *r = &readers[n_readers++];

        n = folder_partition(folder, i);
        reader_init(r, task->directory, &folder->segments[i], n);
        if (task->filter.since_ns != INT64_MIN)
            reader_since(r, task->filter.since_ns);
        count_partition(task, &stats, r, &progress);
        window_free(&r->window);
    }
    progress_end(&progress);
    show_stats(task, &stats);
    for (size_t i = 0; i < n_readers; i++)
        reader_free(&readers[i]);
    free(readers);
    free(stats.rows);
}
