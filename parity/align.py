"""Which entry of one state is which of the other: by equal names, or by a map that a person wrote.

Shapes only ever suggest a map. Two layers of one shape can be swapped without any shape showing it, so nothing
is aligned by shape, and no weight is transposed because its sides happen to fit.
"""
from collections.abc import Iterable, Mapping

from jittwin.state import Shapes, differences

GAP, SWAP = 1, 5            # costs: an entry without counterpart, a pair of different shapes


def renamed(path: str, names: Mapping[str, str]) -> str:
    """The other side's name of a module or state entry.

    names: paths here to paths there. An entry also moves everything below it, the longest that fits wins,
    and each "*" stands for one part of the path: {"blocks.*.fc": "layers.*.linear1"}; "" is the whole module.
    """
    parts = _parts(path)
    for here, there in sorted(names.items(), key=lambda item: -len(_parts(item[0]))):
        pattern = _parts(here)
        head, tail = parts[:len(pattern)], parts[len(pattern):]
        if len(head) == len(pattern) and all(p in ("*", part) for p, part in zip(pattern, head, strict=True)):
            stars = iter([part for p, part in zip(pattern, head, strict=True) if p == "*"])
            return ".".join([*(next(stars, "*") if p == "*" else p for p in _parts(there)), *tail])
    return path


def explain_differences(torch: Shapes, jittor: Shapes) -> str:
    """Why the states do not fit, with a map to paste where shapes suggest one; "" when they fit.

    torch, jittor: the shape of every entry by name, the Jittor names as the map has already changed them.
    """
    problems = differences(torch, jittor)
    if not problems:
        return ""
    lines = [f"the Jittor state is not the PyTorch state: {problems}"]
    lines += [f"  {name} has the sides of {torch[name]} in reverse: keep PyTorch's layout, nothing is transposed"
              for name, shape in jittor.items() if shape != torch.get(name, shape) and shape[::-1] == torch[name]]
    names, left = suggested(torch, jittor)
    if names:
        doubt = f"; {left} entries stay without counterpart" if left else ""
        entries = "".join(f"\n    {here!r}: {there!r}," for here, there in names.items())
        lines.append(f"the order of the shapes suggests this map{doubt}. Read it, then pass it as\nnames={{{entries}\n}}")
    return "\n".join(lines)


def suggested(torch: Shapes, jittor: Shapes) -> tuple[dict[str, str], int]:
    """A map from Jittor to PyTorch names, as short as it can be, and how many entries it leaves over.

    The shapes are aligned as sequences (Needleman and Wunsch 1970, J. Mol. Biol. 48, 443-453).
    """
    pairs = aligned(_ordered(jittor), _ordered(torch))
    left = len(jittor) + len(torch) - 2 * len(pairs)
    exact = {here: there for here, there in pairs if here != there}
    short: dict[str, str] = {}
    for here, there in pairs:
        here, there = _without_common_end(here, there)
        if here != there:
            short.setdefault(here, there)
    starred = {_starred(here): _starred(there) for here, there in short.items()}
    for names in (starred, short):
        if all(renamed(here, names) == there for here, there in pairs):
            return names, left
    return exact, left


def aligned(first: list[tuple[str, tuple]], second: list[tuple[str, tuple]]) -> list[tuple[str, str]]:
    """The pairs of names of the cheapest alignment of two sequences of (name, shape); only equal shapes pair."""
    cost = [[GAP * (i + j) if not i * j else 0 for j in range(len(second) + 1)] for i in range(len(first) + 1)]
    for i, (_, a) in enumerate(first, 1):
        for j, (_, b) in enumerate(second, 1):
            cost[i][j] = min(cost[i - 1][j] + GAP, cost[i][j - 1] + GAP, cost[i - 1][j - 1] + SWAP * (a != b))
    i, j, pairs = len(first), len(second), []
    while i and j:
        same = first[i - 1][1] == second[j - 1][1]
        if same and cost[i][j] == cost[i - 1][j - 1]:
            i, j = i - 1, j - 1
            pairs.append((first[i][0], second[j][0]))
        elif cost[i][j] == cost[i - 1][j] + GAP:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def _ordered(shapes: Shapes) -> list[tuple[str, tuple]]:
    """In order, but the entries of one layer by name: the frameworks list weight, bias and statistics differently."""
    layers: dict[str, list] = {}
    for name in shapes:
        layers.setdefault(name.rpartition(".")[0], []).append((name, shapes[name]))
    return [entry for entries in layers.values() for entry in sorted(entries)]


def _parts(path: str) -> list[str]:
    return path.split(".") if path else []


def _without_common_end(here: str, there: str) -> tuple[str, str]:
    a, b = _parts(here), _parts(there)
    while a and b and a[-1] == b[-1]:
        a.pop(), b.pop()
    return ".".join(a), ".".join(b)


def _starred(path: str) -> str:
    """The path with its numbers as stars."""
    return ".".join("*" if part.isdigit() else part for part in _parts(path))


def renamed_state(state: Iterable[tuple], names: Mapping[str, str]) -> dict:
    """Entries under the other side's names; a name that two entries would get is an error."""
    found = {}
    for name, value in state:
        other = renamed(name, names)
        if other in found:
            raise ValueError(f"the map gives two entries the name {other!r}, one of them {name!r}")
        found[other] = value
    return found
