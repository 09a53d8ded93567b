/* Lanes: entered in order without waiting, left in order; numbers and what members know of them;
 * refusals; storage that fails; hooks that call back. */
#include "unit/bus/bench.h"

static char seen[1u << 16]; /* what hooks noted */

static void note(const char *fmt, ...) RODA_PRINTF(1, 2);
static void note(const char *fmt, ...)
{
    size_t len = strlen(seen);
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(seen + len, sizeof seen - len, fmt, args);
    va_end(args);
}

static void expect_seen(const char *text)
{
    assert_string_equal(seen, text);
    seen[0] = '\0';
}

static int begin(void **state)
{
    (void)state;
    seen[0] = '\0';
    return 0;
}

static roda_verdict first_defers(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    note("F%.*s ", (int)ev->msg->text.len, ev->msg->text.ptr);
    return RODA_DEFER;
}

static roda_verdict second_defers(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    note("S%.*s ", (int)ev->msg->text.len, ev->msg->text.ptr);
    return RODA_DEFER;
}

static size_t resume(uint32_t w, unsigned plugin, size_t n, int result)
{
    size_t done;

    bench_as(w);
    done = roda_resume_oldest(bench_ctx(w, plugin), n, result);
    bench_done(w);
    return done;
}

static void hooks_are_entered_without_waiting_and_left_in_order(void **state)
{
    (void)state;
    bench_new(2);
    bench->plugins[FIRST].publish = first_defers;
    bench->plugins[SECOND].publish = second_defers;
    bench_start();
    struct bench_client *c = bench_connect(0);
    for (int i = 1; i <= 5; i++)
        bench_say(c, "say 1a %d", i);
    bench_expect(c, "");
    expect_seen("F1 F2 F3 F4 F5 ");
    assert_int_equal(roda_lane_length(bench_lane(1, 'a')), 5);
    assert_int_equal(roda_lane_number(bench_lane(1, 'a')), 5);
    assert_int_equal(resume(1, FIRST, 2, 0), 2);
    expect_seen("S1 S2 ");
    assert_int_equal(resume(1, SECOND, 1, 0), 1);
    expect_seen("");
    bench_expect(c, "=1 0 #1\n");
    assert_int_equal(resume(1, SECOND, 9, 0), 1); /* there are no more */
    bench_expect(c, "=2 0 #2\n");
    assert_int_equal(resume(1, FIRST, 9, 0), 3);
    expect_seen("S3 S4 S5 ");
    assert_int_equal(resume(1, SECOND, 3, 0), 3);
    bench_expect(c, "=3 0 #3\n=4 0 #4\n=5 0 #5\n");
    assert_int_equal(roda_lane_length(bench_lane(1, 'a')), 0);
    assert_int_equal(resume(1, FIRST, 1, 0), 0);
    bench_forget(c);
    bench_end();
}

static unsigned random_state;

static unsigned draw(unsigned bound)
{
    random_state = random_state * 1103515245u + 12345u;
    return (random_state >> 16) % bound;
}

static unsigned entered[2]; /* the last text each hook saw, per lane a */

static roda_verdict either(unsigned which, struct roda_event *ev)
{
    unsigned n = 0;

    for (size_t i = 0; i < ev->msg->text.len; i++)
        n = n * 10 + (unsigned)(ev->msg->text.ptr[i] - '0');
    assert_int_equal(n, entered[which] + 1); /* every event, in order */
    entered[which] = n;
    return draw(3) ? RODA_DEFER : RODA_PASS;
}

static roda_verdict first_either(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    return either(0, ev);
}

static roda_verdict second_either(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    return either(1, ev);
}

