#include "found.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * From the files of a partition to its rooms, at the start of the broker and after storage failed.
 *
 *   LIST    the directory; the files of this partition, by base. Copies that were not finished are
 *           removed
 *   LOOK    at the header of each: age and size are for retention
 *   SEARCH  from the newest file backwards for one with a whole snapshot, reading it:
 *             LOG_OPEN reached, nothing damaged before  -> READ goes on in it
 *             no LOG_OPEN, nothing but rooms in it      -> it was begun when the broker ended; if
 *                                                          it is the newest, it is removed
 *             a damaged snapshot with good records behind, or one that counts in what was refused
 *                                                       -> an older one must serve
 *   READ    on to the end of the newest file (found.c makes rooms of the records)
 *   SEAL    at the start: what is torn is cut off, and the newest file is synced; unless it ends
 *           with LOG_END and is sound, the one before it as well, so that nothing relies on what is
 *           not on disk
 *   COPY    healing, in place of SEAL: each file that reaches beyond what was surely synced is
 *           written anew, as far as it is whole: into NAME.copy, which is synced and then renamed
 *   the result
 *
 * Why COPY: a sync that failed leaves pages that count as clean and are not on disk. The next sync
 * of that file does not write them, says that all is well, and proves nothing. As long as the page
 * cache has them they can be read; so they are written again, elsewhere. Positions stay, and
 * whoever has the old file open for reading is told. A copy that fails changes nothing, is removed,
 * and is made anew when healing is tried again. A broker that is killed between such a sync and its
 * healing leaves pages of which the next one cannot know: what it finds is then only as sure as the
 * page cache.
 *
 * Each step is one request to the core, whose answer takes the next step: exactly one answer is
 * on its way at any time, so after recovery_cancel() it is that answer that frees the memory.
 *
 * A piece of a file is read from the beginning of a record on. The record that does not fit its end
 * is simply read again with the next piece, so nothing is carried over; a piece is larger than any
 * record. Where bytes do not decode, each following byte is tried as the beginning of a record.
 * User text cannot hold a record in disguise, since it has no byte 0. If nothing good follows, the
 * place is a torn tail: it is cut. Else it is damage: nothing is cut there, it is reported, and
 * reading goes on behind it.
 *
 * A damaged header hides nothing, as name and base say where its records stand; it is reported.
 * A file that says it is another one is nobody's business: reported, and left alone.
 */

enum {
    PIECE_BYTES = 256 << 10,
    BEGUN_BYTES_MAX = 1 << 20, /* a larger file was in use, whatever it looks like now */
    PATH_BYTES = 4096,
};

static const char copy_suffix[] = ".copy";

struct found_file {
    uint64_t base, bytes;
    uint64_t segment_bytes; /* 0: not known */
    int64_t created_ns;
    uint32_t damaged; /* its header */
    uint32_t foreign;
};

struct recovery {
    struct partition *p; /* not to be touched once it is cancelled */
    struct roda_ctx *x;
    uint32_t index;
    recovered_fn *fn;
    uint32_t cancelled;

    struct found_file *files; /* by base */
    uint32_t n_files, files_room;
    uint64_t beyond; /* no file reaches so far, foreign ones included */
    uint32_t at;     /* the file at hand */
    struct roda_file *file;
    uint64_t synced;        /* healing: what was surely on disk */
    struct roda_file *copy; /* COPY: of the file at hand, up to offset */
    int copy_error;
    uint64_t *leftovers; /* bases of copies that were not finished */
    uint32_t n_leftovers;

    uint32_t searching; /* 1: SEARCH */
    uint32_t opened;    /* in the file at hand LOG_OPEN was read */
    uint32_t spoilt;    /* SEARCH: damaged before LOG_OPEN */
    uint64_t offset;    /* the next record */
    uint32_t lost;      /* 1: offset runs through a place that does not decode, from: */
    uint64_t lost_from;
    uint32_t lost_length;  /* what its first bytes say about the length of a record */
    uint32_t contradicted; /* 1: something in the file at hand, and that was said */
    uint64_t cut;          /* so much of the newest file remains; 0: nothing is to be cut */
    struct found found;
};

