#include "text.h"

#include <errno.h>
#include <string.h>

/*
 * Text files beside the segments: ROOM/YYYY-MM-DD.log, docs/text-log.md.
 *
 *   text_line.c    a message as a line               text_name.c   rooms and days as names
 *   text_file.c    which files are open              text_mark.c   what a restart must repair
 *   text_repair.c  files that lack lines get them from the segments
 *
 * The segments are the log; a text file is a view of them, which may lag but never differs for
 * good. A message that may be shown becomes a line at once:
 *
 *     text_message --> the room's open file                         the way of nearly all lines
 *                  --> the room's queue, while its file is being opened
 *                  --> nowhere, if the room is BEHIND: the line will come from the segments
 *
 * A room is behind when the queue is full (TEXT_QUEUE_BYTES per worker), when its file cannot be
 * written (a full disk), when memory is out, and after the broker ended badly (text_repair()). So
 * there is one way to mend whatever went wrong, and no line is kept in memory for long: a room that
 * is behind costs its struct text_room, and only for the last few lines, when the file has nearly
 * caught up with the room, is there a queue again (text_repair.c).
 *
 * Numbers of a room only grow, so "behind" is all that has to be known: every line up to `number`,
 * the last that may be shown, belongs in the files; none beyond it does, though the segments may
 * have it already (a durable room's message that waits for its sync).
 *
 * All of a worker's rooms are its own, so nothing here is shared: a file has one writer, since it
 * has the lines of one partition. (Two people's home may change whenever one of them comes again,
 * and with it the partition: each has a folder of its own.) A struct text_room lives while it has a
 * file, a queue, or is behind.
 */

#define TICK_MS          1000u
#define SOON_MS          20u
#define TOLD_EVERY_MS    60000u
#define RETRY_FIRST_MS   1000u
#define RETRY_LAST_MS    10000u
#define SYNC_EVERY_BYTES (512u << 10)
#define CHAINS_FIRST     64u
#define FILES_MIN        2u

static void lost(struct text *text, uint64_t lines)
{
    roda_count(text->x, LOG_TEXT_LOST, (int64_t)lines);
    text->lost_untold += lines;
}

/* ---- rooms ------------------------------------------------------------------------------ */

static struct text_room **chain_of(const struct text *text, struct roda_str folded)
{
    return &text->rooms[roda_hash(folded) & (text->n_chains - 1)];
}

static struct text_room *find_room(const struct text *text, const struct partition *p,
                                   struct roda_str folded)
{
    struct text_room *room = *chain_of(text, folded);

    while (room && (room->p != p || room->folded_len != folded.len ||
                    memcmp(room->folded, folded.ptr, folded.len) != 0))
        room = room->next;
    return room;
}

static void grow(struct text *text)
{
    struct text old = *text;
    struct text_room **rooms = roda_alloc(text->x, 2 * old.n_chains * sizeof *rooms);

    if (!rooms)
        return; /* longer chains will do */
    text->rooms = rooms;
    text->n_chains = 2 * old.n_chains;
    for (uint32_t i = 0; i < old.n_chains; i++)
        while (old.rooms[i]) {
            struct text_room *room = old.rooms[i];
            struct text_room **chain = chain_of(text, text_folded(room));
            old.rooms[i] = room->next;
            room->next = *chain;
            *chain = room;
        }
    roda_free(text->x, old.rooms);
}

static struct text_room *make_room(struct text *text, struct partition *p, struct roda_str folded)
{
    char name[TEXT_NAME_SIZE];

    if (text_name(folded, name) < 0)
        return NULL;
    if (text->n_rooms >= text->n_chains)
        grow(text);
    struct text_room *room = roda_alloc(text->x, sizeof *room + folded.len);
    if (!room)
        return NULL;
    room->text = text;
    room->p = p;
    room->folded_len = (uint32_t)folded.len;
    memcpy(room->folded, folded.ptr, folded.len);
    struct text_room **chain = chain_of(text, folded);
    room->next = *chain;
    *chain = room;
    text->n_rooms++;
    return room;
}

