#include "main/messages.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

/*
 * One write(2) per line, so that lines of several threads never mix. Under systemd (JOURNAL_STREAM)
 * text lines begin with the journal's "<level>" instead of a time, which the journal knows itself.
 */

#define LINE_BYTES 2560

struct form {
    bool json, journal;
};
static struct form form;

static const char *const names[] = {"", "", "", "error", "warning", "notice", "info", "debug"};

static void time_text(char *buf, size_t size)
{
    struct timespec now;
    struct tm utc;
    size_t n;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    n = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(buf + n, size - n, ".%03ldZ", now.tv_nsec / 1000000);
}

static size_t put_json(char *to, size_t size, const char *text)
{
    size_t n = 0;

    for (; *text && n + 7 < size; text++) {
        if (*text == '"' || *text == '\\')
            to[n++] = '\\';
        to[n++] = *text;
    }
    to[n] = '\0';
    return n;
}

static void show(void *arg, uint32_t level, const char *source, const char *text)
{
    const struct form *f = arg;
    char line[LINE_BYTES], at[40], escaped[LINE_BYTES - 200];
    int n;

    time_text(at, sizeof at);
    if (f->json) {
        (void)put_json(escaped, sizeof escaped, text);
        n = snprintf(line, sizeof line,
                     "{\"time\":\"%s\",\"level\":\"%s\",\"source\":\"%s\",\"message\":\"%s\"}\n",
                     at, names[level & 7], source, escaped);
    } else if (f->journal) {
        n = snprintf(line, sizeof line, "<%u>%s: %s\n", level, source, text);
    } else {
        n = snprintf(line, sizeof line, "%s %s %s: %s\n", at, names[level & 7], source, text);
    }
    if (n > 0)
        n = (int)write(STDERR_FILENO, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
    (void)n; /* nobody is left to tell */
}

void messages_open(bool json, uint32_t level)
{
    form.json = json;
    form.journal = getenv("JOURNAL_STREAM") && !isatty(STDERR_FILENO);
    log_set_sink(show, &form, level);
}
