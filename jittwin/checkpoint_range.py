"""Checkpoints named by their epochs, of our runs and of the original's folders."""
import re
from pathlib import Path

from jittwin.engine.checkpoint import Checkpoints
from jittwin.errors import UserError


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
    """What jittwin.networks takes, by the epoch's name, in order; epochs of a range that were not kept are left out.

    where: a run folder or a folder of files EPOCH_net_G.pkl. text: see `epochs`; None: all there are.
    UserError: none of them is there.
    """
    folder = Path(where)
    run = Checkpoints(folder)
    there = {name: str(run.folder / name) for name in run.names()} if run.latest() else {}
    there |= {path.name.split("_net_G")[0]: str(folder / path.name.split("_net_G")[0])
              for path in sorted(folder.glob("*_net_G.*"))}
    wanted = sorted(there, key=_number) if text is None else epochs(text)
    found = {name: there[name] for name in wanted if name in there}
    if not found:
        known = ", ".join(sorted(there, key=_number)) or "none"
        asked = "any epoch" if text is None else f"epochs {text}"
        raise UserError(f"{where}: no checkpoint of {asked}; there is {known}")
    return found


def _number(name: str) -> tuple:
    return (0, float(name), name) if re.fullmatch(r"\d+(\.\d+)?", name) else (1, 0.0, name)
