#ifndef RODA_BASE_LOG_H
#define RODA_BASE_LOG_H
/*
 * The broker's own messages: one line each, from any thread. base does no I/O, so where they go
 * is set once by the program; before that they are dropped.
 */
#include <stdarg.h>
#include <stdint.h>

#include "roda/plugin.h"

typedef void log_sink_fn(void *arg, uint32_t level, const char *source, const char *text);

/* level: what is less important than it is dropped before it is formatted. */
void log_set_sink(log_sink_fn *fn, void *arg, uint32_t level);
void log_write(uint32_t level, const char *source, const char *fmt, ...) RODA_PRINTF(3, 4);
void log_write_list(uint32_t level, const char *source, const char *fmt, va_list args)
    RODA_PRINTF(3, 0);

#endif
