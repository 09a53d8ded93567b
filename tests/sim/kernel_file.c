#include "kernel_state.h"

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
 * though they never reached the disk (the kernel does): the next one says "OK" and proves nothing.
 *
 * Names are a table, and a journal of changes that are not on disk. sync_directory() takes the
 * changes of one directory out of the journal; a crash keeps a prefix of what is left in it. A
 * file's own fsync does not make its name durable.
 *
 * After a crash a dirty piece is there or not, by chance, and a file may end anywhere between its
 * size on disk and its size in the cache, with zeros in the holes.
 */

#define PIECE_BYTES 512u

enum name_kind { NAME_FILE, NAME_DIRECTORY, NAME_SOCKET };

struct inode {
    struct list link;
    char *cache, *disk;
    size_t size, disk_size;
    uint8_t *dirty; /* per piece of the cache */
};

struct name {
    struct list link;
    enum name_kind kind;
    struct inode *inode;
    char *path;
};

struct change { /* of the names, not on disk yet */
    struct list link;
    enum name_kind kind;
    struct inode *inode;
    char *removed, *made; /* either may be NULL */
};

struct file_system {
    struct list names, disk_names, journal, inodes;
};

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

static char *text_copy(const char *text)
{
    char *copy = must_alloc(strlen(text) + 1);

    return strcpy(copy, text);
}

/* ---- names ---- */

static const char *plain(const char *path)
{
    while (path[0] == '.' && path[1] == '/')
        path += 2;
    return path;
}

/* Whether path lies directly in directory. ret_rest: its name there. */
static bool inside(const char *directory, const char *path, const char **ret_rest)
{
    size_t n = strlen(directory);
    const char *slash = strrchr(path, '/');

    while (n > 1 && directory[n - 1] == '/')
        n--;
    *ret_rest = slash ? slash + 1 : path;
    if (!slash)
        return n == 1 && directory[0] == '.' && strcmp(path, ".");
    if (slash == path)
        return n == 1 && directory[0] == '/' && slash[1];
    return (size_t)(slash - path) == n && !memcmp(directory, path, n);
}

/* A path may end in slashes; a name does not. */
static bool same(const char *name, const char *path)
{
    size_t n = strlen(name), len;

    path = plain(path);
    len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    return n == len && !memcmp(name, path, n);
}

static struct name *name_find(const struct list *names, const char *path)
{
    for (const struct list *at = names->next; at != names; at = at->next) {
        struct name *name = container_of(at, struct name, link);
        if (same(name->path, path))
            return name;
    }
    return NULL;
}

static void name_drop(struct name *name)
{
    if (!name)
        return;
    list_remove(&name->link);
    free(name->path);
    free(name);
}

static void name_put(struct list *names, const char *path, enum name_kind kind, struct inode *inode)
{
    struct name *name = must_alloc(sizeof *name);

    name_drop(name_find(names, path));
    name->kind = kind;
    name->inode = inode;
    name->path = text_copy(plain(path));
    list_append(names, &name->link);
}

static void change_apply(struct list *names, const struct change *c)
{
    if (c->removed)
        name_drop(name_find(names, c->removed));
    if (c->made)
        name_put(names, c->made, c->kind, c->inode);
}

static void change_free(struct change *c)
{
    list_remove(&c->link);
    free(c->removed);
    free(c->made);
    free(c);
}

static void change(struct file_system *fs, const char *removed, const char *made,
                   enum name_kind kind, struct inode *inode)
{
    struct change *c = must_alloc(sizeof *c);

    c->kind = kind;
    c->inode = inode;
    c->removed = removed ? text_copy(plain(removed)) : NULL;
    c->made = made ? text_copy(plain(made)) : NULL;
    change_apply(&fs->names, c);
    list_append(&fs->journal, &c->link);
}

