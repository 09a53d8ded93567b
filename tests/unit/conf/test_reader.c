/* What the reader makes of lines and files: every case that the packaged inih would swallow. */
#include "expect.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "conf/reader.h"
#include "conf/store.h"

#define TEN     "0123456789"
#define FIFTY   TEN TEN TEN TEN TEN
#define HUNDRED FIFTY FIFTY

/* ---- lines ------------------------------------------------------------------------------ */

/* text; the entries as "[section] key=value@line" separated by '|'; the messages. */
struct reading {
    const char *text, *entries, *messages;
};

static const struct reading readings[] = {
    {"[a]\nk = v\n", "[a] k=v@2", ""},
    {"[a]\nk=v", "[a] k=v@2", ""}, /* no line end at the end of the file */
    {"", "", ""},
    {"\n\n", "", ""},
    {"[a]\n[b]\nk = v\n", "[a]|[b] k=v@3", ""}, /* a section without keys counts */
    {"[plugin  room]\n[plugin\troom]\nk = v\n", "[plugin room] k=v@3", ""},
    {"  [a]  \n\tk = v\t\n", "[a] k=v@2", ""},
    /* an indented line is no continuation */
    {"[a]\nmotd = x\n\tkey = 5\n", "[a] motd=x@2 key=5@3", ""},
    {"[a]\n# c\n; c\n  # c\nk = v\n", "[a] k=v@5", ""},
    {"[a]\nk = v ; comment\n", "[a] k=v@2", ""},
    {"[a] ; comment\nk = v\n", "[a] k=v@2", ""},
    {"[a] # comment\nk = v\n", "[a] k=v@2", ""},
    {"[a]\nk = a;b\n", "[a] k=a;b@2", ""},
    {"[a]\nk = #geral, #dev\n", "[a] k=#geral, #dev@2", ""},
    {"[a]\nk =\n", "[a] k=@2", ""},
    {"[a]\nk = ; c\n", "[a] k=@2", ""},
    {"[a]\nk = a = b : c\n", "[a] k=a = b : c@2", ""},
    {"[a]\nk = ::\n", "[a] k=::@2", ""},
    {"[a]\nk = 1\nk = 2\n", "[a] k=1@2 k=2@3", ""},
    {"[a]\nk = 1\n[b]\nx = 1\n[a]\nk = 3\n", "[a] k=1@2 k=3@6|[b] x=1@4", ""},
    /* quotes */
    {"[a]\nk = \"a ; b\"\n", "[a] k=\"a@2",
     "t:2: warning: a comment begins at \" ;\": quotes do not protect it, the value ends there\n"},
    {"[a]\nk = 'a ; b'\n", "[a] k='a@2",
     "t:2: warning: a comment begins at \" ;\": quotes do not protect it, the value ends there\n"},
    {"[a]\nk = \"a\" ; b\n", "[a] k=\"a\"@2", ""},
    {"[a]\nk = \"a;b\"\n", "[a] k=\"a;b\"@2", ""},
    /* what is no pair */
    {"[a]\nnovalue\nk = v\n", "[a] k=v@3", "t:2: no \"=\" in the line; write key = value\n"},
    {"[a]\nk ; = v\n", "[a]", "t:2: no \"=\" in the line; write key = value\n"},
    {"[a]\nk : v\n", "[a]", "t:2: \":\" after the key; write key = value\n"},
    {"[a]\n= v\n", "[a]", "t:2: no key before the \"=\"\n"},
    {"k = v\n[a]\n", "[a]", "t:1: a key before the first [section]\n"},
    {"one\n[a]\ntwo\n", "[a]",
     "t:1: no \"=\" in the line; write key = value\n"
     "t:3: no \"=\" in the line; write key = value\n"},
    /* sections; the keys below a bad one belong nowhere and are not told of */
    {"[a\nk = v\n", "", "t:1: the section has no \"]\"\n"},
    {"[a ;]\nk = v\n", "", "t:1: the section has no \"]\"\n"},
    {"[]\nk = v\n", "", "t:1: the section has no name\n"},
    {"[  ]\n", "", "t:1: the section has no name\n"},
    {"[a] b\nk = v\n[c]\nk = v\n", "[c] k=v@4",
     "t:1: text after the section's \"]\"; write it in a line of its own\n"},
    {"[a b c]\n", "", "t:1: [a b c]: a section's name has no blanks\n"},
    {"[listener " TEN TEN TEN "012345678]\nk = v\n", "[listener " TEN TEN TEN "012345678] k=v@2",
     ""}, /* 48 bytes */
    {"[" FIFTY "]\nk = v\n", "", "t:1: the section's name is longer than 49 bytes\n"},
    /* lengths: 198 bytes are taken whole, 199 are not */
    {"[a]\nk = " HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN "0123\nl = 1\n",
     "[a] k=" HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN "0123@2 l=1@3", ""},
    {"[a]\nk = " HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN "01234\nl = 1\n", "[a] l=1@3",
     "t:2: line is longer than 198 bytes; repeat the key to add to a list\n"},
    {"[a" HUNDRED HUNDRED "]\nl = 1\n", "",
     "t:1: line is longer than 198 bytes; repeat the key to add to a list\n"},
    {"# " HUNDRED HUNDRED HUNDRED "\n[a]\nk = v\n", "[a] k=v@3", ""}, /* a comment may */
    /* what is not text */
    {"[a]\r\nk = v\r\n", "[a] k=v@2", ""},
    {"[a]\nk = v\r", "[a] k=v@2", ""},
    {"\xef\xbb\xbf[a]\nk = v\n", "[a] k=v@2", ""},
    {"\xef\xbb\xbf", "", ""},
    {"[a]\nk = caf\xe9\nl = 1\n", "[a] l=1@3", "t:2: not UTF-8; save the file as UTF-8 text\n"},
    {"# caf\xe9\n[a]\nk = v\n", "[a] k=v@3", ""},
    {"[a]\nk = caf\xc3\xa9\n", "[a] k=caf\xc3\xa9@2", ""},
    {"[a]\nk = a\x1b[1m\n", "[a]", "t:2: a control character (0x1b) in the line\n"},
    {"[a]\nk = a\rb\n", "[a]", "t:2: a control character (0x0d) in the line\n"},
    {"[a]\nk = a\x7f\n", "[a]", "t:2: a control character (0x7f) in the line\n"},
    {"[a]\nk = a\xe2\x80\xa8\n", "[a]", "t:2: a character that is not allowed in the line\n"},
    {"\xff\xfe[\n", "", "t: is UTF-16; save the file as UTF-8 text\n"},
};

