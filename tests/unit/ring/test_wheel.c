/* The wheel against a list that is searched: random arming, disarming and jumps of time, with
 * callbacks that change the wheel. What fires, when, and in which order of time must agree. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ring/wheel.h"

#define TIMERS 300

struct probe {
    struct wheel_timer timer; /* first */
    struct model *model;
    bool armed;      /* the model's view */
    uint64_t due_ms; /* effective time: never before the moment of arming */
    unsigned epoch;  /* of the advance it was armed in */
};

struct model {
    struct wheel wheel;
    struct probe probes[TIMERS];
    uint64_t now_ms, last_due_ms;
    unsigned epoch, fired;
    uint64_t seed;
};

static uint64_t draw(struct model *m, uint64_t below)
{
    m->seed ^= m->seed << 13;
    m->seed ^= m->seed >> 7;
    m->seed ^= m->seed << 17;
    return m->seed % below;
}

static void probe_fired(struct wheel_timer *timer);

static uint64_t draw_delay(struct model *m)
{
    static const uint64_t reach[] = {2, 64, 70, 4096, 5000, 262144, 300000, 16777216, 40000000};
    uint64_t limit = reach[draw(m, sizeof reach / sizeof reach[0])];
    /* The edges of the levels more often than chance would. */
    return draw(m, 4) ? draw(m, limit) : limit - draw(m, 3);
}

static void arm_any(struct model *m)
{
    struct probe *p = &m->probes[draw(m, TIMERS)];
    uint64_t at = m->now_ms + draw_delay(m);

    if (!draw(m, 10))
        at = m->now_ms > 100 ? m->now_ms - draw(m, 100) : 0;
    wheel_arm(&m->wheel, &p->timer, at, probe_fired);
    p->armed = true;
    p->due_ms = at > m->now_ms ? at : m->now_ms;
    p->epoch = m->epoch;
}

static void disarm_any(struct model *m)
{
    struct probe *p = &m->probes[draw(m, TIMERS)];

    wheel_disarm(&m->wheel, &p->timer);
    p->armed = false;
}

static void probe_fired(struct wheel_timer *timer)
{
    struct probe *p = (struct probe *)timer;
    struct model *m = p->model;

    assert_true(p->armed);
    assert_false(wheel_armed(timer));
    assert_true(p->due_ms <= m->now_ms);
    assert_true(p->due_ms >= m->last_due_ms); /* in order of time */
    assert_true(p->epoch < m->epoch);         /* not what this advance armed */
    m->last_due_ms = p->due_ms;
    p->armed = false;
    m->fired++;
    if (!draw(m, 3))
        arm_any(m);
    if (!draw(m, 5))
        disarm_any(m);
}

static void check(struct model *m)
{
    uint64_t earliest = UINT64_MAX;
    unsigned armed = 0;

    for (unsigned i = 0; i < TIMERS; i++) {
        struct probe *p = &m->probes[i];
        assert_int_equal(wheel_armed(&p->timer), p->armed);
        if (!p->armed)
            continue;
        armed++;
        if (p->due_ms < earliest)
            earliest = p->due_ms;
    }
    assert_int_equal(m->wheel.armed, armed);
    uint64_t wait = wheel_wait_ms(&m->wheel);
    if (!armed) {
        assert_true(wait == UINT64_MAX);
        return;
    }
    assert_true(wait <= earliest - m->now_ms);
    if (earliest - m->now_ms < 64 && earliest / 64 == m->now_ms / 64)
        assert_true(wait == earliest - m->now_ms);
    if (earliest > m->now_ms)
        assert_true(wait > 0); /* the loop would spin */
}

static void advance(struct model *m, uint64_t to_ms)
{
    unsigned before = m->fired, expected = 0;

    m->epoch++;
    m->now_ms = to_ms;
    m->last_due_ms = 0;
    unsigned ran = wheel_advance(&m->wheel, to_ms);
    assert_int_equal(ran, m->fired - before);
    /* Nothing that was due and armed before is left. */
    for (unsigned i = 0; i < TIMERS; i++) {
        struct probe *p = &m->probes[i];
        if (p->armed && p->epoch < m->epoch && p->due_ms <= to_ms)
            expected++;
    }
    assert_int_equal(expected, 0);
}

