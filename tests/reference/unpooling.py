"""Unpooling: to remembered maxima, by repetition (nearest) and by bed of nails.

x [..., *in] with `axes` spatial axes at the end. Sources: Zeiler & Fergus 2014 (max),
Dosovitskiy et al. 2015 (bed of nails).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, Ints, ntuple, real


def _planes(x, axes: int):
    """x as [planes, elements]."""
    lead = x.shape[: x.ndim - axes]
    return x.reshape(math.prod(lead), math.prod(x.shape[x.ndim - axes :])), lead


def max_unpool(
    axes: int,
    x: ArrayLike,
    indices: ArrayLike,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Array:
    """Zeros with x put at flat plane indices; of equal indices the last wins.

    out = (in - 1) stride - 2 padding + kernel, unless output_size names it (its last axes count).
    """
    x, indices = real(x), np.asarray(indices)
    kernel, padding = ntuple(kernel_size, axes), ntuple(padding, axes)
    stride = kernel if stride is None else ntuple(stride, axes)
    if output_size is None:
        size = zip(x.shape[x.ndim - axes :], stride, padding, kernel, strict=True)
        output_size = [(n - 1) * s - 2 * p + k for n, s, p, k in size]
    output_size = tuple(output_size)[-axes:]
    values, lead = _planes(x, axes)
    at, _ = _planes(indices, axes)
    y = np.zeros((len(values), math.prod(output_size)), x.dtype)
    np.put_along_axis(y, at, values, 1)
    return y.reshape(*lead, *output_size)


def max_unpool_backward(axes: int, grad_y: ArrayLike, indices: ArrayLike) -> Array:
    """Each element gathers grad_y at its index (so do all elements of equal indices)."""
    indices = np.asarray(indices)
    g, _ = _planes(real(grad_y), axes)
    at, _ = _planes(indices, axes)
    return np.take_along_axis(g, at, 1).reshape(indices.shape)


def _blocks(shape: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], tuple[int, ...]]:
    """[..., in0, k0, in1, k1, ...] and the places of the k axes."""
    lead, size = list(shape[: len(shape) - len(kernel)]), shape[len(shape) - len(kernel) :]
    pairs = [v for pair in zip(size, kernel, strict=True) for v in pair]
    return lead + pairs, tuple(range(len(lead) + 1, len(lead) + len(pairs), 2))


def nearest_unpool(axes: int, x: ArrayLike, kernel_size: Ints) -> Array:
    """Every element fills its block of kernel_size; out = in kernel_size."""
    x = real(x)
    kernel = ntuple(kernel_size, axes)
    for a, k in enumerate(kernel):
        x = np.repeat(x, k, a - axes)
    return x


def nearest_unpool_backward(axes: int, grad_y: ArrayLike, kernel_size: Ints) -> Array:
    """Sum of grad_y over each block."""
    g, kernel = real(grad_y), ntuple(kernel_size, axes)
    lead = g.shape[: g.ndim - axes]
    size = [n // k for n, k in zip(g.shape[g.ndim - axes :], kernel, strict=True)]
    shape, block = _blocks([*lead, *size], kernel)
    return g.reshape(shape).sum(block)


def _nails(axes: int, kernel: Sequence[int]) -> tuple:
    return (..., *(slice(None, None, k) for k in kernel))


def bed_of_nails_unpool(axes: int, x: ArrayLike, kernel_size: Ints) -> Array:
    """Every element goes to the first corner of its block of kernel_size, zeros elsewhere."""
    x = real(x)
    kernel = ntuple(kernel_size, axes)
    size = [n * k for n, k in zip(x.shape[x.ndim - axes :], kernel, strict=True)]
    y = np.zeros((*x.shape[: x.ndim - axes], *size), x.dtype)
    y[_nails(axes, kernel)] = x
    return y


def bed_of_nails_unpool_backward(axes: int, grad_y: ArrayLike, kernel_size: Ints) -> Array:
    """grad_y at the first corner of each block."""
    return real(grad_y)[_nails(axes, ntuple(kernel_size, axes))].copy()


max_unpool1d, max_unpool2d, max_unpool3d = (partial(max_unpool, n) for n in (1, 2, 3))
max_unpool1d_backward, max_unpool2d_backward, max_unpool3d_backward = (
    partial(max_unpool_backward, n) for n in (1, 2, 3)
)
