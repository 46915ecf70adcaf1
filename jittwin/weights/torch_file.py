"""PyTorch's .pth/.pt/.bin files, read and written without PyTorch.

Zip form (torch >= 1.6): <folder>/data.pkl describes the tensors, <folder>/data/<key>
hold the storages. Legacy form: five pickles in a row, then the storages. TorchScript archives
have the zip form; their modules are read for the tensors in them, and their code is not looked at.
"""
import math
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from jittwin.weights.arrays import BY_DTYPE, KINDS, WeightsError, canonical, raw
from jittwin.weights.safe_pickle import ANY, Array, Foreign, Inert, Refused, StandIn, restricted_load, shown

# The first pickle of a legacy file: an integer that spells the magic number, then STOP.
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
FOLDER = "archive"
ALIGNMENT = 64
# A tensor may repeat its storage (stride 0). More elements than this are refused, as an attack on memory.
MOST_EXPANDED = 1 << 26
# PyTorch does not compress. An entry that does not unpack to more than either of these is read all the same.
MOST_PACKED, MOST_UNPACKED = 50, 1 << 28
# Attributes of a TorchScript archive's modules. One module may stand in several places, so a small file could ask for
# more names than fit in memory.
MOST_ATTRIBUTES = 1 << 20


class StorageType(StandIn):
    """An element type, as named by torch.FloatStorage or torch.float32."""
    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype


class Storage(StandIn):
    """A sequence of elements; its bytes follow after the pickle that refers to it."""
    __slots__ = ("dtype", "key", "count", "data", "big")

    def __init__(self, dtype: np.dtype, key: str, count: int):
        self.dtype, self.key, self.count = dtype, key, count

    @property
    def bytes(self) -> int:
        return self.count * self.dtype.itemsize

    def check(self, available: int) -> None:
        """ValueError: the file has fewer bytes."""
        if not 0 <= self.bytes <= available:
            raise ValueError(f"storage {self.key} needs {self.bytes} bytes, the file has {available}")

    def fill(self, stream: BinaryIO, available: int, big: bool) -> None:
        self.check(available)
        self.data, self.big = np.empty(self.bytes, np.uint8), big
        if stream.readinto(self.data.data) != self.bytes:
            raise EOFError(f"storage {self.key} ends early")


