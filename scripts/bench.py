"""Measure time and memory of both twins in one run.

    python scripts/bench.py [MEASURE] [--size full|tiny] [--repeat N] [--json F]

Each figure is measured in a process of its own, alternately for jittor and torch, and is the median over `--repeat`
such pairs. A process warms up before it is timed. Other load on the machine changes wall seconds most, CPU seconds
(of all threads) much less, and ratios least.
  generate  one image from one label map
  train     one training iteration (G and D step) at batch 1 and full size, without a perceptual loss
  seeds     20 noise seeds of one label map, as a multiple of one
  fid       Inception features of 64 pictures of 1024x768, decoding included (24 of 256x192 at --size tiny)
  tower     SigLIP's vision tower so400m-patch16-512 on one picture
  lora      one training step of the aesthetic model on that tower, rank 32, at batch 1
  recompute the same with gradient checkpointing
  import    until a backend is ready; with --cold also Jittor's first import, which compiles its core
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from jittwin import imaging  # noqa: E402
from jittwin.backend import PACKAGES, load_backend  # noqa: E402
from jittwin.data.pictures import ImageSet  # noqa: E402
from jittwin.data.synthetic.landscapes import SyntheticLandscapes, render  # noqa: E402
from jittwin.draws import Draws  # noqa: E402
from jittwin.generate import Sampler  # noqa: E402
from jittwin.metrics.fid.features import FidScorer  # noqa: E402
from jittwin.models import aesthetic, siglip  # noqa: E402
from jittwin.models.apf_gan import ModelConfig, stage  # noqa: E402
from jittwin.tasks.apf_gan import Config  # noqa: E402
from jittwin.weights import read_weights, write_weights  # noqa: E402
from jittwin.weights.initial import initial_weights  # noqa: E402

MEASURES = ("generate", "train", "seeds", "fid", "tower", "lora", "recompute", "import")
WITHOUT_WEIGHTS = {"tower", "lora", "recompute", "import"}     # measures that read no file
SEEDS = 20
TOWER = "so400m-patch16-512"
PICTURES = {"full": (64, 1024, 768), "tiny": (24, 256, 192)}     # how many, width, height
MODELS = {"E": "apf_gan.encoder", "G": "apf_gan.generator", "D": "apf_gan.discriminator"}


def model_config(size: str) -> ModelConfig:
    return Config(**(Config.PRESETS["tiny"] if size == "tiny" else {})).model()


def ready(name: str):
    backend = load_backend(name)
    backend.setup()
    return backend


def scene(config: ModelConfig) -> dict:
    """One built-in landscape: image (3, H, W) and label (H, W)."""
    height, width = config.size
    return SyntheticLandscapes(1, width, height, aspect_ratio=config.aspect_ratio).get(0, Draws(0))


def timed(action, warm: int, times: int) -> dict[str, float]:
    """Median wall and CPU seconds of `action`, which must wait until its results are computed."""
    for _ in range(warm):
        action()
    walls, cpus = [], []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        action()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"seconds": median(walls), "cpu": median(cpus)}


def weights(name: str, size: str, folder: Path) -> dict:
    """Write initial weights of all networks, which the timed processes read."""
    backend, config = ready(name), model_config(size)
    for key, model in MODELS.items():
        arrays = initial_weights(config.semantics.initial_rule, backend.state_shapes(model, config))
        write_weights(folder / f"{key}.safetensors", arrays, {})
    return {}


def sampler(name: str, size: str, folder: Path):
    backend, config = ready(name), model_config(size)
    made = Sampler(backend, config, {key: read_weights(folder / f"{key}.safetensors") for key in "EG"})
    label = scene(config)["label"][None]
    return backend, lambda seeds: [images for _, images in made(["scene"], label, range(seeds))]


def generate(name: str, size: str, folder: Path) -> dict:
    backend, sample = sampler(name, size, folder)
    return timed(lambda: sample(1), warm=1, times=3) | {"memory": backend.memory()}


def seeds(name: str, size: str, folder: Path) -> dict:
    backend, sample = sampler(name, size, folder)
    one = timed(lambda: sample(1), warm=1, times=2)
    sample(2)  # compiles what only several seeds need
    many = timed(lambda: sample(SEEDS), warm=0, times=1)
    return many | {"memory": backend.memory(), "one": one["seconds"], "one_cpu": one["cpu"]}


def train(name: str, size: str, folder: Path) -> dict:
    backend, config = ready(name), model_config(size)
    at, modules = stage(config.pg_niter, config.pg_niter, config.num_D), {}
    for key, model in MODELS.items():
        modules[key] = backend.build(model, config)
        backend.load_numpy(modules[key], read_weights(folder / f"{key}.safetensors"))
        backend.train_mode(modules[key], True)
    generators = {f"{key}.{name}": value for key in "EG"
                  for name, value in backend.parameters(modules[key]).items()}
    optimizers = [backend.optimizer("adam", [{"params": parameters, "lr": rate}], betas=(0.0, 0.9),
                                    form=config.semantics.adam)
                  for parameters, rate in ((generators, 1e-4), (backend.parameters(modules["D"]), 4e-4))]
    objective = backend.build("apf_gan.objective", config, modules["E"], modules["G"], modules["D"])
    sides = objective.generator_losses, objective.discriminator_losses
    sample = scene(config)
    label, real = backend.asarray(sample["label"][None]), backend.asarray(sample["image"][None])

    def iteration():
        for optimizer, losses in zip(optimizers, sides):
            backend.step(optimizer, sum(losses(label, real, at, Draws(0)).values()))
        backend.synchronize()

    return timed(iteration, warm=2, times=1 if size == "full" else 5) | {"memory": backend.memory()}


def fid(name: str, size: str, folder: Path) -> dict:
    count, width, height = PICTURES[size]
    pictures = folder / "pictures"
    if not pictures.exists():
        pictures.mkdir()
        for index in range(count):
            imaging.save_image(pictures / f"{index}.jpg", render(index % 8, width, height)[0], 90)
    backend = ready(name)
    scorer, images = FidScorer(backend, random=True), ImageSet(pictures)
    scorer.compute(ImageSet([pictures / f"{index}.jpg" for index in range(scorer.batch)]), quiet=True)
    return timed(lambda: scorer.compute(images, quiet=True), warm=0, times=1) | {"memory": backend.memory()}


def pixels(backend, config):
    """One picture of the built-in landscapes, in the form of the tower's input."""
    return backend.asarray(siglip.preprocess(config)(render(0, 640, 480)[0])[None])


