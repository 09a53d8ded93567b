#include "record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <isa-l/crc.h>

enum { BUFFER_BYTES = 200000 };

static char buffer[BUFFER_BYTES], again[BUFFER_BYTES];

/* Bytes of exactly this length, so that AddressSanitizer sees a read behind them. */
static int decode_exactly(const char *bytes, size_t len, struct log_record *ret_record)
{
    char *copy = malloc(len ? len : 1);
    int r;

    assert_non_null(copy);
    if (len)
        memcpy(copy, bytes, len);
    r = log_record_decode(copy, len, ret_record);
    free(copy);
    return r;
}

static void assert_text(struct roda_str text, const char *expected, size_t len)
{
    assert_int_equal(text.len, len);
    assert_memory_equal(text.ptr, expected, len);
}

static struct log_record a_start(void)
{
    struct log_record record = {.type = LOG_START};

    record.start =
        (struct log_start){.sync = 1, .sync_rooms = RODA_STR("always: ops"), .time_ns = -7};
    return record;
}

static struct log_record a_room(void)
{
    struct log_record record = {.type = LOG_ROOM};

    record.room = (struct log_room_record){
        .room = 7,
        .epoch = UINT64_C(0xfedcba9876543210),
        .number = 10012,
        .kept = 12,
        .time_ns = INT64_C(1795489200000000001),
        .closed = 9000,
        .folded = RODA_STR("lobby"),
        .name = RODA_STR("Lobby"),
    };
    for (uint64_t i = 1; i <= 12; i++)
        log_trees_add(record.room.trees, &record.room.n_trees, 1000 * i, i, (int64_t)i);
    record.room.count = 12;
    return record;
}

static struct log_record a_message(void)
{
    struct log_record record = {.type = LOG_MESSAGE};

    record.message = (struct log_message){
        .room = 7,
        .kind = RODA_TEXT,
        .flags = RODA_MSG_ACTION | 0x80000000u,
        .durable = 1,
        .epoch = UINT64_C(0xfedcba9876543210),
        .number = 413,
        .prev = 412,
        .time_ns = INT64_C(1795489200000000001),
        .count = 412,
        .back = 0x1a0040,
        .jump = 0x40,
        .jump_number = 1,
        .jump_time_ns = INT64_MIN,
        .person = UINT64_MAX,
        .sender = {RODA_STR("bia"), RODA_STR(""), RODA_STR("host.example"), RODA_STR("Bia Sousa"),
                   RODA_STR(""), RODA_STR("line")},
        .to = RODA_STR("lobby"),
        .subject = RODA_STR("s"),
        .text = RODA_STR("ol\303\241"),
        .tags = {{RODA_STR("id"), RODA_STR("42")}, {RODA_STR(".address"), RODA_STR("")}},
        .n_tags = 2,
    };
    return record;
}

static struct log_record a_void(void)
{
    struct log_record record = {.type = LOG_VOID};

    record.voided = (struct log_void){.room = 3, .from = 5, .to = 9};
    return record;
}

static struct log_record some_record(size_t i)
{
    struct log_record bare = {.type = LOG_END};

    switch (i) {
    case 0:
        return a_start();
    case 1:
        return bare;
    case 2:
        return a_room();
    case 3:
        bare.type = LOG_OPEN;
        bare.open = (struct log_open){0x01020304, UINT64_C(0x05060708090a0b0c)};
        return bare;
    case 4:
        return a_message();
    default:
        return a_void();
    }
}

enum { KINDS_OF_RECORD = 6 };

/* ---- checksum --------------------------------------------------------------------------- */

