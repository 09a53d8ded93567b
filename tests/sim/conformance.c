#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <unistd.h>

#include "kernel.h"

/*
 * The same scripts on the fake kernel and on the real one. A script speaks only to struct system
 * and to a ring, and to far ends through the functions below; everything that comes back is
 * written into a transcript, and the two transcripts must be equal. So what the fake does is
 * what this kernel does, for all that is scripted here; nobody writes down what to expect.
 *
 * What may differ from run to run is left out: the order of completions of different requests
 * within a step (they are sorted), descriptor numbers, byte counts that depend on buffer sizes
 * ("some"), and hints.
 */

#define BUFFERS      8u
#define BUFFER_BYTES 128u
#define TEXT_MAX     16384u
#define DONE_MAX     128u
#define SECOND       1000000000ull
#define QUIET_NS     15000000ull /* nothing more comes: waited for at the end of each step */
#define GROUP        1u

static char big[4u << 20];

struct done {
    unsigned kind, slot, order;
    int32_t result;
    uint32_t flags;
};

struct world {
    const struct system *sys;
    struct sim_kernel *k; /* NULL: the real kernel */
    struct ring ring;
    struct io_uring_buf_ring *buffers;
    char *memory; /* outlives the ring, as the kernel may write to it until then */
    uint16_t tail;
    char directory[64];
    char text[TEXT_MAX];
    size_t text_len;
    struct done done[DONE_MAX];
    unsigned n_done;
    uint16_t port; /* of the last listener or datagram socket */
};

struct far { /* the other end of a stream */
    struct world *w;
    struct sim_client *c;
    int fd;
};

struct kind {
    struct world *w;
    unsigned kind;
};
static struct kind kinds[RING_KINDS];
static const char *const kind_names[RING_KINDS] = {
    [RING_ACCEPT] = "accept",
    [RING_RECV] = "recv",
    [RING_SEND] = "send",
    [RING_CANCEL] = "cancel",
    [RING_DATAGRAM_RECV] = "recvmsg",
    [RING_DATAGRAM_SEND] = "sendmsg",
    [RING_FILE_READ] = "read",
    [RING_FILE_WRITE] = "write",
    [RING_FILE_SYNC] = "fsync",
};

/* ---- the transcript ---- */

__attribute__((format(printf, 2, 3))) static void say(struct world *w, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    w->text_len +=
        (size_t)vsnprintf(w->text + w->text_len, TEXT_MAX - w->text_len, format, arguments);
    va_end(arguments);
    assert_true(w->text_len < TEXT_MAX);
}

static const char *outcome(int result)
{
    static char text[32];

    if (result < 0)
        return strerrorname_np(-result);
    snprintf(text, sizeof text, "%d", result);
    return text;
}

static void say_result(struct world *w, const char *what, int result)
{
    say(w, "%s: %s\n", what, outcome(result));
}

static void record(void *owner, const struct ring_completion *c)
{
    const struct kind *kind = owner;
    struct world *w = kind->w;

    assert_true(w->n_done < DONE_MAX);
    w->done[w->n_done] = (struct done){kind->kind, c->slot, w->n_done, c->result, c->flags};
    w->n_done++;
}

static int by_request(const void *a, const void *b)
{
    const struct done *x = a, *y = b;

    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->slot != y->slot)
        return x->slot < y->slot ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

static void say_done(struct world *w, const struct done *d)
{
    const char *bytes = d->flags & IORING_CQE_F_BUFFER
                            ? w->memory + (d->flags >> IORING_CQE_BUFFER_SHIFT) * BUFFER_BYTES
                            : NULL;

    say(w, "  %s %u: ", kind_names[d->kind], d->slot);
    if (d->kind == RING_ACCEPT && d->result >= 0)
        say(w, "descriptor");
    else if (d->kind == RING_SEND && d->result > 4096 && d->result < (int32_t)sizeof big)
        say(w, "some");
    else
        say(w, "%s", outcome(d->result));
    if (bytes && d->kind == RING_RECV && d->result > 0)
        say(w, " '%.*s'", d->result < 16 ? d->result : 16, bytes);
    say(w, "%s%s\n", bytes ? " buffer" : "", d->flags & IORING_CQE_F_MORE ? " more" : "");
}

/* Waits until n completions have come, then until it is quiet, and writes them down. */
static void settle(struct world *w, const char *step, unsigned n)
{
    uint64_t until = w->sys->monotonic_ns(w->sys->kernel) + 5 * SECOND;

    for (;;) {
        unsigned before = w->n_done;
        assert_int_equal(ring_enter(&w->ring, true, QUIET_NS), 0);
        ring_dispatch(&w->ring, ring_mark(&w->ring), DONE_MAX);
        if (w->n_done == before && !ring_overflowed(&w->ring) &&
            (w->n_done >= n || w->sys->monotonic_ns(w->sys->kernel) > until))
            break;
    }
    say(w, "%s\n", step);
    if (w->n_done)
        qsort(w->done, w->n_done, sizeof *w->done, by_request);
    for (unsigned i = 0; i < w->n_done; i++)
        say_done(w, &w->done[i]);
}

/* As settle(), and the completions are forgotten. */
static void step(struct world *w, const char *name, unsigned n)
{
    settle(w, name, n);
    w->n_done = 0;
}

/* ---- worlds ---- */

static void give(struct world *w, unsigned id)
{
    struct io_uring_buf *buf = &w->buffers->bufs[w->tail & (BUFFERS - 1)];

    buf->addr = (uintptr_t)(w->memory + id * BUFFER_BYTES);
    buf->len = BUFFER_BYTES;
    buf->bid = (uint16_t)id;
    __atomic_store_n(&w->buffers->tail, ++w->tail, __ATOMIC_RELEASE);
}

static int world_start(struct world *w, bool real, unsigned cq_entries)
{
    memset(w, 0, sizeof *w);
    if (real) {
        w->sys = system_real();
        strcpy(w->directory, "/tmp/roda-conformance-XXXXXX");
        assert_non_null(mkdtemp(w->directory));
    } else {
        w->k = sim_kernel_new(1, NULL);
        w->sys = sim_system(w->k);
        sim_blocking_enter(w->k, true);
        strcpy(w->directory, "/tmp");
    }
    int result = ring_init(&w->ring, w->sys, 16, cq_entries);
    if (result >= 0)
        result = ring_enable(&w->ring);
    if (result < 0)
        return result;
    for (unsigned kind = RING_ACCEPT; kind < RING_KINDS; kind++) {
        kinds[kind] = (struct kind){w, kind};
        if (kind != RING_WAKE)
            ring_on(&w->ring, kind, record, &kinds[kind]);
    }
    w->buffers = aligned_alloc(4096, 4096);
    w->memory = calloc(BUFFERS, BUFFER_BYTES);
    assert_non_null(w->buffers);
    assert_non_null(w->memory);
    memset(w->buffers, 0, 4096);
    struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)w->buffers, .ring_entries = BUFFERS};
    reg.bgid = GROUP;
    return w->sys->ring_register(w->sys->kernel, &w->ring, IORING_REGISTER_PBUF_RING, &reg, 1);
}

