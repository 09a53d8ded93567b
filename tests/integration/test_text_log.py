#!/usr/bin/env python3
"""Text files beside the segments: what they hold is what `roda-log export --format text` says, line
for line, also after kill -9 under load, after a full disk, and for whatever a room is called."""

import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from broker import BUILD_KIND, PATIENCE_S, PLUGINS, SANITIZER, TCP, UNIX, Broker, scaled, wait_until
from clients import LineClient, Pump

SEED = int(os.environ.get("RODA_TEXT_SEED", random.SystemRandom().randrange(1 << 32)))
ROUNDS = int(os.environ.get("RODA_TEXT_ROUNDS", scaled(8, 3)))
RODA_LOG = Path(os.environ["RODA_BUILD"]) / "tools" / "roda-log" / "roda-log"
LINE = re.compile(
    r"^(\d+) (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\S+) (\S+) (\S+) (\S+) (\S+) (.*)$"
)
LIBC = ctypes.CDLL(None, use_errno=True)


class TextLog(unittest.TestCase):
    def setUp(self):
        outside = tempfile.mkdtemp(prefix="roda-text-")
        self.addCleanup(shutil.rmtree, outside, ignore_errors=True)
        self.folder = Path(outside) / "state"
        self.folder.mkdir()
        self.text = self.folder / "text"
        self.random = random.Random(f"{SEED} {self.id()}")

    def broker(self, workers=2, log="", text=None, **options):
        section = f"[plugin log]\ndirectory = {self.folder}/log\ntext_directory = {text or self.text}\n"
        return Broker(
            workers=workers,
            listeners=TCP + UNIX,
            limits="send_queue = 16M\nsend_queues_total = 256M",
            plugins=PLUGINS + section + log,
            state_dir=self.folder,
            **options,
        )

    # ---- what there is ---------------------------------------------------------------------------

    def roda_log(self, *arguments):
        done = subprocess.run(
            [RODA_LOG, "-d", f"{self.folder}/log", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S * 4,
            check=False,
        )
        self.assertIsNone(SANITIZER.search(done.stderr.decode()), done.stderr)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode()

    def exported(self, room):
        private = ["--private"] if room.startswith("@") else []
        return self.roda_log("export", "--format", "text", "--room", room, *private)

    def written(self, folder):
        """All of a room's text files, one behind the other."""
        files = sorted((self.text / folder).glob("*.log")) if (self.text / folder).is_dir() else []
        for file in files:
            self.assertRegex(file.name, r"^\d{4}-\d\d-\d\d\.log$")
            for line in file.read_text().splitlines():
                self.assertEqual(line.split(" ")[1][:10], file.name[:10], "a line of another day")
        return "".join(file.read_text() for file in files)

    def wait_agree(self, room, folder=None):
        """Until the files of a room are what the segments have; returns that."""
        found = {}

        def agree():
            found["text"], found["log"] = self.written(folder or room), self.exported(room)
            return found["text"] == found["log"]

        try:
            wait_until(agree, f"{room}: text and segments agree", every_s=0.1)
        except AssertionError:
            text, log = (found[name].splitlines() for name in ("text", "log"))
            both = next((i for i, (a, b) in enumerate(zip(text, log)) if a != b), min(len(text), len(log)))
            raise AssertionError(
                f"{room}: {len(text)} lines, {len(log)} in the segments; from line {both} on:\n"
                + "\n".join(text[both : both + 5])
                + "\n-- segments:\n"
                + "\n".join(log[both : both + 5])
            ) from None
        return found["text"]

    def marks(self):
        return sorted(self.text.glob(".repair-*"))

    def fields(self, text):
        return [LINE.match(line).groups() for line in text.splitlines()]

    def say(self, client, room, text):
        client.send(f"/msg #{room} {text}")

    # ---- an ordinary day --------------------------------------------------------------------------

    def test_lines(self):
        with self.broker() as broker:
            with LineClient(broker, "ana") as ana, LineClient(broker, "bob", "unix") as bob:
                ana.send("hello, all")
                ana.send("/me waves")
                ana.send("/join ops")
                ana.send("/topic a \\ topic")
                ana.sync()
                bob.send("/join ops")
                bob.send("tab\tand \x02bold\x02 and \u2603")
                bob.send("185 2026-11-24T14:03:05.123Z ops ana line text - forged")
                bob.sync()
                ana.send("/kick bob enough")
                ana.sync()
                lobby = self.fields(self.wait_agree("lobby"))
                ops = self.fields(self.wait_agree("ops"))
        self.assertEqual(
            [line[2:] for line in lobby],
            [
                ("lobby", "ana", "line", "text", "-", "hello, all"),
                ("lobby", "ana", "line", "action", "-", "waves"),
            ],
        )
        self.assertEqual(
            [line[2:] for line in ops],
            [
                ("ops", "ana", "line", "topic", "-", "a \\\\ topic"),
                ("ops", "bob", "line", "text", "-", "tab\\x09and \\x02bold\\x02 and \u2603"),
                (
                    "ops",
                    "bob",
                    "line",
                    "text",
                    "-",
                    "185 2026-11-24T14:03:05.123Z ops ana line text - forged",
                ),
                ("ops", "ana", "line", "kick", "bob", "enough"),
            ],
        )
        self.assertFalse(self.marks())

    def test_odd_names(self):
        """Each room has a folder of its own, below text_directory, with a name that any file system
        takes."""
        emoji = "\U0001f4a9" * 16
        rooms = {
            "CON": "%63on",
            "con.": "con%2e",
            "com1": "%63om1",
            "a/b": "a%2fb",
            "x..": "x%2e%2e",
            "_-_": "_-_",
            emoji: "%f0%9f%92%a9" * 16,
            "caf\u00e9": "caf%c3%a9",
            "caf\u00c9": "caf%c3%89",
            "e\u0301t": "%c3%a9t",  # NFC has one letter for it
            "[x]\\^{}|`": "%5bx%5d%5c%5e%7b%7d%7c%60",
            "Mixed-Case": "mixed-case",
        }
        with self.broker(workers=4) as broker, LineClient(broker, "ana") as ana:
            for name in ("../../etc/passwd", "..", "/etc", "a/../b", ".hidden"):
                ana.send(f"/join {name}")  # the core's rule for rooms lets none of them in
                ana.expect(r"^! ")
            for count, room in enumerate(rooms):
                ana.send(f"/join {room}")
                self.say(ana, room, f"word {count}")
            ana.sync()
            for count, (room, folder) in enumerate(rooms.items()):
                text = self.wait_agree(room, folder)
                self.assertTrue(text.endswith(f"text - word {count}\n"), text)
        self.assertEqual(sorted(path.name for path in self.text.iterdir()), sorted(rooms.values()))
        self.assertEqual(list(self.folder.parent.iterdir()), [self.folder])

    def open_texts(self, broker):
        count = 0
        for link in Path(f"/proc/{broker.process.pid}/fd").iterdir():
            try:
                count += os.readlink(link).startswith(f"{self.text}/")
            except FileNotFoundError:  # closed meanwhile
                pass
        return count

    def test_few_files(self):
        """More rooms than files that may be open."""
        rooms = [f"room{count}" for count in range(40)]
        with self.broker(workers=1, log="text_files = 16\n") as broker:
            with LineClient(broker, "ana") as ana:
                for room in rooms:
                    ana.send(f"/join {room}")
                for count in range(scaled(2000, 400)):
                    self.say(ana, rooms[count * 7 % len(rooms)], f"line {count}")
                    if count % 50 == 0:
                        ana.sync()
                        # A close waits in the pool behind which the next open waits.
                        self.assertLessEqual(self.open_texts(broker), 2 * 16)
                ana.sync()
                for room in rooms:
                    self.wait_agree(room)

    # ---- rotation ---------------------------------------------------------------------------------

    def test_rotation(self):
        with self.broker() as broker, LineClient(broker, "ana") as ana:
            ana.send("before")
            ana.sync()
            first = self.wait_agree("lobby")
            file = next((self.text / "lobby").glob("*.log"))
            moved = file.with_suffix(".log.1")
            file.rename(moved)
            ana.send("to the moved file")
            ana.sync()
            wait_until(lambda: moved.read_text().count("\n") == 2, "the moved file is still written")
            broker.signal(signal.SIGUSR1)
            count = 0

            def reopened():
                nonlocal count
                count += 1
                ana.send(f"after {count}")
                ana.sync()
                return file.exists()

            wait_until(reopened, "a file of the old name")
            exported = self.exported("lobby")
            wait_until(
                lambda: moved.read_text() + file.read_text() == self.exported("lobby"),
                "both files together have all",
            )
            self.assertTrue(exported.startswith(first))

    # ---- what is excluded ---------------------------------------------------------------------------

    def on_disk(self, word):
        """Where on the disk, below the broker's folders, a word stands."""
        found = []
        for path in self.folder.rglob("*"):
            if word in path.name or (path.is_file() and word.encode() in path.read_bytes()):
                found.append(path)
        return found

    def test_excluded(self):
        with self.broker(log="rooms = *, !secret, !hidden*\n") as broker:
            with LineClient(broker, "ana") as ana, LineClient(broker, "bob", "unix") as bob:
                for room in ("secret", "hiddenplace", "open"):
                    for who in (ana, bob):
                        who.send(f"/join {room}")
                        who.sync()
                    self.say(ana, room, f"unspeakable in {room}" if room != "open" else "speakable")
                    ana.send(f"/room {room}")
                    ana.send("/topic unspeakable" if room != "open" else "/topic fine")
                    ana.sync()
                    bob.sync()
                bob.send("/msg ana unspeakable to you")  # private = no
                bob.sync()
                self.assertEqual(self.wait_agree("open").count("\n"), 2)
                self.assertFalse(self.on_disk("unspeakable"))
        for word in ("unspeakable", "secret", "hiddenplace", "%40"):
            self.assertFalse(
                [path for path in self.on_disk(word) if path.name != "roda.conf"], word
            )
        self.assertTrue(self.on_disk("speakable"))

    def test_excluded_from_now_on(self):
        """What was kept before stays as long as keep says; nothing is added."""
        for rooms in ("*", "*, !secret"):
            log = f"rooms = {rooms}\nprivate = {'no' if 'secret' in rooms else 'yes'}\n"
            broker = self.broker(2, log)
            try:
                with LineClient(broker, "ana") as ana, LineClient(broker, "bob", "unix") as bob:
                    word = "unspeakable" if "secret" in rooms else "harmless"
                    ana.send("/join secret")
                    self.say(ana, "secret", word)
                    ana.send("/topic " + word)
                    ana.send("/msg bob " + word)
                    ana.send("/history 10")
                    ana.sync()
                    bob.sync()
                    self.say(ana, "lobby", "the end of " + word[::-1])
                    ana.sync()
                    wait_until(lambda word=word: self.on_disk(word[::-1]), "the lobby's line")
                    wait_until(lambda: not self.marks(), "all repairs are done")
            finally:
                broker.kill()  # what is repaired at the next start is kept, and nothing else
        with self.broker(log=log) as broker:
            wait_until(lambda: not self.marks(), "all repairs are done")
            self.assertIn("elbakaepsnu", self.wait_agree("lobby"))
        self.assertFalse(self.on_disk("unspeakable"))
        self.assertTrue(self.on_disk("harmless"))

    def test_addresses(self):
        """In the segments alone, and only if asked for; never shown to anybody."""
        for asked in (False, True):
            with self.broker(log="addresses = yes\n" if asked else "") as broker:
                with LineClient(broker, "ana") as ana, LineClient(broker, "bob", "unix") as bob:
                    for client in (ana, bob):
                        client.send(f"hello from {client.nick}, {asked}")
                        client.sync()
                    ana.send("/topic hello")
                    ana.send("/history 10")
                    ana.sync()
                    self.wait_agree("lobby")
                    for client in (ana, bob):
                        self.assertNotIn("127.0.0.1", "\n".join(client.transcript))
                        self.assertNotIn(".address", "\n".join(client.transcript))
            found = self.on_disk("127.0.0.1 port") + self.on_disk(".address")
            self.assertEqual({path.suffix for path in found}, {".segment"} if asked else set())
        tags = [json.loads(line)["tags"] for line in self.roda_log("export").splitlines()]
        ana = r'\[\["\.address", "127\.0\.0\.1 port \d+"\]\]'
        bob = r'\[\["\.address", "unix uid \d+"\]\]'
        self.assertRegex(json.dumps(tags), rf"^\[\[\], \[\], \[\], {ana}, {bob}, {ana}\]$")

    def private(self):
        """All lines of ana and bia, one behind the other, from all of the folders they have."""
        return "".join(self.written(path.name) for path in sorted(self.text.glob("%40ana%2cbia*")))

    def wait_private(self, count):
        wait_until(lambda: self.private().count("\n") >= count, f"{count} lines")
        lines = self.private().splitlines()
        self.assertEqual(sorted(lines), sorted(self.exported("@ana,bia").splitlines()))
        self.assertEqual(len(lines), count)
        return self.fields("\n".join(sorted(lines, key=lambda line: line.split(" ")[1])))

    def test_private(self):
        for round, workers in enumerate((1, 3), 1):
            with self.broker(workers, log="private = yes\n") as broker:
                with LineClient(broker, "Ana") as ana, LineClient(broker, "bia", "unix") as bia:
                    ana.send("/msg bia between us")
                    ana.sync()
                    bia.send("/msg ana and us alone")
                    bia.sync()
                    lines = self.wait_private(2 * round)
        self.assertEqual({line[2] for line in lines}, {"@ana,bia"})
        self.assertEqual([line[3] for line in lines[:2]], ["Ana", "bia"])
        self.assertEqual([line[7] for line in lines[:2]], ["between us", "and us alone"])

    def test_private_people_come_again(self):
        """Who comes again is another person with the same nick, and their home another worker."""
        rounds, expected = 12, []
        for sync in ("always", "interval"):
            broker = self.broker(4, log=f"private = yes\nsync = {sync}\n")
            try:
                wait_until(lambda: not self.marks(), "all repairs are done")
                with LineClient(broker, "bia", "unix") as bia:
                    for count in range(rounds):
                        with LineClient(broker, "ana", "unix") as ana:
                            for line in range(3):
                                ana.send(f"/msg bia {count} {line} " + "x" * self.random.randint(0, 40))
                                ana.sync()
                                bia.send(f"/msg ana {count} {line}")
                                bia.sync()
                                expected += [("ana", f"{count} {line}"), ("bia", f"{count} {line}")]
                            ana.send("/quit")
                            ana.rest()
                        bia.expect(r"^\* ana (quit|left)")
                lines = self.wait_private(len(expected))
                said = [(line[3], line[7].rstrip("x ")) for line in lines]
                self.assertEqual(sorted(said), sorted(expected))
            finally:
                broker.kill()

    # ---- crashes ------------------------------------------------------------------------------------

    ROOMS = ["lobby", "ops", "caf\u00e9", "CON", "red", "blue"]
    FOLDERS = ["lobby", "ops", "caf%c3%a9", "%63on", "red", "blue"]

    def talk(self, broker, done, count):
        """A crowd in all rooms, until done(lines received) says so."""
        received = 0
        with Pump() as pump:
            peers = []
            for index in range(4):
                peer = pump.add(broker.connect("unix" if index % 2 else "tcp"), f"r{count}c{index}")
                pump.send(peer, f"/nick {peer.name}\n".encode())
                for room in self.ROOMS[1:]:
                    pump.send(peer, f"/join {room}\n".encode())
                peers.append(peer)
            pump.settle(peers)

            def on_data(_peer, data):
                nonlocal received
                received += data.count(b"\n")

            pump.on_data = on_data
            deadline = time.monotonic() + PATIENCE_S * 2
            while not done(received):
                for peer in peers:
                    if len(peer.unsent) > 20000:
                        continue
                    room = self.random.choice(self.ROOMS)
                    padding = "x" * self.random.choice((0, 0, 10, 100, 1000, 3000))
                    words = self.random.choice(("word", "b\\s", "\u2603", "tab\there"))
                    pump.send(peer, f"/msg #{room} {received} {words} {padding}\n".encode())
                pump.step(0.5)
                self.assertLess(time.monotonic(), deadline, f"{received} lines")
            broker.process.kill()
            broker.process.wait()

    def check_all(self, broker):
        wait_until(lambda: not self.marks(), "all repairs are done", patience_s=PATIENCE_S * 2)
        for room, folder in zip(self.ROOMS, self.FOLDERS):
            self.wait_agree(room, folder)
        broker.check_findings()

    def killed_again_and_again(self, sync):
        log = f"sync = {sync}\nsync_interval = 50ms\nsegment_bytes = 1M\n"
        lines = 0
        for count in range(ROUNDS):
            broker = self.broker(self.random.randint(1, 4), log)
            try:
                if self.random.random() < 0.6:
                    self.check_all(broker)
                # else it is killed again while it may still be repairing
                most = self.random.randint(1, scaled(8000, 800))
                # What was said in the last milliseconds may be lost: that must not be all.
                until = time.monotonic() + (0 if count else 0.5)
                self.talk(
                    broker,
                    lambda received, most=most, until=until: received >= most and time.monotonic() > until,
                    count,
                )
            finally:
                broker.kill()
            if self.random.random() < 0.3:
                self.spoil()
        with self.broker(log=log) as broker:
            self.check_all(broker)
            with LineClient(broker, "ana") as ana:
                ana.send("still here")
                ana.sync()
                self.check_all(broker)
        for room, folder in zip(self.ROOMS, self.FOLDERS):
            text = self.wait_agree(room, folder)  # the broker has ended
            lines += text.count("\n")
            numbers = [int(line[0]) for line in self.fields(text)]
            self.assertEqual(numbers, sorted(set(numbers)), f"{room}: out of order, or twice")
        self.assertGreater(lines, ROUNDS * 10)

    def spoil(self):
        """What a power cut may do to the end of a text file."""
        for folder in self.FOLDERS:
            files = sorted((self.text / folder).glob("*.log"))
            if not files:
                continue
            size = files[-1].stat().st_size
            with files[-1].open("r+b") as file:
                if self.random.random() < 0.5:
                    file.truncate(self.random.randint(max(0, size - 5000), size))
                else:
                    file.seek(max(0, size - self.random.randint(1, 5000)))
                    file.write(b"\0" * self.random.randint(1, 600))

    def test_killed_interval(self):
        self.repeatable(lambda: self.killed_again_and_again("interval"))

    def test_killed_always(self):
        self.repeatable(lambda: self.killed_again_and_again("always"))

    def test_killed_never(self):
        self.repeatable(lambda: self.killed_again_and_again("never"))

    def repeatable(self, run):
        try:
            run()
        except BaseException:
            print(f"\nrepeat with RODA_TEXT_SEED={SEED} ({BUILD_KIND})", flush=True)
            raise

    def test_read_while_written(self):
        """roda-log on a busy broker's files, through many segments: whole, and without a gap."""
        least = scaled(12, 4)  # megabytes, one to a segment
        with self.broker(log="segment_bytes = 1M\nsync = interval\n") as broker:
            ended = threading.Event()
            addresses = [broker.connect("unix") for _ in range(2)]

            def talk():
                with Pump() as pump:
                    peers = [pump.add(connection, f"p{i}") for i, connection in enumerate(addresses)]
                    for peer in peers:
                        pump.send(peer, f"/nick {peer.name}\n".encode())
                    while not ended.is_set():
                        for peer in peers:
                            if len(peer.unsent) < 50000:
                                pump.send(peer, b"x" * 900 + b"\n")
                        pump.step(0.5)

            followed = self.folder / "followed"
            command = [RODA_LOG, "-d", f"{self.folder}/log", "export", "-f", "--format", "text"]
            with followed.open("wb") as output:
                follower = subprocess.Popen(command, stdout=output)
            self.addCleanup(follower.wait)
            self.addCleanup(follower.kill)
            talking = threading.Thread(target=talk)
            talking.start()
            try:
                looks = 0
                while sum(path.stat().st_size for path in (self.folder / "log").iterdir()) < least << 20 or looks < 3:
                    self.roda_log("verify")
                    numbers = [int(line.split(" ", 1)[0]) for line in self.exported("lobby").splitlines()]
                    self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
                    looks += 1
            finally:
                ended.set()
                talking.join()
            wait_until(lambda: followed.read_text() == self.exported("lobby"), "the follower has all", every_s=0.2)
            follower.send_signal(signal.SIGTERM)
            self.assertEqual(follower.wait(PATIENCE_S), 0)

    def test_good_ends(self):
        """An end in order leaves whole files, and nothing to repair."""
        for count in range(3):
            with self.broker(count + 1) as broker, LineClient(broker, "ana") as ana:
                for line in range(scaled(500, 100)):
                    ana.send(f"line {line}")
                ana.sync()
            self.assertFalse(self.marks())
            self.assertEqual(self.written("lobby"), self.exported("lobby"))

    # ---- a full disk ----------------------------------------------------------------------------------

    def test_full_disk(self):
        """The text files are on a disk of their own, which is full for a while."""
        if os.geteuid() or LIBC.unshare(0x00020000) != 0:
            self.skipTest("mounting a tmpfs needs root")
        disk = self.folder / "disk"
        disk.mkdir()
        LIBC.mount(b"none", b"/", None, ctypes.c_ulong(0x44000), None)
        if LIBC.mount(b"tmpfs", bytes(disk), b"tmpfs", ctypes.c_ulong(0), b"size=2M") != 0:
            self.skipTest("mounting is not permitted here")
        self.addCleanup(LIBC.umount2, bytes(disk), 2)
        self.text = disk / "text"
        filler = disk / "filler"
        with self.broker() as broker, LineClient(broker, "ana") as ana:
            ana.send("fits")
            ana.sync()
            self.wait_agree("lobby")
            with filler.open("ab", buffering=0) as file:
                for piece in (65536, 4096, 1):
                    try:
                        while True:
                            file.write(b"\0" * piece)
                    except OSError as problem:
                        self.assertEqual(problem.errno, 28)

            def lost():
                ana.send("lost for now " + "x" * 2000)
                ana.sync()
                return broker.stats().get("log_text_lost_total", 0)

            wait_until(lost, "lines that cannot be written")
            broker.wait_message(r"text file \S+ cannot be written: No space left on device")
            self.assertNotEqual(self.written("lobby"), self.exported("lobby"))
            self.assertTrue(self.marks())
            filler.unlink()
            self.wait_agree("lobby")
            wait_until(lambda: not self.marks(), "all repairs are done")
            broker.wait_message("text files are whole again")
            ana.send("fits again")
            ana.sync()
            self.wait_agree("lobby")


if __name__ == "__main__":
    unittest.main(verbosity=2)
