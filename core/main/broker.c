#include "main/broker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "main/machine.h"
#include "ring/file.h"

/*
 * From configuration to running workers and back. The phases are explained in the header; each has
 * an entry (done once by each worker) and a condition that must hold on a worker before it
 * arrives at the barrier. From the moment somebody asks to stop there is a deadline; after it
 * conditions no longer count.
 *
 * Two phases have rules of their own. PHASE_START ends on a worker when every plugin has started,
 * which may take many turns; a failure elsewhere, or a wish to stop, ends it early, and then the
 * broker goes to PHASE_STOP without ever having opened. PHASE_QUIET waits for what the plugins'
 * stop() left under way in files, however much of a hurry there is, but not for a disk that hangs:
 * then the process ends without an orderly teardown (broken), since the kernel still has memory of
 * it.
 */

#define RECEIVE_BUFFERS      1024u
#define RECEIVE_BUFFER_BYTES 2048u
#define LINGER_MS            1000u
#define FILES_MS             5000u
#define SQ_ENTRIES           4096u
#define CQ_ENTRIES_MIN       8192u
#define CQ_ENTRIES_MAX       65536u
/* Descriptors that are not connections: rings, eventfds, files, plugins. NET_SPARE is besides. */
#define DESCRIPTORS_BASE       64u
#define DESCRIPTORS_PER_WORKER 8u

/* ---- from the configuration ------------------------------------------------------------- */

static int fit_connections(struct broker *b, struct roda_conf_errors *errors)
{
    uint64_t descriptors = machine_descriptors(), reserve, room;
    uint64_t wanted = (uint64_t)b->conf->limits.max_connections;

    reserve = DESCRIPTORS_BASE + NET_SPARE +
              (uint64_t)b->n_workers * (DESCRIPTORS_PER_WORKER + b->n_addresses) +
              b->host->n_plugins * 4u;
    room = descriptors > reserve ? descriptors - reserve : 0;
    if (wanted > room) {
        if (conf_is_set(b->conf, "limits", "max_connections") || room < 16)
            return conf_error_at(errors, b->conf, "limits", "max_connections",
                                 "only %llu fit: this process may open %llu descriptors and needs "
                                 "%llu itself; "
                                 "raise the limit (ulimit -n, LimitNOFILE), or set it lower",
                                 (unsigned long long)room, (unsigned long long)descriptors,
                                 (unsigned long long)reserve);
        log_write(RODA_LOG_NOTICE, "main",
                  "max_connections is %llu instead of %llu: this process may open %llu "
                  "descriptors; raise the limit (ulimit -n, LimitNOFILE) for more",
                  (unsigned long long)room, (unsigned long long)wanted,
                  (unsigned long long)descriptors);
        wanted = room;
    }
    b->limits.max_connections = (uint32_t)wanted;
    return 0;
}

static void fit_rings(struct broker *b)
{
    uint64_t wanted = 4ull * b->limits.max_connections / b->n_workers;

    b->sq_entries = SQ_ENTRIES;
    b->cq_entries = CQ_ENTRIES_MIN;
    while (b->cq_entries < wanted && b->cq_entries < CQ_ENTRIES_MAX)
        b->cq_entries *= 2;
}

static int fill_settings(struct broker *b, const struct conf_listener *l,
                         struct listener_settings *s, struct roda_conf_errors *errors)
{
    static const enum transport transports[] =
        {[CONF_TCP] = TRANSPORT_TCP, [CONF_UDP] = TRANSPORT_UDP, [CONF_UNIX] = TRANSPORT_UNIX};
    uint32_t *offsets = NULL;
    const void **confs = NULL;
    int r;

