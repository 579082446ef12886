"""Distances of rows: values and gradients against NumPy in float64, zero distances, NaN.

Tolerance: sums are added in double; differences, and the factors of gradients, are rounded in the
dtype, a few times.
"""

from __future__ import annotations

import lamina
import lamina.functional as F
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal


@pytest.mark.parametrize("p", [1.0, 2.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 1), (5, 3), (33, 70), (130, 31), (300, 4)])
@pytest.mark.parametrize("backend", ["ref", "cpu"])
def test_distances_of_rows(p, dtype, shape, backend):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    x[-1] = x[0]  # at no distance: the gradient is 0
    first, second = np.triu_indices(len(x), 1)
    wide = x.astype(np.float64)
    difference = wide[first] - wide[second]
    expected = np.linalg.norm(difference, p, 1)
    grad_y = np.random.default_rng(1).standard_normal(expected.shape).astype(dtype)
    with np.errstate(all="ignore"):
        slope = np.sign(difference) if p == 1 else difference / expected[:, None]
    slope = np.where(expected[:, None] == 0, 0, slope) * grad_y[:, None]
    gradient = np.zeros(shape)
    np.add.at(gradient, first, slope)
    np.subtract.at(gradient, second, slope)
    size = np.abs(slope).sum() / len(x)
    for _ in range(2):
        tensor = lamina.tensor(x, requires_grad=True)
        with lamina.backend(backend):
            y = F.pdist(tensor, p)
            y.backward(grad_y)
        assert_allclose(y.detach().numpy(), expected, rtol=4 * np.finfo(dtype).eps)
        assert y.dtype == dtype
        assert np.abs(tensor.grad.numpy() - gradient).max() <= 8 * np.finfo(dtype).eps * size
        assert_array_equal(F.pdist(x.T.copy().T, p), F.pdist(x, p), strict=True)
    scaled = F.pdist(x * dtype(1e30), p)
    assert_allclose(scaled, expected * 1e30, rtol=1e-4)


def gradients_of_distances(a, b, kind, grad_y):
    """Those of a and b in float64, by the formulas of csrc/ops/distance.h."""
    e, squares = a - b + 1e-6, [(x * x).sum(-1) for x in (a, b)]
    size = np.abs(e)
    if kind in ("cosine", "shifted"):
        added = 1e-12 if kind == "shifted" else 0
        scale = np.sqrt((squares[0] + added) * (squares[1] + added))
        y = (a * b).sum(-1) / scale
        grads = [
            other / scale[:, None] - x * (y / (square + added))[:, None]
            for x, other, square in ((a, b, squares[0]), (b, a, squares[1]))
        ]
    else:
        y = np.linalg.norm(e, kind, -1)
        if kind == np.inf:
            slope = np.sign(e) * (size == y[:, None])
            slope /= np.abs(slope).sum(-1, keepdims=True)
        else:
            slope = np.sign(e) * (size / y[:, None]) ** (kind - 1)
        grads = [slope, -slope]
    return y, *(grad * grad_y[:, None] for grad in grads)


def distance_of_rows(kind):
    if kind == "shifted":  # 1 - cosine
        return lambda a, b: 1 - F.cosine_embedding_loss(a, b, np.ones(len(a)), reduction="none")
    return F.cosine_similarity if kind == "cosine" else lambda a, b: F.pairwise_distance(a, b, kind)


@pytest.mark.parametrize("kind", [1.0, 2.0, 3.5, 0.5, float("inf"), "cosine", "shifted"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (33, 70), (130, 16), (3, 70000)])
@pytest.mark.parametrize("backend", ["ref", "cpu"])
def test_distances_of_two_rows(kind, dtype, shape, backend):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    grad_y = rng.standard_normal(shape[0]).astype(dtype)
    y, *grads = gradients_of_distances(a.astype(float), b.astype(float), kind, grad_y)
    eps, call = np.finfo(dtype).eps, distance_of_rows(kind)
    for wanted in ((True, True), (True, False), (False, True), (True, True)):
        tensors = [lamina.tensor(x, requires_grad=w) for x, w in zip((a, b), wanted, strict=True)]
        with lamina.backend(backend):
            found = call(*tensors)
            found.backward(grad_y)
        assert found.dtype == dtype
        sums = 16 + shape[1] ** 0.5  # rounding errors of a sum add up at random
        assert_allclose(found.detach().numpy(), y, rtol=sums * eps, atol=4 * eps)
        for tensor, grad in zip(tensors, grads, strict=True):
            if tensor.requires_grad:
                bound = 4 * sums * eps * max(np.abs(grad).max(), 1)
                assert_allclose(tensor.grad.numpy(), grad, rtol=32 * eps, atol=bound)
    with lamina.backend(backend):
        again = call(a.T.copy().T, b)
    assert_array_equal(again, found.detach().numpy(), strict=True)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, float("inf")])
@pytest.mark.parametrize("backend", ["ref", "cpu"])
def test_distances_of_equal_rows_and_of_nan(p, backend):
    x = np.arange(40.0).reshape(2, 20)
    a, b = (lamina.tensor(x, requires_grad=True) for _ in range(2))
    with lamina.backend(backend):
        y = F.pairwise_distance(a, b, p, eps=0.0)
        y.sum().backward()
    for zero in (y.detach(), a.grad, b.grad):
        assert not zero.numpy().any()
    other = x + 1
    other[1, 18] = np.nan
    with lamina.backend(backend):
        y = F.pairwise_distance(a.detach(), other, p, eps=0.0)
    assert np.isnan(y.numpy()).tolist() == [False, True]


def test_cosine_of_short_rows():
    """The norm that `eps` replaces has no gradient."""
    a, b = np.array([[1e-9, 0.0], [0.0, 0.0]]), np.array([[3.0, 4.0], [1.0, 0.0]])
    x, t = (lamina.tensor(v, requires_grad=True) for v in (a, b))
    for _ in range(2):
        x.grad = t.grad = None
        y = F.cosine_similarity(x, t)
        y.sum().backward()
        assert_allclose(y.detach().numpy(), [0.06, 0])
        assert_allclose(x.grad.numpy(), [[0.6e8, 0.8e8], [1e8, 0]])
        assert_allclose(t.grad.numpy(), [[0.1 / 5 - 0.06 * 0.12, -0.06 * 0.16], [0, 0]], atol=1e-15)


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.5, float("inf")])
def test_distances_of_rows_without_columns(p):
    for rows in range(4):
        found = F.pdist(np.zeros((rows, 0)), p)
        assert_array_equal(found, np.zeros(rows * (rows - 1) // 2))
