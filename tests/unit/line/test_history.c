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

#include "fake_rooms.h"
#include "testhost.h"

/* What was said before, as who joins and who asks for it sees it. A fake log says what is kept. */

extern const struct roda_plugin line_plugin;

/* ---- a log ------------------------------------------------------------------------------ */

enum { KEPT_MAX = 2000, EPOCH = 11, LATER_EPOCH = 12 };
#define TIME_0 INT64_C(1767225600000000000) /* 2026-01-01 00:00:00 UTC */

static struct {
    /* What the test sets. */
    uint32_t bits;       /* of every room but "secret" */
    size_t page_max;     /* messages in one answer */
    uint64_t room_epoch; /* now */
    int error;           /* of the answers from the `error_from`-th question on, 1 the first */
    size_t error_from;
    int refusal;    /* read() returns this */
    size_t at_once; /* more questions than that: -EAGAIN */
    int hold;       /* answers wait */
    /* What is kept, and what was seen. */
    struct roda_msg *messages[KEPT_MAX];
    size_t n;
    size_t questions, under_way, most_under_way;
    uint32_t charged;
    struct question *held;
    struct roda_ctx *x;
} fake;

struct question {
    struct roda_item item;
    struct roda_history_query query;
    roda_history_fn *fn;
    void *arg;
    int error;
    struct question *next;
};

static uint32_t fake_kept(struct roda_ctx *x, struct roda_str room)
{
    (void)x;
    return room.len == 6 && !memcmp(room.ptr, "secret", 6) ? 0 : fake.bits;
}

static int fake_start(struct roda_ctx *x, struct roda_str room, struct roda_history_start *ret)
{
    (void)x;
    (void)room;
    (void)ret;
    return -ENOENT;
}

/* The messages that were asked for: [*ret_first, *ret_end). */
static void select_kept(const struct roda_history_query *query, size_t *ret_first, size_t *ret_end)
{
    size_t first = 0, end = fake.n;

    switch (query->what) {
    case RODA_HISTORY_LATEST:
        while (query->to && end && fake.messages[end - 1]->number > query->to)
            end--;
        first = end > query->max ? end - query->max : 0;
        break;
    case RODA_HISTORY_AFTER:
        while (first < end && fake.messages[first]->number <= query->from)
            first++;
        break;
    default:
        assert_int_equal(query->what, RODA_HISTORY_BETWEEN);
        assert_true(query->from && query->from <= query->to);
        while (first < end && fake.messages[first]->number < query->from)
            first++;
        while (end > first && fake.messages[end - 1]->number > query->to)
            end--;
        break;
    }
    *ret_first = first;
    *ret_end = end - first > query->max ? first + query->max : end;
}

static void fake_answer(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct question *question = (struct question *)(void *)item;
    struct roda_history_page page = {.epoch = fake.room_epoch};
    size_t first, end;

    if (!result && fake.hold) {
        question->next = fake.held;
        fake.held = question;
        return;
    }
    fake.under_way--;
    if (!result)
        result = fake.n ? question->error : -ENOENT;
    select_kept(&question->query, &first, &end);
    page.messages = fake.messages + first;
    page.n = end - first < fake.page_max ? end - first : fake.page_max;
    page.more = page.n < end - first;
    question->fn(question->arg, result ? NULL : &page, result);
    roda_free(x, question);
}

static int fake_read(struct roda_ctx *x, const struct roda_history_query *query,
                     roda_history_fn *fn, void *arg)
{
    struct question *question;

    assert_int_equal(query->size, sizeof(*query));
    assert_in_range(query->max, 1, 1000);
    assert_false(query->by_time);
    if (fake.refusal)
        return fake.refusal;
    if (fake.under_way >= fake.at_once)
        return -EAGAIN;
    question = roda_alloc(x, sizeof(*question));
    if (!question)
        return -ENOMEM;
    question->item.run = fake_answer;
    question->query = *query;
    question->fn = fn;
    question->arg = arg;
    question->error = ++fake.questions >= fake.error_from ? fake.error : 0;
    if (++fake.under_way > fake.most_under_way)
        fake.most_under_way = fake.under_way;
    roda_post(x, x->worker, &question->item);
    return 0;
}

/* All that was held is answered now. */
static void answer_held(void)
{
    fake.hold = 0;
    while (fake.held) {
        struct question *question = fake.held;
        fake.held = question->next;
        fake_answer(fake.x, &question->item, 0);
    }
}

static int log_start(struct roda_ctx *x)
{
    fake.x = x;
    return 0;
}

/* After everybody who needs it has stopped; late answers are allowed. */
static void log_stop(struct roda_ctx *x)
{
    (void)x;
    answer_held();
    for (size_t i = 0; i < fake.n; i++)
        roda_msg_unref(fake.messages[i]);
    fake.n = 0;
}

static void log_charged(struct roda_ctx *x, struct roda_conn *c, uint32_t cost)
{
    (void)x;
    (void)c;
    fake.charged += cost;
}

static const struct roda_history fake_history = {.size = sizeof(fake_history),
                                                 .kept = fake_kept,
                                                 .start = fake_start,
                                                 .read = fake_read};
static const struct roda_service_table fake_services[] = {{RODA_HISTORY_ID, &fake_history},
                                                          {.id = NULL}};
