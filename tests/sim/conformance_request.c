#include "conformance.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* Scripts: cancels and other requests, what is refused, eventfds, files, names. */

void script_cancel(struct world *w)
{
    struct far f;
    int fd = connected(w, &f);

    give(w, 0);
    cancel(w, 1, -1, RING_USER_DATA(RING_RECV, 0, 9), 0);
    cancel(w, 2, -1, RING_USER_DATA(RING_RECV, 0, 9), IORING_ASYNC_CANCEL_ALL);
    cancel(w, 3, fd, 0, IORING_ASYNC_CANCEL_FD);
    cancel(w, 4, fd, 0, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL);
    cancel(w, 5, 1000, 0, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL);
    cancel(w, 6, fd, 0, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ANY);
    cancel(w, 7, -1, 0, 1u << 20);
    step(w, "nothing to cancel", 7);
    arm_recv(w, fd, 1);
    send_bytes(w, fd, 1, big, sizeof big);
    step(w, "armed", 0);
    cancel(w, 1, fd, 0, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL);
    step(w, "all of a descriptor", 3);
    arm_recv(w, fd, 2);
    step(w, "armed", 0);
    cancel(w, 2, -1, RING_USER_DATA(RING_RECV, 0, 2), IORING_ASYNC_CANCEL_ALL);
    step(w, "all of a name", 2);
    cancel(w, 3, -1, 1, 0)->flags = IOSQE_CQE_SKIP_SUCCESS;
    step(w, "silent, but it fails", 1);
    arm_recv(w, fd, 3);
    cancel(w, 4, -1, RING_USER_DATA(RING_RECV, 0, 3), 0)->flags = IOSQE_CQE_SKIP_SUCCESS;
    step(w, "silent", 1);
    gone(w, fd);
    far_close(&f);
}

void script_restrictions(struct world *w)
{
    io_uring_prep_rw(IORING_OP_NOP, sqe(w, RING_SEND, 1), -1, NULL, 0, 0);
    io_uring_prep_rw(IORING_OP_OPENAT, sqe(w, RING_SEND, 2), -1, NULL, 0, 0);
    io_uring_prep_rw(IORING_OP_CLOSE, sqe(w, RING_SEND, 3), 0, NULL, 0, 0);
    io_uring_prep_rw(IORING_OP_TIMEOUT, sqe(w, RING_SEND, 4), -1, NULL, 0, 0);
    io_uring_prep_rw(250, sqe(w, RING_SEND, 5), -1, NULL, 0, 0);
    io_uring_prep_rw(IORING_OP_SHUTDOWN, sqe(w, RING_SEND, 6), -1, NULL, 0, 0);
    cancel(w, 1, -1, 1, 0)->flags = IOSQE_IO_LINK;
    cancel(w, 2, -1, 1, 0)->flags = IOSQE_ASYNC;
    cancel(w, 3, -1, 1, 0)->flags = IOSQE_IO_DRAIN;
    step(w, "not allowed", 9);
    say_result(w, "register",
               w->sys->ring_register(w->sys->kernel, &w->ring, IORING_REGISTER_EVENTFD, NULL, 0));
}

