"""Reads the data in a pickle without running anything the pickle asks for.

Every class or function that a pickle may name is a stand-in defined here. The real ones
would be dangerous in a hostile file: numpy.dtype's state, for example, can turn bytes into
object pointers. Python's own interpreter of pickles written in Python is used, and every
opcode that can call something is replaced below.
"""
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from jittwin.weights.arrays import BY_DTYPE, WeightsError

# Stand-ins by (module, name). The name ANY stands for all names of a package and of the packages in it.
Globals = Mapping[tuple[str, str], Callable]
ANY = "*"


class Refused(pickle.UnpicklingError):
    """The pickle asks for something that is not allowed."""


class StandIn:
    """Base of the classes that a pickle may build; their state goes only to their own __setstate__."""
    __slots__ = ()

    def __setstate__(self, state) -> None:
        raise Refused(f"state for {type(self).__name__}")


class Dtype(StandIn):
    """numpy.dtype(code, align, copy), limited to plain numbers and lists of objects."""
    __slots__ = ("value",)

    def __init__(self, code, align=False, copy=False):
        if code in ("O8", "O4", "O"):
            self.value = np.dtype(object)
        elif isinstance(code, Dtype):
            self.value = code.value
        elif type(code) is str and np.dtype(code) in BY_DTYPE:
            self.value = np.dtype(code)
        else:
            raise Refused(f"array type {code!r:.60}")

    def __setstate__(self, state) -> None:
        # (version, byte order, subtype, names, fields, size, alignment, flags); only the byte order is used.
        order = state[1]
        if order not in ("<", ">", "=", "|") or any(state[2:5]):
            raise Refused(f"array type state {state!r:.60}")
        if order == ">":
            self.value = self.value.newbyteorder(order)


class Array(StandIn):
    """numpy.ndarray: `value` is an array, or the list inside an object array."""
    __slots__ = ("value",)

    def __init__(self, *ignored):
        self.value = None

    def __setstate__(self, state) -> None:
        _, shape, dtype, fortran, content = state
        if dtype.value == object:
            if type(content) is not list:
                raise Refused("object array without a list")
            self.value = content
        else:
            self.value = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content, dtype: Dtype, shape: tuple[int, ...], order: str = "C") -> np.ndarray:
    if dtype.value == object:
        raise Refused("object array in bytes")
    if type(content) is str:  # pickles of Python 2, read as latin-1
        content = content.encode("latin1")
    array = np.frombuffer(content, dtype.value)
    # Small byte strings may be shared between arrays; large ones are bytearrays of our own.
    if array.nbytes < 1 << 16 or not array.flags.writeable:
        array = array.copy()
    array = array.reshape(shape, order=order)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _reconstruct(*ignored) -> Array:
    return Array()


def _frombuffer(content, dtype: Dtype, shape, order) -> Array:
    array = Array()
    array.value = _array(content, dtype, shape, order)
    return array


def _scalar(dtype: Dtype, content) -> Array:
    return _frombuffer(content, dtype, (), "C")


def _encode(text: str, codec: str) -> bytes:
    """_codecs.encode, with which Python 3 writes bytes in old pickle protocols."""
    if codec != "latin1":
        raise Refused(f"codec {codec!r:.60}")
    return text.encode("latin1")


def _var(value: Array) -> Array:
    """The array in a Jittor Var, which is pickled as Var(ndarray)."""
    if type(value) is not Array:
        raise Refused("Var of something else than an array")
    return value


def _ordered(items=()) -> OrderedDict:
    return OrderedDict(items)


GLOBALS: Globals = {
    ("collections", "OrderedDict"): _ordered,
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
    ("_codecs", "encode"): _encode,
    ("jittor", "jittor_core.Var"): _var,
    ("jittor", "Var"): _var,
    ("jittor_core", "Var"): _var,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
}
# Pickles name ml_dtypes' types as globals; NumPy's own types have codes.
_EXTENSION_DTYPES = {("ml_dtypes", name): np.dtype(getattr(ml_dtypes, name))
                     for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}


class _Unpickler(pickle._Unpickler):
    def __init__(self, stream: BinaryIO, extra: Globals, persistent: Callable | None):
        # latin1 is what NumPy's documentation prescribes for Python 2 arrays.
        super().__init__(stream, encoding="latin1")
        self.allowed = {**GLOBALS, **extra}
        self.persistent = persistent

    def find_class(self, module: str, name: str):
        if (module, name) in _EXTENSION_DTYPES:
            dtype = object.__new__(Dtype)
            dtype.value = _EXTENSION_DTYPES[module, name]
            return dtype
        for known in ((module, name), (module.split(".")[0], ANY)):
            if known in self.allowed:
                return self.allowed[known]
        raise Refused(f"global '{module}.{name}'")

    def persistent_load(self, saved_id):
        if self.persistent is None:
            raise Refused("a persistent id")
        return self.persistent(saved_id)

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple or not any(function is known for known in self.allowed.values()):
            raise Refused(f"a call of {function!r:.60}")
        self.append(function(*arguments))

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, StandIn):
            target.__setstate__(state)
        elif type(target) is not OrderedDict:  # torch sets _metadata on it, which is not needed
            raise Refused(f"state for {type(target).__name__}")

    def _bytes(self, width: str) -> None:
        """Like the original opcode, but the bytes are writable, so that large arrays need no second copy."""
        size, = struct.unpack(width, self.read(struct.calcsize(width)))
        content = bytearray(self.read(size))
        if len(content) != size:
            raise EOFError("the data ends early")
        self.append(content)

    def _forbidden(self) -> None:
        raise Refused("an opcode no weights file needs")

    dispatch = dict(pickle._Unpickler.dispatch)
    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = _call
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.BINBYTES[0]] = lambda self: self._bytes("<I")
    dispatch[pickle.BINBYTES8[0]] = lambda self: self._bytes("<Q")
    for _op in (pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4,
                pickle.NEXT_BUFFER, pickle.READONLY_BUFFER):
        dispatch[_op[0]] = _forbidden


def restricted_load(stream: BinaryIO, where: str, extra: Globals | None = None,
                    persistent: Callable[[Any], Any] | None = None) -> Any:
    """The object in one pickle, with `Array` stand-ins in place of arrays and Vars.

    where: the file's name for messages. extra: further stand-ins by (module, name);
    they must be safe for any argument. persistent: resolves persistent ids.
    Raises WeightsError, naming what was refused or how the data is damaged.
    """
    try:
        return _Unpickler(stream, extra or {}, persistent).load()
    except Refused as error:
        raise WeightsError(f"{where}: refused: the pickle contains {error}; only arrays, numbers, text and "
                           "dictionaries are read; ask for the data as .safetensors or .npz") from None
    except Exception as error:  # damaged bytes can raise any exception
        raise WeightsError(f"{where}: damaged or truncated pickle ({type(error).__name__}: {error}); "
                           "fetch or write the file again") from None
