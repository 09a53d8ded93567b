/* Text files on the fake core: text_*.c are the plugin's own, the segments are played by the test:
 * a list of records that history_find() answers from. Whatever happens to files and disk, in the
 * end a day's file holds the lines of its records, each once, in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testhost.h"

#include "text.h"

#define DIRECTORY "text"
#define DAY_NS    (INT64_C(86400) * 1000000000)
#define DAY       INT64_C(20454) /* 2026-01-01, where the clock starts */

/* ---- the log, as far as text files see it --------------------------------------------------- */

struct said {
    char folded[80];
    uint64_t number, prev, count;
    int64_t time_ns;
    uint32_t kind, flags;
    char *text;
    uint32_t gone; /* retention has been there */
};

static struct said *chain;
static size_t n_chain, chain_room;
static uint32_t page_max = 64;
static int history_error;
static struct testhost *host;
static uint64_t seed; /* of the storm under way */
static const char *const rooms[] = {"lobby", "ops", "con", "\xc3\xa9t\xc3\xa9", "@ana,bia"};
#define N_ROOMS (sizeof rooms / sizeof *rooms)

static struct roda_str str(const char *text)
{
    return (struct roda_str){text, strlen(text)};
}

static size_t encode(const struct said *s, char *to, size_t size)
{
    static struct log_record record;

    memset(&record, 0, sizeof record);
    record.type = LOG_MESSAGE;
    record.message.room = 1;
    record.message.kind = s->kind;
    record.message.flags = s->flags;
    record.message.epoch = 1;
    record.message.number = s->number;
    record.message.prev = s->prev;
    record.message.time_ns = s->time_ns;
    record.message.count = s->count;
    record.message.to = str(s->folded);
    record.message.subject = record.message.sender[0] = RODA_STR("");
    record.message.text = str(s->text);
    size_t len = log_record_encode(&record, to, size);
    assert_true(len > 0);
    return len;
}

static int passes(const struct history_ask *ask, const struct said *s)
{
    uint64_t at = ask->query.by_time ? (uint64_t)s->time_ns : s->number;

    if (s->gone || strlen(s->folded) != ask->query.room.len ||
        memcmp(s->folded, ask->query.room.ptr, ask->query.room.len) != 0)
        return 0;
    if (ask->query.what == RODA_HISTORY_LATEST)
        return !ask->query.to || at <= ask->query.to;
    assert_int_equal(ask->query.what, RODA_HISTORY_AFTER);
    return at > ask->query.from;
}

struct answer {
    struct roda_item item; /* first */
    struct history_ask *ask;
};

static void on_answer(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct history_ask *ask = ((struct answer *)(void *)item)->ask;
    size_t chosen[64], n = 0, have = 0;
    static char bytes[64 * 400000];
    uint32_t most = ask->query.max < page_max ? ask->query.max : page_max;

    roda_free(x, item);
    if (result >= 0)
        result = history_error;
    ask->first = 0;
    for (size_t i = 0; i < n_chain; i++) {
        const struct said *s = &chain[i];
        if (!s->gone && strlen(s->folded) == ask->query.room.len &&
            !memcmp(s->folded, ask->query.room.ptr, ask->query.room.len)) {
            have++;
            if (!ask->first)
                ask->first = s->number;
        }
        if (!passes(ask, s))
            continue;
        if (ask->query.what == RODA_HISTORY_LATEST && n == most) {
            memmove(chosen, chosen + 1, --n * sizeof *chosen);
        } else if (n == most) {
            ask->more = 1;
            break;
        }
        chosen[n++] = i;
    }
    if (!have && !result)
        result = -ENOENT;
    ask->bytes = NULL;
    ask->n_bytes = 0;
    for (size_t i = 0; i < n && !result; i++)
        ask->n_bytes +=
            encode(&chain[chosen[i]], bytes + ask->n_bytes, sizeof bytes - ask->n_bytes);
    if (!result) {
        ask->bytes = roda_alloc(x, ask->n_bytes + 1);
        if (ask->bytes)
            memcpy(ask->bytes, bytes, ask->n_bytes);
        else
            result = -ENOMEM;
        ask->n = (uint32_t)n;
    }
    ask->done(ask, result);
}

int history_find(struct history_ask *ask)
{
    struct answer *answer = roda_alloc(ask->p->x, sizeof *answer);

    if (!answer)
        return -ENOMEM;
    answer->item.run = on_answer;
    answer->ask = ask;
    roda_post(ask->p->x, ask->p->x->worker, &answer->item);
    return 0;
}

