"""explain: the right difference is named, first, for what real Jittor computes and for broken copies of our twin."""
import argparse
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
import specimens
from specimens import SPECIMENS

from jittwin.errors import UserError
from parity import faults
from parity.commands import explain as command_line
from parity.explain import finding as explain
from parity.explain.finding import RecordingTwins
from parity.explain.search import search
from parity.fingerprints import FINGERPRINTS
from parity.workers.worker import WorkerError

ROOT = Path(__file__).resolve().parents[2]
PROBES = "tests.parity.explain_probes"
X = {"x": np.random.default_rng(0).standard_normal((1, 2, 4, 3)).astype(np.float32)}


def test_there_are_enough_specimens():
    assert len(SPECIMENS) >= 40 and set(SPECIMENS) <= set(FINGERPRINTS)
    assert sum(not id.startswith("X-") for id in SPECIMENS) >= 30      # of Jittor itself


def test_the_numbers_of_the_documents_are_those_of_the_specimens():
    tried, own = len(SPECIMENS), sum(not id.startswith("X-") for id in SPECIMENS)
    assert f"{tried} of {tried}, {own} of them Jittor's own differences" in (ROOT / "docs/numbers.md").read_text()


@pytest.mark.parametrize("id", list(SPECIMENS))
def test_the_difference_of_a_specimen_is_named(id, twins):
    """Without the fingerprint real Jittor disagrees with PyTorch; with it, and with no other, it agrees."""
    recorder = RecordingTwins(twins)
    with suppress(WorkerError):         # some differences are that Jittor refuses what PyTorch computes
        recorder.compare(specimens.run, SPECIMENS[id].inputs, id=id)
    suspects = search(recorder.take(), twins)
    assert suspects[0].name == id
    assert [s.name for s in suspects if s.explains] == [id]
    assert suspects[0].after <= suspects[0].limit and suspects[0].removed == 1


def failure(twins, name: str):
    recorder = RecordingTwins(twins)
    recorder.compare(f"{PROBES}:{name}", X)
    return recorder.take()


def test_what_no_catalogue_knows_is_not_explained(twins):
    made = failure(twins, "unknown")
    suspects = search(made, twins)
    assert not any(s.explains for s in suspects)
    text = "\n".join(explain.Finding("m", "L3", "eval", "y differs", suspects, ["m.layer"]).lines())
    assert "no known difference explains it" in text and "modules that differ on their own: m.layer" in text


def test_two_differences_at_once(twins):
    made = failure(twins, "two_at_once")
    best = search(made, twins)[0]
    assert best.explains and set(best.ids) == {"F6", "X-slope-0.01"}


@pytest.mark.parametrize("name", ["crash", "crash_of_both"])
def test_another_error_is_not_explained(twins, name):
    recorder = RecordingTwins(twins)
    with pytest.raises(WorkerError):
        recorder.compare(f"{PROBES}:{name}", X)
    twins.renew()                       # of two that raise one still owes its answer
    assert search(recorder.take(), twins) == []
    assert recorder.take() is None


def test_agreement_needs_no_explanation(twins):
    assert failure(twins, "right") is None


@pytest.mark.parametrize("fault, model, level, id", [
    ("leaky_slope_ignored", "apf_gan.encoder", "L3", "X-slope-0.01"),
    ("adam_epsilon", "apf_gan.encoder", "L5", "X-adam-eps")])
def test_a_broken_copy_of_the_twin_is_explained(fault, model, level, id, others, tmp_path):
    """What is known of PyTorch is kept, so only Jittor runs anew."""
    others.replace_jittor(faults.broken_copy(faults.find(fault), tmp_path))
    found = explain.run([model], levels=[level], twins=others)
    assert found.findings and found.named == [id] and all(f.explained for f in found.findings)
    assert f"{id} explains it" in found.text()


@pytest.mark.parametrize("fault, which, id", [
    ("abs_gradient_at_zero", "l1_mean", "G1"), ("pool_divisor", "avg_pool2d", "X-pool-excluded"),
    ("aligned_corners", "interpolate", "X-align-corners")])
def test_a_broken_operator_is_explained(fault, which, id, others, tmp_path):
    x = X["x"].copy()
    x[:, :, ::2] = 0
    others.replace_jittor(faults.broken_copy(faults.find(fault), tmp_path))
    recorder = RecordingTwins(others)
    recorder.compare(f"{PROBES}:operators", {"x": x}, which=which)
    best = search(recorder.take(), others)[0]
    assert best.explains and best.name == id


def parsed(*words):
    parser = argparse.ArgumentParser()
    command_line.add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_fails_where_something_fails(others, tmp_path, monkeypatch, capsys):
    """The workers are those of the other tests; which copy of the twin they hold is decided here."""
    monkeypatch.setattr(explain, "Twins", lambda twin: nullcontext(others.replace_jittor(twin) or others))
    folder = faults.broken_copy(faults.find("adam_epsilon"), tmp_path)
    assert command_line.command(parsed("apf_gan.encoder", "--level", "L5", "--twin", str(folder))) == 1
    printed = capsys.readouterr().out
    remedy = FINGERPRINTS["X-adam-eps"].remedy
    assert "apf_gan.encoder L5 train: " in printed and "X-adam-eps explains it: " in printed and remedy in printed
    assert printed.endswith("1 compared, 1 failed, 1 explained: X-adam-eps\n")


@pytest.mark.parametrize("words, message", [
    (["no_such_model"], "no parity case 'no_such_model'"),
    (["siglip", "--level", "L9"], "level L9: siglip has only L0, L1, L2, L3, L4"),
    (["--twin", "nowhere"], "--twin nowhere: there is no jt_models package in it")])
def test_misuse_is_told(words, message):
    with pytest.raises(UserError, match=message):
        command_line.command(parsed(*words))
