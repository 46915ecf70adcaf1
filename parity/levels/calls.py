"""Record the calls of a forward pass, of `nn.ops` functions and leaf modules, so that they can be made again.

A call is a dict fit for JSON: {"name": the function's name, or the module's class; "path": the module's path, null
for a function; "mode": the case's mode; "attributes": see `attributes`; "arguments", "keywords": the arguments, in
which {"tensor": number, "shape": …, "type": …} stands for a tensor and {"array": …} for an array on the host}.
Calls that a function or leaf module makes itself are not recorded.
"""
import contextlib
import inspect
import json
import math
from collections.abc import Iterable, Iterator

import numpy as np

from jittwin.errors import UserError
from parity.case import load, prepared
from parity.levels.ops import OPS, Op
from parity.sites import is_site
from parity.workers.side import Arrays, Side

# Attributes of layers that say only how large they are or where they stand, or that change while they run.
SIZES = {"in_features", "out_features", "in_channels", "out_channels", "num_features", "num_embeddings",
         "embedding_dim", "training", "is_train", "track", "site"}


def public(ops) -> list[str]:
    """The functions a module of operators offers."""
    return [name for name, value in vars(ops).items()
            if callable(value) and not name.startswith("_") and not inspect.isclass(value)]


def record(side: Side, arrays: Arrays, case: dict, size: str, mode: str) -> tuple[Arrays, dict]:
    """In the PyTorch worker: {"calls": the smallest call of each kind, "recorded": how many calls there were}, and
    the arrays "<call>/<number>": the values of each call's arguments that are not floating point."""
    case, recorder = load(case), CallRecorder(mode)
    module, inputs = prepared(side, arrays, case, size, mode)
    with recorder.listening(side, module):
        case.run(side, module, inputs, mode)
        case.losses(side, module, inputs, mode)
    kept = distinct(recorder.calls)
    values = {f"{index}/{number}": a for index, (call, given) in enumerate(kept) for number, a in given.items()}
    return values, {"calls": [call for call, _ in kept], "recorded": len(recorder.calls)}


class CallRecorder:
    """Collects (call, values of its integer arguments) while `listening`."""

    def __init__(self, mode: str):
        self.mode, self.calls, self.inside = mode, [], False

    @contextlib.contextmanager
    def listening(self, side: Side, module) -> Iterator[None]:
        originals = {name: getattr(side.ops, name) for name in public(side.ops)}
        leaves = {path for path, part in side.parts(module).items() if not list(part.children())}

        def around(path, number, part, proceed, arguments, keywords):
            if path not in leaves:
                return proceed(*arguments, **keywords)
            return self.note(type(part).__name__, path, attributes(part), proceed, arguments, keywords)

        for name, function in originals.items():
            setattr(side.ops, name, self._noted(name, function))
        try:
            with side.intercepted(module, around):
                yield
        finally:
            for name, function in originals.items():
                setattr(side.ops, name, function)

    def _noted(self, name: str, function):
        return lambda *arguments, **keywords: self.note(name, None, {}, function, arguments, keywords)

    def note(self, name: str, path: str | None, described: dict, function, arguments, keywords):
        if self.inside:
            return function(*arguments, **keywords)
        values: dict[int, np.ndarray] = {}
        self.calls.append(({"name": name, "path": path, "mode": self.mode, "attributes": described,
                            "arguments": encode(list(arguments), values, name),
                            "keywords": encode(dict(keywords), values, name)},
                           {number: a for number, a in values.items() if a.dtype.kind != "f"
                            or path is None and name in OPS and number in OPS[name].masks}))
        self.inside = True
        try:
            return function(*arguments, **keywords)
        finally:
            self.inside = False


def attributes(part) -> dict:
    """A leaf module's settings apart from its sizes: its public attributes, and its parameters' kernel shapes.

    The training mode is part of them only if the layer depends on it, because it has buffers or drops elements.
    """
    settings = {name: value for name, value in vars(part).items()
                if not name.startswith("_") and name not in SIZES
                and isinstance(value, (bool, int, float, str, tuple, type(None)))}
    if list(part.buffers()) or is_site(part):
        settings["training"] = part.training
    return {**settings, "parameters": {name: [tensor.ndim, *tensor.shape[2:]] for name, tensor in
                                       part.named_parameters(recurse=False)}}


