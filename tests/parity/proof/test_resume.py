"""L9: a run goes on in the other framework, and what would be lost on the way is noticed."""
import numpy as np
import pytest

from parity.cases import find
from parity.cases.apf_gan import ApfGanTraining
from parity.levels import resume
from parity.runner import Step
from parity.training import advance
from parity.workers.compare import equal


class Short(ApfGanTraining):
    """Handed over between two early steps, the second of which grows the networks."""

    def boundary(self, size):
        return 2


@pytest.fixture(scope="module")
def begun(twins, tmp_path_factory):
    """A run of two steps in PyTorch: its folder, and its first checkpoint as Jittor restores it."""
    case, folder = Short(), str(tmp_path_factory.mktemp("run"))
    arguments = {"case": case.reference(), "size": "tiny", "folder": folder}
    twins.torch.call(resume.begin, steps=2, **arguments)
    restored, _ = twins.jittor.call(resume.restored, start="1", **arguments)
    return folder, restored


def test_the_next_step_is_the_same_in_both(twins):
    verdicts = resume.handed_over(Short(), "tiny", twins, ("torch", "jittor"))
    assert len(verdicts) > 1000
    assert not [(name, verdict.reason) for name, verdict in verdicts.items() if not verdict.passed]


def test_a_whole_first_phase_is_handed_over_both_ways(rows_of):
    rows = rows_of(Step("L9", find("apf_gan.training"), "tiny", "train"))
    assert [row.mode for row in rows] == ["torch to jittor", "jittor to torch"]
    assert not [row.detail["reason"] for row in rows if not row.passed or row.detail["count"] <= 1000]


def test_a_step_without_the_optimizers_state_is_another_step(twins, begun):
    """Negative control: a resumption that restores the weights alone, and one that mistakes its position."""
    folder, restored = begun
    before = resume.outcome(folder, "1")
    truth = resume.Truth(twins, before, 2, {"case": Short().reference(), "size": "tiny"})
    whole = truth.judged("torch", resume.outcome(folder, "2"))
    assert all(verdict.passed for verdict in whole.values())
    forgetful = {name: np.zeros_like(a) if name.startswith("optimizer/") else a for name, a in before.arrays.items()}
    for arrays, state in ((forgetful, before.state), (before.arrays, {**before.state, "epoch": 2})):
        found, now = twins.jittor.call(advance, arrays, case=Short().reference(), size="tiny",
                                       state=state, steps=2)
        after = resume.Outcome(found, now, resume.outcome(folder, "2").losses)
        failed = [name for name, verdict in truth.judged("jittor", after).items() if not verdict.passed]
        assert any(name.startswith("update") for name in failed)


def test_what_is_restored_is_the_checkpoint(begun):
    folder, restored = begun
    before = resume.outcome(folder, "1").arrays
    assert restored.keys() == before.keys()
    assert all(equal(restored[name], a).passed for name, a in before.items())
    name = "optimizer/D/multiscale_discriminator_0.model0.0.0.weight_orig/exp_avg_sq"
    assert not equal(np.nextafter(restored[name], np.float32(1)), before[name]).passed