    s->name = l->name;
    s->transport = transports[l->transport];
    s->protocol = host_protocol(b->host, l->protocol, &s->protocol_instance);
    if (!s->protocol)
        return -EINVAL;
    s->unit_max_bytes =
        s->protocol->unit_max_bytes ? s->protocol->unit_max_bytes : (uint32_t)l->limits.line_bytes;
    s->send_queue_bytes = (uint32_t)l->limits.send_queue_bytes;
    s->receive_queue_bytes = (uint32_t)l->limits.receive_queue_bytes;
    s->write_timeout_ms = (uint32_t)l->limits.write_timeout_ms;
    s->max_delay_ms = (uint32_t)l->limits.max_delay_ms;
    if (s->protocol->idle)
        s->idle_ping_ms = (uint32_t)l->limits.idle_ping_ms;
    s->ping_timeout_ms = (uint32_t)l->limits.ping_timeout_ms;
    if (s->protocol->flags & RODA_PROTOCOL_HANDSHAKE)
        s->handshake_timeout_ms = (uint32_t)l->limits.handshake_timeout_ms;
    s->session_timeout_ms = (uint32_t)l->limits.udp_session_timeout_ms;
    s->session_bytes = l->limits.udp_session_bytes;
    s->mode = (unsigned)l->mode;
    r = host_layout(b->host, l, s->protocol, errors, &offsets, &confs, &s->conn_data_bytes);
    s->data_offsets = offsets;
    s->confs = confs;
    return r;
}

static void fill_address(const struct conf_listener *l, const struct conf_address *from,
                         struct listener_address *a)
{
    if (!from) {
        a->address.local.sun_family = AF_UNIX;
        (void)snprintf(a->address.local.sun_path, sizeof a->address.local.sun_path, "%s", l->path);
        a->address_len = sizeof a->address.local;
        return;
    }
    if (from->family == AF_INET) {
        a->address.v4.sin_family = AF_INET;
        a->address.v4.sin_port = htons((uint16_t)l->port);
        memcpy(&a->address.v4.sin_addr, from->bytes, 4);
        a->address_len = sizeof a->address.v4;
    } else {
        a->address.v6.sin6_family = AF_INET6;
        a->address.v6.sin6_port = htons((uint16_t)l->port);
        memcpy(&a->address.v6.sin6_addr, from->bytes, 16);
        a->address_len = sizeof a->address.v6;
        a->dual_stack = !from->only_ipv6;
    }
}

static int fill_listeners(struct broker *b, struct roda_conf_errors *errors)
{
    size_t n = 0;
    char section[80];

    for (size_t i = 0; i < b->conf->n_listeners; i++)
        n += b->conf->listeners[i].n_addresses + 1;
    b->n_settings = b->conf->n_listeners;
    b->settings = memory_alloc(b->n_settings * sizeof *b->settings);
    b->addresses = memory_alloc(n * sizeof *b->addresses);
    if (!b->settings || !b->addresses)
        return -ENOMEM;
    for (size_t i = 0; i < b->n_settings; i++) {
        const struct conf_listener *l = &b->conf->listeners[i];
        struct conf_place place;
        size_t count = l->transport == CONF_UNIX ? 1 : l->n_addresses;
        int r = fill_settings(b, l, &b->settings[i], errors);
        if (r)
            return r;
        (void)snprintf(section, sizeof section, "listener %s", l->name);
        place = conf_place(b->conf, section, "address");
        for (size_t j = 0; j < count; j++) {
            struct listener_address *a = &b->addresses[b->n_addresses++];
            a->settings = &b->settings[i];
            a->optional = !conf_is_set(b->conf, section, "address") && j > 0;
            fill_address(l, l->transport == CONF_UNIX ? NULL : &l->addresses[j], a);
            (void)snprintf(a->place, sizeof a->place, "%s:%u", place.file ? place.file : "",
                           place.line);
            a->fds = memory_alloc(b->n_workers * sizeof *a->fds);
            if (!a->fds)
                return -ENOMEM;
            for (uint32_t w = 0; w < b->n_workers; w++)
                a->fds[w] = -1;
        }
    }
    return 0;
}

