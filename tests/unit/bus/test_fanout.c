/* The fan-out: encoded once per encoding that is in use, chunks used again and shared, deliver
 * filters, and nobody who misses a message without being told. */
#include "unit/bus/bench.h"

#include "net/queue.h"

static unsigned encodings(uint32_t w)
{
    struct bus *bus = bench_bus(w);
    unsigned n = 0;

    for (struct list *node = bus->encodings.next; node != &bus->encodings; node = node->next)
        n++;
    return n;
}

static uint64_t pinned_chunks(uint32_t w)
{
    return bench_worker(w)->net.chunks.pinned_bytes / CHUNK_BYTES;
}

static void a_message_is_encoded_once_per_variant_in_use(void **state)
{
    struct bench_client *c[12];

    (void)state;
    bench_new(2);
    bench_start();
    for (unsigned i = 0; i < 12; i++) {
        c[i] = bench_connect(i / 6);
        bench_say(c[i], "variant %u", i / 6 ? 7 : i % 3);
        bench_settle();
    }
    for (unsigned i = 1; i <= 5; i++)
        bench_say(c[0], "say 1a %u", i);
    bench_expect(c[0], "=1 0 #1\n=2 0 #2\n=3 0 #3\n=4 0 #4\n=5 0 #5\n");
    assert_int_equal(bench->encodes, 5 * (3 + 1));
    assert_int_equal(bench_counter(encodes), bench->encodes);
    assert_int_equal(bench_counter(deliveries), 5 * 11);
    bench_expect(c[4], "1a #1 <0 1 v1\n1a #2 <1 2 v1\n1a #3 <2 3 v1\n1a #4 <3 4 v1\n"
                       "1a #5 <4 5 v1\n");
    bench_expect(c[11], "1a #1 <0 1 v7\n1a #2 <1 2 v7\n1a #3 <2 3 v7\n1a #4 <3 4 v7\n"
                        "1a #5 <4 5 v7\n");
    for (unsigned i = 0; i < 12; i++)
        bench_forget(c[i]);
    bench_end();
}

static void only_the_bits_that_matter_make_an_encoding(void **state)
{
    struct bench_client *c[8];

    (void)state;
    bench_new(1);
    bench->masks[RODA_TEXT] = 1;
    bench->masks[RODA_NOTICE] = 0;
    bench->masks[RODA_JOIN] = 6;
    bench_start();
    for (unsigned i = 0; i < 8; i++) {
        c[i] = bench_connect(0);
        bench_say(c[i], "variant %u", i);
    }
    bench_settle();
    bench_say(c[0], "say 0a x");
    bench_expect(c[0], "=1 0 #1\n");
    assert_int_equal(bench->encodes, 2);
    bench_expect(c[6], "0a #1 <0 x\n");
    bench_expect(c[7], "0a #1 <0 x v1\n");
    bench_say(c[0], "do %d 0a y", RODA_NOTICE);
    bench_expect(c[7], "0a #2 <1 y\n");
    assert_int_equal(bench->encodes, 3);
    bench_say(c[0], "do %d 0a z", RODA_JOIN);
    bench_expect(c[7], "0a #0 <2 z v6\n");
    assert_int_equal(bench->encodes, 7);
    bench_say(c[0], "do %d 0a all", RODA_TYPING);
    bench_expect(c[7], "0a #0 <2 all v7\n");
    assert_int_equal(bench->encodes, 14); /* the sender's is not in use */
    assert_int_equal(encodings(0), 8);
    for (unsigned i = 0; i < 8; i++)
        bench_forget(c[i]);
    bench_end();
}

/* Whoever takes one variant after the other leaves nothing behind. */
static void encodings_go_with_their_last_user(void **state)
{
    (void)state;
    bench_new(1);
    bench->masks[RODA_TEXT] = 0xff0;
    bench_start();
    struct bench_client *quiet = bench_connect(0), *odd = bench_connect(0);
    for (unsigned i = 1; i <= 200; i++) {
        char expected[64];
        bench_say(odd, "variant %u", i * 16 + 3); /* only i * 16 matters to texts */
        bench_settle();
        bench_say(quiet, "say 0a x");
        bench_settle();
        snprintf(expected, sizeof expected, "0a #%u <%u x v%u\n", i, i - 1, i * 16);
        bench_expect(odd, expected);
        assert_in_range(encodings(0), 2, 3);
        assert_int_equal(bench_bus(0)->chunks_owned, encodings(0));
    }
    bench_forget(odd);
    bench_settle();
    assert_int_equal(encodings(0), 1);
    assert_true(pinned_chunks(0) <= 3); /* of the encoding, replies, shared */
    bench_forget(quiet);
    bench_settle();
    assert_int_equal(encodings(0), 0);
    assert_int_equal(bench_bus(0)->chunks_owned, 0);
    bench_end();
}

