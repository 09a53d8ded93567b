/* "history/1" at its edges: where rooms begin, what messages look like that come back, how many may
 * ask at once, and what happens when memory is out, a file is damaged or the broker ends. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <roda/history.h>

#include "testhost.h"

extern const struct roda_plugin log_plugin, rooms_plugin;

static const char *const asker_needs[] = {RODA_HISTORY_ID, NULL};
static const struct roda_plugin asker = {
    .abi = RODA_ABI,
    .size = sizeof(struct roda_plugin),
    .name = "asker",
    .summary = "asks",
    .version = "1",
    .needs = asker_needs,
};

enum { WORKERS = 3, ASKED_MAX = 64, KEPT_MAX = 64, ROOMS = 40 };
#define LOG_CONF "directory = /log\nsync = never\nrooms = *, !secret\nannounce = yes\n"

static struct testhost *host;

static struct roda_str str(const char *text)
{
    return (struct roda_str){text, strlen(text)};
}

static void start(const char *conf)
{
    if (!host)
        host = testhost_new(WORKERS);
    assert_int_equal(testhost_load(host, &rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(host, &log_plugin, conf), 0);
    assert_int_equal(testhost_load(host, &asker, NULL), 0);
    assert_int_equal(testhost_start(host), 0);
}

static void stop(void)
{
    assert_int_equal(testhost_stop(host), 0);
    testhost_free(host);
    host = NULL;
}

static struct testhost_conn *enter(uint32_t worker, const char *nick)
{
    struct testhost_conn *c = testhost_connect(host, worker, "plain", "tcp");
    char line[64];

    assert_true(testhost_run(host));
    (void)snprintf(line, sizeof(line), "NICK|||%s\n", nick);
    testhost_input(c, line);
    assert_true(testhost_run(host));
    return c;
}

static void say(struct testhost_conn *c, const char *line)
{
    testhost_input(c, line);
    testhost_input(c, "\n");
    assert_true(testhost_run(host));
    while (testhost_unit(c)) {
    }
}

/* ---- asking ----------------------------------------------------------------------------- */

struct reply {
    int calls, result;
    size_t n;
    uint32_t more;
    struct roda_msg *messages[KEPT_MAX]; /* references */
    uint64_t epoch, number, first, last;
};

static void drop(struct reply *reply)
{
    for (size_t i = 0; i < reply->n; i++)
        roda_msg_unref(reply->messages[i]);
    reply->n = 0;
}

static void take(void *arg, const struct roda_history_page *page, int result)
{
    struct reply *reply = arg;

    reply->calls++;
    reply->result = result;
    assert_true(!page == (result != 0));
    if (!page)
        return;
    assert_in_range(page->n, 0, KEPT_MAX);
    reply->n = page->n;
    for (size_t i = 0; i < page->n; i++)
        reply->messages[i] = roda_msg_ref(page->messages[i]);
    reply->more = page->more;
    reply->epoch = page->epoch;
    reply->number = page->number;
    reply->first = page->first;
    reply->last = page->last;
}

static const struct roda_history *service(uint32_t worker, struct roda_ctx **ret_x)
{
    const struct roda_history *history =
        roda_service(testhost_ctx(host, "asker", worker), RODA_HISTORY_ID, ret_x);

    assert_non_null(history);
    assert_int_equal(history->size, sizeof(*history));
    return history;
}

static int ask(uint32_t worker, const char *room, uint32_t what, uint32_t max, uint64_t from,
               struct reply *reply)
{
    struct roda_ctx *x;
    const struct roda_history *history = service(worker, &x);
    struct roda_history_query query = {.size = sizeof(query),
                                       .what = what,
                                       .max = max,
                                       .from = from,
                                       .room = str(room)};

    *reply = (struct reply){.calls = 0};
    return history->read(x, &query, take, reply);
}

static void read_all(uint32_t worker, const char *room, struct reply *reply)
{
    assert_int_equal(ask(worker, room, RODA_HISTORY_LATEST, 64, 0, reply), 0);
    assert_int_equal(reply->calls, 0); /* never inside the call */
    assert_true(testhost_run(host));
    assert_int_equal(reply->calls, 1);
}

static void assert_text(struct roda_str text, const char *expected)
{
    assert_int_equal(text.len, strlen(expected));
    assert_memory_equal(text.ptr, expected, text.len);
}

/* ---- rooms ------------------------------------------------------------------------------ */

