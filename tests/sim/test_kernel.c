#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "kernel.h"

/*
 * The fake kernel by itself: one ring that may block (so that time passes in its enter), driven
 * through core/ring, and the far ends through the test's own handles. Completions are recorded by
 * user_data's slot; each test looks at those it caused.
 */

#define BUFFERS      8u
#define BUFFER_BYTES 128u
#define DONE_MAX     512u
#define SECOND       1000000000u

struct done {
    unsigned kind, slot;
    int32_t result;
    uint32_t flags;
};

struct bench {
    struct sim_kernel *k;
    const struct system *sys;
    struct ring ring;
    struct done done[DONE_MAX];
    unsigned n_done;
    struct io_uring_buf_ring *buffers;
    char memory[BUFFERS][BUFFER_BYTES];
    uint16_t tail;
};

struct kind {
    struct bench *b;
    unsigned kind;
};
static struct kind kinds[RING_KINDS];

static void record(void *owner, const struct ring_completion *c)
{
    const struct kind *kind = owner;
    struct bench *b = kind->b;

    assert_true(b->n_done < DONE_MAX);
    b->done[b->n_done++] = (struct done){kind->kind, c->slot, c->result, c->flags};
}

static void give(struct bench *b, unsigned id)
{
    struct io_uring_buf *buf = &b->buffers->bufs[b->tail & (BUFFERS - 1)];

    buf->addr = (uintptr_t)b->memory[id];
    buf->len = BUFFER_BYTES;
    buf->bid = (uint16_t)id;
    __atomic_store_n(&b->buffers->tail, ++b->tail, __ATOMIC_RELEASE);
}

static void start(struct bench *b, uint64_t seed, const struct sim_faults *faults,
                  unsigned cq_entries)
{
    memset(b, 0, sizeof *b);
    b->k = sim_kernel_new(seed, faults);
    b->sys = sim_system(b->k);
    sim_blocking_enter(b->k, true);
    assert_int_equal(ring_init(&b->ring, b->sys, 8, cq_entries), 0);
    for (unsigned kind = RING_ACCEPT; kind < RING_KINDS; kind++) {
        kinds[kind] = (struct kind){b, kind};
        if (kind != RING_WAKE)
            ring_on(&b->ring, kind, record, &kinds[kind]);
    }
    assert_int_equal(ring_enable(&b->ring), 0);
    b->buffers = aligned_alloc(4096, 4096);
    memset(b->buffers, 0, 4096);
    struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)b->buffers, .ring_entries = BUFFERS};
    reg.bgid = 1;
    assert_int_equal(b->sys->ring_register(b->sys->kernel, &b->ring, IORING_REGISTER_PBUF_RING,
                                           &reg, 1),
                     0);
}

static void end(struct bench *b)
{
    const char *wrong = sim_violation(b->k);

    if (wrong)
        fail_msg("%s", wrong);
    ring_deinit(&b->ring);
    assert_int_equal(sim_descriptors(b->k), 0);
    assert_int_equal(sim_files_held(b->k), 0);
    sim_kernel_free(b->k);
    free(b->buffers);
}

/* Lets time pass; every completion is recorded. */
static void run(struct bench *b, uint64_t ns)
{
    uint64_t until = sim_now_ns(b->k) + ns;

    do {
        uint64_t now = sim_now_ns(b->k);
        assert_int_equal(ring_enter(&b->ring, true, until > now ? until - now : 0), 0);
        ring_dispatch(&b->ring, ring_mark(&b->ring), DONE_MAX);
        ring_wake_arm(&b->ring);
    } while (sim_now_ns(b->k) < until || *b->ring.cq_head != *b->ring.cq_tail ||
             ring_overflowed(&b->ring));
}

/* The n-th completion of a kind and slot. */
static const struct done *completion(const struct bench *b, unsigned kind, unsigned slot,
                                     unsigned n)
{
    for (unsigned i = 0; i < b->n_done; i++)
        if (b->done[i].kind == kind && b->done[i].slot == slot && !n--)
            return &b->done[i];
    return NULL;
}

static void assert_done(const struct bench *b, unsigned kind, unsigned slot, unsigned n,
                        int32_t result, bool more)
{
    const struct done *d = completion(b, kind, slot, n);

    assert_non_null(d);
    assert_int_equal(d->result, result);
    assert_int_equal(!!(d->flags & IORING_CQE_F_MORE), more);
}

static struct io_uring_sqe *sqe(struct bench *b, unsigned kind, unsigned slot)
{
    struct io_uring_sqe *s = ring_sqe(&b->ring, RING_USER_DATA(kind, 0, slot));

    assert_non_null(s);
    return s;
}

static void arm_accept(struct bench *b, int fd, unsigned slot)
{
    struct io_uring_sqe *s = sqe(b, RING_ACCEPT, slot);

    io_uring_prep_rw(IORING_OP_ACCEPT, s, fd, NULL, 0, 0);
    s->ioprio = IORING_ACCEPT_MULTISHOT;
    s->accept_flags = SOCK_CLOEXEC;
}

static void arm_recv(struct bench *b, int fd, unsigned slot)
{
    struct io_uring_sqe *s = sqe(b, RING_RECV, slot);

    io_uring_prep_rw(IORING_OP_RECV, s, fd, NULL, 0, 0);
    s->ioprio = IORING_RECV_MULTISHOT;
    s->flags = IOSQE_BUFFER_SELECT;
    s->buf_group = 1;
}

static void send_bytes(struct bench *b, int fd, unsigned slot, const char *bytes, size_t n)
{
    struct io_uring_sqe *s = sqe(b, RING_SEND, slot);

    io_uring_prep_rw(IORING_OP_SEND, s, fd, bytes, (unsigned)n, 0);
    s->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
}

static const char *received(const struct bench *b, const struct done *d)
{
    assert_non_null(d);
    assert_true(d->flags & IORING_CQE_F_BUFFER);
    return b->memory[d->flags >> IORING_CQE_BUFFER_SHIFT];
}

static struct sockaddr_in v4(const char *text, uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

    assert_int_equal(inet_pton(AF_INET, text, &a.sin_addr), 1);
    return a;
}

