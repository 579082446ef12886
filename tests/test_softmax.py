"""Softmax and cross-entropy over lines of every length: registers, blocks, several readings.

Tolerances: exp errs by a few eps and by the rounding of x - max, below 32 eps for the values here;
a sum of n positive terms in any tree that the backends use adds fewer than 64 eps. A 16-bit result
is the float32 one rounded once more.
"""

from __future__ import annotations

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from lamina import _C
from numpy.testing import assert_allclose, assert_array_equal

# [outer, axis, inner]: a few threads, a warp, a block and a loop of a block for each line; whole
# vectors and not; blocks of neighbouring lines, one reading and several.
LINES = [(5, 12, 1), (3, 500, 1), (3, 501, 1), (2, 1024, 1), (2, 1030, 1), (1, 9001, 1)]
LINES += [(1, 9008, 1), (2, 6, 5), (3, 20, 33), (1, 150, 40), (1, 2101, 2), (0, 3, 2)]


def bound(dtype):
    return 96 * np.finfo(np.float64 if dtype == np.float64 else np.float32).eps


def close(actual, expected):
    """With one more rounding for the 16-bit floats."""
    once = cases.rounding(actual.dtype)
    rtol = bound(actual.dtype) + once
    assert_allclose(np.asarray(actual, np.float64), expected, rtol=rtol, atol=bound(actual.dtype))


def softmax(name, x, grad_y):
    """y and grad_x of the middle axis, by the kernels themselves: any dtype."""
    y, grad_x = np.empty_like(x), np.empty_like(x)
    layout = (*x.shape, name == "log_softmax")
    _C.softmax(*layout, x, None, y)
    _C.softmax(*layout, y, grad_y, grad_x)
    return y, grad_x


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", LINES, ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(backend, name, shape, dtype):
    dtype = cases.storage(dtype, backend)
    x, grad_y = (3 * cases.reals(shape, seed).astype(dtype) for seed in (1, 2))
    y, grad_x = softmax(name, x, grad_y)
    close(y, getattr(reference, name)(x.astype(float), 1))
    # From the stored y, whose rounding is not the gradient's.
    y, grad_y = y.astype(float), grad_y.astype(float)
    if name == "softmax":
        expected = y * (grad_y - (y * grad_y).sum(1, keepdims=True))
    else:
        expected = grad_y - np.exp(y) * grad_y.sum(1, keepdims=True)
    scale = np.abs(grad_y).sum(1).max(initial=1)
    assert_allclose(
        grad_x.astype(float),
        expected,
        rtol=cases.rounding(dtype) + bound(dtype),
        atol=scale * bound(dtype),
    )


@pytest.mark.parametrize("shape", LINES[:-1], ids=str)
def test_nan_and_infinities(backend, shape):
    x = np.zeros(shape, np.float32)
    lines = x.transpose(0, 2, 1).reshape(-1, shape[1])
    lines[0, 3] = np.nan
    x = np.ascontiguousarray(lines.reshape(shape[0], shape[2], shape[1]).transpose(0, 2, 1))
    y = F.softmax(x, 1)
    assert np.isnan(y[0, :, 0]).all()
    assert np.isnan(y).sum() == shape[1]
    for value, where in ((np.inf, 2), (-np.inf, slice(None))):
        x[0, :, 0] = 0
        x[0, where, 0] = value
        for name in ("softmax", "log_softmax"):
            y = getattr(F, name)(x, 1)
            assert np.isnan(y[0, :, 0]).any()
            assert np.isnan(y).sum() <= shape[1]
    x[0, :, 0] = 0
    x[0, 1, 0] = -np.inf
    y = F.softmax(x, 1)
    assert y[0, 1, 0] == 0
    assert np.isfinite(y).all()


