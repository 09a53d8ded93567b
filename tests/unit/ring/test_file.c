/* Files on the real kernel: what is read is what was appended, written or not; a sync answers
 * after the bytes are down; errors poison; names. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "ring/file.h"
#include "ring/ring.h"
#include "ring/wheel.h"

#define PATIENCE_NS UINT64_C(20000000000)

static struct ring ring;
static struct wheel wheel;
static struct files *files;
static char directory[64];

static int set_up(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/roda-test-file-XXXXXX");
    if (!mkdtemp(directory) || system_pool_start(1) < 0)
        return -1;
    if (ring_init(&ring, system_real(), 8, 32) < 0 || ring_enable(&ring) < 0)
        return -1;
    wheel_init(&wheel, system_real()->monotonic_ns(NULL) / 1000000);
    return files_new(&ring, &wheel, &files);
}

static int tear_down(void **state)
{
    char command[128];

    (void)state;
    system_pool_stop();
    files_free(files);
    ring_deinit(&ring);
    snprintf(command, sizeof command, "rm -r %s", directory);
    return system(command);
}

static const char *path_of(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

static bool nothing_else(void *arg)
{
    (void)arg;
    return true;
}

static void turn(void)
{
    ring_wake_arm(&ring);
    files_step(files);
    bool sleep = ring_sleep_begin(&ring, nothing_else, NULL);
    uint64_t wait_ms = wheel_wait_ms(&wheel);
    uint64_t wait_ns = wait_ms < PATIENCE_NS / 1000000 ? wait_ms * 1000000 : PATIENCE_NS;
    assert_int_equal(ring_enter(&ring, sleep, wait_ns), 0);
    ring_sleep_end(&ring);
    ring_dispatch(&ring, ring_mark(&ring), UINT32_MAX);
    ring_jobs_run(&ring);
    wheel_advance(&wheel, system_real()->monotonic_ns(NULL) / 1000000);
}

static void settle(void)
{
    uint64_t start = system_real()->monotonic_ns(NULL);

    while (files_under_way(files)) {
        turn();
        assert_true(system_real()->monotonic_ns(NULL) - start < PATIENCE_NS);
    }
}

/* ---- callbacks that note ---------------------------------------------------------------- */

struct opened {
    struct file *file;
    int result;
    bool called;
};

static void on_open(void *arg, struct file *file, int result)
{
    *(struct opened *)arg = (struct opened){file, result, true};
}

static struct file *open_now(const char *name, unsigned mode)
{
    struct opened opened = {0};

    assert_int_equal(file_open(files, name, mode, on_open, &opened), 0);
    assert_false(opened.called);
    settle();
    assert_true(opened.called);
    assert_int_equal(opened.result, 0);
    assert_non_null(opened.file);
    return opened.file;
}

struct done {
    unsigned n;
    int result;
};

static void on_done(void *arg, int result)
{
    struct done *done = arg;
    done->n++;
    done->result = result;
}

struct bytes {
    unsigned n;
    int result;
    size_t len;
    char *data;
};

static void on_read(void *arg, const char *data, size_t len, int result)
{
    struct bytes *bytes = arg;
    bytes->n++;
    bytes->result = result;
    bytes->len = len;
    free(bytes->data);
    bytes->data = malloc(len + 1);
    assert_non_null(bytes->data);
    memcpy(bytes->data, data, len);
    bytes->data[len] = '\0';
}

static void expect_bytes(struct file *file, uint64_t offset, size_t len, const char *expected,
                         size_t n)
{
    struct bytes bytes = {0};

    assert_int_equal(file_read(file, offset, len, on_read, &bytes), 0);
    assert_int_equal(bytes.n, 0);
    settle();
    assert_int_equal(bytes.n, 1);
    assert_int_equal(bytes.result, 0);
    assert_int_equal(bytes.len, n);
    if (n)
        assert_memory_equal(bytes.data, expected, n);
    free(bytes.data);
}

static char pattern_at(uint64_t offset)
{
    return (char)(offset * 2654435761u >> 13);
}

static char *pattern(uint64_t offset, size_t len)
{
    char *bytes = malloc(len + 1);

    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = pattern_at(offset + i);
    return bytes;
}

/* ---- tests ------------------------------------------------------------------------------ */

