#include "inside.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

/*
 * A disk in memory. Every request is answered in a later turn, in the order of the requests of
 * its worker. What is appended is seen by reads of the same handle at once, and by others when it
 * is "written": at the end of the turn, or if writes are held, with a sync or when they no longer
 * are. What was synced survives testhost_power_cut().
 */

#define WAITING_BYTES_MAX (1u << 20)

struct roda_file {
    struct link link; /* in worker.files */
    struct context *context;
    struct disk_file *disk;
    uint32_t mode;
    size_t written; /* of the disk's bytes: the rest waits for the end of the turn */
    int error;
    uint32_t requests, calls; /* calls: one of its callbacks runs */
    bool cutting;             /* until it is known where it ends */
    bool closed;
};

static struct disk_file *disk_find(const struct testhost *h, const char *path)
{
    for (struct disk_file *d = h->disk; d; d = d->next)
        if (!d->removed && !strcmp(d->path, path))
            return d;
    return NULL;
}

static struct disk_file *disk_make(struct testhost *h, const char *path)
{
    struct disk_file *d = get(sizeof *d);

    d->path = copy_text((struct roda_str){path, strlen(path)});
    bytes_put(&d->bytes, "", 0);
    d->next = h->disk;
    return h->disk = d;
}

static void file_drop(struct roda_file *f)
{
    if (!f->closed || f->requests || f->calls)
        return;
    list_remove(&f->link);
    f->disk->opened--;
    if (f->mode & RODA_FILE_APPEND) {
        f->disk->appended = false;
        if (!f->context->instance->host->hold_writes)
            f->disk->written = f->disk->bytes.len;
    }
    free(f);
}

enum request_kind { OPEN, SYNC, READ, TRUNCATE, RESERVE, RENAME, REMOVE, DIRECTORY, LIST };
struct request {
    struct job job;
    enum request_kind kind;
    struct roda_file *file;
    char *path, *to;
    uint32_t mode;
    uint64_t offset;
    size_t len;
    void *arg;
    union {
        roda_open_fn *open;
        roda_read_fn *read;
        roda_list_fn *list;
        roda_done_fn *done;
    } fn;
};

static void run_open(struct request *r, int result)
{
    struct context *context = r->job.context;
    struct testhost *h = context->instance->host;
    struct disk_file *d = disk_find(h, r->path);
    struct roda_file *f = NULL;

    if (!result && !d && !(r->mode & RODA_FILE_APPEND))
        result = -ENOENT;
    if (!result && d && d->appended && r->mode & RODA_FILE_LOCK)
        result = -EBUSY;
    if (!result && d && d->appended && r->mode & RODA_FILE_APPEND) {
        complain(h, "%s is opened twice for appending", r->path);
        result = -EBUSY;
    }
    if (!result) {
        f = get(sizeof *f);
        f->context = context;
        f->disk = d ? d : disk_make(h, r->path);
        f->mode = r->mode;
        f->written = f->disk->bytes.len;
        f->disk->opened++;
        f->disk->appended |= (r->mode & RODA_FILE_APPEND) != 0;
        list_append(&context->worker->files, &f->link);
    }
    r->fn.open(&context->x, r->arg, f, result);
}

static void run_read(struct request *r, int result)
{
    const struct bytes *b = &r->file->disk->bytes;
    size_t end = r->file->mode & RODA_FILE_APPEND ? b->len : r->file->disk->written;
    size_t start = r->offset < end ? (size_t)r->offset : end;
    size_t len = r->len < end - start ? r->len : end - start;
    /* A copy of exactly that size, so that reading beyond it is found out. */
    char *copy = result < 0 ? NULL : get(len);

    if (copy && len)
        memcpy(copy, b->data + start, len);
    r->fn.read(&r->job.context->x, r->arg, (struct roda_str){copy ? copy : "", copy ? len : 0},
               result);
    free(copy);
}

static void run_sync(struct request *r, int result)
{
    struct roda_file *f = r->file;

    files_write(f->context->worker); /* a sync comes after the writes that it is to cover */
    if (!result && f->error)
        result = f->error;
    if (!result && f->disk->synced < r->offset)
        f->disk->synced = (size_t)r->offset;
    r->fn.done(&r->job.context->x, r->arg, result);
}

