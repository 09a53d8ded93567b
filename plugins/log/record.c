#include "record.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <isa-l/crc.h>
#include <roda/history.h>
#ifdef __x86_64__
#include <nmmintrin.h>
#endif

/*
 * Bytes to structs and back. The document is docs/log-format.md; this file is one reading of it.
 *
 * A record is a frame (length, CRC32C, type, three zero bytes) and a body: first all that has a
 * fixed size, lengths of texts included, then the texts. The checksum covers all behind itself. The
 * length stands in front of it and is not covered: a wrong one takes in a wrong number of bytes,
 * and that fails the checksum like a wrong byte does.
 *
 * Each sequence of bytes that decodes is the one that its struct encodes to: reserved bytes are
 * zero, nothing stands behind the last text, and what has a smallest or largest value is held to
 * it. So a reader may trust what it was given, and a fuzzer may compare.
 *
 * Encoding knows the length first (body_bytes) and then writes without looking. Decoding walks a
 * cursor (struct reader) that remembers a failure and does nothing from then on; it is looked at
 * once, at the end. Records have any alignment. A decoded record is written to the caller's struct
 * directly, since start-up decodes millions of them: after a failure behind the checksum it is in
 * pieces.
 *
 * THE CHAIN. Each record of a room has two pointers to earlier ones of the same room: back, to the
 * one before it, and jump, farther. Where a jump goes is decided by the record's place in the chain
 * alone, so that nothing ever has to be written anew (Eugene W. Myers, "An applicative
 * random-access stack", Information Processing Letters 17, 1983).
 *
 *   Numbers can be written in skew-binary digits: the digit at place k counts 2^(k+1) - 1, each is
 *   0 or 1, but the lowest that is not 0 may be 2. A chain of so many records is the trees of these
 *   sizes, newest first. A perfect tree of 2^(k+1) - 1 records is its newest record, the root, and
 *   behind it two trees of half the size: first the newer one, then the older.
 *
 *       count  trees, newest first     the new record
 *       1      1                       is alone
 *       2      1 1
 *       3      3                       the two newest were of one size: it is a root over both
 *       4      1 3
 *       5      1 1 3
 *       6      3 3
 *       7      7
 *
 *   A record's jump is the root of the tree behind its own: over all of its own tree. From record
 *   n, to find an older one: if it is not newer than the jump's, go to the jump, else go back. Each
 *   jump leaves a tree and each step back enters a smaller one, so both together are at most about
 *   three times the digits of n. The jump's number and time stand in the record beside the
 *   pointer, so that the decision needs no read.
 *
 * Adding a record needs the trees and nothing else (log_trees_add), which is why LOG_ROOM holds
 * them, and the jump's count follows from the count (log_jump_count), which is how a reader checks
 * a chain.
 */

enum {
    CRC_AT = 4,
    FRAME_ZEROS = 3,
    HEADER_CRC_AT = 60,
    HEADER_ZEROS_AT = 40,
    KIND_MAX = RODA_KIND_MAX,
    PARTITION_MAX = 99,
    CHECKSUM_SHORT = 1024,
    TOO_MANY = LOG_RECORD_MAX + 1,
};

static const char magic[8] = {'r', 'o', 'd', 'a', 'l', 'o', 'g', '\n'};

#ifdef __x86_64__
/* For long blocks ISA-L uses registers of 512 bits, after which the processor is slower for a
 * while: for the records of a busy chat that was a tenth of all the broker's time. */
__attribute__((target("sse4.2"))) static uint32_t checksum_short(const char *bytes, size_t len)
{
    uint64_t crc = UINT32_MAX;
    uint32_t rest;

    for (; len >= sizeof(uint64_t); len -= sizeof(uint64_t), bytes += sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, bytes, sizeof(word));
        crc = _mm_crc32_u64(crc, word);
    }
    rest = (uint32_t)crc;
    if (len >= sizeof(uint32_t)) {
        uint32_t word;
        memcpy(&word, bytes, sizeof(word));
        rest = _mm_crc32_u32(rest, word);
        len -= sizeof(word);
        bytes += sizeof(word);
    }
    for (; len; len--)
        rest = _mm_crc32_u8(rest, (unsigned char)*bytes++);
    return ~rest;
}
#endif

