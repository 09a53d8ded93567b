/*
 * Model: a list of finished lines, each with the place it is sorted by: order of the file, line,
 * then the order in which they were found. A line is built when it is added, so an error outlives
 * the configuration it tells about. What came from the file is escaped, since a terminal will
 * show it. The number kept is bounded (a binary file given by mistake is an error per line); the
 * numbers counted are exact.
 */
#include "conf/errors.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"

#define LINE_BYTES_MAX 1024

struct message {
    struct message *next;
    enum conf_severity severity;
    unsigned order, line;
    size_t found; /* as the how-manieth */
    char text[];
};

struct roda_conf_errors {
    struct message *messages;
    size_t n_messages;
    size_t counts[2]; /* by severity */
    size_t dropped[2];
    bool memory_out;
    struct conf_errors_context context;
};

struct roda_conf_errors *conf_errors_new(void)
{
    return memory_alloc(sizeof(struct roda_conf_errors));
}

void conf_errors_free(struct roda_conf_errors *errors)
{
    if (!errors)
        return;
    while (errors->messages) {
        struct message *message = errors->messages;
        errors->messages = message->next;
        memory_free(message);
    }
    memory_free(errors);
}

/* ---- a line ----------------------------------------------------------------------------- */

struct line {
    char text[LINE_BYTES_MAX];
    size_t len;
};

static void line_add_list(struct line *line, const char *fmt, va_list args) RODA_PRINTF(2, 0);
static void line_add_list(struct line *line, const char *fmt, va_list args)
{
    size_t room = sizeof(line->text) - line->len;
    int n = vsnprintf(line->text + line->len, room, fmt, args);

    if (n > 0)
        line->len += (size_t)n < room ? (size_t)n : room - 1;
}

static void line_add(struct line *line, const char *fmt, ...) RODA_PRINTF(2, 3);
static void line_add(struct line *line, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    line_add_list(line, fmt, args);
    va_end(args);
}

static void line_add_escaped(struct line *line, const char *before, const char *text,
                             const char *after)
{
    char escaped[LINE_BYTES_MAX];

    line_add(line, "%s%s%s", before,
             text_escape((struct roda_str){text, strlen(text)}, escaped, sizeof(escaped)), after);
}

static void line_start(struct line *line, enum conf_severity severity, struct conf_place place)
{
    line->len = 0;
    line->text[0] = '\0';
    if (place.file)
        line_add_escaped(line, "", place.file, ":");
    if (place.file && place.line)
        line_add(line, "%u:", place.line);
    if (severity == CONF_WARNING)
        line_add(line, "%swarning:", line->len ? " " : "");
    if (line->len)
        line_add(line, " ");
}

static void line_subject(struct line *line, const char *section, const char *key, const char *value)
{
    if (section)
        line_add_escaped(line, "[", section, "]");
    if (key)
        line_add_escaped(line, section ? "." : "", key, "");
    if (section || key)
        line_add(line, ": ");
    if (value && value[0])
        line_add_escaped(line, "", value, ": ");
}

/* ---- the collector ---------------------------------------------------------------------- */

void conf_errors_add_list(struct roda_conf_errors *errors, enum conf_severity severity,
                          struct conf_place place, const char *section, const char *key,
                          const char *value, const char *fmt, va_list args)
{
    struct message *message;
    struct line line, reason = {.len = 0};

    errors->counts[severity]++;
    if (errors->n_messages >= CONF_ERRORS_KEPT) {
        errors->dropped[severity]++;
        return;
    }
    line_start(&line, severity, place);
    line_subject(&line, section, key, value);
    line_add_list(&reason, fmt, args);
    line_add_escaped(&line, "", reason.text, "");

    message = memory_alloc(sizeof(*message) + line.len + 1);
    if (!message) {
        errors->memory_out = true;
        return;
    }
    message->severity = severity;
    message->order = place.order;
    message->line = place.line;
    message->found = errors->n_messages++;
    memcpy(message->text, line.text, line.len + 1);
    message->next = errors->messages;
    errors->messages = message;
}

void conf_errors_add(struct roda_conf_errors *errors, enum conf_severity severity,
                     struct conf_place place, const char *section, const char *key,
                     const char *value, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    conf_errors_add_list(errors, severity, place, section, key, value, fmt, args);
    va_end(args);
}

void conf_errors_context(struct roda_conf_errors *errors, const struct conf *conf,
                         const char *plugin, const char *listener)
{
    errors->context = (struct conf_errors_context){conf, plugin, listener};
}

struct conf_errors_context conf_errors_context_of(const struct roda_conf_errors *errors)
{
    return errors->context;
}

size_t conf_errors_count(const struct roda_conf_errors *errors, enum conf_severity severity)
{
    return errors->counts[severity];
}

int conf_errors_result(const struct roda_conf_errors *errors)
{
    if (errors->counts[CONF_ERROR] > 0)
        return -EINVAL;
    return errors->memory_out ? -ENOMEM : 0;
}

static bool message_before(const struct message *a, const struct message *b)
{
    if (a->order != b->order)
        return a->order < b->order;
    if (a->line != b->line)
        return a->line < b->line;
    return a->found < b->found;
}

/* Insertion into a list: at most CONF_ERRORS_KEPT of them. */
static void messages_sort(struct roda_conf_errors *errors)
{
    struct message *sorted = NULL;

    while (errors->messages) {
        struct message *message = errors->messages, **at = &sorted;

        errors->messages = message->next;
        while (*at && message_before(*at, message))
            at = &(*at)->next;
        message->next = *at;
        *at = message;
    }
    errors->messages = sorted;
}

void conf_errors_each(struct roda_conf_errors *errors, conf_errors_fn *fn, void *arg)
{
    struct line line = {.len = 0};
    size_t n = errors->counts[CONF_ERROR];

    messages_sort(errors);
    for (const struct message *message = errors->messages; message; message = message->next)
        fn(arg, message->severity, message->text);
    if (errors->dropped[CONF_ERROR] + errors->dropped[CONF_WARNING] > 0) {
        line_add(&line, "and %zu more that are not shown",
                 errors->dropped[CONF_ERROR] + errors->dropped[CONF_WARNING]);
        fn(arg, errors->dropped[CONF_ERROR] ? CONF_ERROR : CONF_WARNING, line.text);
        line.len = 0;
    }
    if (errors->memory_out)
        fn(arg, CONF_ERROR, "out of memory while checking the configuration: not all is told");
    if (n > 0) {
        line_add(&line, "%zu error%s; configuration not usable", n, n == 1 ? "" : "s");
        fn(arg, CONF_ERROR, line.text);
    }
}
