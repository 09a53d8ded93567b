#include "kernel_state.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "kernel_stream.h"

/*
 * Sockets as the engine sees them: the plain calls, and the requests of stream sockets.
 *
 * Addresses are compared in one form (struct place, IPv4 mapped into IPv6), and shown in the form
 * of the socket's family. A socket serves an address while anything holds it: a listener whose
 * descriptor was closed under an armed accept goes on accepting, as it does in life; shutdown
 * is what ends it.
 */

#define SEND_LIMIT     65536u
#define RECEIVE_LIMIT  65536u
#define RETRY_MAX      32u /* rounds of one multishot before others get a turn */
#define SOMAXCONN_HERE 4096

/* ---- addresses ---- */

int place_from(const struct sockaddr *address, socklen_t len, struct place *ret)
{
    const struct sockaddr_in *v4 = (const void *)address;
    const struct sockaddr_in6 *v6 = (const void *)address;
    const struct sockaddr_un *local = (const void *)address;

    memset(ret, 0, sizeof *ret);
    if (len < sizeof(sa_family_t))
        return -EINVAL;
    ret->family = address->sa_family;
    if (address->sa_family == AF_INET && len >= sizeof *v4) {
        ret->ip.s6_addr[10] = ret->ip.s6_addr[11] = 0xff;
        memcpy(&ret->ip.s6_addr[12], &v4->sin_addr, 4);
        ret->port = ntohs(v4->sin_port);
        return 0;
    }
    if (address->sa_family == AF_INET6 && len >= 24) {
        memcpy(&ret->ip, &v6->sin6_addr, sizeof ret->ip);
        ret->port = ntohs(v6->sin6_port);
        return 0;
    }
    if (address->sa_family == AF_UNIX) {
        size_t n = len - offsetof(struct sockaddr_un, sun_path);
        if (n > sizeof ret->path)
            return -EINVAL;
        memcpy(ret->path, local->sun_path, n);
        ret->path[sizeof ret->path - 1] = '\0';
        return 0;
    }
    return -EAFNOSUPPORT;
}

/* Writes as much as *len allows; *len becomes the whole length. */
void place_to(const struct place *p, int family, struct sockaddr *ret, socklen_t *len)
{
    union {
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    } a;
    size_t n;

    memset(&a, 0, sizeof a);
    if (family == AF_INET) {
        a.v4.sin_family = AF_INET;
        a.v4.sin_port = htons(p->port);
        memcpy(&a.v4.sin_addr, &p->ip.s6_addr[12], 4);
        n = sizeof a.v4;
    } else if (family == AF_INET6) {
        a.v6.sin6_family = AF_INET6;
        a.v6.sin6_port = htons(p->port);
        a.v6.sin6_addr = p->ip;
        n = sizeof a.v6;
    } else {
        a.local.sun_family = AF_UNIX;
        memcpy(a.local.sun_path, p->path, sizeof a.local.sun_path);
        n = offsetof(struct sockaddr_un, sun_path) + (p->path[0] ? strlen(p->path) + 1 : 0);
    }
    memcpy(ret, &a, *len < n ? *len : n);
    *len = (socklen_t)n;
}

static bool mapped(const struct place *p)
{
    return IN6_IS_ADDR_V4MAPPED(&p->ip);
}

bool place_wild(const struct place *p)
{
    static const uint8_t zeros[4];

    if (p->family == AF_UNIX)
        return false;
    return IN6_IS_ADDR_UNSPECIFIED(&p->ip) || (mapped(p) && !memcmp(&p->ip.s6_addr[12], zeros, 4));
}

bool socket_covers(const struct socket *s, const struct place *to)
{
    if (!s->bound || (s->family == AF_UNIX) != (to->family == AF_UNIX))
        return false;
    if (s->family == AF_UNIX)
        return !strcmp(s->local.path, to->path);
    if (s->local.port != to->port)
        return false;
    if (!place_wild(&s->local))
        return !memcmp(&s->local.ip, &to->ip, sizeof to->ip);
    if (s->family == AF_INET)
        return mapped(to);
    return !mapped(to) || !s->v6_only;
}

/* Two bound addresses that some packet would suit both of. */
static bool overlap(const struct socket *a, const struct socket *b)
{
    if (socket_covers(a, &b->local) || socket_covers(b, &a->local))
        return true;
    if (a->family == AF_UNIX || b->family == AF_UNIX || a->local.port != b->local.port)
        return false;
    return place_wild(&a->local) && place_wild(&b->local) && a->family == b->family;
}

bool host_has(const struct sim_kernel *k, const struct place *p)
{
    if (place_wild(p))
        return true;
    for (size_t i = 0; i < k->n_hosts; i++)
        if (!memcmp(&k->hosts[i].ip, &p->ip, sizeof p->ip))
            return true;
    return false;
}

