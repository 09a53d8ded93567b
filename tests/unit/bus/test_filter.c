/* Filters: their order, what each stage may say, what is told of a verdict. */
#include "unit/bus/bench.h"

static char order[64];
static roda_verdict verdict;

static int begin(void **state)
{
    (void)state;
    memset(order, 0, sizeof order);
    verdict = RODA_PASS;
    return 0;
}

static void note(struct roda_ctx *x, char what)
{
    size_t len = strlen(order);

    order[len] = context_of(x)->name[0]; /* of the plugin: f, s */
    order[len + 1] = what;
}

static roda_verdict first(struct roda_ctx *x, struct roda_event *ev)
{
    (void)ev;
    note(x, ' ');
    return verdict;
}

static roda_verdict second(struct roda_ctx *x, struct roda_event *ev)
{
    (void)ev;
    note(x, ' ');
    return RODA_PASS;
}

static roda_verdict run(enum stage stage, uint32_t *index)
{
    struct event event = {.bus = bench_bus(0)};

    order[0] = '\0';
    memset(order, 0, sizeof order);
    bench_as(0);
    filters_run(bench_bus(0), stage, index, &event);
    return event.decision.verdict;
}

static void a_stage_hears_only_the_verdicts_it_knows(void **state)
{
    static const struct {
        enum stage stage;
        bool knows[6]; /* PASS .. DEFER, and what is none */
    } stages[] = {
        {STAGE_ACCEPT, {1, 1, 1, 1, 0, 0}},  {STAGE_INPUT, {1, 1, 1, 1, 0, 0}},
        {STAGE_SUBMIT, {1, 1, 1, 1, 1, 0}},  {STAGE_ADMIT, {1, 1, 1, 0, 0, 0}},
        {STAGE_DELIVER, {1, 1, 1, 1, 1, 0}},
    };

    (void)state;
    bench_new(1);
    for (unsigned plugin = FIRST; plugin <= SECOND; plugin++) {
        roda_filter_fn *fn = plugin == FIRST ? first : second;
        bench->plugins[plugin].accept = bench->plugins[plugin].input = fn;
        bench->plugins[plugin].submit = bench->plugins[plugin].admit = fn;
        bench->plugins[plugin].deliver = fn;
    }
    bench_start();
    for (unsigned i = 0; i < sizeof stages / sizeof *stages; i++)
        for (verdict = 0; verdict <= 5; verdict++) {
            bool stops = verdict != RODA_PASS && stages[i].knows[verdict];
            uint32_t index = 0;
            assert_int_equal(run(stages[i].stage, &index), stops ? verdict : RODA_PASS);
            assert_string_equal(order, stops ? "f " : "f s ");
            assert_int_equal(index, stops ? 0 : 2);
            index = 1; /* from the second on */
            assert_int_equal(run(stages[i].stage, &index), RODA_PASS);
            assert_string_equal(order, "s ");
        }
    verdict = 0x80000000u; /* far from any */
    uint32_t index = 0;
    assert_int_equal(run(STAGE_SUBMIT, &index), RODA_PASS);
    bench_end();
}

static void verdicts_carry_what_was_said(void **state)
{
    struct event event = {.decision = {.code = 0}};
    struct bus bus = {.next_ticket = 5};
    uint64_t ticket = 0;
    char expected[200];

    (void)state;
    event.bus = &bus;
    assert_int_equal(roda_reject(&event.public, RODA_E_RATE, "%s %d", "so", 7), RODA_REJECT);
    assert_int_equal(event.decision.code, RODA_E_RATE);
    assert_string_equal(event.decision.text, "so 7");
    assert_int_equal(roda_reject(&event.public, RODA_OK, "no code"), RODA_REJECT);
    assert_int_equal(event.decision.code, RODA_E_DROPPED);
    (void)roda_reject(&event.public, RODA_E_RATE, "%0300d", 1); /* cut, not overrun */
    memset(expected, '0', sizeof expected - 1);
    expected[sizeof expected - 1] = '\0';
    assert_string_equal(event.decision.text, expected);
    assert_int_equal(roda_delay(&event.public, 0), RODA_DELAY);
    assert_int_equal(event.decision.delay_ms, 1);
    assert_int_equal(roda_delay(&event.public, 30), RODA_DELAY);
    assert_int_equal(event.decision.delay_ms, 30);
    assert_int_equal(roda_defer(&event.public, &ticket), RODA_DEFER);
    assert_int_equal(ticket, 5);
    assert_int_equal(roda_defer(&event.public, &ticket), RODA_DEFER);
    assert_int_equal(ticket, 6);
}

static roda_verdict says_and_passes(struct roda_ctx *x, struct roda_event *ev)
{
    note(x, ' ');
    (void)roda_reject(ev, RODA_E_RATE, "not meant");
    return RODA_PASS;
}

static roda_verdict rejects_without_words(struct roda_ctx *x, struct roda_event *ev)
{
    (void)ev;
    note(x, ' ');
    return RODA_REJECT;
}

