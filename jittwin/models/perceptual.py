"""The feature networks of APF-GAN's perceptual losses and the weights they run with.

Phase 1 compares VGG-19 features (Johnson et al. 2016, arXiv 1603.08155), phase 2 Inception-v3
features. Both take images in [-1, 1] as they are, without ImageNet normalisation.
"""
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from jittwin.backend import Backend
from jittwin.errors import UserError, choose_from
from jittwin.models.apf_gan import Semantics
from jittwin.weights import content_hash, read_weights
from jittwin.weights.initial import initial_weights


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
        shapes = backend.state_shapes(record.model, None, **options)
        backend.load_numpy(network, initial_weights(record.model, shapes, seed))
        return Perceptual(f"{record.name}(random)", network, record.layer_weights,
                          f"random (seed {seed}): {record.model} is not trained")
    try:
        backend.load_numpy(network, arrays, allow_unexpected=record.beyond)
    except UserError as error:
        raise UserError(f"{os.fspath(weights)}: {error}; the {record.name} loss takes torchvision-layout "
                        f"{record.model} weights") from error
    digest = content_hash(backend.state_numpy(network))[:16]
    return Perceptual(record.name, network, record.layer_weights,
                      f"{os.path.basename(weights)}, features sha256 {digest}")
