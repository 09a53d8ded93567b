#ifndef RODA_BUS_BUS_H
#define RODA_BUS_BUS_H
/*
 * The bus: messages, who sent them, filters, lanes, the mailboxes between workers, receipts,
 * answers, and the fan-out. One struct bus per worker.
 *
 * It calls plugins through dense arrays of hooks that the plugin layer fills before the first
 * turn; it knows no plugin by name.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/chain.h"
#include "base/list.h"
#include "base/slab.h"
#include "net/connection.h"
#include "net/net.h"
#include "net/out.h"
#include "ring/file.h"
#include "roda/plugin.h"

struct bus;

/* A plugin instance on one worker, as the core sees it. The core itself is instance 0. */
struct context {
    struct roda_ctx public; /* what the plugin sees; first */
    struct bus *bus;
    const struct roda_plugin *plugin; /* NULL: the core */
    const char *name;
    uint32_t instance;
    uint32_t offloads; /* under way */
    int start_result;  /* RODA_LATER: its start() goes on; see host.c */
    bool unstarted;    /* its start() was not called yet: items wait in early */
    struct chain_node *early_oldest, *early_newest;
    _Atomic int64_t *metrics;
    struct lane_event *deferred_oldest, *deferred_newest; /* publish filters: see lane.c */
    struct list timers;
    void *host; /* the plugin layer's */
};

static inline struct context *context_of(struct roda_ctx *x)
{
    return (struct context *)(void *)x;
}

struct hook { /* one plugin's function of one stage */
    struct context *context;
    union {
        roda_filter_fn *filter;
        void (*report)(struct roda_ctx *x, struct roda_conn *c);
        void (*closed)(struct roda_ctx *x, struct roda_conn *c, const char *reason, int shutdown);
        void (*charged)(struct roda_ctx *x, struct roda_conn *c, uint32_t cost);
    };
    bool off; /* roda_filter_use() */
};

enum stage {
    STAGE_ACCEPT,
    STAGE_INPUT,
    STAGE_SUBMIT,
    STAGE_ADMIT,
    STAGE_PUBLISH,
    STAGE_DELIVER,
    STAGE_OPENED,
    STAGE_READY,
    STAGE_CLOSED,
    STAGE_CHARGED,
    STAGES
};

struct hooks {
    struct hook *hooks;
    uint32_t n, on;
};

#define BUS_COUNTERS(X)                                                                            \
    X(messages_submitted, "messages submitted by connections and plugins")                         \
    X(messages_published, "events that left a lane")                                               \
    X(messages_numbered, "events that got a number")                                               \
    X(messages_refused, "messages refused")                                                        \
    X(messages_dropped, "messages dropped by a filter")                                            \
    X(refused_rate, "messages refused: too fast")                                                  \
    X(refused_timeout, "messages refused: held longer than max_delay")                             \
    X(refused_memory, "messages refused: out of memory")                                           \
    X(deliveries, "messages put into a send queue by a fan-out")                                   \
    X(encodes, "messages encoded")                                                                 \
    X(answers, "answers given to senders")                                                         \
    X(items_posted, "items posted to other workers")                                               \
    X(items_run, "items run from the mailbox")                                                     \
    X(receipts, "receipts sent")                                                                   \
    X(receipts_withheld, "times receipts were withheld because a worker lags")                     \
    X(inputs_waited_credit, "times input waited for receipts")                                     \
    X(inputs_waited_settled, "times a unit waited until nothing was under way")                    \
    X(inputs_waited_route, "times a message waited for another destination or a window")           \
    X(turns, "turns of the loop")                                                                  \
    X(turns_unfinished, "turns that could not finish their mailbox")                               \
    X(turns_over_budget, "turns longer than the budget")

struct bus_counters {
#define X(name, help) _Atomic uint64_t name;
    BUS_COUNTERS(X)
#undef X
    _Atomic uint64_t under_way; /* gauge: messages of this worker's connections */
    _Atomic uint64_t lanes_length;
};
#define BUS_COUNT(bus, name)      ring_add(&(bus)->counters.name, 1)
#define BUS_ADD(bus, name, count) ring_add(&(bus)->counters.name, (count))