static void at_most_16_encodings_own_a_chunk(void **state)
{
    enum { VARIANTS = 40 };
    struct bench_client *c[VARIANTS];
    char expected[64];

    (void)state;
    bench_new(1);
    bench_start();
    for (unsigned i = 0; i < VARIANTS; i++) {
        c[i] = bench_connect(0);
        bench_say(c[i], "variant %u", i);
    }
    for (unsigned n = 1; n <= 3; n++) {
        bench_settle();
        bench_say(c[0], "say 0a text %u", n);
        bench_settle();
        for (unsigned i = 1; i < VARIANTS; i++) {
            snprintf(expected, sizeof expected, "0a #%u <%u text %u v%u\n", n, n - 1, n, i);
            bench_expect(c[i], expected);
        }
        assert_int_equal(bench->encodes, n * (VARIANTS - 1));
    }
    assert_int_equal(encodings(0), VARIANTS);
    assert_int_equal(bench_bus(0)->chunks_owned, 16);
    assert_true(pinned_chunks(0) <= 16 + 1 + 1);
    assert_true(bench_bus(0)->shared_chunk->counts_units);
    for (unsigned i = 0; i < VARIANTS; i++)
        bench_forget(c[i]);
    bench_end();
}

static void a_chunk_is_used_again_when_no_reader_is_behind(void **state)
{
    (void)state;
    bench_new(1);
    bench_start();
    struct bench_client *a = bench_connect(0), *b = bench_connect(0);
    for (unsigned i = 0; i < 300; i++) { /* 300 kB, one after the other */
        bench_say(a, "say 0a %01000u", i);
        bench_settle();
        assert_int_equal(bench_count(b, "0a #"), 1);
    }
    assert_true(pinned_chunks(0) <= 2);
    /* A reader that is behind pins what it has not read; nothing is written over it. */
    bench_close(b);
    struct bench_client *slow = bench_connect(0);
    sim_client_pause(slow->end, true);
    for (unsigned i = 0; i < 1500; i++) {
        bench_say(a, "say 0a %01000u", i);
        bench_settle();
    }
    assert_true(pinned_chunks(0) > 4);
    sim_client_pause(slow->end, false);
    bench_settle();
    for (unsigned i = 0; i < 1500; i++) {
        unsigned number, prev, text;
        char *line = bench_line(slow);
        if (!line) {
            bench_settle();
            line = bench_line(slow);
        }
        assert_non_null(line);
        assert_int_equal(sscanf(line, "0a #%u <%u %u", &number, &prev, &text), 3);
        assert_int_equal(text, i);
        assert_int_equal(number, 301 + i);
    }
    bench_say(a, "say 0a last");
    bench_settle();
    assert_true(pinned_chunks(0) <= 2);
    bench_forget(a);
    bench_forget(b);
    bench_forget(slow);
    bench_end();
}

/* ---- deliver ---------------------------------------------------------------------------- */

static unsigned delivered;

static roda_verdict hides_secrets(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    assert_non_null(ev->conn);
    delivered++;
    switch (ev->msg->text.ptr[0]) {
    case 's':
        return RODA_DROP;
    case 'r':
        return roda_reject(ev, RODA_E_RATE, "not here");
    default:
        return RODA_PASS;
    }
}

static void deliver_filters_run_for_those_that_asked(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].deliver = hides_secrets;
    bench_start();
    delivered = 0;
    struct bench_client *a = bench_connect(0), *b = bench_connect(0);
    roda_conn_ask_deliver(bench_conn(0), 1);
    struct bench_client *c = bench_connect(0);
    bench_say(a, "say 0a open\nsay 0a secret\nsay 0a rejected\nsay 0a open");
    bench_expect(b, "0a #1 <0 open\n0a #4 <3 open\n");
    bench_expect(c, "0a #1 <0 open\n0a #2 <1 secret\n0a #3 <2 rejected\n0a #4 <3 open\n");
    assert_int_equal(delivered, 4);
    roda_conn_ask_deliver(bench_state(0)->conns[1], 0);
    bench_say(a, "say 0a secret");
    bench_expect(b, "0a #5 <4 secret\n");
    assert_int_equal(delivered, 4);
    bench_forget(a);
    bench_forget(b);
    bench_forget(c);
    bench_end();
}

