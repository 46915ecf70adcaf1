"""`make setup`'s search for an interpreter, and the test runner's bookkeeping. Nothing is installed here."""
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("sh", "ls", "tr", "cat", "cksum", "dirname", "chmod", "mkdir", "g++")

# Answers setup.sh's probe with $ANSWER, records `-m venv`, and pretends to be pip.
INTERPRETER = """#!/bin/sh
case "$1 $2" in
"-m venv") mkdir -p "$4/bin"; cat "$0" > "$4/bin/python"; chmod +x "$4/bin/python"; echo "$0" > "$4/made-by";;
"-m pip") echo "$*" >> pip-calls; exit ${PIP_STATUS:-0};;
"-c import"*) ;;
"-c "*) echo "%s";;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with only what setup.sh needs, and an empty PATH folder `bin` with the tools it calls."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "bin").mkdir()
    for name in ("scripts/setup.sh", "requirements.txt", "setup.py"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    for tool in TOOLS:
        found = subprocess.run(["which", tool], capture_output=True, text=True).stdout.strip()
        (tmp_path / "bin" / tool).symlink_to(found or "/bin/true")
    # The search also looks in the system's folders; the tests must not depend on what lies there.
    script = tmp_path / "scripts/setup.sh"
    script.write_text(script.read_text().replace("/usr/local/bin /usr/bin /bin", "/nowhere"))
    return tmp_path


def add_interpreter(folder: Path, name: str, answer: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(INTERPRETER % answer.replace("SELF", str(path)))
    path.chmod(0o755)
    return path


def setup(checkout: Path, **environment) -> subprocess.CompletedProcess:
    env = {"PATH": str(checkout / "bin"), "HOME": str(checkout / "home"), **environment}
    return subprocess.run(["sh", "scripts/setup.sh"], cwd=checkout, env=env, capture_output=True, text=True)


def made_by(checkout: Path) -> str:
    return (checkout / ".venv/made-by").read_text().strip()


def test_python_311_is_preferred_to_312(checkout):
    add_interpreter(checkout / "bin", "python3.12", "ok python3.12 SELF")
    wanted = add_interpreter(checkout / "home/.pyenv/versions/3.11.7/bin", "python3.11", "ok python3.11 SELF")
    assert setup(checkout).returncode == 0
    assert made_by(checkout) == str(wanted)


@pytest.mark.parametrize("folder", ["home/.pyenv/versions/3.12.1/bin",
                                    "home/.local/share/uv/python/cpython-3.12.4-linux-x86_64-gnu/bin"])
def test_interpreters_outside_path_are_found_past_a_shim_that_fails(checkout, folder):
    shim = add_interpreter(checkout / "bin", "python3.12", "unused")
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2\nexit 127\n")
    wanted = add_interpreter(checkout / folder, "python3.12", "ok python3.12 SELF")
    assert setup(checkout).returncode == 0
    assert made_by(checkout) == str(wanted)


def test_pyenv_root_is_searched(checkout):
    wanted = add_interpreter(checkout / "pyenvs/versions/3.11.2/bin", "python3.11", "ok python3.11 SELF")
    assert setup(checkout, PYENV_ROOT=str(checkout / "pyenvs")).returncode == 0
    assert made_by(checkout) == str(wanted)


def test_no_usable_python_gives_one_line(checkout):
    add_interpreter(checkout / "bin", "python3", "is Python 3.13")
    done = setup(checkout)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "Python 3.11 or 3.12 was not found" in done.stderr and "PYTHON=" in done.stderr


def test_a_near_miss_is_named_with_its_fix(checkout):
    add_interpreter(checkout / "bin", "python3.11", "has no header Python.h (apt-get install python3.11-dev)")
    done = setup(checkout)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "bin/python3.11 has no header Python.h" in done.stderr and "python3.11-dev" in done.stderr


def test_a_miss_does_not_hide_a_later_usable_one(checkout):
    add_interpreter(checkout / "bin", "python3.11", "cannot create virtual environments")
    wanted = add_interpreter(checkout / "bin", "python3.12", "ok python3.12 SELF")
    assert setup(checkout).returncode == 0
    assert made_by(checkout) == str(wanted)


def test_python_names_the_interpreter(checkout):
    add_interpreter(checkout / "bin", "python3.11", "ok python3.11 SELF")
    wanted = add_interpreter(checkout / "my place", "python", "ok python3.12 SELF")
    refused = setup(checkout, PYTHON="none-such")
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1 and "none-such" in refused.stderr
    assert setup(checkout, PYTHON=str(wanted)).returncode == 0
    assert made_by(checkout) == str(wanted)


def test_a_missing_compiler_gives_one_line(checkout):
    add_interpreter(checkout / "bin", "python3.11", "ok python3.11 SELF")
    (checkout / "bin/g++").unlink()
    done = setup(checkout)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "apt-get install g++" in done.stderr
    assert not (checkout / ".venv").exists()


def test_the_second_run_does_nothing_until_a_list_changes(checkout):
    add_interpreter(checkout / "bin", "python3.11", "ok python3.11 SELF")
    assert setup(checkout).returncode == 0
    calls = (checkout / "pip-calls").read_text().splitlines()
    assert [c for c in calls if "-r requirements.txt" in c] and [c for c in calls if "--no-deps" in c]
    again = setup(checkout)
    assert (again.returncode, again.stdout) == (0, "")
    assert (checkout / "pip-calls").read_text().splitlines() == calls
    (checkout / "setup.py").write_text("changed")
    assert setup(checkout).returncode == 0
    assert len((checkout / "pip-calls").read_text().splitlines()) == 2 * len(calls)


def test_an_interrupted_install_is_taken_up_again(checkout):
    add_interpreter(checkout / "bin", "python3.11", "ok python3.11 SELF")
    assert setup(checkout, PIP_STATUS="1").returncode == 1
    assert "done" in setup(checkout).stdout


# ---- scripts/run_tests.py ------------------------------------------------------------

@pytest.fixture(scope="module")
def run_tests():
    spec = importlib.util.spec_from_file_location("run_tests", ROOT / "scripts/run_tests.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("body, counts", [
    ("import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n@pytest.mark.skip\ndef test_c(): pass\n",
     (1, 1, 1)),
    ("import nothing_of_the_kind\n", (0, 1, 0)),
    ("import os\ndef test_a(): os.abort()\n", (0, 1, 0)),
    ("def not_a_test(): pass\n", (0, 1, 0)),
])
def test_a_group_is_counted(run_tests, tmp_path, body, counts, capfd):
    (tmp_path / "test_group.py").write_text(body)
    found, printed = run_tests.run_group("some", [str(tmp_path)], tmp_path / "report.xml")
    assert found == counts and printed


def test_a_group_that_hangs_is_one_failure(run_tests, tmp_path, capfd):
    (tmp_path / "test_group.py").write_text("import time\ndef test_a(): time.sleep(60)\n")
    found, printed = run_tests.run_group("some", [str(tmp_path)], tmp_path / "report.xml", limit=1.5)
    assert found == (0, 1, 0) and "was ended after 2 s" in printed


def test_counts_add_up_and_read_well(run_tests):
    assert str(run_tests.Counts(3, 0, 1) + run_tests.Counts(2, 1, 0)) == "5 passed, 1 failed, 1 skipped"


def test_folders_without_tests_are_left_out(run_tests, tmp_path):
    (tmp_path / "tests/mirror").mkdir(parents=True)
    (tmp_path / "tests/mirror/test_a.py").write_text("")
    (tmp_path / "tests/neutral").mkdir()
    assert run_tests.test_folders("neutral", tmp_path) == ["tests/mirror"]
    assert run_tests.test_folders("torch", tmp_path) == []


def test_groups_run_side_by_side_and_every_failure_counts(run_tests, tmp_path, monkeypatch, capsys):
    planned = {}
    for name, body in (("torch", "def test_a(): pass"), ("jittor", "def test_a(): assert 0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"test_{name}.py").write_text(body)
        planned[name] = [str(tmp_path / name)]
    monkeypatch.setattr(run_tests, "prepare_jittor", lambda: (run_tests.Counts(failed=1), "no compiler"))
    assert run_tests.run_all(planned, tmp_path) == (1, 2, 0)
    shown = capsys.readouterr().out
    assert "== torch: 1 passed, 0 failed" in shown and shown.endswith("no compiler")


def test_an_unknown_group_is_refused():
    done = subprocess.run([sys.executable, ROOT / "scripts/run_tests.py", "tourch"], capture_output=True,
                          text=True)
    assert done.returncode == 2 and "unknown group tourch" in done.stderr