static bool parent_here(const struct file_system *fs, const char *path)
{
    const char *rest;

    for (const struct list *at = fs->names.next; at != &fs->names; at = at->next) {
        const struct name *name = container_of(at, const struct name, link);
        if (name->kind == NAME_DIRECTORY && inside(name->path, plain(path), &rest))
            return true;
    }
    return false;
}

void sim_mkdir(struct sim_kernel *k, const char *path)
{
    name_put(&k->files->names, path, NAME_DIRECTORY, NULL);
    name_put(&k->files->disk_names, path, NAME_DIRECTORY, NULL);
}

int file_socket_make(struct sim_kernel *k, const char *path)
{
    if (name_find(&k->files->names, path))
        return -EADDRINUSE;
    if (!parent_here(k->files, path))
        return -ENOENT;
    change(k->files, NULL, path, NAME_SOCKET, NULL);
    return 0;
}

bool file_socket_here(struct sim_kernel *k, const char *path)
{
    const struct name *name = name_find(&k->files->names, path);

    return name && name->kind == NAME_SOCKET;
}

/* ---- contents ---- */

static struct inode *inode_new(struct file_system *fs)
{
    struct inode *inode = must_alloc(sizeof *inode);

    list_append(&fs->inodes, &inode->link);
    return inode;
}

static void inode_resize(struct inode *inode, size_t size)
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

