#!/usr/bin/env python3
"""What the log costs, as ratios of two things measured in turn in one run.

    bench_log.py [--build DIR] [--rounds N] [append] [start] [latest] [cpu]

Without names, all of them. Each line of the result is a median with its range over all rounds."""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--build", default=os.environ.get("RODA_BUILD", str(ROOT / "build")))
parser.add_argument("--rounds", type=int, default=9)
parser.add_argument("--folder", help="where the logs are written (default: TMPDIR)")
parser.add_argument("what", nargs="*", help="append start latest cpu")
OPTIONS = parser.parse_args()
BUILD = Path(OPTIONS.build).resolve()
os.environ.setdefault("RODA_BINARY", str(BUILD / "core" / "roda"))
os.environ.setdefault("RODA_PLUGIN_DIR", str(BUILD / "plugins"))
sys.path.insert(0, str(ROOT / "tests" / "integration"))

# pylint: disable=wrong-import-position
from broker import PLUGINS, TCP, UNIX, Broker  # noqa: E402
from clients import LineClient, Pump  # noqa: E402

LIMITS = "send_queue = 64M\nsend_queues_total = 512M"
FLOOD_S = 600
RECORD_BYTES = 240  # of what bench_cpu() says; a little more than it is


# ---- what all of them share --------------------------------------------------------------------------


def log_section(folder, **options):
    # keep: what make-log writes is said to be old.
    options = {"directory": folder, "keep": 0, **options}
    return "[plugin log]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())


def start_broker(plugins=PLUGINS, workers=1, **options):
    return Broker(workers=workers, listeners=TCP + UNIX, limits=LIMITS, plugins=plugins, **options)


