"""Images from a folder of label maps, on either backend.

Noise is keyed by (seed, name of the label map), so a picture does not depend on batch size, order or
backend. Everything that depends only on the labels is computed once for all seeds.
"""
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jittwin import imaging
from jittwin.checkpoints.find import read_network
from jittwin.classes import colour_label
from jittwin.data.landscape import LandscapeDataset
from jittwin.data.pure import PureDictionary
from jittwin.draws import Draws
from jittwin.errors import UserError
from jittwin.models.apf_gan import ModelConfig, Semantics
from jittwin.models.apf_gan_keys import COUNTERS, HEADS, SEG_NOISE, holds
from jittwin.models.catalog import find
from jittwin.weights import read_metadata, read_weights
from jittwin.weights.state import differences

NETWORKS = ("E", "G")          # the networks that generation needs
SHEET_ROWS = 16
UNUSED = (HEADS, COUNTERS)     # keys that files of weights may have and that generation does not need
EXTENSIONS = {"jpg": ".jpg", "png": ".png"}


class Renderer:
    """Writes the pictures of label maps. batch: label maps at a time. format: of EXTENSIONS. quality: of JPEG."""

    def __init__(self, sampler: "Sampler", labels: LandscapeDataset, batch: int = 1, format: str = "jpg",
                 quality: int = 75):
        self.sampler, self.labels, self.batch = sampler, labels, batch
        self.extension, self.quality = EXTENSIONS[format], quality

    def render(self, folders: Mapping[int, Path], pure: PureDictionary | None = None, sheet: list | None = None,
               quiet: bool = False) -> None:
        """Write every label map's picture for each seed into its folder.

        pure: replaces the pictures of single-class label maps, for the first seed only, because each photograph is used
        once. sheet: a list to which (label map, picture) is added for the first SHEET_ROWS pictures.
        """
        first = next(iter(folders))
        with tqdm(total=len(self.labels) * len(folders), unit="image", disable=quiet or None) as bar:
            for names, maps in batches(self.labels, self.batch):
                for seed, images in self.sampler(names, maps, list(folders)):
                    if pure and seed == first:
                        images = [apply_pure(pure, *each) for each in zip(names, maps, images)]
                    folders[seed].mkdir(parents=True, exist_ok=True)
                    for name, label, image in zip(names, maps, images):
                        path = folders[seed] / (name + self.extension)
                        path.parent.mkdir(parents=True, exist_ok=True)      # label maps may lie in subfolders
                        imaging.save_image(path, image, self.quality)
                        if sheet is not None and len(sheet) < SHEET_ROWS:
                            sheet.append([colour_label(label), image])
                    bar.update(len(names))


