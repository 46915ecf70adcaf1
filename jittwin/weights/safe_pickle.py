"""Reads the data in a pickle without running anything the pickle asks for.

Every class or function that a pickle may name is a stand-in defined here. The real ones
would be dangerous in a hostile file: numpy.dtype's state, for example, can turn bytes into
object pointers. Python's own interpreter of pickles written in Python is used, and every
opcode that can call something is replaced below.

Training scripts store settings, paths and optimizers beside weights. Their classes have no stand-in of their own; such
an object becomes an `Inert`, which has a name and does nothing.
"""
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from jittwin.errors import reason
from jittwin.weights.arrays import BY_DTYPE, WeightsError

# Stand-ins by (module, name). The name ANY stands for all names of a package and of the packages in it.
Globals = Mapping[tuple[str, str], Callable]
ANY = "*"
LONGEST_SHOWN = 60      # characters of a value in a message


class Refused(pickle.UnpicklingError):
    """The pickle asks for something that is not allowed."""


class StandIn:
    """Base of the classes that a pickle may build; their state goes only to their own __setstate__."""
    __slots__ = ()

    def __setstate__(self, state) -> None:
        raise Refused(f"state for {type(self).__name__}")


class Foreign(StandIn):
    """A class or function of a program that is not looked for; calling it makes an `Inert`."""
    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def made(self, arguments: tuple) -> "Inert":
        """What a call gives. Where the call is one that only makes an object of a class, that class gives the name."""
        first = arguments[0] if self.name in _MAKERS and arguments else None
        return Inert(first.name if isinstance(first, Foreign) else self.name)


class Inert(StandIn):
    """An object of a program that is not looked for. It is kept in place of the object, and does nothing.

    name: of its class. state: its attributes, if these were stored as a dictionary. entries: what was stored in it as
    in a dictionary.
    """
    __slots__ = ("name", "state", "entries")

    def __init__(self, name: str):
        self.name, self.state, self.entries = name, None, {}

    def __setstate__(self, state) -> None:
        self.state = state if type(state) is dict else None

    def __setitem__(self, key, value) -> None:
        self.entries[key] = value

    def append(self, value) -> None:
        """Elements of a list or a set are not kept."""

    add = append

    @property
    def is_network(self) -> bool:
        """Whether it was a torch.nn.Module."""
        return self.state is not None and {"_modules", "_parameters"} <= self.state.keys()


class Dtype(StandIn):
    """numpy.dtype(code, align, copy), limited to plain numbers and lists of objects.

    Text, complex numbers, dates and records have the value None; arrays of them are not read.
    """
    __slots__ = ("value", "name")

    def __init__(self, code, align=False, copy=False):
        self.value, self.name = None, shown(code).strip("'")
        if code in ("O8", "O4", "O"):
            self.value, self.name = np.dtype(object), "objects"
        elif isinstance(code, Dtype):
            self.value, self.name = code.value, code.name
        elif type(code) is str and (kind := _CODES.get(code.lstrip("<=|"))) is not None:
            self.value = kind

    def __setstate__(self, state) -> None:
        if self.value is None:
            return
        # (version, byte order, subtype, names, fields, size, alignment, flags); only the byte order is used.
        order = state[1]
        if order not in ("<", ">", "=", "|") or any(state[2:5]):
            raise Refused(f"array type state {shown(order)}")
        if order == ">":
            self.value = self.value.newbyteorder(order)


class Array(StandIn):
    """numpy.ndarray: `value` is an array, the list inside an object array, or None for a type that is not read.

    name: of the type of its elements.
    """
    __slots__ = ("value", "name")

    def __init__(self, *ignored):
        self.value, self.name = None, "nothing"

    def __setstate__(self, state) -> None:
        _, shape, dtype, fortran, content = state
        self.name = dtype.name
        if dtype.value is None:
            return
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
    array.name = dtype.name
    if dtype.value is not None:
        array.value = _array(content, dtype, shape, order)
    return array


def _scalar(dtype: Dtype, content) -> Array:
    return _frombuffer(content, dtype, (), "C")


def _encode(text: str, codec: str) -> bytes:
    """_codecs.encode, with which Python 3 writes bytes in old pickle protocols."""
    if codec != "latin1":
        raise Refused(f"codec {shown(codec)}")
    return text.encode("latin1")


def _var(value: Array) -> Array:
    """The array in a Jittor Var, which is pickled as Var(ndarray)."""
    if type(value) is not Array:
        raise Refused("Var of something else than an array")
    return value


def _ordered(items=()) -> OrderedDict:
    return OrderedDict((_key(key), value) for key, value in items)


def _default(*ignored) -> dict:
    """collections.defaultdict, without what it would make of absent keys."""
    return {}


def shown(value) -> str:
    """A value of a pickle for a message. Only text and numbers are spelled out: a small pickle can describe lists in
    one another whose text would not fit in memory."""
    if type(value) in (str, bytes):
        return repr(value[:LONGEST_SHOWN])
    if type(value) in (int, float, bool, type(None)):
        return repr(value)[:LONGEST_SHOWN]
    return value.name if isinstance(value, (Foreign, Inert)) else type(value).__name__


def _key(value, depth: int = 0):
    """A value as key of a dictionary or element of a set. Refused: tuples in one another, whose hash a small pickle
    could make endless."""
    if type(value) is tuple and depth < 2 and len(value) < 64:
        for part in value:
            _key(part, depth + 1)
    elif type(value) not in (str, bytes, int, float, bool, complex, type(None)) and not isinstance(value, StandIn):
        raise Refused(f"a {type(value).__name__} as key")
    return value


