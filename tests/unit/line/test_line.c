#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_rooms.h"
#include "testhost.h"

/* The protocol "line" as its users see it: what they type, what they read, and what it asks of the
 * owner of rooms. The fake owner (fake_rooms.c) decides what becomes of it. */

extern const struct roda_plugin line_plugin;

static struct testhost *start_with(const char *conf)
{
    struct testhost *h = testhost_new(1);

    fake_rooms_reset();
    assert_int_equal(testhost_load(h, &fake_rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(h, &line_plugin, conf), 0);
    assert_int_equal(testhost_start(h), 0);
    return h;
}

static struct testhost *start(void)
{
    return start_with(NULL);
}

/* Everything was given back, and no rule of the interface was broken. */
static void stop(struct testhost *h)
{
    assert_int_equal(testhost_stop(h), 0);
    testhost_free(h);
}

static void hears(struct testhost_conn *c, const char *wanted)
{
    const char *got = testhost_unit(c);

    if (!got)
        fail_msg("nothing came, wanted \"%s\"", wanted);
    else
        assert_string_equal(got, wanted);
}

static void hears_nothing(struct testhost_conn *c)
{
    const char *got = testhost_unit(c);

    if (got)
        fail_msg("\"%s\" came, wanted nothing", got);
}

static void hears_a_line_with(struct testhost_conn *c, const char *front, const char *part)
{
    const char *got = testhost_unit(c);

    assert_non_null(got);
    if (strncmp(got, front, strlen(front)) != 0 || !strstr(got, part))
        fail_msg("\"%s\" came, wanted \"%s...%s...\"", got, front, part);
}

static void says(struct testhost *h, struct testhost_conn *c, const char *line)
{
    testhost_input(c, line);
    testhost_input(c, "\n");
    assert_true(testhost_run(h));
}

static void forget_all(struct testhost_conn *c)
{
    while (testhost_unit(c))
        ;
}

static struct testhost_conn *enter(struct testhost *h, const char *transport)
{
    struct testhost_conn *c = testhost_connect(h, 0, "line", transport);

