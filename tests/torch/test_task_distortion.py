"""Training of the detector of distortion against the original's loop in plain PyTorch, and LoRA against peft."""
import copy
import json

import numpy as np
import peft
import pytest
import torch
from distortion_training import check_resumption, options
from torch.nn import functional as F

from jittwin import config as settings
from jittwin.backend import load_backend
from jittwin.checkpoints.store import Checkpoints
from jittwin.draws import Draws
from jittwin.loss_scaler import LossScaler
from jittwin.engine.task import StepContext
from jittwin.models.conversion import below
from jittwin.models.distortion import CONVERSION, TRUNK, adapters, infer_config, make_config
from jittwin.models.lora import LoraConfig, adapter_keys
from jittwin.tasks.distortion import Config, Task
from jittwin.training import train
from torch_models.nn import lora
from torch_models.nn.layers import Conv2d, Linear

CASES = {
    "full": ["warmup_epochs=1", "semantics=reference", "score_loss=mse-plcc-srcc"],
    "repaired": ["warmup_epochs=1", "score_loss=mse-srcc", "score_loss_weight=0.5", "mask_loss=soft_dice-bce"],
    "heads": ["warmup_epochs=1", "unfreeze=heatmap_predictor", "freeze=score_predictor,florence2"],
    "lora": ["warmup_epochs=0", "lora_rank=2", "score_loss=mse"],
    "lora and all": ["warmup_epochs=0", "lora_rank=2", "unfreeze=all", "lora_lr=3e-3", "score_loss=mse"]}


@pytest.fixture(scope="module")
def backend():
    backend = load_backend("torch")
    backend.setup(seed=0)
    return backend


def plain_losses(config, maps, target, logits, scores, votes):
    """As the original computes them, or as their names say."""
    p, t, pairs = maps.flatten(1), target.flatten(1), config.semantics == "reference"
    found = {"mask_mse": F.mse_loss(maps, target), "mask_bce": F.binary_cross_entropy_with_logits(logits, target),
             "mask_dice": (1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)).mean(),
             "mask_soft_dice": (1 - (2 * (p * t).sum(1) + 1) / (p.pow(2).sum(1) + t.pow(2).sum(1) + 1)).mean()}
    q, y = [(x - x.mean()) / (x.std(unbiased=False) + 1e-5) for x in (scores, votes)]
    rho = (q * y).mean()
    gap = scores[:, None] - votes[None] if pairs else scores - votes
    count = len(votes)
    hinge = F.relu((scores[:, None] - scores[None]) * torch.sign(votes[None] - votes[:, None]))
    found |= {"score_mse": gap.pow(2).mean(),
              "score_plcc": (F.mse_loss(q, y) / 4 + F.mse_loss(rho * q, y) / 4) / 2,
              "score_srcc": 0 * scores.sum() if pairs else 0.3 * hinge.sum() / (count * (count - 1)) / (1 + hinge.max())}
    weight = {"mask": config.mask_loss_weight, "score": config.score_loss_weight}
    wanted = [f"mask_{name}" for name in config.mask_loss.split("-")]
    wanted += [f"score_{name}" for name in config.score_loss.split("-")]
    return {name: weight[name.split("_")[0]] * found[name] for name in wanted}


