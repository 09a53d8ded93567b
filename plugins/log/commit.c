#include "log.h"

#include <errno.h>
#include <string.h>

#include "partition.h"

/*
 * Who waits for the disk. Publish filters are entered in order and left in order, so what this
 * plugin defers on a worker is one FIFO, and so is this ring of entries, one per deferred message:
 *
 *     unwritten --partition_append()--> written --synced far enough--> let go
 *         (the file takes no more now)
 *
 * A durable room's message waits until it is on disk. Any other waits only where its number would
 * be further from the last synced one than LOG_SKIP allows (partition.h says why), where the file
 * takes no more, or behind one of its room that waits for the rest of the FIFO. All that one sync
 * has covered is let go by one call: group commit.
 *
 * If memory is out, a message has no entry: it is counted in `lost`, behind all entries, and so is
 * whatever comes until those have gone; they are refused.
 *
 * What a room's name means here (kept? durable? which entry of which partition?) is found by its
 * bytes in a small cache, since rooms speak often and names are dear to fold.
 */

#define WAITING_FIRST 64u
#define RETRY_MS      5u
#define PLACES        256u
#define PLACE_NAME    64u

struct waiting {
    struct partition *p;
    struct log_room *room;
    struct roda_msg *msg;
    uint64_t number; /* of its record */
    uint64_t end;    /* position behind its record; 0: not written yet */
    int result;      /* negative: refused */
    uint32_t ready;  /* 1: may go */
};

struct place {
    uint32_t len;
    uint32_t valid;
    struct partition *p; /* NULL: not kept */
    struct log_room *room;
    char name[PLACE_NAME];
};

struct commit {
    struct waiting *ring;              /* power of two */
    uint32_t room, oldest, n, written; /* written: so many from the oldest on were tried */
    size_t lost;
    uint32_t advancing, again;
    struct roda_timer *retry, *interval; /* NULL: it does not run */
    struct place places[PLACES];
    struct place other; /* of a name that has none there */
};

static struct commit *commit_of(const struct roda_ctx *x)
{
    return log_state_of(x)->commit;
}

int commit_new(struct roda_ctx *x)
{
    struct commit *c = roda_alloc(x, sizeof(*c));

    if (!c)
        return -ENOMEM;
    c->ring = roda_alloc(x, WAITING_FIRST * sizeof(*c->ring));
    if (!c->ring) {
        roda_free(x, c);
        return -ENOMEM;
    }
    c->room = WAITING_FIRST;
    log_state_of(x)->commit = c;
    return 0;
}

static struct waiting *entry(struct commit *c, uint32_t i)
{
    return &c->ring[(c->oldest + i) & (c->room - 1)];
}

static void entry_end(const struct waiting *what)
{
    if (what->room)
        what->room->waiting--;
    roda_msg_unref(what->msg);
}

void commit_free(struct roda_ctx *x)
{
    struct commit *c = commit_of(x);

    if (!c)
        return;
    for (uint32_t i = 0; i < c->n; i++)
        entry_end(entry(c, i));
    roda_count(x, LOG_DEFERRED, -(int64_t)c->n);
    roda_timer_stop(c->retry);
    roda_timer_stop(c->interval);
    roda_free(x, c->ring);
    roda_free(x, c);
    log_state_of(x)->commit = NULL;
}

/* ---- which room ---------------------------------------------------------------------------- */

static int compare(struct roda_str a, struct roda_str b)
{
    int r = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);

    return r ? r : (a.len > b.len) - (a.len < b.len);
}

