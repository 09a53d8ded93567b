#include "partition.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/*
 * The writing end of a partition.
 *
 *   append -> tail file ... past half of the segment: the next one is opened, gets its header and,
 *   in steps, disk space. Where a record does not fit any more:
 *
 *     TURN     the next file is the tail now; the old one is synced and closed
 *     SNAPSHOT then: where each room stands, as far as the file takes it at once; LOG_OPEN
 *
 *   Meanwhile appending answers -ENOBUFS, and commit.c keeps the messages.
 *
 * Sync. One at a time. It covers what was appended before it began; positions only grow, and the
 * new tail is synced after the old one, so one position, `synced`, says all. Rooms with records
 * that are not synced are on a list; the sync that begins takes it over.
 *
 * Break. What the disk refused has no way back: the file takes nothing more, what waits is
 * answered by commit.c, and later it begins anew with recovery, as at the start of the broker. What
 * comes back from files of before is recognized by its incarnation.
 *
 * partition_tick(), once a second, brings about what no event does: healing; the end of an old
 * segment in which nothing is said any more, since keep removes whole segments only; a sync that
 * memory was missing for. It needs no memory of its own, so nobody is held for ever.
 */

#define RESERVE_STEP_BYTES (UINT64_C(1) << 20)
#define RESERVE_FROM_BYTES (UINT64_C(64) << 10)
#define ROOM_RECORD_BYTES  UINT64_C(88) /* of LOG_ROOM, without trees and names */
#define HEAL_FIRST_MS      UINT64_C(1000)
#define HEAL_LAST_MS       UINT64_C(10000)

enum next_state { NEXT_NONE, NEXT_OPENING, NEXT_READY };

struct writer {
    uint32_t incarnation;   /* grows whenever the files change hands by a break */
    struct roda_file *lock; /* held as long as the broker may touch the partition's files */
    struct roda_file *tail;
    uint64_t base, segment_bytes, end;
    uint64_t reserved; /* bytes of the tail's file that have space on disk */
    uint64_t synced;
    uint32_t syncing, want_sync;
    struct log_room *dirty, *in_sync;

    enum next_state next_state;
    int next_error; /* it could not be opened, and is not tried again before next_retry_ms */
    uint64_t next_retry_ms;
    struct roda_file *next;
    uint64_t next_base, next_bytes, next_reserved;

    struct roda_file *old; /* its last sync is under way */
    uint64_t settled;      /* behind the tail's snapshot */
    uint64_t relied;       /* base of the newest segment whose snapshot is on disk */
    uint32_t snapshot;     /* 1: not complete; next_room is the next to be described */
    struct log_room *next_room;
    struct log_void *voids; /* to be written behind the snapshot */
    uint32_t n_voids;

    uint64_t heal_ms, heal_at_ms; /* BROKEN: the pause, and when it ends */
    uint32_t opening_first;       /* OPENING at the start of the broker */
    uint32_t told;                /* OPENING: LOG_START is written */
    uint32_t ended_badly;         /* OPENING: text files may differ from what was found */
    void (*opened)(struct partition *p, int result);
};

struct errand { /* the argument of what a file does for us */
    struct partition *p;
    uint32_t incarnation;
    uint64_t target;
};

static struct errand *errand_new(struct partition *p, uint64_t target)
{
    struct errand *errand = roda_alloc(p->x, sizeof(*errand));

    if (errand)
        *errand = (struct errand){p, p->writer->incarnation, target};
    return errand;
}

/* The partition if it still wants to know; the errand is gone. */
static struct partition *errand_end(struct errand *errand, uint64_t *ret_target)
{
    struct partition *p = errand->p;
    uint32_t incarnation = errand->incarnation;

    if (ret_target)
        *ret_target = errand->target;
    roda_free(p->x, errand);
    return p->writer && p->writer->incarnation == incarnation ? p : NULL;
}

static void path_of(const struct partition *p, uint64_t base, char *to, size_t size)
{
    char name[LOG_NAME_BYTES];

    log_segment_name(p->index, base, name);
    (void)snprintf(to, size, "%s/%s", log_conf_of(p->x)->directory, name);
}

/* ---- segments, and how far they are ------------------------------------------------------ */

