#include "directory.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <roda/history.h>
#include <roda/rooms.h>

#include "ids.h"

/*
 * The one thing that workers share, behind one mutex. It is asked when somebody comes, goes,
 * changes name, joins or leaves, or writes to one person; talk in a room never asks.
 *
 * A nick leads to a person and the connection. While its owner is about to change it, both the old
 * and the new one lead to him, and after he has gone it stays reserved, leading to nobody, until
 * all his rooms know: so a nick in what others read is never two people's.
 *
 * A room is here as long as its home keeps a state for it, or a join is under way to it: whichever
 * comes last takes it out, so that a join never meets a home that has just given up the room. A
 * reference keeps a room's memory, not its place here.
 *
 * Names are compared folded, and hashed with a key, since anybody may choose them.
 */

enum { NICK_RESERVED = 1, NICK_STRANDED = 2 };

struct nick {
    roda_conn_id conn;
    struct roda_person *person; /* NULL: a free slot */
    uint32_t hash;
    uint32_t flags;
};

struct directory {
    pthread_mutex_t mutex;
    struct nick *nicks; /* open addressing, linear probing, at most 7/8 full */
    uint32_t n_nicks, nicks_capacity;
    struct room **buckets;
    uint32_t n_rooms, n_buckets, max_rooms;
    struct ids ids;
};

int directory_new(struct roda_ctx *x, uint32_t max_rooms, struct directory **ret_directory)
{
    enum { START = 64 };
    struct directory *d = roda_alloc(x, sizeof(*d));

    if (!d)
        return -ENOMEM;
    d->nicks = roda_alloc(x, START * sizeof(*d->nicks));
    d->buckets = roda_alloc(x, START * sizeof(struct room *));
    if (!d->nicks || !d->buckets || pthread_mutex_init(&d->mutex, NULL)) {
        roda_free(x, d->nicks);
        roda_free(x, d->buckets);
        roda_free(x, d);
        return -ENOMEM;
    }
    d->nicks_capacity = d->n_buckets = START;
    d->max_rooms = max_rooms;
    *ret_directory = d;
    return 0;
}

void directory_free(struct roda_ctx *x, struct directory *d)
{
    if (!d)
        return;
    for (uint32_t i = 0; i < d->nicks_capacity; i++)
        roda_person_unref(d->nicks[i].person);
    for (uint32_t i = 0; i < d->n_buckets; i++) {
        for (struct room *room; (room = d->buckets[i]);) {
            d->buckets[i] = room->next;
            room_unref(x, room);
        }
    }
    ids_clear(x, &d->ids);
    (void)pthread_mutex_destroy(&d->mutex);
    roda_free(x, d->nicks);
    roda_free(x, d->buckets);
    roda_free(x, d);
}

static void lock(struct directory *d)
{
    (void)pthread_mutex_lock(&d->mutex);
}

static void unlock(struct directory *d)
{
    (void)pthread_mutex_unlock(&d->mutex);
}

/* ---- names ----------------------------------------------------------------------------------- */

int name_fold(struct roda_str name, struct name *ret_name)
{
    int len = roda_text_fold(name, ret_name->text, sizeof(ret_name->text));

    if (len <= 0)
        return -EINVAL;
    ret_name->len = (uint8_t)len;
    ret_name->hash = (uint32_t)roda_hash((struct roda_str){ret_name->text, (size_t)len});
    return 0;
}

static int is_folded_of(struct roda_str name, const struct name *folded)
{
    if (name.len != folded->len)
        return 0;
    for (size_t i = 0; i < name.len; i++) {
        char byte = name.ptr[i];
        if (byte >= 'A' && byte <= 'Z')
            byte = (char)(byte - 'A' + 'a');
        if (byte != folded->text[i])
            return 0;
    }
    return 1;
}

struct roda_str name_shown(struct roda_str name, const struct name *folded)
{
    if (is_folded_of(name, folded))
        return name; /* only case was folded: it is NFC as it stands */
    return (struct roda_str){folded->text, folded->len};
}

