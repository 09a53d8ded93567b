#!/usr/bin/env python3
"""Cause before effect: who has seen the answer to his /ping may tell a friend anything, and the
friend, on whatever worker, sees what was said before any answer of his own."""

import multiprocessing
import re
import socket
import unittest

from broker import PATIENCE_S, TCP, UNIX, Broker, scaled
from clients import Pump

WORKERS = 4
# On a machine with other things to do, a client of ours may read late: that is not what is tested.
LIMITS = "send_queue = 64M"
PAIRS = 16
ROUNDS = scaled(100_000, 4_000)
ROUNDS_UNDER_LOAD = scaled(20_000, 800)
TOTAL_S = PATIENCE_S * 6


class Pair:
    """A says something and asks /ping; when the answer has come, B asks: what A said must be there.
    Both go through the broker's rules as peers of a pump."""

    def __init__(self, broker, pump, index, rounds):
        self.room = f"p{index}".encode()
        self.rounds = rounds
        self.round = 0
        # UNIX connections are dealt out in turn: this way either side is met on every worker.
        places = {}
        for side in "ab" if index % 4 < 2 else "ba":
            places[side] = self.enter(broker, pump, f"{side}{index}")
        self.a, self.a_worker = places["a"]
        self.b, self.b_worker = places["b"]
        self.pump = pump

    def enter(self, broker, pump, name):
        def connect():
            peer = pump.add(broker.connect("unix"), name)
            pump.send(peer, b"/nick %s\n/join %s\n" % (name.encode(), self.room))
            welcome = b"* you are %s in %s: " % (name.encode(), self.room)
            pump.run(lambda: welcome in peer.received, f"{name} enters")
            return peer

        peer, worker = broker.worker_of(connect)
        peer.pair = self
        return peer, worker

    def begin(self):
        self.a.forget()
        self.b.forget()
        self.say()

    def say(self):
        self.pump.send(self.a, b"x%d\n/ping %d\n" % (self.round, self.round))

    def heard(self, peer):
        """Something came. All that A gets is its answer; B gets the text, then its answer."""
        if not peer.received.endswith(b"\n"):
            return
        lines = bytes(peer.received).split(b"\n")[:-1]
        answer = b"* pong %s %d %d" % (self.room, self.round + 1, self.round)
        if peer is self.a:
            assert lines == [answer], f"{peer.name}: {lines}, not {answer}"
            peer.forget()
            self.pump.send(self.b, b"/ping %d\n" % self.round)
        elif any(line.startswith(b"* pong ") for line in lines):
            text = b"%s %s: x%d" % (self.room, self.a.name.encode(), self.round)
            assert lines == [text, answer], f"{peer.name}: {lines}, not {[text, answer]}"
            peer.forget()
            self.round += 1
            if self.round < self.rounds:
                self.say()


def flood(path, started, stop):
    """The load: senders and readers of another room, in a process of their own."""

    def connect():
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        return sock

    with Pump() as pump:
        peers = [pump.add(connect(), f"noise {i}") for i in range(12)]
        for peer in peers:
            pump.send(peer, b"/join noise\n/part lobby\n")
        pump.settle(peers)
        started.set()
        batch = b"".join(b"noise %d\n" % i for i in range(50))
        senders = peers[:4]
        # Rounds, so that no reader falls behind so far that it is closed for it.
        while not stop.is_set():
            for peer in peers:
                peer.forget()
            for peer in senders:
                pump.send(peer, batch)
            pump.run(
                lambda: all(peer.n_lines >= (150 if peer in senders else 200) for peer in peers),
                "all noise is heard",
            )


