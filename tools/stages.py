#!/usr/bin/env python3
"""The stages of tools/test, one after the other within one time limit.

Each build is there because it finds what the others do not:

    test    as users get it, with -Werror: every test, the large loads too
    asan    AddressSanitizer and UndefinedBehaviourSanitizer: memory, leaks, arithmetic
    tsan    ThreadSanitizer: what two workers touch without an order
    fuzz    clang and libFuzzer: inputs nobody thought of, for a short while

While the first build is tested, which leaves a processor idle now and then, the others are made.
"""

import concurrent.futures
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FULL_S = 24 * 60
QUICK_S = 170
FUZZ_S = 15
TAIL_LINES = 60

# Warnings are errors with the compiler that users have, and where no sanitizer's own code makes
# gcc see what is not there.
PLAIN = ["-Dbuildtype=debugoptimized", "--werror"]
ASAN = ["-Dbuildtype=debugoptimized", "-Db_sanitize=address,undefined"]
TSAN = ["-Dbuildtype=debugoptimized", "-Db_sanitize=thread"]
FUZZ = [
    "-Dbuildtype=debugoptimized",
    "-Db_sanitize=address,undefined",
    "-Db_lundef=false",
    "-Dfuzz=true",
]


class Score:
    """What passed and what did not, and the clock that all stages share."""

    def __init__(self, limit_s):
        self.passed = 0
        self.failed = []
        self.skipped = []
        self.start = time.monotonic()
        self.limit_s = limit_s

    def elapsed_s(self):
        return time.monotonic() - self.start

    def left_s(self):
        return max(0.0, self.limit_s - self.elapsed_s())

    def fail(self, what, log=""):
        self.failed.append(what)
        print(f"\nFAIL {what}")
        lines = log.rstrip().split("\n") if log.strip() else []
        if len(lines) > TAIL_LINES:
            print(f"     ({len(lines) - TAIL_LINES} lines before)")
        for line in lines[-TAIL_LINES:]:
            print(f"     {line}")
        sys.stdout.flush()

    def say(self, text):
        print(f"[{self.elapsed_s():5.0f} s] {text}", flush=True)


def run(score, command, environment=None):
    """(exit status, output); None for the status if time ran out, and then all of it is ended."""
    process = subprocess.Popen(
        [str(c) for c in command],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=max(1.0, score.left_s()))
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            output, _ = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        return None, output


def compile_in(score, folder, options, compiler="gcc", prefix=()):
    """Configures once, then compiles what changed. (what was done, exit status, output)."""
    if not (folder / "build.ninja").exists():
        command = [*prefix, "meson", "setup", *options, folder, ROOT]
        status, output = run(score, command, {"CC": compiler})
        if status != 0:
            return "meson setup", status, output
    return "build", *run(score, [*prefix, "ninja", "-C", folder])


def is_built(score, folder, result):
    """True if there is something to test."""
    what, status, output = result
    if status != 0:
        score.fail(f"{folder.name}: {what}" + (" (out of time)" if status is None else ""), output)
        return False
    score.passed += 1
    return True


def build(score, folder, options):
    score.say(f"building {folder.name}")
    return is_built(score, folder, compile_in(score, folder, options))


def sanitizer_prefix():
    """ThreadSanitizer of gcc 12 wants addresses that are not too random."""
    works = shutil.which("setarch") and subprocess.run(
        ["setarch", "-R", "true"], capture_output=True, check=False
    )
    return ["setarch", "-R"] if works and works.returncode == 0 else []


def meson_tests(score, folder, arguments, prefix=(), multiplier=1):
    score.say(f"testing {folder.name} {' '.join(arguments)}")
    log = folder / "meson-logs" / "testlog.json"
    log.unlink(missing_ok=True)
    command = [*prefix, "meson", "test", "-C", folder, "--no-rebuild"]
    command += ["--timeout-multiplier", str(multiplier), *arguments]
    status, output = run(score, command)
    results = []
    if log.exists():
        results = [json.loads(line) for line in log.read_text().splitlines() if line.strip()]
    failed_before = len(score.failed)
    for result in results:
        title = f"{folder.name}: {result['name'].split(' / ')[-1]}"
        if result["result"] in ("OK", "EXPECTEDFAIL"):
            score.passed += 1
        elif result["result"] == "SKIP":
            score.skipped.append(title)
        else:
            said = (result.get("stdout") or "") + "\n" + (result.get("stderr") or "")
            score.fail(f"{title} ({result['result']}, {result['duration']:.1f} s)", said)
    if status is None:
        score.fail(f"{folder.name}: tests (out of time after {len(results)})", output)
    elif status != 0 and len(score.failed) == failed_before:
        score.fail(f"{folder.name}: meson test ends with {status}", output)


