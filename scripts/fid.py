"""The original `util/fid.py`: generate pictures with checkpoints into ./results, and measure their FID.

    python scripts/fid.py TRAIN_IMGS TEST_LABELS CHECKPOINT_DIR [USE_PURE SEED] EPOCH|A-B ... --weights FILE

FID follows the original's convention (--mode apf-gan). FILE is util/net_params.pkl by default if that exists. The
script prints `CHECKPOINT_DIR/EPOCH  fid:  VALUE` and appends VALUE to temp_jittor.txt. Epochs without files are
skipped. The reference is CHECKPOINT_DIR/train_fid_m.npy and train_fid_s.npy if they exist, or else the pictures in
TRAIN_IMGS, whose statistics are cached.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import apf_gan_flags as flags

from jittwin import cli
from jittwin.checkpoints.find import epochs
from jittwin.commands.options import add_fid_network_arguments, fid_scorer
from jittwin.data.landscape import label_folder, list_pictures
from jittwin.data.pictures import ImageSet, other_pictures
from jittwin.errors import UserError
from jittwin.metrics.fid.statistics import fid as distance

RESULTS, VALUES = Path("results"), Path("temp_jittor.txt")
MODE = "apf-gan"


def parse(argv: list[str]):
    parser = cli.Parser(prog="python scripts/fid.py", description="FID of checkpoints")
    for name in ("TRAIN_IMGS", "TEST_LABELS", "CHECKPOINT_DIR"):
        parser.add_argument(name.lower(), metavar=name)
    parser.add_argument("rest", nargs="+", metavar="[USE_PURE SEED] EPOCH|A-B")
    add_fid_network_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    args.mode, args.use_pure, args.seed = MODE, False, "0"
    if not args.random_weights:
        args.fid_weights = flags.fid_weights(args.fid_weights)
    if args.rest[0].lower() in ("true", "false"):
        if len(args.rest) < 3:
            raise UserError("after USE_PURE come SEED and at least one EPOCH")
        args.use_pure, args.seed, args.rest = flags.truth(args.rest[0]), args.rest[1], args.rest[2:]
    return args


def run(argv: list[str]) -> int:
    args = parse(argv)
    folder, measure = Path(args.checkpoint_dir), fid_scorer(args)
    reference = measure.statistics(flags.reference(folder, args.train_imgs))
    refuse_stale(Path(args.test_labels))
    names = [name for text in args.rest for name in (epochs(text) if "-" in text else [text])]
    for name in names:
        where = flags.checkpoint(folder, name)
        if not (Path(where).is_dir() or Path(f"{where}_net_G.pkl").exists()):
            continue
        cli.dispatch(["generate", "--weights", where, "--labels", args.test_labels, "--out", str(RESULTS),
                      "--seed", args.seed, "--backend", args.backend, "--device", args.device,
                      *(flags.pure(folder) if args.use_pure else [])])
        value = distance(measure.compute(ImageSet(RESULTS)), reference)
        with VALUES.open("a") as stream:
            stream.write(f"{value}\n")
        print(f"{folder / name}  fid:  {value}{' (random weights)' if args.random_weights else ''}")
    return 0


def refuse_stale(labels: Path) -> None:
    """UserError if RESULTS holds pictures that would be measured although this run does not write them."""
    names = {f"{stem}.jpg" for stem in list_pictures(label_folder(labels)).by_stem()} if labels.is_dir() else set()
    if stale := other_pictures(RESULTS, names):
        raise UserError(f"{stale[0]} exists already and would be measured, but it is the picture of no label map in "
                        f"{labels}: empty {RESULTS}/")


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
