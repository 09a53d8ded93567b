#!/usr/bin/env python3
"""tools/tidy finds what it is there to find: one small tree per rule that breaks it."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(os.environ["RODA_SOURCE_DIR"])
MODEL = "/* Model. */\n"
HEADER = "#ifndef {0}\n#define {0}\n{1}#endif\n"

# Check: files that break it, and a word of what it must say.
BROKEN = {
    "layers": ({"core/base/a.c": MODEL + '#include "net/b.h"\n'}, "above"),
    "core-names-no-plugin": (
        {
            "plugins/chess/chess.c": MODEL,
            "core/net/a.c": MODEL + 'const char *name = "chess";\n',
        },
        "chess",
    ),
    "plugin-includes": ({"plugins/p/p.c": MODEL + '#include "base/list.h"\n'}, "own folder"),
    "headers-alone": (
        {"core/base/a.h": HEADER.format("A", "size_t a_length(void);\n")},
        "size_t",
    ),
    "own-header-first": (
        {
            "core/base/a.c": MODEL + '#include <stddef.h>\n#include "base/a.h"\n',
            "core/base/a.h": HEADER.format("A", ""),
        },
        "before a.h",
    ),
    "model-comment": ({"core/base/a.c": "int a;\n"}, "model"),
    "built": ({"core/base/a.c": MODEL}, "meson.build"),
    "units-built": (
        {"tests/unit/a/test_b.c": MODEL, "tests/unit/meson.build": "rows = {'c': ['b']}\n"},
        "behind 'a'",
    ),
    "file-names": ({"core/base/net_utils.c": MODEL}, "inside"),
    "banned-calls": ({"core/base/a.c": MODEL + "int b(void) { return atoi(c); }\n"}, "strtol"),
    "memory-calls": ({"plugins/p/p.c": MODEL + "void *a(void) { return malloc(1); }\n"}, "malloc"),
    "printing": ({"core/net/a.c": MODEL + 'void a(void) { printf("a"); }\n'}, "printf"),
    "system-calls": ({"core/bus/a.c": MODEL + "void a(int fd) { close(fd); }\n"}, "close"),
    "line-length": ({"core/base/a.c": "/* " + 100 * "a" + " */\n"}, "characters"),
    "whitespace": ({"core/base/a.c": "/* a */ \n"}, "blanks"),
    "no-leftovers": ({"core/base/a.c": "/* TO" + "DO: a */\n"}, "a.c:1"),
    "machine-paths": ({"docs/a.md": "see /ho" + "me/somebody/a\n"}, "somebody"),
    "links": ({"docs/a.md": "see [b](b.md)\n"}, "b.md"),
    "options-documented": (
        {
            "plugins/p/p.c": MODEL
            + "static const struct roda_option options[] = {\n"
            + '    {.name = "depth", .type = 1},\n    {.name = NULL},\n};\n',
            "docs/roda.conf.5.scd": "*width*\n",
        },
        "depth",
    ),
    "formatted": (
        {"core/base/a.c": MODEL + "int  a ;\n", ".clang-format": "BasedOnStyle: LLVM\n"},
        "clang-format",
    ),
}

# What looks like a finding and is none.
CLEAN = {
    "core/base/a.h": HEADER.format("A", "int a_read(int fd);\n"),
    "core/base/a.c": MODEL
    + '#include "base/a.h"\n/* malloc(1), printf(a), close(fd) */\n'
    + 'const char *a = "free(a) // read(fd)";\n',
    "core/base/memory.c": MODEL + "void a(void *b) { free(b); }\n",
    "core/base/meson.build": "files('a.c', 'memory.c')\n",
    "core/net/b.c": MODEL
    + '#include "base/a.h"\nint c(struct s *x) { return x->close(1) + y.read(2) + a_read(1); }\n',
    "core/net/meson.build": "files('b.c')\n",
}


class Tidy(unittest.TestCase):
    def tidy(self, files, *arguments):
        with tempfile.TemporaryDirectory(prefix="roda-tidy-") as folder:
            tree = Path(folder) / "tree"
            for name, text in files.items():
                path = tree / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            (tree / "tools").mkdir(parents=True)
            shutil.copy(SOURCE / "tools" / "tidy", tree / "tools" / "tidy")
            run = subprocess.run(
                [tree / "tools" / "tidy", *arguments], capture_output=True, text=True, check=False
            )
            return run.returncode, run.stdout + run.stderr

    def test_each_check_finds(self):
        for check, (files, word) in BROKEN.items():
            if check == "formatted" and shutil.which("clang-format-14") is None:
                continue
            with self.subTest(check):
                status, said = self.tidy(files, check)
                self.assertEqual(status, 1, said)
                self.assertIn(f"FAIL  {check}", said)
                self.assertIn(word, said)
                self.assertIn("0 passed, 1 failed", said)

    def test_every_check_is_tried(self):
        _, listed = self.tidy({}, "--list")
        self.assertEqual({line.split()[0] for line in listed.splitlines()}, set(BROKEN))

    def test_clean_tree_passes(self):
        checks = [check for check in BROKEN if check != "formatted"]
        status, said = self.tidy(CLEAN, *checks)
        self.assertEqual(status, 0, said)
        self.assertIn(f"{len(checks)} passed, 0 failed", said)

    def test_unknown_check(self):
        self.assertEqual(self.tidy({}, "layer")[0], 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