/* It sends something else to the receiver, and changes how it is encoded. */
static roda_verdict warns(struct roda_ctx *x, struct roda_event *ev)
{
    static bool inside;

    if (inside || ev->msg->text.ptr[0] != 's')
        return RODA_PASS;
    inside = true;
    struct roda_msg *warning = bench_msg(0, RODA_NOTICE, "0a", "warning");
    roda_send(x, ev->conn, warning);
    roda_msg_unref(warning);
    roda_conn_set_variant(ev->conn, roda_conn_variant(ev->conn) + 1);
    inside = false;
    return RODA_PASS;
}

static void a_deliver_filter_may_send(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].deliver = warns;
    bench_start();
    struct bench_client *a = bench_connect(0), *b = bench_connect(0);
    roda_conn_ask_deliver(bench_conn(0), 1);
    struct bench_client *c = bench_connect(0);
    roda_conn_ask_deliver(bench_conn(0), 1);
    struct bench_client *d = bench_connect(0);
    bench_say(a, "say 0a spam");
    bench_expect(b, "0a #0 <0 warning\n0a #1 <0 spam v1\n");
    bench_expect(c, "0a #0 <0 warning\n0a #1 <0 spam v1\n");
    bench_expect(d, "0a #1 <0 spam\n");
    bench_say(a, "say 0a spam");
    bench_expect(b, "0a #0 <0 warning v1\n0a #2 <1 spam v2\n");
    bench_forget(a);
    bench_forget(b);
    bench_forget(c);
    bench_forget(d);
    bench_end();
}

/* The bytes of a message are borrowed from an encoding whose last user leaves; then it is sent
 * again. */
static void borrowed_bytes_are_not_kept_beyond_their_owner(void **state)
{
    (void)state;
    bench_new(1);
    bench->masks[RODA_TEXT] = 0;
    bench_start();
    struct bench_client *a = bench_connect(0), *b = bench_connect(0);
    bench_say(b, "variant 5");
    bench_settle();
    struct roda_conn *conn_a = bench_state(0)->conns[0], *conn_b = bench_state(0)->conns[1];
    bench_as(0);
    struct roda_msg *msg = bench_msg(0, RODA_TEXT, "0a", "once and again");
    roda_send(bench_ctx(0, OWNER), conn_b, msg); /* encoded by the encoding of conn_a */
    queue_clear(conn_b, 0);
    roda_conn_set_variant(conn_a, 9); /* which is gone now */
    roda_send(bench_ctx(0, OWNER), conn_b, msg);
    roda_msg_unref(msg);
    bench_done(0);
    bench_expect(b, "0a #0 <0 once and again\n");
    bench_forget(a);
    bench_forget(b);
    bench_end();
}

static void who_closes_gets_nothing_more(void **state)
{
    (void)state;
    bench_new(1);
    bench_start();
    struct bench_client *a = bench_connect(0), *b = bench_connect(0);
    bench_as(0);
    struct roda_msg *msg = bench_msg(0, RODA_TEXT, "0a", "late");
    roda_conn_close(bench_conn(0), "bye");
    roda_fanout(bench_ctx(0, OWNER), msg, bench_state(0)->conns, bench_state(0)->n_conns);
    roda_send(bench_ctx(0, OWNER), bench_conn(0), msg);
    roda_msg_unref(msg);
    bench_done(0);
    bench_expect(a, "0a #0 <0 late\n");
    bench_expect(b, "");
    assert_int_equal(bench_counter(deliveries), 1);
    bench_forget(a);
    bench_forget(b);
    bench_end();
}

static void send_much(unsigned messages)
{
    char text[1024];

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    bench_as(0);
    for (unsigned i = 0; i < messages; i++) {
        struct roda_msg *msg = bench_msg(0, RODA_TEXT, "0a", text);
        roda_send(bench_ctx(0, OWNER), bench_conn(0), msg);
        roda_msg_unref(msg);
    }
    roda_conn_close(bench_conn(0), "bye");
    bench_done(0);
}

