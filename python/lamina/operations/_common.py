"""What the array operations share: dtype promotion, dimensions, and sums that undo broadcasting."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _C
from ..arrays import (
    FLOATS,
    INT64,
    asarray,
    device_of,
    empty,
    is_array,
    is_ready,
    kind_of,
    module_of,
)

BOOL = np.dtype(np.bool_)
NUMBERS = (*FLOATS, INT64)  # of known calls that compute
MOVED = (*NUMBERS, BOOL)  # and of those that move elements
_RANK = {"b": 0, "i": 1, "u": 1, "f": 2}


def _of_kind(dtypes: list[np.dtype]) -> np.dtype:
    """The common dtype; integers do not widen floats, unlike in NumPy."""
    top = max(_RANK[dtype.kind] for dtype in dtypes)
    return np.result_type(*[dtype for dtype in dtypes if _RANK[dtype.kind] == top])


def _check_operand(op: str, name: str, x: Any) -> None:
    if is_array(x) or isinstance(x, np.generic):
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(
                f"{op}: {name} must be a plain array, got {name} of type MaskedArray; "
                "fill the masked values with .filled(value)"
            )
        if x.dtype.kind in _RANK:
            return
        got = f"{name}.dtype={x.dtype}"
    elif isinstance(x, numbers.Real):
        return
    else:
        got = f"{name} of type {kind_of(x)}"
    raise TypeError(
        f"{op}: {name} must be a Tensor, an array or a number, real or boolean, got {got}; "
        "convert it with lamina.tensor"
    )


def common_dtype(op: str, operands: dict[str, Any]) -> np.dtype:
    """torch's rule: 0-d arrays widen the others, and numbers (also NumPy's, as float64 is one of
    Python's) all arrays, only if their kind is higher."""
    if all(map(is_ready, operands.values())):
        dtypes = {x.dtype for x in operands.values()}
        if len(dtypes) == 1:
            return dtypes.pop()
    levels: list[list[np.dtype]] = [[], [], []]
    for name, x in operands.items():
        _check_operand(op, name, x)
        if is_array(x):
            levels[0 if x.ndim else 1].append(x.dtype)
        elif isinstance(x, np.generic):
            levels[2].append(x.dtype)
        elif isinstance(x, bool):
            levels[2].append(np.dtype(bool))
        elif isinstance(x, numbers.Integral):
            levels[2].append(np.dtype(np.int64))
        else:
            levels[2].append(FLOATS[0])
    result = None
    for level in levels:
        if level:
            dtype = _of_kind(level)
            if result is None or _RANK[dtype.kind] > _RANK[result.kind]:
                result = dtype
    assert result is not None
    return result


def promote(op: str, **operands: Any) -> list[Any]:
    """The operands as arrays of their common dtype, on one device, of shapes that broadcast.

    Raises TypeError for other objects and for two devices, ValueError for the shapes.
    """
    ready = [x for x in operands.values() if is_ready(x)]
    numbers = [x for x in operands.values() if type(x) in (float, int)]
    if ready and len(ready) + len(numbers) == len(operands):
        first = max(ready, key=lambda x: x.ndim)
        shape, dtype = first.shape, first.dtype
        if all(x.dtype == dtype and shape[first.ndim - x.ndim :] == x.shape for x in ready):
            return [x if is_ready(x) else np.asarray(x, dtype) for x in operands.values()]
    dtype = common_dtype(op, operands)
    arrays = {name: x for name, x in operands.items() if is_array(x)}
    like = next(iter(arrays.values()), None)
    for name, x in arrays.items():
        if device_of(x) != device_of(like):
            raise TypeError(
                f"{op}: {name} must be on the device of the other operand, got {device_of(x)} and "
                f"{device_of(like)}; move one with .to(device)"
            )
    result = [module_of(like).asarray(x, dtype) for x in operands.values()]
    try:
        np.broadcast_shapes(*[x.shape for x in result])
    except ValueError as error:
        shapes = ", ".join(
            f"{name}.shape={x.shape}" for name, x in zip(operands, result, strict=True)
        )
        raise ValueError(f"{op}: shapes must broadcast, got {shapes}; reshape one") from error
    return result


def as_array(op: str, x: Any) -> Any:
    """`x` as an array of real numbers or booleans."""
    if is_ready(x):
        return x
    _check_operand(op, "x", x)
    return x if is_array(x) else np.asarray(x, common_dtype(op, {"x": x}))


def as_float(op: str, x: Any) -> Any:
    """`x` as a floating array: integers and booleans become float32."""
    if is_ready(x):
        return x
    x = as_array(op, x)
    return x if x.dtype.kind == "f" else x.astype(FLOATS[0])


def is_known_array(x: Any, dtypes: tuple[np.dtype, ...]) -> bool:
    """Whether `x` is an array of NumPy, or a Tensor on one, whose dtype is one of `dtypes`."""
    array = getattr(x, "_data", x)
    return type(array) is np.ndarray and array.dtype in dtypes and array.dtype.isnative


def are_alike(operands: tuple[Any, ...], dtypes: Any) -> bool:
    """Whether those that are no numbers are arrays of one of the dtypes, all of the same."""
    arrays = [x for x in operands if type(x) not in (float, int)]
    return (
        len(arrays) > 0
        and is_known_array(arrays[0], dtypes)
        and all(is_known_array(x, (arrays[0].dtype,)) for x in arrays)
    )


