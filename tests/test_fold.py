"""Unfold (im2col) and fold (col2im) against the NumPy reference.

Small integers make everything exact. The kernels themselves: test_conv, with algo="im2col".
"""

from __future__ import annotations

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from lamina import ops
from numpy.testing import assert_array_equal


def check(result, tensor, expected, backward):
    grad = cases.integers(result.shape, 2, result.data.dtype)
    result.backward(grad)
    assert_array_equal(result.data, expected)
    assert_array_equal(tensor.grad.data, backward(grad))


FOLDS = [
    ((2, 3, 6, 7), {"kernel_size": 3}),
    ((1, 2, 9, 8), {"kernel_size": (2, 3), "stride": 2, "padding": 1}),
    ((2, 9, 8), {"kernel_size": (2, 3), "dilation": (2, 1), "stride": (1, 3), "padding": (0, 2)}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "options"), FOLDS, ids=str)
def test_unfold_and_fold(backend, shape, options, dtype):
    x = cases.integers(shape, 1, dtype)
    tensor = lamina.tensor(x, requires_grad=True)
    columns = reference.unfold(x, **options)
    size = shape[-2:]
    check(
        F.unfold(tensor, **options),
        tensor,
        columns,
        lambda grad: reference.fold(grad, size, **options),
    )
    tensor = lamina.tensor(columns.astype(dtype), requires_grad=True)
    check(
        F.fold(tensor, size, **options),
        tensor,
        reference.fold(columns, size, **options),
        lambda grad: reference.unfold(grad, **options),
    )


def calls(x):
    """Results and gradients of unfolding and folding, as bytes."""
    found = []
    for function in (
        lambda x: F.unfold(x, 3, padding=1),
        lambda x: F.fold(x.reshape(len(x), -1, 20), (5, 6), 2),
    ):
        tensor = lamina.Tensor(x, requires_grad=True)
        y = function(tensor)
        y.backward(cases.reals(y.shape, 3, y.data.dtype))
        found.append(y.data.tobytes() + tensor.grad.data.tobytes())
    return found


def test_inputs_of_any_layout():
    x = cases.reals((2, 4, 5, 20), 1)
    wide = np.repeat(x, 2, -1)
    frozen = x.copy()
    frozen.setflags(write=False)
    for other in (np.asfortranarray(x), wide[..., ::2], x[::-1].copy()[::-1], frozen):
        assert calls(other) == calls(x)
    assert x.tobytes() == frozen.tobytes()


def test_same_bits_for_any_thread_count():
    x = cases.reals((3, 8, 25, 40), 1)
    results = []
    for threads in (1, 2, 3, 8):
        lamina.set_num_threads(threads)
        results.append(calls(x))
    assert all(result == results[0] for result in results)


def test_nan_stays_where_it_is():
    x = cases.reals((1, 1, 5, 6), 1)
    x[0, 0, 2, 3] = np.nan
    assert np.isnan(F.fold(F.unfold(x, 3), (5, 6), 3)).sum() == 1


def test_empty_batch():
    x = np.zeros((0, 2, 5, 6), np.float32)
    assert F.unfold(x, 2).shape == (0, 8, 20)
    assert F.fold(F.unfold(x, 2), (5, 6), 2).shape == x.shape


def test_each_is_the_transpose_of_the_other():
    """<unfold(x), y> == <x, fold(y)>, exactly in integers."""
    options = {"kernel_size": (3, 2), "stride": (1, 2), "padding": 1, "dilation": (1, 2)}
    x = cases.integers((2, 3, 7, 8), 1, np.float64)
    columns = F.unfold(x, **options)
    y = cases.integers(columns.shape, 2, np.float64)
    assert (columns * y).sum() == (x * F.fold(y, (7, 8), **options)).sum()


def test_names_in_ops():
    x = cases.integers((1, 2, 4, 4), 1)
    assert_array_equal(ops.im2col(x, 2), F.unfold(x, 2))
    assert_array_equal(ops.col2im(ops.im2col(x, 2), 4, 2), F.fold(F.unfold(x, 2), 4, 2))


def test_gradcheck(backend):
    x = cases.reals((1, 2, 4, 5), 1, np.float64)
    lamina.testing.gradcheck(lambda x: F.fold(F.unfold(x, 2), (4, 5), 2), [x])


X = np.ones((1, 2, 4, 5), np.float32)
Y = X[0]
BAD = [
    (lambda: F.unfold(X, 6), ValueError, "kernel reaches over 6 positions"),
    (lambda: F.unfold(X, 0), ValueError, "kernel_size must be at least 1"),
    (lambda: F.unfold(X, 2, stride=0), ValueError, "stride must be at least 1"),
    (lambda: F.unfold(X, 2, dilation=-1), ValueError, "dilation must be at least 1"),
    (lambda: F.unfold(X, 2, padding=-1), ValueError, "padding must be at least 0"),
    (lambda: F.unfold(X[0, 0], 2), ValueError, "input must have 3 or 4"),
    (lambda: F.unfold(X.astype(int), 2), TypeError, "float32 or float64"),
    (lambda: F.unfold(X, (2, 2, 2)), ValueError, "kernel_size must be an integer or 2 of them"),
    (lambda: F.unfold(X, 2.0), TypeError, "kernel_size must be an integer"),
    (lambda: F.unfold(X, True), TypeError, "kernel_size must be an integer"),
    (lambda: F.unfold(X, 2, padding="same"), TypeError, "padding must be an integer"),
    (lambda: F.unfold(X, 2**31), ValueError, "kernel_size must be below 2**31"),
    (lambda: F.unfold(X, 2, padding=2**30), ValueError, "fewer than 2**63 bytes"),
    (lambda: F.unfold(X[:, :, :0], 2), ValueError, "the padded input has 0"),
    (lambda: F.unfold([1.0], 2), TypeError, "input must be an array"),
    (lambda: F.fold(X[0][:, :3], 4, 2), ValueError, "rows of input must be a multiple"),
    (lambda: F.fold(X[0], (4, 4), (2, 2), stride=2), ValueError, "input must have 2 * 2 columns"),
    (lambda: F.fold(X, 4, 2), ValueError, "input must have 2 or 3"),
    (lambda: F.fold(X[0], 0, 2), ValueError, "output_size must be at least 1"),
    (lambda: F.fold(Y, (4, 4, 4), 2), ValueError, "output_size must be an integer or 2 of them"),
    (lambda: F.fold(Y, 4.5, 2), TypeError, "output_size must be an integer"),
    (lambda: F.fold(Y, (2, 6), 0), ValueError, "kernel_size must be at least 1"),
    (lambda: F.fold(Y, (2, 6), 2, 0), ValueError, "dilation must be at least 1"),
    (lambda: F.fold(Y, (2, 6), 2, 1, -1), ValueError, "padding must be at least 0"),
    (lambda: F.fold(Y, (2, 6), 2, stride=0), ValueError, "stride must be at least 1"),
    (lambda: F.fold(Y, 1, 2), ValueError, "kernel reaches over 2 positions"),
    (lambda: F.fold(Y.astype(int), (2, 6), 2), TypeError, "float32 or float64"),
    (lambda: F.fold("a", (2, 6), 2), TypeError, "input must be an array"),
    (lambda: F.fold(Y, 2**31, 2), ValueError, "output_size must be below 2**31"),
    (
        lambda: F.fold(np.ones((4, 2**16), np.float32), 2**17, 2, stride=2**9),
        MemoryError,
        "more than the",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert text in message
    assert message.startswith(("fold: ", "unfold: "))
