"""SigLIP's tower, counted dropout and gradient checkpointing on the Jittor twin."""
import pytest

pytest.register_assert_rewrite("tower")

import numpy as np  # noqa: E402
from tower import PIXELS, TowerFacts  # noqa: E402  (assertions are rewritten on import)

from jt_models.boot import jt  # noqa: E402
from jt_models.nn.kernels.precision import Rounded  # noqa: E402


class TestJittor(TowerFacts):
    def test_checkpointing_keeps_less(self, backend):
        lived = []
        for option in (False, True):
            module = self.built(backend, gradient_checkpointing=option)
            jt.sync_all(True)
            jt.gc()
            before = jt.liveness_info()["lived_vars"]
            hidden = module(backend.asarray(PIXELS))
            hidden.sync()
            lived.append(jt.liveness_info()["lived_vars"] - before)
            del hidden, module
        assert lived[1] < 0.6 * lived[0]


@pytest.mark.parametrize("name, digits, smallest", [("bfloat16", 8, -133), ("float16", 11, -24)])
def test_rounding_to_shorter_types(name, digits, smallest):
    """Against the definition: the nearest multiple of the last digit's unit, ties to even."""
    x = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    x[:2048] *= np.float32(2.0) ** np.random.default_rng(1).integers(-30, 15, 2048)
    x[:4] = 0, 1 + 2.0 ** -digits, 1 + 3 * 2.0 ** -digits, -1 - 2.0 ** -digits     # the last three are ties
    unit = 2.0 ** np.maximum(np.floor(np.log2(np.maximum(np.abs(x, dtype=np.float64), 1e-300))) - digits + 1, smallest)
    expected = np.rint(x.astype(np.float64) / unit) * unit
    found = Rounded(name)(jt.array(x)).numpy()
    assert np.array_equal(found, expected.astype(np.float32))
    special = Rounded(name)(jt.array(np.array([np.nan, np.inf, -np.inf, 3.4e38], np.float32))).numpy()
    assert np.isnan(special[0]) and list(special[1:]) == [np.inf, -np.inf, np.inf]
