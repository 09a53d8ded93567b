#!/usr/bin/env python3
"""conf/roda.conf and the reference in roda.conf(5) say what the option tables say.

    test_conf2doc.py            compares
    test_conf2doc.py --write    writes both anew (RODA_SOURCE_DIR, RODA_BUILD: the two trees)
"""

import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

SOURCE = Path(os.environ.get("RODA_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("RODA_BUILD", SOURCE / "build"))
CONF = SOURCE / "conf" / "roda.conf"
MANUAL = SOURCE / "docs" / "roda.conf.5.scd"

# What conf/roda.conf starts, in the order in which it stands there.
PLUGINS = ["ratelimit", "rooms", "line", "log", "stats"]
BEGIN = "; What follows is made by conf2doc; do not edit it.\n\n"
END = "; This is where conf2doc ends.\n"


def generate(what):
    modules = [str(BUILD / "plugins" / name / (name + ".so")) for name in PLUGINS]
    run = subprocess.run(
        [str(BUILD / "tools" / "conf2doc"), what, *modules],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise AssertionError(run.stderr)
    return run.stdout


def parts(manual):
    """What stands before, inside and behind the generated part."""
    before, rest = manual.split(BEGIN)
    inside, behind = rest.split(END)
    return before, inside, behind


def write():
    CONF.write_text(generate("conf"))
    before, _, behind = parts(MANUAL.read_text())
    MANUAL.write_text(before + BEGIN + generate("manual") + END + behind)


class Documents(unittest.TestCase):
    maxDiff = None
    remedy = "run tests/tools/test_conf2doc.py --write"

    def test_file(self):
        self.assertEqual(CONF.read_text(), generate("conf"), self.remedy)

    def test_manual(self):
        self.assertEqual(parts(MANUAL.read_text())[1], generate("manual"), self.remedy)

    def test_file_is_short(self):
        """Nobody has to scroll sideways."""
        for number, line in enumerate(CONF.read_text().split("\n"), 1):
            self.assertLessEqual(len(line), 82, f"line {number}")

    @unittest.skipUnless(shutil.which("scdoc"), "scdoc is not installed")
    def test_manual_is_scdoc(self):
        run = subprocess.run(
            ["scdoc"], input=MANUAL.read_text(), capture_output=True, text=True, check=False
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("max_connections", run.stdout)

    def test_a_missing_plugin_is_told(self):
        run = subprocess.run(
            [str(BUILD / "tools" / "conf2doc"), "conf", "/nowhere.so"],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(run.returncode, 1)
        self.assertIn("/nowhere.so", run.stderr)


if __name__ == "__main__":
    if "--write" in sys.argv:
        write()
    else:
        unittest.main(verbosity=2)
