#include "ratelimit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Bans in a file, so that they survive a restart; while the broker runs, the shared table is what
 * counts. Text, a ban a line, for people to read and (while the broker is stopped) to change:
 *
 *     192.0.2.7/32 1795600000          the network, and when it ends, in seconds since 1970
 *
 * Worker 0 owns the file. At the start, before listeners open, it is read, and those that are still
 * in force go into the table. Later ones are appended as they come, in whole lines; they are not
 * synced, since a power cut may well forgive. If lines had to be left out (they are over, torn, or
 * of another prefix length than the conf now has), or the file has grown large, it is written anew
 * and renamed into place:
 *
 *     IDLE -> READING -> (REMOVING -> WRITING -> SYNCING -> RENAMING) -> IDLE
 *     IDLE -> OPENING -> IDLE      when the first ban comes
 *     IDLE -> ENDING -> READING    when the file has grown large: what was appended is synced
 *
 * Meanwhile new bans wait in a list. If the disk refuses, that is said once, and bans go on in
 * memory alone.
 */

enum {
    PIECE_BYTES = 65536,
    FILE_BYTES_MAX = 1 << 20,
    KEPT_BYTES_MAX = FILE_BYTES_MAX / 2, /* some ten thousand bans */
    LINE_BYTES = 128,
    WAITING_MAX = 1000
};

struct ban {
    struct roda_item item;
    struct network network;
    int64_t until_s;
    struct ban *next;
};

struct bans {
    struct roda_file *file; /* appended to; NULL: not open */
    int busy, stopping, starting, told;
    struct ban *oldest, *newest; /* wait until it is not busy */
    size_t n_waiting;
    /* While it is read and written anew. */
    struct roda_file *old, *fresh;
    char *text; /* first all of the old file, then the lines that are kept */
    size_t len;
    size_t left_out;
    char path_new[];
};

static void flush(struct roda_ctx *x, struct bans *bans);
static void release(struct roda_ctx *x, struct bans *bans);

static const char *path_of(const struct roda_ctx *x)
{
    const struct ratelimit_conf *conf = x->conf;

    return conf->ban_file;
}

static void tell(struct roda_ctx *x, struct bans *bans, const char *what, int error)
{
    if (!bans->told && !bans->stopping)
        roda_log(x, RODA_LOG_WARNING,
                 "%s: %s: %s; bans are kept until the broker stops, not longer (make the file "
                 "writable, or set [plugin ratelimit] ban_file)",
                 path_of(x), what, strerror(-error));
    bans->told = 1;
}

static void end(struct roda_ctx *x, struct bans *bans)
{
    roda_file_close(bans->old);
    roda_file_close(bans->fresh);
    bans->old = bans->fresh = NULL;
    roda_free(x, bans->text);
    bans->text = NULL;
    bans->len = bans->left_out = 0;
    bans->busy = 0;
    if (bans->starting) {
        bans->starting = 0;
        roda_started(x, 0); /* without the file is better than not at all */
    }
    flush(x, bans);
    release(x, bans);
}

/* ---- written anew ----------------------------------------------------------------------- */

static void on_renamed(struct roda_ctx *x, void *arg, int result)
{
    struct bans *bans = arg;

    if (result < 0)
        tell(x, bans, "cannot be replaced", result);
    end(x, bans);
}

static void on_synced(struct roda_ctx *x, void *arg, int result)
{
    struct bans *bans = arg;

    if (result >= 0)
        result = roda_file_rename(x, bans->path_new, path_of(x), on_renamed, bans);
    if (result < 0)
        on_renamed(x, bans, result);
}

static void on_fresh(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    struct bans *bans = arg;

    bans->fresh = result < 0 ? NULL : file;
    if (result >= 0 && bans->len) {
        int64_t offset = roda_file_append(file, (struct roda_str){bans->text, bans->len});
        result = offset < 0 ? (int)offset : 0;
    }
    if (result >= 0)
        result = roda_file_sync(file, on_synced, bans);
    if (result < 0)
        on_renamed(x, bans, result);
}