    assert_true(testhost_run(h));
    forget_all(c);
    fake_rooms.seen[0] = '\0';
    return c;
}

static void asked(const char *wanted)
{
    assert_string_equal(fake_rooms.seen, wanted);
    fake_rooms.seen[0] = '\0';
}

/* ---- connecting ------------------------------------------------------------------------- */

static void the_welcome_says_what_to_do(void **state)
{
    struct testhost *h = start_with("motd = maintenance at noon\n");
    struct testhost_conn *ana;

    (void)state;
    fake_rooms.topic = "sexta-feira";
    ana = testhost_connect(h, 0, "line", "tcp");
    testhost_run(h);
    hears(ana, "* motd: maintenance at noon");
    hears(ana,
          "* you are guest1 in lobby: 1 person, last message 0; type to talk, /nick NAME to be "
          "called so, /help for help");
    hears(ana, "* topic of lobby: sexta-feira");
    hears_nothing(ana);
    stop(h);
}

static void the_welcome_can_be_left_out(void **state)
{
    struct testhost *h = start_with("welcome = no\n");
    struct testhost_conn *ana = testhost_connect(h, 0, "line", "tcp");

    (void)state;
    testhost_run(h);
    hears_nothing(ana);
    says(h, ana, "/room");
    hears(ana, "* you are in lobby");
    stop(h);
}

static void a_motd_is_one_line_of_text(void **state)
{
    struct testhost *h = testhost_new(1);

    (void)state;
    assert_int_not_equal(testhost_load(h, &line_plugin, "motd = a\x1b[2J\n"), 0);
    testhost_free(h);
}

static void rooms_are_needed(void **state)
{
    struct testhost *h = testhost_new(1);

    (void)state;
    assert_int_equal(testhost_load(h, &line_plugin, NULL), 0);
    assert_int_not_equal(testhost_start(h), 0);
    testhost_forgive(h);
    testhost_free(h);
}

/* `printf 'oi\n' | nc -N`: all comes at once, before the room is entered. */
static void what_is_sent_at_once_waits_for_the_room(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = testhost_connect(h, 0, "line", "tcp");

    (void)state;
    testhost_input(ana, "oi\r\n/me waves\n");
    testhost_end_input(ana);
    testhost_run(h);
    asked("16+0 lobby||\n1+0 lobby||oi\n1+2 lobby||waves\n");
    assert_true(testhost_closed(ana));
    stop(h);
}

static void without_a_room_there_is_nowhere_to_talk(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana;

    (void)state;
    fake_rooms.absent = 1;
    ana = enter(h, "tcp");
    says(h, ana, "oi");
    hears(ana, "! you are in no room: /join ROOM");
    says(h, ana, "/topic");
    hears(ana, "! you are in no room: /join ROOM");
    says(h, ana, "/who");
    hears(ana, "! you are in no room: /who ROOM");
    says(h, ana, "/msg bob hi");
    hears(ana, "! that line was not sent: you have no name yet, try again");
    says(h, ana, "/ping");
    hears(ana, "* pong - 0");
    asked("");
    stop(h);
}

/* ---- talking ---------------------------------------------------------------------------- */

static void lines_go_to_the_current_room(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp"), *bob = enter(h, "unix");

    (void)state;
    forget_all(ana);
    says(h, ana, "oi, pessoal");
    hears_nothing(ana);
    hears(bob, "lobby guest1: oi, pessoal");
    says(h, ana, "//shrug");
    hears(bob, "lobby guest1: /shrug");
    says(h, ana, "/me acena");
    hears(bob, "lobby * guest1 acena");
    says(h, ana, "/msg #ops from afar");
    hears(bob, "ops guest1: from afar");
    says(h, ana, "/msg bob psst");
    hears(bob, "@ guest1: psst");
    says(h, ana, "");
    says(h, ana, "  \t");
    hears_nothing(bob);
    hears_nothing(ana);
    asked("1+0 lobby||oi, pessoal\n1+0 lobby||/shrug\n1+2 lobby||acena\n1+0 ops||from afar\n"
          "1+4 bob||psst\n");
    stop(h);
}

static void a_text_that_imitates_the_broker_stays_somebodys(void **state)
{
    static const char *const texts[] = {"* bob left lobby", "! closed: shutdown", "=12345678",
                                        "413 lobby bob: oi", "lobby bob: oi"};
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp"), *bob = enter(h, "tcp");
    char wanted[128];

    (void)state;
    forget_all(ana);
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        says(h, ana, texts[i]);
        (void)snprintf(wanted, sizeof(wanted), "lobby guest1: %s", texts[i]);
        hears(bob, wanted);
        (void)snprintf(wanted, sizeof(wanted), "/me %s", texts[i]);
        says(h, ana, wanted);
        (void)snprintf(wanted, sizeof(wanted), "lobby * guest1 %s", texts[i]);
        hears(bob, wanted);
    }
    stop(h);
}

static void numbers_can_be_shown(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp"), *bob = enter(h, "tcp");

    (void)state;
    forget_all(ana);
    says(h, ana, "/numbers on");
    hears(ana, "* numbers are on");
    says(h, bob, "one");
    hears(ana, "1 lobby guest2: one");
    hears_nothing(bob);
    says(h, ana, "two");
    hears(ana, "* 2 lobby");
    hears(bob, "lobby guest1: two");
    says(h, ana, "/msg bob three");
    hears(ana, "* 3 @bob");
    hears(bob, "@ guest1: three");
    says(h, bob, "/topic four");
    hears(bob, "* you set the topic of lobby: four");
    hears(ana, "* 4 lobby guest2 set the topic of lobby: four");
    says(h, ana, "/topic five");
    hears(ana, "* 5 lobby you set the topic of lobby: five");
    says(h, bob, "/away lunch");
    hears(ana, "* guest2 is away: lunch");
    says(h, ana, "/numbers off");
    hears(ana, "* numbers are off");
    says(h, ana, "six");
    hears_nothing(ana);
    stop(h);
}

/* ---- rooms ------------------------------------------------------------------------------ */

static void a_line_behind_a_join_goes_to_the_new_room(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    testhost_input(ana, "/join #ops key\nhello\n/part\nback\n");
    testhost_run(h);
    asked("16+0 ops|key|\n1+0 ops||hello\n17+0 ops||\n1+0 lobby||back\n");
    hears(ana, "* you are guest1 in ops: 1 person, last message 0");
    hears(ana, "* you left ops");
    hears(ana, "* you talk in lobby");
    hears_nothing(ana);
    stop(h);
}

