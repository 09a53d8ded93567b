#include "shelf.h"

/* Records by position: from memory, from blocks, from files, and from none of them any more. */

static struct log_rooms rooms; /* of the broker that wrote */
static struct log_room *lobby;

static int setup(void **state)
{
    (void)state;
    shelf_open();
    lobby = log_rooms_add(partition.x, &rooms, 0, str("lobby"), str("lobby"));
    lobby->epoch = 11;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    log_rooms_clear(partition.x, &rooms);
    shelf_close();
    return 0;
}

/* ---- what was answered ------------------------------------------------------------------ */

struct question {
    uint32_t calls;
    int result;
    uint64_t number;
    size_t text_len;
    uint64_t then; /* reads on there from inside the answer */
    int then_result;
};

static void answered(struct partition *p, void *arg, const struct log_record *record, int result)
{
    struct question *q = arg;

    assert_ptr_equal(p, &partition);
    q->calls++;
    q->result = result;
    assert_true(!record == (result != 0));
    if (record && record->type == LOG_MESSAGE) {
        q->number = record->message.number;
        q->text_len = record->message.text.len;
        assert_memory_equal(record->message.to.ptr, "lobby", 5); /* the bytes are there */
        if (q->text_len)
            assert_int_equal(record->message.text.ptr[q->text_len - 1], 'x');
    }
    if (q->then) {
        uint64_t position = q->then;
        q->then = 0;
        q->then_result = partition_read(p, position, answered, q);
    }
}

static struct question ask(uint64_t position)
{
    struct question q = {.result = 1};

    assert_int_equal(partition_read(&partition, position, answered, &q), 0);
    assert_int_equal(q.calls, 0); /* never inside the call */
    assert_true(testhost_run(host));
    assert_int_equal(q.calls, 1);
    return q;
}

static void add_segment(const struct book *b)
{
    if (!partition.segments)
        partition.segments = roda_alloc(partition.x, 64 * sizeof(*partition.segments));
    assert_non_null(partition.segments);
    partition.segments[partition.n_segments++] =
        (struct log_segment){.base = b->base, .bytes = b->len};
}

static uint32_t open_files(void)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < partition.n_segments; i++)
        n += partition.segments[i].file != NULL;
    return n;
}

enum { MESSAGES = 400 };
static uint64_t positions[4 * MESSAGES + 1]; /* by number */

/* A segment of messages with texts of all lengths up to `longest`, in its file. */
static struct book *write_segment(uint64_t base, uint32_t messages, size_t longest)
{
    static char text[65000];
    struct book *b = book_open(&rooms, base);

    memset(text, 'x', sizeof(text));
    for (uint32_t i = 0; i < messages; i++) {
        size_t len = i * 7919u % longest;
        positions[lobby->number + 1] = book_say_text(b, lobby, (struct roda_str){text, len});
    }
    book_write(b);
    add_segment(b);
    return b;
}

/* Everything behind the header, as a writer does: record by record. */
static void put_some(const struct book *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t end = i + 1 < b->n ? b->at[i + 1] : b->len;
        partition_cache_put(&partition, b->base + b->at[i],
                            (struct roda_str){b->bytes + b->at[i], end - b->at[i]});
    }
}

static void put_all(const struct book *b)
{
    put_some(b, b->n);
}

/* ---- from memory ------------------------------------------------------------------------ */

static void what_was_appended_comes_from_memory(void **state)
{
    struct book *b = write_segment(0, 50, 300);

    (void)state;
    testhost_file_put(host, book_path(0), "", 0); /* the file is of no use */
    put_all(b);
    for (uint64_t n = 1; n <= 50; n++) {
        struct question q = ask(positions[n]);
        assert_int_equal(q.result, 0);
        assert_int_equal(q.number, n);
        assert_int_equal(q.text_len, (n - 1) * 7919u % 300);
    }
    assert_int_equal(shelf_metric(LOG_READS), 50);
    assert_int_equal(shelf_metric(LOG_READS_CACHED), 50);
    assert_int_equal(open_files(), 0);
    book_free(b);
}

