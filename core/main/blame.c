#include "main/blame.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "bus/bus.h"
#include "bus/current.h"

/* Only async-signal-safe calls: the line is put together by hand and written at once. */

struct line {
    char text[256];
    size_t len;
};

static void put(struct line *line, const char *text)
{
    while (*text && line->len < sizeof line->text)
        line->text[line->len++] = *text++;
}

static void put_number(struct line *line, unsigned n)
{
    char digits[12];
    size_t i = sizeof digits;

    digits[--i] = '\0';
    do
        digits[--i] = (char)('0' + n % 10);
    while ((n /= 10));
    put(line, digits + i);
}

static void on_fatal(int signal)
{
    const struct bus *bus = bus_current();
    struct line line = {.len = 0};
    ssize_t n;

    put(&line, "roda: fatal signal ");
    put_number(&line, (unsigned)signal);
    if (bus) {
        const struct blame *blame = bus_running(bus);
        put(&line, " on worker ");
        put_number(&line, bus->worker);
        put(&line, blame ? " in plugin " : " in the core");
        if (blame) {
            put(&line, blame->plugin);
            put(&line, ", hook ");
            put(&line, blame->stage ? blame->stage : "?");
        }
    }
    put(&line, "\n");
    n = write(STDERR_FILENO, line.text, line.len);
    (void)n;
    (void)raise(signal); /* SA_RESETHAND: now it does what it does */
}

void blame_install(void)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    struct sigaction action = {.sa_handler = on_fatal, .sa_flags = (int)SA_RESETHAND | SA_NODEFER};

    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        (void)sigaction(fatal[i], &action, NULL);
}
