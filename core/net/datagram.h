#ifndef RODA_NET_DATAGRAM_H
#define RODA_NET_DATAGRAM_H
/*
 * UDP: one socket per worker and address. A datagram of a stranger goes to the protocol's
 * knock(); one from the peer of a session goes line by line to its connection. See the .c for the
 * bound on what a stranger can cause.
 */
#include "net/connection.h"

struct datagram_socket;
struct datagram_session;

int datagram_open(struct listener *l);  /* makes l->datagram; on the worker */
void datagram_arm(struct listener *l);  /* the multishot receive, if it is not armed */
void datagram_free(struct listener *l); /* nothing may be in flight */
/* Sends what is queued: whole units packed into datagrams. False: no SQE was to be had, again
 * next turn. */
bool datagram_flush(struct roda_conn *c);
/* The connection is gone: forgets its address. */
void datagram_session_end(struct roda_conn *c);

void datagram_on_recv(void *owner, const struct ring_completion *done);
void datagram_on_send(void *owner, const struct ring_completion *done);

/* Stateless proof of an address, keys shared by all workers; see roda_cookie(). */
void datagram_cookie(struct net *net, const struct roda_peer *peer, uint64_t ret[2]);

#endif
