#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "fake_rooms.h"
#include "plugins/line/show.h"
#include "testhost.h"

/* Messages to lines: every kind, with and without numbers, and in a datagram, where lines have an
 * end. "stream" and "numbered" are two clients that are told the same. */

extern const struct roda_plugin line_plugin;

static struct testhost *h;
static struct testhost_conn *stream, *numbered;

static void forget_all(struct testhost_conn *c)
{
    while (testhost_unit(c))
        ;
}

static int set_up(void **state)
{
    (void)state;
    fake_rooms_reset();
    h = testhost_new(1);
    assert_int_equal(testhost_load(h, &fake_rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(h, &line_plugin, NULL), 0);
    assert_int_equal(testhost_start(h), 0);
    stream = testhost_connect(h, 0, "line", "tcp");
    numbered = testhost_connect(h, 0, "line", "tcp");
    testhost_input(numbered, "/numbers on\n");
    testhost_run(h);
    forget_all(stream);
    forget_all(numbered);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(testhost_stop(h), 0);
    testhost_free(h);
    return 0;
}

static void tell(uint32_t kind, uint32_t flags, const char *nick, const char *to,
                 const char *subject, const char *text)
{
    fake_rooms_tell(testhost_ctx(h, "rooms", 0), kind, flags, nick, to, subject, text);
    testhost_run(h);
}

static void shows(const char *wanted_stream, const char *wanted_numbered)
{
    const char *got = testhost_unit(stream);

    assert_non_null(got);
    assert_string_equal(got, wanted_stream);
    got = testhost_unit(numbered);
    assert_non_null(got);
    assert_string_equal(got, wanted_numbered);
}

static void shows_nothing(void)
{
    assert_null(testhost_unit(stream));
    assert_null(testhost_unit(numbered));
}

static void talk_has_one_shape(void **state)
{
    (void)state;
    tell(RODA_TEXT, 0, "ana", "lobby", "", "oi");
    shows("lobby ana: oi", "1 lobby ana: oi");
    tell(RODA_TEXT, RODA_MSG_ACTION, "ana", "lobby", "", "acena");
    shows("lobby * ana acena", "2 lobby * ana acena");
    tell(RODA_NOTICE, 0, "bot", "lobby", "", "done");
    shows("lobby -bot- done", "3 lobby -bot- done");
    tell(RODA_TEXT, RODA_MSG_DIRECT, "ana", "bob", "", "psst");
    shows("@ ana: psst", "4 @ ana: psst");
    tell(RODA_TEXT, RODA_MSG_DIRECT | RODA_MSG_ACTION, "ana", "bob", "", "acena");
    shows("@ * ana acena", "5 @ * ana acena");
    tell(RODA_TEXT, 0, "ana", "lobby", "", "");
    shows("lobby ana: ", "6 lobby ana: ");
}

static void lines_of_a_text_have_the_same_front(void **state)
{
    (void)state;
    tell(RODA_TEXT, RODA_MSG_MULTILINE, "ana", "lobby", "", "one\n* two\n\nfour");
    shows("lobby ana: one", "1 lobby ana: one");
    shows("lobby ana: * two", "1 lobby ana: * two");
    shows("lobby ana: ", "1 lobby ana: ");
    shows("lobby ana: four", "1 lobby ana: four");
    shows_nothing();
}

static void control_characters_do_not_reach_a_terminal(void **state)
{
    (void)state;
    tell(RODA_TEXT, 0, "ana", "lobby", "",
         "\x02"
         "bold\x0f \x03"
         "04,12red\x03 \x03"
         "5,x \x1d\x1e\x1f\x11\x16 tab\there");
    shows("lobby ana: bold red ,x  tab\there", "1 lobby ana: bold red ,x  tab\there");
}

static void events_are_told(void **state)
{
    (void)state;
    tell(RODA_TOPIC, 0, "ana", "lobby", "", "sexta");
    shows("* ana set the topic of lobby: sexta", "* 1 lobby ana set the topic of lobby: sexta");
    tell(RODA_TOPIC, 0, "ana", "lobby", "", "");
    shows("* ana took away the topic of lobby", "* 2 lobby ana took away the topic of lobby");
    tell(RODA_KICK, 0, "ana", "lobby", "bob", "loud");
    shows("* ana put bob out of lobby (loud)", "* 3 lobby ana put bob out of lobby (loud)");
    tell(RODA_KICK, 0, NULL, "lobby", "bob", "");
    shows("* the broker put bob out of lobby", "* 4 lobby the broker put bob out of lobby");
    tell(RODA_MODE, 0, "ana", "lobby", "bob", "+o");
    shows("* ana set +o bob in lobby", "* 5 lobby ana set +o bob in lobby");
    tell(RODA_MODE, 0, "ana", "lobby", "key", "+k");
    shows("* ana set +k in lobby", "* 6 lobby ana set +k in lobby");
    tell(RODA_RENAME, 0, "ana", "lobby", "", "sala");
    shows("* ana renamed lobby to sala", "* 7 lobby ana renamed lobby to sala");
    tell(RODA_JOIN, 0, "ana", "lobby", "", "");
    shows("* ana joined lobby", "* ana joined lobby");
    tell(RODA_PART, 0, "ana", "lobby", "", "");
    shows("* ana left lobby", "* ana left lobby");
    tell(RODA_PART, 0, "ana", "lobby", "", "bye");
    shows("* ana left lobby (bye)", "* ana left lobby (bye)");
    tell(RODA_QUIT, 0, "ana", "", "", "gone");
    shows("* ana quit (gone)", "* ana quit (gone)");
    tell(RODA_NICK, 0, "ana", "", "", "bia");
    shows("* ana is now bia", "* ana is now bia");
    tell(RODA_AWAY, 0, "ana", "", "", "lunch");
    shows("* ana is away: lunch", "* ana is away: lunch");
    tell(RODA_AWAY, 0, "ana", "", "", "");
    shows("* ana is back", "* ana is back");
    tell(RODA_INVITE, 0, "ana", "lobby", "bob", "");
    shows("* ana invited bob to lobby", "* ana invited bob to lobby");
    tell(RODA_TYPING, 0, "ana", "lobby", "", "");
    tell(15, 0, "ana", "lobby", "", "a kind of later");
    tell(40, 0, "ana", "lobby", "", "a kind of later");
    shows_nothing();
}

static void the_broker_speaks_for_itself(void **state)
{
    (void)state;
    tell(RODA_NOTICE, 0, NULL, "lobby", "", "going down at noon");
    shows("* notice to lobby: going down at noon", "* 1 lobby notice to lobby: going down at noon");
    tell(RODA_NOTICE, RODA_MSG_DIRECT, NULL, "bob", "", "hello");
    shows("* notice to you: hello", "* notice to you: hello");
}

/* "* pong joined 413" must not be sayable by calling oneself pong. */
static void names_that_are_words_of_answers_are_marked(void **state)
{
    static const char *const words[] = {"you",     "pong",   "Pong",   "who",  "room",
                                        "rooms",   "topic",  "mode",   "help", "the",
                                        "numbers", "notice", "goodbye"};
    char wanted[64];

    (void)state;
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        tell(RODA_JOIN, 0, words[i], "413", "", "");
        (void)snprintf(wanted, sizeof(wanted), "* @%s joined 413", words[i]);
        shows(wanted, wanted);
    }
    tell(RODA_JOIN, 0, "pongo", "lobby", "", "");
    shows("* pongo joined lobby", "* pongo joined lobby");
    tell(RODA_TEXT, 0, "pong", "lobby", "", "oi");
    shows("lobby pong: oi", "1 lobby pong: oi");
}

