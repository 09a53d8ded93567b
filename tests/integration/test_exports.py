#!/usr/bin/env python3
"""What the executable exports is what the public headers declare: no more, no less."""

import os
import re
import subprocess
import unittest
from pathlib import Path

HEADERS = Path(os.environ["RODA_SOURCE_DIR"]) / "core" / "include" / "roda"
BINARY = os.environ["RODA_BINARY"]


def declared():
    """Names of the functions in plugin.h; the headers of services offer tables, no functions."""
    text = (HEADERS / "plugin.h").read_text()
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    # Without preprocessor lines (and what they continue), and without the insides of braces.
    text = re.sub(r"^\s*#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.M)
    text = re.sub(r'extern "C" \{', "", text)
    while "{" in text:
        shorter = re.sub(r"\{[^{}]*\}", "", text)
        if shorter == text:
            break
        text = shorter
    names = set()
    for statement in text.split(";"):
        statement = " ".join(statement.split())
        if statement.startswith("typedef"):
            continue
        match = re.match(r"[\w\s*]*?\b(roda_\w+) ?\(", statement)
        if match:
            names.add(match.group(1))
    return names


def exported():
    run = subprocess.run(
        ["nm", "-D", "--defined-only", BINARY], capture_output=True, text=True, check=True
    )
    return {line.split()[-1] for line in run.stdout.splitlines() if line.strip()}


class Exports(unittest.TestCase):
    def test_headers_are_read(self):
        names = declared()
        for name in ("roda_msg_make", "roda_submit", "roda_person_make", "roda_conn_close"):
            self.assertIn(name, names)

    def test_all_that_is_declared_is_exported(self):
        self.assertEqual(sorted(declared() - exported()), [])

    def test_no_other_function_is_exported(self):
        ours = {name for name in exported() if name.startswith("roda_")}
        self.assertEqual(sorted(ours - declared()), [])

    def test_no_internal_name_is_exported(self):
        if os.environ["RODA_BUILD_KIND"] != "plain":
            self.skipTest("a sanitizer exports its own names")
        # What the C start-up code and the linker define in every executable.
        usual = re.compile(r"_|(stdin|stdout|stderr|environ|program_invocation\w*|opt\w+)(@|$)")
        others = [n for n in exported() if not n.startswith("roda_") and not usual.match(n)]
        self.assertEqual(sorted(others), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