/* "@ana,bia" for what two people write to each other, whoever speaks. */
static size_t private_name(const struct roda_msg *msg, char *to, size_t size)
{
    char nicks[2][LOG_NAME_MAX];
    struct roda_str a, b;
    int n[2];

    if (!msg->sender)
        return 0;
    n[0] = roda_text_fold(roda_person_get(msg->sender, RODA_PERSON_NICK), nicks[0], LOG_NAME_MAX);
    n[1] = roda_text_fold(msg->to, nicks[1], LOG_NAME_MAX);
    if (n[0] < 0 || n[1] < 0 || (size_t)n[0] + (size_t)n[1] + 2 > size)
        return 0;
    a = (struct roda_str){nicks[0], (size_t)n[0]};
    b = (struct roda_str){nicks[1], (size_t)n[1]};
    if (compare(a, b) > 0) {
        struct roda_str swap = a;
        a = b;
        b = swap;
    }
    to[0] = '@';
    memcpy(to + 1, a.ptr, a.len);
    to[1 + a.len] = ',';
    memcpy(to + 2 + a.len, b.ptr, b.len);
    return a.len + b.len + 2;
}

/* Rooms live where their name says; two people's home is elsewhere, so they get a partition of
 * the worker they are on. */
static struct partition *partition_of(const struct roda_ctx *x, struct roda_str folded)
{
    const struct log_state *state = log_state_of(x);
    uint32_t own = 0, chosen;

    if (!folded.len || *folded.ptr != '@')
        return state->partitions[roda_room_partition(folded)];
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++)
        own += state->partitions[i] != NULL;
    if (!own)
        return NULL;
    chosen = (uint32_t)(roda_hash_stable(folded) % own);
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++)
        if (state->partitions[i] && !chosen--)
            return state->partitions[i];
    return NULL;
}

/* By the first and the last bytes: names that collide cost a folding, no more. */
static struct place *place_slot(struct commit *c, struct roda_str name)
{
    uint32_t first = 0, last = 0;
    uint64_t h;

    if (name.len >= sizeof(first)) {
        memcpy(&first, name.ptr, sizeof(first));
        memcpy(&last, name.ptr + name.len - sizeof(last), sizeof(last));
    } else if (name.len) {
        first = (unsigned char)name.ptr[0];
        last = (unsigned char)name.ptr[name.len - 1];
    }
    h = ((uint64_t)first << 32 | last) + name.len;
    return &c->places[(h * UINT64_C(0x9e3779b97f4a7c15) >> 32) % PLACES];
}

void commit_forget_places(struct roda_ctx *x)
{
    struct commit *c = commit_of(x);

    for (uint32_t i = 0; c && i < PLACES; i++)
        c->places[i].valid = 0;
}

/* p NULL: not kept. room NULL: not there, or memory is out. Good until the next call. */
static const struct place *find_place(struct roda_ctx *x, const struct roda_msg *msg)
{
    struct commit *c = commit_of(x);
    char folded[2 * LOG_NAME_MAX];
    int direct = (msg->flags & RODA_MSG_DIRECT) != 0;
    int cached = !direct && msg->to.len <= PLACE_NAME;
    struct place *place = cached ? place_slot(c, msg->to) : &c->other;
    struct roda_str name;
    int n;

    if (cached && place->valid && place->len == msg->to.len &&
        !memcmp(place->name, msg->to.ptr, place->len))
        return place;
    place->valid = 0;
    place->p = NULL;
    place->room = NULL;
    if (direct && !log_conf_of(x)->private_messages)
        return place;
    n = direct ? (int)private_name(msg, folded, sizeof(folded))
               : roda_text_fold(msg->to, folded, sizeof(folded));
    if (n <= 0)
        return place;
    name = (struct roda_str){folded, (size_t)n};
    if (log_choice(log_conf_of(x), name))
        place->p = partition_of(x, name);
    if (place->p)
        place->room = partition_room(place->p, name, direct ? name : msg->to, 1);
    if (!cached || (place->p && !place->room))
        return place;
    place->valid = 1;
    place->len = (uint32_t)msg->to.len;
    memcpy(place->name, msg->to.ptr, place->len);
    return place;
}

/* ---- the ring ------------------------------------------------------------------------------ */

