#ifndef RODA_LOG_H
#define RODA_LOG_H
/* What the files of the plugin "log" share. The model stands in log.c. */
#include <stdint.h>

#include <roda/history.h>
#include <roda/plugin.h>

#define LOG_SYNC_ROOMS_MAX 2048u /* bytes of sync_rooms */
enum { LOG_SYNC_NEVER, LOG_SYNC_INTERVAL, LOG_SYNC_ALWAYS };

struct log_conf {
    const char *directory;
    struct roda_list rooms;      /* "*, !secret": kept; the last that matches decides */
    int64_t sync;                /* LOG_SYNC_* */
    struct roda_list sync_rooms; /* "always: ops, audit" */
    int64_t sync_interval_ms;
    int64_t segment_bytes;
    int64_t segment_age_ms;
    int64_t keep_ms;    /* 0: for ever */
    int64_t keep_bytes; /* of all partitions; 0: no bound */
    int announce, private_messages, addresses;
    const char *text_directory; /* empty: no text files */
    int64_t text_files;         /* open at once */
};

struct partition;
struct commit;
struct text;
struct service;

struct log_shared {                                /* of all workers; made by init() */
    struct partition *partitions[RODA_PARTITIONS]; /* freed by fini(), when nobody reads any more */
    struct log_usage {
        uint64_t bytes;    /* of the sealed segments; atomic */
        int64_t oldest_ns; /* when the oldest of them was created; 0: none; atomic */
    } usage[RODA_PARTITIONS];
    uint32_t told; /* bits of what one worker has told for all; log_directory_failed(); atomic */
};

struct log_state {                                 /* per worker */
    struct partition *partitions[RODA_PARTITIONS]; /* NULL: another worker's */
    struct commit *commit;
    struct text *text; /* NULL: no text files */
    struct service *service;
    char *scratch; /* LOG_RECORD_MAX bytes, where records are encoded */
    struct roda_timer *tick;
    uint32_t ticks;
    uint32_t opening; /* partitions that are not open yet */
    uint32_t broken;  /* that cannot be written now */
    int start_result;
};

/* metrics; names and help stand in log.c */
enum {
    LOG_RECORDS,
    LOG_BYTES,
    LOG_SYNCS,
    LOG_SYNCED_MESSAGES,
    LOG_REFUSED,
    LOG_UNLOGGED,
    LOG_DEFERRED, /* gauge */
    LOG_BROKEN,   /* gauge: partitions */
    LOG_SEGMENTS, /* gauge */
    LOG_READS,
    LOG_READS_CACHED,
    LOG_PAGES,
    LOG_TEXT_LINES,
    LOG_TEXT_LOST,
};

static inline const struct log_conf *log_conf_of(const struct roda_ctx *x)
{
    return x->conf;
}

static inline struct log_state *log_state_of(const struct roda_ctx *x)
{
    return x->state;
}

/* directory.c: what may not stand in the configuration; and why a directory cannot be made, with
 * what to do: once, though each worker finds it. */
enum log_directory { LOG_DIRECTORY, LOG_TEXT_DIRECTORY };
int log_directory_check(const struct log_conf *conf, struct roda_conf_errors *errors);
void log_directory_failed(struct roda_ctx *x, enum log_directory which, int error);

/* choice.c: what the configuration says about a room, by its folded name; a pattern is a name or
 * has "*" at its end. RODA_HISTORY_* bits. */
uint32_t log_choice(const struct log_conf *conf, struct roda_str folded);
/* Whether a room with that folded name was durable under the sync settings of a LOG_START. */
int log_choice_durable(uint32_t sync, struct roda_str sync_rooms, struct roda_str folded);
int log_choice_check(const struct log_conf *conf, struct roda_conf_errors *errors);
/* sync_rooms as one text, for LOG_START; at most size bytes. */
size_t log_choice_text(const struct log_conf *conf, char *to, size_t size);

/* commit.c: messages that publish filters hold until they are on disk, in one FIFO per worker. */
int commit_new(struct roda_ctx *x);
void commit_free(struct roda_ctx *x);
roda_verdict commit_publish(struct roda_ctx *x, struct roda_event *ev);
roda_verdict commit_admit(struct roda_ctx *x, struct roda_event *ev);
/* Asks the admit filter only while it may refuse: something is broken, or memory was out. */
void commit_watch(struct roda_ctx *x);
/* A partition has synced further or can take more: lets go what may go. */
void commit_advance(struct roda_ctx *x);
/* Rooms are taken out: which one a name means is to be found anew. */
void commit_forget_places(struct roda_ctx *x);
/* Nothing that waits for this partition will be written. Its rooms may be replaced after this. */
void commit_broken(struct roda_ctx *x, const struct partition *p, int error);

/* service.c: "history/1". */
extern const struct roda_history log_history;
int service_new(struct roda_ctx *x);
void service_free(struct roda_ctx *x);

/* history.c: one page, on the partition's worker. messages are log records, newest last. */
struct history_ask {
    struct partition *p;
    struct roda_history_query query; /* room: folded; query.what .. to as asked */
    uint32_t all; /* 1: what was said behind a guard too, which is for the text files alone */
    void (*done)(struct history_ask *ask, int result);
    /* the answer, when result is 0 */
    char *bytes; /* whole records one behind the other, oldest first; the asker frees */
    size_t n_bytes;
    uint32_t n;
    uint32_t more;
    uint64_t before, epoch, number, first, last;
    char folded[128];
    void *walk; /* history.c's own */
};
/* done runs once, never inside the call. */
int history_find(struct history_ask *ask);

/* text.c: ROOM/YYYY-MM-DD.log. */
int text_new(struct roda_ctx *x);
void text_free(struct roda_ctx *x);
/* A message that is kept and may be shown. */
void text_message(struct partition *p, struct roda_str folded_room, const struct roda_msg *msg);
void text_reopen(struct roda_ctx *x); /* SIGUSR1 */
/* After an unclean end, when the partition is open: makes the files agree with the segments. */
struct log_room;
void text_repair(struct partition *p);

#endif
