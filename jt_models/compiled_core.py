"""Whether the compiled libraries of Jittor's core can be loaded, which is known before Jittor is imported."""
import hashlib
import json
import pathlib
import sys

from jittwin.atomic import write_file

LIBRARIES = "jittwin-libraries.json"      # in Jittor's folder for its core


def _libraries(cache: pathlib.Path) -> dict[str, list]:
    """Of every library of Jittor's core, by name: its size, and a hash of what it was made from."""
    found = {}
    for library in sorted([*cache.glob("*.so"), *cache.glob("custom_ops/*.so")]):
        key = pathlib.Path(f"{library}.key")
        made_from = hashlib.md5(key.read_bytes()).hexdigest() if key.exists() else ""
        found[str(library.relative_to(cache))] = [library.stat().st_size, made_from]
    return found


def note_libraries(cache: pathlib.Path) -> None:
    """Write down what has just worked, for `drop_unusable`."""
    write_file(cache / LIBRARIES, json.dumps({"place": str(cache), "libraries": _libraries(cache)}))


def drop_unusable(cache: pathlib.Path) -> None:
    """Make Jittor build libraries again that would end the process instead of an exception that could be caught.

    Loading a file that a full disk or a crash cut short kills it: such a file has another size than when it last
    worked, and was made from the same. In a folder that was copied or moved Jittor ends it with status 0.
    """
    try:
        known = json.loads((cache / LIBRARIES).read_text())
    except (OSError, ValueError):
        return
    now, moved = _libraries(cache), known["place"] != str(cache)
    damaged = [name for name, (size, made_from) in known["libraries"].items()
               if name not in now or now[name][0] != size and now[name][1] == made_from]
    if moved or damaged:
        why = f"was at {known['place']} before" if moved else f"is damaged ({', '.join(damaged)})"
        print(f"jittwin: {cache} {why}: Jittor's core is built again", file=sys.stderr, flush=True)
    for name in now if moved else damaged:
        for path in (cache / name, cache / f"{name}.key"):
            path.unlink(missing_ok=True)
