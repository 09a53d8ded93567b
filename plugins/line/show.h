#ifndef RODA_LINE_SHOW_H
#define RODA_LINE_SHOW_H
/* Messages to lines: the shapes of docs/line-protocol.md, "Lines from the broker". */
#include <stddef.h>
#include <stdint.h>

#include <roda/plugin.h>

#define LINE_VARIANT_NUMBERS 1u
extern const uint32_t line_variant_masks[RODA_KIND_MAX + 1];

/* A line being written, and how many more bytes it may have. */
struct show {
    struct roda_out *out;
    size_t left_bytes;
};
struct show show_begin(struct roda_out *out);
void show_put(struct show *s, struct roda_str bytes);
void show_word(struct show *s, const char *word);
void show_number(struct show *s, uint64_t number);
/* A name, or a word of somebody's: whole, without control characters. */
void show_name(struct show *s, struct roda_str name);
/* Free text of somebody's: control characters are left out, LF becomes a space, and what does not
 * fit in what is left less reserved_bytes is cut, with the full length shown. */
void show_text(struct show *s, struct roda_str text, size_t reserved_bytes);
void show_end(struct show *s);

void show_encode(struct roda_ctx *x, const struct roda_msg *msg, uint32_t variant,
                 struct roda_out *out);
/* The same with the time in front of each line: something that was said before. */
void show_past(const struct roda_msg *msg, uint32_t variant, struct roda_out *out);
/* "ana set the topic of lobby: hi", without the "* " and the number; who instead of the sender's
 * nick if not NULL. Writes nothing and returns 0 if there is nothing to say. */
int show_event(struct show *s, const struct roda_msg *msg, const char *who);

#endif
