"""What parity does not run: Florence-2 with gradient checkpointing, and the detector in bfloat16."""
import numpy as np
import pytest

from jittwin.models.distortion import make_config
from jittwin.weights.initial import initial_weights
from jt_models.boot import jt
from jt_models.nn.layers import Conv2d, Linear, checkpoint

CONFIG = make_config("tiny", "linear2", "concat", "fast")
KEEP = (np.arange(7) < np.array([[7], [4], [5]])).astype(np.int32)
IDS = np.where(KEEP, np.random.default_rng(1).integers(2, 60, KEEP.shape), 1).astype(np.int32)
PIXELS = np.random.default_rng(2).standard_normal((3, 3, 96, 96)).astype(np.float32)


@pytest.fixture(scope="module")
def arrays(backend):
    return dict(initial_weights("distortion", backend.state_shapes("distortion", CONFIG)))


def built(backend, arrays, **options):
    network = backend.build("distortion", CONFIG, **options)
    backend.load_numpy(network, arrays)
    return network


def test_checkpointing_changes_nothing(backend, arrays):
    found = []
    for flag in (False, True):
        network = built(backend, arrays, gradient_checkpointing=flag)
        backend.train_mode(network, True)
        backend.seed(5)
        heat, score = network(*map(backend.asarray, (PIXELS, IDS, KEEP)))
        slopes = jt.grad((heat * heat).mean() + (score * score).mean(), list(backend.parameters(network).values()))
        found.append([slope.numpy() for slope in slopes])
    assert all(np.array_equal(first, second) for first, second in zip(*found, strict=True))
    assert sum(bool(slope.any()) for slope in found[0]) > 0.9 * len(found[0])


def test_bfloat16_is_near(backend, arrays):
    network = built(backend, arrays)
    backend.train_mode(network, False)
    with backend.no_grad():
        single = [x.numpy() for x in network(*map(backend.asarray, (PIXELS, IDS, KEEP)))]
        backend.set_precision("bfloat16")
        try:
            half = [x.numpy() for x in network(*map(backend.asarray, (PIXELS, IDS, KEEP)))]
        finally:
            backend.set_precision("float32")
    for first, second in zip(single, half, strict=True):
        assert second.dtype == np.float32 and 0 < np.abs(first - second).max() < 0.1


def test_a_convolution_after_a_checkpoint_takes_no_memory_of_its_own(backend):
    """While the gradient of the checkpointed layer is computed, the convolution's seven-dimensional products, 2.7 GB
    here, are not stored."""
    linear, conv = Linear(96, 96), Conv2d(64, 64, 3, padding=1)
    for layer in (linear, conv):
        layer.weight.assign(np.random.default_rng(3).standard_normal(layer.weight.shape).astype(np.float32))
    x = backend.asarray(np.ones((2, 64, 96, 96), np.float32))
    before = backend.memory()
    y = conv(checkpoint(linear, x))
    for slope in jt.grad((y * y).mean(), [linear.weight, conv.weight]):
        assert slope.numpy().any()
    assert backend.memory() - before < 1e9
