/* What is kept for how long: segments by age and by bytes over all partitions and workers, text
 * files by the day in their names. Partitions are played by the test: lists of segments, and files
 * of their names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testhost.h"

#include "text.h"

#define DIRECTORY "segments"
#define TEXT      "text"
#define SECOND    INT64_C(1000000000)
#define DAY       (INT64_C(86400) * SECOND)

static struct testhost *host;
static struct partition *partitions[RODA_PARTITIONS];

int history_find(struct history_ask *ask)
{
    (void)ask;
    return -EIO; /* nobody asks here */
}

static const struct partition *unsettled;

uint64_t partition_relied(const struct partition *p)
{
    return p == unsettled ? 0 : p->segments[p->n_segments - 1].base;
}

static const struct roda_option options[] = {
    {.name = "directory",
     .type = RODA_T_PATH,
     .offset = offsetof(struct log_conf, directory),
     .initial = DIRECTORY},
    {.name = "text_directory",
     .type = RODA_T_PATH,
     .offset = offsetof(struct log_conf, text_directory),
     .initial = TEXT},
    {.name = "text_files",
     .type = RODA_T_INT,
     .offset = offsetof(struct log_conf, text_files),
     .initial = "64"},
    {.name = "keep",
     .type = RODA_T_MS,
     .offset = offsetof(struct log_conf, keep_ms),
     .initial = "0"},
    {.name = "keep_bytes",
     .type = RODA_T_BYTES,
     .offset = offsetof(struct log_conf, keep_bytes),
     .initial = "0"},
    {.name = NULL},
};

static struct roda_metric metrics[LOG_TEXT_LOST + 2];

static int fake_init(struct roda_ctx *x)
{
    x->shared = roda_alloc(x, sizeof(struct log_shared));
    return x->shared ? 0 : -ENOMEM;
}

static void fake_fini(struct roda_ctx *x)
{
    roda_free(x, x->shared);
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++) {
        if (!partitions[i])
            continue;
        roda_free(x, partitions[i]->segments);
        roda_free(x, partitions[i]);
        partitions[i] = NULL;
    }
}

static int fake_start(struct roda_ctx *x)
{
    for (uint32_t i = x->worker; i < RODA_PARTITIONS; i += x->n_workers) {
        struct partition *p = roda_alloc(x, sizeof *p);
        p->x = x;
        p->index = i;
        p->state = PARTITION_READY;
        partitions[i] = log_state_of(x)->partitions[i] = p;
    }
    return text_new(x);
}

static void fake_stop(struct roda_ctx *x)
{
    text_free(x);
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++)
        if (log_state_of(x)->partitions[i])
            log_state_of(x)->partitions[i]->state = PARTITION_CLOSED;
}

static void begin(uint32_t workers, const char *conf)
{
    static struct roda_plugin plugin = {.abi = RODA_ABI,
                                        .size = sizeof plugin,
                                        .option_size = sizeof(struct roda_option),
                                        .metric_size = sizeof(struct roda_metric),
                                        .protocol_size = sizeof(struct roda_protocol),
                                        .service_size = sizeof(struct roda_service_table),
                                        .name = "log",
                                        .summary = "",
                                        .version = "0",
                                        .conf_size = sizeof(struct log_conf),
                                        .state_size = sizeof(struct log_state),
                                        .options = options,
                                        .metrics = metrics,
                                        .init = fake_init,
                                        .start = fake_start,
                                        .stop = fake_stop,
                                        .fini = fake_fini};

    for (size_t i = 0; i <= LOG_TEXT_LOST; i++)
        metrics[i] =
            (struct roda_metric){i == LOG_SEGMENTS ? "segments" : "other", RODA_GAUGE, "x"};
    host = testhost_new(workers);
    assert_int_equal(testhost_load(host, &plugin, conf), 0);
    assert_int_equal(testhost_start(host), 0);
    assert_true(testhost_run(host));
}

static void end(void)
{
    assert_int_equal(testhost_stop(host), 0);
    testhost_free(host);
}

static int64_t now_ns(void)
{
    return roda_time_ns(testhost_ctx(host, "log", 0));
}

static const char *segment_path(uint32_t partition, uint64_t base)
{
    static char path[128];
    char name[LOG_NAME_BYTES];

    log_segment_name(partition, base, name);
    (void)snprintf(path, sizeof path, DIRECTORY "/%s", name);
    return path;
}

