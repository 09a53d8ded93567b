#include "ring/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>

#include "base/list.h"
#include "base/memory.h"
#include "ring/ring.h"
#include "ring/wheel.h"

/*
 * A file that is appended to:
 *
 *     file_append -> blocks: first [.. last]     one WRITE at most, of the first block
 *     due: the block is full, a sync or the close waits for it, or it is FILE_WRITE_DELAY_MS old
 *     WRITE done  -> written_end moves; short: the rest again; block empty: the next
 *     file_sync   -> syncs, each with the size at its call (upto)
 *     FSYNC       -> started when the oldest sync's upto <= written_end; one at most
 *     FSYNC done  -> every sync with upto <= the written_end at its start is answered
 *
 * 0 .. written_end is with the kernel, written_end .. size stands in the blocks, without a hole.
 * A block under WRITE may still be filled behind the bytes that the WRITE covers. WRITE and FSYNC
 * are never linked: a short write would cancel the sync, and the queue's order is not the order of
 * execution.
 *
 * Poison. A failed write or fsync sets `error` for good: blocks are dropped (one under WRITE when
 * it comes back), size falls to written_end, every waiting sync is answered with the error.
 *
 * Reads copy at once what stands in the blocks, which may be gone later, and read the rest, which
 * is with the kernel already, by the ring.
 *
 * Truncation needs a file with nothing under way and keeps it so: `cutting` refuses appends and
 * syncs until it is known where the file ends. Setting space aside goes on beside everything else.
 *
 * Who owns what: struct files owns every file and every operation. user_data names a slot of one
 * of two tables (files for WRITE and FSYNC, reads for READ). A file that has something to prepare
 * is on `work`. It is freed by its close job alone, which runs when nothing of it is under way;
 * so a callback may close its file at any time. What can be answered at once is answered from a
 * deferred job, since no callback runs inside the call that takes it.
 */

#define FILE_SPARE_BLOCKS 4u
#define FILE_RETRIES_MAX  100u
#define FILE_READ_MAX     (1u << 30) /* of one READ; the kernel takes a little less than 2 GB */
#define FILE_ACCESS       0640
/* Many file systems write from a kernel thread only, and waking that costs more than the message
 * it writes; so what nobody waits for goes together. */
#define FILE_WRITE_DELAY_MS 10u
#define DIRECTORY_ACCESS    0750

struct block {
    struct block *next;
    uint64_t offset; /* of bytes[0] in the file */
    uint32_t len, written;
    char bytes[FILE_BLOCK_BYTES];
};

struct slot {
    void *object;
    uint32_t generation;
    uint32_t next_free;
};

struct slots {
    struct slot *entries;
    uint32_t n, capacity;
    uint32_t free; /* slot + 1; 0: none */
};

struct answer { /* of what needed no ring: on `answers`, given by the deferred job */
    struct list link;
    void (*give)(struct answer *answer);
};

struct files {
    struct ring *ring;
    struct wheel *wheel;
    struct slots open, reading;
    struct list work;          /* of file.work */
    struct list later;         /* of file.work: bytes that are not due yet */
    struct wheel_timer due;    /* of all of them; armed while there are some */
    struct list reads_waiting; /* of read.answer.link: for an SQE */
    struct list answers;
    struct ring_job answer_job;
    bool answer_job_queued;
    size_t under_way;
    struct block *spare;
    unsigned n_spare;
};

struct file {
    struct ring_job job; /* open, then close; first */
    struct files *files;
    struct list work;
    uint32_t slot;
    unsigned mode;
    int fd;
    int error; /* poisoned */
    bool writing, syncing, cutting, closing;
    bool due; /* its bytes have waited long enough */
    unsigned retries;
    uint64_t size, written_end;
    uint64_t synced_end; /* known to be on disk */
    uint64_t sync_covers;
    struct block *first, *last;
    struct list syncs;   /* of sync.answer.link, oldest first */
    unsigned unanswered; /* reads and syncs */

    char *path; /* until it is open */
    file_open_fn *opened;
    void *opened_arg;
};

struct sync {
    struct answer answer; /* first */
    struct file *file;
    file_done_fn *fn;
    void *arg;
    uint64_t upto;
    int result;
};