static int grow(struct roda_ctx *x, struct commit *c)
{
    struct waiting *ring = roda_alloc(x, 2 * c->room * sizeof(*ring));

    if (!ring)
        return -ENOMEM;
    for (uint32_t i = 0; i < c->n; i++)
        ring[i] = *entry(c, i);
    roda_free(x, c->ring);
    c->ring = ring;
    c->room *= 2;
    c->oldest = 0;
    return 0;
}

static void on_retry(struct roda_ctx *x, void *arg, int result)
{
    (void)arg;
    if (result < 0 || !commit_of(x))
        return;
    commit_of(x)->retry = NULL;
    commit_advance(x);
}

/* Soon again, though nothing may happen that calls; without memory, at the next tick. */
static void retry(struct roda_ctx *x, struct commit *c)
{
    if (!c->retry)
        c->retry = roda_timer_start(x, RETRY_MS, 0, on_retry, NULL);
}

/* Whether one more may wait. */
static int has_room(struct roda_ctx *x)
{
    struct commit *c = commit_of(x);

    return !c->lost && (c->n < c->room || !grow(x, c));
}

void commit_watch(struct roda_ctx *x)
{
    const struct commit *c = commit_of(x);

    roda_filter_use(x, RODA_FILTER_ADMIT, log_state_of(x)->broken || (c && c->lost));
}

static roda_verdict lose(struct roda_ctx *x)
{
    if (!commit_of(x)->lost++)
        commit_watch(x);
    retry(x, commit_of(x));
    return RODA_DEFER;
}

/* One that is not written. */
static void count_waiting(const struct waiting *what, int by)
{
    what->p->waiting += (uint32_t)by;
    what->room->unwritten += (uint64_t)by;
}

static roda_verdict wait_with(struct roda_ctx *x, struct waiting what)
{
    struct commit *c = commit_of(x);

    if (!has_room(x))
        return lose(x);
    (void)roda_msg_ref(what.msg);
    if (what.room)
        what.room->waiting++;
    if (!what.end && !what.ready)
        count_waiting(&what, 1);
    else if (c->written == c->n)
        c->written++;
    *entry(c, c->n++) = what;
    roda_count(x, LOG_DEFERRED, 1);
    if (what.ready)
        retry(x, c);
    return RODA_DEFER;
}

/* ---- filters ------------------------------------------------------------------------------- */

static int keeps(const struct roda_msg *msg)
{
    return RODA_KIND_NUMBERED(msg->kind) && msg->number;
}

/* Up to that number the room is on disk, or soon will be. */
static uint64_t sync_reaches(const struct log_room *room)
{
    return room->syncing > room->synced ? room->syncing : room->synced;
}

static int further_than_allowed(const struct log_room *room, uint64_t number)
{
    return !room->known || number > room->synced + LOG_SKIP;
}

/* It may be seen from now on; it is kept. */
static void show(struct partition *p, struct log_room *room, const struct roda_msg *msg,
                 uint64_t number)
{
    struct roda_msg recorded;

    room->shown = number;
    if (!log_state_of(p->x)->text)
        return;
    recorded = *msg;
    recorded.number = number;
    text_message(p, log_room_folded(room), &recorded);
}

static void on_interval(struct roda_ctx *x, void *arg, int result)
{
    (void)arg;
    if (result < 0 || !commit_of(x))
        return;
    commit_of(x)->interval = NULL;
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++) {
        struct partition *p = log_state_of(x)->partitions[i];
        if (p && p->state == PARTITION_READY && partition_synced(p) < partition_end(p))
            partition_want_sync(p);
    }
}

/* Something that nobody waits for was written. No timer runs while nothing is. */
static void sync_in_time(struct roda_ctx *x)
{
    const struct log_conf *conf = log_conf_of(x);
    struct commit *c = commit_of(x);

    if (c->interval || (conf->sync != LOG_SYNC_INTERVAL && !conf->sync_rooms.n))
        return;
    c->interval = roda_timer_start(x, (uint64_t)conf->sync_interval_ms, 0, on_interval, NULL);
}

