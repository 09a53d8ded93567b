#!/usr/bin/env python3
"""What was said before, by `/history` and at the join, with the real broker and its log: exactly
that, while the room goes on, by TCP and by datagrams that get lost, and after a restart."""

import re
import select
import socket
import tempfile
import threading
import unittest

from broker import PATIENCE_S, PLUGINS, TCP, UDP, UNIX, Broker, scaled, wait_until
from clients import DatagramClient, LineClient
from test_udp import Relay

LOG = PLUGINS + "\n[plugin log]\n"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
PAST = re.compile(rf"^({TIME}) (\d+) (\S+) (\S+): (.*)$")
LIVE = re.compile(r"^(\d+) (\S+) (\S+): (.*)$")
OWN = re.compile(r"^\* (\d+) (\S+)$")
END = re.compile(
    r"^\* history (\S+) (\d+)(?:-(\d+))?: (\d+) messages?(?:, more: (/history \S+ since \d+))?$"
)
BEFORE = re.compile(r"^\* history (\S+) (\d+)(?:-(\d+))?: what was said before you came$")


class Talker(threading.Thread):
    """Says one line after the other in a room and notes which number each was given."""

    def __init__(self, broker, name, room, truth):
        super().__init__(daemon=True)
        self.client = LineClient(broker, name, numbers=True)
        if room != "lobby":
            self.client.send(f"/join {room}")
            self.client.expect(rf"^\* you are {name} in {room}: ")
        self.room = room
        self.truth = truth
        self.ended = threading.Event()
        self.problem = None
        self.start()

    def run(self):
        try:
            i = 0
            while not self.ended.is_set():
                text = f"{self.client.nick} says {i}"
                self.client.send(text)
                number = self.client.expect(rf"^\* (\d+) {self.room}$").group(1)
                self.truth[int(number)] = text
                del self.client.transcript[:]
                i += 1
        except BaseException as problem:  # pylint: disable=broad-except
            self.problem = problem

    def stop(self):
        self.ended.set()
        self.join(PATIENCE_S)
        self.client.close()
        if self.problem:
            raise self.problem


class Talk:
    """Some talkers in one room, as long as the block lasts; `truth` is what was said, by number."""

    def __init__(self, broker, room="lobby", count=3):
        self.truth = {}
        self.talkers = [Talker(broker, f"talker{i}", room, self.truth) for i in range(count)]

    def wait_said(self, count):
        wait_until(
            lambda: len(self.truth) >= count or any(talker.problem for talker in self.talkers),
            f"{count} messages are said",
        )

    def stop(self):
        while self.talkers:
            self.talkers.pop().stop()

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        self.stop()


def numbered(lines, pattern, room):
    """[(number, text)] of the lines that are messages of that room."""
    found = []
    for line in lines:
        match = pattern.match(line)
        if match:
            number, where, _, text = match.groups()[-4:]
            if where == room:
                found.append((int(number), text))
    return found


def ask(client, command):
    """The lines that came up to the end of the answer, and the match of that end."""
    before = len(client.transcript)
    client.send(command)
    end = client.expect(END.pattern)
    return client.transcript[before:-1], end


class Case(unittest.TestCase):
    def check_run(self, found, first, last, truth, what):
        self.assertEqual([number for number, _ in found], list(range(first, last + 1)), what)
        for number, text in found:
            self.assertEqual(text, truth[number], f"{what}: {number}")


