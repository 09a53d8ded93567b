#include "shelf.h"

/* The table of rooms against a plain model, and a room's trees against its records. */

enum { ROOMS = 3000, RECORDS = 3000 };

static struct roda_ctx *x;

static int setup(void **state)
{
    (void)state;
    shelf_open();
    x = partition.x;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    shelf_close();
    return 0;
}

static const char *name_of(uint32_t i)
{
    static char name[32];

    (void)snprintf(name, sizeof(name), "room-%u", i);
    return name;
}

static void each_room_is_found_by_name_and_by_id(void **state)
{
    struct log_rooms rooms = {0};
    static struct log_room *list[ROOMS];

    (void)state;
    assert_null(log_rooms_find(&rooms, str("lobby")));
    assert_null(log_rooms_by_id(&rooms, 0));
    assert_null(log_rooms_by_id(&rooms, 1));
    for (uint32_t i = 0; i < ROOMS; i++) {
        char shown[32];
        (void)snprintf(shown, sizeof(shown), "Room %u", i);
        list[i] = log_rooms_add(x, &rooms, 0, str(name_of(i)), str(shown));
        assert_non_null(list[i]);
        assert_int_equal(list[i]->id, i + 1);
        assert_int_equal(list[i]->number, 0);
        assert_int_equal(list[i]->n_trees, 0);
        assert_memory_equal(log_room_name(list[i]).ptr, shown, strlen(shown));
    }
    assert_int_equal(rooms.n, ROOMS);
    assert_int_equal(rooms.ids, ROOMS);
    for (uint32_t i = 0; i < ROOMS; i++) {
        assert_ptr_equal(log_rooms_find(&rooms, str(name_of(i))), list[i]);
        assert_ptr_equal(log_rooms_by_id(&rooms, i + 1), list[i]);
        assert_int_equal(log_room_folded(list[i]).len, strlen(name_of(i)));
    }
    assert_null(log_rooms_find(&rooms, str(name_of(ROOMS))));
    assert_null(log_rooms_find(&rooms, str("room-")));
    assert_null(log_rooms_by_id(&rooms, ROOMS + 1));
    log_rooms_clear(x, &rooms);
    assert_null(log_rooms_find(&rooms, str(name_of(1))));
    assert_int_equal(rooms.ids, 0);
}

static void ids_may_have_holes_and_are_given_behind_the_greatest(void **state)
{
    struct log_rooms rooms = {0};

    (void)state;
    struct log_room *far = log_rooms_add(x, &rooms, 500, str("far"), str("Far"));
    assert_non_null(far);
    assert_null(log_rooms_by_id(&rooms, 499));
    assert_ptr_equal(log_rooms_by_id(&rooms, 500), far);
    assert_null(log_rooms_add(x, &rooms, 500, str("other"), str("other")));
    struct log_room *near = log_rooms_add(x, &rooms, 7, str("near"), str("Near"));
    assert_ptr_equal(log_rooms_by_id(&rooms, 7), near);
    assert_int_equal(log_rooms_add(x, &rooms, 0, str("next"), str("next"))->id, 501);
    assert_ptr_equal(log_rooms_find(&rooms, str("far")), far);
    assert_int_equal(rooms.n, 3);
    log_rooms_clear(x, &rooms);
}

static void what_is_taken_out_is_found_no_more_and_its_id_stays_taken(void **state)
{
    struct log_rooms rooms = {0};
    struct log_room *room;
    uint32_t n = 0;

    (void)state;
    for (uint32_t i = 0; i < ROOMS; i++) {
        room = log_rooms_add(x, &rooms, 0, str(name_of(i)), str(name_of(i)));
        assert_non_null(room);
        assert_int_equal(log_room_append(x, room, 100, 1, 1, 1), 0);
    }
    for (uint32_t i = 0; i < ROOMS; i++) /* the ends, and every second */
        if (i % 2 || !i || i == ROOMS - 1)
            log_rooms_remove(x, &rooms, log_rooms_by_id(&rooms, i + 1));
    for (uint32_t i = 0; i < ROOMS; i++) {
        bool gone = i % 2 || !i || i == ROOMS - 1;
        assert_true(!log_rooms_by_id(&rooms, i + 1) == gone);
        assert_true(!log_rooms_find(&rooms, str(name_of(i))) == gone);
    }
    for (room = rooms.oldest; room; room = room->newer, n++) {
        assert_true(room->newer ? room->newer->older == room : room == rooms.newest);
        assert_true(room->older ? room->older->id < room->id : room == rooms.oldest);
    }
    assert_int_equal(rooms.n, n);
    room = log_rooms_add(x, &rooms, 0, str(name_of(1)), str(name_of(1)));
    assert_int_equal(room->id, ROOMS + 1);
    assert_ptr_equal(log_rooms_find(&rooms, str(name_of(1))), room);
    while (rooms.oldest)
        log_rooms_remove(x, &rooms, rooms.oldest);
    assert_int_equal(rooms.n, 0);
    assert_null(rooms.newest);
    assert_int_equal(log_rooms_add(x, &rooms, 0, str("a"), str("a"))->id, ROOMS + 2);
    log_rooms_clear(x, &rooms);
}

