#ifndef RODA_LOG_PROGRAM_H
#define RODA_LOG_PROGRAM_H
/* What all of roda-log needs: memory that is there, words to the person at the terminal, and what
 * the commands are given. The program and its parts stand in main.c. */
#include <stddef.h>
#include <stdint.h>

#include "filter.h"
#include "folder.h"

/* the exit status; the greatest of what happened counts */
enum { STATUS_FINE = 0, STATUS_DAMAGED = 1, STATUS_FAILED = 2 };

struct task {
    const char *directory;
    struct folder folder;
    uint32_t partitions; /* bit i: partition i is to be read */
    struct filter filter;
    int follow;
    int json;       /* export */
    uint32_t given; /* bit i: option i of the command line */
    int progress;   /* tell it from the start, also to what is no terminal */
    int status;
};

/* Memory is out: the program ends with STATUS_FAILED. */
void *memory_get(size_t size); /* zeroed */
void *memory_resize(void *memory, size_t size);

/* "roda-log: ...", to standard error. */
void tell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int64_t time_now_ns(void);
/* Reads the directory anew, and tells if that fails: 0. */
int task_look(struct task *task);
void task_failed(struct task *task, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The commands. */
void run_print(struct task *task);
void run_export(struct task *task);
void run_verify(struct task *task);
void run_stats(struct task *task);

#endif
