"""The same weights in another file, checked against the model they belong to."""
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jittwin.checkpoints.adapters import read_adapter, state_dict, write_adapter
from jittwin.errors import UserError, choose_from
from jittwin.models import apf_gan_keys as apf_gan
from jittwin.weights import FLOATS, content_hash, read_metadata, read_weights, write_weights
from jittwin.weights.state import differences

ANY = "any"
AESTHETIC = "aesthetic"
ADAPTER_FORMATS = {".pth": "original", ".pt": "original", ".bin": "original", "": "peft"}     # by extension
MODELS = (*apf_gan.MODELS, AESTHETIC, ANY)


@dataclass(frozen=True)
class Report:
    """What a conversion wrote: counts, element types, content hash, keys left out or added."""
    path: str
    tensors: int
    scalars: int
    dtypes: Mapping[str, int]
    sha256: str
    dropped: tuple[str, ...] = field(default=())
    added: tuple[str, ...] = field(default=())
    verified: bool = False
    extras: str = f"*.{apf_gan.COUNTER}"    # what the keys left out or added are

    def __str__(self) -> str:
        types = ", ".join(f"{count} {name}" for name, count in self.dtypes.items())
        lines = [f"{self.path}: {self.tensors} tensors ({types}), {self.scalars:,} scalars",
                 f"sha256 {self.sha256}"]
        for verb, keys in (("dropped", self.dropped), ("added", self.added)):
            if keys:
                lines.append(f"{verb} {len(keys)} {self.extras}")
        if self.verified:
            lines.append("verified: read back byte for byte")
        return "\n".join(lines)


def convert(src: str | os.PathLike, dst: str | os.PathLike, model: str, *, verify: bool = False,
            dtype: str | None = None, to: str = "jittor", reference_compat: bool = False) -> Report:
    """Reads `src`, checks it against `model`, writes `dst`. Raises UserError and then leaves `dst` as it was.

    model: one of MODELS; ANY copies without checking names. verify: read the written file again and compare. dtype: one
    of jittwin.weights.FLOATS, to which floating-point tensors are cast; types and bytes are kept otherwise. to: "torch"
    gives an APF-GAN network the keys of the official PyTorch tree, which has counters more than "jittor".
    reference_compat: an adapter gets the original's adapters of the pooling head, which change nothing.
    """
    _legal("model", model, MODELS)
    if dtype is not None:
        _legal("dtype", dtype, FLOATS)
    if reference_compat and model != AESTHETIC:
        raise UserError(f"--reference-compat is for --model {AESTHETIC}, not {model}")
    if model == AESTHETIC:
        if to != "jittor":
            raise UserError(f"--to {to} is for APF-GAN; what an adapter becomes follows from {dst}")
        return _convert_adapter(src, dst, verify, dtype, reference_compat)
    if to == "torch" and model == ANY:
        raise UserError("--to torch needs the model's key list; name the model instead of 'any'")
    arrays, metadata = read_weights(src), read_metadata(src)
    dropped = added = ()
    if model != ANY:
        arrays, dropped = _without_counters(arrays)
        config = check(model, arrays, os.fspath(src))
        metadata |= {"model": model, "config": _sizes(model, config)}
        if to == "torch":
            arrays, added = _with_counters(arrays)
    if dtype is not None:
        arrays = {key: _cast(array, dtype, f"{os.fspath(src)}: {key}") for key, array in arrays.items()}
    write_weights(dst, arrays, metadata | {"source": os.path.basename(src)})
    sha256 = content_hash(arrays)
    if verify:
        _verify(dst, arrays, sha256)
    return Report(os.fspath(dst), len(arrays), sum(array.size for array in arrays.values()),
                  Counter(str(array.dtype) for array in arrays.values()), sha256, dropped, added, verify)