/* RFC 3720, appendix B.4: the register begins as ones and is inverted at the end. */
static uint32_t checksum(const char *bytes, size_t len)
{
#ifdef __x86_64__
    if (len <= CHECKSUM_SHORT && __builtin_cpu_supports("sse4.2"))
        return checksum_short(bytes, len);
#endif
    return ~crc32_iscsi((unsigned char *)(uintptr_t)bytes, (int)len, 0xffffffffu);
}

/* ---- writing ---------------------------------------------------------------------------- */

/* Each returns the place behind what it wrote; body_bytes() has seen to it that there is room. */
static char *put_u8(char *at, uint32_t value)
{
    *at = (char)(unsigned char)value;
    return at + 1;
}

static char *put_u16(char *at, size_t value)
{
    uint16_t little = htole16((uint16_t)value);

    memcpy(at, &little, sizeof(little));
    return at + sizeof(little);
}

static char *put_u32(char *at, size_t value)
{
    uint32_t little = htole32((uint32_t)value);

    memcpy(at, &little, sizeof(little));
    return at + sizeof(little);
}

static char *put_u64(char *at, uint64_t value)
{
    uint64_t little = htole64(value);

    memcpy(at, &little, sizeof(little));
    return at + sizeof(little);
}

static char *put_time(char *at, int64_t value)
{
    return put_u64(at, (uint64_t)value);
}

static char *put_text(char *at, struct roda_str text)
{
    if (text.len)
        memcpy(at, text.ptr, text.len);
    return at + text.len;
}

/* ---- reading ---------------------------------------------------------------------------- */

struct reader {
    const char *at, *end;
    int bad;
};

static const char *take(struct reader *r, size_t len)
{
    const char *at = r->at;

    if (r->bad || (size_t)(r->end - r->at) < len) {
        r->bad = 1;
        return NULL;
    }
    r->at += len;
    return at;
}

static uint8_t get_u8(struct reader *r)
{
    const char *at = take(r, 1);

    return at ? (uint8_t)*at : 0;
}

static uint16_t get_u16(struct reader *r)
{
    uint16_t little = 0;
    const char *at = take(r, sizeof(little));

    if (at)
        memcpy(&little, at, sizeof(little));
    return le16toh(little);
}

static uint32_t get_u32(struct reader *r)
{
    uint32_t little = 0;
    const char *at = take(r, sizeof(little));

    if (at)
        memcpy(&little, at, sizeof(little));
    return le32toh(little);
}

static uint64_t get_u64(struct reader *r)
{
    uint64_t little = 0;
    const char *at = take(r, sizeof(little));

    if (at)
        memcpy(&little, at, sizeof(little));
    return le64toh(little);
}

static int64_t get_time(struct reader *r)
{
    return (int64_t)get_u64(r);
}

/* len was read before and stands in the struct already. */
static void get_text(struct reader *r, struct roda_str *text)
{
    const char *at = take(r, text->len);

    *text = at ? (struct roda_str){at, text->len} : (struct roda_str){"", 0};
}

static void require(struct reader *r, int holds)
{
    if (!holds)
        r->bad = 1;
}

/* ---- the file's header ------------------------------------------------------------------ */

void log_header_encode(const struct log_header *header, char *to)
{
    char *at = to;

    memset(to, 0, LOG_HEADER_BYTES);
    at = put_text(at, (struct roda_str){magic, sizeof(magic)});
    at = put_u32(at, header->version);
    at = put_u32(at, header->partition);
    at = put_u64(at, header->base);
    at = put_u64(at, header->segment_bytes);
    put_time(at, header->created_ns);
    put_u32(to + HEADER_CRC_AT, checksum(to, HEADER_CRC_AT));
}

