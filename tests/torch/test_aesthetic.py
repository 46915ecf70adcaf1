"""The aesthetic scorer's PyTorch twin against transformers with peft, and against the original's way of loading."""
import numpy as np
import peft
import pytest
import torch
import transformers
from scorer import (  # noqa: F401  (two fixtures and three tests)
    CONFIG,
    KEYS,
    TOWER,
    build,
    test_dropout_follows_the_seed,
    test_predictors_keep_their_precision,
    test_weights_that_no_network_computes_with_are_told_with_their_file,
    test_predictors_of_equal_weights_share_their_network,
    tower,
    trained,
)
from torch import nn

from jittwin.checkpoints.adapters import Adapter, read_adapter, write_adapter
from jittwin.errors import UserError
from jittwin.models.aesthetic import FROZEN, TOWER_PREFIX, emd, tower_state
from jittwin.models.lora import ENCODER, LAYER_NAMES
from jittwin.weights import read_content, write_content, write_weights
from torch_models.assess import aesthetic

# peft asks transformers' own network, which the original wraps, by a name that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


class Original(nn.Module):
    """The scorer as the original puts it together: names of layers, the pooling head adapted as well."""

    def __init__(self, tower, targets=LAYER_NAMES, task="FEATURE_EXTRACTION"):
        super().__init__()
        base = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(
            hidden_size=TOWER.hidden_size, num_hidden_layers=TOWER.num_hidden_layers,
            num_attention_heads=TOWER.num_attention_heads, intermediate_size=TOWER.intermediate_size,
            patch_size=TOWER.patch_size, image_size=TOWER.image_size))
        base.load_state_dict({key: torch.from_numpy(array) for key, array in tower.items()}, strict=False)
        self.vision_model = base
        if targets is not None:
            self.vision_model = peft.get_peft_model(base, peft.LoraConfig(
                r=4, lora_alpha=8, lora_dropout=0.1, bias="none", task_type=task,
                target_modules=targets if isinstance(targets, str) else list(targets)))
        self.aesthetic_head = nn.Module()
        self.aesthetic_head.mlp = nn.Sequential(
            nn.Linear(TOWER.hidden_size, 512), nn.GELU(), nn.Dropout(0.1), nn.Linear(512, 128), nn.GELU(),
            nn.Dropout(0.1), nn.Linear(128, 10))

    def forward(self, pixels):
        found = self.vision_model.get_base_model()(pixel_values=pixels)
        return self.aesthetic_head.mlp(found.last_hidden_state.mean(dim=1))


def randomised(network):
    """Every trained value of the network drawn anew."""
    rng = torch.Generator().manual_seed(2)
    for value in network.parameters():
        if value.requires_grad:
            value.data.copy_(torch.randn(value.shape, generator=rng) * 0.2)
    return network.eval()


def logits(network, pixels):
    with torch.no_grad():
        return network(pixels)


def close(ours, theirs, atol=1e-6):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def test_a_file_of_the_original_scores_the_same(backend, tower, pixels, tmp_path):
    theirs = randomised(Original(tower))
    state = {name: value for name, value in theirs.state_dict().items() if "lora" in name or "aesthetic_head" in name}
    assert len(state) == 2 * 15 + 6
    config = {"model_name": "google/siglip2", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0,
              "lora_target_modules": list(LAYER_NAMES), "num_classes": 10, "hidden_size": 32}
    for name in ("lora.pth", "legacy.pth"):
        torch.save({"config": config, "state_dict": state}, tmp_path / name,
                   _use_new_zipfile_serialization=name == "lora.pth")
        close(logits(build(backend, tower, read_adapter(tmp_path / name).arrays), pixels), logits(theirs, pixels))


