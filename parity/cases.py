"""The cases of this project's models. A model of the catalogue without a case fails the tests."""
from jittwin.draws import Draws
from jittwin.errors import UserError, choose_from
from jittwin.models.apf_gan import ModelConfig
from parity.case import Case


class ApfGanEncoder(Case):
    name = "apf_gan.encoder"
    sizes = ("tiny", "full")
    differentiable = ("seg",)
    optimizer = ("adam", {"betas": (0.0, 0.9), "form": "jittor"})

    def config(self, size):
        return ModelConfig(label_nc=8, ngf=4, ndf=8, crop_size=192, aspect_ratio=1.5, spade_hidden=8) \
            if size == "tiny" else ModelConfig()

    def build(self, side, size, mode):
        return side.backend.build(self.name, self.config(size))

    def inputs(self, size, mode):
        c = self.config(size)
        return {"seg": Draws(1).uniform("seg", (2, c.label_nc, *c.size))}

    def run(self, side, module, inputs, mode):
        return {"z": module(inputs["seg"])}


CASES = {case.name: case for case in (ApfGanEncoder(),)}


def find(name: str) -> Case:
    """The case of a model; UserError names the nearest one."""
    if name not in CASES:
        raise UserError(f"no parity case {name!r}{choose_from(name, CASES)}")
    return CASES[name]
