#include "bus/bus.h"

#include <errno.h>

/*
 * Items between workers. Each worker has one mailbox, a chain that everybody pushes to; what a
 * worker posts during a turn gathers in one outbox per receiver and is pushed at the end of the
 * turn, before its sends are submitted. Therefore
 *
 *   - an effect never overtakes its cause: whoever learned of A from a push or from the network
 *     posts B after A was pushed, and a chain gives back pushes in their order. Since one worker
 *     after the other gets what was posted in a turn, the first could act before the last has got
 *     his: nobody runs an item before its sender has pushed to all (struct mailbox, pushing);
 *   - receipts, and whatever was posted by roda_post_after(), are pushed after everything else of
 *     the turn, to whomever: a PONG that waits for a receipt cannot leave before the message is
 *     in the mailbox of every worker with members.
 *
 * The window between two workers is the bytes posted and not yet run. While any window of this
 * worker is full, it withholds receipts; so its senders stop, and memory stays bounded. Handling
 * an item never waits, but for items of a plugin whose start() was not called on this worker yet:
 * another worker may be faster. Items to oneself run in the same turn; what they post to oneself in
 * turn, some rounds later, runs first thing in the next one.
 */

#define INSTANCE_BITS        24u
#define DELIVERIES_PER_DRAIN 16384u
#define OWN_ROUNDS           16
#define SPINS                1000

struct receipt {
    roda_conn_id to;
    uint32_t count, bytes;
};

#define RECEIPTS_PER_ITEM 30u
struct receipts {
    struct roda_item item;
    uint32_t n;
    struct receipt list[RECEIPTS_PER_ITEM];
};

static struct chain_node *node_of(struct roda_item *item)
{
    return (struct chain_node *)(void *)item;
}

void bus_post(struct bus *bus, uint32_t worker, uint32_t instance, struct roda_item *item,
              bool after)
{
    struct outbox *box = &bus->outboxes[worker];
    struct chain_node *node = node_of(item);

    item->instance = bus->worker << INSTANCE_BITS | instance;
    if (after) {
        item->bytes = worker; /* receipts weigh nothing; where it goes is kept here */
        node->next = NULL;
        if (bus->after_newest)
            bus->after_newest->next = node;
        else
            bus->after_oldest = node;
        bus->after_newest = node;
        return;
    }
    node->next = box->newest;
    box->newest = node;
    if (!box->oldest)
        box->oldest = node;
    box->bytes += item->bytes;
    if (worker != bus->worker)
        BUS_COUNT(bus, items_posted);
}

void roda_post(struct roda_ctx *x, uint32_t worker, struct roda_item *item)
{
    bus_post(context_of(x)->bus, worker, context_of(x)->instance, item, false);
}

void roda_post_after(struct roda_ctx *x, uint32_t worker, struct roda_item *item)
{
    bus_post(context_of(x)->bus, worker, context_of(x)->instance, item, true);
}

int roda_inject(struct roda_ctx *x, struct roda_item *item)
{
    struct mailbox *to = &context_of(x)->bus->mailboxes[x->worker];

    if (__atomic_load_n((bool *)&to->closed, __ATOMIC_ACQUIRE))
        return -ESHUTDOWN;
    item->instance = x->worker << INSTANCE_BITS | context_of(x)->instance;
    item->bytes = 0;
    chain_push(&to->chain, node_of(item), node_of(item));
    ring_wake(to->ring);
    return 0;
}

/* ---- receipts --------------------------------------------------------------------------- */

static void receipts_run(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct receipts *receipts = (struct receipts *)(void *)item;
    struct bus *bus = context_of(x)->bus;

    (void)result;
    for (uint32_t i = 0; i < receipts->n; i++)
        input_receipts(bus, receipts->list[i].to, receipts->list[i].count, receipts->list[i].bytes);
    slab_heap_put(&bus->heap, &bus->batch, receipts);
}

/* Memory is out: the message's own reserve carries its receipt, and the bad news if it could not
 * be distributed. */
