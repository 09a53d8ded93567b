#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/*
 * A room's file, one at a time:
 *
 *     CLOSED --> OPENING --> OPEN --> CLOSING --> CLOSED
 *        |  waits for a place          sync, then close
 *
 * At most max_files rooms are not CLOSED. Who wants a place waits in `waiting`, and for each that
 * waits one file is closed: of the room that was written least lately and has nothing to do. A
 * file is synced before it is closed, since only a sync says whether what was appended is written,
 * and so that a broker that ended well has left files that are whole, without reading them again.
 *
 * Folders are made when a file cannot be opened without them.
 */

void text_link_last(struct text_link *list, struct text_link *link)
{
    link->next = list;
    link->prev = list->prev;
    list->prev->next = link;
    list->prev = link;
}

void text_link_remove(struct text_link *link)
{
    if (!link->next)
        return;
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->next = link->prev = NULL;
}

static struct text_room *room_of_link(struct text_link *link)
{
    return (struct text_room *)(void *)((char *)link - offsetof(struct text_room, link));
}

void text_folder(const struct text_room *room, char to[TEXT_PATH_SIZE])
{
    char name[TEXT_NAME_SIZE];

    if (text_name(text_folded(room), name) < 0)
        name[0] = '\0'; /* text_room_get() lets none such in */
    int len =
        snprintf(to, TEXT_PATH_SIZE, "%s/%s", log_conf_of(room->text->x)->text_directory, name);
    if (roda_room_partition(text_folded(room)) != room->p->index)
        (void)snprintf(to + len, TEXT_PATH_SIZE - (size_t)len, "+%02u", room->p->index);
}

void text_path(const struct text_room *room, int64_t day, char to[TEXT_PATH_SIZE])
{
    char date[TEXT_DAY_SIZE];

    text_folder(room, to);
    text_day_name(day, date);
    size_t len = strlen(to);
    (void)snprintf(to + len, TEXT_PATH_SIZE - len, "/%s.log", date);
}

/* ---- opening ------------------------------------------------------------------------------ */

static void on_open(struct roda_ctx *x, void *arg, struct roda_file *file, int result);

static void opened(struct text_room *room, struct roda_file *file, int result)
{
    struct text *text = room->text;

    room->file = file;
    room->making = 0;
    if (result < 0) {
        room->state = TEXT_CLOSED;
        text->n_files--;
    } else {
        room->state = TEXT_OPEN;
        room->unsynced = room->lines = 0;
        text_link_last(&text->open, &room->link);
    }
    text->pending++; /* the room may go meanwhile */
    text_room_opened(room, result);
    text->pending--;
    text_file_places(text);
    text_end(text);
}

static int open_now(struct text_room *room)
{
    char path[TEXT_PATH_SIZE];

    text_path(room, room->day, path);
    return roda_file_open(room->text->x, path, RODA_FILE_READ | RODA_FILE_APPEND, on_open, room);
}

static void on_folder(struct roda_ctx *x, void *arg, int result);

static int make_folder(struct text_room *room)
{
    char path[TEXT_PATH_SIZE];

    text_folder(room, path);
    room->making++;
    return roda_directory_make(room->text->x, path, on_folder, room);
}

static void on_text_directory(struct roda_ctx *x, void *arg, int result)
{
    struct text_room *room = arg;

    (void)x;
    if (!result)
        result = make_folder(room);
    if (result)
        opened(room, NULL, result);
}

static void on_folder(struct roda_ctx *x, void *arg, int result)
{
    struct text_room *room = arg;

    if (result == -ENOENT && room->making == 1)
        result = roda_directory_make(x, log_conf_of(x)->text_directory, on_text_directory, room);
    else if (!result)
        result = open_now(room);
    if (result)
        opened(room, NULL, result);
}

static void on_open(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    struct text_room *room = arg;

    (void)x;
    if (result == -ENOENT && !room->making) {
        result = make_folder(room);
        if (!result)
            return;
    }
    opened(room, file, result < 0 ? result : 0);
}

