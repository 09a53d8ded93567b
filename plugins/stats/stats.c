#include <roda/plugin.h>

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/*
 * The protocol "stats": what the metrics of the broker and its plugins stand at, for people with
 * nc and for tests. Meant for a UNIX listener; who may open the socket may read.
 *
 *   a line "" or "all"     every metric, then an empty line
 *   a line "help"          what each metric counts, then an empty line
 *   any other line         those whose name begins with it, then an empty line
 *
 * A metric is "NAME VALUE", the sum over the workers, followed by "NAME.WORKER VALUE" for each.
 *
 * All values are read in one call, so that they belong together, into a report that is copied to
 * the connection through a place of its send queue, piece by piece as the reader drains: with many
 * workers a report is larger than the queue. Input is held until the report is written, so that a
 * connection has one at most.
 *
 * Connections of this protocol take no part in the chat: they never become ready, and so no room
 * sees them.
 */

enum { PIECE_BYTES = 16384, WORKERS_MAX = 256 };

struct report {
    struct roda_ctx *x;
    roda_conn_id conn;
    struct roda_place *place;
    int with_help, failed;
    size_t len, capacity, written;
    char *text;
    char wanted[64]; /* the front of the names that are wanted, NUL-terminated */

    /* The metric being read; the calls for one metric come one after another. */
    const struct roda_metric *metric;
    const char *plugin;
    uint32_t n_workers;
    int64_t values[WORKERS_MAX];
};

static void add(struct report *report, const char *fmt, ...) RODA_PRINTF(2, 3);
static void add(struct report *report, const char *fmt, ...)
{
    char line[512];
    size_t len;
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    if (n < 0 || report->failed)
        return;
    len = (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1;
    if (report->len + len > report->capacity) {
        size_t capacity = report->capacity * 2 + PIECE_BYTES;
        char *text = roda_realloc(report->x, report->text, capacity);
        if (!text) {
            report->failed = 1;
            return;
        }
        report->text = text;
        report->capacity = capacity;
    }
    memcpy(report->text + report->len, line, len);
    report->len += len;
}

/* "messages_total" stands for itself; a plugin's metric that does not begin with the plugin's
 * name gets it in front. */
static void full_name(const struct report *report, char *buf, size_t size)
{
    const char *plugin = report->plugin ? report->plugin : "", *name = report->metric->name;
    size_t len = strlen(plugin);

    if (!len || !strcmp(plugin, "core") || (!strncmp(name, plugin, len) && name[len] == '_'))
        (void)snprintf(buf, size, "%s", name);
    else
        (void)snprintf(buf, size, "%s_%s", plugin, name);
}

static void add_metric(struct report *report)
{
    char name[160];
    int64_t total = 0;

    if (!report->metric)
        return;
    full_name(report, name, sizeof(name));
    if (strncmp(name, report->wanted, strlen(report->wanted)) != 0)
        return;
    if (report->with_help) {
        add(report, "%s %s\n", name, report->metric->help ? report->metric->help : "");
        return;
    }
    for (uint32_t i = 0; i < report->n_workers; i++)
        total = (int64_t)((uint64_t)total + (uint64_t)report->values[i]);
    add(report, "%s %" PRId64 "\n", name, total);
    for (uint32_t i = 0; i < report->n_workers; i++)
        add(report, "%s.%" PRIu32 " %" PRId64 "\n", name, i, report->values[i]);
}

static void take_value(void *arg, const struct roda_metric *metric, const char *plugin,
                       uint32_t worker, int64_t value)
{
    struct report *report = arg;

    if (metric != report->metric || plugin != report->plugin) {
        add_metric(report);
        report->metric = metric;
        report->plugin = plugin;
        report->n_workers = 0;
    }
    if (worker >= WORKERS_MAX)
        return;
    while (report->n_workers <= worker)
        report->values[report->n_workers++] = 0;
    report->values[worker] = value;
}

static void free_report(struct report *report)
{
    if (!report)
        return;
    roda_free(report->x, report->text);
    roda_free(report->x, report);
}

static struct report *new_report(struct roda_ctx *x, struct roda_conn *c, struct roda_str wanted)
{
    struct report *report = roda_alloc(x, sizeof(*report));

    if (!report)
        return NULL;
    report->x = x;
    report->conn = roda_conn_getid(c);
    if (wanted.len == 4 && !memcmp(wanted.ptr, "help", 4))
        report->with_help = 1;
    else if (wanted.len != 3 || memcmp(wanted.ptr, "all", 3) != 0)
        memcpy(report->wanted, wanted.ptr, wanted.len);
    roda_metrics_read(x, take_value, report);
    add_metric(report);
    if (!report->failed)
        return report;
    free_report(report);
    return NULL;
}

/* Whole lines, at least one, about PIECE_BYTES. */
static void write_piece(struct report *report)
{
    struct roda_out *out = roda_place_out(report->place);
    size_t end = report->written + PIECE_BYTES;

    while (report->written < report->len && report->written < end) {
        const char *line = report->text + report->written;
        size_t len =
            (size_t)((const char *)memchr(line, '\n', report->len - report->written) - line);
        roda_out_put(out, (struct roda_str){line, len});
        roda_out_unit(out);
        report->written += len + 1;
    }
    if (report->written == report->len)
        roda_out_unit(out);
}

static void more(struct roda_ctx *x, void *arg, int result)
{
    struct report *report = arg;
    struct roda_conn *c;

    if (!result) {
        write_piece(report);
        if (report->written < report->len)
            return;
        roda_place_end(report->place);
        c = roda_conn_find(x, report->conn);
        if (c)
            roda_conn_release(c);
    }
    free_report(report);
}

static void say(struct roda_conn *c, const char *line)
{
    struct roda_out *out = roda_conn_out(c);

    roda_out_put(out, (struct roda_str){line, strlen(line)});
    roda_out_unit(out);
}

static int is_name(struct roda_str unit)
{
    struct report *report;

    if (unit.len >= sizeof(report->wanted))
        return 0;
    for (size_t i = 0; i < unit.len; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-",
                    unit.ptr[i]) ||
            !unit.ptr[i])
            return 0;
    return 1;
}