static void the_current_room_can_be_chosen(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    says(h, ana, "/join ops");
    says(h, ana, "/join dev");
    forget_all(ana);
    says(h, ana, "/room");
    hears(ana, "* you are in dev, lobby, ops");
    says(h, ana, "/room #ops");
    hears(ana, "* you talk in ops");
    says(h, ana, "/room nowhere");
    hears(ana, "! you are not in nowhere: /join nowhere");
    fake_rooms.seen[0] = '\0';
    says(h, ana, "hi");
    says(h, ana, "/part lobby so long");
    hears(ana, "* you left lobby (so long)");
    says(h, ana, "still here");
    says(h, ana, "/part");
    hears(ana, "* you left ops");
    hears(ana, "* you talk in dev");
    says(h, ana, "/part");
    hears(ana, "* you left dev");
    says(h, ana, "nowhere");
    hears(ana, "! you are in no room: /join ROOM");
    says(h, ana, "/room");
    hears(ana, "* you are in no room");
    asked("1+0 ops||hi\n17+0 lobby||so long\n1+0 ops||still here\n17+0 ops||\n17+0 dev||\n");
    stop(h);
}

static void a_refused_join_changes_nothing(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    fake_rooms.refuse_code = RODA_E_KEY;
    fake_rooms.refuse_text = "that room needs a key";
    says(h, ana, "/join ops");
    hears(ana, "! that room needs a key");
    fake_rooms.refuse_code = RODA_OK;
    fake_rooms.seen[0] = '\0';
    says(h, ana, "hi");
    asked("1+0 lobby||hi\n");
    stop(h);
}

static void topics_are_shown_and_set(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    says(h, ana, "/topic");
    hears(ana, "* topic of lobby is not set");
    fake_rooms.topic = "sexta";
    says(h, ana, "/topic #lobby");
    hears(ana, "* topic of lobby: sexta");
    says(h, ana, "/topic #ops");
    hears(ana, "! you are not in ops: /join ops");
    says(h, ana, "/topic #ops a b");
    hears(ana, "* you set the topic of ops: a b");
    says(h, ana, "/topic -");
    hears(ana, "* you took away the topic of lobby");
    asked("3+0 ops||a b\n3+0 lobby||\n");
    stop(h);
}

static void moderation_is_asked_for_and_told(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp"), *bob = enter(h, "tcp");

    (void)state;
    forget_all(ana);
    says(h, ana, "/kick bob too loud");
    hears(ana, "* you put bob out of lobby (too loud)");
    hears(bob, "* guest1 put bob out of lobby (too loud)");
    says(h, ana, "/op bob");
    hears(ana, "* you set +o bob in lobby");
    hears(bob, "* guest1 set +o bob in lobby");
    says(h, ana, "/deop bob");
    says(h, ana, "/voice bob");
    says(h, ana, "/devoice bob");
    says(h, ana, "/ban *!*@host");
    says(h, ana, "/unban #ops bob");
    says(h, ana, "/mode +m");
    forget_all(bob);
    forget_all(ana);
    says(h, ana, "/mode +k secret");
    hears(ana, "* you set +k in lobby");
    hears(bob, "* guest1 set +k in lobby");
    says(h, ana, "/invite bob ops");
    hears(ana, "* you invited bob to ops");
    hears(bob, "* guest1 invited bob to ops");
    asked("4+0 lobby|bob|too loud\n5+0 lobby|bob|+o\n5+0 lobby|bob|-o\n5+0 lobby|bob|+v\n"
          "5+0 lobby|bob|-v\n5+0 lobby|*!*@host|+b\n5+0 ops|bob|-b\n5+0 lobby||+m\n"
          "5+0 lobby|secret|+k\n22+0 ops|bob|\n");
    says(h, ana, "/mode");
    hears(ana, "* mode of lobby: open to all");
    fake_rooms.modes = RODA_ROOM_MODERATED | RODA_ROOM_SECRET;
    says(h, ana, "/mode");
    hears(ana, "* mode of lobby: moderated, secret");
    stop(h);
}

static void people_change(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp"), *bob = enter(h, "tcp");

    (void)state;
    forget_all(ana);
    says(h, ana, "/nick ana");
    hears(ana, "* you are ana now");
    says(h, ana, "/away almo\xc3\xa7o");
    hears(ana, "* you are away: almo\xc3\xa7o");
    says(h, ana, "/away");
    hears(ana, "* you are back");
    hears_a_line_with(bob, "* guest1 is now ana", "");
    hears(bob, "* ana is away: almo\xc3\xa7o");
    hears(bob, "* ana is back");
    says(h, ana, "/part lobby bye");
    hears(bob, "* ana left lobby (bye)");
    says(h, ana, "/join lobby");
    hears(bob, "* ana joined lobby");
    stop(h);
}