static void world_end(struct world *w)
{
    ring_deinit(&w->ring);
    if (!w->k)
        rmdir(w->directory);
    sim_kernel_free(w->k);
    free(w->buffers);
    free(w->memory);
}

typedef void script_fn(struct world *w);

static void compare(script_fn *script, unsigned cq_entries)
{
    static struct world real, fake;
    int result = world_start(&real, true, cq_entries);

    if (result == -EPERM || result == -ENOSYS || result == -EACCES) {
        print_message("no io_uring here: %s\n", outcome(result));
        skip();
    }
    assert_int_equal(result, 0);
    script(&real);
    world_end(&real);
    assert_int_equal(world_start(&fake, false, cq_entries), 0);
    script(&fake);
    world_end(&fake);
    if (strcmp(real.text, fake.text)) {
        fprintf(stderr, "the real kernel:\n%sthe fake one:\n%s", real.text, fake.text);
        fail();
    }
    assert_true(real.text_len > 0);
    if (getenv("CONFORMANCE_SHOW"))
        print_message("%s", real.text);
}

/* ---- sockets ---- */

union any_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_un local;
};

static socklen_t loopback(union any_address *a, uint16_t port)
{
    memset(a, 0, sizeof *a);
    a->v4.sin_family = AF_INET;
    a->v4.sin_port = htons(port);
    a->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sizeof a->v4;
}

static socklen_t in_directory(const struct world *w, union any_address *a)
{
    memset(a, 0, sizeof *a);
    a->local.sun_family = AF_UNIX;
    snprintf(a->local.sun_path, sizeof a->local.sun_path, "%s/socket", w->directory);
    return sizeof a->local;
}

static int family; /* of the streams: each script runs with TCP and with UNIX */

static socklen_t stream_address(const struct world *w, union any_address *a)
{
    return family == AF_UNIX ? in_directory(w, a) : loopback(a, w->port);
}

static int bound(struct world *w, int type)
{
    union any_address a;
    int fd = w->sys->socket(w->sys->kernel, type == SOCK_DGRAM ? AF_INET : family, type, 0);
    socklen_t len = type == SOCK_DGRAM ? loopback(&a, 0) : stream_address(w, &a);

    assert_true(fd >= 0);
    assert_int_equal(w->sys->bind(w->sys->kernel, fd, &a.any, len), 0);
    len = sizeof a;
    assert_int_equal(w->sys->getsockname(w->sys->kernel, fd, &a.any, &len), 0);
    if (a.any.sa_family == AF_INET)
        w->port = ntohs(a.v4.sin_port);
    return fd;
}

