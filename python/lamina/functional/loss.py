"""The losses that are plain arithmetic, written with Tensor operations.

Each has torch's formula, which its docstring states for one element; `reduction` is then "none",
"mean" or "sum". x is the input, t the target. Of NumPy arrays of one shape most are one kernel, the
reduction with it (`pointwise`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Function, no_grad
from ..creation import full_like
from ..known import Known
from ..operations import where
from ..operations._common import are_alike
from ..tensor import Tensor
from ._arguments import flag, one_of, real
from .activation import logsigmoid
from .distance import on_tensors, operands

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "gaussian_nll_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
]


def reduction_mode(op: str, reduction: str, size_average: Any = None, reduce: Any = None) -> str:
    if size_average is not None or reduce is not None:
        averaged = "mean" if size_average in (None, True) else "sum"
        reduction = averaged if reduce in (None, True) else "none"
    one_of(op, "reduction", reduction, ("none", "mean", "sum"))
    return reduction


def reduced(
    op: str,
    loss: Any,
    reduction: str,
    size_average: Any = None,
    reduce: Any = None,
    weight_sum: Any = None,
) -> Any:
    """The loss reduced; size_average and reduce are torch's older spelling of `reduction`."""
    reduction = reduction_mode(op, reduction, size_average, reduce)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.mean() if weight_sum is None else loss.sum() / weight_sum


def check_same_shape(op: str, **named: Any) -> None:
    present = {name: x for name, x in named.items() if x is not None}
    if len({x.shape for x in present.values()}) > 1:
        got = ", ".join(f"{name}.shape={x.shape}" for name, x in present.items())
        raise ValueError(f"{op}: shapes must be equal, got {got}; reshape one")


class PointwiseLoss(Function):
    """A loss of csrc/ops/loss.h, reduced, of NumPy arrays."""

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(ctx: Any, x: Any, t: Any, kind: str, a: float, b: float, reduction: str) -> Any:
        x, t = arrays.asarray("loss", "input", x), arrays.asarray("loss", "target", t)
        ctx.options = (kind, a, b, reduction)
        ctx.save_for_backward(x, t)
        loss = arrays.empty("loss", x.shape if reduction == "none" else (), x.dtype)
        _C.loss(*(*ctx.options, x, t, None, False, loss))
        return loss

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        x, t = ctx.saved
        grad_y = arrays.asarray("loss", "grad_y", grad_y)
        grads: list[Any] = [None] * 6
        for operand in (0, 1):
            if ctx.needs_input_grad[operand]:
                grads[operand] = arrays.empty_like("loss", x)
                _C.loss(*(*ctx.options, x, t, grad_y, operand == 1, grads[operand]))
        return tuple(grads)


known = Known(2, PointwiseLoss)


def pointwise(
    asked: tuple[Any, ...],
    kind: str,
    formula: Callable[[Any, Any], Any],
    x: Any,
    t: Any,
    mode: str,
    a: float = 0.0,
    b: float = 0.0,
    weight: Any = None,
    weight_sum: Any = None,
) -> Any:
    """The loss of Tensors times `weight`, reduced: by the kernel of `kind`, or else by `formula`.

    asked: what `known` was asked before.
    """
    if x.shape != t.shape or not are_alike((x, t), arrays.FLOATS):
        loss = formula(x, t)
    elif weight is None:
        record = (kind, a, b, mode)
        loss = PointwiseLoss.apply(x, t, *record)
        return known.remember(asked, loss, _C.loss_call, (*record, math.prod(x.shape)), record)
    else:
        loss = PointwiseLoss.apply(x, t, kind, a, b, "none")
    loss = loss if weight is None else loss * weight
    return reduced(kind, loss, mode, weight_sum=weight_sum)


class _BinaryCrossEntropy(Function):
    """-t log(x) - (1 - t) log(1 - x) with logarithms of at least -100 and a finite gradient."""

    @staticmethod
    def forward(ctx: Any, x: Any, t: Any) -> Any:
        log_x, log_rest = np.maximum(np.log(x), -100), np.maximum(np.log1p(-x), -100)
        ctx.save_for_backward(x, t, log_rest - log_x)
        return (t - 1) * log_rest - t * log_x

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        x, t, slope = ctx.saved
        return grad_y * (x - t) / np.maximum(x * (1 - x), 1e-12), grad_y * slope