static int add_segment(struct partition *p, uint64_t base, uint64_t bytes, int64_t created_ns)
{
    if (p->n_segments == p->segments_room) {
        uint32_t room = p->segments_room ? p->segments_room * 2 : 8;
        struct log_segment *segments = roda_realloc(p->x, p->segments, room * sizeof(*p->segments));
        if (!segments)
            return -ENOMEM;
        p->segments = segments;
        p->segments_room = room;
    }
    p->segments[p->n_segments++] =
        (struct log_segment){.base = base, .bytes = bytes, .created_ns = created_ns};
    roda_count(p->x, LOG_SEGMENTS, 1);
    retention_usage(p);
    return 0;
}

uint64_t partition_end(const struct partition *p)
{
    return p->writer->end;
}

uint64_t partition_synced(const struct partition *p)
{
    return p->writer->synced;
}

uint64_t partition_relied(const struct partition *p)
{
    return p->writer ? p->writer->relied : 0;
}

/* ---- breaking and healing ---------------------------------------------------------------- */

static void close_files(struct partition *p)
{
    struct writer *w = p->writer;

    partition_tail_file(p, NULL);
    partition_old_file(p, NULL);
    roda_file_close(w->tail);
    roda_file_close(w->next);
    roda_file_close(w->old);
    w->tail = w->next = w->old = NULL;
    w->next_state = NEXT_NONE;
}

static void forget_dirty(struct log_room **list, int syncing)
{
    while (*list) {
        struct log_room *room = *list;
        *list = syncing ? room->next_syncing : room->next_dirty;
        if (!syncing)
            room->dirty = 0;
    }
}

void partition_break(struct partition *p, int error)
{
    struct writer *w = p->writer;
    enum partition_state before = p->state;

    if (before == PARTITION_BROKEN || before == PARTITION_CLOSED)
        return;
    p->state = PARTITION_BROKEN;
    p->error = error;
    w->incarnation++;
    forget_dirty(&w->dirty, 0);
    forget_dirty(&w->in_sync, 1);
    w->syncing = w->want_sync = w->snapshot = 0;
    w->next_error = 0;
    roda_free(p->x, w->voids);
    w->voids = NULL;
    w->n_voids = 0;
    close_files(p);
    if (before == PARTITION_READY) {
        log_state_of(p->x)->broken++;
        commit_watch(p->x);
        roda_count(p->x, LOG_BROKEN, 1);
        roda_log(p->x, RODA_LOG_ERROR,
                 "partition %u cannot be written: %s; durable rooms refuse messages until it can, "
                 "others go on unlogged; make room in %s or mend the disk: it is tried again by "
                 "itself",
                 p->index, strerror(-error), log_conf_of(p->x)->directory);
    }
    commit_broken(p->x, p, error);
    if (w->opening_first) { /* at the start of the broker: it says why it cannot begin */
        w->opening_first = 0;
        w->opened(p, error);
        return;
    }
    w->heal_ms = w->heal_ms ? w->heal_ms * 2 : HEAL_FIRST_MS;
    if (w->heal_ms > HEAL_LAST_MS)
        w->heal_ms = HEAL_LAST_MS;
    w->heal_at_ms = roda_now_ms(p->x) + w->heal_ms;
}

/* ---- sync -------------------------------------------------------------------------------- */

static void begin_sync(struct partition *p);
static void advance_opening(struct partition *p);

static void on_sync(struct roda_ctx *x, void *arg, int result)
{
    uint64_t target;
    struct partition *p = errand_end(arg, &target);
    struct writer *w;
    int settles;

    if (!p)
        return;
    w = p->writer;
    w->syncing = 0;
    if (result < 0) {
        partition_break(p, result);
        return;
    }
    roda_count(x, LOG_SYNCS, 1);
    settles = w->synced < w->settled && target >= w->settled;
    w->synced = target;
    if (!w->snapshot && w->synced >= w->settled)
        w->relied = w->base;
    while (w->in_sync) {
        struct log_room *room = w->in_sync;
        w->in_sync = room->next_syncing;
        room->known = 1;
        if (room->syncing > room->synced)
            room->synced = room->syncing;
    }
    if (p->state == PARTITION_OPENING)
        advance_opening(p);
    else
        commit_advance(x);
    if (w->want_sync && p->state == PARTITION_READY)
        begin_sync(p);
    if (settles)
        retention_step(p);
}

