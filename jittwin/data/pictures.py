"""Sets of pictures on disk, decoded and prepared for a network, a bounded number at a time."""
import hashlib
import io
import itertools
import os
import re
import threading
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np

from jittwin import imaging
from jittwin.data.listing import list_archive, list_files, list_folder
from jittwin.errors import UserError, printable
from jittwin.file_kinds import no_pictures

MOST_WORKERS = 8
MOST_PIXELS = 64_000_000        # of all pictures that are decoded at the same time, about 12 bytes each


class ImageSet:
    """The pictures of a folder and its subfolders, of a zip file, or of a list of files, in natural order.

    jittwin.data.listing says which files are pictures. names: relative paths. notes: lines about files that were passed
    over; passed_over: how many, by reason. UserError: `where` does not exist or holds no picture.
    """

    def __init__(self, where: str | os.PathLike | Sequence):
        self.lock = threading.Lock()        # threads share the position in a zip file
        if not isinstance(where, (str, os.PathLike)):
            found = list_files(where)
        elif os.path.isdir(where):
            found = list_folder(where)
        elif zipfile.is_zipfile(where):
            try:
                self.archive = zipfile.ZipFile(where)       # stays open: its table of contents is slow to read
            except (OSError, ValueError, zipfile.BadZipFile) as error:
                raise UserError(f"{os.fspath(where)}: cannot be read ({error}); make the zip file again") from error
            found = list_archive(where, self.archive)
        else:
            what = "neither a folder nor a zip file of pictures" + no_pictures(where)
            raise UserError(f"{os.fspath(where)}: {what if os.path.exists(where) else 'no such folder or zip file'}")
        self.where, self.notes, self.passed_over = found.where, found.notes, found.counts
        self.names = sorted(found.files, key=natural)
        self.paths = [found.files[name] for name in self.names]
        if not self.names:
            weights = no_pictures(where) if isinstance(where, (str, os.PathLike)) else ""
            raise UserError(f"{self}: holds no picture{weights or found.rest and '; ' + found.rest}")

    def __str__(self) -> str:
        return os.fspath(self.where)

    @cached_property
    def shown_names(self) -> list[str]:
        """The names as printable text: file names may hold control characters, and bytes that are not UTF-8."""
        return [printable(name) for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """The content of a file. UserError: it cannot be read."""
        try:
            if self.paths[index] is not None:
                return self.paths[index].read_bytes()
            with self.lock:
                return self.archive.read(self.names[index])
        except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:    # RuntimeError: encrypted, unknown
            path, reason = self.paths[index], getattr(error, "strerror", None) or error
            if path is not None and path.is_symlink() and not path.exists():
                reason = f"a link to {os.readlink(path)}, which is not there"
            raise UserError(f"{self.label(index)}: cannot be read ({reason})") from error

    def decode(self, index: int, admit: Callable[[int], None] = lambda pixels: None) -> np.ndarray:
        """A picture, uint8 (H, W, 3), as jittwin.imaging.decode_image reads it. UserError: it cannot be decoded."""
        return imaging.decode_image(io.BytesIO(self.read(index)), self.label(index), admit)

    def label(self, index: int) -> str:
        """How messages name a picture."""
        return f"{self}/{self.names[index]}" if self.paths[index] is None else os.fspath(self.paths[index])

    def content_hash(self) -> str:
        """SHA-256 of names and contents, the key of cached results. A file that cannot be read counts as empty."""
        return self._content_hash

    @cached_property
    def _content_hash(self) -> str:
        # Computed once, because it reads the whole set, which may be gigabytes.
        digest = hashlib.sha256()
        for index, name in enumerate(self.names):
            try:
                content = self.read(index)
            except UserError:       # decoding the picture will report it
                content = b""
            digest.update(f"{name}\0{len(content)}\0".encode(errors="surrogateescape"))
            digest.update(content)
        return digest.hexdigest()


def other_pictures(folder: Path, names: Container[str]) -> list[Path]:
    """The pictures in `folder` and its subfolders, except files directly in it that have one of `names`."""
    if not folder.is_dir():
        return []
    return [path for name, path in sorted(list_folder(folder).files.items()) if name not in names]


def natural(name: str) -> list:
    """Sort key that puts 2.jpg before 10.jpg."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def default_workers() -> int:
    """Number of decoding threads: one per CPU that this process may use, at most MOST_WORKERS."""
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)))


class Room:
    """Lets pictures in as long as those inside have at most `most` pixels together; a larger one is alone."""

    def __init__(self, most: int = MOST_PIXELS):
        self.most, self.inside, self.changed = most, 0, threading.Condition()

    @contextmanager
    def ticket(self) -> Iterator[Callable[[int], None]]:
        """A function that waits until there is room for so many pixels, which are inside while this context lasts."""
        taken = 0

        def admit(pixels: int) -> None:
            nonlocal taken
            self.leave(taken)       # of an attempt before
            with self.changed:
                self.changed.wait_for(lambda: not self.inside or self.inside + pixels <= self.most)
                self.inside += pixels
            taken = pixels

        try:
            yield admit
        finally:
            self.leave(taken)

    def leave(self, pixels: int) -> None:
        with self.changed:
            self.inside -= pixels
            self.changed.notify_all()


def prepared(images: ImageSet, prepare: Callable[[np.ndarray], np.ndarray], workers: int | None = None,
             on_error: Callable[[UserError], None] | None = None,
             indices: Iterable[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, prepare(picture)) in order; a few threads decode ahead, fewer where pictures are large.

    indices: of the pictures to take; None for all. on_error: called with the UserError of each picture that cannot be
    decoded, which is then skipped. None: the error is raised.
    """
    workers, room = workers or default_workers(), Room()

    def one(index: int) -> np.ndarray:
        with room.ticket() as admit:
            return prepare(images.decode(index, admit))

    with ThreadPoolExecutor(workers) as pool:
        waiting = deque()
        try:
            for index in range(len(images)) if indices is None else indices:
                waiting.append((index, pool.submit(one, index)))
                if len(waiting) > 2 * workers:
                    yield from _finished(waiting.popleft(), on_error)
            while waiting:
                yield from _finished(waiting.popleft(), on_error)
        finally:
            for _, future in waiting:
                future.cancel()


def _finished(pending, on_error):
    index, future = pending
    try:
        yield index, future.result()
    except UserError as error:
        if on_error is None:
            raise
        on_error(error)


def grouped(items: Iterator, size: int) -> Iterator[list]:
    """Yield lists of at most `size` successive items."""
    while group := list(itertools.islice(items, size)):
        yield group
