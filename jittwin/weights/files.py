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
from jittwin.errors import did_you_mean, reason
from jittwin.file_kinds import HEAD, TRUNCATED, is_code, other_content, unpacked
from jittwin.weights import safetensors_file, torch_file
from jittwin.weights.arrays import WeightsError, canonical, content_hash
from jittwin.weights.choice import Wrapper, chosen, is_array, no_wrapper, state_of
from jittwin.weights.lazy import LazyArrays
from jittwin.weights.safe_pickle import Array, Inert, restricted_load, shown

# If a folder holds one network in several formats, the first of these is read.
FORMATS = {".safetensors": "safetensors", ".pth": "torch", ".pt": "torch", ".bin": "torch",
           ".pkl": "jittor", ".npz": "npz"}
OTHER_HASH = "its arrays do not have the sha256 that its metadata state"
JITTOR_TAG = b"HCAJSLHD"
TRAILER = hashlib.sha1().digest_size + len(JITTOR_TAG)


def read_weights(path: str | os.PathLike, keep: Callable[[str], bool] = lambda key: True, parts: Sequence[str] = (),
                 part: str | None = None, wrapper: Wrapper = no_wrapper) -> dict[str, np.ndarray]:
    """The arrays of a weights file, in the file's own key order, writable, with the file's own types.

    Reads safetensors (also *.index.json with its shards), PyTorch zip and legacy files, Jittor and
    plain NumPy pickles, and npz. Returns only arrays whose keys `keep` accepts; except in legacy files
    and pickles, the others are not read. parts: names of the state dictionaries of one network, if a script
    stores it in several; the keys of each then follow its name and a dot. part: which of several networks
    is meant. wrapper: finds what a wrapper, such as DataParallel, has put before all keys, which is left out.
    WeightsError: missing, damaged, truncated, unknown or hostile file. Nothing in a file is ever executed.
    """
    where = os.fspath(path)
    with reading(where), open(path, "rb") as stream:
        kind = kind_of(stream, where)
        if kind == "index":
            return _read_shards(_weight_map(stream), where, keep)
        if kind == "safetensors":
            found, stated = safetensors_file.entries(stream), safetensors_file.stated_hash(stream)
            names = chosen(found, where, keep, wrapper, part or "")
            arrays = {name: safetensors_file.read_entry(stream, found[key]) for name, key in names.items()}
            if stated and len(names) == len(found) and content_hash({names[n]: a for n, a in arrays.items()}) != stated:
                raise ValueError(OTHER_HASH)
            return arrays
        if kind == "npz":
            return _read_npz(stream, where, keep, wrapper, part)

        def state(content: Any) -> dict:
            return _chosen_of(content, where, keep, parts, part, wrapper)

        if kind == "torch":
            with zipfile.ZipFile(stream) as archive:
                content = torch_file.read_zip(archive, where, lambda content: state(content).values())
                return _arrays(state(content), where)
        if kind == "torch-legacy":
            return _arrays(state(torch_file.read_legacy(stream, where)), where)
        return _arrays(state(_read_pickle(stream, where)), where)


def open_weights(path: str | os.PathLike, keep: Callable[[str], bool] = lambda key: True, parts: Sequence[str] = (),
                 part: str | None = None, wrapper: Wrapper = no_wrapper) -> LazyArrays:
    """Like `read_weights`, but each array of a safetensors or PyTorch zip file is read when it is accessed."""
    where = os.fspath(path)
    with reading(where), open(path, "rb") as stream:
        kind = kind_of(stream, where)
        if kind == "index":
            return _open_shards(_weight_map(stream), where, keep)
        if kind == "torch":
            return _open_torch(path, where, lambda content: _chosen_of(content, where, keep, parts, part, wrapper))
        if kind != "safetensors":
            arrays = read_weights(path, keep, parts, part, wrapper)
            return LazyArrays({key: array.shape for key, array in arrays.items()}, arrays.__getitem__, where)
        found = safetensors_file.entries(stream)
        entries = {name: found[key] for name, key in chosen(found, where, keep, wrapper, part or "").items()}

    def read(key: str) -> np.ndarray:
        with reading(where), open(path, "rb") as stream:
            return safetensors_file.read_entry(stream, entries[key])

    return LazyArrays({key: entry.shape for key, entry in entries.items()}, read, where)


