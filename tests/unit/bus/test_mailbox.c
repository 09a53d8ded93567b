/* Items between workers: their order, their window, receipts, and their end. Threads for what only
 * threads can show. */
#include "unit/bus/bench.h"

#include <pthread.h>

#include "base/list.h"
#include "bus/current.h"

struct post {
    struct roda_item item;
    unsigned n;
};

static char seen[8192];
static uint32_t again; /* so many more times an item posts itself */

static void note(const char *fmt, ...) RODA_PRINTF(1, 2);
static void note(const char *fmt, ...)
{
    size_t len = strlen(seen);
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(seen + len, sizeof seen - len, fmt, args);
    va_end(args);
}

static void expect_seen(const char *text)
{
    assert_string_equal(seen, text);
    seen[0] = '\0';
}

static int begin(void **state)
{
    (void)state;
    seen[0] = '\0';
    again = 0;
    return 0;
}

static void noted(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct post *post = (struct post *)(void *)item;

    assert_ptr_equal(x, bench_ctx(x->worker, FIRST));
    note("%u@%u%s ", post->n, x->worker, result == -ECANCELED ? "!" : "");
    free(post);
}

static struct post *post_new(unsigned n, void (*run)(struct roda_ctx *, struct roda_item *, int),
                             uint32_t bytes)
{
    struct post *post = calloc(1, sizeof *post);

    assert_non_null(post);
    post->item.run = run;
    post->item.bytes = bytes;
    post->n = n;
    return post;
}

static void post(uint32_t from, uint32_t to, unsigned n)
{
    roda_post(bench_ctx(from, FIRST), to, &post_new(n, noted, 0)->item);
}

static void items_run_once_in_the_order_of_posts(void **state)
{
    (void)state;
    bench_new(3);
    bench_start();
    bench_as(0);
    for (unsigned i = 1; i <= 4; i++)
        post(0, 1, i);
    expect_seen(""); /* not before this turn's end */
    bench_done(0);
    expect_seen("1@1 2@1 3@1 4@1 ");
    bench_as(2);
    post(2, 2, 5);
    post(2, 2, 6);
    expect_seen(""); /* nor to oneself inside the call */
    bench_done(2);
    expect_seen("5@2 6@2 ");
    assert_int_equal(bench_bus(0)->counters.items_posted, 4);
    bench_end();
}

static void what_comes_after_comes_after_all_posts_of_the_turn(void **state)
{
    (void)state;
    bench_new(3);
    bench_start();
    bench_as(0);
    roda_post_after(bench_ctx(0, FIRST), 1, &post_new(9, noted, 0)->item);
    roda_post_after(bench_ctx(0, FIRST), 0, &post_new(8, noted, 0)->item);
    roda_post_after(bench_ctx(0, FIRST), 1, &post_new(7, noted, 0)->item);
    post(0, 1, 1);
    post(0, 0, 2);
    bench_done(0);
    expect_seen("2@0 8@0 1@1 9@1 7@1 ");
    bench_end();
}

static void posts_itself_again(struct roda_ctx *x, struct roda_item *item, int result)
{
    (void)result;
    if (again && again--)
        roda_post(x, x->worker, item);
    else
        free(item);
}

/* Long work in pieces: others are served between them. */
static void who_posts_to_himself_without_end_does_not_stop_the_loop(void **state)
{
    (void)state;
    bench_new(2);
    bench_start();
    struct bench_client *c = bench_connect(0);
    again = 100000;
    bench_as(0);
    roda_post(bench_ctx(0, FIRST), 0, &post_new(0, posts_itself_again, 0)->item);
    bench_turn(0);
    assert_true(again > 90000);
    assert_false(mailbox_idle(bench_bus(0)));
    bench_say(c, "say 1a hello");
    for (unsigned i = 0; i < 40; i++) {
        (void)sim_advance_to(bench->kernel, sim_now_ns(bench->kernel) + 100000);
        bench_turn(0);
        bench_turn(1);
    }
    bench_read(c);
    assert_string_equal(c->in, "=1 0 #1\n");
    assert_true(again > 10000);
    c->len = 0;
    again = 0;
    bench_settle();
    bench_forget(c);
    bench_end();
}

/* Round and round, then tells: the last round stays for the next turn. */
static void at_last(struct roda_ctx *x, struct roda_item *item, int result)
{
    if (again && again--)
        roda_post(x, x->worker, item);
    else
        noted(x, item, result);
}