static void memory_holds_the_newest_and_files_the_rest(void **state)
{
    struct book *b = write_segment(0, MESSAGES, 5000);

    (void)state;
    assert_true(b->len > 900000);
    put_all(b);
    for (uint64_t n = MESSAGES; n > 0; n--) {
        struct question q = ask(positions[n]);
        assert_int_equal(q.result, 0);
        assert_int_equal(q.number, n);
    }
    assert_int_equal(open_files(), 1);
    /* At least 128 kB come from memory without any file; blocks then save reads going back. */
    assert_true(shelf_metric(LOG_READS_CACHED) > MESSAGES * 128 / 1000);
    assert_true(shelf_metric(LOG_READS_CACHED) < MESSAGES);
    book_free(b);
}

/* Whatever the lengths are, what memory says is what was put there. */
static void memory_is_right_for_records_of_any_length(void **state)
{
    struct book *b = write_segment(0, 60, 65000);

    (void)state;
    for (size_t i = 0; i < b->n; i++) {
        size_t end = i + 1 < b->n ? b->at[i + 1] : b->len;
        partition_cache_put(&partition, b->base + b->at[i],
                            (struct roda_str){b->bytes + b->at[i], end - b->at[i]});
        if (i > 1) /* behind the snapshot */
            assert_int_equal(ask(b->base + b->at[i]).number, i - 1);
        if (i > 2)
            assert_int_equal(ask(b->base + b->at[i - 1]).number, i - 2);
    }
    assert_int_equal(open_files(), 0);
    book_free(b);
}

/* Whoever reads then finds it in the file, and what follows in memory. */
static void what_nobody_reads_is_not_copied(void **state)
{
    struct book *b = write_segment(0, 60, 60000);
    int64_t cached;

    (void)state;
    put_all(b);
    cached = shelf_metric(LOG_READS_CACHED);
    testhost_file_put(host, book_path(0), b->bytes, b->len);
    assert_int_equal(ask(positions[60]).number, 60);
    assert_int_equal(shelf_metric(LOG_READS_CACHED), cached);
    put_some(b, 6); /* once more: now they are kept */
    assert_int_equal(ask(positions[2]).number, 2);
    assert_int_equal(shelf_metric(LOG_READS_CACHED), cached + 1);
    book_free(b);
}

static void a_jump_in_position_empties_memory(void **state)
{
    struct book *old = write_segment(0, 10, 300), *b = write_segment(SHELF_SEGMENT, 10, 300);

    (void)state;
    put_all(old);
    put_all(b);
    testhost_file_put(host, book_path(0), old->bytes, LOG_HEADER_BYTES);
    assert_int_equal(ask(positions[15]).number, 15);
    assert_int_equal(ask(positions[5]).result, -EILSEQ); /* asked the file */
    book_free(old);
    book_free(b);
}

static void many_reads_at_once_are_all_answered(void **state)
{
    static struct question q[300];
    struct book *b = write_segment(0, 50, 300);

    (void)state;
    put_all(b);
    memset(q, 0, sizeof(q));
    for (uint32_t i = 0; i < 300; i++)
        assert_int_equal(partition_read(&partition, positions[1 + i % 50], answered, &q[i]), 0);
    for (uint32_t turns = 0; !q[0].calls && turns < 10; turns++)
        (void)testhost_turn(host);
    assert_int_equal(q[0].calls, 1); /* a worker does other things between */
    assert_int_equal(q[299].calls, 0);
    assert_true(testhost_run(host));
    for (uint32_t i = 0; i < 300; i++) {
        assert_int_equal(q[i].calls, 1);
        assert_int_equal(q[i].number, 1 + i % 50);
    }
    book_free(b);
}

/* ---- from files ------------------------------------------------------------------------- */

static void each_record_of_a_file_is_found(void **state)
{
    struct book *b = write_segment(0, MESSAGES, 2000);

    (void)state;
    for (uint64_t n = 1; n <= MESSAGES; n++) {
        struct question q = ask(positions[1 + n * 7 % MESSAGES]);
        assert_int_equal(q.result, 0);
        assert_int_equal(q.number, 1 + n * 7 % MESSAGES);
    }
    assert_int_equal(ask(b->at[0]).result, 0); /* LOG_OPEN */
    book_free(b);
}

static void going_back_most_reads_need_no_file(void **state)
{
    struct book *b = write_segment(0, MESSAGES, 200);

    (void)state;
    for (uint64_t n = MESSAGES; n > 0; n--)
        assert_int_equal(ask(positions[n]).number, n);
    assert_true(shelf_metric(LOG_READS_CACHED) > MESSAGES * 9 / 10);
    book_free(b);
}