/* ---- the plugin ----------------------------------------------------------------------------- */

static const struct roda_option options[] = {
    {.name = "text_directory",
     .type = RODA_T_PATH,
     .offset = offsetof(struct log_conf, text_directory),
     .initial = DIRECTORY},
    {.name = "text_files",
     .type = RODA_T_INT,
     .offset = offsetof(struct log_conf, text_files),
     .initial = "64"},
    {.name = "rooms",
     .type = RODA_T_LIST,
     .offset = offsetof(struct log_conf, rooms),
     .initial = "*"},
    {.name = "private",
     .type = RODA_T_BOOL,
     .offset = offsetof(struct log_conf, private_messages),
     .initial = "yes"},
    {.name = NULL},
};

static const struct roda_metric metrics[] = {
    [LOG_TEXT_LINES] = {"lines", RODA_COUNTER, "lines"},
    [LOG_TEXT_LOST] = {"lost", RODA_COUNTER, "lost"},
    {.name = NULL},
};
static struct roda_metric all_metrics[LOG_TEXT_LOST + 2];

static int fake_start(struct roda_ctx *x)
{
    struct log_state *state = log_state_of(x);

    for (uint32_t i = x->worker; i < RODA_PARTITIONS; i += x->n_workers) {
        struct partition *p = calloc(1, sizeof *p);
        p->x = x;
        p->index = i;
        p->state = PARTITION_READY;
        state->partitions[i] = p;
    }
    return text_new(x);
}

static void fake_stop(struct roda_ctx *x)
{
    text_free(x);
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++)
        if (log_state_of(x)->partitions[i])
            log_state_of(x)->partitions[i]->state = PARTITION_CLOSED;
}

static struct partition *kept_partitions[RODA_PARTITIONS];

static const struct roda_plugin *fake_plugin(void)
{
    static struct roda_plugin plugin = {.abi = RODA_ABI,
                                        .size = sizeof plugin,
                                        .option_size = sizeof(struct roda_option),
                                        .metric_size = sizeof(struct roda_metric),
                                        .protocol_size = sizeof(struct roda_protocol),
                                        .service_size = sizeof(struct roda_service_table),
                                        .name = "log",
                                        .summary = "",
                                        .version = "0",
                                        .conf_size = sizeof(struct log_conf),
                                        .state_size = sizeof(struct log_state),
                                        .options = options,
                                        .metrics = all_metrics,
                                        .start = fake_start,
                                        .stop = fake_stop};

    for (size_t i = 0; i <= LOG_TEXT_LOST; i++)
        all_metrics[i] =
            metrics[i].name ? metrics[i] : (struct roda_metric){"x", RODA_COUNTER, "x"};
    return &plugin;
}

static struct roda_ctx *ctx(void)
{
    return testhost_ctx(host, "log", 0);
}

static struct text *text(void)
{
    return log_state_of(ctx())->text;
}

static struct partition *partition_of(const char *room)
{
    struct roda_str folded = str(room);

    return log_state_of(ctx())->partitions[roda_room_partition(folded)];
}

static void start(const char *conf)
{
    assert_int_equal(testhost_load(host, fake_plugin(), conf), 0);
    assert_int_equal(testhost_start(host), 0);
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++)
        kept_partitions[i] = log_state_of(ctx())->partitions[i];
    for (size_t i = 0; i < N_ROOMS; i++) {
        struct partition *p = partition_of(rooms[i]);
        struct log_room *room = log_rooms_add(ctx(), &p->rooms, 0, str(rooms[i]), str(rooms[i]));
        assert_non_null(room);
        for (size_t s = 0; s < n_chain; s++)
            if (!strcmp(chain[s].folded, rooms[i])) {
                room->kept = chain[s].number;
                room->time_ns = chain[s].time_ns;
            }
    }
    assert_true(testhost_run(host));
}

static void begin(const char *conf)
{
    n_chain = 0;
    page_max = 64;
    history_error = 0;
    host = testhost_new(1);
    start(conf);
}

static int end_host(void)
{
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++)
        log_rooms_clear(ctx(), &kept_partitions[i]->rooms);
    int found = testhost_stop(host);
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++)
        free(kept_partitions[i]);
    if (found)
        print_error("seed %llu\n", (unsigned long long)seed);
    return found;
}

static void end(void)
{
    assert_int_equal(end_host(), 0);
    testhost_free(host);
    host = NULL;
    for (size_t i = 0; i < n_chain; i++)
        free(chain[i].text);
    free(chain);
    chain = NULL;
    n_chain = chain_room = 0;
}

