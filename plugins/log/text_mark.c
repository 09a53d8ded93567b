#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/*
 * An empty file .repair-NN-YYYY-MM-DD in the text directory says that text files of rooms of
 * partition NN may lack lines that the segments have, from that day on. It is there as long as a
 * room of the partition is behind, so a broker that ends before its repairs are done takes them up
 * again at its next start, however well it ended. The day stands in the name since a full disk
 * takes names longer than contents. No room's folder has a '.' in its name.
 *
 *     day     of the file that is there; INT64_MAX: none
 *     wanted  the earliest day any room has asked for since the last one was whole
 *
 * One request at a time per mark; what is wanted meanwhile is looked at when it is done. A mark
 * that cannot be made is not missed before the broker ends: what is behind is known in memory.
 */

static void mark_path(const struct text *text, uint32_t partition, int64_t day,
                      char to[TEXT_PATH_SIZE])
{
    char date[TEXT_DAY_SIZE];

    text_day_name(day, date);
    (void)snprintf(to, TEXT_PATH_SIZE, "%s/.repair-%02u-%s", log_conf_of(text->x)->text_directory,
                   partition, date);
}

struct errand {
    struct text *text;
    uint32_t partition;
    int64_t becomes; /* the day, if it goes well */
};

static void update(struct text *text, uint32_t partition);

static void done(struct errand *errand, int result)
{
    struct text *text = errand->text;
    struct text_mark *mark = &text->marks[errand->partition];
    uint32_t partition = errand->partition;

    mark->busy = 0;
    if (result >= 0)
        mark->day = errand->becomes;
    else if (result == -ENOENT)
        mark->day = INT64_MAX; /* there is none, or no directory */
    roda_free(text->x, errand);
    if (result >= 0)
        update(text, partition); /* what has failed is tried again by the tick */
    text->pending--;
    text_end(text);
}

static void on_made(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    (void)x;
    roda_file_close(file);
    done(arg, result);
}

static void on_done(struct roda_ctx *x, void *arg, int result)
{
    (void)x;
    done(arg, result);
}

static int begin(struct text *text, uint32_t partition, struct errand *errand)
{
    const struct text_mark *mark = &text->marks[partition];
    char path[TEXT_PATH_SIZE] = "", old[TEXT_PATH_SIZE] = "";

    if (mark->wanted != INT64_MAX)
        mark_path(text, partition, mark->wanted, path);
    if (mark->day != INT64_MAX)
        mark_path(text, partition, mark->day, old);
    if (!*path)
        return roda_file_remove(text->x, old, on_done, errand);
    if (!*old)
        return roda_file_open(text->x, path, RODA_FILE_APPEND, on_made, errand);
    return roda_file_rename(text->x, old, path, on_done, errand);
}

static void update(struct text *text, uint32_t partition)
{
    struct text_mark *mark = &text->marks[partition];
    struct errand *errand;

    if (mark->busy || mark->wanted == mark->day ||
        (mark->wanted > mark->day && mark->wanted != INT64_MAX))
        return;
    errand = roda_alloc(text->x, sizeof *errand);
    if (!errand)
        return;
    *errand = (struct errand){text, partition, mark->wanted};
    if (begin(text, partition, errand)) {
        roda_free(text->x, errand);
        return;
    }
    mark->busy = 1;
    text->pending++;
}

void text_mark_since(struct text *text, const struct partition *p, int64_t day)
{
    struct text_mark *mark = &text->marks[p->index];

    if (mark->wanted <= day)
        return;
    mark->wanted = day;
    update(text, p->index);
}

void text_mark_add(struct text *text, const struct partition *p, int64_t day)
{
    text->marks[p->index].behind++;
    text_mark_since(text, p, day == INT64_MAX ? text_day(roda_time_ns(text->x)) : day);
}

int64_t text_mark_day(const struct text *text, const struct partition *p)
{
    return text->marks[p->index].day;
}

void text_mark_remove(struct text *text, const struct partition *p)
{
    struct text_mark *mark = &text->marks[p->index];

    if (--mark->behind)
        return;
    mark->wanted = INT64_MAX;
    update(text, p->index);
}

void text_marks_check(struct text *text)
{
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++) {
        struct partition *p = log_state_of(text->x)->partitions[i];
        struct text_mark *mark = &text->marks[i];
        if (!p || p->state != PARTITION_READY)
            continue;
        if (mark->found || text->unread & 1u << i) {
            mark->found = 0;
            text_repair(p);
        }
        update(text, i); /* also what could not be done before */
    }
}

void text_marks_end(struct text *text)
{
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++) {
        struct partition *p = log_state_of(text->x)->partitions[i];
        if (p && text->unread & 1u << i)
            text_mark_add(text, p, text->unread_day);
        else if (p)
            update(text, i);
    }
}

/* Of several, the first in the list is the oldest; the others are for the next start. */
static void found(struct text *text, struct roda_str name)
{
    static const char front[] = ".repair-";
    char file[TEXT_DAY_SIZE];
    unsigned partition;
    int64_t day;

    if (name.len != 21 || memcmp(name.ptr, front, sizeof front - 1) != 0 ||
        sscanf(name.ptr + 8, "%2u-", &partition) != 1 || partition >= RODA_PARTITIONS)
        return;
    (void)snprintf(file, sizeof file, "%.10s.log", name.ptr + 11);
    struct text_mark *mark = &text->marks[partition];
    if (mark->day != INT64_MAX || mark->busy || text_day_parse((struct roda_str){file, 14}, &day))
        return;
    mark->found = 1;
    mark->day = day;
}

static void on_names(struct roda_ctx *x, void *arg, const struct roda_str *names, size_t n,
                     int result)
{
    struct text *text = arg;

    (void)x;
    (void)result; /* no directory: no marks */
    for (size_t i = 0; i < n; i++)
        found(text, names[i]);
    if (!text->stopping)
        text_marks_check(text);
    text->pending--;
    text_end(text);
}

static void on_directory(struct roda_ctx *x, void *arg, int result)
{
    struct text *text = arg;

    if (result < 0 && result != -ECANCELED)
        log_directory_failed(x, LOG_TEXT_DIRECTORY, result);
    if (!text->stopping && !roda_file_list(x, log_conf_of(x)->text_directory, on_names, text))
        return;
    text->pending--;
    text_end(text);
}

int text_marks_read(struct text *text)
{
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++)
        text->marks[i].day = text->marks[i].wanted = INT64_MAX;
    int r = roda_directory_make(text->x, log_conf_of(text->x)->text_directory, on_directory, text);

    text->pending += !r;
    return r;
}
