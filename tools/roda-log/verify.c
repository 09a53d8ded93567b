#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <roda/history.h>

#include "program.h"
#include "progress.h"
#include "reader.h"
#include "show.h"

/*
 * Reads every byte and holds it against what the format promises. The reader finds what is no
 * record, and files that are not what their names say. Here each room's chain is built anew, as the
 * broker builds it, and compared with what the records say: counts, back and jump pointers with
 * their numbers and times, the trees of LOG_ROOM. Numbers only grow, times do not run back.
 *
 * A chain is known from a LOG_ROOM record on. Behind damage it is in doubt: if the next message of
 * the room fits, nothing of the room was lost; if not, its chain is unknown up to the next
 * LOG_ROOM, and that is no damage of its own. So each damage is told once.
 *
 * Messages that were refused are the end of the chain as it was then. A segment that was begun when
 * the disk worked again goes on with the chain as it was before the first of them.
 */
struct state {
    uint64_t count, last; /* last: the number of the newest message */
    int64_t time_ns;
    uint32_t n_trees;
    struct log_tree trees[LOG_TREES_MAX];
};

struct chain {
    int is_known;
    uint64_t epoch, damages; /* damages: of the reader, when this was last sure */
    struct state state;
    int has_refused;
    struct state kept; /* before the first that was refused */
};

struct verify {
    struct task *task;
    struct progress progress;
    uint64_t records, messages, refused, findings, read_bytes;
    size_t partitions;
    uint64_t base; /* the segment that the rest is about; UINT64_MAX: none yet */
    int is_open, has_ended;
    uint32_t last_id; /* of the rooms in its snapshot */
};

/* ---- what is said ----------------------------------------------------------------------- */

/* What it is, is to be printed behind this. */
static void damaged(struct verify *v)
{
    v->findings++;
    if (v->task->status < STATUS_DAMAGED)
        v->task->status = STATUS_DAMAGED;
    progress_hide();
}

