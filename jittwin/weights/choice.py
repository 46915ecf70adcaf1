"""Which network of a file is meant, and what a wrapper has put before the names of its arrays.

A checkpoint may hold several networks: as dictionaries under names, or in one dictionary whose names begin alike.
DataParallel, torch.compile, Lightning and others put a word before every name of the network that they wrap.
"""
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from jittwin.errors import choose_from
from jittwin.weights.arrays import WeightsError
from jittwin.weights.safe_pickle import Array, Inert, shown
from jittwin.weights.torch_file import Tensor

# Names under which training scripts store the weights in a larger dictionary, the most specific name first.
WRAPPERS = ("state_dict", "model_state_dict", "model", "params_ema", "params", "weights", "module", "net")
MOST_WORDS = 16         # that are left out before all names
NEVER_OWN = ("module", "_orig_mod", "_forward_module")
DEEPEST, MOST_NAMES = 4, 1 << 16    # dictionaries in one another that are searched for arrays, and names in them
Wrapper = Callable[[Iterable[str]], str]    # from all names to what a wrapper has put before them, "" for nothing
AVERAGED = "n_averaged"     # a counter that torch.optim.swa_utils.AveragedModel puts beside the names of its network


def state_of(content: Any, where: str, parts: Sequence[str] = (), part: str | None = None) -> tuple[Mapping, str]:
    """(the state dictionary in the content of a file, what `chosen` has still to choose of `part`).

    It is the content itself, or a dictionary that a script stored in it. parts: names of the state dictionaries of one
    network, which are joined. part: which network is meant, the name of a dictionary or the beginning of names.
    WeightsError: another content, several networks and no such `part`.
    """
    content = _entries(content)
    if isinstance(content, Inert) and content.is_network:
        raise _whole(where, "the file", content)
    if not isinstance(content, dict):
        kind = content.name if isinstance(content, Inert) else type(content).__name__
        raise WeightsError(f"{where}: holds {kind} instead of a dictionary of arrays")
    found = networks(content)
    if part in found:
        return found[part], ""
    if joined := {f"{name}.{key}": value for name in parts
                  for key, value in unwrapped(found.get(name, {}), where).items()}:
        return joined, part or ""
    known = [name for name in WRAPPERS if name in found]
    if len(found) > 1 and not known:
        if part:
            raise WeightsError(f"{where}: has no part {part!r}{choose_from(part, found)}")
        raise WeightsError(f"{where}: holds several state dictionaries ({', '.join(found)}); choose one with --part of "
                           "jittwin convert, or save one of them alone")
    if known[1:] and not part:
        tell(f"{where}: holds several networks, {', '.join(found)}; {known[0]} is read, and --part of jittwin convert "
             "chooses another")
    if found:
        state = found[(known or list(found))[0]]
        if part and len(found) > 1 and not _begin(state, part):
            raise WeightsError(f"{where}: has no part {part!r}{choose_from(part, found)}")
        return state, part or ""
    if whole := next((key for key, value in content.items() if isinstance(value, Inert) and value.is_network), None):
        raise _whole(where, f"its {shown(whole)}", content[whole])
    return content, part or ""


def _whole(where: str, what: str, network: Inert) -> WeightsError:
    return WeightsError(f"{where}: {what} is a whole network ({network.name}), stored with its program in place of its "
                        "arrays; save these where it was made: torch.save(model.state_dict(), 'NAME.pth')")


def networks(content: Mapping) -> dict[str, Mapping]:
    """The dictionaries of arrays in a dictionary, by name; those of an inner one as OUTER.INNER.

    Deeper dictionaries are looked into only if there are no arrays above them, because optimizers keep theirs deeper
    than networks.
    """
    level, arrays = {str(key): value for key, value in content.items()}, False
    for _ in range(DEEPEST):
        arrays = arrays or any(map(is_array, level.values()))
        level = {name: inner for name, value in level.items() if isinstance(inner := _entries(value), dict)}
        found = {name: inner for name, inner in level.items() if any(map(is_array, inner.values()))}
        # One dictionary may stand in several places, so a small file could ask for more names than fit in memory.
        if found or arrays or sum(map(len, level.values())) > MOST_NAMES:
            return found
        level = {f"{name}.{key}": value for name, inner in level.items() for key, value in inner.items()}
    return {}


def is_array(value: Any) -> bool:
    """Whether a value in a pickle is an array with a shape."""
    return isinstance(value, Tensor) or isinstance(value, Array) and hasattr(value.value, "dtype")


def chosen(keys: Iterable[str], where: str, keep: Callable[[str], bool], wrapper: Wrapper,
           part: str = "") -> dict[str, str]:
    """{name: key} of the arrays that `keep` accepts, by their names without what a wrapper has put before all of them.

    part: if it is not "", only keys that begin with it and a dot, without these. WeightsError: no such keys.
    """
    keys = list(keys)
    if part and not (found := _begin(keys, part)):
        raise WeightsError(f"{where}: has no part {part!r}{choose_from(part, _firsts(keys))}")
    start = f"{part}." if part else ""
    names = {key.removeprefix(start): key for key in (found if part else keys)}
    if put := wrapper(names):
        names = {name.removeprefix(put): key for name, key in names.items() if name != AVERAGED}
    return {name: key for name, key in names.items() if keep(name)}


def no_wrapper(names: Iterable[str]) -> str:
    return ""


def told(where: str, own: Sequence[str] = ()) -> Wrapper:
    """A function that finds a wrapper's words as `prefix` does, and tells them."""
    def found(names: Iterable[str]) -> str:
        put = prefix(names, own)
        tell_wrapper(where, put)
        return put

    return found


def tell_wrapper(where: str, put: str) -> None:
    if put:
        tell(f"{where}: every name begins with {put!r}, which is left out")


def prefix(names: Iterable[str], own: Sequence[str] = ()) -> str:
    """What wrappers have put before every name, such as "module._orig_mod."; "" for nothing.

    own: words with which all names of the network itself may begin.
    """
    names, put = [name for name in names if name != AVERAGED], ""
    for _ in range(MOST_WORDS if names else 0):
        word, dot, _ = names[0].partition(".")
        if not dot or word in own or not all(name.startswith(word + dot) for name in names):
            break
        put += word + dot
        names = [name[len(word) + 1:] for name in names]
    return put


def unwrapped(state: Mapping, where: str) -> Mapping:
    """One of a network's state dictionaries without the words of DataParallel and torch.compile, which no network has
    itself."""
    put, names = "", [key for key in state if isinstance(key, str)]
    for _ in range(MOST_WORDS):
        word = next((word for word in NEVER_OWN if names and all(
            name.startswith(f"{put}{word}.") for name in names)), None)
        put += f"{word}." if word else ""
    tell_wrapper(where, put)
    return {key.removeprefix(put) if isinstance(key, str) else key: value for key, value in state.items()}


@cache      # a file may be opened several times
def tell(message: str) -> None:
    """Print a line on stderr, once."""
    print(message, file=sys.stderr)


def _entries(value: Any) -> Any:
    """A dictionary of another class as the dictionary that it extends."""
    return value.entries if isinstance(value, Inert) and value.entries else value


def _begin(keys: Iterable, part: str) -> list[str]:
    return [key for key in keys if isinstance(key, str) and key.startswith(f"{part}.")]


def _firsts(keys: Iterable) -> list[str]:
    """The words with which keys begin, if they are few."""
    return list(dict.fromkeys(str(key).partition(".")[0] for key in keys))[:20]
