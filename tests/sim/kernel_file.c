#include "kernel_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/*
 * Files with two images.
 *
 * A file is its page cache and its disk image, and which 512-byte pieces of the cache were written
 * since they last reached the disk. An fsync takes a snapshot when it starts and moves it to disk
 * when it ends; what was written meanwhile stays dirty. An fsync that fails marks its pieces clean
 * though some of them never reached the disk (the kernel does): the next one says "OK" and proves
 * nothing.
 *
 * After a power cut a dirty piece is there or not, by chance, and a file may end anywhere between
 * its size on disk and its size in the cache, with zeros in the holes.
 *
 * The disk's space is what files have or have reserved, whichever is more.
 *
 * Inodes live as long as the kernel: a name on disk, in the journal, or a snapshot may hold one.
 */

#define PIECE_BYTES 512u

struct snapshot { /* of an fsync under way */
    struct inode *inode;
    char *bytes;
    size_t size;
    uint8_t *dirty;
    int result;
};

static size_t pieces(size_t size)
{
    return (size + PIECE_BYTES - 1) / PIECE_BYTES;
}

/* ---- contents --------------------------------------------------------------------------- */

struct inode *inode_new(struct file_system *fs)
{
    struct inode *inode = must_alloc(sizeof *inode);

    list_append(&fs->inodes, &inode->link);
    return inode;
}

void inode_resize(struct inode *inode, size_t size)
{
    size_t before = pieces(inode->size), after = pieces(size);

    inode->cache = must_realloc(inode->cache, size);
    inode->dirty = must_realloc(inode->dirty, after);
    if (size > inode->size)
        memset(inode->cache + inode->size, 0, size - inode->size);
    if (after > before)
        memset(inode->dirty + before, 1, after - before);
    inode->size = size;
}

static void inode_write(struct inode *inode, size_t offset, size_t n)
{
    for (size_t i = offset / PIECE_BYTES; i < pieces(offset + n); i++)
        inode->dirty[i] = 1;
}

static void disk_resize(struct inode *inode, size_t size)
{
    inode->disk = must_realloc(inode->disk, size);
    if (size > inode->disk_size)
        memset(inode->disk + inode->disk_size, 0, size - inode->disk_size);
    inode->disk_size = size;
}

static uint64_t space_of(const struct inode *inode, uint64_t size)
{
    return size > inode->reserved ? size : inode->reserved;
}

static uint64_t disk_left(const struct sim_kernel *k)
{
    uint64_t used = 0;

    for (const struct list *at = k->files->names.next; at != &k->files->names; at = at->next) {
        const struct name *name = container_of(at, const struct name, link);
        if (name->inode)
            used += space_of(name->inode, name->inode->size);
    }
    if (!k->faults.disk_bytes)
        return UINT64_MAX / 2;
    return used < k->faults.disk_bytes ? k->faults.disk_bytes - used : 0;
}

void sim_file_put(struct sim_kernel *k, const char *path, const void *bytes, size_t len)
{
    struct inode *inode = inode_new(k->files);

    inode_resize(inode, len);
    disk_resize(inode, len);
    if (len) {
        memcpy(inode->cache, bytes, len);
        memcpy(inode->disk, bytes, len);
        memset(inode->dirty, 0, pieces(len));
    }
    name_put(&k->files->names, path, NAME_FILE, inode);
    name_put(&k->files->disk_names, path, NAME_FILE, inode);
}

const char *sim_file_get(struct sim_kernel *k, const char *path, size_t *ret_len)
{
    const struct name *name = name_find(&k->files->names, path);

    if (!name || !name->inode)
        return NULL;
    *ret_len = name->inode->size;
    return name->inode->cache ? name->inode->cache : "";
}

/* ---- requests --------------------------------------------------------------------------- */

void file_read_try(struct request *q)
{
    struct sim_kernel *k = q->held->kernel;
    const struct inode *inode = q->held->inode;
    size_t n = q->sqe.len;

    if ((q->held->counter & O_ACCMODE) == O_WRONLY) {
        request_end(q, -EBADF, 0);
        return;
    }
    if (fault(k, k->faults.read_eio)) {
        request_end(q, -EIO, 0);
        return;
    }
    if (q->sqe.off >= inode->size)
        n = 0;
    else if (n > inode->size - q->sqe.off)
        n = inode->size - q->sqe.off;
    if (n > 1 && fault(k, k->faults.short_read))
        n = 1 + draw(k, n - 1);
    if (n)
        memcpy((void *)(uintptr_t)q->sqe.addr, inode->cache + q->sqe.off, n);
    request_end(q, (int)n, 0);
}

static int write_now(struct request *q)
{
    struct sim_kernel *k = q->held->kernel;
    struct inode *inode = q->held->inode;
    size_t n = q->payload, offset = q->sqe.off;

    if ((q->held->counter & O_ACCMODE) == O_RDONLY)
        return -EBADF;
    if (q->held->counter & O_APPEND)
        offset = inode->size;
    if (fault_nth(k, &k->write_fails) || fault(k, k->faults.write_eio))
        return -EIO;
    if (n > 1 && fault(k, k->faults.short_write))
        n = 1 + draw(k, n - 1);
    if (offset + n > inode->size) {
        uint64_t end = space_of(inode, inode->size) + disk_left(k);
        if (offset > end || (n && offset == end))
            return -ENOSPC;
        if (offset + n > end)
            n = (size_t)end - offset;
    }
    if (offset + n > inode->size)
        inode_resize(inode, offset + n);
    if (n)
        request_copy(q, 0, inode->cache + offset, n);
    inode_write(inode, offset, n);
    return (int)n;
}

