#include "chat.h"

/*
 * Many people do anything at all, while the workers run in any order. Each client keeps a book of
 * what it was shown, and checks:
 *
 *   - it hears a room only while it is a member, and every number of it then, one after the other;
 *   - a change of name, and a quit, is told once, and the old name says nothing afterwards.
 *
 * With every other seed a publish filter holds all events for a while, as a log does.
 *
 * When all is calm, everybody's book agrees with what the homes say, and every member hears every
 * other. A seed that fails is printed; RODA_SEED runs it alone.
 */

enum { PEOPLE = 8, ROOMS = 6, WORKERS = 4, STEPS = 250, TOKENS = 4096, NAMES = 4096 };

static const char *const room_names[ROOMS] = {"lobby", "a", "b", "c", "d", "e"};

struct client {
    struct testhost_conn *conn;
    uint32_t worker;
    unsigned nick;   /* "nN" */
    unsigned wanted; /* by the NICK under way */
    int member[ROOMS], known[ROOMS];
    uint64_t last[ROOMS]; /* number, if known */
    uint32_t n_lines;
    int8_t room_of[TOKENS];     /* of what was sent */
    unsigned char self[TOKENS]; /* it was a KICK of oneself */
    unsigned char retired[NAMES];
};

struct storm {
    struct testhost *h;
    int holds; /* the filter: publish */
    struct client clients[PEOPLE];
    unsigned seed, next_name;
    uint64_t random;
};

#define CHECK(storm, client, condition, unit)                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("seed %u, n%u: %s: \"%s\"", (storm)->seed, (client)->nick, #condition, unit); \
    } while (0)

static uint32_t draw(struct storm *s, uint32_t below)
{
    s->random = s->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(s->random >> 33) % below;
}

/* ---- saying ----------------------------------------------------------------------------- */

static void say(struct client *c, int room, const char *fmt, ...) RODA_PRINTF(3, 4);
static void say(struct client *c, int room, const char *fmt, ...)
{
    char line[256];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    c->n_lines++;
    assert_true(c->n_lines < TOKENS);
    c->room_of[c->n_lines] = (int8_t)room;
    chat_say(c->conn, line);
}

static void enter(struct storm *s, struct client *c)
{
    *c = (struct client){.worker = draw(s, WORKERS), .nick = 0};
    c->conn = testhost_connect(s->h, c->worker, "plain", "tcp");
    c->room_of[0] = 0;
    c->wanted = ++s->next_name;
    assert_true(s->next_name < NAMES);
    say(c, -1, "NICK|||n%u", c->wanted);
}

static void rename_client(struct storm *s, struct client *c)
{
    if (c->wanted)
        return;
    c->wanted = ++s->next_name;
    assert_true(s->next_name < NAMES);
    say(c, -1, "NICK|||n%u", c->wanted);
}

static void act(struct storm *s, struct client *c)
{
    int room = (int)draw(s, ROOMS);
    const char *name = room_names[room];
    unsigned other = s->clients[draw(s, PEOPLE)].nick;

    switch (draw(s, 20)) {
    case 0:
    case 1:
    case 2:
        say(c, room, "JOIN|%s||", name);
        return;
    case 3:
    case 4:
        say(c, room, "PART|%s||bye", name);
        return;
    case 5:
        rename_client(s, c);
        return;
    case 6:
        say(c, room, "KICK|%s|n%u|out", name, other);
        c->self[c->n_lines] = other == c->nick;
        return;
    case 7:
        say(c, -1, "TEXT+d|n%u||psst", other);
        return;
    case 8:
        say(c, -1, "AWAY|||%u", draw(s, 1000));
        return;
    case 9:
        if (draw(s, 3))
            return;
        testhost_reset(c->conn);
        enter(s, c);
        return;
    case 10:
        say(c, room, "TOPIC|%s||%u", name, draw(s, 1000));
        return;
    case 11:
        say(c, room, "MODE|%s|n%u|+%c", name, other, "ov"[draw(s, 2)]);
        return;
    default:
        say(c, room, "TEXT|%s||hi", name);
        return;
    }
}

/* ---- hearing ---------------------------------------------------------------------------- */

struct heard { /* a unit, taken apart at its bars */
    char text[512];
    char *part[9];
    size_t n;
};

