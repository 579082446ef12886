"""Moves without arithmetic: pixel and channel shuffle, padding; their gradients move back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import Array, real


def pixel_shuffle(x: ArrayLike, upscale_factor: int) -> Array:
    """y[..., c, h r + i, w r + j] = x[..., c r^2 + i r + j, h, w] (Shi et al. 2016)."""
    x, r = real(x), upscale_factor
    *lead, c, h, w = x.shape
    y = x.reshape(*lead, c // r**2, r, r, h, w)
    n = len(lead) + 1
    y = y.transpose(*range(n), n + 2, n, n + 3, n + 1)
    return y.reshape(*lead, c // r**2, h * r, w * r)


def pixel_unshuffle(x: ArrayLike, downscale_factor: int) -> Array:
    """The inverse of pixel_shuffle."""
    x, r = real(x), downscale_factor
    *lead, c, h, w = x.shape
    y = x.reshape(*lead, c, h // r, r, w // r, r)
    n = len(lead) + 1
    y = y.transpose(*range(n), n + 1, n + 3, n, n + 2)
    return y.reshape(*lead, c * r**2, h // r, w // r)


def pixel_shuffle_backward(grad_y: ArrayLike, upscale_factor: int) -> Array:
    """A permutation's gradient is its inverse."""
    return pixel_unshuffle(grad_y, upscale_factor)


def pixel_unshuffle_backward(grad_y: ArrayLike, downscale_factor: int) -> Array:
    """A permutation's gradient is its inverse."""
    return pixel_shuffle(grad_y, downscale_factor)


def channel_shuffle(x: ArrayLike, groups: int) -> Array:
    """y[n, k groups + g] = x[n, g C/groups + k] (Zhang et al. 2018, ShuffleNet)."""
    x = real(x)
    n, c, *size = x.shape
    return x.reshape(n, groups, c // groups, *size).swapaxes(1, 2).reshape(x.shape)


def channel_shuffle_backward(grad_y: ArrayLike, groups: int) -> Array:
    """The shuffle with C / groups groups undoes it."""
    return channel_shuffle(grad_y, np.shape(grad_y)[1] // groups)


def _source(n: int, low: int, high: int, mode: str) -> NDArray[np.int64]:
    """For every padded position the index of x it shows, -1 for the constant."""
    i = np.arange(-low, n + high)
    if mode == "reflect":
        i = np.abs(i)
        return np.where(i >= n, 2 * (n - 1) - i, i)
    if mode == "replicate":
        return np.clip(i, 0, n - 1)
    if mode == "circular":
        # A negative pad first cuts x; what is left wraps around.
        start, stop = max(0, -low), n - max(0, -high)
        return start + (i - start) % (stop - start)
    return np.where((i >= 0) & (i < n), i, -1)


def _axes(ndim: int, pad: Sequence[int]):
    """(axis, low, high): torch lists the last axis first."""
    return [(ndim - 1 - a, pad[2 * a], pad[2 * a + 1]) for a in range(len(pad) // 2)]


def pad(
    x: ArrayLike, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Array:
    """Pad (negative: crop) the last axes; pad = (low, high) of the last axis, then the one before.

    constant shows value, reflect x[-i], replicate the nearest, circular x[i mod n].
    """
    x = real(x)
    for axis, low, high in _axes(x.ndim, pad):
        x = np.moveaxis(x, axis, 0)
        index = _source(len(x), low, high, mode)
        y = np.full((len(index), *x.shape[1:]), 0.0 if value is None else value, x.dtype)
        y[index >= 0] = x[index[index >= 0]]
        x = np.moveaxis(y, 0, axis)
    return x


def pad_backward(
    grad_y: ArrayLike, x: ArrayLike, pad: Sequence[int], mode: str = "constant"
) -> Array:
    """Every position adds its gradient to the element of x it shows."""
    g, shape = real(grad_y), np.shape(x)
    for axis, low, high in _axes(len(shape), pad):
        g = np.moveaxis(g, axis, 0)
        index = _source(shape[axis], low, high, mode)
        grad = np.zeros((shape[axis], *g.shape[1:]))
        np.add.at(grad, index[index >= 0], g[index >= 0])
        g = np.moveaxis(grad, 0, axis)
    return g