/* What a connection may have under way, and a pair of workers (design: F1). */
#define BUS_UNDER_WAY_MAX       64u
#define BUS_UNDER_WAY_BYTES_MAX (64u << 10)
#define BUS_WINDOW_BYTES        (UINT64_C(8) << 20)

/* A worker as the others see it. */
struct mailbox {
    struct chain chain;
    struct ring *ring; /* to wake */
    /* Per sending worker: bytes of items that were run. Written here, read by the sender. */
    _Atomic uint64_t *consumed;
    _Atomic uint32_t *waiting; /* per sending worker: it wants to be woken when consumed grows */
    _Atomic bool closed;       /* shutdown: roda_inject() is refused */
    _Atomic uint32_t pushing;  /* odd: its worker is pushing to the others; see mailbox.c */
};

struct outbox { /* this worker's items for one other, of this turn */
    struct chain_node *newest, *oldest;
    uint64_t bytes;        /* of those */
    uint64_t posted_bytes; /* ever */
    uint64_t routed_bytes; /* messages of this worker under way to that home */
    struct receipts *receipts;
};

/* Whose code runs: for the line on a fatal signal, and to name who makes a turn slow. What is
 * nested deeper counts for the hook at that depth. */
#define BUS_BLAME_DEPTH 16u
struct blame {
    const char *plugin; /* NULL: the core */
    const char *stage;
    uint64_t since_ns; /* if timed */
    uint64_t inner_ns; /* of it, in calls inside */
};

struct bus {
    uint32_t worker, n_workers;
    struct net *net;
    struct ring *ring;
    struct wheel *wheel;
    struct files *files;
    uint64_t budget_ns; /* of a turn */

    uint64_t now_ms;
    int64_t time_ns;

    struct context core;       /* instance 0 */
    struct context **contexts; /* by instance; [0] is &core */
    uint32_t n_contexts;
    struct hooks stages[STAGES];
    struct context *owners[RODA_KIND_MAX + 1];

    struct mailbox *mailboxes;                      /* of all workers; shared */
    struct outbox *outboxes;                        /* per worker; [worker] is the one to oneself */
    struct chain_node *after_newest, *after_oldest; /* roda_post_after(), all workers */
    bool receipts_held;
    struct chain_node *undone; /* taken from the mailbox, not run yet */
    uint64_t *consumed;        /* per sending worker, not told yet */

    struct slab_heap heap;
    struct slab_batch batch;

    struct list window_waits; /* struct waiting: their head event waits for a window */
    struct list go_on;        /* struct waiting: their head event may be tried again */
    struct answer *answers_oldest, *answers_newest;
    struct answer *answer_reserve; /* one, kept for when memory is out */
    struct list tickets;           /* struct waiting whose head event is deferred in submit */
    uint64_t next_ticket;
    uint64_t next_serial;
    struct list lanes_resumed; /* inside roda_resume_oldest() */
    bool window_opened;        /* a receipt came since window_waits were tried */

    struct list encodings;
    uint32_t chunks_owned;
    struct chunk *shared_chunk;
    struct roda_msg *encoded; /* the message whose encodings are current; a reference */
    uint64_t encode_serial;
    uint32_t appended; /* deliveries of this turn, bounds the drain */

    bool stopping;           /* no input any more: under way drains */
    bool cancelling;         /* items are run with -ECANCELED: plugins stop */
    bool reporting_shutdown; /* closed() reports are not published as leaves */

    const struct roda_msg *arriving;       /* in arrive(): not published nor refused yet */
    struct blame running[BUS_BLAME_DEPTH]; /* what runs now, innermost at depth - 1 */
    uint32_t depth;
    uint32_t timed_turns; /* so many more turns each hook is timed; see blame.c */
    struct blame slowest; /* of this turn */
    uint64_t slowest_ns;

