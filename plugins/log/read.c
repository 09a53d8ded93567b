#include "partition.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/*
 * Records by position. From near to far:
 *
 *   newest  the newest bytes that were appended, in two pieces of 128 kB. When the newer one is
 *           full it becomes the older one, which goes. No record lies in both. A new segment
 *           begins with none. When nobody has read for 1 MB, nothing is put there until somebody
 *           does.
 *   blocks  four of 16 kB that were read from files lately. Walks go backwards through a room, so a
 *           block lies mostly before the position that was asked for.
 *   files   the tail's own, and that of the tail before as long as its end is not on disk: they see
 *           what is not written yet. Of older segments at most four are open per partition, the one
 *           that is unused for longest is closed.
 *
 * What stands at a position never changes, so nothing here ever has to be made invalid.
 *
 * A read is always answered from the partition's item, posted to oneself, or from a file's answer:
 *
 *   WAITING --item--> found in memory: answered
 *                     else READING, if the file is open; OPENING, if somebody opens it (the first
 *                     one does); WAITING on, if four others are open and in use
 *   OPENING --open--> READING or answered with the error
 *   READING --read--> answered, or READING again: a record that is longer than the block
 *
 * A damaged record breaks the chain of its room, and most of what is behind it is reached by no
 * other pointer. partition_read_back() then looks for the room's newest record before that place,
 * in windows that go back through the segment. If none is there, the LOG_ROOM in the segment's
 * front says where the newest one before it is; if that is damaged too, the segment before is
 * searched.
 *
 * Whoever answers makes the rest of WAITING be tried again. All reads of a partition are on one
 * list. Segments are found by their base whenever an answer comes: their array moves, and
 * recovery and retention change it.
 *
 * partition_cache_free() answers all reads with -ECANCELED. What is then still on its way from the
 * core finds its memory marked as ended, and frees it.
 */

enum {
    NEWEST = 2,
    NEWEST_BYTES = 128 << 10,
    UNREAD_BYTES = 1 << 20,
    BLOCKS = 4,
    BLOCK_BYTES = 16 << 10,
    BLOCK_BEFORE = 12 << 10,
    OPEN_MAX = 4,
    TURN_READS = 64, /* answers from memory per run of the item */
    REPORTED = 16,
    PATH_BYTES = 4096,
    WINDOW_BYTES = 256 << 10,
};

enum { ITEM_POSTED = 1, ITEM_RUNNING = 2 };
enum read_state { READ_WAITING, READ_OPENING, READ_READING };

struct read {
    struct read *next, **at; /* in reading.reads */
    struct reading *reading; /* NULL: it was cancelled */
    enum read_state state;
    uint64_t position;
    uint64_t base;   /* of its segment, from OPENING on */
    uint64_t from;   /* what is being read from the file */
    size_t length;   /* of the record; 0: not known */
    uint32_t room;   /* of partition_read_back(); 0: none */
    uint64_t before; /* looks for a record of the room before this; 0: does not */
    uint64_t root;   /* where LOG_ROOM says that the room's newest record before the segment is */
    uint32_t told;   /* 1: root is known */
    partition_read_fn *fn;
    void *arg;
};

struct block {
    uint64_t position;
    uint32_t len;
    uint64_t used;
    char *bytes; /* BLOCK_BYTES, at its first use */
};

struct piece {
    uint64_t position;
    size_t len;
    char *bytes; /* NEWEST_BYTES, at its first use */
};

struct opening {
    struct reading *reading; /* NULL: ended */
    struct roda_ctx *x;
    uint64_t base;
    struct opening *next;
};

struct reading {
    struct roda_item item; /* first */
    uint32_t posted;       /* ITEM_ bits: why it cannot be freed */
    struct partition *p;   /* NULL: ended, the item frees this */
    uint32_t ending;       /* 1: takes no reads any more */
    struct roda_ctx *x;

    struct piece newest[NEWEST]; /* the newer one first */
    uint64_t unread;             /* bytes appended since the last read, as far as they were put */

    struct block blocks[BLOCKS];
    uint64_t uses;

    struct roda_file *tail, *old;
    uint64_t tail_base, old_base;