static roda_verdict unlogged(struct roda_ctx *x, const struct waiting *what)
{
    struct log_room *room = what->room;

    room->shown = partition_number(room, what->msg);
    if (room->number < room->shown)
        room->number =
            room->shown; /* one before it, which is not written either, had set it back */
    what->p->unlogged++;
    roda_count(x, LOG_UNLOGGED, 1);
    return RODA_PASS;
}

/* Whether this one is refused if it cannot be written: a durable room's, and what could lead to a
 * number being used twice. */
static int needs_disk(const struct log_room *room, uint64_t number)
{
    return room->durable || further_than_allowed(room, number);
}

/* Then a refusal at once would be taken for the answer to a message before. */
static int waits(struct commit *c, const struct log_room *room)
{
    for (uint32_t i = 0; i < c->n; i++)
        if (entry(c, i)->room == room)
            return 1;
    return c->lost > 0;
}

roda_verdict commit_admit(struct roda_ctx *x, struct roda_event *ev)
{
    const struct place *place;

    if (!RODA_KIND_NUMBERED(ev->msg->kind))
        return RODA_PASS;
    place = find_place(x, ev->msg);
    if (!place->p || (place->room && !needs_disk(place->room, place->room->number + 1)))
        return RODA_PASS;
    if (place->room && place->p->state == PARTITION_READY && !commit_of(x)->lost)
        return RODA_PASS;
    if (waits(commit_of(x), place->room))
        return RODA_PASS; /* publish refuses it, in its turn */
    if (!place->room) {
        roda_count(x, LOG_REFUSED, 1);
        return roda_reject(ev, RODA_E_STORAGE, "not stored: out of memory; nothing was sent");
    }
    roda_count(x, LOG_REFUSED, 1);
    return roda_reject(ev, RODA_E_STORAGE, "not stored: %s; nothing was sent, try again later",
                       place->p->error ? strerror(-place->p->error) : "the log is not open");
}

static roda_verdict write_new(struct roda_ctx *x, struct waiting what)
{
    struct partition *p = what.p;
    struct log_room *room = what.room;
    roda_verdict verdict;
    int64_t end;
    int must, in_turn;

    what.number = partition_number(room, what.msg);
    must = needs_disk(room, what.number);
    in_turn = must || room->waiting; /* perhaps behind others, which the disk keeps longer */
    if (!room->number)               /* a new room begins behind those that were forgotten */
        room->missed = what.number - 1;
    if (room->number < what.number)
        room->number = what.number;
    if (p->state != PARTITION_READY) {
        what.ready = 1;
        what.result = p->error ? p->error : -EIO;
        return must ? wait_with(x, what) : unlogged(x, &what);
    }
    if (in_turn && !has_room(x))
        return lose(x); /* it is refused, so it must not be in the file */
    end = p->waiting ? -ENOBUFS : partition_append(p, room, what.msg);
    if (end == -ENOBUFS) {
        retry(x, commit_of(x));
        return wait_with(x, what);
    }
    if (end < 0) {
        what.ready = 1;
        what.result = (int)end;
        return must ? wait_with(x, what) : unlogged(x, &what);
    }
    what.end = (uint64_t)end;
    verdict = in_turn ? wait_with(x, what) : RODA_PASS;
    if (must || what.number > sync_reaches(room) + LOG_SKIP / 2)
        partition_want_sync(p);
    if (!must)
        sync_in_time(x);
    if (!in_turn)
        show(p, room, what.msg, what.number);
    return verdict;
}

roda_verdict commit_publish(struct roda_ctx *x, struct roda_event *ev)
{
    const struct place *place;
    struct waiting what;
    roda_verdict verdict;

    if (!keeps(ev->msg))
        return RODA_PASS;
    place = find_place(x, ev->msg);
    if (!place->p)
        return RODA_PASS;
    what = (struct waiting){.p = place->p, .room = place->room, .msg = ev->msg};
    if (!what.room) {
        what.ready = 1;
        what.result = -ENOMEM;
        return wait_with(x, what);
    }
    what.room->users++; /* a segment may begin meanwhile */
    verdict = write_new(x, what);
    what.room->users--;
    return verdict;
}

