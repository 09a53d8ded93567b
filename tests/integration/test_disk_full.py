#!/usr/bin/env python3
"""A full disk is an ordinary state: durable rooms refuse with a clear word, the others go on, and when
there is space again all is as before, without a restart. Nothing that was acknowledged is lost.

The log's directory is a small tmpfs in a mount namespace of this process alone."""

import ctypes
import os
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

import history
from broker import PATIENCE_S, PLUGINS, TCP, UNIX, Broker, wait_until
from clients import LineClient

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 0x4000 | 0x40000
DISK_BYTES = 48 << 20
LONG = "x" * 3500
MESSAGES_MAX = 20000  # until the disk must have been noticed to be full
LOG_TOOL = Path(os.environ["RODA_BUILD"]) / "tools" / "roda-log" / "roda-log"
REFUSED = r"^! ops: not stored: (No space left on device|the disk is full); nothing was sent"


def mount(source, target, kind, flags, data=b""):
    if LIBC.mount(source, bytes(target), kind, ctypes.c_ulong(flags), data) != 0:
        raise OSError(ctypes.get_errno(), "mount")


class Disk:
    """A tmpfs and a file that fills it."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="roda-disk-"))
        mount(b"tmpfs", self.folder, b"tmpfs", 0, b"size=%d" % DISK_BYTES)
        self.filler = self.folder / "filler"

    def fill(self):
        with self.filler.open("ab", buffering=0) as file:
            for piece in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(b"\0" * piece)
                except OSError as problem:
                    if problem.errno != 28:
                        raise

    def free(self):
        self.filler.unlink()

    def closed_segments(self):
        """All but each partition's newest: the tail, or the one that was prepared to follow it."""
        files = sorted((self.folder / "log").glob("*.segment"))
        return [a for a, b in zip(files, files[1:]) if a.name[:2] == b.name[:2]]

    def remove(self):
        LIBC.umount2(bytes(self.folder), 2)
        self.folder.rmdir()


def why_not():
    """Why this machine cannot do it, or None. From here on mounts are this process's own."""
    if os.geteuid():
        return "mounting a tmpfs needs root"
    if LIBC.unshare(CLONE_NEWNS) != 0:
        return "no mount namespaces here"
    try:
        mount(b"none", b"/", None, MS_REC_PRIVATE, None)
        Disk().remove()
    except OSError as problem:
        return f"mounting is not permitted here: {problem}"
    return None


class Speaker(LineClient):
    """Says lines one by one and knows what became of each: {room: {number: text}}, refused texts."""

    def __init__(self, broker, nick, rooms):
        super().__init__(broker, nick, numbers=True)
        self.said = {room: {} for room in rooms}
        self.refused = {room: [] for room in rooms}
        self.count = 0
        for room in rooms[1:]:
            self.send(f"/join {room}")
        self.sync()

    def say(self, room, padding=""):
        """The number, or None: it was refused."""
        self.count += 1
        text = f"{self.nick}.{self.count}.{room} {padding}".strip()
        self.send(f"/msg #{room} {text}")
        match = self.expect(rf"^(?:\* (\d+) {room}$|! .*)")
        if match.group(1) is None:
            self.refused[room].append((text, match.group(0)))
            return None
        self.said[room][int(match.group(1))] = text
        return int(match.group(1))


