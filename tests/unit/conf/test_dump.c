/* What is shown to people can be read back, and leaves no option out. */
#include "expect.h"

#include "conf/dump.h"
#include "conf/option.h"
#include "conf/sections.h"

struct sample {
    int64_t number, wait_ms, word;
    int flag;
    const char *text;
    struct roda_list list;
    struct roda_rate rate;
};

#define SAMPLE(f) offsetof(struct sample, f)

static const struct roda_option sample_options[] = {
    {"number", RODA_T_INT, SAMPLE(number), "5", 1, 10, NULL, RODA_OPTION_LISTENER, "a number"},
    {"wait", RODA_T_MS, SAMPLE(wait_ms), "1s", 0, 0, NULL, 0, "a duration"},
    {"word", RODA_T_CHOICE, SAMPLE(word), "two", 0, 0, "one|two|three", 0, "a word"},
    {"flag", RODA_T_BOOL, SAMPLE(flag), "yes", 0, 0, NULL, RODA_OPTION_LISTENER, "a flag"},
    {"text", RODA_T_STRING, SAMPLE(text), "", 0, 0, NULL, 0, "a text with * and _ in it"},
    {"list", RODA_T_LIST, SAMPLE(list), "a, b", 0, 0, NULL, RODA_OPTION_LISTENER, "a list"},
    {"rate", RODA_T_RATE, SAMPLE(rate), NULL, 0, 0, NULL, 0, "a rate"},
    {NULL, 0, 0, NULL, 0, 0, NULL, 0, NULL},
};

static const struct conf_options sample = {"s", "shows options", sample_options,
                                           sizeof(sample_options[0])};

static void add(char *text, const char *more)
{
    size_t len = strlen(text);

    assert_true(len + strlen(more) < EXPECT_TEXT_BYTES);
    (void)snprintf(text + len, EXPECT_TEXT_BYTES - len, "%s", more);
}

static void append(void *arg, const char *line)
{
    assert_null(strchr(line, '\n'));
    add(arg, line);
    add(arg, "\n");
}

static char *new_text(void)
{
    char *text = calloc(1, EXPECT_TEXT_BYTES);

    assert_non_null(text);
    return text;
}

/* The dump of text, with the plugin "s" filled; free() it. */
static char *dump_of(const char *text)
{
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = NULL;
    const void *filled;
    char *dump = new_text();

    assert_int_equal(conf_load_text("t", text, strlen(text), &expect_defaults, errors, &conf), 0);
    assert_int_equal(conf_plugin_fill(conf, "s", sample_options, sizeof(sample_options[0]),
                                      sizeof(struct sample), errors, &filled),
                     0);
    conf_check_leftovers(conf, errors);
    expect_lines(errors, "");
    conf_dump(conf, append, dump);
    conf_free(conf);
    conf_errors_free(errors);
    return dump;
}

/* Cuts off what a line says about its place, and comments. */
static void strip_places(char *text)
{
    char *to = text;

    for (char *line = text, *next; *line; line = next) {
        size_t len = strcspn(line, "\n"), kept = len;

        next = line + len + (line[len] == '\n');
        for (size_t i = 0; i < len; i++) {
            if (line[i] == ';' && (i == 0 || line[i - 1] == ' ')) {
                kept = i;
                break;
            }
        }
        while (kept > 0 && line[kept - 1] == ' ')
            kept--;
        if (kept == 0)
            continue;
        memmove(to, line, kept);
        to += kept;
        *to++ = '\n';
    }
    *to = '\0';
}

#define CONF                                                                                       \
    "[core]\nname = dumped\nworkers = 3\n"                                                         \
    "[limits]\nsend_queues_total = 2M\nsend_queue = 1M\nudp_session_rate = 3/m burst 7\n"          \
    "[listener x]\nport = 5\nprotocol = p\naddress = ::\nidle_ping = 5s\ns.number = 7\n"           \
    "s.list = q\n"                                                                                 \
    "[listener y]\ntransport = unix\npath = y.sock\nmode = 0600\nprotocol = q\n"                   \
    "[plugin off]\nenabled = no\nraw = kept\n"                                                     \
    "[plugin s]\nrate = off\nword = one\ntext = hi; there\nlist = 1, 2\n"

