/*
 * UDP, on the real kernel's loopback and on the fake one: a test runs on both unless it needs
 * faults or a thousand addresses. The broker's clock is the test's own (bench.now_ms), so that
 * cookies age and sessions fall silent at once.
 *
 * Silence is shown without waiting for it: once as many datagrams were taken as were sent and
 * nothing is in flight, what has not been answered never will be.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/hash.h"
#include "net/datagram.h"
#include "net/out.h"
#include "net/queue.h"
#include "sim/kernel.h"

#define PATIENCE_NS UINT64_C(20000000000)
#define START_MS    1000000u
#define TIMEOUT_MS  75000u
#define UNIT_MAX    100u
#define PEERS       16u

struct peer {
    struct bench *bench;
    int fd;
    struct sim_udp *udp;
    union address server; /* where it sends to */
    union address answered_from;
};

struct bench {
    struct sim_kernel *fake; /* NULL: the real one */
    const struct system *system;
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
    uint64_t sent; /* by all peers */
    struct peer peers[PEERS];
    unsigned n_peers;

    /* What the hooks saw, and how they behave. */
    char units[8192];
    char reason[64];
    unsigned n_knocks, n_opened, n_gone, n_oversize;
    size_t oversize_bytes;
    bool keep;
    bool abort_at_once;
    size_t answer_bytes; /* 0: the cookie */
    bool silent, foreign_rest;
    struct roda_conn *last;
};

/* ---- a small protocol ------------------------------------------------------------------- */

static void on_opened(void *owner, struct roda_conn *c)
{
    struct bench *b = owner;

    b->n_opened++;
    b->last = c;
    if (b->abort_at_once)
        connection_abort(c, "not welcome");
}

static bool on_first(void *owner, struct roda_conn *c, struct roda_str bytes)
{
    (void)owner;
    (void)c;
    (void)bytes;
    fail_msg("the first bytes are a stream's");
    return false;
}

static void say(struct roda_conn *c, const char *text)
{
    struct roda_out *out = roda_conn_out(c);

    roda_out_put(out, (struct roda_str){text, strlen(text)});
    roda_out_unit(out);
}

/* n units of size bytes each, line end included, numbered. */
static void say_many(struct roda_conn *c, unsigned n, unsigned size)
{
    char text[4096];

    for (unsigned i = 0; i < n; i++) {
        (void)snprintf(text, sizeof text, "%04u", i);
        memset(text + 4, 'x', size - 5);
        text[size - 1] = 0;
        say(c, text);
    }
}

static enum net_unit on_unit(void *owner, struct roda_conn *c, struct roda_str unit, bool again)
{
    struct bench *b = owner;
    size_t used = strlen(b->units);
    unsigned n, size;
    char text[2100];

    (void)again;
    if (b->keep)
        return NET_UNIT_KEEP;
    (void)snprintf(b->units + used, sizeof b->units - used, "%.*s|", (int)unit.len, unit.ptr);
    (void)snprintf(text, sizeof text, "%.*s", (int)unit.len, unit.ptr);
    if (!strncmp(text, "echo ", 5))
        say(c, text + 5);
    else if (sscanf(text, "many %u %u", &n, &size) == 2)
        say_many(c, n, size);
    else if (!strcmp(text, "quit"))
        connection_close(c, "quit");
    return NET_UNIT_TAKEN;
}

static void on_oversize(void *owner, struct roda_conn *c, size_t bytes)
{
    struct bench *b = owner;

    (void)c;
    b->n_oversize++;
    b->oversize_bytes = bytes;
}

static bool on_closing(void *owner, struct roda_conn *c, const char *reason, bool last)
{
    (void)owner;
    (void)reason;
    (void)last;
    say(c, "bye");
    return true;
}

static void on_gone(void *owner, struct roda_conn *c)
{
    struct bench *b = owner;

    b->n_gone++;
    (void)snprintf(b->reason, sizeof b->reason, "%s", c->reason);
    net_free(&b->net, c);
}

static int on_knock(void *owner, const struct listener *l, const struct roda_peer *peer,
                    struct roda_str in, struct roda_out *out, struct roda_str *ret_rest)
{
    static const char elsewhere[] = "elsewhere";
    struct bench *b = owner;
    uint64_t cookies[2];
    char cookie[2][10];

    b->n_knocks++;
    assert_ptr_equal(l, &b->listener);
    assert_true(in.len > 0);
    assert_int_equal(peer->listener.len, 3);
    datagram_cookie(&b->net, peer, cookies);
    for (int i = 0; i < 2; i++)
        (void)snprintf(cookie[i], sizeof cookie[i], "=%08x", (unsigned)(uint32_t)cookies[i]);
    if (in.len >= 9 && (!memcmp(in.ptr, cookie[0], 9) || !memcmp(in.ptr, cookie[1], 9))) {
        *ret_rest = (struct roda_str){in.ptr + 9, in.len - 9};
        if (b->foreign_rest)
            *ret_rest = (struct roda_str){elsewhere, 9};
        return 1;
    }
    if (b->silent)
        return -1;
    if (b->answer_bytes) {
        char many[64];
        memset(many, 'a', sizeof many);
        roda_out_put(out, (struct roda_str){many, b->answer_bytes});
        return 0;
    }
    roda_out_put(out, (struct roda_str){cookie[0], 9});
    roda_out_unit(out);
    return 0;
}

static const struct net_hooks hooks = {
    .opened = on_opened,
    .first = on_first,
    .unit = on_unit,
    .oversize = on_oversize,
    .closing = on_closing,
    .gone = on_gone,
    .knock = on_knock,
};

static const struct roda_protocol lines = {.name = "test", .framing = RODA_LINES};
static const struct roda_protocol raw = {.name = "raw", .framing = RODA_RAW};

/* ---- the bench -------------------------------------------------------------------------- */