static int listening(struct world *w)
{
    int bytes = 32768;

    w->port = 0;
    int fd = bound(w, SOCK_STREAM);
    /* Fixed, so that the kernel does not make room for all of big. */
    w->sys->setsockopt(w->sys->kernel, fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    assert_int_equal(w->sys->listen(w->sys->kernel, fd, 16), 0);
    return fd;
}

static void gone(struct world *w, int fd)
{
    assert_int_equal(w->sys->close(w->sys->kernel, fd), 0);
}

static void listener_gone(struct world *w, int fd)
{
    union any_address a;

    w->sys->shutdown(w->sys->kernel, fd, SHUT_RDWR);
    gone(w, fd);
    if (family == AF_UNIX) {
        stream_address(w, &a);
        assert_int_equal(w->sys->unlink(w->sys->kernel, a.local.sun_path), 0);
    }
}

/* ---- far ends ---- */

static struct far far_connect(struct world *w)
{
    struct far f = {.w = w, .fd = -1};
    union any_address a;
    socklen_t len = stream_address(w, &a);

    if (w->k) {
        f.c = sim_connect(w->k, &a.any, len, NULL, 0, 0);
        return f;
    }
    f.fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(f.fd >= 0);
    int bytes = 32768;
    setsockopt(f.fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    if (connect(f.fd, &a.any, len) < 0) {
        close(f.fd);
        f.fd = -errno;
        return f;
    }
    assert_int_equal(fcntl(f.fd, F_SETFL, O_NONBLOCK), 0);
    return f;
}

static void far_write(struct far *f, const char *bytes)
{
    int n = (int)strlen(bytes);

    if (f->c)
        assert_int_equal(sim_client_write(f->c, bytes, (size_t)n), n);
    else
        assert_int_equal(send(f->fd, bytes, (size_t)n, MSG_NOSIGNAL), n);
}

/* Bytes, or why none; waits for something to come. */
static int far_read(struct far *f, char *to, size_t n)
{
    struct pollfd p = {.fd = f->fd, .events = POLLIN};

    if (!f->c) {
        assert_int_equal(poll(&p, 1, 5000), 1);
        ssize_t got = recv(f->fd, to, n, 0);
        return got < 0 ? -errno : (int)got;
    }
    int result;
    for (unsigned i = 0; (result = sim_client_read(f->c, to, n)) == -EAGAIN; i++) {
        assert_true(i < 5000);
        sim_advance_to(f->w->k, sim_now_ns(f->w->k) + 1000000);
    }
    return result;
}

static void far_say(struct far *f)
{
    char bytes[64];
    int result = far_read(f, bytes, sizeof bytes);

    say(f->w, "far end reads: %s '%.*s'\n", outcome(result), result > 0 ? result : 0, bytes);
}

static void far_say_nothing(struct far *f)
{
    char byte;
    ssize_t result = f->c ? sim_client_read(f->c, &byte, 1) : recv(f->fd, &byte, 1, 0);

    say(f->w, "far end reads: %s\n", outcome(!f->c && result < 0 ? -errno : (int)result));
}

static void far_end_of_writing(struct far *f)
{
    if (f->c)
        sim_client_shutdown(f->c);
    else
        assert_int_equal(shutdown(f->fd, SHUT_WR), 0);
}

static void far_close(struct far *f)
{
    if (f->c)
        sim_client_close(f->c);
    else if (f->fd >= 0)
        close(f->fd);
}

static void far_reset(struct far *f)
{
    struct linger linger = {.l_onoff = 1};

    if (f->c) {
        sim_client_reset(f->c);
        return;
    }
    assert_int_equal(setsockopt(f->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    close(f->fd);
}

/* ---- requests ---- */

static struct io_uring_sqe *sqe(struct world *w, unsigned kind, unsigned slot)
{
    struct io_uring_sqe *s = ring_sqe(&w->ring, RING_USER_DATA(kind, 0, slot));

    assert_non_null(s);
    return s;
}

static void arm_accept(struct world *w, int fd, unsigned slot, bool multishot)
{
    struct io_uring_sqe *s = sqe(w, RING_ACCEPT, slot);

    io_uring_prep_rw(IORING_OP_ACCEPT, s, fd, NULL, 0, 0);
    s->ioprio = multishot ? IORING_ACCEPT_MULTISHOT : 0;
    s->accept_flags = SOCK_CLOEXEC;
}

static struct io_uring_sqe *arm_recv(struct world *w, int fd, unsigned slot)
{
    struct io_uring_sqe *s = sqe(w, RING_RECV, slot);

    io_uring_prep_rw(IORING_OP_RECV, s, fd, NULL, 0, 0);
    s->ioprio = IORING_RECV_MULTISHOT;
    s->flags = IOSQE_BUFFER_SELECT;
    s->buf_group = GROUP;
    return s;
}

static struct io_uring_sqe *send_bytes(struct world *w, int fd, unsigned slot, const char *bytes,
                                       size_t n)
{
    struct io_uring_sqe *s = sqe(w, RING_SEND, slot);

    io_uring_prep_rw(IORING_OP_SEND, s, fd, bytes, (unsigned)n, 0);
    s->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
    return s;
}

static struct io_uring_sqe *cancel(struct world *w, unsigned slot, int fd, uint64_t user_data,
                                   unsigned flags)
{
    struct io_uring_sqe *s = sqe(w, RING_CANCEL, slot);

    io_uring_prep_rw(IORING_OP_ASYNC_CANCEL, s, fd, NULL, 0, 0);
    s->addr = user_data;
    s->cancel_flags = flags;
    return s;
}

static void shut(struct world *w, int fd, int how)
{
    say_result(w, "shutdown", w->sys->shutdown(w->sys->kernel, fd, how));
}

/* A connection accepted from a listener that is gone again. */
static int connected(struct world *w, struct far *ret_far)
{
    int l = listening(w);

    arm_accept(w, l, 0, false);
    *ret_far = far_connect(w);
    settle(w, "connected", 1);
    assert_int_equal(w->n_done, 1);
    int fd = w->done[0].result;
    assert_true(fd >= 0);
    w->n_done = 0;
    listener_gone(w, l);
    return fd;
}

/* ---- scripts: streams ---- */

static void script_receive(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    for (unsigned i = 0; i < 4; i++)
        give(w, i);
    arm_recv(w, fd, 1);
    step(w, "armed", 0);
    far_write(&f, "abc");
    step(w, "data", 1);
    far_write(&f, "def");
    far_end_of_writing(&f);
    step(w, "data and end", 2);
    send_bytes(w, fd, 1, "still", 5);
    step(w, "half closed", 1);
    far_say(&f);
    arm_recv(w, fd, 2);
    step(w, "armed at the end", 1);
    shut(w, fd, SHUT_RDWR);
    step(w, "both ended", 0);
    shut(w, fd, SHUT_RDWR);
    gone(w, fd);
    far_say(&f);
    far_close(&f);
}

static void script_receive_ended_by_shutdown(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    arm_recv(w, fd, 1);
    step(w, "armed", 0);
    shut(w, fd, SHUT_RDWR);
    step(w, "shut", 1);
    send_bytes(w, fd, 1, "x", 1);
    step(w, "send to a shut side", 1);
    far_say(&f);
    gone(w, fd);
    far_close(&f);
}

static void script_shut_for_writing(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    arm_recv(w, fd, 1);
    step(w, "armed", 0);
    shut(w, fd, SHUT_WR);
    step(w, "shut for writing", 0);
    far_say(&f);
    far_write(&f, "bye");
    step(w, "data", 1);
    far_close(&f);
    step(w, "closed", 1);
    gone(w, fd);
}

static void script_receive_without_buffers(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    arm_recv(w, fd, 1);
    step(w, "armed on an empty ring", 1);
    arm_recv(w, fd, 2)->ioprio |= IORING_RECVSEND_POLL_FIRST;
    step(w, "armed on an empty ring, poll first", 0);
    far_write(&f, "abc");
    step(w, "data", 1);
    give(w, 3);
    arm_recv(w, fd, 3)->ioprio |= IORING_RECVSEND_POLL_FIRST;
    step(w, "a buffer", 1);
    far_write(&f, "def");
    step(w, "data", 1);
    give(w, 3);
    give(w, 4);
    arm_recv(w, fd, 4);
    step(w, "two buffers", 1);
    for (unsigned i = 0; i < 20; i++)
        far_write(&f, "0123456789abcdef");
    step(w, "more data than buffers", 1);
    gone(w, fd);
    far_close(&f);
}

static void script_receive_once(struct world *w)
{
    struct far f;
    char bytes[4] = {0};
    int fd = connected(w, &f);

    io_uring_prep_rw(IORING_OP_RECV, sqe(w, RING_RECV, 1), fd, bytes, 4, 0);
    step(w, "armed", 0);
    far_write(&f, "abcdef");
    step(w, "data", 1);
    say(w, "'%.4s'\n", bytes);
    give(w, 0);
    arm_recv(w, fd, 2)->ioprio = 0;
    step(w, "once, from a group", 1);
    struct io_uring_sqe *s = sqe(w, RING_RECV, 3);
    io_uring_prep_rw(IORING_OP_RECV, s, fd, bytes, 4, 0);
    s->msg_flags = MSG_DONTWAIT;
    step(w, "nothing, and told not to wait", 1);
    arm_recv(w, fd, 4)->ioprio = 0;
    step(w, "once, no buffer", 1);
    far_close(&f);
    io_uring_prep_rw(IORING_OP_RECV, sqe(w, RING_RECV, 5), fd, bytes, 4, 0);
    step(w, "closed", 1);
    gone(w, fd);
}

static void script_reset(struct world *w)
{
    union any_address a;
    socklen_t len = sizeof a;
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    arm_recv(w, fd, 1);
    step(w, "armed", 0);
    far_reset(&f);
    step(w, "reset", 1);
    send_bytes(w, fd, 1, "x", 1);
    step(w, "send", 1);
    arm_recv(w, fd, 2);
    step(w, "receive", 1);
    shut(w, fd, SHUT_RDWR);
    say_result(w, "getpeername", w->sys->getpeername(w->sys->kernel, fd, &a.any, &len));
    gone(w, fd);
}

static void script_reset_told_to_a_send(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    send_bytes(w, fd, 1, big, sizeof big);
    step(w, "a send that waits", 0);
    far_reset(&f);
    step(w, "reset", 1);
    send_bytes(w, fd, 2, "x", 1);
    step(w, "send", 1);
    arm_recv(w, fd, 1);
    step(w, "receive", 1);
    gone(w, fd);
}

static void script_reset_after_data(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    give(w, 1);
    far_write(&f, "last");
    step(w, "written", 0);
    far_reset(&f);
    step(w, "reset", 0);
    arm_recv(w, fd, 1);
    step(w, "receive", 2);
    gone(w, fd);
}

static void script_far_end_closed_with_unread_data(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    send_bytes(w, fd, 1, "unread", 6);
    step(w, "sent", 1);
    far_close(&f);
    give(w, 0);
    arm_recv(w, fd, 1);
    step(w, "receive", 1);
    gone(w, fd);
}

static void script_close_under_a_receive(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    give(w, 1);
    arm_recv(w, fd, 1);
    step(w, "armed", 0);
    gone(w, fd);
    step(w, "closed", 0);
    far_write(&f, "ghost");
    step(w, "data", 1);
    far_say_nothing(&f);
    cancel(w, 1, -1, RING_USER_DATA(RING_RECV, 0, 1), 0);
    step(w, "cancelled", 2);
    far_say(&f);
    far_close(&f);
}

static void script_close_with_unread_data(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    far_write(&f, "unread");
    step(w, "written", 0);
    gone(w, fd);
    far_say(&f);
    far_close(&f);
}

static void script_data_for_a_shut_side(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    shut(w, fd, SHUT_RDWR);
    far_say(&f);
    if (family == AF_INET) { /* UNIX tells the writer at once */
        far_write(&f, "late");
        step(w, "written", 0);
        far_say(&f);
    }
    gone(w, fd);
    far_close(&f);
}

static void script_linger_zero(struct world *w)
{
    struct linger linger = {.l_onoff = 1};
    struct far f;
    int fd = connected(w, &f);

    assert_int_equal(w->sys->setsockopt(w->sys->kernel, fd, SOL_SOCKET, SO_LINGER, &linger,
                                        sizeof linger),
                     0);
    gone(w, fd);
    far_say(&f);
    far_close(&f);
}

static void script_send_that_waits(struct world *w)
{
    static char got[sizeof big];
    struct far f;
    size_t n = 0;
    int fd = connected(w, &f);

    send_bytes(w, fd, 1, big, sizeof big);
    step(w, "no room", 0);
    while (n < sizeof big) {
        ring_enter(&w->ring, false, 0);
        int part = far_read(&f, got + n, sizeof got - n);
        assert_true(part > 0);
        n += (size_t)part;
        ring_enter(&w->ring, true, 0);
    }
    step(w, "all read", 1);
    send_bytes(w, fd, 2, big, sizeof big);
    step(w, "no room", 0);
    cancel(w, 2, -1, RING_USER_DATA(RING_SEND, 0, 2), 0);
    step(w, "cancelled", 2);
    gone(w, fd);
    far_close(&f);
}

static void script_send_cut_by_shutdown(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    send_bytes(w, fd, 1, big, sizeof big);
    step(w, "no room", 0);
    shut(w, fd, SHUT_RDWR);
    step(w, "shut", 1);
    gone(w, fd);
    far_close(&f);
}

static void script_send_to_a_closed_end(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    far_close(&f);
    step(w, "closed", 0);
    send_bytes(w, fd, 1, "first", 5);
    step(w, "send", 1);
    send_bytes(w, fd, 2, "second", 6);
    step(w, "send", 1);
    give(w, 0);
    arm_recv(w, fd, 1);
    step(w, "receive", 1);
    gone(w, fd);
}

static void script_send_vector(struct world *w)
{
    struct iovec *parts = malloc(3 * sizeof *parts);
    struct msghdr *m = calloc(1, sizeof *m);
    struct far f;
    int fd = connected(w, &f);

    parts[0] = (struct iovec){.iov_base = (char[]){"one "}, .iov_len = 4};
    parts[1] = (struct iovec){.iov_base = (char[]){"two "}, .iov_len = 4};
    parts[2] = (struct iovec){.iov_base = (char[]){"three"}, .iov_len = 5};
    m->msg_iov = parts;
    m->msg_iovlen = 3;
    struct io_uring_sqe *s = sqe(w, RING_SEND, 1);
    io_uring_prep_rw(IORING_OP_SENDMSG, s, fd, m, 1, 0);
    s->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
    ring_enter(&w->ring, false, 0);
    free(parts);
    free(m);
    step(w, "sent", 1);
    far_say(&f);
    send_bytes(w, fd, 2, "", 0);
    step(w, "nothing sent", 1);
    gone(w, fd);
    far_close(&f);
}

static void script_full_completion_queue(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    for (unsigned i = 0; i < BUFFERS; i++)
        give(w, i);
    char bytes[6 * BUFFER_BYTES + 1];
    memset(bytes, 'x', sizeof bytes - 1);
    bytes[sizeof bytes - 1] = '\0';
    far_write(&f, bytes);
    step(w, "written", 0);
    for (unsigned i = 0; i < 14; i++) /* of 16 places */
        cancel(w, i, -1, 1, 0);
    arm_recv(w, fd, 1);
    step(w, "received", 17);
    gone(w, fd);
    far_close(&f);
}

/* ---- scripts: accept ---- */

static void script_accept(struct world *w)
{
    int l = listening(w);
    struct far f[3];

    arm_accept(w, l, 1, true);
    step(w, "armed", 0);
    f[0] = far_connect(w);
    f[1] = far_connect(w);
    settle(w, "two clients", 2);
    for (unsigned i = 0; i < w->n_done; i++)
        gone(w, w->done[i].result);
    w->n_done = 0;
    far_say(&f[0]);
    far_say(&f[1]);
    arm_accept(w, l, 2, false);
    cancel(w, 1, -1, RING_USER_DATA(RING_ACCEPT, 0, 1), 0);
    step(w, "cancelled", 2);
    f[2] = far_connect(w);
    settle(w, "once", 1);
    gone(w, w->done[0].result);
    w->n_done = 0;
    arm_accept(w, l, 3, true);
    step(w, "armed", 0);
    shut(w, l, SHUT_RDWR);
    step(w, "shut", 1);
    arm_accept(w, l, 4, true);
    step(w, "armed again", 1);
    for (unsigned i = 0; i < 3; i++)
        far_close(&f[i]);
    f[0] = far_connect(w);
    if (f[0].c) { /* the real one is told by connect() */
        char byte;
        f[0].fd = far_read(&f[0], &byte, 1);
    }
    say_result(w, "connect", f[0].fd);
    far_close(&f[0]);
    listener_gone(w, l);
}

static void script_accept_on_a_closed_listener(struct world *w)
{
    int l = listening(w);
    struct far f;

    arm_accept(w, l, 1, true);
    step(w, "armed", 0);
    gone(w, l);
    f = far_connect(w);
    settle(w, "still accepts", 1);
    gone(w, w->done[0].result);
    w->n_done = 0;
    far_say(&f);
    far_close(&f);
    cancel(w, 1, -1, 0, IORING_ASYNC_CANCEL_ANY);
    /* The wake-up's read goes too: two. */
    step(w, "cancelled", 2);
    if (family == AF_UNIX) {
        union any_address a;
        stream_address(w, &a);
        w->sys->unlink(w->sys->kernel, a.local.sun_path);
    }
}

static void script_clients_of_a_shut_listener(struct world *w)
{
    int l = listening(w);
    struct far f = far_connect(w);

    step(w, "connected", 0);
    listener_gone(w, l);
    far_say(&f);
    far_close(&f);
}

/* The table is full up to the highest descriptor: accept says so, client or not. */
static void script_accept_with_a_full_table(struct world *w)
{
    int l = listening(w);
    struct rlimit before, low;
    int next = w->sys->eventfd(w->sys->kernel);

    assert_true(next >= 0);
    gone(w, next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = (rlim_t)next;
    if (w->k)
        sim_set_descriptors(w->k, (unsigned)next);
    else
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    arm_accept(w, l, 1, true);
    step(w, "full", 1);
    if (w->k)
        sim_set_descriptors(w->k, 0);
    else
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    arm_accept(w, l, 2, true);
    step(w, "room", 0);
    w->sys->shutdown(w->sys->kernel, l, SHUT_RDWR);
    step(w, "shut", 1);
    listener_gone(w, l);
}

static void script_raised_limit(struct world *w)
{
    int l = listening(w);
    struct rlimit before, low;
    struct far f;
    int next = w->sys->eventfd(w->sys->kernel);

    /* The limit counts as it was when the request was made. */
    assert_true(next >= 0);
    gone(w, next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = (rlim_t)next + 1; /* room for the far end, or for one accepted */
    if (w->k)
        sim_set_descriptors(w->k, (unsigned)next + 1);
    else
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    arm_accept(w, l, 1, true);
    step(w, "armed", 0);
    int filler = w->sys->eventfd(w->sys->kernel);
    assert_int_equal(filler, next);
    if (w->k)
        sim_set_descriptors(w->k, 0);
    else
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    f = far_connect(w);
    step(w, "raised", 1);
    arm_accept(w, l, 2, true);
    settle(w, "armed again", 1);
    gone(w, w->done[0].result);
    w->n_done = 0;
    gone(w, filler);
    far_close(&f);
    w->sys->shutdown(w->sys->kernel, l, SHUT_RDWR);
    step(w, "shut", 1);
    listener_gone(w, l);
}

/* ---- scripts: cancel, misuse ---- */

static void script_cancel(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    cancel(w, 1, -1, RING_USER_DATA(RING_RECV, 0, 9), 0);
    cancel(w, 2, -1, RING_USER_DATA(RING_RECV, 0, 9), IORING_ASYNC_CANCEL_ALL);
    cancel(w, 3, fd, 0, IORING_ASYNC_CANCEL_FD);
    cancel(w, 4, fd, 0, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL);
    cancel(w, 5, 1000, 0, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL);
    cancel(w, 6, fd, 0, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ANY);
    cancel(w, 7, -1, 0, 1u << 20);
    step(w, "nothing to cancel", 7);
    arm_recv(w, fd, 1);
    send_bytes(w, fd, 1, big, sizeof big);
    step(w, "armed", 0);
    cancel(w, 1, fd, 0, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL);
    step(w, "all of a descriptor", 3);
    arm_recv(w, fd, 2);
    step(w, "armed", 0);
    cancel(w, 2, -1, RING_USER_DATA(RING_RECV, 0, 2), IORING_ASYNC_CANCEL_ALL);
    step(w, "all of a name", 2);
    cancel(w, 3, -1, 1, 0)->flags = IOSQE_CQE_SKIP_SUCCESS;
    step(w, "silent, but it fails", 1);
    arm_recv(w, fd, 3);
    cancel(w, 4, -1, RING_USER_DATA(RING_RECV, 0, 3), 0)->flags = IOSQE_CQE_SKIP_SUCCESS;
    step(w, "silent", 1);
    gone(w, fd);
    far_close(&f);
}

static void script_restrictions(struct world *w)
{
    io_uring_prep_rw(IORING_OP_NOP, sqe(w, RING_SEND, 1), -1, NULL, 0, 0);
    io_uring_prep_rw(IORING_OP_OPENAT, sqe(w, RING_SEND, 2), -1, NULL, 0, 0);
    io_uring_prep_rw(IORING_OP_CLOSE, sqe(w, RING_SEND, 3), 0, NULL, 0, 0);
    io_uring_prep_rw(IORING_OP_TIMEOUT, sqe(w, RING_SEND, 4), -1, NULL, 0, 0);
    io_uring_prep_rw(250, sqe(w, RING_SEND, 5), -1, NULL, 0, 0);
    io_uring_prep_rw(IORING_OP_SHUTDOWN, sqe(w, RING_SEND, 6), -1, NULL, 0, 0);
    cancel(w, 1, -1, 1, 0)->flags = IOSQE_IO_LINK;
    cancel(w, 2, -1, 1, 0)->flags = IOSQE_ASYNC;
    cancel(w, 3, -1, 1, 0)->flags = IOSQE_IO_DRAIN;
    step(w, "not allowed", 9);
    say_result(w, "register",
               w->sys->ring_register(w->sys->kernel, &w->ring, IORING_REGISTER_EVENTFD, NULL, 0));
}

static void script_misuse(struct world *w)
{
    struct far f;
    int fd = connected(w, &f), l = listening(w), event = w->sys->eventfd(w->sys->kernel);
    char bytes[8];

    give(w, 0);
    arm_recv(w, fd, 1)->flags = 0;
    arm_recv(w, fd, 2)->ioprio |= 1u << 12;
    arm_recv(w, fd, 3)->buf_group = 77;
    arm_recv(w, fd, 4)->msg_flags = MSG_WAITALL;
    arm_recv(w, l, 5);
    arm_recv(w, event, 6);
    arm_recv(w, fd, 7)->off = 1;
    arm_accept(w, fd, 1, true);
    arm_accept(w, event, 2, true);
    step(w, "receives and accepts", 9);
    send_bytes(w, l, 1, "x", 1);
    send_bytes(w, event, 2, "x", 1);
    io_uring_prep_rw(IORING_OP_FSYNC, sqe(w, RING_FILE_SYNC, 1), fd, NULL, 0, 0);
    io_uring_prep_rw(IORING_OP_FSYNC, sqe(w, RING_FILE_SYNC, 2), event, bytes, 0, 0);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 1), event, bytes, 4, 0);
    struct io_uring_sqe *s = sqe(w, RING_ACCEPT, 3);
    io_uring_prep_rw(IORING_OP_ACCEPT, s, l, NULL, 1, 0);
    arm_accept(w, l, 4, true);
    io_uring_prep_rw(IORING_OP_ACCEPT, s = sqe(w, RING_ACCEPT, 5), l, NULL, 0, 0);
    s->accept_flags = 1;
    step(w, "others", 7);
    gone(w, event);
    gone(w, fd);
    far_close(&f);
    w->sys->shutdown(w->sys->kernel, l, SHUT_RDWR);
    step(w, "shut", 1);
    listener_gone(w, l);
}

static void script_eventfd(struct world *w)
{
    uint64_t value = 0;
    int fd = w->sys->eventfd(w->sys->kernel);

    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 1), fd, &value, 8, 0);
    step(w, "armed", 0);
    w->sys->eventfd_wake(w->sys->kernel, fd);
    step(w, "woken", 1);
    say(w, "%u\n", (unsigned)value);
    w->sys->eventfd_wake(w->sys->kernel, fd);
    w->sys->eventfd_wake(w->sys->kernel, fd);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 2), fd, &value, 8, 0);
    step(w, "woken twice before", 1);
    say(w, "%u\n", (unsigned)value);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 3), fd, &value, 8, 0);
    step(w, "armed", 0);
    cancel(w, 1, -1, RING_USER_DATA(RING_FILE_READ, 0, 3), 0);
    step(w, "cancelled", 2);
    gone(w, fd);
}

