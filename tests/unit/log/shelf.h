#ifndef RODA_TEST_LOG_SHELF_H
#define RODA_TEST_LOG_SHELF_H
/* What the tests of the log's reading side share: a partition on the fake core, without a writer,
 * and segments that a test writes byte by byte. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/log/partition.h"
#include "testhost.h"

enum { SHELF_METRICS = 32, SHELF_SEGMENT = 1 << 20, SHELF_PARTITION = 3 };

static struct testhost *host;
static struct partition partition;

static const struct roda_option shelf_options[] = {
    {"directory", RODA_T_PATH, offsetof(struct log_conf, directory), "/log", 0, 0, NULL, 0,
     "where segments are"},
    {"segment_bytes", RODA_T_BYTES, offsetof(struct log_conf, segment_bytes), "1M", 0, 0, NULL, 0,
     "how large segments are"},
    {.name = NULL},
};
static struct roda_metric shelf_metrics[SHELF_METRICS + 1];
static struct roda_plugin shelf_plugin;

static inline void shelf_open(void)
{
    static char names[SHELF_METRICS][16];

    for (size_t i = 0; i < SHELF_METRICS; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "metric_%zu", i);
        shelf_metrics[i] = (struct roda_metric){names[i], RODA_COUNTER, "one of the log's"};
    }
    shelf_plugin = (struct roda_plugin){.abi = RODA_ABI,
                                        .size = sizeof(shelf_plugin),
                                        .name = "log",
                                        .summary = "a part of it",
                                        .version = "0",
                                        .conf_size = sizeof(struct log_conf),
                                        .option_size = sizeof(struct roda_option),
                                        .metric_size = sizeof(struct roda_metric),
                                        .protocol_size = sizeof(struct roda_protocol),
                                        .service_size = sizeof(struct roda_service_table),
                                        .options = shelf_options,
                                        .metrics = shelf_metrics};
    host = testhost_new(1);
    assert_int_equal(testhost_load(host, &shelf_plugin, NULL), 0);
    assert_int_equal(testhost_start(host), 0);
    partition = (struct partition){.x = testhost_ctx(host, "log", 0), .index = SHELF_PARTITION};
}

/* The broker ends, or crashes: the files stay. */
static inline void shelf_forget(void)
{
    recovery_cancel(&partition);
    partition_cache_free(&partition);
    log_rooms_clear(partition.x, &partition.rooms);
    roda_free(partition.x, partition.segments);
    partition = (struct partition){.x = partition.x, .index = SHELF_PARTITION};
    assert_true(testhost_run(host));
}

static inline void shelf_close(void)
{
    shelf_forget();
    assert_int_equal(testhost_stop(host), 0);
    testhost_free(host);
}

static inline int64_t shelf_metric(uint32_t index)
{
    return testhost_metric(host, "log", shelf_metrics[index].name);
}

static inline struct roda_str str(const char *text)
{
    return (struct roda_str){text, strlen(text)};
}

/* ---- segments --------------------------------------------------------------------------- */

enum { BOOK_RECORDS = 4096 };

struct book { /* one segment while it is written */
    struct log_rooms *rooms;
    uint64_t base;
    char *bytes;
    size_t len, room;
    size_t at[BOOK_RECORDS]; /* where records begin */
    size_t n;
};

static inline const char *book_path(uint64_t base)
{
    static char path[64];
    char name[LOG_NAME_BYTES];

    log_segment_name(SHELF_PARTITION, base, name);
    (void)snprintf(path, sizeof(path), "/log/%s", name);
    return path;
}

static inline void book_put(struct book *b, const struct log_record *record)
{
    if (b->room - b->len < LOG_RECORD_MAX) {
        b->room = b->room * 2 + LOG_RECORD_MAX;
        b->bytes = realloc(b->bytes, b->room);
        assert_non_null(b->bytes);
    }
    size_t len = log_record_encode(record, b->bytes + b->len, LOG_RECORD_MAX);
    assert_true(len > 0);
    assert_true(b->n < BOOK_RECORDS);
    b->at[b->n++] = b->len;
    b->len += len;
}

static inline void book_room(struct book *b, const struct log_room *room)
{
    struct log_record record = {.type = LOG_ROOM};

    log_room_describe(room, &record.room);
    book_put(b, &record);
}

