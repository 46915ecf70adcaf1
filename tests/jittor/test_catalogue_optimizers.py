"""Where Jittor's own optimizers depart from PyTorch's, ours do not: entries O1 to O6 of the catalogue.

See test_catalogue.py. `follow` and `follow_plain` feed chosen gradients to one parameter of our and of
Jittor's optimizer and return the values that it takes.
"""
import numpy as np
import pytest

from jittwin.loss_scaler import LossScaler
from jt_models.boot import jt, nn
from jt_models.nn import optim

SMALL = [[1e-6, -2e-6, 1.0], [3e-6, 1e-7, -0.5], [-1e-6, 2e-6, 0.25]]
START = [1.0, -2.0, 0.5]


def f32(*values):
    return np.array(values, np.float32)


def follow(optimizer_class, start, gradients, lr=0.1, **hyper):
    parameter = jt.array(np.asarray(start, np.float32))
    optimizer = optimizer_class([{"params": {"p": parameter}, "lr": lr}], **hyper)
    path = []
    for g in gradients:
        optimizer.accumulate((parameter * jt.array(np.asarray(g, np.float32))).sum())
        optimizer.apply()
        path.append(parameter.numpy())
    return np.array(path)


def follow_plain(optimizer_class, start, gradients, lr=0.1, **hyper):
    parameter = jt.array(np.asarray(start, np.float32))
    optimizer = optimizer_class([parameter], lr, **hyper)
    path = []
    for g in gradients:
        optimizer.step((parameter * jt.array(np.asarray(g, np.float32))).sum())
        path.append(parameter.numpy())
    return np.array(path)


def adam(start, gradients, lr, betas=(0.9, 0.999), eps=1e-8, before_correction=False):
    """The path of Adam in float64; `before_correction` adds epsilon to the raw root, as Jittor does."""
    p, m, v, path = np.array(start, np.float64), 0.0, 0.0, []
    for t, g in enumerate(np.asarray(gradients, np.float64), 1):
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        root = np.sqrt(1 - betas[1] ** t)
        denominator = (np.sqrt(v) + eps) / root if before_correction else np.sqrt(v) / root + eps
        p = p - lr / (1 - betas[0] ** t) * m / denominator
        path.append(p)
    return np.array(path)


def test_O1_adam_adds_epsilon_after_the_bias_correction():
    np.testing.assert_allclose(follow(optim.Adam, START, SMALL), adam(START, SMALL, 0.1), atol=3e-7)
    plain = follow_plain(nn.Adam, START, SMALL)
    assert np.abs(plain - adam(START, SMALL, 0.1)).max() > 0.01


def test_O1_the_published_form_is_jittors_own_adam():
    hyper = dict(betas=(0.0, 0.9))
    truth = adam(START, SMALL, 0.1, **hyper, before_correction=True)
    np.testing.assert_allclose(follow(optim.Adam, START, SMALL, form="jittor", **hyper), truth, atol=3e-7)
    np.testing.assert_allclose(follow_plain(nn.Adam, START, SMALL, **hyper), truth, atol=1e-6)


def test_O2_accumulating_is_one_step(backend):
    parameter = jt.array(f32(*START))
    optimizer = backend.optimizer("adam", [{"params": {"p": parameter}, "lr": 0.1}])
    for turn, g in enumerate(SMALL):
        backend.step(optimizer, (parameter * jt.array(f32(*g))).sum(), accumulate=turn < 2)
    assert optimizer.state()["p/step"] == 1
    np.testing.assert_allclose(parameter.numpy(), adam(START, [np.sum(SMALL, 0)], 0.1)[0], atol=3e-7)


def test_a_scaled_loss_changes_nothing_and_gradients_that_are_not_finite_make_no_step(backend):
    parameter, plain = jt.array(f32(*START)), jt.array(f32(*START))
    scaler = LossScaler(interval=2)
    scaled, other = (backend.optimizer("adamw", [{"params": {"p": p}, "lr": 0.1}]) for p in (parameter, plain))
    for g, scale in zip((SMALL[0], [1e34, *SMALL[0][1:]], SMALL[1], SMALL[2]), (65536, 32768, 32768, 65536)):
        before = parameter.numpy()
        backend.step(scaled, (parameter * jt.array(f32(*g))).sum(), scaler=scaler)
        assert scaler.scale == scale
        if max(g) > 1e30:                   # times the factor it is infinite
            assert np.array_equal(parameter.numpy(), before)
        else:
            backend.step(other, (plain * jt.array(f32(*g))).sum())
    assert scaled.state()["p/step"] == other.state()["p/step"] == 3
    np.testing.assert_allclose(parameter.numpy(), plain.numpy(), rtol=1e-6)


