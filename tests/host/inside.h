#ifndef RODA_TESTHOST_INSIDE_H
#define RODA_TESTHOST_INSIDE_H
/* What the files of the host share. The model stands in host.c. */
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "testhost.h"

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

struct link {
    struct link *next, *prev;
};

/* Bytes, and where units in them end. */
struct bytes {
    char *data;
    size_t len, room;
    size_t *ends;
    size_t n_ends, room_ends;
};

struct roda_out {
    struct bytes *to;
    size_t unit_start, limit;
    uint32_t framing;
    bool failed;
    struct roda_conn *conn; /* NULL: of an encode or a knock */
};

struct message {
    struct roda_msg msg;
    struct testhost *host;
    struct link link;
    uint32_t refs;
    size_t bytes;
    bool owed;      /* an answer and a receipt go back to msg.from: it was routed */
    bool awaiting;  /* handled without a route: roda_answer() is owed */
    bool published; /* stamped by a lane */
};

struct roda_person {
    struct testhost *host;
    struct link link;
    uint32_t refs;
    uint64_t id;
    struct roda_str fields[RODA_PERSON_FIELDS];
};

/* A message on its way through the submit filters and handle(). */
enum held_state { HELD_FRESH, HELD_DELAYED, HELD_DEFERRED, HELD_RESUMED, HELD_LATER };
struct held {
    struct link link;
    struct message *msg;
    enum held_state state;
    uint32_t at;                 /* the instance whose filter is next */
    uint64_t until_ms, since_ms; /* since: of the first hold; 0: never held */
    uint64_t ticket;
    roda_verdict verdict;
    uint32_t code;
    char *text;
    struct worker *window; /* LATER because of the window to it */
};

/* Who submits: a connection, or (conn NULL) a plugin on one worker. */
struct source {
    struct roda_conn *conn;
    struct worker *worker;
    struct link queue; /* struct held, oldest first */
    bool running;
    uint32_t under_way; /* routed, handled, or with an answer that has not run */
    uint32_t routed;    /* those with a destination */
    size_t under_way_bytes;
    uint32_t home;
    uint64_t destination;
};

struct instance;
struct context { /* an instance on one worker */
    struct roda_ctx x;
    struct instance *instance; /* NULL: the core's own */
    struct worker *worker;     /* NULL: [main] */
    struct link deferred;      /* struct lane_event, by their deferral */
    struct source source;
    int64_t *metrics;
    uint32_t off;     /* RODA_FILTER_*: roda_filter_use() */
    bool started;     /* its start() was called, its stop() was not */
    int start_result; /* RODA_LATER: it goes on */
};

struct instance {
    struct roda_plugin plugin; /* copied, zeroed where its own is smaller */
    struct testhost *host;
    uint32_t index;
    size_t n_metrics;
    void *conf;
    struct context main;
    struct context *contexts; /* one per worker */
    uint32_t offloads;
    uint64_t allocations; /* alive */
    bool initialised;
};

struct listener {
    struct listener *next;
    char *name, *transport;
    const struct roda_protocol *protocol;
    struct instance *owner;
    void **confs; /* per instance; NULL: not overridden */
};

struct event { /* an event with what a filter says about it */
    struct roda_event ev;
    struct event *outer;
    struct instance *instance;
    int stage; /* TESTHOST_ACCEPT ...; STAGE_HANDLE, STAGE_ARRIVE */
    uint32_t code;
    char *text;
    uint64_t delay_ms, ticket;
    bool answered, routed; /* in handle() */
    bool rejected, delayed, deferred;
    struct source *source;
    struct held *held;
    struct message *replaced; /* the message before roda_replace() */
};
enum { STAGE_HANDLE = TESTHOST_STAGES, STAGE_ARRIVE };

struct answer { /* waits for the end of the turn */
    struct link link;
    roda_conn_id conn;
    uint32_t code, kind;
    uint64_t token;
    char *text;
    struct message *msg; /* may be NULL */
    size_t bytes;
};

enum parcel_kind { PARCEL_ARRIVE, PARCEL_SHARE, PARCEL_RECEIPT };
struct parcel { /* the core's own items */
    struct roda_item item;
    enum parcel_kind kind;
    struct instance *owner;
    struct message *msg;
    uint64_t destination;
    bool distribute, answer;
    uint32_t code;
    char *text;
    roda_conn_id conn;
    size_t bytes;
};
#define INSTANCE_CORE UINT32_MAX

struct post {
    struct worker *to;
    struct roda_item *item;
};
struct posts {
    struct post *list;
    size_t n, room;
};

struct slot {
    struct roda_conn *conn;
    uint32_t generation;
};

struct worker {
    struct testhost *host;
    uint32_t index;
    struct context core; /* for parcels */
    struct roda_item *mailbox, **mailbox_end;
    struct roda_item *early, **early_end; /* for plugins whose start() was not called */
    uint32_t next_start;                  /* in host.order */
    struct posts out, after;
    struct link answers; /* struct answer */
    struct link timers;  /* struct roda_timer, by time */
    struct link jobs;    /* struct job: offloads and file requests */
    struct link lanes, places, files;
    struct slot *slots;
    uint32_t n_slots;
    bool started;
};