static const struct roda_plugin fake_log = {.abi = RODA_ABI,
                                            .size = sizeof(struct roda_plugin),
                                            .service_size = sizeof(struct roda_service_table),
                                            .name = "log",
                                            .summary = "a log for tests",
                                            .version = "0",
                                            .services = fake_services,
                                            .start = log_start,
                                            .stop = log_stop,
                                            .charged = log_charged};

/* ---- what is kept ----------------------------------------------------------------------- */

static struct roda_person *person(const char *nick)
{
    struct roda_str fields[RODA_PERSON_FIELDS];

    for (size_t i = 0; i < RODA_PERSON_FIELDS; i++)
        fields[i] = RODA_STR("");
    fields[RODA_PERSON_NICK] = (struct roda_str){nick, strlen(nick)};
    return roda_person_make(fake.x, 0, fields);
}

static struct roda_msg *keep(uint64_t number, uint64_t prev, uint64_t epoch, uint32_t kind,
                             uint32_t flags, const char *text)
{
    struct roda_person *ana = person("ana");
    struct roda_msg_init init = {.size = sizeof(init),
                                 .kind = kind,
                                 .flags = flags,
                                 .sender = ana,
                                 .to = RODA_STR("lobby"),
                                 .subject = RODA_STR(""),
                                 .text = {text, strlen(text)}};
    struct roda_msg *msg = roda_msg_make(fake.x, &init, NULL);

    assert_non_null(msg);
    roda_person_unref(ana);
    msg->number = number;
    msg->prev = prev;
    msg->epoch = epoch;
    msg->time_ns = TIME_0 + (int64_t)number * 1000000000;
    fake.messages[fake.n++] = msg;
    return msg;
}

/* "line N" for each N from..to, without a gap. */
static void keep_lines(uint64_t from, uint64_t to, uint64_t epoch)
{
    char text[32];

    for (uint64_t i = from; i <= to; i++) {
        (void)snprintf(text, sizeof(text), "line %u", (unsigned)i);
        (void)keep(i, i - 1, epoch, RODA_TEXT, 0, text);
    }
}

/* ---- the broker ------------------------------------------------------------------------- */

/* The lobby's last message is `number`. */
static struct testhost *start_with(uint64_t number, const char *conf)
{
    struct testhost *h = testhost_new(1);

    fake_rooms_reset();
    fake_rooms.number = number;
    memset(&fake, 0, sizeof(fake));
    fake.bits = RODA_HISTORY_KEPT;
    fake.page_max = 64;
    fake.room_epoch = EPOCH;
    fake.error_from = 1;
    fake.at_once = 64;
    assert_int_equal(testhost_load(h, &fake_rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(h, &fake_log, NULL), 0);
    assert_int_equal(testhost_load(h, &line_plugin, conf), 0);
    assert_int_equal(testhost_start(h), 0);
    return h;
}

static struct testhost *start(uint64_t number)
{
    return start_with(number, "replay_on_join = 0\n");
}

/* Everything was given back, and no rule of the interface was broken. */
static void stop(struct testhost *h)
{
    assert_int_equal(testhost_stop(h), 0);
    testhost_free(h);
}

static void hears(struct testhost_conn *c, const char *wanted)
{
    const char *got = testhost_unit(c);

    if (!got)
        fail_msg("nothing came, wanted \"%s\"", wanted);
    else
        assert_string_equal(got, wanted);
}

static void hears_nothing(struct testhost_conn *c)
{
    const char *got = testhost_unit(c);

    if (got)
        fail_msg("\"%s\" came, wanted nothing", got);
}

static void hears_a_line_with(struct testhost_conn *c, const char *part)
{
    const char *got = testhost_unit(c);

    assert_non_null(got);
    if (!strstr(got, part))
        fail_msg("\"%s\" came, wanted \"...%s...\"", got, part);
}

/* "line N", said in the past; numbers: "N " in front. */
static void hears_lines(struct testhost_conn *c, uint64_t from, uint64_t to, int numbers)
{
    char wanted[128], number[24];

    for (uint64_t i = from; i <= to; i++) {
        number[0] = '\0';
        if (numbers)
            (void)snprintf(number, sizeof(number), "%u ", (unsigned)i);
        (void)snprintf(wanted, sizeof(wanted), "2026-01-01T%02u:%02u:%02uZ %slobby ana: line %u",
                       (unsigned)i / 3600, (unsigned)i / 60 % 60, (unsigned)i % 60, number,
                       (unsigned)i);
        hears(c, wanted);
    }
}

static void says(struct testhost *h, struct testhost_conn *c, const char *line)
{
    testhost_input(c, line);
    testhost_input(c, "\n");
    assert_true(testhost_run(h));
}

static void forget_all(struct testhost_conn *c)
{
    while (testhost_unit(c))
        ;
}

static struct testhost_conn *enter(struct testhost *h, const char *transport)
{
    struct testhost_conn *c = testhost_connect(h, 0, "line", transport);

