"""The original `evaluate.py` of the structure track: predictions of a part of EvalMuse-Structure, to be handed in.

    DATA_ROOT=DIR python scripts/evaluate.py CONFIG --load_checkpoint FILE [--data test] [--backend torch]

CONFIG is the config.yaml of a training; its load_checkpoint counts where the flag is not given, and in a run of ours
the run's own detector. It writes submit/PART/NAME_threT.pkl, with maps of 0 and 1, NAME_threT_raw.pkl, with maps from 0
to 255 that adjust_outputs.py merges, and every picture under its map in NAME_threT_vis.
"""
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yaml
from tqdm import tqdm

from jittwin import cli, imaging
from jittwin.backend import DEVICES, PACKAGES, PRECISIONS, ready_backend
from jittwin.checkpoints.store import Checkpoints
from jittwin.commands.options import add_pixel_limit, limit_pixels
from jittwin.data.evalmuse import EvalMuse
from jittwin.data.submission import THRESHOLD, Prediction, key_of, thresholded, to_levels, write_submission
from jittwin.errors import UserError
from jittwin.predictors.distortion import DistortionPredictor, read_detector

SHOWN = 512         # side of a picture under its map


def checkpoint_of(config: str) -> Path:
    """The detector that a config.yaml stands for. UserError: it names none."""
    path = Path(config)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{config}: not a config.yaml ({' '.join(str(error).split())}); give a training's") from error
    if isinstance(content, dict) and content.get("load_checkpoint"):
        return Path(content["load_checkpoint"])
    run = Checkpoints(path.parent)
    if run.latest() is None:
        raise UserError(f"{config}: names no load_checkpoint and lies in no run of ours; give --load_checkpoint FILE")
    return path.parent / "best" if run.best() else path.parent


def run(argv: list[str]) -> int:
    parser = cli.Parser(prog="python scripts/evaluate.py", description="predict distortion, for the challenge")
    parser.add_argument("config", metavar="CONFIG", help="config.yaml of the training")
    parser.add_argument("--load_checkpoint", metavar="FILE", default="", help="the detector's weights")
    parser.add_argument("--submit_save_threshold", type=int, metavar="T", default=THRESHOLD,
                        help=f"of maps from 0 to 255 (default: {THRESHOLD})")
    parser.add_argument("--data", choices=("val", "test"), default="test", help="default: test")
    ours = parser.add_argument_group("options that the original does not have")
    ours.add_argument("--root", metavar="DIR", help="the data set (default: the environment variable DATA_ROOT)")
    ours.add_argument("--out", metavar="DIR", default="submit", help="where to write (default: submit)")
    ours.add_argument("--tokenizer", metavar="FOLDER", help="BART's vocabulary (default: the one beside the weights)")
    ours.add_argument("--backend", choices=PACKAGES, default="jittor", help="default: jittor")
    ours.add_argument("--device", choices=("auto", *DEVICES), default="auto",
                      help="default: auto, the GPU if there is one")
    ours.add_argument("--dtype", choices=PRECISIONS, default="float32", help="default: float32, as in the original")
    ours.add_argument("--no-pictures", action="store_true", help="do not draw the maps")
    add_pixel_limit(ours)
    ours.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    limit_pixels(args)
    threshold, root = args.submit_save_threshold, args.root or os.environ.get("DATA_ROOT")
    if not 0 <= threshold < 255:
        raise UserError(f"--submit_save_threshold {threshold}: legal: 0 to 254")
    if not root:
        raise UserError(f"DATA_ROOT is not set: set it to the folder with {args.data}/images/ and "
                        f"{args.data}/{args.data}_info.json, or give --root")
    where = Path(args.load_checkpoint) if args.load_checkpoint else checkpoint_of(args.config)
    samples = EvalMuse(root, args.data).samples
    weights = read_detector(where, args.tokenizer)
    backend, dtype = ready_backend(args.backend, args.device, args.dtype, None)
    predictor = DistortionPredictor(backend, weights, dtype)
    whole = where.absolute()
    target = Path(args.out, args.data, f"{whole.parent.name}_{whole.stem}_thre{threshold}")
    target.parent.mkdir(parents=True, exist_ok=True)
    shown, found = target.with_name(f"{target.name}_vis"), {}
    for sample in tqdm(samples, "predicting", disable=None):
        image = sample.read()
        score, heat = predictor.predict(image, sample.prompt)
        levels = to_levels(heat)
        found[key_of(sample.name)] = Prediction(score, levels)
        if not args.no_pictures:
            shown.mkdir(exist_ok=True)
            mixed = imaging.heat_overlay(imaging.resize_image(image, (SHOWN, SHOWN)), levels)
            imaging.save_image(shown / f"{Path(sample.name).stem}.jpg",
                               imaging.captioned(mixed, f"{score:.4f}", SHOWN))
    raw = target.with_name(f"{target.name}_raw.pkl")
    write_submission(raw, found)
    final = target.with_name(f"{target.name}.pkl")
    write_submission(final, thresholded(found, threshold))
    print(f"{final}: {len(found)} pictures; hand it in as output.pkl")
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
