#include "partition.h"

#include <errno.h>
#include <string.h>

/*
 * One page of a room's past, from the chain of its records (record.c explains back and jump).
 *
 *   NEWEST   the newest record that may be shown: what waits for the disk is nobody's yet
 *   OLDEST   the oldest that is still kept; remembered in the room until it is removed
 *   PLACE    where the range begins, if the oldest of it are wanted
 *   END      the newest record of the page
 *   CUT      the same, where the newest so many were asked for and one page cannot hold them
 *   COLLECT  from there back; the buffer is filled from its end, so the oldest comes to stand first
 *
 * A page is an interval of counts, the places of records in the chain: (low, the count of the
 * record at END]. Counts leave no holes, numbers may; so it is known beforehand that a page has at
 * most PAGE_MESSAGES, the oldest of what was asked for. If they are too long in bytes the newest
 * go. `more` says whether the range goes on behind the page.
 *
 * SEARCH. All steps but COLLECT look for the newest record that is not beyond a bound. Number,
 * time, count and position all grow along the chain, so "beyond" has one border. It begins at the
 * tree roots that the room has in memory; from a record that is beyond it goes to the jump if that
 * is beyond too, else back: O(log n) reads, and it ends with `older`, which is not beyond, and
 * `newer`, the oldest that is.
 *
 * GONE. Segments are removed oldest first: a position below the first segment is gone, and so is
 * all before it. A read that finds nothing says the same of a segment that is just going (floor).
 * What others have said among themselves (room->floor) counts as gone.
 *
 * DAMAGED. For a record that cannot be read partition_read_back() gives the newest one before it,
 * which is known by its count. If that is not beyond, but the damaged one was, the records between
 * the damaged one and `newer` are still to be looked at: a jump or a root is then not used, and
 * the search goes back instead. What is missing in a page is seen by the prev of the next message.
 *
 * partition_read_back() never calls back inside the call, and a turn answers a limited number of
 * reads: no loop here runs longer than over a room's trees or one page.
 */

enum {
    PAGE_MESSAGES = 64,
    PAGE_BYTES = 64 << 10,
    BUFFER_FIRST = 8 << 10,
};

enum step { STEP_NEWEST, STEP_OLDEST, STEP_PLACE, STEP_END, STEP_CUT, STEP_COLLECT };
enum way { WAY_ROOT, WAY_JUMP, WAY_BACK };

struct node {          /* of a record that was read, or (without pointers) a root in memory */
    uint64_t position; /* if it is given instead of a damaged one: of that */
    uint64_t number, count, back, jump, jump_number;
    int64_t time_ns, jump_time_ns;
};

struct bound { /* beyond is what is greater in one of these */
    uint64_t number, count;
    int64_t time_ns;
    int shown; /* 1: and what may not be shown yet */
};

struct walk {
    struct roda_item item; /* first: begins it */
    struct history_ask *ask;
    struct partition *p;
    struct log_room *room;
    enum step step;

    uint64_t position, expected; /* that is being read, and its count */
    enum way way;                /* how it was come to */
    uint64_t floor;              /* below this all is gone */

    struct bound bound;
    struct node older, newer;
    int newer_instead;    /* newer.position is not its own */
    int no_jump;          /* from newer */
    uint64_t no_root;     /* at or below this */
    struct node newest;   /* that may be shown */
    uint64_t first_count; /* of the oldest that is kept */
    uint64_t low, asked;  /* counts: the page is behind low; the last of what was asked for */
    struct node at;       /* COLLECT: the last that was read */

    char *buffer;
    size_t size, from, to; /* of the buffer; what is taken stands in [from, to) */
    uint32_t lengths[PAGE_MESSAGES], n_lengths, n_dropped; /* newest first */
};

static void arrive(struct walk *w, const struct log_record *record);
static void on_read(struct partition *p, void *arg, const struct log_record *record, int result);

/* ---- the end ---------------------------------------------------------------------------- */

static void end(struct walk *w, int result)
{
    struct history_ask *ask = w->ask;
    struct roda_ctx *x = w->p->x;

    ask->walk = NULL;
    if (w->room)
        w->room->users--;
    if (!result) {
        size_t len = w->to - w->from;
        if (len)
            memmove(w->buffer, w->buffer + w->from, len);
        ask->bytes = w->buffer;
        ask->n_bytes = len;
        ask->n = w->n_lengths - w->n_dropped;
        ask->more |= w->n_dropped != 0;
        roda_count(x, LOG_PAGES, 1);
    } else {
        roda_free(x, w->buffer);
    }
    roda_free(x, w);
    ask->done(ask, result);
}