int broker_new(const struct system *system, struct conf *conf, struct host *host,
               struct roda_conf_errors *errors, struct broker **ret_broker, char *problem,
               size_t size)
{
    struct broker *b = memory_alloc(sizeof *b);
    const struct conf_amount *total = &conf->limits.send_queues_total;
    int r;

    if (!b)
        return -ENOMEM;
    b->system = system;
    b->conf = conf;
    b->host = host;
    b->n_workers = conf->core.workers ? (uint32_t)conf->core.workers : machine_cpus();
    b->limits.linger_ms = LINGER_MS;
    b->limits.receive_buffers = RECEIVE_BUFFERS;
    b->limits.receive_buffer_bytes = RECEIVE_BUFFER_BYTES;
    b->limits.datagram_sessions = (uint32_t)conf->limits.udp_sessions_max;
    b->limits.mask_addresses = conf->messages.mask_addresses;
    b->limits.send_queues_bytes =
        total->percent ? machine_memory() / 100 * (uint64_t)total->percent : (uint64_t)total->bytes;
    b->limits.send_queues_share = b->limits.send_queues_bytes / b->n_workers;
    r = fill_listeners(b, errors);
    if (!r)
        r = fit_connections(b, errors);
    if (!r) {
        fit_rings(b);
        b->workers = memory_alloc(b->n_workers * sizeof *b->workers);
        r = b->workers ? mailboxes_new(b->n_workers, &b->mailboxes) : -ENOMEM;
    }
    if (!r)
        r = host_init(host, b->n_workers, problem, size);
    else if (r == -ENOMEM)
        (void)snprintf(problem, size, "out of memory");
    if (r) {
        b->host = NULL; /* still the caller's */
        broker_free(b);
        return r;
    }
    *ret_broker = b;
    return 0;
}

int broker_bind(struct broker *b, struct roda_conf_errors *errors)
{
    char problem[256], section[80];
    int result = 0;

    for (size_t i = 0; i < b->n_addresses; i++) {
        struct listener_address *a = &b->addresses[i];
        const struct listener_settings *s = a->settings;
        int r = listener_bind(b->system, a, b->n_workers, problem, sizeof problem);
        (void)snprintf(section, sizeof section, "listener %s", s->name);
        if (r < 0) {
            const char *key = s->transport == TRANSPORT_UNIX          ? "path"
                              : conf_is_set(b->conf, section, "port") ? "port"
                                                                      : NULL;
            result = conf_error_at(errors, b->conf, section, key, "%s", problem);
        } else if (a->fds[0] < 0) {
            log_write(RODA_LOG_NOTICE, "main", "[listener %s] not listening on %s", s->name,
                      problem);
        } else if (s->transport == TRANSPORT_UNIX) {
            log_write(RODA_LOG_NOTICE, "main", "[listener %s] listening on %s (%s)", s->name,
                      a->text, s->protocol->name);
        } else {
            bool local = !conf_is_set(b->conf, section, "address");
            log_write(RODA_LOG_NOTICE, "main", "[listener %s] listening on %s %s (%s)%s", s->name,
                      s->transport == TRANSPORT_UDP ? "udp" : "tcp", a->text, s->protocol->name,
                      local ? " (this machine only; set \"address = ::\" to let others in)" : "");
        }
    }
    return result;
}

int broker_make_workers(struct broker *b, char *problem, size_t size)
{
    for (uint32_t i = 0; i < b->n_workers; i++) {
        int r = worker_init(&b->workers[i], b, i, problem, size);
        if (r)
            return r;
    }
    return 0;
}

int broker_run(struct broker *b, char *problem, size_t size)
{
    for (uint32_t i = 0; i < b->n_workers; i++) {
        int r = pthread_create(&b->workers[i].thread, NULL, worker_main, &b->workers[i]);
        if (r) {
            (void)snprintf(problem, size, "no thread for worker %u: %s", i, strerror(r));
            return -r;
        }
        b->workers[i].threaded = true;
    }
    return 0;
}

