"""What scripts/bench.py measures, each by a function that runs in a process of its own.

A function takes the backend's name, the size, "full" or "tiny", and a folder for files, and returns figures: wall
"seconds", "cpu" seconds of all threads, and "memory", the peak of the process in bytes. It may run in an earlier
checkout of this repository, so it calls what has been there for long wherever that is enough.
"""
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import bench_ops
import numpy as np
from bench_apf_gan import generate, modulation, seeds, train, weights
from bench_timing import HOW, infer_only, ready, timed

from jittwin import imaging
from jittwin.backend import load_backend
from jittwin.data.pictures import ImageSet
from jittwin.data.synthetic.landscapes import render
from jittwin.draws import Draws
from jittwin.metrics.fid.features import FidScorer
from jittwin.models import aesthetic, bert, blip, clip, distortion, image_reward, siglip, tier
from jittwin.weights.initial import initial_weights
from jittwin.weights.state import matches

TOWER = "so400m-patch16-512"
BATCH, TOKENS = 8, {"full": 32, "tiny": 16}     # of the networks of BACKBONES
TRAINED = 2                     # pictures of TIER's training step
QUESTION = 80                   # tokens of the text that the detector of distortion reads
PICTURES = {"full": (64, 1024, 768), "tiny": (24, 256, 192)}     # how many, width, height


def fid(name: str, size: str, folder: Path, share: float = 1) -> dict:
    count, width, height = PICTURES[size]
    count = round(count * share)
    pictures = folder / f"pictures{count}"
    if not pictures.exists():
        pictures.mkdir()
        for index in range(count):
            imaging.save_image(pictures / f"{index}.jpg", render(index % 8, width, height)[0], 90)
    backend = ready(name)
    scorer, images = FidScorer(backend, random=True), ImageSet(pictures)
    first = min(scorer.batch, count)
    scorer.compute(ImageSet([pictures / f"{index}.jpg" for index in range(first)]), quiet=True)
    return timed(lambda: scorer.compute(images, quiet=True), warm=0, times=1) | {"memory": backend.memory()}


def pixels(backend, config):
    """One picture of the built-in landscapes, in the form of the tower's input."""
    return backend.asarray(siglip.preprocess(config)(render(0, 640, 480)[0])[None])


def tower(name: str, size: str, folder: Path) -> dict:
    backend, config = ready(name), siglip.PRESETS["tiny" if size == "tiny" else TOWER]
    module = backend.build("siglip", config)
    backend.load_numpy(module, initial_weights("siglip", backend.state_shapes("siglip", config)))
    infer_only(backend, module)
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


class Backbone(NamedTuple):
    """model: in the catalogue. configs: by size. forward: (module, pixels, ids, keep) to a tensor."""

    model: str
    configs: dict[str, Any]
    forward: Callable


def of_pictures(name: str) -> Backbone:
    """One of TIER's image encoders."""
    configs = {size: images[name] for size, images in tier.IMAGES.items()}
    return Backbone(tier.MODELS[type(configs["full"])], configs, lambda module, pixels, ids, keep: module(pixels))


BACKBONES = {
    **{name: of_pictures(name) for name in ("resnet18", "resnet50", "inceptionv4", "vgg16", "vit")},
    "bert": Backbone("bert", {"full": bert.PRESETS["base-uncased"], "tiny": bert.PRESETS["tiny"]},
                     lambda module, pixels, ids, keep: module(ids, keep)),
    **{f"clip_{name}": Backbone("clip", {"full": clip.PRESETS[name], "tiny": clip.PRESETS["tiny"]},
                                lambda module, pixels, ids, keep: module(pixels, ids)) for name in ("l14", "h14")},
    "blip": Backbone("blip", {"full": blip.PRESETS["large"], "tiny": blip.PRESETS["tiny"]},
                     lambda module, pixels, ids, keep: module(pixels, ids, keep)),
    "imagereward": Backbone("image_reward", {"full": image_reward.PRESETS["large"],
                                             "tiny": image_reward.PRESETS["tiny"]},
                            lambda module, pixels, ids, keep: module(pixels, ids, keep)),
}


