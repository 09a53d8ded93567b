#include "chat.h"

#include <ctype.h>

/* People: guests, nicks, away, leaving, and private messages. */

static size_t count_units(struct testhost_conn *c, const char *front)
{
    const char *got;
    size_t n = 0;

    while ((got = testhost_unit(c)))
        n += !strncmp(got, front, strlen(front));
    return n;
}

static struct roda_person *person_of(struct testhost *h, const char *nick)
{
    struct roda_ctx *x;
    const struct roda_rooms *rooms = chat_service(h, 0, &x);

    return rooms->person(x, (struct roda_str){nick, strlen(nick)}, NULL);
}

static void field_is(const struct roda_person *person, uint32_t field, const char *wanted)
{
    struct roda_str got = roda_person_get(person, field);

    assert_int_equal(got.len, strlen(wanted));
    assert_memory_equal(got.ptr, wanted, got.len);
}

/* ---- guests ----------------------------------------------------------------------------- */

static void guests_have_names_of_their_own(void **state)
{
    struct testhost *h = chat_start(2, NULL);
    struct testhost_conn *guests[50];

    (void)state;
    for (uint32_t i = 0; i < 50; i++)
        guests[i] = testhost_connect(h, i % 2, "plain", "tcp");
    assert_true(testhost_run(h));
    for (uint32_t i = 0; i < 50; i++) {
        struct roda_str nick =
            roda_person_get(roda_conn_person(testhost_conn(guests[i])), RODA_PERSON_NICK);
        assert_int_equal(nick.len, 9);
        assert_memory_equal(nick.ptr, "guest", 5);
        for (size_t at = 5; at < 9; at++)
            assert_true(isdigit((unsigned char)nick.ptr[at]));
        for (uint32_t j = 0; j < i; j++) {
            struct roda_str other =
                roda_person_get(roda_conn_person(testhost_conn(guests[j])), RODA_PERSON_NICK);
            assert_int_not_equal(memcmp(nick.ptr, other.ptr, 9), 0);
        }
    }
    chat_stop(h);
}

static void shown_hosts_hide_addresses(void **state)
{
    struct testhost *h = chat_start(1, NULL);
    static const struct {
        const char *transport, *address;
    } peers[] = {
        {"tcp", "127.0.0.1"},     {"tcp", "192.0.2.7"},   {"tcp", "::ffff:192.0.2.7"},
        {"tcp", "192.0.2.8"},     {"tcp", "2001:db8::1"}, {"tcp", "2001:db8::ffff:2"},
        {"tcp", "2001:db8:1::1"}, {"tcp", "::1"},
    };
    struct roda_str hosts[9];
    const struct roda_person *person;

    (void)state;
    for (size_t i = 0; i < 9; i++) {
        struct testhost_conn *c = testhost_connect(h, 0, "plain", i < 8 ? "tcp" : "unix");
        if (i < 8)
            testhost_set_peer(c, peers[i].address, 40000);
        assert_true(testhost_run(h));
        person = roda_conn_person(testhost_conn(c));
        hosts[i] = roda_person_get(person, RODA_PERSON_HOST);
        field_is(person, RODA_PERSON_DOOR, "plain");
    }
    assert_memory_equal(hosts[0].ptr, "localhost", 9);
    assert_memory_equal(hosts[7].ptr, "localhost", 9);
    assert_memory_equal(hosts[8].ptr, "localhost", 9);
    assert_int_equal(hosts[1].len, 11);
    assert_memory_equal(hosts[1].ptr + 8, ".ip", 3);
    assert_memory_equal(hosts[1].ptr, hosts[2].ptr, 11); /* the same address in another form */
    assert_int_not_equal(memcmp(hosts[1].ptr, hosts[3].ptr, 11), 0);
    assert_memory_equal(hosts[4].ptr, hosts[5].ptr, 11); /* the same /64 */
    assert_int_not_equal(memcmp(hosts[4].ptr, hosts[6].ptr, 11), 0);
    chat_stop(h);
}

/* ---- nicks ------------------------------------------------------------------------------ */

