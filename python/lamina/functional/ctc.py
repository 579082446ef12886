"""Connectionist temporal classification: the loss of a label sequence without an alignment.

    loss = -log of the sum, over all paths that collapse to the target, of prod over t p[t, path[t]]

Source: Graves et al. 2006, section 4.1. A path collapses by merging repeats and dropping blanks;
the forward and backward variables run over the target with blanks between, before and after, in
logarithms and in float64 (csrc/ops/ctc.h).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Function
from ..operations import where
from ..tensor import Tensor, array_of
from ._arguments import flag, integer, one_of
from .distance import on_tensors, operands

__all__ = ["ctc_loss"]


class _Ctc(Function):
    """The losses [N] of log_probs [T, N, C]; labels: of all sequences, which end at `ends`."""

    gradients_are_new = True

    @staticmethod
    def forward(ctx: Any, log_probs: Any, labels: Any, ends: Any, lengths: Any, blank: int) -> Any:
        dtype = log_probs.dtype
        log_p = log_probs.astype(arrays.arithmetic_dtype(log_probs), copy=False)
        log_p = arrays.asarray("ctc_loss", "log_probs", log_p)
        losses = arrays.empty("ctc_loss", lengths.shape, log_p.dtype)
        ctx.given = (labels, ends, lengths, log_p.shape[-1], blank)
        _C.ctc(*(log_p, *ctx.given, None, losses))
        ctx.save_for_backward(log_p)
        return losses.astype(dtype, copy=False)

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        (log_p,) = ctx.saved
        grad_y = arrays.asarray("ctc_loss", "grad_y", grad_y.astype(log_p.dtype, copy=False))
        gradient = arrays.empty_like("ctc_loss", log_p)
        _C.ctc(*(log_p, *ctx.given, grad_y, gradient))
        return gradient, None, None, None, None


def _lengths(op: str, name: str, value: Any, count: int, limit: int) -> Any:
    array = value.data if isinstance(value, Tensor) else np.asarray(value)
    array = arrays.asindices(op, name, array).reshape(-1)
    if array.shape != (count,):
        raise ValueError(f"{op}: {name} must hold {count} lengths, got {array.size}")
    if count and not (array.min() >= 0 and array.max() <= limit):
        raise ValueError(
            f"{op}: {name} must be from 0 to {limit}, got values from {array.min()} to "
            f"{array.max()}"
        )
    return array


@on_tensors
def ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Any:
    """-log p(target), infinite for a target that does not fit; 0 then with `zero_infinity`.

    log_probs: [T, N, C] or [T, C]; targets: integers [N, S], or all joined [sum of lengths];
    lengths: N integers. "mean" divides each loss by its target's length (at least 1) first.
    The gradient is that of log_probs themselves; torch's assumes that they come out of a
    log_softmax, behind which both are equal.

    Raises ValueError for shapes, lengths and labels, TypeError for dtypes.
    """
    op = "ctc_loss"
    one_of(op, "reduction", reduction, ("none", "mean", "sum"))
    (x,) = operands(op, log_probs=log_probs)
    if x.ndim not in (2, 3):
        raise ValueError(
            f"{op}: log_probs must be [T, N, C] or [T, C], got log_probs.shape={x.shape}"
        )
    single = x.ndim == 2
    x = x.unsqueeze(1) if single else x
    steps, count, classes = x.shape
    empty = integer(op, "blank", blank, 0)
    if empty >= classes:
        raise ValueError(f"{op}: blank must be below {classes} classes, got blank={blank}")
    labels = array_of(targets)
    labels = arrays.asindices(op, "targets", labels)
    inputs = _lengths(op, "input_lengths", input_lengths, count, steps)
    limit = labels.shape[-1] if labels.ndim else 0
    sizes = _lengths(op, "target_lengths", target_lengths, count, limit)
    ends = np.cumsum(sizes)
    if labels.ndim == 2 and len(labels) == count:
        joined = labels[np.arange(limit) < sizes[:, None]]
    elif labels.ndim == 1 and (labels.size == sizes.sum() or single):
        joined = labels[: sizes.sum()]
    else:
        raise ValueError(
            f"{op}: targets must be [{count}, S] or [{sizes.sum()}], the sum of target_lengths, "
            f"got targets.shape={labels.shape}"
        )
    wrong = (joined < 0) | (joined >= classes) | (joined == empty)
    if wrong.any():
        row = np.searchsorted(ends, wrong.argmax(), "right")
        raise ValueError(
            f"{op}: targets must be from 0 to {classes - 1} without blank={empty}, got "
            f"{joined[ends[row] - sizes[row] : ends[row]].tolist()}"
        )
    # Copies: nobody writes to what was checked.
    loss = _Ctc.apply(x, joined.copy(), ends, inputs.copy(), empty)
    if flag(op, "zero_infinity", zero_infinity):
        loss = where(loss == np.inf, 0.0, loss)
    if reduction == "mean":
        return (loss / np.maximum(sizes, 1).astype(loss.dtype)).mean()
    return loss.sum() if reduction == "sum" else loss[0] if single else loss
