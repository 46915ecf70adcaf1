"""Match the entries of two states (state dicts) by equal names, or by a map of names that a person wrote.

Shapes only suggest such a map. Two layers of equal shape can be swapped without changing any shape, so no entry is
matched by its shape alone, and no weight is transposed because the transposed shape would fit.
"""
from collections.abc import Iterable, Mapping

from jittwin.errors import did_you_mean
from jittwin.weights.state import Shapes, differences

GAP, SWAP = 1, 5            # costs of an alignment: an entry without counterpart, a pair of different shapes
EQUAL: Mapping[str, str] = {}           # the map of twins with equal names


def renamed(path: str, names: Mapping[str, str]) -> str:
    """The path that a module or a state entry has on the other side.

    names: maps paths of this side to paths of the other. An entry applies to everything below its path; of several
    that apply, the longest wins. A "*" stands for one part of a path, as in {"blocks.*.fc": "layers.*.linear1"};
    "" is the whole module.
    """
    parts = _parts(path)
    for here, there in sorted(names.items(), key=lambda item: -len(_parts(item[0]))):
        pattern = _parts(here)
        head, tail = parts[:len(pattern)], parts[len(pattern):]
        if len(head) == len(pattern) and all(p in ("*", part) for p, part in zip(pattern, head, strict=True)):
            stars = iter([part for p, part in zip(pattern, head, strict=True) if p == "*"])
            return ".".join([*(next(stars, "*") if p == "*" else p for p in _parts(there)), *tail])
    return path


def translated(entries: Iterable[tuple], names: Mapping[str, str]) -> dict:
    """The entries (name, value) as a dict by the other side's names. ValueError if two would get the same name."""
    found, origin = {}, {}
    for name, value in entries:
        other = renamed(name, names)
        if other in found:
            raise ValueError(f"{origin[other]} and {name} would both be called {other}: correct names={dict(names)}")
        found[other], origin[other] = value, name
    return found


def explain_differences(torch: Shapes, jittor: Shapes, names: Mapping[str, str] = EQUAL) -> str:
    """Why two states do not fit, and a map to paste if the shapes suggest one; "" if they fit.

    torch, jittor: the shapes of either side, by that side's own names.
    """
    seen = translated(jittor.items(), names)
    problems = differences(torch, seen)
    if not problems:
        return ""
    lines = [f"the Jittor state is not the PyTorch state: {problems}"]
    lines += [f"{name} has the sides of PyTorch's in reverse: keep its layout {torch[name]}; nothing is transposed"
              for name, shape in seen.items() if shape != torch.get(name, shape) and shape[::-1] == torch[name]]
    idle = [here for here in names if all(renamed(name, {here: " "}) == name for name in jittor)]
    lines += [f"names: the Jittor module has no {here!r}{did_you_mean(here, _paths(jittor))}" for here in idle]
    found, left = suggested(torch, jittor, {here: there for here, there in names.items() if here not in idle})
    if found:
        doubt = f", and leaves {left} entries without counterpart" if left else ""
        entries = "".join(f"    {here!r}: {there!r},\n" for here, there in found.items())
        lines.append(f"the order of the shapes suggests this map{doubt}; check it before you use it:\n"
                     f"names={{\n{entries}}}")
    return "\n".join(lines)


def suggested(torch: Shapes, jittor: Shapes, names: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """`names` extended by the shortest map that the shapes suggest, and how many entries have no counterpart then.

    Entries that already fit are kept; the others are aligned as two sequences of shapes (Needleman and Wunsch 1970,
    Journal of Molecular Biology 48, 443-453). The map is {} if nothing can be aligned.
    """
    fits = [(name, there) for name, shape in jittor.items() if torch.get(there := renamed(name, names)) == shape]
    here, there = dict(fits).keys(), dict(fits).values()
    pairs = aligned(_ordered({n: s for n, s in jittor.items() if n not in here}),
                    _ordered({n: s for n, s in torch.items() if n not in there}))
    left = len(jittor) + len(torch) - 2 * len(fits) - 2 * len(pairs)
    short: dict[str, str] = {}
    for a, b in pairs:
        a, b = _without_common_end(a, b)
        short.setdefault(a, b)
    starred = {_starred(a): _starred(b) for a, b in short.items()}
    for found in (starred, short, dict(pairs)):
        found = {**names, **found}
        if all(renamed(a, found) == b for a, b in [*fits, *pairs]):
            return (found if pairs else {}), left
    raise AssertionError("a map of whole names translates them")


def aligned(first: list[tuple[str, tuple]], second: list[tuple[str, tuple]]) -> list[tuple[str, str]]:
    """The pairs of names in the cheapest alignment of two sequences of (name, shape); only equal shapes pair."""
    rows, columns = len(first) + 1, len(second) + 1
    cost = [[GAP * (i + j) for j in range(columns)] for i in range(rows)]
    for i in range(1, rows):
        for j in range(1, columns):
            swap = 0 if first[i - 1][1] == second[j - 1][1] else SWAP
            cost[i][j] = min(cost[i - 1][j] + GAP, cost[i][j - 1] + GAP, cost[i - 1][j - 1] + swap)
    i, j, pairs = rows - 1, columns - 1, []
    while i and j:
        (a, shape), (b, other) = first[i - 1], second[j - 1]
        if shape == other and cost[i][j] == cost[i - 1][j - 1]:
            pairs.append((a, b))
            i, j = i - 1, j - 1
        elif cost[i][j] == cost[i - 1][j] + GAP:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def _ordered(shapes: Shapes) -> list[tuple[str, tuple]]:
    """The entries in order, those of one layer sorted by name: the frameworks list a layer's entries differently."""
    layers: dict[str, list] = {}
    for name, shape in shapes.items():
        layers.setdefault(name.rpartition(".")[0], []).append((name, shape))
    return [entry for entries in layers.values() for entry in sorted(entries)]


def _paths(shapes: Shapes) -> list[str]:
    """The paths of all entries and of the modules that contain them."""
    ways = [_parts(name) for name in shapes]
    return list(dict.fromkeys(".".join(way[:end]) for way in ways for end in range(1, len(way) + 1)))


def _parts(path: str) -> list[str]:
    return path.split(".") if path else []


def _without_common_end(here: str, there: str) -> tuple[str, str]:
    a, b = _parts(here), _parts(there)
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    return ".".join(a), ".".join(b)


def _starred(path: str) -> str:
    """The path with a "*" in place of every number."""
    return ".".join("*" if part.isdigit() else part for part in _parts(path))
