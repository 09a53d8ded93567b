#include "reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "program.h"
#include "scan.h"

/*
 * A walk over a partition's segments. Each segment goes through the states below; what is found
 * wrong is one step of its own, and the walk goes on behind it.
 *
 *   CLOSED --open, read the next one's front--> HEADER --> BORDER --> RECORDS --end--> CLOSED
 *
 * The file ends in the middle of a record: is that damage? It is not where the file may still be
 * written to, which is so for the newest segment that has begun and for what is prepared behind it;
 * the last write of a broker that was killed looks the same. Everywhere else it is.
 *
 * Following, the walk stays in the newest segment that has begun. When a newer one begins, the old
 * one's last write may not be seen yet, so it is left only when it was looked at once more and had
 * not grown.
 *
 * A broker whose disk works again writes a segment anew, as far as it was whole, and gives the copy
 * the old one's name. What was read of the old file is the same in the copy up to where that was
 * cut off; the walk goes on from there. Until then the old file's end may look damaged: following,
 * that is told only if it is still so a while later.
 */
enum state { CLOSED, HEADER, BORDER, RECORDS };

enum { GROWING_WAIT_NS = 200 * 1000 * 1000, DOUBT_NS = 1000 * 1000 * 1000 };

/* ---- rooms ------------------------------------------------------------------------------ */

static struct room *room_find(const struct reader *r, uint32_t id)
{
    struct room *room = r->n_chains ? r->chains[id & (r->n_chains - 1)] : NULL;

    while (room && room->id != id)
        room = room->next;
    return room;
}

static void rooms_grow(struct reader *r)
{
    size_t n = r->n_chains ? r->n_chains * 2 : 64;
    struct room **chains = memory_get(n * sizeof(struct room *));

    for (size_t i = 0; i < r->n_chains; i++) {
        while (r->chains[i]) {
            struct room *room = r->chains[i], **to = &chains[room->id & (n - 1)];

            r->chains[i] = room->next;
            room->next = *to;
            *to = room;
        }
    }
    free(r->chains);
    r->chains = chains;
    r->n_chains = n;
}

static struct room *room_get(struct reader *r, uint32_t id)
{
    struct room *room = room_find(r, id), **to;

    if (room)
        return room;
    if (r->n_rooms >= r->n_chains)
        rooms_grow(r);
    room = memory_get(sizeof(*room));
    room->id = id;
    room->folded = room->name = RODA_STR("");
    to = &r->chains[id & (r->n_chains - 1)];
    room->next = *to;
    *to = room;
    r->n_rooms++;
    return room;
}

static void room_name(struct room *room, const struct log_room_record *record)
{
    char *name = room->text + record->folded.len;

    memcpy(room->text, record->folded.ptr, record->folded.len);
    memcpy(name, record->name.ptr, record->name.len);
    room->folded = (struct roda_str){room->text, record->folded.len};
    room->name = (struct roda_str){name, record->name.len};
}

static void rooms_free(struct reader *r)
{
    for (size_t i = 0; i < r->n_chains; i++) {
        while (r->chains[i]) {
            struct room *room = r->chains[i];

            r->chains[i] = room->next;
            free(room->own);
            free(room);
        }
    }
    free(r->chains);
}

/* ---- segments --------------------------------------------------------------------------- */

void reader_init(struct reader *r, const char *directory, const struct segment *first, size_t n)
{
    *r = (struct reader){.directory = directory, .partition = first->partition};
    r->window.fd = -1;
    reader_update(r, first, n);
}

void reader_free(struct reader *r)
{
    rooms_free(r);
    front_free(&r->next);
    front_free(&r->newest);
    window_free(&r->window);
    free(r->refusals.items);
    free(r->segments);
}

static int has_begun(const struct reader *r, size_t i)
{
    struct front front;
    int begun;

    if (front_read(r->directory, &r->segments[i], &front))
        return 0;
    begun = front.begun;
    front_free(&front);
    return begun;
}