void broker_join(struct broker *b)
{
    for (uint32_t i = 0; i < b->n_workers; i++)
        if (b->workers[i].threaded) {
            (void)pthread_join(b->workers[i].thread, NULL);
            b->workers[i].threaded = false;
        }
}

void broker_free(struct broker *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->n_addresses; i++) {
        if (b->addresses[i].fds)
            listener_unbind(b->system, &b->addresses[i], b->n_workers);
        memory_free(b->addresses[i].fds);
    }
    host_free(b->host);
    for (uint32_t i = 0; b->workers && i < b->n_workers; i++)
        worker_deinit(&b->workers[i]);
    mailboxes_free(b->mailboxes, b->n_workers);
    for (size_t i = 0; i < b->n_settings && b->settings; i++) {
        memory_free((void *)(uintptr_t)b->settings[i].data_offsets);
        memory_free((void *)(uintptr_t)b->settings[i].confs);
    }
    memory_free(b->settings);
    memory_free(b->addresses);
    memory_free(b->workers);
    memory_free(b);
}

/* ---- phases ----------------------------------------------------------------------------- */

static void wake_all(struct broker *b)
{
    for (uint32_t i = 0; i < b->n_workers; i++)
        if (b->workers[i].made)
            ring_wake(&b->workers[i].ring);
}

static void tell_changed(struct broker *b)
{
    if (b->changed)
        b->changed(b->changed_arg);
}

bool broker_running(const struct broker *b)
{
    return __atomic_load_n((const uint32_t *)&b->phase, __ATOMIC_ACQUIRE) == PHASE_RUN;
}

bool broker_ended(const struct broker *b)
{
    return __atomic_load_n((const uint32_t *)&b->phase, __ATOMIC_ACQUIRE) == PHASE_END;
}

void broker_stop(struct broker *b, bool hurry)
{
    if (hurry)
        __atomic_store_n((bool *)&b->hurry, true, __ATOMIC_RELEASE);
    __atomic_store_n((bool *)&b->stop_asked, true, __ATOMIC_RELEASE);
    wake_all(b);
}

void broker_reopen(struct broker *b)
{
    __atomic_add_fetch((uint32_t *)&b->reopens, 1, __ATOMIC_ACQ_REL);
    wake_all(b);
}

RODA_PRINTF(3, 0)
static void fail(struct broker *b, bool broken, const char *fmt, va_list args)
{
    bool first = !__atomic_exchange_n((bool *)&b->telling, true, __ATOMIC_ACQ_REL);

    if (first)
        (void)vsnprintf(b->problem, sizeof b->problem, fmt, args);
    if (broken)
        __atomic_store_n((bool *)&b->broken, true, __ATOMIC_RELEASE);
    __atomic_store_n((bool *)&b->failed, true, __ATOMIC_RELEASE);
    broker_stop(b, true);
    tell_changed(b);
}

void broker_fail(struct broker *b, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    fail(b, false, fmt, args);
    va_end(args);
}

void broker_break(struct broker *b, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    fail(b, true, fmt, args);
    va_end(args);
}

static bool has_failed(const struct broker *b)
{
    return __atomic_load_n((const bool *)&b->failed, __ATOMIC_ACQUIRE);
}

static int open_listeners(struct broker *b, struct worker *w)
{
    struct net *net = &w->net;

    net->listeners = memory_alloc((b->n_addresses + 1) * sizeof *net->listeners);
    if (!net->listeners)
        return -ENOMEM;
    net->hand_over = b->n_workers > 1 ? worker_hand_over : NULL;
    for (size_t i = 0; i < b->n_addresses; i++) {
        int r;
        if (b->addresses[i].fds[w->index] < 0)
            continue;
        r = listener_open(net, &net->listeners[net->n_listeners], &b->addresses[i]);
        if (r)
            return r;
        net->n_listeners++;
    }
    return 0;
}

