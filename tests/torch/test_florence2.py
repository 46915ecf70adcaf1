"""Florence-2's trunk against transformers' own: tokens, files of either naming, sizes, and the published counts."""
import json
import re

import numpy as np
import pytest
import torch
import transformers
from opened import opened
from safetensors.torch import load_file, save_file

from jittwin.checkpoints.convert import convert
from jittwin.errors import UserError
from jittwin.models.florence2 import CONVERSION, PRESETS, BartConfig, DaViTConfig, Florence2Config, infer_config
from jittwin.weights import read_weights
from jittwin.weights.initial import initial_weights
from torch_models.backbones.florence2 import Florence2

TINY = Florence2Config(DaViTConfig((32, 64, 96, 128), (1, 1, 2, 1), (1, 2, 3, 4), (1, 2, 3, 4), 5,
                                   max_position_embeddings=6, max_temporal_embeddings=3),
                       BartConfig(60, 128, 2, 2, 48, 64))      # heads and groups as wide as published
KEEP = (torch.arange(7) < torch.tensor([[7], [4]])).int()
IDS = torch.where(KEEP == 1, torch.randint(2, 60, (2, 7), generator=torch.Generator().manual_seed(1)), 1)
PIXELS = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    vision, text = TINY.vision, TINY.text
    config = transformers.Florence2Config(
        vision_config=dict(
            embed_dim=vision.embed_dim, depths=vision.depths, num_heads=vision.num_heads, num_groups=vision.num_groups,
            window_size=vision.window_size, projection_dim=text.d_model, max_position_embeddings=6,
            max_temporal_embeddings=3),
        text_config=dict(
            model_type="bart", vocab_size=60, d_model=text.d_model, encoder_layers=2, decoder_layers=1,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48,
            max_position_embeddings=64, dropout=0.1, attention_dropout=0.1, activation_dropout=0.1),
        image_token_id=59, attn_implementation="eager")
    network = transformers.Florence2ForConditionalGeneration(config).eval()
    for name, value in network.named_parameters():
        scale = 0.02 if "dw" in name else 1 if "embed" in name or value.ndim == 1 else np.prod(value.shape[1:]) ** -0.5
        value.data.copy_(torch.randn_like(value) * float(scale))
    return network


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    """A hub folder that transformers wrote, in several files."""
    theirs.save_pretrained(found := tmp_path_factory.mktemp("florence2"), max_shard_size="300KB")
    assert len(list(found.glob("*.safetensors"))) > 2
    return found


@pytest.fixture(scope="module")
def ours(backend, folder):
    network, config = opened(backend, "florence2", folder)
    assert config == TINY
    return network


def microsofts(state):
    """The state under the names of microsoft's files, which their code makes; image_projection is a matrix that tokens
    are multiplied by."""
    found = {}
    for name, value in state.items():
        name = name.removeprefix("model.")
        name = re.sub(r"(convs\.\d+)\.conv\.", r"\1.proj.", name)
        name = re.sub(r"_block\.(conv[12])\.", r"_block.\1.fn.dw.", name)
        name = re.sub(r"_block\.(window_attn|channel_attn)\.", r"_block.\1.fn.", name)
        name = re.sub(r"spatial_block\.norm1\.", "spatial_block.window_attn.norm.", name)
        name = re.sub(r"channel_block\.norm1\.", "channel_block.channel_attn.norm.", name)
        name = re.sub(r"_block\.ffn\.", "_block.ffn.fn.net.", name)
        name = re.sub(r"_block\.norm2\.", "_block.ffn.norm.", name)
        name = name.replace("multi_modal_projector.image_position_embed.", "image_pos_embed.")
        name = name.removeprefix("multi_modal_projector.")
        if name == "image_projection.weight":
            name, value = "image_projection", value.T
        found[re.sub(r"^language_model\.", "language_model.model.", name)] = value.contiguous()
    table = found["language_model.model.shared.weight"]
    again = ("language_model.model.encoder.embed_tokens.weight", "language_model.model.decoder.embed_tokens.weight",
             "language_model.lm_head.weight")
    return found | {name: table.clone() for name in again} | {"language_model.final_logits_bias": torch.zeros(1, 60)}


