"""One function to read any weights file, one to write it; the content decides the format, not the name."""
import contextlib
import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from jittwin.atomic import atomic_write
from jittwin.errors import did_you_mean
from jittwin.weights import safetensors_file, torch_file
from jittwin.weights.arrays import WeightsError, canonical, content_hash
from jittwin.weights.lazy import LazyArrays
from jittwin.weights.safe_pickle import Array, restricted_load

# If a folder holds one network in several formats, the first of these is read.
FORMATS = {".safetensors": "safetensors", ".pth": "torch", ".pt": "torch", ".bin": "torch",
           ".pkl": "jittor", ".npz": "npz"}
JITTOR_TAG = b"HCAJSLHD"
TRAILER = hashlib.sha1().digest_size + len(JITTOR_TAG)
# Keys under which training scripts store the weights in a larger dictionary, the most specific name first.
WRAPPERS = ("state_dict", "model_state_dict", "model", "params_ema", "params", "weights", "module", "net")


def read_weights(path: str | os.PathLike, keep: Callable[[str], bool] = lambda key: True,
                 parts: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of a weights file, in the file's own key order, writable, with the file's own types.

    Reads safetensors (also *.index.json with its shards), PyTorch zip and legacy files, Jittor and
    plain NumPy pickles, and npz. Returns only arrays whose keys `keep` accepts; except in legacy files
    and pickles, the others are not read. parts: names of the state dictionaries of one network, if a script
    stores it in several; the keys of each then follow its name and a dot. WeightsError: missing, damaged,
    truncated, unknown or hostile file. Nothing in a file is ever executed.
    """
    where = os.fspath(path)
    with reading(where), open(path, "rb") as stream:
        kind = kind_of(stream, where)
        if kind == "index":
            return _read_shards(json.load(stream)["weight_map"], where, keep)
        if kind == "safetensors":
            return safetensors_file.read(stream, keep)
        if kind == "npz":
            return _read_npz(stream, keep)
        if kind == "torch":
            with zipfile.ZipFile(stream) as archive:
                content = torch_file.read_zip(archive, where, lambda content: [
                    value for key, value in _unwrapped(content, where, parts).items() if keep(key)])
                return _arrays(content, where, keep, parts)
        if kind == "torch-legacy":
            return _arrays(torch_file.read_legacy(stream, where), where, keep, parts)
        return _arrays(_read_pickle(stream, where), where, keep, parts)


def open_weights(path: str | os.PathLike, keep: Callable[[str], bool] = lambda key: True,
                 parts: Sequence[str] = ()) -> LazyArrays:
    """Like `read_weights`, but each array of a safetensors or PyTorch zip file is read when it is accessed."""
    where = os.fspath(path)
    with reading(where), open(path, "rb") as stream:
        kind = kind_of(stream, where)
        if kind == "index":
            return _open_shards(json.load(stream)["weight_map"], where, keep)
        if kind == "torch":
            return _open_torch(path, where, keep, parts)
        if kind != "safetensors":
            arrays = read_weights(path, keep, parts)
            return LazyArrays({key: array.shape for key, array in arrays.items()}, arrays.__getitem__, where)
        entries = {key: entry for key, entry in safetensors_file.entries(stream).items() if keep(key)}

    def read(key: str) -> np.ndarray:
        with reading(where), open(path, "rb") as stream:
            return safetensors_file.read_entry(stream, entries[key])

    return LazyArrays({key: entry.shape for key, entry in entries.items()}, read, where)


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata that write_weights stored; {} for formats without metadata.

    Dictionaries and lists are returned as such, everything else as text. WeightsError: as read_weights.
    """
    where = os.fspath(path)
    with reading(where), open(path, "rb") as stream:
        kind = kind_of(stream, where)
        if kind == "index":
            return json.load(stream).get("metadata", {})
        found = safetensors_file.read_header(stream)[1] if kind == "safetensors" else {}
        return {key: _decoded(value) for key, value in found.items()}


def write_weights(path: str | os.PathLike, arrays: Mapping[str, np.ndarray],
                  metadata: Mapping[str, Any] | None = None, format: str | None = None) -> None:
    """Write arrays atomically. format: a value of FORMATS; None: that of the extension.

    metadata: stored in safetensors files only, together with the content's sha256. WeightsError: unknown format, a type
    that it cannot hold, the disk is full …; a previous file stays intact.
    """
    where = os.fspath(path)
    suffix = Path(path).suffix
    if format is None and suffix not in FORMATS:
        raise WeightsError(f"{where}: unknown extension {suffix!r}{did_you_mean(suffix, FORMATS)}; "
                           f"legal: {', '.join(FORMATS)}")
    if format is not None and format not in FORMATS.values():
        raise WeightsError(f"{where}: unknown format {format!r}{did_you_mean(format, FORMATS.values())}; "
                           f"legal: {', '.join(dict.fromkeys(FORMATS.values()))}")
    arrays = canonical(arrays, where)
    with atomic_write(path, WeightsError) as stream:
        match format or FORMATS[suffix]:
            case "safetensors":
                extra = {key: value if isinstance(value, str) else json.dumps(value)
                         for key, value in (metadata or {}).items()}
                safetensors_file.write(stream, arrays, {**extra, "sha256": content_hash(arrays)})
            case "torch":
                torch_file.write_zip(stream, arrays)
            case "jittor":
                _write_pickle(stream, arrays)
            case "npz":
                _write_npz(stream, arrays, where)


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn any error of reading a damaged file into a WeightsError that names the file `where`."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise WeightsError(f"{where}: cannot be read: {error.strerror}; name a file that exists") from error
        reason = " ".join(str(error).split())
        raise WeightsError(f"{where}: damaged or truncated ({type(error).__name__}: {reason}); "
                           "fetch or write the file again") from error


def kind_of(stream: BinaryIO, where: str) -> str:
    """The format of a file, by its first bytes; the stream is left at its start. WeightsError: unknown."""
    head = stream.read(64)
    stream.seek(0)
    if head.startswith(b"PK"):
        names = zipfile.ZipFile(stream).namelist()
        stream.seek(0)
        if torch_file.folder(names) is not None:
            return "torch"
        if names and all(name.endswith(".npy") for name in names):
            return "npz"
    elif torch_file.LEGACY_MAGIC in head:
        return "torch-legacy"
    elif head[5:9] == b"\0\0\0{":  # a header length below 2^40, then JSON
        return "safetensors"
    elif head.lstrip().startswith(b"{"):
        return "index"
    elif head[:1] == pickle.PROTO or head[:1] in (b"(", b"}", b"c"):
        return "pickle"
    elif what := other_content(head):
        raise WeightsError(f"{where}: {what}")
    raise WeightsError(f"{where}: {'not a weights file' if head else 'empty file'}; legal content: "
                       "safetensors (or its index.json), PyTorch .pth/.pt/.bin, Jittor or NumPy .pkl, .npz")


def other_content(head: bytes) -> str:
    """Describe a file with these first bytes that is a Git LFS pointer or a web page; "" for any other file."""
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of git LFS in place of the file itself; run git lfs pull in its folder, or fetch it again"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "is a web page in place of the file itself; fetch the file again, by its download link"
    return ""


def _read_pickle(stream: BinaryIO, where: str) -> Any:
    """Read a plain pickle or Jittor's (pickle, its SHA-1, a tag); the SHA-1 is verified before parsing."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - TRAILER))
    trailer = stream.read()
    stream.seek(0)
    if trailer.endswith(JITTOR_TAG):
        digest, left = hashlib.sha1(), size - TRAILER
        while left > 0:
            chunk = stream.read(min(left, 1 << 20))
            digest.update(chunk)
            left -= len(chunk)
        if digest.digest() != trailer[:-len(JITTOR_TAG)]:
            raise WeightsError(f"{where}: the SHA-1 stored in the file does not match its content; "
                               "the file is damaged: fetch or write it again")
        stream.seek(0)
    content = restricted_load(stream, where)
    if not trailer.endswith(JITTOR_TAG) and stream.tell() != size:
        raise ValueError(f"{size - stream.tell()} stray bytes after the pickle")
    return content


def _arrays(content: Any, where: str, keep: Callable[[str], bool], parts: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays that `keep` accepts, from the state dictionary in the content of a pickle."""
    arrays = {}
    for key, value in _unwrapped(content, where, parts).items():
        if keep(key):
            _checked(key, value, where)
            arrays[key] = value.value if isinstance(value, Array) else value.array()
    return canonical(arrays, where)


def _checked(key: str, value: Any, where: str) -> torch_file.Tensor | Array:
    if not _is_array(value):
        raise WeightsError(f"{where}: {key!r} holds {type(value).__name__}, not an array; save the state dictionary "
                           "alone")
    return value


def _unwrapped(content: Any, where: str, parts: Sequence[str]) -> dict:
    """The state dictionary: the content itself, or the one that a training script stored in it (see WRAPPERS), or the
    `parts` in it joined."""
    if not isinstance(content, dict):
        raise WeightsError(f"{where}: holds {type(content).__name__} instead of a dictionary of arrays")
    inner = {key: value for key, value in content.items()
             if isinstance(value, dict) and any(map(_is_array, value.values()))}
    if joined := {f"{name}.{key}": value for name in parts for key, value in inner.get(name, {}).items()}:
        return joined
    known = [name for name in WRAPPERS if name in inner]
    if known or len(inner) == 1:
        return inner[(known or list(inner))[0]]
    if inner:
        raise WeightsError(f"{where}: holds several state dictionaries ({', '.join(map(str, inner))}); "
                           "save one of them alone")
    return content


def _is_array(value: Any) -> bool:
    return isinstance(value, torch_file.Tensor) or (
        isinstance(value, Array) and isinstance(value.value, np.ndarray))


def _open_torch(path, where: str, keep: Callable[[str], bool], parts: Sequence[str]) -> LazyArrays:
    archive = zipfile.ZipFile(path)     # stays open: every array would read its table of contents again
    content = torch_file.read_zip(archive, where, lambda content: ())
    found = {key: _checked(key, value, where) for key, value in _unwrapped(content, where, parts).items() if keep(key)}
    tensors = {key: value for key, value in found.items() if isinstance(value, torch_file.Tensor)}
    arrays = canonical({key: value.value for key, value in found.items() if key not in tensors}, where)
    for tensor in tensors.values():
        torch_file.check(archive, tensor)

    def read(key: str) -> np.ndarray:
        if key in arrays:
            return arrays[key].copy()
        with reading(where):
            return canonical({key: torch_file.read_tensor(archive, tensors[key])}, where)[key]

    shapes = {key: tensors[key].size if key in tensors else arrays[key].shape for key in found}
    return LazyArrays(shapes, read, where)


def _read_shards(weight_map: Mapping[str, str], where: str, keep: Callable[[str], bool]) -> dict[str, np.ndarray]:
    return dict(_open_shards(weight_map, where, keep))


def _open_shards(weight_map: Mapping[str, str], where: str, keep: Callable[[str], bool]) -> LazyArrays:
    """The arrays of an index's shards that `keep` accepts; shards without such arrays need not exist."""
    weight_map = {key: name for key, name in weight_map.items() if keep(key)}
    folder, names = os.path.dirname(where), list(dict.fromkeys(weight_map.values()))
    for name in names:
        if os.path.basename(name) != name:
            raise WeightsError(f"{where}: shard {name!r} lies outside the index's folder")
    absent = [name for name in names if not os.path.isfile(os.path.join(folder, name))]
    if absent:
        raise WeightsError(f"{where}: {len(absent)} of its {len(names)} shards are not there: {', '.join(absent[:5])}; "
                           "the download is unfinished: run it again")
    shards = {name: open_weights(os.path.join(folder, name), weight_map.__contains__) for name in names}
    missing = [key for key, name in weight_map.items() if key not in shards[name]]
    if missing:
        raise WeightsError(f"{where}: {missing[0]} is not in {weight_map[missing[0]]} "
                           f"({len(missing)} such keys); fetch the shards again")
    return LazyArrays({key: shards[name].shapes[key] for key, name in weight_map.items()},
                      lambda key: shards[weight_map[key]][key], where)


def _decoded(text: str) -> Any:
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return text


def _read_npz(stream: BinaryIO, keep: Callable[[str], bool]) -> dict[str, np.ndarray]:
    with np.load(stream, allow_pickle=False) as archive:
        # NumPy's format has no name for bfloat16 and stores it as two bytes without a type.
        arrays = {key: archive[key] for key in archive if keep(key)}
        return canonical({key: array.view(ml_dtypes.bfloat16) if array.dtype == "V2" else array
                          for key, array in arrays.items()}, "npz")


def _write_npz(stream: BinaryIO, arrays: Mapping[str, np.ndarray], where: str) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for key, array in arrays.items():
            if array.dtype.name.startswith("float8"):
                raise WeightsError(f"{where}: {key} is {array.dtype}, which npz cannot name; "
                                   "write .safetensors")
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


class _Hashing:
    """A stream that computes the SHA-1 of what is written to it."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.sha1 = stream, hashlib.sha1()

    def write(self, data) -> int:
        self.sha1.update(data)
        return self.stream.write(data)


def _write_pickle(stream: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    """Write the format of jittor.save before 2023-12, which old Jittor, new Jittor and NumPy can read."""
    hashing = _Hashing(stream)
    pickle.Pickler(hashing, 4).dump(arrays)
    stream.write(hashing.sha1.digest() + JITTOR_TAG)
