"""Local response normalisation against the NumPy reference, across channels and within maps.

Tolerance: d sums fewer than 128 squares; the power d^-beta errs by a few eps times
1 + |beta log d|, below 8 here; the gradient adds fewer than 128 such terms: 128 eps of values of
order 1.
"""

from __future__ import annotations

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from lamina import nn
from numpy.testing import assert_allclose

CASES = [
    ((2, 7, 5), {"size": 5}),
    ((2, 3, 4, 37), {"size": 4, "alpha": 0.5, "beta": 0.6, "k": 2.0}),
    ((1, 20, 3, 3), {"size": 3, "alpha": 1.0}),
    ((1, 2, 2, 3, 4), {"size": 9, "alpha": 0.3}),
    ((1, 4, 300), {"size": 1, "alpha": 2.0, "beta": -0.5}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "options"), CASES, ids=str)
@pytest.mark.parametrize("within", [False, True])
def test_values_and_gradients(backend, shape, options, within, dtype):
    x, grad = cases.reals(shape, 1, dtype), cases.reals(shape, 2, dtype)
    name = "local_response_norm" + ("_within" if within else "")
    tensor = lamina.tensor(x, requires_grad=True)
    y = F.local_response_norm(tensor, **options, within=within)
    y.backward(grad)
    bound = 128 * np.finfo(dtype).eps
    assert_allclose(y.data, getattr(reference, name)(x, **options), rtol=bound, atol=bound)
    expected = getattr(reference, f"{name}_backward")(grad, x, **options)
    assert_allclose(tensor.grad.data, expected, rtol=bound, atol=bound)


@pytest.mark.parametrize("within", [False, True])
def test_gradcheck(backend, within):
    x = cases.reals((2, 4, 3, 3), 1, np.float64)
    lamina.testing.gradcheck(lambda x: F.local_response_norm(x, 3, 0.5, within=within), [x])


@pytest.mark.parametrize("within", [False, True])
def test_nan_and_inf_stay_in_their_windows(backend, within):
    x = np.ones((1, 9, 9, 1), np.float32)
    x[0, 4, 4, 0] = np.nan
    y = F.local_response_norm(x, 3, within=within)
    where = np.argwhere(np.isnan(y[0, :, :, 0]))
    assert len(where) == 3
    assert (abs(where - 4) <= 1).all()
    x[0, 4, 4, 0] = np.inf  # Inf * Inf^-beta is NaN, its neighbours are 1 * Inf^-beta = 0
    y = F.local_response_norm(x, 3, within=within)
    assert np.isnan(y).sum() == 1
    assert (y == 0).sum() == 2


def test_same_bits_for_any_thread_count():
    x = cases.reals((3, 24, 20, 31), 1)
    results = []
    for threads in (1, 2, 3, 8):
        lamina.set_num_threads(threads)
        t = lamina.tensor(x, requires_grad=True)
        y = F.local_response_norm(t, 5)
        y.backward(x)
        results.append(y.data.tobytes() + t.grad.data.tobytes())
    assert len(set(results)) == 1


@pytest.mark.torch
def test_layer_as_in_torch():
    torch = pytest.importorskip("torch")
    ours, theirs = nn.LocalResponseNorm(5, 0.3), torch.nn.LocalResponseNorm(5, 0.3)
    assert repr(ours) == repr(theirs)
    x = cases.reals((2, 7, 4, 5), 1, np.float64)
    assert_allclose(ours(x), theirs(torch.tensor(x)).numpy(), rtol=1e-13)
    assert nn.LocalResponseNorm(3, within=True)(x).shape == x.shape


def test_zero_size(backend):
    assert F.local_response_norm(np.zeros((0, 3, 4), np.float32), 3).shape == (0, 3, 4)
    assert F.local_response_norm(np.zeros((2, 3, 0), np.float32), 3).shape == (2, 3, 0)


X = np.ones((2, 3, 4), np.float32)
BAD = [
    (lambda: F.local_response_norm(X, 0), ValueError, "size must be at least 1"),
    (lambda: F.local_response_norm(X, -1), ValueError, "size must be at least 1"),
    (lambda: F.local_response_norm(X, 2.0), TypeError, "size must be an integer"),
    (lambda: F.local_response_norm(X, 2**40), ValueError, "size must be below 2**31"),
    (lambda: F.local_response_norm(X[0], 2), ValueError, "input must have 3"),
    (lambda: F.local_response_norm(X[..., None, None, None], 2, within=True), ValueError, "3 or 4"),
    (lambda: F.local_response_norm(X.astype(int), 2), TypeError, "float32 or float64"),
    (lambda: F.local_response_norm(X.astype(complex), 2), TypeError, "float32 or float64"),
    (lambda: F.local_response_norm(X, 2, alpha="a"), TypeError, "alpha must be a number"),
    (lambda: F.local_response_norm(X, 2, alpha=-1), ValueError, "alpha and k must not be negative"),
    (lambda: F.local_response_norm(X, 2, k=-1), ValueError, "alpha and k must not be negative"),
    (lambda: F.local_response_norm(X, 2, beta=None), TypeError, "beta must be a number"),
    (lambda: F.local_response_norm(None, 2), TypeError, "must be an array"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
