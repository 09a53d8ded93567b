#include "one_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* The fake kernel's files: what a power cut or a kill keeps, what a failed sync loses. */

static int32_t file_op(struct bench *b, unsigned opcode, int fd, void *bytes, unsigned n,
                       uint64_t offset)
{
    static unsigned slot = 1000;
    unsigned kind = opcode == IORING_OP_FSYNC  ? RING_FILE_SYNC
                    : opcode == IORING_OP_READ ? RING_FILE_READ
                                               : RING_FILE_WRITE;

    io_uring_prep_rw((int)opcode, sqe(b, kind, ++slot), fd, bytes, n, offset);
    run(b, SECOND);
    assert_non_null(completion(b, kind, slot, 0));
    return completion(b, kind, slot, 0)->result;
}

static void test_file(void **state)
{
    char text[] = "0123456789", got[16] = {0};
    uint64_t size;
    struct bench b;

    (void)state;
    begin(&b, 40, NULL, 64);
    void *k = b.sys->kernel;
    assert_int_equal(b.sys->open(k, "/tmp/a", O_RDWR, 0600), -ENOENT);
    assert_int_equal(b.sys->open(k, "/none/a", O_RDWR | O_CREAT, 0600), -ENOENT);
    int fd = b.sys->open(k, "/tmp/a", O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(b.sys->open(k, "/tmp/a", O_RDWR | O_CREAT | O_EXCL, 0600), -EEXIST);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 10, 0), 10);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 2, 12), 2);
    assert_int_equal(b.sys->file_size(k, fd, &size), 0);
    assert_int_equal(size, 14);
    assert_int_equal(file_op(&b, IORING_OP_READ, fd, got, 16, 8), 6);
    assert_memory_equal(got,
                        "89\0\0"
                        "01",
                        6);
    assert_int_equal(file_op(&b, IORING_OP_READ, fd, got, 16, 14), 0);
    assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), 0);
    assert_int_equal(b.sys->rename(k, "/tmp/a", "/tmp/b"), 0);
    assert_int_equal(b.sys->rename(k, "/tmp/a", "/tmp/b"), -ENOENT);
    assert_int_equal(b.sys->unlink(k, "/tmp/b"), 0);
    assert_int_equal(file_op(&b, IORING_OP_READ, fd, got, 2, 0), 2); /* open, so it lives */
    sim_set_disk(b.k, 20);
    assert_int_equal(close_fd(&b, fd), 0);
    fd = b.sys->open(k, "/tmp/c", O_WRONLY | O_CREAT, 0600);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 10, 0), 10);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 10, 10), 10);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 10, 20), -ENOSPC);
    sim_set_disk(b.k, 25);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 10, 20), 5);
    assert_int_equal(file_op(&b, IORING_OP_READ, fd, got, 1, 0), -EBADF);
    close_fd(&b, fd);
    finish(&b);
}

static void list_name(void *arg, const char *name)
{
    char *all = arg;

    strcat(all, name);
    strcat(all, " ");
}

static void test_list(void **state)
{
    struct sim_kernel *k = sim_kernel_new(1, NULL);
    const struct system *sys = sim_system(k);
    char all[64] = "";

    (void)state;
    sim_mkdir(k, "/tmp/log");
    sim_file_put(k, "/tmp/log/b", "", 0);
    sim_file_put(k, "/tmp/log/a", "", 0);
    sim_file_put(k, "/tmp/c", "", 0);
    assert_int_equal(sys->list(k, "/tmp/log", list_name, all), 0);
    assert_string_equal(all, "a b ");
    all[0] = '\0';
    assert_int_equal(sys->list(k, "/none", list_name, all), -ENOENT);
    assert_int_equal(sys->list(k, "/tmp/", list_name, all), 0);
    assert_string_equal(all, "c log ");
    assert_int_equal(sys->list(k, "/tmp/c", list_name, all), -ENOTDIR);
    sim_kernel_free(k);
}

/* What was synced is there after a power cut, whatever the seed; the rest in pieces, if at all. */
static void test_power_cut(void **state)
{
    static char synced[2048], later[4096];
    unsigned partly = 0, names = 0;

    (void)state;
    memset(synced, 's', sizeof synced);
    memset(later, 'l', sizeof later);
    for (uint64_t seed = 0; seed < 64; seed++) {
        struct bench b;
        size_t size, kept = 0;
        begin(&b, seed, NULL, 64);
        void *k = b.sys->kernel;
        int fd = b.sys->open(k, "/tmp/a", O_RDWR | O_CREAT, 0600);
        assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, synced, sizeof synced, 0), sizeof synced);
        assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), 0);
        assert_int_equal(b.sys->sync_directory(k, "/tmp/a"), 0);
        assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, later, sizeof later, sizeof synced),
                         sizeof later);
        assert_true(b.sys->open(k, "/tmp/new", O_RDWR | O_CREAT, 0600) >= 0);
        sim_power_cut(b.k);
        const char *bytes = sim_file_get(b.k, "/tmp/a", &size);
        assert_non_null(bytes);
        assert_in_range(size, sizeof synced, sizeof synced + sizeof later);
        assert_memory_equal(bytes, synced, sizeof synced);
        for (size_t at = sizeof synced; at < size; at += 512) {
            assert_true(bytes[at] == 'l' || !bytes[at]);
            assert_int_equal(bytes[at], bytes[size - at < 512 ? size - 1 : at + 511]);
            kept += bytes[at] == 'l' ? 512 : 0;
        }
        partly += kept && kept < sizeof later;
        names += sim_file_get(b.k, "/tmp/new", &size) != NULL;
        assert_int_equal(sim_descriptors(b.k), 0);
        assert_int_equal(ring_enter(&b.ring, true, 0), -EBADFD);
        sim_kernel_free(b.k);
        free(b.buffers);
    }
    assert_in_range(partly, 10, 60);
    assert_in_range(names, 10, 54);
}

