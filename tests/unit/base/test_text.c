#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define N(array) (sizeof(array) / sizeof((array)[0]))

static struct roda_str str(const char *text)
{
    return (struct roda_str){text, strlen(text)};
}

/* From a copy on the heap of exactly its length, so that AddressSanitizer sees a byte too far. */
static int check(const char *text, size_t len, unsigned rule)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    int result = text_check((struct roda_str){copy, len}, rule);
    free(copy);
    return result;
}

static size_t encode(uint32_t code, char *buf)
{
    unsigned char *p = (unsigned char *)buf;
    if (code < 0x80) {
        p[0] = (unsigned char)code;
        return 1;
    }
    size_t len = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i; i--, code >>= 6)
        p[i] = (unsigned char)(0x80 | (code & 0x3f));
    p[0] = (unsigned char)(0xf00u >> len | code);
    return len;
}

/* ---- lines ------------------------------------------------------------------------------ */

static bool line_allows(uint32_t code, unsigned rule)
{
    static const uint32_t formatting[] = {'\t', 0x02, 0x03, 0x0f, 0x11, 0x16, 0x1d, 0x1e, 0x1f};
    if (code == '\n')
        return rule == RODA_TEXT_MULTILINE;
    for (size_t i = 0; i < N(formatting); i++) {
        if (code == formatting[i])
            return true;
    }
    return !(code < 0x20 || (code >= 0x7f && code <= 0x9f) || (code >= 0x2028 && code <= 0x202e) ||
             (code >= 0x2066 && code <= 0x2069));
}

/* Every code point there is, alone and at each place of a word. */
static void test_every_code_point_in_lines(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= 0x10ffff; code++) {
        char text[32];
        bool surrogate = code >= 0xd800 && code <= 0xdfff;
        for (size_t at = 0; at < (code < 0x3000 ? 9 : 1); at++) {
            memset(text, 'x', sizeof(text));
            (void)encode(code, text + at);
            for (unsigned rule = RODA_TEXT_LINE; rule <= RODA_TEXT_MULTILINE; rule++) {
                int expected = surrogate ? -EILSEQ : line_allows(code, rule) ? 0 : -EINVAL;
                if (text_check((struct roda_str){text, sizeof(text)}, rule) != expected)
                    fail_msg("U+%04X at %zu, rule %u", code, at, rule);
            }
        }
    }
}

static void test_lines(void **state)
{
    (void)state;
    static const char *const good[] = {
        "",
        "hello",
        "hello, world: *?!@#& <you> [me] / = - . 0",
        "tab\there",
        "Gr\xc3\xbc\xc3\x9f"
        "e aus K\xc3\xb6ln, \xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82",
        "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb", /* woman, joiner, computer */
        "\xe2\x9d\xa4\xef\xb8\x8f",                     /* heart, variation selector */
        "\xe2\x80\x8e\xe2\x80\x8f\xd8\x9c",             /* LRM, RLM, ALM: marks, no override */
        "\xe2\x80\x8b\xe2\x80\x8c",                     /* zero-width space, non-joiner */
        "\xef\xbb\xbf"
        "byte order mark",
        "\x02"
        "bold\x0f \x03"
        "4,5red\x03 \x11 \x16 \x1d \x1e \x1f",
        "\xef\xbf\xbd\xef\xbf\xbf\xf4\x8f\xbf\xbf", /* U+FFFD and non-characters */
    };
    for (size_t i = 0; i < N(good); i++)
        assert_int_equal(check(good[i], strlen(good[i]), RODA_TEXT_LINE), 0);
    assert_int_equal(text_check((struct roda_str){NULL, 0}, RODA_TEXT_LINE), 0);
    assert_int_equal(check("a\nb", 3, RODA_TEXT_LINE), -EINVAL);
    assert_int_equal(check("a\nb\n", 4, RODA_TEXT_MULTILINE), 0);
    assert_int_equal(check("a\r\nb", 4, RODA_TEXT_MULTILINE), -EINVAL);
    assert_int_equal(check("a\0b", 3, RODA_TEXT_LINE), -EINVAL);
    assert_int_equal(check("\x1b[2J", 4, RODA_TEXT_LINE), -EINVAL);
    assert_int_equal(check("\xc2\x9b"
                           "2J",
                           4, RODA_TEXT_LINE),
                     -EINVAL);
    assert_int_equal(check("x", 1, 4), -EINVAL);
    assert_int_equal(check("x", 1, ~0u), -EINVAL);
}

