#include "chat.h"

#include <errno.h>

#include <roda/history.h>

/* Rooms beside a log: where their numbers begin, on which worker they live, and what becomes of
 * what could not be stored. A fake log says where numbers begin, and holds what is published. */

/* ---- a log ------------------------------------------------------------------------------ */

static struct {
    int result; /* of start() */
    struct roda_history_start start;
    int defer;
    uint32_t asked;                              /* how often start() was called */
    uint32_t workers_of_pairs, workers_of_rooms; /* a bit each */
    struct roda_msg last;                        /* that was published; texts are gone */
} fake;

static int fake_start(struct roda_ctx *x, struct roda_str room, struct roda_history_start *ret)
{
    char folded[64];
    int n = roda_text_fold(room, folded, sizeof(folded));
    uint32_t partition = roda_room_partition((struct roda_str){folded, (size_t)n});

    assert_true(n > 0);
    assert_int_equal(x->worker, roda_partition_worker(partition, x->n_workers));
    fake.asked++;
    if (!fake.result)
        *ret = fake.start;
    return fake.result;
}

static roda_verdict fake_publish(struct roda_ctx *x, struct roda_event *ev)
{
    uint32_t bit = UINT32_C(1) << x->worker;

    fake.last = *ev->msg;
    if (ev->msg->flags & RODA_MSG_DIRECT)
        fake.workers_of_pairs |= bit;
    else
        fake.workers_of_rooms |= bit;
    return fake.defer ? RODA_DEFER : RODA_PASS;
}

static const struct roda_history fake_history = {.size = sizeof(fake_history), .start = fake_start};
static const struct roda_service_table fake_services[] = {{RODA_HISTORY_ID, &fake_history},
                                                          {.id = NULL}};
static const struct roda_plugin fake_log = {.abi = RODA_ABI,
                                            .size = sizeof(struct roda_plugin),
                                            .service_size = sizeof(struct roda_service_table),
                                            .name = "log",
                                            .summary = "a log for tests",
                                            .version = "0",
                                            .services = fake_services,
                                            .publish = fake_publish};

/* The log's section comes last: needs decide the order of the start. */
static struct testhost *start(uint32_t n_workers)
{
    struct testhost *h = testhost_new(n_workers);

