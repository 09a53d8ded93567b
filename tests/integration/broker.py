"""The broker as a program under test: started with a configuration of its own, watched through its
messages on stderr and the numbers of the plugin stats, and ended with a look at how it ended.

    with Broker(workers=2) as broker:
        ana = LineClient(broker, "ana")

Nothing here sleeps for a fixed time: whatever is waited for is a condition, and PATIENCE_S only
says when to give up. A broker that leaves the `with` block must have stopped with status 0, without
a sanitizer's finding, within its own shutdown_grace.
"""

import ctypes
import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

BINARY = os.environ["RODA_BINARY"]
PLUGIN_DIR = os.environ["RODA_PLUGIN_DIR"]
SOURCE_DIR = Path(os.environ.get("RODA_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BUILD_KIND = os.environ.get("RODA_BUILD_KIND", "plain")
PLAIN = BUILD_KIND == "plain"
PATIENCE_S = {"plain": 30, "asan": 90, "tsan": 150}[BUILD_KIND]

TCP = """
[listener tcp]
address = 127.0.0.1
port = 0
protocol = line
"""
UDP = """
[listener udp]
transport = udp
address = 127.0.0.1
port = 0
protocol = line
"""
UNIX = """
[listener local]
transport = unix
path = chat.sock
protocol = line
"""
PLUGINS = """
[plugin rooms]
[plugin line]
[plugin stats]
"""
STATS = """
[listener stats]
transport = unix
path = stats.sock
mode = 0600
protocol = stats
"""

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
SANITIZER = re.compile(r"Sanitizer|runtime error:|LeakSanitizer")


def scaled(plain, sanitized):
    """A count for the plain build, and a smaller one where a sanitizer makes all slow."""
    return plain if PLAIN else sanitized


def wait_until(condition, what, patience_s=PATIENCE_S, every_s=0.01):
    """Asks again and again until the condition is true; returns what it returned."""
    deadline = time.monotonic() + patience_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {patience_s} s")
        time.sleep(every_s)


class Stats(dict):
    """Totals by name; workers(name) has one value per worker."""

    @classmethod
    def parse(cls, text):
        stats = cls()
        stats.per_worker = {}
        for line in text.splitlines():
            name, value = line.split(" ")
            base, dot, worker = name.rpartition(".")
            if dot and worker.isdigit():
                stats.per_worker.setdefault(base, {})[int(worker)] = int(value)
            else:
                stats[name] = int(value)
        return stats

    def workers(self, name):
        values = self.per_worker[name]
        return [values[worker] for worker in sorted(values)]


class Broker:
    """One running broker. Every argument that is text goes into the configuration as it stands."""

    def __init__(
        self,
        workers=1,
        listeners=TCP + UDP + UNIX,
        core="",
        messages="",
        limits="",
        plugins=PLUGINS,
        prefix=(),
        environment=None,
        descriptors=None,
        ready=True,
        state_dir=None,
        expect_status=0,
    ):
        self.folder = tempfile.TemporaryDirectory(prefix="roda-test-", ignore_cleanup_errors=True)
        self.state_dir = Path(state_dir or self.folder.name)
        self.conf = Path(self.folder.name) / "roda.conf"
        # A test may ask as often as it likes.
        unlimited = "ratelimit.messages = off\n" if "[plugin ratelimit]" in plugins else ""
        self.conf.write_text(
            f"[core]\nworkers = {workers}\nstate_dir = {self.state_dir}\n{core}\n"
            f"[messages]\n{messages}\n[limits]\n{limits}\n{listeners}\n{STATS}{unlimited}\n{plugins}\n"
        )
        self.workers = workers
        self.expect_status = expect_status
        self.lines = []
        self.ended_reading = False
        self.changed = threading.Condition()
        self.ports = {}
        self.stats_socket = None
        self.before_stop = []  # functions; who does not read the goodbye keeps the broker waiting

        def before_exec():
            # A test that is killed takes its broker with it.
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        # A session of its own: a terminal's signals are for the test.
        self.process = subprocess.Popen(
            [*prefix, BINARY, "-c", str(self.conf)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "RODA_PLUGIN_DIR": PLUGIN_DIR, **(environment or {})},
            start_new_session=True,
            preexec_fn=before_exec,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if ready:
            try:
                self.wait_message(r"is ready")
            except BaseException:
                self.kill()
                raise
            self._find_ports()

    def _read(self):
        for line in self.process.stderr:
            with self.changed:
                self.lines.append(line.decode(errors="backslashreplace").rstrip("\n"))
                self.changed.notify_all()
        self.process.stderr.close()
        with self.changed:
            self.ended_reading = True
            self.changed.notify_all()

    def _find_ports(self):
        for line in self.messages():
            match = re.search(r"\[listener (\S+)\] listening on (?:tcp|udp) (\S+):(\d+) ", line)
            if match:
                self.ports.setdefault(match.group(1), int(match.group(3)))

    # ---- what it says ------------------------------------------------------------------------

    def messages(self):
        with self.changed:
            return list(self.lines)

    def text(self):
        return "\n".join(self.messages())

    def wait_message(self, pattern, patience_s=PATIENCE_S, count=1):
        """Waits for a message on stderr; returns the match. count: until so many lines match."""
        compiled = re.compile(pattern)
        deadline = time.monotonic() + patience_s
        seen, found = 0, []
        with self.changed:
            while True:
                while seen < len(self.lines):
                    match = compiled.search(self.lines[seen])
                    seen += 1
                    if match:
                        found.append(match)
                        if len(found) == count:
                            return match
                left_s = deadline - time.monotonic()
                if left_s <= 0 or (self.ended_reading and seen == len(self.lines)):
                    tail = "\n".join(self.lines[-40:])
                    raise AssertionError(
                        f"no message like {pattern!r} ({len(found)} of {count}):\n{tail}"
                    )
                self.changed.wait(left_s)

    # ---- where it listens ----------------------------------------------------------------------

    def address(self, listener="tcp"):
        return ("127.0.0.1", self.ports[listener])

    def path(self, name="chat.sock"):
        return str(self.state_dir / name)

    def connect(self, listener="tcp"):
        """A blocking socket; the name of a listener, or "unix"."""
        if listener == "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.path())
            return sock
        sock = socket.create_connection(self.address(listener))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    # ---- numbers ---------------------------------------------------------------------------------

    def stats(self):
        if not self.stats_socket:
            self.stats_socket = socket.socket(socket.AF_UNIX)
            self.stats_socket.settimeout(PATIENCE_S)
            self.stats_socket.connect(self.path("stats.sock"))
        self.stats_socket.sendall(b"\n")
        answer = b""
        while not answer.endswith(b"\n\n"):
            piece = self.stats_socket.recv(65536)
            if not piece:
                raise AssertionError("the connection to stats ended:\n" + self.text())
            answer += piece
        return Stats.parse(answer.decode().rstrip("\n"))

    def wait_stats(self, condition, what, patience_s=PATIENCE_S):
        """Until condition(stats) is true."""
        last = {}

        def holds():
            last["stats"] = self.stats()
            return condition(last["stats"]) and last["stats"]

        try:
            return wait_until(holds, what, patience_s, 0.02)
        except AssertionError as problem:
            counted = {name: value for name, value in last["stats"].items() if value}
            raise AssertionError(f"{problem}; stats: {counted}") from None

    def rss_bytes(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the broker is gone:\n" + self.text())

    def private_dirty_bytes(self):
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Private_Dirty:\s+(\d+) kB", rollup, re.M).group(1)) * 1024

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def worker_of(self, connect):
        """What connect() returns, and the worker that serves the connection that it makes."""
        before = self.stats().workers("connections")
        made = connect()
        after = self.stats().workers("connections")
        changed = [w for w, (old, new) in enumerate(zip(before, after)) if new > old]
        assert len(changed) == 1, f"one connection more, and nothing else: {before} -> {after}"
        return made, changed[0]

    # ---- the end -----------------------------------------------------------------------------------

    def signal(self, number):
        self.process.send_signal(number)

    def wait_end(self, patience_s=PATIENCE_S):
        """Exit status; kills the broker if it does not end."""
        try:
            status = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.reader.join(PATIENCE_S)
            raise AssertionError(f"did not end within {patience_s} s:\n{self.tail()}") from None
        self.reader.join(PATIENCE_S)
        return status

    def tail(self, lines=60):
        return "\n".join(self.messages()[-lines:])

    def check_findings(self):
        findings = [line for line in self.messages() if SANITIZER.search(line)]
        if findings:
            raise AssertionError("a sanitizer found something:\n" + self.text())

    def stop(self):
        """SIGTERM, and everything that must hold then."""
        for function in self.before_stop:
            function()
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        status = self.wait_end()
        if self.stats_socket:
            self.stats_socket.close()
            self.stats_socket = None
        self.check_findings()
        if status != self.expect_status:
            raise AssertionError(f"ended with status {status}:\n{self.tail()}")
        if status == 0 and not any("stopped" in line for line in self.messages()):
            raise AssertionError(f"did not say that it stopped:\n{self.tail()}")
        self.folder.cleanup()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(PATIENCE_S)
        if self.stats_socket:
            self.stats_socket.close()
            self.stats_socket = None
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        if kind is None:
            try:
                self.stop()
            finally:
                self.kill()
            return
        self.kill()
        # What it said belongs to the failure.
        print(f"---- messages of the broker (status {self.process.returncode})")
        print(self.tail(), flush=True)


def run_broker(*arguments, environment=None, patience_s=PATIENCE_S, prefix=()):
    """The program with some arguments, to its end: (status, stdout, stderr)."""
    done = subprocess.run(
        [*prefix, BINARY, *[str(argument) for argument in arguments]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=patience_s,
        check=False,
        env={**os.environ, "RODA_PLUGIN_DIR": PLUGIN_DIR, **(environment or {})},
    )
    if SANITIZER.search(done.stderr):
        raise AssertionError("a sanitizer found something:\n" + done.stderr)
    return done.returncode, done.stdout, done.stderr


def raise_descriptors():
    """This process may open as many descriptors as it is allowed to raise its limit to."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
