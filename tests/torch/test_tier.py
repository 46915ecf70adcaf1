"""TIER and its baselines against transformers' networks, put together as the original does; published sizes."""
import numpy as np
import pytest
import torch
import transformers
from test_resnet import torchvision_name
from test_vit import renamed
from torch import nn

from jittwin.errors import UserError
from jittwin.models.bert import PRESETS as TEXTS
from jittwin.models.catalog import find
from jittwin.models.tier import BACKBONES, FROZEN, IMAGES, MODES, TierConfig, make_config, preprocess
from jittwin.models.tier_keys import describe, from_description, infer_config
from jittwin.weights.state import matches

TEXT = TEXTS["tiny"]
MASK = np.array([[1, 1], [1, 0], [1, 1]], np.float32)
LEGAL = {"mode": MODES, "backbone": BACKBONES}


def their_vit(ours):
    found = transformers.ViTModel(transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, patch_size=16, image_size=64,
        layer_norm_eps=1e-6, attn_implementation="eager"), add_pooling_layer=False)
    found.load_state_dict(renamed({name.removeprefix("vit."): value for name, value in ours.items()}))
    return lambda x: found(x, output_hidden_states=True).hidden_states[-1][:, 0]


def their_resnet(ours, slope=0.0):
    config = IMAGES["tiny"]["resnet18"]
    found = transformers.ResNetModel(transformers.ResNetConfig(
        embedding_size=8, depths=config.depths, hidden_sizes=config.widths, layer_type="basic"))
    if slope:       # transformers' activations inside the blocks, not the one of the stem
        for name, part in found.named_modules():
            if name.startswith("encoder") and isinstance(part, nn.ReLU):
                parent, _, leaf = name.rpartition(".")
                setattr(found.get_submodule(parent), leaf, nn.LeakyReLU(slope))
    found.load_state_dict({name: ours[torchvision_name(name)] for name in found.state_dict()
                           if not name.endswith("num_batches_tracked")}, strict=False)
    return found.train(), lambda x: found(x).pooler_output.flatten(1)


def their_bert(ours):
    found = transformers.BertModel(transformers.BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=16, attn_implementation="eager")).eval()
    found.load_state_dict(ours)
    return found


def below(state, prefix):
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def drawn(backend, config):
    """A network with random weights and statistics."""
    torch.manual_seed(0)
    network = backend.build("tier", config)
    for name, value in network.state_dict().items():
        value.copy_(torch.rand_like(value) + 0.5 if name.endswith("running_var") else
                    torch.randn_like(value) * (0.3 if value.ndim == 2 else 1) / value[0].numel() ** 0.25)
    backend.train_mode(network, False)
    return network


@pytest.fixture(scope="module")
def inputs():
    torch.manual_seed(1)
    keep = (torch.arange(9) < torch.tensor([[9], [4], [2]])).int()
    ids = torch.randint(1, 60, (3, 9)) * keep
    pixels, prompts = torch.randn(2, 3, 3, 64, 64)
    prompts[1] = 0
    return pixels, ids, keep, prompts


