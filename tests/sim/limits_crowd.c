#include "limits.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/*
 * Who is there: a talker, who says a line now and then and looks at how soon it is answered, and
 * who is shown all that flooders say, each line with its place in it; flooders, who say more than
 * may pass; and visitors, who connect.
 *
 * Flooders' lines are answered in the order in which they were said, by "* NUMBER ROOM" or "! WHY",
 * so an answer's line is known by its place.
 */

#define OFFERS_PER_RATE 4u /* so much more is offered than may pass */
#define TALK_NS         UINT64_C(200000000)
#define LINE_BYTES_MAX  256u
#define ROOMS_REUSED    16u

static const char *const networks[NETWORKS + 1] = {"198.51.100.0", "203.0.113.0", "198.18.5.0"};
static const char *const rooms[] = {"red", "blue"};

static void client_send(struct client *c, const char *fmt, ...) RODA_PRINTF(2, 3);

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

static void client_gone(struct client *c)
{
    if (c->end)
        sim_client_close(c->end);
    c->end = NULL;
}

struct client *client_connect(struct world *w, enum role role, uint32_t network,
                              struct stream *stream)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(3000)};
    struct sockaddr_in from = {.sin_family = AF_INET};
    struct client *c;
    uint32_t i = 0;

    while (i < w->n_clients && w->clients[i].end)
        i++;
    if (i == CLIENTS_MAX)
        return NULL;
    if (i == w->n_clients)
        w->n_clients++;
    c = &w->clients[i];
    *c = (struct client){.world = w, .id = i, .role = role, .network = network, .stream = stream};
    (void)inet_pton(AF_INET, "192.0.2.1", &to.sin_addr);
    (void)inet_pton(AF_INET, networks[network], &from.sin_addr);
    from.sin_addr.s_addr |= htonl(1 + (uint32_t)sim_random(w->kernel, 254));
    from.sin_port = htons((uint16_t)(10000 + w->next_port++ % 50000));
    c->end = sim_connect(w->kernel, (struct sockaddr *)&to, sizeof to, (struct sockaddr *)&from,
                         sizeof from, 1000);
    return c;
}

void client_leave(struct client *c)
{
    c->stream->open--;
    switch (sim_random(c->world->kernel, 3)) {
    case 0:
        client_gone(c);
        break;
    case 1:
        sim_client_reset(c->end);
        c->end = NULL;
        break;
    default:
        c->leaving = true;
        client_send(c, "/quit\n");
        break;
    }
}

/* ---- what the broker says --------------------------------------------------------------- */

/* The worker that has it. */
static void see_worker(struct client *c)
{
    struct world *w = c->world;
    struct sockaddr_storage own;
    const struct sockaddr_in *mine = (const void *)&own;
    socklen_t len;

    sim_client_address(c->end, &own, &len);
    for (uint32_t i = 0; i < w->broker->n_workers; i++) {
        const struct net *net = &w->broker->workers[i].net;
        for (uint32_t s = 0; s < net->used_slots; s++) {
            const struct roda_conn *conn = net->slots[s].conn;
            const struct sockaddr_in *peer = conn ? (const void *)roda_conn_peer(conn) : NULL;
            if (peer && peer->sin_port == mine->sin_port &&
                peer->sin_addr.s_addr == mine->sin_addr.s_addr)
                w->on_worker[c->network][i]++;
        }
    }
}

static void see_welcome(struct client *c)
{
    c->welcome = true;
    if (c->role != ROLE_TALKER)
        see_worker(c);
    if (c->role == ROLE_VISITOR) {
        c->stream->open++;
        stream_pass(c->world, c->stream, c, 1);
        if (c->world->limit->load == LOAD_CONNECTS)
            client_leave(c);
        return;
    }
    client_send(c, "/numbers on\n");
    for (int i = 0; c->world->limit->load == LOAD_ROOMS && i < 2; i++)
        client_send(c, "/join %s\n", rooms[i]);
    client_send(c, "/ping in\n");
}

static struct stream *stream_of(const struct client *c, uint32_t sequence)
{
    return c->world->limit->load == LOAD_ROOMS ? c->stream + sequence % 2 : c->stream;
}