@pytest.fixture(scope="module")
def microsoft(theirs, tmp_path_factory):
    """A folder as microsoft/Florence-2-* has it: half precision, one PyTorch file, other names in config.json."""
    path, found = tmp_path_factory.mktemp("microsoft"), theirs.model.state_dict()
    found = {name: value for name, value in found.items() if "embed_tokens" not in name}
    torch.save({name: value.half() for name, value in microsofts(found).items()}, path / "pytorch_model.bin")
    vision, text = TINY.vision, TINY.text
    (path / "config.json").write_text(json.dumps({
        "model_type": "florence2", "torch_dtype": "float16",
        "vision_config": {"model_type": "davit", "dim_embed": vision.embed_dim, "depths": vision.depths,
                          "num_heads": vision.num_heads, "num_groups": vision.num_groups, "window_size": 5,
                          "patch_size": [7, 3, 3, 3], "patch_prenorm": [False, True, True, True],
                          "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 6},
                          "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"]},
        "text_config": {"vocab_size": 60, "d_model": text.d_model, "encoder_layers": 2, "encoder_attention_heads": 2,
                        "max_position_embeddings": 64, "dropout": 0.1, "attention_dropout": 0.1,
                        "activation_dropout": 0.1}}))
    return path


def expected(theirs, pixels, mask=None):
    """(tokens of pictures, tokens of pictures and texts), by transformers' parts as the original puts them together."""
    image = theirs.model.get_image_features(pixels).pooler_output
    both = torch.cat([image, theirs.get_input_embeddings()(IDS)], 1)
    return image, theirs.model.language_model.encoder(inputs_embeds=both, attention_mask=mask).last_hidden_state


def close(found, right):
    for ours, theirs in zip(found, right, strict=True):
        assert theirs.std() > 0.5
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-5)


@pytest.mark.parametrize("shape", [(96, 160), (160, 96), (192, 192)], ids=str)
def test_it_equals_transformers(ours, theirs, shape):
    """Windows that tile some maps and not others, pictures that are not square, padding that is read and that is not."""
    pixels = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(3))
    tokens = 1 + shape[0] * shape[1] // 32 ** 2
    with torch.no_grad():
        close(ours(pixels, IDS), expected(theirs, pixels))
        found, right = ours(pixels, IDS, KEEP), expected(theirs, pixels, torch.cat([torch.ones(2, tokens), KEEP], 1))
        seen = torch.cat([torch.ones(2, tokens), KEEP], 1)[..., None]
        close((found[0], found[1] * seen), (right[0], right[1] * seen))
        assert (ours(pixels, IDS)[1] - found[1])[1].abs().max() > 0.01


def test_gradients_equal_those_of_transformers(ours, theirs):
    """The padding of the table of tokens gets none."""
    for p in ours.parameters():
        p.grad = None
    theirs.zero_grad()
    for network, found in ((ours, ours(PIXELS, IDS)), (theirs, expected(theirs, PIXELS))):
        (found[0].tanh().sum() + (found[1] ** 3).mean()).backward()
    gradients = {name: p.grad for name, p in theirs.model.named_parameters()}
    for name, p in ours.named_parameters():
        right = gradients[name]
        torch.testing.assert_close(p.grad, right, rtol=0, atol=2e-4 * float(right.abs().max()) + 1e-6, msg=name)
    assert not ours.language_model.shared.weight.grad[1].any() and ours.language_model.shared.weight.grad[2:].any()


def test_checkpointing_changes_nothing(backend, ours):
    again = backend.build("florence2", TINY, gradient_checkpointing=True)
    backend.load_numpy(again, backend.state_numpy(ours))
    found = []
    for network in (ours, again):
        backend.train_mode(network, True)
        backend.seed(5)
        parts = network(PIXELS, IDS, KEEP)
        found.append(torch.autograd.grad(sum((x * x * x).mean() for x in parts), list(network.parameters())))
        backend.train_mode(network, False)
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


@pytest.mark.parametrize("size, counts", [
    ("base", {"vision_tower": 90_368_000, "multi_modal_projector": 839_168, "language_model": 82_706_688}),
    ("large", {"vision_tower": 360_632_320, "multi_modal_projector": 2_201_600, "language_model": 207_873_024})])
def test_the_published_sizes(size, counts):
    with torch.device("meta"):
        network = Florence2(PRESETS[size])
    assert {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()} == counts
    assert infer_config({n: tuple(v.shape) for n, v in network.state_dict().items()}) == PRESETS[size]
    assert PRESETS[size].name == f"Florence-2-{size}"


def test_the_tower_drops_more_paths_with_depth(ours):
    rates = [part.p for name, part in ours.named_modules() if "drop_path1" in name]
    assert np.allclose(rates, torch.linspace(0, 0.1, 10))
    assert [part.p for name, part in ours.named_modules() if "drop_path2" in name] == rates