static void appends_and_reads_back(void **state)
{
    (void)state;
    struct file *file = open_now(path_of("log"), FILE_READ | FILE_APPEND);

    assert_int_equal(file_size(file), 0);
    assert_int_equal(file_append(file, "hello ", 6), 0);
    assert_int_equal(file_append(file, "world", 5), 6);
    assert_int_equal(file_size(file), 11);
    expect_bytes(file, 0, 100, "hello world", 11); /* nothing is written when it is asked */
    expect_bytes(file, 3, 4, "lo w", 4);
    expect_bytes(file, 11, 4, "", 0);
    expect_bytes(file, 1000, 4, "", 0);
    file_close(file);
    settle();

    file = open_now(path_of("log"), FILE_READ | FILE_APPEND);
    assert_int_equal(file_size(file), 11);
    assert_int_equal(file_append(file, "!", 1), 11);
    expect_bytes(file, 0, 100, "hello world!", 12);
    file_close(file);
    file_close(NULL);
    settle();
    struct stat status;
    assert_int_equal(stat(path_of("log"), &status), 0);
    assert_int_equal(status.st_size, 12);
    assert_int_equal(status.st_mode & 0137, 0);
}

/* How many requests a turn would make now. */
static unsigned requests_made(void)
{
    unsigned before = ring.sqe_tail;

    files_step(files);
    return ring.sqe_tail - before;
}

static void what_nobody_waits_for_is_written_together(void **state)
{
    (void)state;
    struct file *file = open_now(path_of("together"), FILE_READ | FILE_APPEND);
    char *block = pattern(0, FILE_BLOCK_BYTES);
    struct done synced = {0};

    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(file_append(file, "ten bytes.", 10), 10 * i);
        assert_int_equal(requests_made(), 0);
    }
    wheel_advance(&wheel, wheel.now_ms + 10);
    assert_int_equal(requests_made(), 1);
    settle();
    /* What is appended while its time runs goes with the rest. */
    assert_int_equal(file_append(file, "a", 1), 1000);
    assert_int_equal(requests_made(), 0);
    wheel_advance(&wheel, wheel.now_ms + 9);
    assert_int_equal(file_append(file, "b", 1), 1001);
    assert_int_equal(requests_made(), 0);
    wheel_advance(&wheel, wheel.now_ms + 1);
    assert_int_equal(requests_made(), 1);
    settle();
    /* At once: what a sync or the close waits for, and what fills a block. */
    assert_int_equal(file_append(file, "c", 1), 1002);
    assert_int_equal(requests_made(), 0);
    assert_int_equal(file_sync(file, on_done, &synced), 0);
    assert_int_equal(requests_made(), 1);
    settle();
    assert_int_equal(synced.n, 1);
    assert_int_equal(file_append(file, block, FILE_BLOCK_BYTES), 1003);
    assert_int_equal(requests_made(), 1);
    settle();
    assert_int_equal(file_append(file, "d", 1), 1003 + FILE_BLOCK_BYTES);
    file_close(file);
    assert_int_equal(requests_made(), 1);
    settle();
    struct stat status;
    assert_int_equal(stat(path_of("together"), &status), 0);
    assert_int_equal(status.st_size, 1004 + FILE_BLOCK_BYTES);
    free(block);
}

static void random_work_agrees_with_the_pattern(void **state)
{
    (void)state;
    struct file *file = open_now(path_of("random"), FILE_READ | FILE_APPEND);
    struct done synced = {0};
    unsigned syncs = 0;
    uint64_t size = 0;

    srandom(7);
    for (unsigned step = 0; step < 2000; step++) {
        size_t len = (size_t)random() % (random() % 20 ? 300 : 3 * FILE_BLOCK_BYTES);
        char *bytes = pattern(size, len);
        int64_t at = file_append(file, bytes, len);
        free(bytes);
        if (at == -ENOBUFS) {
            turn();
        } else {
            assert_true(at == (int64_t)size);
            size += len;
        }
        assert_true(file_size(file) == size);
        if (random() % 10 == 0) {
            assert_int_equal(file_sync(file, on_done, &synced), 0);
            syncs++;
        }
        if (random() % 5 == 0) {
            uint64_t offset = size ? (uint64_t)random() % size : 0;
            size_t want = (size_t)random() % 100000;
            size_t expected = want < size - offset ? want : (size_t)(size - offset);
            if (random() % 2) /* across what is written and what is not */
                offset = size > want / 2 ? size - want / 2 : 0,
                expected = want < size - offset ? want : (size_t)(size - offset);
            struct bytes got = {0};
            char *good = pattern(offset, expected);
            assert_int_equal(file_read(file, offset, want, on_read, &got), 0);
            while (!got.n)
                turn();
            assert_int_equal(got.result, 0);
            assert_int_equal(got.len, expected);
            assert_memory_equal(got.data, good, expected);
            free(good);
            free(got.data);
        }
        if (random() % 4 == 0)
            turn();
    }
    file_close(file);
    settle();
    assert_int_equal(synced.n, syncs);
    assert_int_equal(synced.result, 0);
    assert_true(size > 2000000);

    struct stat status;
    assert_int_equal(stat(path_of("random"), &status), 0);
    assert_true((uint64_t)status.st_size == size);
    file = open_now(path_of("random"), FILE_READ);
    char *all = pattern(0, size);
    expect_bytes(file, 0, size + 5, all, size);
    free(all);
    file_close(file);
    settle();
}

