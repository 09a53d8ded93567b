#ifndef RODA_TEST_LOG_PEOPLE_H
#define RODA_TEST_LOG_PEOPLE_H
/* What the tests share in which people talk: the log with rooms in front of it, on the fake core,
 * and its files over restarts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <roda/history.h>

#include "plugins/log/partition.h"
#include "testhost.h"

extern const struct roda_plugin log_plugin, rooms_plugin;

enum { SEGMENT_BYTES = 16 << 20, HOUR_MS = 3600000, DAY_MS = 24 * HOUR_MS };

static struct testhost *host;
static unsigned segment_bytes; /* as the conf says */

static inline int begin(void **state)
{
    (void)state;
    segment_bytes = SEGMENT_BYTES;
    host = NULL; /* one that a failed test left stays as it is */
    return 0;
}

static inline void start(uint32_t workers, const char *conf)
{
    if (!host)
        host = testhost_new(workers);
    assert_int_equal(testhost_load(host, &rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(host, &log_plugin, conf), 0);
    assert_int_equal(testhost_start(host), 0);
}

static inline void stop(void)
{
    assert_int_equal(testhost_stop(host), 0);
    testhost_free(host);
    host = NULL;
}

static inline struct testhost_conn *enter(uint32_t worker, const char *nick)
{
    struct testhost_conn *c = testhost_connect(host, worker, "plain", "tcp");
    char line[64];

    assert_true(testhost_run(host));
    (void)snprintf(line, sizeof(line), "NICK|||%s\n", nick);
    testhost_input(c, line);
    assert_true(testhost_run(host));
    while (testhost_unit(c)) {
    }
    return c;
}

static inline void join(struct testhost_conn *c, const char *room)
{
    char line[32];

    (void)snprintf(line, sizeof(line), "JOIN|%s||\n", room);
    testhost_input(c, line);
    assert_true(testhost_run(host));
}

static inline void say(struct testhost_conn *c, const char *room, const char *text)
{
    char line[256];

    (void)snprintf(line, sizeof(line), "TEXT|%s||%s\n", room, text);
    testhost_input(c, line);
}

/* The number that c was given or shown for a TEXT that is next; 0: nothing. */
static inline uint64_t next_number(struct testhost_conn *c)
{
    const char *unit;

    while ((unit = testhost_unit(c))) {
        if (!strncmp(unit, "TEXT|", 5))
            return strtoull(unit + 5, NULL, 10);
        if (!strncmp(unit, "answer|", 7) && strstr(unit, "|TEXT|")) {
            const char *last = strrchr(unit, '|');
            while (last > unit && last[-1] != '|')
                last--;
            return !strncmp(unit, "answer|0|", 9) ? strtoull(last, NULL, 10) : UINT64_MAX;
        }
    }
    return 0;
}

static inline struct partition *partition_of(const char *room)
{
    uint32_t index = roda_room_partition((struct roda_str){room, strlen(room)});
    uint32_t workers = testhost_ctx(host, "log", 0)->n_workers;

    return log_state_of(testhost_ctx(host, "log", index % workers))->partitions[index];
}

/* ---- starts ----------------------------------------------------------------------------- */

enum { SEGMENTS = 32, FILES = RODA_PARTITIONS * SEGMENTS };
static struct {
    char path[80];
    char *bytes;
    size_t len;
} disk[FILES];

static inline void take_disk(void)
{
    for (unsigned i = 0; i < FILES; i++) {
        const char *bytes;
        (void)snprintf(disk[i].path, sizeof(disk[i].path), "/log/%02u-%016x.segment", i / SEGMENTS,
                       i % SEGMENTS * segment_bytes);
        bytes = testhost_file_get(host, disk[i].path, &disk[i].len);
        free(disk[i].bytes);
        disk[i].bytes = NULL;
        if (!bytes)
            continue;
        disk[i].bytes = malloc(disk[i].len + 1);
        assert_non_null(disk[i].bytes);
        memcpy(disk[i].bytes, bytes, disk[i].len);
    }
}

/* Another host with the same segments, which is not started: as they are after a clean end, or
 * (crash) in the middle. */
static inline void exchange_host(uint32_t workers, bool crash)
{
    int64_t time_ns = roda_time_ns(testhost_ctx(host, "log", 0));

    if (crash)
        take_disk();
    assert_int_equal(testhost_stop(host), 0);
    if (!crash)
        take_disk();
    testhost_free(host);
    host = testhost_new(workers);
    testhost_set_time_ns(host, time_ns);
    for (unsigned i = 0; i < FILES; i++)
        if (disk[i].bytes)
            testhost_file_put(host, disk[i].path, disk[i].bytes, disk[i].len);
}

static inline void restart(uint32_t workers, const char *conf, bool crash)
{
    exchange_host(workers, crash);
    start(workers, conf);
}

static inline void pass_ms(uint64_t ms)
{
    for (; ms >= HOUR_MS; ms -= HOUR_MS)
        testhost_advance_ms(host, HOUR_MS);
}

/* The i-th room that lives where the lobby does. */
static inline const char *neighbour(unsigned i)
{
    static char name[16];

    for (unsigned n = 0;; n++) {
        (void)snprintf(name, sizeof(name), "room%u", n);
        if (partition_of(name) == partition_of("lobby") && !i--)
            return name;
    }
}

static inline uint64_t say_and_see(struct testhost_conn *c, const char *room)
{
    while (testhost_unit(c)) {
    }
    say(c, room, "said");
    assert_true(testhost_run(host));
    return next_number(c);
}

static inline bool has_segment(const char *room, uint64_t base)
{
    char name[LOG_NAME_BYTES], path[80];

    log_segment_name(partition_of(room)->index, base, name);
    (void)snprintf(path, sizeof(path), "/log/%s", name);
    return testhost_file_get(host, path, NULL) != NULL;
}

#endif
