#include "gcra.h"

#include <inttypes.h>
#include <stdio.h>

/*
 * The cost of n is worked out at once, not as n times a rounded cost of one, so that a rate of
 * megabytes is as exact as one of messages. The limit is as many costs as the burst says, so that
 * a burst of single messages passes exactly.
 */

static uint64_t ticks(uint64_t n, const struct roda_rate *rate, uint64_t ticks_per_ms)
{
    double exact = (double)n * (double)rate->per_ms * (double)ticks_per_ms / (double)rate->count;

    return exact < 1e18 ? (uint64_t)(exact + 0.5) : (uint64_t)1e18;
}

struct gcra gcra_of(const struct roda_rate *rate, uint64_t n, uint64_t ticks_per_ms)
{
    uint64_t one = ticks(1, rate, ticks_per_ms);
    uint64_t limit = ticks((uint64_t)rate->burst, rate, ticks_per_ms);
    uint64_t of_ones = one * (uint64_t)rate->burst;

    return (struct gcra){.cost = ticks(n, rate, ticks_per_ms),
                         .limit = limit > of_ones ? limit : of_ones};
}

uint64_t gcra_wait(const struct gcra *g, uint64_t ahead)
{
    uint64_t room = g->cost < g->limit ? g->limit - g->cost : 0;

    return ahead > room ? ahead - room : 0;
}

uint64_t gcra_limit_ms(const struct roda_rate *rate)
{
    double exact = (double)rate->burst * (double)rate->per_ms / (double)rate->count;

    return exact < 1e15 ? (uint64_t)exact : UINT64_MAX;
}

static void size_text(int64_t n, char *buf, size_t size)
{
    static const char units[] = {'\0', 'k', 'M', 'G'};
    size_t unit = 0;

    while (unit + 1 < sizeof(units) && n && n % 1024 == 0) {
        n /= 1024;
        unit++;
    }
    (void)snprintf(buf, size, unit ? "%" PRId64 "%c" : "%" PRId64, n, units[unit]);
}

const char *gcra_text(const struct roda_rate *rate, char *buf, size_t size)
{
    char count[24], burst[24];

    size_text(rate->count, count, sizeof(count));
    size_text(rate->burst, burst, sizeof(burst));
    (void)snprintf(buf, size, "%s/%c burst %s", count,
                   rate->per_ms == 1000    ? 's'
                   : rate->per_ms == 60000 ? 'm'
                                           : 'h',
                   burst);
    return buf;
}
