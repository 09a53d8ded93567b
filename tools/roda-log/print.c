#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "merge.h"
#include "program.h"
#include "progress.h"
#include "show.h"
#include "text_line.h"
#include "watch.h"

/*
 * print and export: the merged stream, each message written by one function. Following is the same
 * again and again: what has come since then is one more merged stream; it is over after one more
 * look when nothing that is wanted can come.
 */
typedef void show_fn(FILE *to, const struct reader *r);

/* A line of the plugin's own text files, so that these can be made from the segments. */
static void show_text_line(FILE *to, const struct reader *r)
{
    static char *bytes;
    static size_t size;
    struct text_line line;
    size_t len;

    text_line_of_record(&r->record.message, show_room(r->room, &r->record.message), &line);
    len = text_line_write(&line, bytes, size);
    if (len > size) {
        size = 2 * len;
        bytes = memory_resize(bytes, size);
        len = text_line_write(&line, bytes, size);
    }
    (void)fwrite(bytes, 1, len, to);
}

/* 0: nobody reads it any more, or the disk is full. */
static int is_written(struct task *task)
{
    if (!fflush(stdout) && !ferror(stdout))
        return 1;
    task_failed(task, "standard output: %s", strerror(errno));
    return 0;
}

static void show_all(struct merge *merge, struct progress *progress, show_fn *show)
{
    const struct reader *r;

    while (!ferror(stdout) && !watch_has_ended() && (r = merge_next(merge))) {
        show(stdout, r);
        progress_step(progress, merge_bytes_read(merge), merge->messages);
    }
}

static void follow(struct task *task, struct merge *merge, struct progress *none, show_fn *show,
                   struct watch *watch)
{
    int is_over = 0;

    while (is_written(task) && !is_over && watch_wait(watch)) {
        is_over = filter_is_over(&task->filter, time_now_ns());
        folder_free(&task->folder);
        if (!task_look(task))
            return;
        merge_update(merge);
        show_all(merge, none, show);
    }
}

static void run(struct task *task, show_fn *show)
{
    struct progress progress, none = {0};
    struct watch watch = {-1};
    struct merge merge;

    if (task->follow)
        watch_begin(&watch, task->directory);
    merge_init(&merge, task);
    progress_begin(&progress, task->progress, 1, merge.total_bytes);
    show_all(&merge, &progress, show);
    progress_end(&progress);
    if (task->follow)
        follow(task, &merge, &none, show, &watch);
    else
        (void)is_written(task);
    watch_end(&watch);
    merge_free(&merge);
}

void run_print(struct task *task)
{
    run(task, show_line);
}

void run_export(struct task *task)
{
    run(task, task->json ? show_json : show_text_line);
}
