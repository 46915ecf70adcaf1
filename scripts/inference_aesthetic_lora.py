"""The original `inference_aesthetic_lora.py`: aesthetic scores of pictures.

    python scripts/inference_aesthetic_lora.py PICTURE|DIR ... --weights best_lora.pth --model ../siglip2

--model may be left out if the adapters name a folder that exists. The pictures of a folder are scored in natural
order. A file that cannot be read is reported and left out.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import aesthetic_output as output

from jittwin import cli
from jittwin.aesthetic import AestheticPredictor
from jittwin.backend import DEVICES, PACKAGES, PRECISIONS


def build_parser() -> cli.Parser:
    parser = cli.Parser(prog="python scripts/inference_aesthetic_lora.py", description="aesthetic scores of pictures")
    output.add_arguments(parser)
    parser.add_argument("--weights", "--lora_weights", default="./best_lora.pth", metavar="FILE",
                        help="adapters (default: ./best_lora.pth)")
    parser.add_argument("--model", metavar="FOLDER",
                        help="the tower's folder (default: the one that the adapters name)")
    parser.add_argument("--device", choices=("auto", *DEVICES), default="auto", help="default: auto")
    parser.add_argument("--dtype", choices=("auto", *PRECISIONS), default="auto", help="default: auto")
    ours = parser.add_argument_group("options that the original does not have")
    ours.add_argument("--backend", choices=PACKAGES, default="jittor", help="default: jittor")
    ours.add_argument("--random-weights", action="store_true", help="accept adapters of an untrained tower")
    return parser


def predictor(args) -> AestheticPredictor:
    return AestheticPredictor(args.weights, args.model, args.device, args.dtype, args.threads, args.backend,
                              args.random_weights, args.batch_size)


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: output.run(build_parser(), sys.argv[1:], predictor), debug="--debug" in sys.argv))