static void any_mixture_keeps_the_order(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 20; seed++) {
        unsigned said = 0, told = 0;
        char *line;
        bench_new(1);
        bench->plugins[FIRST].publish = first_either;
        bench->plugins[SECOND].publish = second_either;
        bench_start();
        struct bench_client *c = bench_connect(0);
        random_state = seed;
        memset(entered, 0, sizeof entered);
        while (said < 60 || roda_lane_length(bench_lane(0, 'a'))) {
            for (unsigned n = draw(4); n && said < 60; n--)
                bench_say(c, "say 0a %u", ++said);
            bench_settle();
            if (draw(2))
                resume(0, FIRST, draw(4), 0);
            if (draw(2))
                resume(0, SECOND, draw(4), 0);
            while ((line = bench_line(c))) {
                unsigned token, code, number;
                assert_int_equal(sscanf(line, "=%u %u #%u", &token, &code, &number), 3);
                assert_int_equal(token, ++told);
                assert_int_equal(code, 0);
                assert_int_equal(number, told);
            }
        }
        assert_int_equal(told, 60);
        assert_int_equal(entered[0], 60);
        assert_int_equal(entered[1], 60);
        bench_forget(c);
        bench_end();
    }
}

static void what_storage_refuses_is_shown_to_nobody_and_its_number_is_lost(void **state)
{
    (void)state;
    bench_new(2);
    bench->plugins[FIRST].publish = first_defers;
    bench_start();
    struct bench_client *a = bench_connect(0), *b = bench_connect(1);
    bench_say(a, "say 0a 1");
    bench_expect(a, "");
    resume(0, FIRST, 1, 0);
    bench_expect(a, "=1 0 #1\n");
    bench_expect(b, "0a #1 <0 1\n");
    for (int i = 2; i <= 5; i++)
        bench_say(a, "say 0a %d", i);
    bench_expect(a, "");
    assert_int_equal(resume(0, FIRST, 2, -ENOSPC), 2);
    bench_expect(a, "=2 16 #2 disk\n=3 16 #3 disk\n");
    assert_int_equal(resume(0, FIRST, 2, 0), 2);
    bench_expect(a, "=4 0 #4\n=5 0 #5\n");
    bench_expect(b, "0a #4 <1 4\n0a #5 <4 5\n");
    bench_forget(a);
    bench_forget(b);
    bench_end();
}

static uint64_t prevs[8];

static roda_verdict sees_prev(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    if (ev->msg->number < 8)
        prevs[ev->msg->number] = ev->msg->prev;
    return RODA_DEFER;
}

/* A log writes `prev` when it sees the event, long before the one before has left the lane. */
static void publish_filters_see_the_number_before(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].publish = sees_prev;
    bench_start();
    struct bench_client *c = bench_connect(0);
    for (int i = 1; i <= 3; i++)
        bench_say(c, "say 0a %d", i);
    bench_settle();
    assert_int_equal(prevs[1], 0);
    assert_int_equal(prevs[2], 1);
    assert_int_equal(prevs[3], 2);
    resume(0, FIRST, 3, -EIO); /* nobody is shown any of them */
    bench_say(c, "say 0a 4");
    bench_settle();
    assert_int_equal(prevs[4], 0);
    resume(0, FIRST, 1, 0);
    bench_forget(c);
    bench_end();
}

static void presence_keeps_its_place_and_takes_no_number(void **state)
{
    (void)state;
    bench_new(2);
    bench_start();
    struct bench_client *a = bench_connect(0), *b = bench_connect(1);
    bench_say(a, "do 16 1a join");
    bench_say(a, "say 1a one");
    bench_say(a, "do 21 1a typing");
    bench_say(a, "say 1a two");
    bench_say(a, "do 18 1b elsewhere");
    bench_expect(a, "=1 0 #0\n=2 0 #1\n=3 0 #0\n=4 0 #2\n=5 0 #0\n");
    bench_expect(b, "1a #0 <0 join\n1a #1 <0 one\n1a #0 <1 typing\n1a #2 <1 two\n"
                    "1b #0 <0 elsewhere\n");
    assert_int_equal(bench_counter(messages_numbered), 2);
    assert_int_equal(bench_counter(messages_published), 5);
    bench_forget(a);
    bench_forget(b);
    bench_end();
}

