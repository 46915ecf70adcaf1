"""The feature networks of APF-GAN's perceptual losses and the weights they run with.

Phase 1 compares VGG-19 features (Johnson et al. 2016, arXiv 1603.08155), phase 2 Inception-v3
features. Both take images in [-1, 1] as they are, without ImageNet normalisation.
"""
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jittwin.backend import Backend
from jittwin.draws import Draws
from jittwin.errors import UserError, choose_from
from jittwin.models.apf_gan import Semantics
from jittwin.weights import fingerprint, read_weights


@dataclass(frozen=True)
class Network:
    """name: of the loss. model: what Backend.build calls it. layer_weights: one per feature.

    beyond: patterns of the keys that a complete classifier file has and the features do not need.
    """
    name: str
    model: str
    layer_weights: tuple[float, ...]
    beyond: tuple[str, ...]


NETWORKS = {
    # The convolutions after relu5_1 are features.30, .32 and .34.
    "vgg": Network("VGG", "vgg19", (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0),
                   ("features.3[0-9].*", "classifier.*")),
    "inception": Network("Inception", "inception_v3", (1 / 16, 1 / 8, 1 / 4, 1.0),
                         ("AuxLogits.*", "fc.*", "*.num_batches_tracked")),
}


class Perceptual(NamedTuple):
    """name: of the loss, ending in "(random)" if the network is not trained. provenance: for logs."""

    name: str
    network: Any
    layer_weights: tuple[float, ...]
    provenance: str


def load_perceptual(backend: Backend, kind: str, weights: str | os.PathLike | None = None,
                    random: bool = False, semantics: Semantics = Semantics(),
                    seed: int = 0) -> Perceptual | None:
    """The network of a perceptual loss; None, so no loss, when there are no weights.

    kind: "vgg" or "inception". weights: a torchvision-layout file of the whole classifier or of its
    features, from PyTorch or Jittor. random: without a file, draw the weights, which depend on `seed`
    and the key names alone and so are the same in both twins. UserError: unknown kind, a file that
    cannot be read or belongs to another network.
    """
    if kind not in NETWORKS:
        raise UserError(f"unknown perceptual network {kind!r}{choose_from(kind, NETWORKS)}")
    if weights is None and not random:
        return None
    record = NETWORKS[kind]
    arrays = None if weights is None else read_weights(weights)
    options = {"batch_statistics": semantics.inception_bn == "batch"} if kind == "inception" else {}
    network = backend.build(record.model, None, **options)
    if arrays is None:
        shapes = {name: value.shape for name, value in backend.state_numpy(network).items()}
        backend.load_numpy(network, random_weights(kind, shapes, seed))
        return Perceptual(f"{record.name}(random)", network, record.layer_weights,
                          f"random (seed {seed}): {record.model} is not trained")
    try:
        backend.load_numpy(network, arrays, allow_unexpected=record.beyond)
    except UserError as error:
        raise UserError(f"{os.fspath(weights)}: {error}; the {record.name} loss takes torchvision-layout "
                        f"{record.model} weights") from error
    digest = fingerprint(backend.state_numpy(network))[:16]
    return Perceptual(record.name, network, record.layer_weights,
                      f"{os.path.basename(weights)}, features sha256 {digest}")


def random_weights(kind: str, shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Initial float32 state as torchvision draws it: for VGG He-normal by fan-out (arXiv 1502.01852),
    for Inception a normal of deviation 0.1 cut off at 0.2; norms are the identity, biases 0."""
    draws, arrays = Draws(seed), {}
    for name, shape in shapes.items():
        if len(shape) == 4 and kind == "vgg":
            deviation = np.sqrt(2.0 / (shape[0] * shape[2] * shape[3]))
            arrays[name] = draws.normal(name, shape) * np.float32(deviation)
        elif len(shape) == 4:
            arrays[name] = _truncated_normal(draws.generator(name), shape) * np.float32(0.1)
        else:
            one = name.endswith((".bn.weight", ".running_var"))
            arrays[name] = np.full(shape, 1.0 if one else 0.0, np.float32)
    return arrays


def _truncated_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 within two deviations; values outside are drawn again."""
    values = generator.standard_normal(shape, dtype=np.float32)
    while (outside := np.abs(values) > 2).any():
        values[outside] = generator.standard_normal(int(outside.sum()), dtype=np.float32)
    return values
