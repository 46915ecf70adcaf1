"""CLIP against transformers' own and OpenAI's network restated: features, files both ways, and the published sizes."""
import json
import math
import warnings
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from opened import opened
from torch import nn

from jittwin.checkpoints.convert import convert
from jittwin.errors import UserError
from jittwin.models.clip import LARGEST_ID, PRESETS, ClipConfig, ClipTextConfig, ClipVisionConfig, infer_config
from jittwin.weights import read_metadata, read_weights, write_weights

# Heads of 64 channels, as in OpenAI's files.
TINY = ClipConfig(ClipTextConfig(60, 64, 2, 1, 48, 16), ClipVisionConfig(128, 3, 2, 96, 16, 64), 24)
END = TINY.text.vocab_size - 1
WORDS = [[58, 7, 3, 12, 41, END, END, END], [58, 3, 9, 9, 2, 30, 11, END], [58, END, END, END, END, END, END, END]]
IDS = torch.tensor(WORDS)
PIXELS = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def network_of(activation: str, end: int):
    """transformers' CLIP with random weights, and the sizes of ours."""
    torch.manual_seed(0)
    text, vision = (replace(part, hidden_act=activation) for part in (TINY.text, TINY.vision))
    config = replace(TINY, text=replace(text, eos_token_id=end), vision=vision)
    theirs = transformers.CLIPModel(transformers.CLIPConfig(
        text_config=vars(config.text) | {"bos_token_id": 58, "pad_token_id": 1}, vision_config=vars(config.vision),
        projection_dim=config.projection_dim, attn_implementation="eager")).eval()
    with torch.no_grad():
        for name, value in theirs.named_parameters():
            spread = value[0].numel() ** -0.5 if value.ndim > 1 and not name.endswith("n_embedding.weight") else 1
            looks = 3 if "q_proj" in name or "k_proj" in name else 1      # at some tokens more than at others
            value.copy_(torch.randn(value.shape) * spread * looks)
    return theirs, config


@pytest.fixture(scope="module", params=[("quick_gelu", LARGEST_ID), ("gelu", END)], ids=["quick_gelu", "gelu"])
def pair(request, backend, tmp_path_factory):
    """(transformers' network, ours from the folder that transformers wrote)."""
    theirs, config = network_of(*request.param)
    theirs.save_pretrained(folder := tmp_path_factory.mktemp("clip"))
    ours, found = opened(backend, "clip", folder)
    assert found == config
    return theirs, ours


def test_it_equals_transformers(pair):
    """The features of pictures and texts, the cosines and the logits. Texts are padded with the id of their end."""
    theirs, ours = pair
    keep = (torch.arange(IDS.shape[1]) <= (IDS == END).int().argmax(1, keepdim=True)).int()
    with torch.no_grad():
        found = theirs(IDS, PIXELS, attention_mask=keep)
        torch.testing.assert_close(ours.image_features(PIXELS), found.image_embeds, rtol=0, atol=2e-6)
        torch.testing.assert_close(ours.text_features(IDS), found.text_embeds, rtol=0, atol=2e-6)
        torch.testing.assert_close(ours(PIXELS, IDS) * ours.scale(), found.logits_per_image.diag(), rtol=0, atol=5e-6)
    assert all((each[0] - each[1]).abs().max() > 0.01 for each in (found.text_embeds, found.image_embeds))


