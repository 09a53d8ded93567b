/*
 * Send queues: how entries grow, what a send may take, what is consumed while more comes, places,
 * clearing, compacting; and all of it at random against a plain string.
 */
#include "unit/net/fixture.h"

static struct chunk *chunk_with(struct fixture *f, const char *text)
{
    struct chunk *chunk = chunk_get(&f->net.chunks, 1);

    assert_non_null(chunk);
    chunk->used = (uint32_t)strlen(text);
    memcpy(chunk->data, text, chunk->used);
    return chunk;
}

static void assert_sendable(struct roda_conn *c, const char *expected)
{
    char text[4096];
    size_t len = fixture_read(c, text, sizeof text, false);

    assert_int_equal(len, strlen(expected));
    assert_memory_equal(text, expected, len);
}

static unsigned pieces_of(const struct roda_conn *c)
{
    struct iovec pieces[SEND_PIECES];
    uint32_t bytes;

    return queue_gather(c, pieces, &bytes);
}

static void a_burst_is_one_piece(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    struct chunk *chunk = chunk_with(f, "onetwothreefour"), *other = chunk_with(f, "OTHER");

    assert_true(queue_empty(c));
    assert_false(queue_sendable(c));
    queue_append(c, chunk, 0, 3);
    queue_append(c, chunk, 3, 3);
    queue_append(c, chunk, 6, 5);
    assert_int_equal(pieces_of(c), 1);
    assert_sendable(c, "onetwothree");
    queue_append(c, other, 0, 5);
    queue_append(c, chunk, 11, 4);
    assert_int_equal(pieces_of(c), 3);
    assert_sendable(c, "onetwothreeOTHERfour");
    assert_int_equal(c->queued_bytes, 20);
    assert_int_equal(chunk->references, 3);
    /* A gap in the same chunk is another piece. */
    queue_append(c, chunk, 3, 3);
    assert_sendable(c, "onetwothreeOTHERfourtwo");
    chunk_unref(&f->net.chunks, chunk);
    chunk_unref(&f->net.chunks, other);
    fixture_drop(f, c);
    fixture_free(f);
}

static void a_send_in_flight_is_consumed_in_parts(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    struct chunk *chunk = chunk_with(f, "0123456789"), *other = chunk_with(f, "abcdef");

    queue_append(c, chunk, 0, 4);
    c->sending_bytes = 4;
    queue_append(c, chunk, 4, 2); /* grows behind what is in flight */
    queue_consume(c, 3);          /* a short send */
    assert_sendable(c, "345");
    assert_int_equal(c->queued_bytes, 3);
    queue_append(c, other, 0, 6);
    queue_append(c, chunk, 6, 4);
    queue_consume(c, 3 + 2); /* over the end of an entry */
    assert_sendable(c, "cdef6789");
    queue_consume(c, 4);
    assert_sendable(c, "6789");
    assert_int_equal(other->references, 1);
    queue_consume(c, 4);
    assert_true(queue_empty(c));
    assert_int_equal(chunk->references, 1);
    assert_int_equal(c->queued_bytes, 0);
    queue_append(c, chunk, 0, 10); /* and it works afterwards */
    assert_sendable(c, "0123456789");
    chunk_unref(&f->net.chunks, chunk);
    chunk_unref(&f->net.chunks, other);
    fixture_drop(f, c);
    fixture_free(f);
}

static void a_send_has_its_limits(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    struct chunk *a = chunk_with(f, "aa"), *b = chunk_with(f, "bb");
    struct chunk *large = chunk_get(&f->net.chunks, 3 * SEND_BYTES_MAX);
    struct iovec pieces[SEND_PIECES];
    uint32_t bytes;

    for (unsigned i = 0; i < 20; i++)
        queue_append(c, i % 2 ? b : a, 0, 2);
    assert_int_equal(queue_gather(c, pieces, &bytes), SEND_PIECES);
    assert_int_equal(bytes, 2 * SEND_PIECES);
    queue_consume(c, bytes);
    assert_int_equal(queue_gather(c, pieces, &bytes), 4);
    queue_consume(c, bytes);
    queue_append(c, a, 0, 1);
    queue_append(c, large, 0, 3 * SEND_BYTES_MAX);
    assert_int_equal(queue_gather(c, pieces, &bytes), 2);
    assert_int_equal(bytes, SEND_BYTES_MAX);
    chunk_unref(&f->net.chunks, a);
    chunk_unref(&f->net.chunks, b);
    chunk_unref(&f->net.chunks, large);
    fixture_drop(f, c);
    fixture_free(f);
}