void script_misuse(struct world *w)
{
    struct far f;
    int fd = connected(w, &f), l = listening(w), event = w->sys->eventfd(w->sys->kernel);
    char bytes[8];

    give(w, 0);
    arm_recv(w, fd, 1)->flags = 0;
    arm_recv(w, fd, 2)->ioprio |= 1u << 12;
    arm_recv(w, fd, 3)->buf_group = 77;
    arm_recv(w, fd, 4)->msg_flags = MSG_WAITALL;
    arm_recv(w, l, 5);
    arm_recv(w, event, 6);
    arm_recv(w, fd, 7)->off = 1;
    arm_accept(w, fd, 1, true);
    arm_accept(w, event, 2, true);
    step(w, "receives and accepts", 9);
    send_bytes(w, l, 1, "x", 1);
    send_bytes(w, event, 2, "x", 1);
    io_uring_prep_rw(IORING_OP_FSYNC, sqe(w, RING_FILE_SYNC, 1), fd, NULL, 0, 0);
    io_uring_prep_rw(IORING_OP_FSYNC, sqe(w, RING_FILE_SYNC, 2), event, bytes, 0, 0);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 1), event, bytes, 4, 0);
    struct io_uring_sqe *s = sqe(w, RING_ACCEPT, 3);
    io_uring_prep_rw(IORING_OP_ACCEPT, s, l, NULL, 1, 0);
    arm_accept(w, l, 4, true);
    io_uring_prep_rw(IORING_OP_ACCEPT, s = sqe(w, RING_ACCEPT, 5), l, NULL, 0, 0);
    s->accept_flags = 1;
    step(w, "others", 7);
    gone(w, event);
    gone(w, fd);
    far_close(&f);
    w->sys->shutdown(w->sys->kernel, l, SHUT_RDWR);
    step(w, "shut", 1);
    listener_gone(w, l);
}

void script_eventfd(struct world *w)
{
    uint64_t value = 0;
    int fd = w->sys->eventfd(w->sys->kernel);

    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 1), fd, &value, 8, 0);
    step(w, "armed", 0);
    w->sys->eventfd_wake(w->sys->kernel, fd);
    step(w, "woken", 1);
    say(w, "%u\n", (unsigned)value);
    w->sys->eventfd_wake(w->sys->kernel, fd);
    w->sys->eventfd_wake(w->sys->kernel, fd);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 2), fd, &value, 8, 0);
    step(w, "woken twice before", 1);
    say(w, "%u\n", (unsigned)value);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 3), fd, &value, 8, 0);
    step(w, "armed", 0);
    cancel(w, 1, -1, RING_USER_DATA(RING_FILE_READ, 0, 3), 0);
    step(w, "cancelled", 2);
    gone(w, fd);
}

void script_files(struct world *w)
{
    char path[96], text[] = "0123456789", got[16] = {0};
    void *k = w->sys->kernel;
    uint64_t size = 0;

    snprintf(path, sizeof path, "%s/file", w->directory);
    say_result(w, "open", w->sys->open(k, path, O_RDWR, 0));
    int fd = w->sys->open(k, path, O_RDWR | O_CREAT, 0600);
    int in = w->sys->open(k, path, O_RDONLY, 0), out = w->sys->open(k, path, O_WRONLY, 0);
    int directory = w->sys->open(k, w->directory, O_RDONLY | O_DIRECTORY, 0);
    say_result(w, "open again", w->sys->open(k, path, O_RDWR | O_CREAT | O_EXCL, 0600));
    say_result(w, "open directory", w->sys->open(k, w->directory, O_RDWR, 0));
    say_result(w, "open as directory", w->sys->open(k, path, O_RDONLY | O_DIRECTORY, 0));
    io_uring_prep_rw(IORING_OP_WRITE, sqe(w, RING_FILE_WRITE, 1), fd, text, 10, 0);
    step(w, "write", 1);
    io_uring_prep_rw(IORING_OP_WRITE, sqe(w, RING_FILE_WRITE, 2), fd, text, 2, 12);
    step(w, "write behind the end", 1);
    io_uring_prep_rw(IORING_OP_WRITE, sqe(w, RING_FILE_WRITE, 3), in, text, 2, 0);
    io_uring_prep_rw(IORING_OP_WRITE, sqe(w, RING_FILE_WRITE, 4), fd, text, 0, 0);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 1), out, got, 2, 0);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 2), fd, got, 16, 8);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 3), fd, got, 16, 14);
    io_uring_prep_rw(IORING_OP_READ, sqe(w, RING_FILE_READ, 4), fd, got, 16, 99);
    struct io_uring_sqe *s = sqe(w, RING_FILE_SYNC, 1);
    io_uring_prep_rw(IORING_OP_FSYNC, s, fd, NULL, 0, 0);
    s->fsync_flags = IORING_FSYNC_DATASYNC;
    step(w, "others", 7);
    say(w, "'%.6s'\n", got[2] ? "hole" : got);
    say_result(w, "size", w->sys->file_size(k, fd, &size));
    say(w, "%u bytes\n", (unsigned)size);
    say_result(w, "sync directory", w->sys->sync_directory(k, path));
    say_result(w, "rename", w->sys->rename(k, path, path));
    say_result(w, "unlink", w->sys->unlink(k, path));
    say_result(w, "unlink", w->sys->unlink(k, path));
    say_result(w, "rename", w->sys->rename(k, path, path));
    say_result(w, "unlink directory", w->sys->unlink(k, w->directory));
    gone(w, fd);
    gone(w, in);
    gone(w, out);
    gone(w, directory);
}