def test_the_original_loads_our_file(backend, tower, trained, pixels, tmp_path):
    adapter = Adapter(CONFIG.lora, trained, "google/siglip2", 32)
    for compat in (True, False):
        write_adapter(tmp_path / "lora.pth", adapter, reference_compat=compat)
        content = torch.load(tmp_path / "lora.pth", weights_only=True)
        theirs = Original(tower).eval()
        report = theirs.load_state_dict(content["state_dict"], strict=False)
        assert not report.unexpected_keys
        left = [key for key in report.missing_keys if "lora" in key or "aesthetic_head" in key]
        assert len(left) == (0 if compat else 6) and all(".head." in key for key in left)
        close(logits(theirs, pixels), logits(build(backend, tower, trained), pixels))


def test_a_folder_that_peft_wrote_scores_the_same(backend, tower, pixels, tmp_path):
    theirs = randomised(Original(tower, ENCODER, None))
    theirs.vision_model.save_pretrained(tmp_path)
    write_weights(tmp_path / "aesthetic_head.safetensors",
                  {key: value.numpy() for key, value in theirs.state_dict().items() if key.startswith("aesthetic_head.")})
    adapter = read_adapter(tmp_path)
    assert (adapter.config.r, adapter.config.alpha, adapter.config.targets) == (4, 8, ENCODER)
    close(logits(build(backend, tower, adapter.arrays), pixels), logits(theirs, pixels))


@pytest.mark.parametrize("compat", [False, True])
def test_peft_loads_our_folder(backend, tower, trained, pixels, tmp_path, recwarn, compat):
    write_adapter(tmp_path / "a", Adapter(CONFIG.lora, trained, "google/siglip2", 32), "peft", reference_compat=compat)
    theirs = Original(tower, targets=None)
    theirs.vision_model = peft.PeftModel.from_pretrained(theirs.vision_model, tmp_path / "a").eval()
    assert not [w for w in recwarn if "missing" in str(w.message) or "unexpected" in str(w.message)]
    report = theirs.load_state_dict({key: torch.from_numpy(array) for key, array in trained.items()
                                     if key.startswith("aesthetic_head.")}, strict=False)
    assert not report.unexpected_keys
    close(logits(theirs.eval(), pixels), logits(build(backend, tower, trained), pixels))


def test_trainable_parameters_and_their_order(backend, tower, trained):
    model = build(backend, tower, trained)
    assert list(backend.parameters(model)) == list(KEYS)
    state = backend.state_numpy(model)
    assert set(state) == set(tower_state(tower)) | set(trained)
    assert set(backend.state_numpy(model, exclude=FROZEN)) == set(trained)
    # The index of each parameter in the original's optimizer, as far as it has a use here.
    original = [name for name, value in Original(tower).named_parameters() if value.requires_grad and ".model.head." not in name]
    assert original == list(trained)


def test_merged_is_the_same_and_can_be_undone(backend, tower, trained, pixels):
    model = build(backend, tower, trained)
    before, weights = logits(model, pixels), backend.state_numpy(model)
    model.merge()
    model.merge()
    key = f"{TOWER_PREFIX}encoder.layers.1.mlp.fc2"
    expected = weights[f"{key}.base_layer.weight"] + 2 * (
        trained[f"{key}.lora_B.default.weight"] @ trained[f"{key}.lora_A.default.weight"])
    np.testing.assert_allclose(backend.state_numpy(model)[f"{key}.base_layer.weight"], expected, atol=1e-6)
    close(logits(model, pixels), before, 1e-5)
    model.unmerge()
    model.unmerge()
    for name, array in backend.state_numpy(model).items():
        np.testing.assert_allclose(array, weights[name], atol=1e-6)
    assert (before - logits(build(backend, tower, {k: 0 * v if "lora_B" in k else v for k, v in trained.items()}), pixels)
            ).abs().max() > 1e-3


def test_dropout_is_ours(backend, tower, trained):
    model = build(backend, tower, trained)
    assert not [path for path, part in model.named_modules() if isinstance(part, nn.Dropout)]


