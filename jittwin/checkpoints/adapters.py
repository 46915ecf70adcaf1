"""Adapter files of the aesthetic scorer: the original's .pth, peft's folders, and checkpoints of this project.

Original: best_lora.pth and its like, {"config": …, "state_dict": …}; checkpoint_epoch_n.pth, {"model_state_dict": …,
"train_config": …}. peft: adapter_config.json, adapter_model.safetensors (or .bin), and a file of our own for the head,
which peft does not know. Ours: MODULE.safetensors, whose metadata hold the original's `config` as "adapter".
"""
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jittwin.atomic import whole_folder, write_file
from jittwin.backend import PRECISIONS
from jittwin.checkpoints.find import run_file
from jittwin.errors import UserError, choose_from
from jittwin.models.aesthetic import (
    CLASSES,
    HEAD_PREFIX,
    TOWER_PREFIX,
    AestheticConfig,
    trainable_keys,
)
from jittwin.models.lora import LAYER_NAMES, LoraConfig, adapter_keys
from jittwin.models.siglip import SiglipVisionConfig
from jittwin.text_files import read_object
from jittwin.weights import FLOATS, read_content, read_metadata, read_weights, write_content, write_weights
from jittwin.weights.choice import chosen, told
from jittwin.weights.initial import initial_weights
from jittwin.weights.state import differences
from jittwin.weights.usable import checked

