#ifndef RATELIMIT_ADDRESS_H
#define RATELIMIT_ADDRESS_H
/* Networks: address prefixes, by which clients are counted, banned and exempted. */
#include <roda/plugin.h>

/* An IPv4 address is the IPv6 address that maps it, so that both are one client; its bits count
 * from 96. Bits of the address beyond `bits` are zero. */
struct network {
    unsigned char address[16];
    uint32_t bits;
};

enum { NETWORK_TEXT_BYTES = 64 };

/* The network of a peer, by prefix lengths for both families. 0: a peer without an address. */
int network_of(const struct sockaddr *peer, uint32_t bits_ipv4, uint32_t bits_ipv6,
               struct network *ret_network);
/* "192.0.2.0/24", "::1". NULL, or what is wrong with it. */
const char *network_parse(struct roda_str text, struct network *ret_network);
/* As network_parse() reads it, always with its length; returns buf. */
const char *network_text(const struct network *network, char buf[NETWORK_TEXT_BYTES]);
int network_contains(const struct network *network, const struct network *inner);
/* A hash with a secret. Never 0. */
uint64_t network_key(const struct network *network);

#endif