static unsigned dirty_length(const struct fixture *f)
{
    unsigned n = 0;

    for (const struct roda_conn *c = f->net.dirty; c; c = c->next_dirty)
        n++;
    return n;
}

static void dirty_once_and_not_while_sending(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false), *d = fixture_conn(f, false);
    struct chunk *chunk = chunk_with(f, "0123456789");

    queue_append(c, chunk, 0, 1);
    queue_append(c, chunk, 5, 1);
    assert_int_equal(dirty_length(f), 1);
    d->flags |= CONN_SENDING;
    queue_append(d, chunk, 0, 1);
    assert_int_equal(dirty_length(f), 1);
    d->flags &= ~(uint32_t)CONN_SENDING;
    queue_append(d, chunk, 1, 1);
    assert_int_equal(dirty_length(f), 2);
    chunk_unref(&f->net.chunks, chunk);
    fixture_drop(f, c);
    assert_int_equal(dirty_length(f), 1);
    fixture_drop(f, d);
    assert_int_equal(dirty_length(f), 0);
    fixture_free(f);
}

static void beyond_the_limit_it_is_over(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    struct chunk *chunk = chunk_with(f, "0123456789");

    c->limit_bytes = 10;
    queue_append(c, chunk, 0, 10);
    assert_true(list_empty(&f->net.over));
    queue_append(c, chunk, 0, 1);
    queue_append(c, chunk, 0, 1);
    assert_ptr_equal(list_first(&f->net.over), &c->link);
    net_pressure(&f->net);
    assert_int_equal(c->state, CONNECTION_GONE);
    assert_string_equal(c->reason, "reads too slowly: send_queue is full");
    net_report_ended(&f->net);
    chunk_unref(&f->net.chunks, chunk);
    fixture_free(f);
}

static void without_memory_it_is_closed(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    struct chunk *a = chunk_with(f, "aa"), *b = chunk_with(f, "bb");

    queue_append(c, a, 0, 2);
    memory_fail_at(1, 0);
    queue_append(c, b, 0, 2);
    memory_fail_at(0, 0);
    assert_true(c->flags & CONN_FAILED);
    assert_int_equal(c->queued_bytes, 2);
    assert_sendable(c, "aa");
    assert_int_equal(b->references, 1);
    net_pressure(&f->net);
    assert_int_equal(c->state, CONNECTION_GONE);
    assert_string_equal(c->reason, "out of memory");
    net_report_ended(&f->net);
    chunk_unref(&f->net.chunks, a);
    chunk_unref(&f->net.chunks, b);
    fixture_free(f);
}

/* An answer may be written to somebody who went in the same turn. */
static void without_memory_who_is_gone_is_freed_all_the_same(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);

    connection_abort(c, "gone");
    assert_int_equal(c->state, CONNECTION_GONE);
    memory_fail_at(1, 1);
    roda_out_put(roda_conn_out(c), RODA_STR("an answer"));
    roda_out_unit(roda_conn_out(c));
    memory_fail_at(0, 0);
    net_pressure(&f->net);
    net_report_ended(&f->net);
    assert_null(f->net.slots[0].conn);
    fixture_free(f);
}

static void clearing_keeps_what_is_in_flight(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    struct chunk *a = chunk_with(f, "aaa"), *b = chunk_with(f, "bbb"), *d = chunk_with(f, "ddd");

    queue_append(c, a, 0, 3);
    queue_append(c, b, 0, 3);
    queue_append(c, d, 0, 3);
    queue_clear(c, 4); /* reaches into the second */
    assert_sendable(c, "aaabbb");
    assert_int_equal(c->queued_bytes, 6);
    assert_int_equal(d->references, 1);
    queue_consume(c, 4);
    assert_sendable(c, "bb");
    queue_clear(c, 0);
    assert_true(queue_empty(c));
    assert_int_equal(c->queued_bytes, 0);
    /* In flight is the newest entry alone. */
    queue_append(c, a, 0, 3);
    queue_clear(c, 2);
    assert_sendable(c, "aaa");
    queue_clear(c, 0);
    assert_int_equal(a->references, 1);
    chunk_unref(&f->net.chunks, a);
    chunk_unref(&f->net.chunks, b);
    chunk_unref(&f->net.chunks, d);
    fixture_drop(f, c);
    fixture_free(f);
}

