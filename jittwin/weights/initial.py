"""Initial weights of untrained networks. No other module draws weights.

Every array depends only on the seed, its name and the shapes (see jittwin.draws), so both twins start from the same
bits in any order. The rules have the names of the models in the catalogue.
"""
from collections.abc import Callable, Mapping

import numpy as np

from jittwin.draws import Draws
from jittwin.weights.lazy import LazyArrays

Shape = tuple[int, ...]
Rule = Callable[[Draws, str, Mapping[str, Shape]], np.ndarray]


def initial_weights(model: str, shapes: Mapping[str, Shape], seed: int = 0) -> LazyArrays:
    """float32 arrays of these shapes, each drawn when it is accessed. model: a key of RULES."""
    rule, draws = RULES[model], Draws(seed)
    return LazyArrays(shapes, lambda name: rule(draws, name, shapes))


def _apf_gan(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """Xavier-normal with gain 0.02; biases are 0, spectral vectors random unit vectors, running statistics 0 and 1.

    KeyError: a name that APF-GAN's networks do not have.
    """
    shape, leaf = shapes[name], name.rsplit(".", 1)[-1]
    if leaf in ("bias", "running_mean"):
        return np.zeros(shape, np.float32)
    if leaf == "running_var":
        return np.ones(shape, np.float32)
    if leaf in ("weight_u", "weight_v"):
        vector = draws.normal(name, shape)
        return vector / max(float(np.linalg.norm(vector)), 1e-12)
    if leaf in ("weight", "weight_orig"):
        deviation = 0.02 * np.sqrt(2.0 / sum(fan_in_out(shape)))
        return draws.normal(name, shape) * np.float32(deviation)
    raise KeyError(f"no initialisation rule for {name}")


def _apf_gan_silent(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """As _apf_gan, but the scales of the noise start at zero."""
    if ".seg_noise_var." in name:
        return np.zeros(shapes[name], np.float32)
    return _apf_gan(draws, name, shapes)


def fan_in_out(shape: Shape) -> tuple[int, int]:
    receptive = int(np.prod(shape[2:], dtype=np.int64))
    return shape[1] * receptive, shape[0] * receptive


def _vgg(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """As in torchvision: He-normal by fan-out (arXiv 1502.01852), biases 0."""
    shape = shapes[name]
    if len(shape) != 4:
        return _constant(name, shape)
    return draws.normal(name, shape) * np.float32(np.sqrt(2.0 / (shape[0] * shape[2] * shape[3])))


def _inception(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """As in torchvision: normal with deviation 0.1, truncated at 0.2; norms are the identity, biases 0."""
    if len(shapes[name]) != 4:
        return _constant(name, shapes[name])
    return _truncated_normal(draws.generator(name), shapes[name]) * np.float32(0.1)


def _inception_fid(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """He-normal by fan-in, so that features are of order one; norms are the identity, biases 0."""
    shape = shapes[name]
    if len(shape) < 2:
        return _constant(name, shape)
    return draws.normal(name, shape) * np.float32(np.sqrt(2 / np.prod(shape[1:])))


def _segformer(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """Normal of variance 1 / fan-in; norms are the identity, biases 0."""
    shape = shapes[name]
    if len(shape) > 1:
        return draws.normal(name, shape) / np.float32(np.sqrt(np.prod(shape[1:])))
    return _identity(name, shape)


def _siglip(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """Signals stay of order one through the depth, and no norm is the identity."""
    values = draws.normal(name, shapes[name])
    if name.endswith("bias"):
        return values * np.float32(0.1)
    if values.ndim == 1:                    # the gain of a normalisation
        return 1 + values * np.float32(0.1)
    fan_in = 1 if name == "embeddings.position_embedding.weight" else np.prod(shapes[name][1:])
    return values * np.float32(fan_in ** -0.5)


def _aesthetic(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """LoRA and head as in peft and PyTorch: B is zero, A and the head are uniform within 1 / sqrt(inputs)."""
    shape = shapes[name]
    if name.endswith("lora_B.default.weight"):
        return np.zeros(shape, np.float32)
    return _uniform(draws, name, shapes)


def _uniform(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """A linear layer or convolution as in PyTorch: weights and biases are uniform within 1 / sqrt(inputs)."""
    inputs = shapes[name.removesuffix("bias") + "weight" if name.endswith(".bias") else name][1:]
    return (2 * draws.uniform(name, shapes[name]) - 1) / np.float32(np.sqrt(np.prod(inputs)))


def _resnet(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """As in torchvision: He-normal by fan-out (arXiv 1502.01852); norms are the identity."""
    if len(shapes[name]) == 4:
        return _vgg(draws, name, shapes)
    return _identity(name, shapes[name])


def _transformer(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """Embeddings have a deviation of 0.02, as in BERT; matrices a variance of 1 / fan-in; norms are the identity."""
    shape = shapes[name]
    if name.endswith(("embeddings.weight", "pos_embed", "cls_token")):
        return draws.normal(name, shape) * np.float32(0.02)
    if len(shape) > 1:
        return draws.normal(name, shape) / np.float32(np.sqrt(np.prod(shape[1:])))
    return _identity(name, shape)


def _florence2(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """A transformer whose depthwise kernels are small beside the maps to which they are added; the table of times holds
    sines and cosines, as published."""
    shape = shapes[name]
    if name.endswith("pos_idx_to_embed"):
        angles = np.arange(shape[0])[:, None] * np.exp(np.arange(shape[1] // 2) * (-2 * np.log(10000) / shape[1]))
        return np.stack([np.sin(angles), np.cos(angles)], 2).reshape(shape).astype(np.float32)
    if name.endswith((".shared.weight", "embeddings.weight", "embed_positions.weight")):
        return draws.normal(name, shape) * np.float32(0.02)
    return _transformer(draws, name, shapes) * np.float32(0.1 if shape[1:2] == (1,) else 1)


def _clip(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """As in `_transformer`. Cosines are multiplied by 1 / 0.07, with which the paper's training begins."""
    shape = shapes[name]
    if name == "logit_scale":
        return np.full(shape, np.log(1 / 0.07), np.float32)
    if name.endswith(("token_embedding.weight", "position_embedding.weight", "class_embedding")):
        return draws.normal(name, shape) * np.float32(0.02)
    return _transformer(draws, name, shapes)


def _distortion(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """The trunk has the weights that it has alone; the heads are layers as in PyTorch. LoRA's A is normal with a
    deviation of 1 / rank, and B is zero."""
    prefix = "florence2."
    if name.endswith("lora_B.default.weight"):
        return np.zeros(shapes[name], np.float32)
    if name.endswith("lora_A.default.weight"):
        return draws.normal(name, shapes[name]) / np.float32(shapes[name][0])
    if name.startswith(prefix):
        inner = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        return _florence2(draws, name.removeprefix(prefix), inner)
    normalises = name.rpartition(".")[0] + ".running_mean" in shapes
    return _identity(name, shapes[name]) if normalises else _uniform(draws, name, shapes)


def _tier(draws: Draws, name: str, shapes: Mapping[str, Shape]) -> np.ndarray:
    """Text encoder and backbone have the weights that they have alone; the regressor is a linear layer of PyTorch."""
    prefix = next(prefix for prefix in TIER_PARTS if name.startswith(prefix))
    if prefix == "regressor.":
        return _uniform(draws, name, shapes)
    inner = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    rule = _transformer if prefix.endswith(("text_encoder.", "vit.")) else next(
        rule for key, rule in TIER_BACKBONES.items() if key in inner)
    return rule(draws, name.removeprefix(prefix), inner)


def _identity(name: str, shape: Shape) -> np.ndarray:
    return np.full(shape, 0.0 if name.endswith(("bias", "running_mean")) else 1.0, np.float32)


def _constant(name: str, shape: Shape) -> np.ndarray:
    return np.full(shape, 1.0 if name.endswith((".bn.weight", ".running_var")) else 0.0, np.float32)


def _truncated_normal(generator: np.random.Generator, shape: Shape) -> np.ndarray:
    """Standard normal float32 within two deviations; values outside are drawn again."""
    values = generator.standard_normal(shape, dtype=np.float32)
    while (outside := np.abs(values) > 2).any():
        values[outside] = generator.standard_normal(int(outside.sum()), dtype=np.float32)
    return values


# What the names of TIER's parts begin with, and a name by which a backbone is told.
TIER_PARTS = ("regressor.", "encoder.text_encoder.", "encoder.image_encoder.vit.", "backbone.vit.",
              "encoder.image_encoder.", "backbone.")
TIER_BACKBONES: dict[str, Rule] = {
    "conv1.weight": _resnet, "features.0.conv.weight": _inception_fid, "features.0.weight": _vgg}
RULES: dict[str, Rule] = {
    "apf_gan": _apf_gan, "apf_gan.silent": _apf_gan_silent, "vgg19": _vgg, "inception_v3": _inception,
    "inception_fid": _inception_fid, "segformer": _segformer, "siglip": _siglip, "aesthetic": _aesthetic,
    "resnet": _resnet, "inception_v4": _inception_fid, "vgg": _vgg, "vit": _transformer, "bert": _transformer,
    "tier": _tier, "blip": _transformer, "image_reward": _transformer, "florence2": _florence2, "clip": _clip,
    "distortion": _distortion}