static void recovery_free(struct recovery *r)
{
    roda_file_close(r->file);
    roda_file_close(r->copy);
    found_clear(&r->found);
    roda_free(r->x, r->files);
    roda_free(r->x, r->leftovers);
    roda_free(r->x, r);
}

/* Begins each answer. 1: nobody waits for it any more. */
static int is_gone(struct recovery *r)
{
    if (!r->cancelled)
        return 0;
    recovery_free(r);
    return 1;
}

static void path_of(const struct recovery *r, uint32_t at, char to[PATH_BYTES])
{
    char name[LOG_NAME_BYTES];

    log_segment_name(r->index, r->files[at].base, name);
    (void)snprintf(to, PATH_BYTES, "%s/%s", log_conf_of(r->x)->directory, name);
}

static void copy_path_of(const struct recovery *r, uint64_t base, char to[PATH_BYTES])
{
    char name[LOG_NAME_BYTES];

    log_segment_name(r->index, base, name);
    (void)snprintf(to, PATH_BYTES, "%s/%s%s", log_conf_of(r->x)->directory, name, copy_suffix);
}

static void say(const struct recovery *r, uint32_t level, uint32_t at, const char *fmt, ...)
    RODA_PRINTF(4, 5);

static void say(const struct recovery *r, uint32_t level, uint32_t at, const char *fmt, ...)
{
    char name[LOG_NAME_BYTES], text[512];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    log_segment_name(r->index, r->files[at].base, name);
    roda_log(r->x, level, "%s: %s", name, text);
}

/* Where the next one's positions may begin. */
static uint64_t reach(const struct found_file *file)
{
    return file->base + (file->segment_bytes > file->bytes ? file->segment_bytes : file->bytes);
}

/* ---- the result ------------------------------------------------------------------------- */

/* Segments that are open for reading stay so. */
static int make_segments(struct recovery *r)
{
    struct partition *p = r->p;
    uint32_t room = r->n_files + 8, n = 0;
    struct log_segment *segments = roda_alloc(r->x, room * sizeof(*segments));

    if (!segments)
        return -ENOMEM;
    for (uint32_t i = 0; i < r->n_files; i++) {
        struct log_segment *old = partition_segment(p, r->files[i].base);
        if (old && old->base == r->files[i].base) {
            segments[n] = *old;
            old->file = NULL;
        }
        segments[n].base = r->files[i].base;
        segments[n].bytes = r->files[i].bytes;
        segments[n++].created_ns = r->files[i].created_ns;
    }
    for (uint32_t i = 0; i < p->n_segments; i++)
        roda_file_close(p->segments[i].file);
    roda_free(r->x, p->segments);
    p->segments = segments;
    p->n_segments = n;
    p->segments_room = room;
    return 0;
}

static void describe(const struct recovery *r, struct recovered *ret)
{
    const struct found_file *newest = r->n_files ? &r->files[r->n_files - 1] : NULL;

    *ret = (struct recovered){.clean = !newest,
                              .next_base = r->beyond,
                              .voids = r->found.voids,
                              .n_voids = r->found.n_voids};
    if (!newest)
        return;
    ret->clean = r->found.ended && !r->found.damages && !newest->damaged;
    ret->end = newest->base + newest->bytes;
    ret->segment_bytes = newest->segment_bytes;
}

static void finish(struct recovery *r, int result)
{
    struct partition *p = r->p;
    struct recovered found = {0};

    if (!result)
        result = found_apply(&r->found);
    if (!result)
        result = make_segments(r);
    if (!result)
        describe(r, &found);
    else if (result == -ENOMEM)
        roda_log(r->x, RODA_LOG_ERROR, "partition %u cannot be read: out of memory", r->index);
    roda_count(r->x, LOG_SEGMENTS, p->n_segments);
    p->recovery = NULL;
    r->fn(p, &found, result);
    recovery_free(r);
}

