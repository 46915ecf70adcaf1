"""`jittwin merge`: the average of several checkpoints' encoders and generators.

The published result is the mean of epochs 273 and 299; its FID is lower than that of either epoch.
"""
import argparse
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from jittwin.atomic import temporary_folder
from jittwin.checkpoints.average import average, check_same, ema_factors, greedy_soup, mean_factors
from jittwin.checkpoints.find import find_checkpoints, find_network, read_network
from jittwin.commands.options import add_evaluation_arguments, evaluation_of
from jittwin.errors import UserError
from jittwin.generate import NETWORKS, read_generator
from jittwin.weights import FORMATS, read_metadata, write_weights

METHODS = ("mean", "ema", "soup")
NEEDED = ("labels", "reference")      # options that the soup needs, because it measures FID


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SRC",
                        help="checkpoint folders or PREFIXes of PREFIX_net_G.pkl; with --epochs one run folder, or one "
                             "folder of files EPOCH_net_G.pkl")
    parser.add_argument("--epochs", metavar="A-B", help="epochs of the run, such as 273,299 or 270-310")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for E.safetensors and G.safetensors; with "
                        "another --format the PREFIX of PREFIX_net_E.pkl …")
    parser.add_argument("--format", choices=sorted(FORMATS), default=".safetensors", help="default: .safetensors")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="default: float32")
    parser.add_argument("--method", choices=METHODS, default="mean",
                        help="mean (default); ema: moving average in the order given; soup: checkpoints are tried in "
                             "the order of their FID, and each is kept only if the FID of the mean improves (needs "
                             "--labels and --reference)")
    parser.add_argument("--decay", type=float, default=0.9, metavar="D", help="decay of --method ema (default: 0.9)")
    parser.add_argument("--ema", action="store_true", help="average the averaged weights of a run with ema > 0")
    add_evaluation_arguments(parser, required=False)


def run(args: argparse.Namespace) -> None:
    """Carry out `jittwin merge`. UserError: a mistake."""
    sources = chosen(args)
    if not 0 < args.decay < 1:
        raise UserError(f"--decay {args.decay:g}: must be above 0 and below 1")
    if args.method == "soup":
        sources = soup(args, sources)
    factors = ema_factors(len(sources), args.decay) if args.method == "ema" else mean_factors(len(sources))
    for path in merge(sources, factors, args.out, args.format, args.dtype, args.ema):
        print(path)


def chosen(args: argparse.Namespace) -> list[str]:
    """The checkpoints to average. UserError: fewer than two."""
    if args.epochs is None:
        sources = args.sources
    elif len(args.sources) > 1:
        raise UserError(f"--epochs {args.epochs} names checkpoints of one run, but {len(args.sources)} are given")
    else:
        sources = list(find_checkpoints(args.sources[0], args.epochs).values())
    if len(sources) < 2:
        raise UserError(f"{', '.join(sources)}: an average needs at least two checkpoints; give more, or --epochs A-B")
    return sources


def merge(sources: Sequence[str], factors: Sequence[float], out: str, suffix: str = ".safetensors",
          dtype: str = "float32", ema: bool = False) -> list[Path]:
    """Write the weighted sums of E and of G; returns the files. UserError: checkpoints of different networks."""
    results = {}
    for net in NETWORKS:
        name = net + ".ema" * ema
        # All checkpoints are read, and errors reported, before the first file is written.
        results[net] = average([(source, lambda s=source, n=name: read_network(s, n)[0]) for source in sources],
                               factors, np.dtype(dtype))
    paths = {net: Path(out, net + suffix) if suffix == ".safetensors" else Path(f"{out}_net_{net}{suffix}")
             for net in NETWORKS}
    merged = [[os.path.basename(source), factor] for source, factor in zip(sources, factors)]
    with temporary_folder(paths["G"]) as folder:      # both files are written before either is renamed
        for net, arrays in results.items():
            metadata = read_metadata(find_network(sources[0], net + ".ema" * ema))
            write_weights(Path(folder, paths[net].name), arrays, metadata | {"merged": merged})
        for path in paths.values():
            os.replace(Path(folder, path.name), path)
    return list(paths.values())


def soup(args: argparse.Namespace, sources: list[str]) -> list[str]:
    """The checkpoints that a greedy soup keeps (see greedy_soup); prints the FID with each checkpoint.

    UserError: a missing option, checkpoints of different networks.
    """
    missing = [f"--{name}" for name in NEEDED if getattr(args, name) is None]
    if missing:
        raise UserError(f"--method soup measures FID: give {' and '.join(missing)}")
    shapes = {}
    for source in reversed(sources):      # reports different networks before anything is measured
        weights, config = read_generator(source, args.ema)
        found = {f"{net}.{key}": array.shape for net, arrays in weights.items() for key, array in arrays.items()}
        shapes = shapes or found
        check_same(sources[-1], shapes, source, found)
    evaluation = evaluation_of(args, config)

    @cache
    def mean_of(*names) -> float:
        weights = {net: average([(n, lambda n=n, net=net: read_network(n, net + ".ema" * args.ema)[0]) for n in names],
                                mean_factors(len(names))) for net in NETWORKS}
        return evaluation(weights, config)["fid"]

    alone = {source: mean_of(source) for source in sources}
    ranked = sorted(sources, key=alone.get)
    kept, log = greedy_soup(ranked, lambda names: mean_of(*names))
    for source, value, taken in log:
        print(f"{source}: FID alone {alone[source]:.6f}{evaluation.mark}, of the mean {value:.6f}{evaluation.mark}, "
              f"{'kept' if taken else 'excluded'}")
    return kept
