"""Checkpoints of the original aesthetic training script, which torch.load(weights_only=True) reads.

checkpoint_epoch_<n>.pth, and checkpoint_latest.pth with the same content, hold the state of model, AdamW and LambdaLR.
The original's LoRA also covers the tower's pooling head, whose output nothing uses. The optimizer numbers the
parameters of those adapters but has no state for them. They are written with their initial values, B zero, and skipped
when read. The original's EMD is the mean of the means of its batches, whose last one is smaller, and ours the mean over
pictures; the two are never compared. Only our files have best_srcc.
"""
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from jittwin.checkpoints.adapters import OWN
from jittwin.engine.state import OtherCheckpoint
from jittwin.errors import UserError
from jittwin.models.aesthetic import HEAD_PREFIX, TOWER_PREFIX, AestheticConfig, trainable_keys
from jittwin.models.lora import LAYER_NAMES, REFERENCE
from jittwin.weights.choice import chosen, told
from jittwin.weights.content import read_content, write_content
from jittwin.weights.initial import initial_weights
from jittwin.weights.usable import checked

METRICS = ("emd", "mse", "mae", "srcc", "plcc")
DEAD = f"{TOWER_PREFIX}head."       # adapters of the pooling head
MOMENTS = ("exp_avg", "exp_avg_sq")
ADAMW = {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False, "foreach": None, "maximize": False,
         "capturable": False, "differentiable": False, "fused": None, "decoupled_weight_decay": True}


def reference_keys(model: AestheticConfig, tower: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of everything that the original trains, in the order of its optimizer.

    tower: shapes of the tower's arrays, including those of its pooling head.
    """
    return trainable_keys(replace(model, lora=replace(model.lora, targets=REFERENCE)), tower)


def write_checkpoint(folder: Path, arrays: dict, moments: dict, state: dict, config,
                     shapes: Mapping[str, tuple[int, ...]], model_name: str, factor: float,
                     tower_sha256: str | None = None) -> None:
    """Write checkpoint_epoch_n.pth and checkpoint_latest.pth.

    arrays: the trained weights. moments: state of their optimizer. state: state.json of the checkpoint. shapes: see
    reference_keys. factor: factor of the learning rates in the next step.
    """
    dead = dict(initial_weights("aesthetic", {key: shape for key, shape in shapes.items() if key.startswith(DEAD)}))
    # Plain Python numbers, because torch.load(weights_only=True) refuses NumPy's.
    rates, best = [config.lr, config.head_lr], state["best"]
    content = {
        "epoch": state["epoch"] - 1, "global_step": state["global_step"],
        "model_state_dict": {key: dead[key] if key in dead else arrays[key] for key in shapes},
        "optimizer_state_dict": optimizer_state(list(shapes), moments, rates, factor, config.weight_decay),
        "scheduler_state_dict": {
            "base_lrs": rates, "last_epoch": state["global_step"], "_step_count": state["global_step"] + 1,
            "_is_initial": False, "_get_lr_called_within_step": False,
            "_last_lr": [rate * factor for rate in rates], "lr_lambdas": [{}, {}]},
        "metrics": {key: number(state["measures"].get(key)) for key in METRICS},
        "best_emd": best.get("emd", {}).get("score", float("inf")), "best_srcc": best.get("srcc", {}).get("score"),
        "train_config": {
            "model_name": model_name, "lora_r": config.lora_r, "lora_alpha": config.lora_alpha,
            "lora_target_modules": list(LAYER_NAMES), "batch_size": config.batch_size,
            "accum_steps": config.accumulation, "num_epochs": config.epochs, "learning_rate": config.lr,
            "mlp_learning_rate": config.head_lr, **({"tower_sha256": tower_sha256} if tower_sha256 else {})},
    }
    path = Path(folder) / f"checkpoint_epoch_{state['epoch']}.pth"
    write_content(path, content)
    same_file(path, path.with_name("checkpoint_latest.pth"))


def number(value: float | None) -> float:
    return float("nan") if value is None else value


def optimizer_state(keys: list[str], moments: dict, rates: list[float], factor: float, weight_decay: float) -> dict:
    """torch.optim.AdamW's state_dict with the groups LoRA and head; `moments` as backend.optimizer_state gives them."""
    state = {}
    for index, key in enumerate(keys):
        if f"{key}/exp_avg" in moments:
            state[index] = {"step": np.array(moments[f"{key}/step"], np.float32),
                            **{name: moments[f"{key}/{name}"] for name in MOMENTS}}
    is_head = [key.startswith(HEAD_PREFIX) for key in keys]
    groups = [{"lr": rate * factor, **ADAMW, "weight_decay": weight_decay, "initial_lr": rate,
               "params": [index for index, head in enumerate(is_head) if head == wanted]}
              for rate, wanted in zip(rates, (False, True))]
    return {"state": state, "param_groups": groups}


def same_file(source: Path, target: Path) -> None:
    """Replace `target` atomically by a hard link to `source`, or by a copy where hard links are not supported."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def read_other(path) -> OtherCheckpoint:
    """A checkpoint_epoch_n.pth or checkpoint_latest.pth. UserError: missing, damaged, or another kind of file."""
    content = read_content(path)
    try:
        weights, optimizer = content["model_state_dict"], content["optimizer_state_dict"]
        names = chosen(weights, str(path), lambda name: True, told(str(path), OWN))
        weights = {name: weights[key] for name, key in names.items()}
        trained = content["train_config"]
        metrics, epoch, step = content["metrics"], int(content["epoch"]), int(content["global_step"])
        lora = [key for key in weights if "lora" in key]
        head = [key for key in weights if "lora" not in key]
        moments = {}
        for keys, group in zip((lora, head), optimizer["param_groups"], strict=True):
            for key, index in zip(keys, group["params"], strict=True):
                moments |= read_moments(key, optimizer["state"].get(index))
        best = {"emd": content["best_emd"], "srcc": content.get("best_srcc")}
        return OtherCheckpoint(
            Path(path), epoch + 1, step,
            {"model": {key: checked(array, key, str(path)).astype(np.float32, copy=False)
                       for key, array in weights.items() if not key.startswith(DEAD)}}, {"model": moments},
            {key: finite(metrics.get(key)) for key in METRICS},
            {key: score for key, value in best.items() if (score := finite(value)) is not None},
            {"lora_r": int(trained["lora_r"]), "lora_alpha": float(trained["lora_alpha"])},
            {"tower": str(trained["tower_sha256"])} if "tower_sha256" in trained else {},
            comparable="best_srcc" in content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a checkpoint of the aesthetic training script ({type(error).__name__}: {error}): "
                        "give its checkpoint_epoch_n.pth or checkpoint_latest.pth, or name an epoch") from error


def read_moments(key: str, state: dict | None) -> dict[str, np.ndarray]:
    """Entries for backend.load_optimizer_state. state: None for a parameter that never had a gradient."""
    if key.startswith(DEAD):
        return {}
    if state is None:
        return {f"{key}/step": np.array(0, np.int64)}
    return {f"{key}/step": np.array(round(float(state["step"])), np.int64),
            **{f"{key}/{name}": np.asarray(state[name], np.float32) for name in MOMENTS}}


def finite(value) -> float | None:
    """`value` as a float; None if it is None or not finite."""
    return None if value is None or not np.isfinite(float(value)) else float(value)