static const char *path_of(const char *room, int64_t day)
{
    static char path[600];
    char name[TEXT_NAME_SIZE], date[TEXT_DAY_SIZE];

    assert_true(text_name(str(room), name) > 0);
    text_day_name(day, date);
    (void)snprintf(path, sizeof path, DIRECTORY "/%s/%s.log", name, date);
    return path;
}

static const char *mark_path(size_t partition, int64_t day)
{
    static char path[64];
    char date[TEXT_DAY_SIZE];

    text_day_name(day, date);
    (void)snprintf(path, sizeof path, DIRECTORY "/.repair-%02zu-%s", partition, date);
    return path;
}

/* The broker ends, well or not, and begins again with the files that are there. */
static void again(const char *conf)
{
    struct testhost *fresh;
    struct {
        char path[600];
        char *bytes;
        size_t len;
    } saved[(N_ROOMS + RODA_PARTITIONS) * 5];
    size_t n = 0;

    assert_int_equal(end_host(), 0);
    for (size_t i = 0; i < (N_ROOMS + RODA_PARTITIONS) * 5; i++) {
        int64_t day = DAY - 1 + (int64_t)(i % 5);
        const char *path =
            i / 5 < N_ROOMS ? path_of(rooms[i / 5], day) : mark_path(i / 5 - N_ROOMS, day);
        const char *bytes = testhost_file_get(host, path, &saved[n].len);
        if (!bytes)
            continue;
        (void)snprintf(saved[n].path, sizeof saved[n].path, "%s", path);
        saved[n].bytes = malloc(saved[n].len + 1);
        memcpy(saved[n].bytes, bytes, saved[n].len);
        n++;
    }
    testhost_free(host);
    fresh = host = testhost_new(1);
    for (size_t i = 0; i < n; i++) {
        testhost_file_put(fresh, saved[i].path, saved[i].bytes, saved[i].len);
        free(saved[i].bytes);
    }
    if (n_chain)
        testhost_set_time_ns(host, chain[n_chain - 1].time_ns + 1000000000);
    start(conf);
}

/* ---- what is said --------------------------------------------------------------------------- */

static struct said *last_of(const char *room)
{
    for (size_t i = n_chain; i--;)
        if (!strcmp(chain[i].folded, room))
            return &chain[i];
    return NULL;
}

static struct said *keep(const char *room, uint64_t number, int64_t time_ns, const char *words)
{
    const struct said *before = last_of(room);
    uint64_t count = before ? before->count : 0, prev = before ? before->number : 0;

    if (n_chain == chain_room) {
        chain_room = chain_room ? 2 * chain_room : 64;
        chain = realloc(chain, chain_room * sizeof *chain);
    }
    struct said *s = &chain[n_chain++];
    *s = (struct said){.number = number ? number : prev + 1,
                       .prev = prev,
                       .count = count + 1,
                       .time_ns = time_ns,
                       .kind = RODA_TEXT,
                       .flags = *room == '@' ? RODA_MSG_DIRECT : 0,
                       .text = strdup(words)};
    (void)snprintf(s->folded, sizeof s->folded, "%s", room);
    if (host && kept_partitions[0]) {
        struct log_room *kept = log_rooms_find(&partition_of(room)->rooms, str(room));
        kept->kept = s->number;
        kept->time_ns = time_ns;
    }
    return s;
}

static void show(const struct said *s)
{
    struct roda_msg msg = {.kind = s->kind,
                           .flags = s->flags,
                           .number = s->number,
                           .prev = s->prev,
                           .epoch = 1,
                           .time_ns = s->time_ns,
                           .to = str(s->folded),
                           .subject = RODA_STR(""),
                           .text = str(s->text)};

    text_message(partition_of(s->folded), str(s->folded), &msg);
}

static void say(const char *room, const char *words)
{
    show(keep(room, 0, roda_time_ns(ctx()), words));
}

static void run(void)
{
    assert_true(testhost_run(host));
}

/* The lines of a room's day, as the records have them. */
static char *lines_of(const char *room, int64_t day, size_t *ret_len)
{
    char *all = NULL;
    size_t len = 0;
    static char line[400000];

    for (size_t i = 0; i < n_chain; i++) {
        const struct said *s = &chain[i];
        if (strcmp(s->folded, room) != 0 || text_day(s->time_ns) != day)
            continue;
        struct text_line made = {.number = s->number,
                                 .time_ns = s->time_ns,
                                 .kind = s->kind,
                                 .flags = s->flags,
                                 .room = str(s->folded),
                                 .nick = RODA_STR(""),
                                 .door = RODA_STR(""),
                                 .subject = RODA_STR(""),
                                 .text = str(s->text)};
        size_t n = text_line_write(&made, line, sizeof line);
        assert_in_range(n, 1, sizeof line);
        all = realloc(all, len + n + 1);
        memcpy(all + len, line, n);
        len += n;
    }
    if (all)
        all[len] = '\0';
    *ret_len = len;
    return all;
}