static void place_parse(const char *text, struct place *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->family = AF_INET6;
    if (inet_pton(AF_INET6, text, &ret->ip) == 1)
        return;
    ret->family = AF_INET;
    ret->ip.s6_addr[10] = ret->ip.s6_addr[11] = 0xff;
    if (inet_pton(AF_INET, text, &ret->ip.s6_addr[12]) != 1)
        abort();
}

void sim_host_address(struct sim_kernel *k, const char *text, bool present)
{
    struct place p;
    size_t n = 0;

    place_parse(text, &p);
    for (size_t i = 0; i < k->n_hosts; i++)
        if (memcmp(&k->hosts[i].ip, &p.ip, sizeof p.ip))
            k->hosts[n++] = k->hosts[i];
    k->n_hosts = n;
    if (!present)
        return;
    k->hosts = must_realloc(k->hosts, (n + 1) * sizeof *k->hosts);
    k->hosts[k->n_hosts++] = p;
}

/* An address for a client that did not choose one. */
void place_draw(struct sim_kernel *k, const struct place *to, struct place *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->family = to->family;
    if (to->family == AF_UNIX)
        return;
    ret->port = (uint16_t)(20000 + draw(k, 40000));
    if (!mapped(to)) {
        place_parse("::1", ret);
        ret->port = (uint16_t)(20000 + draw(k, 40000));
        return;
    }
    ret->ip.s6_addr[10] = ret->ip.s6_addr[11] = 0xff;
    ret->ip.s6_addr[12] = 127;
    ret->ip.s6_addr[15] = 1;
}

static uint64_t place_hash(const struct place *p)
{
    uint64_t hash = 0xcbf29ce484222325u ^ p->port;

    for (size_t i = 0; i < sizeof p->ip; i++)
        hash = (hash ^ p->ip.s6_addr[i]) * 0x100000001b3u;
    return (hash ^ hash >> 29) * 0xbf58476d1ce4e5b9u >> 32;
}

static bool serves(const struct held *h, int type, const struct place *to)
{
    const struct socket *s = &h->socket;

    if (h->kind != HELD_SOCKET || s->type != type || s->shut || !socket_covers(s, to))
        return false;
    return type == SOCK_DGRAM || s->listening;
}

struct held *socket_serving(struct sim_kernel *k, int type, const struct place *to,
                            const struct place *from)
{
    struct held *best = NULL;
    bool wild = true;
    uint64_t n = 0, chosen = place_hash(from);

    /* A bound address goes before the wildcard; of several, the hash says which. */
    for (struct list *at = k->held.next; at != &k->held; at = at->next) {
        struct held *h = container_of(at, struct held, link);
        if (serves(h, type, to) && !place_wild(&h->socket.local))
            wild = false;
    }
    for (struct list *at = k->held.next; at != &k->held; at = at->next) {
        struct held *h = container_of(at, struct held, link);
        if (serves(h, type, to) && place_wild(&h->socket.local) == wild)
            n++;
    }
    if (!n)
        return NULL;
    chosen %= n;
    for (struct list *at = k->held.next; at != &k->held; at = at->next) {
        struct held *h = container_of(at, struct held, link);
        if (serves(h, type, to) && place_wild(&h->socket.local) == wild && !chosen--) {
            best = h;
            break;
        }
    }
    return best;
}

/* ---- plain calls ---- */

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
        if (!overlap(s, o) || (s->reuse_port && o->reuse_port))
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

static void attach(struct held *h, struct pair *p, unsigned side)
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
    attach(h, p, 0);
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

/* ---- requests ---- */

static int accepted(struct sim_kernel *k, struct held *listener, struct pair *p)
{
    struct held *h = held_new(k, HELD_SOCKET);

    h->socket.family = listener->socket.family;
    h->socket.type = SOCK_STREAM;
    h->socket.local = p->side[1].address;
    h->socket.linger = listener->socket.linger;
    h->socket.send_limit = listener->socket.send_limit;
    h->socket.receive_limit = listener->socket.receive_limit;
    attach(h, p, 1);
    return descriptor_new(k, h);
}

static int accept_fault(struct request *q)
{
    struct sim_kernel *k = q->held->kernel;

    if (fault(k, k->faults.accept_emfile))
        return -EMFILE;
    if (fault(k, k->faults.accept_enobufs))
        return -ENOBUFS;
    if (!fault(k, k->faults.accept_aborted))
        return 0;
    pair_refuse(stream_accept(q->held));
    return -ECONNABORTED;
}

