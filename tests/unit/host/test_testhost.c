/* The fake core itself: what <roda/plugin.h> promises, seen from plugins of this test. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "testhost.h"

/* ---- an owner: everybody is in every room; a room's first letter is its home ------------ */

#define HALL_CONNS 16u
#define HALL_ROOMS 8u

struct hall_state {
    struct roda_conn *conns[HALL_CONNS];
    size_t n;
    struct {
        uint64_t destination;
        struct roda_lane *lane;
    } rooms[HALL_ROOMS];
    struct roda_msg *kept; /* "keep": handled, answered by the test */
    roda_conn_id kept_from;
    char seen[512]; /* texts that lane functions saw */
    int last_result;
};

enum { HALL_OPENED, HALL_SHOWN };
static const struct roda_metric hall_metrics[] = {
    [HALL_OPENED] = {"hall_opened_total", RODA_COUNTER, "connections opened"},
    [HALL_SHOWN] = {"hall_shown_total", RODA_COUNTER, "messages fanned out"},
    {NULL, 0, NULL},
};

static void hall_opened(struct roda_ctx *x, struct roda_conn *c)
{
    struct hall_state *s = x->state;
    const char *nicks[] = {"ana", "bob", "eva", "kim", "leo", "mia", "noa", "ole"};
    struct roda_str fields[RODA_PERSON_FIELDS] = {{"", 0}, {"", 0}, {"", 0},
                                                  {"", 0}, {"", 0}, {"plain", 5}};

    fields[RODA_PERSON_NICK] = (struct roda_str){nicks[(x->worker * 4 + s->n) % 8], 3};
    roda_conn_set_person(c, roda_person_make(x, 0, fields));
    s->conns[s->n++] = c;
    roda_count(x, HALL_OPENED, 1);
}

static void hall_closed(struct roda_ctx *x, struct roda_conn *c, const char *reason, int shutdown)
{
    struct hall_state *s = x->state;

    for (size_t i = 0; i < s->n; i++)
        if (s->conns[i] == c)
            s->conns[i] = s->conns[--s->n];
    roda_log(x, RODA_LOG_INFO, "closed: %s%s", reason, shutdown ? " (shutdown)" : "");
}

static int hall_handle(struct roda_ctx *x, struct roda_event *ev)
{
    struct hall_state *s = x->state;
    struct roda_str to = ev->msg->to, text = ev->msg->text;

    if (!to.len) {
        roda_refuse(x, ev, RODA_E_NO_ROOM, "to whom");
        return RODA_HANDLED;
    }
    if (text.len == 4 && !memcmp(text.ptr, "keep", 4)) {
        s->kept = roda_msg_ref(ev->msg);
        s->kept_from = ev->msg->from;
        return RODA_HANDLED;
    }
    if (ev->msg->kind == RODA_AWAY) { /* a barrier, as person events are */
        if (ev->conn && !roda_settled(ev->conn))
            return RODA_LATER;
        roda_answer(x, ev->conn, RODA_OK, RODA_STR("away"), ev->msg);
        return RODA_HANDLED;
    }
    return roda_route(x, ev, (uint32_t)(to.ptr[0] - '0') % x->n_workers, roda_hash_stable(to));
}

static void hall_lane(struct roda_ctx *x, void *arg, struct roda_msg *msg, int result)
{
    struct hall_state *s = x->state;
    struct roda_workers all = {{0}};
    size_t used = strlen(s->seen);

    (void)snprintf(s->seen + used, sizeof s->seen - used, "%.*s ", (int)msg->text.len,
                   msg->text.ptr);
    s->last_result = result;
    if (result < 0) {
        roda_lane_refuse(x, msg, RODA_E_STORAGE, RODA_STR("disk"));
        return;
    }
    for (uint32_t w = 0; w < x->n_workers; w++)
        RODA_WORKERS_ADD(&all, w);
    if (msg->text.len == 6 && !memcmp(msg->text.ptr, "nobody", 6))
        all = (struct roda_workers){{0}};
    roda_distribute(x, msg, &all, *(uint64_t *)arg);
}

static void hall_arrive(struct roda_ctx *x, struct roda_event *ev, uint64_t destination)
{
    struct hall_state *s = x->state;
    size_t i = 0;

    if (ev->msg->text.len == 6 && !memcmp(ev->msg->text.ptr, "banned", 6)) {
        roda_refuse(x, ev, RODA_E_BANNED, "banned from %.*s", (int)ev->msg->to.len,
                    ev->msg->to.ptr);
        return;
    }
    while (s->rooms[i].lane && s->rooms[i].destination != destination)
        i++;
    if (!s->rooms[i].lane) {
        s->rooms[i].destination = destination;
        if (roda_lane_new(x, hall_lane, &s->rooms[i].destination, &s->rooms[i].lane)) {
            roda_refuse(x, ev, RODA_E_MEMORY, "no memory");
            return;
        }
        roda_lane_set(s->rooms[i].lane, 77, 0, 0);
    }
    (void)roda_lane_publish(x, s->rooms[i].lane, roda_msg_ref(ev->msg));
}

static void hall_distributed(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination)
{
    struct hall_state *s = x->state;

    (void)destination;
    roda_count(x, HALL_SHOWN, 1);
    roda_fanout(x, msg, s->conns, s->n);
}

static void hall_stop(struct roda_ctx *x)
{
    struct hall_state *s = x->state;

    for (size_t i = 0; i < HALL_ROOMS; i++)
        roda_lane_free(s->rooms[i].lane);
}

static const struct roda_plugin hall_plugin = {
    .abi = RODA_ABI,
    .size = sizeof(struct roda_plugin),
    .name = "hall",
    .state_size = sizeof(struct hall_state),
    .metric_size = sizeof(struct roda_metric),
    .metrics = hall_metrics,
    .kinds = RODA_KIND_BIT(RODA_TEXT) | RODA_KIND_BIT(RODA_TYPING) | RODA_KIND_BIT(RODA_AWAY),
    .stop = hall_stop,
    .handle = hall_handle,
    .arrive = hall_arrive,
    .distributed = hall_distributed,
    .opened = hall_opened,
    .closed = hall_closed,
};

static struct hall_state *hall(struct testhost *h, uint32_t worker)
{
    return testhost_ctx(h, "hall", worker)->state;
}

/* ---- a filter that does what the test wants --------------------------------------------- */

struct wish {
    enum testhost_stage stage;
    roda_verdict verdict;
    uint64_t delay_ms;
    int once;  /* only the first time */
    int times; /* how often it was asked */
    uint64_t ticket;
    const char *replacement;
    const char *only; /* only for this text */
};

static roda_verdict wishes(void *arg, enum testhost_stage stage, struct roda_ctx *x,
                           struct roda_event *ev)
{
    struct wish *w = arg;

    if (stage != w->stage)
        return RODA_PASS;
    if (w->only && (ev->msg->text.len != strlen(w->only) ||
                    memcmp(ev->msg->text.ptr, w->only, ev->msg->text.len)))
        return RODA_PASS;
    if (w->times++ && w->once)
        return RODA_PASS;
    if (w->replacement) {
        struct roda_msg_init init = {.size = sizeof init,
                                     .kind = ev->msg->kind,
                                     .from = ev->msg->from,
                                     .token = ev->msg->token,
                                     .sender = ev->msg->sender,
                                     .to = ev->msg->to,
                                     .text = {w->replacement, strlen(w->replacement)}};
        return roda_replace(ev, roda_msg_make(x, &init, NULL));
    }
    switch (w->verdict) {
    case RODA_REJECT:
        return roda_reject(ev, RODA_E_RATE, "slow %s", "down");
    case RODA_DELAY:
        return roda_delay(ev, w->delay_ms);
    case RODA_DEFER:
        return stage == TESTHOST_SUBMIT ? roda_defer(ev, &w->ticket) : (roda_verdict)RODA_DEFER;
    default:
        return w->verdict;
    }
}

static struct testhost *start(uint32_t n_workers, struct wish *wish)
{
    struct testhost *h = testhost_new(n_workers);