class Resume(Case):
    COUNT = scaled(1000, 350)  # more than one /history gives

    def test_who_comes_back_gets_exactly_what_was_missed(self):
        for workers in (1, 2, 4):
            with self.subTest(workers=workers), Broker(workers=workers, plugins=LOG) as broker:
                self.come_back(broker)

    def come_back(self, broker):
        with Talk(broker) as talk:
            with LineClient(broker, "bob", numbers=True) as bob:
                last_seen = int(bob.expect(LIVE.pattern).group(1))
            said = len(talk.truth)
            talk.wait_said(said + self.COUNT)
            with LineClient(broker, "bob", numbers=True) as bob:
                missed, command = [], f"/history lobby since {last_seen}"
                while command:
                    bob.take_what_is_here()
                    lines, end = ask(bob, command)
                    missed += numbered(lines, PAST, "lobby")
                    command = end.group(5)
                shown_before = numbered(bob.transcript, LIVE, "lobby")
                upto = int(end.group(3) or end.group(2))
                bob.expect(LIVE.pattern)
                talk.stop()
                bob.sync()
                live = numbered(bob.transcript, LIVE, "lobby")
            self.assertGreaterEqual(len(missed), self.COUNT)
            self.check_run(missed, last_seen + 1, upto, talk.truth, "missed")
            # What was said meanwhile stands behind the answer, without a gap.
            self.assertEqual(shown_before[-1][0], upto)
            self.assertEqual(live[len(shown_before)][0], upto + 1)
            self.check_run(live, live[0][0], live[-1][0], talk.truth, "live")
            self.assertEqual(live[-1][0], max(talk.truth))

    def test_ranges(self):
        with Broker(workers=2, plugins=LOG) as broker, LineClient(broker, "ana") as ana:
            with LineClient(broker, "bob", numbers=True) as bob:
                for i in range(1, 11):
                    ana.send(f"line {i}")
                ana.sync()
                truth = {i: f"line {i}" for i in range(1, 11)}
                for command, first, last in (
                    ("/history lobby 3", 8, 10),
                    ("/history lobby 300", 1, 10),
                    ("/history #lobby 4-6", 4, 6),
                    ("/history lobby 9-12", 9, 10),
                    ("/history LOBBY since 7", 8, 10),
                ):
                    lines, end = ask(bob, command)
                    self.check_run(numbered(lines, PAST, "lobby"), first, last, truth, command)
                    self.assertEqual((int(end.group(2)), int(end.group(3))), (first, last))
                    self.assertEqual(int(end.group(4)), last - first + 1)
                bob.send("/history lobby since 10")
                bob.next(r"^\* history lobby: nothing after 10$")


