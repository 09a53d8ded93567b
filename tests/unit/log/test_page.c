/* One page of a room's past, looked for in a log that stands in memory, behind a
 * partition_read_back() that counts. Every answer is compared with what a plain
 * list of the records says. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition.h"
#include "testhost.h"

enum { ROOMS = 3, RECORDS = 5000, SEGMENTS = 4096, METRICS = 32, PAGE = 64 };

struct said {
    uint64_t position, number;
    int64_t time_ns;
    uint32_t bytes;
    uint32_t damaged;
};

static struct testhost *host;
static struct partition partition;
static struct log_room *rooms[ROOMS];
static struct said said[ROOMS][RECORDS];
static size_t n_said[ROOMS];
static char *store; /* positions are places here */
static size_t store_len, store_room;
static uint64_t segment_bytes;
static uint64_t synced;  /* positions below are on disk */
static uint64_t reads;   /* so far */
static uint64_t no_file; /* positions below have none, though the segment is listed */
static int read_error;   /* of the reads that follow */
static uint64_t random_state;

static uint64_t any(uint64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % n;
}

static struct roda_str str(const char *text)
{
    return (struct roda_str){text, strlen(text)};
}

/* ---- what history.c asks of others ------------------------------------------------------ */

struct asked {
    struct roda_item item;
    uint32_t room;
    uint64_t position;
    partition_read_fn *fn;
    void *arg;
};

struct log_segment *partition_segment(struct partition *p, uint64_t position)
{
    struct log_segment *found = NULL;

    for (uint32_t i = 0; i < p->n_segments && p->segments[i].base <= position; i++)
        found = &p->segments[i];
    return found;
}

uint64_t partition_synced(const struct partition *p)
{
    (void)p;
    return synced;
}

/* The newest record of the room before a damaged one. 0: none. */
static uint64_t before(uint32_t room, uint64_t position)
{
    for (size_t i = n_said[room - 1]; i--;) {
        const struct said *s = &said[room - 1][i];
        if (s->position < position && !s->damaged && s->position >= partition.segments[0].base)
            return s->position;
    }
    return 0;
}

static void answer_read(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct asked asked = *(struct asked *)(void *)item;
    static struct log_record record;

    roda_free(x, item);
    if (!result)
        result = read_error;
    if (!result && (asked.position < no_file || !partition_segment(&partition, asked.position)))
        result = -ENOENT;
    if (!result) {
        assert_true(asked.position < store_len);
        result = log_record_decode(store + asked.position, store_len - asked.position, &record);
        uint64_t instead = result ? before(asked.room, asked.position) : 0;
        if (result && !instead)
            result = -ENOENT;
        else if (result)
            result = log_record_decode(store + instead, store_len - instead, &record);
    }
    asked.fn(&partition, asked.arg, result ? NULL : &record, result);
}

int partition_read_back(struct partition *p, uint32_t room, uint64_t position,
                        partition_read_fn *fn, void *arg)
{
    struct asked *asked = roda_alloc(p->x, sizeof(*asked));

    if (!asked)
        return -ENOMEM;
    asked->item.run = answer_read;
    asked->room = room;
    asked->position = position;
    asked->fn = fn;
    asked->arg = arg;
    reads++;
    roda_post(p->x, p->x->worker, &asked->item);
    return 0;
}

/* ---- the log ---------------------------------------------------------------------------- */

static struct log_segment segments[SEGMENTS];

static void put(const struct log_record *record)
{
    if (store_room - store_len < LOG_RECORD_MAX + segment_bytes) {
        store_room = store_room * 2 + LOG_RECORD_MAX + segment_bytes;
        store = realloc(store, store_room);
        assert_non_null(store);
    }
    size_t len = log_record_encode(record, store + store_len, LOG_RECORD_MAX);
    assert_true(len > 0);
    store_len += len;
    partition.segments[partition.n_segments - 1].bytes =
        store_len - partition.segments[partition.n_segments - 1].base;
}

