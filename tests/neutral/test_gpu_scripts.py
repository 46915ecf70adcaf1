"""The scripts that prepare and check a CUDA machine, as far as no GPU is needed."""
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import cuda_jittor  # noqa: E402


@pytest.fixture
def sources(tmp_path):
    """Files of Jittor that hold the texts to be edited, and nothing else."""
    for name, changes in cuda_jittor.EDITS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{old};\n" * count for old, _, count in changes))
    return tmp_path


def test_sources_are_edited_once(sources):
    lines = cuda_jittor.edit(sources)
    assert len(lines) == 2 and all(line.endswith(": edited") for line in lines)
    header = (sources / "extern/cuda/inc/helper_cuda.h").read_text()
    assert header == "cudaComputeModeDefault;\n" * 3 + "1;\n"
    compiler = (sources / "compiler.py").read_text()
    assert "-std=c++17 -fPIC" in compiler and "c++14" not in compiler
    assert all(line.endswith("is edited already") for line in cuda_jittor.edit(sources))
    assert (sources / "compiler.py").read_text() == compiler


def test_other_sources_are_refused(sources):
    path = sources / "compiler.py"
    path.write_text("cc_flags += ' -std=c++14 '\n")
    with pytest.raises(SystemExit, match="this is not Jittor 1.3.11"):
        cuda_jittor.edit(sources)
    assert path.read_text() == "cc_flags += ' -std=c++14 '\n"


def test_a_toolkit_of_wheels_gets_the_names_that_jittor_looks_for(tmp_path):
    with pytest.raises(SystemExit, match="nvidia-cuda-nvcc"):
        cuda_jittor.link(tmp_path)
    for name in ("bin/nvcc", "lib/libcudart.so.13", "lib/libcurand.so.10"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for _ in range(2):
        assert cuda_jittor.link(tmp_path) == tmp_path / "bin/nvcc"
        assert (tmp_path / "lib64/libcudart.so").read_text() == "lib/libcudart.so.13"
        assert (tmp_path / "lib64/libcurand.so").read_text() == "lib/libcurand.so.10"


def test_packages_outside_a_virtual_environment_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    with pytest.raises(SystemExit, match="in no virtual environment"):
        cuda_jittor.package("json")
    with pytest.raises(SystemExit, match="no_such_package is not installed"):
        cuda_jittor.package("no_such_package")


def test_the_check_of_a_gpu_says_how_it_is_called(tmp_path):
    script = SCRIPTS / "gpu_check.sh"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    done = subprocess.run(["bash", script], capture_output=True, text=True)
    assert done.returncode != 0 and "usage: scripts/gpu_check.sh WHEELS [RESULTS]" in done.stderr
    done = subprocess.run(["bash", script, tmp_path / "none", tmp_path / "results"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == f"{tmp_path}/none: no such folder\n"
    assert not (tmp_path / "results").exists()