struct read {
    struct answer answer; /* first */
    struct file *file;
    file_read_fn *fn;
    void *arg;
    uint64_t offset;
    size_t want, got; /* from the kernel */
    size_t rest;      /* from the blocks, stands behind want */
    uint32_t slot;
    unsigned retries;
    int result;
    char bytes[];
};

struct path_job {
    struct ring_job job; /* first */
    struct files *files;
    char *from, *to;
    file_done_fn *done;
    file_list_fn *listed;
    void *arg;
    char **names;
    size_t n, capacity;
    int result;
};

/* ---- slots ------------------------------------------------------------------------------ */

static int slot_add(struct slots *t, void *object, uint32_t *ret_slot)
{
    if (!t->free) {
        if (t->n == t->capacity) {
            uint32_t capacity = t->capacity ? t->capacity * 2 : 16;
            struct slot *entries = memory_realloc(t->entries, capacity * sizeof *entries);
            if (!entries)
                return -ENOMEM;
            t->entries = entries;
            t->capacity = capacity;
        }
        t->entries[t->n] = (struct slot){.generation = 1};
        t->free = ++t->n;
    }
    uint32_t slot = t->free - 1;
    t->free = t->entries[slot].next_free;
    t->entries[slot].object = object;
    *ret_slot = slot;
    return 0;
}

static void slot_remove(struct slots *t, uint32_t slot)
{
    struct slot *entry = &t->entries[slot];

    entry->object = NULL;
    entry->generation = (entry->generation + 1) & RING_GENERATION_MASK;
    entry->next_free = t->free;
    t->free = slot + 1;
}

static void *slot_find(struct files *files, const struct slots *t,
                       const struct ring_completion *done)
{
    if (done->slot < t->n && t->entries[done->slot].generation == done->generation &&
        t->entries[done->slot].object)
        return t->entries[done->slot].object;
    ring_add(&files->ring->counters.stale, 1);
    return NULL;
}

static struct io_uring_sqe *slot_sqe(struct files *files, const struct slots *t,
                                     enum ring_kind kind, uint32_t slot)
{
    return ring_sqe(files->ring, RING_USER_DATA(kind, t->entries[slot].generation, slot));
}

/* ---- answers ---------------------------------------------------------------------------- */

static void answers_give(struct ring_job *job)
{
    struct files *files = container_of(job, struct files, answer_job);
    struct list now, *link;

    files->answer_job_queued = false;
    list_init(&now);
    list_take(&now, &files->answers);
    while ((link = list_pop(&now))) {
        struct answer *answer = container_of(link, struct answer, link);
        answer->give(answer);
    }
}

static void answer_soon(struct files *files, struct answer *answer)
{
    list_append(&files->answers, &answer->link);
    if (files->answer_job_queued)
        return;
    files->answer_job_queued = true;
    files->answer_job.done = answers_give;
    ring_job_defer(files->ring, &files->answer_job);
}

static void file_to_work(struct file *file)
{
    list_remove(&file->work);
    list_append(&file->files->work, &file->work);
}

/* ---- blocks ----------------------------------------------------------------------------- */

static struct block *block_get(struct files *files)
{
    struct block *block = files->spare;

    if (block) {
        files->spare = block->next;
        files->n_spare--;
    } else {
        block = memory_realloc(NULL, sizeof *block); /* not zeroed: it is large */
        if (!block)
            return NULL;
    }
    block->next = NULL;
    block->len = block->written = 0;
    return block;
}

static void block_put(struct files *files, struct block *block)
{
    if (files->n_spare >= FILE_SPARE_BLOCKS) {
        memory_free(block);
        return;
    }
    block->next = files->spare;
    files->spare = block;
    files->n_spare++;
}

static void blocks_put(struct files *files, struct block *block)
{
    while (block) {
        struct block *next = block->next;
        block_put(files, block);
        block = next;
    }
}

static size_t room_in_last(const struct file *file)
{
    return file->last ? FILE_BLOCK_BYTES - file->last->len : 0;
}