/* ---- answers ---------------------------------------------------------------------------- */

static void ping_is_a_barrier(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    says(h, ana, "/numbers on");
    forget_all(ana);
    testhost_input(ana, "one\ntwo\n/ping 17\nthree\n/jion\nfour\n/ping\n");
    testhost_run(h);
    hears(ana, "* 1 lobby");
    hears(ana, "* 2 lobby");
    hears(ana, "* pong lobby 2 17");
    hears(ana, "* 3 lobby");
    hears(ana, "! unknown command /jion: /help lists them, //text says /text");
    hears(ana, "* 4 lobby");
    hears(ana, "* pong lobby 4");
    stop(h);
}

static void refusals_are_one_line_in_words(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    fake_rooms.refuse_code = RODA_E_BANNED;
    fake_rooms.refuse_text = "you are banned in lobby";
    says(h, ana, "oi");
    hears(ana, "! you are banned in lobby");
    says(h, ana, "/nick bia");
    hears(ana, "! you are banned in lobby");
    fake_rooms.refuse_text = "";
    for (uint32_t code = RODA_E_UNKNOWN; code <= RODA_E_AUTH + 1; code++) {
        fake_rooms.refuse_code = code;
        says(h, ana, "oi");
        hears_a_line_with(ana, "! ", "");
        hears_nothing(ana);
    }
    fake_rooms.refuse_code = RODA_E_DROPPED;
    says(h, ana, "oi");
    hears_nothing(ana);
    stop(h);
}

static void usage_is_told(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    says(h, ana, "/join");
    hears(ana, "! usage: /join ROOM [KEY]");
    says(h, ana, "/ROOMS x");
    hears(ana, "! usage: /rooms");
    says(h, ana, "/");
    hears(ana, "! unknown command /: /help lists them, //text says /text");
    says(h, ana, "/abcdefghijklmnopqrstuvwxyz12345\xc3\xa7");
    hears(ana, "! unknown command /abcdefghijklmnopqrstuvwxyz12345: /help lists them, //text says "
               "/text");
    says(h, ana, "/history lobby 20");
    hears(ana, "! no history here");
    asked("");
    stop(h);
}

static void help_explains(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");
    const char *line;
    size_t n = 0;

    (void)state;
    says(h, ana, "/help");
    while ((line = testhost_unit(ana)) != NULL) {
        assert_int_equal(strncmp(line, "* help: ", 8), 0);
        n++;
    }
    assert_int_equal(n, 26);
    says(h, ana, "/help /Ping");
    hears(ana, "* help: /ping [TOKEN] - ask for an answer");
    hears_a_line_with(ana, "* help:   ", "* pong ROOM NUMBER [TOKEN]");
    forget_all(ana);
    says(h, ana, "/help lines");
    hears_a_line_with(ana, "* help: ROOM NICK: TEXT", "");
    forget_all(ana);
    says(h, ana, "/help refusals");
    hears_a_line_with(ana, "* help: ! unknown command", "");
    forget_all(ana);
    says(h, ana, "/help nonsense");
    hears(ana, "! no help about that: /help lists the commands");
    stop(h);
}

static void quit_says_goodbye_after_everything(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp"), *bob = enter(h, "tcp");

    (void)state;
    forget_all(ana);
    testhost_input(ana, "last words\n/quit gone\nunheard\n");
    testhost_run(h);
    hears(ana, "* goodbye");
    hears_nothing(ana);
    assert_true(testhost_closed(ana));
    hears(bob, "lobby guest1: last words");
    hears(bob, "* guest1 quit (gone)");
    hears_nothing(bob);
    asked("1+0 lobby||last words\n18+0 ||gone\n");
    stop(h);
}

/* ---- lists ------------------------------------------------------------------------------ */