    struct read *reads, **reads_end;
    struct opening *openings;
    uint64_t reported[REPORTED]; /* damaged places */
    uint32_t n_reported;
};

struct log_segment *partition_segment(struct partition *p, uint64_t position)
{
    uint32_t from = 0, to = p->n_segments;

    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (p->segments[middle].base <= position)
            from = middle + 1;
        else
            to = middle;
    }
    return from ? &p->segments[from - 1] : NULL;
}

static struct log_segment *segment_of_base(struct partition *p, uint64_t base)
{
    struct log_segment *segment = partition_segment(p, base);

    return segment && segment->base == base ? segment : NULL;
}

static struct reading *reading_of(struct partition *p)
{
    struct reading *reading = p->reading;

    if (reading)
        return reading;
    reading = roda_alloc(p->x, sizeof(*reading));
    if (!reading)
        return NULL;
    reading->p = p;
    reading->x = p->x;
    reading->reads_end = &reading->reads;
    p->reading = reading;
    return reading;
}

/* ---- memory ----------------------------------------------------------------------------- */

void partition_cache_put(struct partition *p, uint64_t position, struct roda_str bytes)
{
    struct reading *reading = reading_of(p);
    struct piece *newer;

    if (!reading || bytes.len > NEWEST_BYTES || reading->unread > UNREAD_BYTES)
        return;
    reading->unread += bytes.len;
    newer = &reading->newest[0];
    if (position != newer->position + newer->len)
        newer->len = reading->newest[1].len = 0;
    if (newer->len + bytes.len > NEWEST_BYTES) {
        struct piece older = reading->newest[1];
        reading->newest[1] = *newer;
        *newer = older;
        newer->len = 0;
    }
    if (!newer->len)
        newer->position = position;
    if (!newer->bytes && !(newer->bytes = roda_alloc(p->x, NEWEST_BYTES)))
        return;
    memcpy(newer->bytes + newer->len, bytes.ptr, bytes.len);
    newer->len += bytes.len;
}

/* Whether [from, from + len) holds a whole record at position. */
static int decode_in(uint64_t from, const char *bytes, size_t len, uint64_t position,
                     struct log_record *ret_record)
{
    if (position < from || position - from >= len)
        return -EAGAIN;
    return log_record_decode(bytes + (position - from), len - (size_t)(position - from),
                             ret_record);
}

static int find_in_memory(struct reading *reading, uint64_t position, struct log_record *ret_record)
{
    for (size_t i = 0; i < NEWEST; i++) {
        const struct piece *piece = &reading->newest[i];
        if (!decode_in(piece->position, piece->bytes, piece->len, position, ret_record))
            return 1;
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        struct block *block = &reading->blocks[i];
        if (decode_in(block->position, block->bytes, block->len, position, ret_record))
            continue;
        block->used = ++reading->uses;
        return 1;
    }
    return 0;
}

static void keep_block(struct reading *reading, uint64_t position, struct roda_str bytes)
{
    struct block *block = &reading->blocks[0];

    for (size_t i = 1; i < BLOCKS; i++)
        if (reading->blocks[i].used < block->used)
            block = &reading->blocks[i];
    if (bytes.len > BLOCK_BYTES)
        return;
    if (!block->bytes && !(block->bytes = roda_alloc(reading->x, BLOCK_BYTES)))
        return;
    memcpy(block->bytes, bytes.ptr, bytes.len);
    block->position = position;
    block->len = (uint32_t)bytes.len;
    block->used = ++reading->uses;
}

/* ---- answers ---------------------------------------------------------------------------- */

static void post_item(struct reading *reading);

static void unlink_read(struct reading *reading, struct read *read)
{
    *read->at = read->next;
    if (read->next)
        read->next->at = read->at;
    else
        reading->reads_end = read->at;
    read->reading = NULL;
}

/* The read is over, its memory stays with the caller. May end everything: nothing of reading is
 * touched afterwards. */
static void answer(struct reading *reading, struct read *read, const struct log_record *record,
                   int result)
{
    unlink_read(reading, read);
    read->fn(reading->p, read->arg, result ? NULL : record, result);
}

