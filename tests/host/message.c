#include "inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Messages and persons: counted, one block each, in a list of their host so that what leaked can
 * be told. A routed message owes its sender an answer (owed), one that was handled without a route
 * likewise (awaiting). If the last reference goes while it does, the rule "exactly one answer" was
 * broken: the host complains, and answers "dropped" so that the test can go on.
 */

static void take_text(struct roda_str from, struct roda_str *ret, char **at)
{
    ret->ptr = *at;
    ret->len = from.len;
    if (from.len)
        memcpy(*at, from.ptr, from.len);
    *at += from.len;
    *(*at)++ = '\0';
}

struct roda_person *roda_person_make(struct roda_ctx *x, uint64_t id,
                                     const struct roda_str fields[RODA_PERSON_FIELDS])
{
    struct testhost *h = host_of(x);
    size_t size = sizeof(struct roda_person);

    if (!fields[RODA_PERSON_NICK].len)
        return NULL;
    for (size_t i = 0; i < RODA_PERSON_FIELDS; i++) {
        uint32_t rule = i == RODA_PERSON_NICK ? RODA_TEXT_NICK : RODA_TEXT_LINE;
        if (fields[i].len > 512 || (fields[i].len && roda_text_check(fields[i], rule)))
            return NULL;
        size += fields[i].len + 1;
    }
    struct roda_person *person = may_get(h, size);
    if (!person)
        return NULL;
    person->host = h;
    person->refs = 1;
    person->id = id;
    if (!id)
        roda_random(x, &person->id, sizeof person->id);
    char *at = (char *)(person + 1);
    for (size_t i = 0; i < RODA_PERSON_FIELDS; i++)
        take_text(fields[i], &person->fields[i], &at);
    pthread_mutex_lock(&h->lock);
    list_append(&h->persons, &person->link);
    pthread_mutex_unlock(&h->lock);
    return person;
}

struct roda_person *roda_person_ref(const struct roda_person *person)
{
    struct roda_person *mine = (struct roda_person *)(uintptr_t)person;

    if (mine)
        __atomic_add_fetch(&mine->refs, 1, __ATOMIC_RELAXED);
    return mine;
}

void roda_person_unref(const struct roda_person *person)
{
    struct roda_person *mine = (struct roda_person *)(uintptr_t)person;

    if (!mine || __atomic_sub_fetch(&mine->refs, 1, __ATOMIC_ACQ_REL))
        return;
    struct testhost *h = mine->host;
    pthread_mutex_lock(&h->lock);
    list_remove(&mine->link);
    pthread_mutex_unlock(&h->lock);
    free(mine);
}

struct roda_str roda_person_get(const struct roda_person *person, uint32_t field)
{
    return field < RODA_PERSON_FIELDS ? person->fields[field] : RODA_STR("");
}

uint64_t roda_person_id(const struct roda_person *person)
{
    return person->id;
}

static int text_error(struct roda_str text, uint32_t rule, size_t *size)
{
    *size += text.len + 1;
    return text.len ? roda_text_check(text, rule) : 0;
}

static int init_error(const struct roda_msg_init *init, size_t *ret_size)
{
    uint32_t rule = init->flags & RODA_MSG_MULTILINE ? RODA_TEXT_MULTILINE : RODA_TEXT_LINE;
    size_t size = 0;
    int error;

    if (init->size < sizeof *init || !init->kind || init->kind > RODA_KIND_MAX)
        return -EINVAL;
    if ((error = text_error(init->text, rule, &size)) ||
        (error = text_error(init->to, RODA_TEXT_LINE, &size)) ||
        (error = text_error(init->subject, RODA_TEXT_LINE, &size)))
        return error;
    for (uint32_t i = 0; i < init->n_tags; i++)
        if ((error = text_error(init->tags[i].key, RODA_TEXT_LINE, &size)) ||
            (error = text_error(init->tags[i].value, RODA_TEXT_LINE, &size)))
            return error;
    if (size - 3 - 2 * init->n_tags > 65536)
        return -E2BIG;
    *ret_size = size;
    return 0;
}

struct roda_msg *roda_msg_make(struct roda_ctx *x, const struct roda_msg_init *init, int *ret_error)
{
    struct testhost *h = host_of(x);
    size_t size = 0;
    int error = init_error(init, &size);
    size_t tags_size = init->n_tags * sizeof(struct roda_tag);
    struct message *m = error ? NULL : may_get(h, sizeof *m + tags_size + size);

    if (!m) {
        if (ret_error)
            *ret_error = error ? error : -ENOMEM;
        return NULL;
    }
    struct roda_tag *tags = (struct roda_tag *)(void *)(m + 1);
    char *at = (char *)tags + tags_size;
    m->host = h;
    m->refs = 1;
    m->bytes = size;
    m->msg = (struct roda_msg){.kind = init->kind,
                               .flags = init->flags,
                               .from = init->from,
                               .token = init->token,
                               .sender = roda_person_ref(init->sender),
                               .after = roda_person_ref(init->after),
                               .tags = tags,
                               .n_tags = init->n_tags};
    take_text(init->to, &m->msg.to, &at);
    take_text(init->subject, &m->msg.subject, &at);
    take_text(init->text, &m->msg.text, &at);
    for (uint32_t i = 0; i < init->n_tags; i++) {
        take_text(init->tags[i].key, &tags[i].key, &at);
        take_text(init->tags[i].value, &tags[i].value, &at);
    }
    pthread_mutex_lock(&h->lock);
    list_append(&h->messages, &m->link);
    pthread_mutex_unlock(&h->lock);
    return &m->msg;
}

struct roda_msg *roda_msg_ref(struct roda_msg *msg)
{
    __atomic_add_fetch(&message_of(msg)->refs, 1, __ATOMIC_RELAXED);
    return msg;
}

/* Takes the last reference: the answer keeps the message for a moment more. */
static void answer_forgotten(struct message *m)
{
    struct testhost *h = m->host;
    struct worker *w = &h->workers[RODA_CONN_WORKER(m->msg.from) % h->n_workers];
    struct roda_conn *c = conn_find(w, m->msg.from);
    bool routed = m->owed;

    m->owed = m->awaiting = false;
    if (!h->cancelling)
        complain(h, "a message of kind %u is gone and was never answered", m->msg.kind);
    m->refs = 1;
    if (c) {
        c->source.under_way--;
        c->source.under_way_bytes -= m->bytes;
        c->source.routed -= routed;
        answer_later(c, RODA_E_DROPPED, "", m);
    }
    message_unref(m);
}

void message_unref(struct message *m)
{
    if (!m || __atomic_sub_fetch(&m->refs, 1, __ATOMIC_ACQ_REL))
        return;
    if (m->owed || m->awaiting) {
        answer_forgotten(m);
        return;
    }
    struct testhost *h = m->host;
    pthread_mutex_lock(&h->lock);
    list_remove(&m->link);
    pthread_mutex_unlock(&h->lock);
    roda_person_unref(m->msg.sender);
    roda_person_unref(m->msg.after);
    free(m);
}

void roda_msg_unref(struct roda_msg *msg)
{
    message_unref(message_of(msg));
}
