"""Atomic writing: files and folders that appear complete or not at all."""
import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jittwin.errors import UserError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, error: type[UserError] = UserError) -> Iterator[BinaryIO]:
    """A binary stream whose content becomes the file `path` when the block ends without an error.

    The data goes to a temporary file beside `path`, which is flushed to disk (fsync) and renamed. After an error
    the temporary file is deleted and a previous file stays. Raises `error`: disk full, no permission …
    """
    final = os.path.realpath(path)
    folder, name = os.path.split(final)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            with open(temporary, "xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, final)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(folder)
    except OSError as cause:
        raise error(f"{os.fspath(path)}: cannot be written: {cause.strerror or cause}; "
                    "any previous file is intact; free space or choose another place") from cause


def write_file(path: str | os.PathLike, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, atomically."""
    with atomic_write(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A new folder that becomes `path` when the block ends without an error; a folder that is there is replaced.

    After an error the new folder is deleted. UserError: disk full, no permission …
    """
    final = Path(os.path.realpath(path))
    try:
        with temporary_folder(final) as temporary:
            yield temporary
            sync_folder(temporary)
            if final.exists():
                shutil.rmtree(final)
            temporary.rename(final)
            sync_folder(final.parent)
    except OSError as cause:
        raise UserError(f"{os.fspath(path)}: cannot be written: {cause.strerror or cause}; choose another "
                        "place") from cause


@contextlib.contextmanager
def temporary_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A new folder beside `path` that is deleted when the block ends; after a kill remove_leftovers deletes it."""
    final = Path(os.path.realpath(path))
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(6)}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete what killed writers left in `folder` under temporary names; no writer may be at work there."""
    for path in Path(folder).glob(".*.tmp"):
        if re.fullmatch(r"\..+\.[0-9a-f]{12}\.tmp", path.name):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def sync_folder(folder: str | os.PathLike) -> None:
    """Make renames inside a folder durable, if the file system supports it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
