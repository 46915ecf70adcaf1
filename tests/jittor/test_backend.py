"""The Jittor twin's backend: which devices it takes."""
import pytest
from shapes import (  # noqa: F401  (tests)
    test_every_model_is_looked_at,
    test_options_reach_the_module,
    test_shapes_are_those_of_the_built_module,
    test_shapes_of_a_large_network_take_no_memory,
)

from jittwin.errors import UserError
from jt_models.backend import Backend


def test_the_cpu_alone_is_usable():
    backend = Backend()
    reason = "device cuda: the Jittor twin runs on the CPU; use --device cpu or --backend torch"
    assert backend.usable("cpu") == "" and backend.usable("cuda") == reason
    with pytest.raises(UserError) as error:
        backend.setup(device="cuda")
    assert str(error.value) == reason
