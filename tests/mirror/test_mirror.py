"""The rules of the house that keep the twins alike, checked on source text.

The second half makes the checker fail on each rule.
"""
import subprocess
import sys
from pathlib import Path

import pytest

from mirror import absorbs, compare, compare_files, compare_texts, forbidden_imports, imports, outline, unexplained

ROOT = Path(__file__).resolve().parents[2]
TWINS = ("jt_models", "torch_models")

# Each file that need not be the same text in both twins, and its reason; an entry that excuses nothing fails.
WRAPPED = "the PyTorch twin wraps transformers' network, whose parts are not written out in its file"
ABSORBED = "here the differences between the frameworks are absorbed, so that no other file needs to know them"
ALLOWED = {
    **{file: ABSORBED for file in ("backend.py", "nn/layers.py", "nn/lora.py", "nn/ops.py", "nn/optim.py",
                                      "nn/processes.py")},
    "boot.py": "prepares the environment for `import jittor`; PyTorch needs no such thing",
    "self_check.py": "looks whether Jittor, which compiles its kernels for every device, computes on this one",
    "compile_progress.py": "tells what Jittor compiles; PyTorch compiles nothing",
    "compiled_core.py": "whether Jittor's compiled core can be loaded",
    **{f"nn/kernels/{file}.py": "kernels written for Jittor where PyTorch ships a native one" for file in (
        "activation", "attention", "checkpoint", "conv", "depthwise", "dropout", "kernel", "lists", "lookup", "loss",
        "modulation", "norm", "pixels", "pool", "precision", "resample", "rows")},
    "nn/sockets.py": "gloo, which PyTorch uses, is slow where a process has one core; MPI, which Jittor uses, is not",
    "nn/kernels/functions.py": "functions of the PyTorch twin with gradients of their own, where Jittor has kernels",
    "backbones/segformer.py": WRAPPED,
    "backbones/siglip.py": WRAPPED,
    "backbones/clip.py": WRAPPED,
}
ALLOWED_IMPORTS = {
    "jt_models/boot.py": "the only place that imports Jittor",
}


def package_files(package: str) -> dict[str, str]:
    """Path relative to the package -> source. Empty files are package markers."""
    folder = ROOT / package
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*.py"))}


def test_the_twins_mirror_each_other():
    ours, theirs = (package_files(package) for package in TWINS)
    violations = compare_files(set(ours), set(theirs))
    for path in sorted(ours.keys() & theirs.keys()):
        violations += compare_texts(path, ours[path], theirs[path])
        violations += compare(path, ours[path], theirs[path], wraps=path in ALLOWED and not absorbs(path))
    open_ones, stale = unexplained(violations, ALLOWED)
    assert not open_ones, "\n".join(f"{where}: {what}" for where, what in open_ones)
    assert not stale, f"stale or unexplained entries in ALLOWED: {stale}"


def test_no_package_imports_what_it_may_not():
    violations = []
    for package in ("jittwin", *TWINS, "parity"):
        for path, source in package_files(package).items():
            violations += forbidden_imports(f"{package}/{path}", source)
    open_ones, stale = unexplained(violations, ALLOWED_IMPORTS)
    assert not open_ones, "\n".join(f"{where}: {what}" for where, what in open_ones)
    assert not stale, f"stale or unexplained entries in ALLOWED_IMPORTS: {stale}"


def test_importing_all_of_jittwin_loads_no_framework():
    """Not even through a third package, which the text alone cannot show."""
    modules = ["jittwin." + path.removesuffix(".py").removesuffix("__init__").replace("/", ".").rstrip(".")
               for path in package_files("jittwin")]
    code = (f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name.rstrip('.'))\n"
            "print(sorted({'torch', 'jittor', 'transformers', 'torchvision'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr or done.stdout


# ---- the checker can fail ------------------------------------------------------------

JITTOR = '''
from jt_models.boot import jt, nn
SIZES = (1, 2)
class Block(nn.Module):
    """A block."""
    def __init__(self, channels, groups=1, *, bias=True):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3)
        self.norm, self.act = nn.BatchNorm2d(channels), nn.ReLU()
        self._cache = None
    def execute(self, x, mask=None):
        return self.act(self.norm(self.conv(x)))
    def _helper(self): ...
def scale(x, factor: float = 2.0):
    return x * factor
'''
TORCH = (JITTOR.replace("from jt_models.boot import jt, nn", "from torch import nn")
         .replace("execute", "forward").replace("factor: float", "factor")
         .replace("self._cache = None", "self._other = 1").replace("_helper(self)", "_another(self, x)"))


