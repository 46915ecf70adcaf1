"""A seeded fault: one textual edit of one file of the Jittor twin, or of what it shares with the other twin."""
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from jittwin.backend import PACKAGES
from jittwin.models.catalog import WHERE
from parity.workers.worker import ROOT

PACKAGE = ROOT / PACKAGES["jittor"]


@dataclass(frozen=True)
class Fault:
    """A mistake that a port could make, or a difference of Jittor that is left unrepaired.

    name: says what is wrong. id: its entry in the catalogue of differences, or "". file: the edited file, relative to
    jt_models; or "jittwin/…", which the Jittor worker then has with the edit and the PyTorch worker without it.
    old, new: the edit; `old` occurs once in the file. why: what a person would write in a bug report.
    cases: the parity cases whose model computes with the edited line; by default those of the models whose class is
    in the edited file (jittwin.models.catalog). levels: the only levels of these cases that can notice it; () for all.
    everywhere: levels at which every other case that has them must notice it too.
    equivalent: a proof that the edit changes no result; such a fault cannot be found and does not count.
    survives: why no check of these cases finds the fault although it changes results; such a fault counts.
    """
    name: str
    id: str
    file: str
    old: str
    new: str
    why: str
    cases: tuple[str, ...] = ()
    everywhere: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    equivalent: str = ""
    survives: str = ""

    def __post_init__(self):
        inside = [name for name, (module, _) in WHERE.items() if f"{module.replace('.', '/')}.py" == self.file]
        object.__setattr__(self, "cases", self.cases or tuple(inside))


def source(fault: Fault) -> str:
    """The text of the file with the edit. ValueError if the edit no longer fits the file."""
    text = place(fault, ROOT).read_text()
    if text.count(fault.old) != 1:
        raise ValueError(f"fault {fault.name}: its old text stands {text.count(fault.old)} times in {fault.file}")
    return text.replace(fault.old, fault.new)


def broken_copy(fault: Fault, folder: str | os.PathLike) -> Path:
    """Write a copy of the edited package to `folder`, from which workers can import it."""
    folder = Path(folder)
    edited = place(fault, folder)
    package = edited.relative_to(folder).parts[0]
    shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    edited.write_text(source(fault))
    return folder


def place(fault: Fault, root: Path) -> Path:
    """The edited file in a folder that holds the packages."""
    return root / fault.file if fault.file.startswith("jittwin/") else root / PACKAGE.name / fault.file