static void test_dump(void **state)
{
    char *dump = dump_of(CONF);

    (void)state;
    assert_non_null(strstr(dump, "[core]\nname = dumped                       ; t:2\n"
                                 "workers = 3                         ; t:3\n"
                                 "user =                              ; default\n"));
    assert_non_null(strstr(dump, "state_dir = /var/lib/roda           ; default\n"));
    assert_non_null(strstr(dump, "udp_session_rate = 3/m burst 7      ; t:7\n"));
    assert_non_null(strstr(dump, "[listener x]\n"
                                 "transport = tcp                     ; default\n"
                                 "address = ::                        ; t:11\n"
                                 "port = 5                            ; t:9\n"
                                 "protocol = p                        ; t:10\n"
                                 "layers =                            ; default\n"
                                 "idle_ping = 5s                      ; t:12\n"
                                 "s.number = 7                        ; t:13\n"
                                 "s.list = q                          ; t:14\n"
                                 "\n"
                                 "[listener y]\n"
                                 "transport = unix                    ; t:16\n"
                                 "path = /var/lib/roda/y.sock         ; t:17\n"
                                 "mode = 0600                         ; t:18\n"
                                 "protocol = q                        ; t:19\n"
                                 "layers =                            ; default\n"
                                 "\n"
                                 "[plugin off]\n"));
    assert_non_null(strstr(dump, "enabled = no                        ; t:21\n"));
    assert_non_null(strstr(dump, "raw = kept                          ; t:22\n"));
    assert_non_null(strstr(dump, "wait = 1s                           ; default\n"
                                 "word = one                          ; t:25\n"
                                 "flag = yes                          ; default\n"
                                 "text = hi; there                    ; t:26\n"
                                 "list = 1, 2                         ; t:27\n"
                                 "rate = off                          ; t:24\n"));
    free(dump);
}

/* The dump of a dump says the same, but for the places. */
static void test_dump_loads(void **state)
{
    char *first = dump_of(CONF), *second = dump_of(first);

    (void)state;
    strip_places(first);
    strip_places(second);
    assert_string_equal(second, first);
    free(first);
    free(second);
}

/* Options of core and listeners one by one: any value that parses comes back. */
static void test_long_values(void **state)
{
    char *text = new_text(), *first, *second;
    size_t len;

    (void)state;
    add(text, CONF);
    for (int i = 0; i < 60; i++) {
        len = strlen(text);
        (void)snprintf(text + len, EXPECT_TEXT_BYTES - len, "list = item-number-%d, b%d\n", i, i);
    }
    len = strlen(text);
    (void)snprintf(text + len, EXPECT_TEXT_BYTES - len, "[core]\nplugin_dir = /%0184d\n", 0);
    first = dump_of(text);
    assert_non_null(strstr(first, "list = item-number-59"));
    assert_non_null(strstr(first, "; t:89\nplugin_dir = /000"));
    second = dump_of(first);
    strip_places(first);
    strip_places(second);
    assert_string_equal(second, first);
    free(first);
    free(second);
    free(text);
}

/* A plugin without a section is shown with its defaults all the same. */
static void test_dump_unnamed(void **state)
{
    static const struct roda_option options[] = {
        {"number", RODA_T_INT, SAMPLE(number), "5", 1, 10, NULL, 0, "a number"},
        {.name = NULL},
    };
    struct conf *conf = expect_good(GOOD);
    struct roda_conf_errors *errors = conf_errors_new();
    const void *filled;
    char *dump = new_text();

    (void)state;
    assert_int_equal(conf_plugin_fill(conf, "u", options, sizeof(options[0]), sizeof(struct sample),
                                      errors, &filled),
                     0);
    conf_dump(conf, append, dump);
    assert_non_null(strstr(dump, "budget = 1ms                        ; default\n"
                                 "number = 5                          ; default\n"));
    free(dump);
    conf_errors_free(errors);
    conf_free(conf);
}

static void test_help(void **state)
{
    static const struct conf_options none = {"n", NULL, NULL, 0};
    char *text = new_text();

    (void)state;
    conf_help_plugin(&sample, append, text);
    assert_string_equal(text, "s: shows options\n\n[plugin s]\n"
                              "number = 5\n    a number\n"
                              "    (number, 1 to 10; also per listener)\n"
                              "wait = 1s\n    a duration\n    (duration)\n"
                              "word = two\n    a word\n    (one, two or three)\n"
                              "flag = yes\n    a flag\n    (yes or no; also per listener)\n"
                              "text =\n    a text with * and _ in it\n    (text)\n"
                              "list = a, b\n    a list\n    (list; also per listener)\n"
                              "rate = (must be given)\n    a rate\n    (rate; must be given)\n");
    text[0] = '\0';
    conf_help_plugin(&none, append, text);
    assert_string_equal(text, "n\n\n[plugin n]\n    has no options of its own\n");
    free(text);
}

