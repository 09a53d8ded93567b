#ifndef RODA_RING_PREFLIGHT_H
#define RODA_RING_PREFLIGHT_H
/*
 * What must be true before a worker's ring is worth making: limits, io_uring allowed, the needed
 * features there and working. Each failure becomes one sentence with cause and remedy.
 */
#include <stddef.h>
#include <stdint.h>

struct preflight {
    unsigned workers, sq_entries, cq_entries, buffers;
    uint64_t memlock_need_bytes, memlock_limit_bytes; /* UINT64_MAX: no limit */
    uint64_t descriptors;                             /* soft limit after it was raised */
    char kernel[64];                                  /* "6.18.44" */
    char features[256];                               /* chosen optional features, for --version */
};

/* Raises RLIMIT_NOFILE soft to hard. */
int preflight_raise_descriptors(uint64_t *ret_limit);
/* Sets up a ring with the real flags and sizes, probes features and opcodes, and runs a self
 * test on a socketpair (buffer ring, multishot recv, send, shutdown ends the recv, wake by
 * eventfd, timeout in enter, restrictions). 0; or negative, and problem holds the sentence. */
int preflight_run(struct preflight *p, char *problem, size_t size);
/* The sentence for an error of io_uring_setup: reads io_uring_disabled and the seccomp state. */
void preflight_explain(int error, const struct preflight *p, char *problem, size_t size);

#endif
