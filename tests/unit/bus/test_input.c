/* A connection's input: what makes it wait, for how long, and that nothing overtakes. */
#include "unit/bus/bench.h"

#include "net/queue.h"

static unsigned asked; /* filters */
static uint64_t ticket, delay_ms;
static roda_verdict (*decide)(struct roda_event *ev);

static int begin(void **state)
{
    (void)state;
    asked = 0;
    ticket = 0;
    delay_ms = 200;
    decide = NULL;
    return 0;
}

static roda_verdict filter(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    asked++;
    return decide ? decide(ev) : RODA_PASS;
}

static roda_verdict always_pass(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    (void)ev;
    return RODA_PASS;
}

static bool says(const struct roda_event *ev, const char *text)
{
    return ev->msg->text.len == strlen(text) && !memcmp(ev->msg->text.ptr, text, ev->msg->text.len);
}

static roda_verdict defers(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    (void)ev;
    return RODA_DEFER;
}

static void let_go(uint32_t w, size_t n)
{
    bench_as(w);
    (void)roda_resume_oldest(bench_ctx(w, SECOND), n, 0);
    bench_done(w);
}

/* ---- credit and barriers ---------------------------------------------------------------- */

static void input_waits_at_64_messages_under_way(void **state)
{
    (void)state;
    bench_new(2);
    bench->plugins[SECOND].publish = defers;
    bench_start();
    struct bench_client *c = bench_connect(0);
    for (int i = 1; i <= 100; i++)
        bench_say(c, "say 1a %d", i);
    bench_settle();
    assert_int_equal(bench->decodes, 64);
    assert_int_equal(bench_conn(0)->under_way, 64);
    assert_int_equal(roda_lane_length(bench_lane(1, 'a')), 64);
    let_go(1, 31);
    assert_int_equal(bench->decodes, 64); /* until half of it is free */
    let_go(1, 1);
    assert_int_equal(bench->decodes, 96);
    assert_int_equal(bench_counter(under_way), 64);
    let_go(1, 64);
    let_go(1, 64);
    assert_int_equal(bench_count(c, "="), 100);
    assert_int_equal(bench_counter(under_way), 0);
    assert_int_equal(bench_bus(0)->outboxes[1].routed_bytes, 0);
    bench_forget(c);
    bench_end();
}

static void input_waits_at_64_kilobytes_under_way(void **state)
{
    (void)state;
    bench_new(2);
    bench->plugins[SECOND].publish = defers;
    bench_start();
    struct bench_client *c = bench_connect(0);
    for (int i = 1; i <= 20; i++)
        bench_say(c, "say 1a %07000d", i);
    bench_settle();
    assert_in_range(bench->decodes, 9, 10);
    assert_in_range(bench_conn(0)->under_way_bytes, 65536, 65536 + 8000);
    let_go(1, 9);
    let_go(1, 9);
    let_go(1, 9);
    assert_int_equal(bench_count(c, "="), 20);
    assert_int_equal(bench_conn(0)->under_way_bytes, 0);
    bench_forget(c);
    bench_end();
}

/* A plugin that submits for a connection meets the same bound. */
static void nobody_gets_beyond_the_bound(void **state)
{
    (void)state;
    bench_new(2);
    bench->plugins[SECOND].publish = defers;
    bench_start();
    struct bench_client *c = bench_connect(0);
    struct roda_conn *conn = bench_conn(0);
    bench_as(0);
    for (int i = 0; i < 200; i++) {
        struct roda_msg *msg = bench_msg(0, RODA_TEXT, "1a", "many");
        msg->from = roda_conn_getid(conn);
        msg->token = (uint64_t)i + 1;
        roda_submit(bench_ctx(0, OWNER), conn, msg);
    }
    bench_done(0);
    assert_int_equal(conn->under_way, 64);
    for (int i = 0; i < 10; i++)
        let_go(1, 64);
    assert_int_equal(bench_count(c, "="), 200);
    bench_forget(c);
    bench_end();
}

static void a_barrier_waits_for_everything_before_it(void **state)
{
    (void)state;
    bench_new(2);
    bench->plugins[SECOND].publish = defers;
    bench_start();
    struct bench_client *c = bench_connect(0);
    bench_say(c, "ping");
    bench_expect(c, "pong\n");
    bench_say(c, "say 1a 1\nping\nsay 1a 2");
    bench_expect(c, "");
    assert_int_equal(bench_conn(0)->under_way, 1); /* nothing overtakes the barrier, either */
    let_go(1, 1);
    bench_expect(c, "=1 0 #1\npong\n");
    let_go(1, 1);
    bench_expect(c, "=2 0 #2\n");
    bench_forget(c);
    bench_end();
}

static roda_verdict rejects_bad(struct roda_event *ev)
{
    return says(ev, "bad") ? roda_reject(ev, RODA_E_RATE, "too %s", "fast") : RODA_PASS;
}

