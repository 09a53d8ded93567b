#include "power_cut.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/*
 * The crowd: each client is in every room with numbers on, says numbered lines, and tells the book
 * of everything it is shown. And the reader, who comes when all is calm, and asks for the history
 * of every room, page by page, until there is no more.
 *
 * All of a client's messages are answered, in the order in which they were said, by "* NUMBER ROOM"
 * or by "! WHY": so an answer's message is known by its place.
 */

#define UNANSWERED_MAX 200u
#define FLOOD_READ     1000u

static void client_send(struct client *c, const char *fmt, ...)
{
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(c->out + c->out_len, sizeof c->out - c->out_len, fmt, args);
    va_end(args);
    if (n > 0 && (size_t)n < sizeof c->out - c->out_len)
        c->out_len += (size_t)n;
    else
        fail(c->world, "client %u writes too much", c->id);
}

void client_connect(struct world *w, struct client *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(3000)};
    bool reader = c->reader;

    memset(c, 0, sizeof *c);
    c->world = w;
    c->reader = reader;
    if (!reader && w->lives == LIVES_MAX)
        return;
    c->id = reader ? LIVES_MAX : w->lives++;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->end = sim_connect(w->kernel, (struct sockaddr *)&to, sizeof to, NULL, 0, 1000);
}

void client_gone(struct client *c)
{
    if (c->end)
        sim_client_close(c->end);
    c->end = NULL;
}

/* ---- what the broker says --------------------------------------------------------------- */

static void see_answer(struct client *c, uint32_t room, uint64_t number)
{
    if (c->answered == c->said)
        fail(c->world, "client %u: an answer too many: %llu %s", c->id, (unsigned long long)number,
             room_names[room]);
    book_answer(c->world, room, number, c->id, c->answered++);
}

static void see_refusal(struct client *c, const char *line)
{
    if (c->answered == c->said) {
        fail(c->world, "client %u is refused what it did not ask: %s", c->id, line);
        return;
    }
    book_refuse(c->world, c->id, c->answered++, line);
}

static void mark_up_to(struct world *w, uint64_t number)
{
    if (w->book.marked < number)
        w->book.marked = number;
}

static void see_message(struct client *c, uint32_t room, uint64_t number, unsigned from,
                        unsigned sequence, bool past)
{
    struct world *w = c->world;
    uint64_t *last = c->reading ? &c->got : &c->last[room];

    if (number <= *last)
        fail(w, "client %u: %llu of %s comes after %llu", c->id, (unsigned long long)number,
             room_names[room], (unsigned long long)*last);
    *last = number;
    if (past)
        book_see_past(w, room, number, from, sequence);
    else
        book_see(w, room, number, from, sequence);
    if (c->reading && number < NUMBERS_MAX) {
        if (room != c->room)
            fail(w, "asked for %s, got %llu of %s", room_names[c->room], (unsigned long long)number,
                 room_names[room]);
        w->book.listed[number] = 1;
        mark_up_to(w, number);
    }
}

/* "* history ROOM 17-20: lost ...": numbers that are gone. */
static bool see_lost(struct client *c, const char *line)
{
    unsigned long long from, to;
    int n = 0;

    if (!c->reading || (!strstr(line, ": lost") && !strstr(line, ": not kept")))
        return false;
    if (sscanf(line, "* history %*s %llu-%llu:%n", &from, &to, &n) != 2 || !n) {
        if (sscanf(line, "* history %*s %llu:%n", &from, &n) != 1 || !n)
            return false;
        to = from;
    }
    if (to >= NUMBERS_MAX)
        to = NUMBERS_MAX - 1;
    for (unsigned long long i = from; i <= to; i++)
        c->world->book.lost[i] = 1;
    mark_up_to(c->world, to);
    return true;
}

static void ask_page(struct client *c)
{
    c->got = c->since;
    c->reading = true;
    client_send(c, "/history %s since %llu\n/ping page\n", room_names[c->room],
                (unsigned long long)c->since);
}

