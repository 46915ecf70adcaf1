"""The element types of weights, their names in each file format, and a hash of the content of arrays.

The formats store little-endian numbers; a little-endian machine is assumed.
"""
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from jittwin.errors import UserError


class WeightsError(UserError):
    """A weights file that cannot be read or written; the message names the file and the fix."""


@dataclass(frozen=True)
class Kind:
    """An element type: its NumPy, safetensors and torch names; torch's newer types have no storage class."""
    dtype: np.dtype
    safetensors: str
    torch: str
    storage: str | None = None


KINDS = tuple(Kind(np.dtype(dtype), *names) for dtype, *names in (
    (np.float64, "F64", "float64", "DoubleStorage"),
    (np.float32, "F32", "float32", "FloatStorage"),
    (np.float16, "F16", "float16", "HalfStorage"),
    (ml_dtypes.bfloat16, "BF16", "bfloat16", "BFloat16Storage"),
    (np.int64, "I64", "int64", "LongStorage"),
    (np.int32, "I32", "int32", "IntStorage"),
    (np.int16, "I16", "int16", "ShortStorage"),
    (np.int8, "I8", "int8", "CharStorage"),
    (np.uint8, "U8", "uint8", "ByteStorage"),
    (np.bool_, "BOOL", "bool", "BoolStorage"),
    (np.uint64, "U64", "uint64"),
    (np.uint32, "U32", "uint32"),
    (np.uint16, "U16", "uint16"),
    (ml_dtypes.float8_e4m3fn, "F8_E4M3", "float8_e4m3fn"),
    (ml_dtypes.float8_e5m2, "F8_E5M2", "float8_e5m2"),
))
BY_DTYPE = {kind.dtype: kind for kind in KINDS}
FLOATS = {str(kind.dtype): kind.dtype for kind in KINDS if "F" in kind.safetensors}


def canonical(arrays: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """The same arrays, row-major, in native byte order. WeightsError: a type that no format can hold."""
    result = {}
    for key, value in arrays.items():
        # np.ascontiguousarray would turn a 0-d array into one of shape (1,).
        array = np.asarray(value, order="C")
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        kind = BY_DTYPE.get(array.dtype)
        if kind is None or not isinstance(key, str):
            raise WeightsError(f"{where}: {key!r} holds {array.dtype}; keys must be text and values one of "
                               f"{', '.join(map(str, BY_DTYPE))}")
        # Equal types become one object, because a pickle's bytes would depend on which objects are the same.
        result[key] = array.view(kind.dtype)
    return result


def raw(array: np.ndarray) -> np.ndarray:
    """The bytes of a row-major array as a flat uint8 view (bfloat16 has no buffer interface of its own)."""
    return array.reshape(-1).view(np.uint8)


def content_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and bytes in name order; it is the same in every file format."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = canonical({name: arrays[name]}, "content_hash")[name]
        digest.update(json.dumps([name, str(array.dtype), array.shape]).encode() + b"\n")
        digest.update(raw(array))
    return digest.hexdigest()