static void found(struct verify *v, const struct reader *r, uint64_t offset, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void found(struct verify *v, const struct reader *r, uint64_t offset, const char *fmt, ...)
{
    va_list args;

    damaged(v);
    (void)printf("%s: offset %" PRIu64 ": ", r->file, offset);
    va_start(args, fmt);
    (void)vprintf(fmt, args);
    va_end(args);
    (void)printf("\n");
}

/* Something is wrong with a record whose checksum is right. */
#define FOUND(...) found(v, r, r->record_offset, __VA_ARGS__)

/* A room's name for a terminal: who made these files may be anybody. */
static const char *shown(struct roda_str name)
{
    static char text[LOG_NAME_MAX * 4 + 1];
    FILE *to = fmemopen(text, sizeof(text), "w");

    if (!to)
        return "?";
    show_text(to, name, 1);
    (void)fclose(to);
    return text;
}

/* ---- chains ----------------------------------------------------------------------------- */

static struct chain *chain_of(struct room *room)
{
    if (!room->own)
        room->own = memory_get(sizeof(struct chain));
    return room->own;
}

static int is_in_doubt(const struct chain *chain, const struct reader *r)
{
    return chain->damages != r->damages;
}

static int same_trees(const struct state *state, const struct log_room_record *record)
{
    if (state->n_trees != record->n_trees)
        return 0;
    for (uint32_t i = 0; i < state->n_trees; i++) {
        const struct log_tree *a = &state->trees[i], *b = &record->trees[i];

        if (a->root != b->root || a->number != b->number || a->time_ns != b->time_ns ||
            a->size != b->size)
            return 0;
    }
    return 1;
}

static int is_at(const struct state *state, const struct log_room_record *record)
{
    return record->count == state->count && record->kept == state->last;
}

/* What the record says is what stands before it. */
static void compare_room(struct verify *v, const struct reader *r, const struct chain *chain)
{
    const struct log_room_record *record = &r->record.room;
    const struct state *state = &chain->state;

    if (chain->has_refused && is_at(&chain->kept, record))
        state = &chain->kept;
    if (!is_at(state, record))
        FOUND("room %s: %" PRIu64 " messages up to number %" PRIu64
              ", but before this there are %" PRIu64 " up to %" PRIu64,
              shown(record->name), record->count, record->kept, state->count, state->last);
    else if (!same_trees(state, record))
        FOUND("room %s: its chain is not the one before this", shown(record->name));
}

static void check_room(struct verify *v, struct reader *r)
{
    const struct log_room_record *record = &r->record.room;
    struct chain *chain = chain_of(r->room);

    if (r->at >= r->begun) /* a snapshot that was begun; the broker begins it anew */
        return;
    if (chain->is_known && !is_in_doubt(chain, r))
        compare_room(v, r, chain);
    if (record->count &&
        (record->trees[0].root >= r->position || record->trees[0].number != record->kept))
        FOUND("room %s: its chain does not end with its last message", shown(record->name));
    if (record->closed >= r->position)
        FOUND("room %s: it was closed behind this", shown(record->name));
    if (!is_at(&chain->state, record))
        chain->has_refused = 0;
    chain->is_known = 1;
    chain->damages = r->damages;
    chain->epoch = record->epoch;
    chain->state.last = record->kept;
    chain->state.time_ns = record->time_ns;
    chain->state.count = record->count;
    chain->state.n_trees = record->n_trees;
    memcpy(chain->state.trees, record->trees, record->n_trees * sizeof(*record->trees));
}

/* What does not fit, or NULL. Adds the message. */
static const char *misfit(struct chain *chain, const struct reader *r)
{
    const struct log_message *m = &r->record.message;
    struct state *state = &chain->state;
    struct log_tree jump = {0, 0, 0, 0};

    if (m->count != state->count + 1)
        return "its count does not follow the one before";
    if (m->back != (state->n_trees ? state->trees[0].root : 0))
        return "it does not point back to the one before";
    if (m->epoch != chain->epoch)
        return "it has another epoch than its room's record";
    if (m->prev < state->last)
        return "it says that less was shown before it than was kept";
    log_trees_add(state->trees, &state->n_trees, r->position, m->number, m->time_ns);
    state->count = m->count;
    if (state->n_trees > 1)
        jump = state->trees[1];
    if (m->jump != jump.root)
        return "its jump pointer is wrong";
    if (m->jump_number != jump.number || m->jump_time_ns != jump.time_ns)
        return "number or time at its jump is wrong";
    return NULL;
}

static const char *misplaced(const struct chain *chain, const struct log_message *message)
{
    if (message->number <= chain->state.last)
        return "its number is not greater than the one before";
    if (chain->is_known && message->time_ns < chain->state.time_ns)
        return "it is older than the one before it";
    return NULL;
}

static void check_message(struct verify *v, struct reader *r)
{
    const struct log_message *m = &r->record.message;
    const char *what, *unfit = NULL;
    struct chain *chain;

    if (!r->room) {
        if (!r->damages)
            FOUND("message %" PRIu64 ": no record before it describes its room", m->number);
        return;
    }
    chain = chain_of(r->room);
    if (r->refused && !chain->has_refused)
        chain->kept = chain->state;
    chain->has_refused = r->refused;
    what = misplaced(chain, m);
    if (chain->is_known) {
        unfit = misfit(chain, r);
        if (!what && !is_in_doubt(chain, r))
            what = unfit;
        chain->is_known = !unfit;
        chain->damages = r->damages;
    }
    if (what)
        FOUND("message %" PRIu64 " of room %s: %s", m->number, shown(r->room->name), what);
    chain->state.last = m->number;
    chain->state.time_ns = m->time_ns;
}

/* ---- segments --------------------------------------------------------------------------- */

/* Which records may stand where. */
static void check_order(struct verify *v, struct reader *r)
{
    enum log_type type = r->record.type;

    if (v->base != r->position - r->record_offset) {
        v->base = r->position - r->record_offset;
        v->is_open = v->has_ended = 0;
        v->last_id = 0;
    }
    if (v->has_ended && type != LOG_START && !r->damages)
        FOUND("there is more behind the record of the broker's end");
    v->has_ended = type == LOG_END;
    if (type == LOG_ROOM && !v->is_open && r->record.room.room > v->last_id)
        v->last_id = r->record.room.room;
    if (type == LOG_OPEN && r->record.open.ids < v->last_id)
        FOUND("no room has an id above %" PRIu32 ", it says, but one has %" PRIu32,
              r->record.open.ids, v->last_id);
    if (type == LOG_OPEN)
        v->is_open = 1;
    if (v->is_open || type == LOG_ROOM)
        return;
    v->is_open = 1;
    if (!r->damages)
        FOUND("this stands in front of the end of the snapshot");
}

static void check_record(struct verify *v, struct reader *r)
{
    v->records++;
    check_order(v, r);
    if (r->record.type == LOG_ROOM)
        check_room(v, r);
    if (r->record.type != LOG_MESSAGE)
        return;
    v->refused += r->refused != 0;
    v->messages += r->refused == 0;
    check_message(v, r);
}

static void tell_cut(const struct reader *r)
{
    progress_hide();
    (void)printf("%s: offset %" PRIu64 ": %" PRIu64 " bytes of a record that is being written, or "
                 "was when the broker was killed: no damage\n",
                 r->file, r->damage_from, r->damage_to - r->damage_from);
}

static void check_partition(struct verify *v, struct reader *r)
{
    enum reader_step step;

    v->base = UINT64_MAX;
    while ((step = reader_next(r)) != READER_END) {
        if (step == READER_RECORD)
            check_record(v, r);
        else if (step == READER_DAMAGE)
            found(v, r, r->damage_from, "%" PRIu64 " bytes damaged: %s",
                  r->damage_to - r->damage_from, r->damage);
        else if (step == READER_CUT)
            tell_cut(r);
        else
            task_failed(v->task, "%s/%s: %s", v->task->directory, r->file, reader_error(r->error));
        progress_step(&v->progress, v->read_bytes + r->bytes_read, v->messages);
    }
    v->read_bytes += r->bytes_read;
    v->partitions++;
}

/* From its first start on a log has a segment of each. */
static void check_all_are_there(struct verify *v)
{
    const struct folder *folder = &v->task->folder;
    uint32_t there = 0;

    for (size_t i = 0; i < folder->n; i++)
        there |= 1u << folder->segments[i].partition;
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++) {
        if (there & 1u << i)
            continue;
        damaged(v);
        (void)printf("partition %02" PRIu32
                     ": no segment of it is there; a log has all %u, so what "
                     "was said in this one's rooms is missing\n",
                     i, RODA_PARTITIONS);
    }
}

void run_verify(struct task *task)
{
    const struct folder *folder = &task->folder;
    struct verify v = {.task = task};

    if (!folder->n) {
        task_failed(task,
                    "%s: there is no segment in it, no file like %s, so nothing was verified; -d "
                    "says where the log is",
                    task->directory, "00-0000000000000000.segment");
        return;
    }
    check_all_are_there(&v);
    progress_begin(&v.progress, task->progress, 0, folder->bytes);
    for (size_t i = 0, n; i < folder->n; i += n) {
        struct reader r;

        n = folder_partition(folder, i);
        reader_init(&r, task->directory, &folder->segments[i], n);
        check_partition(&v, &r);
        reader_free(&r);
    }
    progress_end(&v.progress);
    (void)printf("%zu partitions, %zu segments, %" PRIu64 " records, %" PRIu64 " messages",
                 v.partitions, folder->n, v.records, v.messages);
    if (v.refused)
        (void)printf(" and %" PRIu64 " that were refused", v.refused);
    if (v.findings)
        (void)printf(": %" PRIu64 " damaged\n", v.findings);
    else
        (void)printf(": no damage\n");
}
