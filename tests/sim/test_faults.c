#include "one_ring.h"

#include <errno.h>
#include <string.h>

/*
 * A small engine that does what every engine on such a kernel must: it re-arms whenever F_MORE is
 * missing, accounts sends by their result, gives buffers back, retries what may be retried, and
 * closes by shutdown, then waits for its requests, then closes. It echoes. Whatever the seed, a
 * client reads back what it wrote, and all of it unless connections may break.
 */

#define ECHO_CLIENTS 6u
#define ECHO_BYTES   3000u
#define ECHO_SLOTS   32u

struct echo {
    int fd; /* -1: free */
    bool receiving, sending, closing, ended, want_recv;
    char queue[ECHO_BYTES];
    size_t start, end;
};

struct echo_world {
    struct bench b;
    int listener;
    bool accepting;
    bool rough; /* connections may break, and the engine closes some for no reason */
    struct echo slots[ECHO_SLOTS];
    struct {
        struct sim_client *c;
        size_t written, read;
        bool shut, broken, over;
    } clients[ECHO_CLIENTS];
    uint64_t hash;
};

static char echo_byte(unsigned client, size_t at)
{
    return (char)(at * 7 + client * 13);
}

static void echo_complete(struct echo_world *w, const struct done *d)
{
    struct echo *e = d->slot < ECHO_SLOTS ? &w->slots[d->slot] : NULL;
    bool more = d->flags & IORING_CQE_F_MORE;

    w->hash = (w->hash ^ (uint64_t)(uint32_t)d->result ^ (uint64_t)d->flags << 32 ^ d->kind) *
              0x100000001b3u;
    if (d->kind == RING_ACCEPT) {
        w->accepting = more;
        for (unsigned i = 0; d->result >= 0 && i < ECHO_SLOTS; i++)
            if (w->slots[i].fd < 0) {
                w->slots[i] = (struct echo){.fd = d->result, .want_recv = true};
                return;
            }
        assert_true(d->result < 0);
        return;
    }
    assert_non_null(e);
    if (d->kind == RING_RECV) {
        e->receiving = more;
        e->want_recv = !more;
        if (d->flags & IORING_CQE_F_BUFFER) {
            unsigned id = d->flags >> IORING_CQE_BUFFER_SHIFT;
            assert_true(d->result > 0);
            assert_true(e->end + (size_t)d->result <= ECHO_BYTES);
            memcpy(e->queue + e->end, w->b.memory[id], (size_t)d->result);
            e->end += (size_t)d->result;
            give(&w->b, id);
        }
        if (d->result == 0)
            e->ended = true;
        else if (d->result < 0 && d->result != -ENOBUFS)
            e->closing = true;
    } else if (d->kind == RING_SEND) {
        e->sending = false;
        if (d->result >= 0)
            e->start += (size_t)d->result;
        else if (d->result != -EAGAIN && d->result != -ENOBUFS)
            e->closing = true;
    }
}

static void echo_step_slot(struct echo_world *w, unsigned i)
{
    struct bench *b = &w->b;
    struct echo *e = &w->slots[i];

    if (e->fd < 0)
        return;
    if ((e->ended && e->start == e->end) || (w->rough && !sim_random(b->k, 300)))
        e->closing = true;
    if (e->closing) {
        shutdown_fd(b, e->fd);
        if (!e->receiving && !e->sending) {
            assert_int_equal(sim_requests(b->k, e->fd, -1), 0);
            assert_int_equal(close_fd(b, e->fd), 0);
            e->fd = -1;
        }
        return;
    }
    if (e->want_recv && !e->ended && ring_space(&b->ring)) {
        arm_recv(b, e->fd, i);
        e->receiving = true;
        e->want_recv = false;
    }
    if (!e->sending && e->start < e->end && ring_space(&b->ring)) {
        send_bytes(b, e->fd, i, e->queue + e->start, e->end - e->start);
        e->sending = true;
    }
}

