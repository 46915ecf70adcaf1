"""Checkpoints named by their epochs, of our runs and of the original's folders."""
import re
import sys
from pathlib import Path

from jittwin.checkpoints.store import Checkpoints
from jittwin.errors import UserError
from jittwin.weights import FORMATS


def epochs(text: str) -> list[str]:
    """"270-310,330" to ["270", …, "310", "330"]. UserError: anything else."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise UserError(f"--epochs {text}: {part.strip()!r} is neither a number nor a range such as 270-310")
        found += map(str, range(int(match[1]), int(match[2] or match[1]) + 1))
    return list(dict.fromkeys(found))


def find_checkpoints(where: str, text: str | None) -> dict[str, str]:
    """What jittwin.checkpoints.find takes, by the epoch's name, in order.

    where: a run folder or a folder of files EPOCH_net_G.pkl. text: see `epochs`; None: all there are. Epochs of a range
    that were not kept are left out, with a line on stderr. UserError: none is there, or one named by itself is not.
    """
    folder = Path(where)
    run = Checkpoints(folder)
    there = {name: str(run.folder / name) for name in run.names()} if run.latest() else {}
    there |= {path.name.split("_net_G")[0]: str(folder / path.name.split("_net_G")[0])
              for suffix in FORMATS for path in sorted(folder.glob(f"*_net_G{suffix}"))}
    wanted = sorted(there, key=_number) if text is None else epochs(text)
    found = {name: there[name] for name in wanted if name in there}
    ranges = [] if text is None else [part for part in text.split(",") if "-" in part]
    absent = set(wanted).difference(there, *map(epochs, ranges))
    if absent or not found:
        known = ", ".join(sorted(there, key=_number)) or "none"
        asked = "any epoch" if text is None else f"epochs {', '.join(sorted(absent, key=_number)) or text}"
        raise UserError(f"{where}: no checkpoint of {asked}; there is {known}")
    if len(found) < len(wanted):
        print(f"{where}: {len(found)} of the {len(wanted)} epochs {text} are there: {', '.join(found)}",
              file=sys.stderr)
    return found


def _number(name: str) -> tuple:
    return (0, float(name), name) if re.fullmatch(r"\d+(\.\d+)?", name) else (1, 0.0, name)