static void begin_segment(void)
{
    assert_true(partition.n_segments < SEGMENTS);
    if (partition.n_segments) {
        uint64_t end = partition.segments[partition.n_segments - 1].base + segment_bytes;
        if (end > store_len)
            memset(store + store_len, 0, end - store_len);
        store_len = end > store_len ? end : store_len;
    }
    partition.segments[partition.n_segments++] =
        (struct log_segment){.base = store_len, .bytes = LOG_HEADER_BYTES};
    if (!store) {
        store_room = 1 << 20;
        store = malloc(store_room);
        assert_non_null(store);
    }
    memset(store + store_len, 0, LOG_HEADER_BYTES);
    store_len += LOG_HEADER_BYTES;
}

static void say(size_t i, uint64_t number, int64_t time_ns, size_t text_len)
{
    static struct log_record record;
    static char text[64 << 10];
    struct log_room *room = rooms[i];
    struct log_segment *tail = &partition.segments[partition.n_segments - 1];

    if (!*text)
        memset(text, 'x', sizeof(text));
    if (tail->bytes + text_len > segment_bytes - 1024 && tail->bytes > segment_bytes / 2)
        begin_segment();
    memset(&record, 0, sizeof(record));
    record.type = LOG_MESSAGE;
    record.message = (struct log_message){.room = room->id,
                                          .kind = RODA_TEXT,
                                          .epoch = room->epoch,
                                          .number = number,
                                          .prev = number - 1,
                                          .time_ns = time_ns,
                                          .to = log_room_name(room),
                                          .text = {text, text_len}};
    log_room_pointers(room, &record.message);
    struct said *s = &said[i][n_said[i]++];
    *s = (struct said){.position = store_len, .number = number, .time_ns = time_ns};
    put(&record);
    s->bytes = (uint32_t)(store_len - s->position);
    assert_int_equal(log_room_append(partition.x, room, s->position, room->epoch, number, time_ns),
                     0);
    synced = store_len;
}

/* n messages in all, room by chance; numbers with holes, times that stand still for a while. */
static void fill(size_t n, size_t text_max)
{
    uint64_t number[ROOMS] = {0};
    int64_t now = 1000;

    begin_segment();
    for (size_t k = 0; k < n; k++) {
        size_t i = any(10) < 8 ? 0 : 1 + any(ROOMS - 1);
        number[i] += any(8) ? 1 : 1 + any(20);
        now += any(3) ? 0 : (int64_t)any(1000);
        say(i, number[i], now, any(text_max + 1));
    }
}

static struct roda_plugin plugin;

static void open_log(uint64_t seed, uint64_t bytes)
{
    static const char *const names[ROOMS] = {"lobby", "ops", "a/b"};
    static struct roda_metric metrics[METRICS + 1];
    static char metric_names[METRICS][16];

    random_state = seed * 0x9e3779b97f4a7c15u + 1;
    segment_bytes = bytes;
    for (size_t i = 0; i < METRICS; i++) {
        (void)snprintf(metric_names[i], sizeof(metric_names[i]), "metric_%zu", i);
        metrics[i] = (struct roda_metric){metric_names[i], RODA_COUNTER, "one of the log's"};
    }
    plugin = (struct roda_plugin){.abi = RODA_ABI,
                                  .size = sizeof(plugin),
                                  .name = "log",
                                  .summary = "a part of it",
                                  .version = "0",
                                  .option_size = sizeof(struct roda_option),
                                  .metric_size = sizeof(struct roda_metric),
                                  .protocol_size = sizeof(struct roda_protocol),
                                  .service_size = sizeof(struct roda_service_table),
                                  .metrics = metrics};
    host = testhost_new(1);
    assert_int_equal(testhost_load(host, &plugin, NULL), 0);
    assert_int_equal(testhost_start(host), 0);
    partition = (struct partition){.x = testhost_ctx(host, "log", 0),
                                   .state = PARTITION_READY,
                                   .segments = segments};
    for (size_t i = 0; i < ROOMS; i++) {
        rooms[i] = log_rooms_add(partition.x, &partition.rooms, 0, str(names[i]), str(names[i]));
        assert_non_null(rooms[i]);
        rooms[i]->epoch = 7 + i;
        n_said[i] = 0;
    }
    store_len = 0;
    reads = no_file = 0;
    read_error = 0;
}

