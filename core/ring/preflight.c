#include "ring/preflight.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>

#include "base/memory.h"
#include "ring/ring.h"

/*
 * A kernel, a container or a sandbox may refuse io_uring, miss a part of it, or claim parts that
 * do not work. All of that shows here, before a client does: a ring is made as the workers make
 * theirs, what they lean on is tried once, and the first thing that fails becomes a sentence with
 * its cause and its remedy. roda has no other engine to fall back to, which the sentence says
 * where the remedy is somebody's decision.
 *
 * Ring memory counts against RLIMIT_MEMLOCK per user on some kernels and not on others, for some
 * users and not for others. So the limit alone refuses nothing: where the need is above it, the
 * rings of the other workers are made as well, for a moment, and the kernel decides.
 *
 * Limits and /proc are read here without struct system: they say what this process is, which no
 * test of the broker's behaviour depends on.
 */

#ifndef IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT (1U << 17)
#endif

#define SQ_ENTRIES_MAX       32768u
#define CQ_ENTRIES_MAX       65536u
#define BUFFERS_MAX          32768u
#define CAPABILITY_IPC_LOCK  14
#define CAPABILITY_SYS_ADMIN 21
#define PATIENCE_NS          UINT64_C(1000000000)
#define TIMEOUT_NS           UINT64_C(1000000)
#define NO_FALLBACK          "; roda works by io_uring only, it has no epoll mode to fall back to"

/* ---- what this process is --------------------------------------------------------------- */

static bool read_line(const char *path, char *line, size_t size)
{
    FILE *file = fopen(path, "re");

    if (!file)
        return false;
    bool got = fgets(line, (int)size, file);
    fclose(file);
    if (got)
        line[strcspn(line, "\n")] = '\0';
    return got;
}

static bool read_number(const char *path, long *ret_value)
{
    char line[32];

    if (!read_line(path, line, sizeof line))
        return false;
    *ret_value = strtol(line, NULL, 10);
    return true;
}

/* A field of /proc/self/status. */
static uint64_t status_field(const char *name, int base)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    size_t len = strlen(name);
    uint64_t value = 0;

    if (!file)
        return 0;
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, name, len) || line[len] != ':')
            continue;
        value = strtoull(line + len + 1, NULL, base);
        break;
    }
    fclose(file);
    return value;
}

static bool capable(unsigned capability)
{
    return status_field("CapEff", 16) >> capability & 1;
}

static bool seccomp_filtered(void)
{
    return status_field("Seccomp", 10) == 2;
}

static int raise_limit(__rlimit_resource_t resource, uint64_t *ret_limit)
{
    struct rlimit limit;

    if (getrlimit(resource, &limit) < 0)
        return -errno;
    rlim_t soft = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (soft != limit.rlim_max && setrlimit(resource, &limit) < 0)
        limit.rlim_cur = soft;
    *ret_limit = limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
    return 0;
}

int preflight_raise_descriptors(uint64_t *ret_limit)
{
    return raise_limit(RLIMIT_NOFILE, ret_limit);
}

/* As the kernel rounds and clamps. */
static unsigned power_of_two(unsigned n, unsigned most)
{
    unsigned power = 1;

    while (power < n && power < most)
        power *= 2;
    return power;
}

static unsigned buffer_count(const struct preflight *p)
{
    return power_of_two(p->buffers, BUFFERS_MAX);
}

static void look_around(struct preflight *p)
{
    struct utsname name;

    if (uname(&name) == 0)
        snprintf(p->kernel, sizeof p->kernel, "%.63s", name.release);
    if (raise_limit(RLIMIT_MEMLOCK, &p->memlock_limit_bytes) < 0 || capable(CAPABILITY_IPC_LOCK))
        p->memlock_limit_bytes = UINT64_MAX;
    p->memlock_need_bytes =
        p->workers * (64 * (uint64_t)power_of_two(p->sq_entries, SQ_ENTRIES_MAX) +
                      16 * (uint64_t)power_of_two(p->cq_entries, CQ_ENTRIES_MAX) +
                      16 * (uint64_t)buffer_count(p) + 4096);
    (void)preflight_raise_descriptors(&p->descriptors);
}