static void what_the_configuration_says(void **state)
{
    struct roda_ctx *x;

    (void)state;
    start(LOG_CONF "sync_rooms = always: ops\nprivate = yes\n");
    for (uint32_t worker = 0; worker < WORKERS; worker++) {
        const struct roda_history *history = service(worker, &x);
        assert_int_equal(history->kept(x, str("lobby")),
                         RODA_HISTORY_KEPT | RODA_HISTORY_ANNOUNCED | RODA_HISTORY_PRIVATE);
        assert_int_equal(history->kept(x, str("OPS")), RODA_HISTORY_KEPT | RODA_HISTORY_ANNOUNCED |
                                                           RODA_HISTORY_PRIVATE |
                                                           RODA_HISTORY_DURABLE);
        assert_int_equal(history->kept(x, str("Secret")), 0);
        assert_int_equal(history->kept(x, str("@ana,bob")), 0);
        assert_int_equal(history->kept(x, str("")), 0);
        assert_int_equal(history->kept(x, str("\xff")), 0);
    }
    stop();
}

static void a_room_begins_where_its_partition_is(void **state)
{
    (void)state;
    start(LOG_CONF);
    for (uint32_t i = 0; i < ROOMS; i++) {
        struct roda_history_start at, again;
        struct roda_ctx *x;
        char name[32], loud[32];
        (void)snprintf(name, sizeof(name), "room-%u", i);
        (void)snprintf(loud, sizeof(loud), "ROOM-%u", i);
        uint32_t home = roda_partition_worker(roda_room_partition(str(name)), WORKERS);
        for (uint32_t worker = 0; worker < WORKERS; worker++) {
            const struct roda_history *history = service(worker, &x);
            int r = history->start(x, str(worker % 2 ? name : loud), &at);
            assert_int_equal(r, worker == home ? 0 : -EINVAL);
        }
        const struct roda_history *history = service(home, &x);
        assert_int_equal(history->start(x, str(name), &at), 0);
        assert_true(at.epoch != 0);
        assert_int_equal(at.number, 0);
        assert_int_equal(at.time_ns, 0);
        assert_int_equal(history->start(x, str(loud), &again), 0);
        assert_int_not_equal(again.epoch, at.epoch); /* nothing was said: nothing is remembered */
        assert_int_equal(history->start(x, str("secret"), &at), -ENOENT);
        assert_int_equal(history->start(x, str("@a,b"), &at), -ENOENT);
        assert_int_equal(history->start(x, str(""), &at), -EINVAL);
    }
    stop();
}

static void a_room_without_messages_is_not_known(void **state)
{
    struct reply reply;

    (void)state;
    start(LOG_CONF);
    struct testhost_conn *ana = enter(0, "ana");
    say(ana, "JOIN|quiet||");
    for (uint32_t worker = 0; worker < WORKERS; worker++) {
        read_all(worker, "quiet", &reply);
        assert_int_equal(reply.result, -ENOENT);
        read_all(worker, "unheard-of", &reply);
        assert_int_equal(reply.result, -ENOENT);
        read_all(worker, "secret", &reply);
        assert_int_equal(reply.result, -ENOENT);
        read_all(worker, "@ana,bob", &reply);
        assert_int_equal(reply.result, -ENOENT);
    }
    stop();
}

/* ---- messages --------------------------------------------------------------------------- */

