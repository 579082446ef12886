"""Connectionist temporal classification: the loss of a label sequence without an alignment.

    loss = -log of the sum, over all paths that collapse to the target, of prod over t p[t, path[t]]

Source: Graves et al. 2006, section 4.1. A path collapses by merging repeats and dropping blanks;
the forward and backward variables run over the target with blanks between, before and after, in
logarithms and in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import arrays
from ..autograd import Function
from ..operations import where
from ..tensor import Tensor, array_of
from ._arguments import flag, integer, one_of
from .distance import on_tensors, operands

__all__ = ["ctc_loss"]


def _shifted(x: np.ndarray, by: int) -> np.ndarray:
    """x moved by `by` places, with log 0 moving in."""
    result = np.full_like(x, -np.inf)
    if by > 0:
        result[by:] = x[:-by]
    else:
        result[:by] = x[-by:]
    return result


def _one_sequence(log_p: np.ndarray, target: np.ndarray, blank: int) -> tuple[Any, np.ndarray]:
    """The loss of log_p [T, C], and its gradient [T, C]."""
    steps, states = len(log_p), 2 * len(target) + 1
    labels = np.full(states, blank)
    labels[1::2] = target
    # A state may skip the blank before it unless that would merge two equal labels.
    skips = np.zeros(states, bool)
    skips[3::2] = target[1:] != target[:-1]
    log_skips = np.where(skips, 0.0, -np.inf)
    emitted = log_p[:, labels]  # [T, states]

    if not steps:
        return (np.inf if len(target) else 0.0), np.zeros(log_p.shape)
    alpha = np.full((steps, states), -np.inf)  # log p(prefix up to t ends in the state)
    alpha[0, :2] = emitted[0, :2]
    for t in range(1, steps):
        before = alpha[t - 1]
        step = np.logaddexp(before, _shifted(before, 1))
        alpha[t] = np.logaddexp(step, _shifted(before, 2) + log_skips) + emitted[t]
    beta = np.full((steps, states), -np.inf)  # log p(the rest after t | state)
    beta[-1, -2:] = 0
    for t in range(steps - 2, -1, -1):
        after = beta[t + 1] + emitted[t + 1]
        step = np.logaddexp(after, _shifted(after, -1))
        beta[t] = np.logaddexp(step, _shifted(after + log_skips, -2))
    loss = -np.logaddexp.reduce(alpha[-1, -2:])
    gradient = np.zeros(log_p.shape)
    posterior = np.exp(alpha + beta + loss)
    for state, label in enumerate(labels):  # a fixed order of the sums
        gradient[:, label] -= posterior[:, state]
    return loss, gradient


class _Ctc(Function):
    """The losses [N] of log_probs [T, N, C]."""

    @staticmethod
    def forward(ctx: Any, log_probs: Any, targets: Any, lengths: Any, blank: int) -> Any:
        wide = log_probs.astype(np.float64)
        losses = np.empty(len(targets))
        gradient = np.zeros(log_probs.shape)
        for n, (target, steps) in enumerate(zip(targets, lengths, strict=True)):
            losses[n], gradient[:steps, n] = _one_sequence(wide[:steps, n], target, blank)
        ctx.save_for_backward(gradient.astype(log_probs.dtype))
        return losses.astype(log_probs.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        # Where no gradient arrives, an impossible target's NaN stays out.
        gradient = np.where(grad_y[:, None] == 0, 0, ctx.saved[0])
        return grad_y[:, None] * gradient, None, None, None


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
    if labels.ndim == 2 and len(labels) == count:
        rows = [row[:size] for row, size in zip(labels, sizes, strict=True)]
    elif labels.ndim == 1 and (labels.size == sizes.sum() or single):
        ends = np.cumsum(sizes)
        rows = [labels[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    else:
        raise ValueError(
            f"{op}: targets must be [{count}, S] or [{sizes.sum()}], the sum of target_lengths, "
            f"got targets.shape={labels.shape}"
        )
    for row in rows:
        if row.size and not (row.min() >= 0 and row.max() < classes and not (row == empty).any()):
            raise ValueError(
                f"{op}: targets must be from 0 to {classes - 1} without blank={empty}, got "
                f"{row.tolist()}"
            )
    loss = _Ctc.apply(x, rows, inputs, empty)
    if flag(op, "zero_infinity", zero_infinity):
        loss = where(loss == np.inf, 0.0, loss)
    if reduction == "mean":
        return (loss / np.maximum(sizes, 1).astype(loss.dtype)).mean()
    return loss.sum() if reduction == "sum" else loss[0] if single else loss