static int listener(struct bench *b, uint16_t port, bool reuse)
{
    struct sockaddr_in at = v4("127.0.0.1", port);
    int one = 1, fd = b->sys->socket(b->sys->kernel, AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    if (reuse)
        assert_int_equal(b->sys->setsockopt(b->sys->kernel, fd, SOL_SOCKET, SO_REUSEPORT, &one,
                                            sizeof one),
                         0);
    assert_int_equal(b->sys->bind(b->sys->kernel, fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(b->sys->listen(b->sys->kernel, fd, 128), 0);
    return fd;
}

static struct sim_client *client(struct bench *b, uint16_t port)
{
    struct sockaddr_in to = v4("127.0.0.1", port);

    return sim_connect(b->k, (struct sockaddr *)&to, sizeof to, NULL, 0, 1000);
}

/* A listener on port 3000 and one accepted client. */
static int connected(struct bench *b, struct sim_client **ret_client)
{
    int l = listener(b, 3000, false);

    arm_accept(b, l, 1);
    *ret_client = client(b, 3000);
    run(b, SECOND);
    const struct done *d = completion(b, RING_ACCEPT, 1, 0);
    assert_non_null(d);
    assert_true(d->result >= 0);
    assert_int_equal(b->sys->shutdown(b->sys->kernel, l, SHUT_RDWR), 0);
    run(b, SECOND);
    assert_done(b, RING_ACCEPT, 1, 1, -EINVAL, false);
    assert_int_equal(b->sys->close(b->sys->kernel, l), 0);
    return d->result;
}

static int close_fd(struct bench *b, int fd)
{
    return b->sys->close(b->sys->kernel, fd);
}

static int shutdown_fd(struct bench *b, int fd)
{
    return b->sys->shutdown(b->sys->kernel, fd, SHUT_RDWR);
}

/* ---- streams ---- */

static void test_echo(void **state)
{
    struct bench b;
    struct sim_client *c;
    char answer[16] = {0};

    (void)state;
    start(&b, 1, NULL, 64);
    int fd = connected(&b, &c);
    give(&b, 0);
    give(&b, 1);
    arm_recv(&b, fd, 2);
    assert_int_equal(sim_client_write(c, "hello", 5), 5);
    run(&b, SECOND);
    assert_done(&b, RING_RECV, 2, 0, 5, true);
    assert_memory_equal(received(&b, completion(&b, RING_RECV, 2, 0)), "hello", 5);
    send_bytes(&b, fd, 3, "world", 5);
    run(&b, SECOND);
    assert_done(&b, RING_SEND, 3, 0, 5, false);
    assert_int_equal(sim_client_read(c, answer, sizeof answer), 5);
    assert_string_equal(answer, "world");
    assert_int_equal(sim_client_read(c, answer, sizeof answer), -EAGAIN);
    sim_client_shutdown(c);
    run(&b, SECOND);
    assert_done(&b, RING_RECV, 2, 1, 0, false);
    assert_int_equal(shutdown_fd(&b, fd), 0);
    assert_int_equal(close_fd(&b, fd), 0);
    run(&b, SECOND);
    assert_int_equal(sim_client_read(c, answer, sizeof answer), 0);
    sim_client_close(c);
    end(&b);
}

static void test_send_waits_for_room_and_is_cut_by_shutdown(void **state)
{
    static char big[1u << 20];
    struct bench b;
    struct sim_client *c;

    (void)state;
    start(&b, 2, NULL, 64);
    int fd = connected(&b, &c);
    send_bytes(&b, fd, 1, big, sizeof big);
    run(&b, SECOND);
    assert_null(completion(&b, RING_SEND, 1, 0));
    assert_int_equal(sim_requests(b.k, fd, IORING_OP_SEND), 1);
    assert_int_equal(shutdown_fd(&b, fd), 0);
    run(&b, SECOND);
    const struct done *d = completion(&b, RING_SEND, 1, 0);
    assert_non_null(d);
    assert_in_range(d->result, 65536, 2 * 65536);
    send_bytes(&b, fd, 2, big, 1);
    run(&b, SECOND);
    assert_done(&b, RING_SEND, 2, 0, -EPIPE, false);
    close_fd(&b, fd);
    sim_client_close(c);
    end(&b);
}

static void test_reader_drains_what_waits(void **state)
{
    static char big[1u << 20], got[1u << 20];
    struct bench b;
    struct sim_client *c;
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * 31 >> 3);
    start(&b, 3, NULL, 64);
    int fd = connected(&b, &c);
    send_bytes(&b, fd, 1, big, sizeof big);
    while (n < sizeof big) {
        run(&b, 1000000);
        int part = sim_client_read(c, got + n, sizeof got - n);
        assert_true(part > 0 || part == -EAGAIN);
        n += part > 0 ? (size_t)part : 0;
    }
    assert_memory_equal(big, got, sizeof big);
    assert_done(&b, RING_SEND, 1, 0, sizeof big, false);
    close_fd(&b, fd);
    sim_client_close(c);
    end(&b);
}

static void test_close_does_not_end_a_receive(void **state)
{
    struct bench b;
    struct sim_client *c;
    char byte;

    (void)state;
    start(&b, 4, NULL, 64);
    int fd = connected(&b, &c);
    for (unsigned i = 0; i < 4; i++)
        give(&b, i);
    arm_recv(&b, fd, 1);
    run(&b, 1000);
    assert_int_equal(close_fd(&b, fd), 0);
    assert_int_equal(sim_client_write(c, "ghost", 5), 5);
    run(&b, SECOND);
    assert_done(&b, RING_RECV, 1, 0, 5, true);
    assert_int_equal(sim_client_read(c, &byte, 1), -EAGAIN); /* no FIN */
    assert_int_equal(sim_requests_live(b.k), 2);             /* it and the wake-up's read */
    struct io_uring_sqe *s = sqe(&b, RING_CANCEL, 1);
    io_uring_prep_rw(IORING_OP_ASYNC_CANCEL, s, -1, NULL, 0, 0);
    s->addr = RING_USER_DATA(RING_RECV, 0, 1);
    run(&b, SECOND);
    assert_done(&b, RING_CANCEL, 1, 0, 0, false);
    assert_done(&b, RING_RECV, 1, 1, -ECANCELED, false);
    assert_int_equal(sim_client_read(c, &byte, 1), 0);
    sim_client_close(c);
    end(&b);
}

static void test_reset_shows_after_the_data(void **state)
{
    struct bench b;
    struct sim_client *c;

    (void)state;
    start(&b, 5, NULL, 64);
    int fd = connected(&b, &c);
    give(&b, 0);
    give(&b, 1);
    sim_client_write(c, "last", 4);
    while (!sim_client_flushed(c))
        run(&b, 1000);
    sim_client_reset(c);
    run(&b, SECOND);
    arm_recv(&b, fd, 1);
    run(&b, SECOND);
    assert_done(&b, RING_RECV, 1, 0, 4, true);
    assert_done(&b, RING_RECV, 1, 1, -ECONNRESET, false);
    send_bytes(&b, fd, 2, "x", 1);
    run(&b, SECOND);
    assert_done(&b, RING_SEND, 2, 0, -EPIPE, false);
    assert_int_equal(shutdown_fd(&b, fd), -ENOTCONN);
    close_fd(&b, fd);
    end(&b);
}

static void test_close_with_unread_data_resets(void **state)
{
    struct bench b;
    struct sim_client *c;
    char byte;

    (void)state;
    start(&b, 6, NULL, 64);
    int fd = connected(&b, &c);
    sim_client_write(c, "unread", 6);
    run(&b, SECOND);
    close_fd(&b, fd);
    run(&b, SECOND);
    assert_int_equal(sim_client_state(c), SIM_RESET);
    assert_int_equal(sim_client_read(c, &byte, 1), -ECONNRESET);
    sim_client_close(c);
    end(&b);
}

static void test_data_after_shutdown_both_ways_resets(void **state)
{
    struct bench b;
    struct sim_client *c;

    (void)state;
    start(&b, 7, NULL, 64);
    int fd = connected(&b, &c);
    assert_int_equal(shutdown_fd(&b, fd), 0);
    run(&b, SECOND);
    assert_int_equal(sim_client_state(c), SIM_CONNECTED);
    assert_int_equal(sim_client_write(c, "late", 4), 4);
    run(&b, SECOND);
    assert_int_equal(sim_client_state(c), SIM_RESET);
    close_fd(&b, fd);
    sim_client_close(c);
    end(&b);
}

static void test_linger_zero_drops_what_is_queued(void **state)
{
    struct linger linger = {.l_onoff = 1};
    struct bench b;
    struct sim_client *c;
    char byte;

    (void)state;
    start(&b, 8, NULL, 64);
    int fd = connected(&b, &c);
    assert_int_equal(b.sys->setsockopt(b.sys->kernel, fd, SOL_SOCKET, SO_LINGER, &linger,
                                       sizeof linger),
                     0);
    send_bytes(&b, fd, 1, "lost", 4);
    run(&b, 0);
    assert_done(&b, RING_SEND, 1, 0, 4, false);
    close_fd(&b, fd);
    run(&b, SECOND);
    assert_int_equal(sim_client_read(c, &byte, 1), -ECONNRESET);
    sim_client_close(c);
    end(&b);
}

static void test_paused_client(void **state)
{
    struct bench b;
    struct sim_client *c;

    (void)state;
    start(&b, 9, NULL, 64);
    int fd = connected(&b, &c);
    give(&b, 0);
    arm_recv(&b, fd, 1);
    sim_client_pause(c, true);
    sim_client_write(c, "late", 4);
    run(&b, 100ull * SECOND);
    assert_null(completion(&b, RING_RECV, 1, 0));
    sim_client_pause(c, false);
    run(&b, SECOND);
    assert_done(&b, RING_RECV, 1, 0, 4, true);
    shutdown_fd(&b, fd);
    run(&b, 0);
    close_fd(&b, fd);
    sim_client_close(c);
    end(&b);
}

static void test_connection_refused(void **state)
{
    struct bench b;
    char byte;

    (void)state;
    start(&b, 10, NULL, 64);
    struct sim_client *c = client(&b, 4444);
    assert_int_equal(sim_client_state(c), SIM_CONNECTING);
    run(&b, SECOND);
    assert_int_equal(sim_client_state(c), SIM_REFUSED);
    assert_int_equal(sim_client_read(c, &byte, 1), -ECONNREFUSED);
    sim_client_close(c);
    end(&b);
}

static void test_reuse_port_spreads_clients(void **state)
{
    struct sim_client *clients[64];
    struct bench b;
    unsigned counts[2] = {0};

    (void)state;
    start(&b, 11, NULL, 1024);
    int fds[2] = {listener(&b, 3000, true), listener(&b, 3000, true)};
    arm_accept(&b, fds[0], 0);
    arm_accept(&b, fds[1], 1);
    for (unsigned i = 0; i < 64; i++)
        clients[i] = client(&b, 3000);
    run(&b, SECOND);
    for (unsigned i = 0; i < b.n_done; i++) {
        assert_true(b.done[i].result >= 0);
        counts[b.done[i].slot]++;
        close_fd(&b, b.done[i].result);
    }
    assert_int_equal(counts[0] + counts[1], 64);
    assert_in_range(counts[0], 12, 52);
    for (unsigned i = 0; i < 2; i++) {
        shutdown_fd(&b, fds[i]);
        run(&b, 0);
        close_fd(&b, fds[i]);
    }
    for (unsigned i = 0; i < 64; i++)
        sim_client_close(clients[i]);
    end(&b);
}

static void test_bind_conflicts(void **state)
{
    struct sockaddr_in any = v4("0.0.0.0", 3000), away = v4("198.51.100.1", 3000);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(3000)};
    int one = 1;
    struct bench b;

    (void)state;
    start(&b, 12, NULL, 64);
    void *k = b.sys->kernel;
    int l = listener(&b, 3000, false);
    int other = b.sys->socket(k, AF_INET, SOCK_STREAM, 0);
    int dual = b.sys->socket(k, AF_INET6, SOCK_STREAM, 0);
    assert_int_equal(b.sys->bind(k, other, (struct sockaddr *)&any, sizeof any), -EADDRINUSE);
    assert_int_equal(b.sys->bind(k, other, (struct sockaddr *)&away, sizeof away), -EADDRNOTAVAIL);
    assert_int_equal(b.sys->bind(k, dual, (struct sockaddr *)&six, sizeof six), -EADDRINUSE);
    b.sys->setsockopt(k, dual, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    assert_int_equal(b.sys->bind(k, dual, (struct sockaddr *)&six, sizeof six), 0);
    sim_host_address(b.k, "198.51.100.1", true);
    assert_int_equal(b.sys->bind(k, other, (struct sockaddr *)&away, sizeof away), 0);
    close_fd(&b, l);
    close_fd(&b, other);
    close_fd(&b, dual);
    end(&b);
}

static void test_unix(void **state)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "/tmp/roda.sock"};
    struct sockaddr_storage peer;
    struct ucred who = {0};
    socklen_t len = sizeof who, peer_len = sizeof peer;
    struct bench b;
    char byte;

    (void)state;
    start(&b, 13, NULL, 64);
    void *k = b.sys->kernel;
    const struct sockaddr *addr = (struct sockaddr *)&at;
    assert_int_equal(b.sys->is_socket(k, at.sun_path), -ENOENT);
    int l = b.sys->socket(k, AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(b.sys->bind(k, l, addr, sizeof at), 0);
    assert_int_equal(b.sys->listen(k, l, 8), 0);
    assert_int_equal(b.sys->is_socket(k, at.sun_path), 0);
    arm_accept(&b, l, 1);
    struct sim_client *c = sim_connect(b.k, addr, sizeof at, NULL, 0, 1234);
    run(&b, SECOND);
    const struct done *d = completion(&b, RING_ACCEPT, 1, 0);
    assert_non_null(d);
    int fd = d->result;
    assert_int_equal(b.sys->getsockopt(k, fd, SOL_SOCKET, SO_PEERCRED, &who, &len), 0);
    assert_int_equal(who.uid, 1234);
    assert_int_equal(b.sys->getpeername(k, fd, (struct sockaddr *)&peer, &peer_len), 0);
    assert_int_equal(peer_len, sizeof(sa_family_t));
    sim_client_close(c);
    send_bytes(&b, fd, 2, "x", 1);
    run(&b, SECOND);
    assert_done(&b, RING_SEND, 2, 0, -EPIPE, false);
    close_fd(&b, fd);
    /* A second broker: somebody listens. */
    int second = b.sys->socket(k, AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(b.sys->connect(k, second, addr, sizeof at), 0);
    close_fd(&b, second);
    run(&b, SECOND);
    close_fd(&b, completion(&b, RING_ACCEPT, 1, 1)->result);
    shutdown_fd(&b, l);
    run(&b, SECOND);
    assert_done(&b, RING_ACCEPT, 1, 2, -EINVAL, false);
    close_fd(&b, l);
    /* Stale: the name is still there. */
    second = b.sys->socket(k, AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(b.sys->connect(k, second, addr, sizeof at), -ECONNREFUSED);
    assert_int_equal(b.sys->bind(k, second, addr, sizeof at), -EADDRINUSE);
    assert_int_equal(b.sys->unlink(k, at.sun_path), 0);
    assert_int_equal(b.sys->connect(k, second, addr, sizeof at), -ENOENT);
    assert_int_equal(b.sys->bind(k, second, addr, sizeof at), 0);
    close_fd(&b, second);
    c = sim_connect(b.k, addr, sizeof at, NULL, 0, 1);
    run(&b, SECOND);
    assert_int_equal(sim_client_read(c, &byte, 1), -ECONNREFUSED);
    sim_client_close(c);
    end(&b);
}

/* ---- descriptors ---- */

static void test_descriptors(void **state)
{
    struct sim_faults faults = sim_faults_none();
    struct bench b;

    (void)state;
    faults.descriptors = 8;
    start(&b, 14, &faults, 64); /* 3: eventfd or ring, 4: the other */
    int l = listener(&b, 3000, false);
    assert_int_equal(l, 5);
    int x = b.sys->eventfd(b.sys->kernel), y = b.sys->eventfd(b.sys->kernel);
    assert_int_equal(x, 6);
    assert_int_equal(y, 7);
    assert_int_equal(b.sys->eventfd(b.sys->kernel), -EMFILE);
    arm_accept(&b, l, 1); /* full: at once, though nobody connects */
    run(&b, SECOND);
    assert_done(&b, RING_ACCEPT, 1, 0, -EMFILE, false);
    assert_int_equal(close_fd(&b, x), 0);
    arm_accept(&b, l, 2);
    struct sim_client *c = client(&b, 3000);
    run(&b, SECOND);
    assert_done(&b, RING_ACCEPT, 2, 0, x, true); /* lowest first */
    assert_done(&b, RING_ACCEPT, 2, 1, -EMFILE, false);
    assert_null(sim_violation(b.k));
    close_fd(&b, x);
    close_fd(&b, y);
    close_fd(&b, l);
    sim_client_close(c);
    end(&b);
}

static void test_close_twice_is_noted(void **state)
{
    struct sim_kernel *k = sim_kernel_new(1, NULL);
    const struct system *sys = sim_system(k);
    int fd = sys->eventfd(k);

    (void)state;
    assert_int_equal(sys->close(k, fd), 0);
    assert_null(sim_violation(k));
    assert_int_equal(sys->close(k, fd), -EBADF);
    assert_non_null(sim_violation(k));
    sim_kernel_free(k);
}

/* ---- requests ---- */

static void test_buffers(void **state)
{
    struct bench b;
    struct sim_client *c;
    unsigned n_free, n_lent;

    (void)state;
    start(&b, 15, NULL, 64);
    int fd = connected(&b, &c);
    arm_recv(&b, fd, 1); /* no buffer: at once, though there is no data */
    run(&b, SECOND);
    assert_done(&b, RING_RECV, 1, 0, -ENOBUFS, false);
    memset(b.memory, 'x', sizeof b.memory);
    give(&b, 3);
    arm_recv(&b, fd, 2);
    run(&b, 1000);
    assert_true(sim_buffers(b.k, &b.ring, 1, &n_free, &n_lent));
    assert_int_equal(n_free, 1);
    assert_int_equal(n_lent, 0);
    static char big[BUFFER_BYTES * 2];
    sim_client_write(c, big, 3);
    run(&b, SECOND);
    assert_done(&b, RING_RECV, 2, 0, 3, true);
    assert_int_equal((unsigned char)b.memory[3][2], 0);
    assert_int_equal((unsigned char)b.memory[3][3], 0xDD);
    sim_client_write(c, big, sizeof big);
    run(&b, SECOND);
    assert_done(&b, RING_RECV, 2, 1, -ENOBUFS, false);
    assert_true(sim_buffers(b.k, &b.ring, 1, &n_free, &n_lent));
    assert_int_equal(n_free, 0);
    assert_int_equal(n_lent, 1);
    give(&b, 3);
    assert_true(sim_buffers(b.k, &b.ring, 1, &n_free, &n_lent));
    assert_int_equal(n_free, 1);
    assert_null(sim_violation(b.k));
    give(&b, 3);
    run(&b, 0);
    assert_non_null(strstr(sim_violation(b.k), "given back twice"));
    sim_kernel_free(b.k);
    free(b.buffers);
}

static void test_changed_payload_is_noted(void **state)
{
    static char big[1u << 20];
    struct bench b;
    struct sim_client *c;

    (void)state;
    start(&b, 16, NULL, 64);
    int fd = connected(&b, &c);
    send_bytes(&b, fd, 1, big, sizeof big);
    run(&b, SECOND);
    assert_null(sim_violation(b.k));
    big[0] = 'x';
    shutdown_fd(&b, fd);
    run(&b, SECOND);
    big[0] = 0;
    assert_non_null(strstr(sim_violation(b.k), "payload"));
    sim_kernel_free(b.k);
    free(b.buffers);
}

static void test_two_sends_are_noted(void **state)
{
    static char big[1u << 20];
    struct bench b;
    struct sim_client *c;

    (void)state;
    start(&b, 17, NULL, 64);
    int fd = connected(&b, &c);
    send_bytes(&b, fd, 1, big, sizeof big);
    send_bytes(&b, fd, 2, big, sizeof big);
    run(&b, 1000);
    assert_non_null(strstr(sim_violation(b.k), "two sends"));
    sim_kernel_free(b.k);
    free(b.buffers);
}

static void test_cancel_by_descriptor(void **state)
{
    struct bench b;
    struct sim_client *c;

    (void)state;
    start(&b, 18, NULL, 64);
    int fd = connected(&b, &c);
    give(&b, 0);
    arm_recv(&b, fd, 1);
    run(&b, 1000);
    for (unsigned i = 0; i < 2; i++) {
        struct io_uring_sqe *s = sqe(&b, RING_CANCEL, i);
        io_uring_prep_rw(IORING_OP_ASYNC_CANCEL, s, fd, NULL, 0, 0);
        s->cancel_flags = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL;
        run(&b, 1000);
    }
    assert_done(&b, RING_CANCEL, 0, 0, 1, false);
    assert_done(&b, RING_RECV, 1, 0, -ECANCELED, false);
    assert_done(&b, RING_CANCEL, 1, 0, 0, false);
    close_fd(&b, fd);
    sim_client_close(c);
    end(&b);
}

static void test_cancel_may_lie(void **state)
{
    struct sim_faults faults = sim_faults_none();
    struct bench b;
    struct sim_client *c;

    (void)state;
    faults.cancel_lies = 1;
    start(&b, 19, &faults, 64);
    int fd = connected(&b, &c);
    give(&b, 0);
    arm_recv(&b, fd, 1);
    for (unsigned i = 0; i < 32; i++) {
        struct io_uring_sqe *s = sqe(&b, RING_CANCEL, i);
        io_uring_prep_rw(IORING_OP_ASYNC_CANCEL, s, -1, NULL, 0, 0);
        s->addr = RING_USER_DATA(RING_RECV, 0, 1);
        run(&b, 1000);
        int result = completion(&b, RING_CANCEL, i, 0)->result;
        assert_true(!result || result == -ENOENT || result == -EALREADY);
        assert_int_equal(sim_requests(b.k, fd, IORING_OP_RECV), 1);
    }
    assert_true(sim_faults_done(b.k) >= 32);
    shutdown_fd(&b, fd);
    run(&b, 0);
    assert_done(&b, RING_RECV, 1, 0, 0, false);
    close_fd(&b, fd);
    sim_client_close(c);
    end(&b);
}

static void test_overflow_ends_a_multishot(void **state)
{
    struct bench b;
    struct sim_client *c;

    (void)state;
    start(&b, 20, NULL, 8);
    int fd = connected(&b, &c);
    for (unsigned i = 0; i < BUFFERS; i++)
        give(&b, i);
    static char big[BUFFER_BYTES * 7];
    assert_int_equal(sim_client_write(c, big, sizeof big), sizeof big);
    run(&b, SECOND);
    for (unsigned i = 0; i < 6; i++) /* of 8 places */
        io_uring_prep_rw(IORING_OP_ASYNC_CANCEL, sqe(&b, RING_CANCEL, i), -1, NULL, 0, 0);
    arm_recv(&b, fd, 1);
    assert_int_equal(ring_enter(&b.ring, false, 0), 0);
    assert_true(ring_overflowed(&b.ring));
    run(&b, 0);
    assert_false(ring_overflowed(&b.ring));
    for (unsigned i = 0; i < 3; i++)
        assert_done(&b, RING_RECV, 1, i, BUFFER_BYTES, i < 2);
    assert_null(completion(&b, RING_RECV, 1, 3));
    close_fd(&b, fd);
    sim_client_close(c);
    end(&b);
}

static void test_restrictions(void **state)
{
    struct bench b;

    (void)state;
    start(&b, 21, NULL, 64);
    io_uring_prep_rw(IORING_OP_NOP, sqe(&b, RING_SEND, 1), -1, NULL, 0, 0);
    io_uring_prep_rw(IORING_OP_OPENAT, sqe(&b, RING_SEND, 2), -1, NULL, 0, 0);
    io_uring_prep_rw(250, sqe(&b, RING_SEND, 3), -1, NULL, 0, 0);
    run(&b, 0);
    assert_done(&b, RING_SEND, 1, 0, -EACCES, false);
    assert_done(&b, RING_SEND, 2, 0, -EACCES, false);
    assert_done(&b, RING_SEND, 3, 0, -EINVAL, false);
    end(&b);
}

/* ---- datagrams ---- */

struct datagram_bench {
    struct bench b;
    int fd;
    struct sim_udp *peer;
    struct sockaddr_in at;
    struct msghdr shape;
};

static void datagram_start(struct datagram_bench *d, const struct sim_faults *faults)
{
    struct sockaddr_in any = v4("0.0.0.0", 3000), from = v4("192.0.2.99", 5555);
    int one = 1;

    start(&d->b, 30, faults, 64);
    void *k = d->b.sys->kernel;
    d->fd = d->b.sys->socket(k, AF_INET, SOCK_DGRAM, 0);
    d->b.sys->setsockopt(k, d->fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
    assert_int_equal(d->b.sys->bind(k, d->fd, (struct sockaddr *)&any, sizeof any), 0);
    d->at = v4("192.0.2.2", 3000);
    d->peer = sim_udp_open(d->b.k, (struct sockaddr *)&from, sizeof from);
    memset(&d->shape, 0, sizeof d->shape);
    d->shape.msg_namelen = sizeof(struct sockaddr_in);
}

static void datagram_arm(struct datagram_bench *d, unsigned slot)
{
    struct io_uring_sqe *s = sqe(&d->b, RING_DATAGRAM_RECV, slot);

    io_uring_prep_rw(IORING_OP_RECVMSG, s, d->fd, &d->shape, 1, 0);
    s->ioprio = IORING_RECV_MULTISHOT;
    s->flags = IOSQE_BUFFER_SELECT;
    s->buf_group = 1;
}

static void datagram_end(struct datagram_bench *d)
{
    close_fd(&d->b, d->fd);
    sim_udp_close(d->peer);
}

static void test_datagrams(void **state)
{
    struct datagram_bench d;
    struct sockaddr_storage from;
    char got[16] = {0};

    (void)state;
    datagram_start(&d, NULL);
    d.shape.msg_controllen = CMSG_SPACE(sizeof(struct in_pktinfo));
    give(&d.b, 0);
    give(&d.b, 1);
    datagram_arm(&d, 1);
    sim_udp_send(d.peer, (struct sockaddr *)&d.at, sizeof d.at, "hi", 2);
    run(&d.b, SECOND);
    const struct done *done = completion(&d.b, RING_DATAGRAM_RECV, 1, 0);
    char *at = d.b.memory[done->flags >> IORING_CQE_BUFFER_SHIFT];
    struct io_uring_recvmsg_out *out = io_uring_recvmsg_validate(at, done->result, &d.shape);
    assert_non_null(out);
    assert_int_equal(io_uring_recvmsg_payload_length(out, done->result, &d.shape), 2);
    assert_memory_equal(io_uring_recvmsg_payload(out, &d.shape), "hi", 2);
    struct sockaddr_in name;
    memcpy(&name, io_uring_recvmsg_name(out), sizeof name);
    assert_int_equal(ntohs(name.sin_port), 5555);
    struct cmsghdr *control = io_uring_recvmsg_cmsg_firsthdr(out, &d.shape);
    assert_non_null(control);
    struct in_pktinfo info;
    memcpy(&info, CMSG_DATA(control), sizeof info);
    assert_int_equal(info.ipi_addr.s_addr, d.at.sin_addr.s_addr);

    /* The answer: with the address that was asked it comes from there, without from elsewhere. */
    char space[CMSG_SPACE(sizeof info)];
    memcpy(space, control, sizeof space);
    struct iovec iov = {.iov_base = (char[]){"yo"}, .iov_len = 2};
    struct msghdr answer = {.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &iov};
    answer.msg_iovlen = 1;
    for (unsigned i = 0; i < 2; i++) {
        if (i) {
            answer.msg_control = space;
            answer.msg_controllen = sizeof space;
        }
        io_uring_prep_rw(IORING_OP_SENDMSG, sqe(&d.b, RING_DATAGRAM_SEND, i), d.fd, &answer, 1, 0);
        run(&d.b, SECOND);
        assert_done(&d.b, RING_DATAGRAM_SEND, i, 0, 2, false);
        assert_int_equal(sim_udp_recv(d.peer, got, sizeof got, &from), 2);
        struct sockaddr_in *who = (struct sockaddr_in *)&from;
        assert_int_equal(who->sin_addr.s_addr == d.at.sin_addr.s_addr, i == 1);
    }
    datagram_end(&d);
    run(&d.b, 0);
    end(&d.b);
}

static void test_datagram_shapes(void **state)
{
    static char big[200];
    struct datagram_bench d;

    (void)state;
    datagram_start(&d, NULL);
    for (unsigned i = 0; i < 4; i++)
        give(&d.b, i);
    datagram_arm(&d, 1);
    sim_udp_send(d.peer, (struct sockaddr *)&d.at, sizeof d.at, big, sizeof big);
    run(&d.b, SECOND);
    const struct done *done = completion(&d.b, RING_DATAGRAM_RECV, 1, 0);
    struct io_uring_recvmsg_out out;
    memcpy(&out, received(&d.b, done), sizeof out);
    assert_int_equal(done->result, BUFFER_BYTES);
    assert_true(out.flags & MSG_TRUNC);
    assert_int_equal(out.payloadlen, BUFFER_BYTES - 32);
    assert_true(done->flags & IORING_CQE_F_MORE);
    sim_udp_send(d.peer, (struct sockaddr *)&d.at, sizeof d.at, "", 0);
    run(&d.b, SECOND);
    assert_done(&d.b, RING_DATAGRAM_RECV, 1, 1, 32, false);
    datagram_end(&d);
    end(&d.b);
}

static void test_datagram_faults(void **state)
{
    struct sim_faults faults = sim_faults_none();
    struct datagram_bench d;

    (void)state;
    faults.datagram_duplicate = 1;
    datagram_start(&d, &faults);
    for (unsigned i = 0; i < 4; i++)
        give(&d.b, i);
    datagram_arm(&d, 1);
    sim_udp_send(d.peer, (struct sockaddr *)&d.at, sizeof d.at, "2", 1);
    run(&d.b, SECOND);
    assert_done(&d.b, RING_DATAGRAM_RECV, 1, 0, 33, true);
    assert_done(&d.b, RING_DATAGRAM_RECV, 1, 1, 33, true);
    faults.datagram_loss = 1;
    sim_set_faults(d.b.k, &faults);
    sim_udp_send(d.peer, (struct sockaddr *)&d.at, sizeof d.at, "0", 1);
    run(&d.b, SECOND);
    assert_null(completion(&d.b, RING_DATAGRAM_RECV, 1, 2));
    sim_faults_stop(d.b.k);
    sim_udp_send(d.peer, (struct sockaddr *)&d.at, sizeof d.at, "1", 1);
    run(&d.b, SECOND);
    assert_done(&d.b, RING_DATAGRAM_RECV, 1, 2, 33, true);
    assert_null(completion(&d.b, RING_DATAGRAM_RECV, 1, 3));
    close_fd(&d.b, d.fd);
    struct io_uring_sqe *s = sqe(&d.b, RING_CANCEL, 0);
    io_uring_prep_rw(IORING_OP_ASYNC_CANCEL, s, -1, NULL, 0, 0);
    s->cancel_flags = IORING_ASYNC_CANCEL_ANY;
    sim_udp_close(d.peer);
    run(&d.b, 0);
    assert_done(&d.b, RING_DATAGRAM_RECV, 1, 3, -ECANCELED, false);
    end(&d.b);
}

/* ---- files ---- */

static int32_t file_op(struct bench *b, unsigned opcode, int fd, void *bytes, unsigned n,
                       uint64_t offset)
{
    static unsigned slot = 1000;
    unsigned kind = opcode == IORING_OP_FSYNC  ? RING_FILE_SYNC
                    : opcode == IORING_OP_READ ? RING_FILE_READ
                                               : RING_FILE_WRITE;

    io_uring_prep_rw((int)opcode, sqe(b, kind, ++slot), fd, bytes, n, offset);
    run(b, SECOND);
    assert_non_null(completion(b, kind, slot, 0));
    return completion(b, kind, slot, 0)->result;
}

static void test_file(void **state)
{
    char text[] = "0123456789", got[16] = {0};
    uint64_t size;
    struct bench b;

    (void)state;
    start(&b, 40, NULL, 64);
    void *k = b.sys->kernel;
    assert_int_equal(b.sys->open(k, "/tmp/a", O_RDWR, 0600), -ENOENT);
    assert_int_equal(b.sys->open(k, "/none/a", O_RDWR | O_CREAT, 0600), -ENOENT);
    int fd = b.sys->open(k, "/tmp/a", O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(b.sys->open(k, "/tmp/a", O_RDWR | O_CREAT | O_EXCL, 0600), -EEXIST);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 10, 0), 10);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 2, 12), 2);
    assert_int_equal(b.sys->file_size(k, fd, &size), 0);
    assert_int_equal(size, 14);
    assert_int_equal(file_op(&b, IORING_OP_READ, fd, got, 16, 8), 6);
    assert_memory_equal(got,
                        "89\0\0"
                        "01",
                        6);
    assert_int_equal(file_op(&b, IORING_OP_READ, fd, got, 16, 14), 0);
    assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), 0);
    assert_int_equal(b.sys->rename(k, "/tmp/a", "/tmp/b"), 0);
    assert_int_equal(b.sys->rename(k, "/tmp/a", "/tmp/b"), -ENOENT);
    assert_int_equal(b.sys->unlink(k, "/tmp/b"), 0);
    assert_int_equal(file_op(&b, IORING_OP_READ, fd, got, 2, 0), 2); /* open, so it lives */
    sim_set_disk(b.k, 20);
    assert_int_equal(close_fd(&b, fd), 0);
    fd = b.sys->open(k, "/tmp/c", O_WRONLY | O_CREAT, 0600);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 10, 0), 10);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 10, 10), 10);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 10, 20), -ENOSPC);
    sim_set_disk(b.k, 25);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 10, 20), 5);
    assert_int_equal(file_op(&b, IORING_OP_READ, fd, got, 1, 0), -EBADF);
    close_fd(&b, fd);
    end(&b);
}