static void script_files(struct world *w)
{
    char path[96], text[] = "0123456789", got[16] = {0};
    void *k = w->sys->kernel;
    uint64_t size = 0;

    snprintf(path, sizeof path, "%s/file", w->directory);
    say_result(w, "open", w->sys->open(k, path, O_RDWR, 0));
    int fd = w->sys->open(k, path, O_RDWR | O_CREAT, 0600);
    int in = w->sys->open(k, path, O_RDONLY, 0), out = w->sys->open(k, path, O_WRONLY, 0);
    int directory = w->sys->open(k, w->directory, O_RDONLY | O_DIRECTORY, 0);
    say_result(w, "open again", w->sys->open(k, path, O_RDWR | O_CREAT | O_EXCL, 0600));
    say_result(w, "open directory", w->sys->open(k, w->directory, O_RDWR, 0));
    say_result(w, "open as directory", w->sys->open(k, path, O_RDONLY | O_DIRECTORY, 0));
    io_uring_prep_rw(IORING_OP_WRITE, sqe(w, RING_FILE_WRITE, 1), fd, text, 10, 0);
    step(w, "write", 1);
    io_uring_prep_rw(IORING_OP_WRITE, sqe(w, RING_FILE_WRITE, 2), fd, text, 2, 12);
    step(w, "write behind the end", 1);
    io_uring_prep_rw(IORING_OP_WRITE, sqe(w, RING_FILE_WRITE, 3), in, text, 2, 0);
    io_uring_prep_rw(IORING_OP_WRITE, sqe(w, RING_FILE_WRITE, 4), fd, text, 0, 0);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 1), out, got, 2, 0);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 2), fd, got, 16, 8);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 3), fd, got, 16, 14);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 4), fd, got, 16, 99);
    struct io_uring_sqe *s = sqe(w, RING_FILE_SYNC, 1);
    io_uring_prep_rw(IORING_OP_FSYNC, s, fd, NULL, 0, 0);
    s->fsync_flags = IORING_FSYNC_DATASYNC;
    step(w, "others", 7);
    say(w, "'%.6s'\n", got[2] ? "hole" : got);
    say_result(w, "size", w->sys->file_size(k, fd, &size));
    say(w, "%u bytes\n", (unsigned)size);
    say_result(w, "sync directory", w->sys->sync_directory(k, path));
    say_result(w, "rename", w->sys->rename(k, path, path));
    say_result(w, "unlink", w->sys->unlink(k, path));
    say_result(w, "unlink", w->sys->unlink(k, path));
    say_result(w, "rename", w->sys->rename(k, path, path));
    say_result(w, "unlink directory", w->sys->unlink(k, w->directory));
    gone(w, fd);
    gone(w, in);
    gone(w, out);
    gone(w, directory);
}

