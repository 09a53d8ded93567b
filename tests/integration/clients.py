"""Clients of the line protocol: one that a test talks with line by line, the same in front of a
program such as nc, and a pump that drives many at once without a thread each."""

import os
import re
import select
import socket
import subprocess
import time

from broker import PATIENCE_S

MESSAGE = re.compile(rb"^(?:(\d+) )?(\S+) ([^:* ]\S*): (.*)$")


class Conversation:
    """Lines that come from a descriptor, and lines that go to one."""

    def __init__(self, name):
        self.name = name
        self.pending = b""
        self.ended = False
        self.transcript = []  # every line received, as text

    # What a kind of client must have:
    def read_descriptor(self):
        raise NotImplementedError

    def send_raw(self, data):
        raise NotImplementedError

    def read_piece(self):
        return os.read(self.read_descriptor(), 65536)

    def send(self, line):
        self.send_raw((line if isinstance(line, bytes) else line.encode()) + b"\n")

    def line(self, patience_s=PATIENCE_S):
        """The next line without its end, or None: the other side has closed."""
        deadline = time.monotonic() + patience_s
        while b"\n" not in self.pending and not self.ended:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self.read_descriptor()], [], [], left_s)[0]:
                raise AssertionError(f"{self.name}: no line within {patience_s} s{self.so_far()}")
            try:
                piece = self.read_piece()
            except (ConnectionResetError, ConnectionRefusedError):
                piece = b""
            self.pending += piece
            self.ended = not piece
        if not self.pending:
            return None
        line, _, self.pending = self.pending.partition(b"\n")
        text = line.rstrip(b"\r").decode(errors="backslashreplace")
        self.transcript.append(text)
        return text

    def so_far(self):
        return "; its last lines:\n" + "\n".join(self.transcript[-20:]) + "\n" + repr(self.pending)

    def expect(self, pattern, patience_s=PATIENCE_S):
        """Skips lines until one matches; returns the match."""
        deadline = time.monotonic() + patience_s
        while True:
            line = self.line(max(0.0, deadline - time.monotonic()))
            if line is None:
                raise AssertionError(f"{self.name}: closed before {pattern!r}{self.so_far()}")
            match = re.search(pattern, line)
            if match:
                return match

    def next(self, pattern):
        """The very next line must match; returns the match."""
        line = self.line()
        match = re.search(pattern, line) if line is not None else None
        if not match:
            raise AssertionError(f"{self.name}: {line!r} is not {pattern!r}{self.so_far()}")
        return match

    def take_what_is_here(self):
        """Reads all that has come, without waiting."""
        while select.select([self.read_descriptor()], [], [], 0)[0] and not self.ended:
            self.pending += self.read_piece() or b""
        while b"\n" in self.pending:
            self.line()

    def sync(self):
        """Asks /ping: all lines that came before its answer."""
        token = os.urandom(4).hex()
        before = len(self.transcript)
        self.send(f"/ping {token}")
        self.expect(rf"^\* pong \S+ \d+ {token}$")
        return self.transcript[before:-1]

    def rest(self, patience_s=PATIENCE_S):
        """All lines until the other side closes."""
        lines = []
        deadline = time.monotonic() + patience_s
        while True:
            line = self.line(max(0.0, deadline - time.monotonic()))
            if line is None:
                return lines
            lines.append(line)


