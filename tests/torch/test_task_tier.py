"""TIER's training against the official loop in plain PyTorch, and best_model.pt against PyTorch itself."""
import copy

import numpy as np
import pytest
import torch
import transformers
from scipy import stats

from jittwin import config as settings
from jittwin.backend import load_backend
from jittwin.data.synthetic.prompted import SyntheticAigiqa4k
from jittwin.draws import Draws
from jittwin.engine.task import StepContext
from jittwin.errors import UserError
from jittwin.models.tier import FROZEN, IMAGES
from jittwin.tasks import tier_files as files
from jittwin.tasks.tier import Config, Task
from jittwin.text import BERT
from jittwin.weights.state import matches
from torch_models.backbones.resnet import ResNet

# The decay is strong enough to show within four steps.
SMALL = ["synthetic_images=40", "batch_size=8", "test_batch_size=4", "weight_decay=0.05"]


@pytest.fixture(scope="module")
def backend():
    backend = load_backend("torch")
    backend.setup(seed=0)
    return backend


def remembered(draw):
    found = {}

    def get(self, name):
        if name not in found:
            found[name] = draw(self, name)
        return found[name]
    return get


@pytest.fixture(scope="module", autouse=True)
def drawn_once():
    """All tasks here have the same pictures; drawing them takes longer than training."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("picture", "prompt_picture"):
            patch.setattr(SyntheticAigiqa4k, name, remembered(getattr(SyntheticAigiqa4k, name)))
        yield


def started(backend, folder, *changes) -> Task:
    task = Task(settings.resolve(Config, "tiny", overrides=[*SMALL, *changes]), backend, None, folder)
    task.enter_phase(task.phases[0])
    return task


def trained(task, start=0, stop=10**6) -> list[float]:
    """Losses of the steps of the first epoch from `start` on."""
    losses = []
    if not start:
        task.begin_epoch(1)
    for step, batch in enumerate(task.loader().epoch(1)):
        if start <= step < stop:
            draws = Draws(task.config.seed, 1, step)
            task.backend.seed(draws.device_seed())
            losses.append(float(task.train_step(batch, StepContext(1, step, step, draws))["MSE"].detach()))
    return losses


def optimizer_of(module, config) -> torch.optim.Adam:
    """The original's: all parameters, also those that no feature depends on and that have no gradient therefore."""
    encoder = module.encoder if hasattr(module, "encoder") else module.backbone
    return torch.optim.Adam([*encoder.parameters()] + [*module.regressor.parameters()], lr=config.lr,
                            weight_decay=config.weight_decay)


def official_step(task, module, optimizer, batch, step) -> tuple[list[float], float]:
    """One step of the official loop: (predictions, loss). Texts are padded as the original pads them."""
    arguments = {"pixels": torch.tensor(batch["pixels"])}
    if task.model.text:
        tokens = task.start.tokenizer([task.training.texts[number] for number in batch["text"]])
        arguments |= {"ids": torch.tensor(tokens.ids), "keep": torch.tensor(tokens.mask, dtype=torch.float32)}
    if task.model.image_prompts:
        arguments |= {"prompt_pixels": torch.tensor(batch["prompt_pixels"]), "mask": batch["mask"]}
    task.backend.seed(Draws(task.config.seed, 1, step).device_seed())
    predictions = module(**arguments)
    loss = torch.nn.MSELoss(reduction="mean")(predictions, torch.tensor(batch["target"]).float())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return predictions.tolist(), loss.item()


@pytest.mark.parametrize("changes", [
    ("backbone=vit", "mode=nr"), ("backbone=resnet18", "mode=pr", "legacy_pr_batch=true"),
    ("backbone=resnet18", "mode=fr", "subset=I2I", "batch_size=5"), ("backbone=vgg16", "baseline=true", "column=MOS_c")])
