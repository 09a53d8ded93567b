#include "base/chain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

struct note {
    struct chain_node node; /* first: a node is its note */
    int thread, number;
};

static void test_comes_out_oldest_first(void **state)
{
    (void)state;
    struct chain c = {NULL};
    struct chain_node nodes[6];
    assert_true(chain_empty(&c));
    assert_null(chain_take(&c));
    assert_true(chain_push(&c, &nodes[0], &nodes[0]));
    assert_false(chain_push(&c, &nodes[1], &nodes[1]));
    /* A whole chain: 4 is the newest, 2 the oldest. */
    nodes[4].next = &nodes[3];
    nodes[3].next = &nodes[2];
    assert_false(chain_push(&c, &nodes[4], &nodes[2]));
    assert_false(chain_empty(&c));
    struct chain_node *node = chain_take(&c);
    for (int i = 0; i <= 4; i++, node = node->next)
        assert_ptr_equal(node, &nodes[i]);
    assert_null(node);
    assert_true(chain_empty(&c));
    assert_null(chain_take(&c));
    assert_true(chain_push(&c, &nodes[5], &nodes[5]));
    assert_ptr_equal(chain_take(&c), &nodes[5]);
}

/* ---- many push, one takes: nothing is lost, each thread's order is kept ----------------- */

enum { PUSHERS = 4, NOTES = 20000, BATCH_MOST = 5 };

struct pusher {
    struct chain *chain;
    struct note *notes;
    int thread, was_empty;
};

static void *push_all(void *arg)
{
    struct pusher *p = arg;
    int i = 0;
    while (i < NOTES) {
        int n = 1 + i % BATCH_MOST;
        if (n > NOTES - i)
            n = NOTES - i;
        for (int k = 0; k < n; k++) {
            p->notes[i + k].thread = p->thread;
            p->notes[i + k].number = i + k;
            if (k)
                p->notes[i + k].node.next = &p->notes[i + k - 1].node;
        }
        p->was_empty += chain_push(p->chain, &p->notes[i + n - 1].node, &p->notes[i].node);
        i += n;
    }
    return NULL;
}

static void test_many_push(void **state)
{
    (void)state;
    struct chain c = {NULL};
    struct pusher pushers[PUSHERS];
    pthread_t threads[PUSHERS];
    int next[PUSHERS] = {0}, taken = 0, took = 0, wrong = 0, was_empty = 0;
    for (int i = 0; i < PUSHERS; i++) {
        pushers[i] = (struct pusher){&c, calloc(NOTES, sizeof(struct note)), i, 0};
        assert_non_null(pushers[i].notes);
        assert_int_equal(pthread_create(&threads[i], NULL, push_all, &pushers[i]), 0);
    }
    while (taken < PUSHERS * NOTES) {
        struct chain_node *node = chain_take(&c);
        took += node != NULL;
        if (!node)
            sched_yield();
        for (; node; node = node->next, taken++) {
            const struct note *note = (const struct note *)(const void *)node;
            wrong += note->number != next[note->thread]++;
        }
    }
    for (int i = 0; i < PUSHERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        was_empty += pushers[i].was_empty;
        free(pushers[i].notes);
    }
    assert_int_equal(wrong, 0);
    assert_true(chain_empty(&c));
    /* Who finds it empty must wake the reader: exactly one per time that it was emptied. */
    assert_int_equal(was_empty, took);
}

/* ---- cause before effect: A tells W, then H; H, told by A, tells W ---------------------- */

enum { ROUNDS = 100000 };

struct post {
    struct chain worker, helper;
    struct note *causes, *calls, *effects;
};

static void *cause(void *arg)
{
    struct post *post = arg;
    for (int i = 0; i < ROUNDS; i++) {
        post->causes[i].number = i;
        chain_push(&post->worker, &post->causes[i].node, &post->causes[i].node);
        post->calls[i].number = i;
        chain_push(&post->helper, &post->calls[i].node, &post->calls[i].node);
    }
    return NULL;
}

static void *effect(void *arg)
{
    struct post *post = arg;
    for (int done = 0; done < ROUNDS;) {
        struct chain_node *node = chain_take(&post->helper);
        if (!node)
            sched_yield();
        for (; node; node = node->next, done++) {
            int i = ((const struct note *)(const void *)node)->number;
            post->effects[i].number = i;
            post->effects[i].thread = 1;
            chain_push(&post->worker, &post->effects[i].node, &post->effects[i].node);
        }
    }
    return NULL;
}

static void test_causes_before_effects(void **state)
{
    (void)state;
    struct note *notes = calloc((size_t)3 * ROUNDS, sizeof(*notes));
    assert_non_null(notes);
    struct post post = {.causes = notes, .calls = notes + ROUNDS, .effects = notes + 2 * ROUNDS};
    int causes = 0, effects = 0, early = 0, disorder = 0;
    pthread_t a, h;
    assert_int_equal(pthread_create(&a, NULL, cause, &post), 0);
    assert_int_equal(pthread_create(&h, NULL, effect, &post), 0);
    while (causes + effects < 2 * ROUNDS) {
        struct chain_node *node = chain_take(&post.worker);
        if (!node)
            sched_yield();
        for (; node; node = node->next) {
            const struct note *note = (const struct note *)(const void *)node;
            if (note->thread == 0) {
                disorder += note->number != causes++;
                continue;
            }
            disorder += note->number != effects++;
            early += note->number >= causes;
        }
    }
    assert_int_equal(pthread_join(a, NULL), 0);
    assert_int_equal(pthread_join(h, NULL), 0);
    free(notes);
    assert_int_equal(early, 0);
    assert_int_equal(disorder, 0);
    assert_int_equal(causes, ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comes_out_oldest_first),
        cmocka_unit_test(test_many_push),
        cmocka_unit_test(test_causes_before_effects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
