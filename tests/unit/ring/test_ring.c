/* The ring on the real kernel: wake-ups between threads, multishot requests with provided
 * buffers, full queues, restrictions, jobs of the pool. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/chain.h"
#include "ring/ring.h"

#define PATIENCE_NS UINT64_C(20000000000)

static struct ring ring;

static int make_ring(void **state)
{
    (void)state;
    if (ring_init(&ring, system_real(), 64, 256) < 0)
        return -1;
    return ring_enable(&ring);
}

static int drop_ring(void **state)
{
    (void)state;
    ring_deinit(&ring);
    return 0;
}

/* What the handlers saw last, and how often. */
struct seen {
    unsigned n;
    struct ring_completion last;
};

static void note(void *owner, const struct ring_completion *done)
{
    struct seen *seen = owner;
    seen->n++;
    seen->last = *done;
}

static bool always_empty(void *arg)
{
    (void)arg;
    return true;
}

static void turn(struct ring *r, bool wait)
{
    ring_wake_arm(r);
    assert_int_equal(ring_enter(r, wait, PATIENCE_NS), 0);
    ring_dispatch(r, ring_mark(r), UINT32_MAX);
}

static bool out_of_patience(uint64_t since_ns)
{
    return system_real()->monotonic_ns(NULL) - since_ns >= PATIENCE_NS;
}

static void run_until(struct seen *seen, unsigned n)
{
    uint64_t start = system_real()->monotonic_ns(NULL);

    while (seen->n < n) {
        turn(&ring, true);
        assert_false(out_of_patience(start));
    }
}

/* ---- basics ----------------------------------------------------------------------------- */

static void failed_setup_leaves_zeroes(void **state)
{
    (void)state;
    struct ring r, zero;

    memset(&zero, 0, sizeof zero);
    memset(&r, 0xff, sizeof r);
    assert_int_equal(ring_init(&r, system_real(), 0, 256), -EINVAL);
    assert_memory_equal(&r, &zero, sizeof r);
    ring_deinit(&r);
}

static void sizes_are_clamped(void **state)
{
    (void)state;
    struct ring r;

    assert_int_equal(ring_init(&r, system_real(), 5, 100), 0);
    assert_int_equal(r.sq_entries, 8);
    assert_int_equal(r.cq_entries, 128);
    assert_int_equal(ring_space(&r), 8);
    ring_deinit(&r);
}

static void no_call_without_need(void **state)
{
    (void)state;
    turn(&ring, false); /* submits the READ of the eventfd */
    uint64_t enters = ring.counters.enters;
    for (int i = 0; i < 10; i++)
        turn(&ring, false);
    assert_int_equal(ring.counters.enters, enters);
}

static void a_wait_ends_in_time(void **state)
{
    (void)state;
    const struct system *system = ring.system;
    turn(&ring, false); /* an enter that also submits reports that, not the timeout */
    uint64_t before = system->monotonic_ns(NULL);

    assert_int_equal(ring_enter(&ring, true, 30000000), 0);
    uint64_t took = system->monotonic_ns(NULL) - before;
    assert_true(took >= 30000000);
    assert_int_equal(ring.counters.timeouts, 1);
    assert_int_equal(ring.counters.waits, 1);
    assert_int_equal(ring_enter(&ring, true, 0), 0);
    assert_int_equal(ring.counters.timeouts, 2);
}

static void *enter_from_elsewhere(void *arg)
{
    return (void *)(intptr_t)ring_enter(arg, true, 0);
}

static void another_thread_may_not_enter(void **state)
{
    (void)state;
    pthread_t thread;
    void *result;

    turn(&ring, false);
    assert_int_equal(pthread_create(&thread, NULL, enter_from_elsewhere, &ring), 0);
    pthread_join(thread, &result);
    /* EEXIST; EINVAL where the ring's descriptor is registered, which is for one thread. */
    assert_true((intptr_t)result == -EEXIST || (intptr_t)result == -EINVAL);
}

