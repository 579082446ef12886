"""Activations along one dim: the softmax family and the gated linear unit, with gradients.

All work on x of any shape along `dim`; softmax subtracts the maximum first, so that it neither
overflows nor divides by zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, real
from .activation import sigmoid, sigmoid_backward


def glu(x: ArrayLike, dim: int = -1) -> Array:
    """a sigmoid(b), a and b the halves of x along dim (Dauphin et al. 2017)."""
    a, b = np.split(real(x), 2, dim)
    return a * sigmoid(b)


def glu_backward(grad_y: ArrayLike, x: ArrayLike, dim: int = -1) -> Array:
    """Gradients of both halves, joined."""
    grad_y = real(grad_y)
    a, b = np.split(real(x), 2, dim)
    return np.concatenate([grad_y * sigmoid(b), sigmoid_backward(grad_y * a, b)], dim)


def softmax(x: ArrayLike, dim: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along dim."""
    x = real(x)
    e = np.exp(x - x.max(dim, keepdims=True))
    return e / e.sum(dim, keepdims=True)


def softmax_backward(grad_y: ArrayLike, x: ArrayLike, dim: int = -1) -> Array:
    """y (grad_y - sum(grad_y y)) along dim."""
    y, grad_y = softmax(x, dim), real(grad_y)
    return y * (grad_y - (grad_y * y).sum(dim, keepdims=True))


def log_softmax(x: ArrayLike, dim: int = -1) -> Array:
    """x - log(sum(exp(x))) along dim."""
    x = real(x)
    z = x - x.max(dim, keepdims=True)
    return z - np.log(np.exp(z).sum(dim, keepdims=True))


def log_softmax_backward(grad_y: ArrayLike, x: ArrayLike, dim: int = -1) -> Array:
    """grad_y - softmax(x) sum(grad_y) along dim."""
    grad_y = real(grad_y)
    return grad_y - softmax(x, dim) * grad_y.sum(dim, keepdims=True)


def softmin(x: ArrayLike, dim: int = -1) -> Array:
    """softmax(-x)."""
    return softmax(-real(x), dim)


def softmin_backward(grad_y: ArrayLike, x: ArrayLike, dim: int = -1) -> Array:
    """Minus the gradient of softmax at -x."""
    return -softmax_backward(grad_y, -real(x), dim)


def gumbel_softmax(
    logits: ArrayLike, noise: ArrayLike, tau: float = 1.0, hard: bool = False, dim: int = -1
) -> Array:
    """softmax((logits + noise) / tau); hard: its one-hot argmax (Jang et al. 2017).

    noise is the Gumbel sample -log(E), E ~ Exponential(1), of the shape of logits.
    """
    y = softmax((real(logits) + real(noise)) / tau, dim)
    if not hard:
        return y
    one_hot = np.zeros_like(y)
    np.put_along_axis(one_hot, np.expand_dims(y.argmax(dim), dim), 1.0, dim)
    return one_hot


def gumbel_softmax_backward(
    grad_y: ArrayLike, logits: ArrayLike, noise: ArrayLike, tau: float = 1.0, dim: int = -1
) -> Array:
    """Gradient for logits; the hard form passes grad_y straight through to the soft one."""
    return softmax_backward(grad_y, (real(logits) + real(noise)) / tau, dim) / tau
