"""DiffAugment with given draws, and the gradients through it; see twins.py."""
import importlib

import numpy as np

from jittwin.draws import Draws

PACKAGES = {"jittor": "jt_models", "torch": "torch_models"}
SEED = 21


def augment(backend, arrays):
    """arrays: real, fake, label, the coefficients of a linear function of each, and "policy <names>" keys."""
    package = PACKAGES[backend.name]
    module = importlib.import_module(f"{package}.apf_gan.augment")
    ops, optim = (importlib.import_module(f"{package}.nn.{name}") for name in ("ops", "optim"))
    results = {}
    for policy in (name.removeprefix("policy ") for name in arrays if name.startswith("policy ")):
        images = {kind: backend.asarray(arrays[kind]) for kind in ("real", "fake", "label")}
        if backend.name == "torch":
            for image in images.values():
                image.requires_grad_()
        seen = module.diff_augment(*images.values(), tuple(policy.split(",")) if policy else (), Draws(SEED))
        for kind, image in zip(images, seen):
            results[f"{policy}|{kind}"] = backend.numpy(image)
        loss = sum(ops.mean(image * backend.asarray(arrays[f"coefficients {kind}"]))
                   for kind, image in zip(images, seen)) * np.prod(arrays["real"].shape)
        optimizer = optim.SGD([{"params": images, "lr": 0.0}])
        optimizer.accumulate(loss)
        for kind, gradient in optimizer.gradients.items():
            results[f"{policy}|gradient {kind}"] = backend.numpy(gradient)
    return results
