"""Matching of the names in a table with pictures."""
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from jittwin.data.listing import few
from jittwin.errors import UserError, did_you_mean
from jittwin.picture_formats import suffix_of

# Legal names of a column of pictures. The names of PKU-AIGIQA-4K and of EvalMuse are among them.
PICTURE_COLUMNS = ("picture", "image", "file", "filename", "path", "imagepath", "imgpath", "filepath", "imagename",
                   "img", "generatedimage", "name")
MOST_NEAREST = 3    # a message looks for the nearest of at most this many names


def match(path, names: Iterable[str], pictures: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """({picture: its name in the table}, names that match no picture).

    Names are compared with the pictures' relative paths, then with these without their suffixes, then with the bare
    file names, then with these without their suffixes; the first match counts. path: the file with the names.
    UserError: an ambiguous match.
    """
    found, rest = {}, dict.fromkeys(names)
    for key in KEYS:
        pictures_of, names_of = _grouped(pictures, key), _grouped(rest, key)
        for picture in pictures:
            theirs = names_of.get(key(picture), ())
            if picture in found or not theirs:
                continue
            twins = pictures_of[key(picture)]
            if len(theirs) > 1 or len(twins) > 1:
                one, others = (picture, theirs) if len(theirs) > 1 else (theirs[0], twins)
                raise _ambiguous(path, one, others)
            found[picture] = theirs[0]
        for name in found.values():
            rest.pop(name, None)
    return found, list(rest)


def meant(path, names: Iterable[str], pictures: Sequence[str]) -> tuple[set[str], list[str]]:
    """(pictures that a list names, names of no picture); several names may mean one picture, as its label map's does.

    Names are compared as in `match`. UserError: a name that could mean several pictures.
    """
    groups = [(key, _grouped(pictures, key)) for key in KEYS]
    found, unknown = set(), []
    for name in dict.fromkeys(map(plain_name, names)):
        candidates = next((group[key(name)] for key, group in groups if key(name) in group), [])
        if len(candidates) > 1:
            raise _ambiguous(path, name, candidates)
        found.update(candidates)
        if not candidates:
            unknown.append(name)
    return found, unknown


def plain_name(name: str) -> str:
    """A path of a table with "/" between folders and without a leading "./"."""
    name = name.strip().replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    return name


def strangers(names: Sequence[str], known: Iterable[str]) -> str:
    """The first of these names, each with the nearest of those that are there, for a message."""
    known = list(known)
    shown = [f"'{name}'{did_you_mean(name, known)}" for name in names[:MOST_NEAREST]]
    return ", ".join(shown) + (", ..." if len(names) > MOST_NEAREST else "")


def named(names: Iterable[str], known: Sequence[str]) -> int | None:
    """Index of the first of the known names among `names`; case, spaces, quotes, "_" and "-" do not matter."""
    plain = [name.strip().casefold().translate(dict.fromkeys(map(ord, ' "_-'))) for name in names]
    return next((plain.index(name) for name in known if name in plain), None)


def _ambiguous(path, name: str, others: Sequence[str]) -> UserError:
    return UserError(f"{path}: '{name}' could be any of {len(others)}: {few(others)}; write the paths of the pictures "
                     "from their folder on, such as sub/1.png")


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", name)       # file systems differ in how they write an accent


def _file_name(name: str) -> str:
    return _same(name).rpartition("/")[2]


def _without_suffix(name: str) -> str:
    """The name without the suffix of a picture; another dot, as in v1.5, begins no suffix."""
    suffix = suffix_of(name)
    return _same(name)[:-len(suffix)] if suffix else _same(name)


# What is compared of a name, the most exact first.
KEYS = (_same, _without_suffix, _file_name, lambda name: _without_suffix(_file_name(name)))


def _grouped(names: Sequence[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return groups
