#include "whole_broker.h"

#include <stdlib.h>

#include "bus/current.h"
#include "conf/conf.h"
#include "plugin/host.h"

static void show_error(void *arg, enum conf_severity severity, const char *line)
{
    (void)arg;
    (void)severity;
    fprintf(stderr, "%s\n", line);
}

bool whole_broker_new(struct sim_kernel *kernel, const char *conf_text, size_t length,
                      struct broker **ret_broker)
{
    struct conf_defaults defaults = {.state_dir = "/tmp", .plugin_dir = getenv("RODA_PLUGIN_DIR")};
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = NULL;
    struct host *host = NULL;
    struct broker *broker = NULL;
    char problem[512] = "";
    bool ok;

    ok = !conf_load_text("sim.conf", conf_text, length, &defaults, errors, &conf) &&
         !host_load(conf, errors, &host);
    if (ok)
        conf_check_leftovers(conf, errors);
    ok = ok && !conf_errors_result(errors) &&
         !broker_new(sim_system(kernel), conf, host, errors, &broker, problem, sizeof problem) &&
         !broker_bind(broker, errors) && !broker_make_workers(broker, problem, sizeof problem);
    conf_errors_each(errors, show_error, NULL);
    conf_errors_free(errors);
    for (uint32_t i = 0; ok && i < broker->n_workers; i++) {
        struct worker *worker = &broker->workers[i];
        sim_turn_begin(kernel, &worker->ring);
        ok = !worker_enable(worker, problem, sizeof problem);
        sim_turn_end(kernel, &worker->ring);
    }
    if (problem[0])
        fprintf(stderr, "%s\n", problem);
    *ret_broker = broker;
    return ok;
}

void whole_broker_free(struct broker *broker)
{
    struct conf *conf = broker->conf;

    bus_set_current(NULL); /* the end is nobody's turn */
    broker_free(broker);
    conf_free(conf);
}

uint32_t whole_broker_ready(const struct sim_kernel *kernel, const struct broker *broker,
                            uint32_t ret_ready[WHOLE_BROKER_WORKERS_MAX])
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < broker->n_workers; i++)
        if (!broker->workers[i].ended && sim_ring_ready(kernel, &broker->workers[i].ring))
            ret_ready[n++] = i;
    return n;
}

void whole_broker_turn(struct sim_kernel *kernel, struct worker *worker)
{
    sim_turn_begin(kernel, &worker->ring);
    (void)worker_turn(worker, true);
    sim_turn_end(kernel, &worker->ring);
}

bool whole_broker_ended(const struct broker *broker)
{
    for (uint32_t i = 0; i < broker->n_workers; i++)
        if (!broker->workers[i].ended)
            return false;
    return true;
}
