"""The detector of structural distortion against the original, restated in torch.nn; its files, and the published
counts."""
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from opened import opened
from test_florence2 import microsofts
from torch import nn

from jittwin.checkpoints.convert import convert
from jittwin.errors import UserError
from jittwin.models.distortion import (
    CONVERSION,
    DistortionConfig,
    encode_prompts,
    infer_config,
    make_config,
    preprocess,
)
from jittwin.models.florence2 import BartConfig, DaViTConfig, Florence2Config
from jittwin.text import Tokens
from jittwin.weights import read_metadata, read_weights, write_weights
from torch_models.assess.distortion import Distortion

TINY = Florence2Config(DaViTConfig((32, 64, 96, 128), (1, 1, 1, 1), (1, 2, 3, 4), (1, 2, 3, 4),
                                   max_position_embeddings=6, max_temporal_embeddings=3),
                       BartConfig(60, 64, 1, 1, 48, 64))      # heads and groups as wide as published
HEADS = [("linear", "concat"), ("linear_cls", "last"), ("linear2", "concat_cls"), ("linear2_cls", "last"),
         ("conv", "concat")]
WIDE = 128
LENGTHS = torch.tensor([[9], [4], [6]])
KEEP = (torch.arange(9) < LENGTHS).int()
IDS = torch.where(KEEP == 1, torch.randint(2, 60, (3, 9), generator=torch.Generator().manual_seed(1)), 1)
PIXELS = torch.randn(3, 3, 160, 160, generator=torch.Generator().manual_seed(2)) + 3 * torch.randn(
    3, 3, 1, 1, generator=torch.Generator().manual_seed(3))


def sizes(score_head="linear", mask_head="concat", text_mode="reference"):
    return DistortionConfig(TINY, score_head, mask_head, 160, text_mode, 9, WIDE)


def random(network):
    """The network with weights that let every ReLU pass something."""
    torch.manual_seed(0)
    for name, value in network.state_dict().items():
        if name.startswith("florence2."):
            value.copy_(torch.randn_like(value) * (1 if value.ndim == 1 or "embed" in name else value[0].numel() ** -0.5))
        elif value.ndim > 1:
            value.copy_(torch.randn_like(value) * (2 / value[0].numel()) ** 0.5)
            value -= value.flatten(1).mean(1).reshape(-1, *[1] * (value.ndim - 1))     # no filter sees the mean
        elif "running_mean" not in name:
            value.copy_(torch.rand_like(value) + 0.1)
    return network.eval()


