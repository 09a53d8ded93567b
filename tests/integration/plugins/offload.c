/*
 * "offload" waits for work on the core's pool and is then refused with what the work found out:
 * whether it ran on another thread. "offload flood" starts 100 at once and says how many were
 * taken.
 */
#include <pthread.h>
#include <time.h>

#include "text.h"

struct job {
    pthread_t starter;
    uint64_t ticket;
    int other_thread;
};

enum { DONE, CANCELLED };
static const struct roda_metric metrics[] = {
    [DONE] = {"offload_done_total", RODA_COUNTER, "work that came back"},
    [CANCELLED] = {"offload_cancelled_total", RODA_COUNTER, "work that shutdown cancelled"},
    {.name = NULL},
};

static void work(void *arg)
{
    struct job *job = arg;
    struct timespec wait = {.tv_nsec = 10000000};

    job->other_thread = !pthread_equal(pthread_self(), job->starter);
    (void)nanosleep(&wait, NULL);
}

static void done(struct roda_ctx *x, void *arg, int result)
{
    struct job *job = arg;

    roda_count(x, result ? CANCELLED : DONE, 1);
    if (job->ticket)
        (void)roda_resume(x, job->ticket, RODA_REJECT, RODA_E_ARGUMENT,
                          job->other_thread ? RODA_STR("worked on another thread")
                                            : RODA_STR("worked on this thread"));
    roda_free(x, job);
}

static struct job *begin(struct roda_ctx *x)
{
    struct job *job = roda_alloc(x, sizeof *job);

    if (!job)
        return NULL;
    job->starter = pthread_self();
    if (!roda_offload(x, work, done, job))
        return job;
    roda_free(x, job);
    return NULL;
}

static roda_verdict offload_submit(struct roda_ctx *x, struct roda_event *ev)
{
    struct job *job;
    int taken = 0;

    if (text_is(ev->msg, "offload flood")) {
        for (int i = 0; i < 100; i++)
            taken += begin(x) != NULL;
        return roda_reject(ev, RODA_E_FULL, "%d of 100 taken", taken);
    }
    if (!text_is(ev->msg, "offload") || !ev->conn)
        return RODA_PASS;
    job = begin(x);
    if (!job)
        return roda_reject(ev, RODA_E_FULL, "too much work");
    return roda_defer(ev, &job->ticket);
}

RODA_PLUGIN(.name = "offload", .summary = "works elsewhere", .version = "1", .metrics = metrics,
            .submit = offload_submit);
