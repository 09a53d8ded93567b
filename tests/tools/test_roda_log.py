#!/usr/bin/env python3
"""roda-log on segments that tests/tools/log_format.py writes: another program after the same document."""

import copy
import errno
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import log_format
from log_format import DIRECT, KICK, MODE, NOTICE, RENAME, TOPIC, Partition, partition_of

SOURCE = Path(os.environ.get("RODA_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("RODA_BUILD", SOURCE / "build"))
TOOL = os.environ.get("RODA_LOG_BINARY", str(BUILD / "tools" / "roda-log" / "roda-log"))

SECOND = 1_000_000_000
# 2026-11-24T03:15:00Z
T0 = 1795490100 * SECOND


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="roda-log-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def complete(self):
        """A log has all partitions: those that the test does not speak of are empty."""
        there = {path.name[:2] for path in self.folder.glob("*.segment")}
        for partition in range(16):
            if there and f"{partition:02d}" not in there:
                Partition(self.folder, partition)

    def run_tool(self, *arguments, status=0, complete=True):
        if complete and "verify" in arguments and self.folder.is_dir():
            self.complete()
        run = subprocess.run(
            [TOOL, "-d", self.folder, *arguments], capture_output=True, timeout=120, check=False
        )
        text = run.stdout.decode() + "\n" + run.stderr.decode()
        self.assertEqual(run.returncode, status, text)
        self.errors = run.stderr.decode()
        if status == 0 and "--progress" not in arguments:
            self.assertEqual(self.errors, "")
        return run.stdout.decode()

    def lines(self, *arguments, status=0):
        return self.run_tool(*arguments, status=status).splitlines()

    def texts(self, *arguments, status=0):
        """The last word of each line: what the tests say is one word."""
        return [line.split(" ")[-1] for line in self.lines(*arguments, status=status)]


class Print(Case):
    def test_one_line_per_message(self):
        log = Partition(self.folder)
        log.say("Lobby", "oi, bom dia", T0 + 123_456_789)
        log.say("Lobby", "waves", T0 + SECOND, flags=log_format.ACTION)
        log.say("Lobby", "backup done", T0 + 2 * SECOND, kind=NOTICE, nick="cron-job")
        log.say("Lobby", "Welcome, all", T0 + 3 * SECOND, kind=TOPIC)
        log.say("Lobby", "too loud", T0 + 4 * SECOND, kind=KICK, subject="bob")
        log.say("Lobby", "+o", T0 + 5 * SECOND, kind=MODE, subject="bob")
        log.say("Lobby", "hall", T0 + 6 * SECOND, kind=RENAME, nick="")
        log.say("Lobby", "later", T0 + 7 * SECOND, kind=9, subject="thing")
        expected = [
            "2026-11-24T03:15:00.123Z Lobby 1 bia: oi, bom dia",
            "2026-11-24T03:15:01.000Z Lobby 2 bia* waves",
            "2026-11-24T03:15:02.000Z Lobby 3 -cron-job- backup done",
            "2026-11-24T03:15:03.000Z Lobby 4 bia! topic: Welcome, all",
            "2026-11-24T03:15:04.000Z Lobby 5 bia! kick bob: too loud",
            "2026-11-24T03:15:05.000Z Lobby 6 bia! mode +o bob",
            "2026-11-24T03:15:06.000Z Lobby 7 *! rename: hall",
            "2026-11-24T03:15:07.000Z Lobby 8 bia! kind9 thing: later",
        ]
        self.assertEqual(self.lines(), expected)
        self.assertEqual(self.lines("print"), expected)

    def test_text_is_escaped(self):
        log = Partition(self.folder)
        text = "a\nb\\n\x1b[2J\x7f\u0085\u2028\u202e \u00e9\U0001f600\ttab"
        log.say("lobby", text, T0, flags=log_format.MULTILINE)
        shown = r"a\nb\\n\x1b[2J\x7f\xc2\x85\xe2\x80\xa8\xe2\x80\xae é😀\x09tab"
        self.assertEqual(self.lines(), [f"2026-11-24T03:15:00.000Z lobby 1 bia: {shown}"])

    def test_no_field_can_be_forged(self):
        log = Partition(self.folder)
        log.say("lobby", "x", T0, nick="bia 2: y\n", to="a b\nc")
        self.assertEqual(self.lines(), ["2026-11-24T03:15:00.000Z a\\x20b\\nc 1 bia\\x202:\\x20y\\n: x"])

    def test_partitions_are_merged_by_time(self):
        logs = [Partition(self.folder, partition) for partition in range(16)]
        chance = random.Random(1)
        expected = []
        for i in range(2000):
            partition = chance.randrange(16)
            at = T0 + i * 1000
            logs[partition].say(f"room{partition}", str(i), at)
            expected.append(str(i))
        self.assertEqual(self.texts(), expected)

    def test_equal_times_are_in_one_order(self):
        for partition in (5, 1, 9):
            Partition(self.folder, partition).say("r", f"p{partition}", T0)
        self.assertEqual(self.texts(), ["p1", "p5", "p9"])

    def test_many_segments_and_long_records(self):
        log = Partition(self.folder, segment_bytes=4 << 20)
        expected = []
        for i in range(120):
            if i % 30 == 29:
                log.begin()
            text = f"{i}-" + "x" * 60000
            log.say("lobby", text, T0 + i)
            expected.append(text)
        self.assertEqual(self.texts(), expected)
        self.run_tool("verify")

    def test_nothing_there(self):
        run = subprocess.run([TOOL, "-d", self.folder], capture_output=True, timeout=20, check=False)
        self.assertEqual((run.returncode, run.stdout), (0, b""))
        self.assertIn(b"no segment", run.stderr)

    def test_a_segment_that_is_full_before_it_is_read(self):
        """The broker writes on, and into the next segment, while the first is being read."""
        log = Partition(self.folder, segment_bytes=16 << 20)
        expected = []

        def say(text, padding=""):
            expected.append(text)
            log.say("lobby", f"{padding} {text}", T0 + len(expected))

        for i in range(40):
            say(f"old{i}", "x" * 60000)
        following = log.path(log.base + log.segment_bytes)
        following.write_bytes(log_format.header(3, log.base + log.segment_bytes, log.segment_bytes))
        with subprocess.Popen([TOOL, "-d", self.folder], stdout=subprocess.PIPE) as process:
            lines = [process.stdout.readline()]  # it has begun, and waits for its reader
            say("as well", "x" * 60000)
            log.begin()
            say("new")
            lines += process.stdout.readlines()
        self.assertEqual([line.decode().split(": ", 1)[1].split(" ", 1)[1].strip() for line in lines], expected)
        self.assertEqual(process.returncode, 0)

    def test_other_files_are_passed_over(self):
        Partition(self.folder).say("lobby", "oi", T0)
        (self.folder / "notes.txt").write_text("x")
        (self.folder / "03-1.segment").write_text("x")
        for partition in (16, 35, 99):
            (self.folder / f"{partition}-0000000000000000.segment").write_text("x")
        self.assertEqual(self.texts(), ["oi"])

    def test_refused_messages_are_not_shown(self):
        """What stands behind a snapshot's last kept number, or in a LOG_VOID, was refused."""
        log = Partition(self.folder)
        log.say("ops", "one", T0, durable=1)
        kept = {**log.rooms["ops"]}
        log.say("ops", "two", T0 + 1, durable=1)
        log.say("ops", "three", T0 + 2, durable=1)
        log.rooms["ops"] = {**kept, "number": 3}
        log.begin()
        log.put(log_format.void_record(1, 2, 3))
        log.say("ops", "four", T0 + 3, durable=1)
        self.assertEqual(self.texts(), ["one", "four"])
        self.assertIn("2 messages and 2 that were refused: no damage", self.run_tool("verify"))
        self.assertIn("2 messages were refused", self.run_tool("stats"))

    def test_a_snapshot_between_that_counts_them(self):
        """The disk failed after the next segment was begun: the one behind that leaves them out."""
        log = Partition(self.folder)
        for i in range(5):
            log.say("ops", f"m{i}", T0 + i, durable=1)
        kept = {**log.rooms["ops"]}
        log.say("ops", "bad1", T0 + 10, durable=1)
        log.begin()
        log.say("ops", "bad2", T0 + 11, durable=1)
        log.rooms["ops"] = {**kept, "number": 7}
        log.begin()  # its LOG_VOID was never written
        log.say("ops", "last", T0 + 12, durable=1)
        self.assertEqual(self.texts(), ["m0", "m1", "m2", "m3", "m4", "last"])
        self.assertIn("6 messages and 2 that were refused: no damage", self.run_tool("verify"))

    def test_void_alone_is_enough(self):
        log = Partition(self.folder)
        log.say("ops", "one", T0)
        log.say("ops", "two", T0 + 1)
        rooms = log.rooms
        log.rooms = {}
        log.begin()
        log.put(log_format.void_record(1, 2, 2))
        log.rooms = rooms
        self.assertEqual(self.texts(), ["one"])


class Filters(Case):
    def setUp(self):
        super().setUp()
        log = Partition(self.folder, partition_of("lobby"))
        for i in range(1, 11):
            log.say("Lobby", f"l{i}", T0 + i * 60 * SECOND, nick="bia" if i % 2 else "Bob")
        other = Partition(self.folder, partition_of("ação"))
        for i in range(1, 6):
            other.say("Ação", f"a{i}", T0 + i * 60 * SECOND + 1, folded="ação", nick="Zoë")
        private = Partition(self.folder, self.spare_partition())
        private.say("bob", "secret", T0, folded="@bia,bob", flags=DIRECT)

    @staticmethod
    def spare_partition():
        return min(set(range(16)) - {partition_of(room) for room in ("lobby", "ação", "hall")})

    def test_rooms_read_only_their_partitions(self):
        flip(next(self.folder.glob(f"{partition_of('ação'):02d}-*.segment")), 70)
        self.assertEqual(len(self.texts("-r", "lobby")), 10)
        self.assertEqual(len(self.texts("export", "--format", "text", "-r", "lobby")), 10)
        self.assertNotIn("damaged", self.run_tool("stats", "-r", "lobby"))
        self.run_tool("print", "-r", "lobby", "-r", "ação", status=1)
        self.run_tool("print", "-r", "@bia,bob", status=1)
        self.run_tool("verify", "-r", "lobby", status=1)

    def test_room(self):
        lobby = [f"l{i}" for i in range(1, 11)]
        for spelling in ("lobby", "LOBBY", "#Lobby"):
            self.assertEqual(self.texts("--room", spelling), lobby)
        # NFC and NFD are one name.
        for spelling in ("Ação", "AÇÃO".replace("Ç", "ç").replace("Ã", "ã"), "ac\u0327a\u0303o"):
            self.assertEqual(self.texts("-r", spelling), [f"a{i}" for i in range(1, 6)])
        self.assertEqual(len(self.texts("-r", "lobby", "-r", "ação")), 15)
        self.assertEqual(self.texts("-r", "nowhere"), [])

    def test_time(self):
        self.assertEqual(
            self.texts("-r", "lobby", "--since", "2026-11-24T03:18:00Z", "--until", "2026-11-24T03:20Z"), ["l3", "l4"]
        )
        self.assertEqual(self.texts("-r", "lobby", "--since", "2026-11-24T05:24:00.000+02:00"), ["l9", "l10"])
        self.assertEqual(len(self.texts("--since", "2026-11-24")), 15)
        self.assertEqual(self.texts("--since", "2026-11-25"), [])
        self.assertEqual(self.texts("--until", "2026-11-24"), [])
        self.assertEqual(len(self.texts("--since", "-50w", "--until", "2100-01-01")), 15)

    def test_times_before_now(self):
        folder = self.folder / "now"
        folder.mkdir()
        self.folder = folder
        log = Partition(folder)
        now = time.time_ns()
        for hours in (50, 30, 3, 1):
            log.say("lobby", f"h{hours}", now - hours * 3600 * SECOND)
        self.assertEqual(self.texts("--since", "-2h"), ["h1"])
        self.assertEqual(self.texts("--since", "-1d12h", "--until", "-90m"), ["h30", "h3"])
        self.assertEqual(self.texts("--until", "-1w"), [])
        self.assertEqual(self.texts("--since", "-7200s"), ["h1"])

    def test_sender(self):
        self.assertEqual(self.texts("--sender", "BOB"), ["l2", "l4", "l6", "l8", "l10"])
        self.assertEqual(len(self.texts("--sender", "Zoe\u0308")), 5)
        self.assertEqual(self.texts("--sender", "nobody"), [])

    def test_numbers(self):
        self.assertEqual(self.texts("-r", "lobby", "--numbers", "3-5"), ["l3", "l4", "l5"])
        self.assertEqual(self.texts("-r", "lobby", "--numbers", "9-"), ["l9", "l10"])
        self.assertEqual(self.texts("-r", "lobby", "--numbers", "-2"), ["l1", "l2"])
        self.assertEqual(self.texts("--numbers", "4"), ["l4", "a4"])

    def test_private(self):
        self.assertNotIn("secret", self.texts())
        self.assertIn("2026-11-24T03:15:00.000Z @bia,bob 1 bia: secret", self.lines("--private"))
        self.assertEqual(len(self.lines("--private")), 16)
        self.assertEqual(self.texts("--room", "@Bia,bob"), ["secret"])
        self.assertEqual(self.texts("--room", "@BOB,bia"), ["secret"])
        for other in ("@bia,bo", "@bo,bia", "@bob,bia2", "@bob", "@,", "@bia,", "@"):
            self.assertEqual(self.texts("--room", other), [], other)
        self.assertNotIn("secret", self.run_tool("export"))
        self.assertIn("secret", self.run_tool("export", "--private"))

    def test_since_reads_only_what_it_must(self):
        """Old segments are not even opened: a damaged one is no matter."""
        log = Partition(self.folder, partition_of("hall"))
        log.say("hall", "old", T0)
        first = log.path()
        log.begin()
        log.say("hall", "new", T0 + 3600 * SECOND)
        flip(first, 70)
        self.assertEqual(self.texts("-r", "hall", "--since", "2026-11-24T04:00:00Z"), ["new"])
        self.assertEqual(self.texts("-r", "hall", status=1), ["old", "new"])


def flip(path, offset, bit=0):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


class Verify(Case):
    def make(self, seed=1):
        """Three partitions, some segments, a clean end in one."""
        chance = random.Random(seed)
        logs = [Partition(self.folder, p, base=p * 0x1000) for p in range(3)]
        for i in range(300):
            log = chance.choice(logs)
            log.say(f"room{chance.randrange(3)}", f"m{i}", T0 + i, tags=[("id", str(i))])
            if i % 40 == 39:
                logs[i // 40 % 3].begin()
        logs[0].put(log_format.frame(log_format.END))
        return logs

    def test_fine(self):
        self.make()
        report = self.run_tool("verify")
        self.assertRegex(report, r"^16 partitions, 23 segments, \d+ records, 300 messages: no damage\n$")

    def test_a_clean_end_and_a_new_start(self):
        log = Partition(self.folder)
        log.say("lobby", "a", T0)
        log.put(log_format.frame(log_format.END))
        log.put(log_format.start_record())
        log.say("lobby", "b", T0 + 1)
        self.run_tool("verify")

    def check_flip(self, logs, path, offset, bit):
        pristine = path.read_bytes()
        flip(path, offset, bit)
        where = f"{path.name} offset {offset} bit {bit}"
        report = self.run_tool("verify", status=1)
        places = re.findall(r"^(\S+): offset (\d+): (\d+) bytes damaged", report, re.M)
        self.assertEqual(len(places), 1, f"{where}\n{report}")
        self.assertEqual(places[0][0], path.name)
        first, length = int(places[0][1]), int(places[0][2])
        self.assertTrue(first <= offset < first + length, f"{where}\n{report}")
        self.assertIn(": 1 damaged", report, where)
        # One record at most is lost.
        wanted = [
            record
            for log in logs
            for record in log.records
            if record[3] and not (record[0] == path and record[1] <= offset < record[1] + record[2])
        ]
        shown = self.texts(status=1)
        self.assertEqual(sorted(shown), sorted(record[3]["text"] for record in wanted), where)
        self.assertIn(path.name, self.errors)
        path.write_bytes(pristine)

    def test_flips_anywhere_are_found(self):
        logs = self.make()
        chance = random.Random(int(os.environ.get("RODA_SEED", "7")))
        paths = sorted({record[0] for log in logs for record in log.records})
        for _ in range(40):
            path = chance.choice(paths)
            self.check_flip(logs, path, chance.randrange(path.stat().st_size), chance.randrange(8))

    def test_every_bit_of_a_small_segment(self):
        log = Partition(self.folder)
        log.say("lobby", "one", T0)
        log.say("lobby", "two", T0 + 1)
        size = log.path().stat().st_size
        for offset in range(size):
            self.check_flip([log], log.path(), offset, offset % 8)

    def test_several_in_one_segment(self):
        logs = self.make()
        path = logs[1].records[0][0]
        spots = [r for r in logs[1].records if r[0] == path and r[3]][5::10]
        self.assertGreater(len(spots), 2)
        for spot in spots:
            flip(path, spot[1] + 40)
        report = self.run_tool("verify", status=1)
        self.assertIn(f": {len(spots)} damaged", report)
        self.assertEqual(len(self.texts(status=1)), 300 - len(spots))

    def test_a_hole_of_zeros(self):
        logs = self.make()
        path, offset, _, _ = [r for r in logs[1].records if r[3]][4]
        data = bytearray(path.read_bytes())
        data[offset + 5 : offset + 400] = bytes(395)
        path.write_bytes(data)
        self.assertIn(": 1 damaged", self.run_tool("verify", status=1))

    def test_a_record_being_written_is_no_damage(self):
        log = Partition(self.folder)
        log.say("lobby", "one", T0)
        log.say("lobby", "two", T0 + 1)
        path, offset, length, _ = log.records[-1]
        whole = path.read_bytes()
        for cut in range(1, length):
            path.write_bytes(whole[: offset + cut])
            report = self.run_tool("verify")
            self.assertIn(f"offset {offset}: {cut} bytes of a record that is being written", report)
            self.assertIn("no damage", report)
            self.assertEqual(self.texts(), ["one"])
        path.write_bytes(whole[:offset] + bytes(5000))
        self.run_tool("verify")
        path.write_bytes(whole[:offset] + b"\x55" * 5000)
        self.assertIn("the broker cuts it off", self.run_tool("verify", status=1))

    def test_a_cut_in_an_older_segment_is_damage(self):
        log = Partition(self.folder)
        log.say("lobby", "one", T0)
        log.say("lobby", "two", T0 + 1)
        path = log.path()
        log.begin()
        log.say("lobby", "three", T0 + 2)
        path.write_bytes(path.read_bytes()[:-3])
        report = self.run_tool("verify", status=1)
        self.assertIn("up to the end of the file", report)
        self.assertEqual(self.texts(status=1), ["one", "three"])

    def test_a_segment_that_is_prepared_is_no_damage(self):
        log = Partition(self.folder)
        log.say("lobby", "one", T0)
        log.say("lobby", "two", T0 + 1)
        old, length = log.path(), log.records[-1][2]
        log.begin()
        new = log.path()
        whole = new.read_bytes()
        opened = next(offset for offset, r in log_format.read_records(whole) if r["type"] == "open")
        old.write_bytes(old.read_bytes()[: -length // 2])
        for size in (0, 30, 64, 70, opened, opened + 11):
            new.write_bytes(whole[:size])
            report = self.run_tool("verify")
            self.assertIn("being written", report)
            self.assertEqual(self.texts(), ["one"], size)
        new.write_bytes(whole)
        self.run_tool("verify", status=1)

    def test_a_missing_segment(self):
        logs = self.make()
        segments = sorted({r[0] for r in logs[1].records})
        self.assertGreaterEqual(len(segments), 3)
        gone = segments[1]
        gone.unlink()
        report = self.run_tool("verify", status=1)
        self.assertIn("a segment is missing", report)
        self.assertIn(segments[2].name, report)
        self.run_tool("verify", status=1)
        # The oldest may go: retention.
        segments[0].unlink()
        self.run_tool("verify")

    def test_a_missing_partition(self):
        self.make()
        report = self.run_tool("verify", status=1, complete=False).splitlines()
        self.assertEqual(
            [line.split(":")[0] for line in report[:-1]], [f"partition {p:02d}" for p in range(3, 16)]
        )
        self.assertIn("a log has all 16", report[0])
        self.assertTrue(report[-1].endswith(": 13 damaged"), report[-1])

    def test_no_segment_at_all(self):
        (self.folder / "notes.txt").write_text("x")
        for name in ("16-0000000000000000.segment", "99-0000000000000000.segment"):
            (self.folder / name).write_bytes(log_format.header(16, 0, 1 << 20))
        self.assertEqual(self.run_tool("verify", status=2, complete=False), "")
        self.assertIn(f"{self.folder}: there is no segment in it", self.errors)
        self.assertIn("-d says where the log is", self.errors)

    def test_a_file_with_another_segment_s_name(self):
        log = Partition(self.folder)
        log.say("lobby", "one", T0)
        log.path().rename(log.directory / "04-0000000000000000.segment")
        self.assertIn("another segment", self.run_tool("verify", status=1))

    def expect(self, log, words, number=1):
        report = self.run_tool("verify", status=1)
        self.assertIn(words, report)
        self.assertIn(f": {number} damaged", report)
        self.assertIn(log.path().name, report)

    def wrong(self, count=12, **fields):
        """A log whose last message has right bytes and wrong contents."""
        log = Partition(self.folder)
        for i in range(count):
            log.say("lobby", f"m{i}", T0 + i)
        self.run_tool("verify")
        log.say("lobby", "wrong", **{"time_ns": T0 + count, **fields})
        return log

    def test_back_pointer(self):
        self.expect(self.wrong(back=64), "does not point back")

    def test_jump_pointer(self):
        self.expect(self.wrong(jump=64), "jump pointer")

    def test_what_stands_beside_the_jump(self):
        self.expect(self.wrong(jump_number=9999), "at its jump")

    def test_time_beside_the_jump(self):
        self.expect(self.wrong(jump_time_ns=1), "at its jump")

    def test_count(self):
        self.expect(self.wrong_count(), "its count")

    def wrong_count(self):
        log = Partition(self.folder)
        for i in range(12):
            log.say("lobby", f"m{i}", T0 + i)
        room, message = log.build("lobby", "wrong", T0 + 12)
        log.put(log_format.message_record({**message, "count": 99}), message)
        self.assertEqual(room["count"], 12)
        return log

    def test_number(self):
        self.expect(self.wrong(number=12, prev=11), "number is not greater")

    def test_time_runs_back(self):
        self.expect(self.wrong(time_ns=T0), "older than the one before")

    def test_epoch(self):
        self.expect(self.wrong(epoch=1), "another epoch")

    def test_less_shown_than_kept(self):
        self.expect(self.wrong(number=20, prev=3), "less was shown")

    def test_a_room_that_no_record_describes(self):
        log = Partition(self.folder)
        _, message = log.build("lobby", "x", T0)
        log.put(log_format.message_record({**message, "room": 55}), message)
        self.expect(log, "describes its room")

    def test_a_snapshot_that_says_something_else(self):
        for change in ({"kept": 7}, {"count": 3, "trees": [(100, 10, T0, 3)]}, {"trees": None}):
            with self.subTest(change=change), tempfile.TemporaryDirectory() as folder:
                self.folder = Path(folder)
                log = Partition(folder)
                for i in range(10):
                    log.say("lobby", f"m{i}", T0 + i)
                room = log.rooms["lobby"]
                if "trees" in change:
                    change = {**change, "trees": change["trees"] or [(99, 10, T0, 3), *room["trees"][1:]]}
                log.rooms["lobby"] = {**room, **change}
                log.begin()
                self.assertRegex(self.run_tool("verify", status=1), "before this|its chain")

    def test_a_new_epoch_goes_on_behind(self):
        """After an unclean end: the chain is one, the numbers skip."""
        log = Partition(self.folder)
        for i in range(5):
            log.say("lobby", f"m{i}", T0 + i)
        log.rooms["lobby"].update(epoch=99, number=10005)
        log.begin()
        log.say("lobby", "next", T0 + 9)
        self.run_tool("verify")
        self.assertEqual(self.lines()[-1], "2026-11-24T03:15:00.000Z lobby 10006 bia: next")

    def test_a_room_that_was_forgotten_begins_anew(self):
        log = Partition(self.folder, partition_of("lobby"))
        log.say("lobby", "old", T0)
        log.say("ops", "kept", T0)
        del log.rooms["lobby"]
        log.begin()
        log.say("lobby", "new", T0 + 1)
        self.assertEqual(log.rooms["lobby"]["room"], 3)
        self.run_tool("verify")
        self.assertEqual(self.texts("--room", "lobby"), ["old", "new"])

    def test_an_id_above_the_last_one(self):
        log = Partition(self.folder)
        log.say("lobby", "one", T0)
        log.ids = 0
        log.begin()
        self.expect(log, "no room has an id above 0, it says, but one has 1")

    def test_closed_behind_itself(self):
        log = Partition(self.folder)
        log.say("lobby", "one", T0)
        log.rooms["lobby"]["closed"] = 1 << 40
        log.begin()
        self.expect(log, "room lobby: it was closed behind this")

    def test_records_before_the_end_of_the_snapshot(self):
        path = self.folder / "03-0000000000000000.segment"
        opened = log_format.open_record(0)
        path.write_bytes(log_format.header(3, 0, 1 << 20) + log_format.start_record() + opened)
        self.assertIn("in front of the end of the snapshot", self.run_tool("verify", status=1))

    def test_records_behind_the_end(self):
        log = Partition(self.folder)
        log.room("lobby")
        log.put(log_format.frame(log_format.END))
        log.say("lobby", "one", T0)
        self.expect(log, "behind the record of the broker's end")

    def test_a_name_is_escaped(self):
        log = Partition(self.folder)
        log.say("\x1b]0;x\x07\x1b[2J\u202e", "one", T0, folded="evil")
        log.rooms["evil"]["count"] += 1
        log.rooms["evil"]["trees"] = [(64, 1, T0, 1)] * 2
        log.begin()
        log.say("\x1b]0;x\x07\x1b[2J\u202e", "two", T0 - 1, folded="evil")
        told = self.run_tool("verify", status=1)
        self.assertEqual(told.count(r"room \x1b]0;x\x07\x1b[2J\xe2\x80\xae: "), 2)
        self.assertFalse(re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", told))

    def test_an_unknown_type_is_damage(self):
        log = Partition(self.folder)
        log.say("lobby", "one", T0)
        log.put(log_format.frame(9, b"something"))
        log.say("lobby", "two", T0 + 1)
        self.assertIn("no record", self.run_tool("verify", status=1))
        self.assertEqual(self.texts(status=1), ["one", "two"])


class Follow(Case):
    def start(self, *arguments):
        process = subprocess.Popen(
            [TOOL, "-d", self.folder, "-f", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.buffer = b""
        return process

    def expect(self, process, words, timeout=20):
        """These are the next lines' last words."""
        end = time.monotonic() + timeout
        got = []
        while len(got) < len(words):
            while b"\n" not in self.buffer:
                left = end - time.monotonic()
                self.assertGreater(left, 0, f"only {got} of {words} came")
                if select.select([process.stdout], [], [], left)[0]:
                    data = os.read(process.stdout.fileno(), 65536)
                    self.assertTrue(data, "it ended")
                    self.buffer += data
            line, self.buffer = self.buffer.split(b"\n", 1)
            got.append(line.decode().split(" ")[-1])
        self.assertEqual(got, words)

    def finish(self, process, number=signal.SIGINT, status=0):
        process.send_signal(number)
        self.assertEqual(process.wait(20), status)
        self.assertEqual(process.stderr.read(), b"")

    def test_what_comes_is_shown(self):
        log = Partition(self.folder)
        log.say("lobby", "a", T0)
        process = self.start()
        self.expect(process, ["a"])
        for i in range(20):
            log.say("lobby", f"m{i}", T0 + i)
            self.expect(process, [f"m{i}"])
        self.finish(process)

    def test_the_end_comes_before_all_is_shown(self):
        log = Partition(self.folder, segment_bytes=16 << 20)
        for i in range(60):
            log.say("lobby", "x" * 60000, T0 + i)
        process = self.start()
        lines = [process.stdout.readline()]
        process.send_signal(signal.SIGINT)
        lines += process.stdout.readlines()
        self.assertLess(len(lines), 40)
        self.assertTrue(all(len(line) > 60000 and line.endswith(b"\n") for line in lines))
        self.assertEqual(process.wait(20), 0)

    def test_half_a_record(self):
        log = Partition(self.folder)
        log.say("lobby", "a", T0)
        process = self.start()
        self.expect(process, ["a"])
        _, message = log.build("lobby", "b", T0 + 1)
        data = log_format.message_record(message)
        with open(log.path(), "ab", buffering=0) as file:
            for i in range(0, len(data), 40):
                file.write(data[i : i + 40])
                time.sleep(0.02)
        self.expect(process, ["b"])
        self.finish(process, signal.SIGTERM)

    def test_into_new_segments(self):
        log = Partition(self.folder)
        log.say("lobby", "a", T0)
        process = self.start()
        self.expect(process, ["a"])
        for i in range(3):
            # The next one is prepared while the old one is written to.
            following = log.path(log.base + log.segment_bytes)
            following.write_bytes(log_format.header(3, log.base + log.segment_bytes, log.segment_bytes))
            log.say("lobby", f"old{i}", T0 + 10 * i)
            self.expect(process, [f"old{i}"])
            log.begin()
            log.say("lobby", f"new{i}", T0 + 10 * i + 1)
            self.expect(process, [f"new{i}"])
        self.finish(process)

    def test_new_partitions_and_an_empty_directory(self):
        process = self.start()
        log = Partition(self.folder, 2)
        log.say("lobby", "a", T0)
        self.expect(process, ["a"])
        other = Partition(self.folder, 8)
        other.say("hall", "b", T0 - 5)
        self.expect(process, ["b"])
        self.finish(process)

    def test_filters_hold(self):
        log = Partition(self.folder, partition_of("hall"))
        log.say("lobby", "a", T0)
        process = self.start("--room", "hall", "--sender", "ana")
        log.say("hall", "no", T0 + 1)
        log.say("lobby", "no", T0 + 2, nick="ana")
        log.say("hall", "yes", T0 + 3, nick="Ana")
        self.expect(process, ["yes"])
        self.finish(process)

    def replace(self, log, size):
        """As the broker does when its disk works again: a copy up to there gets the file's name."""
        path = log.path().with_suffix(".segment.copy")
        path.write_bytes(log.path().read_bytes()[:size])
        log.size = size
        return path

    def wait_for_a_look(self, process, other):
        """What was written before this is seen."""
        other.say("hall", "look", T0)
        self.expect(process, ["look"])

    def test_a_segment_that_is_written_anew(self):
        log, other = Partition(self.folder), Partition(self.folder, 8)
        for text in ("a", "b"):
            log.say("lobby", text, T0)
        process = self.start()
        self.expect(process, ["a", "b"])
        size = log.size
        log.put(log_format.message_record(log.build("lobby", "torn", T0)[1])[:-5])
        self.wait_for_a_look(process, other)
        self.replace(log, size).rename(log.path())
        log.say("lobby", "c", T0 + 1)
        self.expect(process, ["c"])
        log.begin()
        log.say("lobby", "d", T0 + 2)
        self.expect(process, ["d"])
        self.finish(process)

    def test_a_segment_that_is_written_anew_and_cut_off(self):
        """What was shown and is not in the copy does not hide what stands there in its place."""
        log = Partition(self.folder)
        log.say("lobby", "a", T0)
        size, rooms = log.size, copy.deepcopy(log.rooms)
        for text in ("refused", "as-well"):
            log.say("lobby", text, T0 + 1, durable=1)
        process = self.start()
        self.expect(process, ["a", "refused", "as-well"])
        path = self.replace(log, size)
        log.rooms = rooms
        log.rooms["lobby"]["number"] = 3
        process.send_signal(signal.SIGSTOP)
        path.rename(log.path())
        for text in ("b", "c" * 500, "d"):
            log.say("lobby", text, T0 + 2)
        log.begin()
        log.say("lobby", "e", T0 + 3)
        process.send_signal(signal.SIGCONT)
        self.expect(process, ["b", "c" * 500, "d", "e"])
        self.finish(process)

    def test_damage_at_the_end_is_told_when_it_stays(self):
        log, other = Partition(self.folder), Partition(self.folder, 8)
        log.say("lobby", "a", T0)
        process = self.start()
        self.expect(process, ["a"])
        size = log.size
        record = bytearray(log_format.message_record(log.build("lobby", "x", T0)[1]))
        record[-1] ^= 1
        with open(log.path(), "ab") as file:
            file.write(record)
        self.wait_for_a_look(process, other)
        process.send_signal(signal.SIGSTOP)
        os.truncate(log.path(), size)
        log.say("lobby", "b", T0 + 1)
        process.send_signal(signal.SIGCONT)
        self.expect(process, ["b"])
        self.assertFalse(select.select([process.stderr], [], [], 1.5)[0], "it was mended")
        with open(log.path(), "ab") as file:
            file.write(record)
        self.assertTrue(select.select([process.stderr], [], [], 20)[0])
        self.assertIn(f"damaged at offset {log.size}", process.stderr.readline().decode())
        self.finish(process, status=1)

    def test_the_end_of_what_can_come(self):
        """Nobody needs to interrupt what can show no more."""
        log = Partition(self.folder, partition_of("lobby"))
        for i in range(6):
            log.say("lobby", f"m{i}", T0 + i * SECOND)
            if i in (2, 3):
                log.begin()
        self.assertEqual(self.texts("-f", "--until", "2026-11-24T03:15:04Z"), ["m0", "m1", "m2", "m3"])
        self.assertEqual(self.texts("-f", "-r", "lobby", "--numbers", "2-3"), ["m1", "m2"])
        for arguments in (["-r", "lobby", "--numbers", "2-6"], ["--numbers", "2-3"], ["--until", "now"]):
            with self.subTest(arguments=arguments):  # more may come of these
                process = self.start(*arguments)
                with self.assertRaises(subprocess.TimeoutExpired):
                    process.wait(2.5)
                self.finish(process)

    def test_json(self):
        log = Partition(self.folder)
        process = subprocess.Popen([TOOL, "-d", self.folder, "export", "-f"], stdout=subprocess.PIPE)
        log.say("lobby", "a", T0)
        self.assertEqual(json.loads(process.stdout.readline())["text"], "a")
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        self.assertEqual(process.wait(20), 0)


class Export(Case):
    def test_jsonl_has_every_field(self):
        log = Partition(self.folder, 3)
        log.say("Lobby", "first", T0)
        log.say(
            "Lobby", 'a "quoted" \\ \n \x1b \u2028 é😀', T0 + 123_456_789, flags=log_format.ACTION | 1 << 31, durable=1,
            person=0xFFFFFFFFFFFFFFFF, subject="s",
            sender={"nick": "Ana", "account": "ana", "host": "h", "name": "Ana S", "away": "z", "door": "irc"},
            tags=[("id", "42"), (".address", "192.0.2.7"), ("id", "again")],
        )  # fmt: skip
        lines = self.lines("export")
        first, second = (json.loads(line) for line in lines)
        offset = log.records[-1][1]
        self.assertEqual(
            second,
            {
                "room": "Lobby", "number": 2, "time": "2026-11-24T03:15:00.123456789Z", "kind": "text",
                "flags": ["action", "bit31"],
                "sender": {"person": "ffffffffffffffff", "nick": "Ana", "account": "ana", "host": "h",
                           "name": "Ana S", "away": "z", "door": "irc"},
                "to": "Lobby", "subject": "s", "text": 'a "quoted" \\ \n \x1b \u2028 é😀',
                "tags": [["id", "42"], [".address", "192.0.2.7"], ["id", "again"]],
                "epoch": "fedcba9876543210", "prev": 1, "durable": True, "partition": 3, "position": offset,
                "room_id": 1, "count": 2, "back": log.records[-2][1], "jump": log.records[-2][1],
                "jump_number": 1, "jump_time": "2026-11-24T03:15:00.000000000Z",
            },
        )  # fmt: skip
        self.assertEqual((first["jump"], first["jump_time"], first["back"]), (0, None, 0))
        self.assertEqual(self.lines("export", "--format", "jsonl"), lines)
        self.assertNotIn("\x1b", lines[1])

    def test_bytes_that_are_no_utf_8_stay_json(self):
        log = Partition(self.folder)
        _, message = log.build("lobby", "AAAA", T0)
        data = log_format.message_record(message)
        body = data[12:].replace(b"AAAA", b"\xff\xc3\xe2\x82")
        log.put(log_format.frame(log_format.MESSAGE, body))
        (line,) = self.lines("export")
        self.assertEqual(json.loads(line)["text"], "\ufffd" * 4)
        self.assertTrue(self.lines()[0].endswith(r" bia: \xff\xc3\xe2\x82"))

    def test_the_broker_s_own(self):
        Partition(self.folder).say("lobby", "x", T0, nick="")
        self.assertIsNone(json.loads(self.run_tool("export"))["sender"])

    def test_text_is_the_text_files_line(self):
        log = Partition(self.folder)
        log.say("Lobby", "oi  bom\ndia", T0 + 123_000_000)
        log.say("Lobby", "+o", T0 + SECOND, kind=MODE, subject="bob")
        log.say("bob", "psst", T0 + 2 * SECOND, folded="@bia,bob", flags=DIRECT)
        self.assertEqual(
            self.lines("export", "--format", "text", "--private"),
            [
                r"1 2026-11-24T03:15:00.123Z Lobby bia line text - oi  bom\ndia",
                "2 2026-11-24T03:15:01.000Z Lobby bia line mode bob +o",
                "1 2026-11-24T03:15:02.000Z @bia,bob bia line text - psst",
            ],
        )

    def test_a_long_text(self):
        text = "x" * 65536
        Partition(self.folder).say("lobby", text, T0)
        self.assertTrue(self.lines("export", "--format", "text")[0].endswith(text))
        self.assertEqual(json.loads(self.run_tool("export"))["text"], text)


class Stats(Case):
    def test_rooms_and_totals(self):
        log = Partition(self.folder, partition_of("lobby"))
        for i in range(5):
            log.say("Lobby", f"m{i}", T0 + i * SECOND)
        log.begin()
        log.say("Lobby", "m5", T0 + 5 * SECOND)
        other = Partition(self.folder, partition_of("alpha"))
        other.say("Alpha", "x", T0)
        other.say("bob", "psst", T0, folded="@bia,bob", flags=DIRECT)
        sizes = {name: sum(r[2] for log_ in (log, other) for r in log_.records if r[3] and r[3]["to"] == name)
                 for name in ("Lobby", "Alpha", "bob")}  # fmt: skip
        lines = [line.split() for line in self.lines("stats")]
        total = sum(path.stat().st_size for path in self.folder.iterdir())
        self.assertEqual(lines[0], ["messages", "from", "to", "bytes", "first", "last", "room"])
        moment = "2026-11-24T03:15:00.000Z"
        self.assertEqual(lines[1], ["1", "1", "1", str(sizes["Alpha"]), moment, moment, "Alpha"])
        self.assertEqual(
            lines[2], ["6", "1", "6", str(sizes["Lobby"]), moment, "2026-11-24T03:15:05.000Z", "Lobby"]
        )
        self.assertEqual(lines[3], ["1", "-", "-", str(sizes["bob"]), "-", "-", "(1", "private)"])
        self.assertEqual(
            " ".join(lines[4]), f"8 messages in 3 rooms, 3 segments of 2 partitions, {total} bytes"
        )
        self.assertIn("@bia,bob", self.run_tool("stats", "--private"))
        self.assertIn("6 messages in 1 rooms", self.run_tool("stats", "--room", "lobby"))

    def test_damage_is_told(self):
        log = Partition(self.folder)
        log.say("lobby", "x", T0)
        log.say("lobby", "y", T0)
        flip(log.path(), log.records[-2][1] + 30)
        self.assertIn("damaged", self.run_tool("stats", status=1))


class Status(Case):
    def test_usage(self):
        for arguments in (
            ["--nothing"], ["nonsense"], ["print", "verify"], ["--since", "yesterday"], ["--since", "2026-13-01"],
            ["--since", "2026-02-30"], ["--until", "-5"], ["--until", "2026-11-24T25:00:00Z"], ["--since", ""],
            ["--since", "-"], ["--since", "2026-11-24T10:00:00X"], ["--numbers", "5-2"], ["--numbers", "x"],
            ["--numbers", "-"], ["--numbers", ""], ["--numbers", "1-2-3"], ["--room", ""], ["--format", "xml"],
            ["verify", "-f"], ["--room"], ["--sender", "a b"], ["--sender", "4ever"], ["--sender", "x" * 33],
            ["--sender", "@bob"], ["--since", "2026-11-25", "--until", "2026-11-24"],
            ["--since", "2026-11-25", "--until", "2026-11-25"], ["--since", "-1h", "--since", "-2h"],
            ["--until", "now", "--until", "now"], ["--sender", "ana", "--sender", "bob"],
            ["--numbers", "1-2", "--numbers", "4-5"], ["--format", "text"], ["print", "--format", "jsonl"],
            ["stats", "--format", "text"], ["export", "--format", "text", "--format", "jsonl"],
        ):  # fmt: skip
            with self.subTest(arguments=arguments):
                self.assertEqual(self.run_tool(*arguments, status=2), "")
                told = self.errors.splitlines()
                self.assertEqual(told.pop(), "Try roda-log --help.")
                self.assertTrue(told)
                for line in told:
                    self.assertTrue(line.startswith("roda-log: "), line)

    def test_a_remedy_stands_beside_the_mistake(self):
        for arguments, remedy in (
            (["--format", "text"], "roda-log export --format text"),
            (["--since", "-1h", "--since", "-2h"], "--since is given twice"),
            (["--since", "-1h", "--until", "-2h"], "--since must be before --until"),
            (["--sender", "a b"], '"a b" cannot be a nick'),
        ):
            self.run_tool(*arguments, status=2)
            self.assertIn(remedy, self.errors)

    def test_no_directory(self):
        file = self.folder / "file"
        file.write_text("x")
        for folder, remedy in (
            (self.folder / "nowhere", "No such file or directory; -d says where the log is"),
            (file, "Not a directory; -d names the directory in which the segments are"),
        ):
            self.folder = folder
            for command in ("verify", "print"):
                self.run_tool(command, status=2)
                self.assertEqual(self.errors.count("\n"), 1)
                self.assertIn(f"{folder}: {remedy}", self.errors)

    @unittest.skipUnless(os.geteuid() == 0, "only root can become somebody else")
    def test_a_directory_of_somebody_else(self):
        tool = self.folder / "roda-log"
        shutil.copy(TOOL, tool)
        self.folder.chmod(0o755)
        log = self.folder / "log"
        log.mkdir(mode=0o700)
        run = subprocess.run(
            [tool, "-d", log], capture_output=True, user=65534, group=65534, timeout=20, check=False
        )
        self.assertEqual(run.returncode, 2)
        self.assertIn(b"Permission denied; read it as root or as the broker's user", run.stderr)

    def test_help_and_version(self):
        self.assertIn("verify", self.run_tool("--help"))
        self.assertRegex(self.run_tool("-V"), r"^roda-log \d+\.\d+\.\d+\n$")

    def test_what_cannot_be_read(self):
        Partition(self.folder, 3).say("lobby", "one", T0)
        (self.folder / "05-0000000000000000.segment").mkdir()
        self.run_tool("verify", status=2)
        self.assertIn("05-0000000000000000.segment", self.errors)
        self.assertEqual(self.texts(status=2), ["one"])

    def test_another_version(self):
        log = Partition(self.folder)
        log.say("lobby", "one", T0)
        data = log.path().read_bytes()
        log.path().write_bytes(log_format.header(3, 0, 1 << 20, version=2) + data[64:])
        self.run_tool("verify", status=2)
        self.assertIn("another version", self.errors)

    def test_standard_output_is_full(self):
        Partition(self.folder).say("lobby", "one", T0)
        with open("/dev/full", "w", encoding="ascii") as full:
            run = subprocess.run(
                [TOOL, "-d", self.folder], stdout=full, stderr=subprocess.PIPE, timeout=20, check=False
            )
        self.assertEqual(run.returncode, 2)
        self.assertIn(b"standard output", run.stderr)

    def test_progress(self):
        log = Partition(self.folder)
        for i in range(3000):
            log.say("lobby", f"m{i}", T0 + i)
        self.assertEqual(len(self.lines("print", "--progress")), 3000)
        self.assertIn("  0 % of", self.errors)
        self.assertIn("100 % of", self.errors)
        self.assertIn("3000 messages", self.errors)
        self.run_tool("verify", "--progress")
        self.assertIn("100 % of", self.errors)

    @staticmethod
    def when_read(fifo):
        """Opens it for writing, once somebody waits to read it."""
        deadline = time.monotonic() + 20
        while True:
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as problem:
                if problem.errno != errno.ENXIO or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def test_progress_on_a_terminal(self):
        """What takes longer than two seconds tells how far it is, but not into a stream of messages."""
        log = Partition(self.folder)
        for i in range(3000):
            log.say("lobby", f"m{i}", T0 + i)
        # Opening one waits for a writer; then it is empty. The first says that the tool has begun, the
        # second holds it for as long as its patience is.
        begun, slow = (self.folder / f"0{i}-0000000000000000.segment" for i in range(2))
        for fifo in (begun, slow):
            os.mkfifo(fifo)
        self.complete()
        for command, shown in (("verify", True), ("stats", True), ("print", False)):
            terminal, end = pty.openpty()
            with self.subTest(command), os.fdopen(terminal, "rb", 0) as terminal:
                process = subprocess.Popen([TOOL, "-d", self.folder, command], stdout=end, stderr=end)
                os.close(end)
                writers = [self.when_read(begun)]
                time.sleep(2.1)  # what the tool itself waits before it tells anything
                writers.append(os.open(slow, os.O_RDWR))
                told = b""
                try:
                    while data := terminal.read(65536):
                        told += data
                except OSError:  # nobody has the other end any more
                    pass
                self.assertEqual(process.wait(20), 0, told)
                for writer in writers:
                    os.close(writer)
                self.assertEqual(b" % of" in told, shown, told)
                if shown:
                    self.assertRegex(told, rb"\r\x1b\[K[^\r]*messages")


class Document(Case):
    """What docs/log-format.md prints is what is written."""

    def setUp(self):
        super().setUp()
        text = (SOURCE / "docs" / "log-format.md").read_text()
        (block,) = re.findall(r"```hex\n(.*?)```", text, re.S)
        lines = [line.split("|")[0] for line in block.splitlines()]
        self.bytes = bytes.fromhex("".join(re.sub(r"^\s*[0-9a-f]{4}:", "", line) for line in lines))
        (described,) = re.findall(r"```json\n(.*?)```", text, re.S)
        self.described = [json.loads(line) for line in described.splitlines()]

    def test_python_reads_the_example(self):
        header = log_format.read_header(self.bytes)
        records = [record for _, record in log_format.read_records(self.bytes)]
        told = json.loads(json.dumps([header, *records]))
        self.assertEqual(told, self.described)

    def test_the_tool_reads_the_example(self):
        (self.folder / "09-0000000000000000.segment").write_bytes(self.bytes)
        self.assertIn("no damage", self.run_tool("verify"))
        self.assertEqual(self.lines(), ["2026-11-24T03:15:00.123Z lobby 1 bia: oi"])

    def test_check_value(self):
        self.assertEqual(log_format.crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(struct.calcsize("<IQ"), 12)


if __name__ == "__main__":
    unittest.main(verbosity=2)