/* ---- searching -------------------------------------------------------------------------- */

static const struct bound unbound = {UINT64_MAX, UINT64_MAX, INT64_MAX, 0};

/* By number or by time, as was asked. */
static struct bound up_to(const struct walk *w, uint64_t key)
{
    struct bound bound = unbound;

    if (!w->ask->query.by_time)
        bound.number = key;
    else if (key < INT64_MAX)
        bound.time_ns = (int64_t)key;
    return bound;
}

/* What waits for the disk is not, and what the disk refused never was. */
static int is_shown(const struct walk *w, uint64_t position, uint64_t number)
{
    return number <= w->room->shown || position < partition_synced(w->p);
}

static int is_beyond(const struct walk *w, uint64_t position, uint64_t number, int64_t time_ns,
                     uint64_t count)
{
    return number > w->bound.number || time_ns > w->bound.time_ns || count > w->bound.count ||
           (w->bound.shown && !is_shown(w, position, number));
}

static int is_gone(const struct walk *w, uint64_t position)
{
    return !position || position < w->floor || (!w->ask->all && position < w->room->floor) ||
           !w->p->n_segments || position < w->p->segments[0].base;
}

static void go_to(struct walk *w, uint64_t position, uint64_t count, enum way way)
{
    int r;

    w->position = position;
    w->expected = count;
    w->way = way;
    if (is_gone(w, position)) {
        arrive(w, NULL);
        return;
    }
    r = partition_read_back(w->p, w->room->id, position, on_read, w);
    if (r)
        end(w, r);
}

/* To the oldest root that is beyond. 0: none is; `older` is the newest, if there is one. */
static int go_to_root(struct walk *w)
{
    const struct log_room *room = w->room;
    uint64_t count = room->count, start = 0, start_count = 0;

    for (uint32_t i = 0; i < room->n_trees; i++) {
        const struct log_tree *tree = &room->trees[i];
        if (is_gone(w, tree->root) || tree->root <= w->no_root)
            break;
        if (!is_beyond(w, tree->root, tree->number, tree->time_ns, count)) {
            if (!start)
                w->older = (struct node){.position = tree->root,
                                         .number = tree->number,
                                         .time_ns = tree->time_ns,
                                         .count = count};
            break;
        }
        start = tree->root;
        start_count = count;
        count -= tree->size;
    }
    if (!start)
        return 0;
    w->older.position = 0;
    go_to(w, start, start_count, WAY_ROOT);
    return 1;
}

static void search_on(struct walk *w)
{
    const struct node *n = &w->newer;
    uint64_t jump_count = log_jump_count(n->count);

    if (!n->position) {
        if (!go_to_root(w))
            arrive(w, NULL);
        return;
    }
    if (!w->no_jump && !is_gone(w, n->jump) &&
        is_beyond(w, n->jump, n->jump_number, n->jump_time_ns, jump_count))
        go_to(w, n->jump, jump_count, WAY_JUMP);
    else
        go_to(w, n->back, n->count - 1, WAY_BACK);
}

static void search(struct walk *w, enum step step, struct bound bound)
{
    w->step = step;
    w->bound = bound;
    w->older = w->newer = (struct node){.position = 0};
    w->no_jump = 0;
    w->no_root = 0;
    search_on(w);
}

static void search_at(struct walk *w, const struct log_record *record, const struct node *node)
{
    int instead = node->count != w->expected;

    if (is_beyond(w, node->position, node->number, node->time_ns, node->count)) {
        w->newer = *node;
        w->newer_instead = instead;
        w->no_jump = 0;
        search_on(w);
    } else if (instead && w->way == WAY_JUMP) {
        w->no_jump = 1;
        search_on(w);
    } else {
        w->older = *node;
        w->no_root = node->position;
        if (!instead || w->way == WAY_BACK || !go_to_root(w))
            arrive(w, record);
    }
}

/* ---- collecting ------------------------------------------------------------------------- */

static int make_room(struct walk *w, size_t len)
{
    size_t used = w->to - w->from, size = w->size ? w->size : BUFFER_FIRST;
    char *buffer;

    if (w->from >= len)
        return 0;
    if (used + len <= w->size) { /* behind, where records were dropped */
        memmove(w->buffer + w->size - used, w->buffer + w->from, used);
    } else {
        while (size < used + len)
            size *= 2;
        buffer = roda_alloc(w->p->x, size);
        if (!buffer)
            return -ENOMEM;
        if (used)
            memcpy(buffer + size - used, w->buffer + w->from, used);
        roda_free(w->p->x, w->buffer);
        w->buffer = buffer;
        w->size = size;
    }
    w->to = w->size;
    w->from = w->size - used;
    return 0;
}