def test_long_lines_whose_maximum_comes_late(backend):
    """Sums that grow block by block, too large for a float about the first block's maximum, too;
    and blocks that hold nothing but -inf."""
    x = np.stack([np.linspace(-60, 60, 5003)] * 6).astype(np.float32)
    x[1] = x[1, ::-1]
    x[2, :4100] = -np.inf
    x[3, 3000:] += 500
    x[4, 3000] = 1e30
    x[5, :4100] = -np.inf
    x[5, 5] = np.nan
    y, loss = F.log_softmax(x, 1), F.cross_entropy(x, np.full(6, 5000), reduction="none")
    close(y[:5], reference.log_softmax(x[:5].astype(float), 1))
    close(loss[:5], -reference.log_softmax(x[:5].astype(float), 1)[:, 5000])
    assert np.isnan(y[5]).all()
    assert np.isnan(loss[5])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", LINES[:-1], ids=str)
def test_cross_entropy(backend, shape, weighted, smoothing):
    n, c, inner = shape
    rng = np.random.default_rng(5)
    x = (3 * cases.reals(shape, 1)).astype(np.float32)
    target = rng.integers(0, c, (n, inner))
    target[0, 0] = -100
    weight = rng.uniform(0.5, 1, c).astype(np.float32) if weighted else None
    options = {"reduction": "none", "label_smoothing": smoothing}
    t = lamina.tensor(x, requires_grad=True)
    loss = F.cross_entropy(t, target, weight, **options)
    grad = cases.reals((n, inner), 2)
    loss.backward(grad)
    close(loss.data, reference.cross_entropy(x, target, weight, **options))
    expected = reference.cross_entropy_backward(grad, x, target, weight, **options)
    close(t.grad.data, expected)
    assert (t.grad.data[0, :, 0] == 0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(5, 12, 1), (3, 504, 1), (2, 20, 33)], ids=str)
def test_cross_entropy_in_16_bits(backend, shape, dtype):
    dtype = cases.storage(dtype, backend)
    n, c, inner = shape
    x = (3 * cases.reals(shape, 1)).astype(dtype)
    grad = cases.reals((n, inner), 2).astype(dtype)
    target = np.random.default_rng(5).integers(0, c, (n, inner))
    loss, grad_x, bad = np.empty_like(grad), np.empty_like(x), np.full(1, -1)
    _C.cross_entropy(x, target, None, None, loss, *shape, -100, 0.1, bad)
    _C.cross_entropy(x, target, None, grad, grad_x, *shape, -100, 0.1, bad)
    assert bad[0] == -1
    wide, options = x.astype(float), {"reduction": "none", "label_smoothing": 0.1}
    close(loss, reference.cross_entropy(wide, target, **options))
    grad = grad.astype(float)
    close(grad_x, reference.cross_entropy_backward(grad, wide, target, **options))


def test_the_first_bad_target_is_reported(backend):
    x, target = np.zeros((700, 3), np.float32), np.zeros(700, np.int64)
    target[[300, 650]] = 3, -1
    with pytest.raises(ValueError, match=r"got 3 at position \(300,\)"):
        F.cross_entropy(x, target)
    loss, bad = np.full(700, 7, np.float32), np.full(1, -1)
    _C.cross_entropy(x, target, None, None, loss, 700, 3, 1, -100, 0.0, bad)
    assert bad[0] == 300
    assert (loss == 7).all()


@pytest.mark.parametrize("shape", LINES[:-1], ids=str)
def test_misaligned_views_and_schedules(backend, shape):
    size = int(np.prod(shape))
    x, grad = (cases.misaligned(cases.reals((size,), s)).reshape(shape) for s in (1, 2))
    results = set()
    for _ in cases.schedules(backend):
        y, grad_x = softmax("softmax", x, grad)
        results.add(y.tobytes() + grad_x.tobytes())
    assert len(results) == 1
    y = softmax("softmax", x.copy(), grad.copy())[0]
    assert_allclose(y, reference.softmax(x, 1), rtol=bound(np.float32))
    assert_array_equal(y.shape, shape)
