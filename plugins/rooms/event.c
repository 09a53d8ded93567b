#include "rooms.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

/*
 * What happens to a person happens in all its rooms: a new nick, away, back, gone. Each room's home
 * puts it into its own order, as everything; yet whoever shares several rooms is to be told once.
 *
 *   the person's worker        each room's home             each worker with members
 *   ------------------        ----------------             ------------------------
 *   event, a step per room -> lane -> change the member -> shown to those who were not shown it
 *      left == 0           <- done (posted "after")        in another room: a sighting per event
 *      forget -----------------------------------------> the sighting is freed
 *
 * A "done" is pushed after what that home distributed, and "forget" comes after all "done": so it
 * is the last that any worker hears of the event. The event is one block of memory, with all
 * messages made, before anything is changed: from then on it cannot fail. It is freed when its last
 * "forget" has run.
 *
 * The message names the event in its token, for it has no sender who could want one. A room may be
 * the only one: then nothing is tracked, and nothing needs to be forgotten.
 */

/* ---- the event ------------------------------------------------------------------------------- */

static void release_messages(struct roda_ctx *x, struct person_event *event)
{
    for (uint32_t i = 0; i < event->n_steps; i++) {
        roda_msg_unref(event->steps[i].msg);
        room_unref(x, event->steps[i].room);
        event->steps[i].msg = NULL;
        event->steps[i].room = NULL;
    }
    roda_person_unref(event->before);
    roda_person_unref(event->after);
    roda_msg_unref(event->asked);
}

void event_free(struct roda_ctx *x, struct person_event *event)
{
    ids_remove(&state_of(x)->events, event->id);
    release_messages(x, event);
    roda_free(x, event);
}

static struct roda_msg *message(struct roda_ctx *x, const struct person_event *event,
                                const struct room *room, struct roda_str text)
{
    struct roda_msg_init init = {.size = sizeof(init),
                                 .kind = event->kind,
                                 .token = event->id,
                                 .sender = event->before,
                                 .after = event->after,
                                 .to = room_name(room),
                                 .text = text};
    int error = 0;
    struct roda_msg *msg = roda_msg_make(x, &init, &error);

    if (!msg && error != -ENOMEM) { /* the reason of a close is anybody's text */
        init.text = RODA_STR("");
        msg = roda_msg_make(x, &init, &error);
    }
    return msg;
}

int event_add(struct roda_ctx *x, struct person_event *event, struct room *room,
              struct roda_str text)
{
    struct person_step *step = &event->steps[event->n_steps++];

    step->event = event;
    step->room = room_ref(room);
    step->msg = message(x, event, room, text);
    return step->msg ? 0 : -ENOMEM;
}

static struct person_event *event_alloc(struct roda_ctx *x, uint32_t n)
{
    uint32_t forgets = n > 1 ? x->n_workers : 0;
    size_t steps = n * sizeof(struct person_step);
    struct person_event *event =
        roda_alloc(x, sizeof(*event) + steps + forgets * sizeof(*event->forget));

    if (event && forgets)
        event->forget = (struct event_forget *)(void *)((char *)event->steps + steps);
    return event;
}

struct person_event *event_new(struct roda_ctx *x, uint32_t kind, roda_conn_id conn,
                               const struct roda_person *before, const struct roda_person *after,
                               uint32_t n)
{
    struct person_event *event = event_alloc(x, n);

    if (!event)
        return NULL;
    if (ids_add(x, &state_of(x)->events, IDS_MAX, event, &event->id)) {
        roda_free(x, event);
        return NULL;
    }
    event->id |= (uint64_t)x->worker << 56;
    event->kind = kind;
    event->conn = conn;
    event->before = roda_person_ref(before);
    event->after = after ? roda_person_ref(after) : NULL;
    return event;
}

/* ---- forgetting ------------------------------------------------------------------------------ */

struct sighting { /* who was shown one event on this worker */
    struct sighting *next;
    uint64_t event_id;
    roda_conn_id *conns; /* open addressing, at most half full */
    uint32_t n, capacity;
};

static struct sighting **sighting_place(struct roda_ctx *x, uint64_t event_id)
{
    uint64_t mixed = (event_id >> 56) * 31 + event_id;
    struct sighting **link = &state_of(x)->sightings[mixed % SIGHTING_CHAINS];

    while (*link && (*link)->event_id != event_id)
        link = &(*link)->next;
    return link;
}

static void sighting_remove(struct roda_ctx *x, struct sighting **link)
{
    struct sighting *sighting = *link;

    *link = sighting->next;
    roda_free(x, sighting->conns);
    roda_free(x, sighting);
}

