#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "plugins/line/grammar.h"

/* The grammar of docs/line-protocol.md: what each line is taken for. */

struct expected {
    const char *line;
    enum line_verb verb;
    const char *room, *name, *text;
};

static void same(const char *line, const char *what, struct roda_str got, const char *wanted)
{
    if (got.len == strlen(wanted) && !memcmp(got.ptr, wanted, got.len))
        return;
    fail_msg("\"%s\": %s is \"%.*s\", not \"%s\"", line, what, (int)got.len, got.ptr, wanted);
}

static struct line_command parse(const char *line)
{
    return line_parse((struct roda_str){line, strlen(line)});
}

static void hold(const struct expected *all, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct line_command command = parse(all[i].line);
        if (command.verb != all[i].verb)
            fail_msg("\"%s\": verb %d, not %d", all[i].line, (int)command.verb, (int)all[i].verb);
        if (command.verb == LINE_USAGE || command.verb == LINE_NOTHING)
            continue;
        same(all[i].line, "room", command.room, all[i].room);
        same(all[i].line, "name", command.name, all[i].name);
        same(all[i].line, "text", command.text, all[i].text);
    }
}
#define HOLD(...)                                                                                  \
    do {                                                                                           \
        static const struct expected all[] = {__VA_ARGS__};                                        \
        hold(all, sizeof(all) / sizeof(*all));                                                     \
    } while (0)

static void text_is_said(void **state)
{
    (void)state;
    HOLD({"oi", LINE_TALK, "", "", "oi"}, {" oi ", LINE_TALK, "", "", " oi "},
         {" /nick ana", LINE_TALK, "", "", " /nick ana"}, {"//me", LINE_TALK, "", "", "/me"},
         {"//", LINE_TALK, "", "", "/"}, {"///", LINE_TALK, "", "", "//"},
         {"* ana left", LINE_TALK, "", "", "* ana left"});
}

static void blank_lines_are_nothing(void **state)
{
    (void)state;
    HOLD({"", LINE_NOTHING, "", "", ""}, {" ", LINE_NOTHING, "", "", ""},
         {" \t ", LINE_NOTHING, "", "", ""});
}

static void words_are_counted(void **state)
{
    (void)state;
    HOLD({"/nick ana", LINE_NICK, "", "ana", ""}, {"/nick   ana  ", LINE_NICK, "", "ana", ""},
         {"/NiCk ana", LINE_NICK, "", "ana", ""}, {"/nick", LINE_USAGE, "", "", ""},
         {"/nick ", LINE_USAGE, "", "", ""}, {"/nick ana bia", LINE_USAGE, "", "", ""},
         {"/rooms", LINE_ROOMS, "", "", ""}, {"/rooms ", LINE_ROOMS, "", "", ""},
         {"/rooms x", LINE_USAGE, "", "", ""}, {"/ping", LINE_PING, "", "", ""},
         {"/ping 17", LINE_PING, "", "17", ""}, {"/ping 1 2", LINE_USAGE, "", "", ""},
         {"/help", LINE_HELP, "", "", ""}, {"/help me", LINE_HELP, "", "me", ""});
}

static void unknown_commands_are_named(void **state)
{
    (void)state;
    HOLD({"/nicks ana", LINE_UNKNOWN, "", "nicks", ""}, {"/nic", LINE_UNKNOWN, "", "nic", ""},
         {"/", LINE_UNKNOWN, "", "", ""}, {"/ nick", LINE_UNKNOWN, "", "", ""});
}

static void a_mark_is_dropped_from_rooms(void **state)
{
    (void)state;
    HOLD({"/join ops", LINE_JOIN, "ops", "", ""}, {"/join #ops", LINE_JOIN, "ops", "", ""},
         {"/join ##ops", LINE_JOIN, "#ops", "", ""}, {"/join #", LINE_USAGE, "", "", ""},
         {"/join #ops key", LINE_JOIN, "ops", "key", ""},
         {"/join ops key more", LINE_USAGE, "", "", ""}, {"/join", LINE_USAGE, "", "", ""},
         {"/who", LINE_WHO, "", "", ""}, {"/who #ops", LINE_WHO, "ops", "", ""},
         {"/room", LINE_ROOM, "", "", ""}, {"/room ops", LINE_ROOM, "ops", "", ""},
         {"/invite bob", LINE_INVITE, "", "bob", ""},
         {"/invite bob #ops", LINE_INVITE, "ops", "bob", ""},
         {"/invite bob ops x", LINE_USAGE, "", "", ""});
}

static void the_rest_of_the_line_is_text(void **state)
{
    (void)state;
    HOLD({"/part", LINE_PART, "", "", ""}, {"/part ops", LINE_PART, "ops", "", ""},
         {"/part ops  so long ", LINE_PART, "ops", "", "so long "},
         {"/me  waves  twice", LINE_ME, "", "", "waves  twice"}, {"/me", LINE_USAGE, "", "", ""},
         {"/me  ", LINE_USAGE, "", "", ""}, {"/quit", LINE_QUIT, "", "", ""},
         {"/quit a b", LINE_QUIT, "", "", "a b"}, {"/away", LINE_AWAY, "", "", ""},
         {"/away lunch time", LINE_AWAY, "", "", "lunch time"});
}