static void long_records_are_read_whole(void **state)
{
    struct book *b = write_segment(0, 30, 65000);

    (void)state;
    for (uint64_t n = 1; n <= 30; n++) {
        struct question q = ask(positions[n]);
        assert_int_equal(q.result, 0);
        assert_int_equal(q.number, n);
        assert_int_equal(q.text_len, (n - 1) * 7919u % 65000);
    }
    book_free(b);
}

/* Reading on from inside the answer, as each walk does. */
static void an_answer_may_ask_for_the_next(void **state)
{
    struct book *b = write_segment(0, 20, 300);
    struct question q = {.then = positions[3]};

    (void)state;
    assert_int_equal(partition_read(&partition, positions[19], answered, &q), 0);
    assert_true(testhost_run(host));
    assert_int_equal(q.calls, 2);
    assert_int_equal(q.number, 3);
    book_free(b);
}

static void of_many_segments_four_are_open(void **state)
{
    static struct question q[40];
    struct book *books[10];

    (void)state;
    for (uint32_t i = 0; i < 10; i++)
        books[i] = write_segment((uint64_t)i * SHELF_SEGMENT, 40, 2000);
    memset(q, 0, sizeof(q));
    for (uint32_t i = 0; i < 40; i++) /* of each segment four at once */
        assert_int_equal(partition_read(&partition, positions[1 + i * 10], answered, &q[i]), 0);
    uint32_t most = 0;
    while (testhost_turn(host))
        most = open_files() > most ? open_files() : most;
    assert_int_equal(most, 4);
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(q[i].calls, 1);
        assert_int_equal(q[i].result, 0);
        assert_int_equal(q[i].number, 1 + i * 10);
    }
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(partition.segments[i].readers, 0);
        assert_int_equal(partition.segments[i].opening, 0);
        book_free(books[i]);
    }
    /* The one that is unused for longest goes. */
    testhost_advance_ms(host, 10);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(ask(positions[1 + i * 40 + 20]).number, 1 + i * 40 + 20);
        testhost_advance_ms(host, 10);
    }
    for (uint32_t i = 0; i < 10; i++)
        assert_true(!partition.segments[i].file == (i < 1 || i > 4));
}

/* An open takes its time: who asks meanwhile waits for the same one. */
static void several_wait_for_one_open(void **state)
{
    struct book *b = write_segment(0, 20, 300);
    struct question q[5] = {{0}};

    (void)state;
    testhost_hold_files(host, true);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(partition_read(&partition, positions[1 + i], answered, &q[i]), 0);
        for (uint32_t turns = 0; turns < 5; turns++)
            (void)testhost_turn(host);
        assert_int_equal(partition.segments[0].opening, 1);
    }
    testhost_hold_files(host, false);
    assert_true(testhost_run(host));
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(q[i].calls, 1);
        assert_int_equal(q[i].number, 1 + i);
    }
    assert_int_equal(open_files(), 1);
    book_free(b);
}

/* Four are in use and stay so: what is in memory is answered all the same. */
static void memory_does_not_wait_for_files(void **state)
{
    static struct question q[7];
    struct book *books[7];

    (void)state;
    memset(q, 0, sizeof(q));
    for (uint32_t i = 0; i < 7; i++)
        books[i] = write_segment((uint64_t)i * SHELF_SEGMENT, 40, 300);
    put_all(books[6]);
    testhost_hold_files(host, true);
    for (uint32_t i = 0; i < 7; i++)
        assert_int_equal(partition_read(&partition, positions[40 * i + 9], answered, &q[i]), 0);
    for (uint32_t turns = 0; turns < 5; turns++)
        (void)testhost_turn(host);
    assert_int_equal(q[6].calls, 1);
    assert_int_equal(q[6].number, 249);
    assert_int_equal(q[0].calls + q[5].calls, 0);
    testhost_hold_files(host, false);
    assert_true(testhost_run(host));
    for (uint32_t i = 0; i < 7; i++) {
        assert_int_equal(q[i].calls, 1);
        assert_int_equal(q[i].number, 40 * i + 9);
        book_free(books[i]);
    }
}

/* ---- the tail --------------------------------------------------------------------------- */

static struct roda_file *tail;

static void tail_opened(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    (void)x;
    (void)arg;
    assert_int_equal(result, 0);
    tail = file;
}