static void close_log(void)
{
    log_rooms_clear(partition.x, &partition.rooms);
    memset(rooms, 0, sizeof(rooms));
    assert_int_equal(testhost_stop(host), 0);
    testhost_free(host);
    free(store);
    store = NULL;
}

/* ---- asking ----------------------------------------------------------------------------- */

struct page {
    struct history_ask ask;
    uint32_t calls;
    int result;
    uint64_t numbers[PAGE];
    int64_t times[PAGE];
    uint64_t reads; /* it took */
};

static void done(struct history_ask *ask, int result)
{
    struct page *page = (struct page *)(void *)ask;
    static struct log_record record;
    size_t at = 0, n = 0;

    page->calls++;
    page->result = result;
    if (result) {
        assert_null(ask->bytes);
        return;
    }
    while (at < ask->n_bytes) {
        assert_true(n < PAGE);
        assert_int_equal(log_record_decode(ask->bytes + at, ask->n_bytes - at, &record), 0);
        assert_int_equal(record.type, LOG_MESSAGE);
        page->numbers[n] = record.message.number;
        page->times[n++] = record.message.time_ns;
        at += record.length;
    }
    assert_int_equal(n, ask->n);
    roda_free(partition.x, ask->bytes);
    ask->bytes = NULL;
}

static void ask(struct page *page, size_t room, uint32_t what, int by_time, uint32_t max,
                uint64_t from, uint64_t to)
{
    uint64_t before = reads;

    memset(page, 0, sizeof(*page));
    page->ask.p = &partition;
    page->ask.done = done;
    page->ask.query = (struct roda_history_query){.size = sizeof(struct roda_history_query),
                                                  .what = what,
                                                  .by_time = by_time != 0,
                                                  .max = max,
                                                  .from = from,
                                                  .to = to,
                                                  .room = log_room_folded(rooms[room])};
    int r = history_find(&page->ask);
    assert_int_equal(page->calls, 0);
    if (!r)
        assert_true(testhost_run(host));
    else
        page->result = r;
    assert_int_equal(page->calls, r ? 0 : 1);
    page->reads = reads - before;
}

/* ---- what is right ---------------------------------------------------------------------- */

static const struct said *kept[RECORDS]; /* of the room: neither gone, nor unshown, nor damaged */
static size_t n_kept;

static void look(size_t room)
{
    n_kept = 0;
    for (size_t i = 0; i < n_said[room]; i++) {
        const struct said *s = &said[room][i];
        if (s->position >= partition.segments[0].base && s->position >= rooms[room]->floor &&
            !s->damaged && s->position < synced)
            kept[n_kept++] = s;
    }
}

static uint64_t key_of(const struct said *s, int by_time)
{
    return by_time ? (uint64_t)s->time_ns : s->number;
}

