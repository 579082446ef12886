"""Averaged stochastic gradient descent (Polyak & Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..functional._arguments import real
from .optimizer import Optimizer, arrays_of, at_least_zero, fused


class ASGD(Optimizer):
    """p <- (1 - lambd eta) p - eta g, eta = lr / (1 + lambd lr t)^alpha.

    `state[param]["ax"]` is p, and the mean of p from step t0 + 2 on.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        options = dict(
            lr=lr, lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay, maximize=maximize
        )
        super().__init__(params, options)

    def check(self, op: str, options: dict[str, Any]) -> None:
        at_least_zero(op, options, "lr", "weight_decay", "lambd")
        real(op, "alpha", options["alpha"])
        real(op, "t0", options["t0"])

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        lr, lambd, step = group["lr"], group["lambd"], state["step"]
        eta, share = state.get("eta", lr), state.get("mu", 1.0)
        if "ax" not in state:
            share = 1.0
        states = arrays_of(state, array, "ax")
        update = fused("asgd", array, grad, states, group, 1 - lambd * eta, eta, share)
        state["eta"] = lr / (1 + lambd * lr * step) ** group["alpha"]
        state["mu"] = 1 / max(1, step - group["t0"])
        return update
