#include "found.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/*
 * Records, oldest first, make rooms: LOG_ROOM says where one stands, each LOG_MESSAGE adds to its
 * chain, LOG_START and LOG_END say how the run was that wrote them. These rooms are recovery's own
 * until found_apply(), since a broker that heals goes on in p->rooms meanwhile.
 *
 * DAMAGE. Where records are missing, the next good one of a room does not continue its chain. It
 * is believed all the same if it is newer than what is known, and the trees are made anew from its
 * count, which alone says how many there are and of what size. The two newest roots are the record
 * and its jump; an older root was a root before the damage as well (trees grow together, they never
 * come apart), so it is found by its count among the old ones. One that cannot be found had its
 * record in the damaged place. The next older one stands in for it: a jump there leads farther
 * than it should, but back in the same chain.
 *
 * A room whose LOG_ROOM was lost gets its name from the message. A name that has another id than
 * before is a room of which no record was left, and that began anew: the one before is gone.
 *
 * REFUSED. A broker that heals has told the senders of durable messages that were not on disk that
 * they are refused, though some of their records may stand in the file: those with a number beyond
 * room->synced. They are left out, and the ranges are reported, to be voided in the next segment.
 *
 * NUMBERS. When a run ended without LOG_END, more may have been shown than was written. Then each
 * room goes on LOG_SKIP higher, under a new epoch, unless it was durable. Where a place was
 * damaged, that holds for each room with no good record behind it, durable or not: what stood there
 * may have been its last. The damaged bytes bound how many messages that can have been; one of them
 * may have been a LOG_ROOM that skipped as well.
 */

struct trace {
    uint32_t room;               /* id */
    uint64_t void_from, void_to; /* 0: nothing was refused */
    uint32_t damages;            /* how many there were when the room was last read of */
};

/* ---- memory ----------------------------------------------------------------------------- */

void found_clear(struct found *f)
{
    struct roda_ctx *x = f->x;

    log_rooms_clear(x, &f->rooms);
    roda_free(x, f->traces);
    roda_free(x, (void *)(uintptr_t)f->sync_rooms.ptr);
    roda_free(x, f->voids);
    *f = (struct found){.x = x, .p = f->p, .healing = f->healing};
}