static void receipt_alone_run(struct roda_ctx *x, struct roda_item *item, int result)
{
    struct message *message = container_of(item, struct message, reserve);
    struct bus *bus = context_of(x)->bus;
    struct roda_conn *c = net_find(bus->net, message->public.from);

    (void)result;
    if (c && message->flags & MESSAGE_FAILED)
        answer_give(bus, c, RODA_E_MEMORY, RODA_STR(""), &message->public);
    input_receipts(bus, message->public.from, 1, message->bytes);
    roda_msg_unref(&message->public);
}

static void receipt_alone(struct bus *bus, struct roda_msg *msg)
{
    struct message *message = message_of(msg);

    roda_msg_ref(msg);
    message->reserve.run = receipt_alone_run;
    bus_post(bus, RODA_CONN_WORKER(msg->from), 0, &message->reserve, true);
}

void bus_receipt(struct bus *bus, struct roda_msg *msg)
{
    struct outbox *box = &bus->outboxes[RODA_CONN_WORKER(msg->from)];
    struct receipts *receipts = box->receipts;
    struct receipt *last;

    BUS_COUNT(bus, receipts);
    if (message_of(msg)->flags & MESSAGE_FAILED) {
        receipt_alone(bus, msg);
        return;
    }
    if (receipts && receipts->n) {
        last = &receipts->list[receipts->n - 1];
        if (last->to == msg->from) {
            last->count++;
            last->bytes += message_of(msg)->bytes;
            return;
        }
    }
    if (receipts && receipts->n == RECEIPTS_PER_ITEM) {
        bus_post(bus, RODA_CONN_WORKER(msg->from), 0, &receipts->item, true);
        receipts = box->receipts = NULL;
    }
    if (!receipts) {
        receipts = slab_heap_get(&bus->heap, sizeof *receipts);
        if (!receipts) {
            receipt_alone(bus, msg);
            return;
        }
        receipts->item = (struct roda_item){.run = receipts_run};
        receipts->n = 0;
        box->receipts = receipts;
    }
    receipts->list[receipts->n++] = (struct receipt){msg->from, 1, message_of(msg)->bytes};
}

static void post_receipts(struct bus *bus)
{
    for (uint32_t i = 0; i < bus->n_workers; i++) {
        struct receipts *receipts = bus->outboxes[i].receipts;
        if (!receipts)
            continue;
        bus->outboxes[i].receipts = NULL;
        bus_post(bus, i, 0, &receipts->item, true);
    }
}

/* ---- draining --------------------------------------------------------------------------- */

static void keep_early(struct context *context, struct chain_node *node)
{
    node->next = NULL;
    if (context->early_newest)
        context->early_newest->next = node;
    else
        context->early_oldest = node;
    context->early_newest = node;
}

static void run_item(struct bus *bus, struct chain_node *node)
{
    struct roda_item *item = (struct roda_item *)(void *)node;
    uint32_t instance = item->instance & ((1u << INSTANCE_BITS) - 1);
    struct context *context = bus->contexts[instance];

    if (context->unstarted && !bus->cancelling) {
        keep_early(context, node);
        return;
    }
    bus_enter(bus, context->plugin ? context->name : NULL, "item");
    item->run(&context->public, item, bus->cancelling ? -ECANCELED : 0);
    bus_leave(bus);
}

void mailbox_run_early(struct bus *bus, struct context *context)
{
    struct chain_node *node = context->early_oldest;

    context->early_oldest = context->early_newest = NULL;
    while (node) {
        struct chain_node *next = node->next;
        run_item(bus, node);
        node = next;
    }
}

static void tell_consumed(struct bus *bus)
{
    struct mailbox *mine = &bus->mailboxes[bus->worker];

    for (uint32_t i = 0; i < bus->n_workers; i++) {
        if (!bus->consumed[i])
            continue;
        __atomic_store_n((uint64_t *)&mine->consumed[i],
                         __atomic_load_n((uint64_t *)&mine->consumed[i], __ATOMIC_RELAXED) +
                             bus->consumed[i],
                         __ATOMIC_SEQ_CST);
        bus->consumed[i] = 0;
        if (__atomic_load_n((uint32_t *)&mine->waiting[i], __ATOMIC_SEQ_CST) &&
            __atomic_exchange_n((uint32_t *)&mine->waiting[i], 0, __ATOMIC_SEQ_CST))
            ring_wake(bus->mailboxes[i].ring);
    }
}

