"""The Inception network of FID, and its weights."""
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
from jittwin.weights.state import value_of


class Inception(NamedTuple):
    """The network of FID with its weights.

    network: FidInception of a twin. classifier: float32 (1008, 2048). weights: SHA-256 of all arrays, or "random".
    """

    network: Any
    classifier: np.ndarray
    weights: str

    @property
    def random(self) -> bool:
        return self.weights == "random"

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Features (n, 2048) to logits (n, 1008) without the bias, as for the published inception score."""
        return features @ self.classifier.T


def load_inception(backend: Backend, weights: str | os.PathLike | None, random: bool, mode: str) -> Inception:
    """The network in the convention `mode`. UserError: neither weights nor `random`, or a file of another network.

    Random weights depend only on the key names and are the same in both twins. Distances measured with them can be
    compared with each other, but not with published numbers.
    """
    network = backend.build("inception_fid", None, pool_padding=find_mode(mode).pool_padding)
    if weights is None:
        if not random:
            raise UserError("FID needs weights of Inception: give --fid-weights FILE (--weights FILE to jittwin fid), "
                            f"{FID_FILES}; or --random-weights for an untrained network")
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
    classifier = value_of(source.arrays, CLASSIFIER[0], True).astype(np.float32, copy=False)
    return Inception(network, classifier, content_hash(backend.state_numpy(network) | {"fc.weight": classifier}))
