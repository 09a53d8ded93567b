/* A fatal signal is explained in one line, and then does what it would have done. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bus/bus.h"
#include "bus/current.h"
#include "main/blame.h"

static char said[512];

/* Raises the signal in a child that is at that place; returns what ended it. */
static int die(struct bus *bus, int signal)
{
    int ends[2], status;
    size_t len = 0;
    ssize_t n;
    pid_t child;

    assert_int_equal(pipe(ends), 0);
    child = fork();
    assert_true(child >= 0);
    if (!child) {
        const struct rlimit no_core = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &no_core);
        dup2(ends[1], STDERR_FILENO);
        bus_set_current(bus);
        blame_install();
        (void)raise(signal);
        _exit(0);
    }
    close(ends[1]);
    while ((n = read(ends[0], said + len, sizeof said - 1 - len)) > 0)
        len += (size_t)n;
    said[len] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void expect(struct bus *bus, int signal, const char *line)
{
    assert_int_equal(die(bus, signal), signal);
    assert_string_equal(said, line);
}

static void the_line_names_plugin_and_hook(void **state)
{
    struct bus bus = {.worker = 12};

    (void)state;
    expect(NULL, SIGSEGV, "roda: fatal signal 11\n");
    expect(&bus, SIGSEGV, "roda: fatal signal 11 on worker 12 in the core\n");
    bus_enter(&bus, "rooms", "handle");
    expect(&bus, SIGABRT, "roda: fatal signal 6 on worker 12 in plugin rooms, hook handle\n");
    bus_enter(&bus, NULL, "item");
    expect(&bus, SIGBUS, "roda: fatal signal 7 on worker 12 in the core\n");
    bus_leave(&bus);
    for (unsigned i = 0; i < 100; i++) /* deeper than anybody keeps book */
        bus_enter(&bus, "deep", "submit");
    expect(&bus, SIGFPE, "roda: fatal signal 8 on worker 12 in plugin deep, hook submit\n");
    for (unsigned i = 0; i < 100; i++)
        bus_leave(&bus);
    expect(&bus, SIGILL, "roda: fatal signal 4 on worker 12 in plugin rooms, hook handle\n");
    bus_leave(&bus);
    expect(&bus, SIGSEGV, "roda: fatal signal 11 on worker 12 in the core\n");
}

static void a_long_name_does_not_overrun(void **state)
{
    static char name[1000];
    struct bus bus = {.worker = 1};

    (void)state;
    memset(name, 'n', sizeof name - 1);
    bus_enter(&bus, name, "x");
    assert_int_equal(die(&bus, SIGSEGV), SIGSEGV);
    assert_int_equal(strlen(said), 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_line_names_plugin_and_hook),
        cmocka_unit_test(a_long_name_does_not_overrun),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