def tower(name: str, size: str, folder: Path) -> dict:
    backend, config = ready(name), siglip.PRESETS["tiny" if size == "tiny" else TOWER]
    module = backend.build("siglip", config)
    backend.load_numpy(module, initial_weights("siglip", backend.state_shapes("siglip", config)))
    backend.train_mode(module, False)
    x = pixels(backend, config)

    def forward():
        with backend.no_grad():
            backend.numpy(module(x))

    return timed(forward, warm=1, times=3) | {"memory": backend.memory()}


def lora(name: str, size: str, folder: Path, **options) -> dict:
    backend = ready(name)
    config = aesthetic.AestheticConfig(siglip.PRESETS["tiny" if size == "tiny" else TOWER])
    module = backend.build("aesthetic", config, **options)
    shapes = backend.state_shapes("siglip", config.tower)
    trained = initial_weights("aesthetic", aesthetic.trainable_keys(config, shapes))
    backend.load_numpy(module, aesthetic.tower_state(initial_weights("siglip", shapes)), aesthetic.TRAINED)
    backend.load_numpy(module, trained, aesthetic.FROZEN)
    backend.train_mode(module, True)
    optimizer = backend.optimizer("adamw", [{"params": backend.parameters(module), "lr": 2e-4}])
    x, target = pixels(backend, config.tower), backend.asarray(np.full((1, 10), 0.1, np.float32))

    def step():
        backend.seed(1)
        backend.step(optimizer, module.loss(x, target)["EMD"], clip=1.0)
        backend.synchronize()

    return timed(step, warm=2, times=2) | {"memory": backend.memory()}


