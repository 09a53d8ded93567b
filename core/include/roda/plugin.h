#ifndef RODA_PLUGIN_H
#define RODA_PLUGIN_H
/*
 * roda plugin interface: the one header a plugin needs. Services of other plugins have a
 * header each beside this one (<roda/rooms.h>).
 *
 * A plugin is a shared object that exports one constant, made by RODA_PLUGIN(). The core reads
 * its ABI from an ELF note before any code of the plugin runs, copies the constant, and calls
 * what it points to. The plugin calls the roda_*() functions, which the roda executable exports.
 *
 * GLOSSARY
 *   unit        what a line, a WebSocket message or a record in a datagram carries, without its
 *               line end or frame. A protocol decodes and encodes whole units.
 *   message     struct roda_msg: what somebody asks (TEXT, JOIN ...) and what others are told.
 *   person      struct roda_person: who somebody is. Immutable; a change makes a new one.
 *   owner       the one plugin that carries out a kind of message (rooms owns all of them).
 *   home        the worker that orders a destination (a room). Everything that happens in the
 *               room happens there, in one order.
 *   lane        a FIFO of events at the home: entered in order, left in order.
 *   number      the place of a message in its room, 1 upwards, given at the home.
 *   epoch       names one unbroken run of numbers of a room.
 *   receipt     "published and pushed to every worker with members, or refused".
 *   under way   submitted by a connection and not yet receipted.
 *   place       a gap in a connection's send queue that is filled later.
 *   answer      what the sender of a message learns, exactly once per message.
 *
 * A MESSAGE'S WAY
 *   input (filters, per unit) -> decode -> submit (filters) -> handle (owner, sender's worker)
 *   -> roda_route -> arrive (owner, home) -> roda_lane_publish: admit (filters) -> number and
 *   time -> publish (filters: PASS or DEFER only) -> the lane's function (owner, home)
 *   -> roda_distribute -> distributed (owner, each worker with members) -> roda_fanout
 *   -> deliver (filters, only for connections that asked) -> encode -> send queue.
 *   On the sender's worker, at the same place in the order: protocol->answer.
 *
 * THREADS    [main]    start-up, check and shutdown; no worker runs this instance then
 *            [worker]  the thread of this ctx; calls for one ctx are never concurrent
 *            [any]     every thread
 *            Hooks and functions without a tag are [worker]. No hook may block: nothing else on
 *            that worker runs until it returns.
 * REENTRANCE No report (opened, ready, closed, answer, ...) runs inside a roda_*() call, except
 *            that roda_fanout and roda_send call encode and deliver filters, roda_submit calls
 *            submit filters and handle, roda_lane_publish admit and publish filters and the
 *            lane's function, roda_charge charged. A connection closed by a call is reported at
 *            the end of the turn.
 * OWNERSHIP  Arguments are borrowed for the call. "Takes" moves a reference in, also when the
 *            call fails; "returns a reference" moves one out. Pointers handed to a hook are
 *            valid until it returns unless said otherwise.
 * ERRORS     int: 0, or a negative errno and no effect. A callback given to a call that failed
 *            never runs; otherwise it runs exactly once, with -ECANCELED if cancelled (timers
 *            apart: they repeat, and stop silently). Verdicts are never errors.
 * UNITS      In the name: _ms, _ns, _bytes. Text is UTF-8, with a length, not NUL-terminated.
 * FORK       A plugin must not fork without exec; its own threads block all signals.
 * ABI        Same major, and plugin minor <= core minor, or the plugin is not loaded. Minor:
 *            append only; structs the core makes may grow at the end; structs a plugin fills
 *            begin with a size or lie in a table with a stride; numbers of enumerations are
 *            never reused. A filter passes kinds it does not know, an encoder writes nothing
 *            for them. Only struct roda_str is passed by value, and it is frozen for ever.
 *            While major is 0 there is no promise yet.
 *   0.1      First version.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RODA_ABI_MAJOR 0u
#define RODA_ABI_MINOR 1u
#define RODA_ABI       ((RODA_ABI_MAJOR << 16) | RODA_ABI_MINOR)

#define RODA_EXPORT       __attribute__((visibility("default")))
#define RODA_PRINTF(f, a) __attribute__((format(printf, f, a)))

struct roda_conn;        /* a connection or datagram session; lives on one worker */
struct roda_out;         /* a byte builder inside the core's own memory */
struct roda_place;       /* see roda_place_new() */
struct roda_timer;       /* see roda_timer_start() */
struct roda_file;        /* see roda_file_open() */
struct roda_lane;        /* see roda_lane_new() */
struct roda_conf_errors; /* where check() reports */
struct sockaddr;

struct roda_str {
    const char *ptr; /* never NULL in what the core hands out; not NUL-terminated */
    size_t len;
};
#define RODA_STR(literal) ((struct roda_str){("" literal), sizeof(literal) - 1})

/* worker:8 | slot:24 | generation:32. Never 0. A stale id finds nothing. */
typedef uint64_t roda_conn_id;
#define RODA_CONN_WORKER(id) ((uint32_t)((id) >> 56))

/* One plugin instance (a [plugin NAME] section) on one worker. The core owns it and its memory:
 * conf is replaced whole, state is zeroed before start(). */
struct roda_ctx {
    const void *conf;   /* conf_size bytes, filled from the option table */
    void *state;        /* state_size bytes, this worker's own; NULL in [main] */
    void *shared;       /* set by init(); the same pointer on all workers afterwards */
    uint32_t worker;    /* 0 .. n_workers - 1 */
    uint32_t n_workers; /* at most 256 */
};

/* ---- people ----------------------------------------------------------------------------- */

