#include "ring/system.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <liburing.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "ring/ring.h"

/*
 * The real kernel behind struct system.
 *
 * Rings. liburing sets up and maps; entering and registering go through the bare calls that it
 * exports, since we need events with every enter and 2.3 declares some helpers that it does not
 * export. A ring is made disabled by any thread and enabled by its worker, which so becomes the
 * only thread that may enter. Flags that change the layout of the rings (NO_SQARRAY and its kind)
 * are liburing's to choose, never ours: a version that does not know one would map it wrongly.
 * An index array, where there is one, is filled once so that entry i is always SQE i.
 *
 * The ring's own descriptor is registered with the enabling thread, which saves a reference per
 * enter; it is an optimisation and may fail in silence. Restrictions are none: a kernel that
 * cannot apply them ends the start.
 *
 * The pool is process-wide, as threads are: a bounded queue under one mutex. Nothing on the
 * message path comes here. Its threads take no signals.
 */

#ifndef IORING_ENTER_NO_IOWAIT
#define IORING_ENTER_NO_IOWAIT (1U << 7)
#endif
#ifndef IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT (1U << 17)
#endif
#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif

#define SETUP_FLAGS                                                                                \
    (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |         \
     IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE |                   \
     IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED)

/* Kernel threads for what blocks (fsync, some file writes), per ring. */
#define BLOCKING_BOUNDED_MAX   2u
#define BLOCKING_UNBOUNDED_MAX 4u

#define SETUP_ATTEMPTS 20u
#define SETUP_PAUSE_NS 10000000u

struct real_ring {
    struct io_uring uring;
    unsigned enter_fd, enter_flags;
};

/* ---- rings ------------------------------------------------------------------------------ */

static uint64_t real_monotonic_ns(void *kernel);
static void real_pause(void *kernel, uint64_t until_ns);

/* The kernel takes a closed ring apart in the background. Until then its memory counts against
 * RLIMIT_MEMLOCK, so the ring that follows one (the preflight's) may have to wait a moment. */
static int queue_init(struct io_uring *uring, unsigned sq_entries, unsigned cq_entries,
                      struct io_uring_params *ret_params)
{
    for (unsigned attempt = 1;; attempt++) {
        struct io_uring_params params = {.flags = SETUP_FLAGS, .cq_entries = cq_entries};
        int result = io_uring_queue_init_params(sq_entries, uring, &params);
        if (result == -ENOMEM && attempt < SETUP_ATTEMPTS) {
            real_pause(NULL, real_monotonic_ns(NULL) + SETUP_PAUSE_NS);
            continue;
        }
        *ret_params = params;
        return result;
    }
}

static int real_ring_setup(void *kernel, struct ring *r, unsigned sq_entries, unsigned cq_entries)
{
    (void)kernel;
    struct real_ring *real = memory_alloc(sizeof *real);
    if (!real)
        return -ENOMEM;
    struct io_uring_params params;
    int result = queue_init(&real->uring, sq_entries, cq_entries, &params);
    if (result < 0) {
        memory_free(real);
        return result;
    }
    struct io_uring *uring = &real->uring;
    (void)io_uring_ring_dontfork(uring); /* a convenience for children that never use it */
    if (uring->sq.array && !(uring->flags & IORING_SETUP_NO_SQARRAY))
        for (unsigned i = 0; i < params.sq_entries; i++)
            uring->sq.array[i] = i;

    real->enter_fd = (unsigned)uring->ring_fd;
    real->enter_flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    if (params.features & IORING_FEAT_NO_IOWAIT)
        real->enter_flags |= IORING_ENTER_NO_IOWAIT;

    r->sq_head = uring->sq.khead;
    r->sq_tail = uring->sq.ktail;
    r->sq_flags = uring->sq.kflags;
    r->cq_head = uring->cq.khead;
    r->cq_tail = uring->cq.ktail;
    r->sqes = uring->sq.sqes;
    r->cqes = uring->cq.cqes;
    r->sq_entries = params.sq_entries;
    r->cq_entries = params.cq_entries;
    r->features = params.features;
    r->fd = uring->ring_fd;
    r->backend = real;
    return 0;
}

