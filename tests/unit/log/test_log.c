/* The log with rooms in front of it, on the fake core: who sees what when, and what is there after
 * a restart, a crash, a full disk. */
#include "people.h"

/* ---- holding and letting go ------------------------------------------------------------- */

static void nobody_sees_a_durable_message_before_it_is_on_disk(void **state)
{
    struct testhost_conn *ana, *bob;
    int64_t syncs;

    (void)state;
    start(2, "directory = /log\nsync = always\n");
    ana = enter(0, "ana");
    bob = enter(1, "bob");
    say(ana, "lobby", "first");
    assert_true(testhost_run(host));
    assert_int_equal(next_number(ana), 1);
    assert_int_equal(next_number(bob), 1);
    testhost_hold_files(host, true);
    say(ana, "lobby", "held");
    (void)testhost_run(host);
    syncs = testhost_metric(host, "log", "log_syncs_total");
    for (unsigned i = 0; i < 40; i++)
        say(i % 2 ? ana : bob, "lobby", "held as well");
    (void)testhost_run(host);
    assert_int_equal(next_number(ana), 0);
    assert_int_equal(next_number(bob), 0);
    assert_int_equal(testhost_metric(host, "log", "log_waiting"), 41);
    testhost_hold_files(host, false);
    assert_true(testhost_run(host));
    testhost_advance_ms(host, 100);
    for (uint64_t n = 2; n <= 42; n++) {
        assert_int_equal(next_number(ana), n);
        assert_int_equal(next_number(bob), n);
    }
    /* Group commit: one sync was under way, the next took all the others. */
    assert_in_range(testhost_metric(host, "log", "log_syncs_total") - syncs, 1, 3);
    assert_int_equal(testhost_metric(host, "log", "log_waiting"), 0);
    stop();
}

static void others_wait_for_nothing_but_a_room_s_first_message(void **state)
{
    struct testhost_conn *ana, *bob;

    (void)state;
    start(1, "directory = /log\nsync = never\nsync_rooms = always: ops\n");
    ana = enter(0, "ana");
    bob = enter(0, "bob");
    say(ana, "lobby", "first");
    assert_true(testhost_run(host));
    assert_int_equal(next_number(bob), 1);
    testhost_hold_files(host, true);
    for (uint64_t n = 2; n < 100; n++) {
        say(ana, "lobby", "more");
        (void)testhost_run(host);
        assert_int_equal(next_number(bob), n);
    }
    testhost_hold_files(host, false);
    assert_true(testhost_run(host));
    stop();
}

/* What a room's message waits for may be others' disk: those behind it wait for it. */
static void a_room_s_messages_are_shown_in_order(void **state)
{
    char slow[16] = "", path[16];
    struct testhost_conn *ana, *bob;
    const struct log_room *lobby;

    (void)state;
    start(1, "directory = /log\nsync = never\ntext_directory = /text\n");
    ana = enter(0, "ana");
    bob = enter(0, "bob");
    for (unsigned i = 0; !*slow || partition_of(slow) == partition_of("lobby"); i++)
        (void)snprintf(slow, sizeof(slow), "room%u", i);
    join(ana, slow);
    (void)snprintf(path, sizeof(path), "/log/%02u", partition_of(slow)->index);
    testhost_hold_path(host, path);
    say(ana, slow, "waits for its disk");
    say(bob, "lobby", "waits for the one before");
    (void)testhost_run(host);
    lobby = log_rooms_find(&partition_of("lobby")->rooms, RODA_STR("lobby"));
    assert_true(lobby && lobby->known); /* it is on disk */
    assert_int_equal(lobby->shown, 0);
    say(bob, "lobby", "does not overtake it");
    (void)testhost_run(host);
    assert_int_equal(lobby->shown, 0);
    assert_int_equal(testhost_metric(host, "log", "log_waiting"), 3);
    testhost_hold_path(host, "");
    testhost_advance_ms(host, 10);
    assert_int_equal(lobby->shown, 2);
    say(bob, "lobby", "waits for nothing");
    assert_true(testhost_run(host));
    assert_int_equal(lobby->shown, 3);
    assert_int_equal(testhost_metric(host, "log", "log_waiting"), 0);
    stop();
}