    struct bus_counters counters;
};

struct bus_options {
    uint32_t worker, n_workers;
    struct net *net;
    struct ring *ring;
    struct wheel *wheel;
    struct files *files;
    struct mailbox *mailboxes;
};
int bus_init(struct bus *bus, const struct bus_options *options);
void bus_deinit(struct bus *bus);
extern const struct net_hooks bus_net_hooks; /* owner: struct bus */

/* The mailboxes of n workers; the rings are set by their workers' start. */
int mailboxes_new(uint32_t n, struct mailbox **ret);
void mailboxes_free(struct mailbox *mailboxes, uint32_t n);

/* ---- parts of a turn (order matters: see main/worker.c) --------------------------------- */

/* Runs what others posted before now; false: budget spent, some are left. */
bool mailbox_drain(struct bus *bus);
/* Runs items to oneself; then pushes to the others, then what comes after. True: something ran
 * on this worker, so more may have been posted. */
bool mailbox_flush(struct bus *bus);
bool mailbox_idle(const struct bus *bus); /* nothing to drain or push */
/* A plugin is started: runs the items that came for it before that. */
void mailbox_run_early(struct bus *bus, struct context *context);
/* Gives the answers queued by roda_refuse(), roda_answer() and filters. */
void answers_give(struct bus *bus);
/* Lets waiting connections go on that may. */
void inputs_go_on(struct bus *bus);
bool inputs_may_go_on(const struct bus *bus); /* some may: there has to be another turn */
/* Whether the worker may sleep. Looks at everything that others change before they wake it. */
bool mailbox_quiet(struct bus *bus);
/* Cancels what waits in the mailbox and outboxes, and whatever is still to come: at shutdown. */
void mailbox_cancel(struct bus *bus);
/* At shutdown: reports the connections that are gone and still wait for receipts. */
void inputs_abandon(struct bus *bus);

/* blame.c: begins and ends a call into a plugin. */
uint64_t bus_clock_ns(const struct bus *bus);
void bus_timed(struct bus *bus, const struct blame *blame, struct blame *outer);

static inline void bus_enter(struct bus *bus, const char *plugin, const char *stage)
{
    struct blame *blame;

    if (bus->depth++ >= BUS_BLAME_DEPTH)
        return;
    blame = &bus->running[bus->depth - 1];
    blame->plugin = plugin;
    blame->stage = stage;
    blame->since_ns = bus->timed_turns ? bus_clock_ns(bus) : 0;
    blame->inner_ns = 0;
}

static inline void bus_leave(struct bus *bus)
{
    const struct blame *blame;

    if (--bus->depth >= BUS_BLAME_DEPTH)
        return;
    blame = &bus->running[bus->depth];
    if (blame->since_ns)
        bus_timed(bus, blame, bus->depth ? &bus->running[bus->depth - 1] : NULL);
}

/* NULL: nobody's hook. [signal handlers too] */
static inline const struct blame *bus_running(const struct bus *bus)
{
    uint32_t depth = bus->depth < BUS_BLAME_DEPTH ? bus->depth : BUS_BLAME_DEPTH;

    return depth && bus->running[depth - 1].plugin ? &bus->running[depth - 1] : NULL;
}

/* ---- inside the bus --------------------------------------------------------------------- */

/* message.c: what stands before every struct roda_msg. */
struct message {
    _Atomic uint32_t references;
    uint32_t flags;    /* MESSAGE_* */
    struct bus *home;  /* where its memory came from */
    uint32_t instance; /* who owns its kind */
    uint32_t bytes;
    struct roda_item reserve; /* carries the receipt home when no memory is left for one */
    struct roda_msg public;
};
enum {
    MESSAGE_ROUTED = 1,   /* under way: its sender gets a receipt */
    MESSAGE_ANSWERED = 2, /* at the home: distributed or refused */
    MESSAGE_FAILED = 4,   /* no memory to distribute it: its sender is told with the receipt */
    MESSAGE_SHOWN = 8,    /* distributed: members know its number */
};
static inline struct message *message_of(const struct roda_msg *msg)
{
    return container_of((uintptr_t)msg, struct message, public);
}

