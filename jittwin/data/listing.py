"""Which files of a folder, a zip file or a list are pictures: one rule for every command.

A file is a picture if its name ends with a picture's suffix or its first bytes are a picture's. What is hidden, what an
operating system or an editor has left there, and what is no picture is passed over, and told by reason. A picture that
Pillow does not decode here, such as HEIC, belongs to the set, so that reading it is an error and not a silent gap.
"""
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jittwin.errors import UserError, printable
from jittwin.file_kinds import HEAD
from jittwin.picture_formats import format_of, suffix_of

HIDDEN, SYSTEM, UNFINISHED = "hidden", "left by an operating system", "backups or unfinished downloads"
OTHER, SPECIAL, UNREADABLE = "other files", "neither files nor folders", "that cannot be opened"
REPEATED, AGAIN = "named twice", "links to folders that are read already"
# Names in lower case. Those that begin with "._" are macOS's, which writes one beside every file on a foreign disk.
_SYSTEMS = {"__macosx", ".ds_store", ".appledouble", ".spotlight-v100", ".trashes", ".fseventsd", ".localized",
            ".directory", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "lost+found", "@eadir",
            "system volume information", "#recycle"}
_UNFINISHED = ("~", ".bak", ".tmp", ".part", ".partial", ".crdownload", ".download", ".swp")
MOST_NAMED, FIRST = 5, 3    # names in a message, and of each reason


@dataclass(frozen=True)
class Listing:
    """The pictures of a place, and what it holds besides.

    files: path by name, None in a zip file. passed_over: names by reason.
    """

    where: str
    files: Mapping[str, Path | None]
    passed_over: Mapping[str, Sequence[str]]

    @property
    def counts(self) -> dict[str, int]:
        """How many files were passed over, by reason."""
        return {reason: len(names) for reason, names in self.passed_over.items()}

    @property
    def rest(self) -> str:
        """What was passed over, by reason; "" if nothing was."""
        parts = [f"{len(names)} {reason} ({few(names, FIRST)})" for reason, names in self.passed_over.items()]
        return f"passed over: {', '.join(parts)}" if parts else ""

    @property
    def notes(self) -> tuple[str, ...]:
        """A line about what was passed over, or nothing."""
        return (f"{printable(self.where)}: {len(self.files)} pictures; {self.rest}",) * bool(self.rest)


def few(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """The first names, for a message."""
    return printable(", ".join(names[:most])) + (", ..." if len(names) > most else "")


def tell(notes: Iterable[str]) -> None:
    """Print lines on stderr."""
    for note in notes:
        print(note, file=sys.stderr)


def list_folder(where: str | os.PathLike) -> Listing:
    """The pictures of a folder and its subfolders, also of those that links lead to, each folder once.

    No file is asked for anything that the listing of its folder tells. UserError: a folder cannot be listed.
    """
    sorting, known, waiting, links = Sorting(), set(), [(Path(where), "")], []
    while waiting or links:
        folder, inside = waiting.pop() if waiting else links.pop(0)     # links after all that lies in folders
        if (real := folder.resolve()) in known:
            sorting.passed.setdefault(AGAIN, []).append(inside)
            continue
        known.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{folder}: cannot be listed ({error.strerror}); change its permissions or remove it"
                            ) from error
        for entry in entries:
            name, path = f"{inside}/{entry.name}" if inside else entry.name, Path(entry.path)
            if entry.is_symlink():
                is_folder, is_file = path.is_dir(), not path.exists() or path.is_file()    # broken: nothing to read
            else:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            if is_folder and _why_not(name.split("/")):
                sorting.hide(path, name)
            elif is_folder:
                (links if entry.is_symlink() else waiting).append((path, name))
            else:
                sorting.add(name, path, lambda path=path: _head(lambda: open(path, "rb")), is_file)
    return sorting.listing(os.fspath(where))


def list_archive(where: str | os.PathLike, archive: zipfile.ZipFile) -> Listing:
    """The pictures of a zip file."""
    sorting = Sorting()
    for name in archive.namelist():
        if not name.endswith("/"):
            sorting.add(name, None, lambda name=name: _head(lambda: archive.open(name)))
    return sorting.listing(os.fspath(where))


def list_files(paths: Sequence[str | os.PathLike]) -> Listing:
    """Files that were named one by one: all are meant as pictures, except those of an operating system."""
    files, passed = {}, {}
    for path in map(os.fspath, paths):
        reason = REPEATED if path in files else SYSTEM if _is_system(Path(path).name) else None
        if reason:
            passed.setdefault(reason, []).append(path)
        else:
            files[path] = Path(path)
    return Listing(f"{len(paths)} files", files, passed)


class Sorting:
    """Sorts files, one after the other, into pictures and what is passed over."""

    def __init__(self):
        self.files, self.passed = {}, {}

    def add(self, name: str, path: Path | None, head: Callable[[], bytes | None], is_file: bool = True) -> None:
        """Add a file. head: gives its first bytes, None if it cannot be read. is_file: no pipe, device or the like."""
        reason = _why_not((name if path else name.replace("\\", "/")).split("/"))
        if reason is None and not is_file:
            reason = SPECIAL
        if reason is None and name in self.files:
            reason = REPEATED
        if reason is None and not suffix_of(name):
            start = head()
            reason = UNREADABLE if start is None else None if format_of(start) else OTHER
        if reason is None:
            self.files[name] = path
        else:
            self.passed.setdefault(reason, []).append(name)

    def hide(self, folder: Path, name: str) -> None:
        """Pass over all files of a folder that is hidden or an operating system's."""
        for place, _, files in os.walk(folder):
            inside = name + place.removeprefix(os.fspath(folder))
            for file in (f"{inside}/{file}" for file in files):
                self.passed.setdefault(_why_not(file.split("/")), []).append(file)

    def listing(self, where: str) -> Listing:
        return Listing(where, self.files, {reason: sorted(names) for reason, names in self.passed.items() if names})


def _why_not(parts: Sequence[str]) -> str | None:
    """Why a file of this path, relative to what was listed, is passed over; None where its name is no reason."""
    if any(map(_is_system, parts)):
        return SYSTEM
    if any(part.startswith(".") and part not in (".", "..") for part in parts):
        return HIDDEN
    return UNFINISHED if parts[-1].lower().endswith(_UNFINISHED) else None


def _is_system(name: str) -> bool:
    return name.lower() in _SYSTEMS or name.startswith(("._", ".Trash-"))


def _head(opened: Callable) -> bytes | None:
    """The first bytes of a file; None if it cannot be read."""
    try:
        with opened() as stream:
            return stream.read(HEAD)
    except (OSError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile):   # encrypted, damaged
        return None
