"""Probes of the feature networks: features and the input gradient of a random combination of them."""
import numpy as np

from jittwin.draws import Draws
from jittwin.perceptual import NETWORKS
from noise import perturb
from twins import gradients


def weights(shapes: dict, seed: int = 5) -> dict[str, np.ndarray]:
    """Random weights with which rounding errors rarely flip the sign of a ReLU.

    A flip changes the gradient of a whole field of view, and would drown what is to be compared.
    Every channel is shifted by two to three deviations, at random up (mostly active) or down (mostly 0).
    """
    draws, arrays = Draws(seed), {}
    for name, shape in shapes.items():
        values = draws.normal(name, shape)
        if len(shape) == 4:
            arrays[name] = values * np.float32(np.sqrt(0.4 / np.prod(shape[1:])))
        elif name.endswith((".bn.weight", ".running_var")):
            arrays[name] = 0.75 + 0.5 * draws.uniform(name, shape)
        elif name.endswith(".running_mean"):
            arrays[name] = values * np.float32(0.1)
        else:
            arrays[name] = 2.5 * np.sign(values) + np.float32(0.1) * values
    return arrays


def features(backend, kind: str, image: np.ndarray, draws: int, eps: float | None = None, **options) -> dict:
    """Results named "<draw>/feature<i>" and "<draw>/gradient"; draw 0 is unperturbed."""
    network = backend.build(NETWORKS[kind].model, None, **options)
    if eps is not None:
        for part in network.modules():
            if hasattr(part, "batch_statistics"):
                part.eps = eps
    state = weights({name: value.shape for name, value in backend.state_numpy(network).items()})
    results = {}
    for draw in range(draws + 1):
        moved = perturb({"image": image, **state}, draw)
        backend.load_numpy(network, {name: moved[name] for name in state})

        def combine(tensors):
            found = network(tensors["image"])
            loss = 0
            for index, feature in enumerate(found):
                direction = Draws(7).normal(f"direction{index}", tuple(feature.shape))
                scale = np.float32(1 / np.sqrt(direction.size))
                loss = loss + (feature * backend.asarray((direction * scale).astype(image.dtype))).sum()
            return loss, found

        found, slopes = gradients(backend, combine, {"image": moved["image"]})
        results |= {f"{draw}/feature{index}": backend.numpy(f) for index, f in enumerate(found)}
        results[f"{draw}/gradient"] = slopes["image"]
    return results


def vgg(backend, arrays):
    return features(backend, "vgg", arrays["image"], int(arrays["draws"]))


def inception_batch(backend, arrays):
    return features(backend, "inception", arrays["image"], int(arrays["draws"]), batch_statistics=True)


def inception_running(backend, arrays):
    return features(backend, "inception", arrays["image"], int(arrays["draws"]), batch_statistics=False)


def inception_wrong_epsilon(backend, arrays):
    return features(backend, "inception", arrays["image"], int(arrays["draws"]), eps=1e-5)
