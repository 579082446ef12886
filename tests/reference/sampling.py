"""Spatial transformer: affine grids and sampling at them (Jaderberg et al. 2015).

x [N, C, *in], grid [N, *out, d] of (x, y[, z]) in [-1, 1], y [N, C, *out], d = 2 or 3.
-1 and 1 are the centres of the corner pixels with align_corners, otherwise their outer edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, real
from ._arrays import grid as index_grid
from .resize import cubic_kernel


def _base_grid(size: Sequence[int], align_corners: bool) -> Array:
    """[*out, d + 1] of (x, y[, z], 1)."""
    axes = []
    for n in size:
        line = np.linspace(-1, 1, n) if n > 1 else np.zeros(1)
        axes.append(line if align_corners else line * (n - 1) / n)
    mesh = np.meshgrid(*axes, indexing="ij")
    return np.stack([*mesh[::-1], np.ones(tuple(size))], -1)


def affine_grid(theta: ArrayLike, size: Sequence[int], align_corners: bool = False) -> Array:
    """grid[n, p] = theta[n] (p, 1): theta [N, d, d + 1], size (N, C, *out)."""
    return np.einsum("...j,nij->n...i", _base_grid(size[2:], align_corners), real(theta))


def affine_grid_backward(
    grad_grid: ArrayLike, size: Sequence[int], align_corners: bool = False
) -> Array:
    """Gradient for theta: sum of grad_grid (p, 1)^T."""
    g, d = real(grad_grid), len(size) - 2
    return np.tensordot(g, _base_grid(size[2:], align_corners), (range(1, d + 1), range(d)))


def _reflect(v: Array, low: float, high: float) -> tuple[Array, Array]:
    """v folded into [low, high] by reflections at both ends, and its slope 1 or -1."""
    span = high - low
    if span == 0:
        return np.zeros_like(v), np.zeros_like(v)
    v = v - low
    slope, v = np.where(v < 0, -1.0, 1.0), np.abs(v)
    rest, odd = np.fmod(v, span), np.floor(v / span) % 2 == 1
    return np.where(odd, span - rest, rest) + low, np.where(odd, -slope, slope)


def _inside(v: Array, n: int, padding_mode: str, align_corners: bool) -> tuple[Array, Array]:
    """v after border or reflection padding, and its slope."""
    slope = np.ones_like(v)
    if padding_mode == "reflection":
        v, slope = _reflect(v, *((0.0, n - 1.0) if align_corners else (-0.5, n - 0.5)))
    if padding_mode != "zeros":
        slope = slope * ((v > 0) & (v < n - 1))
        v = np.clip(v, 0, n - 1)
    return v, slope


def _cubic_slope(t: Array) -> Array:
    """Derivative of cubic_kernel(t, -0.75) at signed t."""
    a, s, t = -0.75, np.sign(t), np.abs(t)
    near = 3 * (a + 2) * t * t - 2 * (a + 3) * t
    far = 3 * a * t * t - 10 * a * t + 8 * a
    return s * np.where(t <= 1, near, far)


def _taps(coordinate: Array, n: int, mode: str, padding_mode: str, align_corners: bool):
    """(index, weight, d weight / d coordinate) per tap of one axis; index may lie outside."""
    scale = (n - 1) / 2 if align_corners else n / 2
    v = (coordinate + 1) * scale - (0.0 if align_corners else 0.5)
    if mode == "bicubic":
        low = np.floor(v)
        for i in range(-1, 3):
            at, t = _inside(low + i, n, padding_mode, align_corners)[0], v - low - i
            yield at.astype(np.int64), cubic_kernel(t, -0.75), _cubic_slope(t) * scale
        return
    v, slope = _inside(v, n, padding_mode, align_corners)
    if mode == "nearest":
        yield np.rint(v).astype(np.int64), np.ones_like(v), np.zeros_like(v)
        return
    low = np.floor(v)
    for i in range(2):
        sign = 2 * i - 1
        yield (low + i).astype(np.int64), 1 - np.abs(v - low - i), sign * slope * scale


def _all_taps(x: Array, grid: Array, mode: str, padding_mode: str, align_corners: bool):
    """(index into x, weight, weight's gradient for the grid) per combination of axis taps.

    Taps outside x have weight and gradient 0 and index 0. Axis a of x is grid column d - 1 - a.
    """
    d = grid.shape[-1]
    axes = [
        list(_taps(grid[..., d - 1 - a], x.shape[2 + a], mode, padding_mode, align_corners))
        for a in range(d)
    ]
    batch = np.arange(len(x)).reshape(-1, *(1,) * d)
    for choice in index_grid([len(taps) for taps in axes]):
        index, weight, slope = zip(*(axes[a][t] for a, t in enumerate(choice)), strict=True)
        pairs = zip(index, x.shape[2:], strict=True)
        valid = np.all([(i >= 0) & (i < n) for i, n in pairs], 0)
        at = (batch, slice(None), *(np.where(valid, i, 0) for i in index))
        gradient = [
            np.prod([slope[a] if a == b else weight[a] for a in range(d)], 0) * valid
            for b in reversed(range(d))
        ]
        yield at, np.prod(weight, 0) * valid, np.stack(gradient, -1), valid


def grid_sample(
    x: ArrayLike,
    grid: ArrayLike,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Array:
    """Sample x at grid: mode bilinear, nearest (half to even) or bicubic (2-D only)."""
    x, grid = real(x), real(grid)
    y = np.zeros((*grid.shape[:-1], x.shape[1]))
    for at, weight, _, valid in _all_taps(x, grid, mode, padding_mode, align_corners):
        y += np.where(valid[..., None], x[at] * weight[..., None], 0.0)
    return np.moveaxis(y, -1, 1)


def grid_sample_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    grid: ArrayLike,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> tuple[Array, Array]:
    """Gradients for x (scatter of weight grad_y) and grid (sum of x grad_y weight's gradient)."""
    x, grid = real(x), real(grid)
    g = np.moveaxis(real(grad_y), 1, -1)
    grad_x, grad_grid = np.zeros_like(x), np.zeros_like(grid)
    for at, weight, gradient, _ in _all_taps(x, grid, mode, padding_mode, align_corners):
        np.add.at(grad_x, at, g * weight[..., None])
        grad_grid += (x[at] * g).sum(-1)[..., None] * gradient
    return grad_x, grad_grid