struct order {
    struct file *file;
    uint64_t upto;
    unsigned *answered, number;
};

static void on_ordered_sync(void *arg, int result)
{
    struct order *order = arg;
    struct stat status;

    assert_int_equal(result, 0);
    assert_int_equal(*order->answered, order->number); /* in the order they were asked */
    ++*order->answered;
    assert_int_equal(stat(path_of("ordered"), &status), 0);
    assert_true((uint64_t)status.st_size >= order->upto);
}

static void syncs_answer_in_order_after_the_bytes(void **state)
{
    (void)state;
    struct file *file = open_now(path_of("ordered"), FILE_APPEND);
    struct order orders[200];
    unsigned answered = 0;

    for (unsigned i = 0; i < 200; i++) {
        assert_true(file_append(file, "0123456789", 10) >= 0);
        orders[i] = (struct order){file, file_size(file), &answered, i};
        assert_int_equal(file_sync(file, on_ordered_sync, &orders[i]), 0);
        assert_int_equal(answered <= i, 1);
        if (i % 3 == 0)
            turn();
    }
    settle();
    assert_int_equal(answered, 200);
    /* Far fewer fsyncs than syncs: they go in groups; and what is down needs none. */
    ring_wake_arm(&ring);
    assert_int_equal(ring_enter(&ring, false, 0), 0);
    uint64_t sqes = ring.counters.sqes;
    struct done again = {0};
    assert_int_equal(file_sync(file, on_done, &again), 0);
    assert_int_equal(again.n, 0);
    settle();
    assert_int_equal(again.n, 1);
    assert_int_equal(ring.counters.sqes, sqes);
    file_close(file);
    settle();
}

static struct file *recursive;

static void sync_again(void *arg, int result)
{
    struct done *done = arg;
    on_done(done, result);
    if (done->n < 5)
        assert_int_equal(file_sync(recursive, sync_again, done), 0);
    else
        file_close(recursive);
}

static void a_callback_may_sync_and_close(void **state)
{
    (void)state;
    struct done done = {0};

    recursive = open_now(path_of("recursive"), FILE_APPEND);
    assert_int_equal(file_sync(recursive, sync_again, &done), 0); /* of an empty file */
    settle();
    assert_int_equal(done.n, 5);
    recursive = open_now(path_of("recursive"), FILE_APPEND);
    done.n = 0;
    file_append(recursive, "x", 1);
    assert_int_equal(file_sync(recursive, sync_again, &done), 0);
    settle();
    assert_int_equal(done.n, 5);
}

static void what_waits_is_bounded(void **state)
{
    (void)state;
    struct file *file = open_now(path_of("bounded"), FILE_APPEND);
    static char megabyte[FILE_PENDING_BYTES_MAX + 1];

    assert_int_equal(file_append(file, megabyte, sizeof megabyte), -EMSGSIZE);
    assert_int_equal(file_append(file, megabyte, FILE_PENDING_BYTES_MAX), 0);
    assert_int_equal(file_append(file, "x", 1), -ENOBUFS);
    assert_int_equal(file_append(file, "", 0), FILE_PENDING_BYTES_MAX);
    settle();
    assert_int_equal(file_append(file, "x", 1), FILE_PENDING_BYTES_MAX);
    file_close(file);
    settle();
}

