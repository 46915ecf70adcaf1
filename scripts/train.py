"""The original `train.py`: both phases of APF-GAN training with the published settings.

    python scripts/train.py --input_path=DIR [--backend torch]

The original first computes FID statistics of the training pictures; nothing in training reads them.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import apf_gan_flags as flags

from jittwin import cli, train


def run(argv: list[str]) -> int:
    table = {**flags.FOLDERS, "remove_hard_imgs": flags.TRAIN["remove_hard_imgs"]}
    given, options = flags.parse(argv, table, "train.py", "train both phases of APF-GAN")
    removed = flags.removal_list(given["remove_hard_imgs"], given)
    return train.train("apf_gan", options.backend, data=given["input_path"], device=options.device,
                       out=str(Path(given["checkpoints_dir"], given["name"])),
                       overrides=[f"removal_list={removed}"])


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
