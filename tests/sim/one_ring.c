#include "one_ring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * The recording is keyed by kind and slot, as user_data is; the wake-up's own read is the ring's
 * and not recorded. The ring must outlive no test: finish() checks that the kernel holds nothing.
 */

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

void give(struct bench *b, unsigned id)
{
    struct io_uring_buf *buf = &b->buffers->bufs[b->tail & (BUFFERS - 1)];

    buf->addr = (uintptr_t)b->memory[id];
    buf->len = BUFFER_BYTES;
    buf->bid = (uint16_t)id;
    __atomic_store_n(&b->buffers->tail, ++b->tail, __ATOMIC_RELEASE);
}

void begin(struct bench *b, uint64_t seed, const struct sim_faults *faults, unsigned cq_entries)
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

void finish(struct bench *b)
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

void run(struct bench *b, uint64_t ns)
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

const struct done *completion(const struct bench *b, unsigned kind, unsigned slot, unsigned n)
{
    for (unsigned i = 0; i < b->n_done; i++)
        if (b->done[i].kind == kind && b->done[i].slot == slot && !n--)
            return &b->done[i];
    return NULL;
}

void assert_done(const struct bench *b, unsigned kind, unsigned slot, unsigned n, int32_t result,
                 bool more)
{
    const struct done *d = completion(b, kind, slot, n);

    assert_non_null(d);
    assert_int_equal(d->result, result);
    assert_int_equal(!!(d->flags & IORING_CQE_F_MORE), more);
}

struct io_uring_sqe *sqe(struct bench *b, unsigned kind, unsigned slot)
{
    struct io_uring_sqe *s = ring_sqe(&b->ring, RING_USER_DATA(kind, 0, slot));

    assert_non_null(s);
    return s;
}

void arm_accept(struct bench *b, int fd, unsigned slot)
{
    struct io_uring_sqe *s = sqe(b, RING_ACCEPT, slot);

    io_uring_prep_rw(IORING_OP_ACCEPT, s, fd, NULL, 0, 0);
    s->ioprio = IORING_ACCEPT_MULTISHOT;
    s->accept_flags = SOCK_CLOEXEC;
}

void arm_recv(struct bench *b, int fd, unsigned slot)
{
    struct io_uring_sqe *s = sqe(b, RING_RECV, slot);

    io_uring_prep_rw(IORING_OP_RECV, s, fd, NULL, 0, 0);
    s->ioprio = IORING_RECV_MULTISHOT;
    s->flags = IOSQE_BUFFER_SELECT;
    s->buf_group = 1;
}

void send_bytes(struct bench *b, int fd, unsigned slot, const char *bytes, size_t n)
{
    struct io_uring_sqe *s = sqe(b, RING_SEND, slot);

    io_uring_prep_rw(IORING_OP_SEND, s, fd, bytes, (unsigned)n, 0);
    s->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
}

const char *received(const struct bench *b, const struct done *d)
{
    assert_non_null(d);
    assert_true(d->flags & IORING_CQE_F_BUFFER);
    return b->memory[d->flags >> IORING_CQE_BUFFER_SHIFT];
}

struct sockaddr_in v4(const char *text, uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

    assert_int_equal(inet_pton(AF_INET, text, &a.sin_addr), 1);
    return a;
}

int listener(struct bench *b, uint16_t port, bool reuse)
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

struct sim_client *client(struct bench *b, uint16_t port)
{
    struct sockaddr_in to = v4("127.0.0.1", port);

    return sim_connect(b->k, (struct sockaddr *)&to, sizeof to, NULL, 0, 1000);
}

int connected(struct bench *b, struct sim_client **ret_client)
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

int close_fd(struct bench *b, int fd)
{
    return b->sys->close(b->sys->kernel, fd);
}

int shutdown_fd(struct bench *b, int fd)
{
    return b->sys->shutdown(b->sys->kernel, fd, SHUT_RDWR);
}