static void modes_are_kept(void **state)
{
    (void)state;
    struct opened opened = {0};
    struct done done = {0};
    struct bytes bytes = {0};

    assert_int_equal(file_open(files, path_of("x"), 0, on_open, &opened), -EINVAL);
    assert_int_equal(file_open(files, path_of("none"), FILE_READ, on_open, &opened), 0);
    settle();
    assert_int_equal(opened.result, -ENOENT);
    assert_null(opened.file);
    assert_int_equal(file_open(files, path_of("no/dir"), FILE_APPEND, on_open, &opened), 0);
    settle();
    assert_int_equal(opened.result, -ENOENT);
    assert_int_equal(file_open(files, directory, FILE_APPEND, on_open, &opened), 0);
    settle();
    assert_int_equal(opened.result, -EISDIR);

    struct file *file = open_now(path_of("w"), FILE_APPEND);
    assert_int_equal(file_read(file, 0, 1, on_read, &bytes), -EBADF);
    file_close(file);
    assert_int_equal(file_append(file, "x", 1), -EBADF);
    assert_int_equal(file_sync(file, on_done, &done), -EBADF);
    settle();
    file = open_now(path_of("w"), FILE_READ);
    assert_int_equal(file_append(file, "x", 1), -EBADF);
    assert_int_equal(file_sync(file, on_done, &done), -EBADF);
    file_close(file);
    assert_int_equal(file_read(file, 0, 1, on_read, &bytes), -EBADF);
    settle();
    assert_int_equal(done.n + bytes.n, 0);
}

static void a_reader_sees_what_another_appends(void **state)
{
    (void)state;
    struct file *writer = open_now(path_of("shared"), FILE_APPEND);
    struct file *reader = open_now(path_of("shared"), FILE_READ);

    assert_int_equal(file_append(writer, "later", 5), 0);
    settle();
    expect_bytes(reader, 1, 100, "ater", 4);
    file_close(writer);
    file_close(reader);
    settle();
}

static void a_full_disk_poisons(void **state)
{
    (void)state;
    struct file *file = open_now("/dev/full", FILE_APPEND);
    struct done synced = {0};

    assert_int_equal(file_append(file, "x", 1), 0);
    assert_int_equal(file_sync(file, on_done, &synced), 0);
    assert_int_equal(file_sync(file, on_done, &synced), 0);
    settle();
    assert_int_equal(synced.n, 2);
    assert_int_equal(synced.result, -ENOSPC);
    assert_int_equal(file_append(file, "x", 1), -ENOSPC);
    assert_int_equal(file_sync(file, on_done, &synced), -ENOSPC);
    assert_int_equal(file_size(file), 0);
    file_close(file);
    settle();
}

