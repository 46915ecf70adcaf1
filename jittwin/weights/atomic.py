"""Files that appear whole or not at all."""
import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import BinaryIO

from jittwin.weights.arrays import WeightsError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary stream that becomes `path` when the block ends, and vanishes when it fails.

    The data goes to a temporary file beside `path`, reaches the disk (fsync), and is
    renamed. Raises WeightsError (disk full, no permission …); the previous file stays.
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
        _sync_folder(folder)
    except OSError as error:
        raise WeightsError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}; "
                           "any previous file is intact; free space or choose another place") from error


def _sync_folder(folder: str) -> None:
    """Makes the rename itself durable, where the file system knows how."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