/* Who somebody is: immutable, counted, readable by every worker. */
struct roda_person;

enum {
    RODA_PERSON_NICK,    /* unique on this broker; never empty */
    RODA_PERSON_ACCOUNT, /* empty: not logged in */
    RODA_PERSON_HOST,    /* the host shown to others; never an address unless conf says so */
    RODA_PERSON_NAME,    /* real name, free text */
    RODA_PERSON_AWAY,    /* empty: here */
    RODA_PERSON_DOOR,    /* the protocol they came by: "line", "irc" ... */
    RODA_PERSON_FIELDS
};

/* Makes a person of RODA_PERSON_FIELDS texts, each at most 512 bytes; copies them. id says "the
 * same person" across changes; 0 draws a new one. Returns a reference, or NULL: memory is out
 * or a text fails roda_text_check(). */
struct roda_person *roda_person_make(struct roda_ctx *x, uint64_t id,
                                     const struct roda_str fields[RODA_PERSON_FIELDS]);
struct roda_person *roda_person_ref(const struct roda_person *person); /* [any] */
void roda_person_unref(const struct roda_person *person);              /* [any]; NULL is a no-op */
struct roda_str roda_person_get(const struct roda_person *person, uint32_t field); /* [any] */
uint64_t roda_person_id(const struct roda_person *person);                         /* [any] */

/* ---- messages --------------------------------------------------------------------------- */

/* struct roda_msg.kind */
enum {
    RODA_NONE = 0,     /* */
                       /* Numbered: history keeps them and every member is shown them. */
    RODA_TEXT = 1,     /* to, text */
    RODA_NOTICE = 2,   /* to, text: from programs; never answered by programs */
    RODA_TOPIC = 3,    /* to, text: the new topic, may be empty */
    RODA_KICK = 4,     /* to, subject: nick put out, text: reason */
    RODA_MODE = 5,     /* to, subject: what or who, text: the change, e.g. "+o" */
    RODA_RENAME = 6,   /* to, text: the room's new name */
                       /* Presence: no number; they keep their place after number `prev`. */
    RODA_JOIN = 16,    /* to; subject: the key, on the way in */
    RODA_PART = 17,    /* to, text: reason */
    RODA_QUIT = 18,    /* text: reason */
    RODA_NICK = 19,    /* text: the new nick */
    RODA_AWAY = 20,    /* text: why, empty: back */
    RODA_TYPING = 21,  /* to */
    RODA_INVITE = 22,  /* to, subject: nick invited */
    RODA_KIND_MAX = 63 /* kinds are 1 .. 63 */
};
#define RODA_KIND_BIT(kind)      (UINT64_C(1) << (kind))
#define RODA_KIND_NUMBERED(kind) ((kind) >= RODA_TEXT && (kind) < RODA_JOIN)

/* struct roda_msg.flags */
enum {
    RODA_MSG_DROPPABLE = 1, /* may be lost by a slow reader (typing) */
    RODA_MSG_ACTION = 2,    /* TEXT: "/me"; the text is what the sender does */
    RODA_MSG_DIRECT = 4,    /* `to` is a nick, not a room */
    RODA_MSG_MULTILINE = 8, /* LF inside text is allowed */
    RODA_MSG_FORCED = 16,   /* by the broker or an operator, not by who it happens to */
    RODA_MSG_CLOSED = 32,   /* said where not everybody could enter; the owner of rooms says so */
};

/* A key that begins with '.' is between plugins: protocols show it to nobody. */
struct roda_tag {
    struct roda_str key, value;
};

/* Made by the core only. Its owner may change it while one worker holds the only reference (`to`
 * to a canonical form that lives as long); frozen from roda_lane_publish() on, when any worker may
 * read it. */
struct roda_msg {
    uint32_t kind;
    uint32_t flags;
    uint64_t number;   /* place in the room; 0: none (presence, or not numbered yet) */
    uint64_t prev;     /* the number before this event in the room */
    uint64_t epoch;    /* of the room; 0: not known yet */
    int64_t time_ns;   /* CLOCK_REALTIME, given at the home; never runs back within a room */
    roda_conn_id from; /* 0: not from a connection */
    uint64_t token;    /* the sending protocol's own; shown to nobody else */
    const struct roda_person *sender; /* NULL: the broker itself */
    const struct roda_person *after;  /* NICK, AWAY: the person after the change; else NULL */
    struct roda_str to;               /* room or nick as typed, later its canonical form */
    struct roda_str subject;
    struct roda_str text;
    const struct roda_tag *tags;
    uint32_t n_tags;
};

struct roda_msg_init {
    uint32_t size; /* sizeof(struct roda_msg_init) */
    uint32_t kind, flags, n_tags;
    roda_conn_id from;
    uint64_t token;
    const struct roda_person *sender, *after; /* the message takes references of its own */
    struct roda_str to, subject, text;
    const struct roda_tag *tags;
};

/* The one gate for text. Copies everything once. Returns a reference, or NULL with *ret_error
 * (may be NULL) set to -ENOMEM, -EILSEQ (not UTF-8), -EINVAL (NUL, CR, or a control character
 * the rule of roda_text_check() forbids, in any field) or -E2BIG (over 64 kB in all). */
struct roda_msg *roda_msg_make(struct roda_ctx *x, const struct roda_msg_init *init,
                               int *ret_error);
struct roda_msg *roda_msg_ref(struct roda_msg *msg); /* [any] */
void roda_msg_unref(struct roda_msg *msg);           /* [any]; NULL is a no-op */