static void ask_room(struct client *c)
{
    struct world *w = c->world;

    memset(w->book.listed, 0, w->book.marked + 1);
    memset(w->book.lost, 0, w->book.marked + 1);
    w->book.marked = 0;
    c->since = 0;
    if (!sim_random(w->kernel, 3))
        c->since = sim_random(w->kernel, w->book.highest[c->room] + 1);
    if (w->flooded && w->book.highest[c->room] > FLOOD_READ) /* not all of it: that takes long */
        c->since = w->book.highest[c->room] - sim_random(w->kernel, FLOOD_READ);
    c->asked = c->since;
    ask_page(c);
}

static void see_page_end(struct client *c)
{
    struct world *w = c->world;

    c->reading = false;
    if (c->got > c->since) {
        c->since = c->got;
        ask_page(c);
        return;
    }
    book_check_history(w, c->room, c->asked);
    if (++c->room == ROOMS)
        c->done = true;
    else
        client_send(c, "/room %s\n/ping room\n", room_names[c->room]);
}

/* The number where the room stands must be behind all that was ever shown. */
static void see_room(struct client *c, const char *room, uint64_t number)
{
    struct world *w = c->world;
    int index = room_index(room);

    if (index < 0 || (uint32_t)index != c->room)
        fail(w, "the reader is in %s and not in %s", room, room_names[c->room]);
    else if (number < w->book.highest[c->room])
        fail(w, "%s stands at %llu, and %llu was shown: numbers will be used again", room,
             (unsigned long long)number, (unsigned long long)w->book.highest[c->room]);
    ask_room(c);
}

static void see_pong(struct client *c, const char *room, uint64_t number, const char *token)
{
    if (c->reader && !strcmp(token, "room")) {
        see_room(c, room, number);
    } else if (c->reader && !strcmp(token, "page")) {
        see_page_end(c);
    } else if (!strcmp(token, "in")) {
        c->entered = true;
        if (c->reader)
            client_send(c, "/room %s\n/ping room\n", room_names[0]);
    } else {
        if (c->answered < c->pinged_at)
            fail(c->world, "client %u: pong after %u answers, but %u messages went before it",
                 c->id, c->answered, c->pinged_at);
        c->ping_pending = false;
    }
}

/* What was said before has its time in front: 2026-11-24T03:39:51Z. */
static const char *without_time(const char *line)
{
    const char *space = strchr(line, ' ');

    return space && space - line == 20 && space[-1] == 'Z' ? space + 1 : line;
}

static void see_line(struct client *c, const char *line)
{
    struct world *w = c->world;
    unsigned long long number;
    unsigned from, sequence;
    char room[80], rest[80];
    const char *told = without_time(line);
    int n = 0;

    if (w->loud)
        fprintf(stderr, "  %u< %.120s\n", c->id, line);
    if (sscanf(told, "%llu %79s %79s m%u/%u", &number, room, rest, &from, &sequence) == 5) {
        if (room_index(room) < 0)
            fail(w, "client %u: what room is this? %s", c->id, line);
        else
            see_message(c, (uint32_t)room_index(room), number, from, sequence, told != line);
    } else if (sscanf(line, "* pong %79s %llu %79s", room, &number, rest) == 3) {
        see_pong(c, room, number, rest);
    } else if (sscanf(line, "* %llu %79s%n", &number, room, &n) == 2 && !line[n] &&
               room_index(room) >= 0) {
        see_answer(c, (uint32_t)room_index(room), number);
    } else if (!c->welcomed && !strncmp(line, "* you are guest", 15)) {
        c->welcomed = true;
        client_send(c, "/numbers on\n");
        for (uint32_t i = 1; i < ROOMS; i++)
            client_send(c, "/join %s\n", room_names[i]);
        client_send(c, "/ping in\n");
    } else if (see_lost(c, line)) {
        return;
    } else if (!strncmp(line, "! history", 9)) {
        if (!w->failed_storage) /* what was said before one came */
            fail(w, "client %u: %s", c->id, line);
    } else if (line[0] == '!' && strncmp(line, "! closed", 8) != 0) {
        see_refusal(c, line);
    }
}