static bool is_synced(const char *room)
{
    const struct partition *p = partition_of(room);

    return partition_synced(p) == partition_end(p);
}

/* What waited for the file to take more is as old as what was written at once. */
static void what_had_to_wait_is_synced_in_time_too(void **state)
{
    enum { BYTES = 3500 };
    static char line[BYTES + 32];
    struct testhost_conn *ana;

    (void)state;
    start(1, "directory = /log\nsync = interval\nsync_interval = 1s\n");
    ana = enter(0, "ana");
    say(ana, "lobby", "first");
    testhost_advance_ms(host, 5000);
    assert_true(is_synced("lobby"));
    (void)snprintf(line, sizeof(line), "TEXT|lobby||");
    memset(line + strlen(line), 'x', BYTES);
    line[strlen(line)] = '\n';
    testhost_hold_files(host, true);
    testhost_hold_writes(host, true);
    while (!testhost_metric(host, "log", "log_waiting")) {
        testhost_input(ana, line);
        (void)testhost_run(host);
    }
    testhost_advance_ms(host, 2000);
    testhost_hold_files(host, false);
    testhost_hold_writes(host, false);
    testhost_advance_ms(host, 2000);
    assert_int_equal(testhost_metric(host, "log", "log_waiting"), 0);
    assert_true(is_synced("lobby"));
    stop();
}

/* What `keep` says is done within a minute. */
static void old_segments_are_looked_for_every_minute(void **state)
{
    struct testhost_conn *ana;
    const struct partition *p;

    (void)state;
    start(1, "directory = /log\nkeep = 20s\nsegment_age = 1s\n");
    ana = enter(0, "ana");
    for (unsigned i = 0; i < 3; i++) {
        say(ana, "lobby", "hello");
        testhost_advance_ms(host, 3000);
    }
    p = partition_of("lobby");
    assert_int_equal(p->segments[0].base, 0);
    testhost_advance_ms(host, 80000);
    assert_true(p->segments[0].base > 0);
    stop();
}

/* Whatever allocation fails: one message is refused or held a little, and then all goes on. */
static void without_memory_nobody_is_held_for_ever(void **state)
{
    static const char conf[] = "directory = /log\nsync = always\n";
    uint64_t shown = 0;

    (void)state;
    for (uint64_t n = 1; n < 60; n++) {
        struct testhost_conn *ana;
        uint64_t number;
        start(1, conf);
        ana = enter(0, "ana");
        say(ana, "lobby", "first");
        assert_true(testhost_run(host));
        assert_int_equal(next_number(ana), 1);
        say(ana, "lobby", "held");
        testhost_fail_allocation(host, n);
        (void)testhost_run(host);
        testhost_fail_allocation(host, 0);
        testhost_advance_ms(host, 10000);
        assert_int_equal(testhost_metric(host, "log", "log_waiting"), 0);
        if (testhost_closed(ana)) /* it was the core that had none */
            ana = enter(0, "bob");
        number = next_number(ana);
        shown += number == 2;
        testhost_advance_ms(host, 20000);
        assert_int_equal(testhost_metric(host, "log", "log_partitions_broken"), 0);
        say(ana, "lobby", "kept again");
        testhost_advance_ms(host, 100);
        assert_in_range(next_number(ana), 2, 3);
        testhost_forgive(host);
        stop();
    }
    assert_true(shown);
}

