"""What a twin computes in one training step of APF-GAN, as arrays; see twins.py.

Gradients are taken twice. First of a linear function of everything the discriminators and the generator
return, with random coefficients: no layer's error can hide, and these gradients also feed one update.
Then of the real losses, where a hinge or an absolute value makes the gradient jump at rounding errors,
so that only coarse agreement can be asked for.
"""
import importlib

import numpy as np

from jittwin.draws import Draws
from jittwin.models.apf_gan import REPAIRED, ModelConfig, Semantics, stage
from noise import DRAWS, error, perturb

PACKAGES = {"jittor": "jt_models", "torch": "torch_models"}
RATES = {"G": 1e-4, "D": 4e-4}
BETAS, EPS = (0.0, 0.9), 1e-8
LOSS_DRAWS = 2


def configuration(repaired: bool) -> ModelConfig:
    """128x192 pixels, 16x24 at the first level; narrow, so that all stages take seconds."""
    return ModelConfig(label_nc=8, ngf=4, ndf=8, crop_size=192, aspect_ratio=1.5, spade_hidden=8,
                       semantics=REPAIRED if repaired else Semantics())


def weights(shapes, seed: int) -> dict[str, np.ndarray]:
    """Random weights of a size that keeps signals and gradients of order one through the depth."""
    arrays = {}
    for name, shape in shapes.items():
        values = Draws(7, seed).normal(name, shape)
        if name.endswith("running_var"):
            values = 1 + 0.5 * np.tanh(values)
        elif name.endswith(("bias", "running_mean")):
            values = 0.1 * values
        elif not name.endswith(("weight_u", "weight_v")):
            values = values / np.sqrt(np.prod(shape[1:]))
        arrays[name] = values.astype(np.float32)
    return arrays