GLOBALS: Globals = {
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): _default,
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
# Functions with which pickles make an object of the class that is their first argument.
_MAKERS = ("copy_reg._reconstructor", "copyreg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__")
# What only an attack names: modules, and names of modules. Nothing is ever called, so that this decides what is told,
# not what is safe.
_ATTACKS = {
    "os", "posix", "nt", "subprocess", "sys", "shutil", "socket", "pty", "pdb", "bdb", "runpy", "imp", "importlib",
    "ctypes", "pickle", "_pickle", "marshal", "webbrowser", "timeit", "cProfile", "pip", "ensurepip", "code.interact",
    "code.InteractiveInterpreter", "code.InteractiveConsole", "commands.getoutput", "commands.getstatusoutput",
    *(f"builtins.{name}" for name in ("eval", "exec", "compile", "open", "__import__", "input", "breakpoint", "globals",
                                      "locals", "vars", "setattr", "delattr", "execfile", "apply", "print")),
    *(f"{module}.{name}" for module in ("io", "_io", "codecs") for name in ("open", "open_code", "FileIO")),
    "types.FunctionType", "types.CodeType", "operator.attrgetter", "operator.methodcaller", "numpy.testing",
    "numpy.load", "numpy.f2py", "numpy.distutils", "torch.load", "torch.hub", "torch.storage._load_from_bytes"}
# Pickles name ml_dtypes' types as globals; NumPy's own types have codes.
_EXTENSION_DTYPES = {("ml_dtypes", name): np.dtype(getattr(ml_dtypes, name))
                     for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}


# NumPy's types by the codes in pickles, without the byte order.
_CODES = {code: dtype for dtype in BY_DTYPE if dtype.kind in "fiub" for code in (dtype.str[1:], dtype.name)}


class _Unpickler(pickle._Unpickler):
    def __init__(self, stream: BinaryIO, extra: Globals, persistent: Callable | None):
        # latin1 is what NumPy's documentation prescribes for Python 2 arrays.
        super().__init__(stream, encoding="latin1")
        self.allowed = {**GLOBALS, **extra}
        self.persistent = persistent

    def find_class(self, module: str, name: str):
        if (module, name) in _EXTENSION_DTYPES:
            dtype = object.__new__(Dtype)
            dtype.value, dtype.name = _EXTENSION_DTYPES[module, name], name
            return dtype
        for known in ((module, name), (module.split(".")[0], ANY)):
            if known in self.allowed:
                return self.allowed[known]
        whole = f"{'builtins' if module == '__builtin__' else module}.{name}"
        parts = whole.split(".")
        if any(".".join(parts[:length]) in _ATTACKS for length in range(1, len(parts) + 1)):
            raise Refused(f"global {shown(f'{module}.{name}')}")
        return Foreign(shown(f"{module}.{name}").strip("'"))

    def persistent_load(self, saved_id):
        if self.persistent is None:
            raise Refused("a persistent id")
        return self.persistent(saved_id)

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is Inert and function.name == "functools.partial":
            self.append(function)
            return
        if type(arguments) is tuple and type(function) is Foreign:
            self.append(function.made(arguments))
            return
        if type(arguments) is not tuple or not any(function is known for known in self.allowed.values()):
            raise Refused(f"a call of {shown(function)}")
        self.append(function(*arguments))

    def _call_with_names(self) -> None:
        names = self.stack.pop()
        if names and type(self.stack[-2]) is not Foreign:
            raise Refused(f"a call of {shown(self.stack[-2])} with named arguments")
        self._call()

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, StandIn):
            target.__setstate__(state)
        elif type(target) is not OrderedDict:  # torch sets _metadata on it, which is not needed
            raise Refused(f"state for {type(target).__name__}")

    def _put(self, pairs: list) -> None:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            self.stack[-1][_key(key)] = value

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def _dict(self) -> None:
        pairs = self.pop_mark()
        self.append({})
        self._put(pairs)

    def _additems(self) -> None:
        items = self.pop_mark()
        for item in items:
            self.stack[-1].add(_key(item))

    def _frozenset(self) -> None:
        self.append(frozenset(map(_key, self.pop_mark())))

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
    dispatch[pickle.NEWOBJ_EX[0]] = _call_with_names
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]], dispatch[pickle.DICT[0]] = _setitem, _dict
    dispatch[pickle.SETITEMS[0]] = lambda self: self._put(self.pop_mark())
    dispatch[pickle.ADDITEMS[0]], dispatch[pickle.FROZENSET[0]] = _additems, _frozenset
    dispatch[pickle.BINBYTES[0]] = lambda self: self._bytes("<I")
    dispatch[pickle.BINBYTES8[0]] = lambda self: self._bytes("<Q")
    for _op in (pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4,
                pickle.NEXT_BUFFER, pickle.READONLY_BUFFER):
        dispatch[_op[0]] = _forbidden


def restricted_load(stream: BinaryIO, where: str, extra: Globals | None = None,
                    persistent: Callable[[Any], Any] | None = None) -> Any:
    """The object in one pickle, with `Array` stand-ins in place of arrays and Vars, and `Inert` ones of all others.

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
        raise WeightsError(f"{where}: damaged or truncated pickle ({type(error).__name__}: {reason(error)}); "
                           "fetch or write the file again") from None
