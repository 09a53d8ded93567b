#ifndef RODA_LOG_TEXT_LINE_H
#define RODA_LOG_TEXT_LINE_H
/* One message as one line of a text file: docs/text-log.md in C. Pure. */
#include <stddef.h>
#include <stdint.h>

#include <roda/plugin.h>

#include "record.h"

struct text_line {
    uint64_t number;
    int64_t time_ns;
    uint32_t kind, flags; /* of struct roda_msg */
    struct roda_str room, nick, door, subject, text;
};

/* folded: of the room; what a private message shows as its room. */
void text_line_of_message(const struct roda_msg *msg, struct roda_str folded,
                          struct text_line *ret_line);
void text_line_of_record(const struct log_message *record, struct roda_str folded,
                         struct text_line *ret_line);
/* Writes at most size bytes, with the LF, and returns how many the whole line has: if that is more
 * than size, what was written is of no use. */
size_t text_line_write(const struct text_line *line, char *to, size_t size);
/* The number at the front of a line that ends with LF. 0: not such a line. */
uint64_t text_line_number(struct roda_str line);

#endif
