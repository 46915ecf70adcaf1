"""The cases of this project's models. A model of the catalogue without a case fails the tests."""
from jittwin.errors import UserError, choose_from
from parity.case import Case
from parity.cases.aesthetic import Aesthetic, AestheticTraining, Merged
from parity.cases.apf_gan import Discriminator, Encoder, Generator, Objective
from parity.cases.apf_gan_data import Augmentation, Data, Pictures
from parity.cases.backbones import VGG19, FidInception, InceptionV3
from parity.cases.distances import Distances
from parity.cases.segformer import SegFormer
from parity.cases.siglip import Siglip
from parity.training import ApfGanTraining, Optimizers

CASES = {case.name: case for case in (
    Encoder(), Generator(), Discriminator(), Objective(), Augmentation(), Data(), Pictures(), VGG19(), InceptionV3(),
    FidInception(), Distances(), SegFormer(), Siglip(), Aesthetic(), Merged(), Optimizers(),
    ApfGanTraining(), AestheticTraining())}


def find(name: str) -> Case:
    """The case of a model; UserError names the nearest one."""
    if name not in CASES:
        raise UserError(f"no parity case {name!r}{choose_from(name, CASES)}")
    return CASES[name]