/* Whether every line of one is in the other, which is as long. */
static int same_lines(const char *a, const char *b, size_t len)
{
    size_t n = 0;

    for (const char *line = a; line < a + len; line += n) {
        const char *found = b;
        n = (size_t)((const char *)memchr(line, '\n', len - (size_t)(line - a)) - line) + 1;
        while ((found = memmem(found, len - (size_t)(found - b), line, n)) != NULL && found != b &&
               found[-1] != '\n')
            found++;
        if (!found)
            return 0;
    }
    return 1;
}

static int agrees(const char *room, int64_t day)
{
    size_t len, got_len = 0;
    char *expected = lines_of(room, day, &len);
    const char *got = testhost_file_get(host, path_of(room, day), &got_len);
    int same = expected ? got && got_len == len && !memcmp(got, expected, len) : !got || !got_len;

    /* Private conversations: what was missing stands at the end. */
    if (!same && *room == '@' && expected && got && got_len == len)
        same = same_lines(expected, got, len);

    if (!same)
        print_error("seed %llu, %s day %lld: %zu bytes, not %zu\n%.600s\n-- not\n%.600s\n",
                    (unsigned long long)seed, room, (long long)day, got_len, len,
                    got ? got : "(no file)", expected ? expected : "");
    free(expected);
    return same;
}

static void all_agree(void)
{
    for (size_t i = 0; i < N_ROOMS; i++)
        for (int64_t day = DAY - 1; day < DAY + 4; day++)
            assert_true(agrees(rooms[i], day));
}

static void nothing_is_left_to_do(void)
{
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++) {
        for (int64_t day = DAY - 1; day < DAY + 4; day++)
            assert_null(testhost_file_get(host, mark_path(i, day), NULL));
        assert_int_equal(text()->marks[i].behind, 0);
    }
    assert_int_equal(text()->repairs, 0);
    assert_int_equal(text()->queued_bytes, 0);
    assert_int_equal(text()->failed, 0);
    assert_ptr_equal(text()->behind.next, &text()->behind);
}

/* ---- lines ---------------------------------------------------------------------------------- */

static void a_line_per_message(void **state)
{
    (void)state;
    begin(NULL);
    say("lobby", "hello");
    say("lobby", "a\nb");
    say("ops", "one");
    say("con", "two");
    say("\xc3\xa9t\xc3\xa9", "trois");
    run();
    all_agree();
    assert_string_equal(testhost_file_get(host, DIRECTORY "/lobby/2026-01-01.log", NULL),
                        "1 2026-01-01T00:00:00.000Z lobby - - text - hello\n"
                        "2 2026-01-01T00:00:00.000Z lobby - - text - a\\nb\n");
    assert_non_null(testhost_file_get(host, DIRECTORY "/%63on/2026-01-01.log", NULL));
    assert_non_null(testhost_file_get(host, DIRECTORY "/%c3%a9t%c3%a9/2026-01-01.log", NULL));
    assert_int_equal(testhost_metric(host, "log", "lines"), 5);
    assert_int_equal(testhost_metric(host, "log", "lost"), 0);
    assert_int_equal(text()->n_files, 4);
    nothing_is_left_to_do();
    end();
}

static void a_file_per_day(void **state)
{
    (void)state;
    begin(NULL);
    for (int64_t day = DAY; day < DAY + 3; day++) {
        testhost_set_time_ns(host, text_day_start_ns(day + 1) - 1);
        say("lobby", "late");
        testhost_set_time_ns(host, text_day_start_ns(day + 1));
        say("lobby", "early");
        say("lobby", "and more");
    }
    run();
    all_agree();
    /* The day ends: a room that says nothing more has no file open. */
    say("ops", "last");
    testhost_set_time_ns(host, text_day_start_ns(DAY + 5));
    testhost_advance_ms(host, 1000);
    assert_int_equal(text()->n_files, 0);
    assert_int_equal(text()->n_rooms, 0);
    all_agree();
    end();
}

