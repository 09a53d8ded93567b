#!/usr/bin/env python3
"""Limits with the real broker: who floods is held back and loses nothing, the others notice nothing;
refusals, disconnects and bans; ten thousand address prefixes; what fail2ban makes of the messages."""

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from broker import PATIENCE_S, PLAIN, PLUGINS, SOURCE_DIR, TCP, UDP, UNIX, Broker, raise_descriptors
from broker import scaled, wait_until
from clients import DatagramClient, LineClient

OFF = """
messages = off
registered_messages = off
bytes = off
address_messages = off
joins = off
address_connections = 0
address_connects = off
"""
KB = 1 << 10
IPV6_FREEBIND = 78
IN_NAMESPACE = "--in-namespace"
IPV6 = """
[listener tcp6]
address = ::1
port = 0
protocol = line
"""


def limits(text, exempt=""):
    """The plugins, with these limits and no others. Clients come from 127.0.0.0/8."""
    given = {line.split("=")[0].strip() for line in text.splitlines() if "=" in line}
    others = [line for line in OFF.splitlines() if line and line.split("=")[0].strip() not in given]
    return "[plugin ratelimit]\n" + "\n".join([f"exempt = {exempt}", text, *others]) + PLUGINS


def connect_from(broker, source, listener="tcp"):
    sock = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
    if ":" in source:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    sock.bind((source, 0))
    sock.connect(("::1" if ":" in source else "127.0.0.1", broker.ports[listener]))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class From(LineClient):
    """A client of a certain address."""

    def __init__(self, broker, source, nick=None, listener="tcp", welcome=True):
        self.source = source
        super().__init__(_Door(broker, source), nick, listener, welcome=welcome)


class _Door:
    def __init__(self, broker, source):
        self.broker, self.source = broker, source

    def connect(self, listener):
        return connect_from(self.broker, self.source, listener)


