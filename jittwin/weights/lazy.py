"""Arrays by name that are made on access, so that loading a large network does not hold its weights twice."""
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from jittwin.weights.usable import checked

Shape = tuple[int, ...]


class LazyArrays(Mapping):
    """A mapping from names to arrays that are made on access.

    shapes: shape of every array, by name. make: a function from a name to a new, writable array. source: the file of
    the arrays, for messages.
    """

    def __init__(self, shapes: Mapping[str, Shape], make: Callable[[str], np.ndarray], source: str = ""):
        self.shapes, self.source = dict(shapes), source
        self._make = make

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.shapes:
            raise KeyError(name)
        return self._make(name)

    def __contains__(self, name) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def before_reading(self, act: Callable[[], None]) -> "LazyArrays":
        """The same arrays; `act` is called before each is made."""
        def make(name: str) -> np.ndarray:
            act()
            return self[name]

        return LazyArrays(self.shapes, make, self.source)

    def renamed(self, names: Mapping[str, str]) -> "LazyArrays":
        """The arrays under other names; only those in `names` (new name -> present name)."""
        return LazyArrays({new: self.shapes[old] for new, old in names.items()}, lambda new: self[names[new]],
                          self.source)

    def transposed(self, chosen: Callable[[str], bool]) -> "LazyArrays":
        """The same arrays, the matrices whose names are `chosen` transposed."""
        shapes = {name: shape[::-1] if chosen(name) else shape for name, shape in self.shapes.items()}
        return LazyArrays(shapes, lambda name: np.ascontiguousarray(self[name].T) if chosen(name) else self[name],
                          self.source)

    def cast(self, dtype) -> "LazyArrays":
        """The same arrays with another floating-point type, for a network.

        Reading integers, NaN or infinity is a UserError; counters, which have no axes, may be integers.
        """
        def cast(name: str) -> np.ndarray:
            return checked(self[name], name, self.source, bool(self.shapes[name])).astype(dtype, copy=False)

        return LazyArrays(self.shapes, cast, self.source)


def shapes_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Shape]:
    """Shapes by name; lazy arrays are not made."""
    if isinstance(arrays, LazyArrays):
        return arrays.shapes
    return {name: tuple(array.shape) for name, array in arrays.items()}