FORMATS = ("original", "peft")
# Words with which all keys of a file may begin, as in jittwin.models.conversion.
OWN = ("vision_model", "base_model", HEAD_PREFIX.partition(".")[0])
MODULE = "model"            # stem of the weights file in a checkpoint
PEFT_CONFIG, PEFT_HEAD = "adapter_config.json", "aesthetic_head.safetensors"
PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTED = ("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
POOLING = ("head.attention.out_proj", "head.mlp.fc1", "head.mlp.fc2")       # linear layers of the pooling head
# _PLACE matches a key of the scorer. _ADAPTER_KEY matches a key of a file: the original's, peft's (without "default"),
# or one with the level "vision_model" that the towers of transformers 4 have.
_PLACE = re.compile(re.escape(TOWER_PREFIX) + r"encoder\.layers\.(\d+)\.(.+)\.lora_([AB])\.default\.weight")
_ADAPTER_KEY = re.compile(r"(?:vision_model\.)?(?:base_model\.model\.)?(?:vision_model\.)?"
                          r"((?:encoder|head)\..+)\.lora_([AB])(?:\.default)?(?:\.weight)?")
# Settings of peft that change what the adapter computes, and the only value that is supported.
_PLAIN = {"peft_type": "LORA", "bias": "none", "use_rslora": False, "use_dora": False, "fan_in_fan_out": False,
          "lora_bias": False}
_ABSENT = ("modules_to_save", "alpha_pattern", "rank_pattern", "layer_replication", "layers_to_transform",
           "target_parameters")
_STARTS = (True, False, "gaussian", "eva", "orthogonal")    # init_lora_weights; its other values change the tower too


@dataclass(frozen=True)
class Adapter:
    """The trained part of the aesthetic scorer: LoRA and head.

    arrays: float32, by the scorer's keys in the order of jittwin.models.aesthetic.trainable_keys. model_name: name of
    the tower that it was trained on. tower_sha256: hash of that tower's arrays. Both are "" where the file does not
    state them. dtype: floating-point type in the file. source: path of the file.
    """

    config: LoraConfig
    arrays: dict[str, np.ndarray]
    model_name: str
    hidden_size: int
    num_classes: int = CLASSES
    dtype: str = "float32"
    source: str = ""
    tower_sha256: str = ""


def read_adapter(path: str | os.PathLike) -> Adapter:
    """An adapter from a file of the original, a peft folder, a checkpoint or a run.

    A run folder stands for its latest checkpoint, RUN/best and RUN/best_MEASURE for the best ones. Adapters of the
    tower's pooling head are skipped, because the scorer does not use that head. UserError: anything else.
    """
    where = _resolve(Path(path))
    if where.is_dir():
        return _read_peft(where)
    if where.suffix == ".safetensors":
        settings = read_metadata(where).get("adapter")
        if not isinstance(settings, dict):
            raise UserError(f"{where}: its metadata name no adapter; give a checkpoint of the aesthetic model, a peft "
                            "folder or an original best_lora.pth")
        return _assemble(read_weights(where), settings, str(where))
    content = read_content(where)
    for arrays, settings in (("state_dict", "config"), ("model_state_dict", "train_config")):
        if isinstance(content, dict) and all(isinstance(content.get(name), dict) for name in (arrays, settings)):
            return _assemble(content[arrays], content[settings], str(where))
    raise UserError(f"{where}: no adapter: it lacks the dictionaries 'config' and 'state_dict' of best_lora.pth, or "
                    "'train_config' and 'model_state_dict' of checkpoint_epoch_n.pth")


def _resolve(path: Path) -> Path:
    """The peft folder, or the file of arrays, that `path` stands for."""
    if (path / PEFT_CONFIG).is_file():
        return path
    file = run_file(path, MODULE)
    if path.is_dir() and not file.is_file():
        raise UserError(f"{path}: no adapter here; legal: a peft folder ({PEFT_CONFIG}), a run of the aesthetic model, "
                        "one of its checkpoints, or an original best_lora.pth")
    return file


def _read_peft(folder: Path) -> Adapter:
    values = {**_PLAIN, **read_object(folder / PEFT_CONFIG, "save it again")}
    wrong = [name for name, value in _PLAIN.items() if values[name] != value] + [n for n in _ABSENT if values.get(n)]
    if wrong:
        raise UserError(f"{folder / PEFT_CONFIG}: {wrong[0]} is {values[wrong[0]]!r}; only plain LoRA is supported: "
                        f"{_PLAIN.get(wrong[0])!r}")
    start = values.get("init_lora_weights", True)
    if (start.lower() if isinstance(start, str) else start) not in _STARTS:
        raise UserError(f"{folder / PEFT_CONFIG}: init_lora_weights is {start!r}, with which peft also changes the "
                        "tower; save it with path_initial_model_for_weight_conversion, which makes plain LoRA of it")
    file = next((folder / name for name in PEFT_FILES if (folder / name).is_file()), None)
    head = folder / PEFT_HEAD
    if file is None or not head.is_file():
        missing = " or ".join(PEFT_FILES) if file is None else f"{PEFT_HEAD} (keys {HEAD_PREFIX}mlp.0.weight …)"
        raise UserError(f"{folder}: lacks {missing}; give the whole folder")
    found = {"model_name": values.get("base_model_name_or_path") or "", "lora_dropout": values.get("lora_dropout", 0.0),
             "tower_sha256": read_metadata(head).get("tower_sha256"),
             **{f"lora_{name}": values[key] for name, key in (("r", "r"), ("alpha", "lora_alpha")) if key in values}}
    return _assemble({**read_weights(file), **read_weights(head)}, found, str(folder))


def _assemble(found: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> Adapter:
    """Make an adapter of a file's arrays and settings. UserError: names or shapes disagree."""
    for name in ("lora_r", "lora_alpha", "lora_dropout", "hidden_size", "num_classes", "model_name", "tower_sha256"):
        if not isinstance(settings.get(name), (int, float, str, type(None))):
            kind = type(settings[name]).__name__
            raise UserError(f"{where}: its setting {name} is a {kind}; legal: a number or text")
    try:
        lora = LoraConfig(settings["lora_r"], settings["lora_alpha"], float(settings.get("lora_dropout", 0.0)))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{where}: its settings describe no LoRA ({reason})") from error
    found = {str(key): array for key, array in found.items()}
    found = {name: found[key] for name, key in chosen(found, where, lambda name: True, told(where, OWN)).items()}
    arrays = {name: array for key, array in found.items() if (name := _name(key, array, where))}
    config, linears = _sizes(arrays, lora, where)
    rank = next(array.shape[0] for name, array in arrays.items() if ".lora_A." in name)
    if rank != lora.r:
        raise UserError(f"{where}: its settings say rank {lora.r}, its arrays have rank {rank}; the file is damaged")
    expected = trainable_keys(config, linears)
    if problems := differences(expected, {name: array.shape for name, array in arrays.items()}):
        raise UserError(f"{where}: not a whole adapter of the aesthetic model: {problems}")
    width, types = config.tower.hidden_size, {str(array.dtype) for array in arrays.values()}
    for name, what, size in (("hidden_size", "width", width), ("num_classes", "classes", config.num_classes)):
        if settings.get(name, size) != size:
            raise UserError(f"{where}: its settings say {what} {settings[name]}, its arrays {size}; the file is "
                            "damaged")
    arrays = {name: checked(arrays[name], name, where) for name in expected}
    return Adapter(config.lora, {name: array.astype(np.float32, copy=False) for name, array in arrays.items()},
                   str(settings.get("model_name") or ""), width, config.num_classes,
                   types.pop() if len(types) == 1 and types <= {*PRECISIONS} else "float32", where,
                   str(settings.get("tower_sha256") or ""))


def _name(key: str, array, where: str) -> str | None:
    """The scorer's key of an entry; None for the pooling head's adapters."""
    if not isinstance(array, np.ndarray):
        raise UserError(f"{where}: {key!r} holds {type(array).__name__} instead of an array")
    if str(key).startswith(HEAD_PREFIX):
        return key
    match = _ADAPTER_KEY.fullmatch(str(key))
    if not match:
        raise UserError(f"{where}: {key!r} is neither LoRA of a SigLIP vision encoder nor part of the head")
    if array.ndim != 2:
        raise UserError(f"{where}: {key!r} has shape {array.shape}; legal: two dimensions")
    return None if match[1].startswith("head.") else f"{TOWER_PREFIX}{match[1]}.lora_{match[2]}.default.weight"


def _sizes(arrays: Mapping[str, np.ndarray], lora: LoraConfig, where: str) -> tuple[AestheticConfig, dict]:
    """(configuration, shapes of the tower's adapted layers), from the arrays. UserError: LoRA or head is missing."""
    places = [match for name in arrays if (match := _PLACE.fullmatch(name))]
    adapted = [name for name in ADAPTED if name in {match[2] for match in places}]
    head = [arrays.get(f"{HEAD_PREFIX}mlp.{index}.weight") for index in (0, 6)]
    if not adapted or any(array is None or array.ndim != 2 for array in head):
        lacks = "head" if adapted else "LoRA of a SigLIP vision encoder"
        raise UserError(f"{where}: holds no {lacks}; legal: both, as training the aesthetic model writes them")
    width, shapes = head[0].shape[1], {f"{match[2]}.{match[3]}": arrays[match[0]].shape for match in places}
    hidden = shapes.get("mlp.fc1.B", shapes.get("mlp.fc2.A", (width,))[::-1])[0]
    if len(adapted) < len(ADAPTED):
        names = "|".join(map(re.escape, adapted))
        lora = replace(lora, targets=rf".*encoder\.layers\.\d+\.({names})")
    layers = len({match[1] for match in places})
    linears = _linears(width, hidden, [f"encoder.layers.{layer}.{name}" for layer in range(layers) for name in adapted])
    return AestheticConfig(SiglipVisionConfig(width, layers, 1, hidden), lora, num_classes=head[1].shape[0]), linears


def _linears(width: int, hidden: int, paths: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Keys and shapes (out, in) of a tower's linear layers; all but those of the MLP are (width, width)."""
    sizes = {"fc1": (hidden, width), "fc2": (width, hidden)}
    return {f"{path}.weight": sizes.get(path.rpartition(".")[2], (width, width)) for path in paths}


def check_adapter(adapter: Adapter, tower: SiglipVisionConfig, shapes: Mapping[str, tuple[int, ...]],
                  lora: LoraConfig | None = None) -> None:
    """UserError, with both values, unless the adapter fits the tower's width, depth and shapes, and `lora`.

    shapes: shapes of the tower's arrays. lora: settings of the run that continues from the adapter; None accepts the
    adapter's own.
    """
    config = AestheticConfig(tower, adapter.config, num_classes=adapter.num_classes)
    layers = 1 + max(int(match[1]) for name in adapter.arrays if (match := _PLACE.fullmatch(name)))
    pairs = [("width", adapter.hidden_size, tower.hidden_size), ("depth", layers, tower.num_hidden_layers)]
    if lora is not None:
        pairs += [("rank", adapter.config.r, lora.r), ("alpha", adapter.config.alpha, lora.alpha),
                  ("adapted layers", adapter.config.targets, lora.targets)]
    for what, ours, theirs in pairs:
        if ours != theirs:
            whose = "the tower has" if what in ("width", "depth") else "the run is set to"
            raise UserError(f"{adapter.source or 'adapter'}: {what} {ours}, but {whose} {theirs}; choose the "
                            f"{'model' if whose == 'the tower has' else 'settings'} it was trained with"
                            + (f" ({adapter.model_name})" if adapter.model_name else ""))
    found = {name: array.shape for name, array in adapter.arrays.items()}
    if problems := differences(trainable_keys(config, shapes), found):
        raise UserError(f"{adapter.source or 'adapter'}: does not fit the tower: {problems}")


def describe(adapter: Adapter) -> dict:
    """The `config` of an original file: model_name, lora_r, lora_alpha, lora_dropout, lora_target_modules …

    tower_sha256 is added where it is known; the original has no such entry. lora_dropout is 0.0 as in the original,
    because the file is for inference and a run has its own setting. The arrays are not read.
    """
    adapted = {name.rpartition(".")[2] for name in ADAPTED if adapter.config.adapts(f"encoder.layers.0.{name}")}
    return {"model_name": adapter.model_name, "lora_r": adapter.config.r, "lora_alpha": _whole(adapter.config.alpha),
            "lora_dropout": 0.0, "lora_target_modules": [name for name in LAYER_NAMES if name in adapted],
            "num_classes": adapter.num_classes, "hidden_size": adapter.hidden_size, **_hash(adapter)}


def _hash(adapter: Adapter) -> dict[str, str]:
    return {"tower_sha256": adapter.tower_sha256} if adapter.tower_sha256 else {}


def _whole(number: float) -> float:
    """2.0 as 2, which is how peft and the original write it."""
    return int(number) if number == int(number) else number


def write_adapter(path: str | os.PathLike, adapter: Adapter, format: str = "original",
                  reference_compat: bool = False, dtype: str = "float32") -> None:
    """Write an adapter atomically: as a .pth that the original's code loads, or as a folder that peft loads.

    format: "original" or "peft". reference_compat: also write adapters of the pooling head as the original does; they
    change nothing (B = 0). UserError: unknown format or dtype, no space, a folder that holds something else.
    """
    if format not in FORMATS:
        raise UserError(f"unknown adapter format {format!r}{choose_from(format, FORMATS)}")
    if dtype not in PRECISIONS:
        raise UserError(f"adapters in {dtype!r}{choose_from(dtype, PRECISIONS)}")
    arrays = {name: array.astype(FLOATS[dtype]) for name, array in state_dict(adapter, reference_compat).items()}
    if format == "original":
        write_content(path, {"config": describe(adapter), "state_dict": arrays})
    else:
        _write_peft(Path(path), adapter, arrays, reference_compat)


def state_dict(adapter: Adapter, reference_compat: bool = False) -> dict[str, np.ndarray]:
    """The arrays by the original's keys, in its order; see write_adapter for reference_compat."""
    head = {name: array for name, array in adapter.arrays.items() if name.startswith(HEAD_PREFIX)}
    lora = {name: array for name, array in adapter.arrays.items() if name not in head}
    return lora | (_pooling_head(adapter) if reference_compat else {}) | head


def _pooling_head(adapter: Adapter) -> dict[str, np.ndarray]:
    """Adapters of the pooling head's linear layers: A as in peft, B zero."""
    width = adapter.hidden_size
    hidden = adapter.arrays.get(f"{TOWER_PREFIX}encoder.layers.0.mlp.fc1.lora_B.default.weight", np.empty((width, 0)))
    names = "|".join(describe(adapter)["lora_target_modules"])
    pattern = replace(adapter.config, targets=rf"head\..*({names})")
    shapes = adapter_keys(_linears(width, hidden.shape[0], POOLING), pattern)
    return dict(initial_weights("aesthetic", {TOWER_PREFIX + name: shape for name, shape in shapes.items()}))


def _write_peft(folder: Path, adapter: Adapter, arrays: Mapping[str, np.ndarray], reference_compat: bool) -> None:
    known = {PEFT_CONFIG, PEFT_HEAD, *PEFT_FILES}
    if folder.exists() and not (folder.is_dir() and {entry.name for entry in folder.iterdir()} <= known):
        raise UserError(f"{folder}: exists and holds files that belong to no adapter; choose another name")
    targets = describe(adapter)["lora_target_modules"] if reference_compat else adapter.config.targets
    settings = {**_PLAIN, "task_type": None, "r": adapter.config.r, "lora_alpha": _whole(adapter.config.alpha),
                "lora_dropout": adapter.config.dropout, "target_modules": targets, "inference_mode": True,
                "init_lora_weights": True, "base_model_name_or_path": adapter.model_name or None,
                "auto_mapping": {"base_model_class": "SiglipVisionModel",
                                 "parent_library": "transformers.models.siglip.modeling_siglip"}}
    prefix = TOWER_PREFIX.partition(".")[0] + "."
    lora = {name.removeprefix(prefix).replace(".default.", "."): array for name, array in arrays.items()
            if not name.startswith(HEAD_PREFIX)}
    head = {name: array for name, array in arrays.items() if name.startswith(HEAD_PREFIX)}
    with whole_folder(folder) as writing:
        write_weights(writing / PEFT_FILES[0], lora, {"format": "pt"})
        write_weights(writing / PEFT_HEAD, head, {"format": "pt", **_hash(adapter)})
        write_file(writing / PEFT_CONFIG, json.dumps(settings, indent=2) + "\n")