def recompute(name: str, size: str, folder: Path) -> dict:
    return lora(name, size, folder, gradient_checkpointing=True)


def imported(name: str, size: str, folder: Path) -> dict:
    return timed(lambda: ready(name), warm=0, times=1) | {"memory": load_backend(name).memory()}


WORKERS = {"weights": weights, "generate": generate, "seeds": seeds, "train": train, "fid": fid, "tower": tower,
           "lora": lora, "recompute": recompute, "import": imported}


def in_process(measure: str, name: str, size: str, folder: Path, **environment) -> dict:
    """Run a measurement in a process of its own."""
    command = [sys.executable, __file__, measure, "--size", size, "--worker", name, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"{measure} on {name} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(measure: str, size: str, repeat: int, folder: Path) -> dict[str, dict[str, float]]:
    """Medians by backend. The backends take turns, so that a change of the machine's load affects both."""
    runs = {name: [] for name in PACKAGES}
    for _ in range(repeat):
        for name in PACKAGES:
            runs[name].append(in_process(measure, name, size, folder))
    return {name: {key: median(run[key] for run in done) for key in done[0]} for name, done in runs.items()}


def machine() -> str:
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (f"{len(os.sched_getaffinity(0))} cores of {model}, {memory:.0f} GB, "
            f"load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")


def show(measure: str, results: dict[str, dict[str, float]]) -> None:
    title = f"{SEEDS} seeds" if measure == "seeds" else measure
    for name, result in results.items():
        seconds, cpu, memory = result["seconds"], result["cpu"], result["memory"] / 1e6
        line = f"{title:<12}{name:<8}{seconds:>9.2f} s{cpu:>9.2f} s{memory:>8.0f} MB"
        if measure == "seeds":
            line += f"   {seconds / result['one']:.1f}x one seed, CPU {cpu / result['one_cpu']:.1f}x"
        print(line)
    jittor, torch = (results[name] for name in PACKAGES)
    seconds, cpu, memory = (jittor[key] / torch[key] for key in ("seconds", "cpu", "memory"))
    print(f"{'':<12}{'ratio':<8}{seconds:>9.2f}  {cpu:>9.2f}  {memory:>8.2f}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", nargs="?", default="all", choices=(*MEASURES, "all", "weights"),
                        metavar="|".join((*MEASURES, "all")))
    parser.add_argument("--size", choices=("full", "tiny"), default="full",
                        help="default: full, the published sizes")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="pairs of processes (default: 1)")
    parser.add_argument("--cold", action="store_true",
                        help="also time Jittor's first import (2 to 5 minutes)")
    parser.add_argument("--json", metavar="F", help="write the figures to this file too")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.worker:
        name, folder = args.worker
        print(json.dumps(WORKERS[args.measure](name, args.size, Path(folder))))
        return
    report = {"machine": machine(), "size": args.size, "repeat": args.repeat}
    print(f"{report['machine']}\n{args.size} size; wall, CPU, peak resident memory; ratio = jittor / torch")
    with tempfile.TemporaryDirectory() as folder:
        chosen = MEASURES if args.measure == "all" else [args.measure]
        if set(chosen) - WITHOUT_WEIGHTS:
            in_process("weights", "torch", args.size, Path(folder))
        for measure in chosen:
            report[measure] = compare(measure, args.size, args.repeat, Path(folder))
            show(measure, report[measure])
        if args.cold:
            report["cold"] = in_process("import", "jittor", args.size, Path(folder), JITTWIN_CACHE=folder)
            print(f"{'cold import':<12}{'jittor':<8}{report['cold']['seconds']:>9.2f} s")
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
