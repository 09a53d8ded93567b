#include "chat.h"

/*
 * Memory runs out at every single allocation of a scene in turn. Whatever fails: no crash, no leak,
 * nobody stays in a room who has gone, no name stays taken, and those who are still there can talk.
 */

enum { WORKERS = 3 };

static void scene(struct testhost *h, struct testhost_conn *people[3])
{
    static const char *const lines[] = {
        ("JOIN|ops||\nJOIN|dev||\nTEXT|ops||hi\nTOPIC|ops||plantao\nMODE|ops|key|+k\n"
         "MODE|ops||-k\nMODE|ops|x*|+b\nINVITE|dev|guest|\n"),
        "JOIN|ops||\nJOIN|dev||\nTEXT+d|ana||psst\nNICK|||bea\nAWAY|||lunch\nTEXT|dev||hi\n",
        "JOIN|ops||\nTEXT|lobby||oi\nPART|ops||bye\nJOIN|ops||\nTEXT+d|eva||self\n",
        "KICK|ops|eva|out\nMODE|ops|bea|+o\nNICK|||anna\n",
        "PART|dev||\nQUIT|bye\n",
    };

    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        if (people[i % 3])
            testhost_input(people[i % 3], lines[i]);
        assert_true(testhost_run(h));
    }
}

static struct testhost_conn *try_enter(struct testhost *h, uint32_t worker, const char *nick)
{
    struct testhost_conn *c = testhost_connect(h, worker, "plain", "tcp");
    char line[64];

    if (!c)
        return NULL;
    assert_true(testhost_run(h));
    (void)snprintf(line, sizeof(line), "NICK|||%s", nick);
    chat_say(c, line);
    assert_true(testhost_run(h));
    return c;
}

static int hears_word(struct testhost_conn *c, const char *word)
{
    const char *got;
    int heard = 0;

    while ((got = testhost_unit(c)))
        heard |= strstr(got, word) != NULL;
    return heard;
}

/* How many allocations the scene makes, if none fails. */
static uint64_t count(void)
{
    struct testhost *h = chat_start(WORKERS, NULL);
    uint64_t before = testhost_allocations(h), n;
    struct testhost_conn *people[] = {try_enter(h, 0, "ana"), try_enter(h, 1, "bob"),
                                      try_enter(h, 2, "eva")};

    scene(h, people);
    for (size_t i = 0; i < 3; i++)
        testhost_reset(people[i]);
    assert_true(testhost_run(h));
    n = testhost_allocations(h) - before;
    chat_stop(h);
    return n;
}

static void run_with_failure(uint64_t at)
{
    struct testhost *h = chat_start(WORKERS, NULL);
    struct testhost_conn *people[3], *ana, *bob;

    testhost_fail_allocation(h, at);
    people[0] = try_enter(h, 0, "ana");
    people[1] = try_enter(h, 1, "bob");
    people[2] = try_enter(h, 2, "eva");
    scene(h, people);
    for (size_t i = 0; i < 3; i++)
        if (people[i])
            testhost_reset(people[i]);
    assert_true(testhost_run(h));
    testhost_fail_allocation(h, 0);

    /* Whoever comes now finds all names and rooms free. */
    ana = chat_enter(h, 0, "ana");
    bob = chat_enter(h, 1, "bob");
    chat_answered(h, ana, "NICK|||anna", RODA_OK);
    chat_answered(h, bob, "NICK|||bea", RODA_OK);
    chat_answered(h, ana, "NICK|||eva", RODA_OK);
    chat_answered(h, ana, "JOIN|ops||", RODA_OK);
    chat_answered(h, bob, "JOIN|ops||", RODA_OK);
    if (testhost_metric(h, "rooms", "rooms_members") != 4)
        fail_msg("allocation %llu failed: %lld members, not 4", (unsigned long long)at,
                 (long long)testhost_metric(h, "rooms", "rooms_members"));
    chat_forget(bob);
    chat_answered(h, ana, "TEXT|ops||word", RODA_OK);
    assert_true(hears_word(bob, "|word"));
    chat_answered(h, ana, "MODE|ops||+m", RODA_OK); /* the room is new, and ana made it */
    chat_answered(h, ana, "TEXT+d|bea||whisper", RODA_OK);
    assert_true(hears_word(bob, "|whisper"));
    chat_answered(h, ana, "PART|ops||", RODA_OK);
    chat_answered(h, bob, "PART|ops||", RODA_OK);
    assert_int_equal(testhost_metric(h, "rooms", "rooms_open"), 1);
    chat_stop(h);
}

static void each_allocation_may_fail(void **state)
{
    uint64_t n = count();

    (void)state;
    assert_true(n > 100);
    for (uint64_t at = 1; at <= n; at++)
        run_with_failure(at);
}

static void starting_may_fail(void **state)
{
    (void)state;
    for (uint64_t at = 1; at < 200; at++) {
        struct testhost *h = testhost_new(WORKERS);
        int r;

        assert_int_equal(testhost_load(h, &rooms_plugin, NULL), 0);
        testhost_fail_allocation(h, at);
        r = testhost_start(h);
        testhost_fail_allocation(h, 0);
        assert_int_equal(testhost_stop(h), 0);
        testhost_free(h);
        if (!r && at > 20)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_allocation_may_fail),
        cmocka_unit_test(starting_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