void file_write_try(struct request *q)
{
    request_check_payload(q);
    request_end(q, write_now(q), 0);
}

void snapshot_free(struct snapshot *s)
{
    if (!s)
        return;
    free(s->bytes);
    free(s->dirty);
    free(s);
}

/* Moves what a snapshot holds to disk; if it fails, some of it. Either way it counts as moved. */
static int snapshot_move(struct sim_kernel *k, const struct snapshot *s)
{
    struct inode *inode = s->inode;
    bool failed = fault_nth(k, &k->sync_fails) || fault(k, k->faults.sync_eio);

    if (!failed || draw(k, 2))
        disk_resize(inode, s->size);
    for (size_t i = 0; i < pieces(s->size); i++) {
        size_t at = i * PIECE_BYTES;
        size_t n = s->size - at < PIECE_BYTES ? s->size - at : PIECE_BYTES;
        if (!s->dirty[i])
            continue;
        if (at + n <= inode->disk_size && (!failed || draw(k, 2)))
            memcpy(inode->disk + at, s->bytes + at, n);
        size_t left = inode->size > at ? inode->size - at : 0;
        if (n == (left < PIECE_BYTES ? left : PIECE_BYTES) &&
            !memcmp(inode->cache + at, s->bytes + at, n))
            inode->dirty[i] = 0;
    }
    return failed ? -EIO : 0;
}

static struct snapshot *snapshot_new(struct inode *inode)
{
    struct snapshot *s = must_alloc(sizeof *s);

    s->inode = inode;
    s->size = inode->size;
    s->bytes = must_alloc(inode->size);
    s->dirty = must_alloc(pieces(inode->size));
    if (inode->size) {
        memcpy(s->bytes, inode->cache, inode->size);
        memcpy(s->dirty, inode->dirty, pieces(inode->size));
    }
    return s;
}

static void sync_over(struct sim_kernel *k, struct event *e)
{
    struct request *q = container_of(e, struct request, event);

    q->snapshot->result = snapshot_move(k, q->snapshot);
    request_again(q);
}

void file_sync_try(struct request *q)
{
    if (q->snapshot) {
        request_end(q, q->snapshot->result, 0);
        return;
    }
    q->snapshot = snapshot_new(q->held->inode);
    request_after(q, disk_delay(q->held->kernel), sync_over);
}

/* ---- blocking calls --------------------------------------------------------------------- */

int inode_truncate(struct sim_kernel *k, struct inode *inode, uint64_t size)
{
    struct snapshot *s;
    int result;

    inode->reserved = 0;
    inode_resize(inode, (size_t)size);
    s = snapshot_new(inode);
    result = snapshot_move(k, s);
    snapshot_free(s);
    return result;
}

int inode_reserve(struct sim_kernel *k, struct inode *inode, uint64_t size)
{
    uint64_t has = space_of(inode, inode->size);

    if (!size)
        return -EINVAL;
    if (fault(k, k->faults.reserve_refused))
        return -EOPNOTSUPP;
    if (size > has && size - has > disk_left(k))
        return -ENOSPC;
    if (size > inode->reserved)
        inode->reserved = size;
    return 0;
}

/* ---- crash and life --------------------------------------------------------------------- */

static void inode_crash(struct sim_kernel *k, struct inode *inode)
{
    uint64_t mood = draw(k, 4); /* nothing of what was dirty, all of it, or half of the pieces */
    size_t size = inode->disk_size;

    if (inode->size < size && draw(k, 2))
        size = inode->size;
    else if (inode->size > size && draw(k, 2))
        size = (size_t)draw_between(k, size, inode->size);
    if (size != inode->disk_size)
        disk_resize(inode, size);
    for (size_t i = 0; i < pieces(inode->size); i++) {
        size_t at = i * PIECE_BYTES;
        size_t n = inode->size - at < PIECE_BYTES ? inode->size - at : PIECE_BYTES;
        bool kept = mood == 1 || (mood > 1 && draw(k, 2));
        if (!inode->dirty[i] || !kept)
            continue;
        if (at + n > inode->disk_size)
            disk_resize(inode, at + n);
        memcpy(inode->disk + at, inode->cache + at, n);
    }
    inode_resize(inode, inode->disk_size);
    if (inode->size) {
        memcpy(inode->cache, inode->disk, inode->size);
        memset(inode->dirty, 0, pieces(inode->size));
    }
}

void inodes_crash(struct sim_kernel *k)
{
    struct list *inodes = &k->files->inodes;

    for (struct list *at = inodes->next; at != inodes; at = at->next)
        inode_crash(k, container_of(at, struct inode, link));
}

void inodes_free(struct file_system *fs)
{
    struct list *link;

    while ((link = list_pop(&fs->inodes))) {
        struct inode *inode = container_of(link, struct inode, link);
        free(inode->cache);
        free(inode->disk);
        free(inode->dirty);
        free(inode);
    }
}

void file_gone(struct held *h)
{
    h->inode = NULL;
}
