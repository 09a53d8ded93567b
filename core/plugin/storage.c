#include "plugin/host.h"

#include <errno.h>

#include "base/memory.h"
#include "ring/file.h"

/* Files of plugins: ring/file.c with the plugin's ctx in the callbacks. */

struct roda_file {
    struct file *file;
    struct context *context;
};

struct request { /* one callback on its way */
    struct context *context;
    union {
        roda_done_fn *done;
        roda_open_fn *open;
        roda_read_fn *read;
        roda_list_fn *list;
    };
    void *arg;
    struct roda_file *file; /* open */
};

static struct request *request_new(struct roda_ctx *x, void *arg)
{
    struct request *request = memory_alloc(sizeof *request);

    if (request) {
        request->context = context_of(x);
        request->arg = arg;
    }
    return request;
}

static int started(struct request *request, int r)
{
    if (r)
        memory_free(request);
    return r;
}

static struct request begin(void *arg)
{
    struct request request = *(struct request *)arg;

    memory_free(arg);
    bus_enter(request.context->bus, request.context->name, "file");
    return request;
}

static void on_open(void *arg, struct file *file, int result)
{
    struct request request = begin(arg);

    if (result < 0) {
        memory_free(request.file);
        request.file = NULL;
    } else {
        request.file->file = file;
    }
    request.open(&request.context->public, request.arg, request.file, result);
    bus_leave(request.context->bus);
}

static void on_done(void *arg, int result)
{
    struct request request = begin(arg);

    request.done(&request.context->public, request.arg, result);
    bus_leave(request.context->bus);
}

static void on_read(void *arg, const char *bytes, size_t len, int result)
{
    struct request request = begin(arg);

    request.read(&request.context->public, request.arg, (struct roda_str){bytes ? bytes : "", len},
                 result);
    bus_leave(request.context->bus);
}

static void on_list(void *arg, const char *const *names, size_t n, int result)
{
    struct request request = begin(arg);
    struct roda_str *list = memory_alloc(n * sizeof *list);

    if (!list) {
        n = 0;
        result = -ENOMEM;
    }
    for (size_t i = 0; i < n; i++)
        list[i] = (struct roda_str){names[i], __builtin_strlen(names[i])};
    request.list(&request.context->public, request.arg, list, n, result);
    bus_leave(request.context->bus);
    memory_free(list);
}

int roda_file_open(struct roda_ctx *x, const char *path, uint32_t mode, roda_open_fn *fn, void *arg)
{
    struct request *request = request_new(x, arg);
    struct roda_file *file = memory_alloc(sizeof *file);
    int r = -ENOMEM;

    if (request && file) {
        file->context = context_of(x);
        request->open = fn;
        request->file = file;
        r = file_open(context_of(x)->bus->files, path, mode, on_open, request);
    }
    if (r) {
        memory_free(file);
        memory_free(request);
    }
    return r;
}

uint64_t roda_file_size(const struct roda_file *file)
{
    return file_size(file->file);
}

int64_t roda_file_append(struct roda_file *file, struct roda_str bytes)
{
    return file_append(file->file, bytes.ptr, bytes.len);
}

int roda_file_sync(struct roda_file *file, roda_done_fn *fn, void *arg)
{
    struct request *request = request_new(&file->context->public, arg);

    if (!request)
        return -ENOMEM;
    request->done = fn;
    return started(request, file_sync(file->file, on_done, request));
}

int roda_file_read(struct roda_file *file, uint64_t offset, size_t len, roda_read_fn *fn, void *arg)
{
    struct request *request = request_new(&file->context->public, arg);

    if (!request)
        return -ENOMEM;
    request->read = fn;
    return started(request, file_read(file->file, offset, len, on_read, request));
}

int roda_file_truncate(struct roda_file *file, uint64_t size, roda_done_fn *fn, void *arg)
{
    struct request *request = request_new(&file->context->public, arg);

    if (!request)
        return -ENOMEM;
    request->done = fn;
    return started(request, file_truncate(file->file, size, on_done, request));
}

int roda_file_reserve(struct roda_file *file, uint64_t size, roda_done_fn *fn, void *arg)
{
    struct request *request = request_new(&file->context->public, arg);

    if (!request)
        return -ENOMEM;
    request->done = fn;
    return started(request, file_reserve(file->file, size, on_done, request));
}

void roda_file_close(struct roda_file *file)
{
    if (!file)
        return;
    file_close(file->file);
    memory_free(file);
}

int roda_file_rename(struct roda_ctx *x, const char *from, const char *to, roda_done_fn *fn,
                     void *arg)
{
    struct request *request = request_new(x, arg);

    if (!request)
        return -ENOMEM;
    request->done = fn;
    return started(request, file_rename(context_of(x)->bus->files, from, to, on_done, request));
}

int roda_file_remove(struct roda_ctx *x, const char *path, roda_done_fn *fn, void *arg)
{
    struct request *request = request_new(x, arg);

    if (!request)
        return -ENOMEM;
    request->done = fn;
    return started(request, file_remove(context_of(x)->bus->files, path, on_done, request));
}

int roda_file_list(struct roda_ctx *x, const char *directory, roda_list_fn *fn, void *arg)
{
    struct request *request = request_new(x, arg);

    if (!request)
        return -ENOMEM;
    request->list = fn;
    return started(request, file_list(context_of(x)->bus->files, directory, on_list, request));
}

int roda_directory_make(struct roda_ctx *x, const char *path, roda_done_fn *fn, void *arg)
{
    struct request *request = request_new(x, arg);

    if (!request)
        return -ENOMEM;
    request->done = fn;
    return started(request, file_make_directory(context_of(x)->bus->files, path, on_done, request));
}
