/* Metrics: every counter of the core is there once, a plugin's by worker, metrics outermost. */
#include "unit/bus/bench.h"

static const struct roda_metric first_metrics[] = {
    {"first_jokes_total", RODA_COUNTER, "jokes told"},
    {"first_smiles", RODA_GAUGE, "smiles now"},
    {NULL, 0, NULL},
};

struct reading {
    unsigned n, n_metrics;
    const char *names[256];
    const struct roda_metric *last;
    uint32_t next_worker;
    int64_t jokes[3], smiles[3], accepted, connections, submitted, enters;
};

static void read_one(void *arg, const struct roda_metric *metric, const char *plugin,
                     uint32_t worker, int64_t value)
{
    struct reading *r = arg;

    r->n++;
    if (metric != r->last) {
        assert_int_equal(worker, 0);
        for (unsigned i = 0; i < r->n_metrics; i++)
            assert_string_not_equal(r->names[i], metric->name);
        assert_true(r->n_metrics < 256);
        r->names[r->n_metrics++] = metric->name;
        r->last = metric;
        r->next_worker = 0;
        assert_true(strlen(metric->help) > 3);
        assert_true(metric->type == RODA_COUNTER || metric->type == RODA_GAUGE);
        assert_int_equal(metric->type == RODA_COUNTER, /* as Prometheus wants it */
                         strlen(metric->name) > 6 &&
                             !strcmp(metric->name + strlen(metric->name) - 6, "_total"));
    }
    assert_int_equal(worker, r->next_worker++);
    if (!strncmp(metric->name, "first_", 6)) {
        assert_string_equal(plugin, "first");
        (metric->type == RODA_COUNTER ? r->jokes : r->smiles)[worker] = value;
        return;
    }
    assert_string_equal(plugin, "core");
    if (!strcmp(metric->name, "connections_accepted_total"))
        r->accepted += value;
    else if (!strcmp(metric->name, "connections"))
        r->connections += value;
    else if (!strcmp(metric->name, "messages_submitted_total"))
        r->submitted += value;
    else if (!strcmp(metric->name, "ring_enters_total"))
        r->enters += value;
}

static void every_metric_is_read_once_per_worker(void **state)
{
    struct reading r = {0};

    (void)state;
    bench_new(3);
    bench->plugins[FIRST].metrics = first_metrics;
    bench_start();
    struct bench_client *a = bench_connect(0), *b = bench_connect(2);
    bench_say(a, "say 1a x\nsay 1a y");
    bench_close(b);
    bench_settle();
    for (uint32_t w = 0; w < 3; w++) {
        roda_count(bench_ctx(w, FIRST), 0, 10 + w);
        roda_count(bench_ctx(w, FIRST), 1, 5);
        roda_count(bench_ctx(w, FIRST), 1, -(int64_t)w);
    }
    roda_metrics_read(bench_ctx(1, SECOND), read_one, &r);
    for (uint32_t w = 0; w < 3; w++) {
        assert_int_equal(r.jokes[w], 10 + w);
        assert_int_equal(r.smiles[w], 5 - (int64_t)w);
    }
    assert_int_equal(r.n, 3 * r.n_metrics);
    assert_int_equal(r.accepted, 2);
    assert_int_equal(r.connections, 1);
    assert_int_equal(r.submitted, 2);
    assert_true(r.enters > 0);
    bench_forget(a);
    bench_forget(b);
    bench_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_metric_is_read_once_per_worker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