class Flood(unittest.TestCase):
    RATE = 50
    BURST = 10
    LINES = scaled(200, 120)

    def check_flood(self, workers):
        with Broker(
            workers=workers, plugins=limits(f"messages = {self.RATE}/s burst {self.BURST}")
        ) as broker:
            # Everybody has some units behind him when the flood begins.
            flooder = LineClient(broker, "flood")
            ana, bia = LineClient(broker, "ana"), LineClient(broker, "bia", "unix")
            cid, dan = LineClient(broker, "cid"), LineClient(broker, "dan", "unix")
            for client in (cid, dan):
                client.send("/join other")
            for client in (ana, bia, cid, dan, flooder):
                client.sync()
            time.sleep(self.BURST / self.RATE)  # the flooder's bucket is empty again
            started = time.monotonic()
            flooder.send_raw(b"".join(b"flood %d\n" % i for i in range(self.LINES)))
            flooder.end_sending()
            slowest_s = exchanges = 0
            heard = []
            while len(heard) < self.LINES:
                for speaker, listener in ((ana, bia), (cid, dan)):
                    at = time.monotonic()
                    speaker.send(f"word {exchanges}")
                    while True:
                        line = listener.line()
                        if line.endswith(f" {speaker.nick}: word {exchanges}"):
                            break
                        match = re.match(r"lobby flood: flood (\d+)$", line)
                        if match and listener is bia:
                            heard.append(int(match.group(1)))
                    slowest_s = max(slowest_s, time.monotonic() - at)
                exchanges += 1
                time.sleep(0.05)  # witnesses stay below the limit themselves
                self.assertLess(time.monotonic() - started, PATIENCE_S)
            took_s = time.monotonic() - started
            self.assertEqual(heard, list(range(self.LINES)), "in order, and none is lost")
            # The loose check on the real clock.
            least_s = (self.LINES - self.BURST) / self.RATE
            self.assertGreater(took_s, least_s * 0.95)
            if PLAIN:
                self.assertLess(took_s, least_s * 1.3 + 0.5)
                self.assertLess(slowest_s, 0.5, "nobody else waits")
            self.assertGreater(exchanges, 10)
            stats = broker.stats()
            self.assertGreater(stats["ratelimit_delayed_total"], self.LINES - self.BURST - 10)
            self.assertEqual(stats["ratelimit_refused_messages_total"], 0)
            refused = [line for line in flooder.rest() if line.startswith("! ")]
            self.assertEqual(refused, [])
            for client in (ana, bia, cid, dan, flooder):
                client.close()

    def test_one_worker(self):
        self.check_flood(1)

    def test_two_workers(self):
        self.check_flood(2)

    def test_what_is_no_message_is_held_back_too(self):
        """A flood of pings: each is answered, at the rate."""
        with Broker(plugins=limits("messages = 50/s burst 10")) as broker:
            with LineClient(broker, "ana") as ana:
                started = time.monotonic()
                ana.send_raw(b"".join(b"/ping %d\n" % i for i in range(100)))
                for i in range(100):
                    ana.expect(rf"^\* pong \S+ \d+ {i}$")
                self.assertGreater(time.monotonic() - started, 90 / 50 * 0.9)

    def test_longer_than_max_delay(self):
        """The core refuses what would wait longer; its place in time is the next one's."""
        with Broker(
            limits="max_delay = 500ms", plugins=limits("messages = 1/s burst 1\nkill_after = 0")
        ) as broker, LineClient(broker, listener="unix") as ana:
            ana.send_raw(b"".join(b"/ping %d\n" % i for i in range(10)))
            answers = [ana.line() for _ in range(10)]
            passed = sum(line.startswith("* pong") for line in answers)
            self.assertEqual(passed + sum(line.startswith("! ") for line in answers), 10)
            self.assertTrue(4 <= passed <= 6, answers)

    def test_lines_that_are_too_long(self):
        """They are gone, but take their time; and what comes after them waits."""
        with Broker(plugins=limits("messages = 20/s burst 5")) as broker:
            with LineClient(broker, "ana") as ana:
                started = time.monotonic()
                for _ in range(45):
                    ana.send("x" * 5000)
                ana.send("/ping last")
                ana.expect(r"^\* pong \S+ \d+ last$")
                self.assertGreater(time.monotonic() - started, 40 / 20 * 0.9)
                self.assertEqual(sum("too long" in line for line in ana.transcript), 45)

    def test_lines_that_are_too_long_and_come_slowly(self):
        """Who waits for nothing must not find that they are free."""
        with Broker(plugins=limits("messages = 2/s burst 5")) as broker:
            with LineClient(broker, "ana") as ana:
                started = time.monotonic()
                sent = 0
                while time.monotonic() - started < 3:
                    ana.send("x" * 5000)
                    sent += 1
                    time.sleep(0.05)
                took_s = time.monotonic() - started
                ana.take_what_is_here()
                passed = sum("too long" in line for line in ana.transcript)
                self.assertLessEqual(passed, 5 + 2 * took_s)
                self.assertGreater(sent, passed * 2)

    def test_an_address_has_one_rate(self):
        """Of ten connections on two workers together."""
        with Broker(
            workers=2, plugins=limits("address_messages = 50/s burst 20\non_excess = refuse\nkill_after = 0")
        ) as broker:
            clients = [From(broker, "127.0.0.2") for _ in range(10)]
            witness = From(broker, "127.0.0.3")
            started = time.monotonic()
            sent = 0
            while time.monotonic() - started < 2:
                for client in clients:
                    client.send(f"/ping {sent}")
                sent += 1
                time.sleep(0.01)
            took_s = time.monotonic() - started
            witness.sync()
            passed = 0
            for client in clients:
                client.end_sending()
                passed += sum(line.startswith("* pong") for line in client.rest())
                client.close()
            most = 20 + 50 * took_s
            self.assertLessEqual(passed, most * 1.05 + 1)
            if PLAIN:
                self.assertGreaterEqual(passed, 20 + 50 * 2 * 0.9)
            witness.close()


