"""Files that hold more than arrays: PyTorch's, in which scripts store numbers and text beside weights, and pickles."""
import os
import zipfile
from typing import Any

from jittwin.atomic import atomic_write
from jittwin.weights import torch_file
from jittwin.weights.arrays import WeightsError
from jittwin.weights.files import kind_of, reading
from jittwin.weights.safe_pickle import Array, restricted_load


def read_content(path: str | os.PathLike) -> Any:
    """The content of a .pth: dictionaries, lists, tuples, numbers, text, None, and NumPy arrays in place of tensors.

    Objects of other classes are `Inert`.

    WeightsError: missing, damaged, hostile, or not a PyTorch file. Nothing in the file is ever executed.
    """
    where = os.fspath(path)
    with reading(where), open(path, "rb") as stream:
        kind = kind_of(stream, where)
        if kind == "torch":
            with zipfile.ZipFile(stream) as archive:
                return torch_file.plain(torch_file.read_zip(archive, where))
        if kind == "torch-legacy":
            return torch_file.plain(torch_file.read_legacy(stream, where))
        raise WeightsError(f"{where}: a {kind} file; what is read here is a PyTorch .pth")


def read_pickle(path: str | os.PathLike) -> Any:
    """The content of a plain pickle: dictionaries, lists, tuples, numbers, text, None and NumPy arrays.

    WeightsError: missing, damaged, hostile, or not a pickle. Nothing in the file is ever executed.
    """
    where = os.fspath(path)
    with reading(where), open(path, "rb") as stream:
        kind = kind_of(stream, where)
        if kind != "pickle":
            raise WeightsError(f"{where}: a {kind} file; what is read here is a pickle of a dictionary")
        return torch_file.plain(restricted_load(stream, where))


def read_numbers(path: str | os.PathLike) -> dict[str, int | float]:
    """The numbers in the dictionary that a .pth of the zip form holds; {} for other files.

    Arrays are not read. WeightsError: as read_content.
    """
    where = os.fspath(path)
    with reading(where), open(path, "rb") as stream:
        if kind_of(stream, where) != "torch":
            return {}
        with zipfile.ZipFile(stream) as archive:
            content = torch_file.read_zip(archive, where, lambda content: ())
        if not isinstance(content, dict):
            return {}
        found = {key: torch_file.plain(value) for key, value in content.items() if isinstance(value, (
            int, float, Array))}
        return {key: value for key, value in found.items() if isinstance(value, (int, float))}


def write_content(path: str | os.PathLike, content: Any) -> None:
    """Write atomically what read_content reads back bit for bit; torch.load(weights_only=True) reads the file too.

    WeightsError: `content` holds an object of another type, the disk is full …; a previous file stays intact.
    """
    with atomic_write(path, WeightsError) as stream:
        torch_file.write_nested(stream, content, os.fspath(path))
