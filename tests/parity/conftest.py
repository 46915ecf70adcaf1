"""What the parity tests share."""
from pathlib import Path

import pytest

from parity.faults.fault import Fault, broken_copy
from parity.workers.oracle import Twins

HERE = Path(__file__).parent
collect_ignore = ["example"]        # test_example runs it elsewhere


@pytest.fixture(scope="session")
def twins():
    """Both workers, started once. They import from this folder: the specimens, and cases that tests define."""
    with Twins(paths=[HERE]) as pair:
        yield pair


@pytest.fixture
def broken(twins, tmp_path):
    """Swaps the Jittor twin for a copy in which one text of one file is another."""
    def swap(file: str, old: str, new: str):
        twins.replace_jittor(broken_copy(Fault("edit", "", file, old, new, "", ()), tmp_path))
        return twins

    yield swap
    twins.replace_jittor(None)
