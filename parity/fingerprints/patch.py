"""Two ways to change what PyTorch computes: by the function called, and by the attribute read."""
import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache


def rerouted(**replacements: Callable):
    """Calls of torch functions of these names go to `replacement(original, *arguments, **keywords)` instead.

    A name stands for the function in torch, torch.nn.functional and torch.special, for the method of Tensor and for
    its in-place form. PyTorch passes every call through this TorchFunctionMode, so it does not matter from where or
    by which name a module calls the function. Calls that a replacement makes are not rerouted.
    """
    return _mode()({function: new for name, new in replacements.items() for function in _functions(name)})


def _functions(name: str) -> set:
    import torch
    homes = torch, torch.nn.functional, torch.special, torch.Tensor
    return {getattr(home, n) for home in homes for n in (name, f"{name}_") if hasattr(home, n)}


@cache
def _mode() -> type:
    from torch.overrides import TorchFunctionMode

    class Rerouted(TorchFunctionMode):
        def __init__(self, table: Mapping):
            super().__init__()
            self.table = table

        def __torch_function__(self, function, types, arguments=(), keywords=None):
            new = self.table.get(function)
            if new is None:
                return function(*arguments, **(keywords or {}))
            return new(function, *arguments, **(keywords or {}))

    return Rerouted


@cache
def _listener() -> type:
    from torch.overrides import TorchFunctionMode

    class Listener(TorchFunctionMode):
        def __init__(self):
            super().__init__()
            self.called = set()

        def __torch_function__(self, function, types, arguments=(), keywords=None):
            self.called.add(function)
            return function(*arguments, **(keywords or {}))

    return Listener


def listening():
    """A context whose `called` is the set of torch functions that were called in it, as `rerouted` sees them."""
    return _listener()()


def concerns(context, called: set) -> bool:
    """Whether a patch may change a computation that calls only these functions. A swapped attribute always may."""
    table = getattr(context, "table", None)
    return table is None or not called.isdisjoint(table)


@contextlib.contextmanager
def swapped(*changes: tuple[object, str, Callable]) -> Iterator[None]:
    """While this context lasts, attributes of modules or classes are replaced.

    changes: (owner, attribute, make); make(the old value) returns the new value.
    """
    before = [(owner, name, vars(owner).get(name)) for owner, name, _ in changes]
    try:
        for owner, name, make in changes:
            setattr(owner, name, make(getattr(owner, name)))
        yield
    finally:
        for owner, name, value in before:
            if value is None:
                delattr(owner, name)        # it was inherited
            else:
                setattr(owner, name, value)