static void messages_come_back_as_they_were(void **state)
{
    static const char *const texts[] = {"hello", "waves", "Subject: tea"};
    static const uint32_t kinds[] = {RODA_TEXT, RODA_TEXT, RODA_TOPIC};
    struct reply reply;

    (void)state;
    start(LOG_CONF);
    struct testhost_conn *ana = enter(0, "ana"), *bob = enter(1, "bob");
    say(ana, "TEXT|lobby||hello");
    testhost_advance_ms(host, 1000);
    say(bob, "TEXT+a|lobby||waves");
    say(ana, "TOPIC|lobby||Subject: tea");
    say(ana, "TYPING|lobby||"); /* is not kept */
    say(ana, "NICK|||anna");
    say(ana, "TEXT|lobby||renamed");
    for (uint32_t worker = 0; worker < WORKERS; worker++) {
        read_all(worker, "LOBBY", &reply);
        assert_int_equal(reply.result, 0);
        assert_int_equal(reply.n, 4);
        assert_int_equal(reply.more, 0);
        assert_int_equal(reply.first, 1);
        assert_int_equal(reply.last, 4);
        assert_int_equal(reply.number, 4);
        for (size_t i = 0; i < 3; i++) {
            const struct roda_msg *msg = reply.messages[i];
            assert_int_equal(msg->kind, kinds[i]);
            assert_int_equal(msg->number, i + 1);
            assert_int_equal(msg->prev, i);
            assert_int_equal(msg->epoch, reply.epoch);
            assert_int_equal(msg->from, 0);
            assert_text(msg->text, texts[i]);
            assert_text(msg->to, "lobby");
            assert_text(roda_person_get(msg->sender, RODA_PERSON_NICK), i == 1 ? "bob" : "ana");
            assert_text(roda_person_get(msg->sender, RODA_PERSON_DOOR), "plain");
        }
        assert_int_equal(reply.messages[0]->flags, 0);
        assert_int_equal(reply.messages[1]->flags, RODA_MSG_ACTION);
        assert_true(reply.messages[1]->time_ns - reply.messages[0]->time_ns >= 1000000000);
        /* One person for one sender, as they were then. */
        assert_ptr_equal(reply.messages[0]->sender, reply.messages[2]->sender);
        assert_text(roda_person_get(reply.messages[3]->sender, RODA_PERSON_NICK), "anna");
        assert_int_equal(roda_person_id(reply.messages[3]->sender),
                         roda_person_id(reply.messages[0]->sender));
        assert_true(roda_person_id(reply.messages[1]->sender) !=
                    roda_person_id(reply.messages[0]->sender));
        drop(&reply);
    }
    /* So many were asked for, and so many came: there is no more of what was asked. */
    assert_int_equal(ask(2, "lobby", RODA_HISTORY_AFTER, 2, 1, &reply), 0);
    assert_true(testhost_run(host));
    assert_int_equal(reply.n, 2);
    assert_int_equal(reply.more, 0);
    assert_int_equal(reply.messages[0]->number, 2);
    drop(&reply);
    stop();
}

static void a_long_answer_is_asked_for_piece_by_piece(void **state)
{
    struct reply reply;
    uint64_t number = 0;
    size_t pieces = 0;

    (void)state;
    start(LOG_CONF);
    struct testhost_conn *ana = enter(0, "ana");
    for (unsigned i = 0; i < 150; i++)
        say(ana, "TEXT|lobby||again");
    do {
        assert_int_equal(ask(1, "lobby", RODA_HISTORY_AFTER, 1000, number, &reply), 0);
        assert_true(testhost_run(host));
        assert_int_equal(reply.result, 0);
        assert_true(reply.n > 0);
        for (size_t i = 0; i < reply.n; i++)
            assert_int_equal(reply.messages[i]->number, ++number);
        drop(&reply);
        pieces++;
    } while (reply.more);
    assert_int_equal(number, 150);
    assert_int_equal(pieces, 3);
    /* The newest 100 begin with their oldest. */
    assert_int_equal(ask(1, "lobby", RODA_HISTORY_LATEST, 100, 0, &reply), 0);
    assert_true(testhost_run(host));
    assert_int_equal(reply.n, 64);
    assert_int_equal(reply.messages[0]->number, 51);
    assert_int_equal(reply.more, 1);
    drop(&reply);
    stop();
}

/* ---- limits and faults ------------------------------------------------------------------ */

static void sixty_four_may_ask_at_once(void **state)
{
    static struct reply replies[ASKED_MAX], one;

    (void)state;
    start(LOG_CONF);
    struct testhost_conn *ana = enter(0, "ana");
    say(ana, "TEXT|lobby||hello");
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 0; i < ASKED_MAX; i++)
            assert_int_equal(ask(1, i % 2 ? "lobby" : "secret", RODA_HISTORY_LATEST, 5, 0,
                                 &replies[i]),
                             0);
        assert_int_equal(ask(1, "lobby", RODA_HISTORY_LATEST, 5, 0, &one), -EAGAIN);
        assert_int_equal(ask(2, "lobby", RODA_HISTORY_LATEST, 5, 0, &one), 0); /* its own */
        assert_true(testhost_run(host));
        assert_int_equal(one.calls, 1);
        drop(&one);
        for (size_t i = 0; i < ASKED_MAX; i++) {
            assert_int_equal(replies[i].calls, 1);
            assert_int_equal(replies[i].result, i % 2 ? 0 : -ENOENT);
            assert_int_equal(replies[i].n, i % 2);
            drop(&replies[i]);
        }
    }
    stop();
}

static struct reply inner;

static void ask_again(void *arg, const struct roda_history_page *page, int result)
{
    take(arg, page, result);
    assert_int_equal(ask(1, "lobby", RODA_HISTORY_LATEST, 5, 0, &inner), 0);
}

