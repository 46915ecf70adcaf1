"""The portable form of every kernel passes the tests of the C++, and computes in Jittor's own operators alone."""
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from test_backend import test_the_self_check_passes  # noqa: F401
from test_convolution import test_a_weight_that_does_not_fit, test_the_gradient_of_a_part_alone  # noqa: F401
from test_convolution import test_values_and_gradients as test_convolution  # noqa: F401
from test_pooling import test_resizing_and_its_gradient, test_the_maximum_and_its_gradient  # noqa: F401
from test_pooling import test_values_and_gradient as test_average_pooling  # noqa: F401
from test_siglip import test_rounding_to_shorter_types  # noqa: F401
from test_text_ops import (  # noqa: F401
    test_a_causal_mask_hides_what_comes_after,
    test_a_row_that_sees_nothing_sees_all_alike,
    test_batch_norm_of_vectors,
    test_cross_entropy,
    test_dropout_of_attention,
    test_elements_along_an_axis,
    test_embeddings_and_their_gradient,
    test_grouped_convolution,
    test_masked_attention,
    test_modulation_by_rows_and_its_gradients,
    test_noise_scaled_by_rows_and_its_gradients,
    test_normalised_modulation_and_its_gradients,
    test_numbers_out_of_range_are_refused,
    test_stochastic_depth_drops_samples,
    test_the_gradient_of_a_row_that_sees_nothing,
    test_the_mean_over_no_label_is_not_a_number,
)
from test_transformer_ops import (  # noqa: F401
    test_infinities_and_nans,
    test_rows_with_a_large_mean_keep_their_variance,
    test_values_and_gradients,
)

from jittwin.errors import UserError
from jt_models.backend import Backend
from jt_models.boot import jt
from jt_models.nn import kernels, ops
from jt_models.nn.kernels.kernel import FAN, Kernel, form, summed_by_row

FILES = [importlib.import_module(f"jt_models.nn.kernels.{file.name}") for file in pkgutil.iter_modules(kernels.__path__)]
KERNELS = {kind for file in FILES for _, kind in inspect.getmembers(file, inspect.isclass)
           if issubclass(kind, Kernel) and kind is not Kernel}


@pytest.fixture(autouse=True)
def portable(monkeypatch):
    """In this file the portable form is chosen, and a kernel in C++ fails."""
    monkeypatch.setenv("JITTWIN_KERNELS", "portable")
    monkeypatch.setattr(jt, "code", lambda *_, **__: pytest.fail("a kernel in C++ was called"))


def test_every_kernel_has_both_forms():
    assert len(KERNELS) >= 14
    for kind in KERNELS:
        assert {"execute", "grad", "plain", "plain_grad"} <= vars(kind).keys(), kind
    for file in FILES:
        if "cpu_src" in inspect.getsource(file):
            assert any(kind.__module__ == file.__name__ for kind in KERNELS) or "form()" in inspect.getsource(file)


def test_another_form_is_a_mistake(monkeypatch):
    monkeypatch.setenv("JITTWIN_KERNELS", "portible")
    with pytest.raises(UserError) as error:
        Backend().setup()
    assert str(error.value) == ("JITTWIN_KERNELS=portible (did you mean 'portable'?): choose from native, portable")


def test_the_c_plus_plus_is_the_default(monkeypatch):
    for value in ("", "native"):
        monkeypatch.setenv("JITTWIN_KERNELS", value)
        assert form() == "native"
        with pytest.raises(pytest.fail.Exception, match="C\\+\\+ was called"):
            ops.gelu(jt.ones((2,)))
        ops.gelu(jt.ones((2,)).float64()).sync()            # the C++ is for float32


@pytest.mark.parametrize("count", [1, FAN, FAN + 1, FAN ** 2 + 1])
def test_sums_by_row(count):
    """Of one to several levels; rows that no value has, and values of no row."""
    draws = np.random.default_rng(count)
    values, rows = draws.standard_normal((count, 3)).astype(np.float32), draws.choice([-1, 0, 0, 0, 2, 4], count)
    expected = np.zeros((6, 3))
    np.add.at(expected, rows[rows >= 0], values[rows >= 0])
    found = summed_by_row(jt.array(values), rows, 6).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found, summed_by_row(jt.array(values), rows, 6).numpy())


def test_maximum_pooling_by_hand():
    """The first of equals gets the gradient, the last of two NaNs is the maximum, and padding is never one."""
    x = -np.ones((1, 1, 4, 4), np.float32)
    x[0, 0, 0, 2:] = np.nan
    x[0, 0, 3, 3] = -np.inf
    y = ops.max_pool2d(given := jt.array(x), 2, 2, 1)
    np.testing.assert_array_equal(y.numpy()[0, 0], [[-1, np.nan, np.nan], [-1, -1, -1], [-1, -1, -np.inf]])
    slope = jt.grad((y * jt.array(np.arange(1, 10, dtype=np.float32).reshape(y.shape))).sum(), given).numpy()[0, 0]
    np.testing.assert_array_equal(slope, [[1, 0, 2, 3], [4, 5, 0, 6], [0, 0, 0, 0], [7, 8, 0, 9]])


def test_the_masks_of_dropout_are_those_of_the_kernel(monkeypatch):
    ops.seed_dropout(4)
    found = ops.dropout(jt.ones((3, 50, 7)), 0.3, 5).numpy()
    monkeypatch.undo()
    np.testing.assert_array_equal(found, ops.dropout(jt.ones((3, 50, 7)), 0.3, 5).numpy())