/* Taking the "#" away from every option of the commented file changes nothing. */
static void test_example_is_the_default(void **state)
{
    char *text = new_text(), *plain = dump_of(GOOD "[plugin s]\nrate = off\n"), *dump;

    (void)state;
    add(text, GOOD);
    for (size_t i = SECTIONS_CORE; i < SECTIONS_N; i++) {
        const struct conf_example example = {sections[i].kind, sections[i].about, NULL, NULL,
                                             false};
        const struct conf_options options = {NULL, NULL, sections[i].options,
                                             sizeof(struct roda_option)};

        conf_write_example(&example, &options, append, text);
        for (const struct roda_option *o = sections[i].options; o->name; o++) {
            char line[256];

            (void)snprintf(line, sizeof(line), "\n#%s =", o->name);
            assert_non_null(strstr(text, line));
        }
    }
    add(text, "[plugin s]\nrate = off\n");
    for (char *at = text; (at = strstr(at, "\n#")); at++) {
        if (at[2] != ' ')
            at[1] = ' ';
    }
    dump = dump_of(text);
    strip_places(dump);
    strip_places(plain);
    assert_string_equal(dump, plain);
    free(text);
    free(plain);
    free(dump);
}

static void test_example_of_plugin(void **state)
{
    static const char *const set[] = {"number", "7", "flag", "no", NULL};
    static const char *const keys[] = {"number", "wait", NULL};
    struct conf_example example = {"plugin s", "About it.", keys, set, false};
    char *text = new_text();

    (void)state;
    conf_write_example(&example, &sample, append, text);
    assert_string_equal(text, "# About it.\n[plugin s]\n"
                              "# a number (number, 1 to 10; also per listener)\nnumber = 7\n"
                              "# a duration (duration)\n#wait = 1s\n");
    text[0] = '\0';
    example.only_set = true;
    example.header = NULL;
    example.about = NULL;
    conf_write_example(&example, &sample, append, text);
    assert_string_equal(text, "number = 7\nflag = no\n");
    free(text);
}

static void test_comment_wraps(void **state)
{
    char *text = new_text();

    (void)state;
    conf_write_comment("0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 "
                       "0123456789 0 23",
                       append, text);
    assert_string_equal(text, "# 0123456789 0123456789 0123456789 0123456789 0123456789 "
                              "0123456789 0123456789 0\n# 23\n");
    text[0] = '\0';
    conf_write_comment("012345678901234567890123456789012345678901234567890123456789012345678901234"
                       "5"
                       "6789 word",
                       append, text);
    assert_string_equal(text,
                        "# 0123456789012345678901234567890123456789012345678901234567890123456"
                        "7890123456789\n# word\n"); /* a word is never cut */
    free(text);
}

static void test_reference(void **state)
{
    char *text = new_text();

    (void)state;
    conf_write_reference(&sample, 1, append, text);
    for (size_t i = 0; i < SECTIONS_N; i++) {
        for (const struct roda_option *o = sections[i].options; o->name; o++) {
            char line[256];

            (void)snprintf(line, sizeof(line), "\n*%s* = _%s_\n", o->name,
                           option_type_name(o->type));
            assert_non_null(strstr(text, line));
        }
    }
    assert_non_null(strstr(text, "# SECTION [listener NAME]\n"));
    assert_non_null(strstr(text, "\n# SECTION [limits]\n"));
    assert_non_null(strstr(text, "\n# SECTION [plugin s]\n\nshows options.\n\n"
                                 "*number* = _number_\n"
                                 "\tA number.\n\n"
                                 "\tDefault: 5. 1 to 10. A listener may have its own.\n\n"));
    assert_non_null(strstr(text, "*word* = _word_\n\tA word.\n\n"
                                 "\tDefault: two. One of: one, two or three.\n"));
    assert_non_null(strstr(text, "\tA text with \\* and \\_ in it.\n\n\tDefault: empty.\n"));
    assert_non_null(strstr(text, "*rate* = _rate_\n\tA rate.\n\n\tMust be given.\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dump),
        cmocka_unit_test(test_dump_loads),
        cmocka_unit_test(test_long_values),
        cmocka_unit_test(test_dump_unnamed),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_example_is_the_default),
        cmocka_unit_test(test_example_of_plugin),
        cmocka_unit_test(test_comment_wraps),
        cmocka_unit_test(test_reference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