/* How far from the header on a file's records are those of the one that had its name before, up to
 * where that was read. */
static uint64_t same_up_to(struct window *old, struct window *file, uint64_t upto)
{
    uint64_t offset = LOG_HEADER_BYTES;

    while (offset < upto) {
        struct log_record record;
        const char *bytes, *old_bytes;
        size_t len, old_len;
        uint64_t next;

        if (scan_at(file, offset, &record)) { /* damage that is in both; or the end */
            if (scan_search(file, offset + 1, &next) || next > upto || next >= file->size)
                break;
            offset = next;
            continue;
        }
        if (window_get(file, offset, &bytes, &len) ||
            window_get(old, offset, &old_bytes, &old_len) || old_len < record.length ||
            memcmp(bytes, old_bytes, record.length) != 0)
            break;
        offset += record.length;
    }
    return offset;
}

/* 1: it was replaced, and the walk is in the other file now. */
static int change_file(struct reader *r)
{
    const struct segment *segment = &r->segments[r->at];
    struct window file = {.fd = -1};

    if (r->state == CLOSED || !window_is_replaced(&r->window, r->directory, segment) ||
        window_open(&file, r->directory, segment))
        return 0;
    if (r->state == RECORDS)
        r->offset = same_up_to(&r->window, &file, r->offset);
    window_free(&r->window);
    r->window = file;
    r->waited = r->cut_told = 0;
    r->doubted = 0;
    return 1;
}

void reader_update(struct reader *r, const struct segment *first, size_t n)
{
    size_t old = r->n_segments;

    for (size_t i = 0; i < n; i++) {
        if (r->n_segments && first[i].base <= r->segments[r->n_segments - 1].base) {
            for (size_t j = 0; j < old; j++)
                if (r->segments[j].base == first[i].base)
                    r->segments[j].bytes = first[i].bytes;
            continue;
        }
        r->segments = memory_resize(r->segments, (r->n_segments + 1) * sizeof(*r->segments));
        r->segments[r->n_segments++] = first[i];
    }
    for (size_t i = r->n_segments; i > r->begun; i--) {
        if (has_begun(r, i - 1)) {
            r->begun = i;
            break;
        }
    }
    if (!change_file(r) && r->window.fd >= 0) {
        uint64_t size = r->window.size;

        if (!window_refresh(&r->window) && r->window.size != size)
            r->waited = 0;
    }
}

/* Segments behind the one being read say what was refused. One that cannot be read is told of when
 * its turn comes. */
static void read_fronts(struct reader *r)
{
    if (r->n_fronts <= r->at)
        r->n_fronts = r->at + 1;
    while (r->n_fronts < r->begun) {
        const struct segment *segment = &r->segments[r->n_fronts++];
        struct front front;

        if (front_read(r->directory, segment, &front))
            continue;
        refusals_add(&r->refusals, &r->newest, &front, segment->base);
        front_free(&r->newest);
        r->newest = front;
    }
}

void reader_since(struct reader *r, int64_t since_ns)
{
    for (size_t i = r->begun; i > 1; i--) {
        struct front front;
        int older;

        if (front_read(r->directory, &r->segments[i - 1], &front))
            return;
        older = front.whole && front.latest_ns < since_ns;
        front_free(&front);
        if (older) {
            r->at = i - 1;
            return;
        }
    }
}

const char *reader_error(int error)
{
    return error == -ENOTSUP ? "a segment of another version of the format" : strerror(-error);
}

uint64_t reader_bytes(const struct reader *r)
{
    uint64_t bytes = 0;

    for (size_t i = r->at; i < r->n_segments; i++)
        bytes += r->segments[i].bytes;
    return bytes;
}

static enum reader_step damaged(struct reader *r, uint64_t from, uint64_t to, const char *text)
{
    r->damage = text;
    r->damage_from = from;
    r->damage_to = to;
    r->damages++;
    return READER_DAMAGE;
}

