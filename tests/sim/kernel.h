#ifndef RODA_TESTS_SIM_KERNEL_H
#define RODA_TESTS_SIM_KERNEL_H
/*
 * A fake kernel behind the ring's shared memory. The production engine runs on it unmodified: the
 * SQEs it writes are read from the same memory, interpreted over simulated sockets, files and
 * eventfds, and completions are posted by a schedule that is drawn from a seed. One thread, one
 * virtual clock; the same seed and the same calls give the same run.
 *
 * WHO DRIVES. Nothing here blocks and the clock never moves by itself. A scheduler (the test)
 * runs workers' turns and moves the clock:
 *
 *     for (;;) {
 *         // somebody's turn, in an order drawn from the seed
 *         ring = one of those for which sim_ring_ready(k, ring) is true;
 *         if (ring) {
 *             sim_turn_begin(k, ring);
 *             worker_turn(...);               // calls system->ring_enter() and the rest
 *             sim_turn_end(k, ring);
 *             continue;                       // now and then: step clients, check invariants
 *         }
 *         sim_advance_to(k, sim_next_event_ns(k));   // nobody has work: time passes
 *     }
 *
 * A turn takes no virtual time. A worker that stays busy without end would keep the clock from
 * moving, so let some time pass per turn: sim_advance_to(k, sim_now_ns(k) + a few thousand).
 *
 * SLEEPING. ring_enter() with wait and nothing to report notes "this ring sleeps until T" and
 * returns 0, as if the worker had been woken for nothing; the ring is not ready until something
 * completes for it or T has come. The enter after that is the end of that sleep: it reports what
 * there is (or -ETIME) and never sleeps again by itself. While a ring sleeps the worker must look
 * asleep to others, though its turn has ended: sim_turn_end() sets ring->sleeping, sim_turn_begin()
 * clears it; so ring_wake() from another worker's turn writes the eventfd as it would in life.
 *
 * In life the worker would still be inside that enter while the rest of this turn runs here, so the
 * rest of the turn must find nothing to do. If it does (the worker calls itself busy while its ring
 * sleeps), something was changed without a wake-up: a real lost wake-up, which shows as a worker
 * that is not ready until its next timer.
 *
 * For tests of one ring there is sim_blocking_enter(): enter with wait then moves the clock itself.
 *
 * HONESTY. What the real kernel is known to do is done, kind or not: bytes of a send are read when
 * it completes; msghdr and iovec are copied at submission but control data is not; descriptors are
 * reused lowest first and at once; closing a descriptor does not end the requests that hold its
 * file; a multishot ends at every error, at EOF, at an empty datagram, and whenever the CQ has no
 * room; a cancel is a nudge; a provided buffer is filled with 0xDD (under ASan: poisoned) from the
 * moment it is given back until it is handed out again. tests/sim/conformance.c runs the same
 * scripts here and on the real kernel.
 *
 * VIOLATIONS. What no correct engine does is noted, with a sentence: a payload changed under a
 * send, a buffer given back twice, two sends at once on a stream, close of a descriptor that is not
 * open... See sim_violation().
 *
 * All functions end the process when memory runs out; none of them uses the core's allocator, so
 * memory_fail_at() hits the engine only.
 */
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#include "ring/ring.h"
#include "ring/system.h"

struct sim_kernel;

/* ---- faults ----------------------------------------------------------------------------- */

/* Rates are probabilities, 0 to 1, drawn anew each time the thing happens. */
struct sim_faults {
    /* Streams. */
    double split_receive;   /* a receive takes only a part of what is there */
    double short_send;      /* a send ends with a part, MSG_WAITALL or not */
    double send_eagain;     /* nothing sent, -EAGAIN */
    double send_enobufs;    /* nothing sent, -ENOBUFS; datagrams too */
    double receive_enobufs; /* though there are buffers; ends a multishot */
    double reset;           /* at a receive or send: the connection breaks for both sides */
    double nonempty_lies;   /* IORING_CQE_F_SOCK_NONEMPTY says the opposite */
    /* Requests. */
    double delay; /* a completion comes later than it could */
    uint64_t delay_min_ns, delay_max_ns;
    double receive_ends, accept_ends, recvmsg_ends; /* good result without F_MORE */
    double accept_emfile, accept_aborted;
    double accept_enobufs;
    double cancel_lies; /* answers 0, -ENOENT or -EALREADY and leaves the target alone */
    double shuffle;     /* per enter: completions of different requests change places */
    /* Entering. */
    double enter_eintr, enter_ebusy, enter_eagain;
    double fewer_sqes; /* takes only some of the SQEs */
    double wake_delay; /* an eventfd's write arrives later, within the delay range */
    /* The network. */
    uint64_t net_min_ns, net_max_ns; /* time of flight, drawn per segment or datagram */
    double datagram_loss, datagram_duplicate, datagram_reorder;
    double datagram_refused; /* recvmsg ends with -ECONNREFUSED */
    /* Files. */
    double short_write, short_read, write_eio, read_eio, sync_eio, open_eio;
    double reserve_refused;            /* the file system has no fallocate: -EOPNOTSUPP */
    uint64_t disk_min_ns, disk_max_ns; /* of an fsync, a pool job */
    /* Limits. */
    unsigned descriptors; /* size of the descriptor table; 0: 65536 */
    uint64_t disk_bytes;  /* sum of all files with what they have reserved; 0: no limit */
};