    assert_int_equal(testhost_load(h, &hall_plugin, NULL), 0);
    if (wish)
        testhost_load_filter(h, wishes, wish);
    assert_int_equal(testhost_start(h), 0);
    return h;
}

static struct testhost_conn *join(struct testhost *h, uint32_t worker)
{
    struct testhost_conn *c = testhost_connect(h, worker, "plain", "tcp");

    assert_non_null(c);
    assert_true(testhost_run(h));
    return c;
}

static void say(struct testhost_conn *c, const char *room, const char *text)
{
    char line[256];

    (void)snprintf(line, sizeof line, "TEXT|%s||%s\n", room, text);
    testhost_input(c, line);
}

static void stop(struct testhost *h)
{
    assert_int_equal(testhost_stop(h), 0);
    testhost_free(h);
}

/* ---- the way of a message --------------------------------------------------------------- */

static void shown_once_in_order_with_numbers(void **state)
{
    struct testhost *h = start(3, NULL);
    struct testhost_conn *a = join(h, 0), *b = join(h, 1), *c = join(h, 2);

    (void)state;
    say(a, "1room", "hi");
    say(a, "1room", "again");
    testhost_run(h);
    say(b, "1room", "yes");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|0|TEXT|1|1|\nanswer|0|TEXT|2|2|\n"
                                            "TEXT|3|2|leo|1room||yes\n");
    assert_string_equal(testhost_output(b), "TEXT|1|0|ana|1room||hi\nTEXT|2|1|ana|1room||again\n"
                                            "answer|0|TEXT|1|3|\n");
    assert_string_equal(testhost_unit(c), "TEXT|1|0|ana|1room||hi");
    assert_string_equal(testhost_unit(c), "TEXT|2|1|ana|1room||again");
    assert_string_equal(testhost_unit(c), "TEXT|3|2|leo|1room||yes");
    assert_null(testhost_unit(c));
    assert_int_equal(testhost_metric(h, "hall", "hall_shown_total"), 9);
    assert_int_equal(testhost_metric(h, "hall", "hall_opened_total"), 3);
    stop(h);
}

static void presence_takes_no_number(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *a = join(h, 0), *b = join(h, 0);

    (void)state;
    say(a, "0r", "one");
    testhost_input(a, "TYPING|0r||\n");
    say(a, "0r", "two");
    testhost_run(h);
    assert_string_equal(testhost_output(b),
                        "TEXT|1|0|ana|0r||one\nTYPING|0|1|ana|0r||\nTEXT|2|1|ana|0r||two\n");
    stop(h);
}

static void answers_exactly_once(void **state)
{
    struct testhost *h = start(2, NULL);
    struct testhost_conn *a = join(h, 0);

    (void)state;
    testhost_input(a, "TEXT|||x\nTEXT|1r||banned\n40|1r||x\nTEXT|1r||nobody\n");
    testhost_run(h);
    assert_string_equal(testhost_output(a),
                        "answer|3|TEXT|1|0|to whom\n"
                        "answer|2|40|3|0|nobody carries out this kind of message\n"
                        "answer|9|TEXT|2|0|banned from 1r\nanswer|0|TEXT|4|1|\n");
    stop(h);
}

static void reply_is_a_barrier(void **state)
{
    struct testhost *h = start(2, NULL);
    struct testhost_conn *a = join(h, 0), *b = join(h, 1);

    (void)state;
    say(a, "1r", "x");
    testhost_input(a, "PING\n");
    testhost_turn_worker(h, 0); /* routed: under way */
    assert_string_equal(testhost_output(a), "");
    testhost_turn_worker(h, 1); /* published, the receipt is posted */
    assert_string_equal(testhost_output(b), "");
    testhost_turn_worker(h, 0); /* answer, receipt, PONG */
    assert_string_equal(testhost_output(a), "answer|0|TEXT|1|1|\nPONG\n");
    /* What B asks now cannot overtake x. */
    testhost_input(b, "PING\n");
    testhost_turn_worker(h, 1);
    assert_string_equal(testhost_output(b), "TEXT|1|0|ana|1r||x\nPONG\n");
    stop(h);
}

static void refusal_at_once_comes_before_a_reply(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *a = join(h, 0);

    (void)state;
    testhost_input(a, "TEXT|||x\nPING\n");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|3|TEXT|1|0|to whom\nPONG\n");
    stop(h);
}

static void one_destination_at_a_time(void **state)
{
    struct testhost *h = start(3, NULL);
    struct testhost_conn *a = join(h, 0), *b = join(h, 0);

    (void)state;
    say(a, "2far", "1");
    say(a, "0near", "2");
    say(a, "1mid", "3");
    say(a, "2far", "4");
    testhost_run(h);
    assert_string_equal(testhost_output(b), "TEXT|1|0|ana|2far||1\nTEXT|1|0|ana|0near||2\n"
                                            "TEXT|1|0|ana|1mid||3\nTEXT|2|1|ana|2far||4\n");
    stop(h);
}

static void owner_waits_until_settled(void **state)
{
    struct testhost *h = start(2, NULL);
    struct testhost_conn *a = join(h, 0);

    (void)state;
    testhost_input(a, "TEXT|1r||x\nAWAY|me||lunch\nTEXT|1r||y\n");
    testhost_turn_worker(h, 0);
    assert_string_equal(testhost_output(a), "");
    testhost_run(h);
    assert_string_equal(testhost_output(a),
                        "answer|0|TEXT|1|1|\nanswer|0|AWAY|2|0|away\nanswer|0|TEXT|3|2|\n");
    stop(h);
}

static void handled_is_under_way_until_answered(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *a = join(h, 0);

    (void)state;
    testhost_input(a, "TEXT|0r||keep\nPING\n");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "");
    struct roda_msg *kept = hall(h, 0)->kept;
    struct roda_ctx *x = testhost_ctx(h, "hall", 0);
    roda_answer(x, roda_conn_find(x, kept->from), RODA_E_TAKEN, RODA_STR("taken"), kept);
    roda_msg_unref(kept);
    assert_string_equal(testhost_output(a), ""); /* not inside the call */
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|8|TEXT|1|0|taken\nPONG\n");
    stop(h);
}

static void message_that_is_never_answered_is_a_complaint(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *a = join(h, 0);

    (void)state;
    testhost_input(a, "TEXT|0r||keep\n");
    testhost_run(h);
    roda_msg_unref(hall(h, 0)->kept);
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|1|TEXT|1|0|\n");
    assert_int_equal(testhost_complaints(h), 1);
    assert_non_null(strstr(testhost_complaint(h, 0), "never answered"));
    testhost_forgive(h);
    stop(h);
}

static void full_window_holds_a_message(void **state)
{
    struct testhost *h = start(2, NULL);
    struct testhost_conn *a = join(h, 0), *b = join(h, 0);

    (void)state;
    testhost_window(h, 0, 1, true);
    say(a, "1r", "x");
    testhost_input(a, "PING\n");
    say(b, "0r", "y");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "TEXT|1|0|bob|0r||y\n");
    testhost_window(h, 0, 1, false);
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|0|TEXT|1|1|\nPONG\n");
    stop(h);
}

static void under_way_is_bounded(void **state)
{
    struct testhost *h = start(2, NULL);
    struct testhost_conn *a = join(h, 0);

    (void)state;
    for (int i = 0; i < 100; i++)
        say(a, "1r", "x");
    testhost_turn_worker(h, 0);
    assert_int_equal(testhost_metric(h, "core", "messages_submitted_total"), 64);
    testhost_run(h);
    assert_int_equal(testhost_metric(h, "core", "messages_submitted_total"), 100);
    stop(h);
}

static void plugins_own_message_has_no_answer(void **state)
{
    struct testhost *h = start(2, NULL);
    struct testhost_conn *a = join(h, 1);
    struct roda_ctx *x = testhost_ctx(h, "hall", 0);
    struct roda_msg_init init = {.size = sizeof init,
                                 .kind = RODA_TEXT,
                                 .to = RODA_STR("1r"),
                                 .text = RODA_STR("news")};

    (void)state;
    roda_submit(x, NULL, roda_msg_make(x, &init, NULL));
    testhost_run(h);
    assert_string_equal(testhost_output(a), "TEXT|1|0||1r||news\n");
    stop(h);
}

