#include <errno.h>
#include <stdlib.h>

#include "kernel_stream.h"

/*
 * The test's end of a connection. A handle connects after the network's delay, tries again while
 * the listener's queue is full (as SYNs are repeated), and is then side 0 of a pair. The test
 * polls: it reads, writes and looks at the state after the clock has moved.
 */

#define SYN_RETRY_NS  1000000000u
#define UNIX_RETRY_NS 1000000u
#define SYN_RETRIES   6u

struct sim_client {
    struct list link; /* in kernel->clients */
    struct sim_kernel *kernel;
    struct event connect;
    struct place to, from;
    struct pair *pair; /* NULL: not connected yet, or refused */
    uint32_t uid;
    unsigned tries;
    bool paused, shut, refused;
};

static void connect_now(struct sim_kernel *k, struct event *e)
{
    struct sim_client *c = container_of(e, struct sim_client, connect);
    bool local = c->to.family == AF_UNIX;
    int result = -ECONNREFUSED;

    if (!local || file_socket_here(k, c->to.path))
        result = stream_connect(k, &c->to, &c->from, c->uid, &c->pair);
    if (result == -EAGAIN && c->tries++ < SYN_RETRIES)
        event_at(k, e, k->now + (local ? UNIX_RETRY_NS : SYN_RETRY_NS), connect_now);
    else if (result < 0)
        c->refused = true;
    if (!c->pair)
        return;
    if (c->paused)
        pair_pause(c->pair, true);
    if (c->shut)
        side_shutdown(c->pair, 0, SHUT_WR);
}

struct sim_client *sim_connect(struct sim_kernel *k, const struct sockaddr *to, socklen_t len,
                               const struct sockaddr *from, socklen_t from_len, uint32_t uid)
{
    struct sim_client *c = must_alloc(sizeof *c);

    c->kernel = k;
    c->uid = uid;
    if (place_from(to, len, &c->to) < 0)
        abort();
    if (!from)
        place_draw(k, &c->to, &c->from);
    else if (place_from(from, from_len, &c->from) < 0)
        abort();
    list_append(&k->clients, &c->link);
    event_at(k, &c->connect, k->now + (c->to.family == AF_UNIX ? 0 : net_delay(k)), connect_now);
    return c;
}

enum sim_client_state sim_client_state(const struct sim_client *c)
{
    if (!c->pair)
        return c->refused ? SIM_REFUSED : SIM_CONNECTING;
    return c->pair->side[0].reset ? SIM_RESET : SIM_CONNECTED;
}

int sim_client_write(struct sim_client *c, const void *bytes, size_t len)
{
    if (!c->pair)
        return c->refused ? -ECONNREFUSED : 0;
    int room = side_room(c->pair, 0);
    if (room <= 0)
        return room;
    if (len > (size_t)room)
        len = (size_t)room;
    side_write(c->pair, 0, bytes, len);
    return (int)len;
}

int sim_client_read(struct sim_client *c, void *buf, size_t size)
{
    if (!c->pair)
        return c->refused ? -ECONNREFUSED : -EAGAIN;
    return side_read(c->pair, 0, buf, size);
}

size_t sim_client_readable(const struct sim_client *c)
{
    return c->pair ? side_available(c->pair, 0) : 0;
}

bool sim_client_flushed(const struct sim_client *c)
{
    return c->pair && !c->pair->pipe[0].sent.len;
}

void sim_client_shutdown(struct sim_client *c)
{
    c->shut = true;
    if (c->pair)
        side_shutdown(c->pair, 0, SHUT_WR);
}

void sim_client_pause(struct sim_client *c, bool paused)
{
    c->paused = paused;
    if (c->pair)
        pair_pause(c->pair, paused);
}

static void end(struct sim_client *c, bool abort_it)
{
    event_cancel(c->kernel, &c->connect);
    list_remove(&c->link);
    if (c->pair)
        side_close(c->pair, 0, abort_it);
    free(c);
}

void sim_client_close(struct sim_client *c)
{
    end(c, false);
}

void sim_client_reset(struct sim_client *c)
{
    end(c, true);
}

void sim_client_address(const struct sim_client *c, struct sockaddr_storage *ret,
                        socklen_t *ret_len)
{
    *ret_len = sizeof *ret;
    place_to(&c->from, c->from.family, (struct sockaddr *)ret, ret_len);
}

void clients_free(struct sim_kernel *k)
{
    struct list *link;

    while ((link = list_first(&k->clients)))
        end(container_of(link, struct sim_client, link), true);
}