/* One may lie there from a crash. */
static void on_removed(struct roda_ctx *x, void *arg, int result)
{
    struct bans *bans = arg;

    result = roda_file_open(x, bans->path_new, RODA_FILE_APPEND, on_fresh, bans);
    if (result < 0)
        on_renamed(x, bans, result);
}

/* ---- read ------------------------------------------------------------------------------- */

enum line { LINE_IN_FORCE, LINE_OVER, LINE_UNKNOWN };

/* A line of the file, NUL-terminated. UNKNOWN: no ban of a prefix as long as they are now. */
static enum line line_parse(struct roda_ctx *x, const char *line, struct network *ret_network,
                            int64_t *ret_left_s)
{
    const struct ratelimit_conf *conf = x->conf;
    const char *blank = strchr(line, ' ');
    struct network whole;
    char *rest;
    int64_t until_s;

    if (!blank || network_parse((struct roda_str){line, (size_t)(blank - line)}, ret_network))
        return LINE_UNKNOWN;
    errno = 0;
    until_s = strtoll(blank + 1, &rest, 10);
    if (errno || *rest || rest == blank + 1 || until_s < 0)
        return LINE_UNKNOWN;
    *ret_left_s = until_s - roda_time_ns(x) / 1000000000;
    if (*ret_left_s <= 0)
        return LINE_OVER;
    (void)network_parse(RODA_STR("::ffff:0.0.0.0/96"), &whole);
    return ret_network->bits == (network_contains(&whole, ret_network)
                                     ? 96 + (uint32_t)conf->prefix_ipv4
                                     : (uint32_t)conf->prefix_ipv6)
               ? LINE_IN_FORCE
               : LINE_UNKNOWN;
}

static void put_in_force(struct roda_ctx *x, const struct network *network, uint64_t ban_ms)
{
    table_raise(shared_of(x)->buckets, key_for(network_key(network), BUCKET_BAN), now_us(x),
                ban_ms * GCRA_SHARED_TICKS);
}

/* Moves the lines to keep to the front of the text. Returns how many there are. The last one may be
 * torn by a crash. */
static size_t take_lines(struct roda_ctx *x, struct bans *bans, size_t *ret_unknown)
{
    char *at = bans->text, *end_of_text = bans->text + bans->len;
    size_t kept = 0, n = 0, unknown = 0;

    while (at < end_of_text) {
        char *line_end = memchr(at, '\n', (size_t)(end_of_text - at));
        struct network network;
        int64_t left_s;
        enum line what = LINE_OVER;
        size_t len = (size_t)((line_end ? line_end : end_of_text) - at);
        if (line_end) {
            *line_end = '\0';
            what = line_parse(x, at, &network, &left_s);
        }
        unknown += what == LINE_UNKNOWN;
        if (what == LINE_IN_FORCE) {
            put_in_force(x, &network,
                         left_s < LIMIT_MAX_MS / 1000 ? (uint64_t)left_s * 1000 : LIMIT_MAX_MS);
            memmove(bans->text + kept, at, len);
            bans->text[kept + len] = '\n';
            kept += len + 1;
            n++;
        } else {
            bans->left_out++;
        }
        at += len + 1;
    }
    bans->len = kept;
    *ret_unknown = unknown;
    return n;
}

/* What is left may be large still; the youngest bans stand last. */
static void cut_front(struct bans *bans)
{
    const char *cut;

    if (bans->len <= KEPT_BYTES_MAX)
        return;
    cut = memchr(bans->text + bans->len - KEPT_BYTES_MAX, '\n', KEPT_BYTES_MAX);
    bans->len -= (size_t)(cut + 1 - bans->text);
    memmove(bans->text, cut + 1, bans->len);
    bans->left_out++;
}