/* No fault at all; the network takes 20 to 200 us, a sync 100 us to 2 ms. */
struct sim_faults sim_faults_none(void);
/* A set per seed: some faults off, the others at rates from rare to nasty. */
struct sim_faults sim_faults_draw(uint64_t seed);
/* The kernel is kind from now on (limits of the tables stay, but can be lifted: see below). */
void sim_faults_stop(struct sim_kernel *k);
/* How often a fault was done, over all kinds: a run without any tests little. */
uint64_t sim_faults_done(const struct sim_kernel *k);
void sim_set_faults(struct sim_kernel *k, const struct sim_faults *faults);
void sim_set_descriptors(struct sim_kernel *k, unsigned limit);
/* 0: no limit. Writes beyond it end short, then with -ENOSPC; so does reserving. */
void sim_set_disk(struct sim_kernel *k, uint64_t bytes);
/* The n-th write or sync of a file from now fails with -EIO (1: the next; 0: none), once, and
 * however kind the kernel is. */
void sim_fail_write(struct sim_kernel *k, uint64_t n);
void sim_fail_sync(struct sim_kernel *k, uint64_t n);

/* ---- life, clock, scheduling ------------------------------------------------------------ */

/* faults is copied; NULL: none. */
struct sim_kernel *sim_kernel_new(uint64_t seed, const struct sim_faults *faults);
/* Frees everything that is left, client handles too. NULL is a no-op. */
void sim_kernel_free(struct sim_kernel *k);
/* Its kernel member is k; lives as long as k. */
const struct system *sim_system(struct sim_kernel *k);
/* From the kernel's own seed, for the scheduler and the world around it. 0 <= result < bound. */
uint64_t sim_random(struct sim_kernel *k, uint64_t bound);

uint64_t sim_now_ns(const struct sim_kernel *k);
/* When something happens next: an event in the kernel or the end of a ring's sleep. Never earlier
 * than now; UINT64_MAX: nothing will ever happen. */
uint64_t sim_next_event_ns(const struct sim_kernel *k);
/* Moves the clock, running what is due on the way (pool jobs too). A time in the past runs what is
 * due now. UINT64_MAX is refused with false: nobody will ever have work again. */
bool sim_advance_to(struct sim_kernel *k, uint64_t ns);
/* Steps the wall clock; the monotonic one is not touched. */
void sim_step_realtime(struct sim_kernel *k, int64_t by_ns);

/* Whether a turn of this ring's worker has anything to do: it is awake, or what woke it waits. */
bool sim_ring_ready(const struct sim_kernel *k, const struct ring *r);
bool sim_ring_sleeps(const struct sim_kernel *k, const struct ring *r);
void sim_turn_begin(struct sim_kernel *k, struct ring *r);
void sim_turn_end(struct sim_kernel *k, struct ring *r);
/* One ring alone: enter with wait runs the clock until a completion or the timeout. */
void sim_blocking_enter(struct sim_kernel *k, bool blocking);

/* ---- TCP and UNIX clients --------------------------------------------------------------- */

struct sim_client; /* the far end of a connection; a person with nc, so to say */

enum sim_client_state {
    SIM_CONNECTING,
    SIM_CONNECTED, /* the handshake is done; the broker may not have accepted yet */
    SIM_REFUSED,
    SIM_RESET, /* what came before the reset can still be read */
};

/* Starts to connect. from: NULL draws an address on the loopback and a port. uid is what
 * SO_PEERCRED shows. The handle lives until close, reset or sim_kernel_free(). A server's TCP
 * addresses exist from the start: 127.0.0.1, ::1, 192.0.2.1, 192.0.2.2, 2001:db8::1. */
struct sim_client *sim_connect(struct sim_kernel *k, const struct sockaddr *to, socklen_t len,
                               const struct sockaddr *from, socklen_t from_len, uint32_t uid);
enum sim_client_state sim_client_state(const struct sim_client *c);
/* How many bytes went into the client's send buffer (0: full, or not connected yet), or -EPIPE,
 * -ECONNRESET, -ECONNREFUSED. */
int sim_client_write(struct sim_client *c, const void *bytes, size_t len);
/* Bytes; 0: end of file; -EAGAIN: nothing now; -ECONNRESET; -ECONNREFUSED. */
int sim_client_read(struct sim_client *c, void *buf, size_t size);
size_t sim_client_readable(const struct sim_client *c);
/* Everything written has reached the broker's receive buffer. */
bool sim_client_flushed(const struct sim_client *c);
void sim_client_shutdown(struct sim_client *c); /* SHUT_WR */
/* A dead network: nothing travels either way while paused. A client that only does not read needs
 * no call. */