static void run_model(uint64_t seed, uint64_t start_ms)
{
    static struct model m;

    memset(&m, 0, sizeof m);
    m.seed = seed;
    m.now_ms = start_ms;
    wheel_init(&m.wheel, start_ms);
    for (unsigned i = 0; i < TIMERS; i++)
        m.probes[i].model = &m;
    for (unsigned step = 0; step < 4000; step++) {
        switch (draw(&m, 8)) {
        case 0:
            disarm_any(&m);
            break;
        case 1:
            advance(&m, m.now_ms + draw(&m, 3));
            break;
        case 2:
            advance(&m, m.now_ms + draw_delay(&m));
            break;
        case 3: { /* as the loop does: sleep as long as the wheel says */
            uint64_t wait = wheel_wait_ms(&m.wheel);
            if (wait != UINT64_MAX)
                advance(&m, m.now_ms + wait);
            break;
        }
        default:
            arm_any(&m);
        }
        check(&m);
    }
    assert_true(m.fired > 100);
    for (unsigned turns = 0; m.wheel.armed; turns++) {
        assert_true(turns < 100000);
        m.epoch += 1;
        advance(&m, m.now_ms + wheel_wait_ms(&m.wheel));
        check(&m);
    }
}

static void agrees_with_the_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++)
        run_model(seed * UINT64_C(0x9e3779b97f4a7c15), seed % 2 ? 0 : seed * 123456789);
}

static unsigned runs;

static void count(struct wheel_timer *timer)
{
    (void)timer;
    runs++;
}

static void past_fires_at_the_next_advance(void **state)
{
    (void)state;
    struct wheel wheel;
    struct wheel_timer timer = {0};

    runs = 0;
    wheel_init(&wheel, 1000);
    wheel_arm(&wheel, &timer, 10, count);
    assert_true(wheel_wait_ms(&wheel) == 0);
    assert_int_equal(wheel_advance(&wheel, 1000), 1);
    assert_int_equal(runs, 1);
    assert_int_equal(wheel_advance(&wheel, 1000), 0);
    assert_true(wheel_wait_ms(&wheel) == UINT64_MAX);
}

static struct wheel shared;

static void arm_again(struct wheel_timer *timer)
{
    runs++;
    wheel_arm(&shared, timer, 0, arm_again);
}

static void a_callback_for_now_waits_for_the_next_advance(void **state)
{
    (void)state;
    struct wheel_timer timer = {0};

    runs = 0;
    wheel_init(&shared, 5);
    wheel_arm(&shared, &timer, 6, arm_again);
    assert_int_equal(wheel_advance(&shared, 500), 1);
    assert_int_equal(wheel_advance(&shared, 500), 1);
    assert_int_equal(wheel_advance(&shared, 501), 1);
    wheel_disarm(&shared, &timer);
    assert_int_equal(wheel_advance(&shared, 502), 0);
    assert_int_equal(runs, 3);
}

static struct wheel_timer victim;

static void disarm_victim(struct wheel_timer *timer)
{
    (void)timer;
    wheel_disarm(&shared, &victim);
}

static void a_callback_may_disarm_what_is_due(void **state)
{
    (void)state;
    struct wheel_timer killer = {0};

    runs = 0;
    memset(&victim, 0, sizeof victim);
    wheel_init(&shared, 0);
    wheel_arm(&shared, &victim, 20, count);
    wheel_arm(&shared, &killer, 10, disarm_victim);
    assert_int_equal(wheel_advance(&shared, 100), 1);
    assert_int_equal(runs, 0);
    assert_int_equal(shared.armed, 0);
}

static void a_day_needs_few_wake_ups(void **state)
{
    (void)state;
    struct wheel wheel;
    struct wheel_timer timer = {0};
    uint64_t now = 987654321, at = now + 24u * 3600 * 1000 + 7;
    unsigned turns = 0;

    runs = 0;
    wheel_init(&wheel, now);
    wheel_arm(&wheel, &timer, at, count);
    while (!runs) {
        now += wheel_wait_ms(&wheel);
        wheel_advance(&wheel, now);
        turns++;
    }
    assert_true(now == at); /* to the millisecond */
    assert_in_range(turns, 1, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_model),
        cmocka_unit_test(past_fires_at_the_next_advance),
        cmocka_unit_test(a_callback_for_now_waits_for_the_next_advance),
        cmocka_unit_test(a_callback_may_disarm_what_is_due),
        cmocka_unit_test(a_day_needs_few_wake_ups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
