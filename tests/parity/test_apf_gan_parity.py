"""A training step of APF-GAN in every stage: Jittor against PyTorch, within the noise of PyTorch."""
import numpy as np
import pytest

from apf_gan_probes import BETAS, EPS, RATES
from jittwin.models.apf_gan import stage
from noise import FACTORS, error
from twins import run_probes

# epoch, and whether every repair is switched on; from 181 on with noise and augmentation.
CASES = [(epoch, False) for epoch in (1, 31, 45, 60, 91, 120, 151, 180, 181)] + [(31, True), (181, True)]
NAMES = [f"epoch {epoch}{' repaired' if repaired else ''}" for epoch, repaired in CASES]
# Eight units in the last place, where the noise happens to be less.
FLOOR = 8 * 2.0 ** -24
# Below this part of the largest gradient a float64 gradient is rounding error of zero.
NOTHING = 1e-10


def measure(cases, seed: int = 0) -> list["Run"]:
    """Jittor's outputs, and PyTorch's truth and errors, per case; one process per framework."""
    inputs = [{"epoch": np.array(epoch), "repaired": np.array(repaired), "seed": np.array(seed)}
              for epoch, repaired in cases]
    jittor, torch = (run_probes(backend, [(f"apf_gan_probes:{probe}", i) for i in inputs], timeout=1200)
                     for backend, probe in (("jittor", "step"), ("torch", "truth_and_noise")))
    return [Run(*results) for results in zip(jittor, torch)]


@pytest.fixture(scope="module")
def runs():
    return dict(zip(NAMES, measure(CASES)))


def settled(runs, name: str, complaints):
    """What complaints(run) finds wrong with the first weights and, if anything, with two others as well.

    A rounding error that flips the sign of one ReLU moves a whole gradient. That is an accident of these
    weights on this machine, seen in about one run of ten; a fault shows with any weights.
    """
    found = complaints(runs[name])
    for seed in (1, 2):
        if found:
            found = complaints(*measure([CASES[NAMES.index(name)]], seed))
    return found


class Run:
    def __init__(self, jittor, torch):
        self.jittor = jittor
        self.truth = {name.removeprefix("truth "): a for name, a in torch.items()
                      if name.startswith("truth ")}
        self.torch = torch

    def names(self, kind: str) -> list[str]:
        return [name for name in self.truth if kind in name and ("loss" in name) == ("loss" in kind)
                and ("gradient" in name) == ("gradient" in kind)]

    def noise(self, name: str) -> float:
        return float(self.torch[f"noise {name}"])

    def limit(self, name: str) -> float:
        """What the error of Jittor may be, relative to the root mean square of the truth."""
        times_noise, times_error = FACTORS["gradient" in name]
        return max(times_noise * self.noise(name), times_error * float(self.torch[f"own {name}"]), FLOOR)

    def wrong(self, names, jittor=None) -> dict[str, tuple[float, float]]:
        """The names whose error is over the limit: (error, limit)."""
        jittor = jittor or self.jittor
        errors = {name: error(jittor[name], self.truth[name], "gradient" in name) for name in names}
        return {name: (e, self.limit(name)) for name, e in errors.items() if not e <= self.limit(name)}

    def zeros(self, kind: str) -> list[str]:
        """Gradients that are zero but for rounding: of biases that a normalisation takes out again."""
        size = {name: rms(self.truth[name]) for name in self.names(kind)}
        return [name for name, value in size.items() if value <= NOTHING * max(size.values())]

    def reach(self, name: str, rate: float, form: str):
        """How far from the true one the first step may end, for a gradient within its tolerance."""
        if name not in self.truth:
            return np.zeros(1)
        gradient = self.truth[name]
        slack = self.limit(name) * rms(gradient)
        low, exact, high = (move(g, rate, form) for g in (gradient - slack, gradient, gradient + slack))
        return np.maximum(high - exact, exact - low)

    def wrong_gradients(self, kind: str) -> dict:
        zeros, largest = self.zeros(kind), max(rms(self.truth[name]) for name in self.names(kind))
        noisy = {name: self.jittor[name] for name in zeros
                 if not np.abs(self.jittor[name]).max() < 1e-5 * largest}
        return noisy | self.wrong([name for name in self.names(kind) if name not in zeros])


def rms(a) -> float:
    return float(np.sqrt(np.mean(np.square(a, dtype=np.float64))))


@pytest.fixture(params=NAMES)
def run(request, runs):
    return runs[request.param]


def test_the_same_tensors_exist(run):
    assert run.jittor.keys() == run.truth.keys()
    for name, truth in run.truth.items():
        assert run.jittor[name].shape == truth.shape
        assert run.jittor[name].dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
