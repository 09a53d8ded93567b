#include "bus/bus.h"

#include <string.h>

/*
 * Exactly one answer per submitted message. Published and refused at the home: it comes with the
 * item that stands at its place in the room's order. Refused or answered on the sender's worker:
 * it is queued and given at the end of the turn, since no report may run inside a call.
 */

struct answer {
    struct answer *next;
    roda_conn_id to;
    struct roda_msg *msg;
    uint32_t code;
    uint32_t text_len;
    char text[];
};

const char *answer_sentence(uint32_t code)
{
    static const char *const sentences[] = {
        [RODA_OK] = "",
        [RODA_E_DROPPED] = "not passed on",
        [RODA_E_UNKNOWN] = "nobody here can do that",
        [RODA_E_NO_ROOM] = "no such room",
        [RODA_E_NO_PERSON] = "nobody here has that name",
        [RODA_E_NOT_MEMBER] = "you are not in that room",
        [RODA_E_ALREADY] = "that is so already",
        [RODA_E_NAME] = "that name is not allowed",
        [RODA_E_TAKEN] = "that name is taken",
        [RODA_E_BANNED] = "you are banned there",
        [RODA_E_KEY] = "the room has a key, and this is not it",
        [RODA_E_INVITE_ONLY] = "the room is for invited people only",
        [RODA_E_MODERATED] = "the room is moderated: only those with a voice may talk",
        [RODA_E_RANK] = "only an operator of the room may do that",
        [RODA_E_FULL] = "full",
        [RODA_E_RATE] = "too fast; wait a little",
        [RODA_E_STORAGE] = "it cannot be stored now; try again later",
        [RODA_E_TIMEOUT] = "it was held back for too long and then refused",
        [RODA_E_MEMORY] = "the broker is out of memory; try again later",
        [RODA_E_SHUTDOWN] = "the broker stops",
        [RODA_E_TEXT] = "text that is not allowed",
        [RODA_E_ARGUMENT] = "an argument is missing or wrong",
        [RODA_E_TARGET] = "that person is not there",
        [RODA_E_AUTH] = "not allowed without logging in",
    };

    if (code >= sizeof sentences / sizeof *sentences || !sentences[code])
        return "refused";
    return sentences[code];
}

static void count(struct bus *bus, uint32_t code)
{
    BUS_COUNT(bus, answers);
    switch (code) {
    case RODA_OK:
        return;
    case RODA_E_DROPPED:
        BUS_COUNT(bus, messages_dropped);
        return;
    case RODA_E_RATE:
        BUS_COUNT(bus, refused_rate);
        break;
    case RODA_E_TIMEOUT:
        BUS_COUNT(bus, refused_timeout);
        break;
    case RODA_E_MEMORY:
        BUS_COUNT(bus, refused_memory);
        break;
    default:
        break;
    }
    BUS_COUNT(bus, messages_refused);
}

void answer_give(struct bus *bus, struct roda_conn *c, uint32_t code, struct roda_str text,
                 const struct roda_msg *msg)
{
    const struct roda_protocol *protocol = c->settings->protocol;
    struct context *context = bus->contexts[c->settings->protocol_instance];
    const char *sentence = answer_sentence(code);
    struct roda_answer answer = {
        .code = code,
        .kind = msg->kind,
        .token = msg->token,
        .text = text.len ? text : (struct roda_str){sentence, strlen(sentence)},
        .msg = msg,
    };

    count(bus, code);
    if (c->state == CONNECTION_GONE || !protocol->answer)
        return;
    bus_enter(bus, context->name, "answer");
    protocol->answer(&context->public, c, &answer);
    bus_leave(bus);
}

void answer_queue(struct bus *bus, roda_conn_id to, uint32_t code, struct roda_str text,
                  struct roda_msg *msg)
{
    struct answer *answer = slab_heap_get(&bus->heap, sizeof *answer + text.len);
    struct roda_conn *c;

    if (!answer) { /* without the reason, but in the same place */
        text.len = 0;
        answer = bus->answer_reserve;
        bus->answer_reserve = NULL;
    }
    if (!answer) {
        if ((c = net_find(bus->net, to)))
            connection_abort(c, "out of memory");
        return;
    }
    if ((c = net_find(bus->net, to)))
        c->answers++;
    *answer = (struct answer){.to = to,
                              .msg = roda_msg_ref(msg),
                              .code = code,
                              .text_len = (uint32_t)text.len};
    if (text.len)
        memcpy(answer->text, text.ptr, text.len);
    if (bus->answers_newest)
        bus->answers_newest->next = answer;
    else
        bus->answers_oldest = answer;
    bus->answers_newest = answer;
}

void answers_give(struct bus *bus)
{
    struct answer *answer;

    while ((answer = bus->answers_oldest)) {
        struct roda_conn *c = net_find(bus->net, answer->to);
        bus->answers_oldest = answer->next;
        if (!answer->next)
            bus->answers_newest = NULL;
        if (c) {
            c->answers--;
            answer_give(bus, c, answer->code, (struct roda_str){answer->text, answer->text_len},
                        answer->msg);
            input_settled(c);
        }
        roda_msg_unref(answer->msg);
        if (!bus->answer_reserve)
            bus->answer_reserve = answer;
        else
            slab_heap_put(&bus->heap, &bus->batch, answer);
    }
}

void answers_free(struct bus *bus)
{
    if (bus->answer_reserve)
        slab_heap_put(&bus->heap, &bus->batch, bus->answer_reserve);
    bus->answer_reserve = NULL;
}

void roda_answer(struct roda_ctx *x, struct roda_conn *c, uint32_t code, struct roda_str text,
                 struct roda_msg *msg)
{
    answer_queue(context_of(x)->bus, c->id, code, text, msg);
}
