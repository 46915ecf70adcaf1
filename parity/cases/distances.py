"""The case of the distances between sets of pictures, from pixels to the number."""
import numpy as np

from jittwin.draws import Draws
from jittwin.metrics.fid.kernel import kernel_distance
from jittwin.metrics.fid.moments import Moments
from jittwin.metrics.fid.statistics import Statistics, fid
from parity.case import Case, prepared
from parity.cases.backbones import FidInception


class Distances(Case):
    """Two sets of a few pictures of noise; those of one set grow brighter from left to right."""
    name = "inception_fid.distances"
    modes = ("eval",)
    levels = ("L8",)

    def build(self, side, size, mode):
        return FidInception().build(side, size, mode)

    def weights(self, shapes, seed):
        return FidInception().weights(shapes, seed)

    def inputs(self, size, mode):
        slope = np.linspace(0, 0.5, 64, dtype=np.float32)
        sets = {"a": Draws(1).uniform("a", (4, 3, 48, 64)), "b": Draws(1).uniform("b", (5, 3, 48, 64)) + slope}
        return {name: pictures / np.float32(1.5) for name, pictures in sets.items()}

    def measured(self, side, arrays, size, mode):
        """"exact FID" and "exact KID": real numbers, computed from a network's features."""
        network, inputs = prepared(side, arrays, self, size, mode)
        with side.backend.no_grad():
            features = [side.host(network(inputs[name])) for name in "ab"]
        sets = []
        for rows in features:
            moments = Moments()
            moments.add(rows)
            sets.append(Statistics(moments.mean, moments.covariance, moments.n, rows))
        return {"exact FID": np.array(fid(*sets)), "exact KID": np.array(kernel_distance(*features)[0])}


CASES = (Distances(),)
