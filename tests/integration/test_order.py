#!/usr/bin/env python3
"""One order for everybody: what a room's members see is the same sequence on every worker, whole,
and each sender's lines stand in it in the order in which they were sent."""

import re
import unittest

from broker import PATIENCE_S, TCP, UNIX, Broker, raise_descriptors, scaled
from clients import LineClient, Pump

WORKERS = 4
# On a machine with other things to do, a client of ours may read late: that is not what is tested.
LIMITS = "send_queue = 64M"
SENDERS = 8
RECEIVERS = scaled(64, 16)
LINES = scaled(2000, 150)
FLOOD_S = PATIENCE_S * 4


def connect(broker, pump, name):
    """A peer in the lobby with numbers on, and the worker that serves it."""

    def enter():
        peer = pump.add(broker.connect(), name)
        pump.send(peer, f"/nick {name}\n/numbers on\n".encode())
        pump.run(lambda: b"* numbers are on\n" in peer.received, f"{name} enters")
        return peer

    return broker.worker_of(enter)


def connect_on(broker, pump, name, worker):
    """The kernel chooses the worker: tries until it is the one that is wanted."""
    for attempt in range(200):
        peer, got = connect(broker, pump, f"{name}-{attempt}")
        if got == worker:
            return peer
        pump.send(peer, b"/quit\n")
        pump.run(lambda: peer.closed, "the connection ends")
    raise AssertionError(f"no connection on worker {worker} in 200 tries")


def connect_crowd(broker, pump):
    """Receivers on every worker, senders two on each; nothing is left to come."""
    receivers, counts = [], [0] * WORKERS
    for i in range(RECEIVERS):
        peer, worker = connect(broker, pump, f"r{i}")
        receivers.append(peer)
        counts[worker] += 1
    for worker, count in enumerate(counts):
        if not count:
            receivers.append(connect_on(broker, pump, f"r-on-{worker}", worker))
    senders = [connect_on(broker, pump, f"s{i}", i % WORKERS) for i in range(SENDERS)]
    pump.settle(receivers + senders)
    pump.settle(receivers + senders)  # what was pushed to all before the first is read by now
    stats = broker.stats()
    assert all(count > 0 for count in stats.workers("connections")), stats.workers("connections")
    return receivers, senders


def messages(peer, room):
    """[(number, nick, text)] of one room, in the order of arrival."""
    pattern = re.compile(rb"^(\d+) " + room.encode() + rb" (\S+): (.*)$", re.M)
    return [(int(n), nick, text) for n, nick, text in pattern.findall(peer.received)]


