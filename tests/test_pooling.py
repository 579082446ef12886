"""Pooling and unpooling against the NumPy reference: values, indices and gathered gradients."""

from __future__ import annotations

import itertools

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose, assert_array_equal

SIZES = {1: (11,), 2: (9, 11), 3: (5, 6, 7)}


def pool(name, axes, x, *args, **options):
    """Runs the function and, backwards, integers; returns values (and indices) and gradient."""
    t = lamina.tensor(x, requires_grad=True)
    result = getattr(F, f"{name}{axes}d")(t, *args, **options)
    y, *index = result if isinstance(result, tuple) else (result,)
    grad_y = cases.integers(y.shape, 9, x.dtype)
    y.backward(grad_y)
    return y.data, [i.data for i in index], grad_y, t.grad.data


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "ceil_mode"),
    list(itertools.product((2, 3), (None, 1, 3), (0, 1), (1, 2), (False, True))),
)
def test_max_pool(backend, axes, kernel, stride, padding, dilation, ceil_mode):
    x = cases.reals((2, 3, *SIZES[axes]), 1)
    options = dict(stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)
    y, (index,), grad_y, grad_x = pool("max_pool", axes, x, kernel, return_indices=True, **options)
    function = getattr(reference, f"max_pool{axes}d")
    expected, positions = function(x, kernel, return_indices=True, **options)
    assert_array_equal(y, expected)
    assert_array_equal(index, positions)
    scattered = np.zeros((6, x[0, 0].size))
    np.add.at(scattered, (np.arange(6)[:, None], index.reshape(6, -1)), grad_y.reshape(6, -1))
    assert_array_equal(grad_x, scattered.reshape(x.shape))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil_mode"),
    list(itertools.product((2, 3), (None, 1, 3), (0, 1), (False, True))),
)
def test_avg_pool(backend, axes, kernel, stride, padding, ceil_mode, count_include_pad):
    x = cases.reals((2, 3, *SIZES[axes]), 1, np.float64)
    options = dict(
        stride=stride, padding=padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad
    )
    y, _, grad_y, grad_x = pool("avg_pool", axes, x, kernel, **options)
    expected = getattr(reference, f"avg_pool{axes}d")(x, kernel, **options)
    assert_allclose(y, expected, rtol=0, atol=1e-14)
    # The average is linear, so its gradient is its transpose: <pool(u), g> == <u, grad>.
    u = cases.reals(x.shape, 2, np.float64)
    forward = getattr(reference, f"avg_pool{axes}d")(u, kernel, **options)
    assert_allclose((forward * grad_y).sum(), (u * grad_x).sum(), rtol=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_adaptive_pools(backend, axes, size):
    x = cases.integers((2, 2, *SIZES[axes]), 1)
    windows = [
        [slice(o * n // size, -(-(o + 1) * n // size)) for o in range(size)] for n in SIZES[axes]
    ]
    cells = [(..., *cell) for cell in itertools.product(*windows)]
    spatial = tuple(range(-axes, 0))
    largest = np.stack([x[cell].max(spatial) for cell in cells], -1)
    mean = np.stack([x[cell].mean(spatial) for cell in cells], -1)
    shape = (2, 2, *(size,) * axes)
    y, _, _, _ = pool("adaptive_max_pool", axes, x, size)
    assert_array_equal(y, largest.reshape(shape))
    y, _, _, _ = pool("adaptive_avg_pool", axes, x, size)
    assert_allclose(y, mean.reshape(shape), rtol=1e-6)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_lp_pool_gradient(backend, axes):
    x = np.abs(cases.reals((1, 2, *SIZES[axes]), 1, np.float64)) + 0.1
    lamina.testing.gradcheck(lambda t: getattr(F, f"lp_pool{axes}d")(t, 3.0, 2, 2), [x])


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_lp_pool_of_zeros_has_the_gradient_zero(backend, p):
    x = lamina.tensor(np.zeros((1, 1, 4, 4), np.float32), requires_grad=True)
    with lamina.no_grad():
        x[..., 2:] = 1
    F.lp_pool2d(x, p, 2).sum().backward()
    assert_array_equal(x.grad.numpy()[..., :2], 0)
    assert (x.grad.numpy()[..., 2:] > 0).all()


@pytest.mark.parametrize("axes", [2, 3])
def test_fractional_max_pool(backend, axes):
    """Graham's windows: starts never fall, all stay inside, the last ends the axis."""
    x = cases.reals((2, 3, *SIZES[axes]), 1)
    rng = np.random.default_rng(0)
    random_samples = rng.random((2, 3, axes)).astype(np.float32)
    function = getattr(F, f"fractional_max_pool{axes}d")
    t = lamina.tensor(x, requires_grad=True)
    y, index = function(t, 2, 3, return_indices=True, _random_samples=random_samples)
    y.backward(np.ones(y.shape, np.float32))
    flat = x.reshape(6, -1)
    rows = np.arange(6)[:, None]
    assert_array_equal(flat[rows, index.data.reshape(6, -1)], y.data.reshape(6, -1))
    counts = np.zeros_like(flat)
    np.add.at(counts, (rows, index.data.reshape(6, -1)), 1)
    assert_array_equal(t.grad.data.reshape(6, -1), counts)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_max_unpool_inverts_max_pool(backend, axes):
    x = cases.reals((2, 3, *SIZES[axes]), 1)
    y, index = getattr(F, f"max_pool{axes}d")(x, 2, return_indices=True)
    t = lamina.tensor(y, requires_grad=True)
    restored = getattr(F, f"max_unpool{axes}d")(t, index, 2, output_size=SIZES[axes])
    grad_y = cases.reals(x.shape, 3)
    restored.backward(grad_y)
    kept = np.zeros((6, x[0, 0].size), np.float32)
    rows = np.arange(6)[:, None]
    kept[rows, index.reshape(6, -1)] = y.reshape(6, -1)
    assert_array_equal(restored.data, kept.reshape(x.shape))
    expected = grad_y.reshape(6, -1)[rows, index.reshape(6, -1)]
    assert_array_equal(t.grad.data, expected.reshape(y.shape))


@pytest.mark.parametrize("bad", [-1, 16, 2**31, -(2**63), 2**63 - 1])
def test_unpool_indices_are_checked(backend, bad):
    x = np.ones((1, 1, 2, 2), np.float32)
    index = np.array([[[[0, 5], [bad, 3]]]])
    with pytest.raises(ValueError, match=r"indices must be from 0 to 15 .* at position \(0, 0, 1"):
        F.max_unpool2d(x, index, 2)


def test_nan_wins(backend):
    x = cases.reals((1, 1, 6, 6), 1)
    x[0, 0, 2, 3] = np.nan
    assert_array_equal(np.argwhere(np.isnan(F.max_pool2d(x, 2)[0, 0])), [[1, 1]])
    assert_array_equal(np.argwhere(np.isnan(F.avg_pool2d(x, 2)[0, 0])), [[1, 1]])


@pytest.mark.parametrize("width", [5, 14, 16, 31, 33, 67, 90])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 1), (2, 1, 0, 2), (4, 2, 1, 1), (3, 3, 0, 1)],
)
def test_maxima_do_not_depend_on_indices(backend, width, kernel, stride, padding, dilation):
    x = cases.reals((3, 2, 6, width), 1)
    x[0, 1, 2:4, width // 2] = np.nan
    x[1] = -np.inf
    options = kernel, stride, padding, dilation
    largest, index = F.max_pool2d(x, *options, return_indices=True)
    assert_array_equal(F.max_pool2d(x, *options), largest)
    planes = x.reshape(6, -1)[np.arange(6)[:, None], index.reshape(6, -1)]
    assert_array_equal(planes.reshape(largest.shape), largest)
    t = lamina.tensor(x, requires_grad=True)
    assert_array_equal(F.max_pool2d(t, *options).data, largest)  # with indices, for the gradient
    out = 3, min(width, 7)
    expected, _ = F.adaptive_max_pool2d(x, out, return_indices=True)
    assert_array_equal(F.adaptive_max_pool2d(x, out), expected)


@pytest.mark.parametrize("width", [2, 7, 14, 16, 31, 33, 67, 90])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 1, 0), (2, 1, 1), (2, 2, 1), ((2, 3), (1, 1), (0, 1))],
)
def test_averages_of_rows_of_any_width(backend, width, kernel, stride, padding):
    x = cases.integers((5, 3, 6, width), 1, np.float64)
    y, _, grad_y, grad_x = pool("avg_pool", 2, x, kernel, stride=stride, padding=padding)
    options = kernel, stride, padding
    assert_allclose(y, reference.avg_pool2d(x, *options), rtol=0, atol=1e-14)
    expected = reference.avg_pool2d_backward(grad_y, x, *options)
    assert_allclose(grad_x, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("width", [64, 65, 79, 130])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(3, 1, 1), (3, 2, 1), (3, 2, 0), (2, 1, 0), (2, 2, 1), ((2, 3), (3, 1), (1, 0)), (3, 1, 0)],
)
def test_gradients_of_maxima_in_wide_rows(backend, width, kernel, stride, padding):
    x = cases.integers((2, 2, 7, width), 1)  # equal maxima
    options = dict(stride=stride, padding=padding)
    _, (index,), grad_y, grad_x = pool("max_pool", 2, x, kernel, return_indices=True, **options)
    _, positions = reference.max_pool2d(x, kernel, return_indices=True, **options)
    assert_array_equal(index, positions)
    expected = np.zeros((4, x[0, 0].size))
    np.add.at(expected, (np.arange(4)[:, None], positions.reshape(4, -1)), grad_y.reshape(4, -1))
    assert_array_equal(grad_x, expected.reshape(x.shape))