/* A segment that was begun so long ago. */
static void add(uint32_t partition, uint64_t base, uint64_t bytes, int64_t age_ns)
{
    struct partition *p = partitions[partition];

    p->segments = roda_realloc(p->x, p->segments, (p->n_segments + 1) * sizeof *p->segments);
    p->segments[p->n_segments++] =
        (struct log_segment){.base = base, .bytes = bytes, .created_ns = now_ns() - age_ns};
    testhost_file_put(host, segment_path(partition, base), "x", 1);
    roda_count(p->x, LOG_SEGMENTS, 1);
}

static int there(uint32_t partition, uint64_t base)
{
    return testhost_file_get(host, segment_path(partition, base), NULL) != NULL;
}

static void step(uint32_t partition)
{
    retention_step(partitions[partition]);
    assert_true(testhost_run(host));
}

static void for_ever(void **state)
{
    (void)state;
    begin(1, NULL);
    add(0, 1, 100, 1000 * DAY);
    add(0, 2, 100, 900 * DAY);
    add(0, 3, 100, 800 * DAY);
    step(0);
    assert_int_equal(partitions[0]->n_segments, 3);
    assert_true(there(0, 1));
    end();
}

/* A segment is as old as its newest record, which is what the next one's beginning says. */
static void by_age(void **state)
{
    (void)state;
    begin(1, "keep = 7d\n");
    add(5, 1, 100, 20 * DAY);
    add(5, 2, 100, 9 * DAY);
    add(5, 3, 100, 7 * DAY + SECOND);
    add(5, 4, 100, 7 * DAY - SECOND);
    add(5, 5, 100, DAY);
    step(5);
    assert_int_equal(partitions[5]->n_segments, 3); /* 3 has records of less than 7 days ago */
    assert_int_equal(partitions[5]->segments[0].base, 3);
    assert_false(there(5, 1));
    assert_false(there(5, 2));
    assert_true(there(5, 3));
    assert_int_equal(testhost_metric(host, "log", "segments"), 3);
    testhost_advance_ms(host, 2000);
    step(5);
    assert_int_equal(partitions[5]->segments[0].base, 4);
    assert_int_equal(partitions[5]->n_segments, 2);
    assert_int_equal(testhost_log_lines(host), 0);
    end();
}

/* What a clock that was wrong for a while has written into headers. */
static void a_wrong_clock(void **state)
{
    (void)state;
    begin(1, "keep = 7d\n");
    add(5, 1, 100, 40 * DAY);
    add(5, 2, 100, -3000 * DAY); /* it was ahead: nothing can have begun then */
    add(5, 3, 100, -3000 * DAY);
    add(5, 4, 100, 9 * DAY);
    add(5, 5, 100, DAY);
    step(5);
    assert_int_equal(partitions[5]->segments[0].base, 4);
    add(6, 1, 100, 2 * DAY);
    add(6, 2, 100, 20000 * DAY); /* it was behind: that says nothing about what was before */
    add(6, 3, 100, DAY);
    step(6);
    assert_int_equal(partitions[6]->segments[0].base, 1);
    testhost_set_time_ns(host, now_ns() + 6 * DAY);
    step(6);
    assert_int_equal(partitions[6]->segments[0].base, 2);
    assert_int_equal(partitions[6]->n_segments, 2);
    end();
}

static void never_the_tail(void **state)
{
    (void)state;
    begin(1, "keep = 1s\nkeep_bytes = 1\n");
    add(5, 1, 1000, 20 * DAY);
    step(5);
    assert_true(there(5, 1));
    add(5, 2, 1000, 19 * DAY);
    step(5);
    assert_int_equal(partitions[5]->n_segments, 1);
    assert_true(there(5, 2));
    end();
}

/* The oldest anywhere goes, whoever asks, until it is enough. */
static void by_bytes(void **state)
{
    (void)state;
    for (uint32_t workers = 1; workers <= 4; workers++) {
        begin(workers, "keep_bytes = 1000\n");
        for (uint32_t p = 0; p < 4; p++)
            for (uint32_t s = 0; s < 5; s++)
                add(p, s + 1, 200, (20 - (int64_t)(s * 4 + p)) * DAY);
        /* 4 x 4 sealed ones of 200; each partition has told what it has */
        for (uint32_t p = 0; p < 4; p++)
            step(p);
        uint32_t left = 0;
        for (uint32_t p = 0; p < 4; p++)
            left += partitions[p]->n_segments - 1;
        assert_int_equal(left, 5);
        /* The oldest 11: bases 1 and 2 of all, 3 of the first three. */
        for (uint32_t p = 0; p < 4; p++)
            assert_int_equal(partitions[p]->segments[0].base, p < 3 ? 4 : 3);
        /* One more is sealed: one goes, on whatever worker it is. */
        for (uint32_t p = 0; p < 4; p++) {
            add(p, 6, 100, 0);
            step(p);
        }
        left = 0;
        for (uint32_t p = 0; p < 4; p++)
            left += partitions[p]->n_segments - 1;
        assert_int_equal(left, 5);
        end();
    }
}

