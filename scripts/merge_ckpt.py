"""The original `util/merge_ckpt.py`: the mean of several checkpoints' encoders and generators.

    python scripts/merge_ckpt.py CHECKPOINT_DIR EPOCH EPOCH [EPOCH ...]

The script reads CHECKPOINT_DIR/EPOCH_net_{E,G}.pkl, or checkpoints of this project, and writes
CHECKPOINT_DIR/avg_EPOCH_EPOCH_net_{E,G}.pkl in float64.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from apf_gan_flags import checkpoint

from jittwin import cli


def run(argv: list[str]) -> int:
    parser = cli.Parser(prog="python scripts/merge_ckpt.py", description="average checkpoints")
    parser.add_argument("folder", metavar="CHECKPOINT_DIR")
    parser.add_argument("epochs", metavar="EPOCH", nargs="+")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    out = Path(args.folder, "_".join(["avg", *args.epochs]))
    return cli.dispatch(["merge", *(checkpoint(Path(args.folder), epoch) for epoch in args.epochs),
                         "--out", str(out), "--format", ".pkl", "--dtype", "float64"])


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
