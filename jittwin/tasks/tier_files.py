"""Files of the original TIER training: its log, and best_model.pt, which torch.load(weights_only=True) reads.

best_model.pt holds {"epoch", "encoder" or "backbone", "regressor", "optimizer", "rho_best"}; its epochs count from 0.
The optimizer numbers all parameters of the networks in their order and has no state for those that no feature depends
on, such as BERT's pooler. Running statistics are no parameters.
"""
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from jittwin.engine.state import OtherCheckpoint
from jittwin.errors import UserError
from jittwin.metrics.ratings import AGREEMENT
from jittwin.weights import read_content, write_content
from jittwin.weights.choice import unwrapped
from jittwin.weights.state import matches
from jittwin.weights.usable import checked

BEST_MODEL = "best_model.pt"
NETWORKS = ("encoder", "backbone", "regressor")
COUNTER = "num_batches_tracked"     # follows a normalisation's running variance; nothing depends on it
BUFFERS = ("*.running_mean", "*.running_var", f"*.{COUNTER}", "*.position_ids")
NO_ARRAYS = (f"*.{COUNTER}", "*.position_ids")      # keys that the twins do not have
MOMENTS = ("exp_avg", "exp_avg_sq")
ADAM = {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False, "maximize": False, "foreach": None, "capturable": False,
        "differentiable": False, "fused": None}
RULE = "-" * 30


def numbered(keys) -> list[str]:
    """The parameters among the keys of all networks, in the order in which the original's optimizer numbers them."""
    return [key for key in keys if not matches(key, BUFFERS)]


def write_best_model(path: Path, arrays: Mapping[str, np.ndarray], moments: Mapping[str, np.ndarray], epoch: int,
                     step: int, srcc: float, config) -> None:
    """Write best_model.pt.

    arrays: of all networks, in the order of definition. moments: the optimizer's state, {} if it is not kept. epoch:
    from 1. step: optimizer steps done. config: a jittwin.tasks.tier.Config.
    """
    networks = {}
    for key, array in arrays.items():
        name, _, rest = key.partition(".")
        state = networks.setdefault(name, OrderedDict())
        state[rest] = array
        if rest.endswith(".running_var"):
            state[rest.removesuffix("running_var") + COUNTER] = np.array(step, np.int64)
    keys = numbered(arrays)
    state = {index: {"step": np.array(moments[f"{key}/step"], np.float32),
                     **{name: moments[f"{key}/{name}"] for name in MOMENTS}}
             for index, key in enumerate(keys) if f"{key}/exp_avg" in moments}
    group = {"lr": config.lr, **ADAM, "weight_decay": config.weight_decay,
             "decoupled_weight_decay": config.optimizer == "adamw", "params": list(range(len(keys)))}
    write_content(path, {"epoch": epoch - 1, **{name: networks[name] for name in NETWORKS if name in networks},
                         "optimizer": {"state": state, "param_groups": [group]}, "rho_best": srcc})


def read_other(path) -> OtherCheckpoint:
    """A best_model.pt of the original or of ours. UserError: missing, damaged, or another kind of file."""
    content = read_content(path)
    try:
        epoch, srcc = int(content["epoch"]) + 1, float(content["rho_best"])
        networks = [name for name in NETWORKS if name in content]
        if networks not in (["encoder", "regressor"], ["backbone", "regressor"]):
            raise KeyError(f"networks {networks}")
        arrays = {f"{name}.{key}": array for name in networks for key, array in unwrapped(content[name], path).items()}
        keys, moments = numbered(arrays), {}
        [group] = content["optimizer"]["param_groups"]
        for key, index in zip(keys, group["params"], strict=True):
            state = content["optimizer"]["state"].get(index)
            moments[f"{key}/step"] = np.array(round(float(state["step"])) if state else 0, np.int64)
            if state:
                moments |= {f"{key}/{name}": np.asarray(state[name], np.float32) for name in MOMENTS}
        return OtherCheckpoint(
            Path(path), epoch, max(int(moments[f"{key}/step"]) for key in keys),
            {"model": {key: checked(array, key, str(path)).astype(np.float32, copy=False)
                       for key, array in arrays.items() if not matches(key, NO_ARRAYS)}}, {"model": moments},
            {"srcc": srcc}, {"srcc": srcc}, {}, {}, {"history": [{"epoch": epoch, "srcc": srcc}]})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a checkpoint of TIER's training ({type(error).__name__}: {error}): give its "
                        f"{BEST_MODEL}, or name an epoch") from error


def log_lines(config, history: list[dict]) -> Iterator[str]:
    """The lines of the original's log.

    history: by evaluated epoch, {"epoch": from 1, name of AGREEMENT: value, "train/" + name: value}; undefined values
    are None. An epoch of another program has only "epoch" and "srcc".
    """
    yield f"{RULE}{config.log_info}{RULE}"
    if config.baseline:
        yield from option_lines(config)
    best = {"epoch": 0, "srcc": 0.0, "plcc": 0.0}
    for record in history:
        known = "train/srcc" in record
        if known:
            yield f"Epoch: {record['epoch'] - 1}"
            for split, prefix in (("train", "train/"), ("test", "")):
                srcc, plcc = (number(record[prefix + name]) for name in ("srcc", "plcc"))
                yield f"{split} spearmanr_correlation: {srcc}, pearsonr_correlation: {plcc}"
        if number(record["srcc"]) > best["srcc"]:
            best |= {"epoch": record["epoch"] - 1, "srcc": record["srcc"]}
            if known:
                yield "##### New best correlation #####"
        if number(record.get("plcc")) > best["plcc"]:
            best["plcc"] = record["plcc"]
        if known:
            yield " EPOCH_best: {epoch}, SRCC_best: {srcc:.6f}, PLCC_best: {plcc:.6f}".format(**best)


def option_lines(config) -> Iterator[str]:
    """The options of the baselines' program, which its log lists."""
    options = {"log_info": config.log_info, "lr": config.lr, "weight_decay": config.weight_decay, "seed": config.seed,
               "gpu": 0, "train_batch_size": config.batch_size, "test_batch_size": config.test_batch_size,
               "num_epochs": config.epochs, "backbone": config.backbone, "true_score": config.column,
               "using_prompt": int(config.mode != "nr"), "benchmark": config.subset}
    return (f"{name}: {value}" for name, value in options.items())


def number(value: float | None) -> float:
    return math.nan if value is None else value


def results(history: list[dict], best: Mapping | None) -> dict:
    """{"selected": the measures of the epoch that is the best by test SRCC, or None; "maxima": by measure, the best
    value of all epochs and its epoch}. best: as in best.json, None before the first epoch with an SRCC above 0."""
    chosen = None
    if best and best["checkpoint"]:
        chosen = next((record for record in history if str(record["epoch"]) == best["checkpoint"]), None)
    maxima = {}
    for name in AGREEMENT:
        known = [record for record in history if record.get(name) is not None]
        if known:
            record = (min if name == "rmse" else max)(known, key=lambda record: record[name])
            maxima[name] = {"value": record[name], "epoch": record["epoch"]}
    return {"selected": chosen, "maxima": maxima}