static void list_name(void *arg, const char *name)
{
    char *all = arg;

    strcat(all, name);
    strcat(all, " ");
}

static void test_list(void **state)
{
    struct sim_kernel *k = sim_kernel_new(1, NULL);
    const struct system *sys = sim_system(k);
    char all[64] = "";

    (void)state;
    sim_mkdir(k, "/tmp/log");
    sim_file_put(k, "/tmp/log/b", "", 0);
    sim_file_put(k, "/tmp/log/a", "", 0);
    sim_file_put(k, "/tmp/c", "", 0);
    assert_int_equal(sys->list(k, "/tmp/log", list_name, all), 0);
    assert_string_equal(all, "a b ");
    all[0] = '\0';
    assert_int_equal(sys->list(k, "/none", list_name, all), -ENOENT);
    assert_int_equal(sys->list(k, "/tmp/", list_name, all), 0);
    assert_string_equal(all, "c log ");
    assert_int_equal(sys->list(k, "/tmp/c", list_name, all), -ENOTDIR);
    sim_kernel_free(k);
}

/* What was synced is there after a crash, whatever the seed; what was not is so in pieces. */
static void test_crash(void **state)
{
    static char synced[2048], later[4096];
    unsigned partly = 0, names = 0;

    (void)state;
    memset(synced, 's', sizeof synced);
    memset(later, 'l', sizeof later);
    for (uint64_t seed = 0; seed < 64; seed++) {
        struct bench b;
        size_t size, kept = 0;
        start(&b, seed, NULL, 64);
        void *k = b.sys->kernel;
        int fd = b.sys->open(k, "/tmp/a", O_RDWR | O_CREAT, 0600);
        assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, synced, sizeof synced, 0), sizeof synced);
        assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), 0);
        assert_int_equal(b.sys->sync_directory(k, "/tmp/a"), 0);
        assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, later, sizeof later, sizeof synced),
                         sizeof later);
        assert_true(b.sys->open(k, "/tmp/new", O_RDWR | O_CREAT, 0600) >= 0);
        sim_crash(b.k);
        const char *bytes = sim_file_get(b.k, "/tmp/a", &size);
        assert_non_null(bytes);
        assert_in_range(size, sizeof synced, sizeof synced + sizeof later);
        assert_memory_equal(bytes, synced, sizeof synced);
        for (size_t at = sizeof synced; at < size; at += 512) {
            assert_true(bytes[at] == 'l' || !bytes[at]);
            assert_int_equal(bytes[at], bytes[at + 511]);
            kept += bytes[at] == 'l' ? 512 : 0;
        }
        partly += kept && kept < sizeof later;
        names += sim_file_get(b.k, "/tmp/new", &size) != NULL;
        assert_int_equal(sim_descriptors(b.k), 0);
        assert_int_equal(ring_enter(&b.ring, true, 0), -EBADFD);
        sim_kernel_free(b.k);
        free(b.buffers);
    }
    assert_in_range(partly, 10, 60);
    assert_in_range(names, 10, 54);
}

