#!/usr/bin/env python3
"""A plugin of a stranger: made by roda-new-plugin in an empty folder, built with what is installed
of roda and nothing else, checked, loaded by path and by name, and seen at work."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

BUILD = os.environ.get("RODA_BUILD") or os.environ["MESON_BUILD_ROOT"]
SOURCE = os.environ.get("RODA_SOURCE_DIR") or str(Path(__file__).resolve().parents[2])
PATIENCE_S = 20


def run(*command, **options):
    return subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, check=False, **options
    )


def call(*command, **options):
    """Output of a command that must succeed."""
    done = run(*command, **options)
    if done.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(str, command))} ends with {done.returncode}:\n"
            f"{done.stdout}{done.stderr}"
        )
    return done.stdout


class Broker:
    """A broker that runs until the with-block ends."""

    def __init__(self, binary, conf):
        self.binary, self.conf = binary, conf

    def __enter__(self):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [self.binary, "-c", self.conf], stderr=self.errors, cwd=Path(self.conf).parent
        )
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the broker does not stop:\n{self.messages()}") from None
        finally:
            self.errors.close()

    def messages(self):
        self.errors.seek(0)
        return self.errors.read()

    def connect(self, path):
        """Waits for the listener."""
        end = time.monotonic() + PATIENCE_S
        while True:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.settimeout(PATIENCE_S)
            try:
                client.connect(str(path))
                return client
            except OSError as problem:
                client.close()
                if self.process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"{problem}:\n{self.messages()}") from None
                time.sleep(0.02)


def read_until(client, wanted):
    got = b""
    while wanted not in got:
        more = client.recv(4096)
        if not more:
            raise AssertionError(f"closed before {wanted!r} came: {got!r}")
        got += more
    return got


class OutOfTree(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="roda-out-of-tree-")
        cls.top = Path(cls.folder.name)
        destination = cls.top / "root"
        call("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", destination)
        packages = list(destination.rglob("roda.pc"))
        assert len(packages) == 1, packages
        # As if it had been configured for this place.
        for package in packages[0].parent.glob("*.pc"):
            text = package.read_text()
            prefix = re.search(r"^prefix=(.*)$", text, re.M).group(1)
            cls.prefix = Path(f"{destination}{prefix}")
            package.write_text(text.replace(f"prefix={prefix}", f"prefix={cls.prefix}", 1))
        cls.environment = {
            "PATH": f"{cls.prefix}/bin:{os.environ['PATH']}",
            "HOME": str(cls.top),
            "PKG_CONFIG_PATH": str(packages[0].parent),
        }
        cls.plugins = Path(
            call("pkg-config", "--variable=plugindir", "roda", env=cls.environment).strip()
        )
        cls.roda = cls.prefix / "bin/roda"
        # The installed broker looks for plugins where it was configured to, which is not here.
        programs = cls.top / "programs"
        programs.mkdir()
        wrapper = programs / "roda"
        wrapper.write_text(f'#!/bin/sh\nexec {cls.roda} --plugin-dir {cls.plugins} "$@"\n')
        wrapper.chmod(0o755)
        cls.environment["PATH"] = f"{programs}:{cls.environment['PATH']}"
        # An empty folder, and what docs/plugins.md says to type there.
        cls.work = cls.top / "work"
        cls.work.mkdir()
        cls.document = (Path(SOURCE) / "docs/plugins.md").read_text()
        cls.commands = re.findall(r"^```sh\n(.*?)^```", cls.document, re.M | re.S)
        cls.typed = run("sh", "-ec", cls.commands[0], cwd=cls.work, env=cls.environment)
        cls.project = cls.work / "few-words"
        cls.build = cls.project / "build"

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def conf(self, plugin, protocol="stats"):
        """A configuration in a folder of its own; everything is below that folder."""
        folder = tempfile.mkdtemp(dir=self.top)
        path = Path(folder) / "roda.conf"
        path.write_text(
            f"[core]\nworkers = 1\nstate_dir = {folder}\nplugin_dir = {self.plugins}\n"
            f"[listener local]\ntransport = unix\npath = chat.sock\nprotocol = {protocol}\n"
            f"{plugin}"
        )
        return path

    def check(self, conf):
        return run(self.roda, "-c", conf, "--check", cwd=self.work)

    def test_the_document_can_be_typed(self):
        self.assertIn("roda-new-plugin few-words", self.commands[0])
        self.assertEqual(self.typed.returncode, 0, self.typed.stdout + self.typed.stderr)
        call("sh", "-ec", self.commands[1], cwd=self.project, env=self.environment)
        self.assertTrue((self.plugins / "few-words.so").exists())

    def test_code_in_the_document_compiles(self):
        code = re.findall(r"^```c\n(.*?)^```", self.document, re.M | re.S)
        self.assertGreater(len(code), 5)
        flags = call("pkg-config", "--cflags", "roda", env=self.environment).split()
        for block in code:
            call("gcc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wno-unused-function",
                 "-Werror", "-fsyntax-only", *flags, "-x", "c", "-",
                 input="#include <errno.h>\n#include <roda/rooms.h>\n" + block)  # fmt: skip

    def test_nothing_of_the_example_is_left(self):
        for file in self.project.glob("*"):
            if file.is_file():
                self.assertNotIn("example", file.read_text().lower(), file.name)
                self.assertNotIn("example", file.name)

    def test_builds_without_a_warning(self):
        call("meson", "setup", self.top / "strict", self.project, "--werror",
             "-Dwarning_level=3", env=self.environment)  # fmt: skip
        call("meson", "compile", "-C", self.top / "strict", env=self.environment)

    def test_uses_only_public_headers(self):
        """What the compiler read of roda lies in the installed include folder."""
        headers = call("ninja", "-C", self.build, "-t", "deps", env=self.environment)
        self.assertIn(str(self.prefix / "include/roda/plugin.h"), headers)
        self.assertNotIn(SOURCE + "/", headers)

    def test_its_own_test_passes(self):
        self.assertTrue((self.build / "test-few-words").exists(), "no fake core is installed")
        call("meson", "test", "-C", self.build, env=self.environment)

    def test_loads_by_path(self):
        module = self.build / "few-words.so"
        done = self.check(self.conf(f"[plugin few-words]\npath = {module}\nwords = 3\n"))
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_its_options_are_checked(self):
        module = self.build / "few-words.so"
        done = self.check(self.conf(f"[plugin few-words]\npath = {module}\nwords = 0\n"))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(
            done.stdout + done.stderr, r"roda\.conf:11: \[plugin few-words\]\.words: 0"
        )

    def test_loads_by_name_where_it_was_installed(self):
        conf = self.conf("[plugin few-words]\nwords = 3\n")
        call("meson", "install", "-C", self.build, env=self.environment)
        done = self.check(conf)
        self.assertEqual(done.returncode, 0, done.stderr)
        (self.plugins / "few-words.so").unlink()
        done = self.check(conf)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("few-words", done.stdout + done.stderr)

    def test_acts(self):
        module = self.build / "few-words.so"
        conf = self.conf(
            f"[plugin few-words]\npath = {module}\nwords = 3\n[plugin rooms]\n", "line"
        )
        with Broker(self.roda, conf) as broker:
            with broker.connect(conf.parent / "chat.sock") as client:
                client.sendall(b"one two three\n")
                client.sendall(b"one two three four\n/ping\n")
                self.assertIn(b"at most 3 words", read_until(client, b"pong"))

    def test_refuses_bad_names_and_places(self):
        for name in ("", "a", "Upper", "1st", "a b", "../up", "x-", "a--b", "core", "line",
                     "é", "x" * 33):  # fmt: skip
            done = run("roda-new-plugin", name, cwd=self.work, env=self.environment)
            self.assertNotEqual(done.returncode, 0, name)
            self.assertIn("roda-new-plugin:", done.stderr, name)
        done = run("roda-new-plugin", "few-words", cwd=self.work, env=self.environment)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("is there already", done.stderr)
        self.assertEqual([f.name for f in self.work.iterdir()], ["few-words"])

    def test_works_in_the_source_tree_too(self):
        call(Path(SOURCE) / "tools/roda-new-plugin", "few-words", self.top / "again")
        for file in sorted(self.project.glob("*")):
            if file.is_file():
                self.assertEqual(file.read_text(), (self.top / "again" / file.name).read_text())
        shutil.rmtree(self.top / "again")


if __name__ == "__main__":
    unittest.main(verbosity=2)
