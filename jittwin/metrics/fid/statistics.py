"""Statistics of a set of pictures' features, and the files that hold them.

Our files are .npz with `mu`, `sigma`, `n` and `provenance` (JSON); pytorch-fid reads them too. This module also reads
pytorch-fid's own .npz, and the published APF-GAN's pair *_m.npy and *_s.npy; neither states its mode and weights.
"""
import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jittwin.atomic import atomic_write
from jittwin.errors import UserError, reason
from jittwin.metrics.fid.frechet import frechet_distance, frechet_distance_from_features

SUFFIXES = (".npz", ".npy")


@dataclass
class Statistics:
    """Mean (d,) and covariance (d, d) of the features of `n` pictures; n is 0 if the file does not state it.

    features: float32 (min(n, limit), d), or None if not kept. logits: (the same number, 1008), or None.
    provenance: {"mode", "weights", "random_weights", …}, empty if the file does not state it.
    """
    mean: np.ndarray
    covariance: np.ndarray
    n: int = 0
    features: np.ndarray | None = None
    logits: np.ndarray | None = None
    provenance: dict = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether the features of every picture were kept."""
        return self.features is not None and len(self.features) == self.n


def fid(a: Statistics, b: Statistics) -> float:
    """The Fréchet distance, from features where that is faster. UserError: statistics that cannot be compared."""
    if a.mean.shape != b.mean.shape:
        raise UserError(f"features of {len(a.mean)} values against features of {len(b.mean)}: "
                        "both sides must come from the same network")
    for key in ("mode", "weights"):
        seen = [s.provenance[key] for s in (a, b) if key in s.provenance]
        if len(set(seen)) > 1:
            raise UserError(f"{key} {seen[0]} against {key} {seen[1]}: compute one side again with the other's {key}")
    rank = min(a.n, b.n) - 1 if a.n and b.n else None
    small, large = sorted((a, b), key=lambda s: (not s.complete, s.n))
    if small.complete and small.n < len(small.mean):
        return frechet_distance_from_features(small.features, large.mean, large.covariance, rank)
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance, rank)


def is_statistics(path: str | os.PathLike) -> bool:
    """Whether `path` has the suffix of a statistics file."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def write_statistics(path: str | os.PathLike, statistics: Statistics) -> None:
    """Write an .npz atomically. UserError: another suffix, or it cannot be written."""
    if not os.fspath(path).endswith(".npz"):
        raise UserError(f"{os.fspath(path)}: statistics are saved as .npz")
    arrays = {"mu": statistics.mean, "sigma": statistics.covariance, "n": np.array(statistics.n),
              "provenance": np.array(json.dumps(statistics.provenance, sort_keys=True))}
    for name in ("features", "logits"):
        if getattr(statistics, name) is not None:
            arrays[name] = getattr(statistics, name)
    with atomic_write(path) as stream:
        np.savez(stream, **arrays)


def write_pair(prefix: str | os.PathLike, statistics: Statistics) -> None:
    """Write PREFIX_m.npy and PREFIX_s.npy, the files of the published APF-GAN. UserError: they cannot be written."""
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    # The mean is written last, so where it exists the pair is complete.
    for letter, array in (("s", statistics.covariance), ("m", statistics.mean)):
        with atomic_write(f"{os.fspath(prefix)}_{letter}.npy") as stream:
            np.save(stream, array)


def read_statistics(path: str | os.PathLike) -> Statistics:
    """Read a file of statistics. UserError: it holds no statistics, or values that are not finite."""
    where = os.fspath(path)
    try:
        arrays = _pair(Path(path)) if where.endswith(".npy") else _archive(Path(path))
        statistics = Statistics(
            _real(arrays["mu"]), _real(arrays["sigma"]), int(arrays.get("n", 0)), arrays.get("features"),
            arrays.get("logits"), dict(json.loads(str(arrays.get("provenance", "{}")))))
    except UserError:
        raise
    except Exception as error:      # NumPy and zipfile raise nearly anything on damaged files
        raise UserError(f"{where}: no statistics ({reason(error)}): give an .npz with mu and sigma, a pair *_m.npy and "
                        "*_s.npy, or a folder of pictures") from error
    if problem := _problem(statistics):
        raise UserError(f"{where}: {problem}: compute it again from the pictures")
    return statistics


def _real(array) -> np.ndarray:
    if np.iscomplexobj(array):
        raise ValueError("complex numbers")
    return np.asarray(array, np.float64)


def _problem(statistics: Statistics) -> str:
    """Why these cannot be the statistics of pictures; "" if they can."""
    mean, covariance, n = statistics.mean, statistics.covariance, statistics.n
    if mean.ndim != 1 or not mean.size or covariance.shape != 2 * mean.shape:
        return f"mu {mean.shape} and sigma {covariance.shape} do not belong together"
    kept = [rows for rows in (statistics.features, statistics.logits) if rows is not None]
    if not all(np.isfinite(array).all() for array in (mean, covariance, *kept)):
        return "holds values that are not finite"
    variance = covariance.diagonal()
    if (variance < 0).any() or np.abs(covariance - covariance.T).max() > 1e-6 * variance.max():
        return "sigma is not a covariance, which is symmetric and has no negative diagonal"
    if n and n < 2:
        return f"n is {n}; a distance needs at least two pictures"
    if kept and (kept[0].shape[1:] != mean.shape or len({len(rows) for rows in kept}) > 1 or len(kept[0]) > n):
        return f"features {kept[0].shape} of {n} pictures do not belong to mu {mean.shape}"
    return ""


def _archive(path: Path) -> dict:
    with np.load(io.BytesIO(path.read_bytes())) as archive:
        return dict(archive)


def _pair(path: Path) -> dict:
    """Read the mean and the covariance, given the path of either file."""
    if not path.stem.endswith(("_m", "_s")):
        raise UserError(f"{path}: of a pair of .npy files, one ends in _m (mean) and the other in _s (covariance)")
    stem = path.stem[:-1]
    return {"mu": np.load(path.with_name(f"{stem}m.npy")), "sigma": np.load(path.with_name(f"{stem}s.npy"))}
