#include "shelf.h"

/* What is found in the files of a partition: after a clean end, after a crash at any byte, after
 * damage, and by a broker that heals. */

enum { NEXT = SHELF_SEGMENT }; /* base of the second segment */

static struct log_rooms rooms; /* of the broker that wrote */

static int setup(void **state)
{
    (void)state;
    shelf_open();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    log_rooms_clear(partition.x, &rooms);
    shelf_close();
    return 0;
}

/* ---- what a test looks at --------------------------------------------------------------- */

/* 0: there is such a record. */
static int record_at(uint64_t position, struct log_record *ret_record)
{
    const struct log_segment *segment = partition_segment(&partition, position);
    size_t len = 0;
    const char *bytes = segment ? testhost_file_get(host, book_path(segment->base), &len) : NULL;

    if (!bytes || position - segment->base >= len)
        return -ENOENT;
    return log_record_decode(bytes + (position - segment->base),
                             len - (size_t)(position - segment->base), ret_record);
}

/* How many records of a room can be walked to from its newest, by back and, where that is broken,
 * by jump; each must be of the room and older than the one before. */
static uint32_t walk(const struct log_room *room)
{
    struct log_record record;
    uint64_t position = room->n_trees ? room->trees[0].root : 0, below = UINT64_MAX;
    uint64_t jump = 0;
    uint32_t n = 0;

    while (position) {
        if (record_at(position, &record)) {
            position = jump;
            jump = 0;
            continue;
        }
        assert_int_equal(record.type, LOG_MESSAGE);
        assert_int_equal(record.message.room, room->id);
        assert_true(record.message.number < below);
        below = record.message.number;
        position = record.message.back;
        jump = record.message.jump;
        n++;
    }
    return n;
}

/* Each root is a record of the room (or was, before it was damaged), with the number it says. */
static void check_trees(const struct log_room *room)
{
    struct log_record record;
    uint64_t sum = 0;

    for (uint32_t i = 0; i < room->n_trees; i++) {
        sum += room->trees[i].size;
        assert_true(room->trees[i].root > 0);
        if (i)
            assert_true(room->trees[i].root <= room->trees[i - 1].root);
        if (record_at(room->trees[i].root, &record))
            continue;
        assert_int_equal(record.type, LOG_MESSAGE);
        assert_int_equal(record.message.room, room->id);
        assert_int_equal(record.message.number, room->trees[i].number);
        assert_int_equal(record.message.time_ns, room->trees[i].time_ns);
    }
    assert_int_equal(sum, room->count);
}

static void same_chain(const struct log_room *a, const struct log_room *b)
{
    assert_non_null(a);
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->kept, b->kept);
    assert_int_equal(a->time_ns, b->time_ns);
    assert_int_equal(a->n_trees, b->n_trees);
    if (a->n_trees)
        assert_memory_equal(a->trees, b->trees, a->n_trees * sizeof(*a->trees));
}

static void same_room(const struct log_room *a, const struct log_room *b)
{
    same_chain(a, b);
    assert_int_equal(a->number, b->number);
    assert_int_equal(a->epoch, b->epoch);
    assert_true(a->known);
}

/* Where a chain goes on after damage: from each root of what was written that can still be read. */
static void roots_survive(const struct log_room *found, const struct log_room *written)
{
    struct log_record record;

    assert_int_equal(found->n_trees, written->n_trees);
    for (uint32_t i = 0; i < written->n_trees; i++) {
        assert_int_equal(found->trees[i].size, written->trees[i].size);
        if (!record_at(written->trees[i].root, &record))
            assert_int_equal(found->trees[i].root, written->trees[i].root);
    }
}

static size_t file_length(uint64_t base)
{
    size_t len = 0;

    assert_non_null(testhost_file_get(host, book_path(base), &len));
    return len;
}

/* ---- sound files ------------------------------------------------------------------------ */

static void nothing_is_found_in_an_empty_directory(void **state)
{
    (void)state;
    testhost_file_put(host, "/log/04-0000000000000000.segment", "other", 5);
    testhost_file_put(host, "/log/notes.txt", "not ours", 8);
    shelf_recover(1);
    assert_int_equal(recovered.result, 0);
    assert_true(recovered.found.clean);
    assert_int_equal(recovered.found.end, 0);
    assert_int_equal(recovered.found.next_base, 0);
    assert_int_equal(partition.n_segments, 0);
    assert_int_equal(partition.rooms.n, 0);
    assert_int_equal(testhost_log_lines(host), 0);
}

/* Two rooms, one spoken in 20 times, the other 5 times; ops is durable. */
static struct book *some_talk(uint64_t base)
{
    struct book *b = book_open(&rooms, base);

    book_start(b, LOG_SYNC_INTERVAL, "always: ops");
    struct log_room *lobby = book_new_room(b, "lobby", 11);
    struct log_room *ops = book_new_room(b, "ops", 12);
    for (int i = 0; i < 20; i++) {
        book_say(b, lobby);
        if (i % 4 == 1)
            book_say(b, ops);
    }
    return b;
}

static void after_a_clean_end_all_is_as_it_was(void **state)
{
    struct book *b = some_talk(0);

    (void)state;
    book_mark(b, LOG_END);
    book_write(b);
    shelf_recover(1);
    assert_int_equal(recovered.result, 0);
    assert_true(recovered.found.clean);
    assert_int_equal(recovered.found.end, b->len);
    assert_int_equal(recovered.found.next_base, SHELF_SEGMENT);
    assert_int_equal(recovered.found.segment_bytes, SHELF_SEGMENT);
    assert_int_equal(recovered.found.n_voids, 0);
    assert_int_equal(partition.rooms.n, 2);
    same_room(shelf_room("lobby"), log_rooms_find(&rooms, str("lobby")));
    same_room(shelf_room("ops"), log_rooms_find(&rooms, str("ops")));
    assert_int_equal(shelf_room("ops")->synced, 5);
    assert_int_equal(partition.n_segments, 1);
    assert_int_equal(partition.segments[0].base, 0);
    assert_int_equal(partition.segments[0].bytes, b->len);
    assert_int_equal(partition.segments[0].created_ns, 1000);
    assert_int_equal(file_length(0), b->len);
    assert_int_equal(testhost_log_lines(host), 0);
    book_free(b);
}

/* LOG_END that something follows is no end. */
static void a_run_that_began_after_a_clean_end_is_not_clean(void **state)
{
    struct book *b = some_talk(0);

    (void)state;
    book_mark(b, LOG_END);
    book_start(b, LOG_SYNC_NEVER, "");
    book_write(b);
    shelf_recover(1);
    assert_false(recovered.found.clean);
    assert_int_equal(shelf_room("lobby")->number, 20 + LOG_SKIP);
    assert_int_equal(shelf_room("ops")->number, 5 + LOG_SKIP);
    assert_true(shelf_room("ops")->epoch != 12); /* the later settings count */
    book_free(b);
}

