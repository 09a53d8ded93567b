#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"

/*
 * A directory is read as a whole and sorted: names say partition and base, so nothing is opened for
 * that. A file that is removed meanwhile (retention does that) is not there, which is no error.
 *
 * The window holds a stretch of a file that is some records long. It is filled anew when what is
 * asked for is not in it; as long as somebody reads on, that is once in a megabyte.
 */
enum { WINDOW_BYTES = 1 << 20 };

static int by_partition_and_base(const void *left, const void *right)
{
    const struct segment *a = left, *b = right;

    if (a->partition != b->partition)
        return a->partition < b->partition ? -1 : 1;
    return a->base < b->base ? -1 : a->base > b->base;
}

static void add(struct folder *folder, size_t *room, struct segment segment)
{
    if (folder->n == *room) {
        *room = *room ? *room * 2 : 64;
        folder->segments = memory_resize(folder->segments, *room * sizeof(segment));
    }
    folder->segments[folder->n++] = segment;
    folder->bytes += segment.bytes;
}

int folder_read(const char *directory, uint32_t partitions, struct folder *ret_folder)
{
    struct folder folder = {NULL, 0, 0};
    DIR *dir = opendir(directory);
    const struct dirent *entry;
    size_t room = 0;
    int r = 0;

    if (!dir)
        return -errno;
    while (errno = 0, (entry = readdir(dir))) {
        struct roda_str name = {entry->d_name, strlen(entry->d_name)};
        struct segment segment;
        struct stat status;

        if (log_segment_parse(name, &segment.partition, &segment.base) ||
            !(partitions & 1u << segment.partition))
            continue;
        if (fstatat(dirfd(dir), entry->d_name, &status, 0)) {
            if (errno != ENOENT && !r)
                r = -errno;
            continue;
        }
        segment.bytes = (uint64_t)status.st_size;
        add(&folder, &room, segment);
    }
    if (!r)
        r = -errno;
    closedir(dir);
    if (r) {
        folder_free(&folder);
        return r;
    }
    if (folder.n)
        qsort(folder.segments, folder.n, sizeof(*folder.segments), by_partition_and_base);
    *ret_folder = folder;
    return 0;
}

void folder_free(struct folder *folder)
{
    free(folder->segments);
    *folder = (struct folder){NULL, 0, 0};
}

size_t folder_partition(const struct folder *folder, size_t first)
{
    size_t n = 1;

    while (first + n < folder->n &&
           folder->segments[first + n].partition == folder->segments[first].partition)
        n++;
    return n;
}

/* ---- the window ------------------------------------------------------------------------- */

enum { PATH_BYTES = 4096 };

static int path_of(const char *directory, const struct segment *segment, char to[PATH_BYTES])
{
    char name[LOG_NAME_BYTES];

    log_segment_name(segment->partition, segment->base, name);
    return snprintf(to, PATH_BYTES, "%s/%s", directory, name) < PATH_BYTES ? 0 : -ENAMETOOLONG;
}

int window_open(struct window *w, const char *directory, const struct segment *segment)
{
    char path[PATH_BYTES];
    int fd, r = path_of(directory, segment, path);

    if (r)
        return r;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    w->fd = fd;
    w->at = 0;
    w->len = 0;
    r = window_refresh(w);
    if (r)
        window_close(w);
    return r;
}

void window_close(struct window *w)
{
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
}

void window_free(struct window *w)
{
    window_close(w);
    free(w->bytes);
    w->bytes = NULL;
}

int window_is_replaced(const struct window *w, const char *directory, const struct segment *segment)
{
    struct stat own, other;
    char path[PATH_BYTES];

    return w->fd >= 0 && !path_of(directory, segment, path) && !fstat(w->fd, &own) &&
           !stat(path, &other) && (own.st_ino != other.st_ino || own.st_dev != other.st_dev);
}

int window_refresh(struct window *w)
{
    struct stat status;

    if (fstat(w->fd, &status))
        return -errno;
    w->size = (uint64_t)status.st_size;
    return 0;
}

static int fill(struct window *w, uint64_t offset)
{
    size_t want = w->size - offset < WINDOW_BYTES ? (size_t)(w->size - offset) : WINDOW_BYTES;

    if (!w->bytes)
        w->bytes = memory_get(WINDOW_BYTES);
    w->at = offset;
    w->len = 0;
    while (w->len < want) {
        ssize_t n = pread(w->fd, w->bytes + w->len, want - w->len, (off_t)(offset + w->len));

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0) { /* it was cut off meanwhile */
            w->size = offset + w->len;
            break;
        }
        if (n > 0)
            w->len += (size_t)n;
    }
    return 0;
}

int window_get(struct window *w, uint64_t offset, const char **ret_bytes, size_t *ret_len)
{
    uint64_t left = offset < w->size ? w->size - offset : 0;
    size_t want = left < LOG_RECORD_MAX ? (size_t)left : LOG_RECORD_MAX;
    int r = 0;

    if (!want) {
        *ret_bytes = "";
        *ret_len = 0;
        return 0;
    }
    if (offset < w->at || offset - w->at > w->len || w->len - (size_t)(offset - w->at) < want)
        r = fill(w, offset);
    if (r)
        return r;
    *ret_bytes = w->bytes + (offset - w->at);
    *ret_len = w->len - (size_t)(offset - w->at);
    return 0;
}