class Tensor(StandIn):
    """A strided view of a storage."""
    __slots__ = ("storage", "offset", "size", "stride", "dtype")

    def __init__(self, storage: Storage, offset: int, size: tuple, stride: tuple,
                 dtype: np.dtype | None = None):
        if type(storage) is not Storage or len(size) != len(stride) \
                or not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
            raise Refused("a malformed tensor")
        self.storage, self.offset, self.size, self.stride = storage, offset, tuple(size), tuple(stride)
        self.dtype = dtype or storage.dtype

    def check(self) -> None:
        """ValueError: it leaves its storage."""
        elements, count = self.storage.bytes // self.dtype.itemsize, math.prod(self.size)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride))
        if count > max(elements, MOST_EXPANDED) or count and last >= elements:
            raise ValueError(f"a tensor of shape {self.size} leaves its storage of {elements} elements")

    @property
    def expanded(self) -> int:
        """Elements beyond those of the storage."""
        return max(0, math.prod(self.size) - self.storage.bytes // self.dtype.itemsize)

    def array(self) -> np.ndarray:
        """The elements: the storage itself if the view covers all of it, else a copy."""
        self.check()
        data, itemsize, count = self.storage.data, self.dtype.itemsize, math.prod(self.size)
        if self.storage.big:
            data = data.reshape(-1, itemsize)[:, ::-1].reshape(-1)
        flat = data.view(self.dtype)
        if count == flat.size and self.stride == row_major(self.size):
            return flat.reshape(self.size)
        if not count:
            return np.empty(self.size, self.dtype)
        strides = [step * itemsize for step in self.stride]
        return np.ndarray(self.size, self.dtype, data, self.offset * itemsize, strides).copy()


class ScriptModule(StandIn):
    """A module of a TorchScript archive, with its attributes."""
    __slots__ = ("attributes",)

    def __init__(self):
        self.attributes = {}

    def __setstate__(self, state) -> None:
        if type(state) is not dict or not all(type(name) is str for name in state):
            raise Refused("a TorchScript module without named attributes")
        self.attributes = state

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by their names in a state dictionary. ValueError: too many."""
        found, left, seen = {}, [("", self)], 0
        while left:
            prefix, module = left.pop()
            seen += len(module.attributes)
            if seen > MOST_ATTRIBUTES:
                raise ValueError(f"more than {MOST_ATTRIBUTES} attributes of modules")
            for name, value in module.attributes.items():
                if isinstance(value, Tensor):
                    found[prefix + name] = value
                elif isinstance(value, ScriptModule):
                    left.append((f"{prefix}{name}.", value))
        return found


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, as torch counts them: sizes of 0 count as 1."""
    return tuple(math.prod(max(n, 1) for n in shape[axis + 1:]) for axis in range(len(shape)))


def _rebuild_v2(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None) -> StandIn:
    if isinstance(storage, Inert):      # of an element type that is not read
        return storage
    if metadata:
        raise Refused(f"a tensor with the property {shown(metadata)}")
    return Tensor(storage, offset, size, stride)


def _rebuild_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None) -> Tensor:
    if metadata or type(dtype) is not StorageType:
        raise Refused(f"a tensor with the property {shown(metadata)}")
    return Tensor(storage, offset, size, stride, dtype.dtype)


def _itself(value, *ignored) -> Any:
    return value


def _size(items=()) -> tuple:
    return tuple(items)


def _list(items=(), *ignored) -> list:
    """A list of TorchScript, whose elements have one type."""
    return list(items)


GLOBALS = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_v2,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_v3,
    ("torch._utils", "_rebuild_parameter"): _itself,
    ("torch._utils", "_rebuild_parameter_with_state"): _itself,
    ("torch", "Size"): _size,
    ("__torch__", ANY): ScriptModule,
    **{("torch.jit._pickle", f"build_{kind}list"): _list for kind in ("int", "double", "bool", "tensor")},
    ("torch.jit._pickle", "restore_type_tag"): _itself,
    ("torch.storage", "UntypedStorage"): StorageType(np.dtype(np.uint8)),
    **{(module, kind.storage): StorageType(kind.dtype)
       for kind in KINDS if kind.storage for module in ("torch", "torch.cuda")},
    **{("torch", kind.torch): StorageType(kind.dtype) for kind in KINDS},
}


class _Storages(dict):
    """Storages by key; called with a persistent id of the pickle, it returns the storage."""

    def __call__(self, saved_id: Any) -> StandIn:
        if type(saved_id) is not tuple or len(saved_id) < 5 or saved_id[0] != "storage":
            raise Refused("an unknown persistent id")
        _, kind, key, _, count, *view = saved_id
        if isinstance(kind, Foreign):
            return Inert(kind.name)
        if type(kind) is not StorageType or type(key) is not str or type(count) is not int or any(view):
            raise Refused("a malformed storage")
        storage = self.setdefault(key, Storage(kind.dtype, key, count))
        if (storage.dtype, storage.count) != (kind.dtype, count):
            raise Refused("one storage under two types")
        return storage


def folder(names: list[str]) -> str | None:
    """The folder of a zip archive that holds data.pkl, with its slash; None if it is not a torch file."""
    found = (re.fullmatch(r"((?:[^/]+/)?)data\.pkl", name) for name in names)
    return next((match[1] for match in found if match), None)


