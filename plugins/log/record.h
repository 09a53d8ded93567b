#ifndef RODA_LOG_RECORD_H
#define RODA_LOG_RECORD_H
/*
 * The bytes of a segment file: docs/log-format.md in C. Pure: no files, no memory, no broker; the
 * plugin and roda-log share it. Integers are little-endian.
 *
 * A POSITION is a place in a partition: 64 bits, growing for ever. A segment holds the positions
 * from its base on; the byte at position p stands at offset p - base of its file. The next
 * segment's base is base + segment_bytes of this one, however long the file is. Position 0 is a
 * segment header, so as a pointer it means "none".
 */
#include <stddef.h>
#include <stdint.h>

#include <roda/plugin.h>

#define LOG_FORMAT_VERSION 1u
#define LOG_HEADER_BYTES   64u          /* of the file */
#define LOG_FRAME_BYTES    12u          /* length, CRC32C, type: in front of each record's body */
#define LOG_RECORD_MAX     (160u << 10) /* whole record; a message is at most 64 kB and tags */
#define LOG_TREES_MAX      64u
#define LOG_NAME_MAX       128u /* of a room, folded or as shown, in bytes */

struct log_header { /* at offset 0 of a segment file */
    uint32_t version;
    uint32_t partition;
    uint64_t base;
    uint64_t segment_bytes;
    int64_t created_ns;
};

enum log_type {
    LOG_START = 1, /* the broker began: how it syncs */
    LOG_END = 2,   /* the broker ended, all before this is written; followed by nothing or START */
    LOG_ROOM = 3,  /* a room and where it stands: in the snapshot at a segment's front, and where a
                      room is new or has a new epoch */
    LOG_OPEN = 4,  /* the snapshot is complete, and what is left of rooms that are not in it */
    LOG_MESSAGE = 5,
    LOG_VOID = 6, /* numbers that were refused though their records may stand before this */
};

/* A perfect binary tree of a room's records; root is its newest. A room's trees, newest first,
 * have the sizes of the skew-binary digits of its count: at most the two newest are of one size.
 * See record.c for why this makes each look-up O(log n). */
struct log_tree {
    uint64_t root; /* position */
    uint64_t number;
    int64_t time_ns;
    uint64_t size;
};

struct log_start {
    uint32_t sync;              /* 0 never, 1 interval, 2 always */
    struct roda_str sync_rooms; /* "always: ops, audit" as configured; may be empty */
    int64_t time_ns;
};

struct log_room_record {
    uint32_t room; /* id within the partition, 1 upwards, never used twice */
    uint64_t epoch;
    uint64_t number; /* the last one that may have been used; the next is greater */
    uint64_t kept;   /* the last one that has a record; 0: none */
    int64_t time_ns; /* of the last message */
    uint64_t count;  /* of records in the chain */
    uint64_t closed; /* position of the newest with RODA_MSG_CLOSED; 0: none */
    struct roda_str folded, name;
    struct log_tree trees[LOG_TREES_MAX]; /* newest first */
    uint32_t n_trees;
};

struct log_open {
    uint32_t ids;   /* the last one that a room was given */
    uint64_t floor; /* no room that is not known any more has used a greater number */
};

#define LOG_TAGS_MAX 64u
struct log_message {
    uint32_t room;
    uint32_t kind, flags; /* of struct roda_msg; and: */
    uint32_t durable;     /* 1: shown to nobody before it was on disk */
    uint64_t epoch, number, prev;
    int64_t time_ns;
    uint64_t count;       /* of the room's records, this one included */
    uint64_t back, jump;  /* positions; 0: none */
    uint64_t jump_number; /* of the record at jump */
    int64_t jump_time_ns;
    uint64_t person;                            /* roda_person_id(); 0: the broker itself */
    struct roda_str sender[RODA_PERSON_FIELDS]; /* empty where not known */
    struct roda_str to; /* the room's name as shown; of a private message: the nick */
    struct roda_str subject, text;
    struct roda_tag tags[LOG_TAGS_MAX];
    uint32_t n_tags;
};

struct log_void {
    uint32_t room;
    uint64_t from, to;
};

struct log_record { /* texts point into the bytes that were decoded */
    enum log_type type;
    uint32_t length; /* frame included */
    union {
        struct log_start start;
        struct log_room_record room;
        struct log_open open;
        struct log_message message;
        struct log_void voided;
    };
};

/* Writes LOG_HEADER_BYTES. */
void log_header_encode(const struct log_header *header, char *to);
/* 0; -EILSEQ: not a segment file or damaged; -ENOTSUP: of another version. */
int log_header_decode(const char *bytes, size_t len, struct log_header *ret_header);

/* Returns the length, or 0: it does not fit. */
size_t log_record_encode(const struct log_record *record, char *to, size_t size);
/* 0; -EAGAIN: cut off (ret_record->length says how many bytes it needs, 0 if not even that is
 * known); -EILSEQ: damaged: length, checksum or contents. Bytes of zero are -EILSEQ. */
int log_record_decode(const char *bytes, size_t len, struct log_record *ret_record);

/* Trees. add: the record at position becomes the newest; *n_trees changes. The jump of the record
 * is the root of the tree behind its own (trees[1] afterwards), its back the newest before. */
void log_trees_add(struct log_tree trees[LOG_TREES_MAX], uint32_t *n_trees, uint64_t position,
                   uint64_t number, int64_t time_ns);
/* The count of the record at the jump of the count-th record; 0: none. */
uint64_t log_jump_count(uint64_t count);

/* "03-00000000001a0000.segment": partition and base, so that names sort by both. */
#define LOG_NAME_BYTES 32u
void log_segment_name(uint32_t partition, uint64_t base, char to[LOG_NAME_BYTES]);
/* 0, or -EINVAL: not such a name. */
int log_segment_parse(struct roda_str name, uint32_t *ret_partition, uint64_t *ret_base);

#endif
