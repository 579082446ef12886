"""RMSProp (Hinton 2012, lecture 6)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .optimizer import Optimizer, at_least_zero, decayed


class RMSprop(Optimizer):
    """v <- alpha v + (1 - alpha) g^2;  p <- p - lr g / (sqrt(v) + eps).

    centered: v less the square of the mean of g. momentum: the quotient enters a buffer first.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = dict(
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            maximize=maximize,
        )
        super().__init__(params, options)

    def check(self, op: str, options: dict[str, Any]) -> None:
        at_least_zero(op, options, "lr", "alpha", "eps", "weight_decay", "momentum")

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        grad = decayed(array, grad, group)
        square = state.setdefault("square_avg", np.zeros_like(array))
        alpha = group["alpha"]
        square *= alpha
        square += (1 - alpha) * grad * grad
        if group["centered"]:
            mean = state.setdefault("grad_avg", np.zeros_like(array))
            mean += (1 - alpha) * (grad - mean)
            square = square - mean * mean
        step = grad / (np.sqrt(square) + group["eps"])
        if group["momentum"]:
            buffer = state.setdefault("momentum_buffer", np.zeros_like(array))
            buffer *= group["momentum"]
            buffer += step
            step = buffer
        array -= group["lr"] * step
