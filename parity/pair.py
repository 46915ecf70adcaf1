"""Pair, the case that proves a port of your own: a PyTorch module and its Jittor port, from any package."""
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch

import numpy as np

from jittwin.draws import Draws
from jittwin.errors import UserError, choose_from
from parity.align import explain_differences, renamed, translated
from parity.case import Case, shapes
from parity.sites import injected
from parity.workers.oracle import Twins
from parity.workers.worker import reference, resolve

LEVELS = ("L1", "L3", "L4")


class Pair(Case):
    """Two classes given by name, so that neither framework is imported where the pair is declared.

    torch, jittor: "module:Class", or any callable that returns a module.
    arguments: keyword arguments of both constructors; torch_arguments, jittor_arguments: further ones of either.
    inputs: what each input holds, by name, in the order of the call. It is a shape, which standard normal float32
    numbers fill; or ("int", low, high, shape), for int64 numbers from low to high - 1; or "module:function", for
    the NumPy array that the function returns.
    keywords: names of the inputs passed by name. options: more keyword arguments of the call, equal on both sides.
    names: maps paths in the Jittor module to paths in the PyTorch module where they differ (parity.align.renamed).
    ignore: shell patterns of PyTorch's state entries that are not copied because each side makes its own, such as
    tables of positions. Entries that are not floating point, such as num_batches_tracked [S15], are never copied.
    Dropout layers get equal masks (parity.sites); dropout called as a function must be given probability 0.
    modes, optimizer, differentiable: see Case; all inputs given by shape are differentiable by default.
    levels: L1, L3 and L4 by default. L2 may be added: it probes every layer with NaN, ties and large means, for
    which plain Jittor layers do differ from PyTorch's. L5 may be added: it compares this project's optimizers on
    the module's parameters.
    UserError: a keyword that is no input, or an unknown level.
    """

    def __init__(self, torch: str, jittor: str, inputs: Mapping, arguments: Mapping | None = None,
                 torch_arguments: Mapping | None = None, jittor_arguments: Mapping | None = None,
                 keywords: Iterable[str] = (), options: Mapping | None = None,
                 names: Mapping[str, str] | None = None, ignore: Iterable[str] = (), name: str = "",
                 modes: Iterable[str] = Case.modes, levels: Iterable[str] = LEVELS,
                 optimizer: tuple[str, dict] = Case.optimizer, differentiable: Iterable[str] | None = None):
        _check("keyword", keywords, inputs)
        _check("level", levels, Case.levels)
        self.declaration = {key: value for key, value in locals().items() if key != "self"} | {
            "keywords": list(keywords), "ignore": list(ignore), "modes": list(modes), "levels": list(levels),
            "differentiable": None if differentiable is None else list(differentiable)}
        self.factories = {"torch": torch, "jittor": jittor}
        self.arguments = {"torch": {**(arguments or {}), **(torch_arguments or {})},
                          "jittor": {**(arguments or {}), **(jittor_arguments or {})}}
        self.given = {key: value if isinstance(value, str) else list(value) for key, value in inputs.items()}
        self.keywords, self.options = tuple(keywords), dict(options or {})
        self.names, self.ignore = dict(names or {}), tuple(ignore)
        self.name = name or jittor
        self.modes, self.levels, self.optimizer = tuple(modes), tuple(levels), tuple(optimizer)
        self.differentiable = tuple(
            [key for key, value in self.given.items() if not isinstance(value, str) and value[:1] != ["int"]]
            if differentiable is None else differentiable)

    def reference(self):
        return {"factory": reference(Pair), "arguments": self.declaration}

    def build(self, side, size, mode):
        module = resolved(self.factories[side.name])(**self.arguments[side.name])
        shown = ShownTorch if side.name == "torch" else ShownJittor
        module.__class__ = type(type(module).__name__, (shown, type(module)), {"pair": self})
        if side.name == "torch":
            import torch
            torch.backends.mha.set_fastpath_enabled(False)      # the fast path is one kernel that calls no layer
        return module

    def inputs(self, size, mode):
        return {name: _filled(name, value) for name, value in self.given.items()}

    def run(self, side, module, inputs, mode):
        positional = [tensor for name, tensor in inputs.items() if name not in self.keywords]
        by_name = {name: inputs[name] for name in self.keywords}
        with injected(side, module):
            return named(module(*positional, **by_name, **self.options))

    def misfit(self, twins: Twins) -> str:
        """Why the two states do not fit, and a map if the shapes suggest one; "" if they fit."""
        unnamed = {**self.reference(), "arguments": {**self.declaration, "names": {}}}
        found = twins.both(shapes, case=unnamed, size=self.sizes[0], mode=self.modes[0])
        torch, jittor = ({name: tuple(shape) for name, (shape, _) in found[side][1].items()}
                         for side in ("torch", "jittor"))
        return explain_differences(torch, jittor, self.names)

    def shared(self, name: str) -> bool:
        """Whether this entry (PyTorch's name) is copied from one twin to the other."""
        return not any(fnmatch(name, pattern) for pattern in self.ignore)