def _convert_adapter(src, dst, verify: bool, dtype: str | None, reference_compat: bool) -> Report:
    suffix = os.path.splitext(dst)[1]
    if suffix not in ADAPTER_FORMATS:
        raise UserError(f"{dst}: adapters are written as NAME.pth (the original's form), or as a folder without "
                        "extension (peft's)")
    adapter = read_adapter(src)
    dtype = dtype or adapter.dtype
    arrays = {key: _cast(array, dtype, f"{os.fspath(src)}: {key}")
              for key, array in state_dict(adapter, reference_compat).items()}
    write_adapter(dst, adapter, ADAPTER_FORMATS[suffix], reference_compat, dtype)
    if verify:
        written = read_adapter(dst).arrays
        if any(not np.array_equal(written[key], arrays[key].astype(np.float32), equal_nan=True) for key in written):
            raise UserError(f"{os.fspath(dst)}: reads back differently; the disk is failing: write it elsewhere")
    return Report(os.fspath(dst), len(arrays), sum(array.size for array in arrays.values()), {dtype: len(arrays)},
                  content_hash(arrays), added=tuple(key for key in arrays if key not in adapter.arrays),
                  verified=verify, extras="adapters of the pooling head")


def check(model: str, arrays: Mapping[str, np.ndarray], where: str) -> apf_gan.ModelConfig:
    """The sizes `arrays` were saved with. Raises UserError unless names and shapes are exactly the model's.

    The phase-dependent groups of the generator (noise branch, growing heads) may be there or not, as a whole.
    """
    shapes = {key: array.shape for key, array in arrays.items()}
    config = apf_gan.infer_config(model, shapes)
    expected = apf_gan.expected_keys(model, config, seg_noise=apf_gan.holds(apf_gan.SEG_NOISE, shapes),
                                     heads=apf_gan.holds(apf_gan.HEADS, shapes))
    if problems := differences(expected, shapes):
        raise UserError(f"{where}: not an {model}: {problems}; legal: its {len(expected)} keys "
                        f"at this width; choose another --model, or --model {ANY} to copy unchecked")
    return config


def _sizes(model: str, config: apf_gan.ModelConfig) -> dict[str, int]:
    """The fields of the configuration that a file of this model determines."""
    names = {"apf_gan.generator": ("label_nc", "ngf", "spade_hidden", "seg_noise_kernel"),
             "apf_gan.encoder": ("label_nc", "ngf"),
             "apf_gan.discriminator": ("label_nc", "ndf", "num_D", "n_layers_D")}[model]
    return {name: getattr(config, name) for name in names}


def _legal(option: str, value: str, choices) -> None:
    if value not in choices:
        raise UserError(f"unknown --{option} {value!r}{choose_from(value, choices)}")


def _without_counters(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    dropped = tuple(key for key in arrays if key.endswith(f".param_free_norm.{apf_gan.COUNTER}"))
    return {key: array for key, array in arrays.items() if key not in dropped}, dropped


def _with_counters(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Adds a zero counter after each running variance, where torch keeps it."""
    result, added = {}, []
    for key, array in arrays.items():
        result[key] = array
        if key.endswith(".running_var"):
            added.append(key.replace("running_var", apf_gan.COUNTER))
            result[added[-1]] = np.zeros((), np.int64)
    return result, tuple(added)


def _cast(array: np.ndarray, dtype: str, where: str) -> np.ndarray:
    """Floating-point arrays in another type; a finite number that would become infinite is an error."""
    if array.dtype not in FLOATS.values():
        return array
    with np.errstate(over="ignore"):
        result = array.astype(FLOATS[dtype])
    lost = np.isfinite(array) & ~np.isfinite(result)
    if lost.any():
        raise UserError(f"{where} holds {array[lost].flat[0]}, beyond the range of {dtype}; "
                        f"keep {array.dtype}")
    return result


def _verify(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], sha256: str) -> None:
    written = read_weights(path)
    if list(written) != list(arrays) or content_hash(written) != sha256:
        raise UserError(f"{os.fspath(path)}: reads back differently from what was written; "
                        "the disk is failing: write it elsewhere")