/* mailbox.c */
void bus_post(struct bus *bus, uint32_t worker, uint32_t instance, struct roda_item *item,
              bool after);
/* A receipt for one message of a connection, pushed after everything of this turn. */
void bus_receipt(struct bus *bus, struct roda_msg *msg);
/* Bytes posted to a worker that it did not run yet. */
uint64_t bus_outstanding(const struct bus *bus, uint32_t worker);

/* fanout.c */
int fanout_attach(struct bus *bus, struct roda_conn *c); /* at open: variant 0 */
void fanout_detach(struct bus *bus, struct roda_conn *c);
void fanout_end_turn(struct bus *bus); /* lets go of the last message */
void fanout_deinit(struct bus *bus);

/* input.c: why input waits; roda_conn.waits. */
enum {
    WAIT_SETTLED = 1, /* a unit said RODA_AGAIN: until nothing is under way */
    WAIT_CREDIT = 2,  /* too much under way */
    WAIT_EVENT = 4,   /* an event of this connection is held */
    WAIT_FILTER = 8,  /* an accept or input filter delays */
    WAIT_END = 16,    /* the peer has ended: closed when nothing is under way */
    WAIT_LAST = 32,   /* it is being closed: last words come behind all answers */
};
void input_receipts(struct bus *bus, roda_conn_id id, uint32_t count, uint32_t bytes);
void input_settled(struct roda_conn *c);                 /* nothing may be under way any more */
void input_accept(struct bus *bus, struct roda_conn *c); /* asks the accept filters, opens */

/* lane.c: tells a message's sender, at its place in the order of what this worker posts. */
void lane_answer(struct bus *bus, struct roda_msg *msg, uint32_t instance, uint32_t code,
                 struct roda_str text);

/* answer.c */
/* Queues an answer; takes no reference of msg but its own. */
void answer_queue(struct bus *bus, roda_conn_id to, uint32_t code, struct roda_str text,
                  struct roda_msg *msg);
/* At once; from an item that stands at its place in the order. */
void answer_give(struct bus *bus, struct roda_conn *c, uint32_t code, struct roda_str text,
                 const struct roda_msg *msg);
const char *answer_sentence(uint32_t code); /* a default reason */
void answers_free(struct bus *bus);

/* filter.c: one verdict of one hook; reject's code and text lie in the decision. */
struct decision {
    roda_verdict verdict;
    uint32_t code;
    uint64_t delay_ms;
    uint64_t ticket;
    char text[200];
};
struct event { /* what struct roda_event is the first part of */
    struct roda_event public;
    struct bus *bus;
    struct decision decision;
    bool home;        /* in arrive(): a refusal travels */
    bool settled;     /* routed, refused or answered */
    bool window;      /* roda_route() said RODA_LATER because of the window to that worker */
    bool replaceable; /* in a submit filter */
};
/* The reason's 200 bytes are not touched, which hardly any event needs. */
static inline void event_begin(struct event *event, struct bus *bus, struct roda_conn *c,
                               struct roda_msg *msg, size_t bytes)
{
    event->public = (struct roda_event){.conn = c, .msg = msg, .bytes = bytes};
    event->bus = bus;
    event->decision.verdict = RODA_PASS;
    event->decision.code = 0;
    event->decision.delay_ms = event->decision.ticket = 0;
    event->decision.text[0] = '\0';
    event->home = event->settled = event->window = event->replaceable = false;
}
void filter_run(struct bus *bus, const struct hook *hook, const char *stage, struct event *event);
/* From hook *index on: the first that does not pass decides; *index says which. */
void filters_run(struct bus *bus, enum stage stage, uint32_t *index, struct event *event);

#endif
