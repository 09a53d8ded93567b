#include "chat.h"

#include <errno.h>

#include "plugins/rooms/ids.h"
#include "plugins/rooms/rooms.h"

/* The tables inside: members of a room, ids, names in the directory; each against a plain model. */

enum { PEOPLE = 3000 };

static struct testhost *host;
static struct roda_ctx *x;

static int setup(void **state)
{
    (void)state;
    host = chat_start(1, NULL);
    x = testhost_ctx(host, "visitor", 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(testhost_stop(host), 0);
    testhost_free(host);
    return 0;
}

static uint32_t draw(uint32_t *random, uint32_t below)
{
    *random = *random * 1103515245u + 12345u;
    return (*random >> 8) % below;
}

static struct roda_person *named(const char *nick)
{
    struct roda_str fields[RODA_PERSON_FIELDS];
    struct roda_person *person;

    for (size_t i = 0; i < RODA_PERSON_FIELDS; i++)
        fields[i] = RODA_STR("");
    fields[RODA_PERSON_NICK] = (struct roda_str){nick, strlen(nick)};
    person = roda_person_make(x, 0, fields);
    assert_non_null(person);
    return person;
}

/* Ids as the broker gives them: a worker, a slot, a generation. */
static roda_conn_id conn_of_slot(uint32_t slot)
{
    return (uint64_t)(slot % 3) << 56 | (uint64_t)slot << 32 | 1;
}

static void members_are_like_a_list(void **state)
{
    struct members members = {.list = NULL};
    static int in[PEOPLE];
    static roda_conn_id order[200000];
    uint32_t random = 7, n = 0, n_order = 0;
    struct roda_person *person = named("ana");

    (void)state;
    memset(in, 0, sizeof(in));
    for (int step = 0; step < 60000; step++) {
        /* Grows, shrinks, grows. */
        uint32_t slot = draw(&random, step / 20000 == 1 ? PEOPLE / 50 : PEOPLE);
        roda_conn_id conn = conn_of_slot(slot);
        struct home_member *found = members_find(&members, conn);
        assert_int_equal(found != NULL, in[slot]);
        if (found) {
            assert_true(found->conn == conn);
            members_remove(&members, found);
            n--;
        } else {
            assert_int_equal(members_add(x, &members, conn, person, slot % 4), 0);
            order[n_order++] = conn;
            n++;
        }
        in[slot] = !in[slot];
        assert_int_equal(members.n, n);
    }
    /* In the order of joining. */
    uint64_t serial = 0;
    uint32_t at = 0, seen = 0;
    for (struct home_member *m; (m = members_after(&members, serial)); seen++) {
        assert_true(m->serial > serial);
        while (at < n_order && order[at] != m->conn)
            at++;
        assert_true(at < n_order);
        serial = m->serial;
    }
    assert_int_equal(seen, n);
    /* All leave, and the first one comes back. */
    for (uint32_t slot = 0; slot < PEOPLE; slot++)
        if (in[slot])
            members_remove(&members, members_find(&members, conn_of_slot(slot)));
    assert_int_equal(members.n, 0);
    assert_null(members_after(&members, 0));
    assert_int_equal(members_add(x, &members, conn_of_slot(1), person, 0), 0);
    assert_non_null(members_find(&members, conn_of_slot(1)));
    assert_null(members_find(&members, conn_of_slot(2)));
    members_clear(x, &members);
    roda_person_unref(person);
}

static void members_stay_as_they_are_without_memory(void **state)
{
    struct members members = {.list = NULL};
    struct roda_person *person = named("ana");

    (void)state;
    for (uint32_t slot = 1; slot < 200; slot++) {
        testhost_fail_allocation(host, 1);
        int r = members_add(x, &members, conn_of_slot(slot), person, 0);
        testhost_fail_allocation(host, 0);
        if (r) {
            assert_int_equal(r, -ENOMEM);
            assert_null(members_find(&members, conn_of_slot(slot)));
            assert_int_equal(members_add(x, &members, conn_of_slot(slot), person, 0), 0);
        }
        for (uint32_t before = 1; before <= slot; before++)
            assert_non_null(members_find(&members, conn_of_slot(before)));
    }
    members_clear(x, &members);
    roda_person_unref(person);
}

static void ids_name_one_thing(void **state)
{
    struct ids ids = {.slots = NULL};
    uint64_t id[100], stale[100];
    int values[100];

    (void)state;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 100; i++) {
            assert_int_equal(ids_add(x, &ids, 100, &values[i], &id[i]), 0);
            assert_true(id[i] != 0 && !(id[i] & ~IDS_MASK));
            if (round)
                assert_null(ids_find(&ids, stale[i]));
        }
        assert_int_equal(ids_add(x, &ids, 100, &values[0], &stale[0]), -ENFILE);
        for (int i = 0; i < 100; i++)
            assert_ptr_equal(ids_find(&ids, id[i]), &values[i]);
        for (int i = 0; i < 100; i++) {
            ids_remove(&ids, id[i]);
            ids_remove(&ids, id[i]); /* once more changes nothing */
            assert_null(ids_find(&ids, id[i]));
        }
        memcpy(stale, id, sizeof(stale));
    }
    /* A generation is never 0, however often an index is used. */
    for (uint32_t i = 0; i < 70000; i++) {
        assert_int_equal(ids_add(x, &ids, 100, &values[0], &id[0]), 0);
        assert_true(id[0] >> IDS_INDEX_BITS);
        ids_remove(&ids, id[0]);
    }
    assert_null(ids_find(&ids, 0));
    ids_clear(x, &ids);
}

static void nicks_are_like_a_set(void **state)
{
    static struct roda_person *people[PEOPLE];
    struct directory *d;
    uint32_t random = 3;
    char nick[32];

    (void)state;
    assert_int_equal(directory_new(x, 10, &d), 0);
    for (int step = 0; step < 30000; step++) {
        uint32_t i = draw(&random, PEOPLE);
        roda_conn_id conn = 0;
        (void)snprintf(nick, sizeof(nick), "%s%u", step % 2 ? "Nick" : "nICK", i);
        struct roda_person *found =
            directory_person(d, (struct roda_str){nick, strlen(nick)}, &conn);
        assert_ptr_equal(found, people[i]);
        roda_person_unref(found);
        if (people[i]) {
            struct roda_person *other = named(nick);
            assert_int_equal(directory_claim(x, d, other, 5), -EEXIST);
            directory_release(d, other); /* not his: no effect */
            roda_person_unref(other);
            directory_release(d, people[i]);
            roda_person_unref(people[i]);
            people[i] = NULL;
        } else {
            people[i] = named(nick);
            assert_int_equal(directory_claim(x, d, people[i], conn_of_slot(i)), 0);
        }
    }
    for (uint32_t i = 0; i < PEOPLE; i++) {
        roda_person_unref(people[i]);
        people[i] = NULL;
    }
    directory_free(x, d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(members_are_like_a_list, setup, teardown),
        cmocka_unit_test_setup_teardown(members_stay_as_they_are_without_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(ids_name_one_thing, setup, teardown),
        cmocka_unit_test_setup_teardown(nicks_are_like_a_set, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
