#ifndef RODA_TESTS_SIM_CONFORMANCE_H
#define RODA_TESTS_SIM_CONFORMANCE_H
/*
 * What a script may use: struct system, a ring, far ends, and the transcript. Each script is a
 * function over a world, listed in conformance.c. Every call asserts that what it needs works.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "kernel.h"

#define BUFFERS      8u
#define BUFFER_BYTES 128u
#define TEXT_MAX     16384u
#define DONE_MAX     128u
#define SECOND       1000000000ull
#define QUIET_NS     15000000ull /* nothing more comes: waited for at the end of each step */
#define GROUP        1u

struct done {
    unsigned kind, slot, order;
    int32_t result;
    uint32_t flags;
};

struct world {
    const struct system *sys;
    struct sim_kernel *k; /* NULL: the real kernel */
    struct ring ring;
    struct io_uring_buf_ring *buffers;
    char *memory; /* outlives the ring, as the kernel may write to it until then */
    uint16_t tail;
    char directory[64];
    char text[TEXT_MAX];
    size_t text_len;
    struct done done[DONE_MAX];
    unsigned n_done;
    uint16_t port; /* of the last listener or datagram socket */
};

struct far { /* the other end of a stream */
    struct world *w;
    struct sim_client *c;
    int fd;
};

union any_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_un local;
};

typedef void script_fn(struct world *w);

extern int family;         /* of the streams: a script may run with TCP and with UNIX */
extern char big[4u << 20]; /* more than any buffer of the kernel takes */

/* ---- the transcript --------------------------------------------------------------------- */

void say(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void say_result(struct world *w, const char *what, int result);
/* Waits until n completions have come, then until it is quiet, and writes them down; they stay in
 * done. */
void settle(struct world *w, const char *step, unsigned n);

/* As settle(), and the completions are forgotten. */
void step(struct world *w, const char *name, unsigned n);

/* Gives a buffer to the kernel. */
void give(struct world *w, unsigned id);

/* Runs a script on both kernels; the transcripts must be equal. Skips without io_uring. */
void compare(script_fn *script, unsigned cq_entries);

/* ---- sockets ---------------------------------------------------------------------------- */

socklen_t loopback(union any_address *a, uint16_t port);
socklen_t stream_address(const struct world *w, union any_address *a);
/* Bound on the loopback, or in the directory; w->port is its port. */
int bound(struct world *w, int type);

/* A stream listener of the family at hand. */
int listening(struct world *w);
void gone(struct world *w, int fd); /* close(2) */
void listener_gone(struct world *w, int fd);

/* ---- far ends --------------------------------------------------------------------------- */

struct far far_connect(struct world *w);
void far_write(struct far *f, const char *bytes);

/* Bytes, or why none; waits for something to come. */
int far_read(struct far *f, char *to, size_t n);
void far_say(struct far *f);
void far_say_nothing(struct far *f);
void far_end_of_writing(struct far *f);
void far_close(struct far *f);
void far_reset(struct far *f);

/* ---- requests --------------------------------------------------------------------------- */

/* kind and slot name it in the transcript. */
struct io_uring_sqe *sqe(struct world *w, unsigned kind, unsigned slot);
void arm_accept(struct world *w, int fd, unsigned slot, bool multishot);
struct io_uring_sqe *arm_recv(struct world *w, int fd, unsigned slot);
struct io_uring_sqe *send_bytes(struct world *w, int fd, unsigned slot, const char *bytes,
                                size_t n);
struct io_uring_sqe *cancel(struct world *w, unsigned slot, int fd, uint64_t user_data,
                            unsigned flags);
/* shutdown(2), written down. */
void shut(struct world *w, int fd, int how);

/* A connection accepted from a listener that is gone again. */
int connected(struct world *w, struct far *ret_far);

/* ---- scripts ---------------------------------------------------------------------------- */

/* conformance_stream.c */
script_fn script_receive;
script_fn script_receive_ended_by_shutdown;
script_fn script_shut_for_writing;
script_fn script_receive_without_buffers;
script_fn script_receive_once;
script_fn script_reset;
script_fn script_reset_told_to_a_send;
script_fn script_reset_after_data;
script_fn script_far_end_closed_with_unread_data;
script_fn script_close_under_a_receive;
script_fn script_close_with_unread_data;
script_fn script_data_for_a_shut_side;
script_fn script_linger_zero;
script_fn script_send_that_waits;
script_fn script_untaken;
script_fn script_untaken_by_who_does_not_read;
script_fn script_send_cut_by_shutdown;
script_fn script_send_to_a_closed_end;
script_fn script_send_vector;
script_fn script_full_completion_queue;
/* conformance_accept.c */
script_fn script_accept;
script_fn script_accept_on_a_closed_listener;
script_fn script_clients_of_a_shut_listener;
script_fn script_accept_with_a_full_table;
script_fn script_raised_limit;
/* conformance_request.c */
script_fn script_cancel;
script_fn script_restrictions;
script_fn script_misuse;
script_fn script_eventfd;
script_fn script_files;
script_fn script_names;
/* conformance_datagram.c */
script_fn script_datagrams;
script_fn script_datagram_shutdown;
script_fn script_datagram_sends;

#endif
