"""The Jittor feature networks against the classifiers that ship with Jittor; loading their weights."""
import importlib

import numpy as np
import pytest

from jittwin.errors import UserError
from jittwin.models.apf_gan import Semantics
from jittwin.models.perceptual import NETWORKS, load_perceptual
from jittwin.weights import write_weights
from jt_models.boot import jt


@pytest.fixture(scope="module")
def networks(backend):
    """Untrained networks by kind; Inception with stored statistics, like the classifier in eval mode."""
    return {kind: load_perceptual(backend, kind, random=True, semantics=Semantics(inception_bn="running"))
            for kind in NETWORKS}


def image(height: int, width: int):
    return jt.array(np.random.default_rng(1).uniform(-1, 1, (1, 3, height, width)).astype(np.float32))


def shipped(name: str, network, **options):
    """Jittor's classifier with the weights of ours; every one of ours must have a place there."""
    # Imported here, because jt_models.boot has to import Jittor first.
    classifier = getattr(importlib.import_module("jittor.models"), name)(pretrained=False, **options)
    state = classifier.state_dict()
    for name, value in network.state_dict().items():
        assert state[name].shape == value.shape
        state[name].update(value)
    classifier.eval()
    return classifier


def close(ours, theirs, limit: float = 1e-4):
    ours, theirs = ours.numpy(), theirs.numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < limit * np.sqrt(np.mean(np.square(theirs)))


def test_vgg_equals_the_shipped_one(networks):
    network = networks["vgg"].network
    layers = list(shipped("vgg19", network).features)
    x = image(48, 64)
    for tap, feature in zip((1, 6, 11, 20, 29), network(x), strict=True):
        y = x
        for layer in layers[:tap + 1]:
            y = layer(y)
        close(feature, y)


def test_inception_equals_the_shipped_one(networks):
    network = networks["inception"].network
    # Below 192 pixels of height Jittor's own pool refuses the last maps.
    with jt.no_grad():
        x = image(192, 256)
        features, classifier = network(x), shipped("inception_v3", network, aux_logits=False)
        seen = {}
        for name in ("Mixed_6e", "Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_7c"):
            getattr(classifier, name).register_forward_hook(
                lambda module, inputs, output, name=name: seen.setdefault(name, output))
        classifier(x)
        close(features[0], jt.nn.pool(seen["Conv2d_2b_3x3"], 3, "maximum", stride=2))
        close(features[1], jt.nn.pool(seen["Conv2d_4a_3x3"], 3, "maximum", stride=2))
        close(features[2], seen["Mixed_6e"])
        close(features[3].reshape(1, 2048), seen["Mixed_7c"].mean(3).mean(2))
        assert (features[2].numpy() > 0).mean() > 0.1


def test_the_network_is_frozen_and_lets_gradients_through(networks):
    network, x = networks["vgg"].network, image(48, 64)
    assert not any(value.requires_grad for value in network.state_dict().values())
    gradient = jt.grad(sum((f * f).mean() for f in network(x)), x)
    assert np.abs(gradient.numpy()).mean() > 0


def test_loading_keeps_the_network_frozen(backend, networks, tmp_path):
    path = tmp_path / "features.safetensors"
    source = backend.state_numpy(networks["vgg"].network)
    write_weights(path, source, {})
    loaded = load_perceptual(backend, "vgg", path)
    assert loaded.name == "VGG"
    found = backend.state_numpy(loaded.network)
    assert all(np.array_equal(value, source[name]) for name, value in found.items())
    assert not any(value.requires_grad for value in loaded.network.state_dict().values())


def test_a_file_for_another_network_is_named(backend, networks, tmp_path):
    path = tmp_path / "vgg.safetensors"
    write_weights(path, backend.state_numpy(networks["vgg"].network), {})
    with pytest.raises(UserError) as caught:
        load_perceptual(backend, "inception", path)
    assert str(path) in str(caught.value)


def test_batch_statistics_leave_the_stored_ones_alone(backend):
    network = load_perceptual(backend, "inception", random=True).network
    before = backend.state_numpy(network)
    backend.train_mode(network, True)
    trained = network(image(128, 160))[2].numpy()
    backend.train_mode(network, False)
    assert np.array_equal(network(image(128, 160))[2].numpy(), trained)
    assert all(np.array_equal(value, before[name]) for name, value in backend.state_numpy(network).items())
    with pytest.raises(ValueError, match="more than one value"):
        network(image(96, 96))
