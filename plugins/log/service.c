#include "partition.h"

#include <errno.h>
#include <string.h>

/*
 * "history/1": questions come on any worker, records are on the worker of the room's partition.
 *
 *     read() --item--> at_home(): history_find() ... found() --item--> back(): messages, fn
 *     not kept ---------------------------------------item--------------^
 *
 * The callback stays where it was asked: in a slot of that worker's service, whose number travels.
 * So at the end of the broker each of those who wait is told -ECANCELED by its own worker, by
 * service_free() if not before, and it does not matter which worker is the last to see the item;
 * whoever sees it frees it. There are as many slots as questions that may be under way.
 *
 * What comes back is the bytes of records: they are counted in the window between the two workers,
 * and messages are made of them by the worker that shows them, from its own memory. Two people's
 * rooms ("@ana,bia") are for the log alone: nobody is given them.
 */

enum { SLOTS = 64, MAX_ASKED = 1000, PAGE_MESSAGES = 64 };

struct slot {
    roda_history_fn *fn; /* NULL: free */
    void *arg;
};

struct service {
    struct slot slots[SLOTS];
    uint32_t used;
};

struct query { /* belongs to whoever has the item, or to history.c while it looks */
    struct roda_item item;
    uint32_t worker, slot;
    uint32_t partition;
    int result;
    struct history_ask ask;
};

/* ---- names ------------------------------------------------------------------------------ */

/* 0, or -EINVAL: it is no name. */
static int fold(struct roda_str room, char to[LOG_NAME_MAX], struct roda_str *ret_folded)
{
    int len = room.len ? roda_text_fold(room, to, LOG_NAME_MAX) : 0;

    if (len <= 0)
        return -EINVAL;
    *ret_folded = (struct roda_str){to, (size_t)len};
    return 0;
}

static uint32_t choice(const struct roda_ctx *x, struct roda_str folded)
{
    return *folded.ptr == '@' ? 0 : log_choice(log_conf_of(x), folded);
}

static uint32_t kept(struct roda_ctx *x, struct roda_str room)
{
    char text[LOG_NAME_MAX];
    struct roda_str folded;

    return fold(room, text, &folded) ? 0 : choice(x, folded);
}

/* The room remembers what it is told here: where its numbers begin is asked once more if it was
 * left by all before anything was said. */
static int start(struct roda_ctx *x, struct roda_str name, struct roda_history_start *ret_start)
{
    char text[LOG_NAME_MAX];
    struct roda_str folded;
    struct partition *p;
    struct log_room *room;

    if (fold(name, text, &folded) || name.len > LOG_NAME_MAX)
        return -EINVAL;
    if (!(choice(x, folded) & RODA_HISTORY_KEPT))
        return -ENOENT;
    p = log_state_of(x)->partitions[roda_room_partition(folded)];
    if (!p)
        return -EINVAL; /* another worker's */
    if (p->state == PARTITION_CLOSED)
        return -ESHUTDOWN;
    *ret_start = (struct roda_history_start){.number = p->rooms.floor};
    room = partition_room(p, folded, name, 0);
    if (room) {
        *ret_start = (struct roda_history_start){room->epoch, room->number, room->time_ns};
        if (!room->kept && ret_start->number < p->rooms.floor)
            ret_start->number = p->rooms.floor;
        log_room_vacate(room);
    }
    /* A room gets its place here with its first message: who only opens rooms fills no memory. */
    while (!ret_start->epoch)
        roda_random(x, &ret_start->epoch, sizeof(ret_start->epoch));
    return 0;
}

/* ---- answers ---------------------------------------------------------------------------- */

static void query_free(struct roda_ctx *x, struct query *query)
{
    roda_free(x, query->ask.bytes);
    roda_free(x, query);
}

/* The slot is free when fn is called: it may ask again. */
static void answer(struct roda_ctx *x, uint32_t slot, const struct roda_history_page *page,
                   int result)
{
    struct service *service = log_state_of(x)->service;
    struct slot asked = service->slots[slot];

    service->slots[slot].fn = NULL;
    service->used--;
    asked.fn(asked.arg, page, result);
}