/* An answer that is given at the end of the turn is under way till then. */
static void a_barrier_waits_for_answers(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].submit = filter;
    bench_start();
    decide = rejects_bad;
    struct bench_client *c = bench_connect(0);
    bench_say(c, "say 0a bad\nping\nsay 0a bad\nsay 0a bad\nping");
    bench_expect(c, "=1 15 #0 too fast\npong\n=2 15 #0 too fast\n=3 15 #0 too fast\npong\n");
    bench_forget(c);
    bench_end();
}

static void end_of_input_waits_like_a_barrier(void **state)
{
    (void)state;
    bench_new(2);
    bench->plugins[SECOND].publish = defers;
    bench_start();
    struct bench_client *c = bench_connect(0), *other = bench_connect(1);
    bench_say(c, "say 1a one\nsay 1a two");
    sim_client_shutdown(c->end);
    bench_settle();
    assert_non_null(bench_conn(0));
    let_go(1, 1);
    assert_non_null(bench_conn(0));
    let_go(1, 1);
    bench_read(c);
    assert_string_equal(c->in, "=1 0 #1\n=2 0 #2\n");
    assert_true(c->over);
    assert_null(bench_conn(0));
    bench_expect(other, "1a #1 <0 one\n1a #2 <1 two\n");
    bench_forget(c);
    bench_forget(other);
    bench_end();
}

/* ---- destinations and windows ----------------------------------------------------------- */

static void the_next_destination_waits_for_the_receipts_of_the_last(void **state)
{
    (void)state;
    bench_new(3);
    bench->plugins[SECOND].publish = defers;
    bench_start();
    struct bench_client *c = bench_connect(0);
    bench_say(c, "say 1a 1\nsay 1a 2\nsay 2a 3\nsay 2b 4\nsay 2b 5");
    bench_settle();
    assert_int_equal(roda_lane_length(bench_lane(1, 'a')), 2);
    assert_null(bench_lane(2, 'a'));
    let_go(1, 1);
    assert_null(bench_lane(2, 'a'));
    let_go(1, 1);
    assert_int_equal(roda_lane_length(bench_lane(2, 'a')), 1);
    assert_null(bench_lane(2, 'b'));
    let_go(2, 1);
    assert_int_equal(roda_lane_length(bench_lane(2, 'b')), 2);
    let_go(2, 2);
    bench_expect(c, "=1 0 #1\n=2 0 #2\n=3 0 #1\n=4 0 #1\n=5 0 #2\n");
    bench_forget(c);
    bench_end();
}

static void a_full_window_holds_input_and_opens_again(void **state)
{
    (void)state;
    bench_new(2);
    bench->plugins[SECOND].publish = defers;
    bench_start();
    struct bench_client *a = bench_connect(0), *b = bench_connect(0);
    struct outbox *box = &bench_bus(0)->outboxes[1];
    box->routed_bytes += BUS_WINDOW_BYTES - 100; /* as if others had so much under way */
    bench_say(a, "say 1a from a\nping");
    bench_settle();
    bench_say(b, "say 1a from b\nsay 1a more\nping");
    bench_settle();
    assert_null(bench_lane(1, 'a'));
    assert_int_equal(bench->decodes, 2);
    assert_int_equal(bench_counter(inputs_waited_route), 2);
    bench_say(b, "say 0a elsewhere"); /* behind it */
    bench_settle();
    assert_null(bench_lane(0, 'a'));
    box->routed_bytes -= BUS_WINDOW_BYTES - 100;
    bench_as(0);
    bench_bus(0)->window_opened = true; /* as their receipts do */
    bench_done(0);
    assert_int_equal(roda_lane_length(bench_lane(1, 'a')), 3);
    let_go(1, 1);
    bench_expect(a, "=1 0 #1\npong\n");
    let_go(1, 2);
    bench_expect(a, "1a #2 <1 from b\n1a #3 <2 more\n");
    let_go(0, 1);
    bench_expect(b, "1a #1 <0 from a\n=1 0 #2\n=2 0 #3\npong\n=3 0 #1\n");
    bench_forget(a);
    bench_forget(b);
    bench_end();
}

/* Who may go on is a reason for another turn. */
static void a_window_that_opens_late_in_a_turn_is_work(void **state)
{
    (void)state;
    bench_new(2);
    bench_start();
    struct bench_client *a = bench_connect(0);
    struct outbox *box = &bench_bus(0)->outboxes[1];
    assert_false(inputs_may_go_on(bench_bus(0)));
    box->routed_bytes += BUS_WINDOW_BYTES;
    bench_say(a, "say 1a from a");
    bench_settle();
    assert_false(inputs_may_go_on(bench_bus(0)));
    box->routed_bytes -= BUS_WINDOW_BYTES;
    bench_bus(0)->window_opened = true;
    assert_true(inputs_may_go_on(bench_bus(0)));
    bench_done(0);
    bench_expect(a, "=1 0 #1\n");
    bench_forget(a);
    bench_end();
}

