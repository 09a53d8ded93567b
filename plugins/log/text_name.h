#ifndef RODA_LOG_TEXT_NAME_H
#define RODA_LOG_TEXT_NAME_H
/* Rooms and days as names of folders and files. Pure. */
#include <stddef.h>
#include <stdint.h>

#include <roda/plugin.h>

#define TEXT_NAME_MAX  255u /* what every file system takes */
#define TEXT_NAME_SIZE (TEXT_NAME_MAX + 1u)

/* The folder of a room by its folded name, NUL-terminated. Returns its length; -EINVAL: an empty
 * name; -ENAMETOOLONG: over TEXT_NAME_MAX bytes, which no name of up to 85 bytes becomes. */
int text_name(struct roda_str folded, char to[TEXT_NAME_SIZE]);

/* Days since 1970-01-01, UTC. */
int64_t text_day(int64_t time_ns);
int64_t text_day_start_ns(int64_t day);
/* "2026-11-24", NUL-terminated. */
#define TEXT_DAY_SIZE 16u
void text_day_name(int64_t day, char to[TEXT_DAY_SIZE]);
/* "2026-11-24.log": 0, or -EINVAL: not such a name. */
int text_day_parse(struct roda_str file_name, int64_t *ret_day);

#endif
