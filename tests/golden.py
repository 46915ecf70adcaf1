"""Numbers that the official APF-GAN code gave, as tests that either twin must pass.

tests/torch/test_golden.py and tests/jittor/test_golden.py inherit GoldenFacts with the name of their
twin. Tensors are filled by a rule that depends on their names alone, so no weights are needed.
"Tiny" is ngf=ndf=8 at 192x256. Tolerance 2e-4, absolute.
"""
import dataclasses
import importlib
import zlib
from pathlib import Path

import numpy as np
import pytest

from jittwin.backend import PACKAGES
from jittwin.models.apf_gan import ModelConfig, Semantics, stage

TINY = ModelConfig(ngf=8, ndf=8, crop_size=256)
KEYS = Path(__file__).parent / "data" / "apf_gan_keys.txt"
TOLERANCE = 2e-4


def fill(shapes):
    """The arrays of the golden fill rule for {name: shape}."""
    arrays = {}
    for name, shape in shapes.items():
        r = np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, shape)
        if name.endswith("running_var"):
            r = 1 + 0.5 * r
        elif name.endswith(("running_mean", "bias")):
            r = 0.1 * r
        elif not name.endswith(("weight_u", "weight_v")):
            r = r * np.sqrt(3 / np.prod(shape[1:])) * (0.25 if "conv_img" in name else 1)
        arrays[name] = r.astype(np.float32)
    return arrays


