"""Settings: dataclass defaults < preset < YAML file < --set key=value, every value checked.

A config is a frozen dataclass whose fields all have defaults. Fields of a nested dataclass have dotted
keys (`semantics.adam=torch`); if its class has PRESETS, `semantics=repaired` sets all its fields.
"""
import dataclasses
import os
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import yaml

from jittwin.errors import UserError, choose_from, did_you_mean, reason
from jittwin.text_files import read_text

Config = TypeVar("Config")

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True,
             "false": False, "no": False, "off": False, "0": False}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def resolve(config_class: type[Config], preset: str | None = None,
            yaml_path: str | os.PathLike | None = None, overrides: Iterable[str] = ()) -> Config:
    """The settings of a run.

    preset: a name of config_class.PRESETS (name -> dict of values), used if neither `--set preset=…` nor
    the file names one. overrides: "key=value" texts; the last of a key counts.
    UserError: unknown key or preset, wrong type, illegal value, unreadable file.
    """
    in_file = _read_yaml(yaml_path) if yaml_path else {}
    on_command_line = dict(_split(text) for text in overrides)
    where = f"{yaml_path}: preset" if in_file.get("preset") and "preset" not in on_command_line else "preset"
    preset = in_file.pop("preset", preset)
    preset = on_command_line.pop("preset", preset)
    values = {}
    for source, layer in (("preset", _preset(config_class, str(preset), where) if preset else {}),
                          (str(yaml_path), in_file), ("--set", on_command_line)):
        values.update(_checked(config_class, layer, source))
    try:
        return _replaced(config_class(), values)
    except ValueError as error:
        raise UserError(f"{yaml_path or 'settings'}: {error}") from error


def to_dict(config: Any) -> dict:
    """A config as nested dicts of plain values for YAML and JSON; tuples become lists."""
    def plain(value):
        if dataclasses.is_dataclass(value):
            return to_dict(value)
        return [plain(v) for v in value] if isinstance(value, tuple) else value
    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def flat(config: Any) -> dict[str, Any]:
    """The plain values of a config by dotted key."""
    return _flatten(to_dict(config))


def dump(config: Any) -> str:
    """YAML that `resolve` turns back into an equal config."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def convert(value: Any, kind: Any, where: str) -> Any:
    """Convert `value`, a text of the command line or a YAML value, to the type `kind`.

    kind: bool, int, float, str, Literal[...], tuple[...], or one of these | None. UserError, whose message begins with
    `where`: another type, or an illegal value.
    """
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None or isinstance(value, str) and value.lower() in ("none", "null", ""):
            return None
        return convert(value, next(a for a in arguments if a is not types.NoneType), where)
    if origin is typing.Literal:
        legal = {str(argument): argument for argument in arguments}
        if str(value) not in legal:
            raise UserError(f"{where}: {value!r} is not legal{choose_from(value, legal)}")
        return legal[str(value)]
    if origin is tuple:
        return _tuple(value, arguments, where)
    return _scalar(value, kind, where)


def _tuple(value: Any, kinds: tuple, where: str) -> tuple:
    if isinstance(value, str):
        inside = value.strip().strip("[]()")
        value = [part.strip(" '\"") for part in inside.split(",")] if inside else []
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{where}: expected a list such as a,b but got {value!r}")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
        raise UserError(f"{where}: expected {len(kinds)} values but got {len(value)}: {value!r}")
    return tuple(convert(item, kind, where) for item, kind in zip(value, kinds))


def _scalar(value: Any, kind: type, where: str) -> Any:
    accepted = {bool: (bool, str), int: (int, str), float: (int, float, str), str: (str,)}[kind]
    if isinstance(value, accepted) and (kind is bool or not isinstance(value, bool)):
        try:
            # YAML 1.1 reads 1e-4 as text, so text from YAML is parsed as well.
            return _BOOLEANS[str(value).lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            pass
    hint = " (quote it)" if kind is str else ""
    raise UserError(f"{where}: expected {_WORDS[kind]}{hint} but got {value!r}")


def _read_yaml(path: str | os.PathLike) -> dict:
    try:
        content = yaml.safe_load(read_text(path, "a YAML file with --config"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:      # ValueError: a date such as 2026-99-99
        raise UserError(f"{path}: not valid YAML: {reason(error)}") from error
    if not isinstance(content or {}, dict):
        raise UserError(f"{path}: expected 'key: value' lines but found a {type(content).__name__}")
    return content or {}


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text}: expected key=value, for example --set max_steps=100")
    return key.strip(), value.strip()


def _flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    leaves = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        leaves.update(_flatten(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return leaves


def _preset(config_class: type, name: Any, where: str) -> dict:
    """The values of a preset, given as a dict or as an instance of the class."""
    presets = getattr(config_class, "PRESETS", {})
    if name not in presets:
        raise UserError(f"{where}: unknown preset {name!r}{choose_from(name, presets)}")
    values = presets[name]
    return to_dict(values) if dataclasses.is_dataclass(values) else values


def _keys(config_class: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, type) of every field, nested dataclasses before their own fields."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        kind = hints[field.name]
        yield prefix + field.name, kind
        if dataclasses.is_dataclass(kind):
            yield from _keys(kind, f"{prefix}{field.name}.")


def _checked(config_class: type, layer: dict, source: str) -> dict[str, Any]:
    """One source of settings as typed values by dotted key, in the order of the fields."""
    layer, kinds = _flatten(layer), dict(_keys(config_class))
    for key in layer:
        if key not in kinds:
            raise UserError(f"{source}: unknown key '{key}'{did_you_mean(key, kinds)}: "
                            f"the keys are {', '.join(k for k in kinds if '.' not in k)}")
    values = {}
    for key, kind in kinds.items():
        if key not in layer:
            continue
        if dataclasses.is_dataclass(kind):
            chosen = {**flat(kind()), **_flatten(_preset(kind, layer[key], f"{source}: {key}"))}
            values.update(_checked(config_class, {f"{key}.{k}": v for k, v in chosen.items()}, source))
        else:
            values[key] = convert(layer[key], kind, f"{source}: {key}")
    return values


def _replaced(config: Config, values: dict[str, Any]) -> Config:
    """A copy of `config` with the values of these dotted keys; every nested object is built once, with all values."""
    own, nested = {}, {}
    for key, value in values.items():
        head, _, rest = key.partition(".")
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            own[head] = value
    own.update({name: _replaced(getattr(config, name), inner) for name, inner in nested.items()})
    return dataclasses.replace(config, **own)