enum {
    RODA_TEXT_LINE = 0,      /* one line: no LF */
    RODA_TEXT_MULTILINE = 1, /* LF allowed */
    RODA_TEXT_NICK = 2,      /* a nick: see docs/line-protocol.md, "Names" */
    RODA_TEXT_ROOM = 3,      /* a room name, without '#' */
};
/* 0, or why the text is not allowed; its first fault decides. [any]
 * -EILSEQ: not UTF-8 as RFC 3629 has it (overlong, a surrogate, above U+10FFFF, cut off).
 * -EINVAL, lines: C0 controls but TAB, 02 03 0F 11 16 1D 1E 1F (IRC's formatting) and, in
 *   MULTILINE, LF; DEL; U+0080-009F; U+2028-202E, U+2066-2069 (separators; bidi embeddings,
 *   overrides, isolates). All else may pass, also joiners, U+FEFF and unassigned code points.
 * -EINVAL, names: of ASCII all but letters, digits, _ - [ ] \ ^ { } | ` and in rooms . and /
 *   Beyond ASCII: categories C* and Z*, what shows nothing (default ignorable, U+2800), and a
 *   combining mark first. First in a nick: a digit, '-' or '['; in a room: '.' or '/'; a part
 *   of a room's name between slashes that is "." or "..".
 * -ENAMETOOLONG: a name that is empty, a nick over 32 bytes, a room over 64.
 * A name's NFC form must pass as well. Another rule: -EINVAL. */
int roda_text_check(struct roda_str text, uint32_t rule);
/* The form names are compared by: NFC, ASCII case folded. Writes at most size bytes to buf and
 * returns the length, or -EILSEQ / -ENOBUFS. [any] */
int roda_text_fold(struct roda_str name, char *buf, size_t size);

/* ---- verdicts --------------------------------------------------------------------------- */

typedef uint32_t roda_verdict;
enum {
    RODA_PASS = 0,   /* the next filter decides */
    RODA_DROP = 1,   /* discard without a word; the sender's answer says so to its protocol */
    RODA_REJECT = 2, /* refuse and tell the sender: only by roda_reject() */
    RODA_DELAY = 3,  /* try this same filter again later: only by roda_delay() */
    RODA_DEFER = 4,  /* decide later: only by roda_defer(); in publish simply returned */
};

/* why something is refused; struct roda_answer.code */
enum {
    RODA_OK = 0,
    RODA_E_DROPPED = 1,   /* a filter dropped it */
    RODA_E_UNKNOWN = 2,   /* no owner for this kind */
    RODA_E_NO_ROOM = 3,   /* no such room */
    RODA_E_NO_PERSON = 4, /* no such nick */
    RODA_E_NOT_MEMBER = 5,
    RODA_E_ALREADY = 6, /* member already, same topic ... */
    RODA_E_NAME = 7,    /* a name that is not allowed */
    RODA_E_TAKEN = 8,   /* nick in use */
    RODA_E_BANNED = 9,
    RODA_E_KEY = 10, /* room key missing or wrong */
    RODA_E_INVITE_ONLY = 11,
    RODA_E_MODERATED = 12,
    RODA_E_RANK = 13,    /* needs a rank the sender does not have */
    RODA_E_FULL = 14,    /* room, broker or connection has as many as it may */
    RODA_E_RATE = 15,    /* too fast */
    RODA_E_STORAGE = 16, /* cannot be stored now */
    RODA_E_TIMEOUT = 17, /* held back longer than max_delay */
    RODA_E_MEMORY = 18,  /* out of memory */
    RODA_E_SHUTDOWN = 19,
    RODA_E_TEXT = 20,     /* text that is not allowed */
    RODA_E_ARGUMENT = 21, /* missing or malformed argument */
    RODA_E_TARGET = 22,   /* the person or member aimed at is not there */
    RODA_E_AUTH = 23,
};

struct roda_event {
    struct roda_conn *conn; /* the sender on this worker; NULL: at the home, or no connection */
    struct roda_msg *msg;   /* NULL in accept and input */
    size_t bytes;           /* input: length of the unit; else of the text */
};

/* Use them to return from a filter: return roda_reject(ev, RODA_E_RATE, "slow down"); */
roda_verdict roda_reject(struct roda_event *ev, uint32_t code, const char *fmt, ...)
    RODA_PRINTF(3, 4);
/* accept, input, submit. The connection's input waits, in order, and then the same filter is
 * asked again. Once it is held for max_delay in all, that is a last time: if it still delays, the
 * core refuses with RODA_E_TIMEOUT. In input, a datagram that is too long cannot wait: there, a
 * delay counts as passed. */
roda_verdict roda_delay(struct roda_event *ev, uint64_t delay_ms);
/* submit. *ret_ticket names the event to roda_resume(); input of the connection waits. */
roda_verdict roda_defer(struct roda_event *ev, uint64_t *ret_ticket);
/* Once per defer, with PASS or DROP, or REJECT by text. -ESTALE: the connection has gone. */
int roda_resume(struct roda_ctx *x, uint64_t ticket, roda_verdict verdict, uint32_t code,
                struct roda_str text);
/* submit only. Takes msg (from and token copied from the old one), which the next filter sees
 * instead. Returns RODA_PASS. */
roda_verdict roda_replace(struct roda_event *ev, struct roda_msg *msg);

enum { RODA_FILTER_INPUT = 1, RODA_FILTER_SUBMIT = 2, RODA_FILTER_ADMIT = 4 };
/* Whether these filters of this instance (RODA_FILTER_* or'ed) are asked on this worker; at first
 * all are. One that has nothing to decide now, since an option is off or nothing is wrong, then
 * costs no message anything. At any time from start() on, inside filters too. What waits for the
 * verdict of one that is turned off has passed it when it is tried again. */
void roda_filter_use(struct roda_ctx *x, uint32_t filters, int on);

