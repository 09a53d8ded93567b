#ifndef RODA_NET_NET_H
#define RODA_NET_NET_H
/*
 * One worker's sockets: listeners, connections, datagram sessions, receive buffers, send queues.
 * What it does with units of bytes it leaves to its owner (the bus) through struct net_hooks.
 *
 * GLOSSARY
 *   slot       index of a connection in this worker's table; reused, so ids carry a generation
 *   dirty      has queued bytes and no send in flight: gets its send at the end of the turn
 *   held       input is not decoded now, though bytes may come in (counted, several holders)
 *   gone       the descriptor is closed; the slot lives until nothing is under way
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/slab.h"
#include "net/chunk.h"
#include "ring/ring.h"
#include "ring/wheel.h"
#include "roda/plugin.h"

/* Beyond max_connections, of all workers together: who is told that the broker is full. */
#define NET_SPARE 64u

struct net;
struct listener;
struct datagram_socket;
struct datagrams;

/* what the owner says to a unit */
enum net_unit {
    NET_UNIT_TAKEN,
    NET_UNIT_KEEP, /* the same one again after net_resume() */
};

struct net_hooks {
    /* The peer is known, nothing was read. Also of one that is closed at once, since the broker is
     * full: it has last words, too. */
    void (*opened)(void *owner, struct roda_conn *c);
    /* The first bytes; false: not for this protocol, close. */
    bool (*first)(void *owner, struct roda_conn *c, struct roda_str bytes);
    /* again: this very unit was kept before. */
    enum net_unit (*unit)(void *owner, struct roda_conn *c, struct roda_str unit, bool again);
    void (*oversize)(void *owner, struct roda_conn *c, size_t bytes);
    /* The peer will send nothing more and all it sent was taken. */
    void (*ended)(void *owner, struct roda_conn *c);
    void (*idle)(void *owner, struct roda_conn *c);
    /* Last words may be queued. False: something is to be said before; then net_farewell(), or it
     * is asked again after write_timeout, for the last time. */
    bool (*closing)(void *owner, struct roda_conn *c, const char *reason, bool last);
    /* The descriptor is closed; call net_free() when nothing needs the connection any more. Also of
     * one that was not opened, since its peer was gone by then. */
    void (*gone)(void *owner, struct roda_conn *c);
    /* As roda_protocol.knock. */
    int (*knock)(void *owner, const struct listener *l, const struct roda_peer *peer,
                 struct roda_str in, struct roda_out *out, struct roda_str *ret_rest);
};

/* Immutable, shared by all workers; made by the main thread. */
struct net_limits {
    uint32_t max_connections;   /* of all workers together; sessions count */
    uint64_t send_queues_bytes; /* of all workers together */
    uint64_t send_queues_share; /* of this worker */
    uint32_t linger_ms;         /* polite close: wait this long for the peer to close too */
    uint32_t receive_buffers;   /* power of two */
    uint32_t receive_buffer_bytes;
    uint32_t datagram_sessions; /* of all workers together */
    bool mask_addresses;
};

/* name, help: every counter is one writer's, read by anybody. */
#define NET_COUNTERS(X)                                                                            \
    X(connections_accepted, "connections accepted")                                                \
    X(connections_closed, "connections closed")                                                    \
    X(connections_refused_full, "connections refused: max_connections reached")                    \
    X(connections_closed_slow, "connections closed: reader too slow")                              \
    X(connections_closed_shed, "connections closed: send_queues_total reached")                    \
    X(connections_closed_oversize, "connections closed: no line end within the limit")             \
    X(connections_closed_memory, "connections closed: out of memory")                              \
    X(accepts_paused, "times accepting paused for want of descriptors or memory")                  \
    X(units_received, "units received")                                                            \
    X(units_oversize, "units longer than allowed")                                                 \
    X(received_bytes, "bytes received")                                                            \
    X(sends, "sends submitted")                                                                    \
    X(sent_bytes, "bytes sent")                                                                    \
    X(sends_short, "sends that took fewer bytes than offered")                                     \
    X(receive_buffers_empty, "receives that found no buffer")                                      \
    X(receives_rearmed, "multishot receives armed again")                                          \
    X(receives_paused, "receives cancelled because input waits")                                   \
    X(cancel_retries, "cancels sent because a request would not end")                              \
    X(chunk_copies, "queue entries copied out of old chunks")                                      \
    X(datagrams_received, "datagrams received")                                                    \
    X(datagrams_sent, "datagrams sent")                                                            \
    X(datagrams_dropped, "datagrams not sent")                                                     \
    X(datagrams_truncated, "datagrams longer than 2 kB")                                           \
    X(datagrams_overrun, "datagrams thrown away: too much of their session waits")                 \
    X(datagrams_refused, "datagrams without session that got no answer")                           \
    X(datagram_answers, "answers to datagrams without session")                                    \
    X(datagram_sessions_opened, "datagram sessions opened")                                        \
    X(datagram_sessions_expired, "datagram sessions forgotten after silence")

