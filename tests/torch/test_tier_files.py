"""TIER's files: the original's best_model.pt, as PyTorch writes and reads it, against ours and back."""
import numpy as np
import pytest
import torch
import transformers
from opened import opened
from test_resnet import torchvision_name
from torch import nn

from jittwin.checkpoints.convert import convert
from jittwin.errors import UserError
from jittwin.models.bert import BertConfig
from jittwin.models.resnet import ResNetConfig
from jittwin.models.tier import make_config
from jittwin.models.tier_keys import CONVERSION, describe
from jittwin.weights import content_hash, read_metadata, read_weights, write_weights

TEXT = BertConfig(vocab_size=60, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=48,
                  max_position_embeddings=16)
IMAGE = ResNetConfig((1, 1, 1, 1), (8, 12, 16, 20))


class Original(nn.Module):
    """The networks of others, put together as the original does."""

    def __init__(self, width: int, text: bool = True):
        super().__init__()
        self.image = transformers.ResNetModel(transformers.ResNetConfig(
            embedding_size=8, depths=IMAGE.depths, hidden_sizes=IMAGE.widths, layer_type="basic"))
        if text:
            self.text = transformers.BertModel(transformers.BertConfig(
                vocab_size=60, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=48,
                max_position_embeddings=16, attn_implementation="eager"))
        self.regressor = nn.ModuleDict({"fc1": nn.Linear(width, width // 2), "fc2": nn.Linear(width // 2, 1)})

    def forward(self, pixels, ids, keep):
        hidden = self.text(ids, attention_mask=keep).last_hidden_state * keep[:, :, None]
        text = hidden.sum(1) / keep.sum(1, keepdim=True)
        x = torch.cat([text, self.image(pixels).pooler_output.flatten(1)], 1)
        return self.regressor["fc2"](self.regressor["fc1"](x).relu()).view(-1)

    def saved(self, path):
        """Written as the original's training script does, counters and optimizer included."""
        image = {torchvision_name(name): value for name, value in self.image.state_dict().items()}
        adam = torch.optim.Adam(self.parameters())
        self.image(torch.randn(2, 3, 32, 32)).pooler_output.sum().backward()
        adam.step()
        encoder = {f"text_encoder.{name}": value for name, value in self.text.state_dict().items()} | {
            f"image_encoder.{name}": value for name, value in image.items()} if hasattr(self, "text") else image
        torch.save({"epoch": 7, ("encoder" if hasattr(self, "text") else "backbone"): encoder,
                    "regressor": self.regressor.state_dict(), "optimizer": adam.state_dict(),
                    "rho_best": np.float64(0.75)}, path)
        return self.eval()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("original") / "best_model.pt"
    return Original(64 + 20).saved(path), path


def test_there_and_back(backend, theirs, tmp_path):
    network, path = theirs
    ours, again = tmp_path / "tier.safetensors", tmp_path / "again.pt"
    report = convert(path, ours, "tier", verify=True, mode="pr")
    content = torch.load(path, weights_only=False)
    assert report.tensors == len(content["encoder"]) + len(content["regressor"]) and not report.dropped
    assert read_metadata(ours)["model"] == "tier"
    module, config = opened(backend, "tier", ours)
    assert (config.mode, config.backbone, config.text, config.image) == ("pr", "resnet18", TEXT, IMAGE)
    keep = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).int()
    ids, pixels = torch.randint(1, 60, (2, 4)), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = module(pixels, ids, keep, None, np.array([[1, 0], [1, 0]]))
        torch.testing.assert_close(found, network(pixels, ids, keep), rtol=1e-5, atol=1e-6)
    convert(ours, again, "tier", to="torch", verify=True)
    back = torch.load(again, weights_only=True)
    assert (back["epoch"], back["rho_best"]) == (7, 0.75) and set(back) == set(content) - {"optimizer"}
    for part in ("encoder", "regressor"):
        assert list(back[part]) == list(content[part])
        assert all(torch.equal(back[part][name], value) for name, value in content[part].items())
    convert(again, tmp_path / "third.safetensors", "tier", mode="pr")
    assert content_hash(read_weights(tmp_path / "third.safetensors")) == report.sha256


def test_a_baseline(backend, tmp_path):
    torch.manual_seed(0)
    Original(40, text=False).saved(tmp_path / "best_model.pt")
    convert(tmp_path / "best_model.pt", tmp_path / "b.safetensors", "tier", verify=True)
    _, config = opened(backend, "tier", tmp_path / "b.safetensors")
    assert (config.mode, config.text, config.image.negative_slope) == ("fr", None, 0.01)
    convert(tmp_path / "b.safetensors", tmp_path / "b.pt", "tier", to="torch")
    assert set(torch.load(tmp_path / "b.pt", weights_only=True)) == {"epoch", "backbone", "regressor", "rho_best"}


def test_a_file_with_metadata_tells_its_mode_and_sizes(backend, tmp_path):
    config = make_config("pr", "vit", "tiny", legacy_pr_batch=True)
    arrays = {key: np.zeros(shape, np.float32) for key, shape in backend.state_shapes("tier", config).items()}
    write_weights(tmp_path / "a.safetensors", arrays, {"model": "tier", "config": describe(config)})
    source = CONVERSION.open(tmp_path / "a.safetensors")
    assert CONVERSION.infer(source.arrays.shapes, source) == config
    source = CONVERSION.open(tmp_path / "a.safetensors", "nr")
    with pytest.raises(UserError, match="a.safetensors: mode nr is asked for, and its metadata say pr"):
        CONVERSION.infer(source.arrays.shapes, source)


@pytest.mark.parametrize("options, message", [
    ({}, "best_model.pt: modes nr and pr have the same arrays, and it does not tell.*--mode"),
    ({"mode": "fr"}, "best_model.pt: mode fr is asked for, and its arrays are of mode nr or pr"),
    ({"mode": "np"}, "unknown --mode 'np'.*choose from nr, fr, pr"),
    ({"model": "resnet", "mode": "nr"}, "--mode is for --model tier, not resnet"),
    ({"model": "resnet"}, r"best_model.pt: holds several state dictionaries \(encoder, regressor\)"),
    ({"mode": "nr", "to": "torch", "dst": "a.safetensors"}, "a.safetensors: the form of the original tier.*NAME.pt")])
def test_mistakes(theirs, tmp_path, options, message):
    options = {"model": "tier", "dst": "a.pt", **options}
    with pytest.raises(UserError, match=message):
        convert(theirs[1], tmp_path / options.pop("dst"), options.pop("model"), **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change, message", [
    ({"regressor.fc1.weight": (9, 90)}, "its regressor.fc1.weight has 90 inputs; legal beside its resnet18: 84 or 104"),
    ({"regressor.fc1.weight": None}, r"not the weights of a TIER .*regressor.fc1.weight is missing; give best_model.pt"),
    ({"encoder.image_encoder.conv1.weight": None}, r"not the weights of a TIER .*encoder.image_encoder.\* of a known"),
    ({"encoder.image_encoder.layer1.0.conv2.weight": None}, "not the weights of a TIER: not the weights of a ResNet"),
    ({"encoder.text_encoder.embeddings.word_embeddings.weight": None}, "not the weights of a TIER: not the weights of"),
    ({"encoder.image_encoder.layer3.0.bn1.bias": None}, "not an tier: 1 missing: encoder.image_encoder.layer3.0.bn1"),
    ({"regressor.fc3.bias": (3,)}, "not an tier: 1 unexpected: regressor.fc3.bias"),
    ({"regressor.fc2.weight": (2, 42)}, r"not an tier: 1 of another shape: regressor.fc2.weight \(2, 42\) instead")])
def test_files_of_something_else(backend, tmp_path, change, message):
    shapes = backend.state_shapes("tier", make_config("nr", "resnet18", "tiny", TEXT)) | change
    write_weights(tmp_path / "a.pth", {key: np.zeros(shape, np.int8) for key, shape in shapes.items()
                                       if shape is not None})
    with pytest.raises(UserError, match=f"a.pth: {message}"):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors", "tier", mode="nr")
