"""Interpolation, block unpoolings and shuffles against the NumPy reference.

Tolerance: an axis sums at most 64 taps with weights of absolute sum below 2, three axes: 64 eps of
values of order 10. Nearest, unpoolings and shuffles only move elements, so they are exact.
"""

from __future__ import annotations

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from lamina import nn
from numpy.testing import assert_allclose, assert_array_equal

RESIZE = [
    ((2, 3, 7), {"size": 12, "mode": "linear"}),
    ((2, 3, 7), {"size": (3,), "mode": "linear", "align_corners": True}),
    ((1, 2, 9), {"scale_factor": 1.7, "mode": "linear"}),
    ((1, 2, 9), {"scale_factor": 1.7, "mode": "linear", "recompute_scale_factor": True}),
    ((2, 3, 5, 6), {"size": (10, 9), "mode": "bilinear"}),
    ((2, 3, 5, 6), {"size": (3, 17), "mode": "bilinear", "align_corners": True}),
    ((1, 1, 4, 5), {"scale_factor": (2.0, 0.6), "mode": "bilinear"}),
    ((1, 1, 4, 5), {"scale_factor": (2.0, 1.1), "mode": "bilinear"}),  # an axis is copied
    ((1, 1, 4, 5), {"scale_factor": (1.2, 0.6), "mode": "bicubic", "antialias": True}),
    ((1, 1, 4, 5), {"scale_factor": (1.2, 0.6), "mode": "bicubic"}),
    ((1, 2, 20, 30), {"size": (7, 8), "mode": "bilinear", "antialias": True}),
    ((1, 2, 20, 30), {"size": (7, 44), "mode": "bicubic", "antialias": True}),
    ((2, 2, 6, 5), {"size": (13, 4), "mode": "bicubic"}),
    ((2, 2, 6, 5), {"scale_factor": 2, "mode": "bicubic", "align_corners": True}),
    ((1, 2, 3, 4, 5), {"size": (5, 4, 9), "mode": "trilinear"}),
    ((1, 2, 3, 4, 5), {"scale_factor": 2.5, "mode": "trilinear", "align_corners": True}),
    ((2, 2, 11, 7), {"size": (4, 7), "mode": "area"}),
    ((1, 1, 1, 1), {"size": (3, 4), "mode": "bilinear"}),
    ((1, 2, 1, 5), {"size": (1, 1), "mode": "bilinear", "align_corners": True}),
]
NEAREST = [
    ((2, 3, 7), {"size": 12}),
    ((2, 3, 8, 5), {"size": (3, 11)}),
    ((2, 3, 8, 5), {"scale_factor": (1.5, 0.5)}),
    ((1, 2, 3, 4, 5), {"size": (4, 4, 13)}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "options"), RESIZE, ids=str)
def test_interpolate(backend, shape, options, dtype):
    x = cases.reals(shape, 1, dtype)
    tensor = lamina.tensor(x, requires_grad=True)
    y = F.interpolate(tensor, **options)
    grad = cases.reals(y.shape, 2, dtype)
    y.backward(grad)
    bound = 64 * np.finfo(dtype).eps
    assert_allclose(y.data, reference.interpolate(x, **options), rtol=bound, atol=4 * bound)
    expected = reference.interpolate_backward(grad, x, **options)
    assert_allclose(tensor.grad.data, expected, rtol=bound, atol=32 * bound)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize(("shape", "options"), NEAREST, ids=str)
def test_nearest_exact(backend, shape, options, mode):
    x = cases.integers(shape, 1)
    tensor = lamina.tensor(x, requires_grad=True)
    y = F.interpolate(tensor, **options, mode=mode)
    grad = cases.integers(y.shape, 2)
    y.backward(grad)
    assert_array_equal(y.data, reference.interpolate(x, **options, mode=mode))
    expected = reference.interpolate_backward(grad, x, **options, mode=mode)
    assert_array_equal(tensor.grad.data, expected)


@pytest.mark.parametrize("name", ["nearest_unpool", "bed_of_nails_unpool"])
@pytest.mark.parametrize(("axes", "kernel"), [(1, 3), (2, (2, 3)), (3, (1, 2, 4))])
def test_unpool_exact(backend, name, axes, kernel):
    x = cases.integers((2, 3, 4, 3, 2)[: 2 + axes], 1)
    tensor = lamina.tensor(x, requires_grad=True)
    y = getattr(F, f"{name}{axes}d")(tensor, kernel)
    grad = cases.integers(y.shape, 2)
    y.backward(grad)
    assert_array_equal(y.data, getattr(reference, name)(axes, x, kernel))
    expected = getattr(reference, f"{name}_backward")(axes, grad, kernel)
    assert_array_equal(tensor.grad.data, expected)