/* ---- submit filters --------------------------------------------------------------------- */

static roda_verdict delays_slow(struct roda_event *ev)
{
    return says(ev, "slow") && bench_now_ms() < ticket ? roda_delay(ev, delay_ms) : RODA_PASS;
}

static void a_delayed_message_holds_what_is_behind_it(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].submit = filter;
    bench_start();
    decide = delays_slow;
    struct bench_client *c = bench_connect(0);
    ticket = bench_now_ms() + 500; /* till then */
    bench_say(c, "say 0a slow\nsay 0a quick\nping");
    bench_expect(c, "");
    assert_int_equal(bench->decodes, 1);
    assert_int_equal(asked, 1);
    bench_pass(150);
    assert_int_equal(asked, 1);
    bench_pass(100);
    assert_int_equal(asked, 2);
    bench_expect(c, "");
    bench_pass(400);
    bench_expect(c, "=1 0 #1\n=2 0 #2\npong\n");
    assert_int_equal(asked, 5);
    assert_null(bench_conn(0)->waiting);
    bench_forget(c);
    bench_end();
}

static void nothing_is_delayed_longer_than_max_delay(void **state)
{
    (void)state;
    for (int huge = 0; huge <= 1; huge++) {
        bench_new(1);
        bench->plugins[FIRST].submit = filter;
        bench_start();
        decide = delays_slow;
        delay_ms = huge ? UINT64_MAX : 3000;
        struct bench_client *c = bench_connect(0);
        ticket = UINT64_MAX;
        bench_say(c, "say 0a slow\nsay 0a quick");
        bench_pass(9900);
        bench_expect(c, "");
        bench_pass(200);
        bench_expect(c, "=1 17 #0 it was held back for too long and then refused\n=2 0 #1\n");
        bench_forget(c);
        bench_end();
    }
}

static void what_may_pass_when_max_delay_is_over_passes(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].submit = filter;
    bench_start();
    decide = delays_slow;
    delay_ms = bench->settings->max_delay_ms;
    struct bench_client *c = bench_connect(0);
    ticket = bench_now_ms() + delay_ms;
    bench_say(c, "say 0a slow\nsay 0a quick");
    bench_pass(delay_ms + 100);
    bench_expect(c, "=1 0 #1\n=2 0 #2\n");
    bench_forget(c);
    bench_end();
}

static uint64_t tickets[4];
static unsigned n_tickets;

static roda_verdict defers_later(struct roda_event *ev)
{
    if (!says(ev, "later"))
        return RODA_PASS;
    assert_true(n_tickets < 4);
    return roda_defer(ev, &tickets[n_tickets++]);
}

static int resume(uint64_t which, roda_verdict verdict, uint32_t code, struct roda_str text)
{
    int r;

    bench_as(0);
    r = roda_resume(bench_ctx(0, FIRST), which, verdict, code, text);
    bench_done(0);
    return r;
}

static void a_deferred_message_waits_for_its_ticket(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].submit = filter;
    bench_start();
    decide = defers_later;
    n_tickets = 0;
    struct bench_client *c = bench_connect(0), *other = bench_connect(0);
    bench_say(c, "say 0a later\nsay 0a now\nsay 0a later\nsay 0a later");
    bench_settle();
    bench_say(other, "say 0a later");
    bench_expect(c, "");
    assert_int_equal(n_tickets, 2);
    assert_int_equal(resume(tickets[1] + 1, RODA_PASS, 0, RODA_STR("")), -ESTALE);
    assert_int_equal(resume(tickets[0], RODA_PASS, 0, RODA_STR("")), 0);
    assert_int_equal(resume(tickets[0], RODA_PASS, 0, RODA_STR("")), -ESTALE);
    assert_int_equal(n_tickets, 3);
    bench_expect(c, "=1 0 #1\n=2 0 #2\n");
    assert_int_equal(resume(tickets[2], RODA_REJECT, RODA_E_BANNED, RODA_STR("no")), 0);
    assert_int_equal(n_tickets, 4);
    assert_int_equal(resume(tickets[3], RODA_DROP, 0, RODA_STR("")), 0);
    bench_expect(c, "=3 9 #0 no\n=4 1 #0 not passed on\n");
    bench_close(other); /* what is deferred goes with its connection */
    bench_settle();
    assert_int_equal(resume(tickets[1], RODA_PASS, 0, RODA_STR("")), -ESTALE);
    bench_expect(c, "");
    assert_true(list_empty(&bench_bus(0)->tickets));
    bench_forget(c);
    bench_forget(other);
    bench_end();
}

static void nothing_is_deferred_longer_than_max_delay(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].submit = filter;
    bench_start();
    decide = defers_later;
    n_tickets = 0;
    struct bench_client *c = bench_connect(0);
    bench_say(c, "say 0a later\nsay 0a now");
    bench_pass(10100);
    bench_expect(c, "=1 17 #0 it was held back for too long and then refused\n=2 0 #1\n");
    assert_int_equal(resume(tickets[0], RODA_PASS, 0, RODA_STR("")), -ESTALE);
    bench_forget(c);
    bench_end();
}