/* ---- datagrams: a line has 1199 bytes at most ------------------------------------------- */

static struct testhost_conn *open_session(void)
{
    char answer[16], first[64];
    struct testhost_conn *session = NULL;

    assert_int_equal(testhost_knock(h, 0, "line", "192.0.2.9", 5000, "oi\n", answer, sizeof(answer),
                                    &session),
                     0);
    (void)snprintf(first, sizeof(first), "%.9s /ping\n", answer);
    assert_int_equal(testhost_knock(h, 0, "line", "192.0.2.9", 5000, first, answer, sizeof(answer),
                                    &session),
                     1);
    assert_non_null(session);
    testhost_run(h);
    forget_all(session);
    forget_all(stream);
    forget_all(numbered);
    return session;
}

static void a_text_that_does_not_fit_is_cut(void **state)
{
    struct testhost_conn *session = open_session();
    char text[1835] = "";
    const char *got;
    size_t len;

    (void)state;
    memset(text, 'x', 1834);
    tell(RODA_TEXT, 0, "ana", "lobby", "", text);
    got = testhost_unit(session);
    assert_non_null(got);
    len = strlen(got);
    assert_true(len <= 1199);
    assert_true(len >= 1195);
    assert_int_equal(strncmp(got, "1 lobby ana: xxx", 16), 0);
    assert_string_equal(got + len - 19, "xxx... (1834 bytes)");
    got = testhost_unit(stream);
    assert_int_equal(strlen(got), strlen("lobby ana: ") + 1834);
}