/* ---- sentences -------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static void say(char *problem, size_t size,
                                                      const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(problem, size, format, args);
    va_end(args);
}

static void explain_refused(char *problem, size_t size)
{
    long disabled = 0, group = -1;

    (void)read_number("/proc/sys/kernel/io_uring_disabled", &disabled);
    (void)read_number("/proc/sys/kernel/io_uring_group", &group);
    if (disabled == 2)
        say(problem, size,
            "io_uring is switched off on this machine (sysctl kernel.io_uring_disabled = 2): set "
            "it "
            "to 0, or to 1 with kernel.io_uring_group set to the group of roda's user" NO_FALLBACK);
    else if (disabled == 1 && !capable(CAPABILITY_SYS_ADMIN) && group >= 0)
        say(problem, size,
            "io_uring is for one group only on this machine (sysctl kernel.io_uring_disabled = 1): "
            "add roda's user to the group with the id %ld (sysctl "
            "kernel.io_uring_group)" NO_FALLBACK,
            group);
    else if (disabled == 1 && !capable(CAPABILITY_SYS_ADMIN))
        say(problem, size,
            "io_uring is for one group only on this machine (sysctl kernel.io_uring_disabled = 1) "
            "and no group is named: set kernel.io_uring_group to the group of roda's "
            "user" NO_FALLBACK);
    else if (seccomp_filtered())
        say(problem, size,
            "a seccomp filter refuses io_uring (containers often have one): allow io_uring_setup, "
            "io_uring_enter and io_uring_register in the container's seccomp profile" NO_FALLBACK);
    else
        say(problem, size,
            "io_uring is refused, and neither by sysctl nor by seccomp, so by a security module: "
            "allow it in the SELinux or AppArmor policy of roda's user" NO_FALLBACK);
}

static void explain_missing(const struct preflight *p, char *problem, size_t size)
{
    if (seccomp_filtered())
        say(problem, size,
            "io_uring is \"not implemented\" here, most likely from the seccomp filter this "
            "process is under (containers often have one): allow io_uring_setup, io_uring_enter "
            "and io_uring_register in its profile; or else kernel %s was built without "
            "io_uring" NO_FALLBACK,
            p->kernel);
    else
        say(problem, size,
            "kernel %s was built without io_uring (or a sandbox hides it): use a kernel of 6.1 or "
            "newer with CONFIG_IO_URING=y" NO_FALLBACK,
            p->kernel);
}

static void explain_memory(const struct preflight *p, char *problem, size_t size)
{
    uint64_t need = (p->memlock_need_bytes + 1023) / 1024;

    if (p->memlock_limit_bytes == UINT64_MAX)
        say(problem, size,
            "no memory for the rings of %u workers (%" PRIu64 " kB, without packet buffers): raise "
            "the memory limit of the container or the unit (MemoryMax), or set fewer workers",
            p->workers, need);
    else
        say(problem, size,
            "the rings of %u workers need %" PRIu64 " kB of locked memory and the limit is %" PRIu64
            " kB for all processes of this user: set LimitMEMLOCK=infinity in the unit, or ulimit "
            "-l unlimited (containers: --ulimit memlock=-1), or set fewer workers",
            p->workers, need, p->memlock_limit_bytes / 1024);
}

void preflight_explain(int error, const struct preflight *p, char *problem, size_t size)
{
    switch (error < 0 ? -error : error) {
    case EPERM:
        explain_refused(problem, size);
        break;
    case ENOSYS:
        explain_missing(p, problem, size);
        break;
    case ENOMEM:
        explain_memory(p, problem, size);
        break;
    case EINVAL:
        say(problem, size,
            "kernel %s does not know the io_uring modes that roda needs (DEFER_TASKRUN): it needs "
            "Linux 6.1 or newer" NO_FALLBACK,
            p->kernel);
        break;
    case EMFILE:
        say(problem, size,
            "no descriptor is left for a ring (the limit is %" PRIu64 "): set LimitNOFILE=infinity "
            "in the unit, or raise ulimit -n",
            p->descriptors);
        break;
    case ENFILE:
        say(problem, size,
            "the machine has no open file left for a ring: raise sysctl fs.file-max");
        break;
    default:
        say(problem, size, "io_uring_setup: %s (kernel %s)", strerror(abs(error)), p->kernel);
    }
}

/* Something that should work did not; result: how, 0 or more if there is no errno to show. */
static int deny(const struct preflight *p, const char *what, int result, char *problem, size_t size)
{
    if ((result == -EPERM || result == -ENOSYS) && seccomp_filtered())
        preflight_explain(result, p, problem, size);
    else
        say(problem, size,
            "io_uring of kernel %s is there, but a trial of %s at start failed: %s; a sandbox that "
            "imitates Linux (gVisor, WSL 1) or a broken kernel does this: use another kernel or "
            "host" NO_FALLBACK,
            p->kernel, what, result < 0 ? strerror(-result) : "it did not do what it should");
    return result < 0 ? result : -EOPNOTSUPP;
}