/* Frees a room of which nothing is left to do. */
static void retire(struct text_room *room)
{
    struct text *text = room->text;

    if (room->state != TEXT_CLOSED || room->first || room->syncing || room->link.next ||
        room->repair || (room->behind && !text->stopping) || text->holding)
        return;
    text_link_remove(&room->behind_link);
    struct text_room **link = chain_of(text, text_folded(room));
    while (*link != room)
        link = &(*link)->next;
    *link = room->next;
    text->n_rooms--;
    roda_free(text->x, room);
    text_end(text);
}

/* ---- the queue ---------------------------------------------------------------------------- */

static void take_first(struct text_room *room)
{
    struct text_queued *queued = room->first;

    room->first = queued->next;
    room->text->queued_bytes -= queued->len;
    roda_free(room->text->x, queued);
}

static uint64_t drop_queue(struct text_room *room)
{
    uint64_t n = 0;

    for (; room->first; n++)
        take_first(room);
    return n;
}

static int put_last(struct text_room *room, const struct text_line *line, size_t len)
{
    struct text *text = room->text;

    if (text->queued_bytes && text->queued_bytes + len > TEXT_QUEUE_BYTES)
        return -ENOBUFS;
    struct text_queued *queued = roda_alloc(text->x, sizeof *queued + len);
    if (!queued)
        return -ENOMEM;
    queued->number = line->number;
    queued->time_ns = line->time_ns;
    queued->len = len;
    memcpy(queued->line, text->line, len);
    if (room->first)
        room->last->next = queued;
    else
        room->first = queued;
    room->last = queued;
    text->queued_bytes += len;
    return 0;
}

/* ---- what goes wrong -------------------------------------------------------------------- */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

uint64_t text_behind(struct text_room *room, int64_t day)
{
    struct text *text = room->text;
    int64_t since = room->behind ? room->since_day : INT64_MAX;
    uint64_t dropped;
    int unknown = day == TEXT_DAY_UNKNOWN || (room->behind && room->behind_day == TEXT_DAY_UNKNOWN);

    if (room->first)
        since = earlier(since, text_day(room->first->time_ns));
    if (day != TEXT_DAY_UNKNOWN)
        since = earlier(since, day);
    dropped = drop_queue(room);
    room->queueing = room->blocked = 0;
    text_repair_abort(room);
    text_file_wait_ends(room);
    room->since_day = since;
    room->behind_day = unknown ? TEXT_DAY_UNKNOWN : since;
    if (!room->behind)
        text_mark_add(text, room->p, since);
    else
        text_mark_since(text, room->p, since);
    room->behind = 1;
    if (!room->behind_link.next)
        text_link_last(&text->behind, &room->behind_link);
    return dropped;
}

static void say_lost(struct text *text, const char *path, int error)
{
    uint64_t now_ms = roda_now_ms(text->x);

    if (text->told_ms && now_ms - text->told_ms < TOLD_EVERY_MS)
        return;
    roda_log(text->x, RODA_LOG_ERROR,
             "text file %s cannot be written: %s; %llu lines are missing in text files for now; "
             "they are added from the segments when it can",
             path, strerror(-error), (unsigned long long)text->lost_untold);
    text->told_ms = now_ms;
    text->lost_untold = 0;
}

void text_failed(struct text_room *room, int error)
{
    struct text *text = room->text;
    uint64_t lines = room->repair ? 0 : room->lines;
    char path[TEXT_PATH_SIZE];

    text_path(room, room->day, path);
    text_repair_abort(room);
    text_file_drop(room);
    lost(text, lines + text_behind(room, room->day));
    if (!room->failed)
        text->failed++;
    room->failed = 1;
    text->error = error;
    if (error != -ECANCELED)
        say_lost(text, path, error);
    text->retry_wait_ms = text->retry_wait_ms ? text->retry_wait_ms * 2 : RETRY_FIRST_MS;
    if (text->retry_wait_ms > RETRY_LAST_MS)
        text->retry_wait_ms = RETRY_LAST_MS;
    text->retry_ms = roda_now_ms(text->x) + text->retry_wait_ms;
    retire(room);
}

