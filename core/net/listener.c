#include "net/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "net/connection.h"
#include "net/datagram.h"

/*
 * Binding happens once, in the main thread; accepting per worker. An accept is multishot and
 * ends with any error: a full descriptor table or no memory pauses the listener (armed again it
 * would fail at once, without any client waiting) until a descriptor comes free or a back-off of
 * 100 ms to 1 s is over; anything else arms it again next turn.
 */

#define BACKLOG           4096
#define RECEIVE_BYTES     (128 * 1024)
#define SEND_BYTES        (128 * 1024)
#define KEEPALIVE_IDLE_S  60
#define KEEPALIVE_EVERY_S 15
#define KEEPALIVE_PROBES  4
#define USER_TIMEOUT_MS   120000
#define BACKOFF_MS_MIN    100u
#define BACKOFF_MS_MAX    1000u
#define BIND_RETRIES      10 /* of 100 ms: a socket of a broker that just ended may linger */
#define ANSWERS_MAX       3  /* times that somebody answers there, before it is believed */

const char *address_text(const union address *a, char *buf, size_t size)
{
    char host[INET6_ADDRSTRLEN];

    switch (a->any.sa_family) {
    case AF_INET:
        (void)snprintf(buf, size, "%s:%u", inet_ntop(AF_INET, &a->v4.sin_addr, host, sizeof host),
                       ntohs(a->v4.sin_port));
        break;
    case AF_INET6:
        (void)snprintf(buf, size, "[%s]:%u",
                       inet_ntop(AF_INET6, &a->v6.sin6_addr, host, sizeof host),
                       ntohs(a->v6.sin6_port));
        break;
    default:
        (void)snprintf(buf, size, "%s", a->local.sun_path[0] ? a->local.sun_path : "unix");
        break;
    }
    return buf;
}

static int set_int(const struct system *system, int fd, int level, int name, int value)
{
    return system->setsockopt(system->kernel, fd, level, name, &value, sizeof value);
}