static roda_verdict all_sorts(struct roda_event *ev)
{
    if (says(ev, "drop"))
        return RODA_DROP;
    if (says(ev, "mute"))
        return RODA_REJECT; /* without roda_reject() */
    if (says(ev, "odd"))
        return 77;
    return RODA_PASS;
}

static void verdicts_become_answers(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].submit = filter;
    bench_start();
    decide = all_sorts;
    struct bench_client *c = bench_connect(0);
    bench_say(c, "say 0a drop\nsay 0a mute\nping\nsay 0a odd");
    bench_expect(c, "=1 1 #0 not passed on\n=2 1 #0 not passed on\npong\n=3 0 #1\n");
    assert_int_equal(bench_counter(messages_dropped), 2);
    bench_forget(c);
    bench_end();
}

static roda_verdict replaces(struct roda_ctx *x, struct roda_event *ev)
{
    struct roda_msg *msg = bench_msg(x->worker, RODA_TEXT, "0a", "better words");

    if (says(ev, "words"))
        return roda_replace(ev, msg);
    roda_msg_unref(msg);
    return RODA_PASS;
}

static size_t bytes_seen;

static roda_verdict measures(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    bytes_seen = ev->bytes;
    return RODA_PASS;
}

/* The answer finds its way although the filter knew neither sender nor token. */
static void a_replaced_message_is_still_its_senders(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].submit = replaces;
    bench->plugins[SECOND].submit = measures;
    bench_start();
    struct bench_client *c = bench_connect(0), *other = bench_connect(0);
    bench_say(c, "say 0a as it is\nsay 0a words\nping");
    bench_expect(c, "=1 0 #1\n=2 0 #2\npong\n");
    bench_expect(other, "0a #1 <0 as it is\n0a #2 <1 better words\n");
    assert_int_equal(bytes_seen, 12);
    bench_forget(c);
    bench_forget(other);
    bench_end();
}

static roda_verdict replaces_anywhere(struct roda_ctx *x, struct roda_event *ev)
{
    if (!ev->msg)
        return RODA_PASS;
    return roda_replace(ev, bench_msg(x->worker, RODA_TEXT, "0a", "wrong"));
}

static void only_submit_filters_replace(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].admit = replaces_anywhere;
    bench->plugins[FIRST].publish = replaces_anywhere;
    bench->plugins[FIRST].deliver = replaces_anywhere;
    bench_start();
    struct bench_client *c = bench_connect(0), *other = bench_connect(0);
    roda_conn_ask_deliver(bench_conn(0), 1);
    bench_say(c, "say 0a right");
    bench_expect(c, "=1 0 #1\n");
    bench_expect(other, "0a #1 <0 right\n");
    bench_forget(c);
    bench_forget(other);
    bench_end();
}

/* ---- accept and input filters ----------------------------------------------------------- */

static uint64_t until_ms;

static roda_verdict delays_for_a_while(struct roda_event *ev)
{
    return bench_now_ms() < until_ms ? roda_delay(ev, delay_ms) : RODA_PASS;
}

static void accept_may_wait(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].accept = always_pass;
    bench->plugins[SECOND].accept = filter;
    bench_start();
    decide = delays_for_a_while;
    until_ms = bench_now_ms() + 500;
    struct bench_client *c = bench_connect(0);
    bench_say(c, "say 0a early");
    bench_expect(c, "");
    assert_null(bench_conn(0));
    bench_pass(700);
    assert_int_equal(asked, 4);
    bench_expect(c, "=1 0 #1\n");
    assert_null(bench_conn(0)->waiting); /* nothing is kept of it */
    bench_forget(c);
    bench_end();
}

static void accept_waits_no_longer_than_max_delay(void **state)
{
    (void)state;
    for (int huge = 0; huge <= 1; huge++) {
        bench_new(1);
        bench->plugins[FIRST].accept = filter;
        bench_start();
        decide = delays_for_a_while;
        delay_ms = huge ? UINT64_MAX : 900;
        until_ms = UINT64_MAX;
        struct bench_client *c = bench_connect(0), *gone = bench_connect(0);
        bench_forget(gone); /* and somebody who does not wait for it */
        bench_pass(9900);
        bench_read(c);
        assert_false(c->over);
        bench_pass(1500);
        bench_read(c);
        assert_true(c->over);
        assert_int_equal(bench->closed, 0); /* it was never opened */
        bench_forget(c);
        bench_end();
    }
}

static roda_verdict accept_sorts(struct roda_event *ev)
{
    uint64_t none;

    switch (asked) {
    case 1:
        return RODA_DROP;
    case 2:
        return roda_reject(ev, RODA_E_FULL, "full");
    default:
        return roda_defer(ev, &none); /* not at accept: counts as passed */
    }
}

