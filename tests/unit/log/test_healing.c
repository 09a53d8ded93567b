/* Partitions that break while people talk, and what they, history and the text files have when the
 * disk is well again. */
#include "people.h"

enum { LONG_TEXT = 3500 };
static char long_line[LONG_TEXT + 64];

/* A room whose partition is not the lobby's; its files are named so. */
static char elsewhere[16], elsewhere_path[16];

static void find_elsewhere(void)
{
    unsigned i = 0;

    do
        (void)snprintf(elsewhere, sizeof(elsewhere), "room%u", i++);
    while (partition_of(elsewhere) == partition_of("lobby"));
    (void)snprintf(elsewhere_path, sizeof(elsewhere_path), "/log/%02u",
                   partition_of(elsewhere)->index);
}

static struct log_room *kept_room(const char *name)
{
    return log_rooms_find(&partition_of(name)->rooms, (struct roda_str){name, strlen(name)});
}

static void leave(struct testhost_conn *c, const char *room)
{
    char line[32];

    (void)snprintf(line, sizeof(line), "PART|%s||\n", room);
    testhost_input(c, line);
    assert_true(testhost_run(host));
}

static void send_long(struct testhost_conn *c, const char *room)
{
    (void)snprintf(long_line, sizeof(long_line), "TEXT|%s||%0*u\n", room, LONG_TEXT, 0);
    testhost_input(c, long_line);
}

/* Until the room's partition ends there. */
static void fill(struct testhost_conn *c, const char *room, uint64_t until)
{
    while (partition_end(partition_of(room)) < until) {
        send_long(c, room);
        testhost_advance_ms(host, 10);
        while (testhost_unit(c)) {
        }
    }
}

static uint64_t last_number(struct testhost_conn *c)
{
    uint64_t last = 0, n;

    while ((n = next_number(c)))
        last = n;
    return last;
}

static void heal(const char *room)
{
    testhost_advance_ms(host, 5000);
    assert_int_equal(partition_of(room)->state, PARTITION_READY);
}

static const char *text_of(const char *room)
{
    char path[80];
    size_t len;

    (void)snprintf(path, sizeof(path), "/text/%s/2026-01-01.log", room);
    return testhost_file_get(host, path, &len);
}

/* ---- history ---------------------------------------------------------------------------- */

static struct {
    int done;
    size_t n;
} page;

static void on_page(void *arg, const struct roda_history_page *got, int result)
{
    (void)arg;
    page.done = 1;
    page.n = got ? got->n : 0;
    assert_int_equal(result, 0);
}

/* How many messages history has. */
static size_t past(const char *room)
{
    struct roda_history_query query = {.size = sizeof(query),
                                       .what = RODA_HISTORY_LATEST,
                                       .max = 64,
                                       .room = {room, strlen(room)}};
    struct roda_ctx *x;
    const struct roda_history *history =
        roda_service(testhost_ctx(host, "rooms", 0), RODA_HISTORY_ID, &x);

    page.done = 0;
    assert_non_null(history);
    assert_int_equal(history->read(x, &query, on_page, NULL), 0);
    assert_true(testhost_run(host));
    assert_true(page.done);
    return page.n;
}

/* ---- what waits for another disk -------------------------------------------------------- */

/* Says so in turn, here and elsewhere, where the disk holds it; all of the lobby's is on its disk,
 * and waits for those before it. */
static struct testhost_conn *say_behind_a_slow_disk(unsigned times)
{
    struct testhost_conn *ana, *bob;

    start(1, "directory = /log\nsync = always\ntext_directory = /text\n");
    ana = enter(0, "ana");
    bob = enter(0, "bob");
    find_elsewhere();
    join(ana, elsewhere);
    assert_int_equal(say_and_see(ana, elsewhere), 1);
    assert_int_equal(say_and_see(bob, "lobby"), 1);
    testhost_hold_path(host, elsewhere_path);
    for (unsigned i = 0; i < times; i++) {
        say(ana, elsewhere, "slow");
        (void)testhost_run(host);
        say(bob, "lobby", i ? "three" : "two");
        (void)testhost_run(host);
    }
    assert_int_equal(testhost_metric(host, "log", "log_waiting"), 2 * times);
    assert_int_equal(partition_synced(partition_of("lobby")), partition_end(partition_of("lobby")));
    return bob;
}

