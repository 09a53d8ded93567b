#include "watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

/*
 * The signals are blocked between the look at what they say and ppoll(), which lets them in again,
 * so none is lost in between; at other times they are let in, since showing a long log takes long.
 * inotify says when to look; it says nothing about network file systems, and it may be
 * out of watches, so a look is taken without it too: every 200 ms if it is not there, every second
 * if it is. After each event there is a short pause, so that a busy broker is followed in batches.
 */
enum { WITHOUT_EVENTS_MS = 200, WITH_EVENTS_MS = 1000, BATCH_NS = 20 * 1000 * 1000 };

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
    (void)number;
    ended = 1;
}

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

void watch_begin(struct watch *w, const char *directory)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
        (void)sigaction(signals[i], &action, NULL);
    w->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (w->inotify >= 0 &&
        inotify_add_watch(w->inotify, directory, IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0)
        watch_end(w);
}

void watch_end(struct watch *w)
{
    if (w->inotify >= 0)
        close(w->inotify);
    w->inotify = -1;
}

static void forget_events(const struct watch *w)
{
    char events[4096];

    while (read(w->inotify, events, sizeof(events)) > 0)
        continue;
}

int watch_has_ended(void)
{
    return ended;
}

int watch_wait(struct watch *w)
{
    const struct timespec batch = {0, BATCH_NS};
    int pause_ms = w->inotify < 0 ? WITHOUT_EVENTS_MS : WITH_EVENTS_MS;
    struct timespec pause = {pause_ms / 1000, pause_ms % 1000 * 1000000L};
    struct pollfd fd = {.fd = w->inotify, .events = POLLIN};
    sigset_t blocked, before;
    int n = 0;

    (void)sigemptyset(&blocked);
    for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
        (void)sigaddset(&blocked, signals[i]);
    (void)sigprocmask(SIG_BLOCK, &blocked, &before);
    if (!ended)
        n = ppoll(&fd, w->inotify < 0 ? 0 : 1, &pause, &before);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    if (ended)
        return 0;
    if (n > 0) {
        (void)nanosleep(&batch, NULL);
        forget_events(w);
    }
    return 1;
}