static void answer_and_free(struct reading *reading, struct read *read,
                            const struct log_record *record, int result)
{
    struct roda_ctx *x = reading->x;

    answer(reading, read, record, result);
    roda_free(x, read);
}

static void report(struct reading *reading, uint64_t position, uint64_t base, const char *what)
{
    char name[LOG_NAME_BYTES];

    for (uint32_t i = 0; i < REPORTED && i < reading->n_reported; i++)
        if (reading->reported[i] == position)
            return;
    reading->reported[reading->n_reported++ % REPORTED] = position;
    log_segment_name(reading->p->index, base, name);
    roda_log(reading->x, RODA_LOG_ERROR,
             "%s: the record at %" PRIu64 " cannot be read: %s; \"roda-log verify\" tells more",
             name, position - base, what);
}

/* What a reader may be told. */
static int public_error(struct reading *reading, const struct read *read, int result)
{
    if (result == -ENOENT || result == -ENOMEM || result == -ECANCELED)
        return result;
    report(reading, read->position, read->base,
           result == -EILSEQ ? "it is damaged" : strerror(-result));
    return result == -EILSEQ ? -EILSEQ : -EIO;
}

/* ---- files ------------------------------------------------------------------------------ */

static int begin_reading(struct read *read, struct roda_file *file);

static void leave_segment(struct reading *reading, uint64_t base)
{
    struct log_segment *segment = segment_of_base(reading->p, base);

    if (segment && segment->readers)
        segment->readers--;
}

static struct roda_file *file_of(struct reading *reading, uint64_t base)
{
    struct log_segment *segment = segment_of_base(reading->p, base);

    if (reading->tail && reading->tail_base == base)
        return reading->tail;
    if (reading->old && reading->old_base == base)
        return reading->old;
    return segment ? segment->file : NULL;
}

/* 0: the record is not whole in what was read, it is being read on. */
static int read_on(struct reading *reading, struct read *read, uint32_t length)
{
    struct roda_file *file = file_of(reading, read->base);

    if (read->length || length <= BLOCK_BYTES - BLOCK_BEFORE)
        return -EILSEQ; /* the file ends there */
    read->length = length;
    if (file)
        return begin_reading(read, file);
    read->state = READ_WAITING; /* it has been closed meanwhile: the item opens it */
    return 0;
}

/* ---- looking back ----------------------------------------------------------------------- */

/* The item goes on with it. */
static void wait_again(struct reading *reading, struct read *read)
{
    read->state = READ_WAITING;
    post_item(reading);
}

/* 1: the record could not be read, and what stands before it is looked for. */
static int look_back(struct reading *reading, struct read *read, int result)
{
    if (result != -EILSEQ || !read->room || read->position - read->base < LOG_HEADER_BYTES)
        return 0;
    (void)public_error(reading, read, result);
    read->before = read->position;
    read->told = 0;
    wait_again(reading, read);
    return 1;
}

/* In the front of the segment nothing was found. */
static int look_before_segment(struct reading *reading, struct read *read)
{
    const struct log_segment *segment = segment_of_base(reading->p, read->base);

    read->length = 0;
    if (read->told) {
        if (!read->root)
            return -ENOENT;
        read->position = read->root;
        read->before = 0;
    } else {
        if (!segment || segment == reading->p->segments)
            return -ENOENT;
        read->before = segment[-1].base + segment[-1].bytes;
        read->position = read->before - 1;
    }
    wait_again(reading, read);
    return 0;
}

/* One in the middle of the segment may count in records of it, which are looked for themselves. */
static void learn_root(struct read *read, const struct log_room_record *room)
{
    uint64_t root = room->n_trees ? room->trees[0].root : 0;

    if (root >= read->base)
        return;
    read->told = 1;
    read->root = root;
}

/* The last record of the room in a window, as far as it begins before read->before. */
static int scan_window(struct read *read, struct roda_str bytes, struct log_record *ret_record)
{
    size_t end = read->before > read->from ? (size_t)(read->before - read->from) : 0;
    size_t at = 0, last = SIZE_MAX;

    while (at < end && at < bytes.len) {
        if (log_record_decode(bytes.ptr + at, bytes.len - at, ret_record)) {
            at++;
            continue;
        }
        if (ret_record->type == LOG_MESSAGE && ret_record->message.room == read->room)
            last = at;
        if (ret_record->type == LOG_ROOM && ret_record->room.room == read->room)
            learn_root(read, &ret_record->room);
        at += ret_record->length;
    }
    if (last == SIZE_MAX)
        return -ENOENT;
    return log_record_decode(bytes.ptr + last, bytes.len - last, ret_record);
}