def plain_loop(task, trained) -> tuple[list[dict], dict, dict]:
    """(losses of each step, weights, steps that the optimizer counted). trained: in the main stage, of a name."""
    config, module = task.config, task.build()
    base, heads, adapted = [], [], []
    for name, p in module.named_parameters():
        (heads if "florence2" not in name else adapted if "lora" in name else base).append(p)
        p.requires_grad_(True)
    trunk_lr = config.lr * config.trunk_lr_factor
    optimizer = torch.optim.AdamW([
        {"params": base, "lr": trunk_lr, "weight_decay": 1e-2}, {"params": heads, "lr": config.lr, "weight_decay": 5e-5},
        {"params": adapted, "lr": config.lora_lr or trunk_lr, "weight_decay": 1e-2}])
    losses, epoch = [], 0
    for phase in task.phases:
        warm = phase.name == "warm-up"
        for name, p in module.named_parameters():
            p.requires_grad_("florence2" not in name if warm else trained(name))
        module.train()
        if warm or not any(trained(name) for name, _ in module.named_parameters() if "florence2" in name):
            module.florence2.eval()
        loader = task.loader_of(phase)
        steps = -(-len(loader) // config.accumulation)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs * steps, config.min_lr)
        for epoch in range(phase.first_epoch, phase.last_epoch + 1):
            batches = list(loader.epoch(epoch))
            for number, batch in enumerate(batches):
                task.backend.seed(Draws(config.seed, epoch, number).device_seed())
                tokens, rows = task.tokens[task.training], batch["text"]
                length = int(tokens.mask[rows].sum(1).max())
                maps, scores = module.logits(*map(torch.tensor, (
                    batch["pixels"], tokens.ids[rows, :length], tokens.mask[rows, :length])))
                terms = plain_losses(config, torch.sigmoid(maps), torch.tensor(batch["map"]), maps,
                                     torch.sigmoid(scores)[:, 0], torch.tensor(batch["vote"]).float())
                (sum(terms.values()) / config.accumulation).backward()
                if number % config.accumulation == 0:
                    losses.append([])
                losses[-1].append({name: float(value) for name, value in terms.items()})
                if number % config.accumulation == config.accumulation - 1 or number == len(batches) - 1:
                    optimizer.step()
                    optimizer.zero_grad()
                    if not warm:
                        schedule.step()
    steps = {name: int(optimizer.state[p]["step"]) for name, p in module.named_parameters() if p in optimizer.state}
    means = [{name: np.mean([part[name] for part in parts]) for name in parts[0]} for parts in losses]
    return means, {name: value.numpy() for name, value in module.state_dict().items()}, steps


@pytest.mark.parametrize("case", CASES)
def test_the_original_loop(backend, tmp_path, case):
    """Eleven pictures: a warm-up step of two batches, then two epochs of two steps, the second of one batch."""
    given = [*options(), *CASES[case], "min_lr=1e-4", "accumulation=2"]
    train("distortion", "torch", out=str(tmp_path), overrides=given)
    task = Task(settings.resolve(Config, overrides=given), backend, None, tmp_path)
    expected, weights, steps = plain_loop(task, {
        "heads": lambda name: "heatmap_predictor" in name,
        "lora": lambda name: "lora" in name or "florence2" not in name}.get(case, lambda name: True))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [{name: value for name, value in line.items() if "_" in name} for line in lines if "mask_mse" in line
              or "mask_bce" in line]
    assert len(losses) == len(expected) == (4 if "lora" in case else 5)
    for ours, theirs in zip(losses, expected):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=3e-5)
    checkpoints = Checkpoints(tmp_path)
    last = checkpoints.latest()
    found, state = checkpoints.weights(last, "model"), checkpoints.weights(last, "optimizer")
    for name, value in found.items():
        # Nothing depends on the bias of the keys or on one before a normalisation: its gradient is rounding.
        if not name.endswith((".bias", "running_mean")):
            # A step moves a weight by up to the rate; where a gradient is nearly zero, rounding decides its direction.
            assert np.abs(value - weights[name]).mean() < 0.1 * task.config.lr, name
    counts = {key.removeprefix("model/").removesuffix("/step"): int(n) for key, n in state.items() if key.endswith("/step")}
    # PyTorch's optimizer still holds what is frozen after the warm-up.
    assert counts == {name: steps[name] for name in counts} and (case == "heads" or len(counts) == len(steps))
    if case == "full":
        assert {count for name, count in counts.items() if name.startswith(TRUNK)} == {4}
        assert {count for name, count in counts.items() if not name.startswith(TRUNK)} == {5}
    left = set(weights) - set(found)
    assert all(name.startswith(TRUNK) and "lora" not in name for name in left)
    assert bool(left) == (case in ("heads", "lora"))
    if "lora" in case or case == "heads":
        check_whole(backend, tmp_path, weights, task)


def check_whole(backend, folder, weights, task):
    """The file of the whole detector computes the same as the module with LoRA."""
    path = folder / "merged.safetensors"
    source = CONVERSION.open(path)
    arrays = source.arrays
    assert source.metadata["checkpoint"] == task_best(folder)
    assert infer_config(arrays.shapes, source) == task.model
    plain, module = backend.build("distortion", task.model), task.build()
    checkpoint = Checkpoints(folder).weights(task_best(folder), "model")
    backend.load_numpy(plain, arrays)
    backend.load_numpy(module, {name: checkpoint.get(name, a) for name, a in backend.state_numpy(module).items()})
    batch = next(task.loader_of(task.phases[0]).epoch(1))
    ids, mask = (torch.tensor(a[batch["text"]]) for a in (task.tokens[task.training].ids, task.tokens[task.training].mask))
    with torch.no_grad():
        ours, theirs = (network.eval()(torch.tensor(batch["pixels"]), ids, mask) for network in (plain, module))
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def task_best(folder) -> str:
    return json.loads((folder / "best.json").read_text())["final"]["checkpoint"]


def test_measures_are_those_of_the_averaged_weights(backend, tmp_path):
    given = [*options(), "ema=0.5", "epochs=1", "warmup_epochs=0", "lr=0.02"]
    train("distortion", "torch", out=str(tmp_path), overrides=given)
    task = Task(settings.resolve(Config, overrides=given), backend, None, tmp_path)
    task.enter_phase(task.phases[0])
    checkpoints, found = Checkpoints(tmp_path), {}
    state = checkpoints.state("1")
    for stem in ("model", "model.ema"):
        arrays = checkpoints.weights("1", stem)
        assert "heatmap_predictor.conv_layers.1.running_mean" in arrays
        backend.load_numpy(task.modules["model"], arrays)
        found[stem] = task.evaluate(StepContext(1, 0, 0, Draws(0)))
    assert state["measures"]["score_mse"] == pytest.approx(found["model.ema"]["score_mse"], rel=1e-6)
    assert state["measures"]["map_mse"] != pytest.approx(found["model"]["map_mse"], rel=1e-6)