static int zeros(const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i])
            return 0;
    return 1;
}

int log_header_decode(const char *bytes, size_t len, struct log_header *ret_header)
{
    struct log_header header;
    struct reader r;

    if (len < LOG_HEADER_BYTES || memcmp(bytes, magic, sizeof(magic)) != 0)
        return -EILSEQ;
    r = (struct reader){bytes + HEADER_CRC_AT, bytes + LOG_HEADER_BYTES, 0};
    if (get_u32(&r) != checksum(bytes, HEADER_CRC_AT))
        return -EILSEQ;
    r.at = bytes + sizeof(magic);
    header.version = get_u32(&r);
    if (header.version != LOG_FORMAT_VERSION)
        return -ENOTSUP;
    header.partition = get_u32(&r);
    header.base = get_u64(&r);
    header.segment_bytes = get_u64(&r);
    header.created_ns = get_time(&r);
    if (!zeros(bytes + HEADER_ZEROS_AT, HEADER_CRC_AT - HEADER_ZEROS_AT) ||
        header.partition > PARTITION_MAX || header.base > INT64_MAX ||
        header.segment_bytes < LOG_HEADER_BYTES || header.segment_bytes > INT64_MAX - header.base)
        return -EILSEQ;
    *ret_header = header;
    return 0;
}

/* ---- bodies, in the order of enum log_type ---------------------------------------------- */

enum {
    START_BYTES = 4 + 8 + 2,
    ROOM_BYTES = 4 + 6 * 8 + 3 * 2,
    TREE_BYTES = 4 * 8,
    OPEN_BYTES = 4 + 8,
    MESSAGE_BYTES = 2 * 4 + 2 * 1 + 2 + 10 * 8 + (RODA_PERSON_FIELDS + 1) * 2 + 2 * 4,
    TAG_BYTES = 2 + 4,
    VOID_BYTES = 4 + 2 * 8,
};

static char *put_start(char *at, const struct log_start *start)
{
    at = put_u32(at, start->sync);
    at = put_time(at, start->time_ns);
    at = put_u16(at, start->sync_rooms.len);
    return put_text(at, start->sync_rooms);
}

static void get_start(struct reader *r, struct log_start *start)
{
    start->sync = get_u32(r);
    start->time_ns = get_time(r);
    start->sync_rooms.len = get_u16(r);
    get_text(r, &start->sync_rooms);
    require(r, start->sync <= 2);
}

static char *put_room(char *at, const struct log_room_record *room)
{
    at = put_u32(at, room->room);
    at = put_u64(at, room->epoch);
    at = put_u64(at, room->number);
    at = put_u64(at, room->kept);
    at = put_time(at, room->time_ns);
    at = put_u64(at, room->count);
    at = put_u64(at, room->closed);
    at = put_u16(at, room->n_trees);
    at = put_u16(at, room->folded.len);
    at = put_u16(at, room->name.len);
    for (uint32_t i = 0; i < room->n_trees; i++) {
        at = put_u64(at, room->trees[i].root);
        at = put_u64(at, room->trees[i].number);
        at = put_time(at, room->trees[i].time_ns);
        at = put_u64(at, room->trees[i].size);
    }
    at = put_text(at, room->folded);
    return put_text(at, room->name);
}

/* 2^k - 1: of its skew-binary digit. */
static int is_tree_size(uint64_t size)
{
    return size && !(size & (size + 1));
}

/* The sizes are the skew-binary digits of the count, lowest first. */
static int are_trees_of(const struct log_room_record *room)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < room->n_trees; i++) {
        const struct log_tree *tree = &room->trees[i];

        if (!is_tree_size(tree->size) || !tree->root || tree->size > room->count - sum ||
            (i && tree->size <= tree[-1].size && (i > 1 || tree->size < tree[-1].size)))
            return 0;
        sum += tree->size;
    }
    return sum == room->count;
}

