"""Reductions and their gradients: of x over dims, and running sums along one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, real

Dims = int | tuple[int, ...] | None


def _restored(y: ArrayLike, x: Array, dims: Dims) -> Array:
    """y with the dims of x that were reduced as ones."""
    axes = tuple(range(x.ndim)) if dims is None else dims
    return np.expand_dims(real(y), axes)


def mean_backward(grad_y: ArrayLike, x: ArrayLike, dims: Dims) -> Array:
    x = real(x)
    grad_y = _restored(grad_y, x, dims)
    return np.broadcast_to(grad_y * (grad_y.size / x.size), x.shape)


def var(x: ArrayLike, dims: Dims, correction: float = 1) -> Array:
    """sum (x - mean)^2 / (count - correction)"""
    x = real(x)
    mean = x.mean(dims, keepdims=True)
    return ((x - mean) ** 2).sum(dims) / (x.size / mean.size - correction)


def var_backward(grad_y: ArrayLike, x: ArrayLike, dims: Dims, correction: float = 1) -> Array:
    x = real(x)
    mean = x.mean(dims, keepdims=True)
    return 2 * _restored(grad_y, x, dims) * (x - mean) / (x.size / mean.size - correction)


def std_backward(grad_y: ArrayLike, x: ArrayLike, dims: Dims, correction: float = 1) -> Array:
    """Half of var's over the deviation; 0 where that is 0."""
    x = real(x)
    deviation = np.sqrt(_restored(var(x, dims, correction), x, dims))
    slope = var_backward(grad_y, x, dims, correction) / 2
    return np.where(deviation == 0, 0, slope / np.where(deviation == 0, 1, deviation))


def norm(x: ArrayLike, p: float, dims: Dims) -> Array:
    return (np.abs(real(x)) ** p).sum(dims) ** (1 / p)


def norm_backward(grad_y: ArrayLike, x: ArrayLike, p: float, dims: Dims) -> Array:
    """sign(x) (|x| / norm)^(p - 1); 0 where the norm is 0."""
    x = real(x)
    length = _restored(norm(x, p, dims), x, dims)
    share = np.where(length == 0, 0, np.abs(x) / np.where(length == 0, 1, length))
    return _restored(grad_y, x, dims) * np.sign(x) * share ** (p - 1)


def extreme_backward(grad_y: ArrayLike, x: ArrayLike, y: ArrayLike, dims: Dims) -> Array:
    """Elements that equal y share the gradient; NaN equals NaN."""
    x = real(x)
    y = _restored(y, x, dims)
    chosen = (x == y) | (np.isnan(x) & np.isnan(y))
    axes = tuple(range(x.ndim)) if dims is None else dims
    return _restored(grad_y, x, dims) / chosen.sum(axes, keepdims=True) * chosen


def cumsum_backward(grad_y: ArrayLike, dim: int) -> Array:
    """grad_x[j] = sum of grad_y[k] over k >= j"""
    return np.flip(np.flip(real(grad_y), dim).cumsum(dim), dim)