static int same_sender(const struct roda_person *person, const struct log_message *m)
{
    if (!person || roda_person_id(person) != m->person)
        return 0;
    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++) {
        struct roda_str field = roda_person_get(person, i);
        if (field.len != m->sender[i].len || memcmp(field.ptr, m->sender[i].ptr, field.len) != 0)
            return 0;
    }
    return 1;
}

static int is_person(const struct log_message *m)
{
    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++) {
        uint32_t rule = i == RODA_PERSON_NICK ? RODA_TEXT_NICK : RODA_TEXT_LINE;
        if ((m->sender[i].len || rule == RODA_TEXT_NICK) && roda_text_check(m->sender[i], rule))
            return 0;
    }
    return 1;
}

/* A reference to who sent it, as it was then; the senders of the page so far are looked at first,
 * newest first. 0; -ENOMEM; -EINVAL: it is not what a person may be. */
static int sender_of(struct roda_ctx *x, const struct log_message *m, struct roda_msg *const *page,
                     size_t n, struct roda_person **ret_sender)
{
    struct roda_person *sender = NULL;

    while (m->person && n-- && !sender)
        if (same_sender(page[n]->sender, m))
            sender = roda_person_ref(page[n]->sender);
    if (m->person && !sender) {
        sender = roda_person_make(x, m->person, m->sender);
        if (!sender)
            return is_person(m) ? -ENOMEM : -EINVAL;
    }
    *ret_sender = sender;
    return 0;
}

/* 0 and the message; -ENOMEM; else it breaks a rule that was not one when it was written. */
static int make(struct roda_ctx *x, const struct log_message *m, struct roda_person *sender,
                struct roda_msg **ret_msg)
{
    struct roda_msg_init init = {.size = sizeof(init),
                                 .kind = m->kind,
                                 .flags = m->flags,
                                 .n_tags = m->n_tags,
                                 .sender = sender,
                                 .to = m->to,
                                 .subject = m->subject,
                                 .text = m->text,
                                 .tags = m->tags};
    int error = 0;
    struct roda_msg *msg = roda_msg_make(x, &init, &error);

    if (!msg)
        return error ? error : -ENOMEM;
    msg->number = m->number;
    msg->prev = m->prev;
    msg->epoch = m->epoch;
    msg->time_ns = m->time_ns;
    *ret_msg = msg;
    return 0;
}

/* Whole records, one behind the other. */
static int make_messages(struct roda_ctx *x, const struct history_ask *ask,
                         struct roda_msg *messages[PAGE_MESSAGES], size_t *ret_n)
{
    struct log_record record;
    size_t at = 0;
    int r = 0;

    while (r != -ENOMEM && at < ask->n_bytes && *ret_n < PAGE_MESSAGES &&
           !log_record_decode(ask->bytes + at, ask->n_bytes - at, &record)) {
        struct roda_person *sender = NULL;
        at += record.length;
        r = sender_of(x, &record.message, messages, *ret_n, &sender);
        if (!r)
            r = make(x, &record.message, sender, &messages[*ret_n]);
        if (!r)
            ++*ret_n;
        roda_person_unref(sender);
    }
    return r == -ENOMEM ? -ENOMEM : 0;
}

static void answer_page(struct roda_ctx *x, const struct query *query)
{
    struct roda_msg *messages[PAGE_MESSAGES];
    struct roda_history_page page = {.messages = messages,
                                     .more = query->ask.more && query->ask.n < query->ask.query.max,
                                     .before = query->ask.before,
                                     .epoch = query->ask.epoch,
                                     .number = query->ask.number,
                                     .first = query->ask.first,
                                     .last = query->ask.last};
    int r = make_messages(x, &query->ask, messages, &page.n);

    answer(x, query->slot, r ? NULL : &page, r);
    for (size_t i = 0; i < page.n; i++)
        roda_msg_unref(messages[i]);
}

