"""`python -m parity check`: a run over real workers, what fails it, and what it leaves behind."""
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import pytest

from jittwin.errors import UserError
from parity import runner as check
from parity.__main__ import main
from parity.case import Case
from parity.cases import find as find_case
from parity.explain.finding import Explanation, Finding, explain_failures
from parity.faults import broken_copy, find
from parity.result import LEVELS, failure, row
from parity.workers.compare import Verdict
from parity.workers.oracle import Twins
from parity.workers.worker import ROOT

MODEL = "apf_gan.encoder"
LEVEL = ("--level", "L4")
MODES = find_case(MODEL).modes


def run(*words, env=None):
    return subprocess.run([sys.executable, "-m", "parity", "check", *map(str, words)], cwd=ROOT, capture_output=True,
                          text=True, env=env)


def copy_of_twin(folder, **added):
    """Another copy of the Jittor twin, with text added at the end of files: dots in keys stand for folders."""
    shutil.copytree(ROOT / "jt_models", folder / "jt_models", ignore=shutil.ignore_patterns("__pycache__"))
    for module, text in added.items():
        with open(folder / "jt_models" / f"{module.replace('__', '/')}.py", "a") as file:
            file.write(f"\n\n{text}\n")
    return folder


def test_the_twins_agree_and_every_form_is_written(tmp_path):
    files = {name: tmp_path / f"r.{name}" for name in ("json", "html", "junit", "markdown")}
    count = 1 + len(MODES)
    done = run(MODEL, "--level", "L0", *LEVEL, *(word for name, path in files.items() for word in (f"--{name}", path)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"pass: {count} of {count} comparisons passed, 1 model")
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        f"[1/{count}] environment L0", *(f"[{2 + k}/{count}] {MODEL} L4 {mode}" for k, mode in enumerate(MODES))]
    found = json.loads(files["json"].read_text())
    assert set(found) == {"verdict", "attestation", "cases"} and found["verdict"] == "pass"
    assert found["attestation"]["command"] == f"python -m parity check {MODEL} --tier ci --level L0 --level L4"
    assert [case["level"] for case in found["cases"]] == ["L0", *["L4"] * len(MODES)]
    for case in found["cases"][1:]:
        assert 0 < case["error"] <= case["detail"]["limit"] and case["noise"] > 0 and case["worst"]
    assert ElementTree.parse(files["junit"]).getroot().get("failures") == "0"
    assert "The twins agree" in files["html"].read_text() and f"| {MODEL} |" in files["markdown"].read_text()


