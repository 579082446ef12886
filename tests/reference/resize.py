"""Interpolation to another size, one axis at a time, and its gradient.

x [N, C, *in] to y [N, C, *out]. Every mode is a table per axis: output o sums weight[o, t] times
input index[o, t]. Centres of pixels follow PyTorch: source(o) = scale (o + 1/2) - 1/2, or scale o
with align_corners. Sources: Keys 1981 (cubic); Pillow's resampling (antialias).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import Array, real

Table = tuple[NDArray[np.int64], Array]
Scale = float | Sequence[float] | None


def cubic_kernel(t: Array, a: float) -> Array:
    """Keys' cubic convolution kernel: support 2, slope a at 1."""
    t = np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def _nearest(n: int, out: int, scale: float, exact: bool) -> Table:
    # floor(o n / out) in integers where no scale factor is given, hence without rounding.
    o = np.arange(out)
    if scale == n / out:
        index = (2 * o + 1) * n // (2 * out) if exact else o * n // out
    else:
        index = np.floor((o + 0.5 * exact) * scale).astype(np.int64)
    return np.minimum(index, n - 1)[:, None], np.ones((out, 1))


def _linear(n: int, out: int, scale: float, align_corners: bool) -> Table:
    o = np.arange(out)
    at = o * scale if align_corners else np.maximum((o + 0.5) * scale - 0.5, 0)
    low = np.minimum(np.floor(at).astype(np.int64), n - 1)
    t = np.clip(at - low, 0, 1)
    return np.stack([low, np.minimum(low + 1, n - 1)], 1), np.stack([1 - t, t], 1)


def _cubic(n: int, out: int, scale: float, align_corners: bool) -> Table:
    o = np.arange(out)
    at = o * scale if align_corners else (o + 0.5) * scale - 0.5
    index = np.floor(at).astype(np.int64)[:, None] + np.arange(-1, 3)
    return np.clip(index, 0, n - 1), cubic_kernel(at[:, None] - index, -0.75)


def _antialias(n: int, out: int, scale: float, cubic: bool) -> Table:
    """The kernel widened to the scale of a reduction, cut off at the border and normalised.

    align_corners changes the scale alone, never the centres (o + 1/2), as in PyTorch.
    """
    wide = max(scale, 1.0)
    support = (2.0 if cubic else 1.0) * wide
    centre = scale * (np.arange(out) + 0.5)
    low = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    high = np.minimum((centre + support + 0.5).astype(np.int64), n)
    index = low[:, None] + np.arange((high - low).max())
    t = (index - centre[:, None] + 0.5) / wide
    weight = cubic_kernel(t, -0.5) if cubic else np.maximum(1 - np.abs(t), 0)
    weight = np.where(index < high[:, None], weight, 0.0)
    return np.minimum(index, n - 1), weight / weight.sum(1, keepdims=True)


def _area(n: int, out: int) -> Table:
    """Mean of the adaptive window floor(o n / out) .. ceil((o + 1) n / out) - 1."""
    o = np.arange(out)
    low, high = o * n // out, -(-(o + 1) * n // out)
    index = low[:, None] + np.arange((high - low).max())
    weight = (index < high[:, None]) / (high - low)[:, None]
    return np.minimum(index, n - 1), weight


def _tables(size, out_size, scale_factor, mode, align_corners, recompute, antialias) -> list[Table]:
    n = len(size)
    if out_size is not None:
        out = [out_size] * n if isinstance(out_size, int) else list(out_size)
        factors: list[float | None] = [None] * n
    else:
        factors = [scale_factor] * n if np.ndim(scale_factor) == 0 else list(scale_factor)
        out = [math.floor(float(m * f)) for m, f in zip(size, factors, strict=True)]
        factors = [None] * n if recompute else factors
    tables = []
    for m, o, f in zip(size, out, factors, strict=True):
        # A factor that changes no size moves no position in PyTorch, where it is not cubic.
        copied = o == m and (mode.endswith("linear") or antialias)
        scale = m / o if f is None or copied else 1 / f
        if align_corners:
            scale = (m - 1) / (o - 1) if o > 1 else 0.0
        if mode == "area":
            tables.append(_area(m, o))
        elif mode.startswith("nearest"):
            tables.append(_nearest(m, o, scale, mode == "nearest-exact"))
        elif antialias:
            tables.append(_antialias(m, o, scale, mode == "bicubic"))
        else:
            rule = _cubic if mode == "bicubic" else _linear
            tables.append(rule(m, o, scale, align_corners))
    return tables


def interpolate(
    x: ArrayLike,
    size: int | Sequence[int] | None = None,
    scale_factor: Scale = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Array:
    """Modes nearest, nearest-exact, linear, bilinear, trilinear, bicubic and area.

    scale_factor gives out = floor(in scale_factor) and is itself the scale of the coordinates,
    unless recompute_scale_factor asks for in / out.
    """
    x = real(x)
    options = (size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    for axis, (index, weight) in enumerate(_tables(x.shape[2:], *options), start=2):
        taps = np.moveaxis(x, axis, -1)[..., index]
        x = np.moveaxis((taps * weight).sum(-1), -1, axis)
    return x


def interpolate_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    size: int | Sequence[int] | None = None,
    scale_factor: Scale = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Array:
    """Each axis scatters weight[o, t] grad_y[o] to index[o, t]."""
    g, shape = real(grad_y), np.shape(x)
    options = (size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    for axis, (index, weight) in enumerate(_tables(shape[2:], *options), start=2):
        g = np.moveaxis(g, axis, 0)
        grad = np.zeros((shape[axis], *g.shape[1:]))
        np.add.at(grad, index, weight.reshape(*weight.shape, *(1,) * (g.ndim - 1)) * g[:, None])
        g = np.moveaxis(grad, 0, axis)
    return g
