"""Element-wise losses, with the gradient for input.

input and target have one shape; `reduction` is 'none', 'mean' or 'sum'. A mean with weight is
sum(w l) / sum(w) for mse and l1, but sum(w l) / count for huber and binary cross entropy.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, real, reduce_loss
from .activation import logsigmoid, sigmoid

MaybeArray = ArrayLike | None


def _weighted(loss: Array, weight: MaybeArray, reduction: str) -> Array:
    if weight is None:
        return reduce_loss(loss, reduction)
    weight = np.broadcast_to(real(weight), loss.shape)
    if reduction == "mean":
        return (weight * loss).sum() / weight.sum()
    return reduce_loss(weight * loss, reduction)


def _weighted_backward(grad: ArrayLike, slope: Array, weight: MaybeArray, reduction: str) -> Array:
    w = np.broadcast_to(1.0 if weight is None else real(weight), slope.shape)
    return real(grad) * w * slope / (w.sum() if reduction == "mean" else 1.0)


def spread_gradient(grad: ArrayLike, slope: Array, reduction: str) -> Array:
    """Gradient of the reduced loss times the loss's slope per element."""
    return real(grad) * slope / (slope.size if reduction == "mean" else 1.0)


def mse_loss(
    input: ArrayLike, target: ArrayLike, reduction: str = "mean", weight: MaybeArray = None
) -> Array:
    """(input - target)^2."""
    return _weighted((real(input) - real(target)) ** 2, weight, reduction)


def mse_loss_backward(
    grad: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    weight: MaybeArray = None,
) -> Array:
    """2 (input - target)."""
    return _weighted_backward(grad, 2 * (real(input) - real(target)), weight, reduction)


def l1_loss(
    input: ArrayLike, target: ArrayLike, reduction: str = "mean", weight: MaybeArray = None
) -> Array:
    """|input - target|."""
    return _weighted(np.abs(real(input) - real(target)), weight, reduction)


def l1_loss_backward(
    grad: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    weight: MaybeArray = None,
) -> Array:
    """sign(input - target), 0 at 0."""
    return _weighted_backward(grad, np.sign(real(input) - real(target)), weight, reduction)


def huber_loss(
    input: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: MaybeArray = None,
) -> Array:
    """d^2 / 2 where |d| <= delta, otherwise delta (|d| - delta / 2) (Huber 1964)."""
    d = np.abs(real(input) - real(target))
    loss = np.where(d <= delta, 0.5 * d * d, delta * (d - 0.5 * delta))
    return reduce_loss(loss if weight is None else real(weight) * loss, reduction)


def huber_loss_backward(
    grad: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: MaybeArray = None,
) -> Array:
    """d clamped to [-delta, delta]."""
    slope = np.clip(real(input) - real(target), -delta, delta)
    return spread_gradient(grad, slope if weight is None else real(weight) * slope, reduction)


def smooth_l1_loss(
    input: ArrayLike, target: ArrayLike, reduction: str = "mean", beta: float = 1.0
) -> Array:
    """huber_loss(delta = beta) / beta; |d| for beta = 0 (Girshick 2015)."""
    if beta == 0:
        return l1_loss(input, target, reduction)
    return huber_loss(input, target, reduction, beta) / beta