static uint64_t disk_used(const struct sim_kernel *k)
{
    uint64_t sum = 0;

    for (const struct list *at = k->files->names.next; at != &k->files->names; at = at->next) {
        const struct name *name = container_of(at, const struct name, link);
        if (name->inode)
            sum += name->inode->size;
    }
    return sum;
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

/* ---- plain calls ---- */

static int open_name(struct sim_kernel *k, const char *path, int flags, struct held **ret_held)
{
    struct name *name = name_find(&k->files->names, path);

    if (fault(k, k->faults.open_eio))
        return -EIO;
    if (!name && !(flags & O_CREAT))
        return -ENOENT;
    if (name && flags & O_CREAT && flags & O_EXCL)
        return -EEXIST;
    if (name && name->kind == NAME_SOCKET)
        return -ENXIO;
    if (name && name->kind == NAME_FILE && flags & O_DIRECTORY)
        return -ENOTDIR;
    if (name && name->kind == NAME_DIRECTORY && (flags & O_ACCMODE) != O_RDONLY)
        return -EISDIR;
    if (!name && !parent_here(k->files, path))
        return -ENOENT;
    if (!descriptor_available(k, descriptor_limit(k)))
        return -EMFILE;
    if (!name) {
        change(k->files, NULL, path, NAME_FILE, inode_new(k->files));
        name = name_find(&k->files->names, path);
    } else if (name->inode && flags & O_TRUNC) {
        inode_resize(name->inode, 0);
    }
    *ret_held = held_new(k, name->inode ? HELD_FILE : HELD_DIRECTORY);
    (*ret_held)->inode = name->inode;
    (*ret_held)->counter = (uint64_t)flags;
    return 0;
}

static int sim_open(void *kernel, const char *path, int flags, unsigned mode)
{
    struct held *h;
    int result = open_name(kernel, path, flags, &h);

    (void)mode;
    return result < 0 ? result : descriptor_new(kernel, h);
}

static int sim_file_size(void *kernel, int fd, uint64_t *ret_size)
{
    const struct held *h = descriptor_get(kernel, fd);

    if (!h)
        return -EBADF;
    *ret_size = h->kind == HELD_FILE ? h->inode->size : 0;
    return 0;
}

static int sim_sync_directory(void *kernel, const char *path)
{
    struct sim_kernel *k = kernel;
    const char *slash = strrchr(plain(path), '/'), *rest;
    char *directory = text_copy(!slash ? "." : slash == plain(path) ? "/" : plain(path));
    const struct name *name;
    int result = 0;

    if (slash && slash != plain(path))
        directory[slash - plain(path)] = '\0';
    name = name_find(&k->files->names, directory);
    if (!name || name->kind != NAME_DIRECTORY)
        result = name ? -ENOTDIR : -ENOENT;
    else if (fault(k, k->faults.sync_eio))
        result = -EIO;
    for (struct list *at = k->files->journal.next, *next; result >= 0 && at != &k->files->journal;
         at = next) {
        struct change *c = container_of(at, struct change, link);
        next = at->next;
        if ((c->made && inside(directory, c->made, &rest)) ||
            (c->removed && inside(directory, c->removed, &rest))) {
            change_apply(&k->files->disk_names, c);
            change_free(c);
        }
    }
    free(directory);
    return result;
}

static int sim_rename(void *kernel, const char *from, const char *to)
{
    struct sim_kernel *k = kernel;
    const struct name *name = name_find(&k->files->names, from);

    if (!name || !parent_here(k->files, to))
        return -ENOENT;
    if (name->kind == NAME_DIRECTORY)
        return -EINVAL; /* nobody does it */
    if (strcmp(plain(from), plain(to)))
        change(k->files, from, to, name->kind, name->inode);
    return 0;
}

static int sim_unlink(void *kernel, const char *path)
{
    struct sim_kernel *k = kernel;
    const struct name *name = name_find(&k->files->names, path);

    if (!name)
        return -ENOENT;
    if (name->kind == NAME_DIRECTORY)
        return -EISDIR;
    change(k->files, path, NULL, name->kind, NULL);
    return 0;
}

static int sim_chmod(void *kernel, const char *path, unsigned mode)
{
    struct sim_kernel *k = kernel;

    (void)mode;
    return name_find(&k->files->names, path) ? 0 : -ENOENT;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int sim_list(void *kernel, const char *path, void (*fn)(void *arg, const char *name),
                    void *arg)
{
    struct sim_kernel *k = kernel;
    const struct name *directory = name_find(&k->files->names, path);
    char **found = NULL;
    size_t n = 0;
    const char *rest;

    if (!directory)
        return -ENOENT;
    if (directory->kind != NAME_DIRECTORY)
        return -ENOTDIR;
    for (struct list *at = k->files->names.next; at != &k->files->names; at = at->next)
        if (inside(path, container_of(at, struct name, link)->path, &rest)) {
            found = must_realloc(found, (n + 1) * sizeof(char *));
            found[n++] = text_copy(rest);
        }
    if (n)
        qsort(found, n, sizeof(char *), compare);
    for (size_t i = 0; i < n; i++) {
        fn(arg, found[i]);
        free(found[i]);
    }
    free(found);
    return 0;
}

static int sim_is_socket(void *kernel, const char *path)
{
    struct sim_kernel *k = kernel;
    const struct name *name = name_find(&k->files->names, path);

    if (!name)
        return -ENOENT;
    return name->kind == NAME_SOCKET ? 0 : -ENOTSOCK;
}

/* ---- requests ---- */

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
    if (fault(k, k->faults.write_eio))
        return -EIO;
    if (n > 1 && fault(k, k->faults.short_write))
        n = 1 + draw(k, n - 1);
    if (k->faults.disk_bytes && offset + n > inode->size) {
        uint64_t used = disk_used(k);
        uint64_t left = used < k->faults.disk_bytes ? k->faults.disk_bytes - used : 0;
        if (offset > inode->size + left || (n && offset == inode->size + left))
            return -ENOSPC;
        if (offset + n > inode->size + left)
            n = inode->size + left - offset;
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

static void sync_over(struct sim_kernel *k, struct event *e)
{
    struct request *q = container_of(e, struct request, event);
    struct snapshot *s = q->snapshot;
    struct inode *inode = s->inode;
    bool failed = fault(k, k->faults.sync_eio);

    if (!failed)
        disk_resize(inode, s->size);
    for (size_t i = 0; i < pieces(s->size); i++) {
        size_t at = i * PIECE_BYTES;
        size_t n = s->size - at < PIECE_BYTES ? s->size - at : PIECE_BYTES;
        if (!s->dirty[i])
            continue;
        if (!failed)
            memcpy(inode->disk + at, s->bytes + at, n);
        size_t left = inode->size > at ? inode->size - at : 0;
        if (n == (left < PIECE_BYTES ? left : PIECE_BYTES) &&
            !memcmp(inode->cache + at, s->bytes + at, n))
            inode->dirty[i] = 0;
    }
    s->result = failed ? -EIO : 0;
    request_again(q);
}

void file_sync_try(struct request *q)
{
    struct inode *inode = q->held->inode;

    if (q->snapshot) {
        request_end(q, q->snapshot->result, 0);
        return;
    }
    struct snapshot *s = q->snapshot = must_alloc(sizeof *s);
    s->inode = inode;
    s->size = inode->size;
    s->bytes = must_alloc(inode->size);
    s->dirty = must_alloc(pieces(inode->size));
    if (inode->size) {
        memcpy(s->bytes, inode->cache, inode->size);
        memcpy(s->dirty, inode->dirty, pieces(inode->size));
    }
    request_after(q, disk_delay(q->held->kernel), sync_over);
}

/* ---- crash and life ---- */

static void inode_crash(struct sim_kernel *k, struct inode *inode)
{
    uint64_t mood = draw(k, 4); /* nothing of what was dirty, all of it, or half of the pieces */
    size_t size = inode->disk_size;

    if (inode->size < size && draw(k, 2))
        size = inode->size;
    if (inode->size > size && !draw(k, 4))
        size = inode->size;
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

static void names_drop(struct list *names)
{
    struct list *link;

    while ((link = list_first(names)))
        name_drop(container_of(link, struct name, link));
}

static void journal_drop(struct file_system *fs)
{
    struct list *link;

    while ((link = list_first(&fs->journal)))
        change_free(container_of(link, struct change, link));
}

void files_crash(struct sim_kernel *k)
{
    struct file_system *fs = k->files;
    size_t n = 0;

    for (struct list *at = fs->journal.next; at != &fs->journal; at = at->next)
        n++;
    n = draw(k, n + 1);
    for (struct list *at = fs->journal.next; n; at = at->next, n--)
        change_apply(&fs->disk_names, container_of(at, struct change, link));
    journal_drop(fs);
    names_drop(&fs->names);
    for (struct list *at = fs->disk_names.next; at != &fs->disk_names; at = at->next) {
        const struct name *name = container_of(at, const struct name, link);
        name_put(&fs->names, name->path, name->kind, name->inode);
    }
    for (struct list *at = fs->inodes.next; at != &fs->inodes; at = at->next)
        inode_crash(k, container_of(at, struct inode, link));
}

/* Inodes live as long as the kernel: a name on disk, in the journal or a snapshot may hold one. */
void file_gone(struct held *h)
{
    h->inode = NULL;
}

void files_init(struct sim_kernel *k)
{
    struct file_system *fs = k->files = must_alloc(sizeof *fs);

    list_init(&fs->names);
    list_init(&fs->disk_names);
    list_init(&fs->journal);
    list_init(&fs->inodes);
    sim_mkdir(k, "/");
    sim_mkdir(k, ".");
    sim_mkdir(k, "/tmp");
    k->system.open = sim_open;
    k->system.file_size = sim_file_size;
    k->system.sync_directory = sim_sync_directory;
    k->system.rename = sim_rename;
    k->system.unlink = sim_unlink;
    k->system.chmod = sim_chmod;
    k->system.list = sim_list;
    k->system.is_socket = sim_is_socket;
}

void files_end(struct sim_kernel *k)
{
    struct file_system *fs = k->files;
    struct list *link;

    names_drop(&fs->names);
    names_drop(&fs->disk_names);
    journal_drop(fs);
    while ((link = list_pop(&fs->inodes))) {
        struct inode *inode = container_of(link, struct inode, link);
        free(inode->cache);
        free(inode->disk);
        free(inode->dirty);
        free(inode);
    }
    free(fs);
}
