#include "rooms.h"

#include <string.h>

/*
 * What arrives at a room's home: may it be? What may not is answered here and never enters the
 * lane; what may is published.
 *
 * The lane may hold events that are not carried out yet (a log writes them). What was decided here
 * is not decided again when it leaves, for a number that was taken cannot be refused; so this looks
 * ahead: who is about to leave is no member any more, and who is about to change his nick is aimed
 * at by the new one.
 */

static void refuse(struct roda_ctx *x, struct roda_event *ev, uint32_t code, const char *text)
{
    roda_count(x, ROOMS_REFUSED, 1);
    roda_refuse(x, ev, code, "%s", text);
}

static uint32_t decide_topic(const struct home *home, const struct home_member *actor,
                             const struct roda_msg *msg)
{
    struct roda_str had = home->topic ? home->topic->text : RODA_STR("");

    if (actor && home->modes & RODA_ROOM_TOPIC_LOCKED && actor->rank < RODA_RANK_OPERATOR)
        return RODA_E_RANK;
    if (had.len == msg->text.len && !memcmp(had.ptr, msg->text.ptr, had.len))
        return RODA_E_ALREADY;
    return 0;
}

static uint32_t decide_kick(struct roda_ctx *x, const struct home *home,
                            const struct home_member *actor, const struct roda_msg *msg,
                            const char **ret_text)
{
    const struct home_member *target = mode_target(x, home, msg->subject, TARGET_BEHIND_LANE);

    if (actor && actor->rank < RODA_RANK_OPERATOR)
        return RODA_E_RANK;
    if (!target) {
        *ret_text = "that person is not in the room";
        return RODA_E_TARGET;
    }
    if (actor && target->rank > actor->rank) {
        *ret_text = "that person ranks higher than you";
        return RODA_E_RANK;
    }
    return 0;
}

static uint32_t decide_invite(struct roda_ctx *x, const struct home *home,
                              const struct home_member *actor, const struct roda_msg *msg,
                              const char **ret_text)
{
    roda_conn_id conn = 0;
    struct roda_person *person;

    if (actor && home->modes & RODA_ROOM_INVITE_ONLY && actor->rank < RODA_RANK_OPERATOR)
        return RODA_E_RANK;
    person = directory_person(directory_of(x), msg->subject, &conn);
    roda_person_unref(person);
    if (!person)
        return RODA_E_NO_PERSON;
    if (members_find(&home->members, conn)) {
        *ret_text = "that person is in the room already";
        return RODA_E_ALREADY;
    }
    return 0;
}

static uint32_t decide(struct roda_ctx *x, struct home *home, const struct home_member *actor,
                       const struct roda_msg *msg, const char **ret_text)
{
    if (msg->from && (!actor || actor->leaving))
        return RODA_E_NOT_MEMBER;
    switch (msg->kind) {
    case RODA_TOPIC:
        return decide_topic(home, actor, msg);
    case RODA_KICK:
        return decide_kick(x, home, actor, msg, ret_text);
    case RODA_MODE:
        return mode_check(x, home, actor, msg, ret_text);
    case RODA_INVITE:
        return decide_invite(x, home, actor, msg, ret_text);
    case RODA_PART:
        return 0;
    default: /* TEXT, NOTICE, TYPING */
        if (actor && home->modes & RODA_ROOM_MODERATED && actor->rank < RODA_RANK_VOICE)
            return RODA_E_MODERATED;
        return 0;
    }
}

static uint32_t decide_join(struct roda_ctx *x, const struct home *home, const struct roda_msg *msg,
                            const char **ret_text)
{
    uint64_t max = (uint64_t)conf_of(x)->max_members;
    struct roda_str key = home->key ? home->key->subject : RODA_STR("");

    if (members_find(&home->members, msg->from)) {
        *ret_text = "you are in that room already";
        return RODA_E_ALREADY;
    }
    if (mode_banned(home, msg->sender))
        return RODA_E_BANNED;
    if (home->modes & RODA_ROOM_INVITE_ONLY && !home_invitation(home, msg->from))
        return RODA_E_INVITE_ONLY;
    if (home->key && (key.len != msg->subject.len || memcmp(key.ptr, msg->subject.ptr, key.len)))
        return RODA_E_KEY;
    if (max && home->members.n >= max) {
        *ret_text = "the room is full";
        return RODA_E_FULL;
    }
    return 0;
}

static void arrive_join(struct roda_ctx *x, struct roda_event *ev, uint64_t room_id)
{
    struct room *room = directory_room_by_id(directory_of(x), room_id);
    struct home *home = home_find(x, room_id);
    const char *text = "";
    uint32_t code = 0;

    if (!room) { /* cannot be: the join keeps it */
        refuse(x, ev, RODA_E_NO_ROOM, text);
        return;
    }
    if (!home)
        code = home_new(x, room, &home);
    if (!code)
        code = decide_join(x, home, ev->msg, &text);
    if (code)
        refuse(x, ev, code, text);
    if (code || !home_publish(x, home, roda_msg_ref(ev->msg)))
        home_join_decided(x, home, room);
    room_unref(x, room);
}

static void publish_decided(struct roda_ctx *x, struct home *home, struct roda_msg *msg)
{
    const struct home_member *member = home_leaver(x, home, msg, TARGET_BEHIND_LANE);
    roda_conn_id conn = member ? member->conn : 0;
    struct home_member *still;

    if (!home_publish(x, home, roda_msg_ref(msg)))
        return;
    still = members_find(&home->members, conn); /* the lane holds it */
    if (still)
        still->leaving = 1;
}

void home_arrive(struct roda_ctx *x, struct roda_event *ev, uint64_t room_id)
{
    const struct home_member *actor;
    struct home *home;
    const char *text = "";
    uint32_t code;

    if (ev->msg->kind == RODA_JOIN) {
        arrive_join(x, ev, room_id);
        return;
    }
    home = home_find(x, room_id);
    if (!home) {
        refuse(x, ev, RODA_E_NO_ROOM, text);
        return;
    }
    actor = members_find(&home->members, ev->msg->from);
    code = decide(x, home, actor, ev->msg, &text);
    if (code)
        refuse(x, ev, code, text);
    else
        publish_decided(x, home, ev->msg);
}