/* ---- submitting, and what an owner does ------------------------------------------------- */

struct roda_answer {
    uint32_t code;              /* RODA_OK: published (or done); else why not */
    uint32_t kind;              /* of the message */
    uint64_t token;             /* of the message */
    struct roda_str text;       /* why not, one sentence without a full stop; may be empty */
    const struct roda_msg *msg; /* the message; with number, epoch and time where it has them.
                                   NULL, and kind RODA_NONE: an input filter refused a unit */
};

/* Takes msg. Runs the submit filters, then the owner's handle(). While something is under way
 * to another destination, a window is full or a filter delays, the core keeps the message and
 * lets no later input of this connection pass. Exactly one answer() follows, later or (when
 * refused at once) at the end of the turn. c is msg->from's connection; NULL: the message is
 * the plugin's own (no answer; msg->sender says who). */
void roda_submit(struct roda_ctx *x, struct roda_conn *c, struct roda_msg *msg);

/* 1: nothing of this connection is under way. 0: something is; decode() may return RODA_AGAIN
 * and will be called again with the same unit once nothing is. Replies that must not overtake
 * (PONG, acknowledgements) ask this first. */
int roda_settled(const struct roda_conn *c);

/* handle(): what an owner returns. */
enum {
    RODA_HANDLED = 0, /* routed by roda_route(), or answered, or will be by roda_answer() */
    RODA_LATER = 1,   /* call handle() again when nothing of this connection is under way */
};
/* Sends ev's message on to its home, where the owner's arrive() runs. Returns RODA_HANDLED, or
 * RODA_LATER (return that): earlier messages of this connection are under way to another
 * destination, or the window to that worker is full. */
int roda_route(struct roda_ctx *x, struct roda_event *ev, uint32_t worker, uint64_t destination);
/* Answers ev's message on the sender's worker instead of routing it. In arrive(): refuses it;
 * the answer travels to the sender's worker in order. arrive() publishes or refuses the message
 * before it returns; else the core refuses it with RODA_E_UNKNOWN. Text is copied. */
void roda_refuse(struct roda_ctx *x, struct roda_event *ev, uint32_t code, const char *fmt, ...)
    RODA_PRINTF(4, 5);
/* Answers a message handled without a route: runs protocol->answer at the end of the turn. Until
 * then nothing of the connection is settled; who answers in a later turn holds it meanwhile. */
void roda_answer(struct roda_ctx *x, struct roda_conn *c, uint32_t code, struct roda_str text,
                 struct roda_msg *msg);
/* Stops and restarts a connection's input; calls count, at most 255 at once. */
void roda_conn_hold(struct roda_conn *c);
void roda_conn_release(struct roda_conn *c);

/* A lane orders what happens in one destination, at its home. fn runs once per event, in order,
 * after every publish filter let it go; msg is borrowed. result < 0: storage refused it
 * (-ENOSPC, -EIO): nobody may be shown it, and the number is lost. */
typedef void roda_lane_fn(struct roda_ctx *x, void *arg, struct roda_msg *msg, int result);
int roda_lane_new(struct roda_ctx *x, roda_lane_fn *fn, void *arg, struct roda_lane **ret_lane);
/* NULL is a no-op; must be empty. In the lane's own function: it is gone when that returns. */
void roda_lane_free(struct roda_lane *lane);
/* Where the lane stands; the owner sets it before the first event. time_ns: of the last message
 * before, 0 if there is none; later ones are not older. */
void roda_lane_set(struct roda_lane *lane, uint64_t epoch, uint64_t number, int64_t time_ns);
uint64_t roda_lane_epoch(const struct roda_lane *lane);
uint64_t roda_lane_number(const struct roda_lane *lane); /* the last one given */
size_t roda_lane_length(const struct roda_lane *lane);   /* events inside */
/* Takes msg. Admit filters (refused: answered, fn does not run), number (if the kind has one),
 * prev, epoch and time, publish filters, then fn: perhaps before this returns. What comes from
 * connections is bounded by their windows; of messages that were not routed (msg->from is 0) a
 * lane holds at most 4096: -ENOBUFS. */
int roda_lane_publish(struct roda_ctx *x, struct roda_lane *lane, struct roda_msg *msg);
/* publish filters: lets go the n oldest events that this instance deferred on this worker, in
 * all lanes. O(1) each. Returns how many there were. */
size_t roda_resume_oldest(struct roda_ctx *x, size_t n, int result);

struct roda_workers { /* a set of workers */
    uint64_t bits[4];
};
#define RODA_WORKERS_ADD(set, w) ((set)->bits[(w) >> 6] |= UINT64_C(1) << ((w)&63))
#define RODA_WORKERS_HAS(set, w) (((set)->bits[(w) >> 6] >> ((w)&63)) & 1)
/* In a lane's function: one item to each worker of the set, where distributed() of this plugin
 * runs, in the order of the calls; and the answer to the sender's worker, whether it is in the
 * set or not. Takes a reference of its own. -ENOMEM: nobody is told but the sender, whose answer
 * is RODA_E_MEMORY; -EALREADY: it was distributed or refused already. */
int roda_distribute(struct roda_ctx *x, struct roda_msg *msg, const struct roda_workers *workers,
                    uint64_t destination);
/* In a lane's function, instead of roda_distribute(): the sender is told, nobody else. */
void roda_lane_refuse(struct roda_ctx *x, struct roda_msg *msg, uint32_t code,
                      struct roda_str text);

/* ---- connections ------------------------------------------------------------------------ */

