"""The original's checkpoints against PyTorch itself: what it reads of ours, and ours of what it writes."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tower import tower_shapes

from jittwin.backend import load_backend
from jittwin.models.aesthetic import AestheticConfig, trainable_keys
from jittwin.models.lora import LoraConfig
from jittwin.models.siglip import PRESETS
from jittwin.tasks import aesthetic_files as files
from jittwin.tasks.aesthetic import Config, rate_factor

TINY = AestheticConfig(PRESETS["tiny"], LoraConfig(4, 8))
REFERENCE = files.reference_keys(TINY, tower_shapes(replace(TINY.tower, head=True)))
CONFIG = Config(lora_r=4, lora_alpha=8, epochs=1, accumulation=1, lr=0.01, head_lr=0.03)
STEPS, STATE = 20, {"epoch": 1, "epoch_done": True, "measures": {}, "best": {}}


def gradients(shapes, step):
    rng = np.random.default_rng(step + 1)
    return {key: torch.tensor(rng.normal(size=shape), dtype=torch.float32) for key, shape in shapes.items()}


def original(shapes):
    """The original's optimizer and schedule over all that it trains; the pooling head never has a gradient."""
    parameters = {key: torch.nn.Parameter(value) for key, value in gradients(shapes, -1).items()}
    head = [key.startswith("aesthetic_head") for key in shapes]
    groups = [{"params": [p for p, is_head in zip(parameters.values(), head) if is_head == wanted], "lr": rate}
              for wanted, rate in ((False, CONFIG.lr), (True, CONFIG.head_lr))]
    optimizer = torch.optim.AdamW(groups, weight_decay=CONFIG.weight_decay)
    factor = rate_factor(STEPS, CONFIG)[0]
    return parameters, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, [factor, factor])


def advance(parameters, optimizer, schedule, step):
    for key, gradient in gradients({k: p.shape for k, p in parameters.items()}, step).items():
        parameters[key].grad = None if ".model.head." in key else gradient
    optimizer.step()
    schedule.step()


@pytest.fixture
def ours():
    """Our optimizer over what is trained here, after three steps."""
    backend, keys = load_backend("torch"), trainable_keys(TINY, tower_shapes(TINY.tower))
    backend.setup()
    start = gradients(REFERENCE, -1)
    parameters = {key: start[key].clone().requires_grad_() for key in keys}
    groups = [{"params": {key: p for key, p in parameters.items() if ("lora_" in key) == lora}, "lr": 0.0}
              for lora in (True, False)]
    optimizer, factor = backend.optimizer("adamw", groups, weight_decay=CONFIG.weight_decay), rate_factor(20, CONFIG)[0]

    def step(number):
        backend.set_lr(optimizer, [CONFIG.lr * factor(number), CONFIG.head_lr * factor(number)])
        given = gradients(REFERENCE, number)
        backend.step(optimizer, sum((given[key] * p).sum() for key, p in parameters.items()))

    for number in range(3):
        step(number)
    return backend, parameters, optimizer, step


def test_pytorch_goes_on_from_our_checkpoint(ours, tmp_path):
    backend, parameters, optimizer, step = ours
    arrays = {key: p.detach().numpy().copy() for key, p in parameters.items()}
    files.write_checkpoint(tmp_path, arrays, backend.optimizer_state(optimizer), {**STATE, "global_step": 3}, CONFIG,
                           REFERENCE, "name", rate_factor(STEPS, CONFIG)[0](3))
    content = torch.load(tmp_path / "checkpoint_epoch_1.pth", weights_only=True)
    theirs, adamw, schedule = original(REFERENCE)
    fresh = {key: len(value) if isinstance(value, list) else type(value)
             for key, value in adamw.state_dict()["param_groups"][0].items()}
    written = content["optimizer_state_dict"]["param_groups"][0]
    assert {key: len(v) if isinstance(v, list) else type(v) for key, v in written.items()} == fresh
    assert content["scheduler_state_dict"].keys() == schedule.state_dict().keys()
    adamw.load_state_dict(content["optimizer_state_dict"])
    schedule.load_state_dict(content["scheduler_state_dict"])
    with torch.no_grad():
        for key, value in content["model_state_dict"].items():
            theirs[key].copy_(value)
    for number in (3, 4):
        advance(theirs, adamw, schedule, number)
        step(number)
    for key, p in parameters.items():
        torch.testing.assert_close(p.detach(), theirs[key].detach(), rtol=1e-6, atol=1e-7)
    assert not torch.equal(parameters["aesthetic_head.mlp.6.bias"], torch.tensor(arrays["aesthetic_head.mlp.6.bias"]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_we_go_on_from_the_original_checkpoint(ours, tmp_path, dtype):
    """As the original saves it, NumPy scalars among the measures; by default all its tensors are bfloat16."""
    backend, parameters, optimizer, step = ours
    theirs, adamw, schedule = original(REFERENCE)
    for number in range(3):
        advance(theirs, adamw, schedule, number)
    state = {key: p.detach().to(dtype) for key, p in theirs.items()}
    moments = adamw.state_dict()
    for entry in moments["state"].values():
        entry.update({name: entry[name].to(dtype) for name in files.MOMENTS})
    torch.save({"epoch": 0, "global_step": 3, "model_state_dict": state, "optimizer_state_dict": moments,
                "scheduler_state_dict": schedule.state_dict(), "best_emd": np.float64(0.5), "metrics": {"emd": np.float32(0.5)},
                "train_config": {"lora_r": 4, "lora_alpha": 8}}, tmp_path / "checkpoint_epoch_1.pth")
    found = files.read_other(Path(tmp_path / "checkpoint_epoch_1.pth"))
    assert (found.epoch, found.global_step, found.best) == (1, 3, {"emd": 0.5})
    backend.load_optimizer_state(optimizer, found.optimizers["model"])
    with torch.no_grad():
        for key, p in parameters.items():
            p.copy_(torch.as_tensor(found.modules["model"][key]))
    if dtype is torch.float32:
        advance(theirs, adamw, schedule, 3)
        step(3)
    for key, p in parameters.items():
        torch.testing.assert_close(p.detach(), theirs[key].detach().to(dtype).float(), rtol=1e-6, atol=1e-7)