class Cause(unittest.TestCase):
    def run_pairs(self, broker, rounds):
        with Pump() as pump:
            pairs = [Pair(broker, pump, i, rounds // PAIRS) for i in range(PAIRS)]
            everybody = [peer for pair in pairs for peer in (pair.a, pair.b)]
            apart = sum(pair.a_worker != pair.b_worker for pair in pairs)
            self.assertGreaterEqual(apart, PAIRS // 2)
            self.assertEqual({pair.a_worker for pair in pairs}, set(range(WORKERS)))
            self.assertEqual({pair.b_worker for pair in pairs}, set(range(WORKERS)))
            for peer in everybody:
                pump.send(peer, b"/part lobby\n")
            pump.settle(everybody)
            pump.settle(everybody)

            def on_data(peer, data):
                peer.received += data
                peer.pair.heard(peer)

            pump.on_data = on_data
            for pair in pairs:
                pair.begin()
            pump.run(
                lambda: all(pair.round == pair.rounds for pair in pairs), "all rounds", TOTAL_S
            )

    def test_pairs(self):
        with Broker(workers=WORKERS, listeners=TCP + UNIX, limits=LIMITS) as broker:
            self.run_pairs(broker, ROUNDS)

    def test_pairs_under_load(self):
        with Broker(workers=WORKERS, listeners=TCP + UNIX, limits=LIMITS) as broker:
            started, stop = multiprocessing.Event(), multiprocessing.Event()
            load = multiprocessing.Process(
                target=flood, args=(broker.path(), started, stop), daemon=True
            )
            load.start()
            try:
                self.assertTrue(started.wait(PATIENCE_S), "the load starts")
                before = broker.stats()["messages_published_total"]
                self.run_pairs(broker, ROUNDS_UNDER_LOAD)
                published = broker.stats()["messages_published_total"] - before
                # The load was one: more noise than pairs' own messages.
                self.assertGreater(published, 2 * ROUNDS_UNDER_LOAD)
            finally:
                stop.set()
                load.join(PATIENCE_S)
                if load.is_alive():
                    load.kill()
                    load.join()


class Names(unittest.TestCase):
    """Changes of name in a flood over rooms in common."""

    ROOMS = (b"red", b"green", b"blue")
    PEOPLE = 8
    CHANGES = scaled(60, 10)
    LINES = 12  # between two changes

    def test_shown_once_in_place(self):
        with Broker(workers=WORKERS, listeners=TCP + UNIX, limits=LIMITS) as broker, Pump() as pump:
            people = [pump.add(broker.connect("unix"), f"p{i}") for i in range(self.PEOPLE)]
            for i, peer in enumerate(people):
                joins = b"".join(b"/join %s\n" % room for room in self.ROOMS)
                pump.send(peer, b"/nick p%d-0\n%s/part lobby\n" % (i, joins))
            pump.settle(people)
            pump.settle(people)
            for i, peer in enumerate(people):
                pump.send(peer, self.script(i))
            # Each sees the others' lines and changes, and answers to its own changes.
            said = (self.CHANGES + 1) * self.LINES
            expected = (self.PEOPLE - 1) * (said + self.CHANGES) + self.CHANGES
            pump.run(
                lambda: all(peer.n_lines >= expected or peer.closed for peer in people),
                "everybody has everything",
                TOTAL_S,
            )
            pump.settle(people, forget=False)
            for peer in people:
                self.check(peer, people)

    def script(self, i):
        """Lines to the rooms in turn, a change of name after each twelve."""
        parts = []
        for change in range(self.CHANGES + 1):
            for line in range(self.LINES):
                room = self.ROOMS[line % len(self.ROOMS)]
                parts.append(b"/msg #%s %d.%d\n" % (room, change, line))
            if change < self.CHANGES:
                parts.append(b"/nick p%d-%d\n" % (i, change + 1))
        return b"".join(parts)

    def check(self, receiver, people):
        """For each of the others: lines under a name, the change, lines under the next name."""
        lines = receiver.lines()
        for i, peer in enumerate(people):
            if peer is receiver:
                continue
            own = re.compile(rb"^(?:\S+ p%d-\d+: |\* p%d-)" % (i, i))
            seen = [line for line in lines if own.match(line)]
            expected = []
            for change in range(self.CHANGES + 1):
                name = b"p%d-%d" % (i, change)
                for line in range(self.LINES):
                    room = self.ROOMS[line % len(self.ROOMS)]
                    expected.append(b"%s %s: %d.%d" % (room, name, change, line))
                if change < self.CHANGES:
                    expected.append(b"* %s is now p%d-%d" % (name, i, change + 1))
            self.assertEqual(seen, expected, f"{peer.name} as {receiver.name} sees it")


if __name__ == "__main__":
    unittest.main(verbosity=2)
