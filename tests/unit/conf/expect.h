#ifndef RODA_TESTS_CONF_EXPECT_H
#define RODA_TESTS_CONF_EXPECT_H
/* Text in, the messages it causes out: what the tests of the configuration share. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"

#define EXPECT_TEXT_BYTES 65536

static const struct conf_defaults expect_defaults = {"/var/lib/roda", "/usr/lib/roda"};

/* A listener that is right, for tests of other sections. */
#define GOOD "[listener x]\nport = 0\nprotocol = p\n"

static inline void expect_collect(void *arg, enum conf_severity severity, const char *line)
{
    char *text = arg;
    size_t len = strlen(text);

    (void)severity;
    (void)snprintf(text + len, EXPECT_TEXT_BYTES - len, "%s\n", line);
}

/* All messages, each with a line end; free() it. */
static inline char *expect_messages(struct roda_conf_errors *errors)
{
    char *text = calloc(1, EXPECT_TEXT_BYTES);

    assert_non_null(text);
    conf_errors_each(errors, expect_collect, text);
    return text;
}

/* The lines without the summary must be what is expected. */
static inline void expect_lines(struct roda_conf_errors *errors, const char *expected)
{
    size_t n = conf_errors_count(errors, CONF_ERROR);
    char *text = expect_messages(errors), *summary, whole[64] = "";

    if (n > 0)
        (void)snprintf(whole, sizeof(whole), "%zu error%s; configuration not usable\n", n,
                       n == 1 ? "" : "s");
    summary = text + strlen(text) - strlen(whole);
    assert_string_equal(summary, whole);
    *summary = '\0';
    assert_string_equal(text, expected);
    free(text);
}

/* Loads len bytes of text as "t" and holds the messages against what is expected. */
static inline void expect_load_bytes(const char *text, size_t len, const char *expected)
{
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = NULL;

    assert_non_null(errors);
    assert_int_equal(conf_load_text("t", text, len, &expect_defaults, errors, &conf), 0);
    assert_non_null(conf);
    expect_lines(errors, expected);
    conf_free(conf);
    conf_errors_free(errors);
}

static inline void expect_load(const char *text, const char *expected)
{
    expect_load_bytes(text, strlen(text), expected);
}

/* Loads what must be right. conf_free() it. */
static inline struct conf *expect_good(const char *text)
{
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = NULL;

    assert_non_null(errors);
    assert_int_equal(conf_load_text("t", text, strlen(text), &expect_defaults, errors, &conf), 0);
    expect_lines(errors, "");
    conf_errors_free(errors);
    return conf;
}

#endif