static void test_failed_sync_loses_pages(void **state)
{
    static char bytes[512];
    struct sim_faults faults = sim_faults_none();
    struct bench b;
    size_t size;

    (void)state;
    memset(bytes, 'x', sizeof bytes);
    faults.sync_eio = 1;
    start(&b, 41, &faults, 64);
    sim_file_put(b.k, "/tmp/a", "", 0);
    int fd = b.sys->open(b.sys->kernel, "/tmp/a", O_WRONLY, 0);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, bytes, sizeof bytes, 0), sizeof bytes);
    assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), -EIO);
    sim_faults_stop(b.k);
    assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), 0); /* proves nothing */
    sim_crash(b.k);
    const char *after = sim_file_get(b.k, "/tmp/a", &size);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(after[i], 0);
    sim_kernel_free(b.k);
    free(b.buffers);
}

/* ---- scheduling ---- */

static bool nothing(void *arg)
{
    (void)arg;
    return true;
}

/* What a worker's turn does about sleeping, and nothing else. */
static void turn(struct sim_kernel *k, struct ring *r, uint64_t timeout_ns)
{
    sim_turn_begin(k, r);
    bool sleep = ring_sleep_begin(r, nothing, NULL);
    assert_int_equal(ring_enter(r, sleep, timeout_ns), 0);
    if (sleep)
        ring_sleep_end(r);
    ring_dispatch(r, ring_mark(r), 64);
    ring_wake_arm(r);
    sim_turn_end(k, r);
}

