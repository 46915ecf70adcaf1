"""Finding checkpoints by epoch and the files of their networks, in our runs and in the originals' folders."""
import re
import sys
from pathlib import Path

import numpy as np

from jittwin.checkpoints.store import Checkpoints
from jittwin.errors import UserError, choose_from
from jittwin.weights import FORMATS, read_weights
from jittwin.weights.choice import told
from jittwin.weights.usable import checked


def find_network(where: str, name: str) -> Path:
    """The file of network `name` (E, G, D).

    where: a run folder (its latest checkpoint), a checkpoint folder holding NAME.safetensors, or
    PREFIX of files called PREFIX_net_NAME.pkl (or another weights format), as the original
    APF-GAN writes them. UserError lists what was looked for.
    """
    path = Path(where)
    if path.is_dir():
        checkpoints = Checkpoints(path)
        latest = checkpoints.latest()
        folder = checkpoints.folder / latest if latest else path
        candidates = [folder / (name + suffix) for suffix in FORMATS]
        candidates += [f for suffix in FORMATS for f in sorted(folder.glob(f"[!.]*_net_{name}{suffix}"))]
    else:
        candidates = [path.with_name(f"{path.name}_net_{name}{suffix}") for suffix in FORMATS]
    found = [candidate for candidate in candidates if candidate.is_file()]
    if not found:
        raise UserError(f"{where}: no network {name} found; give a run folder, a checkpoint folder with "
                        f"{name}.safetensors, or PREFIX of PREFIX_net_{name}.pkl")
    named = [f for f in found if "_net_" in f.name]
    if path.is_dir() and len(named) > 1 and len(named) == len(found):
        raise UserError(f"{where}: holds {len(named)} networks {name} ({named[0].name}, {named[1].name} ...): "
                        f"give one of them as PREFIX, such as {named[-1].with_name(named[-1].name.split('_net_')[0])}")
    return found[0]


def run_file(path: Path, stem: str) -> Path:
    """The file STEM.safetensors that `path` stands for; `path` itself where it stands for nothing.

    A run stands for its newest checkpoint, RUN/best and RUN/best_MEASURE for the best ones, a checkpoint for its file.
    UserError: a run without such a best checkpoint.
    """
    if not path.exists() and (asked := re.fullmatch(r"best(?:_(\w+))?", path.name)) and path.parent.is_dir():
        run = Checkpoints(path.parent)
        bests = run.bests()
        best = bests.get(asked[1]) if asked[1] else run.best()
        if best is None:
            names = [*(["best"] if bests else []), *(f"best_{measure}" for measure in bests)]
            raise UserError(f"{path}: this run has no such best checkpoint{choose_from(path.name, names)}")
        return run.folder / best["checkpoint"] / f"{stem}.safetensors"
    if not path.is_dir():
        return path
    latest = Checkpoints(path).latest()
    return (Checkpoints(path).folder / latest if latest else path) / f"{stem}.safetensors"


def read_network(where: str, name: str) -> tuple[dict[str, np.ndarray], Path]:
    """The arrays of network `name` and the file they came from. UserError: also for NaN or infinity in them."""
    path = find_network(where, name)
    arrays = read_weights(path, wrapper=told(str(path)))
    return {key: checked(array, key, str(path), floating=False) for key, array in arrays.items()}, path


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
    """Paths that find_network accepts, by the name of the epoch, in order.

    where: a run folder or a folder of files EPOCH_net_G.pkl. text: see `epochs`; None: all epochs that exist. Epochs of
    a range that do not exist are skipped, with a line on stderr. UserError: no epoch exists, or one that is named by
    itself does not.
    """
    folder = Path(where)
    run = Checkpoints(folder)
    there = {name: str(run.folder / name) for name in run.names()} if run.latest() else {}
    there |= {path.name.split("_net_G")[0]: str(folder / path.name.split("_net_G")[0])
              for suffix in FORMATS for path in sorted(folder.glob(f"[!.]*_net_G{suffix}"))}
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