void accept_try(struct request *q)
{
    struct held *listener = q->held;
    struct sim_kernel *k = listener->kernel;

    for (;;) {
        if (listener->socket.type != SOCK_STREAM) {
            request_end(q, -EOPNOTSUPP, 0);
            return;
        }
        if (!descriptor_available(k, q->descriptors_limit)) { /* the descriptor is taken first,
                                                                 client or not */
            request_end(q, -EMFILE, 0);
            return;
        }
        bool local = listener->socket.family == AF_UNIX;
        if (!listener->socket.listening || (listener->socket.shut && !local)) {
            request_end(q, -EINVAL, 0);
            return;
        }
        if (list_empty(&listener->socket.waiting))
            return; /* for ever, if it is local and shut down: only a cancel ends it */
        int result = accept_fault(q);
        if (result < 0) {
            request_end(q, result, 0);
            return;
        }
        int fd = accepted(k, listener, stream_accept(listener));
        if (!q->multishot || fault(k, k->faults.accept_ends) || !request_more(q, fd, 0)) {
            request_end(q, fd, 0);
            return;
        }
    }
}

bool stream_readable(const struct held *h)
{
    return !h->socket.pair || side_readable(h->socket.pair, h->socket.side);
}

bool stream_writable(const struct held *h)
{
    return !h->socket.pair || side_writable(h->socket.pair, h->socket.side);
}

/* One receive of bytes that are there, or of the end. false: the request is gone. */
static bool receive_once(struct request *q, struct pair *p, unsigned side)
{
    struct sim_kernel *k = p->kernel;
    uint32_t flags = 0;
    size_t size = q->sqe.len;
    char *to = (char *)(uintptr_t)q->sqe.addr;

    if (!side_available(p, side)) {
        request_end(q, side_read(p, side, NULL, 0), 0);
        return false;
    }
    if (request_selects(q))
        to = request_buffer(q, &size, &flags);
    if (size > side_available(p, side))
        size = side_available(p, side);
    if (size > 1 && fault(k, k->faults.split_receive))
        size = 1 + draw(k, size - 1);
    int result = side_read(p, side, to, size);
    if ((side_available(p, side) > 0) != fault(k, k->faults.nonempty_lies))
        flags |= IORING_CQE_F_SOCK_NONEMPTY;
    if (q->multishot && !fault(k, k->faults.receive_ends) && request_more(q, result, flags))
        return true;
    request_end(q, result, flags);
    return false;
}

void receive_try(struct request *q)
{
    struct sim_kernel *k = q->held->kernel;
    struct pair *p = q->held->socket.pair;
    unsigned side = q->held->socket.side;

    if (!p) {
        request_end(q, -ENOTCONN, 0);
        return;
    }
    if (side_readable(p, side) && fault(k, k->faults.reset))
        pair_break(p, side);
    for (unsigned round = 0; round < RETRY_MAX; round++) {
        bool lacks = request_selects(q) && request_buffers_empty(q);
        if (lacks || (side_available(p, side) && fault(k, k->faults.receive_enobufs))) {
            request_end(q, -ENOBUFS, 0);
            return;
        }
        if (!side_readable(p, side)) {
            if (q->sqe.msg_flags & MSG_DONTWAIT)
                request_end(q, -EAGAIN, 0);
            return;
        }
        if (!receive_once(q, p, side))
            return;
        if (!side_readable(p, side))
            return;
    }
    request_again(q);
}

static int send_fault(struct sim_kernel *k, struct pair *p, unsigned side)
{
    if (fault(k, k->faults.reset))
        pair_break(p, side);
    if (fault(k, k->faults.send_eagain))
        return -EAGAIN;
    if (fault(k, k->faults.send_enobufs))
        return -ENOBUFS;
    return 0;
}

static void send_end(struct request *q, int result)
{
    request_check_payload(q);
    request_end(q, q->done ? (int)q->done : result, 0);
}

void send_try(struct request *q)
{
    struct sim_kernel *k = q->held->kernel;
    struct pair *p = q->held->socket.pair;
    unsigned side = q->held->socket.side;

    if (!p) {
        request_end(q, q->held->socket.family == AF_UNIX ? -ENOTCONN : -EPIPE, 0);
        return;
    }
    int result = q->done ? 0 : send_fault(k, p, side);
    if (result >= 0)
        result = side_room(p, side);
    if (result < 0) {
        send_end(q, result);
        return;
    }
    size_t n = q->payload - q->done;
    if (n > (size_t)result)
        n = (size_t)result;
    bool cut = n > 1 && fault(k, k->faults.short_send);
    if (cut)
        n = 1 + draw(k, n - 1);
    if (n) {
        char *part = must_alloc(n);
        request_copy(q, q->done, part, n);
        q->done += n;
        side_write(p, side, part, n);
        free(part);
    }
    if (cut || q->done == q->payload || (q->done && !(q->sqe.msg_flags & MSG_WAITALL)))
        send_end(q, 0);
    else if (q->sqe.msg_flags & MSG_DONTWAIT)
        send_end(q, -EAGAIN);
}

/* ---- life ---- */

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
    k->system.connect = sim_connect_call;
    k->system.shutdown = sim_shutdown;
}