/* ---- filters ---------------------------------------------------------------------------- */

static void submit_verdicts(void **state)
{
    struct wish wish = {.stage = TESTHOST_SUBMIT, .verdict = RODA_REJECT};
    struct testhost *h = start(1, &wish);
    struct testhost_conn *a = join(h, 0), *b = join(h, 0);

    (void)state;
    say(a, "0r", "1");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|15|TEXT|1|0|slow down\n");
    wish.verdict = RODA_DROP;
    say(a, "0r", "2");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|1|TEXT|2|0|\n");
    assert_string_equal(testhost_output(b), "");
    wish.replacement = "changed";
    say(a, "0r", "3");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|0|TEXT|3|1|\n");
    assert_string_equal(testhost_output(b), "TEXT|1|0|ana|0r||changed\n");
    stop(h);
}

static void delay_keeps_order_and_asks_again(void **state)
{
    struct wish wish = {.stage = TESTHOST_SUBMIT,
                        .verdict = RODA_DELAY,
                        .delay_ms = 500,
                        .once = 1};
    struct testhost *h = start(1, &wish);
    struct testhost_conn *a = join(h, 0), *b = join(h, 0);

    (void)state;
    say(a, "0r", "1");
    say(a, "0r", "2");
    testhost_input(a, "PING\n");
    testhost_advance_ms(h, 499);
    assert_string_equal(testhost_output(b), "");
    assert_int_equal(wish.times, 1);
    testhost_advance_ms(h, 1);
    assert_string_equal(testhost_output(b), "TEXT|1|0|ana|0r||1\nTEXT|2|1|ana|0r||2\n");
    assert_string_equal(testhost_output(a), "answer|0|TEXT|1|1|\nanswer|0|TEXT|2|2|\nPONG\n");
    assert_int_equal(wish.times, 3);
    stop(h);
}

static void delay_in_all_is_bounded(void **state)
{
    struct wish wish = {.stage = TESTHOST_SUBMIT, .verdict = RODA_DELAY, .delay_ms = 4000};
    struct testhost *h = start(1, &wish);
    struct testhost_conn *a = join(h, 0);

    (void)state;
    say(a, "0r", "1");
    testhost_advance_ms(h, 9999);
    assert_string_equal(testhost_output(a), "");
    testhost_advance_ms(h, 1);
    assert_string_equal(testhost_output(a), "answer|17|TEXT|1|0|held back for too long\n");
    stop(h);
}

static void defer_waits_for_resume(void **state)
{
    struct wish wish = {.stage = TESTHOST_SUBMIT, .verdict = RODA_DEFER, .only = "1"};
    struct testhost *h = start(1, &wish);
    struct testhost_conn *a = join(h, 0), *b = join(h, 0);
    struct roda_ctx *x = testhost_filter_ctx(h, 0);

    (void)state;
    say(a, "0r", "1");
    say(a, "0r", "2");
    testhost_run(h);
    assert_string_equal(testhost_output(b), "");
    assert_int_equal(roda_resume(x, wish.ticket + 1, RODA_PASS, 0, RODA_STR("")), -ESTALE);
    assert_int_equal(roda_resume(x, wish.ticket, RODA_PASS, 0, RODA_STR("")), 0);
    assert_int_equal(roda_resume(x, wish.ticket, RODA_PASS, 0, RODA_STR("")), -ESTALE);
    assert_string_equal(testhost_output(b), "");
    testhost_run(h);
    assert_string_equal(testhost_output(b), "TEXT|1|0|ana|0r||1\nTEXT|2|1|ana|0r||2\n");
    (void)testhost_output(a);
    say(a, "0r", "1");
    testhost_run(h);
    assert_int_equal(roda_resume(x, wish.ticket, RODA_REJECT, RODA_E_AUTH, RODA_STR("no")), 0);
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|23|TEXT|3|0|no\n");
    say(a, "0r", "1");
    testhost_run(h);
    testhost_reset(a);
    testhost_run(h);
    assert_true(testhost_closed(a));
    assert_int_equal(roda_resume(x, wish.ticket, RODA_PASS, 0, RODA_STR("")), -ESTALE);
    assert_string_equal(testhost_close_reason(a), "connection reset by peer");
    stop(h);
}

static void input_filter_sees_units(void **state)
{
    struct wish wish = {.stage = TESTHOST_INPUT, .verdict = RODA_REJECT, .once = 1};
    struct testhost *h = start(1, &wish);
    struct testhost_conn *a = join(h, 0);

    (void)state;
    testhost_input(a, "PING\nPING\n");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|15|0|0|0|slow down\nPONG\n");
    wish = (struct wish){.stage = TESTHOST_INPUT, .verdict = RODA_DROP, .once = 1};
    testhost_input(a, "PING\nPING\n");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "PONG\n");
    wish =
        (struct wish){.stage = TESTHOST_INPUT, .verdict = RODA_DELAY, .delay_ms = 100, .once = 1};
    testhost_input(a, "PING\n");
    testhost_advance_ms(h, 99);
    assert_string_equal(testhost_output(a), "");
    testhost_advance_ms(h, 1);
    assert_string_equal(testhost_output(a), "PONG\n");
    stop(h);
}

static void accept_filter_decides_before_opened(void **state)
{
    struct wish wish = {.stage = TESTHOST_ACCEPT, .verdict = RODA_DELAY, .delay_ms = 50, .once = 1};
    struct testhost *h = start(1, &wish);
    struct testhost_conn *a = join(h, 0);

    (void)state;
    testhost_input(a, "PING\n");
    testhost_run(h);
    assert_int_equal(hall(h, 0)->n, 0);
    testhost_advance_ms(h, 50);
    assert_int_equal(hall(h, 0)->n, 1);
    assert_string_equal(testhost_output(a), "PONG\n");
    wish = (struct wish){.stage = TESTHOST_ACCEPT, .verdict = RODA_REJECT};
    struct testhost_conn *b = join(h, 0);
    assert_true(testhost_closed(b));
    assert_string_equal(testhost_close_reason(b), "slow down");
    wish.verdict = RODA_DROP;
    struct testhost_conn *c = join(h, 0);
    assert_true(testhost_closed(c));
    assert_string_equal(testhost_output(c), "");
    assert_int_equal(hall(h, 0)->n, 1);
    stop(h);
}

static void admit_refuses_before_the_number(void **state)
{
    struct wish wish = {.stage = TESTHOST_ADMIT, .verdict = RODA_REJECT, .only = "2"};
    struct testhost *h = start(2, &wish);
    struct testhost_conn *a = join(h, 0), *b = join(h, 1);

    (void)state;
    say(a, "1r", "1");
    say(a, "1r", "2");
    say(a, "1r", "3");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|0|TEXT|1|1|\nanswer|15|TEXT|2|0|slow down\n"
                                            "answer|0|TEXT|3|2|\n");
    assert_string_equal(testhost_output(b), "TEXT|1|0|ana|1r||1\nTEXT|2|1|ana|1r||3\n");
    stop(h);
}

static void publish_defers_and_leaves_in_order(void **state)
{
    struct wish wish = {.stage = TESTHOST_PUBLISH, .verdict = RODA_DEFER};
    struct testhost *h = start(1, &wish);
    struct testhost_conn *a = join(h, 0), *b = join(h, 0);
    struct roda_ctx *x = testhost_filter_ctx(h, 0);

    (void)state;
    say(a, "0r", "1");
    say(b, "0s", "2");
    say(a, "0r", "3");
    testhost_input(a, "PING\n");
    testhost_run(h);
    assert_int_equal(wish.times, 3); /* entered without waiting */
    assert_string_equal(hall(h, 0)->seen, "");
    assert_int_equal(roda_resume_oldest(x, 1, 0), 1);
    assert_string_equal(hall(h, 0)->seen, "1 ");
    assert_int_equal(roda_resume_oldest(x, 9, 0), 2);
    assert_int_equal(roda_resume_oldest(x, 9, 0), 0);
    assert_string_equal(hall(h, 0)->seen, "1 3 2 "); /* a's input was read before b's */
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|0|TEXT|1|1|\nanswer|0|TEXT|2|2|\n"
                                            "TEXT|1|0|bob|0s||2\nPONG\n");
    stop(h);
}