/* How many of kept are not greater than key. */
static size_t up_to(uint64_t key, int by_time)
{
    size_t n = 0;

    while (n < n_kept && key_of(kept[n], by_time) <= key)
        n++;
    return n;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* The page is kept[*ret_low .. *ret_high), of what was asked: up to *ret_asked. */
static void reference(uint32_t what, int by_time, uint32_t max, uint64_t from, uint64_t to,
                      size_t *ret_low, size_t *ret_high, size_t *ret_asked)
{
    size_t low = 0, asked = n_kept, page = least(max, PAGE);

    switch (what) {
    case RODA_HISTORY_LATEST:
        asked = to ? up_to(to, by_time) : n_kept;
        low = asked > max ? asked - max : 0;
        break;
    case RODA_HISTORY_BEFORE:
        asked = from ? up_to(from - 1, by_time) : 0;
        low = asked > max ? asked - max : 0;
        break;
    case RODA_HISTORY_AFTER:
        low = up_to(from, by_time);
        break;
    case RODA_HISTORY_BETWEEN:
        low = from ? up_to(from - 1, by_time) : 0;
        asked = up_to(to, by_time);
        break;
    default: {
        size_t middle = up_to(from, by_time), half = (max + 1) / 2;
        low = middle > half ? middle - half : 0;
        asked = least(middle + max - half, n_kept);
        page = PAGE;
        break;
    }
    }
    size_t high = least(low + page, asked);
    size_t bytes = 0;
    for (size_t i = low; i < high; i++) {
        bytes += kept[i]->bytes;
        if (bytes > 64 << 10 && i > low)
            high = i;
    }
    *ret_low = low;
    *ret_high = high > low ? high : low;
    *ret_asked = asked;
}

static void check(size_t room, uint32_t what, int by_time, uint32_t max, uint64_t from, uint64_t to)
{
    static struct page page;
    size_t low, high, asked;

    look(room);
    reference(what, by_time, max, from, to, &low, &high, &asked);
    ask(&page, room, what, by_time, max, from, to);
    assert_int_equal(page.result, 0);
    assert_int_equal(page.ask.epoch, rooms[room]->epoch);
    assert_int_equal(page.ask.number, rooms[room]->number);
    assert_int_equal(page.ask.first, n_kept ? kept[0]->number : 0);
    assert_int_equal(page.ask.last, n_kept ? kept[n_kept - 1]->number : 0);
    assert_int_equal(page.ask.n, high - low);
    for (size_t i = low; i < high; i++)
        assert_int_equal(page.numbers[i - low], kept[i]->number);
    if (high > low) {
        assert_int_equal(page.ask.more, high < asked);
        assert_int_equal(page.ask.before, low ? kept[low - 1]->number : 0);
    } else {
        assert_int_equal(page.ask.more, 0);
        assert_int_equal(page.ask.before, 0);
    }
}

/* A key on, between, before and behind what is there. */
static uint64_t any_key(size_t room, int by_time)
{
    uint64_t last = 0;

    if (n_said[room])
        last = key_of(&said[room][n_said[room] - 1], by_time);
    switch (any(8)) {
    case 0:
        return 0;
    case 1:
        return last;
    case 2:
        return any(2) ? last + 1 + any(100) : UINT64_MAX;
    case 3:
        return n_said[room] ? key_of(&said[room][any(n_said[room])], by_time) : 0;
    default:
        return any(last + 2);
    }
}

static void check_some(size_t n)
{
    static const uint32_t sizes[] = {1, 2, 3, 20, 63, 64, 65, 200, 1000};

    for (size_t i = 0; i < n; i++) {
        size_t room = any(ROOMS);
        uint32_t what = RODA_HISTORY_LATEST + (uint32_t)any(5);
        uint32_t max = sizes[any(sizeof(sizes) / sizeof(*sizes))];
        int by_time = any(2) == 0;
        uint64_t from = any_key(room, by_time), to = any_key(room, by_time);
        if (what == RODA_HISTORY_BETWEEN && from > to) {
            uint64_t swap = from;
            from = to;
            to = swap;
        }
        check(room, what, by_time, max, from, to);
    }
}

/* ---- tests ------------------------------------------------------------------------------ */

static void every_question_has_the_answer_of_a_plain_list(void **state)
{
    static const size_t sizes[] = {0, 1, 2, 3, 7, 50, 64, 65, 129, 700, 5000};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        open_log(100 + i, 32 << 10);
        fill(sizes[i], 60);
        check_some(sizes[i] > 1000 ? 800 : 400);
        close_log();
    }
}

static void a_page_has_a_limit_in_bytes(void **state)
{
    (void)state;
    open_log(7, 1 << 20);
    fill(300, 20000);
    for (size_t i = 0; i < 300; i++) {
        size_t room = any(ROOMS);
        uint64_t key = any_key(room, 0);
        uint32_t what = RODA_HISTORY_LATEST + (uint32_t)any(5);
        check(room, what, 0, 1 + (uint32_t)any(100), key,
              what == RODA_HISTORY_LATEST ? key : UINT64_MAX);
    }
    /* The largest message is a page of its own. */
    uint64_t number = rooms[0]->number;
    for (uint64_t k = 1; k <= 3; k++)
        say(0, number + k, 1 << 30, 64 << 10);
    check(0, RODA_HISTORY_AFTER, 0, 64, number, 0);
    check(0, RODA_HISTORY_LATEST, 0, 3, 0, 0);
    check(0, RODA_HISTORY_BEFORE, 0, 2, number + 3, 0);
    close_log();
}

