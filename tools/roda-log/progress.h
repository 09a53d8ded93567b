#ifndef RODA_LOG_PROGRESS_H
#define RODA_LOG_PROGRESS_H
/* How far long work has come, on standard error. */
#include <stdint.h>

struct progress {
    int mode; /* 0 none, 1 after two seconds, 2 from the start and as lines of their own */
    uint64_t total_bytes, done_bytes, messages;
    int64_t begun_ms, told_ms;
    uint32_t calls;
};

/* forced: --progress. is_stream: standard output gets messages all the time. */
void progress_begin(struct progress *p, int forced, int is_stream, uint64_t total_bytes);
/* Cheap: call it for each record. */
void progress_step(struct progress *p, uint64_t done_bytes, uint64_t messages);
void progress_end(struct progress *p);
/* Before anything else is written to the terminal. */
void progress_hide(void);

#endif
