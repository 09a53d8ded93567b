#include "bus/bus.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "bus/current.h"

/*
 * Messages and people: counted, from the slabs of the worker that made them, given back by
 * whoever drops the last reference. A message may be changed while one worker holds the only
 * reference (numbering at the home); after that it is only read.
 */

#define MESSAGE_BYTES_MAX (64u << 10)

struct roda_person {
    _Atomic uint32_t references;
    uint16_t ends[RODA_PERSON_FIELDS];
    uint64_t id;
    char text[];
};

/* [any] thread: memory goes back to the slab it came from, in the batch of the worker that runs
 * here, if one does. */
static void give_back(void *ptr)
{
    struct bus *here = bus_current();

    slab_heap_put(here ? &here->heap : NULL, here ? &here->batch : NULL, ptr);
}

/* ---- people ----------------------------------------------------------------------------- */

struct roda_person *roda_person_make(struct roda_ctx *x, uint64_t id,
                                     const struct roda_str fields[RODA_PERSON_FIELDS])
{
    struct bus *bus = context_of(x)->bus;
    struct roda_person *person;
    size_t total = 0;

    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++) {
        uint32_t rule = i == RODA_PERSON_NICK ? RODA_TEXT_NICK : RODA_TEXT_LINE;
        if (fields[i].len > 512 ||
            ((fields[i].len || rule == RODA_TEXT_NICK) && text_check(fields[i], rule)))
            return NULL;
        total += fields[i].len;
    }
    person = slab_heap_get(&bus->heap, sizeof *person + total);
    if (!person)
        return NULL;
    __atomic_store_n((uint32_t *)&person->references, 1, __ATOMIC_RELAXED);
    person->id = id;
    while (!person->id)
        roda_random(x, &person->id, sizeof person->id);
    total = 0;
    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++) {
        if (fields[i].len)
            memcpy(person->text + total, fields[i].ptr, fields[i].len);
        total += fields[i].len;
        person->ends[i] = (uint16_t)total;
    }
    return person;
}

struct roda_person *roda_person_ref(const struct roda_person *person)
{
    struct roda_person *p = (struct roda_person *)(uintptr_t)person; /* only the count changes */

    __atomic_fetch_add((uint32_t *)&p->references, 1, __ATOMIC_RELAXED);
    return p;
}

void roda_person_unref(const struct roda_person *person)
{
    struct roda_person *p = (struct roda_person *)(uintptr_t)person;

    if (p && __atomic_fetch_sub((uint32_t *)&p->references, 1, __ATOMIC_ACQ_REL) == 1)
        give_back(p);
}

struct roda_str roda_person_get(const struct roda_person *person, uint32_t field)
{
    size_t start;

    if (field >= RODA_PERSON_FIELDS)
        return RODA_STR("");
    start = field ? person->ends[field - 1] : 0;
    return (struct roda_str){person->text + start, person->ends[field] - start};
}

uint64_t roda_person_id(const struct roda_person *person)
{
    return person->id;
}

/* ---- messages --------------------------------------------------------------------------- */

static int check(const struct roda_msg_init *init, size_t *ret_bytes)
{
    uint32_t rule = init->flags & RODA_MSG_MULTILINE ? RODA_TEXT_MULTILINE : RODA_TEXT_LINE;
    size_t bytes = init->to.len + init->subject.len + init->text.len;
    int r = 0;

    if (init->to.len)
        r = text_check(init->to, RODA_TEXT_LINE);
    if (!r && init->subject.len)
        r = text_check(init->subject, RODA_TEXT_LINE);
    if (!r && init->text.len)
        r = text_check(init->text, rule);
    for (uint32_t i = 0; !r && i < init->n_tags; i++) {
        const struct roda_tag *tag = &init->tags[i];
        bytes += sizeof *tag + tag->key.len + tag->value.len;
        r = text_check(tag->key, RODA_TEXT_LINE);
        if (!r && tag->value.len)
            r = text_check(tag->value, RODA_TEXT_LINE);
    }
    if (!r && bytes > MESSAGE_BYTES_MAX)
        r = -E2BIG;
    *ret_bytes = bytes;
    return r;
}

static struct roda_str copy(char **at, struct roda_str text)
{
    struct roda_str copied = {*at, text.len};

    if (text.len)
        memcpy(*at, text.ptr, text.len);
    *at += text.len;
    return copied;
}

static struct message *build(struct bus *bus, const struct roda_msg_init *init, size_t bytes)
{
    struct message *message = slab_heap_get(&bus->heap, sizeof *message + bytes);
    struct roda_tag *tags;
    char *at;

    if (!message)
        return NULL;
    memset(message, 0, sizeof *message);
    __atomic_store_n((uint32_t *)&message->references, 1, __ATOMIC_RELAXED);
    message->home = bus;
    message->bytes = (uint32_t)(sizeof *message + bytes);
    tags = (struct roda_tag *)(void *)(message + 1);
    at = (char *)(tags + init->n_tags);
    for (uint32_t i = 0; i < init->n_tags; i++) {
        tags[i].key = copy(&at, init->tags[i].key);
        tags[i].value = copy(&at, init->tags[i].value);
    }
    message->public = (struct roda_msg){
        .kind = init->kind,
        .flags = init->flags,
        .from = init->from,
        .token = init->token,
        .sender = init->sender ? roda_person_ref(init->sender) : NULL,
        .after = init->after ? roda_person_ref(init->after) : NULL,
        .to = copy(&at, init->to),
        .subject = copy(&at, init->subject),
        .text = copy(&at, init->text),
        .tags = tags,
        .n_tags = init->n_tags,
    };
    return message;
}

struct roda_msg *roda_msg_make(struct roda_ctx *x, const struct roda_msg_init *init, int *ret_error)
{
    struct message *message = NULL;
    size_t bytes;
    int r = init->kind > RODA_KIND_MAX ? -EINVAL : check(init, &bytes);

    if (!r) {
        message = build(context_of(x)->bus, init, bytes);
        if (!message)
            r = -ENOMEM;
    }
    if (r && ret_error)
        *ret_error = r;
    return message ? &message->public : NULL;
}

struct roda_msg *roda_msg_ref(struct roda_msg *msg)
{
    __atomic_fetch_add((uint32_t *)&message_of(msg)->references, 1, __ATOMIC_RELAXED);
    return msg;
}

void roda_msg_unref(struct roda_msg *msg)
{
    struct message *message;

    if (!msg)
        return;
    message = message_of(msg);
    if (__atomic_fetch_sub((uint32_t *)&message->references, 1, __ATOMIC_ACQ_REL) != 1)
        return;
    roda_person_unref(msg->sender);
    roda_person_unref(msg->after);
    give_back(message);
}