static void begin_sync(struct partition *p)
{
    struct writer *w = p->writer;
    struct errand *errand;
    int r;

    if (!w->tail || w->syncing || w->old) {
        w->want_sync = 1;
        return;
    }
    w->want_sync = 0;
    if (w->synced == w->end && !w->dirty && p->state == PARTITION_READY)
        return;
    errand = errand_new(p, w->end);
    r = errand ? roda_file_sync(w->tail, on_sync, errand) : -ENOMEM;
    if (r) {
        roda_free(p->x, errand);
        if (r == -ENOMEM && p->state == PARTITION_READY)
            w->want_sync = 1; /* the tick asks again */
        else
            partition_break(p, r);
        return;
    }
    w->syncing = 1;
    w->in_sync = NULL;
    while (w->dirty) {
        struct log_room *room = w->dirty;
        w->dirty = room->next_dirty;
        room->dirty = 0;
        room->syncing = room->kept > room->stated ? room->kept : room->stated;
        room->next_syncing = w->in_sync;
        w->in_sync = room;
    }
}

void partition_want_sync(struct partition *p)
{
    if (p->state == PARTITION_READY)
        begin_sync(p);
}

/* ---- appending ---------------------------------------------------------------------------- */

static void nothing(struct roda_ctx *x, void *arg, int result)
{
    (void)x;
    (void)arg;
    (void)result;
}

/* Space on disk a little before it is needed: cheap, and blocks of one segment lie together. A
 * whole segment at once may be more than a small disk has, and an idle room needs none; so steps
 * begin small and grow with what was written. Where there is none left, writing will say so. */
static void reserve(struct roda_file *file, uint64_t *reserved, uint64_t segment_bytes)
{
    *reserved += *reserved / 2 + RESERVE_STEP_BYTES;
    if (*reserved > segment_bytes)
        *reserved = segment_bytes;
    (void)roda_file_reserve(file, *reserved, nothing, NULL);
}

/* 0, or -ENOBUFS, or it broke. */
static int put(struct partition *p, const char *bytes, size_t len)
{
    struct writer *w = p->writer;
    int64_t offset = roda_file_append(w->tail, (struct roda_str){bytes, len});

    if (offset == -ENOBUFS)
        return -ENOBUFS;
    if (offset >= 0 && (uint64_t)offset != w->end - w->base)
        offset = -EIO; /* somebody else wrote to it */
    if (offset < 0) {
        partition_break(p, (int)offset);
        return (int)offset;
    }
    partition_cache_put(p, w->end, (struct roda_str){bytes, len});
    w->end += len;
    p->segments[p->n_segments - 1].bytes = w->end - w->base;
    if (w->end - w->base > RESERVE_FROM_BYTES &&
        w->end - w->base + RESERVE_STEP_BYTES / 2 > w->reserved && w->reserved < w->segment_bytes)
        reserve(w->tail, &w->reserved, w->segment_bytes);
    return 0;
}

static int put_record(struct partition *p, const struct log_record *record)
{
    char *scratch = log_state_of(p->x)->scratch;
    size_t len = log_record_encode(record, scratch, LOG_RECORD_MAX);

    return len ? put(p, scratch, len) : -EMSGSIZE;
}

static void mark_dirty(struct writer *w, struct log_room *room)
{
    if (room->dirty)
        return;
    room->dirty = 1;
    room->next_dirty = w->dirty;
    w->dirty = room;
}

static int put_room(struct partition *p, struct log_room *room)
{
    struct log_record record = {.type = LOG_ROOM};
    int r;

    log_room_describe(room, &record.room);
    r = put_record(p, &record);
    if (r)
        return r;
    room->recorded = 1;
    room->stated = record.room.number;
    mark_dirty(p->writer, room);
    return 0;
}

static int put_start(struct partition *p)
{
    char text[LOG_SYNC_ROOMS_MAX];
    size_t len = log_choice_text(log_conf_of(p->x), text, sizeof(text));
    struct log_record record = {.type = LOG_START,
                                .start = {.sync = (uint32_t)log_conf_of(p->x)->sync,
                                          .sync_rooms = {text, len},
                                          .time_ns = roda_time_ns(p->x)}};

    return put_record(p, &record);
}