static void begin(struct text_room *room)
{
    room->state = TEXT_OPENING;
    room->text->n_files++;
    room->reopen = 0;
    int r = open_now(room);
    if (!r)
        return;
    room->state = TEXT_CLOSED;
    room->text->n_files--;
    text_room_opened(room, r);
}

void text_file_wait_ends(struct text_room *room)
{
    if (room->state != TEXT_CLOSED || !room->link.next)
        return;
    text_link_remove(&room->link);
    room->text->n_waiting--;
}

/* Closes as many as are waited for, as far as there are any with nothing to do. */
static void make_places(struct text *text)
{
    struct text_link *link = text->open.next;

    while (link != &text->open && text->n_waiting > text->n_closing) {
        struct text_room *room = room_of_link(link);
        link = link->next;
        if (!room->repair && !room->first)
            text_file_close(room);
    }
}

void text_file_places(struct text *text)
{
    while (text->n_waiting && text->n_files < text->max_files) {
        struct text_room *room = room_of_link(text->waiting.next);
        text_file_wait_ends(room);
        begin(room);
    }
    make_places(text);
}

void text_file_open(struct text_room *room, int64_t day)
{
    struct text *text = room->text;

    room->day = day;
    if (room->link.next)
        return; /* it waits already */
    if (text->n_files < text->max_files && !text->n_waiting) {
        begin(room);
        return;
    }
    text_link_last(&text->waiting, &room->link);
    text->n_waiting++;
    make_places(text);
}

/* ---- syncing and closing ------------------------------------------------------------------ */

void text_file_used(struct text_room *room)
{
    text_link_remove(&room->link);
    text_link_last(&room->text->open, &room->link);
}

static void closed(struct text_room *room)
{
    struct text *text = room->text;

    roda_file_close(room->file);
    room->file = NULL;
    room->state = TEXT_CLOSED;
    text->n_files--;
    text->n_closing--;
    text_room_closed(room);
}

static void synced(struct text_room *room, int result)
{
    room->syncing = 0;
    if (room->stale) {
        room->stale = 0;
        if (room->state == TEXT_CLOSING)
            text_file_sync(room);
        else
            text_go_on(room);
        return;
    }
    if (result < 0 && result != -ECANCELED) {
        text_failed(room, result);
        return;
    }
    room->unsynced -= room->covered;
    room->lines -= room->lines_covered;
    if (room->state != TEXT_CLOSING)
        text_go_on(room);
    else if (room->unsynced && !result)
        text_file_sync(room);
    else
        closed(room);
}

static void on_sync(struct roda_ctx *x, void *arg, int result)
{
    struct text_room *room = arg;
    struct text *text = room->text;

    (void)x;
    text->pending++; /* the room may go meanwhile */
    synced(room, result);
    text->pending--;
    text_file_places(text);
    text_end(text);
}

void text_file_sync(struct text_room *room)
{
    if (room->syncing)
        return;
    room->syncing = 1;
    room->covered = room->unsynced;
    room->lines_covered = room->lines;
    int r = roda_file_sync(room->file, on_sync, room);
    if (!r)
        return;
    room->syncing = 0;
    text_failed(room, r);
}

void text_file_close(struct text_room *room)
{
    text_link_remove(&room->link);
    room->state = TEXT_CLOSING;
    room->text->n_closing++;
    text_file_sync(room);
}

void text_file_drop(struct text_room *room)
{
    struct text *text = room->text;

    text_file_wait_ends(room);
    if (room->state == TEXT_CLOSED)
        return;
    text_link_remove(&room->link);
    text->n_closing -= room->state == TEXT_CLOSING;
    roda_file_close(room->file);
    room->file = NULL;
    room->state = TEXT_CLOSED;
    room->stale = room->syncing;
    text->n_files--;
}