static void after_a_crash_only_durable_rooms_keep_their_epoch(void **state)
{
    struct book *b = some_talk(0);

    (void)state;
    book_write(b);
    shelf_recover(1);
    assert_int_equal(recovered.result, 0);
    assert_false(recovered.found.clean);
    assert_int_equal(recovered.found.end, b->len);
    same_room(shelf_room("ops"), log_rooms_find(&rooms, str("ops")));
    const struct log_room *lobby = shelf_room("lobby");
    same_chain(lobby, log_rooms_find(&rooms, str("lobby")));
    assert_int_equal(lobby->number, 20 + LOG_SKIP);
    assert_int_equal(lobby->synced, 20);
    assert_true(lobby->epoch != 11 && lobby->epoch != 0);
    assert_int_equal(testhost_log_lines(host), 0);
    book_free(b);
}

static void without_settings_no_room_counts_as_durable(void **state)
{
    struct book *b = book_open(&rooms, 0);
    struct log_room *ops = book_new_room(b, "ops", 12);

    (void)state;
    book_say(b, ops);
    book_write(b);
    shelf_recover(1);
    assert_true(shelf_room("ops")->epoch != 12);
    assert_int_equal(shelf_room("ops")->number, 1 + LOG_SKIP);
    book_free(b);
}

/* Records over several pieces of a file; long ones stand across their edges. */
static void large_segments_are_read_to_their_end(void **state)
{
    struct book *b = book_open(&rooms, 0);
    struct log_room *lobby = book_new_room(b, "lobby", 11);
    static char text[65000];

    (void)state;
    memset(text, 'x', sizeof(text));
    for (uint32_t i = 0; b->len < 3 * SHELF_SEGMENT / 4; i++)
        book_say_text(b, lobby, (struct roda_str){text, 1 + i * 7919u % sizeof(text)});
    book_mark(b, LOG_END);
    book_write(b);
    shelf_recover(1);
    assert_true(recovered.found.clean);
    assert_int_equal(recovered.found.end, b->len);
    same_room(shelf_room("lobby"), lobby);
    assert_int_equal(walk(shelf_room("lobby")), lobby->count);
    book_free(b);
}

static void only_the_newest_of_sound_segments_is_read(void **state)
{
    struct book *old = some_talk(0), *b;
    struct log_room *lobby = log_rooms_find(&rooms, str("lobby"));

    (void)state;
    b = book_open(&rooms, NEXT);
    book_start(b, LOG_SYNC_NEVER, "");
    for (int i = 0; i < 3; i++)
        book_say(b, lobby);
    book_mark(b, LOG_END);
    memset(old->bytes + old->at[8], 'z', 30); /* nobody looks */
    book_write(old);
    book_write(b);
    shelf_recover(1);
    assert_true(recovered.found.clean);
    assert_int_equal(recovered.found.end, NEXT + b->len);
    assert_int_equal(recovered.found.next_base, 2 * SHELF_SEGMENT);
    same_room(shelf_room("lobby"), lobby);
    same_room(shelf_room("ops"), log_rooms_find(&rooms, str("ops")));
    assert_int_equal(partition.n_segments, 2);
    assert_int_equal(partition.segments[0].bytes, old->len);
    assert_int_equal(partition.segments[0].created_ns, 1000);
    assert_int_equal(partition.segments[1].base, NEXT);
    assert_int_equal(partition.segments[1].created_ns, 1000 + NEXT);
    assert_int_equal(testhost_log_lines(host), 0);
    book_free(old);
    book_free(b);
}

/* ---- torn ends -------------------------------------------------------------------------- */

static void a_tail_torn_at_any_byte_is_cut_and_nothing_else(void **state)
{
    struct book *b = some_talk(0);
    size_t last = b->at[b->n - 1];
    char expected[128], name[LOG_NAME_BYTES];

    (void)state;
    log_segment_name(SHELF_PARTITION, 0, name);
    for (size_t len = last + 1; len < b->len; len++) {
        book_write_part(b, len);
        shelf_recover(1);
        assert_int_equal(recovered.result, 0);
        assert_false(recovered.found.clean);
        assert_int_equal(recovered.found.end, last);
        assert_int_equal(file_length(0), last);
        assert_memory_equal(testhost_file_get(host, book_path(0), NULL), b->bytes, last);
        assert_int_equal(partition.segments[0].bytes, last);
        (void)snprintf(expected, sizeof(expected),
                       "%s: cut %zu bytes of a record that was not written whole", name,
                       len - last);
        assert_non_null(strstr(testhost_log_line(host, testhost_log_lines(host) - 1), expected));
        assert_int_equal(testhost_log_lines(host), len - last);
        assert_int_equal(shelf_room("lobby")->kept, 19);
        assert_int_equal(shelf_room("lobby")->number, 19 + LOG_SKIP);
        same_room(shelf_room("ops"), log_rooms_find(&rooms, str("ops")));
        assert_int_equal(walk(shelf_room("lobby")), 19);
        shelf_forget();
    }
    testhost_power_cut(host); /* what was found is on disk */
    assert_int_equal(file_length(0), last);
    book_free(b);
}

static void append_unsynced(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    const struct book *b = arg;

    (void)x;
    assert_int_equal(result, 0);
    assert_int_equal(roda_file_append(file, (struct roda_str){b->bytes, b->len}), 0);
    roda_file_close(file);
}

/* What recovery relies on is on disk afterwards: also what the segment before was still owed. */
static void what_was_found_survives_a_power_cut(void **state)
{
    struct book *old = some_talk(0), *b = book_open(&rooms, NEXT);

    (void)state;
    book_start(b, LOG_SYNC_NEVER, "");
    for (int ended = 0; ended < 2; ended++) {
        const struct book *books[2] = {old, b};
        for (int i = 0; i < 2; i++) {
            testhost_file_put(host, book_path(books[i]->base), "", 0);
            assert_int_equal(roda_file_open(partition.x, book_path(books[i]->base),
                                            RODA_FILE_APPEND, append_unsynced,
                                            (void *)(uintptr_t)books[i]),
                             0);
        }
        assert_true(testhost_run(host));
        shelf_recover(1);
        assert_int_equal(recovered.result, 0);
        assert_int_equal(recovered.found.clean, ended);
        shelf_forget();
        testhost_power_cut(host);
        assert_int_equal(file_length(NEXT), b->len);
        if (!ended)
            assert_int_equal(file_length(0), old->len);
        book_mark(b, LOG_END);
    }
    book_free(old);
    book_free(b);
}