static void test_two_rings_wake_each_other(void **state)
{
    struct sim_kernel *k = sim_kernel_new(50, NULL);
    const struct system *sys = sim_system(k);
    struct ring rings[2];

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(ring_init(&rings[i], sys, 8, 16), 0);
        assert_int_equal(ring_enable(&rings[i]), 0);
    }
    uint64_t before = sim_now_ns(k);
    for (unsigned i = 0; i < 2; i++) {
        turn(k, &rings[i], SECOND);
        assert_true(sim_ring_sleeps(k, &rings[i]));
        assert_false(sim_ring_ready(k, &rings[i]));
        assert_int_equal(atomic_load(&rings[i].sleeping), 1);
    }
    assert_int_equal(sim_next_event_ns(k), before + SECOND);
    ring_wake(&rings[1]);
    assert_true(sim_ring_ready(k, &rings[1]));
    assert_false(sim_ring_ready(k, &rings[0]));
    turn(k, &rings[1], SECOND);
    assert_int_equal(atomic_load(&rings[1].counters.wakes_received), 1);
    assert_false(sim_ring_sleeps(k, &rings[1])); /* it was woken: this enter did not sleep */
    turn(k, &rings[1], UINT64_MAX);
    assert_true(sim_ring_sleeps(k, &rings[1]));
    assert_true(sim_advance_to(k, sim_next_event_ns(k)));
    assert_int_equal(sim_now_ns(k), before + SECOND);
    assert_true(sim_ring_ready(k, &rings[0]));
    assert_false(sim_ring_ready(k, &rings[1]));
    turn(k, &rings[0], SECOND);
    assert_int_equal(atomic_load(&rings[0].counters.timeouts), 1);
    turn(k, &rings[0], UINT64_MAX);
    assert_int_equal(sim_next_event_ns(k), UINT64_MAX);
    assert_false(sim_advance_to(k, sim_next_event_ns(k)));
    for (unsigned i = 0; i < 2; i++)
        ring_deinit(&rings[i]);
    assert_int_equal(sim_descriptors(k), 0);
    sim_kernel_free(k);
}

