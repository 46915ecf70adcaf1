"""Run the test groups, each in its own pytest process, two at a time, and add up the counts.

    python scripts/run_tests.py [GROUP ...]

A group has a process of its own because a crash in Jittor ends the whole process, and because importing Jittor and
PyTorch together would hide a forbidden import. Two groups run side by side because Jittor compiles one kernel at a
time, on one core, and small networks gain little from a second core. The output of a group appears when the group
has ended. The last line is `N passed, N failed, N skipped` over all groups; the exit status is 1 if anything failed.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
GROUPS = {
    "neutral": ["tests/neutral", "tests/mirror"],
    "torch": ["tests/torch"],
    "proof": ["tests/parity/proof"],
    "cli": ["tests/cli"],
    "parity": ["tests/parity"],
    "jittor": ["tests/jittor"],
}
OPTIONS = {"parity": ["--ignore=tests/parity/proof"]}       # what another group runs
USES_JITTOR = {"proof", "cli", "parity", "jittor"}
SIDE_BY_SIDE = 2
GROUP_LIMIT = 3600      # seconds, after which a group that hangs is ended, so that the others are still reported


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


def run_group(group: str, folders: list[str], report: Path, limit: float = GROUP_LIMIT) -> tuple[Counts, str]:
    """Run one group; returns its counts and output. A process that died or ran no test counts as one failure."""
    command = [sys.executable, "-m", "pytest", *folders, *OPTIONS.get(group, ()), "-q", "--durations=5",
               f"--junitxml={report}"]
    # The groups share the cores, and threads that spin while they wait cost much more time than their work.
    threads = max(1, (os.cpu_count() or 1) // SIDE_BY_SIDE)
    environment = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    with tempfile.TemporaryFile("w+", errors="backslashreplace") as log:
        try:
            status = subprocess.run(command, cwd=ROOT, timeout=limit, env=environment, stdin=subprocess.DEVNULL,
                                    stdout=log, stderr=subprocess.STDOUT).returncode
        except subprocess.TimeoutExpired:
            status = None
        log.seek(0)
        printed = log.read()
    if status is None:
        return Counts(failed=1), f"{printed}run_tests: group {group} was ended after {limit:.0f} s\n"
    counts = read_counts(report) if report.exists() else Counts()
    if status != 0 and not counts.failed:
        reason = {5: "ran no test"}.get(status, f"ended with status {status}")
        printed += f"run_tests: group {group} {reason}, counted as one failure\n"
        counts += Counts(failed=1)
    return counts, printed


def prepare_jittor() -> tuple[Counts, str]:
    """Compile Jittor's core, which takes minutes once per machine. If that fails, returns a failure and the output."""
    done = subprocess.run([sys.executable, "-c", "import jt_models.boot"], cwd=ROOT, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          preexec_fn=lambda: os.nice(10))      # the tests beside it come first
    if done.returncode:
        return Counts(failed=1), f"run_tests: Jittor could not be prepared, counted as one failure:\n{done.stdout}"
    return Counts(), ""


def run_all(planned: dict[str, list[str]], reports: Path) -> Counts:
    """Run these groups, SIDE_BY_SIDE of them at a time, and print each when it has ended."""
    def timed(group: str) -> tuple[str, Counts, str, float]:
        if group in USES_JITTOR:
            jittor.result()
        start = time.monotonic()
        return group, *run_group(group, planned[group], reports / f"{group}.xml"), time.monotonic() - start

    total = Counts()
    # Jittor's core is compiled in a thread of its own, while groups that do not need it run.
    with ThreadPoolExecutor(1) as compiler, ThreadPoolExecutor(SIDE_BY_SIDE) as lanes:
        jittor = compiler.submit(prepare_jittor if USES_JITTOR & set(planned) else lambda: (Counts(), ""))
        for done in as_completed([lanes.submit(timed, group) for group in planned]):
            group, counts, printed, seconds = done.result()
            print(f"== {group} ==\n{printed}== {group}: {counts} in {seconds:.0f} s ==", flush=True)
            total += counts
        failure, reason = jittor.result()
    print(reason, end="")
    return total + failure


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description="Run the tests, each group in its own process.")
    parser.add_argument("groups", nargs="*", metavar="GROUP",
                        help=f"any of {', '.join(GROUPS)}; all of them by default")
    groups = parser.parse_args(arguments).groups or list(GROUPS)
    if unknown := set(groups) - set(GROUPS):
        parser.error(f"unknown group {', '.join(sorted(unknown))}; the groups are {', '.join(GROUPS)}")
    planned = {group: folders for group in GROUPS if group in groups and (folders := test_folders(group))}
    with tempfile.TemporaryDirectory() as reports:
        total = run_all(planned, Path(reports))
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