@pytest.mark.parametrize("width", [60, 64, 131])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        *((3, 3, 1, 1), (4, 4, 0, 1), (4, 4, 2, 1), (5, 3, 2, 1), (3, 4, 1, 2), (6, 7, 3, 1)),
        *((3, 1, 1, 3), ((1, 5), (1, 5), 0, 1), ((1, 24), (1, 23), (0, 9), 1)),
        *(((1, 16), (1, 16), (0, 8), 1), ((2, 50), (2, 40), (1, 25), 1), ((3, 9), (2, 19), 1, 1)),
        *(((2, 3), (1, stride), (1, 1), 1) for stride in range(5, 18)),
        *((5, 1, 2, 1), (5, 2, 2, 1), ((1, 5), (1, 3), (0, 2), 2)),
    ],
    ids=str,
)
def test_windows_at_any_distance(width, kernel, stride, padding, dilation):
    """Maxima, equal ones, infinities and NaN among them, with and without places; averages."""
    x = cases.integers((2, 3, 9, width), 1)
    x[0, 1, :, ::7] = np.nan
    x[0, 2] = -np.inf
    x[1, 0, 3:5] = np.inf
    options = dict(stride=stride, padding=padding, dilation=dilation)
    for a in (x, x.astype(np.float64)):
        largest, index = F.max_pool2d(a, kernel, **options, return_indices=True)
        assert_array_equal(F.max_pool2d(a, kernel, **options), largest)
        expected, positions = reference.max_pool2d(a, kernel, **options, return_indices=True)
        assert_array_equal(largest, expected)
        at_index = a.reshape(6, -1)[np.arange(6)[:, None], index.reshape(6, -1)]
        assert_array_equal(at_index.reshape(largest.shape), expected)
        one = ~np.isnan(expected)  # of several NaNs any may be named
        assert_array_equal(index[one], positions[one])
    if dilation == 1:
        del options["dilation"]
        a = cases.integers((2, 3, 9, width), 2, np.float64)
        expected = reference.avg_pool2d(a, kernel, **options)
        assert_allclose(F.avg_pool2d(a, kernel, **options), expected, rtol=0, atol=1e-14)