def labels(batch, height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([(7 * (y // 16) + 3 * (x // 16) + 5 * b) % 29 for b in range(batch)]).astype(np.uint8)


def photographs(batch, height, width):
    b, c, y, x = np.mgrid[:batch, :3, :height, :width]
    return np.sin(0.05 * y * (c + 1) + 0.03 * x + b).astype(np.float32)


def published_keys():
    """{"G" | "E" | "D": [(name, shape, kind)]} in the order of the published files."""
    networks = {}
    for line in KEYS.read_text().splitlines():
        if line.startswith("["):
            rows = networks.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            name, shape, kind = line.split(" | ")
            rows.append((name, tuple(map(int, shape.split("x"))), kind))
    return networks


class Twin:
    """A backend with the few things the golden tests do to it."""

    def __init__(self, backend):
        self.backend = backend
        package = PACKAGES[backend.name]
        self.ops = importlib.import_module(f"{package}.nn.ops")
        self.layers = importlib.import_module(f"{package}.nn.layers")
        self.losses = importlib.import_module(f"{package}.apf_gan.losses")
        self.condition = importlib.import_module(f"{package}.apf_gan.generator").Condition

    def build(self, name, config, train=False, **options):
        module = self.backend.build(f"apf_gan.{name}", config, **options)
        self.refill(module, train)
        return module

    def refill(self, module, train):
        self.backend.load_numpy(module, fill(self.shapes(module)))
        self.backend.train_mode(module, train)

    def shapes(self, module):
        return {name: tuple(value.shape) for name, value in module.state_dict().items()}

    def constant_noise(self, value):
        return lambda index, shape: self.ops.zeros(shape) + value

    def labels(self, batch, size):
        return self.backend.asarray(labels(batch, *size))

    def one_hot(self, batch, size):
        return self.ops.one_hot(self.labels(batch, size), 29)

    def probes(self, tensor):
        """Mean, standard deviation and three pixels of an image or feature tensor."""
        a = self.backend.numpy(tensor)
        height, width = a.shape[-2:]
        return [a.mean(dtype=np.float64), a.std(dtype=np.float64), a[0, 0, 0, 0],
                a[0, -1, height // 2, width // 2], a[-1, -1, -1, -1]]


def near(values):
    return pytest.approx(values, abs=TOLERANCE)


class GoldenFacts:
    @pytest.fixture(scope="class")
    @classmethod
    def twin(cls, backend):
        return Twin(backend)

    @pytest.mark.parametrize("network, module, options, keys, scalars, trainable", [
        ("G", "generator", dict(seg_noise=False, heads=True), 255, 93_196_012, 93_080_620),
        ("G", "generator", dict(seg_noise=False, heads=False), 249, 93_183_907, 93_068_515),
        ("G", "generator", dict(seg_noise=True, heads=True), 297, 93_529_132, 93_413_740),
        ("G", "generator", dict(seg_noise=True, heads=False), 291, 93_517_027, 93_401_635),
        ("E", "encoder", {}, 22, 12_853_701, 12_837_696),
        ("D", "discriminator", {}, 94, 28_207_388, 28_137_868)])
    def test_1_keys_shapes_and_counts(self, twin, network, module, options, keys, scalars, trainable):
        absent = {tag for tag, option in (("S", "seg_noise"), ("T", "heads"))
                  if not options.get(option, True)}
        rows = [row for row in published_keys()[network] if row[2][-1] not in absent]
        built = twin.backend.build(f"apf_gan.{module}", ModelConfig(), **options)
        shapes, parameters = twin.shapes(built), twin.backend.parameters(built)
        assert shapes == {name: shape for name, shape, _ in rows}
        assert set(parameters) == {name for name, _, kind in rows if kind[0] == "P"}
        assert len(shapes) == keys
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == scalars
        assert sum(int(np.prod(shapes[name])) for name in parameters) == trainable

    def test_1_dropping_the_heads_leaves_the_keys_of_epoch_180(self, twin):
        generator = twin.backend.build("apf_gan.generator", TINY, seg_noise=False, heads=True)
        generator.drop_heads()
        assert len(twin.shapes(generator)) == 249
        assert not any("inter_conv_img" in name for name in twin.shapes(generator))

    def test_2_number_of_discriminators_in_each_stage(self, twin):
        net = twin.build("discriminator", TINY)
        with twin.backend.no_grad():
            for epoch, count in ((1, 1), (31, 2), (60, 2), (91, 3), (120, 3), (151, 4), (180, 4)):
                at = stage(epoch, 180, 4)
                scale = 2 ** max(3 - at.level - (at.alpha > 0), 0)
                results = net(twin.ops.zeros((1, 32, 192 // scale, 256 // scale)), at)
                assert [len(features) for features in results] == FEATURES[epoch]
                assert len(results) == count

    def test_3_sizes_of_the_predictions(self, twin):
        net = twin.build("discriminator", dataclasses.replace(TINY, crop_size=512))
        with twin.backend.no_grad():
            full = net(twin.ops.zeros((1, 32, 384, 512)), stage(180, 180, 4))
            assert [tuple(f.shape[-2:]) for f in full[0]] == [
                (193, 257), (97, 129), (49, 65), (50, 66), (51, 67)]
            assert [tuple(scale[-1].shape[-2:]) for scale in full] == [(51, 67), (15, 19), (6, 7), (4, 4)]
            assert [tuple(f.shape[-2:]) for f in full[3]] == [
                (25, 33), (13, 17), (7, 9), (4, 5), (3, 3), (2, 2), (3, 3), (4, 4)]
            for epoch, size in ((1, (48, 64)), (60, (96, 128)), (120, (192, 256))):
                top = net(twin.ops.zeros((1, 32, *size)), stage(epoch, 180, 4))[0]
                assert tuple(top[-1].shape) == (1, 1, 9, 11)

    def test_4_average_pool_counts_the_padding(self, twin):
        ones = twin.ops.zeros((1, 1, 4, 4)) + 1
        pooled = twin.ops.avg_pool2d(ones, 3, 2, 1, Semantics().pool_padding == "included")
        np.testing.assert_allclose(twin.backend.numpy(pooled)[0, 0], [[4 / 9, 2 / 3], [2 / 3, 1]], rtol=1e-6)

    def test_5_the_resize_of_labels_and_images_is_bilinear(self, twin):
        assert Semantics().label_resize == Semantics().image_resize == "bilinear"
        ramp = twin.backend.asarray(np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8))
        small = twin.backend.numpy(twin.ops.interpolate(ramp, (2, 2), "bilinear"))
        np.testing.assert_allclose(small[0, 0], [[13.5, 17.5], [45.5, 49.5]], rtol=1e-6)
        square = twin.backend.asarray(np.array([[[[0, 1], [8, 9]]]], np.float32))
        large = twin.backend.numpy(twin.ops.interpolate(square, (4, 4), "bilinear"))
        np.testing.assert_allclose(large[0, 0, 0], [0, 0.25, 0.75, 1], rtol=1e-6)

    def test_6_running_variance_takes_the_biased_batch_variance(self, twin):
        norm = twin.layers.BatchNorm2d(2, affine=False, running_variance=Semantics().running_variance)
        norm(twin.backend.asarray(np.array([[1, 2], [3, 4]], np.float32).reshape(2, 2, 1, 1)))
        np.testing.assert_allclose(twin.backend.numpy(norm.running_mean), [0.2, 0.3], rtol=1e-6)
        np.testing.assert_allclose(twin.backend.numpy(norm.running_var), [1, 1], rtol=1e-6)

    def encoded(self, twin, config):
        with twin.backend.no_grad():
            return twin.build("encoder", config)(twin.one_hot(1, config.size))

    def test_7_encoder_tiny(self, twin):
        z = self.encoded(twin, TINY)
        assert tuple(z.shape) == (1, 128, 3, 4)
        assert twin.probes(z) == near([0.322714, 0.648305, -0.119992, 1.480537, 0.625631])

    @pytest.mark.slow
    def test_7_encoder_default(self, twin):
        z = self.encoded(twin, ModelConfig())
        assert tuple(z.shape) == (1, 1024, 6, 8)
        assert twin.probes(z) == near([0.319799, 0.644077, -0.09634, -0.09298, -0.08905])

    def generated(self, twin, config, noise, way="dense"):
        z, generator = self.encoded(twin, config), twin.build("generator", config)
        label = twin.labels(1, config.size) if way == "distinct" else None
        with twin.backend.no_grad():
            return generator(twin.condition(twin.one_hot(1, config.size), twin.constant_noise(noise), label=label), z)

    @pytest.mark.parametrize("way", ["dense", "distinct"])
    @pytest.mark.parametrize("noise, expected", [
        (0, [0.054799, 0.330426, 0.201792, 0.975573, 0.352950]),
        (1, [0.058833, 0.353523, 0.100582, 0.964979, 0.333874])])
    def test_8_generator_tiny(self, twin, noise, expected, way):
        image = self.generated(twin, TINY, noise, way)
        assert tuple(image.shape) == (1, 3, 192, 256)
        assert twin.probes(image) == near(expected)

    @pytest.mark.parametrize("kernel", [3, 5])
    def test_8_wider_noise_is_the_same_for_each_pixel_and_each_neighbourhood(self, twin, kernel):
        config = dataclasses.replace(TINY, seg_noise_kernel=kernel)
        dense, distinct = (twin.backend.numpy(self.generated(twin, config, 1, way)) for way in ("dense", "distinct"))
        np.testing.assert_allclose(distinct, dense, atol=1e-5)

    @pytest.mark.slow
    def test_8_generator_default(self, twin):
        image = self.generated(twin, ModelConfig(), 0)
        assert tuple(image.shape) == (1, 3, 384, 512)
        assert twin.probes(image) == near([0.189803, 0.446991, -0.03075, 0.69442, 0.07286])

    def step(self, twin, epoch, semantics=Semantics()):
        """Probes of a fake of two, and GAN, D_Fake, D_real and GAN_Feat on it, at a freshly filled state."""
        config, at = dataclasses.replace(TINY, semantics=semantics, modulation="distinct"), stage(epoch, 180, 4)
        networks = [twin.build("encoder", config, train=True),
                    twin.build("generator", config, train=True, seg_noise=at.full, heads=not at.full),
                    twin.build("discriminator", config, train=True)]
        objective, losses = twin.backend.build("apf_gan.objective", config, *networks), twin.losses
        real = twin.backend.asarray(photographs(2, *config.size))
        with twin.backend.no_grad():
            condition, z = objective.condition(twin.labels(2, config.size), twin.constant_noise(0))
            fake = networks[1](condition, z, at)
            fakes, reals = objective.discriminate(condition.seg, fake, real, at, None)
            values = [losses.hinge_generator([scale[-1] for scale in fakes]),
                      losses.hinge_discriminator([scale[-1] for scale in fakes], real=False),
                      losses.hinge_discriminator([scale[-1] for scale in reals], real=True),
                      10 * losses.feature_matching([s[:-1] for s in fakes], [s[:-1] for s in reals])]
        return tuple(fake.shape), twin.probes(fake), [twin.backend.scalar(value) for value in values]

    @pytest.mark.parametrize("epoch, size, probes, values", [
        (1, (24, 32), [0.022473, 0.209051, -0.119265, -0.203337, -0.031667],
         [-0.419477, 1.419477, 0.631515, 17.9025]),
        (45, (48, 64), [-0.015508, 0.142875, -0.090335, 0.088979, 0.062925],
         [-0.280108, 1.281794, 0.731040, 17.2390]),
        (180, (192, 256), [0.056687, 0.220028, 0.044303, 0.717511, 0.144887],
         [-0.250086, 1.254318, 0.785236, 25.0458]),
        (200, (192, 256), [0.056687, 0.220028, 0.044303, 0.717511, 0.144887],
         [-0.250086, 1.254318, 0.785236, 25.0458])])
    def test_9_one_step_of_training(self, twin, epoch, size, probes, values):
        shape, seen, losses = self.step(twin, epoch)
        assert shape == (2, 3, *size)
        assert seen == near(probes)
        assert losses == near(values)

    def test_9_the_wrong_defaults_would_be_noticed(self, twin, monkeypatch):
        """Negative control: nearest resizes and pools without padding give other known numbers."""
        wrong = Semantics(label_resize="nearest", image_resize="nearest", pool_padding="excluded")
        _, _, values = self.step(twin, 1, wrong)
        assert values[2:] == near([0.621077, 17.7125])
        smooth = twin.ops.interpolate
        monkeypatch.setattr(twin.ops, "interpolate", lambda x, size, mode: smooth(x, size, "nearest"))
        _, _, values = self.step(twin, 45, wrong)
        assert values[0] == near(-0.278538)

    def test_9_a_working_spectral_norm_would_be_noticed(self, twin):
        z = self.encoded(twin, dataclasses.replace(TINY, semantics=Semantics(spectral="on")))
        assert twin.probes(z)[0] == near(0.3257)


# Features per discriminator: k+5 for discriminator k, one less for the one that fades in.
FEATURES = {1: [5], 31: [5, 5], 60: [6, 5], 91: [6, 6, 5], 120: [7, 6, 5], 151: [7, 7, 6, 5],
            180: [5, 6, 7, 8]}