static void leave(struct reader *r)
{
    window_close(&r->window);
    front_free(&r->next);
    r->before = r->header;
    r->before_fine = r->header_fine;
    r->state = CLOSED;
    r->waited = r->cut_told = 0;
    r->at++;
}

static enum reader_step failed(struct reader *r, int error)
{
    r->error = error;
    r->damages++;
    return READER_FAILED;
}

/* May it still be written to? */
static int may_grow(const struct reader *r)
{
    return r->at + 1 >= r->begun;
}

/* 0: it is open. 1: it is gone, as the oldest may be. */
static int enter(struct reader *r)
{
    int error = window_open(&r->window, r->directory, &r->segments[r->at]);

    log_segment_name(r->partition, r->segments[r->at].base, r->file);
    if (error == -ENOENT) {
        leave(r);
        r->before_fine = 0;
        return 1;
    }
    if (error)
        return error;
    if (r->at + 1 < r->n_segments)
        (void)front_read(r->directory, &r->segments[r->at + 1], &r->next);
    r->offset = 0;
    r->state = HEADER;
    return 0;
}

/* ---- the header, and where the segment lies --------------------------------------------- */

/* 0: go on; 1: *ret_step is to be told; 2: it is not complete yet. */
static int read_header(struct reader *r, enum reader_step *ret_step)
{
    const struct segment *segment = &r->segments[r->at];
    const char *bytes;
    size_t len;
    int error = window_get(&r->window, 0, &bytes, &len);

    r->header_fine = 0;
    if (!error && len < LOG_HEADER_BYTES && may_grow(r))
        return 2;
    r->state = BORDER;
    r->offset = LOG_HEADER_BYTES;
    if (!error)
        error = log_header_decode(bytes, len, &r->header);
    if (error == -EILSEQ) {
        *ret_step = damaged(r, 0, len < LOG_HEADER_BYTES ? len : LOG_HEADER_BYTES,
                            "the header of the file");
        return 1;
    }
    if (error) {
        *ret_step = failed(r, error);
        leave(r);
        return 1;
    }
    if (r->header.partition != segment->partition || r->header.base != segment->base) {
        *ret_step = damaged(r, 0, LOG_HEADER_BYTES, "the header says that it is another segment");
        return 1;
    }
    r->header_fine = 1;
    return 0;
}

static int read_border(struct reader *r, enum reader_step *ret_step)
{
    uint64_t expected = r->before.base + r->before.segment_bytes;

    r->state = RECORDS;
    if (!r->before_fine || expected == r->segments[r->at].base ||
        r->before.base + r->segments[r->at - 1].bytes == r->segments[r->at].base)
        return 0;
    (void)snprintf(r->damage_text, sizeof(r->damage_text),
                   "a segment is missing before this one: positions %016" PRIx64 " to %016" PRIx64,
                   expected, r->segments[r->at].base);
    *ret_step = damaged(r, 0, 0, r->damage_text);
    return 1;
}

/* ---- records ---------------------------------------------------------------------------- */

static enum reader_step found(struct reader *r)
{
    r->record_offset = r->offset;
    r->position = r->segments[r->at].base + r->offset;
    r->offset += r->record.length;
    r->bytes_read += r->record.length;
    r->room = NULL;
    r->refused = 0;
    if (r->record.type == LOG_ROOM) {
        r->room = room_get(r, r->record.room.room);
        room_name(r->room, &r->record.room);
    } else if (r->record.type == LOG_MESSAGE) {
        r->room = room_find(r, r->record.message.room);
        r->refused = refusals_have(&r->refusals, &r->next, &r->record.message, r->position);
    }
    return READER_RECORD;
}

/* A segment that is finished may have been so for a moment only. */
static int has_grown(struct reader *r)
{
    const struct timespec pause = {0, GROWING_WAIT_NS};
    uint64_t size = r->window.size;

    if (r->at + 2 != r->begun || r->waited)
        return 0;
    r->waited = 1;
    (void)nanosleep(&pause, NULL);
    return !window_refresh(&r->window) && r->window.size != size;
}

