#include "one_ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/*
 * The fake kernel's middle: descriptors, requests and completions, provided buffers, cancels, the
 * two clocks, the pool, and the calls a scheduler of several rings lives on.
 */

/* ---- descriptors ------------------------------------------------------------------------ */

static void test_descriptors(void **state)
{
    struct sim_faults faults = sim_faults_none();
    struct bench b;

    (void)state;
    faults.descriptors = 8;
    begin(&b, 14, &faults, 64); /* 3: eventfd or ring, 4: the other */
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
    finish(&b);
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

/* ---- requests --------------------------------------------------------------------------- */

static void test_buffers(void **state)
{
    struct bench b;
    struct sim_client *c;
    unsigned n_free, n_lent;

    (void)state;
    begin(&b, 15, NULL, 64);
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
    begin(&b, 16, NULL, 64);
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
    begin(&b, 17, NULL, 64);
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
    begin(&b, 18, NULL, 64);
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
    finish(&b);
}

static void test_cancel_may_lie(void **state)
{
    struct sim_faults faults = sim_faults_none();
    struct bench b;
    struct sim_client *c;

    (void)state;
    faults.cancel_lies = 1;
    begin(&b, 19, &faults, 64);
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
    finish(&b);
}

static void test_overflow_ends_a_multishot(void **state)
{
    struct bench b;
    struct sim_client *c;

    (void)state;
    begin(&b, 20, NULL, 8);
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
    finish(&b);
}

static void test_restrictions(void **state)
{
    struct bench b;

    (void)state;
    begin(&b, 21, NULL, 64);
    io_uring_prep_rw(IORING_OP_NOP, sqe(&b, RING_SEND, 1), -1, NULL, 0, 0);
    io_uring_prep_rw(IORING_OP_OPENAT, sqe(&b, RING_SEND, 2), -1, NULL, 0, 0);
    io_uring_prep_rw(250, sqe(&b, RING_SEND, 3), -1, NULL, 0, 0);
    run(&b, 0);
    assert_done(&b, RING_SEND, 1, 0, -EACCES, false);
    assert_done(&b, RING_SEND, 2, 0, -EACCES, false);
    assert_done(&b, RING_SEND, 3, 0, -EINVAL, false);
    finish(&b);
}

/* ---- scheduling ------------------------------------------------------------------------- */

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
    begin(&b, 52, NULL, 64);
    assert_int_equal(ring_job(&b.ring, &job.job), 0);
    assert_int_equal(sim_jobs_waiting(b.k), 1);
    assert_int_equal(job.worked, 0);
    run(&b, SECOND);
    assert_int_equal(sim_jobs_waiting(b.k), 0);
    assert_int_equal(job.worked, 1);
    assert_int_equal(job.done, 0);
    assert_int_equal(ring_jobs_run(&b.ring), 1);
    assert_int_equal(job.done, 1);
    finish(&b);
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
    begin(&b, 53, NULL, 64);
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
    finish(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_close_twice_is_noted),
        cmocka_unit_test(test_buffers),
        cmocka_unit_test(test_changed_payload_is_noted),
        cmocka_unit_test(test_two_sends_are_noted),
        cmocka_unit_test(test_cancel_by_descriptor),
        cmocka_unit_test(test_cancel_may_lie),
        cmocka_unit_test(test_overflow_ends_a_multishot),
        cmocka_unit_test(test_restrictions),
        cmocka_unit_test(test_two_rings_wake_each_other),
        cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_each_request),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