static struct heard *take_apart(const char *unit, struct heard *heard)
{
    (void)snprintf(heard->text, sizeof(heard->text), "%s", unit);
    heard->n = 0;
    for (char *at = heard->text; at && heard->n < 9; heard->n++) {
        heard->part[heard->n] = at;
        at = strchr(at, '|');
        if (at)
            *at++ = '\0';
    }
    while (heard->n < 9)
        heard->part[heard->n++] = heard->text + strlen(heard->text);
    return heard;
}

static int room_index(const char *name)
{
    for (int i = 0; i < ROOMS; i++)
        if (!strcmp(room_names[i], name))
            return i;
    return -1;
}

static unsigned name_index(const char *nick)
{
    return nick[0] == 'n' ? (unsigned)strtoul(nick + 1, NULL, 10) : 0;
}

static void forget_room(struct client *c, int room)
{
    c->member[room] = c->known[room] = 0;
}

static void take_answer(struct storm *s, struct client *c, const struct heard *heard,
                        const char *unit)
{
    int ok = !strcmp(heard->part[1], "0");
    uint32_t token = (uint32_t)strtoul(heard->part[3], NULL, 10);
    uint64_t number = strtoull(heard->part[4], NULL, 10);
    int room = c->room_of[token];

    if (!strcmp(heard->part[2], "NICK")) {
        CHECK(s, c, ok, unit);
        c->nick = c->wanted;
        c->wanted = 0;
    }
    if (room < 0 || !ok)
        return;
    if (!strcmp(heard->part[2], "JOIN")) {
        CHECK(s, c, !c->member[room], unit);
        c->member[room] = 1;
        c->known[room] = 0;
    } else if (!strcmp(heard->part[2], "PART")) {
        CHECK(s, c, c->member[room], unit);
        forget_room(c, room);
    } else {
        CHECK(s, c, c->member[room], unit);
        CHECK(s, c, !c->known[room] || number == c->last[room] + 1, unit);
        c->known[room] = 1;
        c->last[room] = number;
        if (c->self[token])
            forget_room(c, room); /* not shown to oneself: the answer says it */
    }
}

static void take_person(struct storm *s, struct client *c, const struct heard *heard,
                        const char *unit)
{
    unsigned who = name_index(heard->part[3]);

    CHECK(s, c, who == 0 || who != c->nick, unit);
    if (!strcmp(heard->part[0], "AWAY"))
        return;
    if (who)
        c->retired[who] = 1;
}

static void take(struct storm *s, struct client *c, const char *unit)
{
    struct heard heard;
    unsigned who;
    int room;

    take_apart(unit, &heard);
    if (!strcmp(heard.part[0], "answer")) {
        take_answer(s, c, &heard, unit);
        return;
    }
    if (!strcmp(heard.part[0], "closing"))
        return;
    who = name_index(heard.part[3]);
    CHECK(s, c, !who || !c->retired[who], unit);
    if (!strcmp(heard.part[0], "NICK") || !strcmp(heard.part[0], "QUIT") ||
        !strcmp(heard.part[0], "AWAY")) {
        take_person(s, c, &heard, unit);
        return;
    }
    room = room_index(heard.part[4]);
    if (room < 0)
        return; /* a private message */
    CHECK(s, c, c->member[room], unit);
    uint64_t number = strtoull(heard.part[1], NULL, 10), prev = strtoull(heard.part[2], NULL, 10);
    CHECK(s, c, !c->known[room] || prev == c->last[room], unit);
    CHECK(s, c, !number || number == prev + 1, unit);
    c->known[room] = 1;
    c->last[room] = number ? number : prev;
    if (!strcmp(heard.part[0], "KICK") && name_index(heard.part[5]) == c->nick)
        forget_room(c, room);
}

static void take_all(struct storm *s)
{
    for (size_t i = 0; i < PEOPLE; i++)
        for (const char *unit; (unit = testhost_unit(s->clients[i].conn));)
            take(s, &s->clients[i], unit);
}

/* ---- when all is calm ------------------------------------------------------------------- */

struct roster {
    size_t n;
    unsigned names[PEOPLE * 2];
};

static void take_roster(void *arg, const struct roda_member *members, size_t n, uint64_t next,
                        int result)
{
    struct roster *roster = arg;

    (void)next;
    (void)result;
    assert_true(n <= PEOPLE);
    for (size_t i = 0; i < n; i++) {
        struct roda_str nick = roda_person_get(members[i].person, RODA_PERSON_NICK);
        char text[40];
        (void)snprintf(text, sizeof(text), "%.*s", (int)nick.len, nick.ptr);
        roster->names[roster->n++] = name_index(text);
    }
}