/* The store as in struct reading.entries. */
static void describe(const struct conf_store *store, char *buf, size_t size)
{
    size_t len = 0;

    buf[0] = '\0';
    for (struct store_section *s = store->sections; s; s = s->next) {
        len += (size_t)snprintf(buf + len, size - len, "%s[%s]", len ? "|" : "", s->name);
        for (struct store_entry *e = s->entries; e; e = e->next)
            len += (size_t)snprintf(buf + len, size - len, " %s=%s@%u", e->key, e->value,
                                    e->place.line);
        assert_true(len < size);
    }
}

static void read_and_compare(const char *text, size_t len, const char *entries,
                             const char *messages)
{
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf_store *store = store_new();
    char found[4096];

    assert_non_null(errors);
    assert_non_null(store);
    assert_int_equal(reader_text(store, (struct conf_place){"t", 0, 0}, text, len, errors), 0);
    describe(store, found, sizeof(found));
    assert_string_equal(found, entries);
    expect_lines(errors, messages);
    store_free(store);
    conf_errors_free(errors);
}

static void test_lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(readings) / sizeof(readings[0]); i++)
        read_and_compare(readings[i].text, strlen(readings[i].text), readings[i].entries,
                         readings[i].messages);
}

static void test_nul(void **state)
{
    static const char text[] = "[a]\nk = v\nl = \0\n\0\0\n";

    (void)state;
    read_and_compare(text, sizeof(text) - 1, "",
                     "t:3: a NUL byte: this is no text file, or it is damaged\n");
}

