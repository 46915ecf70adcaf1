"""The feature networks of the twins agree, in features and in input gradients, as far as float32 allows."""
import numpy as np
import pytest

from jittwin.draws import Draws
from noise import DRAWS, agree
from twins import run_probes

# Smaller inputs would leave Mixed_7 a handful of values to normalise by.
PROBES = {
    "vgg": (2, 3, 48, 64),
    "inception_batch": (2, 3, 128, 160),
    "inception_running": (2, 3, 128, 160),
}


def probe(name: str, shape: tuple, draws: int = 0):
    image = Draws(3).uniform("image", shape) * 2 - 1
    return f"backbone_probes:{name}", {"image": image, "draws": np.array(draws)}


@pytest.fixture(scope="module")
def runs():
    """Results by twin and probe; one process per twin."""
    wanted = {"jittor": 0, "torch64": 0, "torch": DRAWS}
    found = {}
    for backend, draws in wanted.items():
        results = run_probes(backend, [probe(name, shape, draws) for name, shape in PROBES.items()])
        found[backend] = dict(zip(PROBES, results, strict=True))
    return found


def verdict(runs: dict, name: str, tensor: str, candidate=None):
    noisy = [runs["torch"][name][f"{draw}/{tensor}"] for draw in range(1, DRAWS + 1)]
    candidate = runs["jittor"][name] if candidate is None else candidate
    single, truth = (runs[backend][name][f"0/{tensor}"] for backend in ("torch", "torch64"))
    return agree(candidate[f"0/{tensor}"], single, truth, noisy, gradient=tensor == "gradient")


@pytest.mark.parametrize("name", PROBES)
def test_features_and_input_gradient_agree(runs, name):
    tensors = [key.removeprefix("0/") for key in runs["torch64"][name]]
    assert len(tensors) == (6 if name == "vgg" else 5)
    verdicts = {tensor: verdict(runs, name, tensor) for tensor in tensors}
    assert all(v.passed for v in verdicts.values()), verdicts


def test_a_wrong_epsilon_is_noticed(runs):
    name = "inception_batch"
    wrong, = run_probes("torch", [probe("inception_wrong_epsilon", PROBES[name])])
    assert not any(verdict(runs, name, key.removeprefix("0/"), wrong).passed for key in runs["torch64"][name])