class Refusals(unittest.TestCase):
    REFUSING = "messages = 1/s burst 5\non_excess = refuse\nkill_after = 5\nban_time = 1h"
    REFUSED = r"^! too fast: \[plugin ratelimit\] messages = 1/s burst 5$"
    BANNED = (r"^! closed: your address is banned for \d+ s more: too many refusals, "
              r"\[plugin ratelimit\] ban_time = 3600s$")

    def provoke(self, broker, source):
        with From(broker, source) as client:
            client.send_raw(b"".join(b"/ping %d\n" % i for i in range(20)))
            client.expect(self.REFUSED)
            self.assertEqual(
                client.rest()[-1],
                "! closed: 5 refusals within a minute: [plugin ratelimit] kill_after = 5",
            )
        broker.wait_message(rf"ratelimit: banned {source} seconds=3600 listener=tcp$")

    def expect_banned(self, broker, source):
        with From(broker, source, welcome=False) as client:
            lines = client.rest()
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], self.BANNED)

    def test_a_ban_survives_restarts(self):
        with tempfile.TemporaryDirectory(prefix="roda-test-") as folder:
            with Broker(workers=2, state_dir=folder, plugins=limits(self.REFUSING)) as broker:
                self.provoke(broker, "127.0.0.2")
                self.expect_banned(broker, "127.0.0.2")
                From(broker, "127.0.0.3").close()
                file = Path(folder) / "ratelimit.bans"
                wait_until(file.exists, "there is a file")
                wait_until(lambda: "127.0.0.2/32 " in file.read_text(), "it is in the file")
            crashed = Broker(workers=2, state_dir=folder, plugins=limits(self.REFUSING))
            try:
                crashed.wait_message(r"bans still in force: 1$")
                self.expect_banned(crashed, "127.0.0.2")
                self.provoke(crashed, "127.0.0.4")
                wait_until(lambda: "127.0.0.4/32 " in file.read_text(), "it is in the file")
            finally:
                crashed.kill()
            with open(file, "a", encoding="ascii") as torn:
                torn.write("127.0.0.3/32 99")
            with Broker(workers=1, state_dir=folder, plugins=limits(self.REFUSING)) as broker:
                self.expect_banned(broker, "127.0.0.2")
                self.expect_banned(broker, "127.0.0.4")
                From(broker, "127.0.0.3").close()
                wait_until(lambda: "127.0.0.3" not in file.read_text(), "what was torn is gone")

    def test_who_is_banned_cannot_talk_and_be_gone(self):
        conf = limits(self.REFUSING)
        with Broker(plugins=conf) as broker, LineClient(broker, "ana", "unix") as ana:
            self.provoke(broker, "127.0.0.9")
            self.expect_banned(broker, "127.0.0.9")
            ana.sync()
            broker.signal(signal.SIGSTOP)  # so that it comes too late to all of them
            for i in range(50):
                sock = connect_from(broker, "127.0.0.9")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.sendall(b"said behind the door %d\n" % i)
                sock.close()
            broker.signal(signal.SIGCONT)
            broker.wait_stats(lambda stats: stats["connections"] == 2, "they are gone")
            self.assertEqual(ana.sync(), [], "nobody has joined, or said anything")

    def test_a_state_dir_that_cannot_be_written(self):
        """Bans go on, and that they end with the broker is said."""
        with tempfile.TemporaryDirectory(prefix="roda-test-") as folder:
            Path(folder, "ratelimit.bans").mkdir()
            with Broker(state_dir=folder, plugins=limits(self.REFUSING)) as broker:
                broker.wait_message(r"warning ratelimit: \S+/ratelimit.bans: cannot be ")
                self.provoke(broker, "127.0.0.2")
                self.expect_banned(broker, "127.0.0.2")

    def test_a_listener_has_its_own(self):
        listeners = TCP + UNIX + "ratelimit.messages = 10/s burst 50\n"
        with Broker(listeners=listeners, plugins=limits(self.REFUSING)) as broker:
            with From(broker, "127.0.0.2") as ana, LineClient(broker, listener="unix") as bia:
                for client in (ana, bia):
                    client.send_raw(b"/ping x\n" * 55)
                ana.expect(self.REFUSED)
                for _ in range(50):
                    bia.next(r"^\* pong ")
                bia.next(r"^! too fast: \[listener local\] ratelimit.messages = 10/s burst 50$")
            # No address, no ban.
            LineClient(broker, listener="unix").close()

    def test_connections(self):
        with Broker(workers=2, plugins=limits("address_connections = 3")) as broker:
            clients = [From(broker, "127.0.0.2") for _ in range(3)]
            with From(broker, "127.0.0.2", welcome=False) as one_more:
                self.assertEqual(
                    one_more.rest(),
                    ["! closed: too many connections from your address: "
                     "[plugin ratelimit] address_connections = 3"],
                )
            From(broker, "127.0.0.3").close()
            clients.pop().close()

            def may_come():
                with From(broker, "127.0.0.2", welcome=False) as again:
                    return again.line().startswith("* you are")

            wait_until(may_come, "a place is free again")
            for client in clients:
                client.close()

    def test_connects(self):
        with Broker(
            workers=2, plugins=limits("address_connects = 1/h burst 4\nstart_grace = 0")
        ) as broker:
            for _ in range(4):
                From(broker, "127.0.0.2").close()
            with From(broker, "127.0.0.2", welcome=False) as one_more:
                self.assertRegex(one_more.rest()[0], r"^! closed: your address connects too fast: ")
            From(broker, "127.0.0.3").close()
        with Broker(plugins=limits("address_connects = 1/h burst 4")) as broker:
            for _ in range(20):  # the grace after the start
                From(broker, "127.0.0.2").close()

    def test_datagrams_are_refused(self):
        with Broker(
            listeners=TCP + UDP, plugins=limits("messages = 1/s burst 10\nkill_after = 0")
        ) as broker:
            with LineClient(broker, "ana") as ana:
                with DatagramClient(broker.address("udp"), "bia") as bia:
                    ana.sync()
                    for i in range(40):
                        bia.send(f"said {i}")
                    bia.expect(r"^! too fast: \[plugin ratelimit\] messages = 1/s burst 10$")
                    stats = broker.wait_stats(
                        lambda stats: stats["ratelimit_refused_messages_total"] > 25, "refusals"
                    )
                    self.assertEqual(stats["ratelimit_delayed_total"], 0)
                heard = [line for line in ana.sync() if line.startswith("lobby bia: said ")]
                self.assertTrue(5 <= len(heard) <= 12, heard)
                self.assertEqual(heard[0], "lobby bia: said 0")

    def test_slow_mode(self):
        with Broker(
            workers=2, plugins=limits("room_messages = 1/m burst 2\nkill_after = 0")
        ) as broker:
            with LineClient(broker, "ana") as ana, LineClient(broker, "bia") as bia:
                for i in range(3):
                    ana.send(f"said {i}")
                ana.expect(r"^! too fast for this room, wait \d+ s: "
                           r"\[plugin ratelimit\] room_messages = 1/m burst 2$")
                bia.send("and I?")
                ana.expect(r"^lobby bia: and I\?$")
                bia.sync()
                heard = [line for line in bia.transcript if line.startswith("lobby ana: ")]
                self.assertEqual(heard, ["lobby ana: said 0", "lobby ana: said 1"])

    def test_mistakes_in_the_conf(self):
        for listener, text, said in (
            ("", "exempt = 10.0.0.1/8\n", "the address has bits beyond"),
            ("", "messages = 1/h burst 10000\n", "more than 10 days"),
            ("ratelimit.address_messages = 20000/s\n", "",
             "[listener tcp].ratelimit.address_messages: 20000/s: at most 10000/s"),
        ):
            plugins = "[plugin ratelimit]\n" + text + PLUGINS
            broker = Broker(
                listeners=TCP + listener, plugins=plugins, ready=False, expect_status=1
            )
            try:
                self.assertEqual(broker.wait_end(), 1)
                self.assertIn(said, broker.text())
            finally:
                broker.kill()