static void test_sections_max(void **state)
{
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf_store *store = store_new();
    char *text = malloc(STORE_SECTIONS_MAX * 16), *at = text;

    (void)state;
    assert_non_null(text);
    for (unsigned i = 0; i <= STORE_SECTIONS_MAX; i++)
        at += snprintf(at, 16, "[s%u]\n", i);
    assert_int_equal(reader_text(store, (struct conf_place){"t", 0, 0}, text, (size_t)(at - text),
                                 errors),
                     0);
    expect_lines(errors, "t:1025: more than 1024 sections\n");
    free(text);
    store_free(store);
    conf_errors_free(errors);
}

/* ---- the collector ---------------------------------------------------------------------- */

static void test_errors_sorted(void **state)
{
    struct roda_conf_errors *errors = conf_errors_new();

    (void)state;
    conf_errors_add(errors, CONF_ERROR, (struct conf_place){"b", 1, 1}, "s", "k", "v", "four");
    conf_errors_add(errors, CONF_ERROR, (struct conf_place){"a", 9, 0}, "s", "k", NULL, "two");
    conf_errors_add(errors, CONF_WARNING, (struct conf_place){"a", 9, 0}, NULL, NULL, NULL,
                    "three");
    conf_errors_add(errors, CONF_ERROR, (struct conf_place){"a", 2, 0}, "s", NULL, NULL, "one");
    assert_int_equal(conf_errors_count(errors, CONF_WARNING), 1);
    expect_lines(errors, "a:2: [s]: one\na:9: [s].k: two\na:9: warning: three\n"
                         "b:1: [s].k: v: four\n");
    expect_lines(errors, "a:2: [s]: one\na:9: [s].k: two\na:9: warning: three\n"
                         "b:1: [s].k: v: four\n"); /* telling keeps them */
    assert_int_equal(conf_errors_result(errors), -EINVAL);
    conf_errors_free(errors);
}

static void test_warnings_are_no_errors(void **state)
{
    struct roda_conf_errors *errors = conf_errors_new();

    (void)state;
    conf_errors_add(errors, CONF_WARNING, (struct conf_place){NULL, 0, 0}, NULL, NULL, NULL, "w");
    expect_lines(errors, "warning: w\n");
    assert_int_equal(conf_errors_result(errors), 0);
    conf_errors_free(errors);
}

static void test_errors_bounded(void **state)
{
    struct roda_conf_errors *errors = conf_errors_new();
    char *text;

    (void)state;
    for (unsigned i = 0; i < CONF_ERRORS_KEPT + 7; i++)
        conf_errors_add(errors, CONF_ERROR, (struct conf_place){"t", i + 1, 0}, NULL, NULL, NULL,
                        "x");
    text = expect_messages(errors);
    assert_non_null(strstr(text, "t:200: x\nand 7 more that are not shown\n"
                                 "207 errors; configuration not usable\n"));
    free(text);
    conf_errors_free(errors);
}

/* What a terminal would obey comes out as text. */
static void test_errors_escaped(void **state)
{
    struct roda_conf_errors *errors = conf_errors_new();

    (void)state;
    conf_errors_add(errors, CONF_ERROR, (struct conf_place){"t", 1, 0}, "s", "k\x1b[2J", "\x07",
                    "bad %s", "\x1b");
    expect_lines(errors, "t:1: [s].k\\x1b[2J: \\x07: bad \\x1b\n");
    conf_errors_free(errors);
}

static void test_errors_without_memory(void **state)
{
    struct roda_conf_errors *errors = conf_errors_new();
    char *text;

    (void)state;
    memory_fail_at(1, 0);
    conf_errors_add(errors, CONF_WARNING, (struct conf_place){"t", 1, 0}, NULL, NULL, NULL, "x");
    memory_fail_at(0, 0);
    assert_int_equal(conf_errors_result(errors), -ENOMEM);
    text = expect_messages(errors);
    assert_non_null(strstr(text, "out of memory"));
    free(text);
    conf_errors_free(errors);
    conf_errors_free(NULL);
}

