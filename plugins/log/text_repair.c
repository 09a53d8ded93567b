#include "text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Makes a room's text files agree with the segments, from one day on.
 *
 *   where?    known if a file failed while the broker ran. After a bad end: the day of the room's
 *             last kept message, or the day before if that message is from the first two minutes
 *             of its day (a file is synced when its day has ended, and the kernel writes by itself
 *             in less time), or that of a mark that was left (text_mark.c). Files of later days
 *             hold nothing but what was lost, and are removed.
 *   compare   the file's end (WINDOW_BYTES at most) is read into memory, and the chain's records
 *             from its first line on are made into lines again. Where the two differ, where the
 *             file has more than the chain, and where it ends inside a line, it is cut off.
 *   append    what the chain has from there on.
 *   catch up  a sync says whether all of that was written. Then live lines go to the room's queue
 *             again, while one more page or two brings what was said meanwhile; then the room goes
 *             on as if nothing had been.
 *
 *       begin -> [last -> first -> remove] -> open -> tail -> page -> ... -> sync -> page -> done
 *                                               ^                |
 *                                               '---next day-----'
 *
 * Lines before the first one that the chain still has are left alone (segments may be kept for less
 * time than text files), and so is a file from which somebody moved lines away: it is compared from
 * its own first line on. If segments are damaged, nothing is cut but half a line: then the text is
 * the better copy.
 *
 * Private conversations have no numbers that only grow, so they are followed by time and by their
 * records' count; lines that the file lacks are appended, and none is cut off. (Of what two people
 * wrote at one and the same nanosecond, no more is found than one page holds.)
 *
 * A repair has at most one request under way (`busy`); if it is given up meanwhile, the request's
 * callback frees it. The file is the room's, and comes and goes through text_file.c.
 */

#define REPAIRS_MAX   2u         /* at once, per worker */
#define WINDOW_BYTES  (2u << 20) /* more than a few times what may be appended and not synced */
#define PRIVATE_BYTES (8u << 20)
#define PAGE_MESSAGES 64u
#define RETRY_MS      1000u

struct text_repair {
    struct text_room *room; /* NULL: given up */
    struct text *text;
    struct history_ask ask; /* its bytes: the page */
    uint32_t busy;
    uint32_t private;
    uint32_t changed; /* this file, by a cut or a line */
    uint32_t synced;  /* the files were made to agree; what follows is catching up */
    uint32_t matched; /* some line of this file was as it should be */
    uint32_t aligned; /* the first line in the tail that the chain has was looked for */
    uint32_t distrusted;
    uint32_t day_by_time;
    int64_t day; /* of the file to be repaired; TEXT_DAY_UNKNOWN: not begun */
    int64_t last_ns;

    int64_t *remove; /* days of files that hold nothing but lost lines */
    size_t n_remove;

    char *tail; /* whole lines of the file's end; compared up to tail_at */
    size_t tail_len, tail_at;
    uint64_t tail_offset; /* in the file */
    uint64_t size;        /* of the file, before anything is appended */
    uint64_t cut_at;

    uint64_t have;   /* the last number that the files have */
    int64_t have_ns; /* private: time and count of the last record that was seen */
    uint64_t have_count;
    uint64_t front; /* private: the first number in the tail, if that is not the whole file */
    uint64_t goal;  /* numbers up to here may be shown */
    uint32_t reached, progress;
    uint32_t past; /* private: what has the last record's time was all seen */
    size_t page_at;
    char folded[]; /* of the room, which a question may outlive */
};

static void begin(struct text_repair *r);
static void open_day(struct text_repair *r, int64_t day);
static void ask_page(struct text_repair *r);
static void take_page(struct text_repair *r);
static void caught_up(struct text_repair *r);

/* ---- life --------------------------------------------------------------------------------- */

static void forget_page(struct text_repair *r)
{
    roda_free(r->text->x, r->ask.bytes);
    r->ask.bytes = NULL;
    r->ask.n_bytes = r->page_at = 0;
}