def test_microsofts_folder(backend, ours, microsoft):
    """No key is missing or left over, and halves become singles."""
    found, config = opened(backend, "florence2", microsoft)
    assert config == TINY
    state = backend.state_numpy(ours)
    for name, value in backend.state_numpy(found).items():
        assert value.dtype == np.float32 and np.array_equal(value, state[name].astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("lacking", [("shared",), ("shared", "encoder.embed_tokens"), ("encoder.embed_tokens", "lm_head")])
def test_any_name_of_the_table_of_tokens_serves(backend, microsoft, tmp_path, lacking):
    state = torch.load(microsoft / "pytorch_model.bin")
    kept = {name: value for name, value in state.items() if not any(f"{part}.weight" in name for part in lacking)}
    torch.save(kept, tmp_path / "a.pth")
    found, config = opened(backend, "florence2", tmp_path / "a.pth")
    assert config.text == TINY.text
    table = state["language_model.lm_head.weight"].float()
    assert torch.equal(found.language_model.shared.weight, table)


def test_conversion_to_transformers_and_back(folder, microsoft, theirs, tmp_path):
    report = convert(folder, tmp_path / "ours.safetensors", "florence2", verify=True)
    assert any("decoder.layers.0" in key for key in report.dropped)
    convert(tmp_path / "ours.safetensors", tmp_path / "hub.safetensors", "florence2", to="torch", verify=True)
    written, right = load_file(tmp_path / "hub.safetensors"), theirs.state_dict()
    assert all(torch.equal(value, right[name]) for name, value in written.items())
    lost = {name for name in right if name not in written}
    assert all("decoder" in name or "embed_tokens" in name or name == "lm_head.weight" for name in lost)
    convert(microsoft, tmp_path / "half.safetensors", "florence2", dtype="float32")
    ours, half = (read_weights(tmp_path / f"{name}.safetensors") for name in ("ours", "half"))
    assert ours.keys() == half.keys()
    assert all(np.array_equal(half[name], value.astype(np.float16).astype(np.float32)) for name, value in ours.items())


@pytest.mark.parametrize("change, message", [
    ({"model_type": "clip"}, "model_type 'clip'; legal: florence2, such as microsoft/Florence-2-base or"),
    ({"vision_config": {"num_heads": [1, 2, 3, "4"]}}, "vision_config num_heads is .*'4'.*; legal: as in"),
    ({"vision_config": {"num_heads": [1, 2, 3, 5]}}, "not the weights of a Florence-2, .*5 heads or groups do not"),
    ({"vision_config": {"patch_size": [7, 3, 3, 2]}}, "patch_size is .*; legal: .7, 3, 3, 3., such as"),
    ({"vision_config": {"dim_embed": [32, 64, 96, 160]}}, "embed_dim is .* and the arrays have .*not of one model"),
    ({"text_config": {"d_model": 64}}, "text_config d_model is 64, and the arrays have 128: they are not of one model"),
    ({"text_config": 3}, "its text_config is no object")])
def test_a_config_of_another_model_is_refused(microsoft, tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps(json.loads((microsoft / "config.json").read_text()) | change))
    (tmp_path / "pytorch_model.bin").symlink_to(microsoft / "pytorch_model.bin")
    source = CONVERSION.open(tmp_path)
    with pytest.raises(UserError, match=message):
        infer_config(source.arrays.shapes, source)


def test_another_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="^not the weights of a Florence-2, such as .* .'language_model.shared.weight'"):
        infer_config({"conv1.weight": (64, 3, 7, 7)})
    save_file({"model.vision_tower.convs.0.conv.bias": torch.zeros(8)}, tmp_path / "a.safetensors")
    source = CONVERSION.open(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="a.safetensors: not the weights of a Florence-2"):
        infer_config(source.arrays.shapes, source)


def test_too_many_tokens_are_refused(ours):
    with pytest.raises(ValueError, match="66 tokens, and the table of positions has 64"):
        ours(PIXELS, torch.ones(2, 50, dtype=torch.int64))
    with pytest.raises(ValueError, match="a picture of 7 x 3 tokens, and there are 6 x 3 places"):
        ours(torch.zeros(1, 3, 224, 96), IDS[:1])


def test_untrained_weights_tell_times_as_transformers_does(theirs):
    key = "multi_modal_projector.visual_temporal_embed.pos_idx_to_embed"
    right = theirs.model.state_dict()[key]
    found = initial_weights("florence2", {key: tuple(right.shape)})[key]
    torch.testing.assert_close(torch.from_numpy(found), right, rtol=0, atol=1e-6)
