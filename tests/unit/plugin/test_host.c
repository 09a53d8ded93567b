/* The host: which plugins are loaded, in which order they start and stop, what they offer. Loading
 * is shown with the plugins of this tree, life with descriptors of the test's own. */
#include "unit/bus/bench.h"

#include "conf/conf.h"
#include "ring/file.h"

static char log_text[1024];

static void note(struct roda_ctx *x, const char *what)
{
    size_t len = strlen(log_text);

    (void)snprintf(log_text + len, sizeof log_text - len, "%s %s%u%s ", context_of(x)->name, what,
                   x->worker, x->state ? "" : "-");
}

static int begin(void **state)
{
    (void)state;
    log_text[0] = '\0';
    return 0;
}

/* ---- life ------------------------------------------------------------------------------- */

static int fails_in_init, fails_in_start;

static int init(struct roda_ctx *x)
{
    note(x, "init");
    x->shared = (void *)context_of(x)->name;
    return fails_in_init && context_of(x)->instance == 1 + SECOND ? -EPERM : 0;
}

static int start(struct roda_ctx *x)
{
    note(x, "start");
    assert_ptr_equal(x->shared, context_of(x)->name);
    return fails_in_start && context_of(x)->instance == 1 + SECOND ? -EPERM : 0;
}

static void stop(struct roda_ctx *x)
{
    note(x, "stop");
}

static void fini(struct roda_ctx *x)
{
    note(x, "fini");
}

static void with_life(void)
{
    for (unsigned i = FIRST; i <= SECOND; i++) {
        bench->plugins[i].state_size = 8;
        bench->plugins[i].init = init;
        bench->plugins[i].start = start;
        bench->plugins[i].stop = stop;
        bench->plugins[i].fini = fini;
    }
}

static void a_life_in_order(void **state)
{
    (void)state;
    bench_new(2);
    with_life();
    bench_start();
    assert_string_equal(log_text, "first init0- second init0- first start0 second start0 "
                                  "first start1 second start1 ");
    log_text[0] = '\0';
    bench_end();
    assert_string_equal(log_text, "second stop0 first stop0 second stop1 first stop1 "
                                  "second fini0- first fini0- ");
}

/* A host of the bench's descriptors, without a broker. */
static struct host *host_new(void)
{
    struct host *host = memory_alloc(sizeof *host);

    assert_non_null(host);
    host->plugins = memory_alloc(BENCH_PLUGINS * sizeof *host->plugins);
    host->start_order = memory_alloc(BENCH_PLUGINS * sizeof *host->start_order);
    assert_non_null(host->plugins);
    assert_non_null(host->start_order);
    host->n_plugins = BENCH_PLUGINS;
    for (uint32_t i = 0; i < BENCH_PLUGINS; i++) {
        host->plugins[i].loaded.plugin = bench->plugins[i];
        host->plugins[i].loaded.name = bench->plugins[i].name;
        host->plugins[i].instance = i + 1;
        host->start_order[i] = i;
    }
    return host;
}

static void what_init_began_fini_ends(void **state)
{
    char problem[128];

    (void)state;
    bench_new(1);
    with_life();
    struct host *host = host_new();
    fails_in_init = 1;
    assert_int_equal(host_init(host, 2, problem, sizeof problem), -EPERM);
    fails_in_init = 0;
    assert_string_equal(problem, "plugin second: its init failed: Operation not permitted");
    host_free(host);
    assert_string_equal(log_text, "first init0- second init0- first fini0- ");
    host_free(NULL);
    bench_start();
    bench_end();
}

static void a_start_that_fails_stops_what_was_started(void **state)
{
    (void)state;
    bench_new(1);
    with_life();
    bench_start();
    char problem[128];
    struct host *host = bench->broker->host;
    log_text[0] = '\0';
    bench_as(0);
    host_stop(host, bench_bus(0));
    log_text[0] = '\0';
    fails_in_start = 1;
    assert_int_equal(host_start(host, bench_bus(0), problem, sizeof problem), -EPERM);
    fails_in_start = 0;
    assert_string_equal(problem, "plugin second: its start failed: Operation not permitted");
    assert_string_equal(log_text, "first start0 second start0 first stop0 ");
    assert_int_equal(host_start(host, bench_bus(0), problem, sizeof problem), 0);
    bench_done(0);
    bench_end();
}