static void client_read(struct client *c)
{
    int n;

    while (c->end && (n = sim_client_read(c->end, c->in + c->in_len,
                                          sizeof c->in - 1 - c->in_len)) != -EAGAIN) {
        char *line = c->in, *end;
        if (n <= 0) {
            client_gone(c);
            return;
        }
        c->in_len += (size_t)n;
        c->in[c->in_len] = '\0';
        for (; (end = memchr(line, '\n', c->in_len - (size_t)(line - c->in))); line = end + 1) {
            *end = '\0';
            see_line(c, line);
        }
        c->in_len -= (size_t)(line - c->in);
        memmove(c->in, line, c->in_len);
    }
}

/* ---- what clients do -------------------------------------------------------------------- */

static void client_write(struct client *c)
{
    int n;

    if (!c->end || !c->out_len || sim_client_state(c->end) != SIM_CONNECTED)
        return;
    n = sim_client_write(c->end, c->out, c->out_len);
    if (n <= 0)
        return;
    c->out_len -= (size_t)n;
    memmove(c->out, c->out + n, c->out_len);
}

void client_say(struct client *c, uint32_t room)
{
    enum { LONGEST = 3600 };
    static char text[LONGEST + 1];
    struct world *w = c->world;
    uint64_t length = w->flood || sim_random(w->kernel, 8) ? 0 : sim_random(w->kernel, 600);

    if (w->heavy && sim_random(w->kernel, 4))
        length = 3000 + sim_random(w->kernel, 600);
    if (!book_say(w, c->id, c->said, room))
        return;
    memset(text, 'x', length);
    text[length] = '\0';
    client_send(c, "/msg #%s m%u/%u %s\n", room_names[room], c->id, c->said, text);
    c->said++;
}

static void client_act(struct world *w, struct client *c)
{
    uint64_t what = sim_random(w->kernel, 100);
    /* Some rooms are talked in more. */
    uint32_t room = (uint32_t)sim_random(w->kernel, 1 + sim_random(w->kernel, ROOMS));

    if (!c->entered || c->out_len > sizeof c->out / 2 || c->said + 1 - c->answered > UNANSWERED_MAX)
        return;
    if (w->flood) {
        for (unsigned burst = 100; burst; burst--)
            client_say(c, 0);
    } else if (what < 80) {
        unsigned burst = 1 + (unsigned)sim_random(w->kernel, w->heavy ? 3 : 10);
        while (burst--)
            client_say(c, room);
    } else if (what < 95 && !c->ping_pending) {
        c->ping_pending = true;
        c->pinged_at = c->said;
        client_send(c, "/ping told\n");
    } else if (what < 97) {
        c->sluggish = !c->sluggish;
    } else if (what < 98) {
        client_gone(c);
    }
}

void client_step(struct world *w, struct client *c)
{
    if (!c->end) {
        if (!w->quiet && !c->reader && !sim_random(w->kernel, 20))
            client_connect(w, c);
        return;
    }
    if (sim_client_state(c->end) == SIM_REFUSED) {
        client_gone(c);
        return;
    }
    if (w->quiet)
        c->sluggish = false;
    if (!c->sluggish || !sim_random(w->kernel, 30))
        client_read(c);
    if (c->end && !w->quiet && !c->reader && !sim_random(w->kernel, 4))
        client_act(w, c);
    if (c->end)
        client_write(c);
}

void crowd_lost(struct world *w)
{
    for (uint32_t i = 0; i < w->n_clients; i++) {
        client_read(&w->clients[i]);
        client_gone(&w->clients[i]);
    }
    client_gone(&w->reader);
}

bool crowd_calm(const struct world *w)
{
    for (uint32_t i = 0; i < w->n_clients; i++) {
        const struct client *c = &w->clients[i];
        if (c->end && (c->out_len || c->answered != c->said || c->ping_pending || !c->entered ||
                       sim_client_readable(c->end)))
            return false;
    }
    return true;
}

void reader_begin(struct world *w)
{
    w->reader.reader = true;
    client_connect(w, &w->reader);
}
