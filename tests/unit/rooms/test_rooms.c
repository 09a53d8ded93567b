#include "chat.h"

/* Rooms as their members see them: joining, talking, leaving, ranks and modes. */

static const uint32_t worker_counts[] = {1, 2, 4};

/* ---- coming, talking, going ------------------------------------------------------------- */

static void everybody_enters_the_first_room(void **state)
{
    struct testhost *h = chat_start(2, NULL);
    struct testhost_conn *ana = testhost_connect(h, 0, "plain", "tcp"), *bob;

    (void)state;
    assert_true(testhost_run(h));
    chat_hears(ana, "answer|0|JOIN|0|0|");
    bob = testhost_connect(h, 1, "plain", "tcp");
    assert_true(testhost_run(h));
    chat_hears(bob, "answer|0|JOIN|0|0|");
    chat_hears_nothing(bob);
    chat_hears(ana, "JOIN|0|0|guest*|lobby||");
    chat_hears_nothing(ana);
    assert_int_equal(testhost_metric(h, "rooms", "rooms_members"), 2);
    chat_stop(h);
}

static void no_first_room_means_none(void **state)
{
    struct testhost *h = chat_start(1, "first_room =\n");
    struct testhost_conn *ana = chat_enter(h, 0, "ana");

    (void)state;
    chat_answered(h, ana, "TEXT|lobby||hi", RODA_E_NO_ROOM);
    assert_int_equal(testhost_metric(h, "rooms", "rooms_open"), 0);
    chat_stop(h);
}

/* The number of a TEXT or of the answer to one; 0: something else. */
static uint64_t number_of(const char *unit)
{
    if (!strncmp(unit, "TEXT|", 5))
        return strtoull(unit + 5, NULL, 10);
    if (!strncmp(unit, "answer|0|TEXT|", 14))
        return strtoull(strchr(unit + 14, '|') + 1, NULL, 10);
    return 0;
}

static void all_hear_all_in_one_order(void **state)
{
    enum { PEOPLE = 4, ROUNDS = 5 };
    const char *nicks[PEOPLE] = {"ana", "bob", "eva", "leo"}, *got;

    (void)state;
    for (size_t w = 0; w < sizeof(worker_counts) / sizeof(*worker_counts); w++) {
        struct testhost *h = chat_start(worker_counts[w], NULL);
        struct testhost_conn *people[PEOPLE];
        char said[PEOPLE * ROUNDS + 1][100] = {""};

        for (uint32_t i = 0; i < PEOPLE; i++)
            people[i] = chat_enter(h, i % worker_counts[w], nicks[i]);
        for (uint32_t i = 0; i < PEOPLE; i++)
            chat_forget(people[i]);
        for (uint32_t i = 0; i < PEOPLE * ROUNDS; i++)
            chat_say(people[i % PEOPLE], "TEXT|lobby||hi");
        assert_true(testhost_run(h));
        for (uint32_t i = 0; i < PEOPLE; i++) {
            uint64_t last = 0;
            while ((got = testhost_unit(people[i]))) {
                assert_int_equal(number_of(got), ++last);
                assert_in_range(last, 1, PEOPLE * ROUNDS);
                if (strncmp(got, "TEXT", 4) != 0)
                    continue;
                if (!*said[last])
                    (void)snprintf(said[last], sizeof(said[last]), "%s", got);
                assert_string_equal(got, said[last]);
            }
            assert_int_equal(last, PEOPLE * ROUNDS);
        }
        chat_stop(h);
    }
}

