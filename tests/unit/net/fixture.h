#ifndef RODA_TESTS_UNIT_NET_FIXTURE_H
#define RODA_TESTS_UNIT_NET_FIXTURE_H
/*
 * A worker's net without a kernel, and connections in it without a descriptor: what send queues
 * and byte builders need. Streams unless said otherwise.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "net/chunk.h"
#include "net/out.h"
#include "net/queue.h"

struct fixture {
    struct ring ring; /* never set up */
    struct wheel wheel;
    struct net net;
    struct net_limits limits;
    struct net_totals totals;
    struct roda_protocol protocol;
    struct listener_settings settings;
    struct listener_address address;
    struct listener listener;
};

static inline void fixture_opened(void *owner, struct roda_conn *c)
{
    (void)owner;
    (void)c;
}

static inline void fixture_gone(void *owner, struct roda_conn *c)
{
    struct fixture *f = owner;

    net_free(&f->net, c);
}

static inline struct fixture *fixture_new(void)
{
    static const struct net_hooks hooks = {.opened = fixture_opened, .gone = fixture_gone};
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->ring.system = system_real();
    wheel_init(&f->wheel, 1);
    f->limits = (struct net_limits){.max_connections = 64, .receive_buffers = 16};
    f->protocol = (struct roda_protocol){.name = "test", .framing = RODA_LINES};
    f->settings = (struct listener_settings){.name = "test",
                                             .transport = TRANSPORT_UDP,
                                             .protocol = &f->protocol,
                                             .send_queue_bytes = 1 << 20};
    f->address.settings = &f->settings;
    f->listener = (struct listener){.address = &f->address, .net = &f->net};
    assert_int_equal(net_init(&f->net, &f->ring, &f->wheel, &f->limits, &hooks, f, 0, &f->totals),
                     0);
    return f;
}

static inline struct roda_conn *fixture_conn(struct fixture *f, bool datagram)
{
    union address peer = {.v4 = {.sin_family = AF_INET}};
    struct roda_conn *c = connection_open_session(&f->net, &f->listener, &peer, NULL);

    assert_non_null(c);
    if (!datagram)
        c->flags &= ~(uint32_t)CONN_DATAGRAM;
    return c;
}

/* As a turn of the loop does after a connection broke. */
static inline void fixture_drop(struct fixture *f, struct roda_conn *c)
{
    c->sending_bytes = 0;
    connection_abort(c, "the end");
    net_report_ended(&f->net);
}

/* Every connection must have been dropped. Nothing may be pinned or unreturned. */
static inline void fixture_free(struct fixture *f)
{
    net_places(&f->net);
    assert_int_equal(f->net.open, 0);
    assert_int_equal(f->net.entries.in_use, 0);
    net_deinit(&f->net);
    assert_int_equal(f->totals.pinned_bytes, 0);
    free(f);
}

/* Everything that may be sent now, at most most bytes; consumed if asked to. */
static inline size_t fixture_read(struct roda_conn *c, char *to, size_t most, bool consume)
{
    size_t len = 0;

    while (len < most && queue_sendable(c)) {
        struct iovec pieces[SEND_PIECES];
        uint32_t bytes, used = 0;
        unsigned n = queue_gather(c, pieces, &bytes);

        assert_in_range(n, 1, SEND_PIECES);
        for (unsigned i = 0; i < n && len < most; i++) {
            size_t take = pieces[i].iov_len < most - len ? pieces[i].iov_len : most - len;
            memcpy(to + len, pieces[i].iov_base, take);
            len += take;
            used += (uint32_t)take;
        }
        if (!consume)
            break;
        queue_consume(c, used);
    }
    return len;
}

#endif