def test_the_loss_scaler_is_pytorchs(backend):
    """Gradients that float16 cannot hold make no step and halve the factor; updates in a row double it."""
    values = [torch.tensor([1.0, -2.0]), torch.tensor([[0.5]])]
    ours, theirs = ([torch.nn.Parameter(value.clone()) for value in values] for _ in range(2))
    scaler, right = LossScaler(interval=3), torch.amp.GradScaler("cpu", growth_interval=3)
    optimizer = backend.optimizer("adamw", [{"params": dict(zip("pq", ours)), "lr": 0.1}])
    plain = torch.optim.AdamW(theirs, 0.1)

    def loss(parameters, factor):
        p, q = (p.half() for p in parameters)
        return (p * p).sum().float() * factor + (q * factor).sum().float()

    scales = []
    for factor in (1.0, 0.01, 0.01, 8.0, *[0.001] * 7, float("nan"), 0.01):
        for more in (True, False):          # a step of two batches
            backend.step(optimizer, loss(ours, factor) / 2, 1.0, more, scaler)
            right.scale(loss(theirs, factor) / 2).backward()
        right.unscale_(plain)
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        right.step(plain)
        right.update()
        plain.zero_grad()
        scales.append((scaler.scale, right.get_scale()))
    assert all(first == second for first, second in scales) and len(set(scales)) > 2
    for first, second in zip(ours, theirs, strict=True):
        torch.testing.assert_close(first, second)
        assert torch.isfinite(first).all()


def test_resumption(tmp_path):
    check_resumption("torch", tmp_path)


@pytest.mark.slow
def test_the_small_preset_learns_places_and_votes(tmp_path):
    """Smooth noise as a map has an F1 of 0.3 on these pictures, a constant 0.1; random scores have correlations near 0."""
    train("distortion", "torch", out=str(tmp_path), overrides=["preset=small"])
    measures = Checkpoints(tmp_path).state("9")["measures"]
    assert measures["f1"] > 0.6 and measures["srcc"] > 0.6


@pytest.mark.parametrize("rank, stabilised", [(2, True), (3, False)])
def test_adapters_of_convolutions_are_pefts(backend, rank, stabilised):
    class Theirs(torch.nn.Module):
        def __init__(self, convolution, linear):
            super().__init__()
            self.conv, self.proj = convolution, linear

        def forward(self, x):
            return self.proj(self.conv(x).mean((2, 3)))

    torch.manual_seed(0)
    theirs = peft.get_peft_model(Theirs(torch.nn.Conv2d(3, 5, (3, 2), 2, 1), torch.nn.Linear(5, 4)), peft.LoraConfig(
        r=rank, lora_alpha=8, lora_dropout=0.0, target_modules=["conv", "proj"], use_rslora=stabilised))
    ours = lora.adapt(Theirs(Conv2d(3, 5, (3, 2), 2, 1), Linear(5, 4)), LoraConfig(rank, 8, 0.0, "conv|proj", stabilised))
    state = {name: torch.randn_like(value) for name, value in theirs.state_dict().items()}
    for network in (ours, theirs):
        network.load_state_dict(state)
    assert ([name for name, p in ours.named_parameters() if p.requires_grad]
            == [name for name, p in theirs.named_parameters() if p.requires_grad])
    x = torch.randn(2, 3, 7, 8)
    torch.testing.assert_close(ours(x), theirs(x))
    lora.merge(ours)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.base_model.model.conv.base_layer.weight,
                               state["base_model.model.conv.base_layer.weight"] +
                               theirs.base_model.model.conv.get_delta_weight("default"))
    lora.unmerge(ours)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size, rank, modules, count", [
    ("base", 8, 130, 2_210_968), ("base", 128, 130, 35_375_488), ("large", 8, 160, 4_813_976), ("large", 128, 160, 77_023_616)])
def test_published_counts_of_lora(backend, size, rank, modules, count):
    shapes = below(backend.state_shapes("distortion", make_config(size)), TRUNK)
    keys = adapter_keys(shapes, adapters(rank))
    assert len(keys) == 2 * modules and sum(int(np.prod(shape)) for shape in keys.values()) == count


def test_lora_begins_as_nothing(backend, tmp_path):
    task = Task(settings.resolve(Config, overrides=[*options(), "warmup_epochs=0", "lora_rank=4"]), backend, None, tmp_path)
    state = backend.state_numpy(task.build())
    a = np.concatenate([value.ravel() for name, value in state.items() if "lora_A" in name])
    assert not any(value.any() for name, value in state.items() if "lora_B" in name)
    assert a.std() == pytest.approx(1 / 4, rel=0.05)
    plain = copy.deepcopy(task.start.arrays)
    assert all(np.array_equal(plain[name], state[name]) for name in plain if name in state)
