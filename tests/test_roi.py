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


def many_boxes(count, dtype):
    """Boxes in and around two maps of 40 x 70: some reach far out, some are points or turned."""
    rng = np.random.default_rng(5)
    corners = rng.uniform(-20, 90, (count, 4))
    corners[::7, 2:] = corners[::7, :2]
    corners[1::3, 2:] = corners[1::3, :2] + rng.uniform(0, 12, (len(corners[1::3]), 2))
    return np.column_stack([rng.integers(0, 2, count), corners]).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("ratio", [-1, 2])
def test_many_boxes(backend, ratio, dtype):
    """More boxes than a block has threads, maps of several tiles, channels in several groups."""
    dtype = cases.storage(dtype, backend)
    count = 300 if backend == "simt" and ratio > 0 else 20
    x, boxes = cases.reals((2, 11, 40, 70), 1, dtype), many_boxes(count, dtype)
    exact, rois = x.astype(float), boxes.astype(float)
    options = {"output_size": (3, 2), "spatial_scale": 0.75}

    tensor = lamina.tensor(x, requires_grad=True)
    y = ops.roi_pool(tensor, boxes, **options)
    grad = cases.integers(y.shape, 2, dtype)
    y.backward(grad)
    assert_array_equal(y.data.astype(float), reference.roi_pool(exact, rois, **options))
    expected = reference.roi_pool_backward(grad.astype(float), exact, rois, **options)
    assert_allclose(tensor.grad.data.astype(float), expected, rtol=cases.rounding(dtype), atol=1e-6)

    options = {**options, "sampling_ratio": ratio, "aligned": True}
    tensor = lamina.tensor(x, requires_grad=True)
    y = ops.roi_align(tensor, boxes, **options)
    y.backward(grad)
    eps = np.finfo(np.float64 if dtype == np.float64 else np.float32).eps
    rtol = 512 * eps + cases.rounding(dtype)
    expected = reference.roi_align(exact, rois, **options)
    assert_allclose(y.data.astype(float), expected, rtol=rtol, atol=512 * eps)
    expected = reference.roi_align_backward(grad.astype(float), exact, rois, **options)
    # Every box adds: their absolute sum bounds the rounding.
    bound = reference.roi_align_backward(abs(grad.astype(float)), exact, rois, **options)
    assert (abs(tensor.grad.data - expected) <= rtol * bound + 512 * eps).all()


def test_more_boxes_than_threads(backend):
    """A block of the gradient sees them 256 at a time."""
    x = np.zeros((2, 1, 9, 9), np.float32)
    boxes = many_boxes(600, np.float32)
    tensor = lamina.tensor(x, requires_grad=True)
    y = ops.roi_pool(tensor, boxes, 1)
    grad = cases.integers(y.shape, 2)
    y.backward(grad)
    assert_array_equal(tensor.grad.data, reference.roi_pool_backward(grad, x, boxes, 1))


def test_same_bits_in_any_schedule(backend):
    x, boxes = cases.reals((2, 5, 12, 40), 1), many_boxes(40, np.float32)
    results = set()
    for _ in cases.schedules(backend):
        bits = b""
        for function in (ops.roi_pool, ops.roi_align):
            tensor = lamina.tensor(cases.misaligned(x), requires_grad=True)
            y = function(tensor, boxes, 2)
            y.backward(np.ones(y.shape, np.float32))
            bits += y.data.tobytes() + tensor.grad.data.tobytes()
        results.add(bits)
    assert len(results) == 1


@pytest.mark.parametrize("corner", [1e15, 1e16, 3e16, 1e300])
def test_boxes_beyond_the_integers_of_a_double(backend, corner):
    """Their samples are too many to count; what the map adds to the mean is below rounding."""
    x = np.ones((1, 1, 6, 5))
    y = ops.roi_align(x, np.array([[0, -corner, -corner, corner, corner]]), 3)
    assert abs(y).max() < 1e-12


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


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.45])
@pytest.mark.parametrize("count", [1, 63, 256, 257, 700])
def test_nms_in_groups(backend, count, threshold, dtype):
    """Chains of overlaps within and across the groups that a block settles."""
    dtype = cases.storage(dtype, backend)
    count = count if backend in ("cpu", "simt") else min(count, 257)
    rng = np.random.default_rng(6)
    low = rng.integers(0, 60, (count, 2))
    boxes = np.column_stack([low, low + rng.integers(0, 9, (count, 2))]).astype(dtype)
    scores = np.arange(count)[::-1].astype(dtype)
    expected = reference.nms(boxes.astype(float), scores.astype(float), threshold)
    for _ in cases.schedules(backend):
        assert_array_equal(ops.nms(boxes, scores, threshold), expected)


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


@pytest.mark.parametrize("function", [ops.roi_pool, ops.roi_align])
def test_boxes_written_after_forward_are_refused(function):
    x = lamina.tensor(np.ones((1, 1, 8, 8), np.float32), requires_grad=True)
    boxes = np.array([[0, 1, 1, 5, 5]], np.float32)
    y = function(x, boxes, 2)
    boxes[0, 0] = 7
    with pytest.raises(ValueError, match="name an image"):
        y.sum().backward()