static bool stop_asked(const struct broker *b)
{
    return __atomic_load_n((const bool *)&b->stop_asked, __ATOMIC_ACQUIRE);
}

/* In every turn of PHASE_START, until the last plugin has started. */
static void start_plugins(struct broker *b, struct worker *w)
{
    char problem[256] = "";

    if (w->start_result != RODA_LATER || stop_asked(b) || !host_start_ready(b->host, &w->bus))
        return;
    w->start_result = host_start(b->host, &w->bus, problem, sizeof problem);
    if (w->start_result < 0)
        broker_fail(b, "%s", problem);
}

static void on_deadline(struct wheel_timer *timer)
{
    (void)timer; /* it only ends the sleep */
}

static void stop_plugins(struct broker *b, struct worker *w)
{
    mailbox_cancel(&w->bus);
    inputs_abandon(&w->bus);
    host_stop(b->host, &w->bus);
    w->files_deadline_ms = w->net.now_ms + FILES_MS;
    wheel_arm(&w->wheel, &w->deadline, w->files_deadline_ms, on_deadline);
}

static bool reopen_asked(const struct broker *b, const struct worker *w)
{
    return w->phase == PHASE_RUN &&
           __atomic_load_n((const uint32_t *)&b->reopens, __ATOMIC_ACQUIRE) != w->reopened;
}

static void enter_phase(struct broker *b, struct worker *w, uint32_t phase)
{
    int r;

    switch (phase) {
    case PHASE_OPEN:
        r = open_listeners(b, w);
        if (r)
            broker_fail(b, "worker %u: listeners: %s", w->index, strerror(-r));
        break;
    case PHASE_STOP_ACCEPT:
        net_stop_accept(&w->net);
        break;
    case PHASE_STOP_INPUT:
        net_stop_input(&w->net);
        w->bus.stopping = true;
        break;
    case PHASE_CLOSE:
        w->bus.reporting_shutdown = true;
        net_close_all(&w->net, "the broker stops");
        break;
    case PHASE_STOP:
        net_abort_all(&w->net);
        __atomic_store_n((bool *)&b->mailboxes[w->index].closed, true, __ATOMIC_RELEASE);
        break;
    case PHASE_QUIET:
        stop_plugins(b, w);
        (void)mailbox_flush(&w->bus); /* before the barrier, after which nobody looks */
        break;
    case PHASE_END:
        mailbox_cancel(&w->bus);
        if (files_under_way(w->files))
            broker_break(b,
                         "worker %u: %zu requests to files have not ended for %u s: the disk "
                         "hangs, look at the kernel's messages; what was written last may be lost",
                         w->index, files_under_way(w->files), FILES_MS / 1000);
        w->ended = true;
        break;
    default:
        break;
    }
}

static bool listeners_quiet(const struct worker *w)
{
    for (uint32_t i = 0; i < w->net.n_listeners; i++)
        if (w->net.listeners[i].closed && !listener_quiet(&w->net.listeners[i]))
            return false;
    return true;
}

static bool nothing_under_way(const struct worker *w)
{
    return mailbox_idle(&w->bus) && list_empty(&w->bus.go_on) && list_empty(&w->bus.window_waits) &&
           list_empty(&w->bus.tickets) &&
           !__atomic_load_n((const uint64_t *)&w->bus.counters.under_way, __ATOMIC_RELAXED) &&
           !__atomic_load_n((const uint64_t *)&w->bus.counters.lanes_length, __ATOMIC_RELAXED);
}