struct net_counters {
#define X(name, help) _Atomic uint64_t name;
    NET_COUNTERS(X)
#undef X
    _Atomic uint64_t connections; /* gauges: open now */
    _Atomic uint64_t queued_bytes;
    _Atomic uint64_t pinned_bytes;
};
#define NET_COUNT(net, name)      ring_add(&(net)->counters.name, 1)
#define NET_ADD(net, name, count) ring_add(&(net)->counters.name, (count))

struct net_slot {
    struct roda_conn *conn; /* NULL: free */
    uint32_t generation;
    uint32_t next_free;
};

struct net_totals;
struct send_entry;

struct net {
    struct ring *ring;
    struct wheel *wheel;
    const struct system *system;
    const struct net_limits *limits;
    const struct net_hooks *hooks;
    void *owner;
    uint32_t worker;

    struct net_totals *totals;
    uint64_t now_ms; /* this turn's time; never 0 */

    struct net_slot *slots;
    uint32_t n_slots, used_slots; /* slots from used_slots on were never used */
    uint32_t free_slot;           /* UINT32_MAX: none below used_slots */
    uint32_t open;                /* connections with a descriptor, and sessions */

    struct listener *listeners;
    uint32_t n_listeners;
    struct datagrams *datagrams; /* what the UDP ones share; see datagram.c */

    /* Receive buffers: io_uring's provided-buffer ring. */
    struct io_uring_buf_ring *buffer_ring;
    char *buffer_memory;
    uint16_t buffer_tail;
    uint32_t buffers_lent; /* taken by completions of this turn and not given back yet */

    struct chunk_pool chunks;
    struct chunk *replies; /* where roda_conn_out() builds */
    struct chunk *compact; /* where entries of laggards are copied to */
    struct roda_out *reply;
    uint64_t compacted_ms;

    struct slab entries;  /* struct send_entry */
    struct slab requests; /* struct send_request */

    struct roda_conn *dirty; /* singly linked, newest first */
    struct list resume;      /* connections whose stashed input may be decoded */
    struct list rearm;       /* connections that wait for their receive */
    struct list ended;       /* gone, to be reported at the end of the turn */
    struct list farewell;    /* closing politely; their last words are due */
    struct list places;      /* places whose more() is due */
    struct list over;        /* over their queue limit, to be closed this turn */

    /* UNIX connections arrive where accept happens to run: true: taken for another worker. */
    bool (*hand_over)(void *owner, struct listener *l, int fd, bool full);
    bool input_stopped; /* the mailbox was not finished: stash, do not decode */
    bool stopping;      /* shutdown: no input any more */
    bool accept_waits;  /* some listener is paused */
    struct net_counters counters;
};

/* What the workers share: one word each, touched per chunk and per connection, not per message. */
struct net_totals {
    _Atomic uint64_t pinned_bytes;
    _Atomic uint32_t connections; /* sessions count */
    _Atomic uint32_t sessions;
};

int net_init(struct net *net, struct ring *ring, struct wheel *wheel,
             const struct net_limits *limits, const struct net_hooks *hooks, void *owner,
             uint32_t worker, struct net_totals *totals);
/* Registers the buffer ring. On the worker, after ring_enable(). */
int net_start(struct net *net);
/* Every connection must be gone and freed. */
void net_deinit(struct net *net);

/* The parts of a turn. */
void net_resume_inputs(struct net *net); /* decodes stashed input that may go on */
void net_places(struct net *net);        /* lets places be filled */
void net_pressure(struct net *net);      /* closes the over-full, sheds, copies laggards out */
void net_farewell(struct roda_conn *c);  /* closing() that said "later" is asked again, this turn */
void net_flush(struct net *net);         /* one send per dirty connection */
void net_report_ended(struct net *net);  /* gone() of what ended */
void net_rearm(struct net *net);         /* publishes buffers, arms receives and accepts */
bool net_busy(const struct net *net);    /* something is left for the next turn */
void net_gauges(struct net *net);

struct roda_conn *net_find(struct net *net, roda_conn_id id);
/* Frees the slot of a connection that is gone. */
void net_free(struct net *net, struct roda_conn *c);

/* Shutdown: listeners, then input, then polite closes. */
void net_stop_accept(struct net *net);
void net_stop_input(struct net *net);
void net_close_all(struct net *net, const char *reason);
void net_abort_all(struct net *net);

/* A provided buffer that a completion brought. */
char *net_buffer(struct net *net, uint32_t flags);
void net_buffer_back(struct net *net, uint32_t flags);

#endif
