"""The catalogue: every model names what it is tested against, and that test is there."""
import ast
from dataclasses import replace
from pathlib import Path

import pytest

from jittwin.checkpoints import convert
from jittwin.errors import UserError
from jittwin.models.catalog import MODELS, Oracle, find

ROOT = Path(__file__).parents[2]


def without_oracle(models) -> list[str]:
    """Models whose oracle is not named, or whose test is not there."""
    found = []
    for record in models:
        file, _, name = record.oracle.test.partition("::")
        path = ROOT / file
        names = {node.name for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, (ast.FunctionDef, ast.ClassDef))} if path.is_file() else ()
        if not record.oracle.what or not file.startswith("tests/torch/") or name not in names:
            found.append(record.name)
    return found


def test_every_model_is_held_against_an_oracle():
    assert not without_oracle(MODELS)


@pytest.mark.parametrize("oracle", [
    Oracle("", MODELS[0].oracle.test), Oracle("it", ""), Oracle("it", "tests/torch/test_absent.py::test_it"),
    Oracle("it", "tests/torch/test_golden.py::test_absent"), Oracle("it", "tests/neutral/test_catalogue.py::test_names")])
def test_a_model_without_an_oracle_is_found(oracle):
    assert without_oracle([*MODELS, replace(MODELS[0], name="new", oracle=oracle)]) == ["new"]


def test_names():
    assert len({record.name for record in MODELS}) == len(MODELS) and find("siglip").summary
    with pytest.raises(UserError, match="no model 'siglib' .did you mean 'siglip'"):
        find("siglib")


def test_every_model_that_has_files_can_be_converted():
    """A new model is found by its record alone."""
    assert convert.MODELS == (*(record.name for record in MODELS), "any")
    assert all(record.conversion or record.files == "adapter" for record in MODELS)
