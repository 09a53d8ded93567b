#ifndef RODA_RING_WHEEL_H
#define RODA_RING_WHEEL_H
/*
 * Timers: a hierarchical wheel of intrusive nodes with 1 ms ticks. No clock is read here: the
 * worker says what time it is, once per turn. One owner, no locks.
 */
#include <stdbool.h>
#include <stdint.h>

struct wheel_timer;
typedef void wheel_fn(struct wheel_timer *timer);

struct wheel_timer { /* all zero: not armed. 32 bytes */
    struct wheel_timer *next, **link;
    wheel_fn *fn;
    uint64_t at_ms;
};

#define WHEEL_LEVELS 4
#define WHEEL_SLOTS  64 /* 64 ms, 4 s, 4 min, 4.6 h; beyond that a timer is moved down again */

struct wheel {
    uint64_t now_ms;
    uint32_t armed;
    uint64_t occupied[WHEEL_LEVELS]; /* a bit per slot that has timers */
    struct wheel_timer *slots[WHEEL_LEVELS][WHEEL_SLOTS];
};

void wheel_init(struct wheel *w, uint64_t now_ms);
/* Arms, or moves an armed timer. A time in the past fires at the next advance. */
void wheel_arm(struct wheel *w, struct wheel_timer *timer, uint64_t at_ms, wheel_fn *fn);
void wheel_disarm(struct wheel *w, struct wheel_timer *timer); /* not armed: a no-op */
static inline bool wheel_armed(const struct wheel_timer *timer)
{
    return timer->link;
}
/* Runs what is due at now_ms, in order of time. A callback may arm and disarm any timer; what it
 * arms for now or earlier runs at the next advance. Returns how many ran. */
unsigned wheel_advance(struct wheel *w, uint64_t now_ms);
/* How long until something may be due: never later than the earliest timer; UINT64_MAX: none. */
uint64_t wheel_wait_ms(const struct wheel *w);

#endif