static bool phase_done(const struct broker *b, const struct worker *w, uint32_t phase)
{
    switch (phase) {
    case PHASE_START:
        return w->start_result != RODA_LATER || stop_asked(b);
    case PHASE_RUN:
        return stop_asked(b);
    case PHASE_STOP_ACCEPT:
    case PHASE_STOP_INPUT:
        return listeners_quiet(w);
    case PHASE_DRAIN:
    case PHASE_DRAIN_AGAIN:
        return nothing_under_way(w);
    case PHASE_SYNC:
        return !files_under_way(w->files);
    case PHASE_CLOSE:
        return !w->net.open && mailbox_idle(&w->bus);
    case PHASE_STOP:
        return !w->net.open && listeners_quiet(w);
    case PHASE_QUIET:
        return !files_under_way(w->files) || w->net.now_ms >= w->files_deadline_ms;
    default:
        return true;
    }
}

/* Set once, by whoever sees first that the broker is to stop. */
static uint64_t deadline_ms(struct broker *b, uint64_t now_ms)
{
    uint64_t deadline = __atomic_load_n((uint64_t *)&b->deadline_ms, __ATOMIC_ACQUIRE), fresh;

    if (__atomic_load_n((bool *)&b->hurry, __ATOMIC_ACQUIRE))
        return 0;
    if (deadline)
        return deadline;
    fresh = now_ms + (uint64_t)b->conf->core.shutdown_grace_ms + 1;
    if (__atomic_compare_exchange_n((uint64_t *)&b->deadline_ms, &deadline, fresh, false,
                                    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return fresh;
    return deadline;
}

static void open_next(struct broker *b, uint32_t phase)
{
    uint32_t next = phase + 1;

    if (phase <= PHASE_RUN && has_failed(b))
        next = phase == PHASE_RUN ? PHASE_STOP_ACCEPT : PHASE_STOP;
    else if (phase == PHASE_START && stop_asked(b))
        next = PHASE_STOP; /* not every plugin may have started */
    __atomic_store_n((uint32_t *)&b->arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n((uint32_t *)&b->phase, next, __ATOMIC_RELEASE);
    wake_all(b);
    if (next == PHASE_RUN || next == PHASE_END)
        tell_changed(b);
}

bool broker_phase_known(const struct broker *b, const struct worker *w)
{
    uint32_t phase = __atomic_load_n((const uint32_t *)&b->phase, __ATOMIC_ACQUIRE);

    if (phase != w->phase || reopen_asked(b, w))
        return false;
    if (phase == PHASE_START && !w->arrived && host_start_ready(b->host, &w->bus))
        return false;
    return w->arrived || phase > PHASE_RUN || !phase_done(b, w, phase);
}

bool broker_phase_turn(struct broker *b, struct worker *w)
{
    uint32_t phase = __atomic_load_n((uint32_t *)&b->phase, __ATOMIC_ACQUIRE);
    bool late = false;

    if (!w->entered || phase != w->phase) {
        w->phase = phase;
        w->entered = true;
        w->arrived = false;
        enter_phase(b, w, phase);
    }
    if (reopen_asked(b, w)) {
        w->reopened = __atomic_load_n((uint32_t *)&b->reopens, __ATOMIC_ACQUIRE);
        host_reopen(b->host, &w->bus);
    }
    if (phase == PHASE_START)
        start_plugins(b, w);
    if (w->arrived || phase == PHASE_END)
        return false;
    if (phase > PHASE_RUN && phase <= PHASE_CLOSE) {
        uint64_t deadline = deadline_ms(b, w->net.now_ms);
        late = w->net.now_ms >= deadline;
        if (late && phase == PHASE_CLOSE)
            net_abort_all(&w->net);
        else if (!late)
            wheel_arm(&w->wheel, &w->deadline, deadline, on_deadline);
    }
    if (!phase_done(b, w, phase) && !late)
        return false;
    w->arrived = true;
    if (__atomic_add_fetch((uint32_t *)&b->arrived, 1, __ATOMIC_ACQ_REL) == b->n_workers) {
        open_next(b, phase);
        return true;
    }
    return false;
}