static void characters_are_not_cut(void **state)
{
    struct testhost_conn *session = open_session();
    char text[2048];
    const char *got, *end;

    (void)state;
    for (size_t shift = 0; shift < 4; shift++) {
        size_t len = shift;
        memset(text, 'x', shift);
        while (len + 4 < 1800) {
            memcpy(text + len, "\xf0\x9f\x8e\x89", 4);
            len += 4;
        }
        text[len] = '\0';
        tell(RODA_TEXT, 0, "ana", "lobby", "", text);
        got = testhost_unit(session);
        assert_non_null(got);
        assert_true(strlen(got) <= 1199);
        end = strstr(got, "... (");
        assert_non_null(end);
        assert_int_equal(roda_text_check((struct roda_str){got, (size_t)(end - got)},
                                         RODA_TEXT_LINE),
                         0);
    }
}

static void what_just_fits_is_not_cut(void **state)
{
    struct testhost_conn *session = open_session();
    char text[1300] = "";
    const char *got;

    (void)state;
    for (size_t len = 1180; len < 1195; len++) {
        size_t front;
        memset(text, 'x', len);
        text[len] = '\0';
        tell(RODA_TEXT, 0, "ana", "lobby", "", text);
        got = testhost_unit(session);
        assert_non_null(got);
        front = (size_t)(strstr(got, ": ") - got) + 2;
        assert_true(strlen(got) <= 1199);
        if (front + len <= 1199)
            assert_string_equal(got + front, text);
        else
            assert_non_null(strstr(got, "... ("));
    }
}

static void a_long_reason_keeps_its_end(void **state)
{
    struct testhost_conn *session = open_session();
    char text[1500] = "";
    const char *got;
    size_t len;

    (void)state;
    memset(text, 'x', 1400);
    tell(RODA_PART, 0, "ana", "lobby", "", text);
    got = testhost_unit(session);
    assert_non_null(got);
    len = strlen(got);
    assert_true(len <= 1199);
    assert_string_equal(got + len - 17, "... (1400 bytes))");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(talk_has_one_shape, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lines_of_a_text_have_the_same_front, set_up, tear_down),
        cmocka_unit_test_setup_teardown(control_characters_do_not_reach_a_terminal, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(events_are_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_broker_speaks_for_itself, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_that_are_words_of_answers_are_marked, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_text_that_does_not_fit_is_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(characters_are_not_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_just_fits_is_not_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_long_reason_keeps_its_end, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