/* What one filter said and did not mean is not the next one's reason. */
static void a_verdict_is_one_filters_alone(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].submit = says_and_passes;
    bench->plugins[SECOND].submit = rejects_without_words;
    bench_start();
    struct bench_client *c = bench_connect(0);
    bench_say(c, "say 0a x");
    bench_expect(c, "=1 1 #0 not passed on\n");
    assert_string_equal(order, "f s ");
    bench_forget(c);
    bench_end();
}

static roda_verdict turns_itself_off(struct roda_ctx *x, struct roda_event *ev)
{
    (void)ev;
    note(x, ' ');
    roda_filter_use(x, RODA_FILTER_SUBMIT | RODA_FILTER_ADMIT, 0);
    return RODA_PASS;
}

static void a_filter_with_nothing_to_decide_is_not_asked(void **state)
{
    static const struct {
        uint32_t filter;
        enum stage stage;
    } stages[] = {{RODA_FILTER_INPUT, STAGE_INPUT},
                  {RODA_FILTER_SUBMIT, STAGE_SUBMIT},
                  {RODA_FILTER_ADMIT, STAGE_ADMIT}};

    (void)state;
    bench_new(2);
    bench->plugins[FIRST].input = bench->plugins[SECOND].input = second;
    bench->plugins[FIRST].submit = bench->plugins[SECOND].submit = second;
    bench->plugins[FIRST].admit = bench->plugins[SECOND].admit = second;
    bench_start();
    for (unsigned i = 0; i < sizeof stages / sizeof *stages; i++) {
        const struct hooks *hooks = &bench_bus(0)->stages[stages[i].stage];
        uint32_t index = 0;
        bench_as(0);
        roda_filter_use(bench_ctx(0, FIRST), stages[i].filter, 0);
        roda_filter_use(bench_ctx(0, FIRST), stages[i].filter, 0);
        assert_int_equal(run(stages[i].stage, &index), RODA_PASS);
        assert_string_equal(order, "s ");
        assert_int_equal(index, 2);
        assert_int_equal(hooks->on, 1);
        assert_int_equal(bench_bus(1)->stages[stages[i].stage].on, 2); /* one worker's alone */
        roda_filter_use(bench_ctx(0, SECOND), stages[i].filter, 0);
        index = 0;
        assert_int_equal(run(stages[i].stage, &index), RODA_PASS);
        assert_string_equal(order, "");
        assert_int_equal(index, 2);
        assert_int_equal(hooks->on, 0);
        roda_filter_use(bench_ctx(0, FIRST), stages[i].filter, 1);
        roda_filter_use(bench_ctx(0, FIRST), stages[i].filter, 1);
        index = 0;
        assert_int_equal(run(stages[i].stage, &index), RODA_PASS);
        assert_string_equal(order, "f ");
        assert_int_equal(hooks->on, 1);
        index = 0; /* the others were left alone */
        if (i + 1 < sizeof stages / sizeof *stages) {
            assert_int_equal(run(stages[i + 1].stage, &index), RODA_PASS);
            assert_string_equal(order, "f s ");
        }
    }
    bench_end();
}

static void a_filter_may_turn_itself_off(void **state)
{
    uint32_t index = 0;

    (void)state;
    bench_new(1);
    bench->plugins[FIRST].submit = turns_itself_off;
    bench->plugins[SECOND].submit = second;
    bench_start();
    assert_int_equal(run(STAGE_SUBMIT, &index), RODA_PASS);
    assert_string_equal(order, "f s ");
    index = 0;
    assert_int_equal(run(STAGE_SUBMIT, &index), RODA_PASS);
    assert_string_equal(order, "s ");
    bench_end();
}

static uint32_t cost;
static const char *blamed;

static void charged(struct roda_ctx *x, struct roda_conn *c, uint32_t by)
{
    struct bus *bus = bench_bus(0);

    note(x, c ? 'c' : '-');
    cost += by;
    blamed = bus->depth ? bus->running[bus->depth - 1].plugin : NULL;
}

static void a_charge_is_told_to_every_plugin(void **state)
{
    (void)state;
    bench_new(1);
    bench->plugins[FIRST].charged = charged;
    bench->plugins[SECOND].charged = charged;
    bench_start();
    struct bench_client *c = bench_connect(0);
    cost = 0;
    bench_as(0);
    roda_charge(bench_ctx(0, OWNER), bench_conn(0), 20);
    assert_string_equal(order, "fcsc");
    assert_int_equal(cost, 40);
    assert_string_equal(blamed, "second"); /* a slow hook is named, not who charged */
    bench_done(0);
    bench_forget(c);
    bench_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup(name, begin)
        TEST(a_stage_hears_only_the_verdicts_it_knows),
        TEST(verdicts_carry_what_was_said),
        TEST(a_verdict_is_one_filters_alone),
        TEST(a_filter_with_nothing_to_decide_is_not_asked),
        TEST(a_filter_may_turn_itself_off),
        TEST(a_charge_is_told_to_every_plugin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
