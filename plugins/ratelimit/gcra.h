#ifndef RATELIMIT_GCRA_H
#define RATELIMIT_GCRA_H
/*
 * The generic cell rate algorithm as a leaky bucket: one number per bucket, the time at which it
 * will be empty (its theoretical arrival time). What passes fills it by a cost, time empties it,
 * and what would fill it beyond its limit has to wait. Times are in ticks: nanoseconds in a
 * connection's own buckets, microseconds in the shared table, whose words are smaller.
 */
#include <stdint.h>

#include <roda/plugin.h>

enum { GCRA_OWN_TICKS = 1000000, GCRA_SHARED_TICKS = 1000 }; /* per millisecond */

struct gcra {
    uint64_t cost;  /* by how much it fills the bucket */
    uint64_t limit; /* how full the bucket may be */
};

/* For n messages or bytes. The rate is not off. */
struct gcra gcra_of(const struct roda_rate *rate, uint64_t n, uint64_t ticks_per_ms);
/* How long it has to wait in a bucket that is empty in `ahead`. What is dearer than the whole limit
 * waits for the empty bucket. */
uint64_t gcra_wait(const struct gcra *g, uint64_t ahead);
/* How full a bucket of this rate is at most, in ms; UINT64_MAX: too much to reckon with. */
uint64_t gcra_limit_ms(const struct roda_rate *rate);
/* "2/s burst 10", as the conf writes it; returns buf. */
const char *gcra_text(const struct roda_rate *rate, char *buf, size_t size);

#endif