static void compacting_frees_chunks(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    char expected[256] = "";

    for (unsigned i = 0; i < 10; i++) {
        char text[16];
        (void)snprintf(text, sizeof text, "<piece %u>", i);
        strcat(expected, text);
        struct chunk *chunk = chunk_with(f, text);
        chunk->counts_units = i % 2; /* replies, shared encodings */
        queue_append(c, chunk, 0, chunk->used);
        chunk_unref(&f->net.chunks, chunk);
    }
    uint64_t before = f->net.chunks.pinned_bytes;
    c->sending_bytes = 12; /* the first and a part of the second stay where they are */
    queue_compact(c);
    assert_sendable(c, expected);
    assert_int_equal(f->net.counters.chunk_copies, 8);
    assert_int_equal(f->net.chunks.pinned_bytes, before / 10 * 3);
    /* What was compacted once is not copied again, also when the compact chunk has changed. */
    queue_compact(c);
    chunk_unref(&f->net.chunks, f->net.compact);
    f->net.compact = NULL;
    queue_compact(c);
    assert_int_equal(f->net.counters.chunk_copies, 8);
    c->sending_bytes = 0;
    queue_compact(c);
    assert_int_equal(f->net.counters.chunk_copies, 10);
    assert_sendable(c, expected);
    fixture_drop(f, c);
    fixture_free(f);
}

/* A room of laggards: each would take a copy of the same chunks. */
static void compacting_does_not_multiply_what_is_shared(void **state)
{
    enum { LAGGARDS = 50, CHUNKS = 4 };
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *laggards[LAGGARDS];

    for (unsigned i = 0; i < LAGGARDS; i++)
        laggards[i] = fixture_conn(f, false);
    for (unsigned i = 0; i < CHUNKS; i++) {
        struct chunk *chunk = chunk_with(f, "");
        memset(chunk->data, 'x', chunk->used = chunk->capacity);
        /* Of the last one each has a little. */
        for (unsigned j = 0; j < LAGGARDS; j++)
            queue_append(laggards[j], chunk, 0, i + 1 < CHUNKS ? chunk->used : 100);
        chunk_unref(&f->net.chunks, chunk);
    }
    uint64_t before = f->net.chunks.pinned_bytes;
    for (unsigned i = 0; i < LAGGARDS; i++) {
        queue_compact(laggards[i]);
        assert_true(f->net.chunks.pinned_bytes <= before * (CHUNKS + 1) / CHUNKS);
    }
    assert_int_equal(f->net.chunks.pinned_bytes, before);
    assert_int_equal(f->net.counters.chunk_copies, LAGGARDS);
    for (unsigned i = 0; i < LAGGARDS; i++)
        fixture_drop(f, laggards[i]);
    fixture_free(f);
}

static void compacting_may_fail(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    struct chunk *a = chunk_with(f, "aaa"), *b = chunk_with(f, "bbb");

    queue_append(c, a, 0, 3);
    queue_append(c, b, 0, 3);
    memory_fail_at(1, 1);
    queue_compact(c);
    memory_fail_at(0, 0);
    assert_sendable(c, "aaabbb");
    assert_int_equal(f->net.counters.chunk_copies, 0);
    chunk_unref(&f->net.chunks, a);
    chunk_unref(&f->net.chunks, b);
    fixture_drop(f, c);
    fixture_free(f);
}

/* ---- places ----------------------------------------------------------------------------- */

struct filler {
    struct roda_place *place;
    const char *name;
    unsigned pieces; /* left to write */
    unsigned calls;
    unsigned idle; /* calls that write nothing and do not wait */
    bool waits;    /* instead of writing */
    bool cancelled;
    struct roda_conn *abort; /* in more() */
};

static void fill(struct roda_ctx *x, void *arg, int result)
{
    struct filler *filler = arg;

    (void)x;
    filler->calls++;
    if (result) {
        assert_int_equal(result, -ECANCELED);
        filler->cancelled = true;
        return;
    }
    if (filler->abort) {
        connection_abort(filler->abort, "from inside");
        return;
    }
    if (filler->waits) {
        roda_place_wait(filler->place);
        return;
    }
    if (filler->idle) {
        filler->idle--;
        return;
    }
    if (!filler->pieces) {
        roda_place_end(filler->place);
        return;
    }
    filler->pieces--;
    struct roda_out *out = roda_place_out(filler->place);
    roda_out_printf(out, "%s%u", filler->name, filler->pieces);
    roda_out_unit(out);
}

static void place_at(struct roda_conn *c, struct filler *filler)
{
    assert_int_equal(roda_place_new(NULL, c, fill, filler, &filler->place), 0);
}

/* Turns until nothing is due; all that may be sent is sent. */
static void drain(struct fixture *f, struct roda_conn *c, char *text)
{
    size_t len = strlen(text);

    for (unsigned i = 0; i < 50; i++) {
        net_places(&f->net);
        len += fixture_read(c, text + len, 1000, true);
    }
    text[len] = 0;
}