class Joining(Case):
    ROUNDS = scaled(30, 10)

    def test_what_was_said_and_what_is_said_meet(self):
        """Everybody keeps talking while one joins again and again: no line twice, none left out."""
        for workers in (1, 2, 4):
            with self.subTest(workers=workers), Broker(workers=workers, plugins=LOG) as broker:
                with Talk(broker, "ops") as talk, LineClient(broker, "bob", numbers=True) as bob:
                    talk.wait_said(50)
                    for _ in range(self.ROUNDS):
                        self.join_and_leave(bob)
                    bob.sync()
                    talk.stop()
                    for lines in self.visits(bob.transcript):
                        self.check_visit(lines, talk.truth)

    @staticmethod
    def join_and_leave(bob):
        bob.send("/join ops")
        bob.expect(BEFORE.pattern)
        bob.expect(LIVE.pattern)
        bob.send("/part ops")
        bob.expect(r"^\* you left ops$")

    @staticmethod
    def visits(transcript):
        visit = None
        for line in transcript:
            if line.startswith("* you are bob in ops: "):
                visit = []
            elif line == "* you left ops":
                yield visit
            elif visit is not None:
                visit.append(line)

    def check_visit(self, lines, truth):
        self.assertEqual(lines[0], "* history ops: what is said here is logged")
        header = BEFORE.match(lines[1])
        first, last = int(header.group(2)), int(header.group(3))
        past, live = numbered(lines, PAST, "ops"), numbered(lines, LIVE, "ops")
        self.assertEqual(len(past), 20)
        self.check_run(past, first, last, truth, "said before")
        self.check_run(live, last + 1, live[-1][0], truth, "live")
        self.assertEqual(numbered(lines[2:22], PAST, "ops"), past)

    def test_at_connect(self):
        """Without numbers: the texts tell."""
        rounds = scaled(20, 8)
        with Broker(workers=2, plugins=LOG) as broker, Talk(broker) as talk:
            talk.wait_said(50)
            heard = []
            for _ in range(rounds):
                with LineClient(broker) as guest:
                    guest.expect(r"^lobby talker\d: .*$")
                    heard.append([re.sub(rf"^{TIME} ", "", line) for line in guest.transcript[3:]])
            talk.stop()
            numbers = {text: number for number, text in talk.truth.items()}
            for lines in heard:
                found = [numbers[line.partition(": ")[2]] for line in lines if line[0] != "*"]
                self.assertGreater(len(found), 20)
                self.assertEqual(found, list(range(found[0], found[0] + len(found))))

    def test_announced_or_not(self):
        def joined(broker, room):
            with LineClient(broker, "eva") as eva:
                eva.send(f"/join {room}")
                eva.expect(rf"^\* you are eva in {room}: ")
                return eva.sync()

        announced = "* history {}: what is said here is logged"
        plugins = LOG + "rooms = *, !secret\n"
        with Broker(plugins=plugins) as broker, LineClient(broker, "ana", welcome=False) as ana:
            self.assertIn(announced.format("lobby"), ana.transcript)
            for room, wanted in (("ops", [announced.format("ops")]), ("secret", [])):
                ana.send(f"/join {room}")
                ana.send("hello")
                ana.sync()
                before = wanted + [f"* history {room} 1: what was said before you came"] * bool(wanted)
                got = joined(broker, room)
                self.assertEqual(got[: len(before)], before)
                self.assertEqual(len(got), len(before) + bool(wanted))
            ana.send("/history secret 5")
            ana.expect(r"^! history secret: not kept$")
            with DatagramClient(broker.address("udp"), "udo") as udo:
                udo.next(re.escape(announced.format("lobby")))
                self.assertEqual(udo.sync(), [])
        more = "addresses = yes\nprivate = yes\nrooms = !secret\n"
        with Broker(plugins=LOG + more) as broker:
            told = announced.format("ops") + ", with your address; so are private messages"
            self.assertEqual(joined(broker, "ops"), [told])
            self.assertEqual(joined(broker, "secret"), [])
        with Broker(plugins=LOG + more + "announce = no\n") as broker, LineClient(broker, "ana") as ana:
            ana.send("hello")
            ana.sync()
            with LineClient(broker, "bob") as bob:
                bob.sync()
                self.assertNotIn("logged", "\n".join(bob.transcript))
                self.assertIn("* history lobby 1: what was said before you came", bob.transcript)


class Readers(Case):
    """What is said in a room is for who is in it."""

    def test_who_may_not_enter_may_not_read(self):
        with Broker(workers=2, plugins=LOG) as broker, LineClient(broker, "ana") as ana:
            with LineClient(broker, "eva") as eva:
                for room, closing in (("keyed", "/mode +k sesame"), ("invited", "/mode +i")):
                    ana.send(f"/join {room}")
                    ana.send(closing)
                    ana.send("for us alone")
                    ana.sync()
                    eva.send(f"/join {room}")
                    eva.next(r"^! (the room has a key|the room is for invited people)")
                    self.check_refused(eva, room)
                ana.send("/join ops")
                ana.sync()
                eva.send("/join ops")
                eva.sync()
                ana.send("/ban eva")
                ana.send("/kick eva")
                ana.send("for us alone")
                ana.sync()
                eva.expect(r"^\* ana put eva out of ops$")
                self.check_refused(eva, "ops")
                eva.send("/join ops")
                eva.expect(r"^! you are banned there$")
                self.check_refused(eva, "ops")
                self.assertNotIn("for us alone", "\n".join(eva.transcript))

    def test_what_was_said_behind_a_guard_stays_there(self):
        """Who comes when all have left, or after a restart, makes the room anew."""
        with tempfile.TemporaryDirectory(prefix="roda-test-") as folder:
            with Broker(workers=2, plugins=LOG, state_dir=folder) as broker:
                for room, closing in (("keyed", "/mode +k sesame"), ("invited", "/mode +i")):
                    with LineClient(broker, "ana") as ana, LineClient(broker, "bob") as bob:
                        for line in (f"/join {room}", "before it", closing, "for us alone"):
                            ana.send(line)
                        ana.send("/invite bob")
                        ana.sync()
                        bob.send(f"/join {room} sesame")
                        bob.expect(r"ana: for us alone$")  # somebody was there all the time
                    with LineClient(broker, "eva") as eva:
                        self.enter(eva, room)
                        eva.send("for all")
                        eva.send("/topic all the same")
                        lines, _ = ask(eva, f"/history {room} since 0")
                        self.assertIn(f"* history {room} 1-3: not kept", lines)
                        self.check_open(eva, lines)
                        with LineClient(broker, "leo") as leo:
                            self.enter(leo, room)
                            lines, _ = ask(leo, f"/history {room}")
                            self.check_open(leo, lines)
            with Broker(workers=1, plugins=LOG, state_dir=folder) as broker:
                with LineClient(broker, "eva") as eva:
                    for room in ("keyed", "invited"):
                        self.enter(eva, room)
                        lines, _ = ask(eva, f"/history {room} since 0")
                        self.check_open(eva, lines)

    @staticmethod
    def enter(client, room):
        """When those who left have gone."""

        def entered():
            client.send(f"/join {room}")
            return client.expect(r"^(\* you are \S+ in|!)").group(1) != "!"

        wait_until(entered, f"{room} is open")

    def check_open(self, client, lines):
        self.assertTrue(any(line.endswith("eva: for all") for line in lines), lines)
        for line in client.transcript:
            self.assertNotRegex(line, "for us alone|before it|sesame")

    def check_refused(self, client, room):
        for what in ("20", "1-2", "since 0"):
            client.send(f"/history {room} {what}")
            client.expect(rf"^! you are not in {room}: /join {room}$")


