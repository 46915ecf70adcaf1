"""The models: what they are for, their pretrained weights and how those are read, and what they are tested against."""
from dataclasses import dataclass
from typing import Literal

from jittwin.errors import UserError, choose_from
from jittwin.models import (
    apf_gan_keys,
    bert,
    blip,
    clip,
    distortion,
    florence2,
    image_reward,
    inception,
    inception_v4,
    resnet,
    segformer,
    siglip,
    tier_keys,
    vgg,
    vit,
)
from jittwin.models.conversion import Conversion, no_config


@dataclass(frozen=True)
class Oracle:
    """An independent implementation of a model. Parity cannot see a mistake that both twins share; an oracle can.

    what: an implementation by others, or a plain restatement of the paper. test: the test, FILE::NAME, that compares
    the PyTorch twin with it.
    """

    what: str
    test: str


@dataclass(frozen=True)
class Record:
    """name: what Backend.build calls the model. where: module and class in either twin.

    weights: files it can start from. conversion: how those become the twins' arrays, None where there are none. files:
    "state" where a file holds all the model's arrays, "adapter" where it holds what is trained beside a tower.
    """

    name: str
    where: tuple[str, str]
    summary: str
    weights: str
    licence: str
    oracle: Oracle
    conversion: Conversion | None = None
    files: Literal["state", "adapter"] = "state"


