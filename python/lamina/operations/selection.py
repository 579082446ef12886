"""Elements chosen by a condition or limited to a range.

The gradient of clamp is 1 on its bounds and 0 at NaN, as torch's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _C
from ..arrays import FLOATS, is_ready, module_of
from ..autograd import Context, Function
from ..known import Known
from ._common import (
    BOOL,
    are_alike,
    as_array,
    common_dtype,
    is_known_array,
    promote,
    shapes_of,
    unbroadcast,
)


class Where(Function):
    @staticmethod
    def forward(ctx: Context, condition: Any, a: Any, b: Any) -> Any:
        condition = as_array("where", condition)
        if condition.dtype != bool:
            raise TypeError(
                f"where: condition must be boolean, got condition.dtype={condition.dtype}; "
                "compare it, as in condition != 0"
            )
        equal = is_ready(a) and is_ready(b) and a.dtype == b.dtype and a.shape == b.shape
        if equal and type(condition) is np.ndarray and condition.shape == a.shape:
            ctx.shapes = (a.shape, b.shape)
            ctx.save_for_backward(condition)
            return np.where(condition, a, b)
        dtype = common_dtype("where", {"a": a, "b": b})
        condition, a, b = promote("where", condition=condition, a=a, b=b)
        condition = condition.astype(bool)
        ctx.shapes = (a.shape, b.shape)
        ctx.save_for_backward(condition)
        return module_of(condition).where(condition, a.astype(dtype), b.astype(dtype))

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        (condition,) = ctx.saved
        _, need_a, need_b = ctx.needs_input_grad
        xp = module_of(grad_y)
        zero = grad_y.dtype.type(0)
        grad_a = unbroadcast(xp.where(condition, grad_y, zero), ctx.shapes[0]) if need_a else None
        grad_b = unbroadcast(xp.where(condition, zero, grad_y), ctx.shapes[1]) if need_b else None
        return None, grad_a, grad_b


class Clamp(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, low: Any, high: Any) -> Any:
        named = {"x": x, "min": low, "max": high}
        given = {name: value for name, value in named.items() if value is not None}
        if len(given) == 1:
            raise ValueError("clamp: min or max must be given, got min=None, max=None")
        arrays = dict(zip(given, promote("clamp", **given), strict=True))
        xp = module_of(arrays["x"])
        y = arrays["x"]
        if low is not None:
            y = xp.maximum(y, arrays["min"])
        if high is not None:
            y = xp.minimum(y, arrays["max"])
        ctx.save_for_backward(arrays["x"], arrays.get("min"), arrays.get("max"))
        return y

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        x, low, high = ctx.saved
        xp, zero = module_of(grad_y), grad_y.dtype.type(0)
        below = False if low is None else x < low
        above = False if high is None else x > high
        crossed = False if low is None or high is None else high < low
        masks = (
            np.logical_and(True if low is None else x >= low, True if high is None else x <= high),
            np.logical_and(below, np.logical_not(crossed)),
            np.logical_or(above, crossed),
        )
        return tuple(
            unbroadcast(xp.where(mask, grad_y, zero), array.shape) if need else None
            for need, mask, array in zip(ctx.needs_input_grad, masks, ctx.saved, strict=True)
        )


_known_choices = Known(3, Where, True, "copied")
_known_limits = Known(3, Clamp, True, "copied")
_run_where, _run_clamp = _known_choices.run, _known_limits.run


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the boolean condition holds, else b, all broadcast. Raises as `add`."""
    y = _run_where(condition, a, b)
    if y is not None:
        return y
    y = Where.apply(condition, a, b)
    if is_known_array(condition, (BOOL,)) and are_alike((a, b), (y.dtype,)):
        asked = (condition, a, b)
        _known_choices.remember(asked, y, _C.where_call, tuple(shapes_of(*asked)), ())
    return y


def clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    """x limited to [min, max], numbers or broadcast tensors; NaN stays. Raises ValueError for
    no bound."""
    y = _run_clamp(x, min, max)
    if y is not None:
        return y
    y = Clamp.apply(x, min, max)
    if is_known_array(x, FLOATS) and all(
        limit is None or type(limit) in (float, int) for limit in (min, max)
    ):
        _known_limits.remember((x, min, max), y, _C.clamp_call, (), ())
    return y


def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    """x with `value` where the boolean mask holds."""
    return where(mask, value, x)
