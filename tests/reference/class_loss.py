"""Losses over classes: input [N, C, ...] or [C], targets class indices unless said otherwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import Array, real, reduce_loss
from .activation import logsigmoid
from .dim_activation import log_softmax, log_softmax_backward

MaybeArray = ArrayLike | None


def _picked(
    target: ArrayLike, channels: int, weight: MaybeArray, ignore_index: int
) -> tuple[NDArray[np.int64], Array]:
    """The class of every position (0 where ignored) and its weight (0 where ignored)."""
    t = np.asarray(target)
    kept = t != ignore_index
    t = np.where(kept, t, 0)
    w = np.ones(channels) if weight is None else real(weight)
    return t, np.where(kept, w[t], 0.0)


def _class_axis(x: Array) -> int:
    return 1 if x.ndim > 1 else 0


def _reduce_weighted(loss: Array, w: Array, reduction: str) -> Array:
    """The mean divides by the sum of weights: nan where every target is ignored."""
    if reduction == "mean":
        return np.divide(loss.sum(), w.sum()) if w.sum() else np.float64(np.nan)
    return reduce_loss(loss, reduction)


def nll_loss(
    input: ArrayLike,
    target: ArrayLike,
    weight: MaybeArray = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """-weight[t] input[t]; the mean is the weighted mean over targets that are not ignored."""
    x = real(input)
    axis = _class_axis(x)
    t, w = _picked(target, x.shape[axis], weight, ignore_index)
    picked = np.take_along_axis(x, np.expand_dims(t, axis), axis).squeeze(axis)
    return _reduce_weighted(np.where(w == 0, 0.0, -w * picked), w, reduction)


def nll_loss_backward(
    grad: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    weight: MaybeArray = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """-weight[t] at class t."""
    x = real(input)
    axis = _class_axis(x)
    t, w = _picked(target, x.shape[axis], weight, ignore_index)
    slope = -real(grad) * w / (w.sum() if reduction == "mean" else 1.0)
    grad_x = np.zeros_like(x)
    np.put_along_axis(grad_x, np.expand_dims(t, axis), np.expand_dims(slope, axis), axis)
    return grad_x


def _smoothed(input, target, weight, ignore_index, label_smoothing):
    """Per class what multiplies -log p, and the weights whose sum the mean divides by."""
    x = real(input)
    axis, classes = _class_axis(x), x.shape[_class_axis(x)]
    by_class = np.ones(classes) if weight is None else real(weight)
    by_class = by_class.reshape(-1, *(1,) * (x.ndim - axis - 1))
    if np.shape(target) == x.shape:
        t = real(target) * (1 - label_smoothing) + label_smoothing / classes
        count = np.ones(tuple(np.delete(x.shape, axis)))
        return t * by_class, count
    index, w = _picked(target, classes, weight, ignore_index)
    t = np.zeros_like(x)
    np.put_along_axis(t, np.expand_dims(index, axis), 1 - label_smoothing, axis)
    kept = np.expand_dims(np.asarray(target) != ignore_index, axis)
    return (t + label_smoothing / classes) * by_class * kept, w


def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: MaybeArray = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """-sum_c weight[c] t[c] log_softmax(x)[c], t the target's distribution.

    t is one-hot (target: indices) or target itself (of input's shape), then
    (1 - label_smoothing) t + label_smoothing / C (Szegedy et al. 2016). The mean divides by
    sum(weight[target]) for indices, by the count for distributions.
    """
    x = real(input)
    axis = _class_axis(x)
    t, w = _smoothed(x, target, weight, ignore_index, label_smoothing)
    # 0 log 0 is 0: a class of probability zero has no say.
    loss = np.where(t == 0, 0.0, -t * log_softmax(x, axis)).sum(axis)
    return _reduce_weighted(loss, w, reduction)


def cross_entropy_backward(
    grad: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    weight: MaybeArray = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Gradient for input: sum_c(weight t) softmax(x) - weight t."""
    x = real(input)
    axis = _class_axis(x)
    t, w = _smoothed(x, target, weight, ignore_index, label_smoothing)
    g = real(grad) / (w.sum() if reduction == "mean" else 1.0)
    g = np.expand_dims(g, axis) if reduction == "none" else g
    return log_softmax_backward(-g * t, x, axis)


def multi_margin_loss(
    input: ArrayLike,
    target: ArrayLike,
    p: int = 1,
    margin: float = 1.0,
    weight: MaybeArray = None,
    reduction: str = "mean",
) -> Array:
    """sum over i != t of weight[t] max(0, margin - x[t] + x[i])^p / C; p 1 or 2."""
    x, t = np.atleast_2d(real(input)), np.atleast_1d(target)
    rows = np.arange(len(x))
    loss = np.maximum(margin - x[rows, t][:, None] + x, 0) ** p
    loss[rows, t] = 0
    if weight is not None:
        loss = loss * real(weight)[t][:, None]
    loss = loss.sum(1) / x.shape[1]
    return reduce_loss(loss if np.ndim(input) == 2 else loss[0], reduction)


def multilabel_margin_loss(input: ArrayLike, target: ArrayLike, reduction: str = "mean") -> Array:
    """sum over targets j and non-targets i of max(0, 1 - (x[j] - x[i])) / C.

    target [N, C] lists the target classes up to the first -1.
    """
    x, t = np.atleast_2d(real(input)), np.atleast_2d(target)
    loss = np.zeros(len(x))
    for n, (row, classes) in enumerate(zip(x, t, strict=True)):
        ends = np.flatnonzero(classes < 0)
        wanted = classes[: ends[0]] if len(ends) else classes
        others = np.delete(row, np.unique(wanted))
        loss[n] = np.maximum(1 - (row[wanted][:, None] - others), 0).sum() / len(row)
    return reduce_loss(loss if np.ndim(input) == 2 else loss[0], reduction)


def multilabel_soft_margin_loss(
    input: ArrayLike, target: ArrayLike, weight: MaybeArray = None, reduction: str = "mean"
) -> Array:
    """Mean over classes of -w (t log sigmoid(x) + (1 - t) log sigmoid(-x))."""
    x, t = real(input), real(target)
    loss = -(t * logsigmoid(x) + (1 - t) * logsigmoid(-x))
    loss = loss if weight is None else real(weight) * loss
    return reduce_loss(loss.mean(-1), reduction)


def one_hot(tensor: ArrayLike, num_classes: int = -1) -> NDArray[np.int64]:
    """int64 [..., num_classes] with 1 at the class; -1 takes max + 1 classes."""
    t = np.asarray(tensor)
    classes = int(t.max()) + 1 if num_classes == -1 else num_classes
    return (t[..., None] == np.arange(classes)).astype(np.int64)