static void what_is_on_disk_when_it_breaks_stays(void **state)
{
    struct testhost_conn *bob;

    (void)state;
    bob = say_behind_a_slow_disk(2);
    partition_break(partition_of("lobby"), -EIO);
    assert_int_equal(kept_room("lobby")->shown, 3);
    /* The first of them goes, the other one waits for another sync elsewhere, longer than healing
     * takes. */
    testhost_hold_path(host, "");
    while (testhost_metric(host, "log", "log_waiting") == 4)
        (void)testhost_turn(host);
    testhost_hold_path(host, elsewhere_path);
    assert_int_equal(kept_room("lobby")->shown, 3);
    heal("lobby");
    testhost_hold_path(host, "");
    testhost_advance_ms(host, 3000);
    assert_int_equal(next_number(bob), 2);
    assert_int_equal(next_number(bob), 3);
    assert_int_equal(past("lobby"), 3);
    assert_non_null(strstr(text_of("lobby"), " - three\n"));
    stop();
}

static void a_line_is_written_once(void **state)
{
    struct testhost_conn *bob;
    const char *first;

    (void)state;
    bob = say_behind_a_slow_disk(1);
    partition_break(partition_of("lobby"), -EIO);
    heal("lobby"); /* before it has had its turn */
    testhost_hold_path(host, "");
    testhost_advance_ms(host, 3000);
    (void)say_and_see(bob, "lobby");
    testhost_advance_ms(host, 3000);
    first = strstr(text_of("lobby"), " - two\n");
    assert_non_null(first);
    assert_null(strstr(first + 1, " - two\n"));
    stop();
}

/* ---- numbers ---------------------------------------------------------------------------- */

/* Many are under way when a segment ends, the next one takes some of them and breaks: the others
 * are shown unlogged. */
static void numbers_that_were_given_stay_given(void **state)
{
    static const char conf[] = "directory = /log\nsync = never\nsegment_bytes = 1M\n";
    enum { PEOPLE = 60, EACH = 18 };
    struct testhost_conn *people[PEOPLE], *bob;
    char path[80], name[LOG_NAME_BYTES];
    struct partition *p;
    uint64_t last;

    (void)state;
    segment_bytes = 1 << 20;
    start(1, conf);
    bob = enter(0, "bob");
    for (unsigned i = 0; i < PEOPLE; i++) {
        char nick[16];
        (void)snprintf(nick, sizeof(nick), "n%u", i);
        people[i] = enter(0, nick);
    }
    p = partition_of("lobby");
    fill(people[0], "lobby", segment_bytes - 3 * LONG_TEXT);
    (void)last_number(bob);
    (void)snprintf(path, sizeof(path), "/log/%02u-", p->index);
    testhost_hold_path(host, path);
    testhost_hold_writes(host, true);
    for (unsigned i = 0; i < EACH; i++) {
        for (unsigned k = 0; k < PEOPLE; k++)
            send_long(people[k], "lobby");
        (void)testhost_run(host);
    }
    log_segment_name(p->index, segment_bytes, name);
    (void)snprintf(path, sizeof(path), "/log/%s", name);
    testhost_hold_path(host, path);
    testhost_advance_ms(host, 20);
    assert_int_equal(p->n_segments, 2);
    assert_in_range(kept_room("lobby")->unwritten, 1, PEOPLE * EACH - 1);
    testhost_fail_writes(host, -ENOSPC);
    testhost_hold_writes(host, false);
    testhost_hold_path(host, "");
    testhost_advance_ms(host, 50);
    assert_int_equal(p->state, PARTITION_BROKEN);
    testhost_fail_writes(host, 0);
    heal("lobby");
    last = last_number(bob);
    assert_true(last > PEOPLE * EACH);
    restart(1, conf, false);
    assert_true(say_and_see(enter(0, "ana"), "lobby") > last);
    stop();
}