/* The file grew, and its bytes did not come: zeros, over several pieces. */
static void zeros_at_the_end_are_cut(void **state)
{
    struct book *b = some_talk(0);
    size_t zeros = 3 * SHELF_SEGMENT / 4;
    char *bytes = calloc(1, b->len + zeros);

    (void)state;
    assert_non_null(bytes);
    memcpy(bytes, b->bytes, b->len);
    testhost_file_put(host, book_path(0), bytes, b->len + zeros);
    free(bytes);
    shelf_recover(1);
    assert_int_equal(recovered.found.end, b->len);
    assert_int_equal(file_length(0), b->len);
    assert_true(testhost_logged(host, "cut 786432 bytes"));
    same_room(shelf_room("ops"), log_rooms_find(&rooms, str("ops")));
    book_free(b);
}

/* It is there in its whole length: it may have been shown. */
static void a_last_record_that_was_good_once_counts_as_used(void **state)
{
    struct book *b = some_talk(0);
    struct log_room *ops = log_rooms_find(&rooms, str("ops"));
    size_t last = b->len;

    (void)state;
    book_say(b, ops);
    b->bytes[b->len - 1] ^= 1;
    book_write(b);
    shelf_recover(1);
    assert_int_equal(recovered.found.end, last);
    assert_int_equal(file_length(0), last);
    assert_true(shelf_room("ops")->number > ops->number);
    assert_true(shelf_room("ops")->epoch != ops->epoch);
    book_free(b);
}

/* LOG_END behind it does not save it if that is damaged too; nor does a length that cannot be. */
static void damaged_records_at_the_end_count_as_used(void **state)
{
    struct book *b = some_talk(0);
    struct log_room *ops = log_rooms_find(&rooms, str("ops"));
    size_t last = b->len;

    (void)state;
    book_say(b, ops);
    book_mark(b, LOG_END);
    b->bytes[b->len - 1] ^= 1;
    for (int byte = 0; byte < 2; byte++) {
        size_t hit = byte ? last + 3 : last + 20;
        b->bytes[hit] ^= 1;
        book_write(b);
        shelf_recover(1);
        assert_int_equal(recovered.result, 0);
        assert_int_equal(recovered.found.end, last);
        assert_true(shelf_room("ops")->number > ops->number);
        assert_true(shelf_room("ops")->epoch != ops->epoch);
        shelf_forget();
        b->bytes[hit] ^= 1;
    }
    book_free(b);
}

static void a_segment_that_was_only_begun_is_removed(void **state)
{
    struct book *old = some_talk(0), *b = book_open(&rooms, NEXT);

    (void)state;
    book_write(old);
    for (size_t len = 0; len < b->len; len++) {
        size_t lines = testhost_log_lines(host);
        book_write_part(b, len);
        shelf_recover(1);
        assert_int_equal(recovered.result, 0);
        assert_null(testhost_file_get(host, book_path(NEXT), NULL));
        assert_int_equal(recovered.found.end, old->len);
        assert_int_equal(recovered.found.next_base, NEXT);
        assert_int_equal(partition.n_segments, 1);
        same_room(shelf_room("ops"), log_rooms_find(&rooms, str("ops")));
        same_chain(shelf_room("lobby"), log_rooms_find(&rooms, str("lobby")));
        assert_true(testhost_logged(host, "removed: it was begun"));
        assert_true(testhost_log_lines(host) <= lines + 1);
        shelf_forget();
    }
    /* Prepared early, and not used before the broker ended. */
    book_mark(old, LOG_END);
    book_write(old);
    book_write_part(b, LOG_HEADER_BYTES);
    shelf_recover(1);
    assert_true(recovered.found.clean);
    assert_int_equal(shelf_room("lobby")->epoch, 11);
    shelf_forget();
    book_free(old);
    book_free(b);
}

static void the_only_segment_may_have_been_only_begun(void **state)
{
    struct book *b = book_begin(&rooms, 0);

    (void)state;
    book_write(b);
    shelf_recover(1);
    assert_int_equal(recovered.result, 0);
    assert_true(recovered.found.clean);
    assert_int_equal(recovered.found.end, 0);
    assert_int_equal(recovered.found.next_base, 0);
    assert_int_equal(partition.n_segments, 0);
    assert_null(testhost_file_get(host, book_path(0), NULL));
    book_free(b);
}

/* ---- damage ----------------------------------------------------------------------------- */

/* One bit, anywhere: nothing good is lost, no number comes again, and it is said. */
static void a_flipped_bit_costs_one_record(void **state)
{
    struct book *b = some_talk(0);
    struct log_room *lobby = log_rooms_find(&rooms, str("lobby"));
    struct log_room *ops = log_rooms_find(&rooms, str("ops"));

    (void)state;
    book_mark(b, LOG_END);
    char *good = malloc(b->len);
    assert_non_null(good);
    memcpy(good, b->bytes, b->len);
    for (size_t at = 0; at < b->len; at++) {
        size_t lines = testhost_log_lines(host);
        memcpy(b->bytes, good, b->len);
        b->bytes[at] = (char)(b->bytes[at] ^ (1 << (at % 8)));
        book_write(b);
        shelf_recover(1);
        assert_int_equal(recovered.result, 0);
        assert_false(recovered.found.clean);
        assert_true(testhost_log_lines(host) > lines);
        /* By id: the name may be what was hit. */
        const struct log_room *l = log_rooms_by_id(&partition.rooms, lobby->id);
        const struct log_room *o = log_rooms_by_id(&partition.rooms, ops->id);
        assert_non_null(l);
        assert_non_null(o);
        assert_true(l->number >= lobby->number && o->number >= ops->number);
        assert_true(l->kept >= lobby->kept - 1 && o->kept >= ops->kept - 1);
        if (l->number == lobby->number)
            assert_int_equal(l->epoch, 11);
        else
            assert_true(l->epoch != 11 && l->number >= lobby->number + LOG_SKIP);
        check_trees(l);
        check_trees(o);
        if (l->count == lobby->count)
            roots_survive(l, lobby);
        if (o->count == ops->count)
            roots_survive(o, ops);
        assert_true(recovered.found.end >= b->at[b->n - 1]); /* all but LOG_END itself */
        shelf_forget();
    }
    free(good);
    book_free(b);
}

/* Places of several records, of one room and of both, long and short. */
static void behind_a_damaged_place_the_chain_goes_on(void **state)
{
    (void)state;
    for (uint32_t from = 4; from < 60; from += 3) {
        for (uint32_t n = 1; n < 40; n += 6) {
            struct book *b = book_open(&rooms, 0);
            struct log_room *lobby = book_new_room(b, "lobby", 11);
            struct log_room *ops = book_new_room(b, "ops", 12);
            for (uint32_t i = 0; i < 110; i++)
                book_say(b, i % 3 ? lobby : ops);
            book_mark(b, LOG_END);
            memset(b->bytes + b->at[from] + 2, 0x55, b->at[from + n] - b->at[from] - 2);
            book_write(b);
            shelf_recover(1);
            const struct log_room *l = shelf_room("lobby"), *o = shelf_room("ops");
            /* What follows shows where they stand. */
            assert_int_equal(l->number, lobby->number);
            assert_int_equal(o->number, ops->number);
            assert_int_equal(l->count, lobby->count);
            assert_int_equal(o->count, ops->count);
            roots_survive(l, lobby);
            roots_survive(o, ops);
            check_trees(l);
            check_trees(o);
            assert_true(walk(l) + walk(o) >= 110 - from - n);
            assert_int_equal(file_length(0), b->len);
            assert_true(testhost_logged(host, "are damaged"));
            /* A chain that goes on from here is the one that had never broken, or nearly. */
            struct log_message before, after;
            log_room_pointers(lobby, &before);
            log_room_pointers(l, &after);
            assert_int_equal(before.count, after.count);
            assert_int_equal(before.back, after.back);
            assert_true(!before.jump == !after.jump);
            shelf_forget();
            log_rooms_clear(partition.x, &rooms);
            book_free(b);
        }
    }
}

