#ifndef RODA_NET_CONNECTION_H
#define RODA_NET_CONNECTION_H
/*
 * A connection: a stream socket, or a datagram session. Its life:
 *
 *   OPEN -> FLUSHING -> LINGERING -> CLOSING -> GONE -> freed
 *
 *   OPEN       reads, decodes, writes
 *   FLUSHING   polite close: input is thrown away, last words are said, what is queued is sent
 *   LINGERING  SHUT_WR was done; input is thrown away until EOF, or for linger_ms; while our
 *              kernel holds what the peer has not taken, for write_timeout_ms, if it was let in
 *   CLOSING    shutdown(2) both ways; waits until nothing is in flight in the ring
 *   GONE       the descriptor is closed; waits for the owner's net_free()
 *
 * in_flight counts requests in the ring: one more per SQE, one less per completion without
 * F_MORE; nothing of a connection is freed before it is 0. A cancel is a nudge and counts for
 * nothing; shutdown(2) is what ends requests.
 */
#include <stdbool.h>
#include <stdint.h>

#include "net/listener.h"
#include "net/net.h"

enum connection_state {
    CONNECTION_OPEN,
    CONNECTION_FLUSHING,
    CONNECTION_LINGERING,
    CONNECTION_CLOSING,
    CONNECTION_GONE,
};

/* roda_conn.flags */
enum {
    CONN_DIRTY = 1 << 0,
    CONN_SENDING = 1 << 1,      /* a send is in flight */
    CONN_RECEIVING = 1 << 2,    /* a receive is armed */
    CONN_CANCELLED = 1 << 3,    /* a cancel of the receive was sent */
    CONN_NO_DELIVERY = 1 << 4,  /* closing: queues take nothing more */
    CONN_ASKS_DELIVER = 1 << 5, /* deliver filters run */
    CONN_OVER = 1 << 6,         /* in net->over */
    CONN_DATAGRAM = 1 << 7,
    CONN_READY = 1 << 8,     /* its protocol has let it in */
    CONN_EOF = 1 << 9,       /* the peer sent its end */
    CONN_ENDED = 1 << 10,    /* ended() was called */
    CONN_SKIPPING = 1 << 11, /* inside a unit that is too long */
    CONN_KEPT = 1 << 12,     /* the first stashed unit was shown and kept */
    CONN_IDLE_ASKED = 1 << 13,
    CONN_ABORT = 1 << 14,  /* close with a reset */
    CONN_FAILED = 1 << 15, /* memory ran out while its queue was built */
    CONN_DECODING = 1 << 16,
    CONN_SHORT = 1 << 17,  /* the last send was short: poll first */
    CONN_BEGUN = 1 << 18,  /* first() was called */
    CONN_OPENED = 1 << 19, /* the owner: opened() was reported */
    CONN_LEFT = 1 << 20,   /* the owner: gone, waits until nothing is under way */
    CONN_RESET = 1 << 21,  /* the peer did not end in time: close with a reset, without a notice */
    CONN_BROKE = 1 << 22,  /* the peer or the network ended it: no matter for a notice */
    CONN_TOLD = 1 << 23,   /* its last words are said, or wait no longer */
};

/* Stashed input: bytes not decoded yet. Made when needed. */
struct stash {
    char *bytes;
    uint32_t start, end, capacity;
};

struct roda_conn {
    /* Hot: what one delivery touches, in one cache line. The newest entry of the send queue lies
     * here; it grows while a burst continues it. */
    struct chunk *chunk; /* NULL: no newest entry */
    uint32_t offset, length;
    void *encoding; /* the owner's; see bus/fanout.h */
    struct roda_conn *next_dirty;
    struct send_entry *oldest, *last_older; /* entries before the newest */
    uint32_t queued_bytes;
    uint32_t limit_bytes;
    uint32_t sending_bytes; /* of the send in flight */
    uint32_t flags;