static void get_room(struct reader *r, struct log_room_record *room)
{
    room->room = get_u32(r);
    room->epoch = get_u64(r);
    room->number = get_u64(r);
    room->kept = get_u64(r);
    room->time_ns = get_time(r);
    room->count = get_u64(r);
    room->closed = get_u64(r);
    room->n_trees = get_u16(r);
    room->folded.len = get_u16(r);
    room->name.len = get_u16(r);
    require(r, room->room && room->kept <= room->number && room->n_trees <= LOG_TREES_MAX &&
                   room->folded.len && room->folded.len <= LOG_NAME_MAX &&
                   room->name.len <= LOG_NAME_MAX);
    for (uint32_t i = 0; i < room->n_trees && !r->bad; i++) {
        room->trees[i].root = get_u64(r);
        room->trees[i].number = get_u64(r);
        room->trees[i].time_ns = get_time(r);
        room->trees[i].size = get_u64(r);
    }
    get_text(r, &room->folded);
    get_text(r, &room->name);
    if (!r->bad)
        require(r, are_trees_of(room));
}

static char *put_open(char *at, const struct log_open *open)
{
    at = put_u32(at, open->ids);
    return put_u64(at, open->floor);
}

static void get_open(struct reader *r, struct log_open *open)
{
    open->ids = get_u32(r);
    open->floor = get_u64(r);
}

static char *put_message(char *at, const struct log_message *message)
{
    at = put_u32(at, message->room);
    at = put_u32(at, message->flags);
    at = put_u8(at, message->kind);
    at = put_u8(at, message->durable ? 1 : 0);
    at = put_u16(at, message->n_tags);
    at = put_u64(at, message->epoch);
    at = put_u64(at, message->number);
    at = put_u64(at, message->prev);
    at = put_time(at, message->time_ns);
    at = put_u64(at, message->count);
    at = put_u64(at, message->back);
    at = put_u64(at, message->jump);
    at = put_u64(at, message->jump_number);
    at = put_time(at, message->jump_time_ns);
    at = put_u64(at, message->person);
    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++)
        at = put_u16(at, message->sender[i].len);
    at = put_u16(at, message->to.len);
    at = put_u32(at, message->subject.len);
    at = put_u32(at, message->text.len);
    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++)
        at = put_text(at, message->sender[i]);
    at = put_text(at, message->to);
    at = put_text(at, message->subject);
    at = put_text(at, message->text);
    for (uint32_t i = 0; i < message->n_tags; i++) {
        at = put_u16(at, message->tags[i].key.len);
        at = put_u32(at, message->tags[i].value.len);
        at = put_text(at, message->tags[i].key);
        at = put_text(at, message->tags[i].value);
    }
    return at;
}

static void get_tags(struct reader *r, struct log_message *message)
{
    require(r, message->n_tags <= LOG_TAGS_MAX);
    for (uint32_t i = 0; i < message->n_tags && !r->bad; i++) {
        message->tags[i].key.len = get_u16(r);
        message->tags[i].value.len = get_u32(r);
        get_text(r, &message->tags[i].key);
        get_text(r, &message->tags[i].value);
    }
}

static void get_message(struct reader *r, struct log_message *message)
{
    message->room = get_u32(r);
    message->flags = get_u32(r);
    message->kind = get_u8(r);
    message->durable = get_u8(r);
    message->n_tags = get_u16(r);
    message->epoch = get_u64(r);
    message->number = get_u64(r);
    message->prev = get_u64(r);
    message->time_ns = get_time(r);
    message->count = get_u64(r);
    message->back = get_u64(r);
    message->jump = get_u64(r);
    message->jump_number = get_u64(r);
    message->jump_time_ns = get_time(r);
    message->person = get_u64(r);
    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++)
        message->sender[i].len = get_u16(r);
    message->to.len = get_u16(r);
    message->subject.len = get_u32(r);
    message->text.len = get_u32(r);
    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++)
        get_text(r, &message->sender[i]);
    get_text(r, &message->to);
    get_text(r, &message->subject);
    get_text(r, &message->text);
    get_tags(r, message);
    require(r, message->room && message->kind && message->kind <= KIND_MAX &&
                   message->durable <= 1 && message->prev < message->number && message->count);
}