class LineClient(Conversation):
    """A stream socket: listener is "tcp", "unix" or another listener's name."""

    def __init__(self, broker, nick=None, listener="tcp", numbers=False, welcome=True):
        super().__init__(nick or listener)
        self.socket = broker.connect(listener)
        self.nick = nick
        if welcome:
            self.nick = self.expect(r"^\* you are (\S+)").group(1)
        if nick:
            self.send(f"/nick {nick}")
            self.expect(rf"^\* you are {re.escape(nick)} now$")
            self.nick = nick
        if numbers:
            self.send("/numbers on")
            self.expect(r"^\* numbers are on$")

    def read_descriptor(self):
        return self.socket.fileno()

    def read_piece(self):
        return self.socket.recv(65536)

    def send_raw(self, data):
        self.socket.sendall(data)

    def end_sending(self):
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        """RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        self.close()


class DatagramClient(Conversation):
    """A session by datagrams, opened with the cookie. `datagrams` keeps what came as it came."""

    def __init__(self, address, nick=None, source=None):
        super().__init__(nick or "udp")
        self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET,
                                    socket.SOCK_DGRAM)
        if source:
            self.socket.bind(source)
        self.socket.connect(address)
        self.nick = nick
        self.datagrams = []
        if nick:
            self.open()

    def open(self):
        """Asks for a cookie and enters by it; returns the match of the welcome."""
        self.send(f"/nick {self.nick}")
        self.send(f"={self.cookie()} /nick {self.nick}")
        return self.next(rf"^\* {self.nick}, (\S+), (\d+), ping (\d+)s$")

    def cookie(self):
        return self.next(r"^=([0-9a-f]{8})$").group(1)

    def read_descriptor(self):
        return self.socket.fileno()

    def read_piece(self):
        piece = self.socket.recv(65536)
        self.datagrams.append(piece)
        # A datagram's end ends a line; what is empty is no end of anything.
        return piece if piece.endswith(b"\n") else piece + b"\n"

    def send_raw(self, data):
        self.socket.send(data)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        self.close()


class ProgramClient(Conversation):
    """A program that connects for us: nc, telnet."""

    def __init__(self, name, *command):
        super().__init__(name)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def read_descriptor(self):
        return self.process.stdout.fileno()

    def send_raw(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE_S)
        self.process.stdin.close()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        self.close()


# ---- many at once ----------------------------------------------------------------------------------


class Peer:
    """A non-blocking socket of a Pump. What came is in `received`, what is to go in `unsent`."""

    def __init__(self, sock, name=""):
        sock.setblocking(False)
        self.socket = sock
        self.name = name
        self.received = bytearray()
        self.n_lines = 0
        self.unsent = b""
        self.closed = False
        self.paused = False

    def lines(self):
        return bytes(self.received).split(b"\n")[:-1]

    def forget(self):
        self.received.clear()
        self.n_lines = 0


class Pump:
    """Reads from and writes to any number of peers from one loop."""

    def __init__(self):
        self.poll = select.epoll()
        self.peers = {}
        self.space = memoryview(bytearray(262144))
        self.on_data = None  # called with (peer, bytes) instead of keeping what came

    def add(self, sock, name=""):
        peer = Peer(sock, name)
        self.peers[sock.fileno()] = peer
        self.poll.register(sock.fileno(), select.EPOLLIN)
        return peer

    def send(self, peer, data):
        peer.unsent += data
        self._write(peer)

    def pause(self, peer):
        """Stops reading; the peer's socket stays open."""
        peer.paused = True
        self.poll.modify(peer.socket.fileno(), select.EPOLLOUT if peer.unsent else 0)

    def _interest(self, peer):
        bits = 0 if peer.paused else select.EPOLLIN
        return bits | (select.EPOLLOUT if peer.unsent else 0)

    def _write(self, peer):
        had = bool(peer.unsent)
        try:
            while peer.unsent:
                sent = peer.socket.send(peer.unsent[:262144])
                peer.unsent = peer.unsent[sent:]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            peer.unsent = b""
        if had and not peer.closed:
            self.poll.modify(peer.socket.fileno(), self._interest(peer))

    def _read(self, peer):
        # Into one buffer: a new one of this size for each receive is dear.
        try:
            data = bytes(self.space[: peer.socket.recv_into(self.space)])
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            peer.closed = True
            self.poll.unregister(peer.socket.fileno())
            return
        if self.on_data:
            self.on_data(peer, data)
        else:
            peer.received += data
            peer.n_lines += data.count(b"\n")

    def step(self, timeout_s=1.0):
        for descriptor, bits in self.poll.poll(timeout_s):
            peer = self.peers[descriptor]
            if bits & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not peer.closed:
                if not peer.paused:
                    self._read(peer)
                elif bits & (select.EPOLLHUP | select.EPOLLERR):
                    peer.closed = True
                    self.poll.unregister(descriptor)
            if bits & select.EPOLLOUT and not peer.closed:
                self._write(peer)

    def run(self, done, what, patience_s=PATIENCE_S):
        """Until done() is true."""
        deadline = time.monotonic() + patience_s
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {patience_s} s")
            self.step(0.2)

    def settle(self, peers, forget=True, patience_s=PATIENCE_S):
        """Each of the peers asks /ping and reads until the answer; then forgets all it read."""
        token = os.urandom(4).hex().encode()
        for peer in peers:
            self.send(peer, b"/ping " + token + b"\n")
        self.run(
            lambda: all(token in peer.received for peer in peers),
            "everybody's /ping is answered",
            patience_s,
        )
        for peer in peers:
            if forget:
                peer.forget()

    def close(self):
        for peer in self.peers.values():
            peer.socket.close()
        self.poll.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        self.close()
