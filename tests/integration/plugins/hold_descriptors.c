/*
 * Opens descriptors until none is free, but for `leave`: at start (worker 0), or when a text is
 * "hold"; "release" gives them back. Both texts are rejected, with how many. It goes past the core
 * on purpose: it stands for whatever else in a process uses descriptors up.
 */
#include <fcntl.h>
#include <unistd.h>

#include "text.h"

struct hold_conf {
    int at_start;
    int64_t leave;
};

struct hold_state {
    int *fds;
    size_t n, capacity;
};

static const struct roda_option options[] = {
    {.name = "at_start",
     .type = RODA_T_BOOL,
     .offset = offsetof(struct hold_conf, at_start),
     .initial = "no",
     .help = "hold them before listeners open"},
    {.name = "leave",
     .type = RODA_T_INT,
     .offset = offsetof(struct hold_conf, leave),
     .initial = "0",
     .max = 1000000,
     .help = "how many stay free"},
    {.name = NULL},
};

static int keep(struct roda_ctx *x, struct hold_state *state, int fd)
{
    if (state->n == state->capacity) {
        size_t capacity = state->capacity ? 2 * state->capacity : 256;
        int *fds = roda_realloc(x, state->fds, capacity * sizeof(*fds));

        if (!fds)
            return -1;
        state->fds = fds;
        state->capacity = capacity;
    }
    state->fds[state->n++] = fd;
    return 0;
}

static void release(struct hold_state *state, size_t left)
{
    while (state->n > left)
        (void)close(state->fds[--state->n]);
}

static size_t hold(struct roda_ctx *x)
{
    const struct hold_conf *conf = x->conf;
    struct hold_state *state = x->state;
    size_t leave = (size_t)conf->leave;
    int fd;

    while ((fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) {
        if (keep(x, state, fd)) {
            (void)close(fd);
            break;
        }
    }
    release(state, state->n > leave ? state->n - leave : 0);
    roda_log(x, RODA_LOG_INFO, "holds %zu descriptors", state->n);
    return state->n;
}

static int hold_start(struct roda_ctx *x)
{
    const struct hold_conf *conf = x->conf;

    if (conf->at_start && !x->worker)
        (void)hold(x);
    return 0;
}

static void hold_stop(struct roda_ctx *x)
{
    struct hold_state *state = x->state;

    release(state, 0);
    roda_free(x, state->fds);
}

static roda_verdict hold_submit(struct roda_ctx *x, struct roda_event *ev)
{
    struct hold_state *state = x->state;
    size_t n = state->n;

    if (text_is(ev->msg, "hold"))
        return roda_reject(ev, RODA_E_FULL, "%zu descriptors are held", hold(x));
    if (text_is(ev->msg, "release")) {
        release(state, 0);
        return roda_reject(ev, RODA_E_FULL, "%zu descriptors are given back", n);
    }
    return RODA_PASS;
}

RODA_PLUGIN(.name = "hold_descriptors", .summary = "leaves no descriptor free", .version = "1",
            .conf_size = sizeof(struct hold_conf), .state_size = sizeof(struct hold_state),
            .options = options, .start = hold_start, .stop = hold_stop, .submit = hold_submit);
