"""Progressive schedule, settings and initial weights of APF-GAN against numbers worked out by hand."""
import dataclasses

import numpy as np
import pytest

from jittwin.errors import UserError
from jittwin.models.apf_gan import REPAIRED, ModelConfig, Semantics, Stage, discriminator_order, stage
from jittwin.weights.initial import fan_in_out, initial_weights

PG_NITER, NUM_D = 180, 4
RECIPE = Semantics()


def at(epoch):
    return stage(epoch, PG_NITER, NUM_D)


@pytest.mark.parametrize("epoch, level, alpha", [
    (1, 0, 0), (30, 0, 0), (31, 0, 1 / 30), (45, 0, 0.5), (59, 0, 29 / 30),
    (60, 1, 0), (90, 1, 0), (91, 1, 1 / 30), (105, 1, 0.5), (119, 1, 29 / 30),
    (120, 2, 0), (150, 2, 0), (151, 2, 1 / 30), (165, 2, 0.5), (179, 2, 29 / 30)])
def test_level_and_alpha_while_growing(epoch, level, alpha):
    assert at(epoch).level == level
    assert at(epoch).alpha == pytest.approx(alpha, abs=1e-12)
    assert not at(epoch).full


@pytest.mark.parametrize("epoch", [180, 181, 310, 10**6])
def test_full_size_from_pg_niter_on(epoch):
    assert at(epoch) == Stage(3, 0.0, True)


def test_first_fade_epochs_and_the_range_of_alpha():
    stages = {epoch: at(epoch) for epoch in range(1, 311)}
    assert [epoch for epoch, s in stages.items() if s.first_fade] == [31, 91, 151]
    assert max(s.alpha for s in stages.values()) == pytest.approx(29 / 30)
    assert min(s.alpha for s in stages.values()) == 0


@pytest.mark.parametrize("pg_niter, num_D, expected", [
    # One epoch per level leaves no room for a fade.
    (3, 4, [(1, 0.0), (2, 0.0), (3, 0.0)]),
    (6, 3, [(0, 0.0), (0, 1 / 3), (1, 0.0), (1, 0.0), (1, 1 / 3), (2, 0.0)]),
    (4, 2, [(0, 0.0), (0, 0.0), (0, 0.5), (1, 0.0)])])
def test_short_schedules(pg_niter, num_D, expected):
    stages = [stage(epoch, pg_niter, num_D) for epoch in range(1, pg_niter + 1)]
    assert [(s.level, pytest.approx(s.alpha)) for s in stages] == expected
    assert [s.first_fade for s in stages] == [alpha > 0 for _, alpha in expected]
    assert [s.full for s in stages] == [False] * (pg_niter - 1) + [True]


@pytest.mark.parametrize("epoch, order", [
    (1, [0]), (30, [0]), (31, [1, 0]), (59, [1, 0]), (60, [1, 0]), (90, [1, 0]), (91, [2, 1, 0]),
    (119, [2, 1, 0]), (120, [2, 1, 0]), (150, [2, 1, 0]), (151, [3, 2, 1, 0]),
    (179, [3, 2, 1, 0]), (180, [0, 1, 2, 3])])
def test_discriminators_from_the_largest_image_down(epoch, order):
    assert discriminator_order(at(epoch), NUM_D, RECIPE) == order


def test_aligned_order_keeps_each_discriminator_at_its_size_when_growing_ends():
    aligned = dataclasses.replace(RECIPE, scale_order="aligned")
    assert discriminator_order(at(179), NUM_D, aligned) == [3, 2, 1, 0]
    assert discriminator_order(at(180), NUM_D, aligned) == [3, 2, 1, 0]
    assert discriminator_order(at(120), NUM_D, aligned) == [2, 1, 0]


def test_the_default_is_the_published_system():
    config = ModelConfig()
    config.validate()
    assert config.size == (384, 512)
    assert (config.ngf, config.ndf, config.label_nc, config.seg_noise_kernel) == (64, 64, 29, 1)
    assert (config.pg_niter, config.num_D, config.n_layers_D) == (180, 4, 4)


def test_every_repair_differs_from_the_published_behaviour_and_is_legal():
    for field in dataclasses.fields(Semantics):
        legal = field.type.__args__
        assert getattr(RECIPE, field.name) == legal[0]
        assert getattr(REPAIRED, field.name) in legal
        # Images are resized smoothly in either case: only labels have no value between two classes.
        assert (getattr(REPAIRED, field.name) == legal[0]) == (field.name == "image_resize")


@pytest.mark.parametrize("settings, words", [
    (dict(crop_size=500), ["crop_size=500", "500x375", "multiples of 64", "512x384"]),
    (dict(crop_size=512, aspect_ratio=1.5), ["aspect_ratio=1.5", "512x341"]),
    (dict(num_D=1), ["num_D=1", "2, 3 or 4"]),
    (dict(num_D=5), ["num_D=5", "2, 3 or 4"]),
    (dict(pg_niter=181), ["pg_niter=181", "num_D-1=3"]),
    (dict(pg_niter=0), ["pg_niter=0"]),
    (dict(pg_niter=-3), ["pg_niter=-3"]),
    (dict(seg_noise_kernel=2), ["seg_noise_kernel=2", "odd"]),
    (dict(ndf=12), ["ndf=12", "divisible by 8"])])