/* The limit makes one write short and the next fail. */
static void a_short_write_goes_on_and_then_poisons(void **state)
{
    (void)state;
    struct file *file = open_now(path_of("limited"), FILE_READ | FILE_APPEND);
    struct done synced = {0};
    struct rlimit before, tight;
    char *bytes = pattern(0, 100000);

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    tight = (struct rlimit){.rlim_cur = 50000, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    assert_int_equal(file_append(file, bytes, 40000), 0);
    assert_int_equal(file_sync(file, on_done, &synced), 0);
    settle();
    assert_int_equal(synced.n, 1);
    assert_int_equal(synced.result, 0);
    assert_int_equal(file_append(file, bytes + 40000, 60000), 40000);
    assert_int_equal(file_sync(file, on_done, &synced), 0);
    settle();
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(synced.n, 2);
    assert_int_equal(synced.result, -EFBIG);
    assert_int_equal(file_append(file, "x", 1), -EFBIG);
    assert_int_equal(file_size(file), 50000);
    expect_bytes(file, 39990, 100000, bytes + 39990, 10010);
    file_close(file);
    settle();
    free(bytes);
}

/* A kernel that cuts writes and reads short, as signals and quotas do, or takes nothing for some
 * enters, as when completions wait. */
static struct system bent;
static unsigned cuts, refusals;
static bool syncs_fail;

static int bent_enter(void *kernel, struct ring *r, unsigned to_submit, unsigned wait,
                      uint64_t timeout_ns)
{
    unsigned tail = r->sqe_tail;

    if (refusals) {
        refusals--;
        return -EBUSY;
    }
    for (unsigned i = tail - to_submit; i != tail; i++) {
        struct io_uring_sqe *sqe = &r->sqes[i & (r->sq_entries - 1)];
        if (sqe->opcode == IORING_OP_FSYNC && syncs_fail)
            sqe->fd = -1;
        bool whole = (sqe->opcode != IORING_OP_WRITE && sqe->opcode != IORING_OP_READ) ||
                     sqe->fd == r->wake_fd || sqe->len < 2;
        if (whole || !cuts)
            continue;
        sqe->len = sqe->len / 3 + 1;
        cuts--;
    }
    return system_real()->ring_enter(kernel, r, to_submit, wait, timeout_ns);
}

/* The pool's threads read ring.system, too. */
static void use_kernel(const struct system *system)
{
    system_pool_stop();
    ring.system = system;
    assert_int_equal(system_pool_start(1), 0);
}

static void bend_kernel(void)
{
    cuts = refusals = 0;
    syncs_fail = false;
    bent = *system_real();
    bent.ring_enter = bent_enter;
    use_kernel(&bent);
}

static void short_writes_and_reads_are_continued(void **state)
{
    (void)state;
    struct file *file = open_now(path_of("short"), FILE_READ | FILE_APPEND);
    struct done synced = {0};
    char *bytes = pattern(0, 300000);

    bend_kernel();
    cuts = 30;
    for (uint64_t at = 0; at < 300000; at += 1000) {
        assert_int_equal(file_append(file, bytes + at, 1000), at);
        if (at % 7000 == 0)
            turn();
    }
    assert_int_equal(file_sync(file, on_done, &synced), 0);
    settle();
    assert_int_equal(cuts, 0);
    assert_int_equal(synced.n, 1);
    assert_int_equal(synced.result, 0);
    cuts = 10;
    expect_bytes(file, 0, 400000, bytes, 300000);
    assert_int_equal(cuts, 0);
    file_close(file);
    settle();
    use_kernel(system_real());

    int fd = open(path_of("short"), O_RDONLY);
    char *got = malloc(300001);
    assert_non_null(got);
    assert_int_equal(read(fd, got, 300001), 300000);
    assert_memory_equal(got, bytes, 300000);
    close(fd);
    free(got);
    free(bytes);
}

static void a_file_is_closed_after_what_is_queued(void **state)
{
    (void)state;
    struct file *file = open_now(path_of("closing"), FILE_READ | FILE_APPEND);
    struct bytes before = {0}, after = {0};
    struct done synced = {0};

    assert_int_equal(file_append(file, "abc", 3), 0);
    settle();
    bend_kernel();
    refusals = 50000; /* time enough for a close that comes too early */
    assert_int_equal(file_read(file, 0, 10, on_read, &before), 0);
    file_close(file);
    settle();
    assert_int_equal(refusals, 0);
    assert_int_equal(before.result, 0);
    assert_int_equal(before.len, 3);

    file = open_now(path_of("closing"), FILE_READ | FILE_APPEND);
    refusals = 50000; /* time enough for a close that comes too early */
    assert_int_equal(file_append(file, "def", 3), 3);
    assert_int_equal(file_sync(file, on_done, &synced), 0);
    assert_int_equal(file_read(file, 0, 10, on_read, &after), 0);
    file_close(file);
    settle();
    use_kernel(system_real());
    assert_int_equal(synced.n, 1);
    assert_int_equal(synced.result, 0);
    assert_int_equal(after.len, 6);
    assert_string_equal(after.data, "abcdef");
    free(before.data);
    free(after.data);
}

static void a_failed_sync_poisons(void **state)
{
    (void)state;
    struct file *file = open_now(path_of("unsynced"), FILE_READ | FILE_APPEND);
    struct done good = {0}, bad = {0};

    bend_kernel();
    assert_int_equal(file_append(file, "abc", 3), 0);
    assert_int_equal(file_sync(file, on_done, &good), 0);
    settle();
    assert_int_equal(good.n, 1);
    assert_int_equal(good.result, 0);
    syncs_fail = true;
    assert_int_equal(file_append(file, "def", 3), 3);
    assert_int_equal(file_sync(file, on_done, &bad), 0);
    settle();
    assert_int_equal(bad.n, 1);
    assert_int_equal(bad.result, -EBADF);
    syncs_fail = false; /* a later one would say that all is well, and be wrong */
    assert_int_equal(file_sync(file, on_done, &bad), -EBADF);
    assert_int_equal(file_append(file, "g", 1), -EBADF);
    expect_bytes(file, 0, 10, "abcdef", 6); /* written they are */
    file_close(file);
    settle();
    use_kernel(system_real());
}

static void more_files_than_sqes(void **state)
{
    (void)state;
    struct file *many[40];
    struct done synced = {0};
    char name[16];

    for (unsigned i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "many-%u", i);
        many[i] = open_now(path_of(name), FILE_READ | FILE_APPEND);
    }
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(file_append(many[i], (char *)&i, sizeof i), 0);
        assert_int_equal(file_sync(many[i], on_done, &synced), 0);
    }
    settle();
    assert_int_equal(synced.n, 40);
    struct bytes bytes[40] = {0};
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(file_read(many[i], 0, 10, on_read, &bytes[i]), 0);
    settle();
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(bytes[i].len, sizeof i);
        assert_memory_equal(bytes[i].data, &i, sizeof i);
        free(bytes[i].data);
        if (i % 2)
            file_close(many[i]); /* the rest by files_free() */
    }
    settle();
}