static void nicks(void **state)
{
    struct testhost *h = chat_start(2, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");

    (void)state;
    chat_forget(ana);
    chat_answered(h, bob, "NICK|||bea", RODA_OK);
    chat_hears(ana, "NICK|0|0|bob|lobby||bea|bea");
    chat_hears_nothing(ana);
    chat_answered(h, bob, "TEXT|lobby||hi", RODA_OK);
    chat_hears(ana, "TEXT|1|0|bea|lobby||hi");
    chat_answered(h, bob, "NICK|||ANA", RODA_E_TAKEN);
    chat_answered(h, bob, "NICK|||4ever", RODA_E_NAME);
    chat_answered(h, bob, "NICK|||", RODA_E_NAME);
    chat_answered(h, bob, "NICK|||bea", RODA_E_ALREADY);
    chat_answered(h, bob, "NICK|||Bea", RODA_OK); /* only the case */
    chat_hears(ana, "NICK|0|1|bea|lobby||Bea|Bea");
    chat_answered(h, ana, "NICK|||bEA", RODA_E_TAKEN);
    chat_answered(h, ana, "NICK|||bob", RODA_OK); /* free again */
    chat_answered(h, bob, "NICK|||ana", RODA_OK);
    /* e and a combining accent are kept as U+00E9. */
    chat_answered(h, bob, "NICK|||jose\xcc\x81", RODA_OK);
    chat_answered(h, ana, "NICK|||jos\xc3\xa9", RODA_E_TAKEN);
    assert_int_equal(testhost_metric(h, "rooms", "rooms_nick_changes_total"), 7);
    chat_stop(h);
}

static void a_nick_in_no_room(void **state)
{
    struct testhost *h = chat_start(1, "first_room =\n");
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 0, "bob");
    struct roda_person *person;

    (void)state;
    chat_answered(h, bob, "NICK|||ana", RODA_E_TAKEN);
    chat_answered(h, ana, "AWAY|||lunch", RODA_OK);
    person = person_of(h, "ana");
    field_is(person, RODA_PERSON_AWAY, "lunch");
    roda_person_unref(person);
    chat_say(ana, "QUIT|bye");
    assert_true(testhost_run(h));
    chat_hears(ana, "answer|0|QUIT|3|0|");
    chat_answered(h, bob, "NICK|||ana", RODA_OK);
    chat_stop(h);
}

/* Two people in 3 rooms whose homes differ: told once, in place, whatever order workers run in. */
static void who_shares_several_rooms_is_told_once(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed < 60; seed++) {
        struct testhost *h = chat_start(4, NULL);
        struct testhost_conn *ana = chat_enter(h, seed % 4, "ana");
        struct testhost_conn *bob = chat_enter(h, 1, "bob"), *eva = chat_enter(h, 2, "eva");
        struct testhost_conn *people[] = {ana, bob, eva};
        const char *rooms[] = {"JOIN|a||", "JOIN|b||", "JOIN|c||"}, *got;
        uint32_t random = seed, changed = 0;

        for (size_t i = 0; i < 3; i++)
            for (size_t r = 0; r < 3; r++)
                chat_answered(h, people[i], rooms[r], RODA_OK);
        for (size_t i = 0; i < 3; i++)
            chat_forget(people[i]);
        testhost_input(ana, "TEXT|a||1\nTEXT|b||2\nNICK|||anna\nTEXT|b||3\nTEXT|c||4\n");
        for (int turn = 0; turn < 100; turn++) {
            random = random * 1103515245u + 12345u;
            (void)testhost_turn_worker(h, random >> 16 & 3);
        }
        assert_true(testhost_run(h));
        for (size_t i = 1; i < 3; i++) {
            changed = 0;
            for (int texts = 0; (got = testhost_unit(people[i]));) {
                if (!strncmp(got, "NICK|", 5)) {
                    changed++;
                    assert_int_equal(texts, 2);
                    continue;
                }
                texts++;
                assert_non_null(strstr(got, changed ? "|anna|" : "|ana|"));
            }
            assert_int_equal(changed, 1);
        }
        assert_int_equal(count_units(ana, "NICK"), 0);
        testhost_reset(ana);
        assert_true(testhost_run(h));
        assert_int_equal(count_units(bob, "QUIT"), 1);
        assert_int_equal(count_units(eva, "QUIT"), 1);
        chat_answered(h, bob, "AWAY|||lunch", RODA_OK);
        assert_int_equal(count_units(eva, "AWAY"), 1);
        chat_stop(h);
    }
}

