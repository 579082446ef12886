"""Reductions over one, several or all dimensions, and running sums.

Sums of float32 are added in float64. Ties: `amax` and `amin` share the gradient among the equal
elements, `max` and `min` with a dimension give it to the first. NaN wins every comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import _C
from ..arrays import FLOATS, INT64, is_floating, module_of
from ..autograd import Context, Function
from ..known import Known
from ._common import (
    all_dims,
    as_array,
    as_float,
    axis_runs,
    is_known_array,
    one_dim,
    restored,
    wide_sum,
)


class Reduced(NamedTuple):
    """What max and min along a dimension return."""

    values: Any
    indices: Any


def _count(shape: tuple[int, ...], dims: tuple[int, ...]) -> int:
    sizes: list[int] = [shape[d] for d in dims]
    return math.prod(sizes)


def _refuse_empty(op: str, shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    kept = tuple(d for d in range(len(shape)) if d not in dims)
    if _count(shape, dims) == 0 and _count(shape, kept):
        raise ValueError(
            f"{op}: x must have an element to reduce, got x.shape={shape}, dim={dims}; "
            "this reduction has no value for none"
        )


class Sum(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
        x = as_array("sum", x)
        dims = all_dims("sum", dim, x.ndim)
        ctx.geometry = (x.shape, dims, keepdim)
        if not dims:
            return x.astype(np.int64) if x.dtype.kind in "biu" else x.copy()
        return module_of(x).asarray(wide_sum(x, dims, keepdim))

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        shape, dims, keepdim = ctx.geometry
        grad_y = restored(grad_y, dims, keepdim)
        return module_of(grad_y).broadcast_to(grad_y, shape), None, None


def _mean_count(shape: tuple[int, ...], dims: tuple[int, ...]) -> float:
    return float(_count(shape, dims)) or math.nan


class Mean(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
        total = Sum.forward(ctx, x, dim, keepdim)
        shape, dims, _ = ctx.geometry
        ctx.count = total.dtype.type(_mean_count(shape, dims))
        return module_of(total).asarray(total / ctx.count)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        return Sum.backward(ctx, module_of(grad_y).asarray(grad_y / ctx.count))


class Prod(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
        x = as_array("prod", x)
        dims = all_dims("prod", dim, x.ndim)
        ctx.geometry = (dims, keepdim)
        ctx.save_for_backward(x)
        return x.prod(dims, keepdims=keepdim)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        # The product of all others, without a division: zeros are legal.
        (x,) = ctx.saved
        dims, keepdim = ctx.geometry
        xp = module_of(x)
        grad_y = restored(grad_y, dims, keepdim)
        back = tuple(range(-len(dims), 0))
        moved = xp.moveaxis(x, dims, back)
        flat = moved.reshape(*moved.shape[: x.ndim - len(dims)], _count(x.shape, dims))
        others = _exclusive_cumprod(xp, flat) * _exclusive_cumprod(xp, flat[..., ::-1])[..., ::-1]
        return grad_y * xp.moveaxis(others.reshape(moved.shape), back, dims), None, None


def _exclusive_cumprod(xp: Any, x: Any) -> Any:
    shifted = xp.ones_like(x)
    shifted[..., 1:] = x[..., :-1]
    return xp.cumprod(shifted, axis=-1)


class Amax(Function):
    @classmethod
    def forward(cls, ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
        op = cls.__name__.lower()
        x = as_array(op, x)
        dims = all_dims(op, dim, x.ndim)
        _refuse_empty(op, x.shape, dims)
        kept = getattr(module_of(x), op)(x, axis=dims, keepdims=True)
        ctx.save_for_backward(x, kept)
        ctx.geometry = (dims, keepdim)
        return (
            kept if keepdim else kept.reshape([s for d, s in enumerate(x.shape) if d not in dims])
        )

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        x, kept = ctx.saved
        dims, keepdim = ctx.geometry
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
        _refuse_empty(op, x.shape or (1,), (axis,))
        wide = x if x.ndim else x.reshape(1)
        indices = xp.expand_dims(getattr(xp, "arg" + op)(wide, axis=axis), axis)
        values = xp.take_along_axis(wide, indices, axis)
        ctx.save_for_backward(indices)
        ctx.geometry = (x.shape, axis, keepdim)
        if x.ndim == 0:
            values, indices = values.reshape(()), indices.reshape(())
        elif not keepdim:
            values, indices = values.squeeze(axis), indices.squeeze(axis)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    def backward(ctx: Context, grad_values: Any, grad_indices: Any) -> Any:
        (indices,) = ctx.saved
        shape, axis, keepdim = ctx.geometry
        xp = module_of(grad_values)
        grad_x = xp.zeros(shape or (1,), grad_values.dtype)
        xp.put_along_axis(grad_x, indices, grad_values.reshape(indices.shape), axis)
        return grad_x.reshape(shape), None, None


class Max(_AlongDim):
    pass


class Min(_AlongDim):
    pass


class Var(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, dim: Any, correction: float, keepdim: bool) -> Any:
        x = as_float("var", x)
        dims = all_dims("var", dim, x.ndim)
        count = _count(x.shape, dims)
        wide = x.astype(np.float64)
        centred = wide - wide.mean(dims, keepdims=True) if count else wide
        ctx.geometry = (dims, keepdim, count - correction)
        ctx.save_for_backward(centred.astype(x.dtype))
        # Fewer elements than the correction have no variance: NaN, as in torch.
        divisor = np.maximum(count - correction, 0)
        y = (centred * centred).sum(dims, keepdims=keepdim) / np.float64(divisor)
        return module_of(x).asarray(y, x.dtype)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        (centred,) = ctx.saved
        dims, keepdim, divisor = ctx.geometry
        scale = grad_y.dtype.type(2.0) / grad_y.dtype.type(divisor)
        return restored(grad_y, dims, keepdim) * centred * scale, None, None, None


class Root(Function):
    """sqrt of a variance: the gradient at 0 is 0, not infinite."""

    @staticmethod
    def forward(ctx: Context, x: Any) -> Any:
        y = module_of(x).asarray(module_of(x).sqrt(x), x.dtype)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        (y,) = ctx.saved
        return module_of(y).where(y == 0, 0, grad_y / (2 * y)).astype(y.dtype)


class Norm(Function):
    """(sum |x|**p)**(1/p); p of inf, -inf and 0 are the largest, the smallest and the count."""

    @staticmethod
    def forward(ctx: Context, x: Any, p: float, dim: Any, keepdim: bool) -> Any:
        x = as_float("norm", x)
        dims = all_dims("norm", dim, x.ndim)
        xp = module_of(x)
        size = xp.abs(x).astype(np.float64)
        if math.isinf(p):
            _refuse_empty("norm", x.shape, dims)
            kept = (xp.amax if p > 0 else xp.amin)(size, axis=dims, keepdims=True)
        elif p == 0:
            kept = xp.asarray((size != 0) | (size != size)).sum(dims, keepdims=True)
        else:
            kept = (size**p).sum(dims, keepdims=True) ** (1 / p)
        kept = xp.asarray(kept, x.dtype)
        ctx.geometry = (p, dims, keepdim)
        ctx.save_for_backward(x, kept)
        return (
            kept if keepdim else kept.reshape([s for d, s in enumerate(x.shape) if d not in dims])
        )

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        x, kept = ctx.saved
        p, dims, keepdim = ctx.geometry
        xp = module_of(x)
        grad_y = restored(grad_y, dims, keepdim)
        size, sign = xp.abs(x), xp.sign(x)
        if p == 0:
            slope = xp.zeros_like(x)
        elif math.isinf(p):
            chosen = size == kept
            slope = sign * chosen / chosen.sum(dims, keepdims=True)
        else:
            slope = sign * (size / kept) ** (p - 1)
            slope = xp.where((kept == 0) | (size == 0), 0, slope)
        return grad_y * slope.astype(x.dtype), None, None, None


class Cumsum(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, dim: int) -> Any:
        x = as_array("cumsum", x)
        ctx.dim = one_dim("cumsum", dim, x.ndim)
        if x.ndim == 0:
            return x.astype(np.int64) if x.dtype.kind in "biu" else x.copy()
        if is_floating(x.dtype):
            return module_of(x).cumsum(x, axis=ctx.dim, dtype=np.float64).astype(x.dtype)
        return module_of(x).cumsum(x, axis=ctx.dim)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        if grad_y.ndim == 0:
            return grad_y, None
        xp = module_of(grad_y)
        turned = xp.flip(grad_y, ctx.dim)
        total = xp.cumsum(turned, axis=ctx.dim, dtype=np.float64).astype(grad_y.dtype)
        return xp.flip(total, ctx.dim), None


class Test(Function):
    """any, all, argmax, argmin: results without a gradient."""

    @staticmethod
    def forward(ctx: Context, x: Any, op: str, dim: Any, keepdim: bool) -> Any:
        x = as_array(op, x)
        xp = module_of(x)
        if op in ("any", "all"):
            dims = all_dims(op, dim, x.ndim)
            return xp.asarray(getattr(xp, op)(x, axis=dims, keepdims=keepdim))
        axis = None if dim is None else one_dim(op, dim, x.ndim)
        dims = tuple(range(x.ndim)) if axis is None else (axis,) if x.ndim else ()
        _refuse_empty(op, x.shape, dims)
        axis = axis if x.ndim else None
        return xp.asarray(getattr(xp, op)(x, axis=axis, keepdims=keepdim))


_known_sums = Known(1, Sum, layouts="copied")
_known_means = Known(1, Mean, layouts="copied")


_run_sum, _run_mean = _known_sums.run, _known_means.run
_known_extremes = {
    name: Known(1, function, layouts="copied")
    for name, function in (("amax", Amax), ("amin", Amin), ("max", Max), ("min", Min))
}
_known_extremes["argmax"] = Known(1, Test, layouts="copied")
_known_extremes["argmin"] = Known(1, Test, layouts="copied")


def _loops_take(x: Any, op: str, dim: Any) -> list[bool] | None:
    """Which axes of x `dim` names, where the compiled loops reduce them."""
    if not is_known_array(x, FLOATS):
        return None
    return axis_runs(x.shape, all_dims(op, dim, x.ndim))


def _extreme(op: str, x: Any, dim: Any, keepdim: Any, run: Callable[[], Any]) -> Any:
    """A known call of one of `_known_extremes`, or run(), to be known from now on."""
    known = _known_extremes[op]
    y = known.run(x, dim, keepdim)
    if y is not None:
        return y
    y = run()
    if is_known_array(x, (*FLOATS, INT64)):
        dims = all_dims(op, dim, x.ndim)
        reduced = axis_runs(x.shape, dims)
        adjacent = bool(dims) and dims[-1] - dims[0] == len(dims) - 1
        if reduced is not None and adjacent and type(keepdim) is bool:
            first = y[0] if isinstance(y, tuple) else y
            known.remember((x, dim, keepdim), first, _C.extreme_call, (op, x.shape, reduced), ())
    return y


def sum(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The sum over `dim` (None: all). Raises ValueError, TypeError for `dim`."""
    y = _run_sum(x, dim, keepdim)
    if y is not None:
        return y
    y = Sum.apply(x, dim, keepdim)
    if (reduced := _loops_take(x, "sum", dim)) is not None:
        rest = (x.shape, reduced, 1.0)
        _known_sums.remember((x, dim, keepdim), y, _C.sum_call, rest, (dim, keepdim))
    return y