/* What is refused since it cannot even wait is not in the log either. */
static void without_memory_nothing_refused_is_kept(void **state)
{
    uint64_t refused = 0;

    (void)state;
    for (uint64_t n = 1; n < 20; n++) {
        struct testhost_conn *ana, *bob;
        int64_t kept = 1;
        uint64_t number;
        start(1, "directory = /log\nsync = always\n");
        ana = enter(0, "ana");
        bob = enter(0, "bob");
        say(ana, "lobby", "first");
        assert_true(testhost_run(host));
        testhost_hold_files(host, true);
        for (unsigned i = 0; i < 64; i++)
            say(i % 2 ? ana : bob, "lobby", "held");
        (void)testhost_run(host);
        assert_int_equal(testhost_metric(host, "log", "log_waiting"), 64);
        testhost_fail_allocation(host, n);
        say(ana, "lobby", "one too many");
        (void)testhost_run(host);
        testhost_fail_allocation(host, 0);
        testhost_hold_files(host, false);
        testhost_advance_ms(host, 5000);
        assert_int_equal(testhost_metric(host, "log", "log_waiting"), 0);
        while ((number = next_number(bob)))
            kept += number > 1 && number != UINT64_MAX;
        refused += kept < 66;
        assert_int_equal(testhost_metric(host, "log", "log_records_total"), kept);
        testhost_forgive(host);
        stop();
    }
    assert_true(refused);
}

static void without_memory_healing_is_tried_again(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 40; n++) {
        struct testhost_conn *ana;
        start(1, "directory = /log\nsync = always\n");
        ana = enter(0, "ana");
        say(ana, "lobby", "first");
        assert_true(testhost_run(host));
        testhost_fail_writes(host, -EIO);
        say(ana, "lobby", "refused");
        assert_true(testhost_run(host));
        testhost_fail_writes(host, 0);
        testhost_fail_allocation(host, n);
        testhost_advance_ms(host, 5000);
        testhost_fail_allocation(host, 0);
        testhost_advance_ms(host, 20000);
        assert_int_equal(testhost_metric(host, "log", "log_waiting"), 0);
        assert_int_equal(testhost_metric(host, "log", "log_partitions_broken"), 0);
        testhost_forgive(host);
        stop();
    }
}

/* ---- starts ----------------------------------------------------------------------------- */

static void numbers_go_on_after_a_clean_end(void **state)
{
    static const char conf[] = "directory = /log\nsync = never\n";
    struct testhost_conn *ana;

    (void)state;
    start(1, conf);
    ana = enter(0, "ana");
    for (unsigned i = 0; i < 5; i++)
        say(ana, "lobby", "text");
    assert_true(testhost_run(host));
    for (uint64_t n = 6; n < 12; n++) {
        restart(1 + n % 4, conf, false);
        ana = enter(0, "ana");
        say(ana, "lobby", "more");
        assert_true(testhost_run(host));
        assert_int_equal(next_number(ana), n);
    }
    stop();
}

static void a_crash_skips_numbers_that_may_have_been_used(void **state)
{
    static const char conf[] = "directory = /log\nsync = never\nsync_rooms = always: ops\n";
    struct testhost_conn *ana;

    (void)state;
    start(2, conf);
    ana = enter(0, "ana");
    testhost_input(ana, "JOIN|ops||\n");
    for (unsigned i = 0; i < 5; i++) {
        say(ana, "lobby", "text");
        say(ana, "ops", "text");
    }
    assert_true(testhost_run(host));
    for (uint64_t crash = 1; crash < 4; crash++) {
        restart(2, conf, true);
        ana = enter(1, "ana");
        testhost_input(ana, "JOIN|ops||\n");
        say(ana, "lobby", "more");
        assert_true(testhost_run(host));
        assert_int_equal(next_number(ana), 5 + crash * (LOG_SKIP + 1));
        say(ana, "ops", "more");
        assert_true(testhost_run(host));
        assert_int_equal(next_number(ana), 5 + crash);
    }
    stop();
}

