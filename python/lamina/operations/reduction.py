"""Reductions over one, several or all dimensions, and running sums.

NumPy arrays of floats go to the kernels of csrc/ops/reduce.h, where their axes form few runs;
others are reduced by their own library. Sums of float32 are added in float64, in the order that the
elements have in memory where a transposed array fills it, as NumPy's are: a copy may differ by a
rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _C
from ..arrays import INT64, asarray, empty, is_floating, module_of
from ..autograd import Context, Function
from ..known import Known
from . import extreme
from ._common import (
    BOOL,
    all_dims,
    as_array,
    as_float,
    dims_and_axes,
    element_count,
    is_known_array,
    kept_shape,
    one_dim,
    reduced_axes,
    reduced_dims,
    refuse_empty,
    restored,
    wide_sum,
)
from .elementwise import exp, log


def _gradient(
    kind: str,
    x: Any,
    y: Any,
    centre: Any,
    grad_y: Any,
    shape: Any,
    axes: list[bool],
    divisor: float,
) -> Any:
    """grad_x of a reduction by the kernels."""
    grad_x = empty(kind, shape, grad_y.dtype)
    grad_y = asarray(kind, "grad_y", grad_y)
    _C.reduce_gradient(kind, x, y, centre, grad_y, grad_x, shape, axes, divisor)
    return grad_x


class Sum(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
        x = as_array("sum", x)
        dims = reduced_dims("sum", dim, x.ndim)
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
    return float(element_count(shape, dims)) or math.nan


class Mean(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
        dims = reduced_dims("mean", dim, x.ndim)
        ctx.geometry = (x.shape, dims, keepdim)
        ctx.count = x.dtype.type(_mean_count(x.shape, dims))
        if not dims:
            return x.copy()
        return module_of(x).asarray(wide_sum(x, dims, keepdim, _mean_count(x.shape, dims)))

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        return Sum.backward(ctx, module_of(grad_y).asarray(grad_y / ctx.count))


class MeanOfSquares(Function):
    """Of NumPy arrays whose axes the kernels reduce."""

    @staticmethod
    def forward(ctx: Context, x: Any, dims: tuple[int, ...], axes: list[bool]) -> Any:
        x = asarray("mean", "x", x)
        count = _mean_count(x.shape, dims)
        ctx.geometry = (axes, count)
        ctx.save_for_backward(x)
        y = empty("mean", kept_shape(x.shape, dims, True), x.dtype)
        _C.reduce("squares", x, y, None, x.shape, axes, count)
        return y

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        (x,) = ctx.saved
        axes, count = ctx.geometry
        grad_x = _gradient("squares", x, None, None, grad_y, x.shape, axes, count)
        return grad_x, None, None


class Prod(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
        x = as_array("prod", x)
        dims = reduced_dims("prod", dim, x.ndim)
        axes = reduced_axes(x, dims)
        ctx.geometry = (dims, keepdim, axes)
        if axes is None:
            ctx.save_for_backward(x, None)
            return x.prod(dims, keepdims=keepdim)
        shape = kept_shape(x.shape, dims, keepdim)
        x, y, exact = asarray("prod", "x", x), empty("prod", shape, x.dtype), np.empty(shape)
        _C.reduce("product", x, y, exact, x.shape, axes, 1.0)
        ctx.save_for_backward(x, exact)
        return y

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        # The product of all others, without a division: zeros are legal.
        x, exact = ctx.saved
        dims, keepdim, axes = ctx.geometry
        if axes is not None:
            grad_x = _gradient("product", x, None, exact, grad_y, x.shape, axes, 1.0)
            return grad_x, None, None
        xp = module_of(x)
        grad_y = restored(grad_y, dims, keepdim)
        back = tuple(range(-len(dims), 0))
        moved = xp.moveaxis(x, dims, back)
        flat = moved.reshape(*moved.shape[: x.ndim - len(dims)], element_count(x.shape, dims))
        others = _exclusive_cumprod(xp, flat) * _exclusive_cumprod(xp, flat[..., ::-1])[..., ::-1]
        return grad_y * xp.moveaxis(others.reshape(moved.shape), back, dims), None, None


def _exclusive_cumprod(xp: Any, x: Any) -> Any:
    shifted = xp.ones_like(x)
    shifted[..., 1:] = x[..., :-1]
    return xp.cumprod(shifted, axis=-1)


class Var(Function):
    kind = "variance"

    @classmethod
    def forward(cls, ctx: Context, x: Any, dim: Any, correction: float, keepdim: bool) -> Any:
        op = cls.__name__.lower()
        x = as_float(op, x)
        xp, dims = module_of(x), reduced_dims(op, dim, x.ndim)
        divisor = _var_divisor(x.shape, dims, correction)
        axes = reduced_axes(x, dims)
        ctx.geometry = (dims, keepdim, divisor, axes)
        y: Any
        if axes is not None:
            shape = kept_shape(x.shape, dims, keepdim)
            x, y, centre = asarray(op, "x", x), empty(op, shape, x.dtype), np.empty(shape)
            _C.reduce(cls.kind, x, y, centre, x.shape, axes, divisor)
            ctx.save_for_backward(x, y if cls.kind == "deviation" else None, centre)
            return y
        wide = x.astype(np.float64)
        centred = wide - wide.mean(dims, keepdims=True) if wide.size else wide
        with np.errstate(divide="ignore", invalid="ignore"):
            y = (centred * centred).sum(dims, keepdims=keepdim) / np.float64(divisor)
        y = xp.asarray(xp.sqrt(y) if cls.kind == "deviation" else y, x.dtype)
        ctx.save_for_backward(centred.astype(x.dtype), y, None)
        return y

    @classmethod
    def backward(cls, ctx: Context, grad_y: Any) -> Any:
        x, y, centre = ctx.saved
        dims, keepdim, divisor, axes = ctx.geometry
        if axes is not None:
            grad_x = _gradient(cls.kind, x, y, centre, grad_y, x.shape, axes, divisor)
            return grad_x, None, None, None
        slope = grad_y / grad_y.dtype.type(divisor)
        if cls.kind == "deviation":
            slope = module_of(y).where(y == 0, 0, slope / y).astype(y.dtype)
        else:
            slope = 2 * slope
        return restored(slope, dims, keepdim) * x, None, None, None


class Std(Var):
    """The root of a variance: the gradient at 0 is 0, not infinite."""

    kind = "deviation"


def _var_divisor(shape: tuple[int, ...], dims: tuple[int, ...], correction: float) -> float:
    """0 for fewer elements than the correction: they have no variance, but NaN, as in torch."""
    count = element_count(shape, dims) - correction
    return float(count) if count > 0 else 0.0


_NORMS = {1.0: "absolute", 2.0: "euclidean"}  # those that kernels compute


class Norm(Function):
    """(sum |x|**p)**(1/p); p of inf, -inf and 0 are the largest, the smallest and the count."""

    @staticmethod
    def forward(ctx: Context, x: Any, p: float, dim: Any, keepdim: bool) -> Any:
        x = as_float("norm", x)
        dims = reduced_dims("norm", dim, x.ndim)
        xp = module_of(x)
        axes = reduced_axes(x, dims) if p in _NORMS else None
        ctx.geometry = (p, dims, keepdim, axes)
        if axes is not None:
            x, y = (
                asarray("norm", "x", x),
                empty("norm", kept_shape(x.shape, dims, keepdim), x.dtype),
            )
            _C.reduce(_NORMS[p], x, y, None, x.shape, axes, 1.0)
            ctx.save_for_backward(x, y)
            return y
        size = xp.abs(x).astype(np.float64)
        if math.isinf(p):
            refuse_empty("norm", x.shape, dims)
            kept = (xp.amax if p > 0 else xp.amin)(size, axis=dims, keepdims=True)
        elif p == 0:
            kept = xp.asarray((size != 0) | (size != size)).sum(dims, keepdims=True)
        else:
            kept = (size**p).sum(dims, keepdims=True) ** (1 / p)
        kept = xp.asarray(kept, x.dtype)
        ctx.save_for_backward(x, kept)
        return (
            kept if keepdim else kept.reshape([s for d, s in enumerate(x.shape) if d not in dims])
        )

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        x, kept = ctx.saved
        p, dims, keepdim, axes = ctx.geometry
        if axes is not None:
            y = kept if p == 2 else None
            grad_x = _gradient(_NORMS[p], x, y, None, grad_y, x.shape, axes, 1.0)
            return grad_x, None, None, None
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


class Logsumexp(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, dim: Any, keepdim: bool) -> Any:
        x = as_float("logsumexp", x)
        xp, dims = module_of(x), reduced_dims("logsumexp", dim, x.ndim)
        axes = reduced_axes(x, dims)
        ctx.geometry = (dims, keepdim, axes)
        if axes is not None:
            shape = kept_shape(x.shape, dims, keepdim)
            x, y = asarray("logsumexp", "x", x), empty("logsumexp", shape, x.dtype)
            _C.reduce("logsumexp", x, y, None, x.shape, axes, 1.0)
            ctx.save_for_backward(x, y)
            return y
        if element_count(x.shape, dims):
            largest = extreme.amax(x, dims, True)
            largest[~xp.isfinite(largest)] = 0  # Inf - Inf would be NaN
            kept = log(sum(exp(x - largest), dims, True)) + largest
        else:
            kept = xp.full(kept_shape(x.shape, dims, True), -math.inf, x.dtype)
        ctx.save_for_backward(x, kept)
        return kept.reshape(kept_shape(x.shape, dims, keepdim))

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        x, kept = ctx.saved
        dims, keepdim, axes = ctx.geometry
        if axes is not None:
            grad_x = _gradient("logsumexp", x, kept, None, grad_y, x.shape, axes, 1.0)
            return grad_x, None, None
        return restored(grad_y, dims, keepdim) * exp(x - kept), None, None


class Cumsum(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, dim: int) -> Any:
        x = as_array("cumsum", x)
        ctx.dim = one_dim("cumsum", dim, x.ndim)
        if x.ndim == 0:
            return x.astype(np.int64) if x.dtype.kind in "biu" else x.copy()
        ctx.lines = _lines(x, ctx.dim)
        if ctx.lines is not None:
            y = empty("cumsum", x.shape, x.dtype)
            outer, n, inner = ctx.lines
            _C.cumsum(asarray("cumsum", "x", x), y, outer, n, inner, False)
            return y
        if is_floating(x.dtype):
            return module_of(x).cumsum(x, axis=ctx.dim, dtype=np.float64).astype(x.dtype)
        return module_of(x).cumsum(x, axis=ctx.dim)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        if grad_y.ndim == 0:
            return grad_y, None
        if ctx.lines is not None:
            grad_x = empty("cumsum", grad_y.shape, grad_y.dtype)
            outer, n, inner = ctx.lines
            _C.cumsum(asarray("cumsum", "grad_y", grad_y), grad_x, outer, n, inner, True)
            return grad_x, None
        xp = module_of(grad_y)
        turned = xp.flip(grad_y, ctx.dim)
        total = xp.cumsum(turned, axis=ctx.dim, dtype=np.float64).astype(grad_y.dtype)
        return xp.flip(total, ctx.dim), None


def _lines(x: Any, dim: int) -> tuple[int, int, int] | None:
    """[outer, n, inner] of the dimension, for the kernel."""
    shape = x.shape
    if reduced_axes(x, (dim,)) is None:
        return None
    return math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])


class Test(Function):
    """any and all: results without a gradient."""

    @staticmethod
    def forward(ctx: Context, x: Any, op: str, dim: Any, keepdim: bool) -> Any:
        x = as_array(op, x)
        xp = module_of(x)
        dims = all_dims(op, dim, x.ndim)  # any and all reduce nothing over (), as in torch
        return xp.asarray(getattr(xp, op)(x, axis=dims, keepdims=keepdim))


_known = {
    name: Known(1, function, layouts="copied")
    for name, function in (
        *(("sum", Sum), ("mean", Mean), ("prod", Prod), ("var", Var), ("std", Std), ("norm", Norm)),
        *(("cumsum", Cumsum), ("logsumexp", Logsumexp), ("squares", MeanOfSquares)),
    )
}
_run_sum, _run_mean = _known["sum"].run, _known["mean"].run


def _remember(
    op: str, kind: str, asked: tuple[Any, ...], y: Any, divisor: float, record: tuple[Any, ...]
) -> Any:
    """A reduction of asked[0] over asked[1], to be known from now on; returns y."""
    x = asked[0]
    _, axes = dims_and_axes(op, x, asked[1])
    if axes is not None:
        rest = (kind, x.shape, axes, divisor)
        known = _known[op]
        known.remember(asked, y, _C.reduce_call, rest, record)
        if not getattr(x, "_data", x).flags.c_contiguous:
            again = known.run(*asked)  # as it lies in memory, as from now on
            return y if again is None else again
    return y


def sum(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The sum over `dim` (None: all). Raises ValueError, TypeError for `dim`."""
    y = _run_sum(x, dim, keepdim)
    if y is not None:
        return y
    y = Sum.apply(x, dim, keepdim)
    if is_known_array(x, (INT64, BOOL)):
        axes = reduced_axes(x, reduced_dims("sum", dim, len(x.shape)), (INT64, BOOL))
        if axes is not None:
            rest = (x.shape, axes)
            known = _known["sum"]
            return known.remember((x, dim, keepdim), y, _C.integer_sum_call, rest, (dim, keepdim))
        return y
    return _remember("sum", "sum", (x, dim, keepdim), y, 1.0, (dim, keepdim))


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
    count = _mean_count(x.shape, reduced_dims("mean", dim, x.ndim))
    return _remember("mean", "sum", (x, dim, keepdim), y, count, (dim, keepdim))