# How many pictures or texts a training step has.
STEPS = {"resnet18": 8, "resnet50": 8, "inceptionv4": 8, "vgg16": 4, "vit": 2, "bert": 8}


def batch(backend, tokens: int, side: int, count: int) -> tuple:
    """Noise for pixels, and the ids and the mask of texts."""
    draws, shape = Draws(0), (count, tokens)
    return tuple(map(backend.asarray, (draws.normal("pixels", (count, 3, side, side)),
                                       (draws.uniform("ids", shape) * 50).astype(np.int32),
                                       np.ones(shape, np.float32))))


def side_of(name: str, config, size: str) -> int:
    """Of the square pictures that a network takes, in pixels."""
    for part in (config, getattr(config, "vision", None), getattr(getattr(config, "blip", None), "vision", None)):
        if found := getattr(part, "image_size", None):
            return found
    return tier.SIDES[size].get(name, tier.SIDE[size])


def built(measure: str, name: str, size: str, count: int, train: bool, tokens: int) -> tuple:
    """(backend, untrained network, a function that computes its features of `count` pictures or texts of `tokens`)."""
    backend, (model, configs, forward) = ready(name), BACKBONES[measure]
    config = configs[size]
    module = backend.build(model, config)
    backend.load_numpy(module, initial_weights(model, backend.state_shapes(model, config)))
    backend.train_mode(module, True) if train else infer_only(backend, module)
    given = batch(backend, tokens, side_of(measure, config, size), count)
    return backend, module, lambda: forward(module, *given)


def backbone(measure: str, name: str, size: str, folder: Path, tokens: int | None = None) -> dict:
    backend, _, features = built(measure, name, size, BATCH, False, tokens or TOKENS[size])

    def run():
        with backend.no_grad():
            backend.numpy(features())

    return timed(run, warm=1, times=3) | {"memory": backend.memory()}


