"""Conversion records: how the files of a model, ours or upstream's, become the arrays that its twins load.

A model's record is the only place that knows its files. `jittwin convert`, generation, the metrics and the losses read
files through it.
"""
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from jittwin.errors import UserError
from jittwin.weights import is_script, open_weights, read_metadata, read_numbers
from jittwin.weights.choice import prefix, tell_wrapper
from jittwin.weights.hub import CONFIG, WEIGHTS, HubFolder, Renames, open_hub, renamed
from jittwin.weights.lazy import LazyArrays
from jittwin.weights.state import matches

Shapes = Mapping[str, tuple[int, ...]]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Source:
    """An opened file or hub folder.

    where: its path. arrays: by the keys of the twins; each is read when it is accessed. left_out: keys of the file that
    were not taken over. metadata: that of our own files, and numbers that upstream stores beside its arrays. folder:
    the hub folder, or None. mode: what the user says about arrays that may serve in several modes, None for nothing.
    regrouped: whether Conversion.regroup made the arrays from others.
    """

    where: str
    arrays: LazyArrays
    left_out: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    folder: HubFolder | None = None
    mode: str | None = None
    regrouped: bool = False


@dataclass(frozen=True)
class Conversion:
    """The differences between upstream's files of a model and the arrays of its twins.

    infer: (shapes by the twins' keys, Source or None) to the model's config. UserError: a file of another model.
    expected: (config, shapes) to the keys and shapes of a complete file, if these are not the keys of the module that a
    twin builds; None if they are.
    renames: pairs (regular expression, replacement) from upstream's keys to the twins'. back: pairs for the reverse.
    regroup: the arrays of an upstream whose arrays are cut in another way than the twins', by the twins' keys; it
    returns other files' arrays as they are. ungroup: the reverse, to which restore and back are applied.
    left_out: shell patterns of upstream's keys that are not copied.
    transposed: shell patterns of upstream's keys whose matrices the twins hold transposed.
    tied: shell patterns of upstream's keys that hold one array; a file has any of them, and the first counts.
    beside: shell patterns of keys that are copied although the twins do not load them.
    restore: adds the arrays that only upstream's PyTorch files have.
    describe: config to metadata.
    extras: a description of the keys that are left out and restored, for messages.
    parts: names of upstream's state dictionaries, if its files hold several for one network.
    compose: (arrays under upstream's keys, metadata) to the content of upstream's PyTorch files, if it is more than the
    arrays.
    modes: modes of the model that its arrays may not tell; the user is asked then.
    own: words with which all keys of a file may begin, ours or upstream's. Another such word is a wrapper's, such as
    DataParallel's "module", and is left out. None leaves all keys as they are.
    """

    infer: Callable[[Shapes, Source | None], Any]
    expected: Callable[[Any, Shapes], Shapes] | None = None
    renames: Renames = ()
    back: Renames = ()
    regroup: Callable[[LazyArrays], LazyArrays] = lambda arrays: arrays
    ungroup: Callable[[LazyArrays], LazyArrays] = lambda arrays: arrays
    left_out: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    restore: Callable[[Arrays], Arrays] = lambda arrays: arrays
    describe: Callable[[Any], Mapping[str, Any]] = vars
    extras: str = "keys"
    parts: tuple[str, ...] = ()
    compose: Callable[[Arrays, Mapping[str, Any]], Mapping[str, Any]] | None = None
    modes: tuple[str, ...] = ()
    own: tuple[str, ...] | None = ()

    def open(self, where: str | os.PathLike, mode: str | None = None, part: str | None = None) -> Source:
        """Open a weights file or a hub folder. UserError: missing, damaged, or two keys with one new name.

        mode: as in Source. part: which of several networks in the file is meant.
        """
        path, folder = Path(where), None
        if not path.exists():
            raise UserError(f"{os.fspath(where)}: not found; give a weights file, or a hub folder with {CONFIG} and "
                            f"{WEIGHTS[0]}")
        if path.is_dir():
            folder = open_hub(path)
            path = folder.weights
        elif path.name in WEIGHTS and path.with_name(CONFIG).is_file():
            folder = HubFolder(path.parent)
        left_out, put = [], ""

        def wanted(key: str) -> bool:
            if matches(key, self.left_out):
                left_out.append(key)
                return False
            return True

        def wrapper(names: Iterable[str]) -> str:
            nonlocal put
            put = "" if self.own is None else prefix(names, self.own)
            return put

        found = open_weights(path, wanted, self.parts, part, wrapper)
        # Told when the first array is read, because until then the file may turn out to be another network's.
        found = found.before_reading(lambda: tell_wrapper(os.fspath(path), put))
        again = [key for pattern in self.tied for key in found if matches(key, (pattern,))][1:]
        left_out += again
        found = found.renamed({key: key for key in found if key not in again})
        stored = renamed(found.transposed(self._is_transposed), self.renames)
        arrays = self.regroup(stored)
        metadata = {} if path.suffix == ".json" else read_metadata(path)
        if self.parts:
            metadata |= read_numbers(path)
        return Source(os.fspath(where), arrays, tuple(dict.fromkeys(left_out)), metadata, folder, mode,
                      arrays is not stored)

    def _is_transposed(self, key: str) -> bool:
        return matches(key, self.transposed)

    def upstream(self, arrays: Arrays) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """(arrays under the keys of upstream's PyTorch files, keys that were added)."""
        ours = LazyArrays({key: array.shape for key, array in arrays.items()}, arrays.__getitem__)
        named = renamed(self.ungroup(ours), self.back)
        found = dict(self.restore(named.transposed(self._is_transposed)))
        return found, tuple(key for key in found if key not in named)


def unfit(source: Source | None, what: str) -> UserError:
    """The error of `infer` for a file of another model."""
    if source is None:
        return UserError(what)
    script = "is a TorchScript archive of another network: " if is_script(source.where) else ""
    return UserError(f"{source.where}: {script}{what}")


def stored_config(source: Source | None, model: str, make: Callable, what: str):
    """The config in the metadata of a file that `jittwin convert` wrote; None where there is none.

    make: the config's class. what: what it describes, in words. UserError: the metadata are damaged.
    """
    stored = source.metadata.get("config") if source else None
    if not isinstance(stored, dict) or source.metadata.get("model") != model:
        return None
    try:
        return make(**stored)
    except (TypeError, ValueError) as error:
        raise unfit(source, f"its metadata describe no {what} ({error}); convert it again") from error


def frozen(value):
    """A value of JSON with tuples for its lists."""
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def below(found: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries whose keys begin with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}


def renaming(old: str, new: str) -> tuple[str, str]:
    """A pair for the renames of a Conversion.

    {} stands for the number of a block. A name that ends with a dot stands for all names that begin with it.
    """
    end = "" if old.endswith(".") else "$"
    return "^" + old.replace(".", r"\.").replace("{}", r"(\d+)") + end, new.replace("{}", r"\1")


def counted(shapes: Shapes, key: str, first: int = 0) -> int:
    """How many of key.format(first), key.format(first + 1), … there are before one is missing."""
    return next(number for number in count() if key.format(first + number) not in shapes)


def no_config(shapes: Shapes, source: Source | None) -> None:
    """`infer` for a model that has only one size."""