def apply_pure(pure: PureDictionary, name: str, label: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The image, or for a label map of one class a photograph; a line on stderr if there is no photograph."""
    return pure.apply(label, image, warn=lambda text: print(f"{name}: {text}", file=sys.stderr))


def read_generator(where: str, ema: bool = False) -> tuple[dict[str, dict[str, np.ndarray]], ModelConfig]:
    """(weights of E and G, sizes of the networks). ema: the averages over training instead of the weights.

    UserError: not found, another network, or E and G differ in width.
    """
    weights, sizes = {}, {}
    for name, model in (("E", "apf_gan.encoder"), ("G", "apf_gan.generator")):
        weights[name], path = read_network(where, name + ".ema" * ema)
        shapes, conversion = {key: array.shape for key, array in weights[name].items()}, find(model).conversion
        sizes[name] = conversion.infer(shapes, None), path
        if problems := differences(conversion.expected(sizes[name][0], shapes), shapes, UNUSED, UNUSED):
            raise UserError(f"{path}: not an {model}: {problems}")
    (encoder, encoder_path), (config, path) = sizes["E"], sizes["G"]
    if encoder.ngf != config.ngf or encoder.label_nc != config.label_nc:
        raise UserError(f"{encoder_path}: has ngf={encoder.ngf} and {encoder.label_nc} classes, but {path} has "
                        f"ngf={config.ngf} and {config.label_nc}: give networks of one training run")
    return weights, trained_config(path, config)


def trained_config(path: Path, config: ModelConfig) -> ModelConfig:
    """`config` with the settings that shapes do not determine, as far as the file's metadata has them."""
    stored = read_metadata(path).get("config")
    if not isinstance(stored, dict):
        return config
    known = {key: stored[key] for key in ("crop_size", "aspect_ratio", "num_D", "pg_niter") if key in stored}
    semantics = stored.get("semantics")
    if isinstance(semantics, dict):
        names = {field.name for field in fields(Semantics)}
        known["semantics"] = Semantics(**{key: value for key, value in semantics.items() if key in names})
    return replace(config, **known)


def injected_noise(source: str | None):
    """Noise to inject, a function of (index, (B, 1, h, w)) that is equal for all images; None if there is no source.

    source: "off" for zeros, or a file of arrays seg_noise.0 … UserError: an array is missing or has another size.
    """
    if source is None:
        return None
    if source == "off":
        return lambda index, shape: np.zeros(shape, np.float32)
    arrays = read_weights(source)

    def noise(index, shape):
        name = f"seg_noise.{index}"
        if name not in arrays or arrays[name].shape[-2:] != tuple(shape[-2:]):
            seen = arrays[name].shape if name in arrays else "absent"
            raise UserError(f"{source}: {name} is {seen}, but (1, 1, {shape[-2]}, {shape[-1]}) is needed at this size")
        return np.broadcast_to(arrays[name].astype(np.float32), shape)
    return noise


def batches(labels: LandscapeDataset, size: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield (names, label maps uint8 (B, H, W)) of at most `size` successive label maps of equal size."""
    for _, indices in groupby(range(len(labels)), key=lambda index: labels.shapes[index]):
        indices = list(indices)
        for start in range(0, len(indices), size):
            samples = [labels.get(index) for index in indices[start:start + size]]
            yield [s["name"] for s in samples], np.stack([s["label"] for s in samples])


class Sampler:
    """E and G in inference mode. For several noise seeds, the part that depends only on the labels is computed once."""

    def __init__(self, backend, config: ModelConfig, weights: dict[str, dict[str, np.ndarray]], noise=None):
        self.backend, self.noise = backend, noise
        self.encoder = backend.build("apf_gan.encoder", config)
        self.generator = backend.build("apf_gan.generator", config,
                                       seg_noise=holds(SEG_NOISE, weights["G"]))
        for module, name in ((self.encoder, "E"), (self.generator, "G")):
            backend.load_numpy(module, weights[name], allow_unexpected=UNUSED)
            backend.train_mode(module, False)
        self.objective = backend.build("apf_gan.objective", config, self.encoder, self.generator, None)

    def __call__(self, names: list[str], labels: np.ndarray, seeds) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Yield (seed, images uint8 (H, W, 3) of `labels` uint8 (B, H, W)) for every seed."""
        backend = self.backend
        with backend.no_grad():
            condition, z = self.objective.condition(backend.asarray(labels), keep=len(seeds) > 1)
            for seed in seeds:
                condition.noise = self.draw(names, seed)
                pictures = backend.numpy(self.generator(condition, z))
                if not np.isfinite(pictures).all():
                    raise UserError(f"{names[0]}: the generator gives NaN or infinity; its weights are damaged, or the "
                                    "training diverged: use an earlier checkpoint")
                yield seed, [imaging.to_uint8(picture) for picture in pictures]

    def draw(self, names: list[str], seed: int):
        """The noise, a function of (index, shape); the noise of each image is keyed by its name."""
        def keyed(index, shape):
            draws = [Draws(seed).within(name) for name in names]
            return np.stack([d.normal(f"seg_noise.{index}", shape[1:]) for d in draws])
        source = self.noise or keyed
        return lambda index, shape: self.backend.asarray(source(index, shape))