/* To the oldest line that has none. */
static void see_answer(struct client *c, const char *room)
{
    struct world *w = c->world;

    if (c->role == ROLE_TALKER) {
        uint64_t took_ns = sim_now_ns(w->kernel) - w->asked_ns;
        if (!w->asked_ns)
            fail(w, "the talker has an answer too many");
        if (took_ns > w->slowest_answer_ns)
            w->slowest_answer_ns = took_ns;
        w->asked_ns = 0;
        w->answers++;
        return;
    }
    if (c->answered == c->said)
        fail(w, "flooder %u has an answer too many", c->id);
    if (w->limit->load == LOAD_ROOMS && strcmp(room, rooms[c->answered % 2]) != 0)
        fail(w, "flooder %u: line %u was said in %s", c->id, c->answered, room);
    stream_pass(w, stream_of(c, c->answered), c, line_amount(c, c->answered));
    c->answered++;
    w->passed_lines++;
}

static void see_joined(struct client *c, unsigned id, unsigned number)
{
    if (id != c->id || number != c->answered % ROOMS_REUSED || c->answered == c->said)
        fail(c->world, "flooder %u is in j%ux%u, but its next join is the %uth", c->id, id, number,
             c->answered);
    stream_pass(c->world, c->stream, c, 1);
    c->answered++;
}

static void see_parted(struct client *c, unsigned number)
{
    if (number != c->parted % ROOMS_REUSED || c->parted == c->answered)
        fail(c->world, "flooder %u left j%ux%u, but its next part is the %uth", c->id, c->id,
             number, c->parted);
    c->parted++;
}

static void see_refusal(struct client *c, const char *line)
{
    struct world *w = c->world;
    const struct limit *limit = w->limit;
    char text[64];

    limit_text(limit, text, sizeof text);
    if (c->role == ROLE_VISITOR && !c->welcome && w->on) {
        c->stream->refused++;
    } else if (c->role == ROLE_FLOODER && limit->load == LOAD_ROOMS && w->on &&
               c->answered < c->said) {
        stream_of(c, c->answered)->refused++;
        c->answered++;
    } else if (!c->leaving) {
        fail(w, "client %u is told: %s", c->id, line);
        return;
    }
    if (!c->leaving && !strstr(line, text))
        fail(w, "client %u is refused for something else than %s: %s", c->id, text, line);
}

/* A flooder's line, shown to the talker: the next one, or a later one if some were refused. */
static void hear(struct client *c, unsigned from, unsigned sequence)
{
    struct world *w = c->world;
    bool rooms_apart = w->limit->load == LOAD_ROOMS; /* there is no order between two rooms */
    uint32_t *last;

    if (from >= CLIENTS_MAX) {
        fail(w, "there is no flooder %u", from);
        return;
    }
    last = &w->heard[from][rooms_apart ? sequence % 2 : 0];
    if (sequence <= *last || (sequence != *last + 1 && !rooms_apart))
        fail(w, "line %u of flooder %u comes after %u", sequence, from, *last);
    *last = sequence;
    w->heard_lines++;
}

static void see_line(struct client *c, const char *line)
{
    unsigned long long number;
    unsigned from, sequence;
    char room[80];

    if (c->world->loud)
        fprintf(stderr, "  %.6f %u< %.100s\n", (double)sim_now_ns(c->world->kernel) / 1e9, c->id,
                line);
    if (line[0] == '!' && !c->world->ending)
        see_refusal(c, line);
    else if (line[0] != '*' && c->role == ROLE_TALKER &&
             sscanf(line, "%llu %79s %*s m%u/%u", &number, room, &from, &sequence) == 4)
        hear(c, from, sequence);
    else if (line[0] != '*')
        return;
    else if (sscanf(line, "* %llu %79s", &number, room) == 2)
        see_answer(c, room);
    else if (sscanf(line, "* you are %*s in j%ux%u:", &from, &sequence) == 2)
        see_joined(c, from, sequence);
    else if (sscanf(line, "* you left j%ux%u", &from, &sequence) == 2)
        see_parted(c, sequence);
    else if (!c->welcome && !strncmp(line, "* you are guest", 15))
        see_welcome(c);
    else if (!strncmp(line, "* pong", 6))
        c->ready = true;
}

static void client_read(struct client *c)
{
    int n = 0;

    while (c->end &&
           (n = sim_client_read(c->end, c->in + c->in_len, sizeof c->in - 1 - c->in_len)) > 0) {
        char *line = c->in, *end;
        c->in_len += (size_t)n;
        for (; c->end && (end = memchr(line, '\n', c->in_len - (size_t)(line - c->in)));
             line = end + 1) {
            *end = '\0';
            see_line(c, line);
        }
        c->in_len -= (size_t)(line - c->in);
        memmove(c->in, line, c->in_len);
    }
    if (!c->end || n == -EAGAIN)
        return;
    if (!c->world->ending && (c->role != ROLE_VISITOR || (c->welcome && !c->leaving)))
        fail(c->world, "client %u has lost its connection", c->id);
    client_gone(c);
}