static struct roda_conn *at_the_door;

static void lets_it_go(struct roda_ctx *x, void *arg, int result)
{
    (void)x;
    (void)arg;
    (void)result;
    roda_conn_release(at_the_door);
}

/* Both end in one turn, the hold a little earlier. */
static roda_verdict holds_and_delays(struct roda_ctx *x, struct roda_event *ev)
{
    if (asked++)
        return roda_reject(ev, RODA_E_BANNED, "%s", "not you");
    at_the_door = ev->conn;
    roda_conn_hold(ev->conn);
    assert_non_null(roda_timer_start(x, 100, 0, lets_it_go, NULL));
    return roda_delay(ev, 100);
}

static roda_verdict delays_once(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    return ticket++ ? RODA_PASS : roda_delay(ev, 50);
}

static void no_unit_is_decoded_before_accept_has_decided(void **state)
{
    (void)state;
    for (int with_input_filter = 0; with_input_filter <= 1; with_input_filter++) {
        bench_new(1);
        bench->plugins[FIRST].accept = holds_and_delays;
        if (with_input_filter)
            bench->plugins[SECOND].input = delays_once;
        bench_start();
        asked = 0;
        ticket = 0;
        struct bench_client *c = bench_connect(0);
        bench_say(c, "ping");
        bench_pass(1000);
        bench_read(c);
        assert_int_equal(asked, 2);
        assert_int_equal(bench->decodes, 0);
        assert_int_equal(bench->closed, 0);
        assert_string_equal(c->in, "");
        assert_true(c->over);
        bench_forget(c);
        bench_end();
    }
}

static unsigned after;

static roda_verdict comes_after(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    (void)ev;
    after++;
    return RODA_PASS;
}

static void accept_filters_refuse(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].accept = filter;
    bench->plugins[SECOND].accept = comes_after;
    bench_start();
    decide = accept_sorts;
    after = 0;
    struct bench_client *c[3];
    for (int i = 0; i < 3; i++)
        c[i] = bench_connect(0);
    bench_pass(1000);
    for (int i = 0; i < 3; i++)
        bench_read(c[i]);
    assert_true(c[0]->over);
    assert_true(c[1]->over);
    assert_false(c[2]->over);
    assert_int_equal(after, 1); /* a verdict that is none does not switch the next one off */
    for (int i = 0; i < 3; i++)
        bench_forget(c[i]);
    bench_end();
}

static void input_filters_hold_the_unit(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].input = always_pass;
    bench->plugins[SECOND].input = filter;
    bench_start();
    decide = delays_for_a_while;
    until_ms = bench_now_ms() + 500;
    struct bench_client *c = bench_connect(0);
    bench_say(c, "say 0a 1\nping\nsay 0a 2");
    bench_expect(c, "");
    assert_int_equal(bench->decodes, 0);
    bench_pass(700);
    bench_expect(c, "=1 0 #1\npong\n=2 0 #2\n");
    assert_int_equal(asked, 6); /* 4 for the first one; a barrier asks no filter again */
    assert_null(bench_conn(0)->waiting);
    bench_forget(c);
    bench_end();
}

static void a_unit_waits_no_longer_than_max_delay(void **state)
{
    (void)state;
    for (int huge = 0; huge <= 1; huge++) {
        bench_new(1);
        bench->plugins[FIRST].input = filter;
        bench_start();
        decide = delays_for_a_while;
        delay_ms = huge ? UINT64_MAX : 4000;
        struct bench_client *c = bench_connect(0);
        until_ms = bench_now_ms() + 12000;
        bench_say(c, "say 0a 1\nsay 0a 2");
        bench_pass(9900);
        bench_expect(c, "");
        bench_pass(200);
        bench_expect(c, "!17 it was held back for too long and then refused\n");
        bench_pass(10100);
        bench_expect(c, "=1 0 #1\n"); /* the second unit; the first was never a message */
        bench_forget(c);
        bench_end();
    }
}

static roda_verdict input_sorts(struct roda_event *ev)
{
    uint64_t none;

    switch (asked) {
    case 1:
        return RODA_DROP;
    case 2:
        return roda_reject(ev, RODA_E_RATE, "flood");
    case 3:
        return RODA_REJECT;
    case 4:
        return roda_defer(ev, &none);
    default:
        return RODA_PASS;
    }
}

static void input_filters_refuse(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].input = filter;
    bench->plugins[SECOND].input = comes_after;
    bench_start();
    decide = input_sorts;
    after = 0;
    struct bench_client *c = bench_connect(0);
    bench_say(c, "ping\nping\nping\nping\nping");
    bench_expect(c, "!15 flood\n!1 not passed on\npong\npong\n");
    assert_int_equal(after, 2);
    bench_forget(c);
    bench_end();
}

