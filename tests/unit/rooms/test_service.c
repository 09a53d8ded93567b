#include "chat.h"

#include <errno.h>

/* The service "rooms/1", called as other plugins do. */

struct reply {
    int calls, result;
    size_t n;
    uint64_t next;
    char names[4096]; /* "name/rank " or "name:members:number " */
};

static void take_members(void *arg, const struct roda_member *members, size_t n, uint64_t next,
                         int result)
{
    struct reply *reply = arg;

    reply->calls++;
    reply->n = n;
    reply->next = next;
    reply->result = result;
    for (size_t i = 0; i < n; i++) {
        struct roda_str nick = roda_person_get(members[i].person, RODA_PERSON_NICK);
        size_t len = strlen(reply->names);
        assert_true(members[i].conn != 0);
        (void)snprintf(reply->names + len, sizeof(reply->names) - len, "%.*s/%u ", (int)nick.len,
                       nick.ptr, members[i].rank);
    }
}

static void take_rooms(void *arg, const struct roda_room *rooms, size_t n, uint64_t next,
                       int result)
{
    struct reply *reply = arg;

    reply->calls++;
    reply->n = n;
    reply->next = next;
    reply->result = result;
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(reply->names);
        assert_true(rooms[i].epoch != 0);
        (void)snprintf(reply->names + len, sizeof(reply->names) - len, "%.*s:%u:%u:%.*s ",
                       (int)rooms[i].name.len, rooms[i].name.ptr, rooms[i].members,
                       (unsigned)rooms[i].number, (int)rooms[i].topic.len, rooms[i].topic.ptr);
    }
}

static struct reply ask_members(struct testhost *h, uint32_t worker, const char *room,
                                uint64_t after, uint32_t max)
{
    struct reply reply = {.calls = 0};
    struct roda_ctx *x;
    const struct roda_rooms *rooms = chat_service(h, worker, &x);

    assert_int_equal(rooms->members(x, (struct roda_str){room, strlen(room)}, after, max,
                                    take_members, &reply),
                     0);
    assert_int_equal(reply.calls, 0); /* never inside the call */
    assert_true(testhost_run(h));
    assert_int_equal(reply.calls, 1);
    return reply;
}

static struct reply ask_rooms(struct testhost *h, uint32_t worker, uint64_t after, uint32_t max)
{
    struct reply reply = {.calls = 0};
    struct roda_ctx *x;
    const struct roda_rooms *rooms = chat_service(h, worker, &x);

    assert_int_equal(rooms->list(x, after, max, take_rooms, &reply), 0);
    assert_int_equal(reply.calls, 0);
    assert_true(testhost_run(h));
    assert_int_equal(reply.calls, 1);
    return reply;
}

static void members_in_the_order_of_joining(void **state)
{
    struct testhost *h = chat_start(3, NULL);
    struct testhost_conn *people[6];
    const char *nicks[] = {"ana", "bob", "eva", "leo", "mia", "noa"};
    struct reply reply;

    (void)state;
    for (uint32_t i = 0; i < 6; i++) {
        people[i] = chat_enter(h, i % 3, nicks[i]);
        chat_answered(h, people[i], "JOIN|ops||", RODA_OK);
    }
    for (uint32_t worker = 0; worker < 3; worker++) {
        reply = ask_members(h, worker, "OPS", 0, 100);
        assert_string_equal(reply.names, "ana/3 bob/0 eva/0 leo/0 mia/0 noa/0 ");
        assert_true(reply.next == 0);
    }
    /* In pieces, while somebody leaves and comes. */
    reply = ask_members(h, 0, "ops", 0, 2);
    assert_string_equal(reply.names, "ana/3 bob/0 ");
    chat_answered(h, people[1], "PART|ops||", RODA_OK);
    chat_answered(h, people[2], "PART|ops||", RODA_OK);
    chat_answered(h, people[1], "JOIN|ops||", RODA_OK);
    reply = ask_members(h, 1, "ops", reply.next, 2);
    assert_string_equal(reply.names, "leo/0 mia/0 ");
    reply = ask_members(h, 2, "ops", reply.next, 2);
    assert_string_equal(reply.names, "noa/0 bob/0 ");
    assert_true(reply.next == 0);
    chat_answered(h, people[0], "NICK|||anna", RODA_OK);
    reply = ask_members(h, 2, "ops", 0, 1);
    assert_string_equal(reply.names, "anna/3 ");
    chat_stop(h);
}