static void on_window(struct roda_ctx *x, void *arg, struct roda_str bytes, int result)
{
    struct read *read = arg;
    struct reading *reading = read->reading;
    struct log_record record;

    if (!reading) {
        roda_free(x, read);
        return;
    }
    leave_segment(reading, read->base);
    post_item(reading);
    if (result >= 0)
        result = scan_window(read, bytes, &record);
    if (result == -ENOENT && read->from > read->base + LOG_HEADER_BYTES) {
        read->before = read->from;
        read->state = READ_WAITING;
        return;
    }
    if (result == -ENOENT) {
        result = look_before_segment(reading, read);
        if (!result)
            return;
    }
    if (result < 0)
        result = public_error(reading, read, result);
    answer_and_free(reading, read, &record, result);
}

/* A record that begins in the window is read to its end. */
static int begin_window(struct read *read, struct roda_file *file)
{
    uint64_t first = read->base + LOG_HEADER_BYTES;
    uint64_t bytes = read->before > first ? read->before - first : 0;

    if (bytes > WINDOW_BYTES)
        bytes = WINDOW_BYTES;
    read->from = bytes ? read->before - bytes : first;
    return roda_file_read(file, read->from - read->base, (size_t)bytes + LOG_RECORD_MAX, on_window,
                          read);
}

/* ---- reading ---------------------------------------------------------------------------- */

static void on_read(struct roda_ctx *x, void *arg, struct roda_str bytes, int result)
{
    struct read *read = arg;
    struct reading *reading = read->reading;
    struct log_record record;

    if (!reading) {
        roda_free(x, read);
        return;
    }
    leave_segment(reading, read->base);
    post_item(reading);
    if (result >= 0) {
        if (!read->length)
            keep_block(reading, read->from, bytes);
        record.length = 0;
        result = decode_in(read->from, bytes.ptr, bytes.len, read->position, &record);
        if (result == -EAGAIN) {
            result = read_on(reading, read, record.length);
            if (!result)
                return;
        }
    }
    if (look_back(reading, read, result))
        return;
    if (result < 0)
        result = public_error(reading, read, result);
    answer_and_free(reading, read, &record, result);
}

/* A longer record is read alone. */
static int begin_block(struct read *read, struct roda_file *file)
{
    uint64_t before = read->position - read->base;
    size_t len = read->length;

    if (before > BLOCK_BEFORE)
        before = BLOCK_BEFORE;
    if (read->length)
        before = 0;
    else
        len = (size_t)before + BLOCK_BYTES - BLOCK_BEFORE;
    read->from = read->position - before;
    return roda_file_read(file, read->from - read->base, len, on_read, read);
}

static int begin_reading(struct read *read, struct roda_file *file)
{
    struct log_segment *segment = segment_of_base(read->reading->p, read->base);
    int result;

    if (!segment)
        return -ENOENT;
    result = read->before ? begin_window(read, file) : begin_block(read, file);
    if (result < 0)
        return result;
    read->state = READ_READING;
    segment->readers++;
    segment->used_ms = roda_now_ms(read->reading->x);
    return 0;
}

/* ---- opening ---------------------------------------------------------------------------- */

/* 0: one more may be open. */
static int make_room(struct partition *p)
{
    struct log_segment *oldest = NULL;
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->n_segments; i++) {
        struct log_segment *segment = &p->segments[i];
        n += segment->file || segment->opening;
        if (segment->file && !segment->readers && (!oldest || segment->used_ms < oldest->used_ms))
            oldest = segment;
    }
    if (n < OPEN_MAX)
        return 0;
    if (!oldest)
        return -EBUSY;
    roda_file_close(oldest->file);
    oldest->file = NULL;
    return 0;
}

/* Those that wait for a segment's file. They are taken one by one from the front, since each answer
 * may change the list. */
