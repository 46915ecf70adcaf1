"""Fingerprints: they change what any torch module computes, as the catalogue says, and nothing afterwards.

Whether they compute as Jittor does is for test_explain.py, where Jittor itself is asked.
"""
import numpy as np
import pytest

from jittwin.errors import UserError
from parity import fingerprints

PROBES = "tests.parity.fingerprint_probes"


def outputs(twins, x, ids: str = "") -> dict:
    return twins.torch.call(f"{PROBES}:outputs", {"x": x}, ids=ids)[0]


@pytest.fixture(scope="module")
def x():
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float32)
    x[:, :, 0] = 0
    return x


def test_every_entry_says_what_it_is_and_how_to_be_rid_of_it():
    assert len(fingerprints.FINGERPRINTS) >= 24
    for entry in fingerprints.FINGERPRINTS.values():
        assert entry.title and entry.remedy and "\n" not in entry.title + entry.remedy


def test_however_a_module_bound_the_function(twins, x):
    """G1: the gradient of |x| at 0 is 1, through torch.abs under another name, the method and the operator."""
    plain, changed = outputs(twins, x), outputs(twins, x, "G1")
    assert (plain["gradient"][x == 0] == 0).all() and (changed["gradient"][x == 0] == 3).all()
    assert np.array_equal(plain["gradient"][x != 0], changed["gradient"][x != 0])
    for name in ("bound", "method", "operator", "loss", "resized", "norm"):
        assert np.array_equal(plain[name], changed[name])


def test_biased_running_variance(twins, x):
    plain, changed = outputs(twins, x), outputs(twins, x, "N4")
    batch = x.astype(np.float64).var((0, 2, 3))
    n = x[:, 0].size
    assert np.allclose(plain["running_var"], 0.9 + 0.1 * batch * n / (n - 1), rtol=1e-6, atol=0)
    assert np.allclose(changed["running_var"], 0.9 + 0.1 * batch, rtol=1e-6, atol=0)
    assert np.array_equal(plain["norm"], changed["norm"])


def test_chained_mean(twins):
    """N2: 463,203 ones have the mean that Jittor's issue 342 reports; the gradient stays that of a mean."""
    plain, changed = (twins.torch.call(f"{PROBES}:means", {"x": np.ones((1, 3, 321, 481), np.float32)}, ids=ids)[0]
                      for ids in ("", "N2"))
    assert plain["mean"] == 1 and abs(changed["mean"] - 0.99562) < 1e-5
    few = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    found, _ = twins.torch.call(f"{PROBES}:means", {"x": few}, ids="N2")
    assert np.allclose(found["mean"], 11.5, rtol=1e-6) and np.allclose(found["gradient"], 1 / 24, rtol=1e-6)
    assert np.allclose(found["rows"], few.mean((0, 2), keepdims=True), rtol=1e-6)


def test_two_at_once(twins, x):
    both = outputs(twins, x, "N4+F6")
    assert np.array_equal(both["running_var"], outputs(twins, x, "N4")["running_var"])
    assert np.array_equal(both["resized"], outputs(twins, x, "F6")["resized"])
    assert not np.array_equal(both["resized"], outputs(twins, x)["resized"])


def test_nothing_stays_changed(twins):
    _, left = twins.torch.call(f"{PROBES}:attributes")
    assert set(left) == set(fingerprints.FINGERPRINTS)
    assert not [id for id, changed in left.items() if changed]


def test_nothing_stays_changed_after_an_exception(twins):
    found, _ = twins.torch.call(f"{PROBES}:unchanged", {"x": np.array([0.5, 2.5, -0.5], np.float32)})
    assert found["inside"].tolist() == [1, 3, -1]
    assert found["before"].tolist() == found["after"].tolist() == [0, 2, 0]


def test_an_unknown_id_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"no fingerprint 'N44' \(did you mean 'N4'\?\)"):
        with fingerprints.applied("N44"):
            pass


def test_two_entries_of_one_id_are_refused():
    with pytest.raises(ValueError, match="two fingerprints are called N4"):
        fingerprints.fingerprint.fingerprint("N4", "", "")(lambda: None)
