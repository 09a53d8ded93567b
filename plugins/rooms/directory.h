#ifndef RODA_ROOMS_DIRECTORY_H
#define RODA_ROOMS_DIRECTORY_H
/* Who and what is called how: the nicks and rooms of all workers. The model stands in
 * directory.c. All functions may be called on every worker. */
#include <roda/plugin.h>

struct directory;

/* What all workers know of a room. Counted; name, id and home never change. */
struct room {
    uint64_t id;   /* see ids.h */
    uint32_t home; /* the worker that orders it */
    _Atomic uint32_t references;
    _Atomic uint32_t members; /* written at its home */
    _Atomic uint32_t modes;   /* likewise: RODA_ROOM_* */
    uint32_t joins;           /* the directory's: joins under way */
    uint8_t open;             /* the directory's: its home keeps a state */
    uint8_t name_len;
    uint8_t folded_len;
    uint32_t hash;
    struct room *next; /* the directory's */
    char text[];       /* the name, and its folded form behind it */
};

static inline struct roda_str room_name(const struct room *room)
{
    return (struct roda_str){room->text, room->name_len};
}
static inline struct roda_str room_folded(const struct room *room)
{
    return (struct roda_str){room->text + room->name_len, room->folded_len};
}
struct room *room_ref(struct room *room);
void room_unref(struct roda_ctx *x, struct room *room); /* NULL is a no-op */

/* A name in the form in which names are compared. */
#define NAME_BYTES_MAX 255
struct name {
    uint32_t hash;
    uint8_t len;
    char text[NAME_BYTES_MAX];
};
int name_fold(struct roda_str name, struct name *ret_name); /* -EINVAL: can be nobody's */
/* A name in the form in which it is kept and shown: NFC. Points into name or folded. */
struct roda_str name_shown(struct roda_str name, const struct name *folded);

int directory_new(struct roda_ctx *x, uint32_t max_rooms, struct directory **ret_directory);
void directory_free(struct roda_ctx *x, struct directory *d); /* NULL is a no-op */

/* ---- nicks ----------------------------------------------------------------------------------- */
/* -EEXIST: somebody else has it; -EINVAL: no name; -ENOMEM. */
int directory_claim(struct roda_ctx *x, struct directory *d, const struct roda_person *person,
                    roda_conn_id conn);
/* Nobody is found by this nick any more, but nobody may take it, either. */
void directory_reserve(struct directory *d, const struct roda_person *person);
/* Reserved, and its rooms are not told yet; to be taken up again by that worker. The one who takes
 * it up gets a reference, and the mark is gone. */
void directory_strand(struct directory *d, const struct roda_person *person);
struct roda_person *directory_stranded(struct directory *d, uint32_t worker,
                                       roda_conn_id *ret_conn);
void directory_release(struct directory *d, const struct roda_person *person);
/* The same nick, but for the case of its letters, is now that person's. */
void directory_update(struct directory *d, const struct roda_person *person);
/* Returns a reference, or NULL. */
struct roda_person *directory_person(struct directory *d, struct roda_str nick,
                                     roda_conn_id *ret_conn);

/* ---- rooms: those that return one return a reference ----------------------------------------- */
/* The room's join is under way until directory_joined(). -ENOENT: there is none, and create is 0;
 * -ENFILE: as many as may be; -EINVAL: no name; -ENOMEM. */
int directory_join(struct roda_ctx *x, struct directory *d, struct roda_str name, int create,
                   struct room **ret_room);
void directory_joined(struct roda_ctx *x, struct directory *d, struct room *room);
/* At the room's home: there is a state now; and: 1, there need not be one any more, and the name
 * is free; 0: somebody is about to join. */
void directory_open(struct directory *d, struct room *room);
int directory_close(struct roda_ctx *x, struct directory *d, struct room *room);
struct room *directory_room(struct directory *d, struct roda_str name);
struct room *directory_room_by_id(struct directory *d, uint64_t id);
/* Rooms that are not secret and have members, by index upwards from `from`. Returns how many, at
 * most max; *ret_next is where to go on, 0: that was all. */
size_t directory_list(struct directory *d, uint32_t from, struct room **ret_rooms, size_t max,
                      uint32_t *ret_next);

#endif
