"""Draws the rooms of a package from its imports, as text: no module is imported.

A room is a folder of a package or a module at its top. A floor is a set of rooms; rooms import their own floor and
those below it.
"""
import ast
from collections.abc import Container, Mapping, Sequence

from mirror import imports, nodes

Rooms = dict[str, set[str]]     # room -> rooms that it imports


def room_of(path: str) -> str:
    """"jittwin/data/synthetic/rated.py" -> "data/synthetic", "jittwin/atomic.py" -> "atomic"."""
    parts = path.removesuffix(".py").split("/")[1:]
    return "/".join(parts[:-1]) or parts[0]


def module_path(module: str, paths: Container[str]) -> str | None:
    """The file that "package.module.name" or "package.module" names; None where it is none of `paths`."""
    parts = module.split(".")
    while parts:
        for candidate in ("/".join(parts) + ".py", "/".join(parts) + "/__init__.py"):
            if candidate in paths:
                return candidate
        parts.pop()
    return None


def rooms(sources: Mapping[str, str]) -> Rooms:
    """The rooms of one package, given {path: source}, with what each imports, inside functions too."""
    found: Rooms = {room_of(path): set() for path in sources}
    for path, source in sources.items():
        for imported in imports(source):
            target = module_path(imported.module, sources)
            if target and room_of(target) != room_of(path):
                found[room_of(path)].add(room_of(target))
    return found


def circles(graph: Rooms) -> list[list[str]]:
    """Circles of rooms, each as the rooms that it goes through; none twice."""
    found, done = [], set()

    def visit(room: str, trail: list[str]) -> None:
        if room in trail:
            found.append(trail[trail.index(room):])
        elif room not in done:
            for other in sorted(graph[room]):
                visit(other, [*trail, room])
            done.add(room)

    for room in sorted(graph):
        visit(room, [])
    return found


def arrows_up(graph: Rooms, floors: Sequence[Sequence[str]]) -> list[str]:
    """Imports of a higher floor, and rooms that stand on no floor, or floors that name a room there is not."""
    level = {room: number for number, floor in enumerate(floors) for room in floor}
    found = [f"{room} stands on no floor" for room in sorted(graph.keys() - level.keys())]
    found += [f"there is no room {room}" for room in sorted(level.keys() - graph.keys())]
    return found + [f"{room} imports {other}, which is higher" for room in sorted(graph) for other in
                    sorted(graph[room]) if level.get(other, 0) > level.get(room, 0)]


def parses_arguments(source: str) -> bool:
    """Whether a file builds or reads command lines: it imports argparse, or adds arguments to a parser."""
    calls = (node.func.attr for node in nodes(source)
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))
    return any(found.module.split(".")[0] == "argparse" for found in imports(source)) or "add_argument" in calls
