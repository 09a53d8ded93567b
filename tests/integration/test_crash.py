#!/usr/bin/env python3
"""kill -9 at random moments under load, again and again on one log.

A round starts the broker (1 to 4 workers), checks what it gives back of all rounds before, lets a
crowd talk in several rooms by TCP, UNIX and UDP, and kills it. Over the whole test it is noted what
each number of each room meant to whoever saw it: others by the message, the sender by the answer.

    in durable rooms   all that was seen is in the log, by /history and by roda-log
    in other rooms     what is missing is said to be missing: exactly that
    in every room      no number ever means two things, and numbers only grow

RODA_CRASH_ROUNDS says how many rounds, RODA_CRASH_SEED repeats a failed run.
"""

import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import history
from broker import BUILD_KIND, PATIENCE_S, PLUGINS, SANITIZER, TCP, UDP, UNIX, Broker, scaled
from clients import DatagramClient, LineClient, Pump

ROUNDS = int(os.environ.get("RODA_CRASH_ROUNDS", scaled(20, 4)))
SEED = int(os.environ.get("RODA_CRASH_SEED", random.SystemRandom().randrange(1 << 32)))
RODA_LOG = Path(os.environ["RODA_BUILD"]) / "tools" / "roda-log" / "roda-log"

ROOMS = ["lobby", "ops", "audit", "red"]
STREAMS = 6
WINDOW = 64  # messages that a client has unanswered at most
LINES_MAX = scaled(6000, 800)  # received by all, before the kill

OTHERS = re.compile(rb"^(?:\S+Z )?(\d+) (\S+) (\S+): (\S+)")  # live, or told at the join
OWN = re.compile(rb"^\* (\d+) (\S+)$")


class Book:
    """What each number of each room meant. A text says by its first word which message it is."""

    def __init__(self):
        self.rooms = {room: {} for room in ROOMS}

    def note(self, room, number, text, who):
        known = self.rooms[room].setdefault(number, text)
        assert known == text, f"number {number} of {room} was {known} and is {text} for {who}"


class CrashPump(Pump):
    def _read(self, peer):
        try:
            super()._read(peer)
        except ConnectionRefusedError:  # a datagram to nobody
            peer.closed = True
            self.poll.unregister(peer.socket.fileno())


class Talker:
    """Says numbered lines in all rooms, a window of them unanswered, and notes all it is told."""

    def __init__(self, test, peer, window):
        self.test = test
        self.peer = peer
        self.window = window
        self.said = []  # (room, text), in order; answers come in the same order
        self.answered = 0
        self.refusals = []
        self.rest = b""

    def talk(self, pump):
        lines = []
        while len(self.said) - self.answered < self.window:
            room = self.test.random.choice(ROOMS)
            text = f"{self.peer.name}.{len(self.said)}"
            self.said.append((room, text))
            # Now and then long ones, so that segments end.
            padding = "x" * self.test.random.choice((0, 0, 0, 10, 100, 1000, 3000))
            if self.peer.datagrams:
                padding = padding[:100]
            lines.append(f"/msg #{room} {text} {padding}".rstrip().encode() + b"\n")
        if self.peer.datagrams:
            for line in lines:
                pump.send(self.peer, line)
        elif lines:
            pump.send(self.peer, b"".join(lines))

    def take(self, data):
        """Whole lines only: what was cut off by the kill was seen by nobody."""
        if self.peer.datagrams and not data.endswith(b"\n"):
            data += b"\n"
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.take_line(line)
        return len(lines)

    def take_line(self, line):
        if match := OWN.match(line):
            room, text = self.said[self.answered]
            self.answered += 1
            assert room == match.group(2).decode(), f"{self.peer.name}: {line!r} answers {text}"
            self.test.book.note(room, int(match.group(1)), text, self.peer.name)
        elif match := OTHERS.match(line):
            number, room, _, text = (part.decode() for part in match.groups())
            self.test.book.note(room, int(number), text, self.peer.name)
        elif line.startswith(b"! "):
            self.answered += 1
            self.refusals.append(line)


