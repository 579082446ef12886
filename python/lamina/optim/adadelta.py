"""AdaDelta (Zeiler 2012)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .optimizer import Optimizer, arrays_of, at_least_zero, fused


class Adadelta(Optimizer):
    """p <- p - lr d, d = sqrt(u + eps) / sqrt(v + eps) g; v, u decaying means of g^2 and d^2."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        options = dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, options)

    def check(self, op: str, options: dict[str, Any]) -> None:
        at_least_zero(op, options, "lr", "rho", "eps", "weight_decay")
        if options["rho"] > 1:
            raise ValueError(f"{op}: rho must be from 0 to 1, got rho={options['rho']}")

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        rho, eps, lr = group["rho"], group["eps"], group["lr"]
        states = arrays_of(state, array, "square_avg", "acc_delta")
        return fused("adadelta", array, grad, states, group, rho, 1 - rho, eps, lr)