/* Larger than a piece, and with holes in it. */
static void a_large_damaged_place_is_passed(void **state)
{
    struct book *b = book_open(&rooms, 0);
    struct log_room *lobby = book_new_room(b, "lobby", 11);
    static char text[60000];

    (void)state;
    memset(text, 'x', sizeof(text));
    for (int i = 0; i < 14; i++)
        book_say_text(b, lobby, (struct roda_str){text, sizeof(text)});
    book_say(b, lobby);
    memset(b->bytes + b->at[3], 0, 300000);
    memset(b->bytes + b->at[3] + 300000, 0x11, 300000);
    book_write(b);
    shelf_recover(1);
    assert_int_equal(recovered.found.end, b->len);
    assert_int_equal(shelf_room("lobby")->kept, 15);
    assert_true(shelf_room("lobby")->number >= 15 + LOG_SKIP);
    assert_int_equal(walk(shelf_room("lobby")), 4); /* 15 to 12: all that they point to is gone */
    check_trees(shelf_room("lobby"));
    book_free(b);
}

/* Where the length of the next record begins with a zero, it is not taken for a part of the hole.
 *  */
static void a_hole_ends_where_a_record_begins(void **state)
{
    char text[512];

    (void)state;
    memset(text, 'x', sizeof(text));
    for (size_t len = 0; len < sizeof(text); len++) {
        struct book *b = book_open(&rooms, 0);
        struct log_room *lobby = book_new_room(b, "lobby", 11);
        for (int i = 0; i < 3; i++)
            book_say_text(b, lobby, (struct roda_str){text, len});
        memset(b->bytes + b->at[2], 0, b->at[3] - b->at[2]);
        book_write(b);
        shelf_recover(1);
        assert_int_equal(walk(shelf_room("lobby")), 2);
        assert_int_equal(shelf_room("lobby")->kept, 3);
        assert_int_equal(file_length(0), b->len);
        shelf_forget();
        log_rooms_clear(partition.x, &rooms);
        book_free(b);
    }
}

/* The names of rooms are in the messages as well. */
static void a_room_whose_record_is_lost_is_made_from_its_messages(void **state)
{
    struct log_room *lobby, *pair;
    const char *name = "Lobby";
    char folded[32];

    (void)state;
    struct book *b = book_open(&rooms, 0);
    int n = roda_text_fold(str(name), folded, sizeof(folded));
    partition.index = roda_room_partition((struct roda_str){folded, (size_t)n});
    lobby = log_rooms_add(partition.x, &rooms, 0, (struct roda_str){folded, (size_t)n}, str(name));
    lobby->epoch = 11;
    book_room(b, lobby);
    size_t lost = b->n;
    for (int i = 0; i < 10; i++)
        book_say(b, lobby);
    pair = book_new_room(b, "@ana,bob", 13);
    size_t lost_too = b->n;
    book_say(b, pair);
    book_say(b, lobby);
    memset(b->bytes + b->at[lost - 1], 1, 20);
    memset(b->bytes + b->at[lost_too - 1], 1, 20);
    char path[64], segment[LOG_NAME_BYTES];
    struct log_header header = {LOG_FORMAT_VERSION, partition.index, 0, SHELF_SEGMENT, 5};
    log_header_encode(&header, b->bytes);
    log_segment_name(partition.index, 0, segment);
    (void)snprintf(path, sizeof(path), "/log/%s", segment);
    testhost_file_put(host, path, b->bytes, b->len);
    shelf_recover(1);
    assert_int_equal(recovered.result, 0);
    const struct log_room *l = shelf_room("lobby");
    assert_non_null(l);
    assert_int_equal(l->id, lobby->id);
    assert_memory_equal(log_room_name(l).ptr, "Lobby", 5);
    assert_int_equal(l->kept, 11);
    assert_int_equal(l->count, 11);
    assert_memory_equal(l->trees, lobby->trees, l->n_trees * sizeof(*l->trees));
    /* Nobody can say whose the other was, but its id is taken. */
    assert_non_null(log_rooms_by_id(&partition.rooms, pair->id));
    assert_int_equal(partition.rooms.ids, 2);
    book_free(b);
}

static void a_damaged_snapshot_is_mended_from_the_segment_before(void **state)
{
    struct book *old = some_talk(0), *b;
    struct log_room *lobby = log_rooms_find(&rooms, str("lobby"));
    struct log_room *ops = log_rooms_find(&rooms, str("ops"));

    (void)state;
    b = book_open(&rooms, NEXT);
    book_start(b, LOG_SYNC_NEVER, "");
    for (int i = 0; i < 6; i++)
        book_say(b, lobby);
    book_mark(b, LOG_END);
    book_write(old);
    /* Each record of the snapshot, LOG_OPEN included. */
    for (uint32_t i = 0; i < 3; i++) {
        b->bytes[b->at[i] + 5] ^= 4;
        book_write(b);
        shelf_recover(1);
        assert_int_equal(recovered.result, 0);
        assert_int_equal(partition.n_segments, 2);
        assert_int_equal(file_length(NEXT), b->len);
        same_chain(shelf_room("lobby"), lobby);
        same_chain(shelf_room("ops"), ops);
        assert_true(shelf_room("ops")->number >= ops->number);
        assert_int_equal(shelf_room("lobby")->epoch, lobby->epoch);
        assert_true(testhost_logged(host, "are damaged"));
        b->bytes[b->at[i] + 5] ^= 4;
        shelf_forget();
    }
    book_free(old);
    book_free(b);
}

