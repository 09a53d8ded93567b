#include "rooms.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/*
 * Who somebody is, from the moment a connection is ready to the moment all rooms know it is gone.
 *
 *   ready       a guest, if the protocol gave no name; enters the first room
 *   NICK, AWAY  input is held -> event to all rooms (event.c) -> the new person, the answer, input
 *   QUIT        taken out of this worker's arrays at once -> event to all rooms -> nick free
 *   closed      the same, if there was no QUIT
 *
 * closed() must not fail, but telling the rooms needs memory. When there is none, the person's
 * entry in the directory is marked as stranded and its rooms as haunted (local.c), and they are
 * told when something else happens on this worker.
 */

/* ---- guests ---------------------------------------------------------------------------------- */

static struct roda_str str(const char *text)
{
    return (struct roda_str){text, strlen(text)};
}

/* What others see of an address: the same for the same one, and no way back. IPv6 counts by /64,
 * as one customer has that many. */
static const char *shown_host(const struct roda_conn *c, char *buf, size_t size)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    const struct sockaddr *peer = roda_conn_peer(c);
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    uint8_t bytes[8];
    size_t len = 4;

    if (!peer || (peer->sa_family != AF_INET && peer->sa_family != AF_INET6))
        return "localhost"; /* a UNIX socket */
    if (peer->sa_family == AF_INET) {
        memcpy(&v4, peer, sizeof(v4));
        memcpy(bytes, &v4.sin_addr, 4);
    } else {
        memcpy(&v6, peer, sizeof(v6));
        if (IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr))
            return "localhost";
        if (!memcmp(&v6.sin6_addr, mapped, sizeof(mapped))) {
            memcpy(bytes, &v6.sin6_addr.s6_addr[12], 4);
        } else {
            memcpy(bytes, &v6.sin6_addr, 8);
            len = 8;
        }
    }
    if (len == 4 && bytes[0] == 127)
        return "localhost";
    (void)snprintf(buf, size, "%08" PRIx32 ".ip",
                   (uint32_t)roda_hash((struct roda_str){(const char *)bytes, len}));
    return buf;
}

static struct roda_person *make(struct roda_ctx *x, const struct roda_conn *c, struct roda_str nick)
{
    char host[32];
    struct roda_str fields[RODA_PERSON_FIELDS];

    for (size_t i = 0; i < RODA_PERSON_FIELDS; i++)
        fields[i] = RODA_STR("");
    fields[RODA_PERSON_NICK] = nick;
    fields[RODA_PERSON_HOST] = str(shown_host(c, host, sizeof(host)));
    fields[RODA_PERSON_DOOR] = roda_conn_protocol(c);
    return roda_person_make(x, 0, fields);
}

/* -EEXIST: taken. */
static int become(struct roda_ctx *x, struct roda_conn *c, struct roda_str nick)
{
    struct roda_person *person = make(x, c, nick);
    int r;

    if (!person)
        return -ENOMEM;
    r = directory_claim(x, directory_of(x), person, roda_conn_getid(c));
    if (r) {
        roda_person_unref(person);
        return r;
    }
    roda_conn_set_person(c, person);
    return 0;
}

/* Four digits, more of them when those are hard to find free. */
static int become_guest(struct roda_ctx *x, struct roda_conn *c)
{
    static const uint32_t from[] = {1000, 10000, 100000};
    int r = -EEXIST;

    for (int attempt = 0; attempt < 48 && r == -EEXIST; attempt++) {
        uint32_t first = from[attempt / 16], drawn;
        char nick[32];
        roda_random(x, &drawn, sizeof(drawn));
        (void)snprintf(nick, sizeof(nick), "guest%" PRIu32, first + drawn % (first * 9));
        r = become(x, c, str(nick));
    }
    return r;
}

static void enter_first_room(struct roda_ctx *x, struct roda_conn *c)
{
    const struct rooms_conf *conf = roda_conn_conf(x, c);
    struct roda_msg_init init = {.size = sizeof(init),
                                 .kind = RODA_JOIN,
                                 .flags = RODA_MSG_FORCED,
                                 .from = roda_conn_getid(c),
                                 .sender = roda_conn_person(c),
                                 .to = str(conf->first_room)};
    struct roda_msg *msg;

    if (!init.to.len)
        return;
    msg = roda_msg_make(x, &init, NULL);
    if (msg)
        roda_submit(x, c, msg);
    else
        roda_conn_close(c, "out of memory");
}

void people_ready(struct roda_ctx *x, struct roda_conn *c)
{
    int r = 0;

    people_retry(x);
    if (!conn_of(x, c))
        return;
    if (!roda_conn_person(c))
        r = become_guest(x, c);
    if (r)
        roda_conn_close(c, r == -EEXIST ? "no name is free" : "out of memory");
    else
        enter_first_room(x, c);
}

/* ---- changes --------------------------------------------------------------------------------- */

