#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

/*
 * What is kept for how long. Segments go whole, oldest first, never a partition's tail:
 *
 *   by age    when the next segment was begun longer than keep_ms ago: no record is younger
 *   by bytes  while the sealed segments of all partitions are more than keep_bytes, the one that
 *             was begun first of all; struct log_shared tells every worker how much each partition
 *             has and how old its oldest is. If the turn is another partition's, its worker is
 *             told.
 *
 * The file goes first, then its entry in p->segments; a reader that comes between finds no file,
 * or has it open and still reads. While somebody reads in a segment it stays. One removal at a time
 * per partition; when it is done the next step follows. It goes on while a partition is broken: on
 * a full disk that may be what mends it. Chains simply end where a segment is
 * missing: what points there finds nothing (history.c).
 *
 * Text files go by age, by the day in their names, once an hour at most. Partition 0's worker goes
 * through all folders, one request at a time. Folders stay.
 */

#define SWEEP_EVERY_MS    UINT64_C(3600000)
#define COMPLAIN_EVERY_MS UINT64_C(600000)
#define MS_NS             INT64_C(1000000)

/* ---- segments ----------------------------------------------------------------------------- */

struct removal {
    struct partition *p;
    uint64_t base;
};

/* Broken, and without its oldest segment nothing could be found again: another one's turn. */
static int is_stuck(const struct partition *p)
{
    return p->state == PARTITION_BROKEN && p->segments[0].base >= partition_relied(p);
}

void retention_usage(struct partition *p)
{
    struct log_shared *shared = p->x->shared;
    struct log_usage *usage = &shared->usage[p->index];
    uint64_t bytes = 0;

    for (uint32_t i = 0; i + 1 < p->n_segments; i++)
        bytes += p->segments[i].bytes;
    __atomic_store_n(&usage->bytes, bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&usage->oldest_ns,
                     p->n_segments > 1 && !is_stuck(p) ? p->segments[0].created_ns : 0,
                     __ATOMIC_RELAXED);
}

/* While it is being read anew its segments are not known. */
static int is_open(const struct partition *p)
{
    return p->state == PARTITION_READY || p->state == PARTITION_BROKEN;
}

/* The file is gone. */
static void drop_oldest(struct partition *p, uint64_t base)
{
    struct log_segment *oldest = p->segments;

    if (p->n_segments < 2 || oldest->base != base || oldest->readers || oldest->opening)
        return; /* the next step finds that there is no file */
    roda_file_close(oldest->file);
    p->n_segments--;
    memmove(oldest, oldest + 1, p->n_segments * sizeof *oldest);
    roda_count(p->x, LOG_SEGMENTS, -1);
    retention_usage(p);
    retention_step(p);
}

static void segment_path(const struct partition *p, uint64_t base, char to[TEXT_PATH_SIZE])
{
    char name[LOG_NAME_BYTES];

    log_segment_name(p->index, base, name);
    (void)snprintf(to, TEXT_PATH_SIZE, "%s/%s", log_conf_of(p->x)->directory, name);
}

static void on_removed(struct roda_ctx *x, void *arg, int result)
{
    struct removal *removal = arg;
    struct partition *p = removal->p;
    uint64_t base = removal->base;
    char path[TEXT_PATH_SIZE];

    roda_free(x, removal);
    p->removing = 0;
    if (!is_open(p))
        return;
    if (result >= 0 || result == -ENOENT) {
        drop_oldest(p, base);
        return;
    }
    if (p->complained_ms && roda_now_ms(x) - p->complained_ms < COMPLAIN_EVERY_MS)
        return;
    p->complained_ms = roda_now_ms(x);
    segment_path(p, base, path);
    roda_log(x, RODA_LOG_ERROR,
             "segment %s is to go (keep, keep_bytes) and cannot be removed: %s; let the broker's "
             "user write in its directory",
             path, strerror(-result));
}

static void remove_oldest(struct partition *p)
{
    struct removal *removal = roda_alloc(p->x, sizeof *removal);
    char path[TEXT_PATH_SIZE];

    if (!removal)
        return;
    *removal = (struct removal){p, p->segments[0].base};
    segment_path(p, removal->base, path);
    if (roda_file_remove(p->x, path, on_removed, removal))
        roda_free(p->x, removal);
    else
        p->removing = 1;
}

