"""Shapes without arrays, as tests that either twin must pass."""
import time

import pytest

from jittwin.models import bert, blip, clip, distortion, florence2, image_reward
from jittwin.models.aesthetic import AestheticConfig
from jittwin.models.apf_gan import ModelConfig
from jittwin.models.catalog import MODELS
from jittwin.models.inception_v4 import InceptionV4Config
from jittwin.models.lora import LoraConfig
from jittwin.models.resnet import ResNetConfig
from jittwin.models.segformer import SegFormerConfig
from jittwin.models.siglip import PRESETS
from jittwin.models.tier import make_config
from jittwin.models.vgg import VGGConfig
from jittwin.models.vit import ViTConfig

SMALL = {
    **dict.fromkeys(("apf_gan.encoder", "apf_gan.generator", "apf_gan.discriminator"),
                    ModelConfig(ngf=8, ndf=8, crop_size=256)),
    "segformer": SegFormerConfig((1, 1, 1, 1), (8, 16, 24, 32), (1, 2, 3, 4), decoder_hidden_size=16),
    "resnet": ResNetConfig((1, 1, 1, 1), (8, 12, 16, 20)), "inception_v4": InceptionV4Config((1, 1, 1), 32, 7),
    "vgg": VGGConfig(((8, 8), (12, 12), (16, 16, 16))), "vit": ViTConfig(32, 1, 4, 48, 8, 32, classes=5),
    "bert": bert.PRESETS["tiny"], "siglip": PRESETS["tiny"],
    "aesthetic": AestheticConfig(PRESETS["tiny"], LoraConfig(4, 8)), "tier": make_config("pr", "vit", "tiny"),
    "blip": blip.PRESETS["tiny"], "image_reward": image_reward.PRESETS["tiny"],
    "florence2": florence2.PRESETS["tiny"], "clip": clip.PRESETS["tiny"], "distortion": distortion.make_config("tiny"),
}
BY_SIZE = {"vgg19": None, "inception_v3": None, "inception_fid": None, **SMALL}


@pytest.mark.parametrize("name", BY_SIZE)
def test_shapes_are_those_of_the_built_module(backend, name):
    state = backend.state_numpy(backend.build(name, BY_SIZE[name]))
    assert list(backend.state_shapes(name, BY_SIZE[name]).items()) == [(key, a.shape) for key, a in state.items()]


def test_options_reach_the_module(backend):
    config, key = SMALL["apf_gan.generator"], "head_0.norm_0.seg_noise_var.weight"
    for noise in (False, True):
        assert (key in backend.state_shapes("apf_gan.generator", config, seg_noise=noise)) == noise


def test_shapes_of_a_large_network_take_no_memory(backend):
    """The published tower has 1.7 GB of weights."""
    before, start = backend.memory(), time.process_time()
    shapes = backend.state_shapes("siglip", PRESETS["so400m-patch16-512"])
    backend.synchronize()
    assert shapes["encoder.layers.26.mlp.fc1.weight"] == (4304, 1152)
    assert backend.memory() - before < 200e6 and time.process_time() - start < 20


def test_every_model_is_looked_at():
    assert {record.name for record in MODELS} <= set(BY_SIZE)
