#include "room.h"

#include <errno.h>
#include <string.h>

/*
 * Two ways to a room: by its folded name and by its id, in as many chains as there are rooms or up
 * to twice so many. Names are hashed with the broker's key, since anybody may choose them; ids are
 * given one after the other. The table owns the rooms; they never move.
 *
 * What a room's chain looks like is in its trees (record.h), of which there are at most two more
 * than the digits of its count. Their array grows before anything is changed, so that a failure
 * leaves the room as it was.
 */

enum { FIRST_CHAINS = 16, FIRST_TREES = 4 };

/* ---- the table -------------------------------------------------------------------------- */

static struct log_room **name_chain(const struct log_rooms *rooms, struct roda_str folded)
{
    return &rooms->by_name[(uint32_t)roda_hash(folded) & (rooms->n_chains - 1)];
}

static struct log_room **id_chain(const struct log_rooms *rooms, uint32_t id)
{
    return &rooms->by_id[id & (rooms->n_chains - 1)];
}

struct log_room *log_rooms_find(const struct log_rooms *rooms, struct roda_str folded)
{
    struct log_room *room = rooms->n_chains ? *name_chain(rooms, folded) : NULL;

    while (room && (room->folded_len != folded.len || memcmp(room->text, folded.ptr, folded.len)))
        room = room->next_by_name;
    return room;
}

struct log_room *log_rooms_by_id(const struct log_rooms *rooms, uint32_t id)
{
    struct log_room *room = rooms->n_chains ? *id_chain(rooms, id) : NULL;

    while (room && room->id != id)
        room = room->next_by_id;
    return room;
}

static void enter_chains(const struct log_rooms *rooms, struct log_room *room)
{
    struct log_room **by_name = name_chain(rooms, log_room_folded(room));
    struct log_room **by_id = id_chain(rooms, room->id);

    room->next_by_name = *by_name;
    *by_name = room;
    room->next_by_id = *by_id;
    *by_id = room;
}

static int grow_chains(struct roda_ctx *x, struct log_rooms *rooms)
{
    struct log_rooms larger = *rooms;

    if (rooms->n < rooms->n_chains)
        return 0;
    larger.n_chains = rooms->n_chains ? rooms->n_chains * 2 : FIRST_CHAINS;
    larger.by_name = roda_alloc(x, larger.n_chains * sizeof(struct log_room *));
    larger.by_id = roda_alloc(x, larger.n_chains * sizeof(struct log_room *));
    if (!larger.by_name || !larger.by_id) {
        roda_free(x, larger.by_name);
        roda_free(x, larger.by_id);
        return rooms->n_chains ? 0 : -ENOMEM; /* long chains are better than none */
    }
    for (struct log_room *room = rooms->oldest; room; room = room->newer)
        enter_chains(&larger, room);
    roda_free(x, rooms->by_name);
    roda_free(x, rooms->by_id);
    *rooms = larger;
    return 0;
}

struct log_room *log_rooms_add(struct roda_ctx *x, struct log_rooms *rooms, uint32_t id,
                               struct roda_str folded, struct roda_str name)
{
    struct log_room *room;

    if (!id)
        id = rooms->ids + 1;
    if (!id || log_rooms_by_id(rooms, id) || grow_chains(x, rooms))
        return NULL;
    room = roda_alloc(x, sizeof(*room) + folded.len + name.len);
    if (!room)
        return NULL;
    room->id = id;
    room->folded_len = (uint32_t)folded.len;
    room->name_len = (uint32_t)name.len;
    memcpy(room->text, folded.ptr, folded.len);
    memcpy(room->text + folded.len, name.ptr, name.len);
    enter_chains(rooms, room);
    room->older = rooms->newest;
    *(rooms->newest ? &rooms->newest->newer : &rooms->oldest) = room;
    rooms->newest = room;
    rooms->n++;
    if (id > rooms->ids)
        rooms->ids = id;
    return room;
}

void log_rooms_remove(struct roda_ctx *x, struct log_rooms *rooms, struct log_room *room)
{
    struct log_room **by_name = name_chain(rooms, log_room_folded(room));
    struct log_room **by_id = id_chain(rooms, room->id);

    while (*by_name != room)
        by_name = &(*by_name)->next_by_name;
    while (*by_id != room)
        by_id = &(*by_id)->next_by_id;
    *by_name = room->next_by_name;
    *by_id = room->next_by_id;
    *(room->older ? &room->older->newer : &rooms->oldest) = room->newer;
    *(room->newer ? &room->newer->older : &rooms->newest) = room->older;
    rooms->n--;
    if (rooms->floor < room->number)
        rooms->floor = room->number;
    roda_free(x, room->trees);
    roda_free(x, room);
}