/* ---- letting go ---------------------------------------------------------------------------- */

static void write_one(struct roda_ctx *x, struct waiting *what)
{
    int64_t end;

    what->number = partition_number(what->room, what->msg);
    end = partition_append(what->p, what->room, what->msg);

    (void)x;
    if (end == -ENOBUFS || what->ready)
        return; /* ready: it broke, and commit_broken() has been here */
    count_waiting(what, -1);
    if (end > 0) {
        what->end = (uint64_t)end;
        return;
    }
    what->ready = 1;
    what->result = needs_disk(what->room, what->number) ? (int)end : 0;
}

/* As many as the files take now, in order; one that takes no more stops all. */
static void write_waiting(struct roda_ctx *x, struct commit *c)
{
    for (; c->written < c->n; c->written++) {
        struct waiting *what = entry(c, c->written);
        if (what->end || what->ready)
            continue;
        write_one(x, what);
        if (!what->end && !what->ready) {
            retry(x, c);
            return;
        }
        if (what->end && needs_disk(what->room, what->number))
            partition_want_sync(what->p);
        else if (what->end)
            sync_in_time(x);
    }
}

static int may_go(const struct waiting *what)
{
    if (what->ready)
        return 1;
    if (!what->end)
        return 0;
    if (what->end <= partition_synced(what->p))
        return 1;
    return !needs_disk(what->room, what->number);
}

/* The oldest that may go and have one result, at once. */
static uint32_t let_go(struct roda_ctx *x, struct commit *c)
{
    int result = 0;
    uint32_t n = 0;

    while (c->n && may_go(entry(c, 0))) {
        struct waiting what = *entry(c, 0);
        if (n && what.result != result)
            break;
        result = what.result;
        c->oldest = (c->oldest + 1) & (c->room - 1);
        c->n--;
        c->written -= c->written > 0;
        n++;
        if (result < 0)
            roda_count(x, LOG_REFUSED, 1);
        else if (what.end)
            show(what.p, what.room, what.msg, what.number);
        entry_end(&what);
    }
    if (!n)
        return 0;
    roda_count(x, LOG_DEFERRED, -(int64_t)n);
    roda_count(x, LOG_SYNCED_MESSAGES, result < 0 ? 0 : (int64_t)n);
    (void)roda_resume_oldest(x, n, result);
    return n;
}

void commit_advance(struct roda_ctx *x)
{
    struct commit *c = commit_of(x);

    if (!c)
        return;
    c->again = 1;
    if (c->advancing)
        return; /* somebody up the stack goes on */
    c->advancing = 1;
    while (c->again) {
        c->again = 0;
        write_waiting(x, c);
        while (let_go(x, c))
            c->again = 1;
        if (!c->n && c->lost) {
            size_t lost = c->lost;
            c->lost = 0;
            commit_watch(x);
            roda_count(x, LOG_REFUSED, (int64_t)lost);
            (void)roda_resume_oldest(x, lost, -ENOMEM);
            c->again = 1;
        }
    }
    c->advancing = 0;
}

void commit_broken(struct roda_ctx *x, const struct partition *p, int error)
{
    struct commit *c = commit_of(x);

    if (!c)
        return;
    for (uint32_t i = 0; i < PLACES; i++)
        if (c->places[i].p == p)
            c->places[i].valid = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        struct waiting *what = entry(c, i);
        if (what->p != p || what->ready)
            continue;
        if (!what->end)
            count_waiting(what, -1);
        what->ready = 1;
        if (what->end && what->end <= partition_synced(p)) {
            /* On disk, it only waits for its turn, which may come after the healing. */
            show(what->p, what->room, what->msg, what->number);
            what->end = 0;
            continue;
        }
        what->end = 0;
        what->result = needs_disk(what->room, what->number) ? error : 0;
        if (!what->result)
            (void)unlogged(x, what);
    }
    retry(x, c); /* not now: this may be inside a publish filter */
}