static void the_tail_is_read_through_its_own_file(void **state)
{
    struct book *b = write_segment(0, 40, 300);
    size_t written = b->at[20];

    (void)state;
    book_write_part(b, written);
    assert_int_equal(roda_file_open(partition.x, book_path(0), RODA_FILE_READ | RODA_FILE_APPEND,
                                    tail_opened, NULL),
                     0);
    assert_true(testhost_run(host));
    partition_tail_file(&partition, tail);
    assert_int_equal(roda_file_append(tail,
                                      (struct roda_str){b->bytes + written, b->len - written}),
                     (int64_t)written);
    assert_int_equal(ask(positions[40]).number, 40);
    assert_int_equal(ask(positions[1]).number, 1);
    assert_int_equal(open_files(), 0);
    /* The next segment has begun, and this one is not all written. */
    struct book *next = write_segment(SHELF_SEGMENT, 3, 300);
    partition_cache_free(&partition);
    partition_tail_file(&partition, NULL);
    partition_old_file(&partition, tail);
    assert_int_equal(ask(positions[39]).number, 39);
    assert_int_equal(open_files(), 0);
    assert_int_equal(ask(positions[42]).number, 42);
    assert_int_equal(open_files(), 1);
    book_free(next);
    partition_old_file(&partition, NULL);
    roda_file_close(tail);
    assert_true(testhost_run(host));
    assert_int_equal(ask(positions[30]).number, 30);
    book_free(b);
}

/* ---- what is not there ------------------------------------------------------------------ */

static void what_is_gone_is_said_to_be_gone(void **state)
{
    struct book *b = write_segment(5 * SHELF_SEGMENT, 10, 300);

    (void)state;
    assert_int_equal(ask(0).result, -ENOENT);
    assert_int_equal(ask(4 * SHELF_SEGMENT + 100).result, -ENOENT);
    assert_int_equal(ask(positions[4]).number, 4);
    partition.n_segments = 0;
    roda_file_close(partition.segments[0].file);
    assert_int_equal(ask(positions[9] + SHELF_SEGMENT).result, -ENOENT);
    assert_int_equal(testhost_log_lines(host), 0);
    book_free(b);
}

/* Retention is faster than an open. */
static void a_segment_may_go_while_it_is_opened(void **state)
{
    struct book *b = write_segment(0, 10, 300);
    struct question q = {0};

    (void)state;
    testhost_hold_files(host, true);
    assert_int_equal(partition_read(&partition, positions[4], answered, &q), 0);
    for (uint32_t turns = 0; turns < 5; turns++)
        (void)testhost_turn(host);
    assert_int_equal(partition.segments[0].opening, 1);
    partition.n_segments = 0;
    testhost_hold_files(host, false);
    assert_true(testhost_run(host));
    assert_int_equal(q.calls, 1);
    assert_int_equal(q.result, -ENOENT);
    book_free(b);
}

static void a_file_that_was_taken_away_is_gone(void **state)
{
    struct book *b = book_open(&rooms, 0);

    (void)state;
    add_segment(b); /* never written */
    assert_int_equal(ask(b->at[0]).result, -ENOENT);
    book_free(b);
}

static void a_damaged_record_is_reported_once(void **state)
{
    struct book *b = write_segment(0, 10, 300);

    (void)state;
    b->bytes[positions[5] + 20] ^= 1;
    book_write(b);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask(positions[5]).result, -EILSEQ);
    assert_int_equal(testhost_log_lines(host), 1);
    assert_true(testhost_logged(host, "it is damaged"));
    assert_int_equal(ask(positions[4]).number, 4);
    assert_int_equal(ask(positions[6]).number, 6);
    assert_int_equal(ask(positions[6] + 1).result, -EILSEQ); /* not where a record begins */
    assert_int_equal(ask(10).result, -EILSEQ);               /* inside the header */
    assert_int_equal(ask(b->len).result, -EILSEQ);           /* behind the end */
    assert_int_equal(testhost_log_lines(host), 4);
    book_free(b);
}

static struct question ask_back(uint64_t position)
{
    struct question q = {.result = 1};

    assert_int_equal(partition_read_back(&partition, lobby->id, position, answered, &q), 0);
    assert_int_equal(q.calls, 0);
    assert_true(testhost_run(host));
    assert_int_equal(q.calls, 1);
    return q;
}