static void second_publish_filter_waits_for_the_first(void **state)
{
    struct wish first = {.stage = TESTHOST_PUBLISH, .verdict = RODA_DEFER}, second = first;
    struct testhost *h = testhost_new(1);

    (void)state;
    testhost_load_filter(h, wishes, &first);
    testhost_load(h, &hall_plugin, NULL);
    testhost_load_filter(h, wishes, &second);
    assert_int_equal(testhost_start(h), 0);
    struct testhost_conn *a = join(h, 0);
    say(a, "0r", "1");
    say(a, "0r", "2");
    testhost_run(h);
    assert_int_equal(first.times, 2);
    assert_int_equal(second.times, 0);
    assert_int_equal(roda_resume_oldest(testhost_ctx(h, "script", 0), 1, 0), 1);
    assert_int_equal(second.times, 1);
    assert_int_equal(roda_resume_oldest(testhost_ctx(h, "script", 0), 1, 0), 1);
    assert_int_equal(second.times, 2);
    assert_string_equal(hall(h, 0)->seen, "");
    assert_int_equal(roda_resume_oldest(testhost_ctx(h, "script2", 0), 2, 0), 2);
    assert_string_equal(hall(h, 0)->seen, "1 2 ");
    testhost_run(h);
    stop(h);
}

static void lost_number_leaves_no_gap_in_prev(void **state)
{
    struct wish wish = {.stage = TESTHOST_PUBLISH, .verdict = RODA_DEFER};
    struct testhost *h = start(1, &wish);
    struct testhost_conn *a = join(h, 0), *b = join(h, 0);
    struct roda_ctx *x = testhost_filter_ctx(h, 0);

    (void)state;
    say(a, "0r", "1");
    say(a, "0r", "2");
    say(a, "0r", "3");
    testhost_run(h);
    assert_int_equal(roda_resume_oldest(x, 1, 0), 1);
    assert_int_equal(roda_resume_oldest(x, 1, -ENOSPC), 1);
    assert_int_equal(hall(h, 0)->last_result, -ENOSPC);
    assert_int_equal(roda_resume_oldest(x, 1, 0), 1);
    testhost_run(h);
    assert_string_equal(testhost_output(b), "TEXT|1|0|ana|0r||1\nTEXT|3|1|ana|0r||3\n");
    assert_string_equal(testhost_output(a), "answer|0|TEXT|1|1|\nanswer|16|TEXT|2|2|disk\n"
                                            "answer|0|TEXT|3|3|\n");
    stop(h);
}

static void deliver_runs_for_those_who_asked(void **state)
{
    struct wish wish = {.stage = TESTHOST_DELIVER, .verdict = RODA_DROP};
    struct testhost *h = start(1, &wish);
    struct testhost_conn *a = join(h, 0), *b = join(h, 0), *c = join(h, 0);

    (void)state;
    roda_conn_ask_deliver(testhost_conn(b), 1);
    say(a, "0r", "x");
    testhost_run(h);
    assert_int_equal(wish.times, 1);
    assert_string_equal(testhost_output(b), "");
    assert_string_equal(testhost_output(c), "TEXT|1|0|ana|0r||x\n");
    stop(h);
}

static void wrong_verdict_is_a_complaint(void **state)
{
    struct wish wish = {.stage = TESTHOST_ADMIT, .verdict = RODA_DEFER};
    struct testhost *h = start(1, &wish);
    struct testhost_conn *a = join(h, 0);

    (void)state;
    say(a, "0r", "x");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|0|TEXT|1|1|\n");
    assert_string_equal(testhost_complaint(h, 0),
                        "script admit: the verdict 4 is not for this stage; taken as PASS");
    assert_int_equal(testhost_stop(h), 1);
    testhost_free(h);
}

/* ---- units ------------------------------------------------------------------------------ */

static void units_are_split_and_bounded(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *a = join(h, 0);
    char *line = malloc(30000);

    (void)state;
    testhost_input(a, "PI");
    testhost_run(h);
    testhost_input(a, "NG\r\nPING");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "PONG\n");
    testhost_input(a, "\n");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "PONG\n");

    memset(line, 'x', 30000);
    memcpy(line, "5|||", 4);
    testhost_input_bytes(a, line, 4096);
    testhost_input(a, "\r\n");
    testhost_run(h);
    assert_string_equal(testhost_unit(a),
                        "answer|2|MODE|1|0|nobody carries out this kind of message");
    testhost_input_bytes(a, line, 4097);
    testhost_input(a, "\nPING\n");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "oversize|4097\nPONG\n");
    testhost_input_bytes(a, line, 5000);
    testhost_run(h);
    testhost_input_bytes(a, line, 5000);
    testhost_input(a, "\n");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "oversize|10000\n");
    testhost_input_bytes(a, line, 16385);
    testhost_run(h);
    assert_string_equal(testhost_output(a),
                        "oversize|16385\nclosing|no line end within the limit\n");
    assert_true(testhost_closed(a));
    free(line);
    stop(h);
}

static void datagram_ends_a_unit(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *u = testhost_connect(h, 0, "plain", "udp");

    (void)state;
    testhost_input(u, "PING\nPING");
    testhost_input(u, "PING\n");
    testhost_run(h);
    assert_string_equal(testhost_output(u), "PONG\nPONG\nPONG\n");
    stop(h);
}

static void end_of_input_comes_last(void **state)
{
    struct testhost *h = start(2, NULL);
    struct testhost_conn *a = join(h, 0), *b = join(h, 1);

    (void)state;
    say(a, "1r", "hi");
    testhost_input(a, "PING\nincomplete");
    testhost_end_input(a);
    testhost_run(h);
    assert_true(testhost_closed(a));
    assert_string_equal(testhost_output(b), "TEXT|1|0|ana|1r||hi\n");
    assert_string_equal(testhost_output(a), "answer|0|TEXT|1|1|\nPONG\n");
    assert_true(testhost_logged(h, "closed: left"));
    stop(h);
}

static void reset_publishes_what_was_routed(void **state)
{
    struct testhost *h = start(2, NULL);
    struct testhost_conn *a = join(h, 0), *b = join(h, 1);

    (void)state;
    say(a, "1r", "hi");
    testhost_turn_worker(h, 0);
    testhost_reset(a);
    testhost_turn_worker(h, 0);
    assert_false(testhost_closed(a)); /* closed() waits: something is under way */
    testhost_run(h);
    assert_true(testhost_closed(a));
    assert_string_equal(testhost_output(b), "TEXT|1|0|ana|1r||hi\n");
    stop(h);
}

static void close_flushes_and_says_why(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *a = join(h, 0);

    (void)state;
    testhost_input(a, "PING\nQUIT|bye\nPING\n");
    testhost_run(h);
    assert_string_equal(testhost_output(a),
                        "PONG\nanswer|2|QUIT|1|0|nobody carries out this kind of message\n"
                        "closing|quit\n");
    assert_true(testhost_closed(a));
    assert_null(testhost_conn(a));
    assert_null(roda_conn_find(testhost_ctx(h, "hall", 0), testhost_conn_id(a)));
    stop(h);
}

static void hold_stops_input(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *a = join(h, 0);

    (void)state;
    roda_conn_hold(testhost_conn(a));
    roda_conn_hold(testhost_conn(a));
    testhost_input(a, "PING\n");
    roda_conn_release(testhost_conn(a));
    testhost_run(h);
    assert_string_equal(testhost_output(a), "");
    roda_conn_release(testhost_conn(a));
    testhost_run(h);
    assert_string_equal(testhost_output(a), "PONG\n");
    stop(h);
}

