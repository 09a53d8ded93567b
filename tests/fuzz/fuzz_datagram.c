#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/datagram.h"
#include "net/out.h"
#include "ring/ring.h"
#include "tests/sim/kernel.h"

/*
 * The datagram entry: what strangers and sessions may send, on the fake kernel. The input is a row
 * of records: peer (2 bits), what to do (2 bits), and how many of the following bytes (12 bits).
 *
 *   0  the bytes as they are
 *   1  a valid cookie, then the bytes
 *   2  time passes
 *   3  the bytes twice, in one datagram, with a line end between
 *
 * What must hold whatever comes: a stranger gets at most one answer of at most 10 bytes for a
 * datagram; a session is opened by a valid cookie only; in the end nothing is left.
 */

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define PEERS   4u
#define PORT    3000
#define UNIT    200u
#define TURNS   4
#define SILENCE 75000u

struct fuzz {
    struct sim_kernel *kernel;
    struct ring ring;
    struct wheel wheel;
    struct net net;
    struct net_limits limits;
    struct net_totals totals;
    struct listener_settings settings;
    struct listener_address address;
    struct listener listener;
    int fd;
    uint64_t now_ms;
    struct sim_udp *peers[PEERS];
    bool session[PEERS];
    uint64_t cookie[PEERS];  /* the last one that was made for that peer */
    uint64_t unproven_bytes; /* sent without a session, since answers were counted */
    unsigned opened, proven;
};

static unsigned peer_of(const struct sockaddr *address)
{
    return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port) - 40000u;
}

static void on_opened(void *owner, struct roda_conn *c)
{
    struct fuzz *f = owner;

    (void)c;
    f->opened++;
}

static bool on_first(void *owner, struct roda_conn *c, struct roda_str bytes)
{
    (void)owner;
    (void)c;
    (void)bytes;
    return true;
}

static enum net_unit on_unit(void *owner, struct roda_conn *c, struct roda_str unit, bool again)
{
    struct roda_out *out = roda_conn_out(c);

    (void)owner;
    (void)again;
    CHECK(unit.len <= UNIT);
    CHECK(!unit.len || !memchr(unit.ptr, '\n', unit.len));
    if (unit.len == 1 && unit.ptr[0] == 'q') {
        connection_close(c, "q");
    } else {
        roda_out_put(out, unit);
        roda_out_unit(out);
    }
    return NET_UNIT_TAKEN;
}

static void on_oversize(void *owner, struct roda_conn *c, size_t bytes)
{
    (void)owner;
    (void)c;
    CHECK(bytes > UNIT);
}

static void on_gone(void *owner, struct roda_conn *c)
{
    struct fuzz *f = owner;

    net_free(&f->net, c);
}

static void on_ended(void *owner, struct roda_conn *c)
{
    (void)owner;
    (void)c;
}

static bool on_closing(void *owner, struct roda_conn *c, const char *reason, bool last)
{
    (void)owner;
    (void)c;
    (void)reason;
    (void)last;
    return true;
}

static int on_knock(void *owner, const struct listener *l, const struct roda_peer *peer,
                    struct roda_str in, struct roda_out *out, struct roda_str *ret_rest)
{
    struct fuzz *f = owner;
    uint64_t cookies[2];
    char text[2][10];

    (void)l;
    CHECK(in.len > 0);
    datagram_cookie(&f->net, peer, cookies);
    f->cookie[peer_of(peer->address) % PEERS] = cookies[0];
    for (int i = 0; i < 2; i++)
        (void)snprintf(text[i], sizeof text[i], "=%08x", (unsigned)(uint32_t)cookies[i]);
    if (in.len > 9 && (!memcmp(in.ptr, text[0], 9) || !memcmp(in.ptr, text[1], 9))) {
        f->proven++;
        *ret_rest = (struct roda_str){in.ptr + 9, in.len - 9};
        return 1;
    }
    /* More than it may: the core cuts it. */
    roda_out_put(out, (struct roda_str){text[0], 9});
    roda_out_put(out, RODA_STR("and much more"));
    roda_out_unit(out);
    return in.ptr[0] == 's' ? -1 : 0;
}

static const struct net_hooks hooks = {
    .opened = on_opened,
    .first = on_first,
    .unit = on_unit,
    .oversize = on_oversize,
    .ended = on_ended,
    .idle = on_ended,
    .closing = on_closing,
    .gone = on_gone,
    .knock = on_knock,
};

static void turn(struct fuzz *f)
{
    f->net.now_ms = f->now_ms;
    CHECK(!ring_enter(&f->ring, false, 0));
    (void)ring_dispatch(&f->ring, ring_mark(&f->ring), UINT32_MAX);
    (void)wheel_advance(&f->wheel, f->now_ms);
    net_resume_inputs(&f->net);
    net_places(&f->net);
    net_pressure(&f->net);
    net_flush(&f->net);
    net_report_ended(&f->net);
    net_rearm(&f->net);
    (void)sim_advance_to(f->kernel, sim_now_ns(f->kernel) + 1000000);
}

