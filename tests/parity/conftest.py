"""What the parity tests share."""
from pathlib import Path

import pytest

from parity.faults.fault import Fault, broken_copy
from parity.result import Row
from parity.runner import Step, perform
from parity.workers.oracle import Twins

HERE = Path(__file__).parent
collect_ignore = ["example"]        # test_example runs it elsewhere


@pytest.fixture(scope="session")
def twins():
    """Both workers, started once. They import from these folders: the specimens, and cases that tests define."""
    with Twins(paths=[HERE, HERE / "proof"]) as pair:
        yield pair


@pytest.fixture(scope="session")
def rows_of(twins):
    """rows_of(step): what one step of the proof finds. Every step is made once, whichever tests look at its rows."""
    made: dict[tuple, list[Row]] = {}

    def rows(step: Step) -> list[Row]:
        key = step.model, step.level, step.size, step.mode
        if key not in made:
            made[key] = perform(step, twins)
        return made[key]
    return rows


@pytest.fixture
def others(twins):
    """The same, for tests that replace the Jittor twin: our own waits with the kernels that it has loaded."""
    ours = twins.workers.pop("jittor", None)
    yield twins
    twins.replace_jittor(None)
    if ours:
        twins.workers["jittor"] = ours


@pytest.fixture
def broken(others, tmp_path):
    """Swaps the Jittor twin for a copy in which one text of one file is another."""
    def swap(file: str, old: str, new: str):
        others.replace_jittor(broken_copy(Fault("edit", "", file, old, new, "", ()), tmp_path))
        return others
    return swap