static int blocks_get(struct files *files, size_t bytes, struct block **ret_blocks)
{
    struct block *blocks = NULL;

    for (size_t have = 0; have < bytes; have += FILE_BLOCK_BYTES) {
        struct block *block = block_get(files);
        if (!block) {
            blocks_put(files, blocks);
            return -ENOMEM;
        }
        block->next = blocks;
        blocks = block;
    }
    *ret_blocks = blocks;
    return 0;
}

static void copy_into_last(struct file *file, const char **bytes, size_t *len, size_t room)
{
    size_t n = *len < room ? *len : room;

    if (!n)
        return;
    memcpy(file->last->bytes + file->last->len, *bytes, n);
    file->last->len += (uint32_t)n;
    file->size += n;
    *bytes += n;
    *len -= n;
}

static void blocks_append(struct file *file, struct block *block)
{
    block->offset = file->size;
    block->next = NULL;
    if (file->last)
        file->last->next = block;
    else
        file->first = block;
    file->last = block;
}

/* Drops what was not written; a block under WRITE is kept for its completion. */
static void blocks_drop(struct file *file)
{
    struct block *from = file->writing ? file->first->next : file->first;

    blocks_put(file->files, from);
    if (file->writing) {
        file->first->next = NULL;
        file->last = file->first;
    } else {
        file->first = file->last = NULL;
    }
}

/* A file with bytes to write is one operation under way. */
static void count_writing(struct file *file, bool before)
{
    bool now = file->first;

    if (now && !before)
        file->files->under_way++;
    else if (!now && before)
        file->files->under_way--;
}

/* ---- sync ------------------------------------------------------------------------------- */

static void sync_give(struct answer *answer)
{
    struct sync *sync = (struct sync *)(void *)answer;
    file_done_fn *fn = sync->fn;
    void *arg = sync->arg;
    int result = sync->result;

    sync->file->unanswered--;
    sync->file->files->under_way--;
    file_to_work(sync->file);
    memory_free(sync);
    fn(arg, result);
}

static struct sync *sync_first(struct file *file)
{
    struct list *link = list_first(&file->syncs);

    return link ? container_of(link, struct sync, answer.link) : NULL;
}

/* Answers, oldest first, what reaches no further than upto; by a handler. Chosen before the first
 * callback runs, which may sync again. */
static void syncs_answer(struct file *file, uint64_t upto, int result)
{
    struct list ready, *link;
    struct sync *sync;

    list_init(&ready);
    while ((sync = sync_first(file)) && sync->upto <= upto) {
        list_remove(&sync->answer.link);
        list_append(&ready, &sync->answer.link);
    }
    while ((link = list_pop(&ready))) {
        sync = container_of(link, struct sync, answer.link);
        sync->result = result;
        sync_give(&sync->answer);
    }
}

static void poison(struct file *file, int error)
{
    bool had_blocks = file->first;

    if (file->error)
        return;
    file->error = error;
    file->size = file->written_end;
    blocks_drop(file);
    count_writing(file, had_blocks);
    syncs_answer(file, UINT64_MAX, error);
}

static void sync_completed(void *owner, const struct ring_completion *done)
{
    struct files *files = owner;
    struct file *file = slot_find(files, &files->open, done);

    if (!file)
        return;
    file->syncing = false;
    if (done->result < 0) {
        poison(file, done->result);
    } else if (!file->error) {
        file->synced_end = file->sync_covers;
        syncs_answer(file, file->sync_covers, 0);
    }
    file_to_work(file);
}

int file_sync(struct file *file, file_done_fn *fn, void *arg)
{
    if (file->error)
        return file->error;
    if (file->closing || !(file->mode & FILE_APPEND))
        return -EBADF;
    if (file->cutting)
        return -EBUSY;
    struct sync *sync = memory_alloc(sizeof *sync);
    if (!sync)
        return -ENOMEM;
    sync->answer.give = sync_give;
    sync->file = file;
    sync->fn = fn;
    sync->arg = arg;
    sync->upto = file->size;
    file->unanswered++;
    file->files->under_way++;
    if (sync->upto && sync->upto <= file->synced_end) {
        answer_soon(file->files, &sync->answer);
        return 0;
    }
    list_append(&file->syncs, &sync->answer.link);
    file_to_work(file);
    return 0;
}

