"""The original `adjust_outputs.py`: the mean of the heat maps and scores of several networks, as one submission.

    python scripts/adjust_outputs.py --pkl_root submit/test

The folder holds files *_raw.pkl of `evaluate.py`. It writes merged.pkl, with heat maps from 0 to 255, and
merged_thre90.pkl, with 0 and 1, which is handed in as output.pkl. The original reads every pickle of the folder, also
its own merged.pkl and maps of 0 and 1.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jittwin import cli
from jittwin.data.submission import THRESHOLD, is_raw, merged, read_submission, thresholded, write_submission
from jittwin.errors import UserError

RAW = "*_raw.pkl"


def run(argv: list[str]) -> int:
    parser = cli.Parser(prog="python scripts/adjust_outputs.py", description="merge predictions of distortion")
    parser.add_argument("--pkl_root", metavar="DIR", required=True, help=f"folder with files {RAW}")
    ours = parser.add_argument_group("options that the original does not have")
    ours.add_argument("--threshold", type=float, metavar="T", default=THRESHOLD,
                      help=f"of heat maps from 0 to 255 (default: {THRESHOLD})")
    ours.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    root = Path(args.pkl_root)
    if not 0 <= args.threshold < 255:
        raise UserError(f"--threshold {args.threshold:g}: legal: 0 to 254")
    files = sorted(root.glob(RAW))
    if not files:
        raise UserError(f"{root}: no file {RAW} there; give the folder in which evaluate.py wrote its predictions")
    predictions = []
    for file in files:
        predictions.append(read_submission(file))
        if not is_raw(predictions[-1]):
            raise UserError(f"{file}: its maps are of 0 and 1, which cannot be averaged; give heat maps from 0 to 255")
    mean = merged(predictions)
    write_submission(root / "merged.pkl", mean)
    final = root / f"merged_thre{args.threshold:g}.pkl"
    write_submission(final, thresholded(mean, args.threshold))
    print(f"{final}: {len(mean)} pictures, the mean of {len(files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
