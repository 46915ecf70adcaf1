"""Training the aesthetic scorer without a framework: the original's numbers, its files, its flags, its mistakes."""
import importlib.util
import json
import os
import shlex
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tower import Shapes, random_tower, tower_shapes

from jittwin import config as settings
from jittwin import training
from jittwin.checkpoints.adapters import Adapter, describe, write_adapter
from jittwin.checkpoints.store import Checkpoints
from jittwin.data.ava import BAD_IDS, AvaIndex, write_bad_ids
from jittwin.data.ava_split import make_split
from jittwin.data.loader import Loader
from jittwin.data.synthetic.rated import write_mini_ava
from jittwin.engine.trainer import Trainer
from jittwin.errors import UserError
from jittwin.metrics.ratings import quality_metrics
from jittwin.models.aesthetic import AestheticConfig, distribution, trainable_keys
from jittwin.models.lora import LoraConfig
from jittwin.models.siglip import PRESETS, read_tower
from jittwin.predictors.aesthetic import read_scorer
from jittwin.tasks import aesthetic_files as files
from jittwin.tasks.aesthetic import BEST, Config, Task, rate_factor, rise_again
from jittwin.weights import read_content, write_content, write_weights
from jittwin.weights.initial import initial_weights

SCRIPT = Path(__file__).parents[2] / "scripts/train_aesthetic_lora.py"
TINY = AestheticConfig(PRESETS["tiny"], LoraConfig(4, 8))
PATHS = "--model_name m --image_dir pictures --ava_txt_path AVA.txt"


def test_the_sizes_of_a_whole_run_of_ava():
    """255,500 pictures with the original's settings."""
    config = Config()
    split = make_split(SimpleNamespace(ids=[str(number) for number in range(255_500)]))
    assert (len(split.train_ids), len(split.test_ids)) == (229_950, 25_550)
    batches = Loader(split.train_ids, config.batch_size)
    assert len(batches) == 4790 and len(Loader(split.test_ids, config.batch_size, drop_last=False)) == 533
    trainer = Trainer(SimpleNamespace(partial_steps=True, least={}), None, config, "run", {})
    assert trainer.steps_per_epoch(batches) == 2395
    assert rate_factor(len(batches), config)[1:] == (47_900, 4790)


