#include "line.h"

#include <string.h>

/*
 * Telnet (RFC 854, RFC 855) puts commands between the bytes of the text, each begun by IAC (255).
 * They are taken out and never answered: a client that gets no answer to an offer stays a plain
 * terminal that sends whole lines, which is what is wanted.
 *
 *   IAC IAC                       a byte 255 of the text (which then is not UTF-8)
 *   IAC WILL|WONT|DO|DONT OPTION  an offer
 *   IAC SB ... IAC SE             a subnegotiation; it may hold a line end, so the next unit may
 *                                 begin inside it
 *   IAC COMMAND                   interrupt, are you there and the like
 *
 * A sequence that a unit's end cuts off is dropped with it.
 */

enum { IAC = 255, DONT = 254, WILL = 251, SB = 250, SE = 240 };

size_t line_strip_telnet(struct roda_str unit, char *to, int *inside)
{
    size_t n = 0;

    for (size_t i = 0; i < unit.len; i++) {
        unsigned char byte = (unsigned char)unit.ptr[i];
        unsigned char command;

        if (byte != IAC) {
            if (!*inside)
                to[n++] = unit.ptr[i];
            continue;
        }
        if (++i == unit.len)
            break;
        command = (unsigned char)unit.ptr[i];
        if (command == SE)
            *inside = 0;
        else if (*inside)
            continue;
        else if (command == IAC)
            to[n++] = unit.ptr[i];
        else if (command == SB)
            *inside = 1;
        else if (command >= WILL && command <= DONT)
            i++;
    }
    return n;
}

static int begins_with(struct roda_str text, const char *front)
{
    size_t len = strlen(front);

    return text.len >= len && !memcmp(text.ptr, front, len);
}

const char *line_alien(struct roda_str unit)
{
    static const char *const verbs[] = {
        "GET ", "POST ",    "HEAD ",   "OPTIONS ", "PUT ",
        "PRI ", "CONNECT ", "DELETE ", "PATCH ",   "TRACE ",
    };

    if (begins_with(unit, "\x16\x03"))
        return "TLS";
    for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
        if (begins_with(unit, verbs[i]) && memmem(unit.ptr, unit.len, " HTTP/", 6))
            return "HTTP";
    return NULL;
}

int line_close_alien(struct roda_ctx *x, struct roda_conn *c, const char *alien)
{
    roda_count(x, LINE_ALIENS, 1);
    roda_conn_close(c, "this is a chat for nc and telnet, not %s", alien);
    return RODA_BAD;
}

/* A TLS hello may hold no line end, and its sender waits: it must be known before a line is. HTTP
 * ends its first line, which decode() sees whole. */
int line_first(struct roda_ctx *x, struct roda_conn *c, struct roda_str bytes)
{
    const char *alien = bytes.len && *bytes.ptr == 0x16 ? line_alien(bytes) : NULL;

    return alien ? line_close_alien(x, c, alien) : RODA_TAKEN;
}
