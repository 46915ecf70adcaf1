"""TIER: its modes, sizes and names, and how pictures are prepared for it.

Yuan et al. 2024, arXiv 2404.18409, with PKU-AIGIQA-4K. TIER-NR judges a generated picture by its text prompt; TIER-FR
sees the image prompt too, and TIER-PR sees it where there is one. The baselines of the same paper, NR-, FR- and
PR-AIGCIQA, have no text. Names of the weights are those of the official checkpoints, "encoder" or "backbone" and
"regressor" joined to the rest by a dot.
"""
from dataclasses import dataclass, replace
from typing import Literal

from jittwin.errors import UserError, choose_from
from jittwin.models.bert import PRESETS as TEXTS
from jittwin.models.bert import BertConfig
from jittwin.models.inception_v4 import InceptionV4Config
from jittwin.models.resnet import PRESETS as RESNETS
from jittwin.models.resnet import ResNetConfig
from jittwin.models.vgg import PRESETS as VGGS
from jittwin.models.vgg import VGGConfig
from jittwin.models.vit import PRESETS as VITS
from jittwin.models.vit import ViTConfig
from jittwin.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess

MODES = ("nr", "fr", "pr")
BACKBONES = ("resnet18", "resnet50", "vit", "inceptionv4", "vgg16", "vgg19")
SIZES = ("full", "tiny")
CLASSIFIER = (4096, 4096, 1000)     # of torchvision's VGG, which the baselines' checkpoints hold
LEAKY = 0.01                        # slope of the activations in the blocks of the baselines' ResNet-18
_BLOCKS = ((8, 8), (12, 12), (16, 16, 16), (16,), (16,))
IMAGES = {
    "full": {"resnet18": RESNETS["resnet18"], "resnet50": RESNETS["resnet50"], "vit": VITS["large-patch16-224"],
             "inceptionv4": InceptionV4Config(), "vgg16": replace(VGGS["vgg16"], classifier=CLASSIFIER),
             "vgg19": replace(VGGS["vgg19"], classifier=CLASSIFIER)},
    "tiny": {"resnet18": ResNetConfig((1, 2, 1, 1), (8, 12, 16, 20)),
             "resnet50": ResNetConfig((1, 2, 1, 1), (8, 12, 16, 20), bottleneck=True), "vit": VITS["tiny"],
             "inceptionv4": InceptionV4Config((1, 1, 1), 32, 7), "vgg16": VGGConfig(_BLOCKS, (6, 5)),
             "vgg19": VGGConfig((*_BLOCKS[:2], (16,) * 4, *_BLOCKS[3:]), (6, 5))},
}
# The backbone's name in the catalogue, and the side of its square input in pixels, full and tiny.
MODELS = {ResNetConfig: "resnet", ViTConfig: "vit", InceptionV4Config: "inception_v4", VGGConfig: "vgg"}
SIDES = {"full": {"inceptionv4": 299}, "tiny": {"inceptionv4": 96}}
SIDE = {"full": 224, "tiny": 64}
SHORTER = {InceptionV4Config: 320 / 299}    # shorter side after resizing, per side of the crop; 256 / 224 for others
# The values on which the published weights of these networks were trained; the original normalises as for ImageNet.
NATIVE = dict.fromkeys(("vit", "inceptionv4"), ((0.5,) * 3, (0.5,) * 3))
TEXT = "encoder.text_encoder."
REGRESSOR = "regressor."
# Patterns of keys whose layers no feature depends on. They are part of the state and are not trained.
FROZEN = (f"{TEXT}pooler.*", "*.vit.norm.*", "*.vit.head.*", "*.last_linear.*", "backbone.classifier.*",
          "*.image_encoder.classifier.*")

ImageConfig = ResNetConfig | ViTConfig | InceptionV4Config | VGGConfig


@dataclass(frozen=True)
class TierConfig:
    """mode: one of MODES. backbone: one of BACKBONES, whose sizes `image` holds. text: None for a baseline.

    image_size: side of the square pictures in pixels. legacy_pr_batch: in mode "pr" the backbone also gets the zeros
    that stand for image prompts where there are none, as in the original; they change the statistics of a batch in
    training, and nothing else. ValueError: another mode or backbone, sizes of another backbone.
    """

    mode: Literal["nr", "fr", "pr"] = "nr"
    backbone: str = "vit"
    image: ImageConfig = IMAGES["full"]["vit"]
    text: BertConfig | None = TEXTS["base-uncased"]
    image_size: int = 224
    legacy_pr_batch: bool = False

    def __post_init__(self):
        for name, legal in (("mode", MODES), ("backbone", BACKBONES)):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name} is {getattr(self, name)!r}{choose_from(getattr(self, name), legal)}")
        if type(self.image) is not type(IMAGES["full"][self.backbone]):
            raise ValueError(f"backbone {self.backbone} with the sizes of a {MODELS[type(self.image)]}")

    @property
    def width(self) -> int:
        """Length of the regressor's input: the features of the text, of the picture and, for "fr", of its prompt."""
        return (self.text.hidden_size if self.text else 0) + self.image.features * (2 if self.mode == "fr" else 1)

    @property
    def image_prompts(self) -> bool:
        """Whether the network is given image prompts."""
        return self.mode != "nr"

    @property
    def model(self) -> str:
        """The backbone's name in the catalogue."""
        return MODELS[type(self.image)]

    @property
    def image_prefix(self) -> str:
        """What the names of the backbone's weights begin with."""
        return ("encoder.image_encoder." if self.text else "backbone.") + ("vit." if self.model == "vit" else "")

    @property
    def name(self) -> str:
        """The paper's name of the network."""
        return f"TIER-{self.mode.upper()}" if self.text else f"{self.mode.upper()}-AIGCIQA"


def make_config(mode: str = "nr", backbone: str = "vit", size: str = "full", text: bool | BertConfig = True,
                legacy_pr_batch: bool = False) -> TierConfig:
    """A published network, or a tiny one of the same parts.

    text: whether the network reads the text prompt, or the sizes of what reads it. UserError: no such mode, backbone or
    size.
    """
    for name, value, legal in (("mode", mode, MODES), ("backbone", backbone, BACKBONES), ("size", size, SIZES)):
        if value not in legal:
            raise UserError(f"{name}={value}{choose_from(value, legal)}")
    image = IMAGES[size][backbone]
    if text is True:
        text = TEXTS["base-uncased" if size == "full" else "tiny"]
    if not text and backbone == "resnet18":
        image = replace(image, negative_slope=LEAKY)
    return TierConfig(mode, backbone, image, text or None, SIDES[size].get(backbone, SIDE[size]), legacy_pr_batch)


def preprocess(config: TierConfig, native: bool = False) -> Preprocess:
    """The preparation of a picture and of an image prompt; in training the crop is at a random place, and mirrored.

    native: with the mean and deviation on which the backbone's published weights were trained, instead of ImageNet's.
    """
    side = config.image_size
    mean, std = NATIVE.get(config.backbone, (IMAGENET_MEAN, IMAGENET_STD)) if native else (IMAGENET_MEAN, IMAGENET_STD)
    return Preprocess(round(side * SHORTER.get(type(config.image), 256 / 224)), "bilinear", mean, std, (side, side))
