#ifndef RODA_LOG_WATCH_H
#define RODA_LOG_WATCH_H
/* Waiting for a directory's files to change, or for the end. */

struct watch {
    int inotify; /* -1: not there; then it is a pause */
};

/* From here on SIGINT, SIGTERM and SIGHUP end watch_wait() and say so here, and nothing else. */
void watch_begin(struct watch *w, const char *directory);
int watch_has_ended(void);
void watch_end(struct watch *w);
/* 1: something may have changed; 0: a signal came. */
int watch_wait(struct watch *w);

#endif