/* ---- the next segment -------------------------------------------------------------------- */

static void use_next(struct partition *p);

/* Perhaps only descriptors are short: as long as the tail has room, nothing is lost. */
static void next_failed(struct partition *p, int error)
{
    struct writer *w = p->writer;

    w->next_state = NEXT_NONE;
    w->next_error = error;
    w->next_retry_ms = roda_now_ms(p->x) + HEAL_FIRST_MS;
    if (p->state == PARTITION_OPENING)
        partition_break(p, error);
    else if (p->waiting)
        commit_advance(p->x);
}

static void on_next_open(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    struct partition *p = errand_end(arg, NULL);
    struct writer *w = p ? p->writer : NULL;

    if (!p || w->next_state != NEXT_OPENING) {
        roda_file_close(file);
        return;
    }
    if (result >= 0 && roda_file_size(file))
        result = -EEXIST; /* recovery would have known it */
    if (result < 0) {
        roda_file_close(file);
        next_failed(p, result);
        return;
    }
    w->next = file;
    w->next_state = NEXT_READY;
    w->next_reserved = 0;
    if (p->state == PARTITION_READY)
        reserve(file, &w->next_reserved, w->next_bytes);
    if (p->state == PARTITION_OPENING) {
        use_next(p);
        advance_opening(p);
        return;
    }
    if (p->waiting)
        commit_advance(x);
}

/* Its LOG_ROOM record is not longer than that. */
static uint64_t room_bytes(const struct log_room *room)
{
    return ROOM_RECORD_BYTES + room->n_trees * sizeof(struct log_tree) + room->folded_len +
           room->name_len;
}

/* A segment has to hold its own snapshot and, for the most part, messages, however many rooms there
 * are by now. */
static uint64_t next_segment_bytes(const struct partition *p)
{
    uint64_t bytes = (uint64_t)log_conf_of(p->x)->segment_bytes, snapshot = LOG_HEADER_BYTES;

    for (const struct log_room *room = p->rooms.oldest; room; room = room->newer)
        snapshot += room_bytes(room);
    return snapshot * 4 > bytes ? snapshot * 4 : bytes;
}

static void prepare_next(struct partition *p, uint64_t base)
{
    struct writer *w = p->writer;
    struct errand *errand;
    char path[4096];
    int r;

    if (w->next_state != NEXT_NONE || (w->next_error && roda_now_ms(p->x) < w->next_retry_ms))
        return;
    w->next_error = 0;
    w->next_base = base;
    w->next_bytes = next_segment_bytes(p);
    path_of(p, base, path, sizeof(path));
    errand = errand_new(p, 0);
    r = errand ? roda_file_open(p->x, path, RODA_FILE_READ | RODA_FILE_APPEND, on_next_open, errand)
               : -ENOMEM;
    w->next_state = NEXT_OPENING;
    if (r) {
        roda_free(p->x, errand);
        next_failed(p, r);
    }
}

static void on_old_synced(struct roda_ctx *x, void *arg, int result)
{
    uint64_t target;
    struct partition *p = errand_end(arg, &target);
    struct writer *w;

    (void)x;
    if (!p)
        return;
    w = p->writer;
    if (result < 0) {
        partition_break(p, result);
        return;
    }
    partition_old_file(p, NULL);
    /* What was reserved and not used is free again, unless somebody reads in it right now. */
    (void)roda_file_truncate(w->old, roda_file_size(w->old), nothing, NULL);
    roda_file_close(w->old);
    w->old = NULL;
    if (w->synced < target)
        w->synced = target;
    if (w->want_sync)
        begin_sync(p);
    commit_advance(p->x);
}

/* The header's time is when the segment begins, not when it was prepared: whatever stands in the
 * one before it is older, which is what keep goes by. */
static int put_header(struct partition *p, int64_t created_ns)
{
    const struct writer *w = p->writer;
    struct log_header header = {.version = LOG_FORMAT_VERSION,
                                .partition = p->index,
                                .base = w->next_base,
                                .segment_bytes = w->next_bytes,
                                .created_ns = created_ns};
    char bytes[LOG_HEADER_BYTES];

    log_header_encode(&header, bytes);
    int64_t offset = roda_file_append(w->next, (struct roda_str){bytes, sizeof(bytes)});
    return offset < 0 ? (int)offset : 0;
}

