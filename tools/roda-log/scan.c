#include "scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

/*
 * Behind damage the next record is looked for at each offset. Chance does not find one: a length
 * that is possible, a type and three zeros pass one place in 10^13, and then the checksum has to be
 * right. Nor can a user's text contain one, since no text holds a zero byte. A damaged length is
 * not believed: the search goes on one byte behind the record's first.
 *
 * The end of a file that is written to is the beginning of a record. What looks like it may also be
 * a whole last record with a damaged length; then the checksum is right for the bytes that are
 * there.
 */

int scan_at(struct window *window, uint64_t offset, struct log_record *ret_record)
{
    const char *bytes;
    size_t len;
    int r = window_get(window, offset, &bytes, &len);

    if (r)
        return r;
    return len ? log_record_decode(bytes, len, ret_record) : -ENODATA;
}

int scan_search(struct window *window, uint64_t offset, uint64_t *ret_offset)
{
    struct log_record record;

    while (offset < window->size) {
        const char *bytes;
        size_t len, last, i;
        int r = window_get(window, offset, &bytes, &len);

        if (r)
            return r;
        if (!len)
            break;
        /* Beyond that a record would be cut off by the window, not by the file. */
        last = offset + len < window->size ? len - LOG_RECORD_MAX : len - 1;
        for (i = 0; i <= last; i++) {
            if (!log_record_decode(bytes + i, len - i, &record)) {
                *ret_offset = offset + i;
                return 0;
            }
        }
        offset += i;
    }
    *ret_offset = window->size;
    return 0;
}

static int all_zero(struct window *window, uint64_t offset)
{
    const char *bytes;
    size_t len;

    for (; !window_get(window, offset, &bytes, &len) && len; offset += len)
        for (size_t i = 0; i < len; i++)
            if (bytes[i])
                return 0;
    return 1;
}

/* Whether a record of exactly these bytes would be right. */
static int is_whole(const char *bytes, size_t len)
{
    struct log_record record;
    char *copy;
    int r;

    if (len < LOG_FRAME_BYTES || len > LOG_RECORD_MAX)
        return 0;
    copy = memory_get(len);
    memcpy(copy, bytes, len);
    for (size_t i = 0; i < 4; i++)
        copy[i] = (char)(unsigned char)(len >> 8 * i);
    r = log_record_decode(copy, len, &record);
    free(copy);
    return !r;
}

int scan_rest(struct window *window, uint64_t offset, enum scan_rest *ret_rest)
{
    struct log_record record;
    const char *bytes;
    size_t len;
    int r = window_get(window, offset, &bytes, &len);

    if (r)
        return r;
    if (log_record_decode(bytes, len, &record) == -EAGAIN)
        *ret_rest = is_whole(bytes, len) ? SCAN_DAMAGED : SCAN_CUT;
    else
        *ret_rest = all_zero(window, offset) ? SCAN_CUT : SCAN_DAMAGED;
    return 0;
}
