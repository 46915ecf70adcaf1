"""The original `test.py`: generate with several noise seeds and keep the pictures with the lowest FID.

    python scripts/test.py [--which_epoch avg_273_299] [--train_path DIR] [--input_path DIR] --weights FILE

FID is measured to the training pictures. The pictures of the best seed stay in ./results, with those of pure-colour
maps replaced. temp_jittor.txt has one line `SEED<tab>FID` per seed. The original draws 50 seeds from 0 to 4096; its
README says 20, which is the default here.
"""
import csv
import secrets
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import apf_gan_flags as flags

from jittwin import cli
from jittwin.atomic import write_file
from jittwin.backend import DEVICES, PACKAGES
from jittwin.commands.options import add_pixel_limit
from jittwin.selection.best_of import TABLE

RESULTS, VALUES, CHECKPOINTS = Path("results"), Path("temp_jittor.txt"), Path("checkpoints/label2img")


def parse(argv: list[str]):
    parser = cli.Parser(prog="python scripts/test.py", description="best of several noise seeds")
    parser.add_argument("--which_epoch", default="avg_273_299", help="default: avg_273_299")
    parser.add_argument("--train_path", default="./data/train/imgs",
                        help="training pictures (default: ./data/train/imgs)")
    parser.add_argument("--input_path", default="./data/test/labels", help="label maps (default: ./data/test/labels)")
    ours = parser.add_argument_group("options that the original does not have")
    ours.add_argument("--seeds", default="20", metavar="N", help="default: 20")
    ours.add_argument("--seed", metavar="N", help="the first seed (default: a random one)")
    ours.add_argument("--weights", metavar="FILE", help=flags.FID_HELP)
    ours.add_argument("--random-weights", action="store_true", help="untrained Inception")
    ours.add_argument("--backend", choices=PACKAGES, default="jittor", help="default: jittor")
    ours.add_argument("--device", choices=DEVICES, default="cpu", help="default: cpu")
    add_pixel_limit(ours)
    ours.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


def run(argv: list[str]) -> int:
    args = parse(argv)
    weights = args.weights if args.random_weights else flags.fid_weights(args.weights)
    network = ["--random-weights"] if args.random_weights else []
    network += ["--fid-weights", weights] if weights else []
    status = cli.dispatch([
        "generate", "--weights", flags.checkpoint(CHECKPOINTS, args.which_epoch), "--labels", args.input_path,
        "--out", str(RESULTS), "--seed", args.seed or str(secrets.randbelow(4097)), "--seeds", args.seeds,
        "--reference", flags.reference(CHECKPOINTS, args.train_path), "--mode", "apf-gan", *network,
        "--backend", args.backend, "--device", args.device, "--max-pixels", str(args.max_pixels),
        *flags.pure(CHECKPOINTS)])
    with (RESULTS / TABLE).open() as stream:
        write_file(VALUES, "".join(f"{row['seed']}\t{row['fid']}\n" for row in csv.DictReader(stream)))
    return status


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