    memset(&fake, 0, sizeof(fake));
    fake.result = -ENOENT;
    assert_int_equal(testhost_load(h, &rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(h, &fake_log, NULL), 0);
    assert_int_equal(testhost_start(h), 0);
    return h;
}

/* What was deferred is let go. */
static void let_go(struct testhost *h, uint32_t n_workers, int result)
{
    fake.defer = 0;
    for (int round = 0; round < 4; round++) {
        for (uint32_t w = 0; w < n_workers; w++)
            (void)roda_resume_oldest(testhost_ctx(h, "log", w), SIZE_MAX, result);
        assert_true(testhost_run(h));
    }
}

/* ---- where numbers begin ---------------------------------------------------------------- */

static void numbers_go_on_behind_what_was_kept(void **state)
{
    struct testhost *h = start(2);
    struct testhost_conn *ana = chat_enter(h, 1, "ana");
    int64_t later_ns = INT64_C(4000000000) * 1000000000; /* the clock was wrong then */

    (void)state;
    fake.result = 0;
    fake.start = (struct roda_history_start){.epoch = 77, .number = 10412, .time_ns = later_ns};
    chat_answered(h, ana, "JOIN|Ops||", RODA_OK);
    chat_say(ana, "TEXT|ops||hi");
    assert_true(testhost_run(h));
    chat_hears(ana, "answer|0|TEXT|3|10413|");
    assert_true(fake.last.epoch == 77);
    assert_int_equal(fake.last.prev, 10412);
    assert_true(fake.last.time_ns == later_ns);
    chat_stop(h);
}

static void each_new_beginning_asks_again(void **state)
{
    struct testhost *h = start(2);
    struct testhost_conn *ana = chat_enter(h, 0, "ana");
    uint64_t epoch;

    (void)state;
    assert_int_equal(fake.asked, 1); /* the lobby */
    chat_answered(h, ana, "JOIN|ops||", RODA_OK);
    chat_say(ana, "TEXT|ops||hi");
    assert_true(testhost_run(h));
    chat_hears(ana, "answer|0|TEXT|3|1|");
    epoch = fake.last.epoch;
    assert_true(epoch != 0);
    chat_answered(h, ana, "PART|ops||", RODA_OK);
    assert_int_equal(testhost_metric(h, "rooms", "rooms_open"), 1);
    chat_answered(h, ana, "JOIN|ops||", RODA_OK); /* nothing was kept: another room */
    assert_int_equal(fake.asked, 3);
    chat_say(ana, "TEXT|ops||hi");
    assert_true(testhost_run(h));
    assert_true(fake.last.epoch != epoch);
    chat_stop(h);
}

/* Any other start could use numbers twice, so there is none. */
static void a_room_whose_numbers_are_not_known_is_not_made(void **state)
{
    struct testhost *h = start(2);
    struct testhost_conn *ana = chat_enter(h, 0, "ana");

    (void)state;
    fake.result = -EIO;
    chat_answered(h, ana, "JOIN|ops||", RODA_E_STORAGE);
    fake.result = -ENOMEM;
    chat_answered(h, ana, "JOIN|ops||", RODA_E_MEMORY);
    assert_int_equal(testhost_metric(h, "rooms", "rooms_open"), 1);
    fake.result = -ENOENT;
    chat_answered(h, ana, "JOIN|ops||", RODA_OK);
    chat_stop(h);
}

/* ---- where they live -------------------------------------------------------------------- */

static void rooms_and_pairs_live_where_partitions_are(void **state)
{
    enum { WORKERS = 20, PEOPLE = 24 };
    struct testhost *h = start(WORKERS);
    struct testhost_conn *people[PEOPLE];
    char line[64];

    (void)state;
    for (uint32_t i = 0; i < PEOPLE; i++) {
        (void)snprintf(line, sizeof(line), "p%u", i);
        people[i] = chat_enter(h, i % WORKERS, line);
    }
    for (uint32_t i = 0; i < PEOPLE; i++) {
        for (uint32_t to = 0; to < PEOPLE; to++) {
            (void)snprintf(line, sizeof(line), "TEXT+d|p%u||hi", to);
            chat_answered(h, people[i], line, RODA_OK);
        }
        (void)snprintf(line, sizeof(line), "JOIN|room%u||", i);
        chat_answered(h, people[i], line, RODA_OK);
    }
    assert_int_equal(fake.workers_of_pairs, 0xffff); /* 300 pairs: all of them */
    assert_int_equal(fake.workers_of_rooms & ~UINT32_C(0xffff), 0);
    chat_stop(h);
}

/* ---- what could not be stored ----------------------------------------------------------- */

/* Nobody is shown it, nothing has changed, and `prev` of the next one proves both. */
static void what_was_not_stored_did_not_happen(void **state)
{
    static const struct {
        const char *line, *answer;
    } lines[] = {
        {"TEXT|ops||hi", "answer|16|TEXT|*|*|not stored: the disk is full; nothing was sent"},
        {"NOTICE|ops||hi", "answer|16|NOTICE|*|*|not stored: *"},
        {"TOPIC|ops||new", "answer|16|TOPIC|*|*|not stored: *"},
        {"MODE|ops||+m", "answer|16|MODE|*|*|not stored: *"},
        {"MODE|ops|bob|+o", "answer|16|MODE|*|*|not stored: *"},
        {"KICK|ops|bob|out", "answer|16|KICK|*|*|not stored: *"},
        {"TYPING|ops||", "answer|16|TYPING|*|*|not stored: *"},
        {"INVITE|ops|eva|", "answer|16|INVITE|*|*|not stored: *"},
        {"PART|ops||", "answer|16|PART|*|*|not stored: *"},
        {"JOIN|dev||", "answer|16|JOIN|*|*|not stored: *"},
        {"TEXT+d|bob||psst", "answer|16|TEXT|*|*|not stored: *"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        struct testhost *h = start(2);
        struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");
        struct testhost_conn *eva = chat_enter(h, 1, "eva");

        chat_answered(h, ana, "JOIN|ops||", RODA_OK);
        chat_answered(h, bob, "JOIN|ops||", RODA_OK);
        chat_answered(h, ana, "TEXT|ops||before", RODA_OK);
        chat_forget(ana);
        chat_forget(bob);
        chat_forget(eva);
        fake.defer = 1;
        chat_say(ana, lines[i].line);
        assert_true(testhost_run(h));
        let_go(h, 2, -ENOSPC);
        chat_hears(ana, lines[i].answer);
        chat_hears_nothing(bob);
        chat_hears_nothing(eva);
        /* Both are still members, bob may talk and is no operator. */
        chat_say(bob, "TEXT|ops||after");
        assert_true(testhost_run(h));
        chat_hears(ana, "TEXT|*|1|bob|ops||after");
        chat_forget(bob);
        chat_answered(h, bob, "KICK|ops|ana|", RODA_E_RANK);
        chat_answered(h, ana, "KICK|ops|bob|out", RODA_OK);
        chat_stop(h);
    }
}

static void the_reason_is_said(void **state)
{
    static const struct {
        int result;
        const char *answer;
    } reasons[] = {
        {-EDQUOT, "answer|16|TEXT|*|*|not stored: the disk is full; nothing was sent"},
        {-EIO, "answer|16|TEXT|*|*|not stored: the disk does not work; nothing was sent"},
        {-ENOMEM, "answer|16|TEXT|*|*|not stored: the broker is out of memory; nothing was sent"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(reasons) / sizeof(*reasons); i++) {
        struct testhost *h = start(1);
        struct testhost_conn *ana = chat_enter(h, 0, "ana");

        fake.defer = 1;
        chat_say(ana, "TEXT|lobby||hi");
        assert_true(testhost_run(h));
        let_go(h, 1, reasons[i].result);
        chat_hears(ana, reasons[i].answer);
        chat_stop(h);
    }
}

/* What happens to a person is true whether it is stored or not. */
static void people_change_and_go_all_the_same(void **state)
{
    struct testhost *h = start(2);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");

    (void)state;
    fake.defer = 1;
    chat_say(ana, "NICK|||bia");
    assert_true(testhost_run(h));
    let_go(h, 2, -EIO);
    chat_forget(ana);
    chat_answered(h, bob, "TEXT+d|bia||hi", RODA_OK);
    fake.defer = 1;
    chat_say(ana, "QUIT|||");
    assert_true(testhost_run(h));
    let_go(h, 2, -EIO);
    assert_int_equal(testhost_metric(h, "rooms", "rooms_members"), 1);
    chat_answered(h, bob, "NICK|||bia", RODA_OK);
    chat_stop(h);
}

/* Whoever keeps it must know. */
static void what_is_said_in_a_closed_room_is_marked(void **state)
{
    static const char *const closing[][2] = {{"MODE|ops||+i", "MODE|ops||-i"},
                                             {"MODE|ops|sesame|+k", "MODE|ops||-k"}};
    struct testhost *h = start(1);
    struct testhost_conn *ana = chat_enter(h, 0, "ana");

    (void)state;
    chat_answered(h, ana, "JOIN|ops||", RODA_OK);
    for (size_t i = 0; i < sizeof(closing) / sizeof(*closing); i++) {
        chat_answered(h, ana, "TEXT|ops||for all", RODA_OK);
        assert_false(fake.last.flags & RODA_MSG_CLOSED);
        chat_answered(h, ana, closing[i][0], RODA_OK);
        chat_answered(h, ana, "TEXT|ops||for us", RODA_OK);
        assert_true(fake.last.flags & RODA_MSG_CLOSED);
        chat_answered(h, ana, i ? "TOPIC|ops||ours" : "TOPIC|ops||mine", RODA_OK);
        assert_true(fake.last.flags & RODA_MSG_CLOSED);
        chat_answered(h, ana, closing[i][1], RODA_OK);
    }
    chat_answered(h, ana, "TEXT|ops||for all", RODA_OK);
    assert_false(fake.last.flags & RODA_MSG_CLOSED);
    /* Though a disk still holds what closes it. */
    fake.defer = 1;
    testhost_input(ana, "MODE|ops||+i\nTEXT|ops||for us\n");
    (void)testhost_run(h);
    assert_true(fake.last.kind == RODA_TEXT && fake.last.flags & RODA_MSG_CLOSED);
    let_go(h, 1, 0);
    chat_answered(h, ana, "TEXT|ops||for us", RODA_OK);
    assert_true(fake.last.flags & RODA_MSG_CLOSED);
    chat_stop(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_go_on_behind_what_was_kept),
        cmocka_unit_test(each_new_beginning_asks_again),
        cmocka_unit_test(a_room_whose_numbers_are_not_known_is_not_made),
        cmocka_unit_test(rooms_and_pairs_live_where_partitions_are),
        cmocka_unit_test(what_was_not_stored_did_not_happen),
        cmocka_unit_test(the_reason_is_said),
        cmocka_unit_test(people_change_and_go_all_the_same),
        cmocka_unit_test(what_is_said_in_a_closed_room_is_marked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