/* ---- what the kernel says it has -------------------------------------------------------- */

struct named {
    unsigned value;
    const char *name;
};

static int check_features(const struct preflight *p, const struct ring *r, char *problem,
                          size_t size)
{
    static const struct named needed[] = {
        {IORING_FEAT_NODROP, "NODROP"},       {IORING_FEAT_SUBMIT_STABLE, "SUBMIT_STABLE"},
        {IORING_FEAT_FAST_POLL, "FAST_POLL"}, {IORING_FEAT_EXT_ARG, "EXT_ARG"},
        {IORING_FEAT_CQE_SKIP, "CQE_SKIP"},
    };

    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (r->features & needed[i].value)
            continue;
        say(problem, size,
            "io_uring of kernel %s lacks %s: roda needs Linux 6.1 or newer" NO_FALLBACK, p->kernel,
            needed[i].name);
        return -EOPNOTSUPP;
    }
    return 0;
}

#define PROBED_OPERATIONS 64u

static int check_operations(const struct preflight *p, struct ring *r, char *problem, size_t size)
{
    static const struct named needed[] = {
        {IORING_OP_ACCEPT, "ACCEPT"},   {IORING_OP_RECV, "RECV"},
        {IORING_OP_SEND, "SEND"},       {IORING_OP_SENDMSG, "SENDMSG"},
        {IORING_OP_RECVMSG, "RECVMSG"}, {IORING_OP_ASYNC_CANCEL, "ASYNC_CANCEL"},
        {IORING_OP_READ, "READ"},       {IORING_OP_WRITE, "WRITE"},
        {IORING_OP_FSYNC, "FSYNC"},
    };
    struct io_uring_probe *probe =
        memory_alloc(sizeof *probe + PROBED_OPERATIONS * sizeof(struct io_uring_probe_op));

    if (!probe) {
        say(problem, size, "out of memory at start");
        return -ENOMEM;
    }
    /* While it is disabled: afterwards the restrictions refuse this. */
    int result = r->system->ring_register(r->system->kernel, r, IORING_REGISTER_PROBE, probe,
                                          PROBED_OPERATIONS);
    if (result < 0)
        deny(p, "IORING_REGISTER_PROBE", result, problem, size);
    for (size_t i = 0; result >= 0 && i < sizeof needed / sizeof needed[0]; i++) {
        if (needed[i].value < probe->ops_len &&
            probe->ops[needed[i].value].flags & IO_URING_OP_SUPPORTED)
            continue;
        say(problem, size,
            "io_uring of kernel %s lacks the operation %s: roda needs Linux 6.1 or "
            "newer" NO_FALLBACK,
            p->kernel, needed[i].name);
        result = -EOPNOTSUPP;
    }
    memory_free(probe);
    return result < 0 ? result : 0;
}

/* ---- what works ------------------------------------------------------------------------- */

struct trial {
    const struct preflight *p;
    struct ring *ring;
    int near, far; /* a pair of sockets */
    struct io_uring_buf_ring *buffers;
    unsigned n_buffers;
    char data[64];
    struct {
        unsigned n;
        struct ring_completion last;
    } seen[RING_KINDS];
    char *problem;
    size_t size;
};

#define NOTE(kind)                                                                                 \
    static void note_##kind(void *owner, const struct ring_completion *done)                       \
    {                                                                                              \
        struct trial *t = owner;                                                                   \
        t->seen[kind].n++;                                                                         \
        t->seen[kind].last = *done;                                                                \
    }
NOTE(RING_RECV)
NOTE(RING_SEND)
NOTE(RING_CANCEL)

static int fail(struct trial *t, const char *what, int result)
{
    return deny(t->p, what, result, t->problem, t->size);
}

static bool nothing_waits(void *arg)
{
    (void)arg;
    return true;
}

/* Runs the ring until n completions of the kind were seen. */
static int await(struct trial *t, enum ring_kind kind, unsigned n)
{
    const struct system *system = t->ring->system;
    uint64_t end = system->monotonic_ns(system->kernel) + PATIENCE_NS;

    while (t->seen[kind].n < n) {
        uint64_t now = system->monotonic_ns(system->kernel);
        if (now >= end)
            return -ETIME;
        int result = ring_enter(t->ring, true, end - now);
        if (result < 0)
            return result;
        ring_dispatch(t->ring, ring_mark(t->ring), UINT32_MAX);
    }
    return 0;
}

