"""Results of 20 MiB and more go past the caches: the same bits as in parts that do not."""

from __future__ import annotations

import lamina
import lamina.functional as F
import numpy as np
import pytest
from cases import reals
from lamina import _C

LARGE = 20 << 20  # bytes: kStreamedBytes of csrc/cpu/simd.h
CALLS = {
    "max_pool": (lambda x: F.max_pool2d(x, 3, 2, 1), (35, 37)),
    "max_pool_wide": (lambda x: F.max_pool2d(x, 3, 2, 1), (9, 130)),
    "max_pool_pairs": (lambda x: F.max_pool2d(x, 2), (36, 38)),
    "max_pool_pairs_of_short_rows": (lambda x: F.max_pool2d(x, 2), (15, 14)),
    "avg_pool_pairs": (lambda x: F.avg_pool2d(x, 2), (15, 14)),
    "avg_pool": (lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), (35, 37)),
    "avg_pool_strided": (lambda x: F.avg_pool2d(x, 3, 2, 1), (35, 37)),
    "avg_pool_3d": (lambda x: F.avg_pool3d(x, 3, 1, 1), (6, 11, 13)),
    "global_avg_pool": (lambda x: F.adaptive_avg_pool2d(x, 1), (7, 7)),
    "adaptive_avg_pool": (lambda x: F.adaptive_avg_pool2d(x, 6), (13, 29)),
    "max_unpool": (
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, output_size=(23, 31)),
        (23, 31),
    ),
    "local_response_norm": (lambda x: F.local_response_norm(x, 5), (23, 25)),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (16, 24)),
    "nearest": (lambda x: F.interpolate(x, scale_factor=3, mode="nearest"), (16, 24)),
    "unfold": (lambda x: F.unfold(x, 3, padding=1), (13, 11)),
    "unfold_strided": (lambda x: F.unfold(x, 3, padding=1, stride=2), (35, 37)),
    "unfold_wide": (lambda x: F.unfold(x, (2, 5), padding=(0, 2)), (9, 130)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), (17, 32)),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 3), (33, 35)),
    "prelu": (
        lambda x: F.prelu(x, lamina.tensor(np.linspace(-1, 1, 12), x.dtype, requires_grad=True)),
        (23, 25),
    ),
    "softmax": (lambda x: F.softmax(x, -1), (3, 333)),
    "log_softmax": (lambda x: F.log_softmax(x, -1), (1, 3001)),
    "cross_entropy": (
        lambda x: F.cross_entropy(x.flatten(1), np.full(len(x), 700), reduction="none"),
        (9, 11),
    ),
    "layer_norm": (lambda x: F.layer_norm(x, x.shape[-1:]), (3, 333)),
}


def both_ways(call, x):
    t = lamina.tensor(x, requires_grad=True)
    y = call(t)
    y.backward(reals(y.shape[1:], 3).astype(x.dtype) + np.zeros(y.shape, x.dtype))
    return y.data, t.grad.data


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CALLS)
def test_same_bits_as_in_parts(name, dtype):
    call, size = CALLS[name]
    channels, parts = 12, 3
    images = LARGE // (channels * int(np.prod(size)) * np.dtype(dtype).itemsize) + parts
    x = np.resize(reals((1 << 16) + 1, 1).astype(dtype), (images, channels, *size))
    y, grad = both_ways(call, x)
    assert grad.nbytes >= LARGE
    step = -(-images // parts)
    for i in range(0, images, step):
        some_y, some_grad = both_ways(call, x[i : i + step])
        np.testing.assert_array_equal(y[i : i + step], some_y)
        np.testing.assert_array_equal(grad[i : i + step], some_grad)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_draws_the_same(dtype):
    x = np.ones(LARGE // np.dtype(dtype).itemsize + 1001, dtype)
    lamina.manual_seed(7)
    whole = F.dropout(x, 0.3)
    lamina.manual_seed(7)
    np.testing.assert_array_equal(whole[:100_003], F.dropout(x[:100_003], 0.3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("depth", [1, 5])
def test_outer_products(dtype, depth):
    """The weight gradient of a linear layer, whose rows are no whole cache lines."""
    n = 2051
    m = LARGE // (n * np.dtype(dtype).itemsize) + 3
    a, b = reals((depth, m), 1).astype(dtype), reals((depth, n), 2).astype(dtype)

    def product(a):
        c = np.empty((a.shape[1], n), dtype)
        _C.gemm(a, b, c, None, 1, *c.shape, depth, True, False)
        return c

    whole, half = product(a), m // 2
    np.testing.assert_array_equal(whole[:half], product(a[:, :half].copy()))
    np.testing.assert_array_equal(whole[half:], product(a[:, half:].copy()))
    few = slice(0, m, m // 7)
    np.testing.assert_allclose(whole[few], a[:, few].T @ b, rtol=1e-5, atol=1e-5)
