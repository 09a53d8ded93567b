#!/usr/bin/env python3
"""How the broker ends: nothing that was sent is lost, everybody is told, nobody can hold it up; and
what it says about itself meanwhile, to systemd and to those who read its messages."""

import json
import os
import signal
import socket
import tempfile
import time
import unittest
from pathlib import Path

from broker import PATIENCE_S, PLUGINS, TCP, UNIX, Broker, scaled, wait_until
from clients import LineClient, Pump

TEST_PLUGINS = Path(os.environ["RODA_TEST_PLUGIN_DIR"])
LINGER_S = 1.0  # a polite close waits this long for the other side
NOBODY_IS_SLOW = "send_queue = 64M"


def ask_and_not_read(broker, client):
    """From now on its queue is never empty."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.send_raw(b"/help lines\n" * 3000)
    broker.wait_stats(lambda stats: stats["pinned_bytes"] > 1 << 20, "answers are queued")


class Shutdown(unittest.TestCase):
    def told(self, client):
        """The last line that a client gets; then the connection ends."""
        lines = client.rest()
        self.assertTrue(lines, f"{client.name} was told nothing")
        self.assertRegex(lines[-1], r"^! closed: ")
        return lines[:-1]

    def test_everybody_is_told(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            for workers in (1, 2, 4):
                with self.subTest(signal=number.name, workers=workers):
                    with Broker(workers=workers) as broker:
                        clients = [
                            LineClient(broker, f"c{i}", "unix" if i % 2 else "tcp")
                            for i in range(8)
                        ]
                        broker.signal(number)
                        for client in clients:
                            lines = self.told(client)
                            # Nobody is said to have quit: it is the broker that goes.
                            self.assertFalse([line for line in lines if " quit" in line], lines)
                            client.close()
                        self.assertEqual(broker.wait_end(), 0)
                        broker.wait_message("stopped$")

    def test_nobody_connected(self):
        with Broker(workers=4) as broker:
            started = time.monotonic()
            broker.stop()
            self.assertLess(time.monotonic() - started, PATIENCE_S / 2)

    def test_what_was_sent_is_delivered(self):
        """Lines that the broker has, it publishes; what it published, it delivers."""
        count = scaled(2000, 300)
        with Broker(workers=4, listeners=TCP + UNIX) as broker, Pump() as pump:
            sender = pump.add(broker.connect("unix"), "sender")
            readers = [pump.add(broker.connect(), f"reader {i}") for i in range(16)]
            everybody = [sender, *readers]
            pump.settle(everybody)
            pump.settle(everybody)
            before = broker.stats()["units_received_total"]
            lines = [b"%d before the end" % i for i in range(count)]
            pump.send(sender, b"\n".join(lines) + b"\n")
            # The broker has taken all of it; what became of it is its own matter.
            pump.run(lambda: not sender.unsent, "all is sent")
            broker.wait_stats(
                lambda stats: stats["units_received_total"] - before >= count, "all is received"
            )
            broker.signal(signal.SIGTERM)
            pump.run(lambda: all(peer.closed for peer in everybody), "all are closed")
            for reader in readers:
                received = reader.lines()
                self.assertRegex(received[-1], rb"^! closed: ")
                texts = [line.partition(b": ")[2] for line in received if b" before the end" in line]
                self.assertEqual(texts, lines, reader.name)

    def test_what_waits_at_a_slow_home_is_delivered(self):
        """Taken and not yet published when the signal comes: it is published, then all is closed."""
        plugin = f"[plugin slow_home]\npath = {TEST_PLUGINS}/slow_home.so\n"
        plugin += "room = slow\nbatch = 1\nperiod = 20ms\n"
        with Broker(workers=4, plugins=plugin + PLUGINS) as broker:
            with LineClient(broker, "ana") as ana, LineClient(broker, "bia", "unix") as bia:
                for client in (ana, bia):
                    client.send("/join slow")
                    client.expect(r"^\* you are \S+ in slow: ")
                count = 60  # as many as one may have under way
                before = broker.stats()["units_received_total"]
                bia.send_raw(b"".join(b"slow %d\n" % i for i in range(count)))
                broker.wait_stats(
                    lambda stats: stats["units_received_total"] >= before + count
                    and stats["lanes_length"] > 10,
                    "all is taken, and waits",
                )
                broker.signal(signal.SIGTERM)
                lines = [line for line in self.told(ana) if line.startswith("slow bia: ")]
                self.assertEqual(lines, [f"slow bia: slow {i}" for i in range(count)])

    def test_in_the_middle_of_a_flood(self):
        """Under load from all sides: each reader has the same beginning of what was said."""
        with Broker(workers=4, listeners=TCP + UNIX, limits=NOBODY_IS_SLOW) as broker, Pump() as pump:
            senders = [pump.add(broker.connect("unix"), f"sender {i}") for i in range(4)]
            readers = [pump.add(broker.connect(), f"reader {i}") for i in range(8)]
            pump.settle(senders + readers)
            for reader in readers:
                pump.send(reader, b"/numbers on\n")
            pump.settle(senders + readers)
            count = scaled(20000, 2000)
            for sender in senders:
                name = sender.name.encode()
                flood = b"".join(b"%d of %s\n" % (j, name) for j in range(count))
                pump.send(sender, flood)
            pump.run(lambda: all(reader.n_lines > 100 for reader in readers), "the flood flows")
            broker.signal(signal.SIGTERM)
            pump.run(lambda: all(peer.closed for peer in senders + readers), "all are closed")
            self.assertEqual(broker.wait_end(), 0)
            transcripts = []
            for reader in readers:
                lines = reader.lines()
                self.assertRegex(lines[-1], rb"^! closed: ")
                transcripts.append([line for line in lines if b" of sender " in line])
            for reader, lines in zip(readers, transcripts):
                self.assertEqual(lines, transcripts[0], reader.name)
            numbers = [int(line.split()[0]) for line in transcripts[0]]
            self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))

    def test_one_that_does_not_read_is_not_waited_for(self):
        """At most shutdown_grace; here it is as short as the test."""
        with Broker(workers=2, core="shutdown_grace = 2s", limits=NOBODY_IS_SLOW) as broker:
            with LineClient(broker, "surdo") as deaf, LineClient(broker, "ana") as ana:
                ask_and_not_read(broker, deaf)
                started = time.monotonic()
                broker.signal(signal.SIGTERM)
                self.told(ana)
                ana.close()
                self.assertEqual(broker.wait_end(), 0)
                self.assertLess(time.monotonic() - started, 2 + LINGER_S + PATIENCE_S / 4)

    def test_second_signal_hurries(self):
        with Broker(workers=2, core="shutdown_grace = 1h", limits=NOBODY_IS_SLOW) as broker:
            with LineClient(broker, "surdo") as deaf:
                ask_and_not_read(broker, deaf)  # the first signal alone would wait
                broker.signal(signal.SIGTERM)
                broker.wait_message(r"main: stopping$")
                broker.signal(signal.SIGINT)
                broker.wait_message(r"main: stopping at once$")
                started = time.monotonic()
                self.assertEqual(broker.wait_end(), 0)
                self.assertLess(time.monotonic() - started, PATIENCE_S / 2)

    def test_no_new_connections(self):
        with Broker(workers=2, core="shutdown_grace = 1h") as broker:
            with LineClient(broker, "ana") as ana:
                address = broker.address()
                broker.signal(signal.SIGTERM)
                self.told(ana)

                def refused():
                    try:
                        with socket.create_connection(address) as other:
                            return other.recv(100) == b""
                    except (ConnectionRefusedError, ConnectionResetError):
                        return True

                wait_until(refused, "new connections are refused")

    def test_socket_files_are_taken_away(self):
        with tempfile.TemporaryDirectory(prefix="roda-state-") as folder:
            with Broker(state_dir=folder) as broker:
                self.assertTrue(Path(broker.path()).is_socket())
            self.assertEqual(os.listdir(folder), [])

    def test_starts_again_at_once(self):
        """On the same ports, while the old connections are still in TIME_WAIT."""
        with Broker(workers=2) as broker:
            ports = dict(broker.ports)
            clients = [LineClient(broker, f"c{i}") for i in range(20)]
            broker.signal(signal.SIGTERM)
            for client in clients:
                self.told(client)
                client.close()
            self.assertEqual(broker.wait_end(), 0)
        listeners = TCP.replace("port = 0", f"port = {ports['tcp']}")
        with Broker(workers=2, listeners=listeners) as broker, LineClient(broker, "ana") as ana:
            ana.sync()


class Told(unittest.TestCase):
    def test_sd_notify(self):
        """READY=1 when it listens, STOPPING=1 when it begins to end; by path and abstract name."""
        with tempfile.TemporaryDirectory(prefix="roda-notify-") as folder:
            for name in (f"{folder}/notify", f"@roda-test-{os.getpid()}"):
                with self.subTest(name=name), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
                    to.settimeout(PATIENCE_S)
                    to.bind("\0" + name[1:] if name[0] == "@" else name)
                    with Broker(environment={"NOTIFY_SOCKET": name}, ready=False) as broker:
                        self.assertEqual(to.recv(1000), b"READY=1")
                        broker.wait_message("is ready")
                        broker.signal(signal.SIGTERM)
                        self.assertEqual(to.recv(1000), b"STOPPING=1")

    def test_json_messages(self):
        """Each line of stderr is one object, also where a name in it has quotes."""
        listeners = TCP + UNIX.replace("chat.sock", 'we"ird\\.sock')
        messages = "format = json\nlevel = debug"
        with Broker(workers=2, listeners=listeners, messages=messages) as broker:
            with LineClient(broker) as client:
                client.send("/quit bye")
                client.rest()
            with LineClient(broker) as client:
                client.send_raw(b"GET / HTTP/1.1\r\n\r\n")
                client.rest()
            broker.stop()
            messages = [json.loads(line) for line in broker.messages()]
            for message in messages:
                self.assertEqual({"time", "level", "source", "message"}, set(message), message)
            self.assertEqual({"notice", "debug"}, {message["level"] for message in messages})
            texts = [message["message"] for message in messages]
            self.assertTrue(any('/we"ird\\.sock' in text for text in texts), texts)
            self.assertEqual(texts[-1], "stopped")

    def test_level(self):
        """level = error: a life without incident leaves no line."""
        with Broker(messages="level = error", ready=False) as broker:
            wait_until(lambda: Path(broker.path("stats.sock")).exists(), "it listens")
            broker.stats()
            broker.signal(signal.SIGTERM)
            self.assertEqual(broker.wait_end(), 0)
            self.assertEqual(broker.messages(), [])
            broker.lines.append("stopped")  # what leaving the block looks for

    def test_journal(self):
        """Under systemd lines begin with their level, and the journal adds the time."""
        with Broker(environment={"JOURNAL_STREAM": "8:12345"}) as broker:
            broker.stop()
            for line in broker.messages():
                self.assertRegex(line, r"^<[3-7]>\w+: ")

    def test_reload_is_told(self):
        """SIGHUP does not end it, and says what it does not do."""
        with Broker() as broker, LineClient(broker, "ana") as ana:
            broker.signal(signal.SIGHUP)
            broker.wait_message(r"warning main: SIGHUP: .*restart")
            ana.sync()


if __name__ == "__main__":
    unittest.main(verbosity=2)