def where(path, ours, theirs):
    return [violation.where for violation in compare(path, ours, theirs)]


def test_equal_twins_have_no_violation():
    assert compare("apf_gan/model.py", JITTOR, TORCH) == []


@pytest.mark.parametrize("old, new, place", [
    ("class Block", "class Other", "m.py:Block"),
    ("def scale", "def grow", "m.py:scale"),
    ("SIZES = (1, 2)", "WIDTHS = (1, 2)", "m.py:SIZES"),
    ("def scale(x, factor: float = 2.0):\n    return x * factor", "scale = nn.scale", "m.py:scale"),
    ("factor", "amount", "m.py:scale"),
    ("factor: float = 2.0", "factor: float = 3.0", "m.py:scale"),
    ("factor: float = 2.0", "factor", "m.py:scale"),
    ("groups=1", "groups=2", "m.py:Block.__init__"),
    ("channels, groups=1", "groups=1, channels=3", "m.py:Block.__init__"),
    ("groups=1, *, bias=True", "groups=1, bias=True", "m.py:Block.__init__"),
    ("self.conv =", "self.convolution =", "m.py:Block"),
    ("self.norm, self.act = nn.BatchNorm2d(channels), nn.ReLU()",
     "self.act, self.norm = nn.ReLU(), nn.BatchNorm2d(channels)", "m.py:Block"),
    ("self.act = nn", "self.act = self.extra = nn", "m.py:Block"),
    ("        self._cache", "        self.register_buffer('mean', 0)\n        self._cache", "m.py:Block"),
    ("        self._cache", "        setattr(self, f'up_{groups}', 0)\n        self._cache", "m.py:Block"),
    ("x, mask=None", "x", "m.py:Block.forward"),
    ("x, mask=None", "x, labels=None", "m.py:Block.forward"),
    ("def execute", "def run", "m.py:Block.forward"),
    ("def execute", "def forward", "m.py:Block"),
    ("    def _helper", "    def helper", "m.py:Block.helper"),
    ('    """A block."""', "    width: int = 3", "m.py:Block"),
])
def test_each_rule_can_fail(old, new, place):
    changed = JITTOR.replace(old, new)
    assert changed != JITTOR
    assert place in where("m.py", changed, TORCH)


def test_execute_in_the_torch_twin_is_a_violation():
    assert "m.py:Block" in where("m.py", JITTOR, TORCH.replace("def forward", "def execute"))


def test_layers_may_alias_and_inherit_but_not_change_a_signature():
    ours = ("class Linear(Module):\n    def __init__(self, a, b):\n        self.weight = a\n"
            "    def execute(self, x): ...\n")
    assert compare("nn/layers.py", ours, "Linear = nn.Linear\n") == []
    assert compare("nn/layers.py", ours, "from torch.nn import Linear\n") == []
    assert compare("nn/layers.py", ours, "class Linear(nn.Linear):\n    pass\n") == []
    assert where("model.py", ours, "Linear = nn.Linear\n") == ["model.py:Linear"]
    assert where("model.py", ours, "from torch.nn import Linear\n") == ["model.py:Linear"]
    assert where("model.py", ours, "class Linear(nn.Linear):\n    pass\n") != []
    assert where("nn/layers.py", ours, "") == ["nn/layers.py:Linear"]
    other = "class Linear(nn.Linear):\n    def __init__(self, a, c):\n        self.bias = a\n"
    assert where("nn/layers.py", ours, other) == ["nn/layers.py:Linear.__init__", "nn/layers.py:Linear"]


def test_equal_texts_differ_in_the_words_of_the_frameworks_alone():
    theirs = JITTOR.replace("execute", "forward").replace("jt_models", "torch_models")
    assert theirs != JITTOR and compare_texts("m.py", JITTOR, theirs) == []


@pytest.mark.parametrize("old, new, line", [
    ("    return x * factor", "    return factor * x", 15),       # what no outline shows
    ('"""A block."""', '"""Another block."""', 5),
    ("def scale(x", "# a comment\ndef scale(x", 14),
    ("    return x * factor\n", "", 15),
    ("execute", "executed", 11)])
