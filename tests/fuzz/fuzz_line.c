#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testhost.h"
#include "unit/line/fake_rooms.h"

/*
 * Feeds bytes to the protocol "line" on the fake core, and holds what must hold for any input:
 *
 *   - it comes to an end, gives back what it took and breaks no rule of the interface;
 *   - what the others see are whole lines of UTF-8 that begin with a room, "@" or "* ", and no
 *     control character that a terminal obeys;
 *   - what the sender sees begins with "* " or "! ", since nobody else talks.
 *
 * The first byte says how: bit 0 by datagram, bit 1 in pieces of one byte, bit 2 with numbers on,
 * bit 3 the owner refuses everything, bit 4 the client goes before all was read.
 */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

extern const struct roda_plugin line_plugin;

enum { BY_DATAGRAM = 1, IN_PIECES = 2, NUMBERS = 4, REFUSED = 8, GONE = 16 };

static void require(int holds, const char *what, const char *line)
{
    if (holds)
        return;
    (void)fprintf(stderr, "%s: \"%s\"\n", what, line);
    abort();
}

static void check_text(const char *line)
{
    struct roda_str text = {line, strlen(line)};

    require(!text.len || !roda_text_check(text, RODA_TEXT_LINE), "not clean text", line);
    for (size_t i = 0; i < text.len; i++)
        require((unsigned char)text.ptr[i] >= 0x20 || text.ptr[i] == '\t', "control", line);
}

static void check_sender(struct testhost_conn *c)
{
    const char *line;

    while ((line = testhost_unit(c)) != NULL) {
        check_text(line);
        require(!strncmp(line, "* ", 2) || !strncmp(line, "! ", 2), "whose line is this?", line);
    }
}

static void check_others(struct testhost_conn *c)
{
    const char *line;

    while ((line = testhost_unit(c)) != NULL) {
        const char *space = strchr(line, ' ');
        check_text(line);
        require(space != NULL, "no second word", line);
        if (strncmp(line, "* ", 2) != 0)
            require(line[0] != '!' && line[0] != '=' && line[0] != '*', "imitates", line);
    }
}

static struct testhost_conn *open_session(struct testhost *h, const char *datagram)
{
    char answer[16] = "", first[4200];
    struct testhost_conn *session = NULL;
    int opened =
        testhost_knock(h, 0, "line", "192.0.2.9", 5000, datagram, answer, sizeof(answer), &session);

    require(opened != 1, "a session without a cookie", datagram);
    require(opened != 0 || strlen(answer) == 10, "not a cookie", answer);
    if (opened != 0)
        (void)testhost_knock(h, 0, "line", "192.0.2.9", 5000, "hi\n", answer, sizeof(answer),
                             &session);
    (void)snprintf(first, sizeof(first), "%.9s %s", answer, datagram);
    opened =
        testhost_knock(h, 0, "line", "192.0.2.9", 5000, first, answer, sizeof(answer), &session);
    return opened == 1 ? session : NULL;
}

static void send_all(struct testhost *h, struct testhost_conn *c, const uint8_t *bytes, size_t size,
                     unsigned how)
{
    if (how & NUMBERS)
        testhost_input(c, "/numbers on\n");
    if (!(how & IN_PIECES)) {
        testhost_input_bytes(c, bytes, size);
        return;
    }
    for (size_t i = 0; i < size; i++) {
        testhost_input_bytes(c, bytes + i, 1);
        if (i % 7 == 0)
            (void)testhost_turn(h);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    unsigned how = size ? bytes[0] : 0;
    struct testhost *h;
    struct testhost_conn *c, *other;
    char datagram[4096] = "";

    if (!size || size > 8192)
        return 0;
    bytes++;
    size--;
    fake_rooms_reset();
    h = testhost_new(1);
    require(!testhost_load(h, &fake_rooms_plugin, NULL), "load", "rooms");
    require(!testhost_load(h, &line_plugin, NULL), "load", "line");
    require(!testhost_start(h), "start", testhost_error(h));
    other = testhost_connect(h, 0, "line", "tcp");
    (void)testhost_run(h);
    check_sender(other);
    if (how & BY_DATAGRAM) {
        memcpy(datagram, bytes, size < sizeof(datagram) ? size : sizeof(datagram) - 1);
        c = open_session(h, datagram);
        how &= ~(unsigned)IN_PIECES;
    } else {
        c = testhost_connect(h, 0, "line", "tcp");
    }
    if (c) {
        (void)testhost_run(h);
        if (how & REFUSED)
            fake_rooms.refuse_code = RODA_E_RANK;
        send_all(h, c, bytes, size, how);
        if (how & GONE)
            testhost_reset(c);
        else
            testhost_end_input(c);
        require(testhost_run(h), "no end", "");
        check_sender(c);
    }
    check_others(other);
    require(!testhost_stop(h), "complaints or leaks", "");
    testhost_free(h);
    return 0;
}
