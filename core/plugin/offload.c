#include "plugin/host.h"

#include <errno.h>

#include "base/memory.h"

/* Blocking work of plugins on the pool's threads, bounded per plugin and worker, so that one
 * plugin's flood (logins) cannot keep the others from it. */

#define OFFLOADS_MAX 64u

struct offload {
    struct ring_job job;
    struct context *context;
    void (*work)(void *arg);
    roda_done_fn *done;
    void *arg;
};

static void run_work(struct system_job *job)
{
    struct offload *offload =
        container_of(container_of(job, struct ring_job, job), struct offload, job);

    offload->work(offload->arg);
}

static void run_done(struct ring_job *job)
{
    struct offload *offload = container_of(job, struct offload, job);
    struct context *context = offload->context;

    context->offloads--;
    bus_enter(context->bus, context->name, "offload");
    offload->done(&context->public, offload->arg, context->bus->stopping ? -ECANCELED : 0);
    bus_leave(context->bus);
    memory_free(offload);
}

int roda_offload(struct roda_ctx *x, void (*work)(void *arg), roda_done_fn *done, void *arg)
{
    struct context *context = context_of(x);
    struct offload *offload;
    int r;

    if (context->offloads >= OFFLOADS_MAX)
        return -EAGAIN;
    offload = memory_alloc(sizeof *offload);
    if (!offload)
        return -ENOMEM;
    offload->context = context;
    offload->work = work;
    offload->done = done;
    offload->arg = arg;
    offload->job.job.work = run_work;
    offload->job.done = run_done;
    r = ring_job(context->bus->ring, &offload->job);
    if (r) {
        memory_free(offload);
        return r;
    }
    context->offloads++;
    return 0;
}