def read_zip(archive: zipfile.ZipFile, where: str, wanted: Callable[[Any], Iterable] | None = None) -> Any:
    """The object in a zip-form file, with `Tensor` stand-ins in place of tensors.

    That of a TorchScript archive is the dictionary of its tensors.
    wanted: a function from the object to the tensors whose storages are loaded; None for all.
    """
    names, storages = archive.namelist(), _Storages()
    root = folder(names)
    with archive.open(_whole(archive.getinfo(root + "data.pkl"))) as stream:
        content = restricted_load(stream, where, GLOBALS, storages)
    if isinstance(content, ScriptModule):
        content = content.tensors()
    chosen = storages if wanted is None else [v.storage.key for v in wanted(content) if isinstance(v, Tensor)]
    for key in dict.fromkeys(chosen):
        load(archive, storages[key])
    return content


def check(archive: zipfile.ZipFile, tensor: Tensor) -> None:
    """ValueError, KeyError: the archive does not hold the whole tensor."""
    tensor.check()
    tensor.storage.check(entry_of(archive, tensor.storage).file_size)


def check_all(tensors: Iterable[Tensor]) -> None:
    """ValueError: together they repeat their storages more often than any network does."""
    repeated = sum(tensor.expanded for tensor in tensors)
    if repeated > MOST_EXPANDED:
        raise ValueError(f"tensors that repeat their storages have {repeated} elements together")


def entry_of(archive: zipfile.ZipFile, storage: Storage) -> zipfile.ZipInfo:
    return _whole(archive.getinfo(f"{folder(archive.namelist())}data/{storage.key}"))


