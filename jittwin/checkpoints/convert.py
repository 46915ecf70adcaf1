"""Conversion of weights between file formats, with a check against the model that they belong to."""
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jittwin.backend import any_backend
from jittwin.checkpoints.adapters import read_adapter, state_dict, write_adapter
from jittwin.errors import UserError, choose_from
from jittwin.models.catalog import BY_NAME, Record
from jittwin.models.catalog import MODELS as CATALOG
from jittwin.models.conversion import Conversion, Source, no_config
from jittwin.weights import FLOATS, FORMATS, content_hash, read_weights, write_content, write_weights
from jittwin.weights.files import check_hash
from jittwin.weights.lazy import shapes_of
from jittwin.weights.state import differences, listed
from jittwin.weights.usable import is_finite

ANY = "any"
UNCHECKED = Conversion(no_config, own=None)
ADAPTERS = tuple(record.name for record in CATALOG if record.files == "adapter")
MODAL = tuple(record.name for record in CATALOG if record.conversion and record.conversion.modes)
ADAPTER_FORMATS = {".pth": "original", ".pt": "original", ".bin": "original", "": "peft"}     # by extension
MODELS = (*(record.name for record in CATALOG if record.conversion or record.files == "adapter"), ANY)


@dataclass(frozen=True)
class Report:
    """The result of a conversion: counts, element types, content hash, keys that were dropped or added."""
    path: str
    tensors: int
    scalars: int
    dtypes: Mapping[str, int]
    sha256: str
    dropped: tuple[str, ...] = field(default=())
    added: tuple[str, ...] = field(default=())
    verified: bool = False
    extras: str = "keys"        # description of the keys that were dropped or added
    not_finite: tuple[str, ...] = ()    # keys of arrays with NaN or infinity

    def __str__(self) -> str:
        types = ", ".join(f"{count} {name}" for name, count in self.dtypes.items())
        lines = [f"{self.path}: {self.tensors} tensors ({types}), {self.scalars:,} scalars",
                 f"sha256 {self.sha256}"]
        for verb, keys in (("dropped", self.dropped), ("added", self.added)):
            if keys:
                lines.append(f"{verb} {len(keys)} {self.extras}")
        if self.not_finite:
            lines.append(f"warning: {len(self.not_finite)} tensors hold NaN or infinity: {listed(self.not_finite)}; no "
                         "command computes with such a file")
        if self.verified:
            lines.append("verified: read back byte for byte")
        return "\n".join(lines)


def convert(src: str | os.PathLike, dst: str | os.PathLike, model: str, *, verify: bool = False,
            dtype: str | None = None, to: str = "jittor", reference_compat: bool = False,
            mode: str | None = None, part: str | None = None) -> Report:
    """Read `src`, check it against `model`, and write `dst`. UserError: a mistake; `dst` is then unchanged.

    src: a weights file, or the hub folder of a model. model: one of MODELS; ANY copies without checking names. verify:
    read the written file again and compare. dtype: one of jittwin.weights.FLOATS, to which floating-point arrays are
    cast; None keeps types and bytes. to: "jittor" writes the keys that both twins load, "torch" those of upstream's
    PyTorch files, where they differ. reference_compat: an adapter gets the original's adapters of the pooling head,
    which change nothing. mode: of a model that has several, where the file does not tell it. part: which of several
    networks in the file.
    """
    _legal("model", model, MODELS)
    if dtype is not None:
        _legal("dtype", dtype, FLOATS)
    record = BY_NAME.get(model)
    modes = record.conversion.modes if record and record.conversion else ()
    if mode is not None and not modes:
        raise UserError(f"--mode is for --model {' or '.join(MODAL)}, not {model}")
    if mode is not None:
        _legal("mode", mode, modes)
    if record and record.files == "adapter":
        if to != "jittor":
            raise UserError(f"--to {to} is for whole networks; the format of an adapter follows from the name {dst}")
        if part is not None:
            raise UserError(f"--part {part} is for whole networks, and {model} is an adapter; leave it out")
        return _convert_adapter(src, dst, verify, dtype, reference_compat)
    if reference_compat:
        raise UserError(f"--reference-compat is for --model {' or '.join(ADAPTERS)}, not {model}")
    if record is None and to == "torch":
        raise UserError("--to torch needs the model's key list; name the model instead of 'any'")
    return _convert_state(src, dst, record, verify, dtype, to, mode, part)


