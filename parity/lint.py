"""Find the traps because of which a Jittor module saves, loads or trains something else than it seems to.

They are entries S1, S2 and S16 of the catalogue of Jittor's differences.
"""
from collections.abc import Iterator

from parity.workers.side import Side


def lint(side: Side, module) -> list[str]:
    """In the Jittor worker: one line per trap, with its path and the remedy."""
    from jt_models.boot import jt
    state = {id(value) for value in module.state_dict().values()}
    modules = {id(part) for part in module.modules()}
    found = []
    for path, part in side.parts(module).items():
        for name, value in vars(part).items():
            where = f"{path}.{name}" if path else name
            if not isinstance(value, jt.Var):
                found += _hidden(side, jt, where, value, modules, state)
            elif name.startswith("_") and value.requires_grad:
                found.append(f"{where}: a Var whose name begins with an underscore is neither saved nor trained "
                             "[S2]; rename it, or stop_grad() a constant")
            elif name in getattr(part, "buffer_names", ()) and value.requires_grad:
                found.append(f"{where}: a buffer that Jittor would train [S1]; stop_grad() it")
    return found


def _hidden(side: Side, jt, where: str, value, modules: set[int], state: set[int]) -> Iterator[str]:
    """Modules and trainable Vars that stand only in a plain list, tuple or dict, which Jittor does not search."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        place = f"{where}[{key!r}]"
        if isinstance(item, side.Module) and id(item) not in modules:
            yield f"{place}: a module in a plain {type(value).__name__} is neither saved nor trained [S16]; " \
                  "use ModuleList"
        elif isinstance(item, jt.Var) and item.requires_grad and id(item) not in state:
            yield f"{place}: a Var in a plain {type(value).__name__} is neither saved nor trained [S16]; " \
                  "make it an attribute"
        else:
            yield from _hidden(side, jt, place, item, modules, state)