class SlowReader(Case):
    def test_a_long_answer_does_not_kill(self):
        """Nearly 600 kB for a reader who takes 1 kB at a time."""
        for send_queue in ("32k", "4k"):
            with self.subTest(send_queue=send_queue):
                limits = f"send_queue = {send_queue}"
                with Broker(workers=2, plugins=LOG, limits=limits) as broker:
                    self.read_slowly(broker)

    def read_slowly(self, broker):
        text = "x" * 1900
        with LineClient(broker, "ana", "unix") as ana, LineClient(broker, "bob", "unix") as bob:
            for i in range(300):
                ana.send(f"{i} {text}")
                ana.sync()
                bob.take_what_is_here()
            bob.sync()
            bob.send("/history lobby 300")
            self.wait_full(broker)
            ana.send("said meanwhile")
            ana.sync()
            lines = []
            while not lines or lines[-1] != "lobby ana: said meanwhile":
                lines += self.take(bob)
            self.assertEqual(lines[-2], "* history lobby 1-300: 300 messages")
            self.assertEqual(len(lines), 302)
            for i, line in enumerate(lines[:300]):
                self.assertRegex(line, rf"^{TIME} lobby ana: {i} {text}$")
            self.assertEqual(broker.stats()["connections"], 3)

    @staticmethod
    def wait_full(broker):
        """Until nothing more is sent to who does not read."""
        sent = []

        def still():
            sent.append(broker.stats()["sent_bytes_total"])
            # The answer to stats is itself sent: it has always about the same length.
            steps = [b - a for a, b in zip(sent[-6:], sent[-5:])]
            return len(steps) == 5 and max(steps) < 16384

        wait_until(still, "its socket is full", every_s=0.02)

    @staticmethod
    def take(client):
        ready = select.select([client.socket], [], [], PATIENCE_S)[0]
        assert ready, "nothing comes any more"
        piece = client.socket.recv(1024)
        assert piece, "the connection was closed"
        client.pending += piece
        before = len(client.transcript)
        while b"\n" in client.pending:
            client.line()
        return client.transcript[before:]


