#include "log.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "partition.h"

/*
 * What is said in rooms, on disk.
 *
 *   publish filter -> commit.c -> partition.c -> segment files      one writer per partition
 *                         |-> text.c -> ROOM/YYYY-MM-DD.log          for people and grep
 *   history/1 -> service.c -> history.c -> read.c                   from memory, else the files
 *   start -> recovery.c; once a second -> partition.c; now and then -> retention.c
 *
 * A room's name says its partition, and the partition its worker, where the room's home is as
 * well: so everything about one room happens on one worker, without a lock. docs/log-format.md
 * describes the files; docs/architecture.md the promises about numbers.
 *
 * Start goes on after start() has returned: directories are made and partitions are recovered
 * through the ring like everything else; rooms and listeners come when that is done.
 */

#define TICK_MS         UINT64_C(1000)
#define RETENTION_TICKS 60u /* a minute */

#define OPTION(field) offsetof(struct log_conf, field)

static const struct roda_option options[] = {
    {.name = "directory",
     .type = RODA_T_PATH,
     .offset = OPTION(directory),
     .initial = "log",
     .flags = RODA_OPTION_RESTART,
     .help = "where the segment files are; made if it is missing, what is above it is not; "
             "relative: below core.state_dir"},
    {.name = "rooms",
     .type = RODA_T_LIST,
     .offset = OPTION(rooms),
     .initial = "*",
     .flags = RODA_OPTION_RESTART,
     .help = "which rooms are kept: names, * at an end, ! in front: not; the last match decides; "
             "with ! alone, as in !secret: all but these"},
    {.name = "sync",
     .type = RODA_T_CHOICE,
     .offset = OPTION(sync),
     .initial = "interval",
     .choices = "never|interval|always",
     .flags = RODA_OPTION_RESTART,
     .help = "always: nobody sees a message before it is on disk; interval: every sync_interval; "
             "never: when the system likes"},
    {.name = "sync_rooms",
     .type = RODA_T_LIST,
     .offset = OPTION(sync_rooms),
     .initial = "",
     .flags = RODA_OPTION_RESTART,
     .help = "rooms with a mode of their own, as in always: ops, audit*, never: chatter; a mode "
             "holds up to the next one, names without one are always; the last match decides"},
    {.name = "sync_interval",
     .type = RODA_T_MS,
     .offset = OPTION(sync_interval_ms),
     .initial = "1s",
     .min = 10,
     .max = 3600000,
     .flags = RODA_OPTION_RESTART,
     .help = "with sync = interval: how much may be lost when the power fails; of a broker that is "
             "killed about 10 ms, as with never"},
    {.name = "segment_bytes",
     .type = RODA_T_BYTES,
     .offset = OPTION(segment_bytes),
     .initial = "16M",
     .min = 1 << 20,
     .max = INT64_C(1) << 30,
     .flags = RODA_OPTION_RESTART,
     .help = "size of a segment file; each of the 16 partitions writes to one"},
    {.name = "segment_age",
     .type = RODA_T_MS,
     .offset = OPTION(segment_age_ms),
     .initial = "1d",
     .min = 0,
     .flags = RODA_OPTION_RESTART,
     .help = "a segment is closed after this time, so that keep can remove it; 0: only by size"},
    {.name = "keep",
     .type = RODA_T_MS,
     .offset = OPTION(keep_ms),
     .initial = "30d",
     .min = 0,
     .flags = RODA_OPTION_RESTART,
     .help = "whole segments older than this are removed, up to a minute later; 0: never"},
    {.name = "keep_bytes",
     .type = RODA_T_BYTES,
     .offset = OPTION(keep_bytes),
     .initial = "10G",
     .min = 0,
     .flags = RODA_OPTION_RESTART,
     .help = "above this the oldest segments are removed; the one that each partition writes to is "
             "not counted and stays; 0: no bound"},
    {.name = "announce",
     .type = RODA_T_BOOL,
     .offset = OPTION(announce),
     .initial = "yes",
     .flags = RODA_OPTION_RESTART,
     .help =
         "tells those who join a room that is kept that it is; also, that addresses and private "
         "messages are, if they are"},
    {.name = "private",
     .type = RODA_T_BOOL,
     .offset = OPTION(private_messages),
     .initial = "no",
     .flags = RODA_OPTION_RESTART,
     .help = "keeps private messages too"},
    {.name = "addresses",
     .type = RODA_T_BOOL,
     .offset = OPTION(addresses),
     .initial = "no",
     .flags = RODA_OPTION_RESTART,
     .help = "keeps the senders' addresses with their messages"},
    {.name = "text_directory",
     .type = RODA_T_PATH,
     .offset = OPTION(text_directory),
     .initial = "",
     .flags = RODA_OPTION_RESTART,
     .help = "if set, ROOM/YYYY-MM-DD.log below it gets one line per message; not in directory; "
             "empty: no text files"},
    {.name = "text_files",
     .type = RODA_T_INT,
     .offset = OPTION(text_files),
     .initial = "256",
     .min = 16,
     .max = 100000,
     .flags = RODA_OPTION_RESTART,
     .help = "text files that are open at once"},
    {.name = NULL},
};

