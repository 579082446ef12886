"""Normalisation over batch, channels or neighbourhoods, with the gradients.

Batch, layer, group and instance norm are one formula, y = (x - mean) / sqrt(var + eps), over
different axes of x [N, C, ...], followed by weight y + bias. Its gradient, with h = (x - mean) / s
and means over the same axes (Ioffe & Szegedy 2015, section 3):
    grad_x = (g - mean(g) - h mean(g h)) / s
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, Ints, grid, ntuple, real

MaybeArray = ArrayLike | None


def _standardise(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array]:
    """(x - mean) / s and s = sqrt(biased variance + eps) over axes."""
    centred = x - x.mean(axes, keepdims=True)
    s = np.sqrt((centred**2).mean(axes, keepdims=True) + eps)
    return centred / s, s


def _standardise_backward(g: Array, h: Array, s: Array, axes: tuple[int, ...]) -> Array:
    mean_g, mean_gh = (v.mean(axes, keepdims=True) for v in (g, g * h))
    return (g - mean_g - h * mean_gh) / s


def _channels(v: MaybeArray, ndim: int, default: float) -> Array:
    """A vector [C] shaped to meet x [N, C, ...]."""
    return (
        np.full((1,) * ndim, default) if v is None else real(v).reshape(1, -1, *(1,) * (ndim - 2))
    )


def _others(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def batch_norm(
    x: ArrayLike,
    running_mean: MaybeArray = None,
    running_var: MaybeArray = None,
    weight: MaybeArray = None,
    bias: MaybeArray = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """y and the new running mean and variance; statistics over all axes of x [N, C, ...] but C.

    Training normalises by the biased variance and moves running_var by the unbiased one.
    """
    x = real(x)
    mean = None if running_mean is None else real(running_mean)
    var = None if running_var is None else real(running_var)
    if training:
        h, _ = _standardise(x, _others(x), eps)
        if mean is not None:
            mean = (1 - momentum) * mean + momentum * x.mean(_others(x))
        if var is not None:
            var = (1 - momentum) * var + momentum * x.var(_others(x), ddof=1)
    else:
        h = (x - _channels(mean, x.ndim, 0)) / np.sqrt(_channels(var, x.ndim, 1) + eps)
    return h * _channels(weight, x.ndim, 1) + _channels(bias, x.ndim, 0), mean, var


def batch_norm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    running_mean: MaybeArray = None,
    running_var: MaybeArray = None,
    weight: MaybeArray = None,
    training: bool = False,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Gradients for x, weight and bias."""
    grad_y, x = real(grad_y), real(x)
    g = grad_y * _channels(weight, x.ndim, 1)
    if training:
        h, s = _standardise(x, _others(x), eps)
        grad_x = _standardise_backward(g, h, s, _others(x))
    else:
        s = np.sqrt(_channels(running_var, x.ndim, 1) + eps)
        h = (x - _channels(running_mean, x.ndim, 0)) / s
        grad_x = g / s
    return grad_x, (grad_y * h).sum(_others(x)), grad_y.sum(_others(x))


