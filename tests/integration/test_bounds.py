#!/usr/bin/env python3
"""Memory has bounds whoever is slow: the home of a room, or those who read. Nothing is lost without
a word, and nobody else notices."""

import os
import socket
import time
import unittest
from pathlib import Path

from broker import PATIENCE_S, PLAIN, PLUGINS, TCP, UNIX, Broker, raise_descriptors, scaled
from clients import LineClient, Pump

MB = 1 << 20
TEST_PLUGINS = Path(os.environ["RODA_TEST_PLUGIN_DIR"])
LINE = b"x" * 1000
FLOOD_S = PATIENCE_S * 4


class SlowHome(unittest.TestCase):
    WORKERS = 4
    FLOODERS = 9
    LINES = scaled(2500, 150)
    # As much as they may have under way (64 kB each), their input and output in the broker, and
    # what a start under load allocates once. Without windows it would be what they send: 22 MB.
    GROWTH_BYTES = 10 * MB

    def join(self, broker, pump, name, room):
        peer = pump.add(broker.connect("unix"), name)
        pump.send(peer, f"/nick {name}\n/join {room}\n/part lobby\n".encode())
        pump.run(lambda: b"* you left lobby" in peer.received, f"{name} enters")
        return peer

    def join_elsewhere(self, broker, pump, name, room, home):
        """A member on another worker than the home. The worker may change with each connection."""
        for attempt in range(100):
            peer, worker = broker.worker_of(
                lambda: self.join(broker, pump, f"{name}-{attempt}", room)
            )
            if worker != home:
                return peer, worker
            pump.send(peer, b"/quit\n")
            pump.run(lambda: peer.closed, "the connection ends")
        raise AssertionError(f"100 connections, all on worker {home}")

    def test_flood_of_a_room_with_a_slow_home(self):
        slow = f"[plugin slow_home]\npath = {TEST_PLUGINS}/slow_home.so\nroom = slow\n"
        slow += f"batch = {scaled(40, 4)}\nperiod = 10ms\n"
        with Broker(
            workers=self.WORKERS,
            listeners=TCP + UNIX,
            plugins=slow + PLUGINS,
            limits="send_queue = 4M",
        ) as broker, Pump() as pump:
            before = broker.stats().workers("rooms_open")
            reader = self.join(broker, pump, "reader", "slow")
            after = broker.stats().workers("rooms_open")
            home = [new - old for old, new in zip(before, after)].index(1)
            flooders, used = [], set()
            for i in range(self.FLOODERS):
                peer, worker = self.join_elsewhere(broker, pump, f"f{i}", "slow", home)
                flooders.append(peer)
                used.add(worker)
            self.assertEqual(used, set(range(self.WORKERS)) - {home})
            pump.send(reader, b"/numbers on\n")
            pump.settle([reader, *flooders])
            pump.settle([reader, *flooders])
            base = broker.rss_bytes()
            flood = b"".join(b"%d %s\n" % (i, LINE) for i in range(self.LINES))
            total = self.LINES * self.FLOODERS
            pump.on_data = self.keep_only_of(reader)
            with LineClient(broker, "ana") as ana, LineClient(broker, "bia", "unix") as bia:
                for client in (ana, bia):
                    client.send("/join quick")
                    client.expect(r"^\* you are \S+ in quick: ")
                for peer in flooders:
                    pump.send(peer, flood)
                peak, slowest_s, exchanges = 0, 0.0, 0
                deadline = time.monotonic() + FLOOD_S
                last = b"\n%d slow " % total
                while last not in reader.received[-2000:]:
                    self.assertLess(time.monotonic(), deadline, f"{reader.n_lines} of {total}")
                    for _ in range(20):
                        pump.step(0.002)
                    peak = max(peak, broker.rss_bytes())
                    started = time.monotonic()
                    ana.send(f"quick {exchanges}")
                    bia.expect(rf"^quick ana: quick {exchanges}$")
                    slowest_s = max(slowest_s, time.monotonic() - started)
                    exchanges += 1
                    if exchanges == 20:
                        # That it was slow, and that the others waited for it in bounds.
                        stats = broker.stats()
                        self.assertGreater(stats["lanes_length"], 0)
                        self.assertLessEqual(stats["under_way"], 64 * self.FLOODERS)
                        self.assertGreater(stats["inputs_waited_credit_total"], 0)
            self.assertGreater(exchanges, 20)
            self.assertLess(slowest_s, PATIENCE_S / 10, "other rooms go on")
            # The room is slow with comings and goings, too: those of who was on the wrong worker.
            names = {peer.name.encode() for peer in flooders}
            told = [line.split()[1] for line in reader.lines() if line.startswith(b"* ")]
            self.assertEqual(names.intersection(told), set())
            lines = [line for line in reader.lines() if not line.startswith(b"* ")]
            numbers = [int(line.split(b" ", 1)[0]) for line in lines]
            self.assertEqual(numbers, list(range(1, total + 1)))
            if PLAIN:
                self.assertLess(peak - base, self.GROWTH_BYTES, "memory stays under the windows")

    @staticmethod
    def keep_only_of(reader):
        """Keeps the beginnings of the reader's lines; of the others nothing."""
        rest = bytearray()

        def on_data(peer, data):
            if peer is not reader:
                return
            rest.extend(data)
            lines = rest.split(b"\n")
            rest[:] = lines.pop()
            for line in lines:
                peer.received += line[:24] + b"\n"
            peer.n_lines += len(lines)

        return on_data