static const struct roda_metric metrics[] = {
    [LOG_RECORDS] = {"log_records_total", RODA_COUNTER, "messages written to segments"},
    [LOG_BYTES] = {"log_bytes_total", RODA_COUNTER, "bytes of them"},
    [LOG_SYNCS] = {"log_syncs_total", RODA_COUNTER, "syncs of segment files"},
    [LOG_SYNCED_MESSAGES] = {"log_held_messages_total", RODA_COUNTER,
                             "messages that waited for the disk and were let go"},
    [LOG_REFUSED] = {"log_refused_total", RODA_COUNTER,
                     "messages refused because they could not be stored"},
    [LOG_UNLOGGED] = {"log_unlogged_total", RODA_COUNTER,
                      "messages shown without being stored, the disk having failed"},
    [LOG_DEFERRED] = {"log_waiting", RODA_GAUGE, "messages that wait for the disk"},
    [LOG_BROKEN] = {"log_partitions_broken", RODA_GAUGE, "partitions that cannot be written"},
    [LOG_SEGMENTS] = {"log_segments", RODA_GAUGE, "segment files"},
    [LOG_READS] = {"log_reads_total", RODA_COUNTER, "records read for history"},
    [LOG_READS_CACHED] = {"log_reads_cached_total", RODA_COUNTER, "of them, from memory"},
    [LOG_PAGES] = {"log_pages_total", RODA_COUNTER, "pages of history given"},
    [LOG_TEXT_LINES] = {"log_text_lines_total", RODA_COUNTER, "lines written to text files"},
    [LOG_TEXT_LOST] = {"log_text_lost_total", RODA_COUNTER,
                       "lines that text files could not take at first"},
    {.name = NULL},
};

/* ---- filters ------------------------------------------------------------------------------- */

/* The home may be another worker, which does not know the connection. */
static roda_verdict submit(struct roda_ctx *x, struct roda_event *ev)
{
    const struct roda_msg *msg = ev->msg;
    struct roda_tag tags[LOG_TAGS_MAX];
    struct roda_msg *with_address;
    char peer[128];

    if (!ev->conn || !RODA_KIND_NUMBERED(msg->kind) || msg->n_tags >= LOG_TAGS_MAX)
        return RODA_PASS;
    if (msg->n_tags)
        memcpy(tags, msg->tags, msg->n_tags * sizeof(*tags));
    (void)roda_conn_peer_text(ev->conn, peer, sizeof(peer));
    tags[msg->n_tags] = (struct roda_tag){RODA_STR(".address"), {peer, strlen(peer)}};
    with_address = roda_msg_make(x,
                                 &(struct roda_msg_init){.size = sizeof(struct roda_msg_init),
                                                         .kind = msg->kind,
                                                         .flags = msg->flags,
                                                         .n_tags = msg->n_tags + 1,
                                                         .sender = msg->sender,
                                                         .after = msg->after,
                                                         .to = msg->to,
                                                         .subject = msg->subject,
                                                         .text = msg->text,
                                                         .tags = tags},
                                 NULL);
    return with_address ? roda_replace(ev, with_address) : RODA_PASS;
}

/* ---- the timer ------------------------------------------------------------------------------- */

static void on_tick(struct roda_ctx *x, void *arg, int result)
{
    struct log_state *state = log_state_of(x);
    int retention = !(++state->ticks % RETENTION_TICKS);

    (void)arg;
    for (uint32_t i = 0; i < RODA_PARTITIONS && result >= 0; i++) {
        if (!state->partitions[i])
            continue;
        partition_tick(state->partitions[i]);
        if (retention)
            retention_step(state->partitions[i]);
    }
    if (result >= 0)
        commit_advance(x);
}

/* ---- life ---------------------------------------------------------------------------------- */