static void what_is_left_of_a_turn_is_older_than_the_mailbox(void **state)
{
    (void)state;
    for (unsigned rounds = 1; rounds < 400; rounds++) {
        seen[0] = '\0';
        bench_new(2);
        bench_start();
        again = rounds;
        bench_as(0);
        roda_post(bench_ctx(0, FIRST), 0, &post_new(1, at_last, 0)->item);
        bench_turn(0);
        bool left = !seen[0];
        bool last_round = left && !again;
        bench_as(1);
        post(1, 0, 2);
        bench_turn(1);
        bench_settle();
        if (last_round)
            expect_seen("1@0 2@0 ");
        seen[0] = '\0';
        bench_end();
        if (last_round)
            return;
    }
    fail_msg("no number of rounds left exactly one");
}

/* Its sender has not pushed to everybody yet: what this item causes could overtake the others. */
static void nothing_runs_before_its_sender_has_pushed_to_all(void **state)
{
    (void)state;
    bench_new(3);
    bench_start();
    bench_as(1);
    post(1, 0, 1);
    (void)mailbox_flush(bench_bus(1));
    assert_int_equal(bench_bus(1)->mailboxes[1].pushing & 1, 0);
    bench_bus(1)->mailboxes[1].pushing++;
    bench_as(2);
    post(2, 0, 2);
    (void)mailbox_flush(bench_bus(2));
    bench_as(0);
    assert_false(mailbox_drain(bench_bus(0)));
    assert_false(mailbox_idle(bench_bus(0)));
    expect_seen(""); /* nor what came after it */
    /* What comes meanwhile is older than the next input: both are run before it. */
    bench_as(2);
    post(2, 0, 3);
    (void)mailbox_flush(bench_bus(2));
    bench_as(0);
    bench_bus(1)->mailboxes[1].pushing++;
    assert_true(mailbox_drain(bench_bus(0)));
    expect_seen("1@0 2@0 3@0 ");
    bench_done(0);
    bench_end();
}

/* ---- windows ---------------------------------------------------------------------------- */

static void receipts_are_withheld_while_a_worker_lags(void **state)
{
    (void)state;
    bench_new(3);
    bench_start();
    struct bench_client *c = bench_connect(1);
    bench_as(0); /* 12 MB for worker 2, which does not run */
    for (unsigned i = 0; i < 12; i++)
        roda_post(bench_ctx(0, FIRST), 2, &post_new(i, noted, 1u << 20)->item);
    bench_turn(0);
    assert_int_equal(bus_outstanding(bench_bus(0), 2), 12u << 20);
    bench_say(c, "say 0a hello\nping");
    for (unsigned i = 0; i < 20; i++) { /* everybody but worker 2 */
        (void)sim_advance_to(bench->kernel, sim_now_ns(bench->kernel) + 100000);
        bench_turn(0);
        bench_turn(1);
    }
    bench_read(c);
    assert_string_equal(c->in, "=1 0 #1\n"); /* the answer is there; the receipt is not */
    assert_int_equal(bench_counter(under_way), 1);
    assert_int_equal(bench_bus(0)->counters.receipts_withheld, 1);
    assert_true(mailbox_idle(bench_bus(0))); /* it has nothing to do, and may sleep */
    assert_true(mailbox_quiet(bench_bus(0)));
    bench_expect(c, "=1 0 #1\npong\n"); /* worker 2 catches up and wakes worker 0 */
    assert_int_equal(bench_counter(under_way), 0);
    bench_forget(c);
    bench_end();
}

/* The receiver catches up after this worker has looked, and before it sleeps: nobody will wake it
 * then, so it must not sleep. */
static void who_waits_for_a_window_looks_again_before_it_sleeps(void **state)
{
    (void)state;
    bench_new(2);
    bench_start();
    bench_as(0);
    for (unsigned i = 0; i < 9; i++)
        roda_post(bench_ctx(0, FIRST), 1, &post_new(i, noted, 1u << 20)->item);
    roda_post_after(bench_ctx(0, FIRST), 1, &post_new(99, noted, 0)->item);
    (void)mailbox_flush(bench_bus(0));
    assert_true(bench_bus(0)->receipts_held);
    assert_true(mailbox_quiet(bench_bus(0)));
    bench_as(1);
    assert_true(mailbox_drain(bench_bus(1)));
    assert_false(mailbox_quiet(bench_bus(0)));
    bench_done(0);
    expect_seen("0@1 1@1 2@1 3@1 4@1 5@1 6@1 7@1 8@1 99@1 ");
    bench_end();
}

static void more_receipts_than_an_item_holds(void **state)
{
    struct bench_client *c[70];

    (void)state;
    bench_new(2);
    bench_start();
    for (unsigned i = 0; i < 70; i++)
        c[i] = bench_connect(0);
    for (unsigned i = 0; i < 70; i++)
        bench_say(c[i], "say 1a one\nsay 1a two");
    bench_settle();
    assert_int_equal(bench_counter(under_way), 0);
    assert_int_equal(bench_counter(receipts), 140);
    assert_int_equal(bench_bus(0)->outboxes[1].routed_bytes, 0);
    for (unsigned i = 0; i < 70; i++) {
        assert_int_equal(bench_count(c[i], "="), 2);
        bench_forget(c[i]);
    }
    bench_end();
}

