#include "kernel_state.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * UDP. A datagram is an event until it arrives; chance loses, doubles or holds it back. Where it
 * goes is decided on arrival: a socket of the engine first (of a SO_REUSEPORT group the one that
 * the hash of the sender says), else a peer of the test, else nowhere.
 *
 * A receive of the engine lays out what io_uring's multishot recvmsg does: header, room for the
 * name, room for control data, payload; the header tells the whole lengths and MSG_TRUNC. An empty
 * datagram is delivered and ends the multishot. A send reads its control data when it runs, and
 * leaves from the address in there, or from the first that the host has for the family: seldom the
 * one that was asked, so an engine that forgets IP_PKTINFO is seen to.
 */

#define PAYLOAD_MAX 65507u
#define REORDER_NS  5000000u
#define RETRY_MAX   32u

struct packet {
    struct event event;
    struct list link; /* in kernel->packets, or in a socket's or a peer's queue */
    struct place from, to;
    size_t len;
    char bytes[];
};

struct sim_udp {
    struct list link; /* in kernel->peers */
    struct sim_kernel *kernel;
    struct place local;
    struct list packets;
};

/* ---- the net ---------------------------------------------------------------------------- */

static struct sim_udp *peer_at(const struct sim_kernel *k, const struct place *to)
{
    for (const struct list *at = k->peers.next; at != &k->peers; at = at->next) {
        struct sim_udp *u = container_of(at, struct sim_udp, link);
        if (u->local.port == to->port && !memcmp(&u->local.ip, &to->ip, sizeof to->ip))
            return u;
    }
    return NULL;
}

static void arrives(struct sim_kernel *k, struct event *e)
{
    struct packet *packet = container_of(e, struct packet, event);
    struct held *h = socket_serving(k, SOCK_DGRAM, &packet->to, &packet->from);
    struct sim_udp *u = h ? NULL : peer_at(k, &packet->to);

    list_remove(&packet->link);
    if (h && h->socket.datagram_bytes + packet->len <= h->socket.receive_limit) {
        h->socket.datagram_bytes += packet->len;
        list_append(&h->socket.datagrams, &packet->link);
        held_wake(h, WAKE_IN);
    } else if (u) {
        list_append(&u->packets, &packet->link);
    } else {
        free(packet);
    }
}

static void travel(struct sim_kernel *k, const struct packet *packet)
{
    if (fault(k, k->faults.datagram_loss))
        return;
    unsigned copies = fault(k, k->faults.datagram_duplicate) ? 2 : 1;
    while (copies--) {
        struct packet *copy = must_alloc(sizeof *copy + packet->len);
        memcpy(copy->bytes, packet->bytes, packet->len);
        copy->from = packet->from;
        copy->to = packet->to;
        copy->len = packet->len;
        list_append(&k->packets, &copy->link);
        uint64_t delay = net_delay(k);
        if (fault(k, k->faults.datagram_reorder))
            delay += draw(k, REORDER_NS);
        event_at(k, &copy->event, k->now + delay, arrives);
    }
}

static void packets_drop(struct sim_kernel *k, struct list *packets)
{
    struct list *link;

    while ((link = list_pop(packets))) {
        struct packet *packet = container_of(link, struct packet, link);
        event_cancel(k, &packet->event);
        free(packet);
    }
}

/* ---- the test's end --------------------------------------------------------------------- */

struct sim_udp *sim_udp_open(struct sim_kernel *k, const struct sockaddr *from, socklen_t len)
{
    struct sim_udp *u = must_alloc(sizeof *u);

    u->kernel = k;
    list_init(&u->packets);
    if (place_from(from, len, &u->local) < 0)
        abort();
    list_append(&k->peers, &u->link);
    return u;
}

void sim_udp_send(struct sim_udp *u, const struct sockaddr *to, socklen_t len, const void *bytes,
                  size_t size)
{
    struct packet *packet = must_alloc(sizeof *packet + size);

    if (place_from(to, len, &packet->to) < 0)
        abort();
    packet->from = u->local;
    packet->len = size;
    if (size)
        memcpy(packet->bytes, bytes, size);
    travel(u->kernel, packet);
    free(packet);
}

