#!/usr/bin/env python3
"""Ten thousand people at once: all are served, and one who only listens costs next to nothing."""

import resource
import unittest

from broker import PATIENCE_S, PLAIN, TCP, Broker, raise_descriptors
from clients import Pump

CONNECTIONS = 10_000
ROOMS = 100
DESCRIPTORS = CONNECTIONS + 500
WAVE = 100
BYTES_PER_CONNECTION = 512
CROWD_S = PATIENCE_S * 4


def connect(broker, pump, count):
    """That many more, each of them welcomed. Never many at once: what is under way in a crowd's
    joins takes memory that stays, and how much depends on how busy the machine is."""
    peers = []
    while len(peers) < count:
        wave = [pump.add(broker.connect(), f"c{len(pump.peers)}") for _ in range(WAVE)]
        pump.run(lambda wave=wave: all(peer.n_lines for peer in wave), "all are welcome", CROWD_S)
        peers += wave
    return peers


@unittest.skipUnless(PLAIN, "too heavy under a sanitizer, and its memory is not the broker's")
class Connections(unittest.TestCase):
    def setUp(self):
        hard = raise_descriptors()
        if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
            self.skipTest(f"this process may open {hard} descriptors, and needs {DESCRIPTORS}")

    def broker(self, workers, descriptors=None):
        # The soft limit is what a shell has; the broker raises it itself.
        return Broker(
            workers=workers,
            listeners=TCP,
            limits=f"max_connections = {CONNECTIONS + 100}",
            prefix=["prlimit", "--nofile=1024:" + str(descriptors or DESCRIPTORS)],
        )

    def test_all_are_served(self):
        with self.broker(2) as broker, Pump() as pump:
            peers = connect(broker, pump, CONNECTIONS)
            self.assertEqual(broker.stats()["connections"], CONNECTIONS + 1)
            rooms = [peers[i::ROOMS] for i in range(ROOMS)]
            for i, members in enumerate(rooms):
                for peer in members:
                    pump.send(peer, b"/join room%d\n/part lobby\n" % i)
            pump.settle(peers, patience_s=CROWD_S)
            pump.settle(peers, patience_s=CROWD_S)
            for i, members in enumerate(rooms):
                pump.send(members[0], b"hello from %d\n" % i)
            pump.run(
                lambda: all(peer.n_lines for members in rooms for peer in members[1:]),
                "every room hears its speaker",
                CROWD_S,
            )
            pump.settle(peers, forget=False, patience_s=CROWD_S)
            for i, members in enumerate(rooms):
                for peer in members:
                    lines = [line for line in peer.lines() if not line.startswith(b"* pong ")]
                    heard = [line.partition(b": ")[2] for line in lines]
                    self.assertEqual(heard, [] if peer is members[0] else [b"hello from %d" % i])
            stats = broker.stats()
            self.assertEqual(stats["connections_refused_full_total"], 0)
            self.assertGreater(min(stats.workers("connections")), CONNECTIONS // 4)

    def test_memory_of_an_idle_connection(self):
        with self.broker(2) as broker, Pump() as pump:
            few, many = CONNECTIONS // 10, CONNECTIONS
            peers = connect(broker, pump, few)
            # What all share is warm: each receive buffer, each chunk of output was in use.
            for _ in range(10):
                pump.settle(peers, patience_s=CROWD_S)
            at_few = broker.private_dirty_bytes()
            more = connect(broker, pump, many - few)
            pump.settle(more, patience_s=CROWD_S)
            at_many = broker.private_dirty_bytes()
            slope = (at_many - at_few) / (many - few)
            print(
                f"\n{slope:.0f} bytes per idle connection "
                f"({at_few >> 10} kB at {few}, {at_many >> 10} kB at {many})"
            )
            self.assertLessEqual(slope, BYTES_PER_CONNECTION)


if __name__ == "__main__":
    unittest.main(verbosity=2)
