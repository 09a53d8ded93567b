/* Messages and people: the gate for text, one copy, counted references, memory that comes home. */
#include "unit/bus/bench.h"

#include <pthread.h>

#include "bus/current.h"

static struct roda_str str(const char *text)
{
    return (struct roda_str){text, strlen(text)};
}

static void assert_text(struct roda_str text, const char *expected)
{
    assert_int_equal(text.len, strlen(expected));
    assert_memory_equal(text.ptr, expected, text.len);
}

static void a_message_copies_everything_once(void **state)
{
    char key[] = "key", value[] = "value", to[] = "room", text[] = "hello", subject[] = "who";
    struct roda_tag tags[2] = {{str(key), str(value)}, {str("empty"), str("")}};
    struct roda_msg_init init = {.size = sizeof init,
                                 .kind = RODA_TEXT,
                                 .flags = RODA_MSG_ACTION,
                                 .n_tags = 2,
                                 .from = 77,
                                 .token = 88,
                                 .to = str(to),
                                 .subject = str(subject),
                                 .text = str(text),
                                 .tags = tags};
    int error = 5;

    (void)state;
    bench_new(1);
    bench_start();
    bench_as(0);
    struct roda_msg *msg = roda_msg_make(bench_ctx(0, OWNER), &init, &error);
    assert_non_null(msg);
    assert_int_equal(error, 5);
    memset(key, 'x', sizeof key - 1);
    memset(value, 'x', sizeof value - 1);
    memset(to, 'x', sizeof to - 1);
    memset(text, 'x', sizeof text - 1);
    memset(subject, 'x', sizeof subject - 1);
    memset(tags, 0, sizeof tags);
    assert_text(msg->to, "room");
    assert_text(msg->text, "hello");
    assert_text(msg->subject, "who");
    assert_int_equal(msg->n_tags, 2);
    assert_text(msg->tags[0].key, "key");
    assert_text(msg->tags[0].value, "value");
    assert_text(msg->tags[1].key, "empty");
    assert_text(msg->tags[1].value, "");
    assert_int_equal(msg->from, 77);
    assert_int_equal(msg->token, 88);
    assert_int_equal(msg->flags, RODA_MSG_ACTION);
    assert_int_equal(msg->number | msg->prev | msg->epoch, 0);
    assert_ptr_equal(roda_msg_ref(msg), msg);
    roda_msg_unref(msg);
    assert_text(msg->text, "hello");
    roda_msg_unref(msg);
    roda_msg_unref(NULL);
    bench_end();
}

static int error_of(const struct roda_msg_init *init)
{
    int error = 0;
    struct roda_msg *msg = roda_msg_make(bench_ctx(0, OWNER), init, &error);

    roda_msg_unref(msg);
    assert_true(!msg == (error != 0));
    return error;
}