static void test_bad_utf8(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\x80", /* a continuation alone */
        "\xbf",
        "a\x80",
        "\xc3", /* cut off */
        "\xe2\x82",
        "\xe2",
        "\xf0\x9f\x98",
        "\xf0\x9f",
        "\xf0",
        "\xc3(",
        "\xe2(\xac", /* a continuation is missing */
        "\xe2\x82(",
        "\xf0(\x98\x80",
        "\xf0\x9f(\x80",
        "\xf0\x9f\x98(",
        "\xc3\xc3",
        "\xc0\x80",
        "\xc0\xaf", /* overlong */
        "\xc1\xbf",
        "\xe0\x80\x80",
        "\xe0\x9f\xbf",
        "\xf0\x80\x80\x80",
        "\xf0\x8f\xbf\xbf",
        "\xed\xa0\x80",
        "\xed\xbf\xbf", /* surrogates */
        "\xed\xa0\xbd\xed\xb8\x80",
        "\xf4\x90\x80\x80", /* above U+10FFFF */
        "\xf5\x80\x80\x80",
        "\xf7\xbf\xbf\xbf",
        "\xf8\x88\x80\x80\x80", /* five and six bytes */
        "\xfc\x84\x80\x80\x80\x80",
        "\xfe",
        "\xff",
        "\xff\xfb\x01", /* telnet's IAC */
    };
    for (size_t i = 0; i < N(bad); i++) {
        for (size_t before = 0; before < 10; before++) {
            char text[40], normal[64];
            memset(text, 'a', sizeof(text));
            size_t len = strlen(bad[i]);
            memcpy(text + before, bad[i], len);
            for (unsigned rule = RODA_TEXT_LINE; rule <= RODA_TEXT_ROOM; rule++) {
                if (check(text, before + len, rule) != -EILSEQ)
                    fail_msg("sequence %zu after %zu, rule %u", i, before, rule);
                if (rule <= RODA_TEXT_MULTILINE)
                    assert_int_equal(check(text, before + len + 12, rule), -EILSEQ);
            }
            struct roda_str name = {text, before + len};
            assert_int_equal(text_normal(name, normal, sizeof(normal)), -EILSEQ);
            assert_int_equal(text_fold(name, normal, sizeof(normal)), -EILSEQ);
        }
    }
}

/* The first of several faults decides. */
static void test_first_fault(void **state)
{
    (void)state;
    assert_int_equal(check("\x01\xff", 2, RODA_TEXT_LINE), -EINVAL);
    assert_int_equal(check("\xff\x01", 2, RODA_TEXT_LINE), -EILSEQ);
}

/* ---- names ------------------------------------------------------------------------------ */

/* Every ASCII character, first and later. */
static void test_ascii_in_names(void **state)
{
    (void)state;
    for (int c = 0; c < 0x80; c++) {
        char later[2] = {'a', (char)c}, first[2] = {(char)c, 'a'};
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool digit = c >= '0' && c <= '9';
        bool nick = letter || digit || (c && strchr("_-[]\\^{}|`", c));
        bool room = nick || c == '.' || c == '/';
        assert_int_equal(check(later, 2, RODA_TEXT_NICK), nick ? 0 : -EINVAL);
        assert_int_equal(check(later, 2, RODA_TEXT_ROOM), room ? 0 : -EINVAL);
        bool nick_first = nick && !digit && c != '-' && c != '[';
        bool room_first = room && c != '.' && c != '/';
        assert_int_equal(check(first, 2, RODA_TEXT_NICK), nick_first ? 0 : -EINVAL);
        assert_int_equal(check(first, 2, RODA_TEXT_ROOM), room_first ? 0 : -EINVAL);
        assert_int_equal(check(first, 1, RODA_TEXT_NICK), nick_first ? 0 : -EINVAL);
    }
}