/* ---- append ----------------------------------------------------------------------------- */

int64_t file_append(struct file *file, const char *bytes, size_t len)
{
    struct block *fresh = NULL;
    uint64_t offset = file->size;
    bool had_blocks = file->first;
    size_t room = room_in_last(file);

    if (file->error)
        return file->error;
    if (file->closing || !(file->mode & FILE_APPEND))
        return -EBADF;
    if (file->cutting)
        return -EBUSY;
    if (len > FILE_PENDING_BYTES_MAX)
        return -EMSGSIZE;
    if (file->size - file->written_end + len > FILE_PENDING_BYTES_MAX)
        return -ENOBUFS;
    int result = blocks_get(file->files, len > room ? len - room : 0, &fresh);
    if (result < 0)
        return result;
    copy_into_last(file, &bytes, &len, room);
    while (fresh) {
        struct block *next = fresh->next;
        blocks_append(file, fresh);
        copy_into_last(file, &bytes, &len, FILE_BLOCK_BYTES);
        fresh = next;
    }
    count_writing(file, had_blocks);
    if (file->first)
        file_to_work(file);
    return (int64_t)offset;
}

static bool may_retry(int result, unsigned *retries)
{
    return (result == -EINTR || result == -EAGAIN) && ++*retries <= FILE_RETRIES_MAX;
}

static void write_advanced(struct file *file, uint32_t n)
{
    struct block *block = file->first;

    file->retries = 0;
    file->written_end += n;
    block->written += n;
    if (block->written < block->len)
        return;
    file->first = block->next;
    if (!file->first)
        file->last = NULL;
    block_put(file->files, block);
    count_writing(file, true);
}

static void write_completed(void *owner, const struct ring_completion *done)
{
    struct files *files = owner;
    struct file *file = slot_find(files, &files->open, done);

    if (!file)
        return;
    file->writing = false;
    if (file->error) {
        blocks_drop(file);
        count_writing(file, true);
    } else if (done->result > 0) {
        write_advanced(file, (uint32_t)done->result);
    } else if (!may_retry(done->result, &file->retries)) {
        poison(file, done->result ? done->result : -EIO);
    }
    file_to_work(file);
}

/* ---- read ------------------------------------------------------------------------------- */

static void read_give(struct answer *answer)
{
    struct read *read = (struct read *)(void *)answer;

    read->file->unanswered--;
    read->file->files->under_way--;
    file_to_work(read->file);
    size_t len = read->got == read->want ? read->want + read->rest : read->got;
    read->fn(read->arg, read->bytes, read->result < 0 ? 0 : len, read->result);
    memory_free(read);
}

static void read_completed(void *owner, const struct ring_completion *done)
{
    struct files *files = owner;
    struct read *read = slot_find(files, &files->reading, done);

    if (!read)
        return;
    if (done->result > 0) {
        read->got += (size_t)done->result;
        read->retries = 0;
    }
    bool again =
        done->result > 0 ? read->got < read->want : may_retry(done->result, &read->retries);
    if (again) {
        list_append(&files->reads_waiting, &read->answer.link);
        return;
    }
    slot_remove(&files->reading, read->slot);
    read->result = done->result < 0 ? done->result : 0;
    read_give(&read->answer);
}

static void copy_from_blocks(const struct file *file, uint64_t offset, char *to, size_t len)
{
    for (const struct block *block = file->first; block && len; block = block->next) {
        uint64_t end = block->offset + block->len;
        if (offset >= end)
            continue;
        size_t at = (size_t)(offset - block->offset);
        size_t n = (size_t)(end - offset) < len ? (size_t)(end - offset) : len;
        memcpy(to, block->bytes + at, n);
        to += n;
        offset += n;
        len -= n;
    }
}

