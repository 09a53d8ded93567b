/* The broker's messages: one line each, whatever is in them, in the form that was asked for. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "main/messages.h"
#include "roda/plugin.h"

static int real_stderr, reader;

static int begin(void **state)
{
    int ends[2];

    (void)state;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        return -1;
    real_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    reader = ends[0];
    return 0;
}

static int end(void **state)
{
    (void)state;
    log_set_sink(NULL, NULL, 0);
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    close(reader);
    return 0;
}

static const char *written(void)
{
    static char text[8192];
    ssize_t n = read(reader, text, sizeof text - 1);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

/* "2026-01-31T10:20:30.123Z" at the beginning; returns what follows. */
static const char *after_time(const char *line)
{
    static const char form[] = "0000-00-00T00:00:00.000Z";

    for (size_t i = 0; form[i]; i++)
        if (form[i] == '0')
            assert_in_range(line[i], '0', '9');
        else
            assert_int_equal(line[i], form[i]);
    return line + strlen(form);
}

static void text_begins_with_the_time(void **state)
{
    (void)state;
    unsetenv("JOURNAL_STREAM");
    messages_open(false, RODA_LOG_NOTICE);
    log_write(RODA_LOG_ERROR, "net", "port %d is taken", 3000);
    assert_string_equal(after_time(written()), " error net: port 3000 is taken\n");
    log_write(RODA_LOG_WARNING, "x", "a\nforged line\x1b[0m");
    assert_string_equal(after_time(written()), " warning x: a?forged line?[0m\n");
    log_write(RODA_LOG_INFO, "x", "too detailed");
    assert_string_equal(written(), "");
}

static void the_journal_gets_levels(void **state)
{
    (void)state;
    setenv("JOURNAL_STREAM", "1:2", 1);
    messages_open(false, RODA_LOG_DEBUG);
    log_write(RODA_LOG_DEBUG, "main", "hello");
    log_write(RODA_LOG_ERROR, "main", "alas");
    assert_string_equal(written(), "<7>main: hello\n<3>main: alas\n");
    unsetenv("JOURNAL_STREAM");
}

static void json_is_escaped(void **state)
{
    const char *line;

    (void)state;
    messages_open(true, RODA_LOG_INFO);
    log_write(RODA_LOG_NOTICE, "plugin", "%s", "say \"hi\" \\ \t \xc3\xa4");
    line = written();
    assert_memory_equal(line, "{\"time\":\"", 9);
    assert_string_equal(after_time(line + 9), "\",\"level\":\"notice\",\"source\":\"plugin\","
                                              "\"message\":\"say \\\"hi\\\" \\\\ ? \xc3\xa4\"}\n");
}

static void a_long_message_is_one_whole_line(void **state)
{
    char long_text[4000];

    (void)state;
    memset(long_text, '"', sizeof long_text - 1); /* two bytes each in JSON */
    long_text[sizeof long_text - 1] = '\0';
    for (int json = 0; json <= 1; json++) {
        const char *line;
        size_t len;
        messages_open(json, RODA_LOG_INFO);
        log_write(RODA_LOG_NOTICE, "plugin", "%s", long_text);
        line = written();
        len = strlen(line);
        assert_true(len > 900);
        assert_ptr_equal(strchr(line, '\n'), line + len - 1);
        if (json)
            assert_string_equal(line + len - 3, "\"}\n");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        TEST(text_begins_with_the_time),
        TEST(the_journal_gets_levels),
        TEST(json_is_escaped),
        TEST(a_long_message_is_one_whole_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
