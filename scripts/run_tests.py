"""Runs the test groups one after another, each in its own pytest process, and adds up the counts.

    python scripts/run_tests.py [GROUP ...]

A group has its own process because a fault in Jittor ends the process it happens in, and because
importing Jittor and PyTorch together would hide a forbidden import. The last line of the output is
`N passed, N failed, N skipped` over all groups; the exit status is 1 if anything failed.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
GROUPS = {
    "neutral": ["tests/neutral", "tests/mirror"],
    "torch": ["tests/torch"],
    "jittor": ["tests/jittor"],
    "parity": ["tests/parity"],
    "cli": ["tests/cli"],
}
USES_JITTOR = {"jittor", "parity", "cli"}
GROUP_LIMIT = 2400      # seconds; a group that hangs must not take the others' results with it


class Counts(NamedTuple):
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other):
        return Counts(*(a + b for a, b in zip(self, other)))

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def read_counts(report: Path) -> Counts:
    """Counts from a pytest --junitxml file; an error in a fixture or in collection is a failure."""
    total = Counts()
    keys = ("tests", "failures", "errors", "skipped")
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        tests, failures, errors, skipped = (int(suite.get(key)) for key in keys)
        total += Counts(max(tests - failures - errors - skipped, 0), failures + errors, skipped)
    return total


def test_folders(group: str, root: Path = ROOT) -> list[str]:
    """The group's folders that hold tests."""
    return [folder for folder in GROUPS[group] if any((root / folder).rglob("test_*.py"))]


def run_group(group: str, folders: list[str], report: Path, limit: float = GROUP_LIMIT) -> Counts:
    """Run one group and return its counts; a process that died or ran nothing counts as one failure."""
    command = [sys.executable, "-m", "pytest", *folders, "-q", "--durations=5", f"--junitxml={report}"]
    # Threads that spin while they wait cost many times their work where others want the cores too.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    try:
        status = subprocess.run(command, cwd=ROOT, timeout=limit, env=environment).returncode
    except subprocess.TimeoutExpired:
        print(f"run_tests: group {group} was ended after {limit:.0f} s", flush=True)
        return Counts(failed=1)
    counts = read_counts(report) if report.exists() else Counts()
    if status != 0 and not counts.failed:
        reason = {5: "ran no test"}.get(status, f"ended with status {status}")
        print(f"run_tests: group {group} {reason}, counted as one failure", flush=True)
        counts += Counts(failed=1)
    return counts


class Warmup:
    """Compiles Jittor's core (minutes, once per machine) while the groups that need no Jittor run."""

    def __init__(self):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([sys.executable, "-c", "import jt_models.boot"], cwd=ROOT,
                                        stdout=self.log, stderr=subprocess.STDOUT,
                                        preexec_fn=lambda: os.nice(10))

    def finish(self) -> bool:
        """Wait for the end; print what went wrong and return False if it failed."""
        status = self.process.wait()
        if status:
            self.log.seek(0)
            print("run_tests: Jittor could not be prepared, counted as one failure:", self.log.read(),
                  sep="\n", flush=True)
        self.log.close()
        return status == 0

    def cancel(self):
        self.process.terminate()
        self.process.wait()


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description="Run the tests, each group in its own process.")
    parser.add_argument("groups", nargs="*", metavar="GROUP",
                        help=f"any of {', '.join(GROUPS)}; all of them by default")
    groups = parser.parse_args(arguments).groups or list(GROUPS)
    if unknown := set(groups) - set(GROUPS):
        parser.error(f"unknown group {', '.join(sorted(unknown))}; the groups are {', '.join(GROUPS)}")
    planned = {group: test_folders(group) for group in groups}
    warmup = Warmup() if any(planned[group] for group in USES_JITTOR & set(groups)) else None
    total = Counts()
    try:
        with tempfile.TemporaryDirectory() as reports:
            for group, folders in planned.items():
                if not folders:
                    print(f"== {group}: no tests yet ==", flush=True)
                    continue
                if warmup and group in USES_JITTOR:
                    total += Counts(failed=0 if warmup.finish() else 1)
                    warmup = None
                print(f"== {group} ==", flush=True)
                start = time.monotonic()
                counts = run_group(group, folders, Path(reports) / f"{group}.xml")
                total += counts
                print(f"== {group}: {counts} in {time.monotonic() - start:.0f} s ==", flush=True)
    finally:
        if warmup:
            warmup.cancel()
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
