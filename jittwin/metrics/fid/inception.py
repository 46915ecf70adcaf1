"""The network of FID and the weights it runs with."""
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jittwin.backend import Backend
from jittwin.draws import Draws
from jittwin.errors import UserError
from jittwin.metrics.fid.preparation import find_mode
from jittwin.weights import fingerprint, read_weights

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
        shapes = {name: value.shape for name, value in backend.state_numpy(network).items()}
        backend.load_numpy(network, random_weights(shapes))
        return Inception(network, random_weights({"fc.weight": (CLASSES, WIDTH)})["fc.weight"], "random")
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
    return Inception(network, classifier, fingerprint(backend.state_numpy(network) | {"fc.weight": classifier}))


def random_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """He-normal by fan-in (arXiv 1502.01852), so that features are of order one; norms are the identity."""
    arrays = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            arrays[name] = Draws(0).normal(name, shape) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        else:
            arrays[name] = np.full(shape, float(name.endswith((".bn.weight", ".running_var"))), np.float32)
    return arrays