/* RFC 3720's polynomial bit by bit, apart from the library. */
static uint32_t slow_crc(const char *bytes, size_t len)
{
    uint32_t crc = 0xffffffffu;

    for (size_t i = 0; i < len; i++) {
        crc ^= (unsigned char)bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static uint32_t u32_at(const char *bytes)
{
    uint32_t value = 0;

    for (int i = 3; i >= 0; i--)
        value = value << 8 | (unsigned char)bytes[i];
    return value;
}

static void test_the_checksum_is_crc32c(void **state)
{
    (void)state;
    char digits[] = "123456789";

    assert_int_equal(slow_crc(digits, 9), 0xe3069283u);
    assert_int_equal(~crc32_iscsi((unsigned char *)digits, 9, 0xffffffffu), 0xe3069283u);
    for (size_t i = 0; i < KINDS_OF_RECORD; i++) {
        struct log_record record = some_record(i);
        size_t len = log_record_encode(&record, buffer, sizeof(buffer));

        assert_true(len >= LOG_FRAME_BYTES);
        assert_int_equal(u32_at(buffer), len);
        assert_int_equal(u32_at(buffer + 4), slow_crc(buffer + 8, len - 8));
    }
    struct log_header header = {.version = 1, .base = 3, .segment_bytes = 100};
    log_header_encode(&header, buffer);
    assert_int_equal(u32_at(buffer + 60), slow_crc(buffer, 60));
    /* Short and long ones take different ways. */
    static char text[3000];
    memset(text, 'x', sizeof(text));
    for (size_t i = 0; i < sizeof(text); i++) {
        struct log_record record = a_message();
        record.message.text = (struct roda_str){text, i};
        size_t len = log_record_encode(&record, buffer, sizeof(buffer));

        assert_int_equal(u32_at(buffer + 4), slow_crc(buffer + 8, len - 8));
    }
}

/* Puts a record's checksum right after its bytes were changed. */
static void seal(char *bytes, size_t len)
{
    uint32_t crc = slow_crc(bytes + 8, len - 8);

    for (int i = 0; i < 4; i++) {
        bytes[i] = (char)(unsigned char)(len >> 8 * i);
        bytes[4 + i] = (char)(unsigned char)(crc >> 8 * i);
    }
}

/* ---- round trips ------------------------------------------------------------------------ */

static void test_start(void **state)
{
    (void)state;
    struct log_record record = a_start(), back = {0};
    size_t len = log_record_encode(&record, buffer, sizeof(buffer));

    assert_int_equal(log_record_decode(buffer, len, &back), 0);
    assert_int_equal(back.type, LOG_START);
    assert_int_equal(back.length, len);
    assert_int_equal(back.start.sync, 1);
    assert_int_equal(back.start.time_ns, -7);
    assert_text(back.start.sync_rooms, "always: ops", 11);
}

static void test_room(void **state)
{
    (void)state;
    struct log_record record = a_room(), back = {0};
    size_t len = log_record_encode(&record, buffer, sizeof(buffer));

    assert_int_equal(log_record_decode(buffer, len, &back), 0);
    assert_int_equal(back.type, LOG_ROOM);
    assert_int_equal(back.room.room, 7);
    assert_true(back.room.epoch == UINT64_C(0xfedcba9876543210));
    assert_int_equal(back.room.number, 10012);
    assert_int_equal(back.room.kept, 12);
    assert_true(back.room.time_ns == INT64_C(1795489200000000001));
    assert_int_equal(back.room.count, 12);
    assert_text(back.room.folded, "lobby", 5);
    assert_text(back.room.name, "Lobby", 5);
    assert_int_equal(back.room.closed, 9000);
    assert_int_equal(back.room.n_trees, record.room.n_trees);
    for (uint32_t i = 0; i < back.room.n_trees; i++) {
        assert_int_equal(back.room.trees[i].root, record.room.trees[i].root);
        assert_int_equal(back.room.trees[i].number, record.room.trees[i].number);
        assert_int_equal(back.room.trees[i].time_ns, record.room.trees[i].time_ns);
        assert_int_equal(back.room.trees[i].size, record.room.trees[i].size);
    }
}

static void test_message(void **state)
{
    (void)state;
    struct log_record record = a_message(), back = {0};
    const struct log_message *m = &back.message, *n = &record.message;
    size_t len = log_record_encode(&record, buffer, sizeof(buffer));

    assert_int_equal(log_record_decode(buffer, len, &back), 0);
    assert_int_equal(back.type, LOG_MESSAGE);
    assert_int_equal(m->room, 7);
    assert_int_equal(m->kind, RODA_TEXT);
    assert_true(m->flags == (RODA_MSG_ACTION | 0x80000000u));
    assert_int_equal(m->durable, 1);
    assert_true(m->epoch == n->epoch && m->number == 413 && m->prev == 412);
    assert_true(m->time_ns == n->time_ns && m->count == 412);
    assert_true(m->back == 0x1a0040 && m->jump == 0x40 && m->jump_number == 1);
    assert_true(m->jump_time_ns == INT64_MIN && m->person == UINT64_MAX);
    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++)
        assert_text(m->sender[i], n->sender[i].ptr, n->sender[i].len);
    assert_text(m->to, "lobby", 5);
    assert_text(m->subject, "s", 1);
    assert_text(m->text, "ol\303\241", 4);
    assert_int_equal(m->n_tags, 2);
    assert_text(m->tags[0].key, "id", 2);
    assert_text(m->tags[0].value, "42", 2);
    assert_text(m->tags[1].key, ".address", 8);
    assert_text(m->tags[1].value, "", 0);
}

static void test_void(void **state)
{
    (void)state;
    struct log_record record = a_void(), back = {0};
    size_t len = log_record_encode(&record, buffer, sizeof(buffer));

    assert_int_equal(log_record_decode(buffer, len, &back), 0);
    assert_int_equal(back.type, LOG_VOID);
    assert_true(back.voided.room == 3 && back.voided.from == 5 && back.voided.to == 9);
}

static void test_end_and_open(void **state)
{
    (void)state;
    struct log_record end = some_record(1), open = some_record(3), back = {0};
    size_t len = log_record_encode(&end, buffer, sizeof(buffer));

    assert_int_equal(len, LOG_FRAME_BYTES);
    assert_int_equal(log_record_decode(buffer, len, &back), 0);
    assert_true(back.type == LOG_END && back.length == len);
    len = log_record_encode(&open, buffer, sizeof(buffer));
    assert_int_equal(len, LOG_FRAME_BYTES + 12);
    assert_int_equal(log_record_decode(buffer, len, &back), 0);
    assert_true(back.type == LOG_OPEN && back.length == len && back.open.ids == 0x01020304);
    assert_true(back.open.floor == UINT64_C(0x05060708090a0b0c));
}

/* A reader takes one record, whatever stands behind it. */
static void test_bytes_behind_a_record_do_not_matter(void **state)
{
    (void)state;
    for (size_t i = 0; i < KINDS_OF_RECORD; i++) {
        struct log_record record = some_record(i), back = {0};
        size_t len = log_record_encode(&record, buffer, sizeof(buffer));

        memset(buffer + len, 0xa5, 100);
        assert_int_equal(log_record_decode(buffer, len + 100, &back), 0);
        assert_int_equal(back.length, len);
        assert_int_equal(log_record_encode(&back, again, sizeof(again)), len);
        assert_memory_equal(again, buffer, len);
    }
}

static void test_empty_texts(void **state)
{
    (void)state;
    struct log_record record = {.type = LOG_MESSAGE}, back = {0};

    record.message = (struct log_message){.room = 1, .kind = 1, .number = 1, .count = 1};
    size_t len = log_record_encode(&record, buffer, sizeof(buffer));
    assert_int_equal(decode_exactly(buffer, len, &back), 0);
    assert_int_equal(back.message.text.len, 0);
    assert_non_null(back.message.text.ptr);
    assert_non_null(back.message.sender[0].ptr);
}

/* ---- limits ----------------------------------------------------------------------------- */

static void test_64_kilobytes_of_text_fit(void **state)
{
    (void)state;
    static char text[65536];
    struct log_record record = a_message(), back = {0};

    memset(text, 'x', sizeof(text));
    record.message.text = (struct roda_str){text, sizeof(text)};
    record.message.tags[0].value = (struct roda_str){text, sizeof(text)};
    size_t len = log_record_encode(&record, buffer, sizeof(buffer));
    assert_true(len > 2 * sizeof(text) && len < LOG_RECORD_MAX);
    assert_int_equal(log_record_decode(buffer, len, &back), 0);
    assert_int_equal(back.message.text.len, sizeof(text));
    assert_text(back.message.tags[0].value, text, sizeof(text));
}

static void test_what_does_not_fit_is_not_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < KINDS_OF_RECORD; i++) {
        struct log_record record = some_record(i);
        size_t len = log_record_encode(&record, buffer, sizeof(buffer));

        for (size_t size = 0; size < len; size++) {
            char *small = malloc(size ? size : 1);

            assert_non_null(small);
            assert_int_equal(log_record_encode(&record, small, size), 0);
            free(small);
        }
        assert_int_equal(log_record_encode(&record, again, len), len);
        assert_memory_equal(again, buffer, len);
    }
}