static struct roda_person *changed(struct roda_ctx *x, const struct roda_person *person,
                                   uint32_t field, struct roda_str value)
{
    struct roda_str fields[RODA_PERSON_FIELDS];

    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++)
        fields[i] = roda_person_get(person, i);
    fields[field] = value;
    return roda_person_make(x, roda_person_id(person), fields);
}

static int same_nick(const struct roda_person *a, const struct roda_person *b)
{
    struct name x, y;

    return !name_fold(roda_person_get(a, RODA_PERSON_NICK), &x) &&
           !name_fold(roda_person_get(b, RODA_PERSON_NICK), &y) && x.len == y.len &&
           !memcmp(x.text, y.text, x.len);
}

static int answer(const struct ask *ask)
{
    roda_answer(ask->x, ask->c, RODA_OK, RODA_STR(""), ask->msg);
    return RODA_HANDLED;
}

/* To all rooms of this connection's. */
static struct person_event *event_for(struct roda_ctx *x, uint32_t kind, struct roda_conn *c,
                                      const struct roda_person *after, struct roda_str text)
{
    struct rooms_conn *data = conn_of(x, c);
    struct person_event *event =
        event_new(x, kind, roda_conn_getid(c), roda_conn_person(c), after, data->n);

    for (uint16_t i = 0; event && i < data->n; i++) {
        if (event_add(x, event, rooms_of(data)[i].local->room, text)) {
            event_free(x, event);
            event = NULL;
        }
    }
    return event;
}

/* Takes after. The new nick, if it is one, has been claimed. */
static int change(const struct ask *ask, struct roda_person *after, int claimed)
{
    uint32_t kind = ask->msg->kind;
    struct roda_str text =
        kind == RODA_NICK ? roda_person_get(after, RODA_PERSON_NICK) : ask->msg->text;
    struct person_event *event = event_for(ask->x, kind, ask->c, after, text);

    if (!event && claimed)
        directory_release(directory_of(ask->x), after);
    roda_person_unref(after);
    if (!event)
        return ask_refuse(ask, RODA_E_MEMORY, "");
    event->asked = roda_msg_ref(ask->msg);
    event->c = ask->c;
    ask->data->event = event;
    roda_conn_hold(ask->c);
    event_start(ask->x, event);
    return RODA_HANDLED;
}

static int become_by_name(const struct ask *ask, struct roda_str nick)
{
    int r = become(ask->x, ask->c, nick);

    if (!r)
        return answer(ask);
    return r == -EEXIST ? ask_refuse(ask, RODA_E_TAKEN, "") : ask_refuse(ask, RODA_E_MEMORY, "");
}

int people_nick(const struct ask *ask)
{
    const struct roda_person *before = roda_conn_person(ask->c);
    struct roda_person *after;
    struct roda_str nick;
    struct name folded;
    int r = 0, renamed;

    if (!ask->settled)
        return ask_wait(ask);
    if (roda_text_check(ask->msg->text, RODA_TEXT_NICK) || name_fold(ask->msg->text, &folded))
        return ask_refuse(ask, RODA_E_NAME, "");
    nick = name_shown(ask->msg->text, &folded);
    if (!before)
        return become_by_name(ask, nick);
    after = changed(ask->x, before, RODA_PERSON_NICK, nick);
    if (!after)
        return ask_refuse(ask, RODA_E_MEMORY, "");
    nick = roda_person_get(before, RODA_PERSON_NICK);
    renamed = !same_nick(before, after);
    if (!renamed && nick.len == roda_person_get(after, RODA_PERSON_NICK).len &&
        !memcmp(nick.ptr, roda_person_get(after, RODA_PERSON_NICK).ptr, nick.len)) {
        roda_person_unref(after);
        return ask_refuse(ask, RODA_E_ALREADY, "that is your name already");
    }
    if (renamed)
        r = directory_claim(ask->x, directory_of(ask->x), after, roda_conn_getid(ask->c));
    if (r) {
        roda_person_unref(after);
        return ask_refuse(ask, r == -EEXIST ? RODA_E_TAKEN : RODA_E_MEMORY, "");
    }
    return change(ask, after, renamed);
}

int people_away(const struct ask *ask)
{
    const struct roda_person *before = roda_conn_person(ask->c);
    struct roda_person *after;
    struct roda_str had;

    if (!ask->settled)
        return ask_wait(ask);
    if (!before)
        return ask_refuse(ask, RODA_E_AUTH, "you have no name yet");
    had = roda_person_get(before, RODA_PERSON_AWAY);
    if (had.len == ask->msg->text.len && !memcmp(had.ptr, ask->msg->text.ptr, had.len))
        return ask_refuse(ask, RODA_E_ALREADY, had.len ? "" : "you are not away");
    after = changed(ask->x, before, RODA_PERSON_AWAY, ask->msg->text);
    if (!after)
        return ask_refuse(ask, RODA_E_MEMORY, "");
    return change(ask, after, 0);
}

