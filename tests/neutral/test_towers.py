"""Networks that predictors and metrics share."""
import numpy as np
import pytest

from jittwin.errors import UserError
from jittwin.models.segformer import preset
from jittwin.predictors.towers import Tower, Towers, bytes_of
from jittwin.weights.lazy import LazyArrays


class Counting:
    """A backend that counts what it builds."""
    name, device = "counting", "cpu"

    def __init__(self):
        self.built, self.freed = [], []

    def build(self, model, config):
        self.built.append(model)
        return {"model": model, "finished": 0}

    def free_memory(self):
        self.freed.append(len(self.built))

    def state_shapes(self, model, config):
        return {"w": (1,)}

    def load_numpy(self, network, arrays, allow_unexpected):
        network["arrays"] = dict(arrays)

    def infer_only(self, network):
        network["training"] = False


def finish(network):
    network["finished"] += 1


@pytest.fixture
def request_of():
    backend, towers = Counting(), Towers()

    def network(value=1.0, config=preset("B0"), dtype="float32", towers=towers, model="segformer", **more):
        return Tower(backend, model, config, {"w": np.array([value])}, towers, dtype=dtype, finish=finish, **more).network
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
    assert request_of.backend.freed == [0, 1]       # before each is built


def test_without_a_place_to_share_nothing_is_hashed_and_it_is_built_at_once(request_of):
    backend = request_of.backend
    tower = Tower(backend, "segformer", preset("B0"), LazyArrays({"w": (1,)}, lambda name: np.zeros(1)))
    assert len(backend.built) == 1 and tower.network is tower.network and len(backend.built) == 1
    backend.load_numpy = lambda *arguments, **more: None
    Tower(backend, "segformer", preset("B0"), LazyArrays({"w": (1,)}, {}.__getitem__))      # no array is read


def test_with_a_place_it_is_built_when_it_is_used_but_its_shapes_are_checked_before(request_of):
    backend, arrays = request_of.backend, {"w": np.zeros(1)}
    tower = Tower(backend, "segformer", preset("B0"), arrays, Towers())
    assert not backend.built and tower.bytes == 4 and tower.network and backend.built
    with pytest.raises(UserError, match=r"the weights do not fit the model: 1 of another shape: w \(2,\) instead"):
        Tower(backend, "segformer", preset("B0"), {"w": np.zeros(2)}, Towers())


def test_a_network_that_several_share_counts_once(request_of):
    def tower(value, towers):
        return Tower(request_of.backend, "segformer", preset("B0"), {"w": np.array([value])}, towers)

    towers = Towers()
    assert bytes_of([tower(1, towers), tower(1, towers), tower(2, towers), tower(1, None), tower(1, None)]) == 16