static void test_longest_record(void **state)
{
    (void)state;
    static char text[LOG_RECORD_MAX];
    struct log_record record = a_message(), back = {0};

    record.message.n_tags = 0;
    record.message.text.len = 0;
    size_t bare = log_record_encode(&record, buffer, sizeof(buffer));
    record.message.text = (struct roda_str){text, LOG_RECORD_MAX - bare};
    assert_int_equal(log_record_encode(&record, buffer, sizeof(buffer)), LOG_RECORD_MAX);
    assert_int_equal(log_record_decode(buffer, LOG_RECORD_MAX, &back), 0);
    record.message.text.len++;
    assert_int_equal(log_record_encode(&record, again, sizeof(again)), 0);
    memset(buffer + LOG_RECORD_MAX, 0, 1);
    seal(buffer, LOG_RECORD_MAX + 1);
    assert_int_equal(log_record_decode(buffer, sizeof(buffer), &back), -EILSEQ);
}

static void test_too_long_for_its_length(void **state)
{
    (void)state;
    static char text[70000];
    struct log_record record = a_message();

    record.message.to = (struct roda_str){text, 65536};
    assert_int_equal(log_record_encode(&record, buffer, sizeof(buffer)), 0);
    record = a_message();
    record.message.sender[0] = (struct roda_str){text, 65536};
    assert_int_equal(log_record_encode(&record, buffer, sizeof(buffer)), 0);
    record = a_message();
    record.message.tags[0].key = (struct roda_str){text, 65536};
    assert_int_equal(log_record_encode(&record, buffer, sizeof(buffer)), 0);
    record = a_message();
    record.message.tags[0].value = (struct roda_str){text, (size_t)1 << 32};
    assert_int_equal(log_record_encode(&record, buffer, sizeof(buffer)), 0);
    record = a_message();
    record.message.n_tags = LOG_TAGS_MAX + 1;
    assert_int_equal(log_record_encode(&record, buffer, sizeof(buffer)), 0);
    record = a_message();
    record.message.kind = 257;
    assert_int_equal(log_record_encode(&record, buffer, sizeof(buffer)), 0);
    record = a_message();
    record.type = (enum log_type)7;
    assert_int_equal(log_record_encode(&record, buffer, sizeof(buffer)), 0);
}