static void says_bye(struct roda_ctx *x, struct roda_conn *c, const char *reason)
{
    (void)x;
    roda_out_printf(roda_conn_out(c), "bye: %s", reason);
    roda_out_unit(roda_conn_out(c));
}

static roda_verdict third_is_too_much(struct roda_event *ev)
{
    if (asked < 3)
        return RODA_PASS;
    roda_conn_close(ev->conn, "%s", "flood");
    return roda_reject(ev, RODA_E_RATE, "too much");
}

/* Where, and how it is refused: as input, or as a message. */
static void last_words_come_behind_all_answers(void **state)
{
    (void)state;
    for (int as_message = 0; as_message <= 1; as_message++) {
        bench_new(2);
        bench->protocols[0].closing = says_bye;
        if (as_message)
            bench->plugins[FIRST].submit = filter;
        else
            bench->plugins[FIRST].input = filter;
        bench->plugins[SECOND].publish = defers;
        bench_start();
        asked = 0;
        decide = third_is_too_much;
        struct bench_client *c = bench_connect(0);
        bench_say(c, "say 1a one\nsay 1a two\nsay 1a three");
        bench_settle();
        bench_expect(c, "");
        let_go(1, 2);
        bench_expect(c, as_message ? "=1 0 #1\n=2 0 #2\n=3 15 #0 too much\nbye: flood\n"
                                   : "=1 0 #1\n=2 0 #2\n!15 too much\nbye: flood\n");
        bench_forget(c);
        bench_end();
    }
}

/* Whatever keeps the answers: it has write_timeout. */
static void last_words_do_not_wait_for_ever(void **state)
{
    (void)state;
    bench_new(2);
    bench->settings->write_timeout_ms = 2000;
    bench->protocols[0].closing = says_bye;
    bench->plugins[SECOND].publish = defers;
    bench_start();
    struct bench_client *c = bench_connect(0);
    bench_say(c, "say 1a one");
    bench_settle();
    bench_as(0);
    roda_conn_close(bench_conn(0), "%s", "now");
    bench_done(0);
    bench_expect(c, "");
    bench_pass(2100);
    bench_expect(c, "bye: now\n");
    let_go(1, 1);
    bench_pass(2100);
    assert_int_equal(bench_worker(0)->net.open, 0);
    bench_forget(c);
    bench_end();
}

/* As a limit does: what it has counted may pass later. */
static size_t counted_bytes, decoded_bytes;
static bool paid;

static roda_verdict counts_and_delays(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    paid = !paid;
    if (!paid)
        return RODA_PASS;
    counted_bytes += ev->bytes;
    return roda_delay(ev, 1000);
}

static int decode_raw(struct roda_ctx *x, struct roda_conn *c, struct roda_str unit)
{
    (void)x;
    (void)c;
    decoded_bytes += unit.len;
    return RODA_TAKEN;
}

static void raw_bytes_that_come_while_others_wait_are_filtered_too(void **state)
{
    static const char bulk[1000] = {0};

    (void)state;
    bench_new(1);
    bench->protocols[0].framing = RODA_RAW;
    bench->protocols[0].decode = decode_raw;
    bench->plugins[FIRST].input = counts_and_delays;
    bench_start();
    counted_bytes = decoded_bytes = 0;
    paid = false;
    struct bench_client *c = bench_connect(0);
    for (size_t i = 1; i <= 5; i++) {
        assert_int_equal(sim_client_write(c->end, "x", 1), 1);
        bench_settle(); /* one byte is counted and waits, and much comes behind it */
        assert_int_equal(sim_client_write(c->end, bulk, sizeof bulk), sizeof bulk);
        bench_pass(1100);
        assert_int_equal(decoded_bytes, counted_bytes - sizeof bulk);
        bench_pass(1100);
        assert_int_equal(decoded_bytes, i * (1 + sizeof bulk));
        assert_int_equal(counted_bytes, decoded_bytes);
    }
    bench_forget(c);
    bench_end();
}

static void tells_too_long(struct roda_ctx *x, struct roda_conn *c, size_t bytes)
{
    (void)x;
    roda_out_printf(roda_conn_out(c), "too long: %zu", bytes);
    roda_out_unit(roda_conn_out(c));
}

