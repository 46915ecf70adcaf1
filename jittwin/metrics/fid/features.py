"""Statistics of picture sets on either backend; one decoding and one forward pass serve all metrics."""
import itertools
import os
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from jittwin.backend import Backend
from jittwin.data.listing import tell
from jittwin.data.pictures import ImageSet, prepared
from jittwin.errors import UserError
from jittwin.launching import own_work
from jittwin.metrics.fid.cache import cached
from jittwin.metrics.fid.inception import WIDTH, load_inception
from jittwin.metrics.fid.moments import Moments
from jittwin.metrics.fid.preparation import Kept, find_mode
from jittwin.metrics.fid.statistics import Statistics, is_statistics, read_statistics
from jittwin.processes import gathered, gathered_values

KEPT = 10_000      # most features kept per set; metrics other than FID need them
PREPARATION = 3    # key of the cache; raise it when decoding, a mode or the choice of kept features changes
BATCH = 16


class FidScorer:
    """Measures Inception features of pictures.

    weights, random: see load_inception, also for UserErrors. mode: "pytorch-fid", "clean" or "apf-gan", see
    jittwin.metrics.fid.preparation. batch: pictures per forward pass. workers: decoding threads. skip_bad: count and
    skip pictures that cannot be read; otherwise the first one is a UserError. cache: use cached statistics. shared:
    where there are several processes, they share the pictures of every set.
    """

    def __init__(self, backend: Backend, weights: str | os.PathLike | None = None, random: bool = False,
                 mode: str = "pytorch-fid", batch: int = BATCH, workers: int | None = None, skip_bad: bool = False,
                 cache: bool = True, shared: bool = True):
        self.backend, self.mode, self.batch, self.workers = backend, mode, batch, workers
        self.skip_bad, self.cache, self.shared = skip_bad, cache, shared and backend.world_size > 1
        self.inception = load_inception(backend, weights, random, mode)

    def opened(self, source) -> Statistics | ImageSet:
        """The Statistics of a file, or the ImageSet of a folder, a zip file or a list of files.

        No picture is decoded, so errors show before the long part. Files that are passed over are told on stderr.
        UserError: fewer than two pictures, statistics of another network or mode.
        """
        if isinstance(source, (str, os.PathLike)) and is_statistics(source):
            return checked(read_statistics(source), source, self.mode, self.inception.weights)
        images = ImageSet(source)
        if len(images) < 2:
            raise UserError(f"{next(iter(images.notes), images)}: holds one picture; a distance needs at least two")
        tell(images.notes)
        return images

    def statistics(self, source, quiet: bool = False) -> Statistics:
        """The statistics of a source that `opened` takes, or of its result. UserError: as there; a damaged picture."""
        images = source if isinstance(source, (Statistics, ImageSet)) else self.opened(source)
        if isinstance(images, Statistics):
            return images
        if not self.cache:
            return self.compute(images, quiet)
        key = {"images": images.content_hash(), "mode": self.mode, "weights": self.inception.weights,
               "kept": KEPT, "preparation": PREPARATION, "backend": self.backend.name, "skip_bad": self.skip_bad}
        return cached(key, lambda: self.compute(images, quiet))

    def resized(self, kept: Kept | np.ndarray) -> np.ndarray:
        """What the mode kept of a picture, as the network sees it: float32 (3, S, S)."""
        if isinstance(kept, np.ndarray):
            image = self.backend.asarray(kept[None])
        else:
            image = self.backend.image(kept.pixels / np.float32(255), kept.rows, kept.columns, kept.shape)
        return self.backend.numpy(self.inception.network.resized(image))[0]

    def compute(self, images: ImageSet, quiet: bool = False) -> Statistics:
        """The statistics of the pictures, in one pass. UserError: a damaged picture, features that are not finite."""
        backend, moments, bad = self.backend, Moments(), []
        # One block of memory: many small ones would fragment the memory between the network's large blocks.
        kept = np.empty((min(len(images), KEPT), WIDTH), np.float32)
        known = np.zeros(len(kept), bool)
        # The kept features are spread over the whole set, because a folder may be sorted by class.
        places = {int(index): place for place, index in enumerate(np.arange(len(kept)) * len(images) // len(kept))}
        with own_work(), backend.no_grad(), \
                tqdm(total=len(images), unit="image", desc=str(images)[-40:], disable=quiet or None) as bar:
            for indices, features in self.measured(images, bad):
                try:
                    moments.add(features)
                except ValueError as error:
                    raise UserError(f"{images}: {error}, among {images.names[indices[0]]} and those after it; "
                                    "the weights or the pictures are damaged") from error
                for index, row in zip(indices, features):
                    if index in places:
                        kept[places[index]], known[places[index]] = row, True
                bar.update(len(indices))
        if self.shared:
            bad = [text for each in gathered_values(backend, [str(error) for error in bad]) for text in each]
        for error in bad:
            print(f"skipped: {error}", file=sys.stderr)
        if moments.n < 2:
            raise UserError(f"{images}: {moments.n} of {len(images)} pictures can be read; a distance needs at least "
                            "two")
        features = kept if known.all() else kept[known]
        provenance = {"mode": self.mode, "weights": self.inception.weights, "random_weights": self.inception.random,
                      "backend": backend.name, "bad": len(bad), "source": os.path.basename(str(images))}
        return Statistics(moments.mean, moments.covariance, moments.n, features, self.inception.logits(features),
                          provenance)


    def measured(self, images: ImageSet, bad: list[UserError]) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        """Yield (indices, features) of the pictures, batch by batch; every process has those of all.

        Errors of pictures that this process skips are added to `bad`.
        """
        backend, size = self.backend, self.batch
        rank, processes = (backend.rank, backend.world_size) if self.shared else (0, 1)
        own = [index for index in range(len(images)) if index // size % processes == rank]
        items = prepared(images, find_mode(self.mode).keep, self.workers, bad.append if self.skip_bad else None, own)
        # Each picture is resized before it joins a batch, so a batch is small whatever the pictures' sizes.
        batches = itertools.groupby(((index, self.resized(kept)) for index, kept in items),
                                    lambda item: item[0] // size)
        waiting = next(batches, None)
        for first in range(0, -(-len(images) // size), processes):
            indices, features = [], []
            if waiting and waiting[0] == first + rank:      # else no picture of this batch can be read
                indices, pixels = zip(*waiting[1])
                features = [backend.numpy(self.inception.network(backend.asarray(np.stack(pixels))))]
                waiting = next(batches, None)
            if not self.shared:
                yield from [(indices, *features)] if features else []
                continue
            indices = gathered(backend, [np.array(indices, np.int64)])
            features = gathered(backend, features)
            ends = np.flatnonzero(np.diff(indices // size)) + 1
            yield from zip(np.split(indices, ends), np.split(features, ends)) if len(indices) else []


def checked(statistics: Statistics, source, mode: str, weights: str | None = None) -> Statistics:
    """The statistics of the file `source`; a line on stderr warns if it does not state its mode and weights.

    weights: hash, see Inception; None accepts any. UserError: statistics of another network, mode or weights.
    """
    if len(statistics.mean) != WIDTH:
        raise UserError(f"{os.fspath(source)}: features of {len(statistics.mean)} values; those of FID's Inception "
                        f"have {WIDTH}: compute it again from the pictures")
    for key, own in (("mode", mode), ("weights", weights)):
        if own and statistics.provenance.get(key, own) != own:
            raise UserError(f"{os.fspath(source)}: made with {key} {statistics.provenance[key]}, not {own}; "
                            f"compute it again, or choose that {key}")
    if not statistics.provenance:
        print(f"{os.fspath(source)}: does not tell its mode and weights; the distance is right only if they are "
              "the same as here", file=sys.stderr)
    return statistics
