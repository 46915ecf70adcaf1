"""Record the inputs and outputs of every module of a model, call by call, in either framework.

`record` lets the model run freely, so an error shows in every module after the one that causes it. `forced` replaces
the inputs of every call, and its outputs for the caller, by those that PyTorch recorded (teacher forcing), so each
module is compared alone. A call is named "<path>#<call>": the module's path, "" for the model itself, and how often
it was called before.
"""
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from parity.case import is_training, load, prepared
from parity.workers.side import Arrays, Side, group, grouped

ROOT = "(model)"      # the name in reports of the model itself, whose path is empty


def record(side: Side, arrays: Arrays, case: dict, size: str, mode: str, depth: int | None = None,
           inputs: bool = True) -> tuple[Arrays, dict]:
    """In a worker: record one forward pass; see `traced` for what it returns.

    depth: record calls only down to this depth of the module tree; 0 is the model itself. inputs: record the inputs
    of calls as well as their outputs.
    """
    return traced(side, arrays, case, size, mode, Tape(side, depth, inputs))


def forced(side: Side, arrays: Arrays, case: dict, size: str, mode: str) -> tuple[Arrays, dict]:
    """In a worker: the pass of `record`, with all inputs and outputs replaced by the arrays "record/…".

    Returns the outputs that each module computed itself, and the inputs that it was handed before they were replaced.
    All earlier outputs were PyTorch's, so a wrong input is the fault of the caller.
    """
    return traced(side, arrays, case, size, mode, Tape(side, forced=group(arrays, "record")))


def traced(side: Side, arrays: Arrays, case: dict, size: str, mode: str, tape: "Tape") -> tuple[Arrays, dict]:
    """Returns arrays: "out/<path>#<call>/<i>" and "in/<path>#<call>/<i>", numbered in the order in which `found` finds
    them; "result/<name>", which the case returns; and in a training mode "state/<name>" of what is not trained.

    Returns values: "order", the [path, call, class name] of every call in the order in which the calls ended, and
    "callers", by call, the name of the call that made it ("" if the case itself made it).
    """
    case = load(case)
    module, tensors = prepared(side, arrays, case, size, mode)
    trained = set(side.backend.parameters(module))
    with side.backend.no_grad(), side.intercepted(module, tape.around):
        results = case.run(side, module, tensors, mode)
    results = {name: host(side, tensor) for name, tensor in results.items()}
    state = {}
    if is_training(mode):
        state = {name: a for name, a in side.backend.state_numpy(module).items() if name not in trained}
    return ({**tape.arrays, **grouped("result", results), **grouped("state", state)},
            {"order": tape.order, "callers": tape.callers})


class Tape:
    """Keeps the inputs and outputs of every call of a forward pass; its `around` is for Side.intercepted.

    forced: a record that replaces both. The inputs of a call are replaced if the recorded call has as many.
    """

    def __init__(self, side: Side, depth: int | None = None, inputs: bool = True, forced: Arrays | None = None):
        self.side, self.depth, self.inputs, self.forced = side, depth, inputs, forced
        self.tensor = type(side.tensor(np.zeros(1, np.float32)))
        self.arrays: Arrays = {}
        self.order, self.callers, self.running = [], {}, []

    def around(self, path: str, call: int, part, proceed: Callable, arguments: tuple, keywords: dict):
        if self.depth is not None and depth_of(path) > self.depth:
            return proceed(*arguments, **keywords)
        name = f"{path}#{call}"
        self.callers[name] = self.running[-1] if self.running else ""
        if self.inputs:
            arguments, keywords = self.passed(f"in/{name}", (arguments, keywords), alike=True)
        self.running.append(name)
        outputs = proceed(*arguments, **keywords)
        self.running.pop()
        outputs = self.passed(f"out/{name}", outputs)
        self.order.append([path, call, type(part).__name__])
        return outputs

    def passed(self, name: str, value, alike: bool = False):
        """Keep the tensors in `value` and return it, with the recorded tensors in their place if there is a record.

        alike: replace either all of them or, if the record has another number of them, none.
        """
        own = [host(self.side, tensor) for tensor in found(value, self.tensor)]
        self.arrays |= {f"{name}/{number}": array for number, array in enumerate(own)}
        if self.forced is None:
            return value
        known = [self.forced.get(f"{name}/{number}") for number in range(len(own))]
        if alike and (None in map(type, known) or f"{name}/{len(own)}" in self.forced):
            return value
        if not any(array is not None for array in known):
            return value
        numbers = iter(range(len(own)))

        def replaced(tensor):
            number = next(numbers)
            return tensor if known[number] is None else self.fitted(known[number], own[number], tensor)

        return mapped(value, self.tensor, replaced)

    def fitted(self, array: np.ndarray, own: np.ndarray, tensor):
        """The recorded tensor as this framework has it: Jittor has no 64-bit indices and no scalars [P6, P10]."""
        if not np.issubdtype(own.dtype, np.floating):
            array = array.astype(own.dtype)
        scalar = array.shape == (1,) and tuple(tensor.shape) == ()
        return self.side.tensor(array).reshape(()) if scalar else self.side.tensor(array)


def host(side: Side, tensor) -> np.ndarray:
    """The tensor's values. A scalar becomes a vector of one element, as in Jittor [P10]."""
    array = side.host(tensor)
    return array if array.ndim else array.reshape(1)


def depth_of(path: str) -> int:
    return path.count(".") + 1 if path else 0


def found(value, kind: type) -> Iterator:
    """The tensors in nested tuples, lists, dicts and dataclasses, in their order; everything else is left out."""
    if isinstance(value, kind):
        yield value
    else:
        for part in _parts(value).values():
            yield from found(part, kind)


def mapped(value, kind: type, function: Callable):
    """The same structure with function(tensor) for every tensor; what holds no tensor stays the same object."""
    if isinstance(value, kind):
        return function(value)
    if not any(True for _ in found(value, kind)):
        return value
    parts = {key: mapped(part, kind, function) for key, part in _parts(value).items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*parts.values())
    if isinstance(value, (list, tuple)):
        return type(value)(parts.values())
    if isinstance(value, dict):
        return parts if type(value) is dict else type(value)(**parts)
    return dataclasses.replace(value, **parts)


def _parts(value) -> dict:
    """The contents of a structure by key; {} for anything else."""
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    return {}