DTYPES = ["float32", "float64", "float16", "bfloat16"]

# Windows that one thread reduces, a warp, a block; planes that end within a group of them.
LARGE = [
    ((3, 3, 7, 9), (2, 3)),
    ((2, 3, 7, 7), (1, 1)),
    ((1, 3, 70, 61), (1, 1)),
    ((5, 1, 13, 31), (3, 2)),
    ((3, 3, 20, 37), (3, 5)),
    ((3, 7, 11, 5), (4, 3)),
    ((1, 2, 96, 45), (1, 2)),
    ((1, 2, 6, 7, 8), (1, 2, 1)),
]


def sum_error(dtype, terms):
    """Relative to the sum of absolute terms: the additions, then one rounding to storage."""
    eps = np.finfo(np.float64 if dtype == np.float64 else np.float32).eps
    return (terms + 2) * eps + cases.rounding(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "size"), LARGE, ids=str)
def test_windows_of_any_size(backend, shape, size, dtype):
    dtype = cases.storage(dtype, backend)
    axes = len(size)
    x = cases.reals(shape, 1).astype(dtype)
    y, (index,), grad_y, grad_x = pool("adaptive_max_pool", axes, x, size, return_indices=True)
    expected, positions = reference.adaptive_max_pool(axes, x, size, return_indices=True)
    assert_array_equal(y.astype(float), expected)
    assert_array_equal(index, positions)
    assert_array_equal(
        grad_x.astype(float), reference.adaptive_max_pool_backward(axes, grad_y, x, size)
    )
    y, _, grad_y, grad_x = pool("adaptive_avg_pool", axes, x, size)
    exact = np.asarray(x, float)
    error = sum_error(dtype, x[0, 0].size // np.prod(size))
    bound = error * reference.adaptive_avg_pool(axes, np.abs(exact), size)
    assert (abs(y - reference.adaptive_avg_pool(axes, exact, size)) <= bound).all()
    expected = reference.adaptive_avg_pool_backward(axes, grad_y, x, size)
    bound = reference.adaptive_avg_pool_backward(axes, np.abs(grad_y), x, size)
    assert (abs(grad_x - expected) <= sum_error(dtype, 2**axes) * bound).all()


def test_more_planes_than_blocks(backend):
    """Blocks that serve plane after plane."""
    x = cases.integers((1, 4099, 2048), 1)
    y, index = F.adaptive_max_pool1d(x, 1, return_indices=True)
    assert_array_equal(y, x.max(-1, keepdims=True))
    assert_array_equal(index, x.argmax(-1)[..., None])
    assert_array_equal(F.adaptive_avg_pool1d(x, 1), x.mean(-1, keepdims=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_pools_in_every_type(backend, dtype):
    dtype = cases.storage(dtype, backend)
    x = cases.reals((3, 5, 12, 19), 1).astype(dtype)
    options = dict(stride=2, padding=1)
    y, (index,), grad_y, grad_x = pool("max_pool", 2, x, 3, return_indices=True, **options)
    expected, positions = reference.max_pool2d(x, 3, return_indices=True, **options)
    assert_array_equal(y.astype(float), expected)
    assert_array_equal(index, positions)
    assert_array_equal(grad_x.astype(float), reference.max_pool2d_backward(grad_y, x, 3, **options))
    y, _, grad_y, grad_x = pool("avg_pool", 2, x, 3, **options)
    exact = np.asarray(x, float)
    bound = sum_error(dtype, 9) * reference.avg_pool2d(np.abs(exact), 3, **options)
    assert (abs(y - reference.avg_pool2d(exact, 3, **options)) <= bound).all()
    expected = reference.avg_pool2d_backward(grad_y, x, 3, **options)
    bound = reference.avg_pool2d_backward(np.abs(grad_y), x, 3, **options)
    assert (abs(grad_x - expected) <= sum_error(dtype, 4) * bound).all()


def test_same_bits_in_any_schedule_and_place(backend):
    """However threads are scheduled, wherever the array and the plane lie."""
    x = cases.reals((5, 3, 11, 13), 1)
    results = set()
    for _ in cases.schedules(backend):
        for place in (lambda x: x, cases.misaligned):
            bits = b""
            for name, option in (("avg_pool", 3), ("max_pool", 2), ("adaptive_avg_pool", 1)):
                y, _, _, grad_x = pool(name, 2, place(x), option)
                bits += y.tobytes() + grad_x.tobytes()
                alone = getattr(F, f"{name}2d")(place(x)[3:4], option)
                assert_array_equal(alone, y[3:4])
            results.add(bits)
    assert len(results) == 1


def test_all_minus_infinity(backend):
    """The index is that of the window's first element, as no other is larger."""
    x = np.full((2, 3, 9, 8), -np.inf, np.float32)
    y, index = F.max_pool2d(x, 4, 2, padding=1, return_indices=True)
    assert_array_equal(y, np.full((2, 3, 4, 4), -np.inf))
    first = np.maximum(np.arange(4) * 2 - 1, 0)
    assert_array_equal(index[1, 2], first[:, None] * 8 + first)
    y, index = F.adaptive_max_pool2d(x, 1, return_indices=True)
    assert_array_equal(index, np.zeros((2, 3, 1, 1)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_unpool_duplicates_take_the_last(backend, dtype):
    dtype = cases.storage(dtype, backend)
    x = cases.integers((2, 3, 40), 1).astype(dtype)
    index = np.random.default_rng(2).integers(0, 20, x.shape)
    expected = np.zeros((2, 3, 80))
    for n, c, i in np.ndindex(x.shape):
        expected[n, c, index[n, c, i]] = x[n, c, i]
    for _ in cases.schedules(backend):
        t = lamina.tensor(x, requires_grad=True)
        y = F.max_unpool1d(t, index, 2)
        assert_array_equal(y.data.astype(float), expected)
        grad_y = cases.integers(y.shape, 3).astype(dtype)
        y.backward(grad_y)
        assert_array_equal(t.grad.data, np.take_along_axis(grad_y, index, 2))


def test_same_bits_for_any_thread_count():
    x = cases.reals((3, 5, 33, 47), 1)
    results = []
    for threads in (1, 2, 3, 8):
        lamina.set_num_threads(threads)
        results.append(
            pool("avg_pool", 2, x, 3, stride=2)[3].tobytes()
            + pool("max_pool", 2, x, 3, stride=2)[3].tobytes()
        )
    assert len(set(results)) == 1


def test_empty_batch_and_unbatched(backend):
    assert F.max_pool2d(np.zeros((0, 3, 4, 4), np.float32), 2).shape == (0, 3, 2, 2)
    assert F.avg_pool1d(np.zeros((3, 4), np.float32), 2).shape == (3, 2)


BAD = [
    (dict(kernel_size=0), ValueError, "kernel_size must be at least 1"),
    (dict(kernel_size=-2), ValueError, "kernel_size must be at least 1"),
    (dict(kernel_size=2.0), TypeError, "kernel_size must be an integer"),
    (dict(kernel_size=(2, 2, 2)), ValueError, "kernel_size must be an integer or 2"),
    (dict(kernel_size="2"), TypeError, "kernel_size must be an integer"),
    (dict(kernel_size=9), ValueError, "the output size would be 0"),
    (dict(kernel_size=2**40), ValueError, "kernel_size must be below"),
    (dict(kernel_size=2, stride=0), ValueError, "stride must be at least 1"),
    (dict(kernel_size=2, padding=-1), ValueError, "padding must be at least 0"),
    (dict(kernel_size=2, padding=2), ValueError, "padding must be at most half"),
    (dict(kernel_size=2, dilation=0), ValueError, "dilation must be at least 1"),
    (dict(kernel_size=2, shape=(4, 4)), ValueError, "input must have 3 or 4 dimensions"),
    (dict(kernel_size=2, dtype=np.int64), TypeError, "input must be float32 or float64"),
    (dict(kernel_size=2, dtype=object), TypeError, "input must be float32 or float64"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD, ids=lambda v: str(v)[:50])
def test_bad_input(change, error, text):
    change = dict(change)
    x = np.zeros(change.pop("shape", (1, 2, 8, 8)), change.pop("dtype", np.float32))
    with pytest.raises(error, match="^max_pool2d: ") as caught:
        F.max_pool2d(x, **change)
    assert text in str(caught.value)