void sim_client_pause(struct sim_client *c, bool paused);
void sim_client_close(struct sim_client *c); /* frees the handle */
void sim_client_reset(struct sim_client *c); /* RST instead of FIN; frees the handle */
/* As getsockname() of the client. */
void sim_client_address(const struct sim_client *c, struct sockaddr_storage *ret,
                        socklen_t *ret_len);
/* The address exists on the host, or not (bind to it then is -EADDRNOTAVAIL). "::1", "192.0.2.9" */
void sim_host_address(struct sim_kernel *k, const char *text, bool present);

/* ---- UDP peers -------------------------------------------------------------------------- */

struct sim_udp;
struct sim_udp *sim_udp_open(struct sim_kernel *k, const struct sockaddr *from, socklen_t len);
void sim_udp_send(struct sim_udp *u, const struct sockaddr *to, socklen_t len, const void *bytes,
                  size_t size);
/* Bytes (0 is an empty datagram), or -EAGAIN. ret_from: which address of the server it was sent
 * from. */
int sim_udp_recv(struct sim_udp *u, void *buf, size_t size, struct sockaddr_storage *ret_from);
void sim_udp_close(struct sim_udp *u);

/* ---- files ------------------------------------------------------------------------------ */

/* The directories "/", "." and "/tmp" exist from the start. A file has two images, what the page
 * cache shows and what is on disk; so have the names, those of directories too. fsync moves a file,
 * but not its name; sync_directory() moves the names of one directory. A failed fsync moves some of
 * what was written, by chance, and forgets that the rest was not moved: the next one succeeds and
 * proves nothing, as in the kernel. */
void sim_mkdir(struct sim_kernel *k, const char *path);
/* Replaces; both images. */
void sim_file_put(struct sim_kernel *k, const char *path, const void *bytes, size_t len);
/* The page cache's image; NULL: no such file. Until the file changes. */
const char *sim_file_get(struct sim_kernel *k, const char *path, size_t *ret_len);
/* The power fails: descriptors, connections, rings and pool jobs are gone (calls on them answer
 * -EBADF, enter -EBADFD). Names are what was synced, and of the changes since then a prefix or any
 * of them. Files are what was synced, and any of the 512-byte pieces written since, so that writes
 * are torn and have holes; their size is anything from that on disk to that in the cache. The clock
 * goes on. What the engine held in memory is the test's to throw away; ring_teardown() may still be
 * called. Then a new engine can be started on the same disk. */
void sim_power_cut(struct sim_kernel *k);
/* The process is killed: the page cache stays, everything else is gone as above; requests and jobs
 * that have not begun never do. A power cut after it still loses what was not synced. */
void sim_process_kill(struct sim_kernel *k);

/* ---- looking inside --------------------------------------------------------------------- */

enum sim_request_state {
    SIM_QUEUED, /* an SQE that the kernel has not taken yet */
    SIM_LIVE,
    SIM_DONE, /* its last completion is in the CQ (or the overflow list), not reaped */
};
struct sim_request {
    const struct ring *ring;
    uint64_t user_data;
    enum sim_request_state state;
    int fd; /* as it was given in the SQE; -1: SIM_DONE */
    uint8_t opcode;
    bool multishot;
};
/* Every request that the engine still owes attention. A connection's in_flight must be the number
 * of those that carry its slot, generation and a receive's or send's kind. */
void sim_each_request(const struct sim_kernel *k,
                      void (*fn)(void *arg, const struct sim_request *request), void *arg);
/* SIM_LIVE ones of an open descriptor; opcode -1: any. */
unsigned sim_requests(const struct sim_kernel *k, int fd, int opcode);
unsigned sim_requests_live(const struct sim_kernel *k);
/* Open descriptors: 0 at the end of a run. */
unsigned sim_descriptors(const struct sim_kernel *k);
bool sim_descriptor_open(const struct sim_kernel *k, int fd);
/* Sockets, files and so on that something still holds, open or not. */
unsigned sim_files_held(const struct sim_kernel *k);
/* Provided buffers of a group: given to the kernel, and held by the engine. false: no such group.
 * free + lent is the number of different buffers ever given. Buffers that the engine wrote to the
 * ring but the kernel has not looked at count as free. */
bool sim_buffers(struct sim_kernel *k, const struct ring *r, uint16_t group, unsigned *ret_free,
                 unsigned *ret_lent);
unsigned sim_jobs_waiting(const struct sim_kernel *k);
/* The first thing the engine did that none may do, or NULL. */
const char *sim_violation(const struct sim_kernel *k);
/* For people: descriptors, requests, rings. */
void sim_describe(const struct sim_kernel *k, FILE *out);

#endif