/* A room was forgotten, and began anew with another id. */
static void a_name_s_newest_id_counts(void **state)
{
    struct book *old = some_talk(0), *b;
    struct log_room *lobby = log_rooms_find(&rooms, str("lobby"));
    struct log_room *ops = log_rooms_find(&rooms, str("ops")), *again;
    uint32_t lobby_id = lobby->id;

    (void)state;
    log_rooms_remove(partition.x, &rooms, lobby);
    b = book_open(&rooms, NEXT);
    book_start(b, LOG_SYNC_NEVER, "");
    again = book_new_room(b, "lobby", 77);
    book_say(b, again);
    book_say(b, ops);
    book_mark(b, LOG_END);
    book_write(old);
    for (int damaged = 0; damaged < 2; damaged++) {
        b->bytes[b->at[0] + 5] ^= (char)damaged; /* ops: the older snapshot must serve */
        book_write(b);
        shelf_recover(1);
        assert_int_equal(recovered.result, 0);
        assert_null(log_rooms_by_id(&partition.rooms, lobby_id));
        same_chain(shelf_room("lobby"), again);
        same_chain(shelf_room("ops"), ops);
        assert_int_equal(shelf_room("lobby")->id, again->id);
        assert_int_equal(partition.rooms.n, 2);
        assert_int_equal(partition.rooms.ids, again->id);
        shelf_forget();
    }
    book_free(old);
    book_free(b);
}

/* No snapshot is whole anywhere: all is read that is there. */
static void without_any_whole_snapshot_all_is_read(void **state)
{
    struct book *old = some_talk(0), *b;
    struct log_room *lobby = log_rooms_find(&rooms, str("lobby"));

    (void)state;
    b = book_open(&rooms, NEXT);
    book_say(b, lobby);
    old->bytes[old->at[0] + 5] ^= 4; /* LOG_OPEN */
    b->bytes[b->at[0] + 5] ^= 4;     /* lobby */
    book_write(old);
    book_write(b);
    shelf_recover(1);
    assert_int_equal(recovered.result, 0);
    same_chain(shelf_room("lobby"), lobby);
    same_chain(shelf_room("ops"), log_rooms_find(&rooms, str("ops")));
    book_free(old);
    book_free(b);
}

static void a_damaged_header_hides_nothing(void **state)
{
    struct book *old = some_talk(0), *b;
    struct log_room *lobby = log_rooms_find(&rooms, str("lobby"));

    (void)state;
    b = book_open(&rooms, NEXT);
    book_say(b, lobby);
    book_mark(b, LOG_END);
    b->bytes[20] ^= 1;
    book_write(old);
    book_write(b);
    shelf_recover(1);
    assert_false(recovered.found.clean); /* it goes on in a fresh segment */
    assert_int_equal(recovered.found.next_base, 2 * SHELF_SEGMENT);
    same_room(shelf_room("lobby"), lobby);
    assert_int_equal(partition.segments[1].created_ns, 1000); /* its neighbour's */
    assert_true(testhost_logged(host, "its header is damaged"));
    shelf_forget();
    b->bytes[20] ^= 1;
    old->bytes[20] ^= 1;
    book_write(old);
    book_write(b);
    shelf_recover(1);
    assert_true(recovered.found.clean);
    assert_int_equal(partition.n_segments, 2);
    assert_int_equal(partition.segments[0].created_ns, 1000 + NEXT);
    book_free(old);
    book_free(b);
}

static void files_that_are_others_are_left_alone(void **state)
{
    struct book *b = some_talk(0);

    (void)state;
    book_mark(b, LOG_END);
    book_write(b);
    testhost_file_put(host, book_path(7 * SHELF_SEGMENT), b->bytes, b->len); /* a copy */
    shelf_recover(1);
    assert_int_equal(recovered.result, 0);
    assert_true(recovered.found.clean);
    assert_int_equal(recovered.found.end, b->len);
    assert_int_equal(recovered.found.next_base, 8 * SHELF_SEGMENT); /* its name is taken */
    assert_int_equal(partition.n_segments, 1);
    assert_int_equal(file_length(7 * SHELF_SEGMENT), b->len);
    assert_true(testhost_logged(host, "it is left alone"));
    book_free(b);
}

static void a_newer_format_is_not_touched(void **state)
{
    struct book *b = some_talk(0);
    struct log_header header = {LOG_FORMAT_VERSION + 1, SHELF_PARTITION, 0, SHELF_SEGMENT, 5};

    (void)state;
    log_header_encode(&header, b->bytes);
    book_write(b);
    shelf_recover(1);
    assert_int_equal(recovered.result, -ENOTSUP);
    assert_int_equal(file_length(0), b->len);
    assert_true(testhost_logged(host, "another version"));
    book_free(b);
}

/* ---- healing ---------------------------------------------------------------------------- */

/* The rooms of a broker that is running, as it knows them. */
static struct log_room *running(const char *name, uint32_t durable, uint64_t synced,
                                uint64_t number)
{
    struct log_room *written = log_rooms_find(&rooms, str(name));
    struct log_room *room = log_rooms_add(partition.x, &partition.rooms, written ? written->id : 0,
                                          str(name), str(name));

    room->epoch = written ? written->epoch : 77;
    room->durable = durable;
    room->known = synced > 0;
    room->synced = synced;
    room->shown = durable ? synced : number;
    room->number = room->kept = number;
    room->count = number;
    return room;
}

static void healing_keeps_numbers_and_leaves_out_what_was_refused(void **state)
{
    struct book *b = some_talk(0);
    struct log_room *lobby = running("lobby", 0, 12, 25), *ops = running("ops", 1, 3, 7);
    struct log_room *young = running("young", 0, 0, 0);

    (void)state;
    book_write(b);
    for (int again = 0; again < 3; again++) { /* the next segment may fail as well */
        shelf_recover(0);
        assert_int_equal(recovered.result, 0);
        assert_ptr_equal(shelf_room("lobby"), lobby);
        assert_ptr_equal(shelf_room("ops"), ops);
        same_chain(lobby, log_rooms_find(&rooms, str("lobby")));
        assert_int_equal(lobby->number, 25);
        assert_int_equal(lobby->epoch, 11);
        assert_int_equal(lobby->synced, 20);
        assert_int_equal(ops->number, 7);
        assert_int_equal(ops->kept, 3);
        assert_int_equal(ops->count, 3);
        assert_int_equal(ops->synced, 3);
        assert_int_equal(ops->epoch, 12);
        assert_int_equal(walk(ops), 3);
        check_trees(ops);
        assert_int_equal(recovered.found.n_voids, 1);
        assert_int_equal(recovered.voids[0].room, ops->id);
        assert_int_equal(recovered.voids[0].from, 4);
        assert_int_equal(recovered.voids[0].to, 5);
        assert_false(young->known);
        assert_int_equal(young->epoch, 77);
        assert_int_equal(partition.n_segments, 1);
    }
    book_free(b);
}

static void a_room_that_never_came_to_disk_begins_anew(void **state)
{
    struct book *b = book_open(&rooms, 0);
    struct log_room *young = running("young", 0, 0, 4);

    (void)state;
    book_start(b, LOG_SYNC_NEVER, "");
    book_write(b);
    shelf_recover(0);
    assert_int_equal(young->number, 4);
    assert_int_equal(young->kept, 0);
    assert_int_equal(young->count, 0);
    assert_int_equal(young->n_trees, 0);
    assert_false(young->known);
    book_free(b);
}

