#ifndef RODA_TESTS_SIM_KERNEL_STATE_H
#define RODA_TESTS_SIM_KERNEL_STATE_H
/*
 * What the files of the fake kernel share. Nobody else includes this.
 *
 * A descriptor is an entry of the table that points to a held file; a request points to the held
 * file too. The file ends when nothing holds it any more. A stream connection is a pair of sides
 * with a pipe each way; a side is attached while a held file or a client's handle stands for it,
 * and the pair is freed when both are gone.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "kernel.h"

/* ---- kernel.c: events, chance, descriptors ---------------------------------------------- */

struct event { /* all zero: not scheduled */
    uint64_t at, sequence;
    size_t place; /* in the heap, plus one */
    void (*fn)(struct sim_kernel *k, struct event *event);
};

enum held_kind { HELD_RING, HELD_SOCKET, HELD_EVENTFD, HELD_FILE, HELD_DIRECTORY };

struct place {          /* an address; IPv4 is kept mapped */
    sa_family_t family; /* 0: none */
    uint16_t port;
    struct in6_addr ip;
    char path[108];
};

struct held;
struct socket {
    int family, type;
    struct place local;
    bool bound, listening, shut, reuse_port, reuse_address, v6_only;
    bool packet_info4, packet_info6;
    unsigned backlog, queued;
    size_t send_limit, receive_limit;
    struct linger linger;
    struct list waiting; /* listener: pairs not accepted yet */
    struct pair *pair;   /* connected stream */
    unsigned side;
    struct list datagrams; /* struct packet */
    size_t datagram_bytes;
};

struct held {         /* what a descriptor stands for */
    struct list link; /* in kernel->held */
    struct sim_kernel *kernel;
    unsigned references;
    enum held_kind kind;
    struct list requests; /* struct request.of_held */
    struct socket socket;
    struct inode *inode;
    uint64_t counter;
};

struct job {
    struct event event;
    struct list link;
    struct system_job *job;
};

struct sim_kernel {
    struct system system;
    struct sim_faults faults;
    bool kind, blocking;
    uint64_t faults_done;
    uint64_t write_fails, sync_fails; /* the n-th from now; 0: none */

    uint64_t chance, engine_chance;
    uint64_t now, sequence;
    int64_t realtime_offset;
    struct event **heap;
    size_t heap_n, heap_capacity;

    struct held **table;
    unsigned table_n;
    struct list held, rings, pairs, clients, peers, packets, jobs, wakes;
    unsigned n_jobs;
    struct place *hosts;
    size_t n_hosts;
    struct file_system *files;
    char violation[256];
};

void *must_alloc(size_t size); /* zeroed; ends the process */
void *must_realloc(void *ptr, size_t size);

void event_at(struct sim_kernel *k, struct event *e, uint64_t at,
              void (*fn)(struct sim_kernel *k, struct event *event));
void event_cancel(struct sim_kernel *k, struct event *e);
static inline bool event_scheduled(const struct event *e)
{
    return e->place;
}

uint64_t draw(struct sim_kernel *k, uint64_t bound); /* 0 <= result < bound; bound 0: 0 */
uint64_t draw_between(struct sim_kernel *k, uint64_t low, uint64_t high); /* both included */
void violation(struct sim_kernel *k, const char *format, ...) __attribute__((format(printf, 2, 3)));

struct held *held_new(struct sim_kernel *k, enum held_kind kind);
static inline struct held *held_keep(struct held *h)
{
    h->references++;
    return h;
}
void held_release(struct held *h); /* NULL is a no-op */
/* The lowest free descriptor takes over the reference; -EMFILE: it stays with the caller. */
int descriptor_new(struct sim_kernel *k, struct held *h);
unsigned descriptor_limit(const struct sim_kernel *k);
bool descriptor_available(const struct sim_kernel *k, unsigned limit);
struct held *descriptor_get(const struct sim_kernel *k, int fd); /* NULL: -EBADF */
struct held *socket_get(const struct sim_kernel *k, int fd, int *ret_error);
int descriptor_close(struct sim_kernel *k, int fd);

/* ---- kernel_fault.c --------------------------------------------------------------------- */

bool fault(struct sim_kernel *k, double rate);
bool fault_nth(struct sim_kernel *k, uint64_t *n); /* counts down; true: this is the one */
uint64_t fault_delay(struct sim_kernel *k);        /* ns; 0: none */
uint64_t net_delay(struct sim_kernel *k);
uint64_t disk_delay(struct sim_kernel *k);