/* ---- what clients do -------------------------------------------------------------------- */

uint32_t line_amount(const struct client *c, uint32_t sequence)
{
    return c->world->limit->unit == 1 ? 1
                                      : c->world->limit->unit * (1 + (sequence * 5 + c->id) % 3);
}

static void say(struct client *c)
{
    const struct limit *limit = c->world->limit;
    uint32_t sequence = c->said++, number = sequence % ROOMS_REUSED;
    char text[40];

    (void)snprintf(text, sizeof text, "m%u/%u ", c->id, sequence + 1);
    if (limit->load == LOAD_JOINS)
        client_send(c, "/join j%ux%u\n/part j%ux%u\n", c->id, number, c->id, number);
    else if (limit->load == LOAD_ROOMS)
        client_send(c, "/msg #%s %s\n", rooms[sequence % 2], text);
    else if (limit->unit > 1)
        client_send(c, "%s%.*s\n", text, (int)(line_amount(c, sequence) - strlen(text)),
                    "................................................................"
                    "................................................................"
                    "................................................................");
    else
        client_send(c, "%s\n", text);
}

static int client_write(struct client *c)
{
    int n = c->out_len ? sim_client_write(c->end, c->out, c->out_len) : 0;

    if (n <= 0)
        return 0;
    c->out_len -= (size_t)n;
    memmove(c->out, c->out + n, c->out_len);
    return n;
}

void client_step(struct client *c)
{
    if (!c->end)
        return;
    client_read(c);
    do {
        while (c->end && c->said < c->to_say && sizeof c->out - c->out_len > LINE_BYTES_MAX)
            say(c);
    } while (c->end && client_write(c));
}

static void talk(struct world *w)
{
    w->talk_ns = sim_now_ns(w->kernel) + TALK_NS / 2 + sim_random(w->kernel, TALK_NS);
    if (w->asked_ns)
        return;
    w->asked_ns = sim_now_ns(w->kernel);
    client_send(w->talker, "oi\n");
}

/* One more of everything, for a load that has its times. */
static void offer(struct world *w, uint32_t times)
{
    for (uint32_t i = 0; i < w->n_clients && w->limit->load == LOAD_ROOMS; i++) {
        struct client *c = &w->clients[i];
        if (c->role == ROLE_FLOODER)
            c->to_say += 2 * times;
    }
    for (uint32_t i = 0; i < w->n_streams; i++) {
        struct stream *stream = &w->streams[i];
        stream->offered += times;
        for (uint32_t n = 0; n < times && w->limit->load != LOAD_ROOMS; n++)
            if (!client_connect(w, ROLE_VISITOR, i, stream))
                fail(w, "too many visitors");
    }
}

static void offer_next(struct world *w)
{
    uint64_t interval_ns = UINT64_C(1000000000) / w->limit->rate / OFFERS_PER_RATE;

    offer(w, w->offer_ns == w->flood_ns ? 3 * w->limit->burst : 1);
    w->offer_ns = sim_now_ns(w->kernel) + interval_ns / 2 + sim_random(w->kernel, interval_ns);
    if (w->offer_ns > w->offer_until_ns)
        w->offer_ns = UINT64_MAX;
}

void crowd_step(struct world *w)
{
    uint64_t now_ns = sim_now_ns(w->kernel);

    if (now_ns >= w->offer_ns)
        offer_next(w);
    if (now_ns >= w->talk_ns)
        talk(w);
    for (uint32_t i = 0; i < w->n_clients; i++)
        client_step(&w->clients[i]);
}

uint64_t crowd_next_ns(const struct world *w)
{
    return w->offer_ns < w->talk_ns ? w->offer_ns : w->talk_ns;
}

bool crowd_calm(const struct world *w)
{
    if (w->asked_ns || w->heard_lines != w->passed_lines)
        return false;
    for (uint32_t i = 0; i < w->n_clients; i++) {
        const struct client *c = &w->clients[i];
        if (!c->end)
            continue;
        if (c->role == ROLE_VISITOR ? !c->welcome || c->leaving
                                    : !c->ready || c->answered != c->to_say)
            return false;
        if (w->limit->load == LOAD_JOINS && c->parted != c->answered)
            return false;
    }
    return true;
}
