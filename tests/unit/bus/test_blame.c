/* Who is to blame for a long turn: each hook's own time, without that of the calls inside. */
#include "unit/bus/bench.h"

#include "base/list.h"

static uint64_t clock_ns;

static uint64_t now_ns(void *kernel)
{
    (void)kernel;
    return clock_ns;
}

static void hooks_are_timed_without_what_runs_inside(void **state)
{
    const struct system system = {.monotonic_ns = now_ns};
    struct ring ring = {.system = &system};
    struct bus bus = {.ring = &ring, .timed_turns = 1};

    (void)state;
    clock_ns = 1000;
    bus_enter(&bus, "outer", "handle");
    clock_ns += 5;
    bus_enter(&bus, "inner", "lane");
    clock_ns += 70;
    bus_enter(&bus, NULL, "item"); /* the core itself is never named */
    clock_ns += 1000;
    bus_leave(&bus);
    clock_ns += 10;
    bus_leave(&bus);
    assert_string_equal(bus.slowest.plugin, "inner");
    assert_string_equal(bus.slowest.stage, "lane");
    assert_int_equal(bus.slowest_ns, 80);
    clock_ns += 74;
    bus_leave(&bus); /* 79 of its own */
    assert_string_equal(bus.slowest.plugin, "inner");
    assert_int_equal(bus.depth, 0);
    bus_enter(&bus, "outer", "timer");
    clock_ns += 81;
    bus_leave(&bus);
    assert_string_equal(bus.slowest.plugin, "outer");
    assert_string_equal(bus.slowest.stage, "timer");
    assert_int_equal(bus.slowest_ns, 81);
}

static void nothing_is_timed_while_turns_are_short(void **state)
{
    const struct system system = {.monotonic_ns = NULL}; /* not asked */
    struct ring ring = {.system = &system};
    struct bus bus = {.ring = &ring};

    (void)state;
    bus_enter(&bus, "any", "handle");
    bus_leave(&bus);
    assert_null(bus.slowest.plugin);
}

static void depth_has_no_end(void **state)
{
    const struct system system = {.monotonic_ns = now_ns};
    struct ring ring = {.system = &system};
    struct bus bus = {.ring = &ring, .timed_turns = 1};

    (void)state;
    clock_ns = 1;
    for (unsigned i = 0; i < 3 * BUS_BLAME_DEPTH; i++) {
        bus_enter(&bus, "deep", "submit");
        clock_ns++;
    }
    assert_string_equal(bus_running(&bus)->plugin, "deep");
    for (unsigned i = 0; i < 3 * BUS_BLAME_DEPTH; i++)
        bus_leave(&bus);
    assert_int_equal(bus.depth, 0);
    assert_null(bus_running(&bus));
    assert_true(bus.slowest_ns <= 3 * BUS_BLAME_DEPTH); /* never more than went by */
}

static const char *seen_plugin;

static void look(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct bus *bus = bench_bus(x->worker);

    (void)item;
    (void)result;
    seen_plugin = bus->running[bus->depth - 1].plugin;
}

static void items_of_the_core_are_the_cores(void **state)
{
    static struct roda_item item = {.run = look};

    (void)state;
    bench_new(1);
    bench_start();
    bench_as(0);
    roda_post(bench_ctx(0, FIRST), 0, &item);
    bench_done(0);
    assert_string_equal(seen_plugin, "first");
    seen_plugin = "?";
    bench_as(0);
    bus_post(bench_bus(0), 0, 0, &item, false);
    bench_done(0);
    assert_null(seen_plugin);
    bench_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hooks_are_timed_without_what_runs_inside),
        cmocka_unit_test(nothing_is_timed_while_turns_are_short),
        cmocka_unit_test(depth_has_no_end),
        cmocka_unit_test(items_of_the_core_are_the_cores),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
