"""Compares the twins as text: pure functions over source code, so no framework is ever imported.

Two twin files must be the same text once Jittor's words for `forward` and `torch_models` are put into PyTorch's;
`compare_texts` sees to that. Where a file is excused from it, what is left to compare is its `Outline` (public names, signatures,
attributes set in constructors). Every difference is a `Violation` whose `where` names the place: "nn/layers.py",
"nn/layers.py:Linear" or "nn/layers.py:Linear.forward".
"""
import ast
import copy
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

FRAMEWORKS = {"torch", "torchvision", "torchaudio", "transformers", "peft", "accelerate", "timm",
              "safetensors.torch", "jittor", "jittor_utils", "jtorch"}
JITTOR_SIDE = {"jittor", "jittor_utils", "jtorch"}
WORDS = {"execute": "forward", "jt_models": "torch_models"}     # of the Jittor twin, and of the PyTorch twin


class Violation(NamedTuple):
    where: str
    what: str


class Import(NamedTuple):
    module: str
    line: int
    top_level: bool     # runs when the file is imported


@dataclass
class Class:
    methods: dict[str, str] = field(default_factory=dict)       # public name and __init__ -> signature
    attributes: list[str] = field(default_factory=list)         # in the order __init__ first sets them
    fields: list[str] = field(default_factory=list)             # class-level "name" or "name = default"


@dataclass
class Outline:
    names: set[str] = field(default_factory=set)                # everything public at the top level
    functions: dict[str, str] = field(default_factory=dict)
    classes: dict[str, Class] = field(default_factory=dict)
    imported: set[str] = field(default_factory=set)             # not public, but may stand for a layer


@functools.cache
def parsed(source: str) -> ast.Module:
    """The tree of a file, which many checks look at and none may change."""
    return ast.parse(source)


@functools.cache
def nodes(source: str) -> tuple[ast.AST, ...]:
    """Every node of the file's tree."""
    return tuple(ast.walk(parsed(source)))