def is_script(path: str | os.PathLike) -> bool:
    """Whether a file is a TorchScript archive, which holds a program beside its arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return torch_file.folder(names) is not None and any("/code/" in name for name in names)


def check_hash(path: str | os.PathLike) -> None:
    """WeightsError: a safetensors file of ours whose arrays do not have the hash that its metadata state."""
    where = os.fspath(path)
    with reading(where), open(path, "rb") as stream:
        stated = safetensors_file.stated_hash(stream) if kind_of(stream, where) == "safetensors" else ""
        if stated and content_hash(open_weights(path)) != stated:
            raise ValueError(OTHER_HASH)


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
        if isinstance(error, IsADirectoryError):
            raise WeightsError(f"{where}: {unpacked(where)}") from error
        if isinstance(error, OSError) and error.errno is not None:
            raise WeightsError(f"{where}: cannot be read: {error.strerror}; name a file that exists") from error
        raise WeightsError(f"{where}: damaged or truncated ({type(error).__name__}: {reason(error)}); "
                           "fetch or write the file again") from error


def kind_of(stream: BinaryIO, where: str) -> str:
    """The format of a file, by its first bytes; the stream is left at its start.

    WeightsError: unknown. The message names what the file is, where that can be told.
    """
    head = stream.read(HEAD)
    stream.seek(0)
    if head.startswith(b"PK"):
        what = _archive(stream)
        stream.seek(0)
        if what in ("torch", "npz"):
            return what
    elif torch_file.LEGACY_MAGIC in head[:64]:
        return "torch-legacy"
    elif head[5:9] == b"\0\0\0{":  # a header length below 2^40, then JSON
        return "safetensors"
    elif head.lstrip().startswith(b"{"):
        return "index"
    elif head[:1] == pickle.PROTO or head[:1] in (b"(", b"}", b"c"):
        return "pickle"
    else:
        what = other_content(head) or ("is a program, not weights" if is_code(head) else "")
    what = what or ("not a weights file" if head else "empty file")
    legal = "; legal content: safetensors (or its index.json), PyTorch .pth/.pt/.bin, Jittor or NumPy .pkl, .npz"
    raise WeightsError(f"{where}: {what}{'' if ';' in what else legal}")


def _archive(stream: BinaryIO) -> str:
    """"torch", "npz", or what another zip archive is, for a message."""
    try:
        names = zipfile.ZipFile(stream).namelist()
    except zipfile.BadZipFile:
        size = stream.seek(0, os.SEEK_END)
        return f"is the beginning of a zip archive, PyTorch's form, {size} bytes long; {TRUNCATED}"
    if torch_file.folder(names) is not None:
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if inner := next((name for name in names if name.endswith("/data.pkl")), None):
        return (f"is a zip archive of an unpacked PyTorch file ({os.path.dirname(inner)}); fetch the file again, "
                "without unpacking it")
    inside = [name for name in names if os.path.splitext(name)[1].lower() in FORMATS]
    if inside:
        more = f" and {len(inside) - 1} more" if inside[1:] else ""
        return f"is a zip archive that holds {inside[0]}{more}; unpack it and give that file"
    if "[Content_Types].xml" in names:
        return "is a document or table of Office"
    return f"is a zip archive without weights ({', '.join(names[:2]) or 'empty'})"


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


def _chosen_of(content: Any, where: str, keep: Callable[[str], bool], parts: Sequence[str], part: str | None,
               wrapper: Wrapper) -> dict[str, torch_file.Tensor | Array]:
    """The arrays that `keep` accepts, from the state dictionary in the content of a pickle, by their names."""
    state, part = state_of(content, where, parts, part)
    for key in state:
        if not isinstance(key, str):
            raise WeightsError(f"{where}: holds an array under the key {shown(key)}, which is no name; save the state "
                               "dictionary alone")
    found = {name: state[key] for name, key in chosen(state, where, keep, wrapper, part).items()}
    for name, value in found.items():
        if not is_array(value):
            kind = (f"an array of {value.name}" if isinstance(value, Array) else
                    value.name if isinstance(value, Inert) else type(value).__name__)
            raise WeightsError(f"{where}: {name!r} holds {kind}, no array of numbers; save the state dictionary alone")
    torch_file.check_all(value for value in found.values() if isinstance(value, torch_file.Tensor))
    return found


def _arrays(found: Mapping[str, torch_file.Tensor | Array], where: str) -> dict[str, np.ndarray]:
    return canonical({key: value.value if isinstance(value, Array) else value.array() for key, value in found.items()},
                     where)


def _open_torch(path, where: str, state: Callable[[Any], Mapping[str, torch_file.Tensor | Array]]) -> LazyArrays:
    archive = zipfile.ZipFile(path)     # stays open: every array would read its table of contents again
    found = state(torch_file.read_zip(archive, where, lambda content: ()))
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


def _weight_map(stream: BinaryIO) -> dict[str, str]:
    """The files of an index's arrays. ValueError: another JSON file."""
    found = json.load(stream).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise ValueError("no index of shards: it lacks weight_map")
    return found


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


def _read_npz(stream: BinaryIO, where: str, keep: Callable[[str], bool], wrapper: Wrapper,
              part: str | None) -> dict[str, np.ndarray]:
    with np.load(stream, allow_pickle=False) as archive:
        # NumPy's format has no name for bfloat16 and stores it as two bytes without a type.
        arrays = {name: archive[key] for name, key in chosen(archive, where, keep, wrapper, part or "").items()}
        return canonical({key: array.view(ml_dtypes.bfloat16) if array.dtype == "V2" else array
                          for key, array in arrays.items()}, where)


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
