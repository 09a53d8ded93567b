#ifndef RODA_TEST_RATELIMIT_FLOOD_H
#define RODA_TEST_RATELIMIT_FLOOD_H
/* What the tests of the plugin "ratelimit" share: clients that flood, and a plugin to flood, which
 * owns messages and has a room on the last worker. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testhost.h"

extern const struct roda_plugin ratelimit_plugin;

/* ---- the hall: one room for all names, and dear commands ---------------------------------- */

static inline int flood_number(const char *text)
{
    return (int)strtol(text, NULL, 10);
}

/* TEXT and NOTICE go through the lane of the home; JOIN and the rest are answered at once; TOPIC is
 * as dear as its text says. The protocol "many" makes as many TEXTs of a unit as it says. */
static struct roda_lane *hall_lane;

static inline void hall_leave(struct roda_ctx *x, void *arg, struct roda_msg *msg, int result)
{
    struct roda_workers nobody = {.bits = {0}};

    (void)arg;
    (void)result;
    (void)roda_distribute(x, msg, &nobody, 1);
}

static inline int hall_start(struct roda_ctx *x)
{
    return x->worker == x->n_workers - 1 ? roda_lane_new(x, hall_leave, NULL, &hall_lane) : 0;
}

static inline void hall_stop(struct roda_ctx *x)
{
    if (x->worker == x->n_workers - 1)
        roda_lane_free(hall_lane);
}

static inline int hall_handle(struct roda_ctx *x, struct roda_event *ev)
{
    char text[16] = "";

    if (ev->msg->kind == RODA_TEXT || ev->msg->kind == RODA_NOTICE)
        return roda_route(x, ev, x->n_workers - 1, 1);
    if (ev->msg->kind == RODA_TOPIC) {
        memcpy(text, ev->msg->text.ptr, ev->msg->text.len < 15 ? ev->msg->text.len : 15);
        roda_charge(x, ev->conn, (uint32_t)flood_number(text));
    }
    if (ev->conn)
        roda_answer(x, ev->conn, RODA_OK, RODA_STR(""), ev->msg);
    return RODA_HANDLED;
}

static inline void hall_arrive(struct roda_ctx *x, struct roda_event *ev, uint64_t destination)
{
    (void)destination;
    (void)roda_lane_publish(x, hall_lane, roda_msg_ref(ev->msg));
}

static inline void hall_distributed(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination)
{
    (void)x;
    (void)msg;
    (void)destination;
}

static inline int many_decode(struct roda_ctx *x, struct roda_conn *c, struct roda_str unit)
{
    char buf[8] = "";

    memcpy(buf, unit.ptr, unit.len < 7 ? unit.len : 7);
    for (int n = flood_number(buf); n > 0; n--) {
        struct roda_msg_init init = {.size = sizeof(init),
                                     .kind = RODA_TEXT,
                                     .from = roda_conn_getid(c),
                                     .to = RODA_STR("hall"),
                                     .text = RODA_STR("again")};
        roda_submit(x, c, roda_msg_make(x, &init, NULL));
    }
    return RODA_TAKEN;
}

static inline void many_encode(struct roda_ctx *x, const struct roda_msg *msg, uint32_t variant,
                               struct roda_out *out)
{
    (void)x;
    (void)msg;
    (void)variant;
    (void)out;
}

static inline void many_answer(struct roda_ctx *x, struct roda_conn *c,
                               const struct roda_answer *answer)
{
    (void)x;
    roda_out_printf(roda_conn_out(c), "answer|%u", answer->code);
    roda_out_unit(roda_conn_out(c));
}

static const struct roda_protocol hall_protocols[] = {
    {.name = "many", .decode = many_decode, .encode = many_encode, .answer = many_answer},
    {.name = NULL},
};

static const struct roda_plugin hall_plugin = {
    .abi = RODA_ABI,
    .size = sizeof(struct roda_plugin),
    .name = "hall",
    .summary = "a room",
    .version = "1",
    .protocol_size = sizeof(struct roda_protocol),
    .protocols = hall_protocols,
    .kinds = RODA_KIND_BIT(RODA_TEXT) | RODA_KIND_BIT(RODA_NOTICE) | RODA_KIND_BIT(RODA_TOPIC) |
             RODA_KIND_BIT(RODA_JOIN),
    .start = hall_start,
    .stop = hall_stop,
    .handle = hall_handle,
    .arrive = hall_arrive,
    .distributed = hall_distributed,
};

