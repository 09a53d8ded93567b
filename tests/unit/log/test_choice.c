/* Which rooms are kept, which are durable, and what the configuration may not say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "plugins/log/log.h"
#include "testhost.h"

extern const struct roda_plugin log_plugin, rooms_plugin;

/* Both of one letter: kept, Durable; of each name in turn. */
static void expect(const char *conf, const char *const *names, const char *wanted)
{
    struct testhost *host = testhost_new(1);
    char got[64] = "";

    assert_int_equal(testhost_load(host, &rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(host, &log_plugin, conf), 0);
    for (; *names; names++) {
        char folded[128];
        int n = roda_text_fold((struct roda_str){*names, strlen(*names)}, folded, sizeof(folded));
        assert_true(n > 0);
        uint32_t bits = log_choice(log_conf_of(testhost_ctx(host, "log", 0)),
                                   (struct roda_str){folded, (size_t)n});
        strcat(got, bits & RODA_HISTORY_DURABLE ? "D" : bits & RODA_HISTORY_KEPT ? "k" : "-");
    }
    assert_string_equal(got, wanted);
    testhost_free(host);
}

static void the_last_pattern_that_matches_decides(void **state)
{
    static const char *const names[] = {"lobby", "Secret", "secrets", "ops", "ops-log", NULL};

    (void)state;
    expect("", names, "kkkkk");
    expect("rooms = *, !secret\n", names, "k-kkk");
    expect("rooms = *, !SECRET*\n", names, "k--kk");
    expect("rooms = *, !secret*, secrets\n", names, "k-kkk");
    expect("rooms = #lobby , ops*, ! ops\n", names, "k---k");
    expect("rooms = !*\n", names, "-----");
    expect("rooms =\n", names, "-----");
}

static void exclusions_alone_leave_out_just_these(void **state)
{
    static const char *const names[] = {"lobby", "Secret", "secrets", "ops", "ops-log", NULL};

    (void)state;
    expect("rooms = !secret\n", names, "k-kkk");
    expect("rooms = !secret*, ! ops\n", names, "k---k");
    expect("rooms = !secret*\nrooms = secrets\n", names, "--k--");
}

static void a_mode_holds_up_to_the_next_one(void **state)
{
    static const char *const names[] = {"lobby", "ops", "audit", "audits", "chatter", NULL};

    (void)state;
    expect("sync = always\n", names, "DDDDD");
    expect("sync = never\n", names, "kkkkk");
    expect("sync_rooms = always: ops, Audit\n", names, "kDDkk");
    expect("sync_rooms = ops, #audit*\n", names, "kDDDk");
    expect("sync = always\nsync_rooms = never: chatter, audit, interval: ops\n", names, "DkkDk");
    expect("sync_rooms = always: *, never: audit*, always: audits\n", names, "DDkDD");
    expect("sync = always\nrooms = *, !ops\n", names, "D-DDD");
    expect("sync_rooms = always: ops, never: ops*, chatter, always: ops\n", names, "kDkkk");
}

static void a_room_may_be_called_like_a_mode(void **state)
{
    static const char *const names[] = {"always", "never", NULL};

    (void)state;
    expect("sync_rooms = #always\n", names, "Dk");
    expect("sync_rooms = never: #always, always: #never\n", names, "kD");
}

static void two_people_follow_their_own_option(void **state)
{
    struct testhost *host = testhost_new(1);
    struct roda_str pair = RODA_STR("@ana,bob");

    (void)state;
    assert_int_equal(testhost_load(host, &rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(host, &log_plugin, "rooms = *\n"), 0);
    assert_int_equal(log_choice(log_conf_of(testhost_ctx(host, "log", 0)), pair), 0);
    testhost_free(host);
    host = testhost_new(1);
    assert_int_equal(testhost_load(host, &rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(host, &log_plugin, "rooms = !*\nprivate = yes\nannounce = no\n"),
                     0);
    assert_int_equal(log_choice(log_conf_of(testhost_ctx(host, "log", 0)), pair),
                     RODA_HISTORY_KEPT);
    testhost_free(host);
}

static void what_is_announced_of_a_room(void **state)
{
    static const struct {
        const char *conf;
        uint32_t bits;
    } cases[] = {
        {"", RODA_HISTORY_ANNOUNCED},
        {"addresses = yes\n", RODA_HISTORY_ANNOUNCED | RODA_HISTORY_ADDRESSES},
        {"private = yes\n", RODA_HISTORY_ANNOUNCED | RODA_HISTORY_PRIVATE},
        {"addresses = yes\nprivate = yes\nannounce = no\n", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct testhost *host = testhost_new(1);
        const struct log_conf *conf;

        assert_int_equal(testhost_load(host, &rooms_plugin, NULL), 0);
        assert_int_equal(testhost_load(host, &log_plugin, cases[i].conf), 0);
        conf = log_conf_of(testhost_ctx(host, "log", 0));
        assert_int_equal(log_choice(conf, RODA_STR("lobby")), RODA_HISTORY_KEPT | cases[i].bits);
        testhost_free(host);
    }
}

/* A name that can match nothing would leave a room undurable, or in the log, and nobody knows. */
static void what_can_match_nothing_is_refused(void **state)
{
    static const struct {
        const char *conf, *said;
    } wrong[] = {
        {"sync_rooms = allways: ops\n", "sync_rooms"},
        {"sync_rooms = always:\n", "name is missing"},
        {"sync_rooms = always: o*s\n", "sync_rooms"},
        {"sync_rooms = always: ops audit\n", "sync_rooms"},
        {"sync_rooms = !ops\n", "sync_rooms"},
        {"sync_rooms = always\n", "write always: ops, audit"},
        {"sync_rooms = ops, never\n", "write never: ops, audit"},
        {"sync_rooms = always: interval\n", "\"interval\" is a mode"},
        {"sync_rooms = always: ops, never: ops\n", "\"ops\" stands behind two modes"},
        {"sync_rooms = ops\nsync_rooms = interval: audit, #OPS\n", "\"#OPS\" stands behind two"},
        {"sync_rooms = always: *, never: *\n", "\"*\" stands behind two"},
        {"rooms = o*s\n", "rooms"},
        {"rooms = *, !se*t\n", "rooms"},
        {"rooms = *, !\n", "rooms"},
        {"rooms = *, !secret hidden\n", "rooms"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        struct testhost *host = testhost_new(1);
        assert_int_equal(testhost_load(host, &rooms_plugin, NULL), 0);
        if (!testhost_load(host, &log_plugin, wrong[i].conf))
            fail_msg("\"%s\" is taken", wrong[i].conf);
        if (!strstr(testhost_error(host), wrong[i].said))
            fail_msg("\"%s\" does not say %s", testhost_error(host), wrong[i].said);
        testhost_free(host);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_pattern_that_matches_decides),
        cmocka_unit_test(exclusions_alone_leave_out_just_these),
        cmocka_unit_test(a_mode_holds_up_to_the_next_one),
        cmocka_unit_test(a_room_may_be_called_like_a_mode),
        cmocka_unit_test(two_people_follow_their_own_option),
        cmocka_unit_test(what_is_announced_of_a_room),
        cmocka_unit_test(what_can_match_nothing_is_refused),
    };

    return cmocka_run_group_tests_name("log/choice", tests, NULL, NULL);
}