def test_what_follows_the_end_of_a_text_is_not_seen(pair):
    _, ours = pair
    with torch.no_grad():
        short, long = ours.text_features(IDS[:1, :6]), ours.text_features(IDS[:1])
        torch.testing.assert_close(short, long, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name, numbers, tensors", [("l14", 427_616_513, 590), ("h14", 986_109_441, 910)])
def test_the_published_sizes(backend, name, numbers, tensors):
    shapes = backend.state_shapes("clip", PRESETS[name])
    assert (sum(map(math.prod, shapes.values())), len(shapes)) == (numbers, tensors)
    assert PRESETS[name].name == {"l14": "CLIP ViT-L/14", "h14": "CLIP ViT-H/14"}[name]


def test_a_folder_of_the_hub_as_transformers_4_wrote_it(backend, tmp_path):
    """Shards, numbers of places among the weights, and a config.json that says its sizes twice."""
    theirs, config = network_of("gelu", LARGEST_ID)
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    state |= {"text_model.embeddings.position_ids": np.arange(16)[None],
              "vision_model.embeddings.position_ids": np.arange(17)[None]}
    names = sorted(state)
    shards = {"model-1.safetensors": names[:40], "model-2.safetensors": names[40:]}
    for shard, part in shards.items():
        write_weights(tmp_path / shard, {name: state[name] for name in part})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(
        {"weight_map": {name: shard for shard, part in shards.items() for name in part}}))
    found = theirs.config.to_dict()
    for part in ("text_config", "vision_config"):
        found[f"{part}_dict"] = {key: found[part].pop(key) for key in ("hidden_size", "num_hidden_layers")}
    (tmp_path / "config.json").write_text(json.dumps(found))
    ours, read = opened(backend, "clip", tmp_path)
    assert read == config
    with torch.no_grad():
        torch.testing.assert_close(ours.text_features(IDS), theirs(IDS, PIXELS).text_embeds, rtol=0, atol=2e-6)


# ---- OpenAI's files ------------------------------------------------------------------

class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """A block of OpenAI's: tokens (N, B, C), with torch.nn's own attention."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=nn.Linear(width, hidden), gelu=QuickGELU(),
                                             c_proj=nn.Linear(hidden, width)))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x, mask: torch.Tensor | None = None):
        seen = self.ln_1(x)
        x = x + self.attn(seen, seen, seen, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.resblocks = nn.Sequential(*[Block(config.hidden_size, config.num_attention_heads, config.intermediate_size)
                                         for _ in range(config.num_hidden_layers)])

    def forward(self, x, mask: torch.Tensor | None = None):
        x = x.transpose(0, 1)
        for block in self.resblocks:
            x = block(x, mask)
        return x.transpose(0, 1)


class Visual(nn.Module):
    def __init__(self, config, dim: int):
        super().__init__()
        width = config.hidden_size
        self.conv1 = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(config.tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(config)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, dim))

    def forward(self, x):
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class OpenAI(nn.Module):
    """OpenAI's network from the paper and the names of its file: pictures and texts to features."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        text, dim = config.text, config.projection_dim
        self.visual = Visual(config.vision, dim)
        self.transformer = Transformer(text)
        self.token_embedding = nn.Embedding(text.vocab_size, text.hidden_size)
        self.positional_embedding = nn.Parameter(torch.randn(text.max_position_embeddings, text.hidden_size))
        self.ln_final = nn.LayerNorm(text.hidden_size)
        self.text_projection = nn.Parameter(torch.randn(text.hidden_size, dim))
        self.logit_scale = nn.Parameter(torch.tensor(2.5))
        for name, size in (("input_resolution", config.vision.image_size), ("vocab_size", text.vocab_size),
                           ("context_length", text.max_position_embeddings)):
            self.register_buffer(name, torch.tensor(size))

    def forward(self, pixels, ids):
        length = ids.shape[1]
        mask = torch.full((length, length), float("-inf")).triu(1)
        x = self.transformer(self.token_embedding(ids) + self.positional_embedding[:length], mask)
        x = self.ln_final(x)[torch.arange(ids.shape[0]), ids.argmax(-1)]
        return self.visual(pixels), x @ self.text_projection


@pytest.fixture(scope="module")
def openai():
    """Half precision in the arrays that have it in OpenAI's files; the network itself computes in float32."""
    torch.manual_seed(5)
    network = OpenAI(TINY).eval()
    halves = set()
    with torch.no_grad():
        for name, value in network.named_parameters():
            value += 0.1 * torch.randn(value.shape)
            if value.ndim > 1 and "embedding" not in name or name.endswith(("in_proj_bias", "out_proj.bias")):
                value.copy_(value.half())
                halves.add(name)
    return network, halves


