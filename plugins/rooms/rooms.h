#ifndef RODA_ROOMS_INSIDE_H
#define RODA_ROOMS_INSIDE_H
/* What the files of the plugin "rooms" share. The model stands in rooms.c. */
#include <roda/history.h>
#include <roda/plugin.h>
#include <roda/rooms.h>

#include "directory.h"
#include "ids.h"

struct rooms_conf {
    const char *first_room;
    int64_t create; /* 0: anyone, 1: nobody */
    int64_t max_rooms, max_members, rooms_per_connection, presence_up_to, max_pairs;
};

#define TEXT_BYTES_MAX  390u /* topics, reasons, keys of rooms, masks */
#define SIGHTING_CHAINS 256u

struct home;
struct home_member;
struct local;
struct pair;
struct person_event;
struct sighting;

struct rooms_state {       /* per worker */
    struct home **homes;   /* by index: rooms whose home is here */
    struct local **locals; /* by index: rooms with members here */
    uint32_t n_indexes;
    struct ids events;           /* person events of this worker's people */
    uint32_t stranded;           /* people who have gone; see people.c */
    struct sighting **sightings; /* SIGHTING_CHAINS of them; see event.c */
    struct pair **pairs;         /* see direct.c */
    struct pair *pairs_newest, *pairs_oldest;
    uint32_t n_pairs, pair_chains;
    const struct roda_history *history; /* NULL: nothing is kept */
    struct roda_ctx *history_ctx;
};

static inline const struct rooms_conf *conf_of(const struct roda_ctx *x)
{
    return x->conf;
}
static inline struct rooms_state *state_of(const struct roda_ctx *x)
{
    return x->state;
}
static inline struct directory *directory_of(const struct roda_ctx *x)
{
    return x->shared;
}

/* metrics */
enum {
    ROOMS_OPEN,
    ROOMS_MEMBERS,
    ROOMS_JOINS,
    ROOMS_PARTS,
    ROOMS_MESSAGES,
    ROOMS_DIRECT,
    ROOMS_REFUSED,
    ROOMS_NICK_CHANGES,
};

/*
 * A destination is what roda_route() and roda_distribute() carry.
 *
 *   to a home              the id of a room, or DIRECT and a hash of two people
 *   from a home            the id of a room, how many members it has after this, and how to show
 * it; or DIRECT and the connection, without its worker, which the receiver is
 */
#define DESTINATION_DIRECT      (UINT64_C(1) << 63) /* not a room */
#define DESTINATION_QUIET       (UINT64_C(1) << 62) /* carry it out, show nobody */
#define DESTINATION_TRACKED     (UINT64_C(1) << 61) /* other rooms show the same person event */
#define DESTINATION_CONN_MASK   ((UINT64_C(1) << 56) - 1)
#define DESTINATION_MEMBERS_MAX UINT64_C(0xfffff)

static inline uint64_t destination_conn(roda_conn_id conn)
{
    return DESTINATION_DIRECT | (conn & DESTINATION_CONN_MASK);
}
static inline uint64_t destination_room(const struct room *room, uint64_t members)
{
    return room->id | (members < DESTINATION_MEMBERS_MAX ? members : DESTINATION_MEMBERS_MAX)
                          << IDS_BITS;
}
static inline uint32_t destination_members(uint64_t destination)
{
    return (uint32_t)(destination >> IDS_BITS & DESTINATION_MEMBERS_MAX);
}

/* ---- a connection ---------------------------------------------------------------------------- */

struct membership {
    struct local *local;
    uint32_t index; /* in local->conns */
};
#define NOT_SHOWN UINT32_MAX /* index: memory was out; the connection is being closed */

/* Counts against the memory of an idle connection: at most 48 bytes, and for who is in one room
 * nothing else. */
struct rooms_conn {
    struct membership first;    /* while there is no block */
    struct membership *block;   /* of who was in two rooms once: all of them */
    struct roda_msg *quit;      /* a QUIT said so; a reference */
    struct person_event *event; /* NICK or AWAY under way */
    uint16_t n, capacity;       /* of the block */
    uint16_t last;              /* the room that was talked to last */
    uint8_t waited : 1;         /* the message at hand was held until nothing was under way */
    uint8_t joining : 1;        /* a JOIN was sent, and has not come back as this one's */
    uint8_t left : 1;           /* has said QUIT, and all rooms are told */
};

static inline struct membership *rooms_of(struct rooms_conn *data)
{
    return data->block ? data->block : &data->first;
}

static inline struct rooms_conn *conn_of(struct roda_ctx *x, const struct roda_conn *c)
{
    return roda_conn_data(x, c);
}

/* ---- what one message asks (rooms.c) --------------------------------------------------------- */