static void opened(struct reading *reading, uint64_t base, int result)
{
    struct read *read = reading->reads;

    while (reading->p && read) {
        int r = result;
        if (read->state != READ_OPENING || read->base != base) {
            read = read->next;
            continue;
        }
        if (r >= 0)
            r = begin_reading(read, file_of(reading, base));
        if (r < 0) {
            answer_and_free(reading, read, NULL, public_error(reading, read, r));
            read = reading->p ? reading->reads : NULL;
        }
    }
}

/* What was opened is the old file of that name. */
static void open_again(struct reading *reading, uint64_t base)
{
    for (struct read *read = reading->reads; read; read = read->next)
        if (read->state == READ_OPENING && read->base == base)
            read->state = READ_WAITING;
}

static void on_open(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    struct opening *opening = arg;
    struct reading *reading = opening->reading;
    uint64_t base = opening->base;
    struct log_segment *segment = reading ? segment_of_base(reading->p, base) : NULL;

    for (struct opening **at = reading ? &reading->openings : NULL; at && *at; at = &(*at)->next)
        if (*at == opening) {
            *at = opening->next;
            break;
        }
    roda_free(x, opening);
    if (!segment || segment->file || segment->opening > 1) {
        roda_file_close(file);
        if (!segment)
            result = -ENOENT;
    } else {
        segment->file = file;
    }
    if (segment && segment->opening > 1)
        open_again(reading, base);
    if (segment)
        segment->opening = 0;
    if (!reading)
        return;
    post_item(reading);
    reading->posted |= ITEM_RUNNING; /* not freed while opened() runs */
    opened(reading, base, result);
    reading->posted &= ~(uint32_t)ITEM_RUNNING;
    if (!reading->p && !reading->posted)
        roda_free(x, reading);
}

static int begin_opening(struct reading *reading, struct log_segment *segment)
{
    struct opening *opening = roda_alloc(reading->x, sizeof(*opening));
    char path[PATH_BYTES], name[LOG_NAME_BYTES];
    int result;

    if (!opening)
        return -ENOMEM;
    *opening = (struct opening){reading, reading->x, segment->base, reading->openings};
    log_segment_name(reading->p->index, segment->base, name);
    (void)snprintf(path, sizeof(path), "%s/%s", log_conf_of(reading->x)->directory, name);
    result = roda_file_open(reading->x, path, RODA_FILE_READ, on_open, opening);
    if (result < 0) {
        roda_free(reading->x, opening);
        return result;
    }
    reading->openings = opening;
    segment->opening = 1;
    segment->used_ms = roda_now_ms(reading->x);
    return 0;
}

/* ---- the item --------------------------------------------------------------------------- */

/* To the segment's file. 0, or the error that answers it; -EBUSY: it waits on. */
static int go_to_file(struct reading *reading, struct read *read)
{
    struct log_segment *segment = partition_segment(reading->p, read->position);
    struct roda_file *file;
    int result;

    read->base = segment ? segment->base : 0;
    if (!segment || !read->position)
        return -ENOENT;
    if (read->position - segment->base < LOG_HEADER_BYTES)
        return -EILSEQ;
    file = file_of(reading, segment->base);
    if (file)
        return begin_reading(read, file);
    if (!segment->opening) {
        result = make_room(reading->p);
        if (!result)
            result = begin_opening(reading, segment);
        if (result)
            return result;
    }
    read->state = READ_OPENING;
    return 0;
}

static void run_item(struct roda_ctx *x, struct roda_item *item, int result);

static void post_item(struct reading *reading)
{
    if (reading->posted & ITEM_POSTED)
        return;
    reading->posted |= ITEM_POSTED;
    reading->item.run = run_item;
    roda_post(reading->x, reading->x->worker, &reading->item);
}