static void script_names(struct world *w)
{
    union any_address a;
    void *k = w->sys->kernel;
    int one = 1;

    w->port = 0;
    family = AF_UNIX;
    socklen_t len = stream_address(w, &a);
    int x = w->sys->socket(k, AF_UNIX, SOCK_STREAM, 0),
        y = w->sys->socket(k, AF_UNIX, SOCK_STREAM, 0);
    say_result(w, "is_socket", w->sys->is_socket(k, a.local.sun_path));
    say_result(w, "connect", w->sys->connect(k, y, &a.any, len));
    say_result(w, "bind", w->sys->bind(k, x, &a.any, len));
    say_result(w, "bind twice", w->sys->bind(k, x, &a.any, len));
    say_result(w, "is_socket", w->sys->is_socket(k, a.local.sun_path));
    say_result(w, "connect", w->sys->connect(k, y, &a.any, len));
    say_result(w, "bind", w->sys->bind(k, y, &a.any, len));
    say_result(w, "listen", w->sys->listen(k, x, 1));
    say_result(w, "connect", w->sys->connect(k, y, &a.any, len));
    gone(w, y);
    gone(w, x);
    y = w->sys->socket(k, AF_UNIX, SOCK_STREAM, 0);
    say_result(w, "connect", w->sys->connect(k, y, &a.any, len));
    say_result(w, "is_socket", w->sys->is_socket(k, w->directory));
    say_result(w, "unlink", w->sys->unlink(k, a.local.sun_path));
    gone(w, y);

    family = AF_INET;
    x = listening(w);
    y = w->sys->socket(k, AF_INET, SOCK_STREAM, 0);
    len = loopback(&a, w->port);
    say_result(w, "bind", w->sys->bind(k, y, &a.any, len));
    w->sys->setsockopt(k, y, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    say_result(w, "bind, SO_REUSEADDR", w->sys->bind(k, y, &a.any, len));
    w->sys->setsockopt(k, y, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    say_result(w, "bind, SO_REUSEPORT of one", w->sys->bind(k, y, &a.any, len));
    a.v4.sin_addr.s_addr = 0;
    say_result(w, "bind any", w->sys->bind(k, y, &a.any, len));
    a.v4.sin_addr.s_addr = htonl(0x7f000001u);
    a.v4.sin_port = 0;
    int z = w->sys->socket(k, AF_INET, SOCK_STREAM, 0);
    w->sys->setsockopt(k, z, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    say_result(w, "bind", w->sys->bind(k, z, &a.any, len));
    w->sys->getsockname(k, z, &a.any, &len);
    say_result(w, "bind, SO_REUSEPORT of both", w->sys->bind(k, y, &a.any, len));
    a.v4.sin_addr.s_addr = htonl(0xc6336401u);
    gone(w, z);
    z = w->sys->socket(k, AF_INET, SOCK_STREAM, 0);
    say_result(w, "bind elsewhere", w->sys->bind(k, z, &a.any, len));
    say_result(w, "shutdown", w->sys->shutdown(k, z, SHUT_RDWR));
    len = sizeof a;
    say_result(w, "getpeername", w->sys->getpeername(k, z, &a.any, &len));
    gone(w, z);
    say_result(w, "getsockname of nothing", w->sys->getsockname(k, z, &a.any, &len));
    gone(w, y);
    gone(w, x);
}

/* ---- scripts: datagrams ---- */

struct far_udp {
    struct world *w;
    struct sim_udp *u;
    int fd;
    union any_address at;
};

static struct far_udp far_udp_open(struct world *w)
{
    struct far_udp f = {.w = w, .fd = -1};
    socklen_t len = loopback(&f.at, 40007);

    if (w->k) {
        f.u = sim_udp_open(w->k, &f.at.any, len);
        return f;
    }
    len = loopback(&f.at, 0);
    f.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f.fd, &f.at.any, len), 0);
    assert_int_equal(getsockname(f.fd, &f.at.any, &len), 0);
    return f;
}

static void far_udp_send(struct far_udp *f, const char *bytes, size_t n)
{
    union any_address to;
    socklen_t len = loopback(&to, f->w->port);

    if (f->u)
        sim_udp_send(f->u, &to.any, len, bytes, n);
    else
        assert_int_equal(sendto(f->fd, bytes, n, 0, &to.any, len), (int)n);
}

static void far_udp_close(struct far_udp *f)
{
    if (f->u)
        sim_udp_close(f->u);
    else
        close(f->fd);
}

static struct io_uring_sqe *arm_recvmsg(struct world *w, int fd, unsigned slot,
                                        struct msghdr *shape)
{
    struct io_uring_sqe *s = sqe(w, RING_DATAGRAM_RECV, slot);

    io_uring_prep_rw(IORING_OP_RECVMSG, s, fd, shape, 1, 0);
    s->ioprio = IORING_RECV_MULTISHOT;
    s->flags = IOSQE_BUFFER_SELECT;
    s->buf_group = GROUP;
    return s;
}

/* As step(), and what the buffer of the first completion holds. */
static void step_datagram(struct world *w, const char *name, struct msghdr *shape,
                          const struct far_udp *f)
{
    settle(w, name, 1);
    const struct done *d = &w->done[0];
    if (w->n_done && d->result > 0 && d->flags & IORING_CQE_F_BUFFER) {
        char *at = w->memory + (d->flags >> IORING_CQE_BUFFER_SHIFT) * BUFFER_BYTES;
        struct io_uring_recvmsg_out *out = io_uring_recvmsg_validate(at, d->result, shape);
        assert_non_null(out);
        unsigned n = io_uring_recvmsg_payload_length(out, d->result, shape);
        say(w, "  name %u, control %u, payload %u (%u), flags %#x, '%.*s'\n", out->namelen,
            out->controllen, out->payloadlen, n, out->flags, n < 16 ? (int)n : 16,
            (char *)io_uring_recvmsg_payload(out, shape));
        if (shape->msg_namelen >= sizeof(struct sockaddr_in))
            say(w, "  from the far end: %d\n",
                !memcmp(io_uring_recvmsg_name(out), &f->at.v4, sizeof f->at.v4));
        struct cmsghdr *c = io_uring_recvmsg_cmsg_firsthdr(out, shape);
        if (c && out->controllen) {
            struct in_pktinfo info;
            memcpy(&info, (char *)c + CMSG_LEN(0), sizeof info);
            say(w, "  control %d %d %u, to %#x\n", c->cmsg_level, c->cmsg_type,
                (unsigned)c->cmsg_len, ntohl(info.ipi_addr.s_addr));
        }
    }
    w->n_done = 0;
}

static void script_datagrams(struct world *w)
{
    static char large[300];
    struct msghdr shape = {.msg_namelen = sizeof(struct sockaddr_in)};
    int fd = bound(w, SOCK_DGRAM), one = 1;
    struct far_udp f = far_udp_open(w);

    memset(large, 'x', sizeof large);
    arm_recvmsg(w, fd, 1, &shape);
    step(w, "no buffer", 1);
    for (unsigned i = 0; i < BUFFERS; i++)
        give(w, i);
    arm_recvmsg(w, fd, 2, &shape);
    step(w, "armed", 0);
    far_udp_send(&f, "hello", 5);
    step_datagram(w, "datagram", &shape, &f);
    far_udp_send(&f, large, sizeof large);
    step_datagram(w, "larger than a buffer", &shape, &f);
    far_udp_send(&f, "", 0);
    step_datagram(w, "empty", &shape, &f);
    w->sys->setsockopt(w->sys->kernel, fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
    shape.msg_controllen = CMSG_SPACE(sizeof(struct in_pktinfo));
    arm_recvmsg(w, fd, 3, &shape);
    step(w, "armed", 0);
    far_udp_send(&f, "hello", 5);
    step_datagram(w, "with control data", &shape, &f);
    cancel(w, 1, fd, 0, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL);
    step(w, "cancelled", 2);
    struct msghdr huge = {.msg_namelen = 2000};
    arm_recvmsg(w, fd, 4, &huge);
    far_udp_send(&f, "hello", 5);
    step(w, "no room for the header", 1);
    struct iovec iov[2] = {{.iov_len = 0}};
    shape.msg_controllen = 0;
    arm_recvmsg(w, fd, 5, &shape);
    step_datagram(w, "no room for control data", &shape, &f);
    shape.msg_iov = iov;
    shape.msg_iovlen = 2;
    arm_recvmsg(w, fd, 6, &shape);
    step(w, "two vectors", 1);
    cancel(w, 2, fd, 0, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL);
    step(w, "cancelled", 2);
    far_udp_close(&f);
    gone(w, fd);
}

static void script_datagram_shutdown(struct world *w)
{
    struct msghdr shape = {.msg_namelen = sizeof(struct sockaddr_in)};
    int fd = bound(w, SOCK_DGRAM);
    struct far_udp f = far_udp_open(w);

    for (unsigned i = 0; i < 4; i++)
        give(w, i);
    arm_recvmsg(w, fd, 1, &shape);
    step(w, "armed", 0);
    shut(w, fd, SHUT_RDWR);
    step(w, "shut", 0);
    far_udp_send(&f, "late", 4);
    step(w, "datagram", 0);
    cancel(w, 1, fd, 0, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL);
    step(w, "cancelled", 1);
    far_udp_close(&f);
    gone(w, fd);
}

static void script_datagram_sends(struct world *w)
{
    static char large[70000];
    int fd = bound(w, SOCK_DGRAM);
    struct far_udp f = far_udp_open(w);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6,
                               .sin6_port = htons(1),
                               .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct iovec iov = {.iov_base = large, .iov_len = 5};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    union {
        char space[CMSG_SPACE(sizeof(struct in_pktinfo))];
        struct cmsghdr header;
    } control = {0};
    struct in_pktinfo info = {0};
    union any_address nowhere;

    for (unsigned i = 0; i < 7; i++) {
        m.msg_name = &f.at;
        m.msg_namelen = sizeof f.at.v4;
        iov.iov_len = 5;
        if (i == 1)
            m.msg_name = NULL;
        if (i == 2)
            iov.iov_len = sizeof large;
        if (i == 3) {
            m.msg_namelen = loopback(&nowhere, 0);
            m.msg_name = &nowhere;
        }
        if (i == 4) {
            m.msg_name = &six;
            m.msg_namelen = sizeof six;
        }
        if (i >= 5) {
            control.header.cmsg_level = IPPROTO_IP;
            control.header.cmsg_type = IP_PKTINFO;
            control.header.cmsg_len = CMSG_LEN(sizeof info);
            info.ipi_spec_dst.s_addr = htonl(i == 5 ? INADDR_LOOPBACK : 0xc6336401u);
            memcpy(CMSG_DATA(&control.header), &info, sizeof info);
            m.msg_control = &control;
            m.msg_controllen = sizeof control.space;
        }
        io_uring_prep_rw(IORING_OP_SENDMSG, sqe(w, RING_DATAGRAM_SEND, i), fd, &m, 1, 0);
        step(w, "send", 1);
    }
    far_udp_close(&f);
    gone(w, fd);
}

/* ---- the list ---- */

struct script {
    const char *name;
    script_fn *fn;
    int family; /* 0: no stream in it */
    unsigned cq_entries;
};

static void run_script(void **state)
{
    const struct script *s = *state;

    family = s->family;
    compare(s->fn, s->cq_entries);
}

#define BOTH(name)                                                                                 \
    {#name ", TCP", script_##name, AF_INET, 64},                                                   \
    {                                                                                              \
#name ", UNIX", script_##name, AF_UNIX, 64                                                 \
    }
#define TCP(name)                                                                                  \
    {                                                                                              \
#name ", TCP", script_##name, AF_INET, 64                                                  \
    }
#define OTHER(name)                                                                                \
    {                                                                                              \
#name, script_##name, 0, 64                                                                \
    }

static struct script scripts[] = {
    BOTH(receive),
    BOTH(receive_ended_by_shutdown),
    BOTH(shut_for_writing),
    BOTH(receive_without_buffers),
    BOTH(receive_once),
    TCP(reset),
    TCP(reset_told_to_a_send),
    TCP(reset_after_data),
    BOTH(far_end_closed_with_unread_data),
    BOTH(close_under_a_receive),
    BOTH(close_with_unread_data),
    BOTH(data_for_a_shut_side),
    BOTH(linger_zero),
    BOTH(send_that_waits),
    BOTH(send_cut_by_shutdown),
    BOTH(send_to_a_closed_end),
    BOTH(send_vector),
    {"full_completion_queue", script_full_completion_queue, AF_INET, 16},
    BOTH(accept),
    BOTH(accept_on_a_closed_listener),
    BOTH(clients_of_a_shut_listener),
    TCP(accept_with_a_full_table),
    TCP(raised_limit),
    BOTH(cancel),
    OTHER(restrictions),
    TCP(misuse),
    OTHER(eventfd),
    OTHER(files),
    OTHER(names),
    OTHER(datagrams),
    OTHER(datagram_shutdown),
    OTHER(datagram_sends),
};

int main(void)
{
    struct CMUnitTest tests[sizeof scripts / sizeof *scripts];

    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++)
        tests[i] = (struct CMUnitTest){.name = scripts[i].name,
                                       .test_func = run_script,
                                       .initial_state = &scripts[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
