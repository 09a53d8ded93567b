#include "line.h"

#include <string.h>

/*
 * Which room bare lines go to. Most people on a worker are in few rooms, so they share the names:
 * a counted record each, found by hash when somebody changes rooms, by pointer for every line.
 */

static struct line_name **place_of(struct line_state *state, struct roda_str name)
{
    struct line_name **place = &state->names[roda_hash(name) % LINE_NAME_CHAINS];

    while (*place && ((*place)->len != name.len || memcmp((*place)->text, name.ptr, name.len) != 0))
        place = &(*place)->next;
    return place;
}

static void drop(struct roda_ctx *x, struct line_name *name)
{
    struct line_name **place;

    if (!name || --name->users)
        return;
    place = place_of(x->state, (struct roda_str){name->text, name->len});
    *place = name->next;
    roda_free(x, name);
}

static struct line_name *take(struct roda_ctx *x, struct roda_str text)
{
    struct line_name **place = place_of(x->state, text);

    if (!*place) {
        struct line_name *name = roda_alloc(x, sizeof(*name) + text.len);
        if (!name)
            return NULL;
        name->len = (uint32_t)text.len;
        memcpy(name->text, text.ptr, text.len);
        *place = name;
    }
    (*place)->users++;
    return *place;
}

void line_set_room(struct roda_ctx *x, struct roda_conn *c, struct roda_str name)
{
    struct line_conn *data = line_conn(x, c);
    struct line_name *before = data->room;

    data->room = name.len ? take(x, name) : NULL;
    if (name.len && !data->room)
        line_refuse(c, "the broker is out of memory; choose your room again with /room");
    drop(x, before);
}
