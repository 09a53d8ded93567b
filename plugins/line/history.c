#include "line.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/*
 * What was said before: /history, and what is shown to who joins. It may be longer than a send
 * queue, and comes from another worker or from files, so it is written into a place of the send
 * queue, a portion each time the one before has drained:
 *
 *        +--------------- drained ---------------+
 *        v                                       |
 *   more(): tell a portion of the page; if it is empty: ask() --> taken(): the next page
 *                                                         |
 *                                         too many ask: waiting, in turn
 *
 * Only what has drained to the place is told: of all that waits in one connection's queue, however
 * many places it has, one portion at most is history.
 *
 * A telling is about the numbers `from` .. `to`, and `to` is at most the last number that the
 * connection had been shown when it asked (`now`). All that is said later is queued behind the
 * place: so nothing is told twice, and nothing falls between what was and what is.
 *
 * MISSING. All numbers up to `told` have been dealt with: shown, or said to be missing, or never
 * used. A message's prev is the number that was shown before it, so told + 1 .. prev is missing,
 * and nothing else is. Behind the last message of the range one question more finds the next one
 * (BEHIND), for its prev. Why numbers are missing follows from the epochs on both sides of the gap:
 * if they differ, the broker ended without having written all; so where the gap comes first, one
 * question more finds the kept message before it (BEFORE).
 *
 * A telling belongs to whichever of its callbacks is still to come: place == NULL says that the
 * connection has gone, asking that an answer is due or that it stands in the queue of those who
 * wait. The log answers 64 questions of a worker at once, for all plugins; line asks half as many,
 * and whoever comes then waits in turn, so that a thousand clients that come back at once are all
 * shown what they missed.
 *
 * A connection has one /history at a time, since its input is held meanwhile, and at most
 * JOINS_MAX joins that are being shown what was said: those hold nothing, for who joins may talk.
 */

enum {
    PAGE_MESSAGES = 64,
    PORTION_BYTES = 2048,          /* of one reader's queue at once: half of the least send_queue */
    DATAGRAM_PORTION_BYTES = 8192, /* what exceeds udp_session_rate would be lost ... */
    DATAGRAM_PAUSE_MS = 200,       /* ... so it goes out more slowly than that */
    LINE_AROUND_BYTES = 120,       /* about: time, number, names */
    READS_MAX = 32,
    RETRY_MS = 20,
    JOINS_MAX = 8,
    HISTORY_COST = 4,
};

enum question { QUESTION_NONE, QUESTION_PAGE, QUESTION_BEFORE, QUESTION_BEHIND };

struct telling {
    struct roda_ctx *x;
    roda_conn_id conn;
    struct roda_place *place;
    struct telling *next; /* who waits behind this one */
    struct roda_timer *pause;
    int asking;
    enum question question; /* that was asked last */
    int at_join, datagram;
    uint32_t variant;
    uint32_t left, shown; /* messages */
    uint64_t from, to;    /* from 0: not known, the newest `left` ones are wanted */
    uint64_t now, told;
    uint64_t epoch; /* of the last kept message up to told; 0: there is none */
    int epoch_known;
    uint64_t room_epoch;
    struct {
        int known;
        uint64_t prev, epoch; /* prev UINT64_MAX: there is none */
    } behind;
    struct roda_msg *page[PAGE_MESSAGES]; /* references */
    uint32_t n_page, next_in_page;
    int more;             /* behind the page */
    struct roda_str room; /* its bytes follow the struct */
    char name[];
};

static struct line_state *state_of(const struct telling *t)
{
    return t->x->state;
}

/* ---- ending ----------------------------------------------------------------------------- */

static void drop_page(struct telling *t)
{
    while (t->next_in_page < t->n_page)
        roda_msg_unref(t->page[t->next_in_page++]);
    t->n_page = t->next_in_page = 0;
}

static void finish(struct telling *t)
{
    struct roda_conn *c = roda_conn_find(t->x, t->conn);

    if (t->place)
        roda_place_end(t->place);
    if (c && t->at_join)
        line_conn(t->x, c)->joins_shown--;
    else if (c)
        roda_conn_release(c);
    drop_page(t);
    roda_free(t->x, t);
}

/* ---- lines ------------------------------------------------------------------------------ */

/* "* history ROOM", the rest of the line left open. */
static struct show begin(const struct telling *t, const char *mark)
{
    struct show s = show_begin(roda_place_out(t->place));

    show_word(&s, mark);
    show_word(&s, " history ");
    show_name(&s, t->room);
    return s;
}

