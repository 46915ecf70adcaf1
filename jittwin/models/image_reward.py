"""ImageReward: its sizes and its files, and the scale of its rewards.

Xu et al. 2023, arXiv 2304.05977. BLIP reads the prompt while it looks at the picture, and a small network of linear
layers turns its first token into a reward. Names of the weights are those of the official ImageReward.pt.
"""
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from jittwin.models import blip
from jittwin.models.blip import BlipConfig
from jittwin.models.conversion import Arrays, Conversion, Shapes, Source, below, stored_config, unfit

# The mean and deviation of the raw rewards on the authors' validation data; rewards are given relative to these.
MEAN, STD = 0.16717362830052426, 1.0333394966054072
BLIP, MLP = "blip.", "mlp.layers."
WIDTHS = (1024, 128, 64, 16)
IDS = f"{BLIP}{blip.TEXT}embeddings.position_ids"
PLACES = f"{BLIP}{blip.TEXT}embeddings.position_embeddings.weight"


@dataclass(frozen=True)
class ImageRewardConfig:
    """blip: of the network that reads and looks. widths: outputs of the linear layers before the last, which has one.

    ValueError: another number of layers.
    """

    blip: BlipConfig = BlipConfig()
    widths: tuple[int, ...] = WIDTHS

    def __post_init__(self):
        if len(self.widths) != len(WIDTHS):
            raise ValueError(f"{len(self.widths)} linear layers before the last instead of {len(WIDTHS)}")

    @property
    def name(self) -> str:
        return "ImageReward"


PRESETS = {"large": ImageRewardConfig(), "tiny": ImageRewardConfig(blip.PRESETS["tiny"], (24, 16, 12, 8))}


def infer_config(shapes: Shapes, source: Source | None = None) -> ImageRewardConfig:
    """As the metadata of a file of ours say, else as the arrays and med_config.json beside the file tell.

    UserError: not the weights of an ImageReward, sizes that do not go together.
    """
    if config := stored_config(source, "image_reward", from_description, "ImageReward"):
        return config
    try:
        widths = tuple(shapes[f"{MLP}{layer}.bias"][0] for layer in (0, 2, 4, 6))
        return ImageRewardConfig(blip.sizes_by_arrays(below(shapes, BLIP), source), widths)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise unfit(source, f"not the weights of an ImageReward, such as the official ImageReward.pt ({error})") \
            from error


def from_description(**found) -> ImageRewardConfig:
    """The inverse of dataclasses.asdict. TypeError, ValueError: a description of something else."""
    if not isinstance(found.get("blip"), Mapping) or found.keys() != {"blip", "widths"}:
        raise ValueError("blip or widths is missing")
    return ImageRewardConfig(blip.from_description(**found["blip"]), tuple(found["widths"]))


def with_position_ids(arrays: Arrays) -> Arrays:
    """With the numbers of the places, which the official file holds beside the embeddings of the places."""
    found = {}
    for name, array in arrays.items():
        if name.startswith(f"{BLIP}{blip.TEXT}") and IDS not in found:
            found[IDS] = np.arange(arrays[PLACES].shape[0])[None]
        found[name] = array
    return found


CONVERSION = Conversion(
    infer_config, renames=((r"^module\.", ""),), left_out=(blip.POSITION_IDS,), describe=asdict,
    restore=with_position_ids, extras="numbers of places")
