#include "conformance.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Scripts: what becomes of receives and sends when either end ends, breaks or waits. */

void script_receive(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    for (unsigned i = 0; i < 4; i++)
        give(w, i);
    arm_recv(w, fd, 1);
    step(w, "armed", 0);
    far_write(&f, "abc");
    step(w, "data", 1);
    far_write(&f, "def");
    far_end_of_writing(&f);
    step(w, "data and end", 2);
    send_bytes(w, fd, 1, "still", 5);
    step(w, "half closed", 1);
    far_say(&f);
    arm_recv(w, fd, 2);
    step(w, "armed at the end", 1);
    shut(w, fd, SHUT_RDWR);
    step(w, "both ended", 0);
    shut(w, fd, SHUT_RDWR);
    gone(w, fd);
    far_say(&f);
    far_close(&f);
}

void script_receive_ended_by_shutdown(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    arm_recv(w, fd, 1);
    step(w, "armed", 0);
    shut(w, fd, SHUT_RDWR);
    step(w, "shut", 1);
    send_bytes(w, fd, 1, "x", 1);
    step(w, "send to a shut side", 1);
    far_say(&f);
    gone(w, fd);
    far_close(&f);
}

void script_shut_for_writing(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    arm_recv(w, fd, 1);
    step(w, "armed", 0);
    shut(w, fd, SHUT_WR);
    step(w, "shut for writing", 0);
    far_say(&f);
    far_write(&f, "bye");
    step(w, "data", 1);
    far_close(&f);
    step(w, "closed", 1);
    gone(w, fd);
}

void script_receive_without_buffers(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    arm_recv(w, fd, 1);
    step(w, "armed on an empty ring", 1);
    arm_recv(w, fd, 2)->ioprio |= IORING_RECVSEND_POLL_FIRST;
    step(w, "armed on an empty ring, poll first", 0);
    far_write(&f, "abc");
    step(w, "data", 1);
    give(w, 3);
    arm_recv(w, fd, 3)->ioprio |= IORING_RECVSEND_POLL_FIRST;
    step(w, "a buffer", 1);
    far_write(&f, "def");
    step(w, "data", 1);
    give(w, 3);
    give(w, 4);
    arm_recv(w, fd, 4);
    step(w, "two buffers", 1);
    for (unsigned i = 0; i < 20; i++)
        far_write(&f, "0123456789abcdef");
    step(w, "more data than buffers", 1);
    gone(w, fd);
    far_close(&f);
}

void script_receive_once(struct world *w)
{
    struct far f;
    char bytes[4] = {0};
    int fd = connected(w, &f);

    io_uring_prep_rw(IORING_OP_RECV, sqe(w, RING_RECV, 1), fd, bytes, 4, 0);
    step(w, "armed", 0);
    far_write(&f, "abcdef");
    step(w, "data", 1);
    say(w, "'%.4s'\n", bytes);
    give(w, 0);
    arm_recv(w, fd, 2)->ioprio = 0;
    step(w, "once, from a group", 1);
    struct io_uring_sqe *s = sqe(w, RING_RECV, 3);
    io_uring_prep_rw(IORING_OP_RECV, s, fd, bytes, 4, 0);
    s->msg_flags = MSG_DONTWAIT;
    step(w, "nothing, and told not to wait", 1);
    arm_recv(w, fd, 4)->ioprio = 0;
    step(w, "once, no buffer", 1);
    far_close(&f);
    io_uring_prep_rw(IORING_OP_RECV, sqe(w, RING_RECV, 5), fd, bytes, 4, 0);
    step(w, "closed", 1);
    gone(w, fd);
}

void script_reset(struct world *w)
{
    union any_address a;
    socklen_t len = sizeof a;
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    arm_recv(w, fd, 1);
    step(w, "armed", 0);
    far_reset(&f);
    step(w, "reset", 1);
    send_bytes(w, fd, 1, "x", 1);
    step(w, "send", 1);
    arm_recv(w, fd, 2);
    step(w, "receive", 1);
    shut(w, fd, SHUT_RDWR);
    say_result(w, "getpeername", w->sys->getpeername(w->sys->kernel, fd, &a.any, &len));
    gone(w, fd);
}

void script_reset_told_to_a_send(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    send_bytes(w, fd, 1, big, sizeof big);
    step(w, "a send that waits", 0);
    far_reset(&f);
    step(w, "reset", 1);
    send_bytes(w, fd, 2, "x", 1);
    step(w, "send", 1);
    arm_recv(w, fd, 1);
    step(w, "receive", 1);
    gone(w, fd);
}

void script_reset_after_data(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    give(w, 1);
    far_write(&f, "last");
    step(w, "written", 0);
    far_reset(&f);
    step(w, "reset", 0);
    arm_recv(w, fd, 1);
    step(w, "receive", 2);
    gone(w, fd);
}

void script_far_end_closed_with_unread_data(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    send_bytes(w, fd, 1, "unread", 6);
    step(w, "sent", 1);
    far_close(&f);
    give(w, 0);
    arm_recv(w, fd, 1);
    step(w, "receive", 1);
    gone(w, fd);
}

void script_close_under_a_receive(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    give(w, 1);
    arm_recv(w, fd, 1);
    step(w, "armed", 0);
    gone(w, fd);
    step(w, "closed", 0);
    far_write(&f, "ghost");
    step(w, "data", 1);
    far_say_nothing(&f);
    cancel(w, 1, -1, RING_USER_DATA(RING_RECV, 0, 1), 0);
    step(w, "cancelled", 2);
    far_say(&f);
    far_close(&f);
}

