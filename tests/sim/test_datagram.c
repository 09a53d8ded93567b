#include "one_ring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

/* The fake kernel's datagrams: the layout of a multishot recvmsg, addresses, the faulty net. */

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

    begin(&d->b, 30, faults, 64);
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
    /* By offset: gcc 12 takes the header's end for the end of the memory. */
    const char *bytes = at + sizeof *out + d.shape.msg_namelen;
    assert_ptr_equal(bytes, control);
    memcpy(&info, bytes + CMSG_LEN(0), sizeof info);
    assert_int_equal(info.ipi_addr.s_addr, d.at.sin_addr.s_addr);

    /* The answer: with the address that was asked it comes from there, without from elsewhere. */
    char space[CMSG_SPACE(sizeof info)];
    memcpy(space, bytes, sizeof space);
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
    finish(&d.b);
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
    finish(&d.b);
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
    finish(&d.b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_datagrams),
        cmocka_unit_test(test_datagram_shapes),
        cmocka_unit_test(test_datagram_faults),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