static void who_is_answered_may_ask_again(void **state)
{
    struct roda_history_query query = {.size = sizeof(query),
                                       .what = RODA_HISTORY_LATEST,
                                       .max = 1,
                                       .room = RODA_STR("lobby")};
    struct reply reply = {.calls = 0};
    struct roda_ctx *x;

    (void)state;
    start(LOG_CONF);
    struct testhost_conn *ana = enter(0, "ana");
    say(ana, "TEXT|lobby||hello");
    const struct roda_history *history = service(1, &x);
    assert_int_equal(history->read(x, &query, ask_again, &reply), 0);
    assert_true(testhost_run(host));
    assert_int_equal(reply.calls, 1);
    assert_int_equal(inner.calls, 1);
    drop(&reply);
    drop(&inner);
    stop();
}

static void without_memory_an_answer_says_so(void **state)
{
    struct reply reply;
    uint64_t n;
    int refused = 0, failed = 0;

    (void)state;
    start(LOG_CONF);
    struct testhost_conn *ana = enter(0, "ana"), *bob = enter(1, "bob");
    for (unsigned i = 0; i < 4; i++) {
        say(ana, "TEXT|lobby||hello");
        say(bob, "TEXT|lobby||hello");
    }
    for (n = 1; n < 200; n++) {
        testhost_fail_allocation(host, n);
        int r = ask(2, "lobby", RODA_HISTORY_LATEST, 8, 0, &reply);
        assert_true(testhost_run(host));
        testhost_fail_allocation(host, 0);
        assert_int_equal(reply.calls, r ? 0 : 1);
        if (r)
            assert_int_equal(r, -ENOMEM);
        else if (reply.result)
            assert_int_equal(reply.result, -ENOMEM);
        refused += r != 0;
        failed += !r && reply.result;
        if (!r && !reply.result)
            break;
    }
    assert_int_equal(refused, 1);
    assert_true(failed >= 8 + 2 + 8); /* reads, persons, messages */
    assert_int_equal(reply.n, 8);
    drop(&reply);
    stop();
}

/* ---- files ------------------------------------------------------------------------------ */

static char *disk[RODA_PARTITIONS];
static size_t disk_len[RODA_PARTITIONS];

static const char *path_of(uint32_t partition)
{
    static char path[64];

    (void)snprintf(path, sizeof(path), "/log/%02u-%016x.segment", partition, 0u);
    return path;
}

/* Another broker on the same files. */
static void restart(const char *conf)
{
    assert_int_equal(testhost_stop(host), 0);
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++) {
        const char *bytes = testhost_file_get(host, path_of(i), &disk_len[i]);
        free(disk[i]);
        disk[i] = NULL;
        if (!bytes)
            continue;
        disk[i] = malloc(disk_len[i] + 1);
        assert_non_null(disk[i]);
        memcpy(disk[i], bytes, disk_len[i]);
    }
    testhost_free(host);
    host = testhost_new(WORKERS);
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++)
        if (disk[i])
            testhost_file_put(host, path_of(i), disk[i], disk_len[i]);
    start(conf);
}

static void flipped_bits_cost_only_their_messages(void **state)
{
    static const unsigned flipped[] = {3, 4, 50, 97, 149};
    struct reply reply;
    uint32_t partition = roda_room_partition(str("lobby"));
    uint64_t number = 0;
    size_t got = 0;
    char line[64];

    (void)state;
    start(LOG_CONF);
    struct testhost_conn *ana = enter(0, "ana");
    for (unsigned i = 1; i <= 150; i++) {
        (void)snprintf(line, sizeof(line), "TEXT|lobby||message <%u>", i);
        say(ana, line);
    }
    restart(LOG_CONF); /* as it was */
    for (size_t i = 0; i < sizeof(flipped) / sizeof(*flipped); i++) {
        char text[32];
        size_t at = 0, len = (size_t)snprintf(text, sizeof(text), "<%u>", flipped[i]);
        while (at < disk_len[partition] && memcmp(disk[partition] + at, text, len) != 0)
            at++;
        assert_true(at < disk_len[partition]);
        disk[partition][at + 1] ^= 1;
    }
    testhost_file_put(host, path_of(partition), disk[partition], disk_len[partition]);
    for (;;) {
        assert_int_equal(ask(0, "lobby", RODA_HISTORY_AFTER, 10, number, &reply), 0);
        assert_true(testhost_run(host));
        assert_int_equal(reply.result, 0);
        if (!reply.n)
            break;
        for (size_t i = 0; i < reply.n; i++) {
            uint64_t missing = reply.messages[i]->number - number - 1;
            assert_int_equal(reply.messages[i]->prev, reply.messages[i]->number - 1);
            assert_in_range(missing, 0, 2);
            for (uint64_t k = number + 1; k <= number + missing; k++)
                assert_true(k == 3 || k == 4 || k == 50 || k == 97 || k == 149);
            number = reply.messages[i]->number;
            got++;
        }
        drop(&reply);
    }
    assert_int_equal(number, 150);
    assert_int_equal(got, 145);
    stop();
    for (uint32_t i = 0; i < RODA_PARTITIONS; i++) {
        free(disk[i]);
        disk[i] = NULL;
    }
}