void script_close_with_unread_data(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    far_write(&f, "unread");
    step(w, "written", 0);
    gone(w, fd);
    far_say(&f);
    far_close(&f);
}

void script_data_for_a_shut_side(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    shut(w, fd, SHUT_RDWR);
    far_say(&f);
    if (family == AF_INET) { /* UNIX tells the writer at once */
        far_write(&f, "late");
        step(w, "written", 0);
        far_say(&f);
    }
    gone(w, fd);
    far_close(&f);
}

void script_linger_zero(struct world *w)
{
    struct linger linger = {.l_onoff = 1};
    struct far f;
    int fd = connected(w, &f);

    assert_int_equal(w->sys->setsockopt(w->sys->kernel, fd, SOL_SOCKET, SO_LINGER, &linger,
                                        sizeof linger),
                     0);
    gone(w, fd);
    far_say(&f);
    far_close(&f);
}

void script_send_that_waits(struct world *w)
{
    static char got[sizeof big];
    struct far f;
    size_t n = 0;
    int fd = connected(w, &f);

    send_bytes(w, fd, 1, big, sizeof big);
    step(w, "no room", 0);
    while (n < sizeof big) {
        ring_enter(&w->ring, false, 0);
        int part = far_read(&f, got + n, sizeof got - n);
        assert_true(part > 0);
        n += (size_t)part;
        ring_enter(&w->ring, true, 0);
    }
    step(w, "all read", 1);
    send_bytes(w, fd, 2, big, sizeof big);
    step(w, "no room", 0);
    cancel(w, 2, -1, RING_USER_DATA(RING_SEND, 0, 2), 0);
    step(w, "cancelled", 2);
    gone(w, fd);
    far_close(&f);
}

/* The end of a TCP stream counts as one, and is acknowledged when the kernel likes. */
static void say_untaken(struct world *w, int fd)
{
    int n = w->sys->untaken(w->sys->kernel, fd);

    say_result(w, n > 1 ? "untaken: some" : "untaken", n > 0 ? 0 : n);
}

void script_untaken(struct world *w)
{
    char got[8];
    struct far f;
    int fd = connected(w, &f);

    say_untaken(w, fd);
    send_bytes(w, fd, 1, "word", 4);
    step(w, "sent", 1);
    say_untaken(w, fd); /* TCP: the far kernel has it */
    assert_int_equal(far_read(&f, got, sizeof got), 4);
    say_untaken(w, fd);
    shut(w, fd, SHUT_WR);
    step(w, "the end", 0);
    say_untaken(w, fd);
    gone(w, fd);
    far_close(&f);
    say_untaken(w, fd);
}

void script_untaken_by_who_does_not_read(struct world *w)
{
    static char got[sizeof big];
    struct far f;
    int fd = connected(w, &f), n = 0, part;

    send_bytes(w, fd, 1, big, sizeof big);
    step(w, "no room", 0);
    say_untaken(w, fd);
    shut(w, fd, SHUT_WR);
    step(w, "shut", 1);
    say_untaken(w, fd);
    while ((part = far_read(&f, got + n, sizeof got - (size_t)n)) > 0)
        n += part;
    step(w, "all read", 0);
    say_untaken(w, fd);
    gone(w, fd);
    far_close(&f);
}

void script_send_cut_by_shutdown(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    send_bytes(w, fd, 1, big, sizeof big);
    step(w, "no room", 0);
    shut(w, fd, SHUT_RDWR);
    step(w, "shut", 1);
    gone(w, fd);
    far_close(&f);
}

void script_send_to_a_closed_end(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    far_close(&f);
    step(w, "closed", 0);
    send_bytes(w, fd, 1, "first", 5);
    step(w, "send", 1);
    send_bytes(w, fd, 2, "second", 6);
    step(w, "send", 1);
    give(w, 0);
    arm_recv(w, fd, 1);
    step(w, "receive", 1);
    gone(w, fd);
}

void script_send_vector(struct world *w)
{
    struct iovec *parts = malloc(3 * sizeof *parts);
    struct msghdr *m = calloc(1, sizeof *m);
    struct far f;
    int fd = connected(w, &f);

    parts[0] = (struct iovec){.iov_base = (char[]){"one "}, .iov_len = 4};
    parts[1] = (struct iovec){.iov_base = (char[]){"two "}, .iov_len = 4};
    parts[2] = (struct iovec){.iov_base = (char[]){"three"}, .iov_len = 5};
    m->msg_iov = parts;
    m->msg_iovlen = 3;
    struct io_uring_sqe *s = sqe(w, RING_SEND, 1);
    io_uring_prep_rw(IORING_OP_SENDMSG, s, fd, m, 1, 0);
    s->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
    ring_enter(&w->ring, false, 0);
    free(parts);
    free(m);
    step(w, "sent", 1);
    far_say(&f);
    send_bytes(w, fd, 2, "", 0);
    step(w, "nothing sent", 1);
    gone(w, fd);
    far_close(&f);
}

void script_full_completion_queue(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    for (unsigned i = 0; i < BUFFERS; i++)
        give(w, i);
    char bytes[6 * BUFFER_BYTES + 1];
    memset(bytes, 'x', sizeof bytes - 1);
    bytes[sizeof bytes - 1] = '\0';
    far_write(&f, bytes);
    step(w, "written", 0);
    for (unsigned i = 0; i < 14; i++) /* of 16 places */
        cancel(w, i, -1, 1, 0);
    arm_recv(w, fd, 1);
    step(w, "received", 17);
    gone(w, fd);
    far_close(&f);
}