def look(score, arguments, prefix=()):
    return run(score, [*prefix, ROOT / "tools" / "tidy", *arguments])


def tidy(score, result):
    status, output = result
    last = re.search(r"^(\d+) passed, (\d+) failed$", output, re.M)
    if status is None or last is None:
        score.fail("tidy (out of time)" if status is None else "tidy", output)
        return
    score.passed += int(last.group(1))
    for note in re.findall(r"^note .*$", output, re.M):
        print(note)
    for match in re.finditer(r"^FAIL  (\S+)\n((?:      .*\n)*)", output, re.M):
        score.fail(f"tidy: {match.group(1)}", match.group(2))


def fuzz(score, folder):
    """Each target on its seeds and from there on; what it finds stays in the build folder."""
    targets = sorted((folder / "tests" / "fuzz").glob("fuzz-*"))
    targets = [target for target in targets if target.is_file() and os.access(target, os.X_OK)]
    score.say(f"fuzzing {len(targets)} parsers for {FUZZ_S} s each")

    def run_one(target):
        title = target.name[len("fuzz-") :]
        grown = folder / "corpus" / title
        grown.mkdir(parents=True, exist_ok=True)
        seeds = ROOT / "tests" / "fuzz" / "corpus" / title
        command = [target, f"-max_total_time={FUZZ_S}", "-timeout=10", "-rss_limit_mb=2048"]
        command += [f"-artifact_prefix={folder}/{title}-", grown]
        command += [seeds] if seeds.is_dir() else []
        return title, run(score, command)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for title, (status, output) in pool.map(run_one, targets):
            if status == 0:
                score.passed += 1
            else:
                score.fail(f"fuzz: {title}", output)


def quick(score, builds):
    plain = builds / "test"
    arguments = []
    if build(score, plain, PLAIN):
        suites = ["unit", "plugin", "fuzz", "quick"]
        meson_tests(score, plain, [word for suite in suites for word in ("--suite", suite)])
        arguments = ["--build", plain, "--changed"]
    score.say("tidy")
    tidy(score, look(score, arguments))


def full(score, builds):
    plain, asan, tsan = builds / "test", builds / "asan", builds / "tsan"
    fuzzing = builds / "fuzz"
    if not build(score, plain, PLAIN):
        tidy(score, look(score, []))
        return
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        last = ("nice", "-n", "19")
        asan_built = beside.submit(compile_in, score, asan, ASAN, "gcc", last)
        tsan_built = beside.submit(compile_in, score, tsan, TSAN, "gcc", last)
        looked = beside.submit(look, score, ["--build", plain], last)
        fuzzing_built = beside.submit(compile_in, score, fuzzing, FUZZ, "clang-14", last)
        meson_tests(score, plain, ["--no-suite", "tidy"])
        if is_built(score, asan, asan_built.result()):
            meson_tests(score, asan, ["--no-suite", "tidy"], multiplier=4)
        # What has one thread only has nothing to show here.
        if is_built(score, tsan, tsan_built.result()):
            suites = ["--suite", "integration", "--suite", "unit", "--suite", "threads"]
            meson_tests(score, tsan, suites, sanitizer_prefix(), multiplier=6)
        tidy(score, looked.result())
        if is_built(score, fuzzing, fuzzing_built.result()):
            fuzz(score, fuzzing)


def main(arguments):
    builds, mode = Path(arguments[0]).resolve(), arguments[1:]
    if mode not in ([], ["quick"]):
        print("usage: tools/test [quick]", file=sys.stderr)
        return 2
    score = Score(QUICK_S if mode else FULL_S)
    builds.mkdir(parents=True, exist_ok=True)
    (quick if mode else full)(score, builds)

    print()
    if score.skipped:
        print("skipped: " + ", ".join(score.skipped))
    for title in score.failed:
        print(f"failed:  {title}")
    score.say("done")
    print(f"{score.passed} passed, {len(score.failed)} failed", flush=True)
    return 0 if score.passed > 0 and not score.failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