class Crash(unittest.TestCase):
    sync = "always"
    sync_rooms = ""
    durable = ROOMS

    def setUp(self):
        folder = tempfile.mkdtemp(prefix="roda-crash-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.folder = Path(folder)
        self.book = Book()
        self.random = random.Random(f"{SEED} {self.sync} {self.sync_rooms}")
        self.checked = {room: 0 for room in ROOMS}

    def broker(self, **options):
        log = (
            f"[plugin log]\ndirectory = {self.folder}/log\nsegment_bytes = 1M\n"
            f"sync = {self.sync}\nsync_interval = 50ms\nsync_rooms = {self.sync_rooms}\n"
        )
        return Broker(
            workers=self.random.randint(1, 4),
            listeners=TCP + UDP + UNIX,
            limits="send_queue = 16M\nsend_queues_total = 256M",
            plugins=PLUGINS + log,
            state_dir=self.folder,
            **options,
        )

    def roda_log(self, *arguments):
        done = subprocess.run(
            [RODA_LOG, "-d", self.folder / "log", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * 4,
            check=False,
        )
        self.assertIsNone(SANITIZER.search(done.stderr), done.stderr)
        return done

    # ---- what the log says ----------------------------------------------------------------------

    def check_room(self, reader, room, since):
        """What is given back after `since` against what was seen."""
        seen = {n: text for n, text in self.book.rooms[room].items() if n > since}
        kept, lost, remarks = history.read_since(reader, room, since)
        self.assertFalse(remarks, room)
        kept = {number: text.split(" ")[0] for number, text in kept.items()}
        history.check(seen, room in self.durable, kept, lost, f"{room} since {since}")
        for number, text in kept.items():
            self.book.note(room, number, text, "history")

    def check_broker(self, broker):
        with LineClient(broker, "reader", "unix", numbers=True) as reader:
            for room in ROOMS:
                highest = max(self.book.rooms[room], default=0)
                if room != "lobby":
                    reader.send(f"/join {room}")
                reader.send(f"/room {room}")
                reader.send("/ping where")
                number = int(reader.expect(rf"^\* pong {room} (\d+) where$").group(1))
                self.assertGreaterEqual(number, highest, f"{room} would use numbers again")
                self.check_room(reader, room, self.checked[room])
                # A client that was away for longer asks from farther back.
                if self.book.rooms[room]:
                    self.check_room(reader, room, self.random.choice(list(self.book.rooms[room])))
                self.checked[room] = max(highest, self.checked[room])

    def check_files(self):
        done = self.roda_log("verify")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def check_export(self):
        """Each durable message that was seen, once, by the tool."""
        done = self.roda_log("export", "--format", "jsonl")
        self.assertEqual(done.returncode, 0, done.stderr)
        exported = {room: {} for room in ROOMS}
        for line in done.stdout.splitlines():
            message = json.loads(line)
            room, number = message["room"], message["number"]
            self.assertNotIn(number, exported[room], f"{room} {number} twice in the files")
            text = message["text"].split(" ")[0]
            exported[room][number] = text
            self.book.note(room, number, text, "roda-log")
        for room in self.durable:
            missing = set(self.book.rooms[room]) - set(exported[room])
            self.assertFalse(missing, f"{room}: shown and not exported")

    # ---- rounds ---------------------------------------------------------------------------------

    def enter(self, broker, pump, index, count):
        """A talker in all rooms with numbers on."""
        name = f"r{count}c{index}"
        if index == STREAMS:
            client = DatagramClient(broker.address("udp"), name)
            peer = pump.add(client.socket, name)
            peer.datagrams = True
        else:
            peer = pump.add(broker.connect("unix" if index % 3 == 2 else "tcp"), name)
            peer.datagrams = False
            pump.send(peer, f"/nick {name}\n/numbers on\n".encode())
        for room in ROOMS[1:]:
            pump.send(peer, f"/join {room}\n".encode())
        pump.send(peer, b"/ping in\n")
        pump.run(lambda: b" in\n" in peer.received or peer.closed, f"{name} enters")
        self.assertFalse(peer.closed, broker.text())
        return Talker(self, peer, 1 if peer.datagrams else WINDOW)

    def talk_until_killed(self, broker, count):
        """Kills after a random number of lines. A line has come when it is here whole."""
        lines_left = self.random.randint(0, LINES_MAX) if self.random.random() < 0.9 else 0
        received = 0
        with CrashPump() as pump:
            talkers = {}
            for index in range(STREAMS + 1):
                talker = self.enter(broker, pump, index, count)
                talkers[talker.peer] = talker
            for talker in talkers.values():
                talker.take(bytes(talker.peer.received))

            def on_data(peer, data):
                nonlocal received
                received += talkers[peer].take(data)

            pump.on_data = on_data
            deadline = time.monotonic() + PATIENCE_S * 2
            while received < lines_left:
                for talker in talkers.values():
                    talker.talk(pump)
                    self.assertFalse(talker.refusals)
                    self.assertFalse(talker.peer.closed, broker.text())
                pump.step(1.0)
                self.assertLess(time.monotonic(), deadline, f"{received} of {lines_left} lines")
            broker.process.kill()
            broker.process.wait()
            # What had been sent is still on its way to those who read.
            streams = [talker.peer for talker in talkers.values() if not talker.peer.datagrams]
            pump.run(lambda: all(peer.closed for peer in streams), "the ends of all connections")
            while pump.poll.poll(0):
                pump.step(0)

    def one_round(self, count):
        if self.random.random() < 0.15:
            # Killed while it starts, or right after.
            broker = self.broker(ready=False)
            try:
                delay_s = self.random.random() * scaled(0.1, 1.0)
                try:
                    broker.process.wait(delay_s)
                except subprocess.TimeoutExpired:
                    pass
                else:
                    self.fail("it ended by itself:\n" + broker.text())
            finally:
                broker.kill()
        broker = self.broker()
        try:
            self.check_broker(broker)
            self.check_files()
            if self.random.random() < 0.1:
                # An end in order, now and then: nothing is lost by that.
                broker.stop()
                return
            self.talk_until_killed(broker, count)
            broker.check_findings()
        except BaseException:
            print(broker.tail())
            raise
        finally:
            broker.kill()

    def test_rounds(self):
        try:
            for count in range(ROUNDS):
                self.one_round(count)
            with self.broker() as broker:
                self.checked = {room: 0 for room in ROOMS}
                self.check_broker(broker)
                self.check_files()
                self.check_export()
            self.check_files()
            self.assertTrue(all(self.book.rooms.values()), "a test that says nothing shows nothing")
        except BaseException:
            print(f"\nrepeat with RODA_CRASH_SEED={SEED} ({BUILD_KIND})", flush=True)
            raise


class SomeDurable(Crash):
    sync = "interval"
    sync_rooms = "always: ops, audit"
    durable = ["ops", "audit"]


class Never(Crash):
    sync = "never"
    durable = []


class TwoBrokers(unittest.TestCase):
    """One log has one writer: a second broker would overwrite what the first has acknowledged."""

    def test_the_second_is_refused(self):
        folder = tempfile.mkdtemp(prefix="roda-crash-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        plugins = PLUGINS + f"[plugin log]\ndirectory = {folder}/log\nsync = always\n"
        with Broker(listeners=TCP, plugins=plugins, expect_status=-9) as first:
            with LineClient(first, "ana", numbers=True) as ana:
                ana.send("/msg #lobby before")
                ana.expect(r"^\* 1 lobby$")
                with Broker(
                    workers=2, listeners=TCP, plugins=plugins, ready=False, expect_status=1
                ) as second:
                    second.wait_message(rf"{folder}/log/\d\d\.lock: another broker writes this log")
                    self.assertEqual(second.wait_end(), 1, second.text())
                ana.send("/msg #lobby after")
                ana.expect(r"^\* 2 lobby$")
            first.process.kill()
        # The lock goes with who held it, however that ends.
        with Broker(listeners=TCP, plugins=plugins) as third:
            with LineClient(third, "bob", numbers=True) as bob:
                bob.send("/history lobby 2")
                bob.expect(r"before$")
                bob.expect(r"after$")


if __name__ == "__main__":
    unittest.main(verbosity=2)