static void event_done_for(struct roda_ctx *x, struct person_event *event)
{
    conn_of(x, event->c)->event = NULL;
    roda_conn_set_person(event->c, roda_person_ref(event->after));
    roda_conn_release(event->c);
    roda_answer(x, event->c, RODA_OK, RODA_STR(""), event->asked);
}

void people_event_done(struct roda_ctx *x, struct person_event *event)
{
    if (event->kind == RODA_QUIT) {
        directory_release(directory_of(x), event->before);
        return;
    }
    if (event->kind == RODA_NICK)
        roda_count(x, ROOMS_NICK_CHANGES, 1);
    if (!same_nick(event->before, event->after))
        directory_release(directory_of(x), event->before);
    else if (event->c)
        directory_update(directory_of(x), event->after);
    if (event->c)
        event_done_for(x, event);
}

/* ---- gone ------------------------------------------------------------------------------------ */

static struct roda_str cut(struct roda_str text, size_t max)
{
    if (text.len <= max)
        return text;
    while (max && ((unsigned char)text.ptr[max] & 0xc0) == 0x80)
        max--;
    text.len = max;
    return text;
}

static int add_rooms(struct roda_ctx *x, struct person_event *event, struct rooms_conn *data,
                     int haunted, struct roda_str reason)
{
    int r = 0;

    for (uint16_t i = 0; !r && data && i < data->n; i++)
        r = event_add(x, event, rooms_of(data)[i].local->room, reason);
    for (uint32_t index = 0; !r && haunted;) {
        struct local *local = local_haunted(x, &index);
        if (!local)
            break;
        r = event_add(x, event, local->room, reason);
    }
    return r;
}

/* data: the rooms that it is known to be in, NULL: none is known; haunted: it may be in others. */
static int leave(struct roda_ctx *x, roda_conn_id conn, const struct roda_person *person,
                 struct roda_str reason, struct rooms_conn *data, int haunted)
{
    uint32_t n = data ? data->n : 0;
    struct person_event *event;

    for (uint32_t index = 0; haunted && local_haunted(x, &index);)
        n++;
    if (!n) {
        directory_release(directory_of(x), person);
        return 0;
    }
    event = event_new(x, RODA_QUIT, conn, person, NULL, n);
    if (!event)
        return -ENOMEM;
    if (add_rooms(x, event, data, haunted, reason)) {
        event_free(x, event);
        return -ENOMEM;
    }
    event_start(x, event);
    return 0;
}

static void strand(struct roda_ctx *x, const struct roda_person *person)
{
    directory_strand(directory_of(x), person);
    state_of(x)->stranded++;
}

void people_retry(struct roda_ctx *x)
{
    struct rooms_state *state = state_of(x);

    while (state->stranded) {
        roda_conn_id conn;
        struct roda_person *person = directory_stranded(directory_of(x), x->worker, &conn);
        state->stranded--;
        if (person && leave(x, conn, person, RODA_STR(""), NULL, 1)) {
            strand(x, person);
            roda_person_unref(person);
            return;
        }
        roda_person_unref(person);
    }
}

/* Nobody finds this person any more, and all rooms are told. */
static void depart(struct roda_ctx *x, struct roda_conn *c, struct rooms_conn *data,
                   const struct roda_person *person, struct roda_str reason)
{
    const struct roda_person *own = roda_conn_person(c);

    data->left = 1;
    directory_reserve(directory_of(x), person);
    if (own && own != person) /* a NICK is under way */
        directory_reserve(directory_of(x), own);
    local_hide(x, data);
    if (leave(x, roda_conn_getid(c), person, cut(reason, TEXT_BYTES_MAX), data, data->joining)) {
        for (uint16_t i = 0; i < data->n; i++)
            rooms_of(data)[i].local->haunted = 1;
        strand(x, person);
    }
    local_forget(x, data);
}

int people_quit(const struct ask *ask)
{
    struct rooms_conn *data = ask->data;

    /* Kept at once: a protocol may close without waiting for the answer. */
    if (data->quit != ask->msg) {
        roda_msg_unref(data->quit);
        data->quit = roda_msg_ref(ask->msg);
    }
    if (!ask->settled)
        return ask_wait(ask);
    if (roda_conn_person(ask->c))
        depart(ask->x, ask->c, data, roda_conn_person(ask->c), ask->msg->text);
    return answer(ask);
}

void people_closed(struct roda_ctx *x, struct roda_conn *c, const char *reason, int shutdown)
{
    struct rooms_conn *data = conn_of(x, c);
    const struct roda_person *person = roda_conn_person(c);

    if (!data)
        return;
    if (data->event) { /* its rooms know, or will before they hear of this */
        data->event->c = NULL;
        person = data->event->after;
    }
    if (person && !shutdown && !data->left) {
        depart(x, c, data, person, data->quit ? data->quit->text : str(reason));
    } else {
        local_hide(x, data);
        local_forget(x, data);
    }
    roda_msg_unref(data->quit);
    people_retry(x);
}