/* Items to oneself, oldest first. Those that they post are the next round's. */
static bool run_own(struct bus *bus)
{
    struct outbox *own = &bus->outboxes[bus->worker];
    struct chain_node *newest = own->newest, *oldest = NULL;

    own->newest = own->oldest = NULL;
    own->bytes = 0;
    if (!newest)
        return false;
    while (newest) {
        struct chain_node *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct chain_node *next = oldest->next;
        run_item(bus, oldest);
        oldest = next;
    }
    return true;
}

/* Whether the sender of an item that was taken may not have pushed all that went with it. Pushing
 * takes microseconds, unless it is interrupted: then the next turn looks again. */
static bool still_pushing(const struct bus *bus, uint32_t sender)
{
    const uint32_t *word = (const uint32_t *)&bus->mailboxes[sender].pushing;
    uint32_t before = __atomic_load_n(word, __ATOMIC_ACQUIRE);

    if (sender == bus->worker)
        return false; /* injected */
    for (int i = 0; before & 1; i++) {
        if (i == SPINS)
            return true;
        if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != before)
            break;
    }
    return false;
}

/* What was taken. False: some of it is left for the next turn. */
static bool run_taken(struct bus *bus)
{
    uint64_t complete[4] = {0}; /* senders that have pushed all of what is taken */

    while (bus->undone && bus->appended < DELIVERIES_PER_DRAIN) {
        struct chain_node *node = bus->undone;
        struct roda_item *item = (struct roda_item *)(void *)node;
        uint32_t from = item->instance >> INSTANCE_BITS, bytes = item->bytes;
        if (!(complete[from >> 6] >> (from & 63) & 1)) {
            if (still_pushing(bus, from))
                break;
            complete[from >> 6] |= UINT64_C(1) << (from & 63);
        }
        bus->undone = node->next;
        BUS_COUNT(bus, items_run);
        run_item(bus, node);
        bus->consumed[from] += bytes;
    }
    return !bus->undone;
}

bool mailbox_drain(struct bus *bus)
{
    bus->appended = 0;
    (void)run_own(bus); /* left by the turn before, so older than what came since */
    /* Even if the turn before left something: what was pushed before this turn's input came has
     * to come before it, so the mailbox is taken once in any case. */
    if (run_taken(bus)) {
        bus->undone = chain_take(&bus->mailboxes[bus->worker].chain);
        (void)run_taken(bus);
    }
    tell_consumed(bus);
    if (bus->undone)
        BUS_COUNT(bus, turns_unfinished);
    return !bus->undone;
}

/* ---- pushing ---------------------------------------------------------------------------- */

uint64_t bus_outstanding(const struct bus *bus, uint32_t worker)
{
    return bus->outboxes[worker].posted_bytes -
           __atomic_load_n((uint64_t *)&bus->mailboxes[worker].consumed[bus->worker],
                           __ATOMIC_SEQ_CST);
}

/* Some receiver lags: asks it to wake us when it has caught up. */
static bool window_full(struct bus *bus)
{
    bool full = false;

    for (uint32_t i = 0; i < bus->n_workers; i++) {
        if (i == bus->worker || bus_outstanding(bus, i) <= BUS_WINDOW_BYTES)
            continue;
        __atomic_store_n((uint32_t *)&bus->mailboxes[i].waiting[bus->worker], 1, __ATOMIC_SEQ_CST);
        if (bus_outstanding(bus, i) > BUS_WINDOW_BYTES)
            full = true;
    }
    return full;
}

static void push(struct bus *bus, uint32_t worker, struct chain_node *newest,
                 struct chain_node *oldest)
{
    uint32_t *pushing = (uint32_t *)&bus->mailboxes[bus->worker].pushing;

    if (!(*pushing & 1)) /* ours to write; whoever takes the item sees this */
        __atomic_store_n(pushing, *pushing + 1, __ATOMIC_RELAXED);
    chain_push(&bus->mailboxes[worker].chain, newest, oldest);
}