static void lists_come_in_pieces_and_keep_their_place(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");
    char wanted[128];

    (void)state;
    fake_rooms.n_listed = 1000;
    testhost_input(ana, "/who\n/ping\n");
    testhost_run(h);
    for (unsigned i = 0; i < 1000; i++) {
        static const char *const ranks[] = {"", ", voice", ", operator", ", owner"};
        (void)snprintf(wanted, sizeof(wanted), "* who lobby m%u%s, by line%s", i, ranks[i % 4],
                       i % 2 ? ", away: lunch" : "");
        hears(ana, wanted);
    }
    hears(ana, "* who lobby: 1000 people");
    hears(ana, "* pong lobby 0");
    hears_nothing(ana);
    fake_rooms.n_listed = 120;
    fake_rooms.topic = "sexta";
    fake_rooms.modes = RODA_ROOM_KEY;
    says(h, ana, "/rooms");
    for (unsigned i = 0; i < 120; i++) {
        (void)snprintf(wanted, sizeof(wanted),
                       "* room r%u: 1 person, last message 0, key, topic: sexta", i);
        hears(ana, wanted);
    }
    hears(ana, "* rooms: 120");
    hears_nothing(ana);
    stop(h);
}

static void lists_of_nobody_and_of_nowhere(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    says(h, ana, "/who #nowhere");
    hears(ana, "! there is no such room: nowhere");
    fake_rooms.n_listed = 0;
    says(h, ana, "/who ops");
    hears(ana, "* who ops: 0 people");
    fake_rooms.n_listed = 500;
    fake_rooms.list_error = -ECANCELED;
    says(h, ana, "/who ops");
    for (int i = 0; i < 100; i++)
        hears_a_line_with(ana, "* who ops m", "");
    hears(ana, "! the list ends here: the broker cannot go on with it now");
    says(h, ana, "/ping");
    hears(ana, "* pong lobby 0");
    stop(h);
}

/* A client that does not read, or goes while its list is being made, costs nothing more. */
static void a_reader_may_go_in_the_middle_of_a_list(void **state)
{
    (void)state;
    for (int turns = 0; turns < 12; turns++) {
        struct testhost *h = start();
        struct testhost_conn *ana = enter(h, "tcp");

        fake_rooms.n_listed = 100000;
        testhost_read(ana, false);
        testhost_input(ana, "/who\n");
        for (int i = 0; i < turns; i++)
            (void)testhost_turn(h);
        testhost_reset(ana);
        assert_true(testhost_run(h));
        stop(h);
    }
}

/* ---- input that makes no sense ---------------------------------------------------------- */

static void bad_text_costs_the_line(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    says(h, ana, "ol\xe1");
    hears(ana, "! that line was not sent: not UTF-8");
    says(h, ana, "/me ol\xe1");
    hears(ana, "! that line was not sent: not UTF-8");
    says(h, ana, "ab\x1b[2J");
    hears(ana, "! that line was not sent: control character 1B at byte 3");
    testhost_input_bytes(ana, "\0\n", 2);
    testhost_run(h);
    hears(ana, "! that line was not sent: control character 00 at byte 1");
    says(h, ana, "a\rb");
    hears(ana, "! that line was not sent: control character 0D at byte 2");
    says(h, ana, "/join a\x7f");
    hears(ana, "! that line was not sent: control character 7F at byte 8");
    says(h, ana, "\xc2\x85");
    hears(ana, "! that line was not sent: control character above U+007F");
    says(h, ana, "\xe2\x80\xae");
    hears(ana, "! that line was not sent: control character above U+007F");
    asked("");
    says(h, ana, "tab\there");
    asked("1+0 lobby||tab\there\n");
    assert_int_equal(testhost_metric(h, "line", "line_units_refused_total"), 8);
    stop(h);
}

static void a_line_that_is_too_long_costs_the_line(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");
    char *line = malloc(5001);

    (void)state;
    assert_non_null(line);
    memset(line, 'x', 5000);
    line[5000] = '\0';
    says(h, ana, line);
    hears_a_line_with(ana, "! that line was not sent: too long (", " bytes)");
    asked("");
    says(h, ana, "short");
    asked("1+0 lobby||short\n");
    free(line);
    stop(h);
}

static void telnet_commands_are_taken_out(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    says(h, ana,
         "\xff\xfd\x06"
         "o\xff\xf4i\xff\xfb\x03");
    says(h, ana,
         "\xff\xfa\x18 VT100\xff\xf0"
         "after");
    /* A window of 10 columns: a line end inside the subnegotiation, and 255 rows, doubled. */
    testhost_input_bytes(ana, "before\xff\xfa\x1f\x00\x0a\x00\xff\xff\xff\xf0 behind\n", 24);
    testhost_run(h);
    says(h, ana, "cut\xff");
    says(h, ana, "cut\xff\xfd");
    says(h, ana, "\xff\xf1");
    asked("1+0 lobby||oi\n1+0 lobby||after\n1+0 lobby||before\n1+0 lobby|| behind\n"
          "1+0 lobby||cut\n1+0 lobby||cut\n");
    hears_nothing(ana);
    says(h, ana, "\xff\xff");
    hears(ana, "! that line was not sent: not UTF-8");
    stop(h);
}

