"""Adamax: Adam with the largest gradient instead of the mean square (Kingma & Ba 2015, 7.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .optimizer import Optimizer, arrays_of, at_least_zero, decay_rates, fused


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

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        (beta1, beta2), eps = group["betas"], group["eps"]
        rate = group["lr"] / (1 - beta1 ** state["step"])
        states = arrays_of(state, array, "exp_avg", "exp_inf")
        return fused("adamax", array, grad, states, group, 1 - beta1, beta2, eps, rate)