static void messages_go_to_a_nick_or_a_marked_room(void **state)
{
    (void)state;
    HOLD({"/msg bob hi  you", LINE_MSG, "", "bob", "hi  you"},
         {"/msg #ops hi", LINE_MSG, "ops", "", "hi"}, {"/msg # hi", LINE_USAGE, "", "", ""},
         {"/msg bob", LINE_USAGE, "", "", ""}, {"/msg", LINE_USAGE, "", "", ""});
}

static void a_marked_word_is_a_room_where_rooms_may_be_left_out(void **state)
{
    (void)state;
    HOLD({"/topic", LINE_TOPIC, "", "", ""}, {"/topic lobby", LINE_TOPIC, "", "", "lobby"},
         {"/topic #ops", LINE_TOPIC, "ops", "", ""},
         {"/topic #ops  a topic", LINE_TOPIC, "ops", "", "a topic"},
         {"/topic # x", LINE_USAGE, "", "", ""}, {"/kick bob", LINE_KICK, "", "bob", ""},
         {"/kick bob too loud", LINE_KICK, "", "bob", "too loud"},
         {"/kick #ops bob too loud", LINE_KICK, "ops", "bob", "too loud"},
         {"/kick #ops", LINE_USAGE, "", "", ""}, {"/op bob", LINE_OP, "", "bob", ""},
         {"/op #ops bob", LINE_OP, "ops", "bob", ""}, {"/op bob x", LINE_USAGE, "", "", ""},
         {"/deop bob", LINE_DEOP, "", "bob", ""}, {"/voice bob", LINE_VOICE, "", "bob", ""},
         {"/devoice bob", LINE_DEVOICE, "", "bob", ""},
         {"/ban *!*@host", LINE_BAN, "", "*!*@host", ""},
         {"/unban #ops bob", LINE_UNBAN, "ops", "bob", ""});
}

static void modes_begin_with_a_sign(void **state)
{
    (void)state;
    HOLD({"/mode", LINE_MODE, "", "", ""}, {"/mode #ops", LINE_MODE, "ops", "", ""},
         {"/mode +m", LINE_MODE, "", "+m", ""},
         {"/mode #ops +k key", LINE_MODE, "ops", "+k", "key"}, {"/mode m", LINE_USAGE, "", "", ""},
         {"/mode +", LINE_USAGE, "", "", ""});
}

static void numbers_are_on_or_off(void **state)
{
    (void)state;
    HOLD({"/numbers on", LINE_NUMBERS, "", "on", ""}, {"/numbers off", LINE_NUMBERS, "", "off", ""},
         {"/numbers", LINE_USAGE, "", "", ""}, {"/numbers yes", LINE_USAGE, "", "", ""},
         {"/numbers on off", LINE_USAGE, "", "", ""});
}

static void history_has_three_forms(void **state)
{
    struct line_command command;

    (void)state;
    command = parse("/history #lobby 20");
    assert_int_equal(command.verb, LINE_HISTORY);
    same("history", "room", command.room, "lobby");
    assert_int_equal(command.range, LINE_RANGE_LAST);
    assert_int_equal(command.to, 20);
    command = parse("/history lobby 410-411 ");
    assert_int_equal(command.verb, LINE_HISTORY);
    assert_int_equal(command.range, LINE_RANGE_FROM_TO);
    assert_int_equal(command.from, 410);
    assert_int_equal(command.to, 411);
    command = parse("/history lobby since  0");
    assert_int_equal(command.verb, LINE_HISTORY);
    assert_int_equal(command.range, LINE_RANGE_SINCE);
    assert_int_equal(command.from, 0);
    assert_int_equal(parse("/history lobby Since 5").range, LINE_RANGE_SINCE);
    command = parse("/history since since 999999999999999999");
    assert_int_equal(command.verb, LINE_HISTORY);
    same("history", "room", command.room, "since");
    assert_true(command.from == UINT64_C(999999999999999999));
}

