"""Measure time and memory of both twins in one run.

    python scripts/bench.py [MEASURE ...] [--size full|tiny] [--repeat N] [--against CHECKOUT] [--markdown [FILE]]

Each figure is measured in a process of its own, alternately for jittor and torch, and is the median over `--repeat`
such pairs. A process warms up before it is timed. Other load on the machine changes wall seconds most, CPU seconds
(of all threads) much less, and ratios least.
  generate  one image from one label map, also as a multiple of the time and memory that convolutions over all pixels
            take; generate_half and generate_double with sides of half and twice the length, generate_noise from a map
            of drawn classes
  train     one training iteration (G and D step) at batch 1, without a perceptual loss; train4 at batch 4
  seeds     20 noise seeds of one label map, as a multiple of one
  modulation  one SPADE normalisation with its gradients, as a multiple of the way over all pixels: label maps of one
            class, with a tenth of the neighbourhoods distinct, with so many that the two ways are to take as long,
            and of drawn classes
  growth    how cost grows with pixels, distinct neighbourhoods, pictures and tokens: generate and its kin, modulation,
            fid and a quarter of its pictures, BERT with 8 texts of 16, 77 and 256 tokens (a sixteenth of it at --size
            tiny)
  fid       Inception features of 64 pictures of 1024x768, decoding included (24 of 256x192 at --size tiny)
  tower     SigLIP's vision tower so400m-patch16-512 on one picture
  lora      one training step of the aesthetic model on that tower, rank 32, at batch 1
  recompute the same with gradient checkpointing
  tier      one training step of TIER-NR with ViT-L/16 and BERT, two pictures
  backbones a forward pass of every other network, 8 pictures with texts of 32 tokens; each also by its own name
            (resnet18, resnet50, inceptionv4, vgg16, vit, bert, clip_l14, clip_h14, blip, imagereward)
  steps     a training step of all parameters of resnet18, resnet50, inceptionv4 and bert (8 pictures or texts),
            vgg16 (4) and vit (2); each also by its own name (resnet18_step, ...)
  distortion  a forward pass of the detector of structural distortion on Florence-2-base, one picture of 768x768 with a
            text of 80 tokens, padded as published; distortion_fast does not attend to padding, distortion_large is on
            Florence-2-large, distortion_step is a training step with gradient checkpointing, two pictures
  compiled  the forward passes of tower, backbones and distortion with the network compiled by torch.compile, as a
            multiple of those without; for --backend torch; each also by its own name (tower_compiled, ...)
  ops       every function of nn/ that takes time in a published model, at a size at which one uses it: forward and
            backward pass, and the share of the machine's own peak that the forward pass reaches
  import    until a backend is ready; with --cold also Jittor's first import, which compiles its core
"""
import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
# A worker measures the checkout in whose folder it runs, see --against.
sys.path.insert(0, str(Path.cwd() if "--worker" in sys.argv else ROOT))

import bench_tables  # noqa: E402
from bench_measures import (  # noqa: E402
    BACKBONES,
    COMPILED,
    DETECTORS,
    GROWTH,
    MODULATIONS,
    MULTIPLES,
    READ_WEIGHTS,
    STEPS,
    WORKERS,
)
from bench_timing import HOW, TIMED, products_and_peak  # noqa: E402

from jittwin.backend import DEVICES, PACKAGES, PRECISIONS  # noqa: E402
from jittwin.errors import choose_from  # noqa: E402

GROUPS = {"backbones": tuple(BACKBONES), "steps": tuple(f"{name}_step" for name in STEPS),
          "modulation": tuple(MODULATIONS), "growth": GROWTH, "compiled": tuple(COMPILED)}
GROUPS["all"] = ("generate", "train", "train4", "seeds", *GROWTH, "tower", "lora", "recompute", "tier",
                 *BACKBONES, *GROUPS["steps"], *DETECTORS, "distortion_step", "ops", "import")
INSTRUCTIONS = {"avx2": "AVX2", "avx512f": "AVX-512", "amx_tile": "AMX", "asimd": "NEON", "sve": "SVE"}


def in_process(measure: str, name: str, size: str, folder: Path, root: Path = ROOT, peak: bool = False,
               **environment) -> dict:
    """Run a measurement of the checkout `root` in a process of its own."""
    command = [sys.executable, __file__, measure, "--size", size, "--worker", name, str(folder),
               "--device", HOW["device"], "--dtype", HOW["dtype"]]
    command += ["--peak"] * peak + (["--label", HOW["label"]] if HOW["label"] else [])
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"{measure} on {name} in {root} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(measure: str, args: argparse.Namespace, folder: Path) -> dict[str, dict]:
    """Medians by backend; under "other" those of what the measure is compared with. All of them take turns, so that a
    change of the machine's load affects them alike."""
    backends = (args.backend,) if args.backend else tuple(PACKAGES)
    kinds = {"": (measure, ROOT)}
    if args.against:
        kinds["other"] = measure, args.against
    elif measure in MULTIPLES:
        kinds["other"] = MULTIPLES[measure], ROOT
    runs = {(name, kind): [] for name in backends for kind in kinds}
    for turn in range(args.repeat):
        for (name, kind), done in runs.items():
            what, root = kinds[kind]
            peak = args.peak and name == "torch" and not turn and not kind      # counting once is enough
            done.append(in_process(what, name, args.size, folder, root, peak))
    found = {which: {key: median(run[key] for run in done if key in run) for key in done[0]}
             for which, done in runs.items()}
    return {name: found[name, ""] | {kind: found[name, kind] for kind in kinds if kind} for name in backends}