static int restrict_ring(unsigned fd)
{
    static const uint8_t operations[] = {
        IORING_OP_ACCEPT,  IORING_OP_RECV,    IORING_OP_SEND,
        IORING_OP_SENDMSG, IORING_OP_RECVMSG, IORING_OP_ASYNC_CANCEL,
        IORING_OP_READ,    IORING_OP_WRITE,   IORING_OP_FSYNC,
    };
    static const uint8_t registrations[] = {
        IORING_REGISTER_PBUF_RING, IORING_UNREGISTER_PBUF_RING, IORING_REGISTER_IOWQ_MAX_WORKERS,
        IORING_REGISTER_RING_FDS,  IORING_UNREGISTER_RING_FDS,  IORING_REGISTER_ENABLE_RINGS,
    };
    struct io_uring_restriction rules[sizeof operations + sizeof registrations + 1] = {0};
    unsigned n = 0;

    for (size_t i = 0; i < sizeof operations; i++, n++) {
        rules[n].opcode = IORING_RESTRICTION_SQE_OP;
        rules[n].sqe_op = operations[i];
    }
    for (size_t i = 0; i < sizeof registrations; i++, n++) {
        rules[n].opcode = IORING_RESTRICTION_REGISTER_OP;
        rules[n].register_op = registrations[i];
    }
    rules[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    rules[n].sqe_flags = IOSQE_BUFFER_SELECT | IOSQE_CQE_SKIP_SUCCESS;
    n++;
    return io_uring_register(fd, IORING_REGISTER_RESTRICTIONS, rules, n);
}

static int real_ring_enable(void *kernel, struct ring *r)
{
    (void)kernel;
    struct real_ring *real = r->backend;
    unsigned fd = (unsigned)r->fd;
    unsigned limits[2] = {BLOCKING_BOUNDED_MAX, BLOCKING_UNBOUNDED_MAX};

    int result = restrict_ring(fd);
    if (result < 0)
        return result;
    result = io_uring_register(fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (result < 0)
        return result;
    result = io_uring_register(fd, IORING_REGISTER_IOWQ_MAX_WORKERS, limits, 2);
    if (result < 0)
        return result;
    if (io_uring_register_ring_fd(&real->uring) == 1) {
        real->enter_fd = (unsigned)real->uring.enter_ring_fd;
        real->enter_flags |= IORING_ENTER_REGISTERED_RING;
    }
    return 0;
}

static void real_ring_teardown(void *kernel, struct ring *r)
{
    (void)kernel;
    struct real_ring *real = r->backend;

    if (!real)
        return;
    io_uring_queue_exit(&real->uring);
    memory_free(real);
    r->backend = NULL;
}

static int real_ring_enter(void *kernel, struct ring *r, unsigned to_submit, unsigned wait,
                           uint64_t timeout_ns)
{
    (void)kernel;
    const struct real_ring *real = r->backend;
    struct __kernel_timespec timeout = {
        .tv_sec = (long long)(timeout_ns / 1000000000u),
        .tv_nsec = (long long)(timeout_ns % 1000000000u),
    };
    struct io_uring_getevents_arg arg = {.sigmask_sz = _NSIG / 8};

    if (wait && timeout_ns != UINT64_MAX)
        arg.ts = (uint64_t)(uintptr_t)&timeout;
    return io_uring_enter2(real->enter_fd, to_submit, wait, real->enter_flags,
                           (sigset_t *)(void *)&arg, sizeof arg);
}

static int real_ring_register(void *kernel, struct ring *r, unsigned op, void *arg, unsigned n)
{
    (void)kernel;
    return io_uring_register((unsigned)r->fd, op, arg, n);
}

/* ---- sockets ---------------------------------------------------------------------------- */

static int or_errno(int result)
{
    return result < 0 ? -errno : result;
}

static int real_socket(void *kernel, int family, int type, int protocol)
{
    (void)kernel;
    return or_errno(socket(family, type | SOCK_CLOEXEC, protocol));
}

static int real_bind(void *kernel, int fd, const struct sockaddr *addr, socklen_t len)
{
    (void)kernel;
    return or_errno(bind(fd, addr, len));
}

static int real_listen(void *kernel, int fd, int backlog)
{
    (void)kernel;
    return or_errno(listen(fd, backlog));
}

static int real_setsockopt(void *kernel, int fd, int level, int name, const void *value,
                           socklen_t len)
{
    (void)kernel;
    return or_errno(setsockopt(fd, level, name, value, len));
}

static int real_getsockopt(void *kernel, int fd, int level, int name, void *value, socklen_t *len)
{
    (void)kernel;
    return or_errno(getsockopt(fd, level, name, value, len));
}

static int real_getsockname(void *kernel, int fd, struct sockaddr *addr, socklen_t *len)
{
    (void)kernel;
    return or_errno(getsockname(fd, addr, len));
}

static int real_untaken(void *kernel, int fd)
{
    int bytes = 0, r = ioctl(fd, SIOCOUTQ, &bytes);

    (void)kernel;
    return r < 0 ? -errno : bytes;
}

static int real_getpeername(void *kernel, int fd, struct sockaddr *addr, socklen_t *len)
{
    (void)kernel;
    return or_errno(getpeername(fd, addr, len));
}

static int real_connect(void *kernel, int fd, const struct sockaddr *addr, socklen_t len)
{
    (void)kernel;
    return or_errno(connect(fd, addr, len));
}

static int real_shutdown(void *kernel, int fd, int how)
{
    (void)kernel;
    return or_errno(shutdown(fd, how));
}

/* Linux frees the descriptor even when it reports EINTR. */
static int real_close(void *kernel, int fd)
{
    (void)kernel;
    int result = or_errno(close(fd));
    return result == -EINTR ? 0 : result;
}

/* ---- wake-ups --------------------------------------------------------------------------- */

/* Blocking, so that a READ of it on the ring waits instead of ending with EAGAIN. */
static int real_eventfd(void *kernel)
{
    (void)kernel;
    return or_errno(eventfd(0, EFD_CLOEXEC));
}

static void real_eventfd_wake(void *kernel, int fd)
{
    (void)kernel;
    uint64_t one = 1;
    ssize_t written;

    do
        written = write(fd, &one, sizeof one);
    while (written < 0 && errno == EINTR);
}

/* ---- files ------------------------------------------------------------------------------ */

static int real_open(void *kernel, const char *path, int flags, unsigned mode)
{
    (void)kernel;
    int fd;

    do
        fd = or_errno(open(path, flags | O_CLOEXEC, (mode_t)mode));
    while (fd == -EINTR);
    return fd;
}

static int real_file_size(void *kernel, int fd, uint64_t *ret_size)
{
    (void)kernel;
    struct stat status;

    if (fstat(fd, &status) < 0)
        return -errno;
    *ret_size = (uint64_t)status.st_size;
    return 0;
}

/* Where the file system knows no locks there are none. */
static int real_lock(void *kernel, int fd)
{
    (void)kernel;
    int result = or_errno(flock(fd, LOCK_EX | LOCK_NB));

    if (result == -EWOULDBLOCK)
        return -EBUSY;
    return result == -EBADF ? result : 0;
}

static int real_sync_directory(void *kernel, const char *path)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;

    if (len >= sizeof directory)
        return -ENAMETOOLONG;
    if (len) {
        memcpy(directory, path, len);
        directory[len] = '\0';
    } else {
        (void)snprintf(directory, sizeof directory, "%s", slash ? "/" : ".");
    }
    int fd = real_open(kernel, directory, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    int result = or_errno(fsync(fd));
    real_close(kernel, fd);
    return result;
}

static int real_truncate(void *kernel, int fd, uint64_t size)
{
    (void)kernel;
    int result;

    if (size > INT64_MAX)
        return -EFBIG;
    do
        result = or_errno(ftruncate(fd, (off_t)size));
    while (result == -EINTR);
    return result < 0 ? result : or_errno(fsync(fd));
}

static int real_reserve(void *kernel, int fd, uint64_t size)
{
    (void)kernel;
    int result;

    if (size > INT64_MAX)
        return -EFBIG;
    do
        result = or_errno(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)size));
    while (result == -EINTR);
    return result == -ENOSYS ? -EOPNOTSUPP : result;
}