/* ---- everybody has a name, and some an account ---------------------------------------------- */

/* Who connects from port P is called nP; ports from 50000 on belong to accounts, those of one
 * hundred to one account. */
static inline roda_verdict name_clients(void *arg, enum testhost_stage stage, struct roda_ctx *x,
                                        struct roda_event *ev)
{
    struct roda_str fields[RODA_PERSON_FIELDS];
    char text[80], nick[24], account[24] = "";
    int port;

    (void)arg;
    if (stage != TESTHOST_ACCEPT)
        return RODA_PASS;
    (void)roda_conn_peer_text(ev->conn, text, sizeof(text));
    port = flood_number(strrchr(text, ' ') + 1);
    (void)snprintf(nick, sizeof(nick), "n%d", port);
    if (port >= 50000)
        (void)snprintf(account, sizeof(account), "account%d", port / 100);
    for (size_t i = 0; i < RODA_PERSON_FIELDS; i++)
        fields[i] = RODA_STR("");
    fields[RODA_PERSON_NICK] = (struct roda_str){nick, strlen(nick)};
    fields[RODA_PERSON_ACCOUNT] = (struct roda_str){account, strlen(account)};
    roda_conn_set_person(ev->conn, roda_person_make(x, 0, fields));
    return RODA_PASS;
}

/* ---- a host with the limits of the test ----------------------------------------------------- */

static inline struct testhost *flood_new(uint32_t n_workers, const char *conf)
{
    struct testhost *h = testhost_new(n_workers);

    testhost_load_filter(h, name_clients, NULL);
    if (testhost_load(h, &ratelimit_plugin, conf))
        fail_msg("%s", testhost_error(h));
    assert_int_equal(testhost_load(h, &hall_plugin, NULL), 0);
    return h;
}

/* Every limit is off, unless conf says otherwise. */
static inline struct testhost *flood_start(uint32_t n_workers, const char *conf)
{
    static const char *const names[] = {"messages =",        "registered_messages =",
                                        "bytes =",           "address_messages =",
                                        "joins =",           "address_connections =",
                                        "address_connects ="};
    static const char *const off[] = {"off", "off", "off", "off", "off", "0", "off"};
    char text[2048];
    struct testhost *h;
    size_t len = (size_t)snprintf(text, sizeof(text), "%s", conf);

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        const char *at = strstr(conf, names[i]);
        while (at && at != conf && at[-1] != '\n')
            at = strstr(at + 1, names[i]);
        if (!at)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s %s\n", names[i], off[i]);
    }
    h = flood_new(n_workers, text);
    if (testhost_start(h))
        fail_msg("%s", testhost_error(h));
    return h;
}

static inline void flood_stop(struct testhost *h)
{
    assert_int_equal(testhost_stop(h), 0);
    testhost_free(h);
}

static inline struct testhost_conn *flood_client(struct testhost *h, uint32_t worker,
                                                 const char *address, uint16_t port)
{
    struct testhost_conn *c = testhost_connect(h, worker, "plain", "tcp");

    testhost_set_peer(c, address, port);
    assert_true(testhost_run(h));
    return c;
}

static inline void flood_send(struct testhost_conn *c, const char *line, size_t n)
{
    while (n--)
        testhost_input(c, line);
}

/* Takes what has come, and counts the units that begin so. */
static inline size_t flood_heard(struct testhost_conn *c, const char *begin)
{
    const char *unit;
    size_t n = 0;

    while ((unit = testhost_unit(c)))
        n += !strncmp(unit, begin, strlen(begin));
    return n;
}

static inline void flood_hears(struct testhost_conn *c, const char *wanted)
{
    const char *unit = testhost_unit(c);

    assert_non_null(unit);
    assert_string_equal(unit, wanted);
}

#endif
