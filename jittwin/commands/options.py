"""Flags that several commands share, and the objects that are made from them."""
import argparse

from jittwin import imaging
from jittwin.backend import DEVICES, PACKAGES, ready_backend
from jittwin.classes import IGNORE
from jittwin.data.pictures import default_workers
from jittwin.errors import UserError
from jittwin.metrics.aesthetic import AestheticMetric
from jittwin.metrics.fid.features import BATCH, FidScorer
from jittwin.metrics.fid.preparation import MODES
from jittwin.metrics.mask_accuracy import MaskAccuracy
from jittwin.metrics.metric import Option
from jittwin.predictors.aesthetic import ScorerPredictor, read_scorer
from jittwin.selection.evaluation import Evaluation


def add_fid_network_arguments(parser: argparse.ArgumentParser, weights: str = "--weights") -> None:
    """The flags of every command that measures FID. weights: name of the option for Inception's weights."""
    parser.add_argument(weights, dest="fid_weights", metavar="FILE",
                        help="Inception: pytorch-fid's .pth or the published net_params.pkl")
    parser.add_argument("--random-weights", action="store_true",
                        help="use an untrained network where no weights are given")
    parser.add_argument("--backend", choices=PACKAGES, default="jittor", help="default: jittor")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="default: cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--workers", type=int, metavar="N", help=f"decoding threads (default: {default_workers()})")
    parser.add_argument("--batch", type=int, default=BATCH, metavar="N", help=f"pictures at a time (default: {BATCH})")
    parser.add_argument("--skip-bad", action="store_true", help="skip and count pictures that cannot be read")
    parser.add_argument("--no-cache", action="store_true", help="compute all statistics, even if they are cached")
    add_pixel_limit(parser)


def fid_scorer(args: argparse.Namespace, shared: bool = True) -> FidScorer:
    """The FidScorer for the arguments of add_fid_network_arguments and `mode`. UserError: an illegal argument."""
    check_positive(args, "batch", "workers", "threads")
    limit_pixels(args)
    backend, _ = ready_backend(args.backend, args.device, "float32", args.threads)
    return FidScorer(backend, args.fid_weights, args.random_weights, args.mode, args.batch, args.workers, args.skip_bad,
                     not args.no_cache, shared)


def add_processes(parser: argparse.ArgumentParser) -> None:
    """The flag of the commands that share their work over processes; jittwin.cli starts these."""
    parser.add_argument("--processes", type=int, metavar="N", help="share the work over N processes of this machine "
                        "(default: 1)")


def add_pixel_limit(parser: argparse.ArgumentParser) -> None:
    """The flag of every command that decodes pictures; `limit_pixels` carries it out."""
    parser.add_argument("--max-pixels", type=int, default=imaging.MOST_PIXELS, metavar="N",
                        help="refuse pictures of more pixels, which need much memory (default: 179 million)")


def limit_pixels(args: argparse.Namespace) -> None:
    """Set the limit of add_pixel_limit. UserError: below 1."""
    if args.max_pixels < 1:
        raise UserError(f"--max-pixels {args.max_pixels}: must be at least 1")
    imaging.limit_pixels(args.max_pixels)


def check_positive(args: argparse.Namespace, *names: str) -> None:
    """UserError where one of these options is given and below 1."""
    for name in names:
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: must be at least 1")


def add_evaluation_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    """The flags of an evaluation: label maps, a reference, the network that measures FID."""
    parser.add_argument("--labels", required=required, metavar="DIR", help="label maps to generate pictures from")
    parser.add_argument("--ignore", metavar=IGNORE, help="what values of the label maps that are no class are, such as "
                        "255=other")
    parser.add_argument("--reference", required=required, metavar="STATS",
                        help="FID is measured to these statistics, folder or zip file")
    parser.add_argument("--mode", choices=MODES, default="pytorch-fid", help="mode of FID (default: pytorch-fid)")
    parser.add_argument("--width", type=int, metavar="PIXELS", help="width of the pictures (default: as trained)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the noise (default: 0)")
    add_fid_network_arguments(parser, weights="--fid-weights")


def evaluation_of(args: argparse.Namespace, config, segmenter: str | None = None, real: str | None = None,
                  adapter: str | None = None, tower: str | None = None) -> Evaluation:
    """The Evaluation for the arguments of add_evaluation_arguments.

    config, real: see Evaluation. segmenter: weights of a SegFormer. adapter, tower: files of the aesthetic scorer.
    UserError: weights that cannot be read or do not fit.
    """
    scorer = fid_scorer(args, shared=False)      # each process measures other networks
    masks = MaskAccuracy(scorer.backend, segmenter, workers=args.workers, ignore=args.ignore) if segmenter else None
    aesthetic = None
    if adapter:
        trained = read_scorer(scorer.backend.state_shapes, adapter, tower, args.random_weights)
        aesthetic = AestheticMetric(ScorerPredictor(scorer.backend, trained, args.batch))
    return Evaluation(scorer, args.labels, args.reference, args.width, args.seed, masks, real, aesthetic, config,
                      args.ignore)


def add_option(parser, option: Option) -> None:
    """Add the flag of a metric's option."""
    parser.add_argument(option.flag, *(f"--{alias}" for alias in option.aliases), dest=option.name.replace("-", "_"),
                        metavar=option.metavar, help=option.help)