static void test_most_tags_and_trees(void **state)
{
    (void)state;
    struct log_record record = a_message(), back = {0};

    for (record.message.n_tags = 0; record.message.n_tags < LOG_TAGS_MAX; record.message.n_tags++)
        record.message.tags[record.message.n_tags] =
            (struct roda_tag){RODA_STR("key"), RODA_STR("value")};
    size_t len = log_record_encode(&record, buffer, sizeof(buffer));
    assert_int_equal(decode_exactly(buffer, len, &back), 0);
    assert_int_equal(back.message.n_tags, LOG_TAGS_MAX);

    record = a_room();
    record.room.n_trees = 0;
    record.room.count = 0;
    for (uint64_t size = 1; record.room.n_trees < 60; size = 2 * size + 1) {
        record.room.trees[record.room.n_trees++] = (struct log_tree){64, 1, 1, size};
        record.room.count += size;
    }
    len = log_record_encode(&record, buffer, sizeof(buffer));
    assert_int_equal(decode_exactly(buffer, len, &back), 0);
    assert_int_equal(back.room.n_trees, 60);
    assert_true(back.room.trees[59].size == (UINT64_C(1) << 60) - 1);
}

/* ---- damage ----------------------------------------------------------------------------- */

static void test_each_flipped_bit_is_seen(void **state)
{
    (void)state;
    for (size_t i = 0; i < KINDS_OF_RECORD; i++) {
        struct log_record record = some_record(i), back;
        size_t len = log_record_encode(&record, buffer, sizeof(buffer));

        /* What stands behind it, so that a longer length finds something. */
        memset(buffer + len, 0x5a, LOG_RECORD_MAX - len);
        for (size_t bit = 0; bit < 8 * len; bit++) {
            buffer[bit / 8] = (char)(buffer[bit / 8] ^ 1 << bit % 8);
            assert_int_equal(log_record_decode(buffer, LOG_RECORD_MAX, &back), -EILSEQ);
            buffer[bit / 8] = (char)(buffer[bit / 8] ^ 1 << bit % 8);
        }
        assert_int_equal(log_record_decode(buffer, LOG_RECORD_MAX, &back), 0);
    }
}