def shapes_of(*operands: Any) -> list[tuple[int, ...]]:
    return [getattr(x, "shape", ()) for x in operands]


def reduced_axes(
    x: Any, dims: tuple[int, ...], dtypes: tuple[np.dtype, ...] = FLOATS
) -> list[bool] | None:
    """Which axes are reduced, where the kernels reduce them: of NumPy arrays of floats."""
    if type(getattr(x, "_data", x)) is not np.ndarray or x.dtype not in dtypes:
        return None
    reduced = [d in dims for d in range(len(x.shape))]
    return reduced if dims and _C.in_runs(x.shape, reduced) else None


def kept_shape(shape: tuple[int, ...], dims: tuple[int, ...], keepdim: bool) -> tuple[int, ...]:
    """The shape of a reduction's result."""
    return tuple(1 if d in dims else n for d, n in enumerate(shape) if keepdim or d not in dims)


def _memory_order(x: Any) -> list[int]:
    """The axes of an array as they lie in memory, if without gaps, and not in C order."""
    if x.flags.c_contiguous:
        return []
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    return order if x.transpose(order).flags.c_contiguous else []


def wide_sum(x: Any, dims: tuple[int, ...], keepdim: bool = False, divisor: float = 1.0) -> Any:
    """Sum with float32 (and smaller) added in float64, so that its error does not grow."""
    axes = reduced_axes(x, dims)
    if axes is not None:
        order = _memory_order(x)
        moved = tuple(d for d, axis in enumerate(order) if axis in dims)
        if order and reduced_axes(x.transpose(order), moved) is not None:
            y = wide_sum(x.transpose(order), moved, True, divisor).transpose(np.argsort(order))
            return y.reshape(kept_shape(x.shape, dims, keepdim))
        y = empty("sum", kept_shape(x.shape, dims, keepdim), x.dtype)
        _C.reduce("sum", asarray("sum", "x", x), y, None, x.shape, axes, divisor)
        return y
    wide = np.float64 if x.dtype.kind == "f" and x.dtype.itemsize < 8 else None
    y = x.sum(dims, dtype=wide, keepdims=keepdim)
    if divisor != 1:  # of floats, where it may be NaN
        y = y / divisor
    return y if wide is None else y.astype(x.dtype)


def unbroadcast(gradient: Any, shape: tuple[int, ...]) -> Any:
    """The gradient of an operand of `shape` from that of the broadcast result."""
    if gradient.shape == shape:
        return gradient
    added = gradient.ndim - len(shape)
    dims = tuple(range(added)) + tuple(
        added + d for d, size in enumerate(shape) if size == 1 and gradient.shape[added + d] != 1
    )
    return wide_sum(gradient, dims, keepdim=True).reshape(shape)


def one_dim(op: str, dim: Any, ndim: int) -> int:
    """`dim` counted from the front. Raises TypeError for no integer, ValueError out of range."""
    if isinstance(dim, bool) or not hasattr(dim, "__index__"):
        raise TypeError(f"{op}: dim must be an integer, got dim={dim!r}; pass for example dim=-1")
    index = dim.__index__()
    limit = max(ndim, 1)
    if not -limit <= index < limit:
        raise ValueError(
            f"{op}: dim must be from {-limit} to {limit - 1}, got dim={index} for {ndim} dimensions"
        )
    return index % limit


def reduced_dims(op: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """The dimensions that a reduction over `dim` takes away: all for None and, as in torch, ()."""
    return all_dims(op, None if isinstance(dim, (tuple, list)) and not dim else dim, ndim)


def all_dims(op: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """The dimensions that `dim` (None for all, an integer, or several) names, ascending."""
    if dim is None:
        return tuple(range(ndim))
    given: Sequence[Any] = dim if isinstance(dim, (tuple, list)) else (dim,)
    dims = sorted(one_dim(op, d, ndim) for d in given)
    if len(set(dims)) != len(dims):
        raise ValueError(f"{op}: dim must name each dimension once, got dim={dim}")
    return tuple(d for d in dims if d < ndim)  # dim 0 of a 0-d array names nothing


def restored(reduced: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
    """A reduction's result or gradient with the reduced dimensions back as ones."""
    return reduced if keepdim else module_of(reduced).expand_dims(reduced, dims)


def element_count(shape: tuple[int, ...], dims: tuple[int, ...]) -> int:
    sizes: list[int] = [shape[d] for d in dims]
    return math.prod(sizes)


def refuse_empty(op: str, shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    kept = tuple(d for d in range(len(shape)) if d not in dims)
    if element_count(shape, dims) == 0 and element_count(shape, kept):
        raise ValueError(
            f"{op}: x must have an element to reduce, got x.shape={shape}, dim={dims}; "
            "this reduction has no value for none"
        )


def dims_and_axes(op: str, x: Any, dim: Any) -> tuple[tuple[int, ...], list[bool] | None]:
    """The dimensions, and which axes of x they are where the kernels reduce them."""
    if not hasattr(x, "shape"):
        return (), None
    dims = reduced_dims(op, dim, len(x.shape))
    return dims, reduced_axes(x, dims)
