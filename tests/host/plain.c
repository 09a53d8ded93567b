#include "inside.h"

#include <stdlib.h>
#include <string.h>

/*
 * Two plugins of the host's own: the protocol "plain" (its grammar stands in testhost.h), and the
 * filter that asks the test.
 */

/* ---- the filter ------------------------------------------------------------------------- */

#define SCRIPT(name, stage)                                                                        \
    static roda_verdict script_##name(struct roda_ctx *x, struct roda_event *ev)                   \
    {                                                                                              \
        const struct script *script = x->shared;                                                   \
        return script->fn(script->arg, stage, x, ev);                                              \
    }
SCRIPT(accept, TESTHOST_ACCEPT)
SCRIPT(input, TESTHOST_INPUT)
SCRIPT(submit, TESTHOST_SUBMIT)
SCRIPT(admit, TESTHOST_ADMIT)
SCRIPT(publish, TESTHOST_PUBLISH)
SCRIPT(deliver, TESTHOST_DELIVER)

const struct roda_plugin testhost_script = {
    .abi = RODA_ABI,
    .size = sizeof(struct roda_plugin),
    .name = "script",
    .summary = "asks the test",
    .version = "1",
    .accept = script_accept,
    .input = script_input,
    .submit = script_submit,
    .admit = script_admit,
    .publish = script_publish,
    .deliver = script_deliver,
};

/* ---- the protocol ----------------------------------------------------------------------- */

static const char *const kind_names[RODA_KIND_MAX + 1] = {
    [RODA_TEXT] = "TEXT",     [RODA_NOTICE] = "NOTICE", [RODA_TOPIC] = "TOPIC",
    [RODA_KICK] = "KICK",     [RODA_MODE] = "MODE",     [RODA_RENAME] = "RENAME",
    [RODA_JOIN] = "JOIN",     [RODA_PART] = "PART",     [RODA_QUIT] = "QUIT",
    [RODA_NICK] = "NICK",     [RODA_AWAY] = "AWAY",     [RODA_TYPING] = "TYPING",
    [RODA_INVITE] = "INVITE",
};
static const struct {
    char letter;
    uint32_t flag;
} flag_letters[] = {{'a', RODA_MSG_ACTION},
                    {'d', RODA_MSG_DIRECT},
                    {'m', RODA_MSG_MULTILINE},
                    {'o', RODA_MSG_DROPPABLE},
                    {'f', RODA_MSG_FORCED}};

struct plain_conn {
    uint64_t lines;
};

static struct roda_str part(struct roda_str *rest)
{
    const char *bar = rest->len ? memchr(rest->ptr, '|', rest->len) : NULL;
    struct roda_str first = {rest->ptr, bar ? (size_t)(bar - rest->ptr) : rest->len};
    size_t skip = first.len + (bar ? 1 : 0);

    rest->ptr += skip;
    rest->len -= skip;
    return first;
}

static bool is(struct roda_str text, const char *word)
{
    return text.len == strlen(word) && !memcmp(text.ptr, word, text.len);
}

/* "TEXT+ad", or a number */
static uint32_t kind_of(struct roda_str word, uint32_t *ret_flags)
{
    size_t plus = 0;
    uint32_t number = 0;

    while (plus < word.len && word.ptr[plus] != '+')
        plus++;
    for (size_t i = plus; i < word.len; i++)
        for (size_t f = 0; f < sizeof flag_letters / sizeof *flag_letters; f++)
            if (word.ptr[i] == flag_letters[f].letter)
                *ret_flags |= flag_letters[f].flag;
    word.len = plus;
    for (uint32_t kind = 1; kind <= RODA_KIND_MAX; kind++)
        if (kind_names[kind] && is(word, kind_names[kind]))
            return kind;
    for (size_t i = 0; i < word.len && word.ptr[i] >= '0' && word.ptr[i] <= '9'; i++)
        number = number * 10 + (uint32_t)(word.ptr[i] - '0');
    return number;
}

static void plain_opened(struct roda_ctx *x, struct roda_conn *c)
{
    (void)x;
    roda_conn_ready(c);
}

static int plain_decode(struct roda_ctx *x, struct roda_conn *c, struct roda_str unit)
{
    struct plain_conn *data = roda_conn_data(x, c);
    struct roda_str rest = unit;
    int error = 0;

    if (is(unit, "PING")) {
        if (!roda_settled(c))
            return RODA_AGAIN;
        roda_out_put(roda_conn_out(c), RODA_STR("PONG"));
        roda_out_unit(roda_conn_out(c));
        return RODA_TAKEN;
    }
    struct roda_msg_init init = {.size = sizeof init,
                                 .from = roda_conn_getid(c),
                                 .sender = roda_conn_person(c),
                                 .token = ++data->lines};
    init.kind = kind_of(part(&rest), &init.flags);
    if (init.kind == RODA_QUIT) {
        init.text = rest;
    } else {
        init.to = part(&rest);
        init.subject = part(&rest);
        init.text = rest;
    }
    /* Lines of the text are parted by '\r' here, since a unit has no line end. */
    char *text = copy_text(init.text);
    for (size_t i = 0; init.flags & RODA_MSG_MULTILINE && i < init.text.len; i++)
        if (text[i] == '\r')
            text[i] = '\n';
    init.text.ptr = text;
    struct roda_msg *msg = roda_msg_make(x, &init, &error);
    free(text);
    if (!msg) {
        roda_out_printf(roda_conn_out(c), "bad|%d", error);
        roda_out_unit(roda_conn_out(c));
        return RODA_TAKEN;
    }
    roda_submit(x, c, msg);
    if (init.kind == RODA_QUIT)
        roda_conn_close(c, "quit");
    return RODA_TAKEN;
}