def test_a_broken_twin_fails_says_where_and_leaves_what_reproduces_it(tmp_path):
    twin, bundle = broken_copy(find("encoder_layer_dropped_norm"), tmp_path / "twin"), tmp_path / "bundle"
    done = run(MODEL, "--level", "L3", "--twin", twin, "--bundle", bundle, "--json", tmp_path / "r.json")
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["verdict"] == "fail" and found["attestation"]["verdict"] == "pass"
    assert f"{MODEL} L3 {MODES[0]}: " in done.stdout and "is over its limit" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"fail: 0 of {len(MODES)}")
    [folder, *_] = bundle.iterdir()
    assert f"reproduced in {folder}" in done.stdout and "first divergence at" in done.stdout
    again = subprocess.run([sys.executable, folder / "repro.py", "--twin", twin], capture_output=True, text=True,
                           env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert again.returncode == 1 and "limit" in again.stdout, again.stderr


def test_a_worker_that_dies_is_a_row_and_the_run_goes_on(others, tmp_path):
    dies = "import os, sys\nprint('out of luck', file=sys.stderr)\nos.abort()"
    others.replace_jittor(copy_of_twin(tmp_path, apf_gan__encoder=dies))
    rows = check.run([MODEL], levels=["L0", "L4"], twins=others)
    assert [(r.level, r.mode, r.verdict) for r in rows] == [
        ("L0", "", "pass"), *(("L4", mode, "fail") for mode in MODES)]
    for r in rows[1:]:
        assert "the jittor worker ended by SIGABRT" in r.detail["reason"] and "out of luck" in r.detail["reason"]
        assert r.error == float("inf") and r.detail["size"] == "tiny"


def test_a_mistake_told_by_a_worker_is_a_row(tmp_path, others):
    told = ("def load(*_, **__):\n    raise UserError('5 keys are missing')\n\n\n"
            "Backend.load_numpy = load")
    before = others.torch.process.pid
    others.replace_jittor(copy_of_twin(tmp_path, backend=told))
    rows = check.run([MODEL], levels=["L4"], twins=others)
    assert {r.detail["reason"] for r in rows} == {"5 keys are missing"}
    assert others.torch.process.pid == before               # its worker owed no answer and lives on
    others.replace_jittor(None)
    assert all(r.passed for r in check.run([MODEL], levels=["L4"], twins=others))


# ---- the plan --------------------------------------------------------------------------

class Other(Case):
    name = "family.one"
    sizes = ("tiny", "full")
    levels = ("L1", "L3", "L4")


class Idle:
    """Workers that nobody asks."""
    renewed = 0

    def renew(self):
        self.renewed += 1


@pytest.fixture
def cases(monkeypatch):
    """One small family, whose every level passes."""
    second = type("Second", (Other,), {"name": "family.two", "levels": ("L3",), "modes": ("eval",)})
    monkeypatch.setattr("parity.cases.CASES", {case.name: case for case in (Other(), second())})
    monkeypatch.setattr(check, "CHECKS", dict.fromkeys(LEVELS, SimpleNamespace(check=passes)))


def passes(case, size, mode, twins):
    return [row(case.name, "L3", mode, {"a": Verdict(1e-7, 1e-7, 1e-7, 8e-7)})]


def fails(case, size, mode, twins):
    return {}["nothing"]


def steps(*arguments, **keywords):
    return [(s.model, s.level, s.size, s.mode) for s in check.plan(*arguments, **keywords)]


def test_a_family_is_all_its_models(cases):
    assert steps(["family"], levels=["L3"]) == [
        ("family.one", "L3", "tiny", "eval"), ("family.one", "L3", "tiny", "train"),
        ("family.two", "L3", "tiny", "eval")]
    assert steps(["family.two"], levels=["L3", "L1"]) == [("family.two", "L3", "tiny", "eval")]
    assert len(steps()) == 1 + 6 + 1 and steps()[0] == ("environment", "L0", "", "")


def test_the_full_tier_adds_the_published_size_where_it_is_owed(cases):
    added = set(steps(["family.one"], "full")) - set(steps(["family.one"]))
    assert added == {("family.one", level, "full", mode) for level in ("L1", "L3") for mode in ("eval", "train")}


def test_a_level_that_does_not_depend_on_the_mode_runs_once(cases, monkeypatch):
    monkeypatch.setitem(check.CHECKS, "L4", SimpleNamespace(check=passes, ONCE=True))
    assert steps(["family.one"], levels=["L4"]) == [("family.one", "L4", "tiny", "eval")]


@pytest.mark.parametrize("arguments, message", [
    ({"names": ["famly"]}, "no parity case 'famly' \\(did you mean 'family'"),
    ({"levels": ["L11"]}, "no level 'L11' \\(did you mean 'L1'"),
    ({"tier": "cl"}, "no tier 'cl' \\(did you mean 'ci'")])
def test_names_that_do_not_exist(cases, arguments, message):
    with pytest.raises(UserError, match=message):
        check.plan(**arguments)


def test_a_level_that_no_model_has_is_refused(cases):
    check.check_offered(["family"], ["L4", "L6"])
    check.check_offered([], None)
    with pytest.raises(UserError, match="level L4: family.two has only L0, L3$"):
        check.check_offered(["family.two"], ["L4"])


def test_the_choices_name_a_family_that_is_also_a_model_once(monkeypatch):
    monkeypatch.setattr("parity.cases.CASES", dict.fromkeys(["net", "net.part", "other"]))
    with pytest.raises(UserError, match="choose from net, net.part, other$"):
        check.select(["nte"])


def test_progress_is_told_of_every_step(cases):
    seen = []
    rows = check.run(["family.two"], levels=["L3"], twins=Idle(), progress=lambda step, rows: seen.append((step, rows)))
    assert [(step.model, found) for step, found in seen] == [("family.two", rows)] and rows[0].detail["size"] == "tiny"


def test_a_check_that_fails_itself_is_a_row(cases, monkeypatch):
    monkeypatch.setitem(check.CHECKS, "L3", SimpleNamespace(check=fails))
    twins = Idle()
    [found] = check.run(["family.two"], levels=["L3"], twins=twins)
    assert not found.passed and "KeyError: 'nothing'" in found.detail["reason"] and twins.renewed == 1


def test_only_what_failed_is_explained(cases, monkeypatch):
    asked = []

    def explained(steps, twins):
        asked.append([(step.level, step.size, step.mode) for step in steps])
        return Explanation([Finding(step.model, step.level, step.mode, "out is off") for step in steps], len(steps))

    monkeypatch.setattr("parity.explain.finding.explained", explained)
    [net] = check.select(["family.one"])
    steps = [check.Step(level, net, size, "eval") for level in ("L2", "L3", "L4", "L9") for size in ("tiny", "full")]
    good = row(net.name, "L4", "eval", {"a": Verdict(0.0, 0.0, 0.0, 0.0)}, size="tiny")
    failed = [failure(net.name, level, "eval", "off", size=size)
              for level, size in (("L9", "tiny"), ("L2", "tiny"), ("L3", "tiny"), ("L4", "full"))]
    assert explain_failures([good, failed[0]], steps, Idle()) == [] and asked == [[]]
    first, second = explain_failures([good, *failed], steps, Idle())
    assert asked[1] == [("L2", "tiny", "eval"), ("L3", "tiny", "eval")]
    assert first["level"] == "L2" and second["named"] == "" and "out is off" in second["text"]


def test_every_level_has_a_check():
    assert check.CHECKS.keys() == LEVELS.keys()
    assert all(callable(level.check) for level in check.CHECKS.values())


# ---- another device, and PyTorch against itself ----------------------------------------

@pytest.mark.parametrize("backend, reason", [
    ("jittor", "device cuda: there is no NVIDIA driver|device cuda: the NVIDIA driver finds no device"),
    ("torch", "device cuda: this PyTorch finds no usable GPU; use --device cpu")])
def test_a_device_that_is_not_there_is_one_line(backend, reason, tmp_path):
    done = run(MODEL, "--device", "cuda", "--backend", backend, "--json", tmp_path / "r.json", "--bundle",
               tmp_path / "bundle", env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 2 and not done.stdout
    assert re.match(f"parity: (?:{reason})", done.stderr) and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words, message", [
    (["--device", "cuda:7"], "argument --device: 'cuda:7' is not legal (did you mean 'cuda'?): choose from cpu, cuda"),
    (["--device", "cuda", "--level", "processes"], "--level processes: its processes compute on the CPU; leave out --"),
    (["--backend", "torch", "--explain"], "--explain: is about the Jittor twin; leave out --backend torch"),
    (["--backend", "torch", "--twin", str(ROOT)], "--twin: is about the Jittor twin; leave out --backend torch")])
def test_what_does_not_go_together(words, message, capsys):
    model = "aesthetic.training" if "processes" in words else MODEL
    assert main(["check", model, *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"parity: {message}") and said.count("\n") == 1


def test_pytorch_agrees_with_itself_and_a_fault_in_it_is_noticed(tmp_path):
    steps = check.plan([MODEL, "resnet"], levels=["L0", "L1", "L4"])
    with Twins(backend="torch") as both:
        assert both.jittor.name == "torch"
        assert not [r.detail["reason"] for step in steps for r in check.perform(step, both) if not r.passed]
        shutil.copytree(ROOT / "torch_models", tmp_path / "torch_models")
        ops = tmp_path / "torch_models/nn/ops.py"
        ops.write_text(ops.read_text().replace("relu = F.relu", "relu = F.leaky_relu"))
        both.replace_jittor(tmp_path)
        [last] = [step for step in steps if step.model == "resnet" and step.level == "L4"][-1:]
        assert not any(r.passed for r in check.perform(last, both))
