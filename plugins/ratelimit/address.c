#include "address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/*
 * All addresses are sixteen bytes, and IPv4 is the part of IPv6 that maps it. So there is one way
 * to cut, to compare and to hash, and a client that comes mapped is not another one.
 */

enum { MAPPED_BITS = 96 };
static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

static int is_mapped(const struct network *network)
{
    return network->bits >= MAPPED_BITS && !memcmp(network->address, mapped, sizeof(mapped));
}

/* 1: nothing was set beyond its bits. */
static int cut(struct network *network, uint32_t bits)
{
    int clean = 1;

    network->bits = bits;
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t kept = bits >= (i + 1) * 8 ? 8 : (bits > i * 8 ? bits - i * 8 : 0);
        unsigned char mask = (unsigned char)(0xff00u >> kept);
        clean &= !(network->address[i] & (unsigned char)~mask);
        network->address[i] &= mask;
    }
    return clean;
}

static void set_ipv4(struct network *network, const void *address)
{
    memcpy(network->address, mapped, sizeof(mapped));
    memcpy(network->address + sizeof(mapped), address, 4);
    network->bits = 128;
}

static void set_ipv6(struct network *network, const void *address)
{
    memcpy(network->address, address, 16);
    network->bits = 128;
}

int network_of(const struct sockaddr *peer, uint32_t bits_ipv4, uint32_t bits_ipv6,
               struct network *ret_network)
{
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;

    if (peer->sa_family == AF_INET) {
        memcpy(&ipv4, peer, sizeof(ipv4));
        set_ipv4(ret_network, &ipv4.sin_addr);
    } else if (peer->sa_family == AF_INET6) {
        memcpy(&ipv6, peer, sizeof(ipv6));
        set_ipv6(ret_network, &ipv6.sin6_addr);
    } else {
        return 0;
    }
    (void)cut(ret_network, is_mapped(ret_network) ? MAPPED_BITS + bits_ipv4 : bits_ipv6);
    return 1;
}

/* The length behind the slash. -1: not a number up to max. */
static int parse_bits(const char *text, int max)
{
    int bits = 0;

    if (!*text)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || bits > max)
            return -1;
        bits = bits * 10 + (*text - '0');
    }
    return bits <= max ? bits : -1;
}

const char *network_parse(struct roda_str text, struct network *ret_network)
{
    char buf[NETWORK_TEXT_BYTES];
    unsigned char address[16];
    struct network network;
    char *slash;
    int ipv4, bits;

    if (text.len >= sizeof(buf))
        return "too long for a network, as 192.0.2.0/24 or 2001:db8::/32";
    memcpy(buf, text.ptr, text.len);
    buf[text.len] = '\0';
    slash = strchr(buf, '/');
    if (slash)
        *slash = '\0';
    ipv4 = inet_pton(AF_INET, buf, address) == 1;
    if (ipv4)
        set_ipv4(&network, address);
    else if (inet_pton(AF_INET6, buf, address) == 1)
        set_ipv6(&network, address);
    else
        return "not a network, as 192.0.2.0/24, 2001:db8::/32 or ::1";
    bits = slash ? parse_bits(slash + 1, ipv4 ? 32 : 128) : (ipv4 ? 32 : 128);
    if (bits < 0)
        return ipv4 ? "the length of an IPv4 network is at most 32"
                    : "the length of an IPv6 network is at most 128";
    if (!cut(&network, (uint32_t)(ipv4 ? MAPPED_BITS + bits : bits)))
        return "the address has bits beyond the network's length; write them as zeros";
    *ret_network = network;
    return NULL;
}

const char *network_text(const struct network *network, char buf[NETWORK_TEXT_BYTES])
{
    char address[INET6_ADDRSTRLEN];

    if (is_mapped(network))
        (void)snprintf(buf, NETWORK_TEXT_BYTES, "%s/%u",
                       inet_ntop(AF_INET, network->address + sizeof(mapped), address,
                                 sizeof(address)),
                       network->bits - MAPPED_BITS);
    else
        (void)snprintf(buf, NETWORK_TEXT_BYTES, "%s/%u",
                       inet_ntop(AF_INET6, network->address, address, sizeof(address)),
                       network->bits);
    return buf;
}

int network_contains(const struct network *network, const struct network *inner)
{
    struct network start = *inner;

    if (inner->bits < network->bits)
        return 0;
    (void)cut(&start, network->bits);
    return !memcmp(start.address, network->address, sizeof(start.address));
}

uint64_t network_key(const struct network *network)
{
    char bytes[17];
    uint64_t key;

    memcpy(bytes, network->address, 16);
    bytes[16] = (char)network->bits;
    key = roda_hash((struct roda_str){bytes, sizeof(bytes)});
    return key ? key : 1;
}
