"""The original `inference_aesthetic_onnx.py`: aesthetic scores from an exported file, in onnxruntime on the CPU.

    python scripts/inference_aesthetic_onnx.py PICTURE|DIR ... --model onnx/model.onnx
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import aesthetic_output as output

from jittwin import cli
from jittwin.export.onnx import OnnxPredictor


def build_parser() -> cli.Parser:
    parser = cli.Parser(prog="python scripts/inference_aesthetic_onnx.py", description="aesthetic scores of pictures")
    output.add_arguments(parser)
    parser.add_argument("--model", default="./model.onnx", metavar="FILE", help="default: ./model.onnx")
    return parser


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: output.run(build_parser(), sys.argv[1:], lambda args: OnnxPredictor(
        args.model, args.threads, args.batch_size)), debug="--debug" in sys.argv))
