#include "kernel_state.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "kernel_stream.h"

/*
 * The plain calls on sockets, and what becomes of a socket that nothing holds any more. Options
 * that only matter to a real network are taken and forgotten. Buffer limits count bytes as they
 * were asked for, without the doubling that the kernel does for its own overhead.
 */

#define SEND_LIMIT     65536u
#define RECEIVE_LIMIT  65536u
#define SOMAXCONN_HERE 4096

static int sim_socket(void *kernel, int family, int type, int protocol)
{
    struct sim_kernel *k = kernel;

    (void)protocol;
    type &= ~(SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
        return -EAFNOSUPPORT;
    if (type != SOCK_STREAM && (type != SOCK_DGRAM || family == AF_UNIX))
        return -ESOCKTNOSUPPORT;
    struct held *h = held_new(k, HELD_SOCKET);
    h->socket.family = family;
    h->socket.type = type;
    h->socket.send_limit = SEND_LIMIT;
    h->socket.receive_limit = RECEIVE_LIMIT;
    int fd = descriptor_new(k, h);
    if (fd < 0)
        held_release(h);
    return fd;
}

static bool taken(const struct sim_kernel *k, const struct held *self)
{
    const struct socket *s = &self->socket;

    for (const struct list *at = k->held.next; at != &k->held; at = at->next) {
        const struct held *h = container_of(at, const struct held, link);
        const struct socket *o = &h->socket;
        if (h == self || h->kind != HELD_SOCKET || !o->bound || o->type != s->type || o->pair)
            continue;
        if (!sockets_overlap(s, o) || (s->reuse_port && o->reuse_port))
            continue;
        if (s->type == SOCK_STREAM && s->reuse_address && o->reuse_address && !o->listening)
            continue;
        return true;
    }
    return false;
}

static int sim_bind(void *kernel, int fd, const struct sockaddr *addr, socklen_t len)
{
    struct sim_kernel *k = kernel;
    int result = 0;
    struct held *h = socket_get(k, fd, &result);

    if (!h)
        return result;
    struct socket *s = &h->socket;
    if (s->bound)
        return s->family == AF_UNIX ? -EADDRINUSE : -EINVAL;
    result = place_from(addr, len, &s->local);
    if (result < 0)
        return result;
    if (s->local.family != s->family)
        return s->family == AF_UNIX ? -EINVAL : -EAFNOSUPPORT;
    if (s->family == AF_UNIX) {
        result = file_socket_make(k, s->local.path);
        s->bound = result >= 0;
        return result;
    }
    if (!host_has(k, &s->local))
        return -EADDRNOTAVAIL;
    bool any_port = !s->local.port;
    s->bound = true;
    for (unsigned tries = 0;; tries++) {
        if (any_port)
            s->local.port = (uint16_t)(32768 + draw(k, 28000));
        if (!taken(k, h))
            return 0;
        if (!any_port || tries > 1000)
            break;
    }
    s->bound = false;
    return -EADDRINUSE;
}

static int sim_listen(void *kernel, int fd, int backlog)
{
    int result = 0;
    struct held *h = socket_get(kernel, fd, &result);

    if (!h)
        return result;
    struct socket *s = &h->socket;
    if (s->type != SOCK_STREAM)
        return -EOPNOTSUPP;
    if (s->pair || !s->bound)
        return -EINVAL;
    s->listening = true;
    s->shut = false;
    s->backlog = backlog < 0 || backlog > SOMAXCONN_HERE ? SOMAXCONN_HERE : (unsigned)backlog;
    return 0;
}

static int set_packet_info(struct socket *s, int level, int name, bool on)
{
    if (level == IPPROTO_IP && name == IP_PKTINFO)
        s->packet_info4 = on;
    if (level == IPPROTO_IPV6 && name == IPV6_RECVPKTINFO)
        s->packet_info6 = on;
    if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) {
        if (s->bound)
            return -EINVAL;
        s->v6_only = on;
    }
    return level == IPPROTO_IPV6 && s->family != AF_INET6 ? -ENOPROTOOPT : 0;
}