static void refusals_at_home_keep_their_place(void **state)
{
    (void)state;
    bench_new(2);
    bench_start();
    struct bench_client *a = bench_connect(0);
    bench_say(a, "say 1a one");
    bench_say(a, "say 1a refuse");
    bench_say(a, "say 1a two");
    bench_say(a, "say 1a forget"); /* arrive() does nothing with it */
    bench_say(a, "say 1a three");
    bench_expect(a, "=1 0 #1\n=2 9 #0 banned\n=3 0 #2\n=4 2 #0 nobody here can do that\n"
                    "=5 0 #3\n");
    assert_int_equal(bench_counter(messages_refused), 2);
    bench_forget(a);
    bench_end();
}

/* ---- admit ------------------------------------------------------------------------------ */

static roda_verdict admits(struct roda_ctx *x, struct roda_event *ev)
{
    uint64_t ticket;

    (void)x;
    switch (ev->msg->text.ptr[0]) {
    case 'r':
        return roda_reject(ev, RODA_E_RATE, "slow mode");
    case 'q':
        return RODA_REJECT; /* without a word, which no filter may */
    case 'd':
        return RODA_DROP;
    case 'l':
        return roda_delay(ev, 50);
    case 'e':
        return roda_defer(ev, &ticket);
    default:
        return RODA_PASS;
    }
}

static roda_verdict admits_too(struct roda_ctx *x, struct roda_event *ev)
{
    (void)x;
    note("%c", ev->msg->text.ptr[0]);
    return RODA_PASS;
}

static void admit_filters_refuse_before_the_number(void **state)
{
    (void)state;
    bench_new(2);
    bench->plugins[FIRST].admit = admits;
    bench->plugins[SECOND].admit = admits_too;
    bench_start();
    struct bench_client *a = bench_connect(0);
    for (const char *p = "prqdlep"; *p; p++)
        bench_say(a, "say 1a %c", *p);
    bench_expect(a, "=1 0 #1\n=2 15 #0 slow mode\n=3 1 #0 not passed on\n=4 1 #0 not passed on\n"
                    "=5 0 #2\n=6 0 #3\n=7 0 #4\n");
    expect_seen("plep"); /* what a home cannot do counts as passed, for that filter alone */
    bench_forget(a);
    bench_end();
}

/* ---- calls back ------------------------------------------------------------------------- */

static roda_verdict batches_of_three(struct roda_ctx *x, struct roda_event *ev)
{
    note("P%.*s ", (int)ev->msg->text.len, ev->msg->text.ptr);
    if (ev->msg->number % 3)
        return RODA_DEFER;
    assert_int_equal(roda_resume_oldest(x, 2, 0), 2);
    return RODA_PASS;
}

static void noting_lane(struct roda_ctx *x, void *arg, struct roda_msg *msg, int result)
{
    (void)result;
    note("%.*s ", (int)msg->text.len, msg->text.ptr);
    (void)bench_distribute(x, msg, (uint64_t)(uintptr_t)arg);
}

static void a_publish_filter_may_resume(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].publish = batches_of_three;
    bench->lane = noting_lane;
    bench_start();
    struct bench_client *c = bench_connect(0);
    for (int i = 1; i <= 7; i++)
        bench_say(c, "say 0a %d", i);
    bench_expect(c, "=1 0 #1\n=2 0 #2\n=3 0 #3\n=4 0 #4\n=5 0 #5\n=6 0 #6\n");
    expect_seen("P1 P2 P3 1 2 3 P4 P5 P6 4 5 6 P7 ");
    resume(0, FIRST, 1, 0);
    bench_expect(c, "=7 0 #7\n");
    bench_forget(c);
    bench_end();
}

/* The second one lets go while the first is walked along the lane. */
static roda_verdict second_resumes(struct roda_ctx *x, struct roda_event *ev)
{
    if (ev->msg->number < 4)
        return RODA_DEFER;
    (void)roda_resume_oldest(x, 9, 0);
    return RODA_PASS;
}

