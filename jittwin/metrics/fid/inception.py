"""The network of FID and the weights it runs with."""
import os
from typing import Any, NamedTuple

import numpy as np

from jittwin.backend import Backend
from jittwin.errors import UserError
from jittwin.metrics.fid.preparation import find_mode
from jittwin.models.catalog import find
from jittwin.models.inception import CLASSES, CLASSIFIER, FID_FILES, WIDTH
from jittwin.weights import content_hash
from jittwin.weights.initial import initial_weights


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
                            f"FILE ({FID_FILES}), or --random-weights to go on with untrained ones")
        backend.load_numpy(network, initial_weights("inception_fid", backend.state_shapes("inception_fid", None)))
        classifier = initial_weights("inception_fid", {"fc.weight": (CLASSES, WIDTH)})["fc.weight"]
        return Inception(network, classifier, "random")
    conversion = find("inception_fid").conversion
    source = conversion.open(weights)
    conversion.infer(source.arrays.shapes, source)
    try:
        backend.load_numpy(network, source.arrays, allow_unexpected=conversion.beside)
    except UserError as error:
        raise UserError(f"{error}; FID takes {FID_FILES}") from error
    classifier = np.asarray(source.arrays[CLASSIFIER[0]], np.float32)
    return Inception(network, classifier, content_hash(backend.state_numpy(network) | {"fc.weight": classifier}))