roda_conn_id roda_conn_getid(const struct roda_conn *c);
/* NULL: elsewhere, or gone (also between its end and closed()). */
struct roda_conn *roda_conn_find(struct roda_ctx *x, roda_conn_id id);
/* conn_size bytes of this plugin, zeroed at accept; never NULL if conn_size > 0 and the plugin
 * serves this connection's listener (every plugin does that has filters, reports or the
 * protocol). Must hold no pointer into itself. */
void *roda_conn_data(struct roda_ctx *x, const struct roda_conn *c);
/* The plugin's conf as overridden by this connection's listener. */
const void *roda_conn_conf(struct roda_ctx *x, const struct roda_conn *c);
const struct roda_person *roda_conn_person(const struct roda_conn *c); /* NULL: none yet */
/* Takes a reference. */
void roda_conn_set_person(struct roda_conn *c, struct roda_person *person);
/* The peer as text: "192.0.2.7 port 40112", "unix uid 1000". Writes at most size bytes with a
 * NUL to buf and returns it. Masked if messages.mask_addresses says so. */
const char *roda_conn_peer_text(const struct roda_conn *c, char *buf, size_t size);
/* Valid until the next call on this thread. */
const struct sockaddr *roda_conn_peer(const struct roda_conn *c);
struct roda_str roda_conn_listener(const struct roda_conn *c);  /* [listener NAME] */
struct roda_str roda_conn_protocol(const struct roda_conn *c);  /* "line" */
struct roda_str roda_conn_transport(const struct roda_conn *c); /* "tcp", "udp", "unix" */
/* Later encodes for this connection use this variant. The upper 8 bits are the core's. */
void roda_conn_set_variant(struct roda_conn *c, uint32_t variant);
uint32_t roda_conn_variant(const struct roda_conn *c);
/* on: deliver filters run for this connection. */
void roda_conn_ask_deliver(struct roda_conn *c, int on);
/* The handshake is over: ends handshake_timeout; ready() of all plugins runs this turn. When it is
 * closed later, it has write_timeout to take what lies in the kernel, others have a second. */
void roda_conn_ready(struct roda_conn *c);
/* After what is queued has been sent. The reason goes to the broker's messages, to closed()
 * and, where the protocol has a word for it, to the client. Idempotent. */
void roda_conn_close(struct roda_conn *c, const char *fmt, ...) RODA_PRINTF(2, 3);
/* Tells the charged() hook of every plugin that a command was dear. */
void roda_charge(struct roda_ctx *x, struct roda_conn *c, uint32_t cost);

/* One message to one connection, or to n of them; encoded once per (protocol, variant) and
 * shared. Queued in call order with roda_conn_out(). msg->from is left out of a fan-out. What
 * does not fit the limits is the core's matter: callers need no error path. */
void roda_send(struct roda_ctx *x, struct roda_conn *c, struct roda_msg *msg);
void roda_fanout(struct roda_ctx *x, struct roda_msg *msg, struct roda_conn *const *conns,
                 size_t n);
/* A reply: bytes of this protocol for this connection alone, built in its queue without a copy.
 * Valid until the hook returns or the next roda_conn_out() or roda_place_out(). Never NULL. In
 * datagram sessions only whole units are sent. */
struct roda_out *roda_conn_out(struct roda_conn *c);

/* [worker]; in encode() only on the out that was passed. A failure (memory) is remembered by
 * the core, which closes the connection; callers need no error path. */
void roda_out_put(struct roda_out *out, struct roda_str bytes);
void roda_out_printf(struct roda_out *out, const char *fmt, ...) RODA_PRINTF(2, 3);
void roda_out_unit(struct roda_out *out); /* ends a unit; the transport adds its line end, frame */
/* How many bytes a unit may have here (a datagram's share); SIZE_MAX: no bound. */
size_t roda_out_limit(const struct roda_out *out);

/* The general callback. For a place: result 0: what was before it has drained, write the next
 * piece; -ECANCELED: the connection is gone, and so is the place. */
typedef void roda_done_fn(struct roda_ctx *x, void *arg, int result);
/* An entry of the send queue that is filled later; what is queued behind it waits. more runs
 * once soon, and again each time the piece before has drained, until roda_place_end(). */
int roda_place_new(struct roda_ctx *x, struct roda_conn *c, roda_done_fn *more, void *arg,
                   struct roda_place **ret_place);
struct roda_out *roda_place_out(struct roda_place *place); /* valid as roda_conn_out()'s */
void roda_place_wait(struct roda_place *place); /* nothing to write now: more() not before ... */
void roda_place_wake(struct roda_place *place); /* ... this was called */
void roda_place_end(struct roda_place *place);  /* the place is gone */

/* ---- protocols: units to messages, messages to units ------------------------------------ */

/* A datagram's sender, before there is a session. */
struct roda_peer {
    const struct sockaddr *address;
    struct roda_str listener;
    uint64_t core[2]; /* the core's own */
};

/* struct roda_protocol.framing */
enum {
    RODA_LINES = 0, /* LF or CRLF ends a unit; so does the end of the stream or datagram */
    RODA_RAW = 1,   /* bytes as they come: what is there is a unit, which filters judge as one */
};
/* struct roda_protocol.flags */
enum {
    RODA_PROTOCOL_HANDSHAKE = 1, /* handshake_timeout applies until roda_conn_ready() */
};
/* decode() */
enum {
    RODA_TAKEN = 0,
    RODA_AGAIN = 1, /* the same unit again, once nothing of this connection is under way */
    RODA_BAD = 2,   /* protocol error: close (after roda_conn_close() gave the reason) */
};