int file_read(struct file *file, uint64_t offset, size_t len, file_read_fn *fn, void *arg)
{
    struct files *files = file->files;

    if (file->closing || !(file->mode & FILE_READ))
        return -EBADF;
    bool appended = file->mode & FILE_APPEND; /* else its size may have changed: read and see */
    uint64_t left = offset < file->size ? file->size - offset : 0;
    if (appended && len > left)
        len = (size_t)left;
    struct read *read = memory_alloc(sizeof *read + len);
    if (!read)
        return -ENOMEM;
    uint64_t on_disk = offset < file->written_end ? file->written_end - offset : 0;
    read->want = !appended || len < on_disk ? len : (size_t)on_disk;
    read->rest = len - read->want;
    read->offset = offset;
    read->file = file;
    read->fn = fn;
    read->arg = arg;
    read->answer.give = read_give;
    copy_from_blocks(file, offset + read->want, read->bytes + read->want, read->rest);
    if (!read->want) {
        answer_soon(files, &read->answer);
    } else {
        int result = slot_add(&files->reading, read, &read->slot);
        if (result < 0) {
            memory_free(read);
            return result;
        }
        list_append(&files->reads_waiting, &read->answer.link);
    }
    file->unanswered++;
    files->under_way++;
    return 0;
}

/* ---- open and close --------------------------------------------------------------------- */

/* The name of an empty file may not be on disk: it is new, or whoever made it failed at that. It
 * is there before the first byte that a sync may promise. */
static int name_sync(const struct system *system, const char *path)
{
    int result = system->sync_directory(system->kernel, path);

    return result == -EINVAL ? 0 : result; /* a file system without this */
}

static void open_work(struct system_job *job)
{
    struct file *file = (struct file *)(void *)job;
    const struct system *system = file->job.ring->system;
    bool appends = file->mode & FILE_APPEND;
    int flags = !appends ? O_RDONLY : O_CREAT | (file->mode & FILE_READ ? O_RDWR : O_WRONLY);
    uint64_t size;

    int fd = system->open(system->kernel, file->path, flags, FILE_ACCESS);
    int result = fd < 0 ? fd : system->file_size(system->kernel, fd, &size);
    if (result >= 0 && file->mode & FILE_LOCK)
        result = system->lock(system->kernel, fd);
    if (result >= 0 && appends && !size)
        result = name_sync(system, file->path);
    if (result < 0) {
        if (fd >= 0)
            system->close(system->kernel, fd);
        file->error = result;
        return;
    }
    file->fd = fd;
    file->size = file->written_end = size;
}

static void file_drop(struct file *file)
{
    list_remove(&file->work);
    slot_remove(&file->files->open, file->slot);
    memory_free(file->path);
    memory_free(file);
}

static void open_done(struct ring_job *job)
{
    struct file *file = (struct file *)(void *)job;
    file_open_fn *fn = file->opened;
    void *arg = file->opened_arg;
    int result = file->error;

    file->files->under_way--;
    memory_free(file->path);
    file->path = NULL;
    if (result < 0) {
        file_drop(file);
        file = NULL;
    }
    fn(arg, file, result);
}

int file_open(struct files *files, const char *path, unsigned mode, file_open_fn *fn, void *arg)
{
    if (!(mode & (FILE_READ | FILE_APPEND)))
        return -EINVAL;
    struct file *file = memory_alloc(sizeof *file);
    if (!file)
        return -ENOMEM;
    file->files = files;
    file->fd = -1;
    file->mode = mode;
    file->opened = fn;
    file->opened_arg = arg;
    list_init(&file->syncs);
    int result = slot_add(&files->open, file, &file->slot);
    if (result < 0) {
        memory_free(file);
        return result;
    }
    file->path = memory_copy(path, strlen(path));
    file->job.job.work = open_work;
    file->job.done = open_done;
    result = file->path ? ring_job(files->ring, &file->job) : -ENOMEM;
    if (result < 0) {
        file_drop(file);
        return result;
    }
    files->under_way++;
    return 0;
}

static void close_work(struct system_job *job)
{
    struct file *file = (struct file *)(void *)job;
    const struct system *system = file->job.ring->system;

    system->close(system->kernel, file->fd);
}

static void close_done(struct ring_job *job)
{
    struct file *file = (struct file *)(void *)job;

    file->files->under_way--;
    file_drop(file);
}

static bool file_idle(const struct file *file)
{
    return !file->writing && !file->syncing && !file->first && !file->unanswered;
}