static int real_make_directory(void *kernel, const char *path, unsigned mode)
{
    struct stat status;

    (void)kernel;
    int result = or_errno(mkdir(path, (mode_t)mode));
    if (result != -EEXIST)
        return result;
    result = or_errno(stat(path, &status));
    return result < 0 ? result : S_ISDIR(status.st_mode) ? 0 : -ENOTDIR;
}

static int real_rename(void *kernel, const char *from, const char *to)
{
    (void)kernel;
    return or_errno(rename(from, to));
}

static int real_unlink(void *kernel, const char *path)
{
    (void)kernel;
    return or_errno(unlink(path));
}

static int real_chmod(void *kernel, const char *path, unsigned mode)
{
    (void)kernel;
    return or_errno(chmod(path, (mode_t)mode));
}

struct names {
    char **list;
    size_t n, capacity;
};

static int names_add(struct names *names, const char *name)
{
    if (names->n == names->capacity) {
        size_t capacity = names->capacity ? names->capacity * 2 : 64;
        char **list = memory_realloc(names->list, capacity * sizeof *list);
        if (!list)
            return -ENOMEM;
        names->list = list;
        names->capacity = capacity;
    }
    char *copy = memory_copy(name, strlen(name));
    if (!copy)
        return -ENOMEM;
    names->list[names->n++] = copy;
    return 0;
}