static char *put_void(char *at, const struct log_void *voided)
{
    at = put_u32(at, voided->room);
    at = put_u64(at, voided->from);
    return put_u64(at, voided->to);
}

static void get_void(struct reader *r, struct log_void *voided)
{
    voided->room = get_u32(r);
    voided->from = get_u64(r);
    voided->to = get_u64(r);
    require(r, voided->room && voided->from && voided->from <= voided->to);
}

/* ---- records ---------------------------------------------------------------------------- */

/* Adds a text whose length has a field of so many bits; more than a record is no length. */
static void add(size_t *bytes, size_t len, unsigned bits)
{
    *bytes += len >> bits || len > LOG_RECORD_MAX ? TOO_MANY : len;
}

static size_t message_bytes(const struct log_message *message)
{
    size_t bytes = MESSAGE_BYTES;

    if (message->n_tags > LOG_TAGS_MAX || message->kind > KIND_MAX)
        return TOO_MANY;
    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++)
        add(&bytes, message->sender[i].len, 16);
    add(&bytes, message->to.len, 16);
    add(&bytes, message->subject.len, 32);
    add(&bytes, message->text.len, 32);
    for (uint32_t i = 0; i < message->n_tags; i++) {
        bytes += TAG_BYTES;
        add(&bytes, message->tags[i].key.len, 16);
        add(&bytes, message->tags[i].value.len, 32);
    }
    return bytes;
}

/* At least TOO_MANY: it has no record. */
static size_t body_bytes(const struct log_record *record)
{
    size_t bytes = 0;

    switch (record->type) {
    case LOG_START:
        add(&bytes, record->start.sync_rooms.len, 16);
        return bytes + START_BYTES;
    case LOG_ROOM:
        if (record->room.n_trees > LOG_TREES_MAX)
            return TOO_MANY;
        add(&bytes, record->room.folded.len, 16);
        add(&bytes, record->room.name.len, 16);
        return bytes + ROOM_BYTES + record->room.n_trees * TREE_BYTES;
    case LOG_MESSAGE:
        return message_bytes(&record->message);
    case LOG_VOID:
        return VOID_BYTES;
    case LOG_OPEN:
        return OPEN_BYTES;
    case LOG_END:
        return 0;
    }
    return TOO_MANY;
}

static void put_body(char *at, const struct log_record *record)
{
    switch (record->type) {
    case LOG_START:
        put_start(at, &record->start);
        break;
    case LOG_ROOM:
        put_room(at, &record->room);
        break;
    case LOG_MESSAGE:
        put_message(at, &record->message);
        break;
    case LOG_VOID:
        put_void(at, &record->voided);
        break;
    case LOG_OPEN:
        put_open(at, &record->open);
        break;
    case LOG_END:
        break;
    }
}

size_t log_record_encode(const struct log_record *record, char *to, size_t size)
{
    size_t len = LOG_FRAME_BYTES + body_bytes(record);
    char *at = to;

    if (len > size || len > LOG_RECORD_MAX)
        return 0;
    at = put_u32(at, len);
    at = put_u32(at, 0);            /* the checksum, known at the end */
    at = put_u32(at, record->type); /* and three zeros */
    put_body(at, record);
    put_u32(to + CRC_AT, checksum(to + CRC_AT + 4, len - CRC_AT - 4));
    return len;
}