static int try_timeout(struct trial *t)
{
    const struct system *system = t->ring->system;

    /* The first enter also submits the READ of the eventfd. */
    int result = ring_enter(t->ring, false, 0);
    uint64_t start = system->monotonic_ns(system->kernel);
    if (result >= 0)
        result = ring_enter(t->ring, true, TIMEOUT_NS);
    uint64_t took = system->monotonic_ns(system->kernel) - start;
    if (result < 0)
        return fail(t, "timeouts of io_uring_enter", result);
    return took < TIMEOUT_NS ? fail(t, "timeouts of io_uring_enter", 0) : 0;
}

static int try_wake(struct trial *t)
{
    uint64_t before = t->ring->counters.wakes_received;

    if (!ring_sleep_begin(t->ring, nothing_waits, NULL))
        return fail(t, "reads of an eventfd", 0);
    ring_wake(t->ring);
    int result = ring_enter(t->ring, true, PATIENCE_NS);
    ring_sleep_end(t->ring);
    ring_dispatch(t->ring, ring_mark(t->ring), UINT32_MAX);
    if (result < 0 || t->ring->counters.wakes_received == before)
        return fail(t, "wake-ups by an eventfd", result);
    return 0;
}

static int try_restrictions(struct trial *t)
{
    struct io_uring_sqe *sqe = ring_sqe(t->ring, RING_USER_DATA(RING_CANCEL, 0, 0));

    if (!sqe)
        return fail(t, "submission", 0);
    io_uring_prep_nop(sqe);
    int result = await(t, RING_CANCEL, 1);
    if (result >= 0 && t->seen[RING_CANCEL].last.result != -EACCES)
        result = t->seen[RING_CANCEL].last.result;
    return result < 0 || t->seen[RING_CANCEL].last.result != -EACCES
               ? fail(t, "restrictions", result)
               : 0;
}

static int buffers_register(struct ring *r, unsigned n, struct io_uring_buf_ring **ret_buffers)
{
    size_t bytes = n * sizeof(struct io_uring_buf);
    struct io_uring_buf_ring *buffers = memory_map(bytes);

    if (!buffers)
        return -ENOMEM;
    struct io_uring_buf_reg registration = {
        .ring_addr = (uintptr_t)buffers,
        .ring_entries = n,
        .bgid = 1,
    };
    int result =
        r->system->ring_register(r->system->kernel, r, IORING_REGISTER_PBUF_RING, &registration, 1);
    if (result < 0) {
        memory_unmap(buffers, bytes);
        return result;
    }
    *ret_buffers = buffers;
    return 0;
}

static int arm_receive(struct trial *t, int fd, uint64_t user_data)
{
    struct io_uring_sqe *sqe = ring_sqe(t->ring, user_data);

    if (!sqe)
        return -EAGAIN;
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->buf_group = 1;
    return 0;
}

static int try_receive(struct trial *t)
{
    static const char text[] = "roda";
    struct ring_completion *last = &t->seen[RING_RECV].last;

    io_uring_buf_ring_add(t->buffers, t->data, sizeof t->data, 0, (int)t->n_buffers - 1, 0);
    io_uring_buf_ring_advance(t->buffers, 1);
    int result = arm_receive(t, t->near, RING_USER_DATA(RING_RECV, 0, 0));
    struct io_uring_sqe *sqe = ring_sqe(t->ring, RING_USER_DATA(RING_SEND, 0, 0));
    if (result < 0 || !sqe)
        return fail(t, "submission", result);
    io_uring_prep_send(sqe, t->far, text, sizeof text, MSG_NOSIGNAL);
    result = await(t, RING_SEND, 1);
    if (result < 0 || t->seen[RING_SEND].last.result != (int)sizeof text)
        return fail(t, "SEND", result < 0 ? result : t->seen[RING_SEND].last.result);
    result = await(t, RING_RECV, 1);
    bool good = result >= 0 && last->result == (int)sizeof text &&
                last->flags & IORING_CQE_F_BUFFER && last->flags & IORING_CQE_F_MORE &&
                !memcmp(t->data, text, sizeof text);
    return good ? 0
                : fail(t, "multishot RECV with a buffer ring", result < 0 ? result : last->result);
}

static int try_shutdown(struct trial *t)
{
    const struct system *system = t->ring->system;
    struct ring_completion *last = &t->seen[RING_RECV].last;

    (void)system->shutdown(system->kernel, t->near, SHUT_RDWR);
    int result = await(t, RING_RECV, 2);
    if (result >= 0 && !(last->flags & IORING_CQE_F_MORE) && last->result <= 0)
        return 0;
    return fail(t, "the end of RECV by shutdown", result);
}