/* Rooms of which no record is left and whom nobody waits for: else all that were ever opened would
 * be described in each segment for ever. If something is said there again, it is a new room with
 * another id. If nobody was there meanwhile, it has another epoch, and begins behind the numbers of
 * all that were forgotten. */
static void forget_rooms(struct partition *p)
{
    uint64_t oldest = p->segments[0].base;
    struct log_room *room, *newer;

    if (p->state != PARTITION_READY && !p->writer->opening_first)
        return; /* healing: what was refused is not stated yet */
    for (room = p->rooms.oldest; room; room = newer) {
        newer = room->newer;
        if (!room->users && !room->waiting && !room->dirty &&
            (!room->n_trees || room->trees[0].root < oldest))
            log_rooms_remove(p->x, &p->rooms, room);
    }
    commit_forget_places(p->x);
}

/* The next file is the tail now. */
static void use_next(struct partition *p)
{
    struct writer *w = p->writer;
    struct errand *errand = NULL;
    int64_t created_ns = roda_time_ns(p->x);
    int r = put_header(p, created_ns);

    if (r) {
        partition_break(p, r);
        return;
    }
    if (w->tail) {
        errand = errand_new(p, w->end);
        r = errand ? roda_file_sync(w->tail, on_old_synced, errand) : -ENOMEM;
        if (r) {
            roda_free(p->x, errand);
            partition_break(p, r);
            return;
        }
        w->old = w->tail;
        w->want_sync = 1;
    }
    w->tail = w->next;
    w->base = w->next_base;
    w->segment_bytes = w->next_bytes;
    w->reserved = w->next_reserved;
    w->end = w->base + LOG_HEADER_BYTES;
    w->next = NULL;
    w->next_state = NEXT_NONE;
    w->snapshot = 1;
    if (!w->old)
        w->synced = w->base;
    if (add_segment(p, w->base, LOG_HEADER_BYTES, created_ns)) {
        partition_break(p, -ENOMEM);
        return;
    }
    partition_tail_file(p, w->tail);
    partition_old_file(p, w->old);
    forget_rooms(p);
    for (struct log_room *room = p->rooms.oldest; room; room = room->newer)
        room->recorded = 0;
    w->next_room = p->rooms.oldest;
}

/* 0: it is complete. -ENOBUFS: later. */
static int write_snapshot(struct partition *p)
{
    struct writer *w = p->writer;
    struct log_record open = {.type = LOG_OPEN, .open = {p->rooms.ids, p->rooms.floor}};
    int r = 0;

    for (; !r && w->next_room; w->next_room = w->next_room->newer) {
        struct log_room *room = w->next_room;
        /* A room that was never recorded gets its record in front of its first message. */
        if (room->known || room->kept || room->dirty)
            r = put_room(p, room);
        if (r)
            return r;
    }
    r = put_record(p, &open);
    if (!r)
        r = put_start(p);
    while (!r && w->n_voids) {
        struct log_record record = {.type = LOG_VOID, .voided = w->voids[w->n_voids - 1]};
        r = put_record(p, &record);
        w->n_voids -= !r;
    }
    if (r)
        return r;
    roda_free(p->x, w->voids);
    w->voids = NULL;
    w->snapshot = 0;
    w->settled = w->end;
    w->want_sync = 1;
    return 0;
}

/* Whether a segment ends for its age; one without messages stays. */
static int is_old(const struct partition *p)
{
    const struct writer *w = p->writer;
    int64_t age_ms = log_conf_of(p->x)->segment_age_ms;
    int64_t created_ns = p->segments[p->n_segments - 1].created_ns;

    return age_ms && w->end > w->settled && (roda_time_ns(p->x) - created_ns) / 1000000 > age_ms;
}

/* Makes room for so many bytes in the tail. 0, -ENOBUFS, or it broke. */
static int make_room(struct partition *p, size_t len)
{
    struct writer *w = p->writer;
    uint64_t used = w->end - w->base;
    int old = is_old(p);

    if (w->snapshot) /* not before what it counts in is on disk */
        return w->old ? -ENOBUFS : write_snapshot(p);
    if (used > w->segment_bytes / 2 || old)
        prepare_next(p, w->base + w->segment_bytes);
    if (used + len <= w->segment_bytes && !(old && w->next_state == NEXT_READY && !w->old))
        return 0;
    if (w->next_error)
        partition_break(p, w->next_error);
    if (p->state != PARTITION_READY)
        return p->error;
    if (w->next_state != NEXT_READY || w->old || w->syncing)
        return -ENOBUFS;
    use_next(p);
    if (p->state != PARTITION_READY)
        return p->error;
    return -ENOBUFS;
}