static void memory_may_be_out_at_init(void **state)
{
    bool failed = true;

    (void)state;
    bench_new(1);
    for (uint64_t n = 1; failed; n++) {
        char problem[128] = "";
        struct host *host = host_new();
        uint64_t before = memory_allocations();
        int r;
        memory_fail_at(n, 0);
        r = host_init(host, 3, problem, sizeof problem);
        failed = memory_allocations() >= before + n;
        memory_fail_at(0, 0);
        assert_int_equal(r, failed ? -ENOMEM : 0);
        assert_string_equal(problem, failed ? "out of memory" : "");
        host_free(host);
    }
    bench_start();
    bench_end();
}

/* ---- starts that go on ------------------------------------------------------------------ */

static uint64_t later_ms[BENCH_PLUGINS]; /* UINT64_MAX: it never ends */
static int later_result;
static uint32_t later_on; /* the worker where it is so */

static unsigned plugin_of(struct roda_ctx *x)
{
    return context_of(x)->instance - 1;
}

static void over(struct roda_ctx *x, void *arg, int result)
{
    (void)arg;
    (void)result;
    note(x, "over");
    roda_started(x, later_result);
}

static int start_later(struct roda_ctx *x)
{
    uint64_t ms = later_ms[plugin_of(x)];

    (void)start(x);
    if (x->worker != later_on)
        return 0;
    if (ms != UINT64_MAX)
        assert_non_null(roda_timer_start(x, ms, 0, over, NULL));
    return RODA_LATER;
}

static void stop_and_start_late(struct roda_ctx *x)
{
    note(x, "stop");
    roda_started(x, -EIO); /* nobody waits for it any more */
}

static void with_later(unsigned plugin, uint32_t worker, uint64_t ms, int result)
{
    with_life();
    later_on = worker;
    later_ms[plugin] = ms;
    later_result = result;
    bench->plugins[plugin].start = start_later;
}

static void the_next_starts_when_it_is_over(void **state)
{
    (void)state;
    bench_new(2);
    with_later(FIRST, 0, 50, 0);
    bench_begin();
    bench_settle();
    assert_string_equal(log_text, "first init0- second init0- first start0 first start1 "
                                  "second start1 ");
    assert_false(broker_running(bench->broker));
    assert_int_equal(bench->broker->phase, PHASE_START);
    bench_pass(60);
    assert_string_equal(strstr(log_text, "first over"), "first over0 second start0 ");
    assert_true(broker_running(bench->broker));
    assert_int_equal(bench->broker->workers[0].net.n_listeners, 1);
    bench_end();
}

static void the_last_start_may_go_on(void **state)
{
    (void)state;
    bench_new(2);
    with_later(SECOND, 1, 50, 0);
    bench_begin();
    bench_settle();
    assert_false(broker_running(bench->broker));
    bench_pass(60);
    assert_true(broker_running(bench->broker));
    bench_end();
}

static void a_start_that_fails_later_ends_the_broker(void **state)
{
    (void)state;
    bench_new(2);
    with_later(FIRST, 1, 50, -EIO);
    bench_begin();
    bench_pass(60);
    assert_true(broker_ended(bench->broker));
    assert_true(bench->broker->failed);
    assert_false(bench->broker->broken);
    assert_string_equal(bench->broker->problem,
                        "plugin first: its start failed: Input/output error");
    assert_string_equal(strstr(log_text, "first over"), "first over1 first stop1 second stop0 "
                                                        "first stop0 ");
    bench_end();
}

static void a_failure_elsewhere_ends_a_start(void **state)
{
    (void)state;
    bench_new(2);
    with_later(FIRST, 0, UINT64_MAX, 0);
    bench->plugins[FIRST].stop = stop_and_start_late;
    bench_begin();
    bench_settle();
    assert_int_equal(bench->broker->phase, PHASE_START);
    broker_fail(bench->broker, "worker 1: %s", "its disk burns");
    bench_settle();
    assert_true(broker_ended(bench->broker));
    assert_string_equal(bench->broker->problem, "worker 1: its disk burns");
    assert_string_equal(strstr(log_text, "second start1"),
                        "second start1 first stop0 second stop1 first stop1 ");
    bench_end();
}