static void names_are_folded_and_shown_as_first_written(void **state)
{
    struct testhost *h = chat_start(2, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");
    struct roda_ctx *x;
    const struct roda_rooms *rooms = chat_service(h, 1, &x);
    struct roda_room room;

    (void)state;
    chat_answered(h, ana, "JOIN|Ops||", RODA_OK);
    chat_answered(h, bob, "JOIN|oPS||", RODA_OK);
    chat_forget(ana);
    chat_answered(h, bob, "TEXT|OPS||hi", RODA_OK);
    chat_hears(ana, "TEXT|1|0|bob|Ops||hi");
    assert_int_equal(rooms->find(x, testhost_conn(bob), RODA_STR("opS"), &room), 0);
    assert_int_equal(room.name.len, 3);
    assert_memory_equal(room.name.ptr, "Ops", 3);
    /* e and a combining acute accent are U+00E9. */
    chat_answered(h, ana, "JOIN|caf\x65\xcc\x81||", RODA_OK);
    chat_answered(h, bob, "JOIN|caf\xc3\xa9||", RODA_OK);
    chat_hears(ana, "JOIN|0|0|bob|caf\xc3\xa9||");
    chat_stop(h);
}

static void a_line_behind_a_join_goes_to_the_room(void **state)
{
    struct testhost *h = chat_start(4, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");

    (void)state;
    chat_answered(h, bob, "JOIN|ops||", RODA_OK);
    chat_forget(ana);
    testhost_input(ana,
                   "JOIN|ops||\nTEXT|ops||hi\nPART|ops||bye\nTEXT|ops||again\nTEXT|lobby||x\n");
    assert_true(testhost_run(h));
    chat_hears(ana, "answer|0|JOIN|2|0|");
    chat_hears(ana, "answer|0|TEXT|3|1|");
    chat_hears(ana, "answer|0|PART|4|0|");
    chat_hears(ana, "answer|5|TEXT|5|0|*");
    chat_hears(ana, "answer|0|TEXT|6|1|");
    chat_hears(bob, "JOIN|0|0|ana|ops||");
    chat_hears(bob, "TEXT|1|0|ana|ops||hi");
    chat_hears(bob, "PART|0|1|ana|ops||bye");
    chat_hears(bob, "TEXT|1|0|ana|lobby||x");
    chat_hears_nothing(bob);
    chat_stop(h);
}

static void an_empty_room_is_given_up(void **state)
{
    (void)state;
    for (size_t w = 0; w < sizeof(worker_counts) / sizeof(*worker_counts); w++) {
        struct testhost *h = chat_start(worker_counts[w], NULL);
        struct testhost_conn *ana = chat_enter(h, 0, "ana");
        struct testhost_conn *bob = chat_enter(h, worker_counts[w] - 1, "bob");

        for (int round = 0; round < 3; round++) {
            chat_answered(h, ana, "JOIN|ops||", RODA_OK);
            chat_answered(h, bob, "JOIN|ops||", RODA_OK);
            chat_forget(ana);
            chat_answered(h, bob, "TEXT|ops||hi", RODA_OK);
            chat_hears(ana, "TEXT|1|0|bob|ops||hi"); /* numbers begin again */
            assert_int_equal(testhost_metric(h, "rooms", "rooms_open"), 2);
            chat_answered(h, bob, "PART|ops||", RODA_OK);
            chat_answered(h, ana, "PART|ops||", RODA_OK);
            assert_int_equal(testhost_metric(h, "rooms", "rooms_open"), 1);
            chat_answered(h, ana, "TEXT|ops||hi", RODA_E_NO_ROOM);
        }
        testhost_reset(ana);
        testhost_reset(bob);
        assert_true(testhost_run(h));
        /* The first room stays, and so do its numbers. */
        assert_int_equal(testhost_metric(h, "rooms", "rooms_open"), 1);
        assert_int_equal(testhost_metric(h, "rooms", "rooms_members"), 0);
        chat_stop(h);
    }
}

/* PART of the last member and JOIN of another at the same time: the home is never given up under
 * the one who comes. */
static void a_room_is_not_given_up_under_a_join(void **state)
{
    (void)state;
    for (uint32_t turns = 0; turns < 12; turns++) {
        struct testhost *h = chat_start(3, NULL);
        struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 2, "bob");

        chat_answered(h, ana, "JOIN|ops||", RODA_OK);
        chat_say(ana, "PART|ops||");
        for (uint32_t i = 0; i < turns; i++)
            (void)testhost_turn_worker(h, i % 3);
        chat_answered(h, bob, "JOIN|ops||", RODA_OK);
        chat_answered(h, bob, "TEXT|ops||hi", RODA_OK);
        assert_int_equal(testhost_metric(h, "rooms", "rooms_open"), 2);
        chat_answered(h, bob, "PART|ops||", RODA_OK);
        assert_int_equal(testhost_metric(h, "rooms", "rooms_open"), 1);
        chat_stop(h);
    }
}

static void refusals(void **state)
{
    struct testhost *h = chat_start(2, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");
    char line[600];

    (void)state;
    chat_answered(h, bob, "JOIN|ops||", RODA_OK);
    chat_answered(h, ana, "TEXT|ops||hi", RODA_E_NOT_MEMBER);
    chat_answered(h, ana, "PART|ops||", RODA_E_NOT_MEMBER);
    chat_answered(h, ana, "TOPIC|ops||x", RODA_E_NOT_MEMBER);
    chat_answered(h, ana, "TEXT|nowhere||hi", RODA_E_NO_ROOM);
    chat_answered(h, ana, "TEXT|||hi", RODA_E_NO_ROOM);
    chat_answered(h, ana, "TEXT|lobby||", RODA_E_ARGUMENT);
    chat_answered(h, ana, "JOIN|lobby||", RODA_E_ALREADY);
    chat_answered(h, ana, "JOIN|a,b||", RODA_E_NAME);
    chat_answered(h, ana, "JOIN|||", RODA_E_NAME);
    chat_answered(h, ana, "RENAME|lobby||x", RODA_E_UNKNOWN);
    chat_answered(h, ana, "TOPIC|lobby||", RODA_E_ALREADY);
    (void)snprintf(line, sizeof(line), "TOPIC|lobby||%0390d", 7);
    chat_answered(h, ana, line, RODA_OK);
    (void)snprintf(line, sizeof(line), "TOPIC|lobby||%0391d", 7);
    chat_answered(h, ana, line, RODA_E_TEXT);
    (void)snprintf(line, sizeof(line), "PART|lobby||%0391d", 7);
    chat_answered(h, ana, line, RODA_E_TEXT);
    chat_answered(h, ana, "KICK|lobby|bob|", RODA_E_RANK); /* nobody owns the first room */
    chat_answered(h, ana, "MODE|lobby||+m", RODA_E_RANK);
    chat_stop(h);
}

/* ---- limits ----------------------------------------------------------------------------- */

static void limits(void **state)
{
    struct testhost *h =
        chat_start(2, "max_rooms = 3\nrooms_per_connection = 2\nmax_members = 2\n");
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");
    struct testhost_conn *eva = testhost_connect(h, 1, "plain", "tcp");

    (void)state;
    assert_true(testhost_run(h));
    chat_hears(eva, "answer|14|JOIN|0|0|the room is full");
    chat_answered(h, ana, "JOIN|a||", RODA_OK);
    chat_answered(h, ana, "JOIN|b||", RODA_E_FULL); /* rooms per connection */
    chat_answered(h, bob, "JOIN|b||", RODA_OK);
    chat_answered(h, eva, "JOIN|c||", RODA_E_FULL); /* rooms */
    chat_answered(h, eva, "JOIN|a||", RODA_OK);
    chat_answered(h, ana, "PART|lobby||", RODA_OK);
    chat_answered(h, eva, "JOIN|lobby||", RODA_OK);
    chat_answered(h, ana, "JOIN|lobby||", RODA_E_FULL); /* members */
    chat_answered(h, bob, "PART|b||", RODA_OK);
    chat_answered(h, ana, "JOIN|c||", RODA_OK); /* b's place is free again */
    chat_stop(h);
}

static void nobody_may_create(void **state)
{
    struct testhost *h = chat_start(1, "create = nobody\n");
    struct testhost_conn *ana = chat_enter(h, 0, "ana");

    (void)state;
    chat_answered(h, ana, "JOIN|ops||", RODA_E_NO_ROOM);
    chat_answered(h, ana, "TEXT|lobby||hi", RODA_OK);
    chat_stop(h);
}

static void a_listener_has_a_first_room_of_its_own(void **state)
{
    struct testhost *h = testhost_new(1);
    struct testhost_conn *ana, *bob;

    (void)state;
    assert_int_equal(testhost_load(h, &rooms_plugin, NULL), 0);
    assert_int_equal(testhost_listener(h, "back", "plain", "unix", "rooms.first_room = ops\n"), 0);
    assert_int_equal(testhost_start(h), 0);
    ana = testhost_connect_listener(h, 0, "back");
    bob = testhost_connect_listener(h, 0, "back");
    assert_true(testhost_run(h));
    chat_forget(ana);
    chat_forget(bob);
    chat_answered(h, bob, "TEXT|ops||hi", RODA_OK);
    chat_hears(ana, "TEXT|1|0|guest*|ops||hi");
    chat_answered(h, ana, "MODE|ops||+m", RODA_E_RANK); /* came there by itself: owns nothing */
    chat_stop(h);
}

static void a_first_room_must_be_a_name(void **state)
{
    struct testhost *h = testhost_new(1);

    (void)state;
    assert_int_not_equal(testhost_load(h, &rooms_plugin, "first_room = #lobby\n"), 0);
    assert_non_null(strstr(testhost_error(h), "first_room"));
    (void)testhost_stop(h);
    testhost_free(h);
}

/* ---- presence --------------------------------------------------------------------------- */

static void large_rooms_show_nobody_coming_or_going(void **state)
{
    struct testhost *h = chat_start(2, "presence_up_to = 2\n");
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob"), *eva;
    struct roda_ctx *x;
    const struct roda_rooms *rooms = chat_service(h, 1, &x);
    struct roda_room room;

    (void)state;
    chat_hears(ana, "JOIN|0|0|guest*|lobby||");
    chat_forget(ana);
    chat_forget(bob);
    eva = chat_enter(h, 0, "eva"); /* the third: quiet */
    chat_answered(h, eva, "AWAY|||lunch", RODA_OK);
    chat_answered(h, eva, "TYPING|lobby||", RODA_OK);
    chat_hears_nothing(ana);
    chat_hears_nothing(bob);
    chat_answered(h, eva, "TEXT|lobby||hi", RODA_OK);
    chat_hears(ana, "TEXT|1|0|eva|lobby||hi");
    chat_hears(bob, "TEXT|1|0|eva|lobby||hi");
    assert_int_equal(rooms->find(x, testhost_conn(bob), RODA_STR("lobby"), &room), 0);
    assert_int_equal(room.members, 3);
    chat_answered(h, eva, "PART|lobby||bye", RODA_OK);
    chat_hears_nothing(ana);
    chat_answered(h, bob, "TEXT|lobby||still", RODA_OK);
    chat_hears(ana, "TEXT|2|1|bob|lobby||still");
    chat_hears_nothing(eva); /* carried out all the same */
    chat_answered(h, eva, "JOIN|lobby||", RODA_OK);
    testhost_reset(eva);
    assert_true(testhost_run(h));
    chat_hears_nothing(ana);
    chat_answered(h, bob, "PART|lobby||bye", RODA_OK); /* two again: shown */
    chat_hears(ana, "PART|0|2|bob|lobby||bye");
    chat_stop(h);
}

static void typing_is_shown_and_has_no_number(void **state)
{
    struct testhost *h = chat_start(2, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");

    (void)state;
    chat_forget(ana);
    chat_answered(h, bob, "TEXT|lobby||hi", RODA_OK);
    chat_answered(h, bob, "TYPING+o|lobby||", RODA_OK);
    chat_hears(ana, "TEXT|1|0|bob|lobby||hi");
    chat_hears(ana, "TYPING|0|1|bob|lobby||");
    chat_stop(h);
}

/* ---- ranks and modes -------------------------------------------------------------------- */

struct crew {
    struct testhost *h;
    struct testhost_conn *ana, *bob, *eva; /* ana owns ops; bob and eva are in it */
};

static struct crew crew_start(uint32_t n_workers)
{
    struct crew crew = {.h = chat_start(n_workers, NULL)};

    crew.ana = chat_enter(crew.h, 0, "ana");
    crew.bob = chat_enter(crew.h, 1 % n_workers, "bob");
    crew.eva = chat_enter(crew.h, 2 % n_workers, "eva");
    chat_answered(crew.h, crew.ana, "JOIN|ops||", RODA_OK);
    chat_answered(crew.h, crew.bob, "JOIN|ops||", RODA_OK);
    chat_answered(crew.h, crew.eva, "JOIN|ops||", RODA_OK);
    chat_forget(crew.ana);
    chat_forget(crew.bob);
    return crew;
}

static void kicks(void **state)
{
    (void)state;
    for (size_t w = 0; w < sizeof(worker_counts) / sizeof(*worker_counts); w++) {
        struct crew crew = crew_start(worker_counts[w]);

        chat_answered(crew.h, crew.bob, "KICK|ops|eva|", RODA_E_RANK);
        chat_answered(crew.h, crew.ana, "KICK|ops|nobody|", RODA_E_TARGET);
        chat_answered(crew.h, crew.ana, "KICK|ops|EVA|too loud", RODA_OK);
        chat_hears(crew.eva, "KICK|1|0|ana|ops|EVA|too loud");
        chat_hears(crew.bob, "KICK|1|0|ana|ops|EVA|too loud");
        chat_answered(crew.h, crew.eva, "TEXT|ops||hi", RODA_E_NOT_MEMBER);
        chat_answered(crew.h, crew.ana, "TEXT|ops||hi", RODA_OK);
        chat_hears(crew.bob, "TEXT|2|1|ana|ops||hi");
        chat_hears_nothing(crew.eva);
        chat_answered(crew.h, crew.ana, "KICK|ops|eva|", RODA_E_TARGET);
        chat_answered(crew.h, crew.eva, "JOIN|ops||", RODA_OK);
        chat_answered(crew.h, crew.ana, "MODE|ops|bob|+o", RODA_OK);
        chat_answered(crew.h, crew.bob, "KICK|ops|ana|", RODA_E_RANK); /* an owner ranks higher */
        chat_answered(crew.h, crew.bob, "KICK|ops|eva|", RODA_OK);
        chat_answered(crew.h, crew.ana, "KICK|ops|ana|", RODA_OK); /* oneself */
        chat_answered(crew.h, crew.ana, "TEXT|ops||hi", RODA_E_NOT_MEMBER);
        chat_stop(crew.h);
    }
}

static void ranks(void **state)
{
    struct crew crew = crew_start(2);

    (void)state;
    chat_answered(crew.h, crew.bob, "MODE|ops|eva|+v", RODA_E_RANK);
    chat_answered(crew.h, crew.ana, "MODE|ops|bob|+o", RODA_OK);
    chat_hears(crew.eva, "MODE|1|0|ana|ops|bob|+o");
    chat_answered(crew.h, crew.ana, "MODE|ops|bob|+o", RODA_E_ALREADY);
    chat_answered(crew.h, crew.bob, "MODE|ops|eva|+o", RODA_E_RANK); /* that needs the owner */
    chat_answered(crew.h, crew.bob, "MODE|ops|eva|+v", RODA_OK);
    chat_answered(crew.h, crew.bob, "MODE|ops|ana|-v", RODA_E_RANK); /* not an owner's */
    chat_answered(crew.h, crew.bob, "MODE|ops|nobody|+v", RODA_E_TARGET);
    chat_answered(crew.h, crew.ana, "MODE|ops|bob|-o", RODA_OK);
    chat_answered(crew.h, crew.bob, "MODE|ops|eva|-v", RODA_E_RANK);
    chat_answered(crew.h, crew.ana, "MODE|ops||", RODA_E_ARGUMENT);
    chat_answered(crew.h, crew.ana, "MODE|ops||+z", RODA_E_ARGUMENT);
    chat_answered(crew.h, crew.ana, "MODE|ops||+mi", RODA_E_ARGUMENT);
    chat_stop(crew.h);
}

static void modes(void **state)
{
    struct crew crew = crew_start(2);
    struct testhost_conn *leo = chat_enter(crew.h, 1, "leo");

    (void)state;
    chat_answered(crew.h, crew.ana, "MODE|ops||+m", RODA_OK);
    chat_answered(crew.h, crew.ana, "MODE|ops||+m", RODA_E_ALREADY);
    chat_answered(crew.h, crew.bob, "TEXT|ops||hi", RODA_E_MODERATED);
    chat_answered(crew.h, crew.ana, "MODE|ops|bob|+v", RODA_OK);
    chat_answered(crew.h, crew.bob, "TEXT|ops||hi", RODA_OK);
    chat_answered(crew.h, crew.ana, "MODE|ops||-m", RODA_OK);
    chat_answered(crew.h, crew.eva, "TEXT|ops||hi", RODA_OK);

    chat_answered(crew.h, crew.ana, "MODE|ops||+t", RODA_OK);
    chat_answered(crew.h, crew.bob, "TOPIC|ops||x", RODA_E_RANK);
    chat_answered(crew.h, crew.ana, "TOPIC|ops||x", RODA_OK);
    chat_answered(crew.h, crew.ana, "TOPIC|ops||x", RODA_E_ALREADY);

    chat_answered(crew.h, crew.ana, "MODE|ops||+k", RODA_E_ARGUMENT);
    chat_answered(crew.h, crew.ana, "MODE|ops|a b|+k", RODA_E_ARGUMENT);
    chat_answered(crew.h, crew.ana, "MODE|ops|sesame|+k", RODA_OK);
    chat_answered(crew.h, leo, "JOIN|ops||", RODA_E_KEY);
    chat_answered(crew.h, leo, "JOIN|ops|sesam|", RODA_E_KEY);
    chat_answered(crew.h, leo, "JOIN|ops|sesame|", RODA_OK);
    chat_answered(crew.h, leo, "PART|ops||", RODA_OK);
    chat_answered(crew.h, crew.ana, "MODE|ops||-k", RODA_OK);
    chat_answered(crew.h, crew.ana, "MODE|ops||-k", RODA_E_ALREADY);

    chat_answered(crew.h, crew.ana, "MODE|ops||+i", RODA_OK);
    chat_answered(crew.h, leo, "JOIN|ops||", RODA_E_INVITE_ONLY);
    chat_answered(crew.h, crew.bob, "INVITE|ops|leo|", RODA_E_RANK);
    chat_answered(crew.h, crew.ana, "INVITE|ops|nobody|", RODA_E_NO_PERSON);
    chat_answered(crew.h, crew.ana, "INVITE|ops|bob|", RODA_E_ALREADY);
    chat_answered(crew.h, crew.ana, "INVITE|ops|leo|", RODA_OK);
    chat_hears(leo, "INVITE|0|*|ana|ops|leo|");
    chat_answered(crew.h, leo, "JOIN|ops||", RODA_OK);
    chat_answered(crew.h, leo, "PART|ops||", RODA_OK);
    chat_answered(crew.h, leo, "JOIN|ops||", RODA_E_INVITE_ONLY); /* good for once */
    chat_stop(crew.h);
}

static void bans(void **state)
{
    struct crew crew = crew_start(2);
    struct testhost_conn *leo = chat_enter(crew.h, 1, "leo");
    char line[200];

    (void)state;
    chat_answered(crew.h, crew.ana, "MODE|ops|LEO|+b", RODA_OK);
    chat_answered(crew.h, crew.ana, "MODE|ops|leo|+b", RODA_E_ALREADY);
    chat_answered(crew.h, leo, "JOIN|ops||", RODA_E_BANNED);
    chat_answered(crew.h, crew.ana, "MODE|ops|leo|-b", RODA_OK);
    chat_answered(crew.h, crew.ana, "MODE|ops|leo|-b", RODA_E_ALREADY);
    chat_answered(crew.h, leo, "JOIN|ops||", RODA_OK);
    chat_answered(crew.h, leo, "PART|ops||", RODA_OK);
    chat_answered(crew.h, crew.ana, "MODE|ops|l?o*|+b", RODA_OK);
    chat_answered(crew.h, leo, "JOIN|ops||", RODA_E_BANNED);
    chat_answered(crew.h, leo, "NICK|||lxxo", RODA_OK);
    chat_answered(crew.h, leo, "JOIN|ops||", RODA_OK);
    chat_answered(crew.h, leo, "PART|ops||", RODA_OK);
    chat_answered(crew.h, crew.ana, "MODE|ops|*@*|+b", RODA_OK);
    chat_answered(crew.h, leo, "JOIN|ops||", RODA_E_BANNED);
    chat_answered(crew.h, crew.ana, "MODE|ops|*@*|-b", RODA_OK);
    chat_answered(crew.h, crew.ana, "MODE|ops|*@nowhere.example|+b", RODA_OK);
    chat_answered(crew.h, leo, "JOIN|ops||", RODA_OK);
    chat_answered(crew.h, crew.ana, "MODE|ops||+b", RODA_E_ARGUMENT);
    (void)snprintf(line, sizeof(line), "MODE|ops|%0129d|+b", 7);
    chat_answered(crew.h, crew.ana, line, RODA_E_ARGUMENT);
    for (int i = 2; i < 100; i++) {
        (void)snprintf(line, sizeof(line), "MODE|ops|ban%d|+b", i);
        chat_answered(crew.h, crew.ana, line, RODA_OK);
    }
    chat_answered(crew.h, crew.ana, "MODE|ops|onemore|+b", RODA_E_FULL);
    chat_stop(crew.h);
}

static void invited_are_forgotten_from_the_oldest(void **state)
{
    struct crew crew = crew_start(1);
    struct testhost_conn *guests[101];
    char line[64];

    (void)state;
    chat_answered(crew.h, crew.ana, "MODE|ops||+i", RODA_OK);
    for (int i = 0; i < 101; i++) {
        (void)snprintf(line, sizeof(line), "g%d", i);
        guests[i] = chat_enter(crew.h, 0, line);
        (void)snprintf(line, sizeof(line), "INVITE|ops|g%d|", i);
        chat_answered(crew.h, crew.ana, line, RODA_OK);
    }
    chat_answered(crew.h, guests[0], "JOIN|ops||", RODA_E_INVITE_ONLY);
    chat_answered(crew.h, guests[1], "JOIN|ops||", RODA_OK);
    chat_answered(crew.h, guests[100], "JOIN|ops||", RODA_OK);
    chat_stop(crew.h);
}

/* ---- a plugin speaks -------------------------------------------------------------------- */

static void a_plugin_speaks_without_being_a_member(void **state)
{
    struct testhost *h = chat_start(2, NULL);
    struct testhost_conn *ana = chat_enter(h, 0, "ana");
    struct roda_ctx *x = testhost_ctx(h, "visitor", 1);
    struct roda_msg_init init = {.size = sizeof(init),
                                 .kind = RODA_NOTICE,
                                 .to = RODA_STR("LOBBY"),
                                 .text = RODA_STR("maintenance at noon")};

    (void)state;
    roda_submit(x, NULL, roda_msg_make(x, &init, NULL));
    assert_true(testhost_run(h));
    chat_hears(ana, "NOTICE|1|0||lobby||maintenance at noon");
    init.kind = RODA_PART;
    roda_submit(x, NULL, roda_msg_make(x, &init, NULL));
    init.kind = RODA_JOIN;
    roda_submit(x, NULL, roda_msg_make(x, &init, NULL));
    init.kind = RODA_NICK;
    roda_submit(x, NULL, roda_msg_make(x, &init, NULL));
    assert_true(testhost_run(h));
    chat_hears_nothing(ana);
    chat_stop(h);
}

/* ---- filters ---------------------------------------------------------------------------- */

struct script_state {
    int defer;       /* at publish */
    uint32_t reject; /* this kind, at admit */
};

static roda_verdict script(void *arg, enum testhost_stage stage, struct roda_ctx *x,
                           struct roda_event *ev)
{
    const struct script_state *s = arg;

    (void)x;
    if (stage == TESTHOST_PUBLISH && s->defer)
        return RODA_DEFER;
    if (stage == TESTHOST_ADMIT && ev->msg->kind == s->reject)
        return roda_reject(ev, RODA_E_RATE, "slow down");
    return RODA_PASS;
}

static struct testhost *start_with_filter(struct script_state *s, uint32_t n_workers)
{
    struct testhost *h = testhost_new(n_workers);

    testhost_load_filter(h, script, s);
    assert_int_equal(testhost_load(h, &rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(h, &chat_visitor, NULL), 0);
    assert_int_equal(testhost_start(h), 0);
    return h;
}

static void resume_all(struct testhost *h, uint32_t n_workers, int result)
{
    for (int round = 0; round < 4; round++) {
        for (uint32_t w = 0; w < n_workers; w++)
            (void)roda_resume_oldest(testhost_filter_ctx(h, w), 100, result);
        assert_true(testhost_run(h));
    }
}

static void what_waits_in_the_lane_is_carried_out_when_it_leaves(void **state)
{
    struct script_state s = {.defer = 0};
    struct testhost *h = start_with_filter(&s, 2);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");

    (void)state;
    chat_answered(h, ana, "JOIN|ops||", RODA_OK);
    chat_forget(ana);
    s.defer = 1;
    testhost_input(bob, "JOIN|ops||\nJOIN|ops||\n");
    assert_true(testhost_run(h));
    chat_hears_nothing(bob);
    testhost_input(ana, "PART|ops||\nPART|ops||\n");
    assert_true(testhost_run(h));
    chat_hears(ana, "answer|5|PART|4|0|*"); /* about to leave: a member no more */
    chat_hears_nothing(ana);
    resume_all(h, 2, 0);
    chat_hears(bob, "answer|0|JOIN|2|0|");
    chat_hears(bob, "answer|6|JOIN|3|0|*");
    chat_hears(bob, "PART|0|0|ana|ops||");
    chat_hears(ana, "JOIN|0|0|bob|ops||");
    chat_hears(ana, "answer|0|PART|3|0|");
    chat_hears_nothing(ana);
    chat_hears_nothing(bob);
    s.defer = 0;
    assert_int_equal(testhost_metric(h, "rooms", "rooms_members"), 3);
    chat_stop(h);
}

static void who_is_aimed_at_in_a_lane_that_waits(void **state)
{
    struct script_state s = {.defer = 0};
    struct testhost *h = start_with_filter(&s, 2);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");
    struct testhost_conn *eva = chat_enter(h, 1, "eva");

    (void)state;
    chat_answered(h, ana, "JOIN|ops||", RODA_OK);
    chat_answered(h, bob, "JOIN|ops||", RODA_OK);
    chat_answered(h, eva, "JOIN|ops||", RODA_OK);
    chat_forget(ana);
    chat_forget(bob);
    s.defer = 1;
    chat_say(bob, "NICK|||bea");
    assert_true(testhost_run(h));
    chat_answered(h, ana, "KICK|ops|bob|", RODA_E_TARGET); /* will be called bea by then */
    testhost_input(ana, "KICK|ops|bea|out\nKICK|ops|bea|again\n");
    assert_true(testhost_run(h));
    chat_hears(ana, "answer|22|KICK|5|0|*");
    chat_say(eva, "TEXT|ops||so long");
    s.defer = 0;
    resume_all(h, 2, 0);
    chat_hears(eva, "NICK|0|0|bob|*||bea|bea");
    chat_hears(eva, "KICK|1|0|ana|ops|bea|out");
    chat_hears(eva, "answer|0|TEXT|3|2|");
    chat_hears_nothing(eva);
    chat_hears(bob, "KICK|1|0|ana|ops|bea|out");
    chat_answered(h, bob, "TEXT|ops||hi", RODA_E_NOT_MEMBER);
    /* What was not stored did not happen. */
    s.defer = 1;
    chat_say(ana, "KICK|ops|eva|out");
    chat_say(eva, "PART|ops||");
    assert_true(testhost_run(h));
    s.defer = 0;
    resume_all(h, 2, -28);
    chat_answered(h, eva, "TEXT|ops||still here", RODA_OK);
    chat_stop(h);
}

static void storage_that_fails_refuses(void **state)
{
    struct script_state s = {.defer = 0};
    struct testhost *h = start_with_filter(&s, 2);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob");

    (void)state;
    chat_forget(ana);
    s.defer = 1;
    chat_say(bob, "TEXT|lobby||hi");
    chat_say(ana, "JOIN|ops||");
    assert_true(testhost_run(h));
    resume_all(h, 2, -28);
    chat_hears(bob, "answer|16|TEXT|2|*|*");
    chat_hears(ana, "answer|16|JOIN|2|*|*");
    chat_hears_nothing(ana);
    s.defer = 0;
    chat_answered(h, ana, "JOIN|ops||", RODA_OK);
    assert_int_equal(testhost_metric(h, "rooms", "rooms_open"), 2);
    chat_stop(h);
}

static void a_filter_cannot_keep_a_person_from_leaving(void **state)
{
    struct script_state s = {.reject = RODA_QUIT};
    struct testhost *h = start_with_filter(&s, 3);
    struct testhost_conn *ana = chat_enter(h, 0, "ana"), *bob = chat_enter(h, 1, "bob"), *eva;

    (void)state;
    chat_answered(h, bob, "JOIN|ops||", RODA_OK);
    chat_forget(ana);
    testhost_reset(bob);
    assert_true(testhost_run(h));
    chat_hears_nothing(ana);
    assert_int_equal(testhost_metric(h, "rooms", "rooms_members"), 1);
    assert_int_equal(testhost_metric(h, "rooms", "rooms_open"), 1);
    eva = chat_enter(h, 1, "bob"); /* the name is free, and that worker has the room no more */
    chat_forget(ana);
    s.reject = RODA_NICK;
    chat_answered(h, eva, "NICK|||eva", RODA_OK);
    chat_hears_nothing(ana);
    s.reject = RODA_JOIN;
    chat_answered(h, eva, "JOIN|ops||", RODA_E_RATE);
    assert_int_equal(testhost_metric(h, "rooms", "rooms_open"), 1);
    s.reject = 0;
    chat_answered(h, eva, "TEXT|lobby||hi", RODA_OK);
    chat_hears(ana, "TEXT|1|0|eva|lobby||hi");
    chat_stop(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everybody_enters_the_first_room),
        cmocka_unit_test(no_first_room_means_none),
        cmocka_unit_test(all_hear_all_in_one_order),
        cmocka_unit_test(names_are_folded_and_shown_as_first_written),
        cmocka_unit_test(a_line_behind_a_join_goes_to_the_room),
        cmocka_unit_test(an_empty_room_is_given_up),
        cmocka_unit_test(a_room_is_not_given_up_under_a_join),
        cmocka_unit_test(refusals),
        cmocka_unit_test(limits),
        cmocka_unit_test(nobody_may_create),
        cmocka_unit_test(a_listener_has_a_first_room_of_its_own),
        cmocka_unit_test(a_first_room_must_be_a_name),
        cmocka_unit_test(large_rooms_show_nobody_coming_or_going),
        cmocka_unit_test(typing_is_shown_and_has_no_number),
        cmocka_unit_test(kicks),
        cmocka_unit_test(ranks),
        cmocka_unit_test(modes),
        cmocka_unit_test(bans),
        cmocka_unit_test(invited_are_forgotten_from_the_oldest),
        cmocka_unit_test(a_plugin_speaks_without_being_a_member),
        cmocka_unit_test(what_waits_in_the_lane_is_carried_out_when_it_leaves),
        cmocka_unit_test(who_is_aimed_at_in_a_lane_that_waits),
        cmocka_unit_test(storage_that_fails_refuses),
        cmocka_unit_test(a_filter_cannot_keep_a_person_from_leaving),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