/* Somebody joins a room in between: the change is still told once, and never after a word by the
 * new name. */
static void nobody_is_left_out_who_joins_meanwhile(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed < 200; seed++) {
        struct testhost *h = chat_start(3, NULL);
        struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");
        uint32_t random = seed, changed = 0;
        const char *got;

        chat_answered(h, ana, "JOIN|a||", RODA_OK);
        chat_answered(h, ana, "JOIN|b||", RODA_OK);
        chat_answered(h, ana, "PART|lobby||", RODA_OK);
        chat_answered(h, bob, "JOIN|b||", RODA_OK);
        chat_forget(ana);
        chat_say(ana, "NICK|||anna");
        chat_say(bob, "JOIN|a||");
        for (int turn = 0; turn < 60; turn++) {
            random = random * 1103515245u + 12345u;
            (void)testhost_turn_worker(h, (random >> 16) % 3);
        }
        assert_true(testhost_run(h));
        while ((got = testhost_unit(bob)))
            changed += !strncmp(got, "NICK|", 5);
        assert_int_equal(changed, 1);
        chat_stop(h);
    }
}

static void a_nick_is_reserved_until_all_rooms_know(void **state)
{
    struct testhost *h = chat_start(3, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");

    (void)state;
    chat_answered(h, ana, "JOIN|a||", RODA_OK);
    chat_say(ana, "NICK|||anna");
    (void)testhost_turn_worker(h, 0); /* under way */
    chat_say(bob, "NICK|||ana");
    (void)testhost_turn_worker(h, 1);
    chat_say(bob, "NICK|||anna");
    (void)testhost_turn_worker(h, 1);
    assert_true(testhost_run(h));
    chat_forget(ana);
    chat_answered(h, bob, "TEXT+d|anna||hi", RODA_OK);
    chat_hears(ana, "TEXT|1|0|bob|anna||hi");
    chat_answered(h, bob, "NICK|||ana", RODA_OK);
    chat_stop(h);
}

static void a_person_who_goes_in_the_middle_of_a_change(void **state)
{
    (void)state;
    for (uint32_t turns = 0; turns < 30; turns++) {
        struct testhost *h = chat_start(3, NULL);
        struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 2, "bob");
        const char *change = turns % 3 == 0   ? "NICK|||anna"
                             : turns % 3 == 1 ? "NICK|||ANA"
                                              : "AWAY|||x";

        chat_answered(h, ana, "JOIN|a||", RODA_OK);
        chat_answered(h, bob, "JOIN|a||", RODA_OK);
        chat_answered(h, ana, "JOIN|b||", RODA_OK);
        chat_forget(bob);
        chat_say(ana, change);
        for (uint32_t i = 0; i < turns / 3; i++)
            (void)testhost_turn_worker(h, i % 3);
        testhost_reset(ana);
        assert_true(testhost_run(h));
        assert_int_equal(count_units(bob, "QUIT"), 1);
        assert_int_equal(testhost_metric(h, "rooms", "rooms_members"), 2);
        /* Both names are free. */
        chat_answered(h, bob, "NICK|||ana", RODA_OK);
        chat_answered(h, bob, "NICK|||anna", RODA_OK);
        chat_stop(h);
    }
}

/* ---- away, quit ------------------------------------------------------------------------- */

