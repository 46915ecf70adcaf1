"""Moving averages on the device of a twin against the recurrence in float64."""
import numpy as np

from jittwin.engine.ema import Ema

SHAPES = {"long": (40000,), "matrix": (3, 5), "norm.running_mean": (4,)}


def test_averages_on_the_device(backend):
    for form in ("rising", "constant"):
        ema, truth, rng = Ema(backend, 0.75, form), {}, np.random.default_rng(0)
        for step in range(5):
            arrays = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in SHAPES.items()}
            tensors = {name: backend.asarray(array) for name, array in arrays.items()}
            tensors["count"] = backend.asarray(np.array([step], np.int32))
            if step == 0:
                ema.start("G", tensors)
                truth = {name: array.astype(np.float64) for name, array in arrays.items()} if form == "constant" else {}
                continue
            ema.update("G", tensors, step)
            decay = 0.75 if form == "constant" else min(0.75, (1 + step) / (10 + step))
            for name, array in arrays.items():
                copied = name not in truth or form == "constant" and name == "norm.running_mean"
                truth[name] = array.astype(np.float64) if copied else decay * truth[name] + (1 - decay) * array
        found = {name: backend.numpy(tensor) for name, tensor in ema.averages["G"].items()}
        assert found.pop("count") == [4]
        for name, array in found.items():
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, truth[name], rtol=0, atol=5e-7)


def test_restored_averages_go_on_to_the_last_bit(backend):
    rng, first = np.random.default_rng(1), Ema(backend, 0.9)
    steps = [{"w": backend.asarray(rng.standard_normal((7, 9), dtype=np.float32))} for _ in range(4)]
    for step, state in enumerate(steps[:3], 1):
        first.update("G", state, step)
    saved = {"w": backend.numpy(first.averages["G"]["w"]).copy()}
    second = Ema(backend, 0.9)
    second.restore("G", saved)
    before = saved["w"].copy()
    for ema in (first, second):
        ema.update("G", steps[3], 4)
    np.testing.assert_array_equal(*(backend.numpy(ema.averages["G"]["w"]) for ema in (first, second)))
    np.testing.assert_array_equal(saved["w"], before)       # the arrays of the file are not what changes