struct listed {
    unsigned n;
    int result;
    char text[256];
};

static void on_list(void *arg, const char *const *names, size_t n, int result)
{
    struct listed *listed = arg;
    listed->n++;
    listed->result = result;
    listed->text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        strcat(listed->text, names[i]);
        strcat(listed->text, " ");
    }
}

static void names_are_listed_renamed_and_removed(void **state)
{
    (void)state;
    static const char *const names[] = {"b", "a", "\xc3\xa4", "c", "B"};
    struct listed listed = {0};
    struct done done = {0};

    for (unsigned i = 0; i < 5; i++) {
        struct file *file = open_now(path_of(names[i]), FILE_APPEND);
        file_close(file);
    }
    settle();
    assert_int_equal(file_list(files, directory, on_list, &listed), 0);
    assert_int_equal(listed.n, 0);
    settle();
    assert_int_equal(listed.n, 1);
    assert_int_equal(listed.result, 0);
    assert_string_equal(listed.text, "B a b c \xc3\xa4 ");

    assert_int_equal(file_rename(files, path_of("a"), path_of("z"), on_done, &done), 0);
    settle();
    assert_int_equal(done.result, 0);
    assert_int_equal(file_remove(files, path_of("c"), on_done, &done), 0);
    settle();
    assert_int_equal(done.result, 0);
    assert_int_equal(done.n, 2);
    assert_int_equal(file_remove(files, path_of("c"), on_done, &done), 0);
    settle();
    assert_int_equal(done.result, -ENOENT);
    assert_int_equal(file_rename(files, path_of("c"), path_of("y"), on_done, &done), 0);
    settle();
    assert_int_equal(done.result, -ENOENT);
    assert_int_equal(file_list(files, directory, on_list, &listed), 0);
    settle();
    assert_string_equal(listed.text, "B b z \xc3\xa4 ");
    assert_int_equal(file_list(files, path_of("none"), on_list, &listed), 0);
    settle();
    assert_int_equal(listed.result, -ENOENT);
    assert_string_equal(listed.text, "");
}

/* ---- size ------------------------------------------------------------------------------- */

static void a_file_is_cut_off_and_goes_on(void **state)
{
    (void)state;
    const char *path = path_of("cut");
    struct file *file = open_now(path, FILE_READ | FILE_APPEND);
    struct done done = {0}, synced = {0};
    char *bytes = pattern(0, 100000);

    assert_int_equal(file_append(file, bytes, 100000), 0);
    assert_int_equal(file_truncate(file, 5, on_done, &done), -EBUSY); /* not written yet */
    settle();
    assert_int_equal(file_truncate(file, 100001, on_done, &done), -EINVAL);
    assert_int_equal(file_truncate(file, 70000, on_done, &done), 0);
    assert_int_equal(file_append(file, "x", 1), -EBUSY);
    assert_int_equal(file_sync(file, on_done, &synced), -EBUSY);
    assert_int_equal(file_truncate(file, 5, on_done, &done), -EBUSY);
    assert_int_equal(done.n, 0);
    settle();
    assert_int_equal(done.n, 1);
    assert_int_equal(done.result, 0);
    assert_int_equal(file_size(file), 70000);
    assert_int_equal(file_sync(file, on_done, &synced), 0);
    assert_int_equal(file_append(file, bytes + 70000, 10), 70000);
    expect_bytes(file, 69990, 100, bytes + 69990, 20);
    settle();
    assert_int_equal(synced.n, 1);
    assert_int_equal(file_truncate(file, 70010, on_done, &done), 0); /* nothing to cut: synced */
    settle();
    assert_int_equal(done.n, 2);
    assert_int_equal(file_truncate(file, 0, on_done, &done), 0);
    file_close(file); /* after it */
    settle();
    assert_int_equal(done.n, 3);
    assert_int_equal(done.result, 0);
    file = open_now(path, FILE_READ);
    assert_int_equal(file_size(file), 0);
    assert_int_equal(file_truncate(file, 0, on_done, &done), -EBADF);
    assert_int_equal(file_reserve(file, 1, on_done, &done), -EBADF);
    file_close(file);
    settle();
    free(bytes);
}

static int truncate_fails(void *kernel, int fd, uint64_t size)
{
    (void)kernel;
    (void)fd;
    (void)size;
    return -EIO;
}

