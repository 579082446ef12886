"""Table look-up, alone and reduced over bags, with the gradient for the table."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, real

MaybeArray = ArrayLike | None


def _renormalised(weight: Array, rows: Array, max_norm: float | None, norm_type: float) -> Array:
    """A copy whose used rows have a norm of at most max_norm (PyTorch does it in place)."""
    if max_norm is None:
        return weight
    weight = weight.copy()
    for row in np.unique(rows):
        norm = (np.abs(weight[row]) ** norm_type).sum() ** (1 / norm_type)
        if norm > max_norm:
            weight[row] *= max_norm / (norm + 1e-7)
    return weight


def embedding(
    input: ArrayLike,
    weight: ArrayLike,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Array:
    """weight[input]; padding_idx, scale_grad_by_freq and sparse concern the gradient only."""
    rows = np.asarray(input)
    return _renormalised(real(weight), rows, max_norm, norm_type)[rows]


def embedding_backward(
    grad_y: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    padding_idx: int | None = None,
    scale_grad_by_freq: bool = False,
) -> Array:
    """Gradients of equal indices add up (or average, by freq); the padding row gets none."""
    rows, grad = np.asarray(input).ravel(), np.zeros(np.shape(weight))
    np.add.at(grad, rows, real(grad_y).reshape(len(rows), grad.shape[1]))
    if scale_grad_by_freq:
        grad /= np.maximum(np.bincount(rows, minlength=len(grad)), 1)[:, None]
    if padding_idx is not None:
        grad[padding_idx] = 0
    return grad


def _bags(input, offsets, include_last_offset, padding_idx, rows):
    """Per bag the places of its indices, padding left out."""
    flat = np.asarray(input).ravel()
    if np.ndim(input) == 2:
        bounds = np.arange(len(np.asarray(input)) + 1) * np.shape(input)[1]
    else:
        bounds = np.asarray(offsets)
        bounds = bounds if include_last_offset else np.append(bounds, len(flat))
    padding = None if padding_idx is None else padding_idx % rows
    return flat, [
        [i for i in range(a, b) if flat[i] != padding]
        for a, b in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def embedding_bag(
    input: ArrayLike,
    weight: ArrayLike,
    offsets: MaybeArray = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: MaybeArray = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Array:
    """Sum, mean or max of weight[bag] per bag, 0 for an empty bag.

    input [B, n] has one bag a row; input [n] has bags that start at offsets.
    per_sample_weights (mode 'sum') multiplies each row.
    """
    table = _renormalised(real(weight), np.asarray(input), max_norm, norm_type)
    flat, bags = _bags(input, offsets, include_last_offset, padding_idx, len(table))
    scale = np.ones(len(flat)) if per_sample_weights is None else real(per_sample_weights).ravel()
    y = np.zeros((len(bags), table.shape[1]))
    for b, places in enumerate(bags):
        if places:
            rows = table[flat[places]] * scale[places][:, None]
            y[b] = {"sum": np.sum, "mean": np.mean, "max": np.max}[mode](rows, 0)
    return y


def embedding_bag_backward(
    grad_y: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    offsets: MaybeArray = None,
    mode: str = "mean",
    per_sample_weights: MaybeArray = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Array, Array]:
    """Gradients for weight and per_sample_weights; of equal maxima the first gets it."""
    g, table = real(grad_y), real(weight)
    flat, bags = _bags(input, offsets, include_last_offset, padding_idx, len(table))
    scale = np.ones(len(flat)) if per_sample_weights is None else real(per_sample_weights).ravel()
    grad, grad_scale = np.zeros_like(table), np.zeros(len(flat))
    for b, places in enumerate(bags):
        if mode == "max" and places:
            best = flat[places][table[flat[places]].argmax(0)]
            np.add.at(grad, (best, np.arange(table.shape[1])), g[b])
            continue
        for i in places:
            grad[flat[i]] += scale[i] * g[b] / (len(places) if mode == "mean" else 1)
            grad_scale[i] = table[flat[i]] @ g[b]
    return grad, grad_scale.reshape(np.shape(input))