static void a_later_filter_may_resume_while_events_advance(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].publish = first_defers;
    bench->plugins[SECOND].publish = second_resumes;
    bench_start();
    struct bench_client *c = bench_connect(0);
    for (int i = 1; i <= 6; i++)
        bench_say(c, "say 0a %d", i);
    bench_expect(c, "");
    assert_int_equal(resume(0, FIRST, 6, 0), 6);
    bench_expect(c, "=1 0 #1\n=2 0 #2\n=3 0 #3\n=4 0 #4\n=5 0 #5\n=6 0 #6\n");
    assert_int_equal(roda_lane_length(bench_lane(0, 'a')), 0);
    bench_forget(c);
    bench_end();
}

static roda_verdict admit_resumes(struct roda_ctx *x, struct roda_event *ev)
{
    (void)ev;
    (void)roda_resume_oldest(x, 9, 0);
    return RODA_PASS;
}

static void an_admit_filter_may_resume(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].admit = admit_resumes;
    bench->plugins[FIRST].publish = first_defers;
    bench_start();
    struct bench_client *c = bench_connect(0);
    for (int i = 1; i <= 4; i++)
        bench_say(c, "say 0a %d", i);
    bench_expect(c, "=1 0 #1\n=2 0 #2\n=3 0 #3\n");
    resume(0, FIRST, 1, 0);
    bench_expect(c, "=4 0 #4\n");
    bench_forget(c);
    bench_end();
}

static void echoing_lane(struct roda_ctx *x, void *arg, struct roda_msg *msg, int result)
{
    struct roda_lane *lane = ((struct bench_worker *)x->state)->lanes[0];

    (void)result;
    note("%.*s (", (int)msg->text.len, msg->text.ptr);
    if (msg->from && lane) { /* the lane's function publishes: behind this event */
        assert_int_equal(roda_lane_publish(x, lane, bench_msg(0, RODA_NOTICE, "0a", "x")), 0);
        assert_int_equal(roda_lane_publish(x, lane, bench_msg(0, RODA_NOTICE, "0a", "y")), 0);
    }
    (void)bench_distribute(x, msg, (uint64_t)(uintptr_t)arg);
    (void)roda_resume_oldest(bench_ctx(0, FIRST), 9, 0);
    note(")");
}

static void a_lanes_function_may_publish_and_resume(void **state)
{
    for (int with_filter = 0; with_filter <= 1; with_filter++) {
        (void)state;
        bench_new(1);
        bench->lane = echoing_lane;
        if (with_filter)
            bench->plugins[FIRST].publish = first_defers;
        bench_start();
        struct bench_client *a = bench_connect(0), *b = bench_connect(0);
        bench_say(a, "say 0a 1");
        bench_say(a, "say 0a 2");
        bench_settle();
        if (!with_filter) {
            expect_seen("1 ()x ()y ()2 ()x ()y ()");
        } else {
            expect_seen("F1 F2 ");
            resume(0, FIRST, 2, 0);
            expect_seen("1 ()2 ()Fx Fy Fx Fy ");
            resume(0, FIRST, 1, 0); /* the lane's function lets the others go */
            expect_seen("x ()y ()x ()y ()");
        }
        bench_forget(a);
        bench_forget(b);
        bench_end();
    }
}

static struct roda_lane *own_lane;

static void freeing_lane(struct roda_ctx *x, void *arg, struct roda_msg *msg, int result)
{
    (void)x;
    (void)arg;
    (void)msg;
    (void)result;
    note("freed ");
    roda_lane_free(own_lane);
}

static void a_lane_may_end_in_its_own_function(void **state)
{
    (void)state;
    for (int with_filter = 0; with_filter <= 1; with_filter++) {
        bench_new(1);
        if (with_filter)
            bench->plugins[FIRST].publish = first_defers;
        bench_start();
        bench_as(0);
        assert_int_equal(roda_lane_new(bench_ctx(0, OWNER), freeing_lane, NULL, &own_lane), 0);
        roda_lane_set(own_lane, 77, 41, 0);
        assert_int_equal(roda_lane_epoch(own_lane), 77);
        assert_int_equal(roda_lane_publish(bench_ctx(0, OWNER), own_lane,
                                           bench_msg(0, RODA_TEXT, "0a", "last")),
                         0);
        if (with_filter)
            assert_int_equal(roda_resume_oldest(bench_ctx(0, FIRST), 1, 0), 1);
        expect_seen(with_filter ? "Flast freed " : "freed ");
        bench_done(0);
        bench_end();
    }
}

