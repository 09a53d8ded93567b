#ifndef RODA_BASE_TEXT_H
#define RODA_BASE_TEXT_H
/* The rules for text and names: one gate for what comes from outside. roda_text_check() and
 * roda_text_fold() of the public header are these. */
#include <stddef.h>

#include "roda/plugin.h"

#define TEXT_NICK_BYTES_MAX 32
#define TEXT_ROOM_BYTES_MAX 64

int text_check(struct roda_str text, unsigned rule);
int text_fold(struct roda_str name, char *buf, size_t size);
/* NFC form of a name, not folded: what is shown. Length, -EILSEQ or -ENOBUFS. buf may be the name
 * itself. A name that must be composed and has over 1024 code points is -ENOBUFS. */
int text_normal(struct roda_str name, char *buf, size_t size);
/* The largest len' <= len at which text can be cut without splitting a UTF-8 sequence. */
size_t text_cut(const char *text, size_t len);
/* Writes text with every byte outside printable ASCII and UTF-8 as \xNN, for the broker's own
 * messages; so are control characters and those that reorder text. Always NUL-terminated, cut
 * between characters if it does not fit; returns buf. */
const char *text_escape(struct roda_str text, char *buf, size_t size);

static inline int text_equal(struct roda_str a, struct roda_str b)
{
    return a.len == b.len && (!a.len || !__builtin_memcmp(a.ptr, b.ptr, a.len));
}

#endif
