"""Networks that PyTorch compiles give the results that they give without, whichever of their features is asked for."""
import numpy as np
import pytest
import torch

from jittwin.backend import ready_backend
from jittwin.draws import Draws
from jittwin.errors import UserError
from jittwin.models import clip, distortion, tier
from jittwin.weights.initial import initial_weights

PIXELS = Draws(0).normal("pixels", (2, 3, 64, 64))
IDS = np.array([[2, 7, 3, 12, 41, 5], [2, 3, 9, 5, 1, 1]], np.int32)
KEEP = (IDS != 1).astype(np.int32)
ASKED = {
    "clip": (clip.PRESETS["tiny"], [lambda network, pixels, ids, keep: network.image_features(pixels),
                                    lambda network, pixels, ids, keep: network.text_features(ids)]),
    "tier": (tier.make_config("nr", "resnet18", "tiny"), [lambda network, *given: network(*given)]),
    "distortion": (distortion.make_config("tiny", text_mode="fast"),
                   [lambda network, *given: torch.cat([part.flatten() for part in network(*given)])]),
}


def graphs() -> int:
    """How many pieces of networks have been compiled."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("model", ["clip", "tier", pytest.param("distortion", marks=pytest.mark.slow)])
def test_compiled_networks_give_the_same(model):
    config, questions = ASKED[model]
    answers = []
    for compiled in (False, True):
        backend, _ = ready_backend("torch", "cpu", compiled=compiled)
        network = backend.build(model, config)
        backend.load_numpy(network, initial_weights(model, backend.state_shapes(model, config)))
        backend.infer_only(network)
        side = getattr(config, "image_size", None) or config.vision.image_size
        given = list(map(backend.asarray, (PIXELS[:, :, :side, :side], IDS, KEEP)))
        with backend.no_grad():
            for question in questions:
                before = graphs()
                answers.append(backend.numpy(question(network, *given)))
                assert (graphs() > before) == compiled
    for plain, compiled in zip(answers, answers[len(questions):]):
        np.testing.assert_allclose(compiled, plain, rtol=0, atol=2e-6 * abs(plain).max())
        assert abs(plain).max() > 1e-3


def test_a_machine_that_cannot_compile(monkeypatch):
    def compile(work):
        raise RuntimeError("No working C++ compiler found\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(UserError, match=r"--compile: torch.compile does not work here \(No working C\+\+ compiler found\): "
                                        "leave it out"):
        ready_backend("torch", "cpu", compiled=True)