static size_t digits(size_t n)
{
    size_t d = 1;

    while (n >>= 1)
        d++;
    return d;
}

static void a_look_up_reads_little(void **state)
{
    static struct page page;
    uint64_t most[2] = {0, 0};

    (void)state;
    open_log(8, 256 << 10);
    fill(5000, 20);
    ask(&page, 0, RODA_HISTORY_LATEST, 0, 1, 0, 0);
    assert_true(page.reads <= 2 + 4 * digits(n_said[0])); /* the oldest was looked for once */
    ask(&page, 0, RODA_HISTORY_LATEST, 0, 50, 0, 0);
    assert_int_equal(page.reads, 51); /* and the one before */
    for (size_t i = 0; i < 3000; i++) {
        uint32_t what = RODA_HISTORY_LATEST + (uint32_t)any(5);
        int by_time = any(2) == 0, sides;
        uint64_t from = any_key(0, by_time);
        ask(&page, 0, what, by_time, 1 + (uint32_t)any(64), from, UINT64_MAX);
        assert_int_equal(page.result, 0);
        sides = what == RODA_HISTORY_LATEST || what == RODA_HISTORY_BEFORE ? 0 : 1;
        uint64_t steps = page.reads - least(page.reads, page.ask.n);
        if (steps > most[sides])
            most[sides] = steps;
        assert_true(page.reads <= 4 * digits(n_said[0]) + page.ask.n);
    }
    print_message("beyond the page: %u reads at most for one end, %u for two, of %u\n",
                  (unsigned)most[0], (unsigned)most[1], (unsigned)n_said[0]);
    close_log();
}

static void remove_oldest(uint32_t n)
{
    partition.n_segments -= n;
    memmove(partition.segments, partition.segments + n,
            partition.n_segments * sizeof(*partition.segments));
}

static void what_was_removed_is_not_there(void **state)
{
    static struct page page;

    (void)state;
    open_log(9, 16 << 10);
    fill(3000, 60);
    while (partition.n_segments > 1) {
        check_some(60);
        remove_oldest(1 + (uint32_t)any(partition.n_segments > 8 ? 6 : 1));
    }
    check_some(100);
    /* A room of which nothing is left is still known. */
    begin_segment();
    remove_oldest(1);
    check_some(60);
    ask(&page, 0, RODA_HISTORY_LATEST, 0, 10, 0, 0);
    assert_int_equal(page.result, 0);
    assert_int_equal(page.ask.n, 0);
    assert_int_equal(page.ask.first, 0);
    assert_true(page.ask.number > 0);
    close_log();
}

static void what_others_said_among_themselves_is_not_there(void **state)
{
    static struct page page;

    (void)state;
    open_log(12, 16 << 10);
    fill(3000, 60);
    check_some(20); /* the oldest is known now */
    for (size_t i = 0; i < ROOMS; i++) {
        rooms[i]->closed = said[i][any(n_said[i] / 2)].position;
        assert_int_equal(rooms[i]->floor, 0); /* somebody of them is still there */
    }
    check_some(20);
    for (unsigned round = 0; round < 4; round++) {
        for (size_t i = 0; i < ROOMS; i++) {
            log_room_vacate(rooms[i]);
            look(i);
            assert_true(n_kept && kept[0]->position > rooms[i]->closed);
            rooms[i]->closed = kept[n_kept / 2]->position;
        }
        check_some(60);
        remove_oldest(3);
        check_some(60);
    }
    rooms[0]->closed = said[0][n_said[0] - 1].position;
    log_room_vacate(rooms[0]);
    ask(&page, 0, RODA_HISTORY_LATEST, 0, 10, 0, 0);
    assert_int_equal(page.result, 0);
    assert_int_equal(page.ask.n, 0);
    assert_int_equal(page.ask.more, 0);
    close_log();
}