static void say(struct roda_conn *c, const char *text)
{
    struct roda_out *out = roda_conn_out(c);

    roda_out_put(out, (struct roda_str){text, strlen(text)});
    roda_out_unit(out);
}

static void a_place_is_filled_as_it_drains(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    struct filler filler = {.name = "piece", .pieces = 3};
    char text[4096] = "";

    say(c, "before");
    place_at(c, &filler);
    say(c, "behind");
    assert_sendable(c, "before\n");
    net_places(&f->net);
    assert_sendable(c, "before\npiece2\n");
    assert_int_equal(filler.calls, 1);
    net_places(&f->net); /* not drained yet: not asked again */
    assert_int_equal(filler.calls, 1);
    drain(f, c, text);
    assert_string_equal(text, "before\npiece2\npiece1\npiece0\nbehind\n");
    assert_int_equal(filler.calls, 4);
    assert_true(queue_empty(c));
    assert_int_equal(c->queued_bytes, 0);
    fixture_drop(f, c);
    fixture_free(f);
}

static void a_place_may_wait(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    struct filler filler = {.name = "late", .pieces = 1, .waits = true};
    char text[4096] = "";

    place_at(c, &filler);
    say(c, "behind");
    drain(f, c, text);
    assert_string_equal(text, "");
    assert_int_equal(filler.calls, 1);
    filler.waits = false;
    roda_place_wake(filler.place);
    drain(f, c, text);
    assert_string_equal(text, "late0\nbehind\n");
    fixture_drop(f, c);
    fixture_free(f);
}

static void a_place_that_says_nothing_is_asked_again(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    struct filler filler = {.name = "p", .pieces = 1, .idle = 3};
    char text[4096] = "";

    place_at(c, &filler);
    drain(f, c, text);
    assert_string_equal(text, "p0\n");
    fixture_drop(f, c);
    fixture_free(f);
}

/* Two requests for history in a row: the second may know its answer first, or say nothing at
 * first; it goes on when the first has ended. */
static void places_follow_each_other(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();

    for (unsigned i = 0; i < 4; i++) {
        struct roda_conn *c = fixture_conn(f, false);
        struct filler first = {.name = "a", .pieces = 2, .waits = true};
        struct filler second = {.name = "b", .pieces = 2};
        char text[4096] = "";

        second.waits = i == 1;
        second.idle = i == 2 ? 1 : 0;
        place_at(c, &first);
        place_at(c, &second);
        say(c, "end");
        drain(f, c, text);
        assert_string_equal(text, "");
        if (second.waits) { /* woken while the first is in front of it */
            second.waits = false;
            roda_place_wake(second.place);
            drain(f, c, text);
        }
        first.waits = false;
        if (i == 3) {
            roda_place_end(first.place); /* from outside, without a piece */
            drain(f, c, text);
            assert_string_equal(text, "b1\nb0\nend\n");
        } else {
            roda_place_wake(first.place);
            drain(f, c, text);
            assert_string_equal(text, "a1\na0\nb1\nb0\nend\n");
        }
        assert_true(queue_empty(c));
        fixture_drop(f, c);
    }
    fixture_free(f);
}

static void a_place_is_cancelled_with_its_connection(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false), *d = fixture_conn(f, false);
    struct filler waits = {.name = "w", .waits = true}, running = {.name = "r", .abort = d};
    struct filler ended = {.name = "e", .waits = true};
    struct roda_out *out;

    place_at(c, &waits);
    place_at(c, &ended);
    say(c, "never sent");
    net_places(&f->net);
    fixture_drop(f, c);
    out = roda_place_out(ended.place); /* between the end and its report: into the void */
    roda_out_printf(out, "%0600d", 1);
    roda_out_unit(out);
    roda_place_end(ended.place);
    net_places(&f->net);
    assert_true(waits.cancelled);
    assert_false(ended.cancelled);
    place_at(d, &running);
    net_places(&f->net);
    net_report_ended(&f->net);
    net_places(&f->net);
    assert_true(running.cancelled);
    assert_int_equal(running.calls, 2);
    fixture_free(f);
}