SHUFFLES = [
    ("pixel_shuffle", (2, 12, 3, 5), 2),
    ("pixel_shuffle", (18, 2, 3), 3),
    ("pixel_shuffle", (2, 2, 4, 1, 3), 2),
    ("pixel_unshuffle", (2, 3, 4, 6), 2),
    ("pixel_unshuffle", (1, 3, 6), 3),
    ("channel_shuffle", (2, 12, 5), 3),
    ("channel_shuffle", (2, 6, 3, 4), 2),
    ("channel_shuffle", (1, 4, 2, 3, 2), 4),
]


@pytest.mark.parametrize(("name", "shape", "factor"), SHUFFLES, ids=str)
def test_shuffles_exact(backend, name, shape, factor):
    x = cases.integers(shape, 1)
    tensor = lamina.tensor(x, requires_grad=True)
    y = getattr(F, name)(tensor, factor)
    grad = cases.integers(y.shape, 2)
    y.backward(grad)
    assert_array_equal(y.data, getattr(reference, name)(x, factor))
    expected = getattr(reference, f"{name}_backward")(grad, factor)
    assert_array_equal(tensor.grad.data, expected)


# Rows and tiles of permutations: whole vectors and not, short axes, more than a tile along each.
LARGE_SHUFFLES = [
    ("pixel_shuffle", (2, 27, 5, 41), 3),
    ("pixel_shuffle", (1, 64, 9, 33), 4),
    ("pixel_unshuffle", (3, 2, 6, 74), 2),
    ("pixel_unshuffle", (1, 1, 40, 80), 40),
    ("pixel_unshuffle", (1, 1, 76, 76), 38),
    ("channel_shuffle", (2, 8, 4, 16), 4),
    ("channel_shuffle", (2, 300, 1), 20),
    ("channel_shuffle", (1, 2300, 1), 50),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize(("name", "shape", "factor"), LARGE_SHUFFLES, ids=str)
def test_large_shuffles(backend, name, shape, factor, dtype):
    dtype = cases.storage(dtype, backend)
    x = np.arange(np.prod(shape)).reshape(shape) % 2039
    expected = getattr(reference, name)(x.astype(float), factor).astype(dtype)
    x = x.astype(dtype)
    for place in (lambda x: x, cases.misaligned):
        tensor = lamina.Tensor(place(x), requires_grad=True)
        y = getattr(F, name)(tensor, factor)
        assert_array_equal(y.data, expected)
        y.backward(y.data)
        assert_array_equal(tensor.grad.data, x)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 3, 9, 16), (1, 2, 8, 19)], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_interpolate_in_every_type(backend, mode, shape, dtype):
    """An axis at a time, each rounded once to its type."""
    dtype = cases.storage(dtype, backend)
    x, size = cases.reals(shape, 1).astype(dtype), (21, 11)
    y = F.interpolate(x, size, mode=mode)
    exact = reference.interpolate(x.astype(float), size, mode=mode)
    eps = np.finfo(np.float64 if dtype == np.float64 else np.float32).eps
    # Below 2: the largest sum of absolute weights of one axis.
    bound = 2 * 2 * (16 * eps + 2 * cases.rounding(dtype)) * abs(x.astype(float)).max()
    assert abs(y - exact).max() <= (0 if mode == "nearest" else bound)
    for _ in cases.schedules(backend):
        assert_array_equal(F.interpolate(cases.misaligned(x), size, mode=mode), y)


def test_gradcheck(backend):
    x = cases.reals((1, 2, 4, 3), 1, np.float64)
    for mode in ("bilinear", "bicubic", "nearest"):
        lamina.testing.gradcheck(lambda x, mode=mode: F.interpolate(x, (5, 7), mode=mode), [x])
    lamina.testing.gradcheck(lambda x: F.nearest_unpool2d(x, 2), [x])
    lamina.testing.gradcheck(lambda x: F.channel_shuffle(x, 2), [x])


def test_nan_reaches_its_neighbours_only(backend):
    x = np.zeros((1, 1, 5, 5), np.float32)
    x[0, 0, 2, 2] = np.nan
    y = F.interpolate(x, scale_factor=2, mode="bilinear")
    assert np.isnan(y[0, 0, 3:7, 3:7]).all()
    assert np.isnan(y).sum() == 16


def test_empty_batch(backend):
    assert F.interpolate(np.zeros((0, 2, 3, 3), np.float32), 6).shape == (0, 2, 6, 6)
    assert F.pixel_shuffle(np.zeros((0, 4, 3, 3), np.float32), 2).shape == (0, 1, 6, 6)


def test_same_bits_for_any_thread_count():
    x = cases.reals((3, 8, 65, 47), 1)
    results = []
    for threads in (1, 2, 3, 8):
        lamina.set_num_threads(threads)
        t = lamina.tensor(x, requires_grad=True)
        y = F.interpolate(t, (130, 30), mode="bicubic")
        y.backward(np.ones(y.shape, np.float32))
        results.append(y.data.tobytes() + t.grad.data.tobytes())
    assert len(set(results)) == 1


