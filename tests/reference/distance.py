"""Distances and the losses on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, real, reduce_loss


def _norm(d: Array, p: float) -> Array:
    """p-norm over the last axis; p = 0 counts, p = inf takes the maximum."""
    d = np.abs(d)
    if p == 0:
        return (d != 0).sum(-1).astype(np.float64)
    if np.isinf(p):
        return d.max(-1)
    return (d**p).sum(-1) ** (1 / p)


def cosine_similarity(x1: ArrayLike, x2: ArrayLike, dim: int = 1, eps: float = 1e-8) -> Array:
    """x1 x2 / (max(|x1|, eps) max(|x2|, eps)) along dim."""
    x1, x2 = np.broadcast_arrays(real(x1), real(x2))
    n1, n2 = (np.maximum(np.sqrt((x * x).sum(dim)), eps) for x in (x1, x2))
    return (x1 * x2).sum(dim) / (n1 * n2)


def pairwise_distance(
    x1: ArrayLike, x2: ArrayLike, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Array:
    """||x1 - x2 + eps||_p over the last axis."""
    d = _norm(real(x1) - real(x2) + eps, p)
    return d[..., None] if keepdim else d


def pdist(input: ArrayLike, p: float = 2.0) -> Array:
    """||x[i] - x[j]||_p for i < j, row by row: [N (N - 1) / 2]."""
    x = real(input)
    i, j = np.triu_indices(len(x), 1)
    return _norm(x[i] - x[j], p)


def cosine_embedding_loss(
    input1: ArrayLike,
    input2: ArrayLike,
    target: ArrayLike,
    margin: float = 0.0,
    reduction: str = "mean",
) -> Array:
    """1 - cos where t = 1, max(0, cos - margin) where t = -1.

    Here cos = x1 x2 / sqrt((|x1|^2 + e) (|x2|^2 + e)) with e = 1e-12, as in PyTorch.
    """
    x1, x2, t = real(input1), real(input2), np.asarray(target)
    squares = ((x * x).sum(-1) + 1e-12 for x in (x1, x2))
    cos = (x1 * x2).sum(-1) / np.sqrt(np.prod(list(squares), 0))
    loss = np.where(t == 1, 1 - cos, 0.0) + np.where(t == -1, np.maximum(cos - margin, 0), 0.0)
    return reduce_loss(loss, reduction)


def triplet_margin_with_distance_loss(
    anchor: ArrayLike,
    positive: ArrayLike,
    negative: ArrayLike,
    *,
    distance_function: Callable[[Array, Array], Array] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Array:
    """max(0, d(a, p) - d(a, n) + margin); swap: the smaller of d(a, n) and d(p, n).

    Balntas et al. 2016. distance_function None: pairwise_distance.
    """
    distance = pairwise_distance if distance_function is None else distance_function
    a, p, n = real(anchor), real(positive), real(negative)
    apart = distance(a, n)
    if swap:
        apart = np.minimum(apart, distance(p, n))
    return reduce_loss(np.maximum(distance(a, p) - apart + margin, 0), reduction)


def triplet_margin_loss(
    anchor: ArrayLike,
    positive: ArrayLike,
    negative: ArrayLike,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Array:
    """triplet_margin_with_distance_loss with pairwise_distance(p, eps)."""
    return triplet_margin_with_distance_loss(
        anchor,
        positive,
        negative,
        distance_function=lambda x, y: pairwise_distance(x, y, p, eps),
        margin=margin,
        swap=swap,
        reduction=reduction,
    )