class Follower:
    """roda-log -f."""

    def __init__(self, folder):
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [LOG_TOOL, "-d", folder, "-f"], stdout=self.out, stderr=self.err
        )
        self.errors = None

    @staticmethod
    def read(file):
        size = os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), size, 0).decode()

    def wait(self, text):
        wait_until(lambda: text in self.read(self.out), f"roda-log shows {text}")

    def end(self):
        """The lines without their times."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE_S)
        self.errors = self.read(self.err)
        return {line[line.index(" ") :] for line in self.read(self.out).splitlines()}

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        self.process.kill()
        self.process.wait()
        self.out.close()
        self.err.close()


REASON = why_not()


@unittest.skipIf(REASON, REASON)
class Full(unittest.TestCase):
    rooms = ["lobby", "ops"]

    def setUp(self):
        self.disk = Disk()
        self.addCleanup(self.disk.remove)

    def broker(self, more="segment_bytes = 1M\n", **options):
        log = (
            f"[plugin log]\ndirectory = {self.disk.folder}/log\n{more}"
            "sync = interval\nsync_interval = 50ms\nsync_rooms = always: ops\n"
        )
        return Broker(workers=2, listeners=TCP + UNIX, plugins=PLUGINS + log, **options)

    def check_history(self, broker, *speakers):
        with LineClient(broker, "reader", "unix", numbers=True) as reader:
            for room in self.rooms:
                if room != "lobby":
                    reader.send(f"/join {room}")
                    reader.sync()
                seen = {}
                for speaker in speakers:
                    seen.update(speaker.said[room])
                kept, lost, _ = history.read_since(reader, room, 0)
                history.check(seen, room == "ops", kept, lost, room)
                for speaker in speakers:
                    for text, _ in speaker.refused[room]:
                        self.assertNotIn(text, kept.values(), "refused, and in history")

    def check_next_life(self, ana):
        with self.broker() as broker, Speaker(broker, "bia", self.rooms) as bia:
            self.assertTrue(bia.say("ops"))
            self.assertTrue(bia.say("lobby"))
            self.check_history(broker, ana, bia)
            for room in self.rooms:
                self.assertGreater(min(bia.said[room]), max(ana.said[room]), "used again")

    def talk_until_full(self, broker, ana):
        """Long lines in both rooms until both partitions have met the full disk."""
        for _ in range(MESSAGES_MAX):
            ana.say("ops", LONG)
            ana.say("lobby", LONG)
            if ana.refused["ops"] and broker.stats()["log_unlogged_total"]:
                return
        self.fail("the disk is full, and nobody notices")

    def test_full_and_free(self):
        with self.broker(expect_status=-9) as broker:
            with Speaker(broker, "ana", self.rooms) as ana, LineClient(broker, "bob") as bob:
                bob.send("/join ops")
                bob.expect(r"^\* you are bob in ops")
                for _ in range(20):
                    self.assertTrue(ana.say("ops"))
                    self.assertTrue(ana.say("lobby"))
                self.disk.fill()
                self.talk_until_full(broker, ana)
                broker.wait_message(r"No space left on device; durable rooms refuse")
                # Now nothing more goes into ops, and all of it into lobby.
                for _ in range(5):
                    self.assertIsNone(ana.say("ops"))
                    self.assertTrue(ana.say("lobby"))
                for text, answer in ana.refused["ops"]:
                    self.assertRegex(answer, REFUSED, text)
                self.assertGreater(broker.stats()["log_partitions_broken"], 0)
                self.disk.free()
                wait_until(lambda: ana.say("ops"), "ops takes messages again")
                broker.wait_stats(lambda s: s["log_partitions_broken"] == 0, "all is well")
                broker.wait_message(r"can be written again")
                for _ in range(20):
                    self.assertTrue(ana.say("ops"))
                    self.assertTrue(ana.say("lobby"))
                # Who listened was shown all that was accepted, and nothing that was refused.
                ana.sync()
                bob.sync()
                heard = [line for line in bob.transcript if " ana: " in line]
                for room in self.rooms:
                    texts = [line.split(": ", 1)[1] for line in heard if line.startswith(room)]
                    self.assertEqual(texts, list(ana.said[room].values()))
                self.check_history(broker, ana)
            broker.process.kill()
        self.check_next_life(ana)

    def test_followed(self):
        """Who follows the log meanwhile is told of no damage, as there is none, and misses nothing."""
        with self.broker() as broker, Speaker(broker, "ana", self.rooms) as ana:
            self.assertTrue(ana.say("ops"))
            with Follower(self.disk.folder / "log") as follower:
                for _ in range(20):
                    self.assertTrue(ana.say("ops"))
                self.disk.fill()
                self.talk_until_full(broker, ana)
                self.disk.free()
                wait_until(lambda: ana.say("ops"), "ops takes messages again")
                broker.wait_stats(lambda s: s["log_partitions_broken"] == 0, "all is well")
                last = {}
                for _ in range(400):  # into the next segment
                    last = {room: ana.say(room, LONG) for room in self.rooms}
                for room in self.rooms:
                    follower.wait(f" {room} {last[room]} ana: ")
                shown = follower.end()
            wanted = [f" ops {number} ana: {text}" for number, text in ana.said["ops"].items()]
            self.assertEqual([line for line in wanted if line not in shown], [])
            self.assertEqual(follower.errors, "")

    def test_what_is_to_go_makes_room(self):
        """A disk that is full of what keep will remove heals without anybody."""
        with self.broker("segment_bytes = 1M\nkeep = 5s\n") as broker:
            with Speaker(broker, "ana", self.rooms) as ana:
                while len(self.disk.closed_segments()) < 4:  # perhaps the tails are among them
                    self.assertTrue(ana.say("ops", LONG))
                    self.assertTrue(ana.say("lobby", LONG))
                self.disk.fill()
                self.talk_until_full(broker, ana)
                self.assertGreater(broker.stats()["log_partitions_broken"], 0)
                wait_until(lambda: ana.say("ops"), "ops takes messages again", every_s=0.1)
                broker.wait_stats(lambda s: s["log_partitions_broken"] == 0, "all is well")
                self.assertTrue(ana.say("ops"))

    def test_closed_segments_hold_no_spare_space(self):
        """What was set aside for a segment and not used is free when the next one takes over."""

        def spare():
            files = self.disk.closed_segments()
            return [
                file.name for file in files if file.stat().st_blocks * 512 > file.stat().st_size + 8192
            ]

        with self.broker("segment_age = 1s\n") as broker, Speaker(broker, "ana", self.rooms) as ana:
            for _ in range(3):
                before = len(self.disk.closed_segments())
                for _ in range(30):
                    self.assertTrue(ana.say("ops", LONG))
                wait_until(lambda: len(self.disk.closed_segments()) > before, "the next segment")
            broker.wait_stats(lambda s: s["log_waiting"] == 0, "nothing under way")
            # Of the newest two, one may still be the tail, and the other one be prepared.
            wait_until(lambda: len(spare()) <= 1, "the space of closed segments is free again")

    def test_kill_while_full(self):
        """What was acknowledged before is there after a start with space."""
        with self.broker(expect_status=-9) as broker:
            with Speaker(broker, "ana", self.rooms) as ana:
                for _ in range(20):
                    self.assertTrue(ana.say("ops"))
                    self.assertTrue(ana.say("lobby"))
                self.disk.fill()
                self.talk_until_full(broker, ana)
                broker.process.kill()
        # No start without a place to write to, and the reason is said.
        with self.broker(ready=False, expect_status=1) as full:
            full.wait_message(r"cannot be opened: No space left on device; make room")
            self.assertEqual(full.wait_end(), 1, full.text())
        self.disk.free()
        self.check_next_life(ana)


if __name__ == "__main__":
    unittest.main(verbosity=2)