struct errand {
    struct roda_item item; /* first */
    uint32_t partition;
};

static void on_errand(struct roda_ctx *x, struct roda_item *item, int result)
{
    uint32_t partition = ((struct errand *)(void *)item)->partition;

    roda_free(x, item);
    if (result >= 0 && log_state_of(x)->partitions[partition])
        retention_step(log_state_of(x)->partitions[partition]);
}

static void tell_worker(struct partition *p, uint32_t partition)
{
    struct errand *errand = roda_alloc(p->x, sizeof *errand);

    if (!errand)
        return;
    errand->item.run = on_errand;
    errand->item.bytes = sizeof *errand;
    errand->partition = partition;
    roda_post(p->x, roda_partition_worker(partition, p->x->n_workers), &errand->item);
}

/* When the segment behind the oldest was begun, as far as its header can be believed: a clock that
 * was ahead must not keep all for ever, one that was behind must not have it removed. */
static int64_t oldest_ended_ns(const struct partition *p, int64_t now_ns)
{
    const struct log_segment *segments = p->segments;
    uint32_t i = 1;

    while (i + 1 < p->n_segments && segments[i].created_ns > now_ns)
        i++;
    return segments[0].created_ns <= now_ns && segments[0].created_ns > segments[i].created_ns
               ? segments[0].created_ns
               : segments[i].created_ns;
}

static int is_too_old(const struct partition *p)
{
    int64_t keep_ms = log_conf_of(p->x)->keep_ms, now_ns = roda_time_ns(p->x);

    return keep_ms && p->n_segments > 1 && (now_ns - oldest_ended_ns(p, now_ns)) / MS_NS > keep_ms;
}

/* The partition whose oldest segment must go; RODA_PARTITIONS: none. */
static uint32_t who_has_too_much(const struct partition *p)
{
    struct log_shared *shared = p->x->shared;
    int64_t keep_bytes = log_conf_of(p->x)->keep_bytes, oldest_ns = 0;
    uint32_t found = RODA_PARTITIONS;
    uint64_t total = 0;

    for (uint32_t i = 0; i < RODA_PARTITIONS; i++) {
        int64_t ns = __atomic_load_n(&shared->usage[i].oldest_ns, __ATOMIC_RELAXED);
        total += __atomic_load_n(&shared->usage[i].bytes, __ATOMIC_RELAXED);
        if (ns && (!oldest_ns || ns < oldest_ns)) {
            oldest_ns = ns;
            found = i;
        }
    }
    return keep_bytes && total > (uint64_t)keep_bytes ? found : RODA_PARTITIONS;
}

/* ---- text files --------------------------------------------------------------------------- */

struct sweep {
    struct text *text;
    struct roda_str *folders; /* one block with their names behind */
    size_t n_folders;
    struct roda_str *files; /* of folders[n_folders]: what is to go */
    size_t n_files;
    char folder[TEXT_PATH_SIZE];
};

static void next_folder(struct sweep *sweep);
static void next_file(struct sweep *sweep);

static void sweep_end(struct sweep *sweep)
{
    struct text *text = sweep->text;

    roda_free(text->x, sweep->folders);
    roda_free(text->x, sweep->files);
    roda_free(text->x, sweep);
    text->sweeping = 0;
    text->pending--;
    text_end(text);
}

/* The names that pass, in one block. NULL: memory is out. */
static struct roda_str *copy_names(struct roda_ctx *x, const struct roda_str *names, size_t n,
                                   int (*passes)(struct roda_ctx *x, struct roda_str name),
                                   size_t *ret_n)
{
    size_t bytes = 0, copied = 0;

    for (size_t i = 0; i < n; i++)
        bytes += names[i].len + 1;
    struct roda_str *copy = roda_alloc(x, n * sizeof *copy + bytes + 1);
    if (!copy)
        return NULL;
    char *to = (char *)(copy + n);
    for (size_t i = 0; i < n; i++) {
        if (!passes(x, names[i]))
            continue;
        memcpy(to, names[i].ptr, names[i].len); /* what follows is zero */
        copy[copied++] = (struct roda_str){to, names[i].len};
        to += names[i].len + 1;
    }
    *ret_n = copied;
    return copy;
}