class Fail2ban(unittest.TestCase):
    FILTER = SOURCE_DIR / "conf/fail2ban/filter.d/roda.conf"
    LINE = re.compile(r"\b(refused|banned) (127\.0\.0\.\d+) ")

    def setUp(self):
        if not shutil.which("fail2ban-regex"):
            self.skipTest("fail2ban is not installed")

    def check(self, messages):
        with Broker(
            messages=messages, plugins=limits(Refusals.REFUSING + "\naddress_connections = 2")
        ) as broker, tempfile.NamedTemporaryFile("w", suffix=".log") as log:
            for host in range(2, 6):
                sources = [From(broker, f"127.0.0.{host}") for _ in range(2)]
                with From(broker, f"127.0.0.{host}", welcome=False) as one_more:
                    one_more.rest()
                sources[0].send_raw(b"/ping x\n" * 20)
                sources[0].rest()
                for client in sources:
                    client.close()
            with LineClient(broker, listener="unix") as tease:
                # What people say is not in the messages; and if it were:
                tease.send("ratelimit: banned 192.0.2.1 seconds=1 listener=x")
                tease.sync()
            broker.wait_message(r"banned 127\.0\.0\.5 ")
            lines = broker.messages()
            fakes = [
                "2026-01-01T00:00:00.000Z notice core: ratelimit: banned 192.0.2.1 seconds=1 listener=x",
                "2026-01-01T00:00:00.000Z notice ratelimit: refused unix-uid-0 bucket=bytes listener=x",
            ]
            log.write("\n".join(lines + fakes) + "\n")
            log.flush()
            wanted = [match.group(2) for line in lines if (match := self.LINE.search(line))]
            # Per address: a connection too many, input too fast, and the ban.
            self.assertEqual(len(wanted), 12, "\n".join(lines))
            self.expect_found(log.name, wanted)

    def expect_found(self, path, wanted):
        done = subprocess.run(
            ["fail2ban-regex", "-o", "ip", path, str(self.FILTER)],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )
        self.assertEqual(sorted(done.stdout.split()), sorted(wanted), done.stdout + done.stderr)

    def test_text(self):
        self.check("")

    def test_json(self):
        self.check("format = json")

    def test_ipv6(self):
        with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
            for messages in ("", "format = json"):
                with Broker(
                    messages=messages, listeners=TCP + UNIX + IPV6,
                    plugins=limits(Refusals.REFUSING),
                ) as broker:
                    with From(broker, "::1", listener="tcp6") as client:
                        client.send_raw(b"/ping x\n" * 20)
                        client.rest()
                    broker.wait_message(r"banned ::1 ")
                    log.write("\n".join(broker.messages()) + "\n")
            log.flush()
            self.expect_found(log.name, ["::1"] * 4)

    def test_the_journal(self):
        """As fail2ban shows its filters what systemd has: host, program and number in front."""
        with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
            for message in (
                "ratelimit: refused 192.0.2.1 bucket=messages listener=chat",
                "ratelimit: banned 2001:db8:1:2::7 seconds=300 listener=chat",
                "core: ratelimit: banned 192.0.2.9 seconds=300 listener=chat",
            ):
                log.write(f"2026-01-01T00:00:00.000000+00:00 chat roda[4711]: {message}\n")
            log.flush()
            self.expect_found(log.name, ["192.0.2.1", "2001:db8:1:2::7"])

    def test_nobody_is_banned_for_datagrams(self):
        """Anybody can write his address on them."""
        with tempfile.NamedTemporaryFile("w", suffix=".log") as log, Broker(
            listeners=TCP + UDP, plugins=limits(Refusals.REFUSING)
        ) as broker:
            with DatagramClient(broker.address("udp"), "bia") as bia:
                for i in range(20):
                    bia.send(f"said {i}")
                broker.wait_message(r"disconnected 127\.0\.0\.1 refusals=5 listener=udp$")
            From(broker, "127.0.0.1").close()
            broker.wait_message(r"refused datagrams of 127\.0\.0\.1 bucket=messages listener=udp$")
            log.write("\n".join(broker.messages()) + "\n")
            log.flush()
            self.expect_found(log.name, [])


