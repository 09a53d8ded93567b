#!/usr/bin/env python3
"""tools/dependencies, with a package manager that only writes down what it was asked."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(os.environ["RODA_SOURCE_DIR"])

FAKES = {
    # Everything but what the test calls missing is installed.
    "dpkg-query": 'for last; do :; done; [ "$last" = "$MISSING" ] && exit 1; printf "ii "',
    "apt-get": 'echo "apt-get $*" >>"$CALLS"; [ -z "$APT_FAILS" ]',
    "sudo": 'echo "sudo $*" >>"$CALLS"; exec "$@"',
    "id": 'echo "$FAKE_USER"',
}


class NeedPackages(unittest.TestCase):
    def need(self, missing="", user="0", fails="", without=()):
        """(exit status, what was called, what was said)."""
        with tempfile.TemporaryDirectory() as folder:
            calls = Path(folder) / "calls"
            calls.touch()
            for name, body in FAKES.items():
                if name not in without:
                    fake = Path(folder) / name
                    fake.write_text(f"#!/bin/bash\n{body}\n")
                    fake.chmod(0o755)
            environment = {
                "PATH": folder,
                "CALLS": str(calls),
                "MISSING": missing,
                "FAKE_USER": user,
                "APT_FAILS": fails,
            }
            # The fakes need env and bash themselves, but no real sudo or apt-get.
            for name in ("bash", "env"):
                os.symlink(f"/usr/bin/{name}", Path(folder) / name)
            script = f'. "{SOURCE}/tools/dependencies"; need_packages "${{packages_test[@]}}"'
            run = subprocess.run(
                ["/bin/bash", "-euc", script],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            return run.returncode, calls.read_text().splitlines(), run.stderr

    def test_nothing_missing_calls_nothing(self):
        self.assertEqual(self.need(), (0, [], ""))

    def test_root_installs_what_is_missing_and_no_more(self):
        status, calls, _ = self.need(missing="libinih-dev")
        self.assertEqual(status, 0)
        self.assertEqual(
            calls,
            ["apt-get update -q", "apt-get install -y --no-install-recommends libinih-dev"],
        )

    def test_others_are_shown_the_line_and_use_sudo(self):
        status, calls, said = self.need(missing="meson", user="1000")
        self.assertEqual(status, 0)
        line = "sudo apt-get install -y --no-install-recommends meson"
        self.assertIn(line, said)
        self.assertEqual([c for c in calls if c.startswith("sudo") and "install" in c][0][-5:],
                         "meson")  # fmt: skip
        self.assertIn("apt-get install -y --no-install-recommends meson", calls)

    def test_without_sudo_the_line_is_all(self):
        status, calls, said = self.need(missing="meson", user="1000", without=("sudo",))
        self.assertEqual((status, calls), (1, []))
        self.assertIn("apt-get install -y --no-install-recommends meson", said)

    def test_failure_is_said(self):
        status, _, said = self.need(missing="meson", fails="yes")
        self.assertEqual(status, 1)
        self.assertIn("could not be installed: meson", said)

    def test_no_debian_goes_on(self):
        status, calls, said = self.need(without=("dpkg-query",))
        self.assertEqual((status, calls), (0, []))
        self.assertIn("no Debian", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
