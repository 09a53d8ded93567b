#ifndef RODA_LOG_FRONT_H
#define RODA_LOG_FRONT_H
/* What stands at the front of a segment: where each room stood before it, and what was refused. */
#include <stddef.h>
#include <stdint.h>

#include "folder.h"

struct front_room {
    uint32_t id;
    uint64_t kept;
};

struct front {
    int begun;                /* LOG_OPEN was reached, or what can only stand behind it */
    int whole;                /* and everything before it is readable */
    int64_t latest_ns;        /* of the newest message before this segment */
    struct front_room *rooms; /* by id */
    size_t n_rooms, rooms_room;
    struct log_void *voids;
    size_t n_voids, voids_room;
};

/* 0 or a negative errno: it cannot be read at all. */
int front_read(const char *directory, const struct segment *segment, struct front *ret_front);
void front_free(struct front *front);

/* Messages that were refused: to be shown to nobody, though they stand in the files. */
struct refusals {
    struct refusal {
        uint32_t room;
        uint64_t from, to; /* numbers */
        uint64_t before;   /* and positions */
    } * items;
    size_t n, room;
};
/* front: of the segment that begins at base; before: of the one before it (or zeroed). */
void refusals_add(struct refusals *refusals, const struct front *before, const struct front *front,
                  uint64_t base);
/* front: of the segment behind the one the message stands in. */
int refusals_have(const struct refusals *refusals, const struct front *front,
                  const struct log_message *message, uint64_t position);

#endif