int sim_udp_recv(struct sim_udp *u, void *buf, size_t size, struct sockaddr_storage *ret_from)
{
    struct list *first = list_pop(&u->packets);

    if (!first)
        return -EAGAIN;
    struct packet *packet = container_of(first, struct packet, link);
    socklen_t len = sizeof *ret_from;
    if (ret_from)
        place_to(&packet->from, u->local.family, (struct sockaddr *)ret_from, &len);
    if (size > packet->len)
        size = packet->len;
    memcpy(buf, packet->bytes, size);
    int result = (int)packet->len;
    free(packet);
    return result;
}

void sim_udp_close(struct sim_udp *u)
{
    packets_drop(u->kernel, &u->packets);
    list_remove(&u->link);
    free(u);
}

/* ---- the engine's receives -------------------------------------------------------------- */

static size_t put_control(char *at, size_t room, int level, int type, const void *data, size_t n)
{
    struct cmsghdr header = {.cmsg_len = CMSG_LEN(n), .cmsg_level = level, .cmsg_type = type};
    char space[CMSG_SPACE(sizeof(struct in6_pktinfo))] = {0};

    memcpy(space, &header, sizeof header);
    memcpy(space + CMSG_LEN(0), data, n);
    if (room >= CMSG_SPACE(n))
        memcpy(at, space, CMSG_SPACE(n));
    return CMSG_SPACE(n);
}

/* How long the control data is; it is written if there is room. */
static size_t packet_info(const struct socket *s, const struct packet *packet, char *at,
                          size_t room)
{
    if (s->family == AF_INET6 && s->packet_info6) {
        struct in6_pktinfo info = {.ipi6_addr = packet->to.ip, .ipi6_ifindex = 1};
        return put_control(at, room, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
    if (s->family == AF_INET && s->packet_info4) {
        struct in_pktinfo info = {.ipi_ifindex = 1};
        memcpy(&info.ipi_addr, &packet->to.ip.s6_addr[12], sizeof info.ipi_addr);
        info.ipi_spec_dst = info.ipi_addr;
        return put_control(at, room, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    }
    return 0;
}

static size_t before_payload(const struct msghdr *shape)
{
    return sizeof(struct io_uring_recvmsg_out) + shape->msg_namelen + shape->msg_controllen;
}

/* The multishot layout. Returns what the completion says. */
static int lay_out(const struct request *q, const struct packet *packet, char *at, size_t size)
{
    const struct msghdr *m = &q->message;
    size_t name_room = m->msg_namelen, control_room = m->msg_controllen;
    size_t before = before_payload(m);
    struct io_uring_recvmsg_out header = {0};
    struct sockaddr_storage name;
    socklen_t name_len = sizeof name;

    place_to(&packet->from, q->held->socket.family, (struct sockaddr *)&name, &name_len);
    header.namelen = name_len;
    size_t payload = packet->len < size - before ? packet->len : size - before;
    if (payload < packet->len)
        header.flags |= MSG_TRUNC;
    header.payloadlen = (uint32_t)payload;
    size_t control =
        packet_info(&q->held->socket, packet, at + sizeof header + name_room, control_room);
    if (control > control_room)
        header.flags |= MSG_CTRUNC;
    else
        header.controllen = (uint32_t)control;
    memcpy(at, &header, sizeof header);
    memcpy(at + sizeof header, &name, name_len < name_room ? name_len : name_room);
    memcpy(at + before, packet->bytes, payload);
    return (int)(before + payload);
}

/* false: the request is gone. */
static bool receive_once(struct request *q)
{
    struct sim_kernel *k = q->held->kernel;
    struct socket *s = &q->held->socket;
    struct packet *packet = container_of(list_pop(&s->datagrams), struct packet, link);
    size_t size;
    uint32_t flags;
    char *to = request_buffer(q, &size, &flags);

    s->datagram_bytes -= packet->len;
    int result = lay_out(q, packet, to, size);
    bool empty = !packet->len; /* delivered like any other, and the end */
    free(packet);
    if (!list_empty(&s->datagrams))
        flags |= IORING_CQE_F_SOCK_NONEMPTY;
    if (!empty && !fault(k, k->faults.recvmsg_ends) && request_more(q, result, flags))
        return true;
    request_end(q, result, flags);
    return false;
}

void datagram_receive_try(struct request *q)
{
    struct sim_kernel *k = q->held->kernel;
    const struct socket *s = &q->held->socket;

    if (q->sqe.opcode != IORING_OP_RECVMSG) {
        request_end(q, -EINVAL, 0); /* nobody uses it */
        return;
    }
    for (unsigned round = 0; round < RETRY_MAX; round++) {
        bool waiting = !list_empty(&s->datagrams);
        if (request_buffers_empty(q) || (waiting && fault(k, k->faults.receive_enobufs))) {
            request_end(q, -ENOBUFS, 0);
            return;
        }
        if (request_buffer_size(q) < before_payload(&q->message)) {
            request_end(q, -EFAULT, 0);
            return;
        }
        if (waiting && fault(k, k->faults.datagram_refused)) {
            request_end(q, -ECONNREFUSED, 0);
            return;
        }
        if (!waiting || !receive_once(q))
            return;
        if (list_empty(&s->datagrams))
            return;
    }
    request_again(q);
}

/* ---- the engine's sends ----------------------------------------------------------------- */

static void default_source(const struct sim_kernel *k, const struct place *to, struct place *ret)
{
    bool v4 = IN6_IS_ADDR_V4MAPPED(&to->ip);

    for (size_t i = 0; i < k->n_hosts; i++)
        if ((k->hosts[i].family == AF_INET) == v4) {
            ret->ip = k->hosts[i].ip;
            return;
        }
}

/* What the control data says, read now as the kernel does. */
static int control_source(const struct request *q, struct place *ret)
{
    struct msghdr m = q->message;

    for (struct cmsghdr *c = m.msg_controllen ? CMSG_FIRSTHDR(&m) : NULL; c;
         c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO &&
            c->cmsg_len == CMSG_LEN(sizeof(struct in_pktinfo))) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            memset(&ret->ip, 0, sizeof ret->ip);
            ret->ip.s6_addr[10] = ret->ip.s6_addr[11] = 0xff;
            memcpy(&ret->ip.s6_addr[12], &info.ipi_spec_dst, sizeof info.ipi_spec_dst);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO &&
                   c->cmsg_len == CMSG_LEN(sizeof(struct in6_pktinfo))) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            ret->ip = info.ipi6_addr;
        } else {
            return -EINVAL;
        }
    }
    return 0;
}

