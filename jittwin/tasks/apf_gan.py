"""Training APF-GAN: progressive pre-training, then augmented fine-tuning, on either twin.

doi 10.1007/s41095-023-0357-1. The defaults are the published recipe: 180 epochs that grow from
48x64 to 384x512 pixels with a VGG loss, then 130 epochs at full size with noise guided by the
labels, differentiable augmentation and an Inception loss.
"""
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from jittwin import imaging
from jittwin.checkpoints.find import read_network
from jittwin.checkpoints.store import Checkpoints
from jittwin.classes import colour_label
from jittwin.data.landscape import LandscapeDataset
from jittwin.data.loader import Loader
from jittwin.data.pure import PureDictionary
from jittwin.data.synthetic.landscapes import SyntheticLandscapes
from jittwin.draws import Draws
from jittwin.engine.schedule import linear
from jittwin.engine.task import Phase, Plain, RunConfig, StepContext, joint_batch
from jittwin.errors import UserError
from jittwin.models.apf_gan import (
    AUGMENTATIONS,
    MULTIPLE,
    Augmentation,
    ModelConfig,
    Modulation,
    Semantics,
    Stage,
    stage,
)
from jittwin.models.apf_gan_keys import COUNTERS, HEADS, SEG_NOISE
from jittwin.models.perceptual import load_perceptual
from jittwin.weights.initial import initial_weights