class Order(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise_descriptors()

    def check_numbers(self, seen):
        numbers = [number for number, _, _ in seen]
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))

    def check_senders(self, seen, expected):
        """Each sender's texts, in its own order. expected: {base of the nick: [text]}"""
        said = {}
        for _, nick, text in seen:
            said.setdefault(nick.split(b"-")[0], []).append(text)
        self.assertEqual(set(said), set(expected))
        for nick, texts in expected.items():
            self.assertEqual(said[nick], texts, nick)

    def check_own_numbers(self, sender, room, seen):
        """A sender's answers name the numbers that the others saw."""
        pattern = re.compile(rb"^\* (\d+) " + room.encode() + rb"$", re.M)
        own = [int(number) for number in pattern.findall(sender.received)]
        nick = sender.name.split("-")[0].encode()
        theirs = [number for number, who, _ in seen if who.split(b"-")[0] == nick]
        self.assertEqual(own, theirs, sender.name)

    def test_one_room(self):
        with Broker(workers=WORKERS, listeners=TCP + UNIX, limits=LIMITS) as broker, Pump() as pump:
            receivers, senders = connect_crowd(broker, pump)
            expected = {}
            before = broker.stats()
            for i, sender in enumerate(senders):
                texts = [b"%d of %d" % (line, i) for line in range(LINES)]
                expected[b"s%d" % i] = texts
                pump.send(sender, b"\n".join(texts) + b"\n")
            total = SENDERS * LINES
            everybody = receivers + senders
            pump.run(
                lambda: all(peer.n_lines >= total or peer.closed for peer in everybody),
                "everybody has everything",
                FLOOD_S,
            )
            after = broker.stats()
            # Something was submitted on each worker: the order is not one thread's own.
            submitted = [
                new - old
                for old, new in zip(
                    before.workers("messages_submitted_total"),
                    after.workers("messages_submitted_total"),
                )
            ]
            self.assertEqual(submitted, [total // WORKERS] * WORKERS)
            first = bytes(receivers[0].received)
            for peer in receivers:
                self.assertTrue(peer.received == first, f"{peer.name} saw another sequence")
            seen = messages(receivers[0], "lobby")
            self.assertEqual(len(seen), total)
            self.check_numbers(seen)
            self.check_senders(seen, expected)
            for sender in senders:
                self.check_own_numbers(sender, "lobby", seen)

    def test_three_rooms(self):
        """Members in common: each room has one order, whoever looks."""
        rooms = ["red", "green", "blue"]
        count = LINES // 3
        with Broker(workers=WORKERS, listeners=TCP + UNIX, limits=LIMITS) as broker, Pump() as pump:
            receivers, senders = connect_crowd(broker, pump)
            everybody = receivers + senders
            member_of = {}
            for i, peer in enumerate(receivers):
                # All three, or two of them, so that the sets differ.
                member_of[peer] = [room for j, room in enumerate(rooms) if i % 4 != j]
            for peer in senders:
                member_of[peer] = rooms
            for peer in everybody:
                pump.send(peer, "".join(f"/join {room}\n" for room in member_of[peer]).encode())
            pump.settle(everybody)
            pump.settle(everybody)  # who joined last is known to all now
            expected = {}
            for i, sender in enumerate(senders):
                texts = [b"%d of %d" % (line, i) for line in range(count)]
                expected[b"s%d" % i] = texts
                lines = [b"/msg #%s %s\n" % (room.encode(), t) for t in texts for room in rooms]
                pump.send(sender, b"".join(lines))
            total = SENDERS * count
            pump.run(
                lambda: all(
                    peer.n_lines >= total * len(member_of[peer]) or peer.closed
                    for peer in everybody
                ),
                "everybody has everything",
                FLOOD_S,
            )
            for room in rooms:
                members = [peer for peer in receivers if room in member_of[peer]]
                seen = messages(members[0], room)
                self.assertEqual(len(seen), total, room)
                self.check_numbers(seen)
                self.check_senders(seen, expected)
                for peer in members:
                    self.assertEqual(messages(peer, room), seen, f"{peer.name} in {room}")
                for sender in senders:
                    self.check_own_numbers(sender, room, seen)

    def test_one_sender_to_rooms_and_a_person(self):
        """To room a, room b, and a person, in turn: who sees all of it sees it in that order."""
        count = scaled(500, 60)
        with Broker(workers=WORKERS, listeners=TCP + UNIX, limits=LIMITS) as broker:
            clients = []
            try:
                # The destinations' homes differ by name; the receivers' workers by connection.
                receivers = []
                for i in range(8):
                    client = LineClient(broker, f"r{i}", "unix" if i % 2 else "tcp")
                    clients.append(client)
                    receivers.append(client)
                sender = LineClient(broker, "ana", "unix")
                clients.append(sender)
                for client in clients:
                    client.send("/join a")
                    client.expect(r"^\* you are \S+ in a: ")
                    client.send("/join b")
                    client.expect(r"^\* you are \S+ in b: ")
                for client in clients:
                    client.sync()
                lines = []
                for i in range(count):
                    lines += [f"/msg #a {i} a", f"/msg #b {i} b"]
                    lines += [f"/msg r{j} {i} you" for j in range(len(receivers))]
                sender.send_raw("".join(line + "\n" for line in lines).encode())
                expected = [
                    (where, f"{i} {what}")
                    for i in range(count)
                    for where, what in (("a", "a"), ("b", "b"), ("@", "you"))
                ]
                for receiver in receivers:
                    seen = []
                    while len(seen) < len(expected):
                        seen.append(receiver.expect(r"^(\S+) ana: (.*)$").groups())
                    self.assertEqual(seen, expected, receiver.name)
            finally:
                for client in clients:
                    client.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