struct roda_protocol {
    const char *name; /* "line": as in [listener x] protocol = line; NULL ends the table */
    uint32_t framing;
    uint32_t flags;          /* RODA_PROTOCOL_* */
    uint32_t unit_max_bytes; /* 0: limits.line_bytes */
    /* Bits of the variant that matter, per kind: RODA_KIND_MAX + 1 entries; NULL: all do. */
    const uint32_t *variant_masks;
    void (*opened)(struct roda_ctx *x, struct roda_conn *c);
    /* Streams: the first bytes that came, before any unit, once; it may be one byte. RODA_TAKEN:
     * go on; RODA_BAD: not for this protocol, close. For what never sends a line end (TLS). */
    int (*first)(struct roda_ctx *x, struct roda_conn *c, struct roda_str bytes);
    int (*decode)(struct roda_ctx *x, struct roda_conn *c, struct roda_str unit);
    /* A unit was longer than it may be and is gone; bytes is what was seen of it. Streams: when
     * four times the limit went by without a line end, the core closes after this. */
    void (*oversize)(struct roda_ctx *x, struct roda_conn *c, size_t bytes);
    /* No connection, so that its bytes can be shared by all of one variant. Writes nothing for
     * kinds it does not know. */
    void (*encode)(struct roda_ctx *x, const struct roda_msg *msg, uint32_t variant,
                   struct roda_out *out);
    /* Exactly one per submitted message, at its place in the room's order. */
    void (*answer)(struct roda_ctx *x, struct roda_conn *c, const struct roda_answer *answer);
    /* Nothing came for idle_ping; if nothing comes for ping_timeout after that either, the core
     * closes. NULL: silence is welcome (TCP's keepalive finds the dead). */
    void (*idle)(struct roda_ctx *x, struct roda_conn *c);
    /* The connection will be closed by the core or a plugin for this reason: last words. Comes
     * behind the answers to all that is under way; these may take until write_timeout. */
    void (*closing)(struct roda_ctx *x, struct roda_conn *c, const char *reason);
    /* A datagram without a session. 1: the sender proved its address (roda_cookie()): the core
     * opens a session, and decodes *ret_rest, a part of in; 0: send what out holds, at most 10
     * bytes; negative: silence. */
    int (*knock)(struct roda_ctx *x, const struct roda_peer *peer, struct roda_str in,
                 struct roda_out *out, struct roda_str *ret_rest);
};
/* Stateless proof of an address (RFC 6347 section 4.2.1): ret[0] this 16 s slot's, ret[1] the
 * one before it. Accept both, hand out ret[0]. Keys rotate in the core. */
void roda_cookie(struct roda_ctx *x, const struct roda_peer *peer, uint64_t ret[2]);

/* Transports above or below TLS (WebSocket, PROXY). Reserved: declared with its first user. */
struct roda_layer;

/* ---- time, randomness, timers, memory --------------------------------------------------- */

uint64_t roda_now_ms(struct roda_ctx *x); /* monotonic, read once a turn; never 0 */
int64_t roda_time_ns(struct roda_ctx *x); /* CLOCK_REALTIME, read once a turn */
void roda_random(struct roda_ctx *x, void *buf, size_t size);
uint64_t roda_hash(struct roda_str bytes);        /* SipHash-2-4, key per process. [any] */
uint64_t roda_hash_stable(struct roda_str bytes); /* the same on every machine, for ever. [any] */
/* period 0: once; the timer is gone when fn has run. NULL: memory is out. */
struct roda_timer *roda_timer_start(struct roda_ctx *x, uint64_t delay_ms, uint64_t period_ms,
                                    roda_done_fn *fn, void *arg);
void roda_timer_stop(struct roda_timer *timer); /* NULL is a no-op */
/* Zeroed. NULL: memory is out. Free on any worker. [any] */
void *roda_alloc(struct roda_ctx *x, size_t size);
void *roda_realloc(struct roda_ctx *x, void *ptr, size_t size);
void roda_free(struct roda_ctx *x, void *ptr);

/* ---- other workers, other threads, other plugins ---------------------------------------- */

/* First member of a struct of yours. The memory is yours again when run() is called. */
struct roda_item {
    struct roda_item *next; /* the core's */
    void (*run)(struct roda_ctx *x, struct roda_item *item, int result);
    uint32_t instance; /* the core's */
    uint32_t bytes;    /* what it keeps alive, for the window between the two workers */
};
/* run() is called exactly once, on that worker with its ctx of this plugin, not before start()
 * there, in the order of posts per pair of workers; -ECANCELED at shutdown. To oneself: later in
 * this turn, or in the next one; never inside the call. */
void roda_post(struct roda_ctx *x, uint32_t worker, struct roda_item *item);
/* Like roda_post(), but pushed after everything that this worker posts in this turn, to
 * whomever: what run() then causes cannot overtake it. Receipts are made of this. */
void roda_post_after(struct roda_ctx *x, uint32_t worker, struct roda_item *item);
/* [any] thread, for engine libraries. -ESHUTDOWN: not taken. x is any ctx of this instance;
 * run() is called on x's worker. */
int roda_inject(struct roda_ctx *x, struct roda_item *item);
/* Runs work on a small pool of threads, done on this worker. -EAGAIN: this plugin has 64 under
 * way. A connection may be gone when done runs: find it by id. */
int roda_offload(struct roda_ctx *x, void (*work)(void *arg), roda_done_fn *done, void *arg);
/* The interface that another plugin offers, e.g. "rooms/1"; NULL: not loaded or not declared in
 * needs, or called before start(). *ret_ctx is that plugin's ctx on this worker. */
const void *roda_service(struct roda_ctx *x, const char *id, struct roda_ctx **ret_ctx);

/* ---- files: all through the ring; the names are paths ----------------------------------- */