/* Nobody knows what a failed cut left: like a failed write. */
static int directory_error;
static unsigned directory_syncs;

static int sync_directory(void *kernel, const char *path)
{
    directory_syncs++;
    return directory_error ? directory_error : system_real()->sync_directory(kernel, path);
}

/* Whoever made the file may have failed at that, or may not be that far yet. */
static void the_name_of_an_empty_file_is_synced(void **state)
{
    struct system system = *system_real();
    struct opened opened = {0};

    (void)state;
    system.sync_directory = sync_directory;
    use_kernel(&system);
    directory_error = -EIO;
    assert_int_equal(file_open(files, path_of("new"), FILE_APPEND, on_open, &opened), 0);
    settle();
    assert_int_equal(opened.result, -EIO);
    directory_error = 0;
    directory_syncs = 0;
    struct file *file = open_now(path_of("new"), FILE_APPEND);
    assert_int_equal(directory_syncs, 1);
    assert_int_equal(file_append(file, "x", 1), 0);
    file_close(file);
    settle();
    file_close(open_now(path_of("new"), FILE_READ | FILE_APPEND));
    settle();
    assert_int_equal(directory_syncs, 1);
    use_kernel(system_real());
}

static void what_is_locked_is_one_s_alone(void **state)
{
    struct opened opened = {0};

    (void)state;
    struct file *file = open_now(path_of("lock"), FILE_APPEND | FILE_LOCK);
    assert_int_equal(file_open(files, path_of("lock"), FILE_APPEND | FILE_LOCK, on_open, &opened),
                     0);
    settle();
    assert_int_equal(opened.result, -EBUSY);
    assert_null(opened.file);
    file_close(file);
    settle();
    file_close(open_now(path_of("lock"), FILE_APPEND | FILE_LOCK));
    settle();
}

static void a_failed_cut_poisons(void **state)
{
    (void)state;
    bend_kernel();
    bent.truncate = truncate_fails;
    struct file *file = open_now(path_of("stiff"), FILE_APPEND);
    struct done done = {0};

    assert_int_equal(file_append(file, "0123456789", 10), 0);
    settle();
    assert_int_equal(file_truncate(file, 5, on_done, &done), 0);
    settle();
    assert_int_equal(done.n, 1);
    assert_int_equal(done.result, -EIO);
    assert_int_equal(file_append(file, "x", 1), -EIO);
    assert_int_equal(file_truncate(file, 5, on_done, &done), -EIO);
    assert_int_equal(file_reserve(file, 5, on_done, &done), -EIO);
    file_close(file);
    settle();
    use_kernel(system_real());
}

static void space_is_reserved_beside_everything_else(void **state)
{
    (void)state;
    const char *path = path_of("reserved");
    struct file *file = open_now(path, FILE_READ | FILE_APPEND);
    struct done done = {0};
    struct stat status;

    assert_int_equal(file_append(file, "abc", 3), 0);
    assert_int_equal(file_reserve(file, 1u << 20, on_done, &done), 0);
    assert_int_equal(file_append(file, "def", 3), 3);
    settle();
    assert_int_equal(done.n, 1);
    assert_int_equal(file_size(file), 6);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, 6);
    if (done.result) /* not every file system can */
        assert_int_equal(done.result, -EOPNOTSUPP);
    else
        assert_true(status.st_blocks * 512 >= 1 << 20);
    assert_int_equal(file_reserve(file, UINT64_MAX, on_done, &done), 0);
    assert_int_equal(file_append(file, "ghi", 3), 6); /* a refusal does not poison */
    settle();
    assert_int_equal(done.n, 2);
    assert_true(done.result < 0);
    expect_bytes(file, 0, 100, "abcdefghi", 9);
    assert_int_equal(file_reserve(file, 2u << 20, on_done, &done), 0);
    file_close(file); /* after it */
    settle();
    assert_int_equal(done.n, 3);
}

static void a_directory_is_made_once(void **state)
{
    (void)state;
    const char *path = path_of("folder");
    struct done done = {0};
    struct stat status;

    assert_int_equal(file_make_directory(files, path, on_done, &done), 0);
    assert_int_equal(done.n, 0);
    settle();
    assert_int_equal(done.result, 0);
    assert_int_equal(stat(path, &status), 0);
    assert_true(S_ISDIR(status.st_mode));
    assert_int_equal(status.st_mode & 027, 0);
    assert_int_equal(file_make_directory(files, path, on_done, &done), 0);
    settle();
    assert_int_equal(done.result, 0);
    assert_int_equal(file_make_directory(files, path_of("none/folder"), on_done, &done), 0);
    settle();
    assert_int_equal(done.result, -ENOENT);
    file_close(open_now(path_of("plain"), FILE_APPEND));
    assert_int_equal(file_make_directory(files, path_of("plain"), on_done, &done), 0);
    settle();
    assert_int_equal(done.result, -ENOTDIR);
    assert_int_equal(done.n, 4);
}

