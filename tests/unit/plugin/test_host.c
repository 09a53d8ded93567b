/* The host: which plugins are loaded, in which order they start and stop, what they offer. Loading
 * is shown with the plugins of this tree, life with descriptors of the test's own. */
#include "unit/bus/bench.h"

#include "conf/conf.h"

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
        TEST(services_are_for_those_that_declared_them),
        TEST(start_follows_needs_and_filters_the_sections),
        TEST(a_protocols_plugin_needs_no_section),
        TEST(what_is_missing_is_named),
        TEST(memory_may_be_out_at_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
