#include "line.h"

#include <stdio.h>
#include <string.h>

/*
 * Datagrams without a session. Who sends a line is answered with a cookie, "=xxxxxxxx", and shows
 * by sending "=xxxxxxxx LINE" that the answer reached him: that opens a session, and LINE is its
 * first line. Nothing is remembered before.
 *
 * Silence for what no person types: an empty datagram, one with anything binary in it, a lone
 * byte (the answer would weigh more than 1.3 times as much, headers included), and whatever has
 * the form of the answer itself, a cookie and nothing more. That last rule keeps two brokers from
 * answering each other for ever; it holds for a valid cookie as well, since otherwise a service
 * that sends back what it gets (RFC 862) would open itself a session and talk to the room.
 *
 * Who repeats the cookie in front of each line is understood: inside a session it is dropped.
 */

#define COOKIE_BYTES 9 /* '=' and 32 bits in hexadecimal digits */

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int is_line_end(char c)
{
    return c == '\n' || c == '\r';
}

/* 1 if in begins with a word of a cookie's form. */
static int read_cookie(struct roda_str in, uint32_t *ret_cookie)
{
    uint32_t cookie = 0;

    if (in.len < COOKIE_BYTES || in.ptr[0] != '=')
        return 0;
    for (size_t i = 1; i < COOKIE_BYTES; i++) {
        int value = digit_value(in.ptr[i]);
        if (value < 0)
            return 0;
        cookie = cookie << 4 | (uint32_t)value;
    }
    if (in.len > COOKIE_BYTES && in.ptr[COOKIE_BYTES] != ' ' && !is_line_end(in.ptr[COOKIE_BYTES]))
        return 0;
    *ret_cookie = cookie;
    return 1;
}

static struct roda_str behind_cookie(struct roda_str in)
{
    struct roda_str rest = {in.ptr + COOKIE_BYTES, in.len - COOKIE_BYTES};

    if (rest.len && *rest.ptr == ' ') {
        rest.ptr++;
        rest.len--;
    }
    return rest;
}

/* Something to read, and nothing else than lines of text. */
static int is_typed(struct roda_str in)
{
    int shows = 0;

    while (in.len) {
        const char *end = memchr(in.ptr, '\n', in.len);
        struct roda_str line = {in.ptr, end ? (size_t)(end - in.ptr) : in.len};
        size_t used = line.len + (end ? 1 : 0);

        if (line.len && line.ptr[line.len - 1] == '\r')
            line.len--;
        if (line.len && roda_text_check(line, RODA_TEXT_LINE))
            return 0;
        for (size_t i = 0; i < line.len; i++)
            shows |= line.ptr[i] != ' ' && line.ptr[i] != '\t';
        in.ptr += used;
        in.len -= used;
    }
    return shows;
}

int line_knock(struct roda_ctx *x, const struct roda_peer *peer, struct roda_str in,
               struct roda_out *out, struct roda_str *ret_rest)
{
    uint64_t cookies[2];
    uint32_t cookie;

    if (in.len < 2 || !is_typed(in)) {
        roda_count(x, LINE_KNOCKS_SILENT, 1);
        return -1;
    }
    roda_cookie(x, peer, cookies);
    if (read_cookie(in, &cookie)) {
        struct roda_str rest = behind_cookie(in);
        if (!is_typed(rest)) {
            roda_count(x, LINE_KNOCKS_SILENT, 1);
            return -1;
        }
        if (cookie == (uint32_t)cookies[0] || cookie == (uint32_t)cookies[1]) {
            *ret_rest = rest;
            return 1;
        }
    }
    roda_count(x, LINE_KNOCKS_ANSWERED, 1);
    roda_out_printf(out, "=%08x", (unsigned)(uint32_t)cookies[0]);
    roda_out_unit(out);
    return 0;
}

struct roda_str line_strip_cookie(struct roda_str unit)
{
    uint32_t cookie;

    return read_cookie(unit, &cookie) ? behind_cookie(unit) : unit;
}
