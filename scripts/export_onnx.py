"""The original `export_onnx.py`: export the aesthetic scorer, or SigLIP's image embedding, as ONNX files.

    python scripts/export_onnx.py --weights best_lora.pth --model ../siglip2 --output-dir onnx

model.onnx: pixel_values to logits, with the adapters merged. siglip_vision.onnx (--export-vision): pixel_values to
image_embeds of unit length. Each file is compared with the network of --backend before it gets its name. The text
tower is not exported: nothing here scores text with SigLIP.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jittwin import cli
from jittwin.backend import PACKAGES, ready_backend
from jittwin.errors import UserError
from jittwin.export.onnx import LIMITS, OPSET, export_aesthetic, export_vision
from jittwin.models.siglip import read_tower
from jittwin.predictors.aesthetic import ScorerPredictor, read_scorer

NO_TEXT = "the text tower is not exported: nothing here scores text with SigLIP"
AESTHETIC, VISION = "model.onnx", "siglip_vision.onnx"


def build_parser() -> cli.Parser:
    parser = cli.Parser(prog="python scripts/export_onnx.py", description="ONNX files of the aesthetic scorer")
    parser.add_argument("--weights", default="./best_lora.pth", metavar="FILE",
                        help="adapters (default: ./best_lora.pth)")
    parser.add_argument("--model", metavar="FOLDER",
                        help="the tower's folder (default: the one that the adapters name)")
    parser.add_argument("--output-dir", default=".", metavar="DIR", help="default: the working folder")
    parser.add_argument("--output", metavar="FILE",
                        help=f"write the only export here, not to DIR/{AESTHETIC} or DIR/{VISION}")
    parser.add_argument("--opset", type=int, default=OPSET, choices=(OPSET,), help=f"default: {OPSET}")
    parser.add_argument("--export-aesthetic", action="store_true", help="pictures to logits (default)")
    parser.add_argument("--export-vision", action="store_true", help="pictures to image embeddings")
    parser.add_argument("--export-text", action="store_true", help="refused: " + NO_TEXT)
    parser.add_argument("--export-siglip", action="store_true",
                        help="the same as --export-vision, since there is no text")
    parser.add_argument("--all", action="store_true", help="aesthetic and vision")
    ours = parser.add_argument_group("options that the original does not have")
    ours.add_argument("--dtype", choices=LIMITS, default="float32",
                      help="type of weights and arithmetic (default: float32)")
    ours.add_argument("--backend", choices=PACKAGES, default="jittor",
                      help="the twin to compare with (default: jittor)")
    ours.add_argument("--random-weights", action="store_true", help="accept adapters of an untrained tower")
    ours.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    if args.export_text:
        raise UserError(f"--export-text: {NO_TEXT}; use --export-vision or --export-aesthetic")
    vision = args.export_vision or args.export_siglip or args.all
    aesthetic = args.export_aesthetic or args.all or not vision
    if args.output and vision and aesthetic:
        raise UserError(f"--output {args.output} names one file, but two must be written: use --output-dir")
    if vision and (args.model is None or args.random_weights):
        raise UserError("--export-vision needs the files of a SigLIP model: give --model FOLDER, without "
                        "--random-weights")
    if args.export_siglip or args.all:
        print(NO_TEXT, file=sys.stderr)
    backend, _ = ready_backend(args.backend, "cpu", "float32")
    if aesthetic:
        scorer = read_scorer(backend.state_shapes, args.weights, args.model, args.random_weights)
        predictor = ScorerPredictor(backend, scorer)
        path = Path(args.output or Path(args.output_dir, AESTHETIC))
        tell(path, export_aesthetic(path, predictor, args.dtype), args)
    if vision:
        path = Path(args.output or Path(args.output_dir, VISION))
        tell(path, export_vision(path, backend, read_tower(args.model, head=True), args.dtype), args)
    return 0


def tell(path: Path, error: float, args) -> None:
    size = sum(file.stat().st_size for file in (path, Path(f"{path}.data")) if file.exists())
    mark = " (random weights)" if args.random_weights else ""
    print(f"{path}{mark}: {size / 1e6:.1f} MB, {args.dtype}, at most {error:.1e} from the {args.backend} twin")


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