/* The first one whose id is not smaller: they stand by id. */
static uint32_t trace_place(const struct found *f, uint32_t id)
{
    uint32_t from = 0, to = f->n_traces;

    if (to && f->traces[to - 1].room < id)
        return to; /* rooms are met in that order, mostly */
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (f->traces[middle].room < id)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static struct trace *trace_of(struct found *f, uint32_t id)
{
    uint32_t at = trace_place(f, id);
    uint32_t more = f->traces_room ? f->traces_room * 2 : 16;
    struct trace *traces = f->traces;

    if (at < f->n_traces && traces[at].room == id)
        return &traces[at];
    if (f->n_traces == f->traces_room) {
        traces = more > f->traces_room ? roda_realloc(f->x, traces, more * sizeof(*traces)) : NULL;
        if (!traces)
            return NULL;
        f->traces = traces;
        f->traces_room = more;
    }
    memmove(traces + at + 1, traces + at, (f->n_traces++ - at) * sizeof(*traces));
    traces[at] = (struct trace){.room = id};
    return &traces[at];
}

/* Whether a good record of the room stands behind the last damaged place. */
static int is_traced_since(const struct found *f, uint32_t id)
{
    uint32_t at = trace_place(f, id);

    return at < f->n_traces && f->traces[at].room == id && f->traces[at].damages == f->damages;
}

static struct log_room *add_room(struct found *f, uint32_t id, struct roda_str folded,
                                 struct roda_str name)
{
    struct log_room *before = log_rooms_find(&f->rooms, folded);

    if (before)
        log_rooms_remove(f->x, &f->rooms, before);
    return log_rooms_add(f->x, &f->rooms, id, folded, name);
}

/* The room of the running broker, which knows what was refused. */
static const struct log_room *running(const struct found *f, uint32_t id)
{
    return f->healing ? log_rooms_by_id(&f->p->rooms, id) : NULL;
}

/* ---- LOG_ROOM --------------------------------------------------------------------------- */

/* One id, one name; one name, one id at a time. */
static int names_agree(const struct found *f, const struct log_room_record *record)
{
    const struct log_room *by_id = log_rooms_by_id(&f->rooms, record->room);
    const struct log_room *by_name = log_rooms_find(&f->rooms, record->folded);

    if (by_id)
        return by_name == by_id;
    return !by_name || by_name->id < record->room;
}

int found_counts_refused(const struct found *f, const struct log_record *record)
{
    const struct log_room *now = record->type == LOG_ROOM ? running(f, record->room.room) : NULL;

    return now && record->room.kept > now->shown;
}

static int take_room(struct found *f, const struct log_record *record)
{
    const struct log_room_record *said = &record->room;
    struct log_room *room = log_rooms_by_id(&f->rooms, said->room);

    if (!names_agree(f, said))
        return -EILSEQ;
    if (room && found_counts_refused(f, record)) {
        if (said->number > room->number)
            room->number = said->number;
        return 0;
    }
    if (!room)
        room = add_room(f, said->room, said->folded, said->name);
    return room ? log_room_set(f->x, room, said) : -ENOMEM;
}

/* ---- LOG_MESSAGE ------------------------------------------------------------------------ */

/* The name of two people's room: both nicks, the smaller one first. */
static size_t fold_pair(const struct log_message *message, char *to, size_t size)
{
    char nicks[2][LOG_NAME_MAX];
    int a = roda_text_fold(message->sender[RODA_PERSON_NICK], nicks[0], sizeof(nicks[0]));
    int b = roda_text_fold(message->to, nicks[1], sizeof(nicks[1]));
    int order, n;

    if (a <= 0 || b <= 0)
        return 0;
    order = memcmp(nicks[0], nicks[1], (size_t)(a < b ? a : b));
    if (order > 0 || (!order && a > b))
        n = snprintf(to, size, "@%.*s,%.*s", b, nicks[1], a, nicks[0]);
    else
        n = snprintf(to, size, "@%.*s,%.*s", a, nicks[0], b, nicks[1]);
    return n > 0 && (size_t)n < size ? (size_t)n : 0;
}

/* A room whose LOG_ROOM was lost. What cannot be a name keeps the id from being used twice. */
static struct log_room *adopt(struct found *f, const struct log_message *message)
{
    char folded[LOG_NAME_MAX];
    struct roda_str name = message->to;
    const struct log_room *other;
    size_t len;

    if (message->flags & RODA_MSG_DIRECT) {
        len = fold_pair(message, folded, sizeof(folded));
        name = (struct roda_str){folded, len};
    } else {
        int n = roda_text_fold(message->to, folded, sizeof(folded));
        len = n > 0 ? (size_t)n : 0;
        if (len && roda_room_partition((struct roda_str){folded, len}) != f->p->index)
            len = 0;
    }
    other = len ? log_rooms_find(&f->rooms, (struct roda_str){folded, len}) : NULL;
    if (!len || name.len > LOG_NAME_MAX || (other && other->id > message->room)) {
        len = (size_t)snprintf(folded, sizeof(folded), "?%u", message->room);
        name = (struct roda_str){folded, len};
    }
    return add_room(f, message->room, (struct roda_str){folded, len}, name);
}

/* Believable without its room's trees. */
static int is_chain_sound(uint64_t position, const struct log_message *message)
{
    return message->back < position && message->jump <= message->back &&
           !message->back == (message->count == 1) &&
           !message->jump == !log_jump_count(message->count);
}

static int continues(const struct log_room *room, const struct log_message *message)
{
    struct log_message expected;

    log_room_pointers(room, &expected);
    return message->count == expected.count && message->back == expected.back &&
           message->jump == expected.jump && message->number > room->kept;
}

/* The sizes of the trees of so many records, newest first. */
static uint32_t tree_sizes(uint64_t count, struct log_tree trees[LOG_TREES_MAX])
{
    uint64_t size = UINT64_MAX;
    uint32_t n = 0;

    while (count && n < LOG_TREES_MAX) {
        while (size > count)
            size >>= 1;
        trees[n++] = (struct log_tree){.size = size};
        count -= size;
    }
    for (uint32_t i = 0; i < n / 2; i++) {
        struct log_tree swap = trees[i];
        trees[i] = trees[n - 1 - i];
        trees[n - 1 - i] = swap;
    }
    return n;
}

/* The tree of the room whose root is its count-th record. */
static const struct log_tree *tree_of_count(const struct log_room *room, uint64_t count)
{
    uint64_t at = room->count;

    for (uint32_t i = 0; i < room->n_trees && at >= count; i++) {
        if (at == count)
            return &room->trees[i];
        at -= room->trees[i].size;
    }
    return NULL;
}

static void copy_root(struct log_tree *to, const struct log_tree *from)
{
    to->root = from->root;
    to->number = from->number;
    to->time_ns = from->time_ns;
}

static void find_roots(const struct log_room *room, uint64_t position,
                       const struct log_message *message, struct log_room_record *to)
{
    uint64_t count = message->count;
    uint32_t n = to->n_trees;

    for (uint32_t i = 0; i < n; i++) {
        const struct log_tree *old = i > 1 ? tree_of_count(room, count) : NULL;
        if (old)
            copy_root(&to->trees[i], old);
        count -= to->trees[i].size;
    }
    copy_root(&to->trees[0], &(struct log_tree){position, message->number, message->time_ns, 0});
    if (n > 1)
        copy_root(&to->trees[1], &(struct log_tree){message->jump, message->jump_number,
                                                    message->jump_time_ns, 0});
    for (uint32_t i = n; i-- > 2;)
        if (!to->trees[i].root && i + 1 < n)
            copy_root(&to->trees[i], &to->trees[i + 1]);
    for (uint32_t i = 2; i < n; i++)
        if (!to->trees[i].root)
            copy_root(&to->trees[i], &to->trees[i - 1]);
}

static int rebuild(struct found *f, struct log_room *room, uint64_t position,
                   const struct log_message *message)
{
    struct log_room_record to;

    to.n_trees = tree_sizes(message->count, to.trees);
    find_roots(room, position, message, &to);
    to.epoch = message->epoch;
    to.number = room->number > message->number ? room->number : message->number;
    to.kept = message->number;
    to.time_ns = message->time_ns;
    to.count = message->count;
    to.closed = message->flags & RODA_MSG_CLOSED ? position : room->closed;
    return log_room_set(f->x, room, &to);
}

static int take_message(struct found *f, uint64_t position, const struct log_message *message)
{
    const struct log_room *now = running(f, message->room);
    struct log_room *room = log_rooms_by_id(&f->rooms, message->room);

    if (now && message->number > now->shown) {
        struct trace *trace = trace_of(f, message->room);
        if (!trace)
            return -ENOMEM;
        if (!trace->void_from)
            trace->void_from = message->number;
        trace->void_to = message->number;
        return 0;
    }
    if (!room && !(room = adopt(f, message)))
        return -ENOMEM;
    if (continues(room, message)) {
        if (message->flags & RODA_MSG_CLOSED)
            room->closed = position;
        return log_room_append(f->x, room, position, message->epoch, message->number,
                               message->time_ns);
    }
    if (is_chain_sound(position, message) && message->number > room->kept)
        return rebuild(f, room, position, message);
    if (message->number > room->number)
        room->number = message->number;
    return -EILSEQ;
}

/* ---- all of them ------------------------------------------------------------------------ */

static int take_start(struct found *f, const struct log_start *start)
{
    char *copy = roda_alloc(f->x, start->sync_rooms.len + 1);

    if (!copy)
        return -ENOMEM;
    if (start->sync_rooms.len)
        memcpy(copy, start->sync_rooms.ptr, start->sync_rooms.len);
    roda_free(f->x, (void *)(uintptr_t)f->sync_rooms.ptr);
    f->sync_rooms = (struct roda_str){copy, start->sync_rooms.len};
    f->sync = start->sync;
    f->started = 1;
    return 0;
}

static void take_open(struct found *f, const struct log_open *open)
{
    if (f->rooms.ids < open->ids)
        f->rooms.ids = open->ids;
    if (f->rooms.floor < open->floor)
        f->rooms.floor = open->floor;
}

int found_fits(const struct found *f, uint64_t position, const struct log_record *record)
{
    const struct log_room *room;

    if (record->type == LOG_ROOM)
        return names_agree(f, &record->room);
    if (record->type != LOG_MESSAGE)
        return 1;
    room = log_rooms_by_id(&f->rooms, record->message.room);
    return is_chain_sound(position, &record->message) &&
           (!room || record->message.number > room->kept);
}

int found_take(struct found *f, uint64_t position, const struct log_record *record)
{
    uint32_t id = record->type == LOG_ROOM      ? record->room.room
                  : record->type == LOG_MESSAGE ? record->message.room
                                                : 0;
    struct trace *trace;
    int r = 0;

    f->ended = record->type == LOG_END;
    if (record->type == LOG_START)
        return take_start(f, &record->start);
    if (record->type == LOG_OPEN)
        take_open(f, &record->open);
    if (record->type == LOG_ROOM)
        r = take_room(f, record);
    else if (record->type == LOG_MESSAGE)
        r = take_message(f, position, &record->message);
    if (!id || !f->damages || r == -ENOMEM)
        return r;
    trace = trace_of(f, id);
    if (!trace)
        return -ENOMEM;
    trace->damages = f->damages;
    return r;
}

void found_damage(struct found *f, uint64_t bytes)
{
    f->damages++;
    f->damaged_bytes += bytes;
    f->ended = 0;
}

/* ---- the result ------------------------------------------------------------------------- */

/* p->rooms keeps what only the running broker knows: its numbers and epochs, and what was shown:
 * what is beyond it stays refused, however often healing begins. */
static void apply_room(struct log_room *to, struct log_room *from)
{
    struct log_tree *trees = to->trees;
    uint32_t trees_room = to->trees_room;

    to->trees = from->trees;
    to->trees_room = from->trees_room;
    from->trees = trees;
    from->trees_room = trees_room;
    to->n_trees = from->n_trees;
    to->count = from->count;
    to->kept = from->kept;
    to->closed = from->closed;
    to->known = 1;
    if (!to->durable)
        to->synced = from->number;
    if (!to->epoch)
        to->epoch = from->epoch;
    if (from->number > to->number)
        to->number = from->number;
    if (from->time_ns > to->time_ns)
        to->time_ns = from->time_ns;
}

static void forget_records(struct log_room *room)
{
    room->n_trees = 0;
    room->count = room->kept = room->syncing = 0;
    room->known = room->recorded = 0;
    room->first_position = 0;
    if (!room->durable)
        room->synced = 0;
}

/* First what may fail: nothing that was known is lost by it. */
static int apply_rooms(struct found *f)
{
    struct log_rooms *rooms = &f->p->rooms;

    for (const struct log_room *from = f->rooms.oldest; from; from = from->newer) {
        struct log_room *added;
        if (log_rooms_by_id(rooms, from->id) || log_rooms_find(rooms, log_room_folded(from)))
            continue;
        added = log_rooms_add(f->x, rooms, from->id, log_room_folded(from), log_room_name(from));
        if (!added)
            return -ENOMEM;
        /* It was forgotten, and the segment in which it is not described any more was lost. */
        added->missed = added->shown = from->number;
        added->closed = from->closed;
        log_room_vacate(added);
    }
    for (struct log_room *to = rooms->oldest; to; to = to->newer) {
        struct log_room *from = log_rooms_by_id(&f->rooms, to->id);
        forget_records(to);
        if (from)
            apply_room(to, from);
    }
    if (rooms->ids < f->rooms.ids)
        rooms->ids = f->rooms.ids;
    if (rooms->floor < f->rooms.floor)
        rooms->floor = f->rooms.floor;
    return 0;
}

static int list_voids(struct found *f)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < f->n_traces; i++)
        n += f->traces[i].void_from != 0;
    if (!n)
        return 0;
    f->voids = roda_alloc(f->x, n * sizeof(*f->voids));
    if (!f->voids)
        return -ENOMEM;
    for (uint32_t i = 0; i < f->n_traces; i++)
        if (f->traces[i].void_from)
            f->voids[f->n_voids++] =
                (struct log_void){f->traces[i].room, f->traces[i].void_from, f->traces[i].void_to};
    return 0;
}

/* Whether everything shown in the room is surely known. */
static int is_certain(const struct found *f, const struct log_room *room)
{
    if (f->damages && !is_traced_since(f, room->id))
        return 0;
    return f->ended ||
           (f->started && log_choice_durable(f->sync, f->sync_rooms, log_room_folded(room)));
}

static void skip_numbers(struct found *f)
{
    uint64_t skip = LOG_SKIP + (f->damages ? LOG_SKIP + f->damaged_bytes : 0);

    for (struct log_room *room = f->p->rooms.oldest; room; room = room->newer) {
        uint64_t before = room->epoch;
        if (is_certain(f, room))
            continue;
        while (!room->epoch || room->epoch == before)
            roda_random(f->x, &room->epoch, sizeof(room->epoch));
        room->number += skip;
    }
}

int found_apply(struct found *f)
{
    int r = list_voids(f);

    if (!r)
        r = apply_rooms(f);
    if (!r && !f->healing)
        skip_numbers(f);
    return r;
}