def instance_norm(
    x: ArrayLike,
    running_mean: MaybeArray = None,
    running_var: MaybeArray = None,
    weight: MaybeArray = None,
    bias: MaybeArray = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """batch_norm of every sample alone; the running statistics move by the batch's mean ones."""
    x = real(x)
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    each = [
        batch_norm(v[None], running_mean, running_var, weight, bias, True, momentum, eps) for v in x
    ]
    y = np.concatenate([e[0] for e in each])
    mean = None if running_mean is None else np.mean([e[1] for e in each], 0)
    var = None if running_var is None else np.mean([e[2] for e in each], 0)
    return y, mean, var


def instance_norm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    running_mean: MaybeArray = None,
    running_var: MaybeArray = None,
    weight: MaybeArray = None,
    use_input_stats: bool = True,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Gradients for x, weight and bias."""
    options = (running_mean, running_var, weight, use_input_stats, eps)
    pairs = zip(real(grad_y), real(x), strict=True)
    each = [batch_norm_backward(g[None], v[None], *options) for g, v in pairs]
    grad_x, grad_w, grad_b = zip(*each, strict=True)
    return np.concatenate(grad_x), np.sum(grad_w, 0), np.sum(grad_b, 0)


def _groups(x: Array, num_groups: int) -> Array:
    return x.reshape(len(x), num_groups, math.prod(x.shape[1:]) // num_groups)


def group_norm(
    x: ArrayLike,
    num_groups: int,
    weight: MaybeArray = None,
    bias: MaybeArray = None,
    eps: float = 1e-5,
) -> Array:
    """Normalise over (C / num_groups, spatial) per sample and group (Wu & He 2018)."""
    x = real(x)
    h, _ = _standardise(_groups(x, num_groups), (2,), eps)
    return h.reshape(x.shape) * _channels(weight, x.ndim, 1) + _channels(bias, x.ndim, 0)


def group_norm_backward(
    grad_y: ArrayLike, x: ArrayLike, num_groups: int, weight: MaybeArray = None, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Gradients for x, weight and bias."""
    grad_y, x = real(grad_y), real(x)
    h, s = _standardise(_groups(x, num_groups), (2,), eps)
    g = (grad_y * _channels(weight, x.ndim, 1)).reshape(h.shape)
    grad_x = _standardise_backward(g, h, s, (2,)).reshape(x.shape)
    grad_w = (grad_y * h.reshape(x.shape)).sum(_others(x))
    return grad_x, grad_w, grad_y.sum(_others(x))


def _trailing(normalized_shape: Ints, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The normalised axes and the axes before them."""
    n = len(ntuple(normalized_shape, 1))
    return tuple(range(ndim - n, ndim)), tuple(range(ndim - n))


def layer_norm(
    x: ArrayLike,
    normalized_shape: Ints,
    weight: MaybeArray = None,
    bias: MaybeArray = None,
    eps: float = 1e-5,
) -> Array:
    """Normalise over the trailing axes of shape normalized_shape (Ba et al. 2016)."""
    x = real(x)
    h, _ = _standardise(x, _trailing(normalized_shape, x.ndim)[0], eps)
    return h * (1.0 if weight is None else real(weight)) + (0.0 if bias is None else real(bias))


def layer_norm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    normalized_shape: Ints,
    weight: MaybeArray = None,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Gradients for x, weight and bias."""
    grad_y, x = real(grad_y), real(x)
    axes, before = _trailing(normalized_shape, x.ndim)
    h, s = _standardise(x, axes, eps)
    grad_x = _standardise_backward(grad_y * (1.0 if weight is None else real(weight)), h, s, axes)
    return grad_x, (grad_y * h).sum(before), grad_y.sum(before)


def rms_norm(
    x: ArrayLike, normalized_shape: Ints, weight: MaybeArray = None, eps: float | None = None
) -> Array:
    """weight x / sqrt(mean(x^2) + eps), eps None: that of float64 (Zhang & Sennrich 2019)."""
    x = real(x)
    eps = float(np.finfo(np.float64).eps) if eps is None else eps
    axes, _ = _trailing(normalized_shape, x.ndim)
    h = x / np.sqrt((x**2).mean(axes, keepdims=True) + eps)
    return h * (1.0 if weight is None else real(weight))


def rms_norm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    normalized_shape: Ints,
    weight: MaybeArray = None,
    eps: float | None = None,
) -> tuple[Array, Array]:
    """Gradients for x, (g - h mean(g h)) / s, and weight."""
    grad_y, x = real(grad_y), real(x)
    eps = float(np.finfo(np.float64).eps) if eps is None else eps
    axes, before = _trailing(normalized_shape, x.ndim)
    s = np.sqrt((x**2).mean(axes, keepdims=True) + eps)
    h, g = x / s, grad_y * (1.0 if weight is None else real(weight))
    grad_x = (g - h * (g * h).mean(axes, keepdims=True)) / s
    return grad_x, (grad_y * h).sum(before)


def normalize(x: ArrayLike, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Array:
    """x / max(||x||_p, eps) along dim."""
    x = real(x)
    return x / np.maximum(_norm(x, p, dim), eps)


def _norm(x: Array, p: float, dim: int) -> Array:
    return (np.abs(x) ** p).sum(dim, keepdims=True) ** (1 / p)


def normalize_backward(
    grad_y: ArrayLike, x: ArrayLike, p: float = 2.0, dim: int = 1, eps: float = 1e-12
) -> Array:
    """g / n - sum(g x) / n^2 dn/dx, dn/dx = sign(x) |x|^(p-1) n^(1-p); g / eps where n < eps."""
    g, x = real(grad_y), real(x)
    n = _norm(x, p, dim)
    m = np.maximum(n, eps)
    slope = np.sign(x) * np.abs(x) ** (p - 1) * m ** (1 - p) * (n >= eps)
    return g / m - (g * x).sum(dim, keepdims=True) / m**2 * slope


def _window_sum(v: Array, low: Sequence[int], high: Sequence[int]) -> Array:
    """Zero-padded sum of v over offsets -low .. high on its trailing axes."""
    n = len(low)
    lead = [(0, 0)] * (v.ndim - n)
    padded = np.pad(v, [*lead, *zip(low, high, strict=True)])
    size = v.shape[v.ndim - n :]
    total = np.zeros_like(v)
    for o in grid([a + b + 1 for a, b in zip(low, high, strict=True)]):
        total += padded[(..., *(slice(i, i + m) for i, m in zip(o, size, strict=True)))]
    return total


def _local_response(x: Array, n: int, size: int, alpha: float, beta: float, k: float) -> Array:
    low, high = [size // 2] * n, [(size - 1) // 2] * n
    return x * (k + alpha * _window_sum(x**2, low, high) / size**n) ** -beta


def _local_response_backward(
    g: Array, x: Array, n: int, size: int, alpha: float, beta: float, k: float
) -> Array:
    """x_j acts on the windows that hold it: the same sum with low and high exchanged."""
    low, high = [size // 2] * n, [(size - 1) // 2] * n
    d = k + alpha * _window_sum(x**2, low, high) / size**n
    passed = _window_sum(g * x * d ** (-beta - 1), high, low)
    return g * d**-beta - 2 * alpha * beta / size**n * x * passed


def local_response_norm(
    x: ArrayLike, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
    """x (k + alpha / size sum(x^2))^-beta over size channels of x [N, C, ...], zero padded.

    Krizhevsky et al. 2012 with PyTorch's mean for their sum; an even size reaches further down.
    """
    return np.moveaxis(_local_response(np.moveaxis(real(x), 1, -1), 1, size, alpha, beta, k), -1, 1)


def local_response_norm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> Array:
    """Gradient for x."""
    g, x = (np.moveaxis(real(v), 1, -1) for v in (grad_y, x))
    return np.moveaxis(_local_response_backward(g, x, 1, size, alpha, beta, k), -1, 1)


def local_response_norm_within(
    x: ArrayLike, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
    """The same inside each map of x [N, C, *spatial]: a window of size^ndim, mean over it."""
    x = real(x)
    return _local_response(x, x.ndim - 2, size, alpha, beta, k)


def local_response_norm_within_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> Array:
    """Gradient for x."""
    x = real(x)
    return _local_response_backward(real(grad_y), x, x.ndim - 2, size, alpha, beta, k)
