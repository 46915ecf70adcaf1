"""`jittwin generate`: images from a folder of label maps, on either backend."""
import argparse
import math
import sys
from collections.abc import Container, Iterable
from pathlib import Path

from jittwin import imaging
from jittwin.backend import DEVICES, PACKAGES, load_backend
from jittwin.classes import CLASSES, IGNORE
from jittwin.commands.options import add_pixel_limit, limit_pixels
from jittwin.data.landscape import LandscapeDataset
from jittwin.data.listing import tell
from jittwin.data.pictures import other_pictures
from jittwin.data.pure import PureDictionary
from jittwin.errors import UserError
from jittwin.generate import EXTENSIONS, SHEET_ROWS, Renderer, Sampler, injected_noise, read_generator
from jittwin.metrics.fid.features import FidScorer
from jittwin.metrics.fid.preparation import MODES
from jittwin.models.apf_gan import MULTIPLE
from jittwin.selection.best_of import TABLE, SeedChooser
from jittwin.selection.evaluation import check_measurable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", required=True, metavar="W",
                        help="run folder, checkpoint folder, or PREFIX of PREFIX_net_G.pkl and PREFIX_net_E.pkl")
    parser.add_argument("--ema", action="store_true", help="use the averaged weights of a run with ema > 0")
    parser.add_argument("--labels", required=True, metavar="DIR",
                        help=f"folder of label maps, classes 0..{CLASSES - 1}")
    parser.add_argument("--ignore", metavar=IGNORE, help="what values of the label maps that are no class are, such as "
                        "255=other")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the images")
    parser.add_argument("--backend", choices=PACKAGES, default="jittor", help="default: jittor")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="default: cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--width", type=int, metavar="PIXELS",
                        help="labels are scaled to this width (default: as trained, or 512 if the weights do not say)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="label maps at a time (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise (default: 0)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N",
                        help="images per label map, with seeds SEED, SEED+1, ..., in folders seed_N")
    parser.add_argument("--noise", metavar="FILE",
                        help="inject this noise: 'off', or a file with arrays seg_noise.0 ... (1, 1, h, w)")
    parser.add_argument("--pure", metavar="DICT",
                        help="pure-colour dictionary (pure_img.npz, or the original pure_img.npy)")
    parser.add_argument("--format", choices=EXTENSIONS, default="jpg", help="default: jpg")
    parser.add_argument("--quality", type=int, default=75, metavar="1..95", help="of JPEG (default: 75)")
    parser.add_argument("--sheet", metavar="FILE", help=f"contact sheet label | image of the first {SHEET_ROWS}")
    parser.add_argument("--reference", metavar="STATS",
                        help="keep only the pictures of the seed that is nearest by FID to these statistics, folder "
                             f"or zip file; {TABLE} in the output folder has the value of every seed")
    parser.add_argument("--mode", choices=MODES, default="pytorch-fid", help="of FID (default: pytorch-fid)")
    parser.add_argument("--fid-weights", metavar="FILE", help="Inception, see jittwin fid --weights")
    add_pixel_limit(parser)
    parser.add_argument("--random-weights", action="store_true", help="untrained Inception")


def run(args: argparse.Namespace) -> None:
    """Carry out `jittwin generate`. UserError: a mistake."""
    limit_pixels(args)
    check_numbers(args)
    if args.sheet:
        imaging.format_of(args.sheet)      # reports a wrong suffix before hours of generating
    weights, config = read_generator(args.weights, args.ema)
    labels = LandscapeDataset(args.labels, train=False, crop_size=args.width or config.crop_size, multiple=MULTIPLE,
                              ignore=args.ignore)
    tell(labels.notes)
    if args.reference:
        check_measurable(labels, args.labels, args.reference)
    pure = PureDictionary.load(args.pure) if args.pure else None
    noise = injected_noise(args.noise)
    backend = load_backend(args.backend, args.device)
    backend.setup(device=args.device, seed=args.seed, threads=args.threads)
    seeds = range(args.seed, args.seed + args.seeds)
    chooser = None
    if args.reference:
        scorer = FidScorer(backend, args.fid_weights, args.random_weights, args.mode)
        chooser = SeedChooser(scorer, args.reference, Path(args.out))
    sampler = Sampler(backend, config, weights, noise)
    del weights     # the networks hold copies
    renderer = Renderer(sampler, labels, args.batch, args.format, args.quality)
    out, sheet = Path(args.out), []
    if chooser:
        seeds = [chooser.choose(renderer, seeds)]
    folders = {seed: out / f"seed_{seed}" if len(seeds) > 1 else out for seed in seeds}
    warn_of_others(folders.values(), {name + renderer.extension for name in labels.names}, args.labels)
    renderer.render(folders, pure, sheet if args.sheet else None)
    if args.sheet:
        Path(args.sheet).parent.mkdir(parents=True, exist_ok=True)
        imaging.save_image(args.sheet, imaging.grid(sheet, captions=["label map", "generated"]))
    print(f"{len(labels) * len(seeds)} images in {out}")


def warn_of_others(folders: Iterable[Path], names: Container[str], labels: str) -> None:
    """Warn on stderr of each folder that holds other pictures, because measuring the folder would include them."""
    for folder in folders:
        if others := other_pictures(folder, names):
            more = f" and {len(others) - 1} more" if others[1:] else ""
            print(f"{others[0]}{more}: already there, and not made from a label map of {labels}: measuring {folder} "
                  "would include such pictures", file=sys.stderr)


def check_numbers(args: argparse.Namespace) -> None:
    for name, high in (("batch", math.inf), ("seeds", math.inf), ("quality", 95)):
        value = getattr(args, name)
        if not 1 <= value <= high:
            limit = f" and at most {high}" if high < math.inf else ""
            raise UserError(f"--{name} {value}: must be at least 1{limit}")
