#ifndef RODA_LOG_PROGRESS_H
#define RODA_LOG_PROGRESS_H
/* How far long work has come, on standard error. */
#include <stdint.h>

struct progress {
    int mode; /* 0 none, 1 after two seconds, 2 from the start and as lines of their own */
    int shown;
    uint64_t total_bytes, done_bytes, messages;
    int64_t begun_ms, told_ms;
    uint32_t calls;
};

/* forced: --progress */
void progress_begin(struct progress *p, int forced, uint64_t total_bytes);
/* Cheap: call it for each record. */
void progress_step(struct progress *p, uint64_t done_bytes, uint64_t messages);
void progress_end(struct progress *p);

#endif
