#ifndef RODA_LOG_FOUND_H
#define RODA_LOG_FOUND_H
/* What the records of a partition say, read one after the other; the model stands in found.c. */
#include "partition.h"

struct trace;

struct found { /* zeroed but for the first three: nothing was read */
    struct roda_ctx *x;
    struct partition *p;
    uint32_t healing; /* 1: p->rooms are those of a running broker */

    struct log_rooms rooms;
    struct trace *traces; /* by id, of rooms with something to remember */
    uint32_t n_traces, traces_room;
    uint32_t ended;   /* 1: the last record is LOG_END */
    uint32_t started; /* 1: a LOG_START was read; its settings: */
    uint32_t sync;
    struct roda_str sync_rooms; /* own memory */
    uint32_t damages;           /* places that could not be read, and their bytes */
    uint64_t damaged_bytes;
    struct log_void *voids; /* after found_apply() */
    uint32_t n_voids;
};

void found_clear(struct found *f);
/* Whether a record behind a damaged place can be what it says. */
int found_fits(const struct found *f, uint64_t position, const struct log_record *record);
/* 0, -ENOMEM, or -EILSEQ: it contradicts what was read before, and only its number counts. */
int found_take(struct found *f, uint64_t position, const struct log_record *record);
/* A place that could not be read: records may be missing from here on. */
void found_damage(struct found *f, uint64_t bytes);
/* While healing: a LOG_ROOM that counts in messages that were refused. What stands before its
 * segment says how it was without them. */
int found_counts_refused(const struct found *f, const struct log_record *record);
/* Makes p->rooms of it. -ENOMEM: some of them, nothing wrong. */
int found_apply(struct found *f);

#endif
