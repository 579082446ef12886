"""Softmax along an axis: y = exp(x) / sum exp(x), its logarithm, and relatives."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Function
from ..known import Known
from ..tensor import array_of
from ._arguments import check_rank, normal_axis, real
from .conv import as_operand

__all__ = ["gumbel_softmax", "log_softmax", "softmax", "softmax2d", "softmin"]


class Softmax(Function):
    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(ctx: Any, x: Any, op: str, dim: int, log: bool) -> Any:
        x = arrays.asarray(op, "input", x)
        axis = normal_axis(op, "dim", dim, x.ndim)
        ctx.layout = (*_layout(x.shape, axis), log)
        y = arrays.empty(op, x.shape, x.dtype, like=x)
        _C.softmax(*(*ctx.layout, x, None, y))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        (y,) = ctx.saved
        grad_x = arrays.empty_like("softmax", y)
        _C.softmax(*(*ctx.layout, y, arrays.asarray("softmax", "grad_y", grad_y), grad_x))
        return grad_x, None, None, None


_known = Known(1, Softmax)


def _softmax(op: str, input: Any, dim: int | None, dtype: Any, log: bool) -> Any:
    asked = (input, dim, dtype, log)
    y = _known.run(*asked)
    if y is not None:
        return y
    axis = _axis(op, input, dim)
    y = Softmax.apply(_cast(input, dtype), op, axis, log)
    if dim is None:  # says so every time
        return y
    rest = (*_layout(y.shape, axis % max(y.ndim, 1)), log)
    return _known.remember(asked, y, _C.softmax_call, rest, (op, axis, log))


def _layout(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Lines along the axis: (before it, its extent, after it)."""
    shape = shape or (1,)
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def _axis(op: str, x: Any, dim: int | None) -> int:
    if dim is not None:
        return dim
    warnings.warn(f"{op}: dim should be given; a guess is made without it", stacklevel=4)
    return 0 if x.ndim in (0, 1, 3) else 1


def softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """exp(x) / sum of exp(x) along dim, without overflow.

    input: float32 or float64 of any shape; dtype converts it first. Raises TypeError for other
    dtypes, ValueError for a dim outside the array.
    """
    return _softmax("softmax", input, dim, dtype, False)


def log_softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """log(softmax(x)) without overflow; arguments as `softmax`."""
    return _softmax("log_softmax", input, dim, dtype, True)


def softmin(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """softmax(-x); arguments as `softmax`."""
    op = "softmin"
    x = as_operand(op, "input", _cast(input, dtype))
    return Softmax.apply(-x, op, _axis(op, x, dim), False)


def softmax2d(input: Any) -> Any:
    """softmax over the channels of [N, C, H, W] or [C, H, W]."""
    check_rank("softmax2d", "input", input, (3, 4))
    return softmax(input, -3)


def gumbel_softmax(
    logits: Any, tau: float = 1.0, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Any:
    """A sample from the Gumbel-softmax distribution (Jang et al. 2017).

    hard: the sample is one-hot, its gradient that of the soft sample.
    """
    from ..random import generator

    tau = real("gumbel_softmax", "tau", tau)
    if tau <= 0:
        raise ValueError(f"gumbel_softmax: tau must be positive, got tau={tau}")
    array = array_of(logits)
    # -log(E) of exponential draws, which NumPy makes in a third of the time of Gumbel's
    draws = generator().standard_exponential(array.shape).astype(array.dtype)
    noise = np.asarray(-np.log(np.maximum(draws, np.finfo(array.dtype).tiny)))
    noise = arrays.to_device("gumbel_softmax", noise, arrays.device_of(array))
    soft = softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    values = array_of(soft)
    one_hot = np.zeros_like(values)
    np.put_along_axis(one_hot, np.expand_dims(values.argmax(dim), dim), 1, dim)
    return soft + (one_hot - values)


def _cast(input: Any, dtype: Any) -> Any:
    if dtype is None:
        return input
    return input.to(dtype) if hasattr(input, "to") else input.astype(dtype)
