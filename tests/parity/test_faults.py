"""The table of seeded faults: every edit still fits the file it breaks. No worker is started."""
import ast
import filecmp

import pytest

from jittwin.errors import UserError
from parity.cases import CASES
from parity.faults import FAULTS, Fault, broken_copy, find, source
from parity.faults.fault import PACKAGE, place
from parity.runner import ENVIRONMENT
from parity.workers.worker import ROOT

ODD = Fault("odd", "", "nn/ops.py", "no such text", "", "", ())


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_edit_fits_and_changes_the_program(fault):
    before = ast.dump(ast.parse(place(fault, ROOT).read_text()))
    assert ast.dump(ast.parse(source(fault))) != before
    assert fault.why and fault.cases


def test_an_edit_that_no_longer_fits_is_found():
    with pytest.raises(ValueError, match="odd: its old text stands 0 times in nn/ops.py"):
        source(ODD)


def test_an_edit_that_fits_twice_is_found():
    with pytest.raises(ValueError, match="times in nn/ops.py"):
        source(Fault("twice", "", "nn/ops.py", "return", "yield", "", ()))


def test_names_and_edits_are_unique():
    assert len({(f.file, f.old, f.new) for f in FAULTS.values()}) == len(FAULTS)
    assert all(name == fault.name for name, fault in FAULTS.items())


def test_every_fault_concerns_cases_that_exist():
    unknown = {name: case for name, fault in FAULTS.items() for case in fault.cases
               if case not in CASES and case != ENVIRONMENT}
    assert not unknown


def test_a_fault_concerns_the_models_of_its_file_unless_it_names_others():
    inception = "backbones/inception_v3.py"
    assert Fault("f", "", inception, "", "", "").cases == ("inception_v3", "inception_fid")
    assert Fault("f", "", inception, "", "", "", ("inception_fid",)).cases == ("inception_fid",)
    assert Fault("f", "", "nn/ops.py", "", "", "").cases == ()


def test_a_broken_copy_differs_in_one_file(tmp_path):
    fault = find("gain_without_one")
    folder = broken_copy(fault, tmp_path / "copy") / PACKAGE.name
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    assert files == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert [f for f in files if not filecmp.cmp(PACKAGE / f, folder / f, shallow=False)] == [fault.file]
    assert fault.new in (folder / fault.file).read_text()


def test_a_fault_of_shared_code_has_a_copy_of_its_package(tmp_path):
    fault = find("same_rows_in_all")
    folder = broken_copy(fault, tmp_path)
    assert [path.name for path in folder.iterdir()] == ["jittwin"]
    assert fault.new in (folder / fault.file).read_text()


def test_an_unknown_fault_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'tanh_missing'"):
        find("tanh_mising")