static void heavy(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination)
{
    (void)msg;
    (void)destination;
    bench_bus(x->worker)->appended += 10000; /* as so many members */
}

static void a_drain_ends_when_it_has_delivered_enough(void **state)
{
    (void)state;
    bench_new(2);
    bench->distributed = heavy;
    bench_start();
    struct bench_client *a = bench_connect(0), *b = bench_connect(1);
    for (unsigned i = 0; i < 10; i++)
        bench_say(a, "say 0a x");
    while (bench_bus(0)->counters.messages_published < 10)
        bench_turn(0);
    bench_say(b, "say 1a x");
    (void)sim_advance_to(bench->kernel, sim_now_ns(bench->kernel) + 1000000);
    bench_turn(1);
    assert_int_equal(bench_bus(1)->counters.turns_unfinished, 1);
    assert_null(bench_lane(1, 'a')); /* no input is handled in such a turn */
    bench_expect(b, "=1 0 #1\n");
    assert_int_equal(bench_bus(1)->counters.turns_unfinished, 4);
    bench_forget(a);
    bench_forget(b);
    bench_end();
}

/* ---- the end ---------------------------------------------------------------------------- */

static void items_that_are_left_are_cancelled(void **state)
{
    (void)state;
    bench_new(2);
    bench_start();
    bench_as(0);
    post(0, 1, 1);
    post(0, 0, 2);
    roda_post_after(bench_ctx(0, FIRST), 1, &post_new(3, noted, 0)->item);
    assert_int_equal(roda_inject(bench_ctx(0, FIRST), &post_new(4, noted, 0)->item), 0);
    mailbox_cancel(bench_bus(0));
    assert_non_null(strstr(seen, "2@0! "));
    assert_non_null(strstr(seen, "4@0! "));
    assert_int_equal(strlen(seen), 4 * strlen("1@0! "));
    seen[0] = '\0';
    /* From now on nothing runs as if the plugin were alive. */
    bench_as(1);
    post(1, 0, 5);
    bench_done(1);
    expect_seen("5@0! ");
    bench_bus(0)->cancelling = false;
    bench_end();
}

static void injected_items_run_or_are_refused(void **state)
{
    (void)state;
    bench_new(2);
    bench_start();
    struct post *late = post_new(2, noted, 0);
    assert_int_equal(roda_inject(bench_ctx(1, FIRST), &post_new(1, noted, 0)->item), 0);
    bench_settle();
    expect_seen("1@1 ");
    bench_bus(1)->mailboxes[1].closed = true;
    assert_int_equal(roda_inject(bench_ctx(1, FIRST), &late->item), -ESHUTDOWN);
    free(late);
    bench_bus(1)->mailboxes[1].closed = false;
    bench_end();
}

/* ---- threads ---------------------------------------------------------------------------- */

/* Workers without a loop: real mailboxes, drained by real threads. Worker 0 tells worker 2 of a
 * cause and then worker 1, which tells worker 2 of the effect. Also, every message is made by one
 * worker and given back by another. */
#define CAUSES 20000u

struct crowd_item {
    struct roda_item item;
    struct roda_msg *msg;
    uint32_t number;
};

static struct {
    struct mailbox *mailboxes;
    struct ring rings[3];
    struct net nets[3];
    struct bus buses[3];
    uint32_t causes, effects; /* worker 2's */
    uint32_t too_early;
    _Atomic bool done;
} crowd;

static void crowd_cause(struct roda_ctx *x, struct roda_item *item, int result);
static void crowd_effect(struct roda_ctx *x, struct roda_item *item, int result);

static void crowd_post(struct roda_ctx *x, uint32_t to, uint32_t number, struct roda_msg *msg,
                       void (*run)(struct roda_ctx *, struct roda_item *, int))
{
    struct bus *bus = context_of(x)->bus;
    struct crowd_item *item = slab_heap_get(&bus->heap, sizeof *item);

    assert_non_null(item);
    *item = (struct crowd_item){.item = {.run = run, .bytes = 100}, .number = number, .msg = msg};
    bus_post(bus, to, 0, &item->item, false);
}

static void crowd_cause(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct crowd_item *cause = (struct crowd_item *)(void *)item;
    struct bus *bus = context_of(x)->bus;

    (void)result;
    if (bus->worker == 1)
        crowd_post(x, 2, cause->number, roda_msg_ref(cause->msg), crowd_effect);
    else
        crowd.causes = cause->number;
    roda_msg_unref(cause->msg);
    slab_heap_put(&bus->heap, &bus->batch, cause);
}