static void knock_opens_with_a_cookie(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *c = NULL;
    char cookie[16], line[64], other[16];

    (void)state;
    assert_int_equal(testhost_knock(h, 0, "plain", "192.0.2.9", 7, "hello", cookie, sizeof cookie,
                                    &c),
                     0);
    assert_int_equal(testhost_knock(h, 0, "plain", "192.0.2.10", 7, "hello", other, sizeof other,
                                    &c),
                     0);
    assert_string_not_equal(cookie, other);
    testhost_advance_ms(h, 16000); /* still good in the next slot */
    (void)snprintf(line, sizeof line, "%s PING", cookie);
    assert_int_equal(testhost_knock(h, 0, "plain", "192.0.2.9", 7, line, other, sizeof other, &c),
                     1);
    testhost_run(h);
    assert_string_equal(testhost_output(c), "PONG\n");
    testhost_advance_ms(h, 16000);
    assert_int_equal(testhost_knock(h, 0, "plain", "192.0.2.9", 7, line, other, sizeof other, &c),
                     0);
    stop(h);
}

/* ---- places ----------------------------------------------------------------------------- */

struct pieces {
    struct roda_place *place;
    int n, cancelled, calls;
    int wait_at;
};

static void piece(struct roda_ctx *x, void *arg, int result)
{
    struct pieces *p = arg;

    (void)x;
    p->calls++;
    if (result == -ECANCELED) {
        p->cancelled++;
        return;
    }
    if (!p->n) {
        roda_place_end(p->place);
        return;
    }
    if (p->n == p->wait_at) {
        p->wait_at = 0;
        roda_place_wait(p->place);
        return;
    }
    roda_out_printf(roda_place_out(p->place), "piece %d", p->n--);
    roda_out_unit(roda_place_out(p->place));
}

static void place_is_filled_and_what_is_behind_waits(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *a = join(h, 0), *b = join(h, 0);
    struct roda_ctx *x = testhost_ctx(h, "hall", 0);
    struct pieces p = {.n = 3, .wait_at = 1};

    (void)state;
    assert_int_equal(roda_place_new(x, testhost_conn(a), piece, &p, &p.place), 0);
    assert_int_equal(p.calls, 0); /* never inside the call */
    say(b, "0r", "live");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "piece 3\npiece 2\n");
    roda_place_wake(p.place);
    testhost_run(h);
    assert_string_equal(testhost_output(a), "piece 1\nTEXT|1|0|bob|0r||live\n");
    stop(h);
}

static void place_waits_for_the_reader(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *a = join(h, 0);
    struct pieces p = {.n = 2};

    (void)state;
    testhost_read(a, false);
    assert_int_equal(roda_place_new(testhost_ctx(h, "hall", 0), testhost_conn(a), piece, &p,
                                    &p.place),
                     0);
    testhost_run(h);
    assert_int_equal(p.calls, 1);
    testhost_read(a, true);
    testhost_run(h);
    assert_int_equal(p.calls, 3);
    stop(h);
}

static void place_is_cancelled_with_its_connection(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *a = join(h, 0);
    struct pieces p = {.n = 5, .wait_at = 5};

    (void)state;
    assert_int_equal(roda_place_new(testhost_ctx(h, "hall", 0), testhost_conn(a), piece, &p,
                                    &p.place),
                     0);
    testhost_run(h);
    testhost_reset(a);
    testhost_run(h);
    assert_int_equal(p.cancelled, 1);
    assert_true(testhost_closed(a));
    stop(h);
}

static void slow_reader_is_closed(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *a = join(h, 0), *b = join(h, 0);
    char text[240];

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    testhost_read(a, false);
    for (int i = 0; i < 1100; i++)
        say(b, "0r", text);
    testhost_run(h);
    assert_true(testhost_closed(a));
    assert_string_equal(testhost_close_reason(a), "reads too slowly");
    assert_false(testhost_closed(b));
    stop(h);
}

/* ---- sending ---------------------------------------------------------------------------- */

static void encoded_once_per_variant(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *a = join(h, 0), *c[6];

    (void)state;
    for (size_t i = 0; i < 6; i++) {
        c[i] = join(h, 0);
        roda_conn_set_variant(testhost_conn(c[i]), (uint32_t)i % 2);
    }
    say(a, "0r", "x");
    testhost_run(h);
    assert_int_equal(testhost_metric(h, "core", "encodes_total"), 2);
    assert_string_equal(testhost_output(c[0]), "TEXT|1|0|ana|0r||x\n");
    assert_string_equal(testhost_output(c[5]), "TEXT(1)|1|0|ana|0r||x\n");
    stop(h);
}

/* ---- posts, timers, offload ------------------------------------------------------------- */

struct note {
    struct roda_item item;
    const char *text;
};
static char notes[256];

static void note_run(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct note *note = (struct note *)(void *)item;
    size_t used = strlen(notes);

    (void)snprintf(notes + used, sizeof notes - used, "%s@%u%s ", note->text, x->worker,
                   result == -ECANCELED ? "!" : "");
}

static void posts_keep_their_order(void **state)
{
    struct testhost *h = start(2, NULL);
    struct roda_ctx *x = testhost_ctx(h, "hall", 0);
    struct note n[4] = {{{.run = note_run}, "after"},
                        {{.run = note_run}, "a"},
                        {{.run = note_run}, "b"},
                        {{.run = note_run}, "self"}};

    (void)state;
    notes[0] = '\0';
    roda_post_after(x, 1, &n[0].item);
    roda_post(x, 1, &n[1].item);
    roda_post(x, 1, &n[2].item);
    roda_post(x, 0, &n[3].item);
    testhost_turn_worker(h, 1);
    assert_string_equal(notes, ""); /* not pushed before the end of the turn */
    testhost_run(h);
    assert_string_equal(notes, "a@1 b@1 after@1 self@0 ");
    notes[0] = '\0';
    assert_int_equal(roda_inject(testhost_ctx(h, "hall", 1), &n[1].item), 0);
    testhost_run(h);
    assert_string_equal(notes, "a@1 ");
    stop(h);
    notes[0] = '\0';
}

static void *inject(void *arg)
{
    static struct note note = {{.run = note_run}, "injected"};

    return roda_inject(arg, &note.item) ? arg : NULL;
}

static void other_threads_inject(void **state)
{
    struct testhost *h = start(2, NULL);
    pthread_t thread;
    void *failed = h;

    (void)state;
    notes[0] = '\0';
    assert_int_equal(pthread_create(&thread, NULL, inject, testhost_ctx(h, "hall", 1)), 0);
    assert_int_equal(pthread_join(thread, &failed), 0);
    assert_null(failed);
    testhost_run(h);
    assert_string_equal(notes, "injected@1 ");
    stop(h);
}

static struct note at_stop = {{.run = note_run}, "late"};
static void poster_stop(struct roda_ctx *x)
{
    if (!x->worker)
        roda_post(x, 0, &at_stop.item);
}

static void items_are_cancelled_at_shutdown(void **state)
{
    static const struct roda_plugin poster = {.abi = RODA_ABI,
                                              .size = sizeof poster,
                                              .name = "poster",
                                              .stop = poster_stop};
    struct testhost *h = testhost_new(1);

    (void)state;
    notes[0] = '\0';
    testhost_load(h, &poster, NULL);
    testhost_start(h);
    assert_int_equal(testhost_stop(h), 0);
    assert_string_equal(notes, "late@0! ");
    assert_int_equal(roda_inject(testhost_ctx(h, "poster", 0), &at_stop.item), -ESHUTDOWN);
    testhost_free(h);
}

struct ticks {
    int n, stop_at;
    struct roda_timer *timer;
};

static void tick(struct roda_ctx *x, void *arg, int result)
{
    struct ticks *t = arg;

    (void)x;
    assert_int_equal(result, 0);
    if (++t->n == t->stop_at)
        roda_timer_stop(t->timer);
}

static void timers_fire_by_the_clock(void **state)
{
    struct testhost *h = start(2, NULL);
    struct roda_ctx *x = testhost_ctx(h, "hall", 1);
    struct ticks once = {0}, many = {.stop_at = 3}, never = {0};

    (void)state;
    (void)roda_timer_start(x, 100, 0, tick, &once);
    many.timer = roda_timer_start(x, 50, 20, tick, &many);
    never.timer = roda_timer_start(x, 10, 0, tick, &never);
    roda_timer_stop(never.timer);
    roda_timer_stop(NULL);
    uint64_t start_ms = roda_now_ms(x);
    testhost_advance_ms(h, 69);
    assert_int_equal(many.n, 1);
    testhost_advance_ms(h, 500);
    assert_int_equal(many.n, 3);
    assert_int_equal(once.n, 1);
    assert_int_equal(never.n, 0);
    assert_int_equal(roda_now_ms(x) - start_ms, 569);
    stop(h);
}

