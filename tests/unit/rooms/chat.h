#ifndef RODA_TEST_ROOMS_CHAT_H
#define RODA_TEST_ROOMS_CHAT_H
/* What the tests of the plugin "rooms" share: people who speak the host's protocol "plain". */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testhost.h"
#include <roda/rooms.h>

extern const struct roda_plugin rooms_plugin;

/* A plugin that needs the service, so that a test can call it with that plugin's ctx. */
static const char *const chat_visitor_needs[] = {RODA_ROOMS_ID, NULL};
static const struct roda_plugin chat_visitor = {
    .abi = RODA_ABI,
    .size = sizeof(struct roda_plugin),
    .name = "visitor",
    .summary = "looks at rooms",
    .version = "1",
    .needs = chat_visitor_needs,
};

static inline struct testhost *chat_start(uint32_t n_workers, const char *conf)
{
    struct testhost *h = testhost_new(n_workers);

    assert_int_equal(testhost_load(h, &rooms_plugin, conf), 0);
    assert_int_equal(testhost_load(h, &chat_visitor, NULL), 0);
    assert_int_equal(testhost_start(h), 0);
    return h;
}

/* Everything was given back, and no rule of the interface was broken. */
static inline void chat_stop(struct testhost *h)
{
    assert_int_equal(testhost_stop(h), 0);
    testhost_free(h);
}

static inline const struct roda_rooms *chat_service(struct testhost *h, uint32_t worker,
                                                    struct roda_ctx **ret_ctx)
{
    return roda_service(testhost_ctx(h, "visitor", worker), RODA_ROOMS_ID, ret_ctx);
}

static inline void chat_say(struct testhost_conn *c, const char *line)
{
    testhost_input(c, line);
    testhost_input(c, "\n");
}

static inline void chat_forget(struct testhost_conn *c)
{
    while (testhost_unit(c))
        ;
}

/* The next unit is this; "*" in it stands for any characters but '|'. */
static inline int chat_matches(const char *got, const char *wanted)
{
    while (*wanted) {
        if (*wanted == '*') {
            while (*got && *got != '|')
                got++;
            wanted++;
        } else if (*got++ != *wanted++) {
            return 0;
        }
    }
    return !*got;
}

static inline void chat_hears(struct testhost_conn *c, const char *wanted)
{
    const char *got = testhost_unit(c);

    if (!got)
        fail_msg("nothing came, wanted \"%s\"", wanted);
    else if (!chat_matches(got, wanted))
        fail_msg("\"%s\" came, wanted \"%s\"", got, wanted);
}

static inline void chat_hears_nothing(struct testhost_conn *c)
{
    const char *got = testhost_unit(c);

    if (got)
        fail_msg("\"%s\" came, wanted nothing", got);
}

/* Says a line, and the last unit that comes is its answer with this code. */
static inline void chat_answered(struct testhost *h, struct testhost_conn *c, const char *line,
                                 uint32_t code)
{
    char last[512] = "", *number;
    const char *got;

    chat_say(c, line);
    assert_true(testhost_run(h));
    while ((got = testhost_unit(c)))
        (void)snprintf(last, sizeof(last), "%s", got);
    number = strncmp(last, "answer|", 7) ? NULL : last + 7;
    if (!number || strtoul(number, NULL, 10) != code)
        fail_msg("\"%s\" was answered \"%s\", wanted code %u", line, last, code);
}

static inline struct testhost_conn *chat_enter(struct testhost *h, uint32_t worker,
                                               const char *nick)
{
    struct testhost_conn *c = testhost_connect(h, worker, "plain", "tcp");
    char line[64];

    assert_true(testhost_run(h));
    (void)snprintf(line, sizeof(line), "NICK|||%s", nick);
    chat_answered(h, c, line, RODA_OK);
    return c;
}

#endif
