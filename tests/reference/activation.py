"""Element-wise activations and the softmax family, each with its derivative.

Every function is element-wise on x of any shape unless it names a dim. `X_backward(grad_y, x,
...)` returns grad_x. At kinks the derivative is the one PyTorch takes. y is NaN wherever x is; the
derivative at NaN is left open (NaN, or that of one branch).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, real

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946

# inf 0 and inf / inf are NaN by IEEE rules: these formulas mean it, NumPy need not warn.
_infinity_may_give_nan = np.errstate(invalid="ignore")
_erf = np.vectorize(math.erf, otypes=[np.float64])


def relu(x: ArrayLike) -> Array:
    """max(x, 0)."""
    x = real(x)
    return np.where(x <= 0, 0.0, x)


def relu_backward(grad_y: ArrayLike, x: ArrayLike) -> Array:
    """0 where x <= 0 (also at the kink)."""
    return np.where(real(x) <= 0, 0.0, real(grad_y))


def threshold(x: ArrayLike, threshold: float, value: float) -> Array:
    """x where x > threshold, otherwise value."""
    x = real(x)
    return np.where(x <= threshold, value, x)


def threshold_backward(grad_y: ArrayLike, x: ArrayLike, threshold: float, value: float) -> Array:
    """0 where x <= threshold."""
    return np.where(real(x) <= threshold, 0.0, real(grad_y))


def hardtanh(x: ArrayLike, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """Clamp x to [min_val, max_val]."""
    return np.minimum(np.maximum(real(x), min_val), max_val)


def hardtanh_backward(
    grad_y: ArrayLike, x: ArrayLike, min_val: float = -1.0, max_val: float = 1.0
) -> Array:
    """0 at and outside both bounds."""
    x = real(x)
    return np.where((x <= min_val) | (x >= max_val), 0.0, real(grad_y))


def relu6(x: ArrayLike) -> Array:
    """min(max(x, 0), 6)."""
    return hardtanh(x, 0.0, 6.0)


def relu6_backward(grad_y: ArrayLike, x: ArrayLike) -> Array:
    """0 at and outside 0 and 6."""
    return hardtanh_backward(grad_y, x, 0.0, 6.0)


def step(x: ArrayLike) -> Array:
    """Heaviside: 1 where x > 0, otherwise 0; NaN stays NaN."""
    x = real(x)
    return np.where(np.isnan(x), x, np.where(x > 0, 1.0, 0.0))


def step_backward(grad_y: ArrayLike, x: ArrayLike) -> Array:
    """Zero everywhere, the jump included."""
    return np.zeros_like(real(x))


def leaky_relu(x: ArrayLike, negative_slope: float = 0.01) -> Array:
    """x where x > 0, otherwise negative_slope x."""
    x = real(x)
    return np.where(x > 0, x, negative_slope * x)


def leaky_relu_backward(grad_y: ArrayLike, x: ArrayLike, negative_slope: float = 0.01) -> Array:
    """negative_slope where x <= 0."""
    grad_y = real(grad_y)
    return np.where(real(x) > 0, grad_y, negative_slope * grad_y)


def rrelu(x: ArrayLike, lower: float = 1.0 / 8, upper: float = 1.0 / 3) -> Array:
    """Evaluation mode: leaky_relu with the mean slope (Xu et al. 2015)."""
    return leaky_relu(x, (lower + upper) / 2)


def rrelu_backward(
    grad_y: ArrayLike, x: ArrayLike, lower: float = 1.0 / 8, upper: float = 1.0 / 3
) -> Array:
    """Evaluation mode."""
    return leaky_relu_backward(grad_y, x, (lower + upper) / 2)


def _per_channel(weight: Array, ndim: int) -> Array:
    """weight [1] or [C] shaped to meet x [N, C, ...]; a vector x has one channel."""
    return weight.reshape(1, -1, *(1,) * (ndim - 2)) if ndim >= 2 else weight.reshape(-1)


def prelu(x: ArrayLike, weight: ArrayLike) -> Array:
    """x where x > 0, otherwise weight x; weight [1] or one slope per channel (axis 1)."""
    x, weight = real(x), real(weight)
    return np.where(x > 0, x, _per_channel(weight, x.ndim) * x)


def prelu_backward(grad_y: ArrayLike, x: ArrayLike, weight: ArrayLike) -> tuple[Array, Array]:
    """Gradients for x (slope weight at 0) and weight (sum of grad_y x where x <= 0)."""
    grad_y, x, weight = real(grad_y), real(x), real(weight)
    slope = _per_channel(weight, x.ndim)
    grad_w = np.where(x > 0, 0.0, grad_y * x)
    if weight.size == 1:
        grad_w = grad_w.sum()
    else:
        grad_w = grad_w.sum((0, *range(2, x.ndim)))
    return np.where(x > 0, grad_y, slope * grad_y), grad_w.reshape(weight.shape)


def _scaled_elu(x: Array, scale: float, alpha: float, rate: float) -> Array:
    return np.where(x > 0, scale * x, scale * alpha * np.expm1(rate * np.minimum(x, 0)))


def _scaled_elu_backward(grad_y: Array, x: Array, scale: float, alpha: float, rate: float) -> Array:
    slope = scale * alpha * rate * np.exp(rate * np.minimum(x, 0))
    return grad_y * np.where(x > 0, scale, slope)


def elu(x: ArrayLike, alpha: float = 1.0) -> Array:
    """x where x > 0, otherwise alpha (exp(x) - 1) (Clevert et al. 2016)."""
    return _scaled_elu(real(x), 1.0, alpha, 1.0)


def elu_backward(grad_y: ArrayLike, x: ArrayLike, alpha: float = 1.0) -> Array:
    """alpha exp(x) where x <= 0."""
    return _scaled_elu_backward(real(grad_y), real(x), 1.0, alpha, 1.0)


def selu(x: ArrayLike) -> Array:
    """SELU_SCALE elu(x, SELU_ALPHA) (Klambauer et al. 2017)."""
    return _scaled_elu(real(x), SELU_SCALE, SELU_ALPHA, 1.0)


def selu_backward(grad_y: ArrayLike, x: ArrayLike) -> Array:
    """SELU_SCALE SELU_ALPHA exp(x) where x <= 0."""
    return _scaled_elu_backward(real(grad_y), real(x), SELU_SCALE, SELU_ALPHA, 1.0)


def celu(x: ArrayLike, alpha: float = 1.0) -> Array:
    """x where x > 0, otherwise alpha (exp(x / alpha) - 1) (Barron 2017)."""
    return _scaled_elu(real(x), 1.0, alpha, 1.0 / alpha)


def celu_backward(grad_y: ArrayLike, x: ArrayLike, alpha: float = 1.0) -> Array:
    """exp(x / alpha) where x <= 0."""
    return _scaled_elu_backward(real(grad_y), real(x), 1.0, alpha, 1.0 / alpha)


def sigmoid(x: ArrayLike, slope: float = 1.0) -> Array:
    """1 / (1 + exp(-slope x)), by exp of a negative number only."""
    z = slope * real(x)
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + e), e / (1 + e))


def sigmoid_backward(grad_y: ArrayLike, x: ArrayLike, slope: float = 1.0) -> Array:
    """slope s (1 - s), with 1 - s = sigmoid(-x) kept exact."""
    return real(grad_y) * slope * sigmoid(x, slope) * sigmoid(-real(x), slope)


def logsigmoid(x: ArrayLike) -> Array:
    """log(sigmoid(x)) = min(x, 0) - log(1 + exp(-|x|))."""
    x = real(x)
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def logsigmoid_backward(grad_y: ArrayLike, x: ArrayLike) -> Array:
    """sigmoid(-x)."""
    return real(grad_y) * sigmoid(-real(x))


def tanh(x: ArrayLike) -> Array:
    """Hyperbolic tangent."""
    return np.tanh(real(x))


def tanh_backward(grad_y: ArrayLike, x: ArrayLike) -> Array:
    """1 - tanh(x)^2."""
    return real(grad_y) * (1 - np.tanh(real(x)) ** 2)


def tanhshrink(x: ArrayLike) -> Array:
    """x - tanh(x)."""
    x = real(x)
    return x - np.tanh(x)


def tanhshrink_backward(grad_y: ArrayLike, x: ArrayLike) -> Array:
    """tanh(x)^2."""
    return real(grad_y) * np.tanh(real(x)) ** 2


def softplus(x: ArrayLike, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """log(1 + exp(beta x)) / beta; x itself where beta x > threshold."""
    x = real(x)
    z = beta * x
    safe = np.minimum(z, threshold)
    return np.where(z > threshold, x, np.log1p(np.exp(safe)) / beta)


def softplus_backward(
    grad_y: ArrayLike, x: ArrayLike, beta: float = 1.0, threshold: float = 20.0
) -> Array:
    """sigmoid(beta x); 1 where beta x > threshold."""
    x = real(x)
    return real(grad_y) * np.where(beta * x > threshold, 1.0, sigmoid(x, beta))


@_infinity_may_give_nan
def softsign(x: ArrayLike) -> Array:
    """x / (1 + |x|)."""
    x = real(x)
    return x / (1 + np.abs(x))


def softsign_backward(grad_y: ArrayLike, x: ArrayLike) -> Array:
    """1 / (1 + |x|)^2."""
    inverse = 1 / (1 + np.abs(real(x)))
    return real(grad_y) * inverse * inverse


def softshrink(x: ArrayLike, lambd: float = 0.5) -> Array:
    """x moved towards 0 by lambd, 0 within [-lambd, lambd]."""
    x = real(x)
    return np.where(np.abs(x) <= lambd, 0.0, x - np.sign(x) * lambd)


def hardshrink(x: ArrayLike, lambd: float = 0.5) -> Array:
    """x, but 0 within [-lambd, lambd]."""
    x = real(x)
    return np.where(np.abs(x) <= lambd, 0.0, x)


def hardshrink_backward(grad_y: ArrayLike, x: ArrayLike, lambd: float = 0.5) -> Array:
    """0 within [-lambd, lambd], bounds included."""
    return np.where(np.abs(real(x)) <= lambd, 0.0, real(grad_y))


def softshrink_backward(grad_y: ArrayLike, x: ArrayLike, lambd: float = 0.5) -> Array:
    """0 within [-lambd, lambd], bounds included."""
    return hardshrink_backward(grad_y, x, lambd)


def hardsigmoid(x: ArrayLike) -> Array:
    """min(max(x + 3, 0), 6) / 6."""
    return relu6(real(x) + 3) / 6


def hardsigmoid_backward(grad_y: ArrayLike, x: ArrayLike) -> Array:
    """1/6 strictly inside (-3, 3)."""
    return np.where(np.abs(real(x)) < 3, real(grad_y) / 6, 0.0)


@_infinity_may_give_nan
def hardswish(x: ArrayLike) -> Array:
    """x hardsigmoid(x) (Howard et al. 2019)."""
    return real(x) * hardsigmoid(x)


def hardswish_backward(grad_y: ArrayLike, x: ArrayLike) -> Array:
    """x / 3 + 1/2 strictly inside (-3, 3); 0 below, 1 above."""
    x = real(x)
    return real(grad_y) * np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5))


@_infinity_may_give_nan
def silu(x: ArrayLike) -> Array:
    """x sigmoid(x)."""
    return real(x) * sigmoid(x)


@_infinity_may_give_nan
def silu_backward(grad_y: ArrayLike, x: ArrayLike) -> Array:
    """s (1 + x (1 - s)) with s = sigmoid(x)."""
    x = real(x)
    return real(grad_y) * sigmoid(x) * (1 + x * sigmoid(-x))


@_infinity_may_give_nan
def mish(x: ArrayLike) -> Array:
    """x tanh(log(1 + exp(x))) (Misra 2019)."""
    x = real(x)
    return x * np.tanh(-logsigmoid(-x))


@_infinity_may_give_nan
def mish_backward(grad_y: ArrayLike, x: ArrayLike) -> Array:
    """t + x (1 - t^2) sigmoid(x) with t = tanh(log(1 + exp(x)))."""
    x = real(x)
    t = np.tanh(-logsigmoid(-x))
    return real(grad_y) * (t + x * (1 - t * t) * sigmoid(x))


@_infinity_may_give_nan
def gelu(x: ArrayLike, approximate: str = "none") -> Array:
    """x Phi(x), or its 'tanh' approximation (Hendrycks & Gimpel 2016)."""
    x = real(x)
    if approximate == "tanh":
        return 0.5 * x * (1 + _gelu_tanh(x)[0])
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


@_infinity_may_give_nan
def gelu_backward(grad_y: ArrayLike, x: ArrayLike, approximate: str = "none") -> Array:
    """Phi(x) + x phi(x), or the derivative of the 'tanh' approximation."""
    grad_y, x = real(grad_y), real(x)
    if approximate == "tanh":
        t, slope = _gelu_tanh(x)
        return grad_y * 0.5 * (1 + t + x * (1 - t * t) * slope)
    density = np.exp(-0.5 * np.clip(x, -1e3, 1e3) ** 2) / math.sqrt(2 * math.pi)
    return grad_y * (0.5 * (1 + _erf(x / math.sqrt(2))) + x * density)


def _gelu_tanh(x: Array) -> tuple[Array, Array]:
    """tanh(u) and du/dx, u = sqrt(2 / pi) (x + 0.044715 x^3); beyond 1000 tanh is +-1."""
    a, x = math.sqrt(2 / math.pi), np.clip(x, -1e3, 1e3)
    return np.tanh(a * (x + 0.044715 * x**3)), a * (1 + 3 * 0.044715 * x**2)