static void fail(struct recovery *r, const char *what, int result)
{
    if (result != -ENOMEM && result != -ECANCELED)
        say(r, RODA_LOG_ERROR, r->at,
            "cannot be %s: %s; see to the disk and to the rights on the file, or move it out of "
            "%s: then what it holds is lost, and numbers may be used twice",
            what, strerror(-result), log_conf_of(r->x)->directory);
    finish(r, result);
}

static void open_file(struct recovery *r, uint32_t mode, roda_open_fn *fn)
{
    char path[PATH_BYTES];
    int result;

    path_of(r, r->at, path);
    result = roda_file_open(r->x, path, mode, fn, r);
    if (result < 0)
        fail(r, "opened", result);
}

static void close_file(struct recovery *r)
{
    roda_file_close(r->file);
    r->file = NULL;
}

/* ---- SEAL ------------------------------------------------------------------------------- */

static void seal_next(struct recovery *r);

static void on_synced(struct roda_ctx *x, void *arg, int result)
{
    struct recovery *r = arg;

    (void)x;
    if (is_gone(r))
        return;
    close_file(r);
    if (result < 0) {
        fail(r, "synced", result);
        return;
    }
    r->at++;
    seal_next(r);
}

static void say_cut(const struct recovery *r)
{
    say(r, RODA_LOG_WARNING, r->at, "cut %" PRIu64 " bytes of a record that was not written whole",
        r->files[r->at].bytes - r->cut);
}

static void on_cut(struct roda_ctx *x, void *arg, int result)
{
    struct recovery *r = arg;

    (void)x;
    if (is_gone(r))
        return;
    if (result < 0) {
        fail(r, "cut off behind its last whole record", result);
        return;
    }
    say_cut(r);
    r->files[r->at].bytes = r->cut;
    result = roda_file_sync(r->file, on_synced, r);
    if (result < 0)
        fail(r, "synced", result);
}

static void on_open_to_seal(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    struct recovery *r = arg;
    int cuts;

    (void)x;
    r->file = file;
    if (is_gone(r))
        return;
    if (result < 0) {
        fail(r, "opened for writing", result);
        return;
    }
    cuts = r->cut && r->at + 1 == r->n_files;
    result =
        cuts ? roda_file_truncate(file, r->cut, on_cut, r) : roda_file_sync(file, on_synced, r);
    if (result < 0)
        fail(r, cuts ? "cut off behind its last whole record" : "synced", result);
}

static void seal_next(struct recovery *r)
{
    if (r->at == r->n_files)
        finish(r, 0);
    else
        open_file(r, RODA_FILE_READ | RODA_FILE_APPEND, on_open_to_seal);
}

/* ---- COPY ------------------------------------------------------------------------------- */

static void copy_next(struct recovery *r);
static void copy_piece(struct recovery *r);

static void on_copy_removed(struct roda_ctx *x, void *arg, int result)
{
    struct recovery *r = arg;

    (void)x;
    (void)result; /* what remains is removed when it is tried again */
    if (!is_gone(r))
        finish(r, r->copy_error);
}

/* What there is of the copy goes at once: where several partitions heal on a small disk, none could
 * end its own beside the pieces of the others. */
static void copy_failed(struct recovery *r, int result)
{
    char path[PATH_BYTES];

    if (result != -ENOMEM && result != -ECANCELED)
        say(r, RODA_LOG_ERROR, r->at,
            "cannot be written anew, which it must be as its last sync is in doubt: %s; make room "
            "in %s or mend the disk: it is tried again by itself",
            strerror(-result), log_conf_of(r->x)->directory);
    roda_file_close(r->copy);
    r->copy = NULL;
    r->copy_error = result;
    copy_path_of(r, r->files[r->at].base, path);
    if (roda_file_remove(r->x, path, on_copy_removed, r))
        finish(r, result);
}

