"""L4: gradients reach what the stage trains, stand out of the noise, and another model is noticed."""
from dataclasses import replace

import numpy as np
import pytest

from jittwin.models.apf_gan import stage
from parity.cases import find
from parity.cases.apf_gan import GROWN, epoch_of
from parity.levels import backward
from parity.workers.compare import NOTHING, Verdict, rms

OBJECTIVE = find("apf_gan.objective")
MODES = [mode for mode in (*OBJECTIVE.modes, *OBJECTIVE.more_modes)]
# Constants per channel, which the next normalisation takes out.
TAKEN_OUT = (".conv_0.bias", ".conv_1.bias", ".norm_s.mlp_beta.bias")
# RGB heads, by epoch; none once growing is over.
HEADS = {1: {"2"}, 31: {"2", "1"}, 40: {"2", "1"}, 60: {"1"}, 91: {"1", "0"}, 120: {"0"}, 151: {"0"}}


@pytest.mark.parametrize("mode", MODES)
def test_the_stage_trains_the_networks_it_should(twins, mode):
    arrays, arguments = backward.request(OBJECTIVE, "tiny", mode, twins, 0, 0)
    reached = {}
    for twin, (found, _) in twins.both(backward.gradients, arrays, **arguments).items():
        largest = max(map(rms, found.values()))
        reached[twin] = {name.removeprefix("gradient ") for name, a in found.items() if np.any(a)}
        faint = {name for name, a in found.items() if 0 < rms(a) <= 1e-6 * largest}
        assert all(name.endswith(TAKEN_OUT) for name in faint)
    assert reached["jittor"] == reached["torch"]
    names, epoch = reached["torch"], epoch_of(mode)
    at = stage(epoch, GROWN, 4)
    discriminators = {name.split("_discriminator_")[1][0] for name in names if name.startswith("D.")}
    assert discriminators == set("0123"[:4 if at.full else at.level + 1 + (at.alpha > 0)])
    if mode == "train 31":               # the rest of the child is its parent
        child = {name.split("_discriminator_1.")[1].split(".")[0] for name in names if "_discriminator_1." in name}
        assert child == {"toRGB_extra1", "extra1"}
    assert {name.split(".")[2] for name in names if "inter_conv_img" in name} == HEADS.get(epoch, set())
    assert any("seg_noise_var" in name for name in names) == (epoch > GROWN)


def test_only_what_a_normalisation_takes_out_has_no_gradient(twins):
    arrays, arguments = backward.request(OBJECTIVE, "tiny", "train 181", twins, 0, 0)
    sizes = {name: rms(a) for name, a in twins.compare(backward.gradients, arrays, **arguments).truth.items()}
    reached = [name for name, size in sizes.items() if size > 0]
    zeros = [name for name in reached if sizes[name] <= NOTHING * max(sizes.values())]
    assert zeros and all(name.endswith(TAKEN_OUT) for name in zeros)
    assert len(reached) - len(zeros) > 180


@pytest.mark.parametrize("mode, part", [("train 31", 0), ("train 31", "G"), ("train 31", "D"), ("train 181", "G"),
                                        ("train 181", "D")])
def test_another_semantics_is_noticed(twins, mode, part):
    """Negative control: the repaired model is not within the noise of the published one."""
    arrays, arguments = backward.request(OBJECTIVE, "tiny", mode, twins, 0, part)
    found = twins.compare(backward.gradients, arrays, **arguments)
    repaired, _ = twins.jittor.call(backward.gradients, arrays, **{**arguments, "mode": f"{mode} repaired"})
    told = {name: verdict for name, verdict in found.verdicts().items() if np.any(found.truth[name])
            and verdict.noise and np.any(repaired[name])}
    wrong = [name for name, v in replace(found, candidate=repaired).verdicts(told).items() if not v.passed]
    assert len(wrong) >= 0.8 * len(told) > 0


def outcomes(monkeypatch, *failing):
    """A check of the encoder in whose comparisons, one after the other, these tensors of "ab" disagree."""
    asked = []

    def compared(case, size, mode, twins, seed, part):
        asked.append((part, seed))
        return {f"gradient {name}": Verdict(1.0, 0.0, 0.0, 1.0, "off" if name in failing[len(asked) - 1] else "")
                for name in "ab"}

    monkeypatch.setattr(backward, "compared", compared)
    row, = backward.check(find("apf_gan.encoder"), "tiny", "train", None)
    return row, asked


def test_an_accident_of_the_weights_is_not_a_fault(monkeypatch):
    row, asked = outcomes(monkeypatch, "a", "b", "")
    assert row.passed and asked == [(0, 0), (0, 1), (1, 0)]
    assert row.detail["weights_replaced"] == {"direction 0": 1}


def test_what_disagrees_with_all_weights_is_a_fault(monkeypatch):
    row, asked = outcomes(monkeypatch, "", "ab", "a", "ab")
    assert not row.passed and row.detail["reason"].startswith("1 of 4 tensors, worst gradient a (direction 1)")
    assert asked[-1] == (1, backward.SETS - 1)