static void turn(struct bench *b, bool wait)
{
    b->net.now_ms = b->now_ms;
    assert_int_equal(ring_enter(&b->ring, wait, 1000000), 0);
    ring_dispatch(&b->ring, ring_mark(&b->ring), UINT32_MAX);
    (void)wheel_advance(&b->wheel, b->now_ms);
    net_resume_inputs(&b->net);
    net_places(&b->net);
    net_pressure(&b->net);
    net_flush(&b->net);
    net_report_ended(&b->net);
    net_rearm(&b->net);
}

static uint64_t clock_ns(const struct bench *b)
{
    return b->fake ? sim_now_ns(b->fake) : b->system->monotonic_ns(b->system->kernel);
}

static bool calm(const struct bench *b)
{
    return b->net.counters.datagrams_received >= b->sent && !net_busy(&b->net) &&
           b->listener.in_flight == (b->listener.armed ? 1 : 0) &&
           (b->listener.armed || b->listener.closed) && ring_space(&b->ring) == b->ring.sq_entries;
}

/* Everything that was sent was taken, and everything that was to be said was said. */
static void settle(struct bench *b)
{
    uint64_t start = clock_ns(b);

    do {
        turn(b, true);
        assert_true(clock_ns(b) - start < PATIENCE_NS);
    } while (!calm(b));
    if (b->fake) {
        sim_advance_to(b->fake, sim_now_ns(b->fake) + 10000000);
        assert_null(sim_violation(b->fake));
    }
}

static void pass(struct bench *b, uint64_t ms)
{
    b->now_ms += ms;
    settle(b);
}

struct kernel {
    bool fake;
};
static struct kernel real_kernel = {false}, fake_kernel = {true};

static void address_from(union address *a, socklen_t *ret_len, const char *host, unsigned port)
{
    memset(a, 0, sizeof *a);
    if (strchr(host, ':')) {
        a->v6.sin6_family = AF_INET6;
        a->v6.sin6_port = htons((uint16_t)port);
        assert_int_equal(inet_pton(AF_INET6, host, &a->v6.sin6_addr), 1);
        *ret_len = sizeof a->v6;
    } else {
        a->v4.sin_family = AF_INET;
        a->v4.sin_port = htons((uint16_t)port);
        assert_int_equal(inet_pton(AF_INET, host, &a->v4.sin_addr), 1);
        *ret_len = sizeof a->v4;
    }
}

/* No fault, and every datagram takes as long as every other. */
static struct sim_faults in_order(void)
{
    struct sim_faults faults = sim_faults_none();

    faults.net_min_ns = faults.net_max_ns = 50000;
    return faults;
}

static const uint32_t no_data[1] = {UINT32_MAX};

/* Settings may be changed between prepare() and start(). */
static struct bench *prepare(void **state)
{
    const struct kernel *kernel = *state;
    struct bench *b = calloc(1, sizeof *b);

    assert_non_null(b);
    if (kernel->fake) {
        struct sim_faults faults = in_order();
        b->fake = sim_kernel_new(1, &faults);
        sim_blocking_enter(b->fake, true);
        sim_host_address(b->fake, "127.0.0.2", true);
        b->system = sim_system(b->fake);
    } else {
        b->system = system_real();
    }
    b->now_ms = START_MS;
    b->limits = (struct net_limits){.max_connections = 64,
                                    .send_queues_bytes = 1 << 20,
                                    .send_queues_share = 1 << 20,
                                    .linger_ms = 1000,
                                    .receive_buffers = 16,
                                    .receive_buffer_bytes = 2048,
                                    .datagram_sessions = 8};
    b->settings = (struct listener_settings){.name = "udp",
                                             .transport = TRANSPORT_UDP,
                                             .protocol = &lines,
                                             .unit_max_bytes = UNIT_MAX,
                                             .send_queue_bytes = 65536,
                                             .receive_queue_bytes = 300,
                                             .session_timeout_ms = TIMEOUT_MS,
                                             .data_offsets = no_data};
    b->address.settings = &b->settings;
    b->address.fds = &b->fd;
    return b;
}

static void start(struct bench *b, const char *host)
{
    char problem[256] = "";

    address_from(&b->address.address, &b->address.address_len, host, 0);
    b->address.dual_stack = !strcmp(host, "::");
    if (listener_bind(b->system, &b->address, 1, problem, sizeof problem))
        fail_msg("%s", problem);
    assert_int_equal(ring_init(&b->ring, b->system, 64, 1024), 0);
    wheel_init(&b->wheel, b->now_ms);
    assert_int_equal(net_init(&b->net, &b->ring, &b->wheel, &b->limits, &hooks, b, 0, &b->totals),
                     0);
    b->net.now_ms = b->now_ms;
    assert_int_equal(ring_enable(&b->ring), 0);
    assert_int_equal(net_start(&b->net), 0);
    /* The listener is the bench's own: net does not free it. */
    b->net.listeners = &b->listener;
    b->net.n_listeners = 1;
    assert_int_equal(listener_open(&b->net, &b->listener, &b->address), 0);
    settle(b);
    assert_true(b->listener.armed);
}

static void stop(struct bench *b)
{
    for (unsigned i = 0; i < b->n_peers; i++) {
        if (b->fake)
            sim_udp_close(b->peers[i].udp);
        else
            close(b->peers[i].fd);
    }
    listener_close(&b->listener);
    net_close_all(&b->net, "the end");
    settle(b);
    for (unsigned i = 0; i < 100 && !listener_quiet(&b->listener); i++)
        pass(b, 100); /* a cancel may lie: again after a while */
    assert_true(listener_quiet(&b->listener));
    assert_int_equal(b->net.open, 0);
    datagram_free(&b->listener);
    assert_null(b->net.datagrams);
    b->net.listeners = NULL;
    b->net.n_listeners = 0;
    ring_deinit(&b->ring);
    net_deinit(&b->net);
    assert_int_equal(b->totals.pinned_bytes, 0);
    listener_unbind(b->system, &b->address, 1);
    if (b->fake) {
        assert_int_equal(sim_descriptors(b->fake), 0);
        assert_int_equal(sim_files_held(b->fake), 0);
        assert_null(sim_violation(b->fake));
        sim_kernel_free(b->fake);
    }
    free(b);
}