static void the_gate_looks_at_every_field(void **state)
{
    static const char *const bad[] = {"a\rb", "a\nb", "a\x07", "a\xff", "a\xc2\x85"};
    static char big[70000];

    (void)state;
    bench_new(1);
    bench_start();
    bench_as(0);
    memset(big, 'x', sizeof big);
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct roda_str text = str(bad[i]);
        int expected = i == 3 ? -EILSEQ : -EINVAL;
        struct roda_tag key = {text, str("v")}, value = {str("k"), text};
        assert_int_equal(error_of(&(struct roda_msg_init){.kind = RODA_TEXT, .to = text}),
                         expected);
        assert_int_equal(error_of(&(struct roda_msg_init){.kind = RODA_TEXT, .subject = text}),
                         expected);
        assert_int_equal(error_of(&(struct roda_msg_init){.kind = RODA_TEXT, .text = text}),
                         expected);
        assert_int_equal(error_of(
                             &(struct roda_msg_init){.kind = RODA_TEXT, .n_tags = 1, .tags = &key}),
                         expected);
        assert_int_equal(error_of(&(
                             struct roda_msg_init){.kind = RODA_TEXT, .n_tags = 1, .tags = &value}),
                         expected);
    }
    assert_int_equal(error_of(&(struct roda_msg_init){.kind = RODA_TEXT, .text = {"a\0b", 3}}),
                     -EINVAL);
    assert_int_equal(error_of(&(struct roda_msg_init){.kind = RODA_TEXT,
                                                      .flags = RODA_MSG_MULTILINE,
                                                      .text = str("a\nb")}),
                     0);
    assert_int_equal(error_of(&(struct roda_msg_init){.kind = RODA_TEXT,
                                                      .flags = RODA_MSG_MULTILINE,
                                                      .to = str("a\nb")}),
                     -EINVAL);
    assert_int_equal(error_of(&(struct roda_msg_init){.kind = RODA_KIND_MAX + 1}), -EINVAL);
    assert_int_equal(error_of(&(struct roda_msg_init){.kind = RODA_TEXT, .text = {big, 65536}}), 0);
    assert_int_equal(error_of(&(struct roda_msg_init){.kind = RODA_TEXT, .text = {big, 65537}}),
                     -E2BIG);
    assert_int_equal(error_of(&(struct roda_msg_init){.kind = RODA_TEXT,
                                                      .to = {big, 1},
                                                      .text = {big, 65536}}),
                     -E2BIG);
    memory_fail_at(1, 1);
    assert_int_equal(error_of(&(struct roda_msg_init){.kind = RODA_TEXT, .text = {big, 65536}}),
                     -ENOMEM);
    memory_fail_at(0, 0);
    assert_null(roda_msg_make(bench_ctx(0, OWNER),
                              &(struct roda_msg_init){.kind = RODA_TEXT, .text = str("\r")}, NULL));
    bench_end();
}

static void a_person_is_six_texts_and_an_id(void **state)
{
    struct roda_str fields[RODA_PERSON_FIELDS] = {str("ann"),    str(""),    str("host"),
                                                  str("Ann A."), str("tea"), str("line")};
    char most[513];

    (void)state;
    bench_new(1);
    bench_start();
    bench_as(0);
    struct roda_ctx *x = bench_ctx(0, OWNER);
    struct roda_person *ann = roda_person_make(x, 0, fields), *other;
    assert_non_null(ann);
    assert_true(roda_person_id(ann) != 0);
    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++) {
        struct roda_str got = roda_person_get(ann, i);
        assert_int_equal(got.len, fields[i].len);
        assert_memory_equal(got.ptr, fields[i].ptr, got.len);
    }
    assert_int_equal(roda_person_get(ann, RODA_PERSON_FIELDS).len, 0);
    other = roda_person_make(x, roda_person_id(ann), fields);
    assert_int_equal(roda_person_id(other), roda_person_id(ann));
    roda_person_unref(other);
    /* A message keeps its own references. */
    struct roda_msg_init init = {.size = sizeof init, .kind = RODA_NICK, .sender = ann};
    init.after = ann;
    struct roda_msg *msg = roda_msg_make(x, &init, NULL);
    roda_person_unref(ann);
    assert_text(roda_person_get(msg->sender, RODA_PERSON_NICK), "ann");
    assert_ptr_equal(msg->sender, msg->after);
    roda_msg_unref(msg);
    roda_person_unref(NULL);
    /* What does not pass. */
    memset(most, 'x', sizeof most);
    fields[RODA_PERSON_NAME] = (struct roda_str){most, 512};
    other = roda_person_make(x, 1, fields);
    assert_non_null(other);
    roda_person_unref(other);
    fields[RODA_PERSON_NAME].len = 513;
    assert_null(roda_person_make(x, 1, fields));
    fields[RODA_PERSON_NAME] = str("two\nlines");
    assert_null(roda_person_make(x, 1, fields));
    fields[RODA_PERSON_NAME] = str("");
    fields[RODA_PERSON_NICK] = str("");
    assert_null(roda_person_make(x, 1, fields));
    fields[RODA_PERSON_NICK] = str("no nick");
    assert_null(roda_person_make(x, 1, fields));
    bench_end();
}