class SlowReaders(unittest.TestCase):
    MEMBERS = scaled(200, 40)
    STOPPED = scaled(100, 20)
    BATCH = 20
    ROUNDS = 200
    TOTAL_BYTES = 2 * MB
    # Chunks that are not full yet, queue entries, and what the allocator keeps.
    SLACK_BYTES = 8 * MB

    def test_half_of_a_room_stops_reading(self):
        raise_descriptors()
        with Broker(
            workers=2,
            listeners=TCP + UNIX,
            # No queue alone is ever full: it is their sum that is bounded.
            limits=f"send_queues_total = {self.TOTAL_BYTES // MB}M\nsend_queue = 64M",
            plugins="[plugin rooms]\npresence_up_to = 0\n[plugin line]\n[plugin stats]\n",
        ) as broker, Pump() as pump:
            peers = []
            for i in range(self.MEMBERS):
                sock = socket.socket()
                # Small buffers of the kernel's, so that it is the broker's that fill.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096 if i % 2 else 1 << 20)
                sock.connect(broker.address())
                peers.append(pump.add(sock, f"m{i}"))
            stopped = [peer for i, peer in enumerate(peers) if i % 2][: self.STOPPED]
            reading = [peer for peer in peers if peer not in stopped]
            sender = pump.add(broker.connect("unix"), "sender")
            pump.settle(peers + [sender])
            pump.settle(peers + [sender])
            base, peak, sent = broker.rss_bytes(), 0, 0
            before = broker.stats()
            for peer in stopped:
                pump.pause(peer)
            for peer in reading:
                pump.send(peer, b"/numbers on\n")
            pump.settle(reading)
            # In rounds: those who read are never behind; the others are, more and more.
            for _ in range(self.ROUNDS):
                for _ in range(self.BATCH):
                    pump.send(sender, b"%d %s\n" % (sent, LINE))
                    sent += 1
                wanted = sent
                pump.run(lambda: all(p.n_lines >= wanted for p in reading), "a round is heard")
                peak = max(peak, broker.rss_bytes())
            broker.wait_message(
                r"closed: (reads too slowly|.*send_queues_total)", count=len(stopped)
            )
            stats = broker.wait_stats(
                lambda stats: stats["connections"] == before["connections"] - len(stopped),
                "those who stopped are gone, and nobody else",
            )
            self.assertEqual(stats["connections_closed_shed_total"], len(stopped))
            first = bytes(reading[0].received)
            for peer in reading:
                self.assertFalse(peer.closed)
                self.assertTrue(peer.received == first, f"{peer.name} has something else")
            numbers = [int(line.split(b" ", 1)[0]) for line in reading[0].lines()]
            self.assertEqual(numbers, list(range(numbers[0], numbers[0] + sent)))
            if PLAIN:
                self.assertLess(peak - base, self.TOTAL_BYTES + self.SLACK_BYTES)


if __name__ == "__main__":
    unittest.main(verbosity=2)