/* What is too long is gone, but it takes its time, and what comes after it takes its turn. */
static void oversize_units_wait_like_others(void **state)
{
    (void)state;
    bench_new(1);
    bench->settings->unit_max_bytes = 100;
    bench->protocols[0].oversize = tells_too_long;
    bench->plugins[FIRST].input = filter;
    bench->plugins[SECOND].input = comes_after;
    bench_start();
    decide = delays_for_a_while;
    delay_ms = 100;
    after = 0;
    struct bench_client *c = bench_connect(0);
    until_ms = bench_now_ms() + 500;
    bench_say(c, "say 0a %0200d\nping", 1);
    bench_expect(c, "");
    assert_int_equal(after, 0);
    bench_pass(700);
    bench_expect(c, "too long: 207\npong\n");
    assert_int_equal(after, 2);
    assert_null(bench_conn(0)->waiting);
    /* No longer than max_delay, and before the end of its input. */
    until_ms = bench_now_ms() + 12000;
    bench_say(c, "say 0a %0200d", 1);
    sim_client_shutdown(c->end);
    bench_pass(9900);
    bench_expect(c, "");
    bench_pass(200);
    bench_expect(c, "!17 it was held back for too long and then refused\n");
    assert_true(c->over);
    bench_forget(c);
    /* Who goes meanwhile takes it with him. */
    c = bench_connect(0);
    until_ms = bench_now_ms() + 5000;
    bench_say(c, "say 0a %0200d", 1);
    bench_settle();
    sim_client_reset(c->end);
    c->end = NULL;
    bench_pass(6000);
    bench_forget(c);
    bench_end();
}

/* A message that a plugin submits while a unit of the same connection is delayed: each has its own
 * time. */
static void a_delayed_unit_and_a_held_message_do_not_disturb_each_other(void **state)
{
    (void)state;
    bench_new(2);
    bench->plugins[FIRST].input = filter;
    bench->plugins[SECOND].publish = defers;
    bench_start();
    struct bench_client *c = bench_connect(0);
    struct roda_conn *conn = bench_conn(0);
    decide = delays_for_a_while;
    until_ms = bench_now_ms() + 250;
    bench_say(c, "ping");
    bench_settle();
    for (int i = 1; i <= 2; i++) { /* the second waits for the first: another home */
        struct roda_msg *msg = bench_msg(0, RODA_TEXT, i == 1 ? "1a" : "0a", "m");
        msg->from = roda_conn_getid(conn);
        msg->token = (uint64_t)i;
        bench_as(0);
        roda_submit(bench_ctx(0, OWNER), conn, msg);
        bench_done(0);
    }
    let_go(1, 1);
    let_go(0, 1);
    bench_expect(c, "=1 0 #1\n=2 0 #1\n");
    bench_pass(1000);
    bench_expect(c, "pong\n");
    bench_forget(c);
    bench_end();
}

/* ---- gone ------------------------------------------------------------------------------- */

static void what_was_routed_is_published_though_the_sender_is_gone(void **state)
{
    (void)state;
    bench_new(2);
    bench->plugins[SECOND].publish = defers;
    bench_start();
    struct bench_client *other = bench_connect(1), *c = bench_connect(0);
    bench_say(c, "say 1a one\nsay 1a two\nsay 0a not routed yet");
    bench_settle();
    sim_client_reset(c->end);
    c->end = NULL;
    bench_settle();
    assert_int_equal(bench->closed, 0); /* something of it is under way */
    assert_int_equal(bench_worker(0)->net.open, 0);
    let_go(1, 1);
    assert_int_equal(bench->closed, 0);
    let_go(1, 1);
    assert_int_equal(bench->closed, 1);
    assert_null(bench_worker(0)->net.slots[0].conn);
    bench_expect(other, "1a #1 <0 one\n1a #2 <1 two\n");
    assert_int_equal(bench_counter(under_way), 0);
    assert_null(bench_lane(0, 'a'));
    assert_int_equal(bench->answers, 0);
    bench_forget(c);
    bench_forget(other);
    bench_end();
}

static void a_protocol_error_ends_the_connection(void **state)
{
    (void)state;
    bench_new(1);
    bench_start();
    struct bench_client *c = bench_connect(0);
    bench_say(c, "say 0a 1\nbad\nsay 0a 2");
    bench_pass(300);
    bench_read(c);
    assert_string_equal(c->in, "=1 0 #1\n");
    assert_true(c->over);
    assert_int_equal(bench->closed, 1);
    bench_forget(c);
    bench_end();
}

static int handles_later_once(struct roda_ctx *x, struct roda_event *ev)
{
    static unsigned calls;

    if (says(ev, "unknown")) {
        roda_refuse(x, ev, RODA_E_ARGUMENT, "what %d", 1);
        roda_refuse(x, ev, RODA_E_ARGUMENT, "twice"); /* has no effect */
        return RODA_HANDLED;
    }
    if (says(ev, "done")) {
        roda_answer(x, ev->conn, RODA_OK, RODA_STR(""), ev->msg);
        return RODA_HANDLED;
    }
    if (says(ev, "settled") && ev->conn->under_way)
        return RODA_LATER;
    if (says(ev, "spin") && calls++ < 3)
        return RODA_LATER;
    return bench_route(x, ev);
}

static void an_owner_may_answer_refuse_or_wait(void **state)
{
    (void)state;
    bench_new(2);
    bench->handle = handles_later_once;
    bench_start();
    struct bench_client *c = bench_connect(0);
    bench_say(c, "say 1a unknown\nping\nsay 1a done\nping\nsay 1a x\nsay 1a settled\nsay 1a spin");
    bench_expect(c, "=1 21 #0 what 1\npong\n=2 0 #0\npong\n=3 0 #1\n=4 0 #2\n=5 0 #3\n");
    bench_forget(c);
    bench_end();
}

