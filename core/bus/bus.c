#include "bus/bus.h"

#include <errno.h>

#include "base/memory.h"
#include "bus/current.h"

/* What the parts of the bus share: its making and its end. The parts are described in their own
 * files: message, mailbox, filter, input, answer, lane, fanout. */

static _Thread_local struct bus *current;

struct bus *bus_current(void)
{
    return current;
}

void bus_set_current(struct bus *bus)
{
    current = bus;
}

int mailboxes_new(uint32_t n, struct mailbox **ret)
{
    struct mailbox *mailboxes = memory_alloc(n * sizeof *mailboxes);

    if (!mailboxes)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++) {
        mailboxes[i].consumed = memory_alloc(n * sizeof *mailboxes[i].consumed);
        mailboxes[i].waiting = memory_alloc(n * sizeof *mailboxes[i].waiting);
        if (!mailboxes[i].consumed || !mailboxes[i].waiting) {
            mailboxes_free(mailboxes, n);
            return -ENOMEM;
        }
    }
    *ret = mailboxes;
    return 0;
}

void mailboxes_free(struct mailbox *mailboxes, uint32_t n)
{
    for (uint32_t i = 0; mailboxes && i < n; i++) {
        memory_free(mailboxes[i].consumed);
        memory_free(mailboxes[i].waiting);
    }
    memory_free(mailboxes);
}

int bus_init(struct bus *bus, const struct bus_options *o)
{
    *bus = (struct bus){.worker = o->worker,
                        .n_workers = o->n_workers,
                        .net = o->net,
                        .ring = o->ring,
                        .wheel = o->wheel,
                        .files = o->files,
                        .mailboxes = o->mailboxes,
                        .now_ms = 1,
                        .next_ticket = 1};
    bus->core.public.worker = o->worker;
    bus->core.public.n_workers = o->n_workers;
    bus->core.bus = bus;
    bus->core.name = "roda";
    list_init(&bus->core.timers);
    list_init(&bus->window_waits);
    list_init(&bus->go_on);
    list_init(&bus->tickets);
    list_init(&bus->lanes_resumed);
    list_init(&bus->encodings);
    slab_heap_init(&bus->heap);
    bus->outboxes = memory_alloc(o->n_workers * sizeof *bus->outboxes);
    bus->consumed = memory_alloc(o->n_workers * sizeof *bus->consumed);
    if (!bus->outboxes || !bus->consumed) {
        bus_deinit(bus);
        return -ENOMEM;
    }
    return 0;
}

void bus_deinit(struct bus *bus)
{
    if (bus->n_workers) {
        fanout_deinit(bus);
        answers_free(bus);
    }
    for (int i = 0; i < STAGES; i++)
        memory_free(bus->stages[i].hooks);
    memory_free(bus->contexts);
    memory_free(bus->outboxes);
    memory_free(bus->consumed);
    if (bus->n_workers)
        slab_heap_deinit(&bus->heap);
    *bus = (struct bus){0};
}
