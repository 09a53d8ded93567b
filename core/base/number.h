#ifndef RODA_BASE_NUMBER_H
#define RODA_BASE_NUMBER_H
/*
 * Numbers with units, as the configuration writes them, and back. Texts are NUL-terminated and
 * have no blanks around them.
 *
 * Parsers return 0, -EINVAL (not of this form), -ERANGE (does not fit), or -ENOMSG (right, but
 * the unit is missing: the caller can suggest one).
 *
 * Formatters write at most size bytes with a NUL and return the length, -ENOBUFS, or -EINVAL (a
 * value that no text stands for). They take the largest unit that is exact; parsing their text
 * gives the same value.
 */
#include <stddef.h>
#include <stdint.h>

#include "roda/plugin.h"

#define NUMBER_TEXT_BYTES 64 /* enough for every formatter */

int number_parse_int(const char *text, int64_t *ret_value);          /* 12, -3 */
int number_parse_bytes(const char *text, int64_t *ret_bytes);        /* 512, 64k, 1M, 10G */
int number_parse_duration_ms(const char *text, int64_t *ret_ms);     /* 250ms 30s 5m 12h 7d 0 */
int number_parse_rate(const char *text, struct roda_rate *ret_rate); /* 2/s burst 10; 3/m; off */
int number_parse_mode(const char *text, int64_t *ret_mode);          /* 0660: octal */

int number_format_int(int64_t value, char *buf, size_t size);
int number_format_bytes(int64_t bytes, char *buf, size_t size);
int number_format_duration_ms(int64_t ms, char *buf, size_t size);
int number_format_rate(const struct roda_rate *rate, char *buf, size_t size);
int number_format_mode(int64_t mode, char *buf, size_t size);

#endif