/* ---- files ------------------------------------------------------------------------------ */

struct folder {
    char path[64];
};

static int folder_setup(void **state)
{
    struct folder *folder = calloc(1, sizeof(*folder));

    if (!folder)
        return -1;
    (void)snprintf(folder->path, sizeof(folder->path), "/tmp/roda-test-reader-XXXXXX");
    *state = folder;
    return mkdtemp(folder->path) ? 0 : -1;
}

static int folder_teardown(void **state)
{
    struct folder *folder = *state;
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/f", folder->path);
    (void)unlink(path);
    (void)rmdir(folder->path);
    free(folder);
    return 0;
}

static void file_path(const struct folder *folder, char path[128])
{
    (void)snprintf(path, 128, "%s/f", folder->path);
}

static void write_file(const char *path, const char *text, size_t len)
{
    FILE *file = fopen(path, "we");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

/* The message for path without the path itself. */
static void expect_file(const char *path, int result, const char *message)
{
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = NULL;
    char expected[512] = "";

    assert_int_equal(conf_load(path, &expect_defaults, errors, &conf), result);
    if (message)
        (void)snprintf(expected, sizeof(expected), "%s%s\n", path, message);
    expect_lines(errors, expected);
    if (result < 0)
        assert_null(conf);
    conf_free(conf);
    conf_errors_free(errors);
}

static void test_file_good(void **state)
{
    char path[128];

    file_path(*state, path);
    write_file(path, GOOD, strlen(GOOD));
    expect_file(path, 0, NULL);
}

static void test_file_missing(void **state)
{
    char path[128];

    file_path(*state, path);
    (void)unlink(path);
    expect_file(path, -ENOENT, ": no such file");
}

static void test_file_is_folder(void **state)
{
    const struct folder *folder = *state;

    expect_file(folder->path, -EISDIR, ": is a directory; name the file in it");
}

static void test_file_unreadable(void **state)
{
    char path[128];

    file_path(*state, path);
    write_file(path, GOOD, strlen(GOOD));
    assert_int_equal(chmod(path, 0), 0);
    if (geteuid() == 0) /* root may read everything: be somebody else for a moment */
        assert_int_equal(seteuid(65534), 0);
    expect_file(path, -EACCES,
                ": permission denied; the user that starts the broker must be able to read it");
    assert_int_equal(seteuid(getuid()), 0);
    assert_int_equal(chmod(path, 0600), 0);
}

static void test_file_too_large(void **state)
{
    size_t len = READER_FILE_BYTES_MAX + 1;
    char *text = malloc(len), path[128];

    assert_non_null(text);
    memset(text, '#', len);
    file_path(*state, path);
    write_file(path, text, len);
    free(text);
    expect_file(path, -EFBIG, ": larger than 256 kB; is it a configuration?");
}

static void test_file_empty(void **state)
{
    char path[128];

    file_path(*state, path);
    write_file(path, "", 0);
    expect_file(path, 0, ": no [listener NAME] section, so nobody could connect");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_nul),
        cmocka_unit_test(test_sections_max),
        cmocka_unit_test(test_errors_sorted),
        cmocka_unit_test(test_warnings_are_no_errors),
        cmocka_unit_test(test_errors_bounded),
        cmocka_unit_test(test_errors_escaped),
        cmocka_unit_test(test_errors_without_memory),
        cmocka_unit_test(test_file_good),
        cmocka_unit_test(test_file_missing),
        cmocka_unit_test(test_file_is_folder),
        cmocka_unit_test(test_file_unreadable),
        cmocka_unit_test(test_file_too_large),
        cmocka_unit_test(test_file_empty),
    };

    return cmocka_run_group_tests(tests, folder_setup, folder_teardown);
}