static void few_files_for_many_rooms(void **state)
{
    char words[32];

    (void)state;
    begin("text_files = 2\n");
    assert_int_equal(text()->max_files, 2);
    for (int i = 0; i < 300; i++) {
        (void)snprintf(words, sizeof words, "line %d", i);
        say(rooms[(i * 7 + i / 3) % (int)N_ROOMS], words);
        if (i % 5 == 0)
            (void)testhost_turn(host);
        assert_in_range(text()->n_files, 0, 2);
    }
    run();
    testhost_advance_ms(host, 2000);
    all_agree();
    assert_int_equal(testhost_metric(host, "log", "lost"), 0);
    nothing_is_left_to_do();
    end();
}

static void nothing(struct roda_ctx *x, void *arg, int result)
{
    (void)x;
    (void)arg;
    assert_int_equal(result, 0);
}

static void reopened(void **state)
{
    (void)state;
    begin(NULL);
    say("lobby", "one");
    run();
    assert_int_equal(roda_file_rename(ctx(), path_of("lobby", DAY), "old", nothing, NULL), 0);
    run();
    say("lobby", "two"); /* into the moved file: nobody has said a word yet */
    text_reopen(ctx());
    say("lobby", "three");
    run();
    assert_string_equal(testhost_file_get(host, "old", NULL),
                        "1 2026-01-01T00:00:00.000Z lobby - - text - one\n"
                        "2 2026-01-01T00:00:00.000Z lobby - - text - two\n");
    assert_string_equal(testhost_file_get(host, path_of("lobby", DAY), NULL),
                        "3 2026-01-01T00:00:00.000Z lobby - - text - three\n");
    /* While a file is being opened as well. */
    assert_int_equal(testhost_metric(host, "log", "lost"), 0);
    say("ops", "one");
    text_reopen(ctx());
    run();
    assert_true(agrees("ops", DAY));
    end();
}

/* ---- too slow, too full -----------------------------------------------------------------------
 *  */

static char *long_text(size_t len)
{
    char *words = malloc(len + 1);

    memset(words, 'x', len);
    words[len] = '\0';
    return words;
}

static void a_full_queue(void **state)
{
    char *words = long_text(9000);

    (void)state;
    for (uint32_t pages = 1; pages < 65; pages += 21) {
        begin(NULL);
        page_max = pages;
        testhost_hold_files(host, true);
        say("lobby", "first");
        for (int i = 0; i < 100; i++) {
            testhost_set_time_ns(host, roda_time_ns(ctx()) + 1);
            say(i % 3 ? "lobby" : "@ana,bia", words);
            assert_in_range(text()->queued_bytes, 0, TEXT_QUEUE_BYTES);
        }
        assert_true(testhost_metric(host, "log", "lost") > 0);
        testhost_hold_files(host, false);
        run();
        say("lobby", "in between");
        testhost_advance_ms(host, 5000);
        say("lobby", "last");
        testhost_advance_ms(host, 5000);
        all_agree();
        nothing_is_left_to_do();
        end();
    }
    free(words);
}

static void a_full_disk(void **state)
{
    (void)state;
    begin(NULL);
    say("lobby", "fits");
    run();
    testhost_fail_writes(host, -ENOSPC);
    for (int i = 0; i < 20; i++) {
        say("lobby", "lost");
        say("ops", "lost too");
        testhost_advance_ms(host, 500);
    }
    assert_true(testhost_logged(host, "No space left on device"));
    assert_true(testhost_metric(host, "log", "lost") >= 30);
    assert_non_null(testhost_file_get(host, mark_path(partition_of("lobby")->index, DAY), NULL));
    size_t told = testhost_log_lines(host);
    testhost_advance_ms(host, 40000);
    assert_int_equal(testhost_log_lines(host), told); /* once per minute */
    testhost_fail_writes(host, 0);
    for (int i = 0; i < 30; i++) {
        say("lobby", "again");
        testhost_advance_ms(host, 700);
    }
    assert_true(testhost_logged(host, "text files are whole again"));
    all_agree();
    nothing_is_left_to_do();
    end();
}

/* It ends while the disk is full; the next start makes it good. */
static void a_full_disk_at_the_end(void **state)
{
    (void)state;
    begin(NULL);
    say("lobby", "fits");
    say("@ana,bia", "fits");
    run();
    testhost_fail_writes(host, -ENOSPC);
    say("lobby", "lost");
    say("@ana,bia", "lost");
    testhost_advance_ms(host, 3000);
    size_t len;
    assert_non_null(testhost_file_get(host, path_of("lobby", DAY), &len));
    assert_int_equal(len, 49); /* one line */
    again(NULL);
    say("lobby", "again");
    testhost_advance_ms(host, 3000);
    all_agree();
    nothing_is_left_to_do();
    end();
}