static void start(struct fuzz *f)
{
    static const struct roda_protocol protocol = {.name = "fuzz", .framing = RODA_LINES};
    static const uint32_t no_data[] = {UINT32_MAX, UINT32_MAX};
    struct sockaddr_in *at = &f->address.address.v4;
    char problem[256];

    f->kernel = sim_kernel_new(1, NULL);
    f->now_ms = 1000000;
    f->limits = (struct net_limits){.max_connections = 8,
                                    .send_queues_bytes = 1 << 20,
                                    .send_queues_share = 1 << 20,
                                    .linger_ms = 100,
                                    .receive_buffers = 16,
                                    .receive_buffer_bytes = 2048,
                                    .datagram_sessions = 3};
    f->settings = (struct listener_settings){.name = "udp",
                                             .transport = TRANSPORT_UDP,
                                             .protocol = &protocol,
                                             .unit_max_bytes = UNIT,
                                             .send_queue_bytes = 8192,
                                             .receive_queue_bytes = 500,
                                             .session_timeout_ms = SILENCE,
                                             .data_offsets = no_data};
    f->address.settings = &f->settings;
    f->address.fds = &f->fd;
    at->sin_family = AF_INET;
    at->sin_port = htons(PORT);
    at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    f->address.address_len = sizeof *at;
    CHECK(!listener_bind(sim_system(f->kernel), &f->address, 1, problem, sizeof problem));
    CHECK(!ring_init(&f->ring, sim_system(f->kernel), 64, 256));
    wheel_init(&f->wheel, f->now_ms);
    CHECK(!net_init(&f->net, &f->ring, &f->wheel, &f->limits, &hooks, f, 0, &f->totals));
    f->net.now_ms = f->now_ms;
    CHECK(!ring_enable(&f->ring) && !net_start(&f->net));
    f->net.listeners = &f->listener;
    f->net.n_listeners = 1;
    CHECK(!listener_open(&f->net, &f->listener, &f->address));
    for (unsigned i = 0; i < PEERS; i++) {
        struct sockaddr_in from = *at;
        from.sin_port = htons((uint16_t)(40000 + i));
        f->peers[i] = sim_udp_open(f->kernel, (struct sockaddr *)&from, sizeof from);
    }
    for (int i = 0; i < TURNS; i++)
        turn(f);
}

static void stop(struct fuzz *f)
{
    for (unsigned i = 0; i < PEERS; i++)
        sim_udp_close(f->peers[i]);
    listener_close(&f->listener);
    net_close_all(&f->net, "the end");
    for (int i = 0; i < 100 && (!listener_quiet(&f->listener) || f->net.open); i++) {
        f->now_ms += 200;
        turn(f);
    }
    CHECK(listener_quiet(&f->listener) && !f->net.open);
    for (int i = 0; i < TURNS; i++)
        turn(f);
    datagram_free(&f->listener);
    f->net.listeners = NULL;
    f->net.n_listeners = 0;
    ring_deinit(&f->ring);
    net_deinit(&f->net);
    CHECK(!f->totals.pinned_bytes);
    listener_unbind(sim_system(f->kernel), &f->address, 1);
    CHECK(!sim_descriptors(f->kernel));
    CHECK(!sim_violation(f->kernel));
    sim_kernel_free(f->kernel);
}

/* Sends, lets the broker work, and looks at what came back to a stranger. */
static void arrive(struct fuzz *f, unsigned peer, const char *bytes, size_t len)
{
    const struct sockaddr_in *to = &f->address.address.v4;
    unsigned opened = f->opened, answers = 0;
    bool stranger = !f->net.open;
    char answer[4096];
    struct sockaddr_storage from;
    int n;

    sim_udp_send(f->peers[peer], (const struct sockaddr *)to, sizeof *to, bytes, len);
    for (int i = 0; i < TURNS; i++)
        turn(f);
    while ((n = sim_udp_recv(f->peers[peer], answer, sizeof answer, &from)) >= 0) {
        answers++;
        if (stranger && f->opened == opened)
            CHECK(n <= 10);
    }
    if (stranger && f->opened == opened)
        CHECK(answers <= 1);
    CHECK(f->opened <= f->proven);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz fuzz;
    struct fuzz *f = &fuzz;
    char bytes[2 * 4096 + 64];

    memset(f, 0, sizeof *f);
    start(f);
    while (size >= 2) {
        unsigned peer = data[0] & 3, what = data[0] >> 2 & 3;
        size_t len = (size_t)(data[0] >> 4) << 8 | data[1], at = 0;
        data += 2;
        size -= 2;
        if (len > size)
            len = size;
        switch (what) {
        case 1:
            at = (size_t)snprintf(bytes, 32, "=%08x", (unsigned)(uint32_t)f->cookie[peer]);
            break;
        case 2:
            f->now_ms += len * 40;
            turn(f);
            break;
        case 3:
            memcpy(bytes, data, len);
            bytes[len] = '\n';
            at = len + 1;
            break;
        default:
            break;
        }
        memcpy(bytes + at, data, len);
        if (what != 2)
            arrive(f, peer, bytes, at + len);
        data += len;
        size -= len;
    }
    stop(f);
    return 0;
}