PHOTOGRAPH = 4 / 3  # width over height of the challenge's photographs and of the built-in scenes
BATCH_SIZES = {"pretrain": "batch_size", "finetune": "finetune_batch_size"}   # setting by phase
SAMPLES = 4  # label maps in a picture grid
VGG_PIXELS, INCEPTION_PIXELS = 16, 75  # least height and width: smaller pictures vanish in the networks' poolings


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Settings of an APF-GAN run; the defaults are the published ones."""

    PRESETS: ClassVar[dict[str, dict]] = {
        "reference": {},
        # Runs every stage of the recipe within minutes on two cores.
        "tiny": {"ngf": 8, "ndf": 8, "spade_hidden": 16, "load_size": 176, "crop_size": 128, "aspect_ratio": 1.0,
                 "batch_size": 4, "finetune_batch_size": 4, "pg_niter": 12, "pretrain_epochs": 20, "epochs": 22,
                 "synthetic_images": 64, "lr": 1e-3, "ttur": False, "save_epochs": 10,
                 "noise": "shared", "log_every": 8},
    }
    ADDED_LATER: ClassVar[tuple[str, ...]] = (*RunConfig.ADDED_LATER, "ignore")
    FREE_TO_CHANGE: ClassVar[tuple[str, ...]] = (*RunConfig.FREE_TO_CHANGE, "modulation")
    TRAINS_IN: ClassVar[tuple[str, ...]] = ("float32",)     # the networks have no autocast

    phase: Literal["both", "1", "2"] = "both"
    start_weights: str | None = None      # networks of the end of phase 1, for phase=2
    # Data. Without a folder, the built-in generator draws `synthetic_images` scenes.
    synthetic_images: int = 256
    removal_list: str | None = None
    ignore: str | None = None             # VALUE=CLASS for values of label maps that are no class, such as 255=other
    load_size: int = 572                  # width after scaling, pixels
    crop_size: int = 512                  # width of a training sample, pixels
    aspect_ratio: float = 4 / 3           # width over height
    flip: bool = True
    workers: int = 0                      # decoding threads; 0: min(4, cores)
    # Networks.
    ngf: int = 64
    ndf: int = 64
    num_D: int = 4
    spade_hidden: int = 128
    seg_noise_kernel: int = 1
    modulation: Modulation = "auto"       # the way to compute what depends on the labels alone; changes the speed only
    # Schedule, in epochs over the whole run.
    pg_niter: int = 180                   # growing ends here
    pretrain_epochs: int = 180            # phase 1 ends here
    epochs: int = 310                     # phase 2 ends here
    batch_size: int = 10
    finetune_batch_size: int = 5
    save_epochs: int = 20
    finetune_save_epochs: int = 1         # every epoch of phase 2 is saved, because FID chooses the best one later
    # Optimization: Adam. ttur, the two time-scale update rule (arXiv 1706.08500): half the rate for G, double for D.
    lr: float = 2e-4
    ttur: bool = True
    decay_epochs: int = 0                 # the rates fall linearly to 0 over the last epochs of the run
    beta1: float = 0.0
    beta2: float = 0.9
    lambda_feat: float = 10.0
    lambda_perceptual: float = 10.0
    # Phase 1 compares VGG features, phase 2 Inception features, where weights are given.
    vgg_weights: str | None = None
    inception_weights: str | None = None
    random_perceptual: bool = False       # use untrained networks instead of no loss; logged with "(random)"
    use_seg_noise: bool = True            # phase 2
    diff_aug: tuple[Augmentation, ...] = AUGMENTATIONS              # phase 2, in this order
    noise: Literal["device", "shared"] = "device"   # shared: both twins see the same seg-noise
    semantics: Semantics = field(default_factory=Semantics)

    def model(self) -> ModelConfig:
        return ModelConfig(ngf=self.ngf, ndf=self.ndf, crop_size=self.crop_size, aspect_ratio=self.aspect_ratio,
                           num_D=self.num_D, pg_niter=self.pg_niter, spade_hidden=self.spade_hidden,
                           seg_noise_kernel=self.seg_noise_kernel, modulation=self.modulation, semantics=self.semantics)


def phases(config: Config) -> list[Phase]:
    """The phases that the settings ask for."""
    first = Phase("pretrain", 1, config.pretrain_epochs)
    second = Phase("finetune", config.pretrain_epochs + 1, config.epochs, config.finetune_save_epochs)
    return {"both": [first, second] if config.epochs > config.pretrain_epochs else [first],
            "1": [first], "2": [second]}[config.phase]


def check(config: Config) -> None:
    """UserError when settings contradict each other."""
    config.model().validate()
    if config.pg_niter > config.pretrain_epochs:
        raise UserError(f"pg_niter={config.pg_niter} is after pretrain_epochs={config.pretrain_epochs}: "
                        "growing must end within phase 1")
    if config.phase == "2" and config.epochs <= config.pretrain_epochs:
        raise UserError(f"epochs={config.epochs} must be above pretrain_epochs={config.pretrain_epochs}: "
                        "phase 2 would have no epoch")
    check_perceptual_size(config)


def check_perceptual_size(config: Config) -> None:
    """UserError when the pictures are too small for the poolings of a perceptual network."""
    model, second = config.model(), phases(config)[-1].name == "finetune"
    halvings = model.num_D - 1 - stage(1, model.pg_niter, model.num_D).level
    losses = [("VGG", "vgg_weights", config.vgg_weights, config.phase != "2", VGG_PIXELS, halvings),
              ("Inception", "inception_weights", config.inception_weights, second, INCEPTION_PIXELS, 0)]
    for name, key, weights, used, needed, halvings in losses:
        height, width = (side >> halvings for side in model.size)
        if used and (weights or config.random_perceptual) and min(height, width) < needed:
            raise UserError(f"the {name} loss needs {needed} pixels a side, but its smallest pictures have "
                            f"{width}x{height} with crop_size={config.crop_size}: raise crop_size, or do not set "
                            + (key if weights else "random_perceptual"))


class Task(Plain):
    """Training of APF-GAN; see jittwin.engine.task.Task for the protocol.

    It takes no measures while training: `jittwin select` chooses a checkpoint by FID afterwards.
    """

    def __init__(self, config: Config, backend, data_dir: str | None, out_dir: Path):
        check(config)
        self.config, self.backend, self.model = config, backend, config.model()
        self.phases = phases(config)
        self.ema_modules = ("E", "G")
        self.modules, self.optimizers, self.objective = {}, {}, None
        if config.phase == "2" and not config.start_weights and not Checkpoints(out_dir).latest():
            raise UserError("phase=2 starts from the networks of phase 1: give start_weights=FOLDER "
                            "(a checkpoint folder, or PREFIX of PREFIX_net_G.pkl), or use phase=both")
        self.dataset = self.open_data(data_dir)
        self.look_ahead()
        self.pure_file = Path(out_dir) / "pure_img.npz"
        self.pure = self.pure_dictionary(data_dir)

    def open_data(self, data_dir):
        config = self.config
        options = dict(crop_size=config.crop_size, aspect_ratio=config.aspect_ratio,
                       vertical_crop=config.semantics.vertical_crop, flip=config.flip, multiple=MULTIPLE)
        if data_dir is None:
            height = max(round(config.load_size / PHOTOGRAPH), self.model.size[0])
            return SyntheticLandscapes(config.synthetic_images, config.load_size, height, config.seed, **options)
        found = LandscapeDataset(data_dir, load_size=config.load_size, removal_list=config.removal_list,
                                 ignore=config.ignore, **options)
        self.notes += found.notes
        return found

    def look_ahead(self) -> None:
        """UserError now for what would stop phase 2 later: a batch that is too large, weights that do not fit."""
        config = self.config
        for phase in self.phases:
            key = BATCH_SIZES[phase.name]
            size, processes = self.batch_size(phase), self.backend.world_size
            if not 1 <= size <= len(self.dataset):
                times = f" times {processes} processes" if size != getattr(config, key) else ""
                raise UserError(f"{key}={getattr(config, key)}{times}: must be 1..{len(self.dataset)}, "
                                "the number of samples")
        if len(self.phases) > 1 and config.inception_weights:
            load_perceptual(self.backend, "inception", config.inception_weights)

    def pure_dictionary(self, data_dir) -> PureDictionary | None:
        """The photographs of single-class label maps, for `jittwin generate --pure`; None where the run has them."""
        if self.backend.rank or self.pure_file.exists() and Checkpoints(self.pure_file.parent).latest():
            return None
        return PureDictionary.build(data_dir or self.dataset, self.model.size, self.config.ignore)

    def run_begun(self) -> None:
        if self.pure:
            self.pure.save(self.pure_file)
            self.pure = None

    def loader(self) -> Loader:
        config, phase, backend = self.config, self.phase, self.backend
        return Loader(self.dataset, self.batch_size(phase), config.seed, config.workers,
                      first_epoch=phase.first_epoch, rank=backend.rank, processes=backend.world_size)

    def batch_size(self, phase: Phase) -> int:
        return joint_batch(self.config, self.backend, getattr(self.config, BATCH_SIZES[phase.name]))

    @property
    def finetuning(self) -> bool:
        return self.phase.name == "finetune"

    def enter_phase(self, phase: Phase) -> None:
        """Phase 2 takes the networks over, adds the noise parameters and restarts Adam."""
        modules, optimizers, config = self.modules, self.optimizers, self.config
        self.phase = phase
        self.modules = self.build_modules()
        for name, module in self.modules.items():
            self.initialise(name, module, modules.get(name))
        self.optimizers = self.build_optimizers()
        if optimizers and config.semantics.phase2_optimizer == "continue":
            self.carry_moments(optimizers)
        self.objective = self.backend.build(
            "apf_gan.objective", self.model, *(self.modules[name] for name in "EGD"),
            perceptual_loss=self.perceptual(), augmentation=config.diff_aug if self.finetuning else (),
            lambda_feat=config.lambda_feat, lambda_perceptual=config.lambda_perceptual)

    def build_modules(self) -> dict:
        build, finetuning = self.backend.build, self.finetuning
        return {"E": build("apf_gan.encoder", self.model),
                "G": build("apf_gan.generator", self.model, seg_noise=finetuning and self.config.use_seg_noise,
                           heads=not finetuning),
                "D": build("apf_gan.discriminator", self.model)}

    def build_optimizers(self) -> dict:
        """One optimizer for encoder and generator together, one for the discriminators."""
        config, backend = self.config, self.backend
        parameters = {"G": {f"{name}.{key}": value for name in "EG"
                            for key, value in backend.parameters(self.modules[name]).items()},
                      "D": backend.parameters(self.modules["D"])}
        return {name: backend.optimizer("adam", [{"params": parameters[name], "lr": rate}],
                                        betas=(config.beta1, config.beta2), form=config.semantics.adam)
                for name, rate in self.rates(self.phase.first_epoch).items()}

    def rates(self, epoch: int) -> dict[str, float]:
        """Learning rates of an epoch, by optimizer."""
        config, decay = self.config, self.config.decay_epochs
        rate = config.lr * (linear(config.epochs - decay, config.epochs)(epoch - 1) if decay else 1.0)
        return {"G": rate / 2, "D": rate * 2} if config.ttur else {"G": rate, "D": rate}

    def initialise(self, name: str, module, before) -> None:
        """Load initial weights, then those of the previous phase or of start_weights over them."""
        backend, config = self.backend, self.config
        shapes = {key: value.shape for key, value in backend.state_numpy(module).items()}
        backend.load_numpy(module, initial_weights(config.semantics.initial_rule, shapes, config.seed))
        if before is not None:
            backend.load_numpy(module, backend.state_numpy(before), (SEG_NOISE,), (HEADS,))
        elif config.start_weights and self.finetuning:
            arrays, source = read_network(config.start_weights, name)
            try:
                backend.load_numpy(module, arrays, (SEG_NOISE,), (HEADS, COUNTERS))
            except UserError as error:
                raise UserError(f"{source}: {error}") from error
        backend.train_mode(module, True)

    def carry_moments(self, before: dict) -> None:
        """Copy Adam's moments of the previous phase for the parameters that this phase still has."""
        backend = self.backend
        for name, optimizer in self.optimizers.items():
            carried = {key: value for key, value in backend.optimizer_state(before[name]).items()
                       if not fnmatch(key, f"G.{HEADS}")}
            backend.load_optimizer_state(optimizer, backend.optimizer_state(optimizer) | carried)

    def perceptual(self):
        """(name, network, layer weights) for the objective, or None."""
        config = self.config
        kind, path = ("inception", config.inception_weights) if self.finetuning else ("vgg", config.vgg_weights)
        loaded = load_perceptual(self.backend, kind, path, config.random_perceptual, config.semantics, config.seed)
        self.provenance = f"{loaded.name}: {loaded.provenance}" if loaded else "none"
        return loaded and loaded[:3]

    def begin_epoch(self, epoch: int) -> None:
        for name, rate in self.rates(epoch).items():
            self.backend.set_lr(self.optimizers[name], rate)
        if self.stage(epoch).full:
            self.modules["G"].drop_heads()

    def stage(self, epoch: int) -> Stage:
        return stage(epoch, self.model.pg_niter, self.model.num_D)

    def noise(self, draws: Draws):
        """The generator's noise, a function of (index, shape): equal in both twins, or drawn by the device."""
        if self.config.noise == "device":
            return lambda index, shape: self.backend.randn(shape)
        return lambda index, shape: self.backend.asarray(draws.normal(f"seg_noise.{index}", shape))

    def train_step(self, batch: dict, context: StepContext) -> dict:
        """One step of E and G, then one step of D on a newly generated picture."""
        backend, config, objective = self.backend, self.config, self.objective
        label, real = backend.asarray(batch["label"]), backend.asarray(batch["image"])
        at = self.stage(context.epoch)
        losses = {}
        for name, compute in (("G", objective.generator_losses), ("D", objective.discriminator_losses)):
            draws = context.draws.within(name)
            terms = compute(label, real, at, draws, self.noise(draws))
            loss = sum(terms.values()) * context.loss_factor
            backend.step(self.optimizers[name], loss, config.clip, context.accumulate)
            losses.update(terms)
        return losses

    def sample(self, context: StepContext) -> np.ndarray:
        """Rows of label map, photograph and generated picture, at the current size of progressive training."""
        backend = self.backend
        fixed = [self.dataset.get(index, Draws(self.config.seed)) for index in self.sample_indices()]
        label = backend.asarray(np.stack([one["label"] for one in fixed]))
        for name in "EG":
            backend.train_mode(self.modules[name], False)
        with backend.no_grad():
            fake = backend.numpy(self.objective.generate(label, self.stage(context.epoch), self.noise(context.draws)))
        for name in "EG":
            backend.train_mode(self.modules[name], True)
        rows = [[colour_label(one["label"]), imaging.to_uint8(one["image"]),
                 imaging.resize_image(imaging.to_uint8(picture), one["label"].shape)]
                for one, picture in zip(fixed, fake)]
        return imaging.grid(rows, captions=["label map", "photograph", f"generated, epoch {context.epoch}"])

    def sample_indices(self) -> list[int]:
        """A few samples spread over the data set."""
        count = min(SAMPLES, len(self.dataset))
        if count * (count + 1) > len(self.dataset):
            return list(range(count))
        # "+ i" because the built-in scenes repeat their kinds periodically.
        return [i * len(self.dataset) // count + i for i in range(count)]

    def checkpoint_metadata(self) -> dict:
        return {"model": "apf_gan", "perceptual": self.provenance,
                "config": {**asdict(self.model), "phase": self.phase.name}}
