#include "partition.h"

#include <errno.h>
#include <string.h>

/*
 * One page of a room's history, by walking its chain (record.c says how it is linked).
 *
 * Numbers and times only grow along a chain, and records are counted from 1. So whatever was asked
 * is turned into counts first, each by one look-up of O(log n) reads:
 *
 *     (low, high]   what was asked for, of what may be shown and is still there
 *     top           where this page ends: at most low + 64
 *
 * and then the chain is walked back from top to low, and turned round. Look-ups begin at the
 * roots of the room's trees, which are in memory.
 *
 * The steps, each of which is a look-up or the walk:
 *
 *     VISIBLE   a durable room's newest may still wait for the disk: they are nobody's yet
 *     OLDEST    if segments were removed: the first record that is still there
 *     HIGH LOW  what the query's numbers or times mean
 *     TOP       the record with that count
 *     COLLECT   back from there, taking the bytes
 *
 * A record that is damaged is passed by where its neighbours' pointers allow it; what is missing is
 * seen by the prev of the next one.
 */

enum { PAGE_MESSAGES = 64, PAGE_BYTES = 64 << 10 };

enum step { STEP_VISIBLE, STEP_OLDEST, STEP_HIGH, STEP_LOW, STEP_TOP, STEP_COLLECT };
enum key { KEY_NUMBER, KEY_TIME, KEY_COUNT, KEY_POSITION };

struct node { /* a record, as far as walking needs it */
    uint64_t position, number, count, back, jump, jump_number;
    int64_t time_ns, jump_time_ns;
};

struct piece { /* of the page, newest first */
    uint32_t offset, length;
    uint64_t number;
};

struct walk {
    struct history_ask *ask;
    struct log_room *room;
    enum step step;
    uint64_t base; /* records before this position are gone */
    struct log_tree trees[LOG_TREES_MAX];
    uint32_t n_trees;
    uint64_t count; /* of the whole chain */
    uint64_t visible, oldest, low, high, top;

    enum key key;      /* the look-up: the newest record whose key is at most bound; */
    uint64_t bound;    /* POSITION: the oldest one at or behind it */
    uint64_t position; /* of the record that is being read */
    struct node from;  /* the one that led to it; position 0: none */
    uint32_t by_jump;

    struct piece pieces[PAGE_MESSAGES + 1];
    uint32_t n_pieces;
    uint32_t bytes_used, bytes_room;
};

static void next_step(struct walk *w);
static void look(struct walk *w, uint64_t position);

/* ---- the end ------------------------------------------------------------------------------- */

static void give(struct walk *w, int result)
{
    struct history_ask *ask = w->ask;
    struct roda_ctx *x = ask->p->x;

    if (result < 0) {
        roda_free(x, ask->bytes);
        ask->bytes = NULL;
        ask->n = 0;
    }
    ask->walk = NULL;
    roda_free(x, w);
    ask->done(ask, result);
}

/* The pieces stand newest first: the answer is the other way round. */
static void finish(struct walk *w)
{
    struct history_ask *ask = w->ask;
    char *bytes = NULL;
    size_t len = 0;

    if (w->n_pieces) {
        bytes = roda_alloc(ask->p->x, w->bytes_used);
        if (!bytes) {
            give(w, -ENOMEM);
            return;
        }
    }
    for (uint32_t i = w->n_pieces; i-- > 0;) {
        memcpy(bytes + len, ask->bytes + w->pieces[i].offset, w->pieces[i].length);
        len += w->pieces[i].length;
    }
    roda_free(ask->p->x, ask->bytes);
    ask->bytes = bytes;
    ask->n_bytes = len;
    ask->n = w->n_pieces;
    ask->more = w->top < w->high;
    if (w->n_pieces && w->oldest && w->low + 1 == w->oldest)
        ask->first = w->pieces[w->n_pieces - 1].number;
    roda_count(ask->p->x, LOG_PAGES, 1);
    give(w, 0);
}

/* ---- look-ups ------------------------------------------------------------------------------ */

static uint64_t time_key(int64_t time_ns)
{
    return time_ns < 0 ? 0 : (uint64_t)time_ns;
}

static uint64_t key_of(const struct walk *w, const struct node *node)
{
    switch (w->key) {
    case KEY_NUMBER:
        return node->number;
    case KEY_TIME:
        return time_key(node->time_ns);
    case KEY_COUNT:
        return node->count;
    default:
        return node->position;
    }
}

