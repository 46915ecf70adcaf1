"""The moving average against the recurrence worked out by hand."""
import numpy as np
import toy

from jittwin.engine.ema import Ema


def test_recurrence_with_growing_decay():
    ema, expected = Ema(toy.Backend(), 0.25), None
    for step, value in enumerate((1.0, 3.0, -2.0, 5.0), start=1):
        ema.update("G", {"w": np.full(2, value, np.float32)}, step)
        decay = min(0.25, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
    np.testing.assert_allclose(ema.averages["G"]["w"], expected, rtol=1e-6)
    assert ema.averages["G"]["w"].dtype == np.float32


def test_recurrence_with_constant_decay():
    """From the weights before the first step; running statistics are the last ones."""
    ema, expected = Ema(toy.Backend(), 0.75, "constant"), 4.0
    ema.start("G", {"w": np.full(2, 4, np.float32), "norm.running_mean": np.zeros(1, np.float32)})
    for step, value in enumerate((1.0, 3.0, -2.0, 5.0), start=1):
        ema.update("G", {"w": np.full(2, value, np.float32), "norm.running_mean": np.full(1, value, np.float32)}, step)
        expected = 0.75 * expected + 0.25 * value
    np.testing.assert_allclose(ema.averages["G"]["w"], expected, rtol=1e-6)
    assert ema.averages["G"]["norm.running_mean"] == 5
    rising = Ema(toy.Backend(), 0.75)
    rising.start("G", {"w": np.zeros(2, np.float32)})
    assert rising.averages == {}


def test_the_average_never_aliases_the_module():
    ema, weights = Ema(toy.Backend(), 0.9), {"w": np.zeros(2, np.float32)}
    ema.update("G", weights, 1)
    weights["w"][:] = 8
    assert not ema.averages["G"]["w"].any()


def test_counters_are_copied_and_changed_keys_follow_the_module():
    ema = Ema(toy.Backend(), 0.9)
    ema.update("G", {"a": np.ones(2, np.float32), "count": np.array(4)}, 1)
    ema.update("G", {"b": np.ones(3, np.float32), "count": np.array(5)}, 2)
    assert set(ema.averages["G"]) == {"b", "count"} and ema.averages["G"]["count"] == 5