/* A file that is open for writing, with its name on disk. */
static int made(struct bench *b, const char *path)
{
    int fd = b->sys->open(b->sys->kernel, path, O_RDWR | O_CREAT, 0600);

    assert_true(fd >= 0);
    assert_int_equal(b->sys->sync_directory(b->sys->kernel, path), 0);
    return fd;
}

static void cut(struct bench *b)
{
    sim_power_cut(b->k);
    assert_int_equal(sim_descriptors(b->k), 0);
}

static void end(struct bench *b)
{
    sim_kernel_free(b->k);
    free(b->buffers);
}

/* After a failed sync the kernel says that all is well, and the pages are there or not. */
static void test_failed_sync_loses_pages(void **state)
{
    static char bytes[512];
    unsigned lost = 0;

    (void)state;
    memset(bytes, 'x', sizeof bytes);
    for (uint64_t seed = 0; seed < 32; seed++) {
        struct bench b;
        size_t size;
        begin(&b, seed, NULL, 64);
        int fd = made(&b, "/tmp/a");
        assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, bytes, sizeof bytes, 0), sizeof bytes);
        sim_fail_sync(b.k, 1);
        assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), -EIO);
        assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), 0); /* proves nothing */
        cut(&b);
        const char *after = sim_file_get(b.k, "/tmp/a", &size);
        assert_non_null(after);
        assert_int_equal(size, 512); /* the second sync brought the size along */
        assert_true(after[0] == 'x' || !after[0]);
        lost += !after[0];
        end(&b);
    }
    assert_in_range(lost, 5, 31);
}

static void test_the_nth_fails(void **state)
{
    struct bench b;
    char text[] = "0123456789";
    size_t size;

    (void)state;
    begin(&b, 42, NULL, 64);
    int fd = made(&b, "/tmp/a");
    sim_fail_write(b.k, 2);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 5, 0), 5);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 5, 5), -EIO);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 5, 5), 5);
    sim_faults_stop(b.k); /* what the test asks for happens even so */
    sim_fail_sync(b.k, 2);
    assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), 0);
    assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), -EIO);
    assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), 0);
    sim_fail_sync(b.k, 1);
    sim_fail_sync(b.k, 0);
    assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), 0);
    sim_fail_sync(b.k, 1);
    assert_int_equal(b.sys->truncate(b.sys->kernel, fd, 5), -EIO);
    assert_non_null(sim_file_get(b.k, "/tmp/a", &size));
    assert_int_equal(size, 5);
    close_fd(&b, fd);
    finish(&b);
}

static void test_truncate(void **state)
{
    static char bytes[2000], got[2000];
    struct bench b;
    size_t size;

    (void)state;
    memset(bytes, 'x', sizeof bytes);
    begin(&b, 43, NULL, 64);
    void *k = b.sys->kernel;
    int fd = made(&b, "/tmp/a");
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, bytes, 2000, 0), 2000);
    assert_int_equal(b.sys->truncate(k, fd, 700), 0);
    assert_int_equal(file_op(&b, IORING_OP_READ, fd, got, 2000, 0), 700);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, bytes, 10, 1000), 10);
    assert_int_equal(file_op(&b, IORING_OP_READ, fd, got, 2000, 700), 310);
    assert_int_equal(got[0], 0); /* what was cut off does not come back */
    assert_int_equal(b.sys->truncate(k, fd, 700), 0);
    cut(&b);
    const char *after = sim_file_get(b.k, "/tmp/a", &size);
    assert_int_equal(size, 700); /* synced, whatever was before */
    assert_memory_equal(after, bytes, 700);
    assert_int_equal(b.sys->truncate(k, fd, 0), -EBADF);
    fd = b.sys->open(k, "/tmp/a", O_RDONLY, 0);
    assert_int_equal(b.sys->truncate(k, fd, 0), -EINVAL);
    end(&b);
}