/* Memory is out, so not even a room can be marked: all of its partition is looked at, later. */
static void lost_room(struct text *text, const struct partition *p, int64_t day)
{
    lost(text, 1);
    text->unread_day = text->unread ? earlier(text->unread_day, day) : day;
    text->unread |= 1u << p->index;
}

/* ---- lines -------------------------------------------------------------------------------- */

size_t text_make_line(struct text *text, const struct text_line *line)
{
    size_t len = text_line_write(line, text->line, text->line_size);

    if (len <= text->line_size)
        return len;
    char *bigger = roda_realloc(text->x, text->line, len + len / 2);
    if (!bigger)
        return 0;
    text->line = bigger;
    text->line_size = len + len / 2;
    return text_line_write(line, text->line, text->line_size);
}

int text_append(struct text_room *room, const char *line, size_t len)
{
    int64_t offset = roda_file_append(room->file, (struct roda_str){line, len});

    if (offset < 0)
        return (int)offset;
    roda_count(room->text->x, LOG_TEXT_LINES, 1);
    room->unsynced += len;
    room->lines++;
    return 0;
}

/* Bounds what a power cut can take (text_repair.c looks back no further than a few of these), and
 * what a file that failed may lack. */
static void sync_if_much(struct text_room *room)
{
    if (room->unsynced >= SYNC_EVERY_BYTES)
        text_file_sync(room);
}

static void block(struct text_room *room)
{
    if (room->text->stopping) { /* no timer any more: the sync comes back */
        text_file_sync(room);
        return;
    }
    room->blocked = 1;
    text_soon(room->text);
}

static void write_queue(struct text_room *room)
{
    while (room->first) {
        struct text_queued *queued = room->first;
        if (text_day(queued->time_ns) != room->day) {
            text_file_close(room);
            return;
        }
        int r = text_append(room, queued->line, queued->len);
        if (r == -ENOBUFS)
            block(room);
        else if (r < 0)
            text_failed(room, r);
        if (r < 0)
            return;
        take_first(room);
    }
    text_file_used(room);
    if (room->text->stopping || room->reopen)
        text_file_close(room);
    else
        sync_if_much(room);
}

void text_go_on(struct text_room *room)
{
    if (room->repair || room->state == TEXT_OPENING || room->state == TEXT_CLOSING)
        return;
    if (room->state == TEXT_CLOSED) {
        if (room->first)
            text_file_open(room, text_day(room->first->time_ns));
        else
            retire(room);
        return;
    }
    room->blocked = 0;
    if (room->reopen)
        text_file_close(room);
    else
        write_queue(room);
}

static int is_open_for(const struct text_room *room, int64_t day)
{
    return room->state == TEXT_OPEN && !room->repair && !room->first && !room->reopen &&
           room->day == day;
}

static void put_line(struct text_room *room, const struct text_line *line, size_t len)
{
    int64_t day = text_day(line->time_ns);
    int r = len ? -ENOBUFS : -ENOMEM;

    if (len && is_open_for(room, day)) {
        r = text_append(room, room->text->line, len);
        if (!r) {
            text_file_used(room);
            sync_if_much(room);
            return;
        }
    }
    if (r == -ENOBUFS)
        r = put_last(room, line, len);
    else if (r != -ENOMEM) {
        lost(room->text, 1);
        text_failed(room, r);
        return;
    }
    if (!r) {
        text_go_on(room);
        return;
    }
    if (room->repair && room->queueing) {
        room->queueing = 0; /* the repair goes on, and tries again to catch up */
        lost(room->text, 1 + drop_queue(room));
        return;
    }
    lost(room->text, 1 + text_behind(room, day));
    text_soon(room->text);
}

/* The line will come from the segments. If it is of a later day than what was to be looked at, the
 * mark has to say so, should the broker end before it was. */
