#include "one_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* The fake kernel's files: what a crash keeps, what a failed sync loses. */

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

/* What was synced is there after a crash, whatever the seed; what was not is so in pieces. */
static void test_crash(void **state)
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
        sim_crash(b.k);
        const char *bytes = sim_file_get(b.k, "/tmp/a", &size);
        assert_non_null(bytes);
        assert_in_range(size, sizeof synced, sizeof synced + sizeof later);
        assert_memory_equal(bytes, synced, sizeof synced);
        for (size_t at = sizeof synced; at < size; at += 512) {
            assert_true(bytes[at] == 'l' || !bytes[at]);
            assert_int_equal(bytes[at], bytes[at + 511]);
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

static void test_failed_sync_loses_pages(void **state)
{
    static char bytes[512];
    struct sim_faults faults = sim_faults_none();
    struct bench b;
    size_t size;

    (void)state;
    memset(bytes, 'x', sizeof bytes);
    faults.sync_eio = 1;
    begin(&b, 41, &faults, 64);
    sim_file_put(b.k, "/tmp/a", "", 0);
    int fd = b.sys->open(b.sys->kernel, "/tmp/a", O_WRONLY, 0);
    assert_int_equal(file_op(&b, IORING_OP_WRITE, fd, bytes, sizeof bytes, 0), sizeof bytes);
    assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), -EIO);
    sim_faults_stop(b.k);
    assert_int_equal(file_op(&b, IORING_OP_FSYNC, fd, NULL, 0, 0), 0); /* proves nothing */
    sim_crash(b.k);
    const char *after = sim_file_get(b.k, "/tmp/a", &size);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(after[i], 0);
    sim_kernel_free(b.k);
    free(b.buffers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_crash),
        cmocka_unit_test(test_failed_sync_loses_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