enum {
    RODA_FILE_READ = 1,
    RODA_FILE_APPEND = 2, /* create if missing; appended to by this worker alone */
    RODA_FILE_LOCK = 4,   /* with RODA_FILE_APPEND: -EBUSY while somebody else, of another broker as
                             well, has it open so. A broker that is killed holds nothing */
};
typedef void roda_open_fn(struct roda_ctx *x, void *arg, struct roda_file *file, int result);
typedef void roda_read_fn(struct roda_ctx *x, void *arg, struct roda_str bytes, int result);
typedef void roda_list_fn(struct roda_ctx *x, void *arg, const struct roda_str *names, size_t n,
                          int result);
/* Asynchronous (a thread of the core's pool opens). fn gets the file or a negative errno. */
int roda_file_open(struct roda_ctx *x, const char *path, uint32_t mode, roda_open_fn *fn,
                   void *arg);
uint64_t roda_file_size(const struct roda_file *file); /* what is appended and not yet written
                                                          counts */
/* Copies; written within some ten milliseconds, at once if a sync or the close waits for it, and
 * seen by reads at once. Returns the offset at which bytes stand, or -ENOBUFS (1 MB waits),
 * -EMSGSIZE (more than 1 MB at once), or the error that an earlier write met: the file takes
 * nothing more. In the callback of a roda_file_sync() nothing waits of what was appended before
 * that was asked for: that is how to learn when the file takes more. */
int64_t roda_file_append(struct roda_file *file, struct roda_str bytes);
/* fn(0): all that was appended before this call is on disk (fdatasync). */
int roda_file_sync(struct roda_file *file, roda_done_fn *fn, void *arg);
/* Sees what is appended but not yet written. fn gets 0 .. len bytes (short at the end). */
int roda_file_read(struct roda_file *file, uint64_t offset, size_t len, roda_read_fn *fn,
                   void *arg);
/* Cuts the file off at size bytes, which is not more than it has, and syncs it. Nothing may be
 * under way in it (its own callbacks are not), and nothing is appended before fn: -EBUSY. A failure
 * is one of the file, as of a write. */
int roda_file_truncate(struct roda_file *file, uint64_t size, roda_done_fn *fn, void *arg);
/* Has the file system set disk space aside for the first size bytes; the file does not grow by it.
 * A large size takes long: ask in steps. fn gets -ENOSPC, or -EOPNOTSUPP where there is no such
 * thing; the file is as usable as before. */
int roda_file_reserve(struct roda_file *file, uint64_t size, roda_done_fn *fn, void *arg);
void roda_file_close(struct roda_file *file); /* after what is queued; NULL is a no-op */
int roda_file_rename(struct roda_ctx *x, const char *from, const char *to, roda_done_fn *fn,
                     void *arg); /* and syncs the directory */
int roda_file_remove(struct roda_ctx *x, const char *path, roda_done_fn *fn, void *arg);
int roda_file_list(struct roda_ctx *x, const char *directory, roda_list_fn *fn, void *arg);
/* Makes one directory, mode 0750, and syncs the one it lies in. 0 if there is one already. */
int roda_directory_make(struct roda_ctx *x, const char *path, roda_done_fn *fn, void *arg);

/* Ends a start() that returned RODA_LATER, once: 0, or a negative errno, which ends the broker.
 * Not inside start(). After stop(): nothing happens. */
void roda_started(struct roda_ctx *x, int result);

/* ---- the broker's messages and metrics -------------------------------------------------- */

enum { RODA_LOG_ERROR = 3, RODA_LOG_WARNING, RODA_LOG_NOTICE, RODA_LOG_INFO, RODA_LOG_DEBUG };
void roda_log(struct roda_ctx *x, uint32_t level, const char *fmt, ...)
    RODA_PRINTF(3, 4); /* [any] */

enum { RODA_COUNTER, RODA_GAUGE };
struct roda_metric {
    const char *name; /* "rooms_joins_total"; NULL ends the table */
    uint32_t type;
    const char *help;
};
/* Adds to this worker's value of the index-th metric of this plugin. */
void roda_count(struct roda_ctx *x, uint32_t index, int64_t n);
/* Reads every metric of core and plugins: once per worker and metric, metrics outermost; a total
 * is the sum. */
typedef void roda_metric_fn(void *arg, const struct roda_metric *metric, const char *plugin,
                            uint32_t worker, int64_t value);
void roda_metrics_read(struct roda_ctx *x, roda_metric_fn *fn, void *arg);

/* ---- options: one table feeds parser, --dump, --plugin-help, conf/roda.conf and the manual -- */

/* the field's C type in parentheses */
enum {
    RODA_T_BOOL = 1, /* yes, no (int) */
    RODA_T_INT,      /* (int64_t) */
    RODA_T_BYTES,    /* 512, 4k, 1M, 10G: x 1024 (int64_t) */
    RODA_T_MS,       /* 250ms 30s 5m 12h 7d; 0 (int64_t) */
    RODA_T_RATE,     /* "2/s burst 10", "off" (struct roda_rate) */
    RODA_T_STRING,   /* (const char *), "" if empty */
    RODA_T_PATH,     /* (const char *), "" if empty */
    RODA_T_CHOICE,   /* one of choices (int64_t: its index) */
    RODA_T_LIST,     /* commas or a repeated key (struct roda_list) */
    RODA_T_MODE,     /* octal permission bits: 0660 (int64_t) */
};
struct roda_rate {
    int64_t count;  /* 0: off */
    int64_t per_ms; /* s, m, h */
    int64_t burst;  /* at least 1 */
};
struct roda_list {
    const struct roda_str *items; /* NUL-terminated each */
    size_t n;
};
/* struct roda_option.flags */
enum {
    RODA_OPTION_LISTENER = 1, /* a listener may override it: NAME.key = value */
    RODA_OPTION_NEW = 2,      /* a reload changes it for new connections only */
    RODA_OPTION_RESTART = 4,  /* a reload refuses to change it */
};
struct roda_option {
    const char *name; /* lower_snake_case; NULL ends the table */
    uint32_t type;
    uint32_t offset;     /* of the field in the conf struct */
    const char *initial; /* the default, as one would write it; NULL: must be given */
    int64_t min, max;    /* numbers, sizes, durations; text: length; lists: items. 0, 0: any */
    const char *choices; /* CHOICE: "never|interval|always"; else NULL */
    uint32_t flags;
    const char *help; /* one line, lower case, no full stop */
};
/* For check(): reported with file and line of that option, or of the section. Returns -EINVAL. */
int roda_conf_error(struct roda_conf_errors *errors, const char *option, const char *fmt, ...)
    RODA_PRINTF(3, 4);

