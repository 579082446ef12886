"""One step of each optimiser, from the algorithms printed in the documentation of torch.optim.

`X_step(param, grad, state, ...)` returns (new param, new state); the first step starts with {}.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, real

State = dict[str, Any]
Step = tuple[Array, State]


def _gradient(param: ArrayLike, grad: ArrayLike, weight_decay: float, maximize: bool):
    param, grad = real(param), real(grad)
    return param, (-grad if maximize else grad) + weight_decay * param


def sgd_step(
    param: ArrayLike,
    grad: ArrayLike,
    state: State,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> Step:
    """b = momentum b + (1 - dampening) g, at first g; p -= lr b, nesterov: lr (g + momentum b)."""
    p, g = _gradient(param, grad, weight_decay, maximize)
    if momentum == 0:
        return p - lr * g, state
    b = momentum * state["momentum"] + (1 - dampening) * g if state else g
    return p - lr * (g + momentum * b if nesterov else b), {"momentum": b}


def adagrad_step(
    param: ArrayLike,
    grad: ArrayLike,
    state: State,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    maximize: bool = False,
) -> Step:
    """s += g^2; p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps) (Duchi et al. 2011)."""
    p, g = _gradient(param, grad, weight_decay, maximize)
    t = state.get("step", 0) + 1
    s = state.get("sum", np.full_like(p, initial_accumulator_value)) + g**2
    rate = lr / (1 + (t - 1) * lr_decay)
    return p - rate * g / (np.sqrt(s) + eps), {"step": t, "sum": s}


def adadelta_step(
    param: ArrayLike,
    grad: ArrayLike,
    state: State,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> Step:
    """v = rho v + (1 - rho) g^2; d = sqrt(u + eps) / sqrt(v + eps) g; u likewise of d; p -= lr d.

    Zeiler 2012.
    """
    p, g = _gradient(param, grad, weight_decay, maximize)
    v = rho * state.get("square_avg", 0.0) + (1 - rho) * g**2
    u = state.get("acc_delta", 0.0)
    d = np.sqrt(u + eps) / np.sqrt(v + eps) * g
    return p - lr * d, {"square_avg": v, "acc_delta": rho * u + (1 - rho) * d**2}


def rmsprop_step(
    param: ArrayLike,
    grad: ArrayLike,
    state: State,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    maximize: bool = False,
) -> Step:
    """v = alpha v + (1 - alpha) g^2; b = momentum b + g / (sqrt(v) + eps); p -= lr b.

    centered: v less the square of the mean of g, kept likewise (Hinton 2012, lecture 6).
    """
    p, g = _gradient(param, grad, weight_decay, maximize)
    v = alpha * state.get("square_avg", 0.0) + (1 - alpha) * g**2
    mean = alpha * state.get("grad_avg", 0.0) + (1 - alpha) * g if centered else 0.0
    d = g / (np.sqrt(v - mean**2) + eps)
    b = momentum * state.get("momentum", 0.0) + d
    return p - lr * b, {"square_avg": v, "grad_avg": mean, "momentum": b}


def _adam(p: Array, g: Array, state: State, lr, betas, eps, amsgrad) -> Step:
    t = state.get("step", 0) + 1
    m = betas[0] * state.get("exp_avg", 0.0) + (1 - betas[0]) * g
    v = betas[1] * state.get("exp_avg_sq", 0.0) + (1 - betas[1]) * g**2
    top = np.maximum(state.get("max_exp_avg_sq", 0.0), v) if amsgrad else v
    m_hat, v_hat = m / (1 - betas[0] ** t), top / (1 - betas[1] ** t)
    new = {"step": t, "exp_avg": m, "exp_avg_sq": v, "max_exp_avg_sq": top}
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), new


def adam_step(
    param: ArrayLike,
    grad: ArrayLike,
    state: State,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
) -> Step:
    """p -= lr m_hat / (sqrt(v_hat) + eps), bias-corrected means of g and g^2 (Kingma & Ba 2015).

    amsgrad takes the largest v so far, before the correction (Reddi et al. 2018).
    """
    p, g = _gradient(param, grad, weight_decay, maximize)
    return _adam(p, g, state, lr, betas, eps, amsgrad)


def adamw_step(
    param: ArrayLike,
    grad: ArrayLike,
    state: State,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
    maximize: bool = False,
) -> Step:
    """adam_step without decay, after p *= 1 - lr weight_decay (Loshchilov & Hutter 2019)."""
    p, g = _gradient(param, grad, 0.0, maximize)
    return _adam(p * (1 - lr * weight_decay), g, state, lr, betas, eps, amsgrad)
