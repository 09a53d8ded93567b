#include "ring/wheel.h"

#include <stddef.h>
#include <string.h>

/*
 * Level k has 64 slots of 64^k ms. A timer stands on the lowest level whose 64 slots, counted
 * from the one that holds now, reach its time; so level 0 holds exactly the times now .. now + 63
 * and one of its slots holds one millisecond only. When now enters a slot of a higher level, the
 * slot is emptied and its timers are placed again, lower. A timer beyond the last level stands in
 * that level's furthest slot and is placed again from there.
 *
 * What is due is first moved to one list, in order of time, and run from there: so a callback may
 * change the wheel at will, and what it arms cannot run in the same advance. A time in the past
 * counts as now, and the slot of now is looked at again by the next advance.
 *
 * So on the higher levels the slot that holds now is always empty.
 * A slot's bit in occupied is set if and only if the slot has timers.
 */

#define SLOT_BITS 6u
#define SLOT_MASK (WHEEL_SLOTS - 1u)

static uint64_t rotate_right(uint64_t bits, unsigned by)
{
    return bits >> by | bits << ((64u - by) & 63u);
}

static void slot_insert(struct wheel *w, struct wheel_timer *timer)
{
    uint64_t at = timer->at_ms > w->now_ms ? timer->at_ms : w->now_ms;
    unsigned level = 0;
    uint64_t unit = at, current = w->now_ms;

    while (unit - current >= WHEEL_SLOTS) {
        if (level == WHEEL_LEVELS - 1) {
            unit = current + WHEEL_SLOTS - 1;
            break;
        }
        level++;
        unit >>= SLOT_BITS;
        current >>= SLOT_BITS;
    }
    unsigned index = (unsigned)(unit & SLOT_MASK);
    struct wheel_timer **slot = &w->slots[level][index];

    timer->next = *slot;
    if (timer->next)
        timer->next->link = &timer->next;
    timer->link = slot;
    *slot = timer;
    w->occupied[level] |= UINT64_C(1) << index;
}

static void slot_remove(struct wheel *w, struct wheel_timer *timer)
{
    struct wheel_timer **link = timer->link;

    *link = timer->next;
    if (timer->next)
        timer->next->link = link;
    timer->next = NULL;
    timer->link = NULL;
    if (*link)
        return;
    /* The last of its list: if that list is a slot (and not a timer's next, or what is due). */
    uintptr_t offset = (uintptr_t)link - (uintptr_t)&w->slots[0][0];
    if (offset >= sizeof w->slots)
        return;
    size_t index = offset / sizeof w->slots[0][0];
    w->occupied[index / WHEEL_SLOTS] &= ~(UINT64_C(1) << (index % WHEEL_SLOTS));
}

/* The next time at which a slot must be looked at. false: no timers. */
static bool next_tick(const struct wheel *w, uint64_t *ret_tick)
{
    bool found = false;
    uint64_t first = 0;

    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        if (!w->occupied[level])
            continue;
        unsigned shift = level * SLOT_BITS;
        uint64_t unit = w->now_ms >> shift;
        uint64_t bits = rotate_right(w->occupied[level], (unsigned)(unit & SLOT_MASK));
        uint64_t tick = (unit + (unsigned)__builtin_ctzll(bits)) << shift;
        if (!found || tick < first)
            first = tick;
        found = true;
    }
    if (found)
        *ret_tick = first;
    return found;
}

static struct wheel_timer *slot_take(struct wheel *w, unsigned level, uint64_t unit)
{
    unsigned index = (unsigned)(unit & SLOT_MASK);
    struct wheel_timer *timers = w->slots[level][index];

    w->slots[level][index] = NULL;
    w->occupied[level] &= ~(UINT64_C(1) << index);
    return timers;
}

/* now has just reached a tick: places again what its slots on the higher levels hold. */
static void cascade(struct wheel *w)
{
    for (unsigned level = WHEEL_LEVELS - 1; level > 0; level--) {
        unsigned shift = level * SLOT_BITS;
        if (w->now_ms & ((UINT64_C(1) << shift) - 1))
            continue;
        struct wheel_timer *timer = slot_take(w, level, w->now_ms >> shift);
        while (timer) {
            struct wheel_timer *next = timer->next;
            slot_insert(w, timer);
            timer = next;
        }
    }
}

void wheel_init(struct wheel *w, uint64_t now_ms)
{
    memset(w, 0, sizeof *w);
    w->now_ms = now_ms;
}

void wheel_arm(struct wheel *w, struct wheel_timer *timer, uint64_t at_ms, wheel_fn *fn)
{
    wheel_disarm(w, timer);
    timer->at_ms = at_ms;
    timer->fn = fn;
    slot_insert(w, timer);
    w->armed++;
}

void wheel_disarm(struct wheel *w, struct wheel_timer *timer)
{
    if (!timer->link)
        return;
    slot_remove(w, timer);
    w->armed--;
}

unsigned wheel_advance(struct wheel *w, uint64_t now_ms)
{
    struct wheel_timer *due = NULL, **tail = &due;
    uint64_t tick;
    unsigned ran = 0;

    if (now_ms < w->now_ms)
        now_ms = w->now_ms;
    while (next_tick(w, &tick) && tick <= now_ms) {
        if (tick > w->now_ms) {
            w->now_ms = tick;
            cascade(w);
        }
        struct wheel_timer *timers = slot_take(w, 0, tick);
        *tail = timers;
        if (timers)
            timers->link = tail;
        while (*tail)
            tail = &(*tail)->next;
    }
    w->now_ms = now_ms;

    while (due) {
        struct wheel_timer *timer = due;
        slot_remove(w, timer);
        w->armed--;
        ran++;
        timer->fn(timer);
    }
    return ran;
}

uint64_t wheel_wait_ms(const struct wheel *w)
{
    uint64_t tick;

    return next_tick(w, &tick) ? tick - w->now_ms : UINT64_MAX;
}