/* The tail's snapshot is what the next start needs; until it is on disk, the segment before it is.
 *  */
static void not_before_the_snapshot(void **state)
{
    (void)state;
    begin(1, "keep = 1s\n");
    add(1, 1, 100, 20 * DAY);
    add(1, 2, 100, 19 * DAY);
    unsettled = partitions[1];
    step(1);
    assert_true(there(1, 1));
    unsettled = NULL;
    step(1);
    assert_false(there(1, 1));
    end();
}

static void readers_keep_it(void **state)
{
    (void)state;
    begin(1, "keep = 1s\n");
    add(1, 1, 100, 20 * DAY);
    add(1, 2, 100, 19 * DAY);
    partitions[1]->segments[0].readers = 1;
    step(1);
    assert_true(there(1, 1));
    partitions[1]->segments[0].readers = 0;
    retention_step(partitions[1]);
    partitions[1]->segments[0].readers = 1; /* somebody comes while the file is being removed */
    assert_true(testhost_run(host));
    assert_false(there(1, 1));
    assert_int_equal(partitions[1]->n_segments, 2);
    partitions[1]->segments[0].readers = 0;
    step(1);
    assert_int_equal(partitions[1]->n_segments, 1);
    assert_int_equal(testhost_log_lines(host), 0);
    end();
}

/* A full disk is mended by what goes. */
static void a_broken_partition_too(void **state)
{
    (void)state;
    begin(1, "keep = 1s\n");
    add(1, 1, 100, 20 * DAY);
    add(1, 2, 100, 19 * DAY);
    partitions[1]->state = PARTITION_BROKEN;
    step(1);
    assert_false(there(1, 1));
    assert_int_equal(partitions[1]->n_segments, 1);
    end();
}

/* Its oldest segment is needed: another one's turn. */
static void one_that_cannot_does_not_keep_all(void **state)
{
    (void)state;
    begin(1, "keep_bytes = 1k\n");
    add(1, 1, 1000, 20 * DAY);
    add(1, 2, 1000, 10 * DAY);
    for (uint64_t base = 1; base <= 3; base++)
        add(2, base, 1000, (9 - (int64_t)base) * DAY);
    partitions[1]->state = PARTITION_BROKEN;
    unsettled = partitions[1];
    step(1);
    step(2);
    unsettled = NULL;
    assert_true(there(1, 1));
    assert_false(there(2, 1));
    end();
}

/* While the file is being removed it begins to heal: its segments are looked at anew. */
static void a_partition_that_heals(void **state)
{
    (void)state;
    begin(1, "keep = 1s\n");
    add(1, 1, 100, 20 * DAY);
    add(1, 2, 100, 19 * DAY);
    retention_step(partitions[1]);
    retention_step(partitions[1]); /* one removal at a time */
    partitions[1]->state = PARTITION_OPENING;
    assert_true(testhost_run(host));
    assert_int_equal(partitions[1]->n_segments, 2);
    step(1);
    assert_int_equal(partitions[1]->n_segments, 2);
    partitions[1]->state = PARTITION_READY;
    step(1);
    assert_int_equal(partitions[1]->n_segments, 1);
    end();
}

/* It is tried again and again, and said now and then. */
static void what_cannot_be_removed_is_told_of(void **state)
{
    (void)state;
    begin(1, "keep = 1s\n");
    add(1, 1, 100, 20 * DAY);
    add(1, 2, 100, 19 * DAY);
    testhost_keep_path(host, DIRECTORY);
    for (unsigned minute = 0; minute < 15; minute++) {
        step(1);
        testhost_advance_ms(host, 60000);
    }
    assert_true(there(1, 1));
    assert_int_equal(testhost_log_lines(host), 2);
    assert_true(testhost_logged(host, "is to go (keep, keep_bytes) and cannot be removed: "
                                      "Operation not permitted; let the broker's user write"));
    testhost_keep_path(host, "");
    step(1);
    assert_false(there(1, 1));
    end();
}