static void forget_run(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct event_forget *forget = (struct event_forget *)(void *)item;
    struct person_event *event = forget->event;
    struct sighting **link = result < 0 ? NULL : sighting_place(x, forget->id);

    if (link && *link)
        sighting_remove(x, link);
    if (atomic_fetch_sub_explicit(&event->forgets, 1, memory_order_acq_rel) == 1)
        roda_free(x, event);
}

static void forget(struct roda_ctx *x, struct person_event *event)
{
    ids_remove(&state_of(x)->events, event->id);
    release_messages(x, event);
    atomic_store_explicit(&event->forgets, x->n_workers, memory_order_relaxed);
    for (uint32_t worker = 0; worker < x->n_workers; worker++) {
        event->forget[worker] =
            (struct event_forget){.item = {.run = forget_run}, .event = event, .id = event->id};
        roda_post(x, worker, &event->forget[worker].item);
    }
}

static void finish(struct roda_ctx *x, struct person_event *event)
{
    people_event_done(x, event);
    if (event->forget)
        forget(x, event);
    else
        event_free(x, event);
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void step_came_back(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct person_event *event = ((struct person_step *)(void *)item)->event;

    if (result >= 0 && !--event->left)
        finish(x, event);
    /* Cancelled: event_stop() frees it. */
}

static void step_done(struct roda_ctx *x, struct person_step *step)
{
    step->item = (struct roda_item){.run = step_came_back};
    roda_post_after(x, RODA_CONN_WORKER(step->event->id), &step->item);
}

/* The room shows nothing of it: what its order would have done there is done now. */
static void unseen_came_back(struct roda_ctx *x, struct roda_item *item, int result)
{
    const struct person_step *step = (const struct person_step *)(const void *)item;
    struct local *local = result < 0 ? NULL : local_find(x, step->room->id);

    if (local && step->event->kind == RODA_QUIT)
        local_left(x, local, step->event->conn);
    step_came_back(x, item, result);
}

/* At the home: the room's own record. */
static void apply(struct roda_ctx *x, struct home *home, const struct person_event *event,
                  struct home_member *member)
{
    if (event->kind == RODA_QUIT) {
        home_remove(x, home, member);
        return;
    }
    roda_person_unref(member->person);
    member->person = roda_person_ref(event->after);
}

static void enqueue(struct home *home, struct person_step *step)
{
    step->next = NULL;
    if (home->steps_newest)
        home->steps_newest->next = step;
    else
        home->steps_oldest = step;
    home->steps_newest = step;
}

/* The one that was put last and did not come into the lane. */
static void take_back(struct home *home, const struct person_step *step)
{
    struct person_step **link = &home->steps_oldest, *before = NULL;

    while (*link && *link != step) {
        before = *link;
        link = &before->next;
    }
    *link = NULL;
    home->steps_newest = before;
}

const struct roda_person *event_person(const struct home *home, const struct home_member *member)
{
    const struct roda_person *person = member->person;

    for (const struct person_step *step = home->steps_oldest; step; step = step->next)
        if (step->event->conn == member->conn && step->event->after)
            person = step->event->after;
    return person;
}

/* A filter, or the lack of memory, may keep an event from being shown, but not from being true. Not
 * posted "after": whatever this room sends next must find it carried out. */
static void apply_unseen(struct roda_ctx *x, struct home *home, struct person_step *step)
{
    struct home_member *member = members_find(&home->members, step->event->conn);

    if (member)
        apply(x, home, step->event, member);
    step->item = (struct roda_item){.run = member ? unseen_came_back : step_came_back};
    roda_post(x, RODA_CONN_WORKER(step->event->id), &step->item);
    if (!home->members.n)
        home_sweep(x, home);
}

static void step_arrived(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct person_step *step = (struct person_step *)(void *)item;
    struct home *home = result < 0 ? NULL : home_find(x, step->room->id);
    struct roda_msg *msg = step->msg;

    if (result < 0)
        return; /* event_stop() frees it */
    if (!home || !members_find(&home->members, step->event->conn)) {
        step_done(x, step); /* left, or was put out, before it came here */
        return;
    }
    step->msg = NULL;
    enqueue(home, step);
    if (home_publish(x, home, msg))
        return;
    take_back(home, step);
    apply_unseen(x, home, step);
}

void event_leave_lane(struct roda_ctx *x, struct home *home, struct roda_msg *msg, int result)
{
    struct person_step *step = home->steps_oldest;
    struct person_event *event = step->event;
    struct home_member *member = members_find(&home->members, event->conn);
    struct roda_workers workers = home->workers;
    uint64_t destination;
    uint32_t own = RODA_CONN_WORKER(event->conn);
    int quiet;

    home->steps_oldest = step->next;
    if (!step->next)
        home->steps_newest = NULL;
    quiet = result < 0 || home_quiet(x, home);
    if (member)
        apply(x, home, event, member);
    destination = destination_room(home->room, home->members.n);
    if (quiet) {
        workers = event->kind == RODA_QUIT ? workers_only(own) : (struct roda_workers){.bits = {0}};
        destination |= DESTINATION_QUIET;
    }
    if (event->n_steps > 1)
        destination |= DESTINATION_TRACKED;
    if (member)
        (void)roda_distribute(x, msg, &workers, destination);
    step_done(x, step);
}

void event_start(struct roda_ctx *x, struct person_event *event)
{
    event->left = event->n_steps;
    if (!event->left) {
        finish(x, event);
        return;
    }
    for (uint32_t i = 0; i < event->n_steps; i++) {
        event->steps[i].item = (struct roda_item){.run = step_arrived};
        roda_post(x, event->steps[i].room->home, &event->steps[i].item);
    }
}

/* ---- showing it, on each worker with members ------------------------------------------------- */

static roda_conn_id *seen_place(const struct sighting *sighting, roda_conn_id conn)
{
    uint64_t i = (conn * UINT64_C(0x9e3779b97f4a7c15)) >> 32;

    for (;; i++) {
        roda_conn_id *place = &sighting->conns[i & (sighting->capacity - 1)];
        if (!*place || *place == conn)
            return place;
    }
}

static int seen_grow(struct roda_ctx *x, struct sighting *sighting)
{
    struct sighting larger = {.capacity = sighting->capacity ? sighting->capacity * 2 : 64};

    larger.conns = roda_alloc(x, larger.capacity * sizeof(*larger.conns));
    if (!larger.conns)
        return -ENOMEM;
    for (uint32_t i = 0; i < sighting->capacity; i++)
        if (sighting->conns[i])
            *seen_place(&larger, sighting->conns[i]) = sighting->conns[i];
    roda_free(x, sighting->conns);
    sighting->conns = larger.conns;
    sighting->capacity = larger.capacity;
    return 0;
}

/* 1: it is the first time. Without memory to remember, twice is better than never. */
static int see(struct roda_ctx *x, struct sighting *sighting, roda_conn_id conn)
{
    roda_conn_id *place;

    if (!sighting || (sighting->n * 2 >= sighting->capacity && seen_grow(x, sighting)))
        return 1;
    place = seen_place(sighting, conn);
    if (*place)
        return 0;
    *place = conn;
    sighting->n++;
    return 1;
}

static struct sighting *sighting_of(struct roda_ctx *x, uint64_t event_id)
{
    struct sighting **link = sighting_place(x, event_id);

    if (!*link) {
        *link = roda_alloc(x, sizeof(**link));
        if (*link)
            (*link)->event_id = event_id;
    }
    return *link;
}

static void show(struct roda_ctx *x, struct local *local, struct roda_msg *msg,
                 uint64_t destination, roda_conn_id subject)
{
    int tracked = (destination & DESTINATION_TRACKED) != 0;
    struct sighting *sighting;

    if (!tracked && !subject) {
        roda_fanout(x, msg, local->conns, local->n);
        return;
    }
    sighting = tracked ? sighting_of(x, msg->token) : NULL;
    for (uint32_t i = 0; i < local->n; i++) {
        roda_conn_id conn = roda_conn_getid(local->conns[i]);
        if (conn != subject && (!tracked || see(x, sighting, conn)))
            roda_send(x, local->conns[i], msg);
    }
}

void event_distributed(struct roda_ctx *x, struct local *local, struct roda_msg *msg,
                       uint64_t destination)
{
    const struct person_event *event = NULL;

    if (RODA_CONN_WORKER(msg->token) == x->worker)
        event = ids_find(&state_of(x)->events, msg->token);
    if (!(destination & DESTINATION_QUIET))
        show(x, local, msg, destination, event ? event->conn : 0);
    if (event && event->kind == RODA_QUIT)
        local_left(x, local, event->conn);
}

void event_stop(struct roda_ctx *x)
{
    struct rooms_state *state = state_of(x);

    for (uint32_t i = 0; i < state->events.used; i++)
        if (state->events.slots[i].value)
            event_free(x, state->events.slots[i].value);
    ids_clear(x, &state->events);
    for (uint32_t i = 0; i < SIGHTING_CHAINS && state->sightings; i++)
        while (state->sightings[i])
            sighting_remove(x, &state->sightings[i]);
    roda_free(x, state->sightings);
    state->sightings = NULL;
}