/* The newest segment may have become an older one while it was read: what was written to it since
 * then belongs before the next one. A segment begins when all of the one before it is written. */
static int has_more(struct reader *r)
{
    uint64_t size = r->window.size;

    if (r->follow || r->at + 1 != r->begun || r->begun == r->n_segments || !has_begun(r, r->begun))
        return 0;
    r->begun++;
    return change_file(r) || (!window_refresh(&r->window) && r->window.size != size);
}

/* Whether it is to be waited for that the broker mends the end of what it writes to. */
static int is_in_doubt(struct reader *r)
{
    struct timespec now;
    int64_t now_ns;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    if (r->doubted != r->offset) {
        r->doubted = r->offset;
        r->doubted_ns = now_ns;
    }
    r->window.len = 0; /* the file is to be read again */
    return now_ns - r->doubted_ns < DOUBT_NS;
}

/* 0: read on; 1: *ret_step is to be told; 2: the rest is being written. */
static int behind_damage(struct reader *r, int cut, enum reader_step *ret_step)
{
    uint64_t from = r->offset, to;
    enum scan_rest rest = SCAN_DAMAGED;
    int error;

    if (cut && (has_grown(r) || has_more(r)))
        return 0;
    error = scan_search(&r->window, from + 1, &to);
    if (!error && to == r->window.size && may_grow(r))
        error = scan_rest(&r->window, from, &rest);
    if (error) {
        *ret_step = failed(r, error);
        leave(r);
        return 1;
    }
    if (rest == SCAN_CUT && (r->follow || r->cut_told))
        return 2;
    if (r->follow && to == r->window.size && may_grow(r) && is_in_doubt(r))
        return 2;
    if (rest == SCAN_CUT) {
        r->cut_told = 1;
        r->damage_from = from;
        r->damage_to = to;
        *ret_step = READER_CUT;
        return 1;
    }
    r->offset = to;
    r->bytes_read += to - from;
    *ret_step = damaged(r, from, to,
                        to < r->window.size ? "what stands here is no record"
                        : may_grow(r) ? "what stands here is no record, up to the end of the file; "
                                        "the broker cuts it off when it starts"
                                      : "what stands here is no record, up to the end of the file");
    return 1;
}

/* 0: go on; 1: *ret_step is to be told; 2: the end of what there is. */
static int read_record(struct reader *r, enum reader_step *ret_step)
{
    int error = scan_at(&r->window, r->offset, &r->record);

    if (!error) {
        *ret_step = found(r);
        return 1;
    }
    if (error == -ENODATA)
        return has_more(r) ? 0 : 2;
    if (error == -EAGAIN || error == -EILSEQ)
        return behind_damage(r, error == -EAGAIN, ret_step);
    *ret_step = failed(r, error);
    leave(r);
    return 1;
}

/* At the end of a file: 1: on to the next one. */
static int may_leave(struct reader *r)
{
    if (r->at + 1 >= r->n_segments)
        return 0;
    if (!r->follow)
        return 1;
    if (may_grow(r))
        return 0;
    return r->waited++ > 0 || r->at + 2 < r->begun;
}

enum reader_step reader_next(struct reader *r)
{
    enum reader_step step = READER_END;

    read_fronts(r);
    while (r->at < r->n_segments) {
        int told = 0;

        if (r->state == CLOSED) {
            int error = enter(r);

            if (error < 0) {
                step = failed(r, error);
                leave(r);
                return step;
            }
            if (error)
                continue;
        }
        if (r->state == HEADER)
            told = read_header(r, &step);
        else if (r->state == BORDER)
            told = read_border(r, &step);
        else if (r->state == RECORDS)
            told = read_record(r, &step);
        if (told == 1)
            return step;
        if (told == 2 && !may_leave(r))
            return READER_END;
        if (told == 2)
            leave(r);
    }
    return READER_END;
}
