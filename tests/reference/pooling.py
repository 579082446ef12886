"""Max, average and L^p pooling over windows, and unpooling, with their gradients.

x [..., *in] with `axes` spatial axes at the end (`max_pool2d` is max_pool with axes = 2), y
[..., *out]. Window o covers o stride - padding + (0..kernel - 1) dilation. The gradients scatter:
x gets what every window that used it passes back. Definitions: PyTorch's documentation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import Array, Ints, grid, ntuple, real

Indices = NDArray[np.int64]


def pool_output_size(
    size: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil_mode: bool = False
) -> int:
    """Windows along one axis; with ceil_mode the last must start in x or in the low padding."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    out = (-(-room // stride) if ceil_mode else room // stride) + 1
    return out - 1 if ceil_mode and (out - 1) * stride >= size + padding else out


def first_maximum(x: Array, at: Indices) -> tuple[Array, Indices]:
    """Over the last axis of x: the first maximum, or the last NaN; with its value of `at`.

    "Last NaN" is what a scan with `value > best or isnan(value)` finds, PyTorch's rule.
    """
    nan = np.isnan(x)
    last_nan = x.shape[-1] - 1 - nan[..., ::-1].argmax(-1)
    k = np.where(nan.any(-1), last_nan, np.where(nan, -np.inf, x).argmax(-1))
    return np.take_along_axis(x, k[..., None], -1)[..., 0], at[k]


def flat_positions(positions: Sequence[Sequence[int]], size: Sequence[int]) -> Indices:
    """Row-major offsets in the plane of the product of per-axis positions, flattened."""
    mesh = np.meshgrid(*(np.asarray(p, dtype=np.int64) for p in positions), indexing="ij")
    return np.ravel_multi_index([m.ravel() for m in mesh], tuple(size)).astype(np.int64)


def scatter_to_indices(values: Array, indices: Indices, size: Sequence[int]) -> Array:
    """Zeros [..., *size] with values added at flat plane indices; both [..., *out]."""
    lead = values.shape[: values.ndim - len(size)]
    plane = np.zeros((math.prod(lead), math.prod(size)))
    count = math.prod(values.shape[len(lead) :])
    rows = np.arange(len(plane))[:, None]
    np.add.at(plane, (rows, indices.reshape(len(plane), count)), values.reshape(len(plane), count))
    return plane.reshape(*lead, *size)


def _windows(size, kernel, stride, padding, dilation, ceil_mode):
    """Per axis, per window: the positions inside x that the window covers."""
    n = len(size)
    kernel = ntuple(kernel, n)
    stride = kernel if stride is None else ntuple(stride, n)
    padding, dilation = ntuple(padding, n), ntuple(dilation, n)
    windows = []
    for m, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        starts = [o * s - p for o in range(pool_output_size(m, k, s, p, d, ceil_mode))]
        windows.append([[i for i in range(b, b + k * d, d) if 0 <= i < m] for b in starts])
    return windows


def max_over_windows(x: Array, windows: Sequence[Sequence[Sequence[int]]]) -> tuple[Array, Indices]:
    """Maximum and flat plane index per window; windows[axis][o] lists positions."""
    size = x.shape[x.ndim - len(windows) :]
    lead = x.shape[: x.ndim - len(windows)]
    plane = x.reshape(*lead, math.prod(size))
    out = [len(w) for w in windows]
    y, indices = np.empty((*lead, *out)), np.empty((*lead, *out), np.int64)
    for o in grid(out):
        at = flat_positions([w[i] for w, i in zip(windows, o, strict=True)], size)
        y[(..., *o)], indices[(..., *o)] = first_maximum(plane[..., at], at)
    return y, indices