static struct bench *begin(void **state, const char *host)
{
    struct bench *b = prepare(state);

    start(b, host);
    return b;
}

/* ---- peers ------------------------------------------------------------------------------ */

/* Somebody at from (port 0: any) who sends to the broker by its address at. */
static struct peer *peer_at(struct bench *b, const char *from, unsigned port, const char *at)
{
    static unsigned next_port = 40000; /* the fake kernel's peers choose theirs */
    struct peer *p = &b->peers[b->n_peers];
    union address own;
    socklen_t len;

    assert_true(b->n_peers < PEERS);
    p->bench = b;
    address_from(&own, &len, from, b->fake && !port ? next_port++ : port);
    if (b->fake) {
        p->udp = sim_udp_open(b->fake, &own.any, len);
    } else {
        p->fd = socket(own.any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        assert_true(p->fd >= 0);
        if (bind(p->fd, &own.any, len)) {
            close(p->fd);
            return NULL;
        }
    }
    address_from(&p->server, &len, at, ntohs(b->address.address.v4.sin_port));
    b->n_peers++;
    return p;
}

static void send_bytes(struct peer *p, const void *bytes, size_t len)
{
    socklen_t size = p->server.any.sa_family == AF_INET ? sizeof p->server.v4 : sizeof p->server.v6;

    if (p->bench->fake)
        sim_udp_send(p->udp, &p->server.any, size, bytes, len);
    else
        assert_int_equal(sendto(p->fd, bytes, len, 0, &p->server.any, size), (ssize_t)len);
    p->bench->sent++;
}

static void send_text(struct peer *p, const char *text)
{
    send_bytes(p, text, strlen(text));
    settle(p->bench);
}

/* The next datagram that came for p, as text; NULL: none. */
static const char *hear(struct peer *p)
{
    static char text[4096];
    struct sockaddr_storage from = {0};
    ssize_t n;

    if (p->bench->fake) {
        n = sim_udp_recv(p->udp, text, sizeof text - 1, &from);
    } else {
        socklen_t len = sizeof from;
        n = recvfrom(p->fd, text, sizeof text - 1, 0, (struct sockaddr *)&from, &len);
    }
    if (n < 0)
        return NULL;
    memcpy(&p->answered_from, &from, sizeof p->answered_from);
    text[n] = 0;
    return text;
}

#define assert_heard(p, expected)                                                                  \
    do {                                                                                           \
        const char *heard = hear(p);                                                               \
        assert_non_null(heard);                                                                    \
        assert_string_equal(heard, expected);                                                      \
    } while (0)
#define assert_silence(p) assert_null(hear(p))

/* Learns a cookie: "=xxxxxxxx". */
static void learn_cookie(struct peer *p, char cookie[10])
{
    const char *heard;

    send_text(p, "hello\n");
    heard = hear(p);
    assert_non_null(heard);
    assert_int_equal(strlen(heard), 10);
    assert_int_equal(heard[9], '\n');
    memcpy(cookie, heard, 9);
    cookie[9] = 0;
    assert_silence(p);
}

static void greet_with(struct peer *p, const char *cookie, const char *line)
{
    char text[256];

    (void)snprintf(text, sizeof text, "%s%s", cookie, line);
    send_text(p, text);
}

/* Opens a session; nothing is said in it yet. */
static struct roda_conn *enter(struct peer *p)
{
    struct bench *b = p->bench;
    unsigned before = b->n_opened;
    char cookie[10];

