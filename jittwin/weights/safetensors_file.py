"""safetensors files: 8 bytes of header length, a JSON header, the data.

The safetensors package is not used, because it sorts the keys and reads bfloat16 only with
a framework. Keys have the order of the header; the data of wide types comes first, so that
every tensor is aligned.
"""
import json
import math
import os
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

import numpy as np

from jittwin.weights.arrays import BY_DTYPE, KINDS, raw

LONGEST_HEADER = 100_000_000  # the format's own limit
_DTYPES = {kind.safetensors: kind.dtype for kind in KINDS}


def read_header(stream: BinaryIO) -> tuple[dict, dict]:
    """(tensor entries, metadata) with the stream left at the start of the data. Raises ValueError."""
    length = int.from_bytes(stream.read(8), "little")
    available = os.fstat(stream.fileno()).st_size - 8
    if length > min(LONGEST_HEADER, available):
        raise ValueError(f"header of {length} bytes in a file of {available + 8}")
    header = json.loads(stream.read(length))
    return header, header.pop("__metadata__", {})


class Entry(NamedTuple):
    """The type, shape and place of a tensor; first and last are byte offsets from the start of the file."""
    dtype: np.dtype
    shape: tuple[int, ...]
    first: int
    last: int


def entries(stream: BinaryIO) -> dict[str, Entry]:
    """All tensors of a file, in the header's order. Raises ValueError."""
    header, _ = read_header(stream)
    start = stream.tell()
    end = os.fstat(stream.fileno()).st_size - start
    found = {}
    for key, entry in header.items():
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise ValueError(f"{key} has the type {entry['dtype']}; legal: {', '.join(_DTYPES)}")
        (first, last), shape = entry["data_offsets"], entry["shape"]
        if not 0 <= first <= last <= end or last - first != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{key} of shape {shape} lies at bytes {first} to {last} of {end}")
        found[key] = Entry(dtype, tuple(shape), start + first, start + last)
    return found


def stated_hash(stream: BinaryIO) -> str:
    """The hash of the content that jittwin stores in the metadata; "" in a file of another program."""
    stream.seek(0)
    stated = str(read_header(stream)[1].get("sha256", ""))
    return stated if len(stated) == 64 else ""


def read_entry(stream: BinaryIO, entry: Entry) -> np.ndarray:
    data = np.empty(entry.last - entry.first, np.uint8)
    stream.seek(entry.first)
    if stream.readinto(data.data) != data.size:
        raise EOFError("the data ends early")
    return data.view(entry.dtype).reshape(entry.shape)


def write(stream: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    layout = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    offset, offsets = 0, {}
    for key in layout:
        offsets[key] = [offset, offset := offset + arrays[key].nbytes]
    header = {"__metadata__": dict(metadata)} if metadata else {}
    for key, array in arrays.items():
        header[key] = {"dtype": BY_DTYPE[array.dtype].safetensors, "shape": array.shape,
                       "data_offsets": offsets[key]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    for key in layout:
        stream.write(raw(arrays[key]).data)
