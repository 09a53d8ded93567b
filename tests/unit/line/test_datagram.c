#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "fake_rooms.h"
#include "testhost.h"

/* Datagrams: what gets a cookie, what a session, what silence; and what is different inside. */

extern const struct roda_plugin line_plugin;

static struct testhost *start(void)
{
    struct testhost *h = testhost_new(1);

    fake_rooms_reset();
    assert_int_equal(testhost_load(h, &fake_rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(h, &line_plugin, NULL), 0);
    assert_int_equal(testhost_start(h), 0);
    return h;
}

static void stop(struct testhost *h)
{
    assert_int_equal(testhost_stop(h), 0);
    testhost_free(h);
}

/* What the datagram gets; the answer, if any, in cookie (10 bytes with its line end). */
static int knock_from(struct testhost *h, const char *address, uint16_t port, const char *datagram,
                      char cookie[16], struct testhost_conn **ret_conn)
{
    struct testhost_conn *ignored;

    return testhost_knock(h, 0, "line", address, port, datagram, cookie, 16,
                          ret_conn ? ret_conn : &ignored);
}

static int knock(struct testhost *h, const char *datagram, char cookie[16],
                 struct testhost_conn **ret_conn)
{
    return knock_from(h, "192.0.2.7", 4000, datagram, cookie, ret_conn);
}

static void get_cookie(struct testhost *h, char cookie[16])
{
    assert_int_equal(knock(h, "hello\n", cookie, NULL), 0);
    assert_int_equal(strlen(cookie), 10);
    assert_int_equal(cookie[0], '=');
    assert_int_equal(strspn(cookie + 1, "0123456789abcdef"), 8);
    assert_int_equal(cookie[9], '\n');
}

static void hears(struct testhost_conn *c, const char *wanted)
{
    const char *got = testhost_unit(c);

    if (!got)
        fail_msg("nothing came, wanted \"%s\"", wanted);
    else
        assert_string_equal(got, wanted);
}

static void any_line_that_is_typed_gets_a_cookie(void **state)
{
    static const char *const lines[] = {
        "/nick ana\n",  "x\n",          "xy",           "oi\r\n",   "/\n",
        "=\n",          "=12\n",        "ol\xc3\xa1\n", "a\nb\n\n", "=zzzzzzzz\n",
        "=12345678x\n", "=123456789\n", "* oi\n",       "! oi\n",
    };
    struct testhost *h = start();
    char cookie[16];

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
        if (knock(h, lines[i], cookie, NULL) != 0 || strlen(cookie) != 10)
            fail_msg("line %zu got no cookie", i);
    assert_int_equal(testhost_metric(h, "line", "line_knocks_answered_total"),
                     sizeof(lines) / sizeof(*lines));
    stop(h);
}

static void what_nobody_types_gets_silence(void **state)
{
    static const char *const datagrams[] = {
        "",
        "\n",
        "x",
        "\r\n",
        "  \n",
        "\n\n\n",
        "\t \n",
        "\x01\x02\x03\x04",
        "abc\x1b[2J\n",
        "ol\xe1\n",
        "fine\nnot \x7f\n",
        "a\rb\n",
        "\xff\xfb\x01 telnet\n",
    };
    struct testhost *h = start();
    char cookie[16];

    (void)state;
    for (size_t i = 0; i < sizeof(datagrams) / sizeof(*datagrams); i++)
        if (knock(h, datagrams[i], cookie, NULL) >= 0)
            fail_msg("datagram %zu was answered", i);
    assert_int_equal(testhost_metric(h, "line", "line_knocks_silent_total"),
                     sizeof(datagrams) / sizeof(*datagrams));
    stop(h);
}

/* Two brokers, or a broker and an echo, must not go on answering each other. */
static void an_answer_is_never_answered(void **state)
{
    struct testhost *h = start();
    char cookie[16], again[16], alone[32];

    (void)state;
    get_cookie(h, cookie);
    assert_true(knock(h, cookie, again, NULL) < 0);
    assert_true(knock(h, "=00000000\n", again, NULL) < 0);
    assert_true(knock(h, "=00000000", again, NULL) < 0);
    assert_true(knock(h, "=ABCDEF01\r\n", again, NULL) < 0);
    assert_true(knock(h, "=00000000 \n", again, NULL) < 0);
    (void)snprintf(alone, sizeof(alone), "%.9s%.9s\n", cookie, cookie);
    assert_int_equal(knock(h, alone, again, NULL), 0);
    stop(h);
}

static void a_cookie_in_front_of_a_line_opens_a_session(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = NULL;
    char cookie[16], ignored[16], first[64];

    (void)state;
    get_cookie(h, cookie);
    (void)snprintf(first, sizeof(first), "%.9s /nick ana\n", cookie);
    assert_int_equal(knock(h, first, ignored, &ana), 1);
    testhost_run(h);
    hears(ana, "* ana, lobby, 0, ping 25s");
    assert_null(testhost_unit(ana));
    testhost_input(ana, "oi, pessoal\n");
    testhost_run(h);
    hears(ana, "* 1 lobby");
    testhost_input(ana, "/ping\n");
    testhost_run(h);
    hears(ana, "* pong lobby 1");
    stop(h);
}

static void a_name_that_is_refused_still_gets_a_welcome(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = NULL;
    char cookie[16], ignored[16], first[64];

    (void)state;
    get_cookie(h, cookie);
    (void)snprintf(first, sizeof(first), "%.9s oi\n/nick bad\n", cookie);
    assert_int_equal(knock(h, first, ignored, &ana), 1);
    testhost_run(h);
    hears(ana, "* guest1, lobby, 0, ping 25s");
    hears(ana, "* 1 lobby");
    hears(ana, "* you are bad now");
    fake_rooms.refuse_code = RODA_E_TAKEN;
    fake_rooms.refuse_text = "that name is taken";
    testhost_input(ana, "/nick bob\n");
    testhost_run(h);
    hears(ana, "! that name is taken");
    assert_null(testhost_unit(ana));
    stop(h);
}

static void a_forged_or_foreign_cookie_opens_nothing(void **state)
{
    struct testhost *h = start();
    char cookie[16], answer[16], line[64];

    (void)state;
    get_cookie(h, cookie);
    (void)snprintf(line, sizeof(line), "%.9s oi\n", cookie);
    assert_int_equal(knock_from(h, "192.0.2.8", 4000, line, answer, NULL), 0);
    assert_int_equal(knock_from(h, "192.0.2.7", 4001, line, answer, NULL), 0);
    line[1] = line[1] == '0' ? '1' : '0';
    assert_int_equal(knock(h, line, answer, NULL), 0);
    assert_int_equal(strlen(answer), 10);
    stop(h);
}

static void an_expired_cookie_gets_a_new_one(void **state)
{
    struct testhost *h = start();
    char cookie[16], answer[16], line[64];

    (void)state;
    get_cookie(h, cookie);
    (void)snprintf(line, sizeof(line), "%.9s oi\n", cookie);
    testhost_advance_ms(h, 40000);
    assert_int_equal(knock(h, line, answer, NULL), 0);
    assert_string_not_equal(answer, cookie);
    stop(h);
}

static void the_cookie_may_stand_in_front_of_every_line(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = NULL;
    char cookie[16], ignored[16], line[96];

    (void)state;
    get_cookie(h, cookie);
    (void)snprintf(line, sizeof(line), "%.9s one\r\n%.9s two\n%.9s\n", cookie, cookie, cookie);
    assert_int_equal(knock(h, line, ignored, &ana), 1);
    testhost_run(h);
    testhost_input(ana, "=DEADBEEF /me waves\n=deadbeefs stay\n");
    testhost_run(h);
    assert_string_equal(fake_rooms.seen, "16+0 lobby||\n1+0 lobby||one\n1+0 lobby||two\n"
                                         "1+2 lobby||waves\n1+0 lobby||=deadbeefs stay\n");
    stop(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_line_that_is_typed_gets_a_cookie),
        cmocka_unit_test(what_nobody_types_gets_silence),
        cmocka_unit_test(an_answer_is_never_answered),
        cmocka_unit_test(a_cookie_in_front_of_a_line_opens_a_session),
        cmocka_unit_test(a_name_that_is_refused_still_gets_a_welcome),
        cmocka_unit_test(a_forged_or_foreign_cookie_opens_nothing),
        cmocka_unit_test(an_expired_cookie_gets_a_new_one),
        cmocka_unit_test(the_cookie_may_stand_in_front_of_every_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