def test_gradients_with_and_without_recomputing(backend, tower, trained, pixels):
    target = torch.softmax(torch.randn(3, 10, generator=torch.Generator().manual_seed(3)), 1)
    found = []
    for recompute in (False, True):
        model = build(backend, tower, trained, gradient_checkpointing=recompute)
        backend.train_mode(model, True)
        backend.seed(7)
        found.append(torch.autograd.grad(model.loss(pixels, target)["EMD"], list(backend.parameters(model).values())))
    for ours, theirs in zip(*found, strict=True):
        assert ours.abs().max() > 0
        close(ours, theirs, 1e-7)


def test_loss_is_the_distance(backend):
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(4, 10)), rng.dirichlet(np.ones(10), 4)
    p = torch.softmax(torch.from_numpy(x), 1).numpy()
    for r in (1, 2):
        assert aesthetic.emd(torch.from_numpy(x), torch.from_numpy(target), r).item() == pytest.approx(
            emd(p, target, r).mean(), abs=1e-10)
    votes = torch.tensor([[0, 1, 5, 17, 38, 36, 15, 6, 5, 1.0]])
    for r, value in ((2, 0.16192215), (1, 0.13951613)):
        assert aesthetic.emd(torch.zeros(1, 10), votes / 124, r).item() == pytest.approx(value, abs=2e-8)
    with pytest.raises(ValueError, match="legal: 1 or 2"):
        aesthetic.emd(torch.zeros(1, 10), votes / 124, 3)


@pytest.mark.parametrize("r", [1, 2])
def test_gradient_is_finite_where_the_distributions_are_equal(r):
    x = torch.zeros(2, 10, requires_grad=True)
    loss = aesthetic.emd(x, torch.full((2, 10), 0.1), r)
    gradient, = torch.autograd.grad(loss, x)
    assert torch.isfinite(gradient).all() and gradient.abs().max() < 1e-3 and loss.item() < 2e-6


def test_lower_precision_stays_close_and_trains_in_float32(backend, tower, trained, pixels):
    full = logits(build(backend, tower, trained), pixels)
    try:
        backend.setup(precision="bfloat16")
        model = build(backend, tower, trained)
        found = logits(model, pixels)
        assert found.dtype == torch.float32 and 0 < (found - full).abs().max() < 0.02
        gradients = torch.autograd.grad(model.loss(pixels, torch.full((3, 10), 0.1))["EMD"],
                                        list(backend.parameters(model).values()))
        assert {gradient.dtype for gradient in gradients} == {torch.float32}
        with pytest.raises(UserError, match="unknown precision 'bf16'.*choose from float32, bfloat16, float16"):
            backend.setup(precision="bf16")
    finally:
        backend.setup()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pytorch_reads_nested_content_and_we_read_pytorchs(tmp_path, dtype):
    layer = nn.Linear(3, 2).to(dtype)
    optimizer = torch.optim.AdamW([{"params": [layer.weight], "lr": 1e-3}, {"params": [layer.bias]}])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: 1.0] * 2)
    layer(torch.ones(1, 3, dtype=dtype)).sum().backward()
    optimizer.step()
    schedule.step()
    content = {"epoch": 0, "model_state_dict": layer.state_dict(), "optimizer_state_dict": optimizer.state_dict(),
               "scheduler_state_dict": schedule.state_dict(), "metrics": {"emd": np.float64(0.5)}}
    for zipped in (True, False):
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        found = read_content(tmp_path / "a.pth")
        assert found["metrics"] == {"emd": 0.5} and found["scheduler_state_dict"] == schedule.state_dict()
        write_content(tmp_path / "b.pth", found)
        back = torch.load(tmp_path / "b.pth", weights_only=True)
        assert torch.equal(back["model_state_dict"]["weight"], layer.weight)
        optimizer.load_state_dict(back["optimizer_state_dict"])
        for index, name in ((0, "exp_avg"), (1, "step")):
            ours, theirs = (state["state"][index][name] for state in (back["optimizer_state_dict"],
                                                                     content["optimizer_state_dict"]))
            assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
        assert back["optimizer_state_dict"]["param_groups"] == content["optimizer_state_dict"]["param_groups"]