static void who_wants_to_stop_does_not_wait_for_a_start(void **state)
{
    (void)state;
    bench_new(2);
    with_later(FIRST, 0, UINT64_MAX, 0);
    bench_begin();
    bench_settle();
    broker_stop(bench->broker, false);
    bench_settle();
    assert_true(broker_ended(bench->broker));
    assert_false(bench->broker->failed);
    assert_string_equal(strstr(log_text, "second start1"),
                        "second start1 first stop0 second stop1 first stop1 ");
    bench_end();
}

/* What is posted to a plugin that has not started there yet waits; a later start gets items. */
struct greeting {
    struct roda_item item;
};

static void greet(struct roda_ctx *x, struct roda_item *item, int result)
{
    note(x, result == -ECANCELED ? "cancelled" : "item");
    free(container_of(item, struct greeting, item));
    if (context_of(x)->start_result == RODA_LATER)
        roda_started(x, 0);
}

static int start_greeting(struct roda_ctx *x)
{
    struct greeting *g = calloc(1, sizeof *g);

    (void)start(x);
    assert_non_null(g);
    g->item.run = greet;
    roda_post(x, (x->worker + 1) % x->n_workers, &g->item);
    return RODA_LATER;
}

static void items_wait_for_the_start(void **state)
{
    (void)state;
    bench_new(2);
    with_later(FIRST, 1, 50, 0);
    bench->plugins[SECOND].start = start_greeting;
    bench_begin();
    bench_settle();
    assert_string_equal(log_text, "first init0- second init0- first start0 second start0 "
                                  "first start1 ");
    bench_pass(60);
    assert_string_equal(strstr(log_text, "first over"), "first over1 second start1 second item1 "
                                                        "second item0 ");
    assert_true(broker_running(bench->broker));
    bench_end();
}

static void items_for_what_never_started_are_cancelled(void **state)
{
    (void)state;
    bench_new(2);
    with_later(FIRST, 1, 50, -EIO);
    bench->plugins[SECOND].start = start_greeting;
    bench_begin();
    bench_pass(60);
    assert_true(broker_ended(bench->broker));
    assert_non_null(strstr(log_text, "second cancelled1"));
    assert_null(strstr(log_text, "second item1"));
    bench_end();
}

static struct roda_file *file_of[BENCH_WORKERS];

static void file_opened(struct roda_ctx *x, void *arg, struct roda_file *file, int result)
{
    (void)arg;
    assert_int_equal(result, 0);
    note(x, "opened");
    file_of[x->worker] = file;
    roda_started(x, 0);
}

static void directory_made(struct roda_ctx *x, void *arg, int result)
{
    static const char *const paths[] = {"/tmp/kept/0", "/tmp/kept/1"};

    (void)arg;
    assert_int_equal(result, 0);
    assert_int_equal(roda_file_open(x, paths[x->worker], RODA_FILE_APPEND, file_opened, NULL), 0);
}

static int start_with_file(struct roda_ctx *x)
{
    (void)start(x);
    assert_int_equal(roda_directory_make(x, "/tmp/kept", directory_made, NULL), 0);
    return RODA_LATER;
}

static void synced(struct roda_ctx *x, void *arg, int result)
{
    (void)arg;
    note(x, result ? "lost" : "synced");
}

static void stop_with_file(struct roda_ctx *x)
{
    note(x, "stop");
    assert_in_range(roda_file_append(file_of[x->worker], RODA_STR("last words")), 0, 100);
    assert_int_equal(roda_file_sync(file_of[x->worker], synced, NULL), 0);
    roda_file_close(file_of[x->worker]);
}

static void with_files(void)
{
    with_life();
    bench->plugins[FIRST].start = start_with_file;
    bench->plugins[FIRST].stop = stop_with_file;
}