/* What accepted sockets inherit is set here, once, before listen(). */
static int prepare(const struct system *system, const struct listener_address *a, int fd,
                   bool share)
{
    enum transport transport = a->settings->transport;
    int r = 0;

    if (transport == TRANSPORT_TCP)
        r = set_int(system, fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (r >= 0 && share)
        r = set_int(system, fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (r >= 0 && a->address.any.sa_family == AF_INET6)
        r = set_int(system, fd, IPPROTO_IPV6, IPV6_V6ONLY, !a->dual_stack);
    if (r < 0 || transport == TRANSPORT_UNIX)
        return r;
    (void)set_int(system, fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BYTES);
    (void)set_int(system, fd, SOL_SOCKET, SO_SNDBUF, SEND_BYTES);
    if (transport == TRANSPORT_UDP) {
        if (a->address.any.sa_family == AF_INET6) {
            r = set_int(system, fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
            if (r >= 0 && a->dual_stack) {
                r = set_int(system, fd, IPPROTO_IP, IP_PKTINFO, 1);
                (void)set_int(system, fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
            }
        } else {
            r = set_int(system, fd, IPPROTO_IP, IP_PKTINFO, 1);
            (void)set_int(system, fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
        }
        return r;
    }
    (void)set_int(system, fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    (void)set_int(system, fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    (void)set_int(system, fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_EVERY_S);
    (void)set_int(system, fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    (void)set_int(system, fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
    return set_int(system, fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

static int bind_one(const struct system *system, struct listener_address *a, bool share,
                    bool listening)
{
    enum transport transport = a->settings->transport;
    int type = transport == TRANSPORT_UDP ? SOCK_DGRAM : SOCK_STREAM, r;
    int fd = system->socket(system->kernel, a->address.any.sa_family, type, 0);

    if (fd < 0)
        return fd;
    r = prepare(system, a, fd, share);
    if (r >= 0)
        r = system->bind(system->kernel, fd, &a->address.any, a->address_len);
    if (r >= 0 && listening && transport != TRANSPORT_UDP)
        r = system->listen(system->kernel, fd, BACKLOG);
    if (r < 0) {
        system->close(system->kernel, fd);
        return r;
    }
    return fd;
}

/* port = 0: the first socket takes a free one, the others the same. */
static int learn_port(const struct system *system, struct listener_address *a, int fd)
{
    socklen_t len = sizeof a->address;
    int r;

    if (a->settings->transport == TRANSPORT_UNIX)
        return 0;
    r = system->getsockname(system->kernel, fd, &a->address.any, &len);
    if (r >= 0)
        (void)address_text(&a->address, a->text, sizeof a->text);
    return r;
}

static void wait_a_little(const struct system *system)
{
    uint64_t until = system->monotonic_ns(system->kernel) + UINT64_C(100000000);

    while (system->monotonic_ns(system->kernel) < until)
        system->pause(system->kernel, until);
}

/* Somebody answers there: waiting will not help, unless it is a ring that the kernel is still
 * taking apart after its broker was killed. */
static bool answered(const struct system *system, const struct listener_address *a)
{
    int fd, r;

    if (a->settings->transport != TRANSPORT_TCP)
        return false;
    fd = system->socket(system->kernel, a->address.any.sa_family, SOCK_STREAM, 0);
    if (fd < 0)
        return false;
    r = system->connect(system->kernel, fd, &a->address.any, a->address_len);
    system->close(system->kernel, fd);
    return r >= 0;
}

/* Alone on the address: fails if anybody else listens there. */
static int bind_alone(const struct system *system, struct listener_address *a)
{
    int r = -EADDRINUSE, answers = 0;

    for (int i = 0; i < BIND_RETRIES && r == -EADDRINUSE && answers < ANSWERS_MAX; i++) {
        if (i)
            wait_a_little(system);
        r = bind_one(system, a, false, true);
        answers += r == -EADDRINUSE && answered(system, a);
    }
    if (r < 0)
        return r;
    int learned = learn_port(system, a, r);
    system->close(system->kernel, r);
    return learned;
}

/* A socket file nobody answers at is what a broker that was killed left behind. */
static int remove_stale_socket(const struct system *system, const struct listener_address *a)
{
    int r = system->is_socket(system->kernel, a->address.local.sun_path), fd;

    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r == -ENOTSOCK ? -EEXIST : r;
    fd = system->socket(system->kernel, AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        return fd;
    r = system->connect(system->kernel, fd, &a->address.any, a->address_len);
    system->close(system->kernel, fd);
    if (r >= 0 || r == -EAGAIN || r == -EACCES || r == -EPERM)
        return -EADDRINUSE;
    return system->unlink(system->kernel, a->address.local.sun_path);
}

static void explain(const struct listener_address *a, int error, char *problem, size_t size)
{
    const char *what = strerror(-error);

    if (error == -EADDRINUSE)
        what = "already in use by another process; stop it, or set another port or address";
    else if (error == -EADDRNOTAVAIL)
        what = "this host has no such address";
    else if (error == -EACCES && a->settings->transport == TRANSPORT_UNIX)
        what = "permission denied: the user roda runs as may not create it there";
    else if (error == -EACCES)
        what = "permission denied: ports below 1024 need root or CAP_NET_BIND_SERVICE";
    else if (error == -EEXIST)
        what = "something that is no socket is there; remove it, or set another path";
    else if (error == -ENOENT)
        what = "its folder does not exist";
    (void)snprintf(problem, size, "%s: %s", a->text, what);
}

static int bind_all(const struct system *system, struct listener_address *a, uint32_t n_workers)
{
    bool local = a->settings->transport == TRANSPORT_UNIX;
    int r = local ? remove_stale_socket(system, a) : bind_alone(system, a);

    for (int i = 1; local && r == -EADDRINUSE && i < ANSWERS_MAX; i++) {
        wait_a_little(system);
        r = remove_stale_socket(system, a);
    }

    for (uint32_t i = 0; r >= 0 && i < n_workers; i++) {
        if (local && i) {
            a->fds[i] = a->fds[0];
            continue;
        }
        r = bind_one(system, a, !local, true);
        if (r >= 0)
            a->fds[i] = r;
    }
    if (r >= 0 && local)
        r = system->chmod(system->kernel, a->address.local.sun_path, a->settings->mode);
    return r < 0 ? r : 0;
}

int listener_bind(const struct system *system, struct listener_address *a, uint32_t n_workers,
                  char *problem, size_t size)
{
    int r;

    (void)address_text(&a->address, a->text, sizeof a->text);
    for (uint32_t i = 0; i < n_workers; i++)
        a->fds[i] = -1;
    r = bind_all(system, a, n_workers);
    if (r < 0) {
        explain(a, r, problem, size);
        listener_unbind(system, a, n_workers);
        if (a->optional && (r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT))
            return 0; /* fds are -1 */
    }
    return r;
}

void listener_unbind(const struct system *system, struct listener_address *a, uint32_t n_workers)
{
    bool local = a->settings->transport == TRANSPORT_UNIX;

    if (local && a->fds[0] >= 0)
        (void)system->unlink(system->kernel, a->address.local.sun_path);
    for (uint32_t i = 0; i < n_workers; i++) {
        if (a->fds[i] >= 0 && (!local || i == 0))
            system->close(system->kernel, a->fds[i]);
        a->fds[i] = -1;
    }
}

/* ---- on a worker ------------------------------------------------------------------------ */

static uint64_t user_data(const struct listener *l, enum ring_kind kind)
{
    return RING_USER_DATA(kind, l->generation, l->index);
}

static void accepted(struct listener *l, int fd)
{
    struct net *net = l->net;
    bool full;

    l->backoff_ms = 0;
    if (net->stopping || l->closed) {
        net->system->close(net->system->kernel, fd);
        return;
    }
    if (!connection_admit(net, fd, &full))
        return;
    if (l->address->settings->transport == TRANSPORT_UNIX && net->hand_over &&
        net->hand_over(net->owner, l, fd, full))
        return;
    (void)connection_open(net, l, fd, full);
}

static void on_accept(void *owner, const struct ring_completion *done)
{
    struct net *net = owner;
    struct listener *l = done->slot < net->n_listeners ? &net->listeners[done->slot] : NULL;

    if (!l || done->generation != (l->generation & RING_GENERATION_MASK)) {
        ring_add(&net->ring->counters.stale, 1);
        if (done->result >= 0)
            net->system->close(net->system->kernel, done->result);
        return;
    }
    if (!(done->flags & IORING_CQE_F_MORE)) {
        l->armed = false;
        l->in_flight--;
    }
    if (done->result >= 0) {
        accepted(l, done->result);
        return;
    }
    switch (-done->result) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
        l->paused = true;
        net->accept_waits = true;
        l->backoff_ms = l->backoff_ms ? l->backoff_ms * 2 : BACKOFF_MS_MIN;
        if (l->backoff_ms > BACKOFF_MS_MAX)
            l->backoff_ms = BACKOFF_MS_MAX;
        NET_COUNT(net, accepts_paused);
        break;
    default: /* ECONNABORTED, EPROTO ...: that client's trouble; EINVAL: closed by us */
        break;
    }
}

static void on_backoff(struct wheel_timer *timer)
{
    struct listener *l = container_of(timer, struct listener, timer);

    l->paused = false;
}

void listener_retry(struct net *net)
{
    net->accept_waits = false;
    for (uint32_t i = 0; i < net->n_listeners; i++) {
        struct listener *l = &net->listeners[i];
        if (l->closed) /* its timer is that of its end */
            continue;
        wheel_disarm(net->wheel, &l->timer);
        l->paused = false;
    }
}

int listener_open(struct net *net, struct listener *l, const struct listener_address *address)
{
    *l = (struct listener){.address = address,
                           .net = net,
                           .index = (uint32_t)(l - net->listeners),
                           .fd = address->fds[net->worker],
                           .generation = 1};
    if (address->settings->transport == TRANSPORT_UDP)
        return datagram_open(l);
    ring_on(net->ring, RING_ACCEPT, on_accept, net);
    return 0;
}

/* One UNIX socket serves all workers: worker 0 accepts and hands over in turn. (Accepts of several
 * rings on one socket would be woken one at a time, at its end, too.) */
static bool accepts(const struct listener *l)
{
    return l->address->settings->transport != TRANSPORT_UNIX || l->net->worker == 0;
}

void listener_arm(struct listener *l)
{
    struct io_uring_sqe *sqe;

    if (l->address->settings->transport == TRANSPORT_UDP) {
        datagram_arm(l); /* or ends it, if it is closed */
        return;
    }
    if (l->armed || l->closed || l->fd < 0 || !accepts(l))
        return;
    if (l->paused) {
        if (!wheel_armed(&l->timer))
            wheel_arm(l->net->wheel, &l->timer, l->net->now_ms + l->backoff_ms, on_backoff);
        return;
    }
    sqe = ring_sqe(l->net->ring, user_data(l, RING_ACCEPT));
    if (!sqe)
        return;
    io_uring_prep_multishot_accept(sqe, l->fd, NULL, NULL, SOCK_CLOEXEC);
    sqe->user_data = user_data(l, RING_ACCEPT);
    l->armed = true;
    l->in_flight++;
}

/* shutdown(2) ends the accept of a TCP listener. It does not wake the accept of a UNIX listener
 * nor the receive of a datagram socket (seen on Linux 6.18), so those are cancelled, again until
 * their last completion came. */
static void cancel_accept(struct wheel_timer *timer)
{
    struct listener *l = container_of(timer, struct listener, timer);
    struct io_uring_sqe *sqe;

    if (!l->in_flight)
        return;
    sqe = ring_sqe(l->net->ring, RING_USER_DATA(RING_CANCEL, 0, UINT32_MAX));
    if (sqe) {
        io_uring_prep_cancel64(sqe, user_data(l, RING_ACCEPT), 0);
        sqe->user_data = RING_USER_DATA(RING_CANCEL, 0, UINT32_MAX); /* no connection's */
    }
    wheel_arm(l->net->wheel, &l->timer, l->net->now_ms + BACKOFF_MS_MIN, cancel_accept);
}

void listener_close(struct listener *l)
{
    const struct system *system = l->net->system;
    enum transport transport = l->address->settings->transport;

    if (l->closed || l->fd < 0)
        return;
    l->closed = true;
    if (!accepts(l))
        return;
    wheel_disarm(l->net->wheel, &l->timer);
    if (transport == TRANSPORT_UDP) {
        l->paused = false;
        datagram_arm(l); /* closed: cancels */
        return;
    }
    (void)system->shutdown(system->kernel, l->fd, SHUT_RDWR);
    if (transport == TRANSPORT_UNIX)
        cancel_accept(&l->timer);
}

bool listener_quiet(const struct listener *l)
{
    return !l->in_flight;
}
