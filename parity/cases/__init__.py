"""The cases of this project's models: the CASES of every file in this folder, in the order of file names.

A new file needs no registration. The tests fail if a model of the catalogue has no case.
"""
from importlib import import_module
from pkgutil import iter_modules

from jittwin.errors import UserError, choose_from
from parity.case import Case

CASES: dict[str, Case] = {case.name: case for module in sorted(found.name for found in iter_modules(__path__))
                          for case in import_module(f"{__name__}.{module}").CASES}


def find(name: str) -> Case:
    """The case of a model. UserError, with the nearest name, for an unknown model."""
    if name not in CASES:
        raise UserError(f"no parity case {name!r}{choose_from(name, CASES)}")
    return CASES[name]
