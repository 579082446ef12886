"""Adamax: Adam with the largest gradient instead of the mean square (Kingma & Ba 2015, 7.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .optimizer import Optimizer, at_least_zero, decay_rates, decayed


class Adamax(Optimizer):
    """u <- max(beta2 u, |g| + eps);  p <- p - lr / (1 - beta1^t) m / u, m the decayed mean of g."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        options = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, options)

    def check(self, op: str, options: dict[str, Any]) -> None:
        at_least_zero(op, options, "lr", "eps", "weight_decay")
        decay_rates(op, options)

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        grad = decayed(array, grad, group)
        if "exp_avg" not in state:
            state["exp_avg"], state["exp_inf"] = np.zeros_like(array), np.zeros_like(array)
        mean, largest = state["exp_avg"], state["exp_inf"]
        beta1, beta2 = group["betas"]
        mean += (1 - beta1) * (grad - mean)
        largest *= beta2
        np.maximum(largest, np.abs(grad) + group["eps"], out=largest)
        array -= group["lr"] / (1 - beta1 ** state["step"]) * mean / largest