static void a_place_needs_memory_and_an_open_connection(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    struct filler filler = {.name = "p", .pieces = 1};
    char text[4096] = "";
    unsigned failures = 0;
    int r;

    say(c, "before");
    do {
        memory_fail_at(++failures, 1);
        r = roda_place_new(NULL, c, fill, &filler, &filler.place);
        memory_fail_at(0, 0);
        assert_true(r == 0 || (r == -ENOMEM && !filler.place));
        assert_sendable(c, "before\n");
    } while (r);
    assert_true(failures > 2);
    drain(f, c, text);
    assert_string_equal(text, "before\np0\n");
    connection_close(c, "over");
    assert_int_equal(roda_place_new(NULL, c, fill, &filler, &filler.place), -EPIPE);
    fixture_drop(f, c);
    fixture_free(f);
}

/* ---- at random -------------------------------------------------------------------------- */

static uint64_t seed;

static uint32_t draw(uint32_t bound)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33) % bound;
}

/* A stream whose queue is built from shared chunks and replies, sent in parts, compacted: what
 * goes out is what came in. */
static void a_random_life(struct fixture *f)
{
    enum { CHUNKS = 4, STEPS = 400, TEXT = 1 << 16 };
    struct roda_conn *c = fixture_conn(f, false);
    struct chunk *chunks[CHUNKS] = {0};
    char *queued = calloc(1, TEXT), *sent = calloc(1, TEXT);
    size_t n_queued = 0, n_sent = 0;

    assert_non_null(queued);
    assert_non_null(sent);
    for (unsigned step = 0; step < STEPS; step++) {
        uint32_t len = 1 + draw(40), which = draw(CHUNKS);
        char text[64];

        for (uint32_t i = 0; i < len; i++)
            text[i] = (char)('a' + draw(26));
        switch (draw(8)) {
        case 0:
        case 1:
        case 2: /* an encoding's next message */
            if (!chunks[which])
                chunks[which] = chunk_get(&f->net.chunks, 1);
            memcpy(chunks[which]->data + chunks[which]->used, text, len);
            queue_append(c, chunks[which], chunks[which]->used, len);
            chunks[which]->used += len;
            memcpy(queued + n_queued, text, len);
            n_queued += len;
            break;
        case 3: { /* a reply */
            struct roda_out *out = roda_conn_out(c);
            roda_out_put(out, (struct roda_str){text, len});
            roda_out_unit(out);
            memcpy(queued + n_queued, text, len);
            queued[n_queued + len] = '\n';
            n_queued += len + 1;
            break;
        }
        case 4: /* the encoding takes a fresh chunk */
            chunk_unref(&f->net.chunks, chunks[which]);
            chunks[which] = NULL;
            break;
        case 5:
            queue_compact(c);
            break;
        default: /* a send begins, or ends, perhaps short */
            if (!c->sending_bytes) {
                struct iovec pieces[SEND_PIECES];
                (void)queue_gather(c, pieces, &c->sending_bytes);
            } else {
                uint32_t part = 1 + draw(c->sending_bytes);
                n_sent += fixture_read(c, sent + n_sent, part, true);
                c->sending_bytes = 0;
            }
            break;
        }
        assert_int_equal(c->queued_bytes, n_queued - n_sent);
    }
    n_sent += fixture_read(c, sent + n_sent, TEXT - n_sent, true);
    assert_int_equal(n_sent, n_queued);
    assert_memory_equal(sent, queued, n_queued);
    assert_true(queue_empty(c));
    for (unsigned i = 0; i < CHUNKS; i++)
        chunk_unref(&f->net.chunks, chunks[i]);
    free(queued);
    free(sent);
    fixture_drop(f, c);
}

static void random_lives(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();

    for (unsigned i = 1; i <= 300; i++) {
        seed = i;
        a_random_life(f);
    }
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_burst_is_one_piece),
        cmocka_unit_test(a_send_in_flight_is_consumed_in_parts),
        cmocka_unit_test(a_send_has_its_limits),
        cmocka_unit_test(dirty_once_and_not_while_sending),
        cmocka_unit_test(beyond_the_limit_it_is_over),
        cmocka_unit_test(without_memory_it_is_closed),
        cmocka_unit_test(without_memory_who_is_gone_is_freed_all_the_same),
        cmocka_unit_test(clearing_keeps_what_is_in_flight),
        cmocka_unit_test(compacting_frees_chunks),
        cmocka_unit_test(compacting_does_not_multiply_what_is_shared),
        cmocka_unit_test(compacting_may_fail),
        cmocka_unit_test(a_place_is_filled_as_it_drains),
        cmocka_unit_test(a_place_may_wait),
        cmocka_unit_test(a_place_that_says_nothing_is_asked_again),
        cmocka_unit_test(places_follow_each_other),
        cmocka_unit_test(a_place_is_cancelled_with_its_connection),
        cmocka_unit_test(a_place_needs_memory_and_an_open_connection),
        cmocka_unit_test(random_lives),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
