"""Our .pkl reader and writer against Jittor itself."""
import numpy as np

from jittwin.weights import read_weights, write_weights
from jt_models.boot import jt, nn


class Net(nn.Module):
    def __init__(self):
        self.conv = nn.Conv(2, 3, 3)
        self.norm = nn.BatchNorm(3)

    def execute(self, x):
        return self.norm(self.conv(x))


def test_reads_what_jittor_saves(tmp_path):
    """The form that holds Vars; the trailer's checksum is Jittor's own."""
    net = Net()
    path = str(tmp_path / "net.pkl")
    jt.save(net.state_dict(), path)
    assert b"jittor_core.Var" in open(path, "rb").read()
    arrays, state = read_weights(path), net.state_dict(to="numpy")
    assert list(arrays) == list(state)
    for key, array in state.items():
        assert arrays[key].dtype == array.dtype and arrays[key].shape == array.shape
        assert arrays[key].tobytes() == array.tobytes(), key


def test_reads_the_numpy_form_jittor_saves(tmp_path):
    state = {"w": np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32), "n": np.arange(3)}
    path = str(tmp_path / "net.pkl")
    jt.save(state, path)
    arrays = read_weights(path)
    for key, array in state.items():
        assert arrays[key].dtype == array.dtype and np.array_equal(arrays[key], array)
    write_weights(path + "2.pkl", arrays)
    assert open(path + "2.pkl", "rb").read() == open(path, "rb").read()


def test_jittor_loads_what_we_write(tmp_path):
    source, target = Net(), Net()
    path = str(tmp_path / "net.pkl")
    write_weights(path, source.state_dict(to="numpy"))
    loaded = jt.load(path)
    target.load_state_dict(loaded)
    for key, array in source.state_dict(to="numpy").items():
        assert loaded[key].dtype == np.float32
        assert np.array_equal(target.state_dict(to="numpy")[key], array), key
