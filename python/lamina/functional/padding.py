"""Padding and cropping of the last axes.

`constant` takes any dtype a Tensor may hold; the other modes are resampling tables
(functional/_taps.py) and take float32 or float64. Raises ValueError for pads that do not fit,
TypeError for dtypes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Function
from ..known import Known
from ..tensor import array_of
from . import _taps
from ._arguments import integer, one_of, real
from .conv import as_operand

__all__ = ["pad"]


def _slices(
    shape: tuple[int, ...], pairs: tuple[tuple[int, int], ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of the input that stays, and its place in the result; pairs per axis."""
    source, place = [], []
    for size, (low, high) in zip(shape, pairs, strict=True):
        source.append(slice(max(-low, 0), size - max(-high, 0)))
        place.append(slice(max(low, 0), max(low, 0) + source[-1].stop - source[-1].start))
    return tuple(source), tuple(place)


class PadConstant(Function):
    """pairs: (low, high) of every axis."""

    @staticmethod
    def forward(ctx: Any, x: Any, pairs: tuple[tuple[int, int], ...], value: float) -> Any:
        ctx.shape = x.shape
        ctx.source, ctx.place = _slices(x.shape, pairs)
        shape = tuple(n + low + high for n, (low, high) in zip(x.shape, pairs, strict=True))
        y = arrays.empty("pad", shape, x.dtype.newbyteorder("="), like=x)
        y.fill(value)
        y[ctx.place] = x[ctx.source]
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        grad = arrays.module_of(grad_y).zeros(ctx.shape, grad_y.dtype)
        grad[ctx.source] = grad_y[ctx.place]
        return grad, None, None


@lru_cache(maxsize=256)
def _table(size: int, low: int, high: int, mode: str) -> _taps.Table:
    """Which element each position of the padded axis shows."""
    at = np.arange(-low, size + high)
    if mode == "reflect":
        at = size - 1 - np.abs(size - 1 - np.abs(at))
    elif mode == "replicate":
        at = np.clip(at, 0, size - 1)
    else:  # what a crop leaves wraps around
        first, last = max(-low, 0), size - max(-high, 0)
        at = first + (at - first) % (last - first)
    return _taps.from_entries(size, len(at), np.arange(len(at)), at, np.ones(len(at)))


# mode -> pads per axis must be below this, given the size
_LIMITS = {"reflect": lambda size: size - 1, "circular": lambda size: size}


def _fill_value(dtype: Any, value: Any) -> float:
    """What the border shows; an integer array has no place for NaN or numbers out of range."""
    number = 0.0 if value is None else real("pad", "value", value)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    if limits is not None and not limits.min <= number <= limits.max:
        raise ValueError(f"pad: value must be in the range of {dtype}, got value={value}")
    return number


def _pairs(ndim: int, pad: Any) -> tuple[tuple[int, int], ...]:
    """(low, high) of each of the last axes, first to last; torch lists the last axis first."""
    if not isinstance(pad, tuple | list) or len(pad) % 2:
        raise ValueError(f"pad: pad must be pairs of integers, got pad={pad!r}")
    values = [integer("pad", "pad", value) for value in pad]
    if len(values) > 2 * ndim:
        raise ValueError(
            f"pad: pad must have at most 2 numbers per axis, got pad={tuple(values)} for an "
            f"input of {ndim} dimensions"
        )
    return tuple(zip(values[-2::-2], values[::-2], strict=True))


_known = Known(1, PadConstant, layouts="copied")
_KNOWN = (*arrays.FLOATS, arrays.INT64, np.dtype(np.bool_))


def pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """input with its last axes padded; pad = (low, high) of the last axis, then of the one before.

    Negative numbers crop. mode: constant (shows `value`, 0 by default), reflect (without repeating
    the border), replicate (the nearest element) or circular (repeats what a crop leaves). The
    latter three pad the last 1, 2 or 3 axes of [N, C, ...] or [C, ...].
    """
    y = _known.run(input, pad, mode, value)
    if y is not None:
        return y
    op = "pad"
    one_of(op, "mode", mode, ("constant", "reflect", "replicate", "circular"))
    if mode != "constant":
        if value is not None and real(op, "value", value) != 0:
            raise ValueError(f"{op}: value is for mode='constant', got mode={mode!r}")
        x = as_operand(op, "input", input)
    else:
        array = array_of(input)
        if not arrays.is_array(array) or isinstance(array, np.ma.MaskedArray):
            raise TypeError(
                f"{op}: input must be a Tensor or a plain array, got input of type "
                f"{type(array).__name__}"
            )
        arrays.checked_dtype(op, array.dtype)
        x = input
    last = _pairs(x.ndim, pad)
    axes = len(last)
    if mode != "constant" and (not 1 <= axes <= 3 or x.ndim - axes not in (1, 2)):
        raise ValueError(
            f"{op}: mode={mode!r} pads the last 1 to 3 axes of [N, C, ...] or [C, ...], "
            f"got {len(last)} pairs for input.shape={x.shape}"
        )
    for size, pair in zip(x.shape[x.ndim - axes :], last, strict=True):
        if size + min(pair[0], 0) + min(pair[1], 0) < 0 or size + sum(pair) < 0:
            raise ValueError(f"{op}: the crop is larger than the axis of {size}, got pad={pair}")
        limit = _LIMITS[mode](size) if mode in _LIMITS else None
        if limit is not None and max(pair) > limit:
            raise ValueError(
                f"{op}: mode={mode!r} needs pads of at most {limit} for an axis of {size}, "
                f"got {pair}"
            )
        if mode != "constant" and size + sum(pair) < 1:
            raise ValueError(f"{op}: the output would have size 0, got pad={pair}, size={size}")
        # circular shows what a crop leaves, the others the whole axis
        shown = size + min(pair[0], 0) + min(pair[1], 0) if mode == "circular" else size
        if mode != "constant" and shown == 0:
            raise ValueError(
                f"{op}: mode={mode!r} has nothing to show of an axis of {size}, got pad={pair}"
            )
        arrays.empty(op, (max(size + sum(pair), 0), 32), np.float64)  # what a table takes
    pairs = ((0, 0),) * (x.ndim - axes) + last
    fill = _fill_value(x.dtype, value) if mode == "constant" else 0.0
    array = array_of(x)
    if type(array) is np.ndarray and array.dtype in _KNOWN and array.dtype.isnative:
        shape = tuple(n + low + high for n, (low, high) in zip(x.shape, pairs, strict=True))
        asked = (input, pad, mode, value)
        y = _known.first(asked, array.dtype, shape, _C.pad_call, (x.shape, pairs, mode, fill))
        if y is not None:
            return y
    if mode == "constant":
        return PadConstant.apply(x, pairs, fill)
    sizes = x.shape[x.ndim - axes :]
    tables = tuple(
        _table(size, low, high, mode) for size, (low, high) in zip(sizes, last, strict=True)
    )
    return _taps.Resample.apply(op, x, tables)
