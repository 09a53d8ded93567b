#ifndef RODA_RING_FILE_H
#define RODA_RING_FILE_H
/*
 * Files through the ring: asynchronous open on the pool (the ring's restrictions leave OPENAT
 * out), positional read, append, fdatasync, close; list, rename and remove on the pool.
 *
 * Append copies into the filling block of the file; one block is written while the next fills. What
 * nobody waits for is written when its block is full, or after ten milliseconds.
 * A write that ends short is continued from where it stopped. A sync completes only after every
 * byte appended before it was written, by an fsync that started after that. After a failed write
 * or fsync the file is poisoned: every later append and sync answers that error (a second fsync
 * that says "OK" would prove nothing). A read sees appended bytes that are not written yet.
 * Callbacks never run inside the call that takes them.
 */
#include <stddef.h>
#include <stdint.h>

struct files; /* one per worker */
struct file;

#define FILE_READ              1u
#define FILE_APPEND            2u
#define FILE_LOCK              4u /* with FILE_APPEND: -EBUSY while another one has it so */
#define FILE_PENDING_BYTES_MAX (1u << 20)
#define FILE_BLOCK_BYTES       (256u << 10) /* so many are written at once at most */

typedef void file_done_fn(void *arg, int result);
typedef void file_open_fn(void *arg, struct file *file, int result);
typedef void file_read_fn(void *arg, const char *bytes, size_t len, int result);
typedef void file_list_fn(void *arg, const char *const *names, size_t n, int result);

struct ring;
struct wheel;
/* Both outlive it. */
int files_new(struct ring *ring, struct wheel *wheel, struct files **ret_files);
void files_free(struct files *files); /* NULL is a no-op; nothing may be under way */
/* Prepares SQEs for what waits; once per turn, before ring_enter(). */
void files_step(struct files *files);
/* Operations not completed yet, over all files. */
size_t files_under_way(const struct files *files);

int file_open(struct files *files, const char *path, unsigned mode, file_open_fn *fn, void *arg);
uint64_t file_size(const struct file *file);
int64_t file_append(struct file *file, const char *bytes, size_t len);
int file_sync(struct file *file, file_done_fn *fn, void *arg);
int file_read(struct file *file, uint64_t offset, size_t len, file_read_fn *fn, void *arg);
/* Cuts off what stands behind size and syncs; appends and syncs answer -EBUSY until fn. -EBUSY:
 * something is under way in the file. A failure poisons it. */
int file_truncate(struct file *file, uint64_t size, file_done_fn *fn, void *arg);
/* Space on disk for the first size bytes, beside everything else. */
int file_reserve(struct file *file, uint64_t size, file_done_fn *fn, void *arg);
void file_close(struct file *file); /* after what is queued; callbacks still run */
int file_rename(struct files *files, const char *from, const char *to, file_done_fn *fn, void *arg);
int file_remove(struct files *files, const char *path, file_done_fn *fn, void *arg);
/* And syncs the directory it lies in. 0 if there is one. */
int file_make_directory(struct files *files, const char *path, file_done_fn *fn, void *arg);
int file_list(struct files *files, const char *directory, file_list_fn *fn, void *arg);

#endif