/* On the pool, since closing may block; here if the pool takes no more. */
static void close_begin(struct file *file)
{
    if (file->job.job.work == close_work)
        return;
    file->job.job.work = close_work;
    file->job.done = close_done;
    if (ring_job(file->files->ring, &file->job) < 0) {
        close_work(&file->job.job);
        ring_job_defer(file->files->ring, &file->job);
    }
}

void file_close(struct file *file)
{
    if (!file || file->closing)
        return;
    file->closing = true;
    file->files->under_way++;
    file_to_work(file);
}

uint64_t file_size(const struct file *file)
{
    return file->size;
}

/* ---- size ------------------------------------------------------------------------------- */

struct size_job {        /* for one file, on the pool */
    struct ring_job job; /* first */
    struct file *file;
    uint64_t size;
    file_done_fn *fn;
    void *arg;
    int result;
};

static void truncate_work(struct system_job *job)
{
    struct size_job *s = (struct size_job *)(void *)job;
    const struct system *system = s->job.ring->system;

    s->result = system->truncate(system->kernel, s->file->fd, s->size);
}

static void reserve_work(struct system_job *job)
{
    struct size_job *s = (struct size_job *)(void *)job;
    const struct system *system = s->job.ring->system;

    s->result = system->reserve(system->kernel, s->file->fd, s->size);
}

static void size_done(struct ring_job *job)
{
    struct size_job *s = (struct size_job *)(void *)job;
    struct file *file = s->file;

    file->unanswered--;
    file->files->under_way--;
    file_to_work(file);
    if (s->job.job.work == truncate_work) {
        file->cutting = false;
        if (s->result < 0)
            poison(file, s->result); /* nobody knows where it ends now */
        else
            file->size = file->written_end = file->synced_end = s->size;
    }
    s->fn(s->arg, s->result);
    memory_free(s);
}

static int size_job_start(struct file *file, void (*work)(struct system_job *job), uint64_t size,
                          file_done_fn *fn, void *arg)
{
    struct size_job *s;
    int result;

    if (file->error)
        return file->error;
    if (file->closing || !(file->mode & FILE_APPEND))
        return -EBADF;
    s = memory_alloc(sizeof *s);
    if (!s)
        return -ENOMEM;
    s->job.job.work = work;
    s->job.done = size_done;
    s->file = file;
    s->size = size;
    s->fn = fn;
    s->arg = arg;
    result = ring_job(file->files->ring, &s->job);
    if (result < 0) {
        memory_free(s);
        return result;
    }
    file->unanswered++;
    file->files->under_way++;
    return 0;
}

int file_truncate(struct file *file, uint64_t size, file_done_fn *fn, void *arg)
{
    int result;

    if (size > file->size)
        return -EINVAL;
    if (!file_idle(file))
        return -EBUSY;
    result = size_job_start(file, truncate_work, size, fn, arg);
    if (!result)
        file->cutting = true;
    return result;
}

int file_reserve(struct file *file, uint64_t size, file_done_fn *fn, void *arg)
{
    return size_job_start(file, reserve_work, size, fn, arg);
}

/* ---- names ------------------------------------------------------------------------------ */

static void path_job_free(struct path_job *p)
{
    for (size_t i = 0; i < p->n; i++)
        memory_free(p->names[i]);
    memory_free(p->names);
    memory_free(p->from);
    memory_free(p->to);
    memory_free(p);
}

static void path_done(struct ring_job *job)
{
    struct path_job *p = (struct path_job *)(void *)job;

    p->files->under_way--;
    if (p->listed)
        p->listed(p->arg, (const char *const *)p->names, p->result < 0 ? 0 : p->n, p->result);
    else
        p->done(p->arg, p->result);
    path_job_free(p);
}

static int path_job_start(struct files *files, struct path_job *p, const char *from, const char *to)
{
    if (!p)
        return -ENOMEM;
    p->files = files;
    p->job.done = path_done;
    p->from = memory_copy(from, strlen(from));
    p->to = to ? memory_copy(to, strlen(to)) : NULL;
    int result = -ENOMEM;
    if (p->from && (p->to || !to))
        result = ring_job(files->ring, &p->job);
    if (result < 0) {
        path_job_free(p);
        return result;
    }
    files->under_way++;
    return 0;
}