/* Whether the rename has happened is not known if it failed: it is as good as the other file. */
static void on_renamed(struct roda_ctx *x, void *arg, int result)
{
    struct recovery *r = arg;

    (void)x;
    if (is_gone(r))
        return;
    partition_file_changed(r->p, r->files[r->at].base);
    if (result < 0) {
        copy_failed(r, result);
        return;
    }
    if (r->cut && r->at + 1 == r->n_files)
        say_cut(r);
    say(r, RODA_LOG_NOTICE, r->at, "written anew, as its last sync had failed or was under way");
    r->files[r->at].bytes = r->offset;
    r->at++;
    copy_next(r);
}

static void on_copied(struct roda_ctx *x, void *arg, int result)
{
    struct recovery *r = arg;
    char from[PATH_BYTES], to[PATH_BYTES];

    (void)x;
    if (is_gone(r))
        return;
    roda_file_close(r->copy);
    r->copy = NULL;
    close_file(r);
    copy_path_of(r, r->files[r->at].base, from);
    path_of(r, r->at, to);
    if (result >= 0)
        result = roda_file_rename(r->x, from, to, on_renamed, r);
    if (result < 0)
        copy_failed(r, result);
}

static void on_drained(struct roda_ctx *x, void *arg, int result)
{
    struct recovery *r = arg;

    (void)x;
    if (is_gone(r))
        return;
    if (result < 0)
        copy_failed(r, result);
    else
        copy_piece(r);
}

static void on_piece_to_copy(struct roda_ctx *x, void *arg, struct roda_str bytes, int result)
{
    struct recovery *r = arg;
    int64_t offset = result;

    (void)x;
    if (is_gone(r))
        return;
    if (result >= 0 && bytes.len)
        offset = roda_file_append(r->copy, bytes);
    if (offset == -ENOBUFS) { /* the piece is read again when it is taken */
        result = roda_file_sync(r->copy, on_drained, r);
    } else if (offset < 0) {
        result = (int)offset;
    } else if (bytes.len) {
        r->offset += bytes.len;
        copy_piece(r);
        return;
    } else if (r->at + 1 == r->n_files) {
        result = -EIO; /* it was longer a moment ago */
    } else {
        result = roda_file_sync(r->copy, on_copied, r);
    }
    if (result < 0)
        copy_failed(r, result);
}

/* The newest as far as it is whole; an older one, whose end may not have been read, all of it. */
static void copy_piece(struct recovery *r)
{
    const struct found_file *file = &r->files[r->at];
    uint64_t left = PIECE_BYTES;
    int result;

    if (r->at + 1 == r->n_files)
        left = (r->cut ? r->cut : file->bytes) - r->offset;
    if (left > PIECE_BYTES)
        left = PIECE_BYTES;
    result = left ? roda_file_read(r->file, r->offset, (size_t)left, on_piece_to_copy, r)
                  : roda_file_sync(r->copy, on_copied, r);
    if (result < 0)
        copy_failed(r, result);
}

static void on_open_copy(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    struct recovery *r = arg;

    (void)x;
    r->copy = file;
    if (is_gone(r))
        return;
    if (result >= 0 && roda_file_size(file))
        result = -EEXIST; /* a leftover that could not be removed */
    if (result < 0) {
        copy_failed(r, result);
        return;
    }
    r->offset = 0;
    copy_piece(r);
}

static void on_open_to_copy(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    struct recovery *r = arg;
    char path[PATH_BYTES];

    (void)x;
    r->file = file;
    if (is_gone(r))
        return;
    copy_path_of(r, r->files[r->at].base, path);
    if (result >= 0)
        result = roda_file_open(r->x, path, RODA_FILE_READ | RODA_FILE_APPEND, on_open_copy, r);
    if (result < 0)
        copy_failed(r, result);
}

static int is_in_doubt(const struct recovery *r, uint32_t at)
{
    return r->files[at].base + r->files[at].bytes > r->synced || (r->cut && at + 1 == r->n_files);
}

static void copy_next(struct recovery *r)
{
    while (r->at < r->n_files && !is_in_doubt(r, r->at))
        r->at++;
    if (r->at == r->n_files)
        finish(r, 0);
    else
        open_file(r, RODA_FILE_READ, on_open_to_copy);
}

