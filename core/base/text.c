#include "base/text.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <utf8proc.h>

/*
 * Two rules that have little in common:
 *
 *   lines  refuse what is not UTF-8 and what can move a terminal's cursor, end a line of some
 *          protocol or show other lines' text in another order. All else passes, also what
 *          Unicode has not assigned yet: a person may use a newer emoji than this library knows.
 *   names  identify somebody, so they allow what is known to be visible and refuse the rest. ASCII
 *          is a list of what is allowed; beyond ASCII a code point's category decides. Code
 *          points that are not assigned are refused because nobody knows yet what they are
 *          equal to.
 *
 * A name is compared by its fold, NFC with ASCII case folded, and shown as its NFC form. NFC can
 * lengthen a name and can turn a code point into ASCII (U+037E becomes ';'), so a name passes only
 * if its NFC form passes too. Then every form that the broker makes of a name is a valid name.
 *
 * Lines are on every message's path: whole words of printable ASCII are skipped, nothing is
 * allocated. The decoder is our own since it must refuse exactly what RFC 3629 refuses, at a
 * bounded length, and say how long a valid sequence is.
 */
enum {
    /* Of one name, decomposed; far above what a valid name can have. Lives on the stack. */
    CODE_POINTS_MAX = 1024,
    /* NFC makes UTF-8 at most three times as long (Unicode Standard Annex 15). */
    NORMAL_BYTES_MAX = 3 * TEXT_ROOM_BYTES_MAX,
};

/* Length of the sequence at p and its code point; 0: not UTF-8. */
static size_t decode(const unsigned char *p, size_t left, uint32_t *ret_code)
{
    uint32_t code = p[0];
    size_t len = code < 0x80 ? 1 : code < 0xc2 ? 0 : code < 0xe0 ? 2 : code < 0xf0 ? 3 : 4;
    if (!len || len > left || code > 0xf4)
        return 0;
    if (len > 1)
        code &= 0x7fu >> len;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3fu);
    }
    bool overlong = (len == 3 && code < 0x800) || (len == 4 && code < 0x10000);
    bool surrogate = code >= 0xd800 && code <= 0xdfff;
    if (overlong || surrogate || code > 0x10ffff)
        return 0;
    *ret_code = code;
    return len;
}

/* ---- lines ------------------------------------------------------------------------------ */

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))

/* How many bytes at p are printable ASCII, counted in whole words. */
static size_t skip_printable(const unsigned char *p, size_t left)
{
    size_t n = 0;
    for (; left - n >= sizeof(uint64_t); n += sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, p + n, sizeof(word));
        uint64_t is_del = word ^ EACH_BYTE(0x7f);
        uint64_t refused = word;                         /* above 7f */
        refused |= (word - EACH_BYTE(0x20)) & ~word;     /* below 20 */
        refused |= (is_del - EACH_BYTE(0x01)) & ~is_del; /* 7f */
        if (refused & EACH_BYTE(0x80))
            break;
    }
    return n;
}

/* TAB, and the controls that IRC formats text with: bold, colour, reset, monospace, reverse,
 * italics, strike-through, underline. */
#define LINE_CONTROLS                                                                              \
    (1u << 0x09 | 1u << 0x02 | 1u << 0x03 | 1u << 0x0f | 1u << 0x11 | 1u << 0x16 | 1u << 0x1d |    \
     1u << 0x1e | 1u << 0x1f)

static bool line_allows(uint32_t code, bool multiline)
{
    if (code < 0x20)
        return LINE_CONTROLS >> code & 1 || (multiline && code == '\n');
    bool control = code >= 0x7f && code <= 0x9f;
    /* Line and paragraph separator, then the embeddings and overrides; the isolates. */
    bool reorders = (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
    return !control && !reorders;
}

static int check_line(struct roda_str text, bool multiline)
{
    const unsigned char *p = (const unsigned char *)text.ptr;
    for (size_t at = 0, len; at < text.len; at += len) {
        uint32_t code;
        len = skip_printable(p + at, text.len - at);
        if (len)
            continue;
        len = decode(p + at, text.len - at, &code);
        if (!len)
            return -EILSEQ;
        if (!line_allows(code, multiline))
            return -EINVAL;
    }
    return 0;
}

/* ---- names ------------------------------------------------------------------------------ */

static bool is_digit(uint32_t code)
{
    return code >= '0' && code <= '9';
}

static bool name_allows_ascii(uint32_t code, unsigned rule)
{
    static const char others[] = {'_', '-', '[', ']', '\\', '^', '{', '}', '|', '`'};
    bool letter = (code | 0x20) >= 'a' && (code | 0x20) <= 'z';
    if (letter || is_digit(code) || memchr(others, (int)code, sizeof(others)))
        return true;
    return rule == RODA_TEXT_ROOM && (code == '.' || code == '/');
}

/* A combining mark at the beginning would change the character that stands before the name. */
static bool name_begins(uint32_t code, unsigned rule)
{
    if (code < 0x80) {
        if (rule == RODA_TEXT_ROOM)
            return code != '.' && code != '/';
        return code != '[' && code != '-' && !is_digit(code);
    }
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return category != UTF8PROC_CATEGORY_MN && category != UTF8PROC_CATEGORY_MC &&
           category != UTF8PROC_CATEGORY_ME;
}

static bool name_allows(uint32_t code, unsigned rule)
{
    if (code < 0x80)
        return name_allows_ascii(code, rule);
    const utf8proc_property_t *property = utf8proc_get_property((utf8proc_int32_t)code);
    switch (property->category) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF: /* the bidi controls are among them */
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    default:
        /* Letters and marks without a picture, and the empty Braille cell: two names would look
         * the same. */
        return !property->ignorable && code != 0x2800;
    }
}

