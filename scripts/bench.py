"""Measure time and memory of both twins in one run.

    python scripts/bench.py [MEASURE] [--size full|tiny] [--repeat N] [--json F]

Each figure is measured in a process of its own, alternately for jittor and torch, and is the median over `--repeat`
such pairs. A process warms up before it is timed. Other load on the machine changes wall seconds most, CPU seconds
(of all threads) much less, and ratios least.
  generate  one image from one label map
  train     one training iteration (G and D step) at batch 1 and full size, without a perceptual loss
  seeds     20 noise seeds of one label map, as a multiple of one
  modulation  one SPADE normalisation with its gradients from the distinct neighbourhoods of a label map, as a multiple
            of the time that the convolutions over all pixels take, where the two ways are to take as long
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
  ops       every function of nn/ that takes time in a published model, at a size at which one uses it: forward and
            backward pass, and the share of the machine's own peak that the forward pass reaches
  import    until a backend is ready; with --cold also Jittor's first import, which compiles its core
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import bench_ops  # noqa: E402
from bench_measures import BACKBONES, DETECTORS, HOW, READ_WEIGHTS, SEEDS, STEPS, WORKERS  # noqa: E402

from jittwin.backend import DEVICES, PACKAGES, PRECISIONS  # noqa: E402

GROUPS = {"backbones": tuple(BACKBONES), "steps": tuple(f"{name}_step" for name in STEPS)}
GROUPS["all"] = ("generate", "train", "seeds", "modulation", "fid", "tower", "lora", "recompute", "tier",
                 *BACKBONES, *GROUPS["steps"], *DETECTORS, "distortion_step", "ops", "import")
MULTIPLES = {"seeds": "one seed", "modulation": "all pixels"}       # what a measure's time is also divided by
INSTRUCTIONS = {"avx2": "AVX2", "avx512f": "AVX-512", "amx_tile": "AMX", "asimd": "NEON", "sve": "SVE"}


def in_process(measure: str, name: str, size: str, folder: Path, **environment) -> dict:
    """Run a measurement in a process of its own."""
    command = [sys.executable, __file__, measure, "--size", size, "--worker", name, str(folder),
               "--device", HOW["device"], "--dtype", HOW["dtype"]]
    command += ["--peak"] if HOW["peak"] else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"{measure} on {name} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(measure: str, size: str, repeat: int, folder: Path, backends: tuple) -> dict[str, dict[str, float]]:
    """Medians by backend. The backends take turns, so that a change of the machine's load affects both."""
    runs = {name: [] for name in backends}
    for _ in range(repeat):
        for name in backends:
            runs[name].append(in_process(measure, name, size, folder))
    return {name: {key: median(run[key] for run in done) for key in done[0]} for name, done in runs.items()}


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
    return (f"{len(os.sched_getaffinity(0))} cores of {model} ({sets}), {memory:.0f} GB, "
            f"load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")


def show(measure: str, results: dict[str, dict[str, float]]) -> None:
    if measure == "ops":
        print(bench_ops.table(results), flush=True)
        return
    title = f"{SEEDS} seeds" if measure == "seeds" else measure
    for name, result in results.items():
        seconds, cpu, memory = result["seconds"], result["cpu"], result["memory"] / 1e6
        line = f"{title:<17}{name:<8}{seconds:>9.2f} s{cpu:>9.2f} s{memory:>8.0f} MB"
        if measure in MULTIPLES:
            line += f"   {seconds / result['one']:.2f} of {MULTIPLES[measure]}, CPU {cpu / result['one_cpu']:.2f}"
        if "share" in result:
            line += f"   {result['teraflops']:.2f} TFLOP/s, {result['share']:.0%} of the peak"
        print(line, flush=True)
    if len(results) < len(PACKAGES):
        return
    jittor, torch = (results[name] for name in PACKAGES)
    seconds, cpu, memory = (jittor[key] / torch[key] for key in ("seconds", "cpu", "memory"))
    print(f"{'':<17}{'ratio':<8}{seconds:>9.2f}  {cpu:>9.2f}  {memory:>8.2f}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", nargs="?", default="all", choices=(*WORKERS, *GROUPS), metavar="MEASURE")
    parser.add_argument("--size", choices=("full", "tiny"), default="full",
                        help="default: full, the published sizes")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="pairs of processes (default: 1)")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="default: cpu; on a GPU, memory is the GPU's")
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32", help="of matrix products (default: float32)")
    parser.add_argument("--backend", choices=PACKAGES, help="default: both")
    parser.add_argument("--peak", action="store_true",
                        help="with --backend torch: also the share of the peak of matrix products")
    parser.add_argument("--cold", action="store_true",
                        help="also time Jittor's first import (2 to 5 minutes)")
    parser.add_argument("--json", metavar="F", help="write the figures to this file too")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak and args.backend != "torch" and not args.worker:
        parser.error("--peak needs --backend torch, which counts the operations")
    HOW.update(device=args.device, dtype=args.dtype, peak=args.peak)
    return args


def main() -> None:
    args = parse()
    if args.worker:
        name, folder = args.worker
        print(json.dumps(WORKERS[args.measure](name, args.size, Path(folder))))
        return
    report = {"machine": machine(), "size": args.size, "repeat": args.repeat, "device": args.device,
              "dtype": args.dtype}
    print(f"{report['machine']}\n{args.size} size on {args.device} in {args.dtype}; wall, CPU, peak resident memory; "
          "ratio = jittor / torch")
    with tempfile.TemporaryDirectory() as folder:
        chosen = GROUPS.get(args.measure, (args.measure,))
        if READ_WEIGHTS & set(chosen):
            in_process("weights", "torch", args.size, Path(folder))
        for measure in chosen:
            backends = (args.backend,) if args.backend else tuple(PACKAGES)
            report[measure] = compare(measure, args.size, args.repeat, Path(folder), backends)
            show(measure, report[measure])
        if args.cold:
            report["cold"] = in_process("import", "jittor", args.size, Path(folder), JITTWIN_CACHE=folder)
            print(f"{'cold import':<17}{'jittor':<8}{report['cold']['seconds']:>9.2f} s")
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