static void test_reserve(void **state)
{
    struct sim_faults faults = sim_faults_none();
    struct bench b;
    char text[] = "0123456789";
    uint64_t size;

    (void)state;
    faults.disk_bytes = 30;
    begin(&b, 44, &faults, 64);
    void *k = b.sys->kernel;
    int fd = made(&b, "/tmp/a"), other = made(&b, "/tmp/b");
    assert_int_equal(b.sys->reserve(k, fd, 0), -EINVAL);
    assert_int_equal(b.sys->reserve(k, fd, 31), -ENOSPC);
    assert_int_equal(b.sys->reserve(k, fd, 20), 0);
    assert_int_equal(b.sys->file_size(k, fd, &size), 0);
    assert_int_equal(size, 0);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, other, text, 10, 0), 10);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, other, text, 10, 10), -ENOSPC);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 10, 0), 10); /* out of its own */
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 10, 10), 10);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, text, 10, 20), -ENOSPC);
    assert_int_equal(b.sys->truncate(k, fd, 5), 0); /* gives the rest back */
    assert_int_equal(file_op(&b, IORING_OP_WRITE, other, text, 10, 10), 10);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, other, text, 10, 20), 5);
    sim_set_disk(b.k, 0);
    assert_int_equal(b.sys->reserve(k, fd, 1u << 30), 0);
    faults.reserve_refused = 1;
    sim_set_faults(b.k, &faults);
    assert_int_equal(b.sys->reserve(k, fd, 8), -EOPNOTSUPP);
    close_fd(&b, fd);
    close_fd(&b, other);
    finish(&b);
}

/* A directory that was not synced is lost with all that lies in it, synced or not. */
static void test_directories(void **state)
{
    unsigned lost = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 32; seed++) {
        struct bench b;
        size_t size;
        begin(&b, seed, NULL, 64);
        void *k = b.sys->kernel;
        assert_int_equal(b.sys->make_directory(k, "/none/log", 0750), -ENOENT);
        sim_file_put(b.k, "/tmp/file", "", 0);
        assert_int_equal(b.sys->make_directory(k, "/tmp/file", 0750), -ENOTDIR);
        assert_int_equal(b.sys->make_directory(k, "/tmp/log", 0750), 0);
        assert_int_equal(b.sys->make_directory(k, "/tmp/log", 0750), 0);
        assert_int_equal(b.sys->make_directory(k, "/tmp/sure", 0750), 0);
        (void)made(&b, "/tmp/log/a");
        assert_int_equal(b.sys->sync_directory(k, "/tmp/sure"), 0); /* /tmp: both are on disk */
        assert_int_equal(b.sys->make_directory(k, "/tmp/late", 0750), 0);
        (void)made(&b, "/tmp/late/a");
        cut(&b);
        assert_non_null(sim_file_get(b.k, "/tmp/log/a", &size));
        int fd = b.sys->open(k, "/tmp/late/b", O_WRONLY | O_CREAT, 0600);
        assert_int_equal(sim_file_get(b.k, "/tmp/late/a", &size) != NULL, fd >= 0);
        lost += fd < 0;
        end(&b);
    }
    assert_in_range(lost, 4, 28);
}

/* Of changes of names that were not synced, the later may survive without the earlier. */
static void test_names_in_any_order(void **state)
{
    unsigned only_later = 0, both = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 64; seed++) {
        struct bench b;
        size_t size;
        begin(&b, seed, NULL, 64);
        sim_file_put(b.k, "/tmp/old", "1", 1);
        assert_true(b.sys->open(b.sys->kernel, "/tmp/new", O_RDWR | O_CREAT, 0600) >= 0);
        assert_int_equal(b.sys->unlink(b.sys->kernel, "/tmp/old"), 0);
        cut(&b);
        bool made_new = sim_file_get(b.k, "/tmp/new", &size);
        bool removed = !sim_file_get(b.k, "/tmp/old", &size);
        only_later += removed && !made_new;
        both += removed && made_new;
        end(&b);
    }
    assert_in_range(only_later, 2, 30);
    assert_in_range(both, 5, 50);
}

/* kill -9 loses nothing that was written; a power cut after it does. */
static void test_kill(void **state)
{
    static char bytes[4096];
    unsigned lost = 0;

    (void)state;
    memset(bytes, 'x', sizeof bytes);
    for (uint64_t seed = 0; seed < 16; seed++) {
        struct bench b;
        size_t size;
        begin(&b, seed, NULL, 64);
        int fd = made(&b, "/tmp/a");
        assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, bytes, sizeof bytes, 0), sizeof bytes);
        assert_true(b.sys->open(b.sys->kernel, "/tmp/new", O_RDWR | O_CREAT, 0600) >= 0);
        sim_process_kill(b.k);
        assert_int_equal(sim_descriptors(b.k), 0);
        assert_int_equal(ring_enter(&b.ring, true, 0), -EBADFD);
        const char *after = sim_file_get(b.k, "/tmp/a", &size);
        assert_int_equal(size, sizeof bytes);
        assert_memory_equal(after, bytes, sizeof bytes);
        assert_non_null(sim_file_get(b.k, "/tmp/new", &size));
        cut(&b);
        assert_non_null(sim_file_get(b.k, "/tmp/a", &size));
        lost += size < sizeof bytes;
        end(&b);
    }
    assert_in_range(lost, 2, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_power_cut),
        cmocka_unit_test(test_failed_sync_loses_pages),
        cmocka_unit_test(test_the_nth_fails),
        cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_directories),
        cmocka_unit_test(test_names_in_any_order),
        cmocka_unit_test(test_kill),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