    learn_cookie(p, cookie);
    greet_with(p, cookie, "");
    assert_int_equal(b->n_opened, before + 1);
    return b->last;
}

#define count_of(b, name) ((unsigned)(b)->net.counters.name)

/* ---- strangers -------------------------------------------------------------------------- */

static void a_cookie_opens_a_session(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    char cookie[10];

    learn_cookie(p, cookie);
    assert_int_equal(b->n_opened, 0);
    assert_int_equal(b->net.open, 0);
    assert_int_equal(count_of(b, datagram_answers), 1);
    greet_with(p, cookie, "echo one\r\necho two\n");
    assert_int_equal(b->n_opened, 1);
    assert_string_equal(b->units, "echo one|echo two|");
    assert_heard(p, "one\ntwo\n");
    send_text(p, "echo three"); /* the datagram's end ends the line */
    assert_heard(p, "three\n");
    assert_silence(p);
    assert_int_equal(b->n_knocks, 2);
    assert_int_equal(count_of(b, datagram_sessions_opened), 1);
    assert_int_equal(b->totals.connections, 1);
    stop(b);
}

static void a_forged_cookie_opens_nothing(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct peer *thief = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    char cookie[10], wrong[10], fresh[12];

    learn_cookie(p, cookie);
    memcpy(wrong, cookie, sizeof wrong);
    wrong[4] = wrong[4] == '0' ? '1' : '0';
    greet_with(p, wrong, "hi\n");
    (void)snprintf(fresh, sizeof fresh, "%s\n", cookie);
    assert_heard(p, fresh);
    greet_with(thief, cookie, "hi\n"); /* the same host, another port */
    assert_non_null(hear(thief));
    assert_int_equal(b->n_opened, 0);
    assert_string_equal(b->units, "");
    stop(b);
}

static void a_cookie_lives_for_two_slots(void **state)
{
    /* In the first slot after an hour's end too: the key of the hour before lives on. */
    static const uint64_t starts_ms[] = {16000u * 100, 16000u * (225u * 7 - 1), 16000u};

    for (size_t i = 0; i < sizeof starts_ms / sizeof *starts_ms; i++) {
        struct bench *b = prepare(state);
        b->now_ms = starts_ms[i];
        start(b, "127.0.0.1");
        struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
        struct peer *late = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
        char cookie[10], other[10];

        learn_cookie(p, cookie);
        learn_cookie(late, other);
        assert_string_not_equal(cookie, other);
        pass(b, 31999);
        greet_with(p, cookie, "");
        assert_int_equal(b->n_opened, 1);
        pass(b, 1);
        greet_with(late, other, "");
        assert_int_equal(b->n_opened, 1);
        assert_non_null(hear(late)); /* a fresh one */
        stop(b);
    }
}

static void cookies_depend_on_everything(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    union address one, two;
    socklen_t len;
    uint64_t first[2], cookie[2];
    struct roda_peer peer = {.address = &one.any, .listener = RODA_STR("udp")};

    address_from(&one, &len, "192.0.2.1", 1000);
    datagram_cookie(&b->net, &peer, first);
    datagram_cookie(&b->net, &peer, cookie);
    assert_int_equal(first[0], cookie[0]);
    assert_int_equal(first[1], cookie[1]);
    assert_int_not_equal(first[0], first[1]);

    address_from(&two, &len, "::ffff:192.0.2.1", 1000); /* the same, as a dual stack shows it */
    peer.address = &two.any;
    datagram_cookie(&b->net, &peer, cookie);
    assert_int_equal(first[0], cookie[0]);
    address_from(&two, &len, "192.0.2.2", 1000);
    datagram_cookie(&b->net, &peer, cookie);
    assert_int_not_equal(first[0], cookie[0]);
    address_from(&two, &len, "192.0.2.1", 1001);
    datagram_cookie(&b->net, &peer, cookie);
    assert_int_not_equal(first[0], cookie[0]);
    address_from(&two, &len, "2001:db8::1", 1000);
    datagram_cookie(&b->net, &peer, cookie);
    assert_int_not_equal(first[0], cookie[0]);
    peer.address = &one.any;
    peer.listener = RODA_STR("other");
    datagram_cookie(&b->net, &peer, cookie);
    assert_int_not_equal(first[0], cookie[0]);
    peer.listener = RODA_STR("udp");

    b->net.now_ms += 16000;
    datagram_cookie(&b->net, &peer, cookie);
    assert_int_equal(first[0], cookie[1]);
    assert_int_not_equal(first[0], cookie[0]);
    stop(b);
}

static void an_answer_is_cut_at_10_bytes(void **state)
{
    struct bench *b = prepare(state);
    static const size_t sizes[] = {1, 2, 9, 10, 11, 64};
    struct peer *p;

    start(b, "127.0.0.1");
    p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        b->answer_bytes = sizes[i];
        send_text(p, "a");
        const char *heard = hear(p);
        assert_non_null(heard);
        assert_int_equal(strlen(heard), sizes[i] < 10 ? sizes[i] : 10);
        assert_silence(p);
    }
    stop(b);
}

static void nonsense_meets_silence(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    char big[2048];

    memset(big, 'b', sizeof big);
    send_bytes(p, "", 0); /* ends the multishot */
    settle(b);
    assert_silence(p);
    assert_int_equal(b->n_knocks, 0);
    assert_int_equal(count_of(b, datagrams_refused), 1);
    send_bytes(p, big, sizeof big);
    settle(b);
    assert_silence(p);
    assert_int_equal(b->n_knocks, 0);
    assert_int_equal(count_of(b, datagrams_truncated), 1);
    b->silent = true;
    send_text(p, "what is this");
    assert_silence(p);
    assert_int_equal(b->n_knocks, 1);
    assert_int_equal(count_of(b, datagrams_refused), 2);
    b->silent = false;
    send_text(p, "still there?");
    assert_non_null(hear(p));
    stop(b);
}

static void the_longest_datagram_that_fits(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    char bytes[2048];
    unsigned before = 0;
    size_t most = 0;

    enter(p);
    memset(bytes, '\n', sizeof bytes);
    for (size_t len = 1800; len < sizeof bytes; len++) {
        send_bytes(p, bytes, len);
        settle(b);
        unsigned truncated = count_of(b, datagrams_truncated);
        if (truncated == before)
            most = len;
        else
            assert_true(most && len > most); /* all that are longer */
        before = truncated;
        b->units[0] = 0;
    }
    assert_in_range(most, 1900, 2000);
    stop(b);
}

static void some_ports_are_never_answered(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    static const unsigned ports[] = {19, 53, 123, 1900, 11211};
    unsigned tried = 0;

    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
        struct peer *p = peer_at(b, "127.0.0.3", ports[i], "127.0.0.1");
        if (!p)
            continue; /* taken on this machine, or not ours to take */
        tried++;
        send_text(p, "hello");
        assert_silence(p);
        assert_int_equal(count_of(b, datagrams_refused), tried);
    }
    assert_int_equal(b->n_knocks, 0);
    assert_true(tried >= 1);
    struct peer *p = peer_at(b, "127.0.0.3", 11212, "127.0.0.1");
    if (p) {
        send_text(p, "hello");
        assert_non_null(hear(p));
    }
    stop(b);
}

static unsigned answers(struct peer *p)
{
    unsigned n = 0;

    while (hear(p))
        n++;
    return n;
}

