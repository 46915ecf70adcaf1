"""Optimizers of both twins against torch.optim in double precision, and against Jittor's rule in NumPy."""
import numpy as np
import pytest

from optim_probes import CASES, RATES, SHAPES, STEPS, gradient, rates, start
from twins import run_probes

HALF = STEPS // 2
LIKE_TORCH = [case for case, (_, hyper, _, _) in CASES.items() if hyper.get("form") != "jittor"]
LIKE_JITTOR = [case for case in CASES if case not in LIKE_TORCH]


def span(first, last, given=None):
    return "optim_probes:train", {"first": np.array(first), "last": np.array(last), **(given or {})}


@pytest.fixture(scope="module")
def runs():
    """Parameters and optimizer state after 20 steps: in one twin, and begun in the other one."""
    torch_whole, torch_half, truth = run_probes(
        "torch", [span(0, STEPS), span(0, HALF), ("optim_probes:torch_optim", {"none": np.zeros(1)})])
    jittor_whole, jittor_half, torch_jittor = run_probes(
        "jittor", [span(0, STEPS), span(0, HALF), span(HALF, STEPS, torch_half)])
    jittor_torch, = run_probes("torch", [span(HALF, STEPS, jittor_half)])
    double, = run_probes("torch64", [("optim_probes:torch_optim", {"none": np.zeros(1)})])
    return {"torch": torch_whole, "jittor": jittor_whole, "torch then jittor": torch_jittor,
            "jittor then torch": jittor_torch, "torch.optim": truth, "double": double}


def jittors_rule(case):
    """Adam as Jittor has it, in float64: epsilon before the bias correction, no parameter left out."""
    _, hyper, clip, parts = CASES[case]
    beta1, beta2 = hyper.get("betas", (0.9, 0.999))
    decay = dict.fromkeys(SHAPES, hyper.get("weight_decay", 0.0)) | {"c": 0.3}
    p = {name: a.astype(np.float64) for name, a in start().items()}
    m, v = ({name: np.zeros(shape) for name, shape in SHAPES.items()} for _ in range(2))
    for step in range(STEPS):
        g = {name: np.zeros(SHAPES[name]) for name in SHAPES}
        for name in SHAPES:
            for part in range(parts):
                given = gradient(name, step, part)
                g[name] += 0 if given is None else given.astype(np.float64)
        if clip is not None:
            norm = np.sqrt(sum(np.sum(a * a) for a in g.values()))
            g = {name: a * min(1, clip / (norm + 1e-6)) for name, a in g.items()}
        for name in SHAPES:
            rate = rates(step)[name == "c"]
            full = g[name] + decay[name] * p[name]
            m[name] = beta1 * m[name] + (1 - beta1) * full
            v[name] = beta2 * v[name] + (1 - beta2) * full * full
            n = step + 1
            p[name] -= rate * np.sqrt(1 - beta2 ** n) / (1 - beta1 ** n) * m[name] / (np.sqrt(v[name]) + 1e-8)
    return p


def check(run, case, truth, units=8):
    """Within some units in the last place of the largest value on the way, per step taken."""
    for name in SHAPES:
        seen, wanted = run[f"{case}|{name}"], truth[name]
        way = np.abs(wanted) + np.abs(start()[name])
        allowed = units * STEPS * 2.0 ** -24 * way + 2e-6 * RATES[name]
        assert (np.abs(seen - wanted) <= allowed).all(), (case, name)
        assert np.abs(wanted - start()[name]).max() > RATES[name] * 1e-3


@pytest.mark.parametrize("case", LIKE_TORCH)
@pytest.mark.parametrize("run", ["torch", "jittor", "torch then jittor", "jittor then torch", "torch.optim"])
def test_like_torch_optim_in_double_precision(runs, run, case):
    check(runs[run], case, {name: runs["double"][f"{case}|{name}"] for name in SHAPES})


@pytest.mark.parametrize("case", LIKE_JITTOR)
@pytest.mark.parametrize("run", ["torch", "jittor", "torch then jittor", "jittor then torch"])
def test_like_jittors_rule_in_double_precision(runs, run, case):
    check(runs[run], case, jittors_rule(case))


@pytest.mark.parametrize("case", CASES)
def test_the_state_is_the_same_in_both(runs, case):
    prefix = f"{case}|state|"
    torch, jittor = ({name.removeprefix(prefix): a for name, a in runs[run].items()
                      if name.startswith(prefix)} for run in ("torch", "jittor"))
    assert torch.keys() == jittor.keys()
    for name, value in torch.items():
        assert value.dtype == jittor[name].dtype and value.shape == jittor[name].shape
        np.testing.assert_allclose(jittor[name], value, rtol=1e-5, atol=1e-6 * np.abs(value).max())
    left_out = 0 if case in LIKE_JITTOR else 3
    assert [int(torch[f"{name}/step"]) for name in "abc"] == [STEPS, STEPS, STEPS - left_out]


def test_the_two_forms_of_adam_are_told_apart(runs):
    """Negative control: one form held against the other's truth."""
    wrong = {name: runs["double"][f"adam|{name}"] for name in SHAPES}
    with pytest.raises(AssertionError):
        check(runs["jittor"], "jittor", wrong)
    with pytest.raises(AssertionError):
        check(runs["jittor"], "adam", jittors_rule("jittor"))