static void test_cut_anywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < KINDS_OF_RECORD; i++) {
        struct log_record record = some_record(i), back;
        size_t len = log_record_encode(&record, buffer, sizeof(buffer));

        for (size_t cut = 0; cut < len; cut++) {
            back.length = 99;
            assert_int_equal(decode_exactly(buffer, cut, &back), -EAGAIN);
            assert_int_equal(back.length, cut < 4 ? 0 : len);
        }
        assert_int_equal(decode_exactly(buffer, len, &back), 0);
    }
}

static void test_zeros_are_damage(void **state)
{
    (void)state;
    static const char nothing[64];
    struct log_record back;

    for (size_t len = 4; len <= sizeof(nothing); len++)
        assert_int_equal(log_record_decode(nothing, len, &back), -EILSEQ);
}

/* A body that is wrong under a right checksum. */
static void expect_refused(size_t kind, size_t at, unsigned value)
{
    struct log_record record = some_record(kind), back;
    size_t len = log_record_encode(&record, buffer, sizeof(buffer));
    char before = buffer[at];

    buffer[at] = (char)value;
    assert_true(before != buffer[at]);
    seal(buffer, len);
    assert_int_equal(log_record_decode(buffer, len, &back), -EILSEQ);
    buffer[at] = before;
    seal(buffer, len);
    assert_int_equal(log_record_decode(buffer, len, &back), 0);
}

static void test_contents_are_checked(void **state)
{
    (void)state;
    expect_refused(0, 8, 0); /* type */
    expect_refused(0, 8, 7);
    expect_refused(0, 9, 1); /* zeros of the frame */
    expect_refused(0, 11, 1);
    expect_refused(0, 12, 3);    /* sync */
    expect_refused(0, 24, 12);   /* a text longer than the record */
    expect_refused(0, 24, 10);   /* shorter: something stands behind it */
    expect_refused(2, 12, 0);    /* room 0 */
    expect_refused(2, 39, 0x7f); /* more kept than the number */
    expect_refused(2, 48, 11);   /* another count than the trees' */
    expect_refused(2, 64, 3);    /* fewer trees than bytes */
    expect_refused(2, 66, 0);    /* no name */
    expect_refused(4, 12, 0);    /* room 0 */
    expect_refused(4, 20, 0);    /* kind 0 */
    expect_refused(4, 20, 64);   /* kind 64 */
    expect_refused(4, 21, 2);    /* durable */
    expect_refused(4, 22, 3);    /* tags */
    expect_refused(4, 22, 1);
    expect_refused(4, 23, 1);
    expect_refused(4, 33, 0);  /* number not greater than prev: 157 */
    expect_refused(4, 104, 4); /* a sender's text takes one more */
    expect_refused(5, 12, 0);  /* room 0 */
    expect_refused(5, 16, 0);  /* from 0 */
    expect_refused(5, 24, 4);  /* to before from */
}

static void test_nothing_may_stand_behind_a_body(void **state)
{
    (void)state;
    for (size_t i = 0; i < KINDS_OF_RECORD; i++) {
        struct log_record record = some_record(i), back;
        size_t len = log_record_encode(&record, buffer, sizeof(buffer));

        buffer[len] = 0;
        seal(buffer, len + 1);
        assert_int_equal(log_record_decode(buffer, len + 1, &back), -EILSEQ);
        if (len > LOG_FRAME_BYTES) {
            seal(buffer, len - 1);
            assert_int_equal(log_record_decode(buffer, len - 1, &back), -EILSEQ);
        }
    }
}

static void expect_trees_refused(const uint64_t *sizes, uint32_t n, uint64_t count)
{
    struct log_record record = a_room(), back;

    record.room.n_trees = n;
    record.room.count = count;
    for (uint32_t i = 0; i < n; i++)
        record.room.trees[i].size = sizes[i];
    size_t len = log_record_encode(&record, buffer, sizeof(buffer));
    assert_true(len > 0);
    assert_int_equal(log_record_decode(buffer, len, &back), -EILSEQ);
}