static void nothing_is_read_after_a_good_end(void **state)
{
    (void)state;
    begin(NULL);
    say("lobby", "one");
    say("ops", "one");
    again(NULL);
    all_agree();
    history_error = -EIO; /* whoever asks is found out */
    say("lobby", "two");
    testhost_advance_ms(host, 3000);
    all_agree();
    assert_int_equal(testhost_log_lines(host), 0);
    nothing_is_left_to_do();
    end();
}

/* A durable room's message that waits for its sync is in the segments, and not to be shown. */
static void nothing_is_shown_early(void **state)
{
    (void)state;
    begin(NULL);
    say("lobby", "one");
    run();
    testhost_fail_writes(host, -ENOSPC);
    say("lobby", "two");
    testhost_advance_ms(host, 2000);
    struct said *s = keep("lobby", 0, roda_time_ns(ctx()), "three");
    testhost_fail_writes(host, 0);
    testhost_advance_ms(host, 20000);
    n_chain--;
    assert_true(agrees("lobby", DAY)); /* without "three" */
    n_chain++;
    show(s);
    run();
    assert_true(agrees("lobby", DAY));
    end();
}

/* ---- after a bad end --------------------------------------------------------------------------
 *  */

static void many(const char *room, int n, int64_t from_ns, int64_t step_ns)
{
    char words[64];

    for (int i = 0; i < n; i++) {
        (void)snprintf(words, sizeof words, "message %d of %s", i, room);
        (void)keep(room, 0, from_ns + i * step_ns, words);
    }
}

static void repair_all(void)
{
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++)
        text_repair(kept_partitions[i]);
}

static void put(const char *room, int64_t day, const char *bytes, size_t len)
{
    testhost_file_put(host, path_of(room, day), bytes, len);
}

/* What a file may be found like, and what becomes of it. */
static void damaged_files(void **state)
{
    (void)state;
    for (int what = 0; what < 12; what++) {
        begin(NULL);
        page_max = 3;
        many("lobby", 20, text_day_start_ns(DAY) + 1000, 1000000);
        many("lobby", 20, text_day_start_ns(DAY + 1), 60 * INT64_C(1000000000));
        testhost_set_time_ns(host, last_of("lobby")->time_ns + 1);
        size_t len, first_len;
        char *first = lines_of("lobby", DAY, &first_len);
        char *lines = lines_of("lobby", DAY + 1, &len);
        char *file = calloc(1, 2 * len + 1000);
        const char *kept = NULL;
        memcpy(file, lines, len);
        put("lobby", DAY, first, first_len);
        switch (what) {
        case 0: /* whole */
            break;
        case 1: /* no line at all */
            len = 0;
            break;
        case 2: /* half a line */
            len -= 10;
            break;
        case 3: /* lines are missing */
            len = (size_t)(strstr(file, "message 7") - file);
            while (file[len - 1] != '\n')
                len--;
            break;
        case 4: /* lost ones */
            len += (size_t)snprintf(file + len, 256,
                                    "41 2026-01-02T10:00:00.000Z lobby - - text - lost\n"
                                    "42 2026-01-02T10:00:00.000Z lobby - - te");
            break;
        case 5: /* nothing but lost ones */
            len =
                (size_t)snprintf(file, 256, "41 2026-01-02T10:00:00.000Z lobby - - text - lost\n");
            break;
        case 6: /* a hole */
            memset(file + len / 2, 0, 200);
            break;
        case 7: /* a hole at its front */
            memset(file, 0, 200);
            break;
        case 8: /* one bit */
            file[len / 2] ^= 1;
            break;
        case 9: /* the first line's number */
            file[0]++;
            break;
        case 10: /* a later day that was lost as a whole */
            put("lobby", DAY + 2, "50 2026-01-03T00:00:00.000Z lobby - - text - lost\n", 50);
            break;
        default: /* somebody has moved the first lines away, and half of the last was lost */
            kept = strstr(file, "message 7");
            while (kept[-1] != '\n')
                kept--;
            len -= (size_t)(kept - file) + 5;
            memmove(file, kept, len);
        }
        put("lobby", DAY + 1, file, len);
        if (what == 1)
            again(NULL);
        repair_all();
        testhost_advance_ms(host, 3000);
        if (what == 11) {
            const char *got = testhost_file_get(host, path_of("lobby", DAY + 1), NULL);
            assert_string_equal(got, strstr(lines, got));
        } else {
            if (!agrees("lobby", DAY) || !agrees("lobby", DAY + 1))
                fail_msg("case %d", what);
        }
        assert_null(testhost_file_get(host, path_of("lobby", DAY + 2), NULL));
        nothing_is_left_to_do();
        free(first);
        free(lines);
        free(file);
        end();
    }
}

