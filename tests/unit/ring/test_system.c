/* The plain calls of the real kernel: results are negative errnos, and what each adds of its own.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ring/system.h"

static char directory[64];

static int enter_directory(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/roda-test-system-XXXXXX");
    return mkdtemp(directory) ? chdir(directory) : -1;
}

static int leave_directory(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -r %s", directory);
    return chdir("/") < 0 ? -1 : system(command);
}

static void every_function_is_there(void **state)
{
    (void)state;
    const struct system *s = system_real();
    /* The struct is functions behind the kernel pointer, and nothing else. */
    void (*const *functions)(void) = (void (*const *)(void))(const void *)s;

    for (size_t i = 1; i < sizeof *s / sizeof(void *); i++)
        assert_true(functions[i] != NULL);
}

static void descriptors_close_on_exec(void **state)
{
    (void)state;
    const struct system *s = system_real();
    int fds[] = {
        s->socket(NULL, AF_UNIX, SOCK_STREAM, 0),
        s->eventfd(NULL),
        s->open(NULL, "file", O_RDWR | O_CREAT, 0600),
    };

    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        assert_true(fds[i] >= 0);
        assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
        assert_int_equal(s->close(NULL, fds[i]), 0);
        assert_int_equal(s->close(NULL, fds[i]), -EBADF);
    }
}

static void failures_are_negative_errnos(void **state)
{
    (void)state;
    const struct system *s = system_real();
    struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "nobody"};
    socklen_t len = sizeof addr;
    int fd = s->socket(NULL, AF_UNIX, SOCK_STREAM, 0), value = 0;
    uint64_t size;

    assert_int_equal(s->socket(NULL, 12345, SOCK_STREAM, 0), -EAFNOSUPPORT);
    assert_int_equal(s->connect(NULL, fd, (struct sockaddr *)&addr, sizeof addr), -ENOENT);
    assert_int_equal(s->getpeername(NULL, fd, (struct sockaddr *)&addr, &len), -ENOTCONN);
    assert_int_equal(s->shutdown(NULL, -1, SHUT_RDWR), -EBADF);
    assert_int_equal(s->setsockopt(NULL, fd, SOL_SOCKET, 12345, &value, sizeof value),
                     -ENOPROTOOPT);
    assert_int_equal(s->listen(NULL, -1, 1), -EBADF);
    assert_int_equal(s->bind(NULL, -1, (struct sockaddr *)&addr, sizeof addr), -EBADF);
    assert_int_equal(s->getsockname(NULL, -1, (struct sockaddr *)&addr, &len), -EBADF);
    assert_int_equal(s->file_size(NULL, -1, &size), -EBADF);
    assert_int_equal(s->open(NULL, "none", O_RDONLY, 0), -ENOENT);
    assert_int_equal(s->unlink(NULL, "none"), -ENOENT);
    assert_int_equal(s->chmod(NULL, "none", 0600), -ENOENT);
    assert_int_equal(s->sync_directory(NULL, "none/file"), -ENOENT);
    s->close(NULL, fd);
}

static void a_socket_is_told_from_a_file(void **state)
{
    (void)state;
    const struct system *s = system_real();
    struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "door"};
    int fd = s->socket(NULL, AF_UNIX, SOCK_STREAM, 0);

    assert_int_equal(s->bind(NULL, fd, (struct sockaddr *)&addr, sizeof addr), 0);
    s->close(NULL, s->open(NULL, "plain", O_WRONLY | O_CREAT, 0600));
    assert_int_equal(symlink("door", "link"), 0);
    assert_int_equal(s->is_socket(NULL, "door"), 0);
    assert_int_equal(s->is_socket(NULL, "plain"), -ENOTSOCK);
    assert_int_equal(s->is_socket(NULL, "link"), -ENOTSOCK);
    assert_int_equal(s->is_socket(NULL, "none"), -ENOENT);
    assert_int_equal(s->chmod(NULL, "door", 0600), 0);
    s->close(NULL, fd);
}

static void directories_are_synced_by_any_form_of_path(void **state)
{
    (void)state;
    const struct system *s = system_real();
    char path[128];

    assert_int_equal(s->sync_directory(NULL, "file"), 0);
    assert_int_equal(s->sync_directory(NULL, "./file"), 0);
    snprintf(path, sizeof path, "%s/file", directory);
    assert_int_equal(s->sync_directory(NULL, path), 0);
    char *longest = malloc(10001);
    assert_non_null(longest);
    memset(longest, 'x', 10000);
    longest[9998] = '/';
    longest[10000] = '\0';
    assert_int_equal(s->sync_directory(NULL, longest), -ENAMETOOLONG);
    free(longest);
}

static void collect(void *arg, const char *name)
{
    strcat(arg, name);
    strcat(arg, " ");
}

static void lists_are_sorted(void **state)
{
    (void)state;
    const struct system *s = system_real();
    char names[256] = "";

    assert_int_equal(mkdir("many", 0700), 0);
    static const char *const made[] = {"many/10", "many/9", "many/.hidden", "many/\xff", "many/A"};
    for (size_t i = 0; i < 5; i++)
        s->close(NULL, s->open(NULL, made[i], O_WRONLY | O_CREAT, 0600));
    assert_int_equal(s->list(NULL, "many", collect, names), 0);
    assert_string_equal(names, ".hidden 10 9 A \xff ");
}

static void time_goes_on_and_pause_waits(void **state)
{
    (void)state;
    const struct system *s = system_real();
    uint64_t start = s->monotonic_ns(NULL);

    s->pause(NULL, start + 3000000);
    assert_true(s->monotonic_ns(NULL) >= start + 3000000);
    s->pause(NULL, start); /* past: at once */
    assert_true(s->realtime_ns(NULL) > INT64_C(1700000000) * 1000000000);
}

static void chance_differs(void **state)
{
    (void)state;
    unsigned char a[1000] = {0}, b[1000] = {0}, zero[64] = {0};

    system_real()->random(NULL, a, sizeof a);
    system_real()->random(NULL, b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_not_equal(a + sizeof a - sizeof zero, zero, sizeof zero);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_function_is_there),
        cmocka_unit_test(descriptors_close_on_exec),
        cmocka_unit_test(failures_are_negative_errnos),
        cmocka_unit_test(a_socket_is_told_from_a_file),
        cmocka_unit_test(directories_are_synced_by_any_form_of_path),
        cmocka_unit_test(lists_are_sorted),
        cmocka_unit_test(time_goes_on_and_pause_waits),
        cmocka_unit_test(chance_differs),
    };
    return cmocka_run_group_tests(tests, enter_directory, leave_directory);
}