/* ---- the end of reading ----------------------------------------------------------------- */

/* r->at is the newest, and read to its end. After a clean end it is synced as well: LOG_END may
 * have been the last that was written before the power failed. */
static void seal(struct recovery *r)
{
    if (r->found.healing) {
        r->at = 0;
        copy_next(r);
        return;
    }
    if (r->at && !(r->found.ended && !r->found.damages))
        r->at--;
    seal_next(r);
}

/* ---- SEARCH and READ -------------------------------------------------------------------- */

static void read_file(struct recovery *r);
static void read_piece(struct recovery *r);

static void on_removed(struct roda_ctx *x, void *arg, int result)
{
    struct recovery *r = arg;

    (void)x;
    if (is_gone(r))
        return;
    if (result < 0 && result != -ENOENT) {
        fail(r, "removed, which was only begun", result);
        return;
    }
    say(r, RODA_LOG_NOTICE, r->at,
        "removed: it was begun when the broker ended, and holds no message");
    if (r->beyond == reach(&r->files[r->at]))
        r->beyond = r->files[r->at].base;
    r->n_files--;
    found_clear(&r->found);
    if (!r->n_files) {
        finish(r, 0);
        return;
    }
    r->at--;
    read_file(r);
}

static void remove_begun(struct recovery *r)
{
    char path[PATH_BYTES];
    int result;

    path_of(r, r->at, path);
    result = roda_file_remove(r->x, path, on_removed, r);
    if (result < 0)
        fail(r, "removed, which was only begun", result);
}

/* Its snapshot does not serve: the next older one, or else all that there is. */
static void search_on(struct recovery *r)
{
    found_clear(&r->found);
    if (r->at)
        r->at--;
    else
        r->searching = 0;
    read_file(r);
}

static void damage_ended(struct recovery *r)
{
    uint64_t bytes = r->offset - r->lost_from;

    r->lost = 0;
    if (r->searching)
        return;
    say(r, RODA_LOG_ERROR, r->at,
        "%" PRIu64 " bytes from %" PRIu64 " on are damaged; what stood there is lost, what follows "
        "is used; \"roda-log verify\" tells more",
        bytes, r->lost_from);
    found_damage(&r->found, bytes);
}

/* A run that was broken off leaves the beginning of a record, or zeros. One that is there in its
 * whole length and does not decode may have been good once: then its number was used. So may one of
 * an impossible length. (A record that was good, whose length alone was damaged so that it reaches
 * beyond the end, cannot be told from one that was broken off.) */
static void torn_tail(struct recovery *r)
{
    uint64_t bytes = r->offset - r->lost_from;

    r->cut = r->lost_from;
    r->found.ended = 0;
    if (r->lost_length && (r->lost_length <= bytes || r->lost_length > LOG_RECORD_MAX))
        found_damage(&r->found, bytes);
}

static void file_ended(struct recovery *r)
{
    int newest = r->at + 1 == r->n_files;

    close_file(r);
    if (r->searching) {
        if (newest && r->offset <= BEGUN_BYTES_MAX)
            remove_begun(r);
        else
            search_on(r);
        return;
    }
    if (r->lost && !newest)
        damage_ended(r);
    else if (r->lost)
        torn_tail(r);
    if (newest) {
        r->files[r->at].bytes = r->offset;
        seal(r);
    } else {
        r->at++;
        read_file(r);
    }
}

/* While SEARCH. 0: the file does not serve. */
static int search_record(struct recovery *r, const struct log_record *record)
{
    if (found_counts_refused(&r->found, record))
        return 0;
    if (record->type == LOG_ROOM)
        return 1;
    if (r->spoilt || record->type != LOG_OPEN)
        return 0;
    r->searching = 0;
    return 1;
}

