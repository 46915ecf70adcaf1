"""The original `test_phase.py`: generate images from a folder of label maps, with the original's flags.

    python scripts/test_phase.py --input_path=LABELS --which_epoch=avg_273_299 [--seed=2433]

The folder CHECKPOINTS_DIR/NAME holds a checkpoint of `train_phase.py`, or the original's files
WHICH_EPOCH_net_{E,G}.pkl. Here the pictures do not depend on --batchSize.
"""
import secrets
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import apf_gan_flags as flags

from jittwin import cli

CHOICES = {*flags.FOLDERS, "which_epoch", "out_path", "use_pure", "seed", "batchSize"}


def run(argv: list[str]) -> int:
    given, options = flags.parse(argv, flags.TEST, "test_phase.py", "images from label maps")
    flags.refuse_others(given, flags.TEST, CHOICES)
    folder = Path(given["checkpoints_dir"], given["name"])
    seed = str(secrets.randbelow(2 ** 31)) if given["seed"] == "-1" else given["seed"]
    print(f"seed {seed}", file=sys.stderr)
    batch = [] if given["batchSize"] is None else ["--batch", given["batchSize"]]
    return cli.dispatch([
        "generate", "--weights", flags.checkpoint(folder, given["which_epoch"]), "--labels", given["input_path"],
        "--out", given["out_path"], "--seed", seed, "--backend", options.backend, "--device", options.device,
        "--max-pixels", str(options.max_pixels), *batch,
        *(flags.pure(folder) if flags.truth(given["use_pure"]) else [])])


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
