"""New tensors from a shape or a rule. Floats are float32 unless `dtype` says otherwise."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from . import arrays
from .operations.shape import _sizes
from .tensor import Tensor


def _filled(
    op: str, shape: Any, value: Any, dtype: Any, device: Any, requires_grad: bool
) -> Tensor:
    sizes = _sizes(op, shape)
    array = arrays.empty(op, sizes, arrays.checked_dtype(op, dtype or np.float32))
    if value is not None:
        array[...] = value
    return Tensor(arrays.to_device(op, array, device or "cpu"), requires_grad)


def empty(
    *shape: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor whose elements are not set.

    Raises ValueError for the shape, MemoryError above the physical memory, TypeError for the dtype.
    """
    return _filled("empty", shape, None, dtype, device, requires_grad)


def zeros(
    *shape: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of zeros. Raises as `empty`."""
    return _filled("zeros", shape, 0, dtype, device, requires_grad)


def ones(*shape: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones. Raises as `empty`."""
    return _filled("ones", shape, 1, dtype, device, requires_grad)


def full(
    size: Any, fill_value: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of `fill_value`; without `dtype`, integers give int64 and booleans bool.

    Raises as `empty`, and TypeError where `fill_value` is no number.
    """
    if not isinstance(fill_value, numbers.Real | np.bool_):
        raise TypeError(
            f"full: fill_value must be a number, got {type(fill_value).__name__}; use expand"
        )
    if dtype is None:
        kind = np.asarray(fill_value).dtype.kind
        dtype = {"b": np.bool_, "f": np.float32}.get(kind, np.int64)
    return _filled("full", (size,), fill_value, dtype, device, requires_grad)


def _like(op: str, x: Any, value: Any, dtype: Any, requires_grad: bool) -> Tensor:
    array = x.data if isinstance(x, Tensor) else x
    if not arrays.is_array(array):
        raise TypeError(f"{op}: x must be a Tensor or an array, got {type(x).__name__}")
    result = arrays.empty(op, array.shape, arrays.checked_dtype(op, dtype or array.dtype), array)
    result[...] = value
    return Tensor(result, requires_grad)


def zeros_like(x: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of the shape, dtype and device of x."""
    return _like("zeros_like", x, 0, dtype, requires_grad)


def ones_like(x: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of the shape, dtype and device of x."""
    return _like("ones_like", x, 1, dtype, requires_grad)


def full_like(x: Any, fill_value: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """`fill_value` in the shape, dtype and device of x."""
    return _like("full_like", x, fill_value, dtype, requires_grad)


def arange(
    start: Any, end: Any = None, step: Any = 1, dtype: Any = None, requires_grad: bool = False
) -> Tensor:
    """start, start + step, ... below end; one argument is the end. Integers give int64.

    Raises TypeError where they are no numbers, ValueError for a step of 0 or no finite length.
    """
    if end is None:
        start, end = 0, start
    for name, value in (("start", start), ("end", end), ("step", step)):
        if not isinstance(value, numbers.Real):
            raise TypeError(f"arange: {name} must be a number, got {type(value).__name__}")
    if step == 0 or not all(math.isfinite(value) for value in (start, end, step)):
        raise ValueError(
            f"arange: the length must be finite, got start={start}, end={end}, step={step}"
        )
    count = max(math.ceil((end - start) / step), 0)
    whole = all(isinstance(value, numbers.Integral) for value in (start, end, step))
    kind = arrays.checked_dtype("arange", dtype or (np.int64 if whole else np.float32))
    arrays.empty("arange", (count,), np.int64)
    values = start + step * np.arange(count, dtype=np.int64 if whole else np.float64)
    return Tensor(values.astype(kind), requires_grad)


def linspace(
    start: float, end: float, steps: int, dtype: Any = None, requires_grad: bool = False
) -> Tensor:
    """`steps` evenly spaced numbers from start to end, both included."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"linspace: steps must be an integer of at least 0, got steps={steps!r}")
    kind = arrays.checked_dtype("linspace", dtype or np.float32)
    return Tensor(np.linspace(start, end, steps).astype(kind), requires_grad)


def eye(n: int, m: int | None = None, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """The n by m (n by n) matrix with ones on its diagonal."""
    result = _filled("eye", (n, n if m is None else m), 0, dtype, None, False)
    np.fill_diagonal(result.data, 1)
    return result.requires_grad_(requires_grad)
