"""OpenAI's names and arrays of a CLIP, and how they become those of the Hugging Face hub, and back.

OpenAI stores the projections to queries, keys and values in one array, the projections to features transposed, and in
its own files most matrices in half precision.
"""
import re

import numpy as np

from jittwin.models.conversion import renaming
from jittwin.weights.lazy import LazyArrays

BLOCKS = (("transformer.resblocks.{}.", "text_model.encoder.layers.{}."),
          ("visual.transformer.resblocks.{}.", "vision_model.encoder.layers.{}."))
PARTS = (("attn.in_proj_weight", "self_attn.in_proj.weight"), ("attn.in_proj_bias", "self_attn.in_proj.bias"),
         ("attn.out_proj.", "self_attn.out_proj."), ("ln_1.", "layer_norm1."), ("ln_2.", "layer_norm2."),
         ("mlp.c_fc.", "mlp.fc1."), ("mlp.c_proj.", "mlp.fc2."))
NAMES = (("token_embedding.", "text_model.embeddings.token_embedding."),
         ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
         ("ln_final.", "text_model.final_layer_norm."), ("text_projection", "text_projection.weight"),
         ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
         ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
         ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
         ("visual.ln_pre.", "vision_model.pre_layrnorm."), ("visual.ln_post.", "vision_model.post_layernorm."),
         ("visual.proj", "visual_projection.weight"),
         *((theirs + part, ours + name) for theirs, ours in BLOCKS for part, name in PARTS))
RENAMES = tuple(renaming(theirs, ours) for theirs, ours in NAMES)
BACK = tuple(renaming(ours, theirs) for theirs, ours in NAMES)
TRANSPOSED = ("*text_projection", "*visual.proj")
JOINED = ".in_proj."
THIRDS = ("q", "k", "v")


def regroup(arrays: LazyArrays) -> LazyArrays:
    """OpenAI's arrays, with the names of RENAMES, as the hub has them, in float32; other arrays as they are."""
    if not any(JOINED in key for key in arrays):
        return arrays
    shapes, parts = {}, {}
    for key, shape in arrays.shapes.items():
        if JOINED in key:
            for number, third in enumerate(THIRDS):
                name = key.replace(JOINED, f".{third}_proj.")
                shapes[name], parts[name] = (shape[0] // 3, *shape[1:]), (key, number)
        else:
            shapes[key] = shape

    def make(name: str) -> np.ndarray:
        if name not in parts:
            return arrays[name]
        key, number = parts[name]
        return np.split(arrays[key], 3)[number].copy()

    return LazyArrays(shapes, make, arrays.source).cast(np.float32)


def ungroup(arrays: LazyArrays) -> LazyArrays:
    """The reverse of `regroup`, before BACK; the types stay."""
    shapes = {}
    for key, shape in arrays.shapes.items():
        name = re.sub(r"\.[qkv]_proj\.", JOINED, key)
        shapes[name] = (3 * shape[0], *shape[1:]) if JOINED in name else shape

    def make(name: str) -> np.ndarray:
        if JOINED not in name:
            return arrays[name]
        return np.concatenate([arrays[name.replace(JOINED, f".{third}_proj.")] for third in THIRDS])

    return LazyArrays(shapes, make, arrays.source)