static void a_segment_may_go_meanwhile(void **state)
{
    (void)state;
    open_log(10, 16 << 10);
    fill(3000, 60);
    check_some(20); /* the oldest is known now */
    assert_true(partition.n_segments > 5);
    for (uint32_t gone = 1; gone < 4; gone++) {
        static struct page page;
        no_file = partition.segments[gone].base;
        look(0);
        size_t first = 0;
        while (kept[first]->position < no_file)
            first++;
        for (size_t i = 0; i < 50; i++) {
            uint64_t from = any(kept[first]->number);
            ask(&page, 0, RODA_HISTORY_AFTER, 0, 10, from, 0);
            assert_int_equal(page.result, 0);
            assert_int_equal(page.ask.n, 10);
            assert_int_equal(page.numbers[0], kept[first]->number);
            assert_int_equal(page.ask.before, 0);
            ask(&page, 0, RODA_HISTORY_BEFORE, 0, 10, kept[first + 3]->number, 0);
            assert_int_equal(page.ask.n, 3);
            assert_int_equal(page.ask.before, 0);
        }
    }
    close_log();
}

static void what_is_not_shown_yet_is_nobody_s(void **state)
{
    static struct page page;

    (void)state;
    open_log(11, 32 << 10);
    fill(2000, 60);
    for (size_t i = 0; i < 40; i++) {
        size_t k = any(n_said[0]);
        synced =
            any(4) ? said[0][k].position + (any(2) ? said[0][k].bytes : 0) : store_len - any(2000);
        check_some(20);
    }
    synced = 0;
    check_some(20);
    ask(&page, 0, RODA_HISTORY_LATEST, 0, 10, 0, 0);
    assert_int_equal(page.ask.n, 0);
    assert_int_equal(page.ask.last, 0);
    /* Others are shown before they are on disk. */
    for (size_t i = 0; i < 40; i++) {
        size_t k = any(n_said[0]);
        rooms[0]->shown = said[0][k].number + any(2);
        ask(&page, 0, RODA_HISTORY_LATEST, 0, 1, 0, 0);
        if (k + 1 < n_said[0] && said[0][k + 1].number <= rooms[0]->shown)
            k++;
        assert_int_equal(page.numbers[0], said[0][k].number);
        assert_int_equal(page.ask.last, said[0][k].number);
        ask(&page, 0, RODA_HISTORY_AFTER, 0, 3, said[0][k].number - 1, 0);
        assert_int_equal(page.ask.n, 1);
        assert_int_equal(page.ask.more, 0);
    }
    close_log();
}

/* Reads a whole room forwards and backwards: it must be what kept[] says. */
static void check_paging(size_t room, uint32_t max)
{
    static struct page page;
    uint64_t number = 0;
    size_t n = 0;

    look(room);
    do {
        ask(&page, room, RODA_HISTORY_AFTER, 0, max, number, 0);
        assert_int_equal(page.result, 0);
        for (size_t i = 0; i < page.ask.n; i++) {
            assert_true(n < n_kept);
            assert_int_equal(page.numbers[i], kept[n++]->number);
        }
        assert_true(page.ask.n || !page.ask.more);
        if (page.ask.n)
            number = page.numbers[page.ask.n - 1];
    } while (page.ask.more);
    assert_int_equal(n, n_kept);
    ask(&page, room, RODA_HISTORY_LATEST, 0, max, 0, 0);
    while (page.ask.n) {
        assert_false(page.ask.more);
        for (size_t i = page.ask.n; i--;)
            assert_int_equal(page.numbers[i], kept[--n]->number);
        assert_int_equal(page.ask.before, n ? kept[n - 1]->number : 0);
        if (!page.ask.before)
            break;
        ask(&page, room, RODA_HISTORY_BEFORE, 0, max, page.numbers[0], 0);
        assert_int_equal(page.result, 0);
        assert_true(page.ask.n > 0);
    }
    assert_int_equal(n, 0);
}

static void hit(size_t room, size_t i)
{
    struct said *s = &said[room][i];

    if (!s->damaged)
        store[s->position + 40] ^= 4;
    s->damaged = 1;
}

