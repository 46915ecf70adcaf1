"""The PyTorch feature networks against plain restatements and published facts; loading their weights."""
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jittwin.errors import UserError
from jittwin.metrics.fid.inception import load_inception
from jittwin.models.apf_gan import Semantics
from jittwin.models.perceptual import load_perceptual
from jittwin.weights import write_weights
from torch_models.backbones.inception_v3 import BasicConv2d, FidInception, InceptionV3
from torch_models.backbones.vgg import VGG19


@pytest.fixture(scope="module")
def vgg(backend):
    return load_perceptual(backend, "vgg", random=True)


@pytest.fixture(scope="module")
def inception(backend):
    return load_perceptual(backend, "inception", random=True)


def image(height: int, width: int, batch: int = 1):
    return torch.rand((batch, 3, height, width), generator=torch.Generator().manual_seed(1)) * 2 - 1


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


def test_vgg_equals_a_plain_sequential_network(vgg):
    layers, channels = [], 3
    for wide in [64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512]:
        if wide == "M":
            layers.append(torch.nn.MaxPool2d(2, 2))
        else:
            layers += [torch.nn.Conv2d(channels, wide, 3, padding=1), torch.nn.ReLU()]
            channels = wide
    plain = torch.nn.Sequential(*layers)
    plain.load_state_dict({k.removeprefix("features."): v for k, v in vgg.network.state_dict().items()})
    x = image(48, 64)
    expected = [plain[:tap + 1](x) for tap in (1, 6, 11, 20, 29)]
    found = vgg.network(x)
    assert [tuple(f.shape[1:]) for f in found] == [
        (64, 48, 64), (128, 24, 32), (256, 12, 16), (512, 6, 8), (512, 3, 4)]
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e)


def test_vgg_has_the_published_number_of_parameters():
    # torchvision's vgg19 has 143,667,240: less the classifier and the last three convolutions.
    classifier = (25088 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 1000 + 1000)
    assert parameters(VGG19()) == 143_667_240 - classifier - 3 * (512 * 512 * 9 + 512)


def test_inception_has_the_published_number_of_parameters():
    # torchvision's inception_v3 has 27,161,264 with auxiliary classifier and fc.
    auxiliary = (768 * 128 + 2 * 128) + (128 * 768 * 25 + 2 * 768) + (768 * 1000 + 1000)
    assert parameters(InceptionV3()) == 27_161_264 - auxiliary - (2048 * 1000 + 1000)


def test_inception_has_torchvisions_keys():
    state = {name: tuple(value.shape) for name, value in InceptionV3().state_dict().items()}
    # 580 there: less fc (2), the auxiliary classifier (2 norm layers and fc: 14) and 94 num_batches_tracked.
    assert len(state) == 580 - 2 - 14 - 94
    assert sum(len(shape) == 4 for shape in state.values()) == 94
    for name, shape in {
            "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3), "Conv2d_4a_3x3.bn.running_var": (192,),
            "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
            "Mixed_5d.branch5x5_2.conv.weight": (64, 48, 5, 5),
            "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
            "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
            "Mixed_6c.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
            "Mixed_6e.branch7x7dbl_5.bn.bias": (192,),
            "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
            "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
            "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
            "Mixed_7c.branch_pool.bn.weight": (192,)}.items():
        assert state[name] == shape


def test_inception_features_have_the_sizes_of_the_published_loss(inception):
    with torch.no_grad():
        sizes = [tuple(f.shape[1:]) for f in inception.network(image(384, 512))]
    assert sizes == [(64, 94, 126), (192, 45, 61), (768, 22, 30), (2048, 1, 1)]