/* A part between slashes that a file system would take for a folder above or the same. */
static bool has_dot_part(struct roda_str name)
{
    size_t start = 0;
    for (size_t i = 0; i <= name.len; i++) {
        if (i < name.len && name.ptr[i] != '/')
            continue;
        size_t len = i - start;
        if ((len == 1 || len == 2) && !memcmp(name.ptr + start, "..", len))
            return true;
        start = i + 1;
    }
    return false;
}

static int check_name_form(struct roda_str name, unsigned rule)
{
    const unsigned char *p = (const unsigned char *)name.ptr;
    size_t max = rule == RODA_TEXT_ROOM ? TEXT_ROOM_BYTES_MAX : TEXT_NICK_BYTES_MAX;
    if (!name.len || name.len > max)
        return -ENAMETOOLONG;
    for (size_t at = 0, len; at < name.len; at += len) {
        uint32_t code;
        len = decode(p + at, name.len - at, &code);
        if (!len)
            return -EILSEQ;
        if (!name_allows(code, rule) || (at == 0 && !name_begins(code, rule)))
            return -EINVAL;
    }
    return has_dot_part(name) ? -EINVAL : 0;
}

/* NFC changes nothing below U+0300, whose UTF-8 begins with cc. */
static bool is_normal_for_sure(struct roda_str name)
{
    for (size_t i = 0; i < name.len; i++) {
        if ((unsigned char)name.ptr[i] >= 0xcc)
            return false;
    }
    return true;
}

static int check_name(struct roda_str name, unsigned rule)
{
    int error = check_name_form(name, rule);
    if (error || is_normal_for_sure(name))
        return error;
    char normal[NORMAL_BYTES_MAX];
    int len = text_normal(name, normal, sizeof(normal));
    return len < 0 ? len : check_name_form((struct roda_str){normal, (size_t)len}, rule);
}

int text_check(struct roda_str text, unsigned rule)
{
    switch (rule) {
    case RODA_TEXT_LINE:
    case RODA_TEXT_MULTILINE:
        return check_line(text, rule == RODA_TEXT_MULTILINE);
    case RODA_TEXT_NICK:
    case RODA_TEXT_ROOM:
        return check_name(text, rule);
    default:
        return -EINVAL;
    }
}

/* ---- the forms of a name ---------------------------------------------------------------- */

static bool is_utf8(struct roda_str text)
{
    uint32_t code;
    for (size_t at = 0, len; at < text.len; at += len) {
        len = decode((const unsigned char *)text.ptr + at, text.len - at, &code);
        if (!len)
            return false;
    }
    return true;
}

static int encode(const utf8proc_int32_t *codes, utf8proc_ssize_t n, char *buf, size_t size)
{
    size_t at = 0;
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        utf8proc_uint8_t bytes[4];
        size_t len = (size_t)utf8proc_encode_char(codes[i], bytes);
        if (len > size - at)
            return -ENOBUFS;
        memcpy(buf + at, bytes, len);
        at += len;
    }
    return (int)at;
}

int text_normal(struct roda_str name, char *buf, size_t size)
{
    utf8proc_int32_t codes[CODE_POINTS_MAX];
    if (!is_utf8(name))
        return -EILSEQ;
    if (is_normal_for_sure(name)) {
        if (name.len > size || name.len > INT32_MAX)
            return -ENOBUFS;
        if (name.len)
            memmove(buf, name.ptr, name.len);
        return (int)name.len;
    }
    if (name.len > (size_t)4 * CODE_POINTS_MAX)
        return -ENOBUFS;
    utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    utf8proc_ssize_t n =
        utf8proc_decompose((const utf8proc_uint8_t *)name.ptr, (utf8proc_ssize_t)name.len, codes,
                           CODE_POINTS_MAX, options);
    if (n > CODE_POINTS_MAX)
        return -ENOBUFS;
    if (n >= 0)
        n = utf8proc_normalize_utf32(codes, n, options);
    return n < 0 ? -EILSEQ : encode(codes, n, buf, size);
}

int text_fold(struct roda_str name, char *buf, size_t size)
{
    int len = text_normal(name, buf, size);
    bool changed = false;
    for (int i = 0; i < len; i++) {
        if (buf[i] >= 'A' && buf[i] <= 'Z') {
            buf[i] = (char)(buf[i] | 0x20);
            changed = true;
        }
    }
    /* Some marks compose with a small letter only: J and a caron stay two, j and a caron become
     * one. Without this, two spellings of the same folded name would differ. */
    return changed ? text_normal((struct roda_str){buf, (size_t)len}, buf, size) : len;
}

/* ---- cutting and showing ---------------------------------------------------------------- */

size_t text_cut(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char byte = p[len - back];
        if (byte < 0x80)
            break;
        if (byte >= 0xc0) {
            size_t whole = byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
            return whole > back ? len - back : len;
        }
    }
    return len;
}

const char *text_escape(struct roda_str text, char *buf, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *p = (const unsigned char *)text.ptr;
    size_t out = 0;
    for (size_t at = 0, len; size && at < text.len; at += len) {
        uint32_t code;
        len = decode(p + at, text.len - at, &code);
        bool shown = len && code >= 0x20 && line_allows(code, false);
        if (!len)
            len = 1;
        size_t needed = shown ? len : 4 * len;
        if (needed >= size - out)
            break;
        for (size_t i = 0; i < len; i++) {
            unsigned char byte = p[at + i];
            if (shown) {
                buf[out++] = (char)byte;
                continue;
            }
            buf[out++] = '\\';
            buf[out++] = 'x';
            buf[out++] = digits[byte >> 4];
            buf[out++] = digits[byte & 15];
        }
    }
    if (size)
        buf[out] = '\0';
    return buf;
}