/* ---- kernel_ring.c: rings, requests, completions, provided buffers ---------------------- */

struct sim_ring;
struct request {
    struct list of_ring, of_held, task;
    struct event event; /* a delayed start or wake */
    struct sim_ring *ring;
    struct held *held; /* NULL: a bad descriptor */
    struct io_uring_sqe sqe;
    bool multishot, cancelled, begun;
    unsigned descriptors_limit; /* as it was when the SQE was taken */
    /* Sends. */
    struct msghdr message; /* the copy made at submission */
    struct iovec *vector;
    struct iovec one;
    size_t payload, done;
    uint64_t payload_hash;
    struct place to;
    struct snapshot *snapshot; /* FSYNC */
};

/* what woke a request */
enum {
    WAKE_IN = 1,
    WAKE_OUT = 2,
};

void rings_init(struct sim_kernel *k); /* fills in the functions of k->system */
void rings_crash(struct sim_kernel *k);
void rings_free(struct sim_kernel *k);
/* Tries again what waits for this: after a delay, or as soon as the ring is entered. */
void held_wake(struct held *h, unsigned what);
/* A completion with F_MORE. false: there is no room; end the request with this result instead. */
bool request_more(struct request *q, int32_t result, uint32_t flags);
void request_end(struct request *q, int32_t result, uint32_t flags); /* q is gone */
/* Ends it after ns; fn says how. */
void request_after(struct request *q, uint64_t ns, void (*fn)(struct sim_kernel *, struct event *));
/* Come back to it in this or the next enter. */
void request_again(struct request *q);
bool request_selects(const struct request *q);
bool request_buffers_empty(struct request *q);
/* A buffer of the request's group, handed out; only after request_buffers_empty() was false. */
size_t request_buffer_size(const struct request *q); /* of the next one */
char *request_buffer(struct request *q, size_t *ret_size, uint32_t *ret_flags);
/* Checks the payload against its hash at submission. */
void request_check_payload(struct request *q);
void request_copy(const struct request *q, size_t offset, char *to, size_t n);

/* ---- kernel_client.c -------------------------------------------------------------------- */

void clients_free(struct sim_kernel *k);

/* ---- kernel_stream.c -------------------------------------------------------------------- */

void streams_crash(struct sim_kernel *k);
void streams_free(struct sim_kernel *k);

/* ---- kernel_socket.c -------------------------------------------------------------------- */

void sockets_init(struct sim_kernel *k);
void socket_gone(struct held *h);

/* ---- kernel_transfer.c ------------------------------------------------------------------ */

void accept_try(struct request *q);
void receive_try(struct request *q);
void send_try(struct request *q);
bool stream_readable(const struct held *h);
bool stream_writable(const struct held *h);

/* ---- kernel_address.c ------------------------------------------------------------------- */

int place_from(const struct sockaddr *address, socklen_t len, struct place *ret);
void place_to(const struct place *p, int family, struct sockaddr *ret, socklen_t *len);
bool place_wild(const struct place *p);
bool socket_covers(const struct socket *s, const struct place *to);
bool sockets_overlap(const struct socket *a, const struct socket *b);
/* The socket of this type that serves an address: groups of SO_REUSEPORT by hash of the peer. */
struct held *socket_serving(struct sim_kernel *k, int type, const struct place *to,
                            const struct place *from);
bool host_has(const struct sim_kernel *k, const struct place *p);
void place_draw(struct sim_kernel *k, const struct place *to, struct place *ret);

/* ---- kernel_datagram.c ------------------------------------------------------------------ */

void datagrams_free(struct sim_kernel *k);
void datagrams_crash(struct sim_kernel *k);
void datagram_socket_gone(struct held *h);
void datagram_receive_try(struct request *q);
void datagram_send_try(struct request *q);

/* ---- kernel_file.c ---------------------------------------------------------------------- */

void files_init(struct sim_kernel *k);
void files_crash(struct sim_kernel *k);
void files_end(struct sim_kernel *k);
void file_gone(struct held *h);
void file_read_try(struct request *q);
void file_write_try(struct request *q);
void file_sync_try(struct request *q);
void snapshot_free(struct snapshot *s); /* NULL is a no-op */
/* A socket's name in the file system. */
int file_socket_make(struct sim_kernel *k, const char *path);
bool file_socket_here(struct sim_kernel *k, const char *path);

#endif