static bool same_directory(const char *a, const char *b)
{
    const char *a_slash = strrchr(a, '/'), *b_slash = strrchr(b, '/');
    size_t a_len = a_slash ? (size_t)(a_slash - a) : 0, b_len = b_slash ? (size_t)(b_slash - b) : 0;

    return !a_slash == !b_slash && a_len == b_len && !memcmp(a, b, a_len);
}

static void rename_work(struct system_job *job)
{
    struct path_job *p = (struct path_job *)(void *)job;
    const struct system *system = p->job.ring->system;

    p->result = system->rename(system->kernel, p->from, p->to);
    if (p->result >= 0)
        p->result = name_sync(system, p->to);
    if (p->result >= 0 && !same_directory(p->from, p->to))
        p->result = name_sync(system, p->from);
}

static void remove_work(struct system_job *job)
{
    struct path_job *p = (struct path_job *)(void *)job;
    const struct system *system = p->job.ring->system;

    p->result = system->unlink(system->kernel, p->from);
}

static void make_directory_work(struct system_job *job)
{
    struct path_job *p = (struct path_job *)(void *)job;
    const struct system *system = p->job.ring->system;

    for (size_t len = strlen(p->from); len > 1 && p->from[len - 1] == '/'; len--)
        p->from[len - 1] = '\0'; /* what lies before the last slash is synced */
    p->result = system->make_directory(system->kernel, p->from, DIRECTORY_ACCESS);
    if (p->result < 0)
        return;
    p->result = name_sync(system, p->from);
}

static void list_name(void *arg, const char *name)
{
    struct path_job *p = arg;

    if (p->result < 0)
        return;
    if (p->n == p->capacity) {
        size_t capacity = p->capacity ? p->capacity * 2 : 64;
        char **names = memory_realloc(p->names, capacity * sizeof *names);
        if (!names) {
            p->result = -ENOMEM;
            return;
        }
        p->names = names;
        p->capacity = capacity;
    }
    p->names[p->n] = memory_copy(name, strlen(name));
    if (p->names[p->n])
        p->n++;
    else
        p->result = -ENOMEM;
}

static void list_work(struct system_job *job)
{
    struct path_job *p = (struct path_job *)(void *)job;
    const struct system *system = p->job.ring->system;

    int result = system->list(system->kernel, p->from, list_name, p);
    if (result < 0)
        p->result = result;
}

int file_rename(struct files *files, const char *from, const char *to, file_done_fn *fn, void *arg)
{
    struct path_job *p = memory_alloc(sizeof *p);

    if (p) {
        p->job.job.work = rename_work;
        p->done = fn;
        p->arg = arg;
    }
    return path_job_start(files, p, from, to);
}

int file_remove(struct files *files, const char *path, file_done_fn *fn, void *arg)
{
    struct path_job *p = memory_alloc(sizeof *p);

    if (p) {
        p->job.job.work = remove_work;
        p->done = fn;
        p->arg = arg;
    }
    return path_job_start(files, p, path, NULL);
}

int file_make_directory(struct files *files, const char *path, file_done_fn *fn, void *arg)
{
    struct path_job *p = memory_alloc(sizeof *p);

    if (p) {
        p->job.job.work = make_directory_work;
        p->done = fn;
        p->arg = arg;
    }
    return path_job_start(files, p, path, NULL);
}

int file_list(struct files *files, const char *directory, file_list_fn *fn, void *arg)
{
    struct path_job *p = memory_alloc(sizeof *p);

    if (p) {
        p->job.job.work = list_work;
        p->listed = fn;
        p->arg = arg;
    }
    return path_job_start(files, p, directory, NULL);
}

/* ---- the turn --------------------------------------------------------------------------- */

static void all_due(struct wheel_timer *timer)
{
    struct files *files = container_of(timer, struct files, due);
    struct list *link;

    while ((link = list_first(&files->later))) {
        struct file *file = container_of(link, struct file, work);
        file->due = true;
        file_to_work(file);
    }
}