static void the_day_before_as_well(void **state)
{
    (void)state;
    begin(NULL);
    many("lobby", 100, text_day_start_ns(DAY + 1) - 90 * INT64_C(1000000000), 1000000000);
    testhost_set_time_ns(host, last_of("lobby")->time_ns);
    size_t len;
    char *lines = lines_of("lobby", DAY, &len);
    put("lobby", DAY, lines, len / 2);
    free(lines);
    repair_all();
    testhost_advance_ms(host, 1000);
    all_agree();
    nothing_is_left_to_do();
    end();
}

/* Segments are kept for less time than text files: what only the file has stays. */
static void older_lines_stay(void **state)
{
    (void)state;
    begin(NULL);
    many("lobby", 50, text_day_start_ns(DAY) + 1, 1000000000);
    size_t len;
    char *lines = lines_of("lobby", DAY, &len);
    put("lobby", DAY, lines, len - 30);
    free(lines);
    for (size_t i = 0; i < 30; i++)
        chain[i].gone = 1;
    repair_all();
    testhost_advance_ms(host, 1000);
    assert_true(agrees("lobby", DAY));
    for (size_t i = 0; i < 50; i++)
        chain[i].gone = 1;
    repair_all();
    testhost_advance_ms(host, 1000);
    assert_true(agrees("lobby", DAY));
    nothing_is_left_to_do();
    end();
}

static void damaged_segments_cost_no_line(void **state)
{
    (void)state;
    begin(NULL);
    many("lobby", 50, text_day_start_ns(DAY) + 1, 1000000000);
    size_t len;
    char *lines = lines_of("lobby", DAY, &len);
    put("lobby", DAY, lines, len);
    history_error = -EILSEQ;
    repair_all();
    testhost_advance_ms(host, 5000);
    assert_true(agrees("lobby", DAY));
    nothing_is_left_to_do();
    free(lines);
    end();
}

static void excluded_rooms_are_left_alone(void **state)
{
    (void)state;
    begin("rooms = *, !lobby\n");
    many("lobby", 5, text_day_start_ns(DAY) + 1, 1000000000);
    many("ops", 5, text_day_start_ns(DAY) + 1, 1000000000);
    repair_all();
    testhost_advance_ms(host, 1000);
    assert_null(testhost_file_get(host, path_of("lobby", DAY), NULL));
    assert_true(agrees("ops", DAY));
    end();
}

/* More than the window: the front is taken as it is. */
static void a_large_file(void **state)
{
    static const struct {
        const char *room;
        int n;
        size_t bytes, least;
    } files[] = {{"lobby", 1000, 5000, 4u << 20}, {"@ana,bia", 220, 50000, 10u << 20}};

    (void)state;
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        char *words = long_text(files[f].bytes);
        begin(NULL);
        for (int i = 0; i < files[f].n; i++)
            (void)keep(files[f].room, 0, text_day_start_ns(DAY) + i + 1, words);
        size_t len;
        char *lines = lines_of(files[f].room, DAY, &len);
        assert_true(len > files[f].least);
        put(files[f].room, DAY, lines, len - 100000);
        repair_all();
        testhost_advance_ms(host, 5000);
        assert_true(agrees(files[f].room, DAY));
        free(lines);
        free(words);
        end();
    }
}

/* ---- chance ------------------------------------------------------------------------------------
 *  */

static uint64_t chance;

static uint32_t pick(uint32_t n)
{
    chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(chance >> 33) % n;
}

static void talk(void)
{
    static const char *const words[] = {"hi", "a\nb", "\\", "\xf0\x9f\x92\xa9",
                                        "a longer line with more words in it"};
    int64_t now_ns = roda_time_ns(ctx());

    if (!pick(40)) /* midnight comes */
        testhost_set_time_ns(host, text_day(now_ns) < DAY + 2 ? now_ns + DAY_NS / 3 : now_ns);
    /* A page must have room for what two people wrote at one and the same time. */
    testhost_set_time_ns(host, roda_time_ns(ctx()) + 1);
    say(rooms[pick(N_ROOMS)], words[pick(5)]);
}

/* A file's end is cut, changed, or has lines that were lost. Of private conversations only the end
 * is missing: they have no numbers by which lines could be told to be too many. */