/* ---- bounds ----------------------------------------------------------------------------- */

static void a_lane_bounds_what_nobody_elses_window_does(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].publish = first_defers;
    bench_start();
    struct bench_client *c = bench_connect(0);
    bench_say(c, "say 0a routed");
    bench_settle();
    bench_as(0);
    for (int i = 0; i < 4096; i++)
        assert_int_equal(roda_lane_publish(bench_ctx(0, OWNER), bench_lane(0, 'a'),
                                           bench_msg(0, RODA_NOTICE, "0a", "n")),
                         0);
    assert_int_equal(roda_lane_publish(bench_ctx(0, OWNER), bench_lane(0, 'a'),
                                       bench_msg(0, RODA_NOTICE, "0a", "n")),
                     -ENOBUFS);
    assert_int_equal(roda_lane_length(bench_lane(0, 'a')), 4097);
    bench_done(0);
    bench_say(c, "say 0a routed"); /* that one has its own bound */
    bench_settle();
    assert_int_equal(roda_lane_length(bench_lane(0, 'a')), 4098);
    assert_int_equal(roda_lane_number(bench_lane(0, 'a')), 4098);
    assert_int_equal(resume(0, FIRST, 2, 0), 2);
    bench_as(0);
    assert_int_equal(roda_lane_publish(bench_ctx(0, OWNER), bench_lane(0, 'a'),
                                       bench_msg(0, RODA_NOTICE, "0a", "n")),
                     0);
    bench_done(0);
    assert_int_equal(resume(0, FIRST, 9999, 0), 4097);
    assert_int_equal(bench_count(c, "0a #"), 4097);
    bench_forget(c);
    bench_end();
    seen[0] = '\0';
}

static void time_and_epoch_lane(struct roda_ctx *x, void *arg, struct roda_msg *msg, int result)
{
    (void)result;
    note("%llu ", (unsigned long long)msg->epoch);
    prevs[msg->number] = (uint64_t)msg->time_ns;
    (void)bench_distribute(x, msg, (uint64_t)(uintptr_t)arg);
}

static void time_never_runs_back_in_a_lane(void **state)
{
    (void)state;
    bench_new(1);
    bench->lane = time_and_epoch_lane;
    bench_start();
    struct bench_client *c = bench_connect(0);
    bench_say(c, "say 0a 1");
    bench_settle();
    roda_lane_set(bench_lane(0, 'a'), 5, 1, 0);
    sim_step_realtime(bench->kernel, -INT64_C(3600000000000));
    bench_say(c, "say 0a 2");
    bench_settle();
    sim_step_realtime(bench->kernel, INT64_C(7200000000000));
    bench_say(c, "say 0a 3");
    bench_expect(c, "=1 0 #1\n=2 0 #2\n=3 0 #3\n");
    expect_seen("0 5 5 ");
    assert_true(prevs[2] >= prevs[1]);
    assert_true(prevs[3] >= prevs[2] + UINT64_C(3000000000000));
    bench_forget(c);
    bench_end();
}

/* A lane goes on where a log says it ended, though the clock was set back meanwhile. */
static void time_goes_on_from_where_a_lane_ended(void **state)
{
    int64_t before;

    (void)state;
    bench_new(1);
    bench->lane = time_and_epoch_lane;
    bench_start();
    struct bench_client *c = bench_connect(0);
    bench_say(c, "say 0a 1");
    bench_settle();
    before = (int64_t)prevs[1] + INT64_C(3600000000000);
    roda_lane_set(bench_lane(0, 'a'), 5, 1, before);
    bench_say(c, "say 0a 2");
    bench_settle();
    assert_int_equal((int64_t)prevs[2], before);
    sim_step_realtime(bench->kernel, INT64_C(7200000000000));
    bench_say(c, "say 0a 3");
    bench_settle();
    assert_true((int64_t)prevs[3] > before);
    bench_forget(c);
    bench_end();
}