/* Answers or starts the first read that waits, from *at on. 0: there is none. */
static int take_waiting(struct reading *reading, int cancelled, uint32_t *passed)
{
    struct read *read = reading->reads;
    struct log_record record;
    int result;

    for (uint32_t i = 0; read && (i < *passed || read->state != READ_WAITING); read = read->next)
        i += read->state == READ_WAITING;
    if (!read)
        return 0;
    if (cancelled) {
        answer_and_free(reading, read, NULL, -ECANCELED);
        return 1;
    }
    if (!read->before && find_in_memory(reading, read->position, &record)) {
        roda_count(reading->x, LOG_READS_CACHED, 1);
        answer_and_free(reading, read, &record, 0);
        return 1;
    }
    result = go_to_file(reading, read);
    if (result == -EBUSY)
        ++*passed;
    else if (result < 0)
        answer_and_free(reading, read, NULL, public_error(reading, read, result));
    return 1;
}

static void run_item(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct reading *reading = (struct reading *)(void *)item;
    uint32_t passed = 0, n = 0;

    reading->posted = ITEM_RUNNING;
    while (reading->p && n < TURN_READS && take_waiting(reading, result < 0, &passed))
        n++;
    reading->posted &= ~(uint32_t)ITEM_RUNNING;
    if (!reading->p) {
        if (!reading->posted)
            roda_free(x, reading);
    } else if (n == TURN_READS) {
        post_item(reading);
    }
}

int partition_read(struct partition *p, uint64_t position, partition_read_fn *fn, void *arg)
{
    return partition_read_back(p, 0, position, fn, arg);
}

int partition_read_back(struct partition *p, uint32_t room, uint64_t position,
                        partition_read_fn *fn, void *arg)
{
    struct reading *reading = reading_of(p);
    struct read *read;

    if (reading && reading->ending)
        return -ECANCELED;
    read = reading ? roda_alloc(p->x, sizeof(*read)) : NULL;
    if (!read)
        return -ENOMEM;
    reading->unread = 0;
    read->reading = reading;
    read->position = position;
    read->room = room;
    read->fn = fn;
    read->arg = arg;
    read->at = reading->reads_end;
    *reading->reads_end = read;
    reading->reads_end = &read->next;
    roda_count(p->x, LOG_READS, 1);
    post_item(reading);
    return 0;
}

/* ---- the ends --------------------------------------------------------------------------- */

/* The file of the segment that is `back` from the last; without memory a file of its own will do.
 *  */
static void lend(struct partition *p, uint32_t back, struct roda_file **file, uint64_t *base,
                 struct roda_file *given)
{
    *file = p->n_segments > back ? given : NULL;
    *base = p->n_segments > back ? p->segments[p->n_segments - 1 - back].base : 0;
}

void partition_tail_file(struct partition *p, struct roda_file *file)
{
    struct reading *reading = file ? reading_of(p) : p->reading;

    if (reading)
        lend(p, 0, &reading->tail, &reading->tail_base, file);
}

void partition_old_file(struct partition *p, struct roda_file *file)
{
    struct reading *reading = file ? reading_of(p) : p->reading;

    if (reading)
        lend(p, 1, &reading->old, &reading->old_base, file);
}

void partition_file_changed(struct partition *p, uint64_t base)
{
    struct log_segment *segment = segment_of_base(p, base);

    if (!segment)
        return;
    roda_file_close(segment->file);
    segment->file = NULL;
    if (segment->opening)
        segment->opening = 2;
}

static void cancel_reads(struct reading *reading)
{
    struct read *read;

    while ((read = reading->reads)) {
        if (read->state == READ_READING)
            answer(reading, read, NULL, -ECANCELED); /* on_read() frees it */
        else
            answer_and_free(reading, read, NULL, -ECANCELED);
    }
}

void partition_cache_free(struct partition *p)
{
    struct reading *reading = p->reading;

    if (!reading)
        return;
    reading->ending = 1;
    cancel_reads(reading);
    for (struct opening *o = reading->openings; o; o = o->next)
        o->reading = NULL;
    for (uint32_t i = 0; i < p->n_segments; i++) {
        roda_file_close(p->segments[i].file);
        p->segments[i].file = NULL;
        p->segments[i].opening = p->segments[i].readers = 0;
    }
    for (size_t i = 0; i < NEWEST; i++)
        roda_free(p->x, reading->newest[i].bytes);
    for (size_t i = 0; i < BLOCKS; i++)
        roda_free(p->x, reading->blocks[i].bytes);
    p->reading = NULL;
    reading->p = NULL;
    if (!reading->posted)
        roda_free(p->x, reading);
}