static void damaged_records_cost_only_themselves(void **state)
{
    static struct page page;

    (void)state;
    for (uint64_t seed = 0; seed < 24; seed++) {
        open_log(20 + seed, 16 << 10);
        fill(1000, 60);
        /* Few, many, half of them, whole stretches. */
        for (size_t room = 0; room < ROOMS; room++) {
            for (size_t i = 0; i < n_said[room]; i++)
                if (!any(seed % 4 == 0 ? 200 : seed % 4 == 1 ? 10 : 2))
                    hit(room, i);
            size_t from = any(n_said[room]);
            for (size_t i = from; seed % 4 == 3 && i < n_said[room] && i < from + 100; i++)
                hit(room, i);
        }
        if (seed % 3 == 2)
            remove_oldest(1);
        for (size_t room = 0; room < ROOMS; room++) {
            check_paging(room, 64);
            check_paging(room, 7);
        }
        /* Whatever is asked for first is where it begins. */
        for (size_t i = 0; i < 200; i++) {
            uint64_t from = any_key(0, 0);
            look(0);
            size_t at = up_to(from, 0);
            ask(&page, 0, RODA_HISTORY_AFTER, 0, 5, from, 0);
            assert_int_equal(page.result, 0);
            assert_int_equal(page.ask.n > 0, at < n_kept);
            assert_int_equal(page.ask.first, n_kept ? kept[0]->number : 0);
            if (page.ask.n)
                assert_int_equal(page.numbers[0], kept[at]->number);
            ask(&page, 0, RODA_HISTORY_LATEST, 0, 1, 0, from);
            at = from ? at : n_kept;
            assert_int_equal(page.ask.n, at > 0);
            if (at)
                assert_int_equal(page.numbers[0], kept[at - 1]->number);
        }
        close_log();
    }
}

static void the_newest_record_may_be_damaged(void **state)
{
    static struct page page;

    (void)state;
    open_log(40, 16 << 10);
    fill(700, 60);
    hit(0, n_said[0] - 1);
    hit(0, n_said[0] - 4);
    look(0);
    for (uint32_t max = 1; max < 64; max++) {
        ask(&page, 0, RODA_HISTORY_LATEST, 0, max, 0, 0);
        assert_int_equal(page.result, 0);
        assert_in_range(page.ask.n, max > 2 ? max - 1 : max, max);
        for (size_t i = 0; i < page.ask.n; i++)
            assert_int_equal(page.numbers[i], kept[n_kept - page.ask.n + i]->number);
    }
    close_log();
}

static void errors_are_answered(void **state)
{
    static struct page page;
    uint64_t n;

    (void)state;
    open_log(80, 32 << 10);
    fill(500, 60);
    read_error = -EIO;
    ask(&page, 0, RODA_HISTORY_LATEST, 0, 10, 0, 0);
    assert_int_equal(page.result, -EIO);
    read_error = 0;
    for (n = 1; n < 1000; n++) {
        testhost_fail_allocation(host, n);
        ask(&page, 0, RODA_HISTORY_AFTER, 0, 20, 100, 0);
        testhost_fail_allocation(host, 0);
        if (!page.result)
            break;
        assert_int_equal(page.result, -ENOMEM);
    }
    assert_in_range(n, 20, 999);
    memset(&page, 0, sizeof(page));
    page.ask.p = &partition;
    page.ask.done = done;
    page.ask.query.what = RODA_HISTORY_LATEST;
    page.ask.query.max = 1;
    page.ask.query.room = str("nowhere");
    assert_int_equal(history_find(&page.ask), 0);
    assert_true(testhost_run(host));
    assert_int_equal(page.result, -ENOENT);
    partition.state = PARTITION_CLOSED;
    ask(&page, 0, RODA_HISTORY_LATEST, 0, 1, 0, 0);
    assert_int_equal(page.result, -ECANCELED);
    close_log();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_question_has_the_answer_of_a_plain_list),
        cmocka_unit_test(a_page_has_a_limit_in_bytes),
        cmocka_unit_test(a_look_up_reads_little),
        cmocka_unit_test(what_was_removed_is_not_there),
        cmocka_unit_test(what_others_said_among_themselves_is_not_there),
        cmocka_unit_test(a_segment_may_go_meanwhile),
        cmocka_unit_test(what_is_not_shown_yet_is_nobody_s),
        cmocka_unit_test(damaged_records_cost_only_themselves),
        cmocka_unit_test(the_newest_record_may_be_damaged),
        cmocka_unit_test(errors_are_answered),
    };

    return cmocka_run_group_tests_name("log/page", tests, NULL, NULL);
}
