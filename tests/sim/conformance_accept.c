#include "conformance.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* Scripts: accepting, and how it stops. */

void script_accept(struct world *w)
{
    int l = listening(w);
    struct far f[3];

    arm_accept(w, l, 1, true);
    step(w, "armed", 0);
    f[0] = far_connect(w);
    f[1] = far_connect(w);
    settle(w, "two clients", 2);
    for (unsigned i = 0; i < w->n_done; i++)
        gone(w, w->done[i].result);
    w->n_done = 0;
    far_say(&f[0]);
    far_say(&f[1]);
    arm_accept(w, l, 2, false);
    cancel(w, 1, -1, RING_USER_DATA(RING_ACCEPT, 0, 1), 0);
    step(w, "cancelled", 2);
    f[2] = far_connect(w);
    settle(w, "once", 1);
    gone(w, w->done[0].result);
    w->n_done = 0;
    arm_accept(w, l, 3, true);
    step(w, "armed", 0);
    shut(w, l, SHUT_RDWR);
    step(w, "shut", 1);
    arm_accept(w, l, 4, true);
    step(w, "armed again", 1);
    for (unsigned i = 0; i < 3; i++)
        far_close(&f[i]);
    f[0] = far_connect(w);
    if (f[0].c) { /* the real one is told by connect() */
        char byte;
        f[0].fd = far_read(&f[0], &byte, 1);
    }
    say_result(w, "connect", f[0].fd);
    far_close(&f[0]);
    listener_gone(w, l);
}

void script_accept_on_a_closed_listener(struct world *w)
{
    int l = listening(w);
    struct far f;

    arm_accept(w, l, 1, true);
    step(w, "armed", 0);
    gone(w, l);
    f = far_connect(w);
    settle(w, "still accepts", 1);
    gone(w, w->done[0].result);
    w->n_done = 0;
    far_say(&f);
    far_close(&f);
    cancel(w, 1, -1, 0, IORING_ASYNC_CANCEL_ANY);
    /* The wake-up's read goes too: two. */
    step(w, "cancelled", 2);
    if (family == AF_UNIX) {
        union any_address a;
        stream_address(w, &a);
        w->sys->unlink(w->sys->kernel, a.local.sun_path);
    }
}

void script_clients_of_a_shut_listener(struct world *w)
{
    int l = listening(w);
    struct far f = far_connect(w);

    step(w, "connected", 0);
    listener_gone(w, l);
    far_say(&f);
    far_close(&f);
}

/* The table is full up to the highest descriptor: accept says so, client or not. */
void script_accept_with_a_full_table(struct world *w)
{
    int l = listening(w);
    struct rlimit before, low;
    int next = w->sys->eventfd(w->sys->kernel);

    assert_true(next >= 0);
    gone(w, next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = (rlim_t)next;
    if (w->k)
        sim_set_descriptors(w->k, (unsigned)next);
    else
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    arm_accept(w, l, 1, true);
    step(w, "full", 1);
    if (w->k)
        sim_set_descriptors(w->k, 0);
    else
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    arm_accept(w, l, 2, true);
    step(w, "room", 0);
    w->sys->shutdown(w->sys->kernel, l, SHUT_RDWR);
    step(w, "shut", 1);
    listener_gone(w, l);
}

void script_raised_limit(struct world *w)
{
    int l = listening(w);
    struct rlimit before, low;
    struct far f;
    int next = w->sys->eventfd(w->sys->kernel);

    /* The limit counts as it was when the request was made. */
    assert_true(next >= 0);
    gone(w, next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = (rlim_t)next + 1; /* room for the far end, or for one accepted */
    if (w->k)
        sim_set_descriptors(w->k, (unsigned)next + 1);
    else
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    arm_accept(w, l, 1, true);
    step(w, "armed", 0);
    int filler = w->sys->eventfd(w->sys->kernel);
    assert_int_equal(filler, next);
    if (w->k)
        sim_set_descriptors(w->k, 0);
    else
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    f = far_connect(w);
    step(w, "raised", 1);
    arm_accept(w, l, 2, true);
    settle(w, "armed again", 1);
    gone(w, w->done[0].result);
    w->n_done = 0;
    gone(w, filler);
    far_close(&f);
    w->sys->shutdown(w->sys->kernel, l, SHUT_RDWR);
    step(w, "shut", 1);
    listener_gone(w, l);
}
