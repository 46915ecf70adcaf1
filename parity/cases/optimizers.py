"""The case of the optimizers, on their own."""
from parity.case import Case


class Optimizers(Case):
    """Every rule of the twins' optimizers, on a few small parameters; the last is a parameter group of its own."""

    name = "optimizers"
    modes = ("train",)
    levels = ("L5",)
    parameters = {"a": (6, 50), "b": (40,), "c": (30,)}
    rules = {
        "sgd": {"kind": "sgd"},
        "sgd momentum": {"kind": "sgd", "settings": {"momentum": 0.9}},
        "sgd nesterov decay": {"kind": "sgd", "settings": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}},
        "sgd accumulated": {"kind": "sgd", "settings": {"momentum": 0.9}, "parts": 3},
        "adam": {"kind": "adam"},
        "adam decay": {"kind": "adam", "settings": {"betas": [0.5, 0.9], "weight_decay": 0.1}},
        "adam without momentum": {"kind": "adam", "settings": {"betas": [0.0, 0.9]}},
        "adam accumulated clipped": {"kind": "adam", "clip": 2.0, "parts": 3},
        "adamw": {"kind": "adamw"},
        "adamw decay clipped": {"kind": "adamw", "settings": {"weight_decay": 0.2}, "clip": 1.0},
        "sgd scaled clipped": {"kind": "sgd", "settings": {"momentum": 0.9}, "clip": 2.0, "scaler": True},
        "adamw scaled accumulated": {"kind": "adamw", "parts": 2, "scaler": True},
        "jittor": {"kind": "adam", "settings": {"form": "jittor"}},
        "jittor decay clipped": {"kind": "adam", "clip": 1.0, "settings": {
            "form": "jittor", "betas": [0.0, 0.9], "weight_decay": 0.1}},
    }


CASES = (Optimizers(),)