/* Shown as soon as it was handed to the file, which had it before the disk was full. */
static void what_was_shown_and_is_not_kept_is_counted(void **state)
{
    struct testhost_conn *ana;

    (void)state;
    start(1, "directory = /log\nsync = never\n");
    assert_int_equal(say_and_see(enter(0, "bob"), "lobby"), 1);
    testhost_advance_ms(host, 1000);
    restart(1, "directory = /log\nsync = never\n", true); /* the numbers make a jump */
    ana = enter(0, "ana");
    (void)say_and_see(ana, "lobby");
    testhost_advance_ms(host, 1000);
    for (uint64_t time = 1; time <= 2; time++) {
        testhost_fail_writes(host, -ENOSPC);
        for (unsigned i = 0; i < 5; i++)
            (void)say_and_see(ana, "lobby");
        testhost_advance_ms(host, 100);
        for (unsigned i = 0; i < 3; i++) {
            (void)say_and_see(ana, "lobby");
            testhost_advance_ms(host, 100);
        }
        assert_int_equal(partition_of("lobby")->state, PARTITION_BROKEN);
        testhost_fail_writes(host, 0);
        heal("lobby");
        assert_int_equal(testhost_metric(host, "log", "log_unlogged_total"), 8 * time);
    }
    stop();
}

static void a_refused_first_message_takes_no_number_back(void **state)
{
    struct testhost_conn *ana;
    char other[16];

    (void)state;
    start(1, "directory = /log\nsync = always\nsegment_age = 1h\nkeep = 2h\n");
    ana = enter(0, "ana");
    (void)snprintf(other, sizeof(other), "%s", neighbour(0));
    join(ana, other);
    for (unsigned i = 1; i <= 20; i++)
        assert_int_equal(say_and_see(ana, other), i);
    leave(ana, other);
    for (unsigned i = 0; i < 6; i++) {
        pass_ms(2 * HOUR_MS);
        (void)say_and_see(ana, "lobby");
    }
    assert_null(kept_room(other)); /* forgotten */
    partition_break(partition_of("lobby"), -EIO);
    join(ana, other);
    assert_true(say_and_see(ana, other) == UINT64_MAX);
    leave(ana, other);
    heal("lobby");
    join(ana, other);
    assert_int_equal(say_and_see(ana, other), 21);
    stop();
}

/* ---- rooms ------------------------------------------------------------------------------ */

/* One in which nothing was said for long was forgotten; the segment before still describes it. */
static struct testhost_conn *find_again(char other[16])
{
    struct testhost_conn *ana;

    start(1, "directory = /log\nsync = always\nsegment_age = 1h\nkeep = 2h\n");
    ana = enter(0, "ana");
    (void)snprintf(other, 16, "%s", neighbour(0));
    join(ana, other);
    assert_int_equal(say_and_see(ana, other), 1);
    for (unsigned i = 0; kept_room(other); i++) {
        testhost_hold_files(host, false);
        assert_true(testhost_run(host));
        if (i % 600 == 0)
            (void)say_and_see(ana, "lobby");
        testhost_hold_files(host, true);
        testhost_advance_ms(host, 10000);
        assert_true(i < 20000);
    }
    partition_break(partition_of("lobby"), -EIO);
    testhost_hold_files(host, false);
    heal("lobby");
    assert_non_null(kept_room(other));
    while (testhost_unit(ana)) {
    }
    return ana;
}

static void a_room_found_again_has_a_past(void **state)
{
    struct testhost_conn *ana;
    char other[16];

    (void)state;
    ana = find_again(other);
    assert_int_equal(say_and_see(ana, other), 2);
    assert_int_equal(say_and_see(ana, other), 3);
    assert_int_equal(past(other), 2);
    stop();
}

