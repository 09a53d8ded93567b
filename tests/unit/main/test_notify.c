/* sd_notify's protocol: one datagram to a socket with a path or an abstract name. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "main/notify.h"

static int listen_at(const char *name)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    memcpy(at.sun_path, name, strlen(name));
    if (name[0] == '@')
        at.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (struct sockaddr *)&at,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
                     0);
    return fd;
}

static void expect(int fd, const char *text)
{
    char got[64];
    ssize_t n = recv(fd, got, sizeof got, 0);

    assert_int_equal(n, strlen(text));
    assert_memory_equal(got, text, strlen(text));
    assert_int_equal(recv(fd, got, sizeof got, 0), -1); /* one datagram */
}

static void the_socket_may_be_a_path(void **state)
{
    char path[64];
    int fd;

    (void)state;
    snprintf(path, sizeof path, "/tmp/roda-test-notify-%d", (int)getpid());
    fd = listen_at(path);
    setenv("NOTIFY_SOCKET", path, 1);
    notify("READY=1");
    expect(fd, "READY=1");
    notify("STOPPING=1\nSTATUS=bye");
    expect(fd, "STOPPING=1\nSTATUS=bye");
    close(fd);
    notify("nobody listens"); /* no harm */
    unlink(path);
}

static void the_socket_may_be_abstract(void **state)
{
    char name[64];
    int fd;

    (void)state;
    snprintf(name, sizeof name, "@roda-test-notify-%d", (int)getpid());
    fd = listen_at(name);
    setenv("NOTIFY_SOCKET", name, 1);
    notify("READY=1");
    expect(fd, "READY=1");
    close(fd);
}

/* No descriptor is opened at all: the lowest free one stays free. */
static void without_a_socket_nothing_happens(void **state)
{
    char path[300];
    int before = dup(0), after;

    (void)state;
    close(before);
    unsetenv("NOTIFY_SOCKET");
    notify("READY=1");
    setenv("NOTIFY_SOCKET", "", 1);
    notify("READY=1");
    setenv("NOTIFY_SOCKET", "relative", 1);
    notify("READY=1");
    memset(path, 'x', sizeof path - 1);
    path[0] = '/';
    path[sizeof path - 1] = '\0';
    setenv("NOTIFY_SOCKET", path, 1);
    notify("READY=1");
    after = dup(0);
    close(after);
    assert_int_equal(before, after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_socket_may_be_a_path),
        cmocka_unit_test(the_socket_may_be_abstract),
        cmocka_unit_test(without_a_socket_nothing_happens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
