#ifndef RODA_ROOMS_H
#define RODA_ROOMS_H
/*
 * The service "rooms/1": what the owner of rooms and people tells other plugins. Joining,
 * leaving, talking and changing are messages (RODA_JOIN, RODA_TEXT ...) given to roda_submit();
 * this is for looking.
 *
 * Every call is made on the caller's worker, with the ctx that roda_service() returned. Where
 * another worker must be asked, the answer comes by callback, exactly once per call, never
 * inside the call; arg is the caller's and should hold what the caller needs to find its own
 * ctx and connection again (by id: it may have gone). A call that returns an error runs no
 * callback.
 */
#include <roda/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RODA_ROOMS_ID "rooms/1"

/* struct roda_member.rank */
enum {
    RODA_RANK_NONE = 0,
    RODA_RANK_VOICE = 1,
    RODA_RANK_OPERATOR = 2,
    RODA_RANK_OWNER = 3,
};

/* struct roda_room.modes */
enum {
    RODA_ROOM_MODERATED = 1, /* only voice and above may talk */
    RODA_ROOM_INVITE_ONLY = 2,
    RODA_ROOM_KEY = 4,          /* a key is set */
    RODA_ROOM_TOPIC_LOCKED = 8, /* only operators change the topic */
    RODA_ROOM_SECRET = 16,      /* not in lists */
};

struct roda_room { /* a snapshot; texts are valid until the callback or caller returns */
    uint64_t id;
    struct roda_str name;  /* as its first member wrote it, NFC, without '#' */
    struct roda_str topic; /* may be empty */
    uint64_t epoch;
    uint64_t number; /* the last one, as far as the asked worker knows */
    uint32_t members;
    uint32_t modes;
};

struct roda_member {
    const struct roda_person *person;
    uint32_t rank;
    roda_conn_id conn; /* 0: a member without a connection */
};

/* next: pass as `after` to get the rest; 0: this was the last piece. result: 0, or -ENOENT (no
 * such room), -ENOMEM, -ECANCELED (shutdown), and then n is 0. */
typedef void roda_members_fn(void *arg, const struct roda_member *members, size_t n, uint64_t next,
                             int result);
typedef void roda_room_list_fn(void *arg, const struct roda_room *rooms, size_t n, uint64_t next,
                               int result);

struct roda_rooms {
    uint32_t size;

    /* The rooms that this connection is in, in the order of joining. Returns how many there are
     * and fills at most max; the texts live until the caller's hook returns. */
    size_t (*joined)(struct roda_ctx *x, const struct roda_conn *c, struct roda_room *ret,
                     size_t max);
    /* One room that this connection is in. -ENOENT: it is not. */
    int (*find)(struct roda_ctx *x, const struct roda_conn *c, struct roda_str name,
                struct roda_room *ret);
    /* Who is in a room, in the order of joining, at most max (up to 256) per call. */
    int (*members)(struct roda_ctx *x, struct roda_str room, uint64_t after, uint32_t max,
                   roda_members_fn *fn, void *arg);
    /* All rooms that are not secret, at most max (up to 256) per call. */
    int (*list)(struct roda_ctx *x, uint64_t after, uint32_t max, roda_room_list_fn *fn, void *arg);
    /* Whoever has this nick: returns a reference, or NULL. *ret_conn may be NULL. */
    struct roda_person *(*person)(struct roda_ctx *x, struct roda_str nick, roda_conn_id *ret_conn);
};

#ifdef __cplusplus
}
#endif
#endif
