#!/usr/bin/env python3
"""Datagrams: what a stranger can cause, who counts as the one he says he is, and how a loss shows."""

import os
import random
import re
import select
import socket
import threading
import time
import unittest
from pathlib import Path

from broker import PATIENCE_S, PLUGINS, TCP, UDP, Broker, raise_descriptors, scaled, wait_until
from clients import DatagramClient, LineClient

TEST_PLUGINS = Path(os.environ["RODA_TEST_PLUGIN_DIR"])
ANSWER_BYTES = 10
HEADER_BYTES = 28  # IPv4 and UDP
COOKIE = re.compile(rb"=[0-9a-f]{8}\n?\Z")
DATAGRAM_BYTES = 1200


def addresses(count):
    """Loopback addresses of different /24s, so that the limit per prefix stays out of the way."""
    return [f"127.{100 + i // 250}.{i % 250}.1" for i in range(count)]


class Strangers(unittest.TestCase):
    """Who has no session: at most one answer of at most ten bytes per datagram, and no state."""

    @classmethod
    def setUpClass(cls):
        raise_descriptors()

    def collect(self, broker, sent):
        """Sends each of [(source address, source port, bytes)] from a socket of its own; returns
        [(bytes, [answers])]."""
        sockets = []
        try:
            before = broker.stats()["datagrams_received_total"]
            for i, (address, port, data) in enumerate(sent):
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sockets.append((sock, data))
                sock.bind((address, port))
                sock.connect(broker.address("udp"))
                sock.send(data)
                if i % 50 == 49:  # so that the socket of the broker does not overflow
                    self.wait_received(broker, before + i + 1)
            self.wait_received(broker, before + len(sent))
            # One worker: its answers leave no later than what it says after them.
            broker.stats()
            broker.stats()
            return [(data, self.waiting(sock)) for sock, data in sockets]
        finally:
            for sock, _ in sockets:
                sock.close()

    @staticmethod
    def wait_received(broker, count):
        broker.wait_stats(
            lambda stats: stats["datagrams_received_total"] >= count, "all are received"
        )

    @staticmethod
    def waiting(sock):
        answers = []
        while select.select([sock], [], [], 0)[0]:
            answers.append(sock.recv(65536))
        return answers

    def check_bound(self, data, answers):
        self.assertLessEqual(len(answers), 1, f"{data[:60]!r}: {answers}")
        for answer in answers:
            self.assertLessEqual(len(answer), ANSWER_BYTES, f"{data[:60]!r}: {answer}")
            self.assertRegex(answer, COOKIE)
            factor = (HEADER_BYTES + len(answer)) / (HEADER_BYTES + len(data))
            self.assertLessEqual(factor, 1.0 if len(data) >= ANSWER_BYTES else 1.3, data[:60])

    def test_every_kind_and_length(self):
        lengths = [*range(0, 24), 40, 100, 1199, 1200, 1472, 2047, 2048, 2049, 9000, 65507]
        kinds = {
            "letters": lambda n: b"x" * n,
            "command": lambda n: (b"/nick " + b"a" * n)[:n],
            "lines": lambda n: (b"ab\n" * n)[:n],
            "blanks": lambda n: b" " * n,
            "line ends": lambda n: b"\n" * n,
            "zeros": lambda n: b"\0" * n,
            "binary": lambda n: bytes(range(128, 256)) * (n // 128 + 1),
            "cookie": lambda n: (b"=0123abcd" + b" say" * n)[:n],
            "cookies": lambda n: (b"=0123abcd\n" * (n // 10 + 1))[:n],
            "accents": lambda n: ("é" * n).encode()[:n],
            "noise": lambda n: random.Random(n).randbytes(n),
            "text and zero": lambda n: (b"x" * n)[:-1] + b"\0" if n else b"",
        }
        sent = [(kind, make(n)[:n]) for kind, make in kinds.items() for n in lengths]
        sources = addresses(len(sent))
        with Broker(listeners=TCP + UDP) as broker:
            results = self.collect(
                broker, [(source, 0, data) for source, (_, data) in zip(sources, sent)]
            )
            answered = {}
            for (kind, _), (data, answers) in zip(sent, results):
                self.check_bound(data, answers)
                answered.setdefault(kind, []).append((len(data), len(answers)))
            # What a person types is answered, whatever its length; what is no text never is.
            for kind in ("letters", "command", "lines"):
                for length, count in answered[kind]:
                    if 2 <= length <= 1472:
                        self.assertEqual(count, 1, f"{kind} of {length} bytes")
            for kind in ("blanks", "line ends", "zeros", "binary", "text and zero"):
                for length, count in answered[kind]:
                    self.assertEqual(count, 0, f"{kind} of {length} bytes")
            stats = broker.stats()
            self.assertEqual(stats["datagram_sessions_opened_total"], 0)
            self.assertEqual(stats["connections"], 1)

    def test_bound_is_the_cores_own(self):
        """A protocol that would answer everything with more than ten bytes cannot."""
        plugin = f"[plugin loud]\npath = {TEST_PLUGINS}/loud.so\n"
        listeners = TCP + UDP.replace("protocol = line", "protocol = loud")
        with Broker(listeners=listeners, plugins=plugin + PLUGINS) as broker:
            sent = [(address, 0, b"x" * i) for i, address in enumerate(addresses(50))]
            for data, answers in self.collect(broker, sent):
                self.assertLessEqual(len(answers), 1)
                self.assertLessEqual(len(b"".join(answers)), ANSWER_BYTES, data)
            (_, answers), = self.collect(broker, [("127.3.3.1", 0, b"keep it short")])
            self.assertEqual(answers, [b"0123456789"])

    def test_limit_per_prefix_and_in_total(self):
        """A flood from one prefix, then from all: most of it is met with silence."""
        count = 200
        with Broker(listeners=TCP + UDP) as broker:
            started = time.monotonic()
            same = [(f"127.9.9.{i + 1}", 0, b"hello there\n") for i in range(count)]
            results = self.collect(broker, same)
            answers = sum(len(answers) for _, answers in results)
            seconds = time.monotonic() - started
            self.assertGreaterEqual(answers, 1)
            self.assertLessEqual(answers, 8 + 4 * seconds + 1)
            # Another prefix does not suffer for it.
            (_, answers), = self.collect(broker, [("127.8.8.1", 0, b"hello there\n")])
            self.assertEqual(len(answers), 1)

    def test_ports_of_services(self):
        """A datagram that claims to come from a service that answers by itself gets silence."""
        if os.geteuid() != 0:
            self.skipTest("needs ports below 1024")
        with Broker(listeners=TCP + UDP) as broker:
            sent = [("127.7.7.1", port, b"hello there\n") for port in (19, 53, 123)]
            for data, answers in self.collect(broker, sent):
                self.assertEqual(answers, [])

    def test_forged_cookies(self):
        with Broker(listeners=TCP + UDP) as broker:
            address = broker.address("udp")
            with DatagramClient(address, source=("127.6.1.1", 0)) as client:
                client.send("hello")
                cookie = client.cookie()
            wrong = f"{int(cookie, 16) ^ 1:08x}"
            with DatagramClient(address, source=("127.6.2.1", 0)) as other:
                # Somebody else's, one off, none at all: each is answered with one's own.
                for guess in (cookie, wrong, "00000000", "ffffffff"):
                    other.send(f"={guess} /nick ana")
                    self.assertNotEqual(other.cookie(), guess)
                own = other.datagrams[-1].strip().decode()
                self.assertEqual(broker.stats()["datagram_sessions_opened_total"], 0)
                # A cookie and nothing more is what an echo would send: silence, also if valid.
                before = broker.stats()["datagrams_received_total"]
                other.send(own)
                other.send("=00000000")
                self.wait_received(broker, before + 2)
                other.send(f"{own} /nick ana")
                other.next(r"^\* ana, lobby, 0, ping \d+s$")
                self.assertEqual(broker.stats()["datagram_sessions_opened_total"], 1)

    def test_cookies_of_another_port_or_address(self):
        """Bound to where the datagram came from, port included."""
        with Broker(listeners=TCP + UDP) as broker:
            address = broker.address("udp")
            with DatagramClient(address, source=("127.5.1.1", 0)) as client:
                client.send("hello")
                cookie = client.cookie()
                for i, source in enumerate((("127.5.1.1", 0), ("127.5.2.1", 0))):
                    with DatagramClient(address, source=source) as thief:
                        thief.send(f"={cookie} /nick thief{i}")
                        self.assertNotEqual(thief.cookie(), cookie)
                client.send(f"={cookie} /nick ana")
                client.next(r"^\* ana, lobby, ")

    def test_expired_cookie(self):
        """Valid in its slot of 16 s and the next one, and no longer: waits for two new slots."""
        with Broker(listeners=TCP + UDP) as broker:
            address = broker.address("udp")
            with DatagramClient(address, source=("127.4.1.1", 0)) as client:
                cookies = []

                def next_cookie():
                    client.send("hello")
                    got = client.cookie()
                    if got not in cookies:
                        cookies.append(got)
                        return True
                    return False

                next_cookie()
                for _ in range(2):
                    wait_until(next_cookie, "a new slot begins", 40, every_s=0.5)
                client.send(f"={cookies[0]} /nick ana")
                self.assertEqual(client.cookie(), cookies[2])
                client.send(f"={cookies[1]} /nick ana")
                client.next(r"^\* ana, lobby, ")


class Sessions(unittest.TestCase):
    def test_several_lines_in_one_datagram(self):
        with Broker(workers=2, listeners=TCP + UDP) as broker, LineClient(broker, "ana") as ana:
            with DatagramClient(broker.address("udp"), "udo") as udo:
                ana.expect(r"^\* udo joined lobby$|^\* guest\S* is now udo$")
                udo.send_raw(b"one\ntwo\r\n\n/me three\nfour")
                for line in ("lobby udo: one", "lobby udo: two", r"lobby \* udo three", "lobby udo: four"):
                    ana.expect(f"^{line}$")
                for _ in range(4):
                    udo.expect(r"^\* \d+ lobby$")

    def test_output_is_packed_whole(self):
        """Many lines to a session: several share a datagram, none is cut in two."""
        count = 200
        limits = "udp_session_rate = off"
        with Broker(workers=2, listeners=TCP + UDP, limits=limits) as broker:
            with LineClient(broker, "ana") as ana, DatagramClient(broker.address("udp"), "udo") as udo:
                udo.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                ana.send_raw(b"".join(b"line %d\n" % i for i in range(count)))
                udo.expect(rf"^\d+ lobby ana: line {count - 1}$")
                seen = [line for line in udo.transcript if " ana: line " in line]
                self.assertEqual(
                    [line.rpartition(" ")[2] for line in seen], [str(i) for i in range(count)]
                )
                self.assertLess(len(udo.datagrams), count / 2)
                for datagram in udo.datagrams:
                    self.assertLessEqual(len(datagram), DATAGRAM_BYTES)
                    self.assertTrue(len(datagram) <= ANSWER_BYTES or datagram.endswith(b"\n"))

    def test_long_text_is_cut(self):
        with Broker(listeners=TCP + UDP) as broker:
            with LineClient(broker, "ana") as ana, DatagramClient(broker.address("udp"), "udo") as udo:
                for text in ("x" * 3000, "é" * 1500, "👍" * 700):
                    ana.send(text)
                    size = len(text.encode())
                    got = udo.expect(rf"^\d+ lobby ana: (.*)\.\.\. \({size} bytes\)$").group(1)
                    self.assertTrue(text.startswith(got))  # cut between characters
                    self.assertGreater(len(got.encode()), 1100)
                    self.assertLessEqual(len(udo.datagrams[-1]), DATAGRAM_BYTES)
                short = "y" * 1100
                ana.send(short)
                udo.expect(rf"^\d+ lobby ana: {short}$")

    def test_bad_datagrams(self):
        """Empty, truncated, huge and senseless ones inside a session; it goes on."""
        with Broker(listeners=TCP + UDP) as broker, LineClient(broker, "ana") as ana:
            with DatagramClient(broker.address("udp"), "udo") as udo:
                for _ in range(100):
                    udo.send_raw(b"")
                for data in (b"x" * 2100, b"y" * 9000, b"z" * 65507):
                    udo.send_raw(data)
                    udo.expect(r"^! that line was not sent: too long")
                for data in (b"ol\xe1", b"a\0b\n", b"\x1b[2J"):
                    udo.send_raw(data)
                    udo.expect(r"^! ")
                udo.send_raw(b"\n \n\t\n")
                udo.send("still here")
                ana.expect(r"^lobby udo: still here$")
                heard = [line for line in ana.transcript if line.startswith("lobby udo: ")]
                self.assertEqual(heard, ["lobby udo: still here"])

    def test_silence_ends_a_session(self):
        limits = "udp_session_timeout = 1s"
        with Broker(workers=2, listeners=TCP + UDP, limits=limits) as broker:
            with LineClient(broker, "ana") as ana, DatagramClient(broker.address("udp"), "udo") as udo:
                ana.expect(r"^\* udo quit ")
                stats = broker.wait_stats(
                    lambda stats: stats["datagram_sessions_expired_total"] == 1, "it is forgotten"
                )
                self.assertEqual(stats["connections"], 2)
                # He is a stranger again, and comes back by a cookie.
                del udo.transcript[:]
                udo.send("hello?")
                udo.expect(r"^=[0-9a-f]{8}$")

    def test_quit(self):
        with Broker(listeners=TCP + UDP) as broker, LineClient(broker, "ana") as ana:
            with DatagramClient(broker.address("udp"), "udo") as udo:
                udo.send("/quit bye")
                udo.expect(r"^\* goodbye$")
                ana.expect(r"^\* udo quit \(bye\)$")
                broker.wait_stats(lambda stats: stats["connections"] == 2, "the session is gone")

    def answer(self, sock, server, pattern):
        """What comes from anywhere until this; it must come from the server that was asked."""
        while True:
            data, source = sock.recvfrom(2000)
            if re.match(pattern, data):
                self.assertEqual(source, server)
                return data

    def test_two_server_addresses(self):
        """One socket for all addresses: replies come from the one that was asked."""
        listeners = TCP + UDP.replace("127.0.0.1", "0.0.0.0")
        with Broker(workers=2, listeners=listeners) as broker, LineClient(broker, "ana") as ana:
            port = broker.ports["udp"]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(PATIENCE_S)
                sock.bind(("127.0.0.1", 0))
                for i in (1, 2, 3):
                    # Not connected: whoever answers is seen.
                    server = (f"127.0.0.{i}", port)
                    sock.sendto(b"hello\n", server)
                    cookie = self.answer(sock, server, rb"=[0-9a-f]{8}\n")
                    sock.sendto(cookie.strip() + b" /nick udo%d\n" % i, server)
                    self.answer(sock, server, rb"\* udo%d, lobby, " % i)
                ana.send("hello")
                heard = {}
                while len(heard) < 3:
                    data, source = sock.recvfrom(2000)
                    if b" ana: hello\n" in data:
                        heard[source[0]] = data
                self.assertEqual(set(heard), {"127.0.0.1", "127.0.0.2", "127.0.0.3"})

    def test_two_listeners(self):
        listeners = TCP + UDP + UDP.replace("[listener udp]", "[listener two]").replace(
            "127.0.0.1", "127.0.0.2"
        )
        with Broker(workers=2, listeners=listeners) as broker:
            first = DatagramClient(broker.address("udp"), "udo")
            second = DatagramClient(("127.0.0.2", broker.ports["two"]), "uli")
            with first, second:
                first.send("hello")
                second.expect(r"^\d+ lobby udo: hello$")


class Relay:
    """Between a client and the broker: loses, doubles and reorders what the broker sends, and loses
    of what the client sends, by a seed. What it did is noted."""

    def __init__(self, server, seed):
        self.inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.inside.bind(("127.0.0.1", 0))
        self.outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.outside.connect(server)
        self.address = self.inside.getsockname()
        self.random = random.Random(seed)
        self.client = None
        self.kept = None  # a datagram that the next one overtakes
        self.on = False
        self.lost_out, self.lost_in = [], []
        self.doubled = self.swapped = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ended.is_set():
            for sock in select.select([self.inside, self.outside], [], [], 0.05)[0]:
                if sock is self.inside:
                    data, self.client = sock.recvfrom(65536)
                    self.to_broker(data)
                else:
                    self.to_client(sock.recv(65536))

    def to_broker(self, data):
        if self.on and b"/ping" not in data and self.random.random() < 0.2:
            self.lost_in.append(data)
        else:
            self.outside.send(data)

    def to_client(self, data):
        what = self.random.random() if self.on and b"pong" not in data else 1
        if what < 0.2:
            self.lost_out.append(data)
            return
        if what < 0.3:
            self.doubled += 1
            self.inside.sendto(data, self.client)
        elif what < 0.5 and self.kept is None:
            self.swapped += 1
            self.kept = data
            return
        self.inside.sendto(data, self.client)
        if self.kept is not None:
            self.inside.sendto(self.kept, self.client)
            self.kept = None

    def close(self):
        self.ended.set()
        self.thread.join()
        self.inside.close()
        self.outside.close()


class BadNetwork(unittest.TestCase):
    COUNT = scaled(300, 100)

    def test_loss_reordering_duplication(self):
        """Numbers name the messages: the gaps are exactly what was lost, /ping shows the end."""
        for seed in (1, 2, 3):
            with self.subTest(seed=seed), Broker(workers=2, listeners=TCP + UDP) as broker:
                relay = Relay(broker.address("udp"), seed)
                try:
                    self.through(broker, relay)
                finally:
                    relay.close()

    def through(self, broker, relay):
        ana = LineClient(broker, "ana", numbers=True)
        udo = DatagramClient(relay.address, "udo")
        with ana, udo:
            udo.send("/ping begin")
            udo.expect(r"^\* pong lobby \d+ begin$")
            relay.on = True
            for i in range(self.COUNT):
                # One at a time, so that a datagram is a message and either gets lost alone.
                ana.send(f"from ana {i}")
                ana.expect(r"^\* \d+ lobby$")
                udo.send(f"from udo {i}")
                udo.take_what_is_here()  # the kernel loses what is not read, and tells nobody
            udo.send("/ping end")
            last = int(udo.expect(r"^\* pong lobby (\d+) end$").group(1))
            relay.on = False
            ana.sync()
            udo.send("/ping over")  # what was overtaken comes at the latest before this
            udo.expect(r"^\* pong lobby \d+ over$")
            self.assertTrue(relay.lost_out and relay.lost_in and relay.doubled and relay.swapped)
            said = {}  # by number, as one sees it who loses nothing
            for line in ana.transcript:
                match = re.match(r"(\d+) lobby udo: (.*)$", line)
                if match:
                    said[int(match.group(1))] = match.group(2)
            own = [int(n) for n in re.findall(r"(?m)^\* (\d+) lobby$", "\n".join(ana.transcript))]
            said.update((number, f"from ana {i}") for i, number in enumerate(own))
            self.assertEqual(sorted(said), list(range(1, last + 1)))
            # What the broker sent to udo: what came and what the relay lost; nothing else is gone.
            lost = {int(n) for n in re.findall(rb"(?m)^(\d+) lobby ana: ", b"".join(relay.lost_out))}
            came = {}
            for line in udo.transcript:
                match = re.match(r"(\d+) lobby ana: (.*)$", line)
                if match:
                    came.setdefault(int(match.group(1)), set()).add(match.group(2))
            for number, texts in came.items():
                self.assertEqual(texts, {said[number]})
            self.assertEqual(set(own) - set(came) - lost, set())
            self.assertTrue(set(own) - set(came), "some were lost")
            # Of udo's own lines the lost ones were never said, the others have one number each.
            not_sent = {line.decode().strip() for line in relay.lost_in}
            theirs = [text for text in said.values() if text.startswith("from udo ")]
            self.assertEqual(len(theirs), len(set(theirs)))
            self.assertEqual(
                set(theirs), {f"from udo {i}" for i in range(self.COUNT)} - not_sent
            )
            answered = {int(n) for n in re.findall(r"(?m)^\* (\d+) lobby$", "\n".join(udo.transcript))}
            for number in answered:
                self.assertRegex(said[number], "^from udo ")


if __name__ == "__main__":
    unittest.main(verbosity=2)