static struct show begin_range(const struct telling *t, uint64_t from, uint64_t to)
{
    struct show s = begin(t, "*");

    show_word(&s, " ");
    show_number(&s, from);
    if (to != from) {
        show_word(&s, "-");
        show_number(&s, to);
    }
    show_word(&s, ": ");
    return s;
}

/* Everything up to `upto` that was not told; epoch: of what comes behind it. */
static void show_missing(struct telling *t, uint64_t upto, uint64_t epoch)
{
    struct show s = begin_range(t, t->told + 1, upto);

    show_word(&s, t->epoch && t->epoch != epoch ? "lost when the broker ended, if anything was said"
                                                : "not kept");
    show_end(&s);
    t->told = upto;
}

static void show_header(const struct telling *t)
{
    struct show s = begin_range(t, t->from, t->to);

    show_word(&s, "what was said before you came");
    show_end(&s);
}

static void show_end_line(const struct telling *t, int cut)
{
    struct show s;

    if (!t->from) {
        s = begin(t, "*");
        show_word(&s, ": nothing is kept");
        show_end(&s);
        return;
    }
    s = begin_range(t, t->from, cut ? t->told : t->to);
    show_number(&s, t->shown);
    show_word(&s, t->shown == 1 ? " message" : " messages");
    if (cut) {
        show_word(&s, ", more: /history ");
        show_name(&s, t->room);
        show_word(&s, " since ");
        show_number(&s, t->told);
    }
    show_end(&s);
}

static void fail(struct telling *t, int error)
{
    struct show s = begin(t, "!");

    if (error == -ENOMEM)
        show_word(&s, ": the broker is out of memory");
    else if (error == -ECANCELED)
        show_word(&s, ": the broker stops");
    else
        show_word(&s, ": it cannot be read now");
    if (t->shown) {
        show_word(&s, "; it was shown up to ");
        show_number(&s, t->told);
    }
    show_end(&s);
    finish(t);
}

/* ---- telling ---------------------------------------------------------------------------- */

static size_t weight(const struct roda_msg *msg)
{
    return msg->text.len + LINE_AROUND_BYTES;
}

static void tell(struct telling *t, struct roda_msg *msg)
{
    if (!t->from) {
        t->from = msg->number;
        t->told = msg->number - 1;
        if (t->at_join)
            show_header(t);
    }
    if (msg->prev > t->told)
        show_missing(t, msg->prev, msg->epoch);
    if (msg->number > t->told) {
        show_past(msg, t->variant, roda_place_out(t->place));
        t->told = msg->number;
        t->shown++;
        t->left--;
    }
    t->epoch = msg->epoch;
    t->epoch_known = 1;
    roda_msg_unref(msg);
}

/* Of the range, what is missing behind the last message: up to here. */
static uint64_t missing_behind(const struct telling *t)
{
    if (t->to == t->now || t->behind.prev > t->to)
        return t->to;
    return t->behind.prev;
}

static enum question next_question(const struct telling *t)
{
    if (t->more && t->left)
        return QUESTION_PAGE;
    if (!t->from || t->told >= t->to || t->more || t->next_in_page < t->n_page)
        return QUESTION_NONE;
    if (t->to != t->now && !t->behind.known)
        return QUESTION_BEHIND;
    return missing_behind(t) > t->told && !t->epoch_known ? QUESTION_BEFORE : QUESTION_NONE;
}

static void end(struct telling *t)
{
    int cut = !t->left && (t->more || t->next_in_page < t->n_page);

    if (t->from && !cut && missing_behind(t) > t->told)
        show_missing(t, missing_behind(t),
                     t->to == t->now || t->behind.prev == UINT64_MAX ? t->room_epoch
                                                                     : t->behind.epoch);
    if (!t->at_join)
        show_end_line(t, cut);
    finish(t);
}

static void pause_is_over(struct roda_ctx *x, void *arg, int result)
{
    struct telling *t = arg;

    (void)x;
    (void)result;
    t->pause = NULL;
    roda_place_wake(t->place);
}

/* Something was written: goes on when it has drained. */
static void rest(struct telling *t)
{
    if (t->datagram)
        t->pause = roda_timer_start(t->x, DATAGRAM_PAUSE_MS, 0, pause_is_over, t);
    if (t->pause)
        roda_place_wait(t->place);
    else
        roda_place_wake(t->place);
}

/* ---- questions -------------------------------------------------------------------------- */

static void taken(void *arg, const struct roda_history_page *page, int result);

