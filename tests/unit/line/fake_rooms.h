#ifndef TEST_LINE_FAKE_ROOMS_H
#define TEST_LINE_FAKE_ROOMS_H
/* An owner of rooms for the tests of protocols: one worker, everybody is told everything. It does
 * as the test says and writes down what it was asked. */
#include <roda/plugin.h>
#include <roda/rooms.h>

extern const struct roda_plugin fake_rooms_plugin;

struct fake_rooms {
    /* What the test sets. */
    int absent;           /* nobody gets a name and a room when they connect */
    uint32_t refuse_code; /* the next messages are refused with this */
    const char *refuse_text;
    const char *topic; /* of every room */
    uint32_t modes;    /* of every room */
    uint32_t n_listed; /* members of a room, or rooms, that lists show */
    uint64_t number;   /* of the last message when the broker starts */
    int list_error;    /* the lists end with this after their first piece */
    /* What it saw: "KIND+flags to|subject|text", one per line. */
    char seen[65536];
};
extern struct fake_rooms fake_rooms;
void fake_rooms_reset(void);
/* The broker, or nick, says something to all: kind, flags, number come as they stand. */
void fake_rooms_tell(struct roda_ctx *x, uint32_t kind, uint32_t flags, const char *nick,
                     const char *to, const char *subject, const char *text);

#endif
