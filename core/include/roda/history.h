#ifndef RODA_HISTORY_H
#define RODA_HISTORY_H
/*
 * The service "history/1": what was said in a room, by whoever keeps it (log).
 *
 * The owner of rooms asks start() at a room's home, before the first event of a room. Everybody
 * else asks read() on whatever worker: the answer comes by callback, exactly once per call, never
 * inside the call; arg is the caller's and should hold what the caller needs to find its own ctx
 * and connection again (by id: it may have gone). A call that returns an error runs no callback.
 *
 * Every call is made with the ctx that roda_service() returned. Rooms are named by any spelling.
 *
 * WHAT IS MISSING is told by the messages themselves: each carries the number that was shown
 * before it (prev). If that is greater than the number of the message before it in the answer (or
 * than the number after which one asked), the numbers between, prev included, are lost or no
 * longer kept. If its epoch differs as well, the broker ended without having written them all:
 * what was shown under the old epoch after the last kept number is lost, however much it was. No
 * number of a room is ever used twice, whatever the epoch. A room of which nothing is kept begins
 * anew, with another epoch and numbers anywhere behind those it had.
 *
 * A CLOSED ROOM (RODA_MSG_CLOSED) guards what was said in it as long as somebody is there. start()
 * says that others may come now: of what was said before that, nothing up to the newest closed
 * message is given any more, as if it were not kept.
 */
#include <roda/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RODA_HISTORY_ID "history/1"

/*
 * Where a room lives: its folded name (roda_text_fold) gives it a slot, the slot a partition of
 * the log, the partition a worker. The owner of rooms puts a room's home there, so that a
 * partition's files have one writer.
 */
#define RODA_SLOTS      64u
#define RODA_PARTITIONS 16u

static inline uint32_t roda_room_partition(struct roda_str folded_name)
{
    return (uint32_t)(roda_hash_stable(folded_name) % RODA_SLOTS % RODA_PARTITIONS);
}

static inline uint32_t roda_partition_worker(uint32_t partition, uint32_t n_workers)
{
    return partition % n_workers;
}

/* what is done with a room's messages */
enum {
    RODA_HISTORY_KEPT = 1,      /* they are kept */
    RODA_HISTORY_DURABLE = 2,   /* nobody is shown one before it is on disk */
    RODA_HISTORY_ANNOUNCED = 4, /* those who join should be told that they are kept, and: */
    RODA_HISTORY_ADDRESSES = 8, /* with the address that each was sent from */
    RODA_HISTORY_PRIVATE = 16,  /* so are messages to one person, wherever their people are */
};

struct roda_history_start {
    uint64_t epoch;
    uint64_t number; /* the last one that may have been used */
    int64_t time_ns; /* of the last message; the next one is not older */
};

/* what to read, up to max messages */
enum {
    RODA_HISTORY_LATEST = 1, /* the newest, not beyond `to` if that is not 0 */
    RODA_HISTORY_BEFORE,     /* the newest before `from` */
    RODA_HISTORY_AFTER,      /* the oldest after `from` */
    RODA_HISTORY_BETWEEN,    /* the oldest from `from` to `to`, both included */
    RODA_HISTORY_AROUND,     /* half of them up to `from`, half after it */
};

struct roda_history_query {
    uint32_t size; /* sizeof(struct roda_history_query) */
    uint32_t what;
    uint32_t by_time; /* 0: from and to are numbers; 1: CLOCK_REALTIME, nanoseconds */
    uint32_t max;     /* 1 .. 1000; one answer holds at most 64 messages and about 64 kB */
    uint64_t from, to;
    struct roda_str room;
};

struct roda_history_page {
    struct roda_msg *const *messages; /* oldest first; borrowed: take references to keep them */
    size_t n;
    uint32_t more;   /* 1: of what was asked there is more, from messages[n - 1]->number + 1 on */
    uint64_t before; /* the kept message before messages[0]: its number; 0: there is none */
    /* the room, when its messages were looked for; n may be 0 */
    uint64_t epoch;
    uint64_t number; /* the last one given or skipped */
    uint64_t first;  /* the oldest one kept; 0: nothing is kept */
    uint64_t last;   /* the newest one kept */
};

/* result: 0, or -ENOENT (nothing of this room is kept), -EIO, -ENOMEM, -ECANCELED (shutdown);
 * page is NULL then. On the worker that asked. */
typedef void roda_history_fn(void *arg, const struct roda_history_page *page, int result);

struct roda_history {
    uint32_t size;

    /* RODA_HISTORY_* bits of a room, as the configuration has it; 0: not kept. */
    uint32_t (*kept)(struct roda_ctx *x, struct roda_str room);
    /* Where a room's numbers begin. On the worker of its partition. -ENOENT: not kept, the caller
     * draws an epoch itself. */
    int (*start)(struct roda_ctx *x, struct roda_str room, struct roda_history_start *ret_start);
    /* -EINVAL: a query that makes no sense; -EAGAIN: 64 of this worker's are under way. */
    int (*read)(struct roda_ctx *x, const struct roda_history_query *query, roda_history_fn *fn,
                void *arg);
};

#ifdef __cplusplus
}
#endif
#endif