static void drop_newest(struct walk *w, size_t most)
{
    while (w->n_dropped < w->n_lengths && w->to - w->from > most)
        w->to -= w->lengths[w->n_dropped++];
}

static int take(struct walk *w, const struct log_record *record)
{
    size_t len = record->length;
    int r;

    drop_newest(w, len < PAGE_BYTES ? PAGE_BYTES - len : 0);
    r = make_room(w, len);
    if (r)
        return r;
    /* The bytes that a record was decoded from are those that it is encoded to. */
    if (log_record_encode(record, w->buffer + w->from - len, len) != len)
        return -EIO;
    w->from -= len;
    w->lengths[w->n_lengths++] = (uint32_t)len;
    return 0;
}

/* record is the one at `at`. */
static void collect(struct walk *w, const struct log_record *record)
{
    int r;

    if (w->at.count <= w->low || w->n_lengths == PAGE_MESSAGES) {
        w->ask->before = w->n_lengths ? w->at.number : 0;
        end(w, 0);
        return;
    }
    r = take(w, record);
    if (r)
        end(w, r);
    else
        go_to(w, w->at.back, w->at.count - 1, WAY_BACK);
}

/* ---- the steps -------------------------------------------------------------------------- */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int is_asked(const struct walk *w, const struct node *n)
{
    const struct roda_history_query *query = &w->ask->query;
    uint64_t key = query->by_time ? (uint64_t)n->time_ns : n->number;

    return n->count <= w->asked && (query->what != RODA_HISTORY_BETWEEN || key <= query->to);
}

/* So many up to that count, as far as they are kept. */
static uint64_t low_of(const struct walk *w, uint64_t count, uint64_t n)
{
    uint64_t low = count > n ? count - n : 0;

    return low < w->first_count ? least(w->first_count - 1, count) : low;
}

/* The page's newest record is `older`; record, if it was just read. */
static void begin_collecting(struct walk *w, const struct log_record *record)
{
    if (!w->older.position || w->older.count <= w->low) {
        end(w, 0);
        return;
    }
    w->ask->more = w->newer.position && is_asked(w, &w->newer);
    w->step = STEP_COLLECT;
    w->at = w->older;
    if (record)
        collect(w, record);
    else
        go_to(w, w->older.position, w->older.count, WAY_ROOT);
}

/* Not beyond that count, nor what may not be shown. */
static void search_end(struct walk *w, enum step step, struct bound bound, uint64_t count)
{
    bound.count = least(bound.count, least(count, w->newest.count));
    search(w, step, bound);
}

static void plan(struct walk *w)
{
    const struct roda_history_query *query = &w->ask->query;
    struct bound none = {.count = 0}, before = query->from ? up_to(w, query->from - 1) : none;

    switch (query->what) {
    case RODA_HISTORY_LATEST:
        search_end(w, STEP_END, query->to ? up_to(w, query->to) : unbound, UINT64_MAX);
        break;
    case RODA_HISTORY_BEFORE:
        search_end(w, STEP_END, before, UINT64_MAX);
        break;
    case RODA_HISTORY_BETWEEN:
        search(w, STEP_PLACE, before);
        break;
    default: /* AFTER, AROUND */
        search(w, STEP_PLACE, up_to(w, query->from));
        break;
    }
}

static void on_newest(struct walk *w)
{
    const struct log_room *room = w->room;

    if (!w->older.position) {
        end(w, 0);
        return;
    }
    w->newest = w->older;
    w->ask->last = w->newest.number;
    if (w->ask->all || is_gone(w, room->first_position)) {
        search(w, STEP_OLDEST, (struct bound){.count = 0});
    } else {
        w->first_count = room->first_count;
        w->ask->first = room->first;
        plan(w);
    }
}

static void on_oldest(struct walk *w)
{
    struct log_room *room = w->room;

    if (!w->newer.position) { /* it has gone since */
        w->ask->last = 0;
        end(w, 0);
        return;
    }
    w->first_count = w->newer.count;
    w->ask->first = w->newer.number;
    if (!w->ask->all) {
        room->first_position = w->newer_instead ? 0 : w->newer.position;
        room->first_count = w->newer.count;
        room->first = w->newer.number;
    }
    plan(w);
}