/* 0, 1: no use in reading on, or -ENOMEM. */
static int take_record(struct recovery *r, const struct log_record *record)
{
    int result;

    if (r->lost)
        damage_ended(r);
    if (r->searching && !search_record(r, record))
        return 1;
    if (r->searching && r->spoilt)
        return 0;
    result = found_take(&r->found, r->files[r->at].base + r->offset, record);
    if (result != -EILSEQ)
        return result;
    if (!r->contradicted)
        say(r, RODA_LOG_ERROR, r->at,
            "the record at %" PRIu64
            " contradicts what stands before it; it and others like it are "
            "left out",
            r->offset);
    r->contradicted = 1;
    return 0;
}

/* On to the next byte that a record may begin with; not with four zeros, of which holes are made.
 *  */
static size_t skip_bad(struct recovery *r, const char *bytes, size_t len)
{
    static const char zeros[4];
    size_t n = 1;

    if (!r->lost) {
        r->lost = 1;
        r->lost_from = r->offset;
        r->lost_length = 0;
        for (size_t i = 0; i < sizeof(zeros) && len >= sizeof(zeros); i++)
            r->lost_length |= (uint32_t)(unsigned char)bytes[i] << (8 * i);
        r->spoilt = 1;
    }
    while (n + sizeof(zeros) <= len && !memcmp(bytes + n, zeros, sizeof(zeros)))
        n++;
    return n;
}

/* Goes on from r->offset as far as the bytes reach; as take_record(). */
static int take_piece(struct recovery *r, struct roda_str bytes)
{
    uint64_t begin = r->offset;
    int ends = bytes.len < PIECE_BYTES;
    struct log_record record;

    while (r->offset - begin < bytes.len) {
        const char *at = bytes.ptr + (r->offset - begin);
        size_t left = bytes.len - (size_t)(r->offset - begin);
        int result = log_record_decode(at, left, &record);
        if (result == -EAGAIN && !ends && left < PIECE_BYTES)
            break;
        if (!result && r->lost && !r->searching &&
            !found_fits(&r->found, r->files[r->at].base + r->offset, &record))
            result = -EILSEQ;
        if (result) {
            r->offset += skip_bad(r, at, left);
            continue;
        }
        result = take_record(r, &record);
        if (result)
            return result;
        r->offset += record.length;
    }
    return 0;
}

static void on_piece(struct roda_ctx *x, void *arg, struct roda_str bytes, int result)
{
    struct recovery *r = arg;

    (void)x;
    if (is_gone(r))
        return;
    if (result < 0) {
        fail(r, "read", result);
        return;
    }
    result = take_piece(r, bytes);
    if (result < 0)
        finish(r, result);
    else if (result) {
        close_file(r);
        search_on(r);
    } else if (bytes.len < PIECE_BYTES)
        file_ended(r);
    else
        read_piece(r);
}

static void read_piece(struct recovery *r)
{
    int result = roda_file_read(r->file, r->offset, PIECE_BYTES, on_piece, r);

    if (result < 0)
        fail(r, "read", result);
}

static void on_open_to_read(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    struct recovery *r = arg;

    (void)x;
    r->file = file;
    if (is_gone(r))
        return;
    if (result < 0) {
        fail(r, "opened", result);
        return;
    }
    read_piece(r);
}

static void read_file(struct recovery *r)
{
    r->offset = LOG_HEADER_BYTES;
    r->lost = r->spoilt = r->contradicted = 0;
    open_file(r, RODA_FILE_READ, on_open_to_read);
}

/* ---- LIST and LOOK ---------------------------------------------------------------------- */

static void look_at_next(struct recovery *r);

/* What a damaged header hides comes from the neighbours. */
static void mend_headers(struct recovery *r)
{
    int64_t created_ns = 0;

    for (uint32_t i = 0; i < r->n_files; i++) {
        if (!r->files[i].segment_bytes)
            r->files[i].segment_bytes = (uint64_t)log_conf_of(r->x)->segment_bytes;
        if (!r->files[i].created_ns)
            r->files[i].created_ns = created_ns;
        created_ns = r->files[i].created_ns;
    }
    created_ns = roda_time_ns(r->x);
    for (uint32_t i = r->n_files; i-- > 0;) {
        if (!r->files[i].created_ns)
            r->files[i].created_ns = created_ns;
        created_ns = r->files[i].created_ns;
    }
}