def machine() -> str:
    """The processor with its instruction sets, on which ratios depend, the memory and the present load."""
    facts = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    model = facts.get("model name") or platform.processor() or platform.machine()
    flags = (facts.get("flags") or facts.get("Features", "")).split()
    sets = ", ".join(shown for flag, shown in INSTRUCTIONS.items() if flag in flags) or "no vector instructions"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0))
    threads = os.environ.get("OMP_NUM_THREADS", str(cores))
    return (f"{cores} cores of {model} ({sets}), {threads} thread{'s' * (threads != '1')}, "
            f"{memory:.0f} GB, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")


def commit(root: Path) -> str:
    """Of a checkout, for a line of facts."""
    def told(*words: str) -> str:
        return subprocess.run(["git", "-C", root, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True).stdout.strip()

    changed = told("status", "--porcelain", "--untracked-files=no") and " with changes"
    return (told("rev-parse", "--short", "HEAD") or "unknown") + changed


def known(measure: str) -> str:
    if measure not in (*WORKERS, *GROUPS):
        raise argparse.ArgumentTypeError(f"{measure!r}{choose_from(measure, (*WORKERS, *GROUPS))}")
    return measure


def checkout(folder: str) -> Path:
    root = Path(folder).resolve()
    if not (root / "jittwin/backend.py").is_file():
        raise argparse.ArgumentTypeError(f"{folder!r} is no checkout of this repository: make one with "
                                         "git worktree add FOLDER COMMIT")
    return root


def readable(file: str) -> str:
    if not Path(file).is_file():
        raise argparse.ArgumentTypeError(f"{file!r}: no such file")
    return str(Path(file).resolve())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", type=known, default=["all"], metavar="MEASURE",
                        help="default: all")
    parser.add_argument("--size", choices=("full", "tiny"), default="full",
                        help="default: full, the published sizes")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="pairs of processes (default: 1)")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="default: cpu; on a GPU, memory is the GPU's")
    parser.add_argument("--against", type=checkout, metavar="CHECKOUT",
                        help="measure another checkout of this repository in turns with this one, with these scripts, "
                             "and give this one as multiples of it; see git worktree add")
    parser.add_argument("--label", type=readable, metavar="FILE", help="a label map in place of the built-in ones")
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32", help="of matrix products (default: float32)")
    parser.add_argument("--backend", choices=PACKAGES, help="default: both")
    parser.add_argument("--peak", action="store_true",
                        help="also the share of the machine's peak of products, which PyTorch's process counts and "
                             "measures; part of --markdown")
    parser.add_argument("--cold", action="store_true",
                        help="also time Jittor's first import (2 to 5 minutes)")
    parser.add_argument("--markdown", nargs="?", const="", metavar="FILE",
                        help="write tables, to standard output or into a section of their own of this page")
    parser.add_argument("--json", metavar="F", help="write the figures to this file too")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    if args.peak and args.backend == "jittor":
        parser.error("--peak needs torch, which counts the operations")
    args.peak |= args.markdown is not None and not args.worker
    HOW.update(device=args.device, dtype=args.dtype, label=args.label)
    return args


def main() -> None:
    args = parse()
    if args.worker:
        name, folder = args.worker
        figures = WORKERS[args.measures[0]](name, args.size, Path(folder))
        print(json.dumps(figures | (products_and_peak() if args.peak and TIMED else {})))
        return
    measures = dict.fromkeys(each for measure in args.measures for each in GROUPS.get(measure, (measure,)))
    if args.backend and "ops" in measures:
        sys.exit("ops compares the two backends: leave out --backend, or name other measures")
    against = f" against {commit(args.against)}" if args.against else ""
    report = {"facts": f"{datetime.date.today()}, commit {commit(ROOT)}{against}, {machine()}; {args.size} size on "
                       f"{args.device} in {args.dtype}, medians of {args.repeat}; ratio = jittor / torch",
              "others": dict.fromkeys(measures, "before") if args.against else MULTIPLES, "measures": {}}
    # Standard output is the page's, if there is one.
    out = sys.stderr if args.markdown == "" else sys.stdout
    print(report["facts"], file=out, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if READ_WEIGHTS & set(measures):
            in_process("weights", "torch", args.size, Path(folder))
        for measure in measures:
            report["measures"][measure] = compare(measure, args, Path(folder))
            print(bench_tables.text(measure, report["measures"][measure], report["others"].get(measure, "")),
                  file=out, flush=True)
            save(report, args)
        if args.cold:
            report["cold"] = in_process("import", "jittor", args.size, Path(folder), JITTWIN_CACHE=folder)
            print(f"{'cold import':<17}{'jittor':<8}{report['cold']['seconds']:>9.2f} s", file=out)
            save(report, args)
    if args.markdown == "":
        print(bench_tables.markdown(report), end="")


def save(report: dict, args: argparse.Namespace) -> None:
    """Write what has been measured so far, because a later measure may fail."""
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=2) + "\n")
    if args.markdown:
        name = " ".join(args.measures) + " --against" * bool(args.against)
        bench_tables.write_section(Path(args.markdown), name, bench_tables.markdown(report))


if __name__ == "__main__":
    main()
