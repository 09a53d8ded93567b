#ifndef RODA_TESTS_SIM_KERNEL_STREAM_H
#define RODA_TESTS_SIM_KERNEL_STREAM_H
/*
 * A stream connection: two sides and a pipe each way, for kernel_stream.c (how it behaves),
 * kernel_socket.c (the engine's end of it) and kernel_client.c (the test's end).
 */
#include "kernel_state.h"

struct bytes { /* first in, first out */
    char *data;
    size_t head, len, capacity;
};

struct pipe { /* pipe[i] carries what side i writes */
    struct pair *pair;
    unsigned from;
    struct bytes sent, received; /* in the writer's and in the reader's kernel buffer */
    size_t send_limit, receive_limit;
    bool fin_queued, fin_arrived;
    struct event carry, fin;
};

struct side {
    bool attached;     /* something stands for it, or it waits to be accepted */
    struct held *held; /* NULL: a client's, or not accepted yet */
    struct place address;
    bool shut_read, shut_write;
    bool reset; /* the connection is no more; error is told once, then EOF and EPIPE */
    int error;
    uint32_t uid;
    struct event reset_arrives;
};

struct pair {
    struct list link, waiting;
    struct sim_kernel *kernel;
    bool local; /* UNIX: nothing is under way, what is written is there */
    bool paused;
    struct side side[2]; /* 0 connected, 1 accepts */
    struct pipe pipe[2];
};

struct pair *pair_new(struct sim_kernel *k, bool local);
void pair_free(struct pair *p);
void pair_break(struct pair *p, unsigned here); /* reset; the far side hears of it later */
void pair_refuse(struct pair *p);               /* taken from a listener, or aborted there */
void pair_pause(struct pair *p, bool paused);
int side_room(struct pair *p, unsigned side); /* bytes that may be written, or why none ever */
bool side_writable(const struct pair *p, unsigned side);
void side_write(struct pair *p, unsigned side, const char *bytes, size_t n); /* n <= room */
bool side_readable(const struct pair *p, unsigned side);
/* What system->untaken() says. */
size_t side_untaken(const struct pair *p, unsigned side);
size_t side_available(const struct pair *p, unsigned side);
int side_read(struct pair *p, unsigned side, char *to, size_t n); /* 0: EOF; -EAGAIN; error once */
int side_shutdown(struct pair *p, unsigned side, int how);
bool side_over(const struct pair *p, unsigned side);
void side_close(struct pair *p, unsigned side, bool abort); /* the pair may be gone then */

/* A listener gets a connection. -ECONNREFUSED; -EAGAIN: its queue is full. */
int stream_connect(struct sim_kernel *k, const struct place *to, const struct place *from,
                   uint32_t uid, struct pair **ret_pair);
struct pair *stream_accept(struct held *listener); /* NULL: nobody waits */

void socket_attach(struct held *h, struct pair *p, unsigned side); /* kernel_socket.c */

#endif