@on_tensors
def l1_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    """|x - t|, times `weight`; the weighted mean divides by the sum of the weights.

    Raises ValueError for shapes that do not broadcast, TypeError for dtypes; warns where those of
    x and t differ.
    """
    asked = (input, target, "l1_loss", weight, reduction, size_average, reduce)
    return _weighted(asked, "absolute", Tensor.abs)


@on_tensors
def mse_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    """(x - t)**2, times `weight`; the weighted mean divides by the sum of the weights.

    Raises as `l1_loss`.
    """
    asked = (input, target, "mse_loss", weight, reduction, size_average, reduce)
    return _weighted(asked, "squared", Tensor.square)


def _pair(op: str, input: Any, target: Any, weight: Any = None, stacklevel: int = 4) -> list[Any]:
    """`operands`, with torch's warning for [N] beside [N, 1], which would become [N, N]."""
    x, t, w = operands(op, input=input, target=target, weight=weight)
    if x.shape != t.shape:
        warnings.warn(
            f"{op}: target should have the shape of input, got input.shape={x.shape}, "
            f"target.shape={t.shape}, which are broadcast; reshape one",
            stacklevel=stacklevel,
        )
    return [x, t, w]


def _weighted(asked: tuple[Any, ...], kind: str, of_difference: Callable[[Any], Any]) -> Any:
    if (loss := known.run(*asked)) is not None:
        return loss
    input, target, op, weight, *reduction = asked
    x, t, w = _pair(op, input, target, weight, stacklevel=5)
    share = None
    if w is not None:
        check_same_shape(op, input=x, weight=w)
        share = w.sum()
    mode = reduction_mode(op, *reduction)
    formula = lambda x, t: of_difference(x - t)  # noqa: E731
    return pointwise(asked, kind, formula, x, t, mode, weight=w, weight_sum=share)


@on_tensors
def smooth_l1_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Any:
    """With d = |x - t|: d**2 / (2 beta) below beta, else d - beta / 2. Raises as `l1_loss`."""
    op = "smooth_l1_loss"
    asked = (input, target, op, size_average, reduce, reduction, beta)
    if (loss := known.run(*asked)) is not None:
        return loss
    edge = real(op, "beta", beta)
    if not edge >= 0:
        raise ValueError(f"{op}: beta must be at least 0, got beta={beta}")
    x, t, _ = _pair(op, input, target)
    kind, half = ("smooth_l1", 0.5 / edge) if edge else ("absolute", 0.0)

    def formula(x: Any, t: Any) -> Any:
        d = (x - t).abs()
        return where(d < edge, d * d * half, d - 0.5 * edge) if edge else d

    mode = reduction_mode(op, reduction, size_average, reduce)
    return pointwise(asked, kind, formula, x, t, mode, edge, half)


@on_tensors
def huber_loss(
    input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None
) -> Any:
    """With d = |x - t|: d**2 / 2 below delta, else delta (d - delta / 2). Raises as `l1_loss`."""
    op = "huber_loss"
    asked = (input, target, op, reduction, delta, weight)
    if (loss := known.run(*asked)) is not None:
        return loss
    edge = real(op, "delta", delta)
    if not edge > 0:
        raise ValueError(f"{op}: delta must be above 0, got delta={delta}")
    x, t, w = _pair(op, input, target, weight)

    def formula(x: Any, t: Any) -> Any:
        d = (x - t).abs()
        return where(d < edge, 0.5 * d * d, edge * (d - 0.5 * edge))

    if w is not None:
        check_same_shape(op, input=x, weight=w)
    mode = reduction_mode(op, reduction)
    return pointwise(asked, "huber", formula, x, t, mode, edge, weight=w)