struct name_case {
    const char *name;
    int nick, room;
};

static void test_names(void **state)
{
    (void)state;
    static const struct name_case cases[] = {
        {"", -ENAMETOOLONG, -ENAMETOOLONG},
        {"ana", 0, 0},
        {"CON", 0, 0},
        {"con.txt", -EINVAL, 0},
        {"../../etc/passwd", -EINVAL, -EINVAL},
        {"a/../../etc/passwd", -EINVAL, -EINVAL},
        {"a/..", -EINVAL, -EINVAL},
        {"a/.", -EINVAL, -EINVAL},
        {"a/./b", -EINVAL, -EINVAL},
        {"a/...", -EINVAL, 0},
        {"a/.b", -EINVAL, 0},
        {"a..b", -EINVAL, 0},
        {"a..", -EINVAL, 0},
        {".", -EINVAL, -EINVAL},
        {"..", -EINVAL, -EINVAL},
        {"/", -EINVAL, -EINVAL},
        {"/etc", -EINVAL, -EINVAL},
        {"dev/null", -EINVAL, 0},
        {"#lobby", -EINVAL, -EINVAL},
        {"&local", -EINVAL, -EINVAL},
        {"2024", -EINVAL, 0},
        {"-n", -EINVAL, 0},
        {"[bot]", -EINVAL, 0},
        {"{bot}", 0, 0},
        {"two words", -EINVAL, -EINVAL},
        {"a\tb", -EINVAL, -EINVAL},
        {"a\nb", -EINVAL, -EINVAL},
        {"a\x02"
         "b",
         -EINVAL, -EINVAL},
        {"a\x7f", -EINVAL, -EINVAL},
        {"nick!user@host", -EINVAL, -EINVAL},
        {"\xc3\x89va", 0, 0},
        {"\xd0\x98\xd0\xb2\xd0\xb0\xd0\xbd", 0, 0},
        {"\xe5\xbc\xa0\xe4\xb8\x89", 0, 0},
        {"\xe0\xb8\x81\xe0\xb8\xb4", 0, 0},      /* Thai with a vowel sign above */
        {"\xf0\x9f\x98\x80", 0, 0},              /* an emoji */
        {"a\xc2\xa0", -EINVAL, -EINVAL},         /* no-break space */
        {"a\xc2\x80", -EINVAL, -EINVAL},         /* C1 */
        {"a\xc2\xad", -EINVAL, -EINVAL},         /* soft hyphen */
        {"a\xcd\x8f", -EINVAL, -EINVAL},         /* grapheme joiner: a mark nobody sees */
        {"a\xd8\x9c", -EINVAL, -EINVAL},         /* Arabic letter mark */
        {"a\xe1\x85\x9f", -EINVAL, -EINVAL},     /* Hangul filler: a letter nobody sees */
        {"a\xe1\x9a\x80", -EINVAL, -EINVAL},     /* Ogham space */
        {"a\xe2\x80\x83", -EINVAL, -EINVAL},     /* em space */
        {"a\xe2\x80\x8b", -EINVAL, -EINVAL},     /* zero-width space */
        {"a\xe2\x80\x8d", -EINVAL, -EINVAL},     /* zero-width joiner */
        {"a\xe2\x80\x8e", -EINVAL, -EINVAL},     /* LRM */
        {"a\xe2\x80\xa8", -EINVAL, -EINVAL},     /* line separator */
        {"a\xe2\x80\xa9", -EINVAL, -EINVAL},     /* paragraph separator */
        {"a\xe2\x80\xae", -EINVAL, -EINVAL},     /* right-to-left override */
        {"a\xe2\x81\xa7", -EINVAL, -EINVAL},     /* isolate */
        {"a\xe2\xa0\x80", -EINVAL, -EINVAL},     /* empty Braille cell */
        {"a\xe3\x80\x80", -EINVAL, -EINVAL},     /* ideographic space */
        {"a\xee\x80\x80", -EINVAL, -EINVAL},     /* private use */
        {"a\xef\xb8\x8f", -EINVAL, -EINVAL},     /* variation selector */
        {"a\xef\xbb\xbf", -EINVAL, -EINVAL},     /* byte order mark */
        {"a\xef\xbf\xbf", -EINVAL, -EINVAL},     /* non-character */
        {"a\xcd\xb8", -EINVAL, -EINVAL},         /* U+0378: not assigned */
        {"a\xf3\xa0\x81\xa1", -EINVAL, -EINVAL}, /* a tag character */
        {"a\xcd\xbe", -EINVAL, -EINVAL},         /* U+037E, in NFC a semicolon */
        {"a\xe2\x84\xaa", 0, 0},                 /* Kelvin sign, in NFC a K */
        {"a\xcc\x81", 0, 0},                     /* a combining accent ... */
        {"\xcc\x81"
         "a",
         -EINVAL, -EINVAL},                 /* ... but not on what stands before */
        {"\xe0\xa4\x83", -EINVAL, -EINVAL}, /* a spacing mark first */
        {"\xe2\x83\x9d", -EINVAL, -EINVAL}, /* an enclosing mark first */
    };
    for (size_t i = 0; i < N(cases); i++) {
        size_t len = strlen(cases[i].name);
        int nick = check(cases[i].name, len, RODA_TEXT_NICK);
        int room = check(cases[i].name, len, RODA_TEXT_ROOM);
        if (nick != cases[i].nick || room != cases[i].room)
            fail_msg("\"%s\": nick %d, room %d", cases[i].name, nick, room);
    }
    assert_int_equal(check("a\0b", 3, RODA_TEXT_NICK), -EINVAL);
    assert_int_equal(check("\0", 1, RODA_TEXT_ROOM), -EINVAL);
}