static void write_later(struct file *file)
{
    struct files *files = file->files;

    list_append(&files->later, &file->work);
    if (!wheel_armed(&files->due))
        wheel_arm(files->wheel, &files->due, files->wheel->now_ms + FILE_WRITE_DELAY_MS, all_due);
}

static bool write_due(struct file *file)
{
    const struct sync *sync = sync_first(file);

    return file->due || file->closing || file->first->len == FILE_BLOCK_BYTES ||
           (sync && sync->upto > file->written_end);
}

static bool write_start(struct file *file)
{
    struct block *block = file->first;
    struct io_uring_sqe *sqe =
        slot_sqe(file->files, &file->files->open, RING_FILE_WRITE, file->slot);

    if (!sqe)
        return false;
    io_uring_prep_write(sqe, file->fd, block->bytes + block->written, block->len - block->written,
                        block->offset + block->written);
    file->writing = true;
    file->due = false;
    return true;
}

static bool sync_start(struct file *file)
{
    struct io_uring_sqe *sqe =
        slot_sqe(file->files, &file->files->open, RING_FILE_SYNC, file->slot);

    if (!sqe)
        return false;
    io_uring_prep_fsync(sqe, file->fd, IORING_FSYNC_DATASYNC);
    file->syncing = true;
    file->sync_covers = file->written_end;
    return true;
}

/* false: no SQE to be had. */
static bool file_step(struct file *file)
{
    const struct sync *sync = sync_first(file);

    if (!file->error && !file->writing && file->first) {
        if (!write_due(file))
            write_later(file);
        else if (!write_start(file))
            return false;
    }
    if (sync && !file->syncing && sync->upto <= file->written_end && !sync_start(file))
        return false;
    if (file->closing && file_idle(file))
        close_begin(file);
    return true;
}

static bool reads_step(struct files *files)
{
    struct list *link;

    while ((link = list_first(&files->reads_waiting))) {
        struct read *read = container_of(link, struct read, answer.link);
        struct io_uring_sqe *sqe = slot_sqe(files, &files->reading, RING_FILE_READ, read->slot);
        if (!sqe)
            return false;
        list_remove(link);
        size_t left = read->want - read->got;
        unsigned n = left < FILE_READ_MAX ? (unsigned)left : FILE_READ_MAX;
        io_uring_prep_read(sqe, read->file->fd, read->bytes + read->got, n,
                           read->offset + read->got);
    }
    return true;
}

void files_step(struct files *files)
{
    struct list now, *link;

    if (!reads_step(files))
        return;
    list_init(&now);
    list_take(&now, &files->work);
    while ((link = list_pop(&now))) {
        struct file *file = container_of(link, struct file, work);
        if (file_step(file))
            continue;
        file_to_work(file);
        list_take(&files->work, &now);
    }
}

size_t files_under_way(const struct files *files)
{
    return files->under_way;
}

int files_new(struct ring *ring, struct wheel *wheel, struct files **ret_files)
{
    struct files *files = memory_alloc(sizeof *files);

    if (!files)
        return -ENOMEM;
    files->ring = ring;
    files->wheel = wheel;
    list_init(&files->work);
    list_init(&files->later);
    list_init(&files->reads_waiting);
    list_init(&files->answers);
    ring_on(ring, RING_FILE_READ, read_completed, files);
    ring_on(ring, RING_FILE_WRITE, write_completed, files);
    ring_on(ring, RING_FILE_SYNC, sync_completed, files);
    *ret_files = files;
    return 0;
}

/* Files that nobody closed are closed here. */
void files_free(struct files *files)
{
    if (!files)
        return;
    const struct system *system = files->ring->system;
    wheel_disarm(files->wheel, &files->due);
    for (uint32_t i = 0; i < files->open.n; i++) {
        struct file *file = files->open.entries[i].object;
        if (!file)
            continue;
        system->close(system->kernel, file->fd);
        file_drop(file);
    }
    while (files->spare) {
        struct block *block = files->spare;
        files->spare = block->next;
        memory_free(block);
    }
    memory_free(files->open.entries);
    memory_free(files->reading.entries);
    memory_free(files);
}