/* Two people's numbers begin anew with each broker, those of their records do not. */
static void private_messages_are_kept_over_restarts(void **state)
{
    static const char conf[] = "directory = /log\nsync = always\nprivate = yes\n";

    (void)state;
    start(2, conf);
    for (unsigned run = 0; run < 4; run++) {
        struct testhost_conn *ana = enter(0, "ana"), *bob = enter(1, "bob");
        for (unsigned i = 0; i < 5; i++)
            testhost_input(i % 2 ? bob : ana, i % 2 ? "TEXT+d|ana||psst\n" : "TEXT+d|bob||psst\n");
        assert_true(testhost_run(host));
        assert_int_equal(testhost_metric(host, "log", "log_records_total"), 5);
        restart(2 + run % 3, conf, run % 2);
        assert_false(testhost_logged(host, "contradicts"));
        assert_false(testhost_logged(host, "damaged"));
    }
    stop();
}

/* ---- segments --------------------------------------------------------------------------- */

static void segments_follow_each_other(void **state)
{
    static const char conf[] = "directory = /log\nsync = never\nsegment_bytes = 1M\n";
    enum { MESSAGES = 1000, BYTES = 3500 };
    static char line[BYTES + 32];
    struct testhost_conn *ana;
    const char *bytes;
    size_t len;

    (void)state;
    start(1, conf);
    ana = enter(0, "ana");
    (void)snprintf(line, sizeof(line), "TEXT|lobby||");
    memset(line + strlen(line), 'x', BYTES);
    line[strlen(line)] = '\n';
    for (uint64_t n = 1; n <= MESSAGES; n++) {
        testhost_input(ana, line);
        testhost_advance_ms(host, 10);
        assert_int_equal(next_number(ana), n);
    }
    assert_int_equal(testhost_metric(host, "log", "log_records_total"), MESSAGES);
    assert_int_equal(testhost_metric(host, "log", "log_segments"), RODA_PARTITIONS + 3);
    for (unsigned base = 0, found = 0; base < 4; base++) {
        char path[80];
        for (unsigned p = 0; p < RODA_PARTITIONS; p++) {
            (void)snprintf(path, sizeof(path), "/log/%02u-%016x.segment", p, base << 20);
            bytes = testhost_file_get(host, path, &len);
            if (!bytes || len < 500000)
                continue;
            assert_in_range(len, 0, 1 << 20);
            found++;
        }
        assert_in_range(found, base, base + 1);
    }
    stop();
}

/* Messages follow the snapshot at once, so that one sync takes both to the disk. */
static void what_is_too_much_goes_while_people_talk(void **state)
{
    enum { BATCHES = 300, BATCH = 10, BYTES = 3500 };
    static char line[BYTES + 32];
    struct testhost_conn *ana;

    (void)state;
    start(1, "directory = /log\nsegment_bytes = 1M\nkeep_bytes = 2M\n");
    ana = enter(0, "ana");
    (void)snprintf(line, sizeof(line), "TEXT|lobby||");
    memset(line + strlen(line), 'x', BYTES);
    line[strlen(line)] = '\n';
    for (uint64_t n = 1; n <= BATCHES; n++) {
        for (uint64_t i = 1; i <= BATCH; i++)
            testhost_input(ana, line);
        testhost_advance_ms(host, 50);
        while (testhost_unit(ana)) {
        }
    }
    assert_in_range(testhost_metric(host, "log", "log_segments"), RODA_PARTITIONS,
                    RODA_PARTITIONS + 3);
    stop();
}

enum { SMALL_SEGMENT = 1 << 20, LEFT = 50 };

