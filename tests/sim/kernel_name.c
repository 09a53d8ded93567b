#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_file.h"

/*
 * Names: a table as it is seen, one as it is on disk, and a journal of the changes in between.
 * sync_directory() takes the changes of one directory out of the journal; a power cut keeps a
 * prefix of what is left in it, or any of it. A file's own fsync does not make its name durable.
 * What lies in a directory that is not on disk is lost with it.
 */

struct change { /* of the names, not on disk yet */
    struct list link;
    enum name_kind kind;
    struct inode *inode;
    char *removed, *made; /* either may be NULL */
};

static char *text_copy(const char *text)
{
    char *copy = must_alloc(strlen(text) + 1);

    return strcpy(copy, text);
}

/* ---- the table -------------------------------------------------------------------------- */

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

struct name *name_find(const struct list *names, const char *path)
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

void name_put(struct list *names, const char *path, enum name_kind kind, struct inode *inode)
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

static bool parent_in(const struct list *names, const char *path)
{
    const char *rest;

    for (const struct list *at = names->next; at != names; at = at->next) {
        const struct name *name = container_of(at, const struct name, link);
        if (name->kind == NAME_DIRECTORY && inside(name->path, plain(path), &rest))
            return true;
    }
    return false;
}

static bool parent_here(const struct file_system *fs, const char *path)
{
    return parent_in(&fs->names, path);
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

/* ---- plain calls ------------------------------------------------------------------------ */

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

/* There is one broker in a world. */
static int sim_lock(void *kernel, int fd)
{
    return descriptor_get(kernel, fd) ? 0 : -EBADF;
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

static int sim_truncate(void *kernel, int fd, uint64_t size)
{
    const struct held *h = descriptor_get(kernel, fd);

    if (!h || h->kind != HELD_FILE || (h->counter & O_ACCMODE) == O_RDONLY)
        return h ? -EINVAL : -EBADF;
    return inode_truncate(kernel, h->inode, size);
}

static int sim_reserve(void *kernel, int fd, uint64_t size)
{
    const struct held *h = descriptor_get(kernel, fd);

    if (!h || h->kind != HELD_FILE || (h->counter & O_ACCMODE) == O_RDONLY)
        return -EBADF;
    return inode_reserve(kernel, h->inode, size);
}

static int sim_make_directory(void *kernel, const char *path, unsigned mode)
{
    struct sim_kernel *k = kernel;
    const struct name *name = name_find(&k->files->names, path);

    (void)mode;
    if (fault(k, k->faults.open_eio))
        return -EIO;
    if (name)
        return name->kind == NAME_DIRECTORY ? 0 : -ENOTDIR;
    if (!parent_here(k->files, path))
        return -ENOENT;
    change(k->files, NULL, path, NAME_DIRECTORY, NULL);
    return 0;
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

/* ---- crash and life --------------------------------------------------------------------- */

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

/* A prefix of the changes, or any of them. */
static void journal_crash(struct sim_kernel *k)
{
    struct list *journal = &k->files->journal;
    bool any = draw(k, 2);
    size_t n = 0;

    for (struct list *at = journal->next; at != journal; at = at->next)
        n++;
    n = draw(k, n + 1);
    for (struct list *at = journal->next; at != journal; at = at->next) {
        if (any ? draw(k, 2) : n != 0)
            change_apply(&k->files->disk_names, container_of(at, struct change, link));
        n -= n != 0;
    }
    journal_drop(k->files);
}

static bool is_root(const char *path)
{
    return !strcmp(path, "/") || !strcmp(path, ".");
}

/* One name whose directory is not there; true: there was one. */
static bool orphan_drop(struct list *names)
{
    for (struct list *at = names->next; at != names; at = at->next) {
        struct name *name = container_of(at, struct name, link);
        if (!is_root(name->path) && !parent_in(names, name->path)) {
            name_drop(name);
            return true;
        }
    }
    return false;
}

void files_crash(struct sim_kernel *k)
{
    struct file_system *fs = k->files;

    journal_crash(k);
    while (orphan_drop(&fs->disk_names)) {
    }
    names_drop(&fs->names);
    for (struct list *at = fs->disk_names.next; at != &fs->disk_names; at = at->next) {
        const struct name *name = container_of(at, const struct name, link);
        name_put(&fs->names, name->path, name->kind, name->inode);
    }
    inodes_crash(k);
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
    k->system.lock = sim_lock;
    k->system.sync_directory = sim_sync_directory;
    k->system.truncate = sim_truncate;
    k->system.reserve = sim_reserve;
    k->system.make_directory = sim_make_directory;
    k->system.rename = sim_rename;
    k->system.unlink = sim_unlink;
    k->system.chmod = sim_chmod;
    k->system.list = sim_list;
    k->system.is_socket = sim_is_socket;
}

void files_end(struct sim_kernel *k)
{
    struct file_system *fs = k->files;

    names_drop(&fs->names);
    names_drop(&fs->disk_names);
    journal_drop(fs);
    inodes_free(fs);
    free(fs);
}