static void all_read(struct roda_ctx *x, struct bans *bans)
{
    size_t unknown, n = take_lines(x, bans, &unknown);
    int result;

    cut_front(bans);
    if (bans->starting && n)
        roda_log(x, RODA_LOG_INFO, "%s: bans still in force: %zu", path_of(x), n);
    if (unknown)
        roda_log(x, RODA_LOG_WARNING,
                 "%s: lines left out since they are no ban, or not of a prefix as long as "
                 "prefix_ipv4 and prefix_ipv6 have it: %zu; keep other networks out by the "
                 "firewall",
                 path_of(x), unknown);
    if (!bans->left_out) {
        end(x, bans);
        return;
    }
    result = roda_file_remove(x, bans->path_new, on_removed, bans);
    if (result < 0)
        on_renamed(x, bans, result);
}

static void on_piece(struct roda_ctx *x, void *arg, struct roda_str bytes, int result);

static void read_piece(struct roda_ctx *x, struct bans *bans)
{
    char *text = roda_realloc(x, bans->text, bans->len + PIECE_BYTES);
    int result = text ? 0 : -ENOMEM;

    if (text) {
        bans->text = text;
        result = roda_file_read(bans->old, bans->len, PIECE_BYTES, on_piece, bans);
    }
    if (result < 0) {
        tell(x, bans, "cannot be read", result);
        end(x, bans);
    }
}

static void on_piece(struct roda_ctx *x, void *arg, struct roda_str bytes, int result)
{
    struct bans *bans = arg;

    if (bans->stopping || result < 0) {
        tell(x, bans, "cannot be read", result < 0 ? result : -ECANCELED);
        end(x, bans);
        return;
    }
    memcpy(bans->text + bans->len, bytes.ptr, bytes.len);
    bans->len += bytes.len;
    if (bytes.len && bans->len < 2 * (size_t)FILE_BYTES_MAX)
        read_piece(x, bans);
    else
        all_read(x, bans);
}

static void on_old(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    struct bans *bans = arg;

    bans->old = result < 0 ? NULL : file;
    if (result < 0 || bans->stopping) {
        if (result < 0 && result != -ENOENT)
            tell(x, bans, "cannot be opened", result);
        end(x, bans);
        return;
    }
    read_piece(x, bans);
}

/* ---- appended to ------------------------------------------------------------------------ */

static void drop_waiting(struct roda_ctx *x, struct bans *bans)
{
    for (struct ban *ban; (ban = bans->oldest);) {
        bans->oldest = ban->next;
        roda_count(x, METRIC_BANS_LOST, 1);
        roda_free(x, ban);
    }
    bans->newest = NULL;
    bans->n_waiting = 0;
}

/* After the stop: the last one to go frees it all. */
static void release(struct roda_ctx *x, struct bans *bans)
{
    if (!bans->stopping || bans->busy)
        return;
    roda_file_close(bans->file);
    drop_waiting(x, bans);
    state_of(x)->bans = NULL;
    roda_free(x, bans);
}

static void on_file(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    struct bans *bans = arg;

    bans->busy = 0;
    if (result < 0) {
        tell(x, bans, "cannot be opened", result);
        drop_waiting(x, bans);
    } else {
        bans->file = file;
        flush(x, bans);
    }
    release(x, bans);
}

static int append(struct bans *bans, const struct ban *ban)
{
    char line[LINE_BYTES], text[NETWORK_TEXT_BYTES];
    int len = snprintf(line, sizeof(line), "%s %" PRId64 "\n", network_text(&ban->network, text),
                       ban->until_s);
    int64_t offset = roda_file_append(bans->file, (struct roda_str){line, (size_t)len});

    return offset < 0 ? (int)offset : 0;
}