static void test_length_of_names(void **state)
{
    (void)state;
    char text[80];
    memset(text, 'a', sizeof(text));
    assert_int_equal(check(text, 32, RODA_TEXT_NICK), 0);
    assert_int_equal(check(text, 33, RODA_TEXT_NICK), -ENAMETOOLONG);
    assert_int_equal(check(text, 64, RODA_TEXT_ROOM), 0);
    assert_int_equal(check(text, 65, RODA_TEXT_ROOM), -ENAMETOOLONG);
    for (size_t i = 0; i < sizeof(text); i += 4)
        memcpy(text + i, "\xf0\x9f\x98\x80", 4);
    assert_int_equal(check(text, 64, RODA_TEXT_ROOM), 0);
    assert_int_equal(check(text, 68, RODA_TEXT_ROOM), -ENAMETOOLONG);
    assert_int_equal(check(text, 32, RODA_TEXT_NICK), 0);
    assert_int_equal(check(text, 64, RODA_TEXT_NICK), -ENAMETOOLONG);
    /* U+1D15E is 4 bytes and 8 in NFC, U+0958 is 3 and 6: the NFC form counts too. */
    for (size_t i = 0; i < 40; i += 4)
        memcpy(text + i, "\xf0\x9d\x85\x9e", 4);
    assert_int_equal(check(text, 16, RODA_TEXT_NICK), 0);
    assert_int_equal(check(text, 20, RODA_TEXT_NICK), -ENAMETOOLONG);
    for (size_t i = 0; i < 66; i += 3)
        memcpy(text + i, "\xe0\xa5\x98", 3);
    assert_int_equal(check(text, 30, RODA_TEXT_ROOM), 0);
    assert_int_equal(check(text, 33, RODA_TEXT_ROOM), -ENAMETOOLONG);
}