static int check(const void *conf, struct roda_conf_errors *errors)
{
    int directories = log_directory_check(conf, errors), choice = log_choice_check(conf, errors);

    return directories ? directories : choice;
}

static int init(struct roda_ctx *x)
{
    x->shared = roda_alloc(x, sizeof(struct log_shared));
    return x->shared ? 0 : -ENOMEM;
}

static void fini(struct roda_ctx *x)
{
    struct log_shared *shared = x->shared;

    for (uint32_t i = 0; i < RODA_PARTITIONS; i++) {
        struct partition *p = shared->partitions[i];
        if (!p)
            continue;
        log_rooms_clear(x, &p->rooms);
        roda_free(x, p->segments);
        roda_free(x, p);
    }
    roda_free(x, shared);
}

static void stop(struct roda_ctx *x)
{
    struct log_state *state = log_state_of(x);

    roda_timer_stop(state->tick);
    state->tick = NULL;
    if (state->service)
        service_free(x);
    if (state->text)
        text_free(x);
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++)
        if (state->partitions[i])
            partition_close(state->partitions[i]);
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++)
        if (state->partitions[i])
            partition_cache_free(state->partitions[i]);
    commit_free(x);
    roda_free(x, state->scratch);
    state->scratch = NULL;
}

static void started(struct roda_ctx *x)
{
    struct log_state *state = log_state_of(x);

    state->tick = roda_timer_start(x, TICK_MS, TICK_MS, on_tick, NULL);
    if (!state->start_result && !state->tick)
        state->start_result = -ENOMEM;
    roda_started(x, state->start_result);
}

static void on_partition(struct partition *p, int result)
{
    struct log_state *state = log_state_of(p->x);

    if (result < 0 && !state->start_result) {
        state->start_result = result;
        roda_log(p->x, RODA_LOG_ERROR,
                 "partition %u of %s cannot be opened: %s; make room there, mend the disk, or let "
                 "the broker's user write there",
                 p->index, log_conf_of(p->x)->directory, strerror(-result));
    }
    if (!--state->opening)
        started(p->x);
}

static void open_partitions(struct roda_ctx *x)
{
    struct log_state *state = log_state_of(x);

    state->opening = 1; /* so that none that opens at once ends the start */
    for (uint32_t i = x->worker; i < RODA_PARTITIONS; i += x->n_workers) {
        int r;
        state->opening++;
        r = partition_open(state->partitions[i], 1, on_partition);
        if (r)
            on_partition(state->partitions[i], r);
    }
    if (!--state->opening)
        started(x);
}

static void on_directory(struct roda_ctx *x, void *arg, int result)
{
    (void)arg;
    if (result == -ECANCELED)
        return;
    if (result < 0) {
        log_directory_failed(x, LOG_DIRECTORY, result);
        roda_started(x, result);
        return;
    }
    open_partitions(x);
}

static int start(struct roda_ctx *x)
{
    struct log_state *state = log_state_of(x);
    struct log_shared *shared = x->shared;
    int r = commit_new(x);

    roda_filter_use(x, RODA_FILTER_SUBMIT, log_conf_of(x)->addresses);
    commit_watch(x);
    state->scratch = roda_alloc(x, LOG_RECORD_MAX);
    if (!state->scratch)
        r = -ENOMEM;
    for (uint32_t i = x->worker; !r && i < RODA_PARTITIONS; i += x->n_workers) {
        struct partition *p = roda_alloc(x, sizeof(*p));
        if (!p) {
            r = -ENOMEM;
            break;
        }
        p->x = x;
        p->index = i;
        state->partitions[i] = shared->partitions[i] = p;
    }
    if (!r)
        r = service_new(x);
    if (!r && *log_conf_of(x)->text_directory)
        r = text_new(x);
    if (!r)
        r = roda_directory_make(x, log_conf_of(x)->directory, on_directory, NULL);
    if (!r)
        return RODA_LATER;
    stop(x);
    return r;
}

static const struct roda_service_table services[] = {
    {RODA_HISTORY_ID, &log_history},
    {.id = NULL},
};

RODA_PLUGIN(.name = "log", .summary = "keeps what is said, on disk, and gives it back",
            .version = "0.1", .conf_size = sizeof(struct log_conf),
            .state_size = sizeof(struct log_state), .options = options, .metrics = metrics,
            .services = services, .check = check, .init = init, .start = start, .stop = stop,
            .fini = fini, .submit = submit, .admit = commit_admit, .publish = commit_publish,
            .reopen = text_reopen);
