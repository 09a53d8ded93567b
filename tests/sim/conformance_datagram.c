#include "conformance.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Scripts: datagrams. */

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

void script_datagrams(struct world *w)
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

void script_datagram_shutdown(struct world *w)
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

void script_datagram_sends(struct world *w)
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
