/* Folders of rooms, names of days, and lines: what is pure about text files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text_line.h"
#include "text_name.h"

static struct roda_str str(const char *text)
{
    return (struct roda_str){text, strlen(text)};
}

/* ---- folders ------------------------------------------------------------------------------ */

static void named(const char *room, const char *folder)
{
    char got[TEXT_NAME_SIZE];

    assert_int_equal(text_name(str(room), got), strlen(folder));
    assert_string_equal(got, folder);
}

/* What every file system takes, in one way only: no upper case to be folded, nothing beyond ASCII
 * to be normalized, no device, no dot, no separator. */
static void assert_safe(const char *name, size_t len)
{
    static const char *const reserved[] = {"con",  "prn",  "aux",  "nul",  "com0", "com1",
                                           "com9", "lpt0", "lpt1", "lpt9", "."};

    assert_in_range(len, 1, TEXT_NAME_MAX);
    assert_int_equal(strlen(name), len);
    assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-%"), len);
    assert_true(*name != '-');
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        assert_string_not_equal(name, reserved[i]);
}

static size_t decode(const char *name, char *to)
{
    size_t n = 0;

    for (; *name; name++) {
        if (*name != '%') {
            to[n++] = *name;
            continue;
        }
        char hex[3] = {name[1], name[2], 0};
        to[n++] = (char)strtoul(hex, NULL, 16);
        name += 2;
    }
    return n;
}

static void round_trip(const char *bytes, size_t len)
{
    char name[TEXT_NAME_SIZE], back[TEXT_NAME_SIZE];

    int n = text_name((struct roda_str){bytes, len}, name);
    assert_true(n > 0);
    assert_safe(name, (size_t)n);
    assert_int_equal(decode(name, back), len); /* read back: no two rooms have one folder */
    assert_memory_equal(back, bytes, len);
}

static void known_names(void **state)
{
    (void)state;
    named("lobby", "lobby");
    named("a-b_c9", "a-b_c9");
    named("../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd");
    named("/", "%2f");
    named("..", "%2e%2e");
    named("con", "%63on");
    named("con.", "con%2e");
    named("console", "console");
    named("lpt1", "%6cpt1");
    named("lpt10", "lpt10");
    named("com", "com");
    named("-rf", "%2drf");
    named("-", "%2d");
    named("caf\xc3\xa9", "caf%c3%a9");
    named("caf\xc3\x89", "caf%c3%89");
    named("Con", "%43on"); /* folded names have none, but it would be safe */
    named("@ana,bia", "%40ana%2cbia");
    named("a%2f", "a%252f");
}

static void every_byte(void **state)
{
    char bytes[3];

    (void)state;
    for (unsigned a = 0; a < 256; a++) {
        bytes[0] = (char)a;
        round_trip(bytes, 1);
        for (unsigned b = 0; b < 256; b++) {
            bytes[1] = (char)b;
            round_trip(bytes, 2);
        }
    }
}

/* All short names over what is special, devices among them. */
static void every_short_name(void **state)
{
    static const char letters[] = "conaulptrmx019.-/%~\xc3\xa9 A";
    char bytes[4];
    size_t n = sizeof letters - 1;

    (void)state;
    for (size_t i = 0; i < n * n * n * n; i++) {
        size_t rest = i;
        for (size_t at = 0; at < 4; at++, rest /= n)
            bytes[at] = letters[rest % n];
        round_trip(bytes, 4);
        round_trip(bytes, 3);
    }
}

static void long_names(void **state)
{
    char emoji[64], longest[85], name[TEXT_NAME_SIZE];

    (void)state;
    for (size_t i = 0; i < sizeof emoji; i += 4)
        memcpy(emoji + i, "\xf0\x9f\x92\xa9", 4);
    round_trip(emoji, sizeof emoji);
    memset(longest, '.', sizeof longest);
    round_trip(longest, sizeof longest);
    char more[86];
    memset(more, '.', sizeof more);
    assert_int_equal(text_name((struct roda_str){more, sizeof more}, name), -ENAMETOOLONG);
    assert_int_equal(text_name((struct roda_str){more, 0}, name), -EINVAL);
}

/* ---- days --------------------------------------------------------------------------------- */

