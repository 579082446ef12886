"""Largest and smallest elements and where they are, over one, several or all dimensions.

As in reduction.py, NumPy arrays of floats go to the kernels of csrc/ops/reduce.h. Ties: `amax` and
`amin` share the gradient among the equal elements, `max` and `min` with a dimension give it to the
first. NaN wins every comparison.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import _C
from ..arrays import asarray, empty, is_array, module_of
from ..autograd import Context, Function
from ..known import Known
from ._common import (
    as_array,
    dims_and_axes,
    kept_shape,
    one_dim,
    reduced_axes,
    reduced_dims,
    refuse_empty,
    restored,
)
from .elementwise import maximum, minimum


class Reduced(NamedTuple):
    """What max and min along a dimension return."""

    values: Any
    indices: Any


class Amax(Function):
    @classmethod
    def forward(cls, ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
        op = cls.__name__.lower()
        x = as_array(op, x)
        dims = reduced_dims(op, dim, x.ndim)
        refuse_empty(op, x.shape, dims)
        ctx.axes = reduced_axes(x, dims)
        ctx.geometry = (dims, keepdim)
        y: Any
        if ctx.axes is not None:
            x, y = asarray(op, "x", x), empty(op, kept_shape(x.shape, dims, keepdim), x.dtype)
            _C.extreme(op == "amin", x, y, None, x.shape, ctx.axes)
        else:
            y = module_of(x).asarray(getattr(module_of(x), op)(x, axis=dims, keepdims=keepdim))
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        x, y = ctx.saved
        dims, keepdim = ctx.geometry
        if ctx.axes is not None:
            grad_x = empty("amax", x.shape, x.dtype)
            grad_y = asarray("amax", "grad_y", grad_y)
            _C.extreme_gradient(x, y, None, grad_y, grad_x, x.shape, ctx.axes)
            return grad_x, None, None
        kept = restored(y, dims, keepdim)
        chosen = (x == kept) | (kept != kept) & (x != x)
        count = chosen.sum(dims, keepdims=True).astype(grad_y.dtype)
        return restored(grad_y, dims, keepdim) / count * chosen, None, None


class Amin(Amax):
    pass


class _AlongDim(Function):
    """Values and indices of the first largest or smallest element along one dimension."""

    @classmethod
    def forward(cls, ctx: Context, x: Any, dim: int, keepdim: bool) -> Any:
        op = cls.__name__.lower()
        x = as_array(op, x)
        axis = one_dim(op, dim, x.ndim)
        xp = module_of(x)
        refuse_empty(op, x.shape or (1,), (axis,))
        wide = x if x.ndim else x.reshape(1)
        values: Any
        axes = reduced_axes(wide, (axis,))
        if axes is not None:
            kept = kept_shape(wide.shape, (axis,), True)
            values, indices = empty(op, kept, x.dtype), empty(op, kept, np.int64)
            _C.extreme(op == "min", asarray(op, "x", wide), values, indices, wide.shape, axes)
        else:
            indices = xp.expand_dims(getattr(xp, "arg" + op)(wide, axis=axis), axis)
            values = xp.take_along_axis(wide, indices, axis)
        ctx.save_for_backward(indices)
        ctx.geometry = (wide.shape, axes, axis)
        ctx.shape = x.shape
        if x.ndim == 0:
            values, indices = values.reshape(()), indices.reshape(())
        elif not keepdim:
            values, indices = values.squeeze(axis), indices.squeeze(axis)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    def backward(ctx: Context, grad_values: Any, grad_indices: Any) -> Any:
        (indices,) = ctx.saved
        shape, axes, axis = ctx.geometry
        xp = module_of(grad_values)
        if axes is not None:
            grad_x = empty("max", shape, grad_values.dtype)
            grad_values = asarray("max", "grad_values", grad_values)
            _C.extreme_gradient(None, None, indices, grad_values, grad_x, shape, axes)
        else:
            grad_x = xp.zeros(shape, grad_values.dtype)
            xp.put_along_axis(grad_x, indices, grad_values.reshape(indices.shape), axis)
        return grad_x.reshape(ctx.shape), None, None


class Max(_AlongDim):
    pass


class Min(_AlongDim):
    pass


class Argmax(Function):
    """A result without a gradient."""

    @classmethod
    def forward(cls, ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
        op = cls.__name__.lower()
        x = as_array(op, x)
        axis = None if dim is None else one_dim(op, dim, x.ndim)
        dims = tuple(range(x.ndim)) if axis is None else (axis,) if x.ndim else ()
        refuse_empty(op, x.shape, dims)
        axis = axis if x.ndim else None
        axes = reduced_axes(x, dims)
        if axes is not None:
            y = empty(op, kept_shape(x.shape, dims, keepdim), np.int64)
            _C.extreme(op == "argmin", asarray(op, "x", x), None, y, x.shape, axes)
            return y
        xp = module_of(x)
        return xp.asarray(getattr(xp, op)(x, axis=axis, keepdims=keepdim))


class Argmin(Argmax):
    pass


_FUNCTIONS: tuple[type[Function], ...] = (Amax, Amin, Max, Min, Argmax, Argmin)
_known = {
    function.__name__.lower(): (function, Known(1, function, layouts="copied"))
    for function in _FUNCTIONS
}


def _extreme(op: str, x: Any, dim: Any, keepdim: Any) -> Any:
    """The Function's result, to be known from now on."""
    function, known = _known[op]
    y = known.run(x, dim, keepdim)
    if y is not None:
        return y
    y = function.apply(x, dim, keepdim)
    _, axes = dims_and_axes(op, x, dim)
    if axes is not None and type(keepdim) is bool:
        first = y[0] if isinstance(y, tuple) else y
        known.remember((x, dim, keepdim), first, _C.extreme_call, (op, x.shape, axes), ())
    return y


def amax(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element over `dim` (None: all). Raises ValueError where there is none."""
    return _extreme("amax", x, dim, keepdim)


def amin(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element over `dim` (None: all). Raises ValueError where there is none."""
    return _extreme("amin", x, dim, keepdim)


def max(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element of all, or (values, indices) along the dimension `dim`.

    max(x, other) is maximum.
    """
    if is_array(dim) or hasattr(dim, "requires_grad"):
        return maximum(x, dim)
    return amax(x) if dim is None else Reduced(*_extreme("max", x, dim, keepdim))


def min(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element of all, or (values, indices) along the dimension `dim`.

    min(x, other) is minimum.
    """
    if is_array(dim) or hasattr(dim, "requires_grad"):
        return minimum(x, dim)
    return amin(x) if dim is None else Reduced(*_extreme("min", x, dim, keepdim))


def argmax(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the first largest element, of all (flat) or along `dim`."""
    return _extreme("argmax", x, dim, keepdim)


def argmin(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the first smallest element, of all (flat) or along `dim`."""
    return _extreme("argmin", x, dim, keepdim)