static int source(const struct sim_kernel *k, const struct request *q, struct place *ret)
{
    const struct socket *s = &q->held->socket;

    *ret = s->local;
    ret->family = s->local.family;
    if (place_wild(&s->local))
        default_source(k, &q->to, ret);
    int result = control_source(q, ret);
    if (result < 0)
        return result;
    if (place_wild(ret))
        default_source(k, &q->to, ret);
    if (!host_has(k, ret))
        return -ENETUNREACH;
    return IN6_IS_ADDR_V4MAPPED(&ret->ip) == IN6_IS_ADDR_V4MAPPED(&q->to.ip) ? 0 : -EINVAL;
}

static int send_one(struct request *q)
{
    struct sim_kernel *k = q->held->kernel;
    struct place from;

    if (!q->message.msg_name)
        return -EDESTADDRREQ;
    if (q->to.family == AF_UNIX || (q->held->socket.family == AF_INET && q->to.family != AF_INET))
        return -EAFNOSUPPORT;
    if (q->payload > PAYLOAD_MAX)
        return -EMSGSIZE;
    if (!q->to.port)
        return -EINVAL;
    if (fault(k, k->faults.send_eagain))
        return -EAGAIN;
    if (fault(k, k->faults.send_enobufs))
        return -ENOBUFS;
    int result = source(k, q, &from);
    if (result < 0)
        return result;
    struct packet *packet = must_alloc(sizeof *packet + q->payload);
    packet->from = from;
    packet->to = q->to;
    packet->len = q->payload;
    request_copy(q, 0, packet->bytes, q->payload);
    travel(k, packet);
    free(packet);
    return (int)q->payload;
}

void datagram_send_try(struct request *q)
{
    request_check_payload(q);
    request_end(q, send_one(q), 0);
}

/* ---- life ------------------------------------------------------------------------------- */

void datagram_socket_gone(struct held *h)
{
    packets_drop(h->kernel, &h->socket.datagrams);
}

void datagrams_crash(struct sim_kernel *k)
{
    packets_drop(k, &k->packets);
}

void datagrams_free(struct sim_kernel *k)
{
    struct list *link;

    packets_drop(k, &k->packets);
    while ((link = list_first(&k->peers)))
        sim_udp_close(container_of(link, struct sim_udp, link));
}