def prod(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The product over `dim` (None: all). Raises as `sum`."""
    y = _known["prod"].run(x, dim, keepdim)
    if y is not None:
        return y
    y = Prod.apply(x, dim, keepdim)
    return _remember("prod", "product", (x, dim, keepdim), y, 1.0, (dim, keepdim))


def any(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether some element over `dim` (None: all) is not zero."""
    return Test.apply(x, "any", dim, keepdim)


def all(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether every element over `dim` (None: all) is not zero."""
    return Test.apply(x, "all", dim, keepdim)


def _variance(op: str, x: Any, dim: Any, unbiased: bool, keepdim: bool, correction: Any) -> Any:
    if correction is None:
        correction = float(unbiased)
    y = _known[op].run(x, dim, correction, keepdim)
    if y is not None:
        return y
    function = Std if op == "std" else Var
    y = function.apply(x, dim, correction, keepdim)
    dims, _ = dims_and_axes(op, x, dim)
    divisor = _var_divisor(getattr(x, "shape", ()), dims, correction)
    rest = (dim, correction, keepdim)
    return _remember(op, function.kind, (x, *rest), y, divisor, rest)


def var(
    x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
) -> Any:
    """The variance over `dim`: squares summed, divided by the count less `correction` (1)."""
    return _variance("var", x, dim, unbiased, keepdim, correction)


def std(
    x: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
) -> Any:
    """The square root of `var`, with the gradient 0 where it is 0."""
    return _variance("std", x, dim, unbiased, keepdim, correction)


def norm(x: Any, p: float | str = 2, dim: Any = None, keepdim: bool = False) -> Any:
    """The p-norm over `dim` (None: all) of the elements; "fro" is 2. The gradient at 0 is 0.

    Raises ValueError for `p` and `dim`.
    """
    y = _known["norm"].run(x, dim, p, keepdim)
    if y is not None:
        return y
    power = 2.0 if p == "fro" else p
    if isinstance(power, str) or math.isnan(power):
        raise ValueError(f"norm: p must be a number or 'fro', got p={p!r}")
    y = Norm.apply(x, float(power), dim, keepdim)
    if power not in _NORMS:
        return y
    record = (float(power), dim, keepdim)
    return _remember("norm", _NORMS[power], (x, dim, p, keepdim), y, 1.0, record)


def logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    """log(sum(exp(x))) over `dim` (None: all) without overflow; -Inf of no element. Raises as
    `sum`."""
    y = _known["logsumexp"].run(x, dim, keepdim)
    if y is not None:
        return y
    y = Logsumexp.apply(x, dim, keepdim)
    return _remember("logsumexp", "logsumexp", (x, dim, keepdim), y, 1.0, (dim, keepdim))


def mean_of_squares(x: Any, dims: tuple[int, ...]) -> Any:
    """The mean of x * x over `dims`, which stay as ones."""
    y = _known["squares"].run(x, dims)
    if y is not None:
        return y
    axes = reduced_axes(x, dims)
    if axes is None:
        return mean(x * x, dims, True)
    y = MeanOfSquares.apply(x, dims, axes)
    return _remember("squares", "squares", (x, dims), y, _mean_count(x.shape, dims), (dims, axes))


def cumsum(x: Any, dim: int) -> Any:
    """Running sums along `dim`. Raises as `sum`."""
    known = _known["cumsum"]
    y = known.run(x, dim)
    if y is not None:
        return y
    y = Cumsum.apply(x, dim)
    dims, axes = dims_and_axes("cumsum", x, dim)
    if axes is not None and (lines := _lines(x, *dims)) is not None:
        known.remember((x, dim), y, _C.cumsum_call, lines, (dim,))
    return y
