#ifndef RODA_TEST_COUNTER_H
#define RODA_TEST_COUNTER_H
/* The service "counter/1" between offers.c and needs.c. */
#include <roda/plugin.h>

#define COUNTER_ID "counter/1"

struct counter {
    uint32_t size;
    uint64_t (*next)(struct roda_ctx *x); /* 1, 2 ... on each worker */
};

#endif
