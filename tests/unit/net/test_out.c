/* Byte builders: replies, encodings, pieces, answers to a knock; streams and datagrams. */
#include "unit/net/fixture.h"

#define LARGE 200000u

static void assert_queued(struct roda_conn *c, const char *expected, size_t len)
{
    char *text = malloc(len + 1);
    size_t n = fixture_read(c, text, len + 1, true);

    assert_int_equal(n, len);
    assert_memory_equal(text, expected, len);
    free(text);
}

static void put(struct roda_out *out, const char *text)
{
    roda_out_put(out, (struct roda_str){text, strlen(text)});
}

static void a_stream_gets_bytes_as_they_come(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    struct roda_out *out = roda_conn_out(c);

    assert_int_equal(roda_out_limit(out), SIZE_MAX);
    put(out, "hel");
    put(out, "");
    roda_out_printf(out, "lo %d", 42);
    assert_int_equal(c->queued_bytes, 8);
    roda_out_unit(out);
    put(out, "half"); /* a unit that is not ended is a stream's all the same */
    out = roda_conn_out(c);
    put(out, "more");
    roda_out_unit(out);
    assert_queued(c, "hello 42\nhalfmore\n", 18);
    f->protocol.framing = RODA_RAW;
    out = roda_conn_out(c);
    put(out, "raw");
    roda_out_unit(out);
    assert_queued(c, "raw", 3);
    fixture_drop(f, c);
    fixture_free(f);
}

static void large_replies_are_whole(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    char *expected = malloc(LARGE + 1), *line = expected;

    memset(expected, 'x', LARGE);
    for (unsigned len = 1; line + len < expected + LARGE; len = len * 3 + 500) {
        struct roda_out *out = roda_conn_out(c);
        if (len % 2) {
            roda_out_put(out, (struct roda_str){line, len});
        } else {
            line[len] = 0;
            roda_out_printf(out, "%s", line);
        }
        roda_out_unit(out);
        line[len] = '\n';
        line += len + 1;
    }
    assert_true(line > expected + CHUNK_BYTES);
    assert_queued(c, expected, (size_t)(line - expected));
    /* One that no ordinary chunk holds. */
    expected[LARGE] = 0;
    memset(expected, 'y', LARGE);
    roda_out_printf(roda_conn_out(c), "%s", expected);
    assert_queued(c, expected, LARGE);
    free(expected);
    fixture_drop(f, c);
    fixture_free(f);
}

static void a_datagram_session_gets_whole_units(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, true), *s = fixture_conn(f, false);
    struct roda_out *out = roda_conn_out(c);

    assert_int_equal(roda_out_limit(out), OUT_DATAGRAM_BYTES - 1);
    put(out, "one");
    assert_int_equal(c->queued_bytes, 0);
    roda_out_unit(out);
    assert_int_equal(c->queued_bytes, 4);
    put(out, "two");
    roda_out_unit(out);
    put(out, "half");
    out = roda_conn_out(s); /* another's reply in between */
    put(out, "stream");
    roda_out_unit(out);
    out = roda_conn_out(c);
    put(out, "three");
    roda_out_unit(out);
    assert_queued(c, "one\ntwo\nthree\n", 14);
    assert_queued(s, "stream\n", 7);
    fixture_drop(f, c);
    fixture_drop(f, s);
    fixture_free(f);
}

/* Units of all lengths over many chunks: none is split, none is lost, each end is known. */
static void datagram_units_move_between_chunks(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, true);

    for (unsigned i = 0; i < 500; i++) {
        struct roda_out *out = roda_conn_out(c);
        unsigned len = (i * 37) % 1199 + 1;
        for (unsigned n = 0; n < len; n++)
            put(out, "z");
        roda_out_unit(out);
        assert_ptr_equal(c->chunk, f->net.replies);
        assert_int_equal(chunk_units_within(c->chunk, c->offset + c->length - len - 1,
                                            c->offset + c->length),
                         c->offset + c->length);
    }
    size_t total = 0;
    for (unsigned i = 0; i < 500; i++)
        total += (i * 37) % 1199 + 2;
    assert_int_equal(c->queued_bytes, total);
    fixture_drop(f, c);
    fixture_free(f);
}

static void a_long_unit_is_cut_between_characters(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, true);
    struct roda_out *out = roda_conn_out(c);
    char expected[OUT_DATAGRAM_BYTES];

    put(out, "a");
    for (unsigned i = 0; i < 700; i++)
        put(out, "\xc3\xa9"); /* e with an acute: the limit falls between its bytes, or not */
    roda_out_unit(out);
    expected[0] = 'a';
    for (unsigned i = 0; i < 599; i++)
        memcpy(expected + 1 + 2 * i, "\xc3\xa9", 2);
    expected[1199] = '\n';
    assert_queued(c, expected, 1200);
    out = roda_conn_out(c);
    for (unsigned i = 0; i < 700; i++)
        put(out, "\xc3\xa9");
    roda_out_unit(out);
    assert_int_equal(c->queued_bytes, 1199);
    fixture_drop(f, c);
    fixture_free(f);
}