static int worked, was_done;
static void work(void *arg)
{
    (void)arg;
    worked++;
}
static void done(struct roda_ctx *x, void *arg, int result)
{
    (void)x;
    (void)arg;
    was_done += result == 0;
}

static void offload_is_bounded(void **state)
{
    struct testhost *h = start(1, NULL);
    struct roda_ctx *x = testhost_ctx(h, "hall", 0);

    (void)state;
    worked = was_done = 0;
    for (int i = 0; i < 64; i++)
        assert_int_equal(roda_offload(x, work, done, NULL), 0);
    assert_int_equal(roda_offload(x, work, done, NULL), -EAGAIN);
    assert_int_equal(was_done, 0);
    testhost_run(h);
    assert_int_equal(worked, 64);
    assert_int_equal(was_done, 64);
    stop(h);
}

/* ---- files ------------------------------------------------------------------------------ */

static struct roda_file *opened;
static int last;
static char last_bytes[128];

static void on_open(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    (void)x;
    (void)arg;
    opened = file;
    last = result;
}
static void on_read(struct roda_ctx *x, void *arg, struct roda_str bytes, int result)
{
    (void)x;
    (void)arg;
    last = result;
    (void)snprintf(last_bytes, sizeof last_bytes, "%.*s", (int)bytes.len, bytes.ptr);
}
static void on_done(struct roda_ctx *x, void *arg, int result)
{
    (void)x;
    (void)arg;
    last = result;
}
static void on_list(struct roda_ctx *x, void *arg, const struct roda_str *names, size_t n,
                    int result)
{
    (void)x;
    (void)arg;
    last = result < 0 ? result : (int)n;
    last_bytes[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        size_t used = strlen(last_bytes);
        (void)snprintf(last_bytes + used, sizeof last_bytes - used, "%.*s ", (int)names[i].len,
                       names[i].ptr);
    }
}

static void files_in_memory(void **state)
{
    struct testhost *h = start(1, NULL);
    struct roda_ctx *x = testhost_ctx(h, "hall", 0);

    (void)state;
    assert_int_equal(roda_file_open(x, "/log/none", RODA_FILE_READ, on_open, NULL), 0);
    testhost_run(h);
    assert_int_equal(last, -ENOENT);
    testhost_file_put(h, "/log/a", "abc", 3);
    assert_int_equal(roda_file_open(x, "/log/a", RODA_FILE_READ | RODA_FILE_APPEND, on_open, NULL),
                     0);
    testhost_run(h);
    assert_int_equal(last, 0);
    assert_int_equal(roda_file_append(opened, RODA_STR("def")), 3);
    assert_int_equal(roda_file_append(opened, RODA_STR("ghi")), 6);
    assert_int_equal(roda_file_size(opened), 9);
    assert_int_equal(roda_file_read(opened, 2, 100, on_read, NULL), 0);
    testhost_run(h);
    assert_int_equal(last, 0);
    assert_string_equal(last_bytes, "cdefghi");
    testhost_hold_files(h, true);
    last = 1;
    assert_int_equal(roda_file_sync(opened, on_done, NULL), 0);
    testhost_run(h);
    assert_int_equal(last, 1);
    testhost_hold_files(h, false);
    testhost_run(h);
    assert_int_equal(last, 0);
    assert_int_equal(roda_file_append(opened, RODA_STR("lost")), 9);
    testhost_run(h);
    testhost_fail_writes(h, -ENOSPC);
    assert_int_equal(roda_file_append(opened, RODA_STR("x")), 13);
    testhost_run(h);
    assert_int_equal(roda_file_append(opened, RODA_STR("x")), -ENOSPC);
    roda_file_close(opened);
    testhost_run(h);
    testhost_power_cut(h);
    size_t len = 0;
    assert_string_equal(testhost_file_get(h, "/log/a", &len), "abcdefghi");
    assert_int_equal(len, 9);
    assert_int_equal(roda_file_rename(x, "/log/a", "/log/b", on_done, NULL), 0);
    testhost_file_put(h, "/log/c", "", 0);
    testhost_file_put(h, "/log/deep/d", "", 0);
    assert_int_equal(roda_file_list(x, "/log", on_list, NULL), 0);
    testhost_run(h);
    assert_int_equal(last, 3);
    assert_string_equal(last_bytes, "b c deep ");
    assert_int_equal(roda_file_remove(x, "/log/b", on_done, NULL), 0);
    testhost_run(h);
    assert_int_equal(last, 0);
    assert_null(testhost_file_get(h, "/log/b", NULL));
    stop(h);
}

static void cut_in_sync(struct roda_ctx *x, void *arg, int result)
{
    (void)x;
    assert_int_equal(result, 0);
    assert_int_equal(roda_file_truncate(opened, *(uint64_t *)arg, on_done, NULL), 0);
}

static void files_are_cut_and_reserved(void **state)
{
    struct testhost *h = start(1, NULL);
    struct roda_ctx *x = testhost_ctx(h, "hall", 0);
    uint64_t at = 2;
    size_t len = 0;

    (void)state;
    last = 1;
    assert_int_equal(roda_directory_make(x, "/log", on_done, NULL), 0);
    assert_int_equal(last, 1);
    testhost_run(h);
    assert_int_equal(last, 0);
    assert_int_equal(roda_file_open(x, "/log/a", RODA_FILE_APPEND, on_open, NULL), 0);
    testhost_run(h);
    assert_int_equal(roda_file_append(opened, RODA_STR("abcdef")), 0);
    assert_int_equal(roda_file_truncate(opened, 2, on_done, NULL), -EBUSY);
    testhost_run(h);
    assert_int_equal(roda_file_truncate(opened, 7, on_done, NULL), -EINVAL);
    assert_int_equal(roda_file_truncate(opened, 4, on_done, NULL), 0);
    assert_int_equal(roda_file_append(opened, RODA_STR("x")), -EBUSY);
    assert_int_equal(roda_file_sync(opened, on_done, NULL), -EBUSY);
    testhost_run(h);
    assert_int_equal(roda_file_size(opened), 4);
    assert_int_equal(roda_file_reserve(opened, 1000, on_done, NULL), 0);
    assert_int_equal(roda_file_append(opened, RODA_STR("gh")), 4);
    testhost_run(h);
    assert_int_equal(last, 0);
    assert_string_equal(testhost_file_get(h, "/log/a", &len), "abcdgh");
    assert_int_equal(roda_file_sync(opened, cut_in_sync, &at), 0); /* over when it is called */
    testhost_run(h);
    assert_string_equal(testhost_file_get(h, "/log/a", &len), "ab");
    testhost_fail_writes(h, -ENOSPC);
    assert_int_equal(roda_file_reserve(opened, 1000, on_done, NULL), 0);
    testhost_run(h);
    assert_int_equal(last, -ENOSPC);
    testhost_fail_writes(h, 0);
    assert_int_equal(roda_file_append(opened, RODA_STR("c")), 2); /* as usable as before */
    testhost_run(h);
    testhost_fail_writes(h, -EIO);
    assert_int_equal(roda_file_truncate(opened, 1, on_done, NULL), 0);
    testhost_run(h);
    assert_int_equal(last, -EIO);
    assert_int_equal(roda_file_append(opened, RODA_STR("x")), -EIO);
    roda_file_close(opened);
    stop(h);
}

/* ---- starts that go on, reopen ---------------------------------------------------------- */

struct slow {
    struct roda_item item;
    unsigned reopened, greeted;
};
static int slow_result;
static bool slow_never;

static void slow_over(struct roda_ctx *x, void *arg, int result)
{
    (void)arg;
    (void)result;
    roda_started(x, slow_result);
}

static void slow_greet(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct slow *s = x->state;

    (void)item; /* lies in the sender's state */
    assert_int_equal(result, 0);
    s->greeted++;
    if (!slow_never)
        assert_non_null(roda_timer_start(x, 2000, 0, slow_over, NULL));
}

