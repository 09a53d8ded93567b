#include "power_cut.h"

#include <stdio.h>
#include <string.h>

/*
 * What was said and what became of it, by whoever was shown something: a receiver by the message,
 * its sender by the answer, the reader by history. A number means one message, a message has one
 * number, for ever; and what was refused is nowhere.
 */

const char *const room_names[ROOMS] = {"lobby", "ops", "audit", "red", "blue"};

bool is_durable(const struct world *w, uint32_t room)
{
    return w->sync == 2 || (w->sync_some && (room == 1 || room == 2));
}

int room_index(const char *name)
{
    for (uint32_t i = 0; i < ROOMS; i++)
        if (!strcmp(name, room_names[i]))
            return (int)i;
    return -1;
}

static struct said *find(struct world *w, uint32_t client, uint32_t sequence)
{
    if (client < LIVES_MAX && sequence < MESSAGES_MAX &&
        w->book.messages[client][sequence].fate != FATE_NONE)
        return &w->book.messages[client][sequence];
    fail(w, "m%u/%u was never said", client, sequence);
    return NULL;
}

bool book_say(struct world *w, uint32_t client, uint32_t sequence, uint32_t room)
{
    if (client >= LIVES_MAX || sequence >= MESSAGES_MAX)
        return false;
    w->book.messages[client][sequence] = (struct said){.room = (uint8_t)room, .fate = FATE_SENT};
    return true;
}

static void see(struct world *w, uint32_t room, uint64_t number, uint32_t client, uint32_t sequence,
                bool must_keep)
{
    struct said *m = find(w, client, sequence);
    uint32_t name = client * MESSAGES_MAX + sequence + 1, *known;

    if (!m)
        return;
    if (!number || number >= NUMBERS_MAX) {
        fail(w, "m%u/%u has the number %llu", client, sequence, (unsigned long long)number);
        return;
    }
    known = &w->book.by_number[room][number];
    if (m->room != room)
        fail(w, "m%u/%u was said in %s and shown in %s", client, sequence, room_names[m->room],
             room_names[room]);
    else if (m->gone_for_sure)
        fail(w, "m%u/%u was refused, and is shown as %llu of %s", client, sequence,
             (unsigned long long)number, room_names[room]);
    else if (m->number && m->number != number)
        fail(w, "m%u/%u of %s was %llu and is %llu", client, sequence, room_names[room],
             (unsigned long long)m->number, (unsigned long long)number);
    else if (*known && *known != name)
        fail(w, "number %llu of %s was m%u/%u and is m%u/%u", (unsigned long long)number,
             room_names[room], (*known - 1) / MESSAGES_MAX, (*known - 1) % MESSAGES_MAX, client,
             sequence);
    *known = name;
    m->number = number;
    m->seen = true;
    m->life = w->life;
    m->must_keep = m->must_keep || (must_keep && is_durable(w, room));
    if (w->book.highest[room] < number)
        w->book.highest[room] = number;
    w->book.seen++;
}

void book_see(struct world *w, uint32_t room, uint64_t number, uint32_t client, uint32_t sequence)
{
    see(w, room, number, client, sequence, true);
}

void book_see_past(struct world *w, uint32_t room, uint64_t number, uint32_t client,
                   uint32_t sequence)
{
    see(w, room, number, client, sequence, !w->cache_only[room]);
}

void book_answer(struct world *w, uint32_t room, uint64_t number, uint32_t client,
                 uint32_t sequence)
{
    struct said *m = find(w, client, sequence);

    if (m && number <= w->book.floor[room])
        fail(w, "m%u/%u gets the number %llu of %s, and %llu was shown in an earlier life", client,
             sequence, (unsigned long long)number, room_names[room],
             (unsigned long long)w->book.floor[room]);
    book_see(w, room, number, client, sequence);
    if (m && m->fate == FATE_SENT)
        m->fate = FATE_PUBLISHED;
    if (client == w->prober)
        w->accepted[room] = true;
}

void book_refuse(struct world *w, uint32_t client, uint32_t sequence, const char *line)
{
    struct said *m = find(w, client, sequence);

    if (!m)
        return;
    if (m->seen)
        fail(w, "m%u/%u was shown as %llu of %s, and its sender is told: %s", client, sequence,
             (unsigned long long)m->number, room_names[m->room], line);
    if (!w->failed_storage)
        fail(w, "m%u/%u is refused though nothing is wrong: %s", client, sequence, line);
    /* Nobody would know a room's numbers after a crash before it is on disk for the first time, nor
     * when too many were shown since then. */
    if (!is_durable(w, m->room) && w->book.highest[m->room] > w->book.floor[m->room] && !w->flooded)
        fail(w, "m%u/%u is refused in %s, which is not durable: %s", client, sequence,
             room_names[m->room], line);
    if (!strstr(line, "stored"))
        fail(w, "m%u/%u is refused without a clear word: %s", client, sequence, line);
    if (w->loud)
        fprintf(stderr, "  m%u/%u of %s: refused\n", client, sequence, room_names[m->room]);
    m->fate = FATE_REFUSED;
    m->life = w->life;
    w->book.refused++;
}

void book_healed(struct world *w)
{
    for (uint32_t c = 0; c < w->lives && c < LIVES_MAX; c++)
        for (uint32_t s = 0; s < w->book.said[c]; s++)
            if (w->book.messages[c][s].fate == FATE_REFUSED &&
                w->book.messages[c][s].life == w->life && !w->book.messages[c][s].seen)
                w->book.messages[c][s].gone_for_sure = true;
}

void book_stopped(struct world *w)
{
    for (uint32_t c = 0; c < w->lives && c < LIVES_MAX; c++)
        for (uint32_t s = 0; s < w->book.said[c]; s++) {
            struct said *m = &w->book.messages[c][s];
            /* What passed unlogged while the disk failed is gone, and said to be. */
            if (m->seen && m->life == w->life && !w->failed_storage)
                m->must_keep = true;
        }
}

void book_life(struct world *w)
{
    w->life++;
    memcpy(w->book.floor, w->book.highest, sizeof w->book.floor);
}

void book_check_history(struct world *w, uint32_t room, uint64_t since)
{
    for (uint64_t n = since + 1; n <= w->book.highest[room] && !w->failed; n++) {
        uint32_t name = w->book.by_number[room][n];
        const struct said *m;
        if (w->book.listed[n] && w->book.lost[n])
            fail(w, "%s: %llu is said to be lost, and given", room_names[room],
                 (unsigned long long)n);
        if (!name || w->book.listed[n])
            continue;
        m = &w->book.messages[(name - 1) / MESSAGES_MAX][(name - 1) % MESSAGES_MAX];
        if (m->must_keep && !m->spoiled)
            fail(w, "%s since %llu: %llu (m%u/%u) was shown, must be kept, and is not given%s",
                 room_names[room], (unsigned long long)since, (unsigned long long)n,
                 (name - 1) / MESSAGES_MAX, (name - 1) % MESSAGES_MAX,
                 w->book.lost[n] ? " (said to be lost)" : "");
        if (!w->book.lost[n])
            fail(w, "%s since %llu: %llu (m%u/%u) was shown, is not given, and nothing is said",
                 room_names[room], (unsigned long long)since, (unsigned long long)n,
                 (name - 1) / MESSAGES_MAX, (name - 1) % MESSAGES_MAX);
    }
}