static uint64_t jump_key(const struct walk *w, const struct node *node)
{
    switch (w->key) {
    case KEY_NUMBER:
        return node->jump_number;
    case KEY_TIME:
        return time_key(node->jump_time_ns);
    case KEY_COUNT:
        return log_jump_count(node->count);
    default:
        return node->jump;
    }
}

static struct node root_node(const struct walk *w, uint32_t i)
{
    const struct log_tree *tree = &w->trees[i];
    uint64_t count = w->count;

    for (uint32_t j = 0; j < i; j++)
        count -= w->trees[j].size;
    return (struct node){.position = tree->root,
                         .number = tree->number,
                         .time_ns = tree->time_ns,
                         .count = count};
}

static void found(struct walk *w, uint64_t count)
{
    switch (w->step) {
    case STEP_VISIBLE:
        w->visible = count;
        break;
    case STEP_OLDEST:
        w->oldest = count;
        break;
    case STEP_HIGH:
        w->high = count;
        break;
    default:
        w->low = count;
        break;
    }
    w->step++;
    next_step(w);
}

/* From the roots: only inside one tree something has to be read. */
static void seek(struct walk *w, enum key key, uint64_t bound)
{
    uint32_t i = 0;

    w->key = key;
    w->bound = bound;
    if (key == KEY_POSITION) {
        while (i + 1 < w->n_trees && w->trees[i + 1].root >= bound)
            i++;
        look(w, w->trees[i].root);
        return;
    }
    while (i < w->n_trees) {
        struct node node = root_node(w, i);
        if (key_of(w, &node) <= bound)
            break;
        i++;
    }
    if (i == 0 || (i < w->n_trees && w->trees[i - 1].size == 1)) {
        found(w, root_node(w, i).count); /* this root, or nothing between it and the one before */
        return;
    }
    if (w->trees[i - 1].root < w->base)
        found(w, root_node(w, i - 1).count); /* gone, and so is what it stands for */
    else
        look(w, w->trees[i - 1].root);
}

/* At a record whose key is above the bound (POSITION: not before it): where to go on; 0: nowhere. */
static uint64_t seek_on(struct walk *w, const struct node *node)
{
    uint64_t key = jump_key(w, node);

    w->by_jump = node->jump && (w->key == KEY_POSITION ? key >= w->bound : key > w->bound);
    if (w->by_jump)
        return node->jump;
    return w->key == KEY_POSITION && node->back < w->bound ? 0 : node->back;
}

/* What lies beyond has gone, so that only its count is known. */
static uint64_t count_beyond(const struct walk *w, const struct node *node)
{
    return w->by_jump ? log_jump_count(node->count) : node->count - 1;
}

static void seek_at(struct walk *w, const struct node *node)
{
    uint64_t next;

    if (w->key != KEY_POSITION && key_of(w, node) <= w->bound) {
        found(w, node->count);
        return;
    }
    next = seek_on(w, node);
    if (w->key == KEY_POSITION && !next) {
        found(w, node->count);
        return;
    }
    if (!next || next < w->base) {
        found(w, next ? count_beyond(w, node) : 0);
        return;
    }
    w->from = *node;
    look(w, next);
}

/* ---- collecting ---------------------------------------------------------------------------- */

/* The page has too many bytes: it ends earlier, and the rest is asked for again. */
static void drop_newest(struct walk *w)
{
    struct history_ask *ask = w->ask;
    uint32_t length = w->pieces[0].length;

    memmove(ask->bytes, ask->bytes + length, w->bytes_used - length);
    w->bytes_used -= length;
    w->n_pieces--;
    memmove(w->pieces, w->pieces + 1, w->n_pieces * sizeof(*w->pieces));
    for (uint32_t i = 0; i < w->n_pieces; i++)
        w->pieces[i].offset -= length;
    w->top--;
}