static void an_encoding_moves_to_a_fresh_chunk(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct chunk *chunk = NULL, *at;
    uint32_t offset, length;
    struct roda_out out;
    char text[1000];

    memset(text, 'm', sizeof text);
    for (unsigned i = 0; i < 300; i++) {
        struct chunk *before = chunk;
        uint32_t used = chunk ? chunk->used : 0;
        out_begin(&out, &f->net, &chunk, true, RODA_LINES);
        for (unsigned unit = 0; unit < 3; unit++) {
            roda_out_put(&out, (struct roda_str){text, 99});
            roda_out_put(&out, (struct roda_str){text, (i * 7) % 800});
            roda_out_unit(&out);
        }
        assert_true(out_end(&out, &at, &offset, &length));
        assert_ptr_equal(at, chunk);
        assert_int_equal(length, 3 * (100 + (i * 7) % 800));
        if (chunk == before)
            assert_int_equal(offset, used);
        else
            assert_int_equal(offset, 0);
        for (unsigned unit = 1; unit <= 3; unit++) { /* every end is in the index */
            uint32_t end = offset + length / 3 * unit;
            assert_int_equal(chunk_units_within(at, end - 1, end), end);
            assert_int_equal(at->data[end - 1], '\n');
        }
    }
    out_begin(&out, &f->net, &chunk, true, RODA_LINES);
    assert_false(out_end(&out, &at, &offset, &length)); /* nothing was written */
    chunk_unref(&f->net.chunks, chunk);
    fixture_free(f);
}

/* Whatever allocation fails: an encoding is whole or not there, and the chunk stays sound. */
static void an_encoding_may_fail(void **state)
{
    (void)state;
    char text[1000];
    unsigned failed = 0;

    memset(text, 'm', sizeof text);
    for (unsigned at_allocation = 1; at_allocation < 8; at_allocation++) {
        for (unsigned fill = CHUNK_BYTES - 4000; fill <= CHUNK_BYTES; fill += 500) {
            struct fixture *f = fixture_new();
            struct chunk *chunk = chunk_get(&f->net.chunks, 1), *at;
            uint32_t offset, length;
            struct roda_out out;

            chunk->counts_units = true;
            chunk->used = fill;
            assert_int_equal(chunk_end_unit(chunk), 0);
            memory_fail_at(at_allocation, 1);
            out_begin(&out, &f->net, &chunk, true, RODA_LINES);
            for (unsigned unit = 0; unit < 70; unit++) { /* the index grows, too */
                roda_out_put(&out, (struct roda_str){text, 49});
                roda_out_unit(&out);
            }
            bool whole = out_end(&out, &at, &offset, &length);
            memory_fail_at(0, 0);
            if (whole) {
                assert_int_equal(length, 3500);
                assert_int_equal(chunk_units_within(at, offset, offset + 120), offset + 100);
            } else {
                failed++;
                for (uint32_t i = 0; i < chunk->n_units; i++)
                    assert_true(chunk->units[i] <= chunk->used);
            }
            chunk_unref(&f->net.chunks, chunk);
            fixture_free(f);
        }
    }
    assert_true(failed > 0);
}

static void a_reply_may_fail(void **state)
{
    (void)state;
    unsigned failed = 0;

    for (unsigned i = 0; i < 40; i++) {
        struct fixture *f = fixture_new();
        bool datagram = i % 2;
        struct roda_conn *c = fixture_conn(f, datagram);
        struct roda_out *out;
        char text[1000];
        size_t whole;

        memset(text, 'r', sizeof text);
        memory_fail_at(1 + i / 2, 1);
        for (unsigned n = 0; n < 140; n++) {
            out = roda_conn_out(c);
            roda_out_put(out, (struct roda_str){text, sizeof text});
            roda_out_unit(out);
        }
        memory_fail_at(0, 0);
        whole = c->queued_bytes;
        if (c->flags & CONN_FAILED) {
            failed++;
            assert_true(c->flags & CONN_OVER);
            if (datagram)
                assert_int_equal(whole % 1001, 0);
            net_pressure(&f->net);
            assert_int_equal(c->state, CONNECTION_GONE);
            assert_string_equal(c->reason, "out of memory");
            net_report_ended(&f->net);
        } else {
            assert_int_equal(whole, 140 * 1001);
            fixture_drop(f, c);
        }
        fixture_free(f);
    }
    assert_in_range(failed, 2, 39);
}

static void nobody_reads_after_the_end(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct roda_conn *c = fixture_conn(f, false);
    struct roda_out *out;

    connection_abort(c, "gone");
    out = roda_conn_out(c);
    assert_non_null(out);
    put(out, "too late");
    roda_out_printf(out, "%0600d", 1);
    roda_out_unit(out);
    assert_int_equal(c->queued_bytes, 0);
    net_report_ended(&f->net);
    fixture_free(f);
}

static void a_fixed_answer_is_cut(void **state)
{
    (void)state;
    struct roda_out out;
    char memory[12] = "............";

    out_fixed(&out, memory, 10);
    assert_int_equal(roda_out_limit(&out), 10);
    put(&out, "abcdefgh");
    roda_out_unit(&out);
    assert_int_equal(out.fixed_len, 9);
    roda_out_printf(&out, "%0600d", 7);
    roda_out_unit(&out);
    assert_int_equal(out.fixed_len, 10);
    assert_memory_equal(memory, "abcdefgh\n0..", 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_gets_bytes_as_they_come),
        cmocka_unit_test(large_replies_are_whole),
        cmocka_unit_test(a_datagram_session_gets_whole_units),
        cmocka_unit_test(datagram_units_move_between_chunks),
        cmocka_unit_test(a_long_unit_is_cut_between_characters),
        cmocka_unit_test(an_encoding_moves_to_a_fresh_chunk),
        cmocka_unit_test(an_encoding_may_fail),
        cmocka_unit_test(a_reply_may_fail),
        cmocka_unit_test(nobody_reads_after_the_end),
        cmocka_unit_test(a_fixed_answer_is_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