/* Files that are none of ours are left out from here on; but their names are taken. */
static void looked(struct recovery *r)
{
    uint32_t n = 0;

    mend_headers(r);
    for (uint32_t i = 0; i < r->n_files; i++) {
        if (reach(&r->files[i]) > r->beyond)
            r->beyond = reach(&r->files[i]);
        if (!r->files[i].foreign)
            r->files[n++] = r->files[i];
    }
    r->n_files = n;
    if (!n) {
        finish(r, 0);
        return;
    }
    r->at = n - 1;
    r->searching = 1;
    read_file(r);
}

static int judge_header(struct recovery *r, struct roda_str bytes)
{
    struct found_file *file = &r->files[r->at];
    struct log_header header;
    int result = log_header_decode(bytes.ptr, bytes.len, &header);

    if (result == -ENOTSUP && r->at + 1 == r->n_files) {
        say(r, RODA_LOG_ERROR, r->at,
            "it is of another version of roda's log; run the version that wrote it, or set another "
            "log directory");
        return result;
    }
    if (result == -ENOTSUP ||
        (!result && (header.partition != r->index || header.base != file->base))) {
        file->foreign = 1;
        say(r, RODA_LOG_ERROR, r->at, "it is left alone: %s",
            result ? "it is of another version of roda's log"
                   : "its header says it is another one; give it its old name back");
    } else if (result) {
        file->damaged = 1;
        if (bytes.len == LOG_HEADER_BYTES)
            say(r, RODA_LOG_ERROR, r->at, "its header is damaged; its records are used");
    } else {
        file->segment_bytes = header.segment_bytes;
        file->created_ns = header.created_ns;
    }
    return 0;
}

static void on_header(struct roda_ctx *x, void *arg, struct roda_str bytes, int result)
{
    struct recovery *r = arg;

    (void)x;
    if (is_gone(r))
        return;
    close_file(r);
    if (result < 0) {
        fail(r, "read", result);
        return;
    }
    result = judge_header(r, bytes);
    if (result < 0) {
        finish(r, result);
        return;
    }
    r->at++;
    look_at_next(r);
}

static void on_open_to_look(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    struct recovery *r = arg;

    (void)x;
    r->file = file;
    if (is_gone(r))
        return;
    if (result == -ENOENT) { /* retention was faster */
        r->n_files--;
        memmove(&r->files[r->at], &r->files[r->at + 1], (r->n_files - r->at) * sizeof(*r->files));
        look_at_next(r);
        return;
    }
    if (result >= 0) {
        r->files[r->at].bytes = roda_file_size(file);
        result = roda_file_read(file, 0, LOG_HEADER_BYTES, on_header, r);
    }
    if (result < 0)
        fail(r, "opened", result);
}

static void look_at_next(struct recovery *r)
{
    while (r->at < r->n_files && r->files[r->at].created_ns)
        r->at++; /* known from before */
    if (r->at < r->n_files)
        open_file(r, RODA_FILE_READ, on_open_to_look);
    else
        looked(r);
}

static int by_base(const void *a, const void *b)
{
    const struct found_file *x = a, *y = b;

    return x->base < y->base ? -1 : x->base > y->base;
}

static int add_file(struct recovery *r, uint64_t base)
{
    if (r->n_files == r->files_room) {
        uint32_t room = r->files_room ? r->files_room * 2 : 16;
        struct found_file *files = roda_realloc(r->x, r->files, room * sizeof(*files));
        if (!files)
            return -ENOMEM;
        r->files = files;
        r->files_room = room;
    }
    r->files[r->n_files++] = (struct found_file){.base = base};
    return 0;
}