static void a_full_queue_enters_once(void **state)
{
    (void)state;
    struct seen seen = {0};
    uint64_t value;

    turn(&ring, false);
    ring_on(&ring, RING_FILE_READ, note, &seen);
    for (unsigned i = 0; i < 200; i++) {
        struct io_uring_sqe *sqe = ring_sqe(&ring, RING_USER_DATA(RING_FILE_READ, 0xabcdef, i));
        assert_non_null(sqe);
        assert_int_equal(sqe->flags, 0);
        io_uring_prep_read(sqe, -1, &value, sizeof value, 0);
    }
    assert_int_equal(ring.counters.sq_full, 3);
    run_until(&seen, 200);
    assert_int_equal(seen.last.result, -EBADF);
    assert_int_equal(seen.last.generation, 0xabcdef);
    assert_int_equal(seen.last.slot, 199);
    assert_int_equal(ring.counters.cqes, 200);
    assert_int_equal(ring.counters.sqes, 201);
}

/* A kernel that takes nothing: what a full queue looks like when entering does not help. */
static int refusal;

static int refuse_enter(void *kernel, struct ring *r, unsigned to_submit, unsigned wait,
                        uint64_t timeout_ns)
{
    (void)kernel, (void)r, (void)to_submit, (void)wait, (void)timeout_ns;
    return refusal;
}

static void a_refused_enter_keeps_the_queue(void **state)
{
    (void)state;
    struct seen seen = {0};
    struct system stubborn = *ring.system;
    const struct system *real = ring.system;
    uint64_t value;

    turn(&ring, false);
    ring_on(&ring, RING_FILE_READ, note, &seen);
    stubborn.ring_enter = refuse_enter;
    ring.system = &stubborn;
    refusal = -EBUSY;
    for (unsigned i = 0; i < 64; i++)
        io_uring_prep_read(ring_sqe(&ring, RING_USER_DATA(RING_FILE_READ, 0, i)), -1, &value, 8, 0);
    assert_null(ring_sqe(&ring, RING_USER_DATA(RING_FILE_READ, 0, 64)));
    assert_int_equal(ring_enter(&ring, false, 0), 0);
    refusal = -EAGAIN;
    assert_int_equal(ring_enter(&ring, true, 0), 0);
    assert_int_equal(ring.counters.busy, 3);
    assert_int_equal(ring_space(&ring), 0);
    ring.system = real;
    run_until(&seen, 64);

    /* What ends the worker is not lost when ring_sqe() met it. */
    ring.system = &stubborn;
    refusal = -EBADR;
    for (unsigned i = 0; i < 64; i++)
        assert_non_null(ring_sqe(&ring, RING_USER_DATA(RING_FILE_READ, 0, i)));
    assert_null(ring_sqe(&ring, RING_USER_DATA(RING_FILE_READ, 0, 64)));
    ring.system = real;
    assert_int_equal(ring_enter(&ring, false, 0), -EBADR);
}

static void dispatch_stops_at_mark_and_budget(void **state)
{
    (void)state;
    struct seen seen = {0};
    uint64_t value;

    turn(&ring, false);
    ring_on(&ring, RING_FILE_READ, note, &seen);
    for (unsigned i = 0; i < 40; i++)
        io_uring_prep_read(ring_sqe(&ring, RING_USER_DATA(RING_FILE_READ, 0, i)), -1, &value, 8, 0);
    assert_int_equal(ring_enter(&ring, false, 0), 0);
    unsigned mark = ring_mark(&ring);
    for (unsigned i = 0; i < 10; i++)
        io_uring_prep_read(ring_sqe(&ring, RING_USER_DATA(RING_FILE_READ, 0, 100)), -1, &value, 8,
                           0);
    assert_int_equal(ring_enter(&ring, false, 0), 0);
    assert_int_equal(ring_dispatch(&ring, mark, 15), 25);
    assert_int_equal(seen.n, 15);
    assert_int_equal(ring_dispatch(&ring, mark, 100), 0);
    assert_int_equal(seen.n, 40);
    assert_int_equal(seen.last.slot, 39);
    assert_int_equal(ring_dispatch(&ring, ring_mark(&ring), 100), 0);
    assert_int_equal(seen.n, 50);
}