static int is_name(const struct name *name, struct roda_str folded)
{
    return name->len == folded.len && !memcmp(name->text, folded.ptr, folded.len);
}

/* ---- nicks ----------------------------------------------------------------------------------- */

static int has_nick(const struct roda_person *person, const struct name *nick)
{
    struct name own;

    return !name_fold(roda_person_get(person, RODA_PERSON_NICK), &own) &&
           is_name(nick, (struct roda_str){own.text, own.len});
}

/* Any capacity will do, so that the table can grow in small steps: it is a good part of what an
 * idle connection costs. */
static uint32_t nick_home(const struct nick *nick, uint32_t capacity)
{
    return (uint32_t)((uint64_t)nick->hash * capacity >> 32);
}

static uint32_t distance(uint32_t from, uint32_t to, uint32_t capacity)
{
    return to >= from ? to - from : to + capacity - from;
}

/* The slot of that nick, or the free one where it would be. */
static struct nick *nick_find(const struct directory *d, const struct name *name)
{
    const struct nick wanted = {.hash = name->hash};
    uint32_t i = nick_home(&wanted, d->nicks_capacity);

    while (d->nicks[i].person &&
           (d->nicks[i].hash != name->hash || !has_nick(d->nicks[i].person, name)))
        i = i + 1 == d->nicks_capacity ? 0 : i + 1;
    return &d->nicks[i];
}

static int nicks_grow(struct roda_ctx *x, struct directory *d)
{
    uint32_t capacity = d->nicks_capacity + d->nicks_capacity / 4;
    struct nick *nicks = roda_alloc(x, capacity * sizeof(*nicks));

    if (!nicks)
        return -ENOMEM;
    for (uint32_t from = 0; from < d->nicks_capacity; from++) {
        uint32_t to = nick_home(&d->nicks[from], capacity);
        if (!d->nicks[from].person)
            continue;
        while (nicks[to].person)
            to = to + 1 == capacity ? 0 : to + 1;
        nicks[to] = d->nicks[from];
    }
    roda_free(x, d->nicks);
    d->nicks = nicks;
    d->nicks_capacity = capacity;
    return 0;
}

static int claim(struct roda_ctx *x, struct directory *d, const struct name *name,
                 const struct roda_person *person, roda_conn_id conn)
{
    struct nick *nick;

    if (d->n_nicks + 1 > d->nicks_capacity - d->nicks_capacity / 8 && nicks_grow(x, d))
        return -ENOMEM;
    nick = nick_find(d, name);
    if (nick->person)
        return -EEXIST;
    *nick = (struct nick){.conn = conn, .person = roda_person_ref(person), .hash = name->hash};
    d->n_nicks++;
    return 0;
}

int directory_claim(struct roda_ctx *x, struct directory *d, const struct roda_person *person,
                    roda_conn_id conn)
{
    struct name name;
    int r;

    if (name_fold(roda_person_get(person, RODA_PERSON_NICK), &name))
        return -EINVAL;
    lock(d);
    r = claim(x, d, &name, person, conn);
    unlock(d);
    return r;
}

/* Those behind it that could stand here move up, so that no search ends too early. */
static void nick_remove(struct directory *d, struct nick *nick)
{
    uint32_t n = d->nicks_capacity, hole = (uint32_t)(nick - d->nicks), i = hole;

    for (;;) {
        i = i + 1 == n ? 0 : i + 1;
        if (!d->nicks[i].person)
            break;
        if (distance(nick_home(&d->nicks[i], n), i, n) < distance(hole, i, n))
            continue;
        d->nicks[hole] = d->nicks[i];
        hole = i;
    }
    d->nicks[hole] = (struct nick){.person = NULL};
    d->n_nicks--;
}

