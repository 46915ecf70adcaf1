"""Networks that predictors and metrics share."""
import numpy as np
import pytest

from jittwin.models.segformer import preset
from jittwin.predictors.towers import Towers, inference_network


class Counting:
    """A backend that counts what it builds."""
    name, device = "counting", "cpu"

    def __init__(self):
        self.built = []

    def build(self, model, config):
        self.built.append(model)
        return {"model": model, "finished": 0}

    def load_numpy(self, network, arrays, allow_unexpected):
        network["arrays"] = dict(arrays)

    def train_mode(self, network, flag):
        network["training"] = flag


def finish(network):
    network["finished"] += 1


@pytest.fixture
def request_of():
    backend, towers = Counting(), Towers()

    def network(value=1.0, config=preset("B0"), dtype="float32", towers=towers, model="segformer", **more):
        return inference_network(backend, model, config, {"w": np.array([value])}, towers, dtype=dtype, finish=finish,
                                 **more)
    network.backend, network.towers = backend, towers
    return network


def test_equal_weights_are_built_once(request_of):
    first = request_of()
    assert request_of() is first and first["finished"] == 1 and first["training"] is False
    assert len(request_of.backend.built) == 1


@pytest.mark.parametrize("change", [{"value": 2.0}, {"config": preset("B1")}, {"dtype": "bfloat16"}, {"weights": "ab"},
                                    {"model": "other"}, {"towers": None}])
def test_anything_else_is_another_network(request_of, change):
    assert request_of(**change) is not request_of()
    assert len(request_of.backend.built) == 2


def test_released_networks_are_built_again(request_of):
    first = request_of()
    request_of.towers.release()
    assert request_of() is not first and len(request_of.backend.built) == 2


def test_without_a_place_to_share_nothing_is_hashed(request_of):
    class Unread(dict):
        def items(self):
            raise AssertionError

    inference_network(request_of.backend, "segformer", preset("B0"), Unread())