static void days(void **state)
{
    char name[TEXT_DAY_SIZE + 4];

    (void)state;
    /* 1677-09-22 to 2262-04-11: all that 64 bits of nanoseconds can say */
    for (int64_t day = -106751; day <= 106750; day++) {
        time_t seconds = (time_t)day * 86400;
        struct tm tm;
        char expected[32];
        int64_t back;
        assert_non_null(gmtime_r(&seconds, &tm));
        (void)strftime(expected, sizeof expected, "%Y-%m-%d", &tm);
        text_day_name(day, name);
        assert_string_equal(name, expected);
        memcpy(name + 10, ".log", 5);
        assert_int_equal(text_day_parse(str(name), &back), 0);
        assert_int_equal(back, day);
        assert_int_equal(text_day(text_day_start_ns(day)), day);
        assert_int_equal(text_day(text_day_start_ns(day) - 1), day - 1);
    }
}

static void no_days(void **state)
{
    static const char *const names[] = {
        "",
        "2026-11-24",
        "2026-11-24.lo",
        "2026-11-24.log.1",
        "2026-11-24.log ",
        "2026-13-01.log",
        "2026-00-01.log",
        "2026-02-29.log",
        "2026-11-31.log",
        "2026-11-00.log",
        "2026/11/24.log",
        "2o26-11-24.log",
        " 026-11-24.log",
        "0000-01-01.log",
        "2026-11-24.txt",
    };
    int64_t day = 77;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(text_day_parse(str(names[i]), &day), -EINVAL);
    assert_int_equal(day, 77);
    assert_int_equal(text_day_parse(str("2024-02-29.log"), &day), 0);
    assert_int_equal(day, 19782);
}

/* ---- lines -------------------------------------------------------------------------------- */

static struct text_line said(const char *text)
{
    return (struct text_line){
        .number = 184,
        .time_ns = INT64_C(1795528985123456789), /* 2026-11-24 14:03:05 UTC */
        .kind = RODA_TEXT,
        .room = RODA_STR("Ops"),
        .nick = RODA_STR("ana"),
        .door = RODA_STR("line"),
        .subject = RODA_STR(""),
        .text = str(text),
    };
}

static void written(const struct text_line *line, const char *expected)
{
    char got[1024];
    size_t len = text_line_write(line, got, sizeof got);

    assert_in_range(len, 1, sizeof got);
    got[len - 1] = got[len - 1] == '\n' ? '\0' : 'x';
    assert_string_equal(got, expected);
    /* Cut anywhere, it tells the same length, and writes nothing beyond. */
    for (size_t size = 0; size < len; size++) {
        char *exact = malloc(size + 1);
        exact[size] = 'e';
        assert_int_equal(text_line_write(line, exact, size), len);
        assert_int_equal(exact[size], 'e');
        free(exact);
    }
}

#define FRONT "184 2026-11-24T14:03:05.123Z Ops ana line "

static void lines(void **state)
{
    struct text_line line = said("hello world");

    (void)state;
    written(&line, FRONT "text - hello world");
    line.flags = RODA_MSG_ACTION;
    written(&line, FRONT "action - hello world");
    line.flags = 0;
    line.kind = RODA_NOTICE;
    written(&line, FRONT "notice - hello world");
    line.kind = RODA_TOPIC;
    line.text = RODA_STR("");
    written(&line, FRONT "topic - ");
    line.kind = RODA_KICK;
    line.subject = RODA_STR("bob");
    line.text = RODA_STR("spam");
    written(&line, FRONT "kick bob spam");
    line.kind = RODA_MODE;
    line.text = RODA_STR("+o");
    written(&line, FRONT "mode bob +o");
    line.kind = RODA_RENAME;
    line.subject = RODA_STR("");
    line.text = RODA_STR("Plant\xc3\xa3o");
    written(&line, FRONT "rename - Plant\xc3\xa3o");
    line.kind = 9;
    written(&line, FRONT "kind9 - Plant\xc3\xa3o");
    line.nick = line.door = RODA_STR(""); /* the broker itself */
    written(&line, "184 2026-11-24T14:03:05.123Z Ops - - kind9 - Plant\xc3\xa3o");
    line.number = UINT64_MAX;
    line.time_ns = -1;
    line.subject = RODA_STR("-");
    line.text = RODA_STR("-");
    written(&line, "18446744073709551615 1969-12-31T23:59:59.999Z Ops - - kind9 \\x2d -");
}

static void escapes(void **state)
{
    struct text_line line = said("a\nb\\nc\td\x02"
                                 "e\x7f\x1b[31m");

    (void)state;
    written(&line, FRONT "text - a\\nb\\\\nc\\x09d\\x02e\\x7f\\x1b[31m");
    line.text = RODA_STR("\r\n185 2026-11-24T14:03:05.123Z Ops bob line text - forged");
    written(&line, FRONT "text - \\x0d\\n185 2026-11-24T14:03:05.123Z Ops bob line text - forged");
    line.text = RODA_STR("\xc2\x85 \xe2\x80\xa8 \xe2\x80\xae \xe2\x81\xa6 \xe2\x80\xa7 \xc2\xa0");
    written(&line, FRONT "text - \\xc2\\x85 \\xe2\\x80\\xa8 \\xe2\\x80\\xae \\xe2\\x81\\xa6 "
                         "\xe2\x80\xa7 \xc2\xa0");
    line.text = RODA_STR(" two  spaces ");
    line.nick = RODA_STR("ana text");
    line.subject = RODA_STR("a\nb c");
    written(&line,
            "184 2026-11-24T14:03:05.123Z Ops ana\\x20text line text a\\nb\\x20c  two  spaces ");
}