static int decode(struct roda_ctx *x, struct roda_conn *c, struct roda_str unit)
{
    struct report *report;

    if (!is_name(unit)) {
        say(c, "! no metric has such a name: send an empty line for all of them");
        return RODA_TAKEN;
    }
    report = new_report(x, c, unit);
    if (!report || roda_place_new(x, c, more, report, &report->place)) {
        free_report(report);
        say(c, "! the broker is out of memory");
        return RODA_TAKEN;
    }
    roda_conn_hold(c);
    return RODA_TAKEN;
}

static void oversize(struct roda_ctx *x, struct roda_conn *c, size_t bytes)
{
    (void)x;
    (void)bytes;
    say(c, "! no metric has such a name: send an empty line for all of them");
}

static void closing(struct roda_ctx *x, struct roda_conn *c, const char *reason)
{
    struct roda_out *out = roda_conn_out(c);

    (void)x;
    roda_out_printf(out, "! closed: %s", reason);
    roda_out_unit(out);
}

/* Nothing is ever submitted or shown here. */
static void encode(struct roda_ctx *x, const struct roda_msg *msg, uint32_t variant,
                   struct roda_out *out)
{
    (void)x;
    (void)msg;
    (void)variant;
    (void)out;
}

/* Nothing is ever submitted here, but a filter may refuse a line. */
static void answer(struct roda_ctx *x, struct roda_conn *c, const struct roda_answer *what)
{
    struct roda_out *out;

    (void)x;
    if (what->code == RODA_OK || what->code == RODA_E_DROPPED)
        return;
    out = roda_conn_out(c);
    roda_out_put(out, RODA_STR("! "));
    roda_out_put(out, what->text);
    roda_out_unit(out);
}

static const struct roda_protocol protocols[] = {
    {.name = "stats",
     .framing = RODA_LINES,
     .unit_max_bytes = 256,
     .decode = decode,
     .oversize = oversize,
     .encode = encode,
     .answer = answer,
     .closing = closing},
    {.name = NULL},
};

RODA_PLUGIN(.name = "stats", .summary = "the broker's metrics, one per line, for nc and tests",
            .version = "0.1.0", .protocols = protocols);