def _whole(entry: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """ValueError: an entry that is compressed so much that it can only be an attack on memory."""
    if entry.file_size > max(MOST_PACKED * entry.compress_size, MOST_UNPACKED):
        raise ValueError(f"{entry.filename} of {entry.compress_size} bytes unpacks to {entry.file_size}")
    return entry


def load(archive: zipfile.ZipFile, storage: Storage) -> None:
    """Read the elements of a storage of the object that read_zip returned."""
    names, entry = archive.namelist(), entry_of(archive, storage)
    order = f"{folder(names)}byteorder"
    with archive.open(entry) as stream:
        storage.fill(stream, entry.file_size, order in names and archive.read(order) == b"big")


def read_tensor(archive: zipfile.ZipFile, tensor: Tensor) -> np.ndarray:
    """The elements of a tensor of the object that read_zip returned without its storages.

    They do not stay in memory, but a storage stays that the tensor is a part of: other parts will be read.
    """
    storage = tensor.storage
    if not hasattr(storage, "data"):
        load(archive, storage)
    array = tensor.array()
    if array.nbytes == storage.bytes:
        del storage.data
    return array


def read_legacy(stream: BinaryIO, where: str) -> Any:
    """The object in a legacy file, with `Tensor` stand-ins whose storages are loaded."""
    storages = _Storages()
    _magic, _version, system = (restricted_load(stream, where) for _ in range(3))
    content = restricted_load(stream, where, GLOBALS, storages)
    size = os.fstat(stream.fileno()).st_size
    for key in restricted_load(stream, where):
        count, storage = int.from_bytes(stream.read(8), "little"), storages[key]
        if count != storage.count:
            raise ValueError(f"storage {key} holds {count} elements instead of {storage.count}")
        storage.fill(stream, size - stream.tell(), not system["little_endian"])
    return content


def plain(content: Any) -> Any:
    """The result of `read_zip` or `read_legacy` with arrays in place of `Tensor` stand-ins and `Array` ones.

    An object that occurs several times is converted once; otherwise a small file could ask for more copies than fit in
    memory.
    """
    known = {}

    def converted(value: Any) -> Any:
        if value is None or isinstance(value, (*_LEAVES, np.ndarray)):
            return value
        if id(value) not in known:
            known[id(value)] = taken_apart(value)
        return known[id(value)]

    def taken_apart(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.array()
        if isinstance(value, Array):
            number = isinstance(value.value, np.ndarray) and not value.value.shape
            return value.value.item() if number else converted(value.value)
        if isinstance(value, dict):
            return type(value)((converted(key), converted(part)) for key, part in value.items())
        if isinstance(value, (list, tuple)):
            return type(value)(map(converted, value))
        return value        # an object of another program, a set, bytes: what needs them checks their types

    return converted(content)


def write_zip(stream: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a zip-form file that torch.load(weights_only=True) reads: an OrderedDict of CPU tensors."""
    write_nested(stream, OrderedDict(arrays), "arrays")


def write_nested(stream: BinaryIO, content: Any, where: str) -> None:
    """The same for dictionaries, lists and tuples in one another, with numbers, text, None and arrays inside."""
    arrays = []
    description = pickle.PROTO + b"\x02" + _describe(content, arrays, where) + pickle.STOP
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        _record(archive, "data.pkl", description)
        _record(archive, "byteorder", b"little")
        for number, array in enumerate(arrays):
            _record(archive, f"data/{number}", raw(array).data)
        _record(archive, "version", b"3\n")


def _record(archive: zipfile.ZipFile, name: str, data) -> None:
    """One stored entry whose data starts at a multiple of 64 bytes, so that torch can map the file."""
    info = zipfile.ZipInfo(f"{FOLDER}/{name}")
    info.file_size = len(data)
    header = archive.fp.tell() + 30 + len(info.filename) + 4
    padding = -header % ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    with archive.open(info, "w") as entry:
        entry.write(data)


def _describe(content: Any, arrays: list[np.ndarray], where: str) -> bytes:
    """The opcodes of `content`, written out since torch's own classes are not at hand; its arrays join `arrays`."""
    if isinstance(content, np.ndarray):
        arrays.append(canonical({"array": content}, where)["array"])
        return _describe_tensor(arrays[-1], len(arrays) - 1)
    if isinstance(content, np.generic):
        content = content.item()
    if isinstance(content, dict):
        empty = _ORDERED if isinstance(content, OrderedDict) else pickle.EMPTY_DICT
        parts = [_describe(part, arrays, where) for item in content.items() for part in item]
        return empty + pickle.MARK + b"".join(parts) + pickle.SETITEMS
    if isinstance(content, (list, tuple)):
        parts = b"".join(_describe(part, arrays, where) for part in content)
        if isinstance(content, tuple):
            return pickle.MARK + parts + pickle.TUPLE
        return pickle.EMPTY_LIST + pickle.MARK + parts + pickle.APPENDS
    if content is None or isinstance(content, _LEAVES):
        return _plain(content)
    raise WeightsError(f"{where}: {type(content).__name__} cannot be written; legal are arrays, numbers, text, lists "
                       "and dictionaries")


def _describe_tensor(array: np.ndarray, number: int) -> bytes:
    kind = BY_DTYPE[array.dtype]
    if kind.storage:
        rebuild, count, dtype = "_rebuild_tensor_v2", array.size, b""
        storage = _name("torch", kind.storage)
    else:
        rebuild, count, dtype = "_rebuild_tensor_v3", array.nbytes, _name("torch", kind.torch)
        storage = _name("torch.storage", "UntypedStorage")
    return b"".join([_name("torch._utils", rebuild), pickle.MARK,
                     pickle.MARK, _plain("storage"), storage, _plain(str(number)), _plain("cpu"), _plain(count),
                     pickle.TUPLE, pickle.BINPERSID,
                     _plain(0), _plain(array.shape), _plain(row_major(array.shape)),
                     pickle.NEWFALSE, _ORDERED, dtype, pickle.TUPLE, pickle.REDUCE])


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _plain(value) -> bytes:
    """The opcodes of text, an integer or a tuple of integers: a pickle without its frame."""
    return pickle.dumps(value, 2)[2:-1]


_ORDERED = _name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
_LEAVES = (bool, int, float, str)
