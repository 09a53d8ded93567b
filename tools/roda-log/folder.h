#ifndef RODA_LOG_FOLDER_H
#define RODA_LOG_FOLDER_H
/* The segment files of a directory, and a window that slides over one of them. */
#include <stddef.h>
#include <stdint.h>

#include "record.h"

struct segment {
    uint32_t partition;
    uint64_t base;
    uint64_t bytes; /* when the directory was read */
};

struct folder {
    struct segment *segments; /* by partition, then base */
    size_t n;
    uint64_t bytes; /* of all of them */
};

/* The segments of some partitions: bit i for partition i. 0 or a negative errno. Other files are
 * passed over. */
int folder_read(const char *directory, uint32_t partitions, struct folder *ret_folder);
void folder_free(struct folder *folder);
/* How many segments of one partition begin with this one. */
size_t folder_partition(const struct folder *folder, size_t first);

/* Reads by pread(), not by mmap(): a broker that recovers cuts files off. */
struct window {
    int fd; /* -1: not open */
    char *bytes;
    uint64_t at, size; /* of the file: where bytes begins, and its length when last looked at */
    size_t len;
};

int window_open(struct window *w, const char *directory, const struct segment *segment);
void window_close(struct window *w);
void window_free(struct window *w);
/* Whether another file has this one's name now. */
int window_is_replaced(const struct window *w, const char *directory,
                       const struct segment *segment);
/* Looks again how long the file is. */
int window_refresh(struct window *w);
/* The bytes from offset on: at least LOG_RECORD_MAX of them, or all up to the file's end. They are
 * valid until the next call. */
int window_get(struct window *w, uint64_t offset, const char **ret_bytes, size_t *ret_len);

#endif
