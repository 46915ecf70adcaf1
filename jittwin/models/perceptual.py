"""The feature networks of APF-GAN's perceptual losses, and their weights.

Phase 1 compares VGG-19 features (Johnson et al. 2016, arXiv 1603.08155), phase 2 Inception-v3
features. Both take images in [-1, 1] as they are, without ImageNet normalisation.
"""
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from jittwin.backend import Backend
from jittwin.errors import UserError, choose_from
from jittwin.models.apf_gan import Semantics
from jittwin.models.catalog import find
from jittwin.weights import content_hash
from jittwin.weights.initial import initial_weights


@dataclass(frozen=True)
class Network:
    """A feature network. name: of the loss. model: name for Backend.build. layer_weights: one per feature."""

    name: str
    model: str
    layer_weights: tuple[float, ...]


NETWORKS = {
    "vgg": Network("VGG", "vgg19", (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)),
    "inception": Network("Inception", "inception_v3", (1 / 16, 1 / 8, 1 / 4, 1.0)),
}


class Perceptual(NamedTuple):
    """A loaded feature network.

    name: of the loss; ends in "(random)" if the network is not trained. provenance: a description for logs.
    """

    name: str
    network: Any
    layer_weights: tuple[float, ...]
    provenance: str


def load_perceptual(backend: Backend, kind: str, weights: str | os.PathLike | None = None,
                    random: bool = False, semantics: Semantics = Semantics(),
                    seed: int = 0) -> Perceptual | None:
    """The network of a perceptual loss; None, and therefore no loss, if there are no weights.

    kind: "vgg" or "inception". weights: a file with torchvision's keys, of the whole classifier or of
    its features, from PyTorch or Jittor. random: without a file, draw the weights; they depend only on
    `seed` and the keys, so they are the same in both twins. UserError: unknown kind, a file that cannot
    be read or belongs to another network.
    """
    if kind not in NETWORKS:
        raise UserError(f"unknown perceptual network {kind!r}{choose_from(kind, NETWORKS)}")
    if weights is None and not random:
        return None
    record = NETWORKS[kind]
    conversion = find(record.model).conversion
    arrays = None if weights is None else conversion.open(weights).arrays
    options = {"batch_statistics": semantics.inception_bn == "batch"} if kind == "inception" else {}
    network = backend.build(record.model, None, **options)
    if arrays is None:
        shapes = backend.state_shapes(record.model, None, **options)
        backend.load_numpy(network, initial_weights(record.model, shapes, seed))
        return Perceptual(f"{record.name}(random)", network, record.layer_weights,
                          f"random (seed {seed}): {record.model} is not trained")
    try:
        backend.load_numpy(network, arrays, allow_unexpected=conversion.beside)
    except UserError as error:
        raise UserError(f"{error}; the {record.name} loss takes torchvision-layout "
                        f"{record.model} weights") from error
    digest = content_hash(backend.state_numpy(network))[:16]
    return Perceptual(record.name, network, record.layer_weights,
                      f"{os.path.basename(weights)}, features sha256 {digest}")
