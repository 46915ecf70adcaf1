"""Which picture a name in somebody's table means."""
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from jittwin.data.pictures import SUFFIXES
from jittwin.errors import UserError

# What a column of pictures may be called. Besides the plain words these are the names of PKU-AIGIQA-4K and of EvalMuse.
PICTURE_COLUMNS = ("picture", "image", "file", "filename", "path", "imagepath", "imgpath", "filepath", "imagename",
                   "img", "generatedimage", "name")
MOST_NAMED = 5      # pictures that a message names


def match(path, names: Iterable[str], pictures: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The name for each of `pictures` that has one, and the names that no picture has.

    A name belongs to the picture of that relative path, else of that path without its suffix, else of that file name in
    any folder, else of that file name without its suffix. path: the file with the names. UserError: a name that could
    mean two pictures, or the other way round.
    """
    found, rest = {}, dict.fromkeys(names)
    for key in (_same, _without_suffix, _file_name, lambda name: _without_suffix(_file_name(name))):
        pictures_of, names_of = _grouped(pictures, key), _grouped(rest, key)
        for picture in pictures:
            meant = names_of.get(key(picture), ())
            if picture in found or not meant:
                continue
            twins = pictures_of[key(picture)]
            if len(meant) > 1 or len(twins) > 1:
                one, others = (picture, meant) if len(meant) > 1 else (meant[0], twins)
                raise UserError(f"{path}: '{one}' could be any of {len(others)}: {few(others)}; write the "
                                "paths of the pictures from their folder on, such as sub/1.png")
            found[picture] = meant[0]
        for name in found.values():
            rest.pop(name, None)
    return found, list(rest)


def plain_name(name: str) -> str:
    """A path as tables write it, with "/" between folders and without "./" before them."""
    name = name.strip().replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    return name


def few(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")


def named(names: Iterable[str], known: Sequence[str]) -> int | None:
    """Where the first of the known names is; case, spaces, quotes, "_" and "-" do not matter."""
    plain = [name.strip().casefold().translate(dict.fromkeys(map(ord, ' "_-'))) for name in names]
    return next((plain.index(name) for name in known if name in plain), None)


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", name)       # file systems differ in how they write an accent


def _file_name(name: str) -> str:
    return _same(name).rpartition("/")[2]


def _without_suffix(name: str) -> str:
    """A name may hold dots without having a suffix: v1.5."""
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return _same(name)[:-len(suffix)] if suffix else _same(name)


def _grouped(names: Sequence[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return groups