static void no_such_room(void **state)
{
    struct testhost *h = chat_start(2, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana");
    struct reply reply = {.calls = 0};
    struct roda_ctx *x;
    const struct roda_rooms *rooms = chat_service(h, 0, &x);
    struct roda_room room;

    (void)state;
    assert_int_equal(rooms->members(x, RODA_STR("nowhere"), 0, 10, take_members, &reply), -ENOENT);
    assert_int_equal(rooms->members(x, RODA_STR(""), 0, 10, take_members, &reply), -ENOENT);
    assert_int_equal(rooms->find(x, testhost_conn(ana), RODA_STR("nowhere"), &room), -ENOENT);
    assert_null(rooms->person(x, RODA_STR("nobody"), NULL));
    assert_null(rooms->person(x, RODA_STR(""), NULL));
    assert_int_equal(reply.calls, 0);
    /* It goes away while it is asked about. */
    chat_answered(h, ana, "JOIN|ops||", RODA_OK);
    chat_say(ana, "PART|ops||");
    for (int i = 0; i < 2; i++)
        (void)testhost_turn(h);
    if (!rooms->members(x, RODA_STR("ops"), 0, 10, take_members, &reply)) {
        assert_true(testhost_run(h));
        assert_int_equal(reply.calls, 1);
        assert_int_equal(reply.n, 0);
    }
    chat_stop(h);
}

static void ones_own_rooms(void **state)
{
    struct testhost *h = chat_start(2, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");
    struct roda_ctx *x;
    const struct roda_rooms *rooms = chat_service(h, 0, &x);
    struct roda_room list[4];

    (void)state;
    chat_answered(h, bob, "JOIN|ops||", RODA_OK);
    chat_answered(h, bob, "TOPIC|ops||plantao", RODA_OK);
    chat_answered(h, bob, "MODE|ops||+s", RODA_OK);
    chat_answered(h, ana, "JOIN|ops||", RODA_OK);
    chat_answered(h, ana, "JOIN|dev||", RODA_OK);
    assert_int_equal(rooms->joined(x, testhost_conn(ana), list, 4), 3);
    assert_memory_equal(list[0].name.ptr, "lobby", 5);
    assert_memory_equal(list[1].name.ptr, "ops", 3);
    assert_memory_equal(list[2].name.ptr, "dev", 3);
    assert_int_equal(list[1].members, 2);
    assert_int_equal(list[1].number, 2);
    assert_int_equal(list[1].modes, RODA_ROOM_SECRET);
    assert_memory_equal(list[1].topic.ptr, "plantao", 7);
    assert_int_equal(rooms->joined(x, testhost_conn(ana), list, 1), 3);
    chat_answered(h, bob, "MODE|ops||-s", RODA_OK);
    chat_answered(h, bob, "TOPIC|ops||", RODA_OK);
    chat_answered(h, bob, "KICK|ops|bob|", RODA_OK);
    assert_int_equal(rooms->find(x, testhost_conn(ana), RODA_STR("oPs"), &list[0]), 0);
    assert_int_equal(list[0].members, 1);
    assert_int_equal(list[0].number, 5);
    assert_int_equal(list[0].modes, 0);
    assert_int_equal(list[0].topic.len, 0);
    chat_answered(h, ana, "PART|lobby||", RODA_OK);
    assert_int_equal(rooms->joined(x, testhost_conn(ana), list, 4), 2);
    assert_memory_equal(list[0].name.ptr, "ops", 3);
    chat_stop(h);
}

static void all_rooms_but_secret_ones(void **state)
{
    struct testhost *h = chat_start(4, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");
    struct reply reply;
    uint64_t after = 0;
    size_t n = 0;
    char line[64];

    (void)state;
    chat_answered(h, ana, "JOIN|ops||", RODA_OK);
    chat_answered(h, bob, "JOIN|ops||", RODA_OK);
    chat_answered(h, ana, "TOPIC|ops||plantao", RODA_OK);
    chat_answered(h, ana, "JOIN|hidden||", RODA_OK);
    chat_answered(h, ana, "MODE|hidden||+s", RODA_OK);
    for (uint32_t worker = 0; worker < 4; worker++) {
        reply = ask_rooms(h, worker, 0, 100);
        assert_string_equal(reply.names, "lobby:2:0: ops:2:1:plantao ");
        assert_true(reply.next == 0);
    }
    for (int i = 0; i < 20; i++) {
        (void)snprintf(line, sizeof(line), "JOIN|room%d||", i);
        chat_answered(h, bob, line, RODA_OK);
    }
    do {
        reply = ask_rooms(h, 3, after, 5);
        assert_true(reply.n <= 5 && reply.n > 0);
        n += reply.n;
        after = reply.next;
    } while (after);
    assert_int_equal(n, 22);
    reply = ask_rooms(h, 3, 1000, 5);
    assert_int_equal(reply.n, 0);
    assert_true(reply.next == 0);
    chat_stop(h);
}

static void the_end_of_the_broker_answers(void **state)
{
    struct testhost *h = chat_start(2, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana");
    struct reply members = {.calls = 0}, list = {.calls = 0};
    struct roda_ctx *x;
    const struct roda_rooms *rooms = chat_service(h, 1, &x);

    (void)state;
    (void)ana;
    assert_int_equal(rooms->members(x, RODA_STR("lobby"), 0, 10, take_members, &members), 0);
    assert_int_equal(rooms->list(x, 0, 10, take_rooms, &list), 0);
    assert_int_equal(testhost_stop(h), 0);
    assert_int_equal(members.calls, 1);
    assert_int_equal(list.calls, 1);
    testhost_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_in_the_order_of_joining),
        cmocka_unit_test(no_such_room),
        cmocka_unit_test(ones_own_rooms),
        cmocka_unit_test(all_rooms_but_secret_ones),
        cmocka_unit_test(the_end_of_the_broker_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