static size_t in_use(const struct slab_heap *heap)
{
    size_t n = 0;

    for (unsigned i = 0; i < SLAB_CLASSES; i++)
        n += heap->classes[i].in_use;
    return n;
}

/* Freed on another worker: back with that worker's batch, which goes at the end of its turn. */
static void memory_comes_home_from_other_workers(void **state)
{
    struct roda_msg *msgs[50];

    (void)state;
    bench_new(2);
    bench_start();
    bench_as(0);
    size_t before = in_use(&bench_bus(0)->heap);
    for (unsigned i = 0; i < 50; i++)
        msgs[i] = bench_msg(0, RODA_TEXT, "0a",
                            i % 2 ? "short"
                                  : "a text of another size: "
                                    "ssssssssssssssssssssssssssssss");
    assert_int_equal(in_use(&bench_bus(0)->heap), before + 50);
    bench_as(1);
    for (unsigned i = 0; i < 49; i++)
        roda_msg_unref(msgs[i]);
    assert_non_null(bench_bus(1)->batch.chains[0].slab);
    bench_done(1);
    assert_null(bench_bus(1)->batch.chains[0].slab);
    bus_set_current(NULL); /* a thread that is no worker */
    roda_msg_unref(msgs[49]);
    bench_as(0);
    for (unsigned i = 0; i < 50; i++) /* the owner collects them when it needs some */
        msgs[i] = bench_msg(0, RODA_TEXT, "0a",
                            i % 2 ? "short"
                                  : "a text of another size: "
                                    "ssssssssssssssssssssssssssssss");
    assert_int_equal(in_use(&bench_bus(0)->heap), before + 50);
    for (unsigned i = 0; i < 50; i++)
        roda_msg_unref(msgs[i]);
    bench_done(0);
    bench_end();
}

/* Many threads hold the same message and person; the last one frees both. */
struct holder {
    pthread_t thread;
    struct roda_msg *msg;
};

static void *hold_and_drop(void *arg)
{
    struct holder *holder = arg;
    struct roda_msg *msg = holder->msg;
    unsigned seen = 0;

    for (unsigned i = 0; i < 2000; i++) {
        struct roda_msg *mine = roda_msg_ref(msg);
        struct roda_person *person = roda_person_ref(mine->sender);
        seen += mine->text.len == 5 && roda_person_get(person, RODA_PERSON_NICK).len == 3;
        roda_person_unref(person);
        roda_msg_unref(mine);
    }
    roda_msg_unref(msg);
    return (void *)(uintptr_t)seen;
}

static void the_last_of_many_threads_frees(void **state)
{
    struct holder holders[4];
    struct roda_str fields[RODA_PERSON_FIELDS] = {str("ann"), str(""), str(""),
                                                  str(""),    str(""), str("")};

    (void)state;
    bench_new(1);
    bench_start();
    bench_as(0);
    struct roda_msg_init init = {.size = sizeof init, .kind = RODA_TEXT, .text = str("hello")};
    struct roda_person *ann = roda_person_make(bench_ctx(0, OWNER), 0, fields);
    init.sender = ann;
    struct roda_msg *msg = roda_msg_make(bench_ctx(0, OWNER), &init, NULL);
    roda_person_unref(ann);
    for (unsigned i = 0; i < 4; i++) {
        holders[i].msg = roda_msg_ref(msg);
        assert_int_equal(pthread_create(&holders[i].thread, NULL, hold_and_drop, &holders[i]), 0);
    }
    roda_msg_unref(msg);
    for (unsigned i = 0; i < 4; i++) {
        void *seen;
        assert_int_equal(pthread_join(holders[i].thread, &seen), 0);
        assert_int_equal((uintptr_t)seen, 2000);
    }
    bench_end(); /* the slab asserts that all is back */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_copies_everything_once),
        cmocka_unit_test(the_gate_looks_at_every_field),
        cmocka_unit_test(a_person_is_six_texts_and_an_id),
        cmocka_unit_test(memory_comes_home_from_other_workers),
        cmocka_unit_test(the_last_of_many_threads_frees),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