static void unknown_kinds_are_counted(void **state)
{
    (void)state;
    uint64_t value;

    turn(&ring, false);
    io_uring_prep_read(ring_sqe(&ring, RING_USER_DATA(RING_KINDS, 0, 0)), -1, &value, 8, 0);
    io_uring_prep_read(ring_sqe(&ring, RING_USER_DATA(RING_SEND, 0, 0)), -1, &value, 8, 0);
    io_uring_prep_read(ring_sqe(&ring, 0), -1, &value, 8, 0);
    turn(&ring, false);
    assert_int_equal(ring.counters.stale, 3);
}

static void restrictions_hold(void **state)
{
    (void)state;
    struct seen seen = {0};
    uint64_t probe[64] = {0}; /* room for a struct io_uring_probe */

    ring_on(&ring, RING_FILE_READ, note, &seen);
    io_uring_prep_openat(ring_sqe(&ring, RING_USER_DATA(RING_FILE_READ, 0, 0)), AT_FDCWD,
                         "/dev/null", O_RDONLY, 0);
    run_until(&seen, 1);
    assert_int_equal(seen.last.result, -EACCES);
    io_uring_prep_nop(ring_sqe(&ring, RING_USER_DATA(RING_FILE_READ, 0, 0)));
    run_until(&seen, 2);
    assert_int_equal(seen.last.result, -EACCES);

    struct io_uring_sqe *sqe = ring_sqe(&ring, RING_USER_DATA(RING_FILE_READ, 0, 0));
    io_uring_prep_fsync(sqe, -1, 0);
    sqe->flags = IOSQE_IO_LINK;
    run_until(&seen, 3);
    assert_int_equal(seen.last.result, -EACCES);
    assert_int_equal(ring.system->ring_register(NULL, &ring, IORING_REGISTER_PROBE, probe, 8),
                     -EACCES);
}

/* ---- sockets, with provided buffers ----------------------------------------------------- */

#define BUFFERS      8u
#define BUFFER_BYTES 64u

struct buffers {
    struct io_uring_buf_ring *entries;
    char *memory;
};

static void buffers_add(struct buffers *b, unsigned short id)
{
    io_uring_buf_ring_add(b->entries, b->memory + id * BUFFER_BYTES, BUFFER_BYTES, id, BUFFERS - 1,
                          0);
    io_uring_buf_ring_advance(b->entries, 1);
}

static void buffers_make(struct buffers *b, unsigned filled)
{
    size_t size = BUFFERS * sizeof(struct io_uring_buf);

    b->entries = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(b->entries, MAP_FAILED);
    b->memory = calloc(BUFFERS, BUFFER_BYTES);
    assert_non_null(b->memory);
    struct io_uring_buf_reg registration = {.ring_addr = (uintptr_t)b->entries,
                                            .ring_entries = BUFFERS,
                                            .bgid = 1};
    assert_int_equal(ring.system->ring_register(NULL, &ring, IORING_REGISTER_PBUF_RING,
                                                &registration, 1),
                     0);
    for (unsigned short i = 0; i < filled; i++)
        buffers_add(b, i);
}

static void buffers_drop(struct buffers *b)
{
    struct io_uring_buf_reg registration = {.bgid = 1};

    assert_int_equal(ring.system->ring_register(NULL, &ring, IORING_UNREGISTER_PBUF_RING,
                                                &registration, 1),
                     0);
    munmap(b->entries, BUFFERS * sizeof(struct io_uring_buf));
    free(b->memory);
}

static void arm_recv(int fd, unsigned flags)
{
    struct io_uring_sqe *sqe = ring_sqe(&ring, RING_USER_DATA(RING_RECV, 1, 7));

    assert_non_null(sqe);
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->ioprio |= (uint16_t)flags;
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->buf_group = 1;
}

static unsigned short buffer_id(const struct seen *seen)
{
    assert_true(seen->last.flags & IORING_CQE_F_BUFFER);
    return (unsigned short)(seen->last.flags >> IORING_CQE_BUFFER_SHIFT);
}