/* ---- the plugin ------------------------------------------------------------------------- */

struct roda_service_table {
    const char *id; /* "rooms/1"; NULL ends the table */
    const void *interface;
};

typedef roda_verdict roda_filter_fn(struct roda_ctx *x, struct roda_event *ev);

struct roda_plugin {
    uint32_t abi, size; /* first: they protect the rest */
    const char *name, *summary, *version;
    uint32_t conf_size, state_size, conn_size, flags;             /* flags: 0 */
    uint16_t option_size, metric_size, protocol_size, layer_size; /* strides: tables may grow */
    uint16_t service_size, reserved[3];
    const struct roda_option *options;
    const struct roda_metric *metrics;
    const struct roda_protocol *protocols;
    const struct roda_layer *layers; /* NULL */
    const struct roda_service_table *services;
    const char *const *needs; /* "rooms/1", "history/1?" (? optional); NULL ends it */
    uint64_t kinds;           /* RODA_KIND_BIT()s that this plugin owns */

    /* Life: check, init, start on each worker, { hooks }, stop on each worker, fini. Start
     * follows needs; listeners open after every start; stop is the reverse. */
    int (*check)(const void *conf, struct roda_conf_errors *errors); /* [main] no side effects */
    int (*init)(struct roda_ctx *x);                                 /* [main] */
    /* RODA_LATER: it goes on, and roda_started() ends it; timers, files and items work meanwhile,
     * and what needs this plugin starts after it. */
    int (*start)(struct roda_ctx *x);
    /* After every start() that returned 0 or RODA_LATER, whatever came of it. What it still has
     * under way in files is finished before the broker ends; their callbacks come after it. */
    void (*stop)(struct roda_ctx *x);
    void (*fini)(struct roda_ctx *x); /* [main] */

    /* Filters, in the order of the [plugin] sections; one verdict each. */
    roda_filter_fn *accept;  /* the peer's address is known: PASS, DROP, REJECT, DELAY */
    roda_filter_fn *input;   /* a unit came, not decoded yet: PASS, DROP, REJECT, DELAY */
    roda_filter_fn *submit;  /* sender's worker: all verdicts */
    roda_filter_fn *admit;   /* home, before the number: PASS, DROP, REJECT */
    roda_filter_fn *publish; /* home, with number and time: PASS, DEFER */
    roda_filter_fn *deliver; /* ev->conn is the receiver: PASS, DROP */

    /* The owner of kinds. */
    int (*handle)(struct roda_ctx *x, struct roda_event *ev);
    void (*arrive)(struct roda_ctx *x, struct roda_event *ev, uint64_t destination);
    void (*distributed)(struct roda_ctx *x, struct roda_msg *msg, uint64_t destination);

    /* Reports. They decide nothing. */
    void (*opened)(struct roda_ctx *x, struct roda_conn *c); /* before the protocol's */
    void (*ready)(struct roda_ctx *x, struct roda_conn *c);
    void (*closed)(struct roda_ctx *x, struct roda_conn *c, const char *reason,
                   int shutdown); /* last use of c; nothing of it is under way */
    void (*charged)(struct roda_ctx *x, struct roda_conn *c, uint32_t cost);
    void (*reopen)(struct roda_ctx *x); /* SIGUSR1: files that others rotate are opened anew */
};

/* The ELF note the core reads before it lets the loader run any of the plugin's code. */
#define RODA_NOTE_NAME "roda"
#define RODA_NOTE_TYPE 1u
struct roda_note {
    uint32_t name_size, desc_size, type;
    char name[8]; /* "roda", padded */
    uint32_t abi, size;
};

#ifndef RODA_PLUGIN_SYMBOL /* static builds and tests give each plugin its own */
#define RODA_PLUGIN_SYMBOL roda_plugin_entry
#endif
#define RODA_PLUGIN(...)                                                                           \
    __attribute__((section(".note.roda"), used, aligned(4))) static const struct roda_note         \
        roda_plugin_note = {5, 8, RODA_NOTE_TYPE, "roda", RODA_ABI, sizeof(struct roda_plugin)};   \
    RODA_EXPORT extern const struct roda_plugin RODA_PLUGIN_SYMBOL;                                \
    const struct roda_plugin RODA_PLUGIN_SYMBOL = {.abi = RODA_ABI,                                \
                                                   .size = sizeof(struct roda_plugin),             \
                                                   .option_size = sizeof(struct roda_option),      \
                                                   .metric_size = sizeof(struct roda_metric),      \
                                                   .protocol_size = sizeof(struct roda_protocol),  \
                                                   .service_size =                                 \
                                                       sizeof(struct roda_service_table),          \
                                                   __VA_ARGS__}

#ifdef __cplusplus
}
#endif
#endif