static int is_pair(const struct log_room *room)
{
    return room->text[0] == '@';
}

uint64_t partition_number(const struct log_room *room, const struct roda_msg *msg)
{
    return is_pair(room) ? room->kept + 1 : msg->number;
}

static void fill(struct log_message *to, const struct log_room *room, const struct roda_msg *msg)
{
    to->room = room->id;
    to->kind = msg->kind;
    to->flags = msg->flags;
    to->durable = room->durable;
    to->epoch = room->epoch;
    to->number = partition_number(room, msg);
    to->prev = is_pair(room) ? room->kept : msg->prev;
    to->time_ns = msg->time_ns;
    to->to = msg->to;
    to->subject = msg->subject;
    to->text = msg->text;
    to->person = msg->sender ? roda_person_id(msg->sender) : 0;
    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++)
        to->sender[i] = msg->sender ? roda_person_get(msg->sender, i) : RODA_STR("");
    to->n_tags = msg->n_tags < LOG_TAGS_MAX ? msg->n_tags : LOG_TAGS_MAX;
    if (to->n_tags)
        memcpy(to->tags, msg->tags, to->n_tags * sizeof(*msg->tags));
    log_room_pointers(room, to);
}

int64_t partition_append(struct partition *p, struct log_room *room, const struct roda_msg *msg)
{
    struct writer *w = p->writer;
    struct log_record record;
    char *scratch = log_state_of(p->x)->scratch;
    int begins = !room->recorded || (room->epoch != msg->epoch && !is_pair(room));
    uint64_t position;
    size_t len;
    int r;

    if (begins) {
        r = make_room(p, room_bytes(room));
        if (r)
            return r;
        if (!is_pair(room))
            room->epoch = msg->epoch;
        if (room->number >= partition_number(room, msg))
            room->number = partition_number(room, msg) - 1;
        r = put_room(p, room);
        if (r)
            return r;
    }
    record.type = LOG_MESSAGE;
    fill(&record.message, room, msg);
    len = log_record_encode(&record, scratch, LOG_RECORD_MAX);
    if (!len)
        return -EMSGSIZE;
    r = make_room(p, len);
    if (r)
        return r;
    position = w->end;
    r = put(p, scratch, len);
    if (r)
        return r;
    if (log_room_append(p->x, room, position, room->epoch, record.message.number, msg->time_ns)) {
        partition_break(p, -ENOMEM); /* its chain is in the file, but not here: read it again */
        return -ENOMEM;
    }
    if (msg->flags & RODA_MSG_CLOSED)
        room->closed = position;
    mark_dirty(w, room);
    roda_count(p->x, LOG_RECORDS, 1);
    roda_count(p->x, LOG_BYTES, (int64_t)len);
    return (int64_t)w->end;
}

struct log_room *partition_room(struct partition *p, struct roda_str folded, struct roda_str name,
                                int create)
{
    struct log_room *room = log_rooms_find(&p->rooms, folded);

    if (room || !create)
        return room;
    room = log_rooms_add(p->x, &p->rooms, 0, folded, name);
    if (!room)
        return NULL;
    while (!room->epoch)
        roda_random(p->x, &room->epoch, sizeof(room->epoch));
    room->durable = (log_choice(log_conf_of(p->x), folded) & RODA_HISTORY_DURABLE) != 0;
    return room;
}

/* ---- opening ------------------------------------------------------------------------------ */

/* Whether messages stand in the tail. */
static int holds_messages(const struct partition *p)
{
    for (const struct log_room *room = p->rooms.oldest; room; room = room->newer)
        if (room->n_trees && room->trees[0].root > p->writer->base)
            return 1;
    return 0;
}

