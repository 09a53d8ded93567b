#include "front.h"

#include <errno.h>
#include <stdlib.h>

#include "program.h"
#include "scan.h"

/*
 * A segment begins with its snapshot (LOG_ROOM ..., LOG_OPEN), then LOG_START and LOG_VOID records,
 * then messages. Reading up to the first message answers three questions:
 *
 *   Has it begun?  A segment is prepared while the one before it is still written to. Only when a
 *                  snapshot is complete is the one before it finished.
 *   What was refused?  When a disk fails, records of durable messages may stand in the file though
 *                  the senders were told that they do not. The snapshot of the segment that is
 *                  begun when the disk works again leaves them out: the room's last kept number is
 *                  smaller than theirs, smaller also than a snapshot between them may say.
 *                  LOG_VOID names them too, if there was time to write it.
 *   How old is what lies before?  No room's time runs back, so nothing before this segment is newer
 *                  than the newest time in its snapshot: "since" needs to read nothing before it.
 */

static void add_room(struct front *front, const struct log_room_record *room)
{
    if (front->n_rooms == front->rooms_room) {
        front->rooms_room = front->rooms_room ? front->rooms_room * 2 : 64;
        front->rooms = memory_resize(front->rooms, front->rooms_room * sizeof(*front->rooms));
    }
    front->rooms[front->n_rooms++] = (struct front_room){room->room, room->kept};
    if (room->kept && room->time_ns > front->latest_ns)
        front->latest_ns = room->time_ns;
}

static void add_void(struct front *front, const struct log_void *voided)
{
    if (front->n_voids == front->voids_room) {
        front->voids_room = front->voids_room ? front->voids_room * 2 : 8;
        front->voids = memory_resize(front->voids, front->voids_room * sizeof(*front->voids));
    }
    front->voids[front->n_voids++] = *voided;
}

static int by_id(const void *left, const void *right)
{
    const struct front_room *a = left, *b = right;

    return a->id < b->id ? -1 : a->id > b->id;
}

/* 1: go on. */
static int take(struct front *front, const struct log_record *record)
{
    if (record->type == LOG_ROOM && !front->begun) {
        add_room(front, &record->room);
        return 1;
    }
    if (record->type == LOG_VOID)
        add_void(front, &record->voided);
    if (!front->begun && record->type != LOG_OPEN)
        front->whole = 0;
    front->begun = 1;
    return record->type != LOG_MESSAGE && record->type != LOG_ROOM;
}

int front_read(const char *directory, const struct segment *segment, struct front *ret_front)
{
    struct front front = {.whole = 1, .latest_ns = INT64_MIN};
    struct window window = {.fd = -1};
    struct log_record record;
    uint64_t offset = LOG_HEADER_BYTES;
    int r = window_open(&window, directory, segment);

    while (!r) {
        r = scan_at(&window, offset, &record);
        if (r == -EAGAIN || r == -EILSEQ) {
            front.whole = front.whole && front.begun;
            r = scan_search(&window, offset + 1, &offset);
            if (r)
                break;
            if (offset >= window.size)
                break;
            continue;
        }
        if (r || !take(&front, &record))
            break;
        offset += record.length;
    }
    window_free(&window);
    if (r < 0 && r != -ENODATA) {
        front_free(&front);
        return r;
    }
    front.whole = front.whole && front.begun;
    if (front.n_rooms)
        qsort(front.rooms, front.n_rooms, sizeof(*front.rooms), by_id);
    *ret_front = front;
    return 0;
}

void front_free(struct front *front)
{
    free(front->rooms);
    free(front->voids);
    *front = (struct front){0};
}

/* ---- what was refused ------------------------------------------------------------------- */

static void add_refusal(struct refusals *refusals, struct refusal refusal)
{
    if (refusals->n == refusals->room) {
        refusals->room = refusals->room ? refusals->room * 2 : 8;
        refusals->items = memory_resize(refusals->items, refusals->room * sizeof(refusal));
    }
    refusals->items[refusals->n++] = refusal;
}

void refusals_add(struct refusals *refusals, const struct front *before, const struct front *front,
                  uint64_t base)
{
    size_t i = 0;

    for (size_t j = 0; j < front->n_voids; j++)
        add_refusal(refusals, (struct refusal){front->voids[j].room, front->voids[j].from,
                                               front->voids[j].to, base});
    for (size_t j = 0; front->begun && j < front->n_rooms; j++) {
        while (i < before->n_rooms && before->rooms[i].id < front->rooms[j].id)
            i++;
        if (i < before->n_rooms && before->rooms[i].id == front->rooms[j].id &&
            before->rooms[i].kept > front->rooms[j].kept)
            add_refusal(refusals, (struct refusal){front->rooms[j].id, front->rooms[j].kept + 1,
                                                   before->rooms[i].kept, base});
    }
}

int refusals_have(const struct refusals *refusals, const struct front *front,
                  const struct log_message *message, uint64_t position)
{
    struct front_room key = {message->room, 0};
    const struct front_room *room = NULL;

    for (size_t i = 0; i < refusals->n; i++) {
        const struct refusal *item = &refusals->items[i];

        if (item->room == message->room && position < item->before &&
            message->number >= item->from && message->number <= item->to)
            return 1;
    }
    if (front->begun && front->n_rooms)
        room = bsearch(&key, front->rooms, front->n_rooms, sizeof(key), by_id);
    return room && message->number > room->kept;
}