/* Says as much in the lobby as leaves so much of its first segment. */
static void fill_segment(struct testhost_conn *c)
{
    enum { LONG = 3500, SPARE = 400 };
    static char line[LONG + 32];
    uint64_t end, overhead;

    say(c, "lobby", "x");
    assert_true(testhost_run(host));
    end = partition_end(partition_of("lobby"));
    say(c, "lobby", "x");
    assert_true(testhost_run(host));
    overhead = partition_end(partition_of("lobby")) - end - 1;
    while ((end = partition_end(partition_of("lobby"))) + LEFT < SMALL_SEGMENT) {
        uint64_t text = SMALL_SEGMENT - LEFT - end - overhead;
        if (text > LONG)
            text = text < LONG + overhead + SPARE ? text / 2 : LONG;
        (void)snprintf(line, sizeof(line), "TEXT|lobby||%0*u\n", (int)text, 0);
        testhost_input(c, line);
        testhost_advance_ms(host, 10);
    }
    assert_int_equal(end + LEFT, SMALL_SEGMENT);
}

/* The next segment's positions begin there: nothing may stand on them, no room's record either. */
static void a_new_room_does_not_reach_beyond_its_segment(void **state)
{
    struct testhost_conn *ana;
    char name[16] = "", line[32];

    (void)state;
    start(1, "directory = /log\nsync = never\nsegment_bytes = 1M\n");
    ana = enter(0, "ana");
    for (unsigned i = 0; !*name || partition_of(name) != partition_of("lobby"); i++)
        (void)snprintf(name, sizeof(name), "room%u", i);
    (void)snprintf(line, sizeof(line), "JOIN|%s||\n", name);
    testhost_input(ana, line);
    fill_segment(ana);
    say(ana, name, "first");
    testhost_advance_ms(host, 100);
    assert_int_equal(partition_of("lobby")->n_segments, 2);
    assert_in_range(partition_of("lobby")->segments[0].bytes, SMALL_SEGMENT - LEFT, SMALL_SEGMENT);
    stop();
}

/* In steps, before it is needed, and no more than the segment takes. */
static void space_is_set_aside_as_a_segment_grows(void **state)
{
    enum { BYTES = 3500, SEGMENT = 4 << 20, STEP = 1 << 20, FROM = (64 << 10) + 2 * BYTES };
    static char line[BYTES + 32];
    char name[LOG_NAME_BYTES], path[80];
    struct testhost_conn *ana;
    uint64_t before = 0, steps = 0;

    (void)state;
    start(1, "directory = /log\nsync = never\nsegment_bytes = 4M\n");
    ana = enter(0, "ana");
    log_segment_name(partition_of("lobby")->index, 0, name);
    (void)snprintf(path, sizeof(path), "/log/%s", name);
    (void)snprintf(line, sizeof(line), "TEXT|lobby||%0*u\n", BYTES, 0);
    while (partition_of("lobby")->n_segments == 1) {
        uint64_t reserved = testhost_file_reserved(host, path);
        uint64_t used = partition_of("lobby")->segments[0].bytes;
        assert_true(reserved >= before && reserved <= SEGMENT);
        assert_true(used <= FROM || reserved >= used); /* an idle room needs none */
        steps += reserved > before;
        before = reserved;
        testhost_input(ana, line);
        testhost_advance_ms(host, 1);
    }
    assert_int_equal(before, SEGMENT);
    assert_in_range(steps, 2, SEGMENT / STEP);
    stop();
}

/* The power may fail before the segment before it is on disk, which nothing would tell then. */
static void no_end_is_claimed_before_the_last_segment_is_on_disk(void **state)
{
    struct testhost_conn *ana;
    char name[LOG_NAME_BYTES], path[80];
    const char *bytes;
    size_t len;

    (void)state;
    start(1, "directory = /log\nsync = never\nsegment_bytes = 1M\nsegment_age = 1h\n");
    ana = enter(0, "ana");
    say(ana, "lobby", "shown");
    testhost_advance_ms(host, 3600000);
    while (partition_of("lobby")->n_segments == 1) {
        testhost_hold_files(host, false);
        assert_true(testhost_run(host));
        testhost_hold_files(host, true);
        testhost_advance_ms(host, 1000);
    }
    log_segment_name(partition_of("lobby")->index, SMALL_SEGMENT, name);
    (void)snprintf(path, sizeof(path), "/log/%s", name);
    partition_close(partition_of("lobby"));
    bytes = testhost_file_get(host, path, &len);
    assert_non_null(bytes);
    assert_true(bytes[len - LOG_FRAME_BYTES + 8] != LOG_END);
    testhost_hold_files(host, false);
    stop();
}