def encode(value, values: dict[int, np.ndarray], name: str):
    """An argument as JSON; the arrays of its tensors are added to `values` by number.

    name: of the function, for the UserError about an argument that cannot be encoded.
    """
    if isinstance(value, dict):
        return {key: encode(v, values, name) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v, values, name) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    kind = "array" if isinstance(value, np.ndarray) else "tensor"
    if not hasattr(value, "shape"):
        raise UserError(f"{name}: an argument of type {type(value).__name__} cannot be given again; tensors, arrays, "
                        "numbers, text and lists of them can")
    array = value if kind == "array" else value.detach().cpu().numpy()
    values[len(values)] = array
    return {kind: len(values) - 1, "shape": list(array.shape), "type": str(array.dtype)}


def decode(value, tensors: dict[int, object]):
    """The inverse of `encode`, with other tensors."""
    if is_tensor(value):
        return tensors[value.get("tensor", value.get("array"))]
    if isinstance(value, dict):
        return {key: decode(v, tensors) for key, v in value.items()}
    return [decode(v, tensors) for v in value] if isinstance(value, list) else value


def operator(call: dict) -> Op | None:
    """The row of a function in OPS; None for a layer or an unknown function."""
    return OPS.get(call["name"]) if call["path"] is None else None


def is_within(name: str, path: str) -> bool:
    """Whether a state entry belongs to the module at `path`; "" is the whole."""
    return not path or name.startswith(f"{path}.")


def is_tensor(value) -> bool:
    return isinstance(value, dict) and "shape" in value and "type" in value


def tensors_of(value) -> Iterator[dict]:
    """The places of tensors and arrays in encoded arguments."""
    if is_tensor(value):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_of(item)


def tensors_in(call: dict) -> list[dict]:
    return [*tensors_of(call["arguments"]), *tensors_of(call["keywords"])]


def distinct(calls: Iterable[tuple[dict, dict]]) -> list[tuple[dict, dict]]:
    """One call of each kind: with the fewest odd sides, since one probe makes even sides odd, then the smallest."""
    kinds: dict[str, tuple[dict, dict]] = {}
    for call, values in calls:
        known = kinds.get(kind(call))
        if known is None or _cost(call) < _cost(known[0]):
            kinds[kind(call)] = call, values
    return list(kinds.values())


def _cost(call: dict) -> tuple[int, int]:
    shapes = [place["shape"] for place in tensors_in(call)]
    return sum(side % 2 for shape in shapes for side in shape[2:]), sum(map(math.prod, shapes))


def kind(call: dict) -> str:
    """What two calls must have in common so that only one is probed: everything but sizes. Of the shapes only the
    ranks count, and which sides are broadcast."""
    arguments, op = call["arguments"], operator(call)
    if op and op.size_argument is not None:
        arguments = list(arguments)
        shape = next(tensors_of(arguments))["shape"]
        arguments[op.size_argument] = [_relation(old, new) for old, new in
                                       zip(shape[-2:], arguments[op.size_argument])]
    shapes = [place["shape"] for place in tensors_in(call)]
    widest = [max(sides) for sides in zip(*shapes)] if len({len(shape) for shape in shapes}) == 1 else []
    spread = [[side < most for side, most in zip(shape, widest)] for shape in shapes]
    return json.dumps([call["name"], call["path"] is None, call["attributes"], spread, _classed(arguments),
                       _classed(call["keywords"])], sort_keys=True)


def _classed(value):
    if is_tensor(value):
        return [value["type"], len(value["shape"])]
    if isinstance(value, dict):
        return {key: _classed(v) for key, v in value.items()}
    return [_classed(v) for v in value] if isinstance(value, list) else value


def _relation(old: int, new: int) -> str:
    if old == new:
        return "same"
    if new < old:
        return "divides" if old % new == 0 else "smaller"
    return "multiplies" if new % old == 0 else "larger"


def title(call: dict) -> str:
    """A call as people read it."""
    def shown(value):
        if is_tensor(value):
            return "x".join(map(str, value["shape"])) or "scalar"
        return f"[{', '.join(map(shown, value))}]" if isinstance(value, list) else str(value)

    arguments = [*map(shown, call["arguments"]), *(f"{key}={shown(v)}" for key, v in call["keywords"].items())]
    return f"{call['path'] or ''} {call['name']}({', '.join(arguments)})".strip()