static void what_is_refused_in_a_room_found_again_is_gone(void **state)
{
    struct testhost_conn *ana;
    char other[16];

    (void)state;
    ana = find_again(other);
    leave(ana, other);
    join(ana, other);
    while (testhost_unit(ana)) {
    }
    testhost_hold_files(host, true);
    say(ana, other, "refused");
    (void)testhost_run(host);
    assert_int_equal(next_number(ana), 0);
    partition_break(partition_of("lobby"), -EIO);
    testhost_hold_files(host, false);
    heal("lobby");
    assert_true(next_number(ana) == UINT64_MAX);
    assert_int_equal(past(other), 0);
    stop();
}

static void a_refused_private_message_is_gone(void **state)
{
    struct testhost_conn *ana;
    struct partition *p = NULL;
    struct log_room *pair = NULL;

    (void)state;
    start(1, "directory = /log\nsync = always\nprivate = yes\n");
    ana = enter(0, "ana");
    (void)enter(0, "bob");
    testhost_input(ana, "TEXT+d|bob||one\n");
    assert_true(testhost_run(host));
    for (unsigned i = 0; i < RODA_PARTITIONS && !pair; i++) {
        p = log_state_of(testhost_ctx(host, "log", 0))->partitions[i];
        pair = log_rooms_find(&p->rooms, RODA_STR("@ana,bob"));
    }
    assert_non_null(pair);
    testhost_hold_files(host, true);
    testhost_input(ana, "TEXT+d|bob||two\n");
    (void)testhost_run(host);
    assert_int_equal(pair->kept, 2);
    partition_break(p, -EIO);
    testhost_hold_files(host, false);
    testhost_advance_ms(host, 5000);
    assert_int_equal(p->state, PARTITION_READY);
    assert_int_equal(pair->kept, 1);
    stop();
}

static void text_files_of_closed_rooms_are_repaired(void **state)
{
    static const char conf[] = "directory = /log\nsync = always\ntext_directory = /text\n";
    static const char half[] = "1 2026-01-01T00:00:00.000Z ops a";
    struct testhost_conn *ana;
    const char *text;

    (void)state;
    start(1, conf);
    ana = enter(0, "ana");
    join(ana, "ops");
    testhost_input(ana, "MODE|ops||+i\n");
    assert_true(testhost_run(host));
    for (unsigned i = 0; i < 3; i++)
        (void)say_and_see(ana, "ops");
    /* The power fails: of the text file there is half a line. */
    exchange_host(1, true);
    testhost_file_put(host, "/text/ops/2026-01-01.log", half, sizeof(half) - 1);
    start(1, conf);
    testhost_advance_ms(host, 5000);
    ana = enter(0, "ana");
    join(ana, "ops");
    (void)say_and_see(ana, "ops");
    testhost_advance_ms(host, 5000);
    text = text_of("ops");
    for (unsigned i = 2; i <= 4; i++) {
        char begin_of_line[16];
        (void)snprintf(begin_of_line, sizeof(begin_of_line), "\n%u 2026", i);
        assert_non_null(strstr(text, begin_of_line));
    }
    stop();
}

/* ---- space ------------------------------------------------------------------------------ */

