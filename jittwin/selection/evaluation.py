"""Evaluation of APF-GAN networks: pictures of a folder of label maps are generated and measured.

Selection and averaging of checkpoints both use it. The pictures are saved as JPEG files as by `jittwin generate`,
because JPEG changes FID.
"""
import shutil
import tempfile
from functools import cached_property
from pathlib import Path

from jittwin.data.landscape import LandscapeDataset
from jittwin.data.listing import tell
from jittwin.data.pictures import ImageSet
from jittwin.errors import UserError
from jittwin.generate import Renderer, Sampler
from jittwin.metrics.assessment import assess
from jittwin.metrics.fid.features import FidScorer
from jittwin.metrics.fid.statistics import fid
from jittwin.metrics.mask_accuracy import MaskAccuracy
from jittwin.metrics.metric import MARK, Metric
from jittwin.models.apf_gan import MULTIPLE
from jittwin.weights import content_hash


def check_measurable(labels: LandscapeDataset, folder, reference) -> None:
    """UserError when there are too few label maps for the FID of their pictures."""
    if len(labels) < 2:
        raise UserError(f"{folder}: holds one label map, and FID to {reference} needs at least two pictures")


class Evaluation:
    """Measures the pictures that networks generate: FID and, where asked for, mask accuracy and aesthetic score.

    folder: label maps. reference: the pictures or statistics that FID is measured to, see FidScorer.opened. width: of
    the pictures in pixels; None: as trained. seed: of the noise. masks: measures mask accuracy. real: photographs of
    the label maps, for the upper anchor of mask accuracy; None: those of the data set, if the label maps belong to one.
    aesthetic: the aesthetic metric. config: sizes of the networks; the label maps are checked for them before the
    reference is measured. ignore: see jittwin.classes.ignoring. UserError, before any picture is generated: no
    reference, label maps that do not fit.
    """

    def __init__(self, scorer: FidScorer, folder, reference, width: int | None = None, seed: int = 0,
                 masks: MaskAccuracy | None = None, real=None, aesthetic: Metric | None = None, config=None,
                 ignore: str | None = None):
        self.ignore = ignore
        self.scorer, self.folder, self.width, self.seed = scorer, folder, width, seed
        self.masks, self.real, self.aesthetic = masks, real, aesthetic
        if masks and real is None and (own := Path(folder) / "imgs").is_dir():
            self.real = own
        self.mark = MARK * scorer.inception.random
        self.untrained = {"fid", "score"} if self.mark else set()      # values that rest on random weights
        if aesthetic and aesthetic.random:
            self.untrained |= {"aesthetic", "score"}
        self.source = scorer.opened(reference)
        if config is not None:
            labels = self.labels(config)
            tell(labels.notes)
            check_measurable(labels, folder, reference)
        self.reference = scorer.statistics(self.source)

    def settings(self) -> dict:
        """Everything that the values depend on besides the networks."""
        scorer, source = self.scorer, self.source
        # Pictures are hashed themselves: the last digits of their statistics depend on batch and threads.
        reference = (source.content_hash() if isinstance(source, ImageSet) else
                     content_hash({"mean": source.mean, "covariance": source.covariance}))
        return {"labels": ImageSet(self.folder).content_hash(), "reference": reference, "mode": scorer.mode,
                "seed": self.seed, "width": self.width, "weights": scorer.inception.weights,
                "backend": scorer.backend.name, "segmenter": self.masks and self.masks.weights,
                "real": self.real and ImageSet(self.real).content_hash(),
                "aesthetic": self.aesthetic and self.aesthetic.provenance,
                **({"ignore": self.ignore} if self.ignore else {})}

    @cached_property
    def upper_anchor(self) -> dict[str, float]:
        """{"mask_accuracy_real"}: mask accuracy of the photographs, measured once; {} without photographs."""
        if self.masks is None or self.real is None:
            return {}
        return {"mask_accuracy_real": self.masks.measure(self.real, self.folder)["mask_accuracy"]}

    def labels(self, config) -> LandscapeDataset:
        """The label maps at the size of the pictures that networks of `config` generate."""
        return LandscapeDataset(self.folder, train=False, crop_size=self.width or config.crop_size, multiple=MULTIPLE,
                                ignore=self.ignore)

    def __call__(self, weights: dict, config) -> dict[str, float]:
        """Generate pictures and measure them: {"fid", "mask_accuracy", "aesthetic", …}, as far as asked for.

        weights: {"E": arrays, "G": arrays}. config: the sizes of these networks.
        """
        renderer = Renderer(Sampler(self.scorer.backend, config, weights), self.labels(config))
        folder = Path(tempfile.mkdtemp(prefix="jittwin-"))
        try:
            renderer.render({self.seed: folder})
            pictures = self.scorer.compute(ImageSet(folder), quiet=True)
            seen = self.masks.measure(folder, self.folder) if self.masks else {}
            if self.aesthetic:
                found = assess(ImageSet(folder), [self.aesthetic], self.scorer.batch, self.scorer.workers, quiet=True)
                seen["aesthetic"] = found.summary(self.aesthetic)["mean"]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return {"fid": fid(pictures, self.reference), **seen, **self.upper_anchor}