static void on_ended(struct roda_ctx *x, void *arg, int result)
{
    struct bans *bans = arg;

    roda_file_close(bans->file);
    bans->file = NULL;
    if (result < 0 || bans->stopping) {
        if (result < 0)
            tell(x, bans, "cannot be written", result);
        end(x, bans);
        return;
    }
    bans->left_out = 1; /* in any case */
    result = roda_file_open(x, path_of(x), RODA_FILE_READ, on_old, bans);
    if (result < 0)
        on_old(x, bans, NULL, result);
}

/* Who opens the file by its path does not see what is still to be written, though it is closed. */
static void begin_anew(struct roda_ctx *x, struct bans *bans)
{
    int result;

    bans->busy = 1;
    result = roda_file_sync(bans->file, on_ended, bans);
    if (result < 0)
        on_ended(x, bans, result);
}

static void flush(struct roda_ctx *x, struct bans *bans)
{
    int result = 0;

    if (bans->busy || !bans->oldest)
        return;
    if (!bans->file) {
        if (bans->stopping)
            return;
        bans->busy = 1;
        result = roda_file_open(x, path_of(x), RODA_FILE_APPEND, on_file, bans);
        if (result < 0)
            on_file(x, bans, NULL, result);
        return;
    }
    for (struct ban *ban; !result && (ban = bans->oldest);) {
        result = append(bans, ban);
        if (result)
            break;
        bans->oldest = ban->next;
        bans->n_waiting--;
        roda_free(x, ban);
    }
    if (result) {
        tell(x, bans, "cannot be written", result);
        roda_file_close(bans->file); /* the next ban tries again */
        bans->file = NULL;
        drop_waiting(x, bans);
        return;
    }
    bans->newest = NULL;
    if (roda_file_size(bans->file) > FILE_BYTES_MAX && !bans->stopping)
        begin_anew(x, bans);
}

static void keep(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct ban *ban = (struct ban *)(void *)item;
    struct bans *bans = state_of(x)->bans;

    if (result < 0 || !bans || bans->n_waiting >= WAITING_MAX) {
        roda_count(x, METRIC_BANS_LOST, 1);
        roda_free(x, ban);
        return;
    }
    ban->next = NULL;
    if (bans->newest)
        bans->newest->next = ban;
    else
        bans->oldest = ban;
    bans->newest = ban;
    bans->n_waiting++;
    flush(x, bans);
}

void bans_add(struct roda_ctx *x, const struct network *network, uint64_t ban_ms)
{
    struct ban *ban;

    roda_count(x, METRIC_BANS, 1);
    put_in_force(x, network, ban_ms);
    if (!*path_of(x))
        return;
    ban = roda_alloc(x, sizeof(*ban));
    if (!ban) {
        roda_count(x, METRIC_BANS_LOST, 1);
        return;
    }
    ban->item.run = keep;
    ban->network = *network;
    ban->until_s = roda_time_ns(x) / 1000000000 + (int64_t)((ban_ms + 999) / 1000);
    roda_post(x, 0, &ban->item);
}

/* ---- life ------------------------------------------------------------------------------- */

int bans_start(struct roda_ctx *x)
{
    static const char suffix[] = ".new";
    size_t len = strlen(path_of(x));
    struct bans *bans;
    int result;

    if (!len)
        return 0;
    bans = roda_alloc(x, sizeof(*bans) + len + sizeof(suffix));
    if (!bans)
        return -ENOMEM;
    memcpy(bans->path_new, path_of(x), len);
    memcpy(bans->path_new + len, suffix, sizeof(suffix));
    state_of(x)->bans = bans;
    bans->busy = bans->starting = 1;
    result = roda_file_open(x, path_of(x), RODA_FILE_READ, on_old, bans);
    if (result >= 0)
        return RODA_LATER;
    bans->starting = 0;
    on_old(x, bans, NULL, result);
    return 0;
}

void bans_stop(struct roda_ctx *x)
{
    struct bans *bans = state_of(x)->bans;

    if (!bans)
        return;
    bans->stopping = 1;
    release(x, bans);
}
