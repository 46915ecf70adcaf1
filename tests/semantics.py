"""Every named choice of `Semantics` that acts inside the networks does what its comment says, in either twin.

tests/torch/test_semantics.py and tests/jittor/test_semantics.py inherit SemanticsFacts.
"""
import dataclasses

import numpy as np
import pytest
from golden import TINY, Twin, labels, photographs

from jittwin.models.apf_gan import Semantics, stage

# 64x128 pixels: 8x16 at the first level, 16x32 at the second.
SMALL = dataclasses.replace(TINY, crop_size=128, aspect_ratio=2.0)
FIRST_FADE = stage(31, 180, 4)
CHILD, PARENT = "multiscale_discriminator_1.", "multiscale_discriminator_0."


def choose(**choices):
    return dataclasses.replace(SMALL, semantics=Semantics(**choices))


def eighth(x):
    """Bilinear to an eighth: with half-pixel centres, the mean of the four pixels amid each block of 8x8."""
    rows = (x[:, :, 3::8] + x[:, :, 4::8]) / 2
    return (rows[..., 3::8] + rows[..., 4::8]) / 2


class Recorder:
    """Stands where the discriminator is and keeps what it is given."""

    def inherit(self, k):
        pass

    def __call__(self, pairs, at, alias):
        self.pairs = pairs
        return [[pairs]]