static void set_limit(struct socket *s, int name, int value)
{
    size_t limit = value < 2304 ? 2304 : (size_t)value;

    if (name == SO_SNDBUF) {
        s->send_limit = limit;
        if (s->pair)
            s->pair->pipe[s->side].send_limit = limit;
    } else {
        s->receive_limit = limit;
        if (s->pair)
            s->pair->pipe[1 - s->side].receive_limit = limit;
    }
}

static int sim_setsockopt(void *kernel, int fd, int level, int name, const void *value,
                          socklen_t len)
{
    int result = 0, number = 0;
    struct held *h = socket_get(kernel, fd, &result);

    if (!h)
        return result;
    struct socket *s = &h->socket;
    if (len < sizeof number)
        return -EINVAL;
    memcpy(&number, value, sizeof number);
    if (level == IPPROTO_TCP)
        return s->type == SOCK_STREAM && s->family != AF_UNIX ? 0 : -EOPNOTSUPP;
    if (level == IPPROTO_IP || level == IPPROTO_IPV6)
        return s->family == AF_UNIX ? -EOPNOTSUPP : set_packet_info(s, level, name, number);
    if (level != SOL_SOCKET)
        return -ENOPROTOOPT;
    switch (name) {
    case SO_REUSEPORT:
        s->reuse_port = number;
        return s->family == AF_UNIX ? -EOPNOTSUPP : 0;
    case SO_REUSEADDR:
        s->reuse_address = number;
        return 0;
    case SO_SNDBUF:
    case SO_RCVBUF:
        set_limit(s, name, number);
        return 0;
    case SO_LINGER:
        if (len < sizeof s->linger)
            return -EINVAL;
        memcpy(&s->linger, value, sizeof s->linger);
        return 0;
    case SO_KEEPALIVE:
    case SO_PASSCRED:
    case SO_INCOMING_CPU:
    case SO_PRIORITY:
        return 0;
    default:
        return -ENOPROTOOPT;
    }
}

static int put(void *value, socklen_t *len, const void *from, size_t n)
{
    if (*len > n)
        *len = (socklen_t)n;
    memcpy(value, from, *len);
    return 0;
}

static int take_error(struct socket *s)
{
    if (!s->pair)
        return 0;
    int error = s->pair->side[s->side].error;
    s->pair->side[s->side].error = 0;
    return error;
}