static void echo_clients(struct echo_world *w)
{
    char buf[256];

    for (unsigned i = 0; i < ECHO_CLIENTS; i++) {
        struct sim_client *c = w->clients[i].c;
        size_t at = w->clients[i].written;
        if (w->clients[i].over)
            continue;
        size_t n = 1 + sim_random(w->b.k, sizeof buf);
        if (n > ECHO_BYTES - at)
            n = ECHO_BYTES - at;
        for (size_t j = 0; j < n; j++)
            buf[j] = echo_byte(i, at + j);
        int result = at < ECHO_BYTES ? sim_client_write(c, buf, n) : 0;
        w->clients[i].written += result > 0 ? (size_t)result : 0;
        if (w->clients[i].written == ECHO_BYTES && !w->clients[i].shut) {
            sim_client_shutdown(c);
            w->clients[i].shut = true;
        }
        result = sim_client_read(c, buf, 1 + sim_random(w->b.k, sizeof buf));
        for (int j = 0; j < result; j++)
            assert_int_equal(buf[j], echo_byte(i, w->clients[i].read++));
        w->clients[i].broken |= sim_client_state(c) == SIM_RESET;
        w->clients[i].over = result == 0 || (result < 0 && result != -EAGAIN);
        if (!result && !w->rough)
            assert_int_equal(w->clients[i].read, ECHO_BYTES);
    }
}

static bool echo_over(const struct echo_world *w)
{
    for (unsigned i = 0; i < ECHO_CLIENTS; i++)
        if (!w->clients[i].over)
            return false;
    for (unsigned i = 0; i < ECHO_SLOTS; i++)
        if (w->slots[i].fd >= 0)
            return false;
    return true;
}

static uint64_t echo_run(uint64_t seed, const struct sim_faults *faults, bool rough)
{
    static struct echo_world w;
    struct bench *b = &w.b;
    unsigned n_free, n_lent;

    memset(&w, 0, sizeof w);
    begin(b, seed, faults, 16);
    sim_blocking_enter(b->k, false);
    w.rough = rough;
    for (unsigned i = 0; i < ECHO_SLOTS; i++)
        w.slots[i].fd = -1;
    for (unsigned i = 0; i < BUFFERS; i++)
        give(b, i);
    w.listener = listener(b, 3000, false);
    for (unsigned i = 0; i < ECHO_CLIENTS; i++)
        w.clients[i].c = client(b, 3000);
    for (unsigned turns = 0; !echo_over(&w); turns++) {
        assert_true(turns < 200000);
        if (turns == 100000)
            sim_faults_stop(b->k);
        b->n_done = 0;
        sim_turn_begin(b->k, &b->ring);
        assert_int_equal(ring_enter(&b->ring, true, 10000000), 0);
        ring_dispatch(&b->ring, ring_mark(&b->ring), 8);
        for (unsigned i = 0; i < b->n_done; i++)
            echo_complete(&w, &b->done[i]);
        if (!w.accepting && ring_space(&b->ring)) {
            arm_accept(b, w.listener, 99);
            w.accepting = true;
        }
        unsigned first = (unsigned)sim_random(b->k, ECHO_SLOTS);
        for (unsigned i = 0; i < ECHO_SLOTS; i++)
            echo_step_slot(&w, (first + i) % ECHO_SLOTS);
        ring_wake_arm(&b->ring);
        sim_turn_end(b->k, &b->ring);
        echo_clients(&w);
        uint64_t next = sim_next_event_ns(b->k), soon = sim_now_ns(b->k) + 1000;
        sim_advance_to(b->k, sim_ring_ready(b->k, &b->ring) || next < soon ? soon : next);
    }
    if (!rough)
        for (unsigned i = 0; i < ECHO_CLIENTS; i++)
            assert_false(w.clients[i].broken);
    sim_faults_stop(b->k);
    shutdown_fd(b, w.listener);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(ring_enter(&b->ring, true, 0), 0);
        ring_dispatch(&b->ring, ring_mark(&b->ring), 64);
    }
    close_fd(b, w.listener);
    assert_true(sim_buffers(b->k, &b->ring, 1, &n_free, &n_lent));
    assert_int_equal(n_free, BUFFERS);
    for (unsigned i = 0; i < ECHO_CLIENTS; i++)
        sim_client_close(w.clients[i].c);
    uint64_t hash = w.hash ^ sim_now_ns(b->k);
    finish(b);
    return hash;
}

static void test_echo_with_any_faults(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct sim_faults faults = sim_faults_draw(seed);
        bool rough = seed & 1;
        if (!rough)
            faults.reset = faults.accept_aborted = 0;
        echo_run(seed, &faults, rough);
    }
}

static void test_seed_replays(void **state)
{
    (void)state;
    struct sim_faults faults = sim_faults_draw(7);
    uint64_t once = echo_run(7, &faults, true), again = echo_run(7, &faults, true);
    assert_true(once == again);
    assert_true(echo_run(8, &faults, true) != once);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo_with_any_faults),
        cmocka_unit_test(test_seed_replays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
