#include "conformance.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Two worlds with one face. In the real one the far ends are plain sockets on the loopback, in the
 * fake one they are the fake kernel's clients. Waiting is for a number of completions; that
 * nothing more comes is waited for a short while, after which it is taken for true.
 */

char big[4u << 20];

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

/* ---- the transcript --------------------------------------------------------------------- */

void say(struct world *w, const char *format, ...)
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

void say_result(struct world *w, const char *what, int result)
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

void settle(struct world *w, const char *step, unsigned n)
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

void step(struct world *w, const char *name, unsigned n)
{
    settle(w, name, n);
    w->n_done = 0;
}

/* ---- worlds ----------------------------------------------------------------------------- */

void give(struct world *w, unsigned id)
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

void compare(script_fn *script, unsigned cq_entries)
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

/* ---- sockets ---------------------------------------------------------------------------- */

socklen_t loopback(union any_address *a, uint16_t port)
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

int family;

socklen_t stream_address(const struct world *w, union any_address *a)
{
    return family == AF_UNIX ? in_directory(w, a) : loopback(a, w->port);
}

int bound(struct world *w, int type)
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

int listening(struct world *w)
{
    int bytes = 32768;

    w->port = 0;
    int fd = bound(w, SOCK_STREAM);
    /* Fixed, so that the kernel does not make room for all of big. */
    w->sys->setsockopt(w->sys->kernel, fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    assert_int_equal(w->sys->listen(w->sys->kernel, fd, 16), 0);
    return fd;
}

void gone(struct world *w, int fd)
{
    assert_int_equal(w->sys->close(w->sys->kernel, fd), 0);
}

void listener_gone(struct world *w, int fd)
{
    union any_address a;

    w->sys->shutdown(w->sys->kernel, fd, SHUT_RDWR);
    gone(w, fd);
    if (family == AF_UNIX) {
        stream_address(w, &a);
        assert_int_equal(w->sys->unlink(w->sys->kernel, a.local.sun_path), 0);
    }
}

/* ---- far ends --------------------------------------------------------------------------- */

struct far far_connect(struct world *w)
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

void far_write(struct far *f, const char *bytes)
{
    int n = (int)strlen(bytes);

    if (f->c)
        assert_int_equal(sim_client_write(f->c, bytes, (size_t)n), n);
    else
        assert_int_equal(send(f->fd, bytes, (size_t)n, MSG_NOSIGNAL), n);
}

int far_read(struct far *f, char *to, size_t n)
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

void far_say(struct far *f)
{
    char bytes[64];
    int result = far_read(f, bytes, sizeof bytes);

    say(f->w, "far end reads: %s '%.*s'\n", outcome(result), result > 0 ? result : 0, bytes);
}

void far_say_nothing(struct far *f)
{
    char byte;
    ssize_t result = f->c ? sim_client_read(f->c, &byte, 1) : recv(f->fd, &byte, 1, 0);

    say(f->w, "far end reads: %s\n", outcome(!f->c && result < 0 ? -errno : (int)result));
}

void far_end_of_writing(struct far *f)
{
    if (f->c)
        sim_client_shutdown(f->c);
    else
        assert_int_equal(shutdown(f->fd, SHUT_WR), 0);
}

void far_close(struct far *f)
{
    if (f->c)
        sim_client_close(f->c);
    else if (f->fd >= 0)
        close(f->fd);
}

void far_reset(struct far *f)
{
    struct linger linger = {.l_onoff = 1};

    if (f->c) {
        sim_client_reset(f->c);
        return;
    }
    assert_int_equal(setsockopt(f->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    close(f->fd);
}

/* ---- requests --------------------------------------------------------------------------- */

struct io_uring_sqe *sqe(struct world *w, unsigned kind, unsigned slot)
{
    struct io_uring_sqe *s = ring_sqe(&w->ring, RING_USER_DATA(kind, 0, slot));

    assert_non_null(s);
    return s;
}

void arm_accept(struct world *w, int fd, unsigned slot, bool multishot)
{
    struct io_uring_sqe *s = sqe(w, RING_ACCEPT, slot);

    io_uring_prep_rw(IORING_OP_ACCEPT, s, fd, NULL, 0, 0);
    s->ioprio = multishot ? IORING_ACCEPT_MULTISHOT : 0;
    s->accept_flags = SOCK_CLOEXEC;
}

struct io_uring_sqe *arm_recv(struct world *w, int fd, unsigned slot)
{
    struct io_uring_sqe *s = sqe(w, RING_RECV, slot);

    io_uring_prep_rw(IORING_OP_RECV, s, fd, NULL, 0, 0);
    s->ioprio = IORING_RECV_MULTISHOT;
    s->flags = IOSQE_BUFFER_SELECT;
    s->buf_group = GROUP;
    return s;
}

struct io_uring_sqe *send_bytes(struct world *w, int fd, unsigned slot, const char *bytes, size_t n)
{
    struct io_uring_sqe *s = sqe(w, RING_SEND, slot);

    io_uring_prep_rw(IORING_OP_SEND, s, fd, bytes, (unsigned)n, 0);
    s->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
    return s;
}

struct io_uring_sqe *cancel(struct world *w, unsigned slot, int fd, uint64_t user_data,
                            unsigned flags)
{
    struct io_uring_sqe *s = sqe(w, RING_CANCEL, slot);

    io_uring_prep_rw(IORING_OP_ASYNC_CANCEL, s, fd, NULL, 0, 0);
    s->addr = user_data;
    s->cancel_flags = flags;
    return s;
}

void shut(struct world *w, int fd, int how)
{
    say_result(w, "shutdown", w->sys->shutdown(w->sys->kernel, fd, how));
}

int connected(struct world *w, struct far *ret_far)
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