static int tcp_listener(struct sockaddr_in *ret_addr)
{
    const struct system *system = ring.system;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int fd = system->socket(NULL, AF_INET, SOCK_STREAM, 0), on = 1;

    assert_true(fd >= 0);
    assert_int_equal(system->setsockopt(NULL, fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    assert_int_equal(system->bind(NULL, fd, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(system->listen(NULL, fd, 8), 0);
    assert_int_equal(system->getsockname(NULL, fd, (struct sockaddr *)&addr, &len), 0);
    *ret_addr = addr;
    return fd;
}

static void accepts_receives_and_sends(void **state)
{
    (void)state;
    const struct system *system = ring.system;
    struct seen accepted = {0}, received = {0}, sent = {0};
    struct buffers buffers;
    struct sockaddr_in addr;
    int listener = tcp_listener(&addr), clients[3], servers[3];
    char text[64];

    buffers_make(&buffers, BUFFERS);
    ring_on(&ring, RING_ACCEPT, note, &accepted);
    ring_on(&ring, RING_RECV, note, &received);
    ring_on(&ring, RING_SEND, note, &sent);
    io_uring_prep_multishot_accept(ring_sqe(&ring, RING_USER_DATA(RING_ACCEPT, 0, 0)), listener,
                                   NULL, NULL, SOCK_CLOEXEC);
    for (unsigned i = 0; i < 3; i++) {
        clients[i] = system->socket(NULL, AF_INET, SOCK_STREAM, 0);
        assert_int_equal(system->connect(NULL, clients[i], (struct sockaddr *)&addr, sizeof addr),
                         0);
        run_until(&accepted, i + 1);
        assert_true(accepted.last.result >= 0);
        assert_true(accepted.last.flags & IORING_CQE_F_MORE);
        servers[i] = accepted.last.result;
    }
    arm_recv(servers[1], IORING_RECVSEND_POLL_FIRST);
    for (unsigned i = 1; i <= 20; i++) {
        assert_int_equal(send(clients[1], "knock", 5, 0), 5);
        run_until(&received, i);
        assert_int_equal(received.last.result, 5);
        assert_int_equal(received.last.slot, 7);
        assert_int_equal(received.last.generation, 1);
        assert_true(received.last.flags & IORING_CQE_F_MORE);
        unsigned short id = buffer_id(&received);
        assert_memory_equal(buffers.memory + id * BUFFER_BYTES, "knock", 5);
        buffers_add(&buffers, id);
        io_uring_prep_send(ring_sqe(&ring, RING_USER_DATA(RING_SEND, 0, 0)), servers[1], "open", 4,
                           MSG_NOSIGNAL);
        run_until(&sent, i);
        assert_int_equal(sent.last.result, 4);
        assert_int_equal(recv(clients[1], text, sizeof text, 0), 4);
    }
    /* shutdown() ends the armed receive; close() alone would not. */
    assert_int_equal(system->shutdown(NULL, servers[1], SHUT_RDWR), 0);
    run_until(&received, 21);
    assert_int_equal(received.last.result, 0);
    assert_false(received.last.flags & IORING_CQE_F_MORE);
    assert_int_equal(system->shutdown(NULL, listener, SHUT_RDWR), 0);
    run_until(&accepted, 4);
    assert_int_equal(accepted.last.result, -EINVAL);
    for (unsigned i = 0; i < 3; i++) {
        system->close(NULL, clients[i]);
        system->close(NULL, servers[i]);
    }
    system->close(NULL, listener);
    buffers_drop(&buffers);
}

static void no_buffers_ends_the_receive(void **state)
{
    (void)state;
    struct seen received = {0};
    struct buffers buffers;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    buffers_make(&buffers, 1);
    ring_on(&ring, RING_RECV, note, &received);
    arm_recv(pair[0], 0);
    for (unsigned i = 0; i < BUFFER_BYTES + 6; i++)
        assert_int_equal(send(pair[1], "x", 1, 0), 1);
    run_until(&received, 2);
    assert_int_equal(received.last.result, -ENOBUFS);
    assert_false(received.last.flags & IORING_CQE_F_MORE);
    /* With the buffer back, what waited arrives. */
    buffers_add(&buffers, 0);
    arm_recv(pair[0], IORING_RECVSEND_POLL_FIRST);
    run_until(&received, 3);
    assert_true(received.last.result > 0);
    shutdown(pair[0], SHUT_RDWR);
    while (received.last.flags & IORING_CQE_F_MORE || received.last.result > 0)
        run_until(&received, received.n + 1);
    close(pair[0]);
    close(pair[1]);
    buffers_drop(&buffers);
}

/* ---- wake-ups --------------------------------------------------------------------------- */

#define ROUNDS 100000u

struct player {
    struct ring ring;
    struct chain mailbox;
    struct player *other;
    bool serves;
    unsigned rounds;
    int result;
};

struct ball {
    struct chain_node node;
    unsigned count;
};

static struct player players[2];
static struct ball ball;

static bool mailbox_empty(void *arg)
{
    return chain_empty(&((struct player *)arg)->mailbox);
}

static void pass(struct player *to)
{
    chain_push(&to->mailbox, &ball.node, &ball.node);
    ring_wake(&to->ring);
}

static int play_turn(struct player *p)
{
    ring_wake_arm(&p->ring);
    bool sleep = ring_sleep_begin(&p->ring, mailbox_empty, p);
    uint64_t start = system_real()->monotonic_ns(NULL);
    int result = ring_enter(&p->ring, sleep, PATIENCE_NS);
    ring_sleep_end(&p->ring);
    if (out_of_patience(start))
        return -ETIME;
    if (result < 0)
        return result;
    ring_dispatch(&p->ring, ring_mark(&p->ring), UINT32_MAX);
    if (chain_take(&p->mailbox)) {
        ball.count++; /* handed over by the mailbox alone */
        p->rounds++;
        pass(p->other);
    }
    return 0;
}

static pthread_barrier_t court;

static void *play(void *arg)
{
    struct player *p = arg;

    p->result = ring_enable(&p->ring);
    pthread_barrier_wait(&court);
    if (p->serves)
        pass(p->other);
    while (!p->result && p->rounds < ROUNDS) {
        p->result = play_turn(p);
    }
    pthread_barrier_wait(&court);
    ring_deinit(&p->ring);
    return NULL;
}

static void no_wake_up_is_lost(void **state)
{
    (void)state;
    pthread_t threads[2];

    memset(players, 0, sizeof players);
    ball.count = 0;
    pthread_barrier_init(&court, NULL, 2);
    for (int i = 0; i < 2; i++) { /* made here, run elsewhere */
        players[i].other = &players[1 - i];
        assert_int_equal(ring_init(&players[i].ring, system_real(), 8, 16), 0);
    }
    players[0].serves = true;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, play, &players[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&court);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(players[i].result, 0);
        assert_int_equal(players[i].rounds, ROUNDS);
        assert_true(players[i].ring.counters.wakes_received <= players[i].ring.counters.wakes_sent);
        assert_true(players[i].ring.counters.wakes_sent > 0);
    }
    assert_int_equal(ball.count, 2 * ROUNDS);
}

static void an_awake_worker_costs_no_call(void **state)
{
    (void)state;
    turn(&ring, false);
    ring_wake(&ring);
    assert_int_equal(ring.counters.wakes_sent, 0);
    assert_true(ring_sleep_begin(&ring, always_empty, NULL));
    ring_wake(&ring);
    ring_wake(&ring);
    assert_int_equal(ring.counters.wakes_sent, 1);
    assert_int_equal(ring_enter(&ring, true, PATIENCE_NS), 0);
    ring_sleep_end(&ring);
    ring_dispatch(&ring, ring_mark(&ring), 100);
    assert_int_equal(ring.counters.wakes_received, 1);
    assert_false(ring_sleep_begin(&ring, always_empty, NULL)); /* its READ is not armed again */
    ring_wake_arm(&ring);
    assert_true(ring_sleep_begin(&ring, always_empty, NULL));
    ring_sleep_end(&ring);
}

/* ---- the pool --------------------------------------------------------------------------- */

struct sum {
    struct ring_job job;
    unsigned in, out;
    unsigned *total;
};

static void sum_work(struct system_job *job)
{
    struct sum *s = (struct sum *)(void *)job;
    s->out = s->in * 2;
}

static void sum_done(struct ring_job *job)
{
    struct sum *s = (struct sum *)(void *)job;
    *s->total += s->out;
}

static void jobs_come_back(void **state)
{
    (void)state;
    static struct sum sums[3000];
    unsigned total = 0, back = 0, handed = 0;

    assert_int_equal(ring_job(&ring, &sums[0].job), -ESHUTDOWN);
    assert_int_equal(system_pool_start(2), 0);
    uint64_t start = system_real()->monotonic_ns(NULL);
    while (back < 3000) {
        while (handed < 3000) {
            sums[handed] = (struct sum){.in = handed, .total = &total};
            sums[handed].job.job.work = sum_work;
            sums[handed].job.done = sum_done;
            int result = ring_job(&ring, &sums[handed].job);
            if (result == -EAGAIN)
                break;
            assert_int_equal(result, 0);
            handed++;
        }
        ring_wake_arm(&ring);
        bool sleep = ring_sleep_begin(&ring, always_empty, NULL);
        assert_int_equal(ring_enter(&ring, sleep, PATIENCE_NS), 0);
        ring_sleep_end(&ring);
        assert_false(out_of_patience(start));
        ring_dispatch(&ring, ring_mark(&ring), 100);
        back += ring_jobs_run(&ring);
    }
    system_pool_stop();
    assert_int_equal(total, 2999u * 3000u);
    assert_false(ring_jobs_waiting(&ring));
    assert_int_equal(ring_jobs_run(&ring), 0);
}

static void a_ring_with_a_job_to_finish_does_not_sleep(void **state)
{
    (void)state;
    unsigned total = 0;
    struct sum sum = {.out = 5, .total = &total, .job.done = sum_done};

    turn(&ring, false);
    assert_true(ring_sleep_begin(&ring, always_empty, NULL));
    ring_sleep_end(&ring);
    ring_job_defer(&ring, &sum.job);
    assert_int_equal(total, 0);
    assert_false(ring_sleep_begin(&ring, always_empty, NULL));
    assert_int_equal(ring_jobs_run(&ring), 1);
    assert_int_equal(total, 5);
    assert_true(ring_sleep_begin(&ring, always_empty, NULL));
    ring_sleep_end(&ring);
}

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void wait_at_gate(struct system_job *job)
{
    (void)job;
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
}

static void count_done(struct ring_job *job)
{
    (void)job;
}

static void a_full_pool_refuses_and_stop_waits(void **state)
{
    (void)state;
    static struct ring_job jobs[300];
    unsigned taken = 0;
    int result = 0;

    pthread_mutex_lock(&gate);
    assert_int_equal(system_pool_start(1), 0);
    while (taken < 300) {
        jobs[taken] = (struct ring_job){.job.work = wait_at_gate, .done = count_done};
        result = ring_job(&ring, &jobs[taken]);
        if (result < 0)
            break;
        taken++;
    }
    assert_int_equal(result, -EAGAIN);
    assert_in_range(taken, 256, 257); /* one may be at work */
    pthread_mutex_unlock(&gate);
    system_pool_stop();
    assert_int_equal(ring_jobs_run(&ring), taken);
}

int main(void)
{
#define WITH_RING(test) cmocka_unit_test_setup_teardown(test, make_ring, drop_ring)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failed_setup_leaves_zeroes),
        cmocka_unit_test(sizes_are_clamped),
        WITH_RING(no_call_without_need),
        WITH_RING(a_wait_ends_in_time),
        WITH_RING(another_thread_may_not_enter),
        WITH_RING(a_full_queue_enters_once),
        WITH_RING(a_refused_enter_keeps_the_queue),
        WITH_RING(dispatch_stops_at_mark_and_budget),
        WITH_RING(unknown_kinds_are_counted),
        WITH_RING(restrictions_hold),
        WITH_RING(accepts_receives_and_sends),
        WITH_RING(no_buffers_ends_the_receive),
        WITH_RING(an_awake_worker_costs_no_call),
        WITH_RING(jobs_come_back),
        WITH_RING(a_ring_with_a_job_to_finish_does_not_sleep),
        WITH_RING(a_full_pool_refuses_and_stop_waits),
        cmocka_unit_test(no_wake_up_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
