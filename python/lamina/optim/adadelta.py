"""AdaDelta (Zeiler 2012)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .optimizer import Optimizer, at_least_zero, decayed


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

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        grad = decayed(array, grad, group)
        if "square_avg" not in state:
            state["square_avg"], state["acc_delta"] = np.zeros_like(array), np.zeros_like(array)
        square, moved, rho = state["square_avg"], state["acc_delta"], group["rho"]
        square *= rho
        square += (1 - rho) * grad * grad
        delta = np.sqrt(moved + group["eps"]) / np.sqrt(square + group["eps"]) * grad
        moved *= rho
        moved += (1 - rho) * delta * delta
        array -= group["lr"] * delta