static void forget_tail(struct text_repair *r)
{
    roda_free(r->text->x, r->tail);
    r->tail = NULL;
    r->tail_len = r->tail_at = 0;
    r->tail_offset = r->size = 0;
}

static void repair_free(struct text_repair *r)
{
    struct text *text = r->text;

    forget_page(r);
    forget_tail(r);
    roda_free(text->x, r->remove);
    roda_free(text->x, r);
}

static void leave(struct text_repair *r)
{
    struct text_room *room = r->room;

    room->repair = NULL;
    r->room = NULL;
    r->text->repairs--;
    if (!r->busy)
        repair_free(r);
}

void text_repair_abort(struct text_room *room)
{
    if (room->repair)
        leave(room->repair);
}

static void request(struct text_repair *r)
{
    r->busy = 1;
    r->text->pending++;
}

/* 1: go on. 0: it was given up meanwhile, and is gone. */
static int answered(struct text_repair *r)
{
    struct text *text = r->text;

    r->busy = 0;
    text->pending--;
    if (r->room)
        return 1;
    repair_free(r);
    text_end(text);
    return 0;
}

/* Not now: the log is broken, or memory is out. */
static void later(struct text_repair *r)
{
    struct text_room *room = r->room;
    struct text *text = r->text;

    (void)text_behind(room, room->behind_day);
    if (text->retry_ms < roda_now_ms(text->x) + RETRY_MS)
        text->retry_ms = roda_now_ms(text->x) + RETRY_MS;
    text_go_on(room);
}

static void asked(struct text_repair *r, int result)
{
    if (result >= 0) {
        request(r);
        return;
    }
    if (result == -ENOMEM || result == -EAGAIN || r->text->stopping)
        later(r);
    else
        text_failed(r->room, result);
}

static void done(struct text_repair *r)
{
    struct text_room *room = r->room;
    struct text *text = r->text;

    leave(r);
    room->behind = room->queueing = 0;
    text_mark_remove(text, room->p);
    if (room->failed) {
        room->failed = 0;
        text->retry_wait_ms = 0;
        if (!--text->failed) {
            roda_log(text->x, RODA_LOG_NOTICE, "text files are whole again");
            text->lost_untold = 0;
        }
    }
    text_go_on(room);
    text_repairs_start(text);
}

static void give_up(struct text_repair *r, int error)
{
    char path[TEXT_PATH_SIZE];

    text_path(r->room, r->room->day, path);
    roda_log(r->text->x, RODA_LOG_WARNING,
             "text file %s may lack lines: the segments cannot be read: %s; roda-log verify says "
             "what is damaged",
             path, strerror(-error));
}

/* ---- where to begin ------------------------------------------------------------------------ */

static void ask_chain(struct text_repair *r, void (*fn)(struct history_ask *, int))
{
    struct partition *p = r->room->p;

    forget_page(r);
    r->ask.p = p;
    r->ask.done = fn;
    r->ask.all = 1;
    r->ask.n = r->ask.more = 0;
    r->ask.first = 0;
    r->ask.query.size = sizeof r->ask.query;
    r->ask.query.room = (struct roda_str){r->folded, r->room->folded_len};
    int result = p->state == PARTITION_READY ? history_find(&r->ask) : -EAGAIN;
    asked(r, result);
}

static struct text_repair *repair_of(struct history_ask *ask)
{
    return (struct text_repair *)(void *)((char *)ask - offsetof(struct text_repair, ask));
}

/* The next message of the page; 0: there is none. */
static int next_message(struct text_repair *r, struct log_record *ret_record)
{
    while (r->page_at < r->ask.n_bytes &&
           !log_record_decode(r->ask.bytes + r->page_at, r->ask.n_bytes - r->page_at, ret_record)) {
        r->page_at += ret_record->length;
        if (ret_record->type == LOG_MESSAGE)
            return 1;
    }
    return 0;
}

