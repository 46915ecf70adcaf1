"""The models: what they are for, which pretrained weights they take, and under which licence those come."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """name: what Backend.build calls the model. where: module and class in either twin.

    weights: files it can start from.
    """

    name: str
    where: tuple[str, str]
    summary: str
    weights: str
    licence: str


MODELS = (
    Record("apf_gan.encoder", ("apf_gan.encoder", "Encoder"),
           "label map to latent", "official net_E, optional", "CC BY-NC-SA 4.0"),
    Record("apf_gan.generator", ("apf_gan.generator", "Generator"),
           "label and latent to picture", "official net_G, optional", "CC BY-NC-SA 4.0"),
    Record("apf_gan.discriminator", ("apf_gan.discriminator", "MultiscaleDiscriminator"),
           "multi-scale critic, for training", "none", "-"),
    Record("vgg19", ("backbones.vgg", "VGG19"),
           "perceptual loss of phase 1", "torchvision vgg19", "BSD-3-Clause"),
    Record("inception_v3", ("backbones.inception_v3", "InceptionV3"),
           "perceptual loss of phase 2", "torchvision inception_v3", "BSD-3-Clause"),
    Record("inception_fid", ("backbones.inception_v3", "FidInception"),
           "features of FID, KID, precision, recall", "pytorch-fid's file or APF-GAN's net_params.pkl", "Apache-2.0"),
    Record("segformer", ("backbones.segformer", "SegFormer"),
           "mask accuracy", "hub nvidia/segformer-b0 … b5-finetuned-ade-*", "NVIDIA source code, non-commercial"),
    Record("siglip", ("backbones.siglip", "SiglipVisionModel"),
           "image features of the aesthetic model", "hub google/siglip2-so400m-patch16-512 and its kin", "Apache-2.0"),
    Record("aesthetic", ("assess.aesthetic", "AestheticModel"),
           "aesthetic score, 1 to 10", "the tower, and LoRA with a head that you train", "-"),
)
# Losses build graphs, so those of several models together live in the twins too, and are built by name as well.
WHERE = {record.name: record.where for record in MODELS} | {"apf_gan.objective": ("apf_gan.losses", "Objective")}