/* What was said in a room goes when its time has come, though nothing is said any more. */
static void silence_does_not_keep_what_is_too_old(void **state)
{
    static const char conf[] = "directory = /log\nsync = never\nsegment_age = 1h\nkeep = 10h\n";
    struct testhost_conn *ana;
    int64_t now_ns;

    (void)state;
    start(1, conf);
    for (unsigned run = 0; run < 2; run++) {
        ana = enter(0, "ana");
        say(ana, "lobby", "soon forgotten");
        assert_true(testhost_run(host));
        assert_in_range(next_number(ana), 1, 2);
        testhost_advance_ms(host, HOUR_MS * 3 / 2);
        assert_int_equal(testhost_metric(host, "log", "log_segments"), RODA_PARTITIONS + 1);
        assert_true(has_segment("lobby", (uint64_t)run * SEGMENT_BYTES));
        testhost_advance_ms(host, HOUR_MS * 11);
        assert_false(has_segment("lobby", (uint64_t)run * SEGMENT_BYTES));
        assert_true(is_synced("lobby"));
        now_ns = roda_time_ns(testhost_ctx(host, "log", 0));
        restart(1, conf, false);
        testhost_set_time_ns(host, now_ns);
    }
    /* Where nothing was said nothing is made new. */
    testhost_advance_ms(host, HOUR_MS * 3);
    assert_int_equal(testhost_metric(host, "log", "log_segments"), RODA_PARTITIONS);
    assert_true(has_segment("lobby", UINT64_C(2) * SEGMENT_BYTES));
    stop();
}

/* ---- retention -------------------------------------------------------------------------- */

/* Those of which something is kept, and those where somebody talks. */
static void a_room_is_forgotten_with_its_last_record(void **state)
{
    enum { ROOMS = 40 };
    static const char conf[] = "directory = /log\nsync = never\nsegment_age = 1h\nkeep = 10h\n";
    const struct log_rooms *kept;
    struct testhost_conn *ana;
    uint64_t epoch;

    (void)state;
    start(1, conf);
    ana = enter(0, "ana");
    for (unsigned i = 0; i < ROOMS; i++) {
        join(ana, neighbour(i));
        assert_int_equal(say_and_see(ana, neighbour(i)), 1);
    }
    kept = &partition_of("lobby")->rooms;
    assert_int_equal(kept->n, ROOMS);
    epoch = log_rooms_by_id(kept, 3)->epoch;
    for (unsigned hour = 0; hour < 14; hour++) {
        assert_int_equal(say_and_see(ana, "lobby"), hour + 1);
        testhost_advance_ms(host, HOUR_MS * 11 / 10);
    }
    assert_int_equal(kept->n, 1);
    assert_int_equal(kept->ids, ROOMS + 1);
    /* Who stayed there sees no difference; to the log it is another room. */
    assert_int_equal(say_and_see(ana, neighbour(2)), 2);
    assert_int_equal(kept->n, 2);
    assert_int_equal(kept->newest->id, ROOMS + 2);
    assert_int_equal(kept->newest->count, 1);
    assert_true(kept->newest->epoch == epoch);
    restart(1, conf, false);
    ana = enter(0, "ana");
    join(ana, neighbour(2));
    assert_int_equal(say_and_see(ana, neighbour(2)), 3);
    kept = &partition_of("lobby")->rooms;
    assert_int_equal(kept->n, 2);
    assert_true(log_rooms_by_id(kept, ROOMS + 2)->epoch == epoch);
    /* One where nobody stayed begins anew, behind all that went. */
    join(ana, neighbour(3));
    assert_int_equal(say_and_see(ana, neighbour(3)), 2);
    assert_int_equal(kept->newest->id, ROOMS + 3);
    stop();
}