    assert_true(testhost_run(h));
    forget_all(c);
    return c;
}

/* ---- joining ---------------------------------------------------------------------------- */

static void who_joins_is_shown_what_was_said(void **state)
{
    struct testhost *h = start_with(30, NULL);
    struct testhost_conn *ana, *bob = enter(h, "tcp");

    (void)state;
    keep_lines(1, 40, EPOCH); /* what comes after the joining is not history */
    fake.hold = 1;
    ana = testhost_connect(h, 0, "line", "tcp");
    assert_true(testhost_run(h));
    hears_a_line_with(ana, "* you are guest2 in lobby: 2 people, last message 30;");
    forget_all(bob);
    says(h, bob, "said while she is shown the past");
    says(h, ana, "who joins may talk");
    hears(bob, "lobby guest2: who joins may talk");
    hears_nothing(ana);
    answer_held();
    assert_true(testhost_run(h));
    hears(ana, "* history lobby 11-30: what was said before you came");
    hears_lines(ana, 11, 30, 0);
    hears(ana, "lobby guest1: said while she is shown the past");
    hears_nothing(ana);
    stop(h);
}

static void each_room_is_shown_in_its_place(void **state)
{
    struct testhost *h = start_with(3, "replay_on_join = 2\n");
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    keep_lines(1, 3, EPOCH);
    says(h, ana, "/numbers on");
    testhost_input(ana, "/join ops\nhello\n/join secret\n/ping\n");
    assert_true(testhost_run(h));
    hears(ana, "* numbers are on");
    hears(ana, "* you are guest1 in ops: 1 person, last message 3");
    hears(ana, "* history ops 2-3: what was said before you came");
    hears_lines(ana, 2, 3, 1);
    hears(ana, "* 4 ops");
    hears(ana, "* you are guest1 in secret: 1 person, last message 4");
    hears(ana, "* pong secret 4");
    hears_nothing(ana);
    stop(h);
}

static void where_nothing_is_kept_nothing_is_shown(void **state)
{
    struct testhost *h = start_with(30, NULL);
    struct testhost_conn *ana = testhost_connect(h, 0, "line", "tcp");

    (void)state;
    assert_true(testhost_run(h));
    hears_a_line_with(ana, "* you are guest1");
    hears_nothing(ana);
    assert_int_equal(fake.questions, 1);
    says(h, ana, "/join secret");
    hears_a_line_with(ana, "* you are guest1 in secret");
    hears_nothing(ana);
    assert_int_equal(fake.questions, 1);
    stop(h);

    h = start_with(0, NULL); /* a new room */
    ana = enter(h, "tcp");
    assert_int_equal(fake.questions, 0);
    stop(h);
}

static void who_joins_is_told_that_the_room_is_logged(void **state)
{
    struct testhost *h = start_with(1, "welcome = no\n");
    struct testhost_conn *ana, *udo;

    (void)state;
    keep_lines(1, 1, EPOCH);
    fake.bits |= RODA_HISTORY_ANNOUNCED;
    ana = testhost_connect(h, 0, "line", "tcp");
    assert_true(testhost_run(h));
    udo = testhost_connect(h, 0, "line", "udp");
    assert_true(testhost_run(h));
    hears(ana, "* history lobby: what is said here is logged");
    hears(ana, "* history lobby 1: what was said before you came");
    hears_lines(ana, 1, 1, 0);
    hears(udo, "* history lobby: what is said here is logged");
    hears_nothing(udo);
    stop(h);
}

static void who_joins_is_told_what_else_is_logged(void **state)
{
    static const struct {
        uint32_t bits;
        const char *wanted;
    } cases[] = {
        {RODA_HISTORY_ADDRESSES, "* history lobby: what is said here is logged, with your address"},
        {RODA_HISTORY_PRIVATE,
         "* history lobby: what is said here is logged; so are private messages"},
        {RODA_HISTORY_ADDRESSES | RODA_HISTORY_PRIVATE,
         "* history lobby: what is said here is logged, with your address; so are private "
         "messages"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct testhost *h = start_with(0, "welcome = no\n");
        struct testhost_conn *ana, *udo;

        fake.bits |= RODA_HISTORY_ANNOUNCED | cases[i].bits;
        ana = testhost_connect(h, 0, "line", "tcp");
        assert_true(testhost_run(h));
        udo = testhost_connect(h, 0, "line", "udp");
        assert_true(testhost_run(h));
        hears(ana, cases[i].wanted);
        hears(udo, cases[i].wanted);
        stop(h);
    }
}

static void a_datagram_session_is_greeted_and_asks_itself(void **state)
{
    struct testhost *h = start_with(2, NULL);
    struct testhost_conn *udo = testhost_connect(h, 0, "line", "udp");

    (void)state;
    keep_lines(1, 2, EPOCH);
    fake.bits |= RODA_HISTORY_ANNOUNCED;
    says(h, udo, "/nick udo");
    hears(udo, "* udo, lobby, 2, ping 25s");
    hears(udo, "* history lobby: what is said here is logged");
    hears_nothing(udo);
    says(h, udo, "/join ops");
    hears_a_line_with(udo, "* you are udo in ops");
    hears(udo, "* history ops: what is said here is logged");
    hears_nothing(udo);
    assert_int_equal(fake.questions, 0);
    says(h, udo, "/history lobby 1-2");
    testhost_advance_ms(h, 1000);
    hears_lines(udo, 1, 2, 1);
    hears(udo, "* history lobby 1-2: 2 messages");
    hears_nothing(udo);
    stop(h);
}

static void many_who_come_at_once_are_all_shown(void **state)
{
    enum { CLIENTS = 30, ROOMS = 6 };
    struct testhost *h = start_with(5, NULL);
    struct testhost_conn *clients[CLIENTS];

    (void)state;
    keep_lines(1, 5, EPOCH);
    fake.bits |= RODA_HISTORY_ANNOUNCED;
    fake.hold = 1;
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = testhost_connect(h, 0, "line", "tcp");
        for (char room[] = "/join r0\n"; room[7] < '0' + ROOMS; room[7]++)
            testhost_input(clients[i], room);
    }
    assert_true(testhost_run(h));
    for (size_t i = 0; i < CLIENTS; i += 7)
        testhost_reset(clients[i]); /* some have no patience */
    answer_held();
    assert_true(testhost_run(h));
    for (size_t i = 0; i < CLIENTS; i++) {
        const char *line;
        unsigned headers = 0, last = 0;
        while ((line = testhost_unit(clients[i]))) {
            headers += strstr(line, "-5: what was said before you came") != NULL;
            last += strstr(line, ": line 5") != NULL;
        }
        if (i % 7) {
            assert_int_equal(headers, ROOMS + 1);
            assert_int_equal(last, ROOMS + 1);
        }
    }
    assert_int_equal(fake.most_under_way, 32);
    stop(h);
}

static void others_may_have_asked_for_all_there_is(void **state)
{
    struct testhost *h = start_with(5, NULL);
    struct testhost_conn *ana;

    (void)state;
    keep_lines(1, 5, EPOCH);
    fake.at_once = 0;
    ana = enter(h, "tcp");
    testhost_advance_ms(h, 1000);
    hears_nothing(ana);
    fake.at_once = 1;
    testhost_advance_ms(h, 1000);
    hears(ana, "* history lobby 1-5: what was said before you came");
    hears_lines(ana, 1, 5, 0);
    hears_nothing(ana);
    fake.at_once = 0;
    says(h, ana, "/history lobby 2");
    testhost_reset(ana);
    assert_true(testhost_run(h));
    stop(h); /* with a question that was never asked */
}

static void so_many_joins_at_once_are_not_shown(void **state)
{
    struct testhost *h = start_with(5, NULL);
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    keep_lines(1, 5, EPOCH);
    fake.hold = 1;
    for (int i = 0; i < 9; i++) {
        says(h, ana, "/join ops");
        says(h, ana, "/part ops");
    }
    assert_int_equal(fake.questions, 1 + 8);
    forget_all(ana);
    answer_held();
    assert_true(testhost_run(h));
    for (;;) {
        const char *line = testhost_unit(ana);
        assert_non_null(line);
        if (!strcmp(line, "! history ops: not shown now: /history ops 20"))
            break;
    }
    forget_all(ana);
    says(h, ana, "/join ops");
    hears_a_line_with(ana, "* you are guest1 in ops");
    hears(ana, "* history ops 1-5: what was said before you came");
    stop(h);
}

/* ---- asking ----------------------------------------------------------------------------- */

static void the_last_ones_a_range_and_what_came_after(void **state)
{
    struct testhost *h = start(412);
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    keep_lines(1, 420, EPOCH);
    says(h, ana, "/history lobby 3");
    hears_lines(ana, 410, 412, 0);
    hears(ana, "* history lobby 410-412: 3 messages");
    says(h, ana, "/history #lobby 7-7");
    hears_lines(ana, 7, 7, 0);
    hears(ana, "* history lobby 7: 1 message");
    says(h, ana, "/history lobby 411-420"); /* not what was not shown yet */
    hears_lines(ana, 411, 412, 0);
    hears(ana, "* history lobby 411-412: 2 messages");
    says(h, ana, "/numbers on");
    hears(ana, "* numbers are on");
    says(h, ana, "/history lobby since 410");
    hears_lines(ana, 411, 412, 1);
    hears(ana, "* history lobby 411-412: 2 messages");
    says(h, ana, "/history lobby since 412");
    hears(ana, "* history lobby: nothing after 412");
    says(h, ana, "/history lobby 500-510");
    hears(ana, "* history lobby: nothing after 412");
    hears_nothing(ana);
    stop(h);
}

static void each_kind_is_shown_as_it_was(void **state)
{
    struct testhost *h = start(6);
    struct testhost_conn *ana = enter(h, "tcp");
    struct roda_msg *msg;

    (void)state;
    (void)keep(1, 0, EPOCH, RODA_TEXT, RODA_MSG_ACTION, "acena");
    (void)keep(2, 1, EPOCH, RODA_NOTICE, 0, "build failed");
    (void)keep(3, 2, EPOCH, RODA_TOPIC, 0, "sexta");
    (void)keep(4, 3, EPOCH, RODA_TEXT, RODA_MSG_MULTILINE, "one\ntwo");
    (void)keep(5, 4, EPOCH, 9, 0, "of a kind that this protocol does not know");
    msg = keep(6, 5, EPOCH, RODA_TEXT, 0, "the last one of its year");
    msg->time_ns = TIME_0 - 1;
    says(h, ana, "/history lobby 6");
    hears(ana, "2026-01-01T00:00:01Z lobby * ana acena");
    hears(ana, "2026-01-01T00:00:02Z lobby -ana- build failed");
    hears(ana, "2026-01-01T00:00:03Z * ana set the topic of lobby: sexta");
    hears(ana, "2026-01-01T00:00:04Z lobby ana: one");
    hears(ana, "2026-01-01T00:00:04Z lobby ana: two");
    hears(ana, "2025-12-31T23:59:59Z lobby ana: the last one of its year");
    hears(ana, "* history lobby 1-6: 6 messages");
    says(h, ana, "/numbers on");
    hears(ana, "* numbers are on");
    says(h, ana, "/history lobby 3-4");
    hears(ana, "2026-01-01T00:00:03Z * 3 lobby ana set the topic of lobby: sexta");
    hears(ana, "2026-01-01T00:00:04Z 4 lobby ana: one");
    hears(ana, "2026-01-01T00:00:04Z 4 lobby ana: two");
    hears(ana, "* history lobby 3-4: 2 messages");
    hears_nothing(ana);
    stop(h);
}

static void a_long_answer_says_how_to_go_on(void **state)
{
    struct testhost *h = start(650);
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    keep_lines(1, 700, EPOCH);
    says(h, ana, "/history lobby since 0");
    hears_lines(ana, 1, 300, 0);
    hears(ana, "* history lobby 1-300: 300 messages, more: /history lobby since 300");
    says(h, ana, "/history lobby since 300");
    hears_lines(ana, 301, 600, 0);
    hears(ana, "* history lobby 301-600: 300 messages, more: /history lobby since 600");
    says(h, ana, "/history lobby since 600");
    hears_lines(ana, 601, 650, 0);
    hears(ana, "* history lobby 601-650: 50 messages");
    /* Exactly as many as may be: there are no more. */
    says(h, ana, "/history lobby since 350");
    hears_lines(ana, 351, 650, 0);
    hears(ana, "* history lobby 351-650: 300 messages");
    says(h, ana, "/history lobby 300");
    hears_lines(ana, 351, 650, 0);
    hears(ana, "* history lobby 351-650: 300 messages");
    hears_nothing(ana);
    fake.page_max = 1;
    says(h, ana, "/history lobby since 348");
    hears_lines(ana, 349, 648, 0);
    hears(ana, "* history lobby 349-648: 300 messages, more: /history lobby since 648");
    hears_nothing(ana);
    stop(h);
}

/* The broker itself names ranges of any length. */
static void of_a_long_range_the_first_are_shown(void **state)
{
    static const char *const transports[] = {"tcp", "udp"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct testhost *h = start(650);
        struct testhost_conn *ana = enter(h, transports[i]);

        keep_lines(1, 700, EPOCH);
        says(h, ana, "/numbers on");
        forget_all(ana);
        says(h, ana, "/history lobby 9-100008");
        testhost_advance_ms(h, 60000);
        hears_lines(ana, 9, 308, 1);
        hears(ana, "* history lobby 9-308: 300 messages, more: /history lobby since 308");
        says(h, ana, "/history lobby 400-999999999999999999");
        testhost_advance_ms(h, 60000);
        hears_lines(ana, 400, 650, 1);
        hears(ana, "* history lobby 400-650: 251 messages");
        says(h, ana, "/history lobby 301-600");
        testhost_advance_ms(h, 60000);
        hears_lines(ana, 301, 600, 1);
        hears(ana, "* history lobby 301-600: 300 messages");
        hears_nothing(ana);
        stop(h);
    }
}

static void what_is_said_meanwhile_comes_behind(void **state)
{
    struct testhost *h = start(200);
    struct testhost_conn *ana = enter(h, "tcp"), *bob = enter(h, "tcp");

    (void)state;
    keep_lines(1, 200, EPOCH);
    says(h, ana, "/numbers on");
    forget_all(ana);
    fake.hold = 1;
    says(h, ana, "/history lobby since 100");
    for (int i = 0; i < 3; i++) {
        says(h, bob, "live");
        answer_held();
        fake.hold = 1;
        assert_true(testhost_run(h));
    }
    says(h, ana, "/ping");
    answer_held();
    assert_true(testhost_run(h));
    hears_lines(ana, 101, 200, 1);
    hears(ana, "* history lobby 101-200: 100 messages");
    for (int i = 201; i <= 203; i++) {
        char wanted[64];
        (void)snprintf(wanted, sizeof(wanted), "%d lobby guest2: live", i);
        hears(ana, wanted);
    }
    hears(ana, "* pong lobby 203");
    hears_nothing(ana);
    stop(h);
}

/* A reader who reads nothing is given a portion, and the rest stays where it is. */
static void a_slow_reader_costs_a_portion(void **state)
{
    struct testhost *h = start(300);
    struct testhost_conn *ana = enter(h, "tcp");
    char text[2000];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (uint64_t i = 1; i <= 300; i++)
        (void)keep(i, i - 1, EPOCH, RODA_TEXT, 0, text);
    testhost_read(ana, false);
    says(h, ana, "/history lobby 300");
    assert_int_equal(fake.questions, 1);
    testhost_read(ana, true);
    assert_true(testhost_run(h));
    for (int i = 0; i < 300; i++)
        hears_a_line_with(ana, "xxx");
    hears(ana, "* history lobby 1-300: 300 messages");
    stop(h);
}

/* Many answers at once wait for each other: what is written of them is no more than of one. */
static void a_slow_reader_is_not_killed_by_many_answers(void **state)
{
    struct testhost *h = start_with(5, "replay_on_join = 5\n");
    struct testhost_conn *ana = enter(h, "tcp");
    char text[60001];
    int shown = 0;

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (uint64_t i = 1; i <= 5; i++)
        (void)keep(i, i - 1, EPOCH, RODA_TEXT, 0, text);
    testhost_read(ana, false);
    for (int i = 0; i < 8; i++) {
        says(h, ana, "/join ops");
        says(h, ana, "/part ops");
    }
    says(h, ana, "/history lobby 5");
    assert_false(testhost_closed(ana));
    testhost_read(ana, true);
    assert_true(testhost_run(h));
    for (const char *line; (line = testhost_unit(ana));)
        shown += strstr(line, "xxx") != NULL;
    assert_int_equal(shown, 9 * 5);
    stop(h);
}

static void datagrams_are_not_sent_all_at_once(void **state)
{
    struct testhost *h = start(300);
    struct testhost_conn *udo = enter(h, "udp");
    char text[1000];
    size_t n = 0;

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (uint64_t i = 1; i <= 300; i++)
        (void)keep(i, i - 1, EPOCH, RODA_TEXT, 0, text);
    says(h, udo, "/ping");
    forget_all(udo);
    says(h, udo, "/history lobby 300");
    while (testhost_unit(udo))
        n++;
    assert_in_range(n, 4, 16);
    testhost_advance_ms(h, 1000);
    while (testhost_unit(udo))
        n++;
    assert_in_range(n, 20, 60); /* 64 kB at most */
    testhost_advance_ms(h, 60000);
    while (testhost_unit(udo))
        n++;
    assert_int_equal(n, 301);
    stop(h);
}

/* ---- what is missing -------------------------------------------------------------------- */

static void what_is_not_kept_is_said(void **state)
{
    struct testhost *h = start(110);
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    keep_lines(51, 100, EPOCH);                            /* retention took 1 to 50 */
    (void)keep(104, 102, EPOCH, RODA_TEXT, 0, "line 104"); /* 101, 102 lost, 103 never shown */
    (void)keep(106, 104, EPOCH, RODA_TEXT, 0, "line 106"); /* 105 never shown */
    (void)keep(110, 108, EPOCH, RODA_TEXT, 0, "line 110");
    says(h, ana, "/history lobby since 40");
    hears(ana, "* history lobby 41-50: not kept");
    hears_lines(ana, 51, 100, 0);
    hears(ana, "* history lobby 101-102: not kept");
    hears_lines(ana, 104, 104, 0);
    hears_lines(ana, 106, 106, 0);
    hears(ana, "* history lobby 107-108: not kept");
    hears_lines(ana, 110, 110, 0);
    hears(ana, "* history lobby 41-110: 53 messages");
    /* The same in pieces: what is missing is proved by what comes behind the range. */
    says(h, ana, "/history lobby 100-101");
    hears_lines(ana, 100, 100, 0);
    hears(ana, "* history lobby 101: not kept");
    hears(ana, "* history lobby 100-101: 1 message");
    says(h, ana, "/history lobby 102-103");
    hears(ana, "* history lobby 102: not kept");
    hears(ana, "* history lobby 102-103: 0 messages");
    says(h, ana, "/history lobby 105-105");
    hears(ana, "* history lobby 105: 0 messages");
    says(h, ana, "/history lobby 30-40");
    hears(ana, "* history lobby 30-40: not kept");
    hears(ana, "* history lobby 30-40: 0 messages");
    says(h, ana, "/history lobby 50");
    hears_lines(ana, 54, 100, 0); /* and what is in front is nobody's question */
    hears(ana, "* history lobby 101-102: not kept");
    hears_lines(ana, 104, 104, 0);
    hears_lines(ana, 106, 106, 0);
    hears(ana, "* history lobby 107-108: not kept");
    hears_lines(ana, 110, 110, 0);
    hears(ana, "* history lobby 54-110: 50 messages");
    hears_nothing(ana);
    stop(h);
}

static void what_is_not_kept_behind_the_last_one_is_said(void **state)
{
    struct testhost *h = start(60);
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    keep_lines(1, 50, EPOCH);
    says(h, ana, "/history lobby since 49");
    hears_lines(ana, 50, 50, 0);
    hears(ana, "* history lobby 51-60: not kept");
    hears(ana, "* history lobby 50-60: 1 message");
    says(h, ana, "/history lobby 52-55");
    hears(ana, "* history lobby 52-55: not kept");
    hears(ana, "* history lobby 52-55: 0 messages");
    says(h, ana, "/history lobby 1");
    hears_lines(ana, 50, 50, 0);
    hears(ana, "* history lobby 51-60: not kept");
    hears(ana, "* history lobby 50-60: 1 message");
    hears_nothing(ana);
    stop(h);
}

static void nothing_at_all_may_be_kept(void **state)
{
    struct testhost *h = start(60);
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    says(h, ana, "/history lobby 20");
    hears(ana, "* history lobby: nothing is kept");
    says(h, ana, "/history lobby since 40");
    hears(ana, "* history lobby 41-60: not kept");
    hears(ana, "* history lobby 41-60: 0 messages");
    says(h, ana, "/history lobby since 0");
    hears(ana, "* history lobby 1-60: not kept");
    hears(ana, "* history lobby 1-60: 0 messages");
    hears_nothing(ana);
    stop(h);
}

static void what_a_crash_took_is_said(void **state)
{
    struct testhost *h = start(10414);
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    keep_lines(401, 412, EPOCH);
    fake.room_epoch = LATER_EPOCH;
    /* Nothing was said since. */
    says(h, ana, "/history lobby since 411");
    hears_lines(ana, 412, 412, 0);
    hears(ana, "* history lobby 413-10414: lost when the broker ended, if anything was said");
    hears(ana, "* history lobby 412-10414: 1 message");
    says(h, ana, "/history lobby since 415"); /* what he saw is not kept */
    hears(ana, "* history lobby 416-10414: lost when the broker ended, if anything was said");
    hears(ana, "* history lobby 416-10414: 0 messages");
    keep_lines(10413, 10414, LATER_EPOCH);
    says(h, ana, "/history lobby since 411");
    hears_lines(ana, 412, 412, 0);
    hears(ana, "* history lobby 413-10412: lost when the broker ended, if anything was said");
    hears_lines(ana, 10413, 10414, 0);
    hears(ana, "* history lobby 412-10414: 3 messages");
    says(h, ana, "/history lobby since 415");
    hears(ana, "* history lobby 416-10412: lost when the broker ended, if anything was said");
    hears_lines(ana, 10413, 10414, 0);
    hears(ana, "* history lobby 416-10414: 2 messages");
    says(h, ana, "/history lobby 410-415");
    hears_lines(ana, 410, 412, 0);
    hears(ana, "* history lobby 413-415: lost when the broker ended, if anything was said");
    hears(ana, "* history lobby 410-415: 3 messages");
    says(h, ana, "/history lobby 500-510");
    hears(ana, "* history lobby 500-510: lost when the broker ended, if anything was said");
    hears(ana, "* history lobby 500-510: 0 messages");
    says(h, ana, "/history lobby 413-10412"); /* just what was said to be lost */
    hears(ana, "* history lobby 413-10412: lost when the broker ended, if anything was said");
    hears(ana, "* history lobby 413-10412: 0 messages");
    says(h, ana, "/history lobby since 300");
    hears(ana, "* history lobby 301-400: not kept");
    hears_lines(ana, 401, 412, 0);
    hears(ana, "* history lobby 413-10412: lost when the broker ended, if anything was said");
    hears_lines(ana, 10413, 10414, 0);
    hears(ana, "* history lobby 301-10414: 14 messages");
    says(h, ana, "/history lobby 3");
    hears_lines(ana, 412, 412, 0);
    hears(ana, "* history lobby 413-10412: lost when the broker ended, if anything was said");
    hears_lines(ana, 10413, 10414, 0);
    hears(ana, "* history lobby 412-10414: 3 messages");
    hears_nothing(ana);
    stop(h);
}

/* An epoch that ended with all it had written leaves no gap. */
static void a_new_epoch_alone_is_no_gap(void **state)
{
    struct testhost *h = start(20);
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    keep_lines(1, 10, EPOCH);
    keep_lines(11, 20, LATER_EPOCH);
    says(h, ana, "/history lobby since 5");
    hears_lines(ana, 6, 20, 0);
    hears(ana, "* history lobby 6-20: 15 messages");
    hears_nothing(ana);
    stop(h);
}

/* ---- refusals --------------------------------------------------------------------------- */

static void only_members_may_read(void **state)
{
    struct testhost *h = start(60);
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    keep_lines(1, 60, EPOCH);
    says(h, ana, "/history ops 20");
    hears(ana, "! you are not in ops: /join ops");
    says(h, ana, "/join secret");
    forget_all(ana);
    says(h, ana, "/history secret 20");
    hears(ana, "! history secret: not kept");
    says(h, ana, "/history lobby 20 30");
    hears(ana, "! usage: /history [ROOM] [N|FROM-TO|since NUMBER], at most 300");
    says(h, ana, "/history lobby 301");
    hears(ana, "! usage: /history [ROOM] [N|FROM-TO|since NUMBER], at most 300");
    assert_int_equal(fake.questions, 0);
    stop(h);
}

/* Besides the one that every line costs. */
static void dear_commands_are_charged(void **state)
{
    struct testhost *h = start(60);
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    keep_lines(1, 60, EPOCH);
    says(h, ana, "oi");
    assert_int_equal(fake.charged, 0);
    says(h, ana, "/join ops");
    assert_int_equal(fake.charged, 1);
    says(h, ana, "/history lobby 1");
    assert_int_equal(fake.charged, 5);
    stop(h);
}

static void failures_are_said(void **state)
{
    struct testhost *h = start(100);
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    keep_lines(1, 100, EPOCH);
    fake.error = -EIO;
    says(h, ana, "/history lobby 20");
    hears(ana, "! history lobby: it cannot be read now");
    fake.error_from = fake.questions + 2;
    says(h, ana, "/history lobby since 0");
    hears_lines(ana, 1, 64, 0);
    hears(ana, "! history lobby: it cannot be read now; it was shown up to 64");
    fake.error = -ENOMEM;
    says(h, ana, "/history lobby 20");
    hears(ana, "! history lobby: the broker is out of memory");
    fake.error = 0;
    fake.refusal = -ENOMEM;
    says(h, ana, "/history lobby 20");
    hears(ana, "! history lobby: the broker is out of memory");
    fake.refusal = 0;
    says(h, ana, "/history lobby 1");
    hears_lines(ana, 100, 100, 0);
    hears(ana, "* history lobby 100: 1 message");
    hears_nothing(ana);
    stop(h);
}

static void what_cannot_be_stored_is_refused_by_room(void **state)
{
    struct testhost *h = start(1);
    struct testhost_conn *ana = enter(h, "tcp");

    (void)state;
    fake_rooms.refuse_code = RODA_E_STORAGE;
    fake_rooms.refuse_text = "not stored: the disk is full; nothing was sent";
    says(h, ana, "oi");
    hears(ana, "! lobby: not stored: the disk is full; nothing was sent");
    says(h, ana, "/msg bob oi");
    hears(ana, "! @bob: not stored: the disk is full; nothing was sent");
    fake_rooms.refuse_text = "";
    says(h, ana, "/topic #ops x");
    hears_a_line_with(ana, "! ops: ");
    stop(h);
}

/* ---- going in the middle ---------------------------------------------------------------- */

static void a_reader_may_go_in_the_middle(void **state)
{
    (void)state;
    for (int turns = 0; turns < 16; turns++) {
        for (int what = 0; what < 4; what++) {
            struct testhost *h = start_with(1500, what & 1 ? "replay_on_join = 100\n" : NULL);
            struct testhost_conn *ana;

            keep_lines(1, 700, EPOCH);
            (void)keep(1500, 1400, LATER_EPOCH, RODA_TEXT, 0, "x");
            ana = testhost_connect(h, 0, "line", what & 2 ? "udp" : "tcp");
            testhost_read(ana, what & 1);
            testhost_input(ana, "/history lobby since 650\n");
            for (int i = 0; i < turns; i++)
                (void)testhost_turn(h);
            testhost_reset(ana);
            assert_true(testhost_run(h));
            stop(h);
        }
    }
}

/* The broker ends while somebody is being told, or waits for it. */
static void the_broker_may_end_in_the_middle(void **state)
{
    (void)state;
    for (int turns = 0; turns < 16; turns++) {
        struct testhost *h = start_with(700, NULL);
        struct testhost_conn *ana;

        keep_lines(1, 700, EPOCH);
        fake.hold = turns % 2;
        ana = testhost_connect(h, 0, "line", "tcp");
        testhost_read(ana, turns % 4 < 2);
        testhost_input(ana, "/history lobby since 0\n");
        for (int i = 0; i < turns; i++)
            (void)testhost_turn(h);
        stop(h);
    }
}

static void memory_may_be_out(void **state)
{
    uint64_t n = 1;

    (void)state;
    for (;; n++) {
        struct testhost *h = start_with(700, NULL);
        uint64_t before, after;
        struct testhost_conn *ana, *udo;

        keep_lines(1, 100, EPOCH);
        (void)keep(700, 300, LATER_EPOCH, RODA_TEXT, 0, "x");
        before = testhost_allocations(h);
        testhost_fail_allocation(h, n);
        ana = testhost_connect(h, 0, "line", "tcp");
        udo = testhost_connect(h, 0, "line", "udp");
        if (ana)
            testhost_input(ana, "/history lobby since 50\n/join ops\n/history ops 50-60\n/ping\n");
        if (udo)
            testhost_input(udo, "/history lobby 20");
        assert_true(testhost_run(h));
        testhost_advance_ms(h, 1000);
        after = testhost_allocations(h);
        stop(h);
        if (after - before < n)
            break;
        assert_true(n < 10000);
    }
    assert_true(n > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_joins_is_shown_what_was_said),
        cmocka_unit_test(each_room_is_shown_in_its_place),
        cmocka_unit_test(where_nothing_is_kept_nothing_is_shown),
        cmocka_unit_test(who_joins_is_told_that_the_room_is_logged),
        cmocka_unit_test(who_joins_is_told_what_else_is_logged),
        cmocka_unit_test(a_datagram_session_is_greeted_and_asks_itself),
        cmocka_unit_test(many_who_come_at_once_are_all_shown),
        cmocka_unit_test(others_may_have_asked_for_all_there_is),
        cmocka_unit_test(so_many_joins_at_once_are_not_shown),
        cmocka_unit_test(the_last_ones_a_range_and_what_came_after),
        cmocka_unit_test(each_kind_is_shown_as_it_was),
        cmocka_unit_test(a_long_answer_says_how_to_go_on),
        cmocka_unit_test(of_a_long_range_the_first_are_shown),
        cmocka_unit_test(what_is_said_meanwhile_comes_behind),
        cmocka_unit_test(a_slow_reader_costs_a_portion),
        cmocka_unit_test(a_slow_reader_is_not_killed_by_many_answers),
        cmocka_unit_test(datagrams_are_not_sent_all_at_once),
        cmocka_unit_test(what_is_not_kept_is_said),
        cmocka_unit_test(what_is_not_kept_behind_the_last_one_is_said),
        cmocka_unit_test(nothing_at_all_may_be_kept),
        cmocka_unit_test(what_a_crash_took_is_said),
        cmocka_unit_test(a_new_epoch_alone_is_no_gap),
        cmocka_unit_test(only_members_may_read),
        cmocka_unit_test(dear_commands_are_charged),
        cmocka_unit_test(failures_are_said),
        cmocka_unit_test(what_cannot_be_stored_is_refused_by_room),
        cmocka_unit_test(a_reader_may_go_in_the_middle),
        cmocka_unit_test(the_broker_may_end_in_the_middle),
        cmocka_unit_test(memory_may_be_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