def mean(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The mean over `dim` (None: all); NaN of no element.

    Raises TypeError for integers and for `dim`, ValueError for `dim`.
    """
    y = _run_mean(x, dim, keepdim)
    if y is not None:
        return y
    if not hasattr(x, "dtype") or x.dtype.kind != "f":
        got = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"mean: x must be floating, got {got}; convert it to float32")
    y = Mean.apply(x, dim, keepdim)
    if (reduced := _loops_take(x, "mean", dim)) is not None:
        rest = (x.shape, reduced, _mean_count(x.shape, all_dims("mean", dim, x.ndim)))
        _known_means.remember((x, dim, keepdim), y, _C.sum_call, rest, (dim, keepdim))
    return y


def prod(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The product over `dim` (None: all). Raises as `sum`."""
    return Prod.apply(x, dim, keepdim)


def amax(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element over `dim` (None: all). Raises ValueError where there is none."""
    return _extreme("amax", x, dim, keepdim, lambda: Amax.apply(x, dim, keepdim))


def amin(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element over `dim` (None: all). Raises ValueError where there is none."""
    return _extreme("amin", x, dim, keepdim, lambda: Amin.apply(x, dim, keepdim))


def max(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element of all, or (values, indices) along the dimension `dim`."""
    if dim is None:
        return amax(x)
    return Reduced(*_extreme("max", x, dim, keepdim, lambda: Max.apply(x, dim, keepdim)))


def min(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element of all, or (values, indices) along the dimension `dim`."""
    if dim is None:
        return amin(x)
    return Reduced(*_extreme("min", x, dim, keepdim, lambda: Min.apply(x, dim, keepdim)))


def argmax(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the first largest element, of all (flat) or along `dim`."""
    return _extreme("argmax", x, dim, keepdim, lambda: Test.apply(x, "argmax", dim, keepdim))


def argmin(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the first smallest element, of all (flat) or along `dim`."""
    return _extreme("argmin", x, dim, keepdim, lambda: Test.apply(x, "argmin", dim, keepdim))


def any(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether some element over `dim` (None: all) is not zero."""
    return Test.apply(x, "any", dim, keepdim)


def all(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether every element over `dim` (None: all) is not zero."""
    return Test.apply(x, "all", dim, keepdim)


def var(
    x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
) -> Any:
    """The variance over `dim`: squares summed, divided by the count less `correction` (1)."""
    return Var.apply(x, dim, float(unbiased) if correction is None else correction, keepdim)


def std(
    x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
) -> Any:
    """The square root of `var`, with the gradient 0 where it is 0."""
    return Root.apply(var(x, dim, unbiased, keepdim, correction=correction))


def norm(x: Any, p: float | str = 2, dim: Any = None, keepdim: bool = False) -> Any:
    """The p-norm over `dim` (None: all) of the elements; "fro" is 2. The gradient at 0 is 0.

    Raises ValueError for `p` and `dim`.
    """
    power = 2.0 if p == "fro" else p
    if isinstance(power, str) or math.isnan(power):
        raise ValueError(f"norm: p must be a number or 'fro', got p={p!r}")
    return Norm.apply(x, float(power), dim, keepdim)


def cumsum(x: Any, dim: int) -> Any:
    """Running sums along `dim`. Raises as `sum`."""
    return Cumsum.apply(x, dim)