static void holding_a_connection_counts(void **state)
{
    (void)state;
    bench_new(1);
    bench_start();
    struct bench_client *c = bench_connect(0);
    roda_conn_hold(bench_conn(0));
    roda_conn_hold(bench_conn(0));
    bench_say(c, "ping");
    bench_expect(c, "");
    bench_as(0);
    roda_conn_release(bench_conn(0));
    bench_done(0);
    bench_expect(c, "");
    bench_as(0);
    roda_conn_release(bench_conn(0));
    bench_done(0);
    bench_expect(c, "pong\n");
    bench_forget(c);
    bench_end();
}

/* ---- memory ----------------------------------------------------------------------------- */

static roda_verdict delays_or_defers(struct roda_event *ev)
{
    switch (ev->msg->text.ptr[0]) {
    case 'l':
        return bench_now_ms() < until_ms ? roda_delay(ev, 20) : RODA_PASS;
    case 't':
        return roda_defer(ev, &tickets[0]);
    case 'r':
        return roda_reject(ev, RODA_E_RATE, "a reason of some length: %s", "slow down");
    default:
        return RODA_PASS;
    }
}

static void each_message_is_answered_once_whatever_allocation_fails(void **state)
{
    static const char *const texts[] = {"plain", "late", "refused", "ticket", "plain", "r", "end"};
    enum { N = sizeof texts / sizeof *texts };

    (void)state;
    for (uint64_t every = 0; every <= 1; every++) {
        bool failed = true;
        for (uint64_t n = 1; failed; n++) {
            bool told[N + 1] = {false};
            uint64_t before;
            char *line;
            bench_new(2);
            bench->plugins[FIRST].submit = filter;
            bench_start();
            decide = delays_or_defers;
            struct bench_client *c = bench_connect(0);
            until_ms = bench_now_ms() + 30;
            before = memory_allocations();
            memory_fail_at(n, every);
            for (int i = 0; i < N; i++)
                bench_say(c, "say %da %s", i % 2, texts[i]);
            bench_pass(100);
            resume(tickets[0], RODA_REJECT, RODA_E_BANNED, RODA_STR("no"));
            bench_settle();
            failed = memory_allocations() >= before + n;
            memory_fail_at(0, 0);
            bench_pass(11000);
            while ((line = bench_line(c))) {
                unsigned token, code;
                if (sscanf(line, "=%u %u", &token, &code) != 2)
                    continue;
                assert_in_range(token, 1, N);
                assert_false(told[token]);
                told[token] = true;
            }
            for (int i = 1; i <= N && !c->over; i++)
                assert_true(told[i]);
            assert_true(failed || !c->over);
            bench_forget(c);
            bench_end();
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup(name, begin)
        TEST(input_waits_at_64_messages_under_way),
        TEST(input_waits_at_64_kilobytes_under_way),
        TEST(nobody_gets_beyond_the_bound),
        TEST(a_barrier_waits_for_everything_before_it),
        TEST(a_barrier_waits_for_answers),
        TEST(end_of_input_waits_like_a_barrier),
        TEST(the_next_destination_waits_for_the_receipts_of_the_last),
        TEST(a_full_window_holds_input_and_opens_again),
        TEST(a_window_that_opens_late_in_a_turn_is_work),
        TEST(a_delayed_message_holds_what_is_behind_it),
        TEST(nothing_is_delayed_longer_than_max_delay),
        TEST(what_may_pass_when_max_delay_is_over_passes),
        TEST(a_deferred_message_waits_for_its_ticket),
        TEST(nothing_is_deferred_longer_than_max_delay),
        TEST(verdicts_become_answers),
        TEST(a_replaced_message_is_still_its_senders),
        TEST(only_submit_filters_replace),
        TEST(accept_may_wait),
        TEST(accept_waits_no_longer_than_max_delay),
        TEST(no_unit_is_decoded_before_accept_has_decided),
        TEST(accept_filters_refuse),
        TEST(input_filters_hold_the_unit),
        TEST(a_unit_waits_no_longer_than_max_delay),
        TEST(input_filters_refuse),
        TEST(last_words_come_behind_all_answers),
        TEST(last_words_do_not_wait_for_ever),
        TEST(raw_bytes_that_come_while_others_wait_are_filtered_too),
        TEST(oversize_units_wait_like_others),
        TEST(a_delayed_unit_and_a_held_message_do_not_disturb_each_other),
        TEST(what_was_routed_is_published_though_the_sender_is_gone),
        TEST(a_protocol_error_ends_the_connection),
        TEST(an_owner_may_answer_refuse_or_wait),
        TEST(holding_a_connection_counts),
        TEST(each_message_is_answered_once_whatever_allocation_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
