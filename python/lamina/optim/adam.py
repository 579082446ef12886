"""Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .optimizer import Optimizer, check_options, decayed


class Adam(Optimizer):
    """p <- p - lr m' / (sqrt(v') + eps), m' and v' bias-corrected decayed means of g and g^2."""

    decoupled = False  # AdamW decays the weights beside the gradient, not through it

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        name = type(self).__name__
        check_options(name, lr=lr, eps=eps, weight_decay=weight_decay)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{name}: betas must be from 0 to below 1, got betas={betas}")
        super().__init__(
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                amsgrad=amsgrad,
                maximize=maximize,
            ),
        )

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        if self.decoupled:
            array *= 1 - group["lr"] * group["weight_decay"]
        else:
            grad = decayed(array, grad, group)
        if "exp_avg" not in state:
            state["exp_avg"], state["exp_avg_sq"] = np.zeros_like(array), np.zeros_like(array)
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean += (1 - beta1) * (grad - mean)
        square *= beta2
        square += (1 - beta2) * grad * grad
        if group["amsgrad"]:
            largest = state.setdefault("max_exp_avg_sq", np.zeros_like(array))
            square = np.maximum(largest, square, out=largest)
        correction1, correction2 = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
        scale = np.sqrt(square) / math.sqrt(correction2) + group["eps"]
        array -= (group["lr"] / correction1) * mean / scale


class AdamW(Adam):
    """Adam whose weight decay acts on the parameters directly."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