class BadNetwork(Case):
    COUNT = scaled(300, 100)

    def test_a_transcript_ends_complete(self):
        """Datagrams are lost, doubled and reordered, both ways and also those of the repair."""
        for seed in (1, 2, 3):
            with self.subTest(seed=seed):
                with Broker(workers=2, listeners=TCP + UDP, plugins=LOG) as broker:
                    relay = Relay(broker.address("udp"), seed)
                    try:
                        self.through(broker, relay)
                    finally:
                        relay.close()

    def through(self, broker, relay):
        with LineClient(broker, "ana", numbers=True) as ana:
            with DatagramClient(relay.address, "udo") as udo:
                relay.on = True
                for i in range(self.COUNT):
                    ana.send(f"from ana {i}")
                    ana.expect(r"^\* \d+ lobby$")
                    udo.send(f"from udo {i}")
                    udo.take_what_is_here()
                last = self.ping(udo)  # all that came of his is published before the answer
                ana.sync()
                truth = {int(n): text for n, text in self.said_by_udo(ana.transcript)}
                own = re.findall(r"(?m)^\* (\d+) lobby$", "\n".join(ana.transcript))
                truth.update((int(n), f"from ana {i}") for i, n in enumerate(own))
                self.assertEqual(last, max(truth))
                self.assertNotEqual(set(self.known(udo)), set(truth), "some were lost")
                for _ in range(1000):
                    missing = sorted(set(range(1, last + 1)) - set(self.known(udo)))
                    if not missing:
                        break
                    # A run of missing numbers, as long as one question may be.
                    first = missing[0]
                    udo.send(f"/history lobby {first}-{min(last, first + 49)}")
                    self.ping(udo)
                self.assertEqual(self.known(udo), truth)
                self.assertTrue(relay.lost_out and relay.lost_in and relay.doubled)

    @staticmethod
    def said_by_udo(lines):
        return re.findall(r"(?m)^(\d+) lobby udo: (.*)$", "\n".join(lines))

    @staticmethod
    def ping(udo):
        udo.send("/ping end")
        return int(udo.expect(r"^\* pong lobby (\d+) end$").group(1))

    @staticmethod
    def known(udo):
        """Live or past: the line behind the time is the same."""
        found = {}
        for line in udo.transcript:
            match = LIVE.match(re.sub(rf"^{TIME} ", "", line))
            if match and match.group(2) == "lobby":
                found[int(match.group(1))] = match.group(4)
        return found


class Restart(Case):
    def test_history_is_still_there_and_numbers_go_on(self):
        with tempfile.TemporaryDirectory(prefix="roda-test-") as folder:
            truth = {}
            for round_, workers in enumerate((1, 4, 2)):
                with Broker(workers=workers, plugins=LOG, state_dir=folder) as broker:
                    self.visit(broker, truth, f"round {round_}", 40)

    def test_after_a_kill(self):
        """Durable: nothing that was shown is lost, and numbers go on without a gap."""
        with tempfile.TemporaryDirectory(prefix="roda-test-") as folder:
            truth = {}
            for round_ in range(3):
                plugins = LOG + "sync = always\n"
                broker = Broker(workers=2, plugins=plugins, state_dir=folder)
                try:
                    self.visit(broker, truth, f"round {round_}", 10)
                finally:
                    broker.kill()
                self.wait_gone(broker)

    @staticmethod
    def wait_gone(broker):
        """The kernel takes rings apart after the end of their process, and sockets with them."""

        def refused():
            with socket.socket(socket.AF_UNIX) as sock:
                return sock.connect_ex(broker.path("stats.sock")) != 0

        wait_until(refused, "its sockets are gone")

    def visit(self, broker, truth, name, count):
        with LineClient(broker, "ana", numbers=True) as ana:
            match = re.search(r"in lobby: 1 person, last message (\d+)", ana.transcript[0])
            self.assertEqual(int(match.group(1)), len(truth))
            if truth:
                past, _ = ask(ana, "/history lobby since 0")
                self.check_run(numbered(past, PAST, "lobby"), 1, len(truth), truth, name)
                with LineClient(broker, "bob") as bob:
                    bob.sync()
                    header = [line for line in bob.transcript if BEFORE.match(line)]
                first, last = max(1, len(truth) - 19), len(truth)
                self.assertEqual(
                    header, [f"* history lobby {first}-{last}: what was said before you came"]
                )
            for i in range(count):
                ana.send(f"{name}, line {i}")
                number = int(ana.expect(OWN.pattern).group(1))
                self.assertEqual(number, len(truth) + 1)
                truth[number] = f"{name}, line {i}"


if __name__ == "__main__":
    unittest.main(verbosity=2)