def cpu_ns(broker):
    """Of all threads, as the scheduler counts it: finer than the ticks of /proc/PID/stat."""
    total = 0
    for task in Path(f"/proc/{broker.process.pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            pass
    return total


def show(what, values, unit="", goal=""):
    middle = statistics.median(values)
    spread = f"{min(values):.3g} to {max(values):.3g}"
    print(f"{what}: {middle:.3g}{unit} ({spread}, {len(values)} rounds){goal}", flush=True)


def timed(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def warm_memory(folder, size):
    """A virtual machine's host takes back memory that is free for some seconds. When the kernel keeps
    in it what is written, getting it again costs ten times the writing: that is no broker's cost."""
    file = folder / "warm"
    with open(file, "wb") as out:
        for _ in range(0, size, 1 << 20):
            out.write(bytes(1 << 20))
    file.unlink()


def segments(folder):
    return sorted(str(path) for path in Path(folder).glob("*.segment"))


def make_log(folder, end, rooms, segment_bytes=16 << 20, text_bytes=60):
    command = [BUILD / "tests" / "bench" / "make-log", folder, segment_bytes, text_bytes, end]
    subprocess.run([*map(str, command), *rooms], check=True)


# ---- append ------------------------------------------------------------------------------------------


def bench_append(folder):
    """One sender's pipeline into a log with sync = never, against cat of the bytes it wrote."""
    lines, length = 200_000, 100
    text = "x" * length + "\n"
    piece = (text * 1000).encode()

    def talk(broker):
        with LineClient(broker, "ana", "unix") as ana, Pump() as pump:
            peer = pump.add(ana.socket, "ana")

            def all_said():
                for _ in range(lines // 1000):
                    pump.send(peer, piece)
                pump.send(peer, b"/ping end\n")
                pump.run(lambda: b" end\n" in peer.received, "the end", FLOOD_S)

            return timed(all_said)

    ratios, rates, costs = [], [], []
    for count in range(OPTIONS.rounds):
        log = folder / f"append{count}"
        with start_broker() as plain:
            without = talk(plain)
        with start_broker(PLUGINS + log_section(log, sync="never")) as broker:
            seconds = talk(broker)
        files = segments(log)
        written = sum(os.path.getsize(file) for file in files)
        copy = folder / "copy"
        cat = timed(
            lambda: subprocess.run(f"cat {log}/*.segment > {copy}", shell=True, check=True)
        )
        assert os.path.getsize(copy) == written
        ratios.append(seconds / cat)
        rates.append(lines / seconds)
        costs.append(seconds / without)
        copy.unlink()
        shutil.rmtree(log)
    show("append, messages per second", rates)
    show("append, time against cat > file of the same bytes", ratios, " x")
    show("append, time against the same pipeline without a log", costs, " x")


# ---- start -------------------------------------------------------------------------------------------


def bench_start(folder):
    """From exec to "is ready", against cat of all segments; after an end in order, and after none."""
    rooms = [f"r{index}:25000" for index in range(200)]
    for end in ("clean", "killed"):
        log = folder / f"start-{end}"
        make_log(log, end, rooms)
        ratios, seconds = [], []
        for _ in range(OPTIONS.rounds):
            again = folder / "again"
            if end == "killed":  # each start ends in order, so each needs a log that did not
                subprocess.run(["cp", "-r", "--reflink=auto", log, again], check=True)
                os.sync()
            here = again if end == "killed" else log
            started = time.perf_counter()
            with start_broker(PLUGINS + log_section(here)):
                seconds.append(time.perf_counter() - started)
            cat = timed(
                lambda: subprocess.run(
                    f"cat {here}/*.segment > /dev/null", shell=True, check=True
                )
            )
            ratios.append(seconds[-1] / cat)
            shutil.rmtree(again, ignore_errors=True)
        show(f"start, 5 million messages, {end}", seconds, " s")
        show(f"start, {end}, against cat of the same log", ratios, " x")
        shutil.rmtree(log)
    seconds = []
    for _ in range(OPTIONS.rounds):
        started = time.perf_counter()
        with start_broker():
            seconds.append(time.perf_counter() - started)
    show("start without a log, for comparison", seconds, " s")


# ---- latest ------------------------------------------------------------------------------------------


def bench_latest(folder):
    """/history of the newest 50 in a long and in a short room, each in a partition of its own, from
    files (the broker was started after they were written)."""
    requests = 200
    log = folder / "latest"
    make_log(log, "clean", ["long:1000000", "short:1000"])

    def ask(client, room):
        def all_of_them():
            for _ in range(requests):
                client.send(f"/history {room} 50")
                client.expect(rf"^\* history {room} \S+ 50 messages")

        return timed(all_of_them) / requests

    ratios, long_us, short_us = [], [], []
    for _ in range(OPTIONS.rounds):
        with start_broker(PLUGINS + log_section(log)) as broker:
            with LineClient(broker, "ana", "unix") as ana:
                for room in ("long", "short"):
                    ana.send(f"/join {room}")
                ana.sync()
                times = {"long": [], "short": []}
                for _ in range(4):
                    for room, found in times.items():
                        found.append(ask(ana, room))
                for room, found in times.items():
                    times[room] = statistics.median(found)
        ratios.append(times["long"] / times["short"])
        long_us.append(times["long"] * 1e6)
        short_us.append(times["short"] * 1e6)
    show("latest 50 of 1,000,000", long_us, " us")
    show("latest 50 of 1,000", short_us, " us")
    show("latest 50, long room against short room", ratios, " x", "; goal: at most 2")
    shutil.rmtree(log)


# ---- cpu ---------------------------------------------------------------------------------------------


class Room:
    """A broker with so many receivers in its lobby and one sender."""

    def __init__(self, broker, receivers):
        self.broker = broker
        self.pump = Pump()
        self.receivers = [self.enter(f"r{index}") for index in range(receivers)]
        self.sender = self.enter("sender")
        self.received = 0
        self.pump.on_data = self.take

    def enter(self, name):
        peer = self.pump.add(self.broker.connect("unix"), name)
        self.pump.send(peer, f"/nick {name}\n".encode())
        self.pump.run(lambda: b" now\n" in peer.received, f"{name} enters")
        return peer

    def take(self, peer, data):
        if peer is not self.sender:
            self.received += data.count(b"\n")

    def talk(self, messages, at_once):
        """Processor time of the broker per delivered message, in ns."""
        piece = ("x" * 80 + "\n").encode() * at_once
        begun, before = self.received, cpu_ns(self.broker)
        for count in range(messages // at_once):
            wanted = begun + (count + 1) * at_once * len(self.receivers)
            self.pump.send(self.sender, piece)
            self.pump.run(lambda want=wanted: self.received >= want, "all have it", FLOOD_S)
        return (cpu_ns(self.broker) - before) / (messages * len(self.receivers))


def bench_cpu(folder):
    """The same load on a broker with the log and on one without, in turn; the log as it is shipped."""
    loads = ((8, 64, 320_000, 1.25), (8, 1, 12_000, 1.25), (100, 64, 51_200, 1.1), (100, 1, 4_000, 1.1))
    for fan_out, at_once, messages, goal in loads:
        log = folder / f"cpu{fan_out}-{at_once}"
        ratios, with_ns, without_ns = [], [], []
        with start_broker() as plain, start_broker(PLUGINS + log_section(log)) as logged:
            rooms = [Room(plain, fan_out), Room(logged, fan_out)]
            for room in rooms:  # not measured: memory is taken for the first time
                room.talk(messages // 4 // at_once * at_once, at_once)
            for count in range(OPTIONS.rounds):
                order = rooms if count % 2 else rooms[::-1]
                cost = {}
                for room in order:
                    warm_memory(folder, messages * RECORD_BYTES)
                    cost[id(room)] = room.talk(messages, at_once)
                without_ns.append(cost[id(rooms[0])])
                with_ns.append(cost[id(rooms[1])])
                ratios.append(with_ns[-1] / without_ns[-1])
            for room in rooms:
                room.pump.close()
        what = f"cpu, fan-out {fan_out}, {at_once} messages at once"
        show(f"{what}, without a log", without_ns, " ns per delivered message")
        show(f"{what}, with a log", with_ns, " ns per delivered message")
        show(f"{what}, ratio", ratios, " x", f"; goal: at most {goal}")
        shutil.rmtree(log)


def main():
    benches = {
        "append": bench_append,
        "start": bench_start,
        "latest": bench_latest,
        "cpu": bench_cpu,
    }
    with tempfile.TemporaryDirectory(prefix="roda-bench-", dir=OPTIONS.folder) as folder:
        for name in OPTIONS.what or benches:
            benches[name](Path(folder))


if __name__ == "__main__":
    main()
