#ifndef RODA_TESTS_SIM_KERNEL_FILE_H
#define RODA_TESTS_SIM_KERNEL_FILE_H
/* Names (kernel_name.c) and what they stand for (kernel_file.c). */
#include "kernel_state.h"

enum name_kind { NAME_FILE, NAME_DIRECTORY, NAME_SOCKET };

struct inode {
    struct list link;
    char *cache, *disk;
    size_t size, disk_size;
    uint64_t reserved; /* of the disk's space; the file may be larger */
    uint8_t *dirty;    /* per piece of the cache */
};

struct name {
    struct list link;
    enum name_kind kind;
    struct inode *inode;
    char *path;
};

struct file_system {
    struct list names, disk_names, journal, inodes;
};

struct inode *inode_new(struct file_system *fs);
void inode_resize(struct inode *inode, size_t size);
void inodes_crash(struct sim_kernel *k);
/* The blocking calls. */
int inode_truncate(struct sim_kernel *k, struct inode *inode, uint64_t size);
int inode_reserve(struct sim_kernel *k, struct inode *inode, uint64_t size);
void inodes_free(struct file_system *fs);

void name_put(struct list *names, const char *path, enum name_kind kind, struct inode *inode);
struct name *name_find(const struct list *names, const char *path);

#endif