static inline void book_mark(struct book *b, enum log_type type)
{
    struct log_record record = {.type = type};

    book_put(b, &record);
}

static inline void book_start(struct book *b, uint32_t sync, const char *sync_rooms)
{
    struct log_record record = {.type = LOG_START,
                                .start = {.sync = sync, .sync_rooms = str(sync_rooms)}};

    book_put(b, &record);
}

/* Header, and a snapshot of the rooms; without LOG_OPEN. */
static inline struct book *book_begin(struct log_rooms *rooms, uint64_t base)
{
    struct book *b = calloc(1, sizeof(*b));
    struct log_header header = {.version = LOG_FORMAT_VERSION,
                                .partition = SHELF_PARTITION,
                                .base = base,
                                .segment_bytes = SHELF_SEGMENT,
                                .created_ns = 1000 + (int64_t)base};

    assert_non_null(b);
    b->rooms = rooms;
    b->base = base;
    b->room = LOG_RECORD_MAX;
    b->bytes = malloc(b->room);
    assert_non_null(b->bytes);
    log_header_encode(&header, b->bytes);
    b->len = LOG_HEADER_BYTES;
    for (struct log_room *room = rooms->oldest; room; room = room->newer)
        book_room(b, room);
    return b;
}

static inline struct book *book_open(struct log_rooms *rooms, uint64_t base)
{
    struct book *b = book_begin(rooms, base);

    book_put(b, &(struct log_record){.type = LOG_OPEN, .open = {rooms->ids, rooms->floor}});
    return b;
}

static inline struct log_room *book_new_room(struct book *b, const char *name, uint64_t epoch)
{
    struct log_room *room = log_rooms_add(partition.x, b->rooms, 0, str(name), str(name));

    assert_non_null(room);
    room->epoch = epoch;
    book_room(b, room);
    return room;
}

/* The next message of a room; its number is the one behind the last. Returns its position. */
static inline uint64_t book_say_text(struct book *b, struct log_room *room, struct roda_str text)
{
    struct log_record record = {.type = LOG_MESSAGE,
                                .message = {.room = room->id,
                                            .kind = RODA_TEXT,
                                            .epoch = room->epoch,
                                            .number = room->number + 1,
                                            .prev = room->number,
                                            .time_ns = 1000 * (int64_t)(room->number + 1),
                                            .to = log_room_name(room),
                                            .text = text}};
    uint64_t position = b->base + b->len;

    log_room_pointers(room, &record.message);
    book_put(b, &record);
    assert_int_equal(log_room_append(partition.x, room, position, room->epoch, room->number + 1,
                                     record.message.time_ns),
                     0);
    return position;
}

static inline uint64_t book_say(struct book *b, struct log_room *room)
{
    char text[64];

    (void)snprintf(text, sizeof(text), "message %u of room %u", (unsigned)room->number + 1,
                   room->id);
    return book_say_text(b, room, str(text));
}

static inline void book_write_part(const struct book *b, size_t len)
{
    testhost_file_put(host, book_path(b->base), b->bytes, len);
}

static inline void book_write(const struct book *b)
{
    book_write_part(b, b->len);
}

static inline void book_free(struct book *b)
{
    free(b->bytes);
    free(b);
}

/* ---- recovery --------------------------------------------------------------------------- */

struct shelf_answer {
    uint32_t calls;
    int result;
    struct recovered found;
    struct log_void voids[16];
};
static struct shelf_answer recovered;

static inline void shelf_recovered(struct partition *p, const struct recovered *found, int result)
{
    assert_ptr_equal(p, &partition);
    recovered.calls++;
    recovered.result = result;
    recovered.found = *found;
    for (uint32_t i = 0; i < found->n_voids && i < 16; i++)
        recovered.voids[i] = found->voids[i];
}

static inline void shelf_recover_from(int first, uint64_t synced)
{
    recovered = (struct shelf_answer){.result = 1};
    assert_int_equal(recovery_start(&partition, first, synced, shelf_recovered), 0);
    assert_int_equal(recovered.calls, 0);
    assert_true(testhost_run(host));
    assert_int_equal(recovered.calls, 1);
    assert_null(partition.recovery);
}

static inline void shelf_recover(int first)
{
    shelf_recover_from(first, 0);
}

static inline struct log_room *shelf_room(const char *name)
{
    return log_rooms_find(&partition.rooms, str(name));
}

#endif