LAYERS = [
    ("Upsample", {"scale_factor": 2, "mode": "bilinear"}, (1, 4, 4, 6)),
    ("Upsample", {"size": (3, 5)}, (1, 4, 4, 6)),
    ("UpsamplingNearest2d", {"scale_factor": 2}, (1, 4, 4, 6)),
    ("UpsamplingBilinear2d", {"size": (7, 9)}, (1, 4, 4, 6)),
    ("PixelShuffle", {"upscale_factor": 2}, (1, 4, 4, 6)),
    ("PixelUnshuffle", {"downscale_factor": 2}, (1, 4, 4, 6)),
    ("ChannelShuffle", {"groups": 2}, (1, 4, 4, 6)),
]


@pytest.mark.torch
@pytest.mark.parametrize(("name", "options", "shape"), LAYERS, ids=str)
def test_layers_as_in_torch(name, options, shape):
    torch = pytest.importorskip("torch")
    ours, theirs = getattr(nn, name)(**options), getattr(torch.nn, name)(**options)
    assert repr(ours) == repr(theirs)
    x = cases.reals(shape, 1, np.float64)
    assert_allclose(ours(x), theirs(torch.tensor(x)).numpy(), rtol=1e-14, atol=1e-14)


def test_unpool_layers():
    x = cases.integers((1, 2, 3, 3), 1)
    assert_array_equal(nn.NearestUnpool2d(2)(x), F.nearest_unpool2d(x, 2))
    assert_array_equal(nn.BedOfNailsUnpool2d(2)(x), F.bed_of_nails_unpool2d(x, 2))
    assert repr(nn.BedOfNailsUnpool3d(2)) == "BedOfNailsUnpool3d(kernel_size=2)"


X = np.ones((1, 4, 6, 6), np.float32)
BAD = [
    (lambda: F.interpolate(X), ValueError, "give one of size and scale_factor"),
    (lambda: F.interpolate(X, 3, 2.0), ValueError, "give one of size and scale_factor"),
    (lambda: F.interpolate(X, 0), ValueError, "size must be at least 1"),
    (lambda: F.interpolate(X, (2, 3, 4)), ValueError, "size must be an integer or 2"),
    (lambda: F.interpolate(X, 2.5), TypeError, "size must be an integer"),
    (lambda: F.interpolate(X, scale_factor=0), ValueError, "scale_factor must be above 0"),
    (lambda: F.interpolate(X, scale_factor=float("inf")), ValueError, "must be above 0"),
    (lambda: F.interpolate(X, scale_factor=0.1), ValueError, "output would have size (0, 0)"),
    (lambda: F.interpolate(X, scale_factor=(1, 2, 3)), ValueError, "a number or 2 of them"),
    (lambda: F.interpolate(X, 3, mode="linear"), ValueError, "mode='linear' takes 1 spatial"),
    (lambda: F.interpolate(X, 3, mode="lanczos"), ValueError, "mode must be one of"),
    (lambda: F.interpolate(X, 3, align_corners=True), ValueError, "align_corners is for"),
    (lambda: F.interpolate(X, 3, antialias=True), ValueError, "antialias is for"),
    (lambda: F.interpolate(X[0, 0], 3), ValueError, "input must have 3 or 4 or 5"),
    (lambda: F.interpolate(X.astype(int), 3), TypeError, "float32 or float64"),
    (lambda: F.interpolate(X[:, :, :0], 3), ValueError, "input is empty"),
    (lambda: F.interpolate(X, 2**40), ValueError, "size must be below 2**31"),
    (lambda: F.interpolate(X, (2**30, 2**31 - 1)), (ValueError, MemoryError), ""),
    (lambda: F.nearest_unpool2d(X, 0), ValueError, "kernel_size must be at least 1"),
    (lambda: F.nearest_unpool2d(X[0, 0], 2), ValueError, "input must have 3 or 4"),
    (lambda: F.nearest_unpool2d(X, 2**30), ValueError, "output size must be below 2**31"),
    (lambda: F.bed_of_nails_unpool1d(X[0], "2"), TypeError, "kernel_size must be an integer"),
    (lambda: F.pixel_shuffle(X, 3), ValueError, "multiple of upscale_factor^2 = 9"),
    (lambda: F.pixel_shuffle(X, 0), ValueError, "upscale_factor must be at least 1"),
    (lambda: F.pixel_shuffle(X[0, 0], 2), ValueError, "input must have 3"),
    (lambda: F.pixel_unshuffle(X, 4), ValueError, "multiples of downscale_factor=4"),
    (lambda: F.channel_shuffle(X, 3), ValueError, "groups must divide the channels"),
    (lambda: F.channel_shuffle(X[0, 0], 2), ValueError, "input must have 3"),
    (lambda: F.channel_shuffle(X, 1.5), TypeError, "groups must be an integer"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