struct ask {
    struct roda_ctx *x;
    struct roda_event *ev;
    struct roda_msg *msg;
    struct roda_conn *c;     /* NULL: a plugin's own message */
    struct rooms_conn *data; /* NULL likewise */
    int settled;             /* nothing else of this connection is under way */
};

/* Refuses on the sender's worker, but not before what is under way: answers come in the order of
 * the messages. Both return what handle() returns. Empty text: the core's sentence for the code. */
int ask_refuse(const struct ask *ask, uint32_t code, const char *text);
int ask_wait(const struct ask *ask);
/* The name as its owner wrote it, in place of how the sender did. */
void ask_show_name(const struct ask *ask, struct roda_str name);

/* ---- local.c: a room on a worker that has members -------------------------------------------- */

struct local {
    struct roda_item item; /* carries it here, from the home that made it */
    struct room *room;     /* a reference */
    uint64_t epoch, number;
    struct roda_msg *topic; /* a reference; NULL: none */
    uint32_t modes;
    uint32_t members;  /* of all workers, as the room's order has it */
    uint32_t present;  /* of this worker, likewise */
    uint32_t attached; /* memberships that point here */
    int haunted;       /* some member may have gone without telling; for good */
    int linked;        /* in state->locals */
    struct roda_conn **conns;
    uint32_t n, capacity;
};

struct local *local_new(struct roda_ctx *x, struct room *room);
void local_post(struct roda_ctx *x, struct local *local, uint32_t worker); /* takes it */
struct local *local_find(struct roda_ctx *x, uint64_t room_id);
void local_distributed(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination);
void local_stop(struct roda_ctx *x);
/* Which room of this connection's has that name, NULL: none. */
struct local *local_of(struct rooms_conn *data, struct roda_str name);
int local_reserve(struct roda_ctx *x, struct rooms_conn *data); /* room for one more */
/* The connection is being freed: nothing is shown to it any more ... */
void local_hide(struct roda_ctx *x, struct rooms_conn *data);
/* ... and it is in no room, as far as this worker goes. */
void local_forget(struct roda_ctx *x, struct rooms_conn *data);
/* The next haunted room from *index on, which moves; NULL: no more. */
struct local *local_haunted(struct roda_ctx *x, uint32_t *index);
/* Somebody of this worker has left, by the order of the room. */
void local_left(struct roda_ctx *x, struct local *local, roda_conn_id id);

/* ---- members.c: who is in a room, at its home ------------------------------------------------ */

struct home_member {
    roda_conn_id conn;          /* 0: has left */
    struct roda_person *person; /* a reference */
    uint64_t serial : 55;       /* in the order of joining */
    uint64_t leaving : 1;       /* its PART or KICK is in the lane */
    uint64_t rank : 8;
};

struct members { /* zeroed: empty */
    struct home_member *list;
    uint32_t used, capacity; /* of list, those who left included */
    uint32_t n;
    uint32_t *chains; /* conn -> index in list + 1; 0: free; NULL while there are few */
    uint32_t n_chains;
    uint64_t serial; /* of the last one */
};

struct home_member *members_find(const struct members *members, roda_conn_id conn);
int members_add(struct roda_ctx *x, struct members *members, roda_conn_id conn,
                const struct roda_person *person, uint32_t rank);
void members_remove(struct members *members, struct home_member *member);
/* The first one who joined after that serial; NULL: none. */
struct home_member *members_after(const struct members *members, uint64_t serial);
void members_clear(struct roda_ctx *x, struct members *members);

/* ---- home.c: a room at its home -------------------------------------------------------------- */

struct home {
    struct room *room; /* a reference */
    struct roda_lane *lane;
    uint64_t left;    /* events that left the lane */
    uint64_t closing; /* so many have left when the newest +i or +k of the lane has */
    struct members members;
    struct roda_msg *topic, *key; /* references: the messages that set them; NULL: none */
    uint32_t modes;
    struct roda_msg **bans; /* references; the mask is the subject */
    uint32_t n_bans, bans_capacity;
    roda_conn_id *invited; /* a ring */
    uint32_t n_invited, next_invited;
    struct person_step *steps_oldest, *steps_newest; /* person events in the lane */
    struct roda_item sweep;
    int sweeping;
    struct roda_workers workers; /* that have members */
    uint32_t on_worker[];        /* how many */
};

struct home *home_find(const struct roda_ctx *x, uint64_t room_id); /* NULL: none here */
/* 0, or the code to refuse with. */
uint32_t home_new(struct roda_ctx *x, struct room *room, struct home **ret_home);
void home_stop(struct roda_ctx *x);
roda_conn_id *home_invitation(const struct home *home, roda_conn_id conn); /* NULL: none */
/* Who leaves by this PART or KICK; NULL: nobody, or it is another kind. */
struct home_member *home_leaver(struct roda_ctx *x, const struct home *home,
                                const struct roda_msg *msg, int when);