static int take(struct walk *w, const struct node *node, const struct log_record *record)
{
    struct history_ask *ask = w->ask;
    uint32_t length = record->length;

    if (w->bytes_used + length > w->bytes_room) {
        uint32_t room = w->bytes_room ? w->bytes_room * 2 : 4096;
        char *larger;
        while (room < w->bytes_used + length)
            room *= 2;
        larger = roda_realloc(ask->p->x, ask->bytes, room);
        if (!larger)
            return -ENOMEM;
        ask->bytes = larger;
        w->bytes_room = room;
    }
    if (log_record_encode(record, ask->bytes + w->bytes_used, length) != length)
        return -ENOMEM; /* one reading, one writing: it always fits */
    w->pieces[w->n_pieces++] = (struct piece){w->bytes_used, length, node->number};
    w->bytes_used += length;
    while (w->bytes_used > PAGE_BYTES && w->n_pieces > 1)
        drop_newest(w);
    return 0;
}

static void collect_at(struct walk *w, const struct node *node, const struct log_record *record)
{
    if (node->count <= w->low) {
        w->ask->before = node->number;
        finish(w);
        return;
    }
    if (take(w, node, record)) {
        give(w, -ENOMEM);
        return;
    }
    if (!node->back || node->back < w->base) {
        finish(w);
        return;
    }
    w->from = *node;
    w->by_jump = 0;
    look(w, node->back);
}

/* ---- reading ------------------------------------------------------------------------------- */

static int is_of(const struct walk *w, const struct log_record *record)
{
    return record->type == LOG_MESSAGE && record->message.room == w->room->id;
}

/* A record cannot be read: perhaps there is a way round it. */
static void passed_by(struct walk *w, int result)
{
    const struct node *from = &w->from;
    uint64_t other = w->by_jump ? from->back : from->jump;

    if (result != -EILSEQ || !from->position || !other || other < w->base ||
        (!w->by_jump && from->jump == from->back) ||
        (w->step == STEP_COLLECT && log_jump_count(from->count) <= w->low)) {
        if (result == -ECANCELED || result == -ENOMEM || (!w->n_pieces && result != -ENOENT))
            give(w, result == -EILSEQ ? -EIO : result);
        else
            finish(w);
        return;
    }
    w->by_jump = !w->by_jump;
    w->from.position = 0; /* only once */
    look(w, other);
}

static void on_record(struct partition *p, void *arg, const struct log_record *record, int result)
{
    struct walk *w = arg;
    struct node node;

    (void)p;
    if (!result && !is_of(w, record))
        result = -EILSEQ;
    if (result < 0) {
        passed_by(w, result);
        return;
    }
    node = (struct node){.number = record->message.number,
                         .count = record->message.count,
                         .back = record->message.back,
                         .jump = record->message.jump,
                         .jump_number = record->message.jump_number,
                         .time_ns = record->message.time_ns,
                         .jump_time_ns = record->message.jump_time_ns,
                         .position = w->position};
    if (w->step != STEP_TOP && w->step != STEP_COLLECT) {
        seek_at(w, &node);
        return;
    }
    if (w->step == STEP_TOP && node.count > w->top) {
        seek_at(w, &node);
        return;
    }
    w->step = STEP_COLLECT;
    collect_at(w, &node, record);
}

static void look(struct walk *w, uint64_t position)
{
    int r;

    w->position = position;
    r = partition_read_back(w->ask->p, w->room->id, position, on_record, w);
    roda_count(w->ask->p->x, LOG_READS, 1);
    if (r)
        give(w, r);
}

/* ---- from query to counts ------------------------------------------------------------------ */

static uint64_t newest_wanted(const struct roda_history_query *q)
{
    switch (q->what) {
    case RODA_HISTORY_LATEST:
        return q->to ? q->to : UINT64_MAX;
    case RODA_HISTORY_BEFORE:
        return q->from ? q->from - 1 : 0;
    case RODA_HISTORY_BETWEEN:
        return q->to;
    case RODA_HISTORY_AROUND:
        return q->from;
    default:
        return UINT64_MAX;
    }
}

static int counts_from_the_old_end(const struct roda_history_query *q)
{
    return q->what == RODA_HISTORY_AFTER || q->what == RODA_HISTORY_BETWEEN;
}