static int ask_now(struct telling *t)
{
    struct line_state *state = state_of(t);
    struct roda_history_query query = {.size = sizeof(query), .room = t->room, .max = 1};
    int r;

    switch (t->question) {
    case QUESTION_BEFORE:
        query.what = RODA_HISTORY_LATEST;
        query.to = t->told;
        break;
    case QUESTION_BEHIND:
        query.what = RODA_HISTORY_AFTER;
        query.from = t->to;
        break;
    default:
        query.what = t->from ? RODA_HISTORY_BETWEEN : RODA_HISTORY_LATEST;
        query.from = t->from ? t->told + 1 : 0;
        query.to = t->to;
        query.max = t->from ? t->left + 1 : t->left; /* one more tells whether there is more */
        break;
    }
    r = state->history->read(state->history_ctx, &query, taken, t);
    if (!r)
        state->reads++;
    return r;
}

static void retry(struct roda_ctx *x, void *arg, int result);

/* Those who wait, in turn. */
static void let_ask(struct roda_ctx *x)
{
    struct line_state *state = x->state;

    while (state->waiting && state->reads < READS_MAX) {
        struct telling *t = state->waiting;
        int r = t->place ? ask_now(t) : -ECANCELED;

        if (r == -EAGAIN && !state->reads && !state->retry)
            state->retry = roda_timer_start(x, RETRY_MS, 0, retry, NULL);
        if (r == -EAGAIN && (state->reads || state->retry))
            return; /* others' questions have taken all there are */
        state->waiting = t->next;
        if (!state->waiting)
            state->waiting_newest = NULL;
        if (!r)
            continue;
        t->asking = 0;
        if (t->place)
            fail(t, r);
        else
            finish(t);
    }
}

static void retry(struct roda_ctx *x, void *arg, int result)
{
    (void)arg;
    (void)result;
    ((struct line_state *)x->state)->retry = NULL;
    let_ask(x);
}

static void ask(struct telling *t, enum question question)
{
    struct line_state *state = state_of(t);

    t->question = question;
    t->asking = 1;
    t->next = NULL;
    roda_place_wait(t->place);
    if (state->waiting_newest)
        state->waiting_newest->next = t;
    else
        state->waiting = t;
    state->waiting_newest = t;
    let_ask(t->x);
}

static void take_page(struct telling *t, const struct roda_history_page *page)
{
    drop_page(t);
    t->more = page && page->n && page->more;
    t->room_epoch = page ? page->epoch : 0;
    for (size_t i = 0; page && i < page->n && i < PAGE_MESSAGES; i++)
        t->page[t->n_page++] = roda_msg_ref(page->messages[i]);
}

static void take_answer(struct telling *t, const struct roda_history_page *page)
{
    const struct roda_msg *msg = page && page->n ? page->messages[0] : NULL;

    switch (t->question) {
    case QUESTION_BEFORE:
        t->epoch = msg ? msg->epoch : 0;
        t->epoch_known = 1;
        return;
    case QUESTION_BEHIND:
        t->behind.known = 1;
        t->behind.prev = msg ? msg->prev : UINT64_MAX;
        t->behind.epoch = msg ? msg->epoch : 0;
        return;
    default:
        take_page(t, page);
        return;
    }
}

static void taken(void *arg, const struct roda_history_page *page, int result)
{
    struct telling *t = arg;
    struct roda_ctx *x = t->x;
    struct line_state *state = x->state;

    state->reads--;
    t->asking = 0;
    if (!t->place) {
        finish(t);
    } else if (result && result != -ENOENT) {
        fail(t, result);
    } else {
        take_answer(t, result ? NULL : page);
        roda_place_wake(t->place);
    }
    let_ask(x);
}

/* ---- the machine ------------------------------------------------------------------------ */

static void go_on(struct telling *t)
{
    size_t portion = t->datagram ? DATAGRAM_PORTION_BYTES : PORTION_BYTES, bytes = 0;
    enum question question = QUESTION_NONE;

    while (t->next_in_page < t->n_page && t->left) {
        struct roda_msg *msg = t->page[t->next_in_page];
        if (bytes && bytes + weight(msg) > portion)
            break;
        if (t->from && msg->prev > t->told && !t->epoch_known) {
            question = QUESTION_BEFORE;
            break;
        }
        bytes += weight(msg);
        t->next_in_page++;
        tell(t, msg);
    }
    if (question == QUESTION_NONE && t->next_in_page < t->n_page && t->left) {
        rest(t);
        return;
    }
    if (question == QUESTION_NONE)
        question = next_question(t);
    if (question == QUESTION_NONE)
        end(t);
    else if (bytes)
        rest(t);
    else
        ask(t, question);
}