static void test_clocks(void **state)
{
    struct sim_kernel *k = sim_kernel_new(51, NULL);
    const struct system *sys = sim_system(k);
    uint64_t mono = sys->monotonic_ns(k);
    int64_t real = sys->realtime_ns(k);

    (void)state;
    sim_advance_to(k, mono + 5);
    assert_int_equal(sys->monotonic_ns(k), mono + 5);
    assert_int_equal(sys->realtime_ns(k), real + 5);
    sim_step_realtime(k, -100);
    assert_int_equal(sys->realtime_ns(k), real - 95);
    assert_int_equal(sys->monotonic_ns(k), mono + 5);
    sim_kernel_free(k);
}

struct counted {
    struct ring_job job;
    unsigned worked, done;
};

static void job_work(struct system_job *job)
{
    ((struct counted *)(void *)job)->worked++;
}

static void job_done(struct ring_job *job)
{
    ((struct counted *)(void *)job)->done++;
}

static void test_pool(void **state)
{
    struct bench b;
    struct counted job = {.job = {.job = {.work = job_work}, .done = job_done}};

    (void)state;
    start(&b, 52, NULL, 64);
    assert_int_equal(ring_job(&b.ring, &job.job), 0);
    assert_int_equal(sim_jobs_waiting(b.k), 1);
    assert_int_equal(job.worked, 0);
    run(&b, SECOND);
    assert_int_equal(sim_jobs_waiting(b.k), 0);
    assert_int_equal(job.worked, 1);
    assert_int_equal(job.done, 0);
    assert_int_equal(ring_jobs_run(&b.ring), 1);
    assert_int_equal(job.done, 1);
    end(&b);
}