@pytest.fixture(scope="module")
def archive(openai, tmp_path_factory):
    """A TorchScript archive with OpenAI's names and types."""
    network, halves = openai
    path = tmp_path_factory.mktemp("openai") / "ViT-L-14.pt"
    stored = OpenAI(TINY)
    stored.load_state_dict(network.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # TorchScript is deprecated, but OpenAI's file is written in it
        script = torch.jit.trace(stored.eval(), (PIXELS, IDS), check_trace=False)
    parts = dict(script.named_parameters())
    for name in halves:
        parts[name].data = parts[name].data.half()
    script.save(path)
    assert {str(array.dtype) for array in read_weights(path).values()} == {"float16", "float32", "int64"}
    return path


def test_openais_archive(backend, openai, archive):
    ours, config = opened(backend, "clip", archive)
    assert config == TINY
    with torch.no_grad():
        image, text = openai[0](PIXELS, IDS)
        torch.testing.assert_close(ours.image_features(PIXELS), image / image.norm(dim=1, keepdim=True), rtol=0,
                                   atol=2e-6)
        torch.testing.assert_close(ours.text_features(IDS), text / text.norm(dim=1, keepdim=True), rtol=0, atol=2e-6)


def test_a_state_dictionary_with_openais_names(backend, openai, archive, tmp_path):
    """The same arrays, also wrapped by a trainer."""
    expected = backend.state_numpy(opened(backend, "clip", archive)[0])
    for prefix in ("", "module."):
        state = {prefix + name: value for name, value in openai[0].state_dict().items()}
        torch.save({"state_dict": state} if prefix else state, tmp_path / "a.pt")
        found = backend.state_numpy(opened(backend, "clip", tmp_path / "a.pt")[0])
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_conversion_to_openai_and_back(openai, archive, tmp_path):
    report = convert(archive, tmp_path / "ours.safetensors", "clip", verify=True)
    assert set(report.dropped) == {"input_resolution", "vocab_size", "context_length"}
    assert dict(report.dtypes) == {"float32": report.tensors}
    convert(tmp_path / "ours.safetensors", tmp_path / "openai.pt", "clip", to="torch", verify=True)
    network = OpenAI(TINY)
    kept = torch.load(tmp_path / "openai.pt", weights_only=True)
    assert network.load_state_dict(kept, strict=False).missing_keys == ["input_resolution", "vocab_size",
                                                                        "context_length"]
    expected = openai[0].state_dict()
    assert all(torch.equal(kept[name], expected[name]) for name in kept)
    convert(tmp_path / "openai.pt", tmp_path / "again.safetensors", "clip")
    first, again = (read_weights(tmp_path / f"{name}.safetensors") for name in ("ours", "again"))
    assert first.keys() == again.keys() and all(np.array_equal(first[name], again[name]) for name in first)
    assert read_metadata(tmp_path / "again.safetensors")["config"]["vision"]["hidden_act"] == "quick_gelu"


# ---- files of others -----------------------------------------------------------------

@pytest.mark.parametrize("change, message", [
    ({"model_type": "siglip"}, "model_type 'siglip'; legal: clip, such as openai/clip-vit-large-patch14"),
    ({"text_config": {"hidden_act": "relu"}}, "text_config hidden_act is 'relu'; legal: quick_gelu or gelu"),
    ({"vision_config": {"image_size": "64"}}, "vision_config image_size is '64'; legal: a number"),
    ({"vision_config": [1]}, "its vision_config is no object"),
    ({"vision_config": {"num_attention_heads": 7}}, "not the weights of a CLIP .*7 heads do not divide a width")])
def test_a_config_of_another_model_is_refused(backend, tmp_path, change, message):
    theirs, _ = network_of("gelu", END)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        opened(backend, "clip", tmp_path)


def test_arrays_alone_tell_openais_networks_only(backend, tmp_path):
    theirs, _ = network_of("gelu", END)
    write_weights(tmp_path / "a.safetensors", {name: value.numpy() for name, value in theirs.state_dict().items()})
    with pytest.raises(UserError, match="a.safetensors: arrays alone do not tell a CLIP's heads and activation"):
        opened(backend, "clip", tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="^not the weights of a CLIP with a vision transformer, such as .*embedding"):
        infer_config({"conv1.weight": (64, 3, 7, 7)})
