"""Untrained weights: the same bits for ever, whatever the order in which they are asked for."""
import numpy as np
import pytest
from tower import TINY, tower_shapes

from jittwin.weights import content_hash
from jittwin.weights.initial import RULES, initial_weights

CONVOLUTIONS = {"a.conv.weight": (8, 3, 3, 3), "a.bn.weight": (8,), "a.bn.bias": (8,), "a.bn.running_mean": (8,),
                "a.bn.running_var": (8,), "fc.weight": (5, 8), "fc.bias": (5,)}
SPADE = {"c.bias": (4,), "c.weight_orig": (4, 3, 3, 3), "c.weight_u": (4,), "n.param_free_norm.running_var": (4,),
         "n.seg_noise_var.weight": (4, 29, 1, 1), "n.seg_noise_var.bias": (4,)}
LORA = {"a.lora_A.default.weight": (4, 32), "a.lora_B.default.weight": (48, 4), "head.weight": (5, 32),
        "head.bias": (5,)}
TRANSFORMER = {"embeddings.word_embeddings.weight": (9, 8), "pos_embed": (1, 5, 8), "a.norm1.weight": (8,),
               "a.norm1.bias": (8,), "a.qkv.weight": (24, 8), "a.qkv.bias": (24,)}
FLORENCE = {"language_model.shared.weight": (9, 8), "a.embed_positions.weight": (6, 8), "b.row_embeddings.weight": (3, 4),
            "a.conv1.weight": (4, 1, 3, 3), "a.conv1.bias": (4,), "a.norm1.weight": (4,), "a.qkv.weight": (12, 4),
            "b.pos_idx_to_embed": (3, 8)}
CLIP = {"logit_scale": (), "vision_model.embeddings.class_embedding": (8,), "fc1.weight": (9, 8), "fc1.bias": (9,),
        "text_model.embeddings.token_embedding.weight": (9, 8),
        "vision_model.embeddings.patch_embedding.weight": (8, 3, 4, 4), "vision_model.pre_layrnorm.weight": (8,)}
DISTORTION = {"florence2." + key: shape for key, shape in FLORENCE.items()} | {
    "h.conv_layers.0.weight": (4, 6, 3, 3), "h.conv_layers.0.bias": (4,), "h.conv_layers.1.weight": (4,),
    "h.conv_layers.1.bias": (4,), "h.conv_layers.1.running_mean": (4,), "h.conv_layers.1.running_var": (4,)}
PARTS = {"encoder.text_encoder.": TRANSFORMER,
         "encoder.image_encoder.": {"conv1.weight": (4, 3, 3, 3), "bn1.weight": (4,)}}
TIER = {prefix + key: shape for prefix, part in PARTS.items() for key, shape in part.items()} | {
    "regressor.fc1.weight": (6, 12), "regressor.fc1.bias": (6,)}
HASHES = {"apf_gan": "f796619ec525d870", "apf_gan.silent": "3b8b2162e7fd1d15",
          "vgg19": "9c7bff8a82b6fa34", "inception_v3": "3aaccde24f3c7c68", "inception_fid": "2eeb5c08b5c2c203",
          "segformer": "97a7d2437abb1bc6", "siglip": "bfa9e69e3f616fdd", "aesthetic": "ebd9ffb6b8fbcc6d",
          "resnet": "6d3b41e22a9656b4", "inception_v4": "2eeb5c08b5c2c203", "vgg": "9c7bff8a82b6fa34",
          "vit": "076f04e30c773fc0", "bert": "076f04e30c773fc0", "tier": "0e04ee91f54b2731",
          "blip": "076f04e30c773fc0", "image_reward": "076f04e30c773fc0", "florence2": "e59d03eaec1625f2",
          "clip": "3a8ac87ba496f563", "distortion": "267fba76d4c59526"}


def shapes(model):
    return {"siglip": tower_shapes(TINY), "aesthetic": LORA, "apf_gan": SPADE, "apf_gan.silent": SPADE, "tier": TIER,
            "florence2": FLORENCE, "clip": CLIP, "distortion": DISTORTION,
            **dict.fromkeys(("bert", "vit", "blip", "image_reward"), TRANSFORMER)}.get(model, CONVOLUTIONS)


@pytest.mark.parametrize("model", RULES)
def test_bits(model):
    """Weights that were drawn years ago can be drawn again."""
    assert content_hash(initial_weights(model, shapes(model), 3))[:16] == HASHES[model]


@pytest.mark.parametrize("model", RULES)
def test_an_array_depends_on_its_name_and_the_seed_alone(model):
    whole, other = initial_weights(model, shapes(model), 3), initial_weights(model, shapes(model), 4)
    for key in reversed(list(whole)):
        alone = initial_weights(model, shapes(model), 3)[key]
        assert alone.dtype == np.float32 and alone.shape == shapes(model)[key]
        assert np.array_equal(alone, whole[key])
    assert content_hash(whole) != content_hash(other)
    assert sum(np.array_equal(whole[key], initial_weights(model, shapes(model))[key]) for key in whole) < len(whole)


@pytest.mark.parametrize("model, prefix", [
    ("resnet", "backbone."), ("vgg", "backbone."), ("inception_v4", "encoder.image_encoder."), ("vit", "backbone.vit."),
    ("vit", "encoder.image_encoder.vit."), ("bert", "encoder.text_encoder.")])
def test_parts_of_tier_have_the_weights_that_they_have_alone(model, prefix):
    first = {"resnet": "conv1.weight", "inception_v4": "features.0.conv.weight", "vgg": "features.0.weight"}.get(model)
    part = {first: (8, 3, 3, 3), "features.0.bn.weight": (8,), "b.bias": (8,)} if first else TRANSFORMER
    whole = initial_weights("tier", {prefix + key: shape for key, shape in part.items()} | {
        "regressor.fc1.weight": (6, 1000), "regressor.fc1.bias": (6,)}, 3)
    alone = initial_weights(model, part, 3)
    assert all(np.array_equal(whole[prefix + key], alone[key]) for key in part)
    assert all(0.02 < np.abs(whole[f"regressor.fc1.{kind}"]).max() <= 1000 ** -0.5 for kind in ("weight", "bias"))