/* The snapshot of a fresh segment may hold what was refused a moment later. */
static void a_snapshot_that_counts_in_what_was_refused_does_not_serve(void **state)
{
    struct book *old = some_talk(0), *b = book_open(&rooms, NEXT);
    struct log_room *lobby = running("lobby", 0, 12, 20), *ops = running("ops", 1, 3, 5);

    (void)state;
    book_say(b, log_rooms_find(&rooms, str("lobby")));
    lobby->shown = 21;
    book_write(old);
    book_write(b);
    for (int again = 0; again < 2; again++) {
        shelf_recover(0);
        assert_int_equal(recovered.result, 0);
        same_chain(lobby, log_rooms_find(&rooms, str("lobby")));
        assert_int_equal(ops->kept, 3);
        assert_int_equal(ops->count, 3);
        assert_int_equal(ops->number, 5);
        assert_int_equal(ops->synced, 3);
        assert_int_equal(walk(ops), 3);
        assert_int_equal(recovered.found.n_voids, 1);
        assert_int_equal(recovered.voids[0].from, 4);
        assert_int_equal(recovered.voids[0].to, 5);
        assert_int_equal(partition.n_segments, 2);
    }
    book_free(old);
    book_free(b);
}

/* ---- what a failed sync leaves ----------------------------------------------------------- */

static const char *copy_path(uint64_t base)
{
    static char path[80];

    (void)snprintf(path, sizeof(path), "%s.copy", book_path(base));
    return path;
}

/* Whether the file is another one than before, with the same bytes. */
static int is_written_anew(const struct book *b, size_t len, const char *before)
{
    const char *bytes = testhost_file_get(host, book_path(b->base), NULL);

    assert_int_equal(file_length(b->base), len);
    assert_memory_equal(bytes, b->bytes, len);
    assert_null(testhost_file_get(host, copy_path(b->base), NULL));
    return bytes != before;
}

static void healing_writes_anew_what_was_not_surely_synced(void **state)
{
    struct book *old = some_talk(0), *b = book_open(&rooms, NEXT);

    (void)state;
    book_start(b, LOG_SYNC_NEVER, "");
    book_say(b, log_rooms_find(&rooms, str("lobby")));
    size_t whole = b->len;
    book_say(b, log_rooms_find(&rooms, str("lobby")));
    for (int torn = 0; torn < 2; torn++) {
        size_t len = torn ? whole : b->len;
        const uint64_t synced[] = {0, old->len - 1, old->len, NEXT, NEXT + len - 1, NEXT + len};
        for (size_t i = 0; i < sizeof(synced) / sizeof(*synced); i++) {
            book_write(old);
            book_write_part(b, torn ? b->len - 3 : b->len);
            const char *first = testhost_file_get(host, book_path(0), NULL);
            const char *second = testhost_file_get(host, book_path(NEXT), NULL);
            shelf_recover_from(0, synced[i]);
            assert_int_equal(recovered.result, 0);
            assert_int_equal(recovered.found.end, NEXT + len);
            assert_int_equal(recovered.found.next_base, 2 * SHELF_SEGMENT);
            assert_int_equal(partition.n_segments, 2);
            assert_int_equal(partition.segments[0].bytes, old->len);
            assert_int_equal(partition.segments[1].bytes, len);
            assert_int_equal(partition.segments[1].created_ns, 1000 + NEXT);
            assert_int_equal(is_written_anew(old, old->len, first), synced[i] < old->len);
            assert_int_equal(is_written_anew(b, len, second), torn || synced[i] < NEXT + len);
            shelf_forget();
            testhost_power_cut(host);
            (void)is_written_anew(b, len, NULL);
        }
    }
    assert_true(testhost_logged(host, "written anew"));
    assert_true(testhost_logged(host, "bytes of a record that was not written whole"));
    book_free(old);
    book_free(b);
}

/* Larger than what a file takes before it is synced, and in pieces that end anywhere. */
static struct book *long_talk(void)
{
    struct book *b = book_open(&rooms, 0);
    struct log_room *lobby = book_new_room(b, "lobby", 11);
    static char text[60000];

    memset(text, 'x', sizeof(text));
    while (b->len < 3 * SHELF_SEGMENT + 12345)
        book_say_text(b, lobby, (struct roda_str){text, sizeof(text)});
    return b;
}

static void a_copy_waits_for_the_disk(void **state)
{
    struct book *b = long_talk();

    (void)state;
    book_write(b);
    const char *before = testhost_file_get(host, book_path(0), NULL);
    testhost_hold_writes(host, true);
    shelf_recover(0);
    testhost_hold_writes(host, false);
    assert_int_equal(recovered.result, 0);
    assert_true(is_written_anew(b, b->len, before));
    shelf_forget();
    testhost_power_cut(host);
    assert_true(is_written_anew(b, b->len, before));
    book_free(b);
}

static void a_copy_that_fails_changes_nothing_and_is_tried_again(void **state)
{
    struct book *b = long_talk();
    uint32_t failures = 0, failed = 1;

    (void)state;
    for (uint32_t turns = 0; failed; turns++) {
        book_write(b);
        const char *before = testhost_file_get(host, book_path(0), NULL);
        recovered = (struct shelf_answer){.result = 1};
        assert_int_equal(recovery_start(&partition, 0, 0, shelf_recovered), 0);
        for (uint32_t i = 0; i < turns; i++)
            (void)testhost_turn(host);
        testhost_fail_writes(host, -ENOSPC);
        assert_true(testhost_run(host));
        testhost_fail_writes(host, 0);
        assert_int_equal(recovered.calls, 1);
        failed = recovered.result != 0;
        failures += failed;
        if (failed) {
            assert_int_equal(recovered.result, -ENOSPC);
            assert_ptr_equal(testhost_file_get(host, book_path(0), NULL), before);
            assert_true(testhost_logged(host, "cannot be written anew"));
            /* Its space is needed: by others that heal, and by those that still write. */
            assert_null(testhost_file_get(host, copy_path(0), NULL));
            shelf_recover(0);
            assert_int_equal(recovered.result, 0);
        }
        assert_true(is_written_anew(b, b->len, before));
        shelf_forget();
    }
    assert_true(failures > 10);
    book_free(b);
}

static void leftovers_are_removed_at_the_start(void **state)
{
    struct book *b = some_talk(0);
    static const char other[] = "/log/04-0000000000000000.segment.copy";

    (void)state;
    book_mark(b, LOG_END);
    book_write(b);
    testhost_file_put(host, copy_path(0), b->bytes, 100);
    testhost_file_put(host, copy_path(NEXT), b->bytes, 0);
    testhost_file_put(host, other, "not ours", 8);
    testhost_file_put(host, "/log/.copy", "nor this", 8);
    shelf_recover(1);
    assert_int_equal(recovered.result, 0);
    assert_true(recovered.found.clean);
    assert_int_equal(recovered.found.next_base, SHELF_SEGMENT);
    assert_null(testhost_file_get(host, copy_path(0), NULL));
    assert_null(testhost_file_get(host, copy_path(NEXT), NULL));
    assert_non_null(testhost_file_get(host, other, NULL));
    assert_non_null(testhost_file_get(host, "/log/.copy", NULL));
    assert_int_equal(file_length(0), b->len);
    assert_int_equal(testhost_log_lines(host), 0);
    book_free(b);
}