GOLDEN = Oracle("numbers that the official Jittor code gave", "tests/torch/test_golden.py::TestTorch")
MODELS = (
    Record("apf_gan.encoder", ("apf_gan.encoder", "Encoder"),
           "label map to latent", "official net_E, optional", "CC BY-NC-SA 4.0", GOLDEN,
           apf_gan_keys.conversion("apf_gan.encoder")),
    Record("apf_gan.generator", ("apf_gan.generator", "Generator"),
           "label and latent to picture", "official net_G, optional", "CC BY-NC-SA 4.0", GOLDEN,
           apf_gan_keys.conversion("apf_gan.generator")),
    Record("apf_gan.discriminator", ("apf_gan.discriminator", "MultiscaleDiscriminator"),
           "multi-scale critic, for training", "none", "-", GOLDEN, apf_gan_keys.conversion("apf_gan.discriminator")),
    Record("vgg19", ("backbones.vgg", "VGG19"),
           "perceptual loss of phase 1", "torchvision vgg19", "BSD-3-Clause",
           Oracle("torch.nn's layers in a row, as the paper lists them",
                  "tests/torch/test_backbones.py::test_vgg_equals_a_plain_sequential_network"),
           # The convolutions after relu5_1 are features.30, .32 and .34.
           Conversion(no_config, own=("features",), beside=("features.3[0-9].*", "classifier.*"))),
    Record("inception_v3", ("backbones.inception_v3", "InceptionV3"),
           "perceptual loss of phase 2", "torchvision inception_v3", "BSD-3-Clause",
           Oracle("the paper's blocks as plain functions of torch.nn.functional",
                  "tests/torch/test_inception.py::test_features_equal_a_plain_restatement"),
           Conversion(no_config, beside=inception.BEYOND)),
    Record("inception_fid", ("backbones.inception_v3", "FidInception"),
           "features of FID, KID, precision, recall", "pytorch-fid's file or APF-GAN's net_params.pkl", "Apache-2.0",
           Oracle("the paper's blocks as plain functions of torch.nn.functional, with the poolings of pytorch-fid",
                  "tests/torch/test_inception.py::test_features_of_fid_equal_a_plain_restatement"),
           Conversion(inception.check_fid, beside=inception.BEYOND)),
    Record("segformer", ("backbones.segformer", "SegFormer"),
           "mask accuracy", "hub nvidia/segformer-b0 … b5-finetuned-ade-*", "NVIDIA source code, non-commercial",
           Oracle("transformers' SegformerForSemanticSegmentation",
                  "tests/torch/test_segformer.py::test_a_file_that_transformers_wrote"),
           Conversion(segformer.infer_config, beside=("*.num_batches_tracked",))),
    Record("siglip", ("backbones.siglip", "SiglipVisionModel"),
           "image features of the aesthetic model", "hub google/siglip2-so400m-patch16-512 and its kin", "Apache-2.0",
           Oracle("transformers' SiglipModel, and NumPy in float64",
                  "tests/torch/test_siglip.py::test_folders_that_transformers_wrote"), siglip.CONVERSION),
    Record("resnet", ("backbones.resnet", "ResNet"),
           "image features of TIER", "torchvision resnet18 or resnet50", "BSD-3-Clause",
           Oracle("transformers' ResNetModel", "tests/torch/test_resnet.py::test_it_equals_transformers_resnet"),
           resnet.CONVERSION),
    Record("inception_v4", ("backbones.inception_v4", "InceptionV4"),
           "image features of TIER", "Remi Cadene's inceptionv4-8e4777a0.pth", "BSD-3-Clause",
           Oracle("numbers that timm's network gave",
                  "tests/torch/test_inception_v4.py::test_values_that_timm_gave"), inception_v4.CONVERSION),
    Record("vgg", ("backbones.vgg", "VGG"),
           "image features of TIER's baselines", "torchvision vgg16 or vgg19", "BSD-3-Clause",
           Oracle("torch.nn's layers in a row, as the paper lists them",
                  "tests/torch/test_vgg.py::test_it_equals_a_plain_network"), vgg.CONVERSION),
    Record("vit", ("backbones.vit", "VisionTransformer"),
           "image features of TIER", "hub timm/vit_large_patch16_224.augreg_in21k_ft_in1k", "Apache-2.0",
           Oracle("transformers' ViTModel",
                  "tests/torch/test_vit.py::test_it_equals_transformers_before_the_last_normalisation"),
           vit.CONVERSION),
    Record("bert", ("backbones.bert", "Bert"),
           "text features of TIER", "hub google-bert/bert-base-uncased", "Apache-2.0",
           Oracle("transformers' BertModel", "tests/torch/test_bert.py::test_it_equals_transformers"),
           bert.CONVERSION),
    Record("aesthetic", ("assess.aesthetic", "AestheticModel"),
           "aesthetic score, 1 to 10", "the tower, and LoRA with a head that you train", "-",
           Oracle("transformers' SiglipVisionModel with peft, put together as the original does",
                  "tests/torch/test_aesthetic.py::test_a_file_of_the_original_scores_the_same"), files="adapter"),
    Record("tier", ("assess.tier", "Tier"),
           "quality of a generated picture, with its prompts", "best_model.pt that you train with PKU-AIGIQA-4K", "-",
           Oracle("transformers' networks and torch.nn's layers, put together as the original does",
                  "tests/torch/test_tier.py::test_it_equals_the_paper"), tier_keys.CONVERSION),
    Record("blip", ("backbones.blip", "Blip"),
           "features of pictures and prompts, for BLIPScore", "BLIP's model_large.pth, or its form of transformers",
           "BSD-3-Clause", Oracle("transformers' BlipForImageTextRetrieval",
                                  "tests/torch/test_blip.py::test_it_equals_transformers"), blip.CONVERSION),
    Record("image_reward", ("assess.image_reward", "ImageReward"),
           "how well people would like a generated picture", "hub THUDM/ImageReward, ImageReward.pt", "Apache-2.0",
           Oracle("transformers' BlipForImageTextRetrieval with torch.nn's layers",
                  "tests/torch/test_image_reward.py::test_it_equals_the_paper"), image_reward.CONVERSION),
    Record("florence2", ("backbones.florence2", "Florence2"),
           "tokens of pictures and prompts, for structural distortion",
           "hub microsoft/Florence-2-base or -large, or florence-community's", "MIT",
           Oracle("transformers' Florence2Model", "tests/torch/test_florence2.py::test_it_equals_transformers"),
           florence2.CONVERSION),
    Record("clip", ("backbones.clip", "Clip"),
           "features of pictures and prompts, for CLIPScore and PickScore",
           "OpenAI's ViT-L-14.pt, hub openai/clip-vit-large-patch14, yuvalkirstain/PickScore_v1", "MIT",
           Oracle("transformers' CLIPModel, and OpenAI's network restated in torch.nn",
                  "tests/torch/test_clip.py::test_it_equals_transformers"), clip.CONVERSION),
    Record("distortion", ("assess.distortion", "Distortion"),
           "implausible places of a generated picture, and a score",
           "last.pth of the original that you train with EvalMuse-Structure", "-",
           Oracle("transformers' Florence2Model with torch.nn's layers, put together as the original does",
                  "tests/torch/test_distortion.py::test_it_equals_the_original"), distortion.CONVERSION),
)
BY_NAME = {record.name: record for record in MODELS}
# Losses build graphs, so those of several models together live in the twins too, and are built by name as well.
WHERE = {record.name: record.where for record in MODELS} | {
    "apf_gan.objective": ("apf_gan.losses", "Objective"),
    "distortion.objective": ("assess.distortion_losses", "Objective"),
}


def find(name: str) -> Record:
    """The record of a model. UserError: no model of this name."""
    if name not in BY_NAME:
        raise UserError(f"no model {name!r}{choose_from(name, BY_NAME)}")
    return BY_NAME[name]
