#include "record.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <isa-l/crc.h>

/*
 * Any bytes as a record, as a segment's header and as a segment's name. What must hold of every
 * input:
 *
 *   - an answer that the header names, and no read behind the bytes (the sanitizers see that);
 *   - what decodes lies inside the bytes, and encodes to the same bytes again;
 *   - what is cut off says a length that is greater than what there is.
 *
 * Chance does not find a checksum, so each input is also tried with a right one and its length.
 */
enum { INPUT_MOST = 4096 };

static void require(bool holds)
{
    if (!holds)
        abort();
}

static bool lies_in(struct roda_str text, const char *bytes, size_t len)
{
    return !text.len || (text.ptr >= bytes && text.ptr + text.len <= bytes + len);
}

static void require_texts_inside(const struct log_record *record, const char *bytes)
{
    size_t len = record->length;

    if (record->type == LOG_START)
        require(lies_in(record->start.sync_rooms, bytes, len));
    if (record->type == LOG_ROOM)
        require(lies_in(record->room.folded, bytes, len) && lies_in(record->room.name, bytes, len));
    if (record->type != LOG_MESSAGE)
        return;
    for (size_t i = 0; i < RODA_PERSON_FIELDS; i++)
        require(lies_in(record->message.sender[i], bytes, len));
    require(lies_in(record->message.to, bytes, len));
    require(lies_in(record->message.subject, bytes, len));
    require(lies_in(record->message.text, bytes, len));
    require(record->message.n_tags <= LOG_TAGS_MAX);
    for (size_t i = 0; i < record->message.n_tags; i++)
        require(lies_in(record->message.tags[i].key, bytes, len) &&
                lies_in(record->message.tags[i].value, bytes, len));
}

static void try_record(const char *bytes, size_t len)
{
    static char again[INPUT_MOST];
    struct log_record record;
    int r = log_record_decode(bytes, len, &record);

    require(r == 0 || r == -EAGAIN || r == -EILSEQ);
    if (r == -EAGAIN)
        require(record.length ? record.length > len : len < 4);
    if (r)
        return;
    require(record.length >= LOG_FRAME_BYTES && record.length <= len);
    require_texts_inside(&record, bytes);
    require(log_record_encode(&record, again, sizeof(again)) == record.length);
    require(memcmp(again, bytes, record.length) == 0);
    require(log_record_encode(&record, again, record.length - 1) == 0);
}

static void put_u32(char *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (char)(unsigned char)(value >> 8 * i);
}

static uint32_t crc_of(char *bytes, size_t len)
{
    return ~crc32_iscsi((unsigned char *)bytes, (int)len, 0xffffffffu);
}

static void try_header(const char *bytes, size_t len)
{
    struct log_header header = {.partition = 12345};
    char again[LOG_HEADER_BYTES];
    int r = log_header_decode(bytes, len, &header);

    require(r == 0 || r == -EILSEQ || r == -ENOTSUP);
    require(r == 0 || header.partition == 12345);
    if (r)
        return;
    log_header_encode(&header, again);
    require(memcmp(again, bytes, sizeof(again)) == 0);
}

static void try_name(const char *bytes, size_t len)
{
    char again[LOG_NAME_BYTES];
    uint32_t partition;
    uint64_t base;

    if (log_segment_parse((struct roda_str){bytes, len}, &partition, &base))
        return;
    log_segment_name(partition, base, again);
    require(strlen(again) == len && memcmp(again, bytes, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *)data;
    char *copy;

    if (!data || !size || size > INPUT_MOST)
        return 0;
    try_record(bytes, size);
    try_header(bytes, size);
    try_name(bytes, size);

    copy = malloc(size); /* exactly so large, for AddressSanitizer */
    require(copy != NULL);
    memcpy(copy, data, size);
    if (size >= LOG_FRAME_BYTES) {
        put_u32(copy, (uint32_t)size);
        put_u32(copy + 4, crc_of(copy + 8, size - 8));
        try_record(copy, size);
    }
    if (size >= LOG_HEADER_BYTES) {
        memcpy(copy, data, size);
        put_u32(copy + LOG_HEADER_BYTES - 4, crc_of(copy, LOG_HEADER_BYTES - 4));
        try_header(copy, size);
    }
    free(copy);
    return 0;
}