static void run_truncate(struct request *r, int result)
{
    struct roda_file *f = r->file;

    f->cutting = false;
    if (!result)
        result = r->job.context->instance->host->write_error;
    if (result) {
        f->error = result;
    } else {
        f->disk->bytes.len = f->written = f->disk->synced = (size_t)r->offset;
        f->disk->written = f->written;
        f->disk->bytes.data[f->written] = '\0';
    }
    r->fn.done(&r->job.context->x, r->arg, result);
}

static void run_reserve(struct request *r, int result)
{
    if (!result)
        result = r->job.context->instance->host->write_error;
    if (!result && r->file->disk->reserved < r->offset)
        r->file->disk->reserved = r->offset;
    r->fn.done(&r->job.context->x, r->arg, result);
}

static int rename_file(struct testhost *h, const char *from, const char *to)
{
    struct disk_file *d = disk_find(h, from), *old = disk_find(h, to);

    if (!d)
        return -ENOENT;
    if (old && old != d)
        old->removed = true;
    free(d->path);
    d->path = copy_text((struct roda_str){to, strlen(to)});
    return 0;
}

static int remove_file(struct testhost *h, const char *path)
{
    struct disk_file *d = disk_find(h, path);

    if (*h->keep_path && !strncmp(path, h->keep_path, strlen(h->keep_path)))
        return -EPERM;
    if (!d)
        return -ENOENT;
    d->removed = true;
    return 0;
}

static int by_text(const void *a, const void *b)
{
    const struct roda_str *x = a, *y = b;

    return strcmp(x->ptr, y->ptr);
}

/* A folder is there once, however many files it has. */
static size_t without_doubles(struct roda_str *names, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        if (kept && !strcmp(names[kept - 1].ptr, names[i].ptr))
            free((char *)(uintptr_t)names[i].ptr);
        else
            names[kept++] = names[i];
    }
    return kept;
}

static void run_list(struct request *r, int result)
{
    struct testhost *h = r->job.context->instance->host;
    size_t length = strlen(r->path), n = 0, room = 0;
    struct roda_str *names = NULL;

    while (length && r->path[length - 1] == '/')
        length--;
    for (struct disk_file *d = h->disk; d && !result; d = d->next) {
        const char *rest = d->path + length + 1;
        if (d->removed || strncmp(d->path, r->path, length) || d->path[length] != '/' || !*rest)
            continue;
        struct roda_str name = {copy_text((struct roda_str){rest, strcspn(rest, "/")}),
                                strcspn(rest, "/")};
        names = grown(names, n, &room, sizeof *names);
        names[n++] = name;
    }
    if (n)
        qsort(names, n, sizeof *names, by_text);
    n = without_doubles(names, n);
    r->fn.list(&r->job.context->x, r->arg, names, n, result);
    for (size_t i = 0; i < n; i++)
        free((char *)(uintptr_t)names[i].ptr);
    free(names);
}

static void request_run(struct job *job, int result)
{
    struct request *r = container_of(job, struct request, job);
    struct context *context = job->context;
    struct testhost *h = context->instance->host;
    struct hook_before before = hook_enter(h, context->instance, "file request");

    if (r->file) { /* is not under way any more in its callback */
        r->file->requests--;
        r->file->calls++;
    }
    switch (r->kind) {
    case OPEN:
        run_open(r, result);
        break;
    case SYNC:
        run_sync(r, result);
        break;
    case READ:
        run_read(r, result);
        break;
    case LIST:
        run_list(r, result);
        break;
    case TRUNCATE:
        run_truncate(r, result);
        break;
    case RESERVE:
        run_reserve(r, result);
        break;
    case DIRECTORY: /* they are where files are */
        r->fn.done(&context->x, r->arg, result ? result : h->write_error);
        break;
    default:
        if (!result)
            result = r->kind == RENAME ? rename_file(h, r->path, r->to) : remove_file(h, r->path);
        r->fn.done(&context->x, r->arg, result);
    }
    hook_leave(h, before);
    if (r->file) {
        r->file->calls--;
        file_drop(r->file);
    }
    free(r->path);
    free(r->to);
    free(r);
}