/* Each code point as a name: what passes is a name in all its forms. */
static void test_forms_of_a_name_are_names(void **state)
{
    (void)state;
    unsigned passed = 0;
    for (uint32_t code = 1; code <= 0x10ffff; code++) {
        char name[8] = {'a'}, normal[32], fold[32], again[32];
        size_t len = 1 + encode(code, name + 1);
        if (text_check((struct roda_str){name, len}, RODA_TEXT_NICK))
            continue;
        passed++;
        int n = text_normal((struct roda_str){name, len}, normal, sizeof(normal));
        int f = text_fold((struct roda_str){name, len}, fold, sizeof(fold));
        if (n < 0 || text_check((struct roda_str){normal, (size_t)n}, RODA_TEXT_NICK) || f < 0 ||
            text_check((struct roda_str){fold, (size_t)f}, RODA_TEXT_NICK))
            fail_msg("U+%04X", code);
        int again_len = text_fold((struct roda_str){fold, (size_t)f}, again, sizeof(again));
        if (again_len != f || memcmp(again, fold, (size_t)f) != 0)
            fail_msg("U+%04X folds twice", code);
        /* The forms of the form that is shown and of what was typed are the same. */
        again_len = text_fold((struct roda_str){normal, (size_t)n}, again, sizeof(again));
        if (again_len != f || memcmp(again, fold, (size_t)f) != 0)
            fail_msg("U+%04X folds otherwise", code);
    }
    assert_in_range(passed, 100000, 200000);
}

/* ---- normal and folded forms ------------------------------------------------------------ */

static void check_form(int (*form)(struct roda_str, char *, size_t), const char *name,
                       const char *expected)
{
    char buf[128], in_place[128];
    size_t len = strlen(expected);
    int result = form(str(name), buf, sizeof(buf));
    if (result != (int)len || memcmp(buf, expected, len) != 0)
        fail_msg("\"%s\": %d bytes, \"%.*s\"", name, result, result > 0 ? result : 0, buf);
    for (size_t size = 0; size < len; size++) {
        char *exact = malloc(size ? size : 1);
        assert_non_null(exact);
        assert_int_equal(form(str(name), exact, size), -ENOBUFS);
        free(exact);
    }
    strcpy(in_place, name);
    assert_int_equal(form(str(in_place), in_place, sizeof(in_place)), len);
    assert_memory_equal(in_place, expected, len);
}

static void test_normal(void **state)
{
    (void)state;
    check_form(text_normal, "", "");
    check_form(text_normal, "Lobby", "Lobby");
    check_form(text_normal, "\xc3\x89va", "\xc3\x89va");
    check_form(text_normal, "E\xcc\x81va", "\xc3\x89va");
    check_form(text_normal, "\xe2\x84\xab", "\xc3\x85"); /* angstrom sign */
    check_form(text_normal, "A\xcc\x8a", "\xc3\x85");
    check_form(text_normal, "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"); /* Hangul */
    check_form(text_normal, "q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87");   /* order of marks */
    check_form(text_normal, "\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"); /* grows */
    check_form(text_normal, "\xef\xbc\xa1", "\xef\xbc\xa1"); /* full-width A: not NFKC */
    assert_int_equal(text_normal((struct roda_str){NULL, 0}, NULL, 0), 0);
}

static void test_fold(void **state)
{
    (void)state;
    check_form(text_fold, "", "");
    check_form(text_fold, "LoBBy[]\\^_`{}|~-@Z", "lobby[]\\^_`{}|~-@z");
    check_form(text_fold, "CON", "con");
    check_form(text_fold, "E\xcc\x81VA", "\xc3\x89va");
    check_form(text_fold, "\xe2\x84\xaa", "k"); /* Kelvin sign */
    /* Names that differ in case of a letter beyond ASCII are two names. */
    check_form(text_fold, "\xc3\x89VA", "\xc3\x89va");
    check_form(text_fold, "\xc3\xa9VA", "\xc3\xa9va");
    check_form(text_fold, "\xd0\x98", "\xd0\x98");
    /* J with caron has no code point of its own, j with caron has one: same name. */
    check_form(text_fold, "J\xcc\x8c", "\xc7\xb0");
    check_form(text_fold, "j\xcc\x8c", "\xc7\xb0");
    check_form(text_fold, "\xc7\xb0", "\xc7\xb0");
    check_form(text_fold, "H\xcc\xb1T\xcc\x88", "\xe1\xba\x96\xe1\xba\x97");
}