/* One partition has nothing to give, and its oldest segment is the oldest of all. */
static void what_is_too_much_goes_while_all_are_broken(void **state)
{
    struct testhost_conn *ana;
    struct log_shared *shared;
    uint64_t total = 0;

    (void)state;
    segment_bytes = 1 << 20;
    start(1, "directory = /log\nsync = always\nsegment_bytes = 1M\nkeep_bytes = 3M\n");
    ana = enter(0, "ana");
    find_elsewhere();
    join(ana, elsewhere);
    fill(ana, elsewhere, segment_bytes - LONG_TEXT - 1000);
    testhost_advance_ms(host, 1000);
    fill(ana, "lobby", 3 * segment_bytes + 100000);
    testhost_advance_ms(host, 60000);
    testhost_fail_writes(host, -ENOSPC);
    for (unsigned i = 0; i < 3; i++) {
        send_long(ana, elsewhere);
        testhost_advance_ms(host, 10);
    }
    say(ana, "lobby", "x");
    testhost_advance_ms(host, 600000);
    assert_int_equal(partition_of("lobby")->state, PARTITION_BROKEN);
    assert_int_equal(partition_of(elsewhere)->state, PARTITION_BROKEN);
    shared = testhost_ctx(host, "log", 0)->shared;
    for (unsigned i = 0; i < RODA_PARTITIONS; i++)
        total += shared->usage[i].bytes;
    assert_in_range(total, 1, 3 << 20);
    testhost_fail_writes(host, 0);
    testhost_advance_ms(host, 20000);
    assert_int_equal(partition_of("lobby")->state, PARTITION_READY);
    assert_int_equal(partition_of(elsewhere)->state, PARTITION_READY);
    stop();
}

/* Removing takes long, or cannot be done. */
static void what_does_not_go_keeps_nothing_broken(void **state)
{
    struct testhost_conn *ana;
    char path[80], name[LOG_NAME_BYTES];
    struct partition *p;

    (void)state;
    start(1, "directory = /log\nsync = always\nsegment_age = 1h\nkeep = 1d\n");
    ana = enter(0, "ana");
    p = partition_of("lobby");
    for (unsigned i = 0; i < 3; i++) {
        (void)say_and_see(ana, "lobby");
        pass_ms(2 * HOUR_MS);
    }
    assert_int_equal(p->n_segments, 4);
    log_segment_name(p->index, p->segments[0].base, name);
    (void)snprintf(path, sizeof(path), "/log/%s", name);
    testhost_hold_path(host, path);
    partition_break(p, -EIO);
    testhost_set_time_ns(host,
                         roda_time_ns(testhost_ctx(host, "log", 0)) + INT64_C(2000000) * DAY_MS);
    heal("lobby");
    assert_int_equal(p->removing, 1);
    testhost_hold_path(host, "");
    pass_ms(HOUR_MS);
    assert_in_range(p->n_segments, 1, 2);
    assert_null(testhost_file_get(host, path, NULL));
    stop();
}

static void the_reason_is_the_disk(void **state)
{
    struct testhost_conn *ana;

    (void)state;
    segment_bytes = 1 << 20;
    start(1, "directory = /log\nsync = never\nsegment_bytes = 1M\n");
    ana = enter(0, "ana");
    fill(ana, "lobby", segment_bytes - LONG_TEXT - 200);
    testhost_advance_ms(host, 1000);
    testhost_fail_writes(host, -ENOSPC);
    say(ana, "lobby", "x");
    (void)testhost_run(host);
    for (unsigned i = 0; i < 2; i++) {
        send_long(ana, "lobby");
        testhost_advance_ms(host, 100);
    }
    assert_true(testhost_logged(host, "cannot be written: No space left on device"));
    stop();
}

#define TEST(name) cmocka_unit_test_setup(name, begin)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_on_disk_when_it_breaks_stays),
        TEST(a_line_is_written_once),
        TEST(numbers_that_were_given_stay_given),
        TEST(what_was_shown_and_is_not_kept_is_counted),
        TEST(a_refused_first_message_takes_no_number_back),
        TEST(a_room_found_again_has_a_past),
        TEST(what_is_refused_in_a_room_found_again_is_gone),
        TEST(a_refused_private_message_is_gone),
        TEST(text_files_of_closed_rooms_are_repaired),
        TEST(what_is_too_much_goes_while_all_are_broken),
        TEST(what_does_not_go_keeps_nothing_broken),
        TEST(the_reason_is_the_disk),
    };

    return cmocka_run_group_tests_name("log/healing", tests, NULL, NULL);
}