static int names_read(struct names *names, DIR *directory)
{
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(directory);
        if (!entry)
            return -errno;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        int result = names_add(names, entry->d_name);
        if (result < 0)
            return result;
    }
}

static int names_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int real_list(void *kernel, const char *path, void (*fn)(void *arg, const char *name),
                     void *arg)
{
    (void)kernel;
    struct names names = {0};
    DIR *directory = opendir(path);

    if (!directory)
        return -errno;
    int result = names_read(&names, directory);
    closedir(directory);
    if (names.n)
        qsort(names.list, names.n, sizeof *names.list, names_compare);
    for (size_t i = 0; i < names.n; i++) {
        if (result >= 0)
            fn(arg, names.list[i]);
        memory_free(names.list[i]);
    }
    memory_free(names.list);
    return result;
}

/* A symbolic link is no socket: whoever asks is about to remove the path. */
static int real_is_socket(void *kernel, const char *path)
{
    (void)kernel;
    struct stat status;

    if (lstat(path, &status) < 0)
        return -errno;
    return S_ISSOCK(status.st_mode) ? 0 : -ENOTSOCK;
}

/* ---- time and chance -------------------------------------------------------------------- */

static void real_pause(void *kernel, uint64_t until_ns)
{
    (void)kernel;
    struct timespec until = {
        .tv_sec = (time_t)(until_ns / 1000000000u),
        .tv_nsec = (long)(until_ns % 1000000000u),
    };

    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static uint64_t real_monotonic_ns(void *kernel)
{
    (void)kernel;
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int64_t real_realtime_ns(void *kernel)
{
    (void)kernel;
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Keys are made of this, so there is no weaker substitute: without it the process ends. */
static void real_random(void *kernel, void *buf, size_t size)
{
    (void)kernel;
    char *at = buf;

    while (size) {
        ssize_t got = getrandom(at, size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            log_write(RODA_LOG_ERROR, "ring", "getrandom: %s: allow this system call",
                      strerror(errno));
            abort();
        }
        at += got;
        size -= (size_t)got;
    }
}

/* ---- the pool --------------------------------------------------------------------------- */

#define POOL_JOBS_MAX    256u
#define POOL_STACK_BYTES (512u << 10)

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t more;
    struct system_job *first, **last;
    unsigned waiting, threads;
    bool running;
    pthread_t *ids;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

static struct system_job *pool_take(void)
{
    struct system_job *job;

    pthread_mutex_lock(&pool.mutex);
    while (!pool.first && pool.running)
        pthread_cond_wait(&pool.more, &pool.mutex);
    job = pool.first;
    if (job) {
        pool.first = job->next;
        if (!pool.first)
            pool.last = &pool.first;
        pool.waiting--;
    }
    pthread_mutex_unlock(&pool.mutex);
    return job;
}

static void *pool_run(void *arg)
{
    struct system_job *job;

    (void)arg;
    while ((job = pool_take())) {
        job->work(job);
        job->finished(job);
    }
    return NULL;
}

static int pool_thread_start(pthread_t *ret_id)
{
    pthread_attr_t attributes;
    sigset_t all, before;

    int error = pthread_attr_init(&attributes);
    if (error)
        return -error;
    (void)pthread_attr_setstacksize(&attributes, POOL_STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(ret_id, &attributes, pool_run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error)
        return -error;
    (void)pthread_setname_np(*ret_id, "roda-pool");
    return 0;
}

int system_pool_start(unsigned threads)
{
    pool.ids = memory_alloc(threads * sizeof *pool.ids);
    if (!pool.ids)
        return -ENOMEM;
    pthread_mutex_lock(&pool.mutex);
    pool.running = true;
    pool.last = &pool.first;
    pthread_mutex_unlock(&pool.mutex);
    for (pool.threads = 0; pool.threads < threads; pool.threads++) {
        int result = pool_thread_start(&pool.ids[pool.threads]);
        if (result < 0) {
            system_pool_stop();
            return result;
        }
    }
    return 0;
}

void system_pool_stop(void)
{
    pthread_mutex_lock(&pool.mutex);
    pool.running = false;
    pthread_cond_broadcast(&pool.more);
    pthread_mutex_unlock(&pool.mutex);
    for (unsigned i = 0; i < pool.threads; i++)
        pthread_join(pool.ids[i], NULL);
    memory_free(pool.ids);
    pool.ids = NULL;
    pool.threads = 0;
}

static int real_pool_submit(void *kernel, struct system_job *job)
{
    (void)kernel;
    int result = 0;

    job->next = NULL;
    pthread_mutex_lock(&pool.mutex);
    if (!pool.running) {
        result = -ESHUTDOWN;
    } else if (pool.waiting >= POOL_JOBS_MAX) {
        result = -EAGAIN;
    } else {
        *pool.last = job;
        pool.last = &job->next;
        pool.waiting++;
        pthread_cond_signal(&pool.more);
    }
    pthread_mutex_unlock(&pool.mutex);
    return result;
}

const struct system *system_real(void)
{
    static const struct system real = {
        .ring_setup = real_ring_setup,
        .ring_enable = real_ring_enable,
        .ring_teardown = real_ring_teardown,
        .ring_enter = real_ring_enter,
        .ring_register = real_ring_register,
        .socket = real_socket,
        .bind = real_bind,
        .listen = real_listen,
        .setsockopt = real_setsockopt,
        .getsockopt = real_getsockopt,
        .getsockname = real_getsockname,
        .getpeername = real_getpeername,
        .untaken = real_untaken,
        .connect = real_connect,
        .shutdown = real_shutdown,
        .close = real_close,
        .eventfd = real_eventfd,
        .eventfd_wake = real_eventfd_wake,
        .open = real_open,
        .file_size = real_file_size,
        .lock = real_lock,
        .sync_directory = real_sync_directory,
        .truncate = real_truncate,
        .reserve = real_reserve,
        .rename = real_rename,
        .make_directory = real_make_directory,
        .unlink = real_unlink,
        .chmod = real_chmod,
        .list = real_list,
        .is_socket = real_is_socket,
        .pause = real_pause,
        .monotonic_ns = real_monotonic_ns,
        .realtime_ns = real_realtime_ns,
        .random = real_random,
        .pool_submit = real_pool_submit,
    };
    return &real;
}