static void test_long_text_is_refused(void **state)
{
    (void)state;
    enum { LONG = 100000 };
    char *text = malloc(LONG), *buf = malloc(3 * LONG);
    assert_non_null(text);
    assert_non_null(buf);
    memset(text, 'A', LONG);
    assert_int_equal(text_fold((struct roda_str){text, LONG}, buf, LONG), LONG);
    assert_int_equal(buf[LONG - 1], 'a');
    /* Marks on marks: sorting them is quadratic, so there is an end to it. */
    for (size_t i = 0; i < LONG; i += 2)
        memcpy(text + i, i % 4 ? "\xcc\x81" : "\xcc\xa3", 2);
    assert_int_equal(text_normal((struct roda_str){text, 2048}, buf, 3 * LONG), 2048);
    assert_int_equal(text_normal((struct roda_str){text, 2050}, buf, 3 * LONG), -ENOBUFS);
    assert_int_equal(text_normal((struct roda_str){text, LONG}, buf, 3 * LONG), -ENOBUFS);
    free(text);
    free(buf);
}

static void test_equal(void **state)
{
    (void)state;
    assert_true(text_equal(str("abc"), str("abc")));
    assert_false(text_equal(str("abc"), str("abd")));
    assert_false(text_equal(str("abc"), str("ab")));
    assert_true(text_equal((struct roda_str){NULL, 0}, str("")));
}

/* ---- cutting and showing ---------------------------------------------------------------- */

static void test_cut(void **state)
{
    (void)state;
    static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";
    static const size_t expected[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11};
    for (size_t len = 0; len < N(expected); len++) {
        char *copy = malloc(len ? len : 1);
        assert_non_null(copy);
        memcpy(copy, text, len);
        assert_int_equal(text_cut(copy, len), expected[len]);
        free(copy);
    }
    /* What is not UTF-8 is cut anywhere. */
    assert_int_equal(text_cut("\x80\x80\x80\x80\x80", 5), 5);
    assert_int_equal(text_cut("\xff", 1), 0);
    assert_int_equal(text_cut(NULL, 0), 0);
}

static void check_escape(const char *text, size_t len, const char *expected)
{
    size_t needed = strlen(expected) + 1;
    for (size_t size = 1; size <= needed + 2; size++) {
        char *buf = malloc(size);
        assert_non_null(buf);
        assert_ptr_equal(text_escape((struct roda_str){text, len}, buf, size), buf);
        size_t written = strlen(buf);
        assert_true(written < size);
        assert_memory_equal(buf, expected, written);
        if (size >= needed)
            assert_string_equal(buf, expected);
        assert_int_equal(text_check(str(buf), RODA_TEXT_LINE), 0);
        free(buf);
    }
}

static void test_escape(void **state)
{
    (void)state;
    check_escape("", 0, "");
    check_escape("plain text ~", 12, "plain text ~");
    check_escape("a\0b", 3, "a\\x00b");
    check_escape("\t\r\n\x1b[0m\x7f", 8, "\\x09\\x0d\\x0a\\x1b[0m\\x7f");
    check_escape("\x02\x0f", 2, "\\x02\\x0f");
    check_escape("\xc3\xa9\xf0\x9f\x98\x80", 6, "\xc3\xa9\xf0\x9f\x98\x80");
    check_escape("\xff\xc3", 2, "\\xff\\xc3");
    check_escape("\xc3(\xe2\x82", 4, "\\xc3(\\xe2\\x82");
    check_escape("\xc2\x9b", 2, "\\xc2\\x9b");
    check_escape("\xe2\x80\xae", 3, "\\xe2\\x80\\xae");
    char untouched = 'x';
    assert_ptr_equal(text_escape(str("abc"), &untouched, 0), &untouched);
    assert_int_equal(untouched, 'x');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point_in_lines),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_bad_utf8),
        cmocka_unit_test(test_first_fault),
        cmocka_unit_test(test_ascii_in_names),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_length_of_names),
        cmocka_unit_test(test_forms_of_a_name_are_names),
        cmocka_unit_test(test_normal),
        cmocka_unit_test(test_fold),
        cmocka_unit_test(test_long_text_is_refused),
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_escape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
