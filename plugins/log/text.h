#ifndef RODA_LOG_TEXT_H
#define RODA_LOG_TEXT_H
/* What the files text*.c share. The model stands in text.c. */
#include "partition.h"
#include "text_line.h"
#include "text_name.h"

#define TEXT_QUEUE_BYTES (256u << 10) /* lines that wait for their files, per worker */
#define TEXT_PATH_SIZE   4608u
#define TEXT_DAY_UNKNOWN INT64_MIN
/* What the kernel has not written after so long it never will. */
#define TEXT_WRITTEN_NS (INT64_C(120) * 1000000000)

enum text_state { TEXT_CLOSED, TEXT_OPENING, TEXT_OPEN, TEXT_CLOSING };

struct text_link {
    struct text_link *next, *prev; /* NULL: on no list */
};

struct text_queued {
    struct text_queued *next;
    uint64_t number;
    int64_t time_ns;
    size_t len;
    char line[];
};

struct text_repair;

struct text_room {
    struct text_room *next; /* in its chain of text->rooms */
    struct text_link link;  /* CLOSED: on text->waiting; OPEN: on text->open, least used first */
    struct text_link behind_link;
    struct text *text;
    struct partition *p;

    enum text_state state;
    struct roda_file *file;
    int64_t day;                     /* of the file */
    uint64_t unsynced;               /* bytes */
    uint64_t lines;                  /* appended since a sync said that all is well */
    uint64_t covered, lines_covered; /* of them, by the sync under way */
    uint32_t syncing;                /* a sync is under way ... */
    uint32_t stale;                  /* ... of a file that is gone */
    uint32_t making;                 /* OPENING: folders were made */
    uint32_t reopen;                 /* the file was moved: another one, as soon as may be */

    struct text_queued *first, *last;
    uint32_t blocked; /* the file takes no more now */

    uint64_t number; /* of the last message that may be shown */
    uint64_t kept;   /* behind_day is to be found out: what was the last one then, and its time */
    int64_t kept_ns;
    uint32_t behind; /* files lack lines, from this day on; lines come from the segments */
    uint32_t failed; /* behind because a file could not be written */
    uint32_t queueing;
    int64_t behind_day;         /* TEXT_DAY_UNKNOWN: to be found out; perhaps as early as: */
    int64_t since_day;          /* INT64_MAX: nothing is known */
    struct text_repair *repair; /* NULL: none under way */

    uint32_t folded_len;
    char folded[];
};

/* .repair-NN-YYYY-MM-DD in the text directory: files of this partition may lack lines, from that
 * day on. */
struct text_mark {
    uint32_t behind; /* rooms */
    uint32_t busy, found;
    int64_t day, wanted;
};

struct text {
    struct roda_ctx *x;
    struct text_room **rooms; /* chains; power of two */
    uint32_t n_chains, n_rooms;
    struct text_link open, waiting, behind;
    uint32_t n_files, max_files; /* not CLOSED */
    uint32_t n_closing, n_waiting;
    size_t queued_bytes;
    char *line; /* where lines are made */
    size_t line_size;
    struct roda_timer *tick;
    struct roda_timer *soon; /* for what is blocked; NULL: not set */
    uint32_t repairs, failed;
    uint32_t unread;    /* partitions (bits) whose text_repair() is due ... */
    int64_t unread_day; /* ... since lines are missing from this day on */
    uint64_t retry_ms, retry_wait_ms, told_ms, lost_untold;
    struct text_mark marks[RODA_PARTITIONS];
    uint64_t swept_ms; /* retention.c: when folders were gone through last */
    uint32_t sweeping;
    uint32_t pending; /* requests that are not a room's */
    uint32_t holding; /* rooms are being gone through: none may go */
    int error;        /* the last one that a file met */
    uint32_t stopping;
};

static inline struct roda_str text_folded(const struct text_room *room)
{
    return (struct roda_str){room->folded, room->folded_len};
}

/* text.c */
/* Files lack lines of this room: what is queued goes, the segments have it. day: of the first line
 * that is missing, or TEXT_DAY_UNKNOWN. Returns how many lines were queued. */
uint64_t text_behind(struct text_room *room, int64_t day);
void text_failed(struct text_room *room, int error);
void text_go_on(struct text_room *room); /* writes what is queued, closes what is done */
/* The line in text->line; 0: memory is out. */
size_t text_make_line(struct text *text, const struct text_line *line);
/* Appends to the open file: 0, -ENOBUFS or an error. */
int text_append(struct text_room *room, const char *line, size_t len);
void text_soon(struct text *text); /* what is blocked is tried again in a moment */
void text_room_opened(struct text_room *room, int result);
void text_room_closed(struct text_room *room);
void text_end(struct text *text); /* frees it if it is stopped and nothing is left */

/* text_file.c: one file per room, so many in all. */
void text_path(const struct text_room *room, int64_t day, char to[TEXT_PATH_SIZE]);
void text_folder(const struct text_room *room, char to[TEXT_PATH_SIZE]);
/* CLOSED: opens the day's file, when there is a place; text_room_opened() then. */
void text_file_open(struct text_room *room, int64_t day);
/* OPEN: syncs and closes; text_room_closed() then. */
void text_file_close(struct text_room *room);
/* Whatever the state but OPENING: the file is let go; no report. */
void text_file_drop(struct text_room *room);
void text_file_sync(struct text_room *room);
void text_file_used(struct text_room *room);
void text_file_wait_ends(struct text_room *room); /* no longer on text->waiting */
void text_file_places(struct text *text);         /* for those who wait */
void text_link_last(struct text_link *list, struct text_link *link);
void text_link_remove(struct text_link *link);

/* text_repair.c */
void text_repairs_start(struct text *text);
void text_repair_abort(struct text_room *room);
void text_repair_opened(struct text_room *room);
void text_repair_closed(struct text_room *room);
void text_repair_go_on(struct text_room *room); /* the file takes more */

/* text_mark.c */
int text_marks_read(struct text *text);
void text_mark_add(struct text *text, const struct partition *p, int64_t day);
void text_mark_since(struct text *text, const struct partition *p, int64_t day);
/* What the mark that is there says; INT64_MAX: there is none. */
int64_t text_mark_day(const struct text *text, const struct partition *p);
void text_mark_remove(struct text *text, const struct partition *p);
void text_marks_check(struct text *text); /* what was left by the last run */
void text_marks_end(struct text *text);   /* what is left for the next one */

#endif