def test_rates_warm_up_from_zero_and_fall_to_zero():
    factor, total, warm = rate_factor(4790, Config())
    assert (factor(0), factor(1), factor(warm), factor(total)) == (0.0, 1 / 4790, 1.0, 0.0)
    assert factor(warm + (total - warm) // 2) == pytest.approx(0.5, abs=1e-4)
    assert factor(total + 20) == 0.0
    for sizes in ((47_900, 4790, 47_920), (20, 2, 29), (20, 2, 60), (3, 0, 4)):
        last = sizes[2]
        rates = [0.5 * (1 + np.cos(np.pi * (step - sizes[1]) / max(1, sizes[0] - sizes[1])))    # as the original's
                 for step in range(sizes[0], last + 1)]
        assert rise_again(*sizes) == pytest.approx(max(rates), abs=1e-9)
    at = 12_345
    assert factor(at) == 0.5 * (1 + np.cos(np.pi * (at - warm) / (total - warm)))
    assert rate_factor(2, Config(warmup_ratio=0, epochs=1))[0](0) == 1.0
    assert rate_factor(1, Config())[1] == 0      # an epoch of one left-over batch: the factor is still defined
    assert rate_factor(1, Config())[0](3) == 0.0


def test_defaults_are_those_of_the_original_script():
    found = settings.flat(Config())
    expected = dict(lora_r=32, lora_alpha=64, lora_dropout=0.1, batch_size=48, accumulation=2, epochs=20, lr=2e-4,
                    head_lr=5e-4, weight_decay=0.01, warmup_ratio=0.1, seed=42, clip=1.0, emd_r=2, best="emd",
                    train_split=0.9, split="random", max_samples=None, partial_steps=True)
    assert {key: found[key] for key in expected} == expected
    readme = settings.resolve(Config, overrides=["preset=readme"])
    assert (readme.lora_r, readme.lora_alpha) == (16, 32)


@pytest.mark.parametrize("setting, message", [
    ("precision=float16", "precision=float16 cannot be trained with"), ("batch_size=0", "batch_size=0 must be"),
    ("lr=-1", "lr=-1.0 must not be negative"), ("head_lr=inf", "head_lr=inf must not be negative or infinite"),
    ("max_bad=-1", "max_bad=-1.0 must be from 0 to 1"), ("max_bad=nan", "max_bad=nan must be"),
    ("lora_alpha=nan", "LoRA alpha nan"), ("lora_alpha=inf", "LoRA alpha inf"), ("warmup_ratio=2", "warmup_ratio=2.0 must be from 0 to 1"),
    ("lora_r=0", "LoRA rank 0"), ("emd_r=3", "emd_r: '3' is not legal"), ("best=srrc", "did you mean 'srcc'")])
def test_settings_that_make_no_sense(setting, message):
    with pytest.raises(UserError, match=message):
        settings.resolve(Config, overrides=[setting])


@pytest.mark.parametrize("changes, message", [
    ([], "model is missing: set model=FOLDER"), (["model=/nowhere"], "/nowhere: not found; give a weights file, or a hub folder"),
    (["model=m", "random_model=true"], "give one of the two"),
    (["random_model=true", "architecture=tinny"], "architecture=tinny.*did you mean 'tiny'"),
    (["preset=tiny", "synthetic_images=1"], "synthetic_images=1: too few"),
    (["preset=tiny", "batch_size=145"], "batch_size=145: must be 1..144"),
    (["preset=tiny", "batch_size=73"], "an epoch has 1 batches, fewer than accumulation=2"),
    (["preset=tiny", "workers=-1"], "workers=-1: must be at least 1, or 0")])
def test_mistakes_leave_nothing_behind(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        Task(settings.resolve(Config, overrides=["train_split=0.9", *changes]), Shapes(), None, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_decides_comes_first(tmp_path):
    for best, order in (("emd", ["emd", "srcc"]), ("srcc", ["srcc", "emd"]), ("mae", ["mae", "emd", "srcc"])):
        config = settings.resolve(Config, overrides=["preset=tiny", f"best={best}"])
        assert list(Task(config, Shapes(), None, tmp_path).best) == order


@pytest.fixture
def hub(tmp_path):
    """A hub folder with a tiny tower."""
    folder, sizes = tmp_path / "siglip2-tiny", PRESETS["tiny"]
    folder.mkdir()
    vision = {key: value for key, value in asdict(sizes).items() if key != "head"}
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip", "vision_config": vision}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"resample": 2}))
    write_weights(folder / "model.safetensors", {f"vision_model.{key}": array
                                                 for key, array in random_tower(sizes, 1).items()})
    return folder


def test_a_tower_from_a_folder_is_named_and_remembered(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = settings.resolve(Config, overrides=["preset=tiny", "random_model=false", f"model=./{hub.name}"])
    assert Task(relative, Shapes(), None, tmp_path / "run").tower.name == str(hub)
    changes = ["preset=tiny", "random_model=false", f"model={hub}"]
    task = Task(settings.resolve(Config, overrides=changes), Shapes(), None, tmp_path / "run")
    assert task.inputs() == {"tower": task.tower.sha256}
    assert task.checkpoint_metadata()["adapter"]["model_name"] == str(hub)
    assert task.checkpoint_metadata()["adapter"]["tower_sha256"] == task.tower.sha256
    untrained = Task(settings.resolve(Config, overrides=["preset=tiny", "seed=5"]), Shapes(), None, tmp_path / "run")
    assert untrained.inputs() == {} and untrained.tower.name == "random:tiny:5"
    assert untrained.checkpoint_metadata()["adapter"]["model_name"] == "random:tiny:5"
    assert "tower_sha256" not in untrained.checkpoint_metadata()["adapter"]


class Pass(Shapes):
    """Stands for a backend: arrays stay arrays, and the model's mode is noted."""

    def __init__(self):
        self.modes = []

    def asarray(self, array):
        return array

    numpy = asarray

    def train_mode(self, module, flag):
        self.modes.append(flag)

    def no_grad(self):
        return nullcontext()


def test_measures_of_a_three_way_split(tmp_path):
    """A scorer that knows the votes of the brightest: every picture counts once, whatever the batches."""
    write_mini_ava(tmp_path / "ava", 30, 64, 48, seed=3)
    config = settings.resolve(Config, overrides=["preset=tiny", "split=three-way", "train_split=0.4", "batch_size=4"])
    task = Task(config, Pass(), str(tmp_path / "ava"), tmp_path / "run")
    assert [len(part) for part in (task.training, task.held_out, task.test)] == [12, 9, 9]

    def model(pixels):
        return np.outer(pixels.mean((1, 2, 3)), np.arange(10)) / 10

    task.modules = {"model": model}
    measures = task.evaluate(None)
    assert task.backend.modes == [False, True] * 2
    for prefix, part in (("", task.held_out), ("test_", task.test)):
        samples = [part.get(index) for index in range(9)]
        voted = np.stack([sample["target"] for sample in samples])
        predicted = distribution(model(np.stack([sample["pixels"] for sample in samples])))
        assert {key: measures[prefix + key] for key in BEST} == pytest.approx(quality_metrics(predicted, voted))
        training = np.mean([task.training.get(index)["target"] for index in range(12)], 0, np.float64)
        assert measures[f"{prefix}floor_emd"] == pytest.approx(
            quality_metrics(np.tile(training, (9, 1)), voted)["emd"])
    assert measures["emd"] != measures["test_emd"]
    picture = task.sample(None)
    assert picture.dtype == np.uint8 and picture.shape[1] > 4 * 160 and picture.shape[0] > 2 * 160


@pytest.mark.parametrize("change, message", [
    ("batch_size=37", "batch_size=37: must be 1..36"), ("batch_size=19", "an epoch has 1 batches"),
    ("workers=-1", "workers=-1"), ("seed=-1", "seed=-1: must be from 0 to 4294967295")])
def test_no_split_is_kept_where_the_settings_are_refused(tmp_path, change, message):
    write_mini_ava(tmp_path / "ava", 40, 64, 48)
    write_bad_ids(tmp_path / "ava" / BAD_IDS, AvaIndex(tmp_path / "ava"), {})
    with pytest.raises(UserError, match=message):
        Task(settings.resolve(Config, overrides=["preset=tiny", change]), Shapes(), str(tmp_path / "ava"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_training_leaves_out_is_told(tmp_path):
    folder = tmp_path / "ava"
    write_mini_ava(folder, 40, 64, 48)
    short, missing, damaged, *_ = lines = (folder / "AVA.txt").read_text().splitlines()
    (folder / "AVA.txt").write_text("\n".join([short[:20], *lines[1:]]))
    (folder / "images" / f"{missing.split()[1]}.jpg").unlink()
    (folder / "images" / f"{damaged.split()[1]}.jpg").write_bytes(b"no picture")
    config = settings.resolve(Config, overrides=["preset=tiny", "max_bad=0.1", "batch_size=11"])
    told = "\n".join(Task(config, Shapes(), str(folder), tmp_path / "run").notes)
    assert "AVA.txt: rows not used: 1 too short" in told
    assert f"1 rated pictures have no file, such as {missing.split()[1]}" in told
    assert "1 of 38 pictures cannot be decoded and are excluded: see bad_ids.txt" in told
    assert "the learning rates reach 0 after 4 of 8 steps" in told and "rise again, to 85.4% of their peak" in told  # 33 train in 3 batches of 11, two a step
    quiet = settings.resolve(Config, overrides=["preset=tiny"])
    assert Task(quiet, Shapes(), None, tmp_path / "run").notes == ()


@pytest.fixture
def written(tmp_path):
    """A checkpoint in the original's format, and what went into it."""
    rng = np.random.default_rng(0)
    arrays = {key: rng.normal(size=shape).astype(np.float32) for key, shape in trainable_keys(TINY, tower_shapes(TINY.tower)).items()}
    moments = {}
    for key, array in arrays.items():
        moments |= {f"{key}/step": np.array(14), f"{key}/exp_avg": array / 2, f"{key}/exp_avg_sq": array ** 2}
    state = {"epoch": 2, "epoch_done": True, "global_step": 14,
             "measures": {"emd": 0.25, "mse": 1.5, "mae": 1.0, "srcc": None, "plcc": 0.5, "accuracy": 1.0},
             "best": {"emd": {"checkpoint": "1", "score": 0.125}}}
    config = Config(lora_r=4, lora_alpha=8)
    shapes = files.reference_keys(TINY, tower_shapes(replace(TINY.tower, head=True)))
    files.write_checkpoint(tmp_path, arrays, moments, state, config, shapes, "name", 0.5, "0123abc")
    return SimpleNamespace(path=tmp_path / "checkpoint_epoch_2.pth", arrays=arrays, moments=moments)


def test_a_checkpoint_has_the_layout_of_the_original(written):
    content = read_content(written.path)
    assert list(content) == ["epoch", "global_step", "model_state_dict", "optimizer_state_dict",
                             "scheduler_state_dict", "metrics", "best_emd", "best_srcc", "train_config"]
    assert (content["epoch"], content["global_step"], content["best_emd"], content["best_srcc"]) == (1, 14, 0.125, None)
    assert content["metrics"].keys() == {"emd", "mse", "mae", "srcc", "plcc"} and np.isnan(content["metrics"]["srcc"])
    assert content["train_config"] == {
        "model_name": "name", "lora_r": 4, "lora_alpha": 8,
        "lora_target_modules": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"], "batch_size": 48,
        "accum_steps": 2, "num_epochs": 20, "learning_rate": 2e-4, "mlp_learning_rate": 5e-4,
        "tower_sha256": "0123abc"}      # which is not the original's
    keys = list(content["model_state_dict"])
    assert len(keys) == 2 * 6 * 2 + 6 + 6 and sum(".model.head." in key for key in keys) == 6
    layer = "vision_model.base_model.model.encoder.layers.0."
    assert keys[:12:2] == [f"{layer}{part}.lora_A.default.weight" for part in (
        "self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")]
    assert keys[-1] == "aesthetic_head.mlp.6.bias"
    optimizer = content["optimizer_state_dict"]
    assert [group["params"] for group in optimizer["param_groups"]] == [list(range(30)), list(range(30, 36))]
    assert [group["lr"] for group in optimizer["param_groups"]] == [1e-4, 2.5e-4]
    assert sorted(optimizer["state"]) == [*range(24), *range(30, 36)]   # none for the pooling head's adapters
    assert optimizer["state"][0]["step"].shape == () and optimizer["state"][0]["step"] == 14
    assert content["scheduler_state_dict"]["last_epoch"] == 14
    assert written.path.with_name("checkpoint_latest.pth").read_bytes() == written.path.read_bytes()


def test_the_whole_tower_has_the_indices_of_the_original():
    model = AestheticConfig()
    keys = list(files.reference_keys(model, tower_shapes(replace(model.tower, head=True))))
    assert len(keys) == 336 and [key.startswith("aesthetic_head") for key in keys].index(True) == 330
    assert [index for index, key in enumerate(keys) if ".model.head." in key] == list(range(324, 330))


def test_a_checkpoint_comes_back(written):
    found = files.read_other(written.path)
    assert (found.epoch, found.global_step, found.settings) == (2, 14, {"lora_r": 4, "lora_alpha": 8.0})
    assert found.measures == {"emd": 0.25, "mse": 1.5, "mae": 1.0, "srcc": None, "plcc": 0.5}
    assert found.comparable and found.best == {"emd": 0.125} and found.inputs == {"tower": "0123abc"}
    for given, expected in ((found.modules["model"], written.arrays), (found.optimizers["model"], written.moments)):
        assert given.keys() == expected.keys()
        assert all(np.array_equal(given[key], expected[key]) for key in expected)


def test_the_best_value_of_the_original_is_not_ours(written):
    """It is a mean of batch means."""
    content = read_content(written.path)
    del content["best_srcc"]            # which the original does not write
    write_content(written.path, content)
    assert not files.read_other(written.path).comparable


def test_a_best_file_of_another_program_is_kept(tmp_path):
    (tmp_path / "best_lora.pth").write_bytes(b"of the original")
    task = Task(settings.resolve(Config, overrides=["preset=tiny"]), Shapes(), None, tmp_path)
    arrays = dict(initial_weights("aesthetic", trainable_keys(TINY, tower_shapes(TINY.tower))))
    Checkpoints(tmp_path).save("1", [("model", arrays)], {"epoch": 1}, task.checkpoint_metadata())
    for _ in range(2):
        task.epoch_saved("1", {"epoch_done": False, "measures": {}, "best": {"emd": {"checkpoint": "1", "score": 1}}})
        assert (tmp_path / "best_lora_before.pth").read_bytes() == b"of the original"
        assert read_content(tmp_path / "best_lora.pth")["config"]["model_name"] == "random:tiny:42"
    resumed = Task(settings.resolve(Config, overrides=["preset=tiny"]), Shapes(), None, tmp_path)
    assert resumed.others_best is None


def test_a_parameter_without_moments_starts_anew(written):
    content = read_content(written.path)
    del content["optimizer_state_dict"]["state"][0]
    write_content(written.path, content)
    first = list(written.arrays)[0]
    moments = files.read_other(written.path).optimizers["model"]
    assert moments[f"{first}/step"] == 0 and f"{first}/exp_avg" not in moments


def test_copies_where_a_file_cannot_have_two_names(written, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    files.same_file(written.path, written.path.with_name("other.pth"))
    assert written.path.with_name("other.pth").read_bytes() == written.path.read_bytes()
    assert not list(written.path.parent.glob("*.tmp")) and not list(written.path.parent.glob(".*"))


@pytest.mark.parametrize("change", [
    lambda c: c.pop("optimizer_state_dict"), lambda c: c.update(epoch="x"), lambda c: c.update(metrics=[]),
    lambda c: c["optimizer_state_dict"]["param_groups"].pop(), lambda c: c["train_config"].pop("lora_alpha"),
    lambda c: c["optimizer_state_dict"]["param_groups"][0]["params"].pop(),
    lambda c: c["optimizer_state_dict"]["state"][1].pop("exp_avg")])
def test_another_kind_of_file_is_refused_in_one_line(written, change):
    content = read_content(written.path)
    change(content)
    write_content(written.path, content)
    with pytest.raises(UserError, match="not a checkpoint of the aesthetic training script") as error:
        files.read_other(written.path)
    assert "\n" not in str(error.value)


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Runs the script as far as the training call; returns that call's settings and keywords."""
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr(training, "train", lambda task, backend, **keywords: calls.append(
        {"task": task, "backend": backend, **keywords}) or 0)

    def call(command):
        spec = importlib.util.spec_from_file_location("train_aesthetic_lora", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.run(shlex.split(f"--device cpu {command}")) == 0
        return settings.resolve(Config, overrides=calls[-1]["overrides"]), calls.pop()
    return call


def test_the_script_has_the_constants_of_the_original(trained):
    config, call = trained(PATHS)
    assert config == Config(model="m", images="pictures", votes="AVA.txt", precision="bfloat16", workers=4,
                            log_every=50)
    assert (call["task"], call["backend"], call["data"], call["out"], call["device"]) == (
        "aesthetic", "jittor", "pictures", "./checkpoints", "cpu")
    assert "resume" not in call and "continue_from" not in call


@pytest.mark.parametrize("text, key, value", [
    ("--dataset_mode split", "split", "lists"), ("--train_list_path a", "train_list", "a"),
    ("--test_list_path b", "test_list", "b"), ("--train_split 0.8", "train_split", 0.8), ("--lora_r 16", "lora_r", 16),
    ("--lora_alpha 32", "lora_alpha", 32.0), ("--lora_dropout 0", "lora_dropout", 0.0),
    ("--batch_size 4", "batch_size", 4), ("--accum_steps 3", "accumulation", 3), ("--num_epochs 5", "epochs", 5),
    ("--learning_rate 1e-3", "lr", 1e-3), ("--mlp_learning_rate 1e-3", "head_lr", 1e-3),
    ("--weight_decay 0", "weight_decay", 0.0), ("--warmup_ratio 0.2", "warmup_ratio", 0.2),
    ("--dtype float32", "precision", "float32"), ("--num_workers 1", "workers", 1), ("--seed 7", "seed", 7),
    ("--log_interval 5", "log_every", 5), ("--max_samples 100", "max_samples", 100),
    ("--set gradient_checkpointing=true", "gradient_checkpointing", True),
    ("--lora_target_modules fc2,fc1,q_proj,k_proj,v_proj,out_proj", "lora_r", 32)])
def test_flags(trained, text, key, value):
    assert getattr(trained(f"{PATHS} {text}")[0], key) == value


@pytest.mark.parametrize("text, message", [
    ("--dtype float16", "precision=float16 cannot"), ("--dataset_mode half", "--dataset_mode=half"),
    ("--lora_target_modules q_proj", "only q_proj,k_proj"), ("--resume_checkpoint x.pth", "x.pth: no such file"),
    ("--device tpu", "--device=tpu"), ("--lora_rank 3", "unknown option '--lora_rank'")])
def test_mistakes_in_flags(trained, text, message):
    with pytest.raises(UserError, match=message):
        trained(f"{PATHS} {text}")


def test_resuming_is_automatic(trained):
    folder = Path("checkpoints")
    folder.mkdir()
    for name in ("checkpoint_epoch_2.pth", "checkpoint_epoch_10.pth", "checkpoint_epoch_x.pth"):
        (folder / name).touch()
    assert trained(PATHS)[1]["continue_from"] == "checkpoints/checkpoint_epoch_10.pth"
    (folder / "checkpoint_latest.pth").touch()
    assert trained(PATHS)[1]["continue_from"] == "checkpoints/checkpoint_latest.pth"
    call = trained(f"{PATHS} --resume_checkpoint checkpoints/checkpoint_epoch_2.pth")[1]
    assert call["continue_from"] == "checkpoints/checkpoint_epoch_2.pth"
    call = trained(f"{PATHS} --resume_checkpoint none")[1]
    assert "continue_from" not in call and "resume" not in call
    Checkpoints(folder).save("3", [], {}, {})
    assert trained(PATHS)[1]["resume"] is True
    with pytest.raises(UserError, match="checkpoints already holds a run: give auto, or another --save_dir"):
        trained(f"{PATHS} --resume_checkpoint none")


def test_a_file_of_the_run_itself_is_its_checkpoint(written):
    """`--continue RUN/checkpoint_epoch_2.pth` goes back to checkpoint 2; elsewhere the file is read."""
    module = SimpleNamespace(read_other=files.read_other)
    checkpoints = Checkpoints(written.path.parent)
    assert training.read_other(module, str(written.path), checkpoints)[0] is None
    checkpoints.save("2", [], json.loads("{}"), {})
    assert training.read_other(module, str(written.path), checkpoints) == ("2", None)
    assert training.read_other(module, str(written.path), Checkpoints(written.path.parent / "run"))[1].epoch == 2
    with pytest.raises(UserError, match="this task reads no checkpoints of other programs"):
        training.read_other(SimpleNamespace(), "x.pth", checkpoints)


@pytest.fixture
def run_folder(hub, tmp_path):
    """A run of a tower from a folder: its settings, best_lora.pth, a checkpoint, and the name that they give."""
    def make(model_name):
        run = tmp_path / "runs/one"
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        config = settings.resolve(Config, overrides=["preset=tiny", "random_model=false", f"model={hub}"])
        (run / "config.yaml").write_text(settings.dump(config))
        arrays = dict(initial_weights("aesthetic", trainable_keys(TINY, tower_shapes(TINY.tower))))
        adapter = Adapter(LoraConfig(4, 8), arrays, model_name, 32, tower_sha256=read_tower(hub).sha256)
        write_adapter(run / "best_lora.pth", adapter)
        Checkpoints(run).save("1", [("model", arrays)], {"epoch": 1}, {"adapter": describe(adapter)})
        return run
    return make


@pytest.mark.parametrize("where", ["best_lora.pth", "checkpoints/1", "checkpoints/1/model.safetensors", "."])
@pytest.mark.parametrize("name", ["path", "siglip2-tiny", "", "/moved/away/siglip2-tiny"])
def test_a_run_finds_its_own_tower(hub, run_folder, tmp_path, monkeypatch, where, name):
    """Its path, or the name of the folder alone, as files had it before; from any folder."""
    run = run_folder(str(hub) if name == "path" else name)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    scorer = read_scorer(Shapes().state_shapes, run / where)
    assert not scorer.random and scorer.tower.sha256 == read_tower(hub).sha256


def test_another_tower_at_the_place_of_a_runs_own_is_refused(hub, run_folder):
    run = run_folder(str(hub))
    write_weights(hub / "model.safetensors", {f"vision_model.{key}": array
                                              for key, array in random_tower(PRESETS["tiny"], 2).items()})
    with pytest.raises(UserError, match="best_lora.pth: was trained on .* of SHA-256 .*give the tower it was trained on"):
        read_scorer(Shapes().state_shapes, run / "best_lora.pth")


def test_a_tower_that_is_gone_is_told(hub, run_folder):
    run = run_folder("gone")
    for path in hub.iterdir():
        path.unlink()
    hub.rmdir()
    with pytest.raises(UserError, match="was trained on 'gone', which is not a folder here"):
        read_scorer(Shapes().state_shapes, run / "best_lora.pth")