struct entry { /* of a send queue: bytes, or a place with its piece */
    struct link link;
    struct bytes bytes;
    struct roda_place *place;
};

struct roda_place {
    struct link link;
    struct entry *entry;
    struct roda_conn *conn;
    struct context *context;
    roda_done_fn *more;
    void *arg;
    bool waiting, ended;
    struct roda_out out;
};

struct roda_timer {
    struct link link;
    struct context *context;
    uint64_t at_ms, period_ms, serial;
    roda_done_fn *fn;
    void *arg;
    bool running, stopped;
};

enum conn_stage { CONN_ACCEPTING, CONN_OPEN, CONN_CLOSING };
struct roda_conn {
    struct testhost_conn *client;
    struct testhost *host;
    struct worker *worker;
    roda_conn_id id;
    struct listener *listener;
    enum conn_stage stage;
    bool datagram;

    void **data; /* per instance; NULL: has none */
    struct roda_person *person;
    uint32_t variant, holds;
    bool asks_deliver, ready, ready_due, shutdown, no_words, closing_told, opened;
    char *reason;
    uint64_t closing_since_ms;
    uint32_t *charges;
    size_t n_charges;

    /* accept and input filters: the one that is next, and when */
    uint32_t at;
    uint64_t until_ms, since_ms;
    /* the unit at hand */
    char *unit;
    size_t unit_len;
    bool unit_oversize, unit_passed, unit_again, close_after_unit, first_seen;
    size_t skipped;

    struct source source;
    struct link queue; /* struct entry */
    struct roda_out out;
};

struct packet {
    struct link link;
    size_t len;
    char data[];
};

struct testhost_conn {
    struct testhost_conn *next;
    struct testhost *host;
    struct worker *worker;
    struct roda_conn *conn; /* NULL: closed */
    roda_conn_id id;
    struct link packets; /* sent and not read */
    struct bytes input;  /* read and not decoded */
    bool end_of_input, reset, stopped_reading, closed;
    struct bytes received;
    char *taken;
    char *reason;
    struct { /* room for any address */
        _Alignas(8) char bytes[128];
    } peer;
    char peer_text[96];
};

struct roda_lane {
    struct link link;
    struct context *context;
    roda_lane_fn *fn;
    void *arg;
    uint64_t epoch, number, shown; /* shown: the last one that was distributed */
    int64_t time_ns;
    struct link events; /* struct lane_event */
    size_t length, unrouted;
    struct link resumed; /* inside roda_resume_oldest() */
    bool running, freed;
};

struct memory { /* in front of what roda_alloc() returns */
    struct link link;
    struct instance *instance;
    size_t size;
    _Alignas(16) char data[];
};

struct disk_file {
    struct disk_file *next;
    char *path;
    struct bytes bytes;
    size_t written; /* all that handles see which did not append the rest */
    size_t synced;
    uint64_t reserved;
    uint32_t opened; /* handles */
    bool appended;   /* some handle may append */
    bool removed;
};

struct testhost {
    uint32_t n_workers;
    struct worker *workers;
    struct instance **instances;
    uint32_t n_instances;
    uint32_t *order; /* of start */
    struct listener *listeners;
    struct testhost_conn *clients;
    bool started, stopping, cancelling, stopped;

    uint64_t now_ms, max_delay_ms, send_queue_bytes, serial;
    int64_t time_ns;
    size_t progress;
    uint64_t allocations, fail_at;
    bool *full_windows; /* from * n_workers + to */
    bool hold_offloads, hold_files, hold_writes;
    char hold_path[64];
    char keep_path[64];
    int write_error;
    int64_t core_metrics[5];
    uint8_t hash_key[16];
    uint64_t random;

    struct event *event;           /* innermost */
    struct lane_event *lane_event; /* whose lane function runs */
    struct instance *hook_instance;
    const char *hook;
    struct roda_out *out; /* the one that is valid, of roda_conn_out() or roda_place_out() */

    pthread_mutex_t lock; /* injected, log, and the lists below */
    struct posts injected;
    struct link messages, persons, memory;
    char **log, **complaints;
    size_t n_log, n_complaints;
    char *error;
    struct disk_file *disk;
};

enum { CORE_CONNECTIONS, CORE_MESSAGES, CORE_ENCODES, CORE_SENDS, CORE_UNITS };

/* host.c */
extern struct testhost *host_current;
void complain(struct testhost *h, const char *fmt, ...) RODA_PRINTF(2, 3);
void set_error(struct testhost *h, const char *fmt, ...) RODA_PRINTF(2, 3);
struct instance *host_find(const struct testhost *h, const char *plugin);
struct hook_before {
    struct instance *instance;
    const char *hook;
};
struct hook_before hook_enter(struct testhost *h, struct instance *instance, const char *hook);
void hook_leave(struct testhost *h, struct hook_before before);
static inline struct context *context_of(const struct roda_ctx *x)
{
    return container_of((char *)(uintptr_t)x, struct context, x);
}
static inline struct testhost *host_of(const struct roda_ctx *x)
{
    struct context *context = context_of(x);
    return context->instance ? context->instance->host : context->worker->host;
}
static inline struct roda_ctx *ctx_on(struct instance *instance, const struct worker *worker)
{
    return &instance->contexts[worker->index].x;
}
struct worker *worker_of(const struct roda_ctx *x); /* complains about [main] */