static void damage(struct book *b, uint64_t from, uint64_t to)
{
    for (uint64_t n = from; n <= to; n++)
        b->bytes[positions[n] - b->base + 20] ^= 1;
    book_write(b);
    partition_cache_free(&partition); /* blocks know it as it was */
}

/* One record or many, over several windows: the newest one before them is found. */
static void behind_a_damaged_record_the_one_before_is_found(void **state)
{
    struct book *b = write_segment(0, MESSAGES, 5000);
    struct log_room *other = log_rooms_add(partition.x, &rooms, 0, str("other"), str("other"));

    (void)state;
    assert_int_equal(ask_back(positions[7]).number, 7); /* nothing to look for */
    damage(b, 301, 301);
    assert_int_equal(ask_back(positions[301]).number, 300);
    assert_int_equal(ask(positions[301]).result, -EILSEQ);
    damage(b, 20, 300); /* 700 kB */
    assert_int_equal(ask_back(positions[301]).number, 19);
    assert_int_equal(ask_back(positions[20]).number, 19);
    damage(b, 1, 19);
    assert_int_equal(ask_back(positions[301]).result, -ENOENT); /* the snapshot: there is none */
    memset(b->bytes + positions[310], 0x33, 5);
    b->bytes[positions[311] + 9] = 1;
    book_write(b);
    struct question q = {.result = 1};
    assert_int_equal(partition_read_back(&partition, other->id, positions[311], answered, &q), 0);
    assert_true(testhost_run(host));
    assert_int_equal(q.result, -ENOENT); /* never of another room */
    book_free(b);
}

static void looking_back_goes_on_in_older_segments(void **state)
{
    struct book *books[3];

    (void)state;
    for (uint32_t i = 0; i < 3; i++)
        books[i] = write_segment((uint64_t)i * SHELF_SEGMENT, 40, 300);
    damage(books[2], 81, 90);
    assert_int_equal(ask_back(positions[90]).number, 80); /* as the snapshot says */
    damage(books[1], 70, 80);
    assert_int_equal(ask_back(positions[90]).number, 69); /* and on from there */
    books[2]->bytes[books[2]->at[0] + 20] ^= 1;           /* its LOG_ROOM */
    book_write(books[2]);
    assert_int_equal(ask_back(positions[90]).number, 69);
    books[1]->bytes[books[1]->at[0] + 20] ^= 1;
    damage(books[1], 41, 69);
    assert_int_equal(ask_back(positions[90]).number, 40);
    partition.segments++; /* the oldest one is gone */
    partition.n_segments--;
    assert_int_equal(ask_back(positions[90]).result, -ENOENT);
    partition.segments--;
    partition.n_segments++;
    for (uint32_t i = 0; i < 3; i++)
        book_free(books[i]);
}

/* A room that is described in the middle of a segment: its newest record is then in there. */
static void looking_back_is_not_ended_by_a_later_description(void **state)
{
    struct book *first = write_segment(0, 40, 300), *b = book_open(&rooms, SHELF_SEGMENT);

    (void)state;
    for (uint64_t n = 41; n <= 50; n++)
        positions[n] = book_say(b, lobby);
    book_room(b, lobby);
    positions[51] = book_say(b, lobby);
    add_segment(b);
    damage(b, 41, 51);
    assert_int_equal(ask_back(positions[51]).number, 40);
    book_free(first);
    book_free(b);
}

static void a_record_that_is_cut_off_is_damaged(void **state)
{
    struct book *b = write_segment(0, 10, 65000);

    (void)state;
    for (uint64_t n = 9; n <= 10; n++)
        for (size_t less = 1; less < 60; less += 7) {
            book_write_part(b, (n < 10 ? positions[n + 1] : b->len) - less);
            assert_int_equal(ask(positions[n]).result, -EILSEQ);
            partition_cache_free(&partition); /* else blocks know it */
        }
    book_free(b);
}

/* ---- the end, and trouble --------------------------------------------------------------- */

