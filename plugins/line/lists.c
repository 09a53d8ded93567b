#include "line.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/*
 * /who and /rooms. A list may be longer than a send queue, and parts of it come from other
 * workers, so it is written in pieces into a place of the send queue:
 *
 *        +------------ drained ------------+
 *        v                                 |
 *   more(): ask rooms for a piece --> piece(): write it --> end of the place after the last one
 *
 * While a list is being written the connection's input is held, so that each connection has one at
 * most. The list belongs to whichever of the two callbacks is still to come: asking says that the
 * piece is, place == NULL that the connection has gone and the piece is the last to come.
 */

enum { MEMBERS_PER_PIECE = 100, ROOMS_PER_PIECE = 50, LIST_COST = 4 };

struct list {
    struct roda_ctx *x;
    roda_conn_id conn;
    struct roda_place *place;
    uint64_t after, total;
    int asking;
    int of_rooms;
    struct roda_str room; /* its bytes follow the struct */
    char name[];
};

static void finish(struct list *list)
{
    struct roda_conn *c = roda_conn_find(list->x, list->conn);

    if (list->place)
        roda_place_end(list->place);
    if (c)
        roda_conn_release(c);
    roda_free(list->x, list);
}

static struct show begin(struct list *list)
{
    return show_begin(roda_place_out(list->place));
}

static void show_failure(struct list *list, int error)
{
    struct show s = begin(list);

    show_word(&s, "! ");
    switch (error) {
    case -ENOENT:
        show_word(&s, "there is no such room: ");
        show_name(&s, list->room);
        break;
    case -ENOMEM:
        show_word(&s, "the broker is out of memory");
        break;
    default:
        show_word(&s, "the list ends here: the broker cannot go on with it now");
        break;
    }
    show_end(&s);
}

static void show_member(struct list *list, const struct roda_member *member)
{
    static const char *const ranks[] = {NULL, "voice", "operator", "owner"};
    struct roda_str door = roda_person_get(member->person, RODA_PERSON_DOOR);
    struct roda_str away = roda_person_get(member->person, RODA_PERSON_AWAY);
    struct show s = begin(list);

    show_word(&s, "* who ");
    show_name(&s, list->room);
    show_word(&s, " ");
    show_name(&s, roda_person_get(member->person, RODA_PERSON_NICK));
    if (member->rank && member->rank < sizeof(ranks) / sizeof(*ranks)) {
        show_word(&s, ", ");
        show_word(&s, ranks[member->rank]);
    }
    if (door.len) {
        show_word(&s, ", by ");
        show_name(&s, door);
    }
    if (away.len) {
        show_word(&s, ", away: ");
        show_text(&s, away, 0);
    }
    show_end(&s);
}

static void show_room(struct list *list, const struct roda_room *room)
{
    struct show s = begin(list);

    show_word(&s, "* room ");
    show_name(&s, room->name);
    show_word(&s, ": ");
    show_number(&s, room->members);
    show_word(&s, room->members == 1 ? " person, last message " : " people, last message ");
    show_number(&s, room->number);
    if (room->modes & RODA_ROOM_INVITE_ONLY)
        show_word(&s, ", invite only");
    if (room->modes & RODA_ROOM_KEY)
        show_word(&s, ", key");
    if (room->modes & RODA_ROOM_MODERATED)
        show_word(&s, ", moderated");
    if (room->topic.len) {
        show_word(&s, ", topic: ");
        show_text(&s, room->topic, 0);
    }
    show_end(&s);
}

static void show_total(struct list *list)
{
    struct show s = begin(list);

    if (list->of_rooms) {
        show_word(&s, "* rooms: ");
        show_number(&s, list->total);
    } else {
        show_word(&s, "* who ");
        show_name(&s, list->room);
        show_word(&s, ": ");
        show_number(&s, list->total);
        show_word(&s, list->total == 1 ? " person" : " people");
    }
    show_end(&s);
}

/* After a piece was written, or could not be. */
static void go_on(struct list *list, size_t n, uint64_t next, int result)
{
    list->total += n;
    list->after = next;
    if (result)
        show_failure(list, result);
    else if (!next)
        show_total(list);
    if (result || !next)
        finish(list);
    else
        roda_place_wake(list->place);
}

static void take_members(void *arg, const struct roda_member *members, size_t n, uint64_t next,
                         int result)
{
    struct list *list = arg;

    list->asking = 0;
    if (!list->place) {
        finish(list);
        return;
    }
    for (size_t i = 0; i < n; i++)
        show_member(list, &members[i]);
    go_on(list, n, next, result);
}

static void take_rooms(void *arg, const struct roda_room *rooms, size_t n, uint64_t next,
                       int result)
{
    struct list *list = arg;

    list->asking = 0;
    if (!list->place) {
        finish(list);
        return;
    }
    for (size_t i = 0; i < n; i++)
        show_room(list, &rooms[i]);
    go_on(list, n, next, result);
}

static void more(struct roda_ctx *x, void *arg, int result)
{
    const struct line_state *state = x->state;
    struct list *list = arg;

    if (result) {
        list->place = NULL;
        if (!list->asking)
            finish(list);
        return;
    }
    roda_place_wait(list->place);
    list->asking = 1;
    if (list->of_rooms)
        result =
            state->rooms->list(state->rooms_ctx, list->after, ROOMS_PER_PIECE, take_rooms, list);
    else
        result = state->rooms->members(state->rooms_ctx, list->room, list->after, MEMBERS_PER_PIECE,
                                       take_members, list);
    if (result) {
        list->asking = 0;
        go_on(list, 0, 0, result);
    }
}

static void start(struct roda_ctx *x, struct roda_conn *c, int of_rooms, struct roda_str room)
{
    struct list *list = roda_alloc(x, sizeof(*list) + room.len);

    if (!list) {
        line_refuse(c, "the broker is out of memory");
        return;
    }
    memcpy(list->name, room.ptr, room.len);
    list->x = x;
    list->conn = roda_conn_getid(c);
    list->of_rooms = of_rooms;
    list->room = (struct roda_str){list->name, room.len};
    if (roda_place_new(x, c, more, list, &list->place)) {
        roda_free(x, list);
        line_refuse(c, "the broker is out of memory");
        return;
    }
    roda_conn_hold(c);
    roda_charge(x, c, LIST_COST);
}

void line_list_members(struct roda_ctx *x, struct roda_conn *c, struct roda_str room)
{
    start(x, c, 0, room);
}

void line_list_rooms(struct roda_ctx *x, struct roda_conn *c)
{
    start(x, c, 1, RODA_STR(""));
}