static struct request *request_new(struct roda_ctx *x, enum request_kind kind, const char *path,
                                   void *arg)
{
    struct request *r = may_get(host_of(x), sizeof *r);

    (void)worker_of(x);
    if (!r)
        return NULL;
    r->job.run = request_run;
    r->job.is_file = true;
    r->kind = kind;
    r->path = path ? copy_text((struct roda_str){path, strlen(path)}) : NULL;
    r->arg = arg;
    job_add(context_of(x), &r->job);
    return r;
}

int roda_file_open(struct roda_ctx *x, const char *path, uint32_t mode, roda_open_fn *fn, void *arg)
{
    struct request *r;

    if (!mode || mode & ~(uint32_t)(RODA_FILE_READ | RODA_FILE_APPEND | RODA_FILE_LOCK))
        return -EINVAL;
    if (!(r = request_new(x, OPEN, path, arg)))
        return -ENOMEM;
    r->mode = mode;
    r->fn.open = fn;
    return 0;
}

uint64_t roda_file_size(const struct roda_file *file)
{
    return file->disk->bytes.len;
}

int64_t roda_file_append(struct roda_file *file, struct roda_str bytes)
{
    struct bytes *b = &file->disk->bytes;
    int64_t offset = (int64_t)b->len;

    if (!(file->mode & RODA_FILE_APPEND))
        return -EBADF;
    if (file->error)
        return file->error;
    if (file->cutting)
        return -EBUSY;
    if (bytes.len > WAITING_BYTES_MAX)
        return -EMSGSIZE;
    if (b->len - file->written + bytes.len > WAITING_BYTES_MAX)
        return -ENOBUFS;
    bytes_put(b, bytes.ptr, bytes.len);
    return offset;
}

/* At the end of a turn: what was appended is written, or fails. */
void files_write(struct worker *w)
{
    for (struct link *l = w->files.next; l != &w->files; l = l->next) {
        struct roda_file *f = container_of(l, struct roda_file, link);
        if (!(f->mode & RODA_FILE_APPEND) || f->written == f->disk->bytes.len)
            continue;
        w->host->progress++;
        if (w->host->write_error && !f->error) {
            f->error = w->host->write_error;
            f->disk->bytes.len = f->written;
        }
        f->written = f->disk->written = f->disk->bytes.len;
    }
}

int roda_file_sync(struct roda_file *file, roda_done_fn *fn, void *arg)
{
    struct request *r;

    if (!(file->mode & RODA_FILE_APPEND))
        return -EBADF;
    if (file->error)
        return file->error;
    if (file->cutting)
        return -EBUSY;
    if (!(r = request_new(&file->context->x, SYNC, NULL, arg)))
        return -ENOMEM;
    r->file = file;
    r->offset = file->disk->bytes.len;
    r->fn.done = fn;
    file->requests++;
    return 0;
}

int roda_file_truncate(struct roda_file *file, uint64_t size, roda_done_fn *fn, void *arg)
{
    struct request *r;

    if (!(file->mode & RODA_FILE_APPEND))
        return -EBADF;
    if (size > file->disk->bytes.len)
        return -EINVAL;
    if (file->requests || file->written != file->disk->bytes.len)
        return -EBUSY;
    if (file->error)
        return file->error;
    if (!(r = request_new(&file->context->x, TRUNCATE, NULL, arg)))
        return -ENOMEM;
    file->cutting = true;
    r->file = file;
    r->offset = size;
    r->fn.done = fn;
    file->requests++;
    return 0;
}

int roda_file_reserve(struct roda_file *file, uint64_t size, roda_done_fn *fn, void *arg)
{
    struct request *r;

    if (!(file->mode & RODA_FILE_APPEND))
        return -EBADF;
    if (file->error)
        return file->error;
    if (!(r = request_new(&file->context->x, RESERVE, NULL, arg)))
        return -ENOMEM;
    r->file = file;
    r->offset = size;
    r->fn.done = fn;
    file->requests++;
    return 0;
}

int roda_file_read(struct roda_file *file, uint64_t offset, size_t len, roda_read_fn *fn, void *arg)
{
    struct request *r;

    if (!(file->mode & RODA_FILE_READ))
        return -EBADF;
    if (!(r = request_new(&file->context->x, READ, NULL, arg)))
        return -ENOMEM;
    r->file = file;
    r->offset = offset;
    r->len = len;
    r->fn.read = fn;
    file->requests++;
    return 0;
}