/* Reads a chain of records from its newest on, by number, as history does. */
struct written {
    struct log_message message;
    uint64_t position;
};
static struct written chain[RECORDS + 1];

static uint32_t steps_to(uint32_t from, uint64_t number)
{
    uint32_t at = from, steps = 0;

    while (chain[at].message.number != number) {
        const struct log_message *m = &chain[at].message;
        uint64_t next = m->jump && m->jump_number >= number ? m->jump : m->back;
        assert_true(next > 0);
        while (chain[at].position != next)
            at--;
        assert_true(at > 0);
        steps++;
    }
    return steps;
}

static void pointers_and_trees_agree_with_the_chain(void **state)
{
    struct log_rooms rooms = {0};
    struct log_room *room = log_rooms_add(x, &rooms, 0, str("lobby"), str("lobby"));

    (void)state;
    for (uint32_t i = 1; i <= RECORDS; i++) {
        uint64_t position = 100 + 37 * (uint64_t)i, number = 3 * (uint64_t)i;
        struct log_message *m = &chain[i].message;
        chain[i].position = position;
        m->number = number;
        log_room_pointers(room, m);
        assert_int_equal(m->count, i);
        assert_int_equal(m->back, i > 1 ? chain[i - 1].position : 0);
        uint64_t jumps_to = log_jump_count(i);
        assert_int_equal(m->jump, jumps_to ? chain[jumps_to].position : 0);
        assert_int_equal(m->jump_number, jumps_to ? 3 * jumps_to : 0);
        assert_int_equal(m->jump_time_ns, jumps_to ? 30 * (int64_t)jumps_to : 0);
        assert_int_equal(log_room_append(x, room, position, 5, number, 30 * (int64_t)i), 0);
        assert_int_equal(room->trees[0].root, position);
        uint64_t sum = 0;
        for (uint32_t t = 0; t < room->n_trees; t++)
            sum += room->trees[t].size;
        assert_int_equal(sum, i);
        assert_int_equal(room->count, i);
    }
    assert_int_equal(room->kept, 3 * RECORDS);
    assert_int_equal(room->number, 3 * RECORDS);
    assert_int_equal(room->time_ns, 30 * RECORDS);
    assert_int_equal(room->epoch, 5);
    for (uint32_t i = 1; i <= RECORDS; i += 17)
        assert_true(steps_to(RECORDS, 3 * (uint64_t)i) <= 36); /* 3 log2 3000 */
    log_rooms_clear(x, &rooms);
}

static void a_room_is_what_its_record_says(void **state)
{
    struct log_rooms rooms = {0}, others = {0};
    struct log_room *room = log_rooms_add(x, &rooms, 0, str("lobby"), str("Lobby"));
    struct log_record record = {.type = LOG_ROOM}, copy;
    char bytes[4096];

    (void)state;
    room->epoch = 9;
    for (uint32_t i = 1; i <= 200; i++)
        assert_int_equal(log_room_append(x, room, 1000 * i, 9, i, i), 0);
    room->number = 250;
    log_room_describe(room, &record.room);
    size_t len = log_record_encode(&record, bytes, sizeof(bytes));
    assert_true(len > 0);
    assert_int_equal(log_record_decode(bytes, len, &copy), 0);
    struct log_room *other =
        log_rooms_add(x, &others, copy.room.room, copy.room.folded, copy.room.name);
    assert_int_equal(log_room_set(x, other, &copy.room), 0);
    assert_int_equal(other->epoch, 9);
    assert_int_equal(other->number, 250);
    assert_int_equal(other->kept, 200);
    assert_int_equal(other->time_ns, 200);
    assert_int_equal(other->count, 200);
    assert_int_equal(other->n_trees, room->n_trees);
    assert_memory_equal(other->trees, room->trees, room->n_trees * sizeof(*room->trees));
    struct log_message a, b;
    log_room_pointers(room, &a);
    log_room_pointers(other, &b);
    assert_int_equal(a.jump, b.jump);
    assert_int_equal(a.back, b.back);
    log_rooms_clear(x, &rooms);
    log_rooms_clear(x, &others);
}

