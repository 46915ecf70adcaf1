"""House rules a program can check: sizes, forbidden words and calls, docstrings.

Each check is shown to be able to fail.
"""
import ast
import re
from pathlib import Path

import pytest
from mirror import dotted, nodes, parsed

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jittwin", "jt_models", "torch_models", "parity")
LONGEST_FUNCTION = 80       # lines
LONGEST_FILE = 400
LONGEST_LINE = 120

# Spelled so that this file does not contain them.
FORBIDDEN_WORDS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|\bfor n" r"ow\b", re.IGNORECASE)
MACHINE_PATH = re.compile(r"""(?<![\w.\-/}*])/(work|root|home|Users|tmp|mnt)/""")


def is_test(path: str) -> bool:
    return path.startswith("tests/")


def sources() -> dict[str, str]:
    """Every Python file of the project, by its path from the root."""
    folders = (*PACKAGES, "scripts", "tests")
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(files)}


def texts() -> dict[str, str]:
    """The files that are not Python and that people read or run."""
    files = [ROOT / "Makefile", ROOT / ".ci/run", ROOT / "requirements.txt", *ROOT.glob("*.md"),
             *(ROOT / "scripts").glob("*.sh")]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in files if path.exists()}


def too_long(path: str, source: str) -> list[str]:
    """Files, functions and lines over the limits, which tests need not keep."""
    if is_test(path):
        return []
    lines = source.splitlines()
    found = [f"{path}:{n} is {len(line)} characters wide"
             for n, line in enumerate(lines, 1) if len(line) > LONGEST_LINE]
    if len(lines) > LONGEST_FILE:
        found.append(f"{path} has {len(lines)} lines")
    for node in nodes(source):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            if length > LONGEST_FUNCTION:
                found.append(f"{path}:{node.lineno} {node.name} has {length} lines")
    return found


def forbidden_text(path: str, text: str) -> list[str]:
    """Unfinished work and paths that exist on one machine only."""
    return [f"{path}:{number} {found[0]!r}" for number, line in enumerate(text.splitlines(), 1)
            for pattern in (FORBIDDEN_WORDS, MACHINE_PATH) if (found := pattern.search(line))]


def unsafe_calls(path: str, source: str) -> list[str]:
    """Calls that execute what a file contains, and the matrix square root that FID must not use.

    Reading a pickle runs the code in it; jt.load does so for .pkl and .pth alike, and jt.save breaks a later
    torch.load. scipy.linalg.sqrtm loses digits on the nearly singular covariances of small sets.
    """
    found = []
    for node in nodes(source):
        if isinstance(node, ast.ImportFrom) and "sqrtm" in [alias.name for alias in node.names]:
            found.append(f"{path}:{node.lineno} sqrtm")
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg in ("allow_pickle", "weights_only")}
        if name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec", "os.system",
                    "jt.load", "jt.save", "jittor.load", "jittor.save") or name.split(".")[-1] == "sqrtm":
            found.append(f"{path}:{node.lineno} {name}")
        if keywords.get("allow_pickle", "False") != "False":
            found.append(f"{path}:{node.lineno} {name}(allow_pickle)")
        if name == "torch.load" and keywords.get("weights_only") != "True":
            found.append(f"{path}:{node.lineno} torch.load without weights_only=True")
    return found


def missing_docstrings(path: str, source: str) -> list[str]:
    """Modules of the packages, and public classes of jittwin, without one."""
    package = path.split("/")[0]
    if package not in PACKAGES or not source.strip():
        return []
    tree = parsed(source)
    found = [] if ast.get_docstring(tree) else [f"{path}: the module"]
    if package == "jittwin":
        classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
        found += [f"{path}:{n.lineno} class {n.name}" for n in classes if not ast.get_docstring(n)]
    return found


@pytest.mark.parametrize("check", [too_long, missing_docstrings])
def test_python_files(check):
    found = [line for path, source in sources().items() for line in check(path, source)]
    assert not found, "\n".join(found)


def test_no_unfinished_work_and_no_machine_paths():
    found = [line for path, text in {**sources(), **texts()}.items() for line in forbidden_text(path, text)]
    assert not found, "\n".join(found)


def test_no_unsafe_calls_outside_tests():
    shipped = {path: source for path, source in sources().items() if not is_test(path)}
    found = [line for path, source in shipped.items() for line in unsafe_calls(path, source)]
    assert not found, "\n".join(found)


# ---- the checks can fail ------------------------------------------------------------

@pytest.mark.parametrize("source", [
    "def f():\n" + "    x = 1\n" * LONGEST_FUNCTION, "x = 1\n" * (LONGEST_FILE + 1),
    "x = '" + "y" * LONGEST_LINE + "'"])
def test_long_code_is_found(source):
    assert too_long("jittwin/a.py", source)


@pytest.mark.parametrize("text", ["# to" "do: later", "x = 1  # FIX" "ME", "good enough for n" "ow",
                                  "open('/wo" "rk/a')", "see /ho" "me/user/x", "cp a /tm" "p/b"])
def test_forbidden_text_is_found(text):
    assert forbidden_text("a.py", text)


@pytest.mark.parametrize("text", ["~/.cache/x", "https://a.org/home/x", "{root}/wo" "rk/x", "a/home/b"])
def test_ordinary_paths_are_not_reported(text):
    assert not forbidden_text("a.py", text)


@pytest.mark.parametrize("source", [
    "pickle.load(f)", "pickle.loads(b)", "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=flag)",
    "torch.load(f)", "torch.load(f, weights_only=False)", "jt.load(f)", "jt.save(x, f)",
    "scipy.linalg.sqrtm(a)", "from scipy.linalg import sqrtm", "eval(text)", "exec(text)"])
def test_an_unsafe_call_is_found(source):
    assert unsafe_calls("jittwin/a.py", source)


@pytest.mark.parametrize("source", [
    "torch.load(f, weights_only=True)", "np.load(f)", "np.load(f, allow_pickle=False)", "model.eval()",
    "class Safe(pickle.Unpickler):\n    pass"])
def test_a_safe_call_is_not_reported(source):
    assert not unsafe_calls("jittwin/a.py", source)


def test_a_missing_docstring_is_found():
    assert missing_docstrings("jittwin/a.py", "x = 1") == ["jittwin/a.py: the module"]
    assert missing_docstrings("jittwin/a.py", '"""A."""\nclass B:\n    pass') == ["jittwin/a.py:2 class B"]
    assert not missing_docstrings("jittwin/a.py", '"""A."""\nclass _B:\n    pass')
    assert not missing_docstrings("jittwin/a.py", "")


def test_every_source_folder_is_a_package():
    """setup.py leaves a folder without __init__.py out, and the installed command then misses it."""
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    bare = [str(f.relative_to(ROOT)) for f in sorted(folders) if not (f / "__init__.py").exists()]
    assert not bare