static void get_body(struct reader *r, struct log_record *record)
{
    switch (record->type) {
    case LOG_START:
        get_start(r, &record->start);
        break;
    case LOG_ROOM:
        get_room(r, &record->room);
        break;
    case LOG_MESSAGE:
        get_message(r, &record->message);
        break;
    case LOG_VOID:
        get_void(r, &record->voided);
        break;
    case LOG_OPEN:
        get_open(r, &record->open);
        break;
    case LOG_END:
        break;
    default:
        r->bad = 1;
    }
}

static int is_frame(const char *bytes)
{
    unsigned char type = (unsigned char)bytes[8];

    return type >= LOG_START && type <= LOG_VOID && zeros(bytes + 9, FRAME_ZEROS);
}

int log_record_decode(const char *bytes, size_t len, struct log_record *ret_record)
{
    struct reader r = {bytes, bytes + len, 0};
    uint32_t length, crc;

    if (len < 4) {
        ret_record->length = 0;
        return -EAGAIN;
    }
    length = get_u32(&r);
    if (length < LOG_FRAME_BYTES || length > LOG_RECORD_MAX ||
        (len >= LOG_FRAME_BYTES && !is_frame(bytes)))
        return -EILSEQ;
    if (len < length) {
        ret_record->length = length;
        return -EAGAIN;
    }
    crc = get_u32(&r);
    if (crc != checksum(bytes + 8, length - 8))
        return -EILSEQ;
    r.end = bytes + length;
    ret_record->type = (enum log_type)get_u8(&r);
    ret_record->length = length;
    take(&r, FRAME_ZEROS);
    get_body(&r, ret_record);
    return r.bad || r.at != r.end ? -EILSEQ : 0;
}

/* ---- trees ------------------------------------------------------------------------------ */

void log_trees_add(struct log_tree trees[LOG_TREES_MAX], uint32_t *n_trees, uint64_t position,
                   uint64_t number, int64_t time_ns)
{
    struct log_tree root = {position, number, time_ns, 1};

    if (*n_trees >= 2 && trees[0].size == trees[1].size) {
        root.size += 2 * trees[0].size;
        memmove(&trees[1], &trees[2], (*n_trees - 2) * sizeof(*trees));
        (*n_trees)--;
    } else {
        memmove(&trees[1], &trees[0], *n_trees * sizeof(*trees));
        (*n_trees)++;
    }
    trees[0] = root;
}

uint64_t log_jump_count(uint64_t count)
{
    uint64_t rest = count, size = UINT64_MAX;

    /* Largest digits first; what the last one counts is the size of the newest tree. */
    while (rest) {
        while (size > rest)
            size >>= 1;
        rest -= size;
    }
    return count ? count - size : 0;
}

/* ---- names of files --------------------------------------------------------------------- */

static const char suffix[] = ".segment";

void log_segment_name(uint32_t partition, uint64_t base, char to[LOG_NAME_BYTES])
{
    (void)snprintf(to, LOG_NAME_BYTES, "%02" PRIu32 "-%016" PRIx64 "%s", partition % 100, base,
                   suffix);
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
}

int log_segment_parse(struct roda_str name, uint32_t *ret_partition, uint64_t *ret_base)
{
    const size_t digits = 16, base_at = 3, suffix_len = sizeof(suffix) - 1;
    uint64_t base = 0;
    int high, low;

    if (name.len != base_at + digits + suffix_len || name.ptr[2] != '-' ||
        memcmp(name.ptr + base_at + digits, suffix, suffix_len) != 0)
        return -EINVAL;
    high = digit(name.ptr[0]);
    low = digit(name.ptr[1]);
    if (high > 9 || low > 9 || (unsigned)(high * 10 + low) >= RODA_PARTITIONS)
        return -EINVAL;
    for (size_t i = 0; i < digits; i++) {
        int value = digit(name.ptr[base_at + i]);

        if (value > 15)
            return -EINVAL;
        base = base << 4 | (unsigned)value;
    }
    *ret_partition = (uint32_t)(high * 10 + low);
    *ret_base = base;
    return 0;
}