/* It is over 2 s after the next worker has greeted; and that one may not have started yet. */
static int slow_start(struct roda_ctx *x)
{
    struct slow *s = x->state;

    s->item.run = slow_greet;
    roda_post(x, (x->worker + 1) % x->n_workers, &s->item);
    return RODA_LATER;
}

static void slow_stop(struct roda_ctx *x)
{
    roda_log(x, RODA_LOG_INFO, "stopped %u", x->worker);
}

static void slow_reopen(struct roda_ctx *x)
{
    ((struct slow *)x->state)->reopened++;
}

static struct testhost *with_slow(uint32_t n_workers)
{
    static const struct roda_plugin slow = {.abi = RODA_ABI,
                                            .size = sizeof slow,
                                            .name = "slow",
                                            .state_size = sizeof(struct slow),
                                            .start = slow_start,
                                            .stop = slow_stop,
                                            .reopen = slow_reopen};
    struct testhost *h = testhost_new(n_workers);

    slow_result = 0;
    slow_never = false;
    assert_int_equal(testhost_load(h, &slow, NULL), 0);
    return h;
}

static void a_start_may_go_on(void **state)
{
    struct testhost *h = with_slow(3);

    (void)state;
    assert_int_equal(testhost_start(h), 0);
    assert_in_range(roda_now_ms(testhost_ctx(h, "slow", 0)), 1002000, 1002100);
    for (uint32_t w = 0; w < 3; w++)
        assert_int_equal(((struct slow *)testhost_ctx(h, "slow", w)->state)->greeted, 1);
    testhost_reopen(h);
    for (uint32_t w = 0; w < 3; w++)
        assert_int_equal(((struct slow *)testhost_ctx(h, "slow", w)->state)->reopened, 1);
    roda_started(testhost_ctx(h, "slow", 1), 0);
    assert_int_equal(testhost_complaints(h), 1);
    testhost_forgive(h);
    assert_int_equal(testhost_stop(h), 0);
    testhost_free(h);
}

static void a_start_may_fail_later_or_never_end(void **state)
{
    struct testhost *h = with_slow(2);

    (void)state;
    slow_result = -EIO;
    assert_int_equal(testhost_start(h), -EIO);
    assert_string_equal(testhost_error(h), "slow: start on worker 0: Input/output error");
    assert_true(testhost_logged(h, "stopped 0"));
    assert_true(testhost_logged(h, "stopped 1"));
    testhost_free(h);
    h = with_slow(2);
    slow_never = true;
    assert_int_equal(testhost_start(h), -ETIMEDOUT);
    assert_true(testhost_logged(h, "stopped 1"));
    testhost_free(h);
}

/* ---- services, options ------------------------------------------------------------------ */

static char order[64];
static const void *found;
static void note_start(const char *who)
{
    size_t used = strlen(order);

    (void)snprintf(order + used, sizeof order - used, "%s", who);
}
static int needer_start(struct roda_ctx *x)
{
    struct roda_ctx *theirs = NULL;

    note_start("needer ");
    found = roda_service(x, "thing/1", &theirs);
    assert_null(roda_service(x, "undeclared/1", NULL));
    assert_null(roda_service(x, "other/1", NULL));
    return theirs && theirs->worker == x->worker ? 0 : -EINVAL;
}
static int offerer_start(struct roda_ctx *x)
{
    (void)x;
    note_start("offerer ");
    return 0;
}

static void services_follow_needs(void **state)
{
    static const int thing = 5;
    static const char *const needs[] = {"thing/1", "other/1?", NULL};
    static const struct roda_service_table services[] = {{"thing/1", &thing}, {NULL, NULL}};
    static const struct roda_plugin needer = {.abi = RODA_ABI,
                                              .size = sizeof needer,
                                              .name = "needer",
                                              .needs = needs,
                                              .start = needer_start};
    static const struct roda_plugin offerer = {.abi = RODA_ABI,
                                               .size = sizeof offerer,
                                               .name = "offerer",
                                               .service_size = sizeof *services,
                                               .services = services,
                                               .start = offerer_start};
    struct testhost *h = testhost_new(1);

    (void)state;
    testhost_load(h, &needer, NULL);
    testhost_load(h, &offerer, NULL);
    assert_int_equal(testhost_start(h), 0);
    assert_string_equal(order, "offerer needer ");
    assert_ptr_equal(found, &thing);
    stop(h);

    h = testhost_new(1);
    testhost_load(h, &needer, NULL);
    assert_int_equal(testhost_start(h), -ENOENT);
    assert_non_null(strstr(testhost_error(h), "thing/1"));
    stop(h);
}

struct settings {
    int truth;
    int64_t count, size, time, pick, mode;
    struct roda_rate rate;
    const char *text;
    struct roda_list list;
};
static const struct roda_option options[] = {
    {.name = "truth",
     .type = RODA_T_BOOL,
     .initial = "yes",
     .offset = offsetof(struct settings, truth),
     .help = "h"},
    {.name = "count",
     .type = RODA_T_INT,
     .initial = "5",
     .min = 1,
     .max = 10,
     .offset = offsetof(struct settings, count),
     .help = "h"},
    {.name = "size",
     .type = RODA_T_BYTES,
     .initial = "4k",
     .offset = offsetof(struct settings, size),
     .help = "h"},
    {.name = "time",
     .type = RODA_T_MS,
     .initial = "2m",
     .offset = offsetof(struct settings, time),
     .help = "h"},
    {.name = "pick",
     .type = RODA_T_CHOICE,
     .initial = "never",
     .choices = "never|often|always",
     .offset = offsetof(struct settings, pick),
     .help = "h"},
    {.name = "mode",
     .type = RODA_T_MODE,
     .initial = "0660",
     .offset = offsetof(struct settings, mode),
     .help = "h"},
    {.name = "rate",
     .type = RODA_T_RATE,
     .initial = "2/s burst 10",
     .flags = RODA_OPTION_LISTENER,
     .offset = offsetof(struct settings, rate),
     .help = "h"},
    {.name = "text",
     .type = RODA_T_STRING,
     .initial = "",
     .flags = RODA_OPTION_LISTENER,
     .offset = offsetof(struct settings, text),
     .help = "h"},
    {.name = "list",
     .type = RODA_T_LIST,
     .initial = "a, b",
     .offset = offsetof(struct settings, list),
     .help = "h"},
    {.name = NULL},
};
static int settings_check(const void *conf, struct roda_conf_errors *errors)
{
    const struct settings *s = conf;

    if (s->count == 7)
        return roda_conf_error(errors, "count", "%d is not liked", 7);
    return 0;
}
static roda_verdict settings_submit(struct roda_ctx *x, struct roda_event *ev)
{
    const struct settings *s = roda_conn_conf(x, ev->conn);

    return s->rate.count ? (roda_verdict)RODA_PASS : roda_reject(ev, RODA_E_RATE, "%s", s->text);
}
static const struct roda_plugin settings_plugin = {.abi = RODA_ABI,
                                                   .size = sizeof settings_plugin,
                                                   .name = "settings",
                                                   .conf_size = sizeof(struct settings),
                                                   .option_size = sizeof *options,
                                                   .options = options,
                                                   .check = settings_check,
                                                   .submit = settings_submit};

