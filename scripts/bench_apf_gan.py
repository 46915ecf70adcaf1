"""The measures of scripts/bench.py of APF-GAN, see bench_measures.py."""
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
from bench_timing import HOW, ready, timed

from jittwin import imaging
from jittwin.backend import PACKAGES
from jittwin.data.synthetic.landscapes import SyntheticLandscapes
from jittwin.draws import Draws
from jittwin.generate import Sampler
from jittwin.models.apf_gan import ModelConfig, stage
from jittwin.tasks.apf_gan import Config
from jittwin.weights import read_weights, write_weights
from jittwin.weights.initial import initial_weights

SEEDS = 20
MODELS = {"E": "apf_gan.encoder", "G": "apf_gan.generator", "D": "apf_gan.discriminator"}


def model_config(size: str) -> ModelConfig:
    return Config(**(Config.PRESETS["tiny"] if size == "tiny" else {})).model()


def scenes(config: ModelConfig, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Built-in landscapes: images (count, 3, H, W) and label maps (count, H, W), or the given one in their place."""
    height, width = config.size
    made = SyntheticLandscapes(count, width, height, aspect_ratio=config.aspect_ratio)
    images, labels = (np.stack([made.get(index, Draws(0))[key] for index in range(count)])
                      for key in ("image", "label"))
    if HOW["label"]:
        labels[:] = imaging.resize_label(imaging.decode_label(HOW["label"]), config.size)
    return images, labels


def weights(name: str, size: str, folder: Path) -> dict:
    """Write initial weights of all networks, which the timed processes read."""
    backend, config = ready(name), model_config(size)
    for key, model in MODELS.items():
        arrays = initial_weights(config.semantics.initial_rule, backend.state_shapes(model, config))
        write_weights(folder / f"{key}.safetensors", arrays, {})
    return {}


def sampler(name: str, size: str, folder: Path, scale: float = 1, noise: bool = False, **options):
    """(backend, a function that generates pictures of one label map from several seeds).

    scale: of the picture's sides. noise: whether each pixel's class is drawn. options: of ModelConfig.
    """
    backend, config = ready(name), model_config(size)
    config = replace(config, crop_size=round(config.crop_size * scale), **options)
    made = Sampler(backend, config, {key: read_weights(folder / f"{key}.safetensors") for key in "EG"})
    label = Draws(0).integers("labels", 0, config.label_nc, (1, *config.size)) if noise else scenes(config)[1]
    label = label.astype(np.uint8)
    return backend, lambda seeds: [images for _, images in made(["scene"], label, range(seeds))]


def generate(name: str, size: str, folder: Path, **options) -> dict:
    backend, sample = sampler(name, size, folder, **options)
    return timed(lambda: sample(1), warm=1, times=3) | {"memory": backend.memory()}


def seeds(name: str, size: str, folder: Path) -> dict:
    backend, sample = sampler(name, size, folder)
    sample(2)  # compiles what only several seeds need
    return timed(lambda: sample(SEEDS), warm=0, times=1) | {"memory": backend.memory()}


def train(name: str, size: str, folder: Path, count: int = 1) -> dict:
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
    real, label = map(backend.asarray, scenes(config, count))

    def iteration():
        for optimizer, losses in zip(optimizers, sides):
            backend.step(optimizer, sum(losses(label, real, at, Draws(0)).values()))
        backend.synchronize()

    return timed(iteration, warm=2, times=1 if size == "full" else 5) | {"memory": backend.memory()}


def modulation(name: str, size: str, folder: Path, noise: float | None = None, way: str = "auto") -> dict:
    """One SPADE normalisation and its gradients.

    noise: the share of distinct neighbourhoods among the pixels of the label map, which has rows of drawn classes; None
    for the largest at which "auto" computes each neighbourhood. way: of ModelConfig.modulation.
    """
    backend, (channels, height, width) = ready(name), {"full": (128, 192, 256), "tiny": (32, 48, 64)}[size]
    twin, config = import_module(f"{PACKAGES[name]}.apf_gan.generator"), ModelConfig(modulation=way)
    spade = twin.SPADE(channels, config, seg_noise=False)
    shapes = {key: tuple(value.shape) for key, value in spade.state_dict().items()}
    backend.load_numpy(spade, initial_weights("apf_gan", shapes))
    optimizer = backend.optimizer("sgd", [{"params": backend.parameters(spade), "lr": 1e-3}])
    labels = np.zeros((1, height, width), np.uint8)
    # Neighbourhoods reach two rows further than the drawn ones.
    noisy = max(0, round(height * (ModelConfig().modulation_limit if noise is None else noise)) - 2)
    labels[:, :noisy] = Draws(0).integers("labels", 0, config.label_nc, (1, noisy, width))
    label, x = (backend.asarray(a) for a in (labels, Draws(0).normal("x", (1, channels, height, width))))
    seg = twin.ops.one_hot(label, config.label_nc)

    def step():
        y = spade(x, twin.Condition(seg, label=label, limit=config.modulation_limit))
        backend.step(optimizer, twin.ops.mean(y * y))
        backend.synchronize()

    return timed(step, warm=2, times=5) | {"memory": backend.memory()}
