#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/*
 * A terminal gets one line that is written over, after two seconds, unless the messages themselves
 * go to that terminal. A file or a pipe gets progress only if it was asked for, in lines.
 */
enum { CALLS_BETWEEN_LOOKS = 1024, PATIENCE_MS = 2000, PAUSE_MS = 500 };

static int on_screen; /* a line that is to be written over */

static int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void show(struct progress *p)
{
    uint64_t total = p->total_bytes ? p->total_bytes : 1;
    uint64_t done = p->done_bytes < total ? p->done_bytes : total;

    (void)fprintf(stderr, "%sroda-log: %3u %% of %.1f MB, %" PRIu64 " messages%s",
                  p->mode == 1 ? "\r" : "", (unsigned)(100.0 * (double)done / (double)total),
                  (double)p->total_bytes / 1e6, p->messages, p->mode == 1 ? "\033[K" : "\n");
    on_screen = p->mode == 1;
}

void progress_hide(void)
{
    if (on_screen)
        (void)fputs("\r\033[K", stderr);
    on_screen = 0;
}

void progress_begin(struct progress *p, int forced, int is_stream, uint64_t total_bytes)
{
    int is_watched = isatty(STDERR_FILENO) && !(is_stream && isatty(STDOUT_FILENO));

    *p = (struct progress){.mode = forced ? 2 : is_watched ? 1 : 0, .total_bytes = total_bytes};
    p->begun_ms = p->told_ms = now_ms();
    if (forced)
        show(p);
}

void progress_step(struct progress *p, uint64_t done_bytes, uint64_t messages)
{
    int64_t now;

    if (!p->mode)
        return;
    p->done_bytes = done_bytes;
    p->messages = messages;
    if (++p->calls % CALLS_BETWEEN_LOOKS)
        return;
    now = now_ms();
    if (now - p->told_ms < PAUSE_MS || (p->mode == 1 && now - p->begun_ms < PATIENCE_MS))
        return;
    p->told_ms = now;
    show(p);
}

void progress_end(struct progress *p)
{
    if (p->mode == 2) {
        p->done_bytes = p->total_bytes;
        show(p);
    }
    progress_hide();
}