static void pushed(struct bus *bus)
{
    uint32_t *pushing = (uint32_t *)&bus->mailboxes[bus->worker].pushing;

    if (*pushing & 1)
        __atomic_store_n(pushing, *pushing + 1, __ATOMIC_RELEASE);
}

/* What comes after: pushed one by one, since receivers differ; there are few, receipts gather.
 * Returns those to oneself, oldest first. */
static struct chain_node *push_after(struct bus *bus, uint64_t wake[4])
{
    struct chain_node *node = bus->after_oldest, *own = NULL, **own_end = &own;

    bus->after_oldest = bus->after_newest = NULL;
    while (node) {
        struct chain_node *next = node->next;
        struct roda_item *item = (struct roda_item *)(void *)node;
        uint32_t worker = item->bytes;
        item->bytes = 0;
        if (worker == bus->worker) {
            *own_end = node;
            own_end = &node->next;
        } else {
            push(bus, worker, node, node);
            wake[worker >> 6] |= UINT64_C(1) << (worker & 63);
        }
        node = next;
    }
    *own_end = NULL;
    return own;
}

bool mailbox_flush(struct bus *bus)
{
    struct chain_node *own = NULL;
    uint64_t wake[4] = {0};
    bool ran = false;

    /* A plugin that always posts itself again (long work in pieces) gets the next turn. */
    for (int round = 0; round < OWN_ROUNDS && run_own(bus); round++)
        ran = true;
    for (uint32_t i = 0; i < bus->n_workers; i++) {
        struct outbox *box = &bus->outboxes[i];
        if (i == bus->worker || !box->newest)
            continue;
        box->posted_bytes += box->bytes;
        push(bus, i, box->newest, box->oldest);
        box->newest = box->oldest = NULL;
        box->bytes = 0;
        wake[i >> 6] |= UINT64_C(1) << (i & 63);
    }
    post_receipts(bus);
    if (bus->after_oldest) {
        bool held = window_full(bus);
        if (held && !bus->receipts_held)
            BUS_COUNT(bus, receipts_withheld);
        bus->receipts_held = held;
        if (!held)
            own = push_after(bus, wake);
    }
    pushed(bus);
    for (uint32_t i = 0; i < bus->n_workers; i++)
        if (wake[i >> 6] >> (i & 63) & 1)
            ring_wake(bus->mailboxes[i].ring);
    for (struct chain_node *next; own; own = next) {
        next = own->next;
        run_item(bus, own);
        ran = true;
    }
    slab_batch_flush(&bus->batch);
    return ran;
}

bool mailbox_idle(const struct bus *bus)
{
    for (uint32_t i = 0; i < bus->n_workers; i++)
        if (bus->outboxes[i].newest || bus->outboxes[i].receipts)
            return false;
    return !bus->undone && (!bus->after_oldest || bus->receipts_held) &&
           chain_empty(&bus->mailboxes[bus->worker].chain);
}

bool mailbox_quiet(struct bus *bus)
{
    return chain_empty(&bus->mailboxes[bus->worker].chain) &&
           !(bus->after_oldest && bus->receipts_held && !window_full(bus));
}

void mailbox_cancel(struct bus *bus)
{
    struct chain_node *node;

    bus->cancelling = true;
    for (uint32_t i = 1; i < bus->n_contexts; i++)
        mailbox_run_early(bus, bus->contexts[i]);
    post_receipts(bus);
    for (;;) {
        if (!bus->undone)
            bus->undone = chain_take(&bus->mailboxes[bus->worker].chain);
        if ((node = bus->undone)) {
            bus->undone = node->next;
            run_item(bus, node);
            continue;
        }
        if ((node = bus->after_oldest)) {
            bus->after_oldest = node->next;
            if (!node->next)
                bus->after_newest = NULL;
            run_item(bus, node);
            continue;
        }
        uint32_t i = 0;
        while (i < bus->n_workers && !bus->outboxes[i].newest)
            i++;
        if (i == bus->n_workers)
            break;
        node = bus->outboxes[i].newest;
        bus->outboxes[i].newest = node->next;
        if (!node->next)
            bus->outboxes[i].oldest = NULL;
        run_item(bus, node);
    }
    slab_batch_flush(&bus->batch);
}
