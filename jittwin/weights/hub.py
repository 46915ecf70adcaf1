"""Hub folders, laid out as on the Hugging Face hub: config.json, weights in one file or in shards, preprocessing.

A folder `models--ORG--NAME` of the hub's cache stands for the snapshot that its refs/main names. Nothing is fetched
from a network.
"""
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jittwin.errors import UserError
from jittwin.file_kinds import is_unpacked, unpacked
from jittwin.text_files import read_object
from jittwin.weights.files import FORMATS, open_weights
from jittwin.weights.lazy import LazyArrays

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# Files with the settings of image processors: transformers 5 writes PROCESSOR, with the settings under the key NESTED;
# transformers 4 and most folders on the hub have PREPROCESSOR.
PROCESSOR, NESTED, PREPROCESSOR = "processor_config.json", "image_processor", "preprocessor_config.json"
UNFINISHED = "*.incomplete"
Renames = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class HubFolder:
    """A hub folder, as `open_hub` returns it. path: the folder that holds the files."""

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json. UserError: damaged."""
        return read_object(self.path / CONFIG)

    @property
    def name(self) -> str:
        """The model's name according to its config.json or the hub's cache, else the folder's name."""
        cached = re.fullmatch(r"models--(.+?)--(.+)", self.path.parent.parent.name)
        return str(self.config.get("_name_or_path") or ("/".join(cached.groups()) if cached else "")
                   or self.path.resolve().name)

    def section(self, kinds: Mapping[str, str], advice: str) -> dict[str, Any]:
        """The part of config.json that describes the network.

        kinds: for each legal model_type the key of that part, "" for the whole file. advice: the end of the message,
        which names suitable models. UserError: another model's config.json.
        """
        kind = self.config.get("model_type")
        key = kinds.get(kind) if isinstance(kind, str) else None
        found = self.config if key == "" else self.config.get(key, {})
        if key is None or not isinstance(found, dict):
            raise UserError(f"{self.path / CONFIG}: model_type {kind!r}; legal: {' or '.join(kinds)}, {advice}")
        return found

    @property
    def weights(self) -> Path:
        """The file of the weights, or the index of their shards. UserError: there is neither."""
        paths = [self.path / name for name in WEIGHTS]
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            reason = next((f"; {path.name} {_absent(path)}" for path in paths if path.is_symlink()), "")
            reason = reason or unfinished(self.path)
            raise UserError(f"{self.path}: no weights found; legal: {', '.join(WEIGHTS)}{reason}")
        return found

    def arrays(self, keep: Callable[[str], bool] = lambda key: True) -> LazyArrays:
        """The arrays whose keys `keep` accepts, each read when it is accessed. UserError: a missing or damaged file."""
        return open_weights(self.weights, keep)

    def processor(self) -> tuple[dict[str, Any], Path] | None:
        """(settings of the image processor, their file); None if there is no such file. UserError: damaged."""
        for name in (PROCESSOR, PREPROCESSOR):
            path = self.path / name
            if path.is_file():
                content = read_object(path)
                found = content.get(NESTED) if name == PROCESSOR else content
                if isinstance(found, dict):
                    return found, path
        return None


def open_hub(where: str | os.PathLike) -> HubFolder:
    """Open a folder with config.json, a folder models--ORG--NAME of the hub's cache, or one of its snapshots.

    The files are read when they are accessed. UserError: no folder, no config.json in it, a cached model without
    snapshots, or with several and no refs/main.
    """
    path = Path(where)
    if not path.is_dir():
        raise UserError(f"{path}: is not a folder; give a hub folder, with {CONFIG} and {WEIGHTS[0]}")
    snapshots = path / "snapshots"
    if (path / CONFIG).exists() or not snapshots.is_dir():
        return _checked(path)
    found = sorted(entry.name for entry in snapshots.iterdir() if entry.is_dir())
    main = path / "refs" / "main"
    wanted = main.read_text(errors="replace").strip() if main.is_file() else ""
    if wanted in found:
        return _checked(snapshots / wanted)
    if len(found) != 1 or wanted:
        lacking = f"refs/main names {wanted[:40]!r}, which is not among" if wanted else "refs/main is missing, among"
        raise UserError(f"{path}: {lacking} its {len(found)} snapshots{unfinished(path / 'snapshots/any')}; fetch the "
                        f"model again, or give {snapshots}/HASH")
    return _checked(snapshots / found[0])


def _checked(folder: Path) -> HubFolder:
    path = folder / CONFIG
    if not path.is_file():
        inside = sorted(entry.name for entry in folder.iterdir() if entry.suffix in FORMATS) if folder.is_dir() else []
        if is_unpacked(folder):
            raise UserError(f"{folder}: {unpacked(folder)}")
        other = f", or one of the files in it, such as {inside[0]}" if inside and not path.is_symlink() else ""
        raise UserError(f"{path}: {_absent(path)}; give a hub folder, with {CONFIG} and {WEIGHTS[0]} (or {WEIGHTS[2]})"
                        f"{other}")
    return HubFolder(folder)


def numbers(found: Mapping[str, Any], defaults: Mapping[str, float], where: str) -> dict[str, float]:
    """The values of the keys of `defaults` in a part of config.json, or the defaults. where: the beginning of messages.

    UserError: a value of another type than its default, or a negative one.
    """
    values = {name: found.get(name, default) for name, default in defaults.items()}
    for name, value in values.items():
        kind = type(defaults[name])
        if type(value) not in ({kind, int} if kind is float else {kind}) or value < 0:
            raise UserError(f"{where} {name} is {value!r}; legal: a number, as in {defaults[name]}")
    return values


def renamed(arrays: LazyArrays, renames: Renames) -> LazyArrays:
    """The same arrays under other keys. renames: pairs (regular expression, replacement), applied in turn.

    UserError: two arrays would have the same key.
    """
    names = {}
    for key in arrays:
        new = rename(key, renames)
        if new in names:
            raise UserError(f"{arrays.source}: {names[new]} and {key} are both {new} in the model; save one of them "
                            "alone")
        names[new] = key
    return arrays.renamed(names)


def rename(key: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def unfinished(folder: Path) -> str:
    """The end of a message about a download that stopped half-way; "" if there are no traces of one."""
    places = [folder, folder / ".cache" / "huggingface" / "download"]
    if folder.parent.name == "snapshots":
        places.append(folder.parent.parent / "blobs")
    first = next((path for place in places for path in sorted(place.glob(UNFINISHED))), None)
    return f"; the download is unfinished ({first.name} is left over): run it again" if first else ""


def _absent(path: Path) -> str:
    """Why a file does not exist, for a message."""
    if path.is_symlink():
        return f"points to {os.readlink(path)}, which is not there: fetch it again" + unfinished(path.parent)
    return "not found" + unfinished(path.parent)