def max_pool(
    axes: int,
    x: ArrayLike,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Array | tuple[Array, Indices]:
    """Maximum of each window; return_indices adds its flat int64 index in the plane of x."""
    x = real(x)
    size = x.shape[x.ndim - axes :]
    windows = _windows(size, kernel_size, stride, padding, dilation, ceil_mode)
    y, indices = max_over_windows(x, windows)
    return (y, indices) if return_indices else y


def max_pool_backward(
    axes: int,
    grad_y: ArrayLike,
    x: ArrayLike,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Array:
    """grad_y added to the element of x that was the maximum."""
    x = real(x)
    options = (kernel_size, stride, padding, dilation, ceil_mode)
    _, indices = max_pool(axes, x, *options, return_indices=True)
    return scatter_to_indices(real(grad_y), indices, x.shape[x.ndim - axes :])


def _average_windows(
    size, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
):
    """(output index, slices of x, divisor) of every window that meets x.

    The padded divisor counts positions up to size + padding only, not those that ceil_mode adds.
    """
    n = len(size)
    kernel, padding = ntuple(kernel_size, n), ntuple(padding, n)
    stride = kernel if stride is None else ntuple(stride, n)
    shapes = list(zip(size, kernel, stride, padding, strict=True))
    for o in grid([pool_output_size(m, k, s, p, 1, ceil_mode) for m, k, s, p in shapes]):
        low = [i * s - p for i, (_, _, s, p) in zip(o, shapes, strict=True)]
        high = [min(b + k, m + p) for b, (m, k, _, p) in zip(low, shapes, strict=True)]
        inside = [(max(b, 0), min(e, m)) for b, e, m in zip(low, high, size, strict=True)]
        span = zip(low, high, strict=True) if count_include_pad else inside
        divisor = divisor_override or math.prod(e - b for b, e in span)
        yield (..., *o), (..., *(slice(b, max(b, e)) for b, e in inside)), divisor


def avg_pool(
    axes: int,
    x: ArrayLike,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Sum of each window / (its padded size, its size inside x, or divisor_override)."""
    x = real(x)
    size, lead = x.shape[x.ndim - axes :], x.shape[: x.ndim - axes]
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    windows = list(_average_windows(size, *options))
    y = np.zeros((*lead, *(i + 1 for i in windows[-1][0][1:])), x.dtype)
    for o, window, divisor in windows:
        y[o] = x[window].sum(tuple(range(-axes, 0))) / (divisor or 1)
    return y


def avg_pool_backward(
    axes: int,
    grad_y: ArrayLike,
    x: ArrayLike,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """grad_y / divisor spread over each window."""
    grad_y, grad_x = real(grad_y), np.zeros(np.shape(x))
    size = grad_x.shape[grad_x.ndim - axes :]
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    for o, window, divisor in _average_windows(size, *options):
        grad_x[window] += grad_y[o].reshape(*grad_y[o].shape, *(1,) * axes) / (divisor or 1)
    return grad_x


def lp_pool(
    axes: int,
    x: ArrayLike,
    norm_type: float,
    kernel_size: Ints,
    stride: Ints | None = None,
    ceil_mode: bool = False,
) -> Array:
    """(K mean(x^p))^(1/p), K the kernel's size: (sum x^p)^(1/p) for every whole window.

    A window that ceil_mode cut short is scaled up to K elements, as in PyTorch.
    """
    mean = avg_pool(axes, real(x) ** norm_type, kernel_size, stride, 0, ceil_mode)
    return (mean * math.prod(ntuple(kernel_size, axes))) ** (1.0 / norm_type)


def lp_pool_backward(
    axes: int,
    grad_y: ArrayLike,
    x: ArrayLike,
    norm_type: float,
    kernel_size: Ints,
    stride: Ints | None = None,
    ceil_mode: bool = False,
) -> Array:
    """y^(1-p) x^(p-1), scaled where ceil_mode cut a window short; 0 where y = 0."""
    x = real(x)
    y = lp_pool(axes, x, norm_type, kernel_size, stride, ceil_mode)
    scale = real(grad_y) * np.where(y == 0, 0.0, np.where(y == 0, 1.0, y) ** (1 - norm_type))
    spread = avg_pool_backward(axes, scale, x, kernel_size, stride, 0, ceil_mode)
    return spread * math.prod(ntuple(kernel_size, axes)) * x ** (norm_type - 1)


max_pool1d, max_pool2d, max_pool3d = (partial(max_pool, n) for n in (1, 2, 3))
avg_pool1d, avg_pool2d, avg_pool3d = (partial(avg_pool, n) for n in (1, 2, 3))
lp_pool1d, lp_pool2d, lp_pool3d = (partial(lp_pool, n) for n in (1, 2, 3))
max_pool1d_backward, max_pool2d_backward, max_pool3d_backward = (
    partial(max_pool_backward, n) for n in (1, 2, 3)
)
avg_pool1d_backward, avg_pool2d_backward, avg_pool3d_backward = (
    partial(avg_pool_backward, n) for n in (1, 2, 3)
)
lp_pool1d_backward, lp_pool2d_backward, lp_pool3d_backward = (
    partial(lp_pool_backward, n) for n in (1, 2, 3)
)
