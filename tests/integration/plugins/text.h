#ifndef RODA_TEST_PLUGIN_TEXT_H
#define RODA_TEST_PLUGIN_TEXT_H
/* What the test plugins look for in a text. */
#include <string.h>

#include <roda/plugin.h>

/* Whether this is a TEXT that begins with word. */
static inline int text_begins(const struct roda_msg *msg, const char *word)
{
    return msg->kind == RODA_TEXT && msg->text.len >= strlen(word) &&
           !memcmp(msg->text.ptr, word, strlen(word));
}

static inline int text_is(const struct roda_msg *msg, const char *word)
{
    return text_begins(msg, word) && msg->text.len == strlen(word);
}

#endif
