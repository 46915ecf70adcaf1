"""Where plain Jittor departs from PyTorch, our layer does not: one test per entry of the catalogue.

A test is named after the entry that it repairs. What is right is a closed form or NumPy in float64;
where it is cheap, the test also shows that plain Jittor still gives something else, so a repair that
has become needless is noticed. P1, P2 and P11, and the rest of P5, are in test_boot.py, the optimizers
in test_catalogue_optimizers.py.
"""
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jittwin.errors import UserError
from jt_models.boot import jt, nn
from jt_models.nn import layers, ops

ROOT = Path(__file__).resolve().parents[2]


def f32(*values):
    return np.array(values, np.float32)


def gradient(function, values):
    x = jt.array(np.asarray(values, np.float32))
    return jt.grad(function(x).sum(), x).numpy()


def normal(shape, mean=0.0, deviation=1.0):
    return (mean + deviation * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def normalized(x, axes, eps=1e-5):
    x = x.astype(np.float64)
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axes, keepdims=True) + eps)


# Process

def test_P3_tanh_within_four_units_in_the_last_place():
    x = np.linspace(-6, 6, 4097, dtype=np.float32)
    truth = np.tanh(x.astype(np.float64))
    wrong = np.abs(ops.tanh(jt.array(x)).numpy() - truth) / np.spacing(np.abs(truth).astype(np.float32))
    assert wrong.max() < 4


def test_P5_import_keeps_the_seeds_of_random_and_numpy():
    code = ("import random, numpy; random.seed(1); numpy.random.seed(1); import jt_models.boot;"
            "print(random.random(), numpy.random.rand())")
    seen = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    expected = [random.Random(1).random(), np.random.RandomState(1).rand()]
    assert [float(number) for number in seen.stdout.split()] == expected


def test_P6_asarray_keeps_64_bits(backend):
    large, fine = np.array([2 ** 31 + 5], np.int64), np.array([1 + 2.0 ** -40])
    assert backend.numpy(backend.asarray(large)).tolist() == large.tolist()
    assert backend.numpy(backend.asarray(fine)).tolist() == fine.tolist()
    assert jt.array(large).numpy()[0] != large[0] and jt.array(fine).numpy()[0] != fine[0]


def test_P10_scalars_become_python_floats(backend):
    total = ops.mean(jt.array(f32(1, 2)))
    assert total.shape == [1]
    assert backend.scalar(total) == 1.5


# Modules and state

def test_S1_buffers_are_not_parameters(backend):
    norm = layers.BatchNorm2d(2)
    assert list(backend.parameters(norm)) == ["weight", "bias"]
    everything = backend.parameters(norm, trainable_only=False)
    assert set(everything) == {"weight", "bias", "running_mean", "running_var"}
    conv = layers.SpectralConv2d(2, 3, 3)
    assert list(backend.parameters(conv)) == ["bias", "weight_orig"]
    assert len(nn.BatchNorm(2).parameters()) == 4


def test_S3_loading_is_strict(backend):
    conv = layers.Conv2d(2, 2, 1)
    good = {"weight": normal((2, 2, 1, 1)), "bias": normal(2)}
    backend.load_numpy(conv, good)
    np.testing.assert_array_equal(backend.state_numpy(conv)["bias"], good["bias"])
    for change, words in [({"weight": None}, "1 missing: weight"),
                          ({"extra": good["bias"]}, "1 unexpected: extra"),
                          ({"bias": normal(3)}, r"1 of another shape: bias \(3,\) instead of \(2,\)")]:
        bad = {name: array for name, array in {**good, **change}.items() if array is not None}
        with pytest.raises(UserError, match=words):
            backend.load_numpy(conv, bad)
    conv.load_state_dict({"weight": jt.array(normal(5)), "odd": jt.array(normal(1))})


def test_S4_loading_half_precision_keeps_float32(backend):
    conv = layers.Conv2d(1, 1, 1)
    half = {"weight": np.full((1, 1, 1, 1), 0.1, np.float16), "bias": np.zeros(1, np.float64)}
    backend.load_numpy(conv, half)
    assert {str(value.dtype) for value in conv.state_dict().values()} == {"float32"}
    assert backend.state_numpy(conv)["weight"] == np.float32(np.float16(0.1))
    plain = nn.Conv(1, 1, 1)
    plain.load_state_dict(half)
    assert str(plain.weight.dtype) == "float16"