def test_O3_adamw_decays_by_a_hundredth_unless_told_otherwise():
    assert follow(optim.AdamW, [2.0], [[0.0]])[0] == pytest.approx([2 * (1 - 0.1 * 0.01)], rel=1e-6)
    assert follow(optim.Adam, [2.0], [[0.0]])[0] == [2]


def test_O4_the_first_step_of_momentum_takes_the_gradient_whole():
    path = follow(optim.SGD, [1.0], [[1.0], [2.0]], momentum=0.9)
    np.testing.assert_allclose(path.ravel(), [1 - 0.1, 1 - 0.1 - 0.1 * 2.9], rtol=1e-6)
    assert follow_plain(nn.SGD, [1.0], [[1.0]], momentum=0.9, dampening=0.5)[0] == pytest.approx([0.95])


def test_O5_a_parameter_that_the_loss_does_not_reach_stays_as_it_is(backend):
    for kind, hyper in (("sgd", dict(momentum=0.9)), ("adam", {}), ("adamw", {})):
        used, unused = jt.array(f32(1)), jt.array(f32(1))
        optimizer = backend.optimizer(kind, [{"params": {"used": used, "unused": unused}, "lr": 0.1}],
                                      weight_decay=0.5, **hyper)
        backend.step(optimizer, (used + unused * 2).sum())
        after, step = unused.numpy()[0], optimizer.state()["unused/step"]
        backend.step(optimizer, (used * 3).sum())
        assert unused.numpy()[0] == after < 1
        assert optimizer.state()["unused/step"] == step == 1
    used, unused = jt.array(f32(1)), jt.array(f32(1))
    nn.SGD([used, unused], 0.1, weight_decay=0.5).step(used.sum())
    assert unused.numpy()[0] == pytest.approx(0.95)


def test_O5_in_the_published_form_it_has_a_zero_gradient(backend):
    used, unused = jt.array(f32(1)), jt.array(f32(1))
    groups = [{"params": {"used": used, "unused": unused}, "lr": 0.1}]
    optimizer = backend.optimizer("adam", groups, form="jittor")
    backend.step(optimizer, (used + unused * 2).sum())
    backend.step(optimizer, (used * 3).sum())
    truth = adam([1.0], [[2.0], [0.0]], 0.1, before_correction=True)[-1]
    np.testing.assert_allclose(unused.numpy(), truth, rtol=1e-6)


def test_O6_clipping_scales_all_gradients_by_their_joint_norm(backend):
    p, q = jt.array(f32(1, 1)), jt.array(f32(1))
    optimizer = backend.optimizer("sgd", [{"params": {"p": p, "q": q}, "lr": 1.0}])
    backend.step(optimizer, (p * jt.array(f32(3, 0))).sum() + (q * 4).sum(), clip=1.0)
    np.testing.assert_allclose([*p.numpy(), *q.numpy()], [1 - 0.6, 1, 1 - 0.8], rtol=1e-5)
    backend.step(optimizer, (p * jt.array(f32(0.3, 0))).sum() + (q * 0.4).sum(), clip=1.0)
    np.testing.assert_allclose([*p.numpy(), *q.numpy()], [0.4 - 0.3, 1, 0.2 - 0.4], rtol=1e-5)


def test_a_step_in_place_comes_after_what_reads_the_weights(backend):
    """A result that is still to be computed is that of the weights before the step."""
    weight = jt.array(f32(1, 2))
    optimizer = backend.optimizer("sgd", [{"params": {"weight": weight}, "lr": 1.0}])
    optimizer.gradients = {"weight": jt.array(f32(1, 1))}
    twice = weight * 2
    optimizer.apply()
    np.testing.assert_array_equal(twice.numpy(), [2, 4])
    np.testing.assert_array_equal(weight.numpy(), [0, 1])


def test_a_moment_of_another_shape_is_refused(backend):
    weight = jt.array(f32(1, 2))
    optimizer = backend.optimizer("adam", [{"params": {"weight": weight}, "lr": 1.0}])
    optimizer.load_state({"weight/step": np.array(1), "weight/exp_avg": f32(1), "weight/exp_avg_sq": f32(1)})
    with pytest.raises(ValueError, match="not float32 tensors of one shape"):
        backend.step(optimizer, weight.sum())
