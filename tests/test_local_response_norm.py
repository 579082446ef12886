"""Local response normalisation against the NumPy reference, across channels and within maps.

Tolerance: d sums fewer than 128 squares; the power d^-beta errs by a few eps times
1 + |beta log d|, below 8 here; the gradient adds fewer than 128 such terms: 128 eps of values of
order 1.
"""

from __future__ import annotations

import math

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from lamina import _C, nn
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


# Slabs of a block and of several blocks; tiles and what is left of them; windows beyond a tile.
LARGE = [
    ((3, 5, 7, 9), {"size": 3}, False),
    ((2, 150, 6, 11), {"size": 5}, False),
    ((1, 70, 11, 13), {"size": 150}, False),
    ((1, 2100, 2, 2), {"size": 40}, False),
    ((1, 6500, 1), {"size": 6}, False),
    ((1, 2, 80, 90), {"size": 4}, True),
    ((1, 1, 20, 21, 22), {"size": 3}, True),
]


def kernels(x, grad, layout):
    """y and grad_x from the kernels themselves: any dtype."""
    y, grad_x = np.empty_like(x), np.empty_like(x)
    _C.local_response_norm(*layout, x, None, y)
    _C.local_response_norm(*layout, x, grad, grad_x)
    return y, grad_x


def layout(shape, size, within):
    n, c, *spatial = shape
    if not within:
        sizes, window = (c, 1, math.prod(spatial)), (size, 1, 1)
    else:
        n *= c
        sizes, window = (1,) * (3 - len(spatial)), (1,) * (3 - len(spatial))
        sizes, window = sizes + tuple(spatial), window + (size,) * len(spatial)
    return n, sizes, window, 0.5 / math.prod(window), 0.75, 1.0


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize(("shape", "options", "within"), LARGE, ids=str)
def test_large_slabs_and_every_dtype(backend, shape, options, within, dtype):
    if backend == "ref" and options["size"] > 9:
        pytest.skip("the reference adds every window anew")
    dtype = cases.storage(dtype, backend)
    x, grad = (cases.reals(shape, seed).astype(dtype) for seed in (1, 2))
    y, grad_x = kernels(x, grad, layout(shape, options["size"], within))
    name = "local_response_norm" + ("_within" if within else "")
    x, grad = x.astype(float), grad.astype(float)
    bound = 128 * np.finfo(np.float64 if dtype == np.float64 else np.float32).eps
    rtol = cases.rounding(dtype) + bound
    expected = getattr(reference, name)(x, **options, alpha=0.5)
    assert_allclose(y.astype(float), expected, rtol=rtol, atol=bound)
    expected = getattr(reference, f"{name}_backward")(grad, x, **options, alpha=0.5)
    assert_allclose(grad_x.astype(float), expected, rtol=rtol, atol=bound)


@pytest.mark.parametrize(("shape", "options", "within"), [LARGE[i] for i in (0, 1, 5)], ids=str)
def test_misaligned_views_and_schedules(backend, shape, options, within):
    place = layout(shape, options["size"], within)
    x, grad = (cases.reals(shape, seed) for seed in (1, 2))
    views = cases.misaligned(x), cases.misaligned(grad)
    results = {
        b"".join(a.tobytes() for a in kernels(*views, place)) for _ in cases.schedules(backend)
    }
    results.add(b"".join(a.tobytes() for a in kernels(x, grad, place)))
    assert len(results) == 1


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