static void away_and_back(void **state)
{
    struct testhost *h = chat_start(2, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");
    struct roda_person *person;

    (void)state;
    chat_forget(ana);
    chat_answered(h, bob, "AWAY|||", RODA_E_ALREADY);
    chat_answered(h, bob, "AWAY|||lunch", RODA_OK);
    chat_hears(ana, "AWAY|0|0|bob|lobby||lunch|bob");
    chat_answered(h, bob, "AWAY|||lunch", RODA_E_ALREADY);
    person = person_of(h, "BOB");
    field_is(person, RODA_PERSON_AWAY, "lunch");
    roda_person_unref(person);
    chat_answered(h, bob, "AWAY|||", RODA_OK);
    chat_hears(ana, "AWAY|0|0|bob|lobby|||bob");
    chat_stop(h);
}

static void quits_say_why(void **state)
{
    struct testhost *h = chat_start(2, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");
    struct testhost_conn *eva = chat_enter(h, 1, "eva");
    char line[600];

    (void)state;
    chat_forget(ana);
    testhost_input(bob, "TEXT|lobby||tchau\nQUIT|gone fishing\n");
    assert_true(testhost_run(h));
    chat_hears(ana, "TEXT|1|0|bob|lobby||tchau");
    chat_hears(ana, "QUIT|0|1|bob|lobby||gone fishing");
    testhost_end_input(eva);
    assert_true(testhost_run(h));
    chat_hears(ana, "QUIT|0|1|eva|lobby||*");
    chat_hears_nothing(ana);
    bob = chat_enter(h, 1, "bob"); /* free */
    chat_forget(ana);
    (void)snprintf(line, sizeof(line), "QUIT|%0391d", 7);
    chat_say(bob, line);
    assert_true(testhost_run(h));
    assert_int_equal(count_units(ana, "QUIT"), 1);
    chat_stop(h);
}

/* Whoever is gone hears nothing and is found by nobody, though the rooms do not know yet. */
static void gone_is_gone(void **state)
{
    struct testhost *h = chat_start(3, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");

    (void)state;
    for (const char *room = "abcdef"; *room; room++) { /* their homes are on all workers */
        char line[] = "JOIN|?||";
        line[5] = *room;
        chat_answered(h, bob, line, RODA_OK);
    }
    testhost_reset(bob);
    for (int i = 0; i < 3; i++)
        (void)testhost_turn_worker(h, 1);
    chat_forget(ana);
    testhost_input(ana, "TEXT+d|bob||psst\nTEXT|lobby||hi\n");
    assert_true(testhost_run(h));
    assert_int_equal(count_units(ana, "answer|4|TEXT|"), 1);
    assert_int_equal(testhost_metric(h, "rooms", "rooms_members"), 1);
    chat_stop(h);
}

/* A JOIN is on its way when its sender vanishes: no ghost stays. */
static void no_ghost_stays(void **state)
{
    (void)state;
    for (uint32_t turns = 0; turns < 20; turns++) {
        struct testhost *h = chat_start(3, NULL);
        struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");

        chat_say(bob, turns % 2 ? "JOIN|ops||" : "PART|lobby||");
        for (uint32_t i = 0; i < turns / 2; i++)
            (void)testhost_turn_worker(h, (i + 1) % 3);
        testhost_reset(bob);
        assert_true(testhost_run(h));
        assert_int_equal(testhost_metric(h, "rooms", "rooms_members"), 1);
        assert_int_equal(testhost_metric(h, "rooms", "rooms_open"), 1);
        chat_answered(h, ana, "NICK|||bob", RODA_OK);
        chat_stop(h);
    }
}

/* ---- private messages ------------------------------------------------------------------- */

static void private_messages(void **state)
{
    struct testhost *h = chat_start(4, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 3, "Bob");
    struct testhost_conn *eva = chat_enter(h, 2, "eva");

    (void)state;
    chat_forget(bob);
    chat_forget(eva);
    chat_answered(h, ana, "TEXT+d|BOB||psst", RODA_OK);
    chat_hears(bob, "TEXT|1|0|ana|Bob||psst");
    chat_answered(h, bob, "NOTICE+d|ana||hm", RODA_OK);
    chat_hears(ana, "NOTICE|2|1|Bob|ana||hm");
    chat_answered(h, ana, "TYPING+od|bob||", RODA_OK);
    chat_hears(bob, "TYPING|0|2|ana|Bob||");
    chat_answered(h, ana, "TEXT+d|ana||note to self", RODA_OK);
    chat_answered(h, ana, "TEXT+d|nobody||psst", RODA_E_NO_PERSON);
    chat_answered(h, ana, "TEXT+d|lobby||psst", RODA_E_NO_PERSON); /* a room, not a person */
    chat_answered(h, ana, "TEXT|bob||psst", RODA_E_NO_ROOM);       /* a person, not a room */
    chat_answered(h, ana, "TEXT+d|bob||", RODA_E_ARGUMENT);
    chat_hears_nothing(eva);
    assert_int_equal(testhost_metric(h, "rooms", "rooms_direct_total"), 4);
    /* A new nick changes nothing in the pair's order. */
    chat_answered(h, bob, "NICK|||rob", RODA_OK);
    chat_forget(ana);
    chat_answered(h, bob, "TEXT+d|ana||me", RODA_OK);
    chat_hears(ana, "TEXT|3|2|rob|ana||me");
    chat_stop(h);
}

static void one_sender_keeps_the_order_over_rooms_and_people(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed < 40; seed++) {
        struct testhost *h = chat_start(4, NULL);
        struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 3, "bob");
        uint32_t random = seed;
        const char *got;

        chat_answered(h, ana, "JOIN|ops||", RODA_OK);
        chat_answered(h, bob, "JOIN|ops||", RODA_OK);
        chat_forget(ana);
        testhost_input(ana, "TEXT|lobby||1\nTEXT|ops||2\nTEXT+d|bob||3\nTEXT|lobby||4\n"
                            "TEXT+d|bob||5\nTEXT+d|bob||6\n");
        for (int turn = 0; turn < 60; turn++) {
            random = random * 1103515245u + 12345u;
            (void)testhost_turn_worker(h, random >> 16 & 3);
        }
        assert_true(testhost_run(h));
        for (char wanted = '1'; wanted <= '6'; wanted++) {
            got = testhost_unit(bob);
            assert_non_null(got);
            assert_int_equal(got[strlen(got) - 1], wanted);
        }
        chat_stop(h);
    }
}

static void idle_pairs_are_forgotten(void **state)
{
    struct testhost *h = chat_start(1, "max_pairs = 16\n");
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *people[20];
    char line[64];

    (void)state;
    for (int i = 0; i < 20; i++) {
        (void)snprintf(line, sizeof(line), "p%d", i);
        people[i] = chat_enter(h, 0, line);
    }
    for (int i = 0; i < 16; i++) {
        (void)snprintf(line, sizeof(line), "TEXT+d|p%d||hi", i);
        chat_answered(h, ana, line, RODA_OK);
    }
    chat_answered(h, ana, "TEXT+d|p0||hi", RODA_OK);  /* used again: p1 is now the oldest */
    chat_answered(h, ana, "TEXT+d|p16||hi", RODA_OK); /* takes its place */
    chat_forget(people[0]);
    chat_forget(people[1]);
    chat_answered(h, ana, "TEXT+d|p0||hi", RODA_OK);
    chat_hears(people[0], "TEXT|3|2|ana|p0||hi");
    chat_answered(h, ana, "TEXT+d|p1||hi", RODA_OK);
    chat_hears(people[1], "TEXT|1|0|ana|p1||hi");
    chat_stop(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guests_have_names_of_their_own),
        cmocka_unit_test(shown_hosts_hide_addresses),
        cmocka_unit_test(nicks),
        cmocka_unit_test(a_nick_in_no_room),
        cmocka_unit_test(who_shares_several_rooms_is_told_once),
        cmocka_unit_test(nobody_is_left_out_who_joins_meanwhile),
        cmocka_unit_test(a_nick_is_reserved_until_all_rooms_know),
        cmocka_unit_test(a_person_who_goes_in_the_middle_of_a_change),
        cmocka_unit_test(away_and_back),
        cmocka_unit_test(quits_say_why),
        cmocka_unit_test(gone_is_gone),
        cmocka_unit_test(no_ghost_stays),
        cmocka_unit_test(private_messages),
        cmocka_unit_test(one_sender_keeps_the_order_over_rooms_and_people),
        cmocka_unit_test(idle_pairs_are_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