/* `newer`, if it may be shown, is the oldest behind the place that was asked for. */
static void on_place(struct walk *w)
{
    const struct roda_history_query *query = &w->ask->query;
    uint64_t half = (query->max + 1) / 2;
    int none = !w->newer.position || w->newer.count > w->newest.count;
    uint64_t place = none ? w->newest.count : w->newer.count - 1;

    w->asked = w->newest.count;
    if (query->what == RODA_HISTORY_AROUND) {
        w->asked = least(w->asked, place + query->max - half);
        w->low = low_of(w, place, half);
        search_end(w, STEP_END, unbound, least(w->asked, w->low + PAGE_MESSAGES));
    } else if (none) {
        end(w, 0);
    } else {
        w->low = place;
        search_end(w, STEP_END, query->what == RODA_HISTORY_BETWEEN ? up_to(w, query->to) : unbound,
                   w->low + least(query->max, PAGE_MESSAGES));
    }
}

/* LATEST and BEFORE: `older` is the newest of what was asked for, and the page its oldest part. */
static void on_end(struct walk *w, const struct log_record *record)
{
    const struct roda_history_query *query = &w->ask->query;

    if (query->what == RODA_HISTORY_LATEST || query->what == RODA_HISTORY_BEFORE) {
        if (w->older.position && !record) { /* a root: one that can be read is what counts */
            uint64_t root = w->older.position;
            w->older.position = 0;
            go_to(w, root, w->older.count, WAY_BACK);
            return;
        }
        w->asked = w->older.count;
        w->low = low_of(w, w->older.count, query->max);
        if (w->older.count - w->low > PAGE_MESSAGES) {
            search_end(w, STEP_CUT, unbound, w->low + PAGE_MESSAGES);
            return;
        }
    }
    begin_collecting(w, record);
}

/* `older` and `newer` are what was looked for (record: older's, if it was just read); or the chain
 * ends where the next record to be collected would be. */
static void arrive(struct walk *w, const struct log_record *record)
{
    switch (w->step) {
    case STEP_NEWEST:
        on_newest(w);
        break;
    case STEP_OLDEST:
        on_oldest(w);
        break;
    case STEP_PLACE:
        on_place(w);
        break;
    case STEP_END:
        on_end(w, record);
        break;
    case STEP_CUT:
        begin_collecting(w, record);
        break;
    case STEP_COLLECT:
        end(w, 0);
        break;
    }
}

/* ---- reading ---------------------------------------------------------------------------- */

/* -EILSEQ: it is not a record of this chain. */
static int node_of(const struct walk *w, const struct log_record *record, struct node *ret_node)
{
    const struct log_message *m = &record->message;

    if (record->type != LOG_MESSAGE || m->room != w->room->id || m->back >= w->position ||
        m->jump > m->back)
        return -EILSEQ;
    *ret_node = (struct node){w->position, m->number,      m->count,   m->back,
                              m->jump,     m->jump_number, m->time_ns, m->jump_time_ns};
    return 0;
}

static void on_read(struct partition *p, void *arg, const struct log_record *record, int result)
{
    struct walk *w = arg;
    struct node node;

    (void)p;
    if (!result)
        result = node_of(w, record, &node);
    if (result == -ENOENT || result == -EILSEQ) { /* nor is there anything before */
        w->floor = w->position + 1;
        if (w->step == STEP_COLLECT)
            arrive(w, NULL);
        else
            search_on(w);
    } else if (result) {
        end(w, result);
    } else if (w->step == STEP_COLLECT) {
        w->at = node;
        collect(w, record);
    } else {
        search_at(w, record, &node);
    }
}

/* ---- beginning -------------------------------------------------------------------------- */

static void begin(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct walk *w = (struct walk *)(void *)item;
    struct bound bound = unbound;

    (void)x;
    if (result < 0 || w->p->state == PARTITION_CLOSED) {
        end(w, -ECANCELED);
    } else if (!w->room) {
        end(w, -ENOENT);
    } else {
        w->ask->epoch = w->room->epoch;
        w->ask->number = w->room->number;
        bound.shown = 1;
        search(w, STEP_NEWEST, bound);
    }
}

int history_find(struct history_ask *ask)
{
    struct roda_ctx *x = ask->p->x;
    struct walk *w = roda_alloc(x, sizeof(*w));

    if (!w)
        return -ENOMEM;
    w->item.run = begin;
    w->ask = ask;
    w->p = ask->p;
    w->room = log_rooms_find(&ask->p->rooms, ask->query.room);
    if (w->room)
        w->room->users++;
    ask->bytes = NULL;
    ask->n_bytes = 0;
    ask->n = ask->more = 0;
    ask->before = ask->epoch = ask->number = ask->first = ask->last = 0;
    ask->walk = w;
    roda_post(x, x->worker, &w->item);
    return 0;
}