def dotted(node: ast.expr) -> str:
    """"a.b" for a name in a module; ".b" for an attribute of anything else; "" for what is neither."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@functools.cache
def imports(source: str) -> tuple[Import, ...]:
    """Every import in the file, including inside functions and import_module("literal") calls."""
    return tuple(_imports(parsed(source), True))


def _imports(node: ast.AST, top_level: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, top_level) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and not child.level:
            yield from (Import(f"{child.module}.{alias.name}", child.lineno, top_level)
                        for alias in child.names)
        elif isinstance(child, ast.Call) and child.args and isinstance(child.args[0], ast.Constant):
            if dotted(child.func).split(".")[-1] in ("import_module", "__import__"):
                yield Import(str(child.args[0].value), child.lineno, top_level)
        inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from _imports(child, top_level and not inside)


def _reaches(module: str, roots: set[str]) -> bool:
    return any(module == root or module.startswith(root + ".") for root in roots)


def forbidden_imports(path: str, source: str) -> list[Violation]:
    """Imports that the file's package may not make.

    jittwin: no framework and neither twin. jt_models: Jittor only through jt_models.boot. torch_models: no
    Jittor. parity: no framework and neither twin while a file is being imported; inside functions it may.
    """
    package = path.split("/")[0]
    banned = {"jittwin": FRAMEWORKS | {"jt_models", "torch_models", "parity"},
              "jt_models": FRAMEWORKS | {"torch_models", "parity"},
              "torch_models": JITTOR_SIDE | {"jt_models", "parity"},
              "parity": FRAMEWORKS | {"jt_models", "torch_models"}}[package]
    return [Violation(path, f"line {found.line} imports {found.module}") for found in imports(source)
            if _reaches(found.module, banned) and (found.top_level or package != "parity")]


def signature(function: ast.FunctionDef) -> str:
    """Parameter names, kinds, order and defaults, without annotations."""
    bare = copy.deepcopy(function.args)
    for node in ast.walk(bare):
        if isinstance(node, ast.arg):
            node.annotation = None
    return f"({ast.unparse(bare)})"


def _targets(node: ast.AST) -> list[ast.expr]:
    """What an assignment assigns to, tuples taken apart."""
    if isinstance(node, ast.AnnAssign):
        return [node.target]
    flat = []
    for target in node.targets if isinstance(node, ast.Assign) else []:
        flat += target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
    return flat


def constructor_attributes(function: ast.FunctionDef) -> list[str]:
    """Names set on self, in order of first appearance.

    Set by self.x = …, self.register_buffer("x", …) and its kin, or setattr(self, "x", …).
    """
    owner = function.args.args[0].arg
    found = []
    nodes = [node for node in ast.walk(function) if hasattr(node, "lineno")]
    for node in sorted(nodes, key=lambda n: (n.lineno, n.col_offset)):
        for target in _targets(node):
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == owner:
                found.append(target.attr)
        if isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func)
            named = {"setattr": 1, f"{owner}.register_buffer": 0, f"{owner}.register_parameter": 0,
                     f"{owner}.add_module": 0}
            if called in named and (called != "setattr" or ast.unparse(node.args[0]) == owner):
                name = node.args[named[called]]
                found.append(name.value if isinstance(name, ast.Constant) else ast.unparse(name))
    return list(dict.fromkeys(name for name in found if not name.startswith("_")))


def _class_outline(node: ast.ClassDef) -> Class:
    outline = Class()
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and (item.name == "__init__" or not item.name.startswith("_")):
            outline.methods[item.name] = signature(item)
            if item.name == "__init__":
                outline.attributes = constructor_attributes(item)
        for target in _targets(item):
            value = f" = {ast.unparse(item.value)}" if item.value else ""
            outline.fields.append(ast.unparse(target) + value)
    return outline


def outline(source: str) -> Outline:
    """The public surface of a file. Imported names are not part of it."""
    result = Outline()
    for node in parsed(source).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            result.functions[node.name] = signature(node)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            result.classes[node.name] = _class_outline(node)
        elif isinstance(node, ast.ImportFrom):
            result.imported.update(alias.asname or alias.name for alias in node.names)
        result.names.update(name for target in _targets(node) if isinstance(target, ast.Name)
                            for name in [target.id] if not name.startswith("_"))
    result.names |= set(result.functions) | set(result.classes)
    return result


def compare_files(jittor_files: set[str], torch_files: set[str]) -> list[Violation]:
    """Files that only one twin has; paths are relative to the package."""
    return ([Violation(path, "only in jt_models") for path in sorted(jittor_files - torch_files)]
            + [Violation(path, "only in torch_models") for path in sorted(torch_files - jittor_files)])


def translated(jittor_source: str) -> str:
    """The text that the PyTorch twin of this file has where nothing excuses it."""
    return re.sub(rf"\b({'|'.join(WORDS)})\b", lambda found: WORDS[found[0]], jittor_source)


def compare_texts(path: str, jittor_source: str, torch_source: str) -> list[Violation]:
    """One violation, with the first line that differs, where two versions of a file are not the same text."""
    lines = zip_longest(translated(jittor_source).splitlines(), torch_source.splitlines())
    return [Violation(path, f"line {number} is {ours!r} in jt_models, {theirs!r} in torch_models")
            for number, (ours, theirs) in enumerate(lines, 1) if ours != theirs][:1]


def _compare_class(where: str, ours: Class, theirs: Class, is_layer: bool, wraps: bool) -> Iterator[Violation]:
    if "forward" in ours.methods:
        yield Violation(where, "jt_models defines forward; Jittor calls execute")
    if "execute" in theirs.methods:
        yield Violation(where, "torch_models defines execute; PyTorch calls forward")
    jittor = {name.replace("execute", "forward"): text for name, text in ours.methods.items()}
    for name in sorted(jittor.keys() ^ theirs.methods.keys()):
        # A layer may inherit from the framework in one twin, and be written out in the other.
        if not (is_layer or wraps):
            side = "jt_models" if name in jittor else "torch_models"
            yield Violation(f"{where}.{name}", f"method only in {side}")
    for name in sorted(jittor.keys() & theirs.methods.keys()):
        if jittor[name] != theirs.methods[name]:
            yield Violation(f"{where}.{name}",
                            f"jt_models has {jittor[name]}, torch_models {theirs.methods[name]}")
    both_construct = "__init__" in jittor and "__init__" in theirs.methods
    if wraps:
        return
    if ours.attributes != theirs.attributes and (both_construct or not is_layer):
        yield Violation(where, f"attributes {ours.attributes} in jt_models, "
                               f"{theirs.attributes} in torch_models")
    if ours.fields != theirs.fields and not is_layer:
        yield Violation(where, f"fields {ours.fields} in jt_models, {theirs.fields} in torch_models")


def absorbs(path: str) -> bool:
    """Whether this file is where differences between the frameworks are absorbed."""
    return path.startswith("nn/") or path == "backend.py"


def compare(path: str, jittor_source: str, torch_source: str, wraps: bool = False) -> list[Violation]:
    """Differences between the outlines of the two versions of one file; `path` is relative to the package.

    Under nn/ and in backend.py, where differences between the frameworks are absorbed, a public name may be a
    function in one twin and an alias of the framework's own in the other, and helper methods may differ.
    wraps: the PyTorch twin wraps a library's network. The parts that the Jittor twin writes out are its own then, and
    so is what either stores; what the PyTorch twin offers the Jittor twin offers too, with the same signatures.
    """
    ours, theirs = outline(jittor_source), outline(torch_source)
    is_layer = absorbs(path)
    if is_layer:
        ours.names |= ours.imported & theirs.names
        theirs.names |= theirs.imported & ours.names
    found = [Violation(f"{path}:{name}", "only in " + ("jt_models" if name in ours.names else "torch_models"))
             for name in sorted(theirs.names - ours.names if wraps else ours.names ^ theirs.names)]
    for name in sorted(ours.functions.keys() & theirs.functions.keys()):
        if ours.functions[name] != theirs.functions[name]:
            found.append(Violation(f"{path}:{name}", f"jt_models has {ours.functions[name]}, "
                                                     f"torch_models {theirs.functions[name]}"))
    for name in sorted(ours.classes.keys() & theirs.classes.keys()):
        found += _compare_class(f"{path}:{name}", ours.classes[name], theirs.classes[name], is_layer, wraps)
    if not is_layer:
        kinds = ours.functions.keys() ^ theirs.functions.keys() | ours.classes.keys() ^ theirs.classes.keys()
        found += [Violation(f"{path}:{name}", "is of another kind in the other twin")
                  for name in sorted(kinds & ours.names & theirs.names)]
    return found


def unexplained(violations: list[Violation], allowed: dict[str, str]) -> tuple[list[Violation], list[str]]:
    """Violations that `allowed` (where -> reason) does not excuse; its stale or unexplained entries."""
    seen = {violation.where for violation in violations}
    return ([violation for violation in violations if violation.where not in allowed],
            [where for where, reason in allowed.items() if where not in seen or not reason.strip()])