/* However many rooms were opened, one after the other. */
static void ids_stay_taken_over_restarts(void **state)
{
    static const char conf[] = "directory = /log\nsync = never\nsegment_age = 1h\nkeep = 2h\n";

    (void)state;
    start(1, conf);
    for (unsigned run = 0; run < 5; run++) {
        struct testhost_conn *ana = enter(0, "ana");
        const struct log_rooms *kept = &partition_of("lobby")->rooms;
        int64_t now_ns;
        assert_true(say_and_see(ana, "lobby") > 0);
        for (unsigned i = 0; i < 3; i++) {
            join(ana, neighbour(3 * run + i));
            assert_true(say_and_see(ana, neighbour(3 * run + i)) > 0);
        }
        assert_int_equal(kept->newest->id, 4 + 3 * run);
        for (unsigned hour = 0; hour < 4; hour++) {
            testhost_advance_ms(host, HOUR_MS * 11 / 10);
            assert_true(say_and_see(ana, "lobby") > 0);
        }
        testhost_advance_ms(host, HOUR_MS * 11 / 10);
        assert_int_equal(kept->n, 1);
        now_ns = roda_time_ns(testhost_ctx(host, "log", 0));
        restart(1, conf, run % 2);
        testhost_set_time_ns(host, now_ns);
    }
    stop();
}

/* In which segment of its partition a text stands; -1: in none. */
static int segment_with(const char *text)
{
    for (unsigned i = 0; i < FILES; i++) {
        char path[80];
        size_t len;
        (void)snprintf(path, sizeof(path), "/log/%02u-%016x.segment", i / SEGMENTS,
                       i % SEGMENTS * segment_bytes);
        const char *bytes = testhost_file_get(host, path, &len);
        if (bytes && memmem(bytes, len, text, strlen(text)))
            return (int)(i % SEGMENTS);
    }
    return -1;
}

/* A segment is prepared when the one before it is half full; that one's other half may come much
 * later. */
static void a_segment_s_age_is_that_of_its_newest_record(void **state)
{
    enum { BYTES = 3500, HALF = 160 };
    static const char conf[] = "directory = /log\nsegment_bytes = 1M\nsegment_age = 0\nkeep = 2d\n";
    static char long_text[BYTES];
    struct testhost_conn *ana;

    (void)state;
    segment_bytes = 1 << 20;
    start(1, conf);
    ana = enter(0, "ana");
    memset(long_text, 'x', BYTES - 1);
    for (unsigned i = 0; i < HALF; i++) {
        char line[BYTES + 32];
        (void)snprintf(line, sizeof(line), "TEXT|lobby||%s\n", long_text);
        testhost_input(ana, line);
        assert_true(testhost_run(host));
    }
    pass_ms(5 * DAY_MS);
    say(ana, "lobby", "five days later");
    assert_true(testhost_run(host));
    assert_int_equal(segment_with("five days later"), 0);
    for (unsigned i = 0; i < HALF; i++) {
        char line[BYTES + 32];
        (void)snprintf(line, sizeof(line), "TEXT|lobby||%s\n", long_text);
        testhost_input(ana, line);
        testhost_advance_ms(host, 10);
    }
    assert_int_equal(testhost_metric(host, "log", "log_segments"), RODA_PARTITIONS + 1);
    pass_ms(DAY_MS);
    assert_int_equal(segment_with("five days later"), 0);
    restart(1, conf, true); /* the files say it as well */
    pass_ms(HOUR_MS);
    assert_int_equal(segment_with("five days later"), 0);
    pass_ms(2 * DAY_MS);
    assert_int_equal(segment_with("five days later"), -1);
    stop();
}