/* Every byte, anywhere: one line, whose fields can be told apart, and no two texts look alike. */
static void no_byte_forges(void **state)
{
    char text[3] = "", seen[256][256];

    (void)state;
    for (unsigned b = 0; b < 256; b++) {
        struct text_line line = said("");
        char got[256];
        text[0] = 'a';
        text[1] = (char)b;
        text[2] = 'z';
        line.text = (struct roda_str){text, 3};
        size_t len = text_line_write(&line, got, sizeof got);
        assert_ptr_equal(memchr(got, '\n', len), got + len - 1);
        for (size_t i = 0; i + 1 < len; i++)
            assert_true((unsigned char)got[i] >= 0x20 && got[i] != 0x7f);
        assert_memory_equal(got, FRONT "text - a", sizeof FRONT "text - a" - 1);
        got[len - 1] = '\0';
        (void)snprintf(seen[b], sizeof seen[b], "%s", got + sizeof FRONT - 1);
        for (unsigned other = 0; other < b; other++)
            assert_string_not_equal(seen[b], seen[other]);

        line = said("x");
        line.nick = (struct roda_str){text, 3};
        len = text_line_write(&line, got, sizeof got);
        size_t spaces = 0;
        for (size_t i = 0; i < len; i++)
            spaces += got[i] == ' ';
        assert_int_equal(spaces, 7);
        assert_ptr_equal(memchr(got, '\n', len), got + len - 1);
    }
}

static void numbers(void **state)
{
    (void)state;
    assert_int_equal(text_line_number(str("184 x\n")), 184);
    assert_int_equal(text_line_number(str("18446744073709551615 \n")), UINT64_MAX);
    assert_int_equal(text_line_number(str("18446744073709551616 \n")), 0);
    assert_int_equal(text_line_number(str("99999999999999999999999 \n")), 0);
    assert_int_equal(text_line_number(str("184 x")), 0);
    assert_int_equal(text_line_number(str("184\n")), 0);
    assert_int_equal(text_line_number(str(" 184 x\n")), 0);
    assert_int_equal(text_line_number(str("x 184\n")), 0);
    assert_int_equal(text_line_number(str("0 x\n")), 0);
    assert_int_equal(text_line_number(str("")), 0);
    assert_int_equal(text_line_number(str("12")), 0);
}

static void records_and_messages_agree(void **state)
{
    struct roda_msg msg = {
        .kind = RODA_TEXT,
        .flags = RODA_MSG_MULTILINE,
        .number = 7,
        .time_ns = 1,
        .to = RODA_STR("Ops"),
        .subject = RODA_STR("s"),
        .text = RODA_STR("t"),
    };
    struct log_message record = {
        .kind = RODA_TEXT,
        .flags = RODA_MSG_MULTILINE,
        .number = 7,
        .time_ns = 1,
        .to = RODA_STR("Ops"),
        .subject = RODA_STR("s"),
        .text = RODA_STR("t"),
    };
    struct text_line a, b;
    char x[256], y[256];

    (void)state;
    for (int direct = 0; direct < 2; direct++) {
        text_line_of_message(&msg, RODA_STR("@ana,bia"), &a);
        text_line_of_record(&record, RODA_STR("@ana,bia"), &b);
        size_t n = text_line_write(&a, x, sizeof x);
        assert_int_equal(text_line_write(&b, y, sizeof y), n);
        assert_memory_equal(x, y, n);
        x[n] = '\0';
        assert_true(strstr(x, direct ? " @ana,bia - " : " Ops - ") != NULL);
        msg.flags |= RODA_MSG_DIRECT;
        record.flags |= RODA_MSG_DIRECT;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_names),
        cmocka_unit_test(every_byte),
        cmocka_unit_test(every_short_name),
        cmocka_unit_test(long_names),
        cmocka_unit_test(days),
        cmocka_unit_test(no_days),
        cmocka_unit_test(lines),
        cmocka_unit_test(escapes),
        cmocka_unit_test(no_byte_forges),
        cmocka_unit_test(numbers),
        cmocka_unit_test(records_and_messages_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
