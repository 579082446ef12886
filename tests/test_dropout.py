"""Dropout: the exact Philox mask of the NumPy reference, forward and backward."""

from __future__ import annotations

import math

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from lamina import nn
from numpy.testing import assert_allclose, assert_array_equal

SEED = 2**40 + 7
LIMIT = -1.7580993408473766  # SELU on the far left


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(3,), (2, 5), (1, 1031), (7, 300, 11)], ids=str)
def test_mask_is_the_reference_stream(backend, shape, p, dtype):
    lamina.manual_seed(SEED)
    x = cases.reals(shape, 1, dtype)
    F.dropout(x, p)  # takes the first words
    tensor = lamina.tensor(x, requires_grad=True)
    y = F.dropout(tensor, p)
    grad = cases.reals(shape, 2, dtype)
    y.backward(grad)
    keep = reference.dropout_mask(SEED, -(-x.size // 4), x.size, p).reshape(shape)
    scale = dtype(1 / (1 - p))
    assert_array_equal(y.data, np.where(keep, x * scale, 0))
    assert_array_equal(tensor.grad.data, np.where(keep, grad * scale, 0))


FEATURES = [
    ("dropout1d", (3, 8, 5), 2),
    ("dropout1d", (8, 5), 1),
    ("dropout2d", (3, 8, 5, 2), 2),
    ("dropout2d", (3, 8, 5), 2),
    ("dropout3d", (2, 9, 2, 2, 3), 2),
    ("dropout3d", (9, 2, 2, 3), 1),
]


@pytest.mark.parametrize(("name", "shape", "axes"), FEATURES, ids=str)
def test_whole_channels(backend, name, shape, axes):
    lamina.manual_seed(3)
    x = np.ones(shape, np.float32)
    y = getattr(F, name)(x, 0.4)
    rows = math.prod(shape[:axes])
    keep = reference.dropout_mask(3, 0, rows, 0.4).reshape(shape[:axes])
    expected = np.where(keep, np.float32(1 / 0.6), np.float32(0))
    assert_array_equal(
        y, np.broadcast_to(expected.reshape(*expected.shape, *(1,) * (y.ndim - axes)), shape)
    )


@pytest.mark.parametrize("p", [0.2, 0.6])
def test_alpha_dropout_keeps_mean_and_variance(backend, p):
    """Over n draws the mean errs by about 1 / sqrt(n), the variance by about 3 / sqrt(n)."""
    lamina.manual_seed(1)
    n = 400_000
    x = np.random.default_rng(1).normal(size=n)
    y = F.alpha_dropout(x, p, training=True)
    assert abs(y.mean()) < 6 / math.sqrt(n)
    assert abs(y.var() - 1) < 20 / math.sqrt(n)
    keep = reference.dropout_mask(1, 0, n, p)
    scale = 1 / math.sqrt((LIMIT**2 * p + 1) * (1 - p))
    expected = scale * (np.where(keep, x, LIMIT) - LIMIT * p)
    assert_allclose(y, expected, rtol=1e-14, atol=1e-14)


def test_feature_alpha_dropout(backend):
    lamina.manual_seed(5)
    y = F.feature_alpha_dropout(np.ones((2, 16, 3, 3)), 0.5, training=True)
    assert_array_equal(y, np.broadcast_to(y[:, :, :1, :1], y.shape))
    assert len(np.unique(y)) == 2


def test_share_of_zeros(backend):
    """Binomial: 5 standard deviations of the share of n draws."""
    lamina.manual_seed(0)
    n, p = 1 << 20, 0.3
    zeros = (F.dropout(np.ones(n, np.float32), p) == 0).mean()
    assert abs(zeros - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_edges(backend):
    x = cases.reals((4, 5), 1)
    assert F.dropout(x, 0.0) is x
    assert F.dropout(x, 0.5, training=False) is x
    assert_array_equal(F.dropout(x, 1.0), np.zeros_like(x))
    assert F.dropout(np.zeros((0, 3), np.float32)).shape == (0, 3)
    nans = np.full(64, np.nan, np.float32)
    assert np.isnan(F.dropout(nans)).all()


def test_same_mask_for_any_thread_count_and_backend():
    x = cases.reals((9, 1 << 15), 1)
    results = []
    for threads, name in ((1, "cpu"), (2, "cpu"), (3, "cpu"), (8, "cpu"), (1, "ref")):
        lamina.set_num_threads(threads)
        lamina.manual_seed(11)
        with lamina.backend(name):
            results.append(F.dropout(x, 0.5).tobytes())
    assert len(set(results)) == 1


def test_unseeded_calls_differ():
    x = np.ones(256, np.float32)
    assert (F.dropout(x) != F.dropout(x)).any()


@pytest.mark.parametrize(
    "name",
    ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"],
)
def test_layers(name):
    layer = getattr(nn, name)(0.3)
    shape = {"Dropout1d": (2, 8, 4), "Dropout3d": (2, 8, 2, 2, 2)}.get(name, (2, 8, 4, 4))
    x = lamina.Tensor(np.ones(shape, np.float32))
    assert repr(layer) == f"{name}(p=0.3, inplace=False)"
    assert (layer(x).data != 1).any()
    assert layer.eval()(x) is x


X = np.ones((2, 3, 4), np.float32)
BAD = [
    (lambda: F.dropout(X, -0.1), ValueError, "p must be from 0 to 1"),
    (lambda: F.dropout(X, 1.5), ValueError, "p must be from 0 to 1"),
    (lambda: F.dropout(X, float("nan")), ValueError, "p must be from 0 to 1"),
    (lambda: F.dropout(X, "a"), TypeError, "p must be a number"),
    (lambda: F.dropout(X.astype(int)), TypeError, "float32 or float64"),
    (lambda: F.dropout([1.0]), TypeError, "must be an array"),
    (lambda: F.dropout1d(X[None]), ValueError, "input must have 2 or 3"),
    (lambda: F.dropout2d(X[0]), ValueError, "input must have 3 or 4"),
    (lambda: F.dropout3d(X), ValueError, "input must have 4 or 5"),
    (lambda: F.alpha_dropout(X, 2, True), ValueError, "p must be from 0 to 1"),
    (lambda: F.feature_alpha_dropout(X[0, 0], 0.5, True), ValueError, "input must have 2"),
    (lambda: nn.Dropout(1.1), ValueError, "p must be from 0 to 1"),
    (lambda: nn.Dropout2d(None), TypeError, "p must be a number"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