/* ---- a full disk ------------------------------------------------------------------------ */

static void a_full_disk_refuses_durable_rooms_and_heals(void **state)
{
    struct testhost_conn *ana, *bob;
    uint64_t n;

    (void)state;
    start(1, "directory = /log\nsync = interval\nsync_rooms = always: ops\n");
    ana = enter(0, "ana");
    bob = enter(0, "bob");
    testhost_input(ana, "JOIN|ops||\n");
    testhost_input(bob, "JOIN|ops||\n");
    assert_true(testhost_run(host));
    say(ana, "ops", "kept");
    say(ana, "lobby", "kept");
    assert_true(testhost_run(host));
    assert_int_equal(next_number(bob), 1);
    assert_int_equal(next_number(bob), 1);
    while (testhost_unit(ana)) {
    }
    testhost_fail_writes(host, -ENOSPC);
    say(ana, "ops", "refused");
    say(ana, "lobby", "goes on");
    testhost_advance_ms(host, 1500);
    assert_int_equal(next_number(ana), UINT64_MAX);
    assert_int_equal(next_number(ana), 2);
    assert_int_equal(next_number(bob), 2); /* of the lobby */
    assert_int_equal(next_number(bob), 0);
    say(ana, "ops", "refused before it has a number");
    say(ana, "lobby", "goes on");
    testhost_advance_ms(host, 20000);
    assert_int_equal(next_number(ana), UINT64_MAX);
    assert_int_equal(next_number(ana), 3);
    assert_int_equal(next_number(bob), 3);
    assert_true(testhost_logged(host, "cannot be written: No space left on device"));
    testhost_fail_writes(host, 0);
    testhost_advance_ms(host, 20000);
    assert_true(testhost_logged(host, "can be written again; messages that people saw and that are "
                                      "not kept: 2"));
    assert_int_equal(testhost_metric(host, "log", "log_unlogged_total"), 2);
    say(ana, "ops", "kept again");
    say(ana, "lobby", "kept again");
    testhost_advance_ms(host, 100);
    n = next_number(ana);
    assert_in_range(n, 2, 3); /* a number that was refused is not used again */
    assert_int_equal(next_number(ana), 4);
    assert_int_equal(next_number(bob), n);
    assert_int_equal(testhost_metric(host, "log", "log_partitions_broken"), 0);
    stop();
}

#define TEST(name) cmocka_unit_test_setup(name, begin)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nobody_sees_a_durable_message_before_it_is_on_disk),
        TEST(others_wait_for_nothing_but_a_room_s_first_message),
        TEST(a_room_s_messages_are_shown_in_order),
        TEST(old_segments_are_looked_for_every_minute),
        TEST(what_had_to_wait_is_synced_in_time_too),
        TEST(without_memory_nobody_is_held_for_ever),
        TEST(without_memory_nothing_refused_is_kept),
        TEST(without_memory_healing_is_tried_again),
        TEST(numbers_go_on_after_a_clean_end),
        TEST(a_crash_skips_numbers_that_may_have_been_used),
        TEST(private_messages_are_kept_over_restarts),
        TEST(segments_follow_each_other),
        TEST(what_is_too_much_goes_while_people_talk),
        TEST(a_new_room_does_not_reach_beyond_its_segment),
        TEST(space_is_set_aside_as_a_segment_grows),
        TEST(no_end_is_claimed_before_the_last_segment_is_on_disk),
        TEST(silence_does_not_keep_what_is_too_old),
        TEST(a_room_is_forgotten_with_its_last_record),
        TEST(ids_stay_taken_over_restarts),
        TEST(a_segment_s_age_is_that_of_its_newest_record),
        TEST(a_full_disk_refuses_durable_rooms_and_heals),
    };

    return cmocka_run_group_tests_name("log/log", tests, NULL, NULL);
}