def test_S9_evaluation_mode_keeps_the_gradients(backend):
    def weight_gradient(net):
        return jt.grad((net(jt.ones((1, 1, 2, 2))) * 3).sum(), net.weight).numpy().sum()

    net, plain = layers.Conv2d(1, 1, 1), nn.Conv(1, 1, 1)
    backend.train_mode(net, False)
    plain.eval()
    assert weight_gradient(net) == 12
    assert weight_gradient(plain) == 0


def test_S10_modes_reach_every_part_and_a_fresh_network_trains(backend):
    net = layers.Sequential(layers.Sequential(layers.BatchNorm2d(1)), layers.ModuleList([layers.ReLU()]))
    assert all(part.is_training() for part in net.modules())
    backend.train_mode(net, False)
    assert not any(part.is_training() for part in net.modules())
    backend.train_mode(net, True)
    assert all(part.is_training() for part in net.modules())


def test_S13_loading_after_the_optimizer_was_built_keeps_the_parameters_trained(backend):
    conv = layers.Conv2d(1, 1, 1)
    optimizer = backend.optimizer("sgd", [{"params": backend.parameters(conv), "lr": 0.5}])
    backend.load_numpy(conv, {"weight": f32(2).reshape(1, 1, 1, 1), "bias": f32(0)})
    backend.step(optimizer, conv(jt.ones((1, 1, 1, 1))).sum())
    assert backend.state_numpy(conv)["weight"].ravel() == [1.5]


def test_S14_a_parameter_that_the_loss_does_not_reach_has_no_gradient(backend):
    used, unused = jt.array(f32(1)), jt.array(f32(1))
    optimizer = backend.optimizer("sgd", [{"params": {"used": used, "unused": unused}, "lr": 1.0}])
    optimizer.accumulate((used * used).sum())
    assert list(optimizer.gradients) == ["used"]
    assert jt.grad((used * used).sum(), unused).numpy() == [0]


def test_S15_batch_norm_without_affine_stores_its_statistics_only():
    assert set(layers.BatchNorm2d(3, affine=False).state_dict()) == {"running_mean", "running_var"}


def test_S16_lists_of_modules_are_stored_and_loaded(backend):
    net = layers.Sequential(layers.ModuleList([layers.Conv2d(1, 1, 1), layers.Conv2d(1, 1, 1)]))
    arrays = {name: normal(value.shape) for name, value in net.state_dict().items()}
    assert list(arrays) == ["0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias"]
    backend.load_numpy(net, arrays)
    for name, value in backend.state_numpy(net).items():
        np.testing.assert_array_equal(value, arrays[name])


# Reductions and normalisation

def test_N1_long_sums_do_not_drift(backend):
    x = normal((8, 64, 64, 64), mean=1)
    truth = x.astype(np.float64).mean()
    plain = backend.scalar(jt.array(x.ravel()).sum()) / x.size
    assert backend.scalar(ops.mean(jt.array(x))) == pytest.approx(truth, rel=1e-6)
    assert abs(plain / truth - 1) > 1e-6


def test_N2_the_mean_of_ones_is_one(backend):
    ones = jt.ones((1, 3, 321, 481))
    assert backend.scalar(ops.mean(ones)) == 1
    assert backend.numpy(ops.mean_dims(ones, (3, 2, 1))).ravel() == [1]
    assert abs(backend.scalar(ones.mean()) - 1) > 1e-3


def test_N3_variance_two_pass():
    x = normal((4, 2, 64, 64), mean=1000)
    truth = normalized(x, (0, 2, 3))
    assert np.abs(layers.BatchNorm2d(2, affine=False)(jt.array(x)).numpy() - truth).max() < 1e-4
    assert np.abs(nn.BatchNorm(2, affine=False)(jt.array(x)).numpy() - truth).max() > 1
    truth = normalized(x, (2, 3))
    assert np.abs(layers.InstanceNorm2d()(jt.array(x)).numpy() - truth).max() < 1e-4
    assert np.abs(nn.InstanceNorm2d(2, affine=False)(jt.array(x)).numpy() - truth).max() > 1