void directory_release(struct directory *d, const struct roda_person *person)
{
    struct roda_person *had = NULL;
    struct nick *nick;
    struct name name;

    if (name_fold(roda_person_get(person, RODA_PERSON_NICK), &name))
        return;
    lock(d);
    nick = nick_find(d, &name);
    if (nick->person && roda_person_id(nick->person) == roda_person_id(person)) {
        had = nick->person;
        nick_remove(d, nick);
    }
    unlock(d);
    roda_person_unref(had);
}

static void mark(struct directory *d, const struct roda_person *person, uint32_t flags)
{
    struct nick *nick;
    struct name name;

    if (name_fold(roda_person_get(person, RODA_PERSON_NICK), &name))
        return;
    lock(d);
    nick = nick_find(d, &name);
    if (nick->person && roda_person_id(nick->person) == roda_person_id(person))
        nick->flags |= flags;
    unlock(d);
}

void directory_reserve(struct directory *d, const struct roda_person *person)
{
    mark(d, person, NICK_RESERVED);
}

void directory_strand(struct directory *d, const struct roda_person *person)
{
    mark(d, person, NICK_RESERVED | NICK_STRANDED);
}

struct roda_person *directory_stranded(struct directory *d, uint32_t worker, roda_conn_id *ret_conn)
{
    struct roda_person *person = NULL;

    lock(d);
    for (uint32_t i = 0; i < d->nicks_capacity && !person; i++) {
        struct nick *nick = &d->nicks[i];
        if (!(nick->flags & NICK_STRANDED) || RODA_CONN_WORKER(nick->conn) != worker)
            continue;
        nick->flags &= ~(uint32_t)NICK_STRANDED;
        *ret_conn = nick->conn;
        person = roda_person_ref(nick->person);
    }
    unlock(d);
    return person;
}

void directory_update(struct directory *d, const struct roda_person *person)
{
    struct roda_person *had = NULL;
    struct nick *nick;
    struct name name;

    if (name_fold(roda_person_get(person, RODA_PERSON_NICK), &name))
        return;
    lock(d);
    nick = nick_find(d, &name);
    if (nick->person && roda_person_id(nick->person) == roda_person_id(person)) {
        had = nick->person;
        nick->person = roda_person_ref(person);
    }
    unlock(d);
    roda_person_unref(had);
}

struct roda_person *directory_person(struct directory *d, struct roda_str nick,
                                     roda_conn_id *ret_conn)
{
    struct roda_person *person = NULL;
    const struct nick *found;
    struct name name;

    if (name_fold(nick, &name))
        return NULL;
    lock(d);
    found = nick_find(d, &name);
    if (found->person && !(found->flags & NICK_RESERVED)) {
        person = roda_person_ref(found->person);
        if (ret_conn)
            *ret_conn = found->conn;
    }
    unlock(d);
    return person;
}

/* ---- rooms ----------------------------------------------------------------------------------- */

struct room *room_ref(struct room *room)
{
    (void)atomic_fetch_add_explicit(&room->references, 1, memory_order_relaxed);
    return room;
}

void room_unref(struct roda_ctx *x, struct room *room)
{
    if (room && atomic_fetch_sub_explicit(&room->references, 1, memory_order_acq_rel) == 1)
        roda_free(x, room);
}

static struct room *room_find(const struct directory *d, const struct name *name)
{
    struct room *room = d->buckets[name->hash & (d->n_buckets - 1)];

    while (room && (room->hash != name->hash || !is_name(name, room_folded(room))))
        room = room->next;
    return room;
}

/* Failing is no harm: chains are longer, that is all. */
static void buckets_grow(struct roda_ctx *x, struct directory *d)
{
    uint32_t n = d->n_buckets * 2;
    struct room **buckets = roda_alloc(x, n * sizeof(struct room *));

    if (!buckets)
        return;
    for (uint32_t i = 0; i < d->n_buckets; i++) {
        for (struct room *room, *next = d->buckets[i]; (room = next);) {
            next = room->next;
            room->next = buckets[room->hash & (n - 1)];
            buckets[room->hash & (n - 1)] = room;
        }
    }
    roda_free(x, d->buckets);
    d->buckets = buckets;
    d->n_buckets = n;
}