@pytest.mark.parametrize("training", [True, False])
def test_batch_statistics_are_used_in_either_mode_and_nothing_is_recorded(backend, training):
    part = BasicConv2d(3, 4, (1, 7), padding=(0, 3))
    part.bn.batch_statistics = True
    torch.nn.init.normal_(part.conv.weight, generator=torch.Generator().manual_seed(2))
    part.bn.running_mean += 5
    before = {name: value.clone() for name, value in part.state_dict().items()}
    backend.train_mode(part, training)
    x = image(6, 8, batch=2)
    y = F.conv2d(F.pad(x, (3, 3, 0, 0)), part.conv.weight)
    y = (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(part(x), y.clamp(min=0))
    assert all(torch.equal(value, before[name]) for name, value in part.state_dict().items())


def test_stored_statistics_are_used_on_request(backend):
    running = Semantics(inception_bn="running")
    network = load_perceptual(backend, "inception", random=True, semantics=running).network
    with torch.no_grad():
        network.Conv2d_1a_3x3.bn.running_mean += 1
        network.Conv2d_1a_3x3.bn.running_var += 2
        backend.train_mode(network, True)
        x = image(24, 32)
        y = F.conv2d(x, network.Conv2d_1a_3x3.conv.weight, stride=2)
        torch.testing.assert_close(network.Conv2d_1a_3x3(x), ((y - 1) / (3 + 1e-3) ** 0.5).clamp(min=0))
        # One image alone, or with another beside it: the same features.
        pair = image(96, 128, batch=2)
        alone, beside = network(pair[:1])[2], network(pair)[2][:1]
    assert (alone - beside).abs().max() < 1e-4 * beside.square().mean().sqrt()


def test_the_border_of_zeros_counts_in_the_average(inception):
    x = torch.ones(1, 1, 3, 4)
    pooled = inception.network.Mixed_5b.pool(x)
    assert pooled[0, 0, 0, 0].item() == pytest.approx(4 / 9) and pooled[0, 0, 1, 1].item() == pytest.approx(1)


def test_one_value_per_channel_has_no_batch_statistics(inception):
    with pytest.raises(ValueError, match="more than one value"):
        inception.network(image(96, 96))


@pytest.mark.parametrize("kind, size", [("vgg", (48, 64)), ("inception", (96, 128))])
def test_the_network_is_frozen_and_lets_gradients_through(request, backend, kind, size):
    network = request.getfixturevalue(kind).network
    assert not backend.parameters(network)
    x = image(*size).requires_grad_()
    sum(f.square().mean() for f in network(x)).backward()
    assert x.grad.abs().mean() > 0


def test_no_weights_no_loss(backend):
    assert load_perceptual(backend, "vgg") is None


def test_an_untrained_network_says_so_in_the_name_of_the_loss(vgg, inception):
    assert vgg.name == "VGG(random)" and vgg.layer_weights == (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)
    assert inception.name == "Inception(random)" and inception.layer_weights == (1 / 16, 1 / 8, 1 / 4, 1)
    assert vgg.provenance.startswith("random") and inception.provenance.startswith("random")


def test_random_weights_follow_torchvisions_rules(backend, vgg, inception):
    weight = vgg.network.features[28].weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    weight = inception.network.Mixed_7c.branch3x3dbl_2.conv.weight
    assert weight.abs().max() <= 0.2 and weight.std().item() == pytest.approx(0.0880, rel=0.01)
    again = load_perceptual(backend, "vgg", random=True).network.features[28].weight
    other = load_perceptual(backend, "vgg", random=True, seed=1).network.features[28].weight
    assert torch.equal(again, vgg.network.features[28].weight) and not torch.equal(again, other)


def classifier_file(path, network, extra: dict):
    """A file as torchvision publishes it; `extra` holds the shapes of what the feature network lacks."""
    torch.save({**network.state_dict(), **{name: torch.zeros(shape) for name, shape in extra.items()}}, path)
    return path


@pytest.fixture
def vgg_file(tmp_path, vgg):
    return classifier_file(tmp_path / "vgg19-dcbb9e9d.pth", vgg.network, {
        **{f"features.{n}.weight": (1, 1, 3, 3) for n in (30, 32, 34)}, "features.30.bias": (1,),
        "classifier.0.weight": (2, 3), "classifier.6.bias": (2,)})


@pytest.fixture
def inception_file(tmp_path, inception):
    return classifier_file(tmp_path / "inception_v3.pth", inception.network, {
        "AuxLogits.conv0.conv.weight": (1, 1, 1, 1), "fc.weight": (2, 3), "fc.bias": (2,),
        "Mixed_7c.branch_pool.bn.num_batches_tracked": ()})


@pytest.mark.parametrize("kind, name", [("vgg", "VGG"), ("inception", "Inception")])
def test_a_whole_classifier_file_gives_the_features(request, backend, kind, name):
    source = request.getfixturevalue(kind).network.state_dict()
    found = load_perceptual(backend, kind, request.getfixturevalue(f"{kind}_file"), random=True)
    assert found.name == name and re.search(r"\.pth, features sha256 [0-9a-f]{16}$", found.provenance)
    assert all(torch.equal(value, source[key]) for key, value in found.network.state_dict().items())


@pytest.mark.parametrize("kind, wrong", [("vgg", "inception_file"), ("inception", "vgg_file")])
def test_a_file_for_another_network_is_named(request, backend, kind, wrong):
    path = request.getfixturevalue(wrong)
    with pytest.raises(UserError) as caught:
        load_perceptual(backend, kind, path)
    message = str(caught.value)
    assert str(path) in message and "missing" in message and "unexpected" in message and "\n" not in message


def test_a_missing_convolution_is_not_forgiven(backend, tmp_path, vgg):
    state = vgg.network.state_dict()
    del state["features.28.weight"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(UserError, match=r"1 missing: features\.28\.weight"):
        load_perceptual(backend, "vgg", tmp_path / "cut.pth")


def test_an_unknown_kind_gets_the_nearest_name(backend):
    with pytest.raises(UserError, match="did you mean 'inception'"):
        load_perceptual(backend, "inceptoin", random=True)


def test_float16_files_are_widened(backend, tmp_path, vgg):
    torch.save({k: v.half() for k, v in vgg.network.state_dict().items()}, tmp_path / "half.pth")
    weight = load_perceptual(backend, "vgg", tmp_path / "half.pth").network.features[0].weight
    assert weight.dtype == torch.float32 and np.allclose(weight, vgg.network.features[0].weight, atol=1e-3)


@pytest.mark.parametrize("padding, counted", [("excluded", False), ("included", True)])
def test_the_network_of_fid_pools_as_tensorflow_did(padding, counted):
    network, x = FidInception(pool_padding=padding), image(9, 11)
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7b"):
        expected = F.avg_pool2d(x, 3, 1, 1, count_include_pad=counted)
        torch.testing.assert_close(getattr(network, block).pool(x), expected)
    torch.testing.assert_close(network.Mixed_7c.pool(x), F.max_pool2d(x, 3, 1, 1))


def test_the_network_of_fid_resizes_and_rescales(backend):
    inception = load_inception(backend, None, True, "pytorch-fid")
    x = image(96, 128) / 2 + 0.5
    resized = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
    with torch.no_grad():
        found = inception.network(x)
        *_, expected = super(FidInception, inception.network).forward(2 * resized - 1)
    assert found.shape == (1, 2048)
    torch.testing.assert_close(found, expected.flatten(1))


def test_weights_of_fid(backend, tmp_path):
    network = backend.build("inception_fid", None)
    state = backend.state_numpy(network)
    whole = {**state, "fc.weight": np.ones((1008, 2048), np.float32), "fc.bias": np.zeros(1008, np.float32)}
    for name in ("w.pth", "net_params.pkl"):
        write_weights(tmp_path / name, whole)
        loaded = load_inception(backend, tmp_path / name, False, "clean")
        assert not loaded.random and loaded.logits(np.ones((1, 2048), np.float32)).shape == (1, 1008)
    for name, arrays, message in (
            ("other.pth", {**state, "fc.weight": np.ones((1000, 2048), np.float32)}, r"fc.weight is \(1000, 2048\)"),
            ("bare.pth", state, "fc.weight is missing"),
            ("less.pth", {k: a for k, a in whole.items() if k != "Mixed_7c.branch1x1.bn.bias"}, "1 missing: Mixed_7c")):
        write_weights(tmp_path / name, arrays)
        with pytest.raises(UserError, match=message):
            load_inception(backend, tmp_path / name, False, "clean")
