"""The settings of training of the detector of structural distortion."""
from dataclasses import dataclass
from typing import ClassVar, Literal

from jittwin.engine.task import RunConfig
from jittwin.errors import UserError
from jittwin.models.distortion import TRUNK
from jittwin.models.distortion_losses import DistortionLosses, parse_terms

LORA, ALL = "lora", "all"   # names that the lists of frozen parameters know besides parts of keys
HEADS = ("heatmap_predictor", "score_predictor")


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Settings of a run; the defaults are those of the original's command for full fine-tuning."""

    PRESETS: ClassVar[dict[str, dict]] = {
        "reference": {},
        "lora": {"batch_size": 3, "warmup_epochs": 0, "lora_rank": 128, "score_loss": "mse"},
        # Learns from nothing within some minutes on one core, if what is planted is as easy to see as by default.
        "small": {"random_model": True, "size": "small", "text_mode": "fast", "semantics": "repaired", "maps": "native",
                  "distortions": "glaring", "synthetic_images": 320, "val_split": 64, "batch_size": 8,
                  "warmup_epochs": 0, "epochs": 9, "lr": 2e-3, "trunk_lr_factor": 1.0, "save_epochs": 9,
                  "log_every": 8},
        # Trains within about a minute on two cores and needs no file.
        "tiny": {"random_model": True, "size": "tiny", "side": 96, "head_width": 64, "text_mode": "fast",
                 "semantics": "repaired", "maps": "native", "distortions": "conspicuous",
                 "synthetic_images": 160, "val_split": 32, "batch_size": 8, "warmup_batch_size": 16,
                 "warmup_epochs": 1, "epochs": 12, "lr": 2e-3, "trunk_lr_factor": 0.5, "save_epochs": 4,
                 "log_every": 1},
    }
    FREE_TO_CHANGE: ClassVar[tuple[str, ...]] = (
        *RunConfig.FREE_TO_CHANGE, "trunk", "weights", "tokenizer", "pseudo_labels", "workers", "val_batch_size",
        "gradient_checkpointing")
    ADDED_LATER: ClassVar[tuple[str, ...]] = ("global_batch", "joint_norm")
    save_epochs: int = 5
    keep_epochs: int = 1000                # the best checkpoint and the newest are kept
    keep_optimizers: Literal["all", "newest"] = "newest"
    ema_form: Literal["rising", "constant"] = "constant"
    # Network. It begins with Florence-2, with a detector that was trained before, or with random_model from nothing.
    trunk: str | None = None              # hub folder or file of Florence-2
    weights: str | None = None            # a detector: a file of ours, or of the original
    tokenizer: str | None = None          # folder of BART's vocabulary, where it is not beside the weights
    random_model: bool = False
    size: Literal["large", "base", "small", "tiny"] = "large"      # of a random model
    score_head: Literal["linear", "linear_cls", "linear2", "linear2_cls", "conv"] = "linear"
    mask_head: Literal["concat", "last", "concat_cls"] = "concat"
    side: int | None = None               # of pictures and maps in pixels; none: 768, or that of the weights
    head_width: int | None = None         # of the widest layer of the mask head; none: as published
    text_mode: Literal["reference", "fast"] = "reference"
    text_length: int | None = None        # tokens; none: that of the mode, or what the trunk has positions for
    gradient_checkpointing: bool = False
    # Data. Without a folder, the built-in generator draws `synthetic_images` pictures.
    synthetic_images: int = 200
    # What is planted; conspicuous: what shows at any size; glaring: what an untrained network learns soonest.
    distortions: Literal["all", "conspicuous", "glaring"] = "all"
    val_split: int = 0                    # pictures held out
    pseudo_labels: str | None = None      # predictions for the part val to validate with, as the original does
    negatives: int = 0                    # photographs of Flickr30k without distortion
    maps: Literal["512", "native"] = "512"      # 512: maps are resized to this side first, as the original stores them
    augment: bool = True
    flip: float = 0.5
    workers: int = 0                      # decoding threads; 0: min(4, cores)
    # Optimization: AdamW; constant rates in the warm-up, then half a cosine.
    batch_size: int = 4
    warmup_batch_size: int = 32
    val_batch_size: int = 16
    # Several processes: the heads normalise by the whole batch, not by each process's pictures as in the original.
    joint_norm: bool = False
    warmup_epochs: int = 20
    epochs: int = 50                      # after the warm-up
    lr: float = 1e-4                      # of the heads
    trunk_lr_factor: float = 0.1          # the trunk's rate, relative to lr
    lora_lr: float | None = None          # of LoRA; none: the trunk's
    min_lr: float = 0.0
    mask_loss: str = "dice-mse"
    score_loss: str = "mse-plcc-srcc"
    mask_loss_weight: float = 1.0
    score_loss_weight: float = 1.0
    semantics: Literal["reference", "repaired"] = "reference"     # of the score's losses
    lora_rank: int = 0                    # 0: no LoRA
    # After the warm-up, parameters whose names contain one of `freeze` are frozen (all if it is empty), and those whose
    # names contain one of `unfreeze` are trained; "all" is every name. none: all, or with LoRA its own and the heads.
    freeze: tuple[str, ...] = ()
    unfreeze: tuple[str, ...] | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("epochs", "synthetic_images", "val_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("warmup_epochs", "val_split", "negatives", "lora_rank"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        for name in ("batch_size", "warmup_batch_size"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 2: the heads normalise over a batch")
        for name in ("lr", "trunk_lr_factor", "lora_lr", "min_lr"):
            if not 0 <= (getattr(self, name) or 0) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must not be negative or infinite")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip={self.flip} must be from 0 to 1, a probability")
        if self.lora_rank and self.warmup_epochs and not self.weights:
            raise ValueError(f"warmup_epochs={self.warmup_epochs} with lora_rank={self.lora_rank} needs a trained "
                             "detector: set weights=FILE, or warmup_epochs=0")
        given = [name for name in ("trunk", "weights", "random_model") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{given[0]}={getattr(self, given[0])} and {given[1]}={getattr(self, given[1])}: give one "
                             "of the two")
        if self.val_split and self.pseudo_labels:
            raise ValueError(f"val_split={self.val_split} and pseudo_labels={self.pseudo_labels}: give one of the two")
        losses = self.losses
        if "bce" in losses.mask and self.mask_head.endswith("_cls"):
            raise ValueError(f"mask_loss={self.mask_loss}: the term bce needs one logit for each pixel, which "
                             f"mask_head={self.mask_head} does not have; choose another of the two")

    @property
    def losses(self) -> DistortionLosses:
        try:
            terms = [parse_terms(getattr(self, name), name) for name in ("mask_loss", "score_loss")]
            return DistortionLosses(*terms, self.mask_loss_weight, self.score_loss_weight, self.semantics)
        except UserError as error:
            raise ValueError(str(error)) from error

    def trains(self, name: str) -> bool:
        """Whether a parameter is trained after the warm-up."""
        unfreeze = self.unfreeze
        if unfreeze is None:
            unfreeze = (LORA, *HEADS) if self.lora_rank else (ALL,)
        if ALL in unfreeze or any(part in name for part in unfreeze):
            return True
        if not self.freeze or any(part in name for part in self.freeze):
            return False
        # LoRA and a warm-up leave the rest of the trunk frozen.
        return not name.startswith(TRUNK) or ".lora_" in name or not (self.lora_rank or self.warmup_epochs)
