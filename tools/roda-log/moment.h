#ifndef RODA_LOG_MOMENT_H
#define RODA_LOG_MOMENT_H
/* Points in time, as people write and read them. */
#include <stdint.h>

#define MOMENT_BYTES 48u

/* "2026-11-24T03:15:00.123Z": UTC, with 3 or 9 digits behind the point. */
const char *moment_write(int64_t time_ns, int digits, char to[MOMENT_BYTES]);
/* RFC 3339; the same without seconds or without a time of day, then in UTC; "now"; "-2h", "-1d12h":
 * before now. 0 or -EINVAL. */
int moment_parse(const char *text, int64_t now_ns, int64_t *ret_time_ns);

#endif
