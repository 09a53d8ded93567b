#ifndef RODA_LOG_ROOM_H
#define RODA_LOG_ROOM_H
/* The rooms of one partition, as their records say and beyond: a table by folded name and by id.
 * A room is there from its first message until none of its records is left; see forget_rooms() in
 * partition.c. */
#include "record.h"

struct log_room {
    struct log_room *next_by_name, *next_by_id;
    struct log_room *older, *newer; /* by the time they were added, so by id */
    uint32_t id;
    uint32_t users;   /* what is done with it right now: it cannot be taken out */
    uint32_t waiting; /* its messages in commit.c's FIFO */
    uint32_t dirty;   /* 1: on the partition's list of rooms with unsynced records */
    uint32_t durable; /* 1: nobody sees a message before it is on disk */
    uint64_t epoch;
    uint64_t number;    /* the last one given, recorded or not */
    uint64_t unwritten; /* of them, the newest so many wait in commit.c: nobody has seen them */
    uint64_t kept;      /* the last one recorded; 0: none */
    uint64_t shown;     /* the last one that somebody may have seen; records beyond were refused */
    uint64_t missed;    /* the last one shown when it was last counted what is not kept of those */
    uint64_t synced;    /* the last number that is surely on disk */
    uint64_t stated;    /* the number that the last LOG_ROOM record gives */
    uint64_t syncing;   /* what synced becomes when the sync under way is done */
    uint32_t known;     /* 1: a record about this room is surely on disk */
    uint32_t recorded;  /* 1: a LOG_ROOM record with this epoch is in the tail segment */
    int64_t time_ns;
    uint64_t count;
    uint64_t closed; /* position of the newest record that was said in a closed room; 0: none */
    uint64_t floor;  /* history shows nothing below: others were there */
    struct log_tree *trees; /* newest first, room for trees_room */
    uint32_t n_trees, trees_room;
    /* The oldest record that is kept, as long as first_position is; history.c looks for it. */
    uint64_t first, first_position, first_count;
    struct log_room *next_dirty, *next_syncing; /* partition.c's lists */
    uint32_t folded_len, name_len;
    char text[]; /* folded name, then the name as shown */
};

struct log_rooms {                      /* zeroed: empty */
    struct log_room **by_name, **by_id; /* chains; as many of one as of the other, a power of two */
    struct log_room *oldest, *newest;
    uint32_t n_chains, n;
    uint32_t ids;   /* the last one given; none is given twice */
    uint64_t floor; /* a new room's numbers begin behind it: those who were taken out had smaller */
};

struct log_room *log_rooms_find(const struct log_rooms *rooms, struct roda_str folded);
struct log_room *log_rooms_by_id(const struct log_rooms *rooms, uint32_t id);
/* NULL: memory is out. id 0: the next free one. */
struct log_room *log_rooms_add(struct roda_ctx *x, struct log_rooms *rooms, uint32_t id,
                               struct roda_str folded, struct roda_str name);
/* It is forgotten but for its last number, which raises the floor. */
void log_rooms_remove(struct roda_ctx *x, struct log_rooms *rooms, struct log_room *room);
void log_rooms_clear(struct roda_ctx *x, struct log_rooms *rooms);
/* Sets what a LOG_ROOM record says / what one more message in the chain changes (kept, count,
 * trees, time, epoch; number if it is greater). -ENOMEM: nothing has changed. */
int log_room_set(struct roda_ctx *x, struct log_room *room, const struct log_room_record *record);
int log_room_append(struct roda_ctx *x, struct log_room *room, uint64_t position, uint64_t epoch,
                    uint64_t number, int64_t time_ns);
/* Everybody who was in the room has gone: what they said among themselves stays theirs. */
void log_room_vacate(struct log_room *room);
/* Back pointer and jump of the record that will stand at `position`, before log_room_append(). */
void log_room_pointers(const struct log_room *room, struct log_message *ret_message);
void log_room_describe(const struct log_room *room, struct log_room_record *ret_record);
struct roda_str log_room_folded(const struct log_room *room);
struct roda_str log_room_name(const struct log_room *room);

#endif
