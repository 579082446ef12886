"""RoI pool, RoI align and non-maximum suppression against the NumPy reference.

RoI pool only moves elements; its gradient adds small integers: exact. RoI align sums products of
two weights of at most 1 with fewer than 512 samples of order 1, the gradient likewise: 512 eps.
"""

from __future__ import annotations

import time

import cases
import lamina
import numpy as np
import pytest
import reference
from lamina import ops
from numpy.testing import assert_allclose, assert_array_equal

BOXES = np.array(
    [
        [0, 0, 0, 6, 4],
        [1, 1.5, 2.5, 3.2, 3.9],
        [0, -4, -3, 20, 30],
        [1, 5, 5, 2, 2],
        [0, 30, 30, 40, 40],
        [1, 2, 2, 2, 2],
        [0, 0.2, 0.1, 7.9, 6.4],
    ]
)
OPTIONS = [
    {"output_size": 3},
    {"output_size": (2, 5), "spatial_scale": 0.6},
    {"output_size": (1, 1), "spatial_scale": 1.5},
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_roi_pool_exact(backend, options, dtype):
    x = np.random.default_rng(1).permutation(2 * 19 * 7 * 9).reshape(2, 19, 7, 9).astype(dtype)
    boxes = BOXES.astype(dtype)
    tensor = lamina.tensor(x, requires_grad=True)
    y = ops.roi_pool(tensor, boxes, **options)
    grad = cases.integers(y.shape, 2, dtype)
    y.backward(grad)
    assert_array_equal(y.data, reference.roi_pool(x, boxes, **options))
    assert_array_equal(tensor.grad.data, reference.roi_pool_backward(grad, x, boxes, **options))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("ratio", [-1, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_roi_align(backend, options, ratio, aligned, dtype):
    x, boxes = cases.reals((2, 19, 7, 9), 1, dtype), BOXES.astype(dtype)
    options = {**options, "sampling_ratio": ratio, "aligned": aligned}
    tensor = lamina.tensor(x, requires_grad=True)
    y = ops.roi_align(tensor, boxes, **options)
    grad = cases.reals(y.shape, 2, dtype)
    y.backward(grad)
    bound = 512 * np.finfo(dtype).eps
    assert_allclose(y.data, reference.roi_align(x, boxes, **options), rtol=bound, atol=bound)
    expected = reference.roi_align_backward(grad, x, boxes, **options)
    assert_allclose(tensor.grad.data, expected, rtol=bound, atol=bound)


def test_boxes_per_image(backend):
    x = cases.reals((2, 3, 7, 9), 1)
    boxes = BOXES.astype(np.float32)
    per_image = [boxes[boxes[:, 0] == image][:, 1:] for image in (0, 1)]
    order = np.argsort(boxes[:, 0], kind="stable")
    for function in (ops.roi_pool, ops.roi_align):
        assert_array_equal(function(x, per_image, 2), function(x, boxes[order], 2))
        assert function(x, boxes[:0], 2).shape == (0, 3, 2, 2)


def test_gradcheck(backend):
    x = cases.reals((2, 2, 5, 6), 1, np.float64)
    lamina.testing.gradcheck(lambda x: ops.roi_align(x, BOXES, 2, aligned=True), [x])
    lamina.testing.gradcheck(lambda x: ops.roi_pool(x, BOXES, 2), [x])


def test_nan_stays_in_its_bins(backend):
    x = np.zeros((1, 1, 8, 8), np.float32)
    x[0, 0, 0, 0] = np.nan
    box = np.array([[0, 0, 0, 7, 7]], np.float32)
    for function in (ops.roi_pool, ops.roi_align):
        y = function(x, box, 2)
        assert np.isnan(y[0, 0, 0, 0])
        assert np.isnan(y).sum() == 1


@pytest.mark.parametrize("function", [ops.roi_pool, ops.roi_align])
def test_huge_boxes_are_quick(backend, function):
    x = cases.reals((1, 2, 6, 5), 1)
    boxes = np.array([[0, -1e9, -1e9, 1e9, 1e9], [0, -3e38, 0, 3e38, 4]], np.float32)
    start = time.perf_counter()
    assert function(x, boxes, 3).shape == (2, 2, 3, 3)
    assert time.perf_counter() - start < 1


def test_same_bits_for_any_thread_count():
    rng = np.random.default_rng(3)
    x = cases.reals((3, 40, 30, 31), 1)
    corners = np.sort(rng.uniform(0, 30, (50, 2, 2)), 1).reshape(50, 4)
    boxes = np.column_stack([rng.integers(0, 3, 50), corners]).astype(np.float32)
    results = []
    for threads in (1, 2, 3, 8):
        lamina.set_num_threads(threads)
        t = lamina.tensor(x, requires_grad=True)
        y = ops.roi_align(t, boxes, 7)
        y.backward(np.ones(y.shape, np.float32))
        results.append(y.data.tobytes() + t.grad.data.tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_nms(backend, threshold, dtype):
    rng = np.random.default_rng(4)
    low = rng.integers(0, 20, (200, 2))
    boxes = np.column_stack([low, low + rng.integers(0, 12, (200, 2))]).astype(dtype)
    scores = rng.integers(0, 50, 200).astype(dtype)  # with ties
    kept = ops.nms(boxes, scores, threshold)
    assert_array_equal(kept, reference.nms(boxes, scores, threshold))
    assert kept.dtype == np.int64


def test_nms_of_nothing(backend):
    empty = np.zeros((0, 4), np.float32)
    assert ops.nms(empty, empty[:, 0], 0.5).shape == (0,)


X, B = np.ones((2, 3, 5, 5), np.float32), BOXES.astype(np.float32)
BAD = [
    (lambda: ops.roi_pool(X, B[:, :4], 2), ValueError, "boxes must be [K, 5]"),
    (lambda: ops.roi_pool(X, B[0], 2), ValueError, "boxes must be [K, 5]"),
    (lambda: ops.roi_pool(X, BOXES, 2), TypeError, "one dtype"),
    (lambda: ops.roi_pool(X, B.astype(int), 2), TypeError, "float32 or float64"),
    (lambda: ops.roi_pool(X[0], B, 2), ValueError, "input must have 4"),
    (lambda: ops.roi_pool(X[:1], B, 2), ValueError, "name an image from 0 to 0"),
    (lambda: ops.roi_pool(X, -B - 1, 2), ValueError, "name an image from 0 to 1"),
    (lambda: ops.roi_pool(X, B * np.float32(np.nan), 2), ValueError, "boxes must be finite"),
    (lambda: ops.roi_align(X, B + np.float32(np.inf), 2), ValueError, "boxes must be finite"),
    (lambda: ops.roi_align(X, B, 0), ValueError, "output_size must be at least 1"),
    (lambda: ops.roi_align(X, B, (1, 2, 3)), ValueError, "output_size must be an integer or 2"),
    (lambda: ops.roi_align(X, B, 2, 0), ValueError, "spatial_scale must be above 0"),
    (lambda: ops.roi_align(X, B, 2, "a"), TypeError, "spatial_scale must be a number"),
    (lambda: ops.roi_align(X, B, 2, sampling_ratio=1.5), TypeError, "sampling_ratio must be an"),
    (lambda: ops.roi_align(X, B, 2, sampling_ratio=9999), ValueError, "at most 4096"),
    (lambda: ops.roi_align(X, [B[:, 1:]], 2), ValueError, "one array per image"),
    (lambda: ops.roi_align(X, [B, B], 2), ValueError, "boxes of an image must be [L, 4]"),
    (lambda: ops.roi_align(X[..., :0], B, 2), ValueError, "maps must not be empty"),
    (lambda: ops.nms(B, B[:, 0], 0.5), ValueError, "boxes must be [K, 4]"),
    (lambda: ops.nms(B[:, 1:], B[:3, 0], 0.5), ValueError, "scores must have one element"),
    (lambda: ops.nms(B[:, 1:], BOXES[:, 0], 0.5), TypeError, "one dtype"),
    (lambda: ops.nms(B[:, 1:], B[:, 0], "a"), TypeError, "iou_threshold must be a number"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
