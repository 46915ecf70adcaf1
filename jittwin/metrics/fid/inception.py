"""The network of FID and the weights it runs with."""
import os
from typing import Any, NamedTuple

import numpy as np

from jittwin.backend import Backend
from jittwin.errors import UserError
from jittwin.metrics.fid.preparation import find_mode
from jittwin.weights import content_hash, read_weights
from jittwin.weights.initial import initial_weights

CLASSES, WIDTH = 1008, 2048
CLASSIFIER = ("fc.weight", "fc.bias")
FILES = "pytorch-fid's pt_inception-2015-12-05-6726825d.pth or the published APF-GAN's net_params.pkl"


class Inception(NamedTuple):
    """network: see FidInception. classifier: (1008, 2048). weights: SHA-256 of everything loaded, or "random"."""

    network: Any
    classifier: np.ndarray
    weights: str

    @property
    def random(self) -> bool:
        return self.weights == "random"

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(n, 2048) to (n, 1008) without the bias, as the inception score is defined."""
        return features @ self.classifier.T


def load_inception(backend: Backend, weights: str | os.PathLike | None, random: bool, mode: str) -> Inception:
    """The network in the convention `mode`. UserError: no weights and not `random`, a file of another network.

    Random weights depend on the key names alone and are the same in both twins: distances made with them
    compare pictures, but not with any published number.
    """
    network = backend.build("inception_fid", None, pool_padding=find_mode(mode).pool_padding)
    if weights is None:
        if not random:
            raise UserError("FID needs weights: give Inception's with --fid-weights FILE, or of jittwin fid --weights "
                            f"FILE ({FILES}), or --random-weights to go on with untrained ones")
        backend.load_numpy(network, initial_weights("inception_fid", backend.state_shapes("inception_fid", None)))
        classifier = initial_weights("inception_fid", {"fc.weight": (CLASSES, WIDTH)})["fc.weight"]
        return Inception(network, classifier, "random")
    arrays = read_weights(weights)
    shape = arrays[CLASSIFIER[0]].shape if CLASSIFIER[0] in arrays else None
    if shape != (CLASSES, WIDTH):
        raise UserError(f"{os.fspath(weights)}: fc.weight is {shape or 'missing'}, not ({CLASSES}, {WIDTH}): "
                        f"FID takes {FILES}; torchvision's inception_v3 is another network")
    try:
        backend.load_numpy(network, arrays, allow_unexpected=(*CLASSIFIER, "*.num_batches_tracked", "AuxLogits.*"))
    except UserError as error:
        raise UserError(f"{os.fspath(weights)}: {error}; FID takes {FILES}") from error
    classifier = np.asarray(arrays[CLASSIFIER[0]], np.float32)
    return Inception(network, classifier, content_hash(backend.state_numpy(network) | {"fc.weight": classifier}))
