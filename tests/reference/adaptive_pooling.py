"""Adaptive and fractional pooling: windows that follow from the wanted output size.

x [..., *in] with `axes` spatial axes at the end, y [..., *output_size]. Adaptive window o covers
floor(o in / out) .. ceil((o + 1) in / out) - 1. Fractional windows: Graham 2014, "Fractional
max-pooling", pseudo-random sequence in PyTorch's form.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, grid, ntuple, real
from .pooling import Indices, max_over_windows, scatter_to_indices

OutputSize = int | Sequence[int | None] | None


def _adaptive_windows(size: Sequence[int], output_size: OutputSize) -> list[list[range]]:
    if output_size is None or isinstance(output_size, int):
        output_size = [output_size] * len(size)
    out = [n if o is None else o for n, o in zip(size, output_size, strict=True)]
    return [
        [range(i * n // o, -(-(i + 1) * n // o)) for i in range(o)]
        for n, o in zip(size, out, strict=True)
    ]


def adaptive_avg_pool(axes: int, x: ArrayLike, output_size: OutputSize) -> Array:
    """Mean of each adaptive window."""
    x = real(x)
    windows = _adaptive_windows(x.shape[x.ndim - axes :], output_size)
    y = np.zeros((*x.shape[: x.ndim - axes], *map(len, windows)), x.dtype)
    for o in grid([len(w) for w in windows]):
        window = [slice(w[i].start, w[i].stop) for w, i in zip(windows, o, strict=True)]
        y[(..., *o)] = x[(..., *window)].mean(tuple(range(-axes, 0)))
    return y


def adaptive_avg_pool_backward(
    axes: int, grad_y: ArrayLike, x: ArrayLike, output_size: OutputSize
) -> Array:
    """grad_y / window size spread over each window."""
    grad_y, grad_x = real(grad_y), np.zeros(np.shape(x))
    windows = _adaptive_windows(grad_x.shape[grad_x.ndim - axes :], output_size)
    for o in grid([len(w) for w in windows]):
        spans = [w[i] for w, i in zip(windows, o, strict=True)]
        window = (..., *(slice(r.start, r.stop) for r in spans))
        g = grad_y[(..., *o)]
        grad_x[window] += g.reshape(*g.shape, *(1,) * axes) / np.prod([len(r) for r in spans])
    return grad_x


def adaptive_max_pool(
    axes: int, x: ArrayLike, output_size: OutputSize, return_indices: bool = False
) -> Array | tuple[Array, Indices]:
    """Maximum of each adaptive window; return_indices adds its flat index in the plane."""
    x = real(x)
    y, indices = max_over_windows(x, _adaptive_windows(x.shape[x.ndim - axes :], output_size))
    return (y, indices) if return_indices else y


def adaptive_max_pool_backward(
    axes: int, grad_y: ArrayLike, x: ArrayLike, output_size: OutputSize
) -> Array:
    """grad_y added to the element of x that was the maximum."""
    x = real(x)
    _, indices = adaptive_max_pool(axes, x, output_size, return_indices=True)
    return scatter_to_indices(real(grad_y), indices, x.shape[x.ndim - axes :])


def _fractional_starts(sample: float, size: int, out: int, kernel: int) -> list[int]:
    """floor((i + u) a) - floor(u a), a = (size - kernel) / (out - 1); the last is size - kernel."""
    alpha = (size - kernel) / (out - 1) if out > 1 else 0.0
    starts = [int((i + sample) * alpha) - int(sample * alpha) for i in range(out - 1)]
    return [*starts, size - kernel]


def fractional_max_pool(
    axes: int,
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    output_size: int | Sequence[int] | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: ArrayLike | None = None,
) -> Array | tuple[Array, Indices]:
    """Maximum over pseudo-random windows; _random_samples [N, C, axes] in [0, 1) fixes them.

    In 2-D sample 0 belongs to W and sample 1 to H; in 3-D they are in the order T, H, W.
    """
    x, samples = real(x), real(_random_samples)
    if x.ndim == axes + 1:
        results = fractional_max_pool(
            axes, x[None], kernel_size, output_size, output_ratio, True, samples
        )
        y, indices = (r[0] for r in results)
        return (y, indices) if return_indices else y
    size, kernel = x.shape[2:], ntuple(kernel_size, axes)
    if output_size is None:
        ratio = [output_ratio] * axes if isinstance(output_ratio, float) else output_ratio
        output_size = [int(n * r) for n, r in zip(size, ratio, strict=True)]
    out = ntuple(output_size, axes)
    y, indices = np.empty((*x.shape[:2], *out)), np.empty((*x.shape[:2], *out), np.int64)
    for plane in grid(x.shape[:2]):
        draws = samples[plane][::-1] if axes == 2 else samples[plane]
        windows = [
            [range(b, b + k) for b in _fractional_starts(u, n, o, k)]
            for u, n, o, k in zip(draws, size, out, kernel, strict=True)
        ]
        y[plane], indices[plane] = max_over_windows(x[plane], windows)
    return (y, indices) if return_indices else y


def fractional_max_pool_backward(
    axes: int,
    grad_y: ArrayLike,
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    output_size: int | Sequence[int] | None = None,
    output_ratio: float | Sequence[float] | None = None,
    _random_samples: ArrayLike | None = None,
) -> Array:
    """grad_y added to the element of x that was the maximum."""
    x = real(x)
    _, indices = fractional_max_pool(
        axes, x, kernel_size, output_size, output_ratio, True, _random_samples
    )
    return scatter_to_indices(real(grad_y), indices, x.shape[x.ndim - axes :])


adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = (
    partial(adaptive_avg_pool, n) for n in (1, 2, 3)
)
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = (
    partial(adaptive_max_pool, n) for n in (1, 2, 3)
)
adaptive_avg_pool1d_backward, adaptive_avg_pool2d_backward, adaptive_avg_pool3d_backward = (
    partial(adaptive_avg_pool_backward, n) for n in (1, 2, 3)
)
adaptive_max_pool1d_backward, adaptive_max_pool2d_backward, adaptive_max_pool3d_backward = (
    partial(adaptive_max_pool_backward, n) for n in (1, 2, 3)
)
fractional_max_pool2d, fractional_max_pool3d = (partial(fractional_max_pool, n) for n in (2, 3))
fractional_max_pool2d_backward, fractional_max_pool3d_backward = (
    partial(fractional_max_pool_backward, n) for n in (2, 3)
)
