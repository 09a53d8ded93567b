/*
 * example: refuses texts of more than `words` words.
 * (It is the start of a plugin of your own: roda-new-plugin copies it.)
 *
 * The model: a filter of what is submitted, without state: the same text has the same verdict on
 * every worker, so nothing is shared and nothing is locked. What this file does not say stands in
 * <roda/plugin.h>.
 */
#include <roda/plugin.h>

/* What stands in [plugin example]: the core fills it from the table, once per listener too. */
struct example_conf {
    int64_t words;
};

static const struct roda_option options[] = {
    {.name = "words",
     .type = RODA_T_INT,
     .offset = offsetof(struct example_conf, words),
     .initial = "100",
     .min = 1,
     .max = 10000,
     .flags = RODA_OPTION_LISTENER, /* example.words = 5 in a [listener ...] */
     .help = "texts of more words are refused"},
    {.name = NULL},
};

enum { EXAMPLE_REFUSED }; /* index into metrics, for roda_count() */
static const struct roda_metric metrics[] = {
    [EXAMPLE_REFUSED] = {"example_refused_total", RODA_COUNTER, "texts with too many words"},
    {.name = NULL},
};

/* Text is UTF-8 with a length; there is no NUL at its end. */
static int64_t count_words(struct roda_str text)
{
    int64_t words = 0;

    for (size_t i = 0; i < text.len; i++)
        words += text.ptr[i] != ' ' && (i == 0 || text.ptr[i - 1] == ' ');
    return words;
}

/* Runs on the sender's worker for every message, before its owner sees it. */
static roda_verdict example_submit(struct roda_ctx *x, struct roda_event *ev)
{
    /* Without a connection: a message that a plugin submits. */
    const struct example_conf *conf = ev->conn ? roda_conn_conf(x, ev->conn) : x->conf;

    /* A filter passes the kinds it does not know. */
    if (ev->msg->kind != RODA_TEXT || count_words(ev->msg->text) <= conf->words)
        return RODA_PASS;
    roda_count(x, EXAMPLE_REFUSED, 1);
    return roda_reject(ev, RODA_E_TEXT, "at most %lld words", (long long)conf->words);
}

/* The core looks at what is set: a hook that is not there costs nothing. */
RODA_PLUGIN(.name = "example", .summary = "refuse texts of many words", .version = "0.1",
            .conf_size = sizeof(struct example_conf), .options = options, .metrics = metrics,
            .submit = example_submit);