/* low and high are known, but for what is not there, not shown, and more than was asked for. */
static void begin_page(struct walk *w)
{
    const struct roda_history_query *q = &w->ask->query;

    if (q->what == RODA_HISTORY_AROUND) {
        uint64_t middle = w->high, half = (q->max + 1) / 2;
        w->low = middle > half ? middle - half : 0;
        w->high = middle + (q->max - half);
    }
    if (w->high > w->visible)
        w->high = w->visible;
    if (counts_from_the_old_end(q)) {
        if (w->oldest > w->low + 1)
            w->low = w->oldest - 1;
        if (w->high > w->low + q->max)
            w->high = w->low + q->max;
    } else {
        if (q->what != RODA_HISTORY_AROUND)
            w->low = w->high > q->max ? w->high - q->max : 0;
        if (w->oldest > w->low + 1)
            w->low = w->oldest - 1;
    }
    w->top = w->high > w->low + PAGE_MESSAGES ? w->low + PAGE_MESSAGES : w->high;
    if (w->top <= w->low) {
        w->high = w->top;
        finish(w);
        return;
    }
    if (w->top == w->count) { /* the newest: no look-up */
        w->from.position = 0;
        look(w, w->trees[0].root);
        return;
    }
    w->key = KEY_COUNT;
    w->bound = w->top;
    for (uint32_t i = 0;; i++) { /* the tree that holds it */
        struct node root = root_node(w, i);
        if (root.count == w->top || root.count - w->trees[i].size < w->top) {
            w->from.position = 0;
            look(w, w->trees[i].root);
            return;
        }
    }
}

static void next_step(struct walk *w)
{
    const struct roda_history_query *q = &w->ask->query;
    enum key key = q->by_time ? KEY_TIME : KEY_NUMBER;
    uint64_t high = newest_wanted(q);

    w->from.position = 0;
    w->by_jump = 0;
    if (w->step == STEP_VISIBLE) {
        if (w->room->durable && w->room->synced < w->room->kept) {
            seek(w, KEY_NUMBER, w->room->synced);
            return;
        }
        w->visible = w->count;
        w->step++;
    }
    if (w->step == STEP_OLDEST) {
        if (w->base) {
            seek(w, KEY_POSITION, w->base);
            return;
        }
        w->oldest = 1;
        w->step++;
    }
    if (w->step == STEP_HIGH) {
        if (high != UINT64_MAX) {
            seek(w, key, high);
            return;
        }
        w->high = w->visible;
        w->step++;
    }
    if (w->step == STEP_LOW) {
        if (counts_from_the_old_end(q)) {
            uint64_t low = q->what == RODA_HISTORY_AFTER ? q->from : q->from ? q->from - 1 : 0;
            seek(w, key, low);
            return;
        }
        w->step++;
    }
    begin_page(w);
}

/* ---- asking -------------------------------------------------------------------------------- */

struct start_item {
    struct roda_item item;
    struct walk *walk;
};

static void start(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct walk *w = ((struct start_item *)(void *)item)->walk;

    roda_free(x, item);
    if (result < 0)
        give(w, -ECANCELED);
    else if (!w->count)
        finish(w);
    else
        next_step(w);
}

int history_find(struct history_ask *ask)
{
    struct partition *p = ask->p;
    struct log_room *room;
    struct start_item *item;
    struct walk *w;

    ask->bytes = NULL;
    ask->n_bytes = 0;
    ask->n = ask->more = 0;
    ask->before = ask->first = ask->last = 0;
    if (p->state != PARTITION_READY && p->state != PARTITION_BROKEN)
        return -EIO;
    room = log_rooms_find(&p->rooms, ask->query.room);
    if (!room)
        return -ENOENT;
    ask->epoch = room->epoch;
    ask->number = room->number;
    ask->last = room->durable && room->synced < room->kept ? room->synced : room->kept;
    w = roda_alloc(p->x, sizeof(*w));
    item = roda_alloc(p->x, sizeof(*item));
    if (!w || !item) {
        roda_free(p->x, w);
        roda_free(p->x, item);
        return -ENOMEM;
    }
    w->ask = ask;
    w->room = room;
    w->n_trees = room->n_trees;
    if (room->n_trees)
        memcpy(w->trees, room->trees, room->n_trees * sizeof(*room->trees));
    w->base = p->n_segments ? p->segments[0].base : 0;
    if (room->n_trees && room->trees[0].root >= w->base)
        w->count = room->count; /* else all of it is gone */
    ask->walk = w;
    item->walk = w;
    item->item.run = start;
    roda_post(p->x, p->x->worker, &item->item);
    return 0;
}