static int try_cancel(struct trial *t, int fd)
{
    struct ring_completion *last = &t->seen[RING_RECV].last;
    uint64_t target = RING_USER_DATA(RING_RECV, 0, 1);
    unsigned before = t->seen[RING_RECV].n;

    int result = arm_receive(t, fd, target);
    struct io_uring_sqe *sqe = ring_sqe(t->ring, RING_USER_DATA(RING_CANCEL, 0, 1));
    if (result < 0 || !sqe)
        return fail(t, "submission", result);
    io_uring_prep_cancel64(sqe, target, 0);
    result = await(t, RING_CANCEL, 2);
    if (result >= 0)
        result = await(t, RING_RECV, before + 1);
    return result >= 0 && last->result == -ECANCELED ? 0 : fail(t, "ASYNC_CANCEL", result);
}

static int try_sockets(struct trial *t)
{
    const struct system *system = t->ring->system;
    int near_far[2], other[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, near_far) < 0)
        return fail(t, "sockets", -errno);
    t->near = near_far[0];
    t->far = near_far[1];
    int result = try_receive(t);
    if (result >= 0)
        result = try_shutdown(t);
    if (result >= 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, other) == 0) {
        result = try_cancel(t, other[0]);
        system->close(system->kernel, other[0]);
        system->close(system->kernel, other[1]);
    }
    system->close(system->kernel, t->near);
    system->close(system->kernel, t->far);
    return result;
}

static int try_all(struct trial *t)
{
    ring_on(t->ring, RING_RECV, note_RING_RECV, t);
    ring_on(t->ring, RING_SEND, note_RING_SEND, t);
    ring_on(t->ring, RING_CANCEL, note_RING_CANCEL, t);
    int result = try_timeout(t);
    if (result >= 0)
        result = try_wake(t);
    if (result >= 0)
        result = try_restrictions(t);
    if (result >= 0)
        result = try_sockets(t);
    return result;
}

static int try_ring(struct preflight *p, struct ring *r, char *problem, size_t size)
{
    struct trial t = {.p = p, .ring = r, .problem = problem, .size = size};

    int result = check_features(p, r, problem, size);
    if (result >= 0)
        result = check_operations(p, r, problem, size);
    if (result < 0)
        return result;
    t.n_buffers = buffer_count(p);
    result = buffers_register(r, t.n_buffers, &t.buffers);
    if (result == -ENOMEM)
        preflight_explain(result, p, problem, size);
    else if (result < 0)
        fail(&t, "buffer rings", result);
    if (result < 0)
        return result;
    result = ring_enable(r);
    result = result < 0 ? fail(&t, "restrictions of a ring", result) : try_all(&t);
    memory_unmap(t.buffers, t.n_buffers * sizeof(struct io_uring_buf));
    return result;
}

/* ---- memory for all --------------------------------------------------------------------- */

struct reserved {
    struct ring ring;
    struct io_uring_buf_ring *buffers;
};

static int reserve_all(const struct preflight *p, struct reserved *all, unsigned n)
{
    unsigned buffers = buffer_count(p), made;
    int result = 0;

    for (made = 0; made < n && result >= 0; made++) {
        result = ring_init(&all[made].ring, system_real(), p->sq_entries, p->cq_entries);
        if (result >= 0)
            result = buffers_register(&all[made].ring, buffers, &all[made].buffers);
    }
    while (made--) {
        ring_deinit(&all[made].ring);
        if (all[made].buffers)
            memory_unmap(all[made].buffers, buffers * sizeof(struct io_uring_buf));
    }
    return result;
}

/* The limit would not do: does the kernel mind? */
static int check_memory(const struct preflight *p, char *problem, size_t size)
{
    if (p->memlock_need_bytes <= p->memlock_limit_bytes || p->workers < 2)
        return 0;
    unsigned n = p->workers - 1; /* one is there */
    struct reserved *all = memory_alloc(n * sizeof *all);
    int result = all ? reserve_all(p, all, n) : -ENOMEM;
    if (result < 0)
        preflight_explain(result, p, problem, size);
    memory_free(all);
    return result;
}

int preflight_run(struct preflight *p, char *problem, size_t size)
{
    struct ring ring;

    look_around(p);
    int result = ring_init(&ring, system_real(), p->sq_entries, p->cq_entries);
    if (result < 0) {
        preflight_explain(result, p, problem, size);
        return result;
    }
    result = try_ring(p, &ring, problem, size);
    if (result >= 0)
        result = check_memory(p, problem, size);
    if (result >= 0)
        snprintf(p->features, sizeof p->features, "restrictions%s",
                 ring.features & IORING_FEAT_NO_IOWAIT ? " no-iowait" : "");
    ring_deinit(&ring);
    return result;
}