static void back(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct query *query = (struct query *)(void *)item;

    if (result < 0) { /* whoever sees it; its own worker answers, or has done so */
        query_free(x, query);
        return;
    }
    if (query->result)
        answer(x, query->slot, NULL, query->result);
    else
        answer_page(x, query);
    query_free(x, query);
}

/* ---- questions -------------------------------------------------------------------------- */

static void send_back(struct roda_ctx *x, struct query *query, int result)
{
    query->result = result;
    query->item = (struct roda_item){.run = back};
    query->item.bytes = (uint32_t)(sizeof(*query) + query->ask.n_bytes);
    roda_post(x, query->worker, &query->item);
}

static void found(struct history_ask *ask, int result)
{
    struct query *query = (struct query *)(void *)((char *)ask - offsetof(struct query, ask));

    send_back(ask->p->x, query, result);
}

static void at_home(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct query *query = (struct query *)(void *)item;

    if (result < 0) {
        query_free(x, query);
        return;
    }
    query->ask.p = log_state_of(x)->partitions[query->partition];
    query->ask.done = found;
    result = query->ask.p ? history_find(&query->ask) : -ECANCELED;
    if (result)
        send_back(x, query, result);
}

static int makes_sense(const struct roda_history_query *query)
{
    return query->size >= sizeof(*query) && query->what >= RODA_HISTORY_LATEST &&
           query->what <= RODA_HISTORY_AROUND && query->by_time <= 1 && query->max &&
           query->max <= MAX_ASKED &&
           (query->what != RODA_HISTORY_BETWEEN || query->from <= query->to);
}

static uint32_t take_slot(struct service *service, roda_history_fn *fn, void *arg)
{
    uint32_t i = 0;

    while (service->slots[i].fn)
        i++;
    service->slots[i] = (struct slot){fn, arg};
    service->used++;
    return i;
}

static int read(struct roda_ctx *x, const struct roda_history_query *asked, roda_history_fn *fn,
                void *arg)
{
    struct service *service = log_state_of(x)->service;
    struct roda_str folded;
    struct query *query;
    char text[LOG_NAME_MAX];

    if (!service)
        return -ESHUTDOWN;
    if (!makes_sense(asked) || fold(asked->room, text, &folded))
        return -EINVAL;
    if (service->used == SLOTS)
        return -EAGAIN;
    query = roda_alloc(x, sizeof(*query));
    if (!query)
        return -ENOMEM;
    query->worker = x->worker;
    query->slot = take_slot(service, fn, arg);
    query->partition = roda_room_partition(folded);
    memcpy(query->ask.folded, text, folded.len);
    query->ask.query = *asked;
    query->ask.query.room = (struct roda_str){query->ask.folded, folded.len};
    if (!(choice(x, folded) & RODA_HISTORY_KEPT)) {
        send_back(x, query, -ENOENT);
        return 0;
    }
    query->item = (struct roda_item){.run = at_home, .bytes = sizeof(*query)};
    roda_post(x, roda_partition_worker(query->partition, x->n_workers), &query->item);
    return 0;
}

const struct roda_history log_history = {.size = sizeof(log_history),
                                         .kept = kept,
                                         .start = start,
                                         .read = read};

/* ---- life ------------------------------------------------------------------------------- */

int service_new(struct roda_ctx *x)
{
    struct service *service = roda_alloc(x, sizeof(*service));

    if (!service)
        return -ENOMEM;
    log_state_of(x)->service = service;
    return 0;
}

void service_free(struct roda_ctx *x)
{
    struct service *service = log_state_of(x)->service;

    if (!service)
        return;
    log_state_of(x)->service = NULL; /* who is told must not ask again */
    for (uint32_t i = 0; i < SLOTS; i++)
        if (service->slots[i].fn)
            service->slots[i].fn(service->slots[i].arg, NULL, -ECANCELED);
    roda_free(x, service);
}