def test_the_stage_trains_the_networks_it_should(runs, name):
    epoch, repaired = CASES[NAMES.index(name)]
    at, gradients = stage(epoch, 180, 4), runs[name].names("D gradient")
    trained = {k for k in range(4) if any(f".multiscale_discriminator_{k}." in n for n in gradients)}
    assert trained == set(range(4 if at.full else at.level + 1 + (at.alpha > 0)))
    child = [n.rsplit("discriminator_1.")[1] for n in gradients if "discriminator_1." in n]
    if epoch == 31 and not repaired:     # the rest of the child is its parent
        assert {n.split(".")[0] for n in child} == {"toRGB_extra1", "extra1"}
    heads = {n.split(".")[2] for n in runs[name].names("G gradient") if "inter_conv_img" in n}
    assert heads == {1: {"2"}, 31: {"2", "1"}, 45: {"2", "1"}, 60: {"1"}, 91: {"1", "0"}, 120: {"0"},
                     151: {"0"}}.get(epoch, set())
    noisy = any("seg_noise_var" in n for n in runs[name].names("G gradient"))
    assert noisy == (epoch > 180)


def test_forward(run):
    names = run.names("output")
    assert not run.wrong(names)
    assert max(map(run.noise, names)) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_gradients(runs, name):
    """Of a random linear function of all outputs, with respect to every parameter."""
    for half in "GD":
        assert not settled(runs, name, lambda run: run.wrong_gradients(f"{half} gradient"))
        # Constants per channel, which the next normalisation takes out.
        assert all(zero.endswith((".conv_0.bias", ".conv_1.bias", ".norm_s.mlp_beta.bias"))
                   for zero in runs[name].zeros(f"{half} gradient"))


def test_every_gradient_stands_out_of_its_noise(runs):
    """A hundredfold in at least one stage, or nothing has been shown; the median in every stage by fifty."""
    best = {}
    for run in runs.values():
        for half in "GD":
            zeros = run.zeros(f"{half} gradient")
            told = [name for name in run.names(f"{half} gradient") if name not in zeros]
            assert np.median([run.noise(name) for name in told]) < 0.02
            best |= {name: min(run.noise(name), best.get(name, 1.0)) for name in told}
    assert len(best) > 240
    assert max(best.values()) < 0.01
    assert np.median(list(best.values())) < 1e-4


def test_losses(run):
    names = run.names("loss ")
    assert set(names) == {"loss GAN", "loss GAN_Feat", "loss D_Fake", "loss D_real"}
    assert not run.wrong(names)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_the_losses(runs, name):
    for half in "GD":
        assert not settled(runs, name, lambda run: run.wrong_gradients(f"{half} loss gradient"))


def move(gradient, rate: float, form: str):
    """What the first step of Adam subtracts; it grows with the gradient."""
    eps = EPS / np.sqrt(1 - BETAS[1]) if form == "jittor" else EPS
    return rate * gradient / (np.abs(gradient) + eps)


def moved_wrongly(run, form: str) -> list[str]:
    """Parameters outside the interval that a gradient within its tolerance leaves them after one step.

    The tolerance holds for nine elements of ten; the others move no further than Adam can.
    """
    wrong = []
    for key in (key for key in run.truth if key.startswith("after ")):
        parameter = key.removeprefix("after ")
        half = "D" if parameter.startswith("D.") else "G"
        seen, truth = run.jittor[key].astype(np.float64), run.truth[key]
        if parameter.endswith(("running_mean", "running_var", "weight_u", "weight_v")):
            wrong += [parameter] if error(seen, truth) > 1e-4 else []
            continue
        off = np.abs(seen - truth) - 2 * np.spacing(np.abs(truth).astype(np.float32))
        reach, rate = run.reach(f"{half} gradient {parameter}", RATES[half], form), RATES[half]
        if np.mean(off <= reach) < 0.9 or off.max() > (2 * rate if np.any(reach) else 0):
            wrong.append(parameter)
    return wrong


@pytest.mark.parametrize("name", NAMES)
def test_update(runs, name):
    """One step of Adam, which turns all but the smallest gradients into their signs."""
    form = "torch" if CASES[NAMES.index(name)][1] else "jittor"
    assert not settled(runs, name, lambda run: moved_wrongly(run, form))
    reaches = [runs[name].reach(key, RATES[key[0]], form) / RATES[key[0]]
               for half in "GD" for key in runs[name].names(f"{half} gradient")]
    assert np.mean(np.concatenate([reach.ravel() for reach in reaches]) < 0.01) > 0.9


def test_another_semantics_is_noticed(runs):
    """Negative control: the repaired model is not within the noise of the published one."""
    for epoch in (31, 181):
        published, repaired = runs[f"epoch {epoch}"], runs[f"epoch {epoch} repaired"]
        for kind, share in (("output fake", 1.0), ("G gradient", 0.8), ("D gradient", 0.8), ("loss ", 1.0)):
            told = [name for name in published.names(kind)
                    if name in repaired.jittor and name not in published.zeros(kind)]
            assert len(published.wrong(told, repaired.jittor)) >= share * len(told) > 0