static void damage(const char *room)
{
    const struct said *last = last_of(room);
    const char *path = last ? path_of(room, text_day(last->time_ns)) : NULL;
    size_t len = 0;
    const char *was = path ? testhost_file_get(host, path, &len) : NULL;

    if (!len)
        return;
    char *file = calloc(1, len + 200);
    memcpy(file, was, len);
    if (pick(3))
        len -= pick((uint32_t)(len < 300 ? len : 300));
    if (*room != '@' && len && !pick(3))
        file[len - 1 - pick((uint32_t)(len < 300 ? len : 300))] ^= (char)(1 << pick(8));
    if (*room != '@' && !pick(3) && (!len || file[len - 1] == '\n'))
        len += (size_t)snprintf(file + len, 256, "99999 2026-01-01T00:00:00.000Z x - - text - l%s",
                                pick(2) ? "\n" : "");
    testhost_file_put(host, path, file, len);
    free(file);
}

static void storm(void)
{
    chance = seed;
    begin(pick(2) ? "text_files = 2\n" : NULL);
    for (int life = 0; life < 3; life++) {
        page_max = 1 + pick(64);
        for (int i = 0; i < 60; i++) {
            talk();
            switch (pick(13)) {
            case 0:
                testhost_fail_writes(host, -ENOSPC);
                break;
            case 1:
            case 2:
                testhost_fail_writes(host, 0);
                break;
            case 3:
                testhost_advance_ms(host, pick(12000));
                break;
            case 4:
                text_reopen(ctx());
                break;
            case 5:
                testhost_hold_files(host, pick(2));
                break;
            case 6:
                text_repair(kept_partitions[pick(RODA_PARTITIONS)]);
                break;
            case 7:
                history_error = pick(4) ? 0 : -ENOMEM;
                break;
            case 8:
                testhost_fail_allocation(host, pick(2) * pick(30));
                break;
            default:
                (void)testhost_turn(host);
            }
        }
        testhost_fail_writes(host, 0);
        testhost_hold_files(host, false);
        testhost_fail_allocation(host, 0);
        history_error = 0;
        again(NULL);
        if (pick(2)) {
            for (size_t i = 0; i < N_ROOMS; i++)
                damage(rooms[i]);
            repair_all();
            for (int i = 0; i < 20; i++) {
                talk();
                (void)testhost_turn(host);
            }
        }
    }
    testhost_advance_ms(host, 30000);
    all_agree();
    nothing_is_left_to_do();
    end();
}

static void storms(void **state)
{
    (void)state;
    for (seed = 1; seed <= 400; seed++)
        storm();
    seed = 0;
}

/* Memory is out at each allocation in turn. */
static void scene(void)
{
    say("lobby", "one");
    say("ops", "one");
    run();
    testhost_fail_writes(host, -ENOSPC);
    say("lobby", "two");
    testhost_advance_ms(host, 1500);
    testhost_fail_writes(host, 0);
    say("lobby", "three");
    testhost_advance_ms(host, 12000);
    text_reopen(ctx());
    say("lobby", "four");
    run();
}

static void memory_runs_out(void **state)
{
    (void)state;
    begin(NULL);
    uint64_t before = testhost_allocations(host);
    scene();
    uint64_t n = testhost_allocations(host) - before;
    end();
    assert_true(n > 20);
    for (uint64_t at = 1; at <= n; at++) {
        begin(NULL);
        testhost_fail_allocation(host, at);
        scene();
        testhost_fail_allocation(host, 0);
        testhost_advance_ms(host, 30000);
        say("lobby", "five");
        testhost_advance_ms(host, 30000);
        if (!agrees("lobby", DAY) || !agrees("ops", DAY))
            fail_msg("allocation %llu", (unsigned long long)at);
        nothing_is_left_to_do();
        end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_per_message),
        cmocka_unit_test(a_file_per_day),
        cmocka_unit_test(few_files_for_many_rooms),
        cmocka_unit_test(reopened),
        cmocka_unit_test(a_full_queue),
        cmocka_unit_test(a_full_disk),
        cmocka_unit_test(a_full_disk_at_the_end),
        cmocka_unit_test(nothing_is_read_after_a_good_end),
        cmocka_unit_test(nothing_is_shown_early),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(the_day_before_as_well),
        cmocka_unit_test(older_lines_stay),
        cmocka_unit_test(damaged_segments_cost_no_line),
        cmocka_unit_test(excluded_rooms_are_left_alone),
        cmocka_unit_test(a_large_file),
        cmocka_unit_test(storms),
        cmocka_unit_test(memory_runs_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