# ---- many prefixes, in a network of their own --------------------------------------------------


class Prefixes(unittest.TestCase):
    """Run again in a network namespace, where every address of 2001:db8::/32 is this machine's."""

    COUNT = scaled(10000, 600)
    BATCH = 100
    SLACK_BYTES = 256 * KB

    def test_in_a_namespace(self):
        if IN_NAMESPACE in sys.argv:
            self.skipTest("this is the namespace")
        command = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
        for program in ("unshare", "ip"):
            if not shutil.which(program):
                self.skipTest(f"{program} is not installed")
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
            self.skipTest("this machine does not let us make a network namespace")
        done = subprocess.run(
            [*command, sys.executable, __file__, IN_NAMESPACE], check=False,
            capture_output=True, text=True, timeout=PATIENCE_S * 10,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        print(done.stdout, end="")

    @staticmethod
    def prefix(number):
        return f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::{number % 7 + 1:x}"

    def visit(self, broker, numbers):
        """One client of each prefix; all at once; each says something, reads the answer, leaves."""
        clients = [From(broker, self.prefix(number), listener="tcp6") for number in numbers]
        for client in clients:
            client.send("/ping here")
        for client in clients:
            client.expect(r"^\* pong \S+ \d+ here$")
            client.close()
        broker.wait_stats(lambda stats: stats["connections"] == 1, "all are gone")

    def visits(self, broker, start, count):
        for first in range(start, start + count, self.BATCH):
            self.visit(broker, range(first, first + self.BATCH))

    def in_namespace(self):
        for arguments in ("link set lo up", "-6 route add local 2001:db8::/32 dev lo"):
            subprocess.run(["ip", *arguments.split()], check=True)
        raise_descriptors()
        with Broker(
            workers=2,
            listeners=IPV6,
            # The defaults, but for everybody, from the start, and remembered longer than there is
            # room for; the lobby's presence is another test's.
            plugins="[plugin ratelimit]\nexempt =\nstart_grace = 0\naddress_table = 4096\n"
            "address_connects = 1/m burst 32\n[plugin rooms]\npresence_up_to = 0\n[plugin line]\n[plugin stats]\n",
        ) as broker:
            broker.stats()
            # Until the broker has what so many connections need, whoever they are.
            self.visits(broker, 1 << 20, scaled(3000, 300))
            before = broker.private_dirty_bytes()
            self.visits(broker, 0, self.COUNT)
            after = broker.private_dirty_bytes()
            stats = broker.stats()
            self.assertEqual(stats["ratelimit_table_buckets"], 4096)
            self.assertEqual(stats["ratelimit_refused_address_connects_total"], 0)
            if PLAIN:
                self.assertLess(after - before, self.SLACK_BYTES, "memory stays as it is")
                broker.wait_stats(
                    lambda stats: stats["ratelimit_table_replaced_total"] > 0,
                    "the table is too small for all of them, as the next sweep says",
                )
            # And the limits are there still, for who comes too often: /64, whatever follows.
            refused = 0
            for i in range(40):
                with From(broker, f"2001:db8:ffff:1::{i + 1:x}", listener="tcp6", welcome=False) as c:
                    refused += c.line().startswith("! closed: your address connects too fast")
            self.assertGreaterEqual(refused, 7)
            print(f"{self.COUNT} prefixes: Private_Dirty {before // KB} kB, then {after // KB} kB")


if __name__ == "__main__":
    if IN_NAMESPACE in sys.argv:
        Prefixes().in_namespace()
    else:
        unittest.main(verbosity=2)