static void options_of_all_types(void **state)
{
    struct testhost *h = testhost_new(1);

    (void)state;
    assert_int_equal(testhost_load(h, &settings_plugin,
                                   "# a comment\n\ntruth = no\ncount=9\n size = 2M\ntime = 250ms\n"
                                   "pick = always\nmode = 0600\nrate = off\ntext = hi there\n"
                                   "list = x\nlist = y , z\n"),
                     0);
    const struct settings *s = testhost_ctx(h, "settings", 0)->conf;
    assert_int_equal(s->truth, 0);
    assert_int_equal(s->count, 9);
    assert_int_equal(s->size, 2 << 20);
    assert_int_equal(s->time, 250);
    assert_int_equal(s->pick, 2);
    assert_int_equal(s->mode, 0600);
    assert_int_equal(s->rate.count, 0);
    assert_string_equal(s->text, "hi there");
    assert_int_equal(s->list.n, 3);
    assert_string_equal(s->list.items[2].ptr, "z");
    stop(h);

    h = testhost_new(1);
    assert_int_equal(testhost_load(h, &settings_plugin, NULL), 0);
    s = testhost_ctx(h, "settings", 0)->conf;
    assert_int_equal(s->truth, 1);
    assert_int_equal(s->time, 120000);
    assert_int_equal(s->rate.burst, 10);
    assert_int_equal(s->list.n, 2);
    testhost_listener(h, "strict", "plain", "tcp", "settings.rate = off\nsettings.text = no\n");
    assert_int_equal(testhost_start(h), 0);
    struct testhost_conn *a = testhost_connect_listener(h, 0, "strict"),
                         *b = testhost_connect(h, 0, "plain", "tcp");
    testhost_input(a, "TEXT|r||x\n");
    testhost_input(b, "TEXT|r||x\n");
    testhost_run(h);
    assert_string_equal(testhost_output(a), "answer|15|TEXT|1|0|no\n");
    assert_string_equal(testhost_output(b),
                        "answer|2|TEXT|1|0|nobody carries out this kind of message\n");
    assert_string_equal(s->text, "");
    stop(h);
}

static void wrong_options_are_told(void **state)
{
    static const char *const wrong[] =
        {"count = 11\n", "count = x\n", "nothing = 1\n",          "truth = maybe\n",
         "time = 30\n",  "size = 4q\n", "pick = sometimes\n",     "mode = 9\n",
         "rate = 2\n",   "count = 7\n", "count = 1\ncount = 2\n", "count\n"};

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct testhost *h = testhost_new(1);
        assert_int_equal(testhost_load(h, &settings_plugin, wrong[i]), -EINVAL);
        assert_string_not_equal(testhost_error(h), "");
        stop(h);
    }
}

/* ---- faults and leaks ------------------------------------------------------------------- */

static void allocations_fail_on_demand(void **state)
{
    struct testhost *h = start(1, NULL);
    struct roda_ctx *x = testhost_ctx(h, "hall", 0);
    struct roda_msg_init init = {.size = sizeof init, .kind = RODA_TEXT};
    int error = 0;

    (void)state;
    testhost_fail_allocation(h, 2);
    void *first = roda_alloc(x, 8);
    assert_non_null(first);
    assert_null(roda_msg_make(x, &init, &error));
    assert_int_equal(error, -ENOMEM);
    roda_free(x, first);
    testhost_fail_allocation(h, 1);
    assert_null(testhost_connect(h, 0, "plain", "tcp"));
    stop(h);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct testhost *h = start(2, NULL);
        struct testhost_conn *a = join(h, 0), *b = join(h, 1);
        uint64_t before = testhost_allocations(h);
        testhost_fail_allocation(h, n);
        say(a, "1r", "x");
        say(b, "0r", "y");
        testhost_run(h);
        uint64_t used = testhost_allocations(h) - before;
        stop(h);
        if (n > used)
            break;
    }
}

static void the_gate_for_text(void **state)
{
    const struct {
        struct roda_str text;
        uint32_t flags;
        int error;
    } cases[] = {
        {RODA_STR("fine"), 0, 0},
        {RODA_STR("two\nlines"), 0, -EINVAL},
        {RODA_STR("two\nlines"), RODA_MSG_MULTILINE, 0},
        {RODA_STR("a\rb"), RODA_MSG_MULTILINE, -EINVAL},
        {RODA_STR("a\0b"), 0, -EINVAL},
        {RODA_STR("\xff"), 0, -EILSEQ},
    };
    struct testhost *h = start(1, NULL);
    struct roda_ctx *x = testhost_ctx(h, "hall", 0);

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int error = 0;
        struct roda_msg_init init = {.size = sizeof init,
                                     .kind = RODA_TEXT,
                                     .flags = cases[i].flags,
                                     .text = cases[i].text};
        roda_msg_unref(roda_msg_make(x, &init, &error));
        assert_int_equal(error, cases[i].error);
    }
    stop(h);
}

static void leaks_are_found(void **state)
{
    struct testhost *h = start(1, NULL);
    struct roda_ctx *x = testhost_ctx(h, "hall", 0);
    struct roda_msg_init init = {.size = sizeof init, .kind = RODA_TEXT};
    struct roda_lane *lane;

    (void)state;
    assert_non_null(roda_msg_make(x, &init, NULL));
    assert_non_null(roda_alloc(x, 1));
    assert_non_null(roda_timer_start(x, 1000, 0, tick, NULL));
    assert_int_equal(roda_lane_new(x, hall_lane, NULL, &lane), 0);
    assert_int_equal(testhost_stop(h), 4);
    testhost_free(h);
}

static void closed_at_shutdown_says_so(void **state)
{
    struct testhost *h = start(1, NULL);
    struct testhost_conn *a = join(h, 0);

    (void)state;
    assert_int_equal(testhost_stop(h), 0);
    assert_true(testhost_logged(h, "closed: shutting down (shutdown)"));
    assert_string_equal(testhost_output(a), "closing|shutting down\n");
    testhost_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shown_once_in_order_with_numbers),
        cmocka_unit_test(presence_takes_no_number),
        cmocka_unit_test(answers_exactly_once),
        cmocka_unit_test(reply_is_a_barrier),
        cmocka_unit_test(refusal_at_once_comes_before_a_reply),
        cmocka_unit_test(one_destination_at_a_time),
        cmocka_unit_test(owner_waits_until_settled),
        cmocka_unit_test(handled_is_under_way_until_answered),
        cmocka_unit_test(message_that_is_never_answered_is_a_complaint),
        cmocka_unit_test(full_window_holds_a_message),
        cmocka_unit_test(under_way_is_bounded),
        cmocka_unit_test(plugins_own_message_has_no_answer),
        cmocka_unit_test(submit_verdicts),
        cmocka_unit_test(delay_keeps_order_and_asks_again),
        cmocka_unit_test(delay_in_all_is_bounded),
        cmocka_unit_test(defer_waits_for_resume),
        cmocka_unit_test(input_filter_sees_units),
        cmocka_unit_test(accept_filter_decides_before_opened),
        cmocka_unit_test(admit_refuses_before_the_number),
        cmocka_unit_test(publish_defers_and_leaves_in_order),
        cmocka_unit_test(second_publish_filter_waits_for_the_first),
        cmocka_unit_test(lost_number_leaves_no_gap_in_prev),
        cmocka_unit_test(deliver_runs_for_those_who_asked),
        cmocka_unit_test(wrong_verdict_is_a_complaint),
        cmocka_unit_test(units_are_split_and_bounded),
        cmocka_unit_test(datagram_ends_a_unit),
        cmocka_unit_test(end_of_input_comes_last),
        cmocka_unit_test(reset_publishes_what_was_routed),
        cmocka_unit_test(close_flushes_and_says_why),
        cmocka_unit_test(hold_stops_input),
        cmocka_unit_test(knock_opens_with_a_cookie),
        cmocka_unit_test(place_is_filled_and_what_is_behind_waits),
        cmocka_unit_test(place_waits_for_the_reader),
        cmocka_unit_test(place_is_cancelled_with_its_connection),
        cmocka_unit_test(slow_reader_is_closed),
        cmocka_unit_test(encoded_once_per_variant),
        cmocka_unit_test(posts_keep_their_order),
        cmocka_unit_test(other_threads_inject),
        cmocka_unit_test(items_are_cancelled_at_shutdown),
        cmocka_unit_test(timers_fire_by_the_clock),
        cmocka_unit_test(offload_is_bounded),
        cmocka_unit_test(files_in_memory),
        cmocka_unit_test(files_are_cut_and_reserved),
        cmocka_unit_test(a_start_may_go_on),
        cmocka_unit_test(a_start_may_fail_later_or_never_end),
        cmocka_unit_test(services_follow_needs),
        cmocka_unit_test(options_of_all_types),
        cmocka_unit_test(wrong_options_are_told),
        cmocka_unit_test(allocations_fail_on_demand),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(the_gate_for_text),
        cmocka_unit_test(leaks_are_found),
        cmocka_unit_test(closed_at_shutdown_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
