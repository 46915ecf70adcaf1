"""What networks of APF-GAN are worth: their pictures of a folder of label maps, measured.

Selection and averaging of checkpoints both ask here. Pictures go through the same files as `jittwin generate`
writes, because JPEG changes FID.
"""
import argparse
import shutil
import tempfile
from functools import cached_property
from pathlib import Path

from jittwin.aesthetic import AestheticMetric, ScorerPredictor, read_scorer
from jittwin.assess import MARK, assess
from jittwin.commands import fid as fid_command
from jittwin.data.landscape import LandscapeDataset
from jittwin.data.pictures import ImageSet
from jittwin.generate import Renderer, Sampler, check_measurable
from jittwin.metrics.fid.preparation import MODES
from jittwin.metrics.fid.statistics import fid
from jittwin.metrics.mask_accuracy import MaskAccuracy
from jittwin.weights import fingerprint


def add_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    """What an evaluation needs: label maps, a reference, the networks that measure."""
    parser.add_argument("--labels", required=required, metavar="DIR", help="label maps to make pictures of")
    parser.add_argument("--reference", required=required, metavar="STATS",
                        help="FID is measured to these statistics, folder or zip file")
    parser.add_argument("--mode", choices=MODES, default="pytorch-fid", help="of FID (default: pytorch-fid)")
    parser.add_argument("--width", type=int, metavar="PIXELS", help="of the pictures (default: as trained)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise (default: 0)")
    fid_command.add_network_arguments(parser, weights="--fid-weights")


class Evaluation:
    """FID of the pictures that some networks make, and their mask accuracy and aesthetic score where asked for.

    segmenter: a SegFormer's weights. real: photographs of the label maps, whose mask accuracy is what to hope for
    (None: those of the data set, if args.labels is one).
    aesthetic: adapters of the aesthetic scorer, whose tower is args.tower. config: sizes of the first networks to come,
    whose label maps are then checked before the reference is measured. UserError, before any picture is made: no
    weights, no reference, label maps that do not fit.
    """

    def __init__(self, args: argparse.Namespace, segmenter: str | None = None, real: str | None = None,
                 aesthetic: str | None = None, config=None):
        self.args, self.real = args, real
        if segmenter and real is None and (own := Path(args.labels) / "imgs").is_dir():
            self.real = own
        self.scorer = fid_command.scorer(args)
        self.backend = self.scorer.backend
        self.masks = MaskAccuracy(self.backend, segmenter, workers=args.workers) if segmenter else None
        self.aesthetic = None
        if aesthetic:
            scorer = read_scorer(aesthetic, args.tower, args.random_weights)
            self.aesthetic = AestheticMetric(ScorerPredictor(self.backend, scorer, args.batch))
        self.mark = MARK * self.scorer.inception.random
        self.untrained = {"fid", "score"} if self.mark else set()      # values that rest on random weights
        if self.aesthetic and self.aesthetic.random:
            self.untrained |= {"aesthetic", "score"}
        self.source = self.scorer.opened(args.reference)
        if config is not None:
            check_measurable(self.labels(config), args)
        self.reference = self.scorer.statistics(self.source)

    def settings(self) -> dict:
        """What the values depend on besides the networks."""
        args, source = self.args, self.source
        # Of pictures themselves: another batch or number of threads moves the last digits of their statistics.
        reference = (source.fingerprint() if isinstance(source, ImageSet) else
                     fingerprint({"mean": source.mean, "covariance": source.covariance}))
        return {"labels": ImageSet(args.labels).fingerprint(), "reference": reference, "mode": args.mode,
                "seed": args.seed, "width": args.width, "weights": self.scorer.inception.weights,
                "backend": args.backend, "segmenter": self.masks and self.masks.weights,
                "real": self.real and ImageSet(self.real).fingerprint(),
                "aesthetic": self.aesthetic and self.aesthetic.provenance}

    @cached_property
    def upper_anchor(self) -> dict[str, float]:
        """Mask accuracy of the photographs, measured once."""
        if self.masks is None or self.real is None:
            return {}
        return {"mask_accuracy_real": self.masks.measure(self.real, self.args.labels)["mask_accuracy"]}

    def labels(self, config) -> LandscapeDataset:
        """The label maps at the size that networks of these sizes draw."""
        return LandscapeDataset(self.args.labels, train=False, crop_size=self.args.width or config.crop_size)

    def __call__(self, weights: dict, config) -> dict[str, float]:
        """Of weights {"E": arrays, "G": arrays} and the sizes they were saved with: {"fid": …} and more."""
        renderer = Renderer(Sampler(self.backend, config, weights), self.labels(config))
        folder = Path(tempfile.mkdtemp(prefix="jittwin-"))
        try:
            renderer.render({self.args.seed: folder})
            pictures = self.scorer.compute(ImageSet(folder), quiet=True)
            seen = self.masks.measure(folder, self.args.labels) if self.masks else {}
            if self.aesthetic:
                found = assess(ImageSet(folder), [self.aesthetic], self.args.batch, self.args.workers, quiet=True)
                seen["aesthetic"] = found.summary(self.aesthetic)["mean"]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return {"fid": fid(pictures, self.reference), **seen, **self.upper_anchor}
