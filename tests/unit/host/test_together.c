/* The plugins rooms and line on the fake core, together: what people see with any number of
 * workers, and that each allocation may fail without a leak, a broken rule or a lost answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "testhost.h"

extern const struct roda_plugin rooms_plugin;
extern const struct roda_plugin line_plugin;

static struct testhost *start(uint32_t n_workers)
{
    struct testhost *h = testhost_new(n_workers);

    assert_int_equal(testhost_load(h, &rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(h, &line_plugin, NULL), 0);
    assert_int_equal(testhost_start(h), 0);
    return h;
}

static void talk(struct testhost *h, struct testhost_conn *a, struct testhost_conn *b)
{
    testhost_run(h);
    testhost_input(a, "/nick ana\nhello\n/ping\n/join tar\nin tar\n/msg bob hi\n/nick bob\n");
    testhost_run(h);
    testhost_input(b, "/nick eva\n/numbers on\n/join tar\nyes\n/msg bob secret\n/who\n/rooms\n"
                      "/topic news\n/me waves\n/nick evi\n/away lunch\n/help\n/part tar\n");
    testhost_run(h);
    testhost_input(a, "/who lobby\n/kick tar evi\n/quit bye\n");
    testhost_run(h);
}

/* Skips to the next unit that is this one. */
static void reads(struct testhost_conn *c, const char *wanted)
{
    const char *got;

    while ((got = testhost_unit(c)))
        if (!strcmp(got, wanted))
            return;
    fail_msg("\"%s\" did not come", wanted);
}

static void one_conversation_with_any_workers(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 4; n++) {
        struct testhost *h = start(n);
        struct testhost_conn *a = testhost_connect(h, 0, "line", "tcp"),
                             *b = testhost_connect(h, n - 1, "line", "unix");
        talk(h, a, b);
        reads(a, "* you are ana now");
        reads(a, "* you are bob now");
        reads(a, "tar eva: yes");
        reads(a, "tar * eva waves");
        reads(a, "* eva is now evi");
        reads(a, "* goodbye");
        assert_true(testhost_closed(a));
        reads(b, "lobby ana: hello");
        reads(b, "* ana is now bob");
        reads(b, "* 2 tar");
        reads(b, "* you are evi now");
        reads(b, "* bob quit (bye)");
        testhost_end_input(b);
        testhost_run(h);
        assert_true(testhost_closed(b));
        assert_int_equal(testhost_stop(h), 0);
        testhost_free(h);
    }
}

static void every_allocation_may_fail(void **state)
{
    uint64_t used = 0;

    (void)state;
    for (uint64_t n = 0; n <= used; n++) { /* 0: none fails, to count them */
        struct testhost *h = start(3);
        struct testhost_conn *a = testhost_connect(h, 0, "line", "tcp"),
                             *b = testhost_connect(h, 2, "line", "unix");
        uint64_t before = testhost_allocations(h);
        testhost_fail_allocation(h, n);
        talk(h, a, b);
        if (!n)
            used = testhost_allocations(h) - before;
        if (testhost_stop(h))
            fail_msg("with allocation %u of %u failing", (unsigned)n, (unsigned)used);
        testhost_free(h);
    }
    assert_true(used > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_conversation_with_any_workers),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
