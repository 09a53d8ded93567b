#include "one_ring.h"

#include <errno.h>
#include <string.h>
#include <sys/un.h>

/* The fake kernel's stream connections, TCP and UNIX: buffers, ends, resets, listeners. */

static void test_echo(void **state)
{
    struct bench b;
    struct sim_client *c;
    char answer[16] = {0};

    (void)state;
    begin(&b, 1, NULL, 64);
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
    finish(&b);
}

static void test_send_waits_for_room_and_is_cut_by_shutdown(void **state)
{
    static char big[1u << 20];
    struct bench b;
    struct sim_client *c;

    (void)state;
    begin(&b, 2, NULL, 64);
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
    finish(&b);
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
    begin(&b, 3, NULL, 64);
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
    finish(&b);
}

static void test_close_does_not_end_a_receive(void **state)
{
    struct bench b;
    struct sim_client *c;
    char byte;

    (void)state;
    begin(&b, 4, NULL, 64);
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
    finish(&b);
}

static void test_reset_shows_after_the_data(void **state)
{
    struct bench b;
    struct sim_client *c;

    (void)state;
    begin(&b, 5, NULL, 64);
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
    finish(&b);
}

static void test_close_with_unread_data_resets(void **state)
{
    struct bench b;
    struct sim_client *c;
    char byte;

    (void)state;
    begin(&b, 6, NULL, 64);
    int fd = connected(&b, &c);
    sim_client_write(c, "unread", 6);
    run(&b, SECOND);
    close_fd(&b, fd);
    run(&b, SECOND);
    assert_int_equal(sim_client_state(c), SIM_RESET);
    assert_int_equal(sim_client_read(c, &byte, 1), -ECONNRESET);
    sim_client_close(c);
    finish(&b);
}

static void test_data_after_shutdown_both_ways_resets(void **state)
{
    struct bench b;
    struct sim_client *c;

    (void)state;
    begin(&b, 7, NULL, 64);
    int fd = connected(&b, &c);
    assert_int_equal(shutdown_fd(&b, fd), 0);
    run(&b, SECOND);
    assert_int_equal(sim_client_state(c), SIM_CONNECTED);
    assert_int_equal(sim_client_write(c, "late", 4), 4);
    run(&b, SECOND);
    assert_int_equal(sim_client_state(c), SIM_RESET);
    close_fd(&b, fd);
    sim_client_close(c);
    finish(&b);
}

static void test_linger_zero_drops_what_is_queued(void **state)
{
    struct linger linger = {.l_onoff = 1};
    struct bench b;
    struct sim_client *c;
    char byte;

    (void)state;
    begin(&b, 8, NULL, 64);
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
    finish(&b);
}

static void test_paused_client(void **state)
{
    struct bench b;
    struct sim_client *c;

    (void)state;
    begin(&b, 9, NULL, 64);
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
    finish(&b);
}

static void test_connection_refused(void **state)
{
    struct bench b;
    char byte;

    (void)state;
    begin(&b, 10, NULL, 64);
    struct sim_client *c = client(&b, 4444);
    assert_int_equal(sim_client_state(c), SIM_CONNECTING);
    run(&b, SECOND);
    assert_int_equal(sim_client_state(c), SIM_REFUSED);
    assert_int_equal(sim_client_read(c, &byte, 1), -ECONNREFUSED);
    sim_client_close(c);
    finish(&b);
}

static void test_reuse_port_spreads_clients(void **state)
{
    struct sim_client *clients[64];
    struct bench b;
    unsigned counts[2] = {0};

    (void)state;
    begin(&b, 11, NULL, 1024);
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
    finish(&b);
}

static void test_bind_conflicts(void **state)
{
    struct sockaddr_in any = v4("0.0.0.0", 3000), away = v4("198.51.100.1", 3000);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(3000)};
    int one = 1;
    struct bench b;

    (void)state;
    begin(&b, 12, NULL, 64);
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
    finish(&b);
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
    begin(&b, 13, NULL, 64);
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
    shutdown_fd(&b, l); /* does not end the accept of a UNIX listener; a cancel does */
    run(&b, SECOND);
    assert_null(completion(&b, RING_ACCEPT, 1, 2));
    struct io_uring_sqe *q = sqe(&b, RING_CANCEL, 1);
    io_uring_prep_rw(IORING_OP_ASYNC_CANCEL, q, -1, NULL, 0, 0);
    q->addr = RING_USER_DATA(RING_ACCEPT, 0, 1);
    run(&b, SECOND);
    assert_done(&b, RING_ACCEPT, 1, 2, -ECANCELED, false);
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
    finish(&b);
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
