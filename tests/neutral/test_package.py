"""What a plain import costs: every command pays it before it does anything."""
import subprocess
import sys

import pytest

HEAVY = {"torch", "jittor", "transformers", "jt_models", "torch_models", "numpy", "PIL", "yaml", "tqdm"}


def loaded_by(code: str) -> set[str]:
    """Modules that `code` adds to a fresh interpreter."""
    script = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_import_jittwin_loads_nothing_else():
    assert loaded_by("import jittwin") == {"jittwin"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_command_line_answers_without_heavy_imports(arguments):
    loaded = loaded_by(f"from jittwin import cli\nassert cli.main({arguments!r}) == 0")
    assert not loaded & HEAVY and not any(name.startswith("jittwin.weights") for name in loaded)


@pytest.mark.parametrize("package", ["jt_models", "torch_models", "parity"])
def test_the_other_packages_load_nothing_until_a_module_is_asked_for(package):
    assert loaded_by(f"import {package}") == {package}