    /* Warm and cold. */
    roda_conn_id id;
    struct net *net;
    const struct listener_settings *settings;
    struct roda_person *person;
    struct stash *stash;
    char *reason;     /* why it is closed; memory_copy() */
    struct list link; /* in one of net's lists: resume, rearm, over, farewell, ended */
    struct wheel_timer timer;
    union {
        void *session; /* datagram: struct datagram_session */
        void *request; /* stream: struct send_request of the send in flight, or NULL */
    };
    union {
        uint32_t skipped_bytes; /* lines: of the unit that is too long */
        uint32_t raw_bytes;     /* RODA_RAW: of the unit that was shown last */
    };
    uint32_t active_s;    /* when something came last, seconds of net->now_ms */
    uint32_t progress_ms; /* when the peer took something of the send in flight, as far as known,
                           * lower half; LINGERING: when that began */
    uint32_t untaken;     /* in our kernel at the last look; UINT32_MAX: not looked at yet */
    int fd;
    uint16_t in_flight;
    uint8_t state;
    uint8_t holds;
    uint16_t peer_port;
    uint16_t answers; /* the owner's: queued and not given yet */

    /* The owner's part (bus/input.c). */
    uint64_t destination;
    void *waiting; /* struct waiting, made when needed */
    uint32_t under_way_bytes;
    uint16_t under_way;
    uint8_t home;  /* worker of the destination */
    uint8_t waits; /* for what input waits: WAIT_* of bus/bus.h */
    union {
        struct in6_addr peer_address; /* v4 is mapped */
        uint32_t uid;                 /* UNIX: of the peer */
    };
    _Alignas(8) char data[]; /* plugins' */
};

/* Counts one that was accepted. ret_full: it is beyond max_connections and is to be told so. False:
 * so many are being told that already that the descriptor was closed. */
bool connection_admit(struct net *net, int fd, bool *ret_full);
/* One that was admitted and will not be opened: closes the descriptor. */
void connection_dismiss(struct net *net, int fd);
/* A fresh connection of one that was admitted: OPEN, or being told that the broker is full; or NULL
 * with the descriptor closed: no memory, or the peer is gone already. */
struct roda_conn *connection_open(struct net *net, struct listener *l, int fd, bool full);
/* The same without a descriptor: a datagram session. */
struct roda_conn *connection_open_session(struct net *net, struct listener *l,
                                          const union address *peer, void *session);
/* Input of one connection: splits, stashes, shows units to the owner. */
void connection_input(struct roda_conn *c, const char *bytes, size_t len);
void connection_input_end(struct roda_conn *c);
/* Units are shown to the owner now, and not stashed. */
bool connection_may_decode(const struct roda_conn *c);
/* Holding and going on. Resume happens from net_resume_inputs(), never inside. */
void connection_hold(struct roda_conn *c);
void connection_release(struct roda_conn *c);
void connection_resume(struct roda_conn *c);

/* Politely: last words, then what is queued, then the end. Takes no effect twice. */
void connection_close(struct roda_conn *c, const char *reason);
/* At once; what is queued is lost. */
void connection_abort(struct roda_conn *c, const char *reason);
/* Gives the peer write_timeout to take what is queued before the close. */
void connection_linger(struct roda_conn *c);
/* If politeness is over (nothing queued), goes on to the next state. */
void connection_step(struct roda_conn *c);

/* Completions; owner: struct net. */
void connection_on_recv(void *owner, const struct ring_completion *done);
void connection_on_send(void *owner, const struct ring_completion *done);
void connection_on_cancel(void *owner, const struct ring_completion *done);
void connection_arm_recv(struct roda_conn *c);

void connection_peer(const struct roda_conn *c, union address *ret, socklen_t *ret_len);

static inline uint32_t connection_slot(const struct roda_conn *c)
{
    return (uint32_t)(c->id >> 32) & 0xffffffu;
}

#endif