static int room_new(struct roda_ctx *x, struct directory *d, struct roda_str shown,
                    const struct name *name, struct room **ret_room)
{
    struct room *room = roda_alloc(x, sizeof(*room) + shown.len + name->len);
    struct roda_str folded = {name->text, name->len};
    int r;

    if (!room)
        return -ENOMEM;
    r = ids_add(x, &d->ids, d->max_rooms, room, &room->id);
    if (r) {
        roda_free(x, room);
        return r;
    }
    room->home = roda_partition_worker(roda_room_partition(folded), x->n_workers);
    room->references = 1; /* the directory's own */
    room->hash = name->hash;
    room->name_len = (uint8_t)shown.len;
    room->folded_len = name->len;
    memcpy(room->text, shown.ptr, shown.len);
    memcpy(room->text + shown.len, folded.ptr, folded.len);
    if (d->n_rooms++ >= d->n_buckets)
        buckets_grow(x, d);
    room->next = d->buckets[room->hash & (d->n_buckets - 1)];
    d->buckets[room->hash & (d->n_buckets - 1)] = room;
    *ret_room = room;
    return 0;
}

static void room_remove(struct roda_ctx *x, struct directory *d, struct room *room)
{
    struct room **link = &d->buckets[room->hash & (d->n_buckets - 1)];

    while (*link != room)
        link = &(*link)->next;
    *link = room->next;
    d->n_rooms--;
    ids_remove(&d->ids, room->id);
    room_unref(x, room);
}

int directory_join(struct roda_ctx *x, struct directory *d, struct roda_str name, int create,
                   struct room **ret_room)
{
    struct room *room;
    struct name folded;
    int r = 0;

    if (name_fold(name, &folded))
        return -EINVAL;
    lock(d);
    room = room_find(d, &folded);
    if (!room && create)
        r = room_new(x, d, name_shown(name, &folded), &folded, &room);
    else if (!room)
        r = -ENOENT;
    if (!r) {
        room->joins++;
        *ret_room = room_ref(room);
    }
    unlock(d);
    return r;
}

void directory_joined(struct roda_ctx *x, struct directory *d, struct room *room)
{
    lock(d);
    if (!--room->joins && !room->open)
        room_remove(x, d, room);
    unlock(d);
}

void directory_open(struct directory *d, struct room *room)
{
    lock(d);
    room->open = 1;
    unlock(d);
}

int directory_close(struct roda_ctx *x, struct directory *d, struct room *room)
{
    int closed;

    lock(d);
    closed = !room->joins;
    if (closed) {
        room->open = 0;
        room_remove(x, d, room);
    }
    unlock(d);
    return closed;
}

struct room *directory_room(struct directory *d, struct roda_str name)
{
    struct room *room;
    struct name folded;

    if (name_fold(name, &folded))
        return NULL;
    lock(d);
    room = room_find(d, &folded);
    if (room)
        room_ref(room);
    unlock(d);
    return room;
}

struct room *directory_room_by_id(struct directory *d, uint64_t id)
{
    struct room *room;

    lock(d);
    room = ids_find(&d->ids, id);
    if (room)
        room_ref(room);
    unlock(d);
    return room;
}

static int is_listed(struct room *room)
{
    return room && atomic_load_explicit(&room->members, memory_order_relaxed) &&
           !(atomic_load_explicit(&room->modes, memory_order_relaxed) & RODA_ROOM_SECRET);
}

size_t directory_list(struct directory *d, uint32_t from, struct room **ret_rooms, size_t max,
                      uint32_t *ret_next)
{
    size_t n = 0;

    *ret_next = 0;
    lock(d);
    for (uint32_t i = from; i < d->ids.used; i++) {
        if (!is_listed(d->ids.slots[i].value))
            continue;
        if (n == max) {
            *ret_next = i;
            break;
        }
        ret_rooms[n++] = room_ref(d->ids.slots[i].value);
    }
    unlock(d);
    return n;
}
