/* Answers that are queued: given at the end of the turn, in order, also when memory is out. */
#include "unit/bus/bench.h"

static void every_code_has_a_sentence(void **state)
{
    (void)state;
    assert_string_equal(answer_sentence(RODA_OK), "");
    for (uint32_t code = 1; code <= RODA_E_AUTH; code++) {
        assert_true(strlen(answer_sentence(code)) > 3);
        assert_string_not_equal(answer_sentence(code), "refused");
    }
    assert_string_equal(answer_sentence(RODA_E_AUTH + 1), "refused");
    assert_string_equal(answer_sentence(UINT32_MAX), "refused");
}

static struct roda_msg *message_from(const struct roda_conn *c, uint64_t token)
{
    struct roda_msg *msg = bench_msg(0, RODA_TEXT, "0a", "x");

    assert_non_null(msg);
    msg->from = roda_conn_getid(c);
    msg->token = token;
    return msg;
}

static void answer_it(struct roda_conn *c, uint64_t token, uint32_t code, const char *text)
{
    struct roda_msg *msg = message_from(c, token);

    roda_answer(bench_ctx(0, OWNER), c, code, (struct roda_str){text, strlen(text)}, msg);
    roda_msg_unref(msg);
}

static void answers_are_given_at_the_end_of_the_turn_in_order(void **state)
{
    (void)state;
    bench_new(1);
    bench_start();
    struct bench_client *c = bench_connect(0);
    struct roda_conn *conn = bench_conn(0);
    bench_as(0);
    assert_true(roda_settled(conn));
    answer_it(conn, 1, RODA_OK, "");
    answer_it(conn, 2, RODA_E_RANK, "not you");
    answer_it(conn, 3, RODA_E_RATE, "");
    answer_it(conn, 4, RODA_E_TIMEOUT, "");
    answer_it(conn, 5, RODA_E_DROPPED, "");
    assert_int_equal(bench->answers, 0);
    assert_false(roda_settled(conn));
    bench_done(0);
    assert_true(roda_settled(conn));
    bench_expect(c, "=1 0 #0\n=2 13 #0 not you\n=3 15 #0 too fast; wait a little\n"
                    "=4 17 #0 it was held back for too long and then refused\n"
                    "=5 1 #0 not passed on\n");
    assert_int_equal(bench_counter(answers), 5);
    assert_int_equal(bench_counter(messages_refused), 3);
    assert_int_equal(bench_counter(messages_dropped), 1);
    assert_int_equal(bench_counter(refused_rate), 1);
    assert_int_equal(bench_counter(refused_timeout), 1);
    bench_forget(c);
    bench_end();
}

static void an_answer_for_nobody_is_no_answer(void **state)
{
    (void)state;
    bench_new(1);
    bench_start();
    struct bench_client *c = bench_connect(0);
    struct roda_msg *msg = message_from(bench_conn(0), 1);
    roda_conn_id id = roda_conn_getid(bench_conn(0));
    bench_forget(c);
    bench_settle();
    bench_as(0);
    answer_queue(bench_bus(0), id, RODA_OK, RODA_STR("gone"), msg);
    answer_queue(bench_bus(0), 0, RODA_OK, RODA_STR("never was"), msg);
    roda_msg_unref(msg);
    bench_done(0);
    assert_int_equal(bench->answers, 0);
    bench_end();
}

/* One answer is kept for the time when memory is out: it has no reason, but its place. The next
 * one cannot be given any more, so its connection is closed. */
static void memory_may_be_out(void **state)
{
    struct roda_msg *msgs[600];
    unsigned n = 0;
    char text[201];

    (void)state;
    memset(text, 'r', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    bench_new(1);
    bench_start();
    struct bench_client *a = bench_connect(0), *b = bench_connect(0);
    struct roda_conn *conn_a = bench_state(0)->conns[0], *conn_b = bench_state(0)->conns[1];
    bench_as(0);
    answer_it(conn_a, 1, RODA_E_RANK, "warm"); /* the reserve comes of the first answer */
    bench_done(0);
    bench_expect(a, "=1 13 #0 warm\n");
    assert_non_null(bench_bus(0)->answer_reserve);
    msgs[0] = message_from(conn_a, 2);
    msgs[1] = message_from(conn_a, 3);
    msgs[2] = message_from(conn_b, 1);
    bench_as(0);
    /* Until no object of the size that an answer needs is left. */
    memory_fail_at(1, 1);
    for (n = 3; n < 600; n++) {
        answer_queue(bench_bus(0), 0, RODA_E_RANK, (struct roda_str){text, 200}, msgs[0]);
        if (!bench_bus(0)->answer_reserve)
            break;
    }
    assert_true(n < 600); /* that one took the reserve */
    bench_done(0);
    assert_non_null(bench_bus(0)->answer_reserve);
    for (unsigned round = 0; round < 2; round++) {
        bench_as(0);
        while (bench_bus(0)->answer_reserve && round)
            answer_queue(bench_bus(0), 0, RODA_E_RANK, (struct roda_str){text, 200}, msgs[0]);
        answer_queue(bench_bus(0), msgs[1 + round]->from, RODA_E_RANK, (struct roda_str){text, 200},
                     msgs[1 + round]);
        bench_done(0);
    }
    memory_fail_at(0, 0);
    bench_settle();
    bench_read(a);
    assert_true(!strncmp(a->in, "=3 13 #0 ", 9));
    assert_false(a->over);
    bench_read(b);
    assert_true(b->over);
    assert_int_equal(b->len, 0);
    for (unsigned i = 0; i < 3; i++)
        roda_msg_unref(msgs[i]);
    bench_forget(a);
    bench_forget(b);
    bench_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_a_sentence),
        cmocka_unit_test(answers_are_given_at_the_end_of_the_turn_in_order),
        cmocka_unit_test(an_answer_for_nobody_is_no_answer),
        cmocka_unit_test(memory_may_be_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
