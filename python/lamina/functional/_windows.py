"""The windows of pools as tables, one an axis: where each starts and how many inputs it holds.

Strided, adaptive, global and fractional pools differ in these tables only; one kernel runs them all
(csrc/ops/pool.h).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .. import _C


def _tables(in_size: int, step: int, start: Any, count: Any, divisor: Any) -> Any:
    """Windows from starts, tap counts and divisors, with the inverse tables for gradients."""
    positions = np.arange(in_size)
    last_tap = start + np.maximum(count - 1, 0) * step
    # Clipped dilated windows may begin or end before an earlier one does; monotone bounds around
    # them give ranges that hold every covering window (the kernels test the members).
    first = np.searchsorted(np.maximum.accumulate(last_tap), positions, "left")
    last = np.searchsorted(np.minimum.accumulate(start[::-1])[::-1], positions, "right")
    tables = (start, count, divisor, first, np.maximum(last, first))
    return _C.Windows(in_size, step, *(np.ascontiguousarray(t, np.int64) for t in tables))


def strided_size(
    op: str, in_size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> int:
    """Windows along an axis; in ceil mode the last must start inside the input or the low padding.

    Raises ValueError when none fits.
    """
    span = in_size + 2 * padding - dilation * (kernel - 1) - 1
    size = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (size - 1) * stride >= in_size + padding:
        size -= 1
    if size < 1 or in_size < 1:
        raise ValueError(
            f"{op}: the output size would be {max(size, 0)}, got input size={in_size}, "
            f"kernel_size={kernel}, stride={stride}, padding={padding}, dilation={dilation}; "
            "add padding or use a smaller kernel"
        )
    return size


@lru_cache(maxsize=256)
def strided(
    in_size: int,
    out_size: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    divide_by: str | int,
) -> Any:
    """Windows at o * stride - padding, clipped to the input.

    divide_by: "inside" counts the taps in the input, "padded" those in the padding too (not what
    ceil mode reads beyond it, as in torch), a number is the divisor itself.
    """
    begin = np.arange(out_size) * stride - padding
    skipped = np.maximum(-(begin // dilation), 0)  # taps that fall before the input
    start = begin + skipped * dilation
    count = np.minimum(kernel - skipped, (in_size - 1 - start) // dilation + 1)
    count = np.maximum(count, 0)
    if divide_by == "padded":
        divisor = np.minimum(begin + kernel, in_size + padding) - begin
    elif divide_by == "inside":
        divisor = np.maximum(count, 1)
    else:
        divisor = np.full(out_size, divide_by)
    return _tables(in_size, dilation, np.minimum(start, in_size - 1), count, divisor)


@lru_cache(maxsize=256)
def adaptive(in_size: int, out_size: int) -> Any:
    """Window o spans floor(o * in / out) to ceil((o + 1) * in / out)."""
    o = np.arange(out_size)
    start = o * in_size // out_size
    count = -(-(o + 1) * in_size // out_size) - start
    return _tables(in_size, 1, start, count, count)


def fractional(in_size: int, out_size: int, kernel: int, sample: np.floating) -> Any:
    """Graham 2014: pseudo-random starts from one sample u in [0, 1), in the sample's precision.

    start[o] = floor((o + u) * alpha) - floor(u * alpha), alpha = (in - kernel) / (out - 1); the
    last window ends the axis.
    """
    start = np.full(out_size, in_size - kernel)
    if out_size > 1:
        alpha = sample.dtype.type(in_size - kernel) / sample.dtype.type(out_size - 1)
        steps = (np.arange(out_size - 1).astype(sample.dtype) + sample) * alpha
        start[:-1] = steps.astype(np.int64) - int(sample * alpha)
    count = np.full(out_size, kernel)
    return _tables(in_size, 1, start, count, count)


@lru_cache(maxsize=1)
def one() -> Any:
    """The single window of an axis that a pool does not have."""
    return adaptive(1, 1)