/* What was shown before it broke may not have come to the disk, what was shown since has not. */
static uint64_t count_missed(struct partition *p)
{
    uint64_t missed = 0;

    for (struct log_room *room = p->rooms.oldest; room; room = room->newer) {
        uint64_t from = room->kept > room->missed ? room->kept : room->missed;
        if (room->shown > from)
            missed += room->shown - from;
        room->missed = room->shown;
    }
    if (missed > p->unlogged)
        roda_count(p->x, LOG_UNLOGGED, (int64_t)(missed - p->unlogged));
    p->unlogged = 0;
    return missed;
}

static void opened(struct partition *p)
{
    struct writer *w = p->writer;
    int first = (int)w->opening_first;

    p->state = PARTITION_READY;
    p->error = 0;
    w->heal_ms = 0;
    if (w->ended_badly)
        text_repair(p);
    w->opening_first = 0;
    if (!holds_messages(p))
        w->settled = w->end;
    retention_usage(p);
    if (first) {
        w->opened(p, 0);
        return;
    }
    log_state_of(p->x)->broken--;
    commit_watch(p->x);
    roda_count(p->x, LOG_BROKEN, -1);
    roda_log(p->x, RODA_LOG_NOTICE,
             "partition %u can be written again; messages that people saw and that are not kept: "
             "%" PRIu64,
             p->index, count_missed(p));
    commit_advance(p->x);
}

/* The tail is there: snapshot, LOG_START, and all of it on disk before anything relies on it. */
static void advance_opening(struct partition *p)
{
    struct writer *w = p->writer;
    int r = 0;

    if (p->state != PARTITION_OPENING || w->syncing)
        return;
    if (w->snapshot)
        r = write_snapshot(p);
    else if (w->opening_first && !w->told)
        r = put_start(p);
    w->told = w->told || !r;
    if (p->state != PARTITION_OPENING)
        return;
    if (r && r != -ENOBUFS) {
        partition_break(p, r);
        return;
    }
    if (!r && w->synced == w->end && !w->old) {
        opened(p);
        return;
    }
    begin_sync(p); /* after -ENOBUFS as well: then the file takes more */
}

static void on_tail_open(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    struct partition *p = errand_end(arg, NULL);
    struct writer *w;

    (void)x;
    if (!p) {
        roda_file_close(file);
        return;
    }
    w = p->writer;
    if (result >= 0 && roda_file_size(file) != w->end - w->base)
        result = -EIO; /* it has changed since recovery read it */
    if (result < 0) {
        roda_file_close(file);
        partition_break(p, result);
        return;
    }
    w->tail = file;
    w->synced = w->end;
    partition_tail_file(p, file);
    advance_opening(p);
}

static void go_on_in(struct partition *p, const struct recovered *found)
{
    struct writer *w = p->writer;
    struct errand *errand = errand_new(p, 0);
    char path[4096];
    int r = -ENOMEM;

    w->base = p->segments[p->n_segments - 1].base;
    w->segment_bytes = found->segment_bytes;
    w->end = found->end;
    w->reserved = w->end - w->base;
    path_of(p, w->base, path, sizeof(path));
    if (errand)
        r = roda_file_open(p->x, path, RODA_FILE_READ | RODA_FILE_APPEND, on_tail_open, errand);
    if (r) {
        roda_free(p->x, errand);
        partition_break(p, r);
        return;
    }
    for (struct log_room *room = p->rooms.oldest; room; room = room->newer)
        room->recorded = 1;
}

static void on_recovered(struct partition *p, const struct recovered *found, int result)
{
    struct writer *w = p->writer;

    if (!w || p->state != PARTITION_OPENING)
        return;
    if (result < 0) {
        partition_break(p, result);
        return;
    }
    w->ended_badly = found->end && !found->clean;
    for (struct log_room *room = p->rooms.oldest; room; room = room->newer) {
        uint32_t choice = log_choice(log_conf_of(p->x), log_room_folded(room));
        room->durable = (choice & RODA_HISTORY_DURABLE) != 0;
        if (w->opening_first) {
            room->missed = room->shown = room->number;
            log_room_vacate(room);
        }
    }
    if (found->n_voids) {
        w->voids = roda_alloc(p->x, found->n_voids * sizeof(*w->voids));
        if (!w->voids) {
            partition_break(p, -ENOMEM);
            return;
        }
        memcpy(w->voids, found->voids, found->n_voids * sizeof(*w->voids));
        w->n_voids = found->n_voids;
    }
    if (w->opening_first && found->clean && found->end &&
        found->end - p->segments[p->n_segments - 1].base < found->segment_bytes / 2)
        go_on_in(p, found);
    else
        prepare_next(p, found->next_base);
}