class SemanticsFacts:
    @pytest.fixture(scope="class")
    @classmethod
    def twin(cls, backend):
        return Twin(backend)

    # Spectral norm

    def spectral(self, twin, choice, steps):
        conv = twin.layers.SpectralConv2d(4, 6, 3, padding=1, spectral=choice)
        twin.refill(conv, train=True)
        x = twin.backend.asarray(photographs(1, 8, 8)[:, [0, 1, 2, 0]])
        for _ in range(steps):
            conv(x)
        twin.backend.train_mode(conv, False)
        stored = twin.backend.state_numpy(conv)
        return stored, twin.backend.numpy(conv.weight()).reshape(6, -1)

    def test_spectral_off_convolves_with_the_weight_as_it_is(self, twin):
        before, _ = self.spectral(twin, "off", 0)
        stored, weight = self.spectral(twin, "off", 3)
        np.testing.assert_array_equal(weight, stored["weight_orig"].reshape(6, -1))
        np.testing.assert_array_equal(stored["weight_u"], before["weight_u"])

    def test_spectral_on_makes_the_largest_singular_value_one(self, twin):
        stored, weight = self.spectral(twin, "on", 40)
        original = np.linalg.svd(stored["weight_orig"].reshape(6, -1), compute_uv=False)
        seen = np.linalg.svd(weight, compute_uv=False)
        assert seen[0] == pytest.approx(1, abs=1e-4)
        np.testing.assert_allclose(seen, original / original[0], atol=1e-4)
        assert np.linalg.norm(stored["weight_u"]) == pytest.approx(1, abs=1e-5)

    def test_spectral_iterates_in_training_only(self, twin):
        conv = twin.layers.SpectralConv2d(4, 6, 3, spectral="on")
        twin.refill(conv, train=False)
        before = twin.backend.state_numpy(conv)
        conv(twin.ops.zeros((1, 4, 4, 4)))
        np.testing.assert_array_equal(twin.backend.state_numpy(conv)["weight_u"], before["weight_u"])
        twin.backend.train_mode(conv, True)
        conv(twin.ops.zeros((1, 4, 4, 4)))
        matrix = before["weight_orig"].reshape(6, -1).astype(np.float64)
        v = matrix.T @ before["weight_u"]
        u = matrix @ (v / np.linalg.norm(v))
        seen = twin.backend.state_numpy(conv)["weight_u"]
        np.testing.assert_allclose(seen, u / np.linalg.norm(u), atol=1e-6)

    # Resizing before the discriminators

    def seen_by_discriminators(self, twin, config):
        """Labels (2, 29, 8, 16) and real images (2, 3, 8, 16) as the first level gets them."""
        recorder, size = Recorder(), config.size
        objective = twin.backend.build("apf_gan.objective", config, None, None, recorder)
        objective.discriminate(twin.one_hot(2, size), twin.ops.zeros((2, 3, 8, 16)),
                               twin.backend.asarray(photographs(2, *size)), stage(1, 180, 4), None)
        pairs = twin.backend.numpy(recorder.pairs)
        return pairs[2:, :29], pairs[2:, 29:]

    def test_label_resize(self, twin):
        soft, _ = self.seen_by_discriminators(twin, SMALL)
        hard, _ = self.seen_by_discriminators(twin, choose(label_resize="nearest"))
        full = np.moveaxis(np.eye(29, dtype=np.float32)[labels(2, 64, 128)], -1, 1)
        np.testing.assert_array_equal(hard, full[:, :, ::8, ::8])
        np.testing.assert_allclose(soft, eighth(full), atol=1e-6)

    def test_image_resize(self, twin):
        _, smooth = self.seen_by_discriminators(twin, SMALL)
        _, picked = self.seen_by_discriminators(twin, choose(image_resize="nearest"))
        full = photographs(2, 64, 128)
        np.testing.assert_array_equal(picked, full[:, :, ::8, ::8])
        np.testing.assert_allclose(smooth, eighth(full), atol=1e-6)

    # Discriminators

    def features(self, twin, config, epoch, size):
        net = twin.build("discriminator", config, train=True)
        image = np.concatenate([photographs(2, *size)] * 10 + [photographs(2, *size)[:, :2]], 1)
        with twin.backend.no_grad():
            results = net(twin.backend.asarray(image), stage(epoch, 180, 4))
        return [[twin.backend.numpy(f) for f in scale] for scale in results]

    def test_pool_padding_changes_the_smaller_scales_only(self, twin):
        included = self.features(twin, SMALL, 60, (16, 32))
        excluded = self.features(twin, choose(pool_padding="excluded"), 60, (16, 32))
        np.testing.assert_array_equal(included[0][-1], excluded[0][-1])
        assert np.abs(included[1][0] - excluded[1][0]).max() > 0.01

    def test_scale_order(self, twin):
        def lengths(config):
            return [len(scale) for scale in self.features(twin, config, 180, SMALL.size)]

        assert lengths(SMALL) == [5, 6, 7, 8]
        assert lengths(choose(scale_order="aligned")) == [8, 7, 6, 5]

    # Running statistics

    def test_running_variance(self, twin):
        for choice, expected in (("biased", 1.0), ("unbiased", 1.1)):
            generator = twin.backend.build("apf_gan.generator", choose(running_variance=choice))
            norm = generator.head_0.norm_0.param_free_norm
            assert norm.running_variance == choice
            single = twin.layers.BatchNorm2d(1, affine=False, running_variance=norm.running_variance)
            single(twin.backend.asarray(np.array([1, 3], np.float32).reshape(2, 1, 1, 1)))
            np.testing.assert_allclose(twin.backend.numpy(single.running_var), [expected], rtol=1e-6)

    def test_batchnorm_updates(self, twin):
        name = "up_1.norm_0.param_free_norm.running_mean"
        for choice, moves in (("twice", True), ("once", False)):
            config = choose(batchnorm_updates=choice)
            networks = [twin.build("encoder", config, train=True),
                        twin.build("generator", config, train=True, seg_noise=False, heads=True),
                        twin.build("discriminator", config, train=True)]
            objective = twin.backend.build("apf_gan.objective", config, *networks)
            batch = (twin.backend.asarray(labels(2, *SMALL.size)),
                     twin.backend.asarray(photographs(2, *SMALL.size)), stage(1, 180, 4), None)
            states = [twin.backend.state_numpy(networks[1])[name]]
            for step in ("generator", "discriminator", "generator"):
                for loss in getattr(objective, f"{step}_losses")(*batch).values():
                    assert np.isfinite(twin.backend.scalar(twin.ops.detach(loss)))
                states.append(twin.backend.state_numpy(networks[1])[name])
            moved = [bool((a != b).any()) for a, b in zip(states, states[1:])]
            assert moved == [True, moves, True]

    # Warm start of a discriminator in its first fading epoch

    def warm_start(self, twin, choice):
        """The discriminators' values before and after an update, and the gradients of it."""
        config, backend = choose(warm_start=choice), twin.backend
        net = twin.build("discriminator", config, train=True)
        objective = backend.build("apf_gan.objective", config, None, None, net)
        optimizer = backend.optimizer("adam", [{"params": backend.parameters(net), "lr": 4e-4}],
                                      betas=(0.0, 0.9), form="jittor")
        before = backend.state_numpy(net)
        fake = backend.asarray(photographs(2, 16, 32)[::-1].copy())
        fakes, reals = objective.discriminate(twin.one_hot(2, SMALL.size), fake,
                                              backend.asarray(photographs(2, *SMALL.size)), FIRST_FADE, None)
        loss = (twin.losses.hinge_discriminator([s[-1] for s in fakes], real=False)
                + 2 * twin.losses.hinge_discriminator([s[-1] for s in reals], real=True))
        optimizer.accumulate(loss)
        gradients = {name: backend.numpy(g) for name, g in optimizer.gradients.items()}
        optimizer.apply()
        return before, backend.state_numpy(net), gradients

    def inherited(self, state):
        """Names, without the discriminator, of what the child has from its parent."""
        names = [name.removeprefix(PARENT) for name in state if name.startswith(PARENT)]
        assert len(names) == 16
        return names

    def test_warm_start_alias_trains_the_parent_alone(self, twin):
        before, after, gradients = self.warm_start(twin, "alias")
        _, _, copied = self.warm_start(twin, "copy")
        for name in self.inherited(before):
            parent, child = PARENT + name, CHILD + name
            # The child took the parent's value, and the update reached the parent only.
            np.testing.assert_array_equal(after[child], before[parent])
            assert not np.any(gradients.get(child, 0))
            if parent not in copied:
                assert name.endswith(("weight_u", "weight_v"))
                continue
            assert np.abs(after[parent] - before[parent]).max() > 1e-4
            total = copied[parent] + copied[child]
            np.testing.assert_allclose(gradients[parent], total, atol=2e-5 * np.abs(total).max())
        for name in ("toRGB_extra1.0.weight", "extra1.0.0.weight_orig"):
            assert np.abs(after[CHILD + name] - before[CHILD + name]).max() > 1e-4

    def test_warm_start_copy_trains_both(self, twin):
        before, after, gradients = self.warm_start(twin, "copy")
        for name in self.inherited(before):
            if PARENT + name in gradients:
                assert np.abs(after[PARENT + name] - before[PARENT + name]).max() > 1e-4
                assert np.abs(after[CHILD + name] - before[PARENT + name]).max() > 1e-4
                # Within one update of the value taken over.
                assert np.abs(after[CHILD + name] - before[PARENT + name]).max() < 4.1e-4

    def test_warm_start_happens_in_the_first_fading_epoch_only(self, twin):
        net = twin.build("discriminator", SMALL, train=True)
        objective = twin.backend.build("apf_gan.objective", SMALL, None, None, net)
        before = twin.backend.state_numpy(net)
        for epoch, inherits in ((30, False), (32, False), (31, True)):
            size = (8, 16) if epoch == 30 else (16, 32)
            with twin.backend.no_grad():
                real = twin.backend.asarray(photographs(2, *SMALL.size))
                objective.discriminate(twin.one_hot(2, SMALL.size), twin.ops.zeros((2, 3, *size)), real,
                                       stage(epoch, 180, 4), None)
            state = twin.backend.state_numpy(net)
            for name in self.inherited(state):
                source = PARENT if inherits else CHILD
                np.testing.assert_array_equal(state[CHILD + name], before[source + name])

    # The generator's step

    def generator_step(self, twin, learns):
        """The singular vectors after a pass of the discriminators, and the gradients that reach the generator."""
        config, at, backend = choose(spectral="on"), stage(31, 180, 4), twin.backend
        networks = [twin.build("encoder", config, train=True),
                    twin.build("generator", config, train=True, seg_noise=False, heads=True),
                    twin.build("discriminator", config, train=True)]
        objective = backend.build("apf_gan.objective", config, *networks)
        optimizer = backend.optimizer("adam", [{"params": backend.parameters(networks[1]), "lr": 1e-4}])
        condition, z = objective.condition(twin.labels(2, SMALL.size))
        fakes, reals = objective.discriminate(condition.seg, networks[1](condition, z, at),
                                              backend.asarray(photographs(2, *SMALL.size)), at, None, learns)
        optimizer.accumulate(twin.losses.hinge_generator([scale[-1] for scale in fakes])
                             + twin.losses.feature_matching([s[:-1] for s in fakes], [s[:-1] for s in reals]))
        state = backend.state_numpy(networks[2])
        return ({name: value for name, value in state.items() if name.endswith(("weight_u", "weight_v"))},
                {name: backend.numpy(gradient) for name, gradient in optimizer.gradients.items()})

    def test_discriminators_that_do_not_learn_give_the_same_gradients_after_one_power_iteration(self, twin):
        (vectors, gradients), (expected_vectors, expected) = (self.generator_step(twin, flag) for flag in (False, True))
        assert vectors and gradients and gradients.keys() == expected.keys()
        for name, value in expected_vectors.items():
            np.testing.assert_allclose(vectors[name], value, atol=1e-6)
        for name, value in expected.items():
            np.testing.assert_allclose(gradients[name], value, atol=1e-4 * np.abs(value).max())

    # Adam

    def test_adam_forms_differ_where_gradients_are_small(self, twin):
        moves = {}
        for form in ("jittor", "torch"):
            line = twin.layers.Linear(1, 1, bias=False)
            twin.backend.load_numpy(line, {"weight": np.zeros((1, 1), np.float32)})
            groups = [{"params": twin.backend.parameters(line), "lr": 1.0}]
            twin.backend.step(twin.backend.optimizer("adam", groups, form=form), (line.weight * 1e-8).sum())
            moves[form] = -float(twin.backend.numpy(line.weight).reshape(()))
        # At step 1 the moments are corrected to g and g*g; epsilon 1e-8 is divided by sqrt(1 - 0.999) before.
        assert moves["torch"] == pytest.approx(1 / 2, rel=1e-4)
        assert moves["jittor"] == pytest.approx(1 / (1 + 1 / np.sqrt(1e-3)), rel=1e-4)