/* What it is shown before it is closed lies in the kernel, and takes its time. */
static void who_reads_slowly_is_told_all(void **state)
{
    enum { MESSAGES = 100 };
    static char piece[2000];
    size_t got = 0;
    int n;

    (void)state;
    bench_new(1);
    bench_start();
    struct bench_client *c = bench_connect(0);
    send_much(MESSAGES);
    bench_pass(3000); /* it does something else at first */
    do {
        bench_pass(90);
        n = sim_client_read(c->end, piece, sizeof piece);
        got += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    assert_int_equal(n, 0); /* the end, and no reset */
    assert_true(got > MESSAGES * 1024);
    bench_forget(c);
    bench_end();
}

static void who_does_not_read_is_not_waited_for_longer(void **state)
{
    enum { MESSAGES = 120 };
    static char piece[2000];
    uint64_t begun_ms;
    size_t got = 0;
    int n;

    (void)state;
    bench_new(1);
    bench_start();
    bench->settings->write_timeout_ms = 2000;
    struct bench_client *c = bench_connect(0), *d, *e;
    send_much(MESSAGES);
    begun_ms = bench_now_ms();
    while (bench_worker(0)->net.open)
        bench_pass(10);
    assert_in_range(bench_now_ms() - begun_ms, 1000, 3500);
    /* Nor is who would read for ever. */
    d = bench_connect(0);
    send_much(MESSAGES);
    begun_ms = bench_now_ms();
    while (bench_worker(0)->net.open) {
        bench_pass(90);
        n = sim_client_read(d->end, piece, sizeof piece);
        got += n > 0 ? (size_t)n : 0;
    }
    assert_in_range(bench_now_ms() - begun_ms, 1000, 3500);
    assert_true(got < MESSAGES * 1024);
    /* Who has read all and does not close has a moment. */
    e = bench_connect(0);
    send_much(1);
    while (sim_client_read(e->end, piece, sizeof piece) > 0)
        bench_pass(0);
    begun_ms = bench_now_ms();
    while (bench_worker(0)->net.open)
        bench_pass(10);
    assert_in_range(bench_now_ms() - begun_ms, 0, 300);
    bench_forget(c);
    bench_forget(d);
    bench_forget(e);
    bench_end();
}

/* ---- memory ----------------------------------------------------------------------------- */

/* Numbers without a hole, or the end of the connection. */
static void nobody_misses_a_message_whatever_allocation_fails(void **state)
{
    enum { CLIENTS = 20, MESSAGES = 6 };

    (void)state;
    for (uint64_t every = 0; every <= 1; every++) {
        bool failed = true;
        for (uint64_t n = 1; failed; n++) {
            struct bench_client *c[CLIENTS];
            uint64_t before;
            bench_new(2);
            bench->masks[RODA_NOTICE] = 1;
            bench_start();
            for (unsigned i = 0; i < CLIENTS; i++) {
                c[i] = bench_connect(i % 2);
                bench_say(c[i], "variant %u", i);
            }
            bench_settle();
            before = memory_allocations();
            memory_fail_at(n, every);
            for (unsigned i = 1; i <= MESSAGES; i++) {
                bench_say(c[0], "do %d 1a x", i % 3 ? RODA_TEXT : RODA_NOTICE);
                bench_settle();
            }
            failed = memory_allocations() >= before + n;
            memory_fail_at(0, 0);
            bench_say(c[0], "say 1a x"); /* so that a hole at the end shows, too */
            bench_settle();
            for (unsigned i = 1; i < CLIENTS; i++) {
                unsigned long long number, prev, last = 0;
                char *line;
                while ((line = bench_line(c[i]))) {
                    assert_int_equal(sscanf(line, "1a #%llu <%llu", &number, &prev), 2);
                    assert_int_equal(prev, last);
                    last = number;
                }
                if (!failed)
                    assert_int_equal(last, MESSAGES + 1);
            }
            for (unsigned i = 0; i < CLIENTS; i++)
                bench_forget(c[i]);
            bench_end();
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_is_encoded_once_per_variant_in_use),
        cmocka_unit_test(only_the_bits_that_matter_make_an_encoding),
        cmocka_unit_test(encodings_go_with_their_last_user),
        cmocka_unit_test(at_most_16_encodings_own_a_chunk),
        cmocka_unit_test(a_chunk_is_used_again_when_no_reader_is_behind),
        cmocka_unit_test(deliver_filters_run_for_those_that_asked),
        cmocka_unit_test(a_deliver_filter_may_send),
        cmocka_unit_test(borrowed_bytes_are_not_kept_beyond_their_owner),
        cmocka_unit_test(who_closes_gets_nothing_more),
        cmocka_unit_test(who_reads_slowly_is_told_all),
        cmocka_unit_test(who_does_not_read_is_not_waited_for_longer),
        cmocka_unit_test(nobody_misses_a_message_whatever_allocation_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