def batch(config: ModelConfig) -> dict[str, np.ndarray]:
    """Two label maps of blocks of 8 pixels and two smooth pictures."""
    height, width = config.size
    blocks = Draws(1).integers("label", 0, config.label_nc - 1, (2, height // 8, width // 8))
    b, c, y, x = np.mgrid[:2, :3, :height, :width]
    return {"label": blocks.repeat(8, 1).repeat(8, 2).astype(np.uint8),
            "real": np.sin(0.05 * y * (c + 1) + 0.03 * x + b).astype(np.float32)}


class Step:
    """Networks, objective and optimizers of one stage."""

    def __init__(self, backend, epoch: int, repaired: bool):
        self.backend, self.at = backend, stage(epoch, 180, 4)
        self.config = configuration(repaired)
        second_phase = epoch > 180
        self.ops = importlib.import_module(f"{PACKAGES[backend.name]}.nn.ops")
        self.networks = {
            "E": backend.build("apf_gan.encoder", self.config),
            "G": backend.build("apf_gan.generator", self.config, seg_noise=second_phase,
                               heads=not self.at.full),
            "D": backend.build("apf_gan.discriminator", self.config)}
        self.objective = backend.objective(
            self.config, *self.networks.values(),
            augmentation=("color", "crop", "translation") if second_phase else ())

    def arrays(self, seed: int) -> dict[str, np.ndarray]:
        """The batch, and the weights under "<network>.<name>"."""
        shapes = {f"{net}.{name}": tuple(value.shape) for net, module in self.networks.items()
                  for name, value in module.state_dict().items()}
        return {**weights(shapes, seed), **batch(self.config)}

    def load(self, arrays) -> None:
        for net, module in self.networks.items():
            prefix = f"{net}."
            self.backend.load_numpy(module, {name.removeprefix(prefix): a for name, a in arrays.items()
                                             if name.startswith(prefix)})
            self.backend.train_mode(module, True)
        self.label, self.real = self.backend.asarray(arrays["label"]), self.backend.asarray(arrays["real"])

    def noise(self, index, shape):
        return self.ops.from_host(Draws(5).normal(f"noise {index}", shape))

    def optimizer(self, nets: str):
        parameters = {f"{net}.{name}": p for net in nets
                      for name, p in self.backend.parameters(self.networks[net]).items()}
        return self.backend.optimizer("adam", [{"params": parameters, "lr": RATES[nets[0]]}], betas=BETAS,
                                      eps=EPS, form=self.config.semantics.adam)

    def project(self, site: str, tensor):
        """A random linear function of a tensor, of order one whatever its size."""
        shape = tuple(tensor.shape)
        coefficients = Draws(13).normal(site, shape) * np.float32(np.sqrt(np.prod(shape)))
        return self.ops.mean(tensor * self.ops.from_host(coefficients))

    def forward(self, half: str):
        """Everything the networks return, by name; in half "D" the fake carries no gradient."""
        seg = self.ops.one_hot(self.label, self.config.label_nc)
        fake = self.objective.fake(seg, self.at, self.noise)
        if half == "D":
            fake = self.ops.detach(fake)
        scales = self.objective.discriminate(seg, fake, self.real, self.at, Draws(11))
        features = {f"{kind} {k} {n}": feature for kind, results in zip(("fake", "real"), scales)
                    for k, scale in enumerate(results) for n, feature in enumerate(scale)}
        return {"z": self.networks["E"](seg), "image": fake, **features}

    def host(self, kind: str, tensors) -> dict[str, np.ndarray]:
        return {f"{kind} {name}": self.backend.numpy(tensor) for name, tensor in tensors.items()}

    def linear(self) -> dict[str, np.ndarray]:
        """Outputs, gradients of a random linear function of them, and the state after one update."""
        outputs, optimizers = {}, {"G": self.optimizer("GE"), "D": self.optimizer("D")}
        for half, optimizer in optimizers.items():
            tensors = self.forward(half)
            optimizer.accumulate(sum(self.project(name, tensor) for name, tensor in tensors.items()
                                     if name != "z" and (half == "D" or not name.startswith("real"))))
            outputs |= self.host(f"{half} output", tensors)
            outputs |= self.host(f"{half} gradient", optimizer.gradients)
        for optimizer in optimizers.values():
            optimizer.apply()
        for net, module in self.networks.items():
            outputs |= {f"after {net}.{name}": a for name, a in self.backend.state_numpy(module).items()}
        return outputs

    def losses(self) -> dict[str, np.ndarray]:
        """The real losses and their gradients."""
        outputs = {}
        for half, nets, losses in (("G", "GE", self.objective.generator_losses),
                                   ("D", "D", self.objective.discriminator_losses)):
            values = losses(self.label, self.real, self.at, Draws(11), self.noise)
            optimizer = self.optimizer(nets)
            optimizer.accumulate(sum(values.values()))
            outputs |= {name: value.reshape(()) for name, value in self.host("loss", values).items()}
            outputs |= self.host(f"{half} loss gradient", optimizer.gradients)
        return outputs


def both(run: Step, arrays, losses: bool = True) -> dict[str, np.ndarray]:
    """Linear function and real losses, each from the given weights."""
    run.load(arrays)
    outputs = run.linear()
    if losses:
        run.load(arrays)
        outputs |= run.losses()
    return outputs


def step(backend, arrays):
    """arrays: "epoch", "repaired" and "seed". The outputs of a training step at that stage."""
    run = Step(backend, int(arrays["epoch"]), bool(arrays["repaired"]))
    return both(run, run.arrays(int(arrays["seed"])))


def truth_and_noise(backend, arrays):
    """PyTorch only: "truth …" in double precision; "own …" and "noise …", the errors of float32 PyTorch
    as it is and, at worst, when weights and batch move by one unit in the last place."""
    import torch
    epoch, repaired = int(arrays["epoch"]), bool(arrays["repaired"])
    single = Step(backend, epoch, repaired)
    given = single.arrays(int(arrays["seed"]))
    torch.set_default_dtype(torch.float64)
    truth = both(Step(backend, epoch, repaired),
                 {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in given.items()})
    torch.set_default_dtype(torch.float32)
    results = {f"truth {name}": a for name, a in truth.items()}
    for draw in range(DRAWS + 1):
        kind = "noise" if draw else "own"
        for name, values in both(single, perturb(given, draw), draw <= LOSS_DRAWS).items():
            if not name.startswith("after"):
                seen = error(values, truth[name], "gradient" in name)
                results[f"{kind} {name}"] = np.maximum(seen, results.get(f"{kind} {name}", 0.0))
    return results