static void at_the_end_each_read_is_cancelled_once(void **state)
{
    static struct question q[8];
    struct book *books[6];

    (void)state;
    for (uint32_t i = 0; i < 6; i++)
        books[i] = write_segment((uint64_t)i * SHELF_SEGMENT, 40, 2000);
    damage(books[0], 1, 1); /* looked back from */
    for (uint32_t turns = 0; turns < 12; turns++) {
        memset(q, 0, sizeof(q));
        for (uint32_t i = 0; i < 8; i++) {
            q[i].then = positions[7]; /* asks again: it is refused */
            assert_int_equal(partition_read_back(&partition, lobby->id, positions[1 + i * 30],
                                                 answered, &q[i]),
                             0);
        }
        for (uint32_t i = 0; i < turns; i++)
            (void)testhost_turn(host);
        partition_cache_free(&partition);
        assert_null(partition.reading);
        assert_int_equal(open_files(), 0);
        for (uint32_t i = 0; i < 8; i++) {
            assert_true(q[i].calls > 0);
            if (q[i].result == -ECANCELED && q[i].calls == 1)
                assert_int_equal(q[i].then_result, -ECANCELED);
        }
        uint32_t before = 0, after = 0;
        for (uint32_t i = 0; i < 8; i++)
            before += q[i].calls;
        assert_true(testhost_run(host));
        for (uint32_t i = 0; i < 8; i++)
            after += q[i].calls;
        assert_int_equal(before, after);
    }
    for (uint32_t i = 0; i < 6; i++)
        book_free(books[i]);
}

static void an_answer_ends_all(struct partition *p, void *arg, const struct log_record *record,
                               int result)
{
    answered(p, arg, record, result);
    partition_cache_free(p);
}

static void an_answer_may_end_all(void **state)
{
    struct book *b = write_segment(0, 20, 300);

    (void)state;
    for (int cached = 0; cached < 2; cached++) {
        struct question first = {0}, second = {0};
        if (cached)
            put_all(b);
        assert_int_equal(partition_read(&partition, positions[2], an_answer_ends_all, &first), 0);
        assert_int_equal(partition_read(&partition, positions[3], answered, &second), 0);
        assert_true(testhost_run(host));
        assert_int_equal(first.calls, 1);
        assert_int_equal(first.result, 0);
        assert_int_equal(second.calls, 1);
        assert_int_equal(second.result, -ECANCELED);
    }
    book_free(b);
}

static void without_memory_each_read_is_answered_all_the_same(void **state)
{
    struct book *b = write_segment(0, 20, 30000);
    uint32_t failed = 1;

    (void)state;
    for (uint64_t n = 1; failed; n++) {
        struct question q[3] = {{0}};
        int r[3];
        failed = 0;
        testhost_fail_allocation(host, n);
        put_all(b);
        for (uint32_t i = 0; i < 3; i++)
            r[i] = partition_read(&partition, positions[1 + i * 6], answered, &q[i]);
        assert_true(testhost_run(host));
        testhost_fail_allocation(host, 0);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(q[i].calls, r[i] ? 0 : 1);
            failed |= r[i] || q[i].result;
            if (r[i] || q[i].result)
                assert_int_equal(r[i] ? r[i] : q[i].result, -ENOMEM);
            else
                assert_int_equal(q[i].number, 1 + i * 6);
        }
        failed |= n < 12; /* some failures only make it slower */
        partition_cache_free(&partition);
        assert_true(testhost_run(host));
    }
    book_free(b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_appended_comes_from_memory),
        TEST(memory_holds_the_newest_and_files_the_rest),
        TEST(memory_is_right_for_records_of_any_length),
        TEST(what_nobody_reads_is_not_copied),
        TEST(a_jump_in_position_empties_memory),
        TEST(many_reads_at_once_are_all_answered),
        TEST(each_record_of_a_file_is_found),
        TEST(going_back_most_reads_need_no_file),
        TEST(long_records_are_read_whole),
        TEST(an_answer_may_ask_for_the_next),
        TEST(of_many_segments_four_are_open),
        TEST(several_wait_for_one_open),
        TEST(memory_does_not_wait_for_files),
        TEST(the_tail_is_read_through_its_own_file),
        TEST(what_is_gone_is_said_to_be_gone),
        TEST(a_segment_may_go_while_it_is_opened),
        TEST(a_file_that_was_taken_away_is_gone),
        TEST(a_damaged_record_is_reported_once),
        TEST(behind_a_damaged_record_the_one_before_is_found),
        TEST(looking_back_goes_on_in_older_segments),
        TEST(looking_back_is_not_ended_by_a_later_description),
        TEST(a_record_that_is_cut_off_is_damaged),
        TEST(at_the_end_each_read_is_cancelled_once),
        TEST(an_answer_may_end_all),
        TEST(without_memory_each_read_is_answered_all_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