@on_tensors
def kl_div(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Any:
    """t (log t - x) with x a log-probability; 0 where t is 0. "batchmean" divides by x.shape[0].

    Raises as `l1_loss`.
    """
    op = "kl_div"
    x, t = operands(op, input=input, target=target)
    if flag(op, "log_target", log_target):
        loss = t.exp() * (t - x)
    else:
        loss = t * where(t == 0, 1.0, t).log() - t * x
    if reduction == "batchmean" and size_average is None and reduce is None:
        return loss.sum() / (x.shape[0] if x.ndim else 1)
    return reduced(op, loss, reduction, size_average, reduce)


@on_tensors
def binary_cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """-t log(x) - (1 - t) log(1 - x), logarithms of at least -100, times `weight` (broadcast).

    Raises ValueError for different shapes or x outside of [0, 1], TypeError for dtypes.
    """
    op = "binary_cross_entropy"
    asked = (input, target, op, weight, size_average, reduce, reduction)
    if (loss := known.run(*asked)) is not None:
        return loss
    x, t, w = operands(op, input=input, target=target, weight=weight)
    check_same_shape(op, input=x, target=t)
    outside = x.data[(x.data < 0) | (x.data > 1)]
    if outside.size:
        raise ValueError(
            f"{op}: input must be probabilities from 0 to 1, got {outside.reshape(-1)[0]}; use "
            "binary_cross_entropy_with_logits"
        )
    mode = reduction_mode(op, reduction, size_average, reduce)
    return pointwise(asked, "probability", _BinaryCrossEntropy.apply, x, t, mode, weight=w)


@on_tensors
def binary_cross_entropy_with_logits(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Any:
    """`binary_cross_entropy` of sigmoid(x), exact for any x; t log(x) is times `pos_weight`.

    Raises ValueError for different shapes, TypeError for dtypes.
    """
    op = "binary_cross_entropy_with_logits"
    asked = (input, target, op, weight, size_average, reduce, reduction, pos_weight)
    if (loss := known.run(*asked)) is not None:
        return loss
    x, t, w, positive = operands(
        op, input=input, target=target, weight=weight, pos_weight=pos_weight
    )
    check_same_shape(op, input=x, target=t)

    def formula(x: Any, t: Any) -> Any:
        scale = 1.0 if positive is None else (positive - 1.0) * t + 1.0
        return (1.0 - t) * x - scale * logsigmoid(x)

    mode = reduction_mode(op, reduction, size_average, reduce)
    if positive is None:
        return pointwise(asked, "logits", formula, x, t, mode, weight=w)
    loss = formula(x, t)
    return reduced(op, loss if w is None else loss * w, mode)


@on_tensors
def poisson_nll_loss(
    input: Any,
    target: Any,
    log_input: bool = True,
    full: bool = False,
    size_average: Any = None,
    eps: float = 1e-8,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """exp(x) - t x, or x - t log(x + eps) without `log_input`; `full` adds Stirling's log(t!).

    Raises as `l1_loss`.
    """
    op = "poisson_nll_loss"
    x, t = operands(op, input=input, target=target)
    least = real(op, "eps", eps)
    loss = x.exp() - t * x if flag(op, "log_input", log_input) else x - t * (x + least).log()
    if flag(op, "full", full):
        safe = where(t > 1, t, 1.0)
        stirling = safe * safe.log() - safe + 0.5 * (2 * math.pi * safe).log()
        loss = loss + where(t > 1, stirling, 0.0)
    return reduced(op, loss, reduction, size_average, reduce)


@on_tensors
def gaussian_nll_loss(
    input: Any,
    target: Any,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Any:
    """(log v + (x - t)**2 / v) / 2 with v = max(var, eps); `full` adds log(2 pi) / 2.

    var: a number, [...] of x's shape, or without (or with 1 as) its last dimension.
    Raises ValueError for shapes and for a negative `var`, TypeError for dtypes.
    """
    op = "gaussian_nll_loss"
    least = real(op, "eps", eps)
    x, t = operands(op, input=input, target=target)
    if not least > 0:
        raise ValueError(f"{op}: eps must be above 0, got eps={eps}")
    v = full_like(x, real(op, "var", var)) if np.isscalar(var) else operands(op, var=var)[0]
    if x.ndim and v.shape == x.shape[:-1] and v.shape != x.shape:
        v = v.reshape(*v.shape, 1)
    x, t, v = operands(op, input=x, target=t, var=v)
    if (v.data < 0).any():
        raise ValueError(f"{op}: var must not be negative, got {v.data.min()}")
    with no_grad():
        lift = v.clamp(min=least) - v
    v = v + lift.detach()  # the gradient passes the limit, as in torch
    loss = 0.5 * (v.log() + (x - t).square() / v)
    if flag(op, "full", full):
        loss = loss + 0.5 * math.log(2 * math.pi)
    return reduced(op, loss, reduction)