static void other_protocols_are_turned_away(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *last;
    } inputs[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27,
         "! closed: this is a chat for nc and telnet, not HTTP"},
        {"POST /x HTTP/1.0\r\nContent-Length: 3\r\n\r\nhi\n", 41,
         "! closed: this is a chat for nc and telnet, not HTTP"},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24,
         "! closed: this is a chat for nc and telnet, not HTTP"},
        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11,
         "! closed: this is a chat for nc and telnet, not TLS"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(inputs) / sizeof(*inputs); i++) {
        struct testhost *h = start();
        struct testhost_conn *ana = enter(h, "tcp");

        testhost_input_bytes(ana, inputs[i].bytes, inputs[i].len);
        testhost_run(h);
        hears(ana, inputs[i].last);
        hears_nothing(ana);
        assert_true(testhost_closed(ana));
        assert_int_equal(testhost_metric(h, "line", "line_aliens_total"), 1);
        asked("");
        stop(h);
    }
}

static void words_of_other_protocols_are_words_later(void **state)
{
    struct testhost *h = start();
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    says(h, ana, "GET a job");
    says(h, ana, "GET / HTTP/1.1 is how it begins");
    asked("1+0 lobby||GET a job\n1+0 lobby||GET / HTTP/1.1 is how it begins\n");
    stop(h);
}

/* Each allocation of a conversation fails in turn: lines or connections may be lost, nothing else.
 */
static void memory_may_be_out(void **state)
{
    uint64_t n = 1;

    (void)state;
    for (;; n++) {
        struct testhost *h = start();
        uint64_t before = testhost_allocations(h), after;
        struct testhost_conn *ana;

        testhost_fail_allocation(h, n);
        ana = testhost_connect(h, 0, "line", "tcp");
        if (ana) {
            testhost_input(ana,
                           "oi\n/join ops\n/who\n\xff\xf1x\n/rooms\n/part\n/msg bob x\n/quit\n");
            assert_true(testhost_run(h));
        }
        after = testhost_allocations(h);
        stop(h);
        if (after - before < n)
            break;
        assert_true(n < 10000);
    }
    assert_true(n > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_welcome_says_what_to_do),
        cmocka_unit_test(the_welcome_can_be_left_out),
        cmocka_unit_test(a_motd_is_one_line_of_text),
        cmocka_unit_test(rooms_are_needed),
        cmocka_unit_test(what_is_sent_at_once_waits_for_the_room),
        cmocka_unit_test(without_a_room_there_is_nowhere_to_talk),
        cmocka_unit_test(lines_go_to_the_current_room),
        cmocka_unit_test(a_text_that_imitates_the_broker_stays_somebodys),
        cmocka_unit_test(numbers_can_be_shown),
        cmocka_unit_test(a_line_behind_a_join_goes_to_the_new_room),
        cmocka_unit_test(the_current_room_can_be_chosen),
        cmocka_unit_test(a_refused_join_changes_nothing),
        cmocka_unit_test(topics_are_shown_and_set),
        cmocka_unit_test(moderation_is_asked_for_and_told),
        cmocka_unit_test(people_change),
        cmocka_unit_test(ping_is_a_barrier),
        cmocka_unit_test(refusals_are_one_line_in_words),
        cmocka_unit_test(usage_is_told),
        cmocka_unit_test(help_explains),
        cmocka_unit_test(quit_says_goodbye_after_everything),
        cmocka_unit_test(lists_come_in_pieces_and_keep_their_place),
        cmocka_unit_test(lists_of_nobody_and_of_nowhere),
        cmocka_unit_test(a_reader_may_go_in_the_middle_of_a_list),
        cmocka_unit_test(bad_text_costs_the_line),
        cmocka_unit_test(a_line_that_is_too_long_costs_the_line),
        cmocka_unit_test(telnet_commands_are_taken_out),
        cmocka_unit_test(other_protocols_are_turned_away),
        cmocka_unit_test(words_of_other_protocols_are_words_later),
        cmocka_unit_test(memory_may_be_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
