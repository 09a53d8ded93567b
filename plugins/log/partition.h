#ifndef RODA_LOG_PARTITION_H
#define RODA_LOG_PARTITION_H
/*
 * One partition of the log: its segments, its tail, its rooms. It lives on one worker.
 *
 *   CLOSED --partition_open()--> OPENING --recovered, tail ready--> READY
 *   READY  --a write or sync failed, the disk is full--> BROKEN --tick--> OPENING (heals)
 *
 * OPENING is recovery.c: it lists the partition's files, reads the newest segment that has a whole
 * snapshot, sets up `rooms` and `segments`, and cuts a torn tail. partition.c then goes on in that
 * segment if it ended cleanly, else in a fresh one, whose snapshot is the state that was found.
 *
 * Reading (history.c, text.c) asks partition_read() by position: what was appended lately comes
 * from `cache`, the rest from the files.
 */
#include "log.h"
#include "record.h"
#include "room.h"

struct log_segment {
    uint64_t base;
    uint64_t bytes; /* of records and header; the tail's grows */
    int64_t created_ns;
    struct roda_file *file; /* for reading; NULL: not open. The tail's is partition->tail */
    uint32_t opening;       /* 1: it is being opened, 2: and a new file has its name since then */
    uint32_t readers;       /* reads under way */
    uint64_t used_ms;       /* when it was read last */
};

enum partition_state { PARTITION_CLOSED, PARTITION_OPENING, PARTITION_READY, PARTITION_BROKEN };

struct partition {
    struct roda_ctx *x;
    uint32_t index;
    enum partition_state state;
    int error;                    /* BROKEN: why */
    uint32_t waiting;             /* messages in commit.c's FIFO that are not appended yet */
    struct log_segment *segments; /* by base, oldest first; the last one is the tail's */
    uint32_t n_segments, segments_room;
    struct log_rooms rooms;
    struct writer *writer;     /* partition.c: tail, next segment, sync */
    struct recovery *recovery; /* recovery.c: while OPENING */
    struct reading *reading;   /* read.c: newest bytes, blocks, reads under way; NULL: none yet */
    uint32_t removing;         /* retention.c: a segment is being removed */
    uint64_t complained_ms;    /* when it was said last that one cannot be removed; 0: never */
    uint64_t unlogged;         /* BROKEN: messages that were shown since and could not be written */
};

/* What recovery.c found; partition.c makes the tail from it. */
struct recovered {
    uint32_t clean;     /* 1: the newest segment ends with LOG_END */
    uint64_t end;       /* position behind the last good record of the newest segment; 0: none */
    uint64_t next_base; /* where a fresh segment goes */
    uint64_t segment_bytes;       /* of the newest segment's header */
    const struct log_void *voids; /* healing: what was refused though its records stand there */
    uint32_t n_voids;             /* both until fn returns */
};
typedef void recovered_fn(struct partition *p, const struct recovered *found, int result);
/* Fills p->rooms and p->segments from the files (the directory exists). Rooms that are in p->rooms
 * already (healing) keep number, and durable ones keep nothing beyond `synced`: what was refused.
 * At the start of the broker (first = 1), after an unclean end, it gives a new epoch and skips
 * numbers (LOG_SKIP) for each room of which not everything shown must be on disk. Healing, it
 * trusts a sync only up to the position `synced`: segments that reach farther are written anew,
 * into files of the same names. fn runs once, never inside the call. */
int recovery_start(struct partition *p, int first, uint64_t synced, recovered_fn *fn);
void recovery_cancel(struct partition *p);

/* So many numbers beyond the last synced one may be shown; after an unclean end a room's numbers
 * go on behind them, so none is used twice. */
#define LOG_SKIP 100000u

/* partition.c */
int partition_open(struct partition *p, int first, void (*fn)(struct partition *p, int result));
/* Behind everything appended: LOG_END, sync, close. The partition's memory is gone by and by. */
void partition_close(struct partition *p);
/* Once a second. */
void partition_tick(struct partition *p);
/* Appends a message of a room in use: msg has number, prev, time and epoch. Returns the position
 * behind the record; -ENOBUFS: later; else it broke. */
int64_t partition_append(struct partition *p, struct log_room *room, const struct roda_msg *msg);
/* The number that the record of a message has, if it is the room's next: the message's own. Two
 * people (folded name "@a,b") begin at 1 with each run of the broker; their records go on
 * counting. */
uint64_t partition_number(const struct log_room *room, const struct roda_msg *msg);
uint64_t partition_end(const struct partition *p);
uint64_t partition_synced(const struct partition *p);
/* The base of the newest segment whose snapshot is on disk: nothing needs those before it. 0: not
 * known. */
uint64_t partition_relied(const struct partition *p);
/* Wants everything appended so far on disk; commit_advance() tells when. */
void partition_want_sync(struct partition *p);
void partition_break(struct partition *p, int error);
/* A room by its folded name; made if create. NULL: not there, or memory is out. */
struct log_room *partition_room(struct partition *p, struct roda_str folded, struct roda_str name,
                                int create);

/* read.c: the record at a position; bytes are valid until fn returns. result: 0, -ENOENT (no
 * longer kept), -EIO, -EILSEQ (damaged), -ENOMEM, -ECANCELED. Never inside the call. */
typedef void partition_read_fn(struct partition *p, void *arg, const struct log_record *record,
                               int result);
int partition_read(struct partition *p, uint64_t position, partition_read_fn *fn, void *arg);
/* The same; but where the record is damaged, the newest one of that room before it is looked for
 * and given instead (its count and number say so), or -ENOENT. For pointers, so that one damaged
 * record does not hide all that is behind it. */
int partition_read_back(struct partition *p, uint32_t room, uint64_t position,
                        partition_read_fn *fn, void *arg);
/* What partition.c appends passes here: the newest bytes are kept in memory. */
void partition_cache_put(struct partition *p, uint64_t position, struct roda_str bytes);
void partition_cache_free(struct partition *p);
/* The tail's segment is the last of `segments` now, and is read through its own file, which sees
 * what is not written yet. NULL: there is none any more. The file stays the caller's. */
void partition_tail_file(struct partition *p, struct roda_file *file);
/* The same for the segment before it, as long as not all of it is written: until its last sync is
 * done. NULL before that file is closed. */
void partition_old_file(struct partition *p, struct roda_file *file);
/* Another file has that segment's name, with the same records: reads see that one from now on. */
void partition_file_changed(struct partition *p, uint64_t base);
struct log_segment *partition_segment(struct partition *p, uint64_t position); /* NULL: gone */

/* retention.c: removes whole segments that are too old or too many; from a timer, in steps. */
void retention_step(struct partition *p);
/* retention.c: tells the other workers what this partition has; after a segment came or went. */
void retention_usage(struct partition *p);

#endif
