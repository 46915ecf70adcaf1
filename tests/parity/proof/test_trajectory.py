"""L6: the training loop of both frameworks, and that a fault in it is noticed."""
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import jt_models
from jittwin.models.apf_gan import stage
from parity.cases import find
from parity.cases.apf_gan import ApfGanTraining
from parity.levels import trajectory
from parity.runner import Step
from parity.workers.compare import Comparison, named_error


def kind(config, epoch):
    """What sort of step an epoch consists of."""
    at = stage(epoch, config.pg_niter, config.num_D)
    return at.level, at.alpha > 0, at.first_fade, at.full, epoch > config.pretrain_epochs


@pytest.mark.parametrize("size", ApfGanTraining.sizes)
def test_every_kind_of_step_is_looked_at(size):
    case = ApfGanTraining()
    config = case.config(size)
    batches = config.synthetic_images // config.batch_size
    seen = {kind(config, 1 + step // batches) for step in case.checked(size)}
    assert seen == {kind(config, epoch) for epoch in range(1, config.epochs + 1)}
    assert len(seen) == 11
    assert size == "tiny" or len(case.checked(size)) == config.epochs * batches == 100


@pytest.fixture(scope="module")
def rows(rows_of):
    """Of L6: re-anchored, and free."""
    return rows_of(Step("L6", find("apf_gan.training"), "tiny", "train"))


def test_one_step_from_the_same_state(rows):
    checked = find("apf_gan.training").checked("tiny")
    assert rows[0].passed, rows[0].detail["reason"]
    assert rows[0].detail["steps"] == len(checked)
    assert [label for label, *_ in rows[0].detail["curve"]] == [f"step {number}" for number in checked]


def test_a_few_steps_alone(rows):
    assert rows[1].passed, rows[1].detail["reason"]
    assert rows[1].detail["steps"] >= 3


def test_the_run_in_float64_is_made_once_for_a_state(monkeypatch):
    runs, side = [], SimpleNamespace(last_true=None)
    monkeypatch.setattr(trajectory, "train", lambda side, arrays, **arguments: runs.append(arguments))
    first, other = {"G/w": np.zeros(2)}, {"G/w": np.ones(2)}
    for arrays, steps in ((first, 1), (first, 1), (first, 2), (other, 2), (first, 2)):
        trajectory.true_outcome(side, dict(arrays), state={"epoch": 1}, steps=steps)
    assert [run["steps"] for run in runs] == [1, 2, 2, 2]


FAULTS = [
    ("apf_gan/losses.py", 'BatchNorm2d, self.config.semantics.batchnorm_updates == "twice")', "BatchNorm2d, False)",
     "update statistics of G"),
    ("nn/optim.py", "self.update(names, step, group)", "self.update(names, step + 1, group)", "update D"),
    ("apf_gan/losses.py", "self.discriminator.inherit(stage.level + 1)", "pass", "update D")]


def test_faults_in_the_loop_are_noticed(others, tmp_path):
    """All of them in one broken copy; each shows in tensors of its own."""
    shutil.copytree(Path(jt_models.__file__).parent, tmp_path / "jt_models")
    for file, old, new, _ in FAULTS:
        path = tmp_path / "jt_models" / file
        source = path.read_text()
        assert source.count(old) == 1
        path.write_text(source.replace(old, new))
    case = ApfGanTraining()
    case.checked = lambda size: [2]             # the first fade of a resolution
    others.replace_jittor(tmp_path)
    row = trajectory.anchored(case, "tiny", others)
    failed = {name.split(",")[0] for name, *_, reason in row.detail["tensors"] if reason}
    assert failed >= {tensor for *_, tensor in FAULTS}


def update(error, own=1e-6, noise=1e-6, name="update G"):
    truth = np.random.default_rng(0).normal(size=1000)
    return trajectory.judged(Comparison({name: truth * (1 + error)}, {name: truth}, {name: own}, {name: noise}, {}))


def test_an_update_is_judged_by_its_norm_against_the_noise():
    assert update(1e-5)["update G"].passed
    assert not update(1e-4)["update G"].passed
    assert not update(np.nan)["update G"].passed
    truth = np.ones(100)
    flipped = np.where(np.arange(100) == 3, -1, truth)
    assert named_error("update D", flipped, truth) == pytest.approx(0.2)


def test_a_noise_that_hides_everything_leaves_pytorchs_own_error():
    assert update(5e-6, noise=0.1)["update G"].passed
    assert not update(1e-4, noise=0.1)["update G"].passed
    assert not update(0.0, own=0.1, noise=0.1)["update G"].passed, "nothing is shown"


def test_counts_and_rates_must_be_equal():
    for name in ("rates", "counts", "position after 2"):
        assert trajectory.judged(Comparison({name: np.ones(2)}, {name: np.ones(2)}, {name: 1.0}, {name: 1.0}, {}))[
            name].passed
        assert not update(1e-15, name=name)[name].passed


def test_a_gradient_that_is_truly_zero_must_be_nearly_so():
    assert trajectory.stays(np.array([1e-7, 0.0])).passed
    assert trajectory.stays(np.array([])).passed
    assert not trajectory.stays(np.array([1e-3])).passed


def test_something_that_should_not_change_must_not():
    """A statistic that no pass updates: the truth is zero, and any change is a fault."""
    zero = np.zeros(4)
    found = {"update statistics of D": zero}
    measured = dict.fromkeys(found, 0.0)
    assert all(v.passed for v in trajectory.judged(Comparison(found, found, measured, measured, {})).values())
    changed = {"update statistics of D": np.array([0, 0, 1e-9, 0])}
    assert not any(v.passed for v in trajectory.judged(Comparison(changed, found, measured, measured, {})).values())
