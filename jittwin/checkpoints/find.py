"""Finding the files of a system's networks: our checkpoints and the originals' naming."""
from pathlib import Path

import numpy as np

from jittwin.checkpoints.store import Checkpoints
from jittwin.errors import UserError
from jittwin.weights import FORMATS, read_weights


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
        candidates += [f for suffix in FORMATS for f in sorted(folder.glob(f"*_net_{name}{suffix}"))]
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


def read_network(where: str, name: str) -> tuple[dict[str, np.ndarray], Path]:
    """The arrays of network `name` and the file they came from."""
    path = find_network(where, name)
    return read_weights(path), path