static int sim_getsockopt(void *kernel, int fd, int level, int name, void *value, socklen_t *len)
{
    int result = 0, number;
    struct held *h = socket_get(kernel, fd, &result);

    if (!h)
        return result;
    struct socket *s = &h->socket;
    if (level != SOL_SOCKET)
        return -ENOPROTOOPT;
    switch (name) {
    case SO_PEERCRED: {
        struct ucred who = {.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
        if (s->pair && s->family == AF_UNIX)
            who = (struct ucred){.pid = 4711,
                                 .uid = s->pair->side[1 - s->side].uid,
                                 .gid = s->pair->side[1 - s->side].uid};
        return put(value, len, &who, sizeof who);
    }
    case SO_LINGER:
        return put(value, len, &s->linger, sizeof s->linger);
    case SO_ERROR:
        number = take_error(s);
        break;
    case SO_TYPE:
        number = s->type;
        break;
    case SO_DOMAIN:
        number = s->family;
        break;
    case SO_ACCEPTCONN:
        number = s->listening && !s->shut;
        break;
    case SO_SNDBUF:
        number = 2 * (int)s->send_limit;
        break;
    case SO_RCVBUF:
        number = 2 * (int)s->receive_limit;
        break;
    default:
        return -ENOPROTOOPT;
    }
    return put(value, len, &number, sizeof number);
}

static int sim_getsockname(void *kernel, int fd, struct sockaddr *addr, socklen_t *len)
{
    int result = 0;
    const struct held *h = socket_get(kernel, fd, &result);

    if (!h)
        return result;
    const struct socket *s = &h->socket;
    place_to(s->pair ? &s->pair->side[s->side].address : &s->local, s->family, addr, len);
    return 0;
}

static int sim_getpeername(void *kernel, int fd, struct sockaddr *addr, socklen_t *len)
{
    int result = 0;
    const struct held *h = socket_get(kernel, fd, &result);

    if (!h)
        return result;
    const struct socket *s = &h->socket;
    if (!s->pair || side_over(s->pair, s->side))
        return -ENOTCONN;
    place_to(&s->pair->side[1 - s->side].address, s->family, addr, len);
    return 0;
}

static int sim_untaken(void *kernel, int fd)
{
    int result = 0;
    const struct held *h = socket_get(kernel, fd, &result);

    if (!h)
        return result;
    return h->socket.pair ? (int)side_untaken(h->socket.pair, h->socket.side) : 0;
}

void socket_attach(struct held *h, struct pair *p, unsigned side)
{
    h->socket.pair = p;
    h->socket.side = side;
    p->side[side].held = h;
}

/* At once, without the network's delay: the engine uses it to see whether somebody listens. */
static int sim_connect_call(void *kernel, int fd, const struct sockaddr *addr, socklen_t len)
{
    struct sim_kernel *k = kernel;
    int result = 0;
    struct held *h = socket_get(k, fd, &result);
    struct place to, from;
    struct pair *p;

    if (!h)
        return result;
    if (h->socket.type != SOCK_STREAM)
        return -EOPNOTSUPP;
    if (h->socket.pair)
        return -EISCONN;
    result = place_from(addr, len, &to);
    if (result < 0)
        return result;
    if (to.family == AF_UNIX && !file_socket_here(k, to.path))
        return -ENOENT;
    place_draw(k, &to, &from);
    result = stream_connect(k, &to, &from, 0, &p);
    if (result < 0)
        return result;
    p->pipe[0].send_limit = h->socket.send_limit;
    p->pipe[1].receive_limit = h->socket.receive_limit;
    socket_attach(h, p, 0);
    return 0;
}

static void refuse_waiting(struct held *h)
{
    struct pair *p;

    while ((p = stream_accept(h)))
        pair_refuse(p);
}

static int sim_shutdown(void *kernel, int fd, int how)
{
    int result = 0;
    struct held *h = socket_get(kernel, fd, &result);

    if (!h)
        return result;
    struct socket *s = &h->socket;
    if (how < SHUT_RD || how > SHUT_RDWR)
        return -EINVAL;
    if (s->listening) {
        s->shut = true;
        if (s->family != AF_UNIX)
            refuse_waiting(h);
        held_wake(h, WAKE_IN);
        return 0;
    }
    if (s->type == SOCK_DGRAM) {
        return -ENOTCONN; /* and nothing changes: datagrams go on coming */
    }
    return s->pair ? side_shutdown(s->pair, s->side, how) : -ENOTCONN;
}

void socket_gone(struct held *h)
{
    struct socket *s = &h->socket;

    if (s->pair)
        side_close(s->pair, s->side, s->linger.l_onoff && !s->linger.l_linger);
    refuse_waiting(h);
    datagram_socket_gone(h);
}

/* ---- life ------------------------------------------------------------------------------- */

void sockets_init(struct sim_kernel *k)
{
    static const char *const addresses[] = {"127.0.0.1", "::1", "192.0.2.1", "192.0.2.2",
                                            "2001:db8::1"};

    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++)
        sim_host_address(k, addresses[i], true);
    k->system.socket = sim_socket;
    k->system.bind = sim_bind;
    k->system.listen = sim_listen;
    k->system.setsockopt = sim_setsockopt;
    k->system.getsockopt = sim_getsockopt;
    k->system.getsockname = sim_getsockname;
    k->system.getpeername = sim_getpeername;
    k->system.untaken = sim_untaken;
    k->system.connect = sim_connect_call;
    k->system.shutdown = sim_shutdown;
}