void log_rooms_clear(struct roda_ctx *x, struct log_rooms *rooms)
{
    struct log_room *room;

    while ((room = rooms->oldest)) {
        rooms->oldest = room->newer;
        roda_free(x, room->trees);
        roda_free(x, room);
    }
    roda_free(x, rooms->by_name);
    roda_free(x, rooms->by_id);
    *rooms = (struct log_rooms){0};
}

/* ---- one room --------------------------------------------------------------------------- */

struct roda_str log_room_folded(const struct log_room *room)
{
    return (struct roda_str){room->text, room->folded_len};
}

struct roda_str log_room_name(const struct log_room *room)
{
    return (struct roda_str){room->text + room->folded_len, room->name_len};
}

static int grow_trees(struct roda_ctx *x, struct log_room *room, uint32_t wanted)
{
    uint32_t more = room->trees_room ? room->trees_room : FIRST_TREES;
    struct log_tree *trees;

    if (wanted <= room->trees_room)
        return 0;
    while (more < wanted)
        more *= 2;
    trees = roda_realloc(x, room->trees, more * sizeof(*trees));
    if (!trees)
        return -ENOMEM;
    room->trees = trees;
    room->trees_room = more;
    return 0;
}

int log_room_set(struct roda_ctx *x, struct log_room *room, const struct log_room_record *record)
{
    if (grow_trees(x, room, record->n_trees))
        return -ENOMEM;
    room->epoch = record->epoch;
    room->number = record->number;
    room->kept = record->kept;
    room->time_ns = record->time_ns;
    room->count = record->count;
    room->closed = record->closed;
    room->n_trees = record->n_trees;
    if (record->n_trees)
        memcpy(room->trees, record->trees, record->n_trees * sizeof(*record->trees));
    return 0;
}

int log_room_append(struct roda_ctx *x, struct log_room *room, uint64_t position, uint64_t epoch,
                    uint64_t number, int64_t time_ns)
{
    if (grow_trees(x, room, room->n_trees + 1))
        return -ENOMEM;
    log_trees_add(room->trees, &room->n_trees, position, number, time_ns);
    room->count++;
    room->epoch = epoch;
    room->kept = number;
    if (number > room->number)
        room->number = number;
    room->time_ns = time_ns;
    return 0;
}

void log_room_vacate(struct log_room *room)
{
    room->floor = room->closed ? room->closed + 1 : 0;
}

/* The jump is the root of the tree behind the one that the record will be the root of: that takes
 * in the two newest if they are of one size. */
void log_room_pointers(const struct log_room *room, struct log_message *ret_message)
{
    uint32_t behind = room->n_trees > 1 && room->trees[0].size == room->trees[1].size ? 2 : 0;
    struct log_tree none = {0};
    const struct log_tree *jump = behind < room->n_trees ? &room->trees[behind] : &none;

    ret_message->count = room->count + 1;
    ret_message->back = room->n_trees ? room->trees[0].root : 0;
    ret_message->jump = jump->root;
    ret_message->jump_number = jump->number;
    ret_message->jump_time_ns = jump->time_ns;
}

/* What waits to be written was seen by nobody: after a crash it would be a gap that never was. */
static uint64_t number_to_state(const struct log_room *room)
{
    uint64_t shown = room->shown < room->number ? room->shown : room->number;
    uint64_t seen = room->kept > shown ? room->kept : shown;
    uint64_t given = room->number > room->unwritten ? room->number - room->unwritten : 0;

    return given > seen ? given : seen;
}

void log_room_describe(const struct log_room *room, struct log_room_record *ret_record)
{
    ret_record->room = room->id;
    ret_record->epoch = room->epoch;
    ret_record->number = number_to_state(room);
    ret_record->kept = room->kept;
    ret_record->time_ns = room->time_ns;
    ret_record->count = room->count;
    ret_record->closed = room->closed;
    ret_record->folded = log_room_folded(room);
    ret_record->name = log_room_name(room);
    ret_record->n_trees = room->n_trees;
    if (room->n_trees)
        memcpy(ret_record->trees, room->trees, room->n_trees * sizeof(*room->trees));
}