static void answers_are_limited_per_prefix(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *one = peer_at(b, "127.0.0.5", 0, "127.0.0.1");
    struct peer *near = peer_at(b, "127.0.0.77", 0, "127.0.0.1");
    struct peer *far = peer_at(b, "127.0.9.5", 0, "127.0.0.1");

    for (unsigned i = 0; i < 20; i++)
        send_text(one, "hello");
    assert_int_equal(answers(one), 8);
    assert_int_equal(b->n_knocks, 8); /* who is over is not even heard: no guessing */
    assert_int_equal(count_of(b, datagrams_refused), 12);
    send_text(near, "hello");
    assert_int_equal(answers(near), 0);
    send_text(far, "hello");
    assert_int_equal(answers(far), 1);
    pass(b, 500);
    for (unsigned i = 0; i < 5; i++)
        send_text(one, "hello");
    assert_int_equal(answers(one), 2);
    /* What is not answered costs as much. */
    pass(b, 60000);
    b->silent = true;
    for (unsigned i = 0; i < 8; i++)
        send_text(one, "hello");
    b->silent = false;
    send_text(one, "hello");
    assert_int_equal(answers(one), 0);
    stop(b);
}

static void who_proves_himself_costs_nothing(void **state)
{
    struct bench *b = prepare(state);
    b->limits.datagram_sessions = 64;
    start(b, "127.0.0.1");
    struct peer *peers[8];
    char cookies[8][10];

    for (unsigned i = 0; i < 8; i++) {
        peers[i] = peer_at(b, "127.0.0.5", 0, "127.0.0.1");
        learn_cookie(peers[i], cookies[i]);
        pass(b, 250);
    }
    pass(b, 250);
    for (unsigned i = 0; i < 8; i++)
        greet_with(peers[i], cookies[i], "");
    assert_int_equal(b->n_opened, 8);
    stop(b);
}

static void answers_are_limited_in_total(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    unsigned heard = 0, asked = 0;

    for (unsigned i = 0; i < 1500; i++) {
        char from[32];
        (void)snprintf(from, sizeof from, "10.%u.%u.1", i / 250, i % 250);
        struct peer *p = peer_at(b, from, 5000, "127.0.0.1");
        for (unsigned n = 0; n < 2; n++, asked++)
            send_bytes(p, "hello", 5);
        settle(b);
        heard += answers(p);
        sim_udp_close(p->udp);
        b->n_peers--;
    }
    assert_int_equal(heard, 1000);
    assert_int_equal(count_of(b, datagram_answers), 1000);
    assert_int_equal(count_of(b, datagrams_refused), asked - 1000);
    stop(b);
}

/* ---- sessions --------------------------------------------------------------------------- */

static void silence_ends_a_session(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");

    enter(p);
    pass(b, TIMEOUT_MS - 1);
    assert_int_equal(b->n_gone, 0);
    send_bytes(p, "", 0); /* an empty one is a sign of life */
    settle(b);
    pass(b, TIMEOUT_MS - 1);
    assert_int_equal(b->n_gone, 0);
    pass(b, 1);
    assert_heard(p, "bye\n");
    assert_int_equal(b->n_gone, 1);
    assert_string_equal(b->reason, "silent for 75 s");
    assert_int_equal(count_of(b, datagram_sessions_expired), 1);
    assert_int_equal(b->totals.connections, 0);
    send_text(p, "hello?"); /* a stranger again */
    assert_int_equal(strlen(hear(p)), 10);
    stop(b);
}

static void who_is_held_back_is_alive(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct roda_conn *c = enter(p);

    connection_hold(c);
    pass(b, TIMEOUT_MS);
    pass(b, TIMEOUT_MS * 2);
    assert_int_equal(b->n_gone, 0);
    connection_release(c);
    pass(b, TIMEOUT_MS);
    pass(b, TIMEOUT_MS);
    assert_int_equal(b->n_gone, 1);
    stop(b);
}

static void quit_says_goodbye(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");

    enter(p);
    send_text(p, "quit\nnot seen");
    assert_string_equal(b->units, "quit|");
    assert_heard(p, "bye\n");
    assert_int_equal(b->n_gone, 1);
    stop(b);
}

static void a_session_that_ends_as_it_opens(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    char cookie[10];

    b->abort_at_once = true;
    learn_cookie(p, cookie);
    greet_with(p, cookie, "hi");
    assert_int_equal(b->n_opened, 1);
    assert_int_equal(b->n_gone, 1);
    assert_string_equal(b->units, "");
    assert_int_equal(b->net.open, 0);
    stop(b);
}

static void there_are_so_many_sessions(void **state)
{
    struct bench *b = prepare(state);
    b->limits.datagram_sessions = 2;
    start(b, "127.0.0.1");
    struct peer *a = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct peer *c = peer_at(b, "127.0.1.1", 0, "127.0.0.1");
    struct peer *d = peer_at(b, "127.0.2.1", 0, "127.0.0.1");
    char cookie[10];

    enter(a);
    enter(c);
    learn_cookie(d, cookie);
    greet_with(d, cookie, "hi");
    assert_int_equal(b->n_opened, 2);
    assert_int_equal(count_of(b, connections_refused_full), 1);
    send_text(a, "quit");
    greet_with(d, cookie, "hi");
    assert_int_equal(b->n_opened, 3);
    assert_int_equal(b->totals.connections, 2);
    stop(b);
}

static void sessions_count_as_connections(void **state)
{
    struct bench *b = prepare(state);
    b->limits.max_connections = 1;
    start(b, "127.0.0.1");
    struct peer *a = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct peer *c = peer_at(b, "127.0.1.1", 0, "127.0.0.1");
    char cookie[10];

    enter(a);
    learn_cookie(c, cookie);
    greet_with(c, cookie, "hi");
    assert_int_equal(b->n_opened, 1);
    stop(b);
}

static void memory_runs_out(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    char cookie[10];
    unsigned failures = 0;

    learn_cookie(p, cookie);
    while (!b->n_opened) {
        failures++;
        assert_true(failures < 20);
        memory_fail_at(failures, 0);
        greet_with(p, cookie, "");
        memory_fail_at(0, 0);
    }
    assert_true(failures > 2);
    assert_int_equal(b->totals.connections, 1);
    send_text(p, "echo hi");
    assert_heard(p, "hi\n");
    stop(b);
}

