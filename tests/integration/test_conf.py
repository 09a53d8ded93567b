#!/usr/bin/env python3
"""The configuration as its user meets it: every mistake is told with file, line, section and key, all
of them at once, and nothing is opened or run before all is right."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from broker import PLAIN, SOURCE_DIR, Broker, run_broker
from clients import LineClient

TEST_PLUGINS = Path(os.environ["RODA_TEST_PLUGIN_DIR"])
GOOD = """
[listener chat]
port = 3000
protocol = line
[plugin rooms]
"""


class Conf(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="roda-conf-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.conf = self.folder / "roda.conf"

    def run_with(self, text, *arguments, **options):
        self.conf.write_text(text)
        return run_broker("-c", self.conf, *arguments, **options)

    def check(self, text, *patterns):
        """--check refuses, and says exactly so many things as there are patterns."""
        status, stdout, stderr = self.run_with(text, "--check")
        self.assertEqual(status, 1, f"accepted:\n{text}\n{stdout}{stderr}")
        lines = stderr.replace(str(self.folder) + "/", "").splitlines()
        told = len(patterns)
        self.assertEqual(
            lines[-1:],
            [f"{told} error{'' if told == 1 else 's'}; configuration not usable"],
            f"{text}\n{stderr}",
        )
        for line, pattern in zip(lines, patterns):
            self.assertRegex(line, pattern)
        # Without --check the same stands there, and nothing was begun.
        status, _, again = self.run_with(text)
        self.assertNotEqual(status, 0)
        self.assertEqual(again, stderr)

    # ---- what is right ----------------------------------------------------------------------------

    def test_smallest(self):
        status, stdout, stderr = self.run_with(GOOD, "--check")
        self.assertEqual((status, stderr), (0, ""))
        self.assertIn("usable", stdout)

    def test_default_file(self):
        """conf/roda.conf as it stands, but for a folder of the test's own."""
        text = (SOURCE_DIR / "conf" / "roda.conf").read_text()
        text, count = re.subn(r"(?m)^#state_dir = *$", f"state_dir = {self.folder}", text)
        self.assertEqual(count, 1, "the default file shows state_dir")
        status, stdout, stderr = self.run_with(text, "--check")
        self.assertEqual((status, stderr), (0, ""))
        self.assertIn("usable", stdout)

    def test_dump_is_a_configuration(self):
        """What --dump prints says the same when it is read again."""
        text = GOOD + "[limits]\nline_bytes = 2k\n[plugin line]\nmotd = olá\n"
        status, first, stderr = self.run_with(text, "--dump")
        self.assertEqual((status, stderr), (0, ""))
        self.assertRegex(first, r"(?m)^line_bytes = 2k +; .*roda\.conf:7$")
        self.assertRegex(first, r"(?m)^motd = olá +; .*roda\.conf:9$")
        self.assertRegex(first, r"(?m)^send_queue = 256k +; default$")
        status, second, stderr = self.run_with(first, "--dump")
        self.assertEqual((status, stderr), (0, ""))

        def without_places(dump):
            lines = [re.sub(r"\s+;.*", "", line) for line in dump.splitlines()]
            return [line for line in lines if line and not line.startswith(";")]

        self.assertEqual(without_places(second), without_places(first))

    def test_plugin_help(self):
        for name, words in (("line", ["welcome", "motd"]), ("rooms", ["first_room"])):
            status, stdout, stderr = run_broker("--plugin-help", name)
            self.assertEqual((status, stderr), (0, ""))
            for word in words:
                self.assertRegex(stdout, rf"(?m)^{word} =")
        status, stdout, stderr = run_broker("--plugin-help", "nothing")
        self.assertEqual(status, 1)
        self.assertRegex(stderr, r"^roda: nothing: no such plugin")

    def test_version(self):
        status, stdout, stderr = run_broker("--version")
        self.assertEqual((status, stderr), (0, ""))
        self.assertRegex(stdout, r"^roda \d+\.\d+")
        self.assertRegex(stdout, r"(?m)^plugin ABI \d+\.\d+$")
        self.assertRegex(stdout, r"(?m)^kernel \S+, io_uring usable")

    def test_usage(self):
        self.assertEqual(run_broker("--help")[0], 0)
        for wrong in (["--nonsense"], ["extra"], ["-c"]):
            status, _, stderr = run_broker(*wrong)
            self.assertEqual(status, 2, wrong)
            self.assertIn("usage:", stderr)
        status, _, stderr = run_broker("-c", self.folder / "missing.conf")
        self.assertEqual(status, 1)
        self.assertIn("missing.conf", stderr)

    # ---- one mistake each ---------------------------------------------------------------------------

    def test_unknown_keys(self):
        """In every section, with the nearest valid name."""
        for section, key, nearest in (
            ("core", "worker", "workers"),
            ("messages", "levle", "level"),
            ("limits", "max_conections", "max_connections"),
            ("listener chat", "prot", "port"),
            ("plugin rooms", "first_rom", "first_room"),
            ("plugin line", "modt", "motd"),
        ):
            with self.subTest(section=section):
                text = GOOD
                if f"[{section}]" in text:
                    text = text.replace(f"[{section}]", f"[{section}]\n{key} = 1")
                else:
                    text += f"[{section}]\n{key} = 1\n"
                line = text.splitlines().index(f"{key} = 1") + 1
                self.check(
                    text,
                    rf'^roda\.conf:{line}: \[{section}\]\.{key}: unknown key; '
                    rf'did you mean "{nearest}"\?$',
                )

    def test_unknown_override(self):
        self.check(
            GOOD.replace("port = 3000", "port = 3000\nline.welcom = no"),
            r'^roda\.conf:4: \[listener chat\]\.line\.welcom: .*"(line\.)?welcome"',
        )
        self.check(
            GOOD.replace("port = 3000", "port = 3000\nrooms.max_rooms = 5"),
            r"^roda\.conf:4: \[listener chat\]\.rooms\.max_rooms: ",
        )

    def test_unknown_sections(self):
        self.check(GOOD + "[limit]\n", r'^roda\.conf:6: \[limit\]: unknown section; did you mean "limits"')
        self.check(GOOD + "[listener]\n", r"^roda\.conf:6: \[listener\]: the name is missing")

    def test_values(self):
        """Wrong type, out of range, without unit."""
        for section, line, reason in (
            ("core", "workers = many", r"workers: many: "),
            ("core", "workers = 257", r"workers: 257: .*256"),
            ("core", "workers = 1.5", r"workers: 1\.5: "),
            ("core", "shutdown_grace = 30", r"shutdown_grace: 30: .*30s"),
            ("core", "shutdown_grace = 2h", r"shutdown_grace: 2h: at most 1h"),
            ("core", "user = nobody-of-this-name-here", r"user: "),
            ("messages", "level = loud", r"level: loud: .*info"),
            ("messages", "format = xml", r"format: xml: .*text.*json"),
            ("messages", "mask_addresses = maybe", r"mask_addresses: maybe: .*yes"),
            ("limits", "line_bytes = 100", r"line_bytes: 100: .*512"),
            ("limits", "line_bytes = 1M", r"line_bytes: 1M: .*64k"),
            ("limits", "send_queue = 4q", r"send_queue: 4q: "),
            ("limits", "send_queues_total = 200%", r"send_queues_total: 200%: "),
            ("limits", "max_connections = 0", r"max_connections: 0: .*1"),
            ("limits", "max_connections = -5", r"max_connections: -5: "),
            ("limits", "max_connections = 99999999999999999999", r"max_connections: "),
            ("limits", "max_connections = 9999999", r"max_connections: .*only \d+ fit"),
            ("limits", "udp_session_rate = 64k", r"udp_session_rate: 64k: "),
            ("limits", "on_slow_reader = cry", r"on_slow_reader: cry: .*disconnect"),
            ("plugin line", "welcome = 2", r"welcome: 2: .*yes"),
            ("plugin line", "motd = " + "x" * 180 + "\nmotd = y", r"motd: .*twice"),
        ):
            with self.subTest(line=line[:60]):
                text = GOOD + f"[{section}]\n{line}\n"
                name = re.escape(f"[{section}]")
                self.check(text, rf"^roda\.conf:[78]: {name}\.{reason}")

    def test_listener_values(self):
        for old, new, reason in (
            ("port = 3000", "port = 70000", r"port: 70000: at most 65535"),
            ("port = 3000", "port = http", r"port: http: "),
            ("port = 3000\n", "", r"port: missing"),
            ("protocol = line\n", "", r"protocol: missing"),
            ("protocol = line", "protocol = jsn", r"protocol: jsn: no loaded plugin offers it .*line"),
            ("protocol = line", "protocol = lime", r'protocol: lime: .*"?line"?'),
            ("port = 3000", "port = 3000\naddress = localhost", r"address: localhost: .*127\.0\.0\.1"),
            ("port = 3000", "port = 3000\ntransport = sctp", r"transport: sctp: .*tcp"),
            ("port = 3000", "transport = unix", r"path: missing"),
            ("port = 3000", "port = 3000\nmode = 0600", r"mode: .*only for transport = unix"),
            ("port = 3000", "port = 3000\nlayers = tls", r"layers: tls: "),
        ):
            with self.subTest(new=new):
                text = GOOD.replace(old, new) + "[plugin line]\n"
                self.check(text, r"^roda\.conf:\d+: \[listener chat\]\." + reason)

    def test_all_at_once(self):
        text = """[core]
workers = none
wrkrs = 2
[limits]
line_bytes = 5
[listener chat]
port = 70000
protocol = jsn
[plugin rooms]
first_rom = x
"""
        self.check(
            text,
            r"^roda\.conf:2: \[core\]\.workers: none: ",
            r"^roda\.conf:3: \[core\]\.wrkrs: ",
            r"^roda\.conf:5: \[limits\]\.line_bytes: 5: ",
            r"^roda\.conf:7: \[listener chat\]\.port: 70000: ",
            r"^roda\.conf:8: \[listener chat\]\.protocol: jsn: ",
            r"^roda\.conf:10: \[plugin rooms\]\.first_rom: ",
        )

    def test_reader_rules(self):
        """What the packaged inih does otherwise: each case is told, or is not taken as it would."""
        self.check(GOOD + "[plugin line]\nmotd = " + "x" * 199 + "\n", r"^roda\.conf:7: .*longer than")
        self.check(GOOD + "[core]\nnovalue\n", r"^roda\.conf:7: ")
        self.check(GOOD + "[core]\nname = a\nname = b\n", r"^roda\.conf:8: .*twice.*roda\.conf:7")
        self.check(GOOD + "[plugin " + "x" * 60 + "]\n", r"^roda\.conf:6: ")
        # An indented line is a key of its own, not more of the one before.
        text = GOOD + "[plugin line]\nmotd = x\n\twelcome = no\n"
        status, stdout, stderr = self.run_with(text, "--dump")
        self.assertEqual((status, stderr), (0, ""))
        self.assertRegex(stdout, r"(?m)^motd = x +;")
        self.assertRegex(stdout, r"(?m)^welcome = no +;")
        # A comment inside quotes is told, but no error.
        text = GOOD + '[plugin line]\nmotd = "Hello ; world"\n'
        status, stdout, stderr = self.run_with(text, "--check")
        self.assertEqual(status, 0)
        self.assertRegex(stderr, r"roda\.conf:7: warning: .*;")

    def test_include(self):
        more = self.folder / "conf.d"
        more.mkdir()
        (more / "b.conf").write_text("[plugin line]\nmotd = from b\n")
        (more / "a.conf").write_text("[limits]\nline_bytes = 1k\n")
        text = "[core]\ninclude = conf.d/*.conf\n" + GOOD
        status, stdout, stderr = self.run_with(text, "--dump")
        self.assertEqual((status, stderr), (0, ""))
        self.assertRegex(stdout, r"(?m)^line_bytes = 1k +; .*conf\.d/a\.conf:2$")
        self.assertRegex(stdout, r"(?m)^motd = from b +; .*conf\.d/b\.conf:2$")
        (more / "c.conf").write_text("[limits]\nline_bytes = 2k\n")
        self.check(text, r"^conf\.d/c\.conf:2: \[limits\]\.line_bytes: .*twice.*a\.conf:2")

    def test_example_of_another_listener_option(self):
        """A listener's own limits and overrides are in effect for it alone."""
        listeners = """
[listener short]
address = 127.0.0.1
port = 0
protocol = line
line_bytes = 512
line.motd = short lines here
[listener long]
address = 127.0.0.1
port = 0
protocol = line
"""
        with Broker(listeners=listeners) as broker:
            with LineClient(broker, None, "short", welcome=False) as short:
                short.next(r"^\* motd: short lines here$")
                short.expect(r"^\* you are ")
                short.send("x" * 513)
                short.next(r"^! that line was not sent: too long")
                with LineClient(broker, None, "long", welcome=False) as other:
                    other.next(r"^\* you are ")
                    other.send("x" * 513)
                    short.expect(r"^lobby \S+: x{513}$")

    # ---- addresses in use ------------------------------------------------------------------------------

    def test_address_twice(self):
        self.check(
            GOOD + "[listener other]\nport = 3000\nprotocol = line\n",
            r"^roda\.conf:\d+: \[listener other\]\.\w+: .*\[listener chat\]",
            r"^roda\.conf:\d+: \[listener other\]\.\w+: .*\[listener chat\]",
        )
        unix = "[listener {}]\ntransport = unix\npath = x.sock\nprotocol = line\n"
        self.check(
            unix.format("one") + unix.format("two") + "[plugin rooms]\n",
            r"^roda\.conf:\d+: \[listener two\]\.path: .*\[listener one\]",
        )

    def test_address_of_another_process(self):
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            text = f"[core]\nstate_dir = {self.folder}\n[listener chat]\naddress = 127.0.0.1\n"
            text += f"port = {port}\nprotocol = line\n[plugin rooms]\n"
            status, _, stderr = self.run_with(text)
            self.assertEqual(status, 1)
            self.assertRegex(stderr, rf"roda\.conf:5: \[listener chat\]\.port: .*{port}")

    def test_address_of_another_broker(self):
        """The second is told so, instead of sharing the clients of the first."""
        with Broker(workers=2) as first, LineClient(first, "ana") as ana:
            for listener, words in (
                (f"address = 127.0.0.1\nport = {first.ports['tcp']}", r"\.port: "),
                (f"transport = udp\naddress = 127.0.0.1\nport = {first.ports['udp']}", r"\.port: "),
                (f"transport = unix\npath = {first.path()}", r"\.path: "),
            ):
                text = f"[core]\nworkers = 2\nstate_dir = {self.folder}\n[listener chat]\n"
                text += f"{listener}\nprotocol = line\n[plugin rooms]\n"
                status, _, stderr = self.run_with(text)
                self.assertEqual(status, 1, stderr)
                self.assertRegex(stderr, rf"roda\.conf:\d+: \[listener chat\]{words}")
            # The first goes on: its socket file was not taken away.
            for i in range(8):
                with LineClient(first, None, "unix") as other:
                    other.send(f"still {i}")
                    ana.expect(rf"^lobby \S+: still {i}$")

    # ---- where the log is -------------------------------------------------------------------------

    def test_directories_of_the_log(self):
        log = GOOD + "[plugin log]\n"
        self.check(log + "directory =\n", r"^roda\.conf:7: \[plugin log\]\.directory: .*name the dir")
        for directory, text in (
            ("log", "log"),
            ("log", "log/text"),
            ("log/", "./log/.//text/"),
            ("/var/log/roda", "/var/log//roda/text"),
            (".", "text"),
        ):
            self.check(
                log + f"directory = {directory}\ntext_directory = {text}\n",
                r"^roda\.conf:8: \[plugin log\]\.text_directory: .*it lies in \S+, where the segments",
            )
        for directory, text in (("log", ""), ("log", "logs"), ("log/segments", "log/text"), ("a/b", "a")):
            status, _, stderr = self.run_with(
                log + f"directory = {directory}\ntext_directory = {text}\n", "--check"
            )
            self.assertEqual((status, stderr), (0, ""))

    def test_a_directory_of_the_log_that_cannot_be_made(self):
        """The remedy is that of the very reason, and stands there once, however many workers find it."""
        (self.folder / "file").write_text("x")
        for directory, reason in (
            ("file", "Not a directory; .* is a file: name another"),
            ("file/log", "Not a directory; .* is a file: name another"),
            ("none/log", "No such file or directory; the directory above it is missing: make that one"),
        ):
            text = f"[core]\nworkers = 4\nstate_dir = {self.folder}\n"
            text += GOOD.replace("3000", "0") + f"[plugin log]\ndirectory = {directory}\n"
            status, _, stderr = self.run_with(text)
            self.assertEqual(status, 1, stderr)
            path = self.folder / directory
            told = re.findall(rf"error log: \[plugin log\] directory = {path}: (.*)", stderr)
            self.assertEqual(len(told), 1, stderr)
            self.assertRegex(told[0], reason)

    @unittest.skipUnless(os.geteuid() == 0, "only root can become somebody else")
    def test_a_directory_of_the_log_in_somebody_elses(self):
        self.folder.chmod(0o755)
        text = f"[core]\nuser = nobody\nworkers = 2\nstate_dir = {self.folder}\n"
        text += GOOD.replace("3000", "0") + "[plugin log]\n"
        (self.folder / "log").mkdir()
        closed = self.folder / "closed"
        closed.mkdir(mode=0o700)
        status, _, stderr = self.run_with(text + f"directory = {closed}/log\n")
        self.assertEqual(status, 1, stderr)
        told = re.findall(r"error log: \[plugin log\] directory = \S+: (.*)", stderr)
        self.assertEqual(len(told), 1, stderr)
        self.assertRegex(told[0], "Permission denied; let the broker's user write in the directory above")

    def test_stale_socket(self):
        """A socket file that nobody listens on is taken over; another kind of file is not."""
        path = self.folder / "chat.sock"
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(path))
        left.close()
        self.assertTrue(path.is_socket())
        with Broker(state_dir=self.folder) as broker, LineClient(broker, "ana", "unix") as ana:
            ana.sync()
        path.unlink(missing_ok=True)
        path.write_text("somebody's notes")
        text = f"[core]\nstate_dir = {self.folder}\n[listener chat]\ntransport = unix\n"
        text += "path = chat.sock\nprotocol = line\n[plugin rooms]\n"
        status, _, stderr = self.run_with(text)
        self.assertEqual(status, 1)
        self.assertRegex(stderr, r"roda\.conf:5: \[listener chat\]\.path: ")
        self.assertEqual(path.read_text(), "somebody's notes")

    def test_socket_mode(self):
        listeners = """
[listener open]
transport = unix
path = open.sock
mode = 0666
protocol = line
[listener mine]
transport = unix
path = mine.sock
mode = 0600
protocol = line
"""
        with Broker(listeners=listeners) as broker:
            modes = [os.stat(broker.path(name)).st_mode & 0o777 for name in ("open.sock", "mine.sock")]
            self.assertEqual(modes, [0o666, 0o600])

    # ---- plugins -------------------------------------------------------------------------------------------

    def test_plugin_missing(self):
        self.check(GOOD + "[plugin nowhere]\n", r"^roda\.conf:6: \[plugin nowhere\]: no such plugin: ")
        self.check(
            GOOD + f"[plugin nowhere]\npath = {self.folder}/nowhere.so\n",
            r"^roda\.conf:7: \[plugin nowhere\]\.path: .*nowhere\.so: cannot be read",
        )

    def test_plugin_of_something_else(self):
        other = self.folder / "other.so"
        other.write_text("not even a shared object")
        self.check(GOOD + f"[plugin other]\npath = {other}\n", r"\[plugin other\]\.path: .*is no shared")

    def test_need_missing(self):
        self.check(
            "[listener chat]\nport = 3000\nprotocol = line\n",
            r'needs the service "rooms/1", which no loaded plugin offers',
        )

    def test_wrong_abi(self):
        """Refused before any code of it runs: its constructor would write a file."""
        mark, plugin = self.folder / "mark", TEST_PLUGINS / "wrong_abi.so"
        environment = {"RODA_TEST_MARK": str(mark)}
        text = GOOD + f"[plugin wrong_abi]\npath = {plugin}\n"
        for arguments in (["--check"], []):
            status, _, stderr = self.run_with(text, *arguments, environment=environment)
            self.assertEqual(status, 1)
            self.assertRegex(
                stderr,
                r"roda\.conf:7: \[plugin wrong_abi\]\.path: .*wrong_abi\.so: was built for plugin "
                r"ABI 1\.0, this broker offers 0\.\d+; update the broker, or build",
            )
            self.assertFalse(mark.exists(), "the constructor ran")
        status, _, _ = run_broker(
            "--plugin-help", "wrong_abi", "--plugin-dir", TEST_PLUGINS, environment=environment
        )
        self.assertEqual(status, 1)
        self.assertFalse(mark.exists(), "the constructor ran")
        # The test can fail: whoever loads it without a look makes the mark.
        load = f"import ctypes; ctypes.CDLL({str(plugin)!r}, mode=1)"
        subprocess.run(
            [sys.executable, "-c", load], env={**os.environ, **environment}, check=PLAIN
        )
        self.assertTrue(mark.exists() or not PLAIN)

    def test_check_opens_nothing(self):
        """--check of a usable file beside the running broker: no socket, no folder."""
        state = self.folder / "state"
        text = f"[core]\nstate_dir = {state}\n" + GOOD
        status, _, _ = self.run_with(text, "--check")
        self.assertEqual(status, 0)
        self.assertFalse(state.exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
