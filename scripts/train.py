"""The original `train.py`: both phases of APF-GAN training with the published settings.

    python scripts/train.py --input_path=DIR [--fid_weights FILE] [--backend torch]

As in the original, FID statistics of the training pictures are written before training, to train_fid_m.npy and
train_fid_s.npy in the run folder. scripts/fid.py and scripts/test.py use them; training does not. They need the
weights of Inception: FILE, or by default util/net_params.pkl if that exists.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import apf_gan_flags as flags

from jittwin import cli, training
from jittwin.backend import load_backend
from jittwin.checkpoints.store import Checkpoints
from jittwin.errors import UserError
from jittwin.launching import launched
from jittwin.metrics.fid.features import FidScorer
from jittwin.metrics.fid.statistics import write_pair

FID = {"--fid_weights": flags.FID_HELP}


def run(argv: list[str]) -> int:
    table = {**flags.FOLDERS, "remove_hard_imgs": flags.TRAIN["remove_hard_imgs"]}
    given, options = flags.parse(argv, table, "train.py", "train both phases of APF-GAN", FID)
    removed = flags.removal_list(given["remove_hard_imgs"], given)
    folder = Path(given["checkpoints_dir"], given["name"])
    if Checkpoints(folder).latest():      # checked before the statistics, which may take hours
        raise UserError(f"{folder} already holds a run: go on with jittwin train --resume --out {folder}, or pass "
                        "another --name")
    if launched()[0] == 0:
        measure(Path(given["input_path"], "imgs"), folder, options)
    return training.train("apf_gan", options.backend, data=given["input_path"], device=options.device,
                       out=str(folder), overrides=[f"removal_list={removed}"])


def measure(pictures: Path, folder: Path, options) -> None:
    """Write FID statistics of the training pictures; print a line to stderr if there are no weights for them."""
    weights = flags.fid_weights(options.fid_weights)
    if weights is None:
        print(f"no FID statistics of {pictures}: there is no {flags.FID_WEIGHTS}, and no --fid_weights FILE; "
              "training needs none", file=sys.stderr)
        return
    backend = load_backend(options.backend, options.device)
    backend.setup(device=options.device)
    write_pair(folder / flags.STATISTICS, FidScorer(backend, weights, mode="apf-gan").statistics(pictures))


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