void roda_file_close(struct roda_file *file)
{
    if (!file)
        return;
    file->closed = true;
    file_drop(file);
}

int roda_file_rename(struct roda_ctx *x, const char *from, const char *to, roda_done_fn *fn,
                     void *arg)
{
    struct request *r = request_new(x, RENAME, from, arg);

    if (!r)
        return -ENOMEM;
    r->to = copy_text((struct roda_str){to, strlen(to)});
    r->fn.done = fn;
    return 0;
}

int roda_file_remove(struct roda_ctx *x, const char *path, roda_done_fn *fn, void *arg)
{
    struct request *r = request_new(x, REMOVE, path, arg);

    if (!r)
        return -ENOMEM;
    r->fn.done = fn;
    return 0;
}

int roda_directory_make(struct roda_ctx *x, const char *path, roda_done_fn *fn, void *arg)
{
    struct request *r = request_new(x, DIRECTORY, path, arg);

    if (!r)
        return -ENOMEM;
    r->fn.done = fn;
    return 0;
}

int roda_file_list(struct roda_ctx *x, const char *directory, roda_list_fn *fn, void *arg)
{
    struct request *r = request_new(x, LIST, directory, arg);

    if (!r)
        return -ENOMEM;
    r->fn.list = fn;
    return 0;
}

/* ---- the test's view -------------------------------------------------------------------- */

void testhost_file_put(struct testhost *h, const char *path, const void *bytes, size_t len)
{
    struct disk_file *d = disk_find(h, path);

    if (!d)
        d = disk_make(h, path);
    bytes_clear(&d->bytes);
    bytes_put(&d->bytes, bytes, len);
    d->synced = d->written = len;
}

const char *testhost_file_get(struct testhost *h, const char *path, size_t *ret_len)
{
    struct disk_file *d = disk_find(h, path);

    if (d && ret_len)
        *ret_len = d->bytes.len;
    return d ? d->bytes.data : NULL;
}

uint64_t testhost_file_reserved(struct testhost *h, const char *path)
{
    const struct disk_file *d = disk_find(h, path);

    return d ? d->reserved : 0;
}

void testhost_hold_files(struct testhost *h, bool on)
{
    h->hold_files = on;
}

void testhost_keep_path(struct testhost *h, const char *prefix)
{
    (void)snprintf(h->keep_path, sizeof h->keep_path, "%s", prefix);
}

void testhost_hold_path(struct testhost *h, const char *prefix)
{
    (void)snprintf(h->hold_path, sizeof h->hold_path, "%s", prefix);
}

bool file_is_held(const struct testhost *h, struct job *job)
{
    const struct request *r = container_of(job, struct request, job);
    const char *path = r->file ? r->file->disk->path : r->path;

    return h->hold_files ||
           (*h->hold_path && path && !strncmp(path, h->hold_path, strlen(h->hold_path)));
}

void testhost_hold_writes(struct testhost *h, bool on)
{
    h->hold_writes = on;
    for (struct disk_file *d = h->disk; d && !on; d = d->next)
        if (!d->appended) /* what was closed meanwhile */
            d->written = d->bytes.len;
}

void testhost_fail_writes(struct testhost *h, int error)
{
    h->write_error = error;
}

void testhost_power_cut(struct testhost *h)
{
    for (struct disk_file *d = h->disk; d; d = d->next) {
        if (d->opened)
            complain(h, "power cut with %s open", d->path);
        if (d->synced < d->bytes.len)
            d->bytes.len = d->written = d->synced;
        d->bytes.data[d->bytes.len] = '\0';
    }
}

void files_free(struct testhost *h)
{
    while (h->disk) {
        struct disk_file *d = h->disk;
        h->disk = d->next;
        bytes_clear(&d->bytes);
        free(d->path);
        free(d);
    }
    for (uint32_t i = 0; i < h->n_workers; i++)
        while (!list_empty(&h->workers[i].files)) {
            struct link *l = list_first(&h->workers[i].files);
            list_remove(l);
            free(container_of(l, struct roda_file, link));
        }
}