static void a_start_works_with_files_and_the_end_waits_for_them(void **state)
{
    size_t len = 0;

    (void)state;
    bench_new(2);
    with_files();
    bench_start();
    assert_non_null(strstr(log_text, "first opened0"));
    log_text[0] = '\0';
    broker_stop(bench->broker, true); /* a hurry is no reason to lose what was written */
    bench_pass(100);
    assert_true(broker_ended(bench->broker));
    assert_false(bench->broker->failed);
    assert_non_null(strstr(log_text, "first synced0"));
    assert_non_null(strstr(log_text, "first synced1"));
    assert_true(strstr(log_text, "stop1") < strstr(log_text, "first synced0") ||
                strstr(log_text, "stop0") < strstr(log_text, "first synced0"));
    const char *kept = sim_file_get(bench->kernel, "/tmp/kept/1", &len);
    assert_int_equal(len, 10);
    assert_memory_equal(kept, "last words", 10);
    bench_end();
}

/* The kernel holds on to the bytes for an hour: the broker ends all the same, and says so. */
static void the_end_does_not_wait_for_a_disk_that_hangs(void **state)
{
    struct sim_faults faults = sim_faults_none();

    (void)state;
    bench_new(2);
    with_files();
    bench_start();
    faults.disk_min_ns = faults.disk_max_ns = UINT64_C(3600000000000);
    sim_set_faults(bench->kernel, &faults);
    broker_stop(bench->broker, true);
    bench_pass(4900);
    assert_false(broker_ended(bench->broker));
    bench_pass(200);
    assert_true(broker_ended(bench->broker));
    assert_true(bench->broker->broken);
    assert_non_null(strstr(bench->broker->problem, "have not ended for 5 s: the disk hangs"));
    for (unsigned i = 0; i < 3; i++) { /* so that nothing is left over */
        (void)sim_advance_to(bench->kernel, sim_now_ns(bench->kernel) + faults.disk_max_ns);
        bench_turn(0);
        bench_turn(1);
        bench_turn(0);
        bench_turn(1);
    }
    assert_int_equal(files_under_way(bench_worker(0)->files), 0);
    bench_end();
}

/* ---- reopen ----------------------------------------------------------------------------- */

static void reopen(struct roda_ctx *x)
{
    note(x, "reopen");
}

static void files_are_opened_anew_once_all_run(void **state)
{
    (void)state;
    bench_new(2);
    with_later(SECOND, 1, 50, 0);
    bench->plugins[FIRST].reopen = reopen;
    bench_begin();
    bench_settle();
    log_text[0] = '\0';
    broker_reopen(bench->broker);
    bench_settle();
    assert_string_equal(log_text, "");
    bench_pass(60);
    assert_string_equal(log_text, "second over1 first reopen0 first reopen1 ");
    broker_reopen(bench->broker);
    bench_settle();
    assert_string_equal(log_text, "second over1 first reopen0 first reopen1 "
                                  "first reopen0 first reopen1 ");
    broker_stop(bench->broker, false);
    broker_reopen(bench->broker); /* too late, or not: it ends */
    bench_end();
}

/* ---- services --------------------------------------------------------------------------- */

static const int jokes = 7;
static const struct roda_service_table services[] = {{"jokes/1", &jokes}, {NULL, NULL}};
static const char *const needs[] = {"jokes/1", "tears/1?", NULL};

static void services_are_for_those_that_declared_them(void **state)
{
    struct roda_ctx *of = NULL;

    (void)state;
    bench_new(2);
    bench->plugins[FIRST].services = services;
    bench->plugins[SECOND].needs = needs;
    bench_start();
    assert_ptr_equal(roda_service(bench_ctx(1, SECOND), "jokes/1", &of), &jokes);
    assert_ptr_equal(of, bench_ctx(1, FIRST));
    assert_ptr_equal(roda_service(bench_ctx(1, SECOND), "jokes/1", NULL), &jokes);
    assert_null(roda_service(bench_ctx(1, SECOND), "tears/1", &of));
    assert_null(roda_service(bench_ctx(1, SECOND), "tears/1?", &of));
    assert_null(roda_service(bench_ctx(1, SECOND), "jokes", &of));
    assert_null(roda_service(bench_ctx(1, OWNER), "jokes/1", &of));
    bench_end();
}

/* ---- loading ---------------------------------------------------------------------------- */

static char errors_text[4096];

static void keep_error(void *arg, enum conf_severity severity, const char *line)
{
    size_t len = strlen(errors_text);

    (void)arg;
    (void)severity;
    (void)snprintf(errors_text + len, sizeof errors_text - len, "%s\n", line);
}

