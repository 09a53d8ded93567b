#!/usr/bin/env python3
"""A machine that gives less than the broker wants: each refusal at start is one sentence with its
cause and remedy, and what goes short while it runs is waited for, without spinning."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from broker import BINARY, BUILD_KIND, PATIENCE_S, PLUGIN_DIR, PLUGINS, TCP, UNIX, Broker
from broker import SANITIZER
from clients import LineClient

HERE = Path(__file__).resolve().parent
TEST_PLUGINS = Path(os.environ["RODA_TEST_PLUGIN_DIR"])
NOBODY = 65534
# Turns of a worker that has next to nothing to do; one that spins makes a hundred thousand.
ENTERS_PER_S = 200


def enters_per_s(broker):
    """Over one second, which is the measurement."""
    before, started = broker.stats()["ring_enters_total"], time.monotonic()
    time.sleep(1.0)
    after = broker.stats()["ring_enters_total"]
    return (after - before) / (time.monotonic() - started)


class Descriptors(unittest.TestCase):
    def hold(self, client):
        client.send("hold")
        return int(client.expect(r"^! .*?(\d+) descriptors are held$").group(1))

    def test_none_left(self):
        """Who is here goes on; who comes waits, then is served; meanwhile nothing spins."""
        plugin = f"[plugin hold_descriptors]\npath = {TEST_PLUGINS}/hold_descriptors.so\n"
        with Broker(
            workers=1, listeners=TCP + UNIX, plugins=plugin + PLUGINS, descriptors=300
        ) as broker:
            with LineClient(broker, "ana") as ana, LineClient(broker, "bia", "unix") as bia:
                self.assertLess(enters_per_s(broker), ENTERS_PER_S)
                held = self.hold(ana)
                self.assertGreater(held, 100)
                waiting = [broker.connect("unix" if i % 2 else "tcp") for i in range(10)]
                broker.wait_stats(lambda stats: stats["accepts_paused_total"] >= 2, "pauses")
                rate = enters_per_s(broker)
                self.assertLess(rate, ENTERS_PER_S, "it spins")
                for i in range(20):
                    ana.send(f"still {i}")
                    bia.expect(rf"^lobby ana: still {i}$")
                ana.send("release")
                ana.expect(rf"^! .*{held} descriptors are given back$")
                for sock in waiting:
                    sock.settimeout(PATIENCE_S)
                    self.assertIn(b"* you are ", sock.recv(4096))
                    sock.close()
                # And again: a connection that ends gives its descriptor to one that waits.
                broker.wait_stats(lambda stats: stats["connections"] == 3, "the others are gone")
                self.hold(ana)
                pauses = broker.stats()["accepts_paused_total"]
                one = broker.connect()
                broker.wait_stats(
                    lambda stats: stats["accepts_paused_total"] > pauses, "another pause"
                )
                bia.close()
                one.settimeout(PATIENCE_S)
                self.assertIn(b"* you are ", one.recv(4096))
                one.close()
                ana.send("release")
                ana.expect(r"descriptors are given back$")

    def test_fewer_than_max_connections(self):
        """Not set, it is what fits, with a notice; who comes beyond is told."""
        with Broker(workers=1, listeners=TCP, descriptors=200) as broker:
            said = broker.wait_message(
                r"notice main: max_connections is (\d+) instead of 10000: .*LimitNOFILE"
            )
            most = int(said.group(1))
            self.assertLess(most, 200)
            clients = [LineClient(broker) for _ in range(most - 1)]  # and the one of stats
            broker.stats()
            extra = broker.connect()
            extra.settimeout(PATIENCE_S)
            last = b""
            try:
                while piece := extra.recv(4096):
                    last += piece
            except ConnectionResetError:
                pass
            self.assertNotIn(b"* you are", last)
            self.assertEqual(broker.stats()["connections_refused_full_total"], 1)
            extra.close()
            clients.pop().close()
            broker.wait_stats(lambda stats: stats["connections"] == most - 1, "one place is free")
            with LineClient(broker, "ana") as ana:
                ana.sync()
            for client in clients:
                client.close()

    def test_many_more_than_max_connections(self):
        """Files can be opened still: with several workers, too, and by whatever door they come."""
        with Broker(workers=3, listeners=TCP + UNIX, descriptors=260) as broker:
            said = broker.wait_message(r"notice main: max_connections is (\d+) instead of 10000")
            broker.stats()
            crowd = [broker.connect("unix" if i % 2 else "tcp") for i in range(400)]
            beyond = len(crowd) + 1 - int(said.group(1))
            stats = broker.wait_stats(
                lambda stats: stats["connections_refused_full_total"] >= beyond, "all have come"
            )
            self.assertEqual(stats["connections_refused_full_total"], beyond)
            self.assertLess(len(os.listdir(f"/proc/{broker.process.pid}/fd")), 260 - 20)
            for sock in crowd:
                sock.close()


class Refused(unittest.TestCase):
    """At start. Each has its own cause, so each its own sentence."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="roda-limits-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def start(self, *prefix, arguments=("--check",), workers=2):
        """(status, stderr) of the broker behind some other program."""
        conf = self.folder / "roda.conf"
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        conf.write_text(
            f"[core]\nworkers = {workers}\nstate_dir = {state}\n{TCP}[plugin rooms]\n[plugin line]\n"
        )
        for path in (self.folder, state):
            path.chmod(0o777)
        done = subprocess.run(
            [*(str(part) for part in prefix), BINARY, "-c", str(conf), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            env={**os.environ, "RODA_PLUGIN_DIR": PLUGIN_DIR},
        )
        self.assertIsNone(SANITIZER.search(done.stderr), done.stderr)
        return done.returncode, done.stderr

    def refused(self, pattern, *prefix, **options):
        """--check and a start say the same one sentence, and nothing was left behind."""
        for arguments in (("--check",), ()):
            status, stderr = self.start(*prefix, arguments=arguments, **options)
            self.assertEqual(status, 1, stderr)
            lines = [line for line in stderr.splitlines() if " notice main: [listener" not in line]
            self.assertEqual(len(lines), 1, stderr)
            self.assertRegex(lines[0], r"^roda: " + pattern)

    def launcher(self, error):
        return (sys.executable, HERE / "refuse_io_uring.py", error)

    def test_seccomp_eperm(self):
        self.refused(r"a seccomp filter refuses io_uring .*profile", *self.launcher("EPERM"))

    def test_seccomp_enosys(self):
        self.refused(r'io_uring is "not implemented" here.*seccomp', *self.launcher("ENOSYS"))

    def test_version_says_why_too(self):
        done = subprocess.run(
            [*(str(part) for part in self.launcher("EPERM")), BINARY, "--version"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"(?m)^io_uring: a seccomp filter refuses io_uring")

    def test_launcher_alone_changes_nothing(self):
        """What refuses is the filter and not how the test starts things."""
        status, stderr = self.start("env")
        self.assertEqual((status, stderr), (0, ""))

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("unshare"), "needs root and unshare")
    def test_sysctl(self):
        """The sysctl's value by a bind mount that only this process sees."""
        probe = ["unshare", "-m", "mount", "--bind", "/dev/null", "/proc/sys/kernel/io_uring_disabled"]
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            self.skipTest("no mount namespaces here")
        script = 'mount --bind "$1" /proc/sys/kernel/io_uring_disabled && shift && exec "$@"'
        for value, pattern in (
            ("2", r"io_uring is switched off on this machine \(sysctl .*= 2\): set it to 0"),
            ("0", r"a seccomp filter refuses io_uring"),
        ):
            with self.subTest(value=value):
                file = self.folder / f"disabled{value}"
                file.write_text(value + "\n")
                self.refused(
                    pattern, "unshare", "-m", "sh", "-c", script, "sh", file,
                    *self.launcher("EPERM"),
                )

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "needs root and setpriv")
    def test_memlock(self):
        """As a user without CAP_IPC_LOCK, whose limit is too small for the rings."""

        def someone(kilobytes):
            return (
                "prlimit",
                f"--memlock={kilobytes * 1024}:{kilobytes * 1024}",
                "setpriv",
                f"--reuid={NOBODY}",
                f"--regid={NOBODY}",
                "--clear-groups",
            )

        for path, right in ((BINARY, "-x"), (PLUGIN_DIR, "-r")):
            if subprocess.run([*someone(64), "test", right, path], check=False).returncode:
                self.skipTest(f"user {NOBODY} may not use {path}")
        status, stderr = self.start(*someone(8192))
        self.assertEqual(status, 0, stderr)
        self.refused(
            r"the rings of 16 workers need \d+ kB of locked memory and the limit is 64 kB .*"
            r"LimitMEMLOCK",
            *someone(64),
            workers=16,
        )

    def test_descriptors(self):
        """Too few even for the broker itself."""
        status, stderr = self.start("prlimit", "--nofile=60:60")
        self.assertEqual(status, 1, stderr)
        self.assertRegex(stderr, r"max_connections: only \d+ fit: .*LimitNOFILE")


class Idle(unittest.TestCase):
    def test_nothing_to_do(self):
        """A broker with people who say nothing makes next to no system calls."""
        with Broker(workers=4) as broker:
            clients = [LineClient(broker) for _ in range(20)]
            clients[0].sync()
            broker.stats()
            self.assertLess(enters_per_s(broker), 100)
            for client in clients:
                client.close()

    @unittest.skipIf(BUILD_KIND == "tsan", "its own thread wakes up by itself")
    def test_processor_time(self):
        with Broker(workers=4) as broker, LineClient(broker, "ana") as ana:
            ana.sync()
            before, started = broker.cpu_s(), time.monotonic()
            time.sleep(1.0)
            self.assertLess(broker.cpu_s() - before, 0.2 * (time.monotonic() - started))


if __name__ == "__main__":
    unittest.main(verbosity=2)