/* A disk that hangs: what waits for it is still there when the broker stops. */
static void what_never_left_a_lane_is_given_up_at_the_end(void **state)
{
    (void)state;
    bench_new(2);
    bench->plugins[FIRST].publish = first_defers;
    bench_start();
    struct bench_client *a = bench_connect(0), *b = bench_connect(1);
    bench_say(a, "say 1a from another worker");
    bench_say(b, "say 1a at home");
    bench_say(b, "say 1a at home");
    bench_settle();
    bench_as(1);
    assert_int_equal(roda_lane_publish(bench_ctx(1, OWNER), bench_lane(1, 'a'),
                                       bench_msg(1, RODA_NOTICE, "1a", "the owner's")),
                     0);
    bench_done(1);
    bench_forget(a);
    bench_settle();
    bench_end();
    bench = NULL;
    free(b);
}

/* ---- memory ----------------------------------------------------------------------------- */

/* Every message of a connection that is still there has exactly one answer, whatever fails. */
static void answers_survive_any_failed_allocation(void **state)
{
    (void)state;
    for (uint64_t every = 0; every <= 1; every++) {
        bool failed = true;
        for (uint64_t n = 1; failed; n++) {
            uint64_t before;
            unsigned code;
            bool told[11] = {false};
            char *line;
            bench_new(2);
            bench->plugins[FIRST].publish = first_defers;
            bench_start();
            struct bench_client *a = bench_connect(0), *b = bench_connect(1);
            before = memory_allocations();
            memory_fail_at(n, every);
            for (int i = 1; i <= 10; i++)
                bench_say(a, "say %c%c %d", i < 8 ? '1' : '0', i < 6 ? 'a' : 'b', i);
            bench_settle();
            for (int i = 0; i < 6; i++) {
                resume(0, FIRST, 2, 0);
                resume(1, FIRST, 2, 0);
            }
            failed = memory_allocations() >= before + n;
            memory_fail_at(0, 0);
            bench_settle();
            bench_say(a, "ping");
            bench_settle();
            while ((line = bench_line(a))) {
                unsigned token;
                if (sscanf(line, "=%u %u", &token, &code) != 2)
                    continue;
                assert_in_range(token, 1, 10);
                assert_false(told[token]);
                assert_true(code == RODA_OK || code == RODA_E_MEMORY);
                told[token] = true;
            }
            for (int i = 1; i <= 10 && !a->over; i++)
                assert_true(told[i]);
            assert_int_equal(bench_counter(under_way), 0);
            bench_forget(a);
            bench_forget(b);
            bench_end();
            seen[0] = '\0';
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup(name, begin)
        TEST(hooks_are_entered_without_waiting_and_left_in_order),
        TEST(any_mixture_keeps_the_order),
        TEST(what_storage_refuses_is_shown_to_nobody_and_its_number_is_lost),
        TEST(publish_filters_see_the_number_before),
        TEST(presence_keeps_its_place_and_takes_no_number),
        TEST(refusals_at_home_keep_their_place),
        TEST(admit_filters_refuse_before_the_number),
        TEST(a_publish_filter_may_resume),
        TEST(a_later_filter_may_resume_while_events_advance),
        TEST(an_admit_filter_may_resume),
        TEST(a_lanes_function_may_publish_and_resume),
        TEST(a_lane_may_end_in_its_own_function),
        TEST(a_lane_bounds_what_nobody_elses_window_does),
        TEST(time_never_runs_back_in_a_lane),
        TEST(time_goes_on_from_where_a_lane_ended),
        TEST(what_never_left_a_lane_is_given_up_at_the_end),
        TEST(answers_survive_any_failed_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