static void plain_oversize(struct roda_ctx *x, struct roda_conn *c, size_t bytes)
{
    (void)x;
    roda_out_printf(roda_conn_out(c), "oversize|%zu", bytes);
    roda_out_unit(roda_conn_out(c));
}

static void put_kind(struct roda_out *out, uint32_t kind)
{
    if (kind <= RODA_KIND_MAX && kind_names[kind])
        roda_out_printf(out, "%s", kind_names[kind]);
    else
        roda_out_printf(out, "%u", kind);
}

/* LF becomes '\r', as on the way in. */
static void put_text(struct roda_out *out, struct roda_str text)
{
    for (size_t i = 0; i < text.len; i++)
        roda_out_put(out,
                     text.ptr[i] == '\n' ? RODA_STR("\r") : (struct roda_str){text.ptr + i, 1});
}

static void put_nick(struct roda_out *out, const struct roda_person *person)
{
    roda_out_put(out, RODA_STR("|"));
    if (person)
        roda_out_put(out, roda_person_get(person, RODA_PERSON_NICK));
}

static void plain_encode(struct roda_ctx *x, const struct roda_msg *msg, uint32_t variant,
                         struct roda_out *out)
{
    (void)x;
    put_kind(out, msg->kind);
    if (variant)
        roda_out_printf(out, "(%u)", variant);
    roda_out_printf(out, "|%llu|%llu", (unsigned long long)msg->number,
                    (unsigned long long)msg->prev);
    put_nick(out, msg->sender);
    roda_out_put(out, RODA_STR("|"));
    roda_out_put(out, msg->to);
    roda_out_put(out, RODA_STR("|"));
    roda_out_put(out, msg->subject);
    roda_out_put(out, RODA_STR("|"));
    put_text(out, msg->text);
    if (msg->after)
        put_nick(out, msg->after);
    roda_out_unit(out);
}

static void plain_answer(struct roda_ctx *x, struct roda_conn *c, const struct roda_answer *answer)
{
    struct roda_out *out = roda_conn_out(c);

    (void)x;
    roda_out_printf(out, "answer|%u|", answer->code);
    put_kind(out, answer->kind);
    roda_out_printf(out, "|%llu|%llu|", (unsigned long long)answer->token,
                    (unsigned long long)(answer->msg ? answer->msg->number : 0));
    roda_out_put(out, answer->text);
    roda_out_unit(out);
}

static void plain_idle(struct roda_ctx *x, struct roda_conn *c)
{
    (void)x;
    roda_out_put(roda_conn_out(c), RODA_STR("idle"));
    roda_out_unit(roda_conn_out(c));
}

static void plain_closing(struct roda_ctx *x, struct roda_conn *c, const char *reason)
{
    (void)x;
    roda_out_printf(roda_conn_out(c), "closing|%s", reason);
    roda_out_unit(roda_conn_out(c));
}

static int plain_knock(struct roda_ctx *x, const struct roda_peer *peer, struct roda_str in,
                       struct roda_out *out, struct roda_str *ret_rest)
{
    uint64_t cookies[2];
    char text[2][12];

    roda_cookie(x, peer, cookies);
    for (size_t i = 0; i < 2; i++) {
        static const char digits[] = "0123456789abcdef";
        for (size_t d = 0; d < 8; d++)
            text[i][d] = digits[cookies[i] >> (d * 4) & 15];
        text[i][8] = '\0';
    }
    for (size_t i = 0; i < 2; i++)
        if (in.len >= 9 && !memcmp(in.ptr, text[i], 8) && in.ptr[8] == ' ') {
            *ret_rest = (struct roda_str){in.ptr + 9, in.len - 9};
            return 1;
        }
    roda_out_put(out, (struct roda_str){text[0], 8});
    return 0;
}

static const struct roda_protocol plain_protocols[] = {
    {
        .name = "plain",
        .framing = RODA_LINES,
        .opened = plain_opened,
        .decode = plain_decode,
        .oversize = plain_oversize,
        .encode = plain_encode,
        .answer = plain_answer,
        .idle = plain_idle,
        .closing = plain_closing,
        .knock = plain_knock,
    },
    {.name = NULL},
};

const struct roda_plugin testhost_plain = {
    .abi = RODA_ABI,
    .size = sizeof(struct roda_plugin),
    .name = "plain",
    .summary = "messages as they are, a line each",
    .version = "1",
    .conn_size = sizeof(struct plain_conn),
    .protocol_size = sizeof(struct roda_protocol),
    .protocols = plain_protocols,
};