/* Whenever a copy is given up, the next start finds what was there. */
static void healing_may_be_cancelled_at_any_time(void **state)
{
    struct book *b = some_talk(0);

    (void)state;
    uint32_t turns = 0, leftovers = 0;
    for (int ended = 0; !ended; turns++) {
        book_write(b);
        recovered = (struct shelf_answer){.result = 1};
        assert_int_equal(recovery_start(&partition, 0, 0, shelf_recovered), 0);
        for (uint32_t i = 0; i < turns; i++)
            (void)testhost_turn(host);
        ended = recovered.calls > 0;
        recovery_cancel(&partition);
        assert_true(testhost_run(host));
        assert_int_equal(recovered.calls, ended);
        leftovers += testhost_file_get(host, copy_path(0), NULL) != NULL;
        shelf_forget();
        shelf_recover(1);
        assert_int_equal(recovered.result, 0);
        (void)is_written_anew(b, b->len, NULL);
        shelf_forget();
    }
    assert_true(leftovers > 2);
    book_free(b);
}

static void count_read(struct partition *p, void *arg, const struct log_record *record, int result)
{
    int *ret_result = arg;

    assert_ptr_equal(p, &partition);
    assert_true(!record == (result != 0));
    *ret_result = result;
}

static int read_now(uint64_t position)
{
    int result = 1;

    assert_int_equal(partition_read(&partition, position, count_read, &result), 0);
    assert_true(testhost_run(host));
    return result;
}

/* A read that begins at any time sees the same; later ones see the new file. */
static void who_reads_meanwhile_sees_the_new_file_afterwards(void **state)
{
    struct book *b = long_talk();
    char *zeros = calloc(1, b->len);

    (void)state;
    assert_non_null(zeros);
    for (int opened = 0; opened < 2; opened++) {
        int ended = 0;
        for (uint32_t turns = 0; !ended; turns++) {
            int result = 1;
            book_write(b);
            shelf_recover(1);
            shelf_room("lobby")->shown = UINT64_MAX;
            if (opened)
                assert_int_equal(read_now(b->at[20]), 0);
            assert_int_equal(partition.segments[0].file != NULL, opened);
            recovered = (struct shelf_answer){.result = 1};
            assert_int_equal(recovery_start(&partition, 0, 0, shelf_recovered), 0);
            for (uint32_t i = 0; i < turns; i++)
                (void)testhost_turn(host);
            ended = recovered.calls > 0;
            assert_int_equal(partition_read(&partition, b->at[5], count_read, &result), 0);
            assert_true(testhost_run(host));
            assert_int_equal(recovered.calls, 1);
            assert_int_equal(recovered.result, 0);
            assert_int_equal(result, 0);
            assert_int_equal(partition.segments[0].readers, 0);
            assert_int_equal(partition.segments[0].opening, 0);
            assert_int_equal(read_now(b->at[30]), 0);
            testhost_file_put(host, book_path(0), zeros, b->len);
            assert_int_equal(read_now(b->at[40]), -EILSEQ);
            shelf_forget();
        }
    }
    free(zeros);
    book_free(b);
}

/* The pool of threads may open the old file before the rename, and say so after it. */
static void a_file_that_is_being_opened_is_opened_again_when_it_changes(void **state)
{
    struct book *b = some_talk(0);
    int result = 1;

    (void)state;
    book_write(b);
    shelf_recover(1);
    testhost_hold_files(host, true);
    assert_int_equal(partition_read(&partition, b->at[5], count_read, &result), 0);
    assert_true(testhost_run(host));
    assert_int_equal(partition.segments[0].opening, 1);
    partition_file_changed(&partition, 0);
    assert_int_equal(partition.segments[0].opening, 2);
    testhost_hold_files(host, false);
    while (partition.segments[0].opening == 2)
        (void)testhost_turn(host);
    assert_null(partition.segments[0].file);
    assert_int_equal(result, 1);
    assert_true(testhost_run(host));
    assert_int_equal(result, 0);
    assert_non_null(partition.segments[0].file);
    assert_int_equal(partition.segments[0].opening, 0);
    book_free(b);
}

/* One that came up meanwhile, or could not be removed. */
static void nothing_is_appended_to_a_leftover(void **state)
{
    struct book *b = some_talk(0);
    uint32_t refused = 0;

    (void)state;
    for (uint32_t turns = 0, ended = 0; !ended; turns++) {
        book_write(b);
        recovered = (struct shelf_answer){.result = 1};
        assert_int_equal(recovery_start(&partition, 0, 0, shelf_recovered), 0);
        for (uint32_t i = 0; i < turns; i++)
            (void)testhost_turn(host);
        ended = recovered.calls > 0;
        if (!testhost_file_get(host, copy_path(0), NULL))
            testhost_file_put(host, copy_path(0), "left over", 9);
        assert_true(testhost_run(host));
        if (recovered.result)
            assert_int_equal(recovered.result, -EEXIST);
        refused += recovered.result != 0;
        assert_int_equal(file_length(0), b->len);
        assert_memory_equal(testhost_file_get(host, book_path(0), NULL), b->bytes, b->len);
        shelf_recover(0);
        assert_int_equal(recovered.result, 0);
        (void)is_written_anew(b, b->len, NULL);
        shelf_forget();
    }
    assert_true(refused > 0);
    book_free(b);
}

/* ---- runs after runs -------------------------------------------------------------------- */

static uint32_t draw(uint32_t *random, uint32_t below)
{
    *random = *random * 1103515245u + 12345u;
    return (*random >> 8) % below;
}

struct shown { /* the greatest number anybody saw */
    uint64_t number;
    uint64_t acknowledged; /* and in a durable room: what must be there */
};

/* A broker that crashes at any byte, over and over: what was shown is never shown again, what was
 * durable is there. */