static void count(void *arg, const struct roda_history_page *page, int result)
{
    struct reply *reply = arg;

    (void)page;
    reply->calls++;
    reply->result = result;
}

static void the_end_of_the_broker_answers_all(void **state)
{
    static struct reply replies[WORKERS][8];
    struct roda_history_query query = {.size = sizeof(query),
                                       .what = RODA_HISTORY_AFTER,
                                       .max = 10,
                                       .from = 5,
                                       .room = RODA_STR("lobby")};
    struct roda_ctx *x;

    (void)state;
    start(LOG_CONF);
    struct testhost_conn *ana = enter(0, "ana");
    for (unsigned i = 0; i < 20; i++)
        say(ana, "TEXT|lobby||hello");
    for (unsigned turns = 0; turns < 8; turns++) {
        for (uint32_t worker = 0; worker < WORKERS; worker++) {
            const struct roda_history *history = service(worker, &x);
            assert_int_equal(history->read(x, &query, count, &replies[worker][turns]), 0);
        }
        testhost_turn(host); /* they are everywhere on their way */
    }
    assert_int_equal(testhost_stop(host), 0);
    for (uint32_t worker = 0; worker < WORKERS; worker++)
        for (size_t i = 0; i < 8; i++) {
            struct reply *reply = &replies[worker][i];
            assert_int_equal(reply->calls, 1);
            assert_true(!reply->result || reply->result == -ECANCELED);
        }
    testhost_free(host);
    host = NULL;
}

static struct roda_history_query last_query = {.size = sizeof(last_query),
                                               .what = RODA_HISTORY_LATEST,
                                               .max = 1,
                                               .room = {"lobby", 5}};
static int late_calls, late_result;
static struct roda_ctx *late_log;
static const struct roda_history *late_history;

static void asks_too_late(void *arg, const struct roda_history_page *page, int result)
{
    (void)arg;
    (void)page;
    late_calls++;
    late_result = result;
    assert_int_equal(late_history->read(late_log, &last_query, asks_too_late, NULL), -ESHUTDOWN);
}

/* Before the log's own, after which nobody answers. */
static void asker_stop(struct roda_ctx *x)
{
    if (x->worker != 1)
        return;
    late_history = roda_service(x, RODA_HISTORY_ID, &late_log);
    assert_int_equal(late_history->read(late_log, &last_query, asks_too_late, NULL), 0);
}

static void who_asks_at_the_last_moment_is_told(void **state)
{
    struct roda_plugin late = asker;

    (void)state;
    late.stop = asker_stop;
    late_calls = 0;
    host = testhost_new(WORKERS);
    assert_int_equal(testhost_load(host, &rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(host, &log_plugin, LOG_CONF), 0);
    assert_int_equal(testhost_load(host, &late, NULL), 0);
    assert_int_equal(testhost_start(host), 0);
    stop();
    assert_int_equal(late_calls, 1);
    assert_int_equal(late_result, -ECANCELED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_configuration_says),
        cmocka_unit_test(a_room_begins_where_its_partition_is),
        cmocka_unit_test(a_room_without_messages_is_not_known),
        cmocka_unit_test(messages_come_back_as_they_were),
        cmocka_unit_test(a_long_answer_is_asked_for_piece_by_piece),
        cmocka_unit_test(sixty_four_may_ask_at_once),
        cmocka_unit_test(who_is_answered_may_ask_again),
        cmocka_unit_test(without_memory_an_answer_says_so),
        cmocka_unit_test(flipped_bits_cost_only_their_messages),
        cmocka_unit_test(the_end_of_the_broker_answers_all),
        cmocka_unit_test(who_asks_at_the_last_moment_is_told),
    };

    return cmocka_run_group_tests_name("log/service", tests, NULL, NULL);
}