static void test_trees_must_be_the_digits_of_the_count(void **state)
{
    (void)state;
    expect_trees_refused((uint64_t[]){0}, 1, 0);
    expect_trees_refused((uint64_t[]){2}, 1, 2);
    expect_trees_refused((uint64_t[]){3, 1}, 2, 4);
    expect_trees_refused((uint64_t[]){1, 1, 1}, 3, 3);
    expect_trees_refused((uint64_t[]){1, 3, 3}, 3, 7);
    expect_trees_refused((uint64_t[]){7}, 1, 8);
    expect_trees_refused((uint64_t[]){UINT64_MAX, UINT64_MAX}, 2, UINT64_MAX - 1);
}

/* ---- the chain -------------------------------------------------------------------------- */

enum { CHAIN = 100000 };

/* Each record's jump after Myers, by its ancestors' depths alone; nothing in it knows of trees. */
static uint64_t myers_jump[CHAIN + 1];

static void make_myers_jumps(void)
{
    for (uint64_t i = 2; i <= CHAIN; i++) {
        uint64_t parent = i - 1, jump = myers_jump[parent];

        /* Depth is i; 0 is the end of the chain, its own jump. */
        myers_jump[i] = parent - jump == jump - myers_jump[jump] ? myers_jump[jump] : parent;
    }
}

/* A count's trees, as the digits of the number say. */
static uint32_t naive_sizes(uint64_t count, uint64_t sizes[LOG_TREES_MAX])
{
    uint64_t greatest_first[LOG_TREES_MAX];
    uint32_t n = 0;

    for (uint64_t size = (UINT64_C(1) << 40) - 1; size; size /= 2)
        for (; size <= count; count -= size)
            greatest_first[n++] = size;
    for (uint32_t i = 0; i < n; i++)
        sizes[i] = greatest_first[n - 1 - i];
    return n;
}

static void test_trees_and_jumps(void **state)
{
    (void)state;
    struct log_tree trees[LOG_TREES_MAX] = {{0}};
    uint32_t n_trees = 0;

    make_myers_jumps();
    assert_int_equal(log_jump_count(0), 0);
    for (uint64_t count = 1; count <= CHAIN; count++) {
        uint64_t sizes[LOG_TREES_MAX], newest = count;

        log_trees_add(trees, &n_trees, 64 * count, 3 * count, (int64_t)(7 * count));
        assert_int_equal(n_trees, naive_sizes(count, sizes));
        for (uint32_t i = 0; i < n_trees; i++) {
            assert_int_equal(trees[i].size, sizes[i]);
            assert_int_equal(trees[i].root, 64 * newest);
            assert_int_equal(trees[i].number, 3 * newest);
            assert_int_equal(trees[i].time_ns, 7 * newest);
            newest -= sizes[i];
        }
        assert_int_equal(newest, 0);
        assert_int_equal(log_jump_count(count), myers_jump[count]);
        assert_int_equal(log_jump_count(count), n_trees > 1 ? trees[1].root / 64 : 0);
    }
}

static void test_jumps_of_great_counts(void **state)
{
    (void)state;
    assert_true(log_jump_count(UINT64_MAX) == 0);
    assert_true(log_jump_count(UINT64_MAX - 1) == UINT64_MAX / 2);
    assert_true(log_jump_count((UINT64_C(1) << 63) - 1) == 0);
    assert_true(log_jump_count(UINT64_C(1) << 63) == (UINT64_C(1) << 63) - 1);
}

/* From any record to any older one by back and jump: O(log n). */
static void test_every_record_is_near(void **state)
{
    (void)state;
    unsigned most = 0;

    make_myers_jumps();
    for (uint64_t from = 1; from <= CHAIN; from += 997) {
        for (uint64_t to = 1; to <= from; to += 311) {
            unsigned steps = 0;

            for (uint64_t at = from; at != to; steps++)
                at = log_jump_count(at) >= to ? log_jump_count(at) : at - 1;
            if (steps > most)
                most = steps;
        }
    }
    assert_in_range(most, 10, 3 * 17);
}

/* ---- header and names ------------------------------------------------------------------- */

