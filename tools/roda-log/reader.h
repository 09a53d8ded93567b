#ifndef RODA_LOG_READER_H
#define RODA_LOG_READER_H
/* The records of one partition, oldest first, whatever state its files are in. */
#include <stddef.h>
#include <stdint.h>

#include "folder.h"
#include "front.h"

struct room { /* as its newest LOG_ROOM so far says */
    struct room *next;
    uint32_t id;
    struct roda_str folded, name; /* empty: no record has said it */
    char text[2 * LOG_NAME_MAX];
    void *own; /* the command's; freed with the room */
};

enum reader_step {
    READER_RECORD,
    READER_DAMAGE, /* damage, damage_from, damage_to; it goes on behind it */
    READER_FAILED, /* error; it goes on behind that segment */
    READER_CUT,    /* damage_from, damage_to: written to now, or when the broker was killed; not
                      when following */
    READER_END,    /* after reader_update() it may go on */
};

struct reader {
    const char *directory;
    uint32_t partition;
    struct segment *segments;
    size_t n_segments;
    size_t begun; /* how many there are up to the newest one that has begun */
    int follow;   /* end at the tail; do not look into what is prepared behind it */

    size_t at;                 /* the segment being read */
    char file[LOG_NAME_BYTES]; /* the one that was read last */
    struct window window;
    struct front next;   /* of the segment behind it */
    struct front newest; /* of segments[n_fronts - 1] */
    size_t n_fronts;     /* whose refusals are known */
    struct refusals refusals;
    struct log_header header, before;
    int state; /* reader.c */
    int header_fine, before_fine, waited, cut_told;
    uint64_t offset, damages;
    uint64_t doubted; /* following: where the newest segment's end looked damaged; 0: nowhere */
    int64_t doubted_ns;

    struct room **chains;
    size_t n_chains, n_rooms;

    /* READER_RECORD */
    struct log_record record;
    uint64_t record_offset, position;
    struct room *room; /* LOG_MESSAGE, LOG_ROOM; NULL: of a message that no record describes */
    int refused;       /* a message that was refused: to be shown to nobody */
    /* the others */
    const char *damage;
    char damage_text[200];
    uint64_t damage_from, damage_to;
    int error;
    uint64_t bytes_read; /* for progress */
};

/* first .. first + n are the partition's segments. */
void reader_init(struct reader *r, const char *directory, const struct segment *first, size_t n);
void reader_free(struct reader *r);
/* Passes over segments in which all is older. */
void reader_since(struct reader *r, int64_t since_ns);
enum reader_step reader_next(struct reader *r);
/* The directory was read again: new segments, and more in the old ones. */
void reader_update(struct reader *r, const struct segment *first, size_t n);
const char *reader_error(int error);
/* How many bytes the partition has from here on. */
uint64_t reader_bytes(const struct reader *r);

#endif
