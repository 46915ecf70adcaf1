"""The example of the README, run as its reader runs it: in a project of their own, by their own pytest."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCALE = " / q.shape[-1] ** 0.5"


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What pytest prints in a folder that holds the example, and a copy of it with a fault."""
    project = tmp_path_factory.mktemp("project")
    for file in (HERE / "example").glob("*.py"):
        shutil.copy(file, project)
    port, test = (project / name for name in ("encoder_layer.py", "test_encoder_layer.py"))
    assert port.read_text().count(SCALE) == 1
    (project / "unscaled.py").write_text(port.read_text().replace(SCALE, ""))
    (project / "test_unscaled.py").write_text(
        test.read_text().replace("encoder_layer:", "unscaled:").replace("test_encoder_layer", "test_unscaled")
        .replace("(LAYER)", "(LAYER, levels=['L1', 'L3'])"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    environment["PYTHONPATH"] = os.fspath(ROOT)        # as installed, wherever these tests run
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--color=no"],
                          cwd=project, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_the_readme_shows_the_file_that_is_run():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert (HERE / "example" / "test_encoder_layer.py").read_text() in blocks


@pytest.mark.parametrize("level", ["L1", "L3", "L4"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_right_port_passes(output, level, mode):
    assert f"PASSED test_encoder_layer.py::test_encoder_layer[{level}-{mode}]" in output


def test_a_wrong_port_fails_with_the_culprit_and_the_explanation(output):
    assert "PASSED test_unscaled.py::test_unscaled[L1-train]" in output
    assert "FAILED test_unscaled.py::test_unscaled[L3-train]" in output
    assert "first divergence at self_attn; at fault: self_attn\n" in output
    assert "X-unscaled-attention explains it" in output
    assert "attention does not divide the scores by the root of the head's width; remedy" in output


def test_neither_framework_is_imported_where_the_tests_run():
    code = "import sys, parity, parity.testing, parity.pair; print({'torch', 'jittor'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"