/* A JOIN was carried out or refused; home: NULL: there is none. */
void home_join_decided(struct roda_ctx *x, struct home *home, struct room *room);
/* 1: msg is in the lane, or has left it; 0: a filter or the lack of memory took it. */
int home_publish(struct roda_ctx *x, struct home *home, struct roda_msg *msg);
int home_quiet(const struct roda_ctx *x, const struct home *home);
void home_remove(struct roda_ctx *x, struct home *home, struct home_member *member);
void home_sweep(struct roda_ctx *x, struct home *home); /* gives it up soon, if it has no members */
struct roda_workers workers_only(uint32_t worker);
/* Why storage refused a message, in words. */
struct roda_str storage_reason(int result);

/* ---- arrive.c -------------------------------------------------------------------------------- */

void home_arrive(struct roda_ctx *x, struct roda_event *ev, uint64_t room_id);

/* ---- modes.c: what operators change ---------------------------------------------------------- */

/* 0, or the code to refuse with; *ret_text then says why. actor: NULL: the broker. */
uint32_t mode_check(struct roda_ctx *x, struct home *home, const struct home_member *actor,
                    const struct roda_msg *msg, const char **ret_text);
/* 0, or the code to refuse with. */
uint32_t mode_apply(struct roda_ctx *x, struct home *home, struct roda_msg *msg);
uint32_t mode_bits(uint32_t modes, const struct roda_msg *msg); /* the modes after that change */
int mode_banned(const struct home *home, const struct roda_person *person);
/* The member of that nick: now, or as it will be when what is in the lane has left it. */
enum { TARGET_NOW, TARGET_BEHIND_LANE };
struct home_member *mode_target(struct roda_ctx *x, const struct home *home, struct roda_str nick,
                                int when);

/* ---- event.c: what happens to a person in all its rooms -------------------------------------- */

struct person_step { /* in one room; goes to its home and comes back */
    struct roda_item item;
    struct person_event *event;
    struct person_step *next; /* in home->steps */
    struct room *room;        /* a reference */
    struct roda_msg *msg;     /* NULL: given to the lane */
};

struct event_forget {
    struct roda_item item;
    struct person_event *event;
    uint64_t id;
};

struct person_event {
    uint64_t id;
    uint32_t kind; /* RODA_NICK, RODA_AWAY, RODA_QUIT */
    uint32_t n_steps, left;
    roda_conn_id conn;
    struct roda_conn *c;                /* until closed(); NULL: QUIT */
    struct roda_person *before, *after; /* references; after: NULL for QUIT */
    struct roda_msg *asked;             /* a reference; NULL for QUIT */
    _Atomic uint32_t forgets;
    struct event_forget *forget; /* one per worker; NULL: there is one room at most */
    struct person_step steps[];
};

/* With room for n steps. */
struct person_event *event_new(struct roda_ctx *x, uint32_t kind, roda_conn_id conn,
                               const struct roda_person *before, const struct roda_person *after,
                               uint32_t n);
int event_add(struct roda_ctx *x, struct person_event *event, struct room *room,
              struct roda_str text);
void event_free(struct roda_ctx *x, struct person_event *event); /* not started */
/* The person as the room will know it when what is in the lane has left it. */
const struct roda_person *event_person(const struct home *home, const struct home_member *member);
void event_start(struct roda_ctx *x, struct person_event *event); /* takes it */
/* In a lane's function. */
void event_leave_lane(struct roda_ctx *x, struct home *home, struct roda_msg *msg, int result);
void event_distributed(struct roda_ctx *x, struct local *local, struct roda_msg *msg,
                       uint64_t destination);
void event_stop(struct roda_ctx *x);

/* ---- people.c -------------------------------------------------------------------------------- */

void people_ready(struct roda_ctx *x, struct roda_conn *c);
void people_closed(struct roda_ctx *x, struct roda_conn *c, const char *reason, int shutdown);
void people_retry(struct roda_ctx *x);
int people_nick(const struct ask *ask);
int people_away(const struct ask *ask);
int people_quit(const struct ask *ask);
void people_event_done(struct roda_ctx *x, struct person_event *event); /* all rooms know */

/* ---- direct.c: private messages -------------------------------------------------------------- */

int direct_handle(const struct ask *ask);
void direct_arrive(struct roda_ctx *x, struct roda_event *ev, uint64_t destination);
void direct_distributed(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination);
void direct_stop(struct roda_ctx *x);

/* ---- service.c ------------------------------------------------------------------------------- */

extern const struct roda_rooms rooms_service;

#endif