class TheirMaps(nn.Module):
    """The original's mask head, as its layers are listed."""

    def __init__(self, channels, classes, wide):
        super().__init__()
        half = wide // 2
        self.conv_layers = nn.Sequential(
            nn.Conv2d(channels, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU(inplace=True),
            nn.Conv2d(wide, half, 3, padding=1), nn.BatchNorm2d(half), nn.ReLU(inplace=True))
        widths = [half, wide // 4, wide // 4, wide // 8, wide // 16, wide // 32]
        self.deconv_layers = nn.ModuleList([nn.Sequential(
            nn.Conv2d(a, b, 3, padding=1), nn.UpsamplingBilinear2d(scale_factor=2), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in zip(widths, widths[1:])])
        self.final_layers = nn.Sequential(
            nn.Conv2d(widths[-1], classes, 3, padding=1), nn.Sigmoid() if classes == 1 else nn.Softmax(dim=1))

    def forward(self, x):
        x = self.conv_layers(x)
        for layer in self.deconv_layers:
            x = layer(x)
        x = self.final_layers(x)
        if x.shape[1] == 1:
            return x
        return (x * torch.tensor([0, 64, 127, 180, 255.])[None, :, None, None]).sum(1, keepdim=True) / 255


class TheirScore(nn.Module):
    """The original's score head."""

    def __init__(self, features, classes, wide, channels=None):
        super().__init__()
        if channels:
            widths = [channels, wide, wide // 2, wide // 8, wide // 16]
            self.conv_layers = nn.Sequential(*[nn.Sequential(nn.Conv2d(a, b, 2), nn.BatchNorm2d(b), nn.ReLU())
                                               for a, b in zip(widths, widths[1:])])
        self.fc_layers = nn.Sequential(
            nn.Linear(features, 2 * wide), nn.BatchNorm1d(2 * wide), nn.ReLU(), nn.Linear(2 * wide, wide),
            nn.BatchNorm1d(wide), nn.ReLU(), nn.Linear(wide, classes),
            nn.Sigmoid() if classes == 1 else nn.Softmax(dim=1))

    def forward(self, x):
        if hasattr(self, "conv_layers"):
            x = self.conv_layers(x)
        x = self.fc_layers(x.flatten(1))
        return x[:, 0] if x.shape[1] == 1 else ((x * torch.arange(1, 14)).sum(1) - 1) / 12


class Original(nn.Module):
    """transformers' Florence-2 with the two heads, put together as in the original."""

    def __init__(self, score_head, mask_head, wide=WIDE):
        super().__init__()
        vision, text = TINY.vision, TINY.text
        self.florence2 = transformers.Florence2Model(transformers.Florence2Config(
            vision_config=dict(embed_dim=vision.embed_dim, depths=vision.depths, num_heads=vision.num_heads,
                               num_groups=vision.num_groups, projection_dim=text.d_model, max_position_embeddings=6,
                               max_temporal_embeddings=3),
            text_config=dict(model_type="bart", vocab_size=60, d_model=text.d_model, encoder_layers=1, decoder_layers=1,
                             encoder_attention_heads=1, decoder_attention_heads=1, encoder_ffn_dim=48,
                             max_position_embeddings=64), image_token_id=59, attn_implementation="eager"))
        self.score_head, self.mask_head = score_head, mask_head
        channels = text.d_model * (2 if "concat" in mask_head else 1)
        features = wide // 16 if score_head == "conv" else text.d_model * (2 if "2" in score_head else 1)
        self.heatmap_predictor = TheirMaps(channels, 5 if "cls" in mask_head else 1, wide)
        self.score_predictor = TheirScore(features, 13 if "cls" in score_head else 1, wide,
                                          channels if score_head == "conv" else None)

    def forward(self, pixels, ids, mask=None):
        before = self.florence2.get_image_features(pixels).pooler_output
        words = self.florence2.get_input_embeddings()(ids)
        after = self.florence2.language_model.encoder(inputs_embeds=torch.cat([before, words], 1),
                                                      attention_mask=mask).last_hidden_state
        maps = [x[:, 1:26].transpose(1, 2).reshape(len(x), -1, 5, 5) for x in (before, after)]
        seen = torch.cat(maps, 1) if "concat" in self.mask_head else maps[1]
        first = after[:, 0] if "2" not in self.score_head else torch.cat([before[:, 0], after[:, 0]], 1)
        return self.heatmap_predictor(seen), self.score_predictor(seen if self.score_head == "conv" else first)


def pair(score_head, mask_head, text_mode="reference"):
    """(ours, the original) with the same weights."""
    ours, theirs = random(Distortion(sizes(score_head, mask_head, text_mode))), Original(score_head, mask_head).eval()
    found = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert all("language_model.decoder" in key or key.endswith(("embed_tokens.weight", "num_batches_tracked"))
               for key in found.missing_keys)
    assert theirs.florence2.get_input_embeddings().weight is theirs.florence2.language_model.shared.weight
    return ours, theirs


@pytest.mark.parametrize("score_head, mask_head", HEADS)
def test_it_equals_the_original(score_head, mask_head):
    """The padding of the texts is attended to, and does not have to be."""
    ours, theirs = pair(score_head, mask_head)
    with torch.no_grad():
        for found, right in zip(ours(PIXELS, IDS, KEEP), theirs(PIXELS, IDS), strict=True):
            torch.testing.assert_close(found, right, rtol=0, atol=5e-6)
        fast = Distortion(replace(sizes(score_head, mask_head), text_mode="fast")).eval()
        fast.load_state_dict(ours.state_dict())
        masked = fast(PIXELS, IDS, KEEP)
        for found, right in zip(masked, theirs(PIXELS, IDS, torch.cat([torch.ones(3, 26), KEEP], 1)), strict=True):
            torch.testing.assert_close(found, right, rtol=0, atol=5e-6)
        alone = fast(PIXELS[1:2], IDS[1:2, :4], KEEP[1:2, :4])
        for found, right in zip(alone, masked, strict=True):        # padding of another length changes nothing
            torch.testing.assert_close(found, right[1:2], rtol=0, atol=5e-6)
    assert masked[0].shape == (3, 1, 160, 160) and masked[1].shape == (3,)
    assert masked[0].std() > 0.003 and masked[1].std() > 0.001
    assert all(0 <= x.min() and x.max() <= 1 for x in masked)


@pytest.mark.parametrize("score_head, mask_head", HEADS)
def test_training_equals_the_original(score_head, mask_head):
    """Gradients, and the running statistics of the normalisations, without dropout."""
    ours, theirs = pair(score_head, mask_head)
    networks = (ours, theirs)
    for network in networks:
        network.heatmap_predictor.train()
        network.score_predictor.train()
    found = []
    for network in networks:
        heat, score = network(PIXELS, IDS)
        names = dict(ours.named_parameters())
        parameters = [dict(network.named_parameters())[name] for name in names]
        found.append(torch.autograd.grad((heat ** 2).mean() + (score ** 2).mean(), parameters))
    largest = max(float(g.abs().max()) for g in found[1])
    for name, first, second in zip(names, *found, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-4 * largest, msg=name)
    right = theirs.state_dict()
    for name, value in ours.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(value, right[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size, heads, counts", [
    ("base", ("linear", "concat"), {"florence2": 173_913_856, "heatmap_predictor": 21_038_017, "score_predictor": 3_680_257}),
    ("base", ("linear2", "last"), {"florence2": 173_913_856, "heatmap_predictor": 13_960_129, "score_predictor": 5_253_121}),
    ("large", ("linear", "concat"), {"florence2": 570_706_944, "heatmap_predictor": 25_756_609, "score_predictor": 4_204_545}),
    ("large", ("linear2_cls", "last"), {"florence2": 570_706_944, "heatmap_predictor": 16_319_425,
                                        "score_predictor": 6_301_697 + 12_300}),
    ("large", ("conv", "concat_cls"), {"florence2": 570_706_944, "heatmap_predictor": 25_756_609 + 1_156,
                                       "score_predictor": 65_322_049})], ids=str)
def test_the_published_sizes(size, heads, counts):
    config = make_config(size, *heads)
    with torch.device("meta"):
        network = Distortion(config)
    assert {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()} == counts
    assert infer_config({n: tuple(v.shape) for n, v in network.state_dict().items()}) == config
    if heads == ("linear", "concat"):
        assert sum(counts.values()) == {"base": 198_632_130, "large": 600_668_098}[size]


def test_text_lengths_fit_the_positions():
    assert make_config("large").text_length == 1024 and make_config("base").text_length == 1024 - 577
    assert [make_config(size, text_mode="fast").text_length for size in ("large", "base", "tiny")] == [192, 192, 54]


@pytest.mark.parametrize("given, message", [
    ({"size": "huge"}, "size=huge: choose from base, large, small, tiny"),
    ({"score_head": "linaer"}, "score_head is 'linaer' .did you mean 'linear'"),
    ({"mask_head": "conv"}, "mask_head is 'conv'.*choose from concat, last, concat_cls"),
    ({"text_mode": "slow"}, "text_mode is 'slow'.*choose from reference, fast"),
    ({"size": "base", "text_length": 448}, "text_length is 448; legal: 2 to 447, the positions of the trunk without the 577"),
    ({"image_size": 770}, "image_size is 770; legal: multiples of 32 from 32 to 1600"),
    ({"image_size": 128, "score_head": "conv"}, "image_size is 128; legal: multiples of 32 from 160 to 1600")])
def test_illegal_settings(given, message):
    with pytest.raises(UserError, match=message):
        make_config(**given)


@pytest.fixture(scope="module")
def ours():
    return random(Distortion(sizes("linear2", "concat")))


@pytest.fixture(scope="module")
def original_file(ours, tmp_path_factory):
    """last.pth: the trunk under microsoft's names, its encoder beside the rest."""
    state, found = ours.state_dict(), {}
    trunk = microsofts({name.removeprefix("florence2."): value for name, value in state.items() if "florence2." in name})
    for name, value in trunk.items():
        if name.startswith("language_model.model.encoder."):
            found[name.replace("language_model.model.", "florence2.")] = value
        elif not name.startswith("language_model."):
            found[f"florence2.model.{name}"] = value
    for name, value in state.items():
        if not name.startswith("florence2."):
            found[name] = value
            if name.endswith("running_var"):
                found[name.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    assert "florence2.encoder.embed_tokens.weight" in found and "florence2.model.image_projection" in found
    torch.save({"model": found}, path := tmp_path_factory.mktemp("original") / "last.pth")
    return path


def test_the_originals_file_both_ways(backend, ours, original_file, tmp_path):
    network, config = opened(backend, "distortion", original_file)
    assert config == replace(ours_config(ours), image_size=192, text_length=64 - 37)     # which no array tells
    for first, second in zip(network.state_dict().values(), ours.state_dict().values(), strict=True):
        assert torch.equal(first, second)
    convert(original_file, tmp_path / "a.safetensors", "distortion", verify=True)
    convert(tmp_path / "a.safetensors", tmp_path / "last.pth", "distortion", to="torch", verify=True)
    first, again = (torch.load(path)["model"] for path in (original_file, tmp_path / "last.pth"))
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)


def ours_config(network):
    return sizes(network.score_head, "concat" if network.before_too else "last")


def test_settings_stay_with_the_file(backend, ours, tmp_path):
    """What no array tells is in the metadata of a file of ours."""
    config = replace(sizes("linear2", "concat", "fast"), text_length=5)
    describe = {"model": "distortion", "config": dict(CONVERSION.describe(config))}
    write_weights(tmp_path / "a.safetensors", backend.state_numpy(ours), describe)
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "distortion")
    assert read_metadata(tmp_path / "b.safetensors")["config"]["text_mode"] == "fast"
    assert opened(backend, "distortion", tmp_path / "b.safetensors")[1] == config
    damaged = describe | {"config": describe["config"] | {"text_length": 4000}}
    write_weights(tmp_path / "c.safetensors", read_weights(tmp_path / "a.safetensors"), damaged)
    with pytest.raises(UserError, match="its metadata describe no detector of distortion .text_length is 4000; legal"):
        opened(backend, "distortion", tmp_path / "c.safetensors")


def test_another_file_is_refused():
    with pytest.raises(UserError, match="^not the weights of a detector of distortion, such as last.pth of the original"):
        infer_config({"conv1.weight": (64, 3, 7, 7)})


# What peft matches in microsoft's modules by the original's list of names.
LORA_LAYERS = re.compile(r"(convs\.\d\.proj|\.qkv|\.proj|\.fc1|\.fc2|[qkv]_proj)\.(weight|bias)$")


def test_the_originals_file_with_lora(backend, ours, original_file, tmp_path):
    """Each product of LoRA, times 8 / sqrt(rank), is added to its weight."""
    plain, found, expected, rank = torch.load(original_file)["model"], {}, {}, 4
    torch.manual_seed(4)
    for name, value in plain.items():
        if not name.startswith("florence2."):
            found[name] = value
            continue
        path, _, kind = f"florence2.base_model.model.{name.removeprefix('florence2.')}".rpartition(".")
        found[f"{path}.base_layer.{kind}" if LORA_LAYERS.search(name) else f"{path}.{kind}"] = value
        if LORA_LAYERS.search(name) and kind == "weight":
            a = found[f"{path}.lora_A.default.weight"] = torch.randn(rank, *value.shape[1:])
            b = found[f"{path}.lora_B.default.weight"] = torch.randn(len(value), rank, *[1] * (value.ndim - 2))
            change = torch.einsum("or,r...->o...", b.reshape(len(b), -1), a)
            expected[name] = value + 8 / rank ** 0.5 * change
    assert len(expected) == 4 + 4 * 2 * 4 + 5       # patch embeddings, blocks and the one layer of the encoder
    torch.save({"model": found}, tmp_path / "last.pth")
    torch.save({"model": plain | expected}, tmp_path / "merged.pth")
    network, config = opened(backend, "distortion", tmp_path / "last.pth")
    right, same = opened(backend, "distortion", tmp_path / "merged.pth")
    assert config == same
    for (name, first), second in zip(network.state_dict().items(), right.state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, msg=name)
    del found["florence2.base_model.model.encoder.layers.0.fc1.lora_B.default.weight"]
    torch.save({"model": found}, tmp_path / "last.pth")
    with pytest.raises(UserError, match="last.pth: its LoRA is not complete .*fc1.lora_B"):
        CONVERSION.open(tmp_path / "last.pth")


def test_lora_of_our_checkpoints_is_refused(tmp_path):
    torch.save({"model": {"florence2.base_model.model.language_model.encoder.layers.0.fc1.lora_A.default.weight":
                          torch.zeros(8, 64), "score_predictor.fc_layers.6.bias": torch.zeros(1)}}, tmp_path / "last.pth")
    source = CONVERSION.open(tmp_path / "last.pth")
    with pytest.raises(UserError, match="last.pth: it holds LoRA beside the weights of a detector, such as florence2"):
        infer_config(source.arrays.shapes, source)


def test_how_pictures_and_prompts_are_prepared():
    record = preprocess(make_config("large"))
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    assert record(image).shape == (3, 768, 768) and record.resample == "lanczos"
    asked = []

    def tokenizer(texts, **limits):
        asked.append((list(texts), limits))
        return Tokens(np.zeros((1, 2)), np.ones((1, 2)), ())

    for mode in ("reference", "fast"):
        encode_prompts(make_config("base", text_mode=mode), tokenizer, ["a {cat}"])
    (text,), limits = asked[0]
    assert text.startswith("Here's an AI image generated with prompt: a {cat}. \nIdentify unusual")
    assert text.endswith("illogical spatial relationships.\n") and limits == {"length": 447}
    assert asked[1] == ([text], {"at_most": 192})


def test_bfloat16_is_near(backend):
    network = random(Distortion(sizes("linear2_cls", "concat")))
    with torch.no_grad():
        single = network(PIXELS, IDS, KEEP)
        backend.set_precision("bfloat16")
        try:
            half = network(PIXELS, IDS, KEEP)
        finally:
            backend.set_precision("float32")
    for first, second in zip(single, half, strict=True):
        assert second.dtype == torch.float32 and 0 < (first - second).abs().max() < 0.1