struct counts {
    unsigned states[3];
};

static void count_request(void *arg, const struct sim_request *request)
{
    struct counts *counts = arg;

    if (request->user_data >> 56 == RING_RECV)
        counts->states[request->state]++;
}

static void test_each_request(void **state)
{
    struct bench b;
    struct sim_client *c;

    (void)state;
    start(&b, 53, NULL, 64);
    int fd = connected(&b, &c);
    give(&b, 0);
    for (unsigned step = 0; step < 3; step++) {
        struct counts counts = {0};
        if (step == 0)
            arm_recv(&b, fd, 1);
        else if (step == 2)
            shutdown_fd(&b, fd);
        if (step)
            assert_int_equal(ring_enter(&b.ring, false, 0), 0);
        sim_each_request(b.k, count_request, &counts);
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(counts.states[i], i == step);
    }
    run(&b, 0);
    close_fd(&b, fd);
    sim_client_close(c);
    end(&b);
}

/* ---- everything at once ---- */

/*
 * A small engine that does what every engine on such a kernel must: it re-arms whenever F_MORE is
 * missing, accounts sends by their result, gives buffers back, retries what may be retried, and
 * closes by shutdown, then waits for its requests, then closes. It echoes. Whatever the seed, a
 * client that was not reset reads back exactly what it wrote.
 */
#define ECHO_CLIENTS 6u
#define ECHO_BYTES   3000u
#define ECHO_SLOTS   32u

struct echo {
    int fd; /* -1: free */
    bool receiving, sending, closing, ended, want_recv;
    char queue[ECHO_BYTES];
    size_t start, end;
};

struct echo_world {
    struct bench b;
    int listener;
    bool accepting, over;
    struct echo slots[ECHO_SLOTS];
    struct {
        struct sim_client *c;
        size_t written, read;
        bool shut, broken, over;
    } clients[ECHO_CLIENTS];
    uint64_t hash;
};

static char echo_byte(unsigned client, size_t at)
{
    return (char)(at * 7 + client * 13);
}

static void echo_complete(struct echo_world *w, const struct done *d)
{
    struct echo *e = d->slot < ECHO_SLOTS ? &w->slots[d->slot] : NULL;
    bool more = d->flags & IORING_CQE_F_MORE;

    w->hash = (w->hash ^ (uint64_t)(uint32_t)d->result ^ (uint64_t)d->flags << 32 ^ d->kind) *
              0x100000001b3u;
    if (d->kind == RING_ACCEPT) {
        w->accepting = more;
        for (unsigned i = 0; d->result >= 0 && i < ECHO_SLOTS; i++)
            if (w->slots[i].fd < 0) {
                w->slots[i] = (struct echo){.fd = d->result, .want_recv = true};
                return;
            }
        assert_true(d->result < 0);
        return;
    }
    assert_non_null(e);
    if (d->kind == RING_RECV) {
        e->receiving = more;
        e->want_recv = !more;
        if (d->flags & IORING_CQE_F_BUFFER) {
            unsigned id = d->flags >> IORING_CQE_BUFFER_SHIFT;
            assert_true(d->result > 0);
            assert_true(e->end + (size_t)d->result <= ECHO_BYTES);
            memcpy(e->queue + e->end, w->b.memory[id], (size_t)d->result);
            e->end += (size_t)d->result;
            give(&w->b, id);
        }
        if (d->result == 0)
            e->ended = true;
        else if (d->result < 0 && d->result != -ENOBUFS)
            e->closing = true;
    } else if (d->kind == RING_SEND) {
        e->sending = false;
        if (d->result >= 0)
            e->start += (size_t)d->result;
        else if (d->result != -EAGAIN && d->result != -ENOBUFS)
            e->closing = true;
    }
}