class ShownTorch:
    """Mixed into the PyTorch module, whose state then has the same form as the Jittor module's."""

    def state_dict(self):
        """The floating-point entries. As in Jittor, tied entries count once, by the first name [S5], and a scalar is
        a vector of one element [P10]."""
        found, seen = {}, set()
        for name, value in super().state_dict(keep_vars=True).items():
            if value.is_floating_point() and id(value) not in seen and self.pair.shared(name):
                seen.add(id(value))
                value = value.detach()
                found[name] = value if value.ndim else value.reshape(1)
        return found

    def named_parameters(self, *arguments, **keywords):
        return [(name, value) for name, value in super().named_parameters(*arguments, **keywords)
                if self.pair.shared(name)]


class ShownJittor:
    """Mixed into the Jittor module, whose state entries and sub-modules then have PyTorch's names."""

    def state_dict(self):
        state = translated(super().state_dict().items(), self.pair.names)
        return {name: value for name, value in state.items()
                if str(value.dtype).startswith("float") and self.pair.shared(name)}

    def named_modules(self):
        return [(renamed(path, self.pair.names), part) for path, part in super().named_modules()]


def named(outputs, name: str = "output") -> dict:
    """All tensors of whatever a module returns: "output", "output.0", "output.hidden.1" …; None is left out."""
    if outputs is None:
        return {}
    if isinstance(outputs, Mapping):
        parts = outputs.items()
    elif isinstance(outputs, (list, tuple)):
        parts = enumerate(outputs)
    else:
        return {name: outputs}
    return {key: tensor for part, value in parts for key, tensor in named(value, f"{name}.{part}").items()}


def _check(kind: str, wanted: Iterable[str], offered: Iterable[str]) -> None:
    for name in wanted:
        if name not in offered:
            raise UserError(f"a pair has no {kind} {name!r}{choose_from(name, offered)}")


def _filled(name: str, value) -> np.ndarray:
    if isinstance(value, str):
        return np.asarray(resolved(value)())
    if value[:1] == ["int"]:
        _, low, high, shape = value
        return Draws(1).integers(name, low, high - 1, tuple(shape))
    return Draws(1).normal(name, tuple(value))


def resolved(reference: str):
    """The object that "module:name" names. UserError if the module or the name in it is not found."""
    if reference.count(":") != 1:
        raise UserError(f"{reference!r} names nothing: write \"module:Class\", as in \"torch.nn:Linear\"")
    try:
        return resolve(reference)
    except ModuleNotFoundError as error:
        if reference.startswith(str(error.name)):
            raise UserError(f"{reference!r}: there is no module {error.name!r}; it is searched in the current folder "
                            "and in PYTHONPATH") from error
        raise
    except AttributeError as error:
        raise UserError(f"{reference!r}: {error}") from error