def test_N3_gradient_of_the_normalisation():
    x, weight = normal((2, 2, 3, 4), mean=5), normal((2, 2, 3, 4))[::-1].copy()
    for layer, axes in ((layers.BatchNorm2d(2, affine=False), (0, 2, 3)), (layers.InstanceNorm2d(), (2, 3))):
        y, w = normalized(x, axes), weight.astype(np.float64)
        deviation = np.sqrt(x.astype(np.float64).var(axes, keepdims=True) + 1e-5)
        # dx = (w - mean(w) - y mean(w y)) / sigma, as in Ioffe and Szegedy 2015
        truth = (w - w.mean(axes, keepdims=True) - y * (w * y).mean(axes, keepdims=True)) / deviation
        seen = gradient(lambda t: layer(t) * jt.array(weight), x)
        np.testing.assert_allclose(seen, truth, atol=2e-6 * np.abs(truth).max())


def test_N4_running_variance_is_unbiased_unless_asked():
    x = jt.array(f32(1, 2, 3, 4).reshape(2, 2, 1, 1))
    for kind, variance in (("unbiased", 1.1), ("biased", 1.0)):
        norm = layers.BatchNorm2d(2, running_variance=kind)
        norm(x)
        np.testing.assert_allclose(norm.running_mean.numpy(), [0.2, 0.3], rtol=1e-6)
        np.testing.assert_allclose(norm.running_var.numpy(), [variance] * 2, rtol=1e-6)
    plain = nn.BatchNorm(2)
    plain(x)
    np.testing.assert_allclose(plain.running_var.numpy(), [1, 1], rtol=1e-5)


def test_N4_evaluation_uses_the_running_statistics(backend):
    norm = layers.BatchNorm2d(1, eps=0.0)
    backend.load_numpy(norm, {"weight": f32(3), "bias": f32(1),
                              "running_mean": f32(2), "running_var": f32(4)})
    backend.train_mode(norm, False)
    np.testing.assert_allclose(norm(jt.array(f32(2, 4).reshape(1, 1, 1, 2))).numpy().ravel(), [1, 4])
    assert backend.state_numpy(norm)["running_mean"] == [2]


def test_N5_batch_norm_refuses_a_single_value_per_channel():
    with pytest.raises(ValueError, match="more than one value per channel"):
        layers.BatchNorm2d(2)(jt.ones((1, 2, 1, 1)))
    assert nn.BatchNorm(2)(jt.ones((1, 2, 1, 1)) * 5).numpy().shape == (1, 2, 1, 1)


def test_N6_instance_norm_has_no_parameters_by_default():
    assert not layers.InstanceNorm2d().state_dict()
    assert set(nn.InstanceNorm2d(2).state_dict()) == {"weight", "bias"}


# Layers and functions

@pytest.mark.parametrize("size, windows", [((1, 1), [[1]]), ((2, 2), [[2.5]]), ((3, 2), [[2.5], [4.5]])])
def test_F2_pools_accept_inputs_no_larger_than_the_window(size, windows):
    x = np.arange(1, 1 + size[0] * size[1], dtype=np.float32).reshape(1, 1, *size)
    mean = ops.avg_pool2d(jt.array(x), 3, 2, 1, count_include_pad=False).numpy()[0, 0]
    np.testing.assert_allclose(mean, windows)
    assert ops.max_pool2d(jt.array(-x), 3, 2, 1).numpy()[0, 0, 0, 0] == -1
    with pytest.raises(RuntimeError, match="larger than kernel_size"):
        nn.pool(jt.array(x), 3, "mean", 1, 2)


