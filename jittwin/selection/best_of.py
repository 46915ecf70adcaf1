"""Best of N: choose, of several noise seeds, the one whose pictures have the least FID to a reference.

The published test draws 20 seeds; their values of FID differ by up to about 0.4.
"""
import csv
import io
from collections.abc import Iterable
from pathlib import Path

from jittwin.atomic import remove_leftovers, temporary_folder, write_file
from jittwin.data.pictures import ImageSet, other_pictures
from jittwin.errors import UserError
from jittwin.metrics.fid import statistics
from jittwin.metrics.fid.features import FidScorer
from jittwin.metrics.metric import MARK

TABLE = "seeds.csv"


class SeedChooser:
    """Chooses a seed by FID to a reference; `out` is the folder for the pictures.

    reference: see FidScorer.opened. UserError, before anything is generated: there is no such reference, or `out` holds
    pictures already.
    """

    def __init__(self, scorer: FidScorer, reference, out: Path):
        remove_leftovers(out)
        if others := other_pictures(out, ()):
            raise UserError(f"{out}: holds pictures already ({others[0].relative_to(out)}), which could be "
                            "mistaken for new ones: give an empty folder")
        self.scorer, self.out = scorer, out
        self.reference = scorer.statistics(reference)
        self.mark = MARK * self.scorer.inception.random

    def fid(self, folder: Path) -> float:
        """FID of the pictures in `folder` to the reference; the cache is not used, because the pictures are new."""
        return statistics.fid(self.scorer.compute(ImageSet(folder), quiet=True), self.reference)

    def choose(self, renderer, seeds: Iterable[int]) -> int:
        """Return the seed with the least FID; print the value of every seed and write them to seeds.csv.

        Pictures of all seeds are rendered together, which is several times faster than one seed after the other. They
        lie in a temporary folder until they are measured.
        """
        found = {}
        with temporary_folder(self.out / "seeds") as folder:
            folders = {seed: folder / f"seed_{seed}" for seed in seeds}
            renderer.render(folders)
            for seed, pictures in folders.items():
                found[seed] = self.fid(pictures)
                print(f"seed {seed}: FID {found[seed]:.6f}{self.mark}", flush=True)
        best = min(found, key=found.get)
        write_file(self.out / TABLE, table(found, best, self.scorer.inception.weights))
        print(f"best: seed {best}, FID {found[best]:.6f}{self.mark}")
        return best


def table(found: dict[int, float], best: int, weights: str) -> str:
    """CSV with one line per seed, in the order tried. weights: see Inception in jittwin.metrics.fid.inception."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["seed", "fid", "chosen", "weights"])
    writer.writerows([seed, f"{value:.6f}", "yes" if seed == best else "", weights] for seed, value in found.items())
    return stream.getvalue()