static void more(struct roda_ctx *x, void *arg, int result)
{
    struct telling *t = arg;

    (void)x;
    if (!result) {
        go_on(t);
        return;
    }
    t->place = NULL;
    roda_timer_stop(t->pause);
    t->pause = NULL;
    if (!t->asking)
        finish(t);
}

/* ---- beginning -------------------------------------------------------------------------- */

static uint32_t kept(const struct line_state *state, struct roda_str room)
{
    return state->history ? state->history->kept(state->history_ctx, room) : 0;
}

/* What is wanted stands in `wanted`. 0: memory is out. */
static int start(struct roda_ctx *x, struct roda_conn *c, struct roda_str room,
                 struct telling wanted)
{
    struct telling *t = roda_alloc(x, sizeof(*t) + room.len);

    if (!t)
        return 0;
    *t = wanted;
    memcpy(t->name, room.ptr, room.len);
    t->room = (struct roda_str){t->name, room.len};
    t->x = x;
    t->conn = roda_conn_getid(c);
    t->variant = roda_conn_variant(c);
    t->datagram = (line_conn(x, c)->flags & LINE_DATAGRAM) != 0;
    t->more = 1; /* nothing was asked yet */
    t->epoch_known = !t->told;
    if (!roda_place_new(x, c, more, t, &t->place))
        return 1;
    roda_free(x, t);
    return 0;
}

void line_history(struct roda_ctx *x, struct roda_conn *c, const struct roda_room *room,
                  const struct line_command *command)
{
    struct telling wanted = {.now = room->number, .to = room->number, .left = LINE_HISTORY_MAX};

    if (!(kept(x->state, room->name) & RODA_HISTORY_KEPT)) {
        line_refuse(c, "history %.*s: not kept", (int)room->name.len, room->name.ptr);
        return;
    }
    if (command->range == LINE_RANGE_LAST)
        wanted.left = (uint32_t)command->to;
    else
        wanted.from = command->range == LINE_RANGE_SINCE ? command->from + 1 : command->from;
    if (command->range == LINE_RANGE_FROM_TO && command->to < wanted.to)
        wanted.to = command->to;
    if (wanted.from)
        wanted.told = wanted.from - 1;
    if (!wanted.now || wanted.from > wanted.now) {
        line_say(c, "history %.*s: nothing after %" PRIu64, (int)room->name.len, room->name.ptr,
                 wanted.now);
        return;
    }
    if (!start(x, c, room->name, wanted)) {
        line_refuse(c, "the broker is out of memory");
        return;
    }
    roda_conn_hold(c);
    roda_charge(x, c, HISTORY_COST);
}

void line_announce(struct roda_ctx *x, struct roda_conn *c, struct roda_str room)
{
    uint32_t bits = kept(x->state, room);

    if (bits & RODA_HISTORY_ANNOUNCED)
        line_say(c, "history %.*s: what is said here is logged%s%s", (int)room.len, room.ptr,
                 bits & RODA_HISTORY_ADDRESSES ? ", with your address" : "",
                 bits & RODA_HISTORY_PRIVATE ? "; so are private messages" : "");
}

void line_show_before_join(struct roda_ctx *x, struct roda_conn *c, struct roda_str room,
                           uint64_t number)
{
    const struct line_conf *conf = roda_conn_conf(x, c);
    struct line_conn *data = line_conn(x, c);
    struct telling wanted = {.now = number,
                             .to = number,
                             .left = (uint32_t)conf->replay_on_join,
                             .at_join = 1};

    if (data->flags & LINE_DATAGRAM || !conf->replay_on_join || !number ||
        !(kept(x->state, room) & RODA_HISTORY_KEPT))
        return;
    if (data->joins_shown < JOINS_MAX && start(x, c, room, wanted))
        data->joins_shown++;
    else
        line_refuse(c, "history %.*s: not shown now: /history %.*s %u", (int)room.len, room.ptr,
                    (int)room.len, room.ptr, (unsigned)conf->replay_on_join);
}

void line_history_stop(struct roda_ctx *x)
{
    struct line_state *state = x->state;

    roda_timer_stop(state->retry);
    state->retry = NULL;
    while (state->waiting) { /* their connections have gone */
        struct telling *t = state->waiting;
        state->waiting = t->next;
        finish(t);
    }
    state->waiting_newest = NULL;
}