void script_names(struct world *w)
{
    union any_address a;
    void *k = w->sys->kernel;
    int one = 1;

    w->port = 0;
    family = AF_UNIX;
    socklen_t len = stream_address(w, &a);
    int x = w->sys->socket(k, AF_UNIX, SOCK_STREAM, 0),
        y = w->sys->socket(k, AF_UNIX, SOCK_STREAM, 0);
    say_result(w, "is_socket", w->sys->is_socket(k, a.local.sun_path));
    say_result(w, "connect", w->sys->connect(k, y, &a.any, len));
    say_result(w, "bind", w->sys->bind(k, x, &a.any, len));
    say_result(w, "bind twice", w->sys->bind(k, x, &a.any, len));
    say_result(w, "is_socket", w->sys->is_socket(k, a.local.sun_path));
    say_result(w, "connect", w->sys->connect(k, y, &a.any, len));
    say_result(w, "bind", w->sys->bind(k, y, &a.any, len));
    say_result(w, "listen", w->sys->listen(k, x, 1));
    say_result(w, "connect", w->sys->connect(k, y, &a.any, len));
    gone(w, y);
    gone(w, x);
    y = w->sys->socket(k, AF_UNIX, SOCK_STREAM, 0);
    say_result(w, "connect", w->sys->connect(k, y, &a.any, len));
    say_result(w, "is_socket", w->sys->is_socket(k, w->directory));
    say_result(w, "unlink", w->sys->unlink(k, a.local.sun_path));
    gone(w, y);

    family = AF_INET;
    x = listening(w);
    y = w->sys->socket(k, AF_INET, SOCK_STREAM, 0);
    len = loopback(&a, w->port);
    say_result(w, "bind", w->sys->bind(k, y, &a.any, len));
    w->sys->setsockopt(k, y, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    say_result(w, "bind, SO_REUSEADDR", w->sys->bind(k, y, &a.any, len));
    w->sys->setsockopt(k, y, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    say_result(w, "bind, SO_REUSEPORT of one", w->sys->bind(k, y, &a.any, len));
    a.v4.sin_addr.s_addr = 0;
    say_result(w, "bind any", w->sys->bind(k, y, &a.any, len));
    a.v4.sin_addr.s_addr = htonl(0x7f000001u);
    a.v4.sin_port = 0;
    int z = w->sys->socket(k, AF_INET, SOCK_STREAM, 0);
    w->sys->setsockopt(k, z, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    say_result(w, "bind", w->sys->bind(k, z, &a.any, len));
    w->sys->getsockname(k, z, &a.any, &len);
    say_result(w, "bind, SO_REUSEPORT of both", w->sys->bind(k, y, &a.any, len));
    a.v4.sin_addr.s_addr = htonl(0xc6336401u);
    gone(w, z);
    z = w->sys->socket(k, AF_INET, SOCK_STREAM, 0);
    say_result(w, "bind elsewhere", w->sys->bind(k, z, &a.any, len));
    say_result(w, "shutdown", w->sys->shutdown(k, z, SHUT_RDWR));
    len = sizeof a;
    say_result(w, "getpeername", w->sys->getpeername(k, z, &a.any, &len));
    gone(w, z);
    say_result(w, "getsockname of nothing", w->sys->getsockname(k, z, &a.any, &len));
    gone(w, y);
    gone(w, x);
}