static void will_miss(struct text_room *room, int64_t time_ns)
{
    int64_t from_day = text_day(room->kept_ns - TEXT_WRITTEN_NS);

    if (room->failed)
        lost(room->text, 1);
    if (room->behind_day != TEXT_DAY_UNKNOWN || room->since_day <= from_day ||
        text_day(time_ns) <= from_day)
        return;
    room->since_day = from_day;
    text_mark_since(room->text, room->p, from_day);
}

/* NULL: memory is out. */
static struct text_room *first_line(struct text *text, struct partition *p, struct roda_str folded,
                                    int64_t day)
{
    struct text_room *room = NULL;

    if (text->marks[p->index].found) { /* older lines first */
        text_marks_check(text);
        room = find_room(text, p, folded);
    }
    if (!room)
        room = make_room(text, p, folded);
    if (!room)
        lost_room(text, p, day);
    else if (text->unread & 1u << p->index) /* perhaps it is not the first */
        (void)text_behind(room, earlier(day, text->unread_day));
    return room;
}

void text_message(struct partition *p, struct roda_str folded, const struct roda_msg *msg)
{
    struct text *text = log_state_of(p->x)->text;
    struct text_line line;

    if (!text)
        return;
    struct text_room *room = find_room(text, p, folded);
    if (!room)
        room = first_line(text, p, folded, text_day(msg->time_ns));
    if (!room)
        return;
    room->number = msg->number;
    if (room->behind && !room->queueing) {
        will_miss(room, msg->time_ns);
        return;
    }
    text_line_of_message(msg, folded, &line);
    put_line(room, &line, text_make_line(text, &line));
}

void text_room_opened(struct text_room *room, int result)
{
    if (result < 0)
        text_failed(room, result);
    else if (room->repair)
        text_repair_opened(room);
    else
        text_go_on(room);
}

void text_room_closed(struct text_room *room)
{
    if (room->repair)
        text_repair_closed(room);
    else
        text_go_on(room);
}

/* ---- timers ------------------------------------------------------------------------------- */

static struct text_room *blocked_room(const struct text *text)
{
    for (struct text_link *link = text->open.next; link != &text->open; link = link->next) {
        struct text_room *room =
            (struct text_room *)(void *)((char *)link - offsetof(struct text_room, link));
        if (room->blocked)
            return room;
    }
    return NULL;
}

static void on_soon(struct roda_ctx *x, void *arg, int result)
{
    struct text *text = arg;
    uint32_t most = text->n_files;
    struct text_room *room;

    (void)x;
    text->soon = NULL;
    if (result < 0)
        return;
    while (most-- && (room = blocked_room(text)) != NULL) {
        room->blocked = 0;
        text_file_used(room); /* behind the others, should it be blocked again */
        if (room->repair)
            text_repair_go_on(room);
        else
            text_go_on(room);
    }
    text_repairs_start(text);
    text_file_places(text);
}

void text_soon(struct text *text)
{
    if (!text->soon && !text->stopping)
        text->soon = roda_timer_start(text->x, SOON_MS, 0, on_soon, text);
}

/* A file says that writing failed when it is asked for more: an empty append asks. Files of past
 * days are closed. */
static void look_at_files(struct text *text)
{
    int64_t today = text_day(roda_time_ns(text->x));

    for (struct text_link *link = text->open.next, *next; link != &text->open; link = next) {
        struct text_room *room =
            (struct text_room *)(void *)((char *)link - offsetof(struct text_room, link));
        next = link->next;
        int64_t r = room->unsynced ? roda_file_append(room->file, RODA_STR("")) : 0;
        if (r < 0 && r != -ENOBUFS)
            text_failed(room, (int)r);
        else if (room->day < today && !room->repair && !room->first)
            text_file_close(room);
    }
}

static void on_tick(struct roda_ctx *x, void *arg, int result)
{
    struct text *text = arg;

    if (result < 0)
        return;
    look_at_files(text);
    if (text->failed && text->lost_untold)
        say_lost(text, log_conf_of(x)->text_directory, text->error);
    text_marks_check(text);
    text_repairs_start(text);
    text_file_places(text);
}