def smooth_l1_loss_backward(
    grad: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Array:
    """d / beta clamped to [-1, 1]."""
    if beta == 0:
        return l1_loss_backward(grad, input, target, reduction)
    return huber_loss_backward(grad, input, target, reduction, beta) / beta


def binary_cross_entropy(
    input: ArrayLike, target: ArrayLike, weight: MaybeArray = None, reduction: str = "mean"
) -> Array:
    """-w (t log p + (1 - t) log(1 - p)), the logarithms not below -100."""
    p, t = real(input), real(target)
    with np.errstate(divide="ignore"):
        log_p, log_q = np.maximum(np.log(p), -100), np.maximum(np.log1p(-p), -100)
    loss = -(t * log_p + (1 - t) * log_q)
    return reduce_loss(loss if weight is None else real(weight) * loss, reduction)


def binary_cross_entropy_backward(
    grad: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    weight: MaybeArray = None,
    reduction: str = "mean",
) -> Array:
    """w (p - t) / max(p (1 - p), 1e-12)."""
    p = real(input)
    slope = (p - real(target)) / np.maximum(p * (1 - p), 1e-12)
    return spread_gradient(grad, slope if weight is None else real(weight) * slope, reduction)


def binary_cross_entropy_with_logits(
    input: ArrayLike,
    target: ArrayLike,
    weight: MaybeArray = None,
    reduction: str = "mean",
    pos_weight: MaybeArray = None,
) -> Array:
    """-w (pos_weight t log sigmoid(x) + (1 - t) log sigmoid(-x))."""
    x, t = real(input), real(target)
    positive = t if pos_weight is None else real(pos_weight) * t
    loss = -(positive * logsigmoid(x) + (1 - t) * logsigmoid(-x))
    return reduce_loss(loss if weight is None else real(weight) * loss, reduction)


def binary_cross_entropy_with_logits_backward(
    grad: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    weight: MaybeArray = None,
    reduction: str = "mean",
    pos_weight: MaybeArray = None,
) -> Array:
    """w ((1 - t) sigmoid(x) - pos_weight t sigmoid(-x))."""
    x, t = real(input), real(target)
    positive = t if pos_weight is None else real(pos_weight) * t
    slope = (1 - t) * sigmoid(x) - positive * sigmoid(-x)
    return spread_gradient(grad, slope if weight is None else real(weight) * slope, reduction)


def kl_div(
    input: ArrayLike, target: ArrayLike, reduction: str = "mean", log_target: bool = False
) -> Array:
    """t (log t - input), input a log-probability; 'batchmean' divides the sum by len(input)."""
    x, t = real(input), real(target)
    if log_target:
        loss = np.exp(t) * (t - x)
    else:
        loss = t * (np.log(np.where(t > 0, t, 1.0)) - x)
    if reduction == "batchmean":
        return loss.sum() / len(x)
    return reduce_loss(loss, reduction)


def kl_div_backward(
    grad: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    log_target: bool = False,
) -> Array:
    """Gradient for input: -t."""
    slope = -np.exp(real(target)) if log_target else -real(target)
    if reduction == "batchmean":
        return real(grad) * slope / len(slope)
    return spread_gradient(grad, slope, reduction)


def poisson_nll_loss(
    input: ArrayLike,
    target: ArrayLike,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Array:
    """exp(x) - t x, or x - t log(x + eps); full adds Stirling's t log t - t + log(2 pi t) / 2."""
    x, t = real(input), real(target)
    loss = np.exp(x) - t * x if log_input else x - t * np.log(x + eps)
    if full:
        big = np.where(t > 1, t, 2.0)
        stirling = big * np.log(big) - big + 0.5 * np.log(2 * math.pi * big)
        loss = loss + np.where(t > 1, stirling, 0.0)
    return reduce_loss(loss, reduction)


def gaussian_nll_loss(
    input: ArrayLike,
    target: ArrayLike,
    var: ArrayLike,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Array:
    """(log v + (x - t)^2 / v) / 2 with v = max(var, eps); full adds log(2 pi) / 2.

    var is a number, has the shape of input, or lacks its last axis (or has 1 there).
    """
    x, t, v = real(input), real(target), real(var)
    if v.ndim == x.ndim - 1 and v.ndim > 0 and v.shape == x.shape[:-1]:
        v = v[..., None]
    v = np.maximum(v, eps)
    loss = 0.5 * (np.log(v) + (x - t) ** 2 / v) + (0.5 * math.log(2 * math.pi) if full else 0.0)
    return reduce_loss(loss, reduction)


def soft_margin_loss(input: ArrayLike, target: ArrayLike, reduction: str = "mean") -> Array:
    """log(1 + exp(-t x)), t = 1 or -1."""
    return reduce_loss(-logsigmoid(real(target) * real(input)), reduction)


def soft_margin_loss_backward(
    grad: ArrayLike, input: ArrayLike, target: ArrayLike, reduction: str = "mean"
) -> Array:
    """-t sigmoid(-t x)."""
    t = real(target)
    return spread_gradient(grad, -t * sigmoid(-t * real(input)), reduction)


def hinge_embedding_loss(
    input: ArrayLike, target: ArrayLike, margin: float = 1.0, reduction: str = "mean"
) -> Array:
    """x where t = 1, max(0, margin - x) where t = -1."""
    x, t = real(input), real(target)
    loss = np.where(t != -1, x, 0.0) + np.where(t != 1, np.maximum(margin - x, 0), 0.0)
    return reduce_loss(loss, reduction)


def margin_ranking_loss(
    input1: ArrayLike,
    input2: ArrayLike,
    target: ArrayLike,
    margin: float = 0.0,
    reduction: str = "mean",
) -> Array:
    """max(0, -t (x1 - x2) + margin)."""
    loss = -real(target) * (real(input1) - real(input2)) + margin
    return reduce_loss(np.maximum(loss, 0), reduction)