def _convert_state(src, dst, record: Record | None, verify: bool, dtype: str | None, to: str,
                   mode: str | None, part: str | None) -> Report:
    conversion = record.conversion if record else UNCHECKED
    nested = to == "torch" and conversion.compose is not None
    if nested and FORMATS.get(os.path.splitext(dst)[1]) != "torch":
        raise UserError(f"{os.fspath(dst)}: the form of the original {record.name} is a PyTorch file; name it NAME.pt")
    if os.path.isfile(src):
        check_hash(src)
    source = conversion.open(src, mode, part)
    metadata, added = dict(source.metadata), ()
    if record:
        config = check(record.name, source.arrays, source)
        metadata |= {"model": record.name, **({"config": dict(conversion.describe(config))} if config else {})}
        metadata |= {"name": source.folder.name} if source.folder else {}
    arrays = dict(source.arrays)
    if to == "torch":
        arrays, added = conversion.upstream(arrays)
    if dtype is not None:
        arrays = {key: _cast(array, dtype, f"{os.fspath(src)}: {key}") for key, array in arrays.items()}
    if nested:
        write_content(dst, conversion.compose(arrays, metadata))
    else:
        write_weights(dst, arrays, metadata | {"source": os.path.basename(src)})
    sha256 = content_hash(arrays)
    if verify:
        _verify(dst, arrays, sha256, conversion.parts)
    scalars, dtypes, bad = 0, Counter(), []
    for key, array in arrays.items():
        scalars, dtypes[str(array.dtype)] = scalars + array.size, dtypes[str(array.dtype)] + 1
        if not is_finite(array):
            bad.append(key)
    return Report(os.fspath(dst), len(arrays), scalars, dtypes, sha256, source.left_out, added, verify,
                  conversion.extras, tuple(bad))


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


def check(model: str, arrays: Mapping[str, np.ndarray], source: Source | str) -> Any:
    """The config of the network in `arrays`. source: the opened file, or its name for messages.

    UserError unless names and shapes are exactly the model's, except for keys that match `beside` of its record.
    """
    conversion, shapes = BY_NAME[model].conversion, shapes_of(arrays)
    opened, where = (source, source.where) if isinstance(source, Source) else (None, source)
    config = conversion.infer(shapes, opened)
    if conversion.expected:
        expected = conversion.expected(config, shapes)
    else:
        expected = any_backend().state_shapes(model, config)
    if problems := differences(expected, shapes, allow_unexpected=conversion.beside):
        raise UserError(f"{where}: not an {model}: {problems}; legal: its {len(expected)} keys "
                        f"at this width{_groups(expected, shapes)}; choose another --model, or --model {ANY} to copy "
                        "unchecked")
    return config


def _groups(expected: Mapping, found: Mapping) -> str:
    """"; its names begin with …" where a file holds several networks, of which --part chooses one; "" for others."""
    words = list(dict.fromkeys(key.partition(".")[0] for key in found))
    inside = [word for word in words if any(f"{word}.{key}" in found for key in expected)]
    return f"; its names begin with {listed(words)}: give --part {inside[0]}" if inside and len(words) > 1 else ""


def _legal(option: str, value: str, choices) -> None:
    if value not in choices:
        raise UserError(f"unknown --{option} {value!r}{choose_from(value, choices)}")


def _cast(array: np.ndarray, dtype: str, where: str) -> np.ndarray:
    """Cast a floating-point array; other arrays are returned as they are. UserError: a number becomes infinite."""
    if array.dtype not in FLOATS.values():
        return array
    with np.errstate(over="ignore"):
        result = array.astype(FLOATS[dtype])
    lost = np.isfinite(array) & ~np.isfinite(result)
    if lost.any():
        raise UserError(f"{where} holds {array[lost].flat[0]}, beyond the range of {dtype}; "
                        f"keep {array.dtype}")
    return result


def _verify(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], sha256: str, parts: tuple[str, ...]) -> None:
    written = read_weights(path, parts=parts)
    if list(written) != list(arrays) or content_hash(written) != sha256:
        raise UserError(f"{os.fspath(path)}: reads back differently from what was written; "
                        "the disk is failing: write it elsewhere")