static void a_number_never_goes_back(void **state)
{
    struct log_rooms rooms = {0};
    struct log_room *room = log_rooms_add(x, &rooms, 0, str("lobby"), str("lobby"));

    (void)state;
    room->number = 70; /* given, and not yet recorded */
    assert_int_equal(log_room_append(x, room, 100, 1, 60, 1), 0);
    assert_int_equal(room->kept, 60);
    assert_int_equal(room->number, 70);
    log_rooms_clear(x, &rooms);
}

/* Whatever allocation fails: what was there is there, unchanged. */
static void failing_memory_changes_nothing(void **state)
{
    struct log_rooms rooms = {0};
    struct log_room *room = NULL;

    (void)state;
    for (uint64_t n = 1;; n++) {
        testhost_fail_allocation(host, n);
        uint32_t before = rooms.n;
        room = log_rooms_add(x, &rooms, 0, str("lobby"), str("lobby"));
        if (room)
            break;
        assert_int_equal(rooms.n, before);
        assert_null(log_rooms_find(&rooms, str("lobby")));
    }
    testhost_fail_allocation(host, 0);
    for (uint32_t i = 1; i <= 100; i++) {
        testhost_fail_allocation(host, 1);
        uint32_t n_trees = room->n_trees;
        int r = log_room_append(x, room, 100 * i, 1, i, i);
        testhost_fail_allocation(host, 0);
        if (!r)
            continue;
        assert_int_equal(r, -ENOMEM);
        assert_int_equal(room->count, i - 1);
        assert_int_equal(room->kept, i - 1);
        assert_int_equal(room->n_trees, n_trees);
        assert_int_equal(log_room_append(x, room, 100 * i, 1, i, i), 0);
    }
    /* More chains would be nice: without memory for them rooms are still found. */
    for (uint32_t i = 0; i < 100; i++) {
        struct log_room *more = NULL;
        for (uint64_t n = 1; !more; n++) {
            testhost_fail_allocation(host, n);
            more = log_rooms_add(x, &rooms, 0, str(name_of(i)), str("x"));
        }
        testhost_fail_allocation(host, 0);
        assert_ptr_equal(log_rooms_find(&rooms, str(name_of(i))), more);
        assert_ptr_equal(log_rooms_find(&rooms, str("lobby")), room);
    }
    log_rooms_clear(x, &rooms);
}

/* After a crash a room goes on behind what it says here. */
static void what_waits_to_be_written_is_not_stated(void **state)
{
    static const struct {
        uint64_t number, kept, shown, unwritten, stated;
    } rooms_as[] = {
        {1241, 1235, 1235, 6, 1235}, /* nobody has seen those that wait */
        {1241, 1235, 1239, 2, 1239}, /* some were shown, and are not kept */
        {1241, 1235, 1235, 0, 1241}, /* refused: not given again */
        {1238, 1238, 1238, 3, 1238}, /* the oldest of them was written just now */
        {1235, 1230, 1235, 6, 1235}, /* in front of the oldest's record */
        {5, 0, 0, 6, 0},
        {1241, 1235, UINT64_MAX, 2, 1241}, /* healing: not known what was shown */
    };
    struct log_rooms rooms = {0};
    struct log_room *room = log_rooms_add(x, &rooms, 0, str("ops"), str("ops"));

    (void)state;
    for (size_t i = 0; i < sizeof(rooms_as) / sizeof(*rooms_as); i++) {
        struct log_room_record record;
        room->number = rooms_as[i].number;
        room->kept = rooms_as[i].kept;
        room->shown = rooms_as[i].shown;
        room->unwritten = rooms_as[i].unwritten;
        log_room_describe(room, &record);
        assert_int_equal(record.number, rooms_as[i].stated);
    }
    log_rooms_clear(x, &rooms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_room_is_found_by_name_and_by_id, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_taken_out_is_found_no_more_and_its_id_stays_taken,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(ids_may_have_holes_and_are_given_behind_the_greatest, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(pointers_and_trees_agree_with_the_chain, setup, teardown),
        cmocka_unit_test_setup_teardown(a_room_is_what_its_record_says, setup, teardown),
        cmocka_unit_test_setup_teardown(what_waits_to_be_written_is_not_stated, setup, teardown),
        cmocka_unit_test_setup_teardown(a_number_never_goes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(failing_memory_changes_nothing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