static void opening_may_fail(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct listener second = {.address = &b->address, .net = &b->net, .index = 1};
    unsigned failures = 0;
    int r;

    do {
        memory_fail_at(++failures, 0);
        r = datagram_open(&second);
        memory_fail_at(0, 0);
        assert_true(r == 0 || (r == -ENOMEM && !second.datagram));
    } while (r);
    assert_true(failures >= 3);
    datagram_free(&second);
    datagram_free(&second);
    stop(b);
}

/* ---- input ------------------------------------------------------------------------------ */

static void long_lines_cost_themselves(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    char text[1500];

    enter(p);
    memset(text, 'l', sizeof text);
    text[0] = text[2] = '\n';
    text[3 + UNIT_MAX + 1] = '\n'; /* one too long, and then the fitting one */
    text[3 + UNIT_MAX + 2 + UNIT_MAX] = '\n';
    text[3 + UNIT_MAX + 2 + UNIT_MAX + 1] = 0;
    send_text(p, text);
    assert_int_equal(b->n_oversize, 1);
    assert_int_equal(b->oversize_bytes, UNIT_MAX + 1);
    assert_memory_equal(b->units, "|l|", 3);
    assert_int_equal(strlen(b->units), 3 + UNIT_MAX + 1);
    /* Without any line end, 14 times the limit: its datagram ends it. */
    b->units[0] = 0;
    memset(text, 'l', sizeof text);
    send_bytes(p, text, sizeof text);
    send_text(p, "and on");
    assert_int_equal(b->n_oversize, 2);
    assert_int_equal(b->oversize_bytes, sizeof text);
    assert_string_equal(b->units, "and on|");
    assert_int_equal(b->n_gone, 0);
    stop(b);
}

/* An answer to it would overtake, and take the place of the one that waits. */
static void what_is_too_long_for_a_buffer_is_lost_while_others_wait(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct roda_conn *c = enter(p);
    char big[2048];

    memset(big, 'b', sizeof big);
    connection_hold(c);
    send_bytes(p, big, sizeof big);
    settle(b);
    assert_int_equal(count_of(b, datagrams_truncated), 1);
    assert_int_equal(b->n_oversize, 0);
    connection_release(c);
    settle(b);
    assert_int_equal(b->n_oversize, 0);
    send_bytes(p, big, sizeof big);
    settle(b);
    assert_int_equal(count_of(b, datagrams_truncated), 2);
    assert_int_equal(b->n_oversize, 1);
    stop(b);
}

static void what_may_not_be_decoded_waits(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct roda_conn *c = enter(p);
    char text[100];

    connection_hold(c);
    send_text(p, "one\ntwo");
    send_text(p, "three");
    assert_string_equal(b->units, "");
    memset(text, 'w', sizeof text);
    for (unsigned i = 0; i < 5; i++)
        send_bytes(p, text, 90); /* 14 + 3 * 91 <= 300 */
    settle(b);
    assert_int_equal(count_of(b, datagrams_overrun), 2);
    connection_release(c);
    settle(b);
    assert_memory_equal(b->units, "one|two|three|wwww", 18);
    assert_int_equal(strlen(b->units), 14 + 3 * 91);

    b->units[0] = 0;
    b->keep = true;
    send_text(p, "kept\nbehind");
    assert_string_equal(b->units, "");
    b->keep = false;
    connection_resume(c);
    settle(b);
    assert_string_equal(b->units, "kept|behind|");
    stop(b);
}