/* While healing most segments are known; the newest may have changed. */
static void remember(struct recovery *r)
{
    for (uint32_t i = 0; i + 1 < r->n_files; i++) {
        const struct log_segment *segment = partition_segment(r->p, r->files[i].base);
        if (!segment || segment->base != r->files[i].base ||
            segment == &r->p->segments[r->p->n_segments - 1])
            continue;
        r->files[i].bytes = segment->bytes;
        r->files[i].segment_bytes = segment->bytes;
        r->files[i].created_ns = segment->created_ns;
    }
}

static void remove_leftover(struct recovery *r);

static void on_leftover_removed(struct roda_ctx *x, void *arg, int result)
{
    struct recovery *r = arg;
    char path[PATH_BYTES];

    (void)x;
    if (is_gone(r))
        return;
    copy_path_of(r, r->leftovers[r->n_leftovers], path);
    if (result < 0 && result != -ENOENT)
        roda_log(r->x, RODA_LOG_WARNING,
                 "%s, a copy that was not finished, cannot be removed: %s; remove it", path,
                 strerror(-result));
    remove_leftover(r);
}

static void remove_leftover(struct recovery *r)
{
    char path[PATH_BYTES];
    int result;

    if (!r->n_leftovers) {
        look_at_next(r);
        return;
    }
    copy_path_of(r, r->leftovers[--r->n_leftovers], path);
    result = roda_file_remove(r->x, path, on_leftover_removed, r);
    if (result < 0)
        finish(r, result);
}

static int is_copy(const struct recovery *r, struct roda_str name, uint64_t *ret_base)
{
    const size_t len = sizeof(copy_suffix) - 1;
    uint32_t partition;

    if (name.len < len || memcmp(name.ptr + name.len - len, copy_suffix, len) != 0)
        return 0;
    name.len -= len;
    return !log_segment_parse(name, &partition, ret_base) && partition == r->index;
}

static int list_leftovers(struct recovery *r, const struct roda_str *names, size_t n)
{
    uint64_t base;
    size_t found = 0;

    for (size_t i = 0; i < n; i++)
        found += (size_t)is_copy(r, names[i], &base);
    if (!found)
        return 0;
    r->leftovers = roda_alloc(r->x, found * sizeof(*r->leftovers));
    if (!r->leftovers)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        if (is_copy(r, names[i], &base))
            r->leftovers[r->n_leftovers++] = base;
    return 0;
}

static void on_list(struct roda_ctx *x, void *arg, const struct roda_str *names, size_t n,
                    int result)
{
    struct recovery *r = arg;
    uint32_t partition;
    uint64_t base;

    (void)x;
    if (is_gone(r))
        return;
    if (result < 0)
        roda_log(r->x, RODA_LOG_ERROR,
                 "%s cannot be listed: %s; it must be a folder that the "
                 "broker may read and write",
                 log_conf_of(r->x)->directory, strerror(-result));
    for (size_t i = 0; i < n && result >= 0; i++)
        if (!log_segment_parse(names[i], &partition, &base) && partition == r->index)
            result = add_file(r, base);
    if (result >= 0)
        result = list_leftovers(r, names, n);
    if (result < 0) {
        finish(r, result);
        return;
    }
    if (r->n_files)
        qsort(r->files, r->n_files, sizeof(*r->files), by_base);
    remember(r);
    remove_leftover(r);
}

int recovery_start(struct partition *p, int first, uint64_t synced, recovered_fn *fn)
{
    struct recovery *r = roda_alloc(p->x, sizeof(*r));
    int result;

    if (r) {
        r->p = p;
        r->x = p->x;
        r->index = p->index;
        r->fn = fn;
        r->synced = synced;
        r->found = (struct found){.x = p->x, .p = p, .healing = !first};
    }
    result = r ? roda_file_list(p->x, log_conf_of(p->x)->directory, on_list, r) : -ENOMEM;
    if (result < 0) {
        roda_count(p->x, LOG_SEGMENTS, p->n_segments);
        roda_free(p->x, r);
        return result;
    }
    p->recovery = r;
    return 0;
}

void recovery_cancel(struct partition *p)
{
    if (!p->recovery)
        return;
    p->recovery->cancelled = 1;
    p->recovery = NULL;
}
