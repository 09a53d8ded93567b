#!/usr/bin/env python3
"""An installed roda: the files that a package has, and what roda.pc says."""

import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

BUILD = os.environ["RODA_BUILD"]


def call(*command, **options):
    """Output of a command that must succeed."""
    run = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, check=False, **options
    )
    if run.returncode != 0:
        raise AssertionError(f"{command} ends with {run.returncode}:\n{run.stdout}{run.stderr}")
    return run.stdout.strip()


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="roda-install-")
        cls.top = Path(cls.folder.name)
        call("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", cls.top)
        cls.files = {"/" + str(f.relative_to(cls.top)) for f in cls.top.rglob("*") if f.is_file()}

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def one(self, ending):
        found = [f for f in self.files if f.endswith(ending)]
        self.assertEqual(len(found), 1, f"{ending} in {sorted(self.files)}")
        return self.top / found[0][1:]

    def package(self, *arguments):
        """pkg-config that knows this roda and no other."""
        environment = dict(os.environ)
        environment["PKG_CONFIG_LIBDIR"] = str(self.one("/roda.pc").parent)
        environment["PKG_CONFIG_SYSROOT_DIR"] = str(self.top)
        # A default include folder counts as well: here it is not the system's.
        environment["PKG_CONFIG_ALLOW_SYSTEM_CFLAGS"] = "1"
        return call("pkg-config", *arguments, "roda", env=environment)

    def test_files(self):
        for ending in (
            "/bin/roda",
            "/include/roda/plugin.h",
            "/include/roda/rooms.h",
            "/etc/roda/roda.conf",
            "/lib/systemd/system/roda.service",
            "/lib/sysusers.d/roda.conf",
        ):
            self.one(ending)
        plugins = {Path(f).stem for f in self.files if f.endswith(".so")}
        self.assertLessEqual({"rooms", "line", "stats"}, plugins)

    def test_nothing_names_the_build(self):
        """Scripts and units must not point into the tree they were built in."""
        for file in sorted(self.files):
            path = self.top / file[1:]
            if path.suffix in (".pc", ".service", ".conf", ".h"):
                text = path.read_text()
                self.assertNotIn(BUILD, text, file)
                self.assertNotIn(os.environ["RODA_SOURCE_DIR"], text, file)
                self.assertIsNone(re.search(r"@\w+@", text), file)

    def test_package_variables(self):
        header = self.one("/include/roda/plugin.h").read_text()
        major = re.search(r"define RODA_ABI_MAJOR (\d+)", header).group(1)
        minor = re.search(r"define RODA_ABI_MINOR (\d+)", header).group(1)
        self.assertEqual(self.package("--variable=abi"), f"{major}.{minor}")
        plugin_folder = self.package("--variable=plugindir")
        self.assertEqual(Path(plugin_folder).name, "roda")
        rooms = self.one("/rooms.so")
        self.assertTrue(str(rooms.parent).endswith(plugin_folder.removeprefix(str(self.top))))


if __name__ == "__main__":
    unittest.main(verbosity=2)
