#ifndef RODA_NET_LISTENER_H
#define RODA_NET_LISTENER_H
/*
 * Listeners. The main thread binds every address of every [listener] once per worker (TCP, UDP:
 * SO_REUSEPORT; UNIX: one socket, whose connections are spread over the workers); a worker then
 * accepts by itself.
 */
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "net/net.h"

enum transport { TRANSPORT_TCP, TRANSPORT_UDP, TRANSPORT_UNIX };

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

/* One [listener NAME]: immutable, shared by all workers. */
struct listener_settings {
    const char *name;
    enum transport transport;
    const struct roda_protocol *protocol;
    uint32_t protocol_instance; /* whose protocol it is */
    uint32_t unit_max_bytes;
    uint32_t send_queue_bytes, receive_queue_bytes;
    uint32_t idle_ping_ms, ping_timeout_ms; /* 0: never asks */
    uint32_t handshake_timeout_ms;          /* 0: none */
    uint32_t write_timeout_ms;              /* 0: none */
    uint32_t max_delay_ms;
    uint32_t session_timeout_ms;    /* datagrams: silent for so long means gone */
    struct roda_rate session_bytes; /* datagrams: bytes out per session */
    unsigned mode;                  /* UNIX: of the socket */
    /* Memory of the plugins that serve it: offset per instance into the connection's data;
     * UINT32_MAX: none. */
    uint32_t conn_data_bytes;
    const uint32_t *data_offsets;
    const void *const *confs; /* conf per instance, with this listener's overrides */
};

/* One bound address. */
struct listener_address {
    const struct listener_settings *settings;
    union address address;
    socklen_t address_len;
    char text[128];  /* "127.0.0.1:3000" or a path */
    char place[160]; /* "roda.conf:14", for messages */
    int *fds;        /* one per worker; UNIX: the same one everywhere */
    bool optional;   /* a default address that this host may not have */
    bool dual_stack;
};

struct listener { /* a worker's own */
    const struct listener_address *address;
    struct net *net;
    uint32_t index;
    int fd;
    uint32_t generation;
    uint32_t in_flight;
    bool armed, paused, closed;
    uint32_t backoff_ms;
    struct wheel_timer timer;
    struct datagram_socket *datagram; /* UDP only */
};

/* Binds for n_workers workers. First a socket without SO_REUSEPORT, so that another broker on the
 * address is noticed instead of sharing its clients. On failure: negative errno and a sentence.
 * A missing optional address is 0 with fds NULL and the sentence set. */
int listener_bind(const struct system *system, struct listener_address *a, uint32_t n_workers,
                  char *problem, size_t size);
void listener_unbind(const struct system *system, struct listener_address *a, uint32_t n_workers);

/* On the worker: starts to accept, or to receive. */
int listener_open(struct net *net, struct listener *l, const struct listener_address *address);
void listener_arm(struct listener *l);   /* if it should be and is not */
void listener_close(struct listener *l); /* shutdown(2) the socket; its last completion follows */
bool listener_quiet(const struct listener *l);
void listener_retry(struct net *net); /* a descriptor came free */

/* "192.0.2.7:40112", "[::1]:3000", a path or "unix". */
const char *address_text(const union address *a, char *buf, size_t size);

#endif
