#ifndef RODA_TESTS_SIM_ONE_RING_H
#define RODA_TESTS_SIM_ONE_RING_H
/*
 * One ring on the fake kernel, for tests of that kernel: it may block (so that time passes in its
 * enter) and is driven through core/ring; the far ends are the test's own handles. Completions are
 * recorded by kind and slot; each test looks at those it caused.
 *
 * Every call asserts what must hold.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernel.h"

#define BUFFERS      8u
#define BUFFER_BYTES 128u
#define DONE_MAX     512u
#define SECOND       1000000000u

struct done {
    unsigned kind, slot;
    int32_t result;
    uint32_t flags;
};

struct bench {
    struct sim_kernel *k;
    const struct system *sys;
    struct ring ring;
    struct done done[DONE_MAX];
    unsigned n_done;
    struct io_uring_buf_ring *buffers;
    char memory[BUFFERS][BUFFER_BYTES];
    uint16_t tail;
};

/* Gives a buffer to the kernel. */
void give(struct bench *b, unsigned id);
/* cq_entries: of the completion queue. */
void begin(struct bench *b, uint64_t seed, const struct sim_faults *faults, unsigned cq_entries);
/* Nothing may be left open, nothing wrong done. */
void finish(struct bench *b);
/* Lets time pass; every completion is recorded. */
void run(struct bench *b, uint64_t ns);
/* The n-th completion of a kind and slot; NULL: there was none. */
const struct done *completion(const struct bench *b, unsigned kind, unsigned slot, unsigned n);
void assert_done(const struct bench *b, unsigned kind, unsigned slot, unsigned n, int32_t result,
                 bool more);
struct io_uring_sqe *sqe(struct bench *b, unsigned kind, unsigned slot);
void arm_accept(struct bench *b, int fd, unsigned slot);
void arm_recv(struct bench *b, int fd, unsigned slot);
void send_bytes(struct bench *b, int fd, unsigned slot, const char *bytes, size_t n);
/* What the buffer of a completion holds. */
const char *received(const struct bench *b, const struct done *d);
struct sockaddr_in v4(const char *text, uint16_t port);
/* On 127.0.0.1. */
int listener(struct bench *b, uint16_t port, bool reuse);
struct sim_client *client(struct bench *b, uint16_t port);
/* One accepted client; its listener, on port 3000, is gone again. */
int connected(struct bench *b, struct sim_client **ret_client);
int close_fd(struct bench *b, int fd);
int shutdown_fd(struct bench *b, int fd);

#endif