static void memory_runs_out(void **state)
{
    (void)state;
    for (uint64_t at = 1; at < 12; at++) {
        begin(2, "keep = 30d\nkeep_bytes = 100\n");
        testhost_file_put(host, TEXT "/ops/2025-01-01.log", "x", 1);
        for (uint32_t p = 0; p < 4; p++)
            for (uint32_t s = 0; s < 3; s++)
                add(p, s + 1, 100, (9 - (int64_t)s) * DAY);
        testhost_fail_allocation(host, at);
        for (uint32_t p = 0; p < 4; p++)
            step(p);
        testhost_fail_allocation(host, 0);
        testhost_advance_ms(host, 3700000);
        for (uint32_t p = 0; p < 4; p++)
            step(p);
        uint32_t left = 0;
        for (uint32_t p = 0; p < 4; p++)
            left += partitions[p]->n_segments - 1;
        assert_int_equal(left, 1);
        assert_null(testhost_file_get(host, TEXT "/ops/2025-01-01.log", NULL));
        end();
    }
}

static void stopped_in_between(void **state)
{
    (void)state;
    begin(2, "keep = 1s\n");
    testhost_file_put(host, TEXT "/ops/2025-01-01.log", "x", 1);
    add(0, 1, 100, 20 * DAY);
    add(0, 2, 100, 19 * DAY);
    retention_step(partitions[0]);
    end();
}

/* ---- text files --------------------------------------------------------------------------- */

static void text_files(void **state)
{
    static const struct {
        const char *path;
        int stays;
    } files[] = {
        {TEXT "/ops/2025-12-24.log", 0},        {TEXT "/ops/2025-12-25.log", 1},
        {TEXT "/ops/2026-01-01.log", 1},        {TEXT "/lobby/2024-02-29.log", 0},
        {TEXT "/lobby/2024-02-30.log", 1},      {TEXT "/lobby/notes.txt", 1},
        {TEXT "/lobby/2024-02-29.log.1.gz", 1}, {TEXT "/%63on/2025-01-01.log", 0},
        {TEXT "/.repair-03-2025-01-01", 1},     {TEXT "/2025-01-01.log", 1},
        {TEXT "/.other/2025-01-01.log", 1},     {TEXT "/zz/2025-06-01.log", 0},
        {TEXT "/zz/2025-06-02.log", 0},         {TEXT "/zz/2025-06-03.log", 0},
        {"text2/ops/2025-01-01.log", 1},
    };

    (void)state;
    begin(2, "keep = 7d\n"); /* it is 2026-01-01, at first 00:00 */
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        testhost_file_put(host, files[i].path, "x", 1);
    testhost_advance_ms(host, 1000);
    step(1); /* not this one's work */
    assert_non_null(testhost_file_get(host, files[0].path, NULL));
    step(0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if ((testhost_file_get(host, files[i].path, NULL) != NULL) != files[i].stays)
            fail_msg("%s %s", files[i].path, files[i].stays ? "has gone" : "is still there");
    /* Not more often than once an hour. */
    testhost_set_time_ns(host, now_ns() + DAY);
    step(0);
    assert_non_null(testhost_file_get(host, TEXT "/ops/2025-12-25.log", NULL));
    testhost_advance_ms(host, 3600000);
    step(0);
    assert_null(testhost_file_get(host, TEXT "/ops/2025-12-25.log", NULL));
    assert_non_null(testhost_file_get(host, TEXT "/ops/2026-01-01.log", NULL));
    end();
}

static void text_files_for_ever(void **state)
{
    (void)state;
    begin(1, "keep_bytes = 1\n"); /* bytes are for segments */
    testhost_file_put(host, TEXT "/ops/2001-01-01.log", "x", 1);
    step(0);
    assert_non_null(testhost_file_get(host, TEXT "/ops/2001-01-01.log", NULL));
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(for_ever),
        cmocka_unit_test(by_age),
        cmocka_unit_test(a_wrong_clock),
        cmocka_unit_test(never_the_tail),
        cmocka_unit_test(by_bytes),
        cmocka_unit_test(not_before_the_snapshot),
        cmocka_unit_test(readers_keep_it),
        cmocka_unit_test(a_broken_partition_too),
        cmocka_unit_test(one_that_cannot_does_not_keep_all),
        cmocka_unit_test(readers_keep_it),
        cmocka_unit_test(a_partition_that_heals),
        cmocka_unit_test(what_cannot_be_removed_is_told_of),
        cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(stopped_in_between),
        cmocka_unit_test(text_files),
        cmocka_unit_test(text_files_for_ever),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