def test_the_official_loop(backend, tmp_path, changes):
    """The last batch of the mode "fr" is smaller: 12 pictures in batches of 5."""
    task = started(backend, tmp_path, *changes)
    module = copy.deepcopy(task.modules["model"])
    frozen = {name: p.detach().clone() for name, p in module.named_parameters() if matches(name, FROZEN)}
    losses, optimizer = trained(task), None
    for p in module.parameters():
        p.requires_grad_(True)
    optimizer = optimizer_of(module, task.config)
    predicted, votes, expected = [], [], []
    for step, batch in enumerate(task.loader().epoch(1)):
        predictions, loss = official_step(task, module, optimizer, batch, step)
        predicted, votes, expected = predicted + predictions, votes + batch["target"].tolist(), [*expected, loss]
    assert len(losses) == (3 if changes[1] == "mode=fr" else 4)
    assert losses == pytest.approx(expected, rel=2e-5)
    for (name, ours), theirs in zip(task.modules["model"].state_dict().items(), module.state_dict().values()):
        # Nothing depends on the bias of the keys (of the ViT, a third of qkv): its gradient is rounding, which Adam enlarges.
        if not name.endswith(("key.bias", "qkv.bias")):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5, msg=name)
        if name in frozen:
            assert torch.equal(ours, frozen[name])
    measures = task.evaluate(StepContext(1, 0, 0, Draws(0)))
    assert measures["train/srcc"] == pytest.approx(stats.spearmanr(predicted, votes)[0], abs=0.02)
    assert measures["train/plcc"] == pytest.approx(stats.pearsonr(predicted, votes)[0], abs=1e-3)
    check_test_measures(task, measures)


def test_networks_begin_with_the_weights_of_files(backend, tmp_path):
    """A file as torchvision saves it, with a classifier, and a folder that transformers wrote."""
    torch.manual_seed(0)
    sizes = IMAGES["tiny"]["resnet18"]
    image = ResNet(sizes)
    for value in image.state_dict().values():
        torch.nn.init.normal_(value)
    torch.save({**image.state_dict(), "fc.weight": torch.ones(5, sizes.features), "fc.bias": torch.ones(5),
                "bn1.num_batches_tracked": torch.tensor(3)}, tmp_path / "resnet18.pth")
    words = [BERT.pad, BERT.unknown, BERT.start, BERT.end, "a", "of", "view"]
    text = transformers.BertModel(transformers.BertConfig(
        vocab_size=9, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=64))
    text.save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(words))
    task = started(backend, tmp_path, "random_model=false", f"image_weights={tmp_path / 'resnet18.pth'}",
                   f"text_weights={tmp_path / 'bert'}", "side=96")
    found = task.modules["model"].state_dict()
    for prefix, network in (("encoder.image_encoder.", image), ("encoder.text_encoder.", text)):
        expected = {prefix + key: value for key, value in network.state_dict().items() if "position_ids" not in key}
        assert {key for key in found if key.startswith(prefix)} == set(expected)
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert set(task.inputs()) == {"image_weights", "text_weights", "vocabulary"}
    assert len(task.start.tokenizer) == 7 and task.training.get(0, Draws(0))["pixels"].shape == (3, 96, 96)
    assert np.isfinite(trained(task, 0, 1)).all()


@pytest.mark.parametrize("changes, message", [
    (("image_weights=resnet18.pth", "backbone=resnet50"), "resnet18.pth: holds a resnet18, but backbone=resnet50"),
    (("image_weights=resnet18.pth", "backbone=vit"), "not the weights of a vision transformer"),
    (("backbone=vit", "side=96"), "side=96: this vit takes pictures of 64 pixels"),
    (("random_model=false", "image_weights=resnet18.pth"), "text_weights is missing: set text_weights=PATH")])