def text(tokens: int, name: str, size: str, folder: Path) -> dict:
    """BERT on texts of so many tokens, or a sixteenth of them for the tiny network."""
    return backbone("bert", name, size, folder, tokens // 16 if size == "tiny" else tokens)


def train_backbone(measure: str, name: str, size: str, folder: Path) -> dict:
    """One training step of all parameters of a network, on the sum of its squared features."""
    backend, module, features = built(measure, name, size, STEPS[measure], True, TOKENS[size])
    optimizer = backend.optimizer("adam", [{"params": backend.parameters(module), "lr": 1e-6}])

    def step():
        backend.seed(1)
        y = features()
        backend.step(optimizer, (y * y).sum())
        backend.synchronize()

    return timed(step, warm=2, times=3) | {"memory": backend.memory()}


def train_tier(name: str, size: str, folder: Path) -> dict:
    backend, config = ready(name), tier.make_config("nr", "vit", size)
    module = backend.build("tier", config)
    backend.load_numpy(module, initial_weights("tier", backend.state_shapes("tier", config)))
    backend.train_mode(module, True)
    trained = {key: p for key, p in backend.parameters(module).items() if not matches(key, tier.FROZEN)}
    optimizer = backend.optimizer("adam", [{"params": trained, "lr": 1e-5}], weight_decay=1e-5)
    pixels, ids, keep = batch(backend, TOKENS[size], config.image_size, TRAINED)
    target = backend.asarray(np.full(TRAINED, 3, np.float32))

    def step():
        backend.seed(1)
        backend.step(optimizer, module.loss(module(pixels, ids, keep), target)["MSE"])
        backend.synchronize()

    return timed(step, warm=1, times=2) | {"memory": backend.memory()}


def detector(name: str, size: str, folder: Path, trunk: str = "base", text_mode: str = "reference") -> dict:
    """A forward pass of the detector of distortion on one picture with a text of 80 tokens, padded as the mode says."""
    backend, module, given = distortion_parts(name, size, trunk, text_mode)
    infer_only(backend, module)

    def run():
        with backend.no_grad():
            backend.numpy(module(*given)[0])

    return timed(run, warm=1, times=2) | {"memory": backend.memory()}


def distortion_parts(name: str, size: str, trunk: str, text_mode: str, count: int = 1, **options) -> tuple:
    """(backend, untrained detector, its inputs)."""
    backend, config = ready(name), distortion.make_config("tiny" if size == "tiny" else trunk, text_mode=text_mode)
    module = backend.build("distortion", config, **options)
    backend.load_numpy(module, initial_weights("distortion", backend.state_shapes("distortion", config)))
    words = min(QUESTION, config.text_length)
    length = config.text_length if text_mode == "reference" else words
    keep = (np.arange(length) < words).astype(np.int32)[None].repeat(count, 0)
    ids = np.where(keep, 2 + np.arange(length) % 50, 1).astype(np.int32)
    pixels = Draws(0).normal("pixels", (count, 3, config.image_size, config.image_size))
    return backend, module, tuple(map(backend.asarray, (pixels, ids, keep)))


def train_distortion(name: str, size: str, folder: Path) -> dict:
    """One training step of the whole detector of Florence-2-base, with gradient checkpointing, on two pictures, of
    which batch normalisation needs more than one."""
    backend, module, given = distortion_parts(name, size, "base", "fast", 2, gradient_checkpointing=True)
    backend.train_mode(module, True)
    optimizer = backend.optimizer("adamw", [{"params": backend.parameters(module), "lr": 1e-5}], weight_decay=1e-2)

    def step():
        backend.seed(1)
        heat, score = module(*given)
        backend.step(optimizer, (heat * heat).mean() + (score * score).mean())
        backend.synchronize()

    return timed(step, warm=1, times=1 if size == "full" else 3) | {"memory": backend.memory()}


def compiled(measure: str, name: str, size: str, folder: Path) -> dict:
    """The same with networks that PyTorch has compiled; Jittor compiles in any case."""
    HOW["compiled"] = True          # in this process, which measures nothing else
    return WORKERS[measure](name, size, folder)


DETECTORS = {"distortion": {}, "distortion_fast": {"text_mode": "fast"}, "distortion_large": {"trunk": "large"}}


def imported(name: str, size: str, folder: Path) -> dict:
    return timed(lambda: ready(name), warm=0, times=1) | {"memory": load_backend(name).memory()}


# Label maps of `modulation`: one class, a tenth of the neighbourhoods distinct, as many as pay, nearly all.
MODULATIONS = {"modulation_one_class": 0, "modulation_tenth": 0.1, "modulation_limit": None, "modulation_noise": 1}
TEXTS = (16, 77, 256)           # tokens of the texts by which BERT's cost is shown to grow
WORKERS = {"weights": weights, "generate": generate, "seeds": seeds, "train": train,
           "train4": partial(train, count=4), "fid": fid, "tower": tower,
           "lora": lora, "recompute": recompute, "tier": train_tier, "import": imported,
           "distortion_step": train_distortion, "ops": bench_ops.measured,
           **{key: partial(detector, **options) for key, options in DETECTORS.items()},
           **{name: partial(backbone, name) for name in BACKBONES},
           **{f"{name}_step": partial(train_backbone, name) for name in STEPS},
           "generate_half": partial(generate, scale=0.5), "generate_double": partial(generate, scale=2),
           "generate_noise": partial(generate, noise=True),
           "generate_dense": partial(generate, modulation="dense"),
           **{key: partial(modulation, noise=noise) for key, noise in MODULATIONS.items()},
           "modulation_dense": partial(modulation, way="dense"),
           "fid_quarter": partial(fid, share=0.25),
           **{f"bert_{tokens}": partial(text, tokens) for tokens in TEXTS}}
COMPILED = {f"{name}_compiled": partial(compiled, name) for name in ("tower", *BACKBONES, "distortion")}
WORKERS |= COMPILED
GROWTH = ("generate_half", "generate", "generate_double", "generate_noise", *MODULATIONS, "fid_quarter", "fid",
          *(f"bert_{tokens}" for tokens in TEXTS))
# What a measure is also given as a multiple of.
MULTIPLES = {"seeds": "generate", "generate": "generate_dense", "generate_noise": "generate_dense",
             **dict.fromkeys(MODULATIONS, "modulation_dense"),
             **{name: name.removesuffix("_compiled") for name in COMPILED}}
# Measures that read what `weights` has written.
READ_WEIGHTS = {name for name in WORKERS if name.startswith(("generate", "seeds", "train"))}