static void test_header(void **state)
{
    (void)state;
    struct log_header header = {1, 15, 0x1a0000, 64 << 20, INT64_C(1795489200000000001)};
    struct log_header back = {0};
    char bytes[LOG_HEADER_BYTES];

    log_header_encode(&header, bytes);
    assert_int_equal(log_header_decode(bytes, sizeof(bytes), &back), 0);
    assert_memory_equal(&header, &back, sizeof(header));
    for (size_t len = 0; len < sizeof(bytes); len++)
        assert_int_equal(log_header_decode(bytes, len, &back), -EILSEQ);
    for (size_t bit = 0; bit < 8 * sizeof(bytes); bit++) {
        bytes[bit / 8] = (char)(bytes[bit / 8] ^ 1 << bit % 8);
        assert_int_equal(log_header_decode(bytes, sizeof(bytes), &back), -EILSEQ);
        bytes[bit / 8] = (char)(bytes[bit / 8] ^ 1 << bit % 8);
    }
}

static void expect_header_refused(struct log_header header, int result)
{
    struct log_header back = {.partition = 77};
    char bytes[LOG_HEADER_BYTES];

    log_header_encode(&header, bytes);
    assert_int_equal(log_header_decode(bytes, sizeof(bytes), &back), result);
    assert_int_equal(back.partition, 77);
}

static void test_header_contents(void **state)
{
    (void)state;
    expect_header_refused((struct log_header){2, 0, 0, 1 << 20, 0}, -ENOTSUP);
    expect_header_refused((struct log_header){0, 0, 0, 1 << 20, 0}, -ENOTSUP);
    expect_header_refused((struct log_header){1, 100, 0, 1 << 20, 0}, -EILSEQ);
    expect_header_refused((struct log_header){1, 0, 0, 63, 0}, -EILSEQ);
    expect_header_refused((struct log_header){1, 0, INT64_MAX, 64, 0}, -EILSEQ);
    expect_header_refused((struct log_header){1, 0, UINT64_MAX, 64, 0}, -EILSEQ);
    expect_header_refused((struct log_header){1, 0, 0, UINT64_MAX, 0}, -EILSEQ);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "03-00000000001a0000",
        "03-00000000001a0000.segmen",
        "03-00000000001a0000.segments",
        "03-00000000001A0000.segment",
        "3-00000000001a0000.segment",
        "0a-00000000001a0000.segment",
        "03_00000000001a0000.segment",
        "03-0000000000 a0000.segment",
        "03-00000000001a000.segment",
        "03-00000000001a00000.segment",
        " 3-00000000001a0000.segment",
        "16-00000000001a0000.segment",
        "99-00000000001a0000.segment",
    };
    char name[LOG_NAME_BYTES];
    uint32_t partition = 0;
    uint64_t base = 0;

    log_segment_name(3, 0x1a0000, name);
    assert_string_equal(name, "03-00000000001a0000.segment");
    assert_int_equal(log_segment_parse((struct roda_str){name, strlen(name)}, &partition, &base),
                     0);
    assert_true(partition == 3 && base == 0x1a0000);
    log_segment_name(15, INT64_MAX, name);
    assert_string_equal(name, "15-7fffffffffffffff.segment");
    assert_int_equal(log_segment_parse((struct roda_str){name, strlen(name)}, &partition, &base),
                     0);
    assert_true(partition == 15 && base == INT64_MAX);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        assert_int_equal(log_segment_parse((struct roda_str){wrong[i], strlen(wrong[i])},
                                           &partition, &base),
                         -EINVAL);
    assert_true(partition == 15 && base == INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_checksum_is_crc32c),
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_message),
        cmocka_unit_test(test_void),
        cmocka_unit_test(test_end_and_open),
        cmocka_unit_test(test_bytes_behind_a_record_do_not_matter),
        cmocka_unit_test(test_empty_texts),
        cmocka_unit_test(test_64_kilobytes_of_text_fit),
        cmocka_unit_test(test_what_does_not_fit_is_not_written),
        cmocka_unit_test(test_longest_record),
        cmocka_unit_test(test_too_long_for_its_length),
        cmocka_unit_test(test_most_tags_and_trees),
        cmocka_unit_test(test_each_flipped_bit_is_seen),
        cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_zeros_are_damage),
        cmocka_unit_test(test_contents_are_checked),
        cmocka_unit_test(test_nothing_may_stand_behind_a_body),
        cmocka_unit_test(test_trees_must_be_the_digits_of_the_count),
        cmocka_unit_test(test_trees_and_jumps),
        cmocka_unit_test(test_jumps_of_great_counts),
        cmocka_unit_test(test_every_record_is_near),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_header_contents),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
