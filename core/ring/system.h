#ifndef RODA_RING_SYSTEM_H
#define RODA_RING_SYSTEM_H
/*
 * The seam: everything that is not deterministic (kernel, clock, randomness, files, threads) is
 * reached through one struct of functions. system_real() is the kernel; tests/sim puts a fake
 * one here. No other file of core or plugins makes a system call.
 *
 * Every function takes the kernel pointer of the struct first. int results: 0 or more, or a
 * negative errno; none of them uses errno for its result.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct ring;
struct system_job;

/* One piece of blocking work for a thread of the pool (system->pool_submit). */
struct system_job {
    struct system_job *next;
    void (*work)(struct system_job *job);     /* on a thread of the pool */
    void (*finished)(struct system_job *job); /* right after, same thread; hands the job back */
};

struct system_entry { /* what list() reports */
    const char *name;
};

struct system {
    void *kernel;

    /* Rings. setup fills the memory pointers, fd and features of r; it may be called by a thread
     * that does not run the ring; enable is called by the one that does (R_DISABLED), and
     * applies the restrictions first. */
    int (*ring_setup)(void *kernel, struct ring *r, unsigned sq_entries, unsigned cq_entries);
    int (*ring_enable)(void *kernel, struct ring *r);
    void (*ring_teardown)(void *kernel, struct ring *r);
    /* Always GETEVENTS | EXT_ARG. wait is 0 or 1. timeout_ns: UINT64_MAX is none. Returns how
     * many SQEs the kernel took, or -errno (-ETIME and -EINTR are normal and may hide a count:
     * the caller reads the SQ head). */
    int (*ring_enter)(void *kernel, struct ring *r, unsigned to_submit, unsigned wait,
                      uint64_t timeout_ns);
    int (*ring_register)(void *kernel, struct ring *r, unsigned op, void *arg, unsigned n);

    /* Sockets. */
    int (*socket)(void *kernel, int family, int type, int protocol); /* adds SOCK_CLOEXEC */
    int (*bind)(void *kernel, int fd, const struct sockaddr *addr, socklen_t len);
    int (*listen)(void *kernel, int fd, int backlog);
    int (*setsockopt)(void *kernel, int fd, int level, int name, const void *value, socklen_t len);
    int (*getsockopt)(void *kernel, int fd, int level, int name, void *value, socklen_t *len);
    int (*getsockname)(void *kernel, int fd, struct sockaddr *addr, socklen_t *len);
    int (*getpeername)(void *kernel, int fd, struct sockaddr *addr, socklen_t *len);
    /* Bytes written to a stream that its peer has not taken: TCP: not acknowledged, the end of the
     * stream counts as one; UNIX: not read, in steps of what the kernel keeps together, with its
     * own memory for them. */
    int (*untaken)(void *kernel, int fd);
    int (*connect)(void *kernel, int fd, const struct sockaddr *addr, socklen_t len);
    int (*shutdown)(void *kernel, int fd, int how);
    int (*close)(void *kernel, int fd);

    /* Wake-ups. */
    int (*eventfd)(void *kernel);
    void (*eventfd_wake)(void *kernel, int fd); /* any thread */

    /* Files, blocking: at start-up, at shutdown and on pool threads only. */
    int (*open)(void *kernel, const char *path, int flags, unsigned mode);
    int (*file_size)(void *kernel, int fd, uint64_t *ret_size);
    int (*lock)(void *kernel, int fd); /* until it is closed; -EBUSY: another one has it */
    int (*sync_directory)(void *kernel, const char *path); /* of the file at path */
    int (*truncate)(void *kernel, int fd, uint64_t size);  /* and syncs */
    /* Space for the first size bytes; the size stays. -EOPNOTSUPP: the file system cannot. */
    int (*reserve)(void *kernel, int fd, uint64_t size);
    int (*rename)(void *kernel, const char *from, const char *to);
    int (*make_directory)(void *kernel, const char *path, unsigned mode); /* 0 if it is there */
    int (*unlink)(void *kernel, const char *path);
    int (*chmod)(void *kernel, const char *path, unsigned mode);
    /* fn once per entry of the directory, "." and ".." left out, sorted by bytes. */
    int (*list)(void *kernel, const char *path, void (*fn)(void *arg, const char *name), void *arg);
    /* 0: path is a socket; -ENOENT; -ENOTSOCK. */
    int (*is_socket)(void *kernel, const char *path);

    /* Time and chance. */
    void (*pause)(void *kernel, uint64_t until_ns); /* sleeps till then or less; start-up only */
    uint64_t (*monotonic_ns)(void *kernel);
    int64_t (*realtime_ns)(void *kernel);
    void (*random)(void *kernel, void *buf, size_t size);

    /* Threads for blocking work. -EAGAIN: 256 jobs wait already. */
    int (*pool_submit)(void *kernel, struct system_job *job);
};

/* The real kernel. */
const struct system *system_real(void);
/* Starts and ends the threads behind system_real()->pool_submit. stop waits for every job. */
int system_pool_start(unsigned threads);
void system_pool_stop(void);

#endif
