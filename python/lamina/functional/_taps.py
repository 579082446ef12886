"""Resampling tables, one an axis: which inputs, with which weights, make each output.

Interpolation modes and unpoolings differ in these tables only. Two kernels run them all, along one
axis and along the last two together (csrc/ops/resample.h). Tables are built in float64 whatever the
data's dtype.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .. import _C, arrays
from ..autograd import Function


class Table(NamedTuple):
    """The kernel's table of an axis and the transposed one, for the gradient."""

    forward: Any
    backward: Any


def from_entries(
    in_size: int, out_size: int, output: np.ndarray, source: np.ndarray, weight: np.ndarray
) -> Table:
    """From the matrix' entries (output, source, weight), outputs ascending."""
    by_input = np.argsort(source, kind="stable")
    return Table(
        _csr(in_size, out_size, output, source, weight),
        _csr(out_size, in_size, source[by_input], output[by_input], weight[by_input]),
    )


def _table(in_size: int, index: np.ndarray, weight: np.ndarray) -> Table:
    """From index and weight [out, taps]; taps of weight 0 are left out, so NaN stays local."""
    output, tap = np.nonzero(weight)
    return from_entries(in_size, len(index), output, index[output, tap], weight[output, tap])


def _csr(in_size: int, out_size: int, row: Any, column: Any, weight: Any) -> Any:
    """Rows ascending."""
    begin = np.searchsorted(row, np.arange(out_size + 1))
    columns = np.ascontiguousarray(column, np.int64)
    weights = np.ascontiguousarray(weight, np.float64)
    return _C.Taps(in_size, begin.astype(np.int64), columns, weights)


@lru_cache(maxsize=256)
def nearest(in_size: int, out_size: int, scale: float | None, exact: bool) -> Table:
    """floor(o * in / out) in integers, exact: of the centres; `scale` replaces in / out."""
    o = np.arange(out_size)
    if scale is None:
        index = (2 * o + exact) * in_size // (2 * out_size)
    else:
        index = np.floor((o + 0.5 * exact) * scale).astype(np.int64)
    return _table(in_size, np.minimum(index, in_size - 1)[:, None], np.ones((out_size, 1)))


@lru_cache(maxsize=256)
def linear(in_size: int, out_size: int, scale: float, align_corners: bool) -> Table:
    """Between the two centres around scale * (o + 1/2) - 1/2, or scale * o with align_corners."""
    o = np.arange(out_size)
    at = o * scale if align_corners else np.maximum((o + 0.5) * scale - 0.5, 0)
    at = np.minimum(at, in_size - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, in_size - 1)
    part = at - low
    return _table(in_size, np.stack([low, high], 1), np.stack([1 - part, part], 1))


def cubic_weight(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel of slope `a` at distance 1 (Keys 1981)."""
    t = np.abs(distance)
    near = ((a + 2) * t - (a + 3)) * t**2 + 1
    far = a * (((t - 5) * t + 8) * t - 4)
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


@lru_cache(maxsize=256)
def cubic(in_size: int, out_size: int, scale: float, align_corners: bool) -> Table:
    """Four taps around the position; those outside repeat the border."""
    o = np.arange(out_size)
    at = o * scale if align_corners else (o + 0.5) * scale - 0.5
    taps = np.floor(at).astype(np.int64)[:, None] + np.arange(-1, 3)
    weight = cubic_weight(at[:, None] - taps, -0.75)
    return _table(in_size, np.clip(taps, 0, in_size - 1), weight)


@lru_cache(maxsize=256)
def antialias(in_size: int, out_size: int, scale: float, is_cubic: bool) -> Table:
    """The kernel widened to the scale of a reduction, cut at the border, normalised to 1."""
    width = max(scale, 1.0)
    reach = (2 if is_cubic else 1) * width
    centre = scale * (np.arange(out_size) + 0.5)
    low = np.maximum(np.floor(centre - reach + 0.5), 0).astype(np.int64)
    high = np.minimum(np.floor(centre + reach + 0.5), in_size).astype(np.int64)
    taps = low[:, None] + np.arange(max(int((high - low).max()), 1))
    distance = (taps + 0.5 - centre[:, None]) / width
    weight = cubic_weight(distance, -0.5) if is_cubic else np.maximum(1 - np.abs(distance), 0)
    weight = np.where(taps < high[:, None], weight, 0)
    weight /= weight.sum(1, keepdims=True)
    return _table(in_size, np.minimum(taps, in_size - 1), weight)


@lru_cache(maxsize=256)
def blocks(in_size: int, kernel: int, fill: bool) -> Table:
    """Each input becomes `kernel` outputs: copies of it (fill), or itself and zeros."""
    o = np.arange(in_size * kernel)
    weight = np.ones(len(o)) if fill else (o % kernel == 0).astype(float)
    return _table(in_size, (o // kernel)[:, None], weight[:, None])


def _resample(op: str, x: Any, axis: int, tables: tuple[Any, ...]) -> Any:
    """x with one table, or two, for the axes from `axis` on."""
    end = axis + len(tables)
    shape = (*x.shape[:axis], *(taps.out_size for taps in tables), *x.shape[end:])
    y = arrays.empty(op, shape, x.dtype, like=x)
    outer, (first, *rest) = math.prod(x.shape[:axis]), tables
    if rest:
        first.resample_planes(rest[0], outer, x, y)
    else:
        first.resample(outer, math.prod(x.shape[end:]), x, y)
    return y


def _along_axes(op: str, x: Any, tables: tuple[Any, ...]) -> Any:
    """x with one table for each of its last axes; shrinking axes go first."""
    last = len(tables)
    together = 2 if last > 1 and not arrays.on_gpu_kernels(x) else 1
    groups = [(i, tables[i : i + 1]) for i in range(last - together)]
    groups.append((last - together, tables[last - together :]))
    groups.sort(key=lambda group: math.prod(t.out_size / t.in_size for t in group[1]))
    first = x.ndim - last
    for i, group in groups:
        x = _resample(op, x, first + i, group)
    return x


class Resample(Function):
    """x [..., *in] with one table for each of its last axes."""

    @staticmethod
    def forward(ctx: Any, op: str, x: Any, tables: tuple[Table, ...]) -> Any:
        ctx.op, ctx.tables = op, tuple(table.backward for table in tables)
        return _along_axes(op, x, tuple(table.forward for table in tables))

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        grad = arrays.asarray(ctx.op, "grad_y", grad_y)
        return None, _along_axes(ctx.op, grad, ctx.tables), None
