#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "kernel_state.h"

/*
 * Addresses, and who serves one. They are compared in one form (struct place, IPv4 mapped into
 * IPv6), and shown in the form of the socket's family. A socket serves an address while anything
 * holds it: a listener whose descriptor was closed under an armed accept goes on accepting.
 */

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
bool sockets_overlap(const struct socket *a, const struct socket *b)
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