/* Everything once, with one allocation failing somewhere: what fails says so, the rest works,
 * and each callback that was promised comes once. */
static void work_that_may_fail(void)
{
    struct opened opened = {0};
    struct done synced = {0}, renamed = {0}, removed = {0}, reserved = {0}, cut = {0}, folder = {0};
    struct bytes bytes = {0};
    struct listed listed = {0};
    static char data[150000];

    int result = file_open(files, path_of("fail"), FILE_READ | FILE_APPEND, on_open, &opened);
    settle();
    assert_int_equal(opened.called, result == 0);
    struct file *file = opened.file;
    if (file) {
        int64_t at = file_append(file, data, sizeof data);
        assert_true(at == -ENOMEM || at >= 0);
        result = file_sync(file, on_done, &synced);
        int read = file_read(file, 0, 1000, on_read, &bytes);
        settle();
        assert_int_equal(synced.n, result == 0);
        assert_int_equal(synced.result, 0);
        assert_int_equal(bytes.n, read == 0);
        assert_int_equal(bytes.result, 0);
        free(bytes.data);
        result = file_reserve(file, 4096, on_done, &reserved);
        settle();
        assert_int_equal(reserved.n, result == 0);
        result = file_truncate(file, 0, on_done, &cut);
        settle();
        assert_int_equal(cut.n, result == 0);
        assert_int_equal(cut.result, 0);
        file_close(file);
        settle();
    }
    result = file_make_directory(files, path_of("folder/"), on_done, &folder);
    settle();
    assert_int_equal(folder.n, result == 0);
    assert_int_equal(folder.result, 0);
    result = file_list(files, directory, on_list, &listed);
    settle();
    assert_int_equal(listed.n, result == 0);
    assert_true(listed.result == 0 || listed.result == -ENOMEM);
    result = file_rename(files, path_of("fail"), path_of("fail2"), on_done, &renamed);
    settle();
    assert_int_equal(renamed.n, result == 0);
    result = file_remove(files, path_of("fail2"), on_done, &removed);
    settle();
    assert_int_equal(removed.n, result == 0);
    unlink(path_of("fail"));
    unlink(path_of("fail2"));
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    uint64_t n = 1;

    for (;; n++) {
        files_free(files); /* so that its tables and spare blocks are asked for again */
        files = NULL;
        memory_fail_at(n, 0);
        uint64_t before = memory_allocations();
        int result = files_new(&ring, &wheel, &files);
        if (result == 0) {
            work_that_may_fail();
        } else {
            assert_int_equal(result, -ENOMEM);
            assert_null(files);
        }
        if (n > memory_allocations() - before)
            break; /* none failed */
        assert_true(n < 1000);
    }
    memory_fail_at(0, 0);
    assert_true(n > 15);
}

int main(void)
{
#define WITH_FILES(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_FILES(appends_and_reads_back),
        WITH_FILES(what_nobody_waits_for_is_written_together),
        WITH_FILES(random_work_agrees_with_the_pattern),
        WITH_FILES(syncs_answer_in_order_after_the_bytes),
        WITH_FILES(a_callback_may_sync_and_close),
        WITH_FILES(what_waits_is_bounded),
        WITH_FILES(modes_are_kept),
        WITH_FILES(a_reader_sees_what_another_appends),
        WITH_FILES(a_full_disk_poisons),
        WITH_FILES(a_short_write_goes_on_and_then_poisons),
        WITH_FILES(short_writes_and_reads_are_continued),
        WITH_FILES(a_file_is_closed_after_what_is_queued),
        WITH_FILES(a_failed_sync_poisons),
        WITH_FILES(more_files_than_sqes),
        WITH_FILES(names_are_listed_renamed_and_removed),
        WITH_FILES(a_file_is_cut_off_and_goes_on),
        WITH_FILES(the_name_of_an_empty_file_is_synced),
        WITH_FILES(what_is_locked_is_one_s_alone),
        WITH_FILES(a_failed_cut_poisons),
        WITH_FILES(space_is_reserved_beside_everything_else),
        WITH_FILES(a_directory_is_made_once),
        WITH_FILES(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
