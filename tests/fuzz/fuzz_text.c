#include "base/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/*
 * Anything as a line, as a name, cut, and shown. What must hold of every input:
 *
 *   - what passes a check has no control character, end of line or override of direction;
 *   - what passes as a name also passes as a line, and so does each of its forms as a name;
 *   - folding and normalising what was folded or normalised changes nothing, and a name folds
 *     like its normal form;
 *   - a text that was valid stays valid when it is cut; what is shown is a valid line.
 *
 * The checks here are written apart from the code under test, on purpose in another way.
 */
enum { TEXT_MOST = 4096 };

static void require(bool holds)
{
    if (!holds)
        abort();
}

static bool has(struct roda_str text, const char *bytes, size_t len)
{
    return memmem(text.ptr, text.len, bytes, len) != NULL;
}

static void require_harmless(struct roda_str text, bool line_feeds)
{
    static const char refused[] = "\r\x0b\x0c\x1b\x07\x08\x7f";
    require(!has(text, "", 1));
    require(line_feeds || !has(text, "\n", 1));
    for (size_t i = 0; refused[i]; i++)
        require(!has(text, &refused[i], 1));
    for (int i = 0x80; i <= 0x9f; i++) {
        const char c1[2] = {(char)0xc2, (char)i};
        require(!has(text, c1, 2));
    }
    for (int i = 0xa8; i <= 0xae; i++) {
        const char separator[3] = {(char)0xe2, (char)0x80, (char)i};
        require(!has(text, separator, 3));
    }
    for (int i = 0xa6; i <= 0xa9; i++) {
        const char isolate[3] = {(char)0xe2, (char)0x81, (char)i};
        require(!has(text, isolate, 3));
    }
}

static void require_harmless_name(struct roda_str name)
{
    static const char refused[] = "\t\x02\x03\x0f\x16\x1d\x1f ,:*?!@#&<>=;\"'$%~+";
    require_harmless(name, false);
    for (size_t i = 0; refused[i]; i++)
        require(!has(name, &refused[i], 1));
    require(name.len > 0 && name.len <= TEXT_ROOM_BYTES_MAX);
    require(!has(name, "/../", 4) && name.ptr[0] != '.' && name.ptr[0] != '/');
    require(!has(name, "\xe2\x80\x8d", 3) && !has(name, "\xef\xbb\xbf", 3));
}

/* A form of a form is itself; returns false if there is none. */
static bool form(int (*make)(struct roda_str, char *, size_t), struct roda_str name, char *buf,
                 size_t size, struct roda_str *ret_form)
{
    char again[3 * TEXT_MOST];
    int len = make(name, buf, size);
    if (len < 0)
        return false;
    require((size_t)len <= size);
    *ret_form = (struct roda_str){buf, (size_t)len};
    int again_len = make(*ret_form, again, sizeof(again));
    require(again_len == len && !memcmp(again, buf, (size_t)len));
    return true;
}

static void try_forms(struct roda_str text)
{
    char normal_bytes[3 * TEXT_MOST], fold_bytes[3 * TEXT_MOST], other_bytes[3 * TEXT_MOST];
    struct roda_str normal, fold, other;
    bool has_form = form(text_normal, text, normal_bytes, sizeof(normal_bytes), &normal);
    require(has_form == form(text_fold, text, fold_bytes, sizeof(fold_bytes), &fold));
    if (has_form) {
        require(form(text_fold, normal, other_bytes, sizeof(other_bytes), &other));
        require(text_equal(other, fold));
    }
    for (unsigned rule = RODA_TEXT_NICK; rule <= RODA_TEXT_ROOM; rule++) {
        if (text_check(text, rule))
            continue;
        require(has_form);
        require_harmless_name(text);
        require_harmless_name(normal);
        require_harmless_name(fold);
        require(!text_check(text, RODA_TEXT_LINE));
        require(!text_check(normal, rule));
        require(!text_check(fold, rule));
    }
    char small[8];
    (void)text_normal(text, small, sizeof(small));
    (void)text_fold(text, small, sizeof(small));
}

static void try_line(struct roda_str text)
{
    bool line = !text_check(text, RODA_TEXT_LINE);
    bool lines = !text_check(text, RODA_TEXT_MULTILINE);
    require(!line || lines);
    if (lines)
        require_harmless(text, !line);
    for (size_t len = 0; len <= text.len && len < 200; len++) {
        size_t cut = text_cut(text.ptr, len);
        require(cut <= len && len - cut <= 3);
        if (lines)
            require(!text_check((struct roda_str){text.ptr, cut}, RODA_TEXT_MULTILINE));
    }
}

static void try_escape(struct roda_str text)
{
    char buf[4 * TEXT_MOST + 1];
    for (size_t size = 1; size <= sizeof(buf); size = size < 40 ? size + 1 : size * 4) {
        require(text_escape(text, buf, size) == buf);
        size_t len = strnlen(buf, size);
        require(len < size);
        require(!text_check((struct roda_str){buf, len}, RODA_TEXT_LINE));
        require_harmless((struct roda_str){buf, len}, false);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size > TEXT_MOST)
        return 0;
    struct roda_str text = {size ? (const char *)bytes : "", size};
    try_line(text);
    try_forms(text);
    try_escape(text);
    return 0;
}