static void crowd_effect(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct crowd_item *effect = (struct crowd_item *)(void *)item;
    struct bus *bus = context_of(x)->bus;

    (void)result;
    crowd.too_early += crowd.causes < effect->number;
    crowd.effects++;
    roda_msg_unref(effect->msg);
    slab_heap_put(&bus->heap, &bus->batch, effect);
}

static void *crowd_relay(void *arg)
{
    struct bus *bus = arg;

    bus_set_current(bus);
    while (!crowd.done) {
        (void)mailbox_drain(bus);
        (void)mailbox_flush(bus);
        if (bus->worker == 2 && crowd.effects == CAUSES)
            crowd.done = true;
    }
    bus_set_current(NULL);
    return NULL;
}

static void *crowd_source(void *arg)
{
    struct bus *bus = arg;
    struct roda_ctx *x = &bus->core.public;

    bus_set_current(bus);
    for (uint32_t i = 1; i <= CAUSES;) {
        if (bus_outstanding(bus, 1) + bus_outstanding(bus, 2) > 100000) {
            (void)mailbox_drain(bus);
            continue; /* a window, so that memory stays small */
        }
        for (unsigned n = 0; n < 1 + i % 5 && i <= CAUSES; n++, i++) {
            struct roda_msg_init init = {.size = sizeof init, .kind = RODA_TEXT, .text = {"x", 1}};
            struct roda_msg *msg = roda_msg_make(x, &init, NULL);
            crowd_post(x, 2, i, roda_msg_ref(msg), crowd_cause);
            crowd_post(x, 1, i, msg, crowd_cause);
        }
        (void)mailbox_flush(bus);
    }
    while (!crowd.done)
        (void)mailbox_drain(bus);
    bus_set_current(NULL);
    return NULL;
}

static void no_effect_comes_before_its_cause(void **state)
{
    static struct context *contexts[3][1];
    pthread_t threads[3];

    (void)state;
    memset(&crowd, 0, sizeof crowd);
    assert_int_equal(mailboxes_new(3, &crowd.mailboxes), 0);
    for (uint32_t w = 0; w < 3; w++) {
        struct bus_options options = {.worker = w,
                                      .n_workers = 3,
                                      .net = &crowd.nets[w],
                                      .ring = &crowd.rings[w],
                                      .mailboxes = crowd.mailboxes};
        crowd.rings[w].system = system_real(); /* never entered: nobody sleeps */
        crowd.mailboxes[w].ring = &crowd.rings[w];
        assert_int_equal(bus_init(&crowd.buses[w], &options), 0);
        contexts[w][0] = &crowd.buses[w].core;
        crowd.buses[w].contexts = contexts[w];
        crowd.buses[w].n_contexts = 1;
    }
    for (uint32_t w = 0; w < 3; w++)
        assert_int_equal(pthread_create(&threads[w], NULL, w ? crowd_relay : crowd_source,
                                        &crowd.buses[w]),
                         0);
    for (uint32_t w = 0; w < 3; w++)
        assert_int_equal(pthread_join(threads[w], NULL), 0);
    assert_int_equal(crowd.effects, CAUSES);
    assert_int_equal(crowd.causes, CAUSES);
    assert_int_equal(crowd.too_early, 0);
    for (uint32_t w = 0; w < 3; w++) {
        slab_batch_flush(&crowd.buses[w].batch);
        assert_true(chain_empty(&crowd.mailboxes[w].chain));
    }
    /* What went from worker to worker came back: memory did not grow with the messages. */
    assert_true(slab_heap_bytes(&crowd.buses[0].heap) < 4u << 20);
    for (uint32_t w = 0; w < 3; w++) {
        crowd.buses[w].contexts = NULL;
        bus_deinit(&crowd.buses[w]);
    }
    mailboxes_free(crowd.mailboxes, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup(name, begin)
        TEST(items_run_once_in_the_order_of_posts),
        TEST(what_comes_after_comes_after_all_posts_of_the_turn),
        TEST(who_posts_to_himself_without_end_does_not_stop_the_loop),
        TEST(what_is_left_of_a_turn_is_older_than_the_mailbox),
        TEST(nothing_runs_before_its_sender_has_pushed_to_all),
        TEST(receipts_are_withheld_while_a_worker_lags),
        TEST(who_waits_for_a_window_looks_again_before_it_sleeps),
        TEST(more_receipts_than_an_item_holds),
        TEST(a_drain_ends_when_it_has_delivered_enough),
        TEST(items_that_are_left_are_cancelled),
        TEST(injected_items_run_or_are_refused),
        TEST(no_effect_comes_before_its_cause),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
