#include "kernel_state.h"

/*
 * Chance decides when something goes wrong, and nothing else does: a fault is drawn where it would
 * happen, from the one generator of the kernel, so a run is a function of the seed and of what the
 * engine does. Every fault here is something that the real kernel may do.
 *
 * sim_faults_draw() draws which faults a run has at all. A run with everything at once explores
 * little, since the first fault hides the rest; so about half of them are off, and rates are drawn
 * evenly on a logarithmic scale.
 */

bool fault(struct sim_kernel *k, double rate)
{
    if (k->kind || rate <= 0)
        return false;
    if ((double)draw(k, 1u << 30) >= rate * (double)(1u << 30))
        return false;
    k->faults_done++;
    return true;
}

bool fault_nth(struct sim_kernel *k, uint64_t *n)
{
    if (!*n || --*n)
        return false;
    k->faults_done++;
    return true;
}

uint64_t fault_delay(struct sim_kernel *k)
{
    if (!fault(k, k->faults.delay))
        return 0;
    return draw_between(k, k->faults.delay_min_ns, k->faults.delay_max_ns);
}

uint64_t net_delay(struct sim_kernel *k)
{
    return draw_between(k, k->faults.net_min_ns, k->faults.net_max_ns);
}

uint64_t disk_delay(struct sim_kernel *k)
{
    return draw_between(k, k->faults.disk_min_ns, k->faults.disk_max_ns);
}

struct sim_faults sim_faults_none(void)
{
    return (struct sim_faults){
        .net_min_ns = 20000,
        .net_max_ns = 200000,
        .disk_min_ns = 100000,
        .disk_max_ns = 2000000,
    };
}

static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Off every other time; else most / 1, 1/2, 1/4, ... 1/32 of it. */
static double rate(uint64_t *state, double most)
{
    uint64_t drawn = next(state);

    return drawn & 1 ? 0 : most / (double)(1u << (drawn >> 1) % 6);
}

struct sim_faults sim_faults_draw(uint64_t seed)
{
    struct sim_faults f = sim_faults_none();
    uint64_t s = seed ^ 0x5eedfa17u;

    f.split_receive = rate(&s, 1);
    f.short_send = rate(&s, 0.5);
    f.send_eagain = rate(&s, 0.1);
    f.send_enobufs = rate(&s, 0.1);
    f.receive_enobufs = rate(&s, 0.1);
    f.reset = rate(&s, 0.03);
    f.nonempty_lies = rate(&s, 0.5);
    f.delay = rate(&s, 0.5);
    f.delay_max_ns = 1000u << next(&s) % 14; /* 1 us to 8 ms */
    f.receive_ends = rate(&s, 0.5);
    f.accept_ends = rate(&s, 0.5);
    f.recvmsg_ends = rate(&s, 0.5);
    f.accept_emfile = rate(&s, 0.1);
    f.accept_aborted = rate(&s, 0.05);
    f.accept_enobufs = rate(&s, 0.05);
    f.cancel_lies = rate(&s, 0.5);
    f.shuffle = rate(&s, 1);
    f.enter_eintr = rate(&s, 0.2);
    f.enter_ebusy = rate(&s, 0.1);
    f.enter_eagain = rate(&s, 0.1);
    f.fewer_sqes = rate(&s, 0.3);
    f.wake_delay = rate(&s, 0.5);
    f.net_max_ns = f.net_min_ns + (1000u << next(&s) % 16); /* up to 32 ms */
    f.datagram_loss = rate(&s, 0.2);
    f.datagram_duplicate = rate(&s, 0.2);
    f.datagram_reorder = rate(&s, 0.3);
    f.datagram_refused = rate(&s, 0.05);
    f.short_write = rate(&s, 0.3);
    f.short_read = rate(&s, 0.3);
    return f;
}

void sim_faults_stop(struct sim_kernel *k)
{
    k->kind = true;
}

uint64_t sim_faults_done(const struct sim_kernel *k)
{
    return k->faults_done;
}

void sim_set_faults(struct sim_kernel *k, const struct sim_faults *faults)
{
    k->faults = *faults;
    k->kind = false;
}

void sim_set_descriptors(struct sim_kernel *k, unsigned limit)
{
    k->faults.descriptors = limit;
}

void sim_set_disk(struct sim_kernel *k, uint64_t bytes)
{
    k->faults.disk_bytes = bytes;
}

void sim_fail_write(struct sim_kernel *k, uint64_t n)
{
    k->write_fails = n;
}

void sim_fail_sync(struct sim_kernel *k, uint64_t n)
{
    k->sync_fails = n;
}