static void no_number_is_used_twice_over_many_crashes(void **state)
{
    static const char *const names[] = {"lobby", "ops", "den"};
    uint32_t random = 7;
    struct shown shown[3] = {{0}};
    uint64_t base = 0;

    (void)state;
    for (int run = 0; run < 150; run++) {
        shelf_recover(1);
        assert_int_equal(recovered.result, 0);
        base = recovered.found.next_base;
        struct book *b = book_open(&partition.rooms, base);
        size_t safe = b->len; /* what was synced before anything was shown */
        book_start(b, LOG_SYNC_NEVER, "always: ops");
        for (uint32_t i = 0; i < 3; i++) {
            struct log_room *room = shelf_room(names[i]);
            if (!room)
                continue;
            assert_true(room->kept >= shown[i].acknowledged);
            if (i != 1)
                assert_true(room->number >= shown[i].number);
            check_trees(room);
        }
        uint32_t messages = draw(&random, 40);
        for (uint32_t i = 0; i < messages; i++) {
            uint32_t k = draw(&random, 3);
            struct log_room *room = shelf_room(names[k]);
            if (!room)
                room = book_new_room(b, names[k], 100 + k);
            if (!room->count)
                safe = b->len; /* its LOG_ROOM is synced before it shows anything */
            (void)book_say(b, room);
            if (k == 1) { /* shown when it is on disk */
                safe = b->len;
                shown[k].acknowledged = room->number;
            }
            shown[k].number = room->number;
        }
        if (draw(&random, 4)) {
            size_t len = safe + draw(&random, (uint32_t)(b->len - safe) + 1);
            /* LOG_START is on disk when the broker starts */
            if (len < b->at[1] + 30 && b->n > 1)
                len = b->len;
            book_write_part(b, len);
        } else {
            book_mark(b, LOG_END);
            book_write(b);
        }
        book_free(b);
        shelf_forget();
    }
    assert_true(base > 100 * (uint64_t)SHELF_SEGMENT);
}

/* ---- trouble ---------------------------------------------------------------------------- */

static void recovery_may_be_cancelled_at_any_time(void **state)
{
    struct book *old = some_talk(0), *b = book_begin(&rooms, NEXT);

    (void)state;
    uint32_t turns = 0;
    for (int ended = 0; !ended; turns++) {
        book_write_part(old, old->len - 3);
        book_write(b);
        recovered = (struct shelf_answer){.result = 1};
        assert_int_equal(recovery_start(&partition, 1, 0, shelf_recovered), 0);
        for (uint32_t i = 0; i < turns; i++)
            (void)testhost_turn(host);
        ended = recovered.calls > 0;
        recovery_cancel(&partition);
        recovery_cancel(&partition);
        assert_true(testhost_run(host));
        assert_int_equal(recovered.calls, ended);
        shelf_forget();
    }
    assert_true(turns > 8);
    book_free(old);
    book_free(b);
}

static void without_memory_recovery_fails_and_may_be_tried_again(void **state)
{
    struct book *old = some_talk(0), *b = book_open(&rooms, NEXT);
    struct log_room *lobby = log_rooms_find(&rooms, str("lobby"));

    (void)state;
    for (int i = 0; i < 40; i++)
        book_say(b, lobby);
    b->bytes[b->at[0] + 5] ^= 4;
    book_write(old);
    int failed = 1;
    for (uint64_t n = 1; failed; n++) {
        book_write_part(b, b->len - 3);
        testhost_fail_allocation(host, n);
        recovered = (struct shelf_answer){.result = 1};
        int r = recovery_start(&partition, 1, 0, shelf_recovered);
        assert_true(testhost_run(host));
        testhost_fail_allocation(host, 0);
        if (!r)
            assert_int_equal(recovered.calls, 1);
        failed = r || recovered.result;
        if (failed)
            assert_int_equal(r ? r : recovered.result, -ENOMEM);
        else
            assert_int_equal(shelf_room("lobby")->kept, lobby->kept - 1);
        shelf_forget();
    }
    book_free(old);
    book_free(b);
}

/* What fails while a broker heals changes nothing it knows. */
static void healing_without_memory_forgets_nothing(void **state)
{
    struct book *b = some_talk(0);
    struct log_room *ops = running("ops", 1, 3, 7);

    (void)state;
    book_write(b);
    for (uint64_t n = 1;; n++) {
        testhost_fail_allocation(host, n);
        recovered = (struct shelf_answer){.result = 1};
        int r = recovery_start(&partition, 0, 0, shelf_recovered);
        assert_true(testhost_run(host));
        testhost_fail_allocation(host, 0);
        assert_int_equal(ops->synced, 3);
        assert_int_equal(ops->number, 7);
        assert_int_equal(file_length(0), b->len);
        assert_memory_equal(testhost_file_get(host, book_path(0), NULL), b->bytes, b->len);
        if (!r && !recovered.result)
            break;
    }
    assert_int_equal(ops->kept, 3);
    assert_int_equal(recovered.found.n_voids, 1);
    assert_non_null(shelf_room("lobby"));
    book_free(b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_found_in_an_empty_directory),
        TEST(after_a_clean_end_all_is_as_it_was),
        TEST(a_run_that_began_after_a_clean_end_is_not_clean),
        TEST(after_a_crash_only_durable_rooms_keep_their_epoch),
        TEST(without_settings_no_room_counts_as_durable),
        TEST(large_segments_are_read_to_their_end),
        TEST(only_the_newest_of_sound_segments_is_read),
        TEST(a_tail_torn_at_any_byte_is_cut_and_nothing_else),
        TEST(what_was_found_survives_a_power_cut),
        TEST(zeros_at_the_end_are_cut),
        TEST(a_last_record_that_was_good_once_counts_as_used),
        TEST(damaged_records_at_the_end_count_as_used),
        TEST(a_segment_that_was_only_begun_is_removed),
        TEST(the_only_segment_may_have_been_only_begun),
        TEST(a_flipped_bit_costs_one_record),
        TEST(behind_a_damaged_place_the_chain_goes_on),
        TEST(a_large_damaged_place_is_passed),
        TEST(a_hole_ends_where_a_record_begins),
        TEST(a_room_whose_record_is_lost_is_made_from_its_messages),
        TEST(a_damaged_snapshot_is_mended_from_the_segment_before),
        TEST(a_name_s_newest_id_counts),
        TEST(without_any_whole_snapshot_all_is_read),
        TEST(a_damaged_header_hides_nothing),
        TEST(files_that_are_others_are_left_alone),
        TEST(a_newer_format_is_not_touched),
        TEST(healing_keeps_numbers_and_leaves_out_what_was_refused),
        TEST(a_room_that_never_came_to_disk_begins_anew),
        TEST(a_snapshot_that_counts_in_what_was_refused_does_not_serve),
        TEST(healing_writes_anew_what_was_not_surely_synced),
        TEST(a_copy_waits_for_the_disk),
        TEST(a_copy_that_fails_changes_nothing_and_is_tried_again),
        TEST(leftovers_are_removed_at_the_start),
        TEST(healing_may_be_cancelled_at_any_time),
        TEST(who_reads_meanwhile_sees_the_new_file_afterwards),
        TEST(a_file_that_is_being_opened_is_opened_again_when_it_changes),
        TEST(nothing_is_appended_to_a_leftover),
        TEST(no_number_is_used_twice_over_many_crashes),
        TEST(recovery_may_be_cancelled_at_any_time),
        TEST(without_memory_recovery_fails_and_may_be_tried_again),
        TEST(healing_without_memory_forgets_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