/* ---- life --------------------------------------------------------------------------------- */

void text_repair(struct partition *p)
{
    struct text *text = log_state_of(p->x)->text;

    if (!text)
        return;
    text->unread &= ~(1u << p->index);
    for (const struct log_room *kept = p->rooms.oldest; kept; kept = kept->newer) {
        if (!kept->kept || !log_choice(log_conf_of(p->x), log_room_folded(kept)))
            continue;
        struct text_room *room = find_room(text, p, log_room_folded(kept));
        if (!room)
            room = make_room(text, p, log_room_folded(kept));
        if (!room) {
            if (!text->unread)
                text->unread_day = INT64_MAX;
            text->unread |= 1u << p->index;
            continue;
        }
        if (room->number < kept->kept)
            room->number = kept->kept;
        if (!room->behind || room->behind_day != TEXT_DAY_UNKNOWN) {
            room->kept = kept->kept;
            room->kept_ns = kept->time_ns;
        }
        (void)text_behind(room, TEXT_DAY_UNKNOWN);
        room->since_day = earlier(room->since_day, text_mark_day(text, p));
    }
    text_repairs_start(text);
}

void text_reopen(struct roda_ctx *x)
{
    struct text *text = log_state_of(x)->text;

    for (uint32_t i = 0; text && i < text->n_chains; i++)
        for (struct text_room *room = text->rooms[i]; room; room = room->next) {
            if (room->state == TEXT_OPENING || room->repair)
                room->reopen = 1;
            else if (room->state == TEXT_OPEN)
                text_file_close(room);
        }
}

int text_new(struct roda_ctx *x)
{
    const struct log_conf *conf = log_conf_of(x);
    uint32_t homes = x->n_workers < RODA_PARTITIONS ? x->n_workers : RODA_PARTITIONS;
    struct text *text = roda_alloc(x, sizeof *text);

    if (!text)
        return -ENOMEM;
    text->x = x;
    text->open.next = text->open.prev = &text->open;
    text->waiting.next = text->waiting.prev = &text->waiting;
    text->behind.next = text->behind.prev = &text->behind;
    text->max_files = (uint32_t)conf->text_files / homes;
    if (text->max_files < FILES_MIN)
        text->max_files = FILES_MIN;
    text->n_chains = CHAINS_FIRST;
    text->rooms = roda_alloc(x, CHAINS_FIRST * sizeof(struct text_room *));
    text->tick = roda_timer_start(x, TICK_MS, TICK_MS, on_tick, text);
    int r = text->rooms && text->tick ? text_marks_read(text) : -ENOMEM;
    if (r) {
        roda_timer_stop(text->tick);
        roda_free(x, text->rooms);
        roda_free(x, text);
        return r;
    }
    log_state_of(x)->text = text;
    return 0;
}

void text_end(struct text *text)
{
    if (!text->stopping || text->holding || text->n_rooms || text->pending)
        return;
    roda_free(text->x, text->line);
    roda_free(text->x, text->rooms);
    roda_free(text->x, text);
}

/* What waits for its file is still written, and every file synced: the broker waits for that. What
 * is behind stays so; the marks say it to the next start. */
void text_free(struct roda_ctx *x)
{
    struct text *text = log_state_of(x)->text;

    if (!text)
        return;
    log_state_of(x)->text = NULL;
    roda_timer_stop(text->tick);
    roda_timer_stop(text->soon);
    text->stopping = 1;
    text->holding = 1;
    text_marks_end(text);
    for (uint32_t i = 0; i < text->n_chains; i++)
        for (struct text_room *room = text->rooms[i]; room; room = room->next) {
            if (room->repair)
                (void)text_behind(room, room->behind_day);
            room->reopen = 0;
            text_go_on(room);
        }
    text_file_places(text);
    text->pending++;
    text->holding = 0;
    for (uint32_t i = 0; i < text->n_chains; i++)
        for (struct text_room *room = text->rooms[i], *next; room; room = next) {
            next = room->next;
            retire(room);
        }
    text->pending--;
    text_end(text);
}
