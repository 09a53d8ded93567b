#include "base/log.h"

#include <stdio.h>

/*
 * The sink is set before threads start and never again, so it needs no lock; what it does with a
 * line must be safe from every thread. A message is formatted on the stack and cut if it is long:
 * telling something never allocates and never fails.
 */

#define LINE_BYTES 1024

static log_sink_fn *sink;
static void *sink_arg;
static uint32_t sink_level;

void log_set_sink(log_sink_fn *fn, void *arg, uint32_t level)
{
    sink = fn;
    sink_arg = arg;
    sink_level = level;
}

void log_write_list(uint32_t level, const char *source, const char *fmt, va_list args)
{
    char line[LINE_BYTES];

    if (!sink || level > sink_level)
        return;
    if (vsnprintf(line, sizeof line, fmt, args) < 0)
        return;
    for (char *p = line; *p; p++) /* a line stays one line, whatever was put into it */
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    sink(sink_arg, level, source, line);
}

void log_write(uint32_t level, const char *source, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    log_write_list(level, source, fmt, args);
    va_end(args);
}