static void echo_step_slot(struct echo_world *w, unsigned i)
{
    struct bench *b = &w->b;
    struct echo *e = &w->slots[i];

    if (e->fd < 0)
        return;
    if (e->ended && e->start == e->end)
        e->closing = true;
    if (e->closing) {
        shutdown_fd(b, e->fd);
        if (!e->receiving && !e->sending) {
            assert_int_equal(sim_requests(b->k, e->fd, -1), 0);
            assert_int_equal(close_fd(b, e->fd), 0);
            e->fd = -1;
        }
        return;
    }
    if (e->want_recv && !e->ended && ring_space(&b->ring)) {
        arm_recv(b, e->fd, i);
        e->receiving = true;
        e->want_recv = false;
    }
    if (!e->sending && e->start < e->end && ring_space(&b->ring)) {
        send_bytes(b, e->fd, i, e->queue + e->start, e->end - e->start);
        e->sending = true;
    }
}

static void echo_clients(struct echo_world *w)
{
    char buf[256];

    for (unsigned i = 0; i < ECHO_CLIENTS; i++) {
        struct sim_client *c = w->clients[i].c;
        size_t at = w->clients[i].written;
        if (w->clients[i].over)
            continue;
        size_t n = 1 + sim_random(w->b.k, sizeof buf);
        if (n > ECHO_BYTES - at)
            n = ECHO_BYTES - at;
        for (size_t j = 0; j < n; j++)
            buf[j] = echo_byte(i, at + j);
        int result = at < ECHO_BYTES ? sim_client_write(c, buf, n) : 0;
        w->clients[i].written += result > 0 ? (size_t)result : 0;
        if (w->clients[i].written == ECHO_BYTES && !w->clients[i].shut) {
            sim_client_shutdown(c);
            w->clients[i].shut = true;
        }
        result = sim_client_read(c, buf, 1 + sim_random(w->b.k, sizeof buf));
        for (int j = 0; j < result; j++)
            assert_int_equal(buf[j], echo_byte(i, w->clients[i].read++));
        w->clients[i].broken |= sim_client_state(c) == SIM_RESET;
        w->clients[i].over = result == 0 || (result < 0 && result != -EAGAIN);
        if (!result && !w->clients[i].broken)
            assert_int_equal(w->clients[i].read, ECHO_BYTES);
    }
}

static bool echo_over(const struct echo_world *w)
{
    for (unsigned i = 0; i < ECHO_CLIENTS; i++)
        if (!w->clients[i].over)
            return false;
    for (unsigned i = 0; i < ECHO_SLOTS; i++)
        if (w->slots[i].fd >= 0)
            return false;
    return true;
}

static uint64_t echo_run(uint64_t seed, const struct sim_faults *faults, bool resets)
{
    static struct echo_world w;
    struct bench *b = &w.b;
    unsigned n_free, n_lent;

    memset(&w, 0, sizeof w);
    start(b, seed, faults, 16);
    sim_blocking_enter(b->k, false);
    for (unsigned i = 0; i < ECHO_SLOTS; i++)
        w.slots[i].fd = -1;
    for (unsigned i = 0; i < BUFFERS; i++)
        give(b, i);
    w.listener = listener(b, 3000, false);
    for (unsigned i = 0; i < ECHO_CLIENTS; i++)
        w.clients[i].c = client(b, 3000);
    for (unsigned turns = 0; !echo_over(&w); turns++) {
        assert_true(turns < 200000);
        if (turns == 100000)
            sim_faults_stop(b->k);
        b->n_done = 0;
        sim_turn_begin(b->k, &b->ring);
        assert_int_equal(ring_enter(&b->ring, true, 10000000), 0);
        ring_dispatch(&b->ring, ring_mark(&b->ring), 8);
        for (unsigned i = 0; i < b->n_done; i++)
            echo_complete(&w, &b->done[i]);
        if (!w.accepting && ring_space(&b->ring)) {
            arm_accept(b, w.listener, 99);
            w.accepting = true;
        }
        unsigned first = (unsigned)sim_random(b->k, ECHO_SLOTS);
        for (unsigned i = 0; i < ECHO_SLOTS; i++)
            echo_step_slot(&w, (first + i) % ECHO_SLOTS);
        ring_wake_arm(&b->ring);
        sim_turn_end(b->k, &b->ring);
        echo_clients(&w);
        uint64_t next = sim_next_event_ns(b->k), soon = sim_now_ns(b->k) + 1000;
        sim_advance_to(b->k, sim_ring_ready(b->k, &b->ring) || next < soon ? soon : next);
    }
    if (!resets)
        for (unsigned i = 0; i < ECHO_CLIENTS; i++)
            assert_false(w.clients[i].broken);
    sim_faults_stop(b->k);
    shutdown_fd(b, w.listener);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(ring_enter(&b->ring, true, 0), 0);
        ring_dispatch(&b->ring, ring_mark(&b->ring), 64);
    }
    close_fd(b, w.listener);
    assert_true(sim_buffers(b->k, &b->ring, 1, &n_free, &n_lent));
    assert_int_equal(n_free, BUFFERS);
    for (unsigned i = 0; i < ECHO_CLIENTS; i++)
        sim_client_close(w.clients[i].c);
    uint64_t hash = w.hash ^ sim_now_ns(b->k);
    end(b);
    return hash;
}

static void test_echo_with_any_faults(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct sim_faults faults = sim_faults_draw(seed);
        bool resets = seed & 1;
        if (!resets)
            faults.reset = faults.accept_aborted = 0;
        echo_run(seed, &faults, resets);
    }
}

static void test_seed_replays(void **state)
{
    (void)state;
    struct sim_faults faults = sim_faults_draw(7);
    uint64_t once = echo_run(7, &faults, true), again = echo_run(7, &faults, true);
    assert_true(once == again);
    assert_true(echo_run(8, &faults, true) != once);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_send_waits_for_room_and_is_cut_by_shutdown),
        cmocka_unit_test(test_reader_drains_what_waits),
        cmocka_unit_test(test_close_does_not_end_a_receive),
        cmocka_unit_test(test_reset_shows_after_the_data),
        cmocka_unit_test(test_close_with_unread_data_resets),
        cmocka_unit_test(test_data_after_shutdown_both_ways_resets),
        cmocka_unit_test(test_linger_zero_drops_what_is_queued),
        cmocka_unit_test(test_paused_client),
        cmocka_unit_test(test_connection_refused),
        cmocka_unit_test(test_reuse_port_spreads_clients),
        cmocka_unit_test(test_bind_conflicts),
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_close_twice_is_noted),
        cmocka_unit_test(test_buffers),
        cmocka_unit_test(test_changed_payload_is_noted),
        cmocka_unit_test(test_two_sends_are_noted),
        cmocka_unit_test(test_cancel_by_descriptor),
        cmocka_unit_test(test_cancel_may_lie),
        cmocka_unit_test(test_overflow_ends_a_multishot),
        cmocka_unit_test(test_restrictions),
        cmocka_unit_test(test_datagrams),
        cmocka_unit_test(test_datagram_shapes),
        cmocka_unit_test(test_datagram_faults),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_crash),
        cmocka_unit_test(test_failed_sync_loses_pages),
        cmocka_unit_test(test_two_rings_wake_each_other),
        cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_each_request),
        cmocka_unit_test(test_echo_with_any_faults),
        cmocka_unit_test(test_seed_replays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