def test_impossible_settings_are_named_in_one_line(settings, words):
    with pytest.raises(UserError) as error:
        ModelConfig(**settings).validate()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("settings", [
    dict(crop_size=256), dict(crop_size=128, aspect_ratio=2.0), dict(crop_size=64, aspect_ratio=1.0),
    dict(num_D=3, pg_niter=2), dict(num_D=2, pg_niter=1), dict(ngf=8, ndf=8), dict(seg_noise_kernel=3)])
def test_possible_settings_pass(settings):
    ModelConfig(**settings).validate()


SHAPES = {
    "up_4.conv_0.weight_orig": (64, 64, 3, 3), "up_4.conv_0.bias": (64,), "up_4.conv_0.weight_u": (64,),
    "up_4.conv_0.weight_v": (576,), "up_4.norm_0.mlp_gamma.weight": (64, 128, 3, 3),
    "fc_mu.weight": (256, 8192),
    "head_0.norm_0.seg_noise_var.weight": (1024, 29, 1, 1), "head_0.norm_0.seg_noise_var.bias": (1024,),
    "head_0.norm_0.param_free_norm.running_mean": (1024,),
    "head_0.norm_0.param_free_norm.running_var": (1024,)}


@pytest.mark.parametrize("shape, fans", [((64, 29, 3, 3), (261, 576)), ((256, 8192), (8192, 256)),
                                         ((1, 512, 4, 4), (8192, 16)), ((1024, 29, 1, 1), (29, 1024))])
def test_fans(shape, fans):
    assert fan_in_out(shape) == fans


def test_initial_weights_are_xavier_normal_with_gain_0_02():
    arrays = initial_weights("apf_gan", SHAPES, seed=3)
    expected = {"up_4.conv_0.weight_orig": 0.02 * (2 / (576 + 576)) ** 0.5,
                "up_4.norm_0.mlp_gamma.weight": 0.02 * (2 / (1152 + 576)) ** 0.5,
                "fc_mu.weight": 0.02 * (2 / (8192 + 256)) ** 0.5}
    for name, deviation in expected.items():
        values = arrays[name].astype(np.float64)
        standard_error = deviation / (2 * values.size) ** 0.5
        assert values.std() == pytest.approx(deviation, abs=4 * standard_error)
        assert values.mean() == pytest.approx(0, abs=4 * deviation / values.size ** 0.5)
        # A normal distribution has 4.55 % beyond two standard deviations; a uniform one none.
        assert np.mean(np.abs(values) > 2 * deviation) == pytest.approx(0.0455, abs=0.006)


def test_initial_biases_statistics_and_spectral_vectors():
    arrays = initial_weights("apf_gan", SHAPES, seed=3)
    assert not arrays["up_4.conv_0.bias"].any()
    assert not arrays["head_0.norm_0.param_free_norm.running_mean"].any()
    assert (arrays["head_0.norm_0.param_free_norm.running_var"] == 1).all()
    for name in ("up_4.conv_0.weight_u", "up_4.conv_0.weight_v"):
        assert np.linalg.norm(arrays[name].astype(np.float64)) == pytest.approx(1, abs=1e-6)
    for name, values in arrays.items():
        assert values.dtype == np.float32 and values.shape == SHAPES[name]


def test_noise_scales_start_at_tiny_random_values_as_published():
    arrays = initial_weights("apf_gan", SHAPES, seed=3)
    weight = arrays["head_0.norm_0.seg_noise_var.weight"]
    assert weight.std(dtype=np.float64) == pytest.approx(8.7e-4, rel=0.02)
    assert not arrays["head_0.norm_0.seg_noise_var.bias"].any()
    repaired = initial_weights(dataclasses.replace(RECIPE, seg_noise_init="zero").initial_rule, SHAPES, 3)
    for name, values in repaired.items():
        if ".seg_noise_var." in name:
            assert not values.any()
        else:
            np.testing.assert_array_equal(values, arrays[name])


def test_initial_weights_depend_on_the_seed_and_their_own_name_only():
    arrays = initial_weights("apf_gan", SHAPES, seed=3)
    backwards = initial_weights("apf_gan", dict(reversed(SHAPES.items())), seed=3)
    alone = {name: initial_weights("apf_gan", {name: shape}, seed=3)[name] for name, shape in SHAPES.items()}
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, backwards[name])
        np.testing.assert_array_equal(values, alone[name])
    other = initial_weights("apf_gan", SHAPES, seed=4)
    renamed = initial_weights("apf_gan", {"up_3.conv_0.weight_orig": (64, 64, 3, 3)}, seed=3)["up_3.conv_0.weight_orig"]
    assert np.abs(np.corrcoef(arrays["fc_mu.weight"].ravel(), other["fc_mu.weight"].ravel())[0, 1]) < 0.01
    assert np.abs(np.corrcoef(arrays["up_4.conv_0.weight_orig"].ravel(), renamed.ravel())[0, 1]) < 0.03


def test_initial_weights_stay_the_same_from_release_to_release():
    """A run that is resumed, or repeated from its seed, after an update must start from the same numbers."""
    arrays = initial_weights("apf_gan", SHAPES, seed=0)
    expected = [4.2383547e-04, -2.5923038e-04, 9.0699985e-05]
    np.testing.assert_allclose(arrays["fc_mu.weight"][0, :3], expected, rtol=1e-6)


def test_a_tensor_without_a_rule_is_refused():
    with pytest.raises(KeyError, match="num_batches_tracked"):
        dict(initial_weights("apf_gan", {"norm.num_batches_tracked": ()}))