def expected(network, config, features, inputs, pr_batch=False):
    """The paper's arithmetic. features: the image encoder of somebody else. pr_batch: pictures of zeros run too."""
    pixels, ids, keep, prompts = inputs
    state = network.state_dict()
    if config.mode == "nr":
        image = features(pixels)
    elif config.mode == "fr":
        image = torch.cat(features(torch.cat([pixels, prompts])).chunk(2), 1)
    else:
        run = [0, 1, 2] if pr_batch else [0, 2]
        f = features(torch.cat([pixels, prompts[run]]))
        second = torch.zeros(3, f.shape[1])
        second[run] = f[3:]
        mask = torch.from_numpy(MASK)[:, :, None]
        image = (torch.stack([f[:3], second], 1) * mask).sum(1) / mask.sum(1)
    if config.text:
        hidden = their_bert(below(state, "encoder.text_encoder."))(ids, attention_mask=keep).last_hidden_state
        text = torch.stack([row[:int(n)].mean(0) for row, n in zip(hidden, keep.sum(1))])
        image = torch.cat([text, image], 1)
    wide = config.width
    mlp = nn.Sequential(nn.Linear(wide, wide // 2), nn.ReLU(), nn.Linear(wide // 2, 1))
    mlp.load_state_dict({f"{2 * n}.{kind}": state[f"regressor.fc{n + 1}.{kind}"]
                         for n in (0, 1) for kind in ("weight", "bias")})
    return mlp(image).view(-1)


@pytest.mark.parametrize("text", [True, False], ids=["text", "baseline"])
@pytest.mark.parametrize("mode", MODES)
def test_it_equals_the_paper(backend, inputs, mode, text):
    """With a ViT, for inference."""
    config = make_config(mode, "vit", "tiny", text)
    network, (pixels, ids, keep, prompts) = drawn(backend, config), inputs
    with torch.no_grad():
        found = network(pixels, ids, keep, prompts, MASK) if text else network(
            pixels, prompt_pixels=prompts, mask=MASK)
        theirs = expected(network, config, their_vit(below(network.state_dict(), config.image_prefix[:-4])), inputs)
    assert found.shape == (3,) and found.std() > 0.01
    torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode, text, legacy", [("pr", True, False), ("pr", True, True), ("fr", False, False)])
def test_training_with_a_batch_of_both(backend, inputs, mode, text, legacy):
    """A ResNet in training: its statistics are those of the pictures that run, of zeros only if asked for."""
    config = make_config(mode, "resnet18", "tiny", text, legacy)
    network, (pixels, ids, keep, prompts) = drawn(backend, config), inputs
    theirs, features = their_resnet(below(network.state_dict(), config.image_prefix), config.image.negative_slope)
    before = expected(network, config, features, inputs, legacy)
    network.train()
    if text:
        network.encoder.text_encoder.eval()
    found = network(pixels, ids, keep, prompts, MASK) if text else network(pixels, prompt_pixels=prompts)
    torch.testing.assert_close(found, before, rtol=1e-4, atol=1e-5)
    target = torch.tensor([1.0, 2.0, 4.0])
    loss, = network.loss(found, target).values()
    torch.testing.assert_close(loss, nn.functional.mse_loss(before, target), rtol=1e-4, atol=1e-5)
    state = below(network.state_dict(), config.image_prefix)
    for name, value in theirs.named_buffers():
        if value.is_floating_point():
            torch.testing.assert_close(state[torchvision_name(name)], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("given", [[1, 1, 1], [0, 0, 0]], ids=["all", "none"])
def test_image_prompts_for_all_or_none(backend, inputs, given):
    network, (pixels, _, _, prompts) = drawn(backend, make_config("pr", "vit", "tiny", False)), inputs
    with torch.no_grad():
        found = network(pixels, prompt_pixels=prompts, mask=np.stack([[1, 1, 1], given], 1))
        one, other = network.look(pixels), network.look(prompts)
        torch.testing.assert_close(found, network.predict((one + other) / 2 if any(given) else one))


# Of the spec: regressor and network, each with one picture's features and with two.
@pytest.mark.parametrize("backbone, nr, fr", [
    ("resnet18", (820_481, 121_479_233), (1_607_425, 122_266_177)),
    ("resnet50", (3_967_745, 136_958_017), (11_834_113, 144_824_385)),
    ("vit", (1_607_425, 415_416_297), (3_967_745, 417_776_617)),
    ("inceptionv4", (2_656_513, 154_818_569), (7_376_641, 159_538_697))])
def test_published_sizes(backend, backbone, nr, fr):
    for mode, (regressor, whole) in (("nr", nr), ("pr", nr), ("fr", fr)):
        config = make_config(mode, backbone)
        shapes = backend.state_shapes("tier", config)
        sizes = {name: int(np.prod(shape)) for name, shape in shapes.items() if "running_" not in name}
        assert sum(size for name, size in sizes.items() if name.startswith("regressor.")) == regressor
        assert sum(sizes.values()) == whole
        assert infer_config(shapes) == TierConfig(**(vars(config) | {"mode": "nr" if mode == "pr" else mode}))
        if mode == "nr":
            text = [name for name in shapes if name.startswith("encoder.text_encoder.")]
            assert len(text) == 199 and sum(sizes[name] for name in text) == 109_482_240


@pytest.mark.parametrize("backbone, parameters", [
    ("resnet18", 11_176_512), ("vgg16", 138_357_544), ("vgg19", 143_667_240), ("vit", 304_326_632)])
def test_published_sizes_of_baselines(backend, backbone, parameters):
    config = make_config("fr", backbone, text=False)
    shapes = backend.state_shapes("tier", config)
    wide = config.width
    assert infer_config(shapes) == config and wide == 2 * (1024 if backbone == "vit" else 512)
    assert sum(int(np.prod(shape)) for name, shape in shapes.items() if "running_" not in name) == parameters + (
        wide * wide // 2 + wide // 2 + wide // 2 + 1)
    assert (config.image.negative_slope == 0.01) if backbone == "resnet18" else True


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_what_is_trained_is_what_a_score_depends_on(backend, inputs, backbone, text):
    config = make_config("pr", backbone, "tiny", text)
    network, (_, ids, keep, _) = drawn(backend, config), inputs
    side = config.image_size
    pictures = torch.randn(2, 3, 3, side, side, generator=torch.Generator().manual_seed(2))
    backend.train_mode(network, True)
    found = network(pictures[0], ids, keep, pictures[1], MASK) if text else network(
        pictures[0], prompt_pixels=pictures[1], mask=MASK)
    found.square().sum().backward()
    parameters = dict(network.named_parameters())
    frozen = {name for name in parameters if matches(name, FROZEN)}
    assert bool(frozen) == (text or not backbone.startswith("resnet"))
    assert {name for name, p in parameters.items() if not p.requires_grad} == frozen
    assert {name for name, p in parameters.items() if p.grad is None} == frozen
    assert find("tier").name == "tier" and from_description(**describe(config)) == config


def test_preparation():
    for backbone, sizes in (("vit", (256, 224)), ("inceptionv4", (320, 299)), ("vgg16", (256, 224))):
        way = preprocess(make_config(backbone=backbone, text=backbone != "vgg16"))
        assert (way.size, way.crop, way.resample) == (sizes[0], (sizes[1],) * 2, "bilinear")
        assert way.mean == (0.485, 0.456, 0.406) and way.std == (0.229, 0.224, 0.225)
        native = preprocess(make_config(backbone=backbone, text=backbone != "vgg16"), native=True)
        assert native.mean == (way.mean if backbone == "vgg16" else (0.5,) * 3)


@pytest.mark.parametrize("name", LEGAL)
def test_a_slip_of_the_pen(name):
    with pytest.raises(UserError, match=f"{name}=ful.*choose from {', '.join(LEGAL[name])}"):
        make_config(**{name: "ful"})
    with pytest.raises(ValueError, match=f"{name} is 'ful'"):
        TierConfig(**{name: "ful"})


def test_lower_precision_stays_close(backend, inputs):
    network, (pixels, ids, keep, prompts) = drawn(backend, make_config("pr", "resnet18", "tiny")), inputs
    with torch.no_grad():
        full = network(pixels, ids, keep, prompts, MASK)
        try:
            backend.set_precision("bfloat16")
            found = network(pixels, ids, keep, prompts, MASK)
        finally:
            backend.set_precision("float32")
    assert found.dtype == torch.float32 and 0 < (found - full).abs().max() < 0.05 * full.abs().max() + 0.05