static void agree(struct storm *s, int room)
{
    struct roster roster = {.n = 0};
    struct roda_ctx *x;
    const struct roda_rooms *rooms = chat_service(s->h, draw(s, WORKERS), &x);
    const char *name = room_names[room];
    size_t n = 0;

    (void)rooms->members(x, (struct roda_str){name, strlen(name)}, 0, 100, take_roster, &roster);
    assert_true(testhost_run(s->h));
    for (size_t i = 0; i < PEOPLE; i++) {
        struct client *c = &s->clients[i];
        int there = 0;
        for (size_t j = 0; j < roster.n; j++)
            there |= roster.names[j] == c->nick;
        CHECK(s, c, there == c->member[room], name);
        n += c->member[room] != 0;
    }
    if (n != roster.n)
        fail_msg("seed %u: %s has %zu members, and %zu clients think so", s->seed, name, roster.n,
                 n);
}

static void all_hear(struct storm *s, int room)
{
    uint64_t before[PEOPLE];

    for (size_t i = 0; i < PEOPLE; i++) {
        struct client *c = &s->clients[i];
        if (!c->member[room])
            continue;
        for (size_t j = 0; j < PEOPLE; j++)
            before[j] = s->clients[j].known[room] ? s->clients[j].last[room] : 0;
        say(c, room, "TEXT|%s||probe", room_names[room]);
        assert_true(testhost_run(s->h));
        take_all(s);
        for (size_t j = 0; j < PEOPLE; j++)
            if (s->clients[j].member[room])
                CHECK(s, &s->clients[j],
                      s->clients[j].known[room] && s->clients[j].last[room] > before[j],
                      room_names[room]);
    }
}

/* ---- the filter ------------------------------------------------------------------------- */

static roda_verdict hold(void *arg, enum testhost_stage stage, struct roda_ctx *x,
                         struct roda_event *ev)
{
    const struct storm *s = arg;

    (void)x;
    (void)ev;
    return stage == TESTHOST_PUBLISH && s->holds ? RODA_DEFER : RODA_PASS;
}

static void let_go(struct storm *s, size_t n)
{
    (void)roda_resume_oldest(testhost_filter_ctx(s->h, draw(s, WORKERS)), n, 0);
}

/* Until nobody holds anything. */
static void calm(struct storm *s)
{
    s->holds = 0;
    for (int round = 0; round < 20; round++) {
        for (uint32_t worker = 0; worker < WORKERS; worker++)
            (void)roda_resume_oldest(testhost_filter_ctx(s->h, worker), SIZE_MAX, 0);
        assert_true(testhost_run(s->h));
    }
    take_all(s);
}

static void start(struct storm *s)
{
    s->h = testhost_new(WORKERS);
    testhost_load_filter(s->h, hold, s);
    assert_int_equal(testhost_load(s->h, &rooms_plugin, NULL), 0);
    assert_int_equal(testhost_load(s->h, &chat_visitor, NULL), 0);
    assert_int_equal(testhost_start(s->h), 0);
}

static void run(unsigned seed)
{
    struct storm *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    start(s);
    s->seed = seed;
    s->random = seed;
    for (size_t i = 0; i < PEOPLE; i++)
        enter(s, &s->clients[i]);
    assert_true(testhost_run(s->h));
    take_all(s);
    s->holds = seed % 2;
    for (int step = 0; step < STEPS; step++) {
        uint32_t turns = draw(s, 4);
        if (s->holds)
            let_go(s, draw(s, 10));
        for (uint32_t i = draw(s, 4); i; i--)
            act(s, &s->clients[draw(s, PEOPLE)]);
        while (turns--)
            (void)testhost_turn_worker(s->h, draw(s, WORKERS));
        take_all(s);
    }
    calm(s);
    for (int room = 0; room < ROOMS; room++) {
        agree(s, room);
        all_hear(s, room);
    }
    for (size_t i = 0; i < PEOPLE; i++)
        testhost_reset(s->clients[i].conn);
    assert_true(testhost_run(s->h));
    assert_int_equal(testhost_metric(s->h, "rooms", "rooms_members"), 0);
    assert_int_equal(testhost_metric(s->h, "rooms", "rooms_open"), 1);
    chat_stop(s->h);
    free(s);
}

static void whatever_people_do(void **state)
{
    const char *one = getenv("RODA_SEED");

    (void)state;
    if (one) {
        run((unsigned)strtoul(one, NULL, 10));
        return;
    }
    for (unsigned seed = 1; seed <= 300; seed++)
        run(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(whatever_people_do)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