def test_networks_that_do_not_fit(backend, tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    torch.save(ResNet(IMAGES["tiny"]["resnet18"]).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(UserError) as caught:
        started(backend, tmp_path, *changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def check_test_measures(task, measures):
    """The published test rows in order, in one batch without dropout, against scipy."""
    test, network = task.held_out, task.modules["model"]
    assert [row.number % 4 for row in test.rows] == [3] * len(test)
    samples = [test.get(number) for number in range(len(test))]
    task.backend.train_mode(network, False)
    with torch.no_grad():
        found = task.predict(test, {key: np.stack([one[key] for one in samples]) for key in samples[0]}).numpy()
    votes = [row.votes[task.config.column] for row in test.rows]
    assert measures["srcc"] == pytest.approx(stats.spearmanr(found, votes)[0])
    assert measures["plcc"] == pytest.approx(stats.pearsonr(found, votes)[0], rel=1e-4)
    assert measures["krcc"] == pytest.approx(stats.kendalltau(found, votes)[0])
    assert measures["rmse"] == pytest.approx(np.sqrt(np.mean((found - np.array(votes)) ** 2)), rel=1e-5)


@pytest.fixture(scope="module")
def half(backend, tmp_path_factory):
    """A task after two of its four steps, and a copy of its network."""
    task = started(backend, tmp_path_factory.mktemp("half"), "backbone=resnet18")
    trained(task, 0, 2)
    return task, copy.deepcopy(task.modules["model"])


def test_pytorch_goes_on_from_our_file(half, backend, tmp_path):
    task, module = half[0], copy.deepcopy(half[1])
    arrays = backend.state_numpy(module)
    files.write_best_model(tmp_path / "best_model.pt", {key: arrays[key] for key in task.keys},
                           backend.optimizer_state(task.optimizers["model"]), 1, 2, 0.25, task.config)
    found = torch.load(tmp_path / "best_model.pt", weights_only=True)
    assert list(found) == ["epoch", "encoder", "regressor", "optimizer", "rho_best"]
    assert (found["epoch"], found["rho_best"]) == (0, 0.25)
    counters = [key for key in found["encoder"] if key.endswith("num_batches_tracked")]
    assert counters and all(int(found["encoder"].pop(key)) == 2 for key in counters)
    for p in module.parameters():
        p.requires_grad_(True)
    optimizer = optimizer_of(module, task.config)
    fresh = optimizer.state_dict()["param_groups"][0]
    assert found["optimizer"]["param_groups"][0].keys() == fresh.keys()
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    module.encoder.load_state_dict(found["encoder"])
    module.regressor.load_state_dict(found["regressor"])
    optimizer.load_state_dict(found["optimizer"])
    batches = list(task.loader().epoch(1))
    expected = [official_step(task, module, optimizer, batches[step], step)[1] for step in (2, 3)]
    again = started(backend, tmp_path, "backbone=resnet18")
    adopt(again, files.read_other(tmp_path / "best_model.pt"))
    assert trained(again, 2) == pytest.approx(expected, rel=1e-5)


def adopt(task, found):
    """Continue from the checkpoint of another program."""
    task.backend.load_numpy(task.modules["model"], found.modules["model"])
    task.backend.load_optimizer_state(task.optimizers["model"], found.optimizers["model"])


def test_we_go_on_from_what_pytorch_saved(half, backend, tmp_path):
    """As the official loop saves it, NumPy's number of scipy included."""
    task = started(backend, tmp_path, "backbone=resnet18")
    module = copy.deepcopy(task.modules["model"])
    for p in module.parameters():
        p.requires_grad_(True)
    optimizer = optimizer_of(module, task.config)
    for step, batch in enumerate(task.loader().epoch(1)):
        if step < 2:
            official_step(task, module, optimizer, batch, step)
    torch.save({"epoch": 6, "encoder": module.encoder.state_dict(), "regressor": module.regressor.state_dict(),
                "optimizer": optimizer.state_dict(), "rho_best": np.float64(0.5)}, tmp_path / "best_model.pt")
    found = files.read_other(tmp_path / "best_model.pt")
    assert (found.epoch, found.global_step, found.best) == (7, 2, {"srcc": 0.5})
    adopt(task, found)
    batches = list(task.loader().epoch(1))
    expected = [official_step(task, module, optimizer, batches[step], step)[1] for step in (2, 3)]
    assert trained(task, 2) == pytest.approx(expected, rel=1e-5)