static struct host *load(const char *text, struct conf **ret_conf)
{
    struct conf_defaults defaults = {.state_dir = "/tmp", .plugin_dir = getenv("RODA_PLUGIN_DIR")};
    struct roda_conf_errors *errors = conf_errors_new();
    struct host *host = NULL;

    errors_text[0] = '\0';
    *ret_conf = NULL;
    if (!errors)
        return NULL;
    if (!conf_load_text("test.conf", text, strlen(text), &defaults, errors, ret_conf))
        (void)host_load(*ret_conf, errors, &host);
    conf_errors_each(errors, keep_error, NULL);
    conf_errors_free(errors);
    return host;
}

static void start_follows_needs_and_filters_the_sections(void **state)
{
    struct conf *conf;
    uint32_t instance = 0;

    (void)state;
    struct host *host = load("[listener a]\nport = 1\nprotocol = line\n[plugin line]\n"
                             "[plugin rooms]\n",
                             &conf);
    assert_string_equal(errors_text, "");
    assert_non_null(host);
    assert_int_equal(host->n_plugins, 2);
    assert_string_equal(host->plugins[0].loaded.name, "line");
    assert_string_equal(host->plugins[1].loaded.name, "rooms");
    assert_int_equal(host->start_order[0], 1);
    assert_int_equal(host->start_order[1], 0);
    assert_ptr_equal(host_find(host, "rooms"), &host->plugins[1]);
    assert_null(host_find(host, "room"));
    assert_non_null(host_protocol(host, "line", &instance));
    assert_int_equal(instance, 1);
    assert_null(host_protocol(host, "lines", &instance));
    host_free(host);
    conf_free(conf);
}

static void a_protocols_plugin_needs_no_section(void **state)
{
    struct conf *conf;

    (void)state;
    struct host *host = load("[listener a]\nport = 1\nprotocol = line\n[plugin rooms]\n", &conf);
    assert_string_equal(errors_text, "");
    assert_non_null(host);
    assert_non_null(host_find(host, "line"));
    host_free(host);
    conf_free(conf);
}

static void expect_problem(const char *text, const char *words)
{
    struct conf *conf;
    struct host *host = load(text, &conf);

    if (!strstr(errors_text, words))
        fail_msg("\"%s\" does not say \"%s\"", errors_text, words);
    host_free(host);
    conf_free(conf);
}

static void what_is_missing_is_named(void **state)
{
    (void)state;
    expect_problem("[plugin nothing-of-this-name]\n", "no such plugin");
    expect_problem("[listener a]\nport = 1\nprotocol = lnie\n[plugin rooms]\n[plugin line]\n",
                   "line");
    expect_problem("[listener a]\nport = 1\nprotocol = line\n", "\"rooms/1\"");
}

static void memory_may_be_out_at_load(void **state)
{
    bool failed = true;

    (void)state;
    for (uint64_t n = 1; failed; n++) {
        struct conf *conf;
        uint64_t before = memory_allocations();
        memory_fail_at(n, 0);
        struct host *host =
            load("[listener a]\nport = 1\nprotocol = line\n[plugin rooms]\n[plugin line]\n", &conf);
        failed = memory_allocations() >= before + n;
        memory_fail_at(0, 0);
        assert_true(failed || host);
        host_free(host);
        conf_free(conf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup(name, begin)
        TEST(a_life_in_order),
        TEST(what_init_began_fini_ends),
        TEST(a_start_that_fails_stops_what_was_started),
        TEST(memory_may_be_out_at_init),
        TEST(the_next_starts_when_it_is_over),
        TEST(the_last_start_may_go_on),
        TEST(a_start_that_fails_later_ends_the_broker),
        TEST(a_failure_elsewhere_ends_a_start),
        TEST(who_wants_to_stop_does_not_wait_for_a_start),
        TEST(items_wait_for_the_start),
        TEST(items_for_what_never_started_are_cancelled),
        TEST(a_start_works_with_files_and_the_end_waits_for_them),
        TEST(the_end_does_not_wait_for_a_disk_that_hangs),
        TEST(files_are_opened_anew_once_all_run),
        TEST(services_are_for_those_that_declared_them),
        TEST(start_follows_needs_and_filters_the_sections),
        TEST(a_protocols_plugin_needs_no_section),
        TEST(what_is_missing_is_named),
        TEST(memory_may_be_out_at_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