static void raw_datagrams_do_not_run_together(void **state)
{
    struct bench *b = prepare(state);
    b->settings.protocol = &raw;
    start(b, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct roda_conn *c;
    char cookie[10];

    send_text(p, "hello");
    (void)snprintf(cookie, sizeof cookie, "%s", hear(p)); /* 9 bytes: raw units have no end */
    greet_with(p, cookie, "first");
    c = b->last;
    assert_string_equal(b->units, "first|");
    connection_hold(c);
    send_text(p, "second");
    send_text(p, "third");
    assert_int_equal(count_of(b, datagrams_overrun), 1);
    connection_release(c);
    settle(b);
    send_text(p, "fourth");
    assert_string_equal(b->units, "first|second|fourth|");
    stop(b);
}

static void a_rest_from_elsewhere_is_not_read(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    char cookie[10];

    b->foreign_rest = true;
    learn_cookie(p, cookie);
    greet_with(p, cookie, "hi");
    assert_int_equal(b->n_opened, 1);
    assert_string_equal(b->units, "");
    stop(b);
}

/* ---- output ----------------------------------------------------------------------------- */

/* Every datagram holds whole units of size bytes, at most 1200 bytes of them, in order. */
static unsigned check_packing(struct peer *p, unsigned units, unsigned size)
{
    unsigned datagrams = 0, unit = 0;
    const char *heard;

    while ((heard = hear(p))) {
        size_t len = strlen(heard);
        assert_true(len <= 1200);
        assert_int_equal(len % size, 0);
        for (size_t at = 0; at < len; at += size, unit++) {
            char number[5];
            (void)snprintf(number, sizeof number, "%04u", unit);
            assert_memory_equal(heard + at, number, 4);
            assert_int_equal(heard[at + size - 1], '\n');
        }
        datagrams++;
    }
    assert_int_equal(unit, units);
    return datagrams;
}

static void whole_units_are_packed(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct peer *q = peer_at(b, "127.0.0.1", 0, "127.0.0.1");

    enter(p);
    send_text(p, "many 100 50");
    assert_int_equal(check_packing(p, 100, 50), 5); /* 24 each */
    send_text(p, "many 3 1200");
    assert_int_equal(check_packing(p, 3, 1200), 3);
    send_text(p, "many 7 601");
    assert_int_equal(check_packing(p, 7, 601), 7);
    /* Two turns to say, so that neither queue is one piece. */
    enter(q);
    send_bytes(p, "many 30 50", 10);
    send_bytes(q, "many 30 50", 10);
    settle(b);
    assert_int_equal(check_packing(p, 30, 50), 2);
    assert_int_equal(check_packing(q, 30, 50), 2);
    stop(b);
}

static void many_pieces_of_two_sessions(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct peer *q = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct roda_conn *c = enter(p), *d = enter(q);

    for (unsigned i = 0; i < 30; i++) { /* in turn: nothing of c's is contiguous */
        char text[50];
        (void)snprintf(text, sizeof text, "%04uxxxx", i);
        say(c, text);
        say(d, text);
    }
    settle(b);
    assert_int_equal(check_packing(p, 30, 9), 4); /* 8 pieces each */
    assert_int_equal(check_packing(q, 30, 9), 4);
    stop(b);
}

static void a_unit_that_is_too_long_is_cut(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    const char *heard;

    enter(p);
    send_text(p, "many 1 3000");
    heard = hear(p);
    assert_non_null(heard);
    assert_int_equal(strlen(heard), 1200);
    assert_int_equal(heard[1199], '\n');
    assert_silence(p);
    stop(b);
}

static void replies_come_from_the_address_that_was_asked(void **state)
{
    static const struct {
        const char *bind, *from, *at;
    } cases[] = {
        {"0.0.0.0", "127.0.0.1", "127.0.0.2"},
        {"0.0.0.0", "127.0.0.1", "127.0.0.1"},
        {"::", "127.0.0.1", "127.0.0.2"},
        {"::", "127.0.0.1", "127.0.0.1"},
        {"::", "::1", "::1"},
        {"::1", "::1", "::1"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bench *b = begin(state, cases[i].bind);
        struct peer *p = peer_at(b, cases[i].from, 0, cases[i].at);
        char cookie[10];

        learn_cookie(p, cookie);
        if (strchr(cases[i].at, ':'))
            assert_memory_equal(&p->answered_from.v6.sin6_addr, &p->server.v6.sin6_addr, 16);
        else
            assert_int_equal(p->answered_from.v4.sin_addr.s_addr, p->server.v4.sin_addr.s_addr);
        greet_with(p, cookie, "echo hi");
        memset(&p->answered_from, 0, sizeof p->answered_from);
        assert_heard(p, "hi\n");
        if (strchr(cases[i].at, ':'))
            assert_memory_equal(&p->answered_from.v6.sin6_addr, &p->server.v6.sin6_addr, 16);
        else
            assert_int_equal(p->answered_from.v4.sin_addr.s_addr, p->server.v4.sin_addr.s_addr);
        stop(b);
    }
}

static void a_session_is_with_one_of_our_addresses(void **state)
{
    struct bench *b = begin(state, "::");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct roda_conn *c = enter(p);
    union address peer;
    socklen_t len;
    char text[64];

    connection_peer(c, &peer, &len);
    assert_int_equal(peer.any.sa_family, AF_INET);
    assert_memory_equal(roda_conn_peer_text(c, text, sizeof text), "127.0.0.1 port ", 15);
    address_from(&p->server, &len, "127.0.0.2", ntohs(b->address.address.v4.sin_port));
    send_text(p, "echo hi");
    assert_string_equal(b->units, "");
    assert_int_equal(strlen(hear(p)), 10); /* a cookie */
    stop(b);
}

static void more_than_the_rate_is_dropped(void **state)
{
    struct bench *b = prepare(state);
    b->settings.session_bytes = (struct roda_rate){.count = 1000, .per_ms = 1000, .burst = 3000};
    start(b, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    unsigned n = 0;

    enter(p);
    send_text(p, "many 6 1000");
    while (hear(p))
        n++;
    assert_int_equal(n, 3);
    assert_int_equal(count_of(b, datagrams_dropped), 3);
    assert_int_equal(b->last->queued_bytes, 0); /* neither waits nor queues */
    pass(b, 500);
    send_text(p, "many 1 1000");
    assert_silence(p);
    pass(b, 500);
    send_text(p, "many 1 1000");
    assert_non_null(hear(p));
    stop(b);
}

static void what_the_kernel_refuses_is_lost(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct sim_faults faults = in_order();

    enter(p);
    faults.send_enobufs = 1.0;
    sim_set_faults(b->fake, &faults);
    send_text(p, "many 3 1000");
    assert_int_equal(count_of(b, datagrams_dropped), 3);
    faults.send_enobufs = 0;
    faults.send_eagain = 1.0;
    sim_set_faults(b->fake, &faults);
    send_text(p, "echo lost");
    assert_int_equal(count_of(b, datagrams_dropped), 4);
    sim_faults_stop(b->fake);
    send_text(p, "echo hi");
    assert_heard(p, "hi\n");
    assert_silence(p);
    stop(b);
}

/* 64 SQEs and 256 transmits, and more to say than both: it goes on in the next turns. */
static void a_full_submission_queue_only_delays(void **state)
{
    struct bench *b = prepare(state);
    b->settings.send_queue_bytes = 1 << 20;
    start(b, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    unsigned n = 0;

    enter(p);
    send_text(p, b->fake ? "many 600 1000" : "many 80 1000"); /* what a socket takes by default */
    while (hear(p))
        n++;
    assert_int_equal(n, b->fake ? 600 : 80);
    assert_true(b->ring.counters.sq_full > 0);
    assert_int_equal(count_of(b, datagrams_dropped), 0);
    stop(b);
}

static void a_full_queue_is_thrown_away(void **state)
{
    struct bench *b = prepare(state);
    b->settings.send_queue_bytes = 5000;
    start(b, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");

    enter(p);
    send_text(p, "many 6 1000");
    assert_silence(p);
    assert_true(count_of(b, datagrams_dropped) > 0);
    assert_int_equal(b->n_gone, 0);
    send_text(p, "echo hi");
    assert_heard(p, "hi\n");
    stop(b);
}

static int two_pieces;

static void fill(struct roda_ctx *x, void *arg, int result)
{
    struct roda_place **place = arg;
    struct roda_out *out;

    (void)x;
    assert_int_equal(result, 0);
    if (two_pieces++ < 2) {
        out = roda_place_out(*place);
        roda_out_printf(out, "piece %d", two_pieces);
        roda_out_unit(out);
    } else {
        roda_place_end(*place);
    }
}

static void places_are_filled_in_order(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct roda_conn *c = enter(p);
    struct roda_place *place;
    char all[256] = "";
    const char *heard;

    two_pieces = 0;
    say(c, "before");
    assert_int_equal(roda_place_new(NULL, c, fill, &place, &place), 0);
    say(c, "behind");
    settle(b);
    while ((heard = hear(p)))
        strcat(all, heard);
    assert_string_equal(all, "before\npiece 1\npiece 2\nbehind\n");
    stop(b);
}

/* ---- the receive ------------------------------------------------------------------------ */

static void the_receive_goes_on_after_anything(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");

    enter(p);
    for (unsigned i = 0; i < 50; i++) {
        send_bytes(p, "", 0);
        if (i % 3 == 0)
            send_bytes(p, "x", 1);
    }
    settle(b);
    assert_int_equal(strlen(b->units), 17 * 2);
    assert_true(b->listener.armed);
    stop(b);
}

static void faults_of_the_receive(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");
    struct sim_faults faults = in_order();

    enter(p);
    faults.recvmsg_ends = 0.3;
    faults.receive_enobufs = 0.3;
    faults.datagram_refused = 0.3;
    faults.cancel_lies = 0.5;
    faults.delay = 0.3;
    faults.delay_min_ns = 1000;
    faults.delay_max_ns = 3000000;
    sim_set_faults(b->fake, &faults);
    for (unsigned i = 0; i < 200; i++)
        send_text(p, "x");
    assert_int_equal(strlen(b->units), 400);
    assert_true(count_of(b, receive_buffers_empty) > 0);
    stop(b);
}

static void a_closed_listener_still_says_goodbye(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    struct peer *p = peer_at(b, "127.0.0.1", 0, "127.0.0.1");

    enter(p);
    listener_close(&b->listener);
    settle(b);
    assert_true(listener_quiet(&b->listener));
    assert_false(b->listener.armed);
    net_close_all(&b->net, "the broker stops");
    settle(b);
    assert_heard(p, "bye\n");
    assert_int_equal(b->n_gone, 1);
    stop(b);
}

static void stale_completions_are_counted(void **state)
{
    struct bench *b = begin(state, "127.0.0.1");
    static const struct ring_completion strange[] = {
        {.slot = 7, .generation = 1},           {.slot = 0, .generation = 9},
        {.slot = 255, .generation = 1},         {.slot = 256, .generation = 1},
        {.slot = 0x80000000u, .generation = 1}, {.slot = 0x80000007u, .generation = 1},
    };

    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        if (i < 2)
            datagram_on_recv(&b->net, &strange[i]);
        else
            datagram_on_send(&b->net, &strange[i]);
    }
    assert_int_equal(b->ring.counters.stale, sizeof strange / sizeof *strange);
    assert_int_equal(b->listener.in_flight, 1);
    stop(b);
}

#define ON_FAKE(test)                                                                              \
    {                                                                                              \
#test " (fake)", test, NULL, NULL, &fake_kernel                                            \
    }
#define ON_BOTH(test) {#test " (real)", test, NULL, NULL, &real_kernel}, ON_FAKE(test)

int main(void)
{
    const uint8_t key[HASH_KEY_BYTES] = "a key for tests";
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_cookie_opens_a_session),
        ON_BOTH(a_forged_cookie_opens_nothing),
        ON_BOTH(a_cookie_lives_for_two_slots),
        ON_BOTH(cookies_depend_on_everything),
        ON_BOTH(an_answer_is_cut_at_10_bytes),
        ON_BOTH(nonsense_meets_silence),
        ON_BOTH(the_longest_datagram_that_fits),
        ON_BOTH(some_ports_are_never_answered),
        ON_BOTH(answers_are_limited_per_prefix),
        ON_BOTH(who_proves_himself_costs_nothing),
        ON_FAKE(answers_are_limited_in_total),
        ON_BOTH(silence_ends_a_session),
        ON_BOTH(who_is_held_back_is_alive),
        ON_BOTH(quit_says_goodbye),
        ON_BOTH(a_session_that_ends_as_it_opens),
        ON_BOTH(there_are_so_many_sessions),
        ON_BOTH(sessions_count_as_connections),
        ON_BOTH(memory_runs_out),
        ON_BOTH(opening_may_fail),
        ON_BOTH(long_lines_cost_themselves),
        ON_BOTH(what_is_too_long_for_a_buffer_is_lost_while_others_wait),
        ON_BOTH(what_may_not_be_decoded_waits),
        ON_BOTH(raw_datagrams_do_not_run_together),
        ON_BOTH(a_rest_from_elsewhere_is_not_read),
        ON_BOTH(whole_units_are_packed),
        ON_BOTH(many_pieces_of_two_sessions),
        ON_BOTH(a_unit_that_is_too_long_is_cut),
        ON_BOTH(replies_come_from_the_address_that_was_asked),
        ON_BOTH(a_session_is_with_one_of_our_addresses),
        ON_BOTH(more_than_the_rate_is_dropped),
        ON_FAKE(what_the_kernel_refuses_is_lost),
        ON_BOTH(a_full_submission_queue_only_delays),
        ON_BOTH(a_full_queue_is_thrown_away),
        ON_BOTH(places_are_filled_in_order),
        ON_BOTH(the_receive_goes_on_after_anything),
        ON_FAKE(faults_of_the_receive),
        ON_BOTH(a_closed_listener_still_says_goodbye),
        ON_BOTH(stale_completions_are_counted),
    };

    hash_set_key(key);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