static int is_folder(struct roda_ctx *x, struct roda_str name)
{
    (void)x;
    return !memchr(name.ptr, '.', name.len);
}

static int is_old_file(struct roda_ctx *x, struct roda_str name)
{
    int64_t day;

    return !text_day_parse(name, &day) &&
           (roda_time_ns(x) - text_day_start_ns(day + 1)) / MS_NS > log_conf_of(x)->keep_ms;
}

static void on_file_removed(struct roda_ctx *x, void *arg, int result)
{
    struct sweep *sweep = arg;

    if (result < 0 && result != -ENOENT && result != -ECANCELED)
        roda_log(x, RODA_LOG_ERROR,
                 "text file %s/%s is to go (keep) and cannot be removed: %s; let the broker's user "
                 "write in its directory",
                 sweep->folder, sweep->files[sweep->n_files].ptr, strerror(-result));
    next_file(sweep);
}

static void next_file(struct sweep *sweep)
{
    char path[TEXT_PATH_SIZE + 32];

    if (!sweep->n_files) {
        next_folder(sweep);
        return;
    }
    sweep->n_files--;
    (void)snprintf(path, sizeof path, "%s/%s", sweep->folder, sweep->files[sweep->n_files].ptr);
    if (sweep->text->stopping || roda_file_remove(sweep->text->x, path, on_file_removed, sweep))
        sweep_end(sweep);
}

static void on_files(struct roda_ctx *x, void *arg, const struct roda_str *names, size_t n,
                     int result)
{
    struct sweep *sweep = arg;

    roda_free(x, sweep->files);
    sweep->n_files = 0;
    sweep->files = result < 0 ? NULL : copy_names(x, names, n, is_old_file, &sweep->n_files);
    next_file(sweep); /* a folder that cannot be read is left */
}

static void next_folder(struct sweep *sweep)
{
    struct roda_ctx *x = sweep->text->x;

    if (sweep->text->stopping || !sweep->n_folders) {
        sweep_end(sweep);
        return;
    }
    sweep->n_folders--;
    (void)snprintf(sweep->folder, sizeof sweep->folder, "%s/%s", log_conf_of(x)->text_directory,
                   sweep->folders[sweep->n_folders].ptr);
    if (roda_file_list(x, sweep->folder, on_files, sweep))
        sweep_end(sweep);
}

static void on_folders(struct roda_ctx *x, void *arg, const struct roda_str *names, size_t n,
                       int result)
{
    struct sweep *sweep = arg;

    if (result >= 0)
        sweep->folders = copy_names(x, names, n, is_folder, &sweep->n_folders);
    next_folder(sweep);
}

static void sweep_text(struct roda_ctx *x)
{
    struct text *text = log_state_of(x)->text;
    uint64_t now_ms = roda_now_ms(x);

    if (!text || text->sweeping || !log_conf_of(x)->keep_ms ||
        (text->swept_ms && now_ms - text->swept_ms < SWEEP_EVERY_MS))
        return;
    struct sweep *sweep = roda_alloc(x, sizeof *sweep);
    if (!sweep)
        return;
    sweep->text = text;
    if (roda_file_list(x, log_conf_of(x)->text_directory, on_folders, sweep)) {
        roda_free(x, sweep);
        return;
    }
    text->swept_ms = now_ms;
    text->sweeping = 1;
    text->pending++;
}

/* ---- a step --------------------------------------------------------------------------------- */

void retention_step(struct partition *p)
{
    if (p->index == 0)
        sweep_text(p->x);
    if (!is_open(p) || p->removing)
        return;
    retention_usage(p);
    uint32_t who = is_too_old(p) ? p->index : who_has_too_much(p);
    if (who != p->index) {
        if (who < RODA_PARTITIONS)
            tell_worker(p, who);
        return;
    }
    if (p->segments[0].base < partition_relied(p) && !p->segments[0].readers &&
        !p->segments[0].opening)
        remove_oldest(p);
}