static int begin_opening(struct partition *p)
{
    p->state = PARTITION_OPENING;
    p->writer->told = 0;
    roda_count(p->x, LOG_SEGMENTS, -(int64_t)p->n_segments);
    return recovery_start(p, (int)p->writer->opening_first, p->writer->synced, on_recovered);
}

void partition_tick(struct partition *p)
{
    struct writer *w = p->writer;
    int r;

    if (!w)
        return;
    if (p->state == PARTITION_BROKEN && roda_now_ms(p->x) >= w->heal_at_ms) {
        retention_step(p); /* what is to go may be the space that is missing, now or next time */
        r = begin_opening(p);
        if (r)
            partition_break(p, r);
    }
    if (p->state == PARTITION_READY)
        (void)make_room(p, 0);
    if (p->state == PARTITION_READY && w->want_sync)
        begin_sync(p);
}

static void lock_path(const struct partition *p, char *to, size_t size)
{
    (void)snprintf(to, size, "%s/%02u.lock", log_conf_of(p->x)->directory, p->index);
}

static void on_locked(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    struct partition *p = errand_end(arg, NULL);
    char path[4096];

    if (!p) {
        roda_file_close(file);
        return;
    }
    p->writer->lock = file;
    if (result == -EBUSY) {
        lock_path(p, path, sizeof(path));
        roda_log(x, RODA_LOG_ERROR,
                 "%s: another broker writes this log; end that one, or set another directory",
                 path);
    }
    if (result >= 0)
        result = begin_opening(p);
    if (result)
        partition_break(p, result);
}

/* Two brokers would write to the same places of the same files, and notice nothing. */
static int take_lock(struct partition *p)
{
    struct errand *errand = errand_new(p, 0);
    char path[4096];
    int r = -ENOMEM;

    lock_path(p, path, sizeof(path));
    if (errand)
        r = roda_file_open(p->x, path, RODA_FILE_APPEND | RODA_FILE_LOCK, on_locked, errand);
    if (r)
        roda_free(p->x, errand);
    return r;
}

int partition_open(struct partition *p, int first, void (*fn)(struct partition *p, int result))
{
    struct writer *w = roda_alloc(p->x, sizeof(*w));
    int r;

    if (!w)
        return -ENOMEM;
    p->writer = w;
    w->opened = fn;
    w->opening_first = first != 0;
    p->state = PARTITION_OPENING;
    r = take_lock(p);
    if (r) {
        p->state = PARTITION_CLOSED;
        p->writer = NULL;
        roda_free(p->x, w);
    }
    return r;
}

/* ---- closing ------------------------------------------------------------------------------ */

/* Numbers beyond what the records say: given while nothing could be written, or refused. */
static int state_numbers(struct partition *p)
{
    int r = 0;

    for (struct log_room *room = p->rooms.oldest; !r && room; room = room->newer)
        if (room->number > room->kept && room->number > room->stated)
            r = put_room(p, room);
    return r;
}

void partition_close(struct partition *p)
{
    struct writer *w = p->writer;
    struct log_record end = {.type = LOG_END};
    char path[4096];

    if (!w)
        return;
    if (p->state == PARTITION_OPENING)
        recovery_cancel(p);
    if (p->state == PARTITION_READY && !w->old) { /* else an end cannot be claimed yet */
        int r = w->snapshot ? write_snapshot(p) : 0;
        if (!r)
            r = state_numbers(p);
        if (!r)
            r = put_record(p, &end);
        if (!r && p->state == PARTITION_READY)
            (void)roda_file_sync(w->tail, nothing, NULL);
    }
    if (w->next_state == NEXT_READY) {
        path_of(p, w->next_base, path, sizeof(path));
        (void)roda_file_remove(p->x, path, nothing, NULL);
    }
    p->state = PARTITION_CLOSED;
    w->incarnation++;
    close_files(p);
    roda_file_close(w->lock);
    p->writer = NULL;
    roda_free(p->x, w->voids);
    roda_free(p->x, w);
}