def test_F4_the_divisor_of_average_pooling_can_leave_the_padding_out():
    ones = jt.ones((1, 1, 4, 4))
    included, excluded = (ops.avg_pool2d(ones, 3, 2, 1, flag).numpy()[0, 0] for flag in (True, False))
    np.testing.assert_allclose(included, [[4 / 9, 6 / 9], [6 / 9, 1]], rtol=1e-6)
    np.testing.assert_allclose(excluded, np.ones((2, 2)), rtol=1e-6)
    plain = nn.AvgPool2d(3, 2, 1, count_include_pad=False)(ones).numpy()
    assert plain[0, 0, 0, 0] == pytest.approx(4 / 9)


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (16, 24), (13, 7)])
def test_F6_interpolation_is_nearest_by_default_and_takes_the_size_as_it_is(size):
    x = normal((2, 1, 8, 12))
    rows, columns = (np.arange(n) * old // n for n, old in zip(size, (8, 12)))
    np.testing.assert_array_equal(ops.interpolate(jt.array(x), size).numpy(), x[:, :, rows][:, :, :, columns])
    smooth = nn.interpolate(jt.array(x), size=size).numpy()
    assert np.abs(smooth - x[:, :, rows][:, :, :, columns]).max() > 0.1


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (16, 24), (13, 7)])
def test_F6_bilinear_has_half_pixel_centres(size):
    def weights(new, old):
        """(new, old) matrix of linear interpolation at ((i + 0.5) old / new - 0.5), clamped to the image."""
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old)))

    x = normal((2, 1, 8, 12))
    truth = weights(size[0], 8) @ x.astype(np.float64) @ weights(size[1], 12).T
    np.testing.assert_allclose(ops.interpolate(jt.array(x), size, "bilinear").numpy(), truth, atol=3e-6)


def test_F7_upsample2_repeats_pixels_and_its_gradient_adds_them():
    x = normal((1, 2, 2, 3))
    np.testing.assert_array_equal(ops.upsample2(jt.array(x)).numpy(), x.repeat(2, 2).repeat(2, 3))
    np.testing.assert_array_equal(gradient(ops.upsample2, x), np.full(x.shape, 4))


def test_F13_leaky_relu_takes_a_slope_and_its_gradient_at_zero_is_the_slope():
    x = f32(-2, 0, 3)
    np.testing.assert_allclose(layers.LeakyReLU(0.2)(jt.array(x)).numpy(), [-0.4, 0, 3], rtol=1e-6)
    np.testing.assert_allclose(gradient(lambda t: ops.leaky_relu(t, 0.2), x), [0.2, 0.2, 1], rtol=1e-6)


def test_F18_device_noise_is_seeded_and_leaves_other_generators_alone(backend):
    state = random.getstate(), np.random.get_state()[1].tolist()
    draws = []
    for seed in (5, 5, 6):
        backend.seed(seed)
        draws.append(backend.numpy(backend.randn((2, 3))))
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).all()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state


# Gradients at ties

def test_G1_the_l1_loss_has_no_gradient_where_both_agree():
    x, y = f32(1, 2, 3, 4), jt.array(f32(1, 5, 3, 1))
    np.testing.assert_array_equal(gradient(lambda t: ops.l1_mean(t, y), x), [0, -0.25, 0, 0.25])
    assert (gradient(lambda t: jt.abs(t - y), x) == [1, -1, 1, 1]).all()


def test_G3_max_pool_gives_the_gradient_of_a_tie_to_one_element():
    zeros = np.zeros((1, 1, 4, 4), np.float32)
    seen = gradient(lambda t: ops.max_pool2d(t, 2, 2), zeros)
    np.testing.assert_array_equal(seen[0, 0], [[1, 0, 1, 0], [0, 0, 0, 0]] * 2)
    assert gradient(lambda t: t.reshape(16).max(), zeros).sum() == 16


def test_G5_relu_keeps_nan_and_has_no_gradient_at_zero():
    seen = ops.relu(jt.array(f32(np.nan, -1, 0, 2))).numpy()
    np.testing.assert_array_equal(seen, [np.nan, 0, 0, 2])
    np.testing.assert_array_equal(gradient(ops.relu, f32(-1, 0, 2)), [0, 0, 1])
    assert nn.relu(jt.array(f32(np.nan))).numpy() == [0]


def test_N1_gradient_of_a_convolutions_bias():
    """Plain Jittor sums it in one float32 sequence over all pixels of the batch."""
    gradient = np.full((2, 3, 128, 192), 1 / 3, np.float32)
    gradient[:, 1] *= -0.7
    truth = gradient.sum((0, 2, 3), dtype=np.float64)

    def error(conv2d):
        x, weight, bias = (jt.array(np.zeros(shape, np.float32)).start_grad()
                           for shape in ((2, 3, 128, 192), (3, 3, 1, 1), 3))
        found, = jt.grad((conv2d(x, weight, bias) * jt.array(gradient)).sum(), [bias])
        return np.abs(found.numpy() / truth - 1).max()

    assert error(ops.conv2d) < 1e-5 < 1e-4 < error(nn.conv2d)