/* memory.c: get() never fails, may_get() fails on purpose */
void *get(size_t size);
void *may_get(struct testhost *h, size_t size);
void *grown(void *list, size_t n, size_t *room, size_t size);
char *copy_text(struct roda_str text);
char *formatted(const char *fmt, va_list args) RODA_PRINTF(1, 0);
void bytes_put(struct bytes *b, const void *data, size_t len);
void bytes_end_unit(struct bytes *b);
void bytes_take(struct bytes *b, size_t len); /* from the front */
void bytes_clear(struct bytes *b);
void list_init(struct link *head);
void list_append(struct link *head, struct link *node);
void list_remove(struct link *node);
static inline bool list_empty(const struct link *head)
{
    return head->next == head;
}
static inline struct link *list_first(const struct link *head)
{
    return head->next == head ? NULL : head->next;
}

/* message.c */
void message_unref(struct message *m);
static inline struct message *message_of(struct roda_msg *msg)
{
    return msg ? container_of(msg, struct message, msg) : NULL;
}
static inline struct message *message_ref(struct message *m)
{
    return message_of(roda_msg_ref(&m->msg));
}

/* submit.c */
void source_init(struct source *s, struct roda_conn *c, struct worker *w);
void source_run(struct source *s);
void source_drop_held(struct source *s); /* what a filter delays or defers */
void source_clear(struct source *s);
uint64_t source_wake_ms(const struct source *s); /* UINT64_MAX: not by time */
bool source_settled(const struct source *s);
void answer_later(struct roda_conn *c, uint32_t code, const char *text, struct message *m);
void answers_run(struct worker *w);
void answers_clear(struct worker *w);
/* Opens an event for a filter or hook; event_leave() frees what it collected. */
void event_enter(struct testhost *h, struct event *e, struct instance *instance, int stage,
                 struct roda_conn *c, struct message *m, size_t bytes);
void event_leave(struct testhost *h, struct event *e);
/* The filter's verdict, allowed at this stage. */
roda_verdict filter_run(struct testhost *h, struct event *e, roda_filter_fn *fn, struct worker *w);
extern const char *const stage_names[];

/* lane.c */
void post(struct posts *posts, struct worker *to, struct roda_item *item);
void posts_push(struct testhost *h, struct posts *posts);
void mailbox_run(struct worker *w);
void mailbox_run_early(struct worker *w);
void parcel_arrive(struct worker *from, struct worker *to, struct instance *owner,
                   struct message *m, uint64_t destination);
/* The answer and the receipt of a routed message go to its sender's worker. */
void parcel_refuse(struct worker *from, struct message *m, uint32_t code, const char *text);
void lane_free_all(struct worker *w);

/* connection.c */
void conn_input(struct roda_conn *c);
void conn_reports(struct worker *w); /* answers, ready, charged, closing, until there are none */
void conn_flush(struct worker *w);   /* places, sends, closed */
void conn_close(struct roda_conn *c, const char *reason, bool words);
struct roda_conn *conn_find(const struct worker *w, roda_conn_id id);
uint64_t conn_wake_ms(const struct roda_conn *c);
void conn_destroy(struct roda_conn *c);
void conn_protocol_answer(struct roda_conn *c, const struct roda_answer *answer);
bool instance_serves(const struct instance *i, const struct listener *l);
struct listener *listener_find(struct testhost *h, const char *name);

/* out.c */
void out_begin(struct roda_out *out, struct bytes *to, const struct listener *l, bool datagram,
               struct roda_conn *c);
void queue_bytes(struct roda_conn *c, const struct bytes *bytes);
size_t queue_length(const struct roda_conn *c);
void queue_pump(struct roda_conn *c);
bool queue_places(struct roda_conn *c); /* lets places be filled */
void queue_cancel(struct roda_conn *c); /* places, and what is queued */

/* time.c: timers, offloads */
void timers_run(struct worker *w);
uint64_t timers_wake_ms(const struct worker *w);
struct job { /* runs in a later turn; frees itself */
    struct link link;
    struct context *context;
    void (*run)(struct job *job, int result);
    bool is_file;
};
void job_add(struct context *context, struct job *job);
void jobs_run(struct worker *w);

/* file.c */
void files_free(struct testhost *h);
void files_write(struct worker *w);
bool file_is_held(const struct testhost *h, struct job *job); /* a file's */

/* options.c */
int options_fill(struct testhost *h, const struct instance *i, void *conf, const char *text,
                 const char *prefix, bool defaults);
void options_free(const struct instance *i, void *conf, const void *inherited);

/* plain.c */
extern const struct roda_plugin testhost_plain;
extern const struct roda_plugin testhost_script;
struct script {
    testhost_filter_fn *fn;
    void *arg;
};

#endif