static int page_failed(struct text_repair *r, int result)
{
    if (!result || result == -ENOENT) {
        if (result)
            forget_page(r);
        return 0;
    }
    forget_page(r);
    if (result == -ENOMEM || result == -ECANCELED || result == -EAGAIN ||
        r->room->p->state != PARTITION_READY) {
        later(r);
        return 1;
    }
    give_up(r, result);
    return 2;
}

static void remove_next(struct text_repair *r);

static void on_removed(struct roda_ctx *x, void *arg, int result)
{
    struct text_repair *r = arg;

    (void)x;
    if (!answered(r))
        return;
    if (result < 0 && result != -ENOENT)
        text_failed(r->room, result);
    else
        remove_next(r);
}

static void remove_next(struct text_repair *r)
{
    char path[TEXT_PATH_SIZE];

    if (!r->n_remove) {
        open_day(r, r->day);
        return;
    }
    text_path(r->room, r->remove[--r->n_remove], path);
    asked(r, roda_file_remove(r->text->x, path, on_removed, r));
}

static void on_names(struct roda_ctx *x, void *arg, const struct roda_str *names, size_t n,
                     int result)
{
    struct text_repair *r = arg;
    int64_t day;

    if (!answered(r))
        return;
    if (result < 0 && result != -ENOENT) {
        text_failed(r->room, result);
        return;
    }
    roda_free(x, r->remove);
    r->n_remove = 0;
    r->remove = roda_alloc(x, (n + 1) * sizeof *r->remove);
    if (!r->remove) {
        later(r);
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (!text_day_parse(names[i], &day) && day > text_day(r->last_ns))
            r->remove[r->n_remove++] = day;
    remove_next(r);
}

static void on_first(struct history_ask *ask, int result)
{
    struct text_repair *r = repair_of(ask);
    struct log_record record;
    char path[TEXT_PATH_SIZE];

    if (!answered(r))
        return;
    int failed = page_failed(r, result);
    if (failed == 1)
        return;
    r->day = text_day(r->last_ns);
    if (!failed && next_message(r, &record) && record.message.time_ns < r->last_ns)
        r->day = text_day(record.message.time_ns);
    text_folder(r->room, path);
    asked(r, roda_file_list(r->text->x, path, on_names, r));
}

static void ask_first(struct text_repair *r);

static void on_last(struct history_ask *ask, int result)
{
    struct text_repair *r = repair_of(ask);
    struct log_record record;

    if (!answered(r))
        return;
    int failed = page_failed(r, result);
    if (failed == 1)
        return;
    if (failed || !next_message(r, &record)) {
        done(r); /* nothing that could be compared */
        return;
    }
    r->last_ns = record.message.time_ns;
    ask_first(r);
}

/* The first record that may be missing in the files. */
static void ask_first(struct text_repair *r)
{
    r->room->day = text_day(r->last_ns);
    r->ask.query.what = RODA_HISTORY_AFTER;
    r->ask.query.by_time = 1;
    r->ask.query.max = 1;
    int64_t from_ns = r->last_ns - TEXT_WRITTEN_NS;
    if (text_day(from_ns) >= r->room->since_day)
        from_ns = text_day_start_ns(r->room->since_day) - 1;
    r->ask.query.from = from_ns > 0 ? (uint64_t)from_ns : 0;
    r->ask.query.to = 0;
    ask_chain(r, on_first);
}

static void begin(struct text_repair *r)
{
    struct text_room *room = r->room;

    if (room->behind_day != TEXT_DAY_UNKNOWN) {
        open_day(r, room->behind_day);
        return;
    }
    if (r->private) {
        r->last_ns = room->kept_ns;
        ask_first(r);
        return;
    }
    r->ask.query.what = RODA_HISTORY_LATEST;
    r->ask.query.by_time = 0;
    r->ask.query.max = 1;
    r->ask.query.from = 0;
    r->ask.query.to = room->kept;
    ask_chain(r, on_last);
}

static int start(struct text_room *room)
{
    struct text *text = room->text;
    struct text_repair *r = roda_alloc(text->x, sizeof *r + room->folded_len);

    if (!r)
        return -ENOMEM;
    r->room = room;
    r->text = text;
    r->day = TEXT_DAY_UNKNOWN;
    memcpy(r->folded, room->folded, room->folded_len);
    r->private = *room->folded == '@';
    text_link_remove(&room->behind_link);
    room->repair = r;
    text->repairs++;
    if (room->state == TEXT_CLOSED)
        begin(r);
    else if (room->state == TEXT_OPEN)
        text_file_close(room); /* text_repair_closed() begins */
    return 0;
}

void text_repairs_start(struct text *text)
{
    /* Not more often than there are: one that failed at once stands behind the others. */
    uint32_t most = text->n_rooms;

    while (most-- && text->behind.next != &text->behind && text->repairs < REPAIRS_MAX &&
           !text->stopping && roda_now_ms(text->x) >= text->retry_ms)
        if (start((struct text_room *)(void *)((char *)text->behind.next -
                                               offsetof(struct text_room, behind_link))))
            return;
}

/* ---- a day's file --------------------------------------------------------------------------- */

static void open_day(struct text_repair *r, int64_t day)
{
    r->day = day;
    forget_tail(r);
    text_file_open(r->room, day);
}

void text_repair_closed(struct text_room *room)
{
    struct text_repair *r = room->repair;

    if (r->day == TEXT_DAY_UNKNOWN)
        begin(r);
    else
        open_day(r, r->day);
}

static struct roda_str tail_line(const struct text_repair *r)
{
    const char *from = r->tail + r->tail_at;
    size_t left = r->tail_len - r->tail_at;
    const char *end = left ? memchr(from, '\n', left) : NULL;

    return (struct roda_str){from, end ? (size_t)(end - from) + 1 : 0};
}

/* Nothing of the file can be relied on: it is written anew. */
static void distrust(struct text_repair *r)
{
    r->tail_len = r->tail_at = 0;
    r->tail_offset = 0;
    r->distrusted = 1;
}

/* Of the first line that is one. 0: the file's front cannot be relied on; if that is not in the
 * window, it is not looked at, and what is strange in front is passed over. */
static uint64_t first_number(struct text_repair *r)
{
    uint64_t number = 0;
    struct roda_str line;

    while (!number && (line = tail_line(r)).len) {
        number = text_line_number(line);
        if (!number && !r->tail_offset)
            return 0;
        if (!number)
            r->tail_at += line.len;
    }
    return number;
}

static void start_chain(struct text_repair *r)
{
    uint64_t number;

    r->aligned = r->distrusted = r->matched = r->changed = 0;
    if (r->private) {
        if (!r->have_ns || text_day(r->have_ns) < r->day)
            r->have_ns = text_day_start_ns(r->day) - 1;
        r->front = r->tail_offset ? first_number(r) : 0;
        ask_page(r);
        return;
    }
    number = first_number(r);
    if (number && number <= r->room->number) {
        if (r->have < number - 1)
            r->have = number - 1;
    } else if (r->tail_at < r->tail_len) {
        distrust(r);
    }
    r->day_by_time = !r->have;
    ask_page(r);
}

static void on_tail(struct roda_ctx *x, void *arg, struct roda_str bytes, int result)
{
    struct text_repair *r = arg;
    size_t front = 0, end = bytes.len;

    if (!answered(r))
        return;
    if (result < 0) {
        text_failed(r->room, result);
        return;
    }
    if (r->tail_offset) {
        const char *lf = memchr(bytes.ptr, '\n', bytes.len);
        front = lf ? (size_t)(lf - bytes.ptr) + 1 : end;
    }
    while (end > front && bytes.ptr[end - 1] != '\n')
        end--;
    r->tail = roda_alloc(x, end - front + 1);
    if (!r->tail) {
        later(r);
        return;
    }
    memcpy(r->tail, bytes.ptr + front, end - front);
    r->tail_len = end - front;
    r->tail_offset += front;
    start_chain(r);
}

void text_repair_opened(struct text_room *room)
{
    struct text_repair *r = room->repair;
    uint64_t window = r->private ? PRIVATE_BYTES : WINDOW_BYTES;

    if (r->day == TEXT_DAY_UNKNOWN) { /* it was being opened for lines */
        text_file_close(room);
        return;
    }
    r->size = roda_file_size(room->file);
    r->tail_offset = r->size > window ? r->size - window : 0;
    if (!r->size) {
        start_chain(r);
        return;
    }
    asked(r, roda_file_read(room->file, r->tail_offset, (size_t)(r->size - r->tail_offset), on_tail,
                            r));
}

static void on_cut(struct roda_ctx *x, void *arg, int result)
{
    struct text_repair *r = arg;

    (void)x;
    if (!answered(r))
        return;
    if (result < 0) {
        text_failed(r->room, result);
        return;
    }
    r->size = r->cut_at;
    r->tail_len = r->cut_at - r->tail_offset;
    if (r->tail_at > r->tail_len)
        r->tail_at = r->tail_len;
    if (r->ask.bytes)
        take_page(r);
    else
        caught_up(r);
}

/* Where the file should end as far as it is compared; of a private conversation's only half a line
 * at its end is too much. */
static uint64_t good_end(const struct text_repair *r)
{
    return r->tail_offset + (r->private ? r->tail_len : r->tail_at);
}

static int has_more(const struct text_repair *r)
{
    return r->size > good_end(r);
}

static void cut(struct text_repair *r)
{
    r->changed = 1;
    r->cut_at = good_end(r);
    asked(r, roda_file_truncate(r->room->file, r->cut_at, on_cut, r));
}

/* ---- the chain, page by page ---------------------------------------------------------------- */

static void on_page(struct history_ask *ask, int result)
{
    struct text_repair *r = repair_of(ask);

    if (!answered(r))
        return;
    int failed = page_failed(r, result);
    if (failed == 1)
        return;
    r->day_by_time = 0;
    r->front = 0;
    if (failed) { /* what the file has stays; but no line is written behind half a one */
        r->tail_at = r->tail_len;
        r->reached = 1;
    }
    take_page(r);
}

static void ask_page(struct text_repair *r)
{
    int64_t from_ns = r->private ? r->have_ns - !r->past : text_day_start_ns(r->day) - 1;

    if (!r->room->queueing) /* beyond, lines are queued */
        r->goal = r->room->number;
    r->reached = r->progress = 0;
    r->ask.query.what = RODA_HISTORY_AFTER;
    r->ask.query.by_time = !r->front && (r->private || r->day_by_time);
    r->ask.query.max = PAGE_MESSAGES;
    r->ask.query.from = r->front ? r->front - 1 : r->have;
    if (r->ask.query.by_time)
        r->ask.query.from = from_ns > 0 ? (uint64_t)from_ns : 0;
    r->ask.query.to = 0;
    if (r->synced)
        r->room->queueing = 1;
    ask_chain(r, on_page);
}

/* The chain begins later than the file. */
static void skip_older(struct text_repair *r, uint64_t number)
{
    struct roda_str line;

    while ((line = tail_line(r)).len && text_line_number(line) && text_line_number(line) < number) {
        r->tail_at += line.len;
        r->matched = 1;
    }
}

static int tail_has(struct text_repair *r, const char *line, size_t len)
{
    const char *rest = r->tail + r->tail_at;
    size_t left = r->tail_len - r->tail_at;

    if (left && left >= len && !memcmp(rest, line, len)) {
        r->tail_at += len;
        return 1;
    }
    if (!r->private || !r->tail_len)
        return 0;
    for (const char *from = r->tail; from; from++) { /* only where it begins a line */
        from = memmem(from, r->tail_len - (size_t)(from - r->tail), line, len);
        if (!from)
            return 0;
        if (from == r->tail || from[-1] == '\n') {
            r->tail_at = (size_t)(from - r->tail) + len;
            return 1;
        }
    }
    return 0;
}

/* 0: the files have it now. Else take_page() returns: -EAGAIN, it goes on by a callback. */
static int take_line(struct text_repair *r, const struct log_message *message)
{
    struct text_room *room = r->room;
    struct text_line line;

    text_line_of_record(message, text_folded(room), &line);
    size_t len = text_make_line(r->text, &line);
    if (!len) {
        later(r);
        return -EAGAIN;
    }
    if (!r->aligned && !r->private && message->number == r->ask.first)
        skip_older(r, message->number);
    r->aligned = 1;
    if (tail_has(r, r->text->line, len)) {
        r->matched = 1;
        return 0;
    }
    if (has_more(r)) {
        if (r->private || r->matched || r->distrusted || r->tail_offset) {
            cut(r);
            return -EAGAIN;
        }
        distrust(r); /* perhaps its first line's number is wrong: the whole day, then */
        r->have = 0;
        r->day_by_time = 1;
        ask_page(r);
        return -EAGAIN;
    }
    r->changed = 1;
    int result = text_append(room, r->text->line, len);
    if (result == -ENOBUFS) {
        room->blocked = 1;
        text_soon(r->text);
    } else if (result < 0) {
        text_failed(room, result);
    }
    return result ? -EAGAIN : 0;
}

static int seen(const struct text_repair *r, const struct log_message *message)
{
    return r->private ? message->count <= r->have_count : message->number <= r->have;
}

/* A private conversation's page may reach into the lines that are queued. */
static int is_queued(const struct text_room *room, const struct log_message *message)
{
    const struct text_queued *first = room->queueing ? room->first : NULL;

    return first && first->number == message->number && first->time_ns == message->time_ns;
}

/* The file of a day is done, and the chain goes on another day. */
static void next_day(struct text_repair *r, int64_t day)
{
    forget_page(r);
    r->day = day;
    r->room->since_day = day;
    if (r->room->behind_day != TEXT_DAY_UNKNOWN)
        r->room->behind_day = day;
    text_file_close(r->room); /* text_repair_closed() goes on */
}

void text_repair_go_on(struct text_room *room)
{
    take_page(room->repair);
}

static void take_page(struct text_repair *r)
{
    struct log_record record;
    size_t at = r->page_at;

    for (; !r->reached && next_message(r, &record); at = r->page_at) {
        const struct log_message *message = &record.message;
        int64_t day = text_day(message->time_ns);
        if (seen(r, message))
            continue;
        r->reached = r->private ? (uint32_t)is_queued(r->room, message) : message->number > r->goal;
        if (r->reached)
            break;
        if (day > r->room->day && has_more(r)) {
            r->page_at = at;
            cut(r);
            return;
        }
        if (day > r->room->day) {
            next_day(r, day);
            return;
        }
        size_t behind = r->page_at;
        r->page_at = at;
        if (take_line(r, message))
            return; /* r may be gone */
        r->page_at = behind;
        r->progress = 1;
        r->have = message->number;
        r->have_ns = message->time_ns;
        r->have_count = message->count;
    }
    uint32_t more = r->ask.more && !r->reached && (r->progress || (r->private && !r->past));
    r->past = !r->progress;
    forget_page(r);
    if (more)
        ask_page(r);
    else
        caught_up(r);
}

/* ---- the end -------------------------------------------------------------------------------- */

static void on_synced(struct roda_ctx *x, void *arg, int result)
{
    struct text_repair *r = arg;

    (void)x;
    if (!answered(r))
        return;
    if (result < 0) {
        text_failed(r->room, result);
        return;
    }
    r->synced = 1;
    r->room->unsynced = r->room->lines = 0;
    ask_page(r);
}

static void caught_up(struct text_repair *r)
{
    if (!r->aligned) /* the chain has nothing to compare with: no whole line goes */
        r->tail_at = r->tail_len;
    if (has_more(r) && !(r->distrusted && !r->aligned)) {
        cut(r);
        return;
    }
    if (!r->changed)
        r->synced = 1;
    if (!r->synced)
        asked(r, roda_file_sync(r->room->file, on_synced, r));
    else if (!r->room->queueing)
        ask_page(r); /* the queue was full meanwhile */
    else
        done(r);
}