static void history_needs_no_room(void **state)
{
    static const struct {
        const char *line, *room;
        enum line_range range;
        uint64_t from, to;
    } lines[] = {
        {"/history", "", LINE_RANGE_LAST, 0, 20},
        {"/history 5", "", LINE_RANGE_LAST, 0, 5},
        {"/history 410-411", "", LINE_RANGE_FROM_TO, 410, 411},
        {"/history since 41", "", LINE_RANGE_SINCE, 41, 0},
        {"/history lobby", "lobby", LINE_RANGE_LAST, 0, 20},
        {"/history #lobby", "lobby", LINE_RANGE_LAST, 0, 20},
        {"/history #since 5", "since", LINE_RANGE_LAST, 0, 5},
        {"/history #5", "5", LINE_RANGE_LAST, 0, 20},
        {"/history 5 6", "5", LINE_RANGE_LAST, 0, 6},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        struct line_command command = parse(lines[i].line);

        assert_int_equal(command.verb, LINE_HISTORY);
        same(lines[i].line, "room", command.room, lines[i].room);
        assert_int_equal(command.range, lines[i].range);
        if (lines[i].range != LINE_RANGE_LAST)
            assert_int_equal(command.from, lines[i].from);
        if (lines[i].range != LINE_RANGE_SINCE)
            assert_int_equal(command.to, lines[i].to);
    }
}

static void history_is_checked(void **state)
{
    (void)state;
    HOLD({"/history 0", LINE_USAGE, "", "", ""}, {"/history 301", LINE_USAGE, "", "", ""},
         {"/history #", LINE_USAGE, "", "", ""}, {"/history # 20", LINE_USAGE, "", "", ""},
         {"/history 411-410", LINE_USAGE, "", "", ""}, {"/history since", LINE_USAGE, "", "", ""},
         {"/history since x", LINE_USAGE, "", "", ""}, {"/history lobby 0", LINE_USAGE, "", "", ""},
         {"/history lobby 301", LINE_USAGE, "", "", ""},
         {"/history lobby -1", LINE_USAGE, "", "", ""},
         {"/history lobby 1-", LINE_USAGE, "", "", ""},
         {"/history lobby -", LINE_USAGE, "", "", ""},
         {"/history lobby 0-1", LINE_USAGE, "", "", ""},
         {"/history lobby 411-410", LINE_USAGE, "", "", ""},
         {"/history lobby 1-1000000000000000000", LINE_USAGE, "", "", ""},
         {"/history lobby 1-2-3", LINE_USAGE, "", "", ""},
         {"/history lobby 1 2", LINE_USAGE, "", "", ""},
         {"/history lobby twenty", LINE_USAGE, "", "", ""},
         {"/history lobby 0x10", LINE_USAGE, "", "", ""},
         {"/history lobby since", LINE_USAGE, "", "", ""},
         {"/history lobby since x", LINE_USAGE, "", "", ""},
         {"/history lobby since 1 2", LINE_USAGE, "", "", ""},
         {"/history lobby since 1000000000000000000", LINE_USAGE, "", "", ""});
    assert_int_equal(parse("/history lobby 300").verb, LINE_HISTORY);
    assert_int_equal(parse("/history lobby 1-301").verb, LINE_HISTORY);
    assert_int_equal(parse("/history lobby 1-999999999999999999").verb, LINE_HISTORY);
}

/* The parser reads exactly the bytes it is given: a copy of just that size shows a byte too far to
 * the address sanitizer. */
static void nothing_behind_the_line_is_read(void **state)
{
    static const char *const lines[] = {"/",        "/nick",  "/nick ",     "/history a since",
                                        "/topic #", "/msg a", "/numbers o", "//"};

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        size_t len = strlen(lines[i]);
        char *copy = test_malloc(len);
        memcpy(copy, lines[i], len);
        (void)line_parse((struct roda_str){copy, len});
        test_free(copy);
    }
}

/* What the parser knows, /help can explain: every command has its usage and one line. */
static void every_command_is_explained(void **state)
{
    size_t n = 0;

    (void)state;
    for (const struct line_syntax *syntax = line_syntaxes; syntax->word; syntax++, n++) {
        size_t len = strlen(syntax->more);
        assert_non_null(syntax->usage);
        assert_true(strlen(syntax->help) > 0 && strlen(syntax->help) < 80);
        assert_true(!len || syntax->more[len - 1] == '\n');
        assert_ptr_equal(line_syntax_find((struct roda_str){syntax->word, strlen(syntax->word)}),
                         syntax);
    }
    assert_int_equal(n, LINE_HELP - LINE_NICK + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_said),
        cmocka_unit_test(blank_lines_are_nothing),
        cmocka_unit_test(words_are_counted),
        cmocka_unit_test(unknown_commands_are_named),
        cmocka_unit_test(a_mark_is_dropped_from_rooms),
        cmocka_unit_test(the_rest_of_the_line_is_text),
        cmocka_unit_test(messages_go_to_a_nick_or_a_marked_room),
        cmocka_unit_test(a_marked_word_is_a_room_where_rooms_may_be_left_out),
        cmocka_unit_test(modes_begin_with_a_sign),
        cmocka_unit_test(numbers_are_on_or_off),
        cmocka_unit_test(history_has_three_forms),
        cmocka_unit_test(history_needs_no_room),
        cmocka_unit_test(history_is_checked),
        cmocka_unit_test(nothing_behind_the_line_is_read),
        cmocka_unit_test(every_command_is_explained),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