def test_another_text_is_a_violation(old, new, line):
    assert JITTOR.count(old) == 1
    theirs = JITTOR.replace("execute", "forward").replace("jt_models", "torch_models")
    (found,) = compare_texts("m.py", JITTOR.replace(old, new), theirs)
    assert found.where == "m.py" and found.what.startswith(f"line {line} is ")


def test_a_twin_that_wraps_may_lack_parts_but_offers_nothing_of_its_own():
    """The entry of a wrapped file excuses its text and what is written out, not what its callers see."""
    theirs = ("class Block(Library):\n    def __init__(self, channels, groups=1, *, bias=True):\n"
              "        self.network = Library(channels)\n    def named_modules(self): ...\n"
              "    def forward(self, x, mask=None): ...\n")
    def places(text):
        return [violation.where for violation in compare("m.py", JITTOR, text, wraps=True)]
    assert places(theirs) == [] and where("m.py", JITTOR, theirs) != []
    assert places(theirs + "class Extra: ...\n") == ["m.py:Extra"]
    assert places(theirs.replace("groups=1", "groups=2")) == ["m.py:Block.__init__"]
    assert places(theirs.replace("mask=None", "mask")) == ["m.py:Block.forward"]
    assert places(theirs.replace("def forward", "def execute")) == ["m.py:Block"]


def test_a_file_in_one_twin_only_is_a_violation():
    found = compare_files({"a.py", "boot.py"}, {"a.py", "extra.py"})
    assert [v.where for v in found] == ["boot.py", "extra.py"]


def test_allowed_entries_must_excuse_something_and_say_why():
    found = compare_files({"boot.py"}, set())
    assert unexplained(found, {"boot.py": "why"}) == ([], [])
    assert unexplained(found, {}) == (found, [])
    assert unexplained(found, {"boot.py": " "}) == ([], ["boot.py"])
    assert unexplained([], {"boot.py": "why"}) == ([], ["boot.py"])


@pytest.mark.parametrize("path, source", [
    ("jittwin/a.py", "import torch"),
    ("jittwin/a.py", "import torch.nn.functional as F"),
    ("jittwin/a.py", "from torchvision import models"),
    ("jittwin/a.py", "from transformers import AutoModel"),
    ("jittwin/a.py", "def f():\n    import jittor as jt"),
    ("jittwin/a.py", "from safetensors.torch import load_file"),
    ("jittwin/a.py", "from safetensors import torch"),
    ("jittwin/a.py", "import importlib\nx = importlib.import_module('torch')"),
    ("jittwin/a.py", "x = __import__('peft')"),
    ("jittwin/a.py", "from jt_models import backend"),
    ("jt_models/nn/a.py", "import torch"),
    ("jt_models/nn/a.py", "import jittor as jt"),
    ("jt_models/nn/a.py", "try:\n    import transformers\nexcept ImportError:\n    pass"),
    ("torch_models/nn/a.py", "from jittor import nn"),
    ("torch_models/nn/a.py", "def f():\n    from jt_models.boot import jt"),
    ("parity/a.py", "import torch"),
    ("parity/a.py", "if True:\n    from jt_models.boot import jt"),
    ("parity/a.py", "class A:\n    import torch_models"),
])
def test_a_forbidden_import_is_found(path, source):
    assert [v.where for v in forbidden_imports(path, source)] == [path]


@pytest.mark.parametrize("path, source", [
    ("jittwin/a.py", "import numpy, safetensors\nfrom safetensors.numpy import load\nimport torchless"),
    ("jittwin/a.py", "import importlib\nx = importlib.import_module(f'{twin}.backend')"),
    ("jt_models/nn/a.py", "from jt_models.boot import jt, nn\nfrom jittwin.errors import UserError"),
    ("torch_models/nn/a.py", "import torch, transformers, peft"),
    ("parity/a.py", "def work():\n    import torch\n    from jt_models.boot import jt"),
])
def test_a_permitted_import_is_not_reported(path, source):
    assert forbidden_imports(path, source) == []


def test_imports_know_whether_they_run_at_import_time():
    found = imports("import a\nclass B:\n    import b\n    def f(self):\n        import c\n")
    assert [(i.module, i.top_level) for i in found] == [("a", True), ("b", True), ("c", False)]


def test_private_names_are_no_part_of_the_outline():
    assert outline("_A = 1\ndef _f(): ...\nclass _C: ...\nB = 2\n").names == {"B"}
